"""Clusters: their servers, the tenants they accept, and what was learnt of their servers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import reduce
from time import time
from typing import Any

from attrs import evolve, frozen
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

    Args:
        clusters: from the settings.
        clock: tells when a server that is down is worth another try.
        down_after: so many failures in a row make a server down.
        retry: seconds after which a server that is down counts as up again, on probation.
    """

    _log = Logger()

    def __init__(
        self, clusters: Sequence[Cluster], clock: Any = None, down_after: int = 3, retry: float = 20.0
    ) -> None:
        self._clusters = {cluster.name: cluster for cluster in clusters}
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

    @property
    def names(self) -> frozenset[str]:
        """The clusters' names."""
        return frozenset(self._clusters)

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
        self.generation += 1

    def read_policy(self, cluster: str) -> ReadPolicy:
        """Return which reads may go to replicas."""
        return self._clusters[cluster].read_policy

    def accepts_tenant(self, cluster: str, tenant: str) -> bool:
        """Return whether the settings accept a label as the tenant of a user."""
        return tenant in self._clusters[cluster].tenants

    # -- what is learnt of servers -------------------------------------------------------------------------------

    def heard(self, address: Address, traits: ServerTraits) -> None:
        """Take over what a server said in its greeting."""
        if self._heard.get(address) != traits:
            self._heard[address] = traits
            self._promise = reduce(_common, self._heard.values())

    def found(self, address: Address, finding: ServerFinding) -> None:
        """Take over what a health check found."""
        for server, standing in self._known(address):
            role = server.role or finding.role
            self._note(
                evolve(standing, role=role, up=True, version=finding.version, lag=finding.lag, failures=0, why="")
            )

    def failed(self, address: Address, why: str) -> None:
        """Count a failure; enough of them in a row make the server down."""
        for _, standing in self._known(address):
            failures = standing.failures + 1
            up = failures < self._down_after
            self._note(evolve(standing, up=up, failures=failures, failed_at=time(), why=why))
            if not up and standing.up and self._clock is not None:
                self._clock.callLater(self._retry, self._try_again, address)

    def suspect(self, address: Address) -> None:
        """Have a server checked at once."""
        self.on_suspicion(address)

    def _try_again(self, address: Address) -> None:
        """Let a server that is down be tried again: the next failure makes it down at once."""
        for _, standing in self._known(address):
            if not standing.up:
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
        if (before.role, before.up) != (standing.role, standing.up):
            self.generation += 1
            self._log.warn(
                "server {server} of cluster {cluster} is {role} and {state}{why}",
                server=standing.address,
                cluster=standing.cluster,
                role=standing.role.value,
                state="up" if standing.up else "down",
                why=f": {standing.why}" if standing.why else "",
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
