"""A SELECT over sessions, evaluated by SQLite in memory, in parts that keep nobody waiting.

Source: SQLite's documentation, "SELECT".

The sessions come one by one and are put into a table; that has only the columns that the query reads. The query itself
is one step of SQLite, which cannot be cut, so it is done aside (in another thread). Its result goes into a table of its
own: from there it is read in parts again.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import suppress
from threading import Lock

from attrs import frozen

from odptwist.statements.columns import SESSION_COLUMNS, SqlValue
from odptwist.statements.grammar import Lexer, TokenKind
from odptwist.statements.sandbox import COLUMNS, TIME_LIMIT, Sandbox, bind, table
from odptwist.statements.translation import refuse, translate
from odptwist.views import SessionView

AT_ONCE = 100
"""How many rows go in or come out in one go: some 0.3 ms."""
# Another thread has to wait up to 5 ms for Python's lock to call Python, so it looks at the clock less often: after
# some 0.3 ms, or some seconds of nothing but the longest LIKEs.
_OPCODES_BETWEEN_LOOKS_ASIDE = 5_000
_MAX_PAGES = 16_384  # of 4 KiB each, for both tables
_NAME_SIZE = 64  # characters of a result's name, MySQL's limit


@frozen
class QueryText:
    """The clauses of a query as the client wrote them, without their words; empty for none.

    `limit` is how many rows at most, None for all.
    """

    results: str
    where: str = ""
    group: str = ""
    having: str = ""
    order: str = ""
    limit: int | None = None


class Query:
    """One query over `proxysession`. `add` every session, `run` it once, read the `parts` of its result, `close` it.

    Attributes:
        names: of its results.

    Args:
        text: its clauses.
        time_limit: seconds that `run` may take.

    Raises:
        SqlError: 1064, it is not such a query.
    """

    def __init__(self, text: QueryText, time_limit: float = TIME_LIMIT) -> None:
        results = _translate_results(text.results)
        select = _translate_select(text, ", ".join(translated for _, translated in results))
        self._lock = Lock()
        self._running = self._closed = False
        self._waiting: list[list[SqlValue]] = []
        self._sandbox = sandbox = Sandbox(time_limit, "SELECT", aggregates=True)
        try:
            columns, given = sandbox.check(select)
            if len(given) != len(results):
                raise refuse("* stands alone, without a name before it", "SELECT")
            # A result without an alias is called as the client wrote it; SQLite calls it by its translation.
            self.names = tuple(
                (written if name == translated else name)[:_NAME_SIZE]
                for name, (written, translated) in zip(given, results, strict=True)
            )
            # A table needs a column, even if the query reads none: count(*).
            columns = columns or [COLUMNS["Id"]]
            self._looks = [each.look for each in columns]
            sandbox.trust()
            cells = ", ".join(f"c{place}" for place in range(len(given)))
            for statement in (
                f"PRAGMA max_page_count = {_MAX_PAGES}",
                "PRAGMA journal_mode = OFF",
                "PRAGMA temp_store = MEMORY",  # a sort must not write files
                "DROP TABLE proxysession",
                table(columns),
                f"CREATE TABLE result ({cells})",
                "BEGIN",
            ):
                sandbox.run(statement)
        except BaseException:
            sandbox.close()
            raise
        self._insert = f"INSERT INTO proxysession VALUES ({', '.join('?' * len(columns))})"  # noqa: S608 - only marks
        self._select = f"INSERT INTO result {select}"

    def add(self, session: SessionView) -> None:
        """Take a session in."""
        self._waiting.append([bind(look(session)) for look in self._looks])
        if len(self._waiting) >= AT_ONCE:
            self._insert_waiting()

    def run(self) -> None:
        """Evaluate; may be called in another thread.

        Raises:
            SqlError: 3024 if it takes too long; 1064 if SQLite cannot evaluate it; 4024 if the result is too large.
        """
        with self._lock:
            if self._closed:
                return
            self._running = True
        try:
            self._insert_waiting()
            self._sandbox.restart()
            self._sandbox.look_every(_OPCODES_BETWEEN_LOOKS_ASIDE)
            self._sandbox.run(self._select)
        finally:
            with self._lock:
                self._running = False
                if self._closed:
                    self._sandbox.close()

    def parts(self) -> Iterator[list[tuple[SqlValue, ...]]]:
        """Yield the rows of the result, `AT_ONCE` at a time."""
        rows = self._sandbox.run("SELECT * FROM result ORDER BY rowid")
        while part := rows.fetchmany(AT_ONCE):
            self._sandbox.restart()
            yield part

    def close(self) -> None:
        """Give back the memory; if it runs in another thread, it is stopped and does so as soon as it can."""
        with self._lock:
            if self._running:
                self._closed = True
                with suppress(sqlite3.Error):
                    self._sandbox.connection.interrupt()
            elif not self._closed:
                self._closed = True
                self._sandbox.close()

    def _insert_waiting(self) -> None:
        rows, self._waiting = self._waiting, []
        self._sandbox.restart()
        self._sandbox.add(self._insert, rows)


def _translate_select(text: QueryText, results: str) -> str:
    select = f"SELECT {results} FROM proxysession"  # noqa: S608 - translated
    if text.where:
        select += f" WHERE ({translate(text.where)})"
    if text.group:
        select += f" GROUP BY {translate(text.group, 'GROUP BY')}"
    if text.having:
        select += f" HAVING ({translate(text.having, 'HAVING')})"
    if text.order:
        select += f" ORDER BY {translate(text.order, 'ORDER BY')}"
    return select if text.limit is None else f"{select} LIMIT {text.limit}"


def _translate_results(text: str) -> list[tuple[str, str]]:
    """Return each result as it was written and translated."""
    pieces: list[tuple[str, str]] = []
    for piece in _split(text):
        if piece == "*":
            pieces += ((each.name, each.name) for each in SESSION_COLUMNS)
        else:
            pieces.append((piece, translate(piece, "SELECT")))
    return pieces


def _split(text: str) -> list[str]:
    """Return what stands between commas outside of brackets."""
    lexer, pieces = Lexer(text), list[str]()
    start = depth = 0
    while True:
        token = lexer.next()
        if token.kind is TokenKind.END or (token.text == "," and not depth):
            pieces.append(text[start : token.start].strip())
            start = token.end
            if token.kind is TokenKind.END:
                return pieces
        depth += (token.text == "(") - (token.text == ")")
