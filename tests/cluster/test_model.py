"""What clusters know of their servers."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from odptwist.cluster.model import Cluster, Clusters
from odptwist.cluster.routing import OrderedRouter
from odptwist.identity import Identity
from odptwist.interfaces import IClusters, IRouter
from odptwist.snapshots import Address, ServerTraits

ONE, TWO = Address("h", 1), Address("h", 2)


class ClustersTests(SynchronousTestCase):
    def test_promise(self) -> None:
        """Clients are promised what every server that was heard can do; a server's newest word counts."""
        clusters = Clusters([Cluster("a", (ONE,), ("sys",)), Cluster("b", (TWO, ONE), ("sys",))])
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
        self.assertEqual(clusters.servers("a"), (ONE,))

    def test_ordered_router(self) -> None:
        """The built-in router keeps the order of the settings."""
        router = OrderedRouter()
        verifyObject(IRouter, router)
        self.assertEqual(router.choose_servers(Identity("u", "t", "c"), (TWO, ONE)), (TWO, ONE))
