from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from odptwist.errors import MalformedPacket, PacketTooLarge, SqlError
from odptwist.wire.constants import (
    CLIENT_DEPRECATE_EOF,
    COM_STMT_BULK_EXECUTE,
    COM_STMT_CLOSE,
    COM_STMT_EXECUTE,
    COM_STMT_FETCH,
    COM_STMT_RESET,
    MAX_PAYLOAD,
)
from odptwist.wire.framing import frame
from odptwist.wire.prepared import (
    LongData,
    PrepareReader,
    PrepareReply,
    is_whole,
    number_in,
    numbered,
    parse_long_data,
    types_in,
    unknown_statement,
    with_number,
    with_types,
)
from odptwist.wire.responses import Eof, Err
from tests.wire.strategies import any_bytes, many, raises_only_wire_errors, relaxed, uint16, uint32

# Number 7, flags 0, one iteration; the bitmap of one parameter, then the flag of its type.
EXECUTE = b"\x17\x07\0\0\0\0\x01\0\0\0"
LONG = b"\x03\0"
# Number 7, 2 columns, 3 parameters, a filler, no warnings.
PREPARED = b"\0\x07\0\0\0\x02\0\x03\0\0\0\0"
DEFINITION = b"\x03def"
EOF = Eof().encode()
ERR = Err(1064, "42000", "You have an error in your SQL syntax").encode()
chunkings = st.lists(st.integers(0, 30), max_size=20)


def execute_of(parameters: int, rest: bytes) -> bytes:
    """Return a framed COM_STMT_EXECUTE with no NULLs; `rest` begins with the flag of the types."""
    return frame(EXECUTE + bytes((parameters + 7) // 8) + rest, 0)


class CommandTests(SynchronousTestCase):
    """The number, the types and the long data in commands."""

    def test_number(self) -> None:
        """The number is read and replaced; all other bytes stay."""
        data = b"\x09\0\0\x05\x1c\x01\x02\x03\x04\x0a\0\0\0"
        self.assertEqual(number_in(data), 0x04030201)
        self.assertEqual(with_number(data, 0xFFFFFFFE), b"\x09\0\0\x05\x1c\xfe\xff\xff\xff\x0a\0\0\0")

    def test_same_number(self) -> None:
        """Where the number is right already, the command is not copied."""
        data = execute_of(0, b"")
        self.assertIs(with_number(data, 7), data)

    def test_cut_number(self) -> None:
        """Without a whole number, the command stays as it is."""
        data = b"\x04\0\0\0\x17\x01\0\0"
        self.assertIs(with_number(data, 7), data)
        self.assertEqual(number_in(data), 1)
        self.assertEqual(number_in(b"\x01\0\0\0\x17"), 0)

    def test_numbered(self) -> None:
        """A command about a statement is a packet with its number."""
        self.assertEqual(numbered(COM_STMT_CLOSE, 0x04030201), b"\x05\0\0\0\x19\x01\x02\x03\x04")
        self.assertEqual(numbered(COM_STMT_FETCH, 1, b"\x0a\0\0\0"), b"\x09\0\0\0\x1c\x01\0\0\0\x0a\0\0\0")

    def test_unknown(self) -> None:
        """An unknown number is refused in the words of MariaDB, as captured from 10.11."""
        for command, asked in (
            (COM_STMT_EXECUTE, "mysqld_stmt_execute"),
            (COM_STMT_BULK_EXECUTE, "mysqld_stmt_execute"),
            (COM_STMT_FETCH, "mysqld_stmt_fetch"),
            (COM_STMT_RESET, "mysqld_stmt_reset"),
        ):
            error = unknown_statement(numbered(command, 999))
            text = f"Unknown prepared statement handler (999) given to {asked}"
            self.assertEqual((error.code, error.sqlstate, error.message), (1243, "HY000", text))

    def test_unknown_cut(self) -> None:
        """A command whose number is cut off is refused as malformed."""
        error = unknown_statement(b"\x02\0\0\0\x17\x01")
        self.assertEqual((error.code, error.message), (1835, "Malformed communication packet"))

    def test_whole(self) -> None:
        """A command is whole when as many bytes have come as its header says."""
        self.assertTrue(is_whole(b"\x02\0\0\0ab"))
        self.assertFalse(is_whole(b"\x03\0\0\0ab"))
        self.assertFalse(is_whole(b""))

    def test_types(self) -> None:
        """The types stand behind the bitmap of NULLs and a flag that is set."""
        for parameters in (1, 8, 9, 65_535):
            types = LONG * parameters
            self.assertEqual(types_in(execute_of(parameters, b"\x01" + types + b"values"), parameters), types)
            self.assertIsNone(types_in(execute_of(parameters, b"\0values"), parameters))

    def test_types_of_bulk(self) -> None:
        """In a bulk execute the types stand behind flags, one of which tells that they are there."""
        self.assertEqual(types_in(b"\x09\0\0\0\xfa\x07\0\0\0\x80\0\x03\0\0\x05", 1), LONG)
        self.assertEqual(types_in(b"\x09\0\0\0\xfa\x07\0\0\0\xc0\0\x03\0\0\x05", 1), LONG)
        self.assertIsNone(types_in(b"\x09\0\0\0\xfa\x07\0\0\0\x40\0\0\x05", 1))

    def test_cut_types(self) -> None:
        """Types that are cut off come back as far as they are there."""
        for data in (execute_of(2, b"\x01\x03\0\x08\0"), b"\x0b\0\0\0\xfa\x07\0\0\0\x80\0\x03\0\x08\0"):
            for end in range(5, len(data)):
                told = types_in(data[:end], 2)
                self.assertIsNotNone(told)
                self.assertEqual(told, b"\x03\0\x08\0"[: max(0, end - (len(data) - 4))])

    def test_insert_types(self) -> None:
        """Types are inserted behind their flag, which is set; the header counts them."""
        told = with_types(execute_of(9, b"\0values"), 9, LONG * 9)
        self.assertEqual(told, execute_of(9, b"\x01" + LONG * 9 + b"values"))

    def test_insert_types_into_bulk(self) -> None:
        """A bulk execute keeps its other flags when types are inserted."""
        told = with_types(b"\x0a\0\0\0\xfa\x07\0\0\0\x40\0\0\x05\0\0", 1, LONG)
        self.assertEqual(told, b"\x0c\0\0\0\xfa\x07\0\0\0\xc0\0\x03\0\0\x05\0\0")

    def test_insert_types_into_beginning(self) -> None:
        """Types can be inserted into the beginning of a long command."""
        data = execute_of(1, b"\0" + bytes(100_000))
        self.assertEqual(with_types(data[:70_000], 1, LONG) + data[70_000:], with_types(data, 1, LONG))

    def test_no_room_for_types(self) -> None:
        """Types that would make a fragment full, or come to a full one, find no room."""
        head = EXECUTE + b"\0\0"
        most = (MAX_PAYLOAD - 3).to_bytes(3, "little") + b"\0" + head
        self.assertEqual(with_types(most, 1, LONG)[:4], b"\xfe\xff\xff\0")
        for length in (MAX_PAYLOAD - 2, MAX_PAYLOAD):
            data = length.to_bytes(3, "little") + b"\0" + head
            self.assertRaises(PacketTooLarge, with_types, data, 1, LONG)

    @given(st.integers(1, 40), st.booleans(), any_bytes)
    @many
    def test_round_trip(self, parameters: int, bulk: bool, values: bytes) -> None:
        """What is inserted is found, and taking it away leaves the command as it was."""
        data = frame(b"\xfa\x07\0\0\0\0\0" + values, 0) if bulk else execute_of(parameters, b"\0" + values)
        types = bytes(range(2 * parameters))
        told = with_types(data, parameters, types)
        self.assertTrue(is_whole(told))
        self.assertEqual(types_in(told, parameters), types)
        self.assertEqual(len(told), len(data) + len(types))
        self.assertTrue(told.endswith(types + values))

    @given(any_bytes, st.integers(1, 65_535), uint32)
    @many
    def test_any_bytes(self, data: bytes, parameters: int, number: int) -> None:
        """No bytes make reading a command fail but for a malformed packet."""
        number_in(data)
        is_whole(data)
        self.assertIsInstance(unknown_statement(data), SqlError)
        self.assertEqual(len(with_number(data, number)), len(data))
        raises_only_wire_errors(parse_long_data, data)
        if types_in(data, parameters) is None:
            raises_only_wire_errors(with_types, data, parameters, LONG * parameters)

    def test_long_data(self) -> None:
        """Long data names its parameter; the piece may be empty."""
        data = b"\x0a\0\0\0\x18\x07\0\0\0\x02\x01abc"
        self.assertEqual(parse_long_data(data), LongData(0x0102, b"abc"))
        self.assertEqual(LongData(0x0102, b"abc").encode(7), data)
        self.assertEqual(parse_long_data(LongData(0, b"").encode(7)), LongData(0, b""))
        self.assertRaises(MalformedPacket, parse_long_data, b"\x06\0\0\0\x18\x07\0\0\0\x02")


class PrepareReplyTests(SynchronousTestCase):
    """The beginning of a response on its way to a client."""

    def read(self, data: bytes, sizes: list[int]) -> tuple[PrepareReply, bool]:
        """Return a reply that got chunks of these sizes until it was known, and whether it was."""
        reply = PrepareReply()
        position = 0
        for size in [*sizes, len(data)]:
            if reply.receive(data[position : position + size]):
                return reply, True
            position += size
        return reply, False

    def test_prepared(self) -> None:
        """A success tells its numbers, and is passed on with the client's number."""
        reply = PrepareReply()
        rest = frame(DEFINITION, 2)
        self.assertTrue(reply.receive(frame(PREPARED, 1) + rest))
        self.assertEqual((reply.number, reply.columns, reply.parameters, reply.failed), (7, 2, 3, False))
        self.assertEqual(reply.renumbered(0x0908), b"\x0c\0\0\x01\0\x08\x09\0\0\x02\0\x03\0\0\0\0" + rest)

    def test_failed(self) -> None:
        """An ERR is passed on as it is."""
        reply = PrepareReply()
        self.assertTrue(reply.receive(frame(ERR, 1)))
        self.assertTrue(reply.failed)
        self.assertEqual(reply.came, frame(ERR, 1))

    def test_one_byte_at_a_time(self) -> None:
        """A success is known when its numbers have come, an ERR with its first byte."""
        for payload, known in ((PREPARED, 13), (ERR, 5)):
            reply = PrepareReply()
            data = frame(payload, 1)
            told = [reply.receive(data[at : at + 1]) for at in range(known)]
            self.assertEqual(told, [False] * (known - 1) + [True])
            self.assertEqual(reply.came, data[:known])

    @given(uint32, uint16, uint16, chunkings)
    @many
    def test_chunks(self, number: int, columns: int, parameters: int, sizes: list[int]) -> None:
        """The chunks do not matter."""
        numbers = number.to_bytes(4, "little") + columns.to_bytes(2, "little") + parameters.to_bytes(2, "little")
        data = frame(b"\0" + numbers + bytes(3), 1)
        reply, known = self.read(data, sizes)
        self.assertTrue(known)
        self.assertEqual((reply.number, reply.columns, reply.parameters), (number, columns, parameters))
        self.assertTrue(data.startswith(reply.renumbered(number)))

    def test_malformed(self) -> None:
        """Neither a success nor an ERR, or a success without its numbers, is malformed."""
        for payload in (b"", b"\xfe\0\0\0\0", b"\x01" + PREPARED, PREPARED[:8], b"\0"):
            for following in (frame(DEFINITION, 2), b"\xff" * 20):
                self.assertRaises(MalformedPacket, PrepareReply().receive, frame(payload, 1) + following)

    @given(any_bytes, chunkings)
    @many
    def test_any_bytes(self, data: bytes, sizes: list[int]) -> None:
        """No bytes make it fail but for a malformed packet."""
        raises_only_wire_errors(self.read, data, sizes)


class PrepareReaderTests(SynchronousTestCase):
    """The response to a COM_STMT_PREPARE of the proxy's own."""

    def read(self, capabilities: int, payloads: list[bytes]) -> PrepareReader:
        """Return a reader whose response ends with the last of the payloads and not before."""
        reader = PrepareReader(capabilities)
        self.assertEqual([reader.receive(payload) for payload in payloads], [False] * (len(payloads) - 1) + [True])
        return reader

    def test_prepared(self) -> None:
        """All definitions are read, with an EOF behind each list of them unless that was agreed away."""
        with_eofs = [PREPARED, *[DEFINITION] * 3, EOF, *[DEFINITION] * 2, EOF]
        for capabilities, payloads in ((0, with_eofs), (CLIENT_DEPRECATE_EOF, [PREPARED, *[DEFINITION] * 5])):
            reader = self.read(capabilities, payloads)
            self.assertEqual((reader.number, reader.columns, reader.parameters), (7, 2, 3))
            self.assertIsNone(reader.error)

    def test_without_lists(self) -> None:
        """An empty list has no EOF."""
        none = b"\0\x07\0\0\0\0\0\0\0\0\0\0"
        parameter = b"\0\x07\0\0\0\0\0\x01\0\0\0\0"
        column = b"\0\x07\0\0\0\x01\0\0\0\0\0\0"
        for capabilities, end in ((0, [EOF]), (CLIENT_DEPRECATE_EOF, [])):
            self.read(capabilities, [none])
            self.read(capabilities, [parameter, DEFINITION, *end])
            self.read(capabilities, [column, DEFINITION, *end])

    def test_failed(self) -> None:
        """An ERR ends the response, wherever it comes."""
        for before in ([], [PREPARED], [PREPARED, DEFINITION]):
            reader = self.read(0, [*before, ERR])
            self.assertEqual(reader.error, Err(1064, "42000", "You have an error in your SQL syntax"))

    def test_malformed(self) -> None:
        """What is not due is malformed: another head, an EOF too early or missing, a packet after the end."""
        for payloads in (
            [b""],
            [b"\x01" + PREPARED],
            [PREPARED[:8]],
            [PREPARED, DEFINITION, EOF],
            [PREPARED, *[DEFINITION] * 4],
            [ERR, ERR],
        ):
            reader = PrepareReader(0)
            for payload in payloads[:-1]:
                reader.receive(payload)
            self.assertRaises(MalformedPacket, reader.receive, payloads[-1])

    @given(st.sampled_from((0, CLIENT_DEPRECATE_EOF)), st.lists(st.one_of(any_bytes, st.just(PREPARED))))
    @relaxed
    def test_any_payloads(self, capabilities: int, payloads: list[bytes]) -> None:
        """No payloads make it fail but for a malformed packet."""
        reader = PrepareReader(capabilities)
        for payload in payloads:
            raises_only_wire_errors(reader.receive, payload)
