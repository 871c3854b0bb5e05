"""The numbers of client sessions: ODP's two layouts (spec section 5.1), with one thread.

Version 1 counts from 1 for a proxy whose number is 0. Such numbers are also those of server sessions, so an id can name
one session by its own number and another by its connection id. In version 2 the proxy's number is in the top bits, and
what lies in the proxy's range is never anything but one of its client sessions.
"""

from __future__ import annotations

from collections.abc import Container
from random import SystemRandom
from typing import Final

from attrs import frozen

# Bits of the running number, the upgrade parity above them included: it stays 0.
_COUNTED: Final = {1: 23, 2: 18}
_PROXY_IDS: Final = {1: 1 << 8, 2: 1 << 13}
# Servers count their connections from 1, and none reaches 2**30: so ids with the highest bit of all are none of theirs.
_CHOSEN_FROM: Final = 1 << 12


def choose_proxy_id() -> int:
    """Return a number for a proxy of version 2 that has none: by chance, so that two proxies seldom have the same."""
    return SystemRandom().randrange(_CHOSEN_FROM, _PROXY_IDS[2])


@frozen
class SessionIds:
    """How one proxy numbers its client sessions.

    Attributes:
        version: 1 or 2.
        proxy_id: below 256 for version 1, below 8,192 for version 2.
    """

    version: int = 1
    proxy_id: int = 0

    @property
    def first(self) -> int:
        """Return the lowest number."""
        return (self.proxy_id << _COUNTED[self.version]) + 1

    @property
    def last(self) -> int:
        """Return the highest number; after it comes the lowest that is free."""
        return (self.proxy_id << _COUNTED[self.version]) + (1 << _COUNTED[self.version] - 1) - 1

    @property
    def one_everywhere(self) -> bool:
        """Whether a client sees no other number of its session: CONNECTION_ID() and process lists have this one."""
        return self.version == 2

    def next(self, previous: int, taken: Container[int]) -> int:
        """Return the free number that comes after `previous`, 0 if there was none."""
        first, last = self.first, self.last
        number = previous
        while True:
            number = number + 1 if first <= number < last else first
            if number not in taken:
                return number

    def is_own(self, number: int) -> bool:
        """Whether a number can be nothing but that of a client session of this proxy, dead or alive."""
        return self.one_everywhere and number >> _COUNTED[2] == self.proxy_id
