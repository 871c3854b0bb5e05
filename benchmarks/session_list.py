"""How long lists of very many sessions take, and how long they keep other sessions waiting.

`python -m benchmarks.session_list`. One client asks for the list again and again; another one, in a process of its own,
runs a point select after the other, and the longest and the 99th percentile of its answers are shown: alone first, then
beside each kind of list.
"""

from __future__ import annotations

import argparse
import os
import platform
import signal
import socket
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import pymysql
from pymysql.connections import Connection

from benchmarks.support import Load, Program, print_table, raise_open_files, start_fakeserver, start_odptwist

LISTS = (
    "SHOW PROXYSESSION",
    "SHOW FULL PROXYSESSION",
    "SHOW PROXYSESSION WHERE activity = 'idle' AND User = 'nobody'",
    "SHOW PROXYSESSION WHERE User = 'root' ORDER BY seconds DESC LIMIT 10",
    "SELECT User, activity, count(*), max(seconds) FROM proxysession GROUP BY User, activity",
)
POINT_SELECT = b"\x2d\0\0\0\x03SELECT c FROM sbtest1 WHERE id = 501234 OR 1"


@contextmanager
def selecting(port: int) -> Iterator[Callable[[], list[float]]]:
    """Let a process run point selects, one after the other; yield what returns the latest answers' milliseconds."""
    told, tell = os.pipe()
    answers, answer = os.pipe()
    child = os.fork()
    if not child:
        try:
            select_on_and_on(port, told, answer)
        except Exception:  # noqa: BLE001 - a child that may not go on into its parent's code
            traceback.print_exc()
        finally:
            os._exit(1)
    os.close(answer)
    coming = os.fdopen(answers, "r")

    def latest() -> list[float]:
        os.write(tell, b"!")
        return [float(each) for each in coming.readline().split()]

    try:
        yield latest
    finally:
        with suppress(ProcessLookupError):
            os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


def select_on_and_on(port: int, told: int, answer: int) -> None:
    """Run point selects; whenever a byte comes, write how long each since the last one took."""
    client = connect(port)  # closed with the last reference to it
    sock = client._sock
    os.set_blocking(told, False)
    times: list[float] = []
    while True:
        began = time.perf_counter()
        sock.sendall(POINT_SELECT)
        sock.recv(65_536)
        times.append(time.perf_counter() - began)
        with suppress(BlockingIOError):
            os.read(told, 1)
            with os.fdopen(os.dup(answer), "w") as line:
                print(*(f"{each * 1000:.2f}" for each in times), file=line)
            times = []
        time.sleep(0.0002)  # a client that thinks a little: the proxy is busy, but not saturated


def connect(port: int) -> Connection[Any]:
    """Return a client."""
    return pymysql.connect(host="127.0.0.1", port=port, user="root", password="")


def percentile(times: list[float], share: float) -> float:
    """Return the nearest rank of sorted times."""
    return times[max(0, -int(-share * len(times) // 1) - 1)]


class Asker:
    """A client that reads answers without looking at their rows, so that they cost it nothing."""

    def __init__(self, port: int) -> None:
        self._client = connect(port)
        self._socket: socket.socket = self._client._sock

    def ask(self, text: str) -> int:
        """Return how many bytes the answer has."""
        self._socket.sendall((len(text) + 1).to_bytes(3, "little") + b"\0\x03" + text.encode())
        answer, place, ends = bytearray(), 0, 0
        while ends < 2:  # one EOF behind the definitions, one behind the rows
            answer += self._socket.recv(1 << 20)
            while len(answer) - place > 4:
                length = int.from_bytes(answer[place : place + 3], "little")
                if answer[place + 4] == 0xFF:
                    raise RuntimeError(f"{text}: {answer[place:]!r}")
                ends += length == 5 and answer[place + 4] == 0xFE
                place += length + 4
        return len(answer)


def measure(text: str, asker: Asker, proxy: Program, latest: Callable[[], list[float]], seconds: float) -> list[str]:
    """Ask for a list again and again, or for none, and return the table's row."""
    end = time.monotonic() + seconds
    spent, size = [], 0
    latest()
    cpu = proxy.cpu_seconds()
    while time.monotonic() < end:
        began = time.perf_counter()
        if text:
            size = asker.ask(text)
            spent.append((time.perf_counter() - began) * 1000)
            time.sleep(0.05)
        else:
            time.sleep(0.1)
    cpu = proxy.cpu_seconds() - cpu
    others = sorted(latest())
    spent.sort()
    own = [f"{size:,}", f"{percentile(spent, 0.5):.0f}", f"{spent[-1]:.0f}"] if spent else ["", "", ""]
    waits = [f"{percentile(others, share):.2f}" for share in (0.5, 0.99, 1.0)]
    return [text or "(none)", *own, f"{cpu / seconds:.0%}", f"{len(others):,}", *waits]


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.session_list", description=__doc__)
    parser.add_argument("--sessions", type=int, default=9_900, help="how many to list [9,900]")
    parser.add_argument("--seconds", type=float, default=5.0, help="how long each list is asked for [5]")
    options = parser.parse_args()
    limit = raise_open_files()
    if options.sessions * 2 + 100 > limit:
        parser.error(f"--sessions: a proxy needs two descriptors each, and {limit} are allowed (ulimit -Hn)")
    rows = []
    with (
        start_fakeserver() as server,
        start_odptwist(server.port) as proxy,
        Load(proxy.port, "idle", options.sessions) as load,
    ):
        load.wait_until_open(600)
        asker = Asker(proxy.port)
        with selecting(proxy.port) as latest:
            for text in ("", *LISTS, ""):
                rows.append(measure(text, asker, proxy, latest, options.seconds))
                print(rows[-1], flush=True)
    print(f"\nPython {platform.python_version()}, {options.sessions:,} sessions\n")
    titles = ["list", "bytes", "ms", "longest", "proxy's CPU", "point selects", "median ms", "p99 ms", "longest ms"]
    print_table(titles, rows)


if __name__ == "__main__":
    main()
