"""What is as big as it can be, and what clients rarely send: the same through the proxy as without it.

Where a server does something that its clients cannot expect (it hangs up on a command that is cut), the proxy answers
with an error, and the session goes on.
"""

from __future__ import annotations

import re
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pymysql
import pytest
from pymysql.connections import Connection

from odptwist.answers import Column, ColumnType, Table
from odptwist.wire.constants import (
    COM_DEBUG,
    COM_PING,
    COM_PROCESS_INFO,
    COM_QUERY,
    COM_REFRESH,
    COM_SET_OPTION,
    COM_SHUTDOWN,
    COM_STATISTICS,
    COM_STMT_EXECUTE,
    COM_STMT_FETCH,
    COM_STMT_PREPARE,
    MAX_PAYLOAD,
)
from odptwist.wire.framing import frame
from odptwist.wire.responses import is_eof, parse_err
from tests.integration.conftest import Connect
from tests.support.proxy_process import ScriptedServerProcess
from tests.support.raw_client import Closed, RawClient
from tests.support.scripted_server import Script
from tests.support.servers import (
    Background,
    MariaDb,
    Proxy,
    Seekdb,
    Server,
    TcpServer,
    find_module,
    find_program,
    wait_until,
)
from tests.support.sessions import query

MIB = 1 << 20
ROOT = "root@sys#ob1"


@pytest.fixture(scope="module")
def roomy(server: Server) -> Iterator[None]:
    """Make the server take packets of 128 MiB."""
    with server.connect() as root:
        before = query(root, "SELECT @@global.max_allowed_packet")[0][0]
        query(root, f"SET GLOBAL max_allowed_packet = {128 * MIB}")
        yield
        query(root, f"SET GLOBAL max_allowed_packet = {before}")


def raw_direct(server: Server) -> RawClient:
    """Return a client of the server itself that has logged in."""
    if isinstance(server, Seekdb):
        client = RawClient(0, path=server.socket)
    else:
        assert isinstance(server, TcpServer)
        client = RawClient(server.port)
    client.login()
    return client


def raw(proxy: Proxy, **more: Any) -> RawClient:
    """Return a client of the proxy that has logged in."""
    client = RawClient(proxy.port, **more)
    client.login(ROOT)
    return client


def settings_file(directory: Path, server: Server, tables: str) -> str:
    """Return the path of a settings file for a server, with these tables."""
    path = directory / "odp.toml"
    path.write_text(f'server = "{server.address}"\ncluster_name = "ob1"\n{tables}')
    return str(path)


# -- big ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("more", [-1, 0, 1])
@pytest.mark.parametrize("fragments", [1, 2])
def test_whole_fragments(fragments: int, more: int, roomy: None, connect: Connect) -> None:
    """Statements and rows of exactly n times the longest fragment, and of one byte more or less, pass both ways."""
    size = fragments * MAX_PAYLOAD + more
    text = "SELECT LENGTH('{}')"
    held = size - 1 - len(text.format(""))  # the command byte
    value = size - (4 if size - 4 < 1 << 24 else 9)  # the length before it
    client = connect(max_allowed_packet=128 * MIB)
    assert query(client, text.format("x" * held)) == [(held,)]
    assert query(client, f"SELECT REPEAT('y', {value})") == [("y" * value,)]
    assert query(client, "SELECT 1") == [(1,)]


def test_row_of_64_mib(
    server: Server, roomy: None, proxy: Proxy, connect: Connect, figure: Callable[[str], None]
) -> None:
    """A row of 64 MiB and a long statement pass, and the proxy never has more than a few chunks of them."""
    # seekdb needs sixteen times a literal's size, of memory that it has only a part of 2 GiB of.
    longest = (24 if isinstance(server, Seekdb) else 64) * MIB
    client = connect(max_allowed_packet=128 * MIB)
    query(client, f"SELECT REPEAT('z', {MIB})")
    proxy.child.forget_peak()
    before = proxy.child.memory()
    assert query(client, f"SELECT REPEAT('z', {64 * MIB})") == [("z" * (64 * MIB),)]
    row = proxy.child.memory("VmHWM") - before
    assert query(client, f"SELECT LENGTH('{'z' * longest}')") == [(longest,)]
    statement = proxy.child.memory("VmHWM") - before
    figure(f"64 MiB: the proxy's memory rises by {row} KiB for a row, {statement} KiB for a statement")
    assert max(row, statement) < 4 * 1024


@pytest.mark.parametrize("count", [251, 4096, 10_000, 65_536])
def test_many_columns(count: int, connect: Connect) -> None:
    """A result may have more columns than a table can have."""
    names = ",".join(map(str, range(count)))
    assert query(connect(), f"SELECT {names}") == [tuple(range(count))]


def test_many_columns_of_a_scripted_server(start_proxy: Callable[..., Proxy]) -> None:
    """10,000 columns pass in the old framing, with an exchange after them."""
    wide = Table(tuple(Column(f"c{n}", ColumnType.LONGLONG) for n in range(10_000)), (tuple(range(10_000)),))
    peer = ScriptedServerProcess()
    try:
        peer.follow(Script(answers={"SELECT wide": wide}))
        proxy = start_proxy("--server", f"127.0.0.1:{peer.port}", "--cluster-name", "ob1")
        with raw(proxy) as client:
            assert client.query("SELECT wide").rows == [tuple(b"%d" % n for n in range(10_000))]
            assert client.query("SELECT 1").rows == [(b"1",)]
    finally:
        peer.stop()


def test_announced_and_not_sent(proxy: Proxy, connect: Connect, figure: Callable[[str], None]) -> None:
    """Clients that announce 16 MiB and send nothing, or a little of it, cost next to nothing and disturb nobody."""
    watch = connect()
    proxy.child.forget_peak()
    before = proxy.child.memory()
    waiting = [raw(proxy) for _ in range(50)]
    for number, client in enumerate(waiting):
        client.send_raw(b"\xff\xff\xff\0" + b"\x03SELECT '"[:number] + bytes(1000 * (number % 2)))
    assert query(watch, "SELECT 1") == [(1,)]
    figure(f"50 clients that announce 16 MiB each: {proxy.child.memory('VmHWM') - before} KiB, their sessions included")
    assert proxy.child.memory("VmHWM") - before < 4 * 1024
    for client in waiting:
        number = client.greeting.thread_id if client.greeting is not None else 0
        query(watch, f"KILL {number}")
        assert client.is_closed()


def test_announced_and_not_sent_for_too_long(server: Server, start_proxy: Callable[..., Proxy], tmp_path: Path) -> None:
    """The limit for idle sessions ends one that has sent a header; that for statements one that has begun to."""
    limits = "[limits]\nwait_timeout = 0.5\nmax_statement_time = 0.5\n"
    proxy = start_proxy("--config", settings_file(tmp_path, server, limits))
    for sent in (b"\xff\xff\xff\0", b"\xff\xff\xff\0\x03SELECT '" + b"x" * 100_000):
        with raw(proxy) as client:
            began = time.monotonic()
            client.send_raw(sent)
            with suppress(Closed):
                client.read_packet()
            assert time.monotonic() - began < 5


# -- files -------------------------------------------------------------------------------------------------------------


def test_refused_files(server: Server, start_proxy: Callable[..., Proxy], tmp_path: Path) -> None:
    """With `local_infile = false` no file of a client is sent, whatever the client wants; `ALTER` changes that."""
    (tmp_path / "file").write_text("1\n2\n")
    load = f"LOAD DATA LOCAL INFILE '{tmp_path}/file' INTO TABLE odd_files"
    proxy = start_proxy("--config", settings_file(tmp_path, server, "[clients]\nlocal_infile = false\n"))
    with proxy.connect(local_infile=True) as client:
        query(client, "CREATE DATABASE IF NOT EXISTS test", "USE test", "DROP TABLE IF EXISTS odd_files")
        query(client, "CREATE TABLE odd_files (a INT)")
        with pytest.raises(pymysql.MySQLError) as caught:
            query(client, load)
        assert caught.value.args[0] in (3948, 4166, 1148)
        assert query(client, "SELECT COUNT(*) FROM odd_files") == [(0,)]
        query(client, "ALTER PROXYCONFIG SET clients.local_infile = true")
    with proxy.connect(local_infile=True, database="test") as client:
        query(client, load)
        assert query(client, "SELECT COUNT(*) FROM odd_files", "DROP TABLE odd_files") == []


# -- odd ---------------------------------------------------------------------------------------------------------------

# Commands that every server answers so that its clients can go on.
ODD = {
    "set option": bytes((COM_SET_OPTION, 0, 0)),
    "debug": bytes((COM_DEBUG,)),
    "refresh": bytes((COM_REFRESH, 1)),
    "unknown way to shut down": bytes((COM_SHUTDOWN, 0x99)),
    "fields without a database": b"\x04nosuch\0%",
    "no such database": b"\x02nosuch",
    "no such statement to execute": b"\x17\x63\0\0\0\0\1\0\0\0",
    "no such statement to fetch": b"\x1c\x63\0\0\0\1\0\0\0",
    "no such statement to reset": b"\x1a\x63\0\0\0",
    "no such binlog": b"\x12\4\0\0\0\1\0\x4d\0\0\0nofile",
    "half a request for a binlog": b"\x12",
    "registering of a replica": b"\x15\7\0\0\0" + bytes(15),
    "empty query": b"\x03",
    "empty prepare": b"\x16",
    "reset of the connection": b"\x1f",
    "kill of nobody": b"\x0c\x3f\x42\x0f\0",
}
# Commands that are cut, and those that nobody knows: seekdb hangs up on them.
CUT = {
    "set option": bytes((COM_SET_OPTION,)),
    "refresh": bytes((COM_REFRESH,)),
    "execute": b"\x17\1",
    "fetch": b"\x1c\1",
    "reset": b"\x1a",
    "kill": b"\x0c",
    "bulk execute": b"\xfa\1",
    "unknown": b"\x77",
    "clone": b"\x20",
    "several commands": b"\xfe",
    "sleep": b"\x00",
}
SILENT = {
    "close": b"\x19",
    "close of nothing": b"\x19\x63\0\0\0",
    "long data": b"\x18\1",
    "long data of nothing": b"\x18\x63\0\0\0\0\0x",
}


@pytest.mark.parametrize("command", [pytest.param(command, id=name) for name, command in ODD.items()])
def test_same_answer(command: bytes, proxy: Proxy, server: Server) -> None:
    """The first packet of the answer is the server's own, but for what is made right, and the session goes on."""
    with raw_direct(server) as direct, raw(proxy) as client:
        # One after the other: MariaDB ends a request for a binlog when another one has the same server id.
        direct.send(command)
        own = direct.read_packet().payload
        client.send(command)
        found = client.read_packet().payload
        if command[0] == COM_SET_OPTION:
            assert is_eof(found)
        elif own[0] == 0xFF:
            assert parse_err(found) == parse_err(own)
        else:
            assert found == own
        assert client.query("SELECT 7").rows == [(b"7",)]


@pytest.mark.parametrize("command", [pytest.param(command, id=name) for name, command in CUT.items()])
def test_cut_command(command: bytes, proxy: Proxy) -> None:
    """It gets an answer, mostly an error, and the session goes on."""
    with raw(proxy) as client:
        client.send(command)
        client.read_packet()
        assert client.query("SELECT 7").rows == [(b"7",)]


@pytest.mark.parametrize("command", [pytest.param(command, id=name) for name, command in SILENT.items()])
def test_command_without_an_answer(command: bytes, proxy: Proxy) -> None:
    """The next command is answered."""
    with raw(proxy) as client:
        client.send(command)
        assert client.query("SELECT 7").rows == [(b"7",)]


def test_lists_of_sessions(proxy: Proxy, server: Server) -> None:
    """COM_PROCESS_INFO and COM_STATISTICS are answered whole."""
    with raw(proxy) as client:
        client.send(bytes((COM_PROCESS_INFO,)))
        assert client.read_result().rows
        client.send(bytes((COM_STATISTICS,)))
        assert client.read_packet().payload
        assert client.query("SELECT 7").rows == [(b"7",)]


@pytest.mark.parametrize(
    ("sent", "code"),
    [
        pytest.param(frame(b"\x03SELECT 1", 5), 1156, id="sequence"),
        pytest.param(frame(b"", 0), 1835, id="empty"),
        pytest.param(frame(b"\x11root", 0), 1835, id="change of user, cut"),
        pytest.param(frame(b"\x11root\0\xffabc", 0), 1835, id="change of user, a length beyond its end"),
    ],
)
def test_broken_command(sent: bytes, code: int, proxy: Proxy) -> None:
    """An error with a number, and the end."""
    with raw(proxy) as client:
        client.send_raw(sent)
        assert parse_err(client.read_packet().payload).code == code
        assert client.is_closed()


def test_sent_ahead(proxy: Proxy, server: Server) -> None:
    """Commands of all kinds that are sent at once are answered in their order, as the server answers them."""
    commands = (b"\x03SELECT 1", b"\x0e", b"\x03nosuch", b"\x03DO 1", b"\x03SELECT 2, 3", b"\x19\x63\0\0\0", b"\x0d")
    stream = b"".join(frame(command, 0) for command in commands * 20)

    def answers(client: RawClient) -> list[bytes]:
        with client:
            client.send_raw(stream + frame(b"\x03SELECT 'end'", 0))
            found: list[bytes] = []
            while found[-1:] != [b"\x03end"]:
                found.append(client.read_packet().payload)
            return found

    assert answers(raw(proxy)) == answers(raw_direct(server))


def test_cursor(proxy: Proxy, server: Server) -> None:
    """Rows of a cursor come as many at a time as the client asks for, and as the server sends them."""

    def fetched(client: RawClient) -> list[list[bytes]]:
        def read(ends: int) -> list[bytes]:
            payloads: list[bytes] = []
            while ends:
                payload = client.read_packet().payload
                assert payload[0] != 0xFF, parse_err(payload)
                payloads.append(payload)
                ends -= is_eof(payload)
            return payloads

        with client:
            client.send(bytes((COM_STMT_PREPARE,)) + b"SELECT 1 AS a UNION SELECT 2 UNION SELECT 3 UNION SELECT 4")
            number = client.read_packet().payload[1:5]
            read(1)
            client.send(bytes((COM_STMT_EXECUTE,)) + number + b"\x01\1\0\0\0")
            read(1)
            pieces = []
            for rows in (1, 2, 5):
                client.send(bytes((COM_STMT_FETCH,)) + number + rows.to_bytes(4, "little"))
                pieces.append(read(1))
            client.send(bytes((COM_PING,)))
            assert client.read_packet().payload[0] == 0
            return [piece[:-1] for piece in pieces]

    found = fetched(raw(proxy))
    assert [len(rows) for rows in found] == [1, 2, 1]
    assert found == fetched(raw_direct(server))


def test_change_of_user_to_another_tenant(proxy: Proxy, direct: Connection) -> None:
    """A tenant that the settings do not know is refused; the session stays what it was, or ends, but never changes."""
    connector = find_module("mysql.connector", "mysql-connector-python")
    options = {"charset": "utf8mb4", "collation": "utf8mb4_general_ci", "use_pure": True}
    with connector.connect(host="127.0.0.1", port=proxy.port, user=ROOT, **options) as client:
        for user in ("root@other#ob1", "root@sys#nowhere", "root@proxysys"):
            with pytest.raises(connector.Error) as caught:
                client.cmd_change_user(user)
            assert caught.value.errno in (1045, 4669), user
            cursor = client.cursor()
            cursor.execute("SELECT CURRENT_USER()")
            assert cursor.fetchall()[0][0].startswith("root@")
            cursor.close()


# -- replication -------------------------------------------------------------------------------------------------------


@pytest.fixture
def logging_server(directory: Callable[[], Path]) -> Iterator[MariaDb]:
    """Return a MariaDB of its own with a binary log."""
    started = MariaDb(directory(), "log-bin=odd", "server-id=1")
    try:
        started.start()
        yield started
    finally:
        started.stop()


def test_binary_log(logging_server: MariaDb, start_proxy: Callable[..., Proxy], tmp_path: Path) -> None:
    """A binary log is read as without the proxy; a reader that waits for more ends by KILL; then COM_SHUTDOWN."""
    program = find_program("mariadb-binlog", "mariadb-client")
    proxy = start_proxy("--server", logging_server.address, "--cluster-name", "ob1")
    log = "odd.000001"

    def arguments(port: int, *more: str) -> list[str]:
        where = ["--no-defaults", "--read-from-remote-server", "--host=127.0.0.1", f"--port={port}"]
        return [program, *where, "--user=root", *more, log]

    def events(port: int) -> str:
        done = subprocess.run(arguments(port), capture_output=True, text=True, timeout=30, check=True)
        # The server's number of the session that reads is in a comment.
        return re.sub(r"^#.*\n", "", done.stdout, flags=re.MULTILINE)

    with proxy.connect() as client:
        query(client, "CREATE DATABASE odd", "CREATE TABLE odd.t (a INT, b LONGTEXT)")
        query(client, "SET SESSION binlog_format = 'ROW'", "INSERT INTO odd.t VALUES (1, REPEAT('x', 3000000))")
        assert events(proxy.port) == events(logging_server.port)
        reading = Background(
            subprocess.run, arguments(proxy.port, "--stop-never", f"--result-file={tmp_path}/", "--raw")
        )

        def readers() -> list[int]:
            return [row[1] for row in query(client, "SHOW FULL PROXYSESSION WHERE command = 'Binlog Dump'")]

        (reader,) = wait_until(readers, what="a reader")
        written = tmp_path / log
        wait_until(lambda: written.exists() and written.stat().st_size > 3_000_000, what="what is there")
        before = written.stat().st_size
        query(client, "INSERT INTO odd.t VALUES (2, 'more')")
        wait_until(lambda: written.stat().st_size > before, what="what comes")
        query(client, f"KILL {reader}")
        assert reading.result().returncode
        assert query(client, "SELECT COUNT(*) FROM odd.t") == [(2,)]
    with raw(proxy) as last:
        last.send(bytes((COM_SHUTDOWN, 0)))
        assert last.read_packet().payload[0] in (0x00, 0xFE)
    wait_until(lambda: not logging_server.runs, what="the server's end")
    with pytest.raises(pymysql.MySQLError):
        proxy.connect()


@pytest.mark.slow
def test_replica(
    logging_server: MariaDb, start_proxy: Callable[..., Proxy], directory: Callable[[], Path], opened: list[Connection]
) -> None:
    """A replica that knows the proxy as its primary follows, and is a session in the proxy's list."""
    proxy = start_proxy("--server", logging_server.address, "--cluster-name", "ob1")
    replica = MariaDb(directory(), "server-id=2", "skip-slave-start")
    try:
        replica.start()
        opened += [logging_server.connect(), replica.connect(), proxy.connect()]
        writer, reader, watch = opened
        query(writer, "CREATE DATABASE odd", "CREATE TABLE odd.t (a INT)")
        query(writer, "CREATE USER repl IDENTIFIED BY 'secret'", "GRANT REPLICATION SLAVE ON *.* TO repl")
        user = "master_user = 'repl@sys#ob1', master_password = 'secret'"
        where = f"master_host = '127.0.0.1', master_port = {proxy.port}, {user}"
        query(reader, f"CHANGE MASTER TO {where}, master_log_file = 'odd.000001', master_log_pos = 4", "START SLAVE")
        query(writer, "INSERT INTO odd.t VALUES (1)")

        def follows() -> bool:
            try:
                return query(reader, "SELECT a FROM odd.t") == [(1,)]
            except pymysql.MySQLError:
                return False

        wait_until(follows, what="the row at the replica")
        assert len(query(watch, "SHOW FULL PROXYSESSION WHERE command = 'Binlog Dump'")) == 1
        query(reader, "STOP SLAVE")
    finally:
        replica.stop()


def test_slow_client_that_is_not_waited_for(proxy: Proxy) -> None:
    """A client whose command comes byte by byte is answered when it is whole, and nobody waits for it."""
    with raw(proxy) as slow, raw(proxy) as other:
        for byte in frame(bytes((COM_QUERY,)) + b"SELECT 'slow'", 0):
            slow.send_raw(bytes((byte,)))
            began = time.monotonic()
            assert other.query("SELECT 1").rows == [(b"1",)]
            assert time.monotonic() - began < 2
        assert slow.read_result().rows == [(b"slow",)]
