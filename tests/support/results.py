"""Results of servers, with column names: as bytes, and as the proxy reads them."""

from __future__ import annotations

from collections.abc import Sequence

from odptwist.wire import constants as c
from odptwist.wire.framing import Deframer, frame
from odptwist.wire.responses import Eof, Err
from odptwist.wire.resultset import ColumnDefinition, ResultReader, encode_text_row


def table(columns: Sequence[str], *rows: Sequence[bytes | None]) -> bytes:
    """Return a framed result set with these columns, in the old framing."""
    definitions = [
        ColumnDefinition("def", "", "", "", name, name, 45, 100, c.FIELD_TYPE_VAR_STRING, 0, 0) for name in columns
    ]
    end = Eof(0, c.SERVER_STATUS_AUTOCOMMIT).encode()
    payloads = [bytes((len(columns),)), *(each.encode() for each in definitions), end]
    payloads += [encode_text_row(row) for row in rows]
    payloads.append(end)
    return b"".join(frame(payload, number + 1) for number, payload in enumerate(payloads))


def value(text: bytes) -> bytes:
    """Return a framed result set of one value."""
    return table(["x"], [text])


def error(code: int, message: str = "no") -> bytes:
    """Return a framed ERR packet."""
    return frame(Err(code, "HY000", message).encode(), 1)


def read(data: bytes) -> ResultReader:
    """Return a framed response as the proxy reads it."""
    reader = ResultReader(0)
    for packet in Deframer(1 << 20).receive(data):
        reader.receive(packet.payload)
    return reader
