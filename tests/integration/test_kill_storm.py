"""Forty clients that kill each other at random, before MariaDB: afterwards nothing is left of any of them.

`python -m tests.integration.test_kill_storm [KILLS]` lets each of them kill KILLS times, and prints counts.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from random import Random

import pymysql
import pytest
from pymysql.connections import Connection

from tests.support.servers import Background, MariaDb, Proxy, Server, wait_until
from tests.support.sessions import attributes, query, sessions

CLIENTS = 40
SECONDS = 20.0
MOST_SECONDS = 15.0
"""For any statement; longer is a hang."""
MOST_MEMORY = 10 * 1024
"""KiB that the proxy may have grown by."""

STATEMENTS = (
    "SELECT 1",
    "SELECT SLEEP(0.02)",
    "SELECT COUNT(*) FROM test.seq_1_to_30000",
    "BEGIN",
    "UPDATE test.storm SET n = n + 1 WHERE id = {}",
    "COMMIT",
    "SELECT seq FROM test.seq_1_to_2000",
)
KILLS = {"KILL": "KILL {0}", "KILL QUERY": "KILL QUERY {0}", "KILL PROXYSESSION id ss_id": "KILL PROXYSESSION {0} {1}"}


class Storm:
    """The clients, by number, and what is known of each: its cs_id and its ss_id."""

    def __init__(self, proxy: Proxy, clients: int, kills: int | None, seconds: float) -> None:
        self.counts: Counter[str] = Counter()
        self._proxy = proxy
        self._kills = kills
        self._end = time.monotonic() + seconds
        self._known: list[tuple[int, int]] = [(0, 0)] * clients
        self._lock = threading.Lock()

    def run(self) -> Counter[str]:
        """Let them loose, and return counts when all have gone."""
        clients = [Background(self._live, number) for number in range(len(self._known))]
        for client in clients:
            client.result(self._end - time.monotonic() + 2 * MOST_SECONDS)
        return self.counts

    def _count(self, *what: str) -> None:
        with self._lock:
            self.counts.update(what)

    def _live(self, number: int) -> None:
        random = Random(number)
        client = None
        kills = 0
        while time.monotonic() < self._end and (self._kills is None or kills < self._kills):
            began = time.monotonic()
            text = ""
            try:
                if client is None:
                    client = self._proxy.connect(read_timeout=2 * MOST_SECONDS)
                    self._count("logins")
                    self._learn(number, client)
                elif random.random() < 0.5:
                    text = random.choice(STATEMENTS).format(number)
                    query(client, text)
                    self._count("statements")
                else:
                    what, text = random.choice(list(KILLS.items()))
                    text = text.format(*random.choice(self._known))
                    kills += 1
                    self._count(what)
                    query(client, text)
                    self._count(f"{what}: OK")
                    if random.random() < 0.2:
                        self._learn(number, client)
            except (pymysql.MySQLError, OSError) as error:
                code = error.args[0] if error.args else type(error).__name__
                self._count(f"{text.split(' ')[0] or 'login'}: error {code}")
                if client is not None and (client._sock is None or code in (0, 2006, 2013) or not text):
                    client._force_close()
                    client = None
            if time.monotonic() > began + MOST_SECONDS:
                raise AssertionError(f"{text or 'a login'} took {time.monotonic() - began:.1f} s")
        if client is not None:
            client._force_close()

    def _learn(self, number: int, client: Connection) -> None:
        self._known[number] = (client.thread_id(), int(attributes(client).get("ss_id", 0)))


def open_files(proxy: Proxy) -> int:
    """Return how many descriptors the proxy has open."""
    return len(os.listdir(f"/proc/{proxy.child.pid}/fd"))


def weather(server: Server, proxy: Proxy, kills: int | None, seconds: float, clients: int = CLIENTS) -> Counter[str]:
    """Let a storm rage, and look at what is left; return counts."""
    with server.connect() as direct:
        query(direct, "DROP TABLE IF EXISTS test.storm", "CREATE TABLE test.storm (id INT PRIMARY KEY, n INT)")
        query(direct, "INSERT INTO test.storm VALUES " + ", ".join(f"({number}, 0)" for number in range(clients)))
    Storm(proxy, clients, 2, seconds).run()  # so that all is imported, and the heap has its usual size
    with proxy.connect() as root:
        wait_until(lambda: len(sessions(root)) == 1, what="the end of the first sessions")
    wait_until(lambda: open_files(proxy) < clients, what="the end of the first connections")
    time.sleep(0.5)
    files, memory = open_files(proxy), proxy.child.memory()
    counts = Storm(proxy, clients, kills, seconds).run()
    with proxy.connect() as root, server.connect() as direct:
        wait_until(lambda: list(sessions(root)) == [root.thread_id()], what="a list of the living only")
        wait_until(lambda: len(server.processes(direct)) == 2, what="a server without leftovers")
    wait_until(lambda: open_files(proxy) == files, what=f"as many descriptors as before, {files},")
    counts["KiB grown"] = grown = proxy.child.memory() - memory
    assert grown < MOST_MEMORY
    with server.connect() as direct:
        query(direct, "UPDATE test.storm SET n = 0", "DROP TABLE test.storm")  # no lock is left either
    return counts


def kills_in(counts: Counter[str]) -> int:
    """Return how many kills were sent."""
    return sum(counts[what] for what in KILLS)


def test_storm(mariadb: Server, start_proxy: Callable[..., Proxy], figure: Callable[[str], None]) -> None:
    """Nobody hangs; sessions, descriptors, memory and the server's sessions are as before."""
    proxy = start_proxy("--server", mariadb.address, "--cluster-name", "ob1")
    counts = weather(mariadb, proxy, None, SECONDS)
    figure(f"{kills_in(counts):,} kills, {counts['logins']:,} logins, {counts['KiB grown']:,} KiB grown")
    assert kills_in(counts) > 500
    for what in KILLS:
        assert counts[f"{what}: OK"] > 50, counts


def main() -> int:
    """Run from the command line."""
    parser = argparse.ArgumentParser(prog="python -m tests.integration.test_kill_storm", description=__doc__)
    parser.add_argument("kills", type=int, nargs="?", default=1000, help="of each of the 40 clients [1,000]")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="odp") as first, tempfile.TemporaryDirectory(prefix="odp") as second:
        server = MariaDb(Path(first))
        try:
            server.start()
            with server.connect() as root:
                query(root, "CREATE DATABASE IF NOT EXISTS test")
            proxy = Proxy(Path(second), "--server", server.address, "--cluster-name", "ob1")
            began = time.monotonic()
            try:
                counts = weather(server, proxy, options.kills, 3600)
            finally:
                proxy.stop()
        finally:
            server.stop()
    for what in sorted(counts):
        print(f"{counts[what]:>10,}  {what}")  # noqa: T201
    print(f"{kills_in(counts):>10,}  kills in all, in {time.monotonic() - began:.0f} s")  # noqa: T201
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except pytest.fail.Exception as failed:
        sys.exit(str(failed))
