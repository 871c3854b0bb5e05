"""A directory of sessions that never lived, for tests of statements."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from attrs import Factory, define, evolve
from twisted.internet.defer import Deferred, fail, succeed
from zope.interface import implementer

from odptwist.answers import Column, ColumnType, Table
from odptwist.errors import SqlError, unknown_thread
from odptwist.identity import Identity
from odptwist.interfaces import ISessionDirectory
from odptwist.snapshots import (
    Address,
    AfterTransaction,
    Asker,
    ClientSessionSnapshot,
    ConnectionSnapshot,
    EndedSession,
    KillOutcome,
    KillReport,
    KillScope,
    KillTarget,
    ServerSessionSnapshot,
    SessionVariables,
    Statistic,
    Verb,
    Versions,
)
from odptwist.views import SessionView

ROOT = Identity("root", "sys", "ob1")
SERVER = Address("10.0.0.1", 2881)
UNCHANGED = Versions()


def make_server_session(
    ss_id: int = 1,
    server_sessid: int = 2147549203,
    address: Address = SERVER,
    state: str = "MSS_KA_CLIENT_SLAVE",
    pickups: int = 1,
    attached: bool = False,
    last_insert_id: bool = False,
    versions: Versions = UNCHANGED,
) -> ServerSessionSnapshot:
    """Return an idle server session but for what is said."""
    return ServerSessionSnapshot(ss_id, server_sessid, address, state, pickups, attached, last_insert_id, versions)


def make_client_session(
    cs_id: int = 7,
    identity: Identity | None = ROOT,
    proxy_sessid: int = 756006681247547400,
    host: str = "127.0.0.1",
    port: int = 23706,
    database: str | None = None,
    transactions: int = 0,
    state: str = "MCS_ACTIVE_READER",
    busy: bool = False,
    in_transaction: bool = False,
    versions: Versions = UNCHANGED,
    bound: ServerSessionSnapshot | None = None,
    pool: tuple[ServerSessionSnapshot, ...] = (),
) -> ClientSessionSnapshot:
    """Return an idle client session of the manual's example but for what is said."""
    return ClientSessionSnapshot(
        proxy_sessid=proxy_sessid,
        cs_id=cs_id,
        identity=identity,
        host=host,
        port=port,
        database=database,
        transactions=transactions,
        state=state,
        busy=busy,
        in_transaction=in_transaction,
        tid=2230520,
        pid=2230520,
        versions=versions,
        bound=bound,
        pool=pool,
    )


@define
class Kill:
    """A kill that was asked for."""

    target: KillTarget
    scope: KillScope
    by: Asker
    reason: str
    after: AfterTransaction | None = None


@implementer(ISessionDirectory)
@define
class FakeDirectory:
    """Everybody sees everything; kills are written down and end as `outcome` says, or as `error`.

    Ids are found as the contract wants: by cs_id or connection id, and not if they name two sessions.
    """

    known: tuple[ClientSessionSnapshot, ...] = ()
    ended: tuple[EndedSession, ...] = ()
    outcome: KillOutcome = KillOutcome.ENDED
    detail: str = ""
    error: SqlError | None = None
    allows: bool = True
    kills: list[Kill] = Factory(list)
    counted: tuple[Statistic, ...] = ()
    set_variables: SessionVariables = Factory(lambda: SessionVariables(()))
    known_connections: tuple[ConnectionSnapshot, ...] = ()

    def sessions(self, asker: Asker) -> Deferred[Sequence[ClientSessionSnapshot]]:
        """Fire with all that are known, in their order."""
        return succeed(self.known)

    def visit(self, asker: Asker, look: Callable[[SessionView], None]) -> Deferred[None]:
        """Show `look` all that are known, by rising cs_id."""
        for each in sorted(self.known, key=lambda each: each.cs_id):
            look(each)
        return succeed(None)

    def history(self, asker: Asker) -> Deferred[Sequence[EndedSession]]:
        """Fire with all that ended."""
        return succeed(self.ended)

    def session(self, asker: Asker, number: int, exact: bool = False) -> Deferred[ClientSessionSnapshot]:
        """Fire with the one that the number names."""
        found = [
            each
            for each in self.known
            if number == each.cs_id or (not exact and number in [s.server_sessid for s in each.server_sessions])
        ]
        return succeed(found[0]) if len(found) == 1 else fail(unknown_thread(number))

    def statistics_of(self, asker: Asker, number: int, exact: bool = False) -> Deferred[Sequence[Statistic]]:
        """Fire with what was set."""
        return succeed(self.counted)

    def variables(
        self, asker: Asker, number: int, all_of_them: bool, exact: bool = False
    ) -> Deferred[SessionVariables]:
        """Fire with what was set, and an excuse if all were asked for."""
        return succeed(evolve(self.set_variables, missing="busy" if all_of_them else ""))

    def connections(self, asker: Asker) -> Deferred[Sequence[ConnectionSnapshot]]:
        """Fire with all that are known, in their order."""
        return succeed(self.known_connections)

    def processes(self, asker: Asker, full: bool) -> Deferred[Table]:
        """Fire with a list that tells whether it is the full one."""
        return succeed(Table((Column("Id", ColumnType.LONGLONG),), ((int(full),),)))

    def may(self, asker: Asker, verb: Verb) -> Deferred[bool]:
        """Fire with what was set, whatever it is about."""
        return succeed(self.allows)

    def kill(
        self,
        target: KillTarget,
        scope: KillScope,
        by: Asker,
        reason: str = "",
        after: AfterTransaction | None = None,
    ) -> Deferred[KillReport]:
        """Write the kill down and fire with what was set."""
        self.kills.append(Kill(target, scope, by, reason, after))
        if self.error is not None:
            return fail(self.error)
        return succeed(KillReport(by.cs_id if target.id is None else target.id, self.outcome, self.detail))
