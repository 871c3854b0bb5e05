"""TLS on the wires of a `House`: the proxy's end by Twisted, the test's end by Python's own `ssl`."""

from __future__ import annotations

import ssl
from typing import Any

from twisted.protocols.tls import TLSMemoryBIOFactory

from tests.support.house import House, Peer, Wire


class _Below:
    """What TLS writes to: the wire as it was before."""

    def __init__(self, wire: Wire, write: Any, lose: Any, register: Any, unregister: Any) -> None:
        self._wire = wire
        self.write = write
        self.loseConnection = lose
        self.registerProducer = register
        self.unregisterProducer = unregister

    def __getattr__(self, name: str) -> Any:
        return getattr(self._wire, name)


def can_tls(peer: Peer, client: bool) -> None:
    """Give the wire of a peer `startTLS`, as Twisted's transports have it.

    Args:
        peer: of the proxy.
        client: whether the proxy is the client on this wire.
    """
    wire: Any = peer.wire

    def start_tls(options: Any) -> None:
        producer, wire.producer = wire.producer, None
        factory = TLSMemoryBIOFactory(options, client, None, clock=wire.reactor)
        tls = factory.protocol(factory, wire.protocol, False)
        below = _Below(wire, wire.write, wire.loseConnection, wire.registerProducer, wire.unregisterProducer)
        wire.protocol = tls
        wire.write, wire.loseConnection, wire.getHandle = tls.write, tls.loseConnection, tls.getHandle
        wire.registerProducer, wire.unregisterProducer = tls.registerProducer, tls.unregisterProducer
        tls.makeConnection(below)
        if producer is not None:
            wire.registerProducer(producer, True)

    wire.startTLS = start_tls


def trusting(pem: bytes, check_hostname: bool = False) -> ssl.SSLContext:
    """Return the context of a client that trusts an authority."""
    context = ssl.create_default_context(cadata=pem.decode())
    context.check_hostname = check_hostname
    return context


class TlsEnd:
    """The test's end of a wire, from the first byte of TLS on.

    Attributes:
        plain: what has come, decrypted.
        failure: why TLS ended, or None.
        closed: whether the proxy has said that it says no more.

    Args:
        house: with the proxy's end.
        peer: whose wire it is.
        context: of Python's.
        server: whether this end is the server.
        start: how many bytes of the proxy come before TLS; None: all that it has written.
    """

    def __init__(
        self, house: House, peer: Peer, context: ssl.SSLContext, server: bool = False, start: int | None = None
    ) -> None:
        self._house = house
        self._wire: Any = peer.wire
        self._read = len(self._wire.written) if start is None else start
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.object = context.wrap_bio(self._incoming, self._outgoing, server)
        self.plain = b""
        self.failure: ssl.SSLError | None = None
        self.closed = False

    def hello(self) -> bytes:
        """Return the first flight of a client."""
        self._shake()
        return self._outgoing.read()

    def run(self) -> None:
        """Pass bytes to and fro until both sides are silent."""
        for _ in range(20):
            self._house.turn()
            came, self._read = self._wire.written[self._read :], len(self._wire.written)
            self._incoming.write(came)
            self._shake()
            gone = self._outgoing.read()
            if gone and self._wire.ended is None:
                self._wire.protocol.dataReceived(gone)
            if not came and not gone:
                return

    def send(self, data: bytes) -> None:
        """Send bytes by TLS, whose handshake must be over."""
        self.object.write(data)
        self.run()

    def take(self) -> bytes:
        """Return what has come, and forget it."""
        self.run()
        plain, self.plain = self.plain, b""
        return plain

    def _shake(self) -> None:
        try:
            self.object.do_handshake()
            while data := self.object.read(1 << 16):
                self.plain += data
            self.closed = True
        except ssl.SSLWantReadError:
            pass
        except ssl.SSLError as fault:
            self.failure = fault
