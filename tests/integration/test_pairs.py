"""The pairs of servers do what they promise to the tests that use them; no proxy is here."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from contextlib import closing
from typing import Any

import pymysql
import pytest
from pymysql.connections import Connection

from tests.support.pairs import APP_PASSWORD, MONITOR_PASSWORD, MariaDbPair, Pair
from tests.support.servers import Background, Server
from tests.support.sessions import connection_id, error_of, is_gone, query

pytestmark = pytest.mark.slow

Figure = Callable[[str], None]


def as_app(server: Server, **more: Any) -> Connection:
    """Return a connection of the user that clients of a shop have."""
    return server.connect("app", password=APP_PASSWORD, database="shop", **more)


def rows(server: Server) -> list[int]:
    """Return what `server` has in the table of this module."""
    with as_app(server) as connection:
        return [number for (number,) in query(connection, "SELECT number FROM pairs ORDER BY number")]


def insert(server: Server, number: int) -> None:
    """Write a row on `server`."""
    with as_app(server) as connection:
        query(connection, f"INSERT INTO pairs VALUES ({number})")


def write_until_refused(connection: Connection, written: list[int]) -> int:
    """Insert 1, 2, 3 ... one by one; return the code of the error that ends it."""
    while True:
        try:
            query(connection, f"INSERT INTO pairs VALUES ({len(written) + 1})")
        except pymysql.MySQLError as error:
            return int(error.args[0])
        written.append(len(written) + 1)


@pytest.fixture(autouse=True)
def empty_table(request: pytest.FixtureRequest) -> None:
    """Let each test with a pair begin with an empty table on both servers."""
    if "pair" in request.fixturenames:
        pair = request.getfixturevalue("pair")
        with as_app(pair.primary) as connection:
            query(connection, "CREATE TABLE IF NOT EXISTS pairs (number INT PRIMARY KEY)", "DELETE FROM pairs")
        pair.caught_up()


def test_row_reaches_replica(pair: Pair[Server], figure: Figure) -> None:
    """What the primary has is on the replica when it has caught up: rows, tables and users at once."""
    longest = 0.0
    for number in range(3):
        with pair.primary.connect() as root:
            query(root, f"CREATE TABLE shop.new_{number} (id INT)", f"INSERT INTO shop.new_{number} VALUES ({number})")
            query(root, f"CREATE USER new_{number}", f"GRANT SELECT ON shop.* TO new_{number}")
        began = time.monotonic()
        pair.caught_up()
        longest = max(longest, time.monotonic() - began)
        with pair.replica.connect(f"new_{number}") as connection:
            assert query(connection, f"SELECT id FROM shop.new_{number}") == [(number,)]
        with pair.primary.connect() as root:
            query(root, f"DROP TABLE shop.new_{number}", f"DROP USER new_{number}")
    figure(f"caught up in {longest:.3f} s at most")


def test_replica_refuses_writes(pair: Pair[Server]) -> None:
    """Neither plain user can write on the replica; both can on the primary."""
    for number, (user, password) in enumerate((("app", APP_PASSWORD), ("plain", ""))):
        statement = f"INSERT INTO shop.pairs VALUES ({number})"
        with pair.replica.connect(user, password=password) as connection:
            assert error_of(connection, statement)[0] == pair.refusal
        with pair.primary.connect(user, password=password) as connection:
            query(connection, statement)


def test_monitor_reads_what_it_needs(pair: Pair[Server]) -> None:
    """The service account sees accounts and the state of replication on both servers, and no shop."""
    questions = {
        "mariadb_pair": ("SHOW SLAVE STATUS", "SHOW MASTER STATUS", "SELECT @@gtid_slave_pos"),
        "seekdb_pair": ("SHOW PARAMETERS LIKE 'server_role_info'", "SELECT * FROM oceanbase.__all_virtual_ls_info"),
    }
    for server in (pair.primary, pair.replica):
        with server.connect("odp_monitor", password=MONITOR_PASSWORD) as connection:
            query(connection, "SHOW FULL PROCESSLIST", *questions[pair.name])
            assert ("app",) in query(connection, "SELECT user FROM mysql.user WHERE password <> ''")
            error_of(connection, "SELECT * FROM shop.pairs")


def test_numbers_of_sessions_differ(pair: Pair[Server]) -> None:
    """A server session's number is none that a proxy gives its first clients, and the two servers begin far apart."""
    for server in (pair.primary, pair.replica):
        with as_app(server) as connection:
            assert connection_id(connection) > server.numbers_apart
    assert {pair.primary.numbers_apart, pair.replica.numbers_apart} == {1000, 5000}


def test_switch_over_and_back(pair: Pair[Server], figure: Figure) -> None:
    """The servers change their roles while a client writes, and no acknowledged row is lost."""
    for _ in range(2):
        old, new = pair.primary, pair.replica
        with as_app(old) as connection:
            query(connection, "DELETE FROM pairs")
            written: list[int] = []
            writing = Background(write_until_refused, connection, written)
            began = time.monotonic()
            pair.switch_over()
            figure(f"switched in {time.monotonic() - began:.3f} s, {len(written)} rows written")
            assert (pair.primary, pair.replica) == (new, old)
            assert writing.result() == pair.refusal
            # Only seekdb has to be restarted.
            assert is_gone(connection) == (pair.name == "seekdb_pair")
        assert rows(new) == rows(old) == written
        with as_app(old) as connection:
            assert error_of(connection, "DELETE FROM pairs")[0] == pair.refusal
        insert(new, 1_000_000)
        pair.caught_up()
        assert rows(old) == [*written, 1_000_000]


def test_switch_over_in_a_thread(pair: Pair[Server]) -> None:
    """The servers outlive the thread that restarted them."""
    for _ in range(2):
        Background(pair.switch_over).result()
    time.sleep(0.1)  # it would die at once
    assert pair.primary.runs
    assert pair.replica.runs


@pytest.mark.parametrize("role", ["primary", "replica"])
def test_kill_and_start(pair: Pair[Server], role: str, figure: Figure) -> None:
    """A server that comes back has its role and all rows; meanwhile the other one answers."""
    server = getattr(pair, role)
    other = pair.replica if server is pair.primary else pair.primary
    insert(pair.primary, 1)
    pair.caught_up()
    began = time.monotonic()
    pair.kill(server)
    figure(f"killed in {time.monotonic() - began:.3f} s")
    with pytest.raises(pymysql.MySQLError):
        as_app(server)
    assert rows(other) == [1]
    if other is pair.primary:
        insert(other, 2)
    began = time.monotonic()
    pair.start(server)
    figure(f"started in {time.monotonic() - began:.3f} s")
    assert getattr(pair, role) is server
    insert(pair.primary, 3)
    pair.caught_up()
    assert rows(server) == rows(other) == ([1, 2, 3] if other is pair.primary else [1, 3])
    with as_app(pair.replica) as connection:
        assert error_of(connection, "DELETE FROM pairs")[0] == pair.refusal


def test_killed_servers_after_switch(pair: Pair[Server]) -> None:
    """The roles that a switch gave last, even if both servers die."""
    pair.switch_over()
    insert(pair.primary, 1)
    pair.caught_up()
    for server in (pair.primary, pair.replica):
        pair.kill(server)
    pair.restore()
    insert(pair.primary, 2)
    pair.caught_up()
    assert rows(pair.primary) == rows(pair.replica) == [1, 2]
    with as_app(pair.replica) as connection:
        assert error_of(connection, "DELETE FROM pairs")[0] == pair.refusal


@pytest.mark.parametrize("role", ["primary", "replica"])
def test_pause(pair: Pair[Server], role: str) -> None:
    """A paused server lets clients wait, and goes on where it was."""
    server = getattr(pair, role)
    with as_app(server) as connection:
        pair.pause(server)
        old, new = Background(query, connection, "SELECT 1"), Background(rows, server)
        time.sleep(0.3)
        assert (old.running, new.running) == (True, True)
        pair.resume(server)
        assert (old.result(), new.result()) == ([(1,)], [])
    insert(pair.primary, 1)
    pair.caught_up()


def test_restore_resumes(pair: Pair[Server]) -> None:
    """Whatever a test did to the servers, they are back, with the same addresses."""
    servers = pair.primary, pair.replica
    pair.pause(pair.primary)
    pair.kill(pair.replica)
    pair.restore()
    assert (pair.primary, pair.replica) == servers
    assert rows(pair.primary) == rows(pair.replica) == []


def lose_replica(pair: MariaDbPair) -> None:
    """Make it impossible to start the replica."""
    pair.kill(pair.replica)
    shutil.rmtree(pair.replica.base)


def leave_no_primary(pair: MariaDbPair) -> None:
    """Leave the pair as a switch does that fails half way."""
    with pair.primary.connect() as root:
        query(root, "SET GLOBAL read_only = 1")


@pytest.mark.parametrize("damage", [lose_replica, leave_no_primary])
def test_pair_is_built_anew(damage: Callable[[MariaDbPair], None], tmp_path_factory: pytest.TempPathFactory) -> None:
    """If a pair cannot be restored, the next user gets two new servers."""
    with closing(MariaDbPair(lambda: tmp_path_factory.mktemp("pair"))) as pair:
        lost = pair.primary, pair.replica
        damage(pair)
        with pytest.warns(UserWarning, match="mariadb_pair could not be restored"):
            pair.restore()
        assert not {pair.primary, pair.replica} & set(lost)
        assert not any(server.runs or server.base.exists() for server in lost)
        with as_app(pair.primary) as connection:
            query(connection, "CREATE TABLE pairs (number INT)")
        pair.caught_up()
        assert rows(pair.replica) == []
    assert not any(server.runs or server.base.exists() for server in (pair.primary, pair.replica))
