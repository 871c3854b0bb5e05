"""Whole answers of servers as values that can be compared, and the binary protocol of prepared statements.

Source: https://dev.mysql.com/doc/dev/mysql-server/latest/page_protocol_com_query_response.html,
https://dev.mysql.com/doc/dev/mysql-server/latest/page_protocol_command_phase_ps.html
"""

from __future__ import annotations

from collections.abc import Sequence

from attrs import field, frozen

from odptwist.wire.constants import (
    CLIENT_CONNECT_WITH_DB,
    CLIENT_MULTI_STATEMENTS,
    CLIENT_SESSION_TRACK,
    COM_CHANGE_USER,
    COM_STMT_CLOSE,
    COM_STMT_EXECUTE,
    COM_STMT_FETCH,
    COM_STMT_PREPARE,
    COM_STMT_RESET,
    COM_STMT_SEND_LONG_DATA,
    SERVER_STATUS_AUTOCOMMIT,
    SERVER_STATUS_CURSOR_EXISTS,
    SERVER_STATUS_IN_TRANS,
    SERVER_STATUS_LAST_ROW_SENT,
    SERVER_STATUS_MORE_RESULTS_EXISTS,
    SERVER_STATUS_NO_BACKSLASH_ESCAPES,
)
from odptwist.wire.handshake import parse_auth_switch_request
from odptwist.wire.primitives import lenenc_bytes
from odptwist.wire.responses import is_eof, parse_eof, parse_err, parse_ok
from odptwist.wire.resultset import parse_column_definition
from odptwist.wire.scramble import native_password
from tests.support.raw_client import CAPABILITIES, RawClient

Value = int | str | None

# What a client may rely on; the other flags tell how a statement was run.
_STATUS = (
    SERVER_STATUS_AUTOCOMMIT
    | SERVER_STATUS_CURSOR_EXISTS
    | SERVER_STATUS_IN_TRANS
    | SERVER_STATUS_LAST_ROW_SENT
    | SERVER_STATUS_MORE_RESULTS_EXISTS
    | SERVER_STATUS_NO_BACKSLASH_ESCAPES
)
_TYPE_LONGLONG, _TYPE_VAR_STRING, _TYPE_NULL = 8, 253, 6
_CHARSET = 45  # utf8mb4_general_ci


@frozen
class Result:
    """One of the results of a command.

    Attributes:
        error: its code, 0 for a success.
        affected: rows.
        insert_id: the last insert id.
        columns: name and type of each column.
        rows: payloads, as they came.
        status: as far as clients rely on it.
        warnings: their number.
    """

    error: int = 0
    affected: int = 0
    insert_id: int = 0
    columns: tuple[tuple[str, int], ...] = ()
    rows: tuple[bytes, ...] = ()
    status: int = 0
    warnings: int = 0


Answer = tuple[Result, ...]


@frozen
class Statement:
    """A statement that a server has prepared."""

    number: int
    parameters: int
    told: list[int] = field(factory=list)


class Asker(RawClient):
    """A client that returns answers.

    Attributes:
        status: of the last answer that had one.
    """

    status = 0

    def begin(self, user: str, password: bytes, database: str, tracking: bool) -> None:
        """Log in; `tracking`: whether the server is asked to tell changes of the session."""
        more = CLIENT_MULTI_STATEMENTS | (CLIENT_SESSION_TRACK if tracking else 0)
        answer = self.login(user, password, database, CAPABILITIES | CLIENT_CONNECT_WITH_DB | more)
        self._note(parse_ok(answer.encode(self.capabilities), self.capabilities).status)  # an ERR is none: it raises

    def ask(self, code: int, rest: bytes = b"") -> Answer:
        """Send a command and return its whole answer."""
        self.send(bytes((code,)) + rest)
        return self._read_answer(code == COM_STMT_FETCH)

    def _read_answer(self, rows_only: bool = False) -> Answer:
        results: list[Result] = []
        while not results or results[-1].status & SERVER_STATUS_MORE_RESULTS_EXISTS:
            payload = self.read_packet().payload
            if payload[0] == 0xFF:
                results.append(Result(error=parse_err(payload).code))
            elif rows_only:
                results.append(self._read_rows((), payload))
            elif is_eof(payload):
                results.append(Result(status=self._note(parse_eof(payload).status)))
            elif payload[0] == 0:
                ok = parse_ok(payload, self.capabilities)
                status = self._note(ok.status)
                results.append(Result(0, ok.affected_rows, ok.last_insert_id, (), (), status, ok.warnings))
            else:
                columns = tuple((each.name, each.type) for each in map(parse_column_definition, self._definitions()))
                if self.status & SERVER_STATUS_CURSOR_EXISTS:
                    results.append(Result(columns=columns, status=self.status))
                else:
                    results.append(self._read_rows(columns, self.read_packet().payload))
        return tuple(results)

    def _definitions(self) -> list[bytes]:
        """Return the packets up to an EOF."""
        found: list[bytes] = []
        while not is_eof(payload := self.read_packet().payload):
            found.append(payload)
        self._note(parse_eof(payload).status)
        return found

    def _read_rows(self, columns: tuple[tuple[str, int], ...], payload: bytes) -> Result:
        rows: list[bytes] = []
        while not is_eof(payload):
            if payload[0] == 0xFF:
                return Result(parse_err(payload).code, columns=columns, rows=tuple(rows))
            rows.append(payload)
            payload = self.read_packet().payload
        eof = parse_eof(payload)
        return Result(0, 0, 0, columns, tuple(rows), self._note(eof.status), eof.warnings)

    def _note(self, status: int) -> int:
        self.status = status & _STATUS
        return self.status

    # -- prepared statements -----------------------------------------------------------------------------------------

    def prepare(self, text: str) -> Statement | Answer:
        """Prepare a statement; return the answer if that is an error."""
        self.send(bytes((COM_STMT_PREPARE,)) + text.encode())
        payload = self.read_packet().payload
        if payload[0] == 0xFF:
            return (Result(error=parse_err(payload).code),)
        columns, parameters = (int.from_bytes(payload[at : at + 2], "little") for at in (5, 7))
        for count in parameters, columns:
            if count:
                self._definitions()
        return Statement(int.from_bytes(payload[1:5], "little"), parameters)

    def execute(self, statement: Statement, values: Sequence[Value], tell: bool, cursor: bool) -> Answer:
        """Execute a statement; the types of parameters are told if `tell`, and if they have changed.

        Args:
            statement: from `prepare`.
            values: one for each parameter; what `long_data` has sent must be None here.
            tell: whether types that the server knows are told again.
            cursor: whether a cursor is asked for, so that rows come with `fetch`.
        """
        kinds = [{int: _TYPE_LONGLONG, str: _TYPE_VAR_STRING}.get(type(value), _TYPE_NULL) for value in values]
        rest = bytes((int(cursor),)) + (1).to_bytes(4, "little")
        if values:
            nulls = sum((value is None) << place for place, value in enumerate(values))
            tell = tell or kinds != statement.told
            rest += nulls.to_bytes((len(values) + 7) // 8, "little") + bytes((int(tell),))
            if tell:
                statement.told[:] = kinds
                rest += b"".join(bytes((kind, 0)) for kind in kinds)
            rest += b"".join(
                value.to_bytes(8, "little", signed=True) if isinstance(value, int) else lenenc_bytes(value.encode())
                for value in values
                if value is not None
            )
        return self.ask(COM_STMT_EXECUTE, statement.number.to_bytes(4, "little") + rest)

    def fetch(self, statement: Statement, rows: int) -> Answer:
        """Fetch from the cursor of a statement."""
        return self.ask(COM_STMT_FETCH, statement.number.to_bytes(4, "little") + rows.to_bytes(4, "little"))

    def reset(self, statement: Statement) -> Answer:
        """Forget the long data and the cursor of a statement."""
        return self.ask(COM_STMT_RESET, statement.number.to_bytes(4, "little"))

    def long_data(self, statement: Statement, parameter: int, piece: bytes) -> Answer:
        """Send a piece of a parameter; there is no answer."""
        rest = statement.number.to_bytes(4, "little") + parameter.to_bytes(2, "little") + piece
        self.send(bytes((COM_STMT_SEND_LONG_DATA,)) + rest)
        return ()

    def close_statement(self, statement: Statement) -> Answer:
        """Close a statement; there is no answer."""
        self.send(bytes((COM_STMT_CLOSE,)) + statement.number.to_bytes(4, "little"))
        return ()

    # -- the session -------------------------------------------------------------------------------------------------

    def change_user(self, user: str, password: bytes, database: str) -> Answer:
        """Be another user; the password is told when the server asks."""
        salt = self.greeting.salt if self.greeting is not None else b""
        scramble = native_password(password, salt)
        self.send(
            bytes((COM_CHANGE_USER,))
            + user.encode()
            + b"\0"
            + bytes((len(scramble),))
            + scramble
            + database.encode()
            + b"\0"
            + _CHARSET.to_bytes(2, "little")
            + b"mysql_native_password\0"
        )
        payload = self.read_packet().payload
        while payload[0] == 0xFE:
            request = parse_auth_switch_request(payload)
            self.send(native_password(password, request.data), self.sequence + 1)
            payload = self.read_packet().payload
        if payload[0] == 0xFF:
            return (Result(error=parse_err(payload).code),)
        return (Result(status=self._note(parse_ok(payload, self.capabilities).status)),)
