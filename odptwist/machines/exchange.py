"""The exchange machine: where a command begins, and when its response has ended.

Source: MySQL internals, "Command Phase".

One `Tracker` serves one client session. It sees every byte of both directions and copies none that it need not:
the session forwards the chunks as they came. There is one exchange in flight at a time; what a client sends ahead
is kept until the response has ended, because the next command may be one that the proxy answers itself.

The client's side answers with a verdict:

    FORWARD   the chunk belongs to the exchange in flight: pass it on as it is
    WAIT      nothing to do now; what came is kept
    LOOK      `command` holds a command that its owner must look at, and then `take`, `replace` or `skip`

The server's side is in `odptwist.machines.response`.
"""

from __future__ import annotations

from collections.abc import Collection
from struct import Struct
from struct import error as StructError
from typing import Final

from odptwist.errors import MalformedPacket, SequenceError
from odptwist.machines.gear import Responses
from odptwist.machines.response import (
    ASKED,
    DEFINITIONS,
    ENDLESS,
    FETCH,
    HEADER,
    IDLE,
    INFILE,
    LOGIN,
    NONE,
    OURS,
    PREPARE,
    RESULT,
    ROWS,
    SIMPLE,
    STRING,
    UNKNOWN,
)
from odptwist.wire.constants import (
    CLIENT_DEPRECATE_EOF,
    CLIENT_LOCAL_FILES,
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
)
from odptwist.wire.framing import frame

FORWARD: Final = 0
WAIT: Final = 1
LOOK: Final = 2

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

# Commands that never need a look: they name no database, no account and no text.
_PLAIN_COMMANDS: Final = frozenset((COM_PING, COM_STATISTICS, COM_STMT_EXECUTE, COM_STMT_FETCH, COM_STMT_RESET))

# A command of at most this size is kept until it is whole, so that its owner sees all of it. From longer ones the
# owner sees the beginning, and the rest streams through.
LOOK_LIMIT: Final = 64 * 1024
_HEAD: Final = Struct("<IB")

# Statements that begin so and hold none of the marks below can neither be the proxy's own nor change session state.
_PLAIN_BEGINNINGS: Final = ("select", "insert", "update", "delete", "replace", "with", "values", "table")
_PLAIN_TEXTS: Final = frozenset(
    word.encode() for text in ("begin", "commit", "rollback", "start transaction") for word in (text, text.upper())
)

_AT: Final = ord("@")
_SEMICOLON: Final = ord(";")
_BRACKET: Final = ord("(")
_X: Final = ord("x")
_CAPITAL_X: Final = ord("X")
# A query over `proxysession` has this word in its first 8 KiB; large texts are not searched for it.
_MARK_LIMIT: Final = 8 * 1024


def plain_prefixes(first_words: Collection[str]) -> frozenset[bytes]:
    """Return the three-byte beginnings of SQL texts that need no look, given the words that proxy statements claim."""
    claimed = {word.lower()[:3] for word in first_words}
    beginnings = {word[:3] for word in _PLAIN_BEGINNINGS} - claimed
    return frozenset(b.encode() for word in beginnings for b in (word, word.upper(), word.capitalize()))


class Tracker(Responses):
    """Follows the exchanges of one client session; see `Responses` for what is known of the last one.

    Attributes:
        command: the payload that LOOK is about, at most `LOOK_LIMIT` bytes of it.
        whole: whether `command` is the whole payload.
        kept: bytes of the client that wait for the response in flight to end, or for more bytes.
    """

    __slots__ = (
        "_discard",
        "_head",
        "_plain",
        "_tail",
        "_tail_more",
        "command",
        "kept",
        "whole",
    )

    def __init__(self, capabilities: int, plain: frozenset[bytes]) -> None:
        """Begin idle.

        Args:
            capabilities: what client and server both agreed on.
            plain: from `plain_prefixes`.
        """
        super().__init__(bool(capabilities & CLIENT_DEPRECATE_EOF), bool(capabilities & CLIENT_LOCAL_FILES))
        self._plain = plain
        self._tail = 0
        self._tail_more = False
        self._discard = False
        self._head = b""
        self.kept = b""
        self.command = b""
        self.whole = True

    @property
    def busy(self) -> bool:
        """Whether a response is due, or the rest of a command that is on its way."""
        return self._phase != IDLE or self._tail > 0

    @property
    def awaiting(self) -> bool:
        """Whether a response of the server is due."""
        return self._phase > OURS

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
        if self._phase == IDLE and not self.kept and not self._tail:
            try:
                head, command = _HEAD.unpack_from(data)
            except StructError:
                self.kept = data
                return self._next()
            # Whole, alone and with sequence number 0: the case that counts.
            if len(data) - 4 == head < MAX_PAYLOAD:
                if command == COM_QUERY:
                    if (data[5:8] in self._plain and _is_plain(data)) or data[5:] in _PLAIN_TEXTS:
                        self.begin(RESULT)
                        return FORWARD
                elif command in _PLAIN_COMMANDS:
                    self.begin(_SHAPE_OF[command])
                    return FORWARD
            self.kept = data
            return self._next()
        if self._tail:
            return self._stream(data)
        phase = self._phase
        if phase in (INFILE, ASKED) or (phase == ROWS and self._shape == ENDLESS):
            # These bytes are part of the exchange, so they must not come behind a command that was sent ahead.
            if self.kept:
                raise SequenceError("a command before the end of an exchange in which the client has to answer")
            return self._file(data) if phase == INFILE else FORWARD
        self.kept += data
        return WAIT if phase != IDLE else self._next()

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
        self.begin(_SHAPE_OF[self.command[0]])
        return sent

    def replace(self, payload: bytes) -> bytes:
        """Begin the exchange of `command` with another payload (of the same command), and return it framed.

        Only for commands that are `whole`.
        """
        self._cut()
        self.begin(_SHAPE_OF[payload[0]])
        return frame(payload, 0)

    def skip(self) -> None:
        """Take `command` away from the server: the proxy answers it, or nobody if it has no answer.

        The rest of a long one is thrown away as it comes. Until `done`, what the client sends ahead is kept.
        """
        self._cut()
        self._discard = self._tail > 0
        self._phase = OURS

    def again(self) -> None:
        """Begin the exchange that has just ended once more: its whole response was kept from the client."""
        self.begin(self._shape)

    def hold(self) -> None:
        """Keep what the client sends until `done`. Only between two exchanges."""
        self._phase = OURS

    def done(self) -> None:
        """Be told that the proxy has answered the command that was skipped, or that nothing holds the client back."""
        self._phase = IDLE

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
            return WAIT if self._phase != IDLE or self._tail or not self.kept else self._next()
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
                self._phase = HEADER
                self.kept = data[position:]
                break
            self._fragment = self._skip == MAX_PAYLOAD
        return FORWARD

    def forget(self) -> None:
        """Give up the exchange in flight: its server session has gone. What the client sent ahead stays kept.

        Only for one that is not `answered` yet. What is still to come of a long command is thrown away as it comes.
        """
        self.give_up()
        self._discard = self._tail > 0


class WatchfulTracker(Tracker):
    """A tracker whose owner looks at every command: none goes on to a server unseen."""

    __slots__ = ()

    def client(self, data: bytes) -> int:
        """Take a chunk of the client and say what to do with it; raises as `Tracker.client`."""
        if self._tail:
            return self._stream(data)
        self.kept += data
        return WAIT if self._phase != IDLE else self._next()


def _is_plain(data: bytes) -> bool:
    """Whether a text that begins like a plain statement also goes on like one.

    Not plain are user variables, executable comments, second statements, functions that leave something behind, and
    the marks of proxy statements (`IMarkedStatement`): `connection_id`, `proxy_version` and `proxysession`.

    A number `in data` and `find` are two to five times as fast as `b"@" in data`: there CPython tries first whether
    that is a number. An `x` is rare, so most texts need not be searched for `proxysession`.
    """
    # The header of a text of 64 bytes has an `@` of its own, so what seems to be found is looked for once more.
    if (
        (_AT in data and data.find(_AT, 5) >= 0)
        or (_SEMICOLON in data and data.find(_SEMICOLON, 5) >= 0)
        or data.find(b"/*", 5) >= 0
    ):
        return False
    if _BRACKET in data:
        text = data.lower()
        return (
            text.find(b"_lock") < 0
            and text.find(b"last_insert_id") < 0
            and text.find(b"connection_id") < 0
            and text.find(b"proxy_version") < 0
            and text.find(b"proxysession", 0, _MARK_LIMIT) < 0
        )
    return (_X not in data and _CAPITAL_X not in data) or data.lower().find(b"proxysession", 0, _MARK_LIMIT) < 0
