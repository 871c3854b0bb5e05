"""Commands that concern the proxy: those it answers, and those that change what it has to know.

Every other command goes to the server unseen.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Protocol

from attrs import evolve
from twisted.internet.defer import Deferred, succeed

from odptwist.answers import Answer, Column, ColumnType, Table
from odptwist.errors import SqlError, server_lost, unknown_command
from odptwist.identity import PROXY_TENANT, Identity
from odptwist.machines.certificates import ClientCertificate
from odptwist.machines.connection_id import mentions_id, with_id
from odptwist.machines.exchange import SHAPES, Tracker
from odptwist.machines.parameters import Template
from odptwist.machines.password_bridge import EMPTY_PASSWORDS
from odptwist.machines.prepared import PreparedStatement
from odptwist.machines.server_login import ASK_AGAIN_ANSWER, ASK_AGAIN_PLUGIN, server_user
from odptwist.machines.session_state import Effects, SessionState, effects_of
from odptwist.machines.several import refuse_second, second_statement
from odptwist.sessions.binary import BinaryStatements, Remark
from odptwist.sessions.dialogue import LoginPlan
from odptwist.sessions.login import identify
from odptwist.sessions.opening import check_certificate, check_tenant
from odptwist.sessions.own_statements import prepare_own
from odptwist.sessions.peer import Peer
from odptwist.sessions.server import ServerSession
from odptwist.sessions.surroundings import Surroundings
from odptwist.snapshots import Asker
from odptwist.sqltext import has_word
from odptwist.wire.constants import (
    CLIENT_MULTI_STATEMENTS,
    COM_CHANGE_USER,
    COM_INIT_DB,
    COM_PROCESS_INFO,
    COM_PROCESS_KILL,
    COM_QUERY,
    COM_QUIT,
    COM_REGISTER_SLAVE,
    COM_RESET_CONNECTION,
    COM_SET_OPTION,
    COM_STMT_CLOSE,
    COM_STMT_PREPARE,
    COM_STMT_SEND_LONG_DATA,
    SERVER_STATUS_NO_BACKSLASH_ESCAPES,
)
from odptwist.wire.handshake import Greeting, parse_change_user
from odptwist.wire.primitives import decode_text, encode_text

# Of COM_SET_OPTION: 16 bits, MYSQL_OPTION_MULTI_STATEMENTS_ON and _OFF. seekdb 1.4 takes anything for one of these.
_MULTI_STATEMENTS = {b"\0\0": True, b"\1\0": False}

# As a server answers SHOW WARNINGS; the code is ER_UNKNOWN_ERROR, for there is none for an unconfirmed kill.
_WARNINGS = (
    Column("Level", ColumnType.VARCHAR),
    Column("Code", ColumnType.LONG, unsigned=True),
    Column("Message", ColumnType.VARCHAR),
)
_WARNING_CODE = 1105


class Commander(Protocol):
    """What a command needs of the client session that it came from."""

    cs_id: int
    surroundings: Surroundings
    tracker: Tracker
    state: SessionState
    identity: Identity | None
    plan: LoginPlan | None
    greeting: Greeting | None
    binary: BinaryStatements | None
    rest_to: ServerSession | None
    dressing: bool
    peer: Peer

    @property
    def certificate(self) -> ClientCertificate | None:
        """What the client has shown by TLS."""

    @property
    def server_sessions(self) -> tuple[ServerSession, ...]:
        """All server sessions."""

    def prepare(self, text: bytes | None, remark: Remark) -> None:
        """Be told of a COM_STMT_PREPARE that is about to be sent; `SqlError` refuses it."""

    def forward(self, data: bytes, on_end: Callable[[int], None] | None = None) -> None:
        """Send the command to the server; call `on_end` with the error code of its answer, 0 for none."""

    def prepare_own(self, text: bytes, template: Template) -> PreparedStatement:
        """Prepare a statement that the proxy executes itself; `SqlError` refuses it."""

    def answer(self, answer: Deferred[Answer], binary: bool = False) -> None:
        """Answer the command when `answer` fires; `binary`: it is COM_STMT_EXECUTE."""

    def answer_prepared(self, number: int, parameters: int, columns: Sequence[Column]) -> None:
        """Answer COM_STMT_PREPARE."""

    def answer_error(self, error: SqlError) -> None:
        """Answer the command with an error."""

    def take_warning(self) -> str:
        """Return what the statement before warned of, if that was one of the proxy's own, and forget it."""

    def asker(self) -> Asker:
        """Return who asks."""

    def check_room(self, identity: Identity) -> None:
        """Raise `SqlError` if a user has too many sessions to become it."""

    def became(self, plan: LoginPlan, repeatable: bool) -> None:
        """Be another user from now on, in a fresh session."""

    def was_reset(self, database: str | None) -> None:
        """Be in a fresh session from now on."""

    def quit(self) -> None:
        """Be told that the client leaves."""


def look(session: Commander, command: bytes) -> None:
    """Decide about a command: `command` is its payload, or the beginning of it if the tracker has no more yet."""
    concern = _CONCERNS.get(command[0])
    if concern is not None:
        concern(session, command)
    elif command[0] in SHAPES:
        session.forward(session.tracker.take())
    else:
        session.answer_error(unknown_command())


def _query(session: Any, command: bytes) -> None:
    text = decode_text(command[1:])
    statements = session.surroundings.statements
    try:
        found = statements.find(text)
        if not session.tracker.whole and (found is not None or not has_word(text)):
            # What follows so many blanks or comments could be anything, a KILL too.
            raise SqlError(8007, "HY000", "internal cmd value is too long")
    except SqlError as refusal:
        session.answer_error(refusal)
        return
    warnings = show_warnings(text, session.take_warning())
    if warnings is not None:
        session.tracker.skip()
        session.answer(succeed(warnings))
    elif found is None:
        changed = _with_own_id(session, command)
        if changed is not command:
            text = decode_text(changed[1:])
        effects = effects_of(text)
        several = ";" in text.rstrip("; \t\r\n")
        if several and session.plan is not None and not session.plan.agreed & CLIENT_MULTI_STATEMENTS:
            second = second_statement(text, not session.tracker.status & SERVER_STATUS_NO_BACKSLASH_ESCAPES)
            if second is not None:
                session.answer_error(refuse_second(text, second))
                return
        if several and not session.tracker.whole:
            effects = evolve(effects, pins=(*effects.pins, "what a long text of several statements may have set"))
        _forward_with(session, effects, several, changed)
    else:
        session.tracker.skip()
        session.answer(statements.answer(found, session.asker(), session.surroundings.directory))


def show_warnings(text: str, warning: str) -> Table | None:
    """Return the answer to SHOW WARNINGS after a statement of the proxy's own that warned; None if it is not that."""
    if not warning or text.strip(" \t\r\n;").upper().split() != ["SHOW", "WARNINGS"]:
        return None
    return Table(_WARNINGS, (("Warning", _WARNING_CODE, warning),))


def _with_own_id(session: Commander, command: bytes) -> bytes:
    """Return a COM_QUERY or COM_STMT_PREPARE that gets this session's number where it asks for the server's.

    That is the same object if it does not ask, or if the text is not there as a whole.
    """
    tracker = session.tracker
    if not (session.surroundings.ids.one_everywhere and tracker.whole and mentions_id(command)):
        return command
    if tracker.status & SERVER_STATUS_NO_BACKSLASH_ESCAPES and b"\\" in command:
        return command  # which quotes end a string is not known
    text = decode_text(command[1:])
    changed = with_id(text, session.cs_id)
    return command if changed == text else command[:1] + encode_text(changed)


def _process_info(session: Commander, command: bytes) -> None:
    if session.surroundings.ids.one_everywhere:
        _query(session, bytes((COM_QUERY,)) + b"SHOW PROCESSLIST")
    else:
        session.forward(session.tracker.take())


def _process_kill(session: Commander, command: bytes) -> None:
    number = int.from_bytes(command[1:5], "little")
    _query(session, bytes((COM_QUERY,)) + b"KILL CONNECTION %d" % number)


def _prepare(session: Commander, command: bytes) -> None:
    try:
        if prepare_own(session, session.surroundings.statements, command):
            return
        changed = _with_own_id(session, command)
        effects = effects_of(decode_text(changed[1:]))
        remark = Remark(effects, session.surroundings.classifier.classify(changed), session.state.reading)
        session.prepare(changed[1:] if session.tracker.whole else None, remark)
    except SqlError as refusal:
        session.answer_error(refusal)
    else:
        session.forward(_taken(session, changed))


def _close(session: Commander, command: bytes) -> None:
    packet = session.tracker.take()
    if session.binary is not None:
        session.binary.close(packet, session.server_sessions)


def _long_data(session: Commander, command: bytes) -> None:
    packet = session.tracker.take()
    if session.binary is not None:
        session.rest_to = session.binary.keep_long_data(packet, session.server_sessions)


def _init_db(session: Commander, command: bytes) -> None:
    _forward_with(session, Effects(database=decode_text(command[1:])))


def _set_option(session: Commander, command: bytes) -> None:
    """Let the client send several statements in one text, or not any more."""
    multi_statements = _MULTI_STATEMENTS.get(command[1:])
    if multi_statements is None:
        session.answer_error(unknown_command())
        return
    session.dressing = True
    session.forward(session.tracker.take(), partial(_option_set, session, multi_statements))


def _option_set(session: Commander, multi_statements: bool, error: int) -> None:
    plan = session.plan
    if error or plan is None:
        return
    session.state.learn(Effects(pins=("COM_SET_OPTION",)))
    agreed = plan.agreed & ~CLIENT_MULTI_STATEMENTS | (CLIENT_MULTI_STATEMENTS if multi_statements else 0)
    session.plan = evolve(plan, agreed=agreed)


def _register_slave(session: Commander, command: bytes) -> None:
    _forward_with(session, Effects(pins=("COM_REGISTER_SLAVE",)))


def _reset_connection(session: Commander, command: bytes) -> None:
    database = session.state.database
    session.forward(session.tracker.take(), lambda error: None if error else session.was_reset(database))


def _quit(session: Commander, command: bytes) -> None:
    session.quit()


def _change_user(session: Commander, command: bytes) -> None:
    """Log in again on the same connections: only the user's name and the way of asking are the proxy's."""
    plan, greeting = session.plan, session.greeting
    try:
        if plan is None or greeting is None:
            raise server_lost("COM_CHANGE_USER needs a server session: connect again")
        if not session.tracker.whole:
            raise SqlError(1153, "08S01", "Got a packet bigger than 'max_allowed_packet' bytes")
        change = parse_change_user(command, plan.agreed)
        identity = identify(change.user, session.surroundings.clusters, session.peer.host)
        if identity.tenant == PROXY_TENANT:
            raise SqlError(1045, "28000", "COM_CHANGE_USER cannot lead to an account of the proxy's: connect again")
        if session.identity is None or identity.cluster != session.identity.cluster:
            raise SqlError(1045, "28000", "COM_CHANGE_USER cannot lead to another cluster: connect again")
        check_tenant(session.surroundings, identity, greeting, session.peer.host)
        session.check_room(identity)
        check_certificate(session.surroundings, identity, change.charset, session.certificate, session.peer.host)
    except SqlError as refusal:
        session.answer_error(refusal)
        return
    empty = change.auth_response in EMPTY_PASSWORDS
    asking = evolve(
        change,
        user=server_user(identity, greeting),
        auth_response=b"" if empty else ASK_AGAIN_ANSWER,
        plugin=greeting.plugin if empty else ASK_AGAIN_PLUGIN,
    )
    response = evolve(plan.response, user=change.user, database=change.database, auth_response=asking.auth_response)
    became = evolve(plan, response=response, identity=identity, key=None, salt=b"")
    session.dressing = True
    session.forward(
        session.tracker.replace(asking.encode(plan.agreed)),
        lambda error: None if error else session.became(became, empty),
    )


def _forward_with(session: Commander, effects: Effects, several: bool = False, changed: bytes | None = None) -> None:
    """Send the command on, and learn what it leaves behind; of several statements, one may fail after others."""
    sent = _taken(session, changed)
    session.dressing = bool(effects)
    session.forward(sent, partial(_learn, session.state, effects, several) if effects else None)


def _taken(session: Commander, changed: bytes | None) -> bytes:
    """Begin the exchange of the command in hand, and return what goes to the server: perhaps a changed command."""
    tracker = session.tracker
    return tracker.take() if changed is None or changed == tracker.command else tracker.replace(changed)


def _learn(state: SessionState, effects: Effects, several: bool, error: int) -> None:
    if not error:
        state.learn(effects)
    elif several:
        state.learn(Effects(pins=("what a failed text of several statements may have set",)))


_CONCERNS: dict[int, Callable[[Commander, bytes], None]] = {
    COM_QUIT: _quit,
    COM_INIT_DB: _init_db,
    COM_QUERY: _query,
    COM_PROCESS_INFO: _process_info,
    COM_PROCESS_KILL: _process_kill,
    COM_CHANGE_USER: _change_user,
    COM_REGISTER_SLAVE: _register_slave,
    COM_STMT_PREPARE: _prepare,
    COM_STMT_CLOSE: _close,
    COM_STMT_SEND_LONG_DATA: _long_data,
    COM_SET_OPTION: _set_option,
    COM_RESET_CONNECTION: _reset_connection,
}
