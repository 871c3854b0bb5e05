"""Pauses and statements that take too long, on both sides of each limit, under a clock that the tests turn."""

from __future__ import annotations

from attrs import evolve
from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from odptwist.errors import CloseReason
from odptwist.sessions.history import History
from odptwist.wire import constants as c
from odptwist.wire.framing import Deframer, frame
from odptwist.wire.handshake import parse_handshake_response
from odptwist.wire.responses import parse_err
from tests.support.house import IN_TRANSACTION, ClientPeer, House, ServerPeer, greeting, response
from tests.support.own_accounts import enter as enter_as_administrator
from tests.support.own_accounts import make_house


class TimeLimitsTestCase(SynchronousTestCase):
    """A proxy with limits."""

    def setUp(self) -> None:
        """Make one."""
        self.house = House()
        self.limits = self.house.registry.surroundings.limits

    def advance(self, seconds: float) -> None:
        """Let time pass in small steps."""
        steps = int(seconds * 20)
        for _ in range(steps):
            self.house.reactor.advance(0.05)
        self.house.reactor.advance(seconds - steps * 0.05)

    def interactive(self) -> tuple[ClientPeer, ServerPeer]:
        """Return a client that has logged in and said that a person types there, and its server."""
        client = self.house.connect()
        client.packets()
        (packet,) = Deframer(1 << 20).receive(response())
        said = parse_handshake_response(packet.payload)
        client.send(frame(evolve(said, capabilities=said.capabilities | c.CLIENT_INTERACTIVE).encode(), 1))
        server = self.house.open()
        client.packets()
        return client, server

    def told(self, client: ClientPeer) -> tuple[int, int, str]:
        """Return sequence number, code and text of the ERR that ended a session."""
        (packet,) = client.packets()
        err = parse_err(packet.payload)
        return packet.sequence, err.code, err.message

    def statistics(self) -> dict[str, int]:
        """Return the counters of the limits."""
        found = {each.name: each.value for each in self.house.registry.statistics()}
        return {name[7:]: value for name, value in found.items() if name.startswith("limits_")}


class IdleTests(TimeLimitsTestCase):
    def test_border(self) -> None:
        """A session lives until its limit, and at most a second more; the client is told, then both sides close."""
        history = History()
        self.house.use(history=history)
        self.limits.wait_timeout = 600
        client, server = self.house.log_in()
        session = client.wire.protocol
        self.house.reactor.advance(599.9)
        self.assertIsNone(client.wire.ended)
        self.house.reactor.advance(1.1)
        self.house.turn()
        self.assertEqual(
            self.told(client),
            (
                1,
                4031,
                "The client was disconnected by the proxy because it was idle for 600 s. "
                "See limits.wait_timeout for configuring this behavior.",
            ),
        )
        self.assertEqual((client.wire.ended, server.wire.ended), ("closed", "aborted"))
        self.assertEqual(session.reason, CloseReason.IDLE_TIMEOUT)
        self.assertIn("idle for 600 s", history.latest_first()[-1].detail)
        self.assertEqual(self.statistics()["idle_ended"], 1)
        self.assertEqual(len(self.house.registry), 0)

    def test_work_begins_the_pause_anew(self) -> None:
        """A session that works now and then lives, however long in all."""
        self.limits.wait_timeout = 10
        client, server = self.house.log_in()
        for _ in range(10):
            self.advance(9)
            client.query(b"SELECT 1")
            server.row()
        self.assertIsNone(client.wire.ended)
        self.advance(10.2)
        self.assertEqual(client.wire.protocol.reason, CloseReason.IDLE_TIMEOUT)

    def test_login_is_no_pause(self) -> None:
        """The pause begins with the end of the login, which has a limit of its own."""
        self.limits.wait_timeout = 5
        client = self.house.connect()
        client.packets()
        self.advance(4)
        client.send(response())
        self.house.open()
        self.advance(4)
        self.assertIsNone(client.wire.ended)
        self.advance(2)
        self.assertIs(client.wire.protocol.reason, CloseReason.IDLE_TIMEOUT)

    def test_statement_is_no_pause(self) -> None:
        """A statement may take longer than the limit for pauses."""
        self.limits.wait_timeout = 5
        client, server = self.house.log_in()
        client.query(b"SELECT SLEEP(60)")
        self.advance(60)
        self.assertIsNone(client.wire.ended)
        server.row()
        self.advance(4.9)
        self.assertIsNone(client.wire.ended)

    def test_interactive_clients(self) -> None:
        """Clients at which a person types have a limit of their own, longer or shorter."""
        self.limits.wait_timeout, self.limits.interactive_timeout = 10, 20
        (person, _), (program, _) = self.interactive(), self.house.log_in()
        self.advance(11)
        self.assertEqual((person.wire.ended, program.wire.ended), (None, "closed"))
        self.advance(10)
        self.assertIn("interactive_timeout", self.told(person)[2])
        self.limits.wait_timeout, self.limits.interactive_timeout = 0, 3
        self.house.registry.time_limits.limits_changed()
        (person, _), (program, _) = self.interactive(), self.house.log_in()
        self.advance(4)
        self.assertEqual((person.wire.ended, program.wire.ended), ("closed", None))

    def test_administrators(self) -> None:
        """Those of the proxy's own accounts are clients, too."""
        self.house = make_house()
        self.house.registry.surroundings.limits.wait_timeout = 10
        client = enter_as_administrator(self.house)
        self.advance(11)
        self.assertEqual(self.told(client)[1], 4031)

    def test_statement_of_the_proxys_own(self) -> None:
        """A client that waits for the proxy is not idle."""
        self.limits.wait_timeout = 10
        client, _ = self.house.log_in()
        victim, _ = self.house.log_in()
        victim.query(b"SELECT SLEEP(60)")
        self.house.registry.surroundings.limits.kill_timeout = 60
        self.advance(1)
        client.query(b"KILL 2")
        self.advance(15)
        self.assertIsNone(client.wire.ended)

    def test_many_at_once(self) -> None:
        """Those whose time is up together are ended a few at a time, and all of them soon."""
        self.limits.wait_timeout = 10
        for _ in range(95):
            self.house.log_in()
        lives = [95]

        def be_a_neighbour() -> None:
            lives.append(sum(each.reason is None for each in self.house.registry.live()))
            if lives[-1]:
                self.house.reactor.callLater(0, be_a_neighbour)

        self.house.reactor.callLater(10.05, be_a_neighbour)
        self.house.reactor.advance(10.1)
        self.assertEqual(lives, [95, 85, 75, 65, 55, 45, 35, 25, 15, 5, 0])


class TransactionTests(TimeLimitsTestCase):
    def begin(self) -> tuple[ClientPeer, ServerPeer]:
        """Return a client with an open transaction, and its server."""
        client, server = self.house.log_in()
        client.query(b"BEGIN")
        server.ok(IN_TRANSACTION)
        client.packets()
        return client, server

    def test_border(self) -> None:
        """A session that does nothing in its transaction is ended, and told why; the server session is cut."""
        self.limits.idle_transaction_timeout = 60
        client, server = self.begin()
        self.house.reactor.advance(59.9)
        self.assertIsNone(client.wire.ended)
        self.house.reactor.advance(0.8)
        self.house.turn()
        self.assertEqual(
            self.told(client),
            (
                1,
                4031,
                "The client was disconnected by the proxy because its transaction was idle for 60 s, and was rolled "
                "back. See limits.idle_transaction_timeout for configuring this behavior.",
            ),
        )
        self.assertEqual((client.wire.ended, server.wire.ended), ("closed", "aborted"))
        self.assertEqual(self.statistics()["transactions_ended"], 1)

    def test_work_in_the_transaction(self) -> None:
        """A transaction may last as long as it is worked on."""
        self.limits.idle_transaction_timeout = 10
        client, server = self.begin()
        for _ in range(6):
            self.advance(8)
            client.query(b"SELECT 1")
            server.ok(IN_TRANSACTION)
        self.assertIsNone(client.wire.ended)

    def test_without_a_transaction(self) -> None:
        """Who has none, or none any more, may do nothing."""
        self.limits.idle_transaction_timeout = 10
        idle, _ = self.house.log_in()
        client, server = self.begin()
        client.query(b"COMMIT")
        server.ok()
        self.advance(100)
        self.assertEqual((idle.wire.ended, client.wire.ended), (None, None))

    def test_shorter_limit_counts(self) -> None:
        """In a transaction the shorter one of both limits for pauses ends a session."""
        self.limits.idle_transaction_timeout, self.limits.wait_timeout = 60, 10
        client, _ = self.begin()
        self.advance(11)
        self.assertIs(client.wire.protocol.reason, CloseReason.IDLE_TIMEOUT)
        self.limits.idle_transaction_timeout, self.limits.wait_timeout = 10, 60
        client, _ = self.begin()
        self.advance(11)
        self.assertIs(client.wire.protocol.reason, CloseReason.IDLE_TRANSACTION_TIMEOUT)

    def test_limit_that_counts_for_the_client(self) -> None:
        """Which one is shorter depends on whether a person types; without a limit in transactions the other holds."""
        self.limits.interactive_timeout = 5
        (person, server), (program, _) = self.interactive(), self.begin()
        person.query(b"BEGIN")
        server.ok(IN_TRANSACTION)
        self.advance(6)
        self.assertEqual((person.wire.ended, program.wire.ended), ("closed", None))


class StatementTests(TimeLimitsTestCase):
    def run_too_long(self, seconds: float = 31) -> tuple[ClientPeer, ServerPeer]:
        """Return a client whose statement has run for longer than 30 s, and its server."""
        self.limits.max_statement_time = 30
        client, server = self.house.log_in()
        client.query(b"SELECT SLEEP(100)")
        server.packets()
        self.advance(seconds)
        return client, server

    def test_border(self) -> None:
        """A statement that takes too long is stopped by KILL QUERY, and the client is told which limit it was."""
        client, server = self.run_too_long(29.9)
        self.assertEqual(self.house.attempts, 0)
        self.advance(0.5)
        killer = self.house.open()
        self.assertEqual(killer.payloads()[-1], b"\x03KILL QUERY %d" % server.thread_id)
        killer.ok()
        server.err(1317, "Query execution was interrupted")
        self.assertEqual(
            client.error(),
            (
                1969,
                "Query execution was interrupted (max_statement_time exceeded): "
                "the proxy's limits.max_statement_time is 30 s",
            ),
        )
        client.query(b"SELECT 1")
        self.assertEqual(server.payloads()[-1], b"\x03SELECT 1")
        self.assertEqual(self.statistics()["statements_stopped"], 1)

    def test_statement_that_does_not_come(self) -> None:
        """A client that does not go on with a long command is ended: on the server there is nothing to stop."""
        self.limits.max_statement_time = 30
        for command in (b"\x03SELECT '", b"\x18\1\0\0\0\0\0"):
            client, _ = self.house.log_in()
            client.send(b"\xff\xff\xff\0" + command + b"x" * 100_000)
            self.advance(29)
            self.assertIsNone(client.wire.protocol.reason)
            self.advance(2)
            self.assertEqual(self.told(client)[1], 1969)
            self.assertEqual(client.wire.protocol.reason, CloseReason.IDLE_TIMEOUT)
            self.assertEqual(self.house.attempts, 0)

    def test_other_servers(self) -> None:
        """Where the server is no MariaDB, the error is MySQL's."""
        client = self.house.connect()
        client.packets()
        client.send(response())
        server = self.house.accept()
        server.send(frame(evolve(greeting(7), server_version="5.7.25-OceanBase SeekDB-v1.1").encode(), 0))
        server.accept()
        client.packets()
        self.limits.max_statement_time = 30
        self.house.registry.time_limits.limits_changed()
        client.query(b"SELECT SLEEP(100)")
        self.advance(31)
        self.house.open().ok()
        server.err(1317, "Query execution was interrupted")
        code, text = client.error()
        self.assertEqual(code, 3024)
        self.assertIn("maximum statement execution time exceeded: the proxy's limits.max_statement_time is 30 s", text)

    def test_statement_in_time(self) -> None:
        """A session whose statements all end in time is left alone, however long it works."""
        self.limits.max_statement_time = 10
        client, server = self.house.log_in()
        for _ in range(10):
            client.query(b"SELECT SLEEP(9)")
            self.advance(9)
            server.row()
        self.advance(100)
        self.assertEqual(self.house.attempts, 0)
        self.assertIsNone(client.wire.ended)

    def test_statement_that_goes_on(self) -> None:
        """A statement that its server does not stop is not killed again and again; the next one of that session is."""
        client, server = self.run_too_long()
        self.house.open().err(1095, "You are not owner")
        self.advance(100)
        self.assertEqual(self.house.attempts, 0)
        server.row()
        client.packets()
        client.query(b"SELECT SLEEP(200)")
        self.advance(31)
        self.assertEqual(self.house.attempts, 1)

    def test_statement_without_a_server(self) -> None:
        """A statement that waits for a server session is ended without one."""
        self.limits.max_statement_time = 2
        client, server = self.house.log_in()
        server.wire.lose()
        self.house.turn()
        client.query(b"SELECT 1")
        self.house.accept()
        self.advance(2.5)
        self.assertEqual(client.error()[0], 1969)
        self.assertIsNone(client.wire.ended)

    def test_replicas(self) -> None:
        """What a replica asks for has no end, and no limit."""
        self.limits.max_statement_time = 10
        client, _ = self.house.log_in()
        client.command(c.COM_BINLOG_DUMP, b"\4\0\0\0\0\0\1\0\0\0")
        self.advance(100)
        self.assertEqual(self.house.attempts, 0)


class SweepTests(TimeLimitsTestCase):
    def timers(self) -> int:
        """Return how many timers there are."""
        return len(self.house.timers())

    def test_no_limits(self) -> None:
        """Without limits nobody looks."""
        self.house.log_in()
        self.assertEqual(self.timers(), 0)

    def test_one_timer(self) -> None:
        """There is one timer, however many sessions there are, and it is gone with the last one."""
        self.limits.wait_timeout, self.limits.max_statement_time = 10, 5
        clients = [self.house.log_in() for _ in range(20)]
        for client, _ in clients[:10]:
            client.query(b"SELECT SLEEP(100)")
        self.assertEqual(self.timers(), 1)
        self.advance(4)
        for client, _ in clients:
            client.wire.lose()
        self.house.turn()
        self.advance(10)
        self.assertEqual(len(self.house.registry), 0)
        self.assertEqual(self.timers(), 0)

    def test_sweeps_are_rare(self) -> None:
        """Nobody looks before the first one can come to a limit."""
        self.limits.wait_timeout = 28_800
        self.house.log_in()
        (timer,) = self.house.timers()
        self.assertEqual(timer.getTime() - self.house.reactor.seconds(), 28_800)

    def test_limit_that_changes(self) -> None:
        """A limit that is set holds for those who are there, too, and one that is taken away for nobody."""
        client, _ = self.house.log_in()
        self.advance(100)
        self.limits.wait_timeout = 50
        self.house.registry.time_limits.limits_changed()
        self.advance(1)
        self.assertEqual(client.wire.ended, "closed")
        client, _ = self.house.log_in()
        self.advance(40)
        self.limits.wait_timeout = 0
        self.house.registry.time_limits.limits_changed()
        self.assertEqual(self.timers(), 0)
        self.advance(100)
        self.assertIsNone(client.wire.ended)

    def test_stop(self) -> None:
        """A proxy that is stopped looks no more."""
        self.limits.wait_timeout = 10
        self.house.log_in()
        self.house.registry.stop()
        self.house.turn()
        self.assertEqual(self.timers(), 0)

    def test_login_without_a_limit(self) -> None:
        """Where logins have no limit there is no timer for them."""
        self.limits.login_timeout = 0
        client = self.house.connect()
        self.assertEqual(self.timers(), 0)
        client.packets()
        self.advance(100)
        client.send(response())
        self.house.open()
        self.assertEqual(client.payloads()[0][0], 0)

    @settings(max_examples=60, deadline=None)
    @given(
        limits=st.tuples(st.sampled_from([0, 3, 20]), st.sampled_from([0, 2, 7]), st.sampled_from([0, 1, 9])),
        steps=st.lists(st.tuples(st.integers(0, 2), st.integers(0, 3), st.integers(1, 40)), max_size=30),
    )
    def test_everyone_in_time(self, limits: tuple[int, int, int], steps: list[tuple[int, int, int]]) -> None:
        """Whatever sessions do: none is ended before its time, and none lives more than a second longer."""
        self.setUp()
        self.limits.wait_timeout, self.limits.idle_transaction_timeout, self.limits.max_statement_time = limits
        wait, transaction, statement = (each or float("inf") for each in limits)
        peers = [self.house.log_in() for _ in range(3)]
        began = [self.house.reactor.seconds()] * 3
        state = ["idle"] * 3
        for who, what, tenths in steps:
            client, server = peers[who]
            if client.wire.ended is None and state[who] != "stopped":
                now = self.house.reactor.seconds()
                if state[who] == "runs":
                    server.ok(IN_TRANSACTION if what % 2 else evolve(IN_TRANSACTION, status=2))
                    state[who], began[who] = ("in transaction" if what % 2 else "idle"), now
                elif what:
                    client.query(b"SELECT 1")
                    state[who], began[who] = "runs", now
            for _ in range(tenths):
                self.house.reactor.advance(0.1)
                self.house.turn()
                for place, (each, _) in enumerate(peers):
                    took = self.house.reactor.seconds() - began[place]
                    if state[place] == "stopped":
                        continue
                    if state[place] == "runs":
                        stopped = each.wire.protocol.bound.holds > 0
                        self.assertTrue(took >= statement - 0.01 if stopped else took <= statement + 1)
                        state[place] = "stopped" if stopped else "runs"
                        continue
                    limit = min(wait, transaction) if state[place] == "in transaction" else wait
                    if each.wire.ended is not None:
                        if began[place] < float("inf"):
                            self.assertGreaterEqual(took, limit - 0.01)
                        began[place] = float("inf")
                    else:
                        self.assertLessEqual(took, limit + 1)
