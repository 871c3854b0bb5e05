"""`twistd odp` as a person calls it: help, faults of the command line, and the embedded server's life and end."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from odptwist import __version__
from tests.support.servers import Child, Proxy, Server, free_port, missing, wait_until
from tests.support.sessions import query

TWISTD = [sys.executable, str(Path(sys.executable).with_name("twistd")), "--pidfile=", "--nodaemon"]
HIDDEN = """
from importlib.machinery import PathFinder

find_spec = PathFinder.find_spec
PathFinder.find_spec = classmethod(lambda cls, name, *more: None if name == "pylibseekdb" else find_spec(name, *more))
"""
"""A sitecustomize module that makes pylibseekdb look as if it were not installed."""


def call(*options: str, cwd: str | Path = "/", **environment: str) -> tuple[int, str]:
    """Run twistd until it ends; return its exit status and all that it wrote."""
    done = subprocess.run(
        [*TWISTD, *options],
        cwd=cwd,
        env={**os.environ, **environment},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    return done.returncode, done.stdout + done.stderr


def one_line(text: str) -> str:
    """Return a text without line breaks: twistd wraps its help."""
    return " ".join(text.split())


def test_help() -> None:
    """`twistd --help` lists odp from anywhere, and `twistd odp --help` explains every option."""
    status, text = call("--help")
    assert status == 0
    assert re.search(r"^\s+odp\s+A session-aware proxy", text, re.MULTILINE)
    status, text = call("odp", "--help")
    assert status == 0
    for option in "--port", "--server", "--cluster-name", "--data-dir", "--config", "--version":
        assert re.search(rf"{option}\b[ =]+\S", text), option
    assert "KILL PROXYSESSION" in text


def test_version() -> None:
    """`--version` tells odptwist's version."""
    status, text = call("odp", "--version")
    assert status == 0
    assert text.startswith(f"odptwist {__version__} ")


@pytest.mark.parametrize(
    ("options", "named"),
    [
        (["--port", "abc"], ["--port", "'abc'"]),
        (["--port", "70000"], ["--port", "'70000'"]),
        pytest.param(["--port", "foo:1"], ["--port", "foo"]),
        pytest.param(["--port", "tcp:x"], ["--port", "tcp:x"]),
        pytest.param(["--port", "tcp:99999"], ["--port", "99999"]),
        (["--server", "nope"], ["--server", "'nope'"]),
        (["--server", "127.0.0.1:0"], ["--server", "'127.0.0.1:0'"]),
        (["--server", "127.0.0.1:x"], ["--server", "'127.0.0.1:x'"]),
        (["--server", "::1:3306"], ["--server", "brackets"]),
        (["--server", "unix:relative"], ["--server", "absolute path"]),
        (["--cluster-name", "a@b"], ["--cluster-name", "'a@b'"]),
        (["--config", "/nowhere.toml"], ["/nowhere.toml", "No such file"]),
        (["--config", "{wrong}"], ["wrong.toml:1: ports: ", "wrong.toml:2: cluster_name: "]),
        (["--config", "{broken}"], ["broken.toml:1: ", "TOML"]),
        (["--bogus"], ["--bogus"]),
        (["argument"], ["arguments"]),
    ],
    ids=lambda value: " ".join(value),
)
def test_wrong_options(options: list[str], named: list[str], tmp_path: Path) -> None:
    """A wrong value ends twistd with status 1 and a sentence that names option and value, without a traceback."""
    (tmp_path / "wrong.toml").write_text("ports = [1]\ncluster_name = 7\n")
    (tmp_path / "broken.toml").write_text("port = [")
    files = {"wrong": tmp_path / "wrong.toml", "broken": tmp_path / "broken.toml"}
    server = [] if "--server" in options else ["--server", "127.0.0.1:1"]
    status, text = call("odp", *server, *(option.format(**files) for option in options), cwd=tmp_path)
    assert "Traceback" not in text
    for word in named:
        assert word in one_line(text)
    assert status == 1


def test_without_pylibseekdb(tmp_path: Path) -> None:
    """Without an embedded server to start, the error says what to install and how to do without."""
    (tmp_path / "sitecustomize.py").write_text(HIDDEN)
    status, text = call("odp", "--data-dir", str(tmp_path / "data"), PYTHONPATH=str(tmp_path))
    assert status == 1
    assert "pip install 'odptwist[embedded]'" in one_line(text)
    assert "--server" in text.rpartition("pip install")[2]
    assert "Traceback" not in text
    assert not (tmp_path / "data").exists()


def seekdbs(data: Path) -> list[int]:
    """Return the processes that serve a data directory."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with suppress(OSError):
                words = (entry / "cmdline").read_bytes().split(b"\0")
                if f"--base-dir={data}".encode() in words:
                    found.append(int(entry.name))
    return found


@pytest.fixture
def data(directory: Callable[[], Path]) -> Iterator[Path]:
    """Return a data directory that does not exist yet; a server that still serves it afterwards is killed."""
    if find_spec("pylibseekdb") is None:
        missing("PyPI's pylibseekdb")
    path = directory() / "data"
    yield path
    for pid in seekdbs(path):
        os.kill(pid, signal.SIGKILL)


def start_embedded(directory: Callable[[], Path], data: Path, **more: Any) -> Proxy:
    """Start a proxy with an embedded server."""
    return Proxy(directory(), "--data-dir", str(data), **more)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL], ids=lambda number: number.name)
def test_embedded(number: int, data: Path, directory: Callable[[], Path], figure: Callable[[str], None]) -> None:
    """The embedded server starts from nothing, ends with the proxy however that ends, and finds its data again."""
    for turn in 0, 1:
        proxy = start_embedded(directory, data)
        try:
            log = proxy.child.output()
            took = re.search(r"ready at \S+ after ([\d.]+) s", log)
            assert took
            figure(f"{'warm' if turn else 'cold'} start: {took[1]} s")
            with proxy.connect(tenant="") as root:
                if not turn:
                    query(root, "CREATE TABLE test.kept (a INT)", "INSERT INTO test.kept VALUES (7)")
                assert query(root, "SELECT a FROM test.kept") == [(7,)]
                [pid] = seekdbs(data)
                proxy.child.end(number)
        finally:
            proxy.child.end(signal.SIGKILL)
        wait_until(lambda: not seekdbs(data), 5, f"the end of seekdb {pid}")
        if number != signal.SIGKILL:
            assert "Traceback" not in proxy.child.output()


def test_killed_while_starting(data: Path, directory: Callable[[], Path]) -> None:
    """A proxy that is killed in the middle of the embedded server's first start leaves none behind."""
    base = directory()
    child = Child([*TWISTD, "odp", "--port", "tcp:0:interface=127.0.0.1", "--data-dir", str(data)], base / "log")
    try:
        child.wait_for("embedded seekdb .* is starting")
        wait_until(lambda: seekdbs(data))
    finally:
        child.end(signal.SIGKILL)
    wait_until(lambda: not seekdbs(data), 15, "the end of seekdb")


def test_log_while_starting(data: Path, directory: Callable[[], Path]) -> None:
    """While the embedded server starts the log tells so, by at most a line a second."""
    proxy = start_embedded(directory, data)
    try:
        log = proxy.child.output()
    finally:
        proxy.stop()
    before = log[log.index("is starting in") : log.index("is ready at")]
    seconds = Counter(re.findall(r"^\S+T(\S+?)[+-]\d{4} .*waiting for", before, re.MULTILINE))
    assert all(count == 1 for count in seconds.values()), log
    assert "this machine only" in log
    assert "no password" in log


def test_one_data_directory(data: Path, directory: Callable[[], Path]) -> None:
    """The second of two proxies on one data directory ends with a clear error; the first goes on."""
    first = start_embedded(directory, data)
    try:
        status, text = call("odp", "--port", "tcp:0:interface=127.0.0.1", "--data-dir", str(data))
        assert status == 1
        assert f"data directory {data} is in use by another odptwist (pid {first.child.pid})" in one_line(text)
        assert "Traceback" not in text
        with first.connect(tenant="") as root:
            assert query(root, "SELECT 1") == [(1,)]
    finally:
        first.stop()


def test_port_in_use() -> None:
    """A port that somebody has ends the proxy with status 1 and a sentence that names the port."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        status, text = call("odp", "--port", f"tcp:{port}:interface=127.0.0.1", "--server", "127.0.0.1:1")
    assert status == 1
    assert re.search(rf"127\.0\.0\.1:{port}.*Address already in use", text)
    assert "Traceback" not in text
    assert "odptwist 0.1.0 is" not in text, "it says that it listens"


def test_bare_port(data: Path, directory: Callable[[], Path], seekdb: Server) -> None:
    """A bare port number listens on loopback only before the embedded server, and else on all addresses."""
    for options, address in (["--data-dir", str(data)], "127.0.0.1"), (["--server", seekdb.address], "0.0.0.0"):
        port = free_port()
        child = Child([*TWISTD, "odp", "--port", str(port), *options], directory() / "log")
        try:
            child.wait_for("odptwist .* is ready", 60)
            assert listening(port) == {address}
        finally:
            child.end()


def listening(port: int) -> set[str]:
    """Return the IPv4 addresses at which a TCP port of this machine listens."""
    found = set()
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        words = line.split()
        address, _, number = words[1].partition(":")
        if words[3] == "0A" and int(number, 16) == port:
            found.add(socket.inet_ntoa(int(address, 16).to_bytes(4, sys.byteorder)))
    return found
