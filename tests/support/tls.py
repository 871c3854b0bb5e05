"""TLS on the wires of a `House`: the proxy's end by Twisted, the test's end by Python's own `ssl`."""

from __future__ import annotations

import ssl
import tempfile
from functools import cache
from pathlib import Path
from typing import Any

from twisted.protocols.tls import TLSMemoryBIOFactory
from twisted.trial.unittest import SynchronousTestCase

from odptwist.wire import constants as c
from odptwist.wire.framing import Deframer, Packet, frame
from tests.support.certificates import Authority
from tests.support.house import CAPABILITIES, House, Peer, Wire, response

TLS_CAPABILITIES = CAPABILITIES | c.CLIENT_SSL


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


def ssl_request(sequence: int = 1) -> bytes:
    """Return a client's request for TLS."""
    return frame(
        TLS_CAPABILITIES.to_bytes(4, "little") + (1 << 24).to_bytes(4, "little") + bytes([45] + [0] * 23), sequence
    )


def login_response(user: str = "root", auth_response: bytes = b"") -> bytes:
    """Return the handshake response that follows it."""
    framed = bytearray(response(user, auth_response))
    framed[3] = 2
    return bytes(framed)


def packets(data: bytes) -> list[Packet]:
    """Return the packets of a stream."""
    return Deframer(1 << 24).receive(data)


class Certificates:
    """An authority, and files of a certificate and of the authority's own; gone with the process."""

    def __init__(self) -> None:
        self.directory = tempfile.TemporaryDirectory()
        self.authority = Authority()
        self.file = str(self.authority.write(Path(self.directory.name), "localhost", "127.0.0.1"))
        self.ca = str(self.authority.write_own(Path(self.directory.name)))


@cache
def certificates() -> Certificates:
    """Return the certificates of all tests here: keys take their time, and trial knows no `setUpClass`."""
    return Certificates()


class Certified(SynchronousTestCase):
    @property
    def authority(self) -> Authority:
        """Who vouches for `file`."""
        return certificates().authority

    @property
    def directory(self) -> Any:
        """Where the files are."""
        return certificates().directory

    @property
    def file(self) -> str:
        """A certificate with its key."""
        return certificates().file

    @property
    def ca(self) -> str:
        """The authority's own certificate."""
        return certificates().ca
