"""What clients notice when the servers behind odptwist change their roles, and when one of them is killed.

`python -m benchmarks.switchover`. Builds a MariaDB primary with its replica, and a seekdb primary with its standby.
Eight clients read and write through the proxy meanwhile, and try again what fails. The figures are of what they began
in a phase: how many statements a second were answered, the errors, and how long the slowest read, read of what the
client itself had just written, write and transaction took, all tries included. In the end the rows of both servers are
compared with what clients were told.
"""

from __future__ import annotations

import argparse
import platform
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from benchmarks.support import print_table
from tests.support.pairs import MariaDbPair, Pair, SeekdbPair
from tests.support.servers import Proxy
from tests.support.shoppers import KINDS, Figures, Shop, prepare, settings

PAIRS: dict[str, Callable[[Callable[[], Path]], Pair[Any]]] = {"mariadb": MariaDbPair, "seekdb": SeekdbPair}


@contextmanager
def built(name: str) -> Iterator[Pair[Any]]:
    """Build a pair, and remove it in the end."""
    pair = PAIRS[name](lambda: Path(tempfile.mkdtemp(prefix="odp")))
    try:
        yield pair
    finally:
        pair.close()


@contextmanager
def started(pair: Pair[Any]) -> Iterator[Proxy]:
    """Start a proxy before a pair, and stop it in the end."""
    with tempfile.TemporaryDirectory(prefix="odp") as base:
        file = Path(base) / "odp.toml"
        file.write_text(settings(pair.primary, pair.replica))
        proxy = Proxy(Path(base), "--config", str(file))
        try:
            yield proxy
        finally:
            proxy.stop()


def crash(pair: Pair[Any], role: str, seconds: float) -> None:
    """Kill a server, and bring it back after a time."""
    server = getattr(pair, role)
    pair.kill(server)
    time.sleep(seconds)
    pair.start(server)


def trouble(shop: Shop, pair: Pair[Any], rounds: int, calm: float, away: float) -> None:
    """Do to a pair, again and again, what it has to survive, with a calm time after each."""
    time.sleep(calm)
    for _ in range(rounds):
        for phase, act in (
            ("nothing happens", lambda: None),
            ("switchover", pair.switch_over),
            ("switchover back", pair.switch_over),
            ("replica killed", lambda: crash(pair, "replica", away)),
            ("primary killed", lambda: crash(pair, "primary", away)),
        ):
            shop.phase(phase)
            act()
            time.sleep(calm)


def row(name: str, phase: str, figures: Figures) -> list[str]:
    """Return a row of the table."""
    errors = [
        ", ".join(f"{count} x {code}" for code, count in sorted(counts.items())) or "none"
        for counts in (figures.errors, figures.rollbacks)
    ]
    rate = f"{figures.statements / figures.seconds:,.0f}"
    pauses = [f"{figures.longest.get(kind, 0.0) * 1000:,.0f}" for kind in KINDS]
    return [name, phase, *errors, str(figures.closed), rate, *pauses]


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.switchover", description=__doc__)
    parser.add_argument("--rounds", type=int, default=3, help="how often each server is troubled [3]")
    parser.add_argument("--clients", type=int, default=8, help="every second one writes [8]")
    parser.add_argument("--calm", type=float, default=3.0, help="seconds after each trouble [3]")
    parser.add_argument("--away", type=float, default=2.0, help="seconds that a killed server is away [2]")
    parser.add_argument("--pair", action="append", choices=sorted(PAIRS), help="again for more [both]")
    options = parser.parse_args()
    rows, remarks = [], []
    for name in options.pair or PAIRS:
        with built(name) as pair, started(pair) as proxy:
            prepare(pair.primary)
            pair.caught_up()
            shop = Shop(proxy.connect, options.clients)
            try:
                trouble(shop, pair, options.rounds, options.calm, options.away)
            finally:
                shop.close()
            rows += [row(name, phase, figures) for phase, figures in shop.figures().items()]
            pair.caught_up()
            faults = [*shop.faults(pair.primary), *shop.faults(pair.replica)]
            remarks += [
                f"{name}: {len(shop.acknowledged):,} orders acknowledged, {len(faults)} faults of rows on two servers, "
                f"{len(shop.wrong)} wrong answers",
                *faults[:10],
                *shop.wrong[:10],
                *(f"{name}: {code} {text}" for code, text in sorted(shop.texts.items())),
            ]
    print(f"\nPython {platform.python_version()}; figures of {options.rounds} rounds together\n")
    pauses = [f"{kind} ms" for kind in KINDS]
    print_table(["servers", "phase", "errors", "in transactions", "closed", "statements/s", *pauses], rows, 4)
    print("\n" + "\n".join(remarks))


if __name__ == "__main__":
    main()
