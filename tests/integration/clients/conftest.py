"""What the tests of clients share: one proxy before each server, with TLS, accounts and tables."""

from __future__ import annotations

import hashlib
import platform
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

import attrs
import pytest

from odptwist import __version__
from tests.support.certificates import Authority
from tests.support.clients import PAUSING, Address, Client, Error, Pause, Seen, read_seen
from tests.support.compatibility import CompatibilityPage
from tests.support.servers import Proxy, Server, find_module, wait_until
from tests.support.sessions import query

pytest.register_assert_rewrite("tests.integration.clients.features")

ADMINISTRATOR = "hunter2"
ACCOUNTS = {"app": "secret", "other": "also secret"}
TABLES = (
    "DROP DATABASE IF EXISTS clients",  # of a proxy that did not start
    "CREATE DATABASE clients",
    "CREATE TABLE clients.sample (id INT PRIMARY KEY, tiny TINYINT, large BIGINT UNSIGNED, price DECIMAL(12, 3),"
    " ratio DOUBLE, born DATE, seen DATETIME(6), lasts TIME, title VARCHAR(100) CHARACTER SET utf8mb4,"
    " raw VARBINARY(20), notes TEXT CHARACTER SET utf8mb4, nothing INT)",
    "INSERT INTO clients.sample VALUES (1, -128, 18446744073709551615, -123456789.125, 0.25, '2024-02-29',"
    " '2024-02-29 12:34:56.789012', '12:34:56', 'Grüße, 世界 🐬', X'00FF275C0A', 'it''s \"quoted\"\\\\\\n', NULL)",
    "INSERT INTO clients.sample VALUES (2, 127, 0, 0.001, -2.5, '1000-01-01', '9999-12-31 23:59:59.999999',"
    " '23:59:59', '', '', 'x', NULL)",
    "INSERT INTO clients.sample (id) VALUES (3)",
    "CREATE TABLE clients.digits (n INT PRIMARY KEY)",
    f"INSERT INTO clients.digits VALUES {', '.join(f'({number})' for number in range(200))}",
    "CREATE TABLE clients.large (id INT PRIMARY KEY, text VARCHAR(1000) CHARACTER SET utf8mb4)",
    "INSERT INTO clients.large SELECT a.n * 200 + b.n, REPEAT('x', 1000) FROM clients.digits a, clients.digits b",
)


@attrs.frozen
class Entrance:
    """A proxy before one server.

    Attributes:
        address: of the proxy, with the account `app`.
        other: the same, with the account `other`.
        other_ca: a file with the certificate of an authority that has signed nothing here.
        server: what is behind.
        version: of the server.
    """

    address: Address
    other: Address
    other_ca: Path
    server: Server
    version: str
    proxy: Proxy
    _administrator: Any

    def kill(self, number: int) -> None:
        """End a session, as an administrator."""
        query(self._administrator, f"KILL PROXYSESSION {number}")

    def encryption(self, number: int) -> tuple[int, str]:
        """Return whether a session's client uses TLS, and the cipher."""
        (found,) = query(self._administrator, f"SELECT using_ssl, cipher FROM proxysession WHERE Id = {number}")
        return int(found[0]), str(found[1])

    def close(self) -> None:
        """End the proxy, at which no client may have left a session, and remove what the server got for it."""
        with self._administrator as last:
            wait_until(lambda: len(query(last, "SHOW PROXYSESSION")) == 1, what="the end of all other sessions")
        self.proxy.stop()
        with self.server.connect() as root:
            query(root, "DROP DATABASE clients", *(f"DROP USER '{name}'@'%'" for name in ACCOUNTS))

    def executions(self) -> int:
        """Return how often the server has executed a prepared statement, by the binary protocol; 0 without a count."""
        with self.server.connect() as root:
            counted = query(root, "SHOW GLOBAL STATUS LIKE 'Com_stmt_execute'")
        return int(counted[0][1]) if counted else 0

    @property
    def direct(self) -> dict[str, Any]:
        """Where the server itself is, as Python's clients want it."""
        host, _, rest = self.server.address.partition(":")
        return {"unix_socket": rest} if host == "unix" else {"host": host, "port": int(rest)}

    def direct_errors(self, statements: Sequence[str]) -> list[Error]:
        """Return the errors that the server gives `app` directly, by a client that tells all of an error."""
        connector = find_module("mysql.connector", "mysql-connector-python")
        errors = []
        with connector.connect(
            **self.direct, user="app", password=ACCOUNTS["app"], database="clients", use_pure=True, charset="utf8mb4"
        ) as connection:
            for statement in statements:
                with connection.cursor() as cursor, pytest.raises(connector.Error) as caught:
                    cursor.execute(statement)
                errors.append(Error(caught.value.errno, caught.value.sqlstate, caught.value.msg))
        return errors


class See(Protocol):
    """Runs the client of a test; `changes` are those of the address."""

    def __call__(self, feature: str, sql: str, pause: Pause = ..., **changes: Any) -> Seen:
        """Return what it saw."""


@pytest.fixture(scope="package")
def entrances(
    request: pytest.FixtureRequest, directory: Callable[[], Path], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Callable[[str], Entrance]]:
    """Return a function that gives the proxy before a kind of server, which is started when it is first asked for."""
    find_module("OpenSSL", "pyOpenSSL")
    files = tmp_path_factory.mktemp("certificates")
    authority = Authority()
    certificate = authority.write(files, "localhost", "127.0.0.1")
    authority.write_own(files)
    (files / "other.pem").write_bytes(Authority("other").pem)
    running: dict[str, Entrance] = {}

    def enter(kind: str) -> Entrance:
        if kind not in running:
            server = request.getfixturevalue(kind)
            running[kind] = start_entrance(server, directory(), certificate)
        return running[kind]

    yield enter
    for entrance in running.values():
        entrance.close()


def start_entrance(server: Server, base: Path, certificate: Path) -> Entrance:
    """Return a proxy before a server that has got the accounts and the tables."""
    with server.connect() as root:
        ((version,),) = query(root, *TABLES, "SELECT VERSION()")
        for name, password in ACCOUNTS.items():
            query(root, f"CREATE USER IF NOT EXISTS '{name}'@'%' IDENTIFIED BY '{password}'")
            # seekdb wants FILE for LOAD DATA LOCAL, too.
            query(root, f"GRANT ALL ON clients.* TO '{name}'@'%'", f"GRANT FILE ON *.* TO '{name}'@'%'")
    (base / "odp.toml").write_text(
        # With ids of version 2, CONNECTION_ID() is what KILL PROXYSESSION wants: not all clients know another way.
        "client_session_id_version = 2\n"
        f'[admin]\npassword_sha1 = "{hashlib.sha1(ADMINISTRATOR.encode()).hexdigest()}"\n',
        encoding="utf-8",
    )
    options = ("--config", "odp.toml", "--tls", str(certificate), "--cluster-name", "ob1")
    proxy = Proxy(base, *options, "--server", server.address)
    of_app, of_other = (
        Address("127.0.0.1", proxy.port, f"{name}@sys#ob1", password, "clients", certificate.with_name("ca.pem"))
        for name, password in ACCOUNTS.items()
    )
    administrator = proxy.connect("root", "@proxysys", password=ADMINISTRATOR, ssl_disabled=True)
    return Entrance(of_app, of_other, certificate.with_name("other.pem"), server, version, proxy, administrator)


@pytest.fixture(params=["mariadb", "seekdb"])
def behind(request: pytest.FixtureRequest) -> str:
    """Return the kind of the server."""
    return str(request.param)


@pytest.fixture
def entrance(
    behind: str, entrances: Callable[[str], Entrance], record_property: Callable[[str, object], None]
) -> Entrance:
    """Return the proxy before that server."""
    entrance = entrances(behind)
    record_property("server_version", entrance.version)
    return entrance


@pytest.fixture
def address(entrance: Entrance) -> Address:
    """Return where clients connect."""
    return entrance.address


@pytest.fixture
def client(
    request: pytest.FixtureRequest,
    behind: str,
    directory: Callable[[], Path],
    record_property: Callable[[str, object], None],
) -> Client:
    """Return the client of the test's class, or skip the test where it is not installed or lacks the feature."""
    client: Client = request.cls.client
    feature = request.node.originalname.removeprefix("test_")
    record_property("client", client.name)
    record_property("server", behind)
    record_property("feature", feature)
    record_property("says", request.function.__doc__.partition("\n")[0])
    record_property("version", client.find(directory))
    if feature in client.lacks:
        record_property("lacks", client.lacks[feature])
        pytest.skip(f"{client.name}: {client.lacks[feature]}")
    if reason := client.fails.get(feature) or client.fails.get(f"{feature} {behind}"):
        request.applymarker(pytest.mark.xfail(reason=reason, strict=True))
    return client


@pytest.fixture
def see(client: Client, address: Address) -> See:
    """Return a function that runs the client."""

    def run(feature: str, sql: str, pause: Pause = lambda number: None, **changes: Any) -> Seen:
        seen = read_seen(client.run(feature, attrs.evolve(address, **changes), sql, pause))
        if seen.error and not changes and feature not in PAUSING[:1]:
            pytest.fail(f"{client.name}: {seen.error}")
        return seen

    return run


@pytest.fixture
def note(record_property: Callable[[str, object], None]) -> Callable[[str], None]:
    """Return a function that keeps a text for the compatibility page."""
    return lambda text: record_property("note", text)


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the option that writes the page."""
    parser.addoption("--compatibility", metavar="FILE", help="write the compatibility page of the documentation")


def pytest_configure(config: pytest.Config) -> None:
    """Write the page, if that is asked for."""
    # Without this directory on its command line, pytest reads this file too late for options.
    if path := config.getoption("compatibility", None):
        setting = {"odptwist": __version__, "Python": platform.python_version()}
        config.pluginmanager.register(CompatibilityPage(Path(path), setting))
