r"""A WHERE over sessions, evaluated by SQLite in memory.

Source: SQLite's documentation, "SQL Language Expressions" and "Datatypes" (column affinity).

The text is cut into tokens by our own lexer and written anew for SQLite, never pasted. So what counts as a string, a
comment or a bracket is MySQL's notion: both kinds of quotes are strings with MySQL's escapes (in every sql_mode), names
may be in backticks, `&&` is AND, `<=>` is IS, and `||` (OR to MySQL, concatenation to SQLite) is refused. In SQLite,
text in double quotes is a name, or a string if there is no such name; none ever gets there.

What differs from MySQL: text compares by bytes (`User = 'App'` is not `'app'`; add COLLATE NOCASE), LIKE ignores the
case of ASCII letters only, a number is never equal to a text that does not spell it, GLOB exists and REGEXP does not.
`proxy_sessid` compares as text: exactly in `=`, `<>` and IN, while its order means nothing.

A condition cannot do harm: an authorizer allows one SELECT, the columns and `_FUNCTIONS`, all else fails when it is
compiled. No function or operator of these makes a text longer than the longest that goes in, so memory needs no other
bound; no opcode of SQLite runs longer than one LIKE of `_MAX_PATTERN` on `_MAX_TEXT` (some milliseconds), so the
progress handler, which is called between opcodes, can keep the time limit.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Sequence
from math import inf
from time import monotonic

from odptwist.errors import SqlError
from odptwist.snapshots import ClientSessionSnapshot
from odptwist.statements.grammar import Lexer, Token, TokenKind, unquote
from odptwist.statements.sessions import name_host, name_owner

_Value = int | float | str | None
_Reader = Callable[[ClientSessionSnapshot], _Value]

_COLUMNS: dict[str, tuple[str, _Reader]] = {
    # An unsigned 64-bit number: SQLite would make a REAL of it, to which its neighbours are equal.
    "proxy_sessid": ("TEXT", lambda session: str(session.proxy_sessid)),
    "Id": ("INTEGER", lambda session: session.cs_id),
    "Cluster": ("TEXT", lambda session: name_owner(session)[0]),
    "Tenant": ("TEXT", lambda session: name_owner(session)[1]),
    "User": ("TEXT", lambda session: name_owner(session)[2]),
    "Host": ("TEXT", name_host),
    "db": ("TEXT", lambda session: session.database),
    "trans_count": ("INTEGER", lambda session: session.transactions),
    "svr_session_count": ("INTEGER", lambda session: len(session.server_sessions)),
    "state": ("TEXT", lambda session: session.state),
    "tid": ("INTEGER", lambda session: session.tid),
    "pid": ("INTEGER", lambda session: session.pid),
    "activity": ("TEXT", lambda session: session.activity),
    "seconds": ("REAL", lambda session: session.seconds),
    "transaction_seconds": ("REAL", lambda session: session.transaction_seconds),
    "server": ("TEXT", lambda session: None if session.bound is None else str(session.bound.address)),
    "server_sessid": ("INTEGER", lambda session: None if session.bound is None else session.bound.server_sessid),
    "ss_id": ("INTEGER", lambda session: None if session.bound is None else session.bound.ss_id),
    "pinned": ("TEXT", lambda session: ", ".join(session.pins) or None),
    "program": ("TEXT", lambda session: session.program),
    "statement": ("TEXT", lambda session: session.statement),
}
COLUMN_NAMES = tuple(_COLUMNS)
"""What a condition can name, in any case: the columns of SHOW PROXYSESSION, then more."""

# A list of what is allowed, as SQLite's own grows. Left out: what reads or writes files or loads code (load_extension,
# fts3_tokenizer), what makes long texts of short ones (zeroblob, randomblob, printf, format, replace, hex, quote, char,
# group_concat, json_*), and what gives another answer each time (random, the dates), which no KILL should depend on.
_FUNCTIONS = frozenset(
    (
        *("like", "glob", "lower", "upper", "length", "substr", "substring", "instr", "trim", "ltrim", "rtrim"),
        *("abs", "round", "floor", "ceil", "ceiling", "mod", "sign", "min", "max"),
        *("coalesce", "ifnull", "nullif", "iif"),
    )
)
_TIME_LIMIT = 1.0
_OPCODES_BETWEEN_LOOKS = 20
_MAX_CONDITION = 8_192
_MAX_TEXT = 4_096  # characters of one value; a statement has 1,024 bytes, a client's name for itself may have 64 KiB
_MAX_PATTERN = 1_000
_MAX_MESSAGE = 200
_MAX_INTEGER = (1 << 63) - 1
_LIMITS = (
    (sqlite3.SQLITE_LIMIT_LENGTH, 65_536),
    (sqlite3.SQLITE_LIMIT_SQL_LENGTH, 32_768),
    (sqlite3.SQLITE_LIMIT_EXPR_DEPTH, 500),
    (sqlite3.SQLITE_LIMIT_VDBE_OP, 50_000),
    (sqlite3.SQLITE_LIMIT_FUNCTION_ARG, 32),
    (sqlite3.SQLITE_LIMIT_LIKE_PATTERN_LENGTH, _MAX_PATTERN),
    (sqlite3.SQLITE_LIMIT_VARIABLE_NUMBER, len(_COLUMNS)),
    (sqlite3.SQLITE_LIMIT_ATTACHED, 0),
    (sqlite3.SQLITE_LIMIT_TRIGGER_DEPTH, 0),
    (sqlite3.SQLITE_LIMIT_WORKER_THREADS, 0),
)

_SYMBOLS = frozenset("(),.=<>!+-*/%&|~")
_OPERATORS = {"!=": "!=", "<>": "<>", "<=": "<=", ">=": ">=", "<=>": "IS", "&&": "AND", "||": ""}


class Condition:
    """One boolean expression over the columns of `proxysession`.

    It holds some 35 KiB until `close`, and is bound to the thread that made it. `select` of one session takes 2 to 6
    microseconds for a simple expression: only the columns that the expression names are looked at.

    Args:
        text: the expression.
        time_limit: seconds that one `select` may take.

    Raises:
        SqlError: 1064, the text is not such an expression; 3024 as `select` does.
    """

    def __init__(self, text: str, time_limit: float = _TIME_LIMIT) -> None:
        self.text = text
        self._time_limit = time_limit
        self._deadline = monotonic() + time_limit
        self._late = False
        expression = _translate(text)
        self._connection = sqlite3.connect(":memory:", isolation_level=None, cached_statements=2)
        try:
            self._statement, self._readers = self._compile(expression)
        except BaseException:
            self.close()
            raise

    def select(self, sessions: Sequence[ClientSessionSnapshot]) -> list[ClientSessionSnapshot]:
        """Return those sessions, in their order, for which the expression is true (not false, not NULL).

        Not after `close`.

        Raises:
            SqlError: 3024 if it takes too long; 1064 if SQLite cannot evaluate the expression (an integer overflow).
        """
        self._deadline = monotonic() + self._time_limit
        return [each for each in sessions if self._holds(each)]

    def close(self) -> None:
        """Give back the memory. Harmless if done before."""
        self._connection.close()

    def _holds(self, session: ClientSessionSnapshot) -> bool:
        if self._is_late():
            raise _too_slow()
        return self._run(self._statement, [_bind(read(session)) for read in self._readers])

    def _compile(self, expression: str) -> tuple[str, tuple[_Reader, ...]]:
        """Check an expression against a table without rows.

        Returns:
            A statement that returns a row if the expression is true, and what gives its parameters. It takes the
            values as parameters, which is five times faster than putting a row into the table and out again.
        """
        connection = self._connection
        columns = ", ".join(f"{name} {affinity}" for name, (affinity, _) in _COLUMNS.items())
        connection.execute(f"CREATE TABLE proxysession ({columns})")
        for limit, size in _LIMITS:
            connection.setlimit(limit, size)
        guard = _Guard()
        connection.set_authorizer(guard.authorize)
        connection.set_progress_handler(self._is_late, _OPCODES_BETWEEN_LOOKS)
        # The WHERE, not the result, so that aggregate functions are errors.
        self._run(f"SELECT 1 FROM proxysession WHERE ({expression})", (), guard)  # noqa: S608 - see `_translate`
        read = [_COLUMNS[name] for name in guard.columns]
        # CAST gives each parameter the affinity of its column: Id = '7' compares numbers here, too.
        values = (
            f"CAST(?{number} AS {affinity}) AS {name}"
            for number, (name, (affinity, _)) in enumerate(zip(guard.columns, read, strict=True), 1)
        )
        source = f"SELECT {', '.join(values) or 'NULL'}"
        guard.selects = inf  # the expression has none of its own
        statement = f"SELECT 1 FROM ({source}) AS proxysession WHERE ({expression})"  # noqa: S608 - see `_translate`
        return statement, tuple(reader for _, reader in read)

    def _run(self, statement: str, values: Sequence[_Value], guard: _Guard | None = None) -> bool:
        try:
            return self._connection.execute(statement, values).fetchone() is not None
        except sqlite3.Error as error:
            if self._late:
                raise _too_slow() from None
            raise _refuse((guard.refused if guard else "") or str(error)) from None

    def _is_late(self) -> bool:
        self._late = monotonic() > self._deadline
        return self._late


class _Guard:
    """Says what a statement may do while SQLite compiles it.

    `selects` is how many SELECTs may still come, `columns` those of the table that are read, `refused` why it failed,
    where SQLite would only say that it was not authorized.
    """

    def __init__(self) -> None:
        self.selects: float = 1
        self.columns: dict[str, None] = {}
        self.refused = ""

    def authorize(
        self, action: int, first: str | None, second: str | None, _database: str | None, _trigger: str | None
    ) -> int:
        """Return SQLITE_OK or SQLITE_DENY."""
        allowed = False
        if action == sqlite3.SQLITE_SELECT:
            self.selects -= 1
            allowed = self.selects >= 0
            if not allowed:
                self.refused = "subselects are not allowed"
        elif action == sqlite3.SQLITE_FUNCTION:
            allowed = second is not None and second.lower() in _FUNCTIONS
        elif action == sqlite3.SQLITE_READ and first == "proxysession":
            allowed = not second or second in _COLUMNS  # an empty name: no column is read
            if second and allowed:
                self.columns[second] = None
        return sqlite3.SQLITE_OK if allowed else sqlite3.SQLITE_DENY


def _translate(text: str) -> str:
    """Write a condition anew for SQLite.

    Raises:
        SqlError: 1064, it is empty, too long, holds what neither knows, or its brackets do not match.
    """
    if len(text) > _MAX_CONDITION:
        raise _refuse(f"the condition is longer than {_MAX_CONDITION:,} characters")
    lexer, tokens = Lexer(text), list[Token]()
    while (token := lexer.next()).kind is not TokenKind.END:
        tokens.append(token)
    if not tokens:
        raise _refuse("the condition is empty")
    pieces: list[str] = []
    depth, operator, end = 0, "", 0
    for index, token in enumerate(tokens):
        joined = operator + token.text if token.start == end else ""
        end = token.end
        if joined in _OPERATORS:
            operator = joined
            pieces[-1] = _OPERATORS[joined]
            if not pieces[-1]:
                raise _refuse("|| is not understood in a condition: write OR")
            continue
        operator = token.text if token.kind is TokenKind.SYMBOL else ""
        depth += (operator == "(") - (operator == ")")
        if depth < 0:
            break
        pieces.append(_translate_token(token))
        if _has_mysql_pattern(tokens, index):
            pieces.append(r"ESCAPE '\'")
    if depth:
        raise _refuse("the brackets of the condition do not match")
    translated = " ".join(pieces)
    if "\0" in translated or (not translated.isascii() and _with_surrogates(translated)):
        raise _refuse("the condition is not UTF-8 text")
    return translated


def _translate_token(token: Token) -> str:
    text = token.text
    match token.kind:
        case TokenKind.QUOTED if text[0] != "`":
            return "'" + unquote(text).replace("'", "''") + "'"
        case TokenKind.BROKEN:
            raise _refuse("a string, name or comment of the condition has no end")
        case TokenKind.SYMBOL if text not in _SYMBOLS:
            raise _refuse(f"{text} is not understood in a condition")
        case TokenKind.EXECUTABLE:
            raise _refuse("executable comments are not understood in a condition")
        case TokenKind.WORD if token.word in ("REGEXP", "RLIKE", "MATCH"):
            raise _refuse(f"{token.word} is not understood in a condition: write LIKE or GLOB")
        case TokenKind.NUMBER if text.isdecimal() and text.isascii():  # 18 digits or more, see `proxy_sessid`
            return f"'{text}'"
        case TokenKind.WORD if text[0] == "$":  # a parameter to SQLite
            raise _refuse(f"no such column: {text}")
    return text


def _has_mysql_pattern(tokens: Sequence[Token], index: int) -> bool:
    r"""Say whether a token is a pattern whose backslashes MySQL takes for escapes: `LIKE 'my\_app%'`.

    SQLite's LIKE knows none by itself, and would hit other sessions, or none.
    """
    token = tokens[index]
    return (
        token.kind is TokenKind.QUOTED
        and token.text[0] != "`"
        and "\\" in token.text
        and "\\" in unquote(token.text)
        and index > 0
        and tokens[index - 1].word == "LIKE"
        and (index + 1 == len(tokens) or tokens[index + 1].word != "ESCAPE")
    )


def _bind(value: _Value) -> _Value:
    """Return what SQLite takes for a value of a snapshot; what is not UTF-8 text becomes a question mark."""
    if isinstance(value, str):
        # To LIKE and length() a text ends at its first NUL: the rest of a statement could hide from a condition there.
        text = value[:_MAX_TEXT].replace("\0", "?")
        return text if text.isascii() else text.encode("utf-8", "replace").decode("utf-8")
    if isinstance(value, int):
        return min(value, _MAX_INTEGER)  # no number of ours is larger
    return value


def _with_surrogates(text: str) -> bool:
    return text.encode("utf-8", "replace").decode("utf-8") != text


def _refuse(why: str) -> SqlError:
    return SqlError(1064, "42000", f"WHERE: {why}"[:_MAX_MESSAGE])


def _too_slow() -> SqlError:
    return SqlError(3024, "HY000", "Query execution was interrupted, maximum statement execution time exceeded")
