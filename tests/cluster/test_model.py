"""What clusters know of their servers."""

from __future__ import annotations

from twisted.internet.defer import CancelledError
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from odptwist.cluster.model import Cluster, Clusters, Server
from odptwist.interfaces import IClusters
from odptwist.snapshots import Address, Role, ServerFinding, ServerStanding, ServerTraits
from tests.support.logs import watch_log

ONE, TWO, THREE = Address("h", 1), Address("h", 2), Address("h", 3)


class ClustersTests(SynchronousTestCase):
    def test_promise(self) -> None:
        """Clients are promised what every server that was heard can do; a server's newest word counts."""
        clusters = Clusters(
            [Cluster("a", (Server(ONE),), ("sys",)), Cluster("b", (Server(TWO), Server(ONE)), ("sys",))]
        )
        verifyObject(IClusters, clusters)
        self.assertEqual(clusters.all_servers(), (ONE, TWO))
        self.assertIsNone(clusters.promise())
        clusters.heard(ONE, ServerTraits("8", 0b0111, 45, 2, "x"))
        clusters.heard(TWO, ServerTraits("8", 0b1101, 45, 2, "x"))
        self.assertEqual(clusters.promise().capabilities, 0b0101)
        clusters.heard(TWO, ServerTraits("8", 0b1111, 45, 2, "x"))
        self.assertEqual(clusters.promise().capabilities, 0b0111)

    def test_names_and_tenants(self) -> None:
        """The first cluster is the default, and accepts the labels of the settings only."""
        clusters = Clusters([Cluster("a", (), ("sys", "shop"))])
        self.assertEqual((clusters.default_name, clusters.names), ("a", {"a"}))
        self.assertTrue(clusters.accepts_tenant("a", "shop"))
        self.assertFalse(clusters.accepts_tenant("a", "SYS"))
        clusters.add_server("a", ONE)
        self.assertEqual([each.address for each in clusters.standings("a")], [ONE])


class StandingTests(SynchronousTestCase):
    """Two clusters that share the server TWO, and a clock."""

    def setUp(self) -> None:
        """Make them."""
        self.clock = Clock()
        self.clusters = Clusters(
            [
                Cluster("a", (Server(ONE), Server(TWO), Server(THREE, Role.PRIMARY)), ("sys",)),
                Cluster("b", (Server(TWO, weight=3),), ("sys",)),
            ],
            self.clock,
            down_after=3,
            retry=20.0,
        )

    def standing(self, address: Address, cluster: str = "a") -> ServerStanding:
        """Return the standing of a server in a cluster."""
        (found,) = (each for each in self.clusters.standings(cluster) if each.address == address)
        return found

    def fail_times(self, times: int, address: Address = ONE) -> None:
        """Report so many failures."""
        for _ in range(times):
            self.clusters.failed(address, "refused")

    def test_at_first(self) -> None:
        """Servers count as up, with the roles that the settings give them."""
        self.assertEqual(self.standing(ONE), ServerStanding("a", ONE))
        self.assertEqual(self.standing(TWO, "b"), ServerStanding("b", TWO, 3))
        self.assertEqual(self.standing(THREE), ServerStanding("a", THREE, 1, Role.PRIMARY))

    def test_found(self) -> None:
        """A finding is kept for every cluster of the server; the settings' role wins."""
        finding = ServerFinding(Role.REPLICA, "10.11", 2.0)
        self.clusters.found(TWO, finding)
        self.assertEqual(self.standing(TWO), ServerStanding("a", TWO, 1, Role.REPLICA, True, "10.11", 2.0))
        self.assertEqual(self.standing(TWO, "b"), ServerStanding("b", TWO, 3, Role.REPLICA, True, "10.11", 2.0))
        self.clusters.found(THREE, finding)
        self.assertEqual(self.standing(THREE).role, Role.PRIMARY)

    def test_down_after_failures_in_a_row(self) -> None:
        """Only so many failures without a finding between them make a server down, whoever reports them."""
        self.fail_times(2)
        self.clusters.found(ONE, ServerFinding(Role.PRIMARY))
        self.fail_times(2)
        standing = self.standing(ONE)
        self.assertEqual((standing.up, standing.failures, standing.why), (True, 2, "refused"))
        self.assertGreater(standing.failed_at, 0)
        self.fail_times(1)
        standing = self.standing(ONE)
        self.assertEqual((standing.up, standing.failures, standing.role), (False, 3, Role.PRIMARY))

    def test_found_again(self) -> None:
        """A server that was down is up as soon as it is found, and has nothing to make up for."""
        self.fail_times(7)
        self.clusters.found(ONE, ServerFinding(Role.REPLICA))
        standing = self.standing(ONE)
        self.assertEqual((standing.up, standing.failures, standing.why), (True, 0, ""))
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.fail_times(2)
        self.assertTrue(self.standing(ONE).up)

    def test_probation(self) -> None:
        """Without health checks, a server that is down is up again after a time, and down with the next failure."""
        self.fail_times(3)
        self.clock.advance(19.9)
        self.assertFalse(self.standing(ONE).up)
        self.clock.advance(0.1)
        self.assertTrue(self.standing(ONE).up)
        self.fail_times(1)
        self.assertFalse(self.standing(ONE).up)
        self.clock.advance(20)
        self.assertTrue(self.standing(ONE).up)

    def test_one_timer_for_a_server(self) -> None:
        """However often a server fails and comes back, and in however many clusters, it has one timer at most."""
        for _ in range(5):
            self.fail_times(9, TWO)
            self.assertEqual(len(self.clock.getDelayedCalls()), 1)
            self.assertEqual([self.standing(TWO, name).up for name in "ab"], [False, False])
            self.clock.advance(10)
            self.clusters.found(TWO, ServerFinding())
            self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_watched_servers_wait_to_be_found(self) -> None:
        """Where health checks run, time alone brings no server back."""
        self.clusters.watched = True
        self.fail_times(3)
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.assertFalse(self.standing(ONE).up)

    def test_generation(self) -> None:
        """It rises with roles and with up and down, and with nothing else."""
        self.clusters.found(ONE, ServerFinding(Role.UNKNOWN, "10.11", 1.0))
        self.clusters.found(THREE, ServerFinding(Role.REPLICA, "10.11", 2.0))
        self.fail_times(2)
        self.assertEqual(self.clusters.generation, 0)
        self.fail_times(1)
        self.assertEqual(self.clusters.generation, 1)
        self.fail_times(5)
        self.assertEqual(self.clusters.generation, 1)
        self.clusters.found(ONE, ServerFinding(Role.UNKNOWN))
        self.assertEqual(self.clusters.generation, 2)
        self.clusters.found(ONE, ServerFinding(Role.PRIMARY))
        self.clusters.found(ONE, ServerFinding(Role.PRIMARY, "10.12", 5.0))
        self.assertEqual(self.clusters.generation, 3)

    def test_failures_that_do_not_count_as_down(self) -> None:
        """Who waits for a primary may try it again when it is found, though it was never down; not at its greeting."""
        told: list[None] = []
        self.clusters.found(ONE, ServerFinding(Role.PRIMARY))
        self.clusters.found(TWO, ServerFinding(Role.REPLICA))
        self.clusters.when_changed().addCallback(told.append)
        self.fail_times(2)
        self.clusters.heard(ONE, ServerTraits("8", 0b0111, 45, 2, "x"))
        self.clusters.found(TWO, ServerFinding(Role.REPLICA))
        self.assertEqual(told, [])
        self.clusters.found(ONE, ServerFinding(Role.PRIMARY))
        self.assertEqual(told, [None])

    def test_a_server_that_nobody_knows(self) -> None:
        """What is told of a server of no cluster changes nothing."""
        stranger = Address("h", 9)
        self.clusters.found(stranger, ServerFinding(Role.PRIMARY))
        self.fail_times(9, stranger)
        self.assertEqual((self.clusters.generation, self.clock.getDelayedCalls()), (0, []))

    def test_suspicion(self) -> None:
        """A suspicion goes to whoever checks servers; without checks to nobody."""
        self.clusters.suspect(ONE)
        suspected: list[Address] = []
        self.clusters.on_suspicion = suspected.append
        self.clusters.suspect(TWO)
        self.assertEqual(suspected, [TWO])

    def test_when_changed(self) -> None:
        """Who waits for a change is told once; who has cancelled is not, even by one that was told just before."""
        told: list[int] = []
        one, two, three, gone = (self.clusters.when_changed() for _ in range(4))
        gone.addErrback(lambda failure: told.append(0))
        gone.cancel()
        one.addCallback(lambda _: (told.append(1), two.cancel()))
        two.addErrback(lambda failure: told.append(2))
        three.addCallback(lambda _: told.append(3))
        self.clusters.found(ONE, ServerFinding(Role.PRIMARY))
        self.clusters.found(ONE, ServerFinding(Role.REPLICA))
        self.assertEqual(told, [0, 1, 2, 3])

    def test_waiters_that_have_left_are_forgotten(self) -> None:
        """Waiting in vain, again and again, leaves nothing behind."""
        for _ in range(3):
            waiter = self.clusters.when_changed()
            waiter.cancel()
            self.failureResultOf(waiter, CancelledError)
        self.assertEqual(len(self.clusters._waiters), 0)


class RivalTests(SynchronousTestCase):
    """A cluster that may have several primaries."""

    def find(self, clusters: Clusters, *findings: tuple[Address, Role]) -> list[str]:
        """Report findings, and return the errors that were logged."""
        errors = watch_log(self)
        for address, role in findings:
            clusters.found(address, ServerFinding(role))
        return errors

    def test_two_primaries(self) -> None:
        """Both stay primaries; one error names them, and another one comes only after the trouble was over."""
        clusters = Clusters([Cluster("a", (Server(ONE), Server(TWO)), ("sys",))])
        both = [(ONE, Role.PRIMARY), (TWO, Role.PRIMARY)]
        errors = self.find(clusters, *both, *both, *both)
        self.assertEqual(errors, ["cluster a has 2 primaries: h:1, h:2. Writes go to the first"])
        self.assertEqual([each.role for each in clusters.standings("a")], [Role.PRIMARY, Role.PRIMARY])
        self.assertEqual(len(self.find(clusters, (TWO, Role.REPLICA), *both, *both)), 1)

    def test_two_primaries_among_replicas(self) -> None:
        """What is found of a replica meanwhile makes no difference."""
        clusters = Clusters([Cluster("a", (Server(ONE), Server(TWO), Server(THREE)), ("sys",))])
        replica = (THREE, Role.REPLICA)
        findings = [(ONE, Role.PRIMARY), replica, (TWO, Role.PRIMARY), replica]
        self.assertEqual(len(self.find(clusters, *findings, *findings[:2], *findings)), 1)

    def test_a_switchover(self) -> None:
        """The new primary may be found, even twice, before the old one is looked at again."""
        clusters = Clusters([Cluster("a", (Server(ONE), Server(TWO)), ("sys",))])
        before = [(ONE, Role.PRIMARY), (TWO, Role.REPLICA)]
        after = [(TWO, Role.PRIMARY), (ONE, Role.REPLICA)]
        self.assertEqual(self.find(clusters, *before, *before, after[0], *after, *after), [])

    def test_a_primary_that_is_down(self) -> None:
        """A dead primary is no rival of its successor."""
        clusters = Clusters([Cluster("a", (Server(ONE), Server(TWO)), ("sys",))], down_after=1)
        self.find(clusters, (ONE, Role.PRIMARY))
        clusters.failed(ONE, "gone")
        self.assertEqual(self.find(clusters, (TWO, Role.PRIMARY), (TWO, Role.PRIMARY)), [])

    def test_primaries_of_the_settings(self) -> None:
        """Who names several primaries in the settings has asked for them."""
        servers = tuple(Server(address, Role.PRIMARY) for address in (ONE, TWO))
        clusters = Clusters([Cluster("a", servers, ("sys",))])
        self.assertEqual(self.find(clusters, *[(ONE, Role.PRIMARY), (TWO, Role.PRIMARY)] * 3), [])
