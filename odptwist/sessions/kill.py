"""What a kill does, once it is known whom it hits: stop the server's work, end transports, and only then report.

Source: design/kill.md. On MariaDB and MySQL, closing a connection does not stop the statement that runs on it, so a
busy server session is stopped on its server first. With a standby of OceanBase's it is the other way round: it refuses
KILL, and stops what runs on a connection when that closes (design/backends.md 1.6).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from attrs import define
from twisted.internet.defer import Deferred, TimeoutError
from twisted.internet.task import deferLater
from twisted.logger import Logger

from odptwist.errors import INTERRUPTED, CloseReason, OdpError, SqlError, interrupted
from odptwist.identity import Identity, legible
from odptwist.machines.exchange import Tracker
from odptwist.sessions.dialogue import LoginPlan
from odptwist.sessions.opening import account_plan, open_side_session
from odptwist.sessions.server import ServerSession
from odptwist.sessions.surroundings import Surroundings
from odptwist.snapshots import KillOutcome, KillReport, KillScope

_log = Logger()
_UNKNOWN_THREAD = 1094
_READ_ONLY_TENANT = 4688
# Seconds between two looks at the sessions of a server: a standby was seen to end one within 0.1 s.
_LOOK_AGAIN = 0.02


@define
class Told:
    """What servers were told of one statement.

    Attributes:
        sent: kills that were sent.
        answered: how many of them were answered.
        refused: how many of those were refused, so that nothing comes of them.
        error: what its client is told, or None.
    """

    sent: int = 0
    answered: int = 0
    refused: int = 0
    error: SqlError | None = None


class Victim(Protocol):
    """What a kill needs of a client session, be it the victim or the asker."""

    cs_id: int
    surroundings: Surroundings
    tracker: Tracker
    plan: LoginPlan | None
    bound: ServerSession | None
    pool: tuple[ServerSession, ...]
    repeatable: bool
    reason: CloseReason | None
    told: Told

    @property
    def statement_running(self) -> bool:
        """Whether a server works for it now."""

    def kill(self, why: str) -> ServerSession | None:
        """End it, and hand over the server session that still runs a statement."""

    def stop_waiting(self, error: SqlError) -> None:
        """End its exchange, whose command waits for a server session, with an error."""

    def lose(self, session: ServerSession, error: SqlError) -> None:
        """Make it go on without a server session."""

    def released(self) -> None:
        """Let its next command go."""

    def when_answered(self) -> Deferred[None]:
        """Fire when its exchange in flight is over."""

    def when_gone(self) -> Deferred[None]:
        """Fire when its connection has ended."""


async def kill_session(victim: Victim, asker: Victim | None, why: str) -> KillReport:
    """End a client session that is not the asker's own, and fire when nothing is left of it."""
    gone = victim.when_gone()
    running = victim.kill(why)
    detail = ""
    stopped = None
    if running is not None:
        detail = await _stop(running, KillScope.CONNECTION, victim, asker, _closing(running, why))
        detail = await _end(running, why, detail)
        stopped = not detail
    await gone
    return _report(victim, detail, stopped)


async def stop_abandoned(victim: Victim, session: ServerSession) -> None:
    """Stop a statement whose client has gone, and end its server session.

    Closing the connection is not enough: MariaDB and MySQL would run the statement to its end, and keep its locks.
    """
    why = "its client has gone"
    detail = await _stop(session, KillScope.CONNECTION, victim, None, _closing(session, why))
    if detail:
        _log.warn("server session {ss_id}: {why}, and {detail}", ss_id=session.ss_id, why=legible(why), detail=detail)
    await _end(session, why, detail)


async def kill_server_session(victim: Victim, session: ServerSession, asker: Victim | None, why: str) -> KillReport:
    """End a server session; its client session lives on, unless it is amid a response of it."""
    detail = ""
    stopped = None
    if session is victim.bound and victim.statement_running:
        # The client learns of it at once; the session is ours from here on.
        session.owner = None
        victim.lose(session, interrupted(why))
        detail = await _stop(session, KillScope.CONNECTION, victim, asker, _closing(session, why))
        detail = await _end(session, why, detail)
        stopped = not detail
    else:
        gone = session.when_gone()
        session.drop(CloseReason.KILLED, why)
        victim.lose(session, interrupted(why))
        await gone
    return _report(victim, detail, stopped)


async def kill_query(victim: Victim, asker: Victim | None, error: SqlError) -> KillReport:
    """Stop the statement that runs now, and no other one; `error` is for its client.

    Until the server has answered the kill, the victim's next statement is held back; if its statement had ended by
    itself, a statement of the proxy's own takes the interrupt that may still come. Where only the end of a connection
    stops a statement, the victim loses its server session, and goes on with another one.
    """
    session = victim.bound
    if not victim.statement_running:
        return KillReport(victim.cs_id, KillOutcome.IDLE)
    if session is None:
        victim.stop_waiting(error)
        return _report(victim, "", stopped=True)
    session.holds += 1
    if session.holds == 1:
        victim.told = Told()
    told = victim.told
    told.error = error
    ended = victim.when_answered()
    over = victim.when_answered()

    def close() -> bool:
        if ended.called:
            return False
        session.drop(CloseReason.KILLED, "its server stops a statement in no other way")
        victim.lose(session, error)
        return True

    try:
        detail = await _stop(session, KillScope.QUERY, victim, asker, close, told)
        if not detail:
            detail = await _over(over, session)
    finally:
        releasing = Deferred.fromCoroutine(_release(victim, session, ended, told))
        releasing.addErrback(lambda failure: _log.failure("a hold could not be ended well", failure))
    if ended.called:
        await releasing
    # Else the statement runs on, and the report does not wait for it.
    return _report(victim, detail, stopped=not detail)


async def _release(victim: Victim, session: ServerSession, ended: Deferred[None], told: Told) -> None:
    """Let the victim's next statement go as soon as no interrupt can come any more that was meant for the one before.

    That one may run on when its kill is given up, and a kill may be done long after; so the hold lasts until the
    statement has ended. Of several kills of a statement, the last one to end takes care.
    """
    try:
        await ended
        if session.holds > 1 or victim.bound is not session or victim.reason is not None:
            return
        if told.answered < told.sent:
            # The interrupt may come at any time, so this connection must not carry another statement.
            detail = "a kill of the statement before was not answered"
            session.drop(CloseReason.KILLED, detail)
            victim.lose(session, interrupted(detail))
        elif told.answered - told.refused > (victim.tracker.error == INTERRUPTED):
            try:
                await session.query("SELECT 1")
            except OdpError as fault:
                _log.warn("server session {ss_id}: lost over a probe: {fault}", ss_id=session.ss_id, fault=fault)
    finally:
        session.holds -= 1
        victim.released()


async def _over(over: Deferred[None], session: ServerSession) -> str:
    """Wait until the killed statement has ended, and say so if it has not."""
    limit = session.surroundings.limits.kill_timeout
    try:
        await over.addTimeout(limit, session.surroundings.reactor)
    except TimeoutError:
        return f"the server accepted the kill, but the statement has not ended within {limit:g} s"
    return ""


def _closing(session: ServerSession, why: str) -> Callable[[], bool]:
    """Return what closes the connection of a server session that shall end anyway."""

    def close() -> bool:
        session.drop(CloseReason.KILLED, why)
        return True

    return close


async def _stop(
    session: ServerSession,
    scope: KillScope,
    victim: Victim,
    asker: Victim | None,
    close: Callable[[], bool],
    told: Told | None = None,
) -> str:
    """Tell the server of a session to stop its statement.

    Args:
        session: runs the statement.
        scope: what the server is told to end.
        victim: whose statement it is.
        asker: who wants it, or None.
        close: closes the session's connection, if its server stops a statement in no other way; returns False if there
            is no need any more.
        told: counts what the server is told.

    Returns:
        Empty if the server confirmed, else a sentence that says why not.
    """
    if session.owner is None and session.transport is not None:
        # Its client may have paused it. A server that waits to send does not notice a kill (seekdb), and a transport
        # that does not read notices no end; what still comes is thrown away.
        session.transport.resumeProducing()
    surroundings = session.surroundings
    statement = surroundings.kill_statement(session.address, session.server_sessid, scope)
    limit = surroundings.limits.kill_timeout
    telling = Deferred.fromCoroutine(_tell(session, statement, victim, asker, close, told or Told()))
    try:
        return await telling.addTimeout(limit, surroundings.reactor)
    except TimeoutError:
        return f"the server did not answer the kill within {limit:g} s"


async def _tell(
    session: ServerSession,
    statement: str,
    victim: Victim,
    asker: Victim | None,
    close: Callable[[], bool],
    told: Told,
) -> str:
    """Send a kill by the first connection that may, and say why none did.

    That is the asker's own, then one logged in as the asker, as the victim's account, and as the account of the
    settings (design/kill.md, rule 3).
    """
    detail = "no connection could be had to tell the server to stop the statement"
    refused: set[Identity] = set()
    helper = _own_session(asker, session) if asker is not None else None
    if helper is not None:
        try:
            detail = await _send(helper, statement, session, close, told)
            if asker is not None and asker.plan is not None:
                refused.add(asker.plan.identity)
        except OdpError as fault:
            detail = f"the server did not confirm that the statement stopped: {fault}"
    plans = [each.plan for each in (asker, victim) if each is not None and each.plan is not None and each.repeatable]
    if session.surroundings.kill_account is not None and victim.plan is not None:
        plans.append(account_plan(session.surroundings.kill_account, victim.plan.identity))
    for plan in plans:
        if not detail:
            break
        if plan.identity in refused:
            continue
        refused.add(plan.identity)
        try:
            side = await open_side_session(session.surroundings, plan, session.address)
            try:
                detail = await _send(side, statement, session, close, told)
            finally:
                side.quit()
        except OdpError as fault:
            detail = f"the server did not confirm that the statement stopped: {fault}"
    return detail


def _own_session(asker: Victim, session: ServerSession) -> ServerSession | None:
    """Return an idle server session of the asker's on the server of another session."""
    own = (*asker.pool, asker.bound) if not asker.statement_running else asker.pool
    for helper in own:
        if (
            helper is not None
            and helper is not session
            and not helper.in_dialogue
            and helper.address == session.address
        ):
            return helper
    return None


async def _send(
    helper: ServerSession, statement: str, session: ServerSession, close: Callable[[], bool], told: Told
) -> str:
    """Send a kill, and say why it is not confirmed, or nothing; raises as `ServerSession.query`."""
    patience = 2 * session.surroundings.limits.kill_timeout  # `_stop` ends it all sooner, and tries nothing more then
    told.sent += 1
    error = (await helper.query(statement, patience)).error
    told.answered += 1
    if error is None:
        return ""
    told.refused += 1
    if error.code == _READ_ONLY_TENANT:
        return await _close_on_standby(helper, session, close)
    return "" if error.code == _UNKNOWN_THREAD else f"the server refused to stop the statement: {error.message}"


async def _close_on_standby(helper: ServerSession, session: ServerSession, close: Callable[[], bool]) -> str:
    """Close a server session whose server kills nothing, and see it gone there; say why that is not sure, or nothing.

    `_stop` ends it if that takes too long.
    """
    listed = await _lists(helper, session)
    if not close():
        return ""
    if not listed:
        return "the server kills nothing, and does not list the session; its connection was closed"
    # Another kill may ask by the same helper meanwhile.
    while helper.in_dialogue or await _lists(helper, session):
        await deferLater(session.surroundings.reactor, _LOOK_AGAIN)
    return ""


async def _lists(helper: ServerSession, session: ServerSession) -> bool:
    """Return whether the server of both lists a session as alive; raises as `ServerSession.query`."""
    number = b"%d" % session.server_sessid
    return any(row[0] == number for row in (await helper.query("SHOW PROCESSLIST")).rows)


async def _end(session: ServerSession, why: str, detail: str) -> str:
    """End a server session whose server was told to stop; give the server time to end it itself.

    Returns:
        `detail` if that is not empty, for then nothing was promised; else why the end is not confirmed, or empty.
    """
    gone = session.when_gone()
    limit = session.surroundings.limits.kill_timeout
    session.killed = why
    if not detail:
        try:
            await session.when_gone().addTimeout(limit, session.surroundings.reactor)
        except TimeoutError:
            detail = f"the server accepted the kill, but has not ended the session within {limit:g} s"
    session.drop(CloseReason.KILLED, why)
    await gone
    return detail


def _report(victim: Victim, detail: str, stopped: bool | None) -> KillReport:
    return KillReport(victim.cs_id, KillOutcome.UNCONFIRMED if detail else KillOutcome.ENDED, detail, stopped)
