"""Rules at work, in a proxy in memory whose clock the tests turn."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from twisted.internet.defer import Deferred
from twisted.logger import globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer
from zope.interface.verify import verifyObject

from odptwist.errors import CloseReason, SqlError
from odptwist.interfaces import ICondition, IStatistics
from odptwist.machines.rate import RateLimit
from odptwist.sessions.client import ClientSession
from odptwist.sessions.listener import PLAIN
from odptwist.sessions.ruled import RuledSession
from odptwist.sessions.rules import Rule, Rules
from odptwist.snapshots import Asker, ClientSessionSnapshot, KillReport, KillScope, KillTarget, RuleAction
from odptwist.statements.rule_timing import read_timing
from odptwist.statements.where import Condition
from odptwist.timing import Timing
from odptwist.wire.constants import COM_STMT_EXECUTE, COM_STMT_PREPARE
from odptwist.wire.responses import parse_err
from tests.sessions.test_binary import prepared
from tests.support.house import IN_TRANSACTION, ClientPeer, House, ServerPeer, result

KILLED = "Query execution was interrupted: killed by rule 'long': too long"


@implementer(ICondition)
class Looks:
    """A condition that writes down what it was shown, and does as a function says."""

    def __init__(self, holds: Callable[[ClientSessionSnapshot], bool]) -> None:
        self._holds = holds
        self.seen: list[ClientSessionSnapshot] = []

    def holds(self, session: ClientSessionSnapshot) -> bool:
        """Do so."""
        self.seen.append(session)
        return self._holds(session)


class RulesTestCase(SynchronousTestCase):
    """Has a house with rules."""

    def setUp(self) -> None:
        """Prepare to read the log."""
        self.events: list[dict[str, Any]] = []
        globalLogPublisher.addObserver(self.events.append)
        self.addCleanup(globalLogPublisher.removeObserver, self.events.append)

    def use(self, *rules: Rule) -> None:
        """Build a house in which these rules hold, and let two clients log in."""
        self.house = House()
        self.rules = Rules(self.house.reactor, self.house.registry, rules)
        self.house.use(rules=self.rules)
        self.client, self.server = self.log_in()
        self.neighbour, self.neighbours_server = self.log_in()

    def rule(self, where: str, action: RuleAction, limit: int = 0, name: str = "long") -> Rule:
        """Return a rule as the settings make it."""
        condition = Condition(where)
        self.addCleanup(condition.close)
        return Rule(name, condition, read_timing(where), action, RateLimit(limit), "too long")

    def log_in(self) -> tuple[ClientPeer, ServerPeer]:
        """Return a client that has logged in, and its server."""
        client, server = self.house.log_in()
        server.payloads()
        return client, server

    def pass_time(self, seconds: float) -> None:
        """Let time pass as it does in life, with a turn of the reactor ever so often."""
        for _ in range(round(seconds * 20)):
            self.house.reactor.advance(0.05)

    def logged(self, level: str = "info") -> Iterator[dict[str, Any]]:
        """Yield what rules have logged about sessions that match."""
        for event in self.events:
            if "matches client session" in (event.get("log_format") or "") and event["log_level"].name == level:
                yield event

    def counts(self, rule: Rule) -> tuple[int, int, int, int]:
        """Return how often a rule has matched, acted, was limited and failed."""
        return rule.matched, rule.acted, rule.limited, rule.failed

    def take_kill(self) -> tuple[ServerPeer, bytes]:
        """Return the server's side of the connection that a kill comes by, and its text."""
        side = self.house.accept()
        side.greet()
        side.accept()
        return side, side.payloads()[-1]


class RulesTests(RulesTestCase):
    def test_statement_that_lasts(self) -> None:
        """A statement is stopped when it has lasted too long, and its client reads which rule did it, and why."""
        rule = self.rule("seconds > 1 AND statement LIKE '%SLEEP%'", RuleAction.KILL_QUERY)
        self.use(rule)
        self.client.query(b"SELECT SLEEP(60)")
        self.pass_time(1.0)
        self.assertEqual((self.house.attempts, rule.matched), (0, 0))
        self.pass_time(0.15)
        side, kill = self.take_kill()
        self.assertEqual(kill, b"\x03KILL QUERY %d" % self.server.thread_id)
        self.server.err(1317, "Query execution was interrupted")
        side.ok()
        self.house.turn()
        self.assertEqual(self.client.error(), (1317, KILLED))
        self.assertEqual(self.counts(rule), (1, 1, 0, 0))
        self.assertIsNone(self.client.wire.ended)
        self.client.query(b"SELECT 1")
        self.server.row()
        self.assertEqual(len(self.client.payloads()), 5)

    def test_error_amid_a_result(self) -> None:
        """MariaDB's error in the place of rows is given the reason too, and keeps its number in the sequence."""
        self.use(self.rule("seconds > 1", RuleAction.KILL_QUERY))
        self.client.query(b"SELECT SLEEP(60)")
        self.pass_time(1.2)
        self.take_kill()
        begun = result([[b"x"]])
        self.server.send(begun[: -9 - 6] + b"\x2a\0\0\x04\xff\x25\x05#70100Query execution was interrupted".ljust(46))
        packets = self.client.packets()
        self.assertEqual([each.sequence for each in packets], [1, 2, 3, 4])
        self.assertEqual(parse_err(packets[-1].payload).message, KILLED)

    def test_statements_that_end_in_time(self) -> None:
        """One statement after the other, all short: no rule looks at any, however long the session works."""
        condition = Looks(lambda session: True)
        rule = Rule("long", condition, read_timing("seconds > 1"), RuleAction.KILL_QUERY, RateLimit(0))
        self.use(rule)
        for _ in range(40):
            self.client.query(b"SELECT SLEEP(0.3)")
            self.pass_time(0.3)
            self.server.row()
            self.client.query(b"SELECT SLEEP(0.2)")
            self.pass_time(0.2)
            self.server.row()
        self.assertEqual(condition.seen, [])
        self.client.query(b"SELECT SLEEP(60)")
        self.pass_time(1.15)
        self.assertEqual([each.statement for each in condition.seen], ["SELECT SLEEP(60)"])

    def test_never_the_next(self) -> None:
        """A statement that begins just when the one before it would have been stopped is left alone."""
        rule = self.rule("seconds > 1", RuleAction.KILL_QUERY)
        self.use(rule)
        self.client.query(b"SELECT SLEEP(0.99)")
        self.pass_time(0.95)
        self.server.row()
        self.client.query(b"SELECT 2")
        self.pass_time(0.9)
        self.server.row()
        self.pass_time(10)
        self.assertEqual((self.counts(rule), self.house.attempts), ((0, 0, 0, 0), 0))

    def test_neighbours(self) -> None:
        """Only the session that matches is hit, by its cs_id even where that names another session, too."""
        rule = self.rule("seconds > 1 AND activity = 'busy'", RuleAction.KILL)
        self.use(rule)
        self.house.registry._sessions[2].bound.server_sessid = 1
        self.client.query(b"SELECT SLEEP(60)")
        self.neighbour.query(b"SELECT 1")
        self.neighbours_server.row()
        self.neighbour.payloads()
        self.pass_time(1.2)
        self.assertEqual(self.client.error(), (1317, KILLED))
        side, kill = self.take_kill()
        self.assertEqual(kill, b"\x03KILL %d" % self.server.thread_id)
        side.ok()
        self.server.wire.lose()
        self.house.turn()
        self.assertEqual(self.counts(rule), (1, 1, 0, 0))
        self.assertEqual((self.client.wire.ended, self.neighbour.wire.ended), ("closed", None))
        self.assertEqual(self.neighbour.payloads(), [])

    def test_idle_transaction(self) -> None:
        """A transaction that is left open is ended, and one that is worked on is not."""
        rule = self.rule("seconds > 1 AND activity = 'in transaction'", RuleAction.KILL)
        self.use(rule)
        for client, server in (self.client, self.server), (self.neighbour, self.neighbours_server):
            client.query(b"BEGIN")
            server.ok(IN_TRANSACTION)
        for _ in range(4):
            self.pass_time(0.5)
            self.neighbour.query(b"SELECT 1")
            self.neighbours_server.send(result([[b"1"]], IN_TRANSACTION.status))
        self.assertEqual(self.client.wire.protocol.reason, CloseReason.KILLED)
        self.assertEqual(self.client.wire.protocol.detail, "killed by rule 'long': too long")
        self.assertIsNone(self.neighbour.wire.protocol.reason)
        self.assertEqual(self.counts(rule), (1, 1, 0, 0))

    def test_transaction_that_was_opened_long_ago(self) -> None:
        """A transaction counts from the statement that opened it, also if that has lasted too long itself."""
        for old in (0.0, 0.8, 3.0):
            rule = self.rule("transaction_seconds > 1 AND activity = 'in transaction'", RuleAction.KILL)
            self.use(rule, self.rule("seconds > 600", RuleAction.LOG, name="idle"))
            self.pass_time(50)
            self.client.query(b"UPDATE t SET a = 1")
            self.pass_time(old)
            self.server.ok(IN_TRANSACTION)
            self.pass_time(max(0.0, 0.9 - old))
            self.house.turn()
            self.assertEqual(rule.matched, 0 if old < 1 else 1)
            self.pass_time(0.3)
            self.assertEqual(rule.matched, 1)

    def test_transaction_amid_statements(self) -> None:
        """A constant for transactions is passed on time whatever the session does, and once per statement or pause."""
        rule = self.rule("transaction_seconds > 1", RuleAction.LOG)
        self.use(rule)
        self.client.query(b"BEGIN")
        self.server.ok(IN_TRANSACTION)
        for _ in range(3):
            self.client.query(b"SELECT 1")
            self.pass_time(0.3)
            self.server.send(result([[b"1"]], IN_TRANSACTION.status))
        self.client.query(b"SELECT SLEEP(60)")
        self.assertEqual(rule.matched, 0)
        self.pass_time(0.3)
        self.assertEqual(rule.matched, 1)
        self.pass_time(20)
        self.assertEqual(rule.matched, 1)
        self.server.send(result([[b"1"]], IN_TRANSACTION.status))
        self.house.turn()
        self.assertEqual(rule.matched, 2)
        self.client.query(b"COMMIT")
        self.server.ok()
        self.pass_time(20)
        self.assertEqual(rule.matched, 2)

    def test_client_that_never_asks(self) -> None:
        """A session that has logged in and sends nothing is idle, too."""
        rule = self.rule("seconds > 600 AND activity = 'idle'", RuleAction.KILL)
        self.use(rule)
        self.pass_time(300)
        self.neighbour.query(b"SELECT 1")
        self.neighbours_server.row()
        self.pass_time(301)
        self.assertEqual(self.client.wire.protocol.reason, CloseReason.KILLED)
        self.assertIsNone(self.neighbour.wire.protocol.reason)

    def test_at_the_start(self) -> None:
        """A rule without times looks at each statement once, when it begins; the proxy's own are none."""
        rule = self.rule("statement LIKE 'DROP%' OR statement LIKE 'SHOW%'", RuleAction.WARN)
        self.use(rule)
        for text in (b"DROP TABLE t", b"SELECT 1", b"DROP TABLE t"):
            self.client.query(text)
            self.house.turn()
            self.server.ok()
            self.house.turn()
        self.client.query(b"SHOW PROXYSESSION")
        self.pass_time(5)
        self.assertEqual(self.counts(rule), (2, 2, 0, 0))
        self.assertEqual([event["cs_id"] for event in self.logged("warn")], [1, 1])

    def test_prepared_statement(self) -> None:
        """An executed statement has the text that was prepared."""
        rule = self.rule("command = 'Execute' AND statement = 'SELECT SLEEP(60)'", RuleAction.LOG)
        self.use(rule)
        self.client.command(COM_STMT_PREPARE, b"SELECT SLEEP(60)")
        self.house.turn()
        self.server.send(prepared(1))
        self.client.command(COM_STMT_EXECUTE, b"\1\0\0\0\0\1\0\0\0")
        self.house.turn()
        self.assertEqual(rule.matched, 1)

    def test_statement_that_has_ended_at_once(self) -> None:
        """A statement that is over before anybody could look is not taken for the one after it."""
        rule = self.rule("statement LIKE 'DROP%'", RuleAction.KILL_QUERY)
        self.use(rule)
        self.client.query(b"DROP TABLE t")
        self.server.ok()
        self.client.query(b"SELECT 1")
        self.house.turn()
        self.assertEqual((rule.matched, self.house.attempts), (0, 0))

    def test_idle_sessions_have_no_statement_to_kill(self) -> None:
        """A rule that stops statements does not match a session that rests, whatever it ran last."""
        rule = self.rule("seconds > 1 AND statement LIKE '%SLEEP%'", RuleAction.KILL_QUERY)
        self.use(rule)
        self.client.query(b"SELECT SLEEP(0.5)")
        self.server.row()
        self.pass_time(10)
        self.assertEqual(self.counts(rule), (0, 0, 0, 0))

    def test_statement_that_waits_for_a_server(self) -> None:
        """What waits for a server session is stopped without any server."""
        self.use(self.rule("seconds > 1", RuleAction.KILL_QUERY))
        self.server.wire.lose()
        self.house.turn()
        self.client.query(b"SELECT 1")
        self.pass_time(1.2)
        self.assertEqual(self.client.error(), (1317, KILLED))

    def test_log(self) -> None:
        """Log and warn only write; the text of the statement is not in it."""
        self.use(self.rule("seconds > 1", RuleAction.LOG), self.rule("seconds > 2", RuleAction.WARN, name="longer"))
        self.client.query(b"SELECT 'secret', SLEEP(60)")
        self.pass_time(1.5)
        (event,) = (each for each in self.logged() if each["cs_id"] == 1)
        self.assertEqual((event["rule"], event["action"], event["reason"]), ("long", "log", ": too long"))
        self.assertNotIn("secret", str(event))
        self.pass_time(20)
        self.assertEqual([each["rule"] for each in self.logged("warn") if each["cs_id"] == 1], ["longer"])
        self.assertIsNone(self.client.wire.ended)

    def test_rate_of_kills(self) -> None:
        """What a kill could not hit because the rate was used up is hit when it comes back, if it still matches."""
        rule = self.rule("seconds > 1 AND activity = 'busy'", RuleAction.KILL, limit=1)
        self.use(rule)
        third, thirds_server = self.log_in()
        for client in (self.client, self.neighbour, third):
            client.query(b"SELECT SLEEP(600)")
        self.pass_time(2)
        hit = [session.wire.ended is not None for session in (self.client, self.neighbour, third)]
        self.assertEqual((sum(hit), rule.matched, rule.limited), (1, 3, 2))
        left = [
            (client, server)
            for client, server in (
                (self.client, self.server),
                (self.neighbour, self.neighbours_server),
                (third, thirds_server),
            )
            if client.wire.ended is None
        ]
        left[0][1].row()
        self.pass_time(57)
        self.assertIsNone(left[1][0].wire.ended)
        self.pass_time(3)
        self.assertEqual((left[0][0].wire.ended, left[1][0].wire.ended), (None, "closed"))
        self.assertEqual((rule.matched, rule.limited), (3, 2))

    def test_rate_of_lines(self) -> None:
        """What was not logged because the rate was used up is counted, and not logged later."""
        rule = self.rule("statement LIKE 'SELECT%'", RuleAction.LOG, limit=2)
        self.use(rule)
        for _ in range(5):
            self.client.query(b"SELECT 1")
            self.house.turn()
            self.server.row()
        self.pass_time(70)
        self.assertEqual(self.counts(rule), (5, 2, 3, 0))

    def test_kill_that_fails(self) -> None:
        """A kill that is not confirmed, or refused, is counted and logged."""
        rule = self.rule("seconds > 1 AND activity = 'busy'", RuleAction.KILL)
        self.use(rule)
        self.client.wire.protocol.repeatable = False
        self.client.query(b"SELECT SLEEP(60)")
        self.pass_time(1.2)
        self.assertEqual(self.counts(rule), (1, 0, 0, 1))
        self.assertTrue([each for each in self.events if "no connection could be had" in str(each.get("detail"))])

        class Refusing:
            def kill(self, target: KillTarget, scope: KillScope, by: Asker, reason: str = "") -> Deferred[KillReport]:
                failing: Deferred[KillReport] = Deferred()
                failing.errback(SqlError(1095, "HY000", "not yours"))
                return failing

        self.rules._directory = Refusing()  # type: ignore[assignment]
        self.neighbour.query(b"SELECT SLEEP(60)")
        self.pass_time(1.2)
        self.assertEqual(self.counts(rule), (2, 0, 0, 2))
        self.assertTrue([each for each in self.events if each.get("fault") == "not yours"])

    def test_condition_that_fails(self) -> None:
        """A condition that cannot be evaluated does no harm, and is not asked for ever; the other rules go on."""
        for fault in (SqlError(3024, "HY000", "too slow"), RuntimeError("a bug")):

            def fail(session: ClientSessionSnapshot, fault: Exception = fault) -> bool:
                raise fault

            condition = Looks(fail)
            bad = Rule("bad", condition, Timing(), RuleAction.KILL, RateLimit(0))
            good = self.rule("statement LIKE 'SELECT%'", RuleAction.LOG)
            self.use(bad, good)
            for _ in range(6):
                self.client.query(b"SELECT 1")
                self.house.turn()
                self.server.row()
                self.assertEqual(len(self.client.payloads()), 5)
            self.assertEqual((len(condition.seen), bad.faults, bad.is_off, good.matched), (3, 3, True, 6))
            self.assertEqual(
                [e["off"] for e in self.events if e.get("fault") is fault], ["", "", " and is switched off"]
            )

    def test_nothing_is_left(self) -> None:
        """When the last session has ended, no timer runs any more."""
        self.use(self.rule("seconds > 1", RuleAction.LOG), self.rule("seconds > 600", RuleAction.LOG, name="idle"))
        self.client.query(b"SELECT 1")
        self.house.turn()
        for peer in (self.client, self.neighbour):
            peer.wire.lose()
        self.pass_time(10)
        for server in (self.server, self.neighbours_server):
            server.wire.lose()
        self.house.turn()
        self.assertEqual(len(self.house.registry), 0)
        self.assertEqual([each for each in self.house.reactor.getDelayedCalls() if "Rules" in str(each.func)], [])
        self.assertEqual(len(self.rules._wheel), 0)

    def test_idle_sessions_cost_nothing(self) -> None:
        """A session that rests comes up on the wheel now and then, and no condition is evaluated."""
        condition = Looks(lambda session: False)
        self.use(Rule("x", condition, read_timing("seconds > 3600"), RuleAction.LOG, RateLimit(0)))
        calls = 0

        def look(*arguments: Any) -> None:
            nonlocal calls
            calls += 1
            original(*arguments)

        original, self.rules._look = self.rules._look, look  # type: ignore[method-assign]
        self.house.reactor.pump([1.0] * 3599)
        self.assertLessEqual(calls, 2 * 61)
        self.assertEqual(condition.seen, [])
        self.house.reactor.pump([1.0] * 3)
        self.assertEqual(len(condition.seen), 2)

    def test_statistics(self) -> None:
        """The counters of each rule have its name."""
        self.use(self.rule("seconds > 1", RuleAction.LOG))
        self.assertTrue(verifyObject(IStatistics, self.rules))
        self.client.query(b"SELECT SLEEP(60)")
        self.pass_time(1.2)
        found = {each.name: each.value for each in self.rules.statistics()}
        self.assertEqual(
            found,
            {
                "rule.long.matched": 2,  # the neighbour has been idle for as long
                "rule.long.acted": 2,
                "rule.long.limited": 0,
                "rule.long.failed": 0,
                "rule.long.faults": 0,
            },
        )

    def test_without_rules(self) -> None:
        """Where there are no rules, sessions are plain ones."""
        self.assertIs(type(House().registry.new_session(PLAIN)), ClientSession)
        self.use()
        self.assertIs(type(self.client.wire.protocol), RuledSession)
