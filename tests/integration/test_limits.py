"""Limits before both servers: what clients see when there are too many of them, or when they take too long."""

from __future__ import annotations

import hashlib
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pymysql
import pytest
from pymysql.connections import Connection

from tests.integration.conftest import Connect
from tests.support.raw_client import RawClient
from tests.support.servers import Background, Proxy, Server, wait_until
from tests.support.sessions import connection_id, error_of, query, start_statement
from tests.support.terminal import Terminal

SECRET = "administrator"
SETTINGS = f"""
[admin]
password_sha1 = "{hashlib.sha1(SECRET.encode()).hexdigest()}"
"""


@pytest.fixture(scope="module")
def proxy(server: Server, directory: Callable[[], Path]) -> Iterator[Proxy]:
    """Return a proxy before `server` with an administrator."""
    base = directory()
    (base / "odp.toml").write_text(SETTINGS)
    running = Proxy(base, "--config", "odp.toml", "--server", server.address, "--cluster-name", "ob1")
    yield running
    running.stop()


@pytest.fixture
def administrator(proxy: Proxy, opened: list[Connection]) -> Connect:
    """Return a maker of connections of root@proxysys."""

    def make() -> Connection:
        opened.append(proxy.connect("root", "@proxysys", password=SECRET))
        return opened[-1]

    return make


@pytest.fixture
def limit(administrator: Connect) -> Iterator[Callable[[str, object], None]]:
    """Return what sets a limit for a test."""
    changed: set[str] = set()
    who = administrator()

    def change(name: str, value: object) -> None:
        changed.add(name)
        query(who, f"ALTER PROXYCONFIG SET limits.{name} = '{value}'")

    yield change
    who = administrator()  # the one before may have been idle for too long
    for name in changed:
        query(who, f"ALTER PROXYCONFIG SET limits.{name} = ''")


def refusal(connect: Connect, *args: str) -> tuple[int, str]:
    """Return the error that a login ends with."""
    with pytest.raises(pymysql.MySQLError) as caught:
        connect(*args)
    return caught.value.args[0], caught.value.args[1]


def until_error(connection: Connection) -> tuple[int, str]:
    """Return the error with which the next statement ends."""
    with pytest.raises(pymysql.MySQLError) as caught:
        query(connection, "SELECT 1")
    return caught.value.args[0], caught.value.args[1]


def test_too_many_connections(
    connect: Connect, administrator: Connect, limit: Callable[[str, object], None], proxy: Proxy
) -> None:
    """PyMySQL is told 1040, root@proxysys still gets in and looks, and a client that leaves makes room."""
    inside = [connect() for _ in range(3)]
    limit("max_connections", 4)  # with the administrator who sets it
    assert refusal(connect) == (1040, "Too many connections")
    root = administrator()
    assert len(query(root, "SHOW PROXYSESSION")) == 5
    assert refusal(connect) == (1040, "Too many connections")
    found = {name: value for name, value, _ in query(root, "SHOW PROXYSTAT LIKE 'limits_refused'")}
    assert found["limits_refused"] >= 2
    inside.pop().close()
    wait_until(lambda: len(query(root, "SHOW PROXYSESSION")) == 4, what="the end of a session")
    assert query(connect(), "SELECT 1") == [(1,)]


def test_no_greeting(connect: Connect, limit: Callable[[str, object], None], proxy: Proxy) -> None:
    """When even the reserve is full, the ERR comes in the place of the greeting, in MariaDB's form."""
    connect()
    limit("max_connections", 1)
    waiting = [RawClient(proxy.port) for _ in range(3)]
    for each in waiting:
        each.read_greeting()
    with RawClient(proxy.port) as late:
        assert late.socket.recv(100) == b"\x17\0\0\0\xff\x10\x04Too many connections"
        assert late.socket.recv(100) == b""
    for each in waiting:
        each.socket.close()


def test_the_program(connect: Connect, limit: Callable[[str, object], None], mariadb_client: str, proxy: Proxy) -> None:
    """The `mariadb` program shows code and text."""
    connect()
    limit("max_connections", 1)
    arguments = [mariadb_client, "--no-defaults", "-h127.0.0.1", f"-P{proxy.port}", "-uroot@sys#ob1", "-eSELECT 1"]
    done = subprocess.run(arguments, capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == 1
    assert "ERROR 1040 (08004)" in done.stderr
    assert "Too many connections" in done.stderr
    limit("max_connections", 0)
    limit("max_user_connections", 1)
    done = subprocess.run(arguments, capture_output=True, text=True, timeout=30, check=False)
    assert "ERROR 1203 (42000)" in done.stderr
    assert "User root already has more than 'max_user_connections' active connections" in done.stderr


def test_one_user(connect: Connect, direct: Connection, limit: Callable[[str, object], None]) -> None:
    """A user has as many sessions as the limit; other users have theirs, and the error is that of servers."""
    for user in ("ada", "bob"):
        query(direct, f"DROP USER IF EXISTS '{user}'@'%'", f"CREATE USER '{user}'@'%'")
    limit("max_user_connections", 2)
    connect("ada")
    second = connect("ada")
    text = "User ada already has more than 'max_user_connections' active connections"
    assert refusal(connect, "ada") == (1203, text)
    assert query(connect("bob"), "SELECT 1") == [(1,)]
    second.close()
    wait_until(lambda: _enters(connect, "ada"), what="room for ada")
    assert refusal(connect, "ada") == (1203, text)


def _enters(connect: Connect, user: str) -> bool:
    with suppress(pymysql.MySQLError):
        connect(user)
        return True
    return False


def test_one_address(connect: Connect, limit: Callable[[str, object], None]) -> None:
    """The next client from an address is told 1040 and which limit it was."""
    connect()
    limit("max_address_connections", 2)  # this one, and the administrator who sets it
    assert refusal(connect) == (1040, "Too many connections from 127.0.0.1: max_address_connections is 2")


def test_idle_session(connect: Connect, limit: Callable[[str, object], None]) -> None:
    """An idle session is ended with 2006; PyMySQL reconnects if it is asked to, and a busy one lives."""
    idle, busy = connect(), connect()
    limit("wait_timeout", 1)
    running = Background(query, busy, "SELECT SLEEP(3)")
    time.sleep(2.5)  # what this is about is time
    assert until_error(idle)[0] == 2006
    assert running.result() == [(0,)]
    with pytest.warns(DeprecationWarning, match="reconnect"):
        idle.ping(reconnect=True)
    assert query(idle, "SELECT 1") == [(1,)]


def test_program_at_rest(limit: Callable[[str, object], None], mariadb_client: str, proxy: Proxy) -> None:
    """The `mariadb` program, at which a person types, has the other limit; it reconnects by itself."""
    limit("interactive_timeout", 1)
    terminal = Terminal(mariadb_client, proxy.port)
    try:
        time.sleep(2.5)  # what this is about is time
        printed = terminal.type("SELECT 40 + 2;")
        assert "ERROR 2006 (HY000)" in printed
        assert "Trying to reconnect" in printed
        assert "42" in printed
        terminal.type("BEGIN;")
        time.sleep(2.5)
        assert "ERROR 4031 (HY000)" in terminal.type("SELECT 1;")
    finally:
        terminal.close()


def test_idle_transaction(connect: Connect, direct: Connection, limit: Callable[[str, object], None]) -> None:
    """A forgotten transaction is ended and its lock is free; its client is told, and others live."""
    query(direct, "DROP TABLE IF EXISTS test.forgotten", "CREATE TABLE test.forgotten (id INT PRIMARY KEY, n INT)")
    query(direct, "INSERT INTO test.forgotten VALUES (1, 0)")
    forgotten, idle = connect(), connect()
    limit("idle_transaction_timeout", 1)
    query(forgotten, "BEGIN", "UPDATE test.forgotten SET n = 7 WHERE id = 1")
    start = time.monotonic()
    query(direct, "UPDATE test.forgotten SET n = n + 1 WHERE id = 1")
    assert 0.5 < time.monotonic() - start < 4
    code, text = until_error(forgotten)
    assert code == 4031
    assert "its transaction was idle for 1 s, and was rolled back. See limits.idle_transaction_timeout" in text
    assert query(idle, "SELECT n FROM test.forgotten") == [(1,)]


def test_long_statement(
    connect: Connect,
    server: Server,
    direct: Connection,
    limit: Callable[[str, object], None],
    figure: Callable[[str], None],
) -> None:
    """A statement that takes too long ends with the server's kind of error; its session and its state go on."""
    victim, neighbour = connect(), connect()
    query(victim, "SET @kept = 5")
    limit("max_statement_time", 1.5)
    other = Background(query, neighbour, "SELECT SLEEP(0.8)")
    start = time.monotonic()
    running = start_statement(victim, "SELECT SLEEP(30)", server, direct)
    code, text = running.error(6)
    took = time.monotonic() - start
    figure(f"max_statement_time = 1.5: ended after {took:.2f} s")
    assert code == (1969 if server.name == "mariadb" else 3024)
    assert "the proxy's limits.max_statement_time is 1.5 s" in text
    assert 1.4 < took < 3
    assert other.result() == [(0,)]
    assert "SLEEP" not in server.processes(direct)[connection_id(victim)][1]
    assert query(victim, "SELECT @kept") == [(5,)]


def test_slow_login(proxy: Proxy, limit: Callable[[str, object], None]) -> None:
    """A client that does not log in is cut when the limit is reached, and not before."""
    limit("login_timeout", 1)
    with RawClient(proxy.port) as silent:
        silent.read_greeting()
        start = time.monotonic()
        with suppress(ConnectionResetError):
            assert silent.socket.recv(100) == b""
        assert 0.8 < time.monotonic() - start < 3


def test_wrong_limit(administrator: Connect) -> None:
    """A limit that the settings file could not have is refused."""
    who = administrator()
    assert error_of(who, "ALTER PROXYCONFIG SET limits.max_connections = '-1'")[0] == 1231
    assert error_of(who, "ALTER PROXYCONFIG SET limits.wait_timeout = 'long'")[0] == 1231
