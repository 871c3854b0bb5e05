"""Binary prepared statements: what a proxy reads and changes in their commands, and the response to COM_STMT_PREPARE.

Source: https://dev.mysql.com/doc/dev/mysql-server/latest/page_protocol_command_phase_ps.html,
https://mariadb.com/kb/en/com_stmt_bulk_execute/

All commands but COM_STMT_PREPARE, and the first packet of its response, have the statement's number (MySQL: its id) in
the same place: 4 bytes behind the first byte of the payload. Commands come framed here, since they are passed on so;
long ones as far as they have come.
"""

from __future__ import annotations

from struct import Struct
from typing import Final

from attrs import frozen

from odptwist.errors import MalformedPacket, PacketTooLarge, SqlError
from odptwist.wire.constants import (
    CLIENT_DEPRECATE_EOF,
    COM_STMT_BULK_EXECUTE,
    COM_STMT_EXECUTE,
    COM_STMT_FETCH,
    COM_STMT_RESET,
    COM_STMT_SEND_LONG_DATA,
    ER_MALFORMED_PACKET,
    ER_UNKNOWN_STMT_HANDLER,
    MAX_PAYLOAD,
)
from odptwist.wire.framing import HEADER_SIZE, frame
from odptwist.wire.responses import ERR_HEADER, OK_HEADER, Err, is_eof, parse_err

NUMBER_AT: Final[int] = HEADER_SIZE + 1
NUMBER_END: Final[int] = HEADER_SIZE + 5

_ASKED: Final[dict[int, str]] = {COM_STMT_FETCH: "mysqld_stmt_fetch", COM_STMT_RESET: "mysqld_stmt_reset"}

# Where the types of parameters are, and the flag that tells whether they are there: of COM_STMT_EXECUTE a byte behind
# the bitmap of NULLs, of MariaDB's COM_STMT_BULK_EXECUTE a bit of its flags.
_NULLS: Final[int] = HEADER_SIZE + 10
_BULK_FLAGS: Final[int] = HEADER_SIZE + 5
_BULK_TYPES: Final[int] = HEADER_SIZE + 7
_BULK_BIT: Final[int] = 0x80
_EXECUTE: Final[bytes] = bytes((COM_STMT_EXECUTE,))
_BULK: Final[bytes] = bytes((COM_STMT_BULK_EXECUTE,))

_PREPARED: Final = Struct("<BIHH")  # header, number, columns, parameters; a filler and warnings follow


def number_in(data: bytes) -> int:
    """Return the statement's number in a framed packet; without the missing bytes where it is cut off."""
    return int.from_bytes(data[NUMBER_AT:NUMBER_END], "little")


def with_number(data: bytes, number: int) -> bytes:
    """Return a framed packet with another statement's number; the same object where that is right already, or cut."""
    encoded = number.to_bytes(4, "little")
    if data[NUMBER_AT:NUMBER_END] == encoded or len(data) < NUMBER_END:
        return data
    return b"".join((data[:NUMBER_AT], encoded, data[NUMBER_END:]))


def numbered(command: int, number: int, rest: bytes = b"") -> bytes:
    """Return a framed command about a statement."""
    return frame(b"".join((bytes((command,)), number.to_bytes(4, "little"), rest)), 0)


def unknown_statement(data: bytes) -> SqlError:
    """Return the answer to a framed command that names no statement, in MariaDB's words (seekdb has fewer).

    COM_STMT_CLOSE and COM_STMT_SEND_LONG_DATA get no answer, whatever they name.
    """
    if len(data) < NUMBER_END:
        return SqlError(ER_MALFORMED_PACKET, "HY000", "Malformed communication packet")
    asked = _ASKED.get(data[HEADER_SIZE], "mysqld_stmt_execute")
    text = f"Unknown prepared statement handler ({number_in(data)}) given to {asked}"
    return SqlError(ER_UNKNOWN_STMT_HANDLER, "HY000", text)


def is_whole(data: bytes) -> bool:
    """Say whether a framed packet has come to its end."""
    return int.from_bytes(data[:3], "little") == len(data) - HEADER_SIZE


def opens_cursor(data: bytes) -> bool:
    """Say whether a framed command is a COM_STMT_EXECUTE that asks for a cursor."""
    return data[HEADER_SIZE:NUMBER_AT] == _EXECUTE and data[NUMBER_END : NUMBER_END + 1] not in (b"", b"\0")


def types_in(data: bytes, parameters: int) -> bytes | None:
    """Return the types that an execute tells, 2 bytes a parameter; None if it tells none.

    Args:
        data: a framed COM_STMT_EXECUTE or COM_STMT_BULK_EXECUTE; where it is cut off, so are the types.
        parameters: of the statement, at least one.
    """
    if data[HEADER_SIZE:NUMBER_AT] != _BULK:
        at = _NULLS + (parameters + 7 >> 3)
        told = data[at : at + 1] != b"\x00"
        at += 1
    else:
        at = _BULK_TYPES
        told = len(data) < at or data[_BULK_FLAGS] & _BULK_BIT != 0
    return data[at : at + 2 * parameters] if told else None


def with_types(data: bytes, parameters: int, types: bytes) -> bytes:
    """Return a framed execute for which `types_in` is None so that it tells these types.

    Raises:
        PacketTooLarge: it would need one more fragment, and each one's border would have to move.
    """
    length = int.from_bytes(data[:3], "little") + len(types)
    if length >= MAX_PAYLOAD:
        raise PacketTooLarge("no room for the types of parameters")
    if data[HEADER_SIZE:NUMBER_AT] != _BULK:
        flag_at, flag = _NULLS + (parameters + 7 >> 3), 1
        at = flag_at + 1
    else:
        flag_at, flag = _BULK_FLAGS, data[_BULK_FLAGS] | _BULK_BIT
        at = _BULK_TYPES
    head = data[3:flag_at] + bytes((flag,)) + data[flag_at + 1 : at]
    return b"".join((length.to_bytes(3, "little"), head, types, data[at:]))


@frozen
class LongData:
    """A piece of a parameter's value, sent before the execute; servers join all pieces of a parameter."""

    parameter: int
    piece: bytes

    def encode(self, number: int) -> bytes:
        """Return the framed COM_STMT_SEND_LONG_DATA."""
        return numbered(COM_STMT_SEND_LONG_DATA, number, self.parameter.to_bytes(2, "little") + self.piece)


def parse_long_data(data: bytes) -> LongData:
    """Return what a framed COM_STMT_SEND_LONG_DATA brings."""
    piece_at = NUMBER_END + 2
    if len(data) < piece_at:
        raise MalformedPacket("COM_STMT_SEND_LONG_DATA without a parameter")
    return LongData(int.from_bytes(data[NUMBER_END:piece_at], "little"), data[piece_at:])


class PrepareReply:
    """Reads the beginning of a response to COM_STMT_PREPARE on its way to a client, however it was chunked.

    Attributes:
        came: the bytes so far; to be sent on, with the client's number in them, once the reply is known.
        failed: whether it is an ERR; the numbers are 0 then.
        number: the server's number of the statement.
        columns: of its result set, 0 if it has none.
        parameters: their number.
    """

    __slots__ = ("came", "columns", "failed", "number", "parameters")

    def __init__(self) -> None:
        self.came = b""
        self.failed = False
        self.number = self.columns = self.parameters = 0

    def receive(self, data: bytes) -> bool:
        """Take the next bytes, beginning at the first packet's header; say whether the reply is known.

        Afterwards bytes need not come here any more.

        Raises:
            MalformedPacket: it is neither COM_STMT_PREPARE_OK nor an ERR.
        """
        self.came += data
        length = int.from_bytes(self.came[:3], "little")
        if len(self.came) <= HEADER_SIZE:
            return False
        header = self.came[HEADER_SIZE]
        self.failed = header == ERR_HEADER and length > 0
        if self.failed:
            return True
        if header != OK_HEADER or length < _PREPARED.size:
            raise MalformedPacket("neither COM_STMT_PREPARE_OK nor ERR")
        if len(self.came) < HEADER_SIZE + _PREPARED.size:
            return False
        _, self.number, self.columns, self.parameters = _PREPARED.unpack_from(self.came, HEADER_SIZE)
        return True

    def renumbered(self, number: int) -> bytes:
        """Return what came, with the client's number of the statement."""
        return with_number(self.came, number)


class PrepareReader:
    """Reads one response to a COM_STMT_PREPARE of the proxy's own, payload by payload.

    Attributes:
        error: the end of a failure; None until then.
        number: the server's number of the statement.
        columns: of its result set, 0 if it has none.
        parameters: their number.

    Args:
        capabilities: agreed with the server.
    """

    __slots__ = ("_due", "_eofs", "_lists", "columns", "error", "number", "parameters")

    def __init__(self, capabilities: int) -> None:
        self.error: Err | None = None
        self.number = self.columns = self.parameters = 0
        self._eofs = not capabilities & CLIENT_DEPRECATE_EOF
        self._due = 1
        # Lengths of the lists of definitions that follow; None before the head.
        self._lists: list[int] | None = None

    def receive(self, payload: bytes) -> bool:
        """Take the next payload; say whether the response has ended with it.

        Raises:
            MalformedPacket: the payload is not what is due.
        """
        if self._lists == []:
            raise MalformedPacket("a packet came after the end of the response")
        if payload[:1] == b"\xff":
            self.error = parse_err(payload)
            self._lists = []
        elif self._lists is None:
            self._lists = self._head(payload)
        else:
            # An EOF is the last packet of a list, where there are EOFs.
            if is_eof(payload) != (self._eofs and self._lists[0] == 1):
                raise MalformedPacket("an EOF came too early or not at all")
            self._lists[0] -= 1
            if not self._lists[0]:
                del self._lists[0]
        return not self._lists

    def _head(self, payload: bytes) -> list[int]:
        if len(payload) < _PREPARED.size or payload[0] != OK_HEADER:
            raise MalformedPacket("neither COM_STMT_PREPARE_OK nor ERR")
        _, self.number, self.columns, self.parameters = _PREPARED.unpack_from(payload)
        return [definitions + self._eofs for definitions in (self.parameters, self.columns) if definitions]
