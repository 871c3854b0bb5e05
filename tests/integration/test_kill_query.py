"""KILL QUERY ends the statement that runs, and neither its session nor any other statement; before both servers."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import pymysql
import pytest
from pymysql.connections import Connection

from tests.integration.conftest import Connect
from tests.support.servers import Background, Server
from tests.support.sessions import connection_id, error_of, query, sessions, start_statement

INTERRUPTED = 1317


@pytest.fixture
def root(connect: Connect) -> Connection:
    """Return the asker's connection."""
    return connect()


def test_running(root: Connection, connect: Connect, server: Server, direct: Connection, figure: Callable) -> None:
    """The statement ends with 1317 before the asker gets its OK; session and transaction go on."""
    query(direct, "DROP TABLE IF EXISTS test.stopped", "CREATE TABLE test.stopped (id INT PRIMARY KEY, n INT)")
    query(direct, "INSERT INTO test.stopped VALUES (1, 0)")
    victim = connect()
    number = connection_id(victim)
    query(victim, "SET @kept = 5", "BEGIN", "UPDATE test.stopped SET n = 7 WHERE id = 1")
    for name in victim.thread_id(), number:
        running = start_statement(victim, "SELECT SLEEP(60)", server, direct)
        start = time.monotonic()
        query(root, f"KILL QUERY {name}")
        took = time.monotonic() - start
        assert "SLEEP" not in server.processes(direct)[number][1]
        figure(f"answered after {took * 1000:.0f} ms")
        assert running.error(2)[0] == INTERRUPTED
    assert connection_id(victim) == number
    assert query(victim, "SELECT @kept, n FROM test.stopped") == [(5, 7)]
    assert query(direct, "SELECT n FROM test.stopped") == [(0,)]
    query(victim, "COMMIT")
    assert query(direct, "SELECT n FROM test.stopped") == [(7,)]


def test_computing(root: Connection, connect: Connect, server: Server, direct: Connection) -> None:
    """A statement that computes, and has sent nothing yet, ends as well."""
    victim = connect()
    source = "(SELECT 1 x UNION ALL SELECT 2 UNION ALL SELECT 3 UNION ALL SELECT 4 UNION ALL SELECT 5)"
    joined = ", ".join(f"{source} t{number}" for number in range(14))
    running = start_statement(victim, f"SELECT COUNT(*) FROM {joined}", server, direct)
    query(root, f"KILL QUERY {victim.thread_id()}")
    assert running.error(2)[0] == INTERRUPTED
    assert query(victim, "SELECT 1") == [(1,)]


def test_idle(root: Connection, connect: Connect) -> None:
    """An idle session notices nothing, neither now nor with its next statement."""
    victim = connect()
    query(victim, "SELECT 1")
    query(root, f"KILL QUERY {victim.thread_id()}")
    assert query(victim, "SELECT SLEEP(0.2)") == [(0,)]
    query(root, f"KILL QUERY {root.thread_id()}", "KILL QUERY CONNECTION_ID()")
    assert set(sessions(root)) == {root.thread_id(), victim.thread_id()}


def test_from_a_transaction(root: Connection, connect: Connect, server: Server, direct: Connection) -> None:
    """An asker in a transaction of its own may stop a statement (obproxy refuses this with 1235)."""
    victim = connect()
    query(root, "BEGIN", "SELECT 1")
    running = start_statement(victim, "SELECT SLEEP(60)", server, direct)
    query(root, f"KILL QUERY {victim.thread_id()}", "COMMIT")
    assert running.error(2)[0] == INTERRUPTED


def test_busy_asker_account(connect: Connect, server: Server, direct: Connection) -> None:
    """A session's own user may stop its statement from a second session of the same account."""
    query(direct, "DROP USER IF EXISTS 'stopper'@'%'", "CREATE USER 'stopper'@'%' IDENTIFIED BY 'secret'")
    asker, victim = (connect("stopper", password="secret") for _ in range(2))
    running = start_statement(victim, "SELECT SLEEP(60)", server, direct)
    query(asker, f"KILL QUERY {victim.thread_id()}")
    assert running.error(2)[0] == INTERRUPTED
    running = start_statement(victim, "SELECT SLEEP(60)", server, direct)
    query(asker, f"KILL {victim.thread_id()}")
    assert running.error(2)[0] == INTERRUPTED
    assert list(sessions(asker)) == [asker.thread_id()]


def test_never_the_next(connect: Connect, figure: Callable[[str], None]) -> None:
    """Under a hail of kills no statement is hit that was sent after the last kill was answered.

    Short statements end by themselves while the kill is on its way; the late interrupt must not hit the next one.
    """
    asker, victim = connect(), connect()
    allowed = threading.Lock()  # held by whoever kills, so between two kills the victim runs a statement in peace
    over = threading.Event()

    kills = hits = peace = 0

    def kill_on_and_on() -> None:
        nonlocal kills
        while not over.is_set():
            with allowed:
                query(asker, f"KILL QUERY {victim.thread_id()}")
                kills += 1
            time.sleep(0.0005)

    killing = Background(kill_on_and_on)
    try:
        deadline = time.monotonic() + 2
        # MariaDB takes two seconds for a KILL now and then.
        while time.monotonic() < deadline or (kills <= 20 and time.monotonic() < deadline + 20):
            try:
                query(victim, "SELECT SLEEP(0.0004)")
            except pymysql.MySQLError as error:
                assert error.args[0] == INTERRUPTED  # noqa: PT017 - most have no error
                hits += 1
            with allowed:
                assert query(victim, "SELECT 2") == [(2,)]
                peace += 1
    finally:
        over.set()
    killing.result()
    figure(f"{kills} kills hit {hits} statements; none of {peace} statements in between was hit")
    assert kills > 20
    assert query(victim, "SELECT 3") == [(3,)]


def test_unknown(root: Connection) -> None:
    """An id of nobody is 1094."""
    assert error_of(root, "KILL QUERY 4000000") == (1094, "Unknown thread id: 4000000")
