"""What is counted of a session, its variables, the proxy's connections and settings, before both servers."""

from __future__ import annotations

import time
from contextlib import suppress
from typing import Any

import pymysql
import pytest
from pymysql.connections import Connection
from pymysql.cursors import DictCursor

from tests.integration.conftest import Connect
from tests.support.servers import MariaDb, Server, wait_until
from tests.support.sessions import connection_id, error_of, query, send, start_statement


def statistics(client: Connection, of: int | str = "") -> dict[str, int]:
    """Return what SHOW PROXYSESSION STAT shows."""
    return dict(query(client, f"SHOW PROXYSESSION STAT {of}"))


def variables(client: Connection, of: str = "") -> dict[str, tuple[str, ...]]:
    """Return what SHOW PROXYSESSION VARIABLES shows, by name."""
    return {row[0]: tuple(row[1:]) for row in query(client, f"SHOW PROXYSESSION VARIABLES {of}")}


def rows(client: Connection, statement: str) -> list[dict[str, Any]]:
    """Return rows by the names of their columns."""
    with client.cursor(DictCursor) as cursor:
        cursor.execute(statement)
        return list(cursor.fetchall())


def test_statistics(connect: Connect) -> None:
    """Commands by kind, sizes, times of servers and of transactions are counted; a prepared text is another command."""
    client, looker = connect(), connect()
    number = connection_id_of(looker, client)
    before = statistics(looker, number)
    query(client, "SELECT 1", "SELECT SLEEP(0.3)", f"SELECT '{'x' * 2000}'")
    assert error_of(client, "UPDATE no_database.no_table SET a = 1")[0] > 0
    query(client, "BEGIN", "SELECT 2")
    time.sleep(0.2)
    query(client, "COMMIT", "SHOW PROXYSESSION READ_STALE")
    after = statistics(looker, number)
    grown = {name: after[name] - before[name] for name in after if after[name] != before[name]}
    assert grown["client_select_requests"] == 4
    assert grown["client_update_requests"] == 1
    assert grown["client_other_requests"] == 2
    assert grown["client_internal_requests"] == 1
    assert grown["client_requests"] == grown["client_completed_requests"] == 8
    assert grown["server_error_responses"] == 1
    assert grown["request_size_3K_count"] == grown["response_size_3K_count"] == 1
    assert 0.3e9 <= grown["total_server_process_request_time"] < 5e9
    assert grown["total_transaction_count"] == 1
    assert 0.2e9 <= grown["total_client_transaction_idle_time"] <= grown["total_transactions_time"] < 5e9
    assert after["server_connect_count"] == 1
    assert after["total_server_connect_time"] > 0
    assert dict(query(looker, "SHOW PROXYSESSION STAT LIKE 'vip%'")) == {
        "vip_to_tenant_cache_hit": 0,
        "vip_to_tenant_cache_miss": 0,
    }
    assert error_of(looker, "SHOW PROXYSESSION STAT 4194303")[0] == 1094


def connection_id_of(looker: Connection, client: Connection) -> int:
    """Return the proxy's number of a session."""
    server_sessid = connection_id(client)
    found = query(looker, f"SHOW FULL PROXYSESSION WHERE server_sessid = {server_sessid} OR Id = {server_sessid}")
    return int(found[0][1])


def test_variables(connect: Connect) -> None:
    """What the client has set is known; the rest is asked of the server, for the client itself only."""
    client, looker = connect(), connect()
    query(client, "SET @a = 'it', @b = 7", "SET autocommit = 0", "SET SESSION sql_mode = 'ANSI_QUOTES'")
    found = variables(client)
    assert found["a"] == ("'it'", "user var", "cold modified vars", "")
    assert found["b"][0] == "7"
    assert found["autocommit"] == ("0", "changed sys var", "hot modified vars", " && session_scope")
    assert found["sql_mode"][0] == "'ANSI_QUOTES'"
    everything = variables(client, "ALL")
    assert len(everything) > 100
    assert everything["autocommit"] == ("0", "sys var", "hot modified vars", " && session_scope")
    assert everything["wait_timeout"][0].isdecimal()
    assert list(everything)[-2:] == ["a", "b"]
    assert "" not in everything
    number = connection_id_of(looker, client)
    known = variables(looker, f"ALL {number}")
    assert known[""][1] == "the server is asked for one's own session only"
    assert set(found) <= set(known)
    query(client, "ROLLBACK")


def test_a_busy_session_is_not_waited_for(server: Server, connect: Connect, direct: Connection) -> None:
    """Its statistics and variables are shown while its statement runs."""
    client, looker = connect(), connect()
    query(client, "SET @a = 1")
    number = connection_id_of(looker, client)
    running = start_statement(client, "SELECT SLEEP(5)", server, direct)
    began = time.monotonic()
    assert variables(looker, f"ALL {number}")["a"][0] == "1"
    assert statistics(looker, number)["server_requests"] == statistics(looker, number)["server_responses"] + 1
    assert time.monotonic() - began < 2
    query(looker, f"KILL QUERY {number}")
    with suppress(pymysql.MySQLError):  # MariaDB answers with a row, seekdb with an error
        running.result()


def test_connections(connect: Connect, server: Server) -> None:
    """Each client session has a connection of its own, and one to its server."""
    client = connect()
    query(client, "SELECT 1")
    found = rows(client, "SHOW PROXYNET CONNECTION")
    assert [row["type"] for row in found] == ["client", "server"]
    own, to_server = found
    assert (own["src_ip"], own["alive_time(sec)"] < 60) == ("127.0.0.1", True)
    assert own["socket_fd"] > 2
    assert own["read_ndone"] > 0
    assert str(to_server["dst_port"]) in server.address or to_server["dst_ip"] in server.address
    thread = own["thread_id"]
    assert len(query(client, f"SHOW PROXYNET CONNECTION {thread} LIMIT 1, 5")) == 1
    assert error_of(client, "SHOW PROXYNET")[0] == 5010


def test_a_setting_changes(connect: Connect) -> None:
    """SHOW PROXYCONFIG shows the new value at once; what takes a restart is refused."""
    client = connect()
    query(client, "ALTER PROXYCONFIG SET kill.timeout = 2.5")
    assert query(client, "SHOW PROXYCONFIG LIKE 'kill.timeout'")[0][1] == "2.5"
    query(client, "ALTER PROXYCONFIG SET kill.timeout =")
    assert query(client, "SHOW PROXYCONFIG LIKE 'kill.timeout'")[0][1] == "5.0"
    assert error_of(client, "ALTER PROXYCONFIG SET history.sessions = 1")[0] == 1238
    assert error_of(client, "ALTER PROXYCONFIG SET kill.timeout = 0")[0] == 1231


def test_a_setting_takes_effect(server: Server, connect: Connect, direct: Connection) -> None:
    """Statements of clients that have gone are stopped no more, and then are again."""
    if not isinstance(server, MariaDb):
        pytest.skip("this server stops them itself")
    looker = connect()
    running = (
        "SELECT COUNT(*) FROM information_schema.processlist WHERE info LIKE '%SLEEP(4)%' AND id != CONNECTION_ID()"
    )
    for abandoned in ("false", "true"):
        query(looker, f"ALTER PROXYCONFIG SET kill.abandoned = {abandoned}")
        client = connect()
        send(client, "SELECT SLEEP(4)")
        wait_until(lambda: query(direct, running) == [(1,)], what="the statement")
        client._force_close()
        time.sleep(0.5)
        assert query(direct, running) == [(int(abandoned == "false"),)]
        wait_until(lambda: query(direct, running) == [(0,)], what="the end of the statement")
