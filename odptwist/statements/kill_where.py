"""KILL PROXYSESSION WHERE: ends all sessions that a condition selects, and says of each what became of it.

Source: none but ours; ODP has no such statement.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from contextlib import closing

from attrs import frozen
from twisted.internet.defer import Deferred, FirstError, gatherResults

from odptwist.answers import Column, ColumnType, Table, Value
from odptwist.errors import SqlError
from odptwist.interfaces import ISessionDirectory
from odptwist.snapshots import Asker, ClientSessionSnapshot, KillReport, KillScope, KillTarget
from odptwist.statements.clauses import Clauses
from odptwist.statements.columns import name_host
from odptwist.statements.where import Condition

KILL_COLUMNS = (
    Column("Id", ColumnType.LONGLONG),
    Column("outcome", ColumnType.VARCHAR),
    Column("statement", ColumnType.VARCHAR),
    Column("milliseconds", ColumnType.LONGLONG),
    Column("detail", ColumnType.VARCHAR),
)
_MAX_AT_ONCE = 64
_UNKNOWN_THREAD = 1094
_NOT_OWNER = 1095

Row = tuple[Value, ...]


@frozen
class KillWhere:
    """A request to end the sessions for which a (checked) condition is true, but never the asker's own."""

    where: str
    clauses: Clauses


async def kill_where(request: KillWhere, asker: Asker, directory: ISessionDirectory) -> Table:
    """End the sessions, at most 64 at the same time, and return a row for each by rising Id.

    The outcomes are those of a kill (`ended`, `unconfirmed`, `marked`), `denied` (1095), `gone` (it ended by itself
    meanwhile) and `spared` (when its turn came, the condition was not true any more; the detail says so). If the asker
    goes away, kills under way go on and the others do not begin.

    Raises:
        SqlError: 1064 or 3024, as the condition does; then nothing was killed.
    """
    with closing(Condition(request.where)) as condition:
        visible = sorted(await directory.sessions(asker), key=lambda each: each.cs_id)
        hits = [each for each in condition.select(visible) if each.cs_id != asker.cs_id][: request.clauses.limit]
        if request.clauses.dry_run:
            return list_dry_run(hits)

        async def kill(session: ClientSessionSnapshot) -> Row:
            return await _kill(session, condition, request.clauses, asker, directory)

        return Table(KILL_COLUMNS, tuple(await _kill_each(hits, kill)))


def list_dry_run(sessions: Sequence[ClientSessionSnapshot]) -> Table:
    """Return the answer that names these sessions; whether a kill of one would be denied is not known."""
    return Table(KILL_COLUMNS, tuple((each.cs_id, "would be killed", "", 0, _describe(each)) for each in sessions))


async def _kill_each(
    sessions: Sequence[ClientSessionSnapshot], kill: Callable[[ClientSessionSnapshot], Awaitable[Row]]
) -> list[Row]:
    """Call `kill` for each session, in order, a limited number at the same time; return the rows in the same order."""
    rows: dict[int, Row] = {}
    waiting = iter(sessions)

    async def work() -> None:
        for session in waiting:
            rows[session.cs_id] = await kill(session)

    workers = min(_MAX_AT_ONCE, len(sessions))
    try:
        await gatherResults([Deferred.fromCoroutine(work()) for _ in range(workers)], consumeErrors=True)
    except FirstError as first:
        first.subFailure.raiseException()  # so that a cancellation is one
    return [rows[session.cs_id] for session in sessions]


async def _kill(
    session: ClientSessionSnapshot, condition: Condition, clauses: Clauses, asker: Asker, directory: ISessionDirectory
) -> Row:
    cs_id = session.cs_id
    try:
        current = await directory.session(asker, cs_id, exact=True)
        # It may have waited for its turn, and a session that was idle for an hour may have gone to work.
        if not condition.select((current,)):
            return (cs_id, "spared", "", 0, "the condition is not true any more")
        target = KillTarget(cs_id, exact=True)  # it may be the connection id of another session as well
        report = await directory.kill(target, KillScope.CONNECTION, asker, clauses.reason, after=clauses.after)
    except SqlError as error:
        return _list_refusal(cs_id, error)
    return _list_report(cs_id, report)


def _list_report(cs_id: int, report: KillReport) -> Row:
    statement = "" if report.stopped is None else "stopped" if report.stopped else "not stopped"
    return (cs_id, report.outcome.value, statement, round(report.seconds * 1000), report.detail)


def _list_refusal(cs_id: int, error: SqlError) -> Row:
    if error.code == _NOT_OWNER:
        return (cs_id, "denied", "", 0, error.message)
    if error.code == _UNKNOWN_THREAD:
        return (cs_id, "gone", "", 0, "")
    return (cs_id, "spared", "", 0, error.message)


def _describe(session: ClientSessionSnapshot) -> str:
    who = "somebody" if session.identity is None else str(session.identity)
    return f"{who} from {name_host(session)}, {session.activity} for {session.seconds:.0f} s"
