"""Proxy statements that a client has prepared: found, and answered, in the texts that their parameters make of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from twisted.internet.defer import Deferred, fail, succeed

from odptwist.answers import Answer, Column, Done
from odptwist.errors import MalformedPacket, SqlError
from odptwist.interfaces import IStatements
from odptwist.machines.parameters import Template
from odptwist.machines.prepared import PreparedStatement
from odptwist.sessions.binary import BinaryStatements
from odptwist.sessions.surroundings import Surroundings
from odptwist.snapshots import Asker
from odptwist.sqltext import tokens
from odptwist.wire.constants import COM_STMT_EXECUTE, COM_STMT_FETCH, COM_STMT_RESET, ER_MALFORMED_PACKET
from odptwist.wire.framing import frame
from odptwist.wire.prepared import unknown_statement
from odptwist.wire.primitives import decode_text

_NO_OPEN_CURSOR = 1421


class Preparer(Protocol):
    """What a prepared statement needs of the client session that it came from."""

    surroundings: Surroundings
    tracker: Any
    binary: BinaryStatements | None

    def prepare_own(self, text: bytes, template: Template) -> PreparedStatement:
        """Prepare a statement that the proxy executes itself; `SqlError` refuses it."""

    def answer(self, answer: Deferred[Answer], binary: bool = False) -> None:
        """Answer the command when `answer` fires; `binary`: it is COM_STMT_EXECUTE."""

    def answer_prepared(self, number: int, parameters: int, columns: Sequence[Column]) -> None:
        """Answer COM_STMT_PREPARE."""

    def asker(self) -> Asker:
        """Return who asks."""


def prepare_own(session: Preparer, statements: IStatements, command: bytes) -> bool:
    """Answer the COM_STMT_PREPARE in hand, if its text is one of these statements; return whether it is.

    Raises:
        SqlError: the text is refused.
    """
    text = decode_text(command[1:])
    template = Template((text,))
    if "?" in text:
        first = next(tokens(text), None)
        if first is not None and first.word in statements.first_words:
            template = Template.of(text)
    found = statements.find(template.sample)
    if found is None:
        return False
    if not session.tracker.whole:
        raise SqlError(8007, "HY000", "internal cmd value is too long")
    statement = session.prepare_own(command[1:], template)
    session.tracker.skip()
    session.answer_prepared(statement.number, statement.parameters, statements.columns(found))
    return True


def execute_own(session: Preparer, statements: IStatements, statement: PreparedStatement, command: bytes) -> None:
    """Answer a framed command about one of these statements, which the tracker has skipped."""
    binary = session.binary
    if binary is None:
        return
    try:
        if command[4] == COM_STMT_RESET:
            binary.reset_own(statement)
            session.answer(succeed(Done()))
        elif command[4] == COM_STMT_EXECUTE:
            found = statements.find(binary.fill_own(statement, command))
            if found is None:  # a plugin's, which knows better with these values
                raise _not_prepared()
            answer = statements.answer(found, session.asker(), session.surroundings.directory)
            session.answer(answer, binary=True)
        elif command[4] == COM_STMT_FETCH:
            raise SqlError(_NO_OPEN_CURSOR, "HY000", f"The statement ({statement.number}) has no open cursor.")
        else:
            raise _not_prepared()
    except SqlError as refusal:
        session.answer(fail(refusal))
    except MalformedPacket as fault:
        session.answer(fail(SqlError(ER_MALFORMED_PACKET, "HY000", f"Malformed communication packet: {fault}")))


def look_prepared(session: Preparer, statements: IStatements, command: bytes) -> None:
    """Answer the command in hand about a prepared statement, where all of them are the proxy's.

    Args:
        session: it came from.
        statements: all that it may ask.
        command: its payload.

    Raises:
        SqlError: 1243, there is no such statement; 8007, the command is too long.
    """
    framed = frame(command, 0)
    binary = session.binary
    if not session.tracker.whole:
        raise SqlError(8007, "HY000", "internal cmd value is too long")
    if binary is None:
        raise unknown_statement(framed)
    binary.begin(framed)
    if binary.own is not None:
        session.tracker.skip()
        execute_own(session, statements, binary.own, framed)


def _not_prepared() -> SqlError:
    return SqlError(1295, "HY000", "This command is not supported in the prepared statement protocol yet")
