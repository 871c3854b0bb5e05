"""SHOW PROXYSESSION HISTORY: the client and server sessions that have ended.

Source: none but ours; ODP has no such statement.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import cast

from attrs import frozen
from twisted.internet.defer import Deferred
from zope.interface import implementer

from odptwist.answers import Answer, Column, ColumnType, Table, Value
from odptwist.errors import bad_proxy_statement
from odptwist.interfaces import IProxyStatement, ISessionDirectory, ITabular
from odptwist.snapshots import Asker, EndedSession
from odptwist.statements.grammar import TokenStream
from odptwist.statements.like import like
from odptwist.statements.pace import AT_ONCE, Pace

_ROWS_AT_ONCE = 100
_OWN_SESSION = -1


def _number(
    name: str, show: Callable[[EndedSession], int], kind: ColumnType = ColumnType.LONGLONG
) -> tuple[Column, Callable[[EndedSession], Value]]:
    return Column(name, kind), show


def _text(name: str, show: Callable[[EndedSession], str]) -> tuple[Column, Callable[[EndedSession], Value]]:
    return Column(name, ColumnType.VARCHAR), show


_COLUMNS = (
    _text("ended_at", lambda ended: datetime.fromtimestamp(ended.ended_at, UTC).isoformat(" ", "milliseconds")),
    _text("kind", lambda ended: ended.kind.value),
    _number("cs_id", lambda ended: ended.cs_id),
    _number("ss_id", lambda ended: ended.ss_id),
    (Column("seconds", ColumnType.DOUBLE), lambda ended: f"{ended.seconds:.3f}"),
    _text("Cluster", lambda ended: ended.identity.cluster if ended.identity else ""),
    _text("Tenant", lambda ended: ended.identity.tenant if ended.identity else ""),
    _text("User", lambda ended: ended.identity.user if ended.identity else ""),
    _text("Host", lambda ended: f"{ended.host}:{ended.port}" if ended.host else "localhost"),
    _text("server", lambda ended: str(ended.server) if ended.server else ""),
    _number("server_sessid", lambda ended: ended.server_sessid),
    _text("reason", lambda ended: ended.reason.value),
    _text("detail", lambda ended: ended.detail),
    _number("transaction_lost", lambda ended: int(ended.transaction_lost), ColumnType.LONG),
    _number("bytes_in", lambda ended: ended.bytes_in),
    _number("bytes_out", lambda ended: ended.bytes_out),
    _number("statements", lambda ended: ended.statements),
    _text("statement", lambda ended: ended.statement),
)
HISTORY_COLUMNS = tuple(column for column, _ in _COLUMNS)
"""The columns of the answer."""


@frozen
class HistoryList:
    """A request for the sessions that ended; those that `number` names, or all; whose reason fits the pattern."""

    number: int | None = None
    pattern: str = ""


@implementer(IProxyStatement, ITabular)
class ShowHistory:
    """`SHOW PROXYSESSION HISTORY [id] [LIKE 'pattern']`."""

    name = "show session history"
    first_words = ("SHOW",)

    def __init__(self, pace: Pace = AT_ONCE) -> None:
        self._pace = pace

    def parse(self, text: str) -> object | None:
        """Return a `HistoryList`, or None if the text does not begin with these three words."""
        stream = TokenStream(text)
        if not stream.take_head("SHOW", "PROXYSESSION") or not stream.take_word("HISTORY"):
            return None
        number = stream.take_integer()
        pattern = stream.take_name() if stream.take_word("LIKE") else ""
        if pattern is None or not stream.at_end():
            raise bad_proxy_statement("the proxy understands SHOW PROXYSESSION HISTORY [id] [LIKE 'pattern']")
        return HistoryList(number, pattern)

    def columns(self, request: object) -> Sequence[Column]:
        """Return them, whatever the request."""
        return HISTORY_COLUMNS

    def answer(self, request: object, asker: Asker, directory: ISessionDirectory) -> Deferred[Answer]:
        """Fire with a row for each session that ended and that the asker might have seen, the last one first."""
        return Deferred.fromCoroutine(self._list(cast(HistoryList, request), asker, directory))

    async def _list(self, request: HistoryList, asker: Asker, directory: ISessionDirectory) -> Answer:
        number = asker.cs_id if request.number == _OWN_SESSION else request.number
        rows = []
        for place, ended in enumerate(await directory.history(asker), 1):
            if number in (None, ended.cs_id, ended.server_sessid) and like(ended.reason.value, request.pattern):
                rows.append(tuple([show(ended) for _, show in _COLUMNS]))
            if not place % _ROWS_AT_ONCE:
                await self._pace.turn()
        return Table(HISTORY_COLUMNS, tuple(rows))
