"""Questions that the integration tests ask through a connection of PyMySQL's."""

from __future__ import annotations

import fcntl
import termios
import time
from typing import Any

import pymysql
import pytest
from pymysql.connections import Connection

from tests.support.raw_client import RawClient
from tests.support.servers import Background, Server, wait_until

COM_QUERY = 3

COLUMNS = (
    *("proxy_sessid", "Id", "Cluster", "Tenant", "User", "Host", "db", "trans_count"),
    *("svr_session_count", "state", "tid", "pid"),
)
"""What SHOW PROXYSESSION answers, by the ODP manual."""


def query(connection: Connection, *statements: str) -> list[tuple[Any, ...]]:
    """Return the rows of the last statement."""
    with connection.cursor() as cursor:
        for statement in statements:
            cursor.execute(statement)
        return list(cursor.fetchall())


def error_of(connection: Connection, statement: str) -> tuple[int, str]:
    """Return the number and the text of the error that a statement ends with."""
    with pytest.raises(pymysql.MySQLError) as caught:
        query(connection, statement)
    return caught.value.args[0], caught.value.args[1]


def sessions(connection: Connection) -> dict[int, dict[str, Any]]:
    """Return what SHOW PROXYSESSION lists, by Id."""
    with connection.cursor(pymysql.cursors.DictCursor) as cursor:
        cursor.execute("SHOW PROXYSESSION")
        return {row["Id"]: row for row in cursor.fetchall()}


def attributes(connection: Connection, number: int | str = "") -> dict[str, str]:
    """Return what SHOW PROXYSESSION ATTRIBUTE tells; of the counters that are there twice, the server session's."""
    return {name: value for name, value, _ in query(connection, f"SHOW PROXYSESSION ATTRIBUTE {number}")}


def connection_id(connection: Connection) -> int:
    """Return what SELECT CONNECTION_ID() answers."""
    return int(query(connection, "SELECT CONNECTION_ID()")[0][0])


def send(connection: Connection, statement: str) -> None:
    """Send a statement and leave its answer in the connection."""
    connection._execute_command(COM_QUERY, statement)


def is_gone(connection: Connection) -> bool:
    """Say whether the next statement finds the connection closed, whatever else the peer had to say before."""
    try:
        query(connection, "SELECT 1")
    except pymysql.MySQLError as error:
        return error.args[0] in (2006, 2013) or connection._sock is None
    return False


def start_statement(client: Connection, statement: str, server: Server, direct: Connection) -> Background[Any]:
    """Run a statement that lasts in the background, and return when the server works on it."""
    number = connection_id(client)
    running = Background(query, client, statement)

    def works() -> bool:
        return statement in server.processes(direct).get(number, ("", ""))[1]

    wait_until(works, what=f"{statement} on the server")
    return running


def start_at(server: Server, client: Connection, statement: str) -> Background[Any]:
    """Run a statement in the background, and return when `server` works on it."""
    running = Background(query, client, statement)
    with server.connect() as direct:
        wait_until(lambda: statement in [text for _, text in server.processes(direct).values()], what=statement)
    return running


def make_large(direct: Connection) -> bytes:
    """Return a SELECT whose result has 640 MB."""
    query(direct, "DROP TABLE IF EXISTS test.wide", "CREATE TABLE test.wide (id INT PRIMARY KEY, text VARCHAR(1000))")
    values = ", ".join(f"({number}, REPEAT('x', 1000))" for number in range(800))
    query(direct, f"INSERT INTO test.wide VALUES {values}")
    return b"SELECT a.text FROM test.wide a, test.wide b"


class Stall:
    """Watches how much waits in the kernel for a client that does not read."""

    def __init__(self, client: RawClient) -> None:
        self._client = client
        self._waiting = b""
        self._since = 0.0

    def lasts(self) -> bool:
        """Say whether nothing has come for so long that nothing will come: all buffers before it are full."""
        waiting = fcntl.ioctl(self._client.socket.fileno(), termios.FIONREAD, b"\0" * 4)
        if waiting != self._waiting:
            self._waiting, self._since = waiting, time.monotonic()
        return time.monotonic() - self._since > 0.3
