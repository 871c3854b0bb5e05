from __future__ import annotations

import io
from collections.abc import Callable
from typing import Any

import pymysql
from attrs import evolve
from hypothesis import given
from hypothesis import strategies as st
from pymysql.constants import CLIENT
from twisted.trial.unittest import SynchronousTestCase

from odptwist.errors import MalformedPacket, WireError
from odptwist.wire import handshake
from odptwist.wire.constants import (
    CLIENT_CONNECT_ATTRS,
    CLIENT_CONNECT_WITH_DB,
    CLIENT_LONG_PASSWORD,
    CLIENT_PLUGIN_AUTH,
    CLIENT_PLUGIN_AUTH_LENENC_CLIENT_DATA,
    CLIENT_PROTOCOL_41,
    CLIENT_SECURE_CONNECTION,
    CLIENT_SSL,
    CLIENT_ZSTD_COMPRESSION,
    MARIADB_CLIENT_CACHE_METADATA,
    MARIADB_CLIENT_EXTENDED_METADATA,
    MARIADB_CLIENT_PROGRESS,
    MARIADB_CLIENT_STMT_BULK_OPERATIONS,
)
from odptwist.wire.framing import Deframer, frame
from odptwist.wire.handshake import (
    Attribute,
    AuthMoreData,
    AuthNextFactor,
    AuthSwitchRequest,
    ChangeUser,
    Greeting,
    HandshakeResponse,
    is_ssl_request,
    parse_auth_more_data,
    parse_auth_next_factor,
    parse_auth_switch_request,
    parse_change_user,
    parse_greeting,
    parse_handshake_response,
)
from odptwist.wire.responses import Ok
from odptwist.wire.scramble import native_password
from tests.wire.strategies import (
    MARIADB_GREETING,
    SEEKDB_GREETING,
    any_bytes,
    damaged,
    many,
    names,
    raises_only_wire_errors,
    relaxed,
    texts,
    uint8,
    uint16,
    uint32,
)


def outcome(parse: Callable[[bytes], object], payload: bytes) -> object:
    """Return what a parser returns, or the text of its error."""
    try:
        return parse(payload)
    except WireError as fault:
        return str(fault)


BASE = CLIENT_PROTOCOL_41 | CLIENT_SECURE_CONNECTION
FULL = BASE | CLIENT_CONNECT_WITH_DB | CLIENT_PLUGIN_AUTH | CLIENT_CONNECT_ATTRS | CLIENT_PLUGIN_AUTH_LENENC_CLIENT_DATA
attributes = st.lists(st.builds(Attribute, texts, texts), max_size=4).map(tuple)
optional_names = names.map(lambda name: name or None)


@st.composite
def greetings(draw: st.DrawFn) -> Greeting:
    """Draw a greeting that the protocol can express."""
    capabilities = draw(uint32)
    if capabilities & CLIENT_PLUGIN_AUTH:
        salt_size = draw(st.integers(8, 254))
    else:
        salt_size = 20 if capabilities & CLIENT_SECURE_CONNECTION else 8
    return Greeting(
        server_version=draw(names),
        thread_id=draw(uint32),
        salt=draw(st.binary(min_size=salt_size, max_size=salt_size)),
        capabilities=capabilities,
        mariadb_capabilities=0 if capabilities & CLIENT_LONG_PASSWORD else draw(uint32),
        charset=draw(uint8),
        status=draw(uint16),
        plugin=draw(names) if capabilities & CLIENT_PLUGIN_AUTH else "",
    )


def auth_responses(capabilities: int) -> st.SearchStrategy[bytes]:
    """Draw an auth response that fits the capabilities."""
    if capabilities & CLIENT_PLUGIN_AUTH_LENENC_CLIENT_DATA:
        return st.binary(max_size=400)
    if capabilities & CLIENT_SECURE_CONNECTION:
        return st.binary(max_size=255)
    return st.binary(max_size=40).map(lambda data: data.replace(b"\x00", b""))


@st.composite
def handshake_responses(draw: st.DrawFn) -> HandshakeResponse:
    """Draw a login that the protocol can express."""
    capabilities = draw(uint32) | CLIENT_PROTOCOL_41
    return HandshakeResponse(
        capabilities=capabilities,
        max_packet_size=draw(uint32),
        charset=draw(uint8),
        user=draw(names),
        auth_response=draw(auth_responses(capabilities)),
        database=draw(optional_names) if capabilities & CLIENT_CONNECT_WITH_DB else None,
        plugin=draw(optional_names) if capabilities & CLIENT_PLUGIN_AUTH else None,
        attributes=draw(attributes) if capabilities & CLIENT_CONNECT_ATTRS else (),
        mariadb_capabilities=0 if capabilities & CLIENT_LONG_PASSWORD else draw(uint32),
        zstd_level=draw(uint8) if capabilities & CLIENT_ZSTD_COMPRESSION else None,
    )


class GreetingTests(SynchronousTestCase):
    def test_seekdb(self) -> None:
        """A greeting of seekdb 1.4 is read, and written as it came."""
        greeting = parse_greeting(SEEKDB_GREETING)
        self.assertEqual(
            greeting,
            Greeting(
                server_version="5.7.25",
                thread_id=107,
                salt=b"]o9k2U7Oh@EvHCWk6g&$",
                capabilities=0x009FF7FF,
                mariadb_capabilities=0,
                charset=46,
                status=2,
                plugin="mysql_native_password",
            ),
        )
        self.assertEqual(greeting.encode(), SEEKDB_GREETING)

    def test_mariadb(self) -> None:
        """A greeting of MariaDB 10.11 is read, extended capabilities included, and written as it came."""
        greeting = parse_greeting(MARIADB_GREETING)
        self.assertEqual(greeting.salt, b"'M-7l?3!H+:#@X{$=F*>")
        self.assertEqual(greeting.capabilities, 0x81FFF7FE)
        self.assertEqual(
            greeting.mariadb_capabilities,
            MARIADB_CLIENT_PROGRESS
            | MARIADB_CLIENT_STMT_BULK_OPERATIONS
            | MARIADB_CLIENT_EXTENDED_METADATA
            | MARIADB_CLIENT_CACHE_METADATA,
        )
        self.assertEqual((greeting.server_version, greeting.thread_id), ("5.5.5-10.11.19-MariaDB-0+deb12u1", 3))
        self.assertEqual((greeting.charset, greeting.status, greeting.plugin), (45, 2, "mysql_native_password"))
        self.assertEqual(greeting.encode(), MARIADB_GREETING)

    def test_old_servers(self) -> None:
        """Greetings that end after the low capabilities, without a plugin or without its NUL are read."""
        head = b"\x0a4.1.0\x00\x01\x00\x00\x0012345678\x00"
        short = parse_greeting(head + b"\x00\x02")
        self.assertEqual((short.salt, short.capabilities, short.plugin), (b"12345678", 0x0200, ""))
        no_plugin = parse_greeting(head + b"\x00\x82\x08\x02\x00\x00\x00\x00" + bytes(10) + b"abcdefghijkl\x00")
        self.assertEqual((no_plugin.salt, no_plugin.plugin), (b"12345678abcdefghijkl", ""))
        without_nul = parse_greeting(SEEKDB_GREETING[:-1])
        self.assertEqual(without_nul.plugin, "mysql_native_password")

    def test_other_protocols(self) -> None:
        """Protocol 9 and an ERR in a greeting's place are refused."""
        for payload in (b"\x09" + SEEKDB_GREETING[1:], b"\xff\x10\x04Too many connections", b""):
            self.assertRaises(MalformedPacket, parse_greeting, payload)

    def test_short_salt(self) -> None:
        """A salt of fewer than 8 bytes is no salt."""
        greeting = parse_greeting(SEEKDB_GREETING)
        self.assertRaises(ValueError, evolve, greeting, salt=b"1234567")

    @relaxed
    @given(greetings())
    def test_round_trip(self, greeting: Greeting) -> None:
        """Every greeting reads back as itself."""
        self.assertEqual(parse_greeting(greeting.encode()), greeting)

    @many
    @given(st.one_of(any_bytes, any_bytes.map(b"\x0a".__add__), damaged(SEEKDB_GREETING), damaged(MARIADB_GREETING)))
    def test_any_bytes(self, payload: bytes) -> None:
        """Any bytes are a greeting or a WireError, the same whether one like it was read before."""
        raises_only_wire_errors(parse_greeting, payload)
        self.assertEqual(outcome(parse_greeting, payload), outcome(handshake._parse_greeting, payload))

    def test_known(self) -> None:
        """A greeting that differs by connection id and salt alone is not read anew."""
        parse_greeting(MARIADB_GREETING)
        before = handshake._parse_known_greeting.cache_info()
        greeting = evolve(parse_greeting(MARIADB_GREETING), thread_id=99, salt=bytes(range(1, 21)))
        self.assertEqual(parse_greeting(greeting.encode()), greeting)
        after = handshake._parse_known_greeting.cache_info()
        self.assertEqual((after.hits, after.misses), (before.hits + 2, before.misses))


RESPONSE = HandshakeResponse(
    capabilities=FULL | CLIENT_LONG_PASSWORD,
    max_packet_size=1 << 24,
    charset=45,
    user="root@sys#one",
    auth_response=bytes(range(20)),
    database="shop",
    plugin="mysql_native_password",
    attributes=(Attribute("_client_name", "libmysql"), Attribute("_pid", "17")),
)


class HandshakeResponseTests(SynchronousTestCase):
    def test_golden(self) -> None:
        """A login is written field by field as the documentation orders them."""
        self.assertEqual(
            RESPONSE.encode(),
            bytes.fromhex("09823800 00000001 2d") + bytes(23) + b"root@sys#one\x00"
            b"\x14" + bytes(range(20)) + b"shop\x00mysql_native_password\x00"
            b"\x1e\x0c_client_name\x08libmysql\x04_pid\x0217",
        )

    @relaxed
    @given(handshake_responses())
    def test_round_trip(self, response: HandshakeResponse) -> None:
        """Every login reads back as itself, whatever its capabilities."""
        self.assertEqual(parse_handshake_response(response.encode()), response)

    def test_known(self) -> None:
        """A login that differs by its auth response alone is not read anew, and the auth response is not kept."""
        parse_handshake_response(RESPONSE.encode())
        before = handshake._parse_known_response.cache_info()
        response = evolve(RESPONSE, auth_response=bytes(range(20, 40)))
        self.assertEqual(parse_handshake_response(response.encode()), response)
        after = handshake._parse_known_response.cache_info()
        self.assertEqual((after.hits, after.misses), (before.hits + 1, before.misses))

    def test_long_ones_are_not_kept(self) -> None:
        """What takes much memory is read anew each time."""
        long = evolve(RESPONSE, attributes=(Attribute("a", "b" * 1024),))
        before = handshake._parse_known_response.cache_info()
        self.assertEqual(parse_handshake_response(long.encode()), long)
        self.assertEqual(handshake._parse_known_response.cache_info(), before)

    def test_missing_tails(self) -> None:
        """Clients that set a capability and leave out its field are understood."""
        payload = RESPONSE.encode()
        ends = [payload.index(mark) + len(mark) for mark in (b"#one\x00", b"\x12\x13", b"shop\x00", b"password\x00")]
        want = evolve(RESPONSE, attributes=())
        self.assertEqual(parse_handshake_response(payload[: ends[3]]), want)
        self.assertEqual(parse_handshake_response(payload[: ends[3] - 1]), want)
        want = evolve(want, plugin=None)
        self.assertEqual(parse_handshake_response(payload[: ends[2]]), want)
        want = evolve(want, database=None)
        self.assertEqual(parse_handshake_response(payload[: ends[1]]), want)
        want = evolve(want, auth_response=b"")
        self.assertEqual(parse_handshake_response(payload[: ends[0]]), want)

    def test_empty_database(self) -> None:
        """An empty database is none."""
        for database in ("", None):
            response = evolve(RESPONSE, database=database)
            self.assertIsNone(parse_handshake_response(response.encode()).database)

    def test_impossible_lengths(self) -> None:
        """A length that passes the packet's end is refused."""
        payload = RESPONSE.encode()
        for mark, length in (
            (b"\x14\x00\x01", 0x7F),
            (b"\x14\x00\x01", 0xFB),
            (b"\x1e\x0c_", 0x1F),
            (b"\x04_pid", 0x05),
        ):
            at = payload.index(mark)
            broken = payload[:at] + bytes([length]) + payload[at + 1 :]
            self.assertRaises(MalformedPacket, parse_handshake_response, broken)

    def test_before_41(self) -> None:
        """A client of before 4.1 is told so."""
        payload = b"\x05\x00\x00\x00\x01root\x00scramble\x00"
        self.assertRaises(MalformedPacket, parse_handshake_response, payload)

    def test_what_does_not_fit(self) -> None:
        """A NUL inside a name, and an auth response that is too long for its length byte, are not written."""
        for response in (
            evolve(RESPONSE, user="a\x00b"),
            evolve(RESPONSE, database="a\x00b"),
            evolve(RESPONSE, capabilities=BASE, auth_response=bytes(256)),
            evolve(RESPONSE, capabilities=CLIENT_PROTOCOL_41, auth_response=b"a\x00b"),
        ):
            self.assertRaises(MalformedPacket, response.encode)

    def test_zstd_level(self) -> None:
        """A zstd level follows the attributes."""
        response = evolve(RESPONSE, capabilities=FULL | CLIENT_ZSTD_COMPRESSION, zstd_level=7)
        self.assertEqual(response.encode()[-1], 7)
        self.assertIsNone(parse_handshake_response(response.encode()[:-1]).zstd_level)

    def test_ssl_request(self) -> None:
        """An SSLRequest is the first 32 bytes of a login with CLIENT_SSL; it is no login."""
        payload = evolve(RESPONSE, capabilities=FULL | CLIENT_SSL).encode()
        self.assertTrue(is_ssl_request(payload[:32]))
        self.assertFalse(is_ssl_request(payload))
        self.assertFalse(is_ssl_request(payload[:31]))
        self.assertFalse(is_ssl_request(RESPONSE.encode()[:32]))
        self.assertRaises(MalformedPacket, parse_handshake_response, payload[:32])

    @many
    @given(
        st.one_of(
            any_bytes,
            st.tuples(uint32, st.binary(min_size=28)).map(
                lambda drawn: (drawn[0] | CLIENT_PROTOCOL_41).to_bytes(4, "little") + drawn[1]
            ),
            damaged(RESPONSE.encode()),
        )
    )
    def test_any_bytes(self, payload: bytes) -> None:
        """Any bytes are a login or a WireError, the same whether one like it was read before."""
        raises_only_wire_errors(parse_handshake_response, payload)
        self.assertEqual(
            outcome(parse_handshake_response, payload),
            outcome(handshake._parse_response, payload),
        )
        is_ssl_request(payload)


class AuthenticationTests(SynchronousTestCase):
    def test_switch(self) -> None:
        """A switch keeps its data with the NUL."""
        payload = b"\xfemysql_native_password\x0012345678901234567890\x00"
        switch = AuthSwitchRequest("mysql_native_password", b"12345678901234567890\x00")
        self.assertEqual(parse_auth_switch_request(payload), switch)
        self.assertEqual(switch.encode(), payload)

    def test_old_switch(self) -> None:
        """A lone 0xFE asks for the oldest method."""
        self.assertEqual(parse_auth_switch_request(b"\xfe"), AuthSwitchRequest("mysql_old_password", b""))

    @relaxed
    @given(
        st.builds(AuthSwitchRequest, names, any_bytes),
        st.builds(AuthMoreData, any_bytes),
        st.builds(AuthNextFactor, names, any_bytes),
    )
    def test_round_trip(self, switch: AuthSwitchRequest, more: AuthMoreData, factor: AuthNextFactor) -> None:
        """Every switch and every further step reads back as itself."""
        self.assertEqual(parse_auth_switch_request(switch.encode()), switch)
        self.assertEqual(parse_auth_more_data(more.encode()), more)
        self.assertEqual(parse_auth_next_factor(factor.encode()), factor)

    @many
    @given(st.one_of(any_bytes, any_bytes.map(b"\xfe".__add__)))
    def test_any_bytes(self, payload: bytes) -> None:
        """Any bytes are a step of a login or a WireError."""
        raises_only_wire_errors(parse_auth_switch_request, payload)
        raises_only_wire_errors(parse_auth_more_data, payload)
        raises_only_wire_errors(parse_auth_next_factor, payload)


CHANGE = ChangeUser(
    user="ann",
    auth_response=bytes(range(20)),
    database="shop",
    charset=0x012D,
    plugin="mysql_native_password",
    attributes=(Attribute("a", "b"),),
)


@st.composite
def changes_of_user(draw: st.DrawFn) -> tuple[ChangeUser, int]:
    """Draw a COM_CHANGE_USER and the capabilities that it is written with."""
    capabilities = draw(uint32)
    charset = draw(st.none() | uint16)
    change = ChangeUser(
        user=draw(names),
        auth_response=draw(auth_responses(capabilities & ~CLIENT_PLUGIN_AUTH_LENENC_CLIENT_DATA)),
        database=draw(optional_names),
        charset=charset,
        plugin=draw(optional_names) if charset is not None and capabilities & CLIENT_PLUGIN_AUTH else None,
        attributes=draw(attributes) if charset is not None and capabilities & CLIENT_CONNECT_ATTRS else (),
    )
    return change, capabilities


class ChangeUserTests(SynchronousTestCase):
    def test_golden(self) -> None:
        """The command byte, the names and the 16-bit charset stand as documented."""
        payload = b"\x11ann\x00\x14" + bytes(range(20)) + b"shop\x00\x2d\x01mysql_native_password\x00\x04\x01a\x01b"
        self.assertEqual(CHANGE.encode(FULL), payload)
        self.assertEqual(parse_change_user(payload, FULL), CHANGE)

    def test_missing_tails(self) -> None:
        """A packet may end after the database, the charset or the plugin."""
        payload = CHANGE.encode(FULL)
        end = payload.index(b"shop\x00") + 5
        want = evolve(CHANGE, attributes=())
        self.assertEqual(parse_change_user(payload[:-5], FULL), want)
        self.assertEqual(parse_change_user(payload[: end + 2], FULL), evolve(want, plugin=None))
        self.assertEqual(parse_change_user(payload[:end], FULL), evolve(want, plugin=None, charset=None))
        self.assertEqual(evolve(CHANGE, charset=None).encode(FULL), payload[:end])

    @relaxed
    @given(changes_of_user())
    def test_round_trip(self, drawn: tuple[ChangeUser, int]) -> None:
        """Every change of user reads back as itself, whatever the capabilities."""
        change, capabilities = drawn
        self.assertEqual(parse_change_user(change.encode(capabilities), capabilities), change)

    @many
    @given(st.one_of(any_bytes, any_bytes.map(b"\x11".__add__), damaged(CHANGE.encode(FULL))), uint32)
    def test_any_bytes(self, payload: bytes, capabilities: int) -> None:
        """Any bytes are a change of user or a WireError."""
        raises_only_wire_errors(parse_change_user, payload, capabilities)


class ScriptedSocket:
    """What PyMySQL needs of a socket: it reads a script and keeps what is written."""

    def __init__(self, script: bytes) -> None:
        self.script = io.BytesIO(script)
        self.written = b""

    def makefile(self, mode: str) -> io.BytesIO:
        """Return the script."""
        return self.script

    def sendall(self, data: bytes) -> None:
        """Keep what is written."""
        self.written += data

    def settimeout(self, timeout: object) -> None:
        """Do nothing: a script does not wait."""

    def close(self) -> None:
        """Do nothing: there is no socket."""


class PyMySQLTests(SynchronousTestCase):
    def log_in(self, greeting: Greeting, **arguments: Any) -> tuple[pymysql.Connection[Any], bytes]:
        """Let PyMySQL log in; return it with the payload of its handshake response."""
        ok = Ok(status=2).encode(greeting.capabilities)
        # The login's OK, then those to SET NAMES and SET AUTOCOMMIT.
        sock = ScriptedSocket(frame(greeting.encode(), 0) + frame(ok, 2) + frame(ok, 1) + frame(ok, 1))
        connection = pymysql.Connection(user="ann", password="secret", defer_connect=True, **arguments)
        connection.connect(sock)
        packet = Deframer().receive_one(sock.written)
        assert packet is not None
        return connection, packet.payload

    def test_login(self) -> None:
        """PyMySQL reads our greeting and our OK, and we read its login."""
        for golden in (SEEKDB_GREETING, MARIADB_GREETING):
            greeting = parse_greeting(golden)
            connection, payload = self.log_in(greeting, database="shop", program_name="test")
            self.assertEqual(connection.get_server_info(), greeting.server_version)
            self.assertEqual(connection.thread_id(), greeting.thread_id)
            self.assertEqual(connection.salt, greeting.salt)
            response = parse_handshake_response(payload)
            self.assertEqual((response.user, response.database), ("ann", "shop"))
            self.assertEqual(response.auth_response, native_password(b"secret", greeting.salt))
            self.assertEqual(response.plugin, "mysql_native_password")
            self.assertIn(Attribute("program_name", "test"), response.attributes)
            self.assertTrue(response.capabilities & CLIENT.CONNECT_WITH_DB)

    def test_tails_that_pymysql_leaves_out(self) -> None:
        """PyMySQL sets capabilities that the server lacks and leaves out their fields."""
        greeting = evolve(parse_greeting(SEEKDB_GREETING), capabilities=BASE | CLIENT_LONG_PASSWORD, plugin="")
        _, payload = self.log_in(greeting)
        response = parse_handshake_response(payload)
        self.assertTrue(response.capabilities & CLIENT_PLUGIN_AUTH)
        self.assertTrue(response.capabilities & CLIENT_CONNECT_ATTRS)
        self.assertEqual((response.plugin, response.attributes), (None, ()))
        self.assertEqual(len(response.auth_response), 20)
