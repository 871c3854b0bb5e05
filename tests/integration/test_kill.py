"""One client ends another: what each of them and the server see, before both servers (design/kill.md's truth table)."""

from __future__ import annotations

import time
from collections.abc import Callable

import pymysql
import pytest
from pymysql.connections import Connection
from pymysql.constants import CLIENT

from tests.integration.conftest import Connect
from tests.support.raw_client import RawClient
from tests.support.servers import Proxy, Server, wait_until
from tests.support.sessions import (
    Stall,
    connection_id,
    error_of,
    is_gone,
    make_large,
    query,
    send,
    sessions,
    start_statement,
)

KILLED = "Query execution was interrupted: killed by client session {} (root@sys#ob1)"
COM_STMT_PREPARE = 0x16
COM_STMT_EXECUTE = 0x17


@pytest.fixture
def root(connect: Connect) -> Connection:
    """Return the asker's connection."""
    return connect()


@pytest.fixture
def rows(direct: Connection) -> str:
    """Return the name of a table with the rows 1 and 2."""
    query(direct, "DROP TABLE IF EXISTS test.killed", "CREATE TABLE test.killed (id INT PRIMARY KEY, n INT)")
    query(direct, "INSERT INTO test.killed VALUES (1, 0), (2, 0)")
    return "test.killed"


def works_on(server: Server, direct: Connection, number: int) -> bool:
    """Say whether a session of the server's runs a statement; one that MariaDB shows as Killed has ended it."""
    return server.processes(direct).get(number, ("Sleep", ""))[0] not in ("Sleep", "Killed")


def test_idle(root: Connection, connect: Connect, server: Server, direct: Connection) -> None:
    """An idle session is gone from both lists when the asker gets its OK; a second kill answers 1094."""
    victim = connect()
    number, server_number = victim.thread_id(), connection_id(victim)
    query(root, f"KILL PROXYSESSION {number}")
    assert list(sessions(root)) == [root.thread_id()]
    assert error_of(root, f"KILL PROXYSESSION {number}") == (1094, f"Unknown thread id: {number}")
    wait_until(lambda: server_number not in server.processes(direct), 2, "the end on the server")
    assert is_gone(victim)


def test_running(root: Connection, connect: Connect, server: Server, direct: Connection, figure: Callable) -> None:
    """A running statement has ended on the server when the asker gets its OK; its client gets 1317, and who did it."""
    victim = connect()
    number = connection_id(victim)
    running = start_statement(victim, "SELECT SLEEP(60)", server, direct)
    start = time.monotonic()
    with root.cursor() as cursor:
        cursor.execute(f"KILL {victim.thread_id()}")
        assert not cursor.warning_count
    took = time.monotonic() - start
    assert not works_on(server, direct, number)
    figure(f"KILL of a running SELECT SLEEP(60) answered after {took * 1000:.0f} ms")
    assert running.error(2) == (1317, KILLED.format(root.thread_id()))
    assert list(sessions(root)) == [root.thread_id()]
    assert is_gone(victim)


@pytest.mark.parametrize("busy", [False, True], ids=["idle", "running"])
def test_in_transaction(
    busy: bool, root: Connection, connect: Connect, server: Server, direct: Connection, rows: str, figure: Callable
) -> None:
    """The row lock of a session in a transaction is free at once, and its change undone."""
    victim, heir = connect(), connect()
    query(victim, "BEGIN", f"UPDATE {rows} SET n = 7 WHERE id = 1")
    if busy:
        running = start_statement(victim, "SELECT SLEEP(60)", server, direct)
    start = time.monotonic()
    query(root, f"KILL {victim.thread_id()}")
    killed = time.monotonic()
    query(heir, f"UPDATE {rows} SET n = n + 1 WHERE id = 1")
    free = time.monotonic()
    figure(
        f"the kill took {(killed - start) * 1000:.1f} ms, "
        f"a row lock was free {(free - killed) * 1000:.1f} ms after its OK"
    )
    assert free - killed < 0.5
    assert query(heir, f"SELECT n FROM {rows} WHERE id = 1") == [(1,)]
    if busy:
        assert running.error(2)[0] == 1317


def test_not_reading(
    root: Connection, proxy: Proxy, server: Server, direct: Connection, figure: Callable[[str], None]
) -> None:
    """A client that has stopped reading in the middle of a result of 500 MB dies at once, and the server stops."""
    statement = make_large(direct)
    with RawClient(proxy.port, receive_buffer=4096) as victim:
        victim.login("root@sys#ob1")
        assert victim.greeting is not None
        number = int(victim.query("SELECT CONNECTION_ID()").rows[0][0] or 0)
        victim.send(b"\x03" + statement)
        victim.read_packet()
        wait_until(lambda: works_on(server, direct, number), what="a running statement")
        wait_until(Stall(victim).lasts, what="the end of what all buffers take")
        start = time.monotonic()
        with root.cursor() as cursor:
            cursor.execute(f"KILL {victim.greeting.thread_id}")
            assert not cursor.warning_count
        took = time.monotonic() - start
        assert not works_on(server, direct, number)
        assert list(sessions(root)) == [root.thread_id()]
        wait_until(lambda: number not in server.processes(direct), 2, "the end on the server")
        figure(f"KILL of a client that does not read answered after {took * 1000:.0f} ms")
        assert took < 2


def test_com_process_kill(root: Connection, connect: Connect) -> None:
    """The command packet kills as the statement does, and answers 1094 for an unknown id."""
    victim = connect()
    root.kill(victim.thread_id())
    assert list(sessions(root)) == [root.thread_id()]
    assert is_gone(victim)
    with pytest.raises(pymysql.MySQLError, match=f"1094.*Unknown thread id: {victim.thread_id()}"):
        root.kill(victim.thread_id())


@pytest.mark.parametrize("statement", ["KILL {}", "KILL CONNECTION {}", "kill  proxysession {} ;", "/* x */ KILL '{}'"])
def test_by_connection_id(statement: str, root: Connection, connect: Connect) -> None:
    """The id that SELECT CONNECTION_ID() answers names the session as well, in every spelling of KILL."""
    victim, other = connect(), connect()
    number = connection_id(victim)
    query(root, statement.format(number))
    assert set(sessions(root)) == {root.thread_id(), other.thread_id()}
    assert is_gone(victim)


@pytest.mark.parametrize(("number", "shown"), [("0", "0"), ("-1", "18446744073709551615"), ("999999999", "999999999")])
def test_unknown(number: str, shown: str, root: Connection, connect: Connect) -> None:
    """An id that names nobody is 1094 in all statements, and nobody is hurt."""
    bystander = connect()
    for statement in "KILL PROXYSESSION {}", "KILL {}", "KILL CONNECTION {}", "KILL QUERY {}", "KILL PROXYSESSION {} 1":
        assert error_of(root, statement.format(number)) == (1094, f"Unknown thread id: {shown}"), statement
    assert query(bystander, "SELECT 1") == [(1,)]


def test_strangers_id(root: Connection, direct: Connection) -> None:
    """A number that is only the server's, of a session that is none of the proxy's, is never passed on."""
    for number in connection_id(direct), connection_id(direct) + 1:
        if number != root.thread_id():
            assert error_of(root, f"KILL {number}") == (1094, f"Unknown thread id: {number}")
    assert query(direct, "SELECT 1") == [(1,)]


def test_ambiguous(server: Server, start_proxy: Callable[..., Proxy], opened: list[Connection]) -> None:
    """An id that is one session's cs_id and another's connection id kills neither; the error names both."""
    proxy = start_proxy("--server", server.address, "--cluster-name", "ob1")
    root, first = proxy.connect(), proxy.connect()
    opened += root, first
    number = connection_id(first)
    greeted = first.thread_id()
    while greeted < number - 1:  # The proxy counts clients; the server counts only those that log in.
        with RawClient(proxy.port) as nobody:
            greeted = nobody.read_greeting().thread_id
    second = proxy.connect()
    opened.append(second)
    assert second.thread_id() == number
    for statement in "KILL {}", "KILL PROXYSESSION {}", "KILL QUERY {}", "KILL PROXYSESSION {} 1":
        code, text = error_of(root, statement.format(number))
        assert code == 1094
        assert f"client session {first.thread_id()} by its connection id" in text
        assert f"client session {second.thread_id()} by its own id" in text
    assert query(first, "SELECT 1") == query(second, "SELECT 1") == [(1,)]
    query(root, f"KILL {first.thread_id()}")
    query(root, f"KILL {number}")
    assert list(sessions(root)) == [root.thread_id()]


def test_logging_in(root: Connection, proxy: Proxy) -> None:
    """A client that has read the greeting and says nothing is in the list, and root can end it."""
    with RawClient(proxy.port) as victim:
        number = victim.read_greeting().thread_id
        row = sessions(root)[number]
        assert (row["User"], row["svr_session_count"]) == ("", 0)
        query(root, f"KILL PROXYSESSION {number}")
        assert list(sessions(root)) == [root.thread_id()]
        assert victim.is_closed()
        assert error_of(root, f"KILL {number}")[0] == 1094


def test_from_a_transaction(root: Connection, connect: Connect, rows: str) -> None:
    """An asker in a transaction may kill, and stays in it."""
    victim = connect()
    query(root, "BEGIN", f"UPDATE {rows} SET n = 9 WHERE id = 2", f"KILL {victim.thread_id()}")
    assert is_gone(victim)
    query(root, "ROLLBACK")
    assert query(root, f"SELECT n FROM {rows} WHERE id = 2") == [(0,)]


@pytest.mark.parametrize(
    "text",
    [
        "SELECT 1; KILL {}",
        "KILL {}; SELECT 1",
        "SELECT 1; kill connection {}",
        "SELECT 1;/* */KILL/**/{}",
        "PREPARE k FROM 'KILL {}'",
        "/*!50000 KILL {} */",
        "EXECUTE IMMEDIATE 'KILL {}'",
        "BEGIN NOT ATOMIC KILL {}; END",
    ],
)
def test_hidden(text: str, connect: Connect, root: Connection, direct: Connection) -> None:
    """A KILL among other statements or in a prepared one is refused, and hits neither its cs_id nor its server id."""
    asker = connect(client_flag=CLIENT.MULTI_STATEMENTS)
    victim = connect()
    for number in victim.thread_id(), connection_id(direct):
        assert error_of(asker, text.format(number))[0] == 1235
    assert query(asker, "SELECT 2") == [(2,)]
    assert query(victim, "SELECT 1") == query(direct, "SELECT 1") == [(1,)]


def test_prepared(root: Connection, direct: Connection) -> None:
    """A KILL that is prepared never reaches the server: an id that only the server knows names nobody."""
    for text in f"KILL {connection_id(direct)}", f"KILL QUERY {connection_id(direct)}":
        root._execute_command(COM_STMT_PREPARE, text)
        number = root._read_packet().get_all_data()[1:5]
        root._execute_command(COM_STMT_EXECUTE, number + b"\0\1\0\0\0")
        with pytest.raises(pymysql.MySQLError) as refused:
            root._read_packet()
        assert refused.value.args[0] == 1094
    assert query(root, "SELECT 1") == query(direct, "SELECT 1") == [(1,)]


def test_killed_while_sending_ahead(root: Connection, connect: Connect, server: Server, direct: Connection) -> None:
    """A client that has sent further statements ahead sees none of them done after its end."""
    query(direct, "DROP TABLE IF EXISTS test.ahead", "CREATE TABLE test.ahead (n INT)")
    victim = connect()
    number = connection_id(victim)
    send(victim, "SELECT SLEEP(60)")
    victim._result = None
    send(victim, "INSERT INTO test.ahead VALUES (1)")
    wait_until(lambda: works_on(server, direct, number), what="a running statement")
    query(root, f"KILL {victim.thread_id()}")
    assert query(direct, "SELECT COUNT(*) FROM test.ahead") == [(0,)]
