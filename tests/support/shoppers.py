"""Clients of a shop: they go on whatever happens to the servers, and remember what they were told and how long it took.

Each is one session in a thread of its own. What fails is tried again, as an application does, on the same connection
as long as that is open. The tables are of the database `shop`, which both servers of a pair have.
"""

from __future__ import annotations

import random
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

import pymysql
from attrs import Factory, define, frozen
from pymysql.connections import Connection

from tests.support.pairs import APP_PASSWORD, MONITOR_PASSWORD
from tests.support.servers import Background, Server, wait_until
from tests.support.sessions import query

USERS = {"app": APP_PASSWORD, "plain": ""}

_GOODS = 100
_PRICE = 7
"""What the goods cost, in relation to their numbers."""

_AGAIN = 0.02
"""Seconds until a client tries again what has failed."""

_THINKING = 0.002
"""Seconds between two things that a client does: the machine has its servers to run, too."""

_NUMBERS = 1_000_000
"""How many orders each client has numbers for."""


def prepare(primary: Server) -> None:
    """Make the tables anew."""
    goods = ", ".join(f"({number}, {number * _PRICE})" for number in range(_GOODS))
    with primary.connect(database="shop") as root:
        query(
            root,
            "DROP TABLE IF EXISTS goods, orders",
            "CREATE TABLE goods (id INT PRIMARY KEY, price INT)",
            "CREATE TABLE orders (number INT PRIMARY KEY)",
            f"INSERT INTO goods VALUES {goods}",
        )


KINDS = ("read", "read after write", "write", "transaction")
"""A client that has just written reads where it wrote, so those reads are told from the others."""


@frozen
class Errand:
    """One thing that a client wanted and got in the end, or was still trying to get when all was over.

    Attributes:
        kind: of `KINDS`.
        began: on the monotonic clock.
        seconds: from the first try to success.
        statements: how many were answered without an error.
        errors: the codes of all errors.
        closed: how often the connection was found closed, and had to be made anew.
    """

    kind: str
    began: float
    seconds: float
    statements: int
    errors: tuple[int, ...]
    closed: int


@define
class Orders:
    """The numbers of a client's orders.

    Attributes:
        tried: all that it has ever sent.
        acknowledged: those that a server said it has.
        pairs: those that belong together, in one transaction.
    """

    tried: set[int] = Factory(set)
    acknowledged: set[int] = Factory(set)
    pairs: list[tuple[int, int]] = Factory(list)


class Shopper:
    """One client.

    Args:
        number: of all clients.
        buys: whether it writes; otherwise it only reads what never changes.
        connect: opens a connection.
        over: says whether it is time to stop.

    Attributes:
        buys: the same.
        connection: the client's.
        errands: what it has done.
        orders: what it has written.
        wrong: answers that cannot be.
        texts: one error's text for each code.
    """

    def __init__(self, number: int, buys: bool, connect: Callable[[], Connection], over: Callable[[], bool]) -> None:
        self.errands: list[Errand] = []
        self.orders = Orders()
        self.wrong: list[str] = []
        self.texts: dict[int, str] = {}
        self._number = number
        self.buys = buys
        self._connect = connect
        self._over = over
        self._last = number * _NUMBERS
        self._random = random.Random(number)
        self._statements = 0
        self.connection = self._enter()

    def _enter(self) -> Connection:
        """Connect, and set up what has to follow the session to any server."""
        connection = self._connect()
        query(connection, f"SET @me = {self._number}")
        return connection

    def work(self) -> None:
        """Do errands until all is over."""
        while not self._over():
            if self.buys:
                self._do("write", self._order)
                self._do("read after write", self._look)
                self._do("transaction", self._order_two)
                self._do("read after write", self._browse)
            else:
                self._do("read", self._browse)

    def _do(self, kind: str, errand: Callable[[], None]) -> None:
        began, self._statements = time.monotonic(), 0
        errors, closed = [], 0
        while True:
            try:
                errand()
                break
            except pymysql.MySQLError as error:
                errors.append(int(error.args[0]))
                self.texts[errors[-1]] = str(error.args[1])
            if self._over():
                break
            time.sleep(_AGAIN)
            if not self.connection.open:
                closed += 1
                with suppress(pymysql.MySQLError):
                    self.connection = self._enter()
        self.errands.append(Errand(kind, began, time.monotonic() - began, self._statements, tuple(errors), closed))
        time.sleep(_THINKING)

    def _ask(self, statement: str) -> list[tuple[Any, ...]]:
        rows = query(self.connection, statement)
        self._statements += 1
        return rows

    def _insert(self) -> int:
        self._last += 1
        self.orders.tried.add(self._last)
        self._ask(f"INSERT INTO orders VALUES ({self._last})")
        return self._last

    def _order(self) -> None:
        self.orders.acknowledged.add(self._insert())

    def _look(self) -> None:
        number = self._last
        if number in self.orders.acknowledged:
            self._expect(f"SELECT number FROM orders WHERE number = {number}", (number,))

    def _order_two(self) -> None:
        try:
            self._ask("BEGIN")
            pair = self._insert(), self._insert()
            self.orders.pairs.append(pair)
            self._ask("COMMIT")
        except pymysql.MySQLError:
            if self.connection.open:
                self._ask("ROLLBACK")
            raise
        self.orders.acknowledged.update(pair)

    def _browse(self) -> None:
        number = self._random.randrange(_GOODS)
        statement = f"SELECT id, price, @me FROM goods WHERE id = {number}"
        self._expect(statement, (number, number * _PRICE, self._number))

    def _expect(self, statement: str, row: tuple[int, ...]) -> None:
        rows = self._ask(statement)
        if rows != [row]:
            self.wrong.append(f"{statement}: {rows}, not {row}")


@frozen
class Figures:
    """What all clients saw of a phase: of the errands that ended in it.

    Attributes:
        seconds: how long it was.
        statements: how many were answered without an error.
        errors: how many of each code, in errands without transactions.
        rollbacks: how many of each code, in errands with a transaction.
        closed: how many connections were closed by the proxy.
        longest: seconds that the longest errand of each kind took.
    """

    seconds: float
    statements: int
    errors: Counter[int]
    rollbacks: Counter[int]
    closed: int
    longest: dict[str, float]


class Shop:
    """All clients, at work from the first moment on.

    Args:
        connect: opens a connection for a user with a password.
        count: how many clients; every second one buys, every second two have a password.
    """

    def __init__(self, connect: Callable[..., Connection], count: int = 8) -> None:
        self._closed = False
        self._phases: list[tuple[str, float]] = []
        users = list(USERS)

        def opener(user: str) -> Callable[[], Connection]:
            return lambda: connect(user, password=USERS[user], database="shop", read_timeout=30)

        self.shoppers = [
            Shopper(number, number % 2 == 0, opener(users[number // 2 % 2]), lambda: self._closed)
            for number in range(count)
        ]
        self._threads = [Background(shopper.work) for shopper in self.shoppers]

    def phase(self, name: str) -> None:
        """Let what clients end from now on belong to another phase."""
        self._phases.append((name, time.monotonic()))

    def close(self) -> None:
        """Let each client end what it is about, and stop; raise what went wrong with one of them."""
        self._closed = True
        self.phase("")
        for thread in self._threads:
            thread.result(60)

    def go_on(self, *kinds: str) -> None:
        """Return when each client has done all errands of some kinds once more without an error; no kinds: all."""
        behind = [
            (shopper, len(shopper.errands), kind)
            for shopper in self.shoppers
            for kind in kinds or KINDS
            if (kind != "read") is shopper.buys
        ]

        def still_behind() -> list[str]:
            return [
                kind
                for shopper, start, kind in behind
                if not any(errand.kind == kind and not errand.errors for errand in shopper.errands[start:])
            ]

        wait_until(lambda: not still_behind(), what="the recovery of all clients")

    @property
    def wrong(self) -> list[str]:
        """Return the answers that cannot be."""
        return [text for shopper in self.shoppers for text in shopper.wrong]

    @property
    def texts(self) -> dict[int, str]:
        """Return one text for each code of an error."""
        return {code: text for shopper in self.shoppers for code, text in shopper.texts.items()}

    @property
    def acknowledged(self) -> set[int]:
        """Return the numbers of all orders that a server said it has."""
        return set().union(*(shopper.orders.acknowledged for shopper in self.shoppers))

    def faults(self, server: Server) -> list[str]:
        """Return how the rows of a server differ from what clients were told."""
        with server.connect(database="shop") as root:
            rows = {number for (number,) in query(root, "SELECT number FROM orders")}
        tried = set().union(*(shopper.orders.tried for shopper in self.shoppers))
        pairs = [pair for shopper in self.shoppers for pair in shopper.orders.pairs]
        return [
            *(f"acknowledged, and lost: {number}" for number in sorted(self.acknowledged - rows)),
            *(f"never written: {number}" for number in sorted(rows - tried)),
            *(f"half a transaction: {one}, {other}" for one, other in pairs if (one in rows) != (other in rows)),
        ]

    def figures(self) -> dict[str, Figures]:
        """Return what clients saw of each phase; phases of the same name count together."""
        phases: dict[str, list[tuple[float, float]]] = {}
        for (name, began), (_, ended) in zip(self._phases, self._phases[1:], strict=False):
            phases.setdefault(name, []).append((began, ended))
        return {name: self._figures(times) for name, times in phases.items()}

    def _figures(self, times: Sequence[tuple[float, float]]) -> Figures:
        errands = [
            errand
            for shopper in self.shoppers
            for errand in shopper.errands
            if any(began <= errand.began + errand.seconds < ended for began, ended in times)
        ]
        longest: dict[str, float] = {}
        for errand in errands:
            longest[errand.kind] = max(longest.get(errand.kind, 0.0), errand.seconds)
        return Figures(
            sum(ended - began for began, ended in times),
            sum(errand.statements for errand in errands),
            Counter(code for errand in errands if errand.kind != "transaction" for code in errand.errors),
            Counter(code for errand in errands if errand.kind == "transaction" for code in errand.errors),
            sum(errand.closed for errand in errands),
            longest,
        )


def settings(*servers: Server) -> str:
    """Return the settings file of a proxy before a pair."""
    addresses = "".join(f'[[cluster.server]]\naddress = "{server.address}"\n' for server in servers)
    return f"""\
[[cluster]]
name = "ob1"
tenants = ["sys"]
read_policy = "replica_first"
{addresses}
[[account]]
user = "app"
password = "{APP_PASSWORD}"

[service_account]
user = "odp_monitor"
password = "{MONITOR_PASSWORD}"

[health]
interval = 0.5

[routing]
primary_wait = 5.0
"""
