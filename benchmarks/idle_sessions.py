"""What sessions cost that do nothing: memory and CPU of odptwist and of HAProxy, and the time to list them all.

`python -m benchmarks.idle_sessions`. Memory is the resident set of the proxy's process. When the sessions have been
watched idle, another client runs point selects beside them for some seconds, one after the other.
"""

from __future__ import annotations

import argparse
import platform
import time
from collections.abc import Callable

import pymysql

from benchmarks.session_list import percentile, selecting
from benchmarks.support import (
    Load,
    Program,
    haproxy,
    print_table,
    raise_open_files,
    start_fakeserver,
    start_haproxy,
    start_odptwist,
)

_SELECTING = 5.0  # seconds


def measure(name: str, start: Callable[[int], Program], sessions: int, seconds: float, lists: bool) -> list[str]:
    """Open sessions through a proxy and return the table's row.

    Args:
        name: the proxy's.
        start: starts it before a server's port.
        sessions: how many to open.
        seconds: how long to watch them idle.
        lists: whether the proxy knows SHOW PROXYSESSION.
    """
    with start_fakeserver() as server, start(server.port) as proxy:
        before = proxy.resident_kib()
        began = time.monotonic()
        with Load(proxy.port, "idle", sessions) as load:
            load.wait_until_open(600)
            opened = time.monotonic() - began
            after = proxy.resident_kib()
            cpu = proxy.cpu_seconds()
            time.sleep(seconds)
            cpu = proxy.cpu_seconds() - cpu
            with selecting(proxy.port) as latest:
                time.sleep(_SELECTING)
                selects = sorted(latest())
            listing = list_sessions(proxy.port, sessions) if lists else ""
    each = (after - before) / sessions
    return [
        name,
        f"{sessions:,}",
        f"{before:,}",
        f"{after:,}",
        f"{each:.1f}",
        f"{opened:.1f}",
        f"{cpu:.2f}",
        *(f"{percentile(selects, share):.2f}" for share in (0.5, 0.99)),
        listing,
    ]


def list_sessions(port: int, sessions: int) -> str:
    """Time one SHOW PROXYSESSION and say whether it lists all sessions, and the one that asks."""
    client = pymysql.connect(host="127.0.0.1", port=port, user="root", password="")
    with client, client.cursor() as cursor:
        began = time.monotonic()
        count = cursor.execute("SHOW PROXYSESSION")
        spent = (time.monotonic() - began) * 1000
    return f"{spent:.0f} ms, all" if count == sessions + 1 else f"{spent:.0f} ms, BUT {count:,} ROWS"


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.idle_sessions", description=__doc__)
    parser.add_argument("--sessions", type=int, default=5000, help="how many to open [5000]")
    parser.add_argument("--seconds", type=float, default=5.0, help="how long to watch them idle [5]")
    options = parser.parse_args()
    limit = raise_open_files()
    if options.sessions * 2 + 100 > limit:
        parser.error(f"--sessions: a proxy needs two descriptors each, and {limit} are allowed (ulimit -Hn)")
    rows = []
    if haproxy():
        rows.append(measure("HAProxy", start_haproxy, options.sessions, options.seconds, False))
    rows.append(measure("odptwist", start_odptwist, options.sessions, options.seconds, True))
    print(f"Python {platform.python_version()}\n")
    titles = ["proxy", "sessions", "KB before", "KB after", "KB each", "s to open"]
    titles += [f"CPU s in {options.seconds:g} s idle", "select, median ms", "p99 ms", "SHOW PROXYSESSION"]
    print_table(titles, rows)


if __name__ == "__main__":
    main()
