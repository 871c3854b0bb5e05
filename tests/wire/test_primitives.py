from __future__ import annotations

from struct import Struct

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from odptwist.errors import MalformedPacket
from odptwist.wire.primitives import (
    Reader,
    decode_text,
    encode_text,
    lenenc_bytes,
    lenenc_int,
    null_terminated,
)
from tests.wire.strategies import any_bytes, many, relaxed, uint64

METHODS = (
    Reader.uint8,
    Reader.uint16,
    Reader.uint24,
    Reader.uint32,
    Reader.uint64,
    Reader.lenenc_int,
    Reader.lenenc_bytes,
    Reader.nullable_lenenc_bytes,
    Reader.null_terminated,
    Reader.null_terminated_or_rest,
    Reader.rest,
)


class PrimitivesTests(SynchronousTestCase):
    def test_fixed_integers(self) -> None:
        """Integers of 1, 2, 3, 4 and 8 bytes are little-endian and unsigned."""
        reader = Reader(bytes.fromhex("ff 0201 030201 fcfdfeff 08070605040302f1 aa"))
        self.assertEqual(
            [reader.uint8(), reader.uint16(), reader.uint24(), reader.uint32(), reader.uint64()],
            [0xFF, 0x0102, 0x010203, 0xFFFEFDFC, 0xF102030405060708],
        )
        self.assertEqual(reader.remaining, 1)
        self.assertEqual(reader.rest(), b"\xaa")
        self.assertEqual(reader.rest(), b"")

    def test_fields_in_one_go(self) -> None:
        """Fields of fixed sizes are taken together, or not at all."""
        reader = Reader(bytes.fromhex("ff 0201 aa"))
        self.assertEqual(reader.unpack(Struct("<BH")), (0xFF, 0x0102))
        self.assertRaises(MalformedPacket, reader.unpack, Struct("<H"))
        self.assertEqual(reader.rest(), b"\xaa")

    def test_lenenc_borders(self) -> None:
        """A length-encoded integer takes the width that its size needs."""
        for number, encoded in (
            (0, "00"),
            (250, "fa"),
            (251, "fcfb00"),
            (0xFFFF, "fcffff"),
            (0x10000, "fd000001"),
            (0xFFFFFF, "fdffffff"),
            (0x1000000, "fe0000000100000000"),
            (0xFFFFFFFFFFFFFFFF, "feffffffffffffffff"),
        ):
            self.assertEqual(lenenc_int(number), bytes.fromhex(encoded))

    def test_lenenc_out_of_range(self) -> None:
        """Numbers that have no length-encoded form are refused."""
        for number in (-1, 1 << 64):
            self.assertRaises(OverflowError, lenenc_int, number)

    @relaxed
    @given(uint64)
    def test_lenenc_round_trip(self, number: int) -> None:
        """Every length-encoded integer reads back as itself."""
        reader = Reader(lenenc_int(number))
        self.assertEqual((reader.lenenc_int(), reader.remaining), (number, 0))

    def test_lenenc_longer_than_needed(self) -> None:
        """A number in more bytes than it needs is read."""
        self.assertEqual(Reader(bytes.fromhex("fe0500000000000000")).lenenc_int(), 5)

    def test_lenenc_without_number(self) -> None:
        """The bytes of NULL and of ERR begin no number."""
        for first in (b"\xfb", b"\xff"):
            reader = Reader(first + bytes(8))
            self.assertRaises(MalformedPacket, reader.lenenc_int)
            self.assertRaises(MalformedPacket, reader.lenenc_bytes)

    @relaxed
    @given(any_bytes, any_bytes)
    def test_lenenc_bytes_round_trip(self, first: bytes, second: bytes) -> None:
        """Length-encoded strings are read one after the other."""
        reader = Reader(lenenc_bytes(first) + b"\xfb" + lenenc_bytes(second))
        self.assertEqual(reader.lenenc_bytes(), first)
        self.assertIsNone(reader.nullable_lenenc_bytes())
        self.assertEqual(reader.nullable_lenenc_bytes(), second)
        self.assertEqual(reader.remaining, 0)

    def test_null_terminated(self) -> None:
        """A NUL ends a string; without one, only a lenient reader takes it."""
        reader = Reader(b"ab\x00\x00cd")
        self.assertEqual((reader.null_terminated(), reader.null_terminated()), (b"ab", b""))
        self.assertRaises(MalformedPacket, reader.null_terminated)
        self.assertEqual(reader.null_terminated_or_rest(), b"cd")
        self.assertEqual(reader.null_terminated_or_rest(), b"")

    def test_null_inside(self) -> None:
        """A string with a NUL cannot smuggle a second field into a packet."""
        self.assertEqual(null_terminated(b"ab"), b"ab\x00")
        self.assertRaises(MalformedPacket, null_terminated, b"a\x00b")

    @many
    @given(st.one_of(any_bytes, st.binary(max_size=9)), st.lists(st.sampled_from(METHODS), max_size=6))
    def test_any_bytes(self, data: bytes, methods: list[object]) -> None:
        """Whatever is read of whatever bytes, a failed read is a MalformedPacket and moves nothing."""
        reader = Reader(data)
        for method in methods:
            before = reader.remaining
            try:
                method(reader)  # type: ignore[operator]
            except MalformedPacket:
                self.assertEqual(reader.remaining, before)
            self.assertGreaterEqual(reader.remaining, 0)

    @many
    @given(st.binary())
    def test_text_round_trip(self, data: bytes) -> None:
        """Any bytes survive as text, UTF-8 or not."""
        self.assertEqual(encode_text(decode_text(data)), data)
