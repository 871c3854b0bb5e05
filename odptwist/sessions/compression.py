"""The layer between a session and its transport that compresses what it writes and inflates what comes.

It lies inside TLS. A session has it from the end of its login on, if the peer and the settings want that; all others
pay nothing for it. For the session it is the transport, for the transport (or TLS) it is the protocol.

What came is inflated no faster than the session takes it. Nothing that is written is held back, but for the beginning
of a packet for a client, until its end is there: one client cannot read it (see `odptwist.machines.compressed`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final
from typing import Protocol as Shape

from attrs import Factory, evolve, frozen
from twisted.internet.protocol import connectionDone
from twisted.python.failure import Failure

from odptwist.errors import WireError
from odptwist.machines.compressed import ClientNumbering, Numbering, ServerNumbering
from odptwist.sessions.transport import BUFFER_SIZE
from odptwist.snapshots import Address, Algorithm
from odptwist.wire.compression import Compressor, Decompressor
from odptwist.wire.constants import CLIENT_COMPRESS, CLIENT_ZSTD_COMPRESSION
from odptwist.wire.handshake import HandshakeResponse

FLAGS: Final = {Algorithm.ZLIB: CLIENT_COMPRESS, Algorithm.ZSTD: CLIENT_ZSTD_COMPRESSION}
"""The capability by which each algorithm is offered and asked for."""

# Chunks of `BUFFER_SIZE` that one session may get in one turn of the reactor: 16 KiB can inflate to 16 MiB.
_TURN: Final = 4
# Compressed packets that make up one chunk at most: 256 KiB can be 30,000 of a byte each, and each takes 7 µs.
_PIECES: Final = 500
# Chunks that are still inflated when the connection has ended, all at once: 16 MiB, as much as one packet may have.
_LAST: Final = 64


@frozen
class Compression:
    """Who is talked to in compressed packets, and how.

    Attributes:
        clients: what is offered to clients.
        servers: what is wanted at each server, best first.
        levels: of each algorithm.
    """

    clients: Sequence[Algorithm] = ()
    servers: Mapping[Address, Sequence[Algorithm]] = Factory(dict)
    levels: Mapping[Algorithm, int] = Factory(lambda: {Algorithm.ZLIB: 1, Algorithm.ZSTD: 1})

    @property
    def offer(self) -> int:
        """The capabilities to offer to clients."""
        return sum(flag for algorithm, flag in FLAGS.items() if algorithm in self.clients)

    def for_client(self, capabilities: int, zstd_level: int | None) -> Compressed | None:
        """Return what a client has asked for in its handshake response, if it was offered; None for nothing.

        Where it asks for both, it means zlib, as with MySQL. It may ask for less effort than the settings allow.
        """
        for algorithm, flag in FLAGS.items():
            if capabilities & flag and algorithm in self.clients:
                level = self.levels[algorithm]
                if algorithm is Algorithm.ZSTD and zstd_level:
                    level = min(level, zstd_level)
                return Compressed(algorithm, level)
        return None

    def for_server(self, address: Address, capabilities: int) -> Compressed | None:
        """Return what to ask a server for that offers these capabilities; None for nothing."""
        for algorithm in self.servers.get(address, ()):
            if capabilities & FLAGS[algorithm]:
                return Compressed(algorithm, self.levels[algorithm])
        return None


@frozen
class Compressed:
    """How both sides of one connection have agreed to compress."""

    algorithm: Algorithm
    level: int

    def ask_for(self, response: HandshakeResponse) -> HandshakeResponse:
        """Return a handshake response that asks a server for it."""
        capabilities = response.capabilities | FLAGS[self.algorithm]
        return evolve(response, capabilities=capabilities, zstd_level=self.level)


class Compressing(Shape):
    """What the layer needs of its session."""

    surroundings: Any
    transport: Any

    def dataReceived(self, data: bytes) -> None:
        """Take bytes of the peer."""

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Have ended."""

    def peer_broke(self, fault: WireError) -> None:
        """Be told that the peer has sent what cannot be inflated; nothing more will come."""


def compress_client(session: Compressing, how: Compressed) -> Callable[[bytes], None]:
    """Go over to compressed packets with a client, whose login is over; return what takes its bytes from now on."""
    return _Layer(session, how, ClientNumbering()).dataReceived


def compress_server(session: Compressing, how: Compressed) -> None:
    """Go over to compressed packets with a server, at which the proxy has logged in."""
    _Layer(session, how, ServerNumbering())


def compression_of(transport: Any) -> str:
    """Return how what a session writes to its transport is compressed, empty if it is not."""
    return transport.algorithm.value if isinstance(transport, _Layer) else ""


class _Layer:
    """Takes its place between a session and its transport when it is made."""

    __slots__ = (
        "_compressor",
        "_decompressor",
        "_fault",
        "_inflating",
        "_more",
        "_numbering",
        "_paused",
        "_session",
        "_stopped",
        "_transport",
        "_turn",
        "algorithm",
    )

    def __init__(self, session: Compressing, how: Compressed, numbering: Numbering) -> None:
        self._transport = transport = session.transport
        self.algorithm = how.algorithm
        self._session = session
        self._numbering = numbering
        self._compressor = Compressor(how.algorithm, how.level)
        self._decompressor = Decompressor(how.algorithm)
        self._paused = False
        self._inflating = False
        # Whether something may have come that the session has not been given.
        self._more = False
        self._fault: WireError | None = None
        # Whether the transport is paused: because the session does not take more, or until the next turn.
        self._stopped = False
        # The reactor's next turn, in which inflating goes on.
        self._turn: Any = None
        session.transport = self
        above = transport.protocol
        if above is session:
            transport.protocol = self
        else:
            above.wrappedProtocol = self  # TLS

    def __getattr__(self, name: str) -> Any:
        # All else that a session asks of its transport: addresses, ends, producers, what waits to be sent.
        return getattr(self._transport, name)

    # -- as the session's transport -----------------------------------------------------------------------------------

    def write(self, data: bytes) -> None:
        """Send packets, compressed."""
        packets = []
        for run in self._numbering.runs(data):
            framed = self._compressor.compress(run.data, run.sequence)
            self._numbering.sent(framed.sequence)
            packets.append(framed.data)
        if packets:
            self._transport.write(b"".join(packets))

    def pauseProducing(self) -> None:
        """Give the session nothing more."""
        self._paused = True
        self._stop()

    def resumeProducing(self) -> None:
        """Go on; with what has come already first, and that in the reactor's next turn."""
        self._paused = False
        if not self._more:
            self._stopped = False
            self._transport.resumeProducing()
        elif not self._inflating:
            self._go_on_later()

    # -- as the transport's protocol ----------------------------------------------------------------------------------

    def dataReceived(self, data: bytes) -> None:
        """Take a chunk of the peer."""
        if self._fault is not None:
            return
        self._decompressor.receive(data)
        self._more = True
        if not self._paused and not self._inflating and self._turn is None:
            self._inflate()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Have ended; what has come before goes first, but not to a session that does not take it."""
        if self._turn is not None:
            self._turn.cancel()
            self._turn = None
            for _ in range(_LAST):
                if self._paused or not (data := self._next()):
                    break
                self._session.dataReceived(data)
        self._session.connectionLost(reason)

    # -- inflating ----------------------------------------------------------------------------------------------------

    def _inflate(self) -> None:
        """Give the session what has come, as far as it takes it and the others need not wait for that."""
        self._inflating = True
        try:
            for _ in range(_TURN):
                data = self._next()
                if not data:
                    self._more = False
                    break
                self._session.dataReceived(data)
                if self._paused:
                    return
        finally:
            self._inflating = False
        if self._more:
            self._stop()
            self._go_on_later()
        elif self._fault is not None:
            self._session.peer_broke(self._fault)
        elif self._stopped:
            self._stopped = False
            self._transport.resumeProducing()

    def _stop(self) -> None:
        """Read no more from the peer."""
        self._stopped = True
        self._transport.pauseProducing()

    def _go_on_later(self) -> None:
        if self._turn is None:
            self._turn = self._session.surroundings.reactor.callLater(0, self._go_on)

    def _go_on(self) -> None:
        self._turn = None
        if not self._paused:
            self._inflate()

    def _next(self) -> bytes:
        """Return what the session is to be given next, nothing at the end or at a fault."""
        pieces: list[bytes] = []
        size = 0
        try:
            while size < BUFFER_SIZE and len(pieces) < _PIECES and self._fault is None:
                piece = self._decompressor.read(BUFFER_SIZE - size)
                if piece is None:
                    break
                if piece.first:
                    self._numbering.heard(piece.sequence)
                pieces.append(self._numbering.renumber(piece.data))
                size += len(piece.data)
        except WireError as fault:
            # What came before it is good, and goes first.
            self._fault = fault
        return b"".join(pieces)
