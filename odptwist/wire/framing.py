"""Packets: a 3-byte length, a sequence number, a payload; payloads of 16 MiB and more travel in fragments.

Source: https://dev.mysql.com/doc/dev/mysql-server/latest/page_protocol_basic_packets.html
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from attrs import frozen

from odptwist.errors import PacketTooLarge, SequenceError
from odptwist.wire.constants import MAX_PAYLOAD

HEADER_SIZE: Final[int] = 4
DEFAULT_LIMIT: Final[int] = 16 * 1024 * 1024
"""Bytes of one payload; the default of the servers' max_allowed_packet."""

_FULL: Final[int] = HEADER_SIZE + MAX_PAYLOAD


@frozen
class Packet:
    """One payload, and the sequence number of its last fragment (the answer bears the next one)."""

    sequence: int
    payload: bytes


@frozen
class Framed:
    """Bytes for a transport, and the sequence number that is due after them."""

    data: bytes
    sequence: int


def _fragments(payload: bytes, sequence: int) -> list[bytes]:
    """Return headers and bodies in turn: one pair a fragment."""
    size = len(payload)
    if size < MAX_PAYLOAD:
        return [(size | (sequence & 0xFF) << 24).to_bytes(4, "little"), payload]
    pieces = []
    # One step past the end: a payload of exactly n * MAX_PAYLOAD bytes ends with an empty fragment.
    for number, start in enumerate(range(0, size + 1, MAX_PAYLOAD), sequence):
        piece = payload[start : start + MAX_PAYLOAD]
        pieces += [(len(piece) | (number & 0xFF) << 24).to_bytes(4, "little"), piece]
    return pieces


def frame(payload: bytes, sequence: int) -> bytes:
    """Return a payload as one packet, in as many fragments as it needs; numbers wrap at 256."""
    if len(payload) < MAX_PAYLOAD:
        return (len(payload) | (sequence & 0xFF) << 24).to_bytes(4, "little") + payload
    return b"".join(_fragments(payload, sequence))


def frames(payloads: Iterable[bytes], sequence: int) -> Framed:
    """Return payloads as packets with running numbers, the first of which is `sequence`."""
    pieces: list[bytes] = []
    for payload in payloads:
        pieces += _fragments(payload, sequence + len(pieces) // 2)
    return Framed(b"".join(pieces), (sequence + len(pieces) // 2) & 0xFF)


class Deframer:
    """Cuts a stream of bytes into packets, however the stream was chunked.

    It checks that the fragments of one payload follow each other; whether the first one bears the number that is due,
    only the owner knows. After an error every call raises it again: the stream has lost its packet borders.

    Args:
        limit: the longest payload, in bytes, after its fragments are joined.
    """

    __slots__ = ("_buffer", "_limit", "_payload_size", "_scanned", "_sequence")

    def __init__(self, limit: int = DEFAULT_LIMIT) -> None:
        self._limit = limit
        self._buffer = bytearray()
        # Of the unfinished packet at the front of the buffer: the bytes of its whole fragments with and without their
        # headers, and the number of the last one. The fragments stay in the buffer as they came, for `take_rest`.
        self._scanned = 0
        self._payload_size = 0
        self._sequence = 0

    @property
    def buffered(self) -> int:
        """The number of bytes held: an unfinished packet and, after `receive_one`, whatever follows it."""
        return len(self._buffer)

    def receive(self, data: bytes) -> list[Packet]:
        """Take the stream's next bytes and return the packets that are now whole.

        When a broken packet follows good ones in one chunk, the good ones are returned, so that they are answered
        however the stream was cut; the next call raises.

        Raises:
            PacketTooLarge: a header announces more than the limit; nothing of the payload is awaited.
            SequenceError: a fragment does not follow the one before it.
        """
        return self._take_whole(data) or self._cut(data, None)

    def receive_one(self, data: bytes) -> Packet | None:
        """Take the stream's next bytes and return at most one packet.

        The bytes behind it stay for the next call (`receive_one(b"")` asks without new bytes) or for `take_rest`.

        Raises:
            PacketTooLarge: as `receive`.
            SequenceError: as `receive`.
        """
        packets = self._take_whole(data) or self._cut(data, 1)
        return packets[0] if packets else None

    @property
    def first_sequence(self) -> int | None:
        """The number of the first fragment that is held, None before its header is whole."""
        return self._buffer[3] if len(self._buffer) >= HEADER_SIZE else None

    def hold(self, data: bytes) -> None:
        """Take the stream's next bytes for a later call; how many there may be is up to the owner."""
        self._buffer += data

    def take_rest(self) -> bytes:
        """Hand over every byte that was not part of a returned packet, headers included, and start afresh."""
        rest = bytes(self._buffer)
        self._buffer.clear()
        self._scanned = self._payload_size = 0
        return rest

    def _take_whole(self, data: bytes) -> list[Packet] | None:
        """Return what `_cut` would if the chunk is one packet and nothing else, as nearly all are in a dialogue."""
        size = len(data) - HEADER_SIZE
        if self._buffer or size < 0 or size != int.from_bytes(data[:3], "little"):
            return None
        if size > self._limit or size == MAX_PAYLOAD:
            return None
        return [Packet(data[3], data[HEADER_SIZE:])]

    def _cut(self, data: bytes, most: int | None) -> list[Packet]:
        # A chunk that begins with a packet is cut where it lies; only an unfinished packet is copied into the buffer.
        if self._buffer:
            self._buffer += data
        stream = self._buffer or data
        packets: list[Packet] = []
        start = 0
        try:
            while len(packets) != most and self._scan(stream, start):
                packets.append(Packet(self._sequence, self._join(stream, start)))
                start += self._scanned
                self._scanned = self._payload_size = 0
        except (PacketTooLarge, SequenceError):
            if not packets:
                raise
        finally:
            if stream is self._buffer:
                # From the front of a bytearray, CPython removes without moving the rest.
                del self._buffer[:start]
            elif start < len(stream):
                self._buffer += stream[start:]
        return packets

    def _scan(self, stream: bytes | bytearray, start: int) -> bool:
        """Say whether a whole packet lies at `start`; fragments are looked at once, whichever call brought them."""
        while True:
            at = start + self._scanned
            if len(stream) - at < HEADER_SIZE:
                return False
            size = stream[at] | stream[at + 1] << 8 | stream[at + 2] << 16
            sequence = stream[at + 3]
            if self._scanned and sequence != (self._sequence + 1) & 0xFF:
                raise SequenceError(f"fragment {(self._sequence + 1) & 0xFF} is due, {sequence} came")
            if self._payload_size + size > self._limit:
                raise PacketTooLarge(f"a payload has at least {self._payload_size + size} bytes of {self._limit}")
            if len(stream) - at < HEADER_SIZE + size:
                return False
            self._scanned += HEADER_SIZE + size
            self._payload_size += size
            self._sequence = sequence
            if size < MAX_PAYLOAD:
                return True

    def _join(self, stream: bytes | bytearray, start: int) -> bytes:
        end = start + self._scanned
        if self._scanned < _FULL:
            return bytes(stream[start + HEADER_SIZE : end])
        return b"".join(stream[at + HEADER_SIZE : min(at + _FULL, end)] for at in range(start, end, _FULL))
