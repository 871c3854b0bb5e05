"""The sessions that have ended, the last ones of them: what SHOW PROXYSESSION HISTORY tells."""

from __future__ import annotations

from collections import deque

from odptwist.snapshots import EndedSession

DETAIL_SIZE = 512
"""How many characters of a detail are kept; a server's farewell may be long."""


class History:
    """Remembers the sessions that ended last.

    One takes some 500 bytes, and what it says in words: 1 KiB of a statement, and 0.5 KiB of a detail, at most.

    Args:
        size: how many it remembers.
    """

    def __init__(self, size: int = 1000) -> None:
        self._entries: deque[EndedSession] = deque(maxlen=size)

    def add(self, ended: EndedSession) -> None:
        """Be told of a session that has just ended; the oldest one may be forgotten."""
        self._entries.append(ended)

    def latest_first(self) -> tuple[EndedSession, ...]:
        """Return those that are remembered."""
        return tuple(reversed(self._entries))
