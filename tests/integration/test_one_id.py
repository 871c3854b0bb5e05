"""One number for a session everywhere, with ids of version 2; and what version 1 has in its place."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pymysql
import pytest
from pymysql.connections import Connection
from pymysql.constants import SERVER_STATUS

from tests.support.servers import Proxy, Server, wait_until
from tests.support.sessions import attributes, connection_id, error_of, is_gone, query, sessions
from tests.support.terminal import Terminal, read_table

COM_PROCESS_INFO = 10
LOWEST = 1 << 30
"""Ids of version 2 whose proxy has no number in the settings are above this one."""

FORMS = (
    "SELECT CONNECTION_ID()",
    "SELECT connection_id ( )",
    "select Connection_Id/* x */()",
    "SELECT `CONNECTION_ID`()",
    "/* a comment */ SELECT CONNECTION_ID() -- b",
    "SELECT connection_id()+0",
    "SELECT CONNECTION_ID() AS own",
    "SELECT CONNECTION_ID() own FROM dual WHERE CONNECTION_ID() > 0 ORDER BY CONNECTION_ID()",
    "SELECT MAX(own) FROM (SELECT CONNECTION_ID() own) x GROUP BY CONNECTION_ID()",
    "SELECT * FROM (SELECT CONNECTION_ID()) x",
    "(SELECT CONNECTION_ID())",
    "SELECT (SELECT CONNECTION_ID())",
    "WITH c AS (SELECT CONNECTION_ID()) SELECT `CONNECTION_ID()` FROM c",
    "SELECT CASE WHEN 1 THEN CONNECTION_ID() END",
    "SELECT CAST(CONNECTION_ID() AS CHAR)",
    "SELECT DISTINCT CONNECTION_ID() LIMIT 1",
    "SELECT /*!CONNECTION_ID()*/",
)


@pytest.fixture(scope="module")
def start(directory: Callable[[], Path], server: Server) -> Iterator[Callable[[int], Proxy]]:
    """Return a maker of proxies with ids of a version; each version has one proxy for the module."""
    running: dict[int, Proxy] = {}

    def start(version: int) -> Proxy:
        if version not in running:
            base = directory()
            settings = base / "odp.toml"
            settings.write_text(f"client_session_id_version = {version}\n")
            options = ("--config", str(settings), "--server", server.address, "--cluster-name", "ob1")
            running[version] = Proxy(base, *options)
        return running[version]

    yield start
    for each in running.values():
        each.stop()


@pytest.fixture
def one_id(start: Callable[[int], Proxy]) -> Proxy:
    """Return a proxy with ids of version 2."""
    return start(2)


@pytest.fixture
def connect(one_id: Proxy, opened: list[Connection]) -> Callable[..., Connection]:
    """Return a maker of connections through it."""

    def make(*arguments: Any, **more: Any) -> Connection:
        opened.append(one_id.connect(*arguments, **more))
        return opened[-1]

    return make


def names(connection: Connection) -> list[str]:
    """Return the names of the last result's columns."""
    return [field.name for field in connection._result.fields]  # type: ignore[union-attr]


def test_every_form(connect: Callable[..., Connection], direct: Connection) -> None:
    """The number is that of the greeting in every form, and the column is called as the server calls it."""
    client = connect()
    number = client.thread_id()
    assert LOWEST < number < 1 << 31
    for form in FORMS:
        [[answer]] = query(client, form)
        query(direct, form)
        assert int(answer) == number, form
        assert names(client) == names(direct), form
    assert query(client, "SELECT @@pseudo_thread_id, 'CONNECTION_ID()'") == [(number, "CONNECTION_ID()")]
    assert names(client) == ["@@pseudo_thread_id", "CONNECTION_ID()"]
    assert query(client, "SET @own = CONNECTION_ID()", "SELECT @own") == [(number,)]
    assert query(client, "PREPARE s FROM 'SELECT CONNECTION_ID()'", "EXECUTE s") == [(number,)]


def test_several_statements(connect: Callable[..., Connection]) -> None:
    """It is the same number in each of several statements of one text."""
    client = connect(client_flag=pymysql.constants.CLIENT.MULTI_STATEMENTS)
    with client.cursor() as cursor:
        cursor.execute("SELECT 1; SELECT CONNECTION_ID(); SELECT CONNECTION_ID() + 1")
        results = [cursor.fetchall()]
        while cursor.nextset():
            results.append(cursor.fetchall())
    number = client.thread_id()
    assert results == [((1,),), ((number,),), ((number + 1,),)]


def test_what_is_compared_with_the_servers_numbers(connect: Callable[..., Connection]) -> None:
    """A statement about the server's own sessions has the server's number."""
    client = connect()
    [[number]] = query(client, "SELECT id FROM information_schema.processlist WHERE id = CONNECTION_ID()")
    assert str(number) == attributes(client)["server_sessid"]


def test_program(one_id: Proxy, mariadb_client: str) -> None:
    """The `mariadb` program's status and CONNECTION_ID() tell one number."""
    done = subprocess.run(
        [mariadb_client, "--no-defaults", "--host=127.0.0.1", f"--port={one_id.port}", "--user=root@sys#ob1", "-N"],
        input="status\nSELECT CONNECTION_ID();\n",
        capture_output=True,
        text=True,
        timeout=30,
        check=True,
    )
    told = re.search(r"Connection id:\s+(\d+)", done.stdout)
    assert told is not None, done.stdout
    assert int(told[1]) > LOWEST
    assert done.stdout.split()[-1] == told[1]


@pytest.mark.parametrize("statement", ["KILL {}", "KILL PROXYSESSION {}", "KILL CONNECTION {}", "COM_PROCESS_KILL"])
def test_kill(connect: Callable[..., Connection], statement: str) -> None:
    """A KILL of what CONNECTION_ID() answers, by a second connection, ends the first."""
    victim, killer = connect(), connect()
    number = connection_id(victim)
    if statement == "COM_PROCESS_KILL":
        killer.kill(number)
    else:
        query(killer, statement.format(number))
    assert is_gone(victim)
    assert error_of(killer, f"KILL {number}") == (1094, f"Unknown thread id: {number}")


@pytest.mark.parametrize("statement", ["SHOW PROCESSLIST", "SHOW FULL PROCESSLIST", "COM_PROCESS_INFO"])
def test_process_list(connect: Callable[..., Connection], direct: Connection, statement: str) -> None:
    """The server's list has the ids and addresses of this proxy's clients, and other rows as they are."""
    first, second = connect(), connect()
    if statement == "COM_PROCESS_INFO":
        first._execute_command(COM_PROCESS_INFO, b"")
        first._read_query_result()
        rows = list(first._result.rows)  # type: ignore[union-attr]
    else:
        rows = query(first, statement)
    query(direct, statement if statement.startswith("SHOW") else "SHOW PROCESSLIST")
    assert names(first) == names(direct)
    listed = {row[0]: row for row in rows}
    hosts = {number: row["Host"] for number, row in sessions(first).items()}
    for client in first, second:
        assert listed[client.thread_id()][2] == hosts[client.thread_id()]
    assert direct.thread_id() in listed
    assert all(number in hosts or number < LOWEST for number in listed)


def test_process_list_in_a_transaction(connect: Callable[..., Connection]) -> None:
    """The list may be asked for in a transaction, which stays open."""
    client = connect()
    query(client, "BEGIN", "SHOW PROCESSLIST")
    assert client.server_status & SERVER_STATUS.SERVER_STATUS_IN_TRANS


@pytest.mark.parametrize("version", [1, 2])
def test_interrupt(start: Callable[[int], Proxy], mariadb_client: str, version: int, opened: list[Connection]) -> None:
    """Ctrl-C in the `mariadb` client stops the statement and keeps the session."""
    proxy = start(version)
    watcher = proxy.connect()
    opened.append(watcher)
    terminal = Terminal(mariadb_client, proxy.port)
    try:
        number = int(re.search(r"connection id is (\d+)", terminal.welcome)[1])  # type: ignore[index]
        query(watcher, "SELECT 1")
        terminal.enter("SELECT SLEEP(60);")
        wait_until(lambda: attributes(watcher, number)["active"] == "true", what="the statement")
        terminal.interrupt()
        printed = terminal.read()
        assert "ERROR 1317" in printed or re.search(r"SLEEP\(60\)[\s|+-]+1\b", printed), printed
        [row] = read_table(terminal.type("SHOW PROXYSESSION ATTRIBUTE LIKE 'cs_id';"))
        assert int(row["value"]) == number
        [[answer]] = [list(row.values()) for row in read_table(terminal.type("SELECT CONNECTION_ID();"))]
        assert (int(answer) == number) is (version == 2)
    finally:
        terminal.close()


def test_version_1(start: Callable[[int], Proxy], opened: list[Connection]) -> None:
    """With version 1, CONNECTION_ID() is the server's number, and SHOW PROCESSLIST the proxy's list."""
    client = start(1).connect()
    opened.append(client)
    assert client.thread_id() < LOWEST
    assert str(connection_id(client)) == attributes(client)["server_sessid"]
    listed = query(client, "SHOW PROCESSLIST")
    assert names(client) == [
        "Id",
        "Tenant",
        "User",
        "Host",
        "db",
        "trans_count",
        "svr_session_count",
        "state",
        "tid",
        "pid",
    ]
    assert client.thread_id() in [row[0] for row in listed]
    assert connection_id(client) in [row[0] for row in query(client, "SHOW FULL PROCESSLIST")]
