from __future__ import annotations

import contextlib
from collections.abc import Callable

from attrs import evolve
from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from odptwist.errors import LoginRefused, MalformedPacket, SequenceError, ServerUnreachable, SqlError, WireError
from odptwist.identity import Identity
from odptwist.machines.effects import Ask, Greeted, LoggedIn
from odptwist.machines.server_login import (
    ASK_AGAIN_ANSWER,
    ASK_AGAIN_PLUGIN,
    FALLBACK,
    PASSED_ON,
    ServerLogin,
    State,
    authenticates_tenants,
    server_response,
    server_user,
)
from odptwist.wire.constants import (
    CLIENT_COMPRESS,
    CLIENT_CONNECT_ATTRS,
    CLIENT_CONNECT_WITH_DB,
    CLIENT_DEPRECATE_EOF,
    CLIENT_FOUND_ROWS,
    CLIENT_LOCAL_FILES,
    CLIENT_LONG_PASSWORD,
    CLIENT_MULTI_STATEMENTS,
    CLIENT_PLUGIN_AUTH,
    CLIENT_PLUGIN_AUTH_LENENC_CLIENT_DATA,
    CLIENT_PROTOCOL_41,
    CLIENT_QUERY_ATTRIBUTES,
    CLIENT_SECURE_CONNECTION,
    CLIENT_SESSION_TRACK,
    CLIENT_SSL,
    CLIENT_ZSTD_COMPRESSION,
    MULTI_FACTOR_AUTHENTICATION,
)
from odptwist.wire.framing import Deframer, Packet, frame
from odptwist.wire.handshake import (
    Attribute,
    AuthNextFactor,
    HandshakeResponse,
    parse_greeting,
    parse_handshake_response,
)
from odptwist.wire.responses import Err, Ok, err_for
from tests.wire.strategies import MARIADB_GREETING, SEEKDB_GREETING, many, uint8

SEEKDB = parse_greeting(SEEKDB_GREETING)
MARIADB = parse_greeting(MARIADB_GREETING)
OCEANBASE = evolve(SEEKDB, thread_id=0x8003_0001)
WHO = Identity("app", "shop", "ob1")

CLIENT = HandshakeResponse(
    capabilities=PASSED_ON & ~CLIENT_DEPRECATE_EOF & ~CLIENT_SESSION_TRACK,
    max_packet_size=1 << 24,
    charset=45,
    user="app@shop#ob1",
    auth_response=b"\x14" * 20,
    database="test",
    plugin="caching_sha2_password",
    attributes=(Attribute("_client_name", "libmysql"),),
)
SWITCH = b"\xfemysql_native_password\x00" + b"s" * 20 + b"\x00"
OK = Ok(status=2).encode(0)
ERR = Err(1045, "28000", "Access denied").encode()


def connected() -> ServerLogin:
    """Return a login at a server that has not said anything."""
    return ServerLogin()


def greeted() -> ServerLogin:
    """Return a login at a server that has greeted."""
    login = ServerLogin()
    login.receive(Packet(0, SEEKDB_GREETING))
    return login


def responded() -> ServerLogin:
    """Return a login that waits for the server's answer."""
    login = greeted()
    login.respond(CLIENT)
    return login


def accepted() -> ServerLogin:
    """Return a login that is over."""
    login = responded()
    login.receive(Packet(2, OK))
    return login


def refused() -> ServerLogin:
    """Return a login that was refused."""
    login = responded()
    with contextlib.suppress(LoginRefused):
        login.receive(Packet(2, ERR))
    return login


BEGINNINGS: dict[State, Callable[[], ServerLogin]] = {
    State.CONNECTED: connected,
    State.GREETED: greeted,
    State.RESPONDED: responded,
    State.ACCEPTED: accepted,
    State.REFUSED: refused,
}


class LoginTests(SynchronousTestCase):
    """Whole logins."""

    def test_without_a_question(self) -> None:
        """A server greets, is answered, and lets in."""
        for payload, greeting in ((SEEKDB_GREETING, SEEKDB), (MARIADB_GREETING, MARIADB)):
            login = ServerLogin()
            self.assertEqual(login.receive(Packet(0, payload)), Greeted(greeting))
            self.assertEqual(login.respond(CLIENT), frame(CLIENT.encode(), 1))
            self.assertEqual(login.receive(Packet(2, OK)), LoggedIn(OK))
            self.assertIs(login.state, State.ACCEPTED)

    def test_asked(self) -> None:
        """What a server asks is passed on, step by step, also when it goes on without an answer."""
        login = responded()
        self.assertEqual(login.receive(Packet(2, SWITCH)), Ask(SWITCH))
        self.assertEqual(login.answer(b"answer"), frame(b"answer", 3))
        self.assertEqual(login.receive(Packet(4, b"\x01\x04")), Ask(b"\x01\x04"))
        self.assertEqual(login.answer(b""), frame(b"", 5))
        self.assertEqual(login.receive(Packet(6, b"\x01key")), Ask(b"\x01key"))
        self.assertEqual(login.answer(b"password"), frame(b"password", 7))
        self.assertEqual(login.receive(Packet(8, b"\x01\x03")), Ask(b"\x01\x03"))
        self.assertEqual(login.receive(Packet(9, OK)), LoggedIn(OK))

    def test_dialog(self) -> None:
        """MariaDB's dialog plugin asks further questions without a byte that says so; nobody else may."""
        login = responded()
        question = b"\xfedialog\0\x04Password: "
        self.assertEqual(login.receive(Packet(2, question)), Ask(question))
        for number, further in enumerate((b"\x02One: ", b"\x04Two: ", b"\x05Three: ")):
            login.answer(b"answer")
            self.assertEqual(login.receive(Packet(4 + 2 * number, further)), Ask(further))
        login = responded()
        login.receive(Packet(2, SWITCH))
        self.assertRaises(MalformedPacket, login.receive, Packet(3, b"\x04Two: "))

    def test_further_factors(self) -> None:
        """A question for a further proof is told from others, and is one only where it was agreed on."""
        question = AuthNextFactor("authentication_ldap_simple", b"").encode()
        for agreed in (MULTI_FACTOR_AUTHENTICATION, 0):
            login = greeted()
            login.respond(evolve(CLIENT, capabilities=CLIENT.capabilities & ~MULTI_FACTOR_AUTHENTICATION | agreed))
            if agreed:
                self.assertEqual(login.receive(Packet(2, question)), Ask(question, further=True))
                self.assertEqual(login.answer(b"answer"), frame(b"answer", 3))
                self.assertEqual(login.receive(Packet(4, OK)), LoggedIn(OK))
            else:
                self.assertRaises(MalformedPacket, login.receive, Packet(2, question))

    def test_tls(self) -> None:
        """The request for TLS is the head of the response, which follows with the next number; both come after it."""
        response = evolve(CLIENT, capabilities=CLIENT.capabilities | CLIENT_SSL)
        login = greeted()
        self.assertEqual(login.request_tls(response), frame(response.encode()[:32], 1))
        self.assertIs(login.state, State.GREETED)
        self.assertEqual(login.respond(response), frame(response.encode(), 2))
        self.assertEqual(login.receive(Packet(3, OK)), LoggedIn(OK))
        for login in (connected(), responded()):
            self.assertRaises(WireError, login.request_tls, response)

    def test_refused(self) -> None:
        """The server's ERR is kept whole, for the client, and is the end."""
        login = responded()
        refusal = self.assertRaises(LoginRefused, login.receive, Packet(2, ERR))
        self.assertEqual(refusal.payload, ERR)
        self.assertIs(login.state, State.REFUSED)
        self.assertRaises(WireError, login.receive, Packet(3, OK))
        self.assertIs(login.state, State.REFUSED)

    def test_refused_instead_of_a_greeting(self) -> None:
        """A server that is full says so in place of a greeting, MariaDB without a sqlstate."""
        full = b"\xff\x10\x04Too many connections"
        login = ServerLogin()
        refusal = self.assertRaises(LoginRefused, login.receive, Packet(0, full))
        self.assertEqual(err_for(refusal), Err(1040, "HY000", "Too many connections"))
        self.assertIs(login.state, State.REFUSED)

    def test_broken_greeting(self) -> None:
        """A greeting that cannot be read does not count as one."""
        for payload in (b"", b"\x09old", SEEKDB_GREETING[:20], b"\xff\x10"):
            login = ServerLogin()
            self.assertRaises(MalformedPacket, login.receive, Packet(0, payload))
            self.assertIs(login.state, State.CONNECTED)

    def test_a_name_that_cannot_be_sent(self) -> None:
        """A response that cannot be encoded was not given."""
        login = greeted()
        self.assertRaises(MalformedPacket, login.respond, evolve(CLIENT, user="a\0b"))
        self.assertIs(login.state, State.GREETED)


class StateTests(SynchronousTestCase):
    """Every input in every state."""

    def test_beginnings(self) -> None:
        """The tests below begin in the state that they name."""
        for state, begin in BEGINNINGS.items():
            self.assertIs(begin().state, state)
        self.assertEqual(set(BEGINNINGS), set(State))

    def test_table(self) -> None:
        """An input leads to the next state, or is an error and leads nowhere; nothing leads out of the last two."""

        def receive(payload: bytes) -> Callable[[ServerLogin], object]:
            return lambda login: login.receive(Packet(login._sequence, payload))

        inputs: dict[str, Callable[[ServerLogin], object]] = {
            "greeting": receive(SEEKDB_GREETING),
            "OK": receive(OK),
            "ERR": receive(ERR),
            "switch": receive(SWITCH),
            "more": receive(b"\x01\x04"),
            "nothing": receive(b""),
            "nonsense": receive(b"\x02"),
            "half an ERR": receive(b"\xff\x10"),
            "respond": lambda login: login.respond(CLIENT),
            "answer": lambda login: login.answer(b"answer"),
        }
        allowed = {
            (State.CONNECTED, "greeting"): State.GREETED,
            (State.GREETED, "respond"): State.RESPONDED,
            (State.RESPONDED, "OK"): State.ACCEPTED,
            (State.RESPONDED, "switch"): State.RESPONDED,
            (State.RESPONDED, "more"): State.RESPONDED,
            (State.RESPONDED, "answer"): State.RESPONDED,
        }
        refusals = {(State.CONNECTED, "ERR"), (State.RESPONDED, "ERR")}
        for state, begin in BEGINNINGS.items():
            for name, give in inputs.items():
                login = begin()
                if (state, name) in allowed:
                    give(login)
                    self.assertIs(login.state, allowed[state, name])
                elif (state, name) in refusals:
                    self.assertRaises(LoginRefused, give, login)
                    self.assertIs(login.state, State.REFUSED)
                else:
                    self.assertRaises(WireError, give, login)
                    self.assertIs(login.state, state, f"{state}: {name}")

    def test_sequence(self) -> None:
        """A packet with another number than is due is an error in every state."""
        for state, begin in BEGINNINGS.items():
            due = begin()._sequence
            for number in range(256):
                if number != due:
                    login = begin()
                    self.assertRaises(SequenceError, login.receive, Packet(number, OK))
                    self.assertIs(login.state, state)

    def test_numbers_wrap(self) -> None:
        """The numbers of the packets wrap at 256."""
        login = responded()
        for number in range(2, 600, 2):
            login.receive(Packet(number & 0xFF, b"\x01"))
            self.assertEqual(login.answer(b""), frame(b"", number + 1))

    @many
    @given(st.sampled_from(list(State)), st.lists(st.tuples(uint8, st.binary(max_size=80)), max_size=5))
    def test_any_packets(self, state: State, packets: list[tuple[int, bytes]]) -> None:
        """Whatever a server sends is taken, a refusal or a WireError."""
        login = BEGINNINGS[state]()
        for sequence, payload in packets:
            with contextlib.suppress(WireError, LoginRefused):
                login.receive(Packet(login._sequence if sequence & 1 else sequence, payload))
            if state in (State.ACCEPTED, State.REFUSED):
                self.assertIs(login.state, state)


class ServerResponseTests(SynchronousTestCase):
    """What a server is told on behalf of a client."""

    def test_ask_again(self) -> None:
        """A client with a password is announced with a method that no server has, and some bytes for an answer."""
        for greeting in (SEEKDB, MARIADB, OCEANBASE):
            response = server_response(CLIENT, greeting, WHO, CLIENT.capabilities)
            self.assertEqual((response.plugin, response.auth_response), (ASK_AGAIN_PLUGIN, ASK_AGAIN_ANSWER))
            kept = (response.max_packet_size, response.charset, response.database, response.attributes)
            self.assertEqual(kept, (CLIENT.max_packet_size, CLIENT.charset, "test", CLIENT.attributes))

    def test_no_password(self) -> None:
        """An empty password needs no question: the server's own method is named, and nothing answered."""
        for greeting in (SEEKDB, MARIADB):
            for capabilities in (CLIENT.capabilities, CLIENT.capabilities & ~CLIENT_PLUGIN_AUTH):
                client = evolve(CLIENT, capabilities=capabilities, auth_response=b"")
                response = server_response(client, greeting, WHO, capabilities)
                self.assertEqual((response.plugin, response.auth_response), ("mysql_native_password", b""))
                self.assertTrue(response.capabilities & CLIENT_PLUGIN_AUTH)

    def test_a_client_that_cannot_be_asked(self) -> None:
        """A client with a password that knows no methods cannot be asked: 1251, as servers answer it."""
        capabilities = CLIENT.capabilities & ~CLIENT_PLUGIN_AUTH
        client = evolve(CLIENT, capabilities=capabilities)
        refusal = self.assertRaises(SqlError, server_response, client, SEEKDB, WHO, capabilities)
        self.assertEqual((refusal.code, refusal.sqlstate), (1251, "08004"))

    def test_tenant(self) -> None:
        """Only a real OceanBase hears of the tenant: bit 31 of its connection ids tells it from seekdb."""
        for greeting, tenants, user in (
            (SEEKDB, False, "app"),
            (MARIADB, False, "app"),
            (OCEANBASE, True, "app@shop"),
            (evolve(SEEKDB, thread_id=0x7FFF_FFFF), False, "app"),
            (evolve(SEEKDB, thread_id=0x8000_0000), True, "app@shop"),
            (evolve(MARIADB, thread_id=0xFFFF_FFFF), False, "app"),
        ):
            self.assertIs(authenticates_tenants(greeting), tenants)
            self.assertEqual(server_user(WHO, greeting), user)
            self.assertEqual(server_response(CLIENT, greeting, WHO, CLIENT.capabilities).user, user)

    def test_capabilities(self) -> None:
        """A server is told what client and proxy agreed on, as far as it has it, and what the proxy itself needs."""
        needed = CLIENT_PROTOCOL_41 | CLIENT_SECURE_CONNECTION | CLIENT_PLUGIN_AUTH
        for greeting in (SEEKDB, MARIADB):
            for agreed in (0, CLIENT_FOUND_ROWS, CLIENT_LOCAL_FILES | CLIENT_MULTI_STATEMENTS, CLIENT.capabilities):
                response = server_response(evolve(CLIENT, auth_response=b""), greeting, WHO, agreed)
                told = response.capabilities & ~(
                    needed | CLIENT_CONNECT_WITH_DB | CLIENT_PLUGIN_AUTH_LENENC_CLIENT_DATA
                )
                mine = needed | CLIENT_CONNECT_WITH_DB | CLIENT_PLUGIN_AUTH_LENENC_CLIENT_DATA
                self.assertEqual(told, agreed & (greeting.capabilities | CLIENT_LONG_PASSWORD) & ~mine)
                self.assertEqual(response.capabilities & needed, needed)
                lenenc = CLIENT_PLUGIN_AUTH_LENENC_CLIENT_DATA
                self.assertEqual(response.capabilities & lenenc, greeting.capabilities & lenenc)
                self.assertEqual(response.mariadb_capabilities, 0)

    def test_readable(self) -> None:
        """What is sent is read by a server as it was meant."""
        for greeting in (SEEKDB, MARIADB, OCEANBASE):
            login = ServerLogin()
            login.receive(Packet(0, greeting.encode()))
            response = server_response(CLIENT, greeting, WHO, CLIENT.capabilities)
            (packet,) = Deframer().receive(login.respond(response))
            self.assertEqual(parse_handshake_response(packet.payload), response)

    def test_database(self) -> None:
        """The database is told whether or not the client named one at its own login, and only if there is one."""
        for agreed in (CLIENT.capabilities, CLIENT.capabilities & ~CLIENT_CONNECT_WITH_DB):
            for database in ("test", None):
                client = evolve(CLIENT, database=database)
                response = server_response(client, SEEKDB, WHO, agreed)
                self.assertEqual(bool(response.capabilities & CLIENT_CONNECT_WITH_DB), database is not None)
                self.assertEqual(parse_handshake_response(response.encode()).database, database)

    def test_a_promise_that_the_server_cannot_keep(self) -> None:
        """A server whose packets would mean something else to the client is not taken."""
        for lacking in (CLIENT_DEPRECATE_EOF, CLIENT_SESSION_TRACK):
            greeting = evolve(MARIADB, capabilities=MARIADB.capabilities & ~lacking)
            agreed = CLIENT.capabilities | CLIENT_DEPRECATE_EOF | CLIENT_SESSION_TRACK
            self.assertRaises(ServerUnreachable, server_response, CLIENT, greeting, WHO, agreed)
            server_response(CLIENT, MARIADB, WHO, agreed)
            server_response(CLIENT, greeting, WHO, agreed & ~lacking)

    def test_promises(self) -> None:
        """Nothing is promised that changes packets in ways that nobody here follows."""
        for never in (CLIENT_COMPRESS, CLIENT_SSL, CLIENT_ZSTD_COMPRESSION, CLIENT_QUERY_ATTRIBUTES):
            self.assertFalse(PASSED_ON & never)
        self.assertFalse(FALLBACK & ~PASSED_ON)
        self.assertFalse(FALLBACK & (CLIENT_DEPRECATE_EOF | CLIENT_SESSION_TRACK))
        self.assertTrue(FALLBACK & CLIENT_CONNECT_ATTRS)
