"""Kills, moment by moment: the truth tables of design/kill.md on scripted servers."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer

from odptwist.cluster.killers import AzureKiller, RdsKiller
from odptwist.errors import CloseReason
from odptwist.interfaces import IBackendKiller
from odptwist.sessions.surroundings import Account
from odptwist.snapshots import AfterTransaction, KillOutcome, KillReport, KillScope, KillTarget
from odptwist.wire.framing import frame
from odptwist.wire.handshake import parse_handshake_response
from odptwist.wire.responses import parse_ok
from odptwist.wire.scramble import native_password
from tests.support.house import CAPABILITIES, IN_TRANSACTION, House, response, result

WHO = "killed by client session 1 (root@sys#odp)"


@implementer(IBackendKiller)
class BrokenKiller:
    """Fails."""

    name = "broken"

    def statement(self, server_sessid: int, scope: KillScope) -> str:
        """Raise."""
        raise RuntimeError("a killer that fails")


class KillTests(SynchronousTestCase):
    def setUp(self) -> None:
        """Log an asker and a victim in."""
        self.house = House()
        self.asker, self.asker_server = self.house.log_in(unprivileged=True)
        self.victim, self.server = self.house.log_in()
        self.asker_server.payloads()
        self.server.payloads()
        self.session = self.victim.wire.protocol

    def assert_ok(self, warnings: int = 0) -> None:
        """Assert that the asker has an OK, and nothing else."""
        (payload,) = self.asker.payloads()
        self.assertEqual(payload[0], 0, payload)
        self.assertEqual(parse_ok(payload, CAPABILITIES).warnings, warnings)

    def test_idle_victim(self) -> None:
        """An idle session is cut, its server session too; OK comes only when both are gone."""
        self.asker.query(b"KILL PROXYSESSION 2")
        self.assertEqual(self.asker.payloads(), [])
        self.assertEqual((self.victim.wire.ended, self.server.wire.ended), ("aborted", "aborted"))
        self.house.turn()
        self.assert_ok()
        self.assertEqual(self.victim.payloads(), [])
        self.assertEqual(self.session.reason, CloseReason.KILLED)
        self.asker.query(b"KILL PROXYSESSION 2")
        self.assertEqual(self.asker.error(), (1094, "Unknown thread id: 2"))

    def test_itself(self) -> None:
        """Killing oneself is 1317 and then the end, by cs_id, by connection id and by CONNECTION_ID()."""
        for text in (b"KILL PROXYSESSION %d", b"KILL %d", b"KILL CONNECTION CONNECTION_ID()", b"KILL '%d'"):
            for by in ("cs_id", "thread_id"):
                client, server = self.house.log_in()
                number = client.wire.protocol.cs_id if by == "cs_id" else server.thread_id
                client.query(text % number if b"%" in text else text)
                self.assertEqual(client.error(), (1317, "Query execution was interrupted"))
                self.house.turn()
                self.assertEqual((client.wire.ended, server.wire.ended), ("closed", "aborted"))
                self.assertEqual(client.wire.protocol.reason, CloseReason.KILLED_ITSELF)

    def test_busy_victim_is_stopped_on_its_server(self) -> None:
        """A running statement is killed on the server by the asker's own session, and OK waits for the end there."""
        self.victim.query(b"SELECT SLEEP(60)")
        self.server.payloads()
        self.asker.query(b"KILL 2")
        self.assertEqual(self.victim.error(), (1317, f"Query execution was interrupted: {WHO}"))
        self.assertEqual(self.asker_server.payloads(), [b"\x03KILL %d" % self.server.thread_id])
        self.house.turn()
        self.assertEqual((self.victim.wire.ended, self.server.wire.ended), ("closed", None))
        self.asker_server.ok()
        self.house.turn()
        self.assertEqual(self.asker.payloads(), [])
        self.server.wire.lose()
        self.house.turn()
        self.assert_ok()

    def test_server_that_does_not_confirm(self) -> None:
        """A server that refuses or hangs is not waited for beyond the kill timeout, and the OK carries a warning."""
        for hangs in (False, True):
            self.setUp()
            self.victim.query(b"SELECT SLEEP(60)")
            self.asker.query(b"KILL 2")
            if hangs:
                self.house.reactor.advance(5.1)
            else:
                self.asker_server.err(1095, "You are not owner of thread 102")
            self.house.turn()
            self.assert_ok(warnings=1)
            self.assertEqual(self.server.wire.ended, "aborted")
            # A server session that hangs is given up, and the asker goes on with another one.
            self.assertEqual(self.asker_server.wire.ended, "aborted" if hangs else None)

    def test_asker_without_a_server_session(self) -> None:
        """An asker whose server session has gone kills by another one, logged in for that."""
        self.asker_server.wire.lose()
        self.house.turn()
        self.victim.query(b"SELECT SLEEP(60)")
        self.session.repeatable = False
        self.asker.query(b"KILL 2")
        side = self.house.accept()
        side.greet()
        side.accept()
        self.assertEqual(side.payloads()[-1], b"\x03KILL 102")
        side.ok()
        self.server.wire.lose()
        self.house.turn()
        self.assert_ok()

    def test_warning_is_shown_once(self) -> None:
        """SHOW WARNINGS right after an unconfirmed kill tells its text; later it is the server's again."""
        for between in (b"", b"SELECT 1", b"KILL 99"):
            self.setUp()
            self.victim.query(b"SELECT SLEEP(60)")
            self.session.repeatable = False
            self.asker.query(b"KILL 2")
            self.asker_server.err(1095, "You are not owner of thread 102")
            self.house.turn()
            self.assert_ok(warnings=1)
            if between:
                self.asker.query(between)
                if between == b"SELECT 1":
                    self.asker_server.row()
                self.asker.payloads()
                self.asker_server.payloads()
            else:
                self.asker.query(b"show warnings;")
                self.assertIn(b"You are not owner of thread 102", b"".join(self.asker.payloads()))
                self.asker_server.payloads()
            self.asker.query(b"SHOW WARNINGS")
            self.assertEqual(self.asker_server.payloads(), [b"\x03SHOW WARNINGS"])

    def test_kill_account(self) -> None:
        """What neither the asker nor the victim's account can stop is stopped by the account of the settings."""
        self.house.use(kill_account=Account("killer", "secret"))
        self.victim.query(b"SELECT SLEEP(60)")
        self.session.repeatable = False
        self.asker.query(b"KILL 2")
        self.asker_server.err(1095, "You are not owner of thread 102")
        side = self.house.accept()
        side.greet()
        (login,) = side.payloads()
        sent = parse_handshake_response(login)
        self.assertEqual((sent.user, sent.auth_response), ("killer", native_password(b"secret", b"a" * 20)))
        side.send(frame(b"\xfemysql_native_password\0" + b"s" * 20 + b"\0", 2))
        self.assertEqual(side.payloads(), [native_password(b"secret", b"s" * 20)])
        side.accept(4)
        self.assertEqual(side.payloads(), [b"\x03KILL 102"])
        side.ok()
        self.server.wire.lose()
        self.house.turn()
        self.assert_ok()

    def test_killer_of_a_cloud(self) -> None:
        """A server may have its own way to kill; one that fails is replaced by the usual one."""
        for killer, expected in (
            (RdsKiller(), b"\x03CALL mysql.rds_kill(102)"),
            (AzureKiller(), b"\x03CALL mysql.az_kill(102)"),
            (BrokenKiller(), b"\x03KILL 102"),
        ):
            self.setUp()
            self.house.use(killers={"kill": killer})
            self.victim.query(b"SELECT SLEEP(60)")
            self.asker.query(b"KILL 2")
            self.assertEqual(self.asker_server.payloads(), [expected])
        self.assertEqual(len(self.flushLoggedErrors(RuntimeError)), 1)

    def test_server_that_promises_and_does_not_keep(self) -> None:
        """A server that says OK and keeps the session open costs the kill timeout; that is not a confirmed end."""
        self.victim.query(b"SELECT SLEEP(60)")
        self.asker.query(b"KILL 2")
        self.asker_server.ok()
        self.house.turn()
        self.assertIsNone(self.server.wire.ended)
        self.house.reactor.advance(5.1)
        self.house.turn()
        self.assertEqual(self.server.wire.ended, "aborted")
        self.assert_ok(warnings=1)

    def test_victim_amid_a_result_is_cut(self) -> None:
        """A session whose result has begun is aborted without a packet, also if it does not read."""
        self.victim.query(b"SELECT * FROM t")
        self.server.send(result([[b"a"]] * 50)[:200])
        self.victim.wire.takes = False
        before = self.victim.wire.written
        self.asker.query(b"KILL 2")
        self.assertEqual(self.victim.wire.ended, "aborted")
        self.assertEqual(self.victim.wire.written, before)
        self.asker_server.ok()
        self.server.wire.lose()
        self.house.turn()
        self.assert_ok()

    def test_victim_that_does_not_take_its_last_packet(self) -> None:
        """A busy session that is owed an error has one second to take it."""
        self.victim.wire.takes = False
        self.victim.query(b"SELECT SLEEP(60)")
        self.asker.query(b"KILL 2")
        self.asker_server.ok()
        self.server.wire.lose()
        self.house.turn()
        self.assertEqual(self.asker.payloads(), [])
        self.house.reactor.advance(1.1)
        self.house.turn()
        self.assertEqual(self.victim.wire.ended, "aborted")
        self.assert_ok()

    def test_victim_that_logs_in(self) -> None:
        """A session can be killed at every step of its login; its half-open server connection goes too."""
        for stage in range(4):
            house = House()
            asker, asker_server = house.log_in()
            victim = house.connect()
            server = None
            if stage > 0:
                victim.send(response())
            if stage > 1:
                server = house.accept()
            if stage > 2:
                server.greet()
            asker.query(b"KILL 2")
            if stage == 0:
                # Nobody's session yet: the asker's privileges count.
                self.assertEqual(asker_server.payloads()[-1], b"\x03SHOW GRANTS")
                asker_server.row(b"GRANT ALL PRIVILEGES ON *.* TO `root`@`%`")
            house.turn()
            self.assertEqual(asker.payloads()[-1][0], 0)
            self.assertEqual(victim.wire.ended, "aborted")
            if server is not None:
                self.assertEqual(server.wire.ended, "aborted")
            self.assertEqual(len(house.registry), 1)

    def test_two_killers(self) -> None:
        """Two kills of one session at once: both are told the truth."""
        other, _ = self.house.log_in(unprivileged=True)
        self.victim.query(b"SELECT SLEEP(60)")
        self.asker.query(b"KILL 2")
        other.query(b"KILL 2")
        self.assertEqual(other.error(), (1094, "Unknown thread id: 2"))
        self.asker_server.ok()
        self.server.wire.lose()
        self.house.turn()
        self.assert_ok()

    def test_killer_that_is_killed(self) -> None:
        """A killer that goes while it waits leaves its victim dead and nothing behind."""
        self.victim.query(b"SELECT SLEEP(60)")
        self.asker.query(b"KILL 2")
        self.asker.wire.lose()
        self.house.turn()
        side = self.house.accept()
        side.greet()
        side.accept()
        self.assertEqual(side.payloads()[-1], b"\x03KILL 102")
        side.ok()
        self.house.reactor.advance(6)
        self.house.turn()
        self.assertEqual(len(self.house.registry), 0)
        self.assertEqual((self.victim.wire.ended, self.server.wire.ended), ("closed", "aborted"))
        self.assertEqual(self.house.timers(), [])

    def test_killer_that_is_killed_by_another(self) -> None:
        """A killer that is itself killed while it waits is cut without a made-up error."""
        other, _ = self.house.log_in(unprivileged=True)
        self.victim.query(b"SELECT SLEEP(60)")
        self.asker.query(b"KILL 2")
        other.query(b"KILL 1")
        self.house.turn()
        self.assertEqual(self.asker.payloads(), [])
        self.assertEqual(self.asker.wire.ended, "aborted")

    def test_ambiguous_number(self) -> None:
        """A number that is one session's cs_id and another's connection id names both, so neither is hit."""
        self.server.thread_id = 3
        house = self.house = House()
        house._thread_id = 1
        self.asker, _ = house.log_in()  # connection id 2
        victim, _ = house.log_in()  # cs_id 2, connection id 3
        self.asker.query(b"KILL 2")
        code, text = self.asker.error()
        self.assertEqual(code, 1094)
        self.assertIn("client session 1 by its connection id", text)
        self.assertIn("client session 2 by its own id", text)
        self.assertIsNone(victim.wire.ended)
        self.asker.query(b"KILL 3")
        house.turn()
        self.assertEqual(victim.wire.ended, "aborted")

    def test_numbers_that_name_nothing(self) -> None:
        """Absent, negative and absurd numbers are 1094, printed as unsigned 64-bit numbers."""
        for number, printed in ((0, 0), (-1, (1 << 64) - 1), (77, 77), (99999999999999999, 99999999999999999)):
            self.asker.query(b"KILL PROXYSESSION %d" % number)
            self.assertEqual(self.asker.error(), (1094, f"Unknown thread id: {printed}"))

    def test_strangers(self) -> None:
        """Another user's session is invisible without PROCESS, 1095 with it, and killed with SUPER."""
        for grant, outcome in (
            (b"GRANT USAGE ON *.* TO a", 1094),
            (b"GRANT PROCESS ON *.* TO a", 1095),
            (b"GRANT CONNECTION ADMIN, PROCESS ON *.* TO a", 0),
            (b"GRANT SUPER ON shop.* TO a", 1094),
            (b"GRANT SELECT (a, SUPER, b) ON `shop`.`t ON *.* TO x` TO `a`@`%`", 1094),
            (b"GRANT SELECT, SUPER, INSERT ON `shop ON *.* TO x`.* TO `a`@`%`", 1094),
        ):
            house = House()
            asker, asker_server = house.log_in("a")
            victim, _ = house.log_in("b")
            asker.query(b"KILL 2")
            self.assertEqual(asker_server.payloads()[-1], b"\x03SHOW GRANTS")
            asker_server.row(grant)
            house.turn()
            if outcome:
                self.assertEqual(asker.error()[0], outcome)
                self.assertIsNone(victim.wire.ended)
            else:
                self.assertEqual(victim.wire.ended, "aborted")


class MarkTests(SynchronousTestCase):
    def setUp(self) -> None:
        """Log an asker and a victim in, and let the victim begin a transaction."""
        KillTests.setUp(self)
        self.victim.query(b"BEGIN")
        self.server.ok(IN_TRANSACTION)
        self.victim.payloads()
        self.server.payloads()

    def mark(self, seconds: float | None) -> KillReport:
        """Kill the victim after its transaction."""
        asker = self.asker.wire.protocol.asker()
        killed = self.house.registry.kill(
            KillTarget(2), KillScope.CONNECTION, asker, "maintenance", AfterTransaction(seconds)
        )
        return self.successResultOf(killed)

    def test_end_of_the_transaction(self) -> None:
        """A marked session ends when its transaction has, and its client has the answer to COMMIT."""
        self.assertEqual(self.mark(None).outcome, KillOutcome.MARKED)
        self.victim.query(b"SELECT 1")
        self.server.send(result([[b"1"]], IN_TRANSACTION.status))
        self.assertIsNone(self.session.reason)
        self.victim.payloads()
        self.victim.query(b"COMMIT")
        self.server.ok()
        self.assertEqual(self.victim.payloads()[0][0], 0)
        self.house.turn()
        self.assertEqual((self.victim.wire.ended, self.session.reason), ("closed", CloseReason.KILLED))
        self.assertIn("maintenance", self.session.detail)

    def test_time_that_is_up(self) -> None:
        """A marked session whose time is up ends, and its statement is stopped on its server."""
        self.assertEqual(self.mark(30).outcome, KillOutcome.MARKED)
        self.victim.query(b"SELECT SLEEP(60)")
        self.house.reactor.advance(31)
        self.assertEqual(self.victim.error()[0], 1317)
        side = self.house.accept()
        side.greet()
        side.accept()
        self.assertEqual(side.payloads()[-1], b"\x03KILL 102")
        side.ok()
        self.server.wire.lose()
        self.house.turn()
        self.assertEqual(self.session.reason, CloseReason.KILLED)
        self.assertEqual(self.house.timers(), [])

    def test_nothing_unfinished(self) -> None:
        """A session that does nothing ends at once."""
        self.victim.query(b"ROLLBACK")
        self.server.ok()
        asker = self.asker.wire.protocol.asker()
        killed = self.house.registry.kill(KillTarget(2), KillScope.CONNECTION, asker, "", AfterTransaction())
        self.house.turn()
        self.assertEqual(self.successResultOf(killed).outcome, KillOutcome.ENDED)

    def test_server_session_that_ends_first(self) -> None:
        """A marked session whose transaction is lost ends, too."""
        self.mark(None)
        self.server.wire.lose()
        self.house.turn()
        self.assertEqual((self.victim.wire.ended, self.session.reason), ("aborted", CloseReason.KILLED))


class KillQueryTests(SynchronousTestCase):
    def setUp(self) -> None:
        """Log an asker and a victim in."""
        KillTests.setUp(self)

    def test_idle_victim(self) -> None:
        """KILL QUERY of an idle session is OK, and no server hears of it."""
        self.asker.query(b"KILL QUERY 2")
        self.assertEqual(self.asker.payloads()[0][0], 0)
        self.assertEqual(self.asker_server.payloads(), [])
        self.assertIsNone(self.victim.wire.ended)

    def test_busy_victim(self) -> None:
        """The statement ends with the killer's name, the session lives, and OK comes after both."""
        self.victim.query(b"SELECT SLEEP(60)")
        self.asker.query(b"KILL QUERY 2")
        self.assertEqual(self.asker_server.payloads(), [b"\x03KILL QUERY %d" % self.server.thread_id])
        self.asker_server.ok()
        self.assertEqual(self.asker.payloads(), [])
        self.server.err(1317, "Query execution was interrupted")
        self.assertEqual(self.victim.error(), (1317, f"Query execution was interrupted: {WHO}"))
        self.assertEqual(self.asker.payloads()[0][0], 0)
        self.victim.query(b"SELECT 2")
        self.assertEqual(self.server.payloads()[-1], b"\x03SELECT 2")

    def test_next_statement_is_never_hit(self) -> None:
        """After a statement that ended by itself the next one waits for the kill's answer; a probe takes the hit."""
        self.victim.query(b"SELECT 1")
        self.server.payloads()
        self.asker.query(b"KILL QUERY 2")
        self.server.row()
        self.victim.payloads()
        self.victim.query(b"SELECT 'next'")
        self.assertEqual(self.server.payloads(), [])
        self.asker_server.ok()
        self.assertEqual(self.server.payloads(), [b"\x03SELECT 1"])
        self.server.err(1317, "Query execution was interrupted")
        self.assertEqual(self.victim.payloads(), [])
        self.assertEqual(self.server.payloads(), [b"\x03SELECT 'next'"])
        self.assertEqual(self.asker.payloads()[0][0], 0)
        self.server.row(b"next")
        self.assertIn(b"next", b"".join(self.victim.payloads()))

    def test_statement_that_goes_on(self) -> None:
        """A statement that does not end within the kill timeout is reported as not confirmed."""
        self.victim.query(b"SELECT SLEEP(60)")
        self.asker.query(b"KILL QUERY 2")
        self.asker_server.ok()
        self.house.reactor.advance(5.1)
        (payload,) = self.asker.payloads()
        self.assertEqual(parse_ok(payload, CAPABILITIES).warnings, 1)

    def test_late_interrupt_that_was_not_confirmed(self) -> None:
        """A kill without an answer, and a statement that has ended: that server session carries nothing more."""
        self.victim.query(b"SELECT 1")
        self.asker.query(b"KILL QUERY 2")
        self.server.row()
        self.victim.payloads()
        self.victim.query(b"SELECT 'next'")
        self.house.reactor.advance(5.1)
        self.house.turn()
        (payload,) = self.asker.payloads()
        self.assertEqual(parse_ok(payload, CAPABILITIES).warnings, 1)
        self.assertEqual(self.server.wire.ended, "aborted")
        server = self.house.accept()
        server.greet()
        server.accept()
        self.assertEqual(server.payloads()[-1], b"\x03SELECT 'next'")

    def test_victim_that_goes_meanwhile(self) -> None:
        """A victim that leaves while its statement is being killed leaves nothing behind."""
        self.victim.query(b"SELECT SLEEP(60)")
        self.asker.query(b"KILL QUERY 2")
        self.victim.wire.lose()
        self.house.turn()
        self.asker_server.ok()
        self.house.turn()
        self.assertEqual(self.asker.payloads()[0][0], 0)
        self.assertEqual(len(self.house.registry), 1)


class StandbyKillTests(SynchronousTestCase):
    """A standby of OceanBase's refuses KILL; a statement there ends with its connection."""

    def setUp(self) -> None:
        """Log an asker and a victim in, and let the victim's statement run."""
        KillTests.setUp(self)
        self.victim.query(b"SELECT SLEEP(60)")
        self.server.payloads()

    def refuse(self, kill: bytes, *listed: int) -> None:
        """Ask for a kill, refuse it on the server, and list these of its sessions."""
        self.asker.query(kill)
        self.assertEqual(len(self.asker_server.payloads()), 1)
        self.asker_server.err(4688, "standby tenant is read only")
        self.assertIsNone(self.server.wire.ended)
        self.list(*listed)

    def list(self, *listed: int) -> None:
        """Expect the question which sessions the server has, and answer it."""
        self.assertEqual(self.asker_server.payloads(), [b"\x03SHOW PROCESSLIST"])
        self.asker_server.send(result([[b"%d" % number, b"app"] for number in (*listed, self.asker_server.thread_id)]))
        self.house.turn()

    def assert_ok_once_gone(self) -> None:
        """Assert that OK comes only when the server does not list the session any more."""
        self.assertEqual(self.server.wire.ended, "aborted")
        for listed in ((102,), ()):
            self.assertEqual(self.asker.payloads(), [])
            self.house.reactor.advance(0.02)
            self.list(*listed)
        KillTests.assert_ok(self)
        self.house.reactor.advance(60)
        self.assertEqual(self.asker_server.payloads(), [])

    def test_session(self) -> None:
        """A killed session's connection is closed at once, and OK waits until the server knows it no more."""
        self.refuse(b"KILL 2", 102)
        self.assert_ok_once_gone()
        self.assertEqual(self.victim.error()[0], 1317)
        self.assertEqual(self.victim.wire.ended, "closed")

    def test_server_session(self) -> None:
        """So it is with a server session, whose client session goes on with another one."""
        self.refuse(b"KILL PROXYSESSION 2 %d" % self.session.bound.ss_id, 102)
        self.assertEqual(self.victim.error(), (1317, f"Query execution was interrupted: {WHO}"))
        self.assert_ok_once_gone()
        self.assertIsNone(self.victim.wire.ended)
        self.victim.query(b"SELECT 2")
        self.assertEqual(self.house.open().payloads(), [b"\x03SELECT 2"])

    def test_statement(self) -> None:
        """KILL QUERY costs the client session its server session and nothing else."""
        self.refuse(b"KILL QUERY 2", 102)
        self.assertEqual(self.victim.error(), (1317, f"Query execution was interrupted: {WHO}"))
        self.assert_ok_once_gone()
        self.victim.query(b"SELECT 2")
        self.assertEqual(self.house.open().payloads(), [b"\x03SELECT 2"])

    def test_statement_that_ends_by_itself(self) -> None:
        """A server session whose statement has ended meanwhile is not closed: KILL QUERY does not mean it."""
        self.asker.query(b"KILL QUERY 2")
        self.asker_server.payloads()
        self.asker_server.err(4688, "standby tenant is read only")
        self.server.row()
        self.victim.payloads()
        self.victim.query(b"SELECT 2")
        self.assertEqual(self.server.payloads(), [])
        self.list(102)
        KillTests.assert_ok(self)
        self.assertEqual(self.server.payloads(), [b"\x03SELECT 2"])

    def test_account_that_sees_nothing(self) -> None:
        """Where the session is not listed before it is closed, its end cannot be seen either: a warning says so."""
        self.refuse(b"KILL 2")
        self.assertEqual(self.server.wire.ended, "aborted")
        KillTests.assert_ok(self, warnings=1)

    def test_session_that_stays(self) -> None:
        """A server that goes on listing the session costs the kill timeout, and the OK carries a warning."""
        self.refuse(b"KILL 2", 102)
        for _ in range(300):
            self.house.reactor.advance(0.02)
            if self.asker_server.payloads():
                self.asker_server.send(result([[b"102"], [b"101"]]))
        self.house.turn()
        KillTests.assert_ok(self, warnings=1)
        self.assertEqual(self.house.timers(), [])


class ServerSessionKillTests(SynchronousTestCase):
    def setUp(self) -> None:
        """Log an asker and a victim in."""
        KillTests.setUp(self)

    def kill(self) -> None:
        """Kill the victim's server session and see OK."""
        self.asker.query(b"KILL PROXYSESSION 2 %d" % self.session.bound.ss_id)
        self.house.turn()
        self.assertEqual(self.asker.payloads()[-1][0], 0)

    def reopen(self) -> None:
        """Log the victim's next server session in."""
        self.server = self.house.accept()
        self.server.greet()
        self.server.accept()

    def test_unknown(self) -> None:
        """An unknown ss_id is 1094 with the ss_id in the text; an unknown id is 1094 with the id."""
        self.asker.query(b"KILL PROXYSESSION 2 4711")
        self.assertEqual(self.asker.error(), (1094, "Unknown thread id: 4711"))
        self.asker.query(b"KILL PROXYSESSION 4712 1")
        self.assertEqual(self.asker.error(), (1094, "Unknown thread id: 4712"))

    def test_idle(self) -> None:
        """The client notices nothing: its next statement opens another server session, with its state replayed."""
        for text in (b"SET NAMES utf8mb4", b"USE shop", b"SET @a = 5, autocommit = 0"):
            self.victim.query(text)
            self.server.ok()
        self.victim.payloads()
        first = self.session.bound.ss_id
        self.kill()
        self.assertEqual(self.server.wire.ended, "aborted")
        self.assertEqual(self.session.snapshot().server_sessions, ())
        self.victim.query(b"SELECT @a")
        self.reopen()
        login, *replayed = self.server.payloads()
        self.assertIn(b"shop\0", login)
        self.assertEqual(replayed, [b"\x03SET NAMES utf8mb4", b"\x03SET @a = 5, @@session.autocommit = 0"])
        self.server.ok()
        self.server.ok()
        self.assertEqual(self.server.payloads(), [b"\x03SELECT @a"])
        self.server.row(b"5")
        self.assertIn(b"\x015", b"".join(self.victim.payloads()))
        self.assertGreater(self.session.bound.ss_id, first)

    def test_in_transaction(self) -> None:
        """The next statement gets one clear error, and the one after it a clean session."""
        self.victim.query(b"BEGIN")
        self.server.ok(IN_TRANSACTION)
        self.victim.payloads()
        self.kill()
        self.victim.query(b"SELECT 1")
        code, text = self.victim.error()
        self.assertEqual(code, 1317)
        self.assertIn("the transaction, which was rolled back", text)
        self.assertIn(WHO, text)
        self.assertFalse(self.session.snapshot().in_transaction)
        self.victim.query(b"SELECT 2")
        self.reopen()
        self.assertEqual(self.server.payloads()[-1], b"\x03SELECT 2")

    def test_what_cannot_be_replayed(self) -> None:
        """Temporary tables, locks, prepared statements: one clear error that names what was lost."""
        for text, loss in (
            (b"CREATE TEMPORARY TABLE t (a INT)", "temporary tables"),
            (b"LOCK TABLES t WRITE", "LOCK TABLES"),
            (b"SELECT GET_LOCK('a', 1)", "GET_LOCK"),
            (b"SET @a = f()", "SET @a"),
            (b"CALL p()", "CALL"),
        ):
            self.setUp()
            self.victim.query(text)
            self.server.ok()
            self.victim.payloads()
            self.kill()
            self.victim.query(b"SELECT 1")
            code, message = self.victim.error()
            self.assertEqual(code, 1317)
            self.assertIn(loss, message)
            self.victim.query(b"SELECT 2")
            self.reopen()
            self.assertEqual(self.server.payloads()[-1], b"\x03SELECT 2")

    def test_several_statements_of_which_one_failed(self) -> None:
        """What a text of several statements has set before one of them failed is not known, so it is lost."""
        self.victim.query(b"SET @a = 1; SELECT nonsense")
        self.server.err(1054, "Unknown column")
        self.victim.payloads()
        self.kill()
        self.victim.query(b"SELECT @a")
        self.assertIn("several statements", self.victim.error()[1])

    def test_prepared_statement(self) -> None:
        """A prepared statement is prepared again on the next server session, and keeps its number for the client."""
        self.victim.command(0x16, b"SELECT 1")
        self.server.send(frame(b"\0\x05\0\0\0\0\0\0\0\0\0\0", 1))
        self.victim.payloads()
        self.kill()
        execute = b"\x17\x05\0\0\0\0\x01\0\0\0"
        self.victim.send(frame(execute, 0))
        server = self.house.open()
        self.assertEqual(server.payloads(), [b"\x16SELECT 1"])
        server.send(frame(b"\0\x07\0\0\0\0\0\0\0\0\0\0", 1))
        self.assertEqual(server.payloads(), [execute.replace(b"\x05", b"\x07")])
        server.row()
        self.assertEqual(len(self.victim.payloads()), 5)

    def test_running(self) -> None:
        """The statement ends with 1317 and is killed on the server; the client session lives on."""
        self.victim.query(b"SELECT SLEEP(60)")
        self.asker.query(b"KILL PROXYSESSION 2 %d" % self.session.bound.ss_id)
        self.assertEqual(self.victim.error(), (1317, f"Query execution was interrupted: {WHO}"))
        self.assertEqual(self.asker_server.payloads(), [b"\x03KILL %d" % self.server.thread_id])
        self.asker_server.ok()
        self.server.wire.lose()
        self.house.turn()
        self.assertEqual(self.asker.payloads()[0][0], 0)
        self.victim.query(b"SELECT 2")
        self.reopen()
        self.assertEqual(self.server.payloads()[-1], b"\x03SELECT 2")

    def test_amid_a_result(self) -> None:
        """A client session amid a result of the killed server session is cut: its stream cannot be mended."""
        self.victim.query(b"SELECT * FROM t")
        self.server.send(result([[b"a"]])[:-5])
        self.asker.query(b"KILL PROXYSESSION 2 %d" % self.session.bound.ss_id)
        self.assertEqual(self.victim.wire.ended, "aborted")
        self.asker_server.ok()
        self.server.wire.lose()
        self.house.turn()
        self.assertEqual(self.asker.payloads()[0][0], 0)

    def test_account_with_a_password(self) -> None:
        """Where the login cannot be repeated, the next statement gets a clear error and the session ends."""
        house = self.house
        self.victim = house.connect()
        self.victim.packets()
        self.victim.send(response(auth_response=b"x" * 20))
        self.server = house.accept()
        self.server.greet()
        self.server.accept()
        self.victim.packets()
        self.session = self.victim.wire.protocol
        self.asker.query(b"KILL PROXYSESSION 3 %d" % self.session.bound.ss_id)
        house.turn()
        self.victim.query(b"SELECT 1")
        code, text = self.victim.error()
        self.assertEqual(code, 1317)
        self.assertIn("cannot log in again", text)
        house.turn()
        self.assertEqual((self.victim.wire.ended, self.session.reason), ("closed", CloseReason.STATE_LOST))

    def test_own(self) -> None:
        """The asker's own server session can be killed by the asker, who goes on with another one."""
        self.asker.query(b"KILL PROXYSESSION 1 %d" % self.asker.wire.protocol.bound.ss_id)
        self.house.turn()
        self.assertEqual(self.asker.payloads()[0][0], 0)
        self.asker.query(b"SELECT 1")
        self.assertEqual(self.house.attempts, 1)
