"""Clusters: their servers, the tenants they accept, and what was learnt of their servers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import reduce
from time import time
from typing import Any

from attrs import evolve, frozen
from twisted.internet.defer import Deferred
from twisted.logger import Logger
from zope.interface import implementer

from odptwist.interfaces import IClusters
from odptwist.snapshots import Address, ReadPolicy, Role, ServerFinding, ServerStanding, ServerTraits

DEFAULT_KILLER = "kill"


@frozen
class Server:
    """One server of a cluster, as the settings name it.

    `role` is None where it is to be found out; `killer` names the `IBackendKiller` that fits it.
    """

    address: Address
    role: Role | None = None
    weight: int = 1
    killer: str = DEFAULT_KILLER


@frozen
class Cluster:
    """One cluster of the settings; `servers` is not empty once the proxy serves clients."""

    name: str
    servers: tuple[Server, ...]
    tenants: tuple[str, ...]
    read_policy: ReadPolicy = ReadPolicy.PRIMARY


@implementer(IClusters)
class Clusters:
    """All clusters of a proxy; the first is the default.

    Health checks and sessions report what they find to the same count: who cannot reach a server makes no difference.

    Attributes:
        on_suspicion: has a server checked at once.
        watched: see `IClusters`. A server that is down then waits to be found; otherwise it is up again after a time,
            on probation: the next failure makes it down.

    Args:
        clusters: from the settings.
        clock: tells when a server that is down is worth another try; None: never.
        down_after: so many failures in a row make a server down.
        retry: seconds until a server that is down and not watched is up again.
    """

    _log = Logger()

    def __init__(
        self, clusters: Sequence[Cluster], clock: Any = None, down_after: int = 3, retry: float = 20.0
    ) -> None:
        self._clusters = {cluster.name: cluster for cluster in clusters}
        self.names = frozenset(self._clusters)
        self.default_name = clusters[0].name
        self.generation = 0
        self._clock = clock
        self._down_after = down_after
        self._retry = retry
        self._standings = {
            cluster.name: {server.address: _standing(cluster, server) for server in cluster.servers}
            for cluster in clusters
        }
        self._heard: dict[Address, ServerTraits] = {}
        self._promise: ServerTraits | None = None
        self.on_suspicion: Callable[[Address], None] = lambda address: None
        self.watched = False
        self._waiters: dict[Deferred[None], None] = {}
        self._retries: dict[Address, Any] = {}
        self._rivalries: set[str] = set()
        self._confirmed: dict[str, set[Address]] = {}

    def standings(self, cluster: str) -> Sequence[ServerStanding]:
        """Return what is known about each server of a known cluster."""
        return tuple(self._standings[cluster].values())

    def all_servers(self) -> tuple[Address, ...]:
        """Return the servers of all clusters, each once."""
        return tuple(dict.fromkeys(address for servers in self._standings.values() for address in servers))

    def add_server(self, cluster: str, address: Address) -> None:
        """Add a server that was started for a cluster; it takes writes."""
        found = self._clusters[cluster]
        server = Server(address, Role.PRIMARY)
        self._clusters[cluster] = evolve(found, servers=(*found.servers, server))
        self._standings[cluster][address] = _standing(found, server)
        self._changed()

    def read_policy(self, cluster: str) -> ReadPolicy:
        """Return which reads may go to replicas."""
        return self._clusters[cluster].read_policy

    def accepts_tenant(self, cluster: str, tenant: str) -> bool:
        """Return whether the settings accept a label as the tenant of a user."""
        return tenant in self._clusters[cluster].tenants

    # -- what is learnt of servers -------------------------------------------------------------------------------

    def heard(self, address: Address, traits: ServerTraits) -> None:
        """Take over what a server said in its greeting; one that greets has not failed several times in a row."""
        for _, standing in self._known(address):
            if standing.failures and standing.up:
                self._note(evolve(standing, failures=0))
        before = self._heard.get(address)
        if before is not traits and before != traits:
            self._heard[address] = traits
            self._promise = reduce(_common, self._heard.values())

    def found(self, address: Address, finding: ServerFinding) -> None:
        """Take over what a health check found."""
        retry = self._retries.pop(address, None)
        if retry is not None:
            retry.cancel()
        for server, standing in self._known(address):
            role = server.role or finding.role
            self._note(
                evolve(standing, role=role, up=True, version=finding.version, lag=finding.lag, failures=0, why="")
            )
            self._judge_primaries(server, standing)
            if role is not Role.REPLICA:
                self._wake()  # it may have been away for too short a time to be down, and still writes wait for it

    def failed(self, address: Address, why: str) -> None:
        """Count a failure; enough of them in a row make the server down."""
        for _, standing in self._known(address):
            failures = standing.failures + 1
            up = failures < self._down_after
            self._note(evolve(standing, up=up, failures=failures, failed_at=time(), why=why))
            if not up and not self.watched and self._clock is not None and address not in self._retries:
                self._retries[address] = self._clock.callLater(self._retry, self._try_again, address)

    def suspect(self, address: Address) -> None:
        """Have a server checked at once."""
        self.on_suspicion(address)

    @property
    def awaited(self) -> bool:
        """Whether somebody waits for a change."""
        return bool(self._waiters)

    def when_changed(self) -> Deferred[None]:
        """Fire when `generation` has risen, or a health check found a server well that may take writes."""
        waiter: Deferred[None] = Deferred(lambda waiter: self._waiters.pop(waiter, None))
        self._waiters[waiter] = None
        return waiter

    def _changed(self) -> None:
        self.generation += 1
        self._wake()

    def _wake(self) -> None:
        waiters, self._waiters = self._waiters, {}
        for waiter in waiters:
            if not waiter.called:  # else one that fired before has cancelled it
                waiter.callback(None)

    def _try_again(self, address: Address) -> None:
        del self._retries[address]
        for _, standing in self._known(address):
            self._note(evolve(standing, up=True, failures=self._down_after - 1))

    def _known(self, address: Address) -> list[tuple[Server, ServerStanding]]:
        return [
            (server, self._standings[name][address])
            for name, cluster in self._clusters.items()
            for server in cluster.servers
            if server.address == address
        ]

    def _note(self, standing: ServerStanding) -> None:
        servers = self._standings[standing.cluster]
        before = servers[standing.address]
        servers[standing.address] = standing
        if (before.role, before.up) == (standing.role, standing.up):
            return
        if standing.up:
            self._log.info(
                "server {server} of cluster {cluster} counts as up, role {role}",
                server=standing.address,
                cluster=standing.cluster,
                role=standing.role.value,
            )
        else:
            self._log.error(
                "server {server} of cluster {cluster} is down: {why}",
                server=standing.address,
                cluster=standing.cluster,
                why=standing.why,
            )
        self._changed()

    def _judge_primaries(self, server: Server, before: ServerStanding) -> None:
        """Complain once if a cluster has several primaries that nobody has asked for.

        During a planned switchover the new primary can be found before the old one is looked at again. So each has to
        be found once more after the newest one appeared.
        """
        name = before.cluster
        primaries = {each.address for each in self.standings(name) if each.up and each.role is Role.PRIMARY}
        confirmed = self._confirmed.setdefault(name, set())
        if len(primaries) < 2:
            confirmed.clear()
            self._rivalries.discard(name)
            return
        if server.address not in primaries:
            return
        if not before.up or before.role is not Role.PRIMARY:
            confirmed.clear()
        confirmed.add(server.address)
        asked_for = {each.address for each in self._clusters[name].servers if each.role is Role.PRIMARY}
        if name not in self._rivalries and primaries <= confirmed and not primaries <= asked_for:
            self._rivalries.add(name)
            self._log.error(
                "cluster {cluster} has {count} primaries: {servers}. Writes go to the first",
                cluster=name,
                count=len(primaries),
                servers=", ".join(sorted(map(str, primaries))),
            )

    def promise(self) -> ServerTraits | None:
        """Return what every server that was heard can do, None as long as none was."""
        return self._promise

    def killer(self, address: Address) -> str:
        """Return the name of the killer that the settings choose for a server."""
        return next((server.killer for server, _ in self._known(address)), DEFAULT_KILLER)


def _standing(cluster: Cluster, server: Server) -> ServerStanding:
    return ServerStanding(cluster.name, server.address, server.weight, server.role or Role.UNKNOWN)


def _common(one: ServerTraits, other: ServerTraits) -> ServerTraits:
    return evolve(one, capabilities=one.capabilities & other.capabilities)
