"""Prepared statements, and servers that understand them: slow, simple and strict."""

from __future__ import annotations

import contextlib

from attrs import Factory, define
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test
from twisted.trial.unittest import SynchronousTestCase

from odptwist.errors import SqlError
from odptwist.machines.prepared import (
    LAST_PREPARED,
    LONG_DATA_LIMIT,
    STATEMENTS_LIMIT,
    TEXTS_LIMIT,
    PreparedStatement,
    PreparedStatements,
    ServerStatement,
    ServerStatements,
    Tie,
)
from odptwist.wire.constants import (
    COM_STMT_EXECUTE,
    COM_STMT_SEND_LONG_DATA,
    MAX_PAYLOAD,
    SERVER_STATUS_AUTOCOMMIT,
    SERVER_STATUS_CURSOR_EXISTS,
    SERVER_STATUS_LAST_ROW_SENT,
)
from odptwist.wire.framing import Deframer, frame
from odptwist.wire.prepared import LongData
from tests.wire.strategies import any_bytes, many, relaxed

AUTO = SERVER_STATUS_AUTOCOMMIT
CURSOR = AUTO | SERVER_STATUS_CURSOR_EXISTS
INT = b"\x03\0"
TEXT = b"\xfd\0"
MOST = 65_535
LOOK = 64 * 1024  # as much of a long command's payload is seen at least


def execute(number: int, parameters: int = 0, types: bytes = b"", values: bytes = b"") -> bytes:
    """Return a framed COM_STMT_EXECUTE without NULLs."""
    head = bytes((COM_STMT_EXECUTE,)) + number.to_bytes(4, "little") + b"\0\x01\0\0\0"
    told = (b"\x01" + types if types else b"\0") if parameters else b""
    return frame(head + bytes((parameters + 7) // 8) + told + values, 0)


class StatementsCase(SynchronousTestCase):
    """A client session with two server sessions."""

    def setUp(self) -> None:
        """Begin with nothing prepared."""
        self.statements = PreparedStatements()
        self.first = ServerStatements()
        self.second = ServerStatements()

    def add(self, parameters: int = 0, number: int = 1, text: bytes | None = b"select 1") -> PreparedStatement:
        """Prepare a statement on the first server session."""
        return self.statements.add(text, self.first, number, parameters)

    def on(self, server: ServerStatements, statement: PreparedStatement) -> ServerStatement:
        """Return a statement as it is prepared on a server session."""
        known = server.use(statement)
        assert known is not None
        return known

    def refused(self, code: int, sqlstate: str, words: str, error: SqlError) -> None:
        """Check an error for the client."""
        self.assertEqual((error.code, error.sqlstate), (code, sqlstate))
        self.assertIn(words, error.message)


class NumberTests(StatementsCase):
    """The client's numbers."""

    def test_same_as_the_servers(self) -> None:
        """A client gets the server's number if it is free."""
        statement = self.statements.add(b"select ?", self.first, 5, 1, "remark")
        self.assertEqual((statement.number, self.on(self.first, statement).number), (5, 5))
        self.assertEqual((statement.text, statement.parameters, statement.remark), (b"select ?", 1, "remark"))

    def test_taken(self) -> None:
        """A number that is taken is replaced by the next one above all that were used."""
        self.add(number=5)
        again = self.statements.add(b"select 2", self.second, 5, 0)
        self.assertEqual((again.number, self.on(self.second, again).number), (6, 5))
        self.assertEqual(self.statements.add(b"select 3", self.second, 6, 0).number, 7)
        self.assertEqual(self.statements.add(b"select 4", self.second, 4, 0).number, 4)

    def test_free_again(self) -> None:
        """The number of a closed statement is free, and never means the old one on a server that still has that."""
        old = self.add()
        self.second.learn(old, 9)
        self.statements.close(old)
        new = self.add(text=b"select 2")
        self.assertEqual(new.number, 1)
        self.assertNotIn(new, self.second)
        self.assertEqual(self.on(self.second, old).number, 9)

    def test_no_number(self) -> None:
        """Neither 0 nor the number that means the last statement is given to a client."""
        self.assertEqual(self.add(number=0).number, 1)
        self.assertEqual(self.add(number=LAST_PREPARED).number, 2)

    def test_highest(self) -> None:
        """When the highest number has been used, the lowest free one follows."""
        self.add(number=1)
        self.assertEqual(self.add(number=LAST_PREPARED - 1).number, LAST_PREPARED - 1)
        self.assertEqual([self.add(number=1).number for _ in range(2)], [2, 3])

    def test_last(self) -> None:
        """MariaDB's number for the last statement means it until the next prepare fails or it is closed."""
        self.assertIsNone(self.statements.get(LAST_PREPARED))
        self.add(number=1)
        second = self.add(number=2)
        self.assertIs(self.statements.get(LAST_PREPARED), second)
        self.statements.prepare_failed()
        self.assertIsNone(self.statements.get(LAST_PREPARED))
        third = self.add(number=3)
        self.assertIs(self.statements.find(execute(LAST_PREPARED)), third)
        self.statements.close(third)
        self.assertIsNone(self.statements.get(LAST_PREPARED))
        self.assertIsNone(self.statements.find(execute(LAST_PREPARED)))

    def test_last_by_its_number(self) -> None:
        """An execute of the last statement bears the server's number when it is passed on."""
        statement = self.add(number=3)
        self.assertEqual(self.on(self.first, statement).execute(execute(LAST_PREPARED)), execute(3))

    def test_find(self) -> None:
        """A command finds its statement; an unknown or cut number finds none."""
        statement = self.add(number=0x0201)
        self.assertIs(self.statements.find(b"\x05\0\0\0\x19\x01\x02\0\0"), statement)
        self.assertIsNone(self.statements.find(b"\x05\0\0\0\x19\x01\x03\0\0"))
        self.assertIsNone(self.statements.find(b"\x03\0\0\0\x19\x01\x02"))

    def test_clear(self) -> None:
        """All statements can be taken away at once."""
        self.add(number=1)
        self.add(number=2)
        self.assertEqual([statement.number for statement in self.statements], [1, 2])
        self.statements.clear()
        self.assertEqual((len(self.statements), list(self.statements)), (0, []))
        self.assertIsNone(self.statements.get(LAST_PREPARED))


class RoomTests(StatementsCase):
    """Limits."""

    def test_too_many(self) -> None:
        """A client session has as many statements as the limit, and not one more until it closes one."""
        for number in range(1, STATEMENTS_LIMIT + 1):
            self.statements.admit(8)
            self.add(number=number)
        words = f"Can't create more than max_prepared_stmt_count statements (current value: {STATEMENTS_LIMIT})"
        self.refused(1461, "42000", words, self.assertRaises(SqlError, self.statements.admit, 0))
        statement = self.statements.get(7)
        assert statement is not None
        self.statements.close(statement)
        self.statements.admit(8)

    def test_texts(self) -> None:
        """All texts together have a limit; a text that is not kept takes nothing of it."""
        statement = self.add(text=b"x" * (TEXTS_LIMIT - 10))
        self.add(number=2, text=None)
        self.statements.admit(10)
        self.refused(1461, "42000", "(current value: 2)", self.assertRaises(SqlError, self.statements.admit, 11))
        self.statements.close(statement)
        self.statements.admit(TEXTS_LIMIT)

    def test_oldest(self) -> None:
        """When a server session is full, the statement that was used least recently makes room."""
        one, two, three = (self.add(number=number) for number in (1, 2, 3))
        self.assertIsNone(self.first.oldest(4))
        self.assertIs(self.first.oldest(3), one)
        self.first.use(one)
        self.assertIs(self.first.oldest(3), two)
        self.assertIs(self.first.oldest(3, keep=two), three)
        forgotten = self.first.forget(two)
        assert forgotten is not None
        self.assertEqual(forgotten.close(), b"\x05\0\0\0\x19\x02\0\0\0")
        self.assertEqual((len(self.first), two in self.first), (2, False))
        self.assertIsNone(self.first.forget(two))
        self.assertIsNone(self.first.use(two))

    def test_all_tied(self) -> None:
        """Statements that are tied to a server session never make room there."""
        self.add(number=1, text=None)
        two = self.add(number=2)
        self.statements.executed(self.on(self.first, two), 0, CURSOR)
        self.assertIsNone(self.first.oldest(2))
        self.second.learn(self.add(number=3), 1)
        self.assertIsNotNone(self.second.oldest(1))

    def test_prepare_again(self) -> None:
        """A statement is prepared again with the same text, and reset and closed under the server's number."""
        statement = self.add(number=3)
        self.assertEqual(statement.prepare(), b"\x09\0\0\0\x16select 1")
        known = self.second.learn(statement, 0x0102)
        self.assertEqual(known.reset(), b"\x05\0\0\0\x1a\x02\x01\0\0")
        self.assertEqual(known.close(), b"\x05\0\0\0\x19\x02\x01\0\0")
        self.second.clear()
        self.assertEqual(len(self.second), 0)
        self.assertIn(statement, self.first)


class TypesTests(StatementsCase):
    """The types of parameters."""

    def test_unchanged(self) -> None:
        """Where nothing is to be changed, the command is not copied."""
        for parameters, types in ((0, b""), (2, INT + TEXT), (2, b"")):
            statement = self.add(parameters, number=len(self.statements) + 1)
            data = execute(statement.number, parameters, types, b"values")
            self.assertIs(self.on(self.first, statement).execute(data), data)

    def test_told_again(self) -> None:
        """A server session that was not told the types gets those that the client has told another one."""
        statement = self.add(2)
        known = self.on(self.first, statement)
        known.execute(execute(1, 2, INT + TEXT, b"a"))
        self.statements.executed(known, 0, AUTO)
        data = execute(1, 2, b"", b"b")
        self.assertIs(known.execute(data), data)
        other = self.second.learn(statement, 9)
        self.assertEqual(other.execute(data), execute(9, 2, INT + TEXT, b"b"))
        self.statements.executed(other, 0, AUTO)
        self.assertEqual(other.execute(data), execute(9, 2, b"", b"b"))

    def test_told_again_after_an_error(self) -> None:
        """An execute that failed may have failed before the types were read, so they are told again."""
        statement = self.add(1)
        known = self.on(self.first, statement)
        known.execute(execute(1, 1, INT, b"a"))
        self.statements.executed(known, 1062, CURSOR)
        self.assertEqual(known.execute(execute(1, 1, b"", b"b")), execute(1, 1, INT, b"b"))
        self.assertIsNone(statement.sole)

    def test_changed(self) -> None:
        """When the client changes types, every other server session is told, too."""
        statement = self.add(1)
        known, other = self.on(self.first, statement), self.second.learn(statement, 1)
        for one in (known, other):
            one.execute(execute(1, 1, INT))
            self.statements.executed(one, 0, AUTO)
        known.execute(execute(1, 1, TEXT))
        self.statements.executed(known, 0, AUTO)
        self.assertEqual(other.execute(execute(1, 1)), execute(1, 1, TEXT))

    def test_bulk(self) -> None:
        """A bulk execute tells types and is told types like any other."""
        statement = self.add(1)
        known = self.on(self.first, statement)
        told = b"\x0a\0\0\0\xfa\x01\0\0\0\x80\0\x03\0\0"
        self.assertIs(known.execute(told), told)
        self.statements.executed(known, 0, AUTO)
        self.assertEqual(statement.types, INT)
        other = self.second.learn(statement, 9)
        self.assertEqual(other.execute(b"\x08\0\0\0\xfa\x01\0\0\0\0\0\0"), b"\x0a\0\0\0\xfa\x09\0\0\0\x80\0\x03\0\0")

    def test_no_room(self) -> None:
        """A command of nearly 16 MiB, or more, cannot be told types."""
        statement = self.add(1)
        known = self.on(self.first, statement)
        known.execute(execute(1, 1, INT))
        self.statements.executed(known, 0, AUTO)
        other = self.second.learn(statement, 9)
        for length in (MAX_PAYLOAD - 1, MAX_PAYLOAD):
            data = length.to_bytes(3, "little") + execute(1, 1, b"", bytes(LOOK))[3:]
            self.refused(1153, "08S01", "must stay below 16 MiB", self.assertRaises(SqlError, other.execute, data))
            self.assertIs(known.execute(data), data)

    def test_more_than_is_seen(self) -> None:
        """Types that have not come as a whole tie the statement to its server session until it is told others."""
        statement = self.add(MOST)
        known, other = self.on(self.first, statement), self.second.learn(statement, 1)
        data = execute(1, MOST, INT * MOST, b"values")
        beginning = data[: 4 + LOOK]
        self.assertIs(known.execute(beginning), beginning)
        self.statements.executed(known, 0, AUTO)
        self.assertEqual((statement.types, statement.ties, statement.sole), (b"", Tie.TYPES, self.first))
        untold = execute(1, MOST)
        self.assertIs(known.execute(untold), untold)
        self.statements.executed(known, 0, AUTO)
        self.refused(
            1158, "08S01", "statement 1 has left its types", self.assertRaises(SqlError, other.execute, untold)
        )
        known.execute(data)
        self.statements.executed(known, 0, AUTO)
        self.assertEqual((statement.types, statement.sole), (INT * MOST, None))
        self.assertEqual(other.execute(untold), execute(1, MOST, INT * MOST))

    def test_told_to_a_beginning(self) -> None:
        """The beginning of a long command has room for the types that a server session must be told."""
        statement = self.add(MOST)
        known, other = self.on(self.first, statement), self.second.learn(statement, 9)
        known.execute(execute(1, MOST, INT * MOST))
        self.statements.executed(known, 0, AUTO)
        data = execute(1, MOST, b"", bytes(LOOK))
        sent = other.execute(data[: 4 + LOOK]) + data[4 + LOOK :]
        self.assertEqual(sent, execute(9, MOST, INT * MOST, bytes(LOOK)))

    def test_malformed(self) -> None:
        """An execute that is too short is passed on, and teaches nothing."""
        statement = self.add(2)
        known = self.on(self.first, statement)
        known.execute(execute(1, 2, INT + TEXT))
        self.statements.executed(known, 0, AUTO)
        whole = execute(LAST_PREPARED, 2, TEXT + INT)
        other = self.second.learn(statement, 9)
        for end in range(5, len(whole) - 4):
            data = frame(whole[4:end], 0)
            sent = other.execute(data)
            self.assertEqual(sent, data[:5] + b"\x09\0\0\0" + data[9:] if end >= 9 else data)
        self.assertEqual((statement.types, statement.sole), (INT + TEXT, None))

    @given(st.integers(0, 20), any_bytes, st.booleans())
    @many
    def test_any_bytes(self, parameters: int, rest: bytes, told: bool) -> None:
        """No bytes make an execute fail, but that it may tie the statement to a server session."""
        statement = self.add(parameters)
        known, other = self.on(self.first, statement), self.second.learn(statement, 9)
        if told:
            known.execute(execute(1, parameters, INT * parameters))
            self.statements.executed(known, 0, AUTO)
        for data in (rest, rest[:4] + bytes((COM_STMT_EXECUTE,)) + rest[5:], frame(b"\xfa\x01\0\0\0" + rest, 0)):
            self.statements.find(data)
            self.statements.keep_long_data(statement, data)
            for one in (known, other):
                with contextlib.suppress(SqlError):
                    one.execute(data)


class LongDataTests(StatementsCase):
    """Long data, which stays here until the execute."""

    def keep(self, statement: PreparedStatement, parameter: int, piece: bytes) -> bool:
        """Let long data come."""
        return self.statements.keep_long_data(statement, LongData(parameter, piece).encode(statement.number))

    def test_kept(self) -> None:
        """Pieces of a parameter are joined and sent before an execute; none are left after it, whatever its end."""
        statement = self.add(2)
        known, other = self.on(self.first, statement), self.second.learn(statement, 9)
        for error in (0, 1062):
            self.assertEqual(self.statements.long_data(known), b"")
            for parameter, piece in ((1, b"a"), (0, b""), (1, b"b")):
                self.assertTrue(self.keep(statement, parameter, piece))
            sent = b"\x09\0\0\0\x18\x01\0\0\0\x01\0ab" + b"\x07\0\0\0\x18\x01\0\0\0\0\0"
            self.assertEqual(self.statements.long_data(known), sent)
            self.assertEqual(self.statements.long_data(other), sent.replace(b"\x18\x01", b"\x18\x09"))
            self.statements.executed(other, error, AUTO)

    def test_pieces(self) -> None:
        """Much long data is sent in pieces."""
        statement = self.add(1)
        value = bytes(range(256)) * 1000
        for at in range(0, len(value), 1000):
            self.assertTrue(self.keep(statement, 0, value[at : at + 1000]))
        packets = Deframer().receive(self.statements.long_data(self.on(self.first, statement)))
        self.assertEqual(b"".join(packet.payload[7:] for packet in packets), value)
        self.assertEqual([len(packet.payload) - 7 for packet in packets], [65_536] * 3 + [59_392])

    def test_too_much(self) -> None:
        """What passes the limit of all statements is handed to one server session, which alone can execute then."""
        one, two = self.add(1, number=1), self.add(1, number=2)
        other = self.second.learn(two, 9)
        self.assertTrue(self.keep(one, 0, bytes(LONG_DATA_LIMIT // 2)))
        self.assertTrue(self.keep(two, 0, b"begin"))
        self.assertFalse(self.keep(two, 0, bytes(LONG_DATA_LIMIT // 2)))
        self.assertEqual(self.statements.hand_over(other), LongData(0, b"begin").encode(9))
        self.assertEqual((two.ties, two.sole), (Tie.LONG_DATA, self.second))
        self.assertFalse(self.keep(two, 0, b"end"))
        self.assertEqual(self.statements.long_data(other), b"")
        known = self.on(self.first, two)
        refusal = self.assertRaises(SqlError, known.execute, execute(2, 1))
        self.refused(1158, "08S01", "statement 2 has left its long data", refusal)
        self.assertRaises(SqlError, self.statements.hand_over, known)
        self.assertIsNone(one.sole)
        self.assertTrue(self.keep(one, 0, bytes(LONG_DATA_LIMIT // 4)))
        self.statements.executed(other, 1062, AUTO)
        self.assertIsNone(two.sole)
        self.assertTrue(self.keep(two, 0, b"new"))
        self.assertEqual(self.statements.long_data(known), LongData(0, b"new").encode(2))

    def test_limit(self) -> None:
        """The room is given back: a value that just fits does so again and again."""
        statement = self.add(1)
        for give_back in (
            lambda: self.statements.executed(self.on(self.first, statement), 0, AUTO),
            lambda: self.statements.was_reset(statement),
            lambda: self.statements.hand_over(self.on(self.first, statement)),
        ):
            self.assertFalse(self.keep(statement, 0, bytes(LONG_DATA_LIMIT)))
            self.assertTrue(self.keep(statement, 0, bytes(LONG_DATA_LIMIT - 128)))
            self.assertTrue(self.keep(statement, 0, b""))
            self.assertFalse(self.keep(statement, 0, b"x"))
            give_back()
        for number in (2, 3):
            closed = self.add(1, number)
            self.assertTrue(self.keep(closed, 0, bytes(LONG_DATA_LIMIT - 128)))
            self.statements.close(closed)

    def test_empty_pieces(self) -> None:
        """Many parameters without a byte take room, too."""
        statement = self.add(MOST)
        kept = sum(self.keep(statement, parameter, b"") for parameter in range(MOST))
        self.assertEqual(kept, LONG_DATA_LIMIT // 128)

    def test_beginning(self) -> None:
        """A piece that has not come as a whole cannot be kept."""
        statement = self.add(1)
        data = LongData(0, bytes(2 * LOOK)).encode(1)
        self.assertFalse(self.statements.keep_long_data(statement, data[: 4 + LOOK]))

    def test_malformed(self) -> None:
        """A piece of no parameter is dropped, as servers do."""
        statement = self.add(1)
        self.assertTrue(self.statements.keep_long_data(statement, b"\x06\0\0\0\x18\x01\0\0\0\0"))
        self.assertEqual(self.statements.long_data(self.on(self.first, statement)), b"")

    def test_lost(self) -> None:
        """After a refused execute the client can send its long data anew."""
        statement = self.add(1)
        self.statements.hand_over(self.on(self.first, statement))
        self.first.clear()
        self.assertIs(statement.sole, self.first)
        self.statements.was_reset(statement)
        self.assertIsNone(statement.sole)
        self.assertTrue(self.keep(statement, 0, b"new"))


class TieTests(StatementsCase):
    """What ties a statement to one server session."""

    def test_cursor(self) -> None:
        """An open cursor ties it until the last row, a reset, a next execute or the end of the server session."""
        statement = self.add()
        known = self.on(self.first, statement)
        for end in (
            lambda: statement.fetched(CURSOR | SERVER_STATUS_LAST_ROW_SENT),
            lambda: self.statements.was_reset(statement),
            lambda: self.statements.executed(known, 0, AUTO),
            self.first.clear,
        ):
            self.statements.executed(known, 0, CURSOR)
            statement.fetched(CURSOR)
            self.assertEqual((statement.ties, statement.sole), (Tie.CURSOR, self.first))
            end()
            self.assertEqual((statement.ties, statement.sole), (Tie(0), None))

    def test_cursor_after_an_error(self) -> None:
        """An execute that failed may have left the cursor open."""
        statement = self.add()
        known = self.on(self.first, statement)
        self.statements.executed(known, 0, CURSOR)
        self.statements.executed(known, 1317, AUTO)
        self.assertIs(statement.sole, self.first)

    def test_text(self) -> None:
        """A text that was not kept ties it for good."""
        statement = self.add(text=None)
        known = self.on(self.first, statement)
        self.statements.executed(known, 0, CURSOR)
        self.statements.was_reset(statement)
        self.first.clear()
        self.assertEqual((statement.ties, statement.sole), (Tie.TEXT, self.first))
        message = "Prepared statement 1 has left its text at a server session that cannot be used now"
        self.refused(1158, "08S01", message, self.assertRaises(SqlError, statement.prepare))

    def test_several(self) -> None:
        """The refusal names all that was left."""
        statement = self.add(text=None)
        self.statements.executed(self.on(self.first, statement), 0, CURSOR)
        self.assertIn("its text, cursor at", statement.lost().message)

    def test_another_cursor(self) -> None:
        """The end of another server session's copy does not close a cursor."""
        statement = self.add()
        self.second.learn(statement, 9)
        self.statements.executed(self.on(self.first, statement), 0, CURSOR)
        self.second.clear()
        self.assertEqual(statement.ties, Tie.CURSOR)


@define
class Prepared:
    """What a server has of a statement."""

    text: bytes
    types: bytes = b""
    long_data: dict[int, bytes] = Factory(dict)
    cursor: bool = False


class Server:
    """A server session that takes at most `LIMIT` statements, and fails where a real one would."""

    LIMIT = 3

    def __init__(self, number: int) -> None:
        self.statements = ServerStatements()
        self.prepared: dict[int, Prepared] = {}
        self.number = number

    def receive(self, data: bytes, error: bool = False, cursor: bool = False) -> Prepared | None:
        """Obey all commands in `data`; return what the last one executed, or has prepared."""
        done = None
        for packet in Deframer(1 << 25).receive(data):
            payload = packet.payload
            number = int.from_bytes(payload[1:5], "little")
            match payload[0]:
                case 0x16:
                    assert len(self.prepared) < self.LIMIT, "maximum open cursors exceeded"
                    self.number += 1
                    done = self.prepared[self.number] = Prepared(payload[1:])
                case 0x17:
                    done = self._execute(self.prepared[number], payload, error, cursor)
                case 0x18:
                    pieces = self.prepared[number].long_data
                    parameter = int.from_bytes(payload[5:7], "little")
                    pieces[parameter] = pieces.get(parameter, b"") + payload[7:]
                case 0x19:
                    del self.prepared[number]
                case 0x1A:
                    self.prepared[number].cursor = False
                    self.prepared[number].long_data = {}
                case 0x1C:
                    assert self.prepared[number].cursor, "fetch out of sequence"
        return done

    def _execute(self, prepared: Prepared, payload: bytes, error: bool, cursor: bool) -> Prepared:
        parameters = prepared.text.count(b"?")
        told = b""
        if parameters:
            at = 10 + (parameters + 7) // 8
            told = payload[at + 1 : at + 1 + 2 * parameters] if payload[at] else prepared.types
            assert len(told) == 2 * parameters, "malformed ps packet"
            assert payload.endswith(b"values")
        done = Prepared(prepared.text, told, prepared.long_data, cursor)
        # One that fails has not read the types here, which is the worse of both ways.
        prepared.types = prepared.types if error else told
        prepared.long_data = {}
        prepared.cursor = cursor and not error
        return done


@define
class Known:
    """What a client knows of a statement."""

    text: bytes
    types: bytes = b""
    long_data: dict[int, bytes] = Factory(dict)
    cursor: bool = False


which_server = st.integers(0, 2)
which_statement = st.integers(0, 1000)


class Sessions(RuleBasedStateMachine):
    """A client session over three server sessions that come and go, against what the client must see."""

    def __init__(self) -> None:
        super().__init__()
        self.statements = PreparedStatements()
        self.servers = [Server(0), Server(0), Server(20)]
        self.client: dict[int, Known] = {}
        self.texts = 0

    def pick(self, which: int) -> tuple[PreparedStatement, Known]:
        """Return one of the statements, and what the client knows of it."""
        number = sorted(self.client)[which % len(self.client)]
        statement = self.statements.get(number)
        assert statement is not None
        assert statement.number == number
        return statement, self.client[number]

    def make_room(self, server: Server, keep: PreparedStatement | None) -> bool:
        """Close what is oldest; say whether there is room then."""
        while oldest := server.statements.oldest(Server.LIMIT, keep):
            closed = server.statements.forget(oldest)
            assert closed is not None
            assert oldest.sole is not server.statements
            assert not server.prepared[closed.number].cursor
            assert not server.prepared[closed.number].long_data
            server.receive(closed.close())
        return len(server.statements) < Server.LIMIT

    def on(self, server: Server, statement: PreparedStatement) -> tuple[Server, ServerStatement | None]:
        """Return the server to execute at and the statement as it is prepared there; none if there is no room."""
        for other in self.servers:
            if statement.sole is other.statements:
                server = other
        if statement.sole not in (None, server.statements):
            self.statements.was_reset(statement)  # as after a refusal
            self.client[statement.number].long_data = {}
        known = server.statements.use(statement)
        if known is None and self.make_room(server, statement):
            server.receive(statement.prepare())
            known = server.statements.learn(statement, server.number)
        return server, known

    @rule(which=which_server, parameters=st.integers(0, 10))
    def prepare(self, which: int, parameters: int) -> None:
        """The client prepares a statement."""
        server = self.servers[which]
        if not self.make_room(server, None):
            return
        self.texts += 1
        text = b"%d" % self.texts + b"?" * parameters
        server.receive(frame(b"\x16" + text, 0))
        self.statements.admit(len(text))
        highest = max(self.client, default=0)
        statement = self.statements.add(text, server.statements, server.number, parameters)
        assert statement.number not in self.client
        assert 0 < statement.number < LAST_PREPARED
        assert statement.number == server.number or statement.number > highest
        assert self.statements.get(LAST_PREPARED) is statement
        self.client[statement.number] = Known(text)

    @precondition(lambda self: self.client)
    @rule(
        which=which_server,
        one=which_statement,
        types=st.sampled_from((b"", b"", b"\x03\0", b"\xfd\0")),
        error=st.booleans(),
        cursor=st.booleans(),
    )
    def execute(self, which: int, one: int, types: bytes, error: bool, cursor: bool) -> None:
        """The client executes a statement, on whichever server session."""
        statement, expected = self.pick(one)
        server, known = self.on(self.servers[which], statement)
        if known is None:
            return
        parameters = statement.parameters
        told = (types or (b"" if expected.types else b"\x08\0")) * parameters
        expected.types = told or expected.types
        data = execute(statement.number, parameters, told, b"values" if parameters else b"")
        assert self.statements.find(data) is statement
        sent = self.statements.long_data(known) + known.execute(data)
        done = server.receive(sent, error, cursor)
        assert done is not None
        assert (done.text, done.types, done.long_data) == (expected.text, expected.types, expected.long_data)
        self.statements.executed(known, 1062 if error else 0, CURSOR if cursor else AUTO)
        expected.long_data = {}
        expected.cursor = cursor and not error
        assert expected.cursor == bool(Tie.CURSOR in statement.ties) or error

    @precondition(lambda self: self.client)
    @rule(which=which_server, one=which_statement, parameter=st.integers(0, 3), large=st.booleans())
    def send_long_data(self, which: int, one: int, parameter: int, large: bool) -> None:
        """The client sends long data, some of it too long to be seen as a whole."""
        statement, expected = self.pick(one)
        piece = bytes(LOOK) if large else b"piece"
        data = LongData(parameter, piece).encode(statement.number)
        if not self.statements.keep_long_data(statement, data[: 4 + LOOK]):
            server, known = self.on(self.servers[which], statement)
            if known is None:
                return
            handed = b"" if Tie.LONG_DATA in statement.ties else self.statements.hand_over(known)
            server.receive(handed + LongData(parameter, piece).encode(known.number))
        expected.long_data[parameter] = expected.long_data.get(parameter, b"") + piece

    @precondition(lambda self: any(known.cursor for known in self.client.values()))
    @rule(last=st.booleans())
    def fetch(self, last: bool) -> None:
        """The client fetches from an open cursor."""
        number = min(number for number, known in self.client.items() if known.cursor)
        statement = self.statements.get(number)
        assert statement is not None
        (server,) = (server for server in self.servers if statement.sole is server.statements)
        known = server.statements.use(statement)
        assert known is not None
        server.receive(frame(b"\x1c" + known.number.to_bytes(4, "little") + b"\x01\0\0\0", 0))
        statement.fetched(CURSOR | SERVER_STATUS_LAST_ROW_SENT if last else CURSOR)
        if last:
            self.client[number].cursor = server.prepared[known.number].cursor = False

    @precondition(lambda self: self.client)
    @rule(one=which_statement)
    def reset(self, one: int) -> None:
        """The client resets a statement."""
        statement, expected = self.pick(one)
        for server in self.servers:
            if statement.sole is server.statements:
                known = server.statements.use(statement)
                assert known is not None
                server.receive(known.reset())
        self.statements.was_reset(statement)
        expected.long_data = {}
        expected.cursor = False

    @precondition(lambda self: self.client)
    @rule(one=which_statement)
    def close(self, one: int) -> None:
        """The client closes a statement."""
        statement, _ = self.pick(one)
        self.statements.close(statement)
        del self.client[statement.number]
        for server in self.servers:
            known = server.statements.forget(statement)
            if known is not None:
                server.receive(known.close())

    @rule(which=which_server)
    def lose(self, which: int) -> None:
        """A server session ends, and another one takes its place."""
        server = self.servers[which]
        for statement in self.statements:
            if statement.sole is server.statements:
                self.client[statement.number].cursor = False
        server.statements.clear()
        self.servers[which] = Server(which)

    @invariant()
    def same_statements(self) -> None:
        """The client's numbers mean the client's texts."""
        assert {statement.number: statement.text for statement in self.statements} == {
            number: known.text for number, known in self.client.items()
        }
        assert len(self.statements) == len(self.client)

    @invariant()
    def same_on_servers(self) -> None:
        """What each server has prepared is known, under the number that it has there."""
        for server in self.servers:
            known = server.statements._statements.values()
            assert {one.number: one.statement.text for one in known} == {
                number: prepared.text for number, prepared in server.prepared.items()
            }


class ModelTests(SynchronousTestCase):
    """Everything together."""

    def test_any_order(self) -> None:
        """Whatever client and servers do, each execute means the text, the types and the long data of the client."""
        run_state_machine_as_test(Sessions, settings=settings(relaxed, max_examples=100, stateful_step_count=40))

    def test_command_bytes(self) -> None:
        """The server of these tests reads the commands of these tests."""
        server = Server(0)
        server.receive(frame(b"\x16select ?", 0))
        data = LongData(0, b"a").encode(1) + execute(1, 1, TEXT, b"values")
        self.assertEqual(data[4], COM_STMT_SEND_LONG_DATA)
        self.assertEqual(server.receive(data), Prepared(b"select ?", TEXT, {0: b"a"}))
