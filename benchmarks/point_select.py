"""What a point select and a result of 1 MB cost: direct, by HAProxy, nginx and odptwist, in alternating rounds.

`python -m benchmarks.point_select`. CPU is user and system time of the proxy's process.
"""

from __future__ import annotations

import argparse
from contextlib import ExitStack

from benchmarks.rounds import Shape, compare, open_ways
from benchmarks.support import raise_open_files, start_fakeserver


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
        compare(open_ways(programs, server.port), shapes, options.rounds, options.seconds)


if __name__ == "__main__":
    main()
