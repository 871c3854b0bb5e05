"""The built-in router."""

from __future__ import annotations

from collections.abc import Sequence

from attrs import Factory, define
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
        self._rotations: dict[str, _Rotation] = {}

    def choose_servers(
        self, identity: Identity, servers: Sequence[ServerStanding], purpose: Purpose
    ) -> Sequence[Address]:
        """Return what `IRouter` wants."""
        if len(servers) == 1:
            return (servers[0].address,)
        replicas = [each for each in servers if each.role is Role.REPLICA]
        others = [each for each in servers if each.role is not Role.REPLICA]
        # A server whose role is not known may be the primary, but one that is known to be is the better guess. A
        # primary that is down is tried all the same: nobody else can take a write.
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
        """Return the servers of one cluster, first the one whose turn it is."""
        if len(servers) < 2:
            return servers
        name, shares = servers[0].cluster, {each.address: each.weight for each in servers}
        rotation = self._rotations.get(name)
        if rotation is None or rotation.shares != shares:
            rotation = self._rotations[name] = _Rotation(shares)
        first = rotation.next()
        return sorted(servers, key=lambda each: each.address != first)


@define
class _Rotation:
    """Smooth weighted round robin: in as many turns as there are shares, each server has exactly its own, spread out.

    When a server comes or goes a new one begins, so that nobody has to make up for turns that it could not take.
    """

    shares: dict[Address, int]
    _credit: dict[Address, int] = Factory(dict)

    def next(self) -> Address:
        for address, share in self.shares.items():
            self._credit[address] = self._credit.get(address, 0) + share
        first = max(self._credit, key=lambda address: self._credit[address])
        self._credit[first] -= sum(self.shares.values())
        return first
