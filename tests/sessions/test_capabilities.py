"""What clients and servers agree on, and what is done where one of them takes more than that."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from odptwist.errors import CloseReason
from odptwist.machines.server_login import PASSED_ON
from odptwist.wire import constants as c
from odptwist.wire.framing import frame
from odptwist.wire.handshake import Attribute, HandshakeResponse, parse_greeting, parse_handshake_response
from odptwist.wire.responses import Eof, Err, Ok, OtherChange, StateChange, VariableChanged, parse_err, parse_ok
from tests.support.house import CAPABILITIES, ClientPeer, House, ServerPeer

NEEDED = c.CLIENT_PROTOCOL_41 | c.CLIENT_SECURE_CONNECTION | c.CLIENT_PLUGIN_AUTH
FRAMING = c.CLIENT_DEPRECATE_EOF | c.CLIENT_SESSION_TRACK
# With these the handshake response, or what follows it, is no plain packet any more.
SHAPES = c.CLIENT_SSL | c.CLIENT_COMPRESS | c.CLIENT_ZSTD_COMPRESSION | c.MULTI_FACTOR_AUTHENTICATION
ONE_STATEMENT = CAPABILITIES & ~c.CLIENT_MULTI_STATEMENTS
ANY = st.integers(0, (1 << 32) - 1).map(lambda bits: (bits | NEEDED) & ~SHAPES)
ON, OFF = b"\0\0", b"\1\0"
OK_PAYLOAD = Ok(status=c.SERVER_STATUS_AUTOCOMMIT).encode(0)
MASKED = "Access denied for user 'root'@'xxx.xxx.xxx.xxx' (using password: YES)"


def response(capabilities: int, mariadb_capabilities: int = 0) -> bytes:
    """Return a handshake response with some capabilities, framed."""
    return frame(
        HandshakeResponse(
            capabilities=capabilities,
            max_packet_size=1 << 24,
            charset=45,
            user="root",
            auth_response=b"",
            database="test" if capabilities & c.CLIENT_CONNECT_WITH_DB else None,
            plugin="mysql_native_password",
            attributes=(Attribute("a", "b"),) if capabilities & c.CLIENT_CONNECT_ATTRS else (),
            mariadb_capabilities=mariadb_capabilities,
        ).encode(),
        1,
    )


class AgreementTests(SynchronousTestCase):
    @settings(max_examples=100, deadline=None)
    @given(ANY, ANY, st.integers(0, (1 << 32) - 1))
    def test_any_flags(self, server_has: int, client_sets: int, extended: int) -> None:
        """A server is never sent a flag that it has not offered, or that the client was not."""
        house = House(heard=False)
        house.hear(server_has)
        client = house.connect()
        (payload,) = client.payloads()
        promised = parse_greeting(payload).capabilities
        self.assertFalse(promised & ~(server_has & PASSED_ON | c.CLIENT_LONG_PASSWORD))
        client.send(response(client_sets, 0 if client_sets & c.CLIENT_LONG_PASSWORD else extended))
        server = house.accept()
        server.greet(server_has)
        (payload,) = server.payloads()
        sent = parse_handshake_response(payload)
        # A database has no other way to the server.
        always = c.CLIENT_LONG_PASSWORD | c.CLIENT_CONNECT_WITH_DB
        self.assertFalse(sent.capabilities & ~(server_has | always))
        self.assertEqual(sent.mariadb_capabilities, 0)
        self.assertEqual(sent.capabilities & FRAMING, client_sets & promised & FRAMING)
        server.accept()
        self.assertEqual(client.payloads()[0][0], 0)
        self.assertEqual(client.wire.protocol.plan.agreed, client_sets & promised)

    def test_common_ground(self) -> None:
        """A client is offered what every server that was heard has."""
        house = House(servers=2)
        house.hear(CAPABILITIES | c.CLIENT_DEPRECATE_EOF)
        self.assertTrue(self.promised(house) & c.CLIENT_DEPRECATE_EOF)
        house.hear(CAPABILITIES & ~c.CLIENT_SESSION_TRACK)
        self.assertEqual(self.promised(house), CAPABILITIES & ~c.CLIENT_SESSION_TRACK)

    def promised(self, house: House) -> int:
        """Return what the next client is offered."""
        (payload,) = house.connect().payloads()
        return parse_greeting(payload).capabilities

    def test_server_that_lacks_what_was_promised(self) -> None:
        """A login at such a server is impossible, which the client is told; the next one is offered less."""
        house = House()
        house.hear(CAPABILITIES | c.CLIENT_DEPRECATE_EOF)
        client = house.connect()
        client.packets()
        client.send(response(CAPABILITIES | c.CLIENT_DEPRECATE_EOF))
        house.accept().greet(CAPABILITIES)
        code, text = client.error()
        self.assertEqual(code, 1429)
        self.assertIn("log in again", text)
        self.assertFalse(self.promised(house) & c.CLIENT_DEPRECATE_EOF)
        again = house.connect()
        again.packets()
        again.send(response(CAPABILITIES | c.CLIENT_DEPRECATE_EOF))
        house.open()
        self.assertEqual(again.payloads()[0][0], 0)

    def test_other_server_is_tried(self) -> None:
        """A server that has what was promised takes the login that another one cannot."""
        house = House(servers=2)
        house.hear(CAPABILITIES | c.CLIENT_DEPRECATE_EOF)
        client = house.connect()
        client.packets()
        client.send(response(CAPABILITIES | c.CLIENT_DEPRECATE_EOF))
        house.accept().greet(CAPABILITIES)
        server = house.accept()
        server.greet(CAPABILITIES | c.CLIENT_DEPRECATE_EOF)
        server.accept()
        self.assertEqual(client.payloads()[0][0], 0)

    def test_server_that_is_exchanged_for_an_older_one(self) -> None:
        """A session whose server comes back with less gets an error for its statement, and no stream it cannot read."""
        house = House()
        house.hear(CAPABILITIES | c.CLIENT_DEPRECATE_EOF)
        client = house.connect()
        client.packets()
        client.send(response(CAPABILITIES | c.CLIENT_DEPRECATE_EOF))
        server = house.accept()
        server.greet(CAPABILITIES | c.CLIENT_DEPRECATE_EOF)
        server.accept()
        client.packets()
        server.wire.lose()
        house.turn()
        client.query(b"select 1")
        house.accept().greet(CAPABILITIES)
        code, text = client.error()
        self.assertEqual(code, 1429)
        self.assertIn("log in again", text)


class LocalFileTests(SynchronousTestCase):
    def enter(self, capabilities: int, allowed: bool = True) -> tuple[House, ClientPeer, ServerPeer]:
        """Return a client that has logged in with some capabilities, and its server."""
        house = House()
        house.registry.surroundings.limits.local_infile = allowed
        house.hear(CAPABILITIES | c.CLIENT_LOCAL_FILES)
        client = house.connect()
        client.packets()
        client.send(response(capabilities))
        server = house.accept()
        server.greet(CAPABILITIES | c.CLIENT_LOCAL_FILES)
        self.sent = parse_handshake_response(server.payloads()[0])
        server.accept()
        client.packets()
        return house, client, server

    def test_offered(self) -> None:
        """By default a client that wants to send files may."""
        _, client, server = self.enter(CAPABILITIES | c.CLIENT_LOCAL_FILES)
        self.assertTrue(self.sent.capabilities & c.CLIENT_LOCAL_FILES)
        client.query(b"load data local infile 'a' into table t")
        server.packets()
        server.send(frame(b"\xfba", 1))
        self.assertEqual(client.payloads(), [b"\xfba"])

    def test_not_offered(self) -> None:
        """Where the settings say so, it is not offered, and a client that wants it all the same has not agreed."""
        house, _, _ = self.enter(CAPABILITIES | c.CLIENT_LOCAL_FILES, allowed=False)
        self.assertFalse(self.sent.capabilities & c.CLIENT_LOCAL_FILES)
        (payload,) = house.connect().payloads()
        self.assertFalse(parse_greeting(payload).capabilities & c.CLIENT_LOCAL_FILES)

    def test_server_that_asks_all_the_same(self) -> None:
        """A server that asks for a file unasked is left; the client gets an error, and never the question."""
        for capabilities, allowed in ((CAPABILITIES, True), (CAPABILITIES | c.CLIENT_LOCAL_FILES, False)):
            house, client, server = self.enter(capabilities, allowed)
            client.query(b"select 1")
            server.packets()
            server.send(frame(b"\xfb/etc/passwd", 1))
            self.assertEqual(
                client.error(),
                (3948, "Loading local data is disabled; this must be enabled on both the client and server sides"),
            )
            self.assertEqual(server.wire.ended, "aborted")
            self.assertEqual(server.wire.protocol.reason, CloseReason.SERVER_BROKE_PROTOCOL)
            client.query(b"select 1")
            house.open().ok()
            self.assertEqual(client.payloads()[0][0], 0)


class SeveralStatementsTests(SynchronousTestCase):
    def setUp(self) -> None:
        """Let a client in that has not asked to send several statements at once."""
        self.house = House()
        self.client = self.house.connect()
        self.client.packets()
        self.client.send(response(ONE_STATEMENT))
        self.server = self.house.open()
        self.client.packets()

    def set_option(self, option: bytes, answer: bytes = OK_PAYLOAD) -> list[bytes]:
        """Send COM_SET_OPTION, and return what comes back when the server has answered."""
        self.client.command(c.COM_SET_OPTION, option)
        self.server.packets()
        self.server.send(frame(answer, 1))
        return self.client.payloads()

    def assert_refused(self) -> None:
        """Expect that the proxy refuses two statements."""
        self.client.query(b"select 1; select 2")
        self.assertEqual(self.server.payloads(), [])
        code, text = self.client.error()
        self.assertEqual(code, 1064)
        self.assertIn("near 'select 2' at line 1", text)

    def assert_sent(self, text: bytes = b"select 1; select 2") -> None:
        """Expect that a text reaches the server."""
        self.client.query(text)
        self.assertEqual(self.server.payloads(), [b"\x03" + text])
        self.server.ok()
        self.client.packets()

    def test_refused(self) -> None:
        """Two statements in one text are refused as MariaDB refuses them, and the session goes on."""
        self.assert_refused()
        self.assert_sent(b"select 1;")
        self.assert_sent(b"create procedure p() begin select 1; select 2; end")

    def test_long_text(self) -> None:
        """The rest of a long text that is refused is thrown away."""
        self.client.query(b"select 1; select '" + b"x" * 100_000 + b"'")
        self.assertEqual(self.client.error()[0], 1064)
        self.assertEqual(self.server.payloads(), [])
        self.assert_sent(b"select 1")

    def test_client_that_has_asked(self) -> None:
        """A client that set the flag at its login may send several."""
        client, server = self.house.log_in()
        client.query(b"select 1; select 2")
        self.assertEqual(len(server.payloads()), 1)

    def test_switched_on_and_off(self) -> None:
        """COM_SET_OPTION is obeyed once the server has agreed."""
        self.assertEqual(self.set_option(ON, Err(1227, "42000", "no").encode())[0][0], 0xFF)
        self.assert_refused()
        self.set_option(ON)
        self.assert_sent()
        self.set_option(OFF)
        self.assert_refused()

    def test_answered_with_ok(self) -> None:
        """Seekdb's OK to COM_SET_OPTION becomes the EOF of all other servers; an EOF stays one, and so does an ERR."""
        status = c.SERVER_STATUS_AUTOCOMMIT
        eof = Eof(0, status).encode()
        self.assertEqual(self.set_option(ON, Ok(status=status).encode(0)), [eof])
        self.assertEqual(self.set_option(ON, eof), [eof])
        err = Err(1227, "42000", "no").encode()
        self.assertEqual(self.set_option(ON, err), [err])
        self.assert_sent()

    def test_answer_in_pieces(self) -> None:
        """That answer may come byte by byte."""
        self.client.command(c.COM_SET_OPTION, ON)
        for byte in frame(OK_PAYLOAD, 1):
            self.assertEqual(self.client.payloads(), [])
            self.server.send(bytes((byte,)))
        self.assertEqual(self.client.payloads(), [Eof(0, c.SERVER_STATUS_AUTOCOMMIT).encode()])

    def test_broken_answer(self) -> None:
        """An answer that cannot be read ends the server session, as any other."""
        for answer in (b"\x00", b"", b"\x42"):
            self.setUp()
            self.set_option(ON, answer)
            self.assertEqual(self.server.wire.protocol.reason, CloseReason.SERVER_BROKE_PROTOCOL)

    def test_other_options(self) -> None:
        """What is no option that MySQL knows is refused with 1047, and no server hears of it."""
        for option in (b"", b"\0", b"\7\0", b"\0\0\0"):
            self.client.command(c.COM_SET_OPTION, option)
            self.assertEqual(self.client.error()[0], 1047)
        self.assertEqual(self.server.payloads(), [])

    def test_among_prepared_statements(self) -> None:
        """A session with prepared statements has its answer made right, too."""
        self.client.command(c.COM_STMT_PREPARE, b"do 1")
        self.server.packets()
        self.server.send(frame(b"\x00\1\0\0\0\0\0\0\0\0\0\0", 1))
        self.client.packets()
        self.assertEqual(self.set_option(ON)[0][0], 0xFE)


class StateChangeTests(SynchronousTestCase):
    """What session tracking tells of a change of the session's state."""

    SEEKDB = OtherChange(c.SESSION_TRACK_STATE_CHANGE, b"\x011")
    OTHERS = OtherChange(c.SESSION_TRACK_STATE_CHANGE, b"1")
    NAMES = VariableChanged("character_set_client", "utf8mb4")

    def setUp(self) -> None:
        """Let a client in whose server tracks the session, and sends EOFs."""
        self.house = House()
        self.client, self.server = self.house.log_in()

    def answer(self, text: bytes, *changes: StateChange) -> Ok:
        """Send a statement and its OK with changes, and return the OK that the client gets."""
        self.client.query(text)
        self.server.packets()
        self.server.send(frame(Ok(affected_rows=3, info=b"done", changes=changes).encode(CAPABILITIES), 1))
        (payload,) = self.client.payloads()
        return parse_ok(payload, CAPABILITIES)

    def test_flag_of_seekdb(self) -> None:
        """Seekdb's has a length before the flag, which clients get without; all else in the OK stays."""
        found = self.answer(b"set names utf8mb4", self.NAMES, self.SEEKDB)
        self.assertEqual(found.changes, (self.NAMES, self.OTHERS))
        self.assertEqual((found.affected_rows, found.info), (3, b"done"))
        self.assertTrue(found.status & c.SERVER_SESSION_STATE_CHANGED)

    def test_flag_of_others(self) -> None:
        """One that is as it should be, or none, is left alone."""
        for changes in ((self.NAMES, self.OTHERS), (self.NAMES,), ()):
            self.assertEqual(self.answer(b"set names utf8mb4", *changes).changes, changes)

    def test_change_of_the_database(self) -> None:
        """COM_INIT_DB has it made right, too."""
        self.client.command(c.COM_INIT_DB, b"test")
        self.server.packets()
        self.server.send(frame(Ok(changes=(self.SEEKDB,)).encode(CAPABILITIES), 1))
        (payload,) = self.client.payloads()
        self.assertEqual(parse_ok(payload, CAPABILITIES).changes, (self.OTHERS,))

    def test_in_pieces(self) -> None:
        """Such an OK may come byte by byte."""
        self.client.query(b"set names utf8mb4")
        self.server.packets()
        for byte in frame(Ok(changes=(self.SEEKDB,)).encode(CAPABILITIES), 1):
            self.assertEqual(self.client.payloads(), [])
            self.server.send(bytes((byte,)))
        (payload,) = self.client.payloads()
        self.assertEqual(parse_ok(payload, CAPABILITIES).changes, (self.OTHERS,))

    def test_errors_and_rows(self) -> None:
        """What is no OK passes as it is, and so does the response after it."""
        for first in (Err(1064, "42000", "no").encode(), b"\x01"):
            self.client.query(b"set names utf8mb4")
            self.server.packets()
            self.server.send(frame(first, 1))
            self.assertEqual(self.client.payloads(), [first])
            self.setUp()

    def test_among_prepared_statements(self) -> None:
        """A session with prepared statements has it made right, too."""
        self.client.command(c.COM_STMT_PREPARE, b"do 1")
        self.server.packets()
        self.server.send(frame(b"\x00\1\0\0\0\0\0\0\0\0\0\0", 1))
        self.client.packets()
        self.assertEqual(self.answer(b"set names utf8mb4", self.SEEKDB).changes, (self.OTHERS,))


class RefusalTests(SynchronousTestCase):
    def refuse(self, message: str, sqlstate: str) -> Err:
        """Return what a client gets whose server refuses it so."""
        house = House()
        client = house.connect()
        client.packets()
        client.send(response(CAPABILITIES))
        server = house.accept()
        server.greet()
        server.send(frame(Err(1045, sqlstate, message).encode(), 2))
        (payload,) = client.payloads()
        return parse_err(payload)

    def test_hidden_host(self) -> None:
        """Seekdb's refusal, which hides the host and has a state of its own, becomes that of all other servers."""
        err = self.refuse(MASKED, "42000")
        self.assertEqual(err, Err(1045, "28000", "Access denied for user 'root'@'127.0.0.1' (using password: YES)"))

    def test_other_refusals(self) -> None:
        """Every other refusal stays as it is."""
        err = self.refuse("Access denied for user 'root'@'10.0.0.1'", "42000")
        self.assertEqual(err, Err(1045, "42000", "Access denied for user 'root'@'10.0.0.1'"))

    def test_change_of_user(self) -> None:
        """So it is when COM_CHANGE_USER is refused."""
        house = House()
        client, server = house.log_in()
        client.command(c.COM_CHANGE_USER, b"root\0\0\0\x2d\0mysql_native_password\0")
        server.packets()
        server.send(frame(Err(1045, "42000", MASKED).encode(), 1))
        (payload,) = client.payloads()
        self.assertEqual(parse_err(payload).sqlstate, "28000")
        self.assertIn("'root'@'127.0.0.1'", parse_err(payload).message)
