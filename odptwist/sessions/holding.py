"""The server sessions of one client session: which there are, which one serves next, and what is lost with one.

Source: spec sections 8.1, 8.2 and 8.4; design/kill.md, second table.

One server session is `bound`: it serves, or served last. The others rest in the `pool`. Before another one serves, it
is made like the client session: what has changed since it last served is replayed in one round trip.
"""

from __future__ import annotations

import re

from twisted.logger import Logger

from odptwist.errors import (
    CloseReason,
    FileRefused,
    OdpError,
    SqlError,
    WireError,
    local_files_refused,
    server_lost,
)
from odptwist.identity import legible
from odptwist.machines.classification import Classification, Kind
from odptwist.machines.parameters import Template
from odptwist.machines.prepared import PreparedStatement
from odptwist.sessions.binary import TOO_MANY_PREPARED, BinaryStatements, Remark
from odptwist.sessions.reaching import CANNOT_REPEAT, Reaching, name_losses
from odptwist.sessions.server import ServerSession
from odptwist.snapshots import Purpose
from odptwist.wire.constants import (
    COM_CHANGE_USER,
    COM_INIT_DB,
    COM_QUERY,
    COM_REGISTER_SLAVE,
    COM_SET_OPTION,
    COM_STMT_PREPARE,
    SERVER_STATUS_IN_TRANS,
)
from odptwist.wire.prepared import opens_cursor
from odptwist.wire.responses import err_for, parse_err

# Commands other than statements: pings, changes of the database. What only one server session will have, a cursor, too,
# belongs on the primary: on a replica it would keep the writes that follow from going anywhere else.
_NEUTRAL = Kind.NEUTRAL
_STAYS = Classification(Kind.LAST, None)
_LEAVES = Classification(Kind.NEUTRAL, None)
_BEGIN = re.compile(rb"\s*+(?:begin|start)(?!\w)", re.IGNORECASE)
_DRESSED = frozenset((COM_CHANGE_USER, COM_SET_OPTION, COM_QUERY, COM_INIT_DB))
_LEAVING = frozenset((COM_CHANGE_USER, COM_REGISTER_SLAVE, COM_SET_OPTION))
# A command of at most this size is kept while it runs, to be sent once more if its server is lost or refuses it.
_AGAIN_LIMIT = 64 * 1024
# MariaDB and MySQL (for more than one option, so the text counts), MySQL, OceanBase: a write on a server for reads.
_OPTION_PREVENTS, _READ_ONLY_MODE, _READ_ONLY_TENANT = 1290, 1836, 4688


class Holding(Reaching):
    """A conversation that chooses, finds and loses server sessions."""

    __slots__ = ()

    _log = Logger()

    # -- which one serves ---------------------------------------------------------------------------------------------

    def choose(self, command: bytes) -> bool:
        """Make `bound` the server session that a command belongs on, None if one has to be found first.

        Args:
            command: the command packet, or its beginning.

        Returns:
            False if the command was refused, and answered, or will be by the proxy.
        """
        self._again = b""
        self._target = None
        statement = None
        if self.binary is not None:
            try:
                self.dressing = self.binary.begin(command) or (self.dressing and command[4] in _DRESSED)
            except SqlError as refusal:
                self.counts.answers += 1
                self.refuse_exchange(refusal)
                return False
            statement = self.binary.statement
            if self.binary.own is not None:
                # The exchange is not one of a server's any more.
                self.tracker.forget()
                self.tracker.hold()
                self.execute_own(self.binary.own, command)
                return False
        whole = not self.tracker.sending and len(command) <= _AGAIN_LIMIT
        if statement is not None and statement.sole is not None:
            self._move_to(statement)
        elif self._may_move(command, statement):
            if whole:
                self._again = command
            self._move()
        elif whole and command[4] == COM_STMT_PREPARE:
            self._again = command
        if self.bound is not None and self.binary is not None and not self.binary.is_ready(self.bound):
            self._target = self.bound.address
            self._rest(self.bound)
        return True

    def _may_move(self, command: bytes, statement: PreparedStatement | None) -> bool:
        """Let the choice decide about a command; return whether it may go to another server than the one before."""
        choice = self.choice
        if choice is None:
            return False
        if statement is not None:
            found = statement.remark.classification
            if found.kind is Kind.READ and opens_cursor(command):
                found = _LEAVES
        elif command[4] in (COM_QUERY, COM_STMT_PREPARE):
            found = self.surroundings.classifier.classify(command[4:])
        else:
            found = _LEAVES if command[4] in _LEAVING else _STAYS
        begins = found.kind is _NEUTRAL and command[4] == COM_QUERY and _BEGIN.match(command, 5) is not None
        free = choice.decide(found, begins, self.status, self.state)
        if command[4] == COM_STMT_PREPARE:
            choice.writes = False
        return free

    def _move_to(self, statement: PreparedStatement) -> None:
        """Bind the only server session that can execute a statement, or rest the bound one until that is ready."""
        choice = self.choice
        if choice is not None:
            choice.writes = statement.remark.classification.kind is Kind.WRITE
        for session in self.pool:
            if session.prepared is statement.sole:
                self._target = session.address
                if self.bound is not None:
                    self._rest(self.bound)
                self._take_if_ready(session)
                return

    def _move(self) -> None:
        """Bind a server session at the server that the choice wants, if one is ready; else rest the present one."""
        choice, bound = self.choice, self.bound
        if choice is None or bound is None or not self.repeatable:
            return
        address = choice.address()
        if (bound.address is address or bound.address == address) and not self._must_ask(bound):
            return
        if address is None and not choice.awaits_primary():
            return
        self._target = address
        self._rest(bound)
        for session in self.pool:
            if session.address == address:
                self._take_if_ready(session)
                return

    def _take_if_ready(self, session: ServerSession) -> None:
        """Bind a server session of the pool if it is as this session wants it."""
        ready = session.synced == self.state.serial and not self._must_ask(session)
        if ready and (self.binary is None or self.binary.is_ready(session)):
            self._take(session)
            self._bind(session)

    def dress(self, server: ServerSession, command: bytes) -> bytes:
        """Return what a server must get for a command about a prepared statement; `SqlError` refuses it."""
        return self.binary.dress(server, command) if self.binary is not None else command

    def prepare(self, text: bytes | None, remark: Remark) -> None:
        """Be told of a COM_STMT_PREPARE that is about to be sent; `text` is None if it is too long to be kept.

        Raises:
            SqlError: 1461, there are too many statements.
        """
        if self.binary is None:
            self.binary = BinaryStatements()
            self.choosing = True
        self.binary.admit(text, remark)

    def prepare_own(self, text: bytes, template: Template) -> PreparedStatement:
        """Prepare a statement that the proxy executes itself.

        Raises:
            SqlError: 1461, there are too many statements.
        """
        if self.binary is None:
            self.binary = BinaryStatements()
            self.choosing = True
        return self.binary.add_own(text, template)

    def execute_own(self, statement: PreparedStatement, command: bytes) -> None:
        """Answer a command about a statement that the proxy executes itself."""

    def responded(self) -> None:
        """Be told that the response in flight has ended and was passed on."""
        if self.choosing:
            self._again = b""
            if self.choice is not None:
                self.choice.ended(self.bound)
            if self.binary is not None:
                effects = self.binary.ended(self.tracker.error, self.tracker.status)
                if effects:
                    self.state.learn(effects)
        super().responded()

    # -- what is lost -------------------------------------------------------------------------------------------------

    def stop_waiting(self, error: SqlError) -> None:
        """End the exchange whose command waits for a server session, which is not waited for any more."""
        dialogue, self.dialogue = self.dialogue, None
        self.tracker.forget()
        if dialogue is not None:
            dialogue.cancel()
        self.refuse_exchange(error)

    def refuse_exchange(self, error: OdpError) -> None:
        """Answer the exchange in flight with an error, of which not a byte was answered before; then go on clean.

        A session that cannot go on, because the proxy cannot log in again, ends after the error.
        """
        self._lost = self._refused = self._avoided = None
        self._on_end = None
        self._again = b""
        self.unsent = ()
        self.server_full(False)
        self.tracker.forget()
        self.exchange_over()
        self.send_error(error)
        self.finished(err_for(error).code)
        if self.bound is None and not self.repeatable:
            self.end(CloseReason.STATE_LOST, str(error))
        elif self.tracker.kept:
            self.go_on()

    def server_lost(self, session: ServerSession, detail: str) -> None:
        """Be told that a server session ended by itself."""
        self.counts.add("broken_server_connections")
        if session is self.bound and self._has_slept_too_long():
            self.drop(CloseReason.IDLE_TIMEOUT, "it was idle for longer than the wait_timeout that it had set")
            return
        self.surroundings.clusters.suspect(session.address)
        self.lose(session, server_lost(f"Lost connection to server {session.address}: {detail}"), retry=True)

    def _has_slept_too_long(self) -> bool:
        """Whether the client wanted to be disconnected, by a SET wait_timeout of its own: servers say nothing then."""
        seconds = self.state.value_of("wait_timeout")
        if self.mark or self.tracker.busy or not seconds.isdecimal():
            return False
        # The server's clock starts a little earlier than ours, and it may be a little early or late.
        slept: float = self.surroundings.reactor.seconds() - self.since
        return slept > int(seconds) - 0.5

    def server_broke(self, session: ServerSession, fault: WireError) -> None:
        """Be told that a server broke the protocol amid a response."""
        self._log.error(
            "server session {ss_id}: server {server} broke the protocol: {fault}",
            ss_id=session.ss_id,
            server=session.address,
            fault=legible(fault),
        )
        session.drop(CloseReason.SERVER_BROKE_PROTOCOL, str(fault))
        if isinstance(fault, FileRefused):
            error = local_files_refused()
        else:
            error = server_lost(f"Server {session.address} broke the protocol: {fault}")
        self.lose(session, error)

    def lose(self, session: ServerSession, error: SqlError, retry: bool = False) -> None:
        """Go on without a server session that has ended, and tell the client what it has to know.

        Args:
            session: ignored unless it is this session's.
            error: for the client, if it has to know; what was lost is added.
            retry: whether a read that it had not begun to answer may run once more elsewhere.
        """
        self.pool = tuple(each for each in self.pool if each is not session)
        if session is not self.bound or self.reason is not None:
            return
        self.bound = None
        self.server_full(False)
        tracker = self.tracker
        losses = self.take_losses(session)
        if losses:
            error = name_losses(error, losses)
        if not self.repeatable:
            error = SqlError(error.code, error.sqlstate, f"{error.message}; {CANNOT_REPEAT}")
        if self.mark and not tracker.awaiting:
            self.drop(CloseReason.KILLED, self.mark)
        elif not tracker.awaiting:
            if losses or not self.repeatable:
                self._lost = error
        elif tracker.answered:
            self.drop(CloseReason.SERVER_LOST, error.message)
        elif retry and not losses and self._may_run_again():
            if self.choice is not None and self.choice.purpose is Purpose.READ:
                self._avoided = session.address  # else only the primary will do: it may be back soon
            self._run_again(last=True)
        else:
            self.refuse_exchange(error)

    def _may_run_again(self) -> bool:
        choice = self.choice
        return (
            choice is not None
            and choice.reads
            and bool(self._again)
            and self.repeatable
            and self.surroundings.routing.retry_reads
        )

    def _run_again(self, last: bool) -> None:
        """Send the command in flight once more, to another server session; `last`: whatever comes of it then."""
        self.unsent = (self._again,)
        if last:
            self._again = b""
        self._target = None
        self.dressing = self.binary is not None and (self.binary.preparing or self.binary.statement is not None)
        self.server_full(True)
        self.run(self.reopen())

    def takes_back(self, session: ServerSession, response: bytes) -> bool:
        """Take back what a server refused, if it can be done all the same.

        A write that was refused because the server is no primary any more goes to the new one. Nothing was done by it,
        so it may run elsewhere; not in a transaction, whose other statements would stay behind. And a server that has
        prepared as many statements as it can is asked to close one.
        """
        if response[4:5] != b"\xff":
            return False  # of several statements in one text, an earlier one has succeeded
        code = self.tracker.error
        if code == TOO_MANY_PREPARED:
            return self._prepare_again(session)
        if code not in (_OPTION_PREVENTS, _READ_ONLY_MODE, _READ_ONLY_TENANT) or self.choice is None:
            return False
        error = parse_err(response[4:])
        if code == _OPTION_PREVENTS and "read-only" not in error.message and "read_only" not in error.message:
            return False
        clusters = self.surroundings.clusters
        clusters.suspect(session.address)
        again = self._again
        if not again or not clusters.watched or not self.repeatable or self.status & SERVER_STATUS_IN_TRANS:
            return False
        self.choice.purpose = Purpose.WRITE
        self._refused = (session.address, clusters.generation, SqlError(code, error.sqlstate, error.message))
        self.tracker.again()
        self.counts.again += 1
        self._noted = self.tracker.number
        self._rest(session)
        # It may be refused again: what has changed in the cluster need not be the primary. The deadline ends it.
        self._run_again(last=False)
        return True

    def _prepare_again(self, session: ServerSession) -> bool:
        """Send a COM_STMT_PREPARE once more, after another statement was closed; return whether that can be done."""
        again = self._again
        if self.binary is None or not self.binary.preparing or not again or not self.binary.make_room(session):
            return False
        self.tracker.again()
        self.counts.again += 1
        self._noted = self.tracker.number
        self.dressing = True
        self.forward(again)
        return True
