"""Tests of the table of proxy statements."""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

from twisted.internet.defer import Deferred, fail, succeed
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer
from zope.interface.verify import verifyObject

from odptwist.answers import Answer, Column, ColumnType, Done, Table
from odptwist.errors import SqlError
from odptwist.interfaces import (
    FoundStatement,
    IProxyStatement,
    ISessionDirectory,
    IStatements,
)
from odptwist.snapshots import Asker
from odptwist.statements import builtin_statements
from odptwist.statements.pace import AT_ONCE, Pace
from odptwist.statements.table import StatementTable
from tests.support.directory import ROOT, FakeDirectory, make_client_session

ASKER = Asker(7, ROOT)
NAMES = (Column("name", ColumnType.VARCHAR),)


@implementer(IProxyStatement)
class Stranger:
    """A statement of a plugin: what it does is given."""

    def __init__(
        self,
        parse: Callable[[str], object | None],
        answer: Callable[[], object] = Done,
        first_words: tuple[str, ...] = ("PING",),
    ) -> None:
        self.name = "stranger"
        self.first_words = first_words
        self.texts: list[str] = []
        self._parse = parse
        self._answer = answer

    def parse(self, text: str) -> object | None:
        """Do what was given."""
        self.texts.append(text)
        return self._parse(text)

    def answer(self, request: object, asker: Asker, directory: ISessionDirectory) -> Deferred[Answer]:
        """Do what was given."""
        return cast("Deferred[Answer]", self._answer())


def accept(text: str) -> object:
    """Claim every text."""
    return text


def refuse(text: str) -> None:
    """Claim no text."""


def stumble(text: str) -> object:
    """Break."""
    raise ZeroDivisionError


class FindTests(SynchronousTestCase):
    def test_everything_provides_its_interface(self) -> None:
        """The table and every built-in statement provide what they claim."""
        self.assertTrue(verifyObject(IStatements, StatementTable(())))
        self.assertTrue(verifyObject(ISessionDirectory, FakeDirectory()))
        self.assertTrue(verifyObject(IProxyStatement, Stranger(accept)))
        for statement in builtin_statements():
            self.assertTrue(verifyObject(IProxyStatement, statement))

    def test_first_words_are_those_of_all_statements(self) -> None:
        """The table names every word that a statement may begin with."""
        table = StatementTable((*builtin_statements(), Stranger(accept)))
        self.assertEqual(table.first_words, {"SHOW", "KILL", "PING"})
        self.assertEqual(StatementTable(()).first_words, frozenset())

    def test_a_statement_sees_its_texts_without_comments_before(self) -> None:
        """A statement gets the texts with its first word, in any case, from that word on."""
        stranger = Stranger(accept)
        found = StatementTable((stranger,)).find(" /* a */ -- b\n ping proxy -- c")
        self.assertEqual(found, FoundStatement("stranger", stranger, "ping proxy -- c"))

    def test_a_statement_never_sees_other_texts(self) -> None:
        """Texts that begin otherwise, and texts of several statements, are not shown."""
        stranger = Stranger(accept)
        table = StatementTable((stranger,))
        for text in ("SELECT 1", "PINGS", "/*! PING */", "(PING)", "PING; SELECT 1", "; PING", ""):
            self.assertIsNone(table.find(text), text)
        self.assertEqual(stranger.texts, [])

    def test_the_first_statement_that_claims_a_text_wins(self) -> None:
        """Statements are asked in order until one knows the text."""
        first, second, third = Stranger(refuse), Stranger(accept), Stranger(accept)
        found = StatementTable((first, second, third)).find("PING")
        self.assertIsNotNone(found)
        self.assertIs(cast(FoundStatement, found).statement, second)
        self.assertEqual((first.texts, third.texts), (["PING"], []))

    def test_a_plugin_before_the_built_in_statements_extends_them(self) -> None:
        """A plugin may answer what the built-in statements refuse."""
        stranger = Stranger(lambda text: text if "STAT" in text else None, first_words=("SHOW", "KILL"))
        table = StatementTable((stranger, *builtin_statements()))
        found = table.find("SHOW PROXYSESSION STAT")
        self.assertEqual(found, FoundStatement("stranger", stranger, "SHOW PROXYSESSION STAT"))
        self.assertEqual(cast(FoundStatement, table.find("KILL 7")).name, "kill")

    def test_a_text_that_nobody_claims_is_the_servers(self) -> None:
        """None means that the text goes on."""
        self.assertIsNone(StatementTable((Stranger(refuse),)).find("PING"))

    def test_a_falsy_request_is_a_request(self) -> None:
        """Only None says that a text is not the statement."""
        self.assertIsNotNone(StatementTable((Stranger(lambda text: 0),)).find("PING"))

    def test_a_refusal_passes_through(self) -> None:
        """A SqlError of a statement refuses the text, whoever else might claim it."""
        refusal = SqlError(1210, "HY000", "no")

        def parse(text: str) -> object:
            raise refusal

        later = Stranger(accept)
        error = self.assertRaises(SqlError, StatementTable((Stranger(parse), later)).find, "PING")
        self.assertIs(error, refusal)
        self.assertEqual(later.texts, [])

    def test_a_broken_statement_is_logged_and_skipped(self) -> None:
        """Any other exception is logged, and the next statement is asked."""
        later = Stranger(accept)
        found = StatementTable((Stranger(stumble), later)).find("PING")
        self.assertIs(cast(FoundStatement, found).statement, later)
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)

    def test_a_hidden_kill_is_refused_before_anybody_is_asked(self) -> None:
        """No statement gets to see a text that hides a KILL."""
        stranger = Stranger(accept, first_words=("SELECT",))
        error = self.assertRaises(SqlError, StatementTable((stranger,)).find, "SELECT 1; KILL 5")
        self.assertEqual(error.code, 1235)
        self.assertEqual(stranger.texts, [])


class AnswerTests(SynchronousTestCase):
    def answer(self, what: Callable[[], object]) -> Deferred[Answer]:
        """Return the answer of a statement that does this."""
        stranger = Stranger(accept, what)
        table = StatementTable((stranger,))
        return table.answer(FoundStatement("stranger", stranger, "PING"), ASKER, FakeDirectory())

    def assert_refused(self, what: Callable[[], object], logged: type[Exception]) -> None:
        """Check that the client gets error 1105 and the log the reason."""
        error = self.failureResultOf(self.answer(what), SqlError).value
        self.assertEqual(
            (error.code, error.sqlstate, error.message),
            (1105, "HY000", "the proxy statement failed; the proxy's log says why"),
        )
        self.assertEqual(len(self.flushLoggedErrors(logged)), 1)

    def test_an_answer_passes_through(self) -> None:
        """Tables and Done arrive as they were given."""
        table = Table(NAMES, (("a",), (1,), (None,)))
        self.assertIs(self.successResultOf(self.answer(lambda: succeed(table))), table)
        done = Done(1, "careful")
        self.assertIs(self.successResultOf(self.answer(lambda: succeed(done))), done)

    def test_others_have_their_turn_amid_a_long_answer(self) -> None:
        """Its values are checked in parts; a value that is none of the kinds is found in the last of them, too."""
        waiting: list[Deferred[None]] = []

        def turn() -> Deferred[None]:
            waiting.append(Deferred())
            return waiting[-1]

        rows: list[tuple[object, ...]] = [("a",)] * 1200
        for last, logged in ((("b",), 0), ((b"b",), 1)):
            stranger = Stranger(accept, lambda last=last: succeed(Table(NAMES, (*rows, last))))  # type: ignore[misc]
            table = StatementTable((stranger,), Pace(turn, AT_ONCE.aside))
            answer = table.answer(FoundStatement("stranger", stranger, "PING"), ASKER, FakeDirectory())
            for _ in range(2):
                self.assertNoResult(answer)
                waiting.pop().callback(None)
            if logged:
                self.failureResultOf(answer, SqlError)
            else:
                self.successResultOf(answer)
            self.assertEqual(len(self.flushLoggedErrors(TypeError)), logged)

    def test_a_late_answer_passes_through(self) -> None:
        """The answer may take its time."""
        late: Deferred[Answer] = Deferred()
        answer = self.answer(lambda: late)
        self.assertNoResult(answer)
        late.callback(Done())
        self.assertEqual(self.successResultOf(answer), Done())

    def test_a_refusal_passes_through(self) -> None:
        """A SqlError, raised or fired, is the client's, and nothing is logged."""
        refusal = SqlError(1094, "HY000", "Unknown thread id: 5")

        def refuse() -> object:
            raise refusal

        self.assertIs(self.failureResultOf(self.answer(refuse), SqlError).value, refusal)
        self.assertIs(self.failureResultOf(self.answer(lambda: fail(refusal)), SqlError).value, refusal)
        self.assertEqual(self.flushLoggedErrors(), [])

    def test_a_broken_statement_becomes_an_error(self) -> None:
        """Any other failure is logged, and the client is told so."""
        self.assert_refused(lambda: stumble(""), ZeroDivisionError)
        self.assert_refused(lambda: fail(KeyError("x")), KeyError)

    def test_a_wrong_answer_becomes_an_error(self) -> None:
        """What is no answer never reaches a session: wrong types, wrong rows, wrong values."""
        for wrong in (None, 7, "OK", (), Table(NAMES, (("a", "b"),)), Table(NAMES, ((),)), Table(NAMES, ((1.5,),))):  # type: ignore[arg-type]
            self.assert_refused(lambda wrong=wrong: succeed(wrong), TypeError)  # type: ignore[misc]
        self.assert_refused(lambda: Table(NAMES, ((b"a",),)), TypeError)  # type: ignore[arg-type]

    def test_a_cancelled_answer_is_no_fault(self) -> None:
        """Who leaves while waiting causes no error in the log, and the statement is cancelled, too."""
        waiting: Deferred[Answer] = Deferred()
        answer = self.answer(lambda: waiting)
        answer.cancel()
        self.failureResultOf(answer, SqlError)
        self.assertTrue(waiting.called)
        self.assertEqual(self.flushLoggedErrors(), [])

    def test_builtin_statements_answer_through_the_table(self) -> None:
        """From text to answer: the list has the asker's row."""
        table = StatementTable(builtin_statements())
        found = table.find("SHOW PROXYSESSION")
        self.assertIsNotNone(found)
        directory = FakeDirectory((make_client_session(7),))
        answer = self.successResultOf(table.answer(cast(FoundStatement, found), ASKER, directory))
        self.assertEqual(cast(Table, answer).rows[0][1], 7)
