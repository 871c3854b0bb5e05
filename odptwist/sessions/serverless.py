"""The commands of a session that has no server: those of the accounts of the proxy's own.

Source: spec section 1.4. The proxy answers every one, most with an OK that means nothing: drivers and programs set up
their sessions before a user types anything.
"""

from __future__ import annotations

from typing import Final, Protocol

from twisted.internet.defer import succeed

from odptwist.answers import Done
from odptwist.errors import SqlError, bad_proxy_statement, unknown_command
from odptwist.interfaces import IStatements
from odptwist.sessions.commands import show_warnings
from odptwist.sessions.own_statements import Preparer, look_prepared, prepare_own
from odptwist.wire.constants import (
    COM_INIT_DB,
    COM_PING,
    COM_PROCESS_INFO,
    COM_PROCESS_KILL,
    COM_QUERY,
    COM_QUIT,
    COM_RESET_CONNECTION,
    COM_SET_OPTION,
    COM_STATISTICS,
    COM_STMT_BULK_EXECUTE,
    COM_STMT_CLOSE,
    COM_STMT_EXECUTE,
    COM_STMT_FETCH,
    COM_STMT_PREPARE,
    COM_STMT_RESET,
    COM_STMT_SEND_LONG_DATA,
)
from odptwist.wire.framing import frame
from odptwist.wire.primitives import decode_text

_WITHOUT_EFFECT: Final = frozenset((COM_PING, COM_INIT_DB, COM_RESET_CONNECTION, COM_SET_OPTION))
_WITHOUT_ANSWER: Final = frozenset((COM_STMT_CLOSE, COM_STMT_SEND_LONG_DATA))
_ABOUT_PREPARED: Final = frozenset((COM_STMT_EXECUTE, COM_STMT_BULK_EXECUTE, COM_STMT_FETCH, COM_STMT_RESET))


class Serverless(Preparer, Protocol):
    """What such a command needs of the client session that it came from."""

    def answer_error(self, error: SqlError) -> None:
        """Answer the command with an error."""

    def answer_packet(self, payload: bytes) -> None:
        """Answer the command with one packet."""

    def take_warning(self) -> str:
        """Return what the statement before warned of, and forget it."""

    def quit(self) -> None:
        """Be told that the client leaves."""


def look_serverless(session: Serverless, statements: IStatements, command: bytes) -> None:
    """Answer a command.

    Args:
        session: it came from.
        statements: all that it may ask.
        command: its payload, or the beginning of it if it is a long one.
    """
    code = command[0]
    if code == COM_QUIT:
        session.quit()
    elif code == COM_QUERY:
        _ask(session, statements, decode_text(command[1:]))
    elif code == COM_PROCESS_KILL:
        _ask(session, statements, f"KILL CONNECTION {int.from_bytes(command[1:5], 'little')}")
    elif code == COM_PROCESS_INFO:
        _ask(session, statements, "SHOW PROCESSLIST")
    elif code in _WITHOUT_EFFECT:
        session.tracker.skip()
        session.answer(succeed(Done()))
    elif code == COM_STATISTICS:
        count = len(session.surroundings.clusters.names)
        session.answer_packet(b"odptwist, an account of the proxy's own; clusters: %d" % count)
    elif code == COM_STMT_PREPARE or code in _ABOUT_PREPARED:
        _ask_prepared(session, statements, command)
    elif code in _WITHOUT_ANSWER:
        session.tracker.take()
        if session.binary is not None and session.tracker.whole:
            tell = session.binary.close if code == COM_STMT_CLOSE else session.binary.keep_long_data
            tell(frame(command, 0), ())
    else:
        session.answer_error(unknown_command())


def _ask_prepared(session: Serverless, statements: IStatements, command: bytes) -> None:
    try:
        if command[0] != COM_STMT_PREPARE:
            look_prepared(session, statements, command)
        elif not prepare_own(session, statements, command):
            raise bad_proxy_statement()
    except SqlError as refusal:
        session.answer_error(refusal)


def _ask(session: Serverless, statements: IStatements, text: str) -> None:
    warnings = show_warnings(text, session.take_warning())
    if warnings is not None:
        session.tracker.skip()
        session.answer(succeed(warnings))
        return
    try:
        if not session.tracker.whole:
            raise SqlError(8007, "HY000", "internal cmd value is too long")
        found = statements.find(text)
        if found is None:
            raise bad_proxy_statement()
    except SqlError as refusal:
        session.answer_error(refusal)
    else:
        session.tracker.skip()
        session.answer(statements.answer(found, session.asker(), session.surroundings.directory))
