"""When a condition over a session can become true because time passes, and nothing else does."""

from __future__ import annotations

from math import inf

from attrs import frozen


@frozen
class Timing:
    """What a condition has to do with time.

    Between two of its constants such a condition does not change unless its session does.

    Attributes:
        seconds: the constants that it compares the time since when the session has been busy or idle with, rising.
        transaction_seconds: the same of the time since when its transaction has been open.
        least_seconds: the condition is false while the first time is less.
        least_transaction_seconds: the condition is false while the other time is less.
    """

    seconds: tuple[float, ...] = ()
    transaction_seconds: tuple[float, ...] = ()
    least_seconds: float = 0.0
    least_transaction_seconds: float = 0.0

    @property
    def is_timed(self) -> bool:
        """Whether time alone can make the condition true."""
        return bool(self.seconds or self.transaction_seconds)

    def is_possible(self, seconds: float, transaction_seconds: float) -> bool:
        """Say whether the condition may be true of a session with these values: a test that costs nearly nothing."""
        return seconds >= self.least_seconds and transaction_seconds >= self.least_transaction_seconds

    def wait(self, seconds: float, transaction_seconds: float | None) -> float:
        """Return in how many seconds a value passes a constant next; `inf` if none is ahead.

        Args:
            seconds: the session's value now.
            transaction_seconds: its other value, None if no transaction is open, so that it does not grow.
        """
        wait = _next(self.seconds, seconds)
        return wait if transaction_seconds is None else min(wait, _next(self.transaction_seconds, transaction_seconds))


def _next(constants: tuple[float, ...], value: float) -> float:
    # One that is equal is still to be passed: `seconds > 5` is false at 5.
    return next((constant - value for constant in constants if constant >= value), inf)
