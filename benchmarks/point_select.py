"""What a point select and a result of 1 MB cost: direct, by HAProxy, nginx and odptwist, in alternating rounds.

`python -m benchmarks.point_select`. CPU is user and system time of the proxy's process.
"""

from __future__ import annotations

import argparse
import platform
from collections.abc import Callable
from contextlib import ExitStack
from statistics import median

from attrs import define, field, frozen

from benchmarks.support import (
    Load,
    Program,
    haproxy,
    nginx,
    print_table,
    raise_open_files,
    start_fakeserver,
    start_haproxy,
    start_nginx,
    start_odptwist,
)
from odptwist.machines.gear import GEAR


@frozen
class Shape:
    """A kind of load."""

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
    """A way to the server, and the rounds that went it, by the name of their shape."""

    name: str
    program: Program
    proxied: bool
    rounds: dict[str, list[Round]] = field(factory=dict)

    def run(self, shape: Shape, seconds: float) -> None:
        """Go a round."""
        with Load(self.program.port, shape.mode, shape.connections, seconds) as load:
            load.wait_until_open()
            before = self.program.cpu_seconds()
            found = load.run()
            spent = self.program.cpu_seconds() - before if self.proxied else 0.0
        count = found["count"] or 1.0
        self.rounds.setdefault(shape.name, []).append(
            Round(count / found["seconds"], found["p50"], found["p99"], spent / count * 1e6, int(found["errors"]))
        )

    def middle(self, shape: Shape, of: Callable[[Round], float]) -> float:
        """Return the median of a figure over the rounds of a shape."""
        return median(of(round_) for round_ in self.rounds[shape.name])


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.point_select", description=__doc__)
    parser.add_argument("--seconds", type=float, default=3.0, help="length of one round [3]")
    parser.add_argument("--rounds", type=int, default=3, help="rounds of each way and shape; medians are shown [3]")
    parser.add_argument("--connections", default="1,16,256", help="numbers of connections for point selects [1,16,256]")
    parser.add_argument("--big", type=int, default=16, help="connections for 1 MB results; 0: without [16]")
    options = parser.parse_args()
    raise_open_files()
    numbers = [int(number) for number in options.connections.split(",") if number]
    shapes = [Shape(f"point select, {number} conn.", "point", number) for number in numbers]
    if options.big:
        shapes.append(Shape(f"1 MB result, {options.big} conn.", "big", options.big))
    with ExitStack() as programs:
        server = programs.enter_context(start_fakeserver())
        ways = [Way("direct", server, False)]
        if haproxy():
            ways.append(Way("HAProxy", programs.enter_context(start_haproxy(server.port)), True))
        if nginx():
            ways.append(Way("nginx", programs.enter_context(start_nginx(server.port)), True))
        ways.append(
            Way("odptwist, pure Python", programs.enter_context(start_odptwist(server.port, gear="python")), True)
        )
        if GEAR != "pure Python":
            ways.append(Way(f"odptwist, {GEAR}", programs.enter_context(start_odptwist(server.port)), True))
        for _ in range(options.rounds):
            for shape in shapes:
                for way in ways:
                    way.run(shape, options.seconds)
    show(shapes, ways, options.rounds, options.seconds)


def show(shapes: list[Shape], ways: list[Way], rounds: int, seconds: float) -> None:
    """Print the table; ratios are to HAProxy."""
    rows = []
    for shape in shapes:
        scale = next((way.middle(shape, lambda r: r.cpu) for way in ways if way.name == "HAProxy"), 0.0)
        for way in ways:
            cpu = way.middle(shape, lambda r: r.cpu)
            rows.append(
                [
                    shape.name,
                    way.name,
                    f"{way.middle(shape, lambda r: r.rate):,.0f}",
                    f"{way.middle(shape, lambda r: r.p50):,.0f}",
                    f"{way.middle(shape, lambda r: r.p99):,.0f}",
                    f"{cpu:,.1f}" if way.proxied else "",
                    f"{cpu / scale:.2f}" if way.proxied and scale else "",
                    str(sum(r.errors for r in way.rounds[shape.name])),
                ]
            )
    print(f"Python {platform.python_version()}, medians of {rounds} rounds of {seconds:g} s\n")
    print_table(["load", "way", "per s", "p50 us", "p99 us", "CPU us each", "of HAProxy", "errors"], rows, left=2)


if __name__ == "__main__":
    main()
