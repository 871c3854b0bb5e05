"""What the proxy itself answers a client, and how fast each side is read.

The two go together: a client that sends ahead and reads no answers must not fill the proxy's memory with them.
"""

from __future__ import annotations

from collections.abc import Coroutine, Iterator, Sequence
from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IPushProducer
from twisted.internet.task import deferLater
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from odptwist.answers import Answer, Column, Table
from odptwist.errors import CloseReason, OdpError, SqlError
from odptwist.sessions.counting import Counts
from odptwist.sessions.dialogue import LoginPlan
from odptwist.sessions.server import ServerSession
from odptwist.sessions.session import Session
from odptwist.sessions.surroundings import Surroundings
from odptwist.wire.constants import (
    SERVER_STATUS_AUTOCOMMIT,
    SERVER_STATUS_IN_TRANS,
    SERVER_STATUS_IN_TRANS_READONLY,
    SERVER_STATUS_NO_BACKSLASH_ESCAPES,
)
from odptwist.wire.framing import frame
from odptwist.wire.responses import Ok, err_for
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


@implementer(IPushProducer)
class Answering(Session):
    """A connection to a client whose commands the proxy itself can answer.

    What servers answer is the business of `Conversation`.

    Attributes:
        cs_id: the number in the greeting.
        plan: how the client logged in, None before that.
        tracker: follows the exchanges; None until the login is over.
        bound: the server session that served last or serves now; None when the next statement must open one.
        since: when the session became busy or idle, on the reactor's clock.
        doom: why it ends as soon as the answer in hand is out, or None.
        dialogue: what is under way that the client waits for, or was; None if nothing ever was.
        bytes_out: how many went to the client.
        counts: what else is counted.
    """

    __slots__ = (
        "_client_full",
        "_held_for_client",
        "_paused",
        "_server_full",
        "_warned_at",
        "_warning",
        "bound",
        "bytes_out",
        "counts",
        "cs_id",
        "dialogue",
        "doom",
        "plan",
        "since",
        "tracker",
    )

    _log = Logger()
    tracker: Any

    def __init__(self, cs_id: int, surroundings: Surroundings) -> None:
        super().__init__(surroundings)
        self.cs_id = cs_id
        self.plan: LoginPlan | None = None
        self.tracker = None
        self.bound: ServerSession | None = None
        self.since = surroundings.reactor.seconds()
        self.doom: CloseReason | None = None
        self.dialogue: Deferred[None] | None = None
        self.bytes_out = 0
        self.counts = Counts()
        self._warning = ""
        self._warned_at = 0
        self._server_full = False
        self._client_full = False
        self._held_for_client = False
        self._paused = False

    def finished(self, error: int) -> None:
        """Be told that the command in hand is over: with the error of this code, 0 for none."""

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
        """Send the parts of a result set; a large one is made, and then sent, while the other sessions go on.

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
        self.say(made[0])
        for part in made[1:]:
            # A megabyte in one go takes the kernel some 20 ms if the client's machine is this one, and busy.
            await deferLater(self.surroundings.reactor, 0)
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

    def say(self, packets: bytes) -> None:
        """Send the client packets of the proxy's own."""
        self.bytes_out += len(packets)
        self.counts.told += len(packets)
        self.transport.write(packets)

    def send_error(self, error: OdpError) -> None:
        """Send the ERR packet that answers the command in hand."""
        self.say(frame(err_for(error).encode(), 1))

    # -- flow control: each side is read as fast as the other takes it ------------------------------------------------

    @property
    def reads(self) -> bool:
        """Whether it takes what the client sends; not while the server is full."""
        return not self._paused

    @property
    def takes(self) -> bool:
        """Whether the client takes what the server sends."""
        return not self._client_full

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

    def _next(self) -> None:
        if self.reason is None:
            self.tracker.done()
            self.go_on()

    def go_on(self) -> None:
        """Go on with what the client sent ahead."""
        if self.reason is None and not self.tracker.busy and self.tracker.kept:
            data, self.tracker.kept = self.tracker.kept, b""
            self.dataReceived(data)
            self._mind_reading()

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
