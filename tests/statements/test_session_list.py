"""Tests of SHOW [FULL] PROXYSESSION [WHERE ...] and SELECT ... FROM proxysession."""

from __future__ import annotations

from typing import Any

from attrs import evolve
from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from odptwist.answers import Column, ColumnType, Table
from odptwist.errors import SqlError
from odptwist.identity import Identity
from odptwist.interfaces import IMarkedStatement, IProxyStatement, ITabular
from odptwist.machines.exchange import plain_prefixes
from odptwist.snapshots import Asker
from odptwist.statements import builtin_statements
from odptwist.statements.columns import LIST_COLUMNS, SESSION_COLUMNS
from odptwist.statements.pace import AT_ONCE, Pace
from odptwist.statements.session_list import SelectSessions, ShowSessions
from odptwist.statements.table import StatementTable
from tests.support.directory import ROOT, FakeDirectory, make_client_session, make_server_session

ASKER = Asker(7, ROOT)
APP = Identity("app", "sys", "ob1")
SESSIONS = (
    evolve(make_client_session(cs_id=9, identity=APP, busy=True, bound=make_server_session()), seconds=3.0),
    evolve(make_client_session(cs_id=7, identity=ROOT, bound=make_server_session()), seconds=1.5, statement="SELECT 1"),
    evolve(make_client_session(cs_id=8, identity=APP, database="shop"), seconds=0.25),
)
FORWARDED, NOT_UNDERSTOOD, WRONG = None, 5010, 1064

LISTS: list[tuple[str, list[int] | int]] = [
    ("SHOW PROXYSESSION", [7, 8, 9]),
    ("show full proxysession;", [7, 8, 9]),
    ("SHOW /* x */ FULL PROXYSESSION", [7, 8, 9]),
    ("SHOW PROXYSESSION WHERE Id > 7", [8, 9]),
    ("SHOW PROXYSESSION WHERE (Id > 7) ORDER BY Id DESC", [9, 8]),
    ("SHOW FULL PROXYSESSION WHERE User = 'app' ORDER BY seconds", [8, 9]),
    ('SHOW FULL PROXYSESSION WHERE User = "app" ORDER BY seconds DESC, Id LIMIT 1 -- x', [9]),
    ("SHOW PROXYSESSION WHERE 1 LIMIT 0", []),
    ("SHOW PROXYSESSION WHERE 1 LIMIT 2", [7, 8]),
    ("SHOW PROXYSESSION WHERE activity = 'busy' OR db IS NOT NULL", [8, 9]),
    ("SHOW PROXYSESSION WHERE 'x'", []),
    ("SHOW PROXYSESSION WHERE statement LIKE 'select%'", [7]),
    ("SHOW FULL PROXYSESSION LIKE 'x'", NOT_UNDERSTOOD),
    ("SHOW PROXYSESSION ORDER BY Id", NOT_UNDERSTOOD),
    ("SHOW PROXYSESSION LIMIT 1", NOT_UNDERSTOOD),
    ("SHOW PROXYSESSION WHERE 1 ORDER Id", NOT_UNDERSTOOD),
    ("SHOW PROXYSESSION WHERE 1 GROUP BY Id", NOT_UNDERSTOOD),
    ("SHOW PROXYSESSION WHERE 1 LIMIT", NOT_UNDERSTOOD),
    ("SHOW PROXYSESSION WHERE 1 LIMIT -1", NOT_UNDERSTOOD),
    ("SHOW PROXYSESSION WHERE 1 LIMIT 1, 2", NOT_UNDERSTOOD),
    ("SHOW PROXYSESSION WHERE 1 LIMIT 1 LIMIT 1", NOT_UNDERSTOOD),
    ("SHOW PROXYSESSION WHERE 1 LIMIT 1 ORDER BY Id", NOT_UNDERSTOOD),
    ("SHOW FULL PROXYSESSIONS", NOT_UNDERSTOOD),
    ("SHOW PROXYSESSION WHERE", WRONG),
    ("SHOW PROXYSESSION WHERE LIMIT 1", WRONG),
    ("SHOW PROXYSESSION WHERE 1 ORDER BY", WRONG),
    ("SHOW PROXYSESSION WHERE nothing = 1", WRONG),
    ("SHOW PROXYSESSION WHERE 1 ORDER BY nothing", WRONG),
    ("SHOW PROXYSESSION WHERE count(*) > 1", WRONG),
    ("SHOW PROXYSESSION WHERE Id IN (SELECT 1)", WRONG),
    ("SHOW PROXYSESSION WHERE 1 ORDER BY (SELECT 1)", WRONG),
    ("SHOW PROXYSESSION WHERE 1 ORDER BY 1 UNION SELECT 2", WRONG),
    ("SHOW PROXYSESSION WHERE 1) OR (1", WRONG),
    ("SHOW PROXYSESSION WHERE load_extension('x')", WRONG),
]

SELECTS: list[tuple[str, object]] = [
    ("SELECT Id FROM proxysession ORDER BY Id", [(7,), (8,), (9,)]),
    ("select id from PROXYSESSION where id > 7 order by 1 desc limit 1", [(9,)]),
    ("SELECT User, count(*) FROM proxysession GROUP BY User ORDER BY 2 DESC", [("app", 2), ("root", 1)]),
    ("SELECT User u FROM proxysession GROUP BY u HAVING count(*) = 1;", [("root",)]),
    ("SELECT DISTINCT User FROM proxysession ORDER BY User", [("app",), ("root",)]),
    ("SELECT count(*), sum(Id), min(Id), max(seconds), avg(seconds) FROM proxysession", None),
    ("SELECT db, 'it''s', NULL FROM proxysession WHERE Id = 8", [("shop", "it's", None)]),
    ("SELECT count(*) FROM proxysession WHERE Id = 1", [(0,)]),
    ("SELECT Id FROM proxysession WHERE Id = 1", []),
    ("SELECT 1 FROM proxysession LIMIT 1", [(1,)]),
    ("SELECT Id FROM proxysession LIMIT 1, 2", NOT_UNDERSTOOD),
    ("SELECT Id FROM proxysession WHERE 1 nonsense BY", WRONG),
    ("SELECT Id FROM proxysession GROUP Id", NOT_UNDERSTOOD),
    ("SELECT FROM proxysession", WRONG),
    ("SELECT Id, FROM proxysession", WRONG),
    ("SELECT nothing FROM proxysession", WRONG),
    ("SELECT proxysession.* FROM proxysession", WRONG),
    ("SELECT (SELECT 1) FROM proxysession", WRONG),
    ("SELECT (SELECT max(name) FROM sqlite_master) FROM proxysession", WRONG),
    ("SELECT readfile('/etc/passwd') FROM proxysession", WRONG),
    ("SELECT group_concat(statement) FROM proxysession", WRONG),
    ("SELECT randomblob(100000000) FROM proxysession", WRONG),
    ("SELECT Id FROM proxysession WHERE 1 ORDER BY 1 UNION SELECT 1", WRONG),
    ("SELECT 1 UNION SELECT Id FROM proxysession", WRONG),
    # Another table, or several: for the server.
    ("SELECT 1", FORWARDED),
    ("SELECT Id FROM shop.proxysession", FORWARDED),
    ("SELECT Id FROM proxysession.t", FORWARDED),
    ("SELECT Id FROM `proxysession`", FORWARDED),
    ("SELECT Id FROM proxysession AS p", FORWARDED),
    ("SELECT Id FROM proxysession, t", FORWARDED),
    ("SELECT Id FROM proxysession JOIN t USING (a)", FORWARDED),
    ("SELECT Id FROM t WHERE a IN (SELECT 1 FROM proxysession)", FORWARDED),
    ("SELECT 'FROM proxysession'", FORWARDED),
    ("SELECT Id FROM proxysessions", FORWARDED),
    ("SELECT Id FROM t -- FROM proxysession", FORWARDED),
    ("SELECT Id FROM proxysession; SELECT 1", FORWARDED),
    ("WITH a AS (SELECT 1) SELECT * FROM proxysession", FORWARDED),
]


class Asking(SynchronousTestCase):
    """Asks all built-in statements."""

    directory = FakeDirectory(SESSIONS)

    def ask(self, text: str) -> Any:
        """Return the table that answers a text, the code of the error, or None if it is for the server."""
        table = StatementTable(builtin_statements())
        try:
            found = table.find(text)
        except SqlError as error:
            return error.code
        if found is None:
            return None
        answer = table.answer(found, ASKER, self.directory)
        answer.addErrback(lambda failure: failure.value.code)
        return self.successResultOf(answer)


class ShowSessionsTests(Asking):
    def test_every_text_is_answered_as_the_table_says(self) -> None:
        """A list has the sessions that the table names, in that order; other texts are refused."""
        for text, expected in LISTS:
            answer = self.ask(text)
            if isinstance(answer, Table):
                answer = [row[1] for row in answer.rows]
            self.assertEqual(answer, expected, text)

    def test_full_has_all_columns(self) -> None:
        """The first twelve are those of the short list, with the same values."""
        short, full = self.ask("SHOW PROXYSESSION"), self.ask("SHOW FULL PROXYSESSION")
        self.assertEqual(full.columns, tuple(each.column for each in SESSION_COLUMNS))
        self.assertEqual(short.columns, tuple(each.column for each in LIST_COLUMNS))
        self.assertEqual([row[:12] for row in full.rows], list(short.rows))

    def test_times_are_numbers_with_milliseconds(self) -> None:
        """A time is idle time or statement time, as the session is."""
        answer = self.ask("SHOW FULL PROXYSESSION WHERE Id IN (7, 9)")
        names = [column.name for column in answer.columns]
        places = [names.index(name) for name in ("seconds", "idle_seconds", "statement_seconds")]
        self.assertEqual({answer.columns[place].type for place in places}, {ColumnType.DOUBLE})
        self.assertEqual([row[places[0]] for row in answer.rows], ["1.500", "3.000"])
        self.assertEqual([row[places[1]] for row in answer.rows], ["1.500", "0.000"])
        self.assertEqual([row[places[2]] for row in answer.rows], ["0.000", "3.000"])

    def test_clients_that_prepare_it_know_the_columns(self) -> None:
        """It provides its interfaces, and tells its columns before the answer."""
        statement = ShowSessions()
        self.assertTrue(verifyObject(IProxyStatement, statement) and verifyObject(ITabular, statement))
        self.assertEqual(len(statement.columns(statement.parse("SHOW FULL PROXYSESSION"))), len(SESSION_COLUMNS))

    def test_thousands_of_sessions_are_read_in_turns(self) -> None:
        """SQLite works aside, and the rows of its result come a hundred at a time."""
        waiting: list[Deferred[None]] = []

        def turn() -> Deferred[None]:
            waiting.append(Deferred())
            return waiting[-1]

        statement = ShowSessions(Pace(turn, AT_ONCE.aside))
        directory = FakeDirectory(tuple(make_client_session(cs_id=number) for number in range(1, 251)))
        answer = statement.answer(statement.parse("SHOW PROXYSESSION WHERE Id > 5"), ASKER, directory)
        for turns in (1, 2, 3):
            self.assertNoResult(answer)
            self.assertEqual(len(waiting), turns)
            waiting[-1].callback(None)
        table = self.successResultOf(answer)
        assert isinstance(table, Table)
        self.assertEqual([row[1] for row in table.rows], list(range(6, 251)))

    def test_an_asker_that_goes_away_stops_it(self) -> None:
        """A cancelled answer gives SQLite's memory back."""
        statement = ShowSessions(Pace(Deferred, AT_ONCE.aside))
        answer = statement.answer(statement.parse("SHOW PROXYSESSION WHERE 1"), ASKER, self.directory)
        answer.cancel()
        self.failureResultOf(answer)


class SelectSessionsTests(Asking):
    def test_every_text_is_answered_as_the_table_says(self) -> None:
        """A SELECT from proxysession gives rows or an error; every other text is the server's."""
        for text, expected in SELECTS:
            answer = self.ask(text)
            if isinstance(answer, Table):
                self.assertEqual(expected is None or list(answer.rows), expected is None or expected, text)
            else:
                self.assertEqual(answer, expected, text)

    def test_names_and_types_of_the_results(self) -> None:
        """A result is called as the client wrote it, or by its alias; its values say what it is."""
        answer = self.ask(
            "SELECT count( * ), sum(Id) AS total, avg(seconds), max(User) u, NULL, Id+1 FROM proxysession"
        )
        number, text, decimal = ColumnType.LONGLONG, ColumnType.VARCHAR, ColumnType.DOUBLE
        self.assertEqual(
            answer.columns,
            (
                Column("count( * )", number),
                Column("total", number),
                Column("avg(seconds)", decimal),
                Column("u", text),
                Column("NULL", text),
                Column("Id+1", number),
            ),
        )
        self.assertEqual(answer.rows[0][:4], (3, 24, "1.583333", "root"))

    def test_a_star_is_all_columns(self) -> None:
        """They have the names of SHOW FULL PROXYSESSION, and values as a condition sees them."""
        answer = self.ask("SELECT *, Id * 2 FROM proxysession WHERE Id = 7")
        self.assertEqual([each.name for each in answer.columns], [*(each.name for each in SESSION_COLUMNS), "Id * 2"])
        self.assertEqual(answer.rows[0][:2], ("756006681247547400", 7))
        self.assertEqual(answer.rows[0][-1], 14)

    def test_others_than_administrators_may_not(self) -> None:
        """1227 for those who may not see the proxy as a whole."""
        self.directory = FakeDirectory(SESSIONS, allows=False)
        self.assertEqual(self.ask("SELECT Id FROM proxysession"), 1227)
        self.assertEqual(len(self.ask("SHOW PROXYSESSION WHERE 1").rows), 3)

    def test_it_costs_other_selects_nothing(self) -> None:
        """It is found by its mark, so SELECT is no word that makes the exchange machine look."""
        self.assertTrue(verifyObject(IMarkedStatement, SelectSessions()))
        words = StatementTable(builtin_statements()).first_words
        self.assertNotIn("SELECT", words)
        self.assertIn(b"SEL", plain_prefixes(words))
