"""Server sessions that end by themselves: what the client notices, and what it is told."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from odptwist.errors import CloseReason
from odptwist.wire.framing import frame
from odptwist.wire.responses import Err
from tests.support.house import IN_TRANSACTION, House, response, result


class LossTests(SynchronousTestCase):
    def setUp(self) -> None:
        """Log one client in."""
        self.house = House()
        self.client, self.server = self.house.log_in()
        self.session = self.client.wire.protocol

    def lose(self) -> None:
        """Let the server close the connection."""
        self.server.wire.lose()
        self.house.turn()

    def reopen(self) -> None:
        """Log the next server session in."""
        self.server = self.house.accept()
        self.server.greet()
        self.server.accept()
        self.server.payloads()

    def test_idle(self) -> None:
        """A server session that ends while idle is replaced without a word."""
        self.lose()
        self.assertIsNone(self.client.wire.ended)
        self.client.query(b"SELECT 1")
        self.server = self.house.accept()
        self.server.greet()
        self.server.accept()
        self.assertEqual(self.server.payloads()[-1], b"\x03SELECT 1")
        self.server.row()
        self.assertEqual(self.client.payloads()[0], b"\x01")

    def test_wait_timeout_of_the_client(self) -> None:
        """A client that has set wait_timeout is disconnected when a server session ends after that time, not before."""
        for seconds, ended, reason in (5, None, None), (9.9, "aborted", CloseReason.IDLE_TIMEOUT):
            self.setUp()
            self.client.query(b"SET SESSION wait_timeout = 10")
            self.server.ok()
            self.house.reactor.advance(seconds)
            self.lose()
            self.assertEqual((self.client.wire.ended, self.session.reason), (ended, reason))

    def test_farewell(self) -> None:
        """What the server says before it closes is told to a client that loses something."""
        self.client.query(b"BEGIN")
        self.server.ok(IN_TRANSACTION)
        self.client.payloads()
        self.server.send(frame(Err(1053, "08S01", "Server shutdown in progress").encode(), 0))
        self.house.turn()
        self.assertEqual(self.client.payloads(), [])
        self.client.query(b"COMMIT")
        code, text = self.client.error()
        self.assertEqual(code, 1158)
        self.assertIn("Server shutdown in progress", text)
        self.assertIn("the transaction, which was rolled back", text)

    def test_running(self) -> None:
        """A statement whose server goes before a byte of the answer is an error; the proxy never sends it again."""
        self.client.query(b"UPDATE t SET a = 1")
        self.lose()
        self.assertEqual(self.client.error()[0], 1158)
        self.assertEqual(self.house.attempts, 0)
        self.client.query(b"SELECT 1")
        self.reopen()

    def test_amid_an_answer(self) -> None:
        """A client amid an answer is cut: what it has is no whole answer."""
        self.client.query(b"SELECT * FROM t")
        self.server.send(result([[b"a"]])[:-1])
        self.lose()
        self.assertEqual((self.client.wire.ended, self.session.reason), ("aborted", CloseReason.SERVER_LOST))

    def test_server_that_breaks_the_protocol(self) -> None:
        """Nonsense in place of an answer is an error for the client; amid an answer the client is cut."""
        self.client.query(b"SELECT 1")
        self.server.send(frame(b"\xfe nonsense", 1))
        self.house.turn()
        self.assertEqual(self.server.wire.ended, "aborted")
        self.assertEqual(self.client.error()[0], 1158)
        self.client.query(b"SELECT * FROM t")
        self.reopen()
        self.server.send(result([[b"a"]])[:-9])
        self.server.send(frame(b"\xff", 5))
        self.house.turn()
        self.assertEqual((self.client.wire.ended, self.session.reason), ("aborted", CloseReason.SERVER_LOST))

    def test_farewell_behind_a_response(self) -> None:
        """A response reaches the client although the server says good-bye in the same chunk."""
        self.client.query(b"SELECT 1")
        self.server.send(result([[b"a"]]) + frame(Err(1927, "70100", "Connection was killed").encode(), 0))
        self.house.turn()
        self.assertEqual(len(self.client.payloads()), 5)
        self.assertEqual(self.server.wire.ended, "aborted")
        self.client.query(b"SELECT 1")
        self.reopen()

    def test_server_that_is_full_when_it_is_lost(self) -> None:
        """A client that was paused for a server is read again when that server has gone."""
        self.client.query(b"SELECT 1")
        self.server.wire.producer.pauseProducing()
        self.assertTrue(self.client.wire.paused)
        self.lose()
        self.assertFalse(self.client.wire.paused)
        self.assertEqual(self.house.timers(), [])

    def test_bytes_nobody_asked_for(self) -> None:
        """A server that speaks unasked loses its connection; the client, who loses nothing, is not disturbed."""
        self.server.send(result([[b"a"]]))
        self.house.turn()
        self.assertEqual(self.server.wire.ended, "aborted")
        self.assertIsNone(self.client.wire.ended)
        self.client.query(b"SELECT 1")
        self.reopen()

    def test_replacement_that_cannot_be_had(self) -> None:
        """While no server can be reached, each statement is one error, and the session goes on when one can."""
        self.lose()
        self.client.query(b"SELECT 1")
        self.house.refuse_connection()
        self.assertEqual(self.client.error()[0], 1429)
        self.client.query(b"SELECT 2")
        self.reopen()

    def test_long_command_while_a_replacement_logs_in(self) -> None:
        """A long command that comes in pieces waits, unread, for the one new server session, and arrives whole."""
        self.lose()
        command = frame(b"\x03INSERT INTO t VALUES ('" + b"x" * 300_000 + b"')", 0)
        self.client.send(command[:200_000])
        self.assertTrue(self.client.wire.paused)
        self.client.send(command[200_000:])
        self.assertEqual(self.house.attempts, 1)
        self.reopen_with(command)
        self.assertFalse(self.client.wire.paused)

    def reopen_with(self, command: bytes) -> None:
        """Log the next server session in, and see the command arrive."""
        server = self.house.accept()
        server.greet()
        server.packets()
        before = len(server.wire.written)
        server.accept()
        self.assertEqual(server.wire.written[before:], command)

    def test_replay_that_fails(self) -> None:
        """A state that the new server session does not take is an error, not a session that is different."""
        self.client.query(b"SET @a = 5")
        self.server.ok()
        self.client.payloads()
        self.lose()
        self.client.query(b"SELECT @a")
        self.server = self.house.accept()
        self.server.greet()
        self.server.accept()
        self.assertEqual(self.server.payloads()[-1], b"\x03SET @a = 5")
        self.server.err(1193, "Unknown system variable")
        self.assertEqual(self.client.error()[0], 1193)
        self.house.turn()
        self.assertEqual(self.server.wire.ended, "aborted")

    def test_login_that_is_refused_the_second_time(self) -> None:
        """An account that was closed meanwhile gets the server's refusal, and the session ends."""
        self.lose()
        self.client.query(b"SELECT 1")
        server = self.house.accept()
        server.greet()
        server.err(1045, "Access denied", 2)
        self.assertEqual(self.client.error(), (1045, "Access denied"))
        self.house.turn()
        self.assertEqual(self.session.reason, CloseReason.STATE_LOST)

    def test_password_that_the_proxy_does_not_know(self) -> None:
        """Where the login cannot be repeated, the next statement says so, and the session ends."""
        client = self.house.connect()
        client.packets()
        client.send(response(auth_response=b"x" * 20))
        server = self.house.accept()
        server.greet()
        server.accept()
        client.packets()
        server.wire.lose()
        self.house.turn()
        self.assertIsNone(client.wire.ended)
        client.query(b"SELECT 1")
        code, text = client.error()
        self.assertEqual(code, 1158)
        self.assertIn("cannot log in again", text)
        self.house.turn()
        self.assertEqual(client.wire.ended, "closed")

    def test_command_without_an_answer(self) -> None:
        """Closing a statement that went with its server session needs no new server session."""
        self.lose()
        self.client.command(0x19, b"\x01\0\0\0")
        self.assertEqual(self.house.attempts, 0)
        self.assertFalse(self.session.snapshot().busy)

    def test_client_that_leaves_while_a_replacement_logs_in(self) -> None:
        """A client that goes while its new server session logs in leaves nothing behind."""
        self.lose()
        self.client.query(b"SELECT 1")
        server = self.house.accept()
        server.greet()
        self.client.wire.lose()
        self.house.turn()
        self.assertEqual(server.wire.ended, "aborted")
        self.assertEqual(self.house.timers(), [])

    def test_client_that_leaves_a_statement_behind(self) -> None:
        """A statement whose client has gone is killed on its server by another connection of the same account."""
        self.client.query(b"SELECT COUNT(*) FROM a, b, c")
        self.client.wire.lose()
        self.house.turn()
        self.assertEqual(len(self.house.registry), 0)
        self.assertIsNone(self.server.wire.ended)
        side = self.house.accept()
        side.greet()
        side.accept()
        self.assertEqual(side.payloads()[-1], b"\x03KILL %d" % self.server.thread_id)
        side.ok()
        self.server.wire.lose()
        self.house.turn()
        self.assertEqual(side.payloads(), [b"\x01"])
        self.assertEqual(self.house.timers(), [])

    def test_statement_left_behind_that_cannot_be_killed(self) -> None:
        """Where no connection can be had for that, at least its own is cut."""
        self.client.query(b"SELECT COUNT(*) FROM a, b, c")
        self.session.repeatable = False
        self.client.wire.lose()
        self.house.turn()
        self.assertEqual((self.house.attempts, self.server.wire.ended), (0, "aborted"))

    def test_proxy_that_stops(self) -> None:
        """When the proxy stops, every session is dropped, and its stop waits for them."""
        other = self.house.connect()
        stopped = self.house.registry.stop()
        self.assertNoResult(stopped)
        self.house.turn()
        self.successResultOf(stopped)
        self.assertEqual((self.client.wire.ended, self.server.wire.ended), ("aborted", "aborted"))
        self.assertEqual((other.wire.ended, self.session.reason), ("aborted", CloseReason.PROXY_STOPPED))
