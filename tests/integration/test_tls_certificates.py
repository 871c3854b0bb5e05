"""Certificates of clients that stand for accounts, and the proxy's own towards servers; real clients, a real server."""

from __future__ import annotations

import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

pymysql = pytest.importorskip("pymysql")
pytest.importorskip("OpenSSL")

from tests.support.certificates import Authority  # noqa: E402
from tests.support.encrypted import settings, trusting  # noqa: E402
from tests.support.servers import MariaDb, Proxy, Server  # noqa: E402
from tests.support.sessions import query  # noqa: E402

USERS = ("app1", "app2", "free")


class Meter:
    """Stands between the proxy and a server, and counts what the server says: MariaDB does not tell what it resumes.

    Attributes:
        port: where the proxy connects.
        sizes: bytes of each connection, in their order.
    """

    def __init__(self, server_port: int) -> None:
        self._server_port = server_port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self.sizes: list[int] = []
        threading.Thread(target=self._listen, daemon=True).start()

    def _listen(self) -> None:
        while True:
            client, _ = self._listener.accept()
            server = socket.create_connection(("127.0.0.1", self._server_port))
            self.sizes.append(0)
            place = len(self.sizes) - 1
            for source, target, counted in ((client, server, False), (server, client, True)):
                threading.Thread(target=self._carry, args=(source, target, counted, place), daemon=True).start()

    def _carry(self, source: socket.socket, target: socket.socket, counted: bool, place: int) -> None:
        with suppress(OSError):
            while data := source.recv(65536):
                self.sizes[place] += len(data) if counted else 0
                target.sendall(data)
            target.shutdown(socket.SHUT_WR)


@pytest.fixture(scope="module")
def server(directory: Callable[[], Path], files: Path) -> Iterator[Server]:
    """Return a MariaDB that offers TLS, and some accounts."""
    pem = files / "localhost.pem"
    running = MariaDb(directory(), f"ssl-cert={pem}", f"ssl-key={pem}", f"ssl-ca={files / 'ca.pem'}")
    try:
        running.start()
        with running.connect() as root:
            query(root, *(f"CREATE USER {user} IDENTIFIED BY 'secret'" for user in USERS))
            query(root, "CREATE USER x509 IDENTIFIED BY 'secret' REQUIRE X509")
            query(root, "CREATE USER subject IDENTIFIED BY 'secret' REQUIRE SUBJECT '/CN=proxy'")
        yield running
    finally:
        running.stop()


@pytest.fixture(scope="module")
def certificates(files: Path, authority: Authority) -> dict[str, Path]:
    """Return files of certificates, by their common names."""
    names = {"one": ("one",), "two": ("two", "uri:spiffe://example.com/two"), "three": ("three",), "proxy": ("proxy",)}
    return {name: authority.write(files, *hosts) for name, hosts in names.items()}


def denied(proxy: Proxy | Server, user: str, context: ssl.SSLContext | None, password: str = "secret") -> int:
    """Return the code of the error with which a user is refused, 0 if it is not."""
    way = {"ssl_disabled": True} if context is None else {"ssl": context}
    try:
        with proxy.connect(user=user, password=password, **way) as client:
            assert query(client, "SELECT 1") == [(1,)]
    except pymysql.MySQLError as fault:
        return int(fault.args[0])
    return 0


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_accounts(
    version: ssl.TLSVersion,
    server: Server,
    start_with: Callable[[str], Proxy],
    files: Path,
    certificates: dict[str, Path],
) -> None:
    """A mapped user needs its certificate and its password; who shows a mapped certificate is nobody else."""
    proxy = start_with(
        "[log]\nsessions = true\n"
        + settings(
            server,
            tls=f"""certificate = "{files / "localhost.pem"}"
client_ca = "{files / "ca.pem"}"
[[tls.certificate_account]]
subject = "cn:one"
users = ["app1"]
[[tls.certificate_account]]
subject = "uri:spiffe://example.com/two"
users = ["app1", "app2@sys#ob1"]
""",
        )
    )
    contexts: dict[str, ssl.SSLContext | None] = {"no TLS": None, "none": trusting(files / "ca.pem", version)}
    for name, path in certificates.items():
        context = contexts[name] = trusting(files / "ca.pem", version)
        context.load_cert_chain(path)
    may = {
        "app1": {"one", "two"},
        "app2": {"two"},
        "free": {"no TLS", "none", "three", "proxy"},
    }
    for user, shown in may.items():
        for name, context in contexts.items():
            assert denied(proxy, user, context) == (0 if name in shown else 1045), (user, name)
    for spelling in ("'app1'", "'app1'@sys", "ob1:sys:'app1'"):
        assert denied(server, spelling.split(":")[-1].partition("@")[0], None) == 0  # MariaDB takes the quotes off
        assert denied(proxy, spelling, None) == 1045
    assert denied(proxy, "app1", contexts["one"], "wrong") == 1045
    proxy.child.wait_for("shows the certificate of CN=one")
    proxy.child.wait_for(r"login of app2@sys#ob1 .* refused: its certificate is for others: cn:one \(.*CN=one\)")
    proxy.child.wait_for("login of app1@sys#ob1 .* refused: it has shown no certificate")


def test_certificate_of_the_proxy(
    server: Server, start_with: Callable[[str], Proxy], files: Path, certificates: dict[str, Path]
) -> None:
    """Accounts with REQUIRE X509 and REQUIRE SUBJECT can log in where the proxy shows the certificate."""
    verify = f'server_tls = "verify_full"\nserver_ca = "{files / "ca.pem"}"\n'
    for name, allowed in ("", set()), ("one", {"x509"}), ("proxy", {"x509", "subject"}):
        more = f'server_certificate = "{certificates[name]}"' if name else ""
        proxy = start_with(settings(server, verify + more))
        for user in ("x509", "subject", "free"):
            assert denied(proxy, user, None) == (0 if user in {"free", *allowed} else 1045), (name, user)


@pytest.mark.parametrize("version", ["TLSv1.2", "TLSv1.3"])
def test_sessions_with_servers_are_resumed(
    version: str,
    directory: Callable[[], Path],
    start_with: Callable[[str], Proxy],
    files: Path,
    certificates: dict[str, Path],
) -> None:
    """MariaDB goes on with the TLS session of the login before, with the proxy's certificate in it."""
    pem = files / "localhost.pem"
    server = MariaDb(
        directory(), f"ssl-cert={pem}", f"ssl-key={pem}", f"ssl-ca={files / 'ca.pem'}", f"tls-version={version}"
    )
    try:
        server.start()
        with server.connect() as root:
            query(root, "CREATE USER x509 IDENTIFIED BY 'secret' REQUIRE X509")
        meter = Meter(server.port)
        certificate = f'server_certificate = "{certificates["proxy"]}"'
        verify = f'server_tls = "verify_full"\nserver_ca = "{files / "ca.pem"}"\n{certificate}'
        proxy = start_with(settings(server, verify, address=f"127.0.0.1:{meter.port}"))
        for _ in range(3):
            with proxy.connect(user="x509", password="secret") as client:
                assert query(client, "SELECT 1") == [(1,)]
        first, *others = meter.sizes[-3:]
        certificate_size = len(ssl.PEM_cert_to_DER_cert(pem.read_text().partition("-----BEGIN PRIVATE")[0]))
        assert [first - each > certificate_size for each in others] == [True, True], meter.sizes
    finally:
        server.stop()
