"""SHOW PROXYSESSION VARIABLES: the variables of one client session.

Source: spec sections 1.2, 2.4 and 3.3.
"""

from __future__ import annotations

from typing import cast

from attrs import frozen
from twisted.internet.defer import Deferred
from zope.interface import implementer

from odptwist.answers import Answer, Column, ColumnType, Table
from odptwist.interfaces import IProxyStatement, ISessionDirectory, ITabular
from odptwist.snapshots import Asker, SessionVariable, VariableKind
from odptwist.statements.grammar import TokenStream
from odptwist.statements.like import like
from odptwist.statements.sessions import take_number_and_pattern

VARIABLE_COLUMNS = tuple(
    Column(name, ColumnType.VARCHAR)
    for name in ("variable_name", "value", "info", "modified_type", "sys_variable_flag")
)
_LONGEST = 127
_TOO_LONG = "---value length is large then 128bytes---"  # so spelled by ODP


@frozen
class VariableList:
    """A request for the variables that a client has set, or for `all`; the others as in `SessionAttributes`."""

    all: bool
    number: int | None
    pattern: str = ""


@implementer(IProxyStatement, ITabular)
class ShowSessionVariables:
    """`SHOW PROXYSESSION VARIABLES [ALL] [id] [LIKE 'pattern']`; without an id, or with -1, the asker's own session."""

    name = "show session variables"
    first_words = ("SHOW",)

    def parse(self, text: str) -> object | None:
        """Return a `VariableList`, or None if the text does not begin with these three words."""
        stream = TokenStream(text)
        if not stream.take_head("SHOW", "PROXYSESSION") or not stream.take_word("VARIABLES"):
            return None
        return VariableList(stream.take_word("ALL"), *take_number_and_pattern(stream))

    def columns(self, request: object) -> tuple[Column, ...]:
        """Return the five columns."""
        return VARIABLE_COLUMNS

    def answer(self, request: object, asker: Asker, directory: ISessionDirectory) -> Deferred[Answer]:
        """Fire with a row for each variable, and one that says what is missing; fail with 1094."""
        return Deferred.fromCoroutine(self._show(cast(VariableList, request), asker, directory))

    async def _show(self, request: VariableList, asker: Asker, directory: ISessionDirectory) -> Answer:
        own = request.number is None
        number = asker.cs_id if request.number is None else request.number
        found = await directory.variables(asker, number, request.all, exact=own)
        rows = [_list(each, request.all) for each in found.variables if like(each.name, request.pattern)]
        if found.missing:
            rows.append(("", "", found.missing, "", ""))
        return Table(VARIABLE_COLUMNS, tuple(rows))


def _list(variable: SessionVariable, among_all: bool) -> tuple[str, str, str, str, str]:
    value = variable.value if len(variable.value.encode("utf-8", "replace")) <= _LONGEST else _TOO_LONG
    if variable.kind is VariableKind.USER:
        return (variable.name, value, "user var", VariableKind.COLD.value, "")
    info = "sys var" if among_all else "changed sys var"
    return (variable.name, value, info, variable.kind.value, " && session_scope" if variable.changed else "")
