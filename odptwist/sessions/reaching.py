"""How a client session comes to the server session that its command needs.

Source: spec sections 8.1 and 8.2. One at rest in the pool is brought up to date; where there is none, another one is
opened, at the next server if the first cannot be had. What has changed since a server session last served is replayed
in one round trip, and the prepared statement in hand is prepared there.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence

from attrs import evolve
from twisted.internet.defer import CancelledError, TimeoutError

from odptwist.errors import (
    CloseReason,
    LoginRefused,
    OdpError,
    ServerSessionLost,
    ServerUnreachable,
    SqlError,
    WireError,
    server_lost,
)
from odptwist.sessions.binary import BinaryStatements
from odptwist.sessions.choice import Choice
from odptwist.sessions.conversation import Conversation
from odptwist.sessions.dialogue import LoginPlan
from odptwist.sessions.opening import NO_ROOM, open_server_session, try_servers
from odptwist.sessions.server import ServerSession
from odptwist.sessions.surroundings import Surroundings
from odptwist.snapshots import Address, Purpose
from odptwist.wire.constants import SERVER_STATUS_IN_TRANS
from odptwist.wire.handshake import Greeting
from odptwist.wire.responses import parse_err

CANNOT_REPEAT = "the proxy cannot log in again for this account"


def name_losses(error: SqlError, losses: Iterable[str]) -> SqlError:
    """Return an error that also names what was lost with a server session."""
    return SqlError(error.code, error.sqlstate, f"{error.message}; lost: {', '.join(losses)}")


class _Unsuitable(OdpError):
    """A server is well, but not for the command in hand."""

    def __init__(self, address: Address) -> None:
        super().__init__(str(address))
        self.address = address


class Reaching(Conversation):
    """A conversation that finds server sessions.

    Attributes:
        repeatable: whether the proxy can log in for this client again without asking it.
        greeting: of the server that served last; all of a cluster are alike.
        pool: server sessions at rest.
        choice: decides where statements go; None where there is but one server.
        binary: the prepared statements; None as long as there was none.
    """

    __slots__ = (
        "_again",
        "_avoided",
        "_lost",
        "_reaching",
        "_refused",
        "_target",
        "binary",
        "choice",
        "greeting",
        "pool",
        "repeatable",
    )

    def __init__(self, cs_id: int, surroundings: Surroundings) -> None:
        super().__init__(cs_id, surroundings)
        self.repeatable = False
        self.greeting: Greeting | None = None
        self.pool: tuple[ServerSession, ...] = ()
        self.choice: Choice | None = None
        self._reaching: ServerSession | None = None
        self._lost: SqlError | None = None
        self.binary: BinaryStatements | None = None
        self._again = b""
        self._target: Address | None = None
        self._refused: tuple[Address, int, SqlError] | None = None
        self._avoided: Address | None = None

    def takes_back(self, session: ServerSession, response: bytes) -> bool:
        """Be shown an error that is a whole response, and say whether it is kept from the client."""
        return False

    def server_lost(self, session: ServerSession, detail: str) -> None:
        """Be told that a server session ended by itself."""

    def server_broke(self, session: ServerSession, fault: WireError) -> None:
        """Be told that a server broke the protocol in the response in flight."""

    # -- at rest and at work ------------------------------------------------------------------------------------------

    def _must_ask(self, session: ServerSession) -> bool:
        """Whether a server has to be asked if it has caught up with what another one wrote, before it serves."""
        choice = self.choice
        return (
            choice is not None
            and choice.purpose is Purpose.READ
            and choice.wrote_on is not None
            and choice.wrote_on.address != session.address
        )

    def _rest(self, session: ServerSession) -> None:
        self.bound = None
        session.rest(self, self.state.serial)
        self.pool = (*self.pool, session)

    def _take(self, session: ServerSession) -> None:
        self.pool = tuple(each for each in self.pool if each is not session)
        session.keeper = None

    def _bind(self, server: ServerSession) -> None:
        self.bound = server
        self.greeting = server.greeting
        server.owner = self
        server.versions = self.state.versions
        if self._client_full:
            server.transport.pauseProducing()

    def take_losses(self, session: ServerSession) -> list[str]:
        """Return what went with a server session that served last, and be without it."""
        tracker = self.tracker
        losses = sorted(self.state.pins)
        if self.binary is not None:
            losses += self.binary.lost(session)
        if tracker.status & SERVER_STATUS_IN_TRANS:
            losses.insert(0, "the transaction, which was rolled back")
            session.transaction_lost = True
        self.state.pins.clear()
        tracker.status &= ~SERVER_STATUS_IN_TRANS
        self.status = tracker.status
        return losses

    # -- the search ---------------------------------------------------------------------------------------------------

    async def reopen(self) -> None:
        """Find the server session for what is `unsent`, make it like this session, and send."""
        plan = self.plan
        if self._lost is not None or plan is None or not (self.repeatable or self.pool):
            self.refuse_exchange(self._lost or server_lost(f"The server session ended; {CANNOT_REPEAT}"))
            return
        try:
            server = await self._reach(evolve(plan, response=evolve(plan.response, database=self.state.database)))
        except LoginRefused as refusal:
            if parse_err(refusal.payload).code not in NO_ROOM:
                self.repeatable = bool(self.pool)
            self.refuse_exchange(refusal)
        except OdpError as fault:
            self.refuse_exchange(fault)
        except CancelledError:
            if self.reason is not None or self.tracker.awaiting:
                raise
            # Else it was stopped, and whoever did that has answered.
        else:
            self._bind(server)
            data, self.unsent = b"".join(self.unsent), ()
            self.forward(data)
            self.server_full(False)

    async def _reach(self, plan: LoginPlan) -> ServerSession:
        """Return a server session for the command in hand, made like this session.

        Raises:
            LoginRefused: a server refused the account.
            SqlError: the state cannot be replayed, or no server takes the write that one has refused.
            ServerUnreachable: no server can be had.
        """
        unsuitable: list[Address] = []
        refused = self._refused
        again = 0
        while True:
            self.counts.add("server_pl_lookup_retries", again)
            again = 1
            try:
                session = await try_servers(
                    self.surroundings,
                    self._candidates(plan, unsuitable),
                    plan.identity,
                    lambda address: self._reach_at(address, plan),
                )
            except _Unsuitable as fault:
                unsuitable.append(fault.address)
            except ServerUnreachable as fault:
                if not await self._roles_change(plan):
                    raise (refused[2] if refused is not None else fault) from None
            else:
                self._refused = self._avoided = None
                return session

    def _candidates(self, plan: LoginPlan, unsuitable: Collection[Address]) -> list[Address]:
        choice = self.choice
        began = self.surroundings.reactor.seconds()
        addresses = self.surroundings.servers_for(
            plan.identity, choice.purpose if choice is not None else Purpose.LOGIN
        )
        if not addresses and self._refused is None and choice is not None and not choice.awaits_primary():
            # There is no primary, and none is expected: any server gives a clearer error than we can.
            addresses = self.surroundings.servers_for(plan.identity, Purpose.LOGIN)
        target = self._target or (choice.address() if choice is not None else None)
        out = {*unsuitable, self._avoided}
        if self._refused is not None and self._refused[1] == self.surroundings.clusters.generation:
            out.add(self._refused[0])
        self.counts.looked_up(self.surroundings.reactor.seconds() - began)
        # The chosen one first: asked anew, the router may name another one, and reads would wander.
        first = [target] if target is not None else []
        return [each for each in dict.fromkeys((*first, *addresses)) if each not in out]

    async def _roles_change(self, plan: LoginPlan) -> bool:
        """Wait until the servers' standing changes, if a write waits for a primary; return whether it has."""
        clusters, routing = self.surroundings.clusters, self.surroundings.routing
        if self.choice is None or self.choice.purpose is not Purpose.WRITE or not clusters.watched:
            return False
        left = self._write_deadline() - self.surroundings.reactor.seconds()
        if left <= 0:
            return False
        changed = clusters.when_changed()
        clusters.suspect(clusters.standings(plan.identity.cluster)[0].address)
        try:
            await changed.addTimeout(min(left, routing.primary_wait), self.surroundings.reactor)
        except TimeoutError:
            return False
        return True

    def _write_deadline(self) -> float:
        return float(self.since + self.surroundings.routing.primary_wait)

    async def _reach_at(self, address: Address, plan: LoginPlan) -> ServerSession:
        """Return a server session at a server, from the pool or a new one, made like this session."""
        for session in self.pool:
            if session.address == address:
                self._take(session)
                try:
                    return await self._make_ready(session)
                except (ServerSessionLost, WireError) as fault:
                    # It may have ended long ago: the server itself may be well.
                    losses = self.take_losses(session)
                    if losses:
                        error = server_lost(f"Lost connection to server {address}: {fault}")
                        raise name_losses(error, losses) from None
                    break
        if not self.repeatable:
            raise server_lost(f"The server session ended; {CANNOT_REPEAT}")
        try:
            opened = await open_server_session(self.surroundings, plan, address, self._opening)
        except LoginRefused:
            if not self.pool or self.choice is None:
                raise
            # It has no room, or the account has not come to this replica yet; the others may be better off.
            self.choice.avoid(address)
            raise _Unsuitable(address) from None
        return await self._make_ready(opened.session)

    async def _make_ready(self, session: ServerSession) -> ServerSession:
        """Bring a server session up to date with this session."""
        self._reaching = session
        try:
            if self.choice is not None and self._must_ask(session) and not await self.choice.has_caught_up(session):
                session.keeper = self
                session.synced = session.synced or 0  # a new one: its login's database may not be the current one then
                self.pool = (*self.pool, session)
                raise _Unsuitable(session.address)
            statements = self.state.replay(session.synced)
            if statements:
                await self._replay(session, statements)
            session.synced = self.state.serial
            if self.binary is not None:
                await self._prepare_at(session, self.binary)
        except BaseException:
            if session.keeper is None and session.owner is None:
                session.drop(CloseReason.STATE_LOST)
            raise
        finally:
            self._reaching = None
        return session

    async def _replay(self, session: ServerSession, statements: Sequence[str]) -> None:
        began = self.surroundings.reactor.seconds()
        for result in await session.queries(statements):
            if result.error is not None:
                raise SqlError(result.error.code, result.error.sqlstate, result.error.message)
        took = self.surroundings.reactor.seconds() - began
        self.counts.replayed(session.synced is None, session.versions, self.state.versions, took)

    async def _prepare_at(self, session: ServerSession, binary: BinaryStatements) -> None:
        try:
            await binary.make_ready(session, self.state.reading)
        except SqlError:
            # The server session is well, and may hold a transaction; only this statement cannot be prepared on it.
            self._bind(session)
            raise

    def _opening(self, server: ServerSession | None) -> None:
        self._reaching = server
