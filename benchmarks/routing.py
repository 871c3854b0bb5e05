"""What it costs to choose between two servers: CPU per query before one server and before a cluster, in turns.

`python -m benchmarks.routing`. CPU is user and system time of the proxy's process. A round of each way follows a round
of the others, and each is compared with the way before one server in the same turn: the medians of these ratios are
shown, since they move less than the times do.
"""

from __future__ import annotations

import argparse
import platform
from contextlib import ExitStack
from pathlib import Path
from statistics import median

from attrs import define, field, frozen

from benchmarks.support import (
    Load,
    Program,
    print_table,
    raise_open_files,
    start_cluster,
    start_fakeserver,
    start_odptwist,
)
from odptwist.machines.gear import GEAR


@frozen
class Shape:
    """A kind of load: `mode` is the load generator's."""

    name: str
    mode: str
    connections: int


@define
class Way:
    """A proxy, and the CPU of its rounds by the name of their shape, in microseconds per query."""

    name: str
    program: Program
    rounds: dict[str, list[float]] = field(factory=dict)

    def run(self, shape: Shape, seconds: float) -> None:
        """Go a round.

        Raises:
            RuntimeError: some queries failed.
        """
        with Load(self.program.port, shape.mode, shape.connections, seconds) as load:
            load.wait_until_open()
            before = self.program.cpu_seconds()
            found = load.run()
            spent = self.program.cpu_seconds() - before
            if found["errors"] or not found["count"]:
                raise RuntimeError(f"{self.name}, {shape.name}: {found['errors']:.0f} errors\n{load.output()}")
        self.rounds.setdefault(shape.name, []).append(spent / found["count"] * 1e6)


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.routing", description=__doc__)
    parser.add_argument("--seconds", type=float, default=2.0, help="length of one round [2]")
    parser.add_argument("--rounds", type=int, default=7, help="rounds of each way and shape; medians are shown [7]")
    parser.add_argument("--connections", default="1,16,256", help="numbers of connections [1,16,256]")
    parser.add_argument("--gear", default="", help="python: the machines in Python, even if there are any in C")
    parser.add_argument("--against", type=Path, help="directory of another odptwist's source, to be measured too")
    options = parser.parse_args()
    raise_open_files()
    shapes = [
        Shape(f"{name}, {connections} conn.", mode, int(connections))
        for name, mode in (("text", "distinct"), ("prepared", "execute"))
        for connections in options.connections.split(",")
    ]
    with ExitStack() as programs:
        primary, replica = (programs.enter_context(start_fakeserver()).port for _ in range(2))
        starts = {
            "one server": lambda: start_odptwist(primary, gear=options.gear),
            "two, primary": lambda: start_cluster(primary, replica, "primary", options.gear),
            "two, replica_first": lambda: start_cluster(primary, replica, "replica_first", options.gear),
        }
        if options.against is not None:
            starts["one server, against"] = lambda: start_odptwist(primary, source=options.against)
        ways = [Way(name, programs.enter_context(start())) for name, start in starts.items()]
        for turn in range(options.rounds):
            for shape in shapes:
                # Backwards every other time, so that what slows down or speeds up meets all alike.
                for way in ways if turn % 2 else reversed(ways):
                    way.run(shape, options.seconds)
    show(shapes, ways, options)


def show(shapes: list[Shape], ways: list[Way], options: argparse.Namespace) -> None:
    """Print the table; ratios are to the first way."""
    rows = []
    for shape in shapes:
        scale = ways[0].rounds[shape.name]
        for way in ways:
            spent = way.rounds[shape.name]
            ratio = median(one / other for one, other in zip(spent, scale, strict=True))
            rows.append([shape.name, way.name, f"{median(spent):,.1f}", f"{ratio:.2f}"])
    machines = "pure Python" if options.gear else GEAR
    rounds = f"{options.rounds} rounds of {options.seconds:g} s"
    print(f"Python {platform.python_version()}, {machines}, medians of {rounds}\n")
    print_table(["load", "way", "CPU us each", f"of {ways[0].name}"], rows, left=2)


if __name__ == "__main__":
    main()
