"""Tests of the connections of client sessions, in a proxy in memory."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from odptwist.snapshots import Address, ConnectionSnapshot, SessionKind
from odptwist.wire.framing import frame
from tests.support.house import ClientPeer, House


class ConnectionsTests(SynchronousTestCase):
    def setUp(self) -> None:
        """Let a client log in."""
        self.house = House()
        self.client, self.server = self.house.log_in(unprivileged=True)

    def connections(self, asker: ClientPeer | None = None) -> list[ConnectionSnapshot]:
        """Return the connections that a client may see."""
        session = (asker or self.client).wire.protocol
        return list(self.successResultOf(self.house.registry.connections(session.asker())))

    def test_a_client_and_its_server(self) -> None:
        """Each has a row: who has connected to whom, and how much went over it."""
        self.client.query(b"SELECT 1")
        self.server.row()
        self.house.reactor.advance(60)
        client, server = self.connections()
        self.assertEqual((client.kind, client.source), (SessionKind.CLIENT, Address("127.0.0.1", 40000)))
        self.assertEqual(client.destination, Address("10.0.0.7", 2883))
        self.assertEqual((client.received, client.seconds), (len(frame(b"\x03SELECT 1", 0)), 60.0))
        self.assertEqual((server.kind, server.number), (SessionKind.SERVER, 1))
        self.assertEqual((server.source, server.destination), (Address("10.0.0.7", 2883), Address("10.1.0.1", 3306)))
        self.assertEqual((server.cs_id, server.sent), (client.number, client.received))

    def test_who_is_not_read_from(self) -> None:
        """A server is not read from while the client is full."""
        self.assertEqual([each.reading for each in self.connections()], [True, True])
        self.client.wire.protocol.pauseProducing()
        self.assertEqual([each.reading for each in self.connections()], [True, False])

    def test_only_what_may_be_seen(self) -> None:
        """Connections of a session that may not be seen are not there, and neither is one that is not made yet."""
        other = self.house.connect()
        self.house.log_in("somebody", unprivileged=True)
        self.assertEqual(len(self.connections()), 2)
        self.assertIsNotNone(other)
