"""Tests of what texts are: proxy statements, refused, or for the server."""

from __future__ import annotations

from collections.abc import Callable
from time import perf_counter

from hypothesis import example, given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from odptwist.errors import SqlError
from odptwist.snapshots import KillScope, KillTarget
from odptwist.statements import builtin_statements
from odptwist.statements.grammar import (
    MAX_EXPRESSION,
    Lexer,
    Token,
    TokenKind,
    TokenStream,
    find_first_word,
    hides_kill,
    is_multi_statement,
)
from odptwist.statements.kill import KillRequest
from odptwist.statements.query import QueryText
from odptwist.statements.read_stale import ReadStaleList
from odptwist.statements.session_list import SessionList
from odptwist.statements.session_statistics import SessionStatistics
from odptwist.statements.sessions import SessionAttributes
from odptwist.statements.table import StatementTable
from odptwist.statements.variables import VariableList

LIST = SessionList()
BAD = 5010
HIDDEN = 1235
LONG = 8007
FORWARDED = None


def attribute(number: int | None = None, pattern: str = "") -> SessionAttributes:
    """Return the request for the attributes of a session."""
    return SessionAttributes(number, pattern)


def kill(number: int | None, ss_id: int | None = None) -> KillRequest:
    """Return the request to end a session or a server session."""
    return KillRequest(KillTarget(number, ss_id), KillScope.CONNECTION)


def kill_query(number: int | None) -> KillRequest:
    """Return the request to end a statement."""
    return KillRequest(KillTarget(number), KillScope.QUERY)


TEXTS: list[tuple[str, object]] = [
    # The list.
    ("SHOW PROXYSESSION", LIST),
    ("show proxysession", LIST),
    ("sHoW pRoXySeSsIoN", LIST),
    ("SHOW PROXYSESSION;", LIST),
    ("SHOW PROXYSESSION ; ", LIST),
    ("SHOW PROXYSESSION; -- text", LIST),
    ("SHOW PROXYSESSION; # text", LIST),
    ("SHOW PROXYSESSION; /* text */", LIST),
    ("SHOW PROXYSESSION -- text", LIST),
    ("SHOW PROXYSESSION--", LIST),
    ("SHOW PROXYSESSION # a; b", LIST),
    ("SHOW PROXYSESSION/* a; b */", LIST),
    ("  SHOW PROXYSESSION  ", LIST),
    ("\t\n\r\f\vSHOW PROXYSESSION", LIST),
    ("SHOW  PROXYSESSION", LIST),
    ("SHOW\tPROXYSESSION", LIST),
    ("SHOW\r\nPROXYSESSION", LIST),
    ("SHOW\f\v \nPROXYSESSION", LIST),
    ("/* a */ SHOW PROXYSESSION", LIST),
    ("/* a *//* b */-- c\n# d\nSHOW PROXYSESSION", LIST),
    ("/*+ hint */ SHOW PROXYSESSION", LIST),
    ("--\nSHOW PROXYSESSION", LIST),
    ("/**/SHOW PROXYSESSION/**/", LIST),
    ("SHOW PROXYSESSION /*+ hint */", LIST),
    ("SHOW PROXYSESSION ()", LIST),
    ("SHOW PROXYSESSION {[-]}", LIST),
    ("SHOW PROXYSESSION INTO", LIST),
    ("SHOW PROXYSESSION ignore", LIST),
    ("SHOW PROXYSESSION LIKE 'x'", BAD),
    ("SHOW PROXYSESSION WHERE Id = 7", SessionList(query=QueryText("Id", "Id = 7", order="Id"))),
    ("SHOW PROXYSESSION LIMIT 1", BAD),
    ("SHOW PROXYSESSION 7", BAD),
    ("SHOW PROXYSESSION -1", BAD),
    ("SHOW PROXYSESSION 'x'", BAD),
    ("SHOW PROXYSESSION ?", BAD),
    ("SHOW PROXYSESSION,", BAD),
    ("SHOW PROXYSESSIONS", BAD),
    ("SHOW PROXYSESSIONS ATTRIBUTE", BAD),
    ("SHOW PROXYSESSION_ATTRIBUTE", BAD),
    ("SHOW PROXYSESSION7", BAD),
    ("SHOW PROXYSESSION STAT", SessionStatistics(None)),
    ("SHOW PROXYSESSION STAT 7 8", BAD),
    ("SHOW PROXYSESSION STATS", BAD),
    ("SHOW PROXYSESSION VARIABLES", VariableList(False, None)),
    ("SHOW PROXYSESSION VARIABLES ALL 7", VariableList(True, 7)),
    ("SHOW PROXYSESSION VARIABLES 7 ALL", BAD),
    ("SHOW PROXYSESSION READ_STALE", ReadStaleList()),
    ("SHOW PROXYSESSION READ STALE", BAD),
    ("SHOW PROXYSESSION /*!40101 LIKE 'x' */", BAD),
    ("SHOW PROXYSESSION 'x", BAD),
    ("SHOW PROXYSESSION /* x", BAD),
    ("SHOWPROXYSESSION", FORWARDED),
    ("SHOW", FORWARDED),
    ("SHOW ;", FORWARDED),
    ("SHOW PROXY SESSION", FORWARDED),
    ("SHOW FULL PROXYSESSION", SessionList(full=True)),
    ("SHOW /*x*/ PROXYSESSION", FORWARDED),
    ("SHOW/**/PROXYSESSION", FORWARDED),
    ("SHOW -- x\n PROXYSESSION", FORWARDED),
    ("SHOW # x\n PROXYSESSION", FORWARDED),
    ("SHOW (PROXYSESSION)", FORWARDED),
    ("SHOW INTO PROXYSESSION", FORWARDED),
    ("SHOW 'PROXYSESSION'", FORWARDED),
    ("SHOW `PROXYSESSION`", FORWARDED),
    ("SHOW TABLES", FORWARDED),
    ("SHOW PROCESSLIST", FORWARDED),
    ("SHOW FULL PROCESSLIST", FORWARDED),
    ("SHOW TABLES LIKE 'PROXYSESSION'", FORWARDED),
    ("\u017fHOW PROXYSESSION", FORWARDED),
    ("SHOW PROXYSE\u017f\u017fION", FORWARDED),
    ("SHOW\u00a0PROXYSESSION", FORWARDED),
    ("(SHOW PROXYSESSION)", FORWARDED),
    ("EXPLAIN SHOW PROXYSESSION", FORWARDED),
    ("/*! SHOW PROXYSESSION */", FORWARDED),
    ("/*!40101 SHOW PROXYSESSION */", FORWARDED),
    ("/*M! SHOW PROXYSESSION */", FORWARDED),
    ("/*!40101 */ SHOW PROXYSESSION", FORWARDED),
    ("/* SHOW PROXYSESSION */", FORWARDED),
    ("/* SHOW PROXYSESSION", FORWARDED),
    ("-- SHOW PROXYSESSION", FORWARDED),
    ("--SHOW PROXYSESSION", FORWARDED),
    ("SHOW PROXYSESSION;;", FORWARDED),
    ("SHOW PROXYSESSION; ;", FORWARDED),
    (";SHOW PROXYSESSION", FORWARDED),
    ("/* a */ ; SHOW PROXYSESSION", FORWARDED),
    ("SHOW PROXYSESSION; SELECT 1", FORWARDED),
    ("SHOW PROXYSESSION; )", FORWARDED),
    ("SHOW PROXYSESSION; /*! x */", FORWARDED),
    ("BEGIN; SHOW PROXYSESSION", FORWARDED),
    ("SELECT 1", FORWARDED),
    ("SELECT 'SHOW PROXYSESSION'", FORWARDED),
    ("", FORWARDED),
    (" ", FORWARDED),
    (";", FORWARDED),
    ("'", FORWARDED),
    ("\0SHOW PROXYSESSION", FORWARDED),
    # Attributes.
    ("SHOW PROXYSESSION ATTRIBUTE", attribute()),
    ("show proxysession attribute;", attribute()),
    ("SHOW PROXYSESSION ATTRIBUTE -1", attribute()),
    ("SHOW PROXYSESSION ATTRIBUTE 7", attribute(7)),
    ("SHOW PROXYSESSION ATTRIBUTE +7", attribute(7)),
    ("SHOW PROXYSESSION ATTRIBUTE 007", attribute(7)),
    ("SHOW PROXYSESSION ATTRIBUTE 0", attribute(0)),
    ("SHOW PROXYSESSION ATTRIBUTE -2", attribute(-2)),
    ("SHOW PROXYSESSION ATTRIBUTE - 1", attribute(1)),
    ("SHOW PROXYSESSION ATTRIBUTE(7)", attribute(7)),
    ("SHOW PROXYSESSION ATTRIBUTE 2147549203", attribute(2147549203)),
    ("SHOW PROXYSESSION ATTRIBUTE 99999999999999999", attribute(99999999999999999)),
    ("SHOW PROXYSESSION /* a */ ATTRIBUTE /* b */ 7 -- c", attribute(7)),
    ("SHOW PROXYSESSION ATTRIBUTE LIKE 'x'", attribute(None, "x")),
    ('SHOW PROXYSESSION ATTRIBUTE LIKE "x%"', attribute(None, "x%")),
    ("SHOW PROXYSESSION ATTRIBUTE LIKE `x`", attribute(None, "x")),
    ("SHOW PROXYSESSION ATTRIBUTE LIKE tenant", attribute(None, "tenant")),
    ("SHOW PROXYSESSION ATTRIBUTE 7 LIKE '%id%'", attribute(7, "%id%")),
    ("SHOW PROXYSESSION ATTRIBUTE 7 like'a b;c'", attribute(7, "a b;c")),
    ("SHOW PROXYSESSION ATTRIBUTE -1 LIKE 'T_n'", attribute(None, "T_n")),
    ("SHOW PROXYSESSION ATTRIBUTE LIKE ''", attribute()),
    ("SHOW PROXYSESSION ATTRIBUTE LIKE ('x')", attribute(None, "x")),
    ("SHOW PROXYSESSION ATTRIBUTE LIKE 'a\\_b'", attribute(None, "a\\_b")),
    ("SHOW PROXYSESSION ATTRIBUTE LIKE '\u00e9'", attribute(None, "\u00e9")),
    ("SHOW PROXYSESSION ATTRIBUTE LIKE '" + "x" * 511 + "'", attribute(None, "x" * 511)),
    ("SHOW PROXYSESSION ATTRIBUTE LIKE '" + "x" * 512 + "'", LONG),
    ("SHOW PROXYSESSION ATTRIBUTE LIKE '" + "\u00e9" * 256 + "'", LONG),
    ("SHOW PROXYSESSION ATTRIBUTE LIKE", BAD),
    ("SHOW PROXYSESSION ATTRIBUTE LIKE %id%", BAD),
    ("SHOW PROXYSESSION ATTRIBUTE LIKE 7", BAD),
    ("SHOW PROXYSESSION ATTRIBUTE LIKE INTO", BAD),
    ("SHOW PROXYSESSION ATTRIBUTE LIKE 'it''s'", BAD),
    ("SHOW PROXYSESSION ATTRIBUTE LIKE 'it\\'s'", BAD),
    ("SHOW PROXYSESSION ATTRIBUTE LIKE 'x", BAD),
    ("SHOW PROXYSESSION ATTRIBUTE LIKE 'x' 7", BAD),
    ("SHOW PROXYSESSION ATTRIBUTE LIKE 'x' 'y'", BAD),
    ("SHOW PROXYSESSION ATTRIBUTE 'x'", BAD),
    ("SHOW PROXYSESSION ATTRIBUTE '7'", BAD),
    ("SHOW PROXYSESSION ATTRIBUTE 7 8", BAD),
    ("SHOW PROXYSESSION ATTRIBUTE 7,8", BAD),
    ("SHOW PROXYSESSION ATTRIBUTE 7.0", BAD),
    ("SHOW PROXYSESSION ATTRIBUTE 0x7", BAD),
    ("SHOW PROXYSESSION ATTRIBUTE 7x", BAD),
    ("SHOW PROXYSESSION ATTRIBUTE 100000000000000000", BAD),
    ("SHOW PROXYSESSION ATTRIBUTE @v", BAD),
    ("SHOW PROXYSESSION ATTRIBUTE ?", BAD),
    ("SHOW PROXYSESSION ATTRIBUTE CONNECTION_ID()", BAD),
    ("SHOW PROXYSESSION ATTRIBUTES", BAD),
    ("SHOW PROXYSESSION ATTRIBUTE7", BAD),
    ("SHOW PROXYSESSION 7 ATTRIBUTE", BAD),
    # KILL PROXYSESSION.
    ("KILL PROXYSESSION 7", kill(7)),
    ("kill proxysession 7;", kill(7)),
    ("KILL\nPROXYSESSION\t7", kill(7)),
    ("KILL PROXYSESSION(7)", kill(7)),
    ("KILL PROXYSESSION {7}", kill(7)),
    ("KILL PROXYSESSION [7]", kill(7)),
    ("KILL PROXYSESSION - 7", kill(7)),
    ("KILL PROXYSESSION INTO 7 IGNORE", kill(7)),
    ("KILL PROXYSESSION +7", kill(7)),
    ("KILL PROXYSESSION 0007", kill(7)),
    ("KILL PROXYSESSION 0", kill(0)),
    ("KILL PROXYSESSION -1", kill(-1)),
    ("KILL PROXYSESSION -- x\n7", kill(7)),
    ("KILL PROXYSESSION /* a */ 7 /* b */ 8 -- c", kill(7, 8)),
    ("KILL PROXYSESSION 64940 16", kill(64940, 16)),
    ("KILL PROXYSESSION (64940) (16)", kill(64940, 16)),
    ("KILL PROXYSESSION 7 - 8", kill(7, 8)),
    ("KILL PROXYSESSION 7 -8", kill(7, -8)),
    ("KILL PROXYSESSION 2147549203", kill(2147549203)),
    ("KILL PROXYSESSION 4294967296", kill(4294967296)),
    ("KILL PROXYSESSION 99999999999999999", kill(99999999999999999)),
    ("KILL PROXYSESSION -99999999999999999", kill(-99999999999999999)),
    ("KILL PROXYSESSION '7'", kill(7)),
    ('KILL PROXYSESSION "7" "8"', kill(7, 8)),
    ("KILL PROXYSESSION CONNECTION_ID()", kill(None)),
    ("KILL PROXYSESSION connection_id ()", kill(None)),
    ("KILL PROXYSESSION CONNECTION_ID() 5", kill(None, 5)),
    ("KILL PROXYSESSION", BAD),
    ("KILL PROXYSESSION;", BAD),
    ("KILL PROXYSESSION 100000000000000000", BAD),
    ("KILL PROXYSESSION 756006681247547400", BAD),
    ("KILL PROXYSESSION 7,8", BAD),
    ("KILL PROXYSESSION 7 8 9", BAD),
    ("KILL PROXYSESSION 7+8", BAD),
    ("KILL PROXYSESSION 7-8", BAD),
    ("KILL PROXYSESSION 7- 8", BAD),
    ("KILL PROXYSESSION + 7", BAD),
    ("KILL PROXYSESSION 7.5", BAD),
    ("KILL PROXYSESSION 7.", BAD),
    ("KILL PROXYSESSION .7", BAD),
    ("KILL PROXYSESSION 7e0", BAD),
    ("KILL PROXYSESSION 0x7", BAD),
    ("KILL PROXYSESSION 7a", BAD),
    ("KILL PROXYSESSION `7`", BAD),
    ("KILL PROXYSESSION ?", BAD),
    ("KILL PROXYSESSION @v", BAD),
    ("KILL PROXYSESSION x", BAD),
    ("KILL PROXYSESSION CONNECTION 7", BAD),
    ("KILL PROXYSESSION QUERY 7", BAD),
    ("KILL PROXYSESSION 5 CONNECTION_ID()", BAD),
    ("KILL PROXYSESSION /*! 7 */", BAD),
    ("KILL PROXYSESSIONS 7", BAD),
    ("KILL PROXYSESSION7", BAD),
    ("KILL /*x*/ PROXYSESSION 7", BAD),
    ("KILL (PROXYSESSION) 7", BAD),
    ("KILL PROXY SESSION 7", BAD),
    # KILL, KILL CONNECTION and KILL QUERY.
    ("KILL 7", kill(7)),
    ("kill 7 ;", kill(7)),
    ("KILL(7)", kill(7)),
    ("KILL/**/7", kill(7)),
    ("KILL '7'", kill(7)),
    ("KILL'7'", kill(7)),
    ('KILL "7"', kill(7)),
    ("KILL '+007'", kill(7)),
    ("KILL '-7'", kill(-7)),
    ("KILL -7", kill(-7)),
    ("KILL-7", kill(-7)),
    ("KILL --7", kill(-7)),
    ("KILL 0", kill(0)),
    ("KILL 18446744073709551615", BAD),
    ("KILL CONNECTION 7", kill(7)),
    ("KILL CONNECTION '7'", kill(7)),
    ("kill connection /* x */ 7 -- y", kill(7)),
    ("KILL CONNECTION_ID()", kill(None)),
    ("KILL CONNECTION_ID ()", kill(None)),
    ("KILL connection_id( )", kill(None)),
    ("KILL (CONNECTION_ID/**/(/**/))", kill(None)),
    ("KILL CONNECTION CONNECTION_ID()", kill(None)),
    ("KILL QUERY CONNECTION_ID()", kill_query(None)),
    ("KILL QUERY 7", kill_query(7)),
    ("KILL query '7';", kill_query(7)),
    ("-- x\nKILL QUERY 7", kill_query(7)),
    ("KILL QUERY -1", kill_query(-1)),
    ("KILL", BAD),
    ("KILL;", BAD),
    ("KILL CONNECTION", BAD),
    ("KILL QUERY", BAD),
    ("KILL 7 8", BAD),
    ("KILL QUERY 7 8", BAD),
    ("KILL 7,8", BAD),
    ("KILL 1+1", BAD),
    ("KILL 1 + 1", BAD),
    ("KILL 1 +1", BAD),
    ("KILL 8-1", BAD),
    ("KILL @x", BAD),
    ("KILL @@pseudo_thread_id", BAD),
    ("KILL ?", BAD),
    ("KILL QUERY ?", BAD),
    ("KILL `7`", BAD),
    ("KILL ''", BAD),
    ("KILL 'x'", BAD),
    ("KILL ' 7'", BAD),
    ("KILL '7' '8'", BAD),
    ("KILL '7", BAD),
    ("KILL '100000000000000000'", BAD),
    ("KILL '\u0667'", BAD),
    ("KILL \u0667", BAD),
    ("KILL 7.0", BAD),
    ("KILL 0x7", BAD),
    ("KILL CONNECTION_ID", BAD),
    ("KILL CONNECTION_ID(7)", BAD),
    ("KILL CONNECTION_ID()()1", BAD),
    ("KILL CONNECTION_ID()+1", BAD),
    ("KILL CONNECTION_ID() 7", BAD),
    ("KILL HARD 7", BAD),
    ("KILL SOFT CONNECTION 7", BAD),
    ("KILL HARD QUERY 7", BAD),
    ("KILL USER x", BAD),
    ("KILL QUERY ID 7", BAD),
    ("KILL QUERY USER 'x'", BAD),
    ("KILL CONNECTION QUERY 7", BAD),
    ("KILL QUERY CONNECTION 7", BAD),
    ("KILL GLOBALSESSION x 7", BAD),
    ("KILL (SELECT 7)", BAD),
    ("KILL 7 /*! x */", BAD),
    ("KILL /*! 7 */", BAD),
    ("KILL /*!99999 8 */ 7", BAD),
    ("KILL /* 7", BAD),
    ("KILLER 7", FORWARDED),
    ("KILL7", FORWARDED),
    ("k\u0131ll 7", FORWARDED),
    ("\u212aILL 7", FORWARDED),
    ("`KILL` 7", FORWARDED),
    ("EXPLAIN KILL 7", FORWARDED),
    # A KILL that only the server would see.
    ("SELECT 1; KILL 5", HIDDEN),
    ("SELECT 1;KILL 5;", HIDDEN),
    ("SELECT 1;/* a */kill query 5", HIDDEN),
    ("SELECT 1; -- a;\n# b\nKILL 5", HIDDEN),
    ("SELECT 1; KILL PROXYSESSION 5", HIDDEN),
    ("KILL 5; SELECT 1", HIDDEN),
    ("KILL 5; KILL 6", HIDDEN),
    ("KILL PROXYSESSION 5; SELECT 1", HIDDEN),
    ("KILL 5;;", HIDDEN),
    ("; KILL 5", HIDDEN),
    ("SHOW PROXYSESSION; KILL 5", HIDDEN),
    ("SELECT 'a''b'; KILL 5", HIDDEN),
    ("SELECT 'a\\'b'; KILL 5", HIDDEN),
    ("SELECT '\\\\'; KILL 5", HIDDEN),
    ('SELECT "a;"; KILL 5', HIDDEN),
    ("SELECT `a;`; KILL 5", HIDDEN),
    ("SELECT 2*/* x */3; KILL 5", HIDDEN),
    ("SELECT 2--3; KILL 5", HIDDEN),
    ("SELECT 1 --\n; KILL 5", HIDDEN),
    ("--\nSELECT 1; KILL 5", HIDDEN),
    ("/*! KILL 5 */", HIDDEN),
    ("/*!KILL 5*/", HIDDEN),
    ("/*M! KILL 5*/", HIDDEN),
    ("/*M!100100 KILL 5*/", HIDDEN),
    ("/*!50000 KILL 5 */", HIDDEN),
    ("/*!50000KILL 5*/", HIDDEN),
    ("/*!100000KILL 5*/", HIDDEN),
    ("/*! KILL */ 5", HIDDEN),
    ("/*! */ KILL 5", HIDDEN),
    ("/*!99999 SELECT 1 */ KILL 5", HIDDEN),
    ("/*!99999 SELECT 1; */ KILL 5", HIDDEN),
    ("/*!99999 ' */ KILL 5 -- '", HIDDEN),
    ("/* a */ /*! /* b */ KILL 5 */", HIDDEN),
    ("/*! SELECT 1; KILL 5 */", HIDDEN),
    ("/*! SELECT 1 */; KILL 5", HIDDEN),
    ("SELECT 1 /*! ; KILL 5 */", HIDDEN),
    ("SELECT 1; /*! KILL 5 */", HIDDEN),
    ("/*! KILL 5", HIDDEN),
    ("PREPARE s FROM 'KILL 5'", HIDDEN),
    ("prepare s from 'kill query ?'", HIDDEN),
    ('PREPARE s FROM "KILL 5"', HIDDEN),
    ("PREPARE `s` FROM ' /* a */ KILL 5'", HIDDEN),
    ("PREPARE s FROM 'KI' 'LL 5'", HIDDEN),
    ("PREPARE s FROM 'K\\ILL 5'", HIDDEN),
    ("PREPARE s FROM '/*! KILL 5 */'", HIDDEN),
    ("PREPARE s FROM '\\nKILL 5'", HIDDEN),
    ("/*! PREPARE s FROM 'KILL 5' */", HIDDEN),
    ("SELECT 1; PREPARE s FROM 'KILL 5'", HIDDEN),
    ("EXECUTE IMMEDIATE 'KILL 5'", HIDDEN),
    ("execute /* a */ immediate 'kill ?' using 5", HIDDEN),
    ("EXECUTE IMMEDIATE CONCAT('KILL ', 5)", HIDDEN),
    ("EXECUTE IMMEDIATE 'PREPARE s FROM ''KILL 5'''", HIDDEN),
    ("BEGIN NOT ATOMIC KILL 5; END", HIDDEN),
    ("BEGIN NOT ATOMIC SELECT 1; KILL 5; END", HIDDEN),
    ("IF 1 THEN KILL 5; END IF", HIDDEN),
    ("IF 0 THEN SELECT 1; ELSE KILL 5; END IF", HIDDEN),
    ("CASE 1 WHEN 1 THEN KILL 5; END CASE", HIDDEN),
    ("WHILE 1 DO KILL 5; END WHILE", HIDDEN),
    ("LOOP KILL 5; END LOOP", HIDDEN),
    ("SET STATEMENT max_statement_time = 1 FOR KILL 5", HIDDEN),
    ("CREATE PROCEDURE p() BEGIN KILL 5; END", HIDDEN),
    ("ALTER SYSTEM KILL SESSION '5'", HIDDEN),
    # No KILL, although the letters are there.
    ("SELECT kill FROM t", FORWARDED),
    ("SELECT 'a; kill 5'", FORWARDED),
    ('SELECT "a; kill 5"', FORWARDED),
    ("SELECT `a; kill 5`", FORWARDED),
    ("SELECT 'a''; kill 5'", FORWARDED),
    ("SELECT 'a\\'; kill 5'", FORWARDED),
    ("SELECT 1 -- ; kill 5", FORWARDED),
    ("SELECT 1 # ; kill 5", FORWARDED),
    ("SELECT 1 /* ; kill 5 */", FORWARDED),
    ("SELECT 1; SELECT kill", FORWARDED),
    ("SELECT 1; `kill` 5", FORWARDED),
    ("SELECT 1; 'kill' 5", FORWARDED),
    ("SELECT 1; killer()", FORWARDED),
    ("SELECT 1; skill()", FORWARDED),
    ("SELECT 'x; kill", FORWARDED),
    ("SELECT 1 /* kill", FORWARDED),
    ("SELECT CASE WHEN a THEN kill ELSE kill END FROM t", FORWARDED),
    ("SELECT /*! kill, */ 1", FORWARDED),
    ("SELECT /*!50000 SQL_NO_CACHE */ 'kill'", FORWARDED),
    ("/*!40000 ALTER TABLE kill_list DISABLE KEYS */; INSERT INTO t VALUES ('kill')", FORWARDED),
    ("SET @a = 'kill 5'", FORWARDED),
    ("CREATE TABLE t (kill_id int)", FORWARDED),
    ("PREPARE s FROM 'SELECT kill'", FORWARDED),
    ("PREPARE s FROM 'SELECT ''kill 5'''", FORWARDED),
    ("PREPARE s FROM @kill", FORWARDED),
    ("PREPARE `KILL 5` FROM 'SELECT 1'", FORWARDED),
    ("EXECUTE IMMEDIATE 'SELECT ?' USING 'kill 5'", FORWARDED),
    ("EXECUTE s USING @kill", FORWARDED),
    ("XA PREPARE 'kill 5'", FORWARDED),
    ("DEALLOCATE PREPARE kill_it", FORWARDED),
    ("CALL kill_all(5)", FORWARDED),
]


class StatementTests(SynchronousTestCase):
    def test_every_text_is_what_the_table_says(self) -> None:
        """Each text is a proxy statement, is refused with the right error, or is the server's."""
        table = StatementTable(builtin_statements())
        self.assertEqual(len({text for text, _ in TEXTS}), len(TEXTS))
        for text, expected in TEXTS:
            try:
                found = table.find(text)
            except SqlError as error:
                self.assertEqual(error.code, expected, text)
            else:
                self.assertEqual(found and found.request, expected, text)

    def test_the_order_of_statements_does_not_decide_about_kills(self) -> None:
        """No text with a KILL for the server gets past a table that knows no KILL either."""
        table = StatementTable(())
        for text, expected in TEXTS:
            if expected == HIDDEN:
                self.assertEqual(self.assertRaises(SqlError, table.find, text).code, HIDDEN, text)

    def test_a_refused_kill_says_what_is_understood(self) -> None:
        """The errors of KILL and of KILL PROXYSESSION begin in ODP's words and list the accepted forms."""
        table = StatementTable(builtin_statements())
        error = self.assertRaises(SqlError, table.find, "KILL 1+1")
        self.assertEqual((error.code, error.sqlstate), (5010, "21000"))
        self.assertIn("CONNECTION_ID()", error.message)
        self.assertTrue(error.message.startswith("Unknown operator, bad internal cmd"))
        error = self.assertRaises(SqlError, table.find, "KILL PROXYSESSION x")
        self.assertTrue(error.message.startswith("Unknown operator, bad internal cmd: the proxy understands"))
        self.assertIn("WHERE condition [DRY RUN]", error.message)

    def test_a_hidden_kill_is_refused_in_words(self) -> None:
        """The error of a KILL among other statements says to send it alone."""
        error = self.assertRaises(SqlError, StatementTable(()).find, "SELECT 1; KILL 5")
        self.assertEqual((error.code, error.sqlstate), (1235, "0A000"))
        self.assertEqual(
            error.message,
            "KILL inside a multi-statement text, PREPARE or EXECUTE IMMEDIATE is not supported: send it alone",
        )


WORDS = (
    "KILL SHOW PROXYSESSION ATTRIBUTE LIKE QUERY PREPARE EXECUTE IMMEDIATE FROM BEGIN THEN CONNECTION_ID 7 -1 50000 "
    "WHERE Id = DRY RUN LIMIT AFTER TRANSACTION SECONDS REASON 'x' "
    "( ) ' \" ` ; /* */ /*! /*M! -- # \\ - + . @ ? % \u0131 \ud800 \0 \n"
)
PIECES = st.sampled_from([*WORDS.split(" "), " "])
SCRAPS = st.lists(PIECES, max_size=20).map("".join) | st.lists(PIECES, max_size=12).map(" ".join)


class AnyTextTests(SynchronousTestCase):
    @given(st.text() | SCRAPS)
    @example("/*!*/*/")
    @example("*/")
    def test_no_text_breaks_the_table(self, text: str) -> None:
        """Whatever the text, it is found, forwarded or refused with a SqlError; an extension fault would be logged."""
        try:
            StatementTable(builtin_statements()).find(text)
        except SqlError as error:
            self.assertIn(error.code, (1064, 1235, 5010, 8007))
        self.assertEqual(self.flushLoggedErrors(), [])

    @given(SCRAPS)
    def test_no_kill_is_forwarded(self, text: str) -> None:
        """A text that begins with KILL is never the server's, and one with a KILL after a semicolon neither."""
        table = StatementTable(builtin_statements())
        for kill_text in (f"KILL {text}", f"SELECT 1; KILL {text}", f"/*! KILL {text}", f"-- {text!r}\nKILL {text}"):
            try:
                self.assertIsNotNone(table.find(kill_text), kill_text)
            except SqlError:
                continue

    @given(SCRAPS)
    def test_tokens_are_pieces_of_the_text(self, text: str) -> None:
        """Tokens stand in the text where they say, one after the other, in either reading."""
        for inside in (False, True):
            for coarse in (False, True):
                lexer, end = Lexer(text, inside), 0
                while (token := lexer.next(coarse)).kind is not TokenKind.END:
                    self.assertGreaterEqual(token.start, end)
                    self.assertEqual(text[token.start : token.end], token.text)
                    end = token.end

    @given(SCRAPS)
    def test_coarse_reading_finds_the_same_semicolons(self, text: str) -> None:
        """What a coarse reading skips is what a fine reading would have passed over."""
        for inside in (False, True):
            borders: list[list[tuple[TokenKind, int]]] = []
            for coarse in (False, True):
                lexer = Lexer(text, inside)
                found: list[tuple[TokenKind, int]] = []
                while (token := lexer.next(coarse)).kind is not TokenKind.END:
                    if token.text == ";" or token.kind in (TokenKind.OPEN, TokenKind.CLOSE, TokenKind.EXECUTABLE):
                        found.append((token.kind, token.start))
                borders.append(found)
            self.assertEqual(*borders)

    @given(st.text())
    def test_a_quoted_text_hides_nothing(self, text: str) -> None:
        """However a string is filled, a KILL in it is no statement."""
        quoted = text.replace("\\", "\\\\").replace("'", "''")
        self.assertFalse(hides_kill(f"SELECT '; KILL 5 {quoted}; KILL 5'"))
        self.assertTrue(hides_kill(f"SELECT '{quoted}'; KILL 5"))


class HostileTextTests(SynchronousTestCase):
    def test_a_long_text_is_quick(self) -> None:
        """No text of a megabyte keeps the reactor for seconds."""
        table = StatementTable(builtin_statements())
        size = 1_000_000
        for text in (
            "KILL " + "(" * size,
            "KILL " + "1 " * size,
            "SHOW " + "/*!*/" * size + ";",
            "SELECT kill " + "'a' " * size,
            "SELECT kill " + "-" * size,
            "SELECT kill " + "- /* " * size,
            "SELECT kill '" + "\\" * (size + 1),
            "SELECT kill " + "'" * (size + 1),
            "CREATE kill " + "a " * size,
            "SELECT 1;" * size + "kill",
            "PREPARE s FROM '" * size,
            "/**/" * size + "KILL 7",
        ):
            start = perf_counter()
            try:
                table.find(text)
            except SqlError as error:
                self.assertIn(error.code, (1235, 5010))
            self.assertLess(perf_counter() - start, 5, text[:20])

    def test_a_text_too_long_to_check_is_refused(self) -> None:
        """Where looking for a KILL would take too long, the text counts as hiding one."""
        self.assertTrue(hides_kill("SELECT 1;" * 100_000 + "SELECT 'kill'"))
        self.assertFalse(hides_kill("SELECT 1;" * 100_000))
        self.assertFalse(hides_kill("INSERT INTO t VALUES ('kill')" + ", ('kill')" * 100_000))


class FirstWordTests(SynchronousTestCase):
    def test_the_first_word_is_found_behind_comments(self) -> None:
        """White space and comments are passed over; anything else has no first word."""
        table = [
            ("select 1", ("SELECT", 0)),
            (" /* a */ -- b\n# c\n kill", ("KILL", 19)),
            ("/*+ a */x", ("X", 8)),
            ("/*! kill */", ("", 0)),
            ("(select 1)", ("", 0)),
            ("'a'", ("", 0)),
            ("7", ("", 0)),
            ("", ("", 0)),
            ("   ", ("", 3)),
        ]
        for text, expected in table:
            self.assertEqual(find_first_word(text), expected, text)


class MultiStatementTests(SynchronousTestCase):
    def test_what_counts_as_several_statements(self) -> None:
        """One trailing semicolon and comments after it are fine; anything else makes several."""
        table = [
            ("a", False),
            ("", False),
            ("a;", False),
            ("a; ", False),
            ("a; -- b", False),
            ("a; # b;", False),
            ("a; /* b; */", False),
            ("a ';'", False),
            ('a `;` ";"', False),
            ("a -- ;\n", False),
            ("a /*! ; */", False),
            ("';", False),
            (";", True),
            ("a;;", True),
            ("a;b", True),
            (";a", True),
            ("/* a */;", True),
            ("a;/*!b*/", True),
            ("a;'", True),
        ]
        for text, expected in table:
            self.assertEqual(is_multi_statement(text), expected, text)


class ExpressionTests(SynchronousTestCase):
    def test_what_is_too_long_is_not_read(self) -> None:
        """A megabyte of brackets costs as many tokens as the longest expression, and is refused for its length."""
        table = StatementTable(builtin_statements())
        for text in ("KILL PROXYSESSION WHERE ", "SHOW PROXYSESSION WHERE ", "SHOW PROXYSESSION WHERE 1 ORDER BY "):
            calls = 0
            lexed = Lexer.next

            def count(lexer: Lexer, coarse: bool = False, lexed: Callable[..., Token] = lexed) -> Token:
                nonlocal calls
                calls += 1
                return lexed(lexer, coarse)

            self.patch(Lexer, "next", count)
            error = self.assertRaises(SqlError, table.find, text + "(" * (1 << 20))
            self.patch(Lexer, "next", lexed)
            self.assertEqual(error.code, 1064)
            self.assertIn("longer than 8,192 characters", error.message)
            self.assertLess(calls, 8_192 + 50)

    def test_the_longest_expression_ends_where_it_ends(self) -> None:
        """What follows one that is just not too long is read."""
        longest = "1" + " " * (MAX_EXPRESSION - 2) + "1"
        for expression, rest in ((longest, "LIMIT 5"), (longest + "1", "")):
            stream = TokenStream(f"{expression} LIMIT 5")
            taken = stream.take_expression(("LIMIT",))
            self.assertEqual(taken, expression if rest else f"{expression} LIMIT 5")
            self.assertEqual(stream.take_word("LIMIT"), bool(rest))
