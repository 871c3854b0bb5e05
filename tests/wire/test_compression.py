"""Compressed packets."""

import contextlib
import os
import tracemalloc
import zlib
from collections.abc import Iterable
from itertools import pairwise
from unittest import skipUnless

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from odptwist.errors import MalformedPacket, WireError
from odptwist.snapshots import Algorithm
from odptwist.wire.compression import ALGORITHMS, Compressor, Decompressor, Piece
from odptwist.wire.constants import MAX_PAYLOAD

TEXT = b"the same words and the same words again, " * 10
NEEDS_ZSTD = skipUnless(Algorithm.ZSTD in ALGORITHMS, "needs the extra zstd")


def header(length: int, sequence: int, size: int) -> bytes:
    """Return the header of a compressed packet."""
    return length.to_bytes(3, "little") + bytes((sequence,)) + size.to_bytes(3, "little")


def packet(body: bytes, size: int, sequence: int = 0) -> bytes:
    """Return a compressed packet, right or wrong."""
    return header(len(body), sequence, size) + body


def read_all(decompressor: Decompressor, size: int = 1 << 20) -> list[Piece]:
    """Return all pieces that can be read."""
    pieces = []
    while (piece := decompressor.read(size)) is not None:
        pieces.append(piece)
    return pieces


def inflate(algorithm: Algorithm, stream: bytes) -> bytes:
    """Return the content of a stream."""
    decompressor = Decompressor(algorithm)
    decompressor.receive(stream)
    return b"".join(piece.data for piece in read_all(decompressor))


def cut(stream: bytes, places: Iterable[int]) -> list[bytes]:
    """Return a stream in pieces."""
    ends = sorted({0, *(place % (len(stream) + 1) for place in places), len(stream)})
    return [stream[start:end] for start, end in pairwise(ends)]


class CompressorTests(SynchronousTestCase):
    """What is written."""

    def test_short_content_is_stored(self) -> None:
        """Content of less than 50 bytes goes as it is, with a size of 0, as from MariaDB."""
        framed = Compressor(Algorithm.ZLIB, 6).compress(b"x" * 49, 3)
        self.assertEqual((framed.data, framed.sequence), (header(49, 3, 0) + b"x" * 49, 4))

    def test_deflated(self) -> None:
        """Longer content is deflated, and its size is in the header."""
        framed = Compressor(Algorithm.ZLIB, 6).compress(TEXT, 255)
        body = zlib.compress(TEXT, 6)
        self.assertEqual((framed.data, framed.sequence), (header(len(body), 255, len(TEXT)) + body, 0))

    def test_what_grows_is_stored(self) -> None:
        """Content that deflating would make longer goes as it is."""
        noise = os.urandom(1000)
        for algorithm in ALGORITHMS:
            framed = Compressor(algorithm, 1).compress(noise, 0)
            self.assertEqual(framed.data, header(1000, 0, 0) + noise)

    def test_split(self) -> None:
        """No packet has more content than 16 MiB - 1 bytes; the next one has the next number."""
        for size, sizes in (MAX_PAYLOAD, [MAX_PAYLOAD]), (MAX_PAYLOAD + 60, [MAX_PAYLOAD, 60]):
            framed = Compressor(Algorithm.ZLIB, 1).compress(bytes(size), 255)
            decompressor = Decompressor(Algorithm.ZLIB)
            decompressor.receive(framed.data)
            pieces = read_all(decompressor, 1 << 24)
            sums = [sum(len(piece.data) for piece in pieces if piece.sequence == number) for number in (255, 0)]
            self.assertEqual(sums[: len(sizes)], sizes)
            self.assertEqual(sum(sums), size)
            self.assertEqual(framed.sequence, len(sizes) - 1)

    def test_nothing(self) -> None:
        """No bytes make no packet: servers take an empty one for broken."""
        framed = Compressor(Algorithm.ZLIB, 1).compress(b"", 7)
        self.assertEqual((framed.data, framed.sequence), (b"", 7))

    def test_level(self) -> None:
        """The level says how hard it tries."""
        text = b"".join(b"%d and %d, " % (number, number * number) for number in range(3000))
        for algorithm, levels in (Algorithm.ZLIB, (1, 9)), (Algorithm.ZSTD, (1, 19)):
            if algorithm in ALGORITHMS:
                low, high = (len(Compressor(algorithm, level).compress(text, 0).data) for level in levels)
                self.assertLess(high, low)


class DecompressorTests(SynchronousTestCase):
    """What is read."""

    @settings(max_examples=200, deadline=None)
    @given(
        st.sampled_from(ALGORITHMS),
        st.lists(st.one_of(st.binary(min_size=1, max_size=200), st.sampled_from([TEXT, TEXT * 20])), max_size=6),
        st.lists(st.integers(0, 1 << 16), max_size=12),
        st.integers(1, 500),
    )
    def test_round_trip(self, algorithm: Algorithm, contents: list[bytes], places: list[int], size: int) -> None:
        """However the stream is cut, the content comes out as it went in, and no piece is longer than asked."""
        compressor = Compressor(algorithm, 1)
        stream = b"".join(compressor.compress(content, number).data for number, content in enumerate(contents))
        decompressor = Decompressor(algorithm)
        pieces = []
        for chunk in cut(stream, places):
            decompressor.receive(chunk)
            pieces += read_all(decompressor, size)
        self.assertEqual(b"".join(piece.data for piece in pieces), b"".join(contents))
        self.assertTrue(all(0 < len(piece.data) <= size for piece in pieces))
        self.assertEqual([piece.sequence for piece in pieces if piece.first], list(range(len(contents))))
        self.assertEqual(decompressor.buffered, 0)

    @settings(max_examples=300, deadline=None)
    @given(st.sampled_from(ALGORITHMS), st.binary(max_size=300), st.booleans())
    def test_any_bytes(self, algorithm: Algorithm, data: bytes, deflated: bool) -> None:
        """Whatever comes, it is read, waited for or refused, and never more comes out than was announced."""
        if deflated:
            data = packet(data or b"x", 1000)
        decompressor = Decompressor(algorithm)
        decompressor.receive(data)
        size = 0
        with contextlib.suppress(WireError):
            while (piece := decompressor.read(64)) is not None:
                size += len(piece.data)
        self.assertLessEqual(size, max(1000, len(data)))

    @settings(max_examples=200, deadline=None)
    @given(st.sampled_from(ALGORITHMS), st.integers(0), st.integers(1, 255))
    def test_damage(self, algorithm: Algorithm, place: int, change: int) -> None:
        """A stream with one changed byte is refused or comes out at its announced size."""
        stream = bytearray(Compressor(algorithm, 1).compress(TEXT, 0).data)
        stream[7 + place % (len(stream) - 7)] ^= change
        with contextlib.suppress(MalformedPacket):
            self.assertEqual(len(inflate(algorithm, bytes(stream))), len(TEXT))

    def test_every_cut(self) -> None:
        """A packet cut in two at any byte is the same."""
        for algorithm in ALGORITHMS:
            stream = Compressor(algorithm, 1).compress(TEXT, 9).data
            for place in range(len(stream)):
                decompressor = Decompressor(algorithm)
                decompressor.receive(stream[:place])
                self.assertIsNone(decompressor.read(1000))
                decompressor.receive(stream[place:])
                self.assertEqual(decompressor.read(1000), Piece(9, TEXT, True))
                self.assertIsNone(decompressor.read(1000))

    def test_sizes_that_lie(self) -> None:
        """Content that is longer or shorter than its header says is refused."""
        for algorithm in ALGORITHMS:
            body = Compressor(algorithm, 1).compress(TEXT, 0).data[7:]
            for size, fault in (len(TEXT) - 1, "longer"), (len(TEXT) + 1, "shorter"):
                with self.assertRaisesRegex(MalformedPacket, fault):
                    inflate(algorithm, packet(body, size))

    def test_broken_content(self) -> None:
        """Content that is cut, continued, or something else altogether is refused."""
        body = zlib.compress(TEXT)
        for broken in body[:-1], body[:-4], body[:20], body + b"x", body + b"x" * 100_000, b"x" * 20:
            with self.assertRaises(MalformedPacket):
                inflate(Algorithm.ZLIB, packet(broken, len(TEXT)))

    @NEEDS_ZSTD
    def test_broken_zstd(self) -> None:
        """The same with zstd."""
        body = Compressor(Algorithm.ZSTD, 1).compress(TEXT, 0).data[7:]
        for broken in body[:-1], body[:10], b"x" * 20, zlib.compress(TEXT):
            with self.assertRaises(MalformedPacket):
                inflate(Algorithm.ZSTD, packet(broken, len(TEXT)))

    def test_empty_packet(self) -> None:
        """A packet without content is refused, as by servers."""
        with self.assertRaises(MalformedPacket):
            inflate(Algorithm.ZLIB, packet(b"", 0))

    def test_after_an_error(self) -> None:
        """The good packets before a broken one can be read."""
        decompressor = Decompressor(Algorithm.ZLIB)
        decompressor.receive(packet(b"good", 0) + packet(b"x", 5))
        self.assertEqual(decompressor.read(100), Piece(0, b"good", True))
        with self.assertRaises(MalformedPacket):
            decompressor.read(100)

    def test_bomb(self) -> None:
        """16 MiB in 16 KiB are inflated piece by piece, and memory for no more than a few pieces is used."""
        for algorithm in ALGORITHMS:
            stream = Compressor(algorithm, 1).compress(bytes(MAX_PAYLOAD), 0).data
            self.assertLess(len(stream), 100_000)
            decompressor = Decompressor(algorithm)
            decompressor.receive(stream * 4)
            size = 0
            tracemalloc.start()
            try:
                while (piece := decompressor.read(65536)) is not None:
                    size += len(piece.data)
                self.assertLess(tracemalloc.get_traced_memory()[1], 2_000_000)
            finally:
                tracemalloc.stop()
            self.assertEqual(size, 4 * MAX_PAYLOAD)

    @NEEDS_ZSTD
    def test_large_window(self) -> None:
        """A frame of zstd that wants more memory for itself than any content needs is refused."""
        import zstandard

        parameters = zstandard.ZstdCompressionParameters(window_log=27)
        stream = zstandard.ZstdCompressor(compression_params=parameters).compressobj()
        with self.assertRaises(MalformedPacket):
            inflate(Algorithm.ZSTD, packet(stream.compress(TEXT) + stream.flush(), len(TEXT)))
