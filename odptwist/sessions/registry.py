"""All client sessions of this proxy: how they come and go, their numbers, and the one door for ending them."""

from __future__ import annotations

from collections.abc import Coroutine, Iterator
from functools import lru_cache
from ipaddress import IPv4Address
from typing import Any

from attrs import evolve
from twisted.internet.defer import Deferred, DeferredList
from twisted.internet.interfaces import IAddress
from twisted.internet.protocol import ServerFactory
from zope.interface import implementer

from odptwist.errors import CloseReason, SqlError, interrupted, not_owner, unknown_thread
from odptwist.identity import legible
from odptwist.interfaces import IAccessPolicy, ISessionDirectory, IStatistics
from odptwist.sessions.admission import Admission
from odptwist.sessions.client import ClientSession
from odptwist.sessions.directory import Directory
from odptwist.sessions.kill import kill_query, kill_server_session, kill_session, stop_abandoned
from odptwist.sessions.listener import PLAIN, Listener
from odptwist.sessions.peer import Peer
from odptwist.sessions.ruled import RuledSession
from odptwist.sessions.server import ServerSession
from odptwist.sessions.time_limits import TimeLimits
from odptwist.snapshots import (
    AfterTransaction,
    Asker,
    Decision,
    KillOutcome,
    KillReport,
    KillScope,
    KillTarget,
    Statistic,
    Verb,
)


class Numbers:
    """Counts sessions as ODP does (spec section 5)."""

    def __init__(self) -> None:
        self._ss_id = 0
        self._proxy_sessid = 0

    def new_ss_id(self) -> int:
        """Return the number of a new server session: from 1, never used again."""
        self._ss_id += 1
        return self._ss_id

    def new_proxy_sessid(self, host: str, port: int) -> int:
        """Return IPv4 address << 32 | port << 16 | counter; without an IPv4 address its part is 0."""
        self._proxy_sessid += 1
        return _place(host, port) | (self._proxy_sessid & 0xFFFF)


@lru_cache
def _place(host: str, port: int) -> int:
    text = host.rpartition(":")[2]  # a socket of both families has it as ::ffff:10.0.0.7
    address = int(IPv4Address(text)) if text.count(".") == 3 else 0
    return address << 32 | port << 16


@implementer(ISessionDirectory, IStatistics)
class Registry(Directory):
    """Makes, knows and ends client sessions.

    `surroundings` must be set before the first connection; they name this registry as their directory.

    Attributes:
        admission: says who may come in.
        time_limits: ends what takes too long.
    """

    def __init__(self, policy: IAccessPolicy) -> None:
        super().__init__(policy)
        self.admission = Admission()
        self.time_limits = TimeLimits(self)
        self._stops: set[Deferred[Any]] = set()
        self._last = 0
        self._opened = 0
        self._kills = dict.fromkeys(KillOutcome, 0)

    def __len__(self) -> int:
        return len(self._sessions)

    # -- sessions come and go ------------------------------------------------------------------------------------

    def new_session(self, listener: Listener) -> ClientSession:
        """Make a session for a client that has connected, with a number that no live session has."""
        number = self._last = self.surroundings.ids.next(self._last, self._sessions)
        rules = self.surroundings.rules
        session = (
            ClientSession(number, self.surroundings, self, listener)
            if rules is None
            else RuledSession(number, self.surroundings, self, listener, rules)
        )
        self._sessions[number] = session
        self._opened += 1
        self.time_limits.session_came()
        return session

    def forget(self, session: ClientSession) -> None:
        """Be told that a session has ended."""
        self._sessions.pop(session.cs_id, None)
        self.admission.leave(session)

    def live(self) -> list[ClientSession]:
        """Return all sessions, those that are about to end included."""
        return list(self._sessions.values())

    def abandoned(self, session: ClientSession, running: ServerSession) -> None:
        """Be given a server session that runs a statement of a client session that has just ended."""
        self._stop_later(stop_abandoned(session, running))

    def _stop_later(self, stop: Coroutine[Any, Any, Any]) -> None:
        stopping = self._deferred(stop)
        self._stops.add(stopping)
        stopping.addErrback(lambda failure: self._log.failure("a statement could not be stopped", failure))
        stopping.addBoth(lambda _: self._stops.discard(stopping))

    def statistics(self) -> Iterator[Statistic]:
        """Yield how many sessions there are and were, and what became of kills."""
        yield Statistic("client_sessions", len(self._sessions))
        yield Statistic("client_sessions_total", self._opened)
        yield Statistic("server_sessions", sum(len(each.server_sessions) for each in self._sessions.values()))
        for outcome, count in self._kills.items():
            yield Statistic(f"kills_{outcome.value}", count)
        yield Statistic("limits_refused", self.admission.refused)
        yield Statistic("limits_idle_ended", self.time_limits.idle_ended)
        yield Statistic("limits_transactions_ended", self.time_limits.transactions_ended)
        yield Statistic("limits_statements_stopped", self.time_limits.statements_stopped)

    def stop(self) -> Deferred[None]:
        """Drop every session; fires when all are gone, and their statements stopped as far as servers let us."""
        return self._deferred(self._stop())

    async def _stop(self) -> None:
        self.time_limits.stop()
        sessions = list(self._sessions.values())
        waiting = DeferredList([session.when_gone() for session in sessions])
        for session in sessions:
            session.drop(CloseReason.PROXY_STOPPED)
        await waiting
        while self._stops:
            await DeferredList(list(self._stops))

    # -- what takes too long -----------------------------------------------------------------------------------------

    def stop_statement(self, session: ClientSession, error: SqlError) -> None:
        """Be told that what a session runs takes too long."""
        self._stop_later(self._stop_statement(session, error))

    async def _stop_statement(self, session: ClientSession, error: SqlError) -> None:
        report = await kill_query(session, None, error)
        if report.detail:
            self._log.warn("client session {cs_id}: {detail}", cs_id=report.cs_id, detail=report.detail)

    # -- kills ---------------------------------------------------------------------------------------------------

    def kill(
        self,
        target: KillTarget,
        scope: KillScope,
        by: Asker,
        reason: str = "",
        after: AfterTransaction | None = None,
    ) -> Deferred[KillReport]:
        """End a session, a statement or a server session; see `ISessionDirectory`.

        Cancelling the Deferred (its asker has gone) does not stop the kill half-way.
        """
        killing = self._deferred(self._kill(target, scope, by, reason, after))
        report: Deferred[KillReport] = Deferred()
        killing.addBoth(lambda result: None if report.called else report.callback(result))
        return report

    async def _kill(
        self, target: KillTarget, scope: KillScope, by: Asker, reason: str, after: AfterTransaction | None
    ) -> KillReport:
        began = self.surroundings.reactor.seconds()
        report = await self._judge_and_kill(target, scope, by, reason, after)
        self._kills[report.outcome] += 1
        return evolve(report, seconds=self.surroundings.reactor.seconds() - began)

    async def _judge_and_kill(
        self, target: KillTarget, scope: KillScope, by: Asker, reason: str, after: AfterTransaction | None
    ) -> KillReport:
        if target.id is None:
            own = self._sessions.get(by.cs_id)
            if own is None:
                raise unknown_thread(by.cs_id)
            victim = own
        else:
            victim, by = await self._find(by, target.id, target.exact)
        verb = Verb.KILL_QUERY if scope is KillScope.QUERY else Verb.KILL
        if target.ss_id is not None:
            verb = Verb.KILL_SERVER_SESSION
        number = target.id if target.id is not None else by.cs_id
        decision, by = await self._decide(by, verb, victim)
        if decision is Decision.INVISIBLE or victim.reason is not None:
            raise unknown_thread(number)
        if decision is Decision.DENIED:
            raise not_owner(number)
        helper = self._sessions.get(by.cs_id)
        why = f"killed by {by}" + (f": {reason}" if reason else "")
        self._log.info(
            "client session {cs_id}: {verb} of {target}, {why}",
            cs_id=victim.cs_id,
            verb=verb.value,
            target="the session" if target.ss_id is None else f"server session {target.ss_id}",
            why=legible(why),
        )
        if target.ss_id is not None:
            session = next((s for s in victim.server_sessions if s.ss_id == target.ss_id), None)
            if session is None:
                raise unknown_thread(target.ss_id)
            return await kill_server_session(victim, session, helper, why)
        if scope is KillScope.QUERY:
            return await kill_query(victim, helper, interrupted(why))
        if after is not None and victim.unfinished:
            victim.mark_for_end(why, after.seconds)
            return KillReport(victim.cs_id, KillOutcome.MARKED, "ends with its transaction or statement")
        if victim.cs_id == by.cs_id:
            victim.doom = CloseReason.KILLED_ITSELF
            return KillReport(victim.cs_id, KillOutcome.ITSELF)
        return await kill_session(victim, helper, why)

    def kill_marked(self, session: ClientSession, why: str) -> None:
        """Be told that the time of a marked session is up."""
        self._stop_later(kill_session(session, None, why))


class Entrance(ServerFactory):
    """Where clients come in: makes their sessions.

    Args:
        registry: of all sessions.
        listener: what holds for those who come in here.
    """

    noisy = False

    def __init__(self, registry: Registry, listener: Listener = PLAIN) -> None:
        self._registry = registry
        self._listener = listener

    def logPrefix(self) -> str:
        """Return what Twisted calls a listening port in the log."""
        return "odptwist"

    def buildProtocol(self, addr: IAddress | None) -> ClientSession:
        """Make a session for a client that has connected."""
        session = self._registry.new_session(self._listener)
        if addr is not None:
            session.peer = Peer.at(addr)
        return session
