"""Tests of the variables of a client session, in a proxy in memory."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from odptwist.errors import SqlError
from odptwist.machines.session_state import SessionState, effects_of
from odptwist.sessions.variables import set_variables
from odptwist.snapshots import SessionVariables, VariableKind
from odptwist.wire.responses import Ok
from tests.support.house import ClientPeer, House
from tests.support.results import table

COLD, HOT, USER = VariableKind.COLD, VariableKind.HOT, VariableKind.USER

# What a client says, and what it has set then.
SET = [
    ("SET autocommit = 0", [("autocommit", "0", HOT)]),
    ("SET SESSION ob_query_timeout = 5", [("ob_query_timeout", "5", HOT)]),
    ("SET sql_mode = 'ANSI'", [("sql_mode", "'ANSI'", COLD)]),
    ('SET sql_mode = "A\'B"', [("sql_mode", "'A''B'", COLD)]),
    ("SET character_set_results = utf8mb4", [("character_set_results", "'utf8mb4'", COLD)]),
    ("SET sql_mode = DEFAULT", [("sql_mode", "DEFAULT", COLD)]),
    ("SET @A = NULL", [("a", "NULL", USER)]),
    ("SET @`a b` = -1", [("a b", "-1", USER)]),
    ("SET last_insert_id = 7", [("last_insert_id", "7", VariableKind.LAST_INSERT_ID)]),
    (
        "SET NAMES latin1 COLLATE latin1_bin",
        [
            ("character_set_client", "'latin1'", COLD),
            ("character_set_results", "'latin1'", COLD),
            ("character_set_connection", "'latin1'", COLD),
            ("collation_connection", "'latin1_bin'", COLD),
        ],
    ),
    (
        "SET CHARACTER SET 'utf8mb4'",
        [("character_set_client", "'utf8mb4'", COLD), ("character_set_results", "'utf8mb4'", COLD)],
    ),
    (
        "SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED",
        [("transaction_isolation", "'READ-COMMITTED'", COLD)],
    ),
    ("SET SESSION TRANSACTION READ ONLY", [("transaction_read_only", "1", COLD)]),
    ("SET ROLE boss", []),
    ("SET sql_mode = CONCAT('A', 'B')", []),
    ("SET GLOBAL wait_timeout = 1", []),
]


class SetVariablesTests(SynchronousTestCase):
    def set(self, *texts: str) -> list[tuple[str, str, VariableKind]]:
        """Return what a session has set after these statements."""
        state = SessionState()
        for text in texts:
            state.learn(effects_of(text))
        return [(each.name, each.value, each.kind) for each in set_variables(state)]

    def test_table(self) -> None:
        """Each assignment that can be replayed is a variable, by the name that the server has for it."""
        for text, expected in SET:
            self.assertEqual(self.set(text), expected, text)

    def test_system_variables_come_first(self) -> None:
        """User variables come last, whatever came when."""
        found = self.set("SET wait_timeout = 1, @a = 'x', @@session.lock_wait_timeout = 2")
        self.assertEqual([name for name, _, _ in found], ["wait_timeout", "lock_wait_timeout", "a"])

    def test_the_last_one_counts(self) -> None:
        """What SET NAMES has set can be set one by one after it, and the other way round."""
        found = {name: value for name, value, _ in self.set("SET NAMES a", "SET character_set_client = b")}
        self.assertEqual(found["character_set_client"], "'b'")
        found = {name: value for name, value, _ in self.set("SET character_set_client = b", "SET NAMES a")}
        self.assertEqual(found["character_set_client"], "'a'")


class SessionVariablesTests(SynchronousTestCase):
    def setUp(self) -> None:
        """Let a client log in, and set something."""
        self.house = House()
        self.client, self.server = self.house.log_in(unprivileged=True)
        for text in (b"SET @a = 'x'", b"SET autocommit = 0"):
            self.client.query(text)
            self.server.ok()
        self.server.packets()

    def variables(self, all_of_them: bool, of: ClientPeer | None = None) -> list[SessionVariables]:
        """Ask for a session's variables; the list gets the answer when it comes."""
        asker = self.client.wire.protocol.asker()
        number = (of or self.client).wire.protocol.cs_id
        answers: list[SessionVariables] = []
        self.house.registry.variables(asker, number, all_of_them, exact=True).addCallback(answers.append)
        return answers

    def test_what_was_set_is_known(self) -> None:
        """Without ALL nobody is asked."""
        (found,) = self.variables(False)
        self.assertEqual([each.name for each in found.variables], ["autocommit", "a"])
        self.assertEqual((found.missing, self.server.payloads()), ("", []))

    def test_all_are_asked_of_the_server(self) -> None:
        """The server tells the rest, which comes between the system variables that were set and the user variables."""
        answers = self.variables(True)
        self.assertEqual(self.server.payloads(), [b"\x03SHOW SESSION VARIABLES"])
        rows = [(b"autocommit", b"OFF"), (b"OB_LOG_LEVEL", b""), (b"sql_mode", b"it's"), (b"x", b"-1.5")]
        self.server.send(table(["Variable_name", "Value"], *rows))
        (found,) = answers
        self.assertEqual(
            [(each.name, each.value, each.kind, each.changed) for each in found.variables],
            [
                ("autocommit", "0", HOT, True),
                ("ob_log_level", "''", HOT, False),
                ("sql_mode", "'it''s'", COLD, False),
                ("x", "-1.5", COLD, False),
                ("a", "'x'", USER, True),
            ],
        )
        self.assertEqual(found.missing, "")

    def test_last_insert_id(self) -> None:
        """The last insert id is one of the variables, once there is one."""
        self.client.query(b"INSERT INTO t VALUES ()")
        self.server.ok(Ok(1, 42, 2, 0))
        (found,) = self.variables(False)
        (last,) = [each for each in found.variables if each.kind is VariableKind.LAST_INSERT_ID]
        self.assertEqual((last.name, last.value), ("last_insert_id", "42"))

    def test_a_server_that_refuses(self) -> None:
        """What is known is told all the same, and why that is all."""
        answers = self.variables(True)
        self.server.err(1142, "not for you")
        self.assertEqual(len(answers[0].variables), 2)
        self.assertIn("not for you", answers[0].missing)

    def test_a_server_session_that_ends(self) -> None:
        """Nobody is left without an answer."""
        answers = self.variables(True)
        self.server.wire.lose()
        self.house.turn()
        self.assertEqual(len(answers[0].variables), 2)
        self.assertIn("could not be asked", answers[0].missing)
        self.assertIn("no server session", self.variables(True)[0].missing)

    def test_the_server_session_of_another_client_is_left_alone(self) -> None:
        """A busy session is not waited for, and an idle one not touched: its FOUND_ROWS() would change."""
        for busy in (False, True):
            other, server = self.house.log_in(unprivileged=True)
            other.query(b"SET @b = 1")
            server.ok()
            if busy:
                other.query(b"SELECT SLEEP(10)")
            server.packets()
            (found,) = self.variables(True, other)
            self.assertEqual([each.name for each in found.variables], ["b"])
            self.assertIn("own session only", found.missing)
            self.assertEqual(server.payloads(), [])

    def test_a_session_that_may_not_be_seen(self) -> None:
        """It is as one that is not there."""
        other, _ = self.house.log_in("somebody", unprivileged=True)
        asker = self.client.wire.protocol.asker()
        answer = self.house.registry.variables(asker, other.wire.protocol.cs_id, False)
        self.assertEqual(self.failureResultOf(answer, SqlError).value.code, 1094)


class WholeStatementTests(SynchronousTestCase):
    def test_a_client_asks_about_itself(self) -> None:
        """The statement is answered after the server's, and what the client sends ahead waits for that."""
        house = House()
        client, server = house.log_in(unprivileged=True)
        client.query(b"SHOW PROXYSESSION VARIABLES ALL LIKE 'sql%'")
        client.query(b"SELECT 1")
        self.assertEqual(server.payloads(), [b"\x03SHOW SESSION VARIABLES"])
        server.send(table(["Variable_name", "Value"], (b"sql_mode", b""), (b"other", b"1")))
        house.turn()
        payloads = client.payloads()
        self.assertEqual(len([each for each in payloads if b"cold modified vars" in each]), 1)
        self.assertEqual(server.payloads(), [b"\x03SELECT 1"])
