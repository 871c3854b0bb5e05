"""Tests of queries over sessions: what they may do, how long, and how they end."""

from __future__ import annotations

import sqlite3
from threading import Event, Thread

from attrs import evolve
from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from odptwist.errors import SqlError
from odptwist.statements.columns import SESSION_COLUMNS, SqlValue
from odptwist.statements.query import Query, QueryText
from tests.support.directory import make_client_session

SLOW = " OR ".join([f"statement LIKE '%{'a_' * 200}b'"] * 15)


def make_query(results: str = "Id", where: str = "", time_limit: float = 60.0, count: int = 250) -> Query:
    """Return a query that has taken sessions in."""
    query = Query(QueryText(results, where), time_limit)
    for number in range(1, count + 1):
        query.add(evolve(make_client_session(cs_id=number), statement="a" * 1000))
    return query


class QueryTests(SynchronousTestCase):
    def test_rows_come_in_parts(self) -> None:
        """All sessions are taken in, and their rows given out a hundred at a time."""
        query = make_query()
        query.run()
        parts = list(query.parts())
        self.assertEqual([len(part) for part in parts], [100, 100, 50])
        self.assertEqual([number for part in parts for (number,) in part], list(range(1, 251)))
        query.close()
        query.close()

    def test_only_the_columns_that_it_reads_are_kept(self) -> None:
        """The table has these, and one in any case."""
        for results, where, names in (("user", "id > 1", ["User", "Id"]), ("count(*)", "", ["Id"]), ("1", "", ["Id"])):
            query = Query(QueryText(results, where))
            rows = query._sandbox.run("SELECT name FROM pragma_table_info('proxysession')")
            self.assertEqual(sorted(name for (name,) in rows), sorted(names))
            query.close()

    def test_every_column_can_be_named(self) -> None:
        """In any case, and in every clause."""
        for each in SESSION_COLUMNS:
            name = each.name.swapcase()
            query = Query(QueryText(f"max({name})", f"{name} = 1", f"{name}", f"max({name}) > 1", f"min({name})", 5))
            query.close()

    def test_it_ends_when_its_time_is_up(self) -> None:
        """3024, soon after the limit."""
        query = make_query(SLOW, time_limit=0.05)
        self.assertEqual(self.assertRaises(SqlError, query.run).code, 3024)
        query.close()

    def test_what_sqlite_cannot_evaluate_is_an_error(self) -> None:
        """An integer overflow is 1064, not a number."""
        query = make_query("sum(9223372036854775807)")
        self.assertEqual(self.assertRaises(SqlError, query.run).code, 1064)
        query.close()

    def test_memory_is_bounded(self) -> None:
        """A result beyond the bound is 4024, as ODP says it."""
        query = make_query(", ".join(["statement"] * 50), count=2000)
        self.assertEqual(self.assertRaises(SqlError, query.run).code, 4024)
        query.close()

    def test_one_that_runs_elsewhere_is_stopped_when_it_is_closed(self) -> None:
        """Its thread ends, and gives the memory back; nobody waits for it."""
        query = make_query(SLOW, time_limit=60.0, count=2000)
        running, faults = Event(), list[SqlError]()
        query._sandbox.connection.create_function("sign", 1, lambda _: running.set())
        evolved = query._select
        query._select = evolved.replace("SELECT", "SELECT sign(1) +", 1)

        def work() -> None:
            try:
                query.run()
            except SqlError as fault:
                faults.append(fault)

        thread = Thread(target=work)
        thread.start()
        self.assertTrue(running.wait(30))
        query.close()
        thread.join(30)
        self.assertFalse(thread.is_alive())
        self.assertEqual(len(faults), 1)
        self.assertRaises(sqlite3.ProgrammingError, query._sandbox.connection.execute, "SELECT 1")

    def test_one_that_was_closed_does_not_run(self) -> None:
        """A work that waits for a thread finds nothing to do when its asker has gone."""
        query = make_query()
        query.close()
        query.run()

    @given(st.text(alphabet="IdUser ()*,'\"`;-/+=<>|\\\n%0aselctFROM\0é\ud800", max_size=40))
    def test_any_text_is_a_query_or_an_error(self, text: str) -> None:
        """Nothing else is raised, whatever a client writes into a clause."""
        for clauses in (QueryText(text or " "), QueryText("Id", text), QueryText("Id", order=text)):
            try:
                Query(clauses).close()
            except SqlError as error:
                self.assertIn(error.code, (1064, 3024))

    def test_values_come_as_they_are(self) -> None:
        """Texts that are not UTF-8 and numbers that are too large spoil nothing."""
        session = evolve(make_client_session(cs_id=1), statement="\udcff\0x", bytes_in=1 << 70)
        query = Query(QueryText("statement, bytes_in, db"))
        query.add(session)
        query.run()
        rows: list[tuple[SqlValue, ...]] = [row for part in query.parts() for row in part]
        self.assertEqual(rows, [("??x", (1 << 63) - 1, None)])
        query.close()
