"""The test's end of a compressed wire in memory."""

from __future__ import annotations

from attrs import frozen

from odptwist.snapshots import Algorithm
from odptwist.wire.compression import Compressor, Decompressor
from odptwist.wire.framing import Deframer, Packet
from tests.support.house import Peer


@frozen
class Part:
    """What came in one compressed packet."""

    sequence: int
    data: bytes


class CompressedEnd:
    """The other side of a wire in the hands of a test, from the end of its login on.

    Attributes:
        size: of all that has come, compressed.
    """

    def __init__(self, peer: Peer, algorithm: Algorithm = Algorithm.ZLIB) -> None:
        self.size = 0
        self._wire = peer.wire
        self._read = len(self._wire.written)
        self._compressor = Compressor(algorithm, 1)
        self._decompressor = Decompressor(algorithm)
        self._deframer = Deframer(1 << 27)

    def parts(self) -> list[Part]:
        """Return what has come since the last call, compressed packet by compressed packet."""
        came, self._read = self._wire.written[self._read :], len(self._wire.written)
        self.size += len(came)
        return self._parts(came)

    def _parts(self, came: bytes) -> list[Part]:
        self._decompressor.receive(came)
        parts: list[Part] = []
        while (piece := self._decompressor.read(1 << 24)) is not None:
            if piece.first:
                parts.append(Part(piece.sequence, piece.data))
            else:
                parts[-1] = Part(piece.sequence, parts[-1].data + piece.data)
        return parts

    def inflate(self, came: bytes) -> bytes:
        """Return what is in bytes that came by another way than the wire, such as TLS."""
        return b"".join(part.data for part in self._parts(came))

    def packets(self, first: int = 1) -> list[Packet]:
        """Return the packets that have come; fail if compressed ones are not numbered from `first` on."""
        parts = self.parts()
        numbers = [part.sequence for part in parts]
        if numbers != [(first + number) & 0xFF for number in range(len(numbers))]:
            raise AssertionError(f"compressed packets {numbers} came where {first} was due")
        return self._deframer.receive(b"".join(part.data for part in parts))

    def payloads(self, first: int = 1) -> list[bytes]:
        """Return the payloads that have come; as `packets`."""
        return [packet.payload for packet in self.packets(first)]

    def send(self, data: bytes, sequence: int = 0) -> None:
        """Send packets in one compressed packet, or more if they are long."""
        self.send_raw(self.pack(data, sequence))

    def pack(self, data: bytes, sequence: int = 0) -> bytes:
        """Return what `send` would send."""
        return self._compressor.compress(data, sequence).data

    def send_raw(self, data: bytes) -> None:
        """Send bytes as they are."""
        if self._wire.ended is None:
            self._wire.protocol.dataReceived(data)


BROKEN = (20).to_bytes(3, "little") + b"\0" + (100).to_bytes(3, "little") + b"x" * 20
"""A compressed packet with number 0 that cannot be inflated."""
