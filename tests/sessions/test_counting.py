"""Tests of what is counted of a client session, in a proxy in memory."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from odptwist.errors import SqlError
from odptwist.sessions.counting import SELECTS
from odptwist.snapshots import Role
from odptwist.statements.session_statistics import STATISTICS
from odptwist.wire import constants as c
from odptwist.wire.framing import frame
from odptwist.wire.responses import Ok
from tests.support.house import IN_TRANSACTION, OK, House, ServerPeer, result

SECOND = 1_000_000_000


class CountingTests(SynchronousTestCase):
    def setUp(self) -> None:
        """Let a client log in."""
        self.house = House()
        self.house.reactor.advance(1000)
        self.client, self.server = self.house.log_in(unprivileged=True)

    def counted(self) -> dict[str, int]:
        """Return what is counted of a session, as it sees it; what is 0 is left out."""
        session = self.client.wire.protocol
        answer = self.house.registry.statistics_of(session.asker(), session.cs_id, exact=True)
        return {each.name: each.value for each in self.successResultOf(answer) if each.value}

    def ask(self, sql: bytes, answer: bytes | Ok = OK, seconds: float = 0.0) -> None:
        """Send a statement, and let the server answer after so many seconds."""
        self.client.query(sql)
        self.house.reactor.advance(seconds)
        if isinstance(answer, Ok):
            self.server.ok(answer)
        else:
            self.server.send(answer)

    def test_all_names_are_odps(self) -> None:
        """Nothing is counted under a name that ODP does not have."""
        self.ask(b"SET @a = 1")
        self.server.wire.lose()
        self.house.turn()
        self.client.query(b"SELECT 1")
        self.house.turn()
        server = self.house.open()
        self.assertIn("SET @a = 1", repr(server.payloads()))
        server.ok()
        self.house.turn()
        self.assertLessEqual(set(self.counted()), set(STATISTICS))

    def test_kinds_of_commands(self) -> None:
        """Each command is of one kind, by its first letters; all that are no text are others."""
        for text in (
            b"SELECT 1",
            b"select 1",
            b"SeLeCt 1",
            b"INSERT x",
            b"update x",
            b"Delete x",
            b"DELETE y",
            b"DO 1",
        ):
            self.ask(text)
        self.client.command(c.COM_PING)
        self.server.ok()
        counted = self.counted()
        kinds = [counted[f"client_{kind}_requests"] for kind in ("select", "insert", "update", "delete", "other")]
        self.assertEqual(kinds, [3, 1, 1, 2, 2])
        self.assertEqual([counted[name] for name in ("client_requests", "total_query_count")], [9, 9])
        self.assertEqual([counted["server_requests"], counted["server_responses"]], [9, 9])

    def test_the_shortcut_takes_selects_only(self) -> None:
        """What is counted by subtraction begins like a SELECT in a text."""
        self.assertEqual({each.lower() for each in SELECTS}, {b"\x03sel"})

    def test_sizes_of_requests(self) -> None:
        """A request is counted in the class of its size, header included."""
        for size in (10, 95, 96, 995, 996, 70_000):
            self.ask(b"SELECT".ljust(size))
        counted = self.counted()
        classes = [counted.get(f"request_size_{size}_count", 0) for size in ("100", "1K", "3K", "5K", "10K", "1M")]
        self.assertEqual(classes, [2, 2, 1, 0, 0, 1])
        self.assertEqual(counted["client_large_requests"], 1)
        self.assertEqual(counted["client_select_requests"], 6)

    def test_sizes_of_responses(self) -> None:
        """A response is counted in the class of its size, however many chunks it came in."""
        self.ask(b"SELECT 1")
        self.ask(b"SELECT 2", result([[b"x" * 500]]))
        large = result([[b"x" * 5000]])
        self.client.query(b"SELECT 3")
        for start in range(0, len(large), 700):
            self.server.send(large[start : start + 700])
        counted = self.counted()
        classes = [counted.get(f"response_size_{size}_count", 0) for size in ("100", "1K", "3K", "5K", "10K")]
        self.assertEqual(classes, [1, 1, 0, 0, 1])

    def test_answers_of_the_proxys_own(self) -> None:
        """They are internal requests, and neither requests nor responses of a server; their bytes count."""
        self.client.query(b"SHOW PROXYSESSION")
        self.house.turn()
        self.ask(b"SELECT 1")
        counted = self.counted()
        self.assertEqual([counted["client_internal_requests"], counted["client_requests"]], [1, 2])
        self.assertEqual([counted["server_requests"], counted["response_size_100_count"]], [1, 1])
        self.assertEqual(counted["client_completed_requests"], 2)
        self.assertGreater(counted["client_response_total_size"], counted["server_response_total_size"])

    def test_prepared_statements_of_the_proxys_own(self) -> None:
        """Each of their commands is one request, and internal, although the first look takes it for the server's."""
        self.client.command(c.COM_STMT_PREPARE, b"SHOW PROXYNET CONNECTION ?")
        (prepared, *_) = self.client.payloads()
        number = prepared[1:5]
        parameter = b"\0\1\x08\0" + (1).to_bytes(8, "little")
        self.client.command(c.COM_STMT_EXECUTE, number + b"\0\1\0\0\0" + parameter)
        self.client.command(c.COM_STMT_EXECUTE, b"\x63\0\0\0\0\1\0\0\0")
        self.house.turn()
        counted = self.counted()
        self.assertEqual([counted["client_internal_requests"], counted["client_requests"]], [3, 3])
        self.assertNotIn("server_requests", counted)

    def test_kinds_of_responses(self) -> None:
        """A response is of the kind of its first packet; of several results, the first one counts."""
        self.ask(b"SELECT 1", result([[b"1"]]))
        self.ask(b"SELECT 1; DO 1", result([[b"1"]], 2 | c.SERVER_MORE_RESULTS_EXISTS) + frame(OK.encode(0), 6))
        for _ in range(3):
            self.ask(b"DO 1")
        self.client.query(b"SELECT 1")
        self.server.err(1064, "no")
        self.client.command(c.COM_STATISTICS)
        self.server.send(frame(b"Uptime: 1", 1))
        counted = self.counted()
        kinds = [counted[f"server_{kind}_responses"] for kind in ("ok", "resultset", "error", "other")]
        self.assertEqual((kinds, counted["server_responses"]), ([3, 2, 1, 1], 7))

    def test_errors(self) -> None:
        """Responses that end with an error are counted."""
        self.client.query(b"SELECT 1")
        self.server.err(1064, "no")
        self.assertEqual(self.counted()["server_error_responses"], 1)

    def test_times(self) -> None:
        """The time of servers, of transactions, and of the pauses in them."""
        self.ask(b"SELECT SLEEP(2)", seconds=2)
        self.house.reactor.advance(100)
        self.ask(b"BEGIN", IN_TRANSACTION, seconds=1)
        self.house.reactor.advance(5)
        self.ask(b"SELECT 1", IN_TRANSACTION, seconds=1)
        self.house.reactor.advance(7)
        self.ask(b"COMMIT", seconds=3)
        counted = self.counted()
        self.assertEqual(counted["total_server_process_request_time"], 7 * SECOND)
        self.assertEqual(counted["total_transactions_time"], 17 * SECOND)
        self.assertEqual(counted["total_client_transaction_idle_time"], 12 * SECOND)
        self.assertEqual(counted["total_transaction_count"], 1)

    def test_connects_and_logins(self) -> None:
        """The first login is the client's own; further ones are the proxy's, and take their time."""
        self.assertEqual(self.counted()["server_connect_count"], 1)
        self.assertNotIn("send_saved_login_requests", self.counted())
        self.server.wire.lose()
        self.house.turn()
        self.client.query(b"SELECT 1")
        self.house.reactor.advance(2)
        server = self.house.accept()
        self.house.reactor.advance(1)
        server.greet()
        self.house.reactor.advance(2)
        server.accept()
        self.house.turn()
        counted = self.counted()
        self.assertEqual([counted["server_connect_count"], counted["broken_server_connections"]], [2, 1])
        self.assertEqual([counted["send_saved_login_requests"], counted["server_pl_lookup_count"]], [1, 1])
        self.assertEqual(counted["total_server_connect_time"], 2 * SECOND)
        self.assertEqual(counted["total_send_saved_login_time"], 3 * SECOND)

    def test_attempts_that_fail(self) -> None:
        """A server that cannot be reached is a retry."""
        self.server.wire.lose()
        self.house.turn()
        self.client.query(b"SELECT 1")
        self.house.refuse_connection()
        self.house.turn()
        counted = self.counted()
        self.assertEqual([counted["server_connect_count"], counted["server_connect_retries"]], [1, 1])

    def test_replays(self) -> None:
        """What is replayed at a fresh server session is all; its time is that of the one round trip."""
        self.ask(b"SET @a = 1")
        self.server.wire.lose()
        self.house.turn()
        self.client.query(b"SELECT 1")
        server = self.house.open()
        self.house.reactor.advance(4)
        server.ok()
        counted = self.counted()
        self.assertEqual(counted["send_all_session_vars_requests"], 1)
        self.assertEqual(counted["total_send_all_session_vars_time"], 4 * SECOND)

    def test_bytes_of_ended_server_sessions(self) -> None:
        """The sizes are those of all server sessions, past ones too."""
        self.ask(b"SELECT 1")
        before = self.counted()
        self.server.wire.lose()
        self.house.turn()
        for name in ("server_request_total_size", "server_response_total_size"):
            self.assertEqual(self.counted()[name], before[name])
        self.assertEqual(before["server_request_total_size"], len(frame(b"\x03SELECT 1", 0)))

    def test_others(self) -> None:
        """A session that may not be seen is as one that is not there."""
        asker = self.client.wire.protocol.asker()
        other, _ = self.house.log_in("somebody", unprivileged=True)
        for number in (other.wire.protocol.cs_id, 4711, 0, -5):
            failure = self.failureResultOf(self.house.registry.statistics_of(asker, number), SqlError)
            self.assertEqual(failure.value.code, 1094)


def serve(house: House, *servers: ServerPeer) -> None:
    """Let servers answer all that they are asked with OK."""
    for _ in range(3):
        house.turn()
        for server in servers:
            for _ in server.payloads():
                server.ok()


class SwitchingTests(SynchronousTestCase):
    def test_what_follows_to_another_server(self) -> None:
        """At a server session that has served before, only the classes that have changed are counted."""
        house = House(roles=(Role.PRIMARY, Role.REPLICA))
        client, primary = house.log_in()
        client.query(b"SELECT 1")
        servers = (primary, house.open())
        for text in (b"SET @a = 1", b"INSERT INTO t VALUES (1)", b"SELECT 2", b"INSERT INTO t VALUES (2)"):
            serve(house, *servers)
            house.reactor.advance(60)
            client.query(text)
        serve(house, *servers)
        session = client.wire.protocol
        found = self.successResultOf(house.registry.statistics_of(session.asker(), session.cs_id, exact=True))
        counted = {each.name: each.value for each in found}
        self.assertEqual(counted.get("send_changed_session_user_vars_requests"), 1)
        self.assertNotIn("send_changed_session_vars_requests", counted)
