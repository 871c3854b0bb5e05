from __future__ import annotations

from itertools import product

from twisted.trial.unittest import SynchronousTestCase

from odptwist.errors import SqlError, WireError
from odptwist.machines.clear_text import QuestionGuard
from odptwist.wire.handshake import AuthSwitchRequest

FULL = b"\x01\x04"
FAST = b"\x01\x03"


class QuestionGuardTests(SynchronousTestCase):
    def passes(self, client: bool, server: bool, *questions: bytes) -> bool:
        """Say whether all questions of one login are passed on between links that are secure or not."""
        guard = QuestionGuard()
        try:
            for question in questions:
                guard.check(question, client, server)
        except SqlError as refusal:
            self.assertEqual((refusal.code, refusal.sqlstate), (1045, "28000"))
            return False
        return True

    def test_passwords_as_they_are(self) -> None:
        """What asks for the password itself passes only if both links are secure."""
        for plugin, client, server in product(("mysql_clear_password", "dialog"), (True, False), (True, False)):
            question = AuthSwitchRequest(plugin, b"Password: ").encode()
            self.assertEqual(self.passes(client, server, question), client and server)

    def test_passwords_that_may_be_encrypted(self) -> None:
        """What clients answer by their own link's state passes only if the links are alike."""
        sha2 = AuthSwitchRequest("caching_sha2_password", b"s" * 21).encode()
        sha256 = AuthSwitchRequest("sha256_password", b"s" * 21).encode()
        for client, server in product((True, False), (True, False)):
            alike = client is server
            self.assertEqual(self.passes(client, server, sha256), alike)
            self.assertEqual(self.passes(client, server, sha2, FULL), alike)
            self.assertEqual(self.passes(client, server, FULL), alike)
            self.assertTrue(self.passes(client, server, sha2, FAST))
            self.assertTrue(self.passes(client, server, sha2, b"\x01-----BEGIN PUBLIC KEY-----"))

    def test_scrambles(self) -> None:
        """What is answered with a scramble always passes, whatever data it has."""
        for plugin, client, server in product(
            ("mysql_native_password", "client_ed25519"), (True, False), (True, False)
        ):
            self.assertTrue(self.passes(client, server, AuthSwitchRequest(plugin, b"s" * 32).encode(), FULL))

    def test_text_names_the_link(self) -> None:
        """The refusal names the plugin, and the link that is not encrypted."""
        question = AuthSwitchRequest("dialog", b"").encode()
        for client, server, words in (
            (True, False, "the server's link is"),
            (False, True, "the client's link is"),
            (False, False, "both links are"),
        ):
            refusal = self.assertRaises(SqlError, QuestionGuard().check, question, client, server)
            self.assertIn("'dialog'", refusal.message)
            self.assertIn(words, refusal.message)

    def test_dialog(self) -> None:
        """Further questions of a dialog belong to it, whatever their kind reads like."""
        guard = QuestionGuard()
        guard.check(AuthSwitchRequest("dialog", b"\x04Password: ").encode(), True, True)
        for question in (b"\x02Name: ", b"\x05Last: "):
            guard.check(question, True, True)
            self.assertRaises(SqlError, guard.check, question, False, True)
        self.assertEqual((guard.plugin, guard.factors), ("dialog", 1))

    def test_unreadable_question(self) -> None:
        """A switch without a whole name is the server's fault."""
        self.assertRaises(WireError, QuestionGuard().check, b"\xfeabc", True, True)
