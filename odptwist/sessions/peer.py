"""Where a client comes from."""

from __future__ import annotations

from typing import Any, Self

from attrs import frozen

_MAPPED = "::ffff:"


@frozen
class Peer:
    """Where a client comes from; `host` is empty and `port` 0 for a Unix socket."""

    host: str = ""
    port: int = 0

    @classmethod
    def of(cls, transport: Any) -> Self:
        """Return where a transport comes from."""
        return cls.at(transport.getPeer())

    @classmethod
    def at(cls, address: Any) -> Self:
        """Return what Twisted calls an address, by IPv4 also on a socket of both families (RFC 4291, 2.5.5.2)."""
        host = getattr(address, "host", "")
        if host.startswith(_MAPPED) and "." in host:
            host = host.removeprefix(_MAPPED)
        return cls(host, getattr(address, "port", 0))


NOBODY = Peer()
"""As long as nothing is known of it."""
