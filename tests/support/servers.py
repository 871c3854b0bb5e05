"""Real servers and proxies as child processes of the tests, and what tests need to talk to them.

Every child ends with the process that runs the tests, even if that one is killed. Ports are free ones, on loopback.
"""

from __future__ import annotations

import fcntl
import os
import random
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Generic, NoReturn, TypeVar

import pymysql
import pytest
from pymysql.connections import Connection

T = TypeVar("T")

# The kernel kills a child when the thread that started it ends (prctl(2), PR_SET_PDEATHSIG), and tests start servers
# in threads of their own: so one thread that lasts starts all.
_STARTER = ThreadPoolExecutor(max_workers=1, thread_name_prefix="starter")

PATIENCE = 20.0
"""Seconds after which something that should happen at once has not happened."""


def missing(what: str) -> NoReturn:
    """Skip the test that needs something this machine lacks; fail it where the environment says that all is there."""
    if os.environ.get("ODPTWIST_REQUIRE") == "all":
        pytest.fail(f"{what} is missing, and ODPTWIST_REQUIRE=all is set")
    pytest.skip(f"needs {what}")


def find_module(name: str, package: str) -> Any:
    """Return a module of a package of PyPI's, or skip the test."""
    try:
        return import_module(name)
    except ImportError:
        missing(f"PyPI's {package}")


def find_program(name: str, package: str) -> str:
    """Return the path of a program of a Debian package, or skip the test."""
    found = shutil.which(name, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/bin")
    return found or missing(f"{name} (Debian: {package})")


def free_port() -> int:
    """Return a TCP port that nobody uses.

    It is below Linux's ip_local_port_range: else a connection to elsewhere could have it when a server that a test
    killed wants it back.
    """
    while True:
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("", random.randrange(10_000, 32_768)))
            return int(probe.getsockname()[1])


def wait_until(condition: Callable[[], T], seconds: float = PATIENCE, what: str = "the condition") -> T:
    """Return the first true value of `condition`, asked again and again; fail the test if there is none in time."""
    deadline = time.monotonic() + seconds
    while not (value := condition()):
        if time.monotonic() > deadline:
            pytest.fail(f"{what} did not come true within {seconds:g} s (last: {value!r})")
        time.sleep(0.005)
    return value


class Background(Generic[T]):
    """Runs a blocking call in a thread of its own."""

    def __init__(self, work: Callable[..., T], *arguments: Any) -> None:
        self._outcome: list[T] = []
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, args=(work, arguments), daemon=True)
        self._thread.start()

    def _run(self, work: Callable[..., T], arguments: tuple[Any, ...]) -> None:
        try:
            self._outcome.append(work(*arguments))
        except BaseException as error:  # noqa: BLE001 - it is the waiter's
            self._error = error

    @property
    def running(self) -> bool:
        """Whether the call has not returned."""
        return self._thread.is_alive()

    def result(self, seconds: float = PATIENCE) -> T:
        """Wait for the call, and return or raise what it did."""
        self._thread.join(seconds)
        if self.running:
            pytest.fail(f"a call did not return within {seconds:g} s")
        if self._error is not None:
            raise self._error
        return self._outcome[0]

    def error(self, seconds: float = PATIENCE) -> tuple[int, str]:
        """Wait for the call to fail with an error of MySQL's, and return its number and text."""
        with pytest.raises(pymysql.MySQLError) as caught:
            self.result(seconds)
        return caught.value.args[0], caught.value.args[1]


class Child:
    """A child process; what it writes goes to a file.

    Attributes:
        pid: its process id.
        log: the file.
    """

    def __init__(self, arguments: Sequence[str], log: Path, **more: Any) -> None:
        setpriv = shutil.which("setpriv")  # util-linux; becomes the program, so the pid is the program's
        tied = [setpriv, "--pdeathsig", "KILL", "--", *arguments] if setpriv else list(arguments)
        self.log = log
        with open(log, "ab") as output:
            streams = {"stdin": subprocess.DEVNULL, "stdout": output, "stderr": output}
            self._process = _STARTER.submit(subprocess.Popen, tied, **streams, **more).result()
        self.pid = self._process.pid

    def output(self) -> str:
        """Return all that it has written."""
        return self.log.read_text(errors="replace")

    @property
    def status(self) -> int | None:
        """The exit status (negative: the signal), None as long as it runs."""
        return self._process.poll()

    def wait_for(self, pattern: str, seconds: float = PATIENCE) -> re.Match[str]:
        """Wait until it has written something that matches."""
        deadline = time.monotonic() + seconds
        while True:
            status, text = self.status, self.output()
            if found := re.search(pattern, text):
                return found
            if status is not None or time.monotonic() > deadline:
                late = "before it ended" if status is not None else f"within {seconds:g} s"
                pytest.fail(f"the process did not write {pattern!r} {late} (status: {status}):\n{text}")
            time.sleep(0.01)

    def wait(self, seconds: float = PATIENCE) -> int:
        """Wait for its end and return the exit status."""
        try:
            return self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            pytest.fail(f"the process did not end within {seconds:g} s:\n{self.output()}")

    def send(self, number: int) -> None:
        """Send a signal, unless it has ended."""
        self._process.send_signal(number)

    def end(self, number: int = signal.SIGTERM) -> int:
        """Send a signal, and SIGKILL if that does not end it; return the exit status."""
        if self.status is None:
            self.send(number)
            try:
                self._process.wait(PATIENCE)
            except subprocess.TimeoutExpired:
                self._process.kill()
        return self._process.wait()

    def memory(self, field: str = "VmRSS") -> int:
        """Return a size from /proc/PID/status (VmRSS is the resident memory, VmHWM its peak) in KiB."""
        found = re.search(rf"{field}:\s+(\d+) kB", Path(f"/proc/{self.pid}/status").read_text())
        if found is None:
            raise AssertionError(field)
        return int(found[1])

    def forget_peak(self) -> None:
        """Make VmHWM count from here on (proc(5), clear_refs)."""
        Path(f"/proc/{self.pid}/clear_refs").write_text("5")


class Server(ABC):
    """A server that the tests run, seen without the proxy.

    Attributes:
        name: the fixture's.
        address: as `--server` wants it.
        numbers_apart: its sessions have numbers above this one.
        child: the process, None before the first start.
    """

    name = ""
    address = ""
    numbers_apart = 1000

    def __init__(self, base: Path) -> None:
        self.base = base
        self.child: Child | None = None

    def connect(self, user: str = "root", **more: Any) -> Connection:
        """Return a connection to the server itself."""
        options = {"autocommit": True, "connect_timeout": 10, "read_timeout": 60, "charset": "utf8mb4", **more}
        return pymysql.connect(user=user, **self._where(), **options)

    @abstractmethod
    def _where(self) -> dict[str, Any]:
        """Return what PyMySQL needs to find it."""

    @abstractmethod
    def _knock(self) -> socket.socket:
        """Return a new connection to it."""

    @abstractmethod
    def _arguments(self) -> list[str]:
        """Return its command line."""

    @property
    def runs(self) -> bool:
        """Whether its process is there, even if it is stopped by SIGSTOP."""
        return self.child is not None and self.child.status is None

    def start(self) -> None:
        """Start it, and wait until it answers a login."""
        child = self.child = Child(
            self._arguments(), self.base / "output", env={**os.environ, "TELEMETRY_ENABLED": "false"}
        )

        def answers() -> bool:
            if child.status is not None:
                pytest.fail(f"{self.name} ended with {child.status}:\n{child.output()}{self._last_words()}")
            try:
                self.connect().close()
            except pymysql.err.OperationalError:
                return False
            return True

        wait_until(answers, 60, f"a login at {self.name}")
        # The server's numbers of sessions shall be none that a proxy gives its clients: a number that means two
        # sessions is refused, which is one test's subject and no other's.
        for _ in range(self.numbers_apart):
            with self._knock() as stranger:
                stranger.recv(1)

    def _last_words(self) -> str:
        """Return the errors at the end of seekdb's own log, which says on its output nothing about why it ends."""
        log = self.base / "log" / "seekdb.log"
        if not log.exists():
            return ""
        lines = log.read_text(errors="replace").splitlines()
        return "\n".join(line[:500] for line in lines if " ERROR " in line or " EDIAG " in line)[-6000:]

    def stop(self, number: int = signal.SIGTERM) -> None:
        """End it."""
        if self.child is not None:
            self.child.end(number)

    def processes(self, connection: Connection) -> dict[int, tuple[str, str]]:
        """Return the server's own sessions: command and statement by id."""
        with connection.cursor() as cursor:
            cursor.execute("SHOW FULL PROCESSLIST")
            return {row[0]: (row[4], row[7] or "") for row in cursor.fetchall()}


class TcpServer(Server):
    """A server on a TCP port, a free one."""

    def __init__(self, base: Path) -> None:
        super().__init__(base)
        self.port = free_port()
        self.address = f"127.0.0.1:{self.port}"

    def _where(self) -> dict[str, Any]:
        return {"host": "127.0.0.1", "port": self.port}

    def _knock(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port))


def seekdb_arguments(base: Path, *parameters: str) -> list[str]:
    """Return the command line of an OceanBase kernel (parameters: NAME=VALUE), or skip the test."""
    spec = find_spec("pylibseekdb")
    if spec is None or spec.origin is None:
        missing("PyPI's pylibseekdb")
    return [
        str(Path(spec.origin).with_name("seekdb")),
        f"--base-dir={base}",
        "--nodaemon",
        *(word for parameter in ("syslog_level=WARN", *parameters) for word in ("--parameter", parameter)),
        *("--variable", "ob_query_timeout=3600000000"),  # microseconds
    ]


class Seekdb(Server):
    """An OceanBase kernel on a Unix socket; it also ends when `flock` loses the lock that its owner holds."""

    name = "seekdb"

    def __init__(self, base: Path) -> None:
        super().__init__(base)
        run = base / "run"
        run.mkdir()
        self._life = os.open(run / "seekdb.clients", os.O_RDWR | os.O_CREAT, 0o644)
        fcntl.flock(self._life, fcntl.LOCK_SH)
        self.socket = str(run / "sql.sock")
        self.address = f"unix:{self.socket}"

    def _where(self) -> dict[str, Any]:
        return {"unix_socket": self.socket}

    def _knock(self) -> socket.socket:
        stranger = socket.socket(socket.AF_UNIX)
        stranger.connect(self.socket)
        return stranger

    def _arguments(self) -> list[str]:
        parameters = ("memory_budget=2G", "log_disk_size=2G", "open_cursors=1000")
        return [*seekdb_arguments(self.base, *parameters), "--embedded"]

    def stop(self, number: int = signal.SIGTERM) -> None:
        """End it; SIGTERM makes it end by SIGKILL."""
        super().stop(number)
        os.close(self._life)


class MariaDb(TcpServer):
    """A MariaDB with an empty data directory of its own.

    Args:
        base: an empty directory.
        settings: further lines for my.cnf.
    """

    name = "mariadb"

    def __init__(self, base: Path, *settings: str) -> None:
        super().__init__(base)
        self._mariadbd = find_program("mariadbd", "mariadb-server")
        install = find_program("mariadb-install-db", "mariadb-server")
        self._settings = base / "my.cnf"
        self._settings.write_text(
            "[mariadbd]\n"
            + ("user=root\n" if os.geteuid() == 0 else "")
            # A mariadbd that starts deletes temporary tables in its tmpdir, also those of another one that starts.
            + f"datadir={base}/data\ntmpdir={base}\nsocket={base}/socket\npid-file={base}/pid\nport={self.port}\n"
            "bind-address=127.0.0.1\nskip-name-resolve\ncharacter-set-server=utf8mb4\nlocal-infile=1\n"
            "max-allowed-packet=64M\nmax-connections=500\n" + "".join(f"{line}\n" for line in settings)
        )
        arguments = [install, f"--defaults-file={self._settings}", "--skip-test-db"]
        arguments.append("--auth-root-authentication-method=normal")
        done = subprocess.run(arguments, capture_output=True, text=True, timeout=120, check=False)
        if done.returncode:
            pytest.fail(f"mariadb-install-db failed:\n{done.stdout}{done.stderr}")

    def _arguments(self) -> list[str]:
        return [self._mariadbd, f"--defaults-file={self._settings}"]


class Proxy:
    """A `twistd odp` that runs.

    Args:
        base: an empty directory, the process's working directory.
        options: after `odp`; `--port` is there already.
        plugins: directories that Twisted finds plugins in.
        ready: how long it may take.
    """

    def __init__(self, base: Path, *options: str, plugins: Sequence[Path] = (), ready: float = 60) -> None:
        twistd = str(Path(sys.executable).with_name("twistd"))
        port = ("--port", "tcp:0:interface=127.0.0.1")
        path = [*map(str, plugins), os.environ.get("PYTHONPATH", "")]
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, path))}
        arguments = [sys.executable, twistd, "--pidfile=", "--nodaemon", "odp", *port, *options]
        self.child = Child(arguments, base / "log", cwd=base, env=environment)
        try:
            found = self.child.wait_for(r"odptwist \S+ is (\w+) on 127\.0\.0\.1:(\d+)", ready)
            if found[1] != "ready":
                pytest.fail(f"the proxy found no server:\n{self.child.output()}")
            self.port = int(found[2])
        except BaseException:
            self.child.end(signal.SIGKILL)
            raise

    def connect(self, user: str = "root", tenant: str = "@sys#ob1", **more: Any) -> Connection:
        """Return a connection through it."""
        options = {"autocommit": True, "connect_timeout": 10, "read_timeout": 60, "charset": "utf8mb4", **more}
        return pymysql.connect(host="127.0.0.1", port=self.port, user=user + tenant, **options)

    def stop(self) -> None:
        """End it, and fail the test if its log tells of a bug."""
        status = self.child.end()
        log = self.child.output()
        if "Traceback" in log or "Unhandled" in log:
            pytest.fail(f"the proxy logged a bug:\n{log[-6000:]}", pytrace=False)
        if status not in (0, -signal.SIGTERM):  # twistd ends by the signal that it got
            pytest.fail(f"the proxy ended with {status}:\n{log[-3000:]}", pytrace=False)
