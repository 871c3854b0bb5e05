"""Drivers' own tests, run directly and through the proxy: the proxy makes no difference."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support.certificates import Authority
from tests.support.driver_suite import DriverSuite, Outcomes
from tests.support.encrypted import settings
from tests.support.servers import MariaDb, Proxy, find_module, find_program
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
            query(root, "CREATE DATABASE test", "CREATE DATABASE test1", "CREATE DATABASE test2")
            for name, password in ACCOUNTS.items():
                query(root, f"CREATE USER {name} IDENTIFIED BY '{password}'", f"GRANT RELOAD ON *.* TO {name}")
            query(root, f"ALTER USER root@127.0.0.1 IDENTIFIED BY '{PASSWORD}'")
        yield running
    finally:
        running.stop()


@pytest.fixture(scope="module")
def ports(server: MariaDb, directory: Callable[[], Path], files: Path) -> Iterator[tuple[int, int]]:
    """Return the port of the server, and that of a proxy before it."""
    base = directory()
    text = settings(server, 'server_tls = "preferred"', f'certificate = "{files / "localhost.pem"}"')
    (base / "odp.toml").write_text(f"client_session_id_version = 2\n{text}", encoding="utf-8")
    proxy = Proxy(base, "--config", "odp.toml")
    try:
        yield server.port, proxy.port
    finally:
        proxy.stop()


@pytest.fixture
def compare(ports: tuple[int, int], figure: Callable[[str], None]) -> Callable[[str, Callable[[int], Outcomes]], None]:
    """Return a function that runs tests directly and through the proxy, and fails if that makes a difference."""

    def both(name: str, run: Callable[[int], Outcomes]) -> None:
        direct, proxied = map(run, ports)
        figure(f"{name}, directly: {direct}")
        figure(f"{name}, through the proxy: {proxied}")
        assert len(direct.failed) < len(direct.passed) / 10, direct.output
        assert proxied.failed == direct.failed, proxied.output
        assert (proxied.passed, proxied.skipped) == (direct.passed, direct.skipped)

    return both


Compare = Callable[[str, Callable[[int], Outcomes]], None]


def test_mysqlclient(compare: Compare, tmp_path: Path) -> None:
    """All tests of mysqlclient pass, with those that it has for SQLAlchemy."""
    for program, package in ("gcc", "gcc"), ("pkg-config", "pkg-config"), ("mariadb_config", "libmariadb-dev"):
        find_program(program, package)
    suite = DriverSuite(tmp_path, "mysqlclient==2.3.1", ["sqlalchemy"])

    def run(port: int) -> Outcomes:
        where = tmp_path / f"{port}.cnf"
        where.write_text(
            f"[MySQLdb-tests]\nhost=127.0.0.1\nport={port}\nuser=root\npassword={PASSWORD}\ndatabase=test\n"
            "default-character-set=utf8mb4\n"
        )
        return suite.run("tests", environment={"TESTDB": str(where)})

    compare(suite.name, run)


def test_aiomysql(compare: Compare, tmp_path: Path) -> None:
    """The same tests of aiomysql fail, all by TLS; those that need uvloop are left out, as they are the same again."""
    suite = DriverSuite(tmp_path, "aiomysql==0.3.2", ["sqlalchemy>=1.3,<1.4", "uvloop"])

    def run(port: int) -> Outcomes:
        arguments = (f"--mysql-address=server=127.0.0.1:{port}", "-k", "not uvloop", "tests")
        return suite.run(*arguments, environment={"MYSQL_ROOT_PASSWORD": PASSWORD})

    compare(suite.name, run)


def test_pymysql(compare: Compare, files: Path, tmp_path: Path) -> None:
    """The tests that the source distribution of PyMySQL still has pass: logins with and without TLS."""
    suite = DriverSuite(tmp_path, "pymysql==1.2.4", ["cryptography"], conftest=AT_A_PORT)

    def run(port: int) -> Outcomes:
        return suite.run("tests", environment={"SUITE_PORT": str(port), "HOME": str(files)})

    compare(suite.name, run)


def test_old_pymysql(compare: Compare, tmp_path: Path) -> None:
    """The same tests of PyMySQL 0.10.1 fail, the last version whose source distribution has all tests."""
    suite = DriverSuite(tmp_path, "PyMySQL==0.10.1")

    def run(port: int) -> Outcomes:
        where = {"host": "127.0.0.1", "port": port, "user": "root", "passwd": PASSWORD, "use_unicode": True}
        databases = [{**where, "db": "test1", "local_infile": True}, {**where, "db": "test2"}]
        (suite.source / "pymysql/tests/databases.json").write_text(json.dumps(databases), encoding="utf-8")
        return suite.run("pymysql/tests", environment={})

    compare(suite.name, run)
