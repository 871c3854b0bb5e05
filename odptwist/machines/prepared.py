"""Binary prepared statements: one client session prepares them, several server sessions may execute them.

Source: MySQL internals, pages "COM_STMT_PREPARE", "COM_STMT_EXECUTE", "COM_STMT_SEND_LONG_DATA", "COM_STMT_RESET" and
"COM_STMT_FETCH"; MariaDB knowledge base, "COM_STMT_BULK_EXECUTE" and "COM_STMT_EXECUTE" (statement id -1).

A client knows a statement by a number of the proxy's own. A server session has it prepared under a number of that
server's, from its first execute there and as long as there is room. So commands are renumbered on their way, and what
earlier commands have told is told again: the types of parameters, and long data, which is kept until the execute.

What cannot be told again ties the statement to one server session (`Tie`): it is executed there or not at all. Because
of the ties the classes below know each other, and share this module though it is long.

Commands come framed, from the packet's header to its end; of long ones as much as has come, but at least 64 KiB of
payload. A malformed one is passed on, for the server to answer.
"""

from __future__ import annotations

from collections.abc import Iterator
from enum import Flag, auto
from itertools import count
from typing import Any, Final

from attrs import define, field

from odptwist.errors import MalformedPacket, PacketTooLarge, SqlError, server_lost
from odptwist.wire.constants import (
    COM_STMT_CLOSE,
    COM_STMT_PREPARE,
    COM_STMT_RESET,
    ER_NET_PACKET_TOO_LARGE,
    SERVER_STATUS_CURSOR_EXISTS,
    SERVER_STATUS_LAST_ROW_SENT,
)
from odptwist.wire.framing import frame
from odptwist.wire.prepared import (
    NUMBER_END,
    LongData,
    is_whole,
    number_in,
    numbered,
    parse_long_data,
    types_in,
    with_number,
    with_types,
)

LAST_PREPARED: Final = 0xFFFFFFFF
"""MariaDB's clients send it for the statement that they prepared last, whose number they do not know yet."""
STATEMENTS_LIMIT: Final = 16_382
"""Statements of one client session; by default all sessions of a server have as many together."""
TEXTS_LIMIT: Final = 16 * 1024 * 1024
"""Bytes of all texts of one client session: by default, one packet may have as many."""
LONG_DATA_LIMIT: Final = 1024 * 1024
"""Bytes of long data that are kept for one client session; more of it is handed to a server session."""

_MAX_PREPARED_STMT_COUNT_REACHED: Final = 1461
# What a parameter with long data takes besides: an entry of a dict and a bytearray. It bounds 65,536 empty pieces.
_PARAMETER_COST: Final = 128
# Long data is repeated in pieces, because joined it might pass a max_allowed_packet that the client has kept to.
_PIECE: Final = 64 * 1024


class Tie(Flag):
    """What one server session alone has of a statement, because the proxy could not keep it."""

    TEXT = auto()  # it was longer than what the proxy sees of a command
    TYPES = auto()  # so were they; it takes more than 30,000 parameters
    LONG_DATA = auto()  # it passed the limit; until the next execute or reset
    CURSOR = auto()  # it is open, with rows to be fetched


@define(eq=False)
class PreparedStatement:
    """One statement of a client session.

    Attributes:
        number: by which the client knows it.
        text: as it came with COM_STMT_PREPARE, without the command byte; None if it was too long to be kept.
        parameters: their number, at most 65,535.
        remark: whatever the owner knows about it.
        types: 2 bytes a parameter, as the client told them last; empty if it told none, or they could not be kept.
        ties: what `sole` alone has of it.
        sole: the only one that can execute it, fetch from it and reset it; None if any one can.
        passes: whether its executes leave nothing behind that the owner has to know; the owner sets it.
    """

    number: int
    text: bytes | None
    parameters: int
    remark: Any = None
    passes: bool = field(default=False, init=False)
    types: bytes = field(default=b"", init=False)
    ties: Tie = field(default=Tie(0), init=False)
    sole: ServerStatements | None = field(default=None, init=False, repr=False)

    def tie(self, tie: Tie, server: ServerStatements) -> None:
        """Belong to this server session alone."""
        self.ties |= tie
        self.sole = server

    def untie(self, ties: Tie) -> None:
        """Lose some ties, as far as they are there."""
        self.ties &= ~ties
        if not self.ties:
            self.sole = None

    def require(self, server: ServerStatements) -> None:
        """Raise `lost` unless this server session can execute it."""
        if self.sole is not None and self.sole is not server:
            raise self.lost()

    def prepare(self) -> bytes:
        """Return the framed COM_STMT_PREPARE for another server session.

        Raises:
            SqlError: 1158, the text was not kept.
        """
        if self.text is None:
            raise self.lost()
        return frame(bytes((COM_STMT_PREPARE,)) + self.text, 0)

    def fetched(self, status: int) -> None:
        """Be told the status flags after a COM_STMT_FETCH that succeeded."""
        if status & SERVER_STATUS_LAST_ROW_SENT:
            self.untie(Tie.CURSOR)

    def lost(self) -> SqlError:
        """Return the refusal of a statement that is tied to a server session which has ended or cannot be used now.

        `PreparedStatements.was_reset` then frees it of what the client can send anew.
        """
        kept = ", ".join(str(tie.name).replace("_", " ").lower() for tie in self.ties)
        text = f"Prepared statement {self.number} has left its {kept} at a server session that cannot be used now"
        return server_lost(text)


@define(eq=False)
class ServerStatement:
    """One statement as one server session has prepared it.

    Attributes:
        statement: the client's.
        server: all that this server session has prepared.
        number: the server's number of it.
        types: those of the parameters that the server knows for certain.
    """

    statement: PreparedStatement
    server: ServerStatements = field(repr=False)
    number: int
    types: bytes = field(default=b"", init=False)

    def execute(self, data: bytes) -> bytes:
        """Return what the server must get for a framed COM_STMT_EXECUTE or COM_STMT_BULK_EXECUTE.

        That is the same object where the numbers agree and there is nothing to tell again. Long data goes before it
        (`PreparedStatements.long_data`); `PreparedStatements.executed` must be told how it ended.

        Raises:
            SqlError: 1158, the statement is tied to another server session; 1153, there is no room for the types.
        """
        statement = self.statement
        if statement.sole is not None:
            statement.require(self.server)
        if statement.parameters:
            types = types_in(data, statement.parameters)
            if types is None:
                if statement.types and statement.types != self.types:
                    data = self._tell(data)
            elif types != statement.types:
                self._told(types, is_whole(data))
        return with_number(data, self.number)

    def _tell(self, data: bytes) -> bytes:
        statement = self.statement
        try:
            return with_types(data, statement.parameters, statement.types)
        except PacketTooLarge:
            text = "Parameters of a prepared statement that moves to another server session must stay below 16 MiB"
            raise SqlError(ER_NET_PACKET_TOO_LARGE, "08S01", text) from None

    def _told(self, types: bytes, whole: bool) -> None:
        statement = self.statement
        if len(types) == 2 * statement.parameters:
            statement.types = types
            statement.untie(Tie.TYPES)
        elif not whole:
            statement.types = b""
            statement.tie(Tie.TYPES, self.server)

    def reset(self) -> bytes:
        """Return a framed COM_STMT_RESET."""
        return numbered(COM_STMT_RESET, self.number)

    def close(self) -> bytes:
        """Return a framed COM_STMT_CLOSE, which no server answers."""
        return numbered(COM_STMT_CLOSE, self.number)


class ServerStatements:
    """What one server session has prepared, in the order of its last use."""

    __slots__ = ("_statements",)

    def __init__(self) -> None:
        self._statements: dict[PreparedStatement, ServerStatement] = {}

    def __len__(self) -> int:
        return len(self._statements)

    def __contains__(self, statement: PreparedStatement) -> bool:
        return statement in self._statements

    def use(self, statement: PreparedStatement) -> ServerStatement | None:
        """Return a statement as it is prepared here, None if it is not; it is now the last one used."""
        found = self._statements.pop(statement, None)
        if found is not None:
            self._statements[statement] = found
        return found

    def learn(self, statement: PreparedStatement, number: int) -> ServerStatement:
        """Be told that the server has prepared a statement, under this number of its own."""
        self._statements[statement] = known = ServerStatement(statement, self, number)
        return known

    def forget(self, statement: PreparedStatement) -> ServerStatement | None:
        """Take a statement away, and return it for its `close`; None if it is not prepared here."""
        found = self._statements.pop(statement, None)
        if found is not None and statement.sole is self:
            statement.untie(Tie.CURSOR)
        return found

    def clear(self) -> None:
        """Be told that the server session has ended, or forgotten all statements (COM_RESET_CONNECTION)."""
        for statement in list(self._statements):
            self.forget(statement)

    def oldest(self, limit: int, keep: PreparedStatement | None = None) -> PreparedStatement | None:
        """Return the statement to close before another one is prepared here.

        Args:
            limit: how many may be prepared here at once.
            keep: a statement that is about to be used.

        Returns:
            None if there is room, or if all statements are tied to this server session: it may have more room.
        """
        if len(self._statements) >= limit:
            for statement in self._statements:
                if statement is not keep and statement.sole is not self:
                    return statement
        return None


class PreparedStatements:
    """The statements of one client session, by the numbers that the client knows."""

    __slots__ = ("_highest", "_last", "_long_data", "_long_data_size", "_statements", "_texts_size")

    def __init__(self) -> None:
        self._statements: dict[int, PreparedStatement] = {}
        self._last: PreparedStatement | None = None
        self._highest = 0
        self._texts_size = 0
        self._long_data: dict[PreparedStatement, dict[int, bytearray]] = {}
        self._long_data_size = 0

    def __len__(self) -> int:
        return len(self._statements)

    def __iter__(self) -> Iterator[PreparedStatement]:
        return iter(self._statements.values())

    def get(self, number: int) -> PreparedStatement | None:
        """Return a statement; `LAST_PREPARED` stands for the last one, unless that failed or was closed."""
        return self._last if number == LAST_PREPARED else self._statements.get(number)

    def find(self, data: bytes) -> PreparedStatement | None:
        """Return the statement that a framed command names; where there is none, `unknown_statement` is the answer."""
        return self.get(number_in(data)) if len(data) >= NUMBER_END else None

    def admit(self, size: int) -> None:
        """Ask for room for one more statement, before its COM_STMT_PREPARE is sent to a server.

        Args:
            size: of its text in bytes, 0 if that will not be kept.

        Raises:
            SqlError: 1461, there is none.
        """
        held = len(self._statements)
        if held >= STATEMENTS_LIMIT or self._texts_size + size > TEXTS_LIMIT:
            text = f"Can't create more than max_prepared_stmt_count statements (current value: {held})"
            raise SqlError(_MAX_PREPARED_STMT_COUNT_REACHED, "42000", text)

    def add(
        self, text: bytes | None, server: ServerStatements, number: int, parameters: int, remark: Any = None
    ) -> PreparedStatement:
        """Be told that a server session has prepared a statement for the client.

        Args:
            text: as it came with COM_STMT_PREPARE, without the command byte; None if it is too long to be kept.
            server: of the server session.
            number: the server's number of it; the client gets the same one if that is free.
            parameters: as the server counts them.
            remark: whatever the owner knows about the statement.
        """
        statement = self._keep(PreparedStatement(self._free(number), text, parameters, remark))
        if text is None:
            statement.tie(Tie.TEXT, server)
        server.learn(statement, number)
        return statement

    def add_own(self, text: bytes, parameters: int, remark: Any) -> PreparedStatement:
        """Keep a statement that the proxy executes itself, so that no server session ever prepares it; as `add`."""
        return self._keep(PreparedStatement(self._free(0), text, parameters, remark))

    def _keep(self, statement: PreparedStatement) -> PreparedStatement:
        self._texts_size += len(statement.text or b"")
        self._statements[statement.number] = self._last = statement
        return statement

    def _free(self, wished: int) -> int:
        if wished in self._statements or not 0 < wished < LAST_PREPARED:
            wished = self._highest + 1
            if wished == LAST_PREPARED:
                wished = next(number for number in count(1) if number not in self._statements)
        self._highest = max(self._highest, wished)
        return wished

    def prepare_failed(self) -> None:
        """Be told that a COM_STMT_PREPARE of the client failed: `LAST_PREPARED` names nothing now."""
        self._last = None

    def close(self, statement: PreparedStatement) -> None:
        """Take a statement away; server sessions that have it prepared must `forget` it, too."""
        del self._statements[statement.number]
        if statement.text is not None:
            self._texts_size -= len(statement.text)
        if statement is self._last:
            self._last = None
        self._drop_long_data(statement)

    def clear(self) -> None:
        """Take all statements away, as COM_RESET_CONNECTION and COM_CHANGE_USER do."""
        for statement in list(self):
            self.close(statement)
        self._last = None

    # -- long data: it goes to a server just before its execute, so no other one holds a part of it ----------------

    def keep_long_data(self, statement: PreparedStatement, data: bytes) -> bool:
        """Keep what a framed COM_STMT_SEND_LONG_DATA brings for `long_data`; False if it cannot be kept.

        Then it must be sent to a server session, behind `hand_over` unless that was done before.
        """
        if Tie.LONG_DATA in statement.ties or not is_whole(data):
            return False
        try:
            brought = parse_long_data(data)
        except MalformedPacket:
            return True  # servers ignore it
        parameters = self._long_data.get(statement, {})
        size = len(brought.piece) + _PARAMETER_COST * (brought.parameter not in parameters)
        if self._long_data_size + size > LONG_DATA_LIMIT:
            return False
        self._long_data_size += size
        self._long_data[statement] = parameters
        parameters.setdefault(brought.parameter, bytearray()).extend(brought.piece)
        return True

    def long_data(self, known: ServerStatement) -> bytes:
        """Return the framed commands that a server must get before an execute; they have no answer.

        They are kept until `executed`, for the case that another server session must be asked.
        """
        if known.statement not in self._long_data:
            return b""
        return b"".join(
            LongData(parameter, bytes(came[at : at + _PIECE])).encode(known.number)
            for parameter, came in self._long_data[known.statement].items()
            for at in range(0, len(came) or 1, _PIECE)
        )

    def take_long_data(self, statement: PreparedStatement) -> dict[int, bytes]:
        """Return the long data of a statement that the proxy executes itself, by parameter, and keep none any more."""
        taken = {parameter: bytes(came) for parameter, came in self._long_data.get(statement, {}).items()}
        self._drop_long_data(statement)
        return taken

    def hand_over(self, known: ServerStatement) -> bytes:
        """Return what `long_data` returns, and keep none any more: the statement is tied to this server session.

        Raises:
            SqlError: 1158, it is tied to another one.
        """
        statement = known.statement
        statement.require(known.server)
        handed = self.long_data(known)
        self._drop_long_data(statement)
        statement.tie(Tie.LONG_DATA, known.server)
        return handed

    def _drop_long_data(self, statement: PreparedStatement) -> None:
        dropped = self._long_data.pop(statement, {})
        self._long_data_size -= sum(len(came) + _PARAMETER_COST for came in dropped.values())

    # -- ends of exchanges -----------------------------------------------------------------------------------------

    def executed(self, known: ServerStatement, error: int, status: int) -> None:
        """Be told how an execute ended.

        Args:
            known: what was executed.
            error: of the ERR packet, 0 for a success.
            status: flags of a success.
        """
        statement = known.statement
        # After an ERR it is not certain that the server had come to the types.
        known.types = b"" if error else statement.types
        # seekdb 1.4 and MariaDB 10.11 use long data up, whether they succeed or not.
        if self._long_data:
            self._drop_long_data(statement)
        if statement.sole is not None:
            statement.untie(Tie.LONG_DATA if error else Tie.LONG_DATA | Tie.CURSOR)
        if status & SERVER_STATUS_CURSOR_EXISTS and not error:
            statement.tie(Tie.CURSOR, known.server)

    def was_reset(self, statement: PreparedStatement) -> None:
        """Be told that a COM_STMT_RESET succeeded, or that what it would reset has gone."""
        self._drop_long_data(statement)
        statement.untie(Tie.LONG_DATA | Tie.CURSOR)
