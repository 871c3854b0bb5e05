from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from odptwist.errors import PacketTooLarge, SequenceError, WireError
from odptwist.wire.constants import MAX_PAYLOAD
from odptwist.wire.framing import Deframer, Framed, Packet, frame, frames
from tests.wire.strategies import many, relaxed, uint8

HUGE = 64 * 1024 * 1024


class FrameTests(SynchronousTestCase):
    def test_small(self) -> None:
        """A payload travels behind its length and its number."""
        self.assertEqual(frame(b"\x03select 1", 0), b"\x09\x00\x00\x00\x03select 1")
        self.assertEqual(frame(b"", 255), b"\x00\x00\x00\xff")

    def test_sequence_wraps(self) -> None:
        """Numbers wrap at 256."""
        self.assertEqual(frame(b"a", 256), b"\x01\x00\x00\x00a")
        self.assertEqual(frames([b"a", b"b"], 255), Framed(b"\x01\x00\x00\xffa\x01\x00\x00\x00b", 1))

    def test_nothing_to_frame(self) -> None:
        """No payloads are no bytes, and the due number stays."""
        self.assertEqual(frames([], 7), Framed(b"", 7))

    def test_big(self) -> None:
        """Around multiples of 0xFFFFFF, a payload has a last fragment that is shorter, if need be an empty one."""
        for size, fragments in (
            (MAX_PAYLOAD - 1, 1),
            (MAX_PAYLOAD, 2),
            (MAX_PAYLOAD + 1, 2),
            (2 * MAX_PAYLOAD, 3),
            (2 * MAX_PAYLOAD + 1, 3),
        ):
            payload = bytes(size - 1) + b"x"
            framed = frames([payload, b"next"], 254)
            self.assertEqual(len(framed.data), size + 4 * fragments + 8)
            self.assertEqual(framed.sequence, (254 + fragments + 1) & 0xFF)
            packets = Deframer(HUGE).receive(framed.data)
            self.assertEqual(
                [packet.sequence for packet in packets], [(253 + fragments) & 0xFF, (254 + fragments) & 0xFF]
            )
            # Not assertEqual on the payload: a failure would print 32 MiB.
            self.assertTrue(packets[0].payload == payload)
            self.assertEqual(packets[1].payload, b"next")
            self.assertTrue(framed.data.startswith(frame(payload, 254)))


class DeframerTests(SynchronousTestCase):
    def test_hold(self) -> None:
        """What is held is for a later call, and the number of the first packet can be seen."""
        deframer = Deframer()
        self.assertIsNone(deframer.first_sequence)
        stream = frame(b"a", 7) + frame(b"b", 8)
        deframer.hold(stream[:3])
        self.assertIsNone(deframer.first_sequence)
        deframer.hold(stream[3:4])
        self.assertEqual(deframer.first_sequence, 7)
        self.assertEqual(deframer.receive_one(stream[4:]), Packet(7, b"a"))
        self.assertEqual(deframer.first_sequence, 8)
        self.assertEqual(deframer.take_rest(), frame(b"b", 8))

    def test_cut_at_every_byte(self) -> None:
        """Wherever the stream is cut in two, the packets are the same."""
        payloads = [b"", b"a", b"\x00" * 300, b"end"]
        stream = frames(payloads, 253).data
        packets = [Packet((253 + number) & 0xFF, payload) for number, payload in enumerate(payloads)]
        for cut in range(len(stream) + 1):
            deframer = Deframer()
            self.assertEqual(deframer.receive(stream[:cut]) + deframer.receive(stream[cut:]), packets)
            self.assertEqual(deframer.buffered, 0)

    @relaxed
    @given(st.lists(st.binary(max_size=300)), uint8, st.lists(st.integers(0, 40), min_size=1))
    def test_any_chunking(self, payloads: list[bytes], sequence: int, sizes: list[int]) -> None:
        """However the stream is chunked, the packets are the same, and every byte is counted."""
        framed = frames(payloads, sequence)
        deframer, packets, at = Deframer(), [], 0
        for size in [*sizes, len(framed.data)]:
            packets += deframer.receive(framed.data[at : at + size])
            at = min(at + size, len(framed.data))
            self.assertEqual(sum(4 + len(packet.payload) for packet in packets) + deframer.buffered, at)
        self.assertEqual([packet.payload for packet in packets], payloads)

    def test_fragments_cut(self) -> None:
        """Fragments are joined also when the stream is cut inside and between their headers."""
        payload = bytes(MAX_PAYLOAD) + b"tail"
        stream = frame(payload, 9) + frame(b"next", 11)
        second = MAX_PAYLOAD + 4
        for cuts in (
            [2, 4, 100],
            [second - 1, second],
            [second + 1, second + 4],
            [second + 7, second + 8],
            [second + 10],
        ):
            deframer, packets = Deframer(HUGE), []
            for start, end in zip([0, *cuts], [*cuts, len(stream)], strict=True):
                packets += deframer.receive(stream[start:end])
            self.assertEqual(
                [(packet.sequence, len(packet.payload)) for packet in packets], [(10, len(payload)), (11, 4)]
            )
            self.assertTrue(packets[0].payload == payload)

    def test_one_byte_chunks(self) -> None:
        """A big packet in chunks of one byte costs linear time: a quadratic reader would not end within minutes."""
        stream = frame(bytes(500_000), 3)
        deframer = Deframer()
        packets = [packet for at in range(len(stream)) for packet in deframer.receive(stream[at : at + 1])]
        self.assertEqual([(packet.sequence, len(packet.payload)) for packet in packets], [(3, 500_000)])

    def test_limit(self) -> None:
        """A payload of exactly the limit passes; one byte more is refused as soon as its header is there."""
        self.assertEqual(len(Deframer(10).receive(frame(bytes(10), 0))), 1)
        deframer = Deframer(10)
        self.assertEqual(deframer.receive(b"\x0b\x00\x00"), [])
        self.assertRaises(PacketTooLarge, deframer.receive, b"\x00")
        self.assertRaises(PacketTooLarge, deframer.receive, b"")

    def test_limit_of_joined_fragments(self) -> None:
        """The limit holds for the joined payload, and the second fragment's header is enough to know."""
        deframer = Deframer(MAX_PAYLOAD + 10)
        self.assertEqual(deframer.receive(frame(bytes(MAX_PAYLOAD), 0)[:-4]), [])
        self.assertRaises(PacketTooLarge, deframer.receive, b"\x0b\x00\x00\x01")

    def test_fragment_out_of_order(self) -> None:
        """A fragment whose number does not follow is refused, also when it comes in the same chunk."""
        first = frame(bytes(MAX_PAYLOAD), 255)[:-4]
        self.assertEqual(len(Deframer(HUGE).receive(first + b"\x00\x00\x00\x00")), 1)
        for deframer in (Deframer(HUGE), Deframer(HUGE)):
            self.assertRaises(SequenceError, deframer.receive, first + b"\x00\x00\x00\x01")
            self.assertRaises(SequenceError, deframer.receive, b"\x00")

    def test_good_packets_before_a_broken_one(self) -> None:
        """Packets before a broken one in the same chunk are not lost; the next call raises."""
        deframer = Deframer(10)
        self.assertEqual(deframer.receive(frame(b"good", 0) + b"\x0b\x00\x00\x00"), [Packet(0, b"good")])
        self.assertRaises(PacketTooLarge, deframer.receive, b"")

    def test_receive_one(self) -> None:
        """Only the first packet is cut; the rest waits for the next call or for another reader."""
        stream = frame(b"first", 1) + frame(b"second", 2) + b"\x16\x03\x01"
        for cut in range(len(frame(b"first", 1))):
            deframer = Deframer()
            self.assertIsNone(deframer.receive_one(stream[:cut]))
            self.assertEqual(deframer.receive_one(stream[cut:]), Packet(1, b"first"))
            self.assertEqual(deframer.buffered, len(stream) - 9)
            self.assertEqual(deframer.receive_one(b""), Packet(2, b"second"))
            self.assertEqual(deframer.take_rest(), b"\x16\x03\x01")
            self.assertEqual((deframer.buffered, deframer.take_rest()), (0, b""))

    def test_take_rest_of_an_unfinished_payload(self) -> None:
        """Fragments that wait for their successor are handed over with their headers, and nothing of them stays."""
        stream = frame(bytes(MAX_PAYLOAD) + b"tail", 0)
        deframer = Deframer(HUGE)
        self.assertEqual(deframer.receive(stream[:-2]), [])
        rest = deframer.take_rest()
        self.assertTrue(rest == stream[:-2])
        self.assertEqual(deframer.receive(frame(b"fresh", 7)), [Packet(7, b"fresh")])

    @many
    @given(st.lists(st.binary(max_size=20), max_size=10), st.integers(0, 1000))
    def test_any_bytes(self, chunks: list[bytes], limit: int) -> None:
        """Any bytes are packets or a WireError."""
        deframer = Deframer(limit)
        try:
            for chunk in chunks:
                for packet in deframer.receive(chunk):
                    self.assertLessEqual(len(packet.payload), limit)
        except WireError:
            pass
