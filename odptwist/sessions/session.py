"""How a session ends, be it a client's or a server's: once, with one reason, and waiters are told after the fact."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.protocol import Protocol, connectionDone
from twisted.python.failure import Failure

from odptwist.errors import CloseReason
from odptwist.sessions.surroundings import Surroundings
from odptwist.sessions.transport import close, is_taken
from odptwist.snapshots import EndedSession

# Ends that are nothing special: a log entry costs as much as a fifth of a login.
_USUAL = (CloseReason.CLIENT_QUIT, CloseReason.CLIENT_SESSION_ENDED)
# Seconds for the peer to read a packet that its kernel has, before the connection is reset; shorter than people type.
_RESET_DELAY = 0.02


class Session(Protocol):
    """One connection, with one door for every end.

    Attributes:
        surroundings: the rest of the house.
        transport: None before the connection.
        reason: why it ended; None as long as it lives.
        detail: who killed it or what went wrong, or empty.
        began: when it began, on the reactor's clock.
    """

    __slots__ = (
        "_abort_timer",
        "_gone",
        "began",
        "detail",
        "reason",
        "surroundings",
        "transport",
    )

    def __init__(self, surroundings: Surroundings) -> None:
        self.surroundings = surroundings
        self.transport: Any = None
        self.reason: CloseReason | None = None
        self.detail = ""
        self.began = surroundings.reactor.seconds()
        self._abort_timer: Any = None
        # None once the connection has ended; a tuple as long as nobody waits, for there are thousands of sessions.
        self._gone: tuple[Deferred[None], ...] | None = ()

    def drop(self, reason: CloseReason, detail: str = "") -> None:
        """End now, whatever the peer is doing. Only the first end counts."""
        if self._close(reason, detail):
            self._abort()

    def end(self, reason: CloseReason, detail: str = "", reset: bool = False) -> None:
        """End after the last packet, which has been written; abort if the peer does not take it in time.

        Args:
            reason: why.
            detail: who or what, or empty.
            reset: reset the connection as soon as the peer has the packet, so that its next write fails: then the
                `mariadb` program says 2006 and reconnects. After a plain close the write succeeds and the read after
                it fails: 2013, and no reconnect.
        """
        if self._close(reason, detail):
            if self.transport is None:
                return
            self.transport.unregisterProducer()
            patience = self.surroundings.limits.last_packet_timeout
            if reset and hasattr(self.transport, "fileno"):
                self._abort_timer = self.surroundings.reactor.callLater(
                    _RESET_DELAY, self._abort_when_taken, patience - _RESET_DELAY
                )
            elif not close(self.transport):
                self._abort_timer = self.surroundings.reactor.callLater(patience, self._abort)

    @property
    def is_logged(self) -> bool:
        """Whether its end is for the log."""
        return self.reason not in _USUAL or self.surroundings.limits.log_sessions

    def closing(self) -> None:
        """End what belongs to this session but its own transport. Called once, when `reason` is set."""

    def obituary(self) -> EndedSession | None:
        """Return what the history is to remember, None for nothing. Called once, when `reason` is set."""
        return None

    def when_gone(self) -> Deferred[None]:
        """Fire when the connection has ended, at once if it has."""
        waiter: Deferred[None] = Deferred()
        if self._gone is None:
            waiter.callback(None)
        else:
            self._gone += (waiter,)
        return waiter

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Have ended, by whatever cause."""
        if self._abort_timer is not None and self._abort_timer.active():
            self._abort_timer.cancel()
        self._abort_timer = None
        self._tell_gone()

    def _close(self, reason: CloseReason, detail: str) -> bool:
        if self.reason is not None:
            return False
        self.reason = reason
        self.detail = detail
        # While it still has what it had.
        ended = self.obituary()
        if ended is not None:
            self.surroundings.history.add(ended)
        self.closing()
        return True

    def _abort_when_taken(self, patience: float) -> None:
        if patience <= 0 or is_taken(self.transport):
            self._abort()
        else:
            self._abort_timer = self.surroundings.reactor.callLater(
                _RESET_DELAY, self._abort_when_taken, patience - _RESET_DELAY
            )

    def _abort(self) -> None:
        if self.transport is not None:
            # Not `loseConnection`: a peer that has stopped reading would stay.
            self.transport.abortConnection()

    def _tell_gone(self) -> None:
        gone, self._gone = self._gone, None
        for waiter in gone or ():
            waiter.callback(None)
