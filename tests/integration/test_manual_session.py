"""The example of the ODP manual's page "Terminate a server session", word for word, before both servers."""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import pymysql
import pytest

from tests.support.servers import Proxy, Server
from tests.support.sessions import COLUMNS, connection_id, error_of, query, sessions
from tests.support.terminal import Terminal, read_table

INTERRUPTED = "ERROR 1317 (70100): Query execution was interrupted"


@pytest.fixture
def fresh_proxy(server: Server, start_proxy: Callable[..., Proxy]) -> Proxy:
    """Return a proxy that counts its sessions from 1."""
    return start_proxy("--server", server.address, "--cluster-name", "ob1")


@pytest.fixture
def terminal(fresh_proxy: Proxy, mariadb_client: str) -> Iterator[Terminal]:
    """Return the client, logged in."""
    client = Terminal(mariadb_client, fresh_proxy.port)
    yield client
    client.close()


def expect_reconnect(printed: str, number: int) -> dict[str, str]:
    """Check that the client lost its connection, has got another one, and lists that one session; return its row."""
    assert re.match(r"ERROR (2006|2013) \(HY000\)", printed), printed
    assert re.search(rf"^Connection id: +{number}$", printed, re.MULTILINE), printed
    assert re.search(r"^Current database: \*\*\* NONE \*\*\*$", printed, re.MULTILINE), printed
    [row] = read_table(printed)
    assert printed.rstrip().splitlines()[-1].startswith("1 row in set"), printed
    assert tuple(row) == COLUMNS
    assert int(row["Id"]) == number
    return row


def kill(terminal: Terminal, proxy: Proxy, statement: str, number: int) -> None:
    """Let the client kill itself, and let the proxy reset the connection, as a person is slower than both."""
    assert terminal.type(statement) == INTERRUPTED
    proxy.child.wait_for(rf"client session {number} closed: killed_itself")


def test_manual_session(terminal: Terminal, fresh_proxy: Proxy) -> None:
    """The client is killed by cs_id and by connection id, and reconnects by itself each time."""
    welcome = re.search(r"connection id is (\d+)", terminal.welcome)
    assert welcome, terminal.welcome
    first = int(welcome[1])
    assert first == 1

    printed = terminal.type("SHOW PROXYSESSION;")
    [row] = read_table(printed)
    assert tuple(row) == COLUMNS
    assert int(row["Id"]) == first
    assert (row["Cluster"], row["Tenant"], row["User"], row["db"]) == ("ob1", "sys", "root", "NULL")
    assert re.fullmatch(r"127\.0\.0\.1:\d+", row["Host"])
    assert (row["trans_count"], row["svr_session_count"], row["state"]) == ("0", "1", "MCS_ACTIVE_READER")
    assert int(row["pid"]) == int(row["tid"]) == fresh_proxy.child.pid

    kill(terminal, fresh_proxy, f"KILL PROXYSESSION {first};", first)
    second = expect_reconnect(terminal.type("SHOW PROXYSESSION;"), first + 1)
    assert int(second["proxy_sessid"]) == int(row["proxy_sessid"]) + 1

    [[number]] = [list(found.values()) for found in read_table(terminal.type("SELECT CONNECTION_ID ();"))]
    kill(terminal, fresh_proxy, f"KILL PROXYSESSION {int(number)};", first + 1)
    third = expect_reconnect(terminal.type("SHOW PROXYSESSION;"), first + 2)
    assert int(third["proxy_sessid"]) == int(row["proxy_sessid"]) + 2


@pytest.mark.parametrize("statement", ["KILL PROXYSESSION {}", "KILL {}", "kill connection {} ", "KILL '{}'"])
def test_plain_kill_in_the_terminal(terminal: Terminal, fresh_proxy: Proxy, statement: str) -> None:
    """Every spelling of the statement ends the client's own session with 1317."""
    kill(terminal, fresh_proxy, statement.format(1) + ";", 1)
    expect_reconnect(terminal.type("SHOW PROXYSESSION;"), 2)


def test_through_pymysql(fresh_proxy: Proxy, opened: list[Any]) -> None:
    """The same statements end a session of PyMySQL's, which comes back with the next Id."""
    client = fresh_proxy.connect()
    opened.append(client)
    for turn in 1, 2, 3:
        listed = sessions(client)
        assert list(listed) == [client.thread_id()] == [turn]
        with client.cursor() as cursor:
            cursor.execute("SHOW PROXYSESSION")
            assert tuple(column[0] for column in cursor.description) == COLUMNS
            assert cursor.rowcount == 1
        number = connection_id(client) if turn == 2 else turn
        assert error_of(client, f"KILL PROXYSESSION {number}") == (1317, "Query execution was interrupted")
        code, _ = error_of(client, "SHOW PROXYSESSION")
        assert code in (2006, 2013)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # PyMySQL would rather have a new connection
            client.ping(reconnect=True)


def test_ids_agree(fresh_proxy: Proxy, opened: list[Any]) -> None:
    """What SELECT CONNECTION_ID() answers is the server_sessid of ATTRIBUTE and names the session as its cs_id does."""
    clients = [fresh_proxy.connect(user="root") for _ in range(3)]
    opened.extend(clients)
    for client in clients:
        by_cs_id, by_connection_id = (
            query(clients[0], f"SHOW PROXYSESSION ATTRIBUTE {number}")
            for number in (client.thread_id(), connection_id(client))
        )
        assert next(row for row in by_cs_id if row[0] == "server_sessid")[1] == str(connection_id(client))
        assert [row for row in by_cs_id if row[0] == "cs_id"] == [row for row in by_connection_id if row[0] == "cs_id"]
    with pytest.raises(pymysql.MySQLError, match="1094"):
        query(clients[0], "SHOW PROXYSESSION ATTRIBUTE 999999")
