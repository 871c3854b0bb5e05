"""Proxy statements by COM_STMT_PREPARE and COM_STMT_EXECUTE."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from odptwist.wire import constants as c
from odptwist.wire.framing import frame
from odptwist.wire.prepared import PrepareReader
from odptwist.wire.resultset import parse_binary_row, parse_column_definition
from tests.sessions.test_binary import prepared
from tests.sessions.test_one_id import learn_privileges
from tests.support.house import CAPABILITIES, IN_TRANSACTION, House
from tests.support.own_accounts import enter, make_house

LONGLONG = b"\x08\0"
STRING = b"\xfe\0"


class PreparedTests(SynchronousTestCase):
    """Two clients; the first one prepares."""

    def setUp(self) -> None:
        """Log the clients in."""
        self.house = House()
        self.client, self.server = self.house.log_in()
        self.other, self.other_server = self.house.log_in()
        learn_privileges(self.house, self.client, self.server)

    def prepare(self, sql: bytes) -> PrepareReader:
        """Prepare a statement, and return the answer."""
        self.client.command(c.COM_STMT_PREPARE, sql)
        reader = PrepareReader(CAPABILITIES)
        payloads = self.client.payloads()
        ends = [reader.receive(payload) for payload in payloads]
        self.assertEqual(ends, [False] * (len(payloads) - 1) + [True])
        self.assertIsNone(reader.error)
        return reader

    def execute(self, number: int, *values: int | bytes | None, told: bool = True) -> list[bytes]:
        """Execute a statement, and return the payloads of the answer."""
        nulls = sum(1 << place for place, value in enumerate(values) if value is None)
        types = b"".join(LONGLONG if isinstance(value, int) else STRING for value in values)
        sent = b"".join(
            value.to_bytes(8, "little", signed=True) if isinstance(value, int) else bytes((len(value),)) + value
            for value in values
            if value is not None
        )
        rest = nulls.to_bytes((len(values) + 7) // 8, "little") + (b"\1" + types if told else b"\0") + sent
        self.client.command(
            c.COM_STMT_EXECUTE, number.to_bytes(4, "little") + b"\0\1\0\0\0" + (rest if values else b"")
        )
        self.house.turn()
        return self.client.payloads()

    def code(self, payloads: list[bytes]) -> int:
        """Return the code of the one ERR packet."""
        (payload,) = payloads
        self.assertEqual(payload[:1], b"\xff")
        return int.from_bytes(payload[1:3], "little")

    def test_a_table(self) -> None:
        """The columns are told at once, and the rows are binary ones."""
        reply = self.prepare(b"SHOW PROXYSESSION")
        self.assertEqual((reply.columns, reply.parameters), (12, 0))
        payloads = self.execute(reply.number)
        self.assertEqual(payloads[0], b"\x0c")
        self.assertEqual(len(payloads), 1 + 12 + 1 + 2 + 1)
        columns = [parse_column_definition(payload) for payload in payloads[1:13]]
        rows = [parse_binary_row(payload, columns) for payload in payloads[14:16]]
        self.assertEqual([row[1:5] for row in rows], [(1, b"odp", b"sys", b"root"), (2, b"odp", b"sys", b"root")])
        self.assertEqual(self.server.payloads(), [])

    def test_a_parameter(self) -> None:
        """An id may be a parameter: an integer, or its digits; its type need not be told twice."""
        reply = self.prepare(b"SHOW PROXYSESSION ATTRIBUTE ? LIKE 'cs_id'")
        self.assertEqual((reply.columns, reply.parameters), (3, 1))
        self.assertEqual(self.execute(reply.number, 2)[-2], b"\0\0\5cs_id\0012\x09cs common")
        self.assertEqual(self.execute(reply.number, 1, told=False)[-2], b"\0\0\5cs_id\0011\x09cs common")
        self.assertEqual(self.execute(reply.number, b"2")[-2], b"\0\0\5cs_id\0012\x09cs common")
        self.assertEqual(self.code(self.execute(reply.number, 9)), 1094)
        for wrong in (b"x", None):
            self.assertEqual(self.code(self.execute(reply.number, wrong)), 1210)

    def test_kill(self) -> None:
        """A kill with parameters has no columns, and does what its text does."""
        reply = self.prepare(b"KILL QUERY ?")
        self.assertEqual((reply.columns, reply.parameters), (0, 1))
        self.assertEqual(self.execute(reply.number, 2)[0][:1], b"\0")
        self.assertEqual(self.code(self.execute(self.prepare(b"KILL PROXYSESSION ? ?").number, 2, 99)), 1094)
        self.assertEqual(self.execute(self.prepare(b"KILL ?").number, 2)[0][:1], b"\0")
        self.assertEqual(self.other.wire.ended, "aborted")
        self.assertEqual(self.code(self.execute(self.prepare(b"KILL PROXYSESSION CONNECTION_ID()").number)), 1317)
        self.house.reactor.advance(2)
        self.assertIsNotNone(self.client.wire.ended)

    def test_columns_of_a_kill_with_where(self) -> None:
        """A kill that answers with rows tells its columns."""
        self.assertEqual(self.prepare(b"KILL PROXYSESSION WHERE Id = ? LIMIT ?").columns, 5)
        self.assertEqual(self.prepare(b"KILL PROXYSESSION ? DRY RUN").columns, 5)

    def test_columns_are_those_of_the_answer(self) -> None:
        """What is told of the columns when a statement is prepared is what comes when it is executed."""
        for text in (
            *(
                "SHOW PROXYSESSION",
                "SHOW FULL PROXYSESSION",
                "SHOW PROXYSESSION HISTORY",
                "SHOW PROXYSESSION ATTRIBUTE",
            ),
            *("KILL PROXYSESSION WHERE 0", "KILL PROXYSESSION 1 DRY RUN", "SHOW PROCESSLIST"),
        ):
            self.client.command(c.COM_STMT_PREPARE, text.encode())
            reply, *definitions = self.client.payloads()
            number = int.from_bytes(reply[1:5], "little")
            count, *answered = self.execute(number)
            self.assertEqual(count, reply[5:6], text)
            self.assertEqual(answered[: count[0]], definitions[: count[0]], text)

    def test_refused(self) -> None:
        """What is refused as a text is refused when it is prepared, and a long one is too long."""
        for sql, code in (
            (b"SHOW PROXYSESSIONS", 5010),
            (b"KILL ?, ?", 5010),
            (b"SELECT 1; KILL ?", 1235),
            (b"SHOW PROXYSESSION" + b" " * 70_000, 8007),
        ):
            self.client.command(c.COM_STMT_PREPARE, sql)
            self.assertEqual(self.client.error()[0], code, sql[:30])
        self.assertEqual(self.server.payloads(), [])

    def test_in_a_transaction(self) -> None:
        """A transaction stays open, and the answer says so."""
        self.client.query(b"BEGIN")
        self.server.ok(IN_TRANSACTION)
        self.client.packets()
        payloads = self.execute(self.prepare(b"SHOW PROXYSESSION").number)
        self.assertEqual(payloads[-1], b"\xfe\0\0" + IN_TRANSACTION.status.to_bytes(2, "little"))

    def test_numbers(self) -> None:
        """The proxy's statements and the server's never have the same number."""
        own = self.prepare(b"SHOW PROXYSESSION").number
        self.client.command(c.COM_STMT_PREPARE, b"SELECT 1")
        self.server.packets()
        self.server.send(prepared(own))
        theirs = int.from_bytes(self.client.payloads()[0][1:5], "little")
        self.assertNotEqual(own, theirs)
        self.client.send(frame(b"\x17" + theirs.to_bytes(4, "little") + b"\0\1\0\0\0", 0))
        self.assertEqual(self.server.payloads(), [b"\x17" + own.to_bytes(4, "little") + b"\0\1\0\0\0"])
        self.server.ok()
        self.client.packets()
        self.assertEqual(self.execute(own)[0], b"\x0c")

    def test_close_and_reset(self) -> None:
        """A closed statement is unknown; a reset is OK; nothing can be fetched."""
        number = self.prepare(b"SHOW PROXYSESSION ATTRIBUTE ?").number
        encoded = number.to_bytes(4, "little")
        self.client.command(c.COM_STMT_SEND_LONG_DATA, encoded + b"\0\0" + b"2")
        self.client.command(c.COM_STMT_RESET, encoded)
        self.assertEqual(self.client.payloads()[0][:1], b"\0")
        self.client.command(c.COM_STMT_FETCH, encoded + b"\1\0\0\0")
        self.assertEqual(self.client.error()[0], 1421)
        self.assertEqual(self.execute(number, 1)[0], b"\3")
        self.client.command(c.COM_STMT_CLOSE, encoded)
        self.assertEqual(self.code(self.execute(number, 1)), 1243)
        number = self.prepare(b"SHOW PROXYSESSION").number
        self.client.command(c.COM_RESET_CONNECTION)
        self.server.packets()
        self.server.ok()
        self.client.packets()
        self.assertEqual(self.code(self.execute(number)), 1243)

    def test_long_data(self) -> None:
        """A value may come in pieces; too much of it is too long."""
        number = self.prepare(b"SHOW PROXYSESSION ATTRIBUTE ? LIKE 'cs_id'").number
        for piece in b"0", b"2":
            self.client.command(c.COM_STMT_SEND_LONG_DATA, number.to_bytes(4, "little") + b"\0\0" + piece)
        self.client.command(c.COM_STMT_EXECUTE, number.to_bytes(4, "little") + b"\0\1\0\0\0\0\1" + STRING)
        self.assertEqual(self.client.payloads()[-2], b"\0\0\5cs_id\0012\x09cs common")
        self.client.send(frame(b"\x18" + number.to_bytes(4, "little") + b"\0\0" + b"1" * 2_000_000, 0))
        self.assertEqual(self.code(self.execute(number, 1)), 8007)
        self.assertEqual(self.execute(number, 1)[0], b"\3")

    def test_sent_ahead(self) -> None:
        """A client may prepare, execute the last one prepared, and go on, all in one go."""
        execute = frame(b"\x17\xff\xff\xff\xff\0\1\0\0\0", 0)
        self.client.send(frame(b"\x16SHOW PROXYSESSION", 0) + execute + frame(b"\3SELECT 1", 0))
        self.house.turn()
        self.assertEqual(len(self.client.payloads()), 1 + 12 + 1 + 1 + 12 + 1 + 2 + 1)
        self.assertEqual(self.server.payloads(), [b"\3SELECT 1"])

    def test_malformed(self) -> None:
        """An execute that cannot be read is answered, and the session goes on."""
        number = self.prepare(b"KILL ?").number.to_bytes(4, "little")
        self.client.command(c.COM_STMT_EXECUTE, number + b"\0\1\0\0\0")
        self.assertEqual(self.client.error()[0], c.ER_MALFORMED_PACKET)
        self.client.command(c.COM_STMT_BULK_EXECUTE, number + b"\x80\0" + LONGLONG)
        self.assertEqual(self.client.error()[0], 1295)


class AdministratorTests(SynchronousTestCase):
    """An account of the proxy's own, which has no server, prepares too."""

    def test_prepared(self) -> None:
        """Statements are prepared, executed with parameters, reset and closed; there are no others."""
        house = make_house()
        client = enter(house, "root@proxysys")
        client.command(c.COM_STMT_PREPARE, b"SHOW PROXYSESSION ATTRIBUTE ? LIKE 'cs_id'")
        number = client.payloads()[0][1:5]
        execute = number + b"\0\1\0\0\0\0\1" + LONGLONG + (1).to_bytes(8, "little")
        client.command(c.COM_STMT_EXECUTE, execute)
        house.turn()
        self.assertEqual(client.payloads()[-2], b"\0\0\5cs_id\0011\x09cs common")
        client.command(c.COM_STMT_RESET, number)
        self.assertEqual(client.payloads()[0][:1], b"\0")
        client.command(c.COM_STMT_FETCH, number + b"\1\0\0\0")
        self.assertEqual(client.error()[0], 1421)
        client.command(c.COM_STMT_SEND_LONG_DATA, number + b"\0\0" + b"x")
        client.command(c.COM_STMT_EXECUTE, execute)
        self.assertEqual(client.error()[0], 1210)
        client.command(c.COM_STMT_CLOSE, number)
        client.command(c.COM_STMT_EXECUTE, execute)
        self.assertEqual(client.error()[0], 1243)
        client.command(c.COM_STMT_PREPARE, b"CREATE TABLE t (a INT)")
        self.assertEqual(client.error()[0], 5010)

    def test_execute_before_any_prepare(self) -> None:
        """A number that was never given is 1243."""
        client = enter(make_house(), "root@proxysys")
        client.command(c.COM_STMT_EXECUTE, b"\1\0\0\0\0\1\0\0\0")
        self.assertEqual(client.error()[0], 1243)
        client.command(c.COM_STMT_CLOSE, b"\1\0\0\0")
        client.command(c.COM_PING)
        self.assertEqual(client.payloads()[0][:1], b"\0")
