"""A MariaDB that dies while clients are idle: who can go on, goes on; the others get a clear error."""

from __future__ import annotations

import signal

import pymysql
import pytest

from tests.integration.conftest import Connect
from tests.support.servers import Proxy, Server
from tests.support.sessions import error_of, is_gone, query, sessions, start_statement

SERVER_LOST = 1158


@pytest.fixture(scope="module")
def server(mariadb: Server) -> Server:
    """Return MariaDB only: it is the one that restarts in no time."""
    return mariadb


def test_restart(connect: Connect, proxy: Proxy, server: Server) -> None:
    """After a crash and a restart, clients without a password go on as if nothing had been."""
    with server.connect() as direct:
        query(direct, "CREATE OR REPLACE USER walter IDENTIFIED BY 'secret'")
        query(direct, "CREATE OR REPLACE TABLE test.crashed (id INT PRIMARY KEY)")
    idle, in_transaction, early = connect(database="test"), connect(), connect()
    busy, known = connect(), connect("walter", password="secret")
    query(idle, "SET @a = 5", "SET NAMES latin1")
    query(in_transaction, "SET @b = 6", "BEGIN", "INSERT INTO test.crashed VALUES (1)")
    with server.connect() as direct:
        running = start_statement(busy, "SELECT SLEEP(60)", server, direct)

    server.stop(signal.SIGKILL)
    try:
        code, text = running.error()
        assert code == SERVER_LOST
        assert server.address in text
        code, text = error_of(early, "SELECT 1")
        assert server.address in text
        assert "Can't connect" in text
        with pytest.raises(pymysql.MySQLError, match="Can't connect"):
            proxy.connect()
        counts = {row["Id"]: row["svr_session_count"] for row in sessions(early).values()}
        assert counts[idle.thread_id()] == counts[early.thread_id()] == 0
    finally:
        server.start()  # other tests want it

    assert query(idle, "SELECT @a, @@character_set_client, DATABASE()") == [(5, "latin1", "test")]
    assert query(early, "SELECT 1") == query(busy, "SELECT 1") == [(1,)]
    code, text = error_of(in_transaction, "SELECT 1")
    assert code == SERVER_LOST
    assert "transaction" in text
    assert query(in_transaction, "SELECT @b, COUNT(*) FROM test.crashed") == [(6, 0)]
    code, text = error_of(known, "SELECT 1")
    assert code == SERVER_LOST
    assert "cannot log in again" in text
    assert is_gone(known)
