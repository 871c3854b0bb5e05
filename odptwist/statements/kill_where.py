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
from odptwist.snapshots import Asker, KillReport, KillScope, KillTarget
from odptwist.statements.clauses import Clauses
from odptwist.statements.columns import name_host
from odptwist.statements.where import Condition
from odptwist.views import SessionView

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
        hits: dict[int, Row] = {}
        holds = condition.selecting()

        def look(session: SessionView) -> None:
            if len(hits) != request.clauses.limit and session.cs_id != asker.cs_id and holds(session):
                hits[session.cs_id] = list_hit(session)

        await directory.visit(asker, look)
        if request.clauses.dry_run:
            return Table(KILL_COLUMNS, tuple(hits.values()))

        async def kill(cs_id: int) -> Row:
            return await _kill(cs_id, condition, request.clauses, asker, directory)

        return Table(KILL_COLUMNS, tuple(await _kill_each(list(hits), kill)))


def list_hit(session: SessionView) -> Row:
    """Return the row by which a dry run names a session; whether a kill of it would be denied is not known."""
    who = "somebody" if session.identity is None else str(session.identity)
    detail = f"{who} from {name_host(session)}, {session.activity} for {session.seconds:.0f} s"
    return (session.cs_id, "would be killed", "", 0, detail)


async def _kill_each(cs_ids: Sequence[int], kill: Callable[[int], Awaitable[Row]]) -> list[Row]:
    """Call `kill` for each session, in order, a limited number at the same time; return the rows in the same order."""
    rows: dict[int, Row] = {}
    waiting = iter(cs_ids)

    async def work() -> None:
        for cs_id in waiting:
            rows[cs_id] = await kill(cs_id)

    workers = min(_MAX_AT_ONCE, len(cs_ids))
    try:
        await gatherResults([Deferred.fromCoroutine(work()) for _ in range(workers)], consumeErrors=True)
    except FirstError as first:
        first.subFailure.raiseException()  # so that a cancellation is one
    return [rows[cs_id] for cs_id in cs_ids]


async def _kill(cs_id: int, condition: Condition, clauses: Clauses, asker: Asker, directory: ISessionDirectory) -> Row:
    try:
        current = await directory.session(asker, cs_id, exact=True)
        # It may have waited for its turn, and a session that was idle for an hour may have gone to work.
        if not condition.holds(current):
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
