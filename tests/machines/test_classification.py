from __future__ import annotations

import time

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from odptwist.machines import classification
from odptwist.machines.classification import Classification, Classifier, Kind, classify, classify_text
from odptwist.machines.exchange import LOOK_LIMIT
from odptwist.sqltext import tokens
from tests.wire.strategies import many

READ = r"""
SELECT 1
select 1;
SELECT 1; -- the end
SELECT 1 ; /* the end */ ;
  SELECT c FROM sbtest1 WHERE id=5021
SELECT*FROM t
SELECT'a'
SELECT(1)
(SELECT 1)
((SELECT 1) UNION (SELECT 2)) ORDER BY 1 LIMIT 1
( SELECT 1 ) UNION ALL ( SELECT 2 )
SELECT 1 UNION SELECT 2 EXCEPT SELECT 3 INTERSECT SELECT 4
WITH a AS (SELECT 1) SELECT * FROM a
WITH a (b, c) AS (SELECT 1, 2) SELECT * FROM a
WITH a (b, c) AS (SELECT 1, 2), d (e) AS (SELECT 3) SELECT * FROM a, d
WITH RECURSIVE a (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM a WHERE n < 5) SELECT * FROM a
WITH a(`b`) AS (SELECT 1) SELECT * FROM a
VALUES ROW(1, 2), ROW(3, 4)
VALUES (1, 2)
TABLE t
TABLE t ORDER BY a LIMIT 3
SELECT count(*), sum(a), avg(b), max(c), min(d) FROM t GROUP BY (a) HAVING (count(*) > 1)
SELECT COUNT(DISTINCT a) FROM t
SELECT a FROM t WHERE b IN (1, 2) AND (c = 1 OR (d = 2)) AND NOT (e) XOR (f)
SELECT a FROM t WHERE b IN(SELECT c FROM u) AND EXISTS (SELECT 1) AND d = ANY (SELECT 1) AND e > ALL (SELECT 2)
SELECT a FROM (SELECT 1 AS a) AS x
SELECT a FROM (SELECT 1) x (a)
SELECT a FROM (SELECT 1) AS x (a)
SELECT a FROM t JOIN (u, v) ON (t.a = u.a) LEFT JOIN w USING (a)
SELECT a FROM t, LATERAL (SELECT 1) x
SELECT a FROM t USE INDEX (i) WHERE b = 1
SELECT a FROM t FORCE INDEX FOR JOIN (i) IGNORE INDEX FOR ORDER BY (j)
SELECT a FROM t PARTITION (p0, p1)
SELECT sum(a) OVER (PARTITION BY (b) ORDER BY c), row_number() OVER w FROM t WINDOW w AS (ORDER BY d)
SELECT CASE WHEN (a) THEN (b) ELSE (c) END, CASE (a) WHEN 1 THEN 2 END FROM t
SELECT a BETWEEN (1) AND (2), a LIKE ('b'), a REGEXP ('c'), a DIV (2), a MOD (2), BINARY (a) FROM t
SELECT CAST(a AS CHAR(10)), CAST(b AS DECIMAL(10, 2)), CONVERT(c USING utf8mb4), CONVERT(d, SIGNED) FROM t
SELECT IF(a, b, c), IFNULL(a, b), NULLIF(a, b), COALESCE(a, b), GREATEST(1, 2), INTERVAL(1, 2)
SELECT if (a, b, c), concat ('a', 'b'), left ('abc', 2)
SELECT CONCAT('a', LOWER('B')), SUBSTRING('abc' FROM 1 FOR 2), TRIM(BOTH 'a' FROM 'b'), REPLACE('a', 'b', 'c')
SELECT INSERT('abc', 1, 1, 'x'), insert ('abc', 1, 1, 'x'), REPLACE ('a', 'b', 'c'), TRUNCATE(1.5, 0)
SELECT NOW(), NOW(6), CURRENT_TIMESTAMP, CURRENT_TIMESTAMP(3), CURDATE(), DATE_ADD(NOW(), INTERVAL (1) DAY)
SELECT EXTRACT(YEAR FROM a), DATE_FORMAT(a, '%Y'), UNIX_TIMESTAMP(), FROM_UNIXTIME(1) FROM t
SELECT VERSION(), DATABASE(), SCHEMA(), USER(), CURRENT_USER, CURRENT_USER(), SESSION_USER()
SELECT UUID(), RAND(), RAND(3), SLEEP(0), BENCHMARK(10, MD5('a'))
SELECT JSON_EXTRACT(a, '$.b'), a->'$.b', a->>'$.c', JSON_ARRAYAGG(a), JSON_OBJECT('a', 1) FROM t
SELECT * FROM JSON_TABLE('[1]', '$[*]' COLUMNS (a INT PATH '$', b VARCHAR(10) PATH '$')) AS j
SELECT ST_AsText(ST_GeomFromText('POINT(1 1)')), MBRContains(a, b), POINT(1, 2) FROM t
SELECT GROUP_CONCAT(DISTINCT a ORDER BY b SEPARATOR ',') FROM t
SELECT MATCH (a, b) AGAINST ('c' IN BOOLEAN MODE) FROM t
SELECT a FROM t WHERE (a, b) = (1, 2) AND -(a) < +(b) AND !(c) AND ~(d) AND a<>(b) AND a*(b)/(c)%(d)
SELECT DISTINCT (a), ALL (b) FROM t
SELECT DISTINCTROW a FROM t
SELECT SQL_CALC_FOUND_ROWS a FROM t LIMIT 1
SELECT SQL_NO_CACHE HIGH_PRIORITY a FROM t
SELECT a FROM t ORDER BY (a) DESC LIMIT 1 OFFSET 2
SELECT @a
SELECT @a, @`b`, @'c', @"d", @e.f
SELECT @a + (@b) = 1
SELECT @@version, @@session.sql_mode, @@local.time_zone, @@autocommit, @@tx_isolation
SELECT @@max_allowed_packet, @@version_comment LIMIT 1
SELECT @@sql_mode = ''
SELECT ? FROM t WHERE a = ?
SELECT 'FOR UPDATE'
SELECT 'a' 'b FOR UPDATE'
SELECT 'it''s FOR UPDATE'
SELECT 'a\'b'
SELECT 'it\'s FOR UPDATE'
SELECT "FOR UPDATE; DELETE FROM t"
SELECT `for update` FROM `into`
SELECT `a``b INTO` FROM t
SELECT 'f(1)', "g(2)", `h(3)` FROM t
SELECT 1 -- FOR UPDATE
SELECT 1 # FOR UPDATE
SELECT 1 /* FOR UPDATE */
SELECT /* INTO x */ 1
SELECT/**/1
/* a */ SELECT 1
/* it's */ SELECT 1
/* a *//* b */ SELECT /* c */ 1 /* d */
/*/ a */ SELECT 1
SELECT 1 /* ' */ + /* ' */ 1
SELECT ' -- ' /* ' */
SELECT '/*' '*/'
SELECT '-- ' , 1
SELECT '#' , '/*'
SELECT 5--1
SELECT 1 /* a * b / c ** */
SELECT /*! SQL_NO_CACHE */ 1
SELECT /*!40001 SQL_NO_CACHE */ * FROM t
SELECT /*!80000 SQL_NO_CACHE*/ count(*) FROM t
SELECT /*M!100100 SQL_NO_CACHE */ 1
SELECT a FROM t /*! FORCE INDEX (i) */
SELECT/*!*/1
/*!50000 SELECT */ SELECT 1
SELECT /*+ MAX_EXECUTION_TIME(1000) */ 1
SELECT /*+ INDEX(t `i`) SET_VAR(sql_mode = '') */ 1 FROM t
SELECT a.b.c, a . b FROM a.b
SELECT t.count FROM t
SELECT forx, xfor, for_x, into_x, x_into, relock, locks, updated, last_update, replaced, block FROM t
SELECT nextvalue, share, read_only, warnings FROM t
SELECT a AS `FOR`, b "INTO" FROM t
SELECT { fn NOW() }, { d '2020-01-01' }, {fn CONCAT('a')}
SELECT DATE '2020-01-01', TIMESTAMP'2020-01-01 00:00:00', N'a', _utf8mb4'b', x'41', 0x41, b'1'
SELECT 1e5, 1.5e-3, .5, 1.
SELECT NULL, TRUE, NOT (TRUE)
SELECT a'b' FROM t
SELECT COUNT(*) FROM `表` WHERE `名` = '中文'
SELECT '中文 (好)' FROM t
SELECT '中文' AS 名, 表.列 FROM 表
SELECT '中文''s' , 'a\nb'
SELECT "a\"b", 'c'
SET STATEMENT max_statement_time=1 FOR SELECT 1
SET STATEMENT max_statement_time=1, sql_mode='' FOR (SELECT 1)
"""

NEUTRAL = r"""

;
 ; ;
-- a
/* a */
/*! */
SET NAMES utf8mb4
set autocommit = 0
SET @a = 1, @b := 'x'
SET @a = (SELECT max(b) FROM t)
SET SESSION sql_mode = 'ANSI_QUOTES'
SET @@session.sql_mode = CONCAT(@@sql_mode, ',STRICT_ALL_TABLES')
SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED
SET TRANSACTION READ ONLY
SET CHARACTER SET utf8
SET ROLE admin
SET sql_mode = @@global.sql_mode
SET @x = LAST_INSERT_ID()
/*!40101 SET NAMES utf8 */
USE db
use `db`
SHOW TABLES
SHOW CREATE TABLE t
SHOW CREATE PROCEDURE p
SHOW GRANTS FOR CURRENT_USER()
SHOW VARIABLES LIKE 'a%'
SHOW VARIABLES WHERE Variable_name IN ('a', 'b')
SHOW MASTER STATUS
BEGIN
begin work
START TRANSACTION
START TRANSACTION WITH CONSISTENT SNAPSHOT, READ ONLY
ROLLBACK
ROLLBACK TO SAVEPOINT a
SAVEPOINT a
RELEASE SAVEPOINT a
XA START 'a'
XA END 'a'
XA ROLLBACK 'a'
XA RECOVER
PREPARE s FROM 'DELETE FROM t'
DEALLOCATE PREPARE s
LOCK TABLES t READ
LOCK TABLE t WRITE
UNLOCK TABLES
HELP 'a'
EXPLAIN SELECT 1
EXPLAIN DELETE FROM t
EXPLAIN UPDATE t SET a = f(1)
EXPLAIN EXTENDED SELECT 1
EXPLAIN FORMAT=JSON INSERT INTO t (a) VALUES (1)
EXPLAIN FOR CONNECTION 3
EXPLAIN ANALYZE SELECT count(*) FROM t
EXPLAIN ANALYZE FORMAT=TREE SELECT 1
ANALYZE SELECT 1
ANALYZE FORMAT=JSON SELECT 1
ANALYZE FORMAT='json' SELECT 1
DESC t
DESCRIBE t a
DO 1
DO SLEEP(1), RELEASE_LOCK('a')
HANDLER t OPEN
HANDLER t READ i = (1)
SELECT LAST_INSERT_ID()
SELECT last_insert_id (), 1
SELECT CONNECTION_ID()
SELECT GET_LOCK('a', 1), RELEASE_LOCK('a')
SELECT IS_FREE_LOCK('a'), IS_USED_LOCK('a'), RELEASE_ALL_LOCKS()
SELECT MASTER_POS_WAIT('a', 1), MASTER_GTID_WAIT('a'), LOAD_FILE('a')
SELECT WAIT_FOR_EXECUTED_GTID_SET('a')
SELECT @a := 1
SELECT @a:=@a+1 FROM t
SELECT @@last_insert_id
SELECT @@identity, @@insert_id
SELECT @@server_id
SELECT @@SERVER_UUID
SELECT @@hostname, @@port
SELECT @@read_only
SELECT @@session.super_read_only
SELECT @@gtid_executed
SELECT @@last_gtid
SELECT @@gtid_current_pos
SELECT @@global.x
SELECT @@GLOBAL . x
SELECT @@session . x
SELECT @@`hostname`
SELECT @@session.`hostname`
SELECT @@hot_cache.key_buffer_size
SELECT @@/* a */hostname
SELECT 1; SELECT 2
SELECT 1; SHOW WARNINGS
BEGIN; SELECT 1
SET STATEMENT max_statement_time=1 FOR SET NAMES utf8
"""

LAST = r"""
SHOW WARNINGS
show  warnings limit 1
SHOW ERRORS
SHOW COUNT(*) WARNINGS
SHOW COUNT( * ) ERRORS
SHOW /* a */ WARNINGS
SHOW PROFILE
SHOW PROFILES
SHOW PROFILE CPU FOR QUERY 1
SHOW TRACE
SELECT FOUND_ROWS()
SELECT found_rows ( )
SELECT FOUND_ROWS() AS a, CONNECTION_ID()
SELECT ROW_COUNT()
SELECT @@warning_count
SELECT @@session.error_count
SELECT @@hostname, @@error_count
SELECT LAST_TRACE_ID()
SET @a = ROW_COUNT()
DO FOUND_ROWS()
GET DIAGNOSTICS @a = NUMBER
GET CURRENT DIAGNOSTICS CONDITION 1 @a = MESSAGE_TEXT
"""

WRITE = r"""
INSERT INTO t VALUES (1)
insert t values (1)
UPDATE t SET a = 1
DELETE FROM t
REPLACE INTO t VALUES (1)
/* a */ DELETE FROM t
(DELETE FROM t)
(SET NAMES utf8)
( SHOW TABLES )
WITH a AS (SELECT 1) DELETE FROM t
WITH a AS (SELECT 1) UPDATE t SET b = 1
WITH a AS (SELECT 1) INSERT t SELECT 1
WITH a AS (SELECT 1) REPLACE t SELECT 1
COMMIT
COMMIT AND CHAIN
XA COMMIT 'a'
XA PREPARE 'a'
CREATE TABLE t (a INT)
DROP TABLE t
ALTER TABLE t ADD b INT
TRUNCATE t
TRUNCATE TABLE t
CALL p()
EXECUTE s
EXECUTE IMMEDIATE 'SELECT 1'
GRANT SELECT ON t TO u
LOAD DATA INFILE 'a' INTO TABLE t
FLUSH TABLES
START SLAVE
STOP SLAVE
KILL 3
whatever
1
@a
*
'SELECT 1'
`SELECT` 1
SELECT1
SELECT$ 1
SELECTé 1
BEGIN NOT ATOMIC DELETE FROM t; END
BEGIN NOT ATOMIC END
RELEASE x
ANALYZE TABLE t
ANALYZE LOCAL TABLE t
ANALYZE UPDATE t SET a = 1
ANALYZE FORMAT=JSON DELETE FROM t
EXPLAIN ANALYZE DELETE FROM t
EXPLAIN ANALYZE SELECT f(1)
EXPLAIN ANALYZE SELECT 1 FOR UPDATE
DESC ANALYZE UPDATE t SET a = 1
EXPLAIN INTO plans SELECT 1
DO f(1)
HANDLER t READ FIRST WHERE f(1)
SHOW TABLES WHERE f(1)
SET @a = f(1)
SET @a = (SELECT f(1))
SET GLOBAL read_only = 1
SET autocommit = 1, GLOBAL read_only = 1
SET @@global.read_only = 1
SET @@ GLOBAL.read_only = 1
SET a = 1, @@global.b = 2
SET PERSIST a = 1
SET PERSIST_ONLY a = 1
SET PASSWORD = 'a'
SET PASSWORD FOR u = 'a'
SET DEFAULT ROLE a TO u
SET STATEMENT a=1 FOR DELETE FROM t
SET STATEMENT a=f(1) FOR SELECT 1
SET STATEMENT a='for select 1' FOR DELETE FROM t
SET STATEMENT a=1 FOR SET STATEMENT b=1 FOR DELETE FROM t
SELECT 1; DELETE FROM t
SELECT 1;DELETE FROM t;SELECT 2
BEGIN; UPDATE t SET a = 1
SELECT 1 FOR UPDATE
select 1 for update
SELECT 1 FOR UPDATE OF t NOWAIT
SELECT 1 FOR SHARE
SELECT 1 FOR  SHARE SKIP LOCKED
SELECT 1 FOR
SELECT 1 LOCK IN SHARE MODE
SELECT * FROM (SELECT 1 FOR UPDATE) x
(SELECT 1) FOR UPDATE
(SELECT 1 FOR UPDATE)
SELECT 1 UNION (SELECT 2 LOCK IN SHARE MODE)
SELECT 1 INTO @a
SELECT 1 INTO OUTFILE 'a'
SELECT a INTO DUMPFILE 'a' FROM t
TABLE t INTO OUTFILE 'a'
TABLE t FOR UPDATE
SELECT a FROM t PROCEDURE ANALYSE()
SELECT NEXT VALUE FOR s
SELECT PREVIOUS VALUE FOR s
SELECT NEXTVAL(s)
SELECT LASTVAL(s)
SELECT SETVAL(s, 1)
SELECT s.nextval FROM dual
SELECT s.currval FROM dual
SELECT * FROM t FOR SYSTEM_TIME AS OF TRANSACTION 3
SELECT f()
SELECT f (1)
SELECT F/**/(1)
SELECT f/* a */(1)
SELECT 1 + f(1)
SELECT count(f(1)) FROM t
SELECT ((f(1)))
SELECT f((1))
SELECT a FROM t WHERE f(a) = 1 ORDER BY a
SELECT db.f(1)
SELECT db . f (1)
SELECT db.count(1)
SELECT db . count(1)
SELECT db./**/count(1)
SELECT `db`.count(1)
SELECT db.`f`(1)
SELECT `f`(1)
SELECT `count`(1)
SELECT "count"(1)
SELECT 'count'(1)
SELECT COUNT (*) FROM t
SELECT count/**/(1)
SELECT now ()
SELECT sys_exec('a')
SELECT SYS_EVAL('a')
SELECT f(a) AS b FROM t
SELECT @a(1)
SELECT 1count(1)
SELECT 1e5f(1)
SELECT 1.count(1)
SELECT a FROM f(1)
SELECT é(1)
SELECT countй(1)
SELECT йcount(1)
SELECT 1.5FOR UPDATE
SELECT 1e5FOR UPDATE
SELECT a FROM t WHERE b=1e+5FOR UPDATE
SELECT .5FOR UPDATE
SELECT 'a'FOR UPDATE
SELECT `a`FOR UPDATE
SELECT (1)FOR/**/UPDATE
SELECT 1/**/FOR/**/UPDATE
SELECT \NFOR UPDATE
SELECT \N, 1
SELECT 1 /*! FOR UPDATE */
SELECT 1 /*!FOR UPDATE*/
SELECT 1 /*!50000 FOR UPDATE */
SELECT 1 /*!99999 FOR UPDATE */
SELECT 1 /*M! FOR UPDATE */
SELECT 1 /*M!100100 FOR UPDATE */
SELECT 1 FOR /*! UPDATE */
SELECT 1 /*! INTO */ @a
SELECT /*! f(1) */ 1
SELECT f /*! + */ (1)
SELECT count /*!99999 */(1)
SELECT /*!500001count(1) */ 1
SELECT /*!99999 '*/ FOR UPDATE -- ' */
SELECT /*!99999 /* */ ' */ FOR UPDATE -- '
SELECT 1 /*! -- */ FOR UPDATE
SELECT 1 /* /*! x */ FOR UPDATE
SELECT 1 /*! ; DELETE FROM t */
SELECT /*!50000 a */ /*!80000 b */ 1
SELECT /*! SQL_NO_CACHE
/*! DELETE FROM t */
/*!40000 ALTER TABLE t DISABLE KEYS */
/*! SELECT 1; */ DELETE FROM t
SELECT 'a' FOR UPDATE -- '
SELECT 'a''' FOR UPDATE -- '
SELECT '\'' FOR UPDATE -- '
SELECT '\\' FOR UPDATE -- '
SELECT 'a\' FOR UPDATE -- '
SELECT "a\" FOR UPDATE -- "
SELECT 'a\' , ' FOR UPDATE /* ' */
SELECT "a\" , " FOR UPDATE /* " */
SELECT 'a\\' FOR UPDATE /* ' */
SELECT "a\", 'b\' , " FOR UPDATE /* " */
SELECT '"' FOR UPDATE -- "
SELECT "'" FOR UPDATE -- '
SELECT `'` FOR UPDATE -- '
SELECT `a\` FOR UPDATE -- `
SELECT 1 /* ' */ FOR UPDATE -- '
SELECT '/*' FOR UPDATE /* ' */
SELECT '--' FOR UPDATE
SELECT 1 --1 FOR UPDATE
SELECT 1 /* a */ FOR UPDATE /* b */
SELECT 1 /**/ FOR UPDATE
SELECT 1 /***/ FOR UPDATE /***/
SELECT 1 /*/ */ FOR UPDATE
SELECT @'a\' , ' FOR UPDATE -- '
SELECT @'a ', ' FOR UPDATE -- '
SELECT DATE 'a\' , ' FOR UPDATE -- ', '\''
SELECT 'a'#' b'
SELECT /*+ x('*/ FOR UPDATE -- ') */ 1
SELECT /*+ '*/ 1
SELECT '名\' , ' FOR UPDATE , '
SELECT a /*! ' */ , ' FOR UPDATE '
"""

# What does not fit into a line: (kind, text).
MORE = [
    (Kind.READ, b"SELECT 1 -- for update\n+ 2"),
    (Kind.READ, b"-- a\n# it's\n SELECT '#f00', '-- '"),
    (Kind.READ, b"SELECT 1\r\n, 2 # into\r\n, 3"),
    (Kind.READ, b"SELECT\t1\x0b,\x0c2"),
    (Kind.READ, b"SELECT a FROM t WHERE b IN\n(1)\nAND\t(2)"),
    (Kind.READ, b"SELECT '\xbf\xbf' FROM `\xc4\xe3`"),
    (Kind.READ, b"SELECT '\x00'"),
    (Kind.WRITE, b"SELECT '\x00;'"),
    (Kind.WRITE, b"SELECT 1\nFOR\nUPDATE"),
    (Kind.WRITE, b"SELECT 1 FOR\xa0UPDATE"),
    (Kind.WRITE, b"SELECT 1\xa0FOR\xa0UPDATE"),
    (Kind.WRITE, b"SELECT count\xa0(1)"),
    (Kind.WRITE, b"SELECT count\x00(1)"),
    (Kind.WRITE, b"SELECT 1 -- '\n FOR UPDATE -- '"),
    (Kind.WRITE, b"SELECT 1 # '\n FOR UPDATE # '"),
    (Kind.WRITE, b"SELECT 1 --\x7f '\n FOR UPDATE -- '"),
    (Kind.WRITE, b"SELECT 1 --\xa0'\n , ' FOR UPDATE -- '"),
    (Kind.WRITE, b"SELECT 1 --\n'\n FOR UPDATE -- '"),
    (Kind.WRITE, b"SELECT 1 -- a\rFOR UPDATE"),
    (Kind.WRITE, b"SELECT 'a'#'\n' FOR UPDATE #'"),
    (Kind.WRITE, b"SELECT '\xbf\\' , ' FOR UPDATE , '"),
    (Kind.WRITE, b"SELECT '\xbf\\', '\\'' /* ' FOR UPDATE , ' */"),
    (Kind.WRITE, b"SELECT `\xbf` , ` FOR UPDATE , `"),
    (Kind.WRITE, b"SELECT \xbfFOR UPDATE"),
    (Kind.WRITE, b"SELECT 1 FOR\tSHARE"),
    (Kind.WRITE, b"SELECT f\n(1)"),
    (Kind.WRITE, b"SELECT f -- a\n(1)"),
    (Kind.WRITE, b"SELECT and -- and\n f -- and\n(1)"),
    (Kind.WRITE, b"SELECT count -- \n(1)"),
    (Kind.WRITE, b"-- a\nDELETE FROM t"),
    (Kind.WRITE, b"# a\nDELETE FROM t"),
    (Kind.NEUTRAL, b"USE `\xe8\xa1\xa8`"),
    (Kind.NEUTRAL, b""),
]

HINTS = [
    ("SELECT 1", None),
    ("SELECT /*+ READ_CONSISTENCY(WEAK) */ 1", True),
    ("select/*+read_consistency(weak)*/1", True),
    ("SELECT /*+ READ_CONSISTENCY( STRONG ) */ 1", False),
    ("SELECT /*+ READ_CONSISTENCY\n(\nWEAK\n) */ 1", True),
    ("SELECT /*+ READ_CONSISTENCY(FROZEN) */ 1", None),
    ("SELECT /*+ INDEX(t i) READ_CONSISTENCY(WEAK), PARALLEL(3) */ 1 FROM t", True),
    ("SELECT /*+ READ_CONSISTENCY(WEAK) READ_CONSISTENCY(STRONG) */ 1", False),
    ("SELECT /*+ XREAD_CONSISTENCY(WEAK) */ 1", None),
    ("SELECT /*+ QB_NAME(`a`) READ_CONSISTENCY(WEAK) */ 1", True),
    ("/* a */ SELECT /*+ READ_CONSISTENCY(WEAK) */ 1", True),
    ("SELECT /* a */ /*+ READ_CONSISTENCY(WEAK) */ 1", True),
    ("(SELECT /*+ READ_CONSISTENCY(WEAK) */ 1)", True),
    ("SELECT 1 FROM (SELECT /*+ READ_CONSISTENCY(STRONG) */ 1) x", False),
    ("WITH a AS (SELECT 1) SELECT /*+ READ_CONSISTENCY(STRONG) */ 1", False),
    ("SELECT /* READ_CONSISTENCY(WEAK) */ 1", None),
    ("SELECT /*! READ_CONSISTENCY(WEAK) */ 1", None),
    ("SELECT 1 /*+ READ_CONSISTENCY(WEAK) */", None),
    ("/*+ READ_CONSISTENCY(WEAK) */ SELECT 1", None),
    ("SELECT 'SELECT /*+ READ_CONSISTENCY(WEAK) */'", None),
    ("SELECT 1 -- SELECT /*+ READ_CONSISTENCY(WEAK) */", None),
    ("SELECT `select`/*+ READ_CONSISTENCY(WEAK) */", None),
    ("SELECT xselect /*+ READ_CONSISTENCY(WEAK) */", None),
    ("SELECT '/*+ READ_CONSISTENCY(WEAK) */'", None),
    ("SELECT 'READ_CONSISTENCY(WEAK)', 1", None),
]

# Tokens, whole ones: what stands between two of them is none of theirs.
TOKENS = st.sampled_from(
    "SELECT WITH FOR UPDATE INTO LOCK IN SHARE MODE count f a AND ( ) ( ) , . = * ; 'a' 'b''c' 'for' `d` \"e\" "
    "'f\\'g' '\\\\' @h @@hostname @@i := 1 1.5 AS FROM WHERE SHOW WARNINGS SET DELETE BEGIN".split()
)
BETWEEN = st.lists(
    st.sampled_from(
        [" ", "\n", "\t", "\r\n", "/**/", "/* a */", "/* ' */", "/* for */", " -- b\n", " -- it's\n", "# c\n"]
    ),
    min_size=1,
    max_size=3,
).map("".join)
PIECES = st.lists(
    st.sampled_from(
        ["SELECT ", " FOR UPDATE ", " INTO ", " ", "\n", "\r", "-- ", "é\\", *"/*~/*!~/*!50000~/*+~*/".split("~")]
    )
    | st.sampled_from("' \" ` \\ # ( ) ; @ @@ 1 . , f -- count( DATE AS \\N é".split()),
    max_size=14,
).map("".join)


def kind_of(text: str) -> Kind:
    """Return the kind of a text."""
    return classify_text(text).kind


class ClassificationTests(SynchronousTestCase):
    def check(self, table: str, kind: Kind) -> None:
        """Check the kind of each line of a table, also in other cases and behind blanks and a comment."""
        for line in table[1:-1].split("\n"):
            for text in {line, line.lower(), line.upper(), f" \n\t{line}\n", f"/* it's */{line}"}:
                # Only these depend on the case.
                if text != line and ("/*m!" in text or "\\n" in line.lower()):
                    continue
                self.assertIs(kind_of(text), kind, repr(text))

    def test_read(self) -> None:
        """A query that changes nothing and tells nothing of a session may go to any server."""
        self.check(READ, Kind.READ)

    def test_neutral(self) -> None:
        """What sets up or tells of the session stays with the primary, and writes nothing."""
        self.check(NEUTRAL, Kind.NEUTRAL)

    def test_last(self) -> None:
        """What tells of the statement before goes where that went."""
        self.check(LAST, Kind.LAST)

    def test_write(self) -> None:
        """All that may change something is a write, and so is what a server may read as such."""
        self.check(WRITE, Kind.WRITE)

    def test_bytes(self) -> None:
        """Newlines, control characters and bytes of any character set hide nothing."""
        for kind, text in MORE:
            self.assertIs(classify(text).kind, kind, text)

    def test_there_are_many(self) -> None:
        """The tables are as long as they look: none of them was cut by its own syntax."""
        self.assertGreater(sum(len(table.split("\n")) for table in (READ, NEUTRAL, LAST, WRITE)) + len(MORE), 380)

    def test_hints(self) -> None:
        """READ_CONSISTENCY counts in a hint behind SELECT, and nowhere else."""
        for text, weak in HINTS:
            self.assertEqual(classify_text(text).weak, weak, text)
        self.assertEqual(
            classify_text("SELECT /*+ READ_CONSISTENCY(WEAK) */ 1 FOR UPDATE"), Classification(Kind.WRITE, True)
        )

    @many
    @given(st.binary(max_size=200))
    def test_any_bytes(self, text: bytes) -> None:
        """No text raises."""
        Classifier().classify(text)
        classify(b"SELECT " + text)

    @many
    @given(st.text(max_size=100) | PIECES)
    def test_any_text(self, text: str) -> None:
        """No text raises, and what a plain reader of tokens finds in a read is nothing that writes."""
        if kind_of(f"SELECT {text}") is not Kind.READ:
            return
        found = list(tokens(f"SELECT {text}"))
        if found[-1].text[0] in "'\"`" and found[-1].text[-1:] != found[-1].text[0]:
            return  # no server runs it, if it reads it so
        words = [token.word for token in found]
        self.assertFalse({"UPDATE", "INTO"} & set(words), text)

    @many
    @given(st.lists(TOKENS, max_size=10), st.data())
    def test_blanks_and_comments_between(self, words: list[str], data: st.DataObject) -> None:
        """Blanks and comments between the tokens of what is no read make no read of it."""
        words.insert(0, "SELECT")
        if kind_of(" ".join(words)) is not Kind.READ:
            text = "".join(word + data.draw(BETWEEN) for word in words)
            self.assertIsNot(kind_of(text), Kind.READ, text)

    @many
    @given(st.lists(TOKENS, max_size=8), BETWEEN)
    def test_for_update_behind(self, words: list[str], blank: str) -> None:
        """No read is one any more with FOR UPDATE behind it."""
        text = " ".join(["SELECT", *words])
        self.assertIsNot(kind_of(f"{text}{blank}FOR{blank}UPDATE"), Kind.READ, text)
        self.assertIsNot(kind_of(f"{text}{blank}/*!50000 FOR UPDATE */"), Kind.READ, text)

    def test_number_of_readings(self) -> None:
        """A text is judged at most once for each sql_mode that matters and an executable comment."""
        for text, most in (("SELECT 'a;'", 1), ("SELECT '\\;'", 3), ("SELECT '\\;' /*! a */ '\\'" * 99, 6)):
            self.assertLessEqual(len(list(classification._readings(text.encode()))), most, text)

    def test_long_texts(self) -> None:
        """A text of nearly 64 KiB is classified in linear time, whatever it is: a quadratic reader takes minutes."""
        pieces = (
            "'", '"', "`", "\\", "'\\", "\\'", "''a", "/*", "/*!", "/*!1 ", "/*+", "/*+ '", "/*/", "*/", "*", "@", "@@",
            "@`", "@'", "@'a", "@@a.", "--", "-- ", "--\t", "#", "1", "1.", "1e", "a", "a ", " ", "\n", "\r\n", ":=",
            ";", "a;", "(", "a(", "a (", ")", "a)", ") a", "as ", "as a", "a(b) ", "a(b) as ", "a,", ".", ". ",
            "a. ", "\xe9", "for", "for ", "insert ", "set ", "select ", "select/*+", "select /**/", "date", "date ",
            "date'", "+", "=",
        )  # fmt: skip
        starts = (
            "select ",
            "select '",
            "select /*",
            "select /*!",
            "select /*+",
            "set statement ",
            "show ",
            "explain ",
            "",
        )
        for piece in pieces:
            for start in starts:
                text = (start + piece * (LOOK_LIMIT // len(piece)))[: LOOK_LIMIT - 2].encode("latin-1")
                began = time.process_time()
                classify(text)
                self.assertLess(time.process_time() - began, 2, f"{start}{piece}")

    def test_nested_set_statement(self) -> None:
        """A long chain of SET STATEMENT does not pass Python's limit of recursion."""
        self.assertIs(kind_of("SET STATEMENT a=1 FOR " * 3000 + "SELECT 1"), Kind.WRITE)
        self.assertIs(kind_of("SET STATEMENT a=1 FOR ANALYZE " * 2000 + "SELECT 1"), Kind.WRITE)
        self.assertIs(kind_of("ANALYZE " * 7000 + "SELECT 1"), Kind.NEUTRAL)
        self.assertIs(kind_of("SELECT 1;" * 7000), Kind.NEUTRAL)


class ClassifierTests(SynchronousTestCase):
    def test_classify(self) -> None:
        """A command's first byte is not its text."""
        classifier = Classifier()
        for _ in range(2):
            for text in ("SELECT 1", "SELECT 'a;'", "DELETE FROM t", "SHOW WARNINGS", "SELECT /*+ a */ 1", ""):
                for command in (b"\x03", b"\x16"):
                    self.assertEqual(classifier.classify(command + text.encode()), classify_text(text), text)
        self.assertIs(classifier.classify(b"").kind, Kind.NEUTRAL)

    def test_cut(self) -> None:
        """What may be the beginning of a longer text is a write."""
        classifier = Classifier()
        text = b"\x03SELECT '".ljust(LOOK_LIMIT - 2, b"a") + b"'"
        self.assertIs(classifier.classify(text).kind, Kind.READ)
        self.assertIs(classifier.classify(text + b" ").kind, Kind.WRITE)

    def test_cache_is_bounded(self) -> None:
        """However many texts come, two generations of them are kept at most, and no long ones."""
        classifier = Classifier()
        for number in range(5000):
            classifier.classify(b"\x03SELECT 'a;', %d" % number)
            classifier.classify(b"\x03SELECT 'b;', %d, '%s'" % (number, b"x" * 600))
        kept = [*classifier._young, *classifier._old]
        self.assertLessEqual(len(kept), 2 * classification._GENERATION)
        self.assertGreater(len(kept), classification._GENERATION)
        self.assertTrue(all(len(command) <= classification._KEPT_SIZE for command in kept))

    def test_cache_keeps_what_comes_back(self) -> None:
        """A text that comes back stays, though ever so many others come only once; plain ones do not even come in."""
        classifier = Classifier()
        again = b"\x03SELECT 'again;'"
        classifier.classify(again)
        for number in range(5000):
            classifier.classify(b"\x03SELECT 'a;', %d" % number)
            if not number % 900:
                self.assertTrue(again in classifier._young or again in classifier._old)
                self.assertIs(classifier.classify(again).kind, Kind.READ)
                self.assertIn(again, classifier._young)
        classifier = Classifier()
        for number in range(100):
            classifier.classify(b"\x03SELECT c FROM t WHERE id=%d" % number)
            classifier.classify(b"\x03SELECT /*+ READ_CONSISTENCY(WEAK) */ c FROM t WHERE id=%d" % number)
            classifier.classify(b"\x03INSERT INTO t VALUES (%d, 'a')" % number)
        self.assertEqual(classifier._young, {})
