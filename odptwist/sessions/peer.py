"""Where a client comes from."""

from __future__ import annotations

from attrs import frozen


@frozen
class Peer:
    """Where a client comes from; `host` is empty and `port` 0 for a Unix socket."""

    host: str = ""
    port: int = 0
