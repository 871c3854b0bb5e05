"""How long a KILL through odptwist takes, from the statement to its OK; and how soon a row lock is free.

`python -m benchmarks.kill_latency`. The victims are idle, sleep, compute, or send a large result that nobody reads;
the other sessions run `SELECT 1` in turn. A row lock is held by a transaction that computes; the time is that until
another session, connected to the server itself, gets it.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import platform
import signal
import socket
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pymysql
from attrs import frozen
from pymysql.connections import Connection

from benchmarks.kill_race import COM_QUERY, work
from benchmarks.servers import SERVERS, connect, start_server
from benchmarks.support import Server, print_table, raise_open_files, start_odptwist

TOO_LONG = 5.0


@frozen
class Texts:
    """Statements that last on a server."""

    sleeping: str
    computing: str
    large: str


TEXTS = {
    "mariadb": Texts(
        "SELECT SLEEP(60)",
        "SELECT COUNT(*) FROM test.seq_1_to_1000000 a, test.seq_1_to_1000000 b WHERE a.seq * b.seq % 7 = 8",
        "SELECT REPEAT('x', 1000) FROM test.seq_1_to_1000000",
    ),
    "seekdb": Texts(
        "SELECT SLEEP(60)",
        f"SELECT COUNT(*) FROM {work(14)}",
        f"SELECT REPEAT('x', 1000) FROM {work(9)}",
    ),
}


@contextmanager
def others(port: int, count: int, rate: float) -> Iterator[None]:
    """Let `count` sessions, in a process of their own, run `rate` statements a second in all."""
    if not count:
        yield
        return
    read, write = os.pipe()
    child = os.fork()
    if not child:
        try:
            work_on_and_on(port, count, rate, lambda: os.write(write, b"!"))
        except Exception:  # noqa: BLE001 - a child that may not go on into its parent's code
            traceback.print_exc()
        finally:
            os._exit(1)
    os.close(write)
    try:
        if not os.read(read, 1):
            raise RuntimeError("the other sessions could not be opened")
        yield
        ended, _ = os.waitpid(child, os.WNOHANG)
        if ended:
            raise RuntimeError("the other sessions ended early")
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)


def work_on_and_on(port: int, count: int, rate: float, ready: Callable[[], object]) -> None:
    """Run SELECT 1 on one connection after the other."""
    clients = [connect(port) for _ in range(count)]
    sockets: list[socket.socket] = [client._sock for client in clients]
    for each in sockets:
        each.setblocking(False)
    ready()
    statement = b"\x09\0\0\0\x03SELECT 1"
    busy = [False] * count
    began = time.monotonic()
    place = 0
    while True:
        each = sockets[place % count]
        with contextlib.suppress(BlockingIOError):
            if busy[place % count] and not each.recv(4096):
                raise RuntimeError("one of the other sessions was closed")
            busy[place % count] = False
        if not busy[place % count]:
            each.send(statement)
            busy[place % count] = True
        place += 1
        time.sleep(max(0.0, began + place / rate - time.monotonic()))


def start(port: int, kind: str, texts: Texts) -> Connection[Any]:
    """Return a victim in a state."""
    victim = connect(port)
    if kind == "idle":
        with victim.cursor() as cursor:
            cursor.execute("SELECT 1")
        return victim
    text = {"sleeps": texts.sleeping, "computes": texts.computing, "stalled": texts.large}[kind]
    if kind == "stalled":
        victim._sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    victim._execute_command(COM_QUERY, text)
    time.sleep(0.5 if kind == "stalled" else 0.05)
    return victim


def measure(port: int, kind: str, texts: Texts, kills: int) -> tuple[list[float], int]:
    """Return how long each kill took, in milliseconds by rising length, and how many were not confirmed."""
    times, warned = [], 0
    asker = connect(port)
    for _ in range(kills):
        victim = start(port, kind, texts)
        with asker.cursor() as cursor:
            began = time.monotonic()
            cursor.execute(f"KILL PROXYSESSION {victim.thread_id()}")
            times.append((time.monotonic() - began) * 1000)
            warned += bool(cursor.warning_count)
        victim._force_close()
    asker.close()
    return sorted(times), warned


def free_lock(server: Server, port: Server, how: str, texts: Texts) -> float:
    """Return the seconds until a lock is free whose holder computes; `TOO_LONG` or more if it stays.

    Args:
        server: the server.
        port: what the holder connects to.
        how: `kill`, `vanish`.
        texts: of the server.
    """
    with connect(server) as direct, connect(server) as heir:
        for statement in (
            "DROP TABLE IF EXISTS test.kill_latency",
            "CREATE TABLE test.kill_latency (id INT PRIMARY KEY, n INT)",
            "INSERT INTO test.kill_latency VALUES (1, 0)",
        ):
            direct.cursor().execute(statement)
        victim = connect(port)
        cursor = victim.cursor()
        cursor.execute("SELECT CONNECTION_ID()")
        ((number,),) = cursor.fetchall()
        cursor.execute("BEGIN")
        cursor.execute("UPDATE test.kill_latency SET n = 7 WHERE id = 1")
        victim._execute_command(COM_QUERY, texts.computing)
        time.sleep(0.2)
        got: list[float] = []

        def wait_for_lock() -> None:
            with contextlib.suppress(pymysql.MySQLError):
                heir.cursor().execute("UPDATE test.kill_latency SET n = n + 1 WHERE id = 1")
                got.append(time.monotonic())

        waiting = threading.Thread(target=wait_for_lock)
        waiting.start()
        time.sleep(0.1)
        if how == "kill":
            with connect(port) as asker:
                began = time.monotonic()
                asker.cursor().execute(f"KILL PROXYSESSION {victim.thread_id()}")
        else:
            began = time.monotonic()
            victim._force_close()
        waiting.join(TOO_LONG)
        if waiting.is_alive():
            with contextlib.suppress(pymysql.MySQLError):
                direct.cursor().execute(f"KILL {number}")
            waiting.join()
            got[:] = [began + TOO_LONG]
        victim._force_close()
        direct.cursor().execute("DROP TABLE test.kill_latency")
        return got[0] - began if got else TOO_LONG


def percentile(times: list[float], share: float) -> float:
    """Return the nearest rank."""
    return times[max(0, -int(-share * len(times) // 1) - 1)]


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.kill_latency", description=__doc__)
    parser.add_argument("--kills", type=int, default=100, help="of each kind; a fifth of that if stalled [100]")
    parser.add_argument("--others", type=int, default=200, help="other sessions under load, besides none [200]")
    parser.add_argument("--rate", type=float, default=1000.0, help="their statements a second, in all [1,000]")
    parser.add_argument("--server", action="append", choices=SERVERS, help="again for more [both]")
    options = parser.parse_args()
    raise_open_files()
    rows = []
    locks = []
    for name in options.server or SERVERS:
        with start_server(name) as server, connect(server) as root, start_odptwist(server) as proxy:
            root.cursor().execute("CREATE DATABASE IF NOT EXISTS test")
            for count in (0, options.others):
                with others(proxy.port, count, options.rate):
                    for kind in ("idle", "sleeps", "computes", "stalled"):
                        kills = max(1, options.kills // 5) if kind == "stalled" else options.kills
                        times, warned = measure(proxy.port, kind, TEXTS[name], kills)
                        figures = [f"{percentile(times, share):.1f}" for share in (0.5, 0.99)]
                        rows.append([name, kind, str(count), str(kills), *figures, str(warned)])
                        print(rows[-1], flush=True)
            for title, port, how, rounds in (
                ("odptwist, KILL PROXYSESSION", proxy.port, "kill", 20),
                ("odptwist, the client vanishes", proxy.port, "vanish", 20),
                ("direct, the client vanishes", server, "vanish", 3),
            ):
                times = sorted(free_lock(server, port, how, TEXTS[name]) for _ in range(rounds))
                shown = [f"{t * 1000:.0f}" if t < TOO_LONG else f"over {TOO_LONG * 1000:,.0f}" for t in times]
                locks.append([name, title, str(rounds), shown[(rounds - 1) // 2], shown[-1]])
                print(locks[-1], flush=True)
    print(f"\nPython {platform.python_version()}\n")
    print_table(["server", "the victim", "others", "kills", "median ms", "p99 ms", "not confirmed"], rows, 2)
    print()
    print_table(["server", "the lock's holder", "rounds", "median ms until free", "longest"], locks, 2)


if __name__ == "__main__":
    main()
