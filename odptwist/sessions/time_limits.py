"""The limits on how long a client may pause, and a statement may run.

Source: MariaDB 10.11 on wait_timeout, interactive_timeout, idle_transaction_timeout and max_statement_time (1969);
MySQL 8.0 on ER_CLIENT_INTERACTION_TIMEOUT (4031) and ER_QUERY_TIMEOUT (3024).

Sessions tell nothing and have no timers, so a limit costs a statement nothing. All sessions are looked at in a sweep,
and the next sweep is when the first of those that were seen comes to its limit: what begins after a sweep cannot come
to one earlier than the shortest limit. A look takes 0.3 µs, so a sweep over 10,000 sessions takes 3 ms, in slices.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice
from math import inf
from typing import Any, Final, Protocol

from twisted.logger import Logger

from odptwist.errors import CloseReason, SqlError
from odptwist.machines.exchange import Tracker
from odptwist.sessions.dialogue import LoginPlan
from odptwist.sessions.surroundings import Limits, Surroundings
from odptwist.wire.constants import (
    CLIENT_INTERACTIVE,
    COM_BINLOG_DUMP,
    COM_BINLOG_DUMP_GTID,
    COM_TABLE_DUMP,
    SERVER_STATUS_IN_TRANS,
)
from odptwist.wire.handshake import Greeting

# Sessions that are looked at in one go, and ended or stopped in one go: a millisecond or less for either.
_LOOKS_AT_ONCE: Final = 1000
_ENDS_AT_ONCE: Final = 10
# Seconds between two sweeps: a hundredth of the shortest limit, but not less and not more than this.
_SHORTEST_WAIT: Final = 0.1
_LONGEST_WAIT: Final = 1.0
# What a replica asks for has no end.
_ENDLESS: Final = frozenset(bytes((code,)) for code in (COM_BINLOG_DUMP, COM_BINLOG_DUMP_GTID, COM_TABLE_DUMP))


class Timed(Protocol):
    """What the limits need of a client session."""

    cs_id: int
    tracker: Tracker
    plan: LoginPlan | None
    greeting: Greeting | None
    reason: CloseReason | None
    since: float
    status: int
    statement: bytes

    def time_out(self, reason: CloseReason, error: SqlError) -> None:
        """End, because the client has paused for too long, and tell it."""

    def stop_statement(self, error: SqlError) -> None:
        """Have what runs stopped on its server; the client is told the error."""


class Premises(Protocol):
    """Where the sessions are.

    Attributes:
        surroundings: with the limits and the clock.
    """

    surroundings: Surroundings

    def live(self) -> Sequence[Timed]:
        """Return all of them, those that are about to end included."""


class TimeLimits:
    """Ends sessions that pause for too long, and statements that run for too long.

    Attributes:
        idle_ended: how many sessions were ended because they paused.
        transactions_ended: how many because they paused in a transaction.
        statements_stopped: how many statements were stopped, or tried to.

    Args:
        premises: where the sessions are.
    """

    _log = Logger()

    def __init__(self, premises: Premises) -> None:
        self.idle_ended = 0
        self.transactions_ended = 0
        self.statements_stopped = 0
        self._premises = premises
        self._timer: Any = None
        self._sweep: Iterator[Timed] = iter(())
        self._due = inf
        # Statements that the last sweep found too long, and this one: session, and number of the exchange.
        self._known: set[tuple[int, int]] = set()
        self._found: set[tuple[int, int]] = set()

    def session_came(self) -> None:
        """Be told that there is a session which was not there before."""
        if self._timer is None:
            self._plan(inf)

    def limits_changed(self) -> None:
        """Be told that other limits hold now."""
        self.stop()
        if self._premises.live():
            self._plan(-inf)

    def stop(self) -> None:
        """Look no more, until there is a new session."""
        timer, self._timer = self._timer, None
        if timer is not None:
            timer.cancel()

    def _plan(self, due: float) -> None:
        """Sweep when a session comes to a limit at this time, and none that was seen does so earlier."""
        limits, clock = self._premises.surroundings.limits, self._premises.surroundings.reactor
        times = (
            limits.wait_timeout,
            limits.interactive_timeout,
            limits.idle_transaction_timeout,
            limits.max_statement_time,
        )
        shortest = min(filter(None, times), default=inf)
        if shortest < inf:
            least = min(max(shortest / 100, _SHORTEST_WAIT), _LONGEST_WAIT)
            self._timer = clock.callLater(max(least, min(shortest, due - clock.seconds())), self._begin)

    def _begin(self) -> None:
        """Begin a sweep."""
        self._sweep, self._due = iter(self._premises.live()), inf
        self._found = set()
        self._go_on()

    def _go_on(self) -> None:
        self._timer = None
        clock = self._premises.surroundings.reactor
        if self._look(clock.seconds()):
            self._timer = clock.callLater(0, self._go_on)
            return
        self._known = self._found
        if self._premises.live():
            self._plan(self._due)

    def _look(self, now: float) -> bool:
        """Look at a slice of the sessions; return whether there are more."""
        limits = self._premises.surroundings.limits
        wait, interactive = limits.wait_timeout or inf, limits.interactive_timeout or inf
        transaction, statement = limits.idle_transaction_timeout or inf, limits.max_statement_time or inf
        looks = ends = 0
        for session in islice(self._sweep, _LOOKS_AT_ONCE):
            looks += 1
            tracker = session.tracker
            if tracker is None or session.reason is not None:
                continue
            if tracker.busy:
                if not tracker.awaiting and not tracker.sending:
                    continue  # the proxy itself answers
                limit, act = statement, self._stop_statement
            else:
                limit, act = wait, self._end
                if interactive != wait and _is_interactive(session):
                    limit = interactive
                if transaction <= limit and session.status & SERVER_STATUS_IN_TRANS:
                    limit, act = transaction, self._end_transaction
            due = session.since + limit
            if due <= now:
                ends += act(session, limits)
                if ends == _ENDS_AT_ONCE:
                    break
            elif due < self._due:
                self._due = due
        return looks == _LOOKS_AT_ONCE or ends == _ENDS_AT_ONCE

    def _end(self, session: Timed, limits: Limits) -> bool:
        """End a session that has paused for too long."""
        self.idle_ended += 1
        name, seconds = "wait_timeout", limits.wait_timeout
        if _is_interactive(session):
            name, seconds = "interactive_timeout", limits.interactive_timeout
        session.time_out(CloseReason.IDLE_TIMEOUT, _disconnected(f"it was idle for {seconds:g} s", name))
        return True

    def _end_transaction(self, session: Timed, limits: Limits) -> bool:
        """End a session that has paused for too long in its transaction."""
        self.transactions_ended += 1
        what = f"its transaction was idle for {limits.idle_transaction_timeout:g} s, and was rolled back"
        session.time_out(CloseReason.IDLE_TRANSACTION_TIMEOUT, _disconnected(what, "idle_transaction_timeout"))
        return True

    def _stop_statement(self, session: Timed, limits: Limits) -> bool:
        """Stop a statement that runs for too long, once; return whether that was begun."""
        if session.statement[:1] in _ENDLESS:
            return False
        if session.tracker.sending:
            # The client does not go on with it, and the server has nothing yet that could be stopped.
            session.time_out(CloseReason.IDLE_TIMEOUT, _too_long(session.greeting, limits.max_statement_time))
            return True
        statement = session.cs_id, session.tracker.number
        self._found.add(statement)
        if statement in self._known:
            return False
        self.statements_stopped += 1
        self._log.info(
            "client session {cs_id}: its statement has run for {seconds:g} s, and is stopped",
            cs_id=session.cs_id,
            seconds=limits.max_statement_time,
        )
        session.stop_statement(_too_long(session.greeting, limits.max_statement_time))
        return True


def _is_interactive(session: Timed) -> bool:
    return session.plan is not None and bool(session.plan.response.capabilities & CLIENT_INTERACTIVE)


def _disconnected(what: str, name: str) -> SqlError:
    # Drivers and pools know this code: the connection is of no use any more.
    text = f"The client was disconnected by the proxy because {what}. See limits.{name} for configuring this behavior."
    return SqlError(4031, "HY000", text)


def _too_long(greeting: Greeting | None, seconds: float) -> SqlError:
    limit = f"the proxy's limits.max_statement_time is {seconds:g} s"
    if greeting is not None and "MariaDB" in greeting.server_version:
        return SqlError(1969, "70100", f"Query execution was interrupted (max_statement_time exceeded): {limit}")
    text = "Query execution was interrupted, maximum statement execution time exceeded"
    return SqlError(3024, "HY000", f"{text}: {limit}")
