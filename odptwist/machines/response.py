"""The response machine: where a response ends, and what it leaves.

Source: MySQL internals, "Command Phase" (text and binary protocol), MariaDB knowledge base, "Result set packets" and
"COM_STMT_PREPARE".

It sees every byte that a server sends and copies none that it need not. This is the innermost loop of the proxy: the
code is longer than it would be in plain style, because each shortcut was measured (docs/reference/performance).
`_response.h` is the same machine once more, in C, for where a C compiler was there at the installation.
"""

from __future__ import annotations

from struct import Struct
from struct import error as StructError
from typing import Final

from odptwist.errors import FileRefused, MalformedPacket, PacketTooLarge, ResponseOverrun, WireError
from odptwist.wire.constants import (
    MAX_PAYLOAD,
    SERVER_MORE_RESULTS_EXISTS,
    SERVER_SESSION_STATE_CHANGED,
    SERVER_STATUS_CURSOR_EXISTS,
)

# Response shapes.
UNKNOWN: Final = 0  # not a command that we can follow: the owner answers 1047
NONE: Final = 1  # no response at all
SIMPLE: Final = 2  # OK, ERR or EOF
RESULT: Final = 3  # OK, ERR, LOCAL INFILE or a result set; perhaps several
PREPARE: Final = 4  # COM_STMT_PREPARE_OK, then two lists of definitions
DEFINITIONS: Final = 5  # column definitions without a count, then EOF
STRING: Final = 6  # one packet of text
FETCH: Final = 7  # rows of a cursor, then EOF
LOGIN: Final = 8  # the server may ask the client again and again, then OK or ERR
ENDLESS: Final = 9  # events until an EOF or ERR, the client may answer in between

# Binlog events are passed over like rows: they may be large, and only their end is of interest.
_ROWS_AT_ONCE: Final = (FETCH, DEFINITIONS, ENDLESS)

# Where a response stands. In the first three states the server has to be silent.
IDLE: Final = 0
OURS: Final = 1  # the proxy itself will answer
INFILE: Final = 2  # the client sends a file: packets until an empty one
HEADER: Final = 3  # the first packet of a response, or of one of several results
ASKED: Final = 4  # as HEADER, but the client may send something first: the server has asked it during a login
COLUMNS: Final = 5  # `count` definitions to come, then EOF (unless deprecated), then rows
COLUMNS_EOF: Final = 6
ROWS: Final = 7
PASS: Final = 8  # `count` definitions to come, with an EOF behind each list of them, then the end
LAST: Final = 9  # only the rest of the last packet is to come
FURTHER: Final = 10  # as HEADER, for a result after the first one

# How a count of columns that does not fit into a byte begins, and the length of its packet. The servers' limit of 4,096
# is for tables: a SELECT may have 65,536 and more, so long as it needs no temporary table.
_WIDE_COUNTS: Final = ((0xFC, 3), (0xFD, 4))

# OK, ERR and EOF packets are kept until they are whole. No server sends one that comes near this.
_TERMINAL_LIMIT: Final = 1024 * 1024

_HEAD: Final = Struct("<IB")
_ROW: Final = Struct("<HBxB")  # the length's low 16 bits, its high 8, and the first byte
_U16: Final = Struct("<H")
_HH: Final = Struct("<HH")


class Responses:
    """Follows the responses of one client session's exchanges, one at a time.

    Attributes:
        number: how many exchanges with a response have begun.
        status: the status flags of the last OK or EOF packet.
        error: the code of the ERR packet that ended the last response, or 0.
        insert_id: the last insert id of the last response, or 0.
        changes: OK payloads of the last response that carry session tracking.
        answered: whether a byte of the response in flight has come.
        oks: how many responses were an OK; of several results, the first one counts.
        result_sets: how many were a result set.
    """

    __slots__ = (
        "_count",
        "_deprecate_eof",
        "_fragment",
        "_held",
        "_local_files",
        "_phase",
        "_shape",
        "_skip",
        "answered",
        "changes",
        "error",
        "insert_id",
        "number",
        "oks",
        "result_sets",
        "status",
    )

    def __init__(self, deprecate_eof: bool, local_files: bool = True) -> None:
        """Begin idle.

        Args:
            deprecate_eof: whether client and server both agreed on CLIENT_DEPRECATE_EOF.
            local_files: the same of CLIENT_LOCAL_FILES. Else a server that asks for a file breaks the protocol.
        """
        self._deprecate_eof = deprecate_eof
        self._local_files = local_files
        self._phase = IDLE
        self._shape = NONE
        self._count = 0
        self._skip = 0
        self._held = b""
        self._fragment = False
        self.number = 0
        self.oks = 0
        self.result_sets = 0
        self.status = 0
        self.error = 0
        self.insert_id = 0
        self.changes: tuple[bytes, ...] = ()
        self.answered = False

    def begin(self, shape: int) -> None:
        """Begin an exchange; one without a response is over at once."""
        if shape == NONE:
            return
        self._shape = shape
        self._phase = ROWS if shape in _ROWS_AT_ONCE else HEADER
        self.number += 1
        self.error = 0
        self.insert_id = 0
        self.changes = ()
        self.answered = False

    def give_up(self) -> None:
        """Expect nothing more of the response in flight."""
        self._phase = IDLE
        self._held = b""
        self._skip = 0
        self._fragment = False

    def server(self, data: bytes) -> bool:
        """Follow a chunk of the server; return whether the response ended with it.

        Raises:
            ResponseOverrun: the response has ended, and bytes that nobody asked for follow.
            WireError: the chunk breaks the protocol.
        """
        phase = self._phase
        if phase <= INFILE:
            raise WireError("the server sent something unasked")
        if self._held:
            data = self._held + data
            self._held = b""
        size = len(data)
        position = self._skip
        if position > size:
            self._skip = position - size
            self.answered = True
            return False
        if phase == LAST:
            phase = self._phase = IDLE
        fragment = self._fragment
        length = 0
        try:
            while position < size and phase:
                if phase == ROWS and not fragment:
                    # Rows of less than 64 KiB, nearly all there are: no mask, no test of the phase.
                    while position < size:
                        low, high, first = _ROW.unpack_from(data, position)
                        if first >= 0xFE or high:
                            break
                        position += low + 4
                    else:
                        break
                head, first = _HEAD.unpack_from(data, position)
                length = head & MAX_PAYLOAD
                if phase == ROWS:
                    # Rows begin below 0xfe; a packet of 16 MiB goes on in the next one, whose first byte means nothing.
                    if first < 0xFE or fragment or (first == 0xFE and length == MAX_PAYLOAD):
                        position += length + 4
                        fragment = length == MAX_PAYLOAD
                        continue
                    if first == 0xFE and length > 8 and not self._deprecate_eof:
                        position += length + 4  # a row whose first column has 16 MiB or more
                        continue
                elif phase == COLUMNS and first != 0xFF:
                    position += length + 4
                    self._count -= 1
                    if not self._count:
                        phase = ROWS if self._deprecate_eof else COLUMNS_EOF
                    continue
                elif phase == PASS and first != 0xFF:
                    position += length + 4
                    self._count -= 1
                    if not self._count:
                        phase = LAST if position > size else IDLE
                    continue
                # Everything else is a packet to read, so it must be whole.
                if size - position < length + 4:
                    if length > _TERMINAL_LIMIT:
                        raise PacketTooLarge("a response packet that ends nothing")
                    raise StructError
                if length == 0 and self._shape != STRING:
                    raise MalformedPacket("an empty packet in a response")
                phase = self._packet(phase, data, position + 4, length, first)
                position += length + 4
                if phase == INFILE:
                    break
        except StructError:
            rest = size - position
            if rest == 4 and data[position : position + 3] == b"\0\0\0":
                # An empty payload: the end of a row of exactly n * 16 MiB, or of a text without characters.
                position = size
                if fragment:
                    fragment = False
                elif self._shape == STRING:
                    phase = IDLE
                else:
                    raise MalformedPacket("an empty packet in a response") from None
            else:
                self._held = data[position:]
                position = size
        if position < size:
            if phase != IDLE:
                raise WireError("the server went on before the client's file had come")
            self._phase = IDLE
            self._fragment = False
            self._skip = 0
            raise ResponseOverrun(size - position)
        self._phase = phase
        self._fragment = fragment
        self._skip = position - size
        self.answered = True
        return phase == IDLE

    def _packet(self, phase: int, data: bytes, start: int, length: int, first: int) -> int:
        """Read a packet that may turn the response; return the next phase."""
        if first == 0xFF:
            if length < 3:
                raise MalformedPacket("an ERR packet without a code")
            (self.error,) = _U16.unpack_from(data, start + 1)
            return IDLE
        shape = self._shape
        if phase == ROWS:  # 0xfe: the end of rows
            if self._deprecate_eof and length > 5:
                self._ok(data, start, length)
            else:
                self._eof(data, start, length)
            return FURTHER if self.status & SERVER_MORE_RESULTS_EXISTS and shape == RESULT else IDLE
        if phase == COLUMNS_EOF:
            if first != 0xFE or length > 5:
                raise MalformedPacket("no EOF packet after column definitions")
            self._eof(data, start, length)
            if self.status & SERVER_STATUS_CURSOR_EXISTS:  # the rows come by COM_STMT_FETCH
                return FURTHER if self.status & SERVER_MORE_RESULTS_EXISTS else IDLE
            return ROWS
        # The first packet of a response.
        if shape == RESULT:
            if first == 0x00:
                self._ok(data, start, length)
                self.oks += phase == HEADER
                return FURTHER if self.status & SERVER_MORE_RESULTS_EXISTS else IDLE
            if first == 0xFB:
                if not self._local_files:
                    raise FileRefused("it asks for a file of the client's, who has not agreed to send any")
                return INFILE
            count = first if first < 0xFB else self._wide_count(data, start, length, first)
            self._count = count
            if phase == HEADER:
                self.result_sets += 1
            return COLUMNS
        if shape == SIMPLE:
            if first == 0xFE:
                self._eof(data, start, length)
            elif first == 0x00:
                self._ok(data, start, length)
                self.oks += 1
            else:
                raise MalformedPacket("neither OK, ERR nor EOF")
            return IDLE
        if shape == PREPARE:
            return self._prepared(data, start, length, first)
        if shape == LOGIN:
            if first == 0x00:
                self._ok(data, start, length)
                self.oks += 1
                return IDLE
            if first != 0xFE and first != 0x01:
                raise MalformedPacket("neither OK, ERR nor a question, amid a login")
            return ASKED
        return IDLE  # STRING

    def _prepared(self, data: bytes, start: int, length: int, first: int) -> int:
        if first != 0x00 or length < 9:
            raise MalformedPacket("neither COM_STMT_PREPARE_OK nor ERR")
        columns, parameters = _HH.unpack_from(data, start + 5)
        ends = 0 if self._deprecate_eof else bool(columns) + bool(parameters)
        self._count = columns + parameters + ends
        return PASS if self._count else IDLE

    def _wide_count(self, data: bytes, start: int, length: int, first: int) -> int:
        if (first, length) in _WIDE_COUNTS:
            count = int.from_bytes(data[start + 1 : start + length], "little")
            if count:
                return count
        raise MalformedPacket("a response that begins like nothing known")

    def _eof(self, data: bytes, start: int, length: int) -> None:
        if length < 5:
            raise MalformedPacket("an EOF packet without a status")
        (self.status,) = _U16.unpack_from(data, start + 3)

    def _ok(self, data: bytes, start: int, length: int) -> None:
        """Read the counts and the status of an OK packet."""
        end = start + length
        _affected, position = _lenenc(data, start + 1, end)
        insert_id, position = _lenenc(data, position, end)
        if position + 2 > end:
            raise MalformedPacket("an OK packet without a status")
        (self.status,) = _U16.unpack_from(data, position)
        if insert_id:
            self.insert_id = insert_id
        if self.status & SERVER_SESSION_STATE_CHANGED:
            self.changes += (data[start:end],)


def _lenenc(data: bytes, position: int, end: int) -> tuple[int, int]:
    """Return a length-encoded integer and the position after it."""
    if position < end:
        first = data[position]
        if first < 0xFB:
            return first, position + 1
        size = {0xFC: 2, 0xFD: 3, 0xFE: 8}.get(first, 0)
        if size and position + 1 + size <= end:
            return int.from_bytes(data[position + 1 : position + 1 + size], "little"), position + 1 + size
    raise MalformedPacket("a length-encoded number that is cut or impossible")
