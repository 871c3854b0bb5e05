"""A server session: one connection from the proxy to a server, owned by exactly one client session."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from enum import Enum, unique
from typing import Any
from typing import Protocol as Shape

from attrs import evolve, field, frozen
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
from odptwist.machines.prepared import STATEMENTS_LIMIT, ServerStatements
from odptwist.machines.server_login import ServerLogin, answer_question, server_response, takes_proxy_scramble
from odptwist.sessions.counting import Counts
from odptwist.sessions.encryption import begin_tls, explain
from odptwist.sessions.history import DETAIL_SIZE
from odptwist.sessions.inbox import DIALOGUE_LIMIT, Inbox
from odptwist.sessions.peer import Peer
from odptwist.sessions.session import Session
from odptwist.sessions.surroundings import Surroundings
from odptwist.sessions.transport import connect, watch_peer
from odptwist.snapshots import Address, EndedSession, ServerSessionSnapshot, ServerTraits, SessionKind, Versions
from odptwist.wire.constants import CLIENT_SSL, COM_QUERY, COM_QUIT, SERVER_STATUS_IN_TRANS
from odptwist.wire.framing import frame
from odptwist.wire.handshake import Greeting, HandshakeResponse
from odptwist.wire.prepared import PrepareReply
from odptwist.wire.primitives import encode_text
from odptwist.wire.responses import parse_err
from odptwist.wire.resultset import ResultReader


@unique
class ServerState(Enum):
    """ODP's words for where a server session stands (spec 4.2)."""

    INIT = "MSS_INIT"
    ACTIVE = "MSS_ACTIVE"
    KEPT = "MSS_KA_CLIENT_SLAVE"
    POOLED = "MSS_KA_SHARED"


@frozen
class LoginPlan:
    """What a login at a server needs: the client's own response, who it is, and what was agreed with it.

    `key` is SHA1(password), empty for an account without one. None: it is not known, and the client is asked. `salt` is
    the one that the client has answered, empty for accounts of the proxy's own.
    """

    response: HandshakeResponse
    identity: Identity
    agreed: int
    key: bytes | None = field(default=None, repr=False)
    salt: bytes = field(default=b"", repr=False)

    def can_repeat(self, greeting: Greeting | None) -> bool:
        """Whether the proxy can log in again at a server that greets like this, without asking the client."""
        if self.key is not None or not self.response.auth_response:
            return True
        return greeting is not None and takes_proxy_scramble(self.response, greeting)


class ResponseReader(Shape):
    """Reads the response to a command of the proxy's own."""

    def receive(self, payload: bytes) -> bool:
        """Take the next payload; return whether the response has ended with it."""


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
class ServerSession(Session):
    """Talks to a server: first in dialogues of its own (login, small questions), then for its owner.

    Attributes:
        ss_id: this proxy's number of it; 0 for one that no client session owns.
        address: the server's.
        server_sessid: the server's number of it, 0 before its greeting.
        owner: the client session whose exchanges it carries; None before the login, at rest and after a drop.
        keeper: the client session in whose pool it rests, or None.
        synced: the `serial` of its client session's state that it has caught up with; None before the first time.
        prepared: what it has prepared; None as long as that is nothing.
        prepared_limit: how many statements it can have prepared, as far as is known.
        agreed: the capabilities that client and server agreed on.
        encrypted: whether TLS has begun.
        killed: whether the server was told to end it.
        holds: kills in flight that name this session; its owner sends nothing new meanwhile.
        client: the client session that it was opened for, until it has ended; None for one of the proxy's own.
        transaction_lost: whether it was taken from its client session amid a transaction.
        bytes_in: how many came from the server after the login.
        bytes_out: how many commands' bytes went to it.
        connected_at: when it was connected, on the reactor's clock; 0 before.
        logged_in_at: when it was logged in; 0 before.
        by_itself: whether the proxy logged in without the client.
    """

    __slots__ = (
        "_farewell",
        "_inbox",
        "_login",
        "_made",
        "_securing",
        "address",
        "agreed",
        "by_itself",
        "bytes_in",
        "bytes_out",
        "client",
        "connected_at",
        "encrypted",
        "greeting",
        "holds",
        "keeper",
        "killed",
        "logged_in_at",
        "owner",
        "pickups",
        "prepared",
        "prepared_limit",
        "server_sessid",
        "ss_id",
        "synced",
        "transaction_lost",
        "versions",
    )

    _log = Logger()

    def __init__(self, ss_id: int, address: Address, surroundings: Surroundings) -> None:
        super().__init__(surroundings)
        self.ss_id = ss_id
        self.address = address
        self.server_sessid = 0
        self.owner: Owner | None = None
        self.keeper: Owner | None = None
        self.synced: int | None = None
        self.prepared: ServerStatements | None = None
        self.prepared_limit = STATEMENTS_LIMIT
        self.agreed = 0
        self.encrypted = False
        self.holds = 0
        self.killed = False
        self.pickups = 0
        self.client: Client | None = None
        self.transaction_lost = False
        self.bytes_in = self.bytes_out = 0
        self.connected_at = self.logged_in_at = 0.0
        self.by_itself = False
        self.versions = Versions()
        self.greeting: Greeting | None = None
        self._inbox: Inbox | None = Inbox()
        self._made: Deferred[None] | None = None
        self._login: ServerLogin | None = None
        self._farewell = ""
        self._securing = False

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
        self.agreed = plan.agreed
        self.by_itself = ask is None
        self.pickups += 1
        asked = False
        while True:
            effect = login.receive(await self._packet(None if asked else self.surroundings.limits.connect_timeout))
            self._securing = False
            if isinstance(effect, Greeted):
                self._greeted(effect.greeting)
                greeted(effect.greeting)
                # A client that can be asked is: that works with every server.
                salt = plan.salt if ask is None else b""
                response = server_response(plan.response, effect.greeting, plan.identity, plan.agreed, plan.key, salt)
                response = self._encrypt(login, effect.greeting, response)
                self.transport.write(login.respond(response))
            elif isinstance(effect, Ask):
                if plan.key is not None:
                    self.transport.write(login.answer(answer_question(effect.payload, plan.key)))
                    continue
                if ask is None:
                    raise ServerUnreachable("the server asks for a password, which the proxy does not know")
                asked = True
                ask(effect.payload)
            else:
                self._login = self._inbox = None
                self.logged_in_at = self.surroundings.reactor.seconds()
                return effect.payload

    def _encrypt(self, login: ServerLogin, greeting: Greeting, response: HandshakeResponse) -> HandshakeResponse:
        """Begin TLS if the settings want it; return the handshake response as it has to be then."""
        tls = self.surroundings.server_tls.get(self.address)
        if tls is None or not (tls.required or greeting.capabilities & CLIENT_SSL):
            return response
        if not greeting.capabilities & CLIENT_SSL:
            raise ServerUnreachable("the server does not offer TLS")
        if self._inbox is None or self._inbox.buffered:
            # Somebody on the way may have put in what would be taken for the server's word by TLS.
            raise WireError("the server went on before TLS")
        response = evolve(response, capabilities=response.capabilities | CLIENT_SSL)
        self.transport.write(login.request_tls(response))
        self.encrypted = self._securing = True
        begin_tls(self.transport, tls.options)
        return response

    @property
    def is_secure(self) -> bool:
        """Whether nobody else can read what is sent: by TLS, or a Unix socket."""
        return self.encrypted or bool(self.address.path)

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
        (reader,) = await self.queries((sql,), patience)
        return reader

    async def queries(self, statements: Sequence[str], patience: float | None = None) -> list[ResultReader]:
        """Run several such statements in one round trip; each runs, whatever became of those before it."""
        readers = [ResultReader(self.agreed) for _ in statements]
        await self.ask([frame(bytes((COM_QUERY,)) + encode_text(sql), 0) for sql in statements], readers, patience)
        return readers

    async def read(self, sql: str, reader: ResponseReader, largest: int) -> None:
        """Run a statement of the proxy's own whose answer may have packets of `largest` bytes; else as `query`."""
        await self.ask([frame(bytes((COM_QUERY,)) + encode_text(sql), 0)], [reader], largest=largest)

    async def ask(
        self,
        commands: Sequence[bytes],
        readers: Sequence[ResponseReader],
        patience: float | None = None,
        largest: int = DIALOGUE_LIMIT,
    ) -> None:
        """Send framed commands of the proxy's own in one go, and let each reader read the response to its command.

        Raises:
            ServerSessionLost: the session ended, or did not answer in time (it is dropped then).
        """
        if self._inbox is not None or self.reason is not None:
            raise ServerSessionLost("the server session is in a dialogue or gone")
        self._inbox = Inbox(largest)
        self.pickups += 1
        self.transport.write(b"".join(commands))
        try:
            for reader in readers:
                while not reader.receive(
                    (await self._packet(patience or self.surroundings.limits.query_timeout)).payload
                ):
                    pass
        except (OdpError, CancelledError) as fault:
            owner = self.owner or self.keeper
            self.drop(CloseReason.SERVER_LOST, "a dialogue with it failed")
            if owner is not None:
                owner.server_lost(self, str(fault))
            if isinstance(fault, CancelledError):
                raise
            raise ServerSessionLost(f"server {self.address} did not answer: {fault}") from fault
        self._inbox = None

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
        self.connected_at = self.surroundings.reactor.seconds()
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
            del self.dataReceived
            self.dataReceived(passed_on)

        # One response of a few passes here, so the others must not pay for the question whether it does.
        self.dataReceived = received  # type: ignore[method-assign]

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Have ended, dropped by us or not."""
        owner = self.owner or self.keeper
        detail = self._farewell or explain(reason)
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
            fault = (
                ServerUnreachable(f"no TLS with server {self.address}: {detail}")
                if self._securing
                else ServerSessionLost(f"server {self.address} closed the connection: {detail}")
            )
            self._inbox.end(Failure(fault))
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
        self.dataReceived = lambda data: None  # type: ignore[method-assign]
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

    def closing(self) -> None:
        """Leave the owner, which is not told: whoever ends this session knows."""
        if self.client is not None:
            self.client.counts.closed(self)
        self.owner = self.keeper = self.client = None
        if self._made is not None:
            self._made.cancel()

    def rest(self, keeper: Owner, synced: int) -> None:
        """Rest in a client session's pool; see `synced`."""
        self.owner, self.keeper, self.synced = None, keeper, synced
        self.transport.resumeProducing()  # the client may have paused it, and then its end would go unnoticed

    def quit(self) -> None:
        """End in good order, because the client did: COM_QUIT, then close."""
        if self.reason is None:
            self.transport.write(frame(bytes((COM_QUIT,)), 0))
            self.end(CloseReason.CLIENT_QUIT)

    @property
    def is_mariadb(self) -> bool:
        """Whether the server calls itself MariaDB."""
        return self.greeting is not None and "MariaDB" in self.greeting.server_version

    @property
    def in_dialogue(self) -> bool:
        """Whether it is logging in or answering a question of the proxy's own."""
        return self._inbox is not None

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


class _Once(ClientFactory):
    """Gives one connection its session."""

    noisy = False

    def __init__(self, session: ServerSession) -> None:
        self._session = session

    def buildProtocol(self, addr: object) -> ServerSession:
        return self._session

    def clientConnectionFailed(self, connector: object, reason: Failure) -> None:
        self._session.connection_failed(reason.getErrorMessage())
