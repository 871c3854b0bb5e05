"""The accounts of the proxy's own: who may log in, and what they are answered."""

from __future__ import annotations

from attrs import evolve
from twisted.trial.unittest import SynchronousTestCase

from odptwist.errors import CloseReason, SqlError
from odptwist.identity import Identity
from odptwist.sessions.own_accounts import OwnAccount
from odptwist.statements import administrator_statements
from odptwist.wire import constants as c
from odptwist.wire.framing import frame
from odptwist.wire.handshake import (
    AuthSwitchRequest,
    parse_auth_switch_request,
    parse_greeting,
)
from odptwist.wire.responses import parse_err, parse_ok
from odptwist.wire.scramble import native_password
from tests.support.house import CAPABILITIES, House
from tests.support.own_accounts import SECRET, VERIFIER, enter, hello, log_in, make_house

ROOT = Identity("root", "proxysys", "odp")


class AdmissionTests(SynchronousTestCase):
    """Who may log in."""

    def admit(self, host: str, anywhere: bool = False, answer: bytes | None = None) -> str:
        """Return what a client from there is refused with, or an empty text."""
        salt = b"s" * 20
        house = make_house(anywhere)
        accounts = house.registry.surroundings.own_accounts
        try:
            accounts.admit(ROOT, host, native_password(SECRET, salt) if answer is None else answer, salt)
        except SqlError as refusal:
            self.assertEqual((refusal.code, refusal.sqlstate), (1045, "42000"))
            return refusal.message
        return ""

    def test_near_addresses(self) -> None:
        """Loopback, private networks and Unix sockets are near; all others are refused unless they are allowed."""
        near = ["", "127.0.0.1", "127.9.9.9", "10.1.2.3", "172.16.0.1", "172.31.255.255", "192.168.1.1", "::1"]
        near += ["fd00::1", "::ffff:10.0.0.1", "::ffff:127.0.0.1"]
        far = ["8.8.8.8", "172.32.0.1", "192.169.0.1", "11.0.0.1", "100.64.0.1", "198.18.0.1", "203.0.113.9"]
        far += ["2001:db8::1", "::ffff:8.8.8.8", "fe80::1%eth0", "0.0.0.0", "169.254.1.1"]
        for host in near:
            self.assertEqual(self.admit(host), "", host)
        for host in far:
            text = f"Access denied for user 'root'@'{host}' (using password: YES)"
            self.assertEqual(self.admit(host), text)
            self.assertEqual(self.admit(host, anywhere=True), "", host)

    def test_refusals_read_alike(self) -> None:
        """A wrong password, no password in the settings, a far address and a user that is none read the same."""
        text = "Access denied for user '{}'@'{}' (using password: {})"
        self.assertEqual(self.admit("127.0.0.1", answer=b"x" * 20), text.format("root", "127.0.0.1", "YES"))
        self.assertEqual(self.admit("127.0.0.1", answer=b"x"), text.format("root", "127.0.0.1", "YES"))
        self.assertEqual(self.admit("", answer=b""), text.format("root", "localhost", "NO"))
        house = House()
        nobody = house.registry.surroundings.own_accounts
        with self.assertRaises(SqlError) as caught:
            nobody.admit(ROOT, "127.0.0.1", b"x" * 20, b"s" * 20)
        self.assertEqual(caught.exception.message, text.format("root", "127.0.0.1", "YES"))
        with self.assertRaises(SqlError) as caught:
            nobody.admit(evolve(ROOT, user="root2"), "127.0.0.1", b"x" * 20, b"s" * 20)
        self.assertEqual(caught.exception.message, text.format("root2", "127.0.0.1", "YES"))

    def test_secrets_are_not_shown(self) -> None:
        """What is printed of the accounts holds no verifier."""
        self.assertNotIn(VERIFIER.hex(), repr(OwnAccount(administrator_statements(()), VERIFIER)))
        self.assertNotIn(str(VERIFIER), repr(OwnAccount(administrator_statements(()), VERIFIER)))


class LoginTests(SynchronousTestCase):
    """How a client gets in."""

    def test_login_without_a_server(self) -> None:
        """The right password is enough; no server is connected to, not even if none answers."""
        for house in (make_house(), make_house(heard=False)):
            client = house.connect()
            for probe in house.probes:
                probe.callback(None)
            (greeting,) = client.payloads()
            client.send(hello("root@proxysys", native_password(SECRET, parse_greeting(greeting).salt)))
            (packet,) = client.packets()
            self.assertEqual((packet.sequence, packet.payload[0]), (2, 0))
            self.assertEqual(house.attempts, 0)

    def test_snapshot(self) -> None:
        """It is in tenant proxysys of the default cluster, idle, without proxy_sessid and server session."""
        house = make_house()
        for user in ("root@proxysys", "root@proxysys#odp", "root@proxysys#elsewhere", "elsewhere:proxysys:root"):
            seen = enter(house, user).wire.protocol.snapshot()
            self.assertEqual(seen.identity, ROOT)
            self.assertEqual((seen.proxy_sessid, seen.server_sessions, seen.activity), (0, (), "idle"))
            self.assertEqual((seen.pins, seen.bar), ((), ""))

    def test_refusal_ends_the_session(self) -> None:
        """A wrong password is 1045 in the words of ODP, and then the connection ends; no server hears of it."""
        house = make_house()
        for user, name in (("root@proxysys", "root"), ("inspector@proxysys", "inspector"), ("x@proxysys", "x")):
            client = log_in(house, user, b"wrong")
            self.assertEqual(
                client.error(), (1045, f"Access denied for user '{name}'@'127.0.0.1' (using password: YES)")
            )
            house.turn()
            self.assertIsNotNone(client.wire.ended)
            self.assertIs(client.wire.protocol.reason, CloseReason.LOGIN_REFUSED)
        client = log_in(house, password=b"")
        self.assertEqual(client.error()[1], "Access denied for user 'root'@'127.0.0.1' (using password: NO)")
        self.assertEqual(house.attempts, 0)

    def test_another_method(self) -> None:
        """A client that answers by another method is asked for mysql_native_password, whoever it says it is."""
        house = make_house()
        for user, password in (("root@proxysys", SECRET), ("root@proxysys", b"wrong"), ("x@proxysys", SECRET)):
            client = house.connect()
            (greeting,) = client.payloads()
            salt = parse_greeting(greeting).salt
            client.send(hello(user, b"y" * 32, "caching_sha2_password"))
            (packet,) = client.packets()
            request = parse_auth_switch_request(packet.payload)
            self.assertEqual(request, AuthSwitchRequest("mysql_native_password", salt + b"\0"))
            client.send(frame(native_password(password, salt), packet.sequence + 1))
            (answer,) = client.payloads()
            if user == "root@proxysys" and password == SECRET:
                self.assertEqual(answer[0], 0)
            else:
                self.assertEqual(parse_err(answer).code, 1045)

    def test_no_way_round(self) -> None:
        """COM_CHANGE_USER does not lead to an account of the proxy's, and the session stays who it was."""
        house = make_house()
        client, server = house.log_in()
        server.payloads()
        client.command(c.COM_CHANGE_USER, b"root@proxysys\0\x00\0\x2d\0mysql_native_password\0")
        self.assertEqual(client.error()[0], 1045)
        self.assertEqual(server.payloads(), [])
        self.assertEqual(client.wire.protocol.identity, Identity("root", "sys", "odp"))


class CommandTests(SynchronousTestCase):
    """What a session without a server is answered."""

    def setUp(self) -> None:
        """Log the administrator in."""
        self.house = make_house()
        self.client = enter(self.house)

    def ask(self, sql: bytes) -> list[bytes]:
        """Return the payloads that answer a statement."""
        self.client.query(sql)
        return self.client.payloads()

    def ok(self, sql: bytes) -> None:
        """Check that a statement is answered with OK."""
        (answer,) = self.ask(sql)
        self.assertEqual(answer[0], 0, (sql, answer))

    def test_without_effect(self) -> None:
        """What sets up a session or a transaction is answered with OK, in any spelling."""
        for sql in (b"SET AUTOCOMMIT = 0", b"set names utf8mb4", b"BEGIN", b"begin", b"COMMIT", b"ROLLBACK", b"USE x"):
            self.ok(sql)
        self.ok(b"START TRANSACTION")
        self.ok(b"/* x */ SET @a = 1;")
        for command in (c.COM_PING, c.COM_RESET_CONNECTION):
            self.client.command(command)
            self.assertEqual(self.client.payloads()[0][0], 0)
        self.client.command(c.COM_INIT_DB, b"mysql")
        self.assertEqual(self.client.payloads()[0][0], 0)
        self.assertEqual(self.house.attempts, 0)

    def test_statistics(self) -> None:
        """COM_STATISTICS is answered with a text."""
        self.client.command(c.COM_STATISTICS)
        (text,) = self.client.payloads()
        self.assertTrue(text.startswith(b"odptwist"))

    def test_probes(self) -> None:
        """What programs ask at the login gets one row."""
        for sql in (b"select @@version_comment limit 1", b"SELECT 1", b"SELECT @@version, DATABASE(), USER() LIMIT 1"):
            payloads = self.ask(sql)
            self.assertLess(payloads[0][0], 10, sql)
            self.assertEqual(payloads[-1][0], 0xFE)

    def test_nothing_else(self) -> None:
        """Everything else is error 5010; an unknown command is 1047; the session goes on."""
        for sql in (b"SELECT * FROM t", b"INSERT INTO t VALUES (1)", b"SHOW TABLES", b"select 1; select 2", b"", b"x"):
            self.assertEqual(parse_err(self.ask(sql)[0]).code, 5010, sql)
        self.client.command(c.COM_FIELD_LIST, b"t\0")
        self.assertEqual(self.client.error()[0], 1047)
        self.client.command(c.COM_STMT_CLOSE, b"\1\0\0\0")
        self.ok(b"BEGIN")
        self.assertEqual(self.house.attempts, 0)

    def test_long_text(self) -> None:
        """A text that is too long to be a proxy statement is refused, and the next one is answered."""
        self.client.query(b"SET @a = '" + b"x" * 100_000 + b"'")
        self.assertEqual(self.client.error()[0], 8007)
        self.ok(b"BEGIN")

    def test_sent_ahead(self) -> None:
        """Commands that are sent ahead, and in pieces, are answered in their order."""
        data = frame(b"\x03BEGIN", 0) + frame(b"\x0e", 0) + frame(b"\x03SELECT * FROM t", 0) + frame(b"\x03COMMIT", 0)
        for piece in (data[:3], data[3:20], data[20:]):
            self.client.send(piece)
        self.house.turn()
        self.assertEqual([payload[0] for payload in self.client.payloads()], [0, 0, 0xFF, 0])

    def test_quit(self) -> None:
        """COM_QUIT ends the session."""
        self.client.command(c.COM_QUIT)
        self.assertIs(self.client.wire.protocol.reason, CloseReason.CLIENT_QUIT)

    def test_it_sees_and_kills_all(self) -> None:
        """It kills other users' sessions and those that have not said who they are; nobody asks for privileges."""
        victim, server = self.house.log_in("a")
        nobody = self.house.connect()
        server.payloads()
        self.client.query(b"KILL %d" % victim.wire.protocol.cs_id)
        self.house.turn()
        self.assertEqual(self.client.payloads()[0][0], 0)
        self.client.command(c.COM_PROCESS_KILL, nobody.wire.protocol.cs_id.to_bytes(4, "little"))
        self.house.turn()
        self.assertEqual(self.client.payloads()[0][0], 0)
        self.assertEqual((victim.wire.ended, nobody.wire.ended), ("aborted", "aborted"))
        self.assertEqual(server.payloads(), [])

    def test_kill_of_a_running_statement(self) -> None:
        """Without a server session of its own, the server is told by a connection of the victim's account."""
        victim, server = self.house.log_in("a")
        server.payloads()
        victim.query(b"SELECT SLEEP(60)")
        server.payloads()
        self.client.query(b"KILL QUERY %d" % victim.wire.protocol.cs_id)
        side = self.house.open()
        self.assertEqual(side.payloads(), [b"\x03KILL QUERY %d" % server.thread_id])
        side.ok()
        server.err(1317, "Query execution was interrupted")
        self.house.turn()
        self.assertEqual(victim.error()[0], 1317)
        server.packets()
        server.row()
        self.house.turn()
        self.assertEqual(self.client.payloads()[0][0], 0)

    def test_kill_of_itself(self) -> None:
        """It can end itself, which is 1317 and the end of the connection."""
        self.client.query(b"KILL CONNECTION_ID()")
        self.assertEqual(self.client.error()[0], 1317)
        self.house.turn()
        self.assertIs(self.client.wire.protocol.reason, CloseReason.KILLED_ITSELF)

    def test_warnings(self) -> None:
        """A kill that the server did not confirm warns, and SHOW WARNINGS tells why."""
        victim, server = self.house.log_in("a", b"x" * 20)
        server.payloads()
        victim.query(b"SELECT SLEEP(60)")
        self.client.query(b"KILL %d" % victim.wire.protocol.cs_id)
        self.house.turn()
        self.house.reactor.advance(10)
        self.house.turn()
        (answer,) = self.client.payloads()
        self.assertEqual(parse_ok(answer, CAPABILITIES).warnings, 1)
        self.assertEqual(self.ask(b"SHOW WARNINGS")[0], b"\x03")
        self.assertEqual(parse_err(self.ask(b"SHOW WARNINGS")[0]).code, 5010)

    def test_it_is_listed_and_killed(self) -> None:
        """It is a session like others to those who may see it, and another administrator may end it."""
        other = enter(self.house)
        other.query(b"KILL %d" % self.client.wire.protocol.cs_id)
        self.house.turn()
        self.assertEqual(other.payloads()[0][0], 0)
        self.assertEqual(self.client.wire.ended, "aborted")


class InspectorTests(SynchronousTestCase):
    """What the inspector is answered."""

    def test_it_sees_all_and_ends_nothing(self) -> None:
        """PING PROXY and SHOW are answered, of all sessions; KILL and the rest are error 5010."""
        house = make_house()
        victim, server = house.log_in("a")
        server.payloads()
        client = enter(house, "inspector@proxysys")
        number = victim.wire.protocol.cs_id
        client.query(b"PING PROXY")
        self.assertEqual(client.payloads()[0][0], 0)
        for sql in (b"SHOW PROXYSESSION", b"SHOW PROXYSESSION ATTRIBUTE %d" % number, b"SHOW PROXYCLUSTER"):
            client.query(sql)
            self.assertNotEqual(client.payloads()[0][0], 0xFF, sql)
        for sql in (b"KILL %d", b"KILL QUERY %d", b"KILL PROXYSESSION %d"):
            client.query(sql % number)
            self.assertEqual(client.error()[0], 5010)
        client.command(c.COM_PROCESS_KILL, number.to_bytes(4, "little"))
        self.assertEqual(client.error()[0], 5010)
        client.query(b"SET NAMES utf8mb4")
        self.assertEqual(client.payloads()[0][0], 0)
        self.assertEqual(server.payloads(), [])
        self.assertIsNone(victim.wire.ended)
