"""Packets of a dialogue, waited for one by one."""

from __future__ import annotations

from collections import deque

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from odptwist.errors import WireError
from odptwist.wire.framing import Deframer, Packet

# Logins and the proxy's own small questions; no packet of theirs comes near it.
DIALOGUE_LIMIT = 1024 * 1024


class Inbox:
    """Takes a peer's bytes and hands out its packets to one waiter at a time.

    A dialogue has few packets, and each is waited for; what comes before anybody waits is kept, up to the limit of
    bytes that one packet may have.
    """

    __slots__ = ("_deframer", "_ended", "_packets", "_waiter")

    def __init__(self, limit: int = DIALOGUE_LIMIT) -> None:
        self._deframer = Deframer(limit)
        self._packets: deque[Packet] = deque()
        self._waiter: Deferred[Packet] | None = None
        self._ended: Failure | None = None

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

    def next(self) -> Deferred[Packet]:
        """Fire with the next packet, or fail with what ended the dialogue."""
        self._waiter = Deferred(self._cancelled)
        waiter = self._waiter
        self._serve()
        return waiter

    def end(self, reason: Failure) -> None:
        """Fail the present or the next waiter: no packet will come."""
        if self._ended is None:
            self._ended = reason
            self._serve()

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

    def _cancelled(self, waiter: Deferred[Packet]) -> None:
        if self._waiter is waiter:
            self._waiter = None
