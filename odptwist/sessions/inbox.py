"""Packets of a dialogue, waited for one by one."""

from __future__ import annotations

from collections import deque

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from odptwist.errors import ServerUnreachable, WireError
from odptwist.sessions.deadlines import Deadline, Deadlines
from odptwist.wire.framing import Deframer, Packet

# Logins and the proxy's own small questions; no packet of theirs comes near it.
DIALOGUE_LIMIT = 1024 * 1024


class Inbox:
    """Takes a peer's bytes and hands out its packets to one waiter at a time.

    A dialogue has few packets, and each is waited for; what comes before anybody waits is kept, up to the limit of
    bytes that one packet may have.

    Args:
        deadlines: for the time to wait.
        limit: the longest payload, in bytes.
    """

    __slots__ = ("_deadline", "_deadlines", "_deframer", "_ended", "_packets", "_patience", "_waiter")

    def __init__(self, deadlines: Deadlines, limit: int = DIALOGUE_LIMIT) -> None:
        self._deadlines = deadlines
        self._deframer = Deframer(limit)
        self._packets: deque[Packet] = deque()
        self._waiter: Deferred[Packet] | None = None
        self._ended: Failure | None = None
        self._patience = 0.0
        self._deadline: Deadline | None = None

    @property
    def buffered(self) -> bool:
        """Whether something has come that nobody has taken."""
        return bool(self._packets or self._deframer.buffered)

    def receive(self, data: bytes) -> None:
        """Take bytes of the peer; a fault in them fails the waiter."""
        if self._ended is not None:
            return
        try:
            self._packets.extend(self._deframer.receive(data))
        except WireError:
            self.end(Failure())
            return
        self._serve()

    def take(self) -> Packet | None:
        """Return the next packet if it has come."""
        return self._packets.popleft() if self._packets else None

    def next(self, patience: float | None) -> Deferred[Packet]:
        """Fire with the next packet, or fail with what ended the dialogue.

        Args:
            patience: seconds, after which the dialogue ends with `ServerUnreachable`; None: as long as it takes.
        """
        self._waiter = waiter = Deferred[Packet](self._cancelled)
        self._serve()
        if patience is None:
            self.close()
        elif self._waiter is not None:
            self._patience = patience
            if self._deadline is None:
                self._deadline = self._deadlines.begin(patience, self._too_late)
            else:
                self._deadline.restart(patience)
        return waiter

    def end(self, reason: Failure) -> None:
        """Fail the present or the next waiter: no packet will come."""
        if self._ended is None:
            self._ended = reason
            self.close()
            self._serve()

    def close(self) -> None:
        """Watch the time no more: nobody waits, or for as long as it takes."""
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _serve(self) -> None:
        waiter = self._waiter
        if waiter is None:
            return
        if self._packets:
            self._waiter = None
            waiter.callback(self._packets.popleft())
        elif self._ended is not None:
            self._waiter = None
            waiter.errback(self._ended)

    def _too_late(self) -> None:
        self._deadline = None
        if self._waiter is not None:  # else the answer has come, and the dialogue is not over
            self.end(Failure(ServerUnreachable(f"no answer within {self._patience:g} s")))

    def _cancelled(self, waiter: Deferred[Packet]) -> None:
        if self._waiter is waiter:
            self._waiter = None
            self.close()
