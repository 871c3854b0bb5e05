"""Where a client comes from: its own address, or the one that a load balancer tells in a PROXY header.

Source: https://www.haproxy.org/download/2.6/doc/proxy-protocol.txt, sections 2 and 5; MariaDB's own reading of headers
(`proxy_protocol_networks`), which also come as the first bytes after its greeting.
"""

from __future__ import annotations

from typing import Any, Final, Protocol

from odptwist.errors import CloseReason, WireError
from odptwist.sessions.listener import Listener
from odptwist.sessions.peer import Peer
from odptwist.snapshots import Address, HeaderPolicy
from odptwist.wire.proxy_header import Found, HeaderReader, ProxyHeader

PATIENCE: Final = 0.2
"""Seconds that a header is waited for that may come or not.

Load balancers send it as soon as they are connected. A client without one says nothing before the greeting, so that
each has to wait so long; what comes still later is taken, too.
"""


class Newcomer(Protocol):
    """What an arrival needs of the client session that it belongs to."""

    listener: Listener
    peer: Peer

    def came_from(self, header: ProxyHeader) -> None:
        """Be told by a header, before or after the beginning of the login."""

    def begin_login(self) -> None:
        """Go on: nothing more is awaited."""

    def drop(self, reason: CloseReason, detail: str = "") -> None:
        """End now."""


class Arrival:
    """Looks for a header in front of the first bytes of one client.

    Args:
        session: connected; its `peer` is still that of the connection.
        reactor: for the time to wait.
    """

    __slots__ = ("_greeted", "_reactor", "_reader", "_session", "_timer", "_trusted")

    def __init__(self, session: Newcomer, reactor: Any) -> None:
        self._session = session
        self._reactor = reactor
        self._reader = HeaderReader()
        awaited = session.listener.headers is not HeaderPolicy.OFF
        self._trusted = awaited and session.peer.host in session.listener.trusted
        self._greeted = False
        self._timer: Any = None

    @property
    def _required(self) -> bool:
        return self._session.listener.headers is HeaderPolicy.REQUIRED

    def begin(self) -> None:
        """Wait for a header, if one is to be believed; else go on, or end."""
        if self._trusted:
            if not self._required:
                self._timer = self._reactor.callLater(PATIENCE, self._go_on)
        elif self._required:
            self._refuse()
        else:
            self._go_on()

    def received(self, data: bytes) -> bytes | None:
        """Take bytes of the client.

        Returns:
            Those that belong to the login, as will all that follow; None: that is not known yet, or the session has
            ended.
        """
        try:
            found = self._reader.receive(data)
        except WireError as fault:
            self._refuse(str(fault))
            return None
        if found is Found.PART:
            return None
        header = self._reader.header
        if header is None and self._required:
            self._refuse("there is no PROXY header")
            return None
        if header is not None and not self._trusted:
            self._refuse()
            return None
        if header is not None:
            self._session.came_from(header)
        self._go_on()
        return self._reader.take_rest()

    def stop(self) -> None:
        """Wait no longer."""
        if self._timer is not None and self._timer.active():
            self._timer.cancel()

    def _go_on(self) -> None:
        self.stop()
        if not self._greeted:
            self._greeted = True
            self._session.begin_login()

    def _refuse(self, why: str = "") -> None:
        if self._session.listener.headers is HeaderPolicy.OFF:
            # Without a look at it, it would be a packet that is too long, and nobody would know why.
            why = "there is a PROXY header, and none is awaited here"
        elif not self._trusted:
            why = f"{self._session.peer.host or 'a Unix socket'} is not trusted to send a PROXY header"
        self._session.drop(CloseReason.PROXY_HEADER, why)


def origin(transport: Any, peer: Peer, header: ProxyHeader | None) -> ProxyHeader:
    """Return what servers are told about a client's connection.

    Args:
        transport: of the connection.
        peer: where the client comes from.
        header: what a load balancer has told, None if nothing.
    """
    if header is not None and header.source is not None:
        return header
    if not peer.host:
        # A server would take it for a client on its own machine, and let it in as one of localhost.
        return ProxyHeader()
    host = transport.getHost()
    return ProxyHeader(Address(peer.host, peer.port), Address(host.host, host.port))
