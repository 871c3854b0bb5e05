"""A client session: who the client is, its login, and how it ends.

Some lines over 400: each way to begin or to end has to leave the same few things in order, timers and counts too.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from typing import Protocol as Shape

from twisted.internet.protocol import connectionDone
from twisted.logger import Logger
from twisted.python.failure import Failure

from odptwist.errors import INTERRUPTED, CloseReason, SqlError, TooManyConnections, interrupted
from odptwist.identity import Identity, legible
from odptwist.interfaces import IStatements
from odptwist.machines.exchange import Tracker, WatchfulTracker
from odptwist.machines.prepared import PreparedStatement
from odptwist.sessions.admission import Admission
from odptwist.sessions.arrival import Arrival
from odptwist.sessions.choice import Choice
from odptwist.sessions.commands import look
from odptwist.sessions.compression import compress_client
from odptwist.sessions.cures import expect_eof, expect_state_change
from odptwist.sessions.deadlines import Deadline
from odptwist.sessions.dialogue import LoginPlan
from odptwist.sessions.encryption import explain
from odptwist.sessions.grants import told_privileges
from odptwist.sessions.guarded import guard_login
from odptwist.sessions.history import DETAIL_SIZE
from odptwist.sessions.kill import Told
from odptwist.sessions.listener import Listener
from odptwist.sessions.login import Login
from odptwist.sessions.opening import Opened
from odptwist.sessions.own_statements import execute_own
from odptwist.sessions.peer import NOBODY, Peer
from odptwist.sessions.server import ServerSession
from odptwist.sessions.serverless import look_serverless
from odptwist.sessions.showing import Showing
from odptwist.sessions.surroundings import Surroundings
from odptwist.sessions.transport import watch_peer
from odptwist.snapshots import EndedSession, HeaderPolicy, SessionKind
from odptwist.wire.constants import (
    CLIENT_DEPRECATE_EOF,
    CLIENT_SESSION_TRACK,
    COM_CHANGE_USER,
    COM_INIT_DB,
    COM_QUERY,
    COM_SET_OPTION,
    SERVER_STATUS_AUTOCOMMIT,
    SERVER_STATUS_IN_TRANS,
)
from odptwist.wire.framing import Deframer, frame
from odptwist.wire.proxy_header import ProxyHeader
from odptwist.wire.responses import err_for, parse_ok


class Keeper(Shape):
    """Who keeps client sessions.

    Attributes:
        admission: says who may come in.
    """

    admission: Admission

    def forget(self, session: ClientSession) -> None:
        """Be told that a session has ended."""

    def abandoned(self, session: ClientSession, running: ServerSession) -> None:
        """Be given a server session that runs a statement of a client session that has just ended."""

    def kill_marked(self, session: ClientSession, why: str) -> None:
        """Be told that the time of a marked session is up."""

    def stop_statement(self, session: ClientSession, error: SqlError) -> None:
        """Be told that what a session runs takes too long; its client is to be told the error."""


class ClientSession(Showing):
    """Serves one client.

    Attributes:
        listener: where the client came in.
        told: what servers were told by KILL QUERY of the statement that runs.
        counted_host: the address that it counts for, see `Admission`.
        counted_user: the user that it counts for.
    """

    __slots__ = (
        "_arrival",
        "_deadline",
        "_keeper",
        "_mark_timer",
        "_taken",
        "counted_host",
        "counted_user",
        "listener",
        "told",
    )

    _log = Logger()

    def __init__(self, cs_id: int, surroundings: Surroundings, keeper: Keeper, listener: Listener) -> None:
        super().__init__(cs_id, surroundings)
        self.listener = listener
        self.told = Told()
        self.counted_host: str | None = None
        self.counted_user: Identity | None = None
        self._keeper = keeper
        self._login = Login(self, surroundings)
        self._arrival: Arrival | None = None
        self._deadline: Deadline | None = None
        self._mark_timer: Any = None
        self._taken: ServerSession | None = None

    # -- the login ----------------------------------------------------------------------------------------------------

    def connectionMade(self) -> None:
        """Be connected: find out where the client comes from, and greet."""
        transport = self.transport
        watch_peer(transport)
        transport.registerProducer(self, True)
        if self.peer is NOBODY:
            self.peer = Peer.of(transport)
        if not self._is_let_in(self._keeper.admission.enter):
            return
        timeout = self.surroundings.limits.login_timeout
        if timeout:
            self._deadline = self.surroundings.deadlines.begin(timeout, self._login_took_too_long)
        self._arrival = Arrival(self, self.surroundings.reactor)
        self._arrival.begin()

    def _login_took_too_long(self) -> None:
        self.drop(CloseReason.LOGIN_TIMEOUT)

    def came_from(self, header: ProxyHeader) -> None:
        """Be told by a load balancer where the client comes from, rarely after the greeting."""
        if self._login is not None:
            self._login.header = header
        if header.source is not None:
            self.peer = Peer(header.source.host, header.source.port)
            self._is_let_in(self._keeper.admission.locate)

    def begin_login(self) -> None:
        """Greet, because it is known where the client comes from, or nothing more is awaited."""
        if self._login is not None and self._is_let_in(self._keeper.admission.locate):
            self._login.begin()

    def _is_let_in(self, ask: Callable[[ClientSession], None]) -> bool:
        """Ask whether the client may come in, and end with an ERR in the place of the greeting if not."""
        if self.reason is not None:
            return False
        try:
            ask(self)
        except TooManyConnections as refusal:
            # What it understands is not known yet.
            self.transport.write(frame(err_for(refusal).encode(with_state=False), 0))
            self.end(CloseReason.TOO_MANY_CONNECTIONS, refusal.message)
            return False
        return True

    def named(self, identity: Identity) -> None:
        """Be told who the client says it is; `TooManyConnections` refuses it."""
        self.identity = identity
        self._keeper.admission.name(self, identity)

    def proved(self, identity: Identity) -> None:
        """Be told that the client is that user; `TooManyConnections` if that one has too many."""
        self.identity = identity
        self._keeper.admission.prove(self, identity)

    def check_room(self, identity: Identity) -> None:
        """Raise `TooManyConnections` if this user has too many to become it."""
        self._keeper.admission.check(self, identity)

    def login_received(self, data: bytes) -> None:
        """Take bytes of the client before the login is over."""
        if self._arrival is not None:
            rest = self._arrival.received(data)
            if rest is None:
                return
            self._arrival = None
            data = rest
        if self._login is not None and data:
            self._login.received(data)

    def logged_in(self, plan: LoginPlan, opened: Opened, response: bytes, rest: bytes) -> None:
        """Go over to commands.

        Args:
            plan: who the client is, and how it logged in.
            opened: the server session, now this session's own.
            response: the bytes that tell the client.
            rest: what the client has sent ahead.
        """
        self.plan = plan
        self.repeatable = plan.can_repeat(opened.session.greeting)
        if len(self.surroundings.clusters.standings(plan.identity.cluster)) > 1:
            self.choice = Choice(self.surroundings, plan.identity)
            self.choosing = True
        if plan.response.database:
            self.state.use(plan.response.database)
        self.tracker = Tracker(plan.agreed, self.surroundings.plain)
        ok = parse_ok(opened.ok, plan.agreed)
        self.tracker.status = self.status = ok.status
        self._privileges = told_privileges(ok)
        self.learn_changes((opened.ok,))
        opened.session.client = self
        self._bind(opened.session)
        self._enter(plan, response, rest)

    def admitted(self, plan: LoginPlan, statements: IStatements, response: bytes, rest: bytes) -> None:
        """Go over to commands that the proxy alone will answer; the arguments are as in `logged_in`."""
        self.plan = plan
        self.statements = statements
        self.tracker = WatchfulTracker(plan.agreed, self.surroundings.plain)
        self.tracker.status = self.status = SERVER_STATUS_AUTOCOMMIT
        self._enter(plan, response, rest)

    def _enter(self, plan: LoginPlan, response: bytes, rest: bytes) -> None:
        if plan.response.attributes:
            said = {each.name: each.value for each in plan.response.attributes}
            self._names = (said.get("program_name", ""), said.get("_client_name", ""), said.get("_client_version", ""))
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None
        self._login = None
        self.since = self.surroundings.reactor.seconds()
        self.transport.write(response)
        receive: Callable[[bytes], None] = self.dataReceived
        how = self.surroundings.compression.for_client(plan.response.capabilities, plan.response.zstd_level)
        if how is not None:
            receive = compress_client(self, how)
        if self.surroundings.limits.log_sessions:
            self._log.info(
                "client session {cs_id} opened: {identity}", cs_id=self.cs_id, identity=legible(self.identity)
            )
        if self.observed:
            opening = self.snapshot()
            self.surroundings.tell(lambda observer: observer.session_opened(opening))
        if rest:
            receive(rest)

    def look(self, command: bytes) -> None:
        """Decide about a command that may concern the proxy."""
        if self.statements is None:
            look(self, command)
        else:
            look_serverless(self, self.statements, command)

    def execute_own(self, statement: PreparedStatement, command: bytes) -> None:
        """Answer a command about a statement that the proxy executes itself."""
        execute_own(self, self.surroundings.statements, statement, command)

    def became(self, plan: LoginPlan, repeatable: bool) -> None:
        """Be another user from now on, in a fresh session."""
        try:
            self.proved(plan.identity)
        except TooManyConnections as refusal:
            # Others were faster while the server was asked.
            self.drop(CloseReason.TOO_MANY_CONNECTIONS, refusal.message)
            return
        self.plan = plan
        self.repeatable = repeatable
        self._privileges = None
        self.was_reset(plan.response.database)

    def was_reset(self, database: str | None) -> None:
        """Be in a fresh session from now on."""
        self.state.reset(database)
        if self.choice is not None:
            self.choice.was_reset()
        if self.binary is not None:
            self.binary.clear(self.bound)
        pool, self.pool = self.pool, ()
        for session in pool:
            session.quit()

    def dress(self, server: ServerSession, command: bytes) -> bytes:
        """Return what a server must get for a command about a prepared statement, or a user: `SqlError` refuses it."""
        if command[4] == COM_CHANGE_USER:
            guard_login(server, self.is_secure, self.peer.host)
            return command
        if command[4] == COM_SET_OPTION:
            if not server.agreed & CLIENT_DEPRECATE_EOF:
                expect_eof(server)
            return command
        if command[4] == COM_QUERY or command[4] == COM_INIT_DB:
            if server.agreed & (CLIENT_DEPRECATE_EOF | CLIENT_SESSION_TRACK) == CLIENT_SESSION_TRACK:
                expect_state_change(server)
            return command
        return super().dress(server, command)

    # -- ends ---------------------------------------------------------------------------------------------------------

    def quit(self) -> None:
        """End because the client said so; its server session ends in good order too."""
        for session in self.server_sessions:
            session.quit()
        self.end(CloseReason.CLIENT_QUIT)

    def kill(self, why: str) -> ServerSession | None:
        """End because somebody said so; the client is told if it waits for an answer that has not begun.

        Returns:
            The server session that still runs a statement of it, if one does: it is the caller's now, to stop it on
            its server and to drop it.
        """
        waits = self.statement_running and not self.tracker.sending and not self.tracker.answered
        running = self._take_running()
        if not waits:
            self.drop(CloseReason.KILLED, why)
        else:
            self.send_error(interrupted(why))
            self.end(CloseReason.KILLED, why)
        return running

    def takes_back(self, session: ServerSession, response: bytes) -> bool:
        """Be shown an error that is a whole response, and say whether it is kept from the client.

        What says that the statement was interrupted is replaced by an error that says who did it, or which limit.
        """
        told = self.told.error
        if self.tracker.error == INTERRUPTED and session.holds and told is not None:
            last = Deframer(len(response)).receive(response)[-1]
            error = frame(err_for(told).encode(), last.sequence)
            self.transport.write(response[: -4 - len(last.payload)] + error)
            self.responded()
            return True
        return super().takes_back(session, response)

    def time_out(self, reason: CloseReason, error: SqlError) -> None:
        """End, because the client has paused for too long, and tell it."""
        self.send_error(error)
        # A program that reconnects by itself must not do so within a transaction: it would go on without what it lost.
        self.end(reason, error.message, reset=not self.status & SERVER_STATUS_IN_TRANS)

    def stop_statement(self, error: SqlError) -> None:
        """Have what runs stopped on its server, because it takes too long; the client is told the error."""
        self._keeper.stop_statement(self, error)

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
            running.transaction_lost = bool(self.status & SERVER_STATUS_IN_TRANS)
            running.owner = self.bound = None
            self._taken = running
        return running

    def _opening(self, server: ServerSession | None) -> None:
        super()._opening(server)
        if server is not None:
            server.client = self

    def obituary(self) -> EndedSession | None:
        """Return what the history is to remember; None if the client never said who it is, and nobody ended it.

        Load balancers connect so every few seconds, to find out whether the proxy is there. And who finds no room tries
        again and again.
        """
        if self.identity is None and self.reason in (CloseReason.CLIENT_LOST, CloseReason.TOO_MANY_CONNECTIONS):
            return None
        server = self.bound or self._taken
        now = self.surroundings.reactor.seconds()
        return EndedSession(
            ended_at=now,
            kind=SessionKind.CLIENT,
            cs_id=self.cs_id,
            ss_id=server.ss_id if server is not None else 0,
            seconds=now - self.began,
            identity=self.identity,
            host=self.peer.host,
            port=self.peer.port,
            server=server.address if server is not None else None,
            server_sessid=server.server_sessid if server is not None else 0,
            reason=self.reason or CloseReason.CLIENT_LOST,
            detail=self.detail[:DETAIL_SIZE],
            statement=self.text,
            bytes_in=self.bytes_in,
            bytes_out=self.bytes_out,
            statements=self.command_count,
            transaction_lost=bool(self.status & SERVER_STATUS_IN_TRANS),
        )

    @property
    def is_logged(self) -> bool:
        """Whether its end is for the log: not where a load balancer has only looked whether the proxy is there."""
        if self.listener.headers is HeaderPolicy.OFF or self.identity is not None:
            return super().is_logged
        # In the first version of the header HAProxy's checks have its own address.
        from_balancer = self.peer.host == Peer.of(self.transport).host
        return not (from_balancer and self.reason is CloseReason.CLIENT_LOST)

    def closing(self) -> None:
        """End all that belongs to this session but its own transport."""
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None
        if self._mark_timer is not None:
            if self._mark_timer.active():
                self._mark_timer.cancel()
            self._mark_timer = None
        if self._arrival is not None:
            self._arrival.stop()
        if self._paused:
            self.surroundings.paused.forget(self)
        running = self._take_running() if self.surroundings.limits.stop_abandoned else None
        for session in self.server_sessions:
            session.drop(CloseReason.CLIENT_SESSION_ENDED)
        self.bound = None
        self.pool = ()
        if running is not None:
            self._keeper.abandoned(self, running)
        self.exchange_over()
        dialogue, self.dialogue = self.dialogue, None
        if dialogue is not None:
            dialogue.cancel()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Have ended, by whatever cause."""
        last = self.snapshot() if self.observed else None
        securing = self._login is not None and self._login.securing
        self._close(CloseReason.TLS_FAILED if securing else CloseReason.CLIENT_LOST, explain(reason))
        why, detail = self.reason or CloseReason.CLIENT_LOST, self.detail
        if self.is_logged:
            self._log.info(
                "client session {cs_id} closed: {reason} {detail}",
                cs_id=self.cs_id,
                reason=why.value,
                detail=legible(detail),
            )
        self._keeper.forget(self)
        if last is not None:
            self.surroundings.tell(lambda observer: observer.session_closed(last, why, detail))
        super().connectionLost(reason)
