"""A timing wheel: items that are due at some time, in slots of one tick.

Putting, moving and removing an item costs the same however many there are, and one timer of the owner's is enough.
"""

from __future__ import annotations

from heapq import heappop, heappush
from math import floor
from typing import Generic, TypeVar

T = TypeVar("T")

_SLOTS = 600
"""How many ticks ahead an item can be put. What is due later comes up early, and has to be put again."""


class Wheel(Generic[T]):
    """Holds each item, which has to be hashable, at most once.

    Args:
        tick: seconds of a slot; an item comes up later than it is due, by at most this.
    """

    def __init__(self, tick: float) -> None:
        self._tick = tick
        self._slots: dict[int, set[T]] = {}
        self._order: list[int] = []
        self._places: dict[T, int] = {}

    def __len__(self) -> int:
        return len(self._places)

    def put(self, item: T, due: float, now: float) -> float:
        """Put or move an item; return when it comes up, which is after `due` but for what is far ahead."""
        self.remove(item)
        place = floor(min(due, now + self._tick * _SLOTS) / self._tick) + 1
        slot = self._slots.get(place)
        if slot is None:
            slot = self._slots[place] = set()
            heappush(self._order, place)
        slot.add(item)
        self._places[item] = place
        return place * self._tick

    def remove(self, item: T) -> None:
        """Forget an item; it need not be there."""
        place = self._places.pop(item, None)
        if place is not None:
            # The slot stays, even if it is empty now: there are never more than `_SLOTS` of them ahead.
            self._slots[place].discard(item)

    def take(self, now: float) -> list[T]:
        """Remove and return the items that come up now or earlier."""
        taken: list[T] = []
        while self._order and self._order[0] * self._tick <= now:
            taken += self._slots.pop(heappop(self._order))
        for item in taken:
            del self._places[item]
        return taken

    def next_time(self) -> float | None:
        """Return when items come up next, None if there is none; what was removed may have left a time too early."""
        return self._order[0] * self._tick if self._places else None
