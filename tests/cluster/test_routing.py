"""Which servers the built-in router chooses."""

from __future__ import annotations

from collections import Counter

from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from odptwist.cluster.routing import RoleRouter
from odptwist.identity import Identity
from odptwist.interfaces import IRouter
from odptwist.snapshots import Address, Purpose, Role, ServerStanding

WHO = Identity("u", "t", "c")
ROLES = {"P": Role.PRIMARY, "R": Role.REPLICA, "U": Role.UNKNOWN}


def stand(port: int, spelling: str, weight: int = 1, cluster: str = "c") -> ServerStanding:
    """Return the standing of a server: `P`, `R` or `U` for its role, in lower case if it is down."""
    return ServerStanding(cluster, Address("h", port), weight, ROLES[spelling.upper()], up=spelling.isupper())


class RoleRouterTests(SynchronousTestCase):
    def setUp(self) -> None:
        """Make a router."""
        self.router = RoleRouter()

    def choose(self, spelling: str, purpose: Purpose) -> str:
        """Return the places of the chosen among servers that are spelled as in `stand`."""
        servers = [stand(place, each) for place, each in enumerate(spelling)]
        return "".join(str(each.port) for each in self.router.choose_servers(WHO, servers, purpose))

    def test_it_provides_its_interface(self) -> None:
        """RoleRouter is a router."""
        self.assertTrue(verifyObject(IRouter, self.router))

    def test_order_of_the_settings(self) -> None:
        """Where no role is known, servers are tried in the order of the settings; those that are down last."""
        for purpose in Purpose:
            self.assertEqual(self.choose("UUU", purpose), "012")
            self.assertEqual(self.choose("uUu", purpose), "102")

    def test_writes(self) -> None:
        """Writes go to a primary, else to who may be one, never to a replica; who is down is tried last."""
        table = [
            ("RPR", "1"),
            ("RUP", "21"),
            ("RUR", "1"),
            ("RRR", ""),
            ("RpR", "1"),
            ("RpU", "21"),
            ("upP", "210"),
            ("PP", "01"),
            ("rr", ""),
        ]
        for spelling, expected in table:
            self.assertEqual(self.choose(spelling, Purpose.WRITE), expected, spelling)

    def test_reads(self) -> None:
        """Reads go to a live replica, then to the primary, then to who may be one."""
        table = [
            ("PR", "10"),
            ("PUR", "201"),
            ("PrR", "201"),
            ("Pr", "01"),
            ("pr", "01"),
            ("pR", "10"),
            ("UP", "10"),
            ("P", "0"),
        ]
        for spelling, expected in table:
            self.assertEqual(self.choose(spelling, Purpose.READ), expected, spelling)

    def test_logins(self) -> None:
        """A first server session is best on the primary, and better on a live replica than on a dead primary."""
        table = [("RPR", "102"), ("RpR", "021"), ("RUP", "210"), ("rpu", "120"), ("RR", "01")]
        for spelling, expected in table:
            self.assertEqual(self.choose(spelling, Purpose.LOGIN), expected, spelling)

    def turns(self, servers: list[ServerStanding], count: int) -> list[int]:
        """Return the ports of those that come first, one turn after the other."""
        return [self.router.choose_servers(WHO, servers, Purpose.READ)[0].port for _ in range(count)]

    def test_shares(self) -> None:
        """Each replica has exactly its weight's share of every full round, and no two turns more than it must."""
        servers = [stand(0, "P"), stand(1, "R", 5), stand(2, "R", 1), stand(3, "R", 1)]
        turns = self.turns(servers, 70)
        self.assertEqual(turns[:7], [1, 1, 2, 1, 3, 1, 1])
        for start in range(0, 70, 7):
            self.assertEqual(Counter(turns[start : start + 7]), {1: 5, 2: 1, 3: 1})
        equal = self.turns([stand(1, "R"), stand(2, "R")], 6)
        self.assertEqual(equal, [1, 2] * 3)

    def test_every_live_replica_follows(self) -> None:
        """The others follow in the order of the settings, so that there is always a next best."""
        servers = [stand(1, "R"), stand(2, "R"), stand(3, "R")]
        chosen = [[each.port for each in self.router.choose_servers(WHO, servers, Purpose.READ)] for _ in range(3)]
        self.assertEqual(chosen, [[1, 2, 3], [2, 1, 3], [3, 1, 2]])

    def test_a_replica_that_comes_back(self) -> None:
        """Who was down gets its share from then on, and not what it has missed."""
        both, one = [stand(1, "R"), stand(2, "R")], [stand(1, "R"), stand(2, "r")]
        self.turns(both, 10)
        self.assertEqual(Counter(self.turns(one, 100)), {1: 100})
        self.assertEqual(Counter(self.turns(both, 10)), {1: 5, 2: 5})

    def test_clusters_do_not_mix(self) -> None:
        """A replica in two clusters has its share in each."""
        one = [stand(1, "R"), stand(2, "R")]
        other = [stand(1, "R", 3, "d"), stand(3, "R", 1, "d")]
        seen = [(self.turns(one, 1)[0], self.turns(other, 1)[0]) for _ in range(40)]
        self.assertEqual(Counter(port for port, _ in seen), {1: 20, 2: 20})
        self.assertEqual(Counter(port for _, port in seen), {1: 30, 3: 10})

    def test_nothing_grows(self) -> None:
        """Servers that come and go leave nothing behind."""
        for port in range(100):
            self.turns([stand(port, "R"), stand(port + 1, "R")], 3)
        self.assertEqual([len(each.shares) for each in self.router._rotations.values()], [2])
