"""Which clients may come in: how many there may be at once in all, from one address, and of one user.

Source: MySQL 8.0 reference manual, "Too many connections" and max_user_connections; MariaDB 10.11, whose ERR in place
of a greeting has no sqlstate, because the client has not said yet what it understands.

A server's limit for every user is 1203, one in an account is 1226: the proxy's is of the first kind. Servers have no
limit for addresses: 1040 is what clients and pools know from before they have said who they are.

A session counts from the moment when it is let in until its connection has ended, whatever it was that ended it. It
counts for its user from the moment when its password was found right: else anybody could take up a user's room.
"""

from __future__ import annotations

from typing import Final, Protocol, TypeVar

from odptwist.errors import CloseReason, TooManyConnections
from odptwist.identity import PROXY_TENANT, Identity
from odptwist.sessions.peer import Peer
from odptwist.sessions.surroundings import Limits, Surroundings

K = TypeVar("K")

RESERVE: Final = 3
"""Connections beyond the limits for the proxy's own accounts; who else has one loses it by saying its name."""
# Seconds in which whoever has a place of the reserve logs in, if others wait for it: else three clients that say
# nothing, or only that they are administrators, would keep these out.
_PATIENCE: Final = 1.0


class Guest(Protocol):
    """What is counted.

    Attributes:
        counted_host: the address that it counts for; empty if it counts only in all, None if it does not count.
        counted_user: the user that it has proved to be and counts for, or None.
    """

    surroundings: Surroundings
    peer: Peer
    began: float
    counted_host: str | None
    counted_user: Identity | None

    def drop(self, reason: CloseReason, detail: str = "") -> None:
        """End now."""


class Admission:
    """Counts client sessions, and refuses what would be too many.

    Attributes:
        refused: how many were refused.
    """

    def __init__(self) -> None:
        self.refused = 0
        self._inside = 0
        # Those who have a place of the reserve, and what they are told if they are none of those that it is for.
        self._beyond: dict[Guest, TooManyConnections] = {}
        self._of_host: dict[str, int] = {}
        self._of_user: dict[Identity, int] = {}

    def enter(self, guest: Guest) -> None:
        """Count a client that has connected.

        Raises:
            TooManyConnections: there is no room, not even in the reserve.
        """
        if self._has_room(guest.surroundings.limits):
            self._inside += 1
        else:
            self._set_aside(guest, _too_many())
        guest.counted_host = ""

    def locate(self, guest: Guest) -> None:
        """Count a client for its address, which is known now, or known better. That of a Unix socket is none.

        Raises:
            TooManyConnections: there is no room for it, and it can be none of those that the reserve is for.
        """
        _discount(self._of_host, guest.counted_host)
        guest.counted_host = ""
        host, limits = guest.peer.host, guest.surroundings.limits
        refusal = self._beyond.get(guest)
        if refusal is None:
            if not self._is_crowded(host, limits):
                self._count_host(guest)
                return
            refusal = _too_many(f" from {host}: max_address_connections is {limits.max_address_connections}")
        if not guest.surroundings.own_accounts.expects(host):
            raise self._refuse(refusal)
        if guest not in self._beyond:
            self._set_aside(guest, refusal)
            self._inside -= 1

    def name(self, guest: Guest, identity: Identity) -> None:
        """Hear whom a client says that it is. It does not count for that user yet: anybody can say so.

        Raises:
            TooManyConnections: that user has too many, or the client is in the reserve and none of those it is for.
        """
        if identity.tenant != PROXY_TENANT:
            refusal = self._beyond.get(guest)
            if refusal is not None:
                limits = guest.surroundings.limits
                if not self._has_room(limits) or self._is_crowded(guest.peer.host, limits):
                    raise self._refuse(refusal)
                del self._beyond[guest]
                self._inside += 1
                self._count_host(guest)
            self.check(guest, identity)

    def prove(self, guest: Guest, identity: Identity) -> None:
        """Count a client for the user that it has proved to be, and no longer for the one that it was before.

        Raises:
            TooManyConnections: that user has too many.
        """
        if identity.tenant != PROXY_TENANT:
            self.check(guest, identity)
        _discount(self._of_user, guest.counted_user)
        self._of_user[identity] = self._of_user.get(identity, 0) + 1
        guest.counted_user = identity

    def check(self, guest: Guest, identity: Identity) -> None:
        """Find out whether a client may be this user.

        Raises:
            TooManyConnections: it may not, because of the others.
        """
        most = guest.surroundings.limits.max_user_connections
        if most and self._of_user.get(identity, 0) - (guest.counted_user == identity) >= most:
            text = f"User {identity.user} already has more than 'max_user_connections' active connections"
            raise self._refuse(TooManyConnections(1203, "42000", text))

    def leave(self, guest: Guest) -> None:
        """Count a client no longer, because its connection has ended; it need not be counted."""
        if guest.counted_host is None:
            return
        if self._beyond.pop(guest, None) is None:
            self._inside -= 1
        _discount(self._of_host, guest.counted_host)
        _discount(self._of_user, guest.counted_user)
        guest.counted_host = guest.counted_user = None

    def _has_room(self, limits: Limits) -> bool:
        return not limits.max_connections or self._inside < limits.max_connections

    def _is_crowded(self, host: str, limits: Limits) -> bool:
        return 0 < limits.max_address_connections <= self._of_host.get(host, 0)

    def _count_host(self, guest: Guest) -> None:
        host = guest.peer.host
        if host:
            self._of_host[host] = self._of_host.get(host, 0) + 1
            guest.counted_host = host

    def _set_aside(self, guest: Guest, refusal: TooManyConnections) -> None:
        """Give a client a place of the reserve; raises the refusal if there is none."""
        if len(self._beyond) >= RESERVE:
            now = guest.surroundings.reactor.seconds()
            unproved = (each for each in self._beyond if each.counted_user is None and now - each.began > _PATIENCE)
            longest = next(unproved, None)
            if longest is None:
                raise self._refuse(refusal)
            self.leave(longest)
            longest.drop(CloseReason.TOO_MANY_CONNECTIONS, "it did not log in, and others wait for its place")
        self._beyond[guest] = refusal

    def _refuse(self, refusal: TooManyConnections) -> TooManyConnections:
        self.refused += 1
        return refusal


def _discount(counts: dict[K, int], key: K | None) -> None:
    left = counts.get(key, 0) - 1 if key is not None else -1
    if key is None or left < 0:
        return
    if left:
        counts[key] = left
    else:
        del counts[key]


def _too_many(where: str = "") -> TooManyConnections:
    return TooManyConnections(1040, "08004", f"Too many connections{where}")
