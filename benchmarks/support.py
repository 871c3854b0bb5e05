"""What the benchmarks share: processes and what they cost, and tables."""

from __future__ import annotations

import os
import re
import resource
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from benchmarks.native import build

Server = int | Path
"""Where a server on this machine is: its port, or its Unix socket."""

_TICKS = os.sysconf("SC_CLK_TCK")
_TWISTD = "import sys; sys.argv[0] = 'twistd'; from twisted.scripts.twistd import run; run()"
_HAPROXY = """\
global
    nbthread 1
    maxconn {most}
defaults
    mode tcp
    maxconn {most}
    timeout connect 5s
    timeout client 1h
    timeout server 1h
listen all
    bind 127.0.0.1:{port}
    server one {server}
"""
_NGINX = """\
load_module {module};
daemon off;
master_process off;
pid {directory}/pid;
error_log stderr crit;
events {{
    worker_connections {most};
}}
stream {{
    access_log off;
    server {{
        listen 127.0.0.1:{port} backlog=1024;
        proxy_pass {server};
        proxy_timeout 1h;
    }}
}}
"""
_CLUSTER = """\
[[cluster]]
name = "two"
read_policy = "{policy}"
[[cluster.server]]
address = "127.0.0.1:{primary}"
role = "primary"
[[cluster.server]]
address = "127.0.0.1:{replica}"
role = "replica"
"""


def raise_open_files() -> int:
    """Raise this process's limit of open files, and that of its later children, as far as allowed; return it."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return hard


class Program:
    """A child process whose output goes to a file, so that no pipe can fill up and stop it.

    Attributes:
        pid: its process id.
        port: where it listens; set by whoever started it, 0 until then.
    """

    def __init__(self, command: Sequence[str | Path], **options: Any) -> None:
        self.port = 0
        self._output = tempfile.NamedTemporaryFile(prefix="odptwist-", suffix=".log")  # noqa: SIM115 - lives as long
        self._popen = subprocess.Popen(
            [str(word) for word in command], stdout=self._output, stderr=subprocess.STDOUT, text=True, **options
        )
        self.pid = self._popen.pid

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, raised: BaseException | None, at: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def running(self) -> bool:
        """Whether it has not ended."""
        return self._popen.poll() is None

    def output(self) -> str:
        """Return all that it has printed so far."""
        return Path(self._output.name).read_text(errors="replace")

    def wait_for(self, pattern: str, timeout: float = 15.0) -> re.Match[str]:
        """Wait until its output matches.

        Raises:
            RuntimeError: it ended, or `timeout` seconds passed; the message has its output.
        """
        end = time.monotonic() + timeout
        while True:
            running = self.running
            found = re.search(pattern, self.output())
            if found:
                return found
            if not running or time.monotonic() > end:
                raise RuntimeError(f"{pattern!r} did not come from {self._popen.args!r}:\n{self.output()}")
            time.sleep(0.01)

    def tell(self, line: str) -> None:
        """Write a line to its standard input (`stdin=subprocess.PIPE` is due)."""
        if self._popen.stdin is not None:
            self._popen.stdin.write(line + "\n")
            self._popen.stdin.flush()

    def cpu_seconds(self) -> float:
        """Return its user and system time, in steps of 10 ms."""
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / _TICKS

    def resident_kib(self) -> int:
        """Return its resident memory."""
        found = re.search(r"^VmRSS:\s+(\d+) kB", Path(f"/proc/{self.pid}/status").read_text(), re.MULTILINE)
        return int(found[1]) if found else 0

    def open_files(self) -> int:
        """Return how many descriptors it has open."""
        return len(os.listdir(f"/proc/{self.pid}/fd"))

    def stop(self) -> None:
        """End it: its input ends, SIGTERM, and SIGKILL after ten seconds."""
        if self._popen.stdin is not None:
            self._popen.stdin.close()
        if self.running:
            self._popen.send_signal(signal.SIGTERM)
        try:
            self._popen.wait(10)
        except subprocess.TimeoutExpired:
            self._popen.kill()
            self._popen.wait()
        self._output.close()


def start_fakeserver() -> Program:
    """Start the server that does nothing but answer."""
    program = Program([build("fakeserver")])
    program.port = int(program.wait_for(r"port (\d+)")[1])
    return program


def start_odptwist(server: Server, *options: str, source: Path | None = None, gear: str = "") -> Program:
    """Start the proxy before a server, with this interpreter.

    Args:
        server: the server.
        options: more of `twistd odp`.
        source: another directory of odptwist's source; None: the installed one.
        gear: what `ODPTWIST_GEAR` shall be: `python`, `tracker` or `relay`; empty: the best that is there.
    """
    address = f"unix:{server}" if isinstance(server, Path) else f"127.0.0.1:{server}"
    return _start_odptwist("--server", address, *options, source=source, gear=gear)


def start_cluster(primary_port: int, replica_port: int, read_policy: str, gear: str = "") -> Program:
    """Start the proxy before a cluster of two servers on this machine, whose roles are set; as `start_odptwist`."""
    with tempfile.NamedTemporaryFile("w", prefix="odptwist-", suffix=".toml") as settings:
        settings.write(_CLUSTER.format(primary=primary_port, replica=replica_port, policy=read_policy))
        settings.flush()
        return _start_odptwist("--config", settings.name, gear=gear)


def _start_odptwist(*options: str, source: Path | None = None, gear: str = "") -> Program:
    listen = ("--port", "tcp:0:interface=127.0.0.1:backlog=1024")
    environment = {**os.environ, **({"PYTHONPATH": str(source)} if source is not None else {}), "ODPTWIST_GEAR": gear}
    program = Program(
        [sys.executable, "-c", _TWISTD, "--pidfile=", "--nodaemon", "odp", *listen, *options], env=environment
    )
    try:
        program.port = int(program.wait_for(r"is (?:ready|listening) on 127\.0\.0\.1:(\d+)")[1])
    except RuntimeError:
        program.stop()
        raise
    return program


def _program(name: str) -> str | None:
    return shutil.which(name) or shutil.which(name, path="/usr/sbin:/usr/local/sbin")


def haproxy() -> str | None:
    """Return the path of HAProxy, or None."""
    return _program("haproxy")


def nginx() -> str | None:
    """Return the path of nginx, or None if it or its module for streams is not there."""
    return _program("nginx") if _nginx_module() else None


def _nginx_module() -> Path | None:
    places = (
        Path(each) / "nginx/modules/ngx_stream_module.so" for each in ("/usr/lib", "/usr/lib64", "/usr/local/lib")
    )
    return next((each for each in places if each.exists()), None)


def start_haproxy(server: Server) -> Program:
    """Start HAProxy in TCP mode with one thread before a server."""
    address = f"unix@{server}" if isinstance(server, Path) else f"127.0.0.1:{server}"
    with tempfile.NamedTemporaryFile("w", prefix="odptwist-", suffix=".cfg") as settings:
        settings.write(_HAPROXY.format(port=(port := free_port()), server=address, most=_most_connections()))
        settings.flush()
        return _listening(Program([haproxy() or "haproxy", "-db", "-f", settings.name]), port)


def start_nginx(server: Server) -> Program:
    """Start nginx in one process, as a proxy of streams before a server."""
    address = f"unix:{server}" if isinstance(server, Path) else f"127.0.0.1:{server}"
    with tempfile.TemporaryDirectory(prefix="odptwist-") as directory:
        settings = Path(directory) / "nginx.conf"
        port = free_port()
        settings.write_text(
            _NGINX.format(
                module=_nginx_module(),
                directory=directory,
                port=port,
                server=address,
                most=2 * _most_connections(),
            )
        )
        return _listening(Program([nginx() or "nginx", "-p", directory, "-e", "stderr", "-c", settings]), port)


def _most_connections() -> int:
    """Return how many connections a proxy can have; HAProxy refuses to start with more."""
    return (resource.getrlimit(resource.RLIMIT_NOFILE)[0] - 100) // 2


def _listening(program: Program, port: int) -> Program:
    """Return a program as soon as it listens on a port."""
    program.port = port
    for _ in range(500):
        try:
            socket.create_connection(("127.0.0.1", port)).close()
        except OSError:
            time.sleep(0.01)
        else:
            return program
    output = program.output()
    program.stop()
    raise RuntimeError(f"port {port} is not listened on:\n{output}")


def free_port() -> int:
    """Return a port that nobody listens on, for a program that cannot tell which one it has chosen."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


class Load(Program):
    """The load generator: it opens its connections, waits for `run`, and keeps them until it is stopped."""

    def __init__(self, port: int, mode: str, connections: int, seconds: float = 0) -> None:
        super().__init__([build("load"), str(port), mode, str(connections), str(seconds)], stdin=subprocess.PIPE)
        self._seconds = seconds

    def wait_until_open(self, timeout: float = 120.0) -> None:
        """Wait until all connections are logged in.

        Raises:
            RuntimeError: a login failed.
        """
        errors = int(self.wait_for(r"ready errors=(\d+)", timeout)[1])
        if errors:
            raise RuntimeError(f"{errors} connections could not log in:\n{self.output()}")

    def run(self) -> dict[str, float]:
        """Let it work for its time; return `count`, `seconds`, `p50` and `p99` (microseconds) and `errors`."""
        self.tell("go")
        found = self.wait_for(r"(count=.*)\n", self._seconds + 60)
        return {name: float(number) for name, number in (pair.split("=") for pair in found[1].split())}


def print_table(titles: Sequence[str], rows: Sequence[Sequence[str]], left: int = 1) -> None:
    """Print a Markdown table, its columns aligned: the first `left` ones to the left, the others to the right."""
    widths = [max(len(row[place]) for row in (titles, *rows)) for place in range(len(titles))]
    rule = ["-" * width if place < left else "-" * (width - 1) + ":" for place, width in enumerate(widths)]
    for row in (titles, rule, *rows):
        cells = [f"{cell:{'<' if place < left else '>'}{widths[place]}}" for place, cell in enumerate(row)]
        print(f"| {' | '.join(cells)} |")
    sys.stdout.flush()
