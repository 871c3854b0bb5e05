"""A client session: who the client is, the server session that serves it, and how both end.

Some lines over 400: the ends and losses of a session belong into one room, where each can be held against the others.
"""

from __future__ import annotations

import os
import threading
from typing import Any
from typing import Protocol as Shape

from attrs import evolve
from twisted.internet.defer import CancelledError
from twisted.internet.protocol import connectionDone
from twisted.logger import Logger
from twisted.python.failure import Failure

from odptwist.errors import CloseReason, LoginRefused, OdpError, SqlError, WireError, interrupted, server_lost
from odptwist.identity import Identity
from odptwist.machines.exchange import Tracker
from odptwist.sessions.commands import look
from odptwist.sessions.conversation import Conversation
from odptwist.sessions.grants import read_privileges
from odptwist.sessions.kill import Told
from odptwist.sessions.login import Login, Peer
from odptwist.sessions.opening import Opened, open_server_session, open_side_session
from odptwist.sessions.server import LoginPlan, ServerSession
from odptwist.sessions.surroundings import Surroundings
from odptwist.sessions.transport import watch_peer
from odptwist.snapshots import Asker, ClientSessionSnapshot, Privileges, Purpose
from odptwist.wire.constants import (
    COM_QUERY,
    COM_STMT_PREPARE,
    SERVER_STATUS_AUTOCOMMIT,
    SERVER_STATUS_IN_TRANS,
    SERVER_STATUS_IN_TRANS_READONLY,
    SERVER_STATUS_NO_BACKSLASH_ESCAPES,
)
from odptwist.wire.primitives import decode_text
from odptwist.wire.responses import err_for, parse_ok

# What a client may send ahead of the response in flight before its reading is paused.
_AHEAD_LIMIT = 64 * 1024
# The status flags that a client may rely on between its statements; the proxy's own answers repeat them.
_LASTING_STATUS = (
    SERVER_STATUS_AUTOCOMMIT
    | SERVER_STATUS_IN_TRANS
    | SERVER_STATUS_IN_TRANS_READONLY
    | SERVER_STATUS_NO_BACKSLASH_ESCAPES
)
# How much of a statement observers are shown: the command byte and 1,024 bytes.
_SHOWN = 1025
_WITH_TEXT = (bytes((COM_QUERY,)), bytes((COM_STMT_PREPARE,)))
_CANNOT_REPEAT = "the proxy cannot log in again for this account"


class Keeper(Shape):
    """Who keeps client sessions."""

    def forget(self, session: ClientSession) -> None:
        """Be told that a session has ended."""

    def abandoned(self, session: ClientSession, running: ServerSession) -> None:
        """Be given a server session that runs a statement of a client session that has just ended."""

    def kill_marked(self, session: ClientSession, why: str) -> None:
        """Be told that the time of a marked session is up."""


class ClientSession(Conversation):
    """Serves one client.

    Attributes:
        proxy_sessid: ODP's number, 0 before the first server greeting.
        identity: who the client is, None before it has told.
        peer: where it comes from.
        repeatable: whether the proxy can log in for this client again without asking it.
        told: what servers were told by KILL QUERY of the statement that runs.
    """

    _log = Logger()

    def __init__(self, cs_id: int, surroundings: Surroundings, keeper: Keeper) -> None:
        super().__init__(cs_id, surroundings)
        self.proxy_sessid = 0
        self.identity: Identity | None = None
        self.peer = Peer()
        self.repeatable = False
        self.told = Told()
        self._keeper = keeper
        self._login: Login | None = Login(self, surroundings)
        self._reopening: ServerSession | None = None
        self._timer: Any = None
        self._mark_timer: Any = None
        self._lost: SqlError | None = None
        self._privileges: Privileges | None = None

    # -- the login ----------------------------------------------------------------------------------------------------

    def connectionMade(self) -> None:
        """Be connected: greet."""
        transport = self.transport
        watch_peer(transport)
        transport.registerProducer(self, True)
        peer = transport.getPeer()
        self.peer = Peer(getattr(peer, "host", ""), getattr(peer, "port", 0))
        self._timer = self.surroundings.reactor.callLater(
            self.surroundings.limits.login_timeout, self.drop, CloseReason.LOGIN_TIMEOUT
        )
        if self._login is not None:
            self.run(self._login.greet())

    def login_received(self, data: bytes) -> None:
        """Take bytes of the client before the login is over."""
        if self._login is not None:
            self._login.received(data)

    def logged_in(self, plan: LoginPlan, opened: Opened, response: bytes, rest: bytes) -> None:
        """Go over to commands.

        Args:
            plan: who the client is, and how it logged in.
            opened: the server session, now this session's own.
            response: the bytes that tell the client.
            rest: what the client has sent ahead.
        """
        self._timer.cancel()
        self._timer = None
        self._login = None
        self.plan = plan
        self.repeatable = not plan.response.auth_response
        if plan.response.database:
            self.state.use(plan.response.database)
        self.tracker = Tracker(plan.agreed, self.surroundings.plain)
        self.tracker.status = self.status = parse_ok(opened.ok, plan.agreed).status
        self.learn_changes((opened.ok,))
        self._bind(opened.session)
        self.transport.write(response)
        self._log.info("client session {cs_id} opened: {identity}", cs_id=self.cs_id, identity=self.identity)
        if self.observed:
            opening = self.snapshot()
            self.surroundings.tell(lambda observer: observer.session_opened(opening))
        if rest:
            self.dataReceived(rest)

    def look(self, command: bytes) -> None:
        """Decide about a command that may concern the proxy."""
        look(self, command)

    def became(self, plan: LoginPlan, repeatable: bool) -> None:
        """Be another user from now on, in a fresh session."""
        self.plan = plan
        self.identity = plan.identity
        self.repeatable = repeatable
        self._privileges = None
        self.was_reset(plan.response.database)

    def was_reset(self, database: str | None) -> None:
        """Be in a fresh session from now on."""
        self.state.reset(database)
        self.tracker.statements = None

    # -- server sessions that end -------------------------------------------------------------------------------------

    async def reopen(self) -> None:
        """Open another server session, give it this session's state, and send it what is `unsent`."""
        plan = self.plan
        if self._lost is not None or not self.repeatable or plan is None:
            self._fail_exchange(self._lost or server_lost(f"The server session ended; {_CANNOT_REPEAT}"))
            return
        plan = evolve(plan, response=evolve(plan.response, database=self.state.database))
        try:
            opened = await open_server_session(self.surroundings, plan, self._opening, lambda greeting: None)
            await self._replay(opened.session)
        except LoginRefused as refusal:
            self.repeatable = False
            self._fail_exchange(refusal)
        except OdpError as fault:
            self._fail_exchange(fault)
        except CancelledError:
            if self.reason is not None or self.tracker.awaiting:
                raise
            # Else it was stopped, and whoever did that has answered.
        else:
            self._bind(opened.session)
            data, self.unsent = b"".join(self.unsent), ()
            self.forward(data)
            self.server_full(False)

    def stop_waiting(self, error: SqlError) -> None:
        """End the exchange whose command waits for a server session, which is not waited for any more."""
        dialogue, self.dialogue = self.dialogue, None
        self.tracker.forget()
        if dialogue is not None:
            dialogue.cancel()
        self._fail_exchange(error)

    async def _replay(self, server: ServerSession) -> None:
        try:
            for statement in self.state.replay():
                result = await server.query(statement)
                if result.error is not None:
                    raise SqlError(result.error.code, result.error.sqlstate, result.error.message)
        except BaseException:
            server.drop(CloseReason.STATE_LOST)
            raise

    def _opening(self, server: ServerSession | None) -> None:
        self._reopening = server

    def _bind(self, server: ServerSession) -> None:
        self.bound = server
        server.owner = self
        server.versions = self.state.versions

    def _fail_exchange(self, error: OdpError) -> None:
        """Answer the exchange in flight with an error, of which not a byte was answered before; then go on clean.

        A session that cannot go on, because the proxy cannot log in again, ends after the error.
        """
        self._lost = None
        self._on_end = None
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
        self.lose(session, server_lost(f"Lost connection to server {session.address}: {detail}"))

    def server_broke(self, session: ServerSession, fault: WireError) -> None:
        """Be told that a server broke the protocol amid a response."""
        self._log.error(
            "server session {ss_id}: server {server} broke the protocol: {fault}",
            ss_id=session.ss_id,
            server=session.address,
            fault=fault,
        )
        session.drop(CloseReason.SERVER_BROKE_PROTOCOL, str(fault))
        self.lose(session, server_lost(f"Server {session.address} broke the protocol: {fault}"))

    def lose(self, session: ServerSession, error: SqlError) -> None:
        """Go on without a server session that has ended, and tell the client what it has to know.

        Args:
            session: ignored unless it is the bound one.
            error: for the client, if it has to know; what was lost is added.
        """
        if session is not self.bound or self.reason is not None:
            return
        self.bound = None
        self.server_full(False)
        tracker = self.tracker
        losses = sorted(self.state.pins)
        if tracker.statements:
            losses.append("prepared statements")
        if tracker.status & SERVER_STATUS_IN_TRANS:
            losses.insert(0, "the transaction, which was rolled back")
        self.state.pins.clear()
        tracker.status &= ~SERVER_STATUS_IN_TRANS
        self.status = tracker.status
        if losses:
            error = SqlError(error.code, error.sqlstate, f"{error.message}; lost: {', '.join(losses)}")
        if not self.repeatable:
            error = SqlError(error.code, error.sqlstate, f"{error.message}; {_CANNOT_REPEAT}")
        if self.mark and not tracker.awaiting:
            self.drop(CloseReason.KILLED, self.mark)
        elif not tracker.awaiting:
            tracker.statements = None
            if losses or not self.repeatable:
                self._lost = error
        elif not tracker.answered:
            self._fail_exchange(error)
        else:
            self.drop(CloseReason.SERVER_LOST, error.message)

    # -- for the registry ---------------------------------------------------------------------------------------------

    @property
    def server_sessions(self) -> tuple[ServerSession, ...]:
        """All server sessions, those that are logging in included."""
        logging_in = self._login.opening if self._login is not None else None
        return tuple(session for session in (self.bound, self._reopening, logging_in) if session is not None)

    def asker(self) -> Asker:
        """Return who this session is when it asks about sessions. Only after the login."""
        if self.identity is None:
            raise AssertionError("a statement before the login")
        return Asker(self.cs_id, self.identity, self._privileges)

    def snapshot(self) -> ClientSessionSnapshot:
        """Return a frozen picture."""
        running = self.statement_running
        sessions = self.server_sessions
        now = self.surroundings.reactor.seconds()
        in_transaction = bool(self.status & SERVER_STATUS_IN_TRANS)
        return ClientSessionSnapshot(
            proxy_sessid=self.proxy_sessid,
            cs_id=self.cs_id,
            identity=self.identity,
            host=self.peer.host,
            port=self.peer.port,
            database=self.state.database,
            transactions=self.transactions,
            state="MCS_ACTIVE_READER" if self.reason is None else "MCS_CLOSED",
            busy=running,
            in_transaction=in_transaction,
            tid=threading.get_native_id(),
            pid=os.getpid(),
            versions=self.state.versions,
            bound=sessions[0].snapshot(running, bool(self.state.insert_id)) if sessions else None,
            seconds=now - self.since,
            transaction_seconds=now - self.transaction_since if in_transaction else 0.0,
            statement=decode_text(self.statement[1:]) if self.statement[:1] in _WITH_TEXT else "",
            program=self._program(),
            pins=tuple(sorted(self.state.pins)),
        )

    def _program(self) -> str:
        """Return what the client called itself in its connect attributes, or an empty string."""
        attributes = self.plan.response.attributes if self.plan is not None else ()
        return next((each.value for each in attributes if each.name == "program_name"), "")

    async def privileges(self) -> Privileges:
        """Return what the server grants this session's account; it is asked once.

        Raises:
            OdpError: no server could be asked.
        """
        if self._privileges is None:
            bound = self.bound
            if bound is not None and not bound.in_dialogue and not self.statement_running:
                self._privileges = await read_privileges(bound)
            elif self.plan is not None and self.repeatable:
                addresses = self.surroundings.servers_for(self.plan.identity, Purpose.LOGIN)
                if not addresses:
                    return Privileges.NONE
                side = await open_side_session(self.surroundings, self.plan, addresses[0])
                try:
                    self._privileges = await read_privileges(side)
                finally:
                    side.quit()
            else:
                return Privileges.NONE
        return self._privileges

    # -- ends ---------------------------------------------------------------------------------------------------------

    def quit(self) -> None:
        """End because the client said so; its server session ends in good order too."""
        if self.bound is not None:
            self.bound.quit()
        self.end(CloseReason.CLIENT_QUIT)

    def kill(self, why: str) -> ServerSession | None:
        """End because somebody said so; the client is told if it waits for an answer that has not begun.

        Returns:
            The server session that still runs a statement of it, if one does: it is the caller's now, to stop it on
            its server and to drop it.
        """
        running = self._take_running()
        if running is None or self.tracker.answered:
            self.drop(CloseReason.KILLED, why)
        else:
            self.send_error(interrupted(why))
            self.end(CloseReason.KILLED, why)
        return running

    def mark_for_end(self, why: str, seconds: float | None) -> None:
        """End as soon as nothing is unfinished, or when the time is up; a second mark replaces the first."""
        self.mark = why
        if self._mark_timer is not None:
            self._mark_timer.cancel()
            self._mark_timer = None
        if seconds is not None:
            self._mark_timer = self.surroundings.reactor.callLater(seconds, self._time_is_up)

    def _time_is_up(self) -> None:
        self._mark_timer = None
        self._keeper.kill_marked(self, self.mark)

    def _take_running(self) -> ServerSession | None:
        """Let go of the server session that runs a statement, if one does; not if it has only a part of one."""
        running = self.bound if self.statement_running and not self.tracker.sending else None
        if running is not None:
            running.owner = self.bound = None
        return running

    def closing(self) -> None:
        """End all that belongs to this session but its own transport."""
        for timer in (self._timer, self._mark_timer):
            if timer is not None and timer.active():
                timer.cancel()
        self._timer = self._mark_timer = None
        if self._paused:
            self.surroundings.paused.forget(self)
        running = self._take_running() if self.surroundings.stop_abandoned else None
        for session in self.server_sessions:
            session.drop(CloseReason.CLIENT_SESSION_ENDED)
        self.bound = None
        if running is not None:
            self._keeper.abandoned(self, running)
        self.exchange_over()
        dialogue, self.dialogue = self.dialogue, None
        if dialogue is not None:
            dialogue.cancel()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Have ended, by whatever cause."""
        last = self.snapshot() if self.observed else None
        self._close(CloseReason.CLIENT_LOST, reason.getErrorMessage())
        why, detail = self.reason or CloseReason.CLIENT_LOST, self.detail
        self._log.info(
            "client session {cs_id} closed: {reason} {detail}", cs_id=self.cs_id, reason=why.value, detail=detail
        )
        self._keeper.forget(self)
        if last is not None:
            self.surroundings.tell(lambda observer: observer.session_closed(last, why, detail))
        super().connectionLost(reason)
