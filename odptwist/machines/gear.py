"""Which of the two response machines runs: the one in C where it was built, else the one in Python."""

from __future__ import annotations

import os
from importlib import import_module

from odptwist.machines.response import Responses

__all__ = ["GEAR", "Responses"]

GEAR = "pure Python"
"""For people: what the log and SHOW PROXYINFO BINARY call it."""

# ODPTWIST_GEAR=python is for tests and for comparisons.
if os.environ.get("ODPTWIST_GEAR") != "python":
    try:
        Responses = import_module("odptwist.machines._response").Responses  # type: ignore[misc]
    except ImportError:
        pass
    else:
        GEAR = "C tracker"
