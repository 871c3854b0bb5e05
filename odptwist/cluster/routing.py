"""The built-in router."""

from __future__ import annotations

from collections.abc import Sequence

from zope.interface import implementer

from odptwist.identity import Identity
from odptwist.interfaces import IRouter
from odptwist.snapshots import Address, Purpose, Role, ServerStanding


@implementer(IRouter)
class RoleRouter:
    """Writes go to the primary, reads to replicas by weight, in turn; servers that are down come last.

    Where no role is known, servers are tried in the order of the settings.
    """

    def __init__(self) -> None:
        self._credit: dict[Address, int] = {}

    def choose_servers(
        self, identity: Identity, servers: Sequence[ServerStanding], purpose: Purpose
    ) -> Sequence[Address]:
        """Return what `IRouter` wants."""
        replicas = [each for each in servers if each.role is Role.REPLICA]
        others = [each for each in servers if each.role is not Role.REPLICA]
        # A server whose role is not known may be the primary, but one that is known to be is the better guess.
        others.sort(key=lambda each: (not each.up, each.role is not Role.PRIMARY))
        if purpose is Purpose.WRITE:
            chosen = others
        elif purpose is Purpose.LOGIN:
            chosen = sorted([*others, *replicas], key=lambda each: not each.up)
        else:
            live = [each for each in replicas if each.up]
            chosen = [*self._in_turn(live), *others, *(each for each in replicas if not each.up)]
        return tuple(each.address for each in chosen)

    def _in_turn(self, servers: list[ServerStanding]) -> list[ServerStanding]:
        """Return the servers, first the one whose turn it is: each is first as often as its weight says."""
        if len(servers) < 2:
            return servers
        total = sum(each.weight for each in servers)
        for each in servers:
            self._credit[each.address] = self._credit.get(each.address, 0) + each.weight
        first = max(servers, key=lambda each: self._credit[each.address])
        self._credit[first.address] -= total
        return [first, *(each for each in servers if each is not first)]
