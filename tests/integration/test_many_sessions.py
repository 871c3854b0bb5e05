"""Thousands of sessions through a real proxy."""

from __future__ import annotations

import time
from contextlib import ExitStack

import pytest

from benchmarks.native import compiler
from benchmarks.support import Program, raise_open_files, start_fakeserver, start_odptwist
from tests.support.proxy_process import ScriptedServerProcess
from tests.support.raw_client import RawClient

SESSIONS = 5000


def start_server() -> Program:
    """Start the C server if it can be built, else the scripted one."""
    return start_fakeserver() if compiler() else ScriptedServerProcess()


def listed(client: RawClient) -> set[int]:
    """Return the Ids that one SHOW PROXYSESSION lists; no Id may come twice."""
    ids = [int(row[1] or b"") for row in client.query("SHOW PROXYSESSION").rows]
    assert len(ids) == len(set(ids))
    return set(ids)


def test_idle_sessions_are_all_listed_and_all_end() -> None:
    """5,000 clients are logged in and idle: one SHOW PROXYSESSION lists every one, and none when they have left."""
    limit = raise_open_files()
    if limit < 2 * SESSIONS + 200:
        pytest.skip(f"the proxy needs {2 * SESSIONS + 200} descriptors, {limit} are allowed (ulimit -Hn)")
    with ExitStack() as stack:
        server = stack.enter_context(start_server())
        proxy = stack.enter_context(start_odptwist(server.port))
        asker = stack.enter_context(RawClient(proxy.port, timeout=30.0))
        asker.login()
        files = proxy.open_files()
        clients = []
        ids = set()
        for _ in range(SESSIONS):
            client = stack.enter_context(RawClient(proxy.port))
            ids.add(client.read_greeting().thread_id)
            client.login()
            clients.append(client)
        assert len(ids) == SESSIONS
        assert listed(asker) - ids == {asker.greeting.thread_id if asker.greeting else 0}
        assert listed(asker) >= ids

        # Any of them still works.
        for client in clients[:: SESSIONS // 50]:
            assert client.query("SELECT 1").rows

        for client in clients:
            client.close()
        end = time.monotonic() + 20
        while len(listed(asker)) > 1 and time.monotonic() < end:
            time.sleep(0.1)
        assert len(listed(asker)) == 1
        while proxy.open_files() > files and time.monotonic() < end:
            time.sleep(0.1)
        assert proxy.open_files() == files
