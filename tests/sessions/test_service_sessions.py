"""The proxy's own sessions, kept between its questions."""

from __future__ import annotations

from twisted.internet.defer import CancelledError, Deferred
from twisted.trial.unittest import SynchronousTestCase

from odptwist.errors import LoginMethodUnknown, LoginRefused, OdpError, ServerSessionLost, ServerUnreachable
from odptwist.sessions.server import ServerSession
from odptwist.sessions.service_sessions import ServiceSessions, explain
from odptwist.sessions.surroundings import Account
from odptwist.snapshots import Address
from odptwist.wire.constants import COM_QUIT
from odptwist.wire.framing import frame
from odptwist.wire.handshake import AuthSwitchRequest, parse_handshake_response
from odptwist.wire.responses import Err
from odptwist.wire.scramble import native_password
from odptwist.wire.sha2 import sha2_answer
from tests.support.house import House

TIMEOUT = 2.0
ONE, TWO = Address("10.1.0.1", 3306), Address("10.1.0.1", 3307)


async def _question(session: ServerSession) -> bytes | None:
    return (await session.query("SELECT 1")).rows[0][0]


class ServiceSessionsTests(SynchronousTestCase):
    def setUp(self) -> None:
        """Make a proxy with two servers."""
        self.house = House(servers=2)
        self.sessions = ServiceSessions(self.house.registry.surroundings, Account("odp", "secret"), TIMEOUT)

    def ask(self, address: Address = ONE) -> Deferred[bytes | None]:
        """Ask a server for the value of 1."""
        return self.sessions.ask(address, _question)

    def test_the_login(self) -> None:
        """It is the service account's, with an answer to the server's salt."""
        asked = self.ask()
        server = self.house.accept()
        server.greet()
        (response,) = server.payloads()
        read = parse_handshake_response(response)
        self.assertEqual((read.user, read.auth_response), ("odp", native_password(b"secret", b"a" * 20)))
        server.accept()
        server.row(b"7")
        self.assertEqual(self.successResultOf(asked), b"7")

    def test_the_login_by_sha2(self) -> None:
        """An account of MySQL's default plugin proves itself by a scramble; the server's word on it needs no answer."""
        asked = self.ask()
        server = self.house.accept()
        server.greet()
        server.packets()
        server.send(frame(AuthSwitchRequest("caching_sha2_password", b"s" * 20 + b"\0").encode(), 2))
        (packet,) = server.packets()
        self.assertEqual((packet.sequence, packet.payload), (3, sha2_answer(b"secret", b"s" * 20)))
        server.send(frame(b"\x01\x03", 4))
        server.accept(5)
        server.row(b"7")
        self.assertEqual(self.successResultOf(asked), b"7")

    def test_a_method_that_is_not_known(self) -> None:
        """The asker learns which it is, and that its operator has to do something."""
        asked = self.ask()
        server = self.house.accept()
        server.greet()
        server.send(frame(AuthSwitchRequest("client_ed25519", b"s" * 32).encode(), 2))
        self.failureResultOf(asked, LoginMethodUnknown)

    def test_one_session_for_all_questions(self) -> None:
        """Questions to one server follow each other over one session; another server has its own."""
        first, second, other = self.ask(), self.ask(), self.ask(TWO)
        self.assertEqual(self.house.attempts, 2)
        one, two = self.house.open(), self.house.open()
        self.assertEqual((len(one.payloads()), len(two.payloads())), (1, 1))
        one.row(b"7")
        self.assertEqual(self.successResultOf(first), b"7")
        self.assertEqual(len(one.payloads()), 1)
        one.row(b"8")
        two.row(b"9")
        self.assertEqual((self.successResultOf(second), self.successResultOf(other)), (b"8", b"9"))
        third = self.ask()
        one.row(b"10")
        self.assertEqual((self.successResultOf(third), self.house.attempts), (b"10", 0))

    def test_a_dialogue_that_fails(self) -> None:
        """It takes its session along; the next one, which waited for its turn, logs in again."""

        async def fail(session: ServerSession) -> None:
            await session.query("SELECT 1")
            raise ServerUnreachable("what an answer")

        failed, following = self.sessions.ask(ONE, fail), self.ask()
        server = self.house.open()
        server.row()
        self.failureResultOf(failed, ServerUnreachable)
        self.assertEqual(server.wire.ended, "aborted")
        self.house.open().row(b"7")
        self.assertEqual(self.successResultOf(following), b"7")

    def test_a_login_that_fails(self) -> None:
        """Refused or unreachable, the asker is told, and the next one tries again."""
        refused = self.ask()
        server = self.house.accept()
        server.greet()
        server.err(1045, "denied", sequence=2)
        self.failureResultOf(refused, LoginRefused)
        unreachable = self.ask()
        self.house.refuse_connection()
        self.failureResultOf(unreachable, ServerUnreachable)
        asked = self.ask()
        self.house.open().row(b"7")
        self.assertEqual(self.successResultOf(asked), b"7")

    def test_the_server_ends_the_session(self) -> None:
        """During a dialogue that fails the dialogue; between two it is made anew."""
        asked = self.ask()
        server = self.house.open()
        server.wire.lose()
        self.house.turn()
        self.failureResultOf(asked, ServerSessionLost)
        asked = self.ask()
        server = self.house.open()
        server.row()
        self.successResultOf(asked)
        server.wire.lose()
        self.house.turn()
        asked = self.ask()
        self.house.open().row(b"7")
        self.assertEqual(self.successResultOf(asked), b"7")

    def test_timeout(self) -> None:
        """Waiting for one's turn counts: both give up after their own time, and the session is not used again."""
        first = self.ask()
        server = self.house.open()
        self.house.reactor.advance(0.5)
        second = self.ask()
        self.house.reactor.advance(1.4)
        self.assertNoResult(first)
        self.house.reactor.advance(0.1)
        self.assertEqual(str(self.failureResultOf(first, ServerUnreachable).value), "no answer within 2 s")
        self.assertEqual(server.wire.ended, "aborted")
        self.assertNoResult(second)
        self.house.reactor.advance(0.5)
        self.failureResultOf(second, ServerUnreachable)
        self.house.turn()
        self.assertEqual(self.house.timers(), [])

    def test_an_asker_that_leaves_the_queue(self) -> None:
        """Whoever waits for a turn may leave without disturbing others."""
        first, second, third = self.ask(), self.ask(), self.ask()
        second.cancel()
        self.failureResultOf(second, CancelledError)
        server = self.house.open()
        server.row(b"7")
        server.row(b"8")
        self.assertEqual((self.successResultOf(first), self.successResultOf(third)), (b"7", b"8"))

    def test_stop(self) -> None:
        """Dialogues are broken off, in whatever state; sessions that rest say goodbye."""
        resting, busy, connecting = self.ask(), self.ask(TWO), self.ask()
        one, two = self.house.open(), self.house.open()
        one.row()
        self.successResultOf(resting)
        one.row()
        self.successResultOf(connecting)
        one.packets()
        stopped = self.sessions.stop()
        self.failureResultOf(busy, CancelledError)
        self.assertNoResult(stopped)
        self.house.turn()
        self.successResultOf(stopped)
        self.assertEqual((one.payloads(), one.wire.ended), ([bytes((COM_QUIT,))], "closed"))
        self.assertEqual(two.wire.ended, "aborted")
        self.assertEqual(self.house.timers(), [])

    def test_stop_during_a_login(self) -> None:
        """A login is broken off, too."""
        asked = self.ask()
        server = self.house.accept()
        server.greet()
        self.successResultOf(self.sessions.stop())
        self.failureResultOf(asked, CancelledError)
        self.assertEqual(server.wire.ended, "aborted")


class ExplainTests(SynchronousTestCase):
    def test_explain(self) -> None:
        """A refusal is told in the server's words, everything else in its own."""
        table: list[tuple[OdpError, str]] = [
            (LoginRefused(Err(1045, "28000", "Access denied").encode()), "Access denied (1045)"),
            (ServerUnreachable("gone"), "gone"),
        ]
        for fault, text in table:
            self.assertEqual(explain(fault), text)
