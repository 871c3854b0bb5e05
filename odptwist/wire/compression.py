"""Compressed packets: a 7-byte header and a part of the stream of ordinary packets, deflated or as it is.

Source: https://dev.mysql.com/doc/dev/mysql-server/latest/page_protocol_basic_compression.html

    3 bytes   length of what follows the header
    1 byte    sequence number, counted apart from those of the packets inside
    3 bytes   length of the content once it is inflated; 0: it is not deflated

Where compressed packets begin and end has nothing to do with where those inside do. Each is deflated by itself. Which
numbers are due is the business of `odptwist.machines.compressed`.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable
from functools import cache
from io import BytesIO
from typing import Any, Final, Protocol

from attrs import frozen

from odptwist.errors import MalformedPacket
from odptwist.snapshots import Algorithm
from odptwist.wire.constants import MAX_PAYLOAD
from odptwist.wire.framing import Framed

try:
    import zstandard
except ImportError:  # it comes with the extra `zstd`
    zstandard = None  # type: ignore[assignment]

ALGORITHMS: Final = (Algorithm.ZLIB, Algorithm.ZSTD) if zstandard is not None else (Algorithm.ZLIB,)
"""What can be used here."""

HEADER_SIZE: Final = 7
# Shorter content is not deflated; MIN_COMPRESS_LENGTH of MariaDB and MySQL.
_DEFLATED_FROM: Final = 50
# What zlib is given at once: it copies what it has not taken yet at every call.
_STEP: Final = 64 * 1024
# The largest that 16 MiB - 1 of content can need. A frame may ask for much more, which would be allocated.
_ZSTD_WINDOW: Final = 1 << 24


class Compressor:
    """Makes compressed packets.

    Args:
        algorithm: one of `ALGORITHMS`.
        level: 1 to 9 for zlib, 1 to 22 for zstd.
    """

    __slots__ = ("_deflate",)

    def __init__(self, algorithm: Algorithm, level: int) -> None:
        self._deflate: Callable[[bytes], bytes]
        if algorithm is Algorithm.ZSTD:
            self._deflate = _zstd(level)
        else:
            self._deflate = lambda content: zlib.compress(content, level)

    def compress(self, data: bytes, sequence: int) -> Framed:
        """Return bytes as compressed packets, the first of which has the number `sequence`; none for no bytes."""
        pieces: list[bytes] = []
        for start in range(0, len(data), MAX_PAYLOAD):
            content = data[start : start + MAX_PAYLOAD]
            size = 0
            if len(content) >= _DEFLATED_FROM:
                deflated = self._deflate(content)
                if len(deflated) < len(content):
                    content, size = deflated, len(content)
            number = (sequence + len(pieces) // 2) & 0xFF
            pieces += [(len(content) | number << 24 | size << 32).to_bytes(HEADER_SIZE, "little"), content]
        return Framed(b"".join(pieces), (sequence + len(pieces) // 2) & 0xFF)


@cache
def _zstd(level: int) -> Callable[[bytes], bytes]:
    # One for all connections: each would keep some hundred KiB.
    return zstandard.ZstdCompressor(level).compress


@frozen
class Piece:
    """A part of the content of a compressed packet with this sequence number; `first`: its first part."""

    sequence: int
    data: bytes
    first: bool


class _Content(Protocol):
    """Inflates the content of one compressed packet."""

    def read(self, size: int) -> bytes:
        """Return at most `size` bytes, which is more than 0; none at the end.

        Raises:
            MalformedPacket: it cannot be inflated.
        """


class Decompressor:
    """Takes compressed packets apart, however the stream was chunked, and not faster than it is asked.

    It holds what has come and was not asked for. No more than one packet need ever come ahead of what is asked, so
    that is at most 16 MiB and what the owner gives too early. After an error nothing more can be read.

    Args:
        algorithm: one of `ALGORITHMS`.
    """

    __slots__ = ("_algorithm", "_buffer", "_content", "_first", "_left", "_sequence")

    def __init__(self, algorithm: Algorithm) -> None:
        self._algorithm = algorithm
        self._buffer = bytearray()
        # Of the packet that is being inflated: its content, how many bytes of that are to come, its number.
        self._content: _Content | None = None
        self._left = 0
        self._sequence = 0
        self._first = False

    @property
    def buffered(self) -> int:
        """The number of bytes that have come and were not looked at."""
        return len(self._buffer)

    def receive(self, data: bytes) -> None:
        """Take the stream's next bytes."""
        self._buffer += data

    def read(self, size: int) -> Piece | None:
        """Return the next part of the content, at most `size` bytes of it; None if nothing whole has come.

        Raises:
            MalformedPacket: a packet is empty, cannot be inflated, or not to the size that its header announces.
        """
        if self._content is None and not self._begin():
            return None
        content: Any = self._content
        data = content.read(min(size, self._left))
        self._left -= len(data)
        if not data:
            raise MalformedPacket("a compressed packet is shorter than its header says")
        if not self._left:
            if content.read(1):
                raise MalformedPacket("a compressed packet is longer than its header says")
            self._content = None
        first, self._first = self._first, False
        return Piece(self._sequence, data, first)

    def _begin(self) -> bool:
        """Begin with the next packet, if it is there as a whole."""
        buffer = self._buffer
        if len(buffer) < HEADER_SIZE:
            return False
        length = int.from_bytes(buffer[:3], "little")
        if not length:
            raise MalformedPacket("a compressed packet without content")
        end = HEADER_SIZE + length
        if len(buffer) < end:
            return False
        size = int.from_bytes(buffer[4:HEADER_SIZE], "little")
        self._sequence = buffer[3]
        body = bytes(buffer[HEADER_SIZE:end])
        # From the front of a bytearray, CPython removes without moving the rest.
        del buffer[:end]
        self._left = size or length
        self._first = True
        if not size:
            self._content = BytesIO(body)
        elif self._algorithm is Algorithm.ZSTD:
            self._content = _Zstd(body)
        else:
            self._content = _Zlib(body)
        return True


class _Zlib:
    __slots__ = ("_body", "_position", "_stream")

    def __init__(self, body: bytes) -> None:
        self._body = body
        self._position = 0
        self._stream = zlib.decompressobj()

    def read(self, size: int) -> bytes:
        stream = self._stream
        while not stream.eof:
            step = stream.unconsumed_tail
            if not step:
                step = self._body[self._position : self._position + _STEP]
                self._position += len(step)
            try:
                data = stream.decompress(step, size)
            except zlib.error as fault:
                raise MalformedPacket(f"a compressed packet cannot be inflated: {fault}") from None
            if data:
                return data
            if not step:
                # Also what ends without its checksum.
                raise MalformedPacket("a compressed packet ends too early")
        if stream.unused_data or self._position < len(self._body):
            raise MalformedPacket("a compressed packet goes on after its end")
        return b""


class _Zstd:
    __slots__ = ("_stream",)

    def __init__(self, body: bytes) -> None:
        self._stream = zstandard.ZstdDecompressor(max_window_size=_ZSTD_WINDOW).stream_reader(body)

    def read(self, size: int) -> bytes:
        try:
            return bytes(self._stream.read(size))
        except zstandard.ZstdError as fault:
            raise MalformedPacket(f"a compressed packet cannot be inflated: {fault}") from None
