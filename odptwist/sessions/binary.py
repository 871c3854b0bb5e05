"""Binary prepared statements, in time: sent, renumbered, prepared again where they are wanted.

The rules are in `odptwist.machines.prepared`; here are the server sessions.
"""

from __future__ import annotations

from collections.abc import Iterable

from attrs import frozen

from odptwist.errors import CloseReason, ServerSessionLost, SqlError
from odptwist.machines.classification import Classification
from odptwist.machines.parameters import Template
from odptwist.machines.prepared import (
    PreparedStatement,
    PreparedStatements,
    ServerStatement,
    ServerStatements,
    Tie,
)
from odptwist.machines.session_state import Effects, Reading
from odptwist.sessions.server import ServerSession
from odptwist.wire.constants import (
    COM_QUERY,
    COM_STMT_BULK_EXECUTE,
    COM_STMT_CLOSE,
    COM_STMT_EXECUTE,
    COM_STMT_FETCH,
    COM_STMT_PREPARE,
    COM_STMT_RESET,
)
from odptwist.wire.framing import frame
from odptwist.wire.parameters import parse_parameters
from odptwist.wire.prepared import PrepareReader, PrepareReply, is_whole, numbered, unknown_statement, with_number
from odptwist.wire.primitives import encode_text
from odptwist.wire.resultset import ResultReader

# OceanBase: "maximum open cursors exceeded"; the parameter open_cursors is 50 by default, and cannot be asked for.
TOO_MANY_PREPARED = 5930
_EXECUTES = (COM_STMT_EXECUTE, COM_STMT_BULK_EXECUTE)
_ABOUT_STATEMENTS = (*_EXECUTES, COM_STMT_FETCH, COM_STMT_RESET)


@frozen
class Remark:
    """What is known about a prepared statement: what it leaves behind, where it may run, and how its text was read."""

    effects: Effects
    classification: Classification
    reading: Reading


class BinaryStatements:
    """The prepared statements of one client session, on all its server sessions.

    Attributes:
        statement: the one that the command in hand is about, or None.
        own: the same, if the proxy executes it; then `statement` is None.
        preparing: whether the command in hand is a COM_STMT_PREPARE.
    """

    __slots__ = ("_all", "_code", "_known", "_remark", "_text", "own", "preparing", "statement")

    def __init__(self) -> None:
        self._all = PreparedStatements()
        self._code = 0
        self._known: ServerStatement | None = None
        self._text: bytes | None = None
        self._remark: Remark | None = None
        self.statement: PreparedStatement | None = None
        self.own: PreparedStatement | None = None
        self.preparing = False

    def admit(self, text: bytes | None, remark: Remark) -> None:
        """Be told of the COM_STMT_PREPARE in hand; `text` is None if it is too long to be kept.

        Raises:
            SqlError: 1461, there are too many statements.
        """
        self._all.admit(len(text or b""))
        self._text, self._remark = text, remark

    def add_own(self, text: bytes, template: Template) -> PreparedStatement:
        """Prepare a statement that the proxy executes itself.

        Raises:
            SqlError: 1461, there are too many statements.
        """
        self._all.admit(len(text))
        return self._all.add_own(text, len(template.texts), template)

    def fill_own(self, statement: PreparedStatement, command: bytes) -> str:
        """Return the text that a framed COM_STMT_EXECUTE makes of a statement of the proxy's.

        Raises:
            SqlError: 1210, a parameter has a wrong value; 8007, it is too long.
            MalformedPacket: the command cannot be read.
        """
        long_data = self._all.take_long_data(statement)
        if not is_whole(command) or statement.sole is not None:
            statement.untie(Tie.LONG_DATA)
            raise SqlError(8007, "HY000", "internal cmd value is too long")
        values, statement.types = parse_parameters(command, statement.parameters, statement.types, long_data)
        template: Template = statement.remark
        return template.fill(values)

    def reset_own(self, statement: PreparedStatement) -> None:
        """Drop what the client has sent of the parameters."""
        self._all.was_reset(statement)

    def begin(self, command: bytes) -> bool:
        """Take up the framed command in hand; return whether it must be dressed before it is sent.

        Raises:
            SqlError: 1243, it names no statement.
        """
        self._code = code = command[4]
        self._known = self.statement = self.own = None
        self.preparing = code == COM_STMT_PREPARE
        if code not in _ABOUT_STATEMENTS:
            return self.preparing
        self.statement = self._all.find(command)
        if self.statement is None:
            raise unknown_statement(command)
        if isinstance(self.statement.remark, Template):
            self.statement, self.own = None, self.statement
        return self.own is None

    def text_of(self, command: bytes) -> bytes:
        """Return the text of the statement that a command names, as far as it is known; the command has no header."""
        statement = self._all.find(bytes(4) + command)
        return (statement.text or b"") if statement is not None else b""

    def is_ready(self, session: ServerSession) -> bool:
        """Whether a server session has the statement in hand prepared."""
        return self.statement is None or (session.prepared is not None and self.statement in session.prepared)

    async def make_ready(self, session: ServerSession, reading: Reading) -> None:
        """Prepare the statement in hand on a server session, if it is not.

        Args:
            session: which one.
            reading: the client session's, which the server session has.

        Raises:
            SqlError: the server refuses, or only another server session can execute it.
            ServerSessionLost: it ended.
        """
        statement = self.statement
        if statement is None or self.is_ready(session):
            return
        if statement.sole is not None:
            error = statement.lost()
            self._all.was_reset(statement)  # the client knows now, so it may begin anew
            raise error
        while True:
            self._make_room(session, session.prepared_limit)
            reader = await _prepare_as_before(session, statement, reading)
            refusal = reader.error
            if refusal is None:
                _of(session).learn(statement, reader.number)
                if reader.parameters != statement.parameters:
                    raise SqlError(1615, "HY000", "Prepared statement needs to be re-prepared")
                return
            if refusal.code != TOO_MANY_PREPARED or not self.make_room(session):
                raise SqlError(refusal.code, refusal.sqlstate, refusal.message)

    def make_room(self, session: ServerSession) -> bool:
        """Close a statement on a server session that has no room for another one; return whether there was one."""
        held = len(_of(session))
        closed = self._make_room(session, held)
        if closed:
            session.prepared_limit = held
        return closed

    def _make_room(self, session: ServerSession, limit: int) -> bool:
        statements = _of(session)
        oldest = statements.oldest(limit, self.statement)
        known = statements.forget(oldest) if oldest is not None else None
        if known is not None:
            session.transport.write(known.close())
        return known is not None

    def dress(self, session: ServerSession, data: bytes) -> bytes:
        """Return what a server session must get for the command in hand.

        Raises:
            SqlError: it cannot be executed there.
        """
        if self.preparing:
            self._make_room(session, session.prepared_limit)
            session.expect_reply(lambda reply: self._replied(session, reply))
            return data
        statement = self.statement
        known = _of(session).use(statement) if statement is not None else None
        if known is None:
            return data
        self._known = known
        if self._code in _EXECUTES:
            return self._all.long_data(known) + known.execute(data)
        return with_number(data, known.number)

    def _replied(self, session: ServerSession, reply: PrepareReply) -> bytes:
        """Return the beginning of a response to COM_STMT_PREPARE as the client must get it."""
        if reply.failed:
            self._all.prepare_failed()
            return reply.came
        statement = self._all.add(self._text, _of(session), reply.number, reply.parameters, self._remark)
        statement.passes = self._remark is not None and not self._remark.effects
        return reply.renumbered(statement.number)

    def ended(self, error: int, status: int) -> Effects | None:
        """Be told how the command in hand ended; return what the statement has left behind, if it was executed."""
        known, self._known = self._known, None
        if known is None:
            return None
        if self._code in _EXECUTES:
            self._all.executed(known, error, status)
            return known.statement.remark.effects if not error else None
        if not error:
            if self._code == COM_STMT_RESET:
                self._all.was_reset(known.statement)
            else:
                known.statement.fetched(status)
        return None

    def close(self, command: bytes, sessions: Iterable[ServerSession]) -> None:
        """Close the statement that a framed COM_STMT_CLOSE names, wherever it is prepared."""
        statement = self._all.find(command)
        if statement is None:
            return
        for session in sessions:
            known = session.prepared.forget(statement) if session.prepared is not None else None
            if known is not None:
                session.transport.write(known.close())
        self._all.close(statement)

    def keep_long_data(self, command: bytes, sessions: Iterable[ServerSession]) -> ServerSession | None:
        """Keep what a framed COM_STMT_SEND_LONG_DATA brings; else send it, and return where the rest of it must go."""
        statement = self._all.find(command)
        if statement is None or self._all.keep_long_data(statement, command):
            return None
        for session in sessions:
            known = session.prepared.use(statement) if session.prepared is not None else None
            if known is not None and statement.sole in (None, session.prepared):
                handed = b"" if Tie.LONG_DATA in statement.ties else self._all.hand_over(known)
                session.transport.write(handed + with_number(command, known.number))
                return session
        # Nobody can take it, so nobody must execute the statement without it.
        statement.tie(Tie.LONG_DATA, ServerStatements())
        return None

    def lost(self, session: ServerSession) -> list[str]:
        """Be told that a server session has ended; return what its client has to know."""
        statements, session.prepared = session.prepared, None
        if statements is None:
            return []
        ties = {tie for each in self._all if each.sole is statements for tie in each.ties}
        statements.clear()
        return [_LOSSES[tie] for tie in Tie if tie in ties]

    def clear(self, session: ServerSession | None) -> None:
        """Forget all statements, as COM_RESET_CONNECTION and COM_CHANGE_USER make the server do."""
        self._all.clear()
        if session is not None:
            session.prepared = None

    @property
    def cursors(self) -> bool:
        """Whether a cursor is open."""
        return any(Tie.CURSOR in each.ties for each in self._all)


_LOSSES = {
    Tie.TEXT: "prepared statements too long to be kept",
    Tie.TYPES: "prepared statements of too many parameters",
    Tie.LONG_DATA: "long data of prepared statements",
    Tie.CURSOR: "open cursors",
}


async def _prepare_as_before(session: ServerSession, statement: PreparedStatement, reading: Reading) -> PrepareReader:
    """Prepare a statement where its text is read as it was for the client: the names in it are of that database.

    Raises:
        SqlError: it cannot be read so any more.
        ServerSessionLost: it ended, or is left with another database or sql_mode than the client's.
    """
    ways = statement.remark.reading.replay(reading), reading.replay(statement.remark.reading)
    there, back = ([ResultReader(session.agreed) for _ in way] for way in ways)
    (going, returning) = ([frame(bytes((COM_QUERY,)) + encode_text(sql), 0) for sql in way] for way in ways)
    reader = PrepareReader(session.agreed)
    await session.ask([*going, statement.prepare(), *returning], [*there, reader, *back])
    if any(each.error for each in back):
        session.drop(CloseReason.STATE_LOST)
        raise ServerSessionLost("it did not return from the database of a prepared statement")
    for each in there:
        if each.error is not None:
            if reader.error is None:
                session.transport.write(numbered(COM_STMT_CLOSE, reader.number))
            raise SqlError(each.error.code, each.error.sqlstate, each.error.message)
    return reader


def _of(session: ServerSession) -> ServerStatements:
    """Return what a server session has prepared; most never prepare anything."""
    if session.prepared is None:
        session.prepared = ServerStatements()
    return session.prepared
