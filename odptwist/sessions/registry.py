"""All client sessions of this proxy, their numbers, and the one door for looking at them and ending them."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Iterator, Sequence
from typing import Any, TypeVar

from attrs import evolve
from twisted.internet.defer import Deferred, DeferredList
from twisted.internet.interfaces import IAddress
from twisted.internet.protocol import ServerFactory
from twisted.internet.task import deferLater
from twisted.logger import Logger
from zope.interface import implementer

from odptwist.answers import Table
from odptwist.errors import (
    CloseReason,
    OdpError,
    ServerSessionLost,
    SqlError,
    WireError,
    not_owner,
    server_lost,
    unknown_thread,
)
from odptwist.identity import Identity
from odptwist.interfaces import IAccessPolicy, ISessionDirectory, IStatistics
from odptwist.sessions.client import ClientSession
from odptwist.sessions.connections import connections_of
from odptwist.sessions.counting import statistics_of
from odptwist.sessions.kill import kill_query, kill_server_session, kill_session, stop_abandoned
from odptwist.sessions.processlist import Owned, ask_processes, tell_processes
from odptwist.sessions.ruled import RuledSession
from odptwist.sessions.server import ServerSession
from odptwist.sessions.surroundings import Surroundings
from odptwist.sessions.variables import variables_of
from odptwist.snapshots import (
    Address,
    AfterTransaction,
    Asker,
    ClientSessionSnapshot,
    ConnectionSnapshot,
    Decision,
    EndedSession,
    KillOutcome,
    KillReport,
    KillScope,
    KillTarget,
    Privileges,
    SessionVariables,
    Statistic,
    Verb,
)

T = TypeVar("T")

# How many sessions are shown in one go, before others have their turn: a millisecond or less.
_AT_ONCE = 100


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
        address = 0
        if host.count(".") == 3:
            address = int.from_bytes(bytes(int(part) for part in host.split(".")), "big")
        return address << 32 | port << 16 | (self._proxy_sessid & 0xFFFF)


@implementer(ISessionDirectory, IStatistics)
class Registry(ServerFactory):
    """Makes, knows and ends client sessions.

    `surroundings` must be set before the first connection; they name this registry as their directory.
    """

    noisy = False
    _log = Logger()
    surroundings: Surroundings

    def __init__(self, policy: IAccessPolicy) -> None:
        self._policy = policy
        self._sessions: dict[int, ClientSession] = {}
        self._stops: set[Deferred[Any]] = set()
        self._last = 0
        self._opened = 0
        self._kills = dict.fromkeys(KillOutcome, 0)

    def logPrefix(self) -> str:
        """Return what Twisted calls a listening port in the log."""
        return "odptwist"

    def __len__(self) -> int:
        return len(self._sessions)

    # -- sessions come and go ------------------------------------------------------------------------------------

    def buildProtocol(self, addr: IAddress | None) -> ClientSession:
        """Make a session for a client that has connected, with a number that no live session has."""
        number = self._last = self.surroundings.ids.next(self._last, self._sessions)
        rules = self.surroundings.rules
        session = (
            ClientSession(number, self.surroundings, self)
            if rules is None
            else RuledSession(number, self.surroundings, self, rules)
        )
        session.factory = self
        self._sessions[number] = session
        self._opened += 1
        return session

    def forget(self, session: ClientSession) -> None:
        """Be told that a session has ended."""
        self._sessions.pop(session.cs_id, None)

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

    def stop(self) -> Deferred[None]:
        """Drop every session; fires when all are gone, and their statements stopped as far as servers let us."""
        return self._deferred(self._stop())

    async def _stop(self) -> None:
        sessions = list(self._sessions.values())
        waiting = DeferredList([session.when_gone() for session in sessions])
        for session in sessions:
            session.drop(CloseReason.PROXY_STOPPED)
        await waiting
        while self._stops:
            await DeferredList(list(self._stops))

    # -- the directory -------------------------------------------------------------------------------------------

    def sessions(self, asker: Asker) -> Deferred[Sequence[ClientSessionSnapshot]]:
        """Fire with all sessions that the asker may see, by rising cs_id."""
        return self._deferred(self._visible(asker))

    async def _visible(self, asker: Asker) -> Sequence[ClientSessionSnapshot]:
        found: list[ClientSessionSnapshot] = []
        await self._visit(asker, lambda session: found.append(session.snapshot()))
        return found

    def visit(self, asker: Asker, look: Callable[[ClientSessionSnapshot], None]) -> Deferred[None]:
        """Show `look` each session that the asker may see; see `ISessionDirectory`."""
        return self._deferred(self._visit(asker, lambda session: look(session.snapshot())))

    async def _visit(self, asker: Asker, look: Callable[[ClientSession], None]) -> None:
        asker = await self._informed(asker)
        for place, cs_id in enumerate(sorted(self._sessions), 1):
            session = self._sessions.get(cs_id)
            if session is not None:
                decision, asker = await self._decide(asker, Verb.SEE, session)
                if decision is Decision.ALLOWED and session.reason is None:
                    look(session)
            if not place % _AT_ONCE:
                await deferLater(self.surroundings.reactor, 0)

    def history(self, asker: Asker) -> Deferred[Sequence[EndedSession]]:
        """Fire with the sessions that ended and that the asker may know of; see `ISessionDirectory`."""
        return self._deferred(self._history(asker))

    async def _history(self, asker: Asker) -> Sequence[EndedSession]:
        asker = await self._informed(asker)
        found = []
        for place, ended in enumerate(self.surroundings.history.latest_first(), 1):
            # Without its cs_id: that may be the asker's own by now, and says nothing about whose it was.
            decision, asker = await self._judge(asker, Verb.SEE, 0, ended.identity)
            if decision is Decision.ALLOWED:
                found.append(ended)
            if not place % _AT_ONCE:
                await deferLater(self.surroundings.reactor, 0)
        return found

    def session(self, asker: Asker, number: int, exact: bool = False) -> Deferred[ClientSessionSnapshot]:
        """Fire with the session that a cs_id or connection id names, or fail with 1094; `exact`: it is a cs_id."""
        return self._deferred(self._look_up(asker, number, exact))

    async def _look_up(self, asker: Asker, number: int, exact: bool) -> ClientSessionSnapshot:
        session, _ = await self._find(asker, number, exact)
        return session.snapshot()

    def statistics_of(self, asker: Asker, number: int, exact: bool = False) -> Deferred[Sequence[Statistic]]:
        """Fire with what is counted of a session; see `ISessionDirectory`."""
        return self._deferred(self._count(asker, number, exact))

    async def _count(self, asker: Asker, number: int, exact: bool) -> Sequence[Statistic]:
        session, _ = await self._find(asker, number, exact)
        return statistics_of(session)

    def variables(
        self, asker: Asker, number: int, all_of_them: bool, exact: bool = False
    ) -> Deferred[SessionVariables]:
        """Fire with the variables of a session; see `ISessionDirectory`."""
        return self._deferred(self._variables(asker, number, all_of_them, exact))

    async def _variables(self, asker: Asker, number: int, all_of_them: bool, exact: bool) -> SessionVariables:
        session, _ = await self._find(asker, number, exact)
        return await variables_of(session, all_of_them, may_ask=session.cs_id == asker.cs_id)

    def connections(self, asker: Asker) -> Deferred[Sequence[ConnectionSnapshot]]:
        """Fire with the connections of the sessions that the asker may see; see `ISessionDirectory`."""
        return self._deferred(self._connections(asker))

    async def _connections(self, asker: Asker) -> Sequence[ConnectionSnapshot]:
        found: list[ConnectionSnapshot] = []
        await self._visit(asker, lambda session: found.extend(connections_of(session)))
        return found

    async def _find(self, asker: Asker, number: int, exact: bool = False) -> tuple[ClientSession, Asker]:
        """Return the one visible session that a number names; see design/kill.md for numbers that name two."""
        visible = []
        for session in self._named(number, exact):
            if session.reason is not None:
                continue
            decision, asker = await self._decide(asker, Verb.SEE, session)
            if decision is not Decision.INVISIBLE and session.reason is None:
                visible.append(session)
        if number <= 0 or not visible:
            await self._informed(asker)
            raise unknown_thread(number)
        if len(visible) > 1:
            raise _ambiguous(number, visible)
        return visible[0], asker

    def _named(self, number: int, exact: bool) -> list[ClientSession]:
        if exact or self.surroundings.ids.is_own(number):
            session = self._sessions.get(number)
            return [session] if session is not None else []
        return [
            session
            for session in self._sessions.values()
            if session.cs_id == number or any(s.server_sessid == number for s in session.server_sessions)
        ]

    def processes(self, asker: Asker, full: bool) -> Deferred[Table]:
        """Fire with the processes of the asker's server; see `ISessionDirectory`."""
        return self._deferred(self._processes(asker, full))

    async def _processes(self, asker: Asker, full: bool) -> Table:
        own = self._sessions.get(asker.cs_id)
        server = (own.bound or next(iter(own.pool), None)) if own is not None else None
        if server is None:
            raise server_lost("SHOW PROCESSLIST needs a live server session: run another statement first")
        owners = await self._owners(asker, server.address)
        try:
            processes = await ask_processes(server, full)
        except (ServerSessionLost, WireError) as fault:
            raise server_lost(str(fault)) from fault
        # Sessions came and went meanwhile: a row of one that may not be seen must not look like a stranger's.
        owners.update(await self._owners(asker, server.address))
        return tell_processes(processes, self.surroundings.ids, owners)

    async def _owners(self, asker: Asker, address: Address) -> dict[int, Owned]:
        """Return whose the server sessions at a server are, by connection id."""
        owners: dict[int, Owned] = {}
        for place, session in enumerate(list(self._sessions.values()), 1):
            here = [each.server_sessid for each in session.server_sessions if each.address == address]
            if here:
                decision, asker = await self._decide(asker, Verb.SEE, session)
                owners.update(dict.fromkeys(here, Owned(session, decision is Decision.ALLOWED)))
            if not place % _AT_ONCE:
                await deferLater(self.surroundings.reactor, 0)
        return owners

    def may(self, asker: Asker, verb: Verb) -> Deferred[bool]:
        """Fire with whether an asker may do what concerns no session."""
        return self._deferred(self._may(asker, verb))

    async def _may(self, asker: Asker, verb: Verb) -> bool:
        decision, _ = await self._judge(asker, verb, 0, None)
        return decision is Decision.ALLOWED

    async def _informed(self, asker: Asker) -> Asker:
        """Return the asker with its privileges, if they could ever matter, although nothing depends on them now.

        A session that it may not see costs its server a question. Without one here, it would be answered sooner where
        there is no such session.
        """
        _, asker = await self._judge(asker, Verb.SEE, 0, evolve(asker.identity, user=""))  # nobody has such a name
        return asker

    async def _decide(self, asker: Asker, verb: Verb, session: ClientSession) -> tuple[Decision, Asker]:
        return await self._judge(asker, verb, session.cs_id, session.identity)

    async def _judge(self, asker: Asker, verb: Verb, cs_id: int, owner: Identity | None) -> tuple[Decision, Asker]:
        """Ask the access policy, and the asker's server for its privileges if the policy needs them."""
        try:
            decision = self._policy.decide(asker, verb, cs_id, owner)
            if decision is Decision.NEEDS_PRIVILEGES:
                own = self._sessions.get(asker.cs_id)
                privileges = Privileges.NONE
                if own is not None:
                    try:
                        privileges = await own.privileges()
                    except OdpError:
                        self._log.warn("client session {cs_id}: privileges unknown", cs_id=asker.cs_id)
                asker = evolve(asker, privileges=privileges)
                decision = self._policy.decide(asker, verb, cs_id, owner)
        except Exception:  # noqa: BLE001 - an extension may raise anything, and what it guards stays closed
            self._log.failure("access policy {policy} failed", policy=self._policy)
            decision = Decision.INVISIBLE
        return (Decision.INVISIBLE if decision is Decision.NEEDS_PRIVILEGES else decision), asker

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
            why=why,
        )
        if target.ss_id is not None:
            session = next((s for s in victim.server_sessions if s.ss_id == target.ss_id), None)
            if session is None:
                raise unknown_thread(target.ss_id)
            return await kill_server_session(victim, session, helper, why)
        if scope is KillScope.QUERY:
            # A client's KILL QUERY leaves the server's own words to the victim, as without a proxy.
            return await kill_query(victim, helper, why if by.rule else "")
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

    def _deferred(self, asking: Coroutine[Any, Any, T]) -> Deferred[T]:
        return Deferred.fromCoroutine(asking)


def _ambiguous(number: int, sessions: Sequence[ClientSession]) -> SqlError:
    """Return the refusal of a number that names several sessions, and how to name each."""
    candidates = []
    for session in sessions:
        how = "its own id" if session.cs_id == number else "its connection id"
        candidates.append(f"client session {session.cs_id} by {how}")
    return SqlError(1094, "HY000", f"Unknown thread id: {number} is ambiguous: {', '.join(candidates)}")
