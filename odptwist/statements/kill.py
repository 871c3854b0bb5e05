"""KILL: the statements that end a session, a running statement, a server session, or all sessions of a kind.

Source: spec sections 1.2, 1.3 and 6; where they differ, `KILL '7'` and `KILL CONNECTION_ID()` are understood here. The
clauses and the WHERE of KILL PROXYSESSION are ours.
"""

from __future__ import annotations

from contextlib import closing

from attrs import frozen
from twisted.internet.defer import Deferred
from zope.interface import implementer

from odptwist.answers import Answer, Column, Done, Table
from odptwist.errors import SqlError, bad_proxy_statement, interrupted
from odptwist.interfaces import IProxyStatement, ISessionDirectory, ITabular
from odptwist.snapshots import Asker, KillOutcome, KillScope, KillTarget
from odptwist.statements.clauses import CLAUSE_WORDS, Clauses, not_understood, take_clauses
from odptwist.statements.grammar import TokenStream
from odptwist.statements.kill_where import KILL_COLUMNS, KillWhere, kill_where, list_hit
from odptwist.statements.sessions import find_own_session
from odptwist.statements.where import Condition

_NO_CLAUSES = Clauses()


@frozen
class KillRequest:
    """What a KILL ends, whether all of it, and how."""

    target: KillTarget
    scope: KillScope
    clauses: Clauses = _NO_CLAUSES


@implementer(IProxyStatement, ITabular)
class Kill:
    """`KILL PROXYSESSION`, `KILL [CONNECTION] id` and `KILL QUERY id`.

    The first is one of

    - `KILL PROXYSESSION id [ss_id] [REASON 'text']`
    - `KILL PROXYSESSION id [DRY RUN] [AFTER TRANSACTION [n SECONDS]] [REASON 'text']`
    - `KILL PROXYSESSION WHERE condition [DRY RUN] [LIMIT n] [AFTER TRANSACTION [n SECONDS]] [REASON 'text']`

    with the clauses in any order. An id is an integer, a quoted integer or `CONNECTION_ID()`; a condition is a text for
    `Condition`. Every other text that begins with KILL is refused: none may reach a server, where the id can be a
    stranger's.
    """

    name = "kill"
    first_words = ("KILL",)

    def parse(self, text: str) -> object | None:
        """Return a `KillRequest` or a `KillWhere`, or None if the text does not begin with KILL.

        Raises:
            SqlError: 5010 if it is none of the forms, 1064 if its condition is none.
        """
        stream = TokenStream(text)
        if stream.take_head("KILL", "PROXYSESSION"):
            return _parse_where(stream) if stream.take_word("WHERE") else _parse_proxysession(stream)
        if not stream.take_word("KILL"):
            return None
        scope = KillScope.CONNECTION
        if not stream.take_word("CONNECTION") and stream.take_word("QUERY"):
            scope = KillScope.QUERY
        itself, number = _take_target(stream)
        if (number is None and not itself) or not stream.at_end():
            raise _kill_not_understood()
        return KillRequest(KillTarget(number), scope)

    def columns(self, request: object) -> tuple[Column, ...]:
        """Return those of a WHERE or DRY RUN; else there are none."""
        is_list = isinstance(request, KillWhere) or (isinstance(request, KillRequest) and request.clauses.dry_run)
        return KILL_COLUMNS if is_list else ()

    def answer(self, request: object, asker: Asker, directory: ISessionDirectory) -> Deferred[Answer]:
        """Fire when the targets are gone, or marked to go.

        With a WHERE or DRY RUN that is a table of the sessions; otherwise OK, or a failure with 1094, 1095, or 1317 if
        the asker ended itself.
        """
        if isinstance(request, KillRequest):
            return Deferred.fromCoroutine(_kill(request, asker, directory))
        if isinstance(request, KillWhere):
            return Deferred.fromCoroutine(kill_where(request, asker, directory))
        raise TypeError(f"not a request of this statement: {request!r}")


def _parse_where(stream: TokenStream) -> KillWhere:
    where = stream.take_expression(CLAUSE_WORDS)
    clauses = take_clauses(stream)
    if not stream.at_end():
        raise not_understood()
    with closing(Condition(where)):  # made again for the answer, which may come much later or never
        return KillWhere(where, clauses)


def _parse_proxysession(stream: TokenStream) -> KillRequest:
    itself, number = _take_target(stream)
    ss_id = _take_id(stream)
    clauses = take_clauses(stream)
    if (number is None and not itself) or not stream.at_end():
        raise not_understood()
    if clauses.limit is not None:
        raise not_understood("LIMIT needs a WHERE")
    if ss_id is not None and (clauses.dry_run or clauses.after):
        raise not_understood("DRY RUN and AFTER TRANSACTION are for whole sessions")
    return KillRequest(KillTarget(number, ss_id), KillScope.CONNECTION, clauses)


def _take_target(stream: TokenStream) -> tuple[bool, int | None]:
    """Consume what names a session; return whether it is the asker's own, else the number, None if there is none."""
    itself = stream.take_call("CONNECTION_ID")
    return itself, None if itself else _take_id(stream)


def _take_id(stream: TokenStream) -> int | None:
    number = stream.take_integer()
    return stream.take_quoted_integer() if number is None else number


async def _kill(request: KillRequest, asker: Asker, directory: ISessionDirectory) -> Answer:
    target, clauses = request.target, request.clauses
    if clauses.dry_run:
        if target.id is None:
            session = await find_own_session(asker, directory)
        else:
            session = await directory.session(asker, target.id)
        return Table(KILL_COLUMNS, (list_hit(session),))
    report = await directory.kill(target, request.scope, asker, clauses.reason, after=clauses.after)
    if report.outcome is KillOutcome.ITSELF:
        raise interrupted()
    if report.outcome is KillOutcome.UNCONFIRMED:
        return Done(warnings=1, message=report.detail)
    if report.outcome is KillOutcome.MARKED:
        return Done(message="ends with its transaction")
    return Done()


def _kill_not_understood() -> SqlError:
    return bad_proxy_statement(
        "the proxy understands KILL [CONNECTION | QUERY] id, where id is an integer, a quoted integer or "
        "CONNECTION_ID(), and KILL PROXYSESSION with an id or a WHERE"
    )
