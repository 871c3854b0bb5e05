"""The login of a client, in time: greeting, who it is, a server, the server's questions, the end."""

from __future__ import annotations

from functools import lru_cache
from typing import Any, Protocol

from attrs import evolve
from twisted.internet.defer import Deferred
from twisted.logger import Logger

from odptwist.errors import (
    CloseReason,
    LoginRefused,
    PacketTooLarge,
    ServerUnreachable,
    SqlError,
    TooManyConnections,
    WireError,
)
from odptwist.identity import PROXY_TENANT, Identity, legible, parse_user_name
from odptwist.interfaces import IClusters, IStatements
from odptwist.machines.certificates import ClientCertificate
from odptwist.machines.client_login import ClientLogin
from odptwist.machines.effects import Answered, Ask, Identified, WantsTls
from odptwist.machines.password_bridge import EMPTY_PASSWORDS, PasswordBridge
from odptwist.machines.server_login import FALLBACK, NATIVE_PASSWORD, PASSED_ON, unmasked
from odptwist.sessions.arrival import origin
from odptwist.sessions.dialogue import LoginPlan
from odptwist.sessions.encryption import ClientTls, begin_tls, cipher_of
from odptwist.sessions.listener import Listener
from odptwist.sessions.opening import (
    Opened,
    access_denied,
    check_certificate,
    check_tenant,
    open_server_session,
    try_servers,
)
from odptwist.sessions.peer import Peer
from odptwist.sessions.server import ServerSession
from odptwist.sessions.surroundings import Surroundings
from odptwist.snapshots import Purpose, ServerTraits
from odptwist.wire.constants import (
    CHARSET_UTF8MB4_GENERAL_CI,
    CLIENT_LOCAL_FILES,
    CLIENT_LONG_PASSWORD,
    CLIENT_PLUGIN_AUTH,
    CLIENT_SSL,
    SERVER_STATUS_AUTOCOMMIT,
)
from odptwist.wire.framing import Deframer, Packet
from odptwist.wire.handshake import AuthSwitchRequest, Greeting, HandshakeResponse
from odptwist.wire.proxy_header import ProxyHeader
from odptwist.wire.responses import Ok, err_for
from odptwist.wire.scramble import new_salt, recover_sha1

_log = Logger()

# Bytes of one packet of a login, and of what a client sends ahead: any stranger can make the proxy keep as much. Four
# times what connection attributes may have, which are the longest part (MySQL's and MariaDB's limit is 64 KiB).
_LOGIN_LIMIT = 256 * 1024
# A user's name with its tenant and cluster, each of 128 characters at most (MariaDB's and OceanBase's limits).
# Names of those who were refused are in the log and in the history, so they must not have a megabyte.
_LONGEST_NAME = 400

# Programs log in again and again as the same few users.
_parse_user_name = lru_cache(parse_user_name)

# Greeted like this as long as no server has told what it can do: with what all have.
_UNHEARD = ServerTraits(
    version="5.7.25",
    capabilities=FALLBACK,
    charset=CHARSET_UTF8MB4_GENERAL_CI,
    status=SERVER_STATUS_AUTOCOMMIT,
    plugin="mysql_native_password",
)


class Entrant(Protocol):
    """What a login needs of the client session that it belongs to."""

    cs_id: int
    proxy_sessid: int
    identity: Identity | None
    listener: Listener
    peer: Peer
    cipher: str
    transport: Any

    @property
    def certificate(self) -> ClientCertificate | None:
        """What the client has shown by TLS."""

    @property
    def is_secure(self) -> bool:
        """Whether nobody else can read what the client sends."""

    def named(self, identity: Identity) -> None:
        """Be told who the client says it is; `TooManyConnections` refuses it."""

    def proved(self, identity: Identity) -> None:
        """Be told that the client is that user; `TooManyConnections` refuses it."""

    def logged_in(self, plan: LoginPlan, opened: Opened, response: bytes, rest: bytes) -> None:
        """Be told that the login succeeded: send `response`, then take `rest` as the first bytes of commands."""

    def admitted(self, plan: LoginPlan, statements: IStatements, response: bytes, rest: bytes) -> None:
        """Be told that the login of an account of the proxy's own succeeded: go on as after `logged_in`, alone."""

    def end(self, reason: CloseReason, detail: str = "") -> None:
        """End after the last packet."""

    def drop(self, reason: CloseReason, detail: str = "") -> None:
        """End now."""

    def run(self, dialogue: Any) -> None:
        """Start a coroutine that ends with the session."""


class Login:
    """Leads one client from its connection to its first command.

    Attributes:
        opening: the server session that is logging in for it now, or None.
        header: what a load balancer has told of it, None if nothing.
        securing: whether TLS has begun, and the client has said nothing by it yet.
    """

    def __init__(self, session: Entrant, surroundings: Surroundings) -> None:
        self.opening: ServerSession | None = None
        self.header: ProxyHeader | None = None
        self.securing = False
        self._session = session
        self._surroundings = surroundings
        self._machine: ClientLogin | None = None
        self._deframer = Deframer(_LOGIN_LIMIT)
        self._bridge: PasswordBridge | None = None
        self._promised = 0
        self._salt = new_salt()
        self._answer: Deferred[bytes] | None = None
        self._over = False

    def begin(self) -> None:
        """Greet, as soon as it is known what the servers can do."""
        traits = self._surroundings.clusters.promise()
        if traits is None:
            self._session.run(self._find_out())
        else:
            self._greet(traits)

    async def _find_out(self) -> None:
        await self._surroundings.probe()
        self._greet(self._surroundings.clusters.promise() or _UNHEARD)

    def _greet(self, traits: ServerTraits) -> None:
        self._promised = (traits.capabilities & PASSED_ON) | CLIENT_LONG_PASSWORD
        if not self._surroundings.limits.local_infile:
            self._promised &= ~CLIENT_LOCAL_FILES
        greeting = Greeting(
            server_version=traits.version,
            thread_id=self._session.cs_id,
            salt=self._salt,
            capabilities=self._promised
            | (0 if self._surroundings.client_tls is None else CLIENT_SSL)
            | self._surroundings.compression.offer,
            mariadb_capabilities=0,
            charset=traits.charset,
            status=traits.status,
            plugin=traits.plugin,
        )
        self._machine = ClientLogin()
        self._session.transport.write(self._machine.greet(greeting))

    def received(self, data: bytes) -> None:
        """Take bytes of the client."""
        if self._over:
            return
        if self._machine is None:
            self._session.drop(CloseReason.CLIENT_BROKE_PROTOCOL, "it spoke before the greeting")
            return
        try:
            packet = self._take(self._machine, data)
            while packet is not None:
                effect = self._machine.receive(packet)
                if isinstance(effect, WantsTls):
                    self._begin_tls(self._surroundings.client_tls)
                    return
                if isinstance(effect, Identified):
                    self._identified()
                    self._session.run(self._log_in(self._machine, effect.response))
                elif self._answer is not None:
                    self._answer.callback(effect.payload)
                elif self._bridge is not None:
                    self._carry(self._bridge.answered(effect.payload))
                packet = None if self._over else self._take(self._machine, b"")
        except SqlError as refusal:
            self._refuse(err_for(refusal).encode(), CloseReason.LOGIN_REFUSED, refusal.message)
        except WireError as fault:
            self._refuse(err_for(fault).encode(), CloseReason.CLIENT_BROKE_PROTOCOL, str(fault))

    def _take(self, machine: ClientLogin, data: bytes) -> Packet | None:
        """Take bytes of the client and return a packet that is due.

        Commands that it sends ahead wait for the end of the login: HAProxy's `mysql-check` sends COM_QUIT with it.
        """
        if machine.listens:
            return self._deframer.receive_one(data)
        self._deframer.hold(data)
        if self._deframer.first_sequence:
            return self._deframer.receive_one(b"")  # no command, and the machine will refuse it
        if self._deframer.buffered > _LOGIN_LIMIT:
            raise PacketTooLarge(f"more than {_LOGIN_LIMIT} bytes came ahead, amid the login")
        return None

    def _begin_tls(self, tls: ClientTls | None) -> None:
        if tls is not None:
            self.securing = True
            begin_tls(self._session.transport, tls.options, self._deframer.take_rest())

    def _identified(self) -> None:
        if self.securing:
            self.securing = False
            self._session.cipher = cipher_of(self._session.transport)
            certificate = self._session.certificate
            if certificate is not None and self._surroundings.limits.log_sessions:
                _log.info(
                    "client session {cs_id} shows the certificate of {subject}",
                    cs_id=self._session.cs_id,
                    subject=legible(certificate.subject),
                )

    async def _log_in(self, machine: ClientLogin, response: HandshakeResponse) -> None:
        session = self._session
        surroundings = self._surroundings
        try:
            if session.listener.requires_tls(surroundings.client_tls) and not session.is_secure:
                raise insecure_transport()
            identity = identify(response.user, surroundings.clusters, session.peer.host)
            session.named(identity)
            check_certificate(surroundings, identity, response.charset, session.certificate, session.peer.host)
            if response.auth_response and response.auth_response in EMPTY_PASSWORDS:
                response = evolve(response, auth_response=b"")
            if identity.tenant == PROXY_TENANT:
                await self._admit(machine, identity, response)
                return
            key = await self._recover(identity, response) if response.auth_response else None
            told = origin(session.transport, session.peer, self.header) if surroundings.server_headers else None
            plan = LoginPlan(response, identity, response.capabilities & self._promised, key, self._salt, origin=told)
            opened = await try_servers(
                surroundings,
                surroundings.servers_for(identity, Purpose.LOGIN),
                identity,
                lambda address: open_server_session(
                    surroundings, plan, address, self._opening, self._greeted, self._pass_on
                ),
                # Clients can be asked once only; what was asked on another's behalf is answered already.
                lambda: key is not None or not machine.asked,
            )
            try:
                session.proved(identity)
            except TooManyConnections:  # others were faster
                opened.session.quit()
                raise
        except LoginRefused as refusal:
            self._refuse(unmasked(refusal.payload, session.peer.host), CloseReason.LOGIN_REFUSED)
        except TooManyConnections as refusal:
            self._refuse(err_for(refusal).encode(), CloseReason.TOO_MANY_CONNECTIONS, refusal.message)
        except SqlError as refusal:
            self._refuse(err_for(refusal).encode(), CloseReason.LOGIN_REFUSED, refusal.message)
        except ServerUnreachable as fault:
            self._refuse(err_for(fault).encode(), CloseReason.SERVER_UNREACHABLE, str(fault))
        else:
            self._over = True
            if machine.asked:
                plan = evolve(plan, asked=True, key=key if self._factors == 1 else None)
            session.logged_in(plan, opened, machine.accept(opened.ok), self._deframer.take_rest())

    async def _admit(self, machine: ClientLogin, identity: Identity, response: HandshakeResponse) -> None:
        """Log a client in to the proxy itself, as an account of its own: no server hears of it."""
        answer = await self._answer_natively(response) if response.auth_response else b""
        statements = self._surroundings.own_accounts.admit(identity, self._session.peer.host, answer, self._salt)
        self._session.proved(identity)
        plan = LoginPlan(response, identity, response.capabilities & self._promised)
        ok = machine.accept(Ok(status=SERVER_STATUS_AUTOCOMMIT).encode(plan.agreed))
        self._over = True
        self._session.admitted(plan, statements, ok, self._deframer.take_rest())

    async def _recover(self, identity: Identity, response: HandshakeResponse) -> bytes | None:
        """Return SHA1(password), if the account's verifier is known and the client's answer fits it.

        Where it does not fit, the server decides: its verifier may be newer.
        """
        verifiers = await self._surroundings.verifiers_of(identity)
        if not verifiers:
            return None
        answer = await self._answer_natively(response)
        for verifier in verifiers:
            key = recover_sha1(answer, self._salt, verifier)
            if key is not None:
                return key
        if self._machine is not None and self._machine.asked:
            raise access_denied(str(identity.user), self._session.peer.host)
        return None

    async def _answer_natively(self, response: HandshakeResponse) -> bytes:
        """Return the client's answer to our salt by mysql_native_password; it is asked if it chose another method."""
        if not response.capabilities & CLIENT_PLUGIN_AUTH or response.plugin == NATIVE_PASSWORD:
            return response.auth_response
        self._answer = Deferred()
        self._ask(AuthSwitchRequest(NATIVE_PASSWORD, self._salt + b"\0").encode())
        answer = await self._answer
        self._answer = None
        return answer

    @property
    def _factors(self) -> int:
        """How many proofs the server has asked for, 1 as long as it has asked for none."""
        return self._bridge.factors if self._bridge is not None else 1

    def _opening(self, server: ServerSession | None) -> None:
        self.opening = server

    def _greeted(self, greeting: Greeting) -> None:
        """Take a server's greeting: this is when ODP numbers a session, and when a tenant can be judged."""
        session = self._session
        if not session.proxy_sessid:
            host = session.transport.getHost()
            session.proxy_sessid = self._surroundings.numbers.new_proxy_sessid(
                getattr(host, "host", ""), getattr(host, "port", 0)
            )
        if session.identity is not None:
            check_tenant(self._surroundings, session.identity, greeting, session.peer.host)

    def _pass_on(self, payload: bytes) -> None:
        """Ask the client what its server asks; `SqlError` if its answer would lay the password open."""
        server_secure = self.opening is not None and self.opening.is_secure
        if self._bridge is None:
            self._bridge = PasswordBridge(self._surroundings.find_password_keys)
        self._carry(self._bridge.asked(payload, self._session.is_secure, server_secure))

    def _carry(self, step: Ask | Answered) -> None:
        if isinstance(step, Ask):
            self._ask(step.payload)
        elif self.opening is not None:
            self.opening.answer(step.payload)

    def _ask(self, payload: bytes) -> None:
        if self._machine is not None:
            self._session.transport.write(self._machine.ask(payload))
            if self._deframer.buffered:
                # It was sent before the question, and is taken for the answer; but not amid our own dialogue.
                self._surroundings.reactor.callLater(0, self.received, b"")

    def _refuse(self, payload: bytes, reason: CloseReason, detail: str = "") -> None:
        """End the login with an ERR packet, and the session with it."""
        self._over = True
        if self._machine is not None:
            self._session.transport.write(self._machine.refuse(payload))
        self._session.end(reason, detail)


def insecure_transport() -> SqlError:
    """Return the refusal of a client that does not use TLS, in MySQL's words."""
    return SqlError(
        3159,
        "HY000",
        "Connections using insecure transport are prohibited while --require_secure_transport=ON.",
    )


def identify(user: str, clusters: IClusters, host: str) -> Identity:
    """Read a user name; accounts of the proxy's own belong to its default cluster, whatever the name says.

    Raises:
        SqlError: 1045 if it is none or too long, 4669 if its cluster is not known.
    """
    if len(user) > _LONGEST_NAME:
        raise access_denied(f"{user[:_LONGEST_NAME]}...", host)
    try:
        identity = _parse_user_name(user, clusters.names, clusters.default_name)
    except ValueError:
        raise access_denied(user, host) from None
    if len(identity.user) > 1 and identity.user[0] == identity.user[-1] == "'":
        # Servers take such quotes off, so who it is to the proxy would not be who it is to them.
        raise access_denied(user, host)
    if identity.tenant == PROXY_TENANT:
        return evolve(identity, cluster=clusters.default_name)
    if identity.cluster not in clusters.names:
        raise SqlError(4669, "HY000", "cluster not exist")
    return identity
