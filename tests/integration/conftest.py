"""What the integration tests share: servers and pairs of servers for all of them, proxies before them, connections."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

pymysql = pytest.importorskip("pymysql")

from pymysql.connections import Connection  # noqa: E402

from tests.support.pair_proxy import connect_app, start_pair_proxy  # noqa: E402
from tests.support.pairs import MariaDbPair, Pair, SeekdbPair  # noqa: E402
from tests.support.servers import MariaDb, Proxy, Seekdb, Server, find_program, wait_until  # noqa: E402
from tests.support.sessions import query  # noqa: E402

_FIGURES = pytest.StashKey[list[str]]()

Connect = Callable[..., Connection]


@pytest.fixture(scope="session")
def directory() -> Iterator[Callable[[], Path]]:
    """Return a maker of empty directories whose paths are short enough for Unix sockets."""
    bases: list[Path] = []

    def make() -> Path:
        bases.append(Path(tempfile.mkdtemp(prefix="odp")))
        return bases[-1]

    yield make
    for base in bases:
        shutil.rmtree(base, ignore_errors=True)


@pytest.fixture(scope="session")
def seekdb(directory: Callable[[], Path]) -> Iterator[Server]:
    """Return a running seekdb."""
    server = Seekdb(directory())
    try:
        server.start()
        yield server
    finally:
        server.stop()


@pytest.fixture(scope="session")
def mariadb(directory: Callable[[], Path]) -> Iterator[Server]:
    """Return a running MariaDB."""
    server = MariaDb(directory())
    try:
        server.start()
        with server.connect() as root:
            query(root, "CREATE DATABASE IF NOT EXISTS test")
        yield server
    finally:
        server.stop()


@pytest.fixture(scope="session")
def mariadb_pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair[Any]]:
    """Return a MariaDB primary and its replica; each test gets both alive, in any roles."""
    pair = MariaDbPair(lambda: tmp_path_factory.mktemp("pair"))
    yield pair
    pair.close()


@pytest.fixture(scope="session")
def seekdb_pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair[Any]]:
    """Return a seekdb primary and its standby; each test gets both alive, in any roles."""
    pair = SeekdbPair(lambda: tmp_path_factory.mktemp("pair"))
    yield pair
    pair.close()


@pytest.fixture(scope="module", params=["mariadb_pair", "seekdb_pair"])
def pair(request: pytest.FixtureRequest) -> Any:
    """Return either pair."""
    return request.getfixturevalue(request.param)


@pytest.fixture(scope="module")
def pair_proxy(pair: Pair[Any], directory: Callable[[], Path]) -> Iterator[Proxy]:
    """Return a proxy before `pair`, for all tests of a module."""
    running = start_pair_proxy(directory(), pair)
    try:
        yield running
    finally:
        running.stop()


@pytest.fixture
def app(pair_proxy: Proxy, opened: list[Connection]) -> Connect:
    """Return a maker of connections of `app` through `pair_proxy`; the arguments are those of `connect_app`."""

    def make(cluster: str = "ob1", **more: Any) -> Connection:
        opened.append(connect_app(pair_proxy, cluster, **more))
        return opened[-1]

    return make


@pytest.fixture(autouse=True)
def restored_pairs(request: pytest.FixtureRequest) -> Iterator[None]:
    """Restore the pairs that a test has used."""
    yield
    used = {id(value): value for value in request.node.funcargs.values() if isinstance(value, Pair)}
    for each in used.values():
        each.restore()


@pytest.fixture(scope="session")
def mariadb_client() -> str:
    """Return the path of the command-line client."""
    return find_program("mariadb", "mariadb-client")


@pytest.fixture(scope="module", params=["seekdb", "mariadb"])
def server(request: pytest.FixtureRequest) -> Any:
    """Return either server."""
    return request.getfixturevalue(request.param)


@pytest.fixture(scope="module")
def proxy(server: Server, directory: Callable[[], Path]) -> Iterator[Proxy]:
    """Return a proxy before `server`, for all tests of a module; none may leave a session behind."""
    running = Proxy(directory(), "--server", server.address, "--cluster-name", "ob1")
    try:
        yield running
        with running.connect() as last:
            wait_until(lambda: len(query(last, "SHOW PROXYSESSION")) == 1, what="the end of all other sessions")
    finally:
        running.stop()


@pytest.fixture
def start_proxy(directory: Callable[[], Path]) -> Iterator[Callable[..., Proxy]]:
    """Return a maker of proxies; the arguments are those of `Proxy` without the directory."""
    running: list[Proxy] = []

    def start(*options: str, **more: Any) -> Proxy:
        running.append(Proxy(directory(), *options, **more))
        return running[-1]

    yield start
    for each in running:
        each.stop()


@pytest.fixture(scope="session")
def authority() -> Any:
    """Return who signs all certificates of these tests."""
    return pytest.importorskip("tests.support.certificates").Authority()


@pytest.fixture(scope="session")
def files(authority: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a directory with ca.pem, localhost.pem (also for 127.0.0.1) and other.pem, another authority."""
    path = tmp_path_factory.mktemp("certificates")
    authority.write_own(path)
    authority.write(path, "localhost", "127.0.0.1")
    authority.write(path, "elsewhere")
    (path / "other.pem").write_bytes(type(authority)("other").pem)
    return path


@pytest.fixture
def start_with(start_proxy: Callable[..., Proxy], tmp_path: Path) -> Callable[[str], Proxy]:
    """Return a maker of proxies with a settings file."""

    def start(text: str) -> Proxy:
        path = tmp_path / f"{len(list(tmp_path.iterdir()))}.toml"
        path.write_text(text)
        return start_proxy("--config", str(path))

    return start


@pytest.fixture
def opened() -> Iterator[list[Connection]]:
    """Return a list of connections that are closed when the test is over."""
    connections: list[Connection] = []
    yield connections
    for connection in connections:
        with suppress(pymysql.Error, OSError):
            connection._force_close()


@pytest.fixture
def connect(proxy: Proxy, opened: list[Connection]) -> Connect:
    """Return a maker of connections through the proxy."""

    def make(*arguments: Any, **more: Any) -> Connection:
        opened.append(proxy.connect(*arguments, **more))
        return opened[-1]

    return make


@pytest.fixture
def direct(server: Server, opened: list[Connection]) -> Connection:
    """Return a connection to the server itself, of its root."""
    opened.append(server.connect())
    return opened[-1]


@pytest.fixture
def figure(request: pytest.FixtureRequest) -> Callable[[str], None]:
    """Return a function that makes a measured figure appear at the end of pytest's output."""
    figures = request.config.stash.setdefault(_FIGURES, [])
    name = request.node.name

    def note(text: str) -> None:
        figures.append(f"{name}: {text}")

    return note


def pytest_configure(config: pytest.Config) -> None:
    """Register the marker of this directory's tests."""
    config.addinivalue_line("markers", "slow: takes many seconds; skipped unless -m or ODPTWIST_REQUIRE=all is given")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Skip what is slow, except in CI and where somebody chooses by markers."""
    if os.environ.get("ODPTWIST_REQUIRE") == "all" or config.option.markexpr:
        return
    for item in items:
        if item.get_closest_marker("slow"):
            item.add_marker(pytest.mark.skip(reason="slow: runs with -m slow, or where ODPTWIST_REQUIRE=all is set"))


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    """Print the figures."""
    figures = config.stash.get(_FIGURES, [])
    if figures:
        terminalreporter.section("figures")
        for line in figures:
            terminalreporter.write_line(line)
