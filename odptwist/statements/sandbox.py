"""SQLite in memory, locked up so that an expression over sessions can do no harm.

Source: SQLite's documentation, "Compile-Time Authorization Callbacks" and "Run-Time Limits".

An authorizer allows what a statement of ours needs, the columns of `proxysession` and lists of functions; all else
fails when it is compiled. None of these functions and operators makes a text longer than the longest that goes in, so
one expression needs no other bound of its memory; a table has its own. No opcode of SQLite runs longer than one LIKE of
`_MAX_PATTERN` on `_MAX_TEXT` (some milliseconds), so the progress handler, which is called between opcodes, can keep
a time limit.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Sequence
from math import inf
from time import monotonic

from odptwist.errors import SqlError
from odptwist.statements.columns import SESSION_COLUMNS, SessionColumn, SqlValue
from odptwist.statements.translation import refuse, too_slow

TIME_LIMIT = 1.0
"""Seconds that an expression may take, over all sessions."""
COLUMNS = {each.name: each for each in SESSION_COLUMNS}

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
_AGGREGATES = frozenset(("count", "sum", "total", "avg"))  # `min` and `max` of one argument are in the list above
_OPCODES_BETWEEN_LOOKS = 20
_MAX_TEXT = 4_096  # characters of one value; a statement has 1,024 bytes, a client's name for itself may have 64 KiB
_MAX_PATTERN = 1_000
_MAX_INTEGER = (1 << 63) - 1
_LIMITS = (
    (sqlite3.SQLITE_LIMIT_LENGTH, 65_536),
    (sqlite3.SQLITE_LIMIT_SQL_LENGTH, 65_536),
    (sqlite3.SQLITE_LIMIT_EXPR_DEPTH, 500),
    (sqlite3.SQLITE_LIMIT_COLUMN, 200),
    (sqlite3.SQLITE_LIMIT_COMPOUND_SELECT, 1),
    (sqlite3.SQLITE_LIMIT_VDBE_OP, 50_000),
    (sqlite3.SQLITE_LIMIT_FUNCTION_ARG, 32),
    (sqlite3.SQLITE_LIMIT_LIKE_PATTERN_LENGTH, _MAX_PATTERN),
    (sqlite3.SQLITE_LIMIT_VARIABLE_NUMBER, len(COLUMNS)),
    (sqlite3.SQLITE_LIMIT_ATTACHED, 0),
    (sqlite3.SQLITE_LIMIT_TRIGGER_DEPTH, 0),
    (sqlite3.SQLITE_LIMIT_WORKER_THREADS, 0),
)


class Sandbox:
    """A connection with the empty table `proxysession`, on which statements are compiled under an authorizer.

    It holds some 35 KiB until `close`.

    Attributes:
        connection: SQLite's.

    Args:
        time_limit: seconds from now, and from each `restart`, until what runs is stopped.
        clause: what errors begin with.
        aggregates: whether aggregate functions are understood.
    """

    def __init__(self, time_limit: float = TIME_LIMIT, clause: str = "WHERE", aggregates: bool = False) -> None:
        self._time_limit = time_limit
        self._clause = clause
        self._late = False
        self.restart()
        self._guard = _Guard(_FUNCTIONS | _AGGREGATES if aggregates else _FUNCTIONS)
        # Several threads may use it, one at a time: `Query` runs aside.
        self.connection = sqlite3.connect(
            ":memory:", isolation_level=None, cached_statements=2, check_same_thread=False
        )
        try:
            self.connection.execute(table(SESSION_COLUMNS))
            for limit, size in _LIMITS:
                self.connection.setlimit(limit, size)
            self.connection.set_authorizer(self._guard.authorize)
            self.look_every(_OPCODES_BETWEEN_LOOKS)
        except BaseException:
            self.close()
            raise

    def look_every(self, opcodes: int) -> None:
        """Look at the clock after so many opcodes of SQLite."""
        self.connection.set_progress_handler(self.is_late, opcodes)

    def check(self, statement: str) -> tuple[list[SessionColumn], list[str]]:
        """Compile a SELECT and run it on the empty table.

        Returns:
            The columns of `proxysession` that it reads, and the names of its results.

        Raises:
            SqlError: it may not run, or makes no sense.
        """
        self._guard.selects, self._guard.columns = 1, {}
        cursor = self._execute(statement, ())
        return [COLUMNS[name] for name in self._guard.columns], [name for name, *_ in cursor.description]

    def trust(self) -> None:
        """Be without the authorizer from now on: only statements of ours, or that were checked, come."""
        self._guard.selects = inf
        self.connection.set_authorizer(None)

    def run(self, statement: str, values: Sequence[SqlValue] = ()) -> sqlite3.Cursor:
        """Execute a statement and return its cursor, at the first row; `SqlError` as `check`."""
        return self._execute(statement, values)

    def add(self, statement: str, rows: Iterable[Sequence[SqlValue]]) -> None:
        """Execute a statement with each row of parameters."""
        try:
            self.connection.executemany(statement, rows)
        except sqlite3.Error as error:
            raise self._refusal(error) from None

    def close(self) -> None:
        """Give back the memory. Harmless if done before."""
        self.connection.close()

    def restart(self, seconds: float | None = None) -> float:
        """Let the time begin anew, of so many seconds if they are not the `time_limit`; return what the clock says."""
        now = monotonic()
        self._deadline = now + (self._time_limit if seconds is None else seconds)
        return now

    def is_late(self) -> bool:
        """Say whether the time is up."""
        self._late = monotonic() > self._deadline
        return self._late

    def _execute(self, statement: str, values: Sequence[SqlValue]) -> sqlite3.Cursor:
        try:
            return self.connection.execute(statement, values)
        except sqlite3.Error as error:
            raise self._refusal(error) from None

    def _refusal(self, error: sqlite3.Error) -> SqlError:
        if self._late:
            return too_slow()
        if getattr(error, "sqlite_errorcode", 0) == sqlite3.SQLITE_FULL:
            return SqlError(4024, "HY000", "Buffer not enough")  # as ODP says it
        return refuse(self._guard.refused or str(error), self._clause)


def table(columns: Iterable[SessionColumn]) -> str:
    """Return the statement that creates `proxysession` with these columns."""
    return f"CREATE TABLE proxysession ({', '.join(f'{each.name} {each.affinity}' for each in columns)})"


def bind(value: SqlValue) -> SqlValue:
    """Return what SQLite takes for a value of a snapshot; what is not UTF-8 text becomes a question mark."""
    if isinstance(value, str):
        # To LIKE and length() a text ends at its first NUL: the rest of a statement could hide from a condition there.
        text = value[:_MAX_TEXT].replace("\0", "?")
        return text if text.isascii() else text.encode("utf-8", "replace").decode("utf-8")
    if isinstance(value, int):
        return min(value, _MAX_INTEGER)  # no number of ours is larger
    return value


class _Guard:
    """Says what a statement may do while SQLite compiles it.

    `selects` is how many SELECTs may still come, `columns` those of the table that are read, `refused` why it failed,
    where SQLite would only say that it was not authorized.
    """

    def __init__(self, functions: frozenset[str]) -> None:
        self.selects: float = 1
        self.columns: dict[str, None] = {}
        self.refused = ""
        self._functions = functions

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
            allowed = second is not None and second.lower() in self._functions
        elif action == sqlite3.SQLITE_READ and first == "proxysession":
            allowed = not second or second in COLUMNS  # an empty name: no column is read
            if second and allowed:
                self.columns[second] = None
        return sqlite3.SQLITE_OK if allowed else sqlite3.SQLITE_DENY
