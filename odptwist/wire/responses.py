"""How an exchange or a login ends: OK, ERR and EOF.

Source: https://dev.mysql.com/doc/dev/mysql-server/latest/page_protocol_basic_response_packets.html

Servers differ in an OK's info where CLIENT_SESSION_TRACK was not agreed: MySQL and MariaDB put a length before it,
although the documentation has none there and clients skip that byte; seekdb 1.4 puts a space in its place.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Final

from attrs import frozen

from odptwist.errors import (
    SERVER_LOST,
    SERVER_UNREACHABLE,
    LoginRefused,
    MalformedPacket,
    PacketTooLarge,
    SequenceError,
    ServerSessionLost,
    ServerUnreachable,
    SqlError,
    WireError,
)
from odptwist.wire.constants import (
    CLIENT_SESSION_TRACK,
    ER_MALFORMED_PACKET,
    ER_NET_PACKET_TOO_LARGE,
    ER_NET_PACKETS_OUT_OF_ORDER,
    ER_UNKNOWN_ERROR,
    SERVER_STATUS_SESSION_STATE_CHANGED,
    SESSION_TRACK_SCHEMA,
    SESSION_TRACK_SYSTEM_VARIABLES,
)
from odptwist.wire.primitives import Reader, decode_text, encode_text, lenenc_bytes, lenenc_int

OK_HEADER: Final[int] = 0x00
EOF_HEADER: Final[int] = 0xFE
ERR_HEADER: Final[int] = 0xFF

# Bytes of an OK that may be remembered: those without a text or changes have 7, and a few more with large numbers.
_PLAIN_SIZE: Final[int] = 64


@frozen
class SchemaChanged:
    """The session's default schema is now `name`; empty when it has none."""

    name: str


@frozen
class VariableChanged:
    """A tracked system variable of the session has a new value."""

    name: str
    value: str


@frozen
class OtherChange:
    """A change of a type that is not read here; `data` is its entry without type and length.

    For SESSION_TRACK_STATE_CHANGE MySQL and MariaDB send `1`, seekdb 1.4 sends it behind a length byte.
    """

    type: int
    data: bytes


StateChange = SchemaChanged | VariableChanged | OtherChange


@frozen
class Ok:
    """A success, or, with the header 0xFE and CLIENT_DEPRECATE_EOF, the end of rows.

    Args:
        affected_rows: 64 bits.
        last_insert_id: 64 bits.
        status: SERVER_STATUS_* bits.
        warnings: their number.
        info: the server's text, free of length byte (and of seekdb's space).
        changes: of the session's state; told only where CLIENT_SESSION_TRACK was agreed.
        header: 0x00 or 0xFE.
    """

    affected_rows: int = 0
    last_insert_id: int = 0
    status: int = 0
    warnings: int = 0
    info: bytes = b""
    changes: tuple[StateChange, ...] = ()
    header: int = OK_HEADER

    def encode(self, capabilities: int) -> bytes:
        """Return the payload for a peer with these capabilities.

        SERVER_STATUS_SESSION_STATE_CHANGED is set where there are changes to tell, and clear for a peer that did not
        agree to hear of them.
        """
        tracked = bool(capabilities & CLIENT_SESSION_TRACK)
        status = self.status & ~SERVER_STATUS_SESSION_STATE_CHANGED
        changed = tracked and bool(self.changes or status != self.status)
        if changed:
            status |= SERVER_STATUS_SESSION_STATE_CHANGED
        parts = [
            self.header.to_bytes(1, "little"),
            lenenc_int(self.affected_rows),
            lenenc_int(self.last_insert_id),
            status.to_bytes(2, "little"),
            self.warnings.to_bytes(2, "little"),
        ]
        if self.info or changed:
            parts.append(lenenc_bytes(self.info))
        if changed:
            parts.append(lenenc_bytes(b"".join(_encode_change(change) for change in self.changes)))
        return b"".join(parts)


def parse_ok(payload: bytes, capabilities: int) -> Ok:
    """Return an OK; `capabilities` are those that its sender and its receiver agreed on."""
    return (_parse_plain_ok if len(payload) <= _PLAIN_SIZE else _parse_ok)(payload, capabilities)


def _parse_ok(payload: bytes, capabilities: int) -> Ok:
    reader = Reader(payload)
    header = reader.uint8()
    if header not in (OK_HEADER, EOF_HEADER):
        raise MalformedPacket(f"an OK is due, 0x{header:02x} came")
    affected_rows = reader.lenenc_int()
    last_insert_id = reader.lenenc_int()
    status = reader.uint16()
    warnings = reader.uint16()
    changes: tuple[StateChange, ...] = ()
    if capabilities & CLIENT_SESSION_TRACK:
        info = reader.lenenc_bytes() if reader.remaining else b""
        if status & SERVER_STATUS_SESSION_STATE_CHANGED and reader.remaining:
            changes = _parse_changes(reader.lenenc_bytes())
    else:
        info = _plain_info(reader.rest()) if reader.remaining else b""
    return Ok(affected_rows, last_insert_id, status, warnings, info, changes, header)


# That of a login is nearly always the same few bytes.
_parse_plain_ok = lru_cache(_parse_ok)


def _plain_info(rest: bytes) -> bytes:
    """Return the text at the end of an OK without the length or the space that a server puts before it."""
    try:
        reader = Reader(rest)
        text = reader.lenenc_bytes()
    except MalformedPacket:
        return rest.removeprefix(b" ")
    return rest.removeprefix(b" ") if reader.remaining else text


def _encode_change(change: StateChange) -> bytes:
    match change:
        case SchemaChanged(name):
            kind, data = SESSION_TRACK_SCHEMA, lenenc_bytes(encode_text(name))
        case VariableChanged(name, value):
            kind = SESSION_TRACK_SYSTEM_VARIABLES
            data = lenenc_bytes(encode_text(name)) + lenenc_bytes(encode_text(value))
        case OtherChange(kind, data):
            pass
    return kind.to_bytes(1, "little") + lenenc_bytes(data)


def _parse_changes(block: bytes) -> tuple[StateChange, ...]:
    changes: list[StateChange] = []
    reader = Reader(block)
    while reader.remaining:
        kind = reader.uint8()
        data = reader.lenenc_bytes()
        entry = Reader(data)
        if kind == SESSION_TRACK_SCHEMA:
            changes.append(SchemaChanged(decode_text(entry.lenenc_bytes())))
        elif kind == SESSION_TRACK_SYSTEM_VARIABLES:
            # seekdb 1.4 and MariaDB 10.11 give each variable its own entry; the format allows several in one.
            while entry.remaining:
                name, value = entry.lenenc_bytes(), entry.lenenc_bytes()
                changes.append(VariableChanged(decode_text(name), decode_text(value)))
        else:
            changes.append(OtherChange(kind, data))
    return tuple(changes)


@frozen
class Err:
    """A failure: MySQL's (or OceanBase's) number, five characters of sqlstate, and a text."""

    code: int
    sqlstate: str
    message: str

    def encode(self, with_state: bool = True) -> bytes:
        """Return the payload; without the sqlstate for a client that has not yet said that it speaks 4.1.

        A sqlstate of another length is cut or filled with zeros: the packet has no other way to end it.
        """
        state = b"#" + encode_text(self.sqlstate)[:5].ljust(5, b"0") if with_state else b""
        return b"\xff" + self.code.to_bytes(2, "little") + state + encode_text(self.message)


def parse_err(payload: bytes) -> Err:
    """Return an ERR; its sqlstate is HY000 where the server sends none (MariaDB instead of a greeting)."""
    reader = Reader(payload)
    header = reader.uint8()
    if header != ERR_HEADER:
        raise MalformedPacket(f"an ERR is due, 0x{header:02x} came")
    code = reader.uint16()
    rest = reader.rest()
    if rest[:1] == b"#" and len(rest) >= 6:
        return Err(code, decode_text(rest[1:6]), decode_text(rest[6:]))
    return Err(code, "HY000", decode_text(rest))


@frozen
class Eof:
    """The end of column definitions or of rows, where CLIENT_DEPRECATE_EOF was not agreed."""

    warnings: int = 0
    status: int = 0

    def encode(self) -> bytes:
        """Return the payload, 5 bytes."""
        return b"\xfe" + self.warnings.to_bytes(2, "little") + self.status.to_bytes(2, "little")


def is_eof(payload: bytes) -> bool:
    """Say whether this is an EOF and not a row: a row that begins with 0xFE has a value of 16 MiB and more."""
    return payload[:1] == b"\xfe" and len(payload) < 9


def parse_eof(payload: bytes) -> Eof:
    """Return an EOF."""
    if not is_eof(payload):
        raise MalformedPacket("an EOF is due")
    reader = Reader(payload)
    reader.take(1)
    return Eof(reader.uint16(), reader.uint16())


def err_for(error: BaseException) -> Err:
    """Turn an exception into what a client may know of it: the only place that decides this.

    The text of an error that nobody foresaw is not told: it may hold another session's secrets.
    """
    match error:
        case SqlError():
            return Err(error.code, error.sqlstate, error.message)
        case SequenceError():
            return Err(ER_NET_PACKETS_OUT_OF_ORDER, "08S01", "Got packets out of order")
        case PacketTooLarge():
            return Err(ER_NET_PACKET_TOO_LARGE, "08S01", "Got a packet bigger than 'max_allowed_packet' bytes")
        case WireError():
            return Err(ER_MALFORMED_PACKET, "HY000", "Malformed communication packet")
        case ServerUnreachable():
            return Err(SERVER_UNREACHABLE, "HY000", str(error))
        case ServerSessionLost():
            return Err(SERVER_LOST, "08S01", str(error))
        case LoginRefused():
            try:
                return parse_err(error.payload)
            except WireError as broken:
                return err_for(broken)
        case _:
            return Err(ER_UNKNOWN_ERROR, "HY000", "the proxy failed; its log says why")
