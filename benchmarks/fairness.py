"""How long a session waits for its answers while another one takes all it can get: by HAProxy and by odptwist.

`python -m benchmarks.fairness`. One client runs point selects, one after the other; beside it nobody, then one that
reads large results without end, then one that sends a hundred thousand commands ahead and reads the answers as they
come.
"""

from __future__ import annotations

import argparse
import platform
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress

from benchmarks.rounds import Way, open_ways
from benchmarks.session_list import POINT_SELECT, connect, percentile, selecting
from benchmarks.support import Load, print_table, raise_open_files, start_fakeserver

AHEAD = 100_000


@contextmanager
def nobody(port: int, seconds: float) -> Iterator[Callable[[], str]]:
    """Do nothing."""
    yield lambda: ""


@contextmanager
def reader(port: int, seconds: float) -> Iterator[Callable[[], str]]:
    """Let a client read results of 1 MB."""
    with Load(port, "big", 1, seconds) as load:
        load.wait_until_open()
        load.tell("go")

        def taken() -> str:
            count = int(load.wait_for(r"count=(\d+)", seconds + 60)[1])
            return f"{count / 1000:,.1f} GB"

        yield taken


@contextmanager
def pipeliner(port: int, seconds: float) -> Iterator[Callable[[], str]]:
    """Let a client send commands ahead, and again when all are answered."""
    client = connect(port)
    line: socket.socket = client._sock
    line.sendall(POINT_SELECT)
    size_of_one = len(line.recv(65_536))
    answered = [0]
    stop = threading.Event()

    def send() -> None:
        with suppress(OSError):  # the end
            while not stop.is_set():
                before = answered[0]
                line.sendall(POINT_SELECT * AHEAD)
                while answered[0] < before + AHEAD and not stop.is_set():
                    time.sleep(0.001)

    def receive() -> None:
        size = 0
        with suppress(OSError):
            while got := line.recv(1 << 20):
                size += len(got)
                answered[0] = size // size_of_one

    threads = [threading.Thread(target=work, daemon=True) for work in (send, receive)]
    for thread in threads:
        thread.start()
    yield lambda: f"{answered[0]:,} answers"
    stop.set()
    line.shutdown(socket.SHUT_RDWR)
    for thread in threads:
        thread.join(10)


GREEDY = {"nobody": nobody, "reads 1 MB results": reader, "sends 100,000 ahead": pipeliner}


def measure(way: Way, kind: str, seconds: float) -> list[str]:
    """Let one kind of client be greedy, and return the table's row."""
    port = int(str(way.end))
    with selecting(port) as latest, GREEDY[kind](port, seconds) as taken:
        latest()
        time.sleep(seconds)
        times = sorted(latest())
        got = taken()
    waits = [f"{percentile(times, share) * 1000:,.0f}" for share in (0.5, 0.99, 1.0)]
    return [kind, way.name, got, f"{len(times):,}", *waits]


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.fairness", description=__doc__)
    parser.add_argument("--seconds", type=float, default=10.0, help="length of each measurement [10]")
    options = parser.parse_args()
    raise_open_files()
    with ExitStack() as programs:
        server = programs.enter_context(start_fakeserver())
        ways = open_ways(programs, server.port)
        rows = [measure(way, kind, options.seconds) for kind in GREEDY for way in ways]
    print(f"Python {platform.python_version()}, {options.seconds:g} s each\n")
    titles = ["the other client", "way", "it got", "point selects", "p50 us", "p99 us", "longest us"]
    print_table(titles, rows, left=2)


if __name__ == "__main__":
    main()
