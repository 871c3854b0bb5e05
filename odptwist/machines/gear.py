"""Which of the two response machines runs: the one in C where it was built, else the one in Python."""

from __future__ import annotations

import os
from importlib import import_module

from odptwist.machines.response import Responses

__all__ = ["GEAR", "MAY_RELAY", "Responses"]

GEAR = "pure Python"
"""For people: what follows the responses. `sessions.relaying` has the last word about what SHOW PROXYINFO says."""

# ODPTWIST_GEAR=python, tracker or relay is for tests and for comparisons; the default is the best that is there.
_WANTED = os.environ.get("ODPTWIST_GEAR", "")

if _WANTED != "python":
    try:
        Responses = import_module("odptwist.machines._response").Responses  # type: ignore[misc]
    except ImportError:
        pass
    else:
        GEAR = "C tracker"

MAY_RELAY = GEAR == "C tracker" and _WANTED != "tracker"
"""Whether what needs no look may pass in C, where the rest allows it."""
