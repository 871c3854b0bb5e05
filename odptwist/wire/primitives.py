"""The protocol's basic types: little-endian integers, length-encoded integers, and the three kinds of string.

Source: https://dev.mysql.com/doc/dev/mysql-server/latest/page_protocol_basic_data_types.html
"""

from __future__ import annotations

from struct import Struct
from typing import Any, Final

from odptwist.errors import MalformedPacket

NULL: Final[int] = 0xFB
"""Where a length-encoded string of a text row is due, this byte stands for SQL NULL."""

_WIDTHS: Final[dict[int, int]] = {0xFC: 2, 0xFD: 3, 0xFE: 8}


class Reader:
    """A cursor over one payload; every read past its end raises `MalformedPacket` and leaves the cursor where it was.

    Args:
        data: the payload; its bytes are copied only as they are taken.
    """

    __slots__ = ("_at", "_data")

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    @property
    def remaining(self) -> int:
        """The number of bytes that nobody has taken yet."""
        return len(self._data) - self._at

    def take(self, size: int) -> bytes:
        """Take exactly `size` bytes."""
        end = self._at + size
        if end > len(self._data):
            raise MalformedPacket(f"{size} bytes are due at offset {self._at}, {self.remaining} are left")
        taken = self._data[self._at : end]
        self._at = end
        return taken

    def unpack(self, layout: Struct) -> tuple[Any, ...]:
        """Take fields of fixed sizes in one go, as `layout` says."""
        return layout.unpack(self.take(layout.size))

    def rest(self) -> bytes:
        """Take what is left, possibly nothing."""
        return self.take(self.remaining)

    def uint8(self) -> int:
        """Take one byte."""
        return self.take(1)[0]

    def uint16(self) -> int:
        """Take 2 bytes."""
        return int.from_bytes(self.take(2), "little")

    def uint24(self) -> int:
        """Take 3 bytes."""
        return int.from_bytes(self.take(3), "little")

    def uint32(self) -> int:
        """Take 4 bytes."""
        return int.from_bytes(self.take(4), "little")

    def uint64(self) -> int:
        """Take 8 bytes."""
        return int.from_bytes(self.take(8), "little")

    def lenenc_int(self) -> int:
        """Take 1, 3, 4 or 9 bytes; a number that is longer than it need be is accepted.

        Raises:
            MalformedPacket: also for 0xFB (NULL) and 0xFF (an ERR's header), which are no numbers.
        """
        start = self._at
        first = self.uint8()
        if first < NULL:
            return first
        try:
            return int.from_bytes(self.take(_WIDTHS[first]), "little")
        except KeyError:
            self._at = start
            raise MalformedPacket(f"0x{first:02x} at offset {start} does not begin a length-encoded integer") from None
        except MalformedPacket:
            self._at = start
            raise

    def lenenc_bytes(self) -> bytes:
        """Take a length-encoded string."""
        start = self._at
        try:
            return self.take(self.lenenc_int())
        except MalformedPacket:
            self._at = start
            raise

    def nullable_lenenc_bytes(self) -> bytes | None:
        """Take a length-encoded string or the one byte that stands for SQL NULL."""
        if self._data[self._at : self._at + 1] == b"\xfb":
            self._at += 1
            return None
        return self.lenenc_bytes()

    def null_terminated(self) -> bytes:
        """Take a string and its NUL; return it without the NUL."""
        end = self._data.find(b"\x00", self._at)
        if end < 0:
            raise MalformedPacket(f"the string at offset {self._at} has no end")
        taken = self._data[self._at : end]
        self._at = end + 1
        return taken

    def null_terminated_or_rest(self) -> bytes:
        """Take a string whose NUL a peer may forget at the end of a packet."""
        return self.null_terminated() if self._data.find(b"\x00", self._at) >= 0 else self.rest()


def lenenc_int(n: int) -> bytes:
    """Return the shortest encoding of `n`, 0 <= n < 2**64 (`OverflowError` otherwise)."""
    if n < 0xFB:
        return n.to_bytes(1, "little")
    if n < 1 << 16:
        return b"\xfc" + n.to_bytes(2, "little")
    if n < 1 << 24:
        return b"\xfd" + n.to_bytes(3, "little")
    return b"\xfe" + n.to_bytes(8, "little")


def lenenc_bytes(b: bytes) -> bytes:
    """Return `b` behind its length."""
    size = len(b)
    return size.to_bytes(1, "little") + b if size < NULL else lenenc_int(size) + b  # nearly always short


def null_terminated(b: bytes) -> bytes:
    r"""Return `b` and a NUL.

    Raises:
        MalformedPacket: `b` has a NUL inside, so that its tail would be read as the next field. Names come from peers
            (a schema `a\0b` is legal in an OK), hence an error of the wire.
    """
    if b"\x00" in b:
        raise MalformedPacket("a string with a NUL inside cannot end with a NUL")
    return b + b"\x00"


def decode_text(b: bytes) -> str:
    """Return bytes as text that `encode_text` turns into the same bytes, whatever they are."""
    return b.decode("utf-8", "surrogateescape")


def encode_text(s: str) -> bytes:
    """Return text as UTF-8, and what `decode_text` could not read as the bytes that it was."""
    return s.encode("utf-8", "surrogateescape")
