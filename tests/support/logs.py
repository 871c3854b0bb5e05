"""What was logged while a test ran."""

from __future__ import annotations

from typing import Any

from twisted.logger import LogLevel, formatEvent, globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase


def watch_log(case: SynchronousTestCase, level: Any = LogLevel.error) -> list[str]:
    """Return a list to which every message of this level is added until the test ends."""
    messages: list[str] = []

    def observe(event: dict[str, Any]) -> None:
        if event["log_level"] is level:
            messages.append(formatEvent(event))

    globalLogPublisher.addObserver(observe)
    case.addCleanup(globalLogPublisher.removeObserver, observe)
    return messages
