"""Every way to prove a password, over every pair of links, with real clients.

There was no MySQL 8 to be had: its caching_sha2_password, sha256_password and further factors are `MySql8Server`,
written from the documentation, which the clients' own code agrees with. client_ed25519 and PAM are a real MariaDB's.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator
from itertools import product
from pathlib import Path
from typing import Any

import pytest

pymysql = pytest.importorskip("pymysql")
pytest.importorskip("OpenSSL")

from tests.support.encrypted import settings, trusting  # noqa: E402
from tests.support.servers import MariaDb, Proxy, Server, find_module  # noqa: E402
from tests.support.sessions import query  # noqa: E402
from tests.support.sha2_server import CACHING, CLEAR, DIALOG, PAM, SHA256, Account, MySql8Server  # noqa: E402

SECRET = "a password for tests"
LINKS = ("plain", "tls", "unix")
ACCOUNTS = (
    Account("caching", ((CACHING, SECRET.encode()),)),
    Account("sha256", ((SHA256, SECRET.encode()),)),
    Account("clear", ((CLEAR, SECRET.encode()),)),
    Account("pam", ((DIALOG, SECRET.encode()),)),
    Account("two", ((CACHING, SECRET.encode()), (CLEAR, b"the second"))),
    Account("three", ((CACHING, SECRET.encode()), (CLEAR, b"the second"), (CLEAR, b"the third"))),
)


class Pair:
    """A server, and a proxy that reaches it by one kind of link, and is reached by all."""

    def __init__(self, link: str, base: Path, files: Path, **more: Any) -> None:
        certificate = files / "localhost.pem" if link == "tls" else None
        path = base / "mysql.sock" if link == "unix" else None
        self.server = MySql8Server(ACCOUNTS, certificate, path, **more)
        self.socket = base / "odp.sock"
        self.files = files
        mode = f'server_tls = "verify_full"\nserver_ca = "{files / "ca.pem"}"' if link == "tls" else ""
        config = base / "odp.toml"
        config.write_text(
            f'[tls]\ncertificate = "{files / "localhost.pem"}"\n[[cluster]]\nname = "ob1"\n{mode}\n'
            f'[[cluster.server]]\naddress = "{self.server.address}"\n'
        )
        self.proxy = Proxy(base, "--port", f"unix:{self.socket}", "--config", str(config))

    def stop(self) -> None:
        """End both."""
        try:
            self.proxy.stop()
        finally:
            self.server.stop()

    def pymysql(self, link: str, user: str, password: str = SECRET) -> int:
        """Return the code of the error with which PyMySQL is refused, 0 if it is not."""
        ways: dict[str, dict[str, Any]] = {
            "plain": {"ssl_disabled": True},
            "tls": {"ssl": trusting(self.files / "ca.pem")},
            "unix": {"unix_socket": str(self.socket), "ssl_disabled": True},
        }
        try:
            with self.proxy.connect(
                user, password=password, auth_plugin_map={b"dialog": Prompt}, **ways[link]
            ) as client:
                assert query(client, "SELECT 1") == [(1,)]
        except pymysql.MySQLError as fault:
            return int(fault.args[0])
        return 0

    def connector(self, link: str, user: str, password: str = SECRET, **more: Any) -> int:
        """Return the same of mysql-connector-python; its own refusals have a code of -1."""
        connector = find_module("mysql.connector", "mysql-connector-python")
        ways: dict[str, dict[str, Any]] = {
            "plain": {"ssl_disabled": True},
            "tls": {"ssl_ca": str(self.files / "ca.pem"), "ssl_verify_cert": True},
            "unix": {"unix_socket": str(self.socket), "ssl_disabled": True},
        }
        where = {"host": "127.0.0.1", "port": self.proxy.port, "use_pure": True, "user": f"{user}@sys#ob1"}
        try:
            client = connector.connect(**where, password=password, **ways[link], **more)
        except connector.Error as fault:
            return int(fault.errno)
        client.close()
        return 0


class Prompt:
    """Answers the questions of PAM, as a PyMySQL plugin."""

    answers = {each[1:]: answer.rstrip(b"\0") for each, answer in PAM}  # noqa: RUF012 - PyMySQL makes the objects

    def __init__(self, connection: Any) -> None:
        """Do as PyMySQL wants it."""

    def prompt(self, echo: bool, prompt: bytes) -> bytes:
        """Answer a question that is not just for the password."""
        return self.answers[prompt]


@pytest.fixture(scope="module", params=LINKS)
def pair(request: pytest.FixtureRequest, directory: Callable[[], Path], files: Path) -> Iterator[Pair]:
    """Return a server and a proxy that reaches it by `link`."""
    running = Pair(request.param, directory(), files)
    try:
        yield running
    finally:
        running.stop()


@pytest.fixture
def link(pair: Pair, request: pytest.FixtureRequest) -> str:
    """Return how the proxy reaches the server, which has forgotten all passwords."""
    pair.server.cached.clear()
    pair.server.in_clear.clear()
    return str(request.node.callspec.params["pair"])


def test_pymysql(pair: Pair, link: str) -> None:
    """PyMySQL logs in over every pair of links, the second time by the fast way; a wrong password is refused."""
    for user, client in product(("caching", "sha256"), LINKS):
        pair.server.cached.clear()
        assert pair.pymysql(client, user, "wrong") == 1045
        assert pair.pymysql(client, user) == 0, client
        assert pair.server.cached == {user}
        assert pair.pymysql(client, user) == 0
        assert pair.pymysql(client, user, "wrong") == 1045
    assert SECRET.encode() not in pair.server.in_clear


def test_connector_python(pair: Pair, link: str) -> None:
    """mysql-connector-python, which knows no RSA, logs in by TLS over either link to the server, and else fast or not.

    Without TLS it sends its password in clear where the server wants it whole; the proxy lets that go no further.
    """
    for client in LINKS:
        pair.server.cached.clear()
        # On a Unix socket it is right to do so.
        whole = client != "plain"
        assert (pair.connector(client, "caching") == 0) is whole, client
        pair.server.cached.add("caching")
        assert pair.connector(client, "caching") == 0
        assert pair.connector(client, "caching", "wrong") == 1045
        assert (pair.connector(client, "sha256") == 0) is (client == "tls")
    assert SECRET.encode() not in pair.server.in_clear


def test_passwords_in_clear(pair: Pair, link: str) -> None:
    """mysql_clear_password and dialog (PAM) work where both links are secure, and else the client is not asked."""
    for user, client in product(("clear", "pam"), LINKS):
        expected = 0 if client != "plain" and link != "plain" else 1045
        assert pair.pymysql(client, user) == expected, (user, client)
    assert SECRET.encode() not in pair.server.in_clear


def test_factors(pair: Pair, link: str) -> None:
    """Further factors are passed on to a client that knows of them, by the rules for their plugins."""
    for client in LINKS:
        more = {"password2": "the second"}
        # The client itself sends no password in clear without TLS, not even over a Unix socket.
        expected = 1045 if client == "plain" or link == "plain" else 0 if client == "tls" else -1
        pair.server.cached.update(("two", "three"))
        assert pair.connector(client, "two", **more) == expected, client
        assert pair.connector(client, "two", password2="wrong") == (expected or 1045)
        assert pair.connector(client, "three", **more, password3="the third") == expected, client
        assert pair.connector(client, "three", **more, password3="wrong") == (expected or 1045)
        assert pair.pymysql(client, "two") == 1045  # it knows one factor only
    assert b"the second" not in pair.server.in_clear


def test_server_without_a_key(directory: Callable[[], Path], files: Path) -> None:
    """A server without TLS and without a key refuses, and no password is sent."""
    pair = Pair("plain", directory(), files, key=False)
    try:
        for client in LINKS:
            assert pair.pymysql(client, "caching") != 0
        assert SECRET.encode() not in pair.server.in_clear
    finally:
        pair.stop()


@pytest.mark.parametrize("link", LINKS)
def test_service_account(link: str, directory: Callable[[], Path], files: Path) -> None:
    """The proxy's own accounts log in by MySQL's default plugin, the first time and later."""
    base = directory()
    certificate = files / "localhost.pem" if link == "tls" else None
    path = base / "mysql.sock" if link == "unix" else None
    server = MySql8Server(ACCOUNTS, certificate, path)
    mode = f'server_tls = "verify_full"\nserver_ca = "{files / "ca.pem"}"' if link == "tls" else ""
    config = base / "odp.toml"
    config.write_text(
        f'[service_account]\nuser = "caching"\npassword = "{SECRET}"\n[[cluster]]\nname = "ob1"\n{mode}\n'
        f'[[cluster.server]]\naddress = "{server.address}"\n'
    )
    proxy = Proxy(base, "--config", str(config))
    try:
        # Its verifier is asked for, which the server does not know; then the client is asked.
        with proxy.connect("caching", password=SECRET, ssl_disabled=True) as client:
            assert query(client, "SELECT 1") == [(1,)]
        assert server.cached == {"caching"}
        assert "needs caching_sha2_password" not in proxy.child.output()
        assert SECRET.encode() not in server.in_clear
    finally:
        proxy.stop()
        server.stop()


# -- MariaDB ----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def ed25519(directory: Callable[[], Path]) -> Iterator[Server]:
    """Return a MariaDB with an account of its plugin."""
    running = MariaDb(directory(), "plugin-load-add=auth_ed25519")
    try:
        running.start()
        with running.connect() as root:
            query(
                root,
                f"CREATE USER ed IDENTIFIED VIA ed25519 USING PASSWORD('{SECRET}')",
                f"CREATE USER odp IDENTIFIED BY '{SECRET}'",
                "GRANT SELECT ON mysql.* TO odp",
            )
        yield running
    finally:
        running.stop()


@pytest.mark.parametrize("service", [False, True])
def test_ed25519(service: bool, ed25519: Server, start_proxy: Callable[..., Proxy], tmp_path: Path) -> None:
    """The client signs the server's own salt; a session that was opened so stays with its server."""
    find_module("nacl", "pynacl")
    config = tmp_path / "odp.toml"
    config.write_text(f'[service_account]\nuser = "odp"\npassword = "{SECRET}"\n' if service else "")
    proxy = start_proxy("--config", str(config), "--server", ed25519.address, "--cluster-name", "ob1")
    with proxy.connect("ed", password=SECRET) as client:
        assert query(client, "SELECT CURRENT_USER()") == [("ed@%",)]
        with proxy.connect() as root:
            ((bar,),) = query(root, f"SELECT further_logins FROM proxysession WHERE Id = {client.thread_id()}")
        assert "cannot log in again" in bar
    with pytest.raises(pymysql.MySQLError) as caught:
        proxy.connect("ed", password="wrong")
    assert caught.value.args[0] == 1045


@pytest.fixture
def pam_service(directory: Callable[[], Path]) -> Iterator[str]:
    """Return a PAM service that lets in whoever knows a password; only in CI, because the whole machine has it."""
    pam = Path("/etc/pam.d/odptwist-tests")
    if os.environ.get("ODPTWIST_REQUIRE") != "all" or not os.access(pam.parent, os.W_OK):
        pytest.skip("adds a PAM service to the machine: runs where ODPTWIST_REQUIRE=all is set, as root")
    check = directory() / "check"
    check.write_text(f'#!/bin/sh\nread -r line\n[ "$line" = "{SECRET}" ]\n')
    check.chmod(0o755)
    try:
        pam.write_text(f"auth required pam_exec.so expose_authtok quiet {check}\naccount required pam_permit.so\n")
        yield pam.name
    finally:
        pam.unlink()


def test_pam(
    pam_service: str,
    directory: Callable[[], Path],
    files: Path,
    mariadb_client: str,
    start_with: Callable[[str], Proxy],
) -> None:
    """MariaDB's PAM asks the `mariadb` program through the proxy, where both links are secure."""
    pem, ca = files / "localhost.pem", files / "ca.pem"
    server = MariaDb(directory(), "plugin-load-add=auth_pam", f"ssl-cert={pem}", f"ssl-key={pem}")
    try:
        server.start()
        with server.connect() as root:
            query(root, f"CREATE USER pam IDENTIFIED VIA pam USING '{pam_service}'")
        verify = f'server_tls = "verify_full"\nserver_ca = "{ca}"'
        proxy = start_with(settings(server, verify, f'certificate = "{pem}"'))

        def log_in(password: str, *tls: str) -> str:
            where = ("--no-defaults", "--host=127.0.0.1", f"--port={proxy.port}", "--user=pam@sys#ob1", "--batch")
            command = [mariadb_client, *where, f"--password={password}", *tls, "--execute=SELECT CURRENT_USER()"]
            done = subprocess.run(
                command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=30, check=False
            )
            return done.stdout + done.stderr

        assert "pam@%" in log_in(SECRET, f"--ssl-ca={ca}")
        assert "ERROR 1045" in log_in("wrong", f"--ssl-ca={ca}")
        assert "'dialog' requires secure connections" in log_in(SECRET, "--skip-ssl")
    finally:
        server.stop()
