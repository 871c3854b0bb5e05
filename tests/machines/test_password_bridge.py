"""Passwords over two links, of which one can be read by others, against what MySQL's documentation says of servers."""

from __future__ import annotations

from itertools import product

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from odptwist.errors import SqlError, WireError
from odptwist.machines.effects import Answered, Ask
from odptwist.machines.password_bridge import PasswordBridge
from odptwist.password_keys import RsaKeys
from odptwist.wire.handshake import AuthNextFactor, AuthSwitchRequest
from odptwist.wire.sha2 import KEY_REQUESTS, sha2_answer, with_nonce
from tests.support.sha2_server import CACHING, CLEAR, OK, SHA256, Account, MySql8

SECRET = b"s3cret"
KEYS = RsaKeys()
PLUGINS = (CACHING, SHA256)
BOTH = (True, False)


class Driver:
    """A client as the documentation wants it, and as PyMySQL is."""

    def __init__(self, password: bytes, secure: bool) -> None:
        self.password = password
        self.secure = secure
        self.plugin = ""
        self.nonce = b""

    def answer(self, question: bytes) -> bytes | None:
        """Return the answer to a question, None if there is none to give."""
        if question[:1] in (b"\xfe", b"\x02"):
            plugin, _, data = question[1:].partition(b"\0")
            self.plugin, self.nonce = plugin.decode(), data
            if self.plugin == CLEAR:
                return self.password + b"\0"
            if self.plugin == CACHING:
                return sha2_answer(self.password, self.nonce) if self.password else b"\0"
            return self._whole()
        if question == b"\x01\x03":
            return None
        if question == b"\x01\x04":
            return self._whole()
        return KEYS.encrypt(question[1:], with_nonce(self.password + b"\0", self.nonce))

    def _whole(self) -> bytes:
        return self.password + b"\0" if self.secure or not self.password else KEY_REQUESTS[self.plugin]


class Login:
    """A driver, the proxy's part and a server.

    Attributes:
        to_server: all that the server got.
        to_client: all that the client got.
    """

    def __init__(self, plugin: str, client: bool, server: bool, typed: bytes = SECRET, **more: object) -> None:
        self.server = MySql8(Account("ada", ((plugin, SECRET),)), server, set(), **more)  # type: ignore[arg-type]
        self.driver = Driver(typed, client)
        self.bridge = PasswordBridge(lambda: KEYS)
        self.links = client, server
        self.to_server: list[bytes] = []
        self.to_client: list[bytes] = []

    def run(self) -> bool:
        """Say whether the server lets the client in."""
        packets = self.server.begin("odp_ask_again", False)
        while packets:
            packet = packets.pop(0)
            if packet == OK or self.server.refused:
                return packet == OK
            packets += self._carry(self.bridge.asked(packet, *self.links))
        raise AssertionError("everybody waits")

    def _carry(self, step: Ask | Answered) -> list[bytes]:
        if isinstance(step, Answered):
            self.to_server.append(step.payload)
            return self.server.receive(step.payload)
        self.to_client.append(step.payload)
        answer = self.driver.answer(step.payload)
        return self._carry(self.bridge.answered(answer)) if answer is not None else []


class PasswordBridgeTests(SynchronousTestCase):
    def test_every_pair_of_links(self) -> None:
        """The right password is let in, a wrong one is not, and none goes in clear over a link that is not secure."""
        for plugin, client, server, right in product(PLUGINS, BOTH, BOTH, BOTH):
            login = Login(plugin, client, server, SECRET if right else b"wrong")
            self.assertIs(login.run(), right, (plugin, client, server, right))
            clear = login.driver.password + b"\0"
            self.assertIs(clear in login.to_server, server, (plugin, client, server))
            keys = [each for each in login.to_client if each.startswith(b"\x01-----BEGIN PUBLIC KEY")]
            self.assertEqual(len(keys), 0 if client else 1)
            self.assertIs(keys == [b"\x01" + KEYS.public_key], server and not client)

    def test_fast_way(self) -> None:
        """A scramble passes as it is over any links, also after the server has taken the password whole."""
        for client, server in product(BOTH, BOTH):
            login = Login(CACHING, client, server)
            login.server.cached.add("ada")
            self.assertTrue(login.run())
            self.assertEqual([len(each) for each in login.to_server], [32])

    def test_empty_passwords(self) -> None:
        """There is nothing to encrypt of an empty password: the server says no to it itself."""
        for plugin, client, server in product(PLUGINS, BOTH, BOTH):
            login = Login(plugin, client, server, b"")
            self.assertFalse(login.run())
            self.assertEqual(login.to_server, [b"\0"])

    def test_server_without_a_key(self) -> None:
        """A server that gives no key refuses, and gets no password."""
        for plugin in PLUGINS:
            login = Login(plugin, True, False, has_key=False)
            self.assertFalse(login.run())
            self.assertEqual(login.to_server[-1], KEY_REQUESTS[plugin])

    def begun(self, plugin: str, client: bool, server: bool, rsa: bool = True) -> PasswordBridge:
        """Return a bridge of which the server has asked for the whole password."""
        bridge = PasswordBridge(lambda: KEYS if rsa else None)
        bridge.asked(AuthSwitchRequest(plugin, b"n" * 20 + b"\0").encode(), client, server)
        if plugin == CACHING:
            bridge.answered(b"x" * 32)
            bridge.asked(b"\x01\x04", client, server)
        return bridge

    def denied(self, bridge: PasswordBridge, answer: bytes) -> str:
        """Return why an answer is refused."""
        refusal = self.assertRaises(SqlError, bridge.answered, answer)
        self.assertEqual((refusal.code, refusal.sqlstate), (1045, "28000"))
        return str(refusal.message)

    def test_without_rsa(self) -> None:
        """Where links differ and there is nothing to encrypt with, the client is not asked."""
        for plugin, client in product(PLUGINS, BOTH):
            refusal = self.assertRaises(SqlError, self.begun, plugin, client, not client, False)
            self.assertIn("requires secure connections", refusal.message)
            self.begun(plugin, client, client, False)

    def test_clear_passwords_of_careless_clients(self) -> None:
        """A client that sends its password in clear without TLS (mysql-connector-python does) is refused."""
        for plugin, server in product(PLUGINS, BOTH):
            self.denied(self.begun(plugin, False, server), SECRET + b"\0")
            bridge = self.begun(plugin, False, server)
            bridge.answered(KEY_REQUESTS[plugin])
            if not server:
                bridge.asked(b"\x01" + KEYS.public_key, False, server)
            self.denied(bridge, SECRET + b"\0")

    def test_ciphertext_for_somebody_else(self) -> None:
        """A client that has the server's key already cannot be understood by the proxy, nor one with a wrong key."""
        encrypted = RsaKeys().encrypt(RsaKeys().public_key, b"x")
        for plugin in PLUGINS:
            self.assertIn(
                "public key that the proxy gives out", self.denied(self.begun(plugin, False, True), encrypted)
            )
            bridge = self.begun(plugin, False, True)
            bridge.answered(KEY_REQUESTS[plugin])
            self.assertIn("proxy's public key", self.denied(bridge, encrypted))
            self.assertEqual(self.begun(plugin, False, False).answered(encrypted), Answered(encrypted))

    def test_key_request_by_tls(self) -> None:
        """A client that asks for the key although its link is secure gets the server's, and encrypts by itself."""
        for plugin in PLUGINS:
            bridge = self.begun(plugin, True, False)
            self.assertEqual(bridge.answered(KEY_REQUESTS[plugin]), Answered(KEY_REQUESTS[plugin]))
            key = b"\x01" + KEYS.public_key
            self.assertEqual(bridge.asked(key, True, False), Ask(key))
            self.assertEqual(bridge.answered(b"c" * 256), Answered(b"c" * 256))

    def test_keys_that_are_none(self) -> None:
        """Where a key is due, a server may say many things; the password goes with none of them."""
        short = AuthSwitchRequest(CACHING, b"n" * 21).encode()
        for said, fault in (
            (b"\x01-----BEGIN PUBLIC KEY-----\n", SqlError),
            (b"\x01", SqlError),
            (b"\x01\x04", SqlError),
            (short, WireError),
        ):
            bridge = self.begun(CACHING, True, False)
            self.assertEqual(bridge.answered(SECRET + b"\0"), Answered(b"\x02"))
            self.assertRaises(fault, bridge.asked, said, True, False)
        bridge = self.begun(CACHING, True, False)
        bridge.answered(b"x" * 300 + b"\0")
        self.assertRaises(SqlError, bridge.asked, b"\x01" + KEYS.public_key, True, False)

    def test_question_that_overtakes_the_password(self) -> None:
        """A server that asks by another plugin, while the password is on its way, does not get that in clear."""
        native = AuthSwitchRequest("mysql_native_password", b"n" * 21).encode()
        for plugin, client, server in product(PLUGINS, BOTH, BOTH):
            self.assertRaises(WireError, self.begun(plugin, client, server).asked, native, client, server)
            bridge = self.begun(plugin, False, True)
            bridge.answered(KEY_REQUESTS[plugin])
            self.assertRaises(WireError, bridge.asked, native, False, True)

    def test_questions_that_clients_answer_all_the_same(self) -> None:
        """Whatever makes some client send its password counts as a question for it (PyMySQL is not strict)."""
        for plugin, question in (
            (CACHING, b"\x01\x04\0"),
            (CACHING, b"\x01\x04more"),
            (SHA256, b"\x01"),
            (SHA256, b"\x01more"),
        ):
            bridge = PasswordBridge(lambda: KEYS)
            bridge.asked(AuthSwitchRequest(plugin, b"n" * 21).encode(), True, False)
            bridge.answered(b"x" * 32 if plugin == CACHING else SECRET + b"\0")
            if plugin == SHA256:
                bridge.asked(b"\x01" + KEYS.public_key, True, False)
            self.assertEqual(bridge.asked(question, True, False), Ask(question))
            self.assertEqual(bridge.answered(SECRET + b"\0"), Answered(KEY_REQUESTS[plugin]))

    def test_methods_in_clear(self) -> None:
        """What is never encrypted needs two secure links, as a further factor too."""
        for plugin, client, server in product((CLEAR, "dialog"), BOTH, BOTH):
            for question in AuthSwitchRequest(plugin, b""), AuthNextFactor(plugin, b""):
                bridge = PasswordBridge(lambda: KEYS)
                if client and server:
                    self.assertEqual(bridge.asked(question.encode(), client, server), Ask(question.encode()))
                else:
                    self.assertRaises(SqlError, bridge.asked, question.encode(), client, server)

    def test_further_factor(self) -> None:
        """A scramble for a further factor is no password in clear, whatever the factor before was."""
        for client, server in product(BOTH, BOTH):
            bridge = self.begun(SHA256, client, server)
            bridge.answered(b"\0")
            question = AuthNextFactor("mysql_native_password", b"n" * 21).encode()
            self.assertEqual(bridge.factors, 1)
            self.assertEqual(bridge.asked(question, client, server), Ask(question))
            self.assertEqual(bridge.factors, 2)
            self.assertEqual(bridge.answered(b"y" * 20), Answered(b"y" * 20))

    @given(
        st.booleans(),
        st.booleans(),
        st.lists(
            st.one_of(
                st.binary(max_size=40),
                st.binary(max_size=3).map(b"\x01\x04".__add__),
                st.sampled_from(
                    [
                        AuthSwitchRequest(CACHING, b"n" * 21).encode(),
                        AuthSwitchRequest(SHA256, b"").encode(),
                        b"\x01\x04",
                        b"\x01" + KEYS.public_key,
                    ]
                ),
            ),
            max_size=8,
        ),
    )
    def test_any_questions(self, client: bool, server: bool, questions: list[bytes]) -> None:
        """Whatever a server asks, a password that came over a secure link never goes on in clear over another."""
        bridge = PasswordBridge(lambda: KEYS)
        password = b"a password" + b"\0"
        for question in questions:
            try:
                step = bridge.asked(question, client, server)
                plugin = bridge._guard.plugin
                if isinstance(step, Ask) and (plugin == SHA256 or question.startswith(b"\x01\x04")):
                    step = bridge.answered(password)
            except (SqlError, WireError):
                return
            if isinstance(step, Answered) and not server and bridge._guard.plugin in PLUGINS:
                self.assertNotEqual(step.payload, password)
