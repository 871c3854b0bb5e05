"""A client that goes, or whose server session is killed, while MariaDB computes for it: its row lock is free at once.

MariaDB itself would compute on, and keep the lock, after its connection was closed.
"""

from __future__ import annotations

import socket
import struct
import time
from collections.abc import Callable, Iterator

import pytest
from pymysql.connections import Connection

from tests.support.servers import Proxy, Server, wait_until
from tests.support.sessions import attributes, connection_id, query, send, sessions

COMPUTING = "SELECT COUNT(*) FROM test.seq_1_to_1000000 a, test.seq_1_to_1000000 b WHERE a.seq * b.seq % 7 = 8"
MOST = 1.0


@pytest.fixture
def row(mariadb: Server) -> Iterator[str]:
    """Return the name of a table with a row 1."""
    with mariadb.connect() as direct:
        query(direct, "DROP TABLE IF EXISTS test.vanished", "CREATE TABLE test.vanished (id INT PRIMARY KEY, n INT)")
        query(direct, "INSERT INTO test.vanished VALUES (1, 0)")
        yield "test.vanished"
        query(direct, "DROP TABLE test.vanished")


def close(victim: Connection, proxy: Proxy) -> None:
    """Close the victim's socket."""
    victim._force_close()


def reset(victim: Connection, proxy: Proxy) -> None:
    """Close the victim's socket so that its peer gets RST."""
    victim._sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    victim._force_close()


def kill_server_session(victim: Connection, proxy: Proxy) -> None:
    """Kill the victim's server session from another session."""
    with proxy.connect() as asker:
        number = victim.thread_id()
        query(asker, f"KILL PROXYSESSION {number} {attributes(asker, number)['ss_id']}")


def kill(victim: Connection, proxy: Proxy) -> None:
    """Kill the victim from another session."""
    with proxy.connect() as asker:
        query(asker, f"KILL PROXYSESSION {victim.thread_id()}")


@pytest.mark.parametrize("end", [close, reset, kill, kill_server_session])
def test_lock_of_a_statement_that_computes(
    end: Callable[[Connection, Proxy], None],
    mariadb: Server,
    start_proxy: Callable[..., Proxy],
    row: str,
    figure: Callable[[str], None],
) -> None:
    """The lock is free, and the server's list shows the session no more."""
    proxy = start_proxy("--server", mariadb.address, "--cluster-name", "ob1")
    with mariadb.connect() as direct, mariadb.connect() as heir:
        victim = proxy.connect()
        number = connection_id(victim)
        query(victim, "BEGIN", f"UPDATE {row} SET n = 7 WHERE id = 1")
        send(victim, COMPUTING)
        wait_until(lambda: "seq_1_to" in mariadb.processes(direct).get(number, ("", ""))[1], what="the statement")
        time.sleep(0.1)
        query(heir, "SET innodb_lock_wait_timeout = 10")
        began = time.monotonic()
        end(victim, proxy)
        query(heir, f"UPDATE {row} SET n = n + 1 WHERE id = 1")
        free = time.monotonic() - began
        wait_until(lambda: number not in mariadb.processes(direct), 2 * MOST, "the end of the server's session")
        gone = time.monotonic() - began
        assert query(heir, f"SELECT n FROM {row}") == [(1,)]
        figure(f"lock free after {free * 1000:.0f} ms, out of the server's list after {gone * 1000:.0f} ms")
        assert max(free, gone) < MOST
        with proxy.connect() as last:
            left = {last.thread_id()} | ({victim.thread_id()} if end is kill_server_session else set())
            wait_until(lambda: set(sessions(last)) == left, what="the end of the victim's session")
        victim._force_close()
