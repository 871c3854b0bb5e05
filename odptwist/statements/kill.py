"""KILL: the statements that end a session, a running statement or a server session.

Source: spec sections 1.2, 1.3 and 6; where they differ, `KILL '7'` and `KILL CONNECTION_ID()` are understood here.
"""

from __future__ import annotations

from typing import cast

from attrs import frozen
from twisted.internet.defer import Deferred
from zope.interface import implementer

from odptwist.answers import Answer, Done
from odptwist.errors import SqlError, bad_proxy_statement, interrupted
from odptwist.interfaces import IProxyStatement, ISessionDirectory
from odptwist.snapshots import Asker, KillOutcome, KillScope, KillTarget
from odptwist.statements.grammar import TokenStream


@frozen
class KillRequest:
    """What a KILL ends, and whether all of it."""

    target: KillTarget
    scope: KillScope


@implementer(IProxyStatement)
class Kill:
    """`KILL PROXYSESSION id [ss_id]`, `KILL [CONNECTION] id` and `KILL QUERY id`.

    An id is an integer, a quoted integer or `CONNECTION_ID()`. Every other text that begins with KILL is refused: none
    may reach a server, where the id can be a stranger's.
    """

    name = "kill"
    first_words = ("KILL",)

    def parse(self, text: str) -> object | None:
        """Return a `KillRequest`, or None if the text does not begin with KILL."""
        stream = TokenStream(text)
        proxysession = stream.take_head("KILL", "PROXYSESSION")
        if not proxysession and not stream.take_word("KILL"):
            return None
        scope, ss_id = KillScope.CONNECTION, None
        if not proxysession and not stream.take_word("CONNECTION") and stream.take_word("QUERY"):
            scope = KillScope.QUERY
        itself = stream.take_call("CONNECTION_ID")
        number = None if itself else _take_id(stream)
        if proxysession:
            ss_id = _take_id(stream)
        if (number is None and not itself) or not stream.at_end():
            raise bad_proxy_statement() if proxysession else _not_understood()
        return KillRequest(KillTarget(number, ss_id), scope)

    def answer(self, request: object, asker: Asker, directory: ISessionDirectory) -> Deferred[Answer]:
        """Fire with OK when the target is gone; fail with 1094, 1095, or 1317 if the asker ended itself."""
        return Deferred.fromCoroutine(self._kill(cast(KillRequest, request), asker, directory))

    async def _kill(self, request: KillRequest, asker: Asker, directory: ISessionDirectory) -> Answer:
        report = await directory.kill(request.target, request.scope, asker)
        if report.outcome is KillOutcome.ITSELF:
            raise interrupted()
        if report.outcome is KillOutcome.UNCONFIRMED:
            return Done(warnings=1, message=report.detail)
        return Done()


def _take_id(stream: TokenStream) -> int | None:
    number = stream.take_integer()
    return stream.take_quoted_integer() if number is None else number


def _not_understood() -> SqlError:
    return bad_proxy_statement(
        "the proxy understands KILL [CONNECTION | QUERY] id and KILL PROXYSESSION id [ss_id], "
        "where id is an integer, a quoted integer or CONNECTION_ID()"
    )
