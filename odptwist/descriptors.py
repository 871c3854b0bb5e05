"""File descriptors: how many the process may have, and how many client sessions those are enough for."""

from __future__ import annotations

import resource
from typing import Final

_MOST: Final = 1 << 20
"""No more is asked for: what Linux allows a process by default (fs.nr_open), and child processes inherit it."""
_OTHERS: Final = 100
"""For the log, ports, TLS files, checks of servers, kills, and the embedded server's pipes."""


def raise_limit() -> int:
    """Raise the process's limit of descriptors as far as it may without privileges, and return it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _MOST if hard == resource.RLIM_INFINITY else min(hard, _MOST)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
        soft = wanted
    return _MOST if soft == resource.RLIM_INFINITY else soft


def sessions_for(descriptors: int, server_sessions: int) -> int:
    """Return how many client sessions have room, each with so many server sessions."""
    return max(1, (descriptors - _OTHERS) // (1 + server_sessions))
