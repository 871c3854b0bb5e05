from __future__ import annotations

from collections.abc import Sequence

from hypothesis import given
from hypothesis import strategies as st
from pymysql.protocol import FieldDescriptorPacket
from twisted.trial.unittest import SynchronousTestCase

from odptwist.answers import Column, ColumnType, Table
from odptwist.errors import MalformedPacket, PacketTooLarge
from odptwist.wire.constants import (
    CLIENT_DEPRECATE_EOF,
    CLIENT_PROTOCOL_41,
    CLIENT_SESSION_TRACK,
    FIELD_TYPE_BLOB,
    FIELD_TYPE_LONG,
    FIELD_TYPE_LONGLONG,
    FIELD_TYPE_STRING,
    FIELD_TYPE_TINY,
    FIELD_TYPE_VAR_STRING,
    FIELD_TYPE_VARCHAR,
    FLAG_UNSIGNED,
    SERVER_STATUS_AUTOCOMMIT,
    SERVER_STATUS_MORE_RESULTS_EXISTS,
)
from odptwist.wire.framing import Deframer, Packet
from odptwist.wire.responses import Eof, Err, Ok
from odptwist.wire.resultset import (
    BinaryValue,
    ColumnDefinition,
    ResultReader,
    column_definition,
    encode_binary_row,
    encode_prepared,
    encode_table,
    encode_table_in_parts,
    encode_text_row,
    parse_binary_row,
    parse_column_definition,
    parse_text_row,
)
from tests.wire.strategies import (
    any_bytes,
    damaged,
    many,
    raises_only_wire_errors,
    relaxed,
    texts,
    uint8,
    uint16,
    uint32,
)

WITH_EOF = CLIENT_PROTOCOL_41
WITHOUT_EOF = CLIENT_PROTOCOL_41 | CLIENT_DEPRECATE_EOF | CLIENT_SESSION_TRACK

SIZES = {FIELD_TYPE_TINY: 8, FIELD_TYPE_LONG: 32, FIELD_TYPE_LONGLONG: 64}
STRINGS = (FIELD_TYPE_VARCHAR, FIELD_TYPE_VAR_STRING, FIELD_TYPE_STRING, FIELD_TYPE_BLOB)

definitions = st.builds(
    ColumnDefinition, texts, texts, texts, texts, texts, texts, uint16, uint32, uint8, uint16, uint8
)
text_rows = st.lists(st.none() | st.binary(max_size=300), max_size=20).map(tuple)


def definition(type_: int, flags: int = 0) -> ColumnDefinition:
    """Return a column `c` of this type."""
    return ColumnDefinition("def", "", "", "", "c", "", 63, 21, type_, flags, 0)


@st.composite
def binary_rows(draw: st.DrawFn) -> tuple[list[ColumnDefinition], tuple[BinaryValue, ...]]:
    """Draw columns and a row that fits them."""
    columns, row = [], []
    for type_ in draw(st.lists(st.sampled_from([*SIZES, *STRINGS]), max_size=20)):
        unsigned = draw(st.booleans())
        columns.append(definition(type_, FLAG_UNSIGNED if unsigned else 0))
        value: st.SearchStrategy[BinaryValue] = st.binary(max_size=300)
        if type_ in SIZES:
            bits = SIZES[type_]
            value = st.integers(0, 2**bits - 1) if unsigned else st.integers(-(2 ** (bits - 1)), 2 ** (bits - 1) - 1)
        row.append(draw(st.none() | value))
    return columns, tuple(row)


class ColumnDefinitionTests(SynchronousTestCase):
    def test_ours(self) -> None:
        """A column of ours has the metadata that clients need to show it."""
        self.assertEqual(
            [column_definition(Column("c", ColumnType.LONGLONG, unsigned=True)).encode()],
            [b"\x03def\x00\x00\x00\x01c\x00\x0c\x3f\x00\x15\x00\x00\x00\x08\xa0\x00\x00\x00\x00"],
        )
        for type_, charset, length, flags, decimals in (
            (ColumnType.LONG, 63, 11, 128, 0),
            (ColumnType.LONGLONG, 63, 21, 128, 0),
            (ColumnType.VARCHAR, 45, 4096, 0, 31),
        ):
            ours = column_definition(Column("c", type_))
            self.assertEqual(
                (ours.charset, ours.length, ours.type, ours.flags, ours.decimals),
                (charset, length, int(type_), flags, decimals),
            )

    @relaxed
    @given(definitions)
    def test_round_trip(self, column: ColumnDefinition) -> None:
        """Every definition reads back as itself, also with a default value behind it."""
        self.assertEqual(parse_column_definition(column.encode()), column)
        self.assertEqual(parse_column_definition(column.encode() + b"\xfb"), column)

    @many
    @given(st.one_of(any_bytes, damaged(definition(FIELD_TYPE_LONG).encode())))
    def test_any_bytes(self, payload: bytes) -> None:
        """Any bytes are a definition or a WireError."""
        raises_only_wire_errors(parse_column_definition, payload)

    def test_pymysql(self) -> None:
        """PyMySQL reads our definition."""
        theirs = FieldDescriptorPacket(column_definition(Column("näme", ColumnType.VARCHAR)).encode(), "utf8")
        self.assertEqual((theirs.name, theirs.type_code, theirs.charsetnr, theirs.length), ("näme", 15, 45, 4096))


class TextRowTests(SynchronousTestCase):
    def test_golden(self) -> None:
        """NULL is one byte, an empty string another."""
        self.assertEqual(encode_text_row([None, b"", b"ab"]), b"\xfb\x00\x02ab")

    @relaxed
    @given(text_rows)
    def test_round_trip(self, row: tuple[bytes | None, ...]) -> None:
        """Every row reads back as itself."""
        self.assertEqual(parse_text_row(encode_text_row(row), len(row)), row)

    def test_wrong_number_of_values(self) -> None:
        """A row with a value too few or too many is refused."""
        for columns in (1, 3):
            self.assertRaises(MalformedPacket, parse_text_row, b"\x01a\x01b", columns)

    @many
    @given(any_bytes, st.integers(0, 10))
    def test_any_bytes(self, payload: bytes, columns: int) -> None:
        """Any bytes are a row or a WireError."""
        raises_only_wire_errors(parse_text_row, payload, columns)


class BinaryRowTests(SynchronousTestCase):
    def test_golden(self) -> None:
        """The bitmap of NULLs begins at its third bit; numbers have their column's width and sign."""
        columns = [
            definition(FIELD_TYPE_TINY),
            definition(FIELD_TYPE_LONG),
            definition(FIELD_TYPE_LONGLONG, FLAG_UNSIGNED),
            definition(FIELD_TYPE_VARCHAR),
        ]
        row = (-1, None, 2**64 - 1, b"ab")
        payload = b"\x00\x08\xff" + b"\xff" * 8 + b"\x02ab"
        self.assertEqual(encode_binary_row(columns, row), payload)
        self.assertEqual(parse_binary_row(payload, columns), row)

    @relaxed
    @given(binary_rows())
    def test_round_trip(self, drawn: tuple[list[ColumnDefinition], tuple[BinaryValue, ...]]) -> None:
        """Every row reads back as itself."""
        columns, row = drawn
        self.assertEqual(parse_binary_row(encode_binary_row(columns, row), columns), row)

    def test_what_does_not_fit(self) -> None:
        """Values of another kind than their column's, and numbers out of its range, are not written."""
        self.assertRaises(MalformedPacket, encode_binary_row, [definition(FIELD_TYPE_LONG)], [b"1"])
        self.assertRaises(MalformedPacket, encode_binary_row, [definition(FIELD_TYPE_VARCHAR)], [1])
        self.assertRaises(MalformedPacket, encode_binary_row, [definition(12)], [b"2024"])
        self.assertRaises(OverflowError, encode_binary_row, [definition(FIELD_TYPE_TINY)], [128])

    @many
    @given(
        st.one_of(any_bytes, any_bytes.map(b"\x00".__add__)),
        st.lists(st.builds(definition, st.sampled_from([*SIZES, *STRINGS, 12]), uint16), max_size=5),
    )
    def test_any_bytes(self, payload: bytes, columns: list[ColumnDefinition]) -> None:
        """Any bytes are a row or a WireError."""
        raises_only_wire_errors(parse_binary_row, payload, columns)


TABLE = Table(
    columns=(
        Column("Id", ColumnType.LONGLONG, unsigned=True),
        Column("Time", ColumnType.LONG),
        Column("Info", ColumnType.VARCHAR),
    ),
    rows=((2**64 - 1, -1, "sélect"), (0, None, None), (1, 2, "")),
)


def payloads(data: bytes) -> list[bytes]:
    """Return the payloads of a response."""
    return [packet.payload for packet in Deframer().receive(data)]


def read(response: Sequence[bytes], capabilities: int) -> ResultReader:
    """Feed a response to a reader; every payload but the last must leave it waiting."""
    reader = ResultReader(capabilities)
    ended = [reader.receive(payload) for payload in response]
    if ended != [False] * (len(response) - 1) + [True]:
        raise AssertionError(ended)
    return reader


class EncodeTableTests(SynchronousTestCase):
    def test_text(self) -> None:
        """A table answers COM_QUERY in either framing, and reads back."""
        for capabilities, count in ((WITH_EOF, 9), (WITHOUT_EOF, 8)):
            data = encode_table(TABLE, 1, capabilities, SERVER_STATUS_AUTOCOMMIT)
            packets = Deframer().receive(data)
            self.assertEqual([packet.sequence for packet in packets], list(range(1, count + 1)))
            reader = read(payloads(data), capabilities)
            self.assertEqual(reader.columns, [column_definition(column) for column in TABLE.columns])
            self.assertEqual(
                reader.rows,
                [
                    (b"18446744073709551615", b"-1", "sélect".encode()),
                    (b"0", None, None),
                    (b"1", b"2", b""),
                ],
            )
            self.assertEqual(reader.ok, Ok(status=SERVER_STATUS_AUTOCOMMIT, header=0xFE))
            self.assertIsNone(reader.error)

    def test_ends(self) -> None:
        """The definitions end with an EOF only where EOFs are not deprecated; the rows end with an EOF or an OK."""
        with_eof = payloads(encode_table(TABLE, 1, WITH_EOF, 2))
        self.assertEqual((with_eof[4], with_eof[-1]), (Eof(0, 2).encode(), Eof(0, 2).encode()))
        without = payloads(encode_table(TABLE, 1, WITHOUT_EOF, 2))
        self.assertEqual(without[-1], bytes.fromhex("fe 00 00 0200 0000"))

    def test_binary(self) -> None:
        """A table answers COM_STMT_EXECUTE with rows of the binary protocol."""
        columns = [column_definition(column) for column in TABLE.columns]
        response = payloads(encode_table(TABLE, 1, WITHOUT_EOF, binary=True))
        self.assertEqual(
            [parse_binary_row(payload, columns) for payload in response[4:-1]],
            [(2**64 - 1, -1, "sélect".encode()), (0, None, None), (1, 2, b"")],
        )

    def test_parts(self) -> None:
        """A long table comes in parts, which together are the response."""
        table = Table(TABLE.columns, tuple((n, None, "ab" * (n % 3)) for n in range(1001)))
        for capabilities in (WITH_EOF, WITHOUT_EOF):
            parts = list(encode_table_in_parts(table, 1, capabilities))
            self.assertEqual(len(parts), 6)
            packets = Deframer().receive(b"".join(parts))
            self.assertEqual([each.sequence for each in packets], [n & 0xFF for n in range(1, len(packets) + 1)])
            reader = read([each.payload for each in packets], capabilities)
            self.assertEqual(reader.rows, [(b"%d" % n, None, b"ab" * (n % 3)) for n in range(1001)])
        self.assertEqual(len(list(encode_table_in_parts(Table(TABLE.columns, ()), 1, WITH_EOF))), 1)

    def test_number_in_a_text_column(self) -> None:
        """A number in a VARCHAR column is its digits in either protocol."""
        table = Table((Column("Value", ColumnType.VARCHAR),), ((5,),))
        self.assertEqual(payloads(encode_table(table, 1, WITHOUT_EOF))[2], b"\x015")
        self.assertEqual(payloads(encode_table(table, 1, WITHOUT_EOF, binary=True))[2], b"\x00\x00\x015")

    def test_no_rows(self) -> None:
        """An empty table has its columns and its end."""
        table = Table(TABLE.columns, ())
        for capabilities in (WITH_EOF, WITHOUT_EOF):
            reader = read(payloads(encode_table(table, 1, capabilities)), capabilities)
            self.assertEqual((len(reader.columns), reader.rows), (3, []))

    def test_many_rows(self) -> None:
        """Sequence numbers of a long table wrap."""
        table = Table((Column("n", ColumnType.LONG),), tuple((n,) for n in range(600)))
        packets: list[Packet] = Deframer().receive(encode_table(table, 1, WITHOUT_EOF))
        self.assertEqual([packet.sequence for packet in packets], [n & 0xFF for n in range(1, 604)])

    def test_double(self) -> None:
        """A DOUBLE is the text of a number: sent as it is, or as eight bytes."""
        table = Table((Column("Progress", ColumnType.DOUBLE),), (("0.500",), (None,)))
        *_, row, null, _ = (packet.payload for packet in Deframer().receive(encode_table(table, 1, CLIENT_PROTOCOL_41)))
        self.assertEqual((row, null), (b"\x050.500", b"\xfb"))
        data = encode_table(table, 1, CLIENT_PROTOCOL_41, binary=True)
        *_, row, null, _ = (packet.payload for packet in Deframer().receive(data))
        self.assertEqual((row, null), (b"\0\0\0\0\0\0\0\0\xe0\x3f", b"\0\x04"))

    def test_prepared(self) -> None:
        """An answer to COM_STMT_PREPARE has the definitions of parameters, then those of columns."""
        columns = (Column("Id", ColumnType.LONGLONG), Column("User", ColumnType.VARCHAR))
        for capabilities, ends in ((CLIENT_PROTOCOL_41, 1), (CLIENT_PROTOCOL_41 | CLIENT_DEPRECATE_EOF, 0)):
            packets = Deframer().receive(encode_prepared(7, 1, columns, capabilities))
            self.assertEqual([packet.sequence for packet in packets], list(range(1, len(packets) + 1)))
            payloads = [packet.payload for packet in packets]
            self.assertEqual(payloads[0], b"\0\7\0\0\0\2\0\1\0\0\0\0")
            names = [parse_column_definition(payload).name for payload in payloads[1:] if payload[:1] != b"\xfe"]
            self.assertEqual(names, ["?", "Id", "User"])
            self.assertEqual(len(payloads), 4 + 2 * ends)
        self.assertEqual(len(Deframer().receive(encode_prepared(7, 0, (), CLIENT_PROTOCOL_41))), 1)


class ResultReaderTests(SynchronousTestCase):
    def test_cuts(self) -> None:
        """Where that is wanted, rows that pass the limit are left out, and the end is found all the same."""
        reader = ResultReader(CLIENT_PROTOCOL_41, limit=150, cuts=True)
        definition = column_definition(Column("a", ColumnType.VARCHAR)).encode()
        end = Eof(status=2).encode()
        rows = [encode_text_row([letter * 40]) for letter in (b"a", b"b", b"c", b"d")]
        ends = [reader.receive(payload) for payload in (b"\1", definition, end, *rows, end)]
        self.assertEqual(ends, [False] * 7 + [True])
        self.assertEqual(reader.rows, [(b"a" * 40,), (b"b" * 40,)])

    def test_ok(self) -> None:
        """A plain OK ends the response at once."""
        ok = Ok(affected_rows=2, status=2)
        reader = read([ok.encode(WITH_EOF)], WITH_EOF)
        self.assertEqual((reader.ok, reader.columns, reader.rows, reader.error), (ok, [], [], None))

    def test_error(self) -> None:
        """An ERR ends the response, also between definitions and rows as MariaDB sends it for a killed statement."""
        err = Err(1317, "70100", "Query execution was interrupted")
        response = payloads(encode_table(TABLE, 1, WITH_EOF))
        for count in (0, 5, 6):
            reader = read([*response[:count], err.encode()], WITH_EOF)
            self.assertEqual((reader.error, reader.ok), (err, None))

    def test_value_that_looks_like_an_end(self) -> None:
        """A short value is never taken for the end of the rows."""
        table = Table((Column("a", ColumnType.VARCHAR),), (("x" * 300,), ("",), (None,)))
        for capabilities in (WITH_EOF, WITHOUT_EOF):
            reader = read(payloads(encode_table(table, 1, capabilities)), capabilities)
            self.assertEqual(reader.rows, [(b"x" * 300,), (b"",), (None,)])

    def test_more_results(self) -> None:
        """A second result set is refused, whatever the first one was."""
        for capabilities in (WITH_EOF, WITHOUT_EOF):
            response = payloads(encode_table(TABLE, 1, capabilities, SERVER_STATUS_MORE_RESULTS_EXISTS))
            self.assertRaises(MalformedPacket, read, response, capabilities)
            ok = Ok(status=SERVER_STATUS_MORE_RESULTS_EXISTS).encode(capabilities)
            self.assertRaises(MalformedPacket, ResultReader(capabilities).receive, ok)

    def test_limit(self) -> None:
        """A response of exactly the limit is read; of one byte less, it is refused."""
        response = payloads(encode_table(TABLE, 1, WITH_EOF))
        size = sum(len(payload) for payload in response)
        for limit, fits in ((size, True), (size - 1, False)):
            reader = ResultReader(WITH_EOF, limit)
            for payload in response[:-1]:
                self.assertFalse(reader.receive(payload))
            if fits:
                self.assertTrue(reader.receive(response[-1]))
            else:
                self.assertRaises(PacketTooLarge, reader.receive, response[-1])

    def test_what_is_not_due(self) -> None:
        """A wish for a local file, no columns, a missing EOF and a packet after the end are refused."""
        for payload in (b"\xfb/etc/passwd", b"", b"\x01\x01"):
            self.assertRaises(MalformedPacket, ResultReader(WITH_EOF).receive, payload)
        reader = ResultReader(WITH_EOF)
        for payload in payloads(encode_table(TABLE, 1, WITHOUT_EOF))[:4]:
            reader.receive(payload)
        self.assertRaises(MalformedPacket, reader.receive, b"\x011\x011\x011")
        reader = read([Ok().encode(WITH_EOF)], WITH_EOF)
        self.assertRaises(MalformedPacket, reader.receive, b"\x00")

    @many
    @given(
        st.integers(0, 8),
        st.lists(st.one_of(any_bytes, st.sampled_from(payloads(encode_table(TABLE, 1, WITH_EOF)))), max_size=5),
        st.sampled_from((WITH_EOF, WITHOUT_EOF)),
    )
    def test_any_bytes(self, count: int, wrong: list[bytes], capabilities: int) -> None:
        """Any payloads after any part of a response are read or a WireError."""

        def feed() -> None:
            reader = ResultReader(capabilities)
            for payload in [*payloads(encode_table(TABLE, 1, capabilities))[:count], *wrong]:
                reader.receive(payload)

        raises_only_wire_errors(feed)
