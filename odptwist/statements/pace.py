"""How a statement that looks at thousands of sessions leaves the reactor's thread to others meanwhile."""

from __future__ import annotations

from collections.abc import Callable

from attrs import frozen
from twisted.internet.defer import Deferred, execute, succeed


@frozen
class Pace:
    """The two ways to do so.

    Attributes:
        turn: fires when the others have had their turn; may be cancelled.
        aside: does a work in another thread, and fires with its result or fails as it does.
    """

    turn: Callable[[], Deferred[None]]
    aside: Callable[[Callable[[], None]], Deferred[None]]


AT_ONCE = Pace(turn=lambda: succeed(None), aside=execute)
"""Leaves nothing to others: where there are no others, or few sessions."""
