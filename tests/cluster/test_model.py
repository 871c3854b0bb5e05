"""What clusters know of their servers."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from odptwist.cluster.model import Cluster, Clusters, Server
from odptwist.cluster.routing import RoleRouter
from odptwist.identity import Identity
from odptwist.interfaces import IClusters, IRouter
from odptwist.snapshots import Address, Purpose, ServerStanding, ServerTraits

ONE, TWO = Address("h", 1), Address("h", 2)


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


class RoleRouterTests(SynchronousTestCase):
    def test_order_of_the_settings(self) -> None:
        """Where no role is known, servers are tried in the order of the settings."""
        router = RoleRouter()
        verifyObject(IRouter, router)
        servers = (ServerStanding("c", TWO), ServerStanding("c", ONE))
        for purpose in Purpose:
            self.assertEqual(router.choose_servers(Identity("u", "t", "c"), servers, purpose), (TWO, ONE))
