"""The health check: asks each server, again and again, what it is, and tells the clusters."""

from __future__ import annotations

from collections.abc import Callable, Generator
from functools import partial
from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from odptwist.errors import LoginMethodUnknown, LoginRefused, OdpError
from odptwist.sessions.opening import NO_ROOM
from odptwist.sessions.server import ServerSession
from odptwist.sessions.service_sessions import ServiceSessions, explain
from odptwist.sessions.surroundings import Surroundings
from odptwist.snapshots import Address, ServerFinding
from odptwist.wire.responses import parse_err
from odptwist.wire.resultset import ResultReader

PAUSE = 0.05
"""Seconds between the beginnings of two probes of a server at least, however many sessions are suspicious of it."""

Examination = Generator[str, ResultReader, ServerFinding]
# The service account has sessions enough, or the server cannot serve. Every other refusal is about the account.
_CANNOT_SERVE = NO_ROOM | {1203, 1226}


class Prober:
    """Probes every server on a timer of its own, and at once where sessions are suspicious.

    A server that refuses the service account is up as far as anybody knows, and its role is unknown.

    Attributes:
        interval: as below; it may change.

    Args:
        surroundings: with the clusters that are told; `Clusters.on_suspicion` should be `suspect`.
        sessions: to ask with; their timeout is a probe's.
        examine: is given the version that the server told over the same connection, or an empty text; yields questions,
            is sent their answers, returns the finding or raises `OdpError`.
        interval: seconds from the end of a probe to the beginning of the next one; while a write waits for a primary,
            as few as may be.
    """

    _log = Logger()

    def __init__(
        self,
        surroundings: Surroundings,
        sessions: ServiceSessions,
        examine: Callable[[str], Examination],
        interval: float,
    ) -> None:
        self._clusters = surroundings.clusters
        self._reactor = surroundings.reactor
        self._sessions = sessions
        self._examine = examine
        self.interval = interval
        self._watches: dict[Address, _Watch] = {}
        self._versions: dict[Address, tuple[ServerSession, str]] = {}
        self._refusals: dict[Address, str] = {}

    def start(self) -> None:
        """Begin with all servers that the clusters have now."""
        for cluster in self._clusters.names:
            for address in self._addresses(cluster):
                if address not in self._watches:
                    probe = partial(self._probe, address)
                    self._watches[address] = _Watch(self._reactor, self._delay, probe)
                    self._watches[address].hurry()

    def suspect(self, address: Address) -> None:
        """Probe a server at once, and all that share a cluster with it: its role may have gone to one of them."""
        for cluster in self._clusters.names:
            addresses = self._addresses(cluster)
            if address in addresses:
                for each in addresses:
                    if each in self._watches:
                        self._watches[each].hurry()

    def _delay(self) -> float:
        """Return how long the next probe may wait: a write that waits for a new primary shall not wait for us, too."""
        return 0.0 if self._clusters.awaited else self.interval

    def stop(self) -> None:
        """Probe no more; the sessions are left to their owner."""
        for watch in self._watches.values():
            watch.stop()

    def _addresses(self, cluster: str) -> list[Address]:
        return [standing.address for standing in self._clusters.standings(cluster)]

    def _probe(self, address: Address) -> Deferred[None]:
        """Fire when a probe has ended, whatever came of it."""
        return Deferred.fromCoroutine(self._judge(address)).addErrback(self._broken_off, address)

    async def _judge(self, address: Address) -> None:
        try:
            finding = await self._sessions.ask(address, partial(self._find, address))
        except (LoginRefused, LoginMethodUnknown) as refusal:
            self._refused(address, refusal)
        except OdpError as fault:
            self._clusters.failed(address, str(fault))
        else:
            self._refusals.pop(address, None)
            self._clusters.found(address, finding)

    async def _find(self, address: Address, session: ServerSession) -> ServerFinding:
        last, version = self._versions.get(address, (None, ""))
        examination = self._examine(version if last is session else "")
        question = next(examination)
        while True:
            answer = await session.query(question, self._sessions.timeout)
            try:
                question = examination.send(answer)
            except StopIteration as end:
                finding: ServerFinding = end.value
                self._versions[address] = (session, finding.version)
                return finding

    def _refused(self, address: Address, refusal: LoginRefused | LoginMethodUnknown) -> None:
        why = explain(refusal)
        if isinstance(refusal, LoginRefused) and parse_err(refusal.payload).code in _CANNOT_SERVE:
            self._clusters.failed(address, why)
            return
        if self._refusals.get(address) != why:
            self._refusals[address] = why
            self._log.error(
                "server {server} does not take the service account, so its role is not known: {why}",
                server=address,
                why=why,
            )
        self._clusters.found(address, ServerFinding())

    def _broken_off(self, failure: Failure, address: Address) -> None:
        if failure.check(CancelledError) is None:
            self._log.failure("a probe of server {server} failed", failure, server=address)


class _Watch:
    """The timer of one server: no two probes at a time, and no two within the pause."""

    def __init__(self, reactor: Any, delay: Callable[[], float], probe: Callable[[], Deferred[None]]) -> None:
        self._reactor = reactor
        self._delay = delay
        self._probe = probe
        self._began = -PAUSE
        self._again = False
        self._running: Deferred[None] | None = None
        self._timer: Any = None
        self._stopped = False

    def hurry(self) -> None:
        """Probe as soon as may be, and not only what a probe that is on its way has asked already."""
        if self._running is None:
            self._schedule(self._due())
        else:
            self._again = True

    def stop(self) -> None:
        self._stopped = True
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._running is not None:
            self._running.cancel()

    def _due(self) -> float:
        return max(0.0, self._began + PAUSE - float(self._reactor.seconds()))

    def _schedule(self, delay: float) -> None:
        if self._stopped:
            return
        if self._timer is not None:
            if self._timer.getTime() <= self._reactor.seconds() + delay:
                return
            self._timer.cancel()
        self._timer = self._reactor.callLater(delay, self._begin)

    def _begin(self) -> None:
        self._timer = None
        self._again = False
        self._began = self._reactor.seconds()
        self._running = self._probe()
        self._running.addBoth(self._ended)

    def _ended(self, _: object) -> None:
        self._running = None
        self._schedule(self._due() if self._again else max(self._due(), self._delay()))
