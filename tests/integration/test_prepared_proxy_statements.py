"""Proxy statements through drivers that prepare everything."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from pymysql.connections import Connection

from odptwist.wire.constants import COM_STMT_EXECUTE, COM_STMT_PREPARE
from odptwist.wire.prepared import PrepareReader
from odptwist.wire.resultset import parse_binary_row, parse_column_definition
from tests.support.raw_client import RawClient
from tests.support.servers import Proxy, find_module
from tests.support.sessions import COLUMNS, is_gone, query

Connect = Callable[..., Connection]


@pytest.fixture
def driver(proxy: Proxy) -> Any:
    """Return a connection of MySQL's own driver for Python."""
    connector = find_module("mysql.connector", "mysql-connector-python")
    connection = connector.connect(
        host="127.0.0.1", port=proxy.port, user="root@sys#ob1", use_pure=True, ssl_disabled=True, connection_timeout=10
    )
    yield connection
    connection.close()


def run(driver: Any, statement: str, *values: object) -> list[tuple[Any, ...]]:
    """Prepare and execute a statement, and return its rows."""
    with driver.cursor(prepared=True) as cursor:
        cursor.execute(statement, values)
        return list(cursor.fetchall()) if cursor.with_rows else []


def error_of(driver: Any, statement: str, *values: object) -> int:
    """Return the number of the error that a statement ends with."""
    connector = find_module("mysql.connector", "mysql-connector-python")
    with pytest.raises(connector.Error) as caught:
        run(driver, statement, *values)
    return int(caught.value.errno)


def test_lists(driver: Any, connect: Connect) -> None:
    """Lists come as binary rows, with the values that their texts have."""
    client = connect()
    assert run(driver, "SHOW PROXYSESSION") == query(client, "SHOW PROXYSESSION")
    of_client = run(driver, "SHOW PROXYSESSION ATTRIBUTE ? LIKE ?", client.thread_id(), "cs_id")
    assert of_client == [("cs_id", str(client.thread_id()), "cs common")]
    assert run(driver, "SHOW PROXYSESSION ATTRIBUTE ? LIKE 'cs_id'", str(client.thread_id())) == of_client
    listed = run(driver, "SHOW PROCESSLIST")
    assert {client.thread_id(), driver.connection_id} <= {row[0] for row in listed}


def test_kills(driver: Any, connect: Connect) -> None:
    """Kills take their ids as parameters."""
    client, other = connect(), connect()
    assert run(driver, "KILL QUERY ?", client.thread_id()) == []
    assert query(client, "SELECT 1") == [(1,)]
    assert run(driver, "KILL ?", client.thread_id()) == []
    assert is_gone(client)
    assert error_of(driver, "KILL ?", client.thread_id()) == 1094
    ss_id = run(driver, "SHOW PROXYSESSION ATTRIBUTE ? LIKE 'ss_id'", other.thread_id())[0][1]
    assert error_of(driver, "KILL PROXYSESSION ? ?", other.thread_id(), 999_999) == 1094
    assert run(driver, "KILL PROXYSESSION ? ?", other.thread_id(), int(ss_id)) == []
    assert query(other, "SELECT 1") == [(1,)]
    assert run(driver, "KILL PROXYSESSION ?", str(other.thread_id())) == []
    assert is_gone(other)
    assert error_of(driver, "KILL PROXYSESSION ?", driver.connection_id) == 1317


def test_wrong_parameters(driver: Any) -> None:
    """What is no integer is 1210, and the session goes on."""
    for value in ("x", None, 1.5):
        assert error_of(driver, "KILL ?", value) == 1210
    assert run(driver, "SELECT ?", 1) == [(1,)]


def test_raw(proxy: Proxy) -> None:
    """The answer to COM_STMT_PREPARE has the counts and the definitions; statements of the server's live beside it."""
    with RawClient(proxy.port) as client:
        client.login("root@sys#ob1")
        numbers = []
        for text in ("SHOW PROXYSESSION", "SELECT 1", "KILL ?", "SELECT ?"):
            client.send(bytes((COM_STMT_PREPARE,)) + text.encode())
            reader = PrepareReader(client.capabilities)
            while not reader.receive(client.read_packet().payload):
                pass
            assert reader.error is None
            if text == "SHOW PROXYSESSION":
                assert (reader.columns, reader.parameters) == (len(COLUMNS), 0)
            if text == "KILL ?":
                assert (reader.columns, reader.parameters) == (0, 1)
            numbers.append(reader.number)
        assert len(set(numbers)) == 4
        client.send(bytes((COM_STMT_EXECUTE,)) + numbers[0].to_bytes(4, "little") + b"\0\1\0\0\0")
        assert client.read_packet().payload == bytes((len(COLUMNS),))
        columns = [parse_column_definition(client.read_packet().payload) for _ in COLUMNS]
        assert tuple(column.name for column in columns) == COLUMNS
        assert client.read_packet().payload[:1] == b"\xfe"
        row = parse_binary_row(client.read_packet().payload, columns)
        assert row[4] == b"root"
