"""Numbers of sessions, and who sees which."""

from __future__ import annotations

from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from odptwist.interfaces import IAccessPolicy, IClusters, IRouter, ISessionDirectory, IStatements
from odptwist.sessions.registry import Numbers
from odptwist.snapshots import Asker, KillScope, KillTarget
from tests.support.house import House


class NumbersTests(SynchronousTestCase):
    def test_proxy_sessid(self) -> None:
        """proxy_sessid is made of address, port and a counter of 16 bits, as ODP makes it."""
        numbers = Numbers()
        self.assertEqual(numbers.new_proxy_sessid("10.125.224.18", 13205), 756006681247547393)
        self.assertEqual(numbers.new_proxy_sessid("10.125.224.18", 13205), 756006681247547394)
        self.assertEqual(numbers.new_proxy_sessid("", 0), 3)
        self.assertEqual(numbers.new_proxy_sessid("::1", 2883), 2883 << 16 | 4)
        for _ in range(70_000):
            last = numbers.new_proxy_sessid("255.255.255.255", 65535)
        self.assertLess(last, 1 << 64)

    def test_ss_id(self) -> None:
        """ss_ids count from 1."""
        numbers = Numbers()
        self.assertEqual([numbers.new_ss_id() for _ in range(3)], [1, 2, 3])


class RegistryTests(SynchronousTestCase):
    def test_interfaces(self) -> None:
        """All parts provide what they say."""
        house = House()
        registry = house.registry
        verifyObject(ISessionDirectory, registry)
        verifyObject(IClusters, registry.surroundings.clusters)
        verifyObject(IRouter, registry.surroundings.router)
        verifyObject(IStatements, registry.surroundings.statements)
        verifyObject(IAccessPolicy, registry._policy)

    def test_ids_are_not_reused_soon(self) -> None:
        """A new session gets the next number, also after another has ended; live numbers are passed over on wrap."""
        house = House()
        first = house.connect()
        second = house.connect()
        second.wire.lose()
        house.turn()
        self.assertEqual(house.connect().wire.protocol.cs_id, 3)
        house.registry._last = (1 << 22) - 2
        self.assertEqual(house.connect().wire.protocol.cs_id, (1 << 22) - 1)
        self.assertEqual(house.connect().wire.protocol.cs_id, 2)
        self.assertEqual(first.wire.protocol.cs_id, 1)
        self.assertEqual(house.connect().wire.protocol.cs_id, 4)

    def test_list_is_ordered_and_filtered(self) -> None:
        """A user without privileges sees its own user's sessions only, by rising id; privileges are asked for once."""
        house = House()
        clients = [house.log_in(user) for user in ("a", "b", "a", "b")]
        asker, server = clients[2]
        server.payloads()
        asker.query(b"SHOW PROXYSESSION")
        self.assertEqual(server.payloads(), [b"\x03SHOW GRANTS"])
        server.row(b"GRANT USAGE ON *.* TO a")
        rows = [payload for payload in asker.payloads()[13:] if payload[:1] != b"\xfe"]
        self.assertEqual([row.split(b"odp")[0][-2:] for row in rows], [b"1\x03", b"3\x03"])
        asker.query(b"SHOW PROXYSESSION")
        self.assertEqual(server.payloads(), [])

    def test_own_session_needs_no_server(self) -> None:
        """A user who is alone is asked for no privileges."""
        house = House()
        client, server = house.log_in("a")
        server.payloads()
        client.query(b"SHOW PROXYSESSION ATTRIBUTE")
        self.assertEqual(server.payloads(), [])
        self.assertEqual(client.payloads()[0], b"\x03")

    def test_policy_that_raises_hides_everything(self) -> None:
        """What a failing access policy guards stays closed."""
        house = House()
        client, _ = house.log_in()
        house.log_in()

        def fail(*args: object) -> None:
            raise RuntimeError("a policy that fails")

        house.registry._policy.decide = fail
        client.query(b"KILL 2")
        self.assertEqual(client.error()[0], 1094)
        self.assertEqual(len(self.flushLoggedErrors(RuntimeError)), 2)

    def test_kill_by_somebody_without_a_session(self) -> None:
        """A kill by an asker whose session has gone meanwhile is decided by what is known of the asker."""
        house = House()
        _, server = house.log_in()
        session = next(iter(house.registry._sessions.values()))
        killed: Deferred[object] = house.registry.kill(
            KillTarget(1), KillScope.CONNECTION, Asker(99, session.identity), "no reason"
        )
        house.turn()
        self.successResultOf(killed)
        self.assertEqual(server.wire.ended, "aborted")
        own = house.registry.kill(KillTarget(None), KillScope.CONNECTION, Asker(99, session.identity))
        self.failureResultOf(own)
