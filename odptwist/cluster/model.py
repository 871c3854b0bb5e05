"""Clusters: their servers, the tenants they accept, and what their servers said of themselves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import reduce

from attrs import Factory, evolve, frozen
from zope.interface import implementer

from odptwist.interfaces import IClusters
from odptwist.snapshots import Address, ServerTraits

DEFAULT_KILLER = "kill"


@frozen
class Cluster:
    """One cluster of the settings; `servers` is not empty once the proxy serves clients.

    `killers` names the `IBackendKiller` of a server that has another than the usual one.
    """

    name: str
    servers: tuple[Address, ...]
    tenants: tuple[str, ...]
    killers: Mapping[Address, str] = Factory(dict)


@implementer(IClusters)
class Clusters:
    """All clusters of a proxy; the first is the default."""

    def __init__(self, clusters: Sequence[Cluster]) -> None:
        self._clusters = {cluster.name: cluster for cluster in clusters}
        self.default_name = clusters[0].name
        self._killers = {address: name for cluster in clusters for address, name in cluster.killers.items()}
        self._heard: dict[Address, ServerTraits] = {}
        self._promise: ServerTraits | None = None

    @property
    def names(self) -> frozenset[str]:
        """The clusters' names."""
        return frozenset(self._clusters)

    def servers(self, cluster: str) -> Sequence[Address]:
        """Return the servers of a known cluster."""
        return self._clusters[cluster].servers

    def all_servers(self) -> tuple[Address, ...]:
        """Return the servers of all clusters, each once."""
        return tuple(dict.fromkeys(server for cluster in self._clusters.values() for server in cluster.servers))

    def add_server(self, cluster: str, address: Address) -> None:
        """Add a server that was started for a cluster."""
        found = self._clusters[cluster]
        self._clusters[cluster] = evolve(found, servers=(*found.servers, address))

    def accepts_tenant(self, cluster: str, tenant: str) -> bool:
        """Return whether the settings accept a label as the tenant of a user."""
        return tenant in self._clusters[cluster].tenants

    def heard(self, address: Address, traits: ServerTraits) -> None:
        """Take over what a server said in its greeting."""
        if self._heard.get(address) != traits:
            self._heard[address] = traits
            self._promise = reduce(_common, self._heard.values())

    def promise(self) -> ServerTraits | None:
        """Return what every server that was heard can do, None as long as none was."""
        return self._promise

    def killer(self, address: Address) -> str:
        """Return the name of the killer that the settings choose for a server."""
        return self._killers.get(address, DEFAULT_KILLER)


def _common(one: ServerTraits, other: ServerTraits) -> ServerTraits:
    return evolve(one, capabilities=one.capabilities & other.capabilities)
