"""sysbench before real servers: direct, by HAProxy, nginx and odptwist, in alternating rounds.

`python -m benchmarks.sysbench`. Starts a MariaDB and a seekdb of its own, fills a table, and runs point selects,
read-only and read-write transactions, prepared, as sysbench does by default. Rates and CPU are per statement, latencies
those of a whole transaction; CPU is user and system time of the proxy's process.
"""

from __future__ import annotations

import argparse
import re
import subprocess
from contextlib import ExitStack
from pathlib import Path

from benchmarks.rounds import Round, Way, open_ways, show
from benchmarks.servers import SERVERS, connect, start_server
from benchmarks.support import Server, raise_open_files
from tests.support.servers import find_program

SCRIPTS = ("point_select", "read_only", "read_write")
DATABASE = "sbtest"
# Transactions that met another one are counted and done again: deadlocks, and what seekdb says of two writers of a row.
CONFLICTS = "1213,1205,1020,6002,6235"


def sysbench(end: Server, script: str, command: str, *options: str) -> str:
    """Run sysbench as root, on a server or through a proxy, and return what it prints.

    Raises:
        RuntimeError: it failed; the message has its output.
    """
    where = [f"--mysql-socket={end}"] if isinstance(end, Path) else ["--mysql-host=127.0.0.1", f"--mysql-port={end}"]
    words = [find_program("sysbench", "sysbench"), f"oltp_{script}", "--db-driver=mysql", *where, "--mysql-user=root"]
    words += [f"--mysql-db={DATABASE}", f"--mysql-ignore-errors={CONFLICTS}", *options, command]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(words)}:\n{done.stdout}{done.stderr}")
    return done.stdout


def run(way: Way, script: str, threads: int, seconds: int, rows: int) -> Round:
    """Go a round of a script."""
    options = [f"--threads={threads}", f"--time={seconds}", f"--table-size={rows}", "--rand-type=uniform"]
    before = way.cpu_seconds()
    said = sysbench(way.end, script, "run", "--histogram=on", *options)
    spent = way.cpu_seconds() - before
    count, rate = re.findall(r"queries: +(\d+) +\(([\d.]+) per sec", said)[0]
    (conflicts,) = re.findall(r"ignored errors: +(\d+)", said)
    # The histogram's lines: milliseconds, a bar, how often.
    times = [(float(ms), int(often)) for ms, often in re.findall(r"^ +([\d.]+) \|\** +(\d+)$", said, re.MULTILINE)]
    return Round(
        float(rate),
        percentile(times, 0.5) * 1000,
        percentile(times, 0.99) * 1000,
        spent / (int(count) or 1) * 1e6,
        int(conflicts),
    )


def percentile(times: list[tuple[float, int]], share: float) -> float:
    """Return the nearest rank of a histogram: rising values, and how often each came."""
    left = share * sum(often for _, often in times)
    for value, often in times:
        left -= often
        if left <= 0:
            return value
    return 0.0


def compare(name: str, options: argparse.Namespace) -> None:
    """Run all scripts before one kind of server, all ways, and print the table."""
    with ExitStack() as programs:
        end = programs.enter_context(start_server(name))
        with connect(end) as client, client.cursor() as cursor:
            cursor.execute(f"CREATE DATABASE {DATABASE}")
        sysbench(end, SCRIPTS[0], "prepare", f"--table-size={options.rows}")
        ways = open_ways(programs, end)
        shapes = {
            f"{name}, {script}, {threads} thr.": (script, int(threads))
            for script in options.scripts.split(",")
            for threads in options.threads.split(",")
        }
        for _ in range(options.rounds):
            for shape, (script, threads) in shapes.items():
                for way in ways:
                    way.add(shape, run(way, script, threads, options.seconds, options.rows))
        show(ways, list(shapes), f"medians of {options.rounds} rounds of {options.seconds} s; errors are conflicts")


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.sysbench", description=__doc__)
    parser.add_argument("--server", action="append", choices=SERVERS, help="again for more [both]")
    parser.add_argument("--scripts", default=",".join(SCRIPTS), help=f"what to run [{','.join(SCRIPTS)}]")
    parser.add_argument("--threads", default="1,16", help="numbers of sysbench's threads [1,16]")
    parser.add_argument("--rows", type=int, default=100_000, help="of the table [100,000]")
    parser.add_argument("--seconds", type=int, default=3, help="length of one round [3]")
    parser.add_argument("--rounds", type=int, default=3, help="rounds of each way and load; medians are shown [3]")
    options = parser.parse_args()
    raise_open_files()
    for name in options.server or SERVERS:
        compare(name, options)


if __name__ == "__main__":
    main()
