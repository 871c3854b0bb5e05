"""Where clients come in, and what holds for those who do: TLS, and PROXY headers."""

from __future__ import annotations

from attrs import Factory, frozen

from odptwist.sessions.encryption import ClientTls
from odptwist.sessions.networks import Networks
from odptwist.snapshots import HeaderPolicy, ListenerTls


@frozen
class Listener:
    """What holds for the clients that come in at one place.

    Attributes:
        tls: whether they must use it, but for those on a Unix socket.
        headers: whether they send a PROXY header.
        trusted: whose headers are believed.
    """

    tls: ListenerTls = ListenerTls.DEFAULT
    headers: HeaderPolicy = HeaderPolicy.OFF
    trusted: Networks = Factory(Networks)

    def requires_tls(self, offered: ClientTls | None) -> bool:
        """Whether clients must use TLS, where it is offered to all like this."""
        if self.tls is ListenerTls.DEFAULT:
            return offered is not None and offered.required
        return self.tls is ListenerTls.REQUIRED


PLAIN = Listener()
"""Of which nothing special was said."""
