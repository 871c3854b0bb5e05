"""The health check, under a clock, at servers that a test plays."""

from __future__ import annotations

from itertools import pairwise

from attrs import evolve
from twisted.trial.unittest import SynchronousTestCase

from odptwist.cluster.health import examine
from odptwist.cluster.model import Cluster, Clusters, Server
from odptwist.sessions.probing import Examination, Prober
from odptwist.sessions.service_sessions import ServiceSessions
from odptwist.sessions.surroundings import Account
from odptwist.snapshots import Address, Role, ServerStanding
from odptwist.wire.constants import COM_QUERY, COM_QUIT
from odptwist.wire.framing import frame
from odptwist.wire.handshake import AuthSwitchRequest
from tests.support.house import House, ServerPeer
from tests.support.logs import watch_log
from tests.support.results import error, value

INTERVAL = 10.0
TIMEOUT = 2.0
VERSION = "10.11.19-MariaDB"
QUESTIONS = ["SELECT @@global.read_only", "SHOW SLAVE STATUS"]
ONE, TWO, THREE = (Address("10.1.0.1", port) for port in (3306, 3307, 3308))
ACCOUNT = Account("odp", "secret")


class ProberTests(SynchronousTestCase):
    """A proxy with two servers in one cluster, of which nothing is known."""

    def setUp(self) -> None:
        """Start the health check."""
        self.house = House(servers=2)
        self.clusters = self.house.clusters
        self.clock = self.house.reactor
        surroundings = self.house.registry.surroundings
        self.sessions = ServiceSessions(surroundings, ACCOUNT, TIMEOUT)
        self.prober = Prober(surroundings, self.sessions, self.examine, INTERVAL)
        self.clusters.on_suspicion = self.prober.suspect
        self.clusters.watched = True
        self.fault: Exception | None = None
        self.prober.start()
        self.house.turn()

    def examine(self, version: str) -> Examination:
        """Examine as ever, or raise what a test wants."""
        if self.fault is not None:
            raise self.fault
        return examine(version)

    def standing(self, address: Address = ONE) -> ServerStanding:
        """Return what is known of a server."""
        (found,) = (each for each in self.clusters.standings("odp") if each.address == address)
        return found

    def asked(self, server: ServerPeer) -> list[str]:
        """Return the questions that a server has got since the last call."""
        return [payload[1:].decode() for payload in server.payloads() if payload[0] == COM_QUERY]

    def answer(self, server: ServerPeer, read_only: bytes = b"0") -> list[str]:
        """Answer all questions of a probe, and return them."""
        questions = []
        while asked := self.asked(server):
            (question,) = asked
            questions.append(question)
            answers = {"SELECT VERSION()": value(VERSION.encode()), QUESTIONS[0]: value(read_only)}
            server.send(answers.get(question, error(1227)))
        return questions

    def open_both(self) -> tuple[ServerPeer, ServerPeer]:
        """Let the first probe of both servers succeed, and return them: a primary and a replica."""
        servers = self.house.open(), self.house.open()
        for server, read_only in zip(servers, (b"0", b"1"), strict=True):
            self.answer(server, read_only)
        return servers

    def refuse_both(self) -> None:
        """Refuse both connections that are attempted."""
        self.assertEqual(self.house.attempts, 2)
        self.house.refuse_connection()
        self.house.refuse_connection()

    def test_the_first_probe(self) -> None:
        """Every server is probed at once, and what it says goes to the clusters."""
        self.assertEqual(self.house.attempts, 2)
        one, two = self.house.open(), self.house.open()
        self.assertEqual(self.answer(two, b"1"), ["SELECT VERSION()", *QUESTIONS])
        self.assertEqual(self.answer(one), ["SELECT VERSION()", *QUESTIONS])
        self.assertEqual((self.standing(ONE).role, self.standing(ONE).version), (Role.PRIMARY, VERSION))
        self.assertEqual(self.standing(TWO).role, Role.REPLICA)

    def test_the_next_probe(self) -> None:
        """It comes an interval after the end of the last one, over the same session, which has told its version."""
        one, two = self.house.open(), self.house.open()
        self.answer(two)
        self.clock.advance(1)
        self.answer(one)
        self.clock.advance(INTERVAL - 1)
        self.assertEqual((self.asked(one), self.answer(two)), ([], QUESTIONS))
        self.clock.advance(1)
        self.assertEqual(self.answer(one, b"1"), QUESTIONS)
        self.assertEqual((self.standing().role, self.house.attempts), (Role.REPLICA, 0))

    def test_a_server_in_two_clusters(self) -> None:
        """Such a server is probed once for both; a suspicion of a third one does not reach it."""
        clusters = Clusters(
            [Cluster("a", (Server(ONE), Server(TWO)), ("sys",)), Cluster("b", (Server(TWO), Server(THREE)), ("sys",))]
        )
        surroundings = evolve(self.house.registry.surroundings, clusters=clusters)
        self.refuse_both()
        prober = Prober(surroundings, ServiceSessions(surroundings, ACCOUNT, TIMEOUT), self.examine, INTERVAL)
        prober.start()
        prober.start()
        self.house.turn()
        peers = {}
        self.assertEqual(self.house.attempts, 3)
        for _ in range(3):
            peer = self.house.open()
            self.answer(peer)
            peers[Address(peer.wire.peer.host, peer.wire.peer.port)] = peer
        self.assertEqual(set(peers), {ONE, TWO, THREE})
        self.assertEqual([each.role for name in "ab" for each in clusters.standings(name)], [Role.PRIMARY] * 4)
        self.clock.advance(1)
        prober.suspect(ONE)
        self.house.turn()
        self.assertEqual([bool(self.asked(peers[each])) for each in (ONE, TWO, THREE)], [True, True, False])

    def test_no_connection(self) -> None:
        """A server that cannot be connected to is tried again after the interval, and down after three times."""
        for failures in (1, 2, 3):
            self.refuse_both()
            self.assertEqual((self.standing().failures, self.standing().up), (failures, failures < 3))
            self.assertIn("refused", self.standing().why)
            self.clock.advance(INTERVAL - 0.1)
            self.assertEqual(self.house.attempts, 0)
            self.clock.advance(0.1)
        self.open_both()
        self.assertEqual((self.standing().up, self.standing().failures), (True, 0))

    def test_one_timeout_in_all(self) -> None:
        """Connecting, logging in and each answer may take their time only together."""
        server = self.house.accept()
        self.clock.advance(0.8)
        server.greet()
        self.clock.advance(0.8)
        server.packets()
        server.accept()
        server.packets()
        self.clock.advance(0.3)
        self.assertEqual(self.standing().failures, 0)
        self.clock.advance(0.1)
        self.assertEqual((self.standing().failures, self.standing().why), (1, "no answer within 2 s"))
        self.assertEqual(server.wire.ended, "aborted")

    def test_a_server_that_does_not_accept(self) -> None:
        """An attempt to connect ends with the probe's timeout, too."""
        self.clock.advance(TIMEOUT)
        self.assertEqual([self.standing(each).failures for each in (ONE, TWO)], [1, 1])

    def test_after_a_failure_the_session_is_made_anew(self) -> None:
        """A late answer must not be taken for that of the next question."""
        one, two = self.open_both()
        self.clock.advance(INTERVAL)
        self.answer(two)
        self.clock.advance(TIMEOUT)
        self.assertEqual((one.wire.ended, self.standing().failures), ("aborted", 1))
        self.clock.advance(INTERVAL)
        self.assertEqual(self.answer(self.house.open()), ["SELECT VERSION()", *QUESTIONS])
        self.assertEqual(self.standing().failures, 0)

    def test_a_refused_question(self) -> None:
        """A server that refuses what anybody may ask has failed."""
        one, _ = self.open_both()
        self.clock.advance(INTERVAL)
        self.asked(one)
        one.send(error(1053, "Server shutdown in progress"))
        self.assertEqual(self.standing().failures, 1)
        self.assertIn("Server shutdown in progress", self.standing().why)

    def test_a_session_that_ended_between_probes(self) -> None:
        """That is no failure: the next probe logs in again."""
        one, _ = self.open_both()
        one.wire.lose()
        self.house.turn()
        self.clock.advance(INTERVAL)
        self.answer(self.house.open(), b"1")
        self.assertEqual((self.standing().failures, self.standing().role), (0, Role.REPLICA))

    def test_awaited(self) -> None:
        """As long as somebody waits for a change, one probe follows the other, with a pause of 50 ms."""
        one = self.house.open()
        self.answer(one, b"1")
        waiter = self.clusters.when_changed().addErrback(lambda _: None)
        self.prober.suspect(ONE)
        for _ in range(3):
            self.clock.advance(0.05)
            self.assertEqual(self.answer(one, b"1"), QUESTIONS)
        waiter.cancel()
        self.clock.advance(0.05)
        self.answer(one)
        self.clock.advance(INTERVAL - 0.1)
        self.assertEqual(self.asked(one), [])

    def test_suspicion(self) -> None:
        """All servers of the cluster are probed at once, and the interval begins anew."""
        one, two = self.open_both()
        self.clock.advance(1)
        self.clusters.suspect(TWO)
        self.house.turn()
        self.assertEqual((self.answer(one, b"1"), self.answer(two)), (QUESTIONS, QUESTIONS))
        self.assertEqual([self.standing(each).role for each in (ONE, TWO)], [Role.REPLICA, Role.PRIMARY])
        self.clock.advance(INTERVAL - 0.1)
        self.assertEqual((self.asked(one), self.asked(two)), ([], []))
        self.clock.advance(0.1)
        self.assertEqual((self.answer(one), self.answer(two)), (QUESTIONS, QUESTIONS))

    def test_many_suspicions(self) -> None:
        """However many sessions are suspicious, a server is probed every 50 ms at most."""
        one, _ = self.open_both()
        self.clock.advance(1)
        probes = []
        for millisecond in range(200):
            for _ in range(10):
                self.clusters.suspect(ONE)
            self.clock.advance(0.001)
            if self.answer(one):
                probes.append(millisecond)
        self.assertEqual(len(probes), 4)
        self.assertTrue(all(later - sooner >= 50 for sooner, later in pairwise(probes)), probes)

    def test_suspicion_during_a_probe(self) -> None:
        """What was asked may be out of date: one more probe follows, and never two run at a time."""
        one, _ = self.open_both()
        self.clock.advance(INTERVAL)
        self.assertEqual(self.asked(one), QUESTIONS[:1])
        for _ in range(5):
            self.clusters.suspect(ONE)
            self.clock.advance(0.05)
        self.assertEqual((self.asked(one), self.house.attempts), ([], 0))
        one.send(value(b"0"))
        self.assertEqual(self.answer(one), QUESTIONS[1:])
        self.house.turn()
        self.assertEqual(self.answer(one, b"1"), QUESTIONS)
        self.house.turn()
        self.assertEqual((self.asked(one), self.standing().role), ([], Role.REPLICA))

    def test_suspicion_of_a_stranger(self) -> None:
        """A suspicion of a server that is in no cluster does nothing."""
        one, _ = self.open_both()
        self.clusters.suspect(Address("10.9.9.9", 1))
        self.clock.advance(1)
        self.assertEqual(self.asked(one), [])

    def test_refused_account(self) -> None:
        """A server that refuses the service account is up; the log says so once, and again when the reason changes."""
        errors = watch_log(self)
        for code, message in ((1045, "denied"), (1045, "denied"), (3118, "locked"), (1045, "denied")):
            server = self.house.accept()
            server.greet()
            server.err(code, message, sequence=2)
            self.house.refuse_connection()
            self.house.turn()
            self.assertEqual((self.standing().up, self.standing().role), (True, Role.UNKNOWN))
            self.clock.advance(INTERVAL)
        said = [each.rpartition(": ")[2] for each in errors if "does not take the service account" in each]
        self.assertEqual(said, ["denied (1045)", "locked (3118)", "denied (1045)"])

    def test_a_server_without_room(self) -> None:
        """A refusal that is not about the account is a failure."""
        server = self.house.accept()
        server.err(1040, "Too many connections", sequence=0)
        self.assertEqual((self.standing().failures, self.standing().why), (1, "Too many connections (1040)"))

    def test_another_login_method(self) -> None:
        """A service account that must log in otherwise makes no server down."""
        errors = watch_log(self)
        server = self.house.accept()
        server.greet()
        server.packets()
        server.send(frame(AuthSwitchRequest("client_ed25519", b"b" * 32).encode(), 2))
        self.assertEqual((self.standing().failures, self.standing().role), (0, Role.UNKNOWN))
        self.assertIn("client_ed25519", errors[0])

    def test_a_bug_in_an_examination(self) -> None:
        """It is logged, and the next probe comes all the same."""
        self.fault = ZeroDivisionError()
        one = self.house.open()
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
        self.assertEqual(one.wire.ended, "aborted")
        self.fault = None
        self.house.turn()
        self.clock.advance(INTERVAL)
        self.house.refuse_connection()
        self.answer(self.house.open())
        self.assertEqual(self.standing().role, Role.PRIMARY)

    def test_stop(self) -> None:
        """Timers and probes end, the sessions say goodbye, and no server has failed by that."""
        one, two = self.open_both()
        self.clock.advance(INTERVAL)
        self.answer(two)
        self.prober.stop()
        two.packets()
        stopped = self.sessions.stop()
        self.assertNoResult(stopped)
        self.house.turn()
        self.successResultOf(stopped)
        self.assertEqual((one.wire.ended, two.wire.ended), ("aborted", "closed"))
        self.assertEqual(two.payloads(), [bytes((COM_QUIT,))])
        self.clusters.suspect(ONE)
        self.clock.advance(10 * INTERVAL)
        self.assertEqual((self.house.attempts, self.standing().failures), (0, 0))
        self.assertEqual(self.clock.getDelayedCalls(), [])
