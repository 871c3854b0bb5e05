"""The rules of the settings at work: which sessions match, when that is looked at, and what is done then.

A session is looked at when a statement of it begins or ends, if a rule may be true of it at once, and after that each
time that one of the constants is passed that rules compare its times with: a statement that ends in time is never
looked at. What is looked at is the session as it is then, and the action follows in the same breath.

The times are kept lazily. A session has one place on a wheel; when that comes up, the next one is computed from what
the session does then. A statement moves its session only if it has to come up earlier, which for a busy one is so once
per constant.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from math import inf
from typing import Any, Protocol

from attrs import define, field
from twisted.logger import Logger, LogLevel
from twisted.python.failure import Failure
from zope.interface import implementer

from odptwist.errors import CloseReason
from odptwist.interfaces import ICondition, ISessionDirectory, IStatistics
from odptwist.machines.rate import RateLimit
from odptwist.machines.wheel import Wheel
from odptwist.snapshots import (
    Asker,
    KillOutcome,
    KillReport,
    KillScope,
    KillTarget,
    RuleAction,
    Statistic,
)
from odptwist.timing import Timing
from odptwist.views import SessionView
from odptwist.wire.constants import SERVER_STATUS_IN_TRANS

_TICK = 0.1
# A condition may fail for a reason that passes: the machine stood still while it was evaluated, say.
_FAULTS_ALLOWED = 3

Period = tuple[int, bool, float]
"""A statement, or the pause after one: number of the exchange, whether it runs, since when."""


@define(eq=False)
class Rule:
    """A rule of the settings, and what has come of it.

    Attributes:
        name: what victims and the log are told.
        condition: which sessions it is about.
        timing: when that can become true.
        action: what is done about them.
        rate: how often.
        reason: one line for victims and the log, or empty.
        matched: statements and pauses for which the condition was true.
        acted: how often it was done.
        limited: how often it was not, because the rate was used up.
        failed: how often it could not be done, or was not confirmed.
        faults: how often the condition could not be evaluated.
    """

    name: str
    condition: ICondition
    timing: Timing
    action: RuleAction
    rate: RateLimit
    reason: str = ""
    matched: int = field(default=0, init=False)
    acted: int = field(default=0, init=False)
    limited: int = field(default=0, init=False)
    failed: int = field(default=0, init=False)
    faults: int = field(default=0, init=False)

    @property
    def is_off(self) -> bool:
        """Whether it was switched off because its condition failed too often."""
        return self.faults >= _FAULTS_ALLOWED

    @property
    def kills(self) -> bool:
        """Whether it ends what it matches."""
        return self.action in (RuleAction.KILL, RuleAction.KILL_QUERY)


@define
class Watch:
    """What rules remember of a session.

    Attributes:
        comes_up: when it is looked at next, `inf` if it is not.
        transaction: when its last transaction that was noticed was opened.
        period: what it did when it was looked at last.
        matched: the rules that have matched in that period.
        done: those of them that are done with it.
    """

    comes_up: float = inf
    transaction: float = -inf
    period: Period = (-1, False, 0.0)
    matched: tuple[Rule, ...] = ()
    done: tuple[Rule, ...] = ()


class Watched(Protocol):
    """What rules need of a client session."""

    cs_id: int
    tracker: Any
    status: int
    since: float
    transaction_since: float
    reason: CloseReason | None
    watch: Watch

    @property
    def statement_running(self) -> bool:
        """Whether a server works for it now."""

    def view(self) -> SessionView:
        """Return what shows it as it is."""


@implementer(IStatistics)
class Rules:
    """Is told what sessions do, and does what the rules want.

    Args:
        clock: the reactor.
        directory: where sessions are killed.
        rules: all of them.
    """

    _log = Logger()

    def __init__(self, clock: Any, directory: ISessionDirectory, rules: Sequence[Rule]) -> None:
        self._clock = clock
        self._directory = directory
        self._all = tuple(rules)
        self._wheel: Wheel[Watched] = Wheel(_TICK)
        self._timer: Any = None
        self._changed: list[tuple[Watched, Period]] = []
        self._use(self._all)

    def _use(self, rules: tuple[Rule, ...]) -> None:
        """Obey these rules from now on."""
        self._rules = rules
        at_once = [rule.timing for rule in rules if rule.timing.least_seconds <= 0]
        # How old a transaction has to be (0: there need be none) for a rule to be true as soon as a statement begins,
        # and as soon as one ends; what has nothing to do with time is looked at only when one begins.
        self._old_at_start = min((each.least_transaction_seconds for each in at_once), default=inf)
        self._old_at_end = min((each.least_transaction_seconds for each in at_once if each.is_timed), default=inf)
        # The earliest that a constant can be passed, from the change of a session that makes its time begin anew.
        self._soonest = _TICK + min((each for rule in rules for each in rule.timing.seconds), default=inf)
        self._soonest_transaction = min(
            (each for rule in rules for each in rule.timing.transaction_seconds), default=inf
        )

    def statistics(self) -> Iterator[Statistic]:
        """Yield the counters of each rule."""
        for rule in self._all:
            for name in ("matched", "acted", "limited", "failed", "faults"):
                yield Statistic(f"rule.{rule.name}.{name}", getattr(rule, name))

    # -- told by sessions ---------------------------------------------------------------------------------------------

    def statement_started(self, session: Watched) -> None:
        """Be told that a statement was received; it may not have been sent on yet."""
        since = session.since
        if self._old_at_start < inf and self._age(session, since) >= self._old_at_start:
            self._look_soon(session)
        if session.watch.comes_up > since + self._soonest:
            self._put(session, since + self._soonest - _TICK)

    def statement_ended(self, session: Watched) -> None:
        """Be told that one has ended, or that the session has logged in; its status is the new one already."""
        if session.reason is not None:
            return
        since, watch = session.since, session.watch
        if self._old_at_end < inf and self._age(session, since) >= self._old_at_end:
            self._look_soon(session)
        due = since + self._soonest
        if session.status & SERVER_STATUS_IN_TRANS and watch.transaction != session.transaction_since:
            watch.transaction = session.transaction_since
            due = min(due, session.transaction_since + self._soonest_transaction + _TICK)
        if watch.comes_up > due:
            self._put(session, due - _TICK)

    def session_ended(self, session: Watched) -> None:
        """Be told that a session has ended."""
        self._wheel.remove(session)
        if not self._wheel and self._timer is not None:
            self._timer.cancel()
            self._timer = None

    # -- when to look -------------------------------------------------------------------------------------------------

    @staticmethod
    def _age(session: Watched, now: float) -> float:
        return now - session.transaction_since if session.status & SERVER_STATUS_IN_TRANS else 0.0

    def _look_soon(self, session: Watched) -> None:
        """Look when the statement is on its way to the server: one call for all sessions that change meanwhile."""
        if not self._changed:
            self._clock.callLater(0, self._look_at_changed)
        self._changed.append((session, _period(session)))

    def _look_at_changed(self) -> None:
        changed, self._changed = self._changed, []
        for session, period in changed:
            if session.reason is None and _period(session) == period:
                self._look(session, started=session.statement_running)

    def _put(self, session: Watched, due: float) -> None:
        session.watch.comes_up = self._wheel.put(session, due, self._clock.seconds())
        self._set_timer()

    def _set_timer(self) -> None:
        at = self._wheel.next_time()
        if at is None or (self._timer is not None and self._timer.getTime() <= at):
            return
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._clock.callLater(max(0.0, at - self._clock.seconds()), self._turn)

    def _turn(self) -> None:
        self._timer = None
        for session in self._wheel.take(self._clock.seconds()):
            session.watch.comes_up = inf
            if session.reason is None:
                self._look(session)
        self._set_timer()

    # -- looking and acting -------------------------------------------------------------------------------------------

    def _look(self, session: Watched, started: bool = False) -> None:
        """Evaluate the rules that may be true of a session now, act, and find out when to look again."""
        now = self._clock.seconds()
        seconds, age = now - session.since, self._age(session, now)
        growing = age if session.status & SERVER_STATUS_IN_TRANS else None
        watch, period = session.watch, _period(session)
        if watch.period != period:
            watch.period, watch.matched, watch.done = period, (), ()
        view: SessionView | None = None
        wait = inf
        for rule in self._rules:
            timing = rule.timing
            wait = min(wait, timing.wait(seconds, growing))
            if rule in watch.done or (rule.action is RuleAction.KILL_QUERY and not period[1]):
                continue
            if (started or timing.is_timed) and timing.is_possible(seconds, age):
                view = view or session.view()
                if self._is_true(rule, view):
                    wait = min(wait, self._match(rule, session, view, now))
                    if session.reason is not None:
                        return
        if wait < inf:
            self._put(session, now + wait)

    def _is_true(self, rule: Rule, session: SessionView) -> bool:
        try:
            return bool(rule.condition.holds(session))
        except Exception as fault:  # noqa: BLE001 - whatever it is, the session must go on
            rule.faults += 1
            self._log.error(
                "rule '{rule}' could not be evaluated{off}: {fault}",
                rule=rule.name,
                off=" and is switched off" if rule.is_off else "",
                fault=fault,
            )
        if rule.is_off:
            self._use(tuple(each for each in self._rules if each is not rule))
        return False

    def _match(self, rule: Rule, session: Watched, view: SessionView, now: float) -> float:
        """Do what a rule wants that is true of a session; return in how many seconds to try again, `inf` for never."""
        watch = session.watch
        first = rule not in watch.matched
        if first:
            rule.matched += 1
            watch.matched += (rule,)
        if not rule.rate.take(now):
            rule.limited += first
            if rule.kills:
                return rule.rate.wait(now)
            watch.done += (rule,)
            return inf
        watch.done += (rule,)
        self._log.emit(
            LogLevel.warn if rule.action is RuleAction.WARN else LogLevel.info,
            "rule '{rule}' matches client session {cs_id} ({identity}): {activity} for {seconds:.1f} s, "
            "in a transaction for {transaction_seconds:.1f} s; action: {action}{reason}",
            rule=rule.name,
            cs_id=view.cs_id,
            identity=view.identity,
            activity=view.activity,
            seconds=view.seconds,
            transaction_seconds=view.transaction_seconds,
            action=rule.action.value,
            reason=f": {rule.reason}" if rule.reason else "",
        )
        if rule.kills:
            self._kill(rule, view.cs_id)
        else:
            rule.acted += 1
        return inf

    def _kill(self, rule: Rule, cs_id: int) -> None:
        scope = KillScope.QUERY if rule.action is RuleAction.KILL_QUERY else KillScope.CONNECTION
        # Nothing runs between the look and the kill, which finds its victim at once: a rule is not asked who it is.
        killing = self._directory.kill(KillTarget(cs_id, exact=True), scope, Asker.for_rule(rule.name), rule.reason)
        killing.addCallbacks(partial(self._killed, rule), partial(self._not_killed, rule, cs_id))

    def _killed(self, rule: Rule, report: KillReport) -> None:
        if report.outcome is KillOutcome.UNCONFIRMED:
            rule.failed += 1
            self._log.warn(
                "rule '{rule}', client session {cs_id}: {detail}",
                rule=rule.name,
                cs_id=report.cs_id,
                detail=report.detail,
            )
        else:
            rule.acted += 1

    def _not_killed(self, rule: Rule, cs_id: int, failure: Failure) -> None:
        rule.failed += 1
        self._log.warn(
            "rule '{rule}' could not kill client session {cs_id}: {fault}",
            rule=rule.name,
            cs_id=cs_id,
            fault=failure.getErrorMessage(),
        )


def _period(session: Watched) -> Period:
    return session.tracker.number, session.statement_running, session.since
