"""All proxy statements, built-in and from plugins: finds the one that a text is, and guards its answer."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain
from types import NoneType
from typing import Any, cast

from twisted.internet.defer import CancelledError, Deferred, maybeDeferred
from twisted.logger import Logger
from zope.interface import implementer

from odptwist.answers import Answer, Column, Done, Table
from odptwist.errors import SqlError
from odptwist.interfaces import (
    FoundStatement,
    IMarkedStatement,
    IProxyStatement,
    ISessionDirectory,
    IStatements,
    ITabular,
)
from odptwist.snapshots import Asker
from odptwist.statements.grammar import find_first_word, is_multi_statement, refuse_hidden_kill
from odptwist.statements.pace import AT_ONCE, Pace

_ROWS_AT_ONCE = 500


@implementer(IStatements)
class StatementTable:
    """Asks statements in order, and lets no extension leave a client without an answer.

    Args:
        statements: the first one that claims a text wins.
        pace: how long answers leave the reactor's thread to others.
    """

    _log = Logger()

    def __init__(self, statements: Sequence[IProxyStatement], pace: Pace = AT_ONCE) -> None:
        self._pace = pace
        claims: dict[str, tuple[tuple[str, IProxyStatement], ...]] = {}
        for statement in statements:
            for word in dict.fromkeys(statement.first_words):
                claims[word] = (*claims.get(word, ()), (statement.name, statement))
        self._claims = claims
        # A marked one is found by its mark, so its first word costs nothing.
        self.first_words = frozenset(
            word
            for statement in statements
            if not IMarkedStatement.providedBy(statement)
            for word in statement.first_words
        )

    def find(self, text: str) -> FoundStatement | None:
        """Return the proxy statement that the text is, or None: it is for the server.

        Give it every text that begins with one of `first_words` (past white space and comments), and every text that
        contains KILL in any case, or begins with PREPARE or EXECUTE. Others may be given.

        Raises:
            SqlError: the client gets it, and no server the text.
        """
        refuse_hidden_kill(text)
        word, start = find_first_word(text)
        statements = self._claims.get(word)
        if statements is None or is_multi_statement(text):
            return None
        for name, statement in statements:
            try:
                request = statement.parse(text[start:])
            except SqlError:
                raise
            except Exception:  # noqa: BLE001 - an extension may raise anything, and must not stop the text
                self._log.failure("proxy statement {statement} cannot read a text: skipped", statement=name)
            else:
                if request is not None:
                    return FoundStatement(name, statement, request)
        return None

    def columns(self, found: FoundStatement) -> Sequence[Column]:
        """Return the columns of the answer, as far as the statement is `ITabular`."""
        statement: object = found.statement
        if not ITabular.providedBy(statement):
            return ()
        try:
            return tuple(cast(Any, statement).columns(found.request))
        except Exception:  # noqa: BLE001 - an extension may raise anything
            self._log.failure("proxy statement {statement} cannot tell its columns", statement=found.name)
            return ()

    def answer(self, found: FoundStatement, asker: Asker, directory: ISessionDirectory) -> Deferred[Answer]:
        """Fire with the answer, or fail with a `SqlError` and nothing else."""
        return Deferred.fromCoroutine(self._answer(found, asker, directory))

    async def _answer(self, found: FoundStatement, asker: Asker, directory: ISessionDirectory) -> Answer:
        try:
            answer: object = await maybeDeferred(found.statement.answer, found.request, asker, directory)
            return await self._check(answer)
        except SqlError:
            raise
        except CancelledError:
            self._log.debug(
                "proxy statement {statement} of {cs_id} was cancelled", statement=found.name, cs_id=asker.cs_id
            )
        except Exception:  # noqa: BLE001 - an extension may raise anything, and the client waits for an answer
            self._log.failure("proxy statement {statement} of {cs_id} failed", statement=found.name, cs_id=asker.cs_id)
        raise SqlError(1105, "HY000", "the proxy statement failed; the proxy's log says why")

    async def _check(self, answer: object) -> Answer:
        """Return an answer, or raise `TypeError` if it is none; the other sessions go on amid a long one."""
        if isinstance(answer, Done):
            return answer
        if not isinstance(answer, Table):
            raise TypeError(f"an answer must be a Done or a Table, not {type(answer)}")
        for start in range(0, len(answer.rows), _ROWS_AT_ONCE):
            if start:
                await self._pace.turn()
            part = answer.rows[start : start + _ROWS_AT_ONCE]
            kinds = set(map(type, chain.from_iterable(part)))
            if set(map(len, part)) != {len(answer.columns)}:
                raise TypeError("a row of a Table must have a value for each column")
            if not all(issubclass(kind, (int, str, NoneType)) for kind in kinds):
                raise TypeError(f"the values of a Table must be int, str and None, not {kinds}")
        return answer
