"""Tests of KILL."""

from __future__ import annotations

from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from odptwist.answers import Answer, Done
from odptwist.errors import SqlError, not_owner, unknown_thread
from odptwist.interfaces import IProxyStatement
from odptwist.snapshots import Asker, KillOutcome, KillScope, KillTarget
from odptwist.statements.kill import Kill
from tests.support.directory import ROOT, FakeDirectory
from tests.support.directory import Kill as AskedKill

ASKER = Asker(3, ROOT)


class KillTests(SynchronousTestCase):
    def kill(self, text: str, directory: FakeDirectory) -> Deferred[Answer]:
        """Return the answer to a text."""
        statement = Kill()
        request = statement.parse(text)
        self.assertIsNotNone(request)
        return statement.answer(request, ASKER, directory)

    def test_it_provides_its_interface(self) -> None:
        """Kill is a proxy statement."""
        self.assertTrue(verifyObject(IProxyStatement, Kill()))

    def test_it_claims_nothing_but_kill(self) -> None:
        """A text that begins otherwise is not its own."""
        for text in ("", "SELECT 1", "KILLER 7", "SHOW PROXYSESSION"):
            self.assertIsNone(Kill().parse(text), text)

    def test_every_form_asks_for_the_right_kill(self) -> None:
        """The directory is asked once, for what the text names, in the asker's name."""
        table = [
            ("KILL PROXYSESSION 7", KillTarget(7), KillScope.CONNECTION),
            ("KILL 7", KillTarget(7), KillScope.CONNECTION),
            ("KILL CONNECTION '7'", KillTarget(7), KillScope.CONNECTION),
            ("KILL QUERY 7", KillTarget(7), KillScope.QUERY),
            ("KILL PROXYSESSION 7 16", KillTarget(7, 16), KillScope.CONNECTION),
            ("KILL PROXYSESSION -1", KillTarget(-1), KillScope.CONNECTION),
            ("KILL 99999999999999999", KillTarget(99999999999999999), KillScope.CONNECTION),
            ("KILL CONNECTION_ID()", KillTarget(None), KillScope.CONNECTION),
            ("KILL QUERY CONNECTION_ID()", KillTarget(None), KillScope.QUERY),
            ("KILL PROXYSESSION CONNECTION_ID() 5", KillTarget(None, 5), KillScope.CONNECTION),
        ]
        for text, target, scope in table:
            directory = FakeDirectory()
            self.assertEqual(self.successResultOf(self.kill(text, directory)), Done(), text)
            self.assertEqual(directory.kills, [AskedKill(target, scope, ASKER, "")], text)

    def test_a_kill_of_oneself_is_an_error(self) -> None:
        """Who ends itself is told 1317, in the server's words."""
        directory = FakeDirectory(outcome=KillOutcome.ITSELF)
        error = self.failureResultOf(self.kill("KILL 3", directory), SqlError).value
        self.assertEqual(
            (error.code, error.sqlstate, error.message), (1317, "70100", "Query execution was interrupted")
        )

    def test_an_idle_target_of_kill_query_is_fine(self) -> None:
        """KILL QUERY of a session without a statement answers OK."""
        directory = FakeDirectory(outcome=KillOutcome.IDLE)
        self.assertEqual(self.successResultOf(self.kill("KILL QUERY 7", directory)), Done())

    def test_an_unconfirmed_kill_is_a_warning(self) -> None:
        """Where the server did not confirm, OK carries a warning that says so."""
        directory = FakeDirectory(outcome=KillOutcome.UNCONFIRMED, detail="10.0.0.1:2881 did not answer")
        answer = self.successResultOf(self.kill("KILL 7", directory))
        self.assertEqual(answer, Done(warnings=1, message="10.0.0.1:2881 did not answer"))

    def test_the_directorys_refusal_is_the_answer(self) -> None:
        """1094 and 1095 pass through."""
        for refusal in (unknown_thread(-1), not_owner(7)):
            error = self.failureResultOf(self.kill("KILL 7", FakeDirectory(error=refusal)), SqlError).value
            self.assertIs(error, refusal)
