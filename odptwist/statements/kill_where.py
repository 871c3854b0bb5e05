"""KILL PROXYSESSION WHERE: ends all sessions that a condition selects, and says of each what became of it.

Source: none but ours; ODP has no such statement.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from contextlib import closing

from attrs import frozen
from twisted.internet.defer import Deferred, FirstError, gatherResults

from odptwist.answers import Column, ColumnType, Table, Value
from odptwist.errors import SqlError, unknown_thread
from odptwist.interfaces import ISessionDirectory
from odptwist.snapshots import Asker, ClientSessionSnapshot, KillReport, KillScope, KillTarget
from odptwist.statements.clauses import Clauses
from odptwist.statements.sessions import name_host
from odptwist.statements.where import Condition

_COLUMNS = (
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
    meanwhile) and `spared` (when its turn came, the condition was not true any more, or it could not be named without
    doubt; the detail says which). If the asker goes away, kills under way go on and the others do not begin.

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

        return Table(_COLUMNS, tuple(await _kill_each(hits, kill)))


def list_dry_run(sessions: Sequence[ClientSessionSnapshot]) -> Table:
    """Return the answer that names these sessions; whether a kill of one would be denied is not known."""
    return Table(_COLUMNS, tuple((each.cs_id, "would be killed", "", 0, _describe(each)) for each in sessions))


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
    cs_id = number = session.cs_id
    try:
        number, current = await _find_again(session, asker, directory)
        # It may have waited for its turn, and a session that was idle for an hour may have gone to work.
        if not condition.select((current,)):
            return (cs_id, "spared", "", 0, "the condition is not true any more")
        report = await directory.kill(
            KillTarget(number), KillScope.CONNECTION, asker, clauses.reason, after=clauses.after
        )
    except SqlError as error:
        return _list_refusal(cs_id, number, error)
    return _list_report(cs_id, report)


async def _find_again(
    session: ClientSessionSnapshot, asker: Asker, directory: ISessionDirectory
) -> tuple[int, ClientSessionSnapshot]:
    """Return a number that names this session and no other one, and its present state.

    Its cs_id alone will not do: it may be the connection id of another session as well, and after the session's end
    it would name only that one.
    """
    refusals = []
    for number in (session.cs_id, *(each.server_sessid for each in session.server_sessions)):
        try:
            current = await directory.session(asker, number)
        except SqlError as error:
            if error.code != _UNKNOWN_THREAD:
                raise
            refusals.append(error)
        else:
            if current.cs_id == session.cs_id:
                return number, current
    raise refusals[0] if refusals else unknown_thread(session.cs_id)


def _list_report(cs_id: int, report: KillReport) -> Row:
    statement = "" if report.stopped is None else "stopped" if report.stopped else "not stopped"
    return (cs_id, report.outcome.value, statement, round(report.seconds * 1000), report.detail)


def _list_refusal(cs_id: int, number: int, error: SqlError) -> Row:
    if error.code == _NOT_OWNER:
        return (cs_id, "denied", "", 0, error.message)
    if error.code == _UNKNOWN_THREAD and error.message == unknown_thread(number).message:
        return (cs_id, "gone", "", 0, "")
    return (cs_id, "spared", "", 0, error.message)


def _describe(session: ClientSessionSnapshot) -> str:
    who = "somebody" if session.identity is None else str(session.identity)
    return f"{who} from {name_host(session)}, {session.activity} for {session.seconds:.0f} s"
