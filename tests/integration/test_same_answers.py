"""A client of a cluster of two servers gets the answers that its primary alone would give it, whatever it does.

Two clients do the same: one through a proxy that sends reads to the replica, the other one directly at the primary,
each with tables of its own. Now and then somebody kills a server session of the first, when nothing may be lost.

`ODPTWIST_EXAMPLES=2000 pytest -m slow tests/integration/test_same_answers.py` looks further than CI does, each time
elsewhere.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from itertools import count
from pathlib import Path

import pymysql
import pytest
from attrs import define, evolve, field, frozen
from hypothesis import HealthCheck, Phase, given, note, settings
from hypothesis import strategies as st
from pymysql.connections import Connection

from odptwist.wire.constants import (
    COM_INIT_DB,
    COM_PING,
    COM_QUERY,
    COM_RESET_CONNECTION,
    COM_SET_OPTION,
    SERVER_STATUS_IN_TRANS,
)
from tests.support.answers import Answer, Asker, Statement, Value
from tests.support.pair_proxy import start_pair_proxy
from tests.support.pairs import APP_PASSWORD, Pair
from tests.support.servers import Server
from tests.support.sessions import query

pytestmark = pytest.mark.slow

EXAMPLES = int(os.environ.get("ODPTWIST_EXAMPLES", "0"))
DATABASES = ("shop", "depot")
PASSWORDS = {"app": APP_PASSWORD.encode(), "plain": b""}
SLOTS = 2

# $t is a client's own table, $l its own lock, $b the first id of an example.
READS = (
    "SELECT id - $b, n, s FROM $t ORDER BY id",
    "SELECT COUNT(*), SUM(n) FROM $t",
    "SELECT n FROM $t ORDER BY id LIMIT 1",
    "SELECT SQL_CALC_FOUND_ROWS n FROM $t ORDER BY id LIMIT 1",
    "SELECT id - $b FROM shop.$t ORDER BY id",
    "SELECT n FROM depot.$t WHERE n > 1 ORDER BY id",
    "SELECT n FROM $t WHERE id = $b FOR UPDATE",
    "SELECT n + @a FROM $t ORDER BY id",
    "SELECT DATABASE()",
    "SELECT @a, @b, @c",
    "SELECT @@sql_mode, @@time_zone, @@autocommit, @@sql_select_limit, @@group_concat_max_len",
    "SELECT @@character_set_client, @@character_set_connection, @@character_set_results, @@collation_connection",
    "SELECT @@tx_isolation, @@div_precision_increment, @@foreign_key_checks, @@auto_increment_increment",
    "SELECT @@session.tx_read_only, @@insert_id",
    "SELECT CURRENT_USER()",
    "SELECT LAST_INSERT_ID() - $b",
    "SELECT @@last_insert_id - $b",
    "SELECT 1 / 3, 'a' || 'b', UNIX_TIMESTAMP('2026-06-01 12:00:00')",
    "SELECT HEX('\u00e9'), 'a\\'b'",
    'SELECT "n" FROM $t ORDER BY id LIMIT 1',
    "SELECT GROUP_CONCAT(s ORDER BY id SEPARATOR '') FROM $t",
    "SELECT UNIX_TIMESTAMP(NOW()) < 2000",
    "(SELECT 1) UNION (SELECT 2)",
    "SHOW VARIABLES LIKE 'sql_mode'",
    "SELECT /*+ READ_CONSISTENCY(WEAK) */ n FROM $t ORDER BY id",
)
# The row $b stays: an id that is given and accepted is in an OK packet, but for MariaDB it is no LAST_INSERT_ID(), and
# the proxy cannot tell one from the other.
WRITES = (
    "INSERT INTO $t (n, s) VALUES (2, 'two')",
    "INSERT INTO $t (n, s) VALUES (3, 'three'), (4, 'four')",
    "INSERT INTO $t (id, n) VALUES ($b, 5)",
    "INSERT IGNORE INTO $t (id, n) VALUES ($b, 5)",
    "INSERT INTO $t (n, s) VALUES (6, 'far too long for this column')",
    "INSERT INTO $t (n) SELECT n + 10 FROM $t",
    "INSERT INTO $t (id, n) VALUES ($b, 7) ON DUPLICATE KEY UPDATE id = LAST_INSERT_ID(id), n = n + 1",
    "INSERT INTO depot.$t (n) VALUES (8)",
    "UPDATE $t SET n = n + 1",
    "UPDATE $t SET n = 1 WHERE id = $b",
    "UPDATE $t SET n = @a WHERE id = $b",
    "DELETE FROM $t WHERE id > $b + 2",
    "DELETE FROM $t WHERE id > $b",
    "INSERT INTO $t (n, s) VALUES (LAST_INSERT_ID() - $b, @b)",
    "CREATE TABLE IF NOT EXISTS $t (n INT)",
)
SETTINGS = (
    "SET sql_mode = ''",
    "SET sql_mode = 'ANSI_QUOTES'",
    "SET SESSION sql_mode = 'NO_BACKSLASH_ESCAPES'",
    "SET @@sql_mode = 'STRICT_TRANS_TABLES,PIPES_AS_CONCAT'",
    "SET sql_mode = DEFAULT",
    "SET sql_mode = CONCAT(@@sql_mode, ',ANSI_QUOTES')",
    "SET time_zone = '+03:00'",
    "SET time_zone = 'SYSTEM'",
    "SET time_zone = 'nowhere'",
    "SET NAMES utf8mb4",
    "SET NAMES utf8mb4 COLLATE utf8mb4_bin",
    "SET NAMES latin1",
    "SET CHARACTER SET utf8mb4",
    "SET character_set_results = NULL",
    "SET autocommit = 0",
    "SET autocommit = 1",
    "SET @@session.autocommit = OFF, @a = 4",
    "SET sql_select_limit = 2",
    "SET sql_select_limit = DEFAULT",
    "SET group_concat_max_len = 4",
    "SET LOCAL div_precision_increment = 7",
    "SET @@session.foreign_key_checks = OFF",
    "SET auto_increment_increment = 3",
    "SET timestamp = 1000",
    "SET timestamp = DEFAULT",
    "SET insert_id = $b + 20",
    "SET last_insert_id = $b",
    "SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED",
    "SET SESSION TRANSACTION READ ONLY",
    "SET SESSION TRANSACTION READ WRITE",
    "SET TRANSACTION ISOLATION LEVEL SERIALIZABLE",
    "SET TRANSACTION READ ONLY",
    "SET @a = 1",
    "SET @a = -2.50, @b = 'it''s', sql_mode = ''",
    "SET @b := 'x\\ny', @c = NULL",
    "SET @a = 0x41, @c = TRUE",
    "SET @b = @a",
    "SET @c = (SELECT MAX(n) FROM $t)",
    "SET @a = @a + 1",
    "SET @no_such_variable, nothing = 1",
    "SET no_such_variable = 1",
    "SET GLOBAL sql_mode = ''",
    "SET ROLE NONE",
    "USE shop",
    "USE `depot`",
    "USE nowhere",
)
TRANSACTIONS = (
    "BEGIN",
    "START TRANSACTION",
    "START TRANSACTION READ ONLY",
    "START TRANSACTION WITH CONSISTENT SNAPSHOT",
    "COMMIT",
    "COMMIT AND CHAIN",
    "ROLLBACK",
    "SAVEPOINT one",
    "ROLLBACK TO one",
    "RELEASE SAVEPOINT one",
    "SAVEPOINT two",
    "ROLLBACK TO SAVEPOINT two",
)
HOLDING = (
    "CREATE TEMPORARY TABLE passing (n INT)",
    "INSERT INTO passing VALUES (1), (2)",
    "SELECT n FROM passing ORDER BY n",
    "DROP TEMPORARY TABLE passing",
    "SELECT GET_LOCK('$l', 0) AS x",
    "SELECT RELEASE_LOCK('$l') AS x",
    "SELECT RELEASE_ALL_LOCKS()",
    "SELECT IS_FREE_LOCK('$l') AS x",
    "LOCK TABLES $t WRITE",
    "UNLOCK TABLES",
    "PREPARE p FROM 'SELECT ? + 1'",
    "PREPARE p FROM 'INSERT INTO $t (n) VALUES (?)'",
    "EXECUTE p USING @a",
    "DEALLOCATE PREPARE p",
    "SELECT @a := n FROM $t ORDER BY id",
    "SELECT n INTO @b FROM $t ORDER BY id LIMIT 1",
    "SELECT LAST_INSERT_ID($b + 5) - $b",
    "UPDATE $t SET n = 12, id = LAST_INSERT_ID(id) WHERE id = $b",
)
SEVERAL = (
    "SELECT 1; SELECT 2",
    "INSERT INTO $t (n) VALUES (20); SELECT COUNT(*) FROM $t",
    "SET @a = 21; USE depot",
    "SET @b = 'm'; SELECT n FROM nothing",
    "SELECT n FROM $t ORDER BY id; nonsense; SELECT 2",
    "BEGIN; INSERT INTO $t (n) VALUES (22); COMMIT",
    "SELECT 1;",
    "SET sql_mode = 'ANSI_QUOTES'; SELECT \"n\" FROM $t ORDER BY id",
)
ERRORS = (
    "nonsense",
    "SELECT n FROM nothing",
    "SELECT no_such_column FROM $t",
    "SELECT no_such_function(1)",
    "SELECT 1 FROM",
    "SELECT (SELECT n FROM $t) AS x",
    "",
    "# nothing",
)
ABOUT_THE_LAST = ("SELECT ROW_COUNT()", "SHOW WARNINGS", "SELECT @@warning_count", "SHOW COUNT(*) ERRORS")
# Others leave the warnings of the statement before them, which may have run elsewhere.
WITH_TABLES = tuple(text for text in (*READS, *WRITES) if "$t" in text)
PREPARED = (
    "SELECT id - $b, n, s FROM $t WHERE n >= ? ORDER BY id",
    "SELECT ?, ?",
    "INSERT INTO $t (n, s) VALUES (?, ?)",
    "UPDATE $t SET s = ? WHERE id = $b",
    "SELECT @a, DATABASE(), @@sql_mode",
    "SELECT n FROM $t ORDER BY id",
    'SELECT "n" FROM $t ORDER BY id LIMIT 1',
    "SET @c = ?",
    "SELECT n FROM nothing WHERE n = ?",
    "COMMIT",
)


@frozen
class Own:
    """What differs between the two clients, or between examples."""

    table: str
    lock: str
    base: int
    suffix: str

    def written(self, text: str) -> str:
        """Return a text of this client's."""
        return text.replace("$t", self.table).replace("$l", self.lock).replace("$b", str(self.base))


@define
class Client:
    """One of the two clients."""

    asker: Asker
    own: Own
    statements: dict[int, Statement] = field(factory=dict)

    def query(self, text: str) -> Answer:
        """Send a text; warnings name the table, so it is replaced in the answer."""
        answer = self.asker.ask(COM_QUERY, self.own.written(text).encode())
        name = self.own.table.encode()
        return tuple(evolve(each, rows=tuple(row.replace(name, b"$t") for row in each.rows)) for each in answer)


@frozen
class Step:
    """What both clients do next."""

    def do(self, client: Client) -> Answer:
        """Do it, and return the answer."""
        raise NotImplementedError


@frozen
class Query(Step):
    text: str

    def do(self, client: Client) -> Answer:
        """Send it."""
        return client.query(self.text)


@frozen
class Followed(Step):
    """A query and a question about it."""

    text: str
    question: str

    def do(self, client: Client) -> Answer:
        """Send both."""
        return client.query(self.text) + client.query(self.question)


@frozen
class Command(Step):
    code: int
    rest: bytes = b""

    def do(self, client: Client) -> Answer:
        """Send it; nothing is prepared after a reset."""
        answer = client.asker.ask(self.code, self.rest)
        if self.code == COM_RESET_CONNECTION:
            client.statements.clear()
        return answer


@frozen
class ChangeUser(Step):
    user: str

    def do(self, client: Client) -> Answer:
        """Log in again."""
        client.statements.clear()
        return client.asker.change_user(self.user + client.own.suffix, PASSWORDS[self.user], "shop")


@frozen
class Prepare(Step):
    slot: int
    text: str

    def do(self, client: Client) -> Answer:
        """Prepare it in place of what the slot had."""
        known = client.statements.pop(self.slot, None)
        if known is not None:
            client.asker.close_statement(known)
        prepared = client.asker.prepare(client.own.written(self.text))
        if not isinstance(prepared, Statement):
            return prepared
        client.statements[self.slot] = prepared
        return ()


@frozen
class AboutStatement(Step):
    """Something about a prepared statement; nothing if there is none."""

    slot: int

    def do(self, client: Client) -> Answer:
        """Use what the slot has."""
        known = client.statements.get(self.slot)
        return self.use(client.asker, known) if known is not None else ()

    def use(self, asker: Asker, statement: Statement) -> Answer:
        """Do it, and return the answer."""
        raise NotImplementedError


@frozen
class Execute(AboutStatement):
    values: tuple[Value, ...]
    tell: bool
    cursor: bool

    def use(self, asker: Asker, statement: Statement) -> Answer:
        """Execute it."""
        return asker.execute(statement, self.values[: statement.parameters], self.tell, self.cursor)


@frozen
class ExecuteLong(AboutStatement):
    pieces: tuple[str, ...]

    def use(self, asker: Asker, statement: Statement) -> Answer:
        """Send the last parameter in pieces, and execute it."""
        if not statement.parameters:
            return ()
        for piece in self.pieces:
            asker.long_data(statement, statement.parameters - 1, piece.encode())
        return asker.execute(statement, [7, None][-statement.parameters :], True, False)


@frozen
class Fetch(AboutStatement):
    rows: int

    def use(self, asker: Asker, statement: Statement) -> Answer:
        """Fetch from its cursor."""
        return asker.fetch(statement, self.rows)


@frozen
class ResetStatement(AboutStatement):
    def use(self, asker: Asker, statement: Statement) -> Answer:
        """Reset it."""
        return asker.reset(statement)


@frozen
class Kill(Step):
    """Not a step of the clients: somebody kills a server session of the one behind the proxy."""

    place: int

    def do(self, client: Client) -> Answer:
        """Do nothing."""
        return ()


def one_of(*texts: str) -> st.SearchStrategy[Query]:
    """Return a strategy that sends one of these texts."""
    return st.sampled_from(texts).map(Query)


slots = st.integers(0, SLOTS - 1)
values: st.SearchStrategy[Value] = st.sampled_from((None, 0, 1, -3, 1 << 40, "", "x", "\u00e9"))
kills = st.builds(Kill, st.integers(0, 1))
KINDS: tuple[st.SearchStrategy[Step], ...] = (
    one_of(*WRITES),
    one_of(*SETTINGS),
    one_of(*TRANSACTIONS),
    one_of(*SEVERAL, *ERRORS),
    one_of(*HOLDING),
    st.one_of(
        st.builds(Followed, st.sampled_from(WITH_TABLES), st.sampled_from(ABOUT_THE_LAST)),
        st.builds(Followed, st.sampled_from(READS[:5]), st.just("SELECT FOUND_ROWS()")),
        st.builds(Followed, st.sampled_from(WRITES), st.just("SET @c = ROW_COUNT()")),
    ),
    st.sampled_from((*DATABASES, "nowhere")).map(lambda name: Command(COM_INIT_DB, name.encode())),
    st.sampled_from((Command(COM_PING), Command(COM_RESET_CONNECTION), ChangeUser("app"), ChangeUser("plain"))),
    st.sampled_from((Command(COM_SET_OPTION, b"\1\0"), Command(COM_SET_OPTION, b"\0\0"))),
    st.one_of(
        st.builds(Prepare, slots, st.sampled_from(PREPARED)),
        st.builds(Execute, slots, st.tuples(values, values), st.booleans(), st.booleans()),
        st.builds(Execute, slots, st.tuples(values, values), st.just(False), st.just(False)),
        st.builds(ExecuteLong, slots, st.lists(st.sampled_from(("", "ab", "\u00e9")), min_size=1).map(tuple)),
        st.builds(Fetch, slots, st.integers(1, 2)),
        st.builds(ResetStatement, slots),
    ),
)


@st.composite
def examples(draw: st.DrawFn) -> list[Step]:
    """Return what both clients do. Of few kinds of steps in one example there are more that meet."""
    kinds = draw(st.lists(st.sampled_from(KINDS), min_size=1, max_size=4, unique_by=id))
    size = draw(st.integers(1, 50))
    return draw(st.lists(st.one_of(one_of(*READS), kills, *kinds), min_size=size, max_size=size))


@define
class Twins:
    """The two clients of one example, after another."""

    pair: Pair[Server]
    port: int
    root: Connection
    killer: Connection
    numbers: Iterator[int] = field(factory=lambda: count(1))
    kills: list[str] = field(factory=list)

    def run(self, user: str, tracking: bool, todo: list[Step]) -> None:
        """Do an example, and compare all answers."""
        base = next(self.numbers) * 1000
        with ExitStack() as connections:
            clients = [
                Client(connections.enter_context(Asker(port)), Own(name, f"{name}{base}", base, suffix))
                for name, suffix, port in (
                    ("through", "@sys#ob1", self.port),
                    ("direct_", "", self.pair.primary.port),
                )
            ]
            for client in clients:
                self._empty(client.own)
            self.pair.caught_up()
            for client in clients:
                client.asker.begin(user + client.own.suffix, PASSWORDS[user], "shop", tracking)
            for step in todo:
                self._step(clients, step)
            for text in READS:
                self._step(clients, Query(text))
            for client in clients:
                with suppress(OSError):
                    client.asker.quit()

    def _empty(self, own: Own) -> None:
        for database in DATABASES:
            query(
                self.root,
                f"DELETE FROM {database}.{own.table}",
                f"INSERT INTO {database}.{own.table} VALUES ({own.base}, 1, 'one')",
            )

    def _wait(self) -> None:
        # Without GTIDs the proxy promises reads of one's own writes only after a time, which the test has set to 0.
        if self.pair.name == "seekdb_pair":
            self.pair.caught_up()

    def _step(self, clients: list[Client], step: Step) -> None:
        through, direct = clients
        if isinstance(step, Kill):
            self._kill(through.asker, step.place)
            return
        through_answer, direct_answer = step.do(through), step.do(direct)
        if through_answer != direct_answer:
            pytest.fail(f"{step}:\n  through the proxy {through_answer}\n  directly          {direct_answer}")
        if direct_answer and (any(each.affected for each in direct_answer) or "COMMIT" in str(step)):
            self._wait()

    def _kill(self, victim: Asker, place: int) -> None:
        """Kill a server session of a client, unless its state would go with it."""
        number = victim.greeting.thread_id if victim.greeting is not None else 0
        try:
            attributes = query(self.killer, f"SHOW PROXYSESSION ATTRIBUTE {number}")
        except pymysql.OperationalError:  # 1094: after a thousand examples the number can mean the killer, too
            return
        pins = [value for name, value, _ in attributes if name in ("pinned_by", "further_logins")]
        if pins or victim.status & SERVER_STATUS_IN_TRANS:
            return
        found = [value for name, value, _ in attributes if name == "ss_id"]
        groups = [group for name, _, group in attributes if name == "ss_id"]
        if place < len(found):
            query(self.killer, f"KILL PROXYSESSION {number} {found[place]}")
            self.kills.append(groups[place])
            # The session that could tell the GTID of what was written last may have gone.
            self.pair.caught_up()


@pytest.fixture
def twins(pair: Pair[Server], directory: Callable[[], Path]) -> Iterator[Twins]:
    """Return what runs examples with a pair."""
    accounts = f'[[account]]\nuser = "app"\npassword = "{APP_PASSWORD}"\n[routing]\nsettle = 0\n'
    with pair.primary.connect() as root:
        columns = "id BIGINT AUTO_INCREMENT PRIMARY KEY, n INT, s VARCHAR(10)"
        query(
            root,
            "CREATE DATABASE IF NOT EXISTS depot",
            "GRANT ALL ON depot.* TO app",
            "GRANT ALL ON depot.* TO plain",
            *(f"CREATE TABLE {name}.{table} ({columns})" for name in DATABASES for table in ("through", "direct_")),
        )
        pair.caught_up()
        proxy = start_pair_proxy(directory(), pair, accounts, watched=False)
        try:
            with proxy.connect() as killer:
                yield Twins(pair, proxy.port, root, killer)
        finally:
            proxy.stop()
            query(root, "DROP DATABASE depot", "DROP TABLE shop.through", "DROP TABLE shop.direct_")


def test_same_answers(twins: Twins, figure: Callable[[str], None]) -> None:
    """Rows, errors, counts, ids, status flags and warnings are the same, through the proxy and without it."""

    @settings(
        deadline=None,
        max_examples=EXAMPLES or 40,
        derandomize=not EXAMPLES,
        database=None,
        phases=(Phase.generate, Phase.shrink),
        suppress_health_check=list(HealthCheck),
    )
    @given(st.sampled_from(sorted(PASSWORDS)), st.booleans(), examples())
    def check(user: str, tracking: bool, todo: list[Step]) -> None:
        note("\n".join(map(str, todo)))
        twins.run(user, tracking, todo)

    check()
    killed = Counter(twins.kills)
    figure(f"{next(twins.numbers) - 1} examples, killed: {dict(killed)}")
    assert any("pool" in group for group in killed)
    assert any("used" in group for group in killed)
