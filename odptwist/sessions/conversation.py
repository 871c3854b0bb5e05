"""What a client and its server say to each other: commands and responses, and what is learnt from them."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable

from twisted.internet.defer import Deferred

from odptwist.errors import CloseReason, OdpError, SqlError, WireError
from odptwist.identity import legible
from odptwist.machines.exchange import FORWARD, LOOK
from odptwist.machines.session_state import SessionState
from odptwist.sessions.answering import Answering
from odptwist.sessions.counting import SELECTS, SIZES, SMALL
from odptwist.sessions.server import ServerSession
from odptwist.sessions.surroundings import Surroundings
from odptwist.wire.constants import CLIENT_SESSION_TRACK, COM_QUIT, SERVER_STATUS_IN_TRANS
from odptwist.wire.responses import SchemaChanged, parse_ok

_QUIT = bytes((COM_QUIT,))
SHOWN = 1025
"""How much of a statement observers are shown: the command byte and 1,024 bytes."""
_SHOWN_END = 4 + SHOWN


class Conversation(Answering):
    """The relay of one client: one exchange at a time, with one server session.

    Who the client is, and what becomes of it when a server session ends, is the business of `ClientSession`.

    Attributes:
        state: what the client has set up.
        status: the status flags of the last response.
        transactions: how many have ended.
        statement: the beginning of the last command.
        transaction_since: when its transaction was opened.
        mark: why it ends as soon as nothing is unfinished, or empty.
        inserted_on: the server session that made the last insert id, or None.
        choosing: whether `choose` is asked about every command.
        dressing: whether the command in hand must be dressed before it is sent.
        rest_to: the server session that gets the rest of a long piece of long data, or None.
        unsent: what waits for a server session: the command in flight, as far as it has come.
        bytes_in: how many came from the client after the login.
    """

    __slots__ = (
        "_awaited",
        "_held",
        "_noted",
        "_on_end",
        "bytes_in",
        "choosing",
        "dressing",
        "inserted_on",
        "mark",
        "observed",
        "rest_to",
        "state",
        "statement",
        "status",
        "transaction_since",
        "transactions",
        "unsent",
    )

    def __init__(self, cs_id: int, surroundings: Surroundings) -> None:
        super().__init__(cs_id, surroundings)
        self.state = SessionState()
        self.inserted_on: ServerSession | None = None
        self.choosing = False
        self.dressing = False
        self.rest_to: ServerSession | None = None
        self.status = 0
        self.transactions = 0
        self.statement = b""
        self.transaction_since = 0.0
        self.mark = ""
        self.unsent: tuple[bytes, ...] = ()
        self.bytes_in = 0
        self.observed = bool(surroundings.observers)
        self._noted = 0
        self._on_end: Callable[[int], None] | None = None
        self._held = False
        self._awaited: tuple[Deferred[None], ...] = ()

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
    def response_kinds(self) -> tuple[int, int]:
        """How many responses of servers were an OK, and how many a result set."""
        return (self.tracker.oks, self.tracker.result_sets) if self.tracker is not None else (0, 0)

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
            self.peer_broke(fault)
        except Exception:  # noqa: BLE001 - a bug of ours must not take other sessions along
            self._log.failure("client session {cs_id}: a chunk could not be handled", cs_id=self.cs_id)
            self.drop(CloseReason.PROXY_FAULT, "a chunk could not be handled")

    def peer_broke(self, fault: WireError) -> None:
        """End, because the client broke the protocol; it is told."""
        self._log.warn("client session {cs_id} broke the protocol: {fault}", cs_id=self.cs_id, fault=legible(fault))
        self.send_error(fault)
        self.end(CloseReason.CLIENT_BROKE_PROTOCOL, str(fault))

    def _work(self, data: bytes, verdict: int) -> None:
        """Work through what the client has sent, until something is in flight or nothing whole is left."""
        tracker = self.tracker
        while True:
            if verdict == LOOK:
                if tracker.command != _QUIT:  # what ran last is of interest when a session has ended
                    self._note(tracker.command[:SHOWN])
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
        self.send_on(data)

    def send_on(self, data: bytes) -> None:
        """Send a command that was begun, or a part of one, to the server session that is bound; else find one."""
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
