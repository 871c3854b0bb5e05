"""Alternating rounds: each load goes each way to a server in turn, again and again, and medians are compared."""

from __future__ import annotations

import platform
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from statistics import median

from attrs import define, field, frozen

from benchmarks.support import (
    Load,
    Program,
    Server,
    haproxy,
    nginx,
    print_table,
    start_haproxy,
    start_nginx,
    start_odptwist,
)

# The values of ODPTWIST_GEAR. Where nothing was built in C, all are the first one.
GEARS = {"python": "pure Python", "tracker": "C tracker", "relay": "C relay"}


@frozen
class Shape:
    """A kind of load: `mode` is one of `native/load.c`'s."""

    name: str
    mode: str
    connections: int


@frozen
class Round:
    """What one round of a shape has shown; `cpu` is in microseconds per response, 0 without a proxy."""

    rate: float
    p50: float
    p99: float
    cpu: float
    errors: int


@define
class Way:
    """A way to the server, and the rounds that went it, by the name of their shape.

    `end` is that of it which clients connect to, `program` the proxy, None where there is none.
    """

    name: str
    end: Server
    program: Program | None = None
    rounds: dict[str, list[Round]] = field(factory=dict)

    def run(self, shape: Shape, seconds: float) -> Round:
        """Go a round of a load."""
        with Load(self.end, shape.mode, shape.connections, seconds) as load:
            load.wait_until_open()
            before = self.cpu_seconds()
            found = load.run()
            spent = self.cpu_seconds() - before
        count = found["count"] or 1.0
        return Round(count / found["seconds"], found["p50"], found["p99"], spent / count * 1e6, int(found["errors"]))

    def cpu_seconds(self) -> float:
        """Return what the proxy has cost so far."""
        return self.program.cpu_seconds() if self.program is not None else 0.0

    def add(self, shape: str, round_: Round) -> None:
        """Remember a round."""
        self.rounds.setdefault(shape, []).append(round_)

    def middle(self, shape: str, of: Callable[[Round], float]) -> float:
        """Return the median of a figure over the rounds of a shape."""
        return median(of(round_) for round_ in self.rounds[shape])


def open_ways(programs: ExitStack, server: Server) -> list[Way]:
    """Return the direct way to a server, and one through each proxy that is there; `programs` ends them."""
    ways = [Way("direct", server)]

    def through(name: str, program: Program) -> None:
        ways.append(Way(name, program.port, programs.enter_context(program)))

    if haproxy():
        through("HAProxy", start_haproxy(server))
    if nginx():
        through("nginx", start_nginx(server))
    for gear, name in GEARS.items():
        through(f"odptwist, {name}", start_odptwist(server, gear=gear))
    return ways


def compare(ways: Sequence[Way], shapes: Sequence[Shape], rounds: int, seconds: float) -> None:
    """Go all rounds and print the table; ratios are to HAProxy."""
    for _ in range(rounds):
        for shape in shapes:
            for way in ways:
                way.add(shape.name, way.run(shape, seconds))
    show(ways, [shape.name for shape in shapes], f"medians of {rounds} rounds of {seconds:g} s")


def show(ways: Sequence[Way], shapes: Sequence[str], how: str) -> None:
    """Print the table of the rounds that were gone."""
    rows = []
    for shape in shapes:
        scale = next((way.middle(shape, lambda r: r.cpu) for way in ways if way.name == "HAProxy"), 0.0)
        for way in ways:
            cpu = way.middle(shape, lambda r: r.cpu)
            rows.append(
                [
                    shape,
                    way.name,
                    f"{way.middle(shape, lambda r: r.rate):,.0f}",
                    f"{way.middle(shape, lambda r: r.p50):,.0f}",
                    f"{way.middle(shape, lambda r: r.p99):,.0f}",
                    f"{cpu:,.1f}" if way.program else "",
                    f"{cpu / scale:.2f}" if way.program and scale else "",
                    str(sum(r.errors for r in way.rounds[shape])),
                ]
            )
    print(f"Python {platform.python_version()}, {how}\n")
    print_table(["load", "way", "per s", "p50 us", "p99 us", "CPU us each", "of HAProxy", "errors"], rows, left=2)
