"""Logins of the proxy's own accounts, against what MySQL's documentation says of servers."""

from __future__ import annotations

from itertools import product

from twisted.trial.unittest import SynchronousTestCase

from odptwist.errors import LoginMethodUnknown, WireError
from odptwist.machines.own_answers import OwnAnswers
from odptwist.machines.password_bridge import FindKeys
from odptwist.password_keys import RsaKeys
from odptwist.wire.handshake import AuthNextFactor, AuthSwitchRequest
from odptwist.wire.scramble import native_password, password_sha1
from tests.support.sha2_server import CACHING, CLEAR, OK, SHA256, Account, MySql8

SECRET = b"s3cret"
KEYS = RsaKeys()
NONCE = b"n" * 20
BOTH = (True, False)


def answers(password: bytes | None = SECRET, find_keys: FindKeys = lambda: KEYS) -> OwnAnswers:
    """Return the answers of an account; None: only SHA1 of its password is known."""
    return OwnAnswers(password_sha1(SECRET) if password is None or password else b"", password, find_keys)


class OwnAnswersTests(SynchronousTestCase):
    def log_in(self, server: MySql8, own: OwnAnswers) -> bool:
        """Say whether a server lets the account in."""
        packets = server.begin("mysql_native_password", False)
        while packets:
            packet = packets.pop(0)
            if packet == OK or server.refused:
                return packet == OK
            answer = own.answer(packet, server.secure)
            packets += [] if answer is None else server.receive(answer)
        raise AssertionError("everybody waits")

    def test_logins(self) -> None:
        """Each method works over each link, fast where the server knows the password, and only with the right one."""
        for plugin, secure, cached, right in product((CACHING, SHA256), BOTH, BOTH, BOTH):
            server = MySql8(Account("odp", ((plugin, SECRET),)), secure, {"odp"} if cached else set())
            own = answers(SECRET if right else b"wrong")
            self.assertIs(self.log_in(server, own), right, (plugin, secure, cached, right))

    def test_no_password(self) -> None:
        """An account without a password says so."""
        server = MySql8(Account("odp", ((CACHING, b""),)), False, set())
        self.assertTrue(self.log_in(server, answers(b"")))
        self.assertEqual(answers(b"").answer(AuthSwitchRequest("mysql_native_password", NONCE).encode(), False), b"")

    def test_native(self) -> None:
        """mysql_native_password needs SHA1 of the password only."""
        question = AuthSwitchRequest("mysql_native_password", NONCE + b"\0").encode()
        for own in (answers(), answers(None)):
            self.assertEqual(own.answer(question, False), native_password(SECRET, NONCE))

    def refusal(self, own: OwnAnswers, *questions: bytes, secure: bool = False) -> str:
        """Return why the last of some questions has no answer."""
        for question in questions[:-1]:
            own.answer(question, secure)
        return str(self.assertRaises(LoginMethodUnknown, own.answer, questions[-1], secure))

    def test_other_methods(self) -> None:
        """A method that is not known is named, beside those that are; no server gets a password by asking for it."""
        for plugin, secure in product((CLEAR, "dialog", "client_ed25519"), BOTH):
            question = AuthSwitchRequest(plugin, b"").encode()
            self.assertEqual(
                self.refusal(answers(), question, secure=secure),
                f"the account needs {plugin}; the proxy can log in by mysql_native_password, caching_sha2_password, "
                "sha256_password only",
            )
        for plugin in (CACHING, SHA256):
            question = AuthSwitchRequest(plugin, NONCE).encode()
            self.assertIn("by mysql_native_password only", self.refusal(answers(None), question))
        factor = AuthNextFactor(CACHING, NONCE).encode()
        self.assertIn("needs a further factor", self.refusal(answers(), factor))

    def test_without_rsa(self) -> None:
        """Where a password has to be encrypted and cannot be, the operator is told what is missing."""
        sha2 = AuthSwitchRequest(CACHING, NONCE).encode()
        own = answers(find_keys=lambda: None)
        self.assertIn("takes TLS with the server or the extra 'tls'", self.refusal(own, sha2, b"\x01\x04"))
        self.assertEqual(
            answers(find_keys=lambda: None).answer(AuthSwitchRequest(SHA256, NONCE).encode(), True), SECRET + b"\0"
        )

    def test_keys_that_are_none(self) -> None:
        """What comes in the place of a key gets no password."""
        sha2 = AuthSwitchRequest(CACHING, NONCE).encode()
        self.assertIn("cannot be encrypted", self.refusal(answers(), sha2, b"\x01\x04", b"\x01rubbish"))
        own = answers()
        own.answer(sha2, False)
        own.answer(b"\x01\x04", False)
        self.assertRaises(WireError, own.answer, sha2, False)
        self.refusal(answers(), sha2, b"\x01unknown")
