"""Looking at client sessions: which ones a number names, and who may see them."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Sequence
from typing import Any, TypeVar

from attrs import evolve
from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater
from twisted.logger import Logger

from odptwist.answers import Table
from odptwist.errors import OdpError, ServerSessionLost, SqlError, WireError, server_lost, unknown_thread
from odptwist.identity import Identity
from odptwist.interfaces import IAccessPolicy
from odptwist.sessions.client import ClientSession
from odptwist.sessions.connections import connections_of
from odptwist.sessions.counting import statistics_of
from odptwist.sessions.processlist import Owned, ask_processes, tell_processes
from odptwist.sessions.surroundings import Surroundings
from odptwist.sessions.variables import variables_of
from odptwist.snapshots import (
    Address,
    Asker,
    ClientSessionSnapshot,
    ConnectionSnapshot,
    Decision,
    EndedSession,
    Privileges,
    SessionVariables,
    Statistic,
    Verb,
)
from odptwist.views import SessionView

T = TypeVar("T")

# How many sessions are shown in one go, before others have their turn: a millisecond or less.
_AT_ONCE = 100


class Directory:
    """Shows client sessions to those who may see them.

    `surroundings` must be set before anybody asks.
    """

    _log = Logger()
    surroundings: Surroundings

    def __init__(self, policy: IAccessPolicy) -> None:
        self._policy = policy
        self._sessions: dict[int, ClientSession] = {}

    # -- all of them -----------------------------------------------------------------------------------------------

    def sessions(self, asker: Asker) -> Deferred[Sequence[ClientSessionSnapshot]]:
        """Fire with all sessions that the asker may see, by rising cs_id."""
        return self._deferred(self._visible(asker))

    async def _visible(self, asker: Asker) -> Sequence[ClientSessionSnapshot]:
        found: list[ClientSessionSnapshot] = []
        await self._visit(asker, lambda session: found.append(session.snapshot()))
        return found

    def visit(self, asker: Asker, look: Callable[[SessionView], None]) -> Deferred[None]:
        """Show `look` each session that the asker may see; see `ISessionDirectory`."""
        return self._deferred(self._visit(asker, lambda session: look(session.view())))

    async def _visit(self, asker: Asker, look: Callable[[ClientSession], None]) -> None:
        asker = await self._informed(asker)
        for place, cs_id in enumerate(sorted(self._sessions), 1):
            session = self._sessions.get(cs_id)
            if session is not None:
                decision = self._ask_policy(asker, Verb.SEE, cs_id, session.identity)
                if decision is Decision.NEEDS_PRIVILEGES:
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

    def connections(self, asker: Asker) -> Deferred[Sequence[ConnectionSnapshot]]:
        """Fire with the connections of the sessions that the asker may see; see `ISessionDirectory`."""
        return self._deferred(self._connections(asker))

    async def _connections(self, asker: Asker) -> Sequence[ConnectionSnapshot]:
        found: list[ConnectionSnapshot] = []
        await self._visit(asker, lambda session: found.extend(connections_of(session)))
        return found

    def processes(self, asker: Asker, full: bool) -> Deferred[Table]:
        """Fire with the processes of the asker's server; see `ISessionDirectory`."""
        return self._deferred(self._processes(asker, full))

    async def _processes(self, asker: Asker, full: bool) -> Table:
        own = self._sessions.get(asker.cs_id)
        server = (own.bound or next(iter(own.pool), None)) if own is not None else None
        if own is None or server is None:
            raise server_lost("SHOW PROCESSLIST needs a live server session: run another statement first")
        owners = await self._owners(asker, server.address)
        try:
            processes = await ask_processes(server, full)
        except (ServerSessionLost, WireError) as fault:
            raise server_lost(str(fault)) from fault
        # Sessions came and went meanwhile: a row of one that may not be seen must not look like a stranger's.
        owners.update(await self._owners(asker, server.address))
        return tell_processes(processes, self.surroundings.ids, owners, server.server_sessid, own.text)

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

    # -- one of them -----------------------------------------------------------------------------------------------

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

    # -- who may -----------------------------------------------------------------------------------------------------

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
        decision = self._ask_policy(asker, verb, cs_id, owner)
        if decision is Decision.NEEDS_PRIVILEGES:
            asker = evolve(asker, privileges=await self._privileges(asker))
            decision = self._ask_policy(asker, verb, cs_id, owner)
        return (Decision.INVISIBLE if decision is Decision.NEEDS_PRIVILEGES else decision), asker

    def _ask_policy(self, asker: Asker, verb: Verb, cs_id: int, owner: Identity | None) -> Decision:
        try:
            return self._policy.decide(asker, verb, cs_id, owner)
        except Exception:  # noqa: BLE001 - an extension may raise anything, and what it guards stays closed
            self._log.failure("access policy {policy} failed", policy=self._policy)
            return Decision.INVISIBLE

    async def _privileges(self, asker: Asker) -> Privileges:
        """Return what the asker's server grants it, nothing if nobody can be asked."""
        own = self._sessions.get(asker.cs_id)
        if own is not None:
            try:
                return await own.privileges()
            except OdpError:
                self._log.warn("client session {cs_id}: privileges unknown", cs_id=asker.cs_id)
        return Privileges.NONE

    def _deferred(self, asking: Coroutine[Any, Any, T]) -> Deferred[T]:
        return Deferred.fromCoroutine(asking)


def _ambiguous(number: int, sessions: Sequence[ClientSession]) -> SqlError:
    """Return the refusal of a number that names several sessions, and how to name each."""
    candidates = []
    for session in sessions:
        how = "its own id" if session.cs_id == number else "its connection id"
        candidates.append(f"client session {session.cs_id} by {how}")
    return SqlError(1094, "HY000", f"Unknown thread id: {number} is ambiguous: {', '.join(candidates)}")
