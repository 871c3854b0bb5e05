"""Logins through the proxy, packet by packet."""

from __future__ import annotations

from attrs import evolve
from twisted.logger import LogLevel
from twisted.trial.unittest import SynchronousTestCase

from odptwist.config_spellings import make_verifier
from odptwist.errors import CloseReason
from odptwist.machines.server_login import ASK_AGAIN_PLUGIN, FALLBACK
from odptwist.sessions.history import History
from odptwist.sessions.verifiers import ConfiguredVerifiers
from odptwist.settings import AccountSettings
from odptwist.snapshots import HeaderVersion
from odptwist.wire import constants as c
from odptwist.wire.framing import frame
from odptwist.wire.handshake import AuthNextFactor, AuthSwitchRequest, parse_greeting, parse_handshake_response
from odptwist.wire.responses import parse_err
from odptwist.wire.scramble import native_password
from tests.support.house import CAPABILITIES, House, response
from tests.support.logs import watch_log


class LoginTests(SynchronousTestCase):
    def setUp(self) -> None:
        """Make a proxy with one server."""
        self.house = House()

    def test_greeting_carries_the_id_and_the_servers_capabilities(self) -> None:
        """A client is greeted with its cs_id and with what its servers can do, TLS and compression left out."""
        self.house.hear(CAPABILITIES | c.CLIENT_SSL | c.CLIENT_COMPRESS | c.CLIENT_DEPRECATE_EOF)
        for number in (1, 2, 3):
            (payload,) = self.house.connect().payloads()
            greeting = parse_greeting(payload)
            self.assertEqual(greeting.thread_id, number)
            self.assertEqual(greeting.capabilities, CAPABILITIES | c.CLIENT_DEPRECATE_EOF)

    def test_empty_password_is_not_asked_for(self) -> None:
        """An account without a password logs in with one round trip, and its own connection id is the server's."""
        client = self.house.connect()
        client.packets()
        client.send(response("root@sys#odp", database="shop"))
        server = self.house.accept()
        server.greet()
        (payload,) = server.payloads()
        sent = parse_handshake_response(payload)
        self.assertEqual(
            (sent.user, sent.auth_response, sent.database, sent.plugin), ("root", b"", "shop", "mysql_native_password")
        )
        server.accept()
        (packet,) = client.packets()
        self.assertEqual((packet.sequence, packet.payload[0]), (2, 0))
        session = client.wire.protocol
        self.assertEqual(session.snapshot().bound.server_sessid, server.thread_id)
        self.assertEqual(session.proxy_sessid, 10 << 56 | 7 << 32 | 2883 << 16 | 1)
        self.assertTrue(session.repeatable)

    def test_password_is_asked_for_with_the_servers_salt(self) -> None:
        """The server is made to ask again, and its question and the client's answer go through as they are."""
        client = self.house.connect()
        client.packets()
        client.send(response(auth_response=b"x" * 20))
        server = self.house.accept()
        server.greet()
        (payload,) = server.payloads()
        self.assertEqual(parse_handshake_response(payload).plugin, ASK_AGAIN_PLUGIN)
        question = AuthSwitchRequest("client_ed25519", b"s" * 32).encode()
        server.send(frame(question, 2))
        (packet,) = client.packets()
        self.assertEqual((packet.sequence, packet.payload), (2, question))
        client.send(frame(b"the answer", 3))
        (packet,) = server.packets()
        self.assertEqual((packet.sequence, packet.payload), (3, b"the answer"))
        server.accept(4)
        (packet,) = client.packets()
        self.assertEqual((packet.sequence, packet.payload[0]), (4, 0))
        self.assertFalse(client.wire.protocol.repeatable)

    def test_further_factor(self) -> None:
        """A server that asks for a further proof is answered by the client, even where the proxy knew the first."""
        for known in (False, True):
            self.house = House()
            if known:
                self.house.use(
                    verifiers=ConfiguredVerifiers([AccountSettings("root", None, None, make_verifier("secret"))])
                )
            self.house.hear(CAPABILITIES | c.MULTI_FACTOR_AUTHENTICATION)
            client = self.house.connect()
            salt = parse_greeting(client.payloads()[0]).salt
            login = parse_handshake_response(response(auth_response=native_password(b"secret", salt))[4:])
            login = evolve(login, capabilities=login.capabilities | c.MULTI_FACTOR_AUTHENTICATION)
            client.send(frame(login.encode(), 1))
            server = self.house.accept()
            server.greet(CAPABILITIES | c.MULTI_FACTOR_AUTHENTICATION)
            (payload,) = server.payloads()
            self.assertTrue(parse_handshake_response(payload).capabilities & c.MULTI_FACTOR_AUTHENTICATION)
            question = AuthNextFactor("some_plugin", b"data").encode()
            server.send(frame(question, 2))
            (packet,) = client.packets()
            self.assertEqual((packet.sequence, packet.payload), (2, question))
            client.send(frame(b"the answer", 3))
            self.assertEqual(server.payloads(), [b"the answer"])
            server.send(frame(b"\x01more", 4))
            self.assertEqual(client.payloads(), [b"\x01more"])
            client.send(frame(b"another", 5))
            server.accept(6)
            self.assertEqual(client.payloads()[0][0], 0)
            self.assertFalse(client.wire.protocol.repeatable)

    def test_account_of_the_settings_with_another_method(self) -> None:
        """Where the settings know a verifier that the server's account does not go by, the error names its method."""
        self.house.use(verifiers=ConfiguredVerifiers([AccountSettings("root", None, None, make_verifier("secret"))]))
        client = self.house.connect()
        salt = parse_greeting(client.payloads()[0]).salt
        client.send(response(auth_response=native_password(b"secret", salt)))
        server = self.house.accept()
        server.greet()
        server.send(frame(AuthSwitchRequest("client_ed25519", b"s" * 32).encode(), 2))
        code, text = client.error()
        self.assertEqual(code, 1429)
        self.assertIn("needs client_ed25519", text)
        self.assertEqual(self.failures(), [0])

    def test_refusal_is_relayed_and_final(self) -> None:
        """The server's ERR reaches the client, which is then cut; nothing it sends afterwards is heard."""
        client = self.house.connect()
        client.packets()
        client.send(response())
        server = self.house.accept()
        server.greet()
        server.err(1045, "Access denied for user 'root'@'localhost' (using password: NO)", 2)
        code, text = client.error()
        self.assertEqual((code, text), (1045, "Access denied for user 'root'@'localhost' (using password: NO)"))
        client.send(frame(b"\x03SELECT 1", 0))
        self.house.turn()
        self.assertEqual((client.wire.ended, server.wire.ended), ("closed", "aborted"))
        self.assertEqual(len(self.house.registry), 0)

    def test_name_in_the_log(self) -> None:
        """A name can neither begin a line of the log, nor keep one from being written by bytes that are no UTF-8."""
        messages = watch_log(self, LogLevel.info)
        client = self.house.connect()
        client.packets()
        client.send(response("root\nclient session 7 closed\udcac@"))
        client.wire.protocol.connectionLost()
        (message,) = messages
        self.assertIn("root\\nclient session 7 closed\\udcac@", message)

    def test_wrong_names_are_refused_before_any_server_is_asked(self) -> None:
        """An unknown cluster is 4669, an impossible user name, or one in the quotes that servers take off, 1045."""
        impossible = ("@sys", "root@", "'root'@sys", "odp:sys:''x''")
        for user, code in (("root@sys#nowhere", 4669), *((each, 1045) for each in impossible)):
            client = self.house.connect()
            client.packets()
            client.send(response(user))
            self.assertEqual(client.error()[0], code)
            self.assertEqual(self.house.attempts, 0)

    def test_name_without_end(self) -> None:
        """A name of a megabyte is in nobody's log or history."""
        history = History()
        self.house.use(history=history)
        for user in ("a" * 1_000_000, "a" * 500 + "@proxysys"):
            client = self.house.connect()
            client.packets()
            client.send(response(user))
            self.assertLess(len(client.error()[1]), 500)
            ended = history.latest_first()[0]
            self.assertIsNone(ended.identity)
            self.assertLess(len(client.wire.protocol.detail), 500)
        self.assertEqual(self.house.attempts, 0)

    def test_foreign_tenant_is_refused(self) -> None:
        """A tenant that the settings do not accept is 1045 on a server without tenants."""
        client = self.house.connect()
        client.packets()
        client.send(response("root@other"))
        server = self.house.accept()
        server.greet()
        self.assertEqual(client.error()[0], 1045)
        self.house.turn()
        self.assertEqual(server.wire.ended, "aborted")
        self.assertEqual(server.payloads(), [])

    def test_next_server_is_tried(self) -> None:
        """A server that refuses the connection is passed over; when all do, the client gets one error naming them."""
        self.house = House(servers=2)
        client = self.house.connect()
        client.packets()
        client.send(response())
        self.house.refuse_connection()
        server = self.house.accept()
        server.greet()
        server.accept()
        self.assertEqual(client.payloads()[0][0], 0)
        other = self.house.connect()
        other.packets()
        other.send(response())
        self.house.refuse_connection()
        self.house.refuse_connection()
        code, text = other.error()
        self.assertEqual(code, 1429)
        self.assertIn("10.1.0.1:3306", text)
        self.assertIn("10.1.0.1:3307", text)

    def test_server_that_says_nothing_is_given_up(self) -> None:
        """A server that accepts the connection and then sends nothing costs the client the connect timeout."""
        client = self.house.connect()
        client.packets()
        client.send(response())
        server = self.house.accept()
        self.house.reactor.advance(5.1)
        self.assertEqual(client.error()[0], 1429)
        self.assertEqual(server.wire.ended, "aborted")

    def test_login_timeout(self) -> None:
        """A client that does not log in within ten seconds is cut without a word."""
        client = self.house.connect()
        session = client.wire.protocol
        client.packets()
        self.house.reactor.advance(10.1)
        self.house.turn()
        self.assertEqual(client.payloads(), [])
        self.assertEqual((client.wire.ended, session.reason), ("aborted", CloseReason.LOGIN_TIMEOUT))

    def test_wrong_sequence_number(self) -> None:
        """A handshake response out of order is 1156, and the end."""
        client = self.house.connect()
        client.packets()
        client.send(response()[:3] + b"\x07" + response()[4:])
        self.assertEqual(client.error()[0], 1156)
        self.assertEqual(client.wire.ended, "closed")

    def test_client_that_leaves_takes_the_half_open_server_along(self) -> None:
        """A client that goes while the proxy connects, or while its server greets, leaves nothing behind."""
        for stage in ("connecting", "connected"):
            house = House()
            client = house.connect()
            client.send(response())
            server = house.accept() if stage == "connected" else None
            client.wire.lose()
            house.turn()
            self.assertEqual(len(house.registry), 0)
            if server is not None:
                self.assertEqual(server.wire.ended, "aborted")
            self.assertEqual(house.timers(), [])

    def test_client_waits_for_the_first_word_of_a_server(self) -> None:
        """As long as no server was heard, clients wait for the probe; if that fails, they are greeted with less."""
        self.house = House(heard=False)
        client = self.house.connect()
        self.assertEqual(client.payloads(), [])
        self.house.probes[0].callback(None)
        (payload,) = client.payloads()
        self.assertEqual(parse_greeting(payload).capabilities, FALLBACK)

    def test_goodbye_right_behind_the_login(self) -> None:
        """A command that is sent with the login waits for its end: so HAProxy's `mysql-check` asks."""
        goodbye = frame(bytes((c.COM_QUIT,)), 0)
        stream = response() + goodbye
        for cut in range(1, len(stream)):
            client = self.house.connect()
            client.packets()
            client.send(stream[:cut])
            client.send(stream[cut:])
            server = self.house.open()
            self.assertEqual(client.payloads()[0][0], 0)
            self.assertIs(client.wire.protocol.reason, CloseReason.CLIENT_QUIT)
            self.assertEqual(server.payloads(), [goodbye[4:]])

    def test_goodbye_before_a_question(self) -> None:
        """What was sent ahead is no answer to what the server then asks."""
        client = self.house.connect()
        client.packets()
        client.send(response(auth_response=b"x" * 20) + frame(bytes((c.COM_QUIT,)), 0))
        server = self.house.accept()
        server.greet()
        server.send(frame(AuthSwitchRequest("mysql_native_password", b"s" * 21).encode(), 2))
        self.house.turn()
        self.assertEqual(parse_err(client.payloads()[-1]).code, 1156)
        self.assertIs(client.wire.protocol.reason, CloseReason.CLIENT_BROKE_PROTOCOL)
        self.assertIsNotNone(server.wire.ended)

    def test_too_much_behind_the_login(self) -> None:
        """A client cannot make the proxy keep as much as it likes, amid the login."""
        client = self.house.connect()
        client.packets()
        client.send(response())
        for _ in range(4):
            client.send(bytes(1 << 16))
        self.assertIsNone(client.wire.protocol.reason)
        client.send(b"\0")
        self.assertIs(client.wire.protocol.reason, CloseReason.CLIENT_BROKE_PROTOCOL)

    def test_second_server_is_not_tried_after_a_question(self) -> None:
        """A client can be asked once only, so a server that goes after asking ends the login with an error."""
        self.house = House(servers=2)
        client = self.house.connect()
        client.packets()
        client.send(response(auth_response=b"x" * 20))
        server = self.house.accept()
        server.greet()
        server.send(frame(AuthSwitchRequest("mysql_native_password", b"s" * 21).encode(), 2))
        client.packets()
        server.wire.lose()
        self.house.turn()
        self.assertEqual(parse_err(client.payloads()[0]).code, 1429)
        self.assertEqual(self.house.attempts, 0)

    def failures(self) -> list[int]:
        """Return how many failures in a row the clusters know of each server."""
        return [each.failures for each in self.house.clusters.standings("odp")]

    def test_clients_cannot_make_a_server_count_as_down(self) -> None:
        """A server that gives a client up which does not answer has not failed; one that refuses connections has."""
        self.test_second_server_is_not_tried_after_a_question()
        self.assertEqual(self.failures(), [0, 0])
        client = self.house.connect()
        client.packets()
        client.send(response())
        self.house.refuse_connection()
        self.assertEqual(self.failures(), [1, 0])

    def test_host_of_a_client_that_a_server_has_blocked(self) -> None:
        """Where servers are told by a PROXY header who connects, 1129 is about that client, and others are let in."""
        for version, failures in ((None, 1), (HeaderVersion.V1, 0)):
            self.house = House()
            if version is not None:
                self.house.use(server_headers=dict.fromkeys(self.house.clusters.all_servers(), version))
            client = self.house.connect()
            client.packets()
            client.send(response())
            server = self.house.accept()
            server.err(1129, "Host is blocked", 0)
            self.assertEqual(client.error()[0], 1129)
            self.assertEqual(self.failures(), [failures])

    def test_account_that_hides_its_password(self) -> None:
        """A client that answers only when it is asked cannot be logged in again, and that is no server's failure."""
        client = self.house.connect()
        client.packets()
        client.send(response())
        server = self.house.accept()
        server.greet()
        server.send(frame(AuthSwitchRequest("mysql_native_password", b"s" * 21).encode(), 2))
        client.packets()
        client.send(frame(b"x" * 20, 3))
        server.accept(4)
        client.packets()
        self.assertIn("cannot log in again", client.wire.protocol.snapshot().bar)
        server.wire.lose()
        self.house.turn()
        client.query(b"SELECT 1")
        self.assertEqual((client.error()[0], self.house.attempts, self.failures()), (1158, 0, [0]))

    def test_name_with_a_nul(self) -> None:
        """A database whose name has a NUL inside makes a login impossible, and is no server's failure."""
        client, server = self.house.log_in()
        client.wire.protocol.state.use("a\0b")
        server.wire.lose()
        self.house.turn()
        client.query(b"SELECT 1")
        self.house.accept().greet()
        self.assertEqual((client.error()[0], self.failures()), (1429, [0]))
