"""Clients work on while the servers behind the proxy change their roles, and while they die and come back."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.pairs import Pair
from tests.support.servers import Proxy, Server, wait_until
from tests.support.sessions import query, sessions
from tests.support.shoppers import KINDS, USERS, Figures, Shop, prepare, settings

pytestmark = pytest.mark.slow

Figure = Callable[[str], None]

_LOST = 1158
"""What the proxy answers where a server session ended over a statement that cannot be run again."""

_UNREACHABLE = 1429
"""What it answers to a write that has waited for a primary in vain."""


class Scene:
    """A pair of servers, a proxy before them, and clients at work."""

    def __init__(self, pair: Pair[Any], proxy: Proxy, note: Figure) -> None:
        self.pair = pair
        self.proxy = proxy
        self.shop = Shop(proxy.connect)
        self._note = note
        self.shop.phase("")
        self.shop.go_on()

    def finish(self) -> Figures:
        """Let all clients stop, check what they got and what is left, and return what they noticed."""
        shop = self.shop
        shop.go_on()
        shop.close()
        figures = shop.figures()[""]
        pauses = ", ".join(f"{kind} {figures.longest[kind] * 1000:.0f} ms" for kind in KINDS)
        errors = f"errors {dict(figures.errors)}, in transactions {dict(figures.rollbacks)}"
        self._note(f"{errors}; longest {pauses}; {figures.statements / figures.seconds:.0f} statements/s")
        assert shop.wrong == []
        assert figures.closed == 0
        self.pair.caught_up()
        assert [*shop.faults(self.pair.primary), *shop.faults(self.pair.replica)] == []
        self._check_sessions()
        return figures

    def _check_sessions(self) -> None:
        """Check that each client has one server session at each server, and the servers have no others."""
        clients = [shopper.connection for shopper in self.shop.shoppers]
        for client in clients:
            query(client, "DELETE FROM orders WHERE number < 0")
        with self.proxy.connect() as root:

            def complete() -> bool:
                for client in clients:
                    query(client, "SELECT COUNT(*) FROM goods")
                listed = sessions(root)
                return all(listed[client.thread_id()]["svr_session_count"] == 2 for client in clients)

            wait_until(complete, what="two server sessions for each client")
        for server in (self.pair.primary, self.pair.replica):
            wait_until(lambda server=server: count(server) == len(clients), what="one session for each client")


def count(server: Server) -> int:
    """Return how many sessions of clients a server has."""
    with server.connect() as root:
        return sum(row[1] in USERS for row in query(root, "SHOW PROCESSLIST"))


@pytest.fixture
def scene(pair: Pair[Any], start_proxy: Callable[..., Proxy], tmp_path: Path, figure: Figure) -> Iterator[Scene]:
    """Return clients at work through a proxy before a pair."""
    prepare(pair.primary)
    pair.caught_up()
    file = tmp_path / "odp.toml"
    file.write_text(settings(pair.primary, pair.replica))
    made = Scene(pair, start_proxy("--config", str(file)), figure)
    yield made
    made.shop.close()


def test_switchover(scene: Scene) -> None:
    """A planned switchover, there and back, costs clients nothing but errors in open transactions, and some time."""
    for _ in range(2):
        scene.pair.switch_over()
        scene.shop.go_on()
    figures = scene.finish()
    assert figures.errors == Counter()
    assert set(figures.rollbacks) <= {scene.pair.refusal, _LOST}


def test_replica_dies(scene: Scene) -> None:
    """A replica that is killed and comes back costs clients nothing but time."""
    scene.pair.kill(scene.pair.replica)
    scene.shop.go_on()
    scene.pair.start(scene.pair.replica)
    figures = scene.finish()
    assert figures.errors + figures.rollbacks == Counter()


def test_primary_dies(scene: Scene) -> None:
    """While the primary is away reads go on, also of new clients, and writes wait; those that it was at are told."""
    scene.pair.kill(scene.pair.primary)
    for _ in range(100):
        scene.shop.go_on("read")
    with scene.proxy.connect("plain", database="shop") as new:
        assert query(new, "SET @a = 5", "SELECT id, @a FROM goods WHERE id = 3") == [(3, 5)]
        query(new, "ROLLBACK", "SHOW TABLES")
    scene.pair.start(scene.pair.primary)
    figures = scene.finish()
    assert figures.longest["read"] < max(figures.longest.values())
    assert set(figures.errors + figures.rollbacks) <= {_LOST, _UNREACHABLE}
    assert (figures.errors + figures.rollbacks)[_LOST] <= sum(shopper.buys for shopper in scene.shop.shoppers)
