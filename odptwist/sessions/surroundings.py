"""What every session of a proxy shares: the seams to the rest of the house, and the limits."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

from attrs import Factory, define, field, frozen
from twisted.internet.defer import CancelledError, Deferred
from twisted.logger import Logger

from odptwist.identity import Identity
from odptwist.interfaces import (
    IBackendKiller,
    IClusters,
    IRouter,
    ISessionDirectory,
    ISessionObserver,
    IStatements,
    IVerifierSource,
)
from odptwist.machines.certificates import CertificateAccounts
from odptwist.machines.classification import Classifier
from odptwist.machines.password_bridge import FindKeys
from odptwist.sessions.compression import Compression
from odptwist.sessions.deadlines import Deadlines
from odptwist.sessions.encryption import ClientTls, ServerTls
from odptwist.sessions.history import History
from odptwist.sessions.ids import SessionIds
from odptwist.sessions.own_accounts import OwnAccounts
from odptwist.sessions.paused import PausedClients
from odptwist.sessions.rules import Rules
from odptwist.snapshots import Address, HeaderVersion, KillScope, Purpose


@define
class Limits:
    """What sessions go by, which may change while they live: ask each time. Times are in seconds."""

    login_timeout: float = 10.0
    """For the whole login of a client (ODP's, spec 7.3); 0 for any time."""
    connect_timeout: float = 5.0
    """For connecting to a server until it greets, and for each later answer to the proxy's login (ODP's, spec 9.2)."""
    kill_timeout: float = 5.0
    """For a server's answer to a kill, and for the end that it promised (design/kill.md)."""
    last_packet_timeout: float = 1.0
    """For the last packet that a peer is owed when its session ends."""
    query_timeout: float = 5.0
    """For the proxy's own small questions to a server."""
    stop_abandoned: bool = True
    """Whether a statement is stopped on its server when its client has gone."""
    max_connections: int = 0
    """How many client sessions there may be at once; here and below, 0 is no limit."""
    max_user_connections: int = 0
    """How many of them of one user."""
    max_address_connections: int = 0
    """How many of them from one address."""
    wait_timeout: float = 0.0
    """For the pauses between the statements of a client that is a program."""
    interactive_timeout: float = 0.0
    """For those of a client that says that a person types there."""
    idle_transaction_timeout: float = 0.0
    """For those in a transaction, whichever the client is."""
    max_statement_time: float = 0.0
    """For a statement."""
    local_infile: bool = True
    """Whether clients that log in are offered LOAD DATA LOCAL."""
    log_sessions: bool = False
    """Whether the log has it, too, when sessions begin, and end because clients said so."""


class Numbers(Protocol):
    """Where sessions get their numbers."""

    def new_ss_id(self) -> int:
        """Return the number of a new server session, never used before."""

    def new_proxy_sessid(self, host: str, port: int) -> int:
        """Return the proxy_sessid of a client session that came in at this address and has reached a server."""


@define
class Routing:
    """How statements find servers, which may change: ask each time. Times are in seconds.

    Attributes:
        retry_reads: whether a read is run once more elsewhere when its server is lost before it answered.
        primary_wait: how long a write waits for a primary.
        settle: how long reads of a session stay on the primary after its last write.
    """

    retry_reads: bool = True
    primary_wait: float = 5.0
    settle: float = 0.5


@frozen
class Account:
    """An account of the proxy's own."""

    user: str
    password: str = field(repr=False)


@frozen
class Surroundings:
    """The rest of the house, as a session sees it.

    Attributes:
        probe: asks the servers for their greetings, and fires when all have answered or failed; it never fails.
        paused: watches the clients whose reading is paused.
        deadlines: for what hardly ever takes too long.
        plain: from `odptwist.machines.exchange.plain_prefixes`.
        killers: by name; what is not there is killed as everywhere.
        kill_account: for statements that neither the asker nor the victim's account can stop, or None.
        routing: for clusters of several servers.
        classifier: says which statements a replica may answer.
        verifiers: knows how accounts prove who they are, or None.
        rules: the rules of the settings, None if there are none.
        ids: the numbers of client sessions.
        history: the sessions that have ended.
        own_accounts: the proxy's administrators.
        client_tls: for clients, None if it is not offered.
        server_tls: for each server that is not talked to in clear.
        server_headers: which PROXY header is sent, to each server that is sent one.
        compression: who is talked to in compressed packets.
        find_password_keys: finds what encrypts passwords, for those that servers want so.
        certificate_accounts: who may log in only with a certificate, and with which.
    """

    reactor: Any
    clusters: IClusters
    router: IRouter
    statements: IStatements
    directory: ISessionDirectory
    numbers: Numbers
    probe: Callable[[], Deferred[None]]
    plain: frozenset[bytes]
    paused: PausedClients
    observers: Sequence[ISessionObserver] = ()
    limits: Limits = Factory(Limits)
    killers: Mapping[str, IBackendKiller] = Factory(dict)
    kill_account: Account | None = None
    routing: Routing = Factory(Routing)
    classifier: Classifier = Factory(Classifier)
    verifiers: IVerifierSource | None = None
    rules: Rules | None = None
    ids: SessionIds = Factory(SessionIds)
    history: History = Factory(History)
    own_accounts: OwnAccounts = Factory(OwnAccounts)
    client_tls: ClientTls | None = None
    server_tls: Mapping[Address, ServerTls] = Factory(dict)
    server_headers: Mapping[Address, HeaderVersion] = Factory(dict)
    compression: Compression = Factory(Compression)
    find_password_keys: FindKeys = lambda: None
    certificate_accounts: CertificateAccounts = Factory(CertificateAccounts)
    deadlines: Deadlines = Factory(lambda self: Deadlines(self.reactor), takes_self=True)

    def tell(self, event: Callable[[ISessionObserver], None]) -> None:
        """Tell every observer of something; what they raise is logged and goes no further."""
        for observer in self.observers:
            try:
                event(observer)
            except Exception:  # noqa: BLE001 - an extension may raise anything
                _log.failure("session observer {observer} failed", observer=observer)

    def servers_for(self, identity: Identity, purpose: Purpose) -> tuple[Address, ...]:
        """Return the servers to try, as the router says; all in the order of the settings if it fails."""
        standings = self.clusters.standings(identity.cluster)
        servers = tuple(each.address for each in standings)
        try:
            chosen = tuple(self.router.choose_servers(identity, standings, purpose))
            if all(each in servers for each in chosen):
                return chosen
            _log.error("router {router} chose {chosen}: servers are tried in order", router=self.router, chosen=chosen)
        except Exception:  # noqa: BLE001 - an extension may raise anything
            _log.failure("router {router} failed: servers are tried in order", router=self.router)
        return servers

    async def verifiers_of(self, identity: Identity) -> Sequence[bytes]:
        """Return the verifiers that are known of an account; none if their source fails."""
        if self.verifiers is None:
            return ()
        try:
            return await self.verifiers.verifiers(identity)
        except CancelledError:
            raise
        except Exception:  # noqa: BLE001 - an extension may raise anything
            _log.failure("verifier source {source} failed", source=self.verifiers)
            return ()

    def kill_statement(self, address: Address, server_sessid: int, scope: KillScope) -> str:
        """Return the statement that ends a server's session, or what it runs."""
        killer = self.killers.get(self.clusters.killer(address))
        if killer is not None:
            try:
                return killer.statement(server_sessid, scope)
            except Exception:  # noqa: BLE001 - an extension may raise anything
                _log.failure("backend killer {killer} failed: a plain KILL is used", killer=killer)
        return f"KILL {'QUERY ' if scope is KillScope.QUERY else ''}{server_sessid}"


_log = Logger()
