"""Tests of what is remembered of sessions that ended, and of what live ones count."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from odptwist.errors import CloseReason
from odptwist.identity import Identity
from odptwist.sessions.history import DETAIL_SIZE, History
from odptwist.snapshots import Asker, EndedSession, SessionKind
from odptwist.wire import constants as c
from odptwist.wire.framing import frame
from tests.support.house import IN_TRANSACTION, OK, ClientPeer, House, ServerPeer, response, result

CLIENT, SERVER = SessionKind.CLIENT, SessionKind.SERVER
ROOT = Identity("root", "sys", "odp")


class HistoryTests(SynchronousTestCase):
    def setUp(self) -> None:
        """Build a house."""
        self.house = House()

    @property
    def entries(self) -> tuple[EndedSession, ...]:
        """What is remembered, the last one first."""
        return self.house.registry.surroundings.history.latest_first()

    def entry(self, kind: SessionKind) -> EndedSession:
        """Return the only one of a kind."""
        (found,) = (each for each in self.entries if each.kind is kind)
        return found

    def log_in(self, user: str = "root") -> tuple[ClientPeer, ServerPeer]:
        """Return a client and its server."""
        return self.house.log_in(user)

    def test_a_client_that_quits(self) -> None:
        """Both its sessions are remembered, with who, where, how long, how much and the last statement."""
        client, server = self.log_in()
        self.house.reactor.advance(2)
        command = frame(b"\x03SELECT 'a'", 0)
        client.send(command)
        answer = result([[b"a"]])
        server.send(answer)
        self.house.reactor.advance(1)
        client.command(c.COM_QUIT)
        self.house.turn()
        ended = self.entry(CLIENT)
        self.assertEqual((ended.reason, ended.detail), (CloseReason.CLIENT_QUIT, ""))
        self.assertEqual((ended.cs_id, ended.identity, ended.host, ended.port), (1, ROOT, "127.0.0.1", 40000))
        self.assertEqual((ended.ss_id, ended.server_sessid), (1, server.thread_id))
        self.assertEqual(str(ended.server), "10.1.0.1:3306")
        self.assertEqual((ended.seconds, ended.ended_at), (3.0, self.house.reactor.seconds()))
        self.assertEqual((ended.bytes_in, ended.bytes_out), (len(command) + 5, len(answer)))
        self.assertEqual((ended.statements, ended.transaction_lost), (1, False))
        served = self.entry(SERVER)
        self.assertEqual((served.reason, served.cs_id, served.ss_id), (CloseReason.CLIENT_QUIT, 1, 1))
        self.assertEqual((served.bytes_out, served.statement), (len(command), "SELECT 'a'"))
        self.assertEqual(served.identity, ROOT)

    def test_who_killed_it_and_with_which_text(self) -> None:
        """The detail is what the victim was told; an open transaction is lost, also that of a busy session."""
        victim, server = self.log_in()
        victim.query(b"BEGIN")
        server.ok(IN_TRANSACTION)
        killer, _ = self.log_in()
        killer.query(b"KILL PROXYSESSION 1 REASON 'too long'")
        self.house.turn()
        ended = self.entry(CLIENT)
        self.assertEqual(ended.reason, CloseReason.KILLED)
        self.assertEqual(ended.detail, "killed by client session 2 (root@sys#odp): too long")
        self.assertTrue(ended.transaction_lost)
        self.assertTrue(self.entry(SERVER).transaction_lost)
        self.assertEqual(self.entry(SERVER).reason, CloseReason.CLIENT_SESSION_ENDED)

    def test_a_busy_victim_had_a_server(self) -> None:
        """The server session that a kill takes from it is remembered with it, and by itself."""
        victim, server = self.log_in()
        victim.query(b"BEGIN")
        server.ok(IN_TRANSACTION)
        victim.query(b"SELECT SLEEP(60)")
        killer, helper = self.log_in()
        killer.query(b"KILL 1")
        helper.ok()
        server.wire.lose()
        self.house.turn()
        ended, served = self.entry(CLIENT), self.entry(SERVER)
        self.assertEqual((ended.ss_id, ended.server_sessid), (1, server.thread_id))
        self.assertEqual((served.ss_id, served.reason), (1, CloseReason.KILLED))
        self.assertTrue(ended.transaction_lost and served.transaction_lost)
        self.assertEqual(ended.statement, "SELECT SLEEP(60)")

    def test_a_server_session_that_is_killed(self) -> None:
        """It is remembered with its killer; its client session lives on."""
        client, server = self.log_in()
        client.query(b"BEGIN")
        server.ok(IN_TRANSACTION)
        killer, _ = self.log_in()
        killer.query(b"KILL PROXYSESSION 1 1")
        self.house.turn()
        (served,) = self.entries
        self.assertEqual((served.kind, served.reason, served.cs_id), (SERVER, CloseReason.KILLED, 1))
        self.assertEqual(served.detail, "killed by client session 2 (root@sys#odp)")
        self.assertTrue(served.transaction_lost)

    def test_a_server_that_goes_away(self) -> None:
        """Its farewell is the detail, and the next server session of the client has its own life."""
        client, server = self.log_in()
        server.err(1053, "Server shutdown in progress", 0)
        server.wire.lose()
        self.house.turn()
        (served,) = self.entries
        self.assertEqual((served.reason, served.detail), (CloseReason.SERVER_LOST, "Server shutdown in progress"))
        self.assertFalse(served.transaction_lost)
        client.query(b"SELECT 1")
        self.house.open().ok()
        client.command(c.COM_QUIT)
        self.house.turn()
        self.assertEqual([each.ss_id for each in self.entries if each.kind is SERVER], [2, 1])

    def test_checks_of_load_balancers_are_not_remembered(self) -> None:
        """Who connects and goes, without a word, does not push others out; who is refused is remembered."""
        client = self.house.connect()
        client.wire.lose()
        self.house.turn()
        self.assertEqual(self.entries, ())
        client = self.house.connect()
        client.packets()
        client.send(response("ada@nowhere"))
        self.house.turn()
        if self.house.attempts:
            self.house.accept().greet()
        self.house.turn()
        self.assertEqual(self.entry(CLIENT).reason, CloseReason.LOGIN_REFUSED)
        self.house.connect()
        self.house.reactor.advance(60)
        self.assertEqual(self.entries[0].reason, CloseReason.LOGIN_TIMEOUT)

    def test_its_size_is_bounded(self) -> None:
        """The oldest are forgotten; a size of 0 remembers nothing; long words are cut."""
        for size, numbers in ((3, [5, 4, 3]), (0, [])):
            house = self.house = House()
            house.use(history=History(size))
            for _ in range(5):
                client = house.connect()
                client.wire.protocol.identity = ROOT
                client.wire.protocol.drop(CloseReason.KILLED, "x" * 10_000)
            house.turn()
            self.assertEqual([each.cs_id for each in self.entries], numbers)
            self.assertTrue(all(len(each.detail) == DETAIL_SIZE for each in self.entries))

    def test_others_see_what_they_might_have_seen(self) -> None:
        """The owner of a session that ended decides, not its number, which another one may have by now."""
        for user in ("root", "ada"):
            client, _ = self.log_in(user)
            client.command(c.COM_QUIT)
        self.house.turn()
        registry = self.house.registry
        for cs_id, user, users in ((1, "ada", {"ada"}), (9, "root", {"root"}), (2, "eve", set())):
            asker = Asker(cs_id, Identity(user, "sys", "odp"))
            found = self.successResultOf(registry.history(asker))
            self.assertEqual({each.identity.user for each in found if each.identity}, users)


class CountTests(SynchronousTestCase):
    def test_a_live_session_counts(self) -> None:
        """Bytes of both directions since the login, and commands, those that the proxy answers included."""
        house = House()
        client, server = house.log_in()
        session = house.registry._sessions[1]
        self.assertEqual((session.snapshot().bytes_in, session.snapshot().bytes_out), (0, 0))
        answers = len(client.wire.written)
        client.query(b"SELECT 1")
        server.row()
        client.command(c.COM_PING)
        server.ok(OK)
        client.query(b"KILL QUERY 1")
        client.query(b"KILL 999")
        if server.packets()[-1].payload == b"\x03SHOW GRANTS":
            server.row(b"GRANT USAGE ON *.* TO `root`@`%`")
        snapshot = session.snapshot()
        self.assertEqual(snapshot.bytes_in, 13 + 5 + 17 + 13)
        self.assertEqual(snapshot.bytes_out, len(client.wire.written) - answers)
        self.assertEqual((snapshot.statements, snapshot.command), (4, "Query"))

    def test_activity_and_command(self) -> None:
        """The command that runs is named as SHOW PROCESSLIST names it; a marked session is being killed."""
        house = House()
        client, server = house.log_in()
        session = house.registry._sessions[1]
        self.assertEqual((session.snapshot().activity, session.snapshot().command), ("idle", ""))
        client.command(c.COM_PING)
        self.assertEqual((session.snapshot().activity, session.snapshot().command), ("busy", "Ping"))
        server.ok(IN_TRANSACTION)
        self.assertEqual(session.snapshot().activity, "in transaction")
        session.mark_for_end("killed by nobody", None)
        self.assertEqual(session.snapshot().activity, "being killed")
