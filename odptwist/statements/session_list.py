"""SHOW [FULL] PROXYSESSION [WHERE ...] and SELECT ... FROM proxysession: the list of client sessions.

Source: spec sections 1.2, 2.1 and 2.2 for SHOW PROXYSESSION; the rest is ours.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from contextlib import closing
from operator import itemgetter
from typing import cast

from attrs import evolve, frozen
from twisted.internet.defer import Deferred
from zope.interface import implementer

from odptwist.answers import Answer, Column, ColumnType, Table, Value
from odptwist.errors import bad_proxy_statement
from odptwist.interfaces import IMarkedStatement, IProxyStatement, ISessionDirectory, ITabular
from odptwist.snapshots import Asker
from odptwist.statements.columns import LIST_COLUMNS, SESSION_COLUMNS, SessionColumn, SqlValue
from odptwist.statements.grammar import TokenStream
from odptwist.statements.pace import AT_ONCE, Pace
from odptwist.statements.query import Query, QueryText
from odptwist.statements.servers import check_may_see_proxy
from odptwist.views import SessionView

_FROM = re.compile(r"\bFROM\s+proxysession\b", re.IGNORECASE)
_CLAUSES = frozenset(("WHERE", "GROUP", "HAVING", "ORDER", "LIMIT"))
_NOTHING = " "  # as an expression: an error, where empty would mean that there is no such clause
_UNDERSTOOD = "the proxy understands SHOW [FULL] PROXYSESSION [WHERE condition [ORDER BY ...] [LIMIT n]]"
_SELECT_UNDERSTOOD = (
    "the proxy understands SELECT ... FROM proxysession [WHERE condition] [GROUP BY ...] [HAVING condition] "
    "[ORDER BY ...] [LIMIT n]; a table of that name is reached as database.proxysession"
)

Row = tuple[Value, ...]


@frozen
class SessionList:
    """A request for the list, with all columns if it is `full`; `query` gives the Ids of its rows, None for all."""

    full: bool = False
    query: QueryText | None = None

    @property
    def columns(self) -> tuple[SessionColumn, ...]:
        """Return its columns."""
        return SESSION_COLUMNS if self.full else LIST_COLUMNS


@implementer(IProxyStatement, ITabular)
class ShowSessions:
    """`SHOW [FULL] PROXYSESSION [WHERE condition [ORDER BY ...] [LIMIT n]]`.

    It refuses every other text that begins so, and must be asked after the statements that know more.
    """

    name = "show sessions"
    first_words = ("SHOW",)

    def __init__(self, pace: Pace = AT_ONCE) -> None:
        self._pace = pace

    def parse(self, text: str) -> object | None:
        """Return a `SessionList`, or None if the text does not begin with SHOW [FULL] PROXYSESSION.

        Raises:
            SqlError: 5010 if it goes on otherwise; 1064 if the condition or the order is none.
        """
        stream = TokenStream(text)
        full = False
        if not stream.take_head("SHOW", "PROXYSESSION"):
            full = stream.take_word("SHOW") and stream.take_head("FULL", "PROXYSESSION")
            if not full:
                return None
        query = None
        if stream.take_word("WHERE"):
            query = _take_clauses(stream, QueryText("Id", stream.take_expression(_CLAUSES) or _NOTHING))
        if not stream.at_end():
            raise bad_proxy_statement(_UNDERSTOOD)
        if query is not None:
            query = query if query.order else evolve(query, order="Id")
            Query(query).close()  # made again for the answer, which may come much later or never
        return SessionList(full, query)

    def columns(self, request: object) -> Sequence[Column]:
        """Return the 12 columns, or all."""
        return [each.column for each in cast(SessionList, request).columns]

    def answer(self, request: object, asker: Asker, directory: ISessionDirectory) -> Deferred[Answer]:
        """Fire with a row for each session that the asker may see and the condition selects; by rising Id.

        Fails with 1064, 3024 or 4024 as the query does.
        """
        if not isinstance(request, SessionList):
            raise TypeError(f"not a request of this statement: {request!r}")
        return Deferred.fromCoroutine(self._list(request, asker, directory))

    async def _list(self, request: SessionList, asker: Asker, directory: ISessionDirectory) -> Answer:
        columns = tuple(self.columns(request))
        shows = [each.show for each in request.columns]
        rows: dict[int, Row] = {}

        def list_session(session: SessionView) -> None:
            rows[session.cs_id] = tuple([show(session) for show in shows])

        if request.query is None:
            await directory.visit(asker, list_session)
            return Table(columns, tuple(rows.values()))
        with closing(Query(request.query)) as query:

            def take(session: SessionView) -> None:
                list_session(session)
                query.add(session)

            await directory.visit(asker, take)
            await self._pace.aside(query.run)
            chosen: list[Row] = []
            for part in query.parts():
                chosen += [rows[number] for (number,) in part if isinstance(number, int)]
                await self._pace.turn()
            return Table(columns, tuple(chosen))


@implementer(IMarkedStatement)
class SelectSessions:
    """`SELECT ... FROM proxysession [WHERE ...] [GROUP BY ...] [HAVING ...] [ORDER BY ...] [LIMIT n]`.

    For those who may see the proxy as a whole. A text whose first
    FROM names anything else is for the server.
    """

    name = "select sessions"
    first_words = ("SELECT",)

    def __init__(self, pace: Pace = AT_ONCE) -> None:
        self._pace = pace

    def parse(self, text: str) -> object | None:
        """Return a `QueryText`, or None if the text does not select from `proxysession`.

        Raises:
            SqlError: 5010 if a clause is none that is understood; 1064 if an expression is none.
        """
        if _FROM.search(text) is None:
            return None
        stream = TokenStream(text)
        if not stream.take_word("SELECT"):
            return None
        results = stream.take_until(("FROM",))
        if not stream.take_word("FROM") or not stream.take_word("PROXYSESSION"):
            return None
        query = QueryText(results)
        if stream.take_word("WHERE"):
            query = evolve(query, where=stream.take_expression(_CLAUSES) or _NOTHING)
        query = _take_clauses(stream, query, grouping=True)
        if not stream.at_end():
            if query == QueryText(results):
                return None  # another table's alias, or one of several tables
            raise bad_proxy_statement(_SELECT_UNDERSTOOD)
        Query(query).close()
        return query

    def answer(self, request: object, asker: Asker, directory: ISessionDirectory) -> Deferred[Answer]:
        """Fire with the result over all sessions that the asker may see.

        Fails with 1227 if the asker may not see the proxy as a whole; with 1064, 3024 or 4024 as the query does.
        """
        if not isinstance(request, QueryText):
            raise TypeError(f"not a request of this statement: {request!r}")
        return Deferred.fromCoroutine(self._select(request, asker, directory))

    async def _select(self, request: QueryText, asker: Asker, directory: ISessionDirectory) -> Answer:
        await check_may_see_proxy(asker, directory)
        with closing(Query(request)) as query:
            await directory.visit(asker, query.add)
            await self._pace.aside(query.run)
            kinds: list[set[type]] = [set() for _ in query.names]
            rows: list[Row] = []
            for part in query.parts():
                for place, found in enumerate(kinds):
                    found.update(map(type, map(itemgetter(place), part)))
                rows += [tuple([_show(value) for value in row]) for row in part]
                await self._pace.turn()
            return Table(tuple(map(_column, query.names, kinds)), tuple(rows))


def _take_clauses(stream: TokenStream, query: QueryText, grouping: bool = False) -> QueryText:
    """Consume the clauses that come next, each at most once and in SQL's order, and add them to a query."""
    if grouping and stream.take_word("GROUP"):
        if not stream.take_word("BY"):
            raise bad_proxy_statement("GROUP is followed by BY")
        query = evolve(query, group=stream.take_expression(_CLAUSES) or _NOTHING)
    if grouping and stream.take_word("HAVING"):
        query = evolve(query, having=stream.take_expression(_CLAUSES) or _NOTHING)
    if stream.take_word("ORDER"):
        if not stream.take_word("BY"):
            raise bad_proxy_statement("ORDER is followed by BY")
        query = evolve(query, order=stream.take_expression(_CLAUSES) or _NOTHING)
    if stream.take_word("LIMIT"):
        limit = stream.take_count()
        if limit is None or limit < 0:
            raise bad_proxy_statement("LIMIT is followed by an integer that is not negative")
        query = evolve(query, limit=limit)
    return query


def _column(name: str, kinds: set[type]) -> Column:
    """Return the column of a result, whose type only its values tell."""
    kinds = kinds - {type(None)}
    if not kinds or str in kinds:
        return Column(name, ColumnType.VARCHAR)
    return Column(name, ColumnType.DOUBLE if float in kinds else ColumnType.LONGLONG)


def _show(value: SqlValue) -> Value:
    return f"{value:.6f}" if isinstance(value, float) else value
