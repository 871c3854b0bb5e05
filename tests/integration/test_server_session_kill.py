"""KILL PROXYSESSION id ss_id: a client loses its server session, and what it notices of it; before both servers."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from pymysql.connections import Connection

from tests.integration.conftest import Connect
from tests.support.raw_client import RawClient
from tests.support.servers import Proxy, Server, wait_until
from tests.support.sessions import (
    Stall,
    attributes,
    connection_id,
    error_of,
    is_gone,
    make_large,
    query,
    sessions,
    start_statement,
)

COM_STMT_PREPARE = 0x16
COM_STMT_EXECUTE = 0x17


@pytest.fixture
def root(connect: Connect) -> Connection:
    """Return the asker's connection."""
    return connect()


def kill_server_session(root: Connection, victim: Connection) -> int:
    """Kill the victim's server session, and return its ss_id."""
    ss_id = int(attributes(root, victim.thread_id())["ss_id"])
    query(root, f"KILL PROXYSESSION {victim.thread_id()} {ss_id}")
    return ss_id


def test_idle(root: Connection, connect: Connect, server: Server, direct: Connection) -> None:
    """An idle client notices nothing: its next statement finds all that it had set up, on another server session."""
    victim = connect(autocommit=False)
    setup = [
        "SET autocommit = 1",
        "USE test",
        "SET NAMES utf8mb4 COLLATE utf8mb4_bin",
        "SET @a = 5",
        "SET @b = 'x''y', @c = -1.5",
    ]
    query(victim, *setup, "SET SESSION sql_mode = 'ANSI_QUOTES'", "SET time_zone = '+03:00'")
    asked = (
        "SELECT DATABASE(), @a, @b, @c, @@autocommit, @@character_set_client, @@character_set_results, "
        "@@collation_connection, @@sql_mode, @@time_zone"
    )
    before, number = query(victim, asked), connection_id(victim)
    assert before[0][:5] == ("test", 5, "x'y", before[0][3], 1)

    ss_id = kill_server_session(root, victim)
    row = sessions(root)[victim.thread_id()]
    assert (row["svr_session_count"], row["db"]) == (0, "test")
    assert "ss_id" not in attributes(root, victim.thread_id())
    wait_until(lambda: number not in server.processes(direct), 2, "the end on the server")

    assert query(victim, asked) == before
    assert connection_id(victim) != number
    assert sessions(root)[victim.thread_id()]["svr_session_count"] == 1
    assert int(attributes(root, victim.thread_id())["ss_id"]) > ss_id
    assert error_of(root, f"KILL PROXYSESSION {victim.thread_id()} {ss_id}") == (1094, f"Unknown thread id: {ss_id}")


def test_by_connection_id(root: Connection, connect: Connect) -> None:
    """The client session may be named by its connection id, which changes with the server session."""
    victim = connect()
    for _ in range(3):
        ss_id = attributes(root, victim.thread_id())["ss_id"]
        query(root, f"KILL PROXYSESSION {connection_id(victim)} {ss_id}")
        assert query(victim, "SELECT 1") == [(1,)]


def test_unknown(root: Connection, connect: Connect) -> None:
    """An unknown ss_id, also one of another client, is 1094 with the ss_id, and nobody is hurt."""
    victim, other = connect(), connect()
    ids = [int(attributes(root, client.thread_id())["ss_id"]) for client in (victim, other)]
    for ss_id in 0, 987654, ids[1]:
        code, text = error_of(root, f"KILL PROXYSESSION {victim.thread_id()} {ss_id}")
        assert (code, text) == (1094, f"Unknown thread id: {ss_id}")
    assert [int(attributes(root, client.thread_id())["ss_id"]) for client in (victim, other)] == ids


def test_own(root: Connection) -> None:
    """A client that kills its own server session gets OK and goes on with another one."""
    query(root, "SET @a = 5")
    number = connection_id(root)
    kill_server_session(root, root)
    assert query(root, "SELECT @a") == [(5,)]
    assert connection_id(root) != number


def test_in_transaction(root: Connection, connect: Connect, direct: Connection) -> None:
    """The next statement of a client in a transaction says what was lost and by whom; then it goes on clean."""
    query(direct, "DROP TABLE IF EXISTS test.lost", "CREATE TABLE test.lost (id INT PRIMARY KEY)")
    victim = connect(database="test")
    query(victim, "SET @a = 5", "BEGIN", "INSERT INTO lost VALUES (1)")
    kill_server_session(root, victim)
    assert query(direct, "SELECT * FROM test.lost") == []
    code, text = error_of(victim, "INSERT INTO lost VALUES (2)")
    assert code == 1317
    assert f"killed by client session {root.thread_id()}" in text
    assert "transaction, which was rolled back" in text
    assert query(victim, "SELECT @a, DATABASE()") == [(5, "test")]
    query(victim, "INSERT INTO lost VALUES (3)")
    assert query(direct, "SELECT * FROM test.lost") == [(3,)]
    assert query(victim, "SELECT * FROM lost") == [(3,)]


@pytest.mark.parametrize("in_transaction", [False, True], ids=["alone", "in transaction"])
def test_running(in_transaction: bool, root: Connection, connect: Connect, server: Server, direct: Connection) -> None:
    """A running statement ends with 1317 and on the server, too; the client session lives on."""
    victim = connect()
    query(victim, "SET @a = 5")
    if in_transaction:
        query(victim, "BEGIN", "SELECT 1")
    number = connection_id(victim)
    running = start_statement(victim, "SELECT SLEEP(60)", server, direct)
    kill_server_session(root, victim)
    assert server.processes(direct).get(number, ("Killed", ""))[0] == "Killed"
    code, text = running.error(2)
    assert code == 1317
    assert f"killed by client session {root.thread_id()}" in text
    if in_transaction and server.name == "mariadb":
        assert "transaction" in text
    assert query(victim, "SELECT @a") == [(5,)]
    assert set(sessions(root)) == {root.thread_id(), victim.thread_id()}


def test_amid_a_result(root: Connection, proxy: Proxy, server: Server, direct: Connection) -> None:
    """A client in the middle of a result set, reading or not, cannot go on: it is closed, and the server stops."""
    statement = make_large(direct)
    for stops in False, True:
        with RawClient(proxy.port, receive_buffer=4096) as victim:
            victim.login("root@sys#ob1")
            assert victim.greeting is not None
            number = int(victim.query("SELECT CONNECTION_ID()").rows[0][0] or 0)
            victim.send(b"\x03" + statement)
            victim.read_packet()
            if stops:
                wait_until(Stall(victim).lasts, what="the end of what all buffers take")
            ss_id = attributes(root, victim.greeting.thread_id)["ss_id"]
            with root.cursor() as cursor:
                cursor.execute(f"KILL PROXYSESSION {victim.greeting.thread_id} {ss_id}")
                assert not cursor.warning_count
            assert list(sessions(root)) == [root.thread_id()]
            wait_until(lambda: number not in server.processes(direct), 2, "the end on the server")  # noqa: B023


def temporary_table(victim: Connection) -> str:
    """Have a temporary table."""
    query(victim, "CREATE TEMPORARY TABLE test.passing (a INT)")
    return "temporary tables"


def lock(victim: Connection) -> str:
    """Hold a user lock."""
    query(victim, "SELECT GET_LOCK('odptwist', 1)")
    return "GET_LOCK"


def text_statement(victim: Connection) -> str:
    """Have a statement that was prepared with PREPARE."""
    query(victim, "PREPARE p FROM 'SELECT 7'")
    return "PREPARE"


def prepare(victim: Connection, sql: str) -> int:
    """Prepare a statement of one column by the protocol, and return its number."""
    victim._execute_command(COM_STMT_PREPARE, sql)
    first, _, _ = (victim._read_packet() for _ in ("OK", "a column", "EOF"))
    return int.from_bytes(first.get_all_data()[1:5], "little")


def execute(victim: Connection, number: int, cursor: bool = False) -> None:
    """Send the execution of a prepared statement without parameters."""
    victim._execute_command(COM_STMT_EXECUTE, number.to_bytes(4, "little") + bytes((cursor,)) + b"\1\0\0\0")


def open_cursor(victim: Connection) -> str:
    """Have a cursor whose rows were not fetched."""
    execute(victim, prepare(victim, "SELECT 7 UNION SELECT 8"), cursor=True)
    for _ in "the number of columns", "a column", "EOF":
        victim._read_packet()
    return "open cursors"


def locked_tables(victim: Connection) -> str:
    """Hold table locks."""
    query(victim, "LOCK TABLES test.held WRITE")
    return "LOCK TABLES"


def computed_variable(victim: Connection) -> str:
    """Have a user variable whose value the proxy cannot know."""
    query(victim, "SET @a = RAND()")
    return "@a"


HOLDINGS = [temporary_table, lock, text_statement, open_cursor, locked_tables, computed_variable]


@pytest.mark.parametrize("hold", HOLDINGS, ids=lambda hold: hold.__name__)
def test_holding(
    hold: Callable[[Connection], str], root: Connection, connect: Connect, server: Server, direct: Connection
) -> None:
    """What cannot be had again is named by one error; then the client goes on clean."""
    if hold in (temporary_table, locked_tables) and server.name == "seekdb":
        pytest.skip("seekdb has no temporary tables, and no locks by LOCK TABLES")
    query(direct, "CREATE TABLE IF NOT EXISTS test.held (a INT)")
    victim = connect()
    query(victim, "SET @kept = 5")
    lost = hold(victim)
    kill_server_session(root, victim)
    code, text = error_of(victim, "SELECT 1")
    assert code == 1317
    assert lost in text
    assert f"killed by client session {root.thread_id()}" in text
    assert query(victim, "SELECT @kept, @a") == [(5, None)]
    kill_server_session(root, victim)
    assert query(victim, "SELECT @kept") == [(5,)]


def test_prepared_statement(root: Connection, connect: Connect) -> None:
    """A prepared statement is not lost: it is prepared again where it is executed, under the client's number."""
    victim = connect()
    prepare(victim, "SELECT 6")
    number = prepare(victim, "SELECT 7")
    kill_server_session(root, victim)
    execute(victim, number)
    packets = [victim._read_packet().get_all_data() for _ in ("columns", "a column", "EOF", "a row", "EOF")]
    assert packets[3][:2] == b"\0\0"
    assert packets[3][2:3] == b"\7"


def test_account_with_password(root: Connection, connect: Connect, direct: Connection) -> None:
    """A client whose password the proxy does not know gets a clear error with its next statement, and is closed."""
    query(direct, "DROP USER IF EXISTS 'secretive'@'%'", "CREATE USER 'secretive'@'%' IDENTIFIED BY 'secret'")
    victim = connect("secretive", password="secret")
    kill_server_session(root, victim)
    code, text = error_of(victim, "SELECT 1")
    assert code == 1317
    assert f"killed by client session {root.thread_id()}" in text
    assert "cannot log in again" in text
    assert is_gone(victim)
    assert list(sessions(root)) == [root.thread_id()]


def test_many_times(root: Connection, connect: Connect) -> None:
    """A client that loses its server session again and again, amid statements or not, never gets a wrong answer."""
    victim = connect()
    query(victim, "SET @n = 0")
    for turn in range(1, 60):
        kill_server_session(root, victim)
        query(victim, f"SET @n = {turn}")
        assert query(victim, "SELECT @n") == [(turn,)]
