"""What is counted of one client session, under ODP's names.

Source: spec section 3.2. The commonest exchange, a short SELECT, costs a few additions: its kind and its size are
what is left when the others are subtracted. Times are of moments at which a clock is read anyway.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator, Sequence
from typing import Final, Protocol

from odptwist.machines.exchange import LOOK_LIMIT
from odptwist.snapshots import Statistic, Versions
from odptwist.wire.constants import COM_QUERY

SIZES: Final = (100, 1_000, 3_000, 5_000, 10_000, 1_000_000)
"""The upper borders of ODP's classes of sizes, in bytes, headers included; the last class has none."""
SMALL: Final = SIZES[0]
SELECTS: Final = frozenset(bytes((COM_QUERY,)) + word for word in (b"sel", b"SEL", b"Sel"))
"""How the commands begin that `Counts.asked` need not see if they are small."""

_SIZE_NAMES: Final = ("100", "1K", "3K", "5K", "10K", "1M", "inf")
_KINDS: Final = ("select", "insert", "update", "delete", "other")
KINDS: Final = tuple(word[:3].encode() for word in _KINDS[:-1])
"""How the texts of all kinds but the last begin, in small letters."""
_KIND_OF: Final = {word: place for place, word in enumerate(KINDS)}
_OTHER: Final = len(_KINDS) - 1
_LARGE: Final = len(_KINDS) + len(_SIZE_NAMES)


class Counts:
    """What one client session adds up, beside its bytes and the number of its commands.

    Attributes:
        answers: how many commands the proxy has answered itself.
        again: how many exchanges of a server were begun once more.
        taken: how many were begun as a server's, and answered by the proxy.
        responses: how many responses of servers there were of each class of sizes.
        errors: how many responses of servers ended with an error.
        told: bytes to the client up to the end of the last response, or answer of the proxy's own.
        busy: seconds in which something was in hand.
        own: of these, seconds in which that was a statement of the proxy's own.
        transactions: seconds that transactions lasted, of those that have ended.
        idle: of these, seconds in which nothing was in hand.
    """

    __slots__ = (
        "_busy_before",
        "_rare",
        "_requests",
        "again",
        "answers",
        "busy",
        "errors",
        "idle",
        "own",
        "responses",
        "taken",
        "told",
        "transactions",
    )

    def __init__(self) -> None:
        self.again = self.answers = self.errors = self.taken = self.told = 0
        self.responses = [0] * len(_SIZE_NAMES)
        self.busy = self.own = self.idle = self.transactions = self._busy_before = 0.0
        # Kinds, sizes and the large ones, of the commands that are not small and SELECT.
        self._requests: list[int] | None = None
        self._rare: dict[str, float] = {}

    def commands(self, exchanges: int) -> int:
        """Return how many commands were for servers, given how many exchanges have begun."""
        return exchanges - self.again - self.taken

    def asked(self, command: bytes) -> None:
        """Be shown a command for a server, unless it begins as `SELECTS` and is not longer than `SMALL`.

        Args:
            command: its first packet, or the beginning of that.
        """
        requests = self._requests
        if requests is None:
            requests = self._requests = [0] * (_LARGE + 1)
        kind = _KIND_OF.get(command[5:8].lower(), _OTHER) if command[4] == COM_QUERY else _OTHER
        size = int.from_bytes(command[:3], "little") + 4
        requests[kind] += 1
        requests[len(_KINDS) + bisect_left(SIZES, size)] += 1
        requests[_LARGE] += size > LOOK_LIMIT

    def transaction_began(self) -> None:
        """Be told that the exchange in hand has opened a transaction."""
        self._busy_before = self.busy

    def transaction_ended(self, began: float, since: float, now: float) -> None:
        """Be told that the exchange in hand has ended a transaction.

        Args:
            began: when the transaction was opened.
            since: when the exchange began.
            now: by the same clock.
        """
        self.transactions += now - began
        self.idle += since - began - (self.busy - self._busy_before)

    def add(self, name: str, amount: float = 1) -> None:
        """Add to a number that grows rarely; one whose name ends with `_time` is in seconds."""
        self._rare[name] = self._rare.get(name, 0) + amount

    def looked_up(self, seconds: float) -> None:
        """Be told that the servers to try were looked up, and how long that took."""
        self.add("server_pl_lookup_count")
        self.add("total_pl_lookup_time", seconds)

    def replayed(self, fresh: bool, before: Versions, now: Versions, seconds: float) -> None:
        """Be told that a server session was made like the client session, in one round trip.

        Args:
            fresh: whether it had just logged in.
            before: the versions that it had.
            now: those that it has.
            seconds: how long it took; ODP's times of the single parts cannot be told apart.
        """
        if fresh:
            self.add("send_all_session_vars_requests")
            self.add("total_send_all_session_vars_time", seconds)
            return
        self.add("total_send_changed_session_vars_time", seconds)
        for name, changed in (
            ("use_database", before.db_name != now.db_name),
            ("changed_session_vars", (before.sys_var, before.hot_sys_var) != (now.sys_var, now.hot_sys_var)),
            ("changed_session_user_vars", before.user_var != now.user_var),
            ("last_insert_id", before.last_insert_id != now.last_insert_id),
        ):
            if changed:
                self.add(f"send_{name}_requests")

    def closed(self, server: CountedServer) -> None:
        """Be told that a server session ends: what it has counted is kept."""
        rare = self._rare
        for name, amount in _of_server(server):
            rare[name] = rare.get(name, 0) + amount
        if not server.connected_at:
            self.add("server_connect_retries")

    def numbers(self, commands: int) -> Iterator[tuple[str, float]]:
        """Yield all that is counted here, times in seconds; `commands` of the client's were for servers."""
        requests = self._requests or [0] * (_LARGE + 1)
        kinds, sizes = requests[: len(_KINDS)], requests[len(_KINDS) : _LARGE]
        plain = commands - sum(kinds)
        kinds[0] += plain
        sizes[0] += plain
        for kind, count in zip(_KINDS, kinds, strict=True):
            yield f"client_{kind}_requests", count
        for size, asked, answered in zip(_SIZE_NAMES, sizes, self.responses, strict=True):
            yield f"request_size_{size}_count", asked
            yield f"response_size_{size}_count", answered
        responses = sum(self.responses)
        yield "client_large_requests", requests[_LARGE]
        yield "server_requests", commands + self.again
        yield "server_responses", responses
        yield "server_error_responses", self.errors
        yield "total_transactions_time", self.transactions
        yield "total_user_transactions_time", self.transactions
        yield "total_client_transaction_idle_time", self.idle
        yield "total_server_process_request_time", self.busy - self.own
        yield from self._rare.items()


class CountedServer(Protocol):
    """What is counted of a server session; times on the reactor's clock, 0 for never."""

    began: float
    connected_at: float
    logged_in_at: float
    by_itself: bool
    bytes_in: int
    bytes_out: int


class Counted(Protocol):
    """What is counted of a client session elsewhere."""

    counts: Counts
    transactions: int
    bytes_in: int
    bytes_out: int

    @property
    def command_count(self) -> int:
        """How many commands were answered or are in flight."""

    @property
    def response_kinds(self) -> tuple[int, int]:
        """How many responses of servers were an OK, and how many a result set."""

    @property
    def server_sessions(self) -> Sequence[CountedServer]:
        """All server sessions."""


def statistics_of(session: Counted) -> tuple[Statistic, ...]:
    """Return what is counted of a session: sizes in bytes, times in nanoseconds. What is never counted is not there."""
    counts = session.counts
    found: dict[str, float] = {}
    responses = sum(counts.responses)
    oks, result_sets = session.response_kinds
    own = (
        ("total_transaction_count", session.transactions),
        ("total_user_transaction_count", session.transactions),
        ("total_query_count", session.command_count),
        ("client_requests", session.command_count),
        ("client_internal_requests", counts.answers),
        ("client_completed_requests", responses + counts.answers),
        ("server_ok_responses", oks),
        ("server_resultset_responses", result_sets),
        # A result set that ended with an error counts twice above.
        ("server_other_responses", max(0, responses - oks - result_sets - counts.errors)),
        ("client_request_total_size", session.bytes_in),
        ("client_response_total_size", session.bytes_out),
    )
    servers = (each for server in session.server_sessions for each in _of_server(server))
    for name, amount in (*own, *counts.numbers(session.command_count - counts.answers), *servers):
        found[name] = found.get(name, 0) + amount
    return tuple(
        Statistic(name, round(amount * 1_000_000_000) if name.endswith("_time") else int(amount))
        for name, amount in found.items()
    )


def _of_server(server: CountedServer) -> Iterator[tuple[str, float]]:
    """Yield what a server session adds to its client session's numbers."""
    yield "server_request_total_size", server.bytes_out
    yield "server_response_total_size", server.bytes_in
    if not server.connected_at:
        return
    yield "server_connect_count", 1
    yield "total_server_connect_time", server.connected_at - server.began
    if server.by_itself and server.logged_in_at:
        yield "send_saved_login_requests", 1
        yield "total_send_saved_login_time", server.logged_in_at - server.connected_at
