"""The numbers of compressed packets, and of the packets inside them.

Exchanges are lists of steps: what the peer sends (number of the compressed packet, numbers inside) with what becomes of
it, and what the proxy sends with what goes out.
"""

from itertools import pairwise

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from odptwist.errors import SequenceError
from odptwist.machines.compressed import ClientNumbering, Numbering, ServerNumbering
from odptwist.wire.framing import Deframer, frame


def packets(*numbers: int, size: int = 9) -> bytes:
    """Return small packets that bear these numbers."""
    return b"".join(frame(bytes((number,)) * size, number) for number in numbers)


def numbers(data: bytes) -> list[int]:
    """Return the numbers that whole packets bear."""
    found, at = [], 0
    while at < len(data):
        found.append(data[at + 3])
        at += 4 + int.from_bytes(data[at : at + 3], "little")
    return found


def hear(numbering: Numbering, sequence: int, *inside: int) -> list[int]:
    """Let a compressed packet come; return the numbers inside it as the session sees them."""
    numbering.heard(sequence)
    return numbers(numbering.renumber(packets(*inside)))


def tell(numbering: Numbering, *inside: int, data: bytes = b"") -> list[tuple[int, list[int]]]:
    """Send packets of these numbers; return the number of each compressed packet, and those inside."""
    told = []
    for run in numbering.runs(data or packets(*inside)):
        told.append((run.sequence, numbers(run.data)))
        numbering.sent((run.sequence + 1) & 0xFF)
    return told


class ClientTests(SynchronousTestCase):
    """With a client."""

    def setUp(self) -> None:
        """Have a client that has just logged in."""
        self.numbering = ClientNumbering()

    def test_exchange(self) -> None:
        """A command begins with 0, and its response goes on from there, in compressed packets of any number."""
        for _ in range(3):
            self.assertEqual(hear(self.numbering, 0, 0), [0])
            self.assertEqual(tell(self.numbering, 1, 2, 3), [(1, [1, 2, 3])])
            self.assertEqual(tell(self.numbering, 4, 5), [(2, [4, 5])])

    def test_long_command(self) -> None:
        """A command of two fragments in three compressed packets is answered from 3 on, and from 2 on inside."""
        command = packets(0, 1, size=30)
        parts = command[:10], command[10:36], command[36:]
        for sequence, part in enumerate(parts):
            self.numbering.heard(sequence)
            self.numbering.renumber(part)
        self.assertEqual(tell(self.numbering, 2), [(3, [2])])

    def test_long_response(self) -> None:
        """Numbers wrap at 256, within a response and before the next command."""
        hear(self.numbering, 0, 0)
        for number in range(1, 256):
            self.assertEqual(tell(self.numbering, number), [(number, [number])])
        self.assertEqual(tell(self.numbering, 0, 1), [(0, [0, 1])])
        self.assertEqual(hear(self.numbering, 0, 0), [0])
        self.assertEqual(tell(self.numbering, 1), [(1, [1])])

    def test_command_where_0_is_due(self) -> None:
        """After a response of 255 compressed packets a 0 is a new command all the same."""
        hear(self.numbering, 0, 0)
        for number in range(1, 256):
            tell(self.numbering, number)
        self.assertEqual(hear(self.numbering, 0, 0), [0])
        self.assertEqual(tell(self.numbering, 1), [(1, [1])])

    def test_file(self) -> None:
        """The content of a file goes on with the numbers of the response that asks for it, even if the client's jump.

        MariaDB's library gives the first packet inside the number of its compressed packet.
        """
        hear(self.numbering, 0, 0)
        self.assertEqual(tell(self.numbering, 1, 2, 3), [(1, [1, 2, 3])])
        self.assertEqual(hear(self.numbering, 2, 2, 3), [4, 5])
        self.assertEqual(hear(self.numbering, 3, 4), [6])
        self.assertEqual(tell(self.numbering, 7), [(4, [7])])
        self.assertEqual(hear(self.numbering, 0, 0), [0])

    def test_long_file(self) -> None:
        """Where the numbers of a file's packets come to 0, as the client counts or as the server does, it goes on."""
        hear(self.numbering, 0, 0)
        tell(self.numbering, 1, 2, 3)
        client, due = 2, 4
        for number in range(600):
            self.assertEqual(
                hear(self.numbering, (2 + number) & 0xFF, client, (client + 1) & 0xFF), [due, (due + 1) & 0xFF]
            )
            client, due = (client + 2) & 0xFF, (due + 2) & 0xFF
        self.assertEqual(tell(self.numbering, due), [((2 + 600) & 0xFF, [due])])

    def test_question_amid_an_exchange(self) -> None:
        """COM_CHANGE_USER: question and answer alternate, and all go on from the command."""
        hear(self.numbering, 0, 0)
        self.assertEqual(tell(self.numbering, 1), [(1, [1])])
        self.assertEqual(hear(self.numbering, 2, 2), [2])
        self.assertEqual(tell(self.numbering, 3), [(3, [3])])

    def test_sent_ahead(self) -> None:
        """Commands that are sent ahead are answered one by one, each from 1 on."""
        for _ in range(3):
            self.assertEqual(hear(self.numbering, 0, 0), [0])
        for _ in range(3):
            self.assertEqual(tell(self.numbering, 1, 2), [(1, [1, 2])])
            self.assertEqual(tell(self.numbering, 3), [(2, [3])])

    def test_sent_ahead_amid_a_response(self) -> None:
        """A command that comes amid a response leaves the numbers of that alone."""
        hear(self.numbering, 0, 0)
        tell(self.numbering, 1, 2, 3)
        tell(self.numbering, 4)
        self.assertEqual(hear(self.numbering, 0, 0), [0])
        self.assertEqual(tell(self.numbering, 5, 6), [(3, [5, 6])])
        self.assertEqual(tell(self.numbering, 1), [(1, [1])])

    def test_long_command_sent_ahead(self) -> None:
        """One that is still coming when the response before it goes on is taken, too."""
        hear(self.numbering, 0, 0)
        tell(self.numbering, 1)
        command = packets(0, size=60)
        self.numbering.heard(0)
        self.numbering.renumber(command[:20])
        tell(self.numbering, 2)
        self.numbering.heard(1)
        self.numbering.renumber(command[20:])
        self.assertEqual(tell(self.numbering, 3), [(3, [3])])

    def test_several_commands_in_one_packet(self) -> None:
        """Commands that share a compressed packet are told apart."""
        self.assertEqual(hear(self.numbering, 0, 0, 0, 0), [0, 0, 0])

    def test_numbers_inside_do_not_count(self) -> None:
        """As MariaDB, the proxy does not care how a client numbers inside."""
        self.assertEqual(hear(self.numbering, 0, 5), [0])
        self.assertEqual(tell(self.numbering, 1), [(1, [1])])

    def test_wrong_numbers(self) -> None:
        """A number that is not due is refused; one that goes on is no command, which the tracker refuses."""
        for wrong in 2, 7, 255:
            numbering = ClientNumbering()
            hear(numbering, 0, 0)
            with self.assertRaises(SequenceError):
                numbering.heard(wrong)
        with self.assertRaises(SequenceError):
            ClientNumbering().heard(3)
        hear(self.numbering, 0, 0)
        tell(self.numbering, 1)
        self.assertEqual(hear(self.numbering, 2, 0), [2])

    def test_command_amid_a_packet(self) -> None:
        """No command begins amid a packet."""
        self.numbering.heard(0)
        self.numbering.renumber(packets(0)[:6])
        with self.assertRaises(SequenceError):
            self.numbering.heard(0)

    def test_only_whole_packets_are_sent(self) -> None:
        """Until a packet for a client is whole it waits; those before it do not."""
        data = packets(0) + packets(1)
        for end in range(len(data) + 1):
            numbering = ClientNumbering()
            told = tell(numbering, data=data[:end]) if end else []
            self.assertEqual(
                [inside for _, inside in told], [[0], [0, 1]][end // 13 - 1 : end // 13] if end >= 13 else []
            )
            rest = tell(numbering, data=data[end:]) if end < len(data) else []
            self.assertEqual([number for _, inside in told + rest for number in inside], [0, 1])


class ServerTests(SynchronousTestCase):
    """With a server."""

    def setUp(self) -> None:
        """Have a server at which the proxy has just logged in."""
        self.numbering = ServerNumbering()

    def test_exchange(self) -> None:
        """A command begins with 0, and its response goes on from there."""
        for _ in range(3):
            self.assertEqual(tell(self.numbering, 0), [(0, [0])])
            self.assertEqual(hear(self.numbering, 1, 1, 2), [1, 2])
            self.assertEqual(hear(self.numbering, 2, 3), [3])

    def test_numbers_that_jump(self) -> None:
        """MariaDB goes back to the number of the compressed packet with each result; the client must not see that."""
        tell(self.numbering, 0)
        self.assertEqual(hear(self.numbering, 1, 1, 2, 3, 4, 5), [1, 2, 3, 4, 5])
        self.assertEqual(hear(self.numbering, 2, 2, 3, 4, 5, 6), [6, 7, 8, 9, 10])
        self.assertEqual(hear(self.numbering, 3, 3), [11])

    def test_several_commands(self) -> None:
        """Each command begins a compressed packet of its own, and each response counts from 1 again."""
        self.assertEqual(tell(self.numbering, 0, 0, 0), [(0, [0]), (0, [0]), (0, [0])])
        for _ in range(3):
            self.assertEqual(hear(self.numbering, 1, 1, 2), [1, 2])
        with self.assertRaises(SequenceError):
            self.numbering.heard(1)

    def test_command_without_response(self) -> None:
        """COM_STMT_CLOSE has none; the next command begins anew."""
        self.assertEqual(tell(self.numbering, 0), [(0, [0])])
        self.assertEqual(tell(self.numbering, 0), [(0, [0])])
        self.assertEqual(hear(self.numbering, 1, 1), [1])

    def test_long_command(self) -> None:
        """Fragments stay together, and the response goes on after them."""
        self.assertEqual(tell(self.numbering, 0), [(0, [0])])
        self.assertEqual(tell(self.numbering, 1), [(1, [1])])
        self.assertEqual(hear(self.numbering, 2, 2), [2])

    def test_file(self) -> None:
        """A file goes on with both numbers of the response that asks for it, past 255 and past an answer of 255."""
        tell(self.numbering, 0)
        hear(self.numbering, 1, 1, 2, 3)
        due = 4
        for number in range(252):
            self.assertEqual(tell(self.numbering, due), [(2 + number, [due])])
            due = (due + 1) & 0xFF
        self.assertEqual(hear(self.numbering, 254, 254), [due])
        self.assertEqual(tell(self.numbering, 0), [(0, [0])])

    def test_command_where_0_is_due(self) -> None:
        """After a response whose last packet has 255 a 0 is a command."""
        tell(self.numbering, 0)
        hear(self.numbering, 1, *range(1, 256))
        self.assertEqual(tell(self.numbering, 0), [(0, [0])])

    def test_error_before_the_end_of_a_command(self) -> None:
        """A server that refuses a long command before it has read all of it is understood."""
        for number in range(5):
            tell(self.numbering, number)
        self.assertEqual(hear(self.numbering, 2, 2), [5])

    def test_wrong_numbers(self) -> None:
        """What is not due is refused, but for a farewell, which begins with 0."""
        tell(self.numbering, 0)
        with self.assertRaises(SequenceError):
            self.numbering.heard(2)
        hear(self.numbering, 1, 1)
        for wrong in 1, 3, 255:
            with self.assertRaises(SequenceError):
                self.numbering.heard(wrong)
        self.numbering.heard(0)

    def test_nothing_waits(self) -> None:
        """A long command goes to the server as it comes; only a header that is cut waits for its rest."""
        data = packets(0, 1, 0)
        for end in range(1, len(data)):
            numbering = ServerNumbering()
            went = b""
            for chunk in data[:end], data[end:]:
                for run in numbering.runs(chunk):
                    self.assertEqual(run.sequence, 0 if len(went) in (0, 26) else 1)
                    numbering.sent(run.sequence + 1)
                    went += run.data
                self.assertLess(end - len(went), 4)
            self.assertEqual(went, data)


class StreamTests(SynchronousTestCase):
    """Any stream."""

    @settings(max_examples=200, deadline=None)
    @given(
        st.lists(st.binary(max_size=40), min_size=1, max_size=300),
        st.lists(st.integers(0, 1 << 16), max_size=20),
        st.integers(0, 255),
    )
    def test_any_cut(self, payloads: list[bytes], places: list[int], shift: int) -> None:
        """However a response is cut, its packets come out whole and with running numbers, and so they go on."""
        response = b"".join(frame(payload, (number + shift) & 0xFF) for number, payload in enumerate(payloads))
        ends = sorted({0, *(place % len(response) for place in places), len(response)})
        server, client = ServerNumbering(), ClientNumbering()
        tell(server, 0)
        hear(client, 0, 0)
        came = gone = b""
        due = 1
        for number, (start, end) in enumerate(pairwise(ends), 1):
            server.heard(number)
            data = server.renumber(response[start:end])
            came += data
            for run in client.runs(data):
                self.assertEqual(run.sequence, due)
                client.sent(run.sequence + 1)
                due += 1
                gone += run.data
        self.assertEqual(gone, came)
        found = Deframer().receive(came)
        self.assertEqual([packet.payload for packet in found], payloads)
        self.assertEqual(
            [packet.sequence for packet in found], [(number + 1) & 0xFF for number in range(len(payloads))]
        )
