"""Binary prepared statements of a client session that holds several server sessions."""

from __future__ import annotations

from odptwist.wire import constants as c
from odptwist.wire.framing import frame
from odptwist.wire.responses import Eof
from odptwist.wire.resultset import ColumnDefinition
from tests.sessions.test_holding import HoldingCase, ok
from tests.support.house import ServerPeer, result

ROW = result([[b"1"]])


def prepared(number: int, parameters: int = 0) -> bytes:
    """Return the response to a COM_STMT_PREPARE of a statement without columns."""
    head = b"\0" + number.to_bytes(4, "little") + b"\0\0" + parameters.to_bytes(2, "little") + b"\0\0\0"
    definition = ColumnDefinition("def", "", "", "", "?", "?", 63, 0, c.FIELD_TYPE_VAR_STRING, 0, 0).encode()
    payloads = [head, *([definition] * parameters), *([Eof(0, 2).encode()] if parameters else [])]
    return b"".join(frame(payload, place + 1) for place, payload in enumerate(payloads))


def execute(number: int, types: bytes | None = None, value: bytes = b"\x07") -> bytes:
    """Return the payload of an execute of a statement with one parameter of a byte; None: its type is not told."""
    bound = b"\0" if types is None else b"\1" + types
    return b"\x17" + number.to_bytes(4, "little") + b"\0\1\0\0\0" + b"\0" + bound + value


TINY = b"\1\0"


class BinaryTests(HoldingCase):
    """A primary and a replica."""

    def prepare(self, server: ServerPeer, sql: bytes, number: int, parameters: int = 0) -> int:
        """Prepare a statement, at a server that gives it this number, and return the client's number."""
        self.client.command(c.COM_STMT_PREPARE, sql)
        self.assertEqual(server.payloads(), [b"\x16" + sql])
        server.send(prepared(number, parameters))
        return int.from_bytes(self.client.payloads()[0][1:5], "little")

    def run_statement(self, server: ServerPeer, sent: bytes, expected: bytes, answer: bytes = ROW) -> None:
        """Send a command about a statement, and expect it as a server must get it."""
        self.client.send(frame(sent, 0))
        self.assertEqual(server.payloads(), [expected])
        server.send(answer)
        self.client.packets()

    def test_numbers(self) -> None:
        """The client's numbers are the proxy's: two servers that give the same one are told apart."""
        write = self.prepare(self.primary, b"delete from t", 1)
        replica = self.open_replica()
        read = self.prepare(replica, b"select 1", 1)
        self.assertEqual((write, read), (1, 2))
        plain = b"\0\1\0\0\0"
        self.run_statement(replica, b"\x17\2\0\0\0" + plain, b"\x17\1\0\0\0" + plain)
        self.run_statement(self.primary, b"\x17\1\0\0\0" + plain, b"\x17\1\0\0\0" + plain, ok())
        self.client.send(frame(b"\x19\2\0\0\0", 0))
        self.assertEqual(replica.payloads(), [b"\x19\1\0\0\0"])
        self.client.send(frame(b"\x17\2\0\0\0" + plain, 0))
        self.assertEqual(self.client.error()[0], 1243)

    def test_prepared_again(self) -> None:
        """A statement is prepared where it is executed, and the types of its parameters are told again there."""
        number = self.prepare(self.primary, b"select ? for update", 1, 1)
        self.run_statement(self.primary, execute(number, TINY), execute(1, TINY))
        self.run_statement(self.primary, execute(number), execute(1))
        self.primary.wire.lose()
        self.house.turn()
        self.client.send(frame(execute(number), 0))
        primary = self.house.open()
        self.assertEqual(primary.payloads(), [b"\x16select ? for update"])
        primary.send(prepared(9, 1))
        self.assertEqual(primary.payloads(), [execute(9, TINY)])
        primary.send(ROW)
        self.client.packets()
        self.run_statement(primary, execute(number), execute(9))

    def test_server_that_refuses_to_prepare_again(self) -> None:
        """What a server says to the proxy's own COM_STMT_PREPARE is what the client gets."""
        number = self.prepare(self.primary, b"delete from t", 1)
        self.primary.wire.lose()
        self.house.turn()
        self.client.send(frame(b"\x17" + number.to_bytes(4, "little") + b"\0\1\0\0\0", 0))
        primary = self.house.open()
        primary.packets()
        primary.err(1146, "Table 't' doesn't exist")
        self.assertEqual(self.client.error(), (1146, "Table 't' doesn't exist"))

    def lose_primary(self, number: int) -> ServerPeer:
        """Lose the primary between a statement in database one and its execute in two; return the next primary."""
        self.ask(self.primary, b"use one", ok())
        self.prepare(self.primary, b"delete from t", number)
        self.ask(self.primary, b"use two", ok())
        self.ask(self.primary, b"set sql_mode = ''", ok())
        self.primary.wire.lose()
        self.house.turn()
        self.client.send(frame(b"\x17\1\0\0\0\0\1\0\0\0", 0))
        primary = self.house.open()
        self.assertEqual(primary.payloads(), [b"\x03SET @@session.sql_mode = ''"])
        primary.ok()
        there = [b"\x03USE `one`", b"\x03SET @@session.sql_mode = DEFAULT"]
        back = [b"\x03USE `two`", b"\x03SET @@session.sql_mode = ''"]
        self.assertEqual(primary.payloads(), [*there, b"\x16delete from t", *back])
        return primary

    def test_prepared_again_as_before(self) -> None:
        """The names in a statement that is prepared again mean what they meant, whatever is the database now."""
        primary = self.lose_primary(1)
        primary.send(ok() + ok() + prepared(5) + ok() + ok())
        self.assertEqual(primary.payloads(), [b"\x17\5\0\0\0\0\1\0\0\0"])
        primary.ok()
        self.assertEqual(len(self.client.packets()), 1)
        self.ask(primary, b"delete from t", ok())

    def test_database_of_a_statement_has_gone(self) -> None:
        """If its database cannot be had any more, that is the answer, and the statement is closed."""
        primary = self.lose_primary(1)
        primary.err(1049, "Unknown database 'one'")
        primary.send(ok() + prepared(5) + ok() + ok())
        self.assertEqual(self.client.error(), (1049, "Unknown database 'one'"))
        self.assertEqual(primary.payloads(), [b"\x19\5\0\0\0"])
        self.ask(primary, b"delete from t", ok())

    def test_no_way_back_from_the_database_of_a_statement(self) -> None:
        """A server session that is left with another database is not used."""
        primary = self.lose_primary(1)
        primary.send(ok() + ok() + prepared(5))
        primary.err(1049, "Unknown database 'two'")
        primary.ok()
        self.assertEqual((primary.wire.ended, primary.payloads()), ("aborted", []))

    def test_long_data(self) -> None:
        """Long data goes to the server that executes, just before; what is too much ties the statement to one."""
        number = self.prepare(self.primary, b"insert into t values (?)", 1, 1)
        replica = self.open_replica()
        piece = b"\x18\1\0\0\0\0\0"
        self.client.send(frame(piece + b"abc", 0))
        self.client.send(frame(piece + b"def", 0))
        self.assertEqual((replica.payloads(), self.primary.payloads()), ([], []))
        self.client.send(frame(execute(number, TINY, b""), 0))
        self.assertEqual(self.primary.payloads(), [piece + b"abcdef", execute(1, TINY, b"")])
        self.primary.send(ok())
        self.client.packets()
        self.ask(self.primary, b"show tables")
        self.house.reactor.advance(1)
        long = frame(piece + b"x" * 200_000, 0)
        self.client.send(long[:100_000])
        self.client.send(long[100_000:])
        self.assertEqual(self.primary.payloads(), [piece + b"x" * 200_000])
        self.primary.wire.lose()
        self.house.turn()
        self.client.send(frame(execute(number, TINY, b""), 0))
        self.assertIn("long data", self.client.error()[1])

    def test_effects(self) -> None:
        """What a prepared statement leaves behind follows from its execution on, not from its preparation."""
        self.prepare(self.primary, b"set @a = 1", 1)
        self.assertEqual(self.session.state.replay(), ())
        self.run_statement(self.primary, b"\x17\1\0\0\0\0\1\0\0\0", b"\x17\1\0\0\0\0\1\0\0\0", ok())
        self.assertEqual(self.session.state.replay(), ("SET @a = 1",))
        self.prepare(self.primary, b"set @b = ?", 2, 1)
        self.run_statement(self.primary, execute(2, TINY), execute(2, TINY), ok())
        self.assertEqual(self.session.snapshot().pins, ("SET @b",))

    def test_reset_and_fetch(self) -> None:
        """A read with a cursor goes to the primary, as what follows does, and its rows are fetched there."""
        replica = self.open_replica()
        number = self.prepare(replica, b"select 2", 1)
        self.client.send(frame(b"\x17\1\0\0\0\1\1\0\0\0", 0))
        self.assertEqual(self.primary.payloads(), [b"\x16select 2"])
        self.primary.send(prepared(7))
        self.assertEqual(self.primary.payloads(), [b"\x17\7\0\0\0\1\1\0\0\0"])
        head = frame(b"\1", 1) + frame(_definition(), 2) + frame(Eof(0, 2 | c.SERVER_STATUS_CURSOR_EXISTS).encode(), 3)
        self.primary.send(head)
        self.client.packets()
        self.assertEqual(self.session.snapshot().pins, ("open cursors",))
        self.ask(replica, b"select 3")
        fetch = b"\x1c" + number.to_bytes(4, "little") + b"\1\0\0\0"
        rows = frame(b"\0\0\0011", 1) + frame(Eof(0, 2).encode(), 2)
        self.run_statement(self.primary, fetch, b"\x1c\7\0\0\0\1\0\0\0", rows)
        self.run_statement(self.primary, b"\x1a\1\0\0\0", b"\x1a\7\0\0\0", ok())
        self.assertEqual(self.session.snapshot().pins, ())

    def test_too_many_for_the_server(self) -> None:
        """A server that has no room for another statement is asked to close the one that was not used for longest."""
        for number in (1, 2):
            self.prepare(self.primary, b"delete from t%d" % number, number)
        self.client.command(c.COM_STMT_PREPARE, b"delete from t3")
        self.primary.packets()
        self.primary.err(5930, "maximum open cursors exceeded")
        self.assertEqual(self.primary.payloads(), [b"\x19\1\0\0\0", b"\x16delete from t3"])
        self.primary.send(prepared(3))
        self.assertEqual(self.client.payloads()[0][:5], b"\0\3\0\0\0")
        self.client.send(frame(b"\x17\1\0\0\0\0\1\0\0\0", 0))
        self.assertEqual(self.primary.payloads(), [b"\x19\2\0\0\0", b"\x16delete from t1"])
        self.primary.send(prepared(4))
        self.assertEqual(self.primary.payloads(), [b"\x17\4\0\0\0\0\1\0\0\0"])
        self.primary.send(ok())
        self.client.packets()

    def test_reset_connection(self) -> None:
        """COM_RESET_CONNECTION closes all statements."""
        self.prepare(self.primary, b"delete from t", 1)
        self.client.command(c.COM_RESET_CONNECTION)
        self.primary.packets()
        self.primary.send(ok())
        self.client.packets()
        self.client.send(frame(b"\x17\1\0\0\0\0\1\0\0\0", 0))
        self.assertEqual(self.client.error()[0], 1243)

    def test_reply_in_pieces(self) -> None:
        """The number in a response is changed however the response comes."""
        replica = self.open_replica()
        self.prepare(replica, b"select 1", 1)
        self.client.command(c.COM_STMT_PREPARE, b"delete from t")
        self.primary.packets()
        for byte in prepared(1):
            self.primary.send(bytes((byte,)))
        self.assertEqual(self.client.payloads()[0][:5], b"\0\2\0\0\0")


def _definition() -> bytes:
    return ColumnDefinition("def", "", "", "", "x", "x", 45, 100, c.FIELD_TYPE_VAR_STRING, 0, 0).encode()
