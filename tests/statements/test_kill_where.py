"""Tests of KILL PROXYSESSION WHERE and of DRY RUN."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

from attrs import Factory, define, evolve
from twisted.internet.defer import CancelledError, Deferred, fail, succeed
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer

from odptwist.answers import Answer, Column, ColumnType, Done, Table
from odptwist.errors import SqlError, not_owner, unknown_thread
from odptwist.identity import Identity
from odptwist.interfaces import ISessionDirectory
from odptwist.snapshots import (
    AfterTransaction,
    Asker,
    ClientSessionSnapshot,
    KillOutcome,
    KillReport,
    KillScope,
    KillTarget,
)
from odptwist.statements.kill import Kill
from tests.support.directory import ROOT, FakeDirectory, make_client_session, make_server_session
from tests.support.directory import Kill as AskedKill

ASKER = Asker(3, ROOT)
APP = Identity("app", "sys", "ob1")


@implementer(ISessionDirectory)
@define
class BusyDirectory(FakeDirectory):
    """Answers each kill by what `answers` says for its number, or leaves it open in `waiting`."""

    answers: dict[int, KillReport | Exception] = Factory(dict)
    waiting: dict[int, Deferred[KillReport]] = Factory(dict)

    def kill(
        self, target: KillTarget, scope: KillScope, by: Asker, reason: str = "", after: AfterTransaction | None = None
    ) -> Deferred[KillReport]:
        """Write the kill down; fire at once, or when the test says so."""
        self.kills.append(AskedKill(target, scope, by, reason, after))
        number = cast(int, target.id)
        answer = self.answers.get(number)
        if answer is None:
            self.waiting[number] = Deferred()
            return self.waiting[number]
        return fail(answer) if isinstance(answer, Exception) else succeed(answer)

    def finish(self, number: int) -> None:
        """End the kill of a session."""
        self.known = tuple(each for each in self.known if each.cs_id != number)
        self.waiting.pop(number).callback(KillReport(number, KillOutcome.ENDED, stopped=True, seconds=0.0123))


def make_sessions(*numbers: int) -> tuple[ClientSessionSnapshot, ...]:
    """Return idle sessions."""
    return tuple(make_client_session(cs_id=number, identity=APP) for number in numbers)


def ask(text: str, directory: FakeDirectory) -> Deferred[Answer]:
    """Return the answer to a text."""
    statement = Kill()
    return statement.answer(statement.parse(text), ASKER, directory)


class KillWhereTests(SynchronousTestCase):
    def rows(self, answer: Deferred[Answer]) -> Sequence[tuple[object, ...]]:
        """Return the rows of an answer that is there."""
        return cast(Table, self.successResultOf(answer)).rows

    def test_the_columns(self) -> None:
        """The answer is a table with five columns; without a session to kill it has no rows."""
        directory = FakeDirectory(make_sessions(5))
        number, text = ColumnType.LONGLONG, ColumnType.VARCHAR
        self.assertEqual(
            self.successResultOf(ask("KILL PROXYSESSION WHERE Id = 6", directory)),
            Table(
                (
                    Column("Id", number),
                    Column("outcome", text),
                    Column("statement", text),
                    Column("milliseconds", number),
                    Column("detail", text),
                ),
                (),
            ),
        )
        self.assertEqual(directory.kills, [])

    def test_all_that_the_condition_selects_are_killed(self) -> None:
        """The rows come by rising Id, whatever the directory's order; others are not touched."""
        directory = FakeDirectory((*make_sessions(9, 5, 7), make_client_session(cs_id=6)))
        rows = self.rows(ask("KILL PROXYSESSION WHERE User = 'app'", directory))
        self.assertEqual(rows, tuple((number, "ended", "", 0, "") for number in (5, 7, 9)))
        self.assertEqual(
            directory.kills,
            [AskedKill(KillTarget(number, exact=True), KillScope.CONNECTION, ASKER, "") for number in (5, 7, 9)],
        )

    def test_the_asker_is_spared(self) -> None:
        """A condition that is true for the asker does not end it, and it does not count for LIMIT."""
        directory = FakeDirectory(make_sessions(3, 5, 7))
        rows = self.rows(ask("KILL PROXYSESSION WHERE Id > 0 LIMIT 1", directory))
        self.assertEqual([row[0] for row in rows], [5])
        self.assertEqual(self.rows(ask("KILL PROXYSESSION WHERE Id = 3", directory)), ())
        self.assertEqual([kill.target.id for kill in directory.kills], [5])

    def test_a_limit_takes_the_lowest_ids(self) -> None:
        """LIMIT counts by rising Id; zero hits nothing."""
        for limit, expected in ((0, []), (2, [5, 7]), (100_000, [5, 7, 9])):
            directory = FakeDirectory(make_sessions(9, 7, 5))
            rows = self.rows(ask(f"KILL PROXYSESSION WHERE 1 LIMIT {limit}", directory))
            self.assertEqual([row[0] for row in rows], expected)
            self.assertEqual([kill.target.id for kill in directory.kills], expected)

    def test_reason_and_wait_reach_the_directory(self) -> None:
        """Each kill carries the reason and the wait of the statement."""
        directory = FakeDirectory(make_sessions(5, 7), outcome=KillOutcome.MARKED)
        rows = self.rows(ask("KILL PROXYSESSION WHERE 1 AFTER TRANSACTION 30 SECONDS REASON 'it''s time'", directory))
        self.assertEqual([row[:2] for row in rows], [(5, "marked"), (7, "marked")])
        self.assertEqual(
            [(kill.reason, kill.after) for kill in directory.kills], [("it's time", AfterTransaction(30.0))] * 2
        )

    def test_each_row_says_what_became_of_its_session(self) -> None:
        """Outcome, statement, milliseconds and detail are the report's; refusals are rows, too."""
        directory = BusyDirectory(make_sessions(5, 6, 7, 8, 9, 10))
        directory.answers = {
            5: KillReport(5, KillOutcome.ENDED, stopped=True, seconds=0.0126),
            6: KillReport(6, KillOutcome.UNCONFIRMED, "the server did not answer", stopped=False, seconds=5.0),
            7: not_owner(7),
            8: unknown_thread(8),
            9: KillReport(9, KillOutcome.ENDED),
            10: SqlError(1105, "HY000", "something else"),
        }
        self.assertEqual(
            self.rows(ask("KILL PROXYSESSION WHERE 1", directory)),
            (
                (5, "ended", "stopped", 13, ""),
                (6, "unconfirmed", "not stopped", 5000, "the server did not answer"),
                (7, "denied", "", 0, "You are not owner of thread 7"),
                (8, "gone", "", 0, ""),
                (9, "ended", "", 0, ""),
                (10, "spared", "", 0, "something else"),
            ),
        )

    def test_at_most_64_kills_are_under_way(self) -> None:
        """The next kill begins when one has ended; the rows are in order whatever ends first."""
        directory = BusyDirectory(make_sessions(*range(100, 250)))
        answer = ask("KILL PROXYSESSION WHERE 1", directory)
        self.assertEqual(len(directory.kills), 64)
        while directory.waiting:
            self.assertLessEqual(len(directory.waiting), 64)
            self.assertNoResult(answer)
            directory.finish(max(directory.waiting))
        rows = self.rows(answer)
        self.assertEqual(rows, tuple((number, "ended", "stopped", 12, "") for number in range(100, 250)))

    def test_thousands_of_kills_that_end_at_once_do_no_harm(self) -> None:
        """No recursion limit is met."""
        directory = FakeDirectory(make_sessions(*range(100, 2_100)))
        self.assertEqual(len(self.rows(ask("KILL PROXYSESSION WHERE 1 LIMIT 1500", directory))), 1_500)

    def test_who_ended_while_waiting_is_gone(self) -> None:
        """A session that ended before its turn is `gone`, and no other one dies for it."""
        directory = BusyDirectory(make_sessions(*range(100, 165)))
        answer = ask("KILL PROXYSESSION WHERE 1", directory)
        heir = make_client_session(cs_id=200, bound=make_server_session(server_sessid=164))
        directory.known = (*directory.known[:-1], heir)
        for number in range(100, 164):
            directory.finish(number)
        self.assertEqual(self.rows(answer)[-1], (164, "gone", "", 0, ""))
        self.assertNotIn(164, [kill.target.id for kill in directory.kills])

    def test_who_changed_while_waiting_is_spared(self) -> None:
        """A session for which the condition is not true any more when its turn comes lives on."""
        directory = BusyDirectory(make_sessions(*range(100, 165)))
        answer = ask("KILL PROXYSESSION WHERE activity = 'idle'", directory)
        directory.known = (*directory.known[:-1], evolve(directory.known[-1], busy=True))
        for number in range(100, 164):
            directory.finish(number)
        self.assertEqual(self.rows(answer)[-1], (164, "spared", "", 0, "the condition is not true any more"))
        self.assertNotIn(164, [kill.target.id for kill in directory.kills])

    def test_a_number_of_two_sessions_kills_the_right_one(self) -> None:
        """A session is named by its cs_id and nothing else, even if that is another one's connection id."""
        other = make_client_session(cs_id=8, bound=make_server_session(server_sessid=5))
        clear = make_client_session(cs_id=5, identity=APP, bound=make_server_session(server_sessid=77))
        directory = FakeDirectory((clear, other))
        self.assertEqual(self.rows(ask("KILL PROXYSESSION WHERE Id = 5", directory)), ((5, "ended", "", 0, ""),))
        self.assertEqual([kill.target for kill in directory.kills], [KillTarget(5, exact=True)])

    def test_an_asker_who_goes_away_begins_no_more_kills(self) -> None:
        """When the answer is cancelled, sessions that wait for their turn live on."""
        directory = BusyDirectory(make_sessions(*range(100, 200)))
        answer = ask("KILL PROXYSESSION WHERE 1", directory)
        answer.cancel()
        self.failureResultOf(answer, CancelledError)
        self.assertEqual(len(directory.kills), 64)

    def test_a_directory_that_fails_is_an_error(self) -> None:
        """What is not a SqlError goes to the log through the table, and is not taken for a row."""
        directory = BusyDirectory(make_sessions(5, 6))
        directory.answers = {5: ZeroDivisionError(), 6: KillReport(6, KillOutcome.ENDED)}
        self.failureResultOf(ask("KILL PROXYSESSION WHERE 1", directory), ZeroDivisionError)


class DryRunTests(SynchronousTestCase):
    def test_a_dry_run_kills_nothing(self) -> None:
        """DRY RUN lists who would be hit, after LIMIT and without the asker."""
        known = (
            evolve(make_client_session(cs_id=7, identity=APP, busy=True), seconds=12.4),
            make_client_session(cs_id=5, identity=None, proxy_sessid=0, host=""),
            *make_sessions(3, 9),
        )
        directory = FakeDirectory(known)
        answer = self.successResultOf(ask("KILL PROXYSESSION WHERE 1 DRY RUN LIMIT 2 REASON 'x'", directory))
        self.assertEqual(
            cast(Table, answer).rows,
            (
                (5, "would be killed", "", 0, "somebody from localhost, logging in for 0 s"),
                (7, "would be killed", "", 0, f"{APP} from 127.0.0.1:23706, busy for 12 s"),
            ),
        )
        self.assertEqual(directory.kills, [])

    def test_a_dry_run_by_id_has_one_row(self) -> None:
        """DRY RUN of an id, a connection id or oneself lists that session; an unknown one is 1094."""
        server = make_server_session(server_sessid=77)
        directory = FakeDirectory((*make_sessions(3, 5), make_client_session(cs_id=7, bound=server)))
        for text, number in (("5", 5), ("77", 7), ("3", 3), ("CONNECTION_ID()", 3)):
            answer = self.successResultOf(ask(f"KILL PROXYSESSION {text} DRY RUN", directory))
            self.assertEqual([row[:2] for row in cast(Table, answer).rows], [(number, "would be killed")], text)
        error = self.failureResultOf(ask("KILL PROXYSESSION 8 DRY RUN", directory), SqlError).value
        self.assertEqual(error.code, 1094)
        self.assertEqual(directory.kills, [])


class ClausesByIdTests(SynchronousTestCase):
    def test_clauses_of_an_id_reach_the_directory(self) -> None:
        """Reason and wait go with the kill of a session, the reason also with that of a server session."""
        directory = FakeDirectory()
        for text in ("7 AFTER TRANSACTION REASON 'a'", "7 16 REASON 'b'", "CONNECTION_ID() REASON 'c'"):
            self.assertEqual(self.successResultOf(ask(f"KILL PROXYSESSION {text}", directory)), Done(), text)
        scope = KillScope.CONNECTION
        self.assertEqual(
            directory.kills,
            [
                AskedKill(KillTarget(7), scope, ASKER, "a", AfterTransaction()),
                AskedKill(KillTarget(7, 16), scope, ASKER, "b"),
                AskedKill(KillTarget(None), scope, ASKER, "c"),
            ],
        )

    def test_a_marked_session_is_ok_with_a_message(self) -> None:
        """OK says that the session ends with its transaction; that is no warning."""
        directory = FakeDirectory(outcome=KillOutcome.MARKED)
        answer = self.successResultOf(ask("KILL PROXYSESSION 7 AFTER TRANSACTION", directory))
        self.assertEqual(answer, Done(warnings=0, message="ends with its transaction"))

    def test_oneself_is_told_1317(self) -> None:
        """A reason does not change what a kill of oneself answers."""
        directory = FakeDirectory(outcome=KillOutcome.ITSELF)
        error = self.failureResultOf(ask("KILL PROXYSESSION 3 REASON 'x'", directory), SqlError).value
        self.assertEqual(error.code, 1317)
