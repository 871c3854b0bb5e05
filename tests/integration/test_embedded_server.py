"""The embedded server for real: seekdb itself, and PyMySQL as the client.

These are pytest functions: pytest-twisted runs the reactor from the first of them on, and trial's asynchronous test
cases cannot run in one process with it.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from typing import Any, cast

import pytest
import pytest_twisted
from twisted.internet import reactor as global_reactor
from twisted.internet.task import deferLater
from twisted.internet.threads import deferToThread

from odptwist.embedded.directory import DataDirectory
from odptwist.embedded.seekdb import EmbeddedServer, IServerReactor, find_seekdb
from odptwist.errors import EmbeddedError
from odptwist.snapshots import Address

pymysql = pytest.importorskip("pymysql")
pytestmark = pytest.mark.skipif(find_spec("pylibseekdb") is None, reason="needs PyPI's pylibseekdb")

reactor = cast(IServerReactor, global_reactor)

OWNER = """
import sys
from twisted.internet import reactor
from odptwist.embedded.seekdb import EmbeddedServer

server = EmbeddedServer(reactor, sys.argv[1])


def start():
    started = server.start()
    print(server.pid, flush=True)
    started.addCallbacks(lambda address: print(address.path, flush=True), lambda failure: print(failure, flush=True))


reactor.callWhenRunning(start)
reactor.run()
"""
"""A proxy in little: prints the pid of its server, and the socket's path when that is ready."""


@pytest.fixture
def path() -> Iterator[str]:
    """Return the path of a data directory that does not exist yet."""
    base = tempfile.mkdtemp(prefix="odp")
    yield os.path.join(base, "data")
    shutil.rmtree(base)


@pytest.fixture
def server_in() -> Iterator[Callable[..., EmbeddedServer]]:
    """Return a maker of servers; whatever still runs when the test is over, is killed."""
    servers: list[EmbeddedServer] = []

    def make(path: str, **more: Any) -> EmbeddedServer:
        server = EmbeddedServer(reactor, path, **more)
        servers.append(server)
        return server

    yield make
    for server in servers:
        if server.pid is not None:
            pytest_twisted.blockon(server.stop())


def query(address: Address, *statements: str) -> Any:
    """Return the rows of the last statement; blocks, so it is for a thread."""
    connection = pymysql.connect(unix_socket=address.path, user="root", autocommit=True, read_timeout=20)
    try:
        with connection.cursor() as cursor:
            for statement in statements:
                cursor.execute(statement)
            return cursor.fetchall()
    finally:
        connection.close()


def is_running(pid: int) -> bool:
    """Say whether a process runs; one that has ended and was not waited for does not."""
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


def ended_within(pid: int, seconds: float) -> bool:
    """Wait for a process that is not our child."""
    deadline = time.monotonic() + seconds
    while is_running(pid):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.01)
    return True


def sockets_of(pid: int) -> set[str]:
    """Return the sockets of a process, as /proc names them."""
    names = set()
    for number in os.listdir(f"/proc/{pid}/fd"):
        with contextlib.suppress(FileNotFoundError):
            names.add(os.readlink(f"/proc/{pid}/fd/{number}"))
    return {name for name in names if name.startswith("socket:")}


def listening_sockets() -> set[str]:
    """Return the TCP sockets of this machine that listen, as /proc names them."""
    names = set()
    for table in "tcp", "tcp6":
        with contextlib.suppress(FileNotFoundError), open(f"/proc/net/{table}") as file:
            names |= {f"socket:[{line.split()[9]}]" for line in file if line.split()[3] == "0A"}
    return names


def write_program(path: str, text: str) -> str:
    """Write a Python program into a directory and return its path."""
    os.makedirs(path)
    program = os.path.join(path, "program")
    with open(program, "w") as file:
        file.write(f"#!{sys.executable}\n{text}")
    os.chmod(program, 0o700)
    return program


def start_foreign_server(path: str) -> subprocess.Popen[bytes]:
    """Start a seekdb that is not an EmbeddedServer's; it ends with the lock that keeps it alive."""
    arguments = [find_seekdb(), f"--base-dir={path}", "--embedded", "--nodaemon", "--parameter", "memory_budget=1G"]
    environment = {**os.environ, "TELEMETRY_ENABLED": "false"}
    return subprocess.Popen(arguments, env=environment, stderr=subprocess.DEVNULL)


@contextlib.contextmanager
def owner(path: str) -> Iterator[tuple[subprocess.Popen[str], int]]:
    """Run OWNER in a process of its own; yields it and the pid of its server."""
    with subprocess.Popen([sys.executable, "-c", OWNER, path], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        pid = int(process.stdout.readline())
        try:
            yield process, pid
        finally:
            process.kill()
            if not ended_within(pid, 5):
                os.kill(pid, signal.SIGKILL)


@pytest_twisted.ensureDeferred
async def test_cold_and_warm_start(path: str, server_in: Callable[..., EmbeddedServer]) -> None:
    """A server starts in an empty directory, keeps its rows over a restart, and leaves nothing behind."""
    server = server_in(path)
    address = await server.start()
    assert address == Address(path=path + "/run/sql.sock")
    [[version, query_timeout]] = await deferToThread(query, address, "SELECT version(), @@ob_query_timeout")
    assert "seekdb" in version
    assert query_timeout == 3_600_000_000
    await deferToThread(query, address, "CREATE TABLE test.t (a INT PRIMARY KEY)", "INSERT INTO test.t VALUES (7)")
    first = server.pid
    assert first is not None
    assert os.getsid(first) == first, "Ctrl-C at the terminal would reach it"
    assert stat.S_IMODE(os.stat(path).st_mode) == 0o700
    await server.stop()
    assert not is_running(first)

    address = await server.start()
    assert server.pid != first
    assert await deferToThread(query, address, "SELECT a FROM test.t") == ((7,),)
    await server.stop()
    DataDirectory(path).check()


@pytest_twisted.ensureDeferred
async def test_no_port(path: str, server_in: Callable[..., EmbeddedServer]) -> None:
    """The server listens on no TCP port."""
    server = server_in(path)
    await server.start()
    assert server.pid is not None
    assert not listening_sockets() & sockets_of(server.pid)


@pytest_twisted.ensureDeferred
async def test_password_is_an_answer(path: str, server_in: Callable[..., EmbeddedServer]) -> None:
    """A server whose root has got a password starts like any other."""
    server = server_in(path)
    address = await server.start()
    await deferToThread(query, address, "ALTER USER root IDENTIFIED BY 'secret'")
    await server.stop()
    address = await server.start()
    with pytest.raises(pymysql.err.OperationalError, match="1045"):
        await deferToThread(query, address, "SELECT 1")


@pytest_twisted.ensureDeferred
async def test_two_in_one_directory(path: str, server_in: Callable[..., EmbeddedServer]) -> None:
    """The second of two servers fails, names who is there, and does not disturb the first."""
    first = server_in(path)
    address = await first.start()
    second = server_in(path)
    with pytest.raises(EmbeddedError, match=rf"{path} is in use by another odptwist \(pid {os.getpid()}\)"):
        await second.start()
    await second.stop()
    assert await deferToThread(query, address, "SELECT 1") == ((1,),)


@pytest_twisted.ensureDeferred
async def test_long_path(path: str, server_in: Callable[..., EmbeddedServer]) -> None:
    """A directory whose socket's path is longer than a socket address allows works."""
    path = os.path.join(path, "x" * 60, "y" * 60)
    server = server_in(path)
    address = await server.start()
    assert len(path) > 108
    assert len(address.path) < 108
    assert await deferToThread(query, address, "SELECT 1") == ((1,),)


@pytest_twisted.ensureDeferred
async def test_unexpected_end(path: str, server_in: Callable[..., EmbeddedServer]) -> None:
    """The owner is told of a crash, and committed rows survive it."""
    exits: list[EmbeddedError] = []
    server = server_in(path, on_exit=exits.append)
    address = await server.start()
    await deferToThread(query, address, "CREATE TABLE test.t (a INT PRIMARY KEY)", "INSERT INTO test.t VALUES (7)")
    assert server.pid is not None
    os.kill(server.pid, signal.SIGSEGV)
    for _ in range(500):
        if exits:
            break
        await deferLater(reactor, 0.02)
    assert "ended by itself" in str(exits[0])
    address = await server.start()
    assert await deferToThread(query, address, "SELECT a FROM test.t") == ((7,),)


@pytest_twisted.ensureDeferred
async def test_stopped_while_starting(path: str, server_in: Callable[..., EmbeddedServer]) -> None:
    """At whatever moment of the start the stop comes, no server remains and the directory can be used again."""
    for seconds in 0, 0.05, 0.2, 0.5:
        server = server_in(path)
        starting = server.start()
        pid = server.pid
        assert pid is not None
        await deferLater(reactor, seconds)
        await server.stop()
        assert not is_running(pid)
        with pytest.raises(EmbeddedError, match="stopped while starting"):
            await starting
    server = server_in(path)
    await server.start()


@pytest_twisted.ensureDeferred
async def test_failing_start(path: str, server_in: Callable[..., EmbeddedServer], monkeypatch: Any) -> None:
    """A setting that seekdb refuses fails the start with what seekdb's log says about it."""
    settings = (("--parameter", "memory_budget=1G"), ("--parameter", "log_disk_size=1G"))
    monkeypatch.setattr("odptwist.embedded.seekdb.SETTINGS", settings)
    server = server_in(path)
    with pytest.raises(EmbeddedError, match=r"(?s)exit status 1; last lines of .*OB_RESOURCE_UNIT_VALUE_INVALID"):
        await server.start()
    assert server.pid is None


@pytest_twisted.ensureDeferred
async def test_program_without_socket(path: str, server_in: Callable[..., EmbeddedServer]) -> None:
    """A program that neither listens nor minds its lock is killed."""
    text = "import sys, time\nprint('here', file=sys.stderr, flush=True)\ntime.sleep(60)\n"
    program = write_program(path, text)
    server = server_in(path, program=program, start_timeout=0.5, stop_timeout=0.2)
    starting = server.start()
    pid = server.pid
    assert pid is not None
    with pytest.raises(EmbeddedError, match=r"(?s)did not answer a login within 0\.5 s.*here"):
        await starting
    assert not is_running(pid)


def test_owner_is_killed(path: str) -> None:
    """When the proxy is killed by SIGKILL, in service or while starting, its server ends."""
    with owner(path) as (process, pid):
        process.kill()
        process.wait()
        assert ended_within(pid, 10), "it ends when its own start is complete"
    with owner(path) as (process, pid):
        assert process.stdout is not None
        assert process.stdout.readline().strip() == path + "/run/sql.sock"
        process.kill()
        process.wait()
        assert ended_within(pid, 2)


@pytest_twisted.ensureDeferred
async def test_successor_of_the_killed(path: str, server_in: Callable[..., EmbeddedServer]) -> None:
    """A proxy can be started in the moment in which its predecessor was killed."""
    with owner(path) as (process, pid):
        assert process.stdout is not None
        process.stdout.readline()
        process.kill()
        process.wait()
        server = server_in(path)
        address = await server.start()
        assert server.pid != pid
        assert not is_running(pid)
        assert await deferToThread(query, address, "SELECT 1") == ((1,),)


@pytest_twisted.ensureDeferred
async def test_foreign_server(path: str, server_in: Callable[..., EmbeddedServer]) -> None:
    """A server that somebody else keeps alive is left alone and named."""
    directory = DataDirectory(path)
    directory.lock()
    assert directory.let_server_live()
    with start_foreign_server(path) as foreign:
        for _ in range(500):
            if directory.server_pid() is not None:
                break
            await deferLater(reactor, 0.02)
        os.unlink(os.path.join(path, "odptwist.lock"))  # It was no odptwist.
        server = server_in(path)
        with pytest.raises(EmbeddedError, match=rf"in use by a seekdb \(pid {foreign.pid}\) that is not ours"):
            await server.start()
        assert foreign.poll() is None
        directory.release()
        foreign.wait(10)
