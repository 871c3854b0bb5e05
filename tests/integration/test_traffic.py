"""Ordinary traffic of ordinary clients through the proxy, before both servers."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pymysql
import pytest
from pymysql.connections import Connection
from pymysql.constants import CLIENT

from tests.integration.conftest import Connect
from tests.support.raw_client import RawClient
from tests.support.servers import Proxy, Server, find_module
from tests.support.sessions import attributes, connection_id, error_of, query, sessions

COM_STATISTICS = b"\x09"
COM_FIELD_LIST = b"\x04"
LONGEST_PAYLOAD = 0xFFFFFF


def test_statements(connect: Connect, direct: Connection) -> None:
    """Rows, counts, insert ids, errors and transactions come through as they are."""
    query(direct, "DROP TABLE IF EXISTS test.t")
    client = connect(database="test", autocommit=False)
    query(client, "CREATE TABLE t (id INT PRIMARY KEY AUTO_INCREMENT, text VARCHAR(100))")
    with client.cursor() as cursor:
        assert cursor.execute("INSERT INTO t (text) VALUES (%s), (%s)", ("ä\0'\"\\", "漢字🦊")) == 2
        assert cursor.lastrowid == 1
    client.rollback()
    assert query(client, "SELECT COUNT(*) FROM t") == [(0,)]
    with client.cursor() as cursor:
        cursor.executemany("INSERT INTO t (text) VALUES (%s)", [(f"row {number}",) for number in range(1000)])
    client.commit()
    assert len(query(direct, "SELECT * FROM test.t")) == 1000
    assert error_of(client, "SELECT * FROM nowhere")[0] == 1146
    assert error_of(client, "SELEC 1")[0] == 1064
    assert query(client, "SELECT NULL, '', 1.5, CAST('2026-01-02' AS DATE)")[0][:2] == (None, "")
    assert sessions(client)[client.thread_id()]["trans_count"] >= 2


def test_unbuffered(connect: Connect) -> None:
    """A client may read a result row by row."""
    client = connect(cursorclass=pymysql.cursors.SSCursor)
    with client.cursor() as cursor:
        cursor.execute("SELECT 1 UNION ALL SELECT 2 UNION ALL SELECT 3")
        assert cursor.fetchone() == (1,)
        assert cursor.fetchone() == (2,)
    assert query(client, "SELECT 4") == [(4,)]


def test_several_results(connect: Connect, direct: Connection) -> None:
    """Texts of several statements and procedures with several result sets are followed to their end."""
    client = connect(database="test", client_flag=CLIENT.MULTI_STATEMENTS)
    with client.cursor() as cursor:
        cursor.execute("SELECT 1; SET @a = 2; SELECT @a, 3; DO 0; SELECT 4")
        results = [tuple(cursor.fetchall())]
        while cursor.nextset():
            results.append(tuple(cursor.fetchall()))
        assert results == [((1,),), (), ((2, 3),), (), ((4,),)]
        cursor.execute("SELECT 1; SELECT * FROM nowhere; SELECT 2")
        with pytest.raises(pymysql.MySQLError, match="nowhere"):
            cursor.nextset()
    assert query(client, "SELECT 5") == [(5,)]
    query(client, "DROP PROCEDURE IF EXISTS two", "CREATE PROCEDURE two() BEGIN SELECT 1; SELECT 2, 3; END")
    with client.cursor() as cursor:
        cursor.callproc("two")
        assert cursor.fetchall() == ((1,),)
        assert cursor.nextset()
        assert cursor.fetchall() == ((2, 3),)
    assert query(client, "SELECT 6") == [(6,)]


@pytest.mark.parametrize("size", [0, 10, 2_000_000])
def test_load_data_local(size: int, connect: Connect, tmp_path: Path) -> None:
    """The server may ask the client for a file, of whatever size."""
    file = tmp_path / "rows.csv"
    file.write_text("".join(f"{number}\n" for number in range(size // 8)))
    client = connect(database="test", local_infile=True)
    query(client, "DROP TABLE IF EXISTS loaded", "CREATE TABLE loaded (id INT PRIMARY KEY)")
    query(client, f"LOAD DATA LOCAL INFILE '{file}' INTO TABLE loaded")
    assert query(client, "SELECT COUNT(*) FROM loaded") == [(size // 8,)]
    with pytest.raises(pymysql.MySQLError):
        query(client, f"LOAD DATA LOCAL INFILE '{tmp_path}/nothing' INTO TABLE loaded")
    assert query(client, "SELECT 1") == [(1,)]


@pytest.fixture
def connector(proxy: Proxy) -> Iterator[Any]:
    """Return a connection of mysql-connector-python, which prepares statements on the server."""
    module = find_module("mysql.connector", "mysql-connector-python")
    options = {"user": "root@sys#ob1", "use_pure": True, "ssl_disabled": True, "connection_timeout": 20}
    connection = module.connect(host="127.0.0.1", port=proxy.port, **options)
    yield connection
    connection.close()


def test_prepared(connector: Any) -> None:
    """Statements prepared on the server, with parameters of all kinds and a result in the binary protocol."""
    for turn in range(3):
        cursor = connector.cursor(prepared=True)
        cursor.execute("SELECT ? + 1, ?, ?, ?", (turn, "ä" * 300, None, 2.5))
        assert cursor.fetchall() == [(turn + 1, "ä" * 300, None, 2.5)]
        cursor.execute("SELECT ? + 1, ?, ?, ?", (turn, "b", 7, 1.5))
        assert cursor.fetchall()[0][:2] == (turn + 1, "b")
        cursor.close()
    with pytest.raises(Exception, match="nowhere"):
        connector.cursor(prepared=True).execute("SELECT * FROM test.nowhere WHERE a = ?", (1,))


def test_session_commands(connector: Any) -> None:
    """Init DB, ping, reset and change user work, and the proxy knows what they leave."""
    cursor = connector.cursor()

    def ask(statement: str) -> list[Any]:
        cursor.execute(statement)
        return cursor.fetchall()

    [row] = ask("SHOW PROXYSESSION")
    assert row[6] == "NULL"
    connector.cmd_init_db("test")
    assert ask("SHOW PROXYSESSION")[0][6] == "test"
    ask("SET @a = 5")
    connector.cmd_ping()
    assert ask("SELECT @a, DATABASE()") == [(5, "test")]
    connector.cmd_reset_connection()
    assert ask("SELECT @a") == [(None,)]
    ask("SET @a = 6")
    connector.cmd_change_user("root@sys#ob1", database="information_schema")
    assert ask("SELECT @a, DATABASE()") == [(None, "information_schema")]
    assert ask("SHOW PROXYSESSION")[0][6] == "information_schema"
    connector.cmd_change_user("root@sys#ob1")
    assert ask("SELECT 1") == [(1,)]


def test_change_user_to_another(connector: Any, direct: Connection, connect: Connect) -> None:
    """COM_CHANGE_USER to an account with a password makes the session that account's, in lists and for kills."""
    query(direct, "DROP USER IF EXISTS 'walter'@'%'", "CREATE USER 'walter'@'%' IDENTIFIED BY 'secret'")
    connector.cmd_change_user("walter@sys#ob1", "secret")
    root = connect()
    assert {row["User"] for row in sessions(root).values()} == {"root", "walter"}
    cursor = connector.cursor()
    cursor.execute("SELECT CURRENT_USER()")
    assert cursor.fetchall()[0][0].startswith("walter@")
    cursor.execute("SHOW PROXYSESSION")
    assert [row[4] for row in cursor.fetchall()] == ["walter"], "the rights of root have not gone"


def test_rare_commands(proxy: Proxy, direct: Connection) -> None:
    """COM_STATISTICS, COM_FIELD_LIST, unknown commands and pipelined ones are answered in order."""
    query(direct, "CREATE TABLE IF NOT EXISTS test.fields (one INT, two INT)")
    with RawClient(proxy.port) as client:
        client.login("root@sys#ob1", database="test")
        for _ in range(2):
            client.send(COM_STATISTICS)
            assert len(client.read_packet().payload) > 10
        client.send(COM_FIELD_LIST + b"fields\0%")
        definitions = [client.read_packet().payload for _ in range(3)]
        assert b"one" in definitions[0]
        assert b"two" in definitions[1]
        assert definitions[2][0] == 0xFE
        client.send(COM_FIELD_LIST + b"nowhere\0")
        assert client.read_error().code == 1146
        client.send(b"\x30")
        assert client.read_error().code == 1047
        texts = ["SELECT 1", "SHOW PROXYSESSION", "SELECT 2", "SET @a = 1", "SELECT @a + 2"]
        for text in texts:
            client.send(b"\x03" + text.encode())
        results = [client.read_result() for _ in texts]
        assert [results[index].rows for index in (0, 2, 4)] == [[(b"1",)], [(b"2",)], [(b"3",)]]


def test_large_packets(connect: Connect, direct: Connection) -> None:
    """Statements and rows of 16 MiB and more, and of exactly n times the longest payload, pass both ways."""
    query(direct, "SET GLOBAL max_allowed_packet = 67108864")
    client = connect(max_allowed_packet=1 << 26)
    frame = len("SELECT LENGTH('')") + 1
    for size in LONGEST_PAYLOAD - frame, LONGEST_PAYLOAD - frame + 1, 2 * LONGEST_PAYLOAD - frame, 40_000_000:
        assert query(client, f"SELECT LENGTH('{'x' * size}')") == [(size,)]
    for size in LONGEST_PAYLOAD - 4, LONGEST_PAYLOAD - 3, 2 * LONGEST_PAYLOAD - 9, 40_000_000:
        [[text]] = query(client, f"SELECT REPEAT('y', {size})")
        assert len(text) == size
        assert text.strip("y") == ""
    assert query(client, "SELECT 1") == [(1,)]


def test_passwords(connect: Connect, proxy: Proxy, direct: Connection, server: Server) -> None:
    """An account with a password logs in; a wrong one gets the server's refusal, with the host that seekdb hides."""
    query(direct, "DROP USER IF EXISTS 'walter'@'%'", "CREATE USER 'walter'@'%' IDENTIFIED BY 'secret'")
    assert query(connect("walter", password="secret"), "SELECT CURRENT_USER()")[0][0].startswith("walter@")
    for password in "wrong", "":
        refusals = []
        for attempt in proxy.connect, lambda user, password: server.connect(user, password=password):
            with pytest.raises(pymysql.MySQLError) as refused:
                attempt("walter", password=password)
            refusals.append(refused.value.args)
        code, text = refusals[1]
        assert refusals[0] == (code, text.replace("xxx.xxx.xxx.xxx", "127.0.0.1"))
        assert code == 1045
    assert len(sessions(connect())) == 2
    with pytest.raises(pymysql.MySQLError, match="1049"):
        connect(database="nowhere")


def test_command_line_client(mariadb_client: str, proxy: Proxy, server: Server, direct: Connection) -> None:
    """The `mariadb` client logs in with its options, also by ed25519 before MariaDB."""
    users = {"root": ""}
    if server.name == "mariadb":
        query(direct, "INSTALL PLUGIN IF NOT EXISTS ed25519 SONAME 'auth_ed25519'")
        query(direct, "CREATE OR REPLACE USER ed IDENTIFIED VIA ed25519 USING PASSWORD('secret')")
        users["ed"] = "secret"
    for user, password in users.items():
        for option in "--batch", "--quick", "--compress":
            account = [f"--user={user}@sys#ob1", f"--password={password}"]
            options = [*account, option, "-N", "-e", "SELECT 41 + 1; SHOW PROXYSESSION ATTRIBUTE LIKE 'user'"]
            command = [mariadb_client, "--no-defaults", "-h127.0.0.1", f"-P{proxy.port}", *options]
            done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
            assert (done.returncode, done.stderr) == (0, "")
            assert done.stdout.split() == ["42", "user", user, "cs", "common"]


def test_attributes_follow(connect: Connect) -> None:
    """ATTRIBUTE counts what a session changes: variables, databases, pick-ups."""
    client = connect()
    before = attributes(client)
    query(client, "USE test", "SET @a = 1", "SET autocommit = 0", "SET autocommit = 1", "SET sort_buffer_size = 99999")
    after = attributes(client)
    for name in "db_name_version", "user_var_version", "hot_sys_var_version", "sys_var_version", "transact_count":
        assert int(after[name]) > int(before[name]), name
    assert after["server_sessid"] == str(connection_id(client))
