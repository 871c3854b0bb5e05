"""A server session: one connection from the proxy to a server, owned by exactly one client session."""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum, unique
from typing import Any
from typing import Protocol as Shape

from attrs import field, frozen
from twisted.internet.defer import CancelledError, Deferred, TimeoutError
from twisted.internet.interfaces import IPushProducer
from twisted.internet.protocol import ClientFactory, connectionDone
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from odptwist.errors import CloseReason, OdpError, ResponseOverrun, ServerSessionLost, ServerUnreachable, WireError
from odptwist.identity import Identity
from odptwist.machines.effects import Ask, Greeted
from odptwist.machines.exchange import Tracker
from odptwist.machines.server_login import ServerLogin, answer_question, server_response
from odptwist.sessions.inbox import Inbox
from odptwist.sessions.session import Session
from odptwist.sessions.surroundings import Surroundings
from odptwist.sessions.transport import connect, watch_peer
from odptwist.snapshots import Address, ServerSessionSnapshot, ServerTraits, Versions
from odptwist.wire.constants import COM_QUERY, COM_QUIT
from odptwist.wire.framing import frame
from odptwist.wire.handshake import Greeting, HandshakeResponse
from odptwist.wire.primitives import encode_text
from odptwist.wire.responses import parse_err
from odptwist.wire.resultset import ResultReader


@unique
class ServerState(Enum):
    """ODP's words for where a server session stands (spec 4.2)."""

    INIT = "MSS_INIT"
    ACTIVE = "MSS_ACTIVE"
    KEPT = "MSS_KA_CLIENT_SLAVE"


@frozen
class LoginPlan:
    """What a login at a server needs: the client's own response, who it is, and what was agreed with it.

    `password` is known for accounts of the proxy's own only; None: the client is asked, or has none.
    """

    response: HandshakeResponse
    identity: Identity
    agreed: int
    password: str | None = field(default=None, repr=False)


class Owner(Shape):
    """What a server session needs of its client session."""

    tracker: Tracker
    transport: Any

    def responded(self) -> None:
        """Be told that the response in flight has ended and was passed on."""

    def server_full(self, full: bool) -> None:
        """Be told whether the server has stopped taking what the client sends."""

    def server_lost(self, session: ServerSession, detail: str) -> None:
        """Be told that a server session ended that nobody dropped."""

    def server_broke(self, session: ServerSession, fault: WireError) -> None:
        """Be told that a server broke the protocol in the response in flight."""


@implementer(IPushProducer)
class ServerSession(Session):
    """Talks to a server: first in dialogues of its own (login, small questions), then for its owner.

    Attributes:
        ss_id: this proxy's number of it; 0 for one that no client session owns.
        address: the server's.
        server_sessid: the server's number of it, 0 before its greeting.
        owner: the client session whose exchanges it carries; None before the login and after a drop.
        killed: whether the server was told to end it.
        holds: kills in flight that name this session; its owner sends nothing new meanwhile.
    """

    _log = Logger()

    def __init__(self, ss_id: int, address: Address, surroundings: Surroundings) -> None:
        super().__init__(surroundings)
        self.ss_id = ss_id
        self.address = address
        self.server_sessid = 0
        self.owner: Owner | None = None
        self.holds = 0
        self.killed = False
        self.pickups = 0
        self.versions = Versions()
        self.greeting: Greeting | None = None
        self._inbox: Inbox | None = Inbox()
        self._made: Deferred[None] | None = None
        self._login: ServerLogin | None = None
        self._agreed = 0
        self._farewell = ""

    # -- dialogues -----------------------------------------------------------------------------------------------

    async def connect(self) -> None:
        """Connect to the server.

        Raises:
            ServerUnreachable: it cannot be connected to within the connect timeout.
        """
        timeout = self.surroundings.limits.connect_timeout
        self._made = made = Deferred[None](lambda _: self._stop_connecting(connector))
        connector = connect(self.surroundings.reactor, self.address, _Once(self), timeout)
        try:
            await made
        finally:
            self._made = None

    def _stop_connecting(self, connector: Any) -> None:
        self._made = None  # so that the end of the attempt is not taken for a failure of the server
        connector.disconnect()

    async def log_in(
        self, plan: LoginPlan, ask: Callable[[bytes], None] | None, greeted: Callable[[Greeting], None]
    ) -> bytes:
        """Log in and return the payload of the server's OK packet.

        Args:
            plan: who logs in, and how.
            ask: passes on what the server asks; the answers come back by `answer`. None: nobody can be asked.
            greeted: is called with the server's greeting, and may raise to end the login.

        Raises:
            LoginRefused: the server refused, or asked and nobody can be asked.
            ServerUnreachable: the server did not go on in time, or lacks what was agreed.
            ServerSessionLost, WireError: it ended or broke the protocol.
        """
        self._login = login = ServerLogin()
        self._agreed = plan.agreed
        self.pickups += 1
        asked = False
        while True:
            effect = login.receive(await self._packet(None if asked else self.surroundings.limits.connect_timeout))
            if isinstance(effect, Greeted):
                self._greeted(effect.greeting)
                greeted(effect.greeting)
                response = server_response(plan.response, effect.greeting, plan.identity, plan.agreed, plan.password)
                self.transport.write(login.respond(response))
            elif isinstance(effect, Ask):
                if plan.password is not None:
                    self.transport.write(login.answer(answer_question(effect.payload, plan.password)))
                    continue
                if ask is None:
                    raise ServerUnreachable("the server asks for a password, which the proxy does not know")
                asked = True
                ask(effect.payload)
            else:
                self._login = self._inbox = None
                return effect.payload

    def answer(self, payload: bytes) -> None:
        """Pass on the client's answer to what the server asked."""
        if self._login is not None and self.transport is not None:
            self.transport.write(self._login.answer(payload))

    async def read_greeting(self) -> None:
        """Read the server's greeting, and nothing more; the clusters hear it."""
        effect = ServerLogin().receive(await self._packet(self.surroundings.limits.connect_timeout))
        if isinstance(effect, Greeted):
            self._greeted(effect.greeting)

    def _greeted(self, greeting: Greeting) -> None:
        self.greeting = greeting
        self.server_sessid = greeting.thread_id
        traits = ServerTraits(
            version=greeting.server_version,
            capabilities=greeting.capabilities,
            charset=greeting.charset,
            status=greeting.status,
            plugin=greeting.plugin,
        )
        self.surroundings.clusters.heard(self.address, traits)

    async def query(self, sql: str, patience: float | None = None) -> ResultReader:
        """Run a small statement of the proxy's own between two exchanges, and return its result (or error).

        Args:
            sql: one statement with one result.
            patience: seconds for each packet of the answer; the default is the query timeout.

        Raises:
            ServerSessionLost: the session ended, or did not answer in time (it is dropped then).
        """
        if self._inbox is not None or self.reason is not None:
            raise ServerSessionLost("the server session is in a dialogue or gone")
        self._inbox = Inbox()
        reader = ResultReader(self._agreed)
        self.pickups += 1
        self.transport.write(frame(bytes((COM_QUERY,)) + encode_text(sql), 0))
        try:
            while not reader.receive((await self._packet(patience or self.surroundings.limits.query_timeout)).payload):
                pass
        except (OdpError, CancelledError) as fault:
            owner = self.owner
            self.drop(CloseReason.SERVER_LOST, "a dialogue with it failed")
            if owner is not None:
                owner.server_lost(self, str(fault))
            if isinstance(fault, CancelledError):
                raise
            raise ServerSessionLost(f"server {self.address} did not answer: {fault}") from fault
        self._inbox = None
        return reader

    async def _packet(self, patience: float | None) -> Any:
        if self._inbox is None:
            raise ServerSessionLost("the server session is not in a dialogue")
        waiting = self._inbox.next()
        if patience is not None:
            waiting.addTimeout(patience, self.surroundings.reactor)
        try:
            return await waiting
        except TimeoutError:
            raise ServerUnreachable(f"no answer within {patience:g} s") from None

    # -- as Twisted calls it -------------------------------------------------------------------------------------

    def connectionMade(self) -> None:
        """Be connected."""
        watch_peer(self.transport)
        self.transport.registerProducer(self, True)
        if self._made is not None:
            self._made.callback(None)

    def connection_failed(self, why: str) -> None:
        """Be told that the connection cannot be made."""
        self._tell_gone()
        if self._made is not None:
            self._made.errback(ServerUnreachable(why))

    def dataReceived(self, data: bytes) -> None:
        """Pass on a chunk of a response, or feed a dialogue."""
        owner = self.owner
        if self._inbox is None and owner is not None:
            tracker = owner.tracker
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
            owner.transport.write(data)
            if ended:
                owner.responded()
        elif self._inbox is not None:
            self._inbox.receive(data)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Have ended, dropped by us or not."""
        owner = self.owner
        detail = self._farewell or reason.getErrorMessage()
        lost = self._close(CloseReason.KILLED if self.killed else CloseReason.SERVER_LOST, detail)
        if self.ss_id:
            self._log.info(
                "server session {ss_id} at {server} closed: {reason} {detail}",
                ss_id=self.ss_id,
                server=self.address,
                reason=self.reason.value if self.reason else "",
                detail=self.detail,
            )
        if self._inbox is not None:
            self._inbox.end(Failure(ServerSessionLost(f"server {self.address} closed the connection: {detail}")))
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
        self._log.warn(
            "server session {ss_id}: server {server} says unasked: {text}",
            ss_id=self.ss_id,
            server=self.address,
            text=self._farewell,
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

    def closing(self) -> None:
        """Leave the owner, which is not told: whoever ends this session knows."""
        self.owner = None
        if self._made is not None:
            self._made.cancel()

    def quit(self) -> None:
        """End in good order, because the client did: COM_QUIT, then close."""
        if self.reason is None:
            self.transport.write(frame(bytes((COM_QUIT,)), 0))
            self.end(CloseReason.CLIENT_QUIT)

    @property
    def in_dialogue(self) -> bool:
        """Whether it is logging in or answering a question of the proxy's own."""
        return self._inbox is not None

    def snapshot(self, attached: bool, last_insert_id: bool) -> ServerSessionSnapshot:
        """Return a frozen picture; `attached` says whether an exchange of the owner is on it."""
        if not self.server_sessid:
            state = ServerState.INIT
        else:
            state = ServerState.ACTIVE if attached or self._inbox is not None else ServerState.KEPT
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


class _Once(ClientFactory):
    """Gives one connection its session."""

    noisy = False

    def __init__(self, session: ServerSession) -> None:
        self._session = session

    def buildProtocol(self, addr: object) -> ServerSession:
        return self._session

    def clientConnectionFailed(self, connector: object, reason: Failure) -> None:
        self._session.connection_failed(reason.getErrorMessage())
