"""A client session: one client connection, and the server session that serves it."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Coroutine, Iterable
from typing import Any
from typing import Protocol as Shape

from attrs import evolve
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IPushProducer
from twisted.internet.protocol import connectionDone
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from odptwist.answers import Answer, Table
from odptwist.errors import CloseReason, LoginRefused, OdpError, SqlError, WireError, interrupted, server_lost
from odptwist.identity import Identity
from odptwist.machines.exchange import FORWARD, LOOK, Tracker
from odptwist.machines.session_state import SessionState
from odptwist.sessions.commands import look
from odptwist.sessions.login import Login, Peer
from odptwist.sessions.opening import Opened, open_server_session, open_side_session
from odptwist.sessions.server import LoginPlan, ServerSession
from odptwist.sessions.session import Session
from odptwist.sessions.surroundings import Surroundings
from odptwist.sessions.transport import watch_peer
from odptwist.snapshots import Asker, ClientSessionSnapshot, Privileges
from odptwist.wire.constants import (
    CLIENT_SESSION_TRACK,
    COM_QUERY,
    COM_STMT_PREPARE,
    SERVER_STATUS_AUTOCOMMIT,
    SERVER_STATUS_IN_TRANS,
    SERVER_STATUS_IN_TRANS_READONLY,
    SERVER_STATUS_NO_BACKSLASH_ESCAPES,
)
from odptwist.wire.framing import frame
from odptwist.wire.primitives import decode_text
from odptwist.wire.responses import Ok, SchemaChanged, err_for, parse_ok
from odptwist.wire.resultset import encode_table

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


@implementer(IPushProducer)
class ClientSession(Session):
    """Serves one client.

    Attributes:
        cs_id: the number in the greeting.
        proxy_sessid: ODP's number, 0 before the first server greeting.
        identity: who the client is, None before it has told.
        peer: where it comes from.
        plan: how it logged in, None before that.
        tracker: follows its exchanges; None until the login is over.
        bound: the server session that served last or serves now; None when the next statement must open one.
        state: what the client has set up.
        repeatable: whether the proxy can log in for this client again without asking it.
        transactions: how many have ended.
        warning: what the last answer of the proxy's own warned of, for SHOW WARNINGS as the next statement, or empty.
        doom: why it ends as soon as the answer in hand is out, or None.
    """

    _log = Logger()
    tracker: Any

    def __init__(self, cs_id: int, surroundings: Surroundings, keeper: Keeper) -> None:
        super().__init__(surroundings)
        self.cs_id = cs_id
        self.proxy_sessid = 0
        self.identity: Identity | None = None
        self.peer = Peer()
        self.plan: LoginPlan | None = None
        self.tracker = None
        self.bound: ServerSession | None = None
        self.state = SessionState()
        self.repeatable = False
        self.transactions = 0
        self.doom: CloseReason | None = None
        self.warning = ""
        self._warned_at = 0
        self._keeper = keeper
        self._login: Login | None = Login(self, surroundings)
        self._reopening: ServerSession | None = None
        self._dialogue: Deferred[None] | None = None
        self._timer: Any = None
        self._held = False
        self._mark = ""
        self._mark_timer: Any = None
        self._awaited: tuple[Deferred[None], ...] = ()
        self._on_end: Callable[[int], None] | None = None
        self._lost: SqlError | None = None
        self._privileges: Privileges | None = None
        self._status = 0
        self._server_full = False
        self._paused = False
        self._observed = bool(surroundings.observers)
        self._statement = b""
        self._since = surroundings.reactor.seconds()
        self._transaction_since = 0.0
        self._noted = 0

    # -- the login -----------------------------------------------------------------------------------------------

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
        self.tracker.status = self._status = parse_ok(opened.ok, plan.agreed).status
        self._learn_changes((opened.ok,))
        self._bind(opened.session)
        self.transport.write(response)
        self._log.info("client session {cs_id} opened: {identity}", cs_id=self.cs_id, identity=self.identity)
        if self._observed:
            opening = self.snapshot()
            self.surroundings.tell(lambda observer: observer.session_opened(opening))
        if rest:
            self.dataReceived(rest)

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

    # -- commands ------------------------------------------------------------------------------------------------

    def dataReceived(self, data: bytes) -> None:
        """Take a chunk of the client."""
        tracker = self.tracker
        try:
            if tracker is None:
                if self._login is not None:
                    self._login.received(data)
                return
            if self.reason is not None:
                return
            verdict = tracker.client(data)
            if verdict == FORWARD and not tracker.kept:
                self.forward(data)
            else:
                self._go_on(data, verdict)
        except WireError as fault:
            self._log.warn("client session {cs_id} broke the protocol: {fault}", cs_id=self.cs_id, fault=fault)
            self._send_error(fault)
            self.end(CloseReason.CLIENT_BROKE_PROTOCOL, str(fault))
        except Exception:  # noqa: BLE001 - a bug of ours must not take other sessions along
            self._log.failure("client session {cs_id}: a chunk could not be handled", cs_id=self.cs_id)
            self.drop(CloseReason.PROXY_FAULT, "a chunk could not be handled")

    def _go_on(self, data: bytes, verdict: int) -> None:
        """Work through what the client has sent, until something is in flight or nothing whole is left."""
        tracker = self.tracker
        while True:
            if verdict == LOOK:
                self._note(tracker.command)
                look(self, tracker.command)
            elif verdict == FORWARD:
                self.forward(data[: len(data) - len(tracker.kept)])
            else:
                break
            if tracker.busy or not tracker.kept or self.reason is not None:
                break
            data, tracker.kept = tracker.kept, b""
            verdict = tracker.client(data)
        self._mind_reading()

    def _continue(self) -> None:
        """Go on with what the client sent ahead."""
        if self.reason is None and not self.tracker.busy and self.tracker.kept:
            data, self.tracker.kept = self.tracker.kept, b""
            self.dataReceived(data)
            self._mind_reading()

    def forward(self, data: bytes, on_end: Callable[[int], None] | None = None) -> None:
        """Send a command, or a part of one, to the server.

        Args:
            data: the bytes.
            on_end: is called with the error code of the response, 0 for none, when it has ended.
        """
        if on_end is not None:
            self._on_end = on_end
        if self.tracker.number != self._noted:
            self._noted = self.tracker.number
            self._note(data[4 : 4 + _SHOWN])
        server = self.bound
        if server is not None:
            server.transport.write(data)
        elif self.tracker.awaiting:
            self.run(self._reopen(data))
        # Else it is a command without an answer, about something that went with the lost server session.

    def responded(self) -> None:
        """Be told that the response in flight has ended and was passed on."""
        tracker = self.tracker
        if tracker.status != self._status:
            self._status_changed(tracker.status)
        if self._on_end is not None:
            on_end, self._on_end = self._on_end, None
            on_end(tracker.error)
        if tracker.insert_id or tracker.changes:
            if tracker.insert_id:
                self.state.inserted(tracker.insert_id)
            self._learn_changes(tracker.changes)
        server = self.bound
        if server is not None:
            server.pickups += 1
            server.versions = self.state.versions
            if server.holds:
                # A kill of the statement that has just ended is still in flight: nothing new until it is answered.
                tracker.hold()
                self._held = True
                self._exchange_over()
        self._finished(tracker.error)
        if self._mark and not self.unfinished:
            self.end(CloseReason.KILLED, self._mark)
        elif tracker.kept:
            self._continue()

    def when_answered(self) -> Deferred[None]:
        """Fire when the exchange in flight is over, however; only for a server session that is held."""
        waiter: Deferred[None] = Deferred()
        self._awaited += (waiter,)
        return waiter

    def _exchange_over(self) -> None:
        awaited, self._awaited = self._awaited, ()
        for waiter in awaited:
            waiter.callback(None)

    def released(self) -> None:
        """Be told that a kill of a statement is over: the next one may go, unless another kill is in flight."""
        if self._held and (self.bound is None or not self.bound.holds):
            self._held = False
            self._next()

    def _status_changed(self, status: int) -> None:
        if status & SERVER_STATUS_IN_TRANS:
            if not self._status & SERVER_STATUS_IN_TRANS:
                self._transaction_since = self._since
        elif self._status & SERVER_STATUS_IN_TRANS:
            self.transactions += 1
            self.state.transaction_ended()
        self._status = status

    def _learn_changes(self, payloads: tuple[bytes, ...]) -> None:
        """Take over what session tracking tells; all but the database is learnt better from statements."""
        agreed = self.plan.agreed if self.plan is not None else 0
        if not agreed & CLIENT_SESSION_TRACK:
            return
        for payload in payloads:
            try:
                changes = parse_ok(payload, agreed).changes
            except WireError as fault:
                self._log.warn("client session {cs_id}: unreadable tracking: {fault}", cs_id=self.cs_id, fault=fault)
                continue
            for change in changes:
                if isinstance(change, SchemaChanged):
                    self.state.use(change.name)

    def _note(self, statement: bytes) -> None:
        """Remember the statement that begins."""
        self._statement = statement[:_SHOWN]
        self._since = self.surroundings.reactor.seconds()

    def _finished(self, error: int) -> None:
        """Remember that it has ended, and tell who wants to know."""
        now = self.surroundings.reactor.seconds()
        seconds, self._since = now - self._since, now
        if self._observed:
            cs_id, statement = self.cs_id, self._statement
            self.surroundings.tell(lambda observer: observer.statement_finished(cs_id, statement, seconds, error))

    # -- answers of the proxy's own ------------------------------------------------------------------------------

    def answer(self, answer: Deferred[Answer]) -> None:
        """Answer the command in hand, which the tracker has skipped, when `answer` fires."""
        self.run(self._answer(answer))

    async def _answer(self, coming: Deferred[Answer]) -> None:
        self.warning = ""
        try:
            answer = await coming
        except SqlError as refusal:
            self._send_error(refusal)
            self._answered(refusal.code)
            return
        status = self.tracker.status & _LASTING_STATUS
        agreed = self.plan.agreed if self.plan is not None else 0
        if isinstance(answer, Table):
            self.transport.write(encode_table(answer, 1, agreed, status))
        else:
            if answer.warnings:
                self.warning, self._warned_at = answer.message, self.tracker.number
            ok = Ok(0, 0, status, answer.warnings, answer.message.encode())
            self.transport.write(frame(ok.encode(agreed), 1))
        self._answered(0)

    def take_warning(self) -> str:
        """Return what the statement before warned of, if that was one of the proxy's own, and forget it."""
        warning, self.warning = self.warning, ""
        return warning if self._warned_at == self.tracker.number else ""

    def answer_error(self, error: SqlError) -> None:
        """Answer the command in hand with an error, without a server."""
        self.tracker.skip()
        self._send_error(error)
        self._answered(error.code)

    def _answered(self, error: int) -> None:
        self._finished(error)
        if self.doom is not None:
            self.end(self.doom, reset=True)
            return
        if self.tracker.kept:
            # Not at once: a client that sends thousands of proxy statements ahead must not keep the others waiting.
            self.surroundings.reactor.callLater(0, self._next)
        else:
            self.tracker.done()

    def _next(self) -> None:
        if self.reason is None:
            self.tracker.done()
            self._continue()

    def _send_error(self, error: OdpError) -> None:
        self.transport.write(frame(err_for(error).encode(), 1))

    # -- server sessions that end --------------------------------------------------------------------------------

    async def _reopen(self, data: bytes) -> None:
        """Open another server session, give it this session's state, and send it the command that waits."""
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
        else:
            self._bind(opened.session)
            self.forward(data)

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
        self.tracker.forget()
        self._exchange_over()
        self._send_error(error)
        self._finished(err_for(error).code)
        if self.bound is None and not self.repeatable:
            self.end(CloseReason.STATE_LOST, str(error))
        elif self.tracker.kept:
            self._continue()

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
        self._status = tracker.status
        if losses:
            error = SqlError(error.code, error.sqlstate, f"{error.message}; lost: {', '.join(losses)}")
        if not self.repeatable:
            error = SqlError(error.code, error.sqlstate, f"{error.message}; {_CANNOT_REPEAT}")
        if self._mark and not tracker.awaiting:
            self.drop(CloseReason.KILLED, self._mark)
        elif not tracker.awaiting:
            tracker.statements = None
            if losses or not self.repeatable:
                self._lost = error
        elif not tracker.answered:
            self._fail_exchange(error)
        else:
            self.drop(CloseReason.SERVER_LOST, error.message)

    # -- for the registry ----------------------------------------------------------------------------------------

    @property
    def statement_running(self) -> bool:
        """Whether a server works for this session now."""
        return self.tracker is not None and self.tracker.awaiting

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
        in_transaction = bool(self._status & SERVER_STATUS_IN_TRANS)
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
            seconds=now - self._since,
            transaction_seconds=now - self._transaction_since if in_transaction else 0.0,
            statement=decode_text(self._statement[1:]) if self._statement[:1] in _WITH_TEXT else "",
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
            side: ServerSession | None = None
            if bound is None or bound.in_dialogue or self.statement_running:
                if self.plan is None or not self.repeatable:
                    return Privileges.NONE
                address = self.surroundings.servers_for(self.plan.identity)[0]
                bound = side = await open_side_session(self.surroundings, self.plan, address)
            try:
                result = await bound.query("SHOW GRANTS")
            finally:
                if side is not None:
                    side.quit()
            self._privileges = _privileges((row[0] or b"").decode("utf-8", "replace") for row in result.rows)
        return self._privileges

    # -- flow control: each side is read as fast as the other takes it --------------------------------------------

    def pauseProducing(self) -> None:
        """Stop reading from the server: the client does not take more."""
        if self.bound is not None:
            self.bound.transport.pauseProducing()

    def resumeProducing(self) -> None:
        """Go on reading from the server."""
        if self.bound is not None:
            self.bound.transport.resumeProducing()

    def stopProducing(self) -> None:
        """Be told that the connection ends; `connectionLost` follows."""

    def server_full(self, full: bool) -> None:
        """Be told whether the server has stopped taking what the client sends."""
        self._server_full = full
        self._mind_reading()

    def _mind_reading(self) -> None:
        """Read from the client unless the server is full, or too much waits for the response in flight."""
        if self.reason is not None:
            return
        pause = self._server_full or (len(self.tracker.kept) > _AHEAD_LIMIT and self.tracker.busy)
        if pause is not self._paused:
            self._paused = pause
            if pause:
                self.transport.pauseProducing()
                self.surroundings.paused.watch(self)
            else:
                self.surroundings.paused.forget(self)
                self.transport.resumeProducing()

    # -- ends ----------------------------------------------------------------------------------------------------

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
            self._send_error(interrupted(why))
            self.end(CloseReason.KILLED, why)
        return running

    @property
    def unfinished(self) -> bool:
        """Whether a statement runs or a transaction is open."""
        return self.statement_running or bool(self._status & SERVER_STATUS_IN_TRANS)

    def mark(self, why: str, seconds: float | None) -> None:
        """End as soon as nothing is unfinished, or when the time is up; a second mark replaces the first."""
        self._mark = why
        if self._mark_timer is not None:
            self._mark_timer.cancel()
            self._mark_timer = None
        if seconds is not None:
            self._mark_timer = self.surroundings.reactor.callLater(seconds, self._time_is_up)

    def _time_is_up(self) -> None:
        self._mark_timer = None
        self._keeper.kill_marked(self, self._mark)

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
        self._exchange_over()
        dialogue, self._dialogue = self._dialogue, None
        if dialogue is not None:
            dialogue.cancel()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Have ended, by whatever cause."""
        last = self.snapshot() if self._observed else None
        self._close(CloseReason.CLIENT_LOST, reason.getErrorMessage())
        why, detail = self.reason or CloseReason.CLIENT_LOST, self.detail
        self._log.info(
            "client session {cs_id} closed: {reason} {detail}", cs_id=self.cs_id, reason=why.value, detail=detail
        )
        self._keeper.forget(self)
        if last is not None:
            self.surroundings.tell(lambda observer: observer.session_closed(last, why, detail))
        super().connectionLost(reason)

    def run(self, dialogue: Coroutine[Any, Any, None]) -> None:
        """Start the one dialogue that may be under way; it is cancelled when the session ends."""
        running = Deferred.fromCoroutine(dialogue)
        if not running.called:
            # Else it is over, and may have started another one that must stay in its place.
            self._dialogue = running
        running.addErrback(self._dialogue_failed)

    def _dialogue_failed(self, failure: Failure) -> None:
        if not failure.check(CancelledError) or self.reason is None:
            self._log.failure("client session {cs_id}: a dialogue failed", failure, cs_id=self.cs_id)
            self.drop(CloseReason.PROXY_FAULT, "a dialogue failed")


def _privileges(grants: Iterable[str]) -> Privileges:
    """Read the lines of SHOW GRANTS: only what is granted on everything counts."""
    found = Privileges.NONE
    for line in grants:
        granted, on, _ = line.upper().partition(" ON *.* TO ")
        if not on:
            continue
        names = {name.strip() for name in granted.removeprefix("GRANT ").split(",")}
        if names & {"ALL PRIVILEGES", "ALL", "SUPER", "CONNECTION ADMIN", "CONNECTION_ADMIN"}:
            found |= Privileges.SUPER
        if names & {"ALL PRIVILEGES", "ALL", "PROCESS"}:
            found |= Privileges.PROCESS
    return found
