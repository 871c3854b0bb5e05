"""The innermost loop of the reactor, for sockets of ours: an event is a call, with nothing in between.

Twisted's epoll reactor sets up a log context for every event, and goes round its loop of timers after every poll. For a
proxy of small packets that is a quarter of its work (docs/reference/performance). Here an event that says nothing but
"readable", about a transport that asks for it, becomes `doRead()` at once; every other event goes Twisted's own way.
As long as there is nothing else to do, the sockets are polled several times in one turn of the reactor.

It needs private names of Twisted. Where they are missing, and on other reactors, everything stays as it is;
`tests/sessions/test_polling.py` pins them.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from select import EPOLLIN
from typing import Any

from twisted.python import log

# Rounds in one turn of the reactor at most.
_ROUNDS = 16
_NEEDED = (
    "_poller",
    "_selectables",
    "_doReadOrWrite",
    "_disconnectSelectable",
    "_newTimedCalls",
    "_pendingTimedCalls",
    "threadCallQueue",
)


def can_replace_loop(reactor: Any) -> bool:
    """Whether this is Twisted's epoll reactor, with the private names that another loop needs."""
    return type(reactor).__name__ == "EPollReactor" and all(hasattr(reactor, name) for name in _NEEDED)


def poll_lean(reactor: Any) -> bool:
    """Make an epoll reactor poll as described, from its next turn on; return whether it can."""
    if not can_replace_loop(reactor):
        return False
    reactor.doIteration = _lean(reactor)
    return True


def _lean(reactor: Any) -> Callable[[float | None], None]:
    poll = reactor._poller.poll
    selectables = reactor._selectables
    call_with_logger = log.callWithLogger
    stock = reactor._doReadOrWrite
    lost = reactor._disconnectSelectable

    def poll_sockets(timeout: float | None) -> None:
        """Wait for events, for so many seconds (None: for ever), and serve them."""
        events = poll(-1 if timeout is None else timeout)
        for _ in range(_ROUNDS):
            for fd, event in events:
                selectable = selectables.get(fd)
                if selectable is None:
                    continue
                if event == EPOLLIN and getattr(selectable, "reads_lean", False):
                    try:
                        why = selectable.doRead()
                    except BaseException:  # noqa: BLE001 - as Twisted does: one connection must not end the others
                        why = sys.exc_info()[1]
                        log.err()
                    if why is not None:
                        lost(selectable, why, True)
                else:
                    call_with_logger(selectable, stock, selectable, fd, event)  # type: ignore[no-untyped-call]
            timers = reactor._pendingTimedCalls
            if (
                reactor._newTimedCalls
                or reactor.threadCallQueue
                or not reactor.running
                or (timers and timers[0].time <= reactor.seconds())
            ):
                return
            events = poll(0)
            if not events:
                return

    return poll_sockets
