"""Compressed packets, with real clients and real servers.

MariaDB and seekdb compress with zlib only, and no client here uses zstd: there a client and a server of the tests'
own stand in.
"""

from __future__ import annotations

import subprocess
import time
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

pymysql = pytest.importorskip("pymysql")

from odptwist.wire.constants import (  # noqa: E402
    CLIENT_LOCAL_FILES,
    CLIENT_MULTI_STATEMENTS,
    COM_PING,
    COM_QUERY,
)
from odptwist.wire.framing import frame  # noqa: E402
from odptwist.wire.handshake import ChangeUser  # noqa: E402
from odptwist.wire.responses import Ok, parse_err, parse_ok  # noqa: E402
from tests.support.compressed_peers import CompressedClient, CompressedServer  # noqa: E402
from tests.support.encrypted import settings, trusting  # noqa: E402
from tests.support.proxy_process import ScriptedServerProcess  # noqa: E402
from tests.support.raw_client import CAPABILITIES, Closed, RawClient  # noqa: E402
from tests.support.scripted_server import LoggedIn, On, Script, Step, StopReading, When  # noqa: E402
from tests.support.servers import MariaDb, Proxy, Server, find_module, wait_until  # noqa: E402
from tests.support.sessions import Stall, query  # noqa: E402

USER = "root@sys#ob1"
MIB = 1 << 20


@pytest.fixture(scope="module", params=["off", "zlib"])
def proxy(request: pytest.FixtureRequest, server: Server, directory: Callable[[], Path]) -> Iterator[Proxy]:
    """Return a proxy that offers compression to clients, and compresses with its server or not.

    `test.thousands` on its server has 2,000 rows.
    """
    base = directory()
    (base / "odp.toml").write_text(settings(server, f'server_compression = "{request.param}"'))
    running = Proxy(base, "--config", str(base / "odp.toml"))
    try:
        with server.connect() as root:
            query(root, "CREATE DATABASE IF NOT EXISTS test", "SET GLOBAL max_allowed_packet = 134217728")
            query(root, "DROP TABLE IF EXISTS test.thousands", "CREATE TABLE test.thousands (a INT)")
            query(
                root,
                f"INSERT INTO test.thousands VALUES {', '.join(f'({number})' for number in range(2000))}",
                "COMMIT",
            )
        yield running
    finally:
        running.stop()


@pytest.fixture
def client(proxy: Proxy, request: pytest.FixtureRequest) -> Iterator[CompressedClient]:
    """Return a client that has logged in and compresses: with zstd, or as the proxy does with its server."""
    algorithm = "zlib" if "zlib" in request.node.callspec.id else "zstd"
    if algorithm == "zstd":
        pytest.importorskip("zstandard")
    with CompressedClient(proxy.port, algorithm, timeout=60) as made:
        capabilities = CAPABILITIES | CLIENT_MULTI_STATEMENTS | CLIENT_LOCAL_FILES
        assert isinstance(made.login(USER, database="test", capabilities=capabilities), Ok)
        yield made


def execute(client: RawClient, text: str) -> Ok:
    """Run a statement without a result."""
    client.send(bytes((COM_QUERY,)) + text.encode())
    payload = client.read_packet().payload
    assert payload[0] == 0, parse_err(payload)
    return parse_ok(payload, client.capabilities)


# -- the drivers ------------------------------------------------------------------------------------------------------


def run_program(program: str, proxy: Proxy, *options: str, text: str) -> str:
    """Run the mariadb program, which must succeed, and return what it prints."""
    where = ("--no-defaults", "--host=127.0.0.1", f"--port={proxy.port}", f"--user={USER}", "--batch")
    command = [program, *where, "--skip-column-names", *options]
    done = subprocess.run(command, input=text, capture_output=True, text=True, timeout=120, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def test_mariadb_program(mariadb_client: str, proxy: Proxy, tmp_path: Path) -> None:
    """The program: small and large results, several results, a file, a proxy statement, a large statement."""
    rows = tmp_path / "rows"
    rows.write_text("".join(f"{number}\t{'text ' * 20}\n" for number in range(50_000)))
    text = f"""
        SELECT 1 + 1;
        CREATE OR REPLACE TABLE loaded (a INT, b VARCHAR(200));
        LOAD DATA LOCAL INFILE '{rows}' INTO TABLE loaded;
        SELECT COUNT(*), SUM(a), SUM(LENGTH(b)) FROM loaded;
        SELECT LENGTH('{"x" * 5_000_000}');
        SELECT COUNT(*) > 0 FROM proxysession;
        DROP TABLE loaded;
    """.replace("CREATE OR REPLACE", "DROP TABLE IF EXISTS loaded; CREATE")
    said = run_program(
        mariadb_client, proxy, "--compress", "--local-infile", "--max-allowed-packet=64M", "test", text=text
    )
    assert said.split() == ["2", "50000", "1249975000", "5000000", "5000000", "1"]
    together = run_program(mariadb_client, proxy, "--compress", "--delimiter=//", text="SELECT 1; SELECT 2; SELECT 3//")
    assert together.split() == ["1", "2", "3"]
    long = run_program(mariadb_client, proxy, "--compress", "--quick", text="SELECT REPEAT('ab', 5000000);")
    assert long == "ab" * 5_000_000 + "\n"


def test_connector_python(proxy: Proxy) -> None:
    """mysql-connector-python: results of one long row and of many, prepared statements, large parameters, errors."""
    connector = find_module("mysql.connector", "mysql-connector-python")
    options = {"host": "127.0.0.1", "port": proxy.port, "user": USER, "database": "test"}
    connection = connector.connect(**options, compress=True, use_pure=True)
    cursor = connection.cursor()
    cursor.execute("SELECT REPEAT('ab', 6000000), 1")
    assert cursor.fetchall() == [("ab" * 6_000_000, 1)]
    cursor.execute("DROP TABLE IF EXISTS many")
    cursor.execute("CREATE TABLE many (a INT PRIMARY KEY, b VARCHAR(100))")
    rows = [(number, "text " * (number % 20)) for number in range(20_000)]
    cursor.executemany("INSERT INTO many VALUES (%s, %s)", rows)
    connection.commit()
    cursor.execute("SELECT a, b FROM many ORDER BY a")
    assert cursor.fetchall() == rows
    with pytest.raises(connector.Error, match="nowhere"):
        cursor.execute("SELECT * FROM nowhere")
    cursor.execute("DROP TABLE many")
    cursor.close()
    cursor = connection.cursor(prepared=True)
    for number in 1, 2:
        cursor.execute("SELECT LENGTH(?), ?", ("x" * 3_000_000, number))
        assert cursor.fetchall() == [(3_000_000, number)]
    cursor.close()
    connection.close()


def test_plain_client(proxy: Proxy) -> None:
    """PyMySQL, which does not compress and is strict about numbers, does not notice what is behind the proxy."""
    with proxy.connect(database="test", client_flag=CLIENT_MULTI_STATEMENTS) as connection:
        assert len(query(connection, "SELECT REPEAT('ab', 6000000)")[0][0]) == 12_000_000
        with connection.cursor() as cursor:
            cursor.execute("SELECT 1; SELECT 2, REPEAT('x', 100000); SELECT 3")
            found = [cursor.fetchall()[0][0]]
            while cursor.nextset():
                found.append(cursor.fetchall()[0][0])
        assert found == [1, 2, 3]
        query(connection, "SET @a = 5")
        assert query(connection, "SELECT @a") == [(5,)]


def test_server_really_compresses(mariadb: Server, start_with: Callable[[str], Proxy]) -> None:
    """MariaDB says itself whether it compresses; zstd it does not offer, and then nothing is compressed."""
    for word, compresses in ("off", "OFF"), ("zlib", "ON"), ("preferred", "ON"), ("zstd", "OFF"):
        if word == "zstd":
            pytest.importorskip("zstandard")
        proxy = start_with(settings(mariadb, f'server_compression = "{word}"'))
        with proxy.connect() as connection:
            assert query(connection, "SHOW STATUS LIKE 'Compression'") == [("Compression", compresses)]


# -- what passes ------------------------------------------------------------------------------------------------------


def test_results(client: CompressedClient) -> None:
    """Results of all sizes come with exact numbers, and smaller than they are."""
    for size in 0, 1, 49, 50, 1000, 65_535, 262_144, 20 * MIB:
        assert client.query(f"SELECT REPEAT('x', {size})").rows == [(b"x" * size,)]
    assert client.channel is not None
    assert client.channel.raw < MIB
    assert client.greeting is not None
    found = client.query(f"SELECT compression FROM proxysession WHERE Id = {client.greeting.thread_id}").rows
    assert found in ([(b"zlib",)], [(b"zstd",)])
    rows = client.query("SELECT REPEAT('y', 500) FROM thousands").rows
    assert rows == [(b"y" * 500,)] * 2000
    error = client.query("SELECT nothing").error
    assert error is not None
    assert client.query("SELECT 1").rows == [(b"1",)]


def test_40_mib(client: CompressedClient) -> None:
    """A result of 40 MiB in one value, and a statement of 40 MiB, of three fragments each."""
    assert client.query(f"SELECT REPEAT('z', {40 * MIB})").rows == [(b"z" * (40 * MIB),)]
    assert client.query(f"SELECT LENGTH('{'w' * (40 * MIB)}')").rows == [(b"%d" % (40 * MIB),)]
    assert client.query("SELECT 1").rows == [(b"1",)]


def test_exact_sizes(client: CompressedClient) -> None:
    """Commands around the sizes at which packets, inside and outside, are split."""
    text = "SELECT LENGTH('{}')"
    for size in 0xFFFFFF - 5, 0xFFFFFF - 4, 0xFFFFFF - 1, 0xFFFFFF, 0xFFFFFF + 1, 2 * 0xFFFFFF:
        fill = size - 1 - len(text.format(""))
        assert client.query(text.format("v" * fill)).rows == [(b"%d" % fill,)], size
        assert client.query("SELECT 1").rows == [(b"1",)]


def test_sent_ahead(client: CompressedClient) -> None:
    """Commands that are sent ahead, the proxy's own among them, are answered one by one, with exact numbers."""
    texts = ["SELECT 1", "SHOW PROXYSESSION", "SELECT REPEAT('x', 100000)", "SET @a = 1", "SELECT @a"] * 3
    assert client.channel is not None
    for text in texts:
        client.send(bytes((COM_QUERY,)) + text.encode())
    client.send(bytes((COM_PING,)))
    for text in texts:
        client.channel.number = 1
        if text.startswith("SET"):
            assert client.read_packet().payload[0] == 0
        else:
            assert len(client.read_result().rows) > 0
    client.channel.number = 1
    assert client.read_packet().payload[0] == 0


def test_file(client: CompressedClient, tmp_path: Path) -> None:
    """LOAD DATA LOCAL, also behind another result, in many small and in few large packets."""
    query_text = "LOAD DATA LOCAL INFILE 'file' INTO TABLE files"
    execute(client, "DROP TABLE IF EXISTS files")
    execute(client, "CREATE TABLE files (a INT, b VARCHAR(200))")
    line = b"7\t" + b"text " * 30 + b"\n"
    for before, lines, packets in ("", 10, 600), ("", 50_000, 2), ("SELECT 1, REPEAT('x', 100000);", 100, 3):
        execute(client, "DELETE FROM files")
        client.send(bytes((COM_QUERY,)) + (before + query_text).encode())
        payload = client.read_packet().payload
        while payload[0] != 0xFB:
            payload = client.read_packet().payload
        number = client.sequence
        for _ in range(packets):
            number = (number + 1) & 0xFF
            client.send_raw(frame(line * lines, number))
        client.send_raw(frame(b"", (number + 1) & 0xFF))
        answer = client.read_packet().payload
        assert answer[0] == 0, parse_err(answer)
        assert client.query("SELECT COUNT(*), SUM(LENGTH(b)) FROM files").rows == [
            (b"%d" % (lines * packets), b"%d" % (150 * lines * packets))
        ]
    execute(client, "DROP TABLE files")


def test_another_user(client: CompressedClient) -> None:
    """COM_CHANGE_USER asks and answers in compressed packets, and the session goes on in them."""
    execute(client, "SET @a = 1")
    change = ChangeUser(USER, b"", "test", 45, "mysql_native_password")
    client.send(change.encode(CAPABILITIES))
    answer = client.read_packet()
    if answer.payload[0] == 0xFE:
        client.send_raw(frame(b"", answer.sequence + 1))
        answer = client.read_packet()
    assert answer.payload[0] == 0, parse_err(answer.payload)
    assert client.query("SELECT DATABASE(), @a").rows == [(b"test", None)]


# -- zstd with a server -----------------------------------------------------------------------------------------------


def test_zstd_server(start_with: Callable[[str], Proxy]) -> None:
    """A server that offers zstd is talked to so, at the level of the settings, and finds all numbers right."""
    pytest.importorskip("zstandard")
    server = CompressedServer("zstd")
    try:
        text = settings(server, 'server_compression = "preferred"')  # type: ignore[arg-type]
        proxy = start_with("[compression]\nzstd_level = 7\n" + text)
        with proxy.connect(client_flag=CLIENT_MULTI_STATEMENTS) as connection:
            for size in 1, 100, MIB, 20 * MIB:
                assert query(connection, f"SELECT {size}") == [("c" * size,)]
            with connection.cursor() as cursor:
                assert cursor.execute(f"INSERT '{'x' * (20 * MIB)}'") == 20 * MIB + 10
        with CompressedClient(proxy.port, "zlib", timeout=30) as client:
            client.login(USER)
            assert client.query(f"SELECT {5 * MIB}").rows == [(b"c" * (5 * MIB),)]
        assert {response.zstd_level for response in server.responses if response.user == "root"} == {7}
        assert server.fault is None
    finally:
        server.stop()


# -- with TLS ---------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def safe_server(directory: Callable[[], Path], files: Path) -> Iterator[Server]:
    """Return a MariaDB that offers TLS."""
    pem = files / "localhost.pem"
    running = MariaDb(directory(), f"ssl-cert={pem}", f"ssl-key={pem}", f"ssl-ca={files / 'ca.pem'}")
    try:
        running.start()
        yield running
    finally:
        running.stop()


@pytest.mark.parametrize("server_tls", ["disabled", "required"])
@pytest.mark.parametrize("server_compression", ["off", "zlib"])
def test_with_tls(
    server_tls: str,
    server_compression: str,
    safe_server: Server,
    files: Path,
    mariadb_client: str,
    start_with: Callable[[str], Proxy],
) -> None:
    """Compression and TLS go together on either side."""
    cluster = f'server_tls = "{server_tls}"\nserver_compression = "{server_compression}"'
    proxy = start_with(settings(safe_server, cluster, f'certificate = "{files / "localhost.pem"}"'))
    text = "SHOW STATUS LIKE 'Compression'; SHOW STATUS LIKE 'Ssl_version'; SELECT LENGTH(REPEAT('x', 20000000))"
    for tls in "--skip-ssl", "--ssl":
        for compress in "--skip-compress", "--compress":
            options = (tls, compress, "--delimiter=//")
            said = run_program(mariadb_client, proxy, *options, text=f"{text}; SELECT 1; SELECT REPEAT('y', 3000000)//")
            lines = said.split("\n")
            assert lines[0] == f"Compression\t{'ON' if server_compression == 'zlib' else 'OFF'}"
            assert (len(lines[1]) > len("Ssl_version\t")) is (server_tls == "required")
            assert lines[2:5] == ["20000000", "1", "y" * 3_000_000]
    connector = find_module("mysql.connector", "mysql-connector-python")
    for secure in {"ssl_disabled": True}, {"ssl_ca": str(files / "ca.pem"), "ssl_verify_cert": True}:
        connection = connector.connect(
            host="127.0.0.1", port=proxy.port, user=USER, compress=True, use_pure=True, **secure
        )
        cursor = connection.cursor()
        cursor.execute("SELECT REPEAT('z', 5000000)")
        assert cursor.fetchall() == [("z" * 5_000_000,)]
        connection.close()
    with proxy.connect(ssl=trusting(files / "ca.pem")) as plain:
        assert len(query(plain, "SELECT REPEAT('z', 5000000)")[0][0]) == 5_000_000


# -- ends and limits --------------------------------------------------------------------------------------------------


def memory(proxy: Proxy, key: str = "VmRSS") -> int:
    """Return how much memory a proxy uses, in bytes."""
    text = Path(f"/proc/{proxy.child.pid}/status").read_text()
    return next(int(line.split()[1]) << 10 for line in text.splitlines() if line.startswith(key))


def listed(connection: Any, number: int) -> bool:
    """Say whether a client session is there."""
    return bool(query(connection, f"SELECT 1 FROM proxysession WHERE Id = {number}"))


def read_to_the_end(client: RawClient) -> None:
    """Read packets until the connection ends, which raises."""
    while True:
        client.read_packet()


def test_kill_while_it_stalls(proxy: Proxy) -> None:
    """A compressed session that streams a result to a client that does not read dies at once."""
    with proxy.connect() as admin, CompressedClient(proxy.port, receive_buffer=4096) as victim:
        victim.login(USER)
        assert victim.greeting is not None
        # Of random bytes, since others are so small when compressed that nothing stalls.
        victim.send(
            bytes((COM_QUERY,)) + b"SELECT REPEAT(MD5(RAND()), 2), MD5(RAND()) FROM test.thousands a, test.thousands b"
        )
        wait_until(Stall(victim).lasts, what="a stall")
        start = time.monotonic()
        query(admin, f"KILL PROXYSESSION {victim.greeting.thread_id}")
        assert time.monotonic() - start < 3
        assert not listed(admin, victim.greeting.thread_id)
        with pytest.raises(Closed):
            read_to_the_end(victim)


def test_kill_while_it_streams(proxy: Proxy) -> None:
    """The same, of one whose client reads."""
    with proxy.connect() as admin, CompressedClient(proxy.port) as victim:
        victim.login(USER)
        assert victim.greeting is not None
        victim.send(bytes((COM_QUERY,)) + b"SELECT REPEAT('x', 1000) FROM test.thousands a, test.thousands b")
        for _ in range(100):
            victim.read_packet()
        query(admin, f"KILL PROXYSESSION {victim.greeting.thread_id}")
        with pytest.raises(Closed):
            read_to_the_end(victim)


def test_kill_while_it_waits(proxy: Proxy) -> None:
    """A compressed session that waits for an answer is told who killed it."""
    with proxy.connect() as admin, CompressedClient(proxy.port) as victim:
        victim.login(USER)
        assert victim.greeting is not None
        victim.send(bytes((COM_QUERY,)) + b"SELECT SLEEP(60)")
        time.sleep(0.3)
        query(admin, f"KILL PROXYSESSION {victim.greeting.thread_id}")
        assert victim.read_error().code == 1317
        assert victim.is_closed()


def throw(client: CompressedClient, times: int) -> None:
    """Send a statement of so many fragments of 16 MiB - 1, each of which is 16 KiB compressed."""
    bomb = zlib.compress(b"\x03INSERT ".ljust(0xFFFFFF, b"x"))
    for number in range(times):
        head = b"\x04\0\0" + bytes((2 * number & 0xFF,)) + b"\0\0\0" + b"\xff\xff\xff" + bytes((number & 0xFF,))
        header = len(bomb).to_bytes(3, "little") + bytes((2 * number + 1 & 0xFF,)) + b"\xff\xff\xff"
        client.socket.sendall(head + header + bomb)


def test_response_to_a_client_that_does_not_read(mariadb: Server, start_with: Callable[[str], Proxy]) -> None:
    """A gigabyte that the server sends in a few megabytes is not inflated for a client that does not read."""
    proxy = start_with(settings(mariadb, 'server_compression = "zlib"'))
    with proxy.connect() as admin, RawClient(proxy.port, receive_buffer=4096) as client:
        client.login(USER)
        assert client.greeting is not None
        before = memory(proxy)
        client.send(bytes((COM_QUERY,)) + b"SELECT REPEAT('x', 1000000) FROM seq_1_to_1000")
        wait_until(Stall(client).lasts, what="a stall")
        time.sleep(0.5)
        assert memory(proxy, "VmHWM") - before < 24 * MIB
        query(admin, f"KILL PROXYSESSION {client.greeting.thread_id}")


def test_bombs_for_a_server_that_does_not_read(start_with: Callable[[str], Proxy]) -> None:
    """A client's gigabyte in a megabyte waits compressed, as long as the server does not take it."""
    server = ScriptedServerProcess()
    try:
        server.follow(Script(steps=(Step(On(When.LOGIN), LoggedIn(), StopReading()),)))
        proxy = start_with(settings(server, address=f"127.0.0.1:{server.port}"))  # type: ignore[arg-type]
        with CompressedClient(proxy.port, timeout=3) as client:
            client.login(USER)
            before = memory(proxy)
            with pytest.raises(TimeoutError):
                throw(client, 4000)
            assert memory(proxy, "VmHWM") - before < 64 * MIB
    finally:
        server.stop()


def test_broken_packet(proxy: Proxy) -> None:
    """A client that sends what cannot be inflated is told so, and dropped; others go on."""
    for broken, code in (b"\x05\0\0\0\x64\0\0xxxxx", 1835), (b"\x05\0\0\x07\0\0\0xxxxx", 1156):
        with CompressedClient(proxy.port) as client:
            client.login(USER)
            client.socket.sendall(broken)
            assert client.channel is not None
            client.channel.number = 1
            assert client.read_error().code == code
            assert client.is_closed()
    proxy.child.wait_for("client_broke_protocol")
    with proxy.connect() as other:
        assert query(other, "SELECT 1") == [(1,)]
