"""A server session: one connection from the proxy to a server, owned by exactly one client session."""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum, unique
from typing import Any
from typing import Protocol as Shape

from twisted.internet.interfaces import IPushProducer
from twisted.internet.protocol import connectionDone
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from odptwist.errors import CloseReason, ResponseOverrun, WireError
from odptwist.identity import Identity, legible
from odptwist.machines.exchange import Tracker
from odptwist.machines.prepared import STATEMENTS_LIMIT, ServerStatements
from odptwist.sessions.counting import Counts
from odptwist.sessions.dialogue import Dialogue
from odptwist.sessions.encryption import explain
from odptwist.sessions.history import DETAIL_SIZE
from odptwist.sessions.peer import Peer
from odptwist.sessions.surroundings import Surroundings
from odptwist.snapshots import UNCHANGED, Address, EndedSession, ServerSessionSnapshot, SessionKind
from odptwist.wire.constants import COM_QUIT, SERVER_STATUS_IN_TRANS
from odptwist.wire.framing import frame
from odptwist.wire.prepared import PrepareReply
from odptwist.wire.responses import parse_err


@unique
class ServerState(Enum):
    """ODP's words for where a server session stands (spec 4.2)."""

    INIT = "MSS_INIT"
    ACTIVE = "MSS_ACTIVE"
    KEPT = "MSS_KA_CLIENT_SLAVE"
    POOLED = "MSS_KA_SHARED"


class Owner(Shape):
    """What a server session needs of its client session."""

    tracker: Tracker
    transport: Any
    bytes_out: int
    counts: Counts

    def takes_back(self, session: ServerSession, response: bytes) -> bool:
        """Be shown an error that is a whole response, and say whether it is kept from the client."""

    def responded(self) -> None:
        """Be told that the response in flight has ended and was passed on."""

    def server_full(self, full: bool) -> None:
        """Be told whether the server has stopped taking what the client sends."""

    def server_lost(self, session: ServerSession, detail: str) -> None:
        """Be told that a server session ended that nobody dropped."""

    def server_broke(self, session: ServerSession, fault: WireError) -> None:
        """Be told that a server broke the protocol in the response in flight."""


class Client(Shape):
    """What the history wants to know of the client session that a server session was opened for."""

    cs_id: int
    identity: Identity | None
    peer: Peer
    status: int
    counts: Counts

    @property
    def text(self) -> str:
        """The beginning of the SQL text that runs now or ran last."""


@implementer(IPushProducer)
class ServerSession(Dialogue):
    """Talks to a server for its owner, between the dialogues of the proxy's own.

    Attributes:
        ss_id: this proxy's number of it; 0 for one that no client session owns.
        owner: the client session whose exchanges it carries; None before the login, at rest and after a drop.
        keeper: the client session in whose pool it rests, or None.
        synced: the `serial` of its client session's state that it has caught up with; None before the first time.
        prepared: what it has prepared; None as long as that is nothing.
        prepared_limit: how many statements it can have prepared, as far as is known.
        killed: who made the server end it, as a text; empty as long as nobody did.
        holds: kills in flight that name this session; its owner sends nothing new meanwhile.
        client: the client session that it was opened for, until it has ended; None for one of the proxy's own.
        transaction_lost: whether it was taken from its client session amid a transaction.
        bytes_in: how many came from the server after the login.
        bytes_out: how many commands' bytes went to it.
        diverted: whether something else than this session takes what comes, for a while or for good.
    """

    __slots__ = (
        "_farewell",
        "bytes_in",
        "bytes_out",
        "client",
        "diverted",
        "holds",
        "keeper",
        "killed",
        "owner",
        "prepared",
        "prepared_limit",
        "ss_id",
        "synced",
        "transaction_lost",
        "versions",
    )

    _log = Logger()

    def __init__(self, ss_id: int, address: Address, surroundings: Surroundings) -> None:
        super().__init__(address, surroundings)
        self.ss_id = ss_id
        self.owner: Owner | None = None
        self.keeper: Owner | None = None
        self.synced: int | None = None
        self.prepared: ServerStatements | None = None
        self.prepared_limit = STATEMENTS_LIMIT
        self.holds = 0
        self.killed = ""
        self.client: Client | None = None
        self.transaction_lost = False
        self.bytes_in = self.bytes_out = 0
        self.versions = UNCHANGED
        self.diverted = False
        self._farewell = ""

    # -- as Twisted calls it -------------------------------------------------------------------------------------

    def connectionMade(self) -> None:
        """Be connected."""
        self.transport.registerProducer(self, True)
        super().connectionMade()

    def dataReceived(self, data: bytes) -> None:
        """Pass on a chunk of a response, or feed a dialogue."""
        owner = self.owner
        size = len(data)
        self.bytes_in += size
        if self._inbox is None and owner is not None:
            owner.bytes_out += size
            tracker = owner.tracker
            fresh = not tracker.answered
            try:
                ended = tracker.server(data)
            except ResponseOverrun as overrun:
                # Often a farewell right behind a response: "Connection was killed", "Server shutdown in progress".
                owner.transport.write(data[: -overrun.size])
                owner.responded()
                self._unasked(data[-overrun.size :])
                return
            except WireError as fault:
                if tracker.awaiting:
                    owner.server_broke(self, fault)
                else:
                    self._unasked(data)
                return
            if ended:
                if tracker.error:
                    owner.counts.errors += 1
                    if fresh and owner.takes_back(self, data):
                        return
                owner.transport.write(data)
                owner.responded()
            else:
                owner.transport.write(data)
        elif self._inbox is not None:
            self._inbox.receive(data)
        elif self.keeper is not None:
            self._unasked(data)

    def expect_reply(self, take: Callable[[PrepareReply], bytes]) -> None:
        """Show `take` the beginning of the next response, that to a COM_STMT_PREPARE, and pass on what it returns."""
        reply = PrepareReply()

        def received(data: bytes) -> None:
            try:
                if not reply.receive(data):
                    return
            except WireError:
                passed_on = reply.came  # the tracker finds the same fault
            else:
                passed_on = take(reply) if self.owner is not None else reply.came
            self.divert(None)
            self.dataReceived(passed_on)

        self.divert(received)

    def divert(self, receive: Callable[[bytes], None] | None) -> None:
        """Let `receive` take what comes from now on; None: this session itself once more.

        One response of a few is diverted, so the others must not pay for the question whether it is.
        """
        if receive is not None:
            self.dataReceived = receive  # type: ignore[method-assign,assignment]
        elif self.diverted:
            del self.dataReceived
        self.diverted = receive is not None

    def peer_broke(self, fault: WireError) -> None:
        """End, because what came cannot be inflated."""
        if self._inbox is not None:
            super().peer_broke(fault)
        elif self.owner is not None and self.owner.tracker.awaiting:
            self.owner.server_broke(self, fault)
        else:
            self._farewell = str(fault)
            self.transport.abortConnection()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Have ended, dropped by us or not."""
        owner = self.owner or self.keeper
        detail = self.killed or self._farewell or explain(reason)
        lost = self._close(CloseReason.KILLED if self.killed else CloseReason.SERVER_LOST, detail)
        if self.ss_id and self.is_logged:
            self._log.info(
                "server session {ss_id} at {server} closed: {reason} {detail}",
                ss_id=self.ss_id,
                server=self.address,
                reason=self.reason.value if self.reason else "",
                detail=legible(self.detail),
            )
        self._end_dialogue(detail)
        super().connectionLost(reason)
        if lost and owner is not None:
            owner.server_lost(self, detail)

    def _unasked(self, data: bytes) -> None:
        """Read what a server says before it closes a connection (an ERR packet), and end the session."""
        if data[4:5] == b"\xff":
            try:
                self._farewell = parse_err(data[4:]).message
            except WireError:
                self._farewell = "an error that cannot be read"
        else:
            self._farewell = "it sent something unasked"
        # The rest of a segment still comes, by TLS.
        self.divert(lambda data: None)
        self._log.warn(
            "server session {ss_id}: server {server} says unasked: {text}",
            ss_id=self.ss_id,
            server=self.address,
            text=legible(self._farewell),
        )
        self.transport.abortConnection()

    # -- flow control: the client's side of this session reads as fast as the server takes it ---------------------

    def pauseProducing(self) -> None:
        """Stop reading from the client: the server does not take more."""
        if self.owner is not None:
            self.owner.server_full(True)

    def resumeProducing(self) -> None:
        """Go on reading from the client."""
        if self.owner is not None:
            self.owner.server_full(False)

    def stopProducing(self) -> None:
        """Be told that the connection ends; `connectionLost` follows."""

    # -- ends ----------------------------------------------------------------------------------------------------

    def obituary(self) -> EndedSession | None:
        """Return what the history is to remember, None for a session of the proxy's own."""
        client = self.client
        if client is None:
            return None
        now = self.surroundings.reactor.seconds()
        return EndedSession(
            ended_at=now,
            kind=SessionKind.SERVER,
            cs_id=client.cs_id,
            ss_id=self.ss_id,
            seconds=now - self.began,
            identity=client.identity,
            host=client.peer.host,
            port=client.peer.port,
            server=self.address,
            server_sessid=self.server_sessid,
            reason=self.reason or CloseReason.SERVER_LOST,
            detail=self.detail[:DETAIL_SIZE],
            statement=client.text,
            bytes_in=self.bytes_in,
            bytes_out=self.bytes_out,
            statements=self.pickups,
            transaction_lost=self.transaction_lost
            or (self.owner is not None and bool(client.status & SERVER_STATUS_IN_TRANS)),
        )

    def dialogue_failed(self, detail: str) -> None:
        """End, because the server did not answer, or not as it should; the client session is told."""
        owner = self.owner or self.keeper
        super().dialogue_failed(detail)
        if owner is not None:
            owner.server_lost(self, detail)

    def closing(self) -> None:
        """Leave the owner, which is not told: whoever ends this session knows."""
        if self.client is not None:
            self.client.counts.closed(self)
        self.owner = self.keeper = self.client = None
        super().closing()

    def rest(self, keeper: Owner, synced: int) -> None:
        """Rest in a client session's pool; see `synced`."""
        self.owner, self.keeper, self.synced = None, keeper, synced
        self.transport.resumeProducing()  # the client may have paused it, and then its end would go unnoticed

    def quit(self) -> None:
        """End in good order, because the client did: COM_QUIT, then close."""
        if self.reason is None:
            self.transport.write(frame(bytes((COM_QUIT,)), 0))
            self.end(CloseReason.CLIENT_QUIT)

    def snapshot(self, attached: bool, last_insert_id: bool) -> ServerSessionSnapshot:
        """Return a frozen picture; `attached` says whether an exchange of the owner is on it."""
        if not self.server_sessid:
            state = ServerState.INIT
        else:
            active = attached or self._inbox is not None
            state = ServerState.ACTIVE if active else ServerState.POOLED if self.keeper else ServerState.KEPT
        return ServerSessionSnapshot(
            ss_id=self.ss_id,
            server_sessid=self.server_sessid,
            address=self.address,
            state=state.value,
            pickups=self.pickups,
            attached=attached,
            last_insert_id=last_insert_id,
            versions=self.versions,
        )
