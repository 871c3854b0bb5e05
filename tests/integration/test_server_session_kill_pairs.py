"""KILL PROXYSESSION id ss_id where a client has two server sessions: at each moment, of each of them, on both pairs."""

from __future__ import annotations

import time

import pytest
from pymysql.connections import Connection

from tests.integration.conftest import Connect
from tests.support.answers import Asker, Statement
from tests.support.pair_proxy import served_by, server_session_at, server_sessions, wait_for_replica
from tests.support.pairs import APP_PASSWORD, Pair
from tests.support.raw_client import RawClient
from tests.support.servers import Proxy, Server, wait_until
from tests.support.sessions import attributes, error_of, query, start_at

pytestmark = pytest.mark.slow

INTERRUPTED = 1317
NO_SUCH_THREAD = 1094
COMPUTES = "SELECT COUNT(*) FROM shop.hundred a, shop.hundred b, shop.hundred c, shop.hundred d, shop.hundred e"
"""Counts 10,000,000,000 rows."""

STATE = ("SET @a = 5", "SET time_zone = '+03:00'")
ASKED = "SELECT @a, @@time_zone, DATABASE()"
ANSWERED = [(5, "+03:00", "shop")]


@pytest.fixture(scope="module", autouse=True)
def tables(pair: Pair[Server]) -> None:
    """Have the tables of this module on both servers."""
    with pair.primary.connect(database="shop") as root:
        query(
            root,
            "DROP TABLE IF EXISTS hundred, written",
            "CREATE TABLE hundred (n INT PRIMARY KEY)",
            f"INSERT INTO hundred VALUES {', '.join(f'({n})' for n in range(100))}",
            "CREATE TABLE written (id INT PRIMARY KEY AUTO_INCREMENT, n INT)",
        )
    pair.caught_up()


@pytest.fixture
def root(pair_proxy: Proxy, opened: list[Connection]) -> Connection:
    """Return the asker's connection, whose own server session is at the primary."""
    opened.append(pair_proxy.connect())
    return opened[-1]


@pytest.fixture
def victim(app: Connect, pair: Pair[Server]) -> Connection:
    """Return a client with a server session on each server; the last statement ran on the replica."""
    client = app()
    query(client, *STATE, ASKED)
    assert served_by(client, pair) == "replica"
    assert len(server_sessions(client)) == 2
    return client


def kill(root: Connection, victim: Connection, server: Server) -> int:
    """Kill the victim's server session at a server; return its ss_id once OK says without a warning that it is done."""
    ss_id = int(server_session_at(root, server, victim.thread_id())["ss_id"])
    with root.cursor() as cursor:
        cursor.execute(f"KILL PROXYSESSION {victim.thread_id()} {ss_id}")
        assert not cursor.warning_count
    assert error_of(root, f"KILL PROXYSESSION {victim.thread_id()} {ss_id}")[0] == NO_SUCH_THREAD
    return ss_id


def listed(server: Server, number: int) -> bool:
    """Say whether a server has a session that is not ending."""
    with server.connect() as direct:
        return server.processes(direct).get(number, ("Killed", ""))[0] != "Killed"


# -- idle ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("last", ["primary", "replica"])
@pytest.mark.parametrize("target", ["primary", "replica"])
def test_idle(target: str, last: str, pair: Pair[Server], root: Connection, victim: Connection) -> None:
    """The client notices nothing, be it the session that served last or the one at rest; the other one stays."""
    if last == "primary":
        query(victim, "SELECT CONNECTION_ID()")
    assert served_by(root, pair, victim.thread_id()) == last
    server, other = (pair.primary, pair.replica) if target == "primary" else (pair.replica, pair.primary)
    number = int(server_session_at(root, server, victim.thread_id())["server_sessid"])
    kept = server_session_at(root, other, victim.thread_id())["ss_id"]
    ss_id = kill(root, victim, server)
    wait_until(lambda: not listed(server, number), 2, "the end on the server")
    assert [each["ss_id"] for each in server_sessions(root, victim.thread_id()).values()] == [kept]

    assert query(victim, ASKED) == ANSWERED
    assert served_by(victim, pair) == "replica"
    query(victim, "UPDATE written SET n = 1 WHERE id = 0")
    assert query(victim, "SELECT @a, @@time_zone, @@port, CONNECTION_ID()")[0][:2] == (5, "+03:00")
    ss_ids = {each["ss_id"] for each in server_sessions(victim).values()}
    assert len(ss_ids) == 2
    assert kept in ss_ids
    assert str(ss_id) not in ss_ids


def test_last_insert_id(pair: Pair[Server], root: Connection, victim: Connection) -> None:
    """The server session that made the last insert id may go: the next one knows it."""
    query(victim, "INSERT INTO written (n) VALUES (7)")
    ((number,),) = query(victim, "SELECT LAST_INSERT_ID()")
    kill(root, victim, pair.primary)
    assert query(victim, "SELECT LAST_INSERT_ID()") == [(number,)]


@pytest.mark.parametrize("pair", ["mariadb_pair"], indirect=True)
def test_own_writes_before_a_replica_that_lags(pair: Pair[Server], root: Connection, victim: Connection) -> None:
    """The session sees its last write also if the server session that made it has gone, and the replica lags."""
    with pair.replica.connect() as direct:
        query(direct, "STOP SLAVE SQL_THREAD")
        try:
            query(victim, "INSERT INTO written (n) VALUES (4711)")
            kill(root, victim, pair.primary)
            end = time.monotonic() + 1.2  # more than twice the time for which nobody would ask the replica
            while time.monotonic() < end:
                assert query(victim, "SELECT n FROM written WHERE n = 4711") == [(4711,)]
        finally:
            query(direct, "START SLAVE SQL_THREAD")
    wait_for_replica(victim, pair)
    assert query(victim, "SELECT n FROM written WHERE n = 4711") == [(4711,)]


def test_prepared_statements(pair: Pair[Server], root: Connection, pair_proxy: Proxy) -> None:
    """A prepared statement outlives the server sessions that have prepared it, one after the other."""
    with Asker(pair_proxy.port) as client:
        client.begin("app@sys#ob1", APP_PASSWORD.encode(), "shop", tracking=False)
        statement = client.prepare("SELECT n FROM hundred WHERE n = ?")
        assert isinstance(statement, Statement)
        assert client.greeting is not None
        cs_id = client.greeting.thread_id
        (wanted,) = client.execute(statement, (42,), tell=False, cursor=False)
        for server in (pair.replica, pair.primary, pair.replica):
            ss_id = server_session_at(root, server, cs_id)["ss_id"]
            query(root, f"KILL PROXYSESSION {cs_id} {ss_id}")
            assert client.execute(statement, (42,), tell=False, cursor=False) == (wanted,)


# -- in a transaction ------------------------------------------------------------------------------------------------


def test_in_transaction(pair: Pair[Server], root: Connection, victim: Connection) -> None:
    """The session at rest may go unnoticed; with the transaction's own the next statement says that it is lost."""
    query(victim, "BEGIN", "INSERT INTO written (n) VALUES (8)", "SELECT 1")
    kill(root, victim, pair.replica)
    assert query(victim, "SELECT n FROM written WHERE n = 8") == [(8,)]
    kill(root, victim, pair.primary)
    code, text = error_of(victim, "INSERT INTO written (n) VALUES (9)")
    assert code == INTERRUPTED
    assert f"killed by client session {root.thread_id()}" in text
    assert "transaction, which was rolled back" in text
    assert query(victim, ASKED) == ANSWERED
    with pair.primary.connect(database="shop") as direct:
        assert query(direct, "SELECT n FROM written WHERE n IN (8, 9)") == []
    query(victim, "INSERT INTO written (n) VALUES (10)")
    assert query(victim, "SELECT n FROM written WHERE n IN (8, 9, 10)") == [(10,)]
    query(victim, "DELETE FROM written")


# -- running ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("statement", ["SELECT SLEEP(60)", COMPUTES], ids=["sleeps", "computes"])
@pytest.mark.parametrize("place", ["primary", "replica"])
def test_running(
    place: str, statement: str, pair: Pair[Server], root: Connection, app: Connect, victim: Connection
) -> None:
    """A running statement has ended on its server when OK comes; its client gets 1317 and goes on, nothing lost."""
    server, other = (pair.primary, pair.replica) if place == "primary" else (pair.replica, pair.primary)
    if place == "primary":
        statement = statement.replace("SELECT", "SELECT /*+ READ_CONSISTENCY(STRONG) */")
    kept = server_session_at(root, other, victim.thread_id())["ss_id"]
    running = start_at(server, victim, statement)
    number = int(server_session_at(root, server, victim.thread_id())["server_sessid"])
    kill(root, victim, server)
    assert not listed(server, number)
    code, text = running.error(2)
    assert (code, text.partition(" (")[0]) == (
        INTERRUPTED,
        f"Query execution was interrupted: killed by client session {root.thread_id()}",
    )
    assert [each["ss_id"] for each in server_sessions(root, victim.thread_id()).values()] == [kept]
    assert query(victim, ASKED) == ANSWERED


def test_session_at_rest_while_the_other_one_works(pair: Pair[Server], root: Connection, victim: Connection) -> None:
    """Who loses the server session at rest while a statement runs on the other one gets the statement's result."""
    running = start_at(pair.replica, victim, "SELECT SLEEP(0.5), 4711")
    kill(root, victim, pair.primary)
    assert running.result() == [(0, 4711)]
    assert query(victim, "SELECT @a, CONNECTION_ID() > 0") == [(5, 1)]


def test_running_in_transaction(pair: Pair[Server], root: Connection, victim: Connection) -> None:
    """With a running statement its transaction is lost, too, and the error says so."""
    query(victim, "BEGIN", "INSERT INTO written (n) VALUES (11)")
    running = start_at(pair.primary, victim, "SELECT SLEEP(60)")
    kill(root, victim, pair.primary)
    code, text = running.error(2)
    assert code == INTERRUPTED
    assert "transaction, which was rolled back" in text
    assert query(victim, "SELECT n FROM written WHERE n = 11") == []


@pytest.mark.parametrize("statement", ["SELECT SLEEP(60)", COMPUTES], ids=["sleeps", "computes"])
def test_statement_on_replica(statement: str, pair: Pair[Server], root: Connection, victim: Connection) -> None:
    """KILL QUERY of a statement on the replica: OK when it has stopped there, 1317 for its client, who goes on."""
    running = start_at(pair.replica, victim, statement)
    number = int(server_session_at(root, pair.replica, victim.thread_id())["server_sessid"])
    with root.cursor() as cursor:
        cursor.execute(f"KILL QUERY {victim.thread_id()}")
        assert not cursor.warning_count
    with pair.replica.connect() as direct:
        assert pair.replica.processes(direct).get(number, ("", ""))[1] != statement
    code, text = running.error(2)
    assert code == INTERRUPTED
    # MariaDB may have sent the definitions of columns before; then its own error comes behind them as it is.
    assert text.startswith("Query execution was interrupted")
    # A standby of seekdb's stops a statement only with its connection.
    assert len(server_sessions(root, victim.thread_id())) == (1 if pair.name == "seekdb_pair" else 2)
    assert query(victim, ASKED) == ANSWERED


@pytest.mark.parametrize("place", ["primary", "replica"])
def test_session_of_a_client(place: str, pair: Pair[Server], root: Connection, victim: Connection) -> None:
    """KILL of the client session stops its statement, wherever that runs, and ends both server sessions."""
    server = getattr(pair, place)
    hint = "/*+ READ_CONSISTENCY(STRONG) */ " if place == "primary" else ""
    running = start_at(server, victim, f"SELECT {hint}SLEEP(60)")
    numbers = {
        each: int(server_session_at(root, each, victim.thread_id())["server_sessid"])
        for each in (pair.primary, pair.replica)
    }
    with root.cursor() as cursor:
        cursor.execute(f"KILL {victim.thread_id()}")
        assert not cursor.warning_count
    assert not listed(server, numbers[server])
    assert running.error(2)[0] == INTERRUPTED
    wait_until(lambda: not any(listed(*each) for each in numbers.items()), 2, "the end on both servers")


@pytest.mark.parametrize("place", ["primary", "replica"])
def test_amid_a_result(place: str, pair: Pair[Server], root: Connection, pair_proxy: Proxy) -> None:
    """A client in the middle of a result cannot go on: it is closed, and the server stops."""
    server = getattr(pair, place)
    hint = "/*+ READ_CONSISTENCY(STRONG) */ " if place == "primary" else ""
    with RawClient(pair_proxy.port, receive_buffer=4096) as victim:
        victim.login("app@sys#ob1", APP_PASSWORD.encode(), "shop")
        assert victim.greeting is not None
        statement = f"SELECT {hint}REPEAT('x', 1000) FROM hundred a, hundred b, hundred c"
        victim.send(b"\x03" + statement.encode())
        victim.read_packet()
        session = server_session_at(root, server, victim.greeting.thread_id)
        with root.cursor() as cursor:
            cursor.execute(f"KILL PROXYSESSION {victim.greeting.thread_id} {session['ss_id']}")
            assert not cursor.warning_count
        assert not listed(server, int(session["server_sessid"]))
        assert error_of(root, f"SHOW PROXYSESSION ATTRIBUTE {victim.greeting.thread_id}")[0] == NO_SUCH_THREAD


# -- what cannot be had again ----------------------------------------------------------------------------------------

HOLDINGS = {
    "temporary tables": "CREATE TEMPORARY TABLE passing (a INT)",
    "LOCK TABLES": "LOCK TABLES hundred READ",
    "GET_LOCK": "SELECT GET_LOCK('pairs', 1)",
    "PREPARE": "PREPARE p FROM 'SELECT 7'",
    "@b": "SET @b = RAND()",
}
_ONLY_MARIADB = ("temporary tables", "LOCK TABLES")


@pytest.mark.parametrize("what", HOLDINGS)
def test_holding(what: str, pair: Pair[Server], root: Connection, victim: Connection) -> None:
    """What only one server session has keeps the client there; the other one may go, and its loss is told once."""
    if what in _ONLY_MARIADB and pair.name == "seekdb_pair":
        pytest.skip("seekdb has no temporary tables, and no locks by LOCK TABLES")
    query(victim, HOLDINGS[what])
    assert what in attributes(victim)["pinned_by"]
    query(victim, "SELECT n FROM hundred WHERE n = 1")
    assert served_by(victim, pair) == "primary"
    kill(root, victim, pair.replica)
    query(victim, "SELECT n FROM hundred WHERE n = 1")
    assert served_by(victim, pair) == "primary"
    kill(root, victim, pair.primary)
    code, text = error_of(victim, "SELECT n FROM hundred WHERE n = 1")
    assert code == INTERRUPTED
    assert what in text
    assert f"killed by client session {root.thread_id()}" in text
    assert query(victim, ASKED) == ANSWERED
    wait_for_replica(victim, pair)
    assert "pinned_by" not in attributes(victim)


def test_open_cursor(pair: Pair[Server], root: Connection, pair_proxy: Proxy) -> None:
    """Rows that were not fetched are lost with the cursor's server session, and told once."""
    with Asker(pair_proxy.port) as client:
        client.begin("app@sys#ob1", APP_PASSWORD.encode(), "shop", tracking=False)
        statement = client.prepare("SELECT n FROM hundred ORDER BY n")
        assert isinstance(statement, Statement)
        client.execute(statement, (), tell=False, cursor=True)
        assert len(client.fetch(statement, 3)[0].rows) == 3
        assert client.greeting is not None
        cs_id = client.greeting.thread_id
        session = server_session_at(root, getattr(pair, served_by(root, pair, cs_id)), cs_id)
        assert attributes(root, cs_id)["pinned_by"] == "open cursors"
        query(root, f"KILL PROXYSESSION {cs_id} {session['ss_id']}")
        client.send(b"\x03SELECT 1")
        lost = client.read_error()
        assert lost.code == INTERRUPTED
        assert "open cursors" in lost.message
        assert len(client.execute(statement, (), tell=False, cursor=False)[0].rows) == 100


def test_again_and_again(pair: Pair[Server], root: Connection, app: Connect) -> None:
    """A client that loses either server session at any time, statement running or not, never gets a wrong answer."""
    victim: Connection = app()
    query(victim, "SET @n = 0")
    for turn in range(1, 30):
        query(victim, f"SET @n = {turn}")
        assert query(victim, "SELECT @n") == [(turn,)]
        for session in server_sessions(root, victim.thread_id()).values():
            if turn % 3 or session["server_port"] == str(pair.replica.port):
                query(root, f"KILL PROXYSESSION {victim.thread_id()} {session['ss_id']}")
        assert query(victim, "SELECT @n") == [(turn,)]
