from __future__ import annotations

import time

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from odptwist.machines.session_state import Effects, SessionState, Setting, effects_of
from odptwist.snapshots import Versions
from tests.wire.strategies import many

LOCKS = "user locks (GET_LOCK)"
TABLE_LOCKS = "LOCK TABLES"
NEXT = "SET TRANSACTION for the next transaction"
PREPARED = "prepared text statements (PREPARE)"
VARIABLES = "user variables that a query has set"
INSERT_ID = "LAST_INSERT_ID(expr)"
TOO_MANY = "more variables than the proxy keeps"
PIECES = [
    *"set use names statement for select into insert with transaction session global read character do".split(),
    *"get_lock last_insert_id release_all_locks @a @@global. @`a ` ' \" \\ ; , = := ( ) /* /*! */ -- #".split(),
    *"- 1 0x1 1.5 on null".split(),
    "\n",
]


def settings_of(text: str) -> list[tuple[str, str]]:
    """Return the settings of a text as plain pairs."""
    return [(setting.key, setting.sql) for setting in effects_of(text).settings]


class EffectsTests(SynchronousTestCase):
    """What statements leave behind."""

    def test_nothing(self) -> None:
        """Statements that only read and write leave nothing in their session."""
        for text in (
            "",
            ";",
            " ; ; ",
            "-- a comment",
            "/* set @a = 1 */",
            "select 1",
            "(select 1)",
            "select 'set @a = 1; use b'",
            "select @a, @@autocommit, @@session.sql_mode",
            "select * from t where a = @a and b = @b",
            "select 1 into outfile '/tmp/x'",
            "insert into t values (@a)",
            "insert into t select @a",
            "replace into t values (@a)",
            "insert into t values (last_insert_id())",
            "select last_insert_id()",
            "select last_insert_id",
            "update t set a = @a",
            "with a as (select 1) select * from a",
            "values row(1)",
            "table t",
            "begin",
            "start transaction with consistent snapshot",
            "commit",
            "rollback to a",
            "savepoint a",
            "release savepoint a",
            "create table t (a int)",
            "create or replace view v as select 1",
            "drop temporary table t",
            "truncate t",
            "show tables",
            "desc t",
            "explain select 1",
            "do sleep(1)",
            "do release_lock('a')",
            "flush tables",
            "analyze table t",
            "grant all on *.* to a",
            "kill 5",
            "set",
            "set global a = 1",
            "set @@global.a = 1",
            "set persist a = 1",
            "set @@persist_only.a = 1",
            "set global a = 1, b = 2, persist c = 3, d = 4",
            "set global transaction isolation level serializable, read only",
            "set password = 'a'",
            "set default role a to b",
            "set resource group a",
            "set statement max_statement_time = 1 for select 1",
            "set statement a = 1",
            "set statement a = 1 for",
        ):
            self.assertFalse(effects_of(text), text)

    def test_database(self) -> None:
        """USE chooses a database, also a quoted one; of several the last counts."""
        for text, database in (
            ("use test", "test"),
            ("USE Test;", "Test"),
            ("use `a b`", "a b"),
            ("use `a``b`", "a`b"),
            ("use `a```", "a`"),
            ("use `` ", ""),
            ('use "test"', "test"),
            ("/* c */ use -- d\n test # e", "test"),
            ("/*!40101 use test */", "test"),
            ("use a; use b", "b"),
            ("use a; select 1", "a"),
            ("use бд", "бд"),
        ):
            self.assertEqual(effects_of(text), Effects(database=database), text)

    def test_settings(self) -> None:
        """What SET gives a literal can be set again."""
        for text, found in (
            ("set autocommit = 0", [("autocommit", "@@session.autocommit = 0")]),
            ("SET AUTOCOMMIT=0;", [("autocommit", "@@session.autocommit = 0")]),
            ("set `autocommit` = ON", [("autocommit", "@@session.autocommit = ON")]),
            ("set session a = 1", [("a", "@@session.a = 1")]),
            ("set local a := 1", [("a", "@@session.a = 1")]),
            ("set @@a = 1", [("a", "@@session.a = 1")]),
            ("set @@session.a = 1", [("a", "@@session.a = 1")]),
            ("set @@LOCAL.a = 1", [("a", "@@session.a = 1")]),
            ("set a = 'x''y\\'z, w'", [("a", "@@session.a = 'x''y\\'z, w'")]),
            ("set a = default", [("a", "@@session.a = default")]),
            ("set a = -1", [("a", "@@session.a = -1")]),
            ("set a = + 1.5e3", [("a", "@@session.a = +1.5e3")]),
            ("set a = 1, b = 2", [("a", "@@session.a = 1"), ("b", "@@session.b = 2")]),
            (
                "set global a = 1, session b = 2, c = 3",
                [("b", "@@session.b = 2"), ("c", "@@session.c = 3")],
            ),
            (
                "set global a = 1, @b = 2, c = 3, @@d = 4",
                [("@b", "@b = 2"), ("d", "@@session.d = 4")],
            ),
            ("set @@global.a = 1, b = 2", [("b", "@@session.b = 2")]),
            ("set @a = 1", [("@a", "@a = 1")]),
            ("set @A := 'x'", [("@a", "@A = 'x'")]),
            (
                "set @`a b` = null, @b = TRUE",
                [("@`a b", "@`a b` = null"), ("@b", "@b = TRUE")],
            ),
            (
                "set @a = 0x1F, @b = _utf8'x'",
                [("@a", "@a = 0x1F"), ("@b", "@b = _utf8'x'")],
            ),
            ("set names utf8mb4", [("names", "names utf8mb4")]),
            (
                "SET NAMES 'utf8mb4' COLLATE utf8mb4_bin",
                [("names", "NAMES 'utf8mb4' COLLATE utf8mb4_bin")],
            ),
            ("set names latin1, @a = 1", [("names", "names latin1"), ("@a", "@a = 1")]),
            ("set character set latin1", [("names", "character set latin1")]),
            ("set charset 'latin1'", [("names", "charset 'latin1'")]),
            ("/*!40101 SET NAMES utf8 */", [("names", "NAMES utf8")]),
            (
                "set session transaction isolation level read committed, read only",
                [
                    (
                        "transaction level",
                        "SESSION transaction isolation level read committed , read only",
                    )
                ],
            ),
            (
                "set local transaction read only",
                [("transaction read", "SESSION transaction read only")],
            ),
            (
                "set session tx_isolation = 'SERIALIZABLE'",
                [("tx_isolation", "@@session.tx_isolation = 'SERIALIZABLE'")],
            ),
            (
                "set @@session.transaction_read_only = 1",
                [("transaction_read_only", "@@session.transaction_read_only = 1")],
            ),
            ("set statement a = 1 for set b = 2", [("b", "@@session.b = 2")]),
            (
                "select 1; set a = 1; set b = 2;",
                [("a", "@@session.a = 1"), ("b", "@@session.b = 2")],
            ),
        ):
            self.assertEqual(settings_of(text), found, text)
            self.assertEqual(effects_of(text).pins, (), text)

    def test_pins(self) -> None:
        """What cannot be set again pins, and the pin says what it is."""
        for text, pins in (
            ("set a = b + 1", ("SET a",)),
            ("set a = @b", ("SET a",)),
            ("set a = @@b", ("SET a",)),
            ("set a = now()", ("SET a",)),
            ("set a = 'x' 'y'", ("SET a",)),
            ("set @a = (select 1)", ("SET @a",)),
            ("set @a = concat('x', ',', 'y'), @b = @c", ("SET @a", "SET @b")),
            ("set @a = current_user", ("SET @a",)),
            ("set @a = UTC_TIMESTAMP", ("SET @a",)),
            ("set @a", ("SET @a",)),
            ("set a = '" + "x" * 5000 + "'", ("SET a",)),
            ("set insert_id = 5", ("SET insert_id",)),
            ("set gtid_next = 'AUTOMATIC'", ("SET gtid_next",)),
            (
                "set rand_seed1 = 5, session rand_seed2 = 6",
                ("SET rand_seed1", "SET rand_seed2"),
            ),
            ("set tx_isolation = 'SERIALIZABLE'", ("SET tx_isolation",)),
            ("set @@transaction_read_only = 1", ("SET transaction_read_only",)),
            ("set transaction isolation level serializable", (NEXT,)),
            ("set role a, b", ("SET ROLE",)),
            ("set role default", ("SET ROLE",)),
            ("set role all except a", ("SET ROLE",)),
            ("call p()", ("what a procedure may have set (CALL)",)),
            ("prepare a from 'select 1'", (PREPARED,)),
            ("execute a", (PREPARED,)),
            ("handler t open", ("HANDLER",)),
            ("lock tables t read", (TABLE_LOCKS,)),
            ("flush tables with read lock", (TABLE_LOCKS,)),
            ("flush tables t for export", (TABLE_LOCKS,)),
            ("xa start 'a'", ("an XA transaction",)),
            ("create temporary table t (a int)", ("temporary tables",)),
            ("CREATE OR REPLACE TEMPORARY TABLE t (a int)", ("temporary tables",)),
            ("/*!50000 create temporary table t (a int) */", ("temporary tables",)),
            (
                "begin not atomic set @a = 1",
                ("what a block may have set (BEGIN NOT ATOMIC)",),
            ),
            ("use", ("what USE may have set",)),
            ("frobnicate 1", ("what FROBNICATE may have set",)),
            ("get diagnostics @a = number", ("what GET may have set",)),
            ("select get_lock('a', 1)", (LOCKS,)),
            ("do Get_Lock('a', 1), get_lock('b', 1)", (LOCKS,)),
            ("set @a = get_lock('a', 1)", (LOCKS, "SET @a")),
            ("select last_insert_id(5)", (INSERT_ID,)),
            ("update t set a = last_insert_id(a + 1)", (INSERT_ID,)),
            ("set @a = last_insert_id(5)", (INSERT_ID, "SET @a")),
            ("select @a := 1", (VARIABLES,)),
            ("select @a:=@a+1 from t", (VARIABLES,)),
            ("select 1, 2 into @a, @b", (VARIABLES,)),
            ("insert into t select @a := 1", (VARIABLES,)),
            ("load data infile 'x' into table t (@a, b) set c = @a", (VARIABLES,)),
            ("set @a = (@b := 1)", (VARIABLES, "SET @a")),
            ("set statement a = 1 for select get_lock('a', 1)", (LOCKS,)),
            (
                "call p(); lock tables t read",
                ("what a procedure may have set (CALL)", TABLE_LOCKS),
            ),
        ):
            self.assertEqual(effects_of(text), Effects(pins=pins), text)

    def test_settings_and_pins(self) -> None:
        """One statement can do both."""
        effects = effects_of("set a = 1, b = now(), @c = 2")
        self.assertEqual(
            effects,
            Effects(
                settings=(Setting("a", "@@session.a = 1"), Setting("@c", "@c = 2")),
                pins=("SET b",),
            ),
        )

    def test_unpins(self) -> None:
        """What ends a state unpins it, in the order of the statements."""
        for text, pins, unpins in (
            ("unlock tables", (), (TABLE_LOCKS,)),
            ("select release_all_locks()", (), (LOCKS,)),
            ("set @a = release_all_locks()", ("SET @a",), (LOCKS,)),
            ("lock tables t read; unlock tables", (), (TABLE_LOCKS,)),
            ("unlock tables; lock tables t read", (TABLE_LOCKS,), ()),
            ("select release_all_locks(); select get_lock('a', 1)", (LOCKS,), ()),
            ("select release_all_locks(), get_lock('a', 1)", (LOCKS,), ()),
            ("select get_lock('a', 1); do release_all_locks()", (), (LOCKS,)),
        ):
            self.assertEqual(effects_of(text), Effects(pins=pins, unpins=unpins), text)

    def test_executable_comments(self) -> None:
        """What stands in an executable comment is done, as far as anyone can know here."""
        self.assertEqual(settings_of("/*! set a = 1 */"), [("a", "@@session.a = 1")])
        self.assertEqual(settings_of("/*M!100100 set a = 1 */"), [("a", "@@session.a = 1")])
        self.assertEqual(
            settings_of("set a = 1 /*!50000 , b = 2 */"),
            [("a", "@@session.a = 1"), ("b", "@@session.b = 2")],
        )
        self.assertEqual(settings_of("set /* b = 2, */ a = 1"), [("a", "@@session.a = 1")])

    def test_truth(self) -> None:
        """Effects are true if there are any, and an empty database name is one."""
        self.assertFalse(Effects())
        for effects in (
            Effects(database=""),
            Effects(settings=(Setting("a", "b"),)),
            Effects(pins=("a",)),
            Effects(unpins=("a",)),
        ):
            self.assertTrue(effects)

    @many
    @given(
        st.lists(
            st.sampled_from(PIECES) | st.text(max_size=4),
            max_size=25,
        )
    )
    def test_any_text(self, pieces: list[str]) -> None:
        """No text is an error, and what is learnt can be learnt and told again."""
        state = SessionState()
        for text in (
            " ".join(pieces),
            "".join(pieces),
            "set " + " ".join(pieces),
            "select " + " ".join(pieces),
        ):
            state.learn(effects_of(text))
            for statement in state.replay():
                self.assertTrue(statement.startswith("SET "))
            # Behind another statement it is read token by token: that first look at a text may not mislead.
            self.assertEqual(effects_of(text), effects_of(f"do 1;{text}"))

    def test_long_texts(self) -> None:
        """A text of 200 KB is read in linear time, whatever it is: a quadratic reader would take minutes."""
        for piece in (
            "'", '"', "`", "/*", "/*!", "*/", "@", "@ ", "@a ", "@a,", "set ", "set @a=", ";", "; ", "(", "\\", "''\\",
            "set statement a for ", "select @a into ", "use a;", "-- ", "--\n", "#", "1.", "1e", "a,", "get_lock ",
            "last_insert_id", "last_insert_id(", "set a=1;", "set @a=b,", "_a'b'", "\N{BULLET}", "\ud800",
        ):  # fmt: skip
            size = 200_000 if piece in ("'", "/*", "@", "set statement a for ") else 50_000
            for start in ("", "set ", "select into "):
                text = (start + piece * (size // len(piece)))[:size]
                began = time.process_time()
                SessionState().learn(effects_of(text))
                self.assertLess(time.process_time() - began, 8, f"{start}{piece}")


class SessionStateTests(SynchronousTestCase):
    """What a session remembers."""

    def learnt(self, *texts: str) -> SessionState:
        """Return the state after some statements."""
        state = SessionState()
        for text in texts:
            state.learn(effects_of(text))
        return state

    def test_versions(self) -> None:
        """Every change raises the counter of its class, and no other."""
        for texts, versions in (
            ((), Versions()),
            (("select 1", "call p()"), Versions()),
            (("set autocommit = 0",), Versions(hot_sys_var=1)),
            (
                ("set autocommit = 0", "set @@OB_QUERY_TIMEOUT = 1"),
                Versions(hot_sys_var=2),
            ),
            (("set names utf8mb4", "set sql_mode = ''"), Versions(sys_var=2)),
            (("set sql_mode = ''", "set sql_mode = ''"), Versions(sys_var=2)),
            (("set @a = 1, @b = 2",), Versions(user_var=2)),
            (
                ("set autocommit = 0, sql_mode = '', @a = 1",),
                Versions(hot_sys_var=1, sys_var=1, user_var=1),
            ),
            (("use a", "use a"), Versions(db_name=1)),
            (("use a", "use b", "use a"), Versions(db_name=3)),
            (("use a; use b",), Versions(db_name=1)),
        ):
            self.assertEqual(self.learnt(*texts).versions, versions, texts)

    def test_insert_id(self) -> None:
        """A new insert id raises its counter, and is set again at the end."""
        state = self.learnt("set @a = 1")
        for insert_id, count in ((7, 1), (7, 1), (8, 2)):
            state.inserted(insert_id)
            self.assertEqual((state.insert_id, state.versions.last_insert_id), (insert_id, count))
        self.assertEqual(state.replay(), ("SET @a = 1, @@session.last_insert_id = 8",))

    def test_insert_id_set(self) -> None:
        """Of an insert id that was set and one that an INSERT made, the later one counts."""
        for name in ("last_insert_id", "identity"):
            state = self.learnt()
            state.inserted(7)
            state.learn(effects_of(f"set {name} = 5"))
            self.assertEqual(state.replay(), (f"SET @@session.{name} = 5",))
            state.inserted(7)
            self.assertEqual(
                state.replay(),
                (f"SET @@session.{name} = 5, @@session.last_insert_id = 7",),
            )

    def test_database(self) -> None:
        """The database is the one that was told last, by a statement or by the server."""
        state = self.learnt("use a")
        self.assertEqual(state.database, "a")
        state.use("b")
        self.assertEqual((state.database, state.versions.db_name), ("b", 2))
        self.assertEqual(state.replay(), ())

    def test_replay_in_order(self) -> None:
        """Settings are set again in the order in which they were set last, because NAMES sets variables too."""
        for texts, replay in (
            ((), ()),
            (("set a = 1", "set @b = 2"), ("SET @@session.a = 1, @b = 2",)),
            (
                ("set a = 1", "set b = 2", "set a = 3"),
                ("SET @@session.b = 2, @@session.a = 3",),
            ),
            (
                ("set character_set_results = latin1", "set names utf8mb4"),
                ("SET @@session.character_set_results = latin1", "SET names utf8mb4"),
            ),
            (
                ("set names utf8mb4", "set character_set_results = latin1"),
                ("SET names utf8mb4", "SET @@session.character_set_results = latin1"),
            ),
            (
                (
                    "set names latin1",
                    "set @a = 1, @b = 2",
                    "set names utf8mb4",
                    "set @c = 3",
                ),
                ("SET @a = 1, @b = 2", "SET names utf8mb4", "SET @c = 3"),
            ),
            (("set role all", "set role `a`"), ("SET ROLE `a`",)),
            (
                ("set session transaction read only", "set a = 1"),
                ("SET SESSION transaction read only", "SET @@session.a = 1"),
            ),
        ):
            self.assertEqual(self.learnt(*texts).replay(), replay)

    def test_replay_of_defaults(self) -> None:
        """A DEFAULT is set by itself, among variables of users, too."""
        state = SessionState()
        for text in ("SET @a = 1", "SET sql_mode = default", "SET @b = 2, @c = '= DEFAULT'"):
            state.learn(effects_of(text))
        self.assertEqual(
            state.replay(), ("SET @a = 1", "SET @@session.sql_mode = default", "SET @b = 2, @c = '= DEFAULT'")
        )

    def test_replay_is_stable(self) -> None:
        """A session that learns its own replay has the same state."""
        state = self.learnt(
            "set names utf8mb4",
            "set a = 1, @b = -2",
            "set session transaction read only",
            "set @c = 'x'",
        )
        again = self.learnt(*state.replay())
        self.assertEqual(
            {key: kept.sql for key, kept in again.settings.items()},
            {key: kept.sql for key, kept in state.settings.items()}
            | {"transaction read": "SESSION transaction read only"},
        )
        self.assertEqual(again.replay(), state.replay())

    def test_pins(self) -> None:
        """Pins stay until something undoes them."""
        state = self.learnt(
            "set @a = now()",
            "lock tables t read",
            "select get_lock('a', 1)",
            "set transaction read only",
        )
        self.assertEqual(state.pins, {"SET @a", TABLE_LOCKS, LOCKS, NEXT})
        state.learn(effects_of("unlock tables"))
        state.learn(effects_of("do release_all_locks()"))
        state.transaction_ended()
        self.assertEqual(state.pins, {"SET @a"})
        state.learn(effects_of("set @a = 1"))
        self.assertEqual(state.pins, set())

    def test_a_lock_is_not_forgotten_with_a_variable(self) -> None:
        """The variable that holds what GET_LOCK answered is not the lock."""
        self.assertEqual(self.learnt("set @a = get_lock('x', 1)", "set @a = 1").pins, {LOCKS})

    def test_reset(self) -> None:
        """A reset leaves nothing but the database that it names; counters never go back."""
        state = self.learnt("set @a = 1", "use a", "call p()")
        state.inserted(7)
        before, serial = state.versions, state.serial
        state.reset("b")
        self.assertEqual(
            (state.database, state.settings, state.pins, state.insert_id),
            ("b", {}, set(), 0),
        )
        self.assertEqual(state.versions, before)
        self.assertGreater(state.serial, serial)
        self.assertEqual(state.replay(), ())

    def test_replay_since(self) -> None:
        """What a server session has seen already is not said again; the database is, only if it has changed."""
        state = self.learnt("set @a = 1", "use a")
        seen = state.serial
        self.assertEqual(state.replay(seen), ())
        state.learn(effects_of("set @b = 2, sql_mode = ''"))
        state.inserted(7)
        self.assertEqual(
            state.replay(seen),
            ("SET @b = 2, @@session.sql_mode = '', @@session.last_insert_id = 7",),
        )
        state.learn(effects_of("use `b``c`"))
        self.assertEqual(state.replay(state.serial - 1), ("USE `b``c`",))
        self.assertEqual(state.replay(state.serial), ())

    def test_value_of(self) -> None:
        """What a variable was set to is known as it was written."""
        state = self.learnt("set ob_read_consistency = 'WEAK'")
        self.assertEqual((state.value_of("ob_read_consistency"), state.value_of("x")), ("'WEAK'", ""))

    def test_limits(self) -> None:
        """A session that sets ever more keeps a bounded number of settings and pins, and the rest pins."""
        state = SessionState()
        for number in range(1000):
            state.learn(effects_of(f"set @a{number} = 1"))
        self.assertEqual((len(state.settings), state.pins), (200, {TOO_MANY}))
        state.learn(effects_of("set @a5 = 7"))
        self.assertEqual((len(state.settings), state.settings["@a5"].sql), (200, "@a5 = 7"))
        state = SessionState()
        for number in range(1000):
            state.learn(effects_of(f"set @a{number} = now()"))
        self.assertEqual(len(state.pins), 201)
        self.assertIn(TOO_MANY, state.pins)
