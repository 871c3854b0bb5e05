"""One number for a session everywhere: ids of version 2."""

from __future__ import annotations

from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from odptwist.sessions.ids import SessionIds
from odptwist.wire import constants as c
from odptwist.wire.framing import frame
from odptwist.wire.handshake import parse_greeting
from odptwist.wire.responses import Eof, Ok
from odptwist.wire.resultset import ColumnDefinition, ResultReader, encode_text_row
from tests.sessions.test_binary import prepared
from tests.support.house import CAPABILITIES, ClientPeer, House, ServerPeer, response, result

IDS = SessionIds(2, 4096)
FIRST = IDS.first
CAST = b"CAST(%d AS UNSIGNED)" % FIRST


def process_list(*rows: tuple[int, str, str]) -> bytes:
    """Return what a server answers to SHOW PROCESSLIST: Id, User and Host, and MariaDB's Progress; all ask for it."""
    kinds = (("Id", 8, 33), ("User", 253, 1), ("Host", 253, 1), ("Info", 253, 0), ("Progress", 5, 0))
    definitions = [
        ColumnDefinition("def", "", "", "", name, "", 45, 100, kind, flags, 0).encode() for name, kind, flags in kinds
    ]
    lines = [
        encode_text_row((b"%d" % number, user.encode(), host.encode(), b"SHOW PROCESSLIST", b"0.000"))
        for number, user, host in rows
    ]
    end = Eof(0, 2).encode()
    payloads = [b"\5", *definitions, end, *lines, end]
    return b"".join(frame(payload, place + 1) for place, payload in enumerate(payloads))


def learn_privileges(house: House, client: ClientPeer, server: ServerPeer) -> None:
    """Make the proxy learn what a client's account may, if it asks for that at all: nothing special."""
    client.query(b"SHOW PROXYSESSION")
    if server.payloads():
        server.send(result([[b"GRANT USAGE ON *.* TO `root`@`%`"]]))
    house.turn()
    client.packets()


class OneIdCase(SynchronousTestCase):
    """Two clients, each with a server session, whose numbers on the server are 101 and 102."""

    def setUp(self) -> None:
        """Log the clients in."""
        self.house = House(ids=IDS)
        self.client, self.server = self.house.log_in()
        self.other, self.other_server = self.house.log_in()
        learn_privileges(self.house, self.client, self.server)

    def rows(self, client: ClientPeer) -> list[tuple[bytes | None, ...]]:
        """Return the rows of the one answer that has come to a client."""
        reader = ResultReader(CAPABILITIES)
        for payload in client.payloads():
            reader.receive(payload)
        return reader.rows


class NumberTests(OneIdCase):
    """What a client is told."""

    def test_greeting(self) -> None:
        """The greeting has an id with the proxy's number in its top bits."""
        fresh = self.house.connect()
        self.house.turn()
        (payload,) = fresh.payloads()
        self.assertEqual(parse_greeting(payload).thread_id, FIRST + 2)

    def test_a_query(self) -> None:
        """The server gets the number, in the place of the call, and other statements as they are."""
        self.client.query(b"SELECT CONNECTION_ID()")
        self.assertEqual(self.server.payloads(), [b"\3SELECT " + CAST + b" AS `CONNECTION_ID()`"])
        self.server.row()
        self.client.query(b"select @@pseudo_thread_id, '\xff'")
        self.assertEqual(self.server.payloads(), [b"\3select " + CAST + b" AS `@@pseudo_thread_id`, '\xff'"])
        self.server.row()
        self.client.query(b"SELECT 'CONNECTION_ID()'")
        self.assertEqual(self.server.payloads(), [b"\3SELECT 'CONNECTION_ID()'"])

    def test_what_it_leaves_behind(self) -> None:
        """A variable that was set to the number has the same one on another server session."""
        self.client.query(b"SET @a = CONNECTION_ID()")
        self.server.packets()
        self.server.ok()
        session: Any = self.client.wire.protocol
        self.assertEqual(session.state.replay(), (f"SET @a = {FIRST}",))

    def test_prepared(self) -> None:
        """A prepared statement has the number in it, and is prepared with it elsewhere, too."""
        self.client.command(c.COM_STMT_PREPARE, b"SELECT CONNECTION_ID(), ?")
        sent = b"\x16SELECT " + CAST + b" AS `CONNECTION_ID()`, ?"
        self.assertEqual(self.server.payloads(), [sent])
        self.server.send(prepared(1, 1))
        self.client.packets()
        self.server.wire.lose()
        self.house.turn()
        self.client.send(frame(b"\x17\1\0\0\0\0\1\0\0\0\0\1\1\0\7", 0))
        again = self.house.open()
        self.assertEqual(again.payloads(), [sent])

    def test_a_long_text(self) -> None:
        """A text that the proxy does not have as a whole goes as it comes."""
        self.client.query(b"SELECT CONNECTION_ID(), '" + b"x" * 100_000 + b"'")
        (payload,) = self.server.payloads()
        self.assertTrue(payload.startswith(b"\3SELECT CONNECTION_ID(),"))

    def test_no_backslash_escapes(self) -> None:
        """Where a backslash is no escape, a text with one goes as it is."""
        self.client.query(b"SET sql_mode = 'NO_BACKSLASH_ESCAPES'")
        self.server.packets()
        self.server.ok(Ok(0, 0, 2 | c.SERVER_STATUS_NO_BACKSLASH_ESCAPES, 0))
        self.client.query(b"SELECT '\\', CONNECTION_ID()")
        self.assertEqual(self.server.payloads(), [b"\3SELECT '\\', CONNECTION_ID()"])

    def test_version_1(self) -> None:
        """With ids of version 1 the server is asked."""
        house = House()
        client, server = house.log_in()
        client.query(b"SELECT CONNECTION_ID()")
        self.assertEqual(server.payloads(), [b"\3SELECT CONNECTION_ID()"])
        server.row()
        client.command(c.COM_PROCESS_INFO)
        self.assertEqual(server.payloads(), [b"\x0a"])


class KillTests(OneIdCase):
    """Whom a number means."""

    def test_an_id_is_never_ambiguous(self) -> None:
        """A number of the proxy's range is a client's session, even if a server has such a number, too."""
        other: Any = self.other.wire.protocol
        other.bound.server_sessid = FIRST
        self.client.query(b"SHOW PROXYSESSION ATTRIBUTE %d LIKE 'cs_id'" % FIRST)
        self.assertEqual([row[1] for row in self.rows(self.client)], [b"%d" % FIRST])
        self.client.query(b"KILL %d" % (FIRST + 7))
        self.assertEqual(self.client.error(), (1094, f"Unknown thread id: {FIRST + 7}"))

    def test_a_connection_id_still_names_a_session(self) -> None:
        """Any other number is a connection id."""
        self.client.query(b"SHOW PROXYSESSION ATTRIBUTE 102 LIKE 'cs_id'")
        self.assertEqual([row[1] for row in self.rows(self.client)], [b"%d" % (FIRST + 1)])

    def test_kill(self) -> None:
        """The number of the greeting ends the session, by a statement and by COM_PROCESS_KILL."""
        self.client.command(c.COM_PROCESS_KILL, (FIRST + 1).to_bytes(4, "little"))
        self.house.turn()
        self.assertEqual(self.other.wire.ended, "aborted")
        self.assertEqual(self.client.payloads()[0][:1], b"\0")


class ProcessListTests(OneIdCase):
    """SHOW PROCESSLIST."""

    def ask(self, server: ServerPeer, asked: bytes, expected: bytes, *rows: tuple[int, str, str]) -> None:
        """Ask for the list, and let the server answer."""
        self.client.query(asked)
        self.assertEqual(server.payloads(), [b"\3" + expected])
        server.send(process_list(*rows))

    def test_ids_and_hosts(self) -> None:
        """Rows of this proxy's sessions have its ids and the clients' addresses, the asker's row has what it said."""
        rows = (101, "root", "10.0.0.7:1"), (102, "root", "10.0.0.7:2"), (5, "repl", "10.0.0.9:3")
        self.ask(self.server, b"show /* x */ processlist;", b"SHOW PROCESSLIST", *rows)
        self.assertEqual(
            self.rows(self.client),
            [
                (b"%d" % FIRST, b"root", b"127.0.0.1:40000", b"show /* x */ processlist;", b"0.000"),
                (b"%d" % (FIRST + 1), b"root", b"127.0.0.1:40000", b"SHOW PROCESSLIST", b"0.000"),
                (b"5", b"repl", b"10.0.0.9:3", b"SHOW PROCESSLIST", b"0.000"),
            ],
        )
        self.ask(self.server, b"SHOW FULL PROCESSLIST", b"SHOW FULL PROCESSLIST", (101, "root", "x"))
        self.assertEqual(len(self.rows(self.client)), 1)

    def test_process_info(self) -> None:
        """COM_PROCESS_INFO is the same."""
        self.client.command(c.COM_PROCESS_INFO)
        self.assertEqual(self.server.payloads(), [b"\3SHOW PROCESSLIST"])
        self.server.send(process_list((102, "root", "x")))
        self.assertEqual([row[0] for row in self.rows(self.client)], [b"%d" % (FIRST + 1)])

    def test_a_stranger_with_such_an_id(self) -> None:
        """A row of somebody else's whose number means one of our clients has 0, which names nobody."""
        self.ask(self.server, b"SHOW PROCESSLIST", b"SHOW PROCESSLIST", (FIRST + 1, "x", "y"))
        self.assertEqual([row[0] for row in self.rows(self.client)], [b"0"])

    def test_what_the_asker_may_not_see(self) -> None:
        """A session that the access policy hides is in no list, although the server shows it (seekdb shows all)."""
        other = self.house.connect()
        other.packets()
        other.send(response("ada"))
        self.house.open()  # 103
        self.client.query(b"SHOW PROCESSLIST")
        self.assertEqual(self.server.payloads(), [b"\3SHOW PROCESSLIST"])
        self.server.send(process_list((101, "root", "x"), (103, "ada", "y"), (5, "repl", "z")))
        self.assertEqual([row[0] for row in self.rows(self.client)], [b"%d" % FIRST, b"5"])

    def test_refusals(self) -> None:
        """What the server refuses is refused; what it alone understands goes there."""
        self.client.query(b"SHOW PROCESSLIST")
        self.server.packets()
        self.server.err(1227, "Access denied")
        self.assertEqual(self.client.error(), (1227, "Access denied"))
        self.client.query(b"SHOW PROCESSLIST WHERE 1")
        self.assertEqual(self.server.payloads(), [b"\3SHOW PROCESSLIST WHERE 1"])

    def test_a_lost_server(self) -> None:
        """A server session that ends over the question is an error, and the next statement opens another one."""
        self.client.query(b"SHOW PROCESSLIST")
        self.server.wire.lose()
        self.house.turn()
        self.assertEqual(self.client.error()[0], 1158)
        self.client.query(b"SHOW PROCESSLIST")
        self.assertEqual(self.client.error()[0], 1158)
        self.client.query(b"SELECT 1")
        self.assertEqual(self.house.open().payloads(), [b"\3SELECT 1"])

    def test_version_1(self) -> None:
        """With ids of version 1 it is the proxy's own list, and the full one the server's."""
        house = House()
        client, server = house.log_in()
        learn_privileges(house, client, server)
        client.query(b"SHOW PROCESSLIST")
        self.assertEqual([row[:3] for row in self.rows(client)], [(b"1", b"sys", b"root")])
        client.query(b"SHOW PROCESSLIST LIMIT 1")
        self.assertEqual(client.error()[0], 5010)
        client.query(b"SHOW FULL PROCESSLIST")
        self.assertEqual(server.payloads(), [b"\3SHOW FULL PROCESSLIST"])
