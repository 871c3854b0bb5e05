"""CONNECTION_ID() in texts on their way to a server."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from odptwist.machines.connection_id import mentions_id, with_id

N = 1073741825
NEW = f"CAST({N} AS UNSIGNED)"

# What a client sends, and what the server gets: # stands for the number.
CHANGED = (
    ("SELECT CONNECTION_ID()", "SELECT # AS `CONNECTION_ID()`"),
    ("select connection_id ( )", "select # AS `connection_id ( )`"),
    ("SELECT Connection_Id/* x */()", "SELECT # AS `Connection_Id/* x */()`"),
    ("SELECT `CONNECTION_ID`()", "SELECT # AS ```CONNECTION_ID``()`"),
    ("SELECT connection_id()+0", "SELECT #+0 AS `connection_id()+0`"),
    ("SELECT connection_id() + 'a''b'", "SELECT # + 'a''b' AS `connection_id() + 'a''b'`"),
    ("SELECT 1, CONNECTION_ID() , 2", "SELECT 1, # AS `CONNECTION_ID()` , 2"),
    ("SELECT CONNECTION_ID() a", "SELECT # a"),
    ("SELECT CONNECTION_ID() AS `b`, 1", "SELECT # AS `b`, 1"),
    ("SELECT CONNECTION_ID()'y'", "SELECT #'y'"),
    ("SELECT CONNECTION_ID() FROM t WHERE a = CONNECTION_ID()", "SELECT # AS `CONNECTION_ID()` FROM t WHERE a = #"),
    ("SELECT a FROM t ORDER BY CONNECTION_ID()", "SELECT a FROM t ORDER BY #"),
    ("SELECT DISTINCT CONNECTION_ID() -- c", "SELECT DISTINCT # AS `CONNECTION_ID()` -- c"),
    ("SELECT /*+ h */ CONNECTION_ID() LIMIT 1", "SELECT /*+ h */ # AS `CONNECTION_ID()` LIMIT 1"),
    ("SELECT /*!CONNECTION_ID()*/", "SELECT /*!# AS `CONNECTION_ID()`*/"),
    ("SELECT * FROM (SELECT CONNECTION_ID()) x", "SELECT * FROM (SELECT # AS `CONNECTION_ID()`) x"),
    ("SELECT (SELECT CONNECTION_ID())", "SELECT (SELECT # AS `CONNECTION_ID()`) AS `(SELECT CONNECTION_ID())`"),
    ("SELECT CONCAT('x', CONNECTION_ID())", "SELECT CONCAT('x', #) AS `CONCAT('x', CONNECTION_ID())`"),
    ("SELECT t.from, CONNECTION_ID()", "SELECT t.from, # AS `CONNECTION_ID()`"),
    ("SELECT CONNECTION_ID() AND TRUE", "SELECT # AND TRUE AS `CONNECTION_ID() AND TRUE`"),
    (
        "SELECT CASE 1 WHEN CONNECTION_ID() THEN 2 END",
        "SELECT CASE 1 WHEN # THEN 2 END AS `CASE 1 WHEN CONNECTION_ID() THEN 2 END`",
    ),
    ("SELECT CASE 1 WHEN CONNECTION_ID() THEN 2 END x", "SELECT CASE 1 WHEN # THEN 2 END x"),
    ("SELECT CONNECTION_ID() = 'a' 'b'", "SELECT # = 'a' 'b' AS `CONNECTION_ID() = 'a' 'b'`"),
    ("SELECT CONNECTION_ID() - DATE'2020-01-01' 'b'", "SELECT # - DATE'2020-01-01' 'b'"),
    ("SELECT @@pseudo_thread_id", "SELECT # AS `@@pseudo_thread_id`"),
    ("SELECT @@session . Pseudo_Thread_Id + 1", "SELECT # + 1 AS `@@session . Pseudo_Thread_Id + 1`"),
    ("SELECT @@session.`pseudo_thread_id`", "SELECT # AS `@@session.``pseudo_thread_id```"),
    ("(SELECT CONNECTION_ID()) UNION (SELECT 1)", "(SELECT # AS `CONNECTION_ID()`) UNION (SELECT 1)"),
    ("WITH c AS (SELECT CONNECTION_ID()) TABLE c", "WITH c AS (SELECT # AS `CONNECTION_ID()`) TABLE c"),
    ("INSERT INTO t VALUES (CONNECTION_ID(), 'CONNECTION_ID()')", "INSERT INTO t VALUES (#, 'CONNECTION_ID()')"),
    ("UPDATE t SET a = CONNECTION_ID()", "UPDATE t SET a = #"),
    ("DELETE FROM t RETURNING CONNECTION_ID(), a", "DELETE FROM t RETURNING # AS `CONNECTION_ID()`, a"),
    ("SET @a = CONNECTION_ID(), @b = @@pseudo_thread_id", f"SET @a = {N}, @b = {N}"),
    ("DO CONNECTION_ID()", "DO #"),
    ("CALL p(CONNECTION_ID())", "CALL p(#)"),
    (
        "CREATE TABLE t (a INT DEFAULT (CONNECTION_ID())) SELECT CONNECTION_ID() a",
        "CREATE TABLE t (a INT DEFAULT (CONNECTION_ID())) SELECT # a",
    ),
    ("SELECT 1; SELECT CONNECTION_ID();", "SELECT 1; SELECT # AS `CONNECTION_ID()`;"),
    ("PREPARE s FROM 'SELECT ''x'', CONNECTION_ID()'", "PREPARE s FROM 'SELECT ''x'', # AS `CONNECTION_ID()`'"),
    ('EXECUTE IMMEDIATE "SELECT CONNECTION_ID()"', 'EXECUTE IMMEDIATE "SELECT # AS `CONNECTION_ID()`"'),
    ("SELECT {fn CONNECTION_ID()}", "SELECT {fn #} AS `{fn CONNECTION_ID()}`"),
    ("SELECT CONNECTION_ID() é, CONNECTION_ID()", "SELECT # é, # AS `CONNECTION_ID()`"),
)
UNCHANGED = (
    "SELECT 'CONNECTION_ID()', `CONNECTION_ID()` /* CONNECTION_ID() */ -- CONNECTION_ID()",
    "SELECT connection_id FROM t",
    "SELECT CONNECTION_ID(1)",
    "SELECT sys.CONNECTION_ID()",
    "SELECT CONNECTION_ID/*!(*/)",
    "SELECT @@GLOBAL.pseudo_thread_id, @pseudo_thread_id",
    "SET pseudo_thread_id = 5",
    "SET @@pseudo_thread_id = 5",
    "SET @a = 1, @@session.pseudo_thread_id := 5",
    "SELECT * FROM information_schema.processlist WHERE id = CONNECTION_ID()",
    "SELECT * FROM information_schema.`PROCESSLIST` WHERE id = CONNECTION_ID()",
    "SELECT * FROM oceanbase.gv$ob_processlist WHERE id = CONNECTION_ID()",
    "SELECT * FROM performance_schema.threads WHERE processlist_id = CONNECTION_ID()",
    "SELECT IS_USED_LOCK('a') = CONNECTION_ID()",
    "CREATE VIEW v AS SELECT CONNECTION_ID()",
    "CREATE PROCEDURE p() BEGIN SELECT 1; SELECT CONNECTION_ID(); END",
    "CREATE TRIGGER t BEFORE INSERT ON t FOR EACH ROW SET NEW.a = CONNECTION_ID()",
    "BEGIN NOT ATOMIC SELECT 1; SELECT CONNECTION_ID(); END",
    r"PREPARE s FROM 'SELECT \'x\', CONNECTION_ID()'",
    "",
    ";;",
)


class WithIdTests(SynchronousTestCase):
    def test_changed(self) -> None:
        """The number stands for the call, and every select item keeps the name that the server would give it."""
        for text, expected in CHANGED:
            self.assertEqual(with_id(text, N), expected.replace("#", NEW))

    def test_unchanged(self) -> None:
        """What is no call, is about the server's own sessions, or outlives the statement stays as it is."""
        for text in UNCHANGED:
            self.assertEqual(with_id(text, N), text)

    def test_an_interval_may_have_an_alias(self) -> None:
        """Where the last word may be an alias or not, the item is left without one: its text is still right."""
        text = "SELECT NOW() + INTERVAL CONNECTION_ID() DAY"
        self.assertEqual(with_id(text, N), f"SELECT NOW() + INTERVAL {NEW} DAY")

    def test_a_long_name_is_cut(self) -> None:
        """An alias has at most 255 characters: servers cut the texts of items there, too."""
        text = f"SELECT CONNECTION_ID() + LENGTH('{'x' * 300}')"
        alias = with_id(text, N).split("`")[1]
        self.assertEqual(alias, text.removeprefix("SELECT ")[:255])

    def test_mentions(self) -> None:
        """A first look finds every text with one of the words, in any case."""
        for text in (b"SELECT Connection_ID()", b"select @@PSEUDO_THREAD_ID"):
            self.assertTrue(mentions_id(text))
        self.assertFalse(mentions_id(b"SELECT 1"))

    @given(
        st.lists(
            st.sampled_from([*"SELECT CONNECTION_ID ( ) () , ; ' \" ` /*! */ AS END CASE FROM SET .".split(), " "])
        )
    )
    def test_any_text(self, pieces: list[str]) -> None:
        """No text is a fault, and what has no call is unchanged."""
        text = " ".join(pieces)
        changed = with_id(text, N)
        if "CONNECTION_ID" not in text:
            self.assertEqual(changed, text)
