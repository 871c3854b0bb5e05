"""What the proxy itself says to a server: it connects, logs in, and asks small questions.

One dialogue at a time; nothing of a client's passes meanwhile.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any
from typing import Protocol as Shape

from attrs import evolve, field, frozen
from twisted.internet.defer import CancelledError
from twisted.python.failure import Failure

from odptwist.errors import (
    CloseReason,
    LoginImpossible,
    OdpError,
    ServerSessionLost,
    ServerUnreachable,
    WireError,
)
from odptwist.identity import Identity
from odptwist.machines.effects import Ask, Greeted
from odptwist.machines.own_answers import OwnAnswers
from odptwist.machines.server_login import ServerLogin, server_response, takes_proxy_scramble
from odptwist.sessions.compression import compress_server
from odptwist.sessions.connecting import Attempt, connect
from odptwist.sessions.encryption import begin_tls, explain
from odptwist.sessions.inbox import DIALOGUE_LIMIT, Inbox
from odptwist.sessions.session import Session
from odptwist.sessions.surroundings import Surroundings
from odptwist.sessions.transport import watch_peer
from odptwist.snapshots import Address, ServerTraits
from odptwist.wire.constants import CLIENT_SSL, COM_QUERY
from odptwist.wire.framing import frame
from odptwist.wire.handshake import Greeting, HandshakeResponse
from odptwist.wire.primitives import encode_text
from odptwist.wire.proxy_header import ProxyHeader
from odptwist.wire.resultset import ResultReader

_traits = lru_cache(ServerTraits)
"""A server greets the same way each time."""


@frozen
class LoginPlan:
    """What a login at a server needs: the client's own response, who it is, and what was agreed with it.

    `key` is SHA1(password), empty for an account without one. None: it is not known, and the client is asked. `salt` is
    the one that the client has answered, empty for accounts of the proxy's own. `asked`: whether the client was asked
    while it logged in; one that sent no answer at first may have a password all the same. `origin`: where the client
    comes from, for servers that are told; None for accounts of the proxy's own. `password` is that of one of these.
    """

    response: HandshakeResponse
    identity: Identity
    agreed: int
    key: bytes | None = field(default=None, repr=False)
    salt: bytes = field(default=b"", repr=False)
    asked: bool = False
    origin: ProxyHeader | None = None
    password: bytes | None = field(default=None, repr=False)

    def can_repeat(self, greeting: Greeting | None) -> bool:
        """Whether the proxy can log in again at a server that greets like this, without asking the client."""
        if self.key is not None or not (self.response.auth_response or self.asked):
            return True
        return greeting is not None and takes_proxy_scramble(self.response, greeting)


class ResponseReader(Shape):
    """Reads the response to a command of the proxy's own."""

    def receive(self, payload: bytes) -> bool:
        """Take the next payload; return whether the response has ended with it."""


class Dialogue(Session):
    """A connection to a server on which the proxy speaks for itself.

    What a client and the server say to each other on it is the business of `ServerSession`.

    Attributes:
        address: the server's.
        greeting: the server's, None before it.
        server_sessid: the server's number of this session, 0 before its greeting.
        agreed: the capabilities that client and server agreed on.
        encrypted: whether TLS has begun.
        pickups: how often it was put to use: for a login, a dialogue, a command.
        connected_at: when it was connected, on the reactor's clock; 0 before.
        logged_in_at: when it was logged in; 0 before.
        by_itself: whether the proxy logged in without the client.
    """

    __slots__ = (
        "_attempt",
        "_header",
        "_inbox",
        "_login",
        "_securing",
        "address",
        "agreed",
        "by_itself",
        "connected_at",
        "encrypted",
        "greeting",
        "logged_in_at",
        "pickups",
        "server_sessid",
    )

    def __init__(self, address: Address, surroundings: Surroundings) -> None:
        super().__init__(surroundings)
        self.address = address
        self.greeting: Greeting | None = None
        self.server_sessid = 0
        self.agreed = 0
        self.encrypted = False
        self.pickups = 0
        self.connected_at = self.logged_in_at = 0.0
        self.by_itself = False
        self._inbox: Inbox | None = Inbox(surroundings.deadlines)
        self._attempt: Attempt | None = None
        self._header = b""
        self._login: ServerLogin | None = None
        self._securing = False

    @property
    def is_secure(self) -> bool:
        """Whether nobody else can read what is sent: by TLS, or a Unix socket."""
        return self.encrypted or bool(self.address.path)

    @property
    def is_mariadb(self) -> bool:
        """Whether the server calls itself MariaDB."""
        return self.greeting is not None and "MariaDB" in self.greeting.server_version

    @property
    def in_dialogue(self) -> bool:
        """Whether it is logging in or answering a question of the proxy's own."""
        return self._inbox is not None

    # -- the connection ----------------------------------------------------------------------------------------------

    def connect(self, origin: ProxyHeader | None = None) -> None:
        """Begin to connect to the server, and tell it whom for, if it is to be told.

        What comes of it is told to who waits for the greeting, and that one's timeout holds for both.

        Args:
            origin: where the client comes from; None: the connection is the proxy's own.
        """
        version = self.surroundings.server_headers.get(self.address)
        if version is not None:
            self._header = (origin or ProxyHeader()).encode(version)
        attempt = connect(self.surroundings.reactor, self.address, self, speaks_first=version is None)
        if self.transport is None and self._gone is not None:
            self._attempt = attempt

    def connectionMade(self) -> None:
        """Be connected."""
        self._attempt = None
        self.connected_at = self.surroundings.reactor.seconds()
        watch_peer(self.transport)
        if self._header:
            self.transport.write(self._header)
            self._header = b""

    def connection_failed(self, reason: Failure) -> None:
        """Be told that the connection cannot be made."""
        self._attempt = None
        self._tell_gone()
        if self._inbox is not None:
            self._inbox.end(Failure(ServerUnreachable(explain(reason))))

    def closing(self) -> None:
        """Stop connecting."""
        attempt, self._attempt = self._attempt, None
        if attempt is not None:
            inbox, self._inbox = self._inbox, None  # so that this is not taken for a failure of the server
            attempt.stopConnecting()
            if inbox is not None:
                # Not at once: it may be the dialogue itself that gives up.
                self.surroundings.reactor.callLater(0, inbox.end, Failure(CancelledError()))

    # -- the login ---------------------------------------------------------------------------------------------------

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
        compressed = None
        answers = None
        if plan.key is not None:
            answers = OwnAnswers(plan.key, plan.password, self.surroundings.find_password_keys)
        while True:
            effect = login.receive(await self._packet(None if asked else self.surroundings.limits.connect_timeout))
            self._securing = False
            if isinstance(effect, Greeted):
                self._greeted(effect.greeting)
                greeted(effect.greeting)
                # A client that can be asked is: that works with every server.
                salt = plan.salt if ask is None else b""
                response = server_response(plan.response, effect.greeting, plan.identity, plan.agreed, plan.key, salt)
                compressed = self.surroundings.compression.for_server(self.address, effect.greeting.capabilities)
                if compressed is not None:
                    response = compressed.ask_for(response)
                response = self._encrypt(login, effect.greeting, response)
                try:
                    self.transport.write(login.respond(response))
                except WireError as fault:
                    # A name that the client has chosen, with a NUL inside: no fault of the server's.
                    raise LoginImpossible(str(fault)) from None
            elif isinstance(effect, Ask):
                if answers is not None and not (effect.further and ask is not None):
                    answer = answers.answer(effect.payload, self.is_secure)
                    if answer is not None:
                        self.transport.write(login.answer(answer))
                    continue
                answers = None  # a further factor is the client's business to its end
                if ask is None:
                    raise LoginImpossible("the server asks for a password, which the proxy does not know")
                asked = True
                ask(effect.payload)
            else:
                self._login = None
                self._leave_dialogue()
                self.logged_in_at = self.surroundings.reactor.seconds()
                if self.encrypted:
                    self.surroundings.server_tls[self.address].keep_session(self.transport)
                if compressed is not None:
                    compress_server(self, compressed)
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
        traits = _traits(
            greeting.server_version, greeting.capabilities, greeting.charset, greeting.status, greeting.plugin
        )
        self.surroundings.clusters.heard(self.address, traits)

    # -- questions ---------------------------------------------------------------------------------------------------

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
        self._inbox = Inbox(self.surroundings.deadlines, largest)
        self.pickups += 1
        self.transport.write(b"".join(commands))
        try:
            for reader in readers:
                while not reader.receive(
                    (await self._packet(patience or self.surroundings.limits.query_timeout)).payload
                ):
                    pass
        except (OdpError, CancelledError) as fault:
            self.dialogue_failed(str(fault))
            if isinstance(fault, CancelledError):
                raise
            raise ServerSessionLost(f"server {self.address} did not answer: {fault}") from fault
        self._leave_dialogue()

    async def _packet(self, patience: float | None) -> Any:
        if self._inbox is None:
            raise ServerSessionLost("the server session is not in a dialogue")
        return self._inbox.take() or await self._inbox.next(patience)

    def _leave_dialogue(self) -> None:
        if self._inbox is not None:
            self._inbox.close()
            self._inbox = None

    def dialogue_failed(self, detail: str) -> None:
        """End, because the server did not answer, or not as it should."""
        self.drop(CloseReason.SERVER_LOST, "a dialogue with it failed")

    def peer_broke(self, fault: WireError) -> None:
        """Let the dialogue that is under way fail, because what came cannot be inflated."""
        if self._inbox is not None:
            self._inbox.end(Failure(fault))

    def _end_dialogue(self, detail: str) -> None:
        """Let the dialogue that is under way fail, because the connection has ended."""
        if self._inbox is not None:
            fault = (
                ServerUnreachable(f"no TLS with server {self.address}: {detail}")
                if self._securing
                else ServerSessionLost(f"server {self.address} closed the connection: {detail}")
            )
            self._inbox.end(Failure(fault))
