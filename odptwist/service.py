"""The proxy as a Twisted service: wires all parts together, listens, and stops in order.

Some lines over 400: this is the one place where all parts meet.
"""

from __future__ import annotations

import atexit
import gc
import os
from collections.abc import Iterable, Sequence
from functools import cache
from time import time
from typing import Any, TypeVar, cast

from attrs import evolve, fields
from twisted.application.service import Service
from twisted.internet.defer import Deferred, DeferredList
from twisted.internet.endpoints import serverFromString
from twisted.internet.interfaces import IListeningPort
from twisted.internet.task import deferLater
from twisted.internet.threads import deferToThreadPool
from twisted.logger import Logger
from twisted.plugin import getPlugins
from twisted.python.failure import Failure
from zope.interface.interface import InterfaceClass

from odptwist import __version__
from odptwist.access import Grant, TenantAccessPolicy
from odptwist.cluster.health import examine
from odptwist.cluster.killers import builtin_killers
from odptwist.cluster.model import Cluster, Clusters, Server
from odptwist.cluster.routing import RoleRouter
from odptwist.descriptors import raise_limit, sessions_for
from odptwist.embedded.seekdb import EmbeddedServer
from odptwist.errors import ConfigError, EmbeddedError, OdpError, SqlError
from odptwist.identity import ADMINISTRATOR, INSPECTOR, split_user_name
from odptwist.interfaces import IBackendKiller, IProxyStatement, IRouter, ISessionObserver, IVerifierSource
from odptwist.live_settings import LiveSettings
from odptwist.machines.certificates import CertificateAccount, CertificateAccounts
from odptwist.machines.exchange import plain_prefixes
from odptwist.machines.password_bridge import PasswordKeys
from odptwist.machines.rate import RateLimit
from odptwist.sessions.compression import Compression
from odptwist.sessions.encryption import ClientTls, ServerTls
from odptwist.sessions.history import History
from odptwist.sessions.ids import SessionIds, choose_proxy_id
from odptwist.sessions.listener import Listener
from odptwist.sessions.networks import Networks
from odptwist.sessions.opening import read_traits
from odptwist.sessions.own_accounts import OwnAccount, OwnAccounts
from odptwist.sessions.paused import PausedClients
from odptwist.sessions.probing import Prober
from odptwist.sessions.registry import Entrance, Numbers, Registry
from odptwist.sessions.relaying import gear_of
from odptwist.sessions.rules import Rule, Rules
from odptwist.sessions.service_sessions import ServiceSessions
from odptwist.sessions.surroundings import Account, Limits, Routing, Surroundings
from odptwist.sessions.transport import write_at_once
from odptwist.sessions.verifiers import ConfiguredVerifiers, ServerVerifiers, Verifiers
from odptwist.settings import AdminSettings, ClusterSettings, LimitSettings, RuleSettings, Settings, TlsSettings
from odptwist.snapshots import Address, Algorithm, HeaderVersion, ReadPolicy, ServerCompression, TlsMode
from odptwist.statements import (
    administrator_statements,
    builtin_statements,
    inspector_statements,
    processlist_statement,
    server_statements,
    settings_statements,
    statistics_statement,
)
from odptwist.statements.pace import Pace
from odptwist.statements.rule_timing import read_timing
from odptwist.statements.table import StatementTable
from odptwist.statements.where import Condition
from odptwist.wire.compression import ALGORITHMS

T = TypeVar("T")

_BEST_FIRST = {
    ServerCompression.ZLIB: (Algorithm.ZLIB,),
    ServerCompression.ZSTD: (Algorithm.ZSTD,),
    ServerCompression.PREFERRED: tuple(reversed(ALGORITHMS)),
}
# Seconds that a look at one session may take, which all others wait for; an ordinary one takes microseconds.
_RULE_TIME_LIMIT = 0.1
# Without a limit of the settings, room for fewer is worth a warning.
_FEW_SESSIONS = 1000


class ProxyService(Service):
    """One proxy: its listening ports, its sessions, and the embedded server if it has one.

    Args:
        reactor: of the process.
        settings: what to run.
        statements: proxy statements of plugins; they are asked before the built-in ones.
        routers: routers of plugins; the first is used.
        observers: session observers of plugins.
        killers: backend killers of plugins.

    Raises:
        ConfigError: the settings name a killer that is not there, or a rule has a condition that cannot be used.
    """

    _log = Logger()

    def __init__(
        self,
        reactor: Any,
        settings: Settings,
        statements: Sequence[IProxyStatement] = (),
        routers: Sequence[IRouter] = (),
        observers: Sequence[ISessionObserver] = (),
        killers: Sequence[IBackendKiller] = (),
    ) -> None:
        self._reactor = reactor
        self._settings = settings
        self._clusters = Clusters(
            [_cluster(each) for each in settings.clusters],
            reactor,
            down_after=settings.health.failures,
            retry=settings.health.retry,
        )
        policy = TenantAccessPolicy(
            [Grant(each.user, each.tenant, each.cluster, each.privileges) for each in settings.roles]
        )
        self.registry = Registry(policy)
        rules = Rules(reactor, self.registry, [_rule(each) for each in settings.rules]) if settings.rules else None
        counting = statistics_statement((self.registry,) if rules is None else (self.registry, rules))
        ids = _session_ids(settings)
        about_servers = (*server_statements(self._clusters), processlist_statement(ids.one_everywhere))
        about_itself = (*settings_statements(LiveSettings(settings, self._change), time(), gear_of(reactor)), counting)
        pace = Pace(
            turn=lambda: deferLater(reactor, 0),
            aside=lambda work: deferToThreadPool(reactor, reactor.getThreadPool(), work),
        )
        answered = [*statements, *builtin_statements(pace), *about_servers, *about_itself]
        table = StatementTable(answered, pace)
        surroundings = Surroundings(
            reactor=reactor,
            clusters=self._clusters,
            router=routers[0] if routers else RoleRouter(),
            statements=table,
            directory=self.registry,
            numbers=Numbers(),
            probe=self._probe,
            plain=plain_prefixes(table.first_words),
            paused=PausedClients(reactor),
            observers=tuple(observers),
            limits=_use(settings, Limits()),
            killers={killer.name: killer for killer in (*builtin_killers(), *killers)},
            kill_account=Account(settings.kill.user, settings.kill.password) if settings.kill.user else None,
            ids=ids,
            rules=rules,
            history=History(settings.history.sessions),
            own_accounts=_own_accounts(settings.admin, answered),
            routing=Routing(settings.routing.retry_reads, settings.routing.primary_wait, settings.routing.settle),
        )
        encrypted, servers_encrypted = _encryption(settings)
        surroundings = evolve(
            surroundings,
            client_tls=encrypted,
            server_tls=servers_encrypted,
            server_headers=_server_headers(settings),
            compression=_compression(settings),
            certificate_accounts=_certificate_accounts(settings.tls),
            find_password_keys=_find_password_keys,
        )
        self._prober: Prober | None = None
        self._service_sessions: list[ServiceSessions] = []
        sources = self._verifier_sources(surroundings)
        self._surroundings = self.registry.surroundings = evolve(
            surroundings, verifiers=Verifiers(sources) if sources else None
        )
        for cluster in settings.clusters:
            for server in cluster.servers:
                if server.killer not in self._surroundings.killers:
                    known = ", ".join(sorted(self._surroundings.killers))
                    raise ConfigError(f"cluster {cluster.name}: there is no killer '{server.killer}', only {known}")
        self._embedded: EmbeddedServer | None = None
        self._ports: list[IListeningPort] = []
        # Those who wait for the servers' greetings. Not None at first: the first question is asked at the start.
        self._probing: list[Deferred[None]] | None = []
        self._stopping = False

    def _verifier_sources(self, surroundings: Surroundings) -> list[IVerifierSource]:
        """Return who knows accounts, and have servers watched if there is a choice between them."""
        settings = self._settings
        sources: list[IVerifierSource] = [ConfiguredVerifiers(settings.accounts)] if settings.accounts else []
        if settings.service_account is None:
            # Without a login a check would be a handshake broken off, and MariaDB blocks hosts that do that.
            return sources
        account = Account(settings.service_account.user, settings.service_account.password)
        sessions = ServiceSessions(surroundings, account, settings.health.timeout)
        self._service_sessions.append(sessions)
        sources.append(ServerVerifiers(surroundings, sessions))
        if any(len(cluster.servers) > 1 for cluster in settings.clusters):
            # Sessions of its own: a check must not wait behind the questions of a crowd of clients that log in.
            sessions = ServiceSessions(surroundings, account, settings.health.timeout)
            self._service_sessions.append(sessions)
            self._prober = Prober(surroundings, sessions, examine, settings.health.interval)
            self._clusters.on_suspicion = self._prober.suspect
            self._clusters.watched = True
        return sources

    def _change(self, settings: Settings) -> None:
        """Go by other settings from now on, as far as they can change."""
        _use(settings, self._surroundings.limits)
        self._heed_descriptors()
        self.registry.time_limits.limits_changed()
        routing = self._surroundings.routing
        routing.retry_reads = settings.routing.retry_reads
        routing.primary_wait, routing.settle = settings.routing.primary_wait, settings.routing.settle
        if self._prober is not None:
            self._prober.interval = settings.health.interval

    def _heed_descriptors(self) -> None:
        """Let no more clients in than there are file descriptors for, and warn if those are few."""
        limits, descriptors = self._surroundings.limits, raise_limit()
        room = sessions_for(descriptors, max(map(_server_sessions, self._settings.clusters)))
        if room < (limits.max_connections or _FEW_SESSIONS):
            self._log.warn(
                "the limit of file descriptors, {descriptors}, leaves room for {room} client sessions: raise it "
                "(ulimit -n, LimitNOFILE=), or set limits.max_connections to no more",
                descriptors=descriptors,
                room=room,
            )
        limits.max_connections = min(limits.max_connections or room, room)

    @property
    def addresses(self) -> tuple[Any, ...]:
        """Return where the proxy listens, as Twisted's address objects."""
        return tuple(port.getHost() for port in self._ports)

    def privilegedStartService(self) -> None:
        """Bind the ports, while the process may still bind low ones."""
        super().privilegedStartService()  # type: ignore[no-untyped-call]
        self._listen()

    def startService(self) -> None:
        """Start the embedded server, or ask the servers of the settings what they can do."""
        super().startService()  # type: ignore[no-untyped-call]
        self._log.info("what passes commands and responses on: {gear}", gear=gear_of(self._reactor))
        self._listen()
        if not self._stopping:
            Deferred.fromCoroutine(self._start()).addErrback(self._failed)

    def _listen(self) -> None:
        if self._ports or self._stopping:
            return
        self._heed_descriptors()
        trusted = Networks.read(self._settings.proxy_protocol.trusted)
        for each in self._settings.entrances:
            # A plain endpoint listens at once; one that does not tells its failure later.
            endpoint = serverFromString(self._reactor, each.port)
            entrance = Entrance(self.registry, Listener(each.tls, each.proxy_protocol, trusted))
            endpoint.listen(entrance).addCallbacks(self._listening, self._failed)

    def _listening(self, port: IListeningPort) -> None:
        write_at_once(port)
        self._ports.append(port)

    async def _start(self) -> None:
        if self._settings.embedded:
            self._embedded = EmbeddedServer(self._reactor, str(self._settings.data_dir), on_exit=self._embedded_ended)
            address = await self._embedded.start()
            self._clusters.add_server(self._clusters.default_name, address)
        if self._prober is not None:
            self._prober.start()
        await self._ask_servers()
        self._probed()
        if self._stopping:
            return
        # What there is by now stays to the end: later collections of garbage need not look at it again.
        gc.collect()
        gc.freeze()
        # With Python's threshold of 700 objects it would run for every other dozen logins, a twentieth of their cost,
        # and find next to nothing: sessions leave no cycles behind.
        gc.set_threshold(10_000)
        servers = self._clusters.all_servers()
        silent = self._clusters.promise() is None
        self._log.info(
            "odptwist {version} is {ready} on {addresses}: cluster {cluster}, {servers}{note}",
            version=__version__,
            ready="listening" if silent else "ready",
            addresses=", ".join(_text(address) for address in self.addresses),
            cluster=", ".join(sorted(self._clusters.names)),
            servers="embedded server" if self._embedded else ", ".join(map(str, servers)),
            note=self._note(silent),
        )

    def _note(self, silent: bool) -> str:
        if silent:
            return "; no server answers yet"
        if self._embedded is not None and all("interface=127.0.0.1" in e for e in self._settings.endpoints):
            return "; clients from this machine only, because the embedded server's root has no password"
        return ""

    def _probe(self) -> Deferred[None]:
        """Ask all servers for their greetings; askers that come meanwhile wait for the same answers."""
        done: Deferred[None] = Deferred()
        if self._probing is not None:
            self._probing.append(done)
            return done
        self._probing = [done]
        Deferred.fromCoroutine(self._ask_servers()).addErrback(
            lambda failure: self._log.failure("asking the servers failed", failure)
        ).addBoth(lambda _: self._probed())
        return done

    async def _ask_servers(self) -> None:
        for address in self._clusters.all_servers():
            try:
                await read_traits(self._surroundings, address)
            except OdpError as fault:
                self._log.warn("server {server} does not answer: {fault}", server=address, fault=fault)

    def _probed(self) -> None:
        waiters, self._probing = self._probing, None
        for waiter in waiters or ():
            waiter.callback(None)

    def _embedded_ended(self, fault: EmbeddedError) -> None:
        self._failed(Failure(fault))

    def _failed(self, failure: Failure) -> None:
        """Give up: without its ports or its embedded server a proxy is of no use."""
        if self._stopping:
            return
        self._stopping = True
        if failure.check(OdpError, OSError) or failure.type.__module__ == "twisted.internet.error":
            self._log.critical("odptwist gives up: {fault}", fault=failure.getErrorMessage())
        else:
            self._log.failure("odptwist gives up", failure)
        # twistd has no way to say "stop, with this exit status"; this runs after all of its own clean-up.
        atexit.register(os._exit, 1)
        self._reactor.callLater(0, self._reactor.stop)

    def stopService(self) -> Deferred[None]:
        """Stop listening, drop all sessions, stop the embedded server; fires when all that is done."""
        super().stopService()  # type: ignore[no-untyped-call]
        self._stopping = True
        return Deferred.fromCoroutine(self._stop())

    async def _stop(self) -> None:
        if self._prober is not None:
            self._prober.stop()
        ports, self._ports = self._ports, []
        await DeferredList([cast("Deferred[Any]", port.stopListening() or _done()) for port in ports])
        await self.registry.stop()
        await DeferredList([sessions.stop() for sessions in self._service_sessions])
        if self._embedded is not None:
            await self._embedded.stop()


def _server_sessions(settings: ClusterSettings) -> int:
    """Return how many server sessions a client session has at once as a rule: one, and one for reads at a replica."""
    return 2 if len(settings.servers) > 1 and settings.read_policy is not ReadPolicy.PRIMARY else 1


def _use(settings: Settings, limits: Limits) -> Limits:
    """Return limits, which are now those of the settings."""
    limits.kill_timeout, limits.stop_abandoned = settings.kill.timeout, settings.kill.abandoned
    limits.local_infile = settings.clients.local_infile
    limits.log_sessions = settings.log.sessions
    for each in fields(LimitSettings):
        setattr(limits, each.name, getattr(settings.limits, each.name))
    return limits


def _cluster(settings: ClusterSettings) -> Cluster:
    servers = tuple(Server(each.address, each.role, each.weight, each.killer) for each in settings.servers)
    return Cluster(settings.name, servers, settings.tenants, settings.read_policy)


def _rule(settings: RuleSettings) -> Rule:
    try:
        condition, timing = Condition(settings.where, _RULE_TIME_LIMIT), read_timing(settings.where)
    except SqlError as fault:
        raise ConfigError(f"rule {settings.name}: {fault}") from None
    return Rule(settings.name, condition, timing, settings.action, RateLimit(settings.rate_limit), settings.reason)


def _session_ids(settings: Settings) -> SessionIds:
    version, proxy_id = settings.client_session_id_version, settings.proxy_id
    if proxy_id is None:
        proxy_id = choose_proxy_id() if version == 2 else 0
    return SessionIds(version, proxy_id)


def _own_accounts(settings: AdminSettings, answered: Sequence[IProxyStatement]) -> OwnAccounts:
    return OwnAccounts(
        {
            ADMINISTRATOR: OwnAccount(administrator_statements(answered), settings.password_sha1),
            INSPECTOR: OwnAccount(inspector_statements(answered), settings.inspector_password_sha1),
        },
        settings.allow_from_anywhere,
    )


def _certificate_accounts(settings: TlsSettings) -> CertificateAccounts:
    return CertificateAccounts(
        tuple(
            CertificateAccount(each.subject, frozenset(map(split_user_name, each.users)))
            for each in settings.certificate_account
        )
    )


def _encryption(settings: Settings) -> tuple[ClientTls | None, dict[Address, ServerTls]]:
    """Return how TLS is used with clients and with servers."""
    clusters = [each for each in settings.clusters if each.server_tls is not TlsMode.DISABLED]
    if not (settings.tls.certificate or clusters):
        return None, {}
    try:
        from odptwist.tls import client_tls, server_tls
    except ImportError as fault:
        raise ConfigError(f"TLS needs the extra 'tls': pip install 'odptwist[tls]' ({fault})") from None
    servers = {address: tls for each in clusters for address, tls in server_tls(each).items()}
    return client_tls(settings.tls), servers


def _compression(settings: Settings) -> Compression:
    """Return who is talked to in compressed packets."""
    servers = {
        server.address: _BEST_FIRST[cluster.server_compression]
        for cluster in settings.clusters
        if cluster.server_compression is not ServerCompression.OFF
        for server in cluster.servers
    }
    clients = tuple(map(Algorithm, settings.compression.clients))
    asked = any(each.server_compression is ServerCompression.ZSTD for each in settings.clusters)
    if (asked or Algorithm.ZSTD in clients) and Algorithm.ZSTD not in ALGORITHMS:
        raise ConfigError("compression with zstd needs the extra 'zstd': pip install 'odptwist[zstd]'")
    levels = {Algorithm.ZLIB: settings.compression.zlib_level, Algorithm.ZSTD: settings.compression.zstd_level}
    return Compression(clients, servers, levels)


def _server_headers(settings: Settings) -> dict[Address, HeaderVersion]:
    return {
        server.address: cluster.server_proxy_protocol
        for cluster in settings.clusters
        if cluster.server_proxy_protocol is not HeaderVersion.OFF
        for server in cluster.servers
    }


@cache
def _find_password_keys() -> PasswordKeys | None:
    try:
        from odptwist.password_keys import RsaKeys
    except ImportError:  # the extra `tls`
        return None
    return RsaKeys()


def _done() -> Deferred[None]:
    done: Deferred[None] = Deferred()
    done.callback(None)
    return done


def _text(address: Any) -> str:
    if hasattr(address, "port"):
        return str(Address(address.host, address.port))
    name = getattr(address, "name", address)
    return f"unix:{os.fsdecode(name) if isinstance(name, bytes) else name}"


def plugins(interface: InterfaceClass) -> Iterable[Any]:
    """Return the installed plugins that provide an interface."""
    return getPlugins(cast(Any, interface))


def make_service(reactor: Any, settings: Settings) -> ProxyService:
    """Return the proxy that the settings describe, with all installed plugins."""
    return ProxyService(
        reactor,
        settings,
        statements=tuple(plugins(IProxyStatement)),
        routers=tuple(plugins(IRouter)),
        observers=tuple(plugins(ISessionObserver)),
        killers=tuple(plugins(IBackendKiller)),
    )
