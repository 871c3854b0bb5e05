"""TLS between clients and the proxy, and between the proxy and a server, with real clients and a real server."""

from __future__ import annotations

import ssl
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext, suppress
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

pymysql = pytest.importorskip("pymysql")
pytest.importorskip("OpenSSL")

from odptwist.wire.constants import CLIENT_SSL  # noqa: E402
from tests.integration.conftest import Connect  # noqa: E402
from tests.support.certificates import Authority  # noqa: E402
from tests.support.encrypted import settings, trusting  # noqa: E402
from tests.support.raw_client import CAPABILITIES, Closed, RawClient  # noqa: E402
from tests.support.servers import (  # noqa: E402
    Background,
    MariaDb,
    Proxy,
    Server,
    TcpServer,
    find_module,
    seekdb_arguments,
    wait_until,
)
from tests.support.sessions import Stall, query  # noqa: E402

MIB = 1024
ROWS = 1100
LARGE = f"SELECT REPEAT('x', 1000000) FROM seq_1_to_{ROWS}"
SIZE = ROWS * 1_000_000


@pytest.fixture(scope="module")
def server(directory: Callable[[], Path], files: Path) -> Iterator[Server]:
    """Return a MariaDB that offers TLS."""
    pem = files / "localhost.pem"
    running = MariaDb(directory(), f"ssl-cert={pem}", f"ssl-key={pem}", f"ssl-ca={files / 'ca.pem'}")
    try:
        running.start()
        with running.connect() as root:
            query(root, "CREATE DATABASE test", "CREATE USER safe IDENTIFIED BY 'secret' REQUIRE SSL")
        yield running
    finally:
        running.stop()


@pytest.fixture(scope="module")
def proxy(server: Server, directory: Callable[[], Path], files: Path) -> Iterator[Proxy]:
    """Return a proxy that offers TLS with a signed certificate."""
    running = Proxy(
        directory(), "--server", server.address, "--cluster-name", "ob1", "--tls", str(files / "localhost.pem")
    )
    try:
        yield running
    finally:
        running.stop()


@pytest.fixture
def secure(connect: Connect, files: Path) -> Connect:
    """Return a maker of connections that use TLS."""
    return lambda **more: connect(ssl=trusting(files / "ca.pem"), **more)


class TlsClient(RawClient):
    """A raw client that can begin TLS."""

    def request_tls(self) -> None:
        """Read the greeting, and send an SSLRequest."""
        self.read_greeting()
        self.send((CAPABILITIES | CLIENT_SSL).to_bytes(4, "little") + (1 << 24).to_bytes(4, "little") + bytes(24), 1)
        self.sequence = 1

    def begin_tls(self, context: ssl.SSLContext, session: ssl.SSLSession | None = None) -> ssl.SSLSocket:
        """Do all of the handshake, and go on by TLS."""
        self.request_tls()
        self.socket = secured = context.wrap_socket(self.socket, server_hostname="localhost", session=session)
        return secured


# -- clients ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("version", ["TLSv1.2", "TLSv1.3"])
def test_pymysql(version: str, connect: Connect, files: Path) -> None:
    """PyMySQL connects by either version, checks the certificate, and reads large results."""
    number = ssl.TLSVersion.TLSv1_2 if version == "TLSv1.2" else ssl.TLSVersion.TLSv1_3
    client = connect(ssl=trusting(files / "ca.pem", number), database="test")
    assert client._sock.version() == version
    assert len(query(client, "SELECT REPEAT('x', 20000000)")[0][0]) == 20_000_000
    ((encrypted, cipher),) = query(
        client, f"SELECT using_ssl, cipher FROM proxysession WHERE Id = {client.thread_id()}"
    )
    assert (encrypted, cipher.split(" ")[0]) == (1, version)


def test_connector_python(proxy: Proxy, files: Path) -> None:
    """mysql-connector-python checks the certificate and the name, and large packets go both ways."""
    connector = find_module("mysql.connector", "mysql-connector-python")
    options = {"host": "127.0.0.1", "port": proxy.port, "user": "root@sys#ob1", "use_pure": True}
    for versions in ["TLSv1.2"], ["TLSv1.3"]:
        client = connector.connect(
            **options,
            ssl_ca=str(files / "ca.pem"),
            ssl_verify_cert=True,
            ssl_verify_identity=True,
            tls_versions=versions,
        )
        cursor = client.cursor()
        cursor.execute(f"SELECT LENGTH('{'x' * 5_000_000}')")
        assert cursor.fetchall() == [(5_000_000,)]
        client.close()
    with pytest.raises(connector.Error):
        connector.connect(**options, ssl_ca=str(files / "other.pem"), ssl_verify_cert=True)


def run_program(
    program: str, proxy: Proxy, *options: str, text: str = "SELECT 1 + 1"
) -> subprocess.CompletedProcess[str]:
    """Run the mariadb program."""
    where = ("--no-defaults", "--host=127.0.0.1", f"--port={proxy.port}", "--user=root@sys#ob1", "--batch")
    return subprocess.run(
        [program, *where, *options], input=text, capture_output=True, text=True, timeout=30, check=False
    )


@pytest.mark.parametrize("version", ["TLSv1.2", "TLSv1.3"])
def test_mariadb_program(version: str, mariadb_client: str, proxy: Proxy, files: Path) -> None:
    """The program checks the certificate, and `status` names the cipher."""
    done = run_program(
        mariadb_client,
        proxy,
        "--ssl",
        f"--ssl-ca={files / 'ca.pem'}",
        "--ssl-verify-server-cert",
        f"--tls-version={version}",
        text="SELECT 1 + 1;\nstatus\n",
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert "2\n" in done.stdout
    assert "Cipher in use is" in done.stdout
    done = run_program(mariadb_client, proxy, "--ssl", f"--ssl-ca={files / 'other.pem'}", "--ssl-verify-server-cert")
    assert done.returncode == 1


def test_plain_clients_still_connect(connect: Connect) -> None:
    """Where TLS is not required, a client without it is served."""
    client = connect(ssl_disabled=True)  # by itself PyMySQL uses TLS where it is offered
    assert query(client, f"SELECT using_ssl, cipher FROM proxysession WHERE Id = {client.thread_id()}") == [(0, "")]


def test_own_certificate(server: Server, start_proxy: Callable[..., Proxy], mariadb_client: str) -> None:
    """`--tls auto` makes a certificate; its fingerprint is in the log."""
    proxy = start_proxy("--server", server.address, "--cluster-name", "ob1", "--tls", "auto")
    fingerprint = proxy.child.wait_for(r"SHA-256 fingerprint: ([0-9a-f:]{95})")[1]
    with proxy.connect(ssl=trusting(None)) as client:
        seen = client._sock.getpeercert(True)
        assert query(client, "SELECT 1") == [(1,)]
    assert sha256(seen).hexdigest() == fingerprint.replace(":", "")
    assert run_program(mariadb_client, proxy, "--ssl").stdout == "1 + 1\n2\n"


def test_required(server: Server, start_with: Callable[[str], Proxy], mariadb_client: str, files: Path) -> None:
    """Where TLS is required, clients without it get 3159, and those with it are served."""
    proxy = start_with(settings(server, tls=f'certificate = "{files / "localhost.pem"}"\nrequire = true'))
    with pytest.raises(pymysql.MySQLError) as caught:
        proxy.connect(ssl_disabled=True)
    assert caught.value.args[0] == 3159
    assert "ERROR 3159 (HY000)" in run_program(mariadb_client, proxy, "--skip-ssl").stderr
    with proxy.connect(ssl=trusting(files / "ca.pem")) as client:
        assert query(client, "SELECT 1") == [(1,)]


def test_client_certificates(
    server: Server, start_with: Callable[[str], Proxy], mariadb_client: str, files: Path, authority: Authority
) -> None:
    """Where a client certificate is required, clients with a good one are served, and no others."""
    mine = authority.write(files, "ada")
    proxy = start_with(
        settings(
            server,
            tls=f'certificate = "{files / "localhost.pem"}"\nclient_ca = "{files / "ca.pem"}"\n'
            "require_client_certificate = true",
        )
    )
    context = trusting(files / "ca.pem")
    context.load_cert_chain(mine)
    with proxy.connect(ssl=context) as client:
        assert query(client, "SELECT 1") == [(1,)]
    for version in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):
        with pytest.raises(pymysql.MySQLError):
            proxy.connect(ssl=trusting(files / "ca.pem", version))
    proxy.child.wait_for("closed: tls_failed TLS: peer did not return a certificate")
    done = run_program(mariadb_client, proxy, f"--ssl-cert={mine}", f"--ssl-key={mine}", f"--ssl-ca={files / 'ca.pem'}")
    assert done.stdout == "1 + 1\n2\n"


def test_resumption(proxy: Proxy, files: Path) -> None:
    """A client's second connection resumes the TLS session of the first."""
    for version in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):
        context = trusting(files / "ca.pem", version)
        session = None
        for reused in (False, True):
            with TlsClient(proxy.port) as client:
                secured = client.begin_tls(context, session)
                client.login("root@sys#ob1")
                assert client.query("SELECT 1").rows == [(b"1",)]
                assert secured.session_reused is reused
                session = secured.session


# -- servers ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["disabled", "preferred", "required", "verify_ca", "verify_full"])
def test_server_modes(mode: str, server: Server, start_with: Callable[[str], Proxy], files: Path) -> None:
    """Each mode connects as it says; accounts that require TLS can log in where it is used."""
    ca = f'\nserver_ca = "{files / "ca.pem"}"' if mode.startswith("verify") else ""
    proxy = start_with(settings(server, f'server_tls = "{mode}"{ca}', f'certificate = "{files / "localhost.pem"}"'))
    for way in {"ssl_disabled": True}, {"ssl": trusting(files / "ca.pem")}:
        with proxy.connect(**way) as client:
            ((_, cipher),) = query(client, "SHOW STATUS LIKE 'Ssl_cipher'")
            assert bool(cipher) is (mode != "disabled")
            assert query(client, "SELECT LENGTH(REPEAT('x', 100000)), REPEAT('y', 3)") == [(100_000, "yyy")]
        with pytest.raises(pymysql.MySQLError) if mode == "disabled" else nullcontext() as caught:
            proxy.connect(user="safe", password="secret", **way).close()
        if caught is not None:
            assert caught.value.args[0] == 1045


@pytest.mark.parametrize(
    ("mode", "ca", "host", "why"),
    [
        ("verify_ca", "other.pem", "127.0.0.1", "certificate verify failed"),
        ("verify_full", "other.pem", "127.0.0.1", "certificate verify failed"),
        ("verify_full", "ca.pem", "127.0.0.2", "the certificate is another host's"),
        ("verify_ca", "ca.pem", "127.0.0.2", ""),
        ("verify_full", "ca.pem", "localhost", ""),
    ],
)
def test_who_the_server_is(
    mode: str,
    ca: str,
    host: str,
    why: str,
    directory: Callable[[], Path],
    start_with: Callable[[str], Proxy],
    files: Path,
) -> None:
    """A wrong authority, and with verify_full a wrong name, make the server unreachable, and the client learns why."""
    pem = files / "localhost.pem"
    server = MariaDb(directory(), f"ssl-cert={pem}", f"ssl-key={pem}", "bind-address=0.0.0.0")
    server.numbers_apart = 0
    try:
        server.start()
        address = f"{host}:{server.port}"
        proxy = start_with(settings(server, f'server_tls = "{mode}"\nserver_ca = "{files / ca}"', address=address))
        if why:
            with pytest.raises(pymysql.MySQLError) as caught:
                proxy.connect()
            assert caught.value.args[0] == 1429
            assert why in caught.value.args[1]
        else:
            proxy.connect().close()
    finally:
        server.stop()


def test_server_without_tls(mariadb: Server, start_with: Callable[[str], Proxy]) -> None:
    """A server that does not offer TLS is talked to in clear where TLS is preferred, and not where it is required."""
    start_with(settings(mariadb, 'server_tls = "preferred"')).connect().close()
    proxy = start_with(settings(mariadb, 'server_tls = "required"'))
    with pytest.raises(pymysql.MySQLError) as caught:
        proxy.connect()
    assert (caught.value.args[0], "does not offer TLS" in caught.value.args[1]) == (1429, True)


class TlsSeekdb(TcpServer):
    """An OceanBase kernel on a TCP port, with the certificates of its `wallet` directory."""

    name = "seekdb"
    numbers_apart = 0

    def _arguments(self) -> list[str]:
        parameters = ("memory_budget=1G", "log_disk_size=2G", "ssl_client_authentication=true")
        return [*seekdb_arguments(self.base, *parameters), "-P", str(self.port)]


def test_seekdb(
    directory: Callable[[], Path], start_with: Callable[[str], Proxy], files: Path, authority: Authority
) -> None:
    """OceanBase's kernel is talked to by TLS, and its certificate is checked."""
    server = TlsSeekdb(directory())
    certificate, key = authority.issue("localhost", "127.0.0.1")
    wallet = server.base / "wallet"
    wallet.mkdir()
    for name, content in ("ca", authority.pem), ("server-cert", certificate), ("server-key", key):
        (wallet / f"{name}.pem").write_bytes(content)
    try:
        server.start()
        for ca in "ca.pem", "other.pem":
            proxy = start_with(settings(server, f'server_tls = "verify_full"\nserver_ca = "{files / ca}"'))
            if ca == "ca.pem":
                with proxy.connect() as client:
                    assert query(client, "SELECT 1") == [(1,)]
            else:
                with pytest.raises(pymysql.MySQLError, match="certificate verify failed"):
                    proxy.connect()
    finally:
        server.stop()


# -- ends -------------------------------------------------------------------------------------------------------------


def listed(connection: Any, number: int) -> bool:
    """Say whether a client session is there."""
    return bool(query(connection, f"SELECT 1 FROM proxysession WHERE Id = {number}"))


def kill(connection: Any, number: int) -> float:
    """Kill a session, and return how many seconds it took."""
    start = time.monotonic()
    query(connection, f"KILL PROXYSESSION {number}")
    return time.monotonic() - start


def read_all(client: RawClient) -> None:
    """Read until the connection ends, which raises."""
    while True:
        client.read_packet()


@pytest.mark.parametrize("sent", [0, 100])
def test_kill_amid_the_handshake(sent: int, proxy: Proxy, secure: Connect) -> None:
    """A kill ends a handshake that stands still, at once."""
    admin = secure()
    with TlsClient(proxy.port) as client:
        client.request_tls()
        if sent:
            incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
            with pytest.raises(ssl.SSLWantReadError):
                trusting(None).wrap_bio(incoming, outgoing).do_handshake()
            client.send_raw(outgoing.read()[:sent])
        number = client.greeting.thread_id
        wait_until(lambda: listed(admin, number))
        assert kill(admin, number) < 0.5
        with pytest.raises(Closed):
            client.read_packet()
        assert not listed(admin, number)
    proxy.child.wait_for(rf"client session {number} closed: killed")


def test_kill_idle(secure: Connect) -> None:
    """An idle session dies at once."""
    admin, client = secure(), secure()
    assert kill(admin, client.thread_id()) < 0.5
    with pytest.raises(pymysql.MySQLError):
        query(client, "SELECT 1")


def test_kill_running(secure: Connect, server: Server) -> None:
    """A running statement is stopped, its client is told so, and the kill does not wait for the client's farewell."""
    admin, client = secure(), secure()
    with server.connect() as direct:
        running = Background(query, client, "SELECT SLEEP(60)")
        wait_until(lambda: "SELECT SLEEP(60)" in [text for _, text in server.processes(direct).values()])
        assert kill(admin, client.thread_id()) < 0.5
        code, text = running.error()
        assert (code, "killed by client session" in text) == (1317, True)
        assert "SELECT SLEEP(60)" not in [text for _, text in server.processes(direct).values()]


def test_kill_query(secure: Connect, server: Server) -> None:
    """KILL QUERY stops the statement, and the session goes on."""
    admin, client = secure(), secure()
    with server.connect() as direct:
        running = Background(query, client, "SELECT SLEEP(61)")
        wait_until(lambda: "SELECT SLEEP(61)" in [text for _, text in server.processes(direct).values()])
        query(admin, f"KILL QUERY {client.thread_id()}")
    assert running.error()[0] == 1317
    assert query(client, "SELECT 1") == [(1,)]


def test_kill_itself(proxy: Proxy, files: Path) -> None:
    """A session that ends itself is told so and then reset, so that drivers find out when they write."""
    with TlsClient(proxy.port) as client:
        client.begin_tls(trusting(files / "ca.pem"))
        client.login("root@sys#ob1")
        client.send(b"\x03KILL CONNECTION_ID()")
        assert client.read_error().code == 1317
        proxy.child.wait_for(rf"client session {client.greeting.thread_id} closed: killed_itself")
        with pytest.raises((ConnectionError, ssl.SSLError)):
            client.send(b"\x03SELECT 1")


def test_kill_stalled_reader(proxy: Proxy, secure: Connect, files: Path) -> None:
    """A client that has stopped reading a large result is cut at once."""
    admin = secure()
    with TlsClient(proxy.port, receive_buffer=65536) as client:
        client.begin_tls(trusting(files / "ca.pem"))
        client.login("root@sys#ob1", database="test")
        client.send(b"\x03" + LARGE.encode())
        wait_until(Stall(client).lasts, what="a full buffer")
        assert kill(admin, client.greeting.thread_id) < 1
        with pytest.raises((Closed, ssl.SSLError, ConnectionError)):
            read_all(client)


def test_vanished_client(secure: Connect, proxy: Proxy, server: Server, files: Path) -> None:
    """The statement of a client that closes its connection is stopped."""
    with server.connect() as direct:
        for number, way in enumerate(("farewell", "reset")):
            statement = f"SELECT SLEEP({70 + number})"
            client = TlsClient(proxy.port)
            client.begin_tls(trusting(files / "ca.pem"))
            client.login("root@sys#ob1")
            client.send(b"\x03" + statement.encode())
            wait_until(lambda text=statement: text in [each for _, each in server.processes(direct).values()])
            if way == "farewell":
                client.socket.setblocking(False)
                with suppress(ssl.SSLError):  # it would wait for the proxy's farewell
                    client.socket.unwrap()
                client.close()
            else:
                client.abort()
            wait_until(lambda text=statement: text not in [each for _, each in server.processes(direct).values()])


@pytest.mark.parametrize("mode", ["disabled", "required"])
def test_memory(
    mode: str,
    server: Server,
    start_with: Callable[[str], Proxy],
    opened: list[Any],
    files: Path,
    figure: Callable[[str], None],
) -> None:
    """A client that stops reading a result of 1 GiB by TLS costs next to nothing, and its reading on costs little."""
    proxy = start_with(settings(server, f'server_tls = "{mode}"', f'certificate = "{files / "localhost.pem"}"'))
    watch = proxy.connect(database="test")
    opened.append(watch)

    def begin() -> TlsClient:
        client = TlsClient(proxy.port, timeout=60, receive_buffer=65536)
        client.begin_tls(trusting(files / "ca.pem"))
        client.login("root@sys#ob1", database="test")
        client.send(b"\x03" + LARGE.encode())
        return client

    def drain(client: TlsClient, size: int) -> None:
        view, count = memoryview(bytearray(1 << 20)), 0
        while count < size:
            got = client.socket.recv_into(view)
            assert got, f"closed after {count} bytes"
            count += got

    with begin() as warm:
        drain(warm, 200_000_000)
    proxy.child.forget_peak()
    before = proxy.child.memory()
    with begin() as client:
        state = "SELECT STATE FROM information_schema.processlist WHERE INFO LIKE 'SELECT REPEAT%'"
        wait_until(lambda: query(watch, state) == [("Writing to net",)], what="the server's wait for the client")
        hold = time.monotonic() + 1
        wait_until(lambda: time.monotonic() > hold, what="a second of stalling")
        assert query(watch, state) == [("Writing to net",)], "the server has sent all"
        stalled = proxy.child.memory("VmHWM") - before
        start = time.monotonic()
        drain(client, SIZE)
        seconds = time.monotonic() - start
        peak = proxy.child.memory("VmHWM") - before
    figure(f"{SIZE >> 20} MiB by TLS, server_tls {mode}: memory grew by {stalled} KiB while the client stalled")
    figure(f"and by {peak} KiB at most until all was read, at {SIZE / seconds / 1e6:.0f} MB/s")
    assert stalled <= 2 * MIB
    assert peak <= 6 * MIB
