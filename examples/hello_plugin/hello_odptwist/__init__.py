"""One plugin of each kind that odptwist knows: a statement, an observer and a router."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from twisted.internet.defer import Deferred
from twisted.plugin import IPlugin
from zope.interface import implementer

from odptwist.answers import Answer, Column, ColumnType, Table
from odptwist.errors import CloseReason
from odptwist.identity import Identity
from odptwist.interfaces import IProxyStatement, IRouter, ISessionDirectory, ISessionObserver
from odptwist.snapshots import Address, Asker, ClientSessionSnapshot, Purpose, ServerStanding


@implementer(IPlugin, ISessionObserver)
class ClosedCounter:
    """Counts the sessions that ended, by reason, and the statements that finished."""

    def __init__(self) -> None:
        self.closed: Counter[str] = Counter()
        self.statements = 0

    def session_opened(self, session: ClientSessionSnapshot) -> None:
        """Be told of a login; this observer does not mind."""

    def statement_finished(self, cs_id: int, statement: bytes, seconds: float, error: int) -> None:
        """Count a statement."""
        self.statements += 1

    def session_closed(self, session: ClientSessionSnapshot, reason: CloseReason, detail: str) -> None:
        """Count a session."""
        self.closed[reason.value] += 1


@implementer(IPlugin, IProxyStatement)
class Ping:
    """`PING ODPTWIST`: who asks, how many sessions they may see, and what a `ClosedCounter` has counted."""

    name = "ping odptwist"
    first_words = ("PING",)

    def __init__(self, counter: ClosedCounter) -> None:
        self._counter = counter

    def parse(self, text: str) -> object | None:
        """Return a request (any object) if the text is this statement."""
        words = text.upper().rstrip("; \t\r\n").split()
        return "ping" if words == ["PING", "ODPTWIST"] else None

    def answer(self, request: object, asker: Asker, directory: ISessionDirectory) -> Deferred[Answer]:
        """Fire with a table of names and values."""
        return Deferred.fromCoroutine(self._answer(asker, directory))

    async def _answer(self, asker: Asker, directory: ISessionDirectory) -> Answer:
        visible = await directory.sessions(asker)
        rows = [
            ("asker", str(asker.identity)),
            ("visible sessions", str(len(visible))),
            ("statements", str(self._counter.statements)),
            *((f"closed: {reason}", str(count)) for reason, count in sorted(self._counter.closed.items())),
        ]
        return Table((Column("name", ColumnType.VARCHAR), Column("value", ColumnType.VARCHAR)), tuple(rows))


@implementer(IPlugin, IRouter)
class TurnRouter:
    """Sends each login to the next server in turn; the others stand by."""

    def __init__(self) -> None:
        self._turn = 0

    def choose_servers(
        self, identity: Identity, servers: Sequence[ServerStanding], purpose: Purpose
    ) -> Sequence[Address]:
        """Return the servers, beginning with another one each time."""
        start = self._turn % len(servers)
        self._turn += 1
        return tuple(each.address for each in (*servers[start:], *servers[:start]))
