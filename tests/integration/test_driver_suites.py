"""Drivers' own tests, run directly and through the proxy: the proxy makes no difference."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator, Set
from pathlib import Path
from typing import Protocol

import attrs
import pytest

from tests.support.certificates import Authority
from tests.support.driver_suite import DriverSuite, Outcomes
from tests.support.encrypted import settings
from tests.support.servers import MariaDb, Proxy, Seekdb, find_module, find_program
from tests.support.sessions import query

PASSWORD = "rootpw"
# What PyMySQL's tests of authentication log in as. MariaDB has no such methods, so the passwords are proved by its own.
ACCOUNTS = {
    "nopass_sha256": "",
    "user_sha256": "pass_sha256_01234567890123456789",
    "nopass_caching_sha2": "",
    "user_caching_sha2": "pass_caching_sha2_01234567890123456789",
}
AT_A_PORT = """\
import os

def pytest_collection_modifyitems(items):
    for item in items:
        item.module.port = int(os.environ["SUITE_PORT"])
"""


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a directory with the certificates of an authority and of this machine."""
    find_module("OpenSSL", "pyOpenSSL")
    path = tmp_path_factory.mktemp("certificates")
    authority = Authority()
    authority.write_own(path)
    authority.write(path, "localhost", "127.0.0.1")
    return path


@pytest.fixture(scope="module")
def server(directory: Callable[[], Path], files: Path) -> Iterator[MariaDb]:
    """Return a MariaDB with TLS and the accounts and databases that the tests want."""
    pem = files / "localhost.pem"
    running = MariaDb(directory(), f"ssl-cert={pem}", f"ssl-key={pem}", f"ssl-ca={files / 'ca.pem'}")
    try:
        running.start()
        with running.connect() as root:
            query(root, *(f"CREATE DATABASE {name}" for name in ("test_mysqlclient", "test1", "test2")))
            for name, password in ACCOUNTS.items():
                query(root, f"CREATE USER {name} IDENTIFIED BY '{password}'", f"GRANT RELOAD ON *.* TO {name}")
            query(root, "CREATE USER monitor IDENTIFIED BY 'secret'", "GRANT SELECT ON mysql.* TO monitor")
            query(root, f"ALTER USER root@127.0.0.1 IDENTIFIED BY '{PASSWORD}'")
        yield running
    finally:
        running.stop()


@attrs.frozen
class Place:
    """Where tests connect, as `root`: a port of this machine, or a Unix socket."""

    port: int = 0
    socket: str = ""
    password: str = PASSWORD


class Compare(Protocol):
    """Runs tests directly and through the proxy, and fails if that makes another difference than `cured`."""

    def __call__(
        self, name: str, places: tuple[Place, Place], run: Callable[[Place], Outcomes], cured: Set[str] = ...
    ) -> None:
        """Compare; `cured` fail directly, because of what the proxy makes right."""


@pytest.fixture(scope="module")
def of_mariadb(server: MariaDb, directory: Callable[[], Path], files: Path) -> Iterator[tuple[Place, Place]]:
    """Return the place of the server, and that of a proxy before it."""
    base = directory()
    text = settings(server, 'server_tls = "preferred"', f'certificate = "{files / "localhost.pem"}"')
    text += '[service_account]\nuser = "monitor"\npassword = "secret"\n'  # so that it can log in again by itself
    (base / "odp.toml").write_text(f"client_session_id_version = 2\n{text}", encoding="utf-8")
    proxy = Proxy(base, "--config", "odp.toml")
    try:
        yield Place(server.port), Place(proxy.port)
    finally:
        proxy.stop()


@pytest.fixture(scope="module")
def of_seekdb(seekdb: Seekdb, directory: Callable[[], Path]) -> Iterator[tuple[Place, Place]]:
    """Return the place of a seekdb, and that of a proxy before it."""
    proxy = Proxy(directory(), "--server", seekdb.address)
    with seekdb.connect() as root:
        query(root, "CREATE DATABASE test_mysqlclient")
        try:
            yield Place(socket=seekdb.socket, password=""), Place(proxy.port, password="")
        finally:
            proxy.stop()
            query(root, "DROP DATABASE test_mysqlclient")


@pytest.fixture
def compare(figure: Callable[[str], None]) -> Compare:
    """Return a function that compares, and prints both sets of failures."""

    def both(
        name: str, places: tuple[Place, Place], run: Callable[[Place], Outcomes], cured: Set[str] = frozenset()
    ) -> None:
        direct, proxied = map(run, places)
        figure(f"{name}, directly: {direct}")
        figure(f"{name}, through the proxy: {proxied}")
        assert len(direct.failed) < len(direct.passed) / 10, direct.output
        assert proxied.failed == direct.failed - cured, proxied.output
        assert (proxied.passed, proxied.skipped) == (direct.passed | cured, direct.skipped)

    return both


# seekdb executes several statements in one text also for clients that have not asked for that.
@pytest.mark.parametrize(
    ("places", "cured"),
    [("of_mariadb", set()), ("of_seekdb", {"tests.test_connection.test_multi_statements_false"})],
    ids=["mariadb", "seekdb"],
)
def test_mysqlclient(
    places: str, cured: set[str], compare: Compare, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    """The same tests of mysqlclient fail, before MariaDB none; there are some for SQLAlchemy among them."""
    for program, package in ("gcc", "gcc"), ("pkg-config", "pkg-config"), ("mariadb_config", "libmariadb-dev"):
        find_program(program, package)
    suite = DriverSuite(tmp_path, "mysqlclient==2.3.1", ["sqlalchemy"])

    def run(place: Place) -> Outcomes:
        where = tmp_path / "where.cnf"
        end = f"socket={place.socket}" if place.socket else f"host=127.0.0.1\nport={place.port}"
        where.write_text(
            f"[MySQLdb-tests]\n{end}\nuser=root\npassword={place.password}\ndatabase=test_mysqlclient\n"
            "default-character-set=utf8mb4\n"
        )
        return suite.run("tests", environment={"TESTDB": str(where)})

    compare(suite.name, request.getfixturevalue(places), run, cured)


@pytest.mark.slow
def test_aiomysql(of_mariadb: tuple[Place, Place], compare: Compare, tmp_path: Path) -> None:
    """The same tests of aiomysql fail, all by TLS; those that need uvloop are left out, as they are the same again."""
    suite = DriverSuite(tmp_path, "aiomysql==0.3.2", ["pymysql<1.2", "sqlalchemy>=1.3,<1.4", "uvloop"])

    def run(place: Place) -> Outcomes:
        arguments = (f"--mysql-address=server=127.0.0.1:{place.port}", "-k", "not uvloop", "tests")
        return suite.run(*arguments, environment={"MYSQL_ROOT_PASSWORD": place.password})

    compare(suite.name, of_mariadb, run)


def test_pymysql(of_mariadb: tuple[Place, Place], compare: Compare, files: Path, tmp_path: Path) -> None:
    """The tests that the source distribution of PyMySQL still has pass: logins with and without TLS."""
    suite = DriverSuite(tmp_path, "pymysql==1.2.4", ["cryptography"], conftest=AT_A_PORT)

    def run(place: Place) -> Outcomes:
        return suite.run("tests", environment={"SUITE_PORT": str(place.port), "HOME": str(files)})

    compare(suite.name, of_mariadb, run)


@pytest.mark.skipif(sys.version_info >= (3, 12), reason="these tests need Python's old module imp")
def test_old_pymysql(of_mariadb: tuple[Place, Place], compare: Compare, tmp_path: Path) -> None:
    """The same tests of PyMySQL 0.10.1 fail, the last version whose source distribution has all tests."""
    suite = DriverSuite(tmp_path, "PyMySQL==0.10.1")

    def run(place: Place) -> Outcomes:
        where = {"host": "127.0.0.1", "port": place.port, "user": "root", "passwd": place.password}
        databases = [{**where, "db": "test1", "use_unicode": True, "local_infile": True}, {**where, "db": "test2"}]
        (suite.source / "pymysql/tests/databases.json").write_text(json.dumps(databases), encoding="utf-8")
        return suite.run("pymysql/tests", environment={})

    compare(suite.name, of_mariadb, run)
