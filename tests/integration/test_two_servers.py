"""One client, two servers: where its statements run, what follows it, and which accounts can have both; no kills."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator
from hashlib import sha1
from pathlib import Path
from typing import Any

import pymysql
import pytest
from pymysql.connections import Connection

from tests.integration.conftest import Connect
from tests.support.answers import Asker, Statement
from tests.support.pair_proxy import (
    connect_app,
    served_by,
    server_session_at,
    server_sessions,
    start_pair_proxy,
    wait_for_replica,
)
from tests.support.pairs import APP_PASSWORD, Pair
from tests.support.servers import Proxy, Server, find_module, wait_until
from tests.support.sessions import attributes, error_of, query, sessions

pytestmark = pytest.mark.slow

STRONG = "SELECT /*+ READ_CONSISTENCY(STRONG) */"
WEAK = "SELECT /*+ READ_CONSISTENCY(WEAK) */"
UNKNOWN_VARIABLE = 1193
DENIED = 1045
TOO_MANY_PREPARED = 5930
SETTLE = 0.5
"""Seconds after a write for which reads of its session stay on the primary (`routing.settle`)."""

only_mariadb = pytest.mark.parametrize("pair", ["mariadb_pair"], indirect=True)
only_seekdb = pytest.mark.parametrize("pair", ["seekdb_pair"], indirect=True)


@pytest.fixture(scope="module", autouse=True)
def table(pair: Pair[Server]) -> None:
    """Have one table, `two`, with the rows 1 to 5 on both servers; no test changes them."""
    with pair.primary.connect(database="shop") as root:
        query(
            root,
            "DROP TABLE IF EXISTS two, own",
            "CREATE TABLE two (id INT PRIMARY KEY, n INT)",
            "CREATE TABLE own (id INT PRIMARY KEY AUTO_INCREMENT, n INT)",
            "INSERT INTO two VALUES (1, 10), (2, 20), (3, 30), (4, 40), (5, 50)",
        )
    pair.caught_up()


def ran_on(client: Connection, pair: Pair[Server], statement: str) -> str:
    """Run a statement, and return where it ran."""
    query(client, statement)
    return served_by(client, pair)


# -- one client on both servers --------------------------------------------------------------------------------------


def test_reads_and_writes(pair: Pair[Server], app: Connect) -> None:
    """Reads run on the replica and writes on the primary, over one server session each."""
    client = app()
    assert ran_on(client, pair, "SELECT COUNT(*) FROM two") == "replica"
    assert ran_on(client, pair, "INSERT INTO own (n) VALUES (1)") == "primary"
    wait_for_replica(client, pair)
    assert ran_on(client, pair, "UPDATE own SET n = 2") == "primary"
    assert sessions(client)[client.thread_id()]["svr_session_count"] == 2
    assert attributes(client)["svr_session_cnt"] == "2"
    for server in (pair.primary, pair.replica):
        session = server_session_at(client, server)
        with server.connect() as root:
            assert int(session["server_sessid"]) in server.processes(root)
    assert set(server_sessions(client)) == {"last used && lii ss", "ss pool [0]"}
    assert [each["state"] for each in server_sessions(client).values()] == ["MSS_KA_CLIENT_SLAVE", "MSS_KA_SHARED"]


def test_state_follows(pair: Pair[Server], app: Connect) -> None:
    """Variables, database and user variables are the same on both servers, whichever learns of a change first."""
    client = app(database=None)
    asked = (
        "DATABASE(), @a, @b, @c, @@character_set_client, @@character_set_results, @@collation_connection, @@sql_mode,"
        " @@time_zone, @@div_precision_increment, @@autocommit"
    )
    changes = (
        ("USE shop", "SET @a = 5, @b = 'x''y'"),
        ("SET NAMES gbk" if pair.name == "mariadb_pair" else "SET NAMES utf8mb4 COLLATE utf8mb4_bin",),
        ("SET sql_mode = 'ANSI_QUOTES'", "SET time_zone = '+03:00'", "SET @@session.div_precision_increment = 7"),
        ("SET @a = NULL", "SET @c = -1.5"),
        ("USE information_schema",),
    )
    seen = set()
    for change in changes:
        query(client, *change)
        on_replica = query(client, f"SELECT {asked}")
        assert served_by(client, pair) == "replica"
        on_primary = query(client, f"{STRONG} {asked}")
        assert served_by(client, pair) == "primary"
        assert on_primary == on_replica
        seen.add(on_primary[0])
        common = {name: value for name, value in attributes(client).items() if name.endswith("_version")}
        for each in server_sessions(client).values():
            assert {name: each[name] for name in common} == common
    assert len(seen) == len(changes)


def test_last_insert_id(pair: Pair[Server], app: Connect) -> None:
    """What an INSERT has numbered is known to both server sessions; only the primary is asked for it."""
    client = app()
    query(client, "SELECT 1", "INSERT INTO own (n) VALUES (1)")
    ((number,),) = query(client, "SELECT LAST_INSERT_ID()")
    assert number == query(client, "SELECT MAX(id) FROM own")[0][0]
    wait_for_replica(client, pair)
    assert {each["last_insert_id_version"] for each in server_sessions(client).values()} == {"1"}
    assert query(client, "SELECT LAST_INSERT_ID()") == [(number,)]
    assert served_by(client, pair) == "primary"


def test_prepared_statements(pair: Pair[Server], pair_proxy: Proxy) -> None:
    """A prepared statement has one number, and the same answers on both servers, with state of the session in them."""
    with Asker(pair_proxy.port) as client, Asker(pair.primary.port) as direct:
        answers: list[list[Any]] = []
        for each, user in ((client, "app@sys#ob1"), (direct, "app")):
            each.begin(user, APP_PASSWORD.encode(), "shop", tracking=False)
            each.query("SET @a = 7")
            read = each.prepare("SELECT n, ?, @a, DATABASE() FROM two WHERE id >= ? ORDER BY id")
            assert isinstance(read, Statement)
            found = []
            for before in (None, "BEGIN", None, "COMMIT", None):
                if before is not None:
                    each.query(before)
                found.append(each.execute(read, ("text", 2), tell=False, cursor=False)[0].rows)
                found.append(each.execute(read, (None, 5), tell=False, cursor=False)[0].rows)
            answers.append(found)
        assert answers[0] == answers[1]
        assert len(answers[0][0]) == 4
        assert client.greeting is not None
        with pair_proxy.connect() as root:
            assert len(server_sessions(root, client.greeting.thread_id)) == 2


def test_prepared_statements_of_a_driver(pair: Pair[Server], pair_proxy: Proxy) -> None:
    """MySQL's own Python driver writes and reads by prepared statements, on both servers."""
    connector = find_module("mysql.connector", "mysql-connector-python")
    with connector.connect(
        **{"host": "127.0.0.1", "port": pair_proxy.port, "user": "app@sys#ob1", "password": APP_PASSWORD},
        **{"database": "shop", "autocommit": True, "use_pure": True},
    ) as client:
        write, read = client.cursor(prepared=True), client.cursor(prepared=True)
        for number in range(5):
            write.execute("INSERT INTO own (n) VALUES (?)", (number,))
            read.execute("SELECT n FROM own WHERE id = ?", (write.lastrowid,))
            assert read.fetchall() == [(number,)]
        with pair_proxy.connect() as root:

            def read_on_replica() -> bool:
                read.execute("SELECT n FROM own WHERE id = ?", (write.lastrowid,))
                assert read.fetchall() == [(4,)]
                return served_by(root, pair, client.connection_id) == "replica"

            wait_until(read_on_replica, what="a read on the replica")


def test_many_prepared_statements(pair: Pair[Server], pair_proxy: Proxy) -> None:
    """200 prepared statements in random order are right on both servers, also where a session may have but 50."""
    order = random.Random(3)
    with Asker(pair_proxy.port) as client, pair_proxy.connect() as root:
        client.begin("app@sys#ob1", APP_PASSWORD.encode(), "shop", tracking=False)
        prepared = [client.prepare(f"SELECT n + {number} FROM two WHERE id = ?") for number in range(200)]
        assert client.greeting is not None
        for place in ("replica", "primary"):
            if place == "primary":
                client.query("BEGIN")
            for number in order.sample(range(200), 200):
                statement, row = prepared[number], order.randrange(1, 6)
                assert isinstance(statement, Statement)
                (result,) = client.execute(statement, (row,), tell=False, cursor=False)
                # A binary row: its header, a bitmap of NULLs, and the number.
                assert [int.from_bytes(data[2:], "little") for data in result.rows] == [10 * row + number]
            assert served_by(root, pair, client.greeting.thread_id) == place


@only_seekdb
def test_limit_of_prepared_statements(pair: Pair[Server]) -> None:
    """Without the proxy each of these servers refuses the 51st."""
    for server in (pair.primary, pair.replica):
        with Asker(server.port) as direct:
            direct.begin("app", APP_PASSWORD.encode(), "shop", tracking=False)
            answers = [direct.prepare(f"SELECT {number}") for number in range(51)]
            assert all(isinstance(answer, Statement) for answer in answers[:50])
            assert isinstance(answers[50], tuple)
            assert answers[50][0].error == TOO_MANY_PREPARED


# -- which server ----------------------------------------------------------------------------------------------------


def test_policies(pair: Pair[Server], app: Connect) -> None:
    """The read policy and the hint of a SELECT decide; the careful policy lets nothing go."""
    for cluster, statement, place in (
        ("ob1", "SELECT n FROM two", "replica"),
        ("ob1", f"{WEAK} n FROM two", "replica"),
        ("ob1", f"{STRONG} n FROM two", "primary"),
        ("careful", "SELECT n FROM two", "primary"),
        ("careful", f"{WEAK} n FROM two", "primary"),
        ("weak", "SELECT n FROM two", "primary"),
        ("weak", f"{WEAK} n FROM two", "replica"),
        ("weak", f"{STRONG} n FROM two", "primary"),
    ):
        client = app(cluster)
        assert (cluster, statement, ran_on(client, pair, statement)) == (cluster, statement, place)
        assert len(server_sessions(client)) == (1 if place == "primary" else 2)


@only_seekdb
def test_consistency_of_a_session(pair: Pair[Server], app: Connect) -> None:
    """SET ob_read_consistency decides where no hint does, under each policy but the careful one."""
    for cluster in ("ob1", "weak", "careful"):
        client = app(cluster)
        for value, weak in (("'WEAK'", True), ("'STRONG'", False), ("2", True), ("3", False)):
            query(client, f"SET ob_read_consistency = {value}")
            wanted = "replica" if weak and cluster != "careful" else "primary"
            assert (cluster, value, ran_on(client, pair, "SELECT n FROM two")) == (cluster, value, wanted)
        assert ran_on(client, pair, f"{WEAK} n FROM two") == ("primary" if cluster == "careful" else "replica")


@only_mariadb
def test_consistency_that_a_server_does_not_know(pair: Pair[Server], app: Connect) -> None:
    """MariaDB does not know ob_read_consistency: the client gets the server's error, and nothing changes."""
    client = app("weak")
    assert error_of(client, "SET ob_read_consistency = 'WEAK'")[0] == UNKNOWN_VARIABLE
    assert ran_on(client, pair, "SELECT n FROM two") == "primary"
    assert ran_on(client, pair, f"{WEAK} n FROM two") == "replica"


def test_what_stays_on_the_primary(pair: Pair[Server], app: Connect) -> None:
    """Locking reads, functions of the session, variables that are set and of the server are never a replica's."""
    for statement in (
        "SELECT n FROM two WHERE id = 1 FOR UPDATE",
        "SELECT @b := n FROM two WHERE id = 1",
        "SELECT LAST_INSERT_ID()",
        "SELECT CONNECTION_ID()",
        "SELECT @@port",
        "SELECT n INTO @c FROM two WHERE id = 1",
    ):
        client = app()
        assert ran_on(client, pair, "SELECT 1") == "replica"
        assert (statement, ran_on(client, pair, statement)) == (statement, "primary")


@pytest.mark.parametrize("begin", ["BEGIN", "SET autocommit = 0"])
def test_transactions(begin: str, pair: Pair[Server], app: Connect) -> None:
    """Within a transaction everything runs on the primary; the first read after it may leave."""
    client = app()
    assert ran_on(client, pair, "SELECT n FROM two") == "replica"
    query(client, begin)
    for statement in ("SELECT n FROM two", f"{WEAK} n FROM two", "UPDATE two SET n = n WHERE id = 1"):
        assert ran_on(client, pair, statement) == "primary"
    query(client, "ROLLBACK", "SET autocommit = 1")
    wait_for_replica(client, pair)


# -- reads of one's own writes ---------------------------------------------------------------------------------------


def test_own_writes(pair: Pair[Server], app: Connect) -> None:
    """A read right after a write sees it, again and again, and reads come back to the replica."""
    client = app()
    query(client, "INSERT INTO own (n) VALUES (0)")
    ((number,),) = query(client, "SELECT LAST_INSERT_ID()")
    read = f"SELECT n FROM own WHERE id = {number}"
    for turn in range(1, 50):
        began = time.monotonic()
        query(client, f"UPDATE own SET n = {turn} WHERE id = {number}")
        found = query(client, read)
        # Nothing of seekdb's can be asked if it has a write, so a while later that is assumed.
        assert found == [(turn,)] or (pair.name == "seekdb_pair" and time.monotonic() - began > SETTLE)
    wait_for_replica(client, pair)
    if pair.name == "seekdb_pair":
        wait_until(lambda: query(client, read) == [(turn,)], what="the last write on the replica")
    assert query(client, read) == [(turn,)]


@only_mariadb
def test_own_writes_before_a_replica_that_lags(pair: Pair[Server], app: Connect) -> None:
    """As long as the replica lags, who has written reads on the primary, and the others see what the replica has."""
    writer, reader = app(), app()
    with pair.replica.connect() as root:
        query(root, "STOP SLAVE SQL_THREAD")
        try:
            query(writer, "SELECT 1", "INSERT INTO own (n) VALUES (4711)")
            end = time.monotonic() + 1.2  # more than twice the time for which nobody would ask the replica
            while time.monotonic() < end:
                assert query(writer, "SELECT COUNT(*) FROM own WHERE n = 4711") == [(1,)]
                assert query(reader, "SELECT COUNT(*) FROM own WHERE n = 4711") == [(0,)]
            assert (served_by(writer, pair), served_by(reader, pair)) == ("primary", "replica")
        finally:
            query(root, "START SLAVE SQL_THREAD")
    wait_for_replica(writer, pair)
    assert query(writer, "SELECT COUNT(*) FROM own WHERE n = 4711") == [(1,)]


# -- accounts --------------------------------------------------------------------------------------------------------

PASSWORDS = {"app": APP_PASSWORD, "hashed": "hashed-secret", "stranger": "stranger-secret", "plain": ""}


@pytest.fixture(scope="module")
def users(pair: Pair[Server]) -> None:
    """Have two more users on both servers."""
    with pair.primary.connect() as root:
        for user in ("hashed", "stranger"):
            query(
                root,
                f"DROP USER IF EXISTS {user}",
                f"CREATE USER {user} IDENTIFIED BY '{PASSWORDS[user]}'",
                f"GRANT ALL ON shop.* TO {user}",
            )
    pair.caught_up()


@pytest.fixture(scope="module")
def unwatched_proxy(pair: Pair[Server], users: None, directory: Callable[[], Path]) -> Iterator[Proxy]:
    """Return a proxy that has no account of its own: it knows `app` and `hashed` from its settings."""
    verifier = sha1(sha1(PASSWORDS["hashed"].encode()).digest()).hexdigest()
    accounts = (
        f'[[account]]\nuser = "app"\npassword = "{APP_PASSWORD}"\n'
        f'[[account]]\nuser = "hashed@sys#ob1"\npassword_sha1 = "*{verifier}"\n'
    )
    running = start_pair_proxy(directory(), pair, accounts, watched=False)
    try:
        yield running
    finally:
        running.stop()


def check_both_servers(client: Connection, pair: Pair[Server]) -> None:
    """Fail unless a client can use both servers."""
    assert ran_on(client, pair, "SELECT n FROM two") == "replica"
    assert ran_on(client, pair, "UPDATE two SET n = n WHERE id = 1") == "primary"
    assert len(server_sessions(client)) == 2
    assert "further_logins" not in attributes(client)


def check_wrong_passwords(proxy: Proxy, user: str) -> None:
    """Fail unless the proxy refuses all passwords but the right one."""
    for password in ("wrong", "", f"{PASSWORDS[user]} "):
        if password != PASSWORDS[user]:
            with pytest.raises(pymysql.err.OperationalError) as refused:
                proxy.connect(user, password=password)
            assert refused.value.args[0] == DENIED


@pytest.mark.parametrize("user", ["app", "hashed", "plain"])
def test_accounts_of_the_settings(user: str, pair: Pair[Server], unwatched_proxy: Proxy) -> None:
    """A password or a verifier in the settings is enough for both servers, and so is an empty password."""
    with connect_app(unwatched_proxy, user=user, password=PASSWORDS[user]) as client:
        check_both_servers(client, pair)
    check_wrong_passwords(unwatched_proxy, user)


@pytest.mark.parametrize("user", ["app", "hashed", "stranger", "plain"])
def test_fetched_verifiers(user: str, pair: Pair[Server], users: None, pair_proxy: Proxy) -> None:
    """The account for services fetches the verifiers of all others."""
    with connect_app(pair_proxy, user=user, password=PASSWORDS[user]) as client:
        check_both_servers(client, pair)
    check_wrong_passwords(pair_proxy, user)


def test_account_that_cannot_log_in_again(pair: Pair[Server], unwatched_proxy: Proxy) -> None:
    """A user whom the proxy knows nothing of has one server session for all, and ATTRIBUTE says why."""
    with connect_app(unwatched_proxy, user="stranger", password=PASSWORDS["stranger"]) as client:
        for statement in ("SELECT n FROM two", "UPDATE two SET n = n WHERE id = 1", "SELECT n FROM two"):
            assert ran_on(client, pair, statement) == "primary"
        assert len(server_sessions(client)) == 1
        assert attributes(client)["further_logins"] == "the proxy cannot log in again for this account"
    check_wrong_passwords(unwatched_proxy, "stranger")
