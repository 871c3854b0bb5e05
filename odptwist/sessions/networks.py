"""Which addresses belong to some networks."""

from __future__ import annotations

from collections.abc import Iterable
from ipaddress import IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Self

from attrs import frozen

UNIX = "unix"
"""Stands among networks for Unix sockets."""


@frozen
class Networks:
    """Some networks; `host in networks` takes an address as Twisted spells it, empty for a Unix socket."""

    _networks: tuple[IPv4Network | IPv6Network, ...] = ()
    _unix: bool = False

    @classmethod
    def read(cls, texts: Iterable[str]) -> Self:
        """Return what texts such as `10.0.0.0/8`, `::1` and `unix` stand for; ValueError if one is something else."""
        names = set(texts)
        return cls(tuple(ip_network(name) for name in sorted(names - {UNIX})), UNIX in names)

    def __contains__(self, host: str) -> bool:
        if not host:
            return self._unix
        address = ip_address(host)
        if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
            address = address.ipv4_mapped  # so clients of IPv4 look on a socket of both
        return any(address in network for network in self._networks)
