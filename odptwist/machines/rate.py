"""At most so many a minute."""

from __future__ import annotations

from collections import deque

_WINDOW = 60.0


class RateLimit:
    """Allows a number of actions within any 60 seconds.

    Args:
        limit: how many; 0 for any number.
    """

    __slots__ = ("_limit", "_times")

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._times: deque[float] = deque(maxlen=limit)

    def take(self, now: float) -> bool:
        """Say whether one more is allowed at this time (in seconds, never less than the last one), and count it."""
        if self.wait(now) > 0:
            return False
        self._times.append(now)
        return True

    def wait(self, now: float) -> float:
        """Return in how many seconds the next one is allowed, 0 if now."""
        if not self._limit or len(self._times) < self._limit:
            return 0.0
        return max(0.0, self._times[0] + _WINDOW - now)
