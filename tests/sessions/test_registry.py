"""Numbers of sessions, and who sees which."""

from __future__ import annotations

from twisted.internet.defer import Deferred, succeed
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer
from zope.interface.verify import verifyObject

from odptwist.answers import Answer, Column, ColumnType, Table
from odptwist.errors import CloseReason
from odptwist.interfaces import (
    IAccessPolicy,
    IClusters,
    IProxyStatement,
    IRouter,
    ISessionDirectory,
    IStatements,
)
from odptwist.sessions.registry import Numbers
from odptwist.snapshots import Asker, KillScope, KillTarget, Privileges
from tests.support.house import House


@implementer(IProxyStatement)
class _Large:
    """Answers with more than a client may be sent."""

    name = "large"
    first_words = ("LARGE",)

    def parse(self, text: str) -> object:
        """Take any text."""
        return text

    def answer(self, request: object, asker: Asker, directory: ISessionDirectory) -> Deferred[Answer]:
        """Fire with 20 MiB."""
        return succeed(Table((Column("a", ColumnType.VARCHAR),), (("x" * 20_000,),) * 1024))


class NumbersTests(SynchronousTestCase):
    def test_proxy_sessid(self) -> None:
        """proxy_sessid is made of address, port and a counter of 16 bits, as ODP makes it."""
        numbers = Numbers()
        self.assertEqual(numbers.new_proxy_sessid("10.125.224.18", 13205), 756006681247547393)
        self.assertEqual(numbers.new_proxy_sessid("10.125.224.18", 13205), 756006681247547394)
        self.assertEqual(numbers.new_proxy_sessid("", 0), 3)
        self.assertEqual(numbers.new_proxy_sessid("::1", 2883), 2883 << 16 | 4)
        self.assertEqual(numbers.new_proxy_sessid("::ffff:10.125.224.18", 13205), 756006681247547393 + 4)
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

    def test_many_sessions_are_shown_in_parts(self) -> None:
        """Others have their turn after each hundred; one that ends meanwhile is not shown."""
        house = House()
        for _ in range(250):
            house.log_in()
        shown: list[int] = []
        asker = house.registry._sessions[1].asker()
        visiting = house.registry.visit(
            Asker(1, asker.identity, Privileges.NONE), lambda session: shown.append(session.cs_id)
        )
        self.assertEqual(shown, list(range(1, 101)))
        self.assertNoResult(visiting)
        house.registry._sessions[150].drop(CloseReason.KILLED)
        house.turn()
        self.successResultOf(visiting)
        self.assertEqual(shown, [number for number in range(1, 251) if number != 150])

    def test_a_long_list_is_sent_whole(self) -> None:
        """Its rows are made in parts; a client that goes away meanwhile leaves nothing behind."""
        house = House()
        for _ in range(450):
            client, server = house.log_in()
        client.query(b"SHOW PROXYSESSION")
        if house.reactor.getDelayedCalls() and (asked := server.payloads()) and asked[-1] == b"\x03SHOW GRANTS":
            server.row(b"GRANT USAGE ON *.* TO `root`@`%`")
        house.turn()
        self.assertEqual(len(client.payloads()), 1 + 12 + 1 + 450 + 1)
        client.query(b"SHOW PROXYSESSION")
        client.wire.lose()
        house.turn()
        self.assertEqual(len(house.registry), 449)

    def test_a_long_list_is_sent_in_parts(self) -> None:
        """Others have their turn after each part; of a session that is killed meanwhile nothing more is sent."""
        house = House()
        for _ in range(1_000):
            client, _ = house.log_in(unprivileged=True)
        client.query(b"SHOW PROXYSESSION")
        parts = []
        while house.reactor.calls:
            before = len(client.wire.written)
            self.one_call(house)
            parts.append(len(client.wire.written) - before)
        sizes = list(filter(None, parts))
        self.assertEqual(len(sizes), 5)
        self.assertLess(max(sizes), sum(sizes) / 4)
        self.assertEqual(len(client.payloads()), 1 + 12 + 1 + 1_000 + 1)
        before = len(client.wire.written)
        client.query(b"SHOW PROXYSESSION")
        while len(client.wire.written) == before:
            self.one_call(house)
        client.wire.protocol.drop(CloseReason.KILLED)
        house.turn()
        self.assertEqual(len(client.wire.written), before + sizes[0])

    def one_call(self, house: House) -> None:
        """Let one thing happen that is due; `Clock.advance` goes on as long as anything is."""
        call = house.reactor.calls.pop(0)
        call.called = 1
        call.func(*call.args, **call.kw)

    def test_an_answer_that_is_too_large_is_an_error(self) -> None:
        """More than 16 MiB are 4024, and the session goes on."""
        house = House(statements=(_Large(),))
        client, server = house.log_in()
        client.query(b"LARGE")
        house.turn()
        self.assertEqual(client.error(), (4024, "Buffer not enough"))
        client.query(b"SELECT 1")
        server.row()
        self.assertEqual(len(client.payloads()), 5)

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
