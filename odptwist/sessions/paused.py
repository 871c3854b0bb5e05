"""Clients whose reading is paused, and who would go unnoticed.

A descriptor that is not read is not in the reactor's epoll, so neither its end nor its breakdown is seen. As long as
there is such a client, all of them are asked once a second whether their peer has gone.
"""

from __future__ import annotations

import select
from typing import Any, Protocol

from odptwist.errors import CloseReason

INTERVAL = 1.0


class Paused(Protocol):
    """What is watched."""

    transport: Any

    def drop(self, reason: CloseReason, detail: str = "") -> None:
        """End now."""


class PausedClients:
    """Watches the clients that nobody reads from.

    Args:
        reactor: for its clock.
    """

    def __init__(self, reactor: Any) -> None:
        self._reactor = reactor
        self._watched: dict[int, Paused] = {}
        self._poll = select.poll()
        self._timer: Any = None

    def watch(self, session: Paused) -> None:
        """Begin to watch a session; it may be watched already."""
        number = _descriptor(session)
        if number < 0 or number in self._watched:
            return
        self._watched[number] = session
        self._poll.register(number, select.POLLRDHUP)
        if self._timer is None:
            self._timer = self._reactor.callLater(INTERVAL, self._look)

    def forget(self, session: Paused) -> None:
        """Stop watching a session; it need not be watched."""
        for number, watched in self._watched.items():
            if watched is session:
                del self._watched[number]
                self._poll.unregister(number)
                break
        if not self._watched and self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _look(self) -> None:
        self._timer = None
        for number, _ in self._poll.poll(0):
            session = self._watched[number]
            self.forget(session)
            session.drop(CloseReason.CLIENT_LOST, "it went while its reading was paused")
        if self._watched:
            self._timer = self._reactor.callLater(INTERVAL, self._look)


def _descriptor(session: Paused) -> int:
    fileno = getattr(session.transport, "fileno", None)
    return fileno() if fileno is not None else -1
