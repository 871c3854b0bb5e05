"""Whole exchanges as payloads, and a second opinion on where a response ends: slow, simple and of its own mind."""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence

from attrs import frozen

from odptwist.answers import Column, ColumnType
from odptwist.errors import MalformedPacket
from odptwist.wire.constants import (
    CLIENT_DEPRECATE_EOF,
    CLIENT_SESSION_TRACK,
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
    COM_REFRESH,
    COM_REGISTER_SLAVE,
    COM_RESET_CONNECTION,
    COM_SET_OPTION,
    COM_SHUTDOWN,
    COM_STATISTICS,
    COM_STMT_BULK_EXECUTE,
    COM_STMT_EXECUTE,
    COM_STMT_FETCH,
    COM_STMT_PREPARE,
    COM_STMT_RESET,
    MAX_PAYLOAD,
    SERVER_PS_OUT_PARAMS,
    SERVER_STATUS_AUTOCOMMIT,
    SERVER_STATUS_CURSOR_EXISTS,
    SERVER_STATUS_IN_TRANS,
    SERVER_STATUS_LAST_ROW_SENT,
    SERVER_STATUS_MORE_RESULTS_EXISTS,
)
from odptwist.wire.framing import Deframer, frames
from odptwist.wire.handshake import AuthMoreData, AuthSwitchRequest
from odptwist.wire.primitives import lenenc_int
from odptwist.wire.responses import EOF_HEADER, Eof, Err, Ok, SchemaChanged
from odptwist.wire.resultset import column_definition

AUTO = SERVER_STATUS_AUTOCOMMIT
MORE = AUTO | SERVER_STATUS_MORE_RESULTS_EXISTS
CURSOR = AUTO | SERVER_STATUS_CURSOR_EXISTS
COLUMN = column_definition(Column("c", ColumnType.VARCHAR)).encode()
ERR = Err(1317, "70100", "Query execution was interrupted").encode()
TRACKED = Ok(status=AUTO, changes=(SchemaChanged("test"),)).encode(CLIENT_SESSION_TRACK)

SIMPLE_COMMANDS = (
    COM_INIT_DB,
    COM_REFRESH,
    COM_SHUTDOWN,
    COM_PROCESS_KILL,
    COM_DEBUG,
    COM_PING,
    COM_REGISTER_SLAVE,
    COM_STMT_RESET,
    COM_SET_OPTION,
    COM_RESET_CONNECTION,
)
RESULT_COMMANDS = (COM_QUERY, COM_PROCESS_INFO, COM_STMT_EXECUTE, COM_STMT_BULK_EXECUTE)
ENDLESS_COMMANDS = (COM_BINLOG_DUMP, COM_BINLOG_DUMP_GTID)


@frozen
class Exchange:
    """A command, and what server and client send in turn after it; the server begins and ends.

    `status`, `error`, `insert_id` and `changes` are what must be known at the end.
    """

    name: str
    command: bytes
    turns: tuple[tuple[bytes, ...], ...]
    capabilities: int = 0
    status: int = AUTO
    error: int = 0
    insert_id: int = 0
    changes: tuple[bytes, ...] = ()

    def streams(self) -> list[bytes]:
        """Return the bytes of each turn."""
        sequence = 1
        found = []
        for turn in self.turns:
            framed = frames(turn, sequence)
            sequence = framed.sequence
            found.append(framed.data)
        return found


def ok(status: int = AUTO, insert_id: int = 0, affected: int = 0, info: bytes = b"") -> bytes:
    """Return an OK."""
    return Ok(affected, insert_id, status, 0, info).encode(0)


def end(capabilities: int, status: int = AUTO) -> bytes:
    """Return the end of rows."""
    if capabilities & CLIENT_DEPRECATE_EOF:
        return Ok(status=status, header=EOF_HEADER).encode(0)
    return Eof(status=status).encode()


def result(
    capabilities: int, rows: Sequence[bytes], status: int = AUTO, columns: Sequence[bytes] = (COLUMN,)
) -> tuple[bytes, ...]:
    """Return a result set whole."""
    return (*head(capabilities, status, columns), *rows, end(capabilities, status))


def head(capabilities: int, status: int = AUTO, columns: Sequence[bytes] = (COLUMN,)) -> tuple[bytes, ...]:
    """Return a result set up to its rows."""
    eofs = () if capabilities & CLIENT_DEPRECATE_EOF else (Eof(status=status).encode(),)
    return (lenenc_int(len(columns)), *columns, *eofs)


def prepared(capabilities: int, columns: int, parameters: int, number: int = 258) -> tuple[bytes, ...]:
    """Return the answer to COM_STMT_PREPARE."""
    eofs = () if capabilities & CLIENT_DEPRECATE_EOF else (Eof(status=AUTO).encode(),)
    first = b"\x00" + number.to_bytes(4, "little") + columns.to_bytes(2, "little") + parameters.to_bytes(2, "little")
    lists = [(COLUMN,) * count + eofs for count in (parameters, columns) if count]
    return (first + bytes(3), *(packet for definitions in lists for packet in definitions))


def exchanges(capabilities: int) -> Iterator[Exchange]:
    """Yield an exchange of every kind."""

    def exchange(name: str, command: bytes, *turns: Sequence[bytes], **left: object) -> Exchange:
        return Exchange(name, command, tuple(map(tuple, turns)), capabilities, **left)  # type: ignore[arg-type]

    query = b"\x03select 1"
    execute = bytes((COM_STMT_EXECUTE, 2, 1, 0, 0, 0, 1, 0, 0, 0))
    rows = (b"\x011", b"\xfb", b"\xfc\x2c\x01xyz", b"\xfd\x01\x00\x01xyz", b"\x00", b"\xfa" + bytes(30))
    binary = (b"\x00\x00\x01\x00\x00\x00", b"\x00\xff", b"\x00\x00\xfe\xff")

    for command in RESULT_COMMANDS:
        text = bytes((command,)) + b"........."
        yield exchange(f"OK to {command}", text, [ok(insert_id=7, affected=1)], insert_id=7)
        yield exchange(f"rows to {command}", text, result(capabilities, rows))
        yield exchange(f"ERR to {command}", text, [ERR], error=1317, status=0)
    yield exchange(
        "wide OK", query, [ok(AUTO | 1, 2**40, 70000)], insert_id=2**40, status=AUTO | SERVER_STATUS_IN_TRANS
    )
    yield exchange("OK of seekdb with its space", query, [ok() + b" Rows matched: 1"])
    yield exchange("OK that tells a change", query, [TRACKED], status=AUTO | 0x4000, changes=(TRACKED,))
    yield exchange("ERR without a sqlstate", query, [b"\xff\x10\x04Too many"], error=1040, status=0)
    yield exchange("no rows", query, result(capabilities, ()))
    yield exchange("the first value is NULL", query, result(capabilities, (b"\xfb\x01a", b"\xfb")))
    yield exchange("251 columns", query, result(capabilities, rows[:1], columns=[b"\x03def"] * 251))
    yield exchange("ERR after the count", query, [b"\x02", ERR], error=1317, status=0)
    yield exchange("ERR amid the definitions", query, [b"\x02", COLUMN, ERR], error=1317, status=0)
    yield exchange("ERR in place of an EOF", query, [b"\x01", COLUMN, ERR], error=1317, status=0)
    before = 0 if capabilities else AUTO
    yield exchange("ERR before the rows", query, [*head(capabilities), ERR], error=1317, status=before)
    yield exchange("ERR amid the rows", query, [*head(capabilities), *rows, ERR], error=1317, status=before)
    if capabilities & CLIENT_DEPRECATE_EOF:
        tracked = b"\xfe" + TRACKED[1:]
        yield exchange(
            "a change told at the end of rows",
            query,
            [*head(capabilities), *rows, tracked],
            status=AUTO | 0x4000,
            changes=(tracked,),
        )
        yield exchange("an old EOF in spite of all", query, [*head(capabilities), Eof(status=AUTO).encode()])
    else:
        yield exchange("a row that begins like an EOF", query, result(capabilities, (b"\xfe" + bytes(8),)))

    yield exchange("two OKs", query, [ok(MORE, 3), ok(AUTO, 4)], insert_id=4)
    yield exchange(
        "OK that tells a change, twice",
        query,
        [_more(TRACKED), TRACKED],
        status=AUTO | 0x4000,
        changes=(_more(TRACKED), TRACKED),
    )
    yield exchange("rows, then OK (CALL)", query, [*result(capabilities, rows, MORE), ok()])
    yield exchange("rows twice, then OK", query, [*result(capabilities, rows, MORE) * 2, ok()])
    yield exchange("rows twice", query, [*result(capabilities, (), MORE), *result(capabilities, rows)])
    yield exchange("OK, then rows", query, [ok(MORE), *result(capabilities, rows)])
    yield exchange("OK, then ERR", query, [ok(MORE), ERR], error=1317, status=MORE)
    yield exchange("rows, then ERR", query, [*result(capabilities, rows, MORE), ERR], error=1317, status=MORE)

    asks = b"\xfb/tmp/file"
    for name, file in (
        ("a file", (b"1\n2\n", b"3\n", b"")),
        ("an empty file", (b"",)),
        ("a file of ends", (b"\x00", b"\xfe\x00\x00\x02\x00", b"\xff", b"")),
    ):
        yield exchange(name, query, [asks], file, [ok(affected=3)])
        yield exchange(f"{name}, refused at the end", query, [asks], file, [ERR], error=1317, status=0)
    yield exchange("OK, a file, rows", query, [ok(MORE), asks], [b"1\n", b""], [ok(MORE), *result(capabilities, rows)])
    yield exchange("two files", query, [asks], [b"1\n", b""], [ok(MORE), asks], [b"", b""][:1], [ok()])

    prepare = bytes((COM_STMT_PREPARE,)) + b"select ?"
    for columns, parameters in ((0, 0), (0, 2), (3, 0), (3, 2)):
        yield exchange(
            f"{columns} columns and {parameters} parameters",
            prepare,
            prepared(capabilities, columns, parameters),
            status=0,
        )
    yield exchange("nothing prepared", prepare, [ERR], error=1317, status=0)
    yield exchange(
        "ERR amid the definitions of a statement",
        prepare,
        [*prepared(capabilities, 1, 2)[:2], ERR],
        error=1317,
        status=0,
    )
    yield exchange("binary rows", execute, result(capabilities, binary))
    yield exchange(
        "binary rows of OUT parameters", execute, [*result(capabilities, binary, MORE | SERVER_PS_OUT_PARAMS), ok()]
    )
    yield exchange("a cursor", execute, [b"\x01", COLUMN, end(capabilities, CURSOR)], status=CURSOR)
    fetch = bytes((COM_STMT_FETCH, 2, 1, 0, 0, 9, 0, 0, 0))
    yield exchange("rows of a cursor", fetch, [*binary, end(capabilities, CURSOR)], status=CURSOR)
    last = CURSOR | SERVER_STATUS_LAST_ROW_SENT
    yield exchange("no more rows of a cursor", fetch, [end(capabilities, last)], status=last)
    yield exchange("no cursor", fetch, [ERR], error=1317, status=0)
    fields = bytes((COM_FIELD_LIST,)) + b"t\x00%"
    yield exchange("fields", fields, [COLUMN + b"\xfb", COLUMN + b"\x00", end(capabilities)])
    yield exchange("no fields", fields, [end(capabilities)])
    yield exchange("no table", fields, [ERR], error=1317, status=0)
    statistics = bytes((COM_STATISTICS,))
    for text in (b"Uptime: 1", b"", b"\x00", b"\xfe\x00\x00\x02\x00", b"\xfb"):
        yield exchange(f"statistics {text!r}", statistics, [text], status=0)
    yield exchange("no statistics", statistics, [ERR], error=1317, status=0)
    for command in SIMPLE_COMMANDS:
        text = bytes((command,)) + b"...."
        yield exchange(f"OK to {command}", text, [ok()])
        yield exchange(f"EOF to {command}", text, [Eof(status=AUTO).encode()])
        yield exchange(f"ERR to {command}", text, [ERR], error=1317, status=0)

    change = bytes((COM_CHANGE_USER,)) + b"root\x00\x00test\x00"
    switch = AuthSwitchRequest("mysql_native_password", b"s" * 20 + b"\x00").encode()
    answer = (b"\x14" * 20,)
    fast, full, key = (AuthMoreData(data).encode() for data in (b"\x03", b"\x04", b"-----BEGIN PUBLIC KEY"))
    for name, last_packet, error in (("OK", ok(), 0), ("ERR", ERR, 1317)):
        left = {"error": error, "status": 0 if error else AUTO}
        yield exchange(f"another user: {name}", change, [last_packet], **left)
        yield exchange(f"another user asked: {name}", change, [switch], answer, [last_packet], **left)
        yield exchange(f"another user, fast: {name}", change, [switch], answer, [fast, last_packet], **left)
        yield exchange(
            f"another user, in full: {name}",
            change,
            [switch],
            answer,
            [full],
            [b"\x02"],
            [key],
            answer,
            [last_packet],
            **left,
        )
        yield exchange(f"another user, empty answer: {name}", change, [switch], [b""], [last_packet], **left)
    for command in ENDLESS_COMMANDS:
        text = bytes((command,)) + bytes(10)
        event = b"\x00" + bytes(30)
        last_packet = Eof(status=AUTO).encode()
        yield exchange(f"events to {command}", text, [event, event, last_packet])
        yield exchange(f"no events to {command}", text, [last_packet])
        yield exchange(f"events and ERR to {command}", text, [event, ERR], error=1317, status=0)
        yield exchange(f"events with answers to {command}", text, [event], [b"\xef" + bytes(12)], [event, last_packet])


def _more(payload: bytes) -> bytes:
    """Return an OK without counts again, with the flag that says that another result follows."""
    return payload[:3] + bytes((payload[3] | SERVER_STATUS_MORE_RESULTS_EXISTS,)) + payload[4:]


@frozen
class End:
    """How a response ended, as `Reference` sees it: `offset` counts the bytes of the server."""

    offset: int
    status: int
    error: int


class Reference:
    """Says packet by packet where the response to a command ends: no shortcut, one rule a line."""

    def __init__(self, command: int, capabilities: int) -> None:
        self.status = 0
        self.error = 0
        self._deprecated = bool(capabilities & CLIENT_DEPRECATE_EOF)
        self._rules = self._response(command)
        next(self._rules)

    def read(self, stream: bytes) -> End | None:
        """Read a server's stream; return where the response ended, None if it does not.

        Raises:
            WireError: the stream breaks the protocol before.
        """
        deframer = Deframer(1 << 30)
        offset = 0
        packet = deframer.receive_one(stream)
        while packet is not None:
            offset = len(stream) - deframer.buffered
            try:
                self._rules.send(packet.payload)
            except StopIteration:
                return End(offset, self.status, self.error)
            packet = deframer.receive_one(b"")
        return None

    def _response(self, command: int) -> Generator[None, bytes, None]:
        if command in RESULT_COMMANDS:
            yield from self._results()
            return
        payload = yield
        if payload[:1] == b"\xff":
            self._failed(payload)
        elif command == COM_STATISTICS:
            return
        elif command in (COM_STMT_FETCH, COM_FIELD_LIST, *ENDLESS_COMMANDS):
            yield from self._rows(payload)
        elif command == COM_STMT_PREPARE:
            yield from self._definitions(payload)
        elif command in SIMPLE_COMMANDS and payload[:1] == b"\xfe":
            self._eof(payload)
        elif payload[:1] == b"\x00":
            self._ok(payload)
        else:
            raise MalformedPacket("nothing known")

    def _results(self) -> Generator[None, bytes, None]:
        more = True
        while more:
            payload = yield
            if payload[:1] == b"\x00":
                self._ok(payload)
            elif payload[:1] == b"\xff":
                self._failed(payload)
            elif b"" < payload[:1] < b"\xfb":
                yield from self._table(payload[0])
            elif (payload[:1], len(payload)) in ((b"\xfc", 3), (b"\xfd", 4)):
                yield from self._table(int.from_bytes(payload[1:], "little"))
            else:
                raise MalformedPacket("nothing known")
            more = not self.error and bool(self.status & SERVER_STATUS_MORE_RESULTS_EXISTS)

    def _table(self, columns: int) -> Generator[None, bytes, None]:
        for _ in range(columns):
            payload = yield
            if payload[:1] == b"\xff":
                self._failed(payload)
                return
        if not self._deprecated:
            payload = yield
            if payload[:1] == b"\xff":
                self._failed(payload)
                return
            self._eof(payload)
            if self.status & SERVER_STATUS_CURSOR_EXISTS:
                return
        payload = yield
        yield from self._rows(payload)

    def _rows(self, payload: bytes) -> Generator[None, bytes, None]:
        while True:
            if payload[:1] == b"\xff" and len(payload) < MAX_PAYLOAD:
                self._failed(payload)
                return
            if payload[:1] == b"\xfe" and len(payload) < (MAX_PAYLOAD if self._deprecated else 9):
                if self._deprecated and len(payload) > 5:
                    self._ok(payload)
                else:
                    self._eof(payload)
                return
            payload = yield

    def _definitions(self, payload: bytes) -> Generator[None, bytes, None]:
        for at in (7, 5):
            count = int.from_bytes(payload[at : at + 2], "little")
            for _ in range(count + (bool(count) and not self._deprecated)):
                definition = yield
                if definition[:1] == b"\xff":
                    self._failed(definition)
                    return

    def _ok(self, payload: bytes) -> None:
        at = 1
        for _ in range(2):
            at += {0xFC: 3, 0xFD: 4, 0xFE: 9}.get(payload[at], 1) if at < len(payload) else 1
        if at + 2 > len(payload):
            raise MalformedPacket("a short OK")
        self.status = int.from_bytes(payload[at : at + 2], "little")

    def _eof(self, payload: bytes) -> None:
        if payload[:1] != b"\xfe" or len(payload) < 5:
            raise MalformedPacket("no EOF")
        self.status = int.from_bytes(payload[3:5], "little")

    def _failed(self, payload: bytes) -> None:
        self.error = int.from_bytes(payload[1:3], "little")
