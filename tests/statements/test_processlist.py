"""SHOW PROCESSLIST, of the proxy and of the server."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from odptwist.answers import Table
from odptwist.errors import SqlError
from odptwist.interfaces import IProxyStatement, ITabular
from odptwist.snapshots import Asker
from odptwist.statements import processlist_statement
from odptwist.statements.processlist import ServerProcesses, ShowProxyProcesses, ShowServerProcesses
from tests.support.directory import ROOT, FakeDirectory, make_client_session

ASKER = Asker(7, ROOT)


class ProxyProcessesTests(SynchronousTestCase):
    """With ids of version 1."""

    def test_interfaces(self) -> None:
        """It is a proxy statement that knows its columns."""
        verifyObject(IProxyStatement, ShowProxyProcesses())
        verifyObject(ITabular, ShowProxyProcesses())
        self.assertIsInstance(processlist_statement(False), ShowProxyProcesses)

    def test_texts(self) -> None:
        """SHOW PROCESSLIST is the proxy's, with anything behind it an error; SHOW FULL PROCESSLIST is the server's."""
        statement = ShowProxyProcesses()
        for text in ("SHOW PROCESSLIST", "show\nprocesslist;", "SHOW PROCESSLIST -- x"):
            self.assertIsNotNone(statement.parse(text), text)
        for text in ("SHOW FULL PROCESSLIST", "SHOW /* x */ PROCESSLIST", "SHOW TABLES"):
            self.assertIsNone(statement.parse(text), text)
        for text in ("SHOW PROCESSLIST WHERE Id = 1", "SHOW PROCESSLIST LIKE 'a'"):
            self.assertEqual(self.assertRaises(SqlError, statement.parse, text).code, 5010)

    def test_rows(self) -> None:
        """There are ODP's ten columns, and a row for each session that the asker may see."""
        statement = ShowProxyProcesses()
        directory = FakeDirectory((make_client_session(7), make_client_session(9, database="shop")))
        table = self.successResultOf(statement.answer(statement.parse("SHOW PROCESSLIST"), ASKER, directory))
        assert isinstance(table, Table)
        self.assertEqual(
            [column.name for column in table.columns],
            ["Id", "Tenant", "User", "Host", "db", "trans_count", "svr_session_count", "state", "tid", "pid"],
        )
        self.assertEqual(
            [(row[0], row[1], row[2], row[4]) for row in table.rows],
            [(7, "sys", "root", "NULL"), (9, "sys", "root", "shop")],
        )
        self.assertEqual(statement.columns(None), table.columns)


class ServerProcessesTests(SynchronousTestCase):
    """With ids of version 2."""

    def test_interfaces(self) -> None:
        """It is a proxy statement."""
        verifyObject(IProxyStatement, ShowServerProcesses())
        self.assertIsInstance(processlist_statement(True), ShowServerProcesses)

    def test_texts(self) -> None:
        """Both lists are recognised however they are spelled; what a server alone understands goes there."""
        statement = ShowServerProcesses()
        for text, full in (
            ("SHOW PROCESSLIST", False),
            ("show /* x */ processlist;", False),
            ("SHOW FULL -- x\nPROCESSLIST", True),
        ):
            self.assertEqual(statement.parse(text), ServerProcesses(full), text)
        for text in ("SHOW PROCESSLIST LIKE 'a'", "SHOW FULL TABLES", "SHOW FULL", "SELECT 1"):
            self.assertIsNone(statement.parse(text), text)

    def test_answer(self) -> None:
        """The directory answers."""
        statement = ShowServerProcesses()
        for text, told in (("SHOW PROCESSLIST", 0), ("SHOW FULL PROCESSLIST", 1)):
            table = self.successResultOf(statement.answer(statement.parse(text), ASKER, FakeDirectory()))
            assert isinstance(table, Table)
            self.assertEqual(table.rows, ((told,),))
