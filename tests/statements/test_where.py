"""Tests of conditions over sessions."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from time import perf_counter

from attrs import evolve
from hypothesis import example, given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from odptwist.answers import Table
from odptwist.errors import SqlError
from odptwist.identity import Identity
from odptwist.snapshots import Address, Asker, ClientSessionSnapshot
from odptwist.statements.session_list import ShowSessions
from odptwist.statements.where import COLUMN_NAMES, Condition
from odptwist.views import SessionView
from tests.support.directory import FakeDirectory, make_client_session, make_server_session

SESSION = evolve(
    make_client_session(
        cs_id=7,
        identity=Identity("app", "sys", "ob1"),
        database="shop",
        transactions=3,
        busy=True,
        in_transaction=True,
        bound=make_server_session(ss_id=5, server_sessid=4711, address=Address("10.0.0.1", 2881)),
    ),
    seconds=12.5,
    transaction_seconds=60.25,
    statement="SELECT 'it''s' FROM t",
    program="mariadb",
    pins=("a temporary table", "a lock"),
    bar="no key",
    using_ssl=True,
    worker=2,
    command="Query",
    bytes_in=1234,
    bytes_out=5678,
    statements=9,
    client="libmariadb",
    client_version="3.3.1",
    cipher="TLSv1.3 AES",
    compression="zlib",
)
STRANGER = make_client_session(cs_id=8, identity=None, proxy_sessid=0, host="")


def holds(text: str, session: ClientSessionSnapshot = SESSION) -> bool:
    """Say whether a condition selects a session."""
    condition = Condition(text)
    try:
        return condition.select([session]) == [session]
    finally:
        condition.close()


class ColumnTests(SynchronousTestCase):
    def test_every_column_has_its_value(self) -> None:
        """Each column equals what the snapshot holds, and the table leaves no column out."""
        table = [
            ("proxy_sessid = 756006681247547400", "proxy_sessid"),
            ("Id = 7", "Id"),
            ("Cluster = 'ob1'", "Cluster"),
            ("Tenant = 'sys'", "Tenant"),
            ("User = 'app'", "User"),
            ("Host = '127.0.0.1:23706'", "Host"),
            ("db = 'shop'", "db"),
            ("trans_count = 3", "trans_count"),
            ("svr_session_count = 1", "svr_session_count"),
            ("state = 'MCS_ACTIVE_READER'", "state"),
            ("tid = 2230520", "tid"),
            ("pid = 2230520", "pid"),
            ("using_ssl = 1", "using_ssl"),
            ("worker = 2", "worker"),
            ("command = 'Query'", "command"),
            ("activity = 'busy'", "activity"),
            ("seconds = 12.5", "seconds"),
            ("idle_seconds = 0", "idle_seconds"),
            ("statement_seconds = 12.5", "statement_seconds"),
            ("transaction_seconds = 60.25", "transaction_seconds"),
            ("server = '10.0.0.1:2881'", "server"),
            ("server_sessid = 4711", "server_sessid"),
            ("ss_id = 5", "ss_id"),
            ("bytes_in = 1234", "bytes_in"),
            ("bytes_out = 5678", "bytes_out"),
            ("statements = 9", "statements"),
            ("pinned = 'a temporary table, a lock'", "pinned"),
            ("further_logins = 'no key'", "further_logins"),
            ("program = 'mariadb'", "program"),
            ("client = 'libmariadb'", "client"),
            ("client_version = '3.3.1'", "client_version"),
            ("cipher = 'TLSv1.3 AES'", "cipher"),
            ("compression = 'zlib'", "compression"),
            ("statement = 'SELECT ''it''''s'' FROM t'", "statement"),
        ]
        self.assertEqual(tuple(column for _, column in table), COLUMN_NAMES)
        for text, column in table:
            self.assertTrue(holds(text), text)
            self.assertFalse(holds(f"NOT ({text})"), text)
            self.assertTrue(holds(text.replace(column, column.swapcase(), 1)), text)
            self.assertTrue(holds(text.replace(column, f"`{column}`", 1)), text)
            self.assertTrue(holds(text.replace(column, f"proxysession.{column}", 1)), text)

    def test_the_columns_of_show_full_proxysession_agree_with_it(self) -> None:
        """What SHOW FULL PROXYSESSION prints is what a condition compares, but for the word NULL in `db`."""
        show = ShowSessions()
        for session in (SESSION, STRANGER):
            directory = FakeDirectory((session,))
            request = show.parse("SHOW FULL PROXYSESSION")
            answer = self.successResultOf(show.answer(request, Asker(1, Identity("a", "b", "c")), directory))
            assert isinstance(answer, Table)
            for column, value in zip(answer.columns, answer.rows[0], strict=True):
                literal = "NULL" if value in ("NULL", None) else "'{}'".format(str(value).replace("'", "''"))
                self.assertTrue(holds(f"{column.name} IS {literal}", session), column.name)

    def test_what_is_not_there_is_null(self) -> None:
        """A session without database, server and pins has NULLs there, and empty texts for an unknown user."""
        for column in ("db", "server", "server_sessid", "ss_id", "pinned"):
            self.assertTrue(holds(f"{column} IS NULL", STRANGER), column)
            self.assertTrue(holds(f"{column} <=> NULL", STRANGER), column)
            for text in (f"{column} = 'NULL'", f"{column} != 'x'", f"NOT {column} = 'x'"):
                self.assertFalse(holds(text, STRANGER), text)
        self.assertTrue(holds("User = '' AND Tenant = '' AND Cluster = '' AND program = ''", STRANGER))
        self.assertTrue(holds("activity = 'logging in' AND Host = 'localhost'", STRANGER))

    def test_proxy_sessids_are_exact(self) -> None:
        """A number past 2**63 (a client from 192.168.0.1) equals itself, quoted or not, and none of its neighbours."""
        number = 0xC0A80001 << 32 | 4711 << 16 | 1
        for each in (number, 7, 756006681247547400, (1 << 63) - 1, 1 << 63, (1 << 64) - 1):
            session = evolve(SESSION, proxy_sessid=each)
            self.assertTrue(holds(f"proxy_sessid = {each} AND proxy_sessid = '{each}'", session))
            self.assertTrue(holds(f"proxy_sessid IN (5, {each})", session))
            self.assertTrue(holds(f"proxy_sessid != {each + 1} AND proxy_sessid != {each - 1}", session))
        self.assertTrue(holds("Id = 00000000000000000007 AND seconds < 99999999999999999999"))

    def test_the_order_of_the_sessions_stays(self) -> None:
        """Those selected come in the order in which all were given."""
        sessions = [make_client_session(cs_id=number) for number in (5, 3, 9, 1)]
        condition = Condition("Id > 2")
        self.assertEqual([each.cs_id for each in condition.select(sessions)], [5, 3, 9])
        self.assertEqual(condition.select([]), [])
        condition.close()
        condition.close()

    def test_values_of_any_size_and_kind_do_no_harm(self) -> None:
        """A long program name, bytes that are not UTF-8, NULs and a large number spoil nobody's selection."""
        odd = evolve(
            SESSION,
            program="x" * 65_535,
            statement="\udcff\ud800 \0 \u00e9",
            proxy_sessid=(1 << 64) - 1,
            pins=("\udc80",),
        )
        self.assertTrue(holds("program LIKE 'xxx%'", odd))
        self.assertTrue(holds("statement LIKE '%\u00e9' AND pinned = '?'", odd))
        self.assertTrue(holds("proxy_sessid > 0", odd))


class DialectTests(SynchronousTestCase):
    def test_what_holds(self) -> None:
        """Strings, comments, operators and escapes are read as MySQL users mean them."""
        table = [
            ('User = "app"', True),
            ("User = 'APP'", False),
            ("User = 'APP' COLLATE NOCASE", True),
            ("User LIKE 'APP'", True),
            ("User GLOB 'a*'", True),
            ("User GLOB 'A*'", False),
            ("Id = '7'", True),
            ('Id IN ("7", 8)', True),
            ("Id = '7x'", False),
            ("User = 0", False),
            ("User IN ()", False),
            ("Id != 8 AND Id <> 8 && NOT Id = 8", True),
            ("Id <= 7 AND Id >= 7 AND Id BETWEEN 7 AND 7", True),
            ("Id = 8 OR seconds > 12", True),
            ("5--2 = Id", True),
            ("Id=5+2", True),
            ("Id -- nothing\n = 7 # nothing", True),
            ("Id /* ) */ = 7", True),
            ("(Id = 7) AND ((User) = ('app'))", True),
            ("statement = 'SELECT \\'it\\'\\'s\\' FROM t'", True),
            ("statement = \"SELECT 'it''s' FROM t\"", True),
            ("statement LIKE '%FROM t'", True),
            ("statement LIKE 'SELECT%'", True),
            ("User LIKE 'a_p'", True),
            ("User LIKE 'a\\_p'", False),
            ("User LIKE 'a\\%'", False),
            ("User NOT LIKE 'a\\_p'", True),
            ("User LIKE 'a!_p' ESCAPE '!'", False),
            ("lower(User) = 'app' AND length(User) = 3 AND substr(User, 1, 1) = 'a' AND instr(User, 'pp') = 2", True),
            ("coalesce(db, '') = 'shop' AND ifnull(pinned, '') != '' AND max(Id, 3) = 7 AND abs(-7) = Id", True),
            ("CASE WHEN Id = 7 THEN TRUE ELSE FALSE END", True),
            ("Id IN (" + ", ".join(map(str, range(1000))) + ")", True),
            ("NULL", False),
            ("0", False),
            ("1", True),
        ]
        for text, expected in table:
            self.assertEqual(holds(text), expected, text)
        self.assertTrue(holds("User LIKE 'a\\_p'", evolve(SESSION, identity=Identity("a_p", "sys", "ob1"))))

    def test_what_is_refused(self) -> None:
        """A text that is not one harmless expression is error 1064 at once, and the message says what is wrong."""
        table = [
            ("", "is empty"),
            (" \n-- x", "is empty"),
            ("Usr = 'app'", "no such column: Usr"),
            ("`Usr` = 'app'", "no such column: Usr"),
            ("User = app", "no such column: app"),
            ("$x = 1", "no such column: $x"),
            ("rowid = 1", "ROWID is prohibited"),
            ("Id =", "syntax error"),
            ("Id = 7 Id", "syntax error"),
            ("Id = 7 LIMIT 1", "syntax error"),
            ("Id = 7 ORDER BY Id", "syntax error"),
            ("User = 'a' 'b'", "syntax error"),
            ("User = \"a\"'b'", "syntax error"),
            ("(Id, User)", "row value misused"),
            ("User || 'x'", "write OR"),
            ("Id = 7 || Id = 8", "write OR"),
            ("User REGEXP 'a'", "write LIKE"),
            ("User RLIKE 'a'", "write LIKE"),
            ("User MATCH 'a'", "write LIKE"),
            ("! Id", "unrecognized token"),
            ("Id = 1) OR (1", "brackets"),
            ("(Id = 7", "brackets"),
            ("User = 'x", "has no end"),
            ("/* x", "has no end"),
            ("1; DROP TABLE proxysession", "; is not understood"),
            ("Id = ?", "? is not understood"),
            ("Id = :x", ": is not understood"),
            ("Id = @x", "@ is not understood"),
            ("[Id] = 7", "[ is not understood"),
            ("Id = 7 /*! OR 1 */", "executable comments"),
            ("User = '\\0'", "not UTF-8"),
            ("User = '\udcff'", "not UTF-8"),
            ("\0", "not understood"),
            ("EXISTS (SELECT 1)", "subselects"),
            ("Id IN (SELECT Id FROM proxysession)", "subselects"),
            ("Id = (SELECT 7)", "subselects"),
            ("Id IN (VALUES (7))", "subselects"),
            ("Id IN proxysession", "sub-select"),
            ("Id IN sqlite_master", "prohibited"),
            ("Id IN json_each('[7]')", ""),
            ("Id IN pragma_function_list", ""),
            ("load_extension('x')", "not authorized"),
            ("fts3_tokenizer('x')", "not authorized"),
            ("zeroblob(1000000000)", "not authorized"),
            ("randomblob(9)", "not authorized"),
            ("printf('%1000000d', 1)", "not authorized"),
            ("format('%1000000d', 1)", "not authorized"),
            ("replace('aa', 'a', 'aaaa')", "not authorized"),
            ("hex(User)", "not authorized"),
            ("quote(User)", "not authorized"),
            ("char(65)", "not authorized"),
            ("json('[]')", "not authorized"),
            ("random() > 0", "not authorized"),
            ("CURRENT_TIMESTAMP > 0", "not authorized"),
            ("sqlite_version() > 0", "not authorized"),
            ("count(*) > 0", "not authorized"),
            ("max(Id) > 0", "misuse of aggregate"),
            ("row_number() OVER () > 0", "not authorized"),
            ("no_such(Id)", "no such function"),
            ("RAISE(ABORT, 'x')", "RAISE"),
            ("User COLLATE utf8 = 'x'", "no such collation"),
            ("PRAGMA function_list", "syntax error"),
            ("ATTACH 'x' AS y", "syntax error"),
            ("abs(-9223372036854775807 - 1) = 1", "integer overflow"),
            ("(" * 200 + "1" + ")" * 200, "overflow"),
            (" OR ".join(["Id = 1"] * 600), "too large"),
            ("1" * 8_193, "longer than"),
            ("x" * 8_000, "no such column: xxx"),
        ]
        for text, message in table:
            error = self.assertRaises(SqlError, Condition, text)
            self.assertEqual((error.code, error.sqlstate), (1064, "42000"), text)
            self.assertIn(message, error.message, text)
            self.assertLessEqual(len(error.message), 200, text)

    def test_what_only_a_value_shows_is_an_error_of_the_selection(self) -> None:
        """An overflow that depends on a session is error 1064 of `select`."""
        condition = Condition("abs(-9223372036854775803 - ss_id) > 0")
        self.assertEqual(self.assertRaises(SqlError, condition.select, [SESSION]).code, 1064)
        self.assertEqual(condition.select([evolve(SESSION, bound=None)]), [])
        condition.close()

    def test_a_pattern_is_bounded(self) -> None:
        """LIKE takes a thousand bytes of pattern and no more."""
        self.assertFalse(holds(f"User LIKE '{'x' * 1000}'"))
        error = self.assertRaises(SqlError, holds, f"User LIKE '{'x' * 1001}'")
        self.assertEqual(error.code, 1064)

    def test_nothing_is_left_open(self) -> None:
        """A closed condition selects nothing any more, and a refused one has been closed."""
        condition = Condition("1")
        condition.close()
        self.assertRaises(SqlError, condition.select, [SESSION])


# The dearest expression that fits: SQLite's GLOB goes back over a text of `a` for each `*` and set.
DEAR = " AND ".join(["statement GLOB '" + "*[a-c]" * 80 + "[x]' = 0"] * 16)
SLOW = [evolve(SESSION, cs_id=number, statement="a" * 4_096) for number in range(1_000)]
WORDS = (
    "Id User db statement seconds pinned = != <> <=> < > <= && || AND OR NOT LIKE GLOB IN IS NULL BETWEEN CASE WHEN "
    "THEN END ESCAPE COLLATE NOCASE SELECT FROM VALUES EXISTS proxysession CAST AS ( ) , . * + - / % 7 '7' \"app\" "
    "'a\\_%' ' \" ` \\ ; ? @ : $x # -- /* */ /*! abs( max( length( zeroblob( 1e9 0x7 9223372036854775807 [ ] { } \0 "
    "\ud800 \u00e9 \n"
)
SCRAPS = st.lists(st.sampled_from(WORDS.split(" ")), max_size=30).map(" ".join)


def ask_for_all(holds: Callable[[SessionView], bool]) -> None:
    """Ask for each of many sessions."""
    for session in SLOW:
        holds(session)


class TimeTests(SynchronousTestCase):
    def test_an_expensive_selection_is_interrupted(self) -> None:
        """A selection that takes too long is error 3024, soon after its limit, and the next one starts afresh."""
        condition = Condition(DEAR, time_limit=0.05)
        began = perf_counter()
        error = self.assertRaises(SqlError, condition.select, SLOW)
        self.assertLess(perf_counter() - began, 0.5)
        self.assertEqual(
            (error.code, error.sqlstate, error.message),
            (3024, "HY000", "Query execution was interrupted, maximum statement execution time exceeded"),
        )
        self.assertEqual(condition.select([SESSION]), [SESSION])
        condition.close()

    def test_a_selection_in_parts_has_one_limit(self) -> None:
        """What was spent on one session is missing for the next ones; a new selection starts afresh."""
        condition = Condition(DEAR, time_limit=0.05)
        holds = condition.selecting()
        self.assertTrue(holds(SESSION))
        self.assertEqual(self.assertRaises(SqlError, ask_for_all, holds).code, 3024)
        self.assertEqual(self.assertRaises(SqlError, holds, SESSION).code, 3024)
        self.assertTrue(condition.selecting()(SESSION))
        condition.close()

    def test_the_limit_is_a_second_by_default(self) -> None:
        """Without a limit of its own, a selection ends after one second."""
        condition = Condition(DEAR)
        began = perf_counter()
        self.assertEqual(self.assertRaises(SqlError, condition.select, SLOW).code, 3024)
        self.assertTrue(0.9 < perf_counter() - began < 2)
        condition.close()

    def test_one_session_is_quick(self) -> None:
        """Thousands of selections of one session a second are nothing: rules make them at each statement."""
        condition = Condition("User = 'app' AND transaction_seconds > 10 AND statement LIKE 'SELECT%'")
        began = perf_counter()
        for _ in range(1_000):
            self.assertEqual(len(condition.select((SESSION,))), 1)
        self.assertLess(perf_counter() - began, 0.5)
        condition.close()


class AnyTextTests(SynchronousTestCase):
    @settings(max_examples=400, deadline=1_500)
    @given(st.text() | SCRAPS)
    @example("Id = 7")
    @example("1e999 = 9e999")
    @example("-9223372036854775808 / -1 = Id % 0")
    @example("X'00' LIKE X'00'")
    def test_any_text_is_refused_or_selects(self, text: str) -> None:
        """Whatever the text, it is a SqlError or a selection, never another exception, and never slow."""
        try:
            condition = Condition(text)
        except SqlError as error:
            self.assertIn(error.code, (1064, 3024))
            return
        try:
            self.assertIn(condition.select([SESSION, STRANGER]), ([], [SESSION], [STRANGER], [SESSION, STRANGER]))
        except SqlError as error:
            self.assertIn(error.code, (1064, 3024))
        finally:
            condition.close()

    @given(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=50))
    def test_any_string_is_itself(self, text: str) -> None:
        """A user name equals its own literal in either kind of quotes, escaped either way, and matches it by LIKE."""
        session = evolve(SESSION, identity=Identity(text, "sys", "ob1"))
        escaped = text.replace("\\", "\\\\")
        for quote in "'\"":
            for literal in (escaped.replace(quote, quote * 2), escaped.replace(quote, f"\\{quote}")):
                self.assertTrue(holds(f"User = {quote}{literal}{quote}", session))
        pattern = text.replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_")  # what LIKE is to see
        literal = pattern.replace("\\", "\\\\").replace("'", "''")
        self.assertTrue(holds(f"User LIKE '{literal}'", session))


class LimitTests(SynchronousTestCase):
    def test_sqlite_is_new_enough(self) -> None:
        """The functions `iif`, `floor` and `sign` need SQLite 3.35 with its mathematical functions."""
        self.assertGreaterEqual(sqlite3.sqlite_version_info, (3, 35))
