"""Plugins: the example package, installed by pip and driven; and plugins that fail in every method they have."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pymysql
import pytest
from pymysql.connections import Connection

from tests.support.servers import Proxy, Server, wait_until
from tests.support.sessions import error_of, is_gone, query, sessions

EXAMPLE = Path(__file__).parents[2] / "examples" / "hello_plugin"

FAILING = '''
from twisted.internet.defer import fail
from twisted.plugin import IPlugin
from zope.interface import implementer
from odptwist.interfaces import IProxyStatement, IRouter, ISessionObserver


class Broken(Exception):
    """A bug of a plugin's."""


def broken(*arguments):
    raise Broken("on purpose")


@implementer(IPlugin, IProxyStatement)
class Statement:
    def __init__(self, word, parse, answer):
        self.name = word
        self.first_words = (word, "SHOW")
        self._word, self._parse, self.answer = word, parse, answer

    def parse(self, text):
        return self._parse(text) if text.upper().startswith(self._word) else None


def yes(text):
    return "request"


fails_to_parse = Statement("DESCRIBE", broken, broken)
raises = Statement("RAISES", yes, broken)
fails = Statement("FAILS", yes, lambda *arguments: fail(Broken("on purpose")))
answers_nonsense = Statement("NONSENSE", yes, lambda *arguments: 7)


@implementer(IPlugin, ISessionObserver)
class Observer:
    session_opened = statement_finished = session_closed = staticmethod(broken)


@implementer(IPlugin, IRouter)
class Router:
    choose_servers = staticmethod(broken)


observer, router = Observer(), Router()
'''


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a directory with the example, installed."""
    base = tmp_path_factory.mktemp("plugin")
    source = shutil.copytree(EXAMPLE, base / "source")  # pip builds in the directory that it is given
    target = base / "target"
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", "install", "--no-deps", "--quiet"]
    subprocess.run([*command, "--no-build-isolation", "--target", target, source], check=True, timeout=120)
    return target


def ping(client: Connection) -> dict[str, str]:
    """Return what PING ODPTWIST answers."""
    return dict(query(client, "ping  ODPTWIST ;"))


def test_statement_and_observer(
    installed: Path, seekdb: Server, start_proxy: Callable[..., Proxy], opened: list[Connection]
) -> None:
    """The example's statement answers, and its observer has seen how sessions ended."""
    proxy = start_proxy("--server", seekdb.address, "--cluster-name", "ob1", plugins=[installed])
    root, victim = proxy.connect(), proxy.connect()
    opened += root, victim
    answer = ping(root)
    assert answer["asker"] == "root@sys#ob1"
    assert answer["visible sessions"] == "2"
    assert not any(name.startswith("closed") for name in answer)
    query(root, f"KILL {victim.thread_id()}")
    proxy.connect().close()
    proxy.connect()._force_close()
    error_of(proxy.connect(), "KILL CONNECTION_ID()")
    with pytest.raises(pymysql.MySQLError):
        proxy.connect(tenant="@foreign")
    expected = {"killed": "1", "client_quit": "1", "client_lost": "1", "killed_itself": "1", "login_refused": "1"}

    def closed() -> bool:
        return {name[8:]: value for name, value in ping(root).items() if name.startswith("closed: ")} == expected

    wait_until(closed, what=f"{expected} in {ping(root)}")
    before = int(ping(root)["statements"])
    query(root, "SELECT 1", "SHOW PROXYSESSION")
    error_of(root, "SELECT nonsense")
    assert int(ping(root)["statements"]) == before + 4, "three, and the PING before"
    assert error_of(root, "PING SOMEBODY")[0] == 1064


def test_router(
    installed: Path, seekdb: Server, mariadb: Server, start_proxy: Callable[..., Proxy], opened: list[Connection]
) -> None:
    """The example's router sends logins to both servers in turn, and the second is tried when the first is away."""
    options = ("--server", seekdb.address, "--server", mariadb.address, "--server", "127.0.0.1:1")
    proxy = start_proxy(*options, "--cluster-name", "ob1", plugins=[installed])
    versions = []
    for _ in range(6):
        opened.append(proxy.connect())
        versions.append("MariaDB" in query(opened[-1], "SELECT VERSION()")[0][0])
    assert versions == [False, True, False] * 2


def test_failing_plugins(
    seekdb: Server, directory: Callable[[], Path], opened: list[Connection], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever plugins raise, every client gets its answers, and the log tells what happened."""
    path = directory()
    (path / "twisted" / "plugins").mkdir(parents=True)
    (path / "twisted" / "plugins" / "failing_plugin.py").write_text(FAILING)
    monkeypatch.setenv("PYTHONDONTWRITEBYTECODE", "1")
    proxy = Proxy(directory(), "--server", seekdb.address, "--cluster-name", "ob1", plugins=[path])
    try:
        root, victim = proxy.connect(), proxy.connect()
        opened += root, victim
        assert query(root, "SELECT 1") == [(1,)]
        assert error_of(root, "DESCRIBE test.nowhere_at_all")[0] == 1146, "the server's own answer"
        for statement in "RAISES", "FAILS", "NONSENSE":
            code, text = error_of(root, statement)
            assert (code, text) == (1105, "the proxy statement failed; the proxy's log says why")
        assert set(sessions(root)) == {root.thread_id(), victim.thread_id()}
        query(root, f"KILL {victim.thread_id()}")
        assert is_gone(victim)
        told = proxy.child.output().count("session observer")
        root.close()
        wait_until(lambda: proxy.child.output().count("session observer") > told)
    finally:
        proxy.child.end()
    log = proxy.child.output()
    assert log.count("Broken: on purpose") > 5
    for said in "session observer", "router", "cannot read a text", "proxy statement RAISES", "proxy statement FAILS":
        assert said in log
