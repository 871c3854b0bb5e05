"""Waits that hardly ever last too long, with one timer of the reactor for all that may last equally long.

Each login has several, of a few seconds, and nearly all end within milliseconds. A timer of the reactor's for each
would cost more than what is waited for, even after it was cancelled.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.logger import Logger


class Deadlines:
    """Begins waits.

    Args:
        clock: the reactor.
    """

    def __init__(self, clock: Any) -> None:
        self._clock = clock
        # By their length in seconds. That comes from settings, so there are never many.
        self._lines: dict[float, _Line] = {}

    def __len__(self) -> int:
        """Return how many waits there are."""
        return sum(len(line.waits) for line in self._lines.values())

    def begin(self, seconds: float, too_late: Callable[[], None]) -> Deadline:
        """Begin a wait; `too_late` is called if it has not ended when the time is up."""
        deadline = Deadline(self, too_late)
        deadline.restart(seconds)
        return deadline

    def line(self, seconds: float) -> _Line:
        """Return where waits of a length are."""
        line = self._lines.get(seconds)
        if line is None:
            line = self._lines[seconds] = _Line(self._clock, seconds)
        return line


class Deadline:
    """One wait.

    Attributes:
        due: when its time is up, on the clock.
    """

    __slots__ = ("_deadlines", "_line", "_too_late", "due")

    def __init__(self, deadlines: Deadlines, too_late: Callable[[], None]) -> None:
        self._deadlines = deadlines
        self._too_late = too_late
        self._line: _Line | None = None
        self.due = 0.0

    def restart(self, seconds: float) -> None:
        """Wait for so long from now on, whatever was before."""
        self.cancel()
        self._line = self._deadlines.line(seconds)
        self._line.append(self)

    def cancel(self) -> None:
        """Wait no more; it may have ended already."""
        if self._line is not None:
            self._line.waits.pop(self, None)
            self._line = None

    def end(self) -> None:
        """Be told that the time is up."""
        self._line = None
        self._too_late()


class _Line:
    """Waits of one length: the one that began first is the first whose time is up."""

    _log = Logger()

    def __init__(self, clock: Any, seconds: float) -> None:
        self.waits: dict[Deadline, None] = {}
        self._clock = clock
        self._seconds = seconds
        self._timer: Any = None

    def append(self, deadline: Deadline) -> None:
        deadline.due = self._clock.seconds() + self._seconds
        self.waits[deadline] = None
        if self._timer is None:
            self._timer = self._clock.callLater(self._seconds, self._look)

    def _look(self) -> None:
        """End those whose time is up; the timer stays where it is when waits are cancelled, and may find none."""
        self._timer = None
        now = self._clock.seconds()
        over = []
        for deadline in self.waits:
            if deadline.due > now:
                self._timer = self._clock.callLater(deadline.due - now, self._look)
                break
            over.append(deadline)
        for deadline in over:
            if deadline in self.waits:  # else another one of these has cancelled it
                del self.waits[deadline]
                try:
                    deadline.end()
                except Exception:  # noqa: BLE001 - as by the reactor: the others must not suffer
                    self._log.failure("a wait could not be ended")
