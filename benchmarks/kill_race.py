"""Whether KILL QUERY hits the statement that it is aimed at: through odptwist and directly, before real servers.

`python -m benchmarks.kill_race`. A victim runs short statements, one behind the other, and announces each before it
sends it. A killer reads the announcement, sends KILL QUERY, and does not send the next one before the victim has gone
two statements further.

A hit is *right* if the statement ran when the kill was sent: that is what the killer can mean. It is *wrong* if the
statement began after the kill was sent. All times are those of the two clients, and of two times the kinder one counts
(begun: before the victim sends the statement; sent: any time between the call of the killer's `send` and its return),
so a hit that is called wrong is wrong for sure.
"""

from __future__ import annotations

import argparse
import mmap
import os
import pickle
import platform
import random
import struct
import time
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import pymysql
from attrs import frozen
from pymysql.connections import Connection

from benchmarks.servers import PATIENCE, SERVERS, connect, start_server
from benchmarks.support import Server, print_table, start_odptwist

COM_QUERY = 3
INTERRUPTED = 1317

_SOURCE = "(SELECT 1 x UNION ALL SELECT 2 UNION ALL SELECT 3 UNION ALL SELECT 4 UNION ALL SELECT 5)"


@frozen
class Shot:
    """A kill: the statement that was announced, and when the kill was sent (after `aimed`) and answered."""

    named: int
    aimed: float
    sent: float
    answered: float


@frozen
class Record:
    """What the victim saw: when each statement began, and which were interrupted."""

    begun: list[float]
    interrupted: list[int]


def work(joins: int) -> str:
    """Return what a statement computes with."""
    return ", ".join(f"{_SOURCE} t{number}" for number in range(joins))


def choose_joins(client: Connection[Any]) -> int:
    """Return how many joins take a millisecond and more."""
    with client.cursor() as cursor:
        for joins in range(2, 12):
            best = 1.0
            for _ in range(5):
                began = time.monotonic()
                cursor.execute(f"SELECT 0, COUNT(*) FROM {work(joins)}")
                best = min(best, time.monotonic() - began)
            if best > 0.001:
                return joins
    raise RuntimeError("no statement takes a millisecond")


def be_victim(client: Connection[Any], joins: int, shared: mmap.mmap) -> Record:
    """Run statements until told to stop.

    Args:
        client: to run them on.
        joins: for those that compute.
        shared: the number of the statement that runs, and whether to stop.
    """
    record = Record([], [])
    computing = f"COUNT(*) FROM {work(joins)}"
    while not shared[8]:
        number = len(record.begun)
        text = f"SELECT {number}" if number % 3 == 0 else f"SELECT {number}, {computing}"
        record.begun.append(time.monotonic())
        struct.pack_into("Q", shared, 0, number)
        try:
            with client.cursor() as cursor:
                cursor.execute(text)
                ((found, *_),) = cursor.fetchall()
        except pymysql.MySQLError as error:
            if error.args[0] != INTERRUPTED:
                raise
            record.interrupted.append(number)
        else:
            if int(found) != number:
                raise RuntimeError(f"statement {number} got the answer {found}")
    return record


def shoot(asker: Connection[Any], target: int, rounds: int, shared: mmap.mmap) -> list[Shot]:
    """Kill what the victim runs, again and again."""
    shots = []
    pause = random.Random(1)
    for _ in range(rounds):
        time.sleep(pause.random() * 0.003)
        (named,) = struct.unpack_from("Q", shared, 0)
        aimed = time.monotonic()
        asker._execute_command(COM_QUERY, f"KILL QUERY {target}")
        sent = time.monotonic()
        asker._read_query_result()
        answered = time.monotonic()
        shots.append(Shot(named, aimed, sent, answered))
        (now,) = struct.unpack_from("Q", shared, 0)
        while struct.unpack_from("Q", shared, 0)[0] < now + 2:
            if time.monotonic() > answered + PATIENCE:
                raise RuntimeError("the victim hangs")
            time.sleep(0.0002)
    return shots


def race(server: Server, rounds: int, joins: int) -> tuple[list[Shot], Record]:
    """Let a victim and a killer loose on a server or a proxy; each is a process of its own."""
    victim, asker = connect(server), connect(server)
    shared = mmap.mmap(-1, 16)
    target = victim.thread_id()
    read, write = os.pipe()
    child = os.fork()
    if not child:
        try:
            record = be_victim(victim, joins, shared)
            with open(write, "wb") as output:
                pickle.dump(record, output)
        finally:
            os._exit(0)
    os.close(write)
    try:
        shots = shoot(asker, target, rounds, shared)
    finally:
        shared[8] = 1
        with open(read, "rb") as source:
            record = pickle.load(source)
        os.waitpid(child, 0)
    victim._force_close()
    asker.close()
    return shots, record


def judge(shots: Sequence[Shot], record: Record) -> Counter[str]:
    """Sort the hits."""
    counts = Counter(rounds=len(shots), statements=len(record.begun))
    named = {shot.named for shot in shots}
    place = 0
    for number in record.interrupted:
        begun = record.begun[number]
        end = record.begun[number + 1] if number + 1 < len(record.begun) else float("inf")
        while place < len(shots) and shots[place].sent < begun:
            place += 1
        # `shots[place]` is the first kill that was sent after the statement had begun.
        if place < len(shots) and shots[place].aimed <= end:
            counts["named" if number in named else "moved"] += 1
        elif place and begun < shots[place - 1].answered:
            counts["before"] += 1
        else:
            counts["after"] += 1
    return counts


def measure(server: Server, way: Callable[[Server, int], tuple[list[Shot], Record]]) -> Counter[str]:
    """Return the counts of one way to a server."""
    with connect(server) as client:
        joins = choose_joins(client)
    return judge(*way(server, joins))


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.kill_race", description=__doc__)
    parser.add_argument("--rounds", type=int, default=10_000, help="kills each way [10,000]")
    parser.add_argument("--server", action="append", choices=SERVERS, help="again for more [both]")
    options = parser.parse_args()

    def directly(server: Server, joins: int) -> tuple[list[Shot], Record]:
        return race(server, options.rounds, joins)

    def proxied(server: Server, joins: int) -> tuple[list[Shot], Record]:
        with start_odptwist(server) as proxy:
            return race(proxy.port, options.rounds, joins)

    rows = []
    for name in options.server or SERVERS:
        with start_server(name) as server:
            for way, run in (("direct", directly), ("odptwist", proxied)):
                counts = measure(server, run)
                right = counts["named"] + counts["moved"]
                hits = [f"{count:,}" for count in (right, counts["before"] + counts["after"], counts["after"])]
                rows.append([name, way, f"{counts['rounds']:,}", f"{counts['statements']:,}", *hits])
                print(rows[-1], flush=True)
    print(f"\nPython {platform.python_version()}\n")
    print_table(["server", "way", "kills", "statements", "right hits", "wrong hits", "of those after the OK"], rows, 2)


if __name__ == "__main__":
    main()
