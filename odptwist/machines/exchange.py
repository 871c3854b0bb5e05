"""The exchange machine: where a command begins, where its response ends, and what it left.

Source: MySQL internals, "Command Phase" (text and binary protocol), MariaDB knowledge base, "Clustrix protocol" pages
"Result set packets" and "COM_STMT_PREPARE".

One `Tracker` serves one client session. It sees every byte of both directions and copies none that it need not:
the session forwards the chunks as they came. There is one exchange in flight at a time; what a client sends ahead
is kept until the response has ended, because the next command may be one that the proxy answers itself.

The client's side answers with a verdict:

    FORWARD   the chunk belongs to the exchange in flight: pass it on as it is
    WAIT      nothing to do now; what came is kept
    LOOK      `command` holds a command that its owner must look at, and then `take`, `replace` or `skip`

The server's side answers whether the response has ended. This module is the innermost loop of the proxy: the code
is longer than it would be in plain style, because each shortcut was measured (docs/reference/performance).
"""

from __future__ import annotations

from collections.abc import Collection
from struct import Struct
from struct import error as StructError
from typing import Final

from odptwist.errors import MalformedPacket, PacketTooLarge, ResponseOverrun, SequenceError, WireError
from odptwist.wire.constants import (
    CLIENT_DEPRECATE_EOF,
    COM_BINLOG_DUMP,
    COM_BINLOG_DUMP_GTID,
    COM_CHANGE_USER,
    COM_DEBUG,
    COM_FIELD_LIST,
    COM_INIT_DB,
    COM_PING,
    COM_PROCESS_INFO,
    COM_PROCESS_KILL,
    COM_QUERY,
    COM_QUIT,
    COM_REFRESH,
    COM_REGISTER_SLAVE,
    COM_RESET_CONNECTION,
    COM_SET_OPTION,
    COM_SHUTDOWN,
    COM_STATISTICS,
    COM_STMT_BULK_EXECUTE,
    COM_STMT_CLOSE,
    COM_STMT_EXECUTE,
    COM_STMT_FETCH,
    COM_STMT_PREPARE,
    COM_STMT_RESET,
    COM_STMT_SEND_LONG_DATA,
    MAX_PAYLOAD,
    SERVER_MORE_RESULTS_EXISTS,
    SERVER_SESSION_STATE_CHANGED,
    SERVER_STATUS_CURSOR_EXISTS,
)
from odptwist.wire.framing import frame

FORWARD: Final = 0
WAIT: Final = 1
LOOK: Final = 2

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

SHAPES: Final[dict[int, int]] = {
    COM_QUIT: NONE,
    COM_INIT_DB: SIMPLE,
    COM_QUERY: RESULT,
    COM_FIELD_LIST: DEFINITIONS,
    COM_REFRESH: SIMPLE,
    COM_SHUTDOWN: SIMPLE,
    COM_STATISTICS: STRING,
    COM_PROCESS_INFO: RESULT,
    COM_PROCESS_KILL: SIMPLE,
    COM_DEBUG: SIMPLE,
    COM_PING: SIMPLE,
    COM_CHANGE_USER: LOGIN,
    COM_BINLOG_DUMP: ENDLESS,
    COM_REGISTER_SLAVE: SIMPLE,
    COM_STMT_PREPARE: PREPARE,
    COM_STMT_EXECUTE: RESULT,
    COM_STMT_SEND_LONG_DATA: NONE,
    COM_STMT_CLOSE: NONE,
    COM_STMT_RESET: SIMPLE,
    COM_SET_OPTION: SIMPLE,
    COM_STMT_FETCH: FETCH,
    COM_BINLOG_DUMP_GTID: ENDLESS,
    COM_RESET_CONNECTION: SIMPLE,
    COM_STMT_BULK_EXECUTE: RESULT,
}
_SHAPE_OF: Final = tuple(SHAPES.get(command, UNKNOWN) for command in range(256))

# Binlog events are passed over like rows: they may be large, and only their end is of interest.
_ROWS_AT_ONCE: Final = (FETCH, DEFINITIONS, ENDLESS)

# Commands that never need a look: they name no database, no account and no text.
_PLAIN_COMMANDS: Final = frozenset((COM_PING, COM_STATISTICS, COM_STMT_EXECUTE, COM_STMT_FETCH, COM_STMT_RESET))

# Where a response stands. In the first three states the server has to be silent.
_IDLE: Final = 0
_OURS: Final = 1  # the proxy itself will answer
_INFILE: Final = 2  # the client sends a file: packets until an empty one
_HEADER: Final = 3  # the first packet of a response, or of one of several results
_ASKED: Final = 4  # as _HEADER, but the client may send something first: the server has asked it during a login
_COLUMNS: Final = 5  # `count` definitions to come, then EOF (unless deprecated), then rows
_COLUMNS_EOF: Final = 6
_ROWS: Final = 7
_PASS: Final = 8  # `count` definitions to come, with an EOF behind each list of them, then the end
_LAST: Final = 9  # only the rest of the last packet is to come

# A command of at most this size is kept until it is whole, so that its owner sees all of it. From longer ones the
# owner sees the beginning, and the rest streams through.
LOOK_LIMIT: Final = 64 * 1024
# OK, ERR and EOF packets are kept until they are whole. No server sends one that comes near this.
_TERMINAL_LIMIT: Final = 1024 * 1024

_HEAD: Final = Struct("<IB")
_ROW: Final = Struct("<HBxB")  # the length's low 16 bits, its high 8, and the first byte
_U16: Final = Struct("<H")
_HH: Final = Struct("<HH")

# Statements that begin so and hold none of the marks below can neither be the proxy's own nor change session state.
_PLAIN_BEGINNINGS: Final = ("select", "insert", "update", "delete", "replace", "with", "values", "table")
_PLAIN_TEXTS: Final = frozenset(
    word.encode() for text in ("begin", "commit", "rollback", "start transaction") for word in (text, text.upper())
)


def plain_prefixes(first_words: Collection[str]) -> frozenset[bytes]:
    """Return the three-byte beginnings of SQL texts that need no look, given the words that proxy statements claim."""
    claimed = {word.lower()[:3] for word in first_words}
    beginnings = {word[:3] for word in _PLAIN_BEGINNINGS} - claimed
    return frozenset(b.encode() for word in beginnings for b in (word, word.upper(), word.capitalize()))


class Tracker:
    """Follows the exchanges of one client session.

    Attributes:
        number: how many exchanges with a response have begun.
        command: the payload that LOOK is about, at most `LOOK_LIMIT` bytes of it.
        whole: whether `command` is the whole payload.
        kept: bytes of the client that wait for the response in flight to end, or for more bytes.
        status: the status flags of the last OK or EOF packet.
        error: the code of the ERR packet that ended the last response, or 0.
        insert_id: the last insert id of the last response, or 0.
        changes: OK payloads of the last response that carry session tracking.
        answered: whether a byte of the response in flight has come.
    """

    __slots__ = (
        "_count",
        "_deprecate_eof",
        "_discard",
        "_fragment",
        "_head",
        "_held",
        "_phase",
        "_plain",
        "_shape",
        "_skip",
        "_tail",
        "_tail_more",
        "answered",
        "changes",
        "command",
        "error",
        "insert_id",
        "kept",
        "number",
        "status",
        "whole",
    )

    def __init__(self, capabilities: int, plain: frozenset[bytes]) -> None:
        """Begin idle.

        Args:
            capabilities: what client and server both agreed on.
            plain: from `plain_prefixes`.
        """
        self._deprecate_eof = bool(capabilities & CLIENT_DEPRECATE_EOF)
        self._plain = plain
        self._phase = _IDLE
        self._shape = NONE
        self._count = 0
        self._skip = 0
        self._held = b""
        self._fragment = False
        self._tail = 0
        self._tail_more = False
        self._discard = False
        self._head = b""
        self.kept = b""
        self.command = b""
        self.whole = True
        self.number = 0
        self.status = 0
        self.error = 0
        self.insert_id = 0
        self.changes: tuple[bytes, ...] = ()
        self.answered = False

    @property
    def busy(self) -> bool:
        """Whether a response is due, or the rest of a command that is on its way."""
        return self._phase != _IDLE or self._tail > 0

    @property
    def awaiting(self) -> bool:
        """Whether a response of the server is due."""
        return self._phase > _OURS

    @property
    def sending(self) -> bool:
        """Whether the command in flight has not come as a whole."""
        return self._tail > 0 or self._tail_more

    # -- the client's side ---------------------------------------------------------------------------------------

    def client(self, data: bytes) -> int:
        """Take a chunk of the client (empty: go on with what was kept) and say what to do with it.

        Raises:
            WireError: the chunk breaks the protocol.
        """
        if self._phase == _IDLE and not self.kept and not self._tail:
            try:
                head, command = _HEAD.unpack_from(data)
            except StructError:
                self.kept = data
                return self._next()
            # Whole, alone and with sequence number 0: the case that counts.
            if len(data) - 4 == head < MAX_PAYLOAD:
                if command == COM_QUERY:
                    if (data[5:8] in self._plain and _is_plain(data)) or data[5:] in _PLAIN_TEXTS:
                        self._begin(RESULT)
                        return FORWARD
                elif command in _PLAIN_COMMANDS:
                    self._begin(_SHAPE_OF[command])
                    return FORWARD
            self.kept = data
            return self._next()
        if self._tail:
            return self._stream(data)
        phase = self._phase
        if phase in (_INFILE, _ASKED) or (phase == _ROWS and self._shape == ENDLESS):
            # These bytes are part of the exchange, so they must not come behind a command that was sent ahead.
            if self.kept:
                raise SequenceError("a command before the end of an exchange in which the client has to answer")
            return self._file(data) if phase == _INFILE else FORWARD
        self.kept += data
        return WAIT if phase != _IDLE else self._next()

    def _next(self) -> int:
        """Look for a command at the beginning of `kept`."""
        kept = self.kept
        if len(kept) < 4:
            return WAIT
        length = int.from_bytes(kept[:3], "little")
        if kept[3]:
            raise SequenceError("a command must have sequence number 0")
        if not length:
            raise MalformedPacket("a command without a command byte")
        if len(kept) - 4 < length and len(kept) - 4 < LOOK_LIMIT:
            return WAIT
        self.whole = length <= LOOK_LIMIT
        self.command = kept[4 : 4 + min(length, LOOK_LIMIT)]
        return LOOK

    def take(self) -> bytes:
        """Begin the exchange of `command` and return the bytes to send to the server: all of it that has come."""
        sent = self._cut()
        self._begin(_SHAPE_OF[self.command[0]])
        return sent

    def replace(self, payload: bytes) -> bytes:
        """Begin the exchange of `command` with another payload (of the same command), and return it framed.

        Only for commands that are `whole`.
        """
        self._cut()
        self._begin(_SHAPE_OF[payload[0]])
        return frame(payload, 0)

    def skip(self) -> None:
        """Take `command` away from the server: the proxy answers it, or nobody if it has no answer.

        The rest of a long one is thrown away as it comes. Until `done`, what the client sends ahead is kept.
        """
        self._cut()
        self._discard = self._tail > 0
        self._phase = _OURS

    def again(self) -> None:
        """Begin the exchange that has just ended once more: its whole response was kept from the client."""
        self._begin(self._shape)

    def hold(self) -> None:
        """Keep what the client sends until `done`. Only between two exchanges."""
        self._phase = _OURS

    def done(self) -> None:
        """Be told that the proxy has answered the command that was skipped, or that nothing holds the client back."""
        self._phase = _IDLE

    def _cut(self) -> bytes:
        """Take the packet that `command` belongs to off `kept`, as far as it has come."""
        kept = self.kept
        length = int.from_bytes(kept[:3], "little")
        end = 4 + length
        sent = kept[:end]
        self.kept = kept[end:]
        # A full fragment has a successor: its header belongs to what is still to come.
        self._tail_more = length == MAX_PAYLOAD
        self._tail = max(0, end - len(kept)) + 4 * self._tail_more
        self._discard = False
        if self._tail_more and self.kept:
            rest, self.kept = self.kept, b""
            self._stream(rest)
            sent += rest[: len(rest) - len(self.kept)]
        return sent

    def _stream(self, data: bytes) -> int:
        """Pass on the rest of a long command; what follows it is kept."""
        position = 0
        size = len(data)
        while self._tail and position < size:
            body = self._tail - 4 * self._tail_more
            step = min(body if body > 0 else self._tail, size - position)
            if body <= 0:
                self._head += data[position : position + step]
            position += step
            self._tail -= step
            if self._tail_more and not self._tail:
                length = int.from_bytes(self._head[:3], "little")
                self._head = b""
                self._tail_more = length == MAX_PAYLOAD
                self._tail = length + 4 * self._tail_more
        if position < size:
            # A client that sends ahead: rare after a command of this size, so a copy does not matter.
            self.kept = data[position:]
        if self._discard:
            return WAIT if self._phase != _IDLE or self._tail or not self.kept else self._next()
        return FORWARD

    def _file(self, data: bytes) -> int:
        """Follow the packets of LOAD DATA LOCAL: the empty one turns the stream round again; what follows is kept."""
        position = 0
        size = len(data)
        while position < size:
            if self._skip:
                step = min(self._skip, size - position)
                position += step
                self._skip -= step
                continue
            header = self._head + data[position : position + 4 - len(self._head)]
            position += len(header) - len(self._head)
            if len(header) < 4:
                self._head = header
                break
            self._head = b""
            self._skip = int.from_bytes(header[:3], "little")
            if not self._skip and not self._fragment:
                self._phase = _HEADER
                self.kept = data[position:]
                break
            self._fragment = self._skip == MAX_PAYLOAD
        return FORWARD

    def _begin(self, shape: int) -> None:
        if shape == NONE:
            return
        self._shape = shape
        self._phase = _ROWS if shape in _ROWS_AT_ONCE else _HEADER
        self.number += 1
        self.error = 0
        self.insert_id = 0
        self.changes = ()
        self.answered = False

    # -- the server's side ---------------------------------------------------------------------------------------

    def server(self, data: bytes) -> bool:
        """Follow a chunk of the server; return whether the response ended with it.

        Raises:
            ResponseOverrun: the response has ended, and bytes that nobody asked for follow.
            WireError: the chunk breaks the protocol.
        """
        phase = self._phase
        if phase <= _INFILE:
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
        if phase == _LAST:
            phase = self._phase = _IDLE
        fragment = self._fragment
        length = 0
        try:
            while position < size and phase:
                if phase == _ROWS and not fragment:
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
                if phase == _ROWS:
                    # Rows begin below 0xfe; a packet of 16 MiB goes on in the next one, whose first byte means nothing.
                    if first < 0xFE or fragment or (first == 0xFE and length == MAX_PAYLOAD):
                        position += length + 4
                        fragment = length == MAX_PAYLOAD
                        continue
                    if first == 0xFE and length > 8 and not self._deprecate_eof:
                        position += length + 4  # a row whose first column has 16 MiB or more
                        continue
                elif phase == _COLUMNS and first != 0xFF:
                    position += length + 4
                    self._count -= 1
                    if not self._count:
                        phase = _ROWS if self._deprecate_eof else _COLUMNS_EOF
                    continue
                elif phase == _PASS and first != 0xFF:
                    position += length + 4
                    self._count -= 1
                    if not self._count:
                        phase = _LAST if position > size else _IDLE
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
                if phase == _INFILE:
                    break
        except StructError:
            rest = size - position
            if rest == 4 and data[position : position + 3] == b"\0\0\0":
                # An empty payload: the end of a row of exactly n * 16 MiB, or of a text without characters.
                position = size
                if fragment:
                    fragment = False
                elif self._shape == STRING:
                    phase = _IDLE
                else:
                    raise MalformedPacket("an empty packet in a response") from None
            else:
                self._held = data[position:]
                position = size
        if position < size:
            if phase != _IDLE:
                raise WireError("the server went on before the client's file had come")
            self._phase = _IDLE
            self._fragment = False
            self._skip = 0
            raise ResponseOverrun(size - position)
        self._phase = phase
        self._fragment = fragment
        self._skip = position - size
        self.answered = True
        return phase == _IDLE

    def _packet(self, phase: int, data: bytes, start: int, length: int, first: int) -> int:
        """Read a packet that may turn the response; return the next phase."""
        if first == 0xFF:
            if length < 3:
                raise MalformedPacket("an ERR packet without a code")
            (self.error,) = _U16.unpack_from(data, start + 1)
            return _IDLE
        shape = self._shape
        if phase == _ROWS:  # 0xfe: the end of rows
            if self._deprecate_eof and length > 5:
                self._ok(data, start, length)
            else:
                self._eof(data, start, length)
            return _HEADER if self.status & SERVER_MORE_RESULTS_EXISTS and shape == RESULT else _IDLE
        if phase == _COLUMNS_EOF:
            if first != 0xFE or length > 5:
                raise MalformedPacket("no EOF packet after column definitions")
            self._eof(data, start, length)
            if self.status & SERVER_STATUS_CURSOR_EXISTS:  # the rows come by COM_STMT_FETCH
                return _HEADER if self.status & SERVER_MORE_RESULTS_EXISTS else _IDLE
            return _ROWS
        # The first packet of a response.
        if shape == RESULT:
            if first == 0x00:
                self._ok(data, start, length)
                return _HEADER if self.status & SERVER_MORE_RESULTS_EXISTS else _IDLE
            if first == 0xFB:
                return _INFILE
            count = first if first < 0xFB else self._wide_count(data, start, length, first)
            self._count = count
            return _COLUMNS
        if shape == SIMPLE:
            if first == 0xFE:
                self._eof(data, start, length)
            elif first == 0x00:
                self._ok(data, start, length)
            else:
                raise MalformedPacket("neither OK, ERR nor EOF")
            return _IDLE
        if shape == PREPARE:
            return self._prepared(data, start, length, first)
        if shape == LOGIN:
            if first == 0x00:
                self._ok(data, start, length)
                return _IDLE
            if first != 0xFE and first != 0x01:
                raise MalformedPacket("neither OK, ERR nor a question, amid a login")
            return _ASKED
        return _IDLE  # STRING

    def _prepared(self, data: bytes, start: int, length: int, first: int) -> int:
        if first != 0x00 or length < 9:
            raise MalformedPacket("neither COM_STMT_PREPARE_OK nor ERR")
        columns, parameters = _HH.unpack_from(data, start + 5)
        ends = 0 if self._deprecate_eof else bool(columns) + bool(parameters)
        self._count = columns + parameters + ends
        return _PASS if self._count else _IDLE

    def _wide_count(self, data: bytes, start: int, length: int, first: int) -> int:
        if first == 0xFC and length == 3:
            (count,) = _U16.unpack_from(data, start + 1)
            if count:
                return int(count)
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

    def forget(self) -> None:
        """Give up the exchange in flight: its server session has gone. What the client sent ahead stays kept.

        Only for one that is not `answered` yet. What is still to come of a long command is thrown away as it comes.
        """
        self._phase = _IDLE
        self._held = b""
        self._skip = 0
        self._fragment = False
        self._discard = self._tail > 0


def _is_plain(data: bytes) -> bool:
    """Whether a text that begins like a plain statement also goes on like one.

    Not plain are user variables, executable comments, second statements and functions that leave something behind.
    """
    if b"@" in data or b"/*" in data or b";" in data:
        return False
    if b"(" in data:
        text = data.lower()
        return b"_lock" not in text and b"last_insert_id" not in text
    return True


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
