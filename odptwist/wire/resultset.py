"""Result sets: those that the proxy answers itself, and the small ones that it asks servers for.

Rows on their way from a server to a client never come here: they are scanned, not parsed.

Source: https://dev.mysql.com/doc/dev/mysql-server/latest/page_protocol_com_query_response_text_resultset.html,
https://dev.mysql.com/doc/dev/mysql-server/latest/page_protocol_binary_resultset.html
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from enum import Enum, unique
from struct import Struct
from typing import Final

from attrs import frozen

from odptwist.answers import Column, ColumnType, Table, Value
from odptwist.errors import MalformedPacket, PacketTooLarge
from odptwist.wire.constants import (
    CHARSET_BINARY,
    CHARSET_UTF8MB4_GENERAL_CI,
    CLIENT_DEPRECATE_EOF,
    FIELD_TYPE_BLOB,
    FIELD_TYPE_DOUBLE,
    FIELD_TYPE_LONG,
    FIELD_TYPE_LONGLONG,
    FIELD_TYPE_STRING,
    FIELD_TYPE_TINY,
    FIELD_TYPE_VAR_STRING,
    FIELD_TYPE_VARCHAR,
    FLAG_BINARY,
    FLAG_UNSIGNED,
    MAX_PAYLOAD,
    SERVER_STATUS_MORE_RESULTS_EXISTS,
)
from odptwist.wire.framing import frames
from odptwist.wire.primitives import Reader, decode_text, encode_text, lenenc_bytes, lenenc_int
from odptwist.wire.responses import EOF_HEADER, Eof, Err, Ok, is_eof, parse_eof, parse_err, parse_ok

BinaryValue = int | float | bytes | None

_INTEGER_SIZES: Final[dict[int, int]] = {FIELD_TYPE_TINY: 1, FIELD_TYPE_LONG: 4, FIELD_TYPE_LONGLONG: 8}
_STRINGS: Final[frozenset[int]] = frozenset(
    (FIELD_TYPE_VARCHAR, FIELD_TYPE_VAR_STRING, FIELD_TYPE_STRING, FIELD_TYPE_BLOB)
)
_DOUBLE: Final = Struct("<d")
_PREPARED: Final = Struct("<BIHHxxx")  # OK, number, columns, parameters, a filler and no warnings
_FIXED_SIZE: Final[int] = 12
_ROWS_AT_ONCE: Final[int] = 200
_DISPLAY_LENGTHS: Final[dict[ColumnType, int]] = {
    ColumnType.TINY: 4,
    ColumnType.LONG: 11,
    ColumnType.DOUBLE: 22,
    ColumnType.LONGLONG: 21,
    ColumnType.VARCHAR: 1024 * 4,
}
_NOT_FIXED: Final[int] = 31  # decimals of a type that has none


@frozen
class ColumnDefinition:
    """One column's metadata; `length` is in bytes, `flags` are FLAG_* bits, `catalog` is always `def`."""

    catalog: str
    schema: str
    table: str
    org_table: str
    name: str
    org_name: str
    charset: int
    length: int
    type: int
    flags: int
    decimals: int

    def encode(self) -> bytes:
        """Return the payload."""
        names = (self.catalog, self.schema, self.table, self.org_table, self.name, self.org_name)
        return b"".join(lenenc_bytes(encode_text(name)) for name in names) + lenenc_bytes(
            self.charset.to_bytes(2, "little")
            + self.length.to_bytes(4, "little")
            + self.type.to_bytes(1, "little")
            + self.flags.to_bytes(2, "little")
            + self.decimals.to_bytes(1, "little")
            + bytes(2)
        )


def parse_column_definition(payload: bytes) -> ColumnDefinition:
    """Return a column's metadata; the default value behind it (COM_FIELD_LIST) is left alone."""
    reader = Reader(payload)
    catalog, schema, table, org_table, name, org_name = (decode_text(reader.lenenc_bytes()) for _ in range(6))
    fixed = Reader(reader.lenenc_bytes())
    return ColumnDefinition(
        catalog=catalog,
        schema=schema,
        table=table,
        org_table=org_table,
        name=name,
        org_name=org_name,
        charset=fixed.uint16(),
        length=fixed.uint32(),
        type=fixed.uint8(),
        flags=fixed.uint16(),
        decimals=fixed.uint8(),
    )


def encode_text_row(values: Sequence[bytes | None]) -> bytes:
    """Return the payload of a row of the text protocol."""
    return b"".join(b"\xfb" if value is None else lenenc_bytes(value) for value in values)


def parse_text_row(payload: bytes, columns: int) -> tuple[bytes | None, ...]:
    """Return the values of a row of the text protocol with this number of columns."""
    reader = Reader(payload)
    row = tuple([reader.nullable_lenenc_bytes() for _ in range(columns)])
    if reader.remaining:
        raise MalformedPacket(f"a row of {columns} columns has {reader.remaining} bytes too many")
    return row


def encode_binary_row(columns: Sequence[ColumnDefinition], values: Sequence[BinaryValue]) -> bytes:
    """Return the payload of a row of the binary protocol.

    Raises:
        MalformedPacket: a value and its column's type do not fit, or the type is not one that we answer.
        OverflowError: a number passes its column's range.
    """
    # The bitmap of NULLs begins with two unused bits.
    nulls = 0
    parts = []
    for place, (column, value) in enumerate(zip(columns, values, strict=True)):
        size = _INTEGER_SIZES.get(column.type)
        if value is None:
            nulls |= 1 << (place + 2)
        elif isinstance(value, float) and column.type == FIELD_TYPE_DOUBLE:
            parts.append(_DOUBLE.pack(value))
        elif isinstance(value, int) and size:
            parts.append(value.to_bytes(size, "little", signed=not column.flags & FLAG_UNSIGNED))
        elif isinstance(value, bytes) and column.type in _STRINGS:
            parts.append(lenenc_bytes(value))
        else:
            raise MalformedPacket(f"no {type(value).__name__} fits a column of type {column.type}")
    return b"\x00" + nulls.to_bytes((len(columns) + 9) // 8, "little") + b"".join(parts)


def parse_binary_row(payload: bytes, columns: Sequence[ColumnDefinition]) -> tuple[BinaryValue, ...]:
    """Return the values of a row of the binary protocol.

    Raises:
        MalformedPacket: also for a column type that we never answer.
    """
    reader = Reader(payload)
    header = reader.uint8()
    if header != 0:
        raise MalformedPacket(f"a binary row is due, 0x{header:02x} came")
    nulls = int.from_bytes(reader.take((len(columns) + 9) // 8), "little")
    row: list[BinaryValue] = []
    for place, column in enumerate(columns):
        size = _INTEGER_SIZES.get(column.type)
        if nulls >> (place + 2) & 1:
            row.append(None)
        elif size:
            row.append(int.from_bytes(reader.take(size), "little", signed=not column.flags & FLAG_UNSIGNED))
        elif column.type in _STRINGS:
            row.append(reader.lenenc_bytes())
        else:
            raise MalformedPacket(f"columns of type {column.type} are not read here")
    if reader.remaining:
        raise MalformedPacket(f"a row of {len(columns)} columns has {reader.remaining} bytes too many")
    return tuple(row)


def column_definition(column: Column) -> ColumnDefinition:
    """Return what a client is told of a column of a proxy statement's answer."""
    text = column.type is ColumnType.VARCHAR
    return ColumnDefinition(
        catalog="def",
        schema="",
        table="",
        org_table="",
        name=column.name,
        org_name="",
        charset=CHARSET_UTF8MB4_GENERAL_CI if text else CHARSET_BINARY,
        length=_DISPLAY_LENGTHS[column.type],
        type=int(column.type),
        flags=(0 if text else FLAG_BINARY) | (FLAG_UNSIGNED if column.unsigned else 0),
        decimals=0 if column.type in _INTEGER_SIZES else _NOT_FIXED,
    )


def encode_table(table: Table, sequence: int, capabilities: int, status: int = 0, binary: bool = False) -> bytes:
    """Return a whole response, ready for the transport; see `encode_table_in_parts`."""
    return b"".join(encode_table_in_parts(table, sequence, capabilities, status, binary))


def encode_table_in_parts(
    table: Table, sequence: int, capabilities: int, status: int = 0, binary: bool = False
) -> Iterator[bytes]:
    """Yield a response in parts of some hundred microseconds' work each, ready for the transport.

    Args:
        table: at least one column.
        sequence: number of the response's first packet: the command's plus one.
        capabilities: agreed with the client.
        status: SERVER_STATUS_* bits of its end.
        binary: answers COM_STMT_EXECUTE, not COM_QUERY.
    """
    definitions = [column_definition(column) for column in table.columns]
    payloads = [lenenc_int(len(definitions)), *(definition.encode() for definition in definitions)]
    end = Ok(status=status, header=EOF_HEADER).encode(capabilities)
    if not capabilities & CLIENT_DEPRECATE_EOF:
        end = Eof(status=status).encode()
        payloads.append(end)
    for start in range(0, len(table.rows), _ROWS_AT_ONCE):
        if start:
            framed = frames(payloads, sequence)
            yield framed.data
            payloads, sequence = [], framed.sequence
        rows = table.rows[start : start + _ROWS_AT_ONCE]
        if binary:
            for row in rows:
                cells = [_binary(value, column) for value, column in zip(row, table.columns, strict=True)]
                payloads.append(encode_binary_row(definitions, cells))
        else:
            # As `encode_text_row`, but faster.
            cell_of = _Cells().__getitem__
            payloads += [b"".join(map(cell_of, row)) for row in rows]
    payloads.append(end)
    yield frames(payloads, sequence).data


def encode_prepared(
    number: int, parameters: int, columns: Sequence[Column], capabilities: int, status: int = 0
) -> bytes:
    """Return a whole response to COM_STMT_PREPARE, ready for the transport.

    Args:
        number: of the statement.
        parameters: how many it has; of each is told that it is a text, as servers tell where they do not know.
        columns: of its result; none if it has none, or if that is not known yet.
        capabilities: agreed with the client.
        status: SERVER_STATUS_* bits of the ends of definitions.
    """
    parameter = column_definition(Column("?", ColumnType.VARCHAR)).encode()
    lists = ([parameter] * parameters, [column_definition(column).encode() for column in columns])
    payloads = [_PREPARED.pack(0, number, len(columns), parameters)]
    for definitions in lists:
        payloads += definitions
        if definitions and not capabilities & CLIENT_DEPRECATE_EOF:
            payloads.append(Eof(status=status).encode())
    return frames(payloads, 1).data


class _Cells(dict[Value, bytes]):
    """The cells of text rows; each value is encoded once, for lists repeat most of theirs."""

    def __missing__(self, value: Value) -> bytes:
        if value is None:
            cell = b"\xfb"
        else:
            cell = lenenc_bytes(encode_text(value) if isinstance(value, str) else b"%d" % value)
        self[value] = cell
        return cell


def _text(value: Value) -> bytes | None:
    return None if value is None else encode_text(str(value))


def _binary(value: Value, column: Column) -> BinaryValue:
    if value is not None and column.type is ColumnType.DOUBLE:
        return float(value)
    return value if isinstance(value, int) and column.type is not ColumnType.VARCHAR else _text(value)


@unique
class _Due(Enum):
    """What a `ResultReader` expects next."""

    HEAD = "head"
    COLUMN = "column"
    COLUMNS_END = "columns_end"
    ROW = "row"
    NOTHING = "nothing"


class ResultReader:
    """Reads one response to a COM_QUERY of the proxy's own, payload by payload.

    Attributes:
        columns: of a result set; empty after a plain OK.
        rows: one tuple a row, None for SQL NULL.
        ok: the end of a success, made from the EOF (header 0xFE) where the server sent that; None until then.
        error: the end of a failure, also one that comes after some rows; None until then.

    Args:
        capabilities: agreed with the server.
        limit: bytes of all definitions and rows together.
        cuts: whether rows that pass the limit are left out; otherwise that is a fault.
    """

    def __init__(self, capabilities: int, limit: int = 1024 * 1024, cuts: bool = False) -> None:
        self.columns: list[ColumnDefinition] = []
        self.rows: list[tuple[bytes | None, ...]] = []
        self.ok: Ok | None = None
        self.error: Err | None = None
        self._capabilities = capabilities
        self._room = limit
        self._cuts = cuts
        self._column_count = 0
        self._due = _Due.HEAD

    def receive(self, payload: bytes) -> bool:
        """Take the next payload; say whether the response has ended with it.

        Raises:
            PacketTooLarge: definitions and rows pass the limit.
            MalformedPacket: the payload is not what is due, it asks for a local file, or another result set follows.
        """
        if self._due is _Due.NOTHING:
            raise MalformedPacket("a packet came after the end of the response")
        self._room -= len(payload)
        if self._room < 0 and not self._cuts:
            raise PacketTooLarge("a small result set is larger than its limit")
        if payload[:1] == b"\xff":
            self.error = parse_err(payload)
            self._due = _Due.NOTHING
        elif self._due is _Due.HEAD:
            self._head(payload)
        elif self._due is _Due.COLUMN:
            self.columns.append(parse_column_definition(payload))
            if len(self.columns) == self._column_count:
                self._due = _Due.ROW if self._capabilities & CLIENT_DEPRECATE_EOF else _Due.COLUMNS_END
        elif self._due is _Due.COLUMNS_END:
            parse_eof(payload)
            self._due = _Due.ROW
        elif self._capabilities & CLIENT_DEPRECATE_EOF and payload[:1] == b"\xfe" and len(payload) < MAX_PAYLOAD:
            self._end(parse_ok(payload, self._capabilities))
        elif not self._capabilities & CLIENT_DEPRECATE_EOF and is_eof(payload):
            eof = parse_eof(payload)
            self._end(Ok(status=eof.status, warnings=eof.warnings, header=EOF_HEADER))
        elif self._room >= 0:
            self.rows.append(parse_text_row(payload, len(self.columns)))
        return self._due is _Due.NOTHING

    def _head(self, payload: bytes) -> None:
        if payload[:1] == b"\x00":
            self._end(parse_ok(payload, self._capabilities))
            return
        # 0xFB, a server that asks for a local file, is no length-encoded integer either.
        reader = Reader(payload)
        self._column_count = reader.lenenc_int()
        if reader.remaining or not self._column_count:
            raise MalformedPacket("a number of columns is due")
        self._due = _Due.COLUMN

    def _end(self, ok: Ok) -> None:
        if ok.status & SERVER_STATUS_MORE_RESULTS_EXISTS:
            raise MalformedPacket("one result set is due, another one follows")
        self.ok = ok
        self._due = _Due.NOTHING
