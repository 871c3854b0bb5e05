"""Tests of SHOW PROXYCLUSTER and SHOW PROXYCONGESTION."""

from __future__ import annotations

from time import localtime, strftime
from typing import cast

from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from odptwist.answers import Column, ColumnType, Table, Value
from odptwist.cluster.model import Cluster, Clusters, Server
from odptwist.errors import SqlError
from odptwist.interfaces import IProxyStatement
from odptwist.snapshots import Address, Asker, ReadPolicy, Role, ServerFinding
from odptwist.statements import server_statements
from odptwist.statements.servers import ClusterList, CongestionList, ShowClusters, ShowCongestion
from odptwist.statements.table import StatementTable
from tests.support.directory import ROOT, FakeDirectory

ASKER = Asker(7, ROOT)
ONE, TWO, SOCKET = Address("10.0.0.1", 2881), Address("::1", 2881), Address(path="/run/db.sock")
NUMBER, TEXT = ColumnType.LONGLONG, ColumnType.VARCHAR


class ServerStatementsTests(SynchronousTestCase):
    """Two clusters: the default one of two servers, and another one of one, which the alphabet would put first."""

    def setUp(self) -> None:
        """Make them."""
        self.clusters = Clusters(
            [
                Cluster("ob1", (Server(ONE), Server(TWO, Role.REPLICA, 3)), ("sys",), ReadPolicy.REPLICA_FIRST),
                Cluster("a_b", (Server(SOCKET),), ("sys",)),
            ]
        )
        self.table = StatementTable(server_statements(self.clusters))

    def ask(self, text: str) -> Table:
        """Return what the proxy answers."""
        found = self.table.find(text)
        if found is None:
            self.fail(f"not a statement of the proxy's: {text}")
        answer = self.successResultOf(self.table.answer(found, ASKER, FakeDirectory()))
        self.assertIsInstance(answer, Table)
        return cast(Table, answer)

    def column(self, name: str, table: Table) -> list[Value]:
        """Return one column of a table."""
        place = [column.name for column in table.columns].index(name)
        return [row[place] for row in table.rows]

    def test_they_provide_their_interface(self) -> None:
        """Both are proxy statements."""
        for statement in server_statements(self.clusters):
            self.assertTrue(verifyObject(IProxyStatement, statement))

    def test_clusters(self) -> None:
        """A row for each server, the default cluster's first; what is not known is empty."""
        self.clusters.found(TWO, ServerFinding(Role.REPLICA, "10.11-MariaDB", 1_234_567.0))
        for _ in range(3):
            self.clusters.failed(SOCKET, "gone")
        answer = self.ask("show proxycluster")
        self.assertEqual(
            answer.columns,
            (
                Column("cluster_name", TEXT),
                Column("is_default", NUMBER),
                Column("read_policy", TEXT),
                Column("server", TEXT),
                Column("role", TEXT),
                Column("weight", NUMBER),
                Column("state", TEXT),
                Column("lag", TEXT),
                Column("version", TEXT),
            ),
        )
        self.assertEqual(
            answer.rows,
            (
                ("ob1", 1, "replica_first", "10.0.0.1:2881", "unknown", 1, "up", "", ""),
                ("ob1", 1, "replica_first", "[::1]:2881", "replica", 3, "up", "1234567", "10.11-MariaDB"),
                ("a_b", 0, "primary", "unix:/run/db.sock", "unknown", 1, "down", "", ""),
            ),
        )

    def test_some_clusters(self) -> None:
        """LIKE is about the clusters' names, as in every proxy statement."""
        for pattern, names in (
            ("a%", ["a_b"]),
            ("A%", []),
            ("___", ["ob1", "ob1", "a_b"]),
            ("", ["ob1", "ob1", "a_b"]),
        ):
            found = self.column("cluster_name", self.ask(f"SHOW PROXYCLUSTER LIKE '{pattern}'"))
            self.assertEqual(found, names, pattern)

    def test_congestion(self) -> None:
        """Only servers that have failed since they were last found are shown, with ODP's names."""
        self.assertEqual(self.ask("SHOW PROXYCONGESTION").rows, ())
        self.clusters.failed(ONE, "refused")
        for _ in range(3):
            self.clusters.failed(SOCKET, "gone")
        times = [
            strftime("%Y-%m-%d %H:%M:%S", localtime(each.failed_at))
            for name in ("ob1", "a_b")
            for each in self.clusters.standings(name)
            if each.failures
        ]
        answer = self.ask("SHOW PROXYCONGESTION")
        self.assertEqual(
            answer.columns,
            (
                Column("cluster_name", TEXT),
                Column("zone_name", TEXT),
                Column("server_ip", TEXT),
                Column("server_state", TEXT),
                Column("role", TEXT),
                Column("alive_congested", NUMBER),
                Column("last_alive_congested", TEXT),
                Column("stat_conn_failures", NUMBER),
                Column("conn_last_fail_time", TEXT),
                Column("reason", TEXT),
            ),
        )
        self.assertEqual(
            answer.rows,
            (
                ("ob1", "", "10.0.0.1:2881", "ACTIVE", "unknown", 0, "0", 1, times[0], "refused"),
                ("a_b", "", "unix:/run/db.sock", "INACTIVE", "unknown", 1, times[1], 3, times[1], "gone"),
            ),
        )
        self.clusters.found(SOCKET, ServerFinding(Role.PRIMARY))
        self.assertEqual(self.column("cluster_name", self.ask("SHOW PROXYCONGESTION")), ["ob1"])

    def test_all_servers(self) -> None:
        """ALL shows those without failures, too, whose times are 0 if there never was one."""
        answer = self.ask("SHOW PROXYCONGESTION ALL")
        self.assertEqual(self.column("server_ip", answer), ["10.0.0.1:2881", "[::1]:2881", "unix:/run/db.sock"])
        self.assertEqual(self.column("conn_last_fail_time", answer), ["0", "0", "0"])
        for text in ("SHOW PROXYCONGESTION ALL 'a_b'", "SHOW PROXYCONGESTION ALL a_b"):
            self.assertEqual(self.column("cluster_name", self.ask(text)), ["a_b"])
        self.assertEqual(self.ask("SHOW PROXYCONGESTION ALL nowhere").rows, ())

    def test_what_is_understood(self) -> None:
        """Case, white space, comments, brackets and one semicolon do not matter, as in every proxy statement."""
        table = [
            ("SHOW PROXYCONGESTION", CongestionList(False, "")),
            ("show\n proxycongestion ALL ;", CongestionList(True, "")),
            ("SHOW PROXYCONGESTION (`ob1`) -- now", CongestionList(False, "ob1")),
            ("SHOW PROXYCONGESTION /* x */ ALL 'ob1'", CongestionList(True, "ob1")),
            ("SHOW PROXYCONGESTION 'ALL'", CongestionList(False, "ALL")),
            ("SHOW PROXYCLUSTER;", ClusterList("")),
            ('SHOW PROXYCLUSTER LIKE "o%"', ClusterList("o%")),
            ("SHOW PROXYCLUSTER like ob1", ClusterList("ob1")),
        ]
        for text, request in table:
            found = self.table.find(text)
            self.assertEqual(found and found.request, request, text)

    def test_what_is_refused(self) -> None:
        """A text that begins as one of them and goes on otherwise is 5010."""
        for text in (
            "SHOW PROXYCONGESTIONS",
            "SHOW PROXYCONGESTION 7",
            "SHOW PROXYCONGESTION ALL ALL ALL",
            "SHOW PROXYCONGESTION 'a' ALL",
            "SHOW PROXYCONGESTION LIKE 'a'",
            "SHOW PROXYCLUSTERS",
            "SHOW PROXYCLUSTER IDC",
            "SHOW PROXYCLUSTER LIKE",
            "SHOW PROXYCLUSTER LIKE 'a' 'b'",
            "SHOW PROXYCLUSTER 'a'",
        ):
            with self.assertRaises(SqlError, msg=text) as caught:
                self.table.find(text)
            self.assertEqual((caught.exception.code, caught.exception.sqlstate), (5010, "21000"))

    def test_texts_for_servers(self) -> None:
        """Other texts are nobody's business here."""
        for text in ("SHOW TABLES", "SHOW PROXY", "SHOW /* x */ PROXYCLUSTER", "SHOW PROXYCLUSTER; SELECT 1", "SHOW"):
            self.assertIsNone(self.table.find(text))
        for statement in (ShowClusters(self.clusters), ShowCongestion(self.clusters)):
            self.assertIsNone(statement.parse("SHOW PROXYSESSION"))

    def test_who_may(self) -> None:
        """Who may not see the whole proxy is refused as MySQL refuses what needs PROCESS."""
        for text in ("SHOW PROXYCONGESTION ALL", "SHOW PROXYCLUSTER"):
            found = self.table.find(text)
            if found is None:
                self.fail(text)
            answer = self.table.answer(found, ASKER, FakeDirectory(allows=False))
            error = self.failureResultOf(answer, SqlError).value
            self.assertEqual((error.code, error.sqlstate), (1227, "42000"))
            self.assertEqual(
                error.message,
                "Access denied; you need (at least one of) the PROCESS privilege(s) for this operation",
            )
