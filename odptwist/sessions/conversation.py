"""What a client and its server say to each other: commands, responses, and the proxy's own answers in between."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Coroutine, Iterator, Sequence
from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IPushProducer
from twisted.internet.task import deferLater
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from odptwist.answers import Answer, Column, Table
from odptwist.errors import CloseReason, OdpError, SqlError, WireError
from odptwist.machines.exchange import FORWARD, LOOK
from odptwist.machines.session_state import SessionState
from odptwist.sessions.counting import SELECTS, SIZES, SMALL, Counts
from odptwist.sessions.server import LoginPlan, ServerSession
from odptwist.sessions.session import Session
from odptwist.sessions.surroundings import Surroundings
from odptwist.wire.constants import (
    CLIENT_SESSION_TRACK,
    COM_QUIT,
    SERVER_STATUS_AUTOCOMMIT,
    SERVER_STATUS_IN_TRANS,
    SERVER_STATUS_IN_TRANS_READONLY,
    SERVER_STATUS_NO_BACKSLASH_ESCAPES,
)
from odptwist.wire.framing import frame
from odptwist.wire.responses import Ok, SchemaChanged, err_for, parse_ok
from odptwist.wire.resultset import encode_prepared, encode_table_in_parts

# What a client may send ahead of the response in flight before its reading is paused.
_AHEAD_LIMIT = 64 * 1024
# The status flags that a client may rely on between its statements; the proxy's own answers repeat them.
_LASTING_STATUS = (
    SERVER_STATUS_AUTOCOMMIT
    | SERVER_STATUS_IN_TRANS
    | SERVER_STATUS_IN_TRANS_READONLY
    | SERVER_STATUS_NO_BACKSLASH_ESCAPES
)
# Bytes of a result set of the proxy's own: ODP's `internal_cmd_mem_limited` (spec 1.4).
_TABLE_LIMIT = 16 * 1024 * 1024
_QUIT = bytes((COM_QUIT,))
# How much of a statement observers are shown: the command byte and 1,024 bytes.
_SHOWN = 1025
_SHOWN_END = 4 + _SHOWN


@implementer(IPushProducer)
class Conversation(Session):
    """The relay of one client: one exchange at a time, with one server session.

    Who the client is, and what becomes of it when a server session ends, is the business of `ClientSession`.

    Attributes:
        cs_id: the number in the greeting.
        plan: how the client logged in, None before that.
        tracker: follows the exchanges; None until the login is over.
        bound: the server session that served last or serves now; None when the next statement must open one.
        state: what the client has set up.
        status: the status flags of the last response.
        transactions: how many have ended.
        statement: the beginning of the last command.
        since: when the session became busy or idle, on the reactor's clock.
        transaction_since: when its transaction was opened.
        mark: why it ends as soon as nothing is unfinished, or empty.
        inserted_on: the server session that made the last insert id, or None.
        choosing: whether `choose` is asked about every command.
        dressing: whether the command in hand must be dressed before it is sent.
        rest_to: the server session that gets the rest of a long piece of long data, or None.
        unsent: what waits for a server session: the command in flight, as far as it has come.
        doom: why it ends as soon as the answer in hand is out, or None.
        bytes_in: how many came from the client after the login.
        bytes_out: how many went to it.
        counts: what else is counted.
    """

    __slots__ = (
        "_awaited",
        "_client_full",
        "_held",
        "_held_for_client",
        "_noted",
        "_on_end",
        "_paused",
        "_server_full",
        "_warned_at",
        "_warning",
        "bound",
        "bytes_in",
        "bytes_out",
        "choosing",
        "counts",
        "cs_id",
        "dialogue",
        "doom",
        "dressing",
        "inserted_on",
        "mark",
        "observed",
        "plan",
        "rest_to",
        "since",
        "state",
        "statement",
        "status",
        "tracker",
        "transaction_since",
        "transactions",
        "unsent",
    )

    _log = Logger()
    tracker: Any

    def __init__(self, cs_id: int, surroundings: Surroundings) -> None:
        super().__init__(surroundings)
        self.cs_id = cs_id
        self.plan: LoginPlan | None = None
        self.tracker = None
        self.bound: ServerSession | None = None
        self.state = SessionState()
        self.inserted_on: ServerSession | None = None
        self.choosing = False
        self.dressing = False
        self.rest_to: ServerSession | None = None
        self.status = 0
        self.transactions = 0
        self.statement = b""
        self.since = surroundings.reactor.seconds()
        self.transaction_since = 0.0
        self.mark = ""
        self.doom: CloseReason | None = None
        self.unsent: tuple[bytes, ...] = ()
        self.bytes_in = self.bytes_out = 0
        self.counts = Counts()
        self.observed = bool(surroundings.observers)
        self._noted = 0
        self._warning = ""
        self._warned_at = 0
        self._on_end: Callable[[int], None] | None = None
        self._held = False
        self._awaited: tuple[Deferred[None], ...] = ()
        self._server_full = False
        self._client_full = False
        self._held_for_client = False
        self._paused = False
        self.dialogue: Deferred[None] | None = None

    def login_received(self, data: bytes) -> None:
        """Take bytes of the client before the login is over."""

    def look(self, command: bytes) -> None:
        """Decide about a command that may concern the proxy."""

    def choose(self, command: bytes) -> bool:
        """Make `bound` the server session that a command belongs on, None if one has to be found first.

        Returns:
            False if the command was refused, and answered.
        """
        return True

    def dress(self, server: ServerSession, command: bytes) -> bytes:
        """Return what a server must get for a command that `dressing` is about; `SqlError` refuses it."""
        return command

    def refuse_exchange(self, error: OdpError) -> None:
        """Answer the exchange in flight, of which not a byte was answered, with an error."""

    async def reopen(self) -> None:
        """Find another server session, because there is none, and send it what is `unsent`."""

    @property
    def statement_running(self) -> bool:
        """Whether a server works for this session now."""
        return self.tracker is not None and self.tracker.awaiting

    @property
    def command_count(self) -> int:
        """How many commands were answered, by a server or the proxy, or are in flight."""
        return self.counts.answers + self.counts.commands(self.tracker.number if self.tracker is not None else 0)

    @property
    def reads(self) -> bool:
        """Whether it takes what the client sends; not while the server is full."""
        return not self._paused

    @property
    def takes(self) -> bool:
        """Whether the client takes what the server sends."""
        return not self._client_full

    @property
    def unfinished(self) -> bool:
        """Whether a statement runs or a transaction is open."""
        return self.statement_running or bool(self.status & SERVER_STATUS_IN_TRANS)

    # -- commands -----------------------------------------------------------------------------------------------------

    def dataReceived(self, data: bytes) -> None:
        """Take a chunk of the client."""
        tracker = self.tracker
        try:
            if tracker is None:
                self.login_received(data)
                return
            self.bytes_in += len(data)
            if self.reason is not None:
                return
            verdict = tracker.client(data)
            if verdict == FORWARD and not tracker.kept:
                self.forward(data)
            else:
                self._work(data, verdict)
        except WireError as fault:
            self._log.warn("client session {cs_id} broke the protocol: {fault}", cs_id=self.cs_id, fault=fault)
            self.send_error(fault)
            self.end(CloseReason.CLIENT_BROKE_PROTOCOL, str(fault))
        except Exception:  # noqa: BLE001 - a bug of ours must not take other sessions along
            self._log.failure("client session {cs_id}: a chunk could not be handled", cs_id=self.cs_id)
            self.drop(CloseReason.PROXY_FAULT, "a chunk could not be handled")

    def _work(self, data: bytes, verdict: int) -> None:
        """Work through what the client has sent, until something is in flight or nothing whole is left."""
        tracker = self.tracker
        while True:
            if verdict == LOOK:
                if tracker.command != _QUIT:  # what ran last is of interest when a session has ended
                    self._note(tracker.command[:_SHOWN])
                self.look(tracker.command)
            elif verdict == FORWARD:
                self.forward(data[: len(data) - len(tracker.kept)])
            else:
                break
            if tracker.busy or not tracker.kept or self.reason is not None:
                break
            data, tracker.kept = tracker.kept, b""
            verdict = tracker.client(data)
        self._mind_reading()

    def go_on(self) -> None:
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
            self._note(data[4:_SHOWN_END])
            if self.choosing and not self.choose(data):
                self.counts.taken += 1
                return
            if len(data) > SMALL or data[4:8] not in SELECTS:
                self.counts.asked(data)
        elif not self.tracker.awaiting:
            # The rest of a long piece of long data, the only command without an answer that may be so long.
            if self.rest_to is not None and self.rest_to.reason is None:
                self.rest_to.transport.write(data)
            return
        server = self.bound
        if server is not None:
            if self.dressing:
                self.dressing = False
                try:
                    data = self.dress(server, data)
                except SqlError as refusal:
                    self.refuse_exchange(refusal)
                    return
            server.bytes_out += len(data)
            server.transport.write(data)
        else:
            self.unsent += (data,)
            if len(self.unsent) == 1:
                self.server_full(True)  # what more there is of a long command stays with the client meanwhile
                self.run(self.reopen())

    def responded(self) -> None:
        """Be told that the response in flight has ended and was passed on."""
        tracker = self.tracker
        counts, told = self.counts, self.bytes_out
        counts.responses[bisect_left(SIZES, told - counts.told)] += 1
        counts.told = told
        if tracker.status != self.status:
            self._status_changed(tracker.status)
        if self._on_end is not None:
            on_end, self._on_end = self._on_end, None
            on_end(tracker.error)
        if tracker.insert_id or tracker.changes:
            if tracker.insert_id:
                self.state.inserted(tracker.insert_id)
                self.inserted_on = self.bound
            self.learn_changes(tracker.changes)
        self.finished(tracker.error)
        server = self.bound
        if server is not None:
            server.pickups += 1
            server.versions = self.state.versions
            if server.holds:
                # A kill of the statement that has just ended is still in flight: nothing new until it is answered.
                tracker.hold()
                self._held = True
                self.exchange_over()
        if self.mark and not self.unfinished:
            self.end(CloseReason.KILLED, self.mark)
        elif tracker.kept:
            self.go_on()

    def when_answered(self) -> Deferred[None]:
        """Fire when the exchange in flight is over, however; only for a server session that is held."""
        waiter: Deferred[None] = Deferred()
        self._awaited += (waiter,)
        return waiter

    def exchange_over(self) -> None:
        """Tell who waits for the end of the exchange in flight."""
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
            if not self.status & SERVER_STATUS_IN_TRANS:
                self.transaction_since = self.since
                self.counts.transaction_began()
        elif self.status & SERVER_STATUS_IN_TRANS:
            self.transactions += 1
            self.counts.transaction_ended(self.transaction_since, self.since, self.surroundings.reactor.seconds())
            self.state.transaction_ended()
        self.status = status

    def learn_changes(self, payloads: tuple[bytes, ...]) -> None:
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
        """Remember the statement that begins; of a long one, its beginning."""
        self.statement = statement
        self.since = self.surroundings.reactor.seconds()

    def finished(self, error: int) -> None:
        """Remember that it has ended, and tell who wants to know."""
        now = self.surroundings.reactor.seconds()
        seconds, self.since = now - self.since, now
        self.counts.busy += seconds
        if self.observed:
            cs_id, statement = self.cs_id, self.statement
            self.surroundings.tell(lambda observer: observer.statement_finished(cs_id, statement, seconds, error))

    # -- answers of the proxy's own -----------------------------------------------------------------------------------

    def answer(self, answer: Deferred[Answer], binary: bool = False) -> None:
        """Answer the command in hand, which the tracker has skipped, when `answer` fires.

        Args:
            answer: fails with a `SqlError`, or not at all.
            binary: answers COM_STMT_EXECUTE.
        """
        self.run(self._answer(answer, binary))

    async def _answer(self, coming: Deferred[Answer], binary: bool) -> None:
        self._warning = ""
        try:
            answer = await coming
        except SqlError as refusal:
            if self.reason is None:  # else it only says that the answer was cancelled, because this session ended
                self.send_error(refusal)
                self._answered(refusal.code)
            return
        status = self.tracker.status & _LASTING_STATUS
        agreed = self.plan.agreed if self.plan is not None else 0
        if isinstance(answer, Table):
            try:
                await self._say_table(encode_table_in_parts(answer, 1, agreed, status, binary))
            except SqlError as refusal:
                self.send_error(refusal)
                self._answered(refusal.code)
                return
        else:
            if answer.warnings:
                self._warning, self._warned_at = answer.message, self.tracker.number
            ok = Ok(0, 0, status, answer.warnings, answer.message.encode())
            self.say(frame(ok.encode(agreed), 1))
        self._answered(0)

    async def _say_table(self, parts: Iterator[bytes]) -> None:
        """Send the parts of a result set; a large one is made while the other sessions go on.

        Raises:
            SqlError: 4024, it is too large; nothing was sent.
        """
        made, size = list[bytes](), 0
        for part in parts:
            if made:
                await deferLater(self.surroundings.reactor, 0)
            made.append(part)
            size += len(part)
            if size > _TABLE_LIMIT:
                raise SqlError(4024, "HY000", "Buffer not enough")
        for part in made:
            self.say(part)

    def answer_prepared(self, number: int, parameters: int, columns: Sequence[Column]) -> None:
        """Answer a COM_STMT_PREPARE that the tracker has skipped."""
        agreed = self.plan.agreed if self.plan is not None else 0
        self.say(encode_prepared(number, parameters, columns, agreed, self.tracker.status & _LASTING_STATUS))
        self._answered(0)

    def take_warning(self) -> str:
        """Return what the statement before warned of, if that was one of the proxy's own, and forget it."""
        warning, self._warning = self._warning, ""
        return warning if self._warned_at == self.tracker.number else ""

    def answer_packet(self, payload: bytes) -> None:
        """Answer the command in hand with one packet, without a server."""
        self.tracker.skip()
        self.say(frame(payload, 1))
        self._answered(0)

    def answer_error(self, error: SqlError) -> None:
        """Answer the command in hand with an error, without a server."""
        self.tracker.skip()
        self.send_error(error)
        self._answered(error.code)

    def _answered(self, error: int) -> None:
        began = self.since
        self.finished(error)
        self.counts.answers += 1
        self.counts.own += self.since - began
        if self.doom is not None:
            self.end(self.doom, reset=True)
            return
        if self._client_full:
            # A client that sends proxy statements and reads no answers must not fill our memory with them.
            self._held_for_client = True
        elif self.tracker.kept:
            # Not at once: a client that sends thousands of proxy statements ahead must not keep the others waiting.
            self.surroundings.reactor.callLater(0, self._next)
        else:
            self.tracker.done()

    def _next(self) -> None:
        if self.reason is None:
            self.tracker.done()
            self.go_on()

    def say(self, packets: bytes) -> None:
        """Send the client packets of the proxy's own."""
        self.bytes_out += len(packets)
        self.counts.told += len(packets)
        self.transport.write(packets)

    def send_error(self, error: OdpError) -> None:
        """Send the ERR packet that answers the command in hand."""
        self.say(frame(err_for(error).encode(), 1))

    # -- flow control: each side is read as fast as the other takes it ------------------------------------------------

    def pauseProducing(self) -> None:
        """Stop reading from the server, and answering: the client does not take more."""
        self._client_full = True
        if self.bound is not None:
            self.bound.transport.pauseProducing()

    def resumeProducing(self) -> None:
        """Go on reading from the server, and answering."""
        self._client_full = False
        if self.bound is not None:
            self.bound.transport.resumeProducing()
        if self._held_for_client:
            self._held_for_client = False
            self._next()

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

    # -- dialogues ----------------------------------------------------------------------------------------------------

    def run(self, dialogue: Coroutine[Any, Any, None]) -> None:
        """Start the one dialogue that may be under way; it is cancelled when the session ends."""
        running = Deferred.fromCoroutine(dialogue)
        if not running.called:
            # Else it is over, and may have started another one that must stay in its place.
            self.dialogue = running
        running.addErrback(self._dialogue_failed)

    def _dialogue_failed(self, failure: Failure) -> None:
        if not failure.check(CancelledError) or self.reason is None:
            self._log.failure("client session {cs_id}: a dialogue failed", failure, cs_id=self.cs_id)
            self.drop(CloseReason.PROXY_FAULT, "a dialogue failed")
