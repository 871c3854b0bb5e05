"""What logins cost: connect, log in, quit, again and again; direct, by HAProxy, nginx and odptwist, in turns.

`python -m benchmarks.logins`. A login has neither password nor TLS. A proxy that only passes bytes on has a connection
to accept and one to open; odptwist reads and writes every packet of two logins. CPU is user and system time of the
proxy's process.
"""

from __future__ import annotations

import argparse
from contextlib import ExitStack

from benchmarks.rounds import Shape, compare, open_ways
from benchmarks.servers import SERVERS, start_server
from benchmarks.support import Server, raise_open_files, start_fakeserver


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.logins", description=__doc__)
    parser.add_argument("--seconds", type=float, default=2.0, help="length of one round [2]")
    parser.add_argument("--rounds", type=int, default=3, help="rounds of each way and shape; medians are shown [3]")
    parser.add_argument("--clients", default="1,16", help="how many log in at the same time [1,16]")
    parser.add_argument("--server", default="fake", choices=("fake", *SERVERS), help="what is logged in to [fake]")
    options = parser.parse_args()
    raise_open_files()
    shapes = [Shape(f"logins, {number} clients", "logins", int(number)) for number in options.clients.split(",")]
    with ExitStack() as programs:
        if options.server == "fake":
            server: Server = programs.enter_context(start_fakeserver()).port
        else:
            server = programs.enter_context(start_server(options.server))
        compare(open_ways(programs, server), shapes, options.rounds, options.seconds)


if __name__ == "__main__":
    main()
