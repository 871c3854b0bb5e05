"""Tests of what sessions without a server answer to drivers and programs."""

from __future__ import annotations

from typing import cast

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from odptwist.answers import Done, Table, Value
from odptwist.errors import SqlError
from odptwist.identity import Identity
from odptwist.interfaces import IProxyStatement
from odptwist.snapshots import Asker
from odptwist.statements.courtesies import AnswerOk, AnswerProbes
from tests.support.directory import FakeDirectory

ASKER = Asker(7, Identity("root", "proxysys", "ob1"))


class CourtesiesTests(SynchronousTestCase):
    def probe(self, text: str) -> dict[str, Value]:
        """Return the one row that a SELECT gets, by the names of its columns."""
        statement = AnswerProbes()
        request = statement.parse(text)
        table = cast(Table, self.successResultOf(statement.answer(request, ASKER, FakeDirectory())))
        [row] = table.rows
        return dict(zip([column.name for column in table.columns], row, strict=True))

    def test_they_provide_their_interface(self) -> None:
        """Both are proxy statements."""
        for statement in AnswerOk(), AnswerProbes():
            self.assertTrue(verifyObject(IProxyStatement, statement))

    def test_ok(self) -> None:
        """What sets something up is answered with an OK that says nothing."""
        statement = AnswerOk()
        request = statement.parse("SET NAMES utf8mb4")
        self.assertEqual(self.successResultOf(statement.answer(request, ASKER, FakeDirectory())), Done())

    def test_what_programs_ask(self) -> None:
        """The probes of the mariadb program, PyMySQL, mysqlclient and Connector/J are answered."""
        self.assertIn("@@version_comment", self.probe("select @@version_comment limit 1"))
        self.assertEqual(
            self.probe("select DATABASE(), USER() limit 1"), {"DATABASE()": None, "USER()": "root@proxysys"}
        )
        self.assertEqual(self.probe("SELECT 1"), {"1": 1})
        self.assertEqual(self.probe("SELECT 'x' AS a,  2 b from dual ;"), {"a": "x", "b": 2})
        self.assertEqual(self.probe("SELECT CONNECTION_ID()"), {"CONNECTION_ID()": 7})
        mode = {"aii": 1, "@@sql_mode": ""}
        self.assertEqual(self.probe("SELECT @@session.auto_increment_increment AS aii, @@sql_mode"), mode)
        self.assertRegex(str(self.probe("SELECT VERSION()")["VERSION()"]), r"^5\.7\.25-odptwist-")

    def test_what_they_must_not_ask(self) -> None:
        """Anything with a table, an operator or an unknown name is error 5010."""
        for text in (
            "SELECT",
            "SELECT *",
            "SELECT * FROM t",
            "SELECT 1 FROM t",
            "SELECT 1 + 1",
            "SELECT 1,",
            "SELECT SLEEP(60)",
            "SELECT f()",
            "SELECT @@secret",
            "SELECT @a",
            "SELECT 1 LIMIT",
            "SELECT 'a\\'b'",
            "SELECT 1 UNION SELECT 2",
        ):
            with self.assertRaises(SqlError) as caught:
                AnswerProbes().parse(text)
            self.assertEqual(caught.exception.code, 5010, text)

    @given(st.text(alphabet="sel'1,@ab() \tfromlimit;.", max_size=60))
    def test_any_text(self, text: str) -> None:
        """Whatever follows SELECT is read or refused."""
        try:
            self.assertTrue(AnswerProbes().parse("SELECT " + text))
        except SqlError as refusal:
            self.assertEqual(refusal.code, 5010)
