"""Tests of SHOW PROXYSTAT."""

from __future__ import annotations

from collections.abc import Iterator
from typing import cast

from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer
from zope.interface.verify import verifyObject

from odptwist.answers import Column, ColumnType, Table
from odptwist.errors import SqlError
from odptwist.interfaces import IProxyStatement, IStatistics
from odptwist.snapshots import Asker, Statistic
from odptwist.statements import statistics_statement
from odptwist.statements.statistics import ShowStatistics, StatisticList
from odptwist.statements.table import StatementTable
from tests.support.directory import ROOT, FakeDirectory
from tests.support.house import House

ASKER = Asker(7, ROOT)


@implementer(IStatistics)
class Counting:
    """Counts how often it was asked."""

    asked = 0

    def statistics(self) -> Iterator[Statistic]:
        """Yield that, and a constant."""
        self.asked += 1
        yield Statistic("asked", self.asked)
        yield Statistic("rule.a b.matched", 7)


class StatisticsTests(SynchronousTestCase):
    def ask(self, text: str, allows: bool = True) -> Table:
        """Return what the proxy answers."""
        found = self.table.find(text)
        if found is None:
            self.fail(f"not a statement of the proxy's: {text}")
        return cast(Table, self.successResultOf(self.table.answer(found, ASKER, FakeDirectory(allows=allows))))

    def setUp(self) -> None:
        """Make a table of the statement alone."""
        self.table = StatementTable([statistics_statement([Counting(), Counting()])])

    def test_it_provides_its_interface(self) -> None:
        """It is a proxy statement."""
        self.assertTrue(verifyObject(IProxyStatement, ShowStatistics(())))

    def test_rows(self) -> None:
        """All sources are asked each time, in their order; the columns are ODP's."""
        for asked, text in enumerate(("show proxystat", "SHOW PROXYSTAT REFRESH;"), 1):
            answer = self.ask(text)
            self.assertEqual(
                answer.columns,
                (
                    Column("stat_name", ColumnType.VARCHAR),
                    Column("value", ColumnType.LONGLONG),
                    Column("persist_type", ColumnType.VARCHAR),
                ),
            )
            rows = [("asked", asked, "NON_PERSISTENT"), ("rule.a b.matched", 7, "NON_PERSISTENT")]
            self.assertEqual(answer.rows, tuple(rows * 2))

    def test_pattern(self) -> None:
        """LIKE is about the names, as in every proxy statement."""
        for pattern, count in (("rule.%", 2), ("%matched", 2), ("RULE.%", 0), ("", 4), ("_sked", 2)):
            self.assertEqual(len(self.ask(f"SHOW PROXYSTAT LIKE '{pattern}'").rows), count, pattern)

    def test_texts(self) -> None:
        """What goes on otherwise is refused, and what begins otherwise is not this statement."""
        show = ShowStatistics(())
        self.assertEqual(show.parse("SHOW PROXYSTAT LIKE 'a'"), StatisticList("a"))
        for text in ("SHOW PROXYSTAT x", "SHOW PROXYSTAT LIKE", "SHOW PROXYSTAT LIKE 'a' 'b'", "SHOW PROXYSTATS"):
            self.assertRaises(SqlError, show.parse, text)
        self.assertIsNone(show.parse("SHOW PROXYSESSION"))

    def test_who_may(self) -> None:
        """Others than those who may see the proxy get 1227."""
        found = self.table.find("SHOW PROXYSTAT")
        if found is None:
            self.fail("not found")
        failure = self.failureResultOf(self.table.answer(found, ASKER, FakeDirectory(allows=False)), SqlError)
        self.assertEqual(failure.value.code, 1227)


class RegistryStatisticsTests(SynchronousTestCase):
    def test_sessions_and_kills(self) -> None:
        """The registry counts sessions now and in all, and kills by what became of them."""
        house = House()
        self.assertTrue(verifyObject(IStatistics, house.registry))
        client, _ = house.log_in()
        house.log_in()
        client.query(b"KILL QUERY 2")
        client.query(b"KILL 2")
        house.turn()
        client.query(b"KILL 99")
        found = {each.name: each.value for each in house.registry.statistics()}
        expected = {"client_sessions": 1, "client_sessions_total": 2, "server_sessions": 1}
        expected |= {"kills_ended": 1, "kills_unconfirmed": 0, "kills_idle": 1, "kills_itself": 0, "kills_marked": 0}
        names = ("refused", "idle_ended", "transactions_ended", "statements_stopped")
        expected |= {f"limits_{name}": 0 for name in names}
        self.assertEqual(found, expected)
