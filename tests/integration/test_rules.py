"""Rules of the settings, before both servers: what they end, what they leave alone, and what they tell."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from pymysql.connections import Connection

from tests.integration.conftest import Connect
from tests.support.servers import Background, Proxy, Server, wait_until
from tests.support.sessions import connection_id, error_of, is_gone, query, start_statement

INTERRUPTED = 1317

RULES = """
[[rule]]
name = "long sleeps"
where = "seconds > 1 AND statement LIKE '%SLEEP%'"
action = "kill_query"
reason = "sleep elsewhere"

[[rule]]
name = "forgotten transactions"
where = "idle_seconds > 1 AND transaction_seconds > 1"
action = "kill"

[[rule]]
name = "dangerous"
where = "statement LIKE 'SELECT ''dangerous%'"
action = "warn"
rate_limit = 2
"""


@pytest.fixture(scope="module")
def proxy(server: Server, directory: Callable[[], Path]) -> Iterator[Proxy]:
    """Return a proxy with rules before `server`."""
    base = directory()
    (base / "odp.toml").write_text(RULES)
    running = Proxy(base, "--config", "odp.toml", "--server", server.address, "--cluster-name", "ob1")
    yield running
    running.stop()


@pytest.fixture
def root(connect: Connect) -> Connection:
    """Return the connection of somebody who looks."""
    return connect()


def statistics(root: Connection, pattern: str) -> dict[str, int]:
    """Return what SHOW PROXYSTAT shows of this."""
    return {name: value for name, value, _ in query(root, f"SHOW PROXYSTAT LIKE '{pattern}'")}


def test_statement(root: Connection, connect: Connect, server: Server, direct: Connection, figure: Callable) -> None:
    """A statement that runs too long ends with an error that names the rule; others, and its transaction, go on."""
    victim, neighbour = connect(), connect()
    before = statistics(root, "rule.long sleeps.%")
    query(victim, "BEGIN", "SET @kept = 5")
    other = Background(query, neighbour, "SELECT SLEEP(0.6), SLEEP(0.2)")
    start = time.monotonic()
    running = start_statement(victim, "SELECT SLEEP(30)", server, direct)
    assert running.error(4) == (
        INTERRUPTED,
        "Query execution was interrupted: killed by rule 'long sleeps': sleep elsewhere",
    )
    took = time.monotonic() - start
    figure(f"ended after {took:.2f} s")
    assert 1.0 < took < 2.0
    assert other.result() == [(0, 0)]
    assert "SLEEP" not in server.processes(direct)[connection_id(victim)][1]
    assert query(victim, "SELECT @kept") == [(5,)]
    query(victim, "COMMIT")
    after = statistics(root, "rule.long sleeps.%")
    assert {name: after[name] - before[name] for name in after} == {
        "rule.long sleeps.matched": 1,
        "rule.long sleeps.acted": 1,
        "rule.long sleeps.limited": 0,
        "rule.long sleeps.failed": 0,
        "rule.long sleeps.faults": 0,
    }


def test_statements_in_time(connect: Connect) -> None:
    """A session whose statements all end in time is left alone, however long it works."""
    healthy = connect()
    for _ in range(6):
        assert query(healthy, "SELECT SLEEP(0.4)") == [(0,)]


def test_forgotten_transaction(root: Connection, connect: Connect, server: Server, direct: Connection) -> None:
    """A transaction that nobody works on is ended and its row lock is free; one that is worked on lives."""
    query(direct, "DROP TABLE IF EXISTS test.kept", "CREATE TABLE test.kept (id INT PRIMARY KEY, n INT)")
    query(direct, "INSERT INTO test.kept VALUES (1, 0), (2, 0)")
    forgotten, worked_on, idle = connect(), connect(), connect()
    before = statistics(root, "rule.forgotten%acted")
    query(forgotten, "BEGIN", "UPDATE test.kept SET n = 7 WHERE id = 1")
    query(worked_on, "BEGIN", "UPDATE test.kept SET n = 8 WHERE id = 2")
    for _ in range(5):
        time.sleep(0.4)  # what this is about is time
        query(worked_on, "SELECT 1")
    start = time.monotonic()
    query(direct, "UPDATE test.kept SET n = n + 1 WHERE id = 1")
    assert time.monotonic() - start < 0.5
    assert is_gone(forgotten)
    query(worked_on, "COMMIT")
    assert query(idle, "SELECT n FROM test.kept ORDER BY id") == [(1,), (8,)]
    after = statistics(root, "rule.forgotten%acted")
    assert [after[name] - before[name] for name in after] == [1]


def test_warning(root: Connection, connect: Connect, proxy: Proxy) -> None:
    """A statement that only rings a bell is answered as always; the log has a line for as many as the rate allows."""
    client = connect()
    before = proxy.child.output().count("rule 'dangerous' matches")
    for _ in range(5):
        assert query(client, "SELECT 'dangerous'") == [("dangerous",)]
    found = statistics(root, "rule.dangerous.%")
    assert found["rule.dangerous.matched"] == found["rule.dangerous.acted"] + found["rule.dangerous.limited"] >= 5
    assert 0 < found["rule.dangerous.acted"] <= 2
    lines = wait_until(
        lambda: proxy.child.output().count("rule 'dangerous' matches") - before, what="a line in the log"
    )
    assert lines <= 2


def test_statistics(root: Connection, connect: Connect, direct: Connection) -> None:
    """Counters of sessions and kills stand beside those of rules; those who may not see the proxy get 1227."""
    victim = connect()
    before = statistics(root, "")
    query(root, f"KILL {victim.thread_id()}")
    after = statistics(root, "")
    assert after["client_sessions"] == before["client_sessions"] - 1
    assert after["kills_ended"] == before["kills_ended"] + 1
    assert query(root, "SHOW PROXYSTAT LIKE 'client_sessions'")[0][2] == "NON_PERSISTENT"
    query(direct, "DROP USER IF EXISTS 'nobody_special'@'%'", "CREATE USER 'nobody_special'@'%'")
    assert error_of(connect("nobody_special"), "SHOW PROXYSTAT")[0] == 1227


def test_faulty_condition(tmp_path: Path) -> None:
    """A condition that cannot be used is told before anything starts, with its line."""
    (tmp_path / "odp.toml").write_text('[[rule]]\nwhere = "sconds > 1"\naction = "kill"\n')
    twistd = str(Path(sys.executable).with_name("twistd"))
    arguments = [sys.executable, twistd, "--pidfile=", "--nodaemon", "odp", "--config", "odp.toml", "-s", "h:1"]
    done = subprocess.run(arguments, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1
    assert "odp.toml:2: rule[0].where: no such column: sconds" in done.stdout + done.stderr
