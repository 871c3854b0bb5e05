"""Values of parameters in COM_STMT_EXECUTE, for the statements that the proxy executes itself.

Source: https://dev.mysql.com/doc/dev/mysql-server/latest/page_protocol_com_stmt_execute.html,
https://dev.mysql.com/doc/dev/mysql-server/latest/page_protocol_binary_resultset.html#sect_protocol_binary_resultset_row_value
"""

from __future__ import annotations

from collections.abc import Mapping
from struct import Struct
from typing import Final

from odptwist.errors import MalformedPacket
from odptwist.wire.constants import (
    FIELD_TYPE_DATE,
    FIELD_TYPE_DATETIME,
    FIELD_TYPE_DOUBLE,
    FIELD_TYPE_FLOAT,
    FIELD_TYPE_INT24,
    FIELD_TYPE_LONG,
    FIELD_TYPE_LONGLONG,
    FIELD_TYPE_NULL,
    FIELD_TYPE_SHORT,
    FIELD_TYPE_TIME,
    FIELD_TYPE_TIMESTAMP,
    FIELD_TYPE_TINY,
    FIELD_TYPE_YEAR,
)
from odptwist.wire.framing import HEADER_SIZE
from odptwist.wire.prepared import types_in
from odptwist.wire.primitives import Reader

ParameterValue = int | float | bytes | None

_INTEGER_SIZES: Final = {
    FIELD_TYPE_TINY: 1,
    FIELD_TYPE_SHORT: 2,
    FIELD_TYPE_YEAR: 2,
    FIELD_TYPE_INT24: 4,
    FIELD_TYPE_LONG: 4,
    FIELD_TYPE_LONGLONG: 8,
}
_FLOATS: Final = {FIELD_TYPE_FLOAT: Struct("<f"), FIELD_TYPE_DOUBLE: Struct("<d")}
# A length and then numbers; no proxy statement takes a time, so it is as good as the text in front of it.
_TIMES: Final = frozenset((FIELD_TYPE_DATE, FIELD_TYPE_DATETIME, FIELD_TYPE_TIMESTAMP, FIELD_TYPE_TIME))
_UNSIGNED: Final = 0x80
# Behind the header: the command, the statement's number, flags, and how often to execute.
_FIXED_SIZE: Final = 10


def parse_parameters(
    data: bytes, parameters: int, known: bytes, long_data: Mapping[int, bytes]
) -> tuple[tuple[ParameterValue, ...], bytes]:
    """Return the values of a whole framed COM_STMT_EXECUTE, and their types for the next one.

    Args:
        data: the packet.
        parameters: how many the statement has.
        known: the types that an earlier execute told, 2 bytes a parameter; empty if none did.
        long_data: values that came before, by the number of the parameter.

    Returns:
        Texts are in the client's character set. A time is the text `a time`.

    Raises:
        MalformedPacket: it is cut off, or lacks the types.
    """
    if not parameters:
        return (), b""
    reader = Reader(data[HEADER_SIZE + _FIXED_SIZE :])
    nulls = int.from_bytes(reader.take(parameters + 7 >> 3), "little")
    told = types_in(data, parameters)
    types = known if told is None else told
    if len(types) != 2 * parameters:
        raise MalformedPacket("COM_STMT_EXECUTE without the types of its parameters")
    reader.take(1 + (2 * parameters if told is not None else 0))
    values: list[ParameterValue] = []
    for place in range(parameters):
        kind, flags = types[2 * place : 2 * place + 2]
        if place in long_data:
            values.append(long_data[place])
        elif nulls >> place & 1 or kind == FIELD_TYPE_NULL:
            values.append(None)
        elif kind in _INTEGER_SIZES:
            values.append(int.from_bytes(reader.take(_INTEGER_SIZES[kind]), "little", signed=not flags & _UNSIGNED))
        elif kind in _FLOATS:
            values.append(_FLOATS[kind].unpack(reader.take(_FLOATS[kind].size))[0])
        elif kind in _TIMES:
            reader.take(reader.uint8())
            values.append(b"a time")
        else:
            values.append(reader.lenenc_bytes())
    return tuple(values), types
