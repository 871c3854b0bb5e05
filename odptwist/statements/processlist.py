"""SHOW PROCESSLIST: the proxy's own list, or the server's with the proxy's ids in it.

Source: spec sections 1.2 and 2.3.
"""

from __future__ import annotations

from typing import cast

from attrs import frozen
from twisted.internet.defer import Deferred
from zope.interface import implementer

from odptwist.answers import Answer, Column, ColumnType, Table, Value
from odptwist.errors import bad_proxy_statement
from odptwist.interfaces import IProxyStatement, ISessionDirectory, ITabular
from odptwist.snapshots import Asker
from odptwist.statements.columns import name_database, name_host, name_owner
from odptwist.statements.grammar import TokenStream
from odptwist.views import SessionView

_COLUMNS = (
    Column("Id", ColumnType.LONGLONG),
    Column("Tenant", ColumnType.VARCHAR),
    Column("User", ColumnType.VARCHAR),
    Column("Host", ColumnType.VARCHAR),
    Column("db", ColumnType.VARCHAR),
    Column("trans_count", ColumnType.LONGLONG),
    Column("svr_session_count", ColumnType.LONGLONG),
    Column("state", ColumnType.VARCHAR),
    Column("tid", ColumnType.LONGLONG),
    Column("pid", ColumnType.LONG),
)


@frozen
class ProxyProcesses:
    """A request for the proxy's own list; it has no arguments."""


@implementer(IProxyStatement, ITabular)
class ShowProxyProcesses:
    """`SHOW PROCESSLIST` where ids are of version 1: the proxy's sessions. `SHOW FULL PROCESSLIST` is the server's."""

    name = "show the proxy's processes"
    first_words = ("SHOW",)

    def parse(self, text: str) -> object | None:
        """Return a `ProxyProcesses`, or None if the text does not begin with SHOW PROCESSLIST."""
        stream = TokenStream(text)
        if not stream.take_head("SHOW", "PROCESSLIST"):
            return None
        if not stream.at_end():
            raise bad_proxy_statement()
        return ProxyProcesses()

    def columns(self, request: object) -> tuple[Column, ...]:
        """Return the 10 columns."""
        return _COLUMNS

    def answer(self, request: object, asker: Asker, directory: ISessionDirectory) -> Deferred[Answer]:
        """Fire with a row for each session that the asker may see, by rising Id."""
        return Deferred.fromCoroutine(self._list(asker, directory))

    async def _list(self, asker: Asker, directory: ISessionDirectory) -> Answer:
        rows: list[tuple[Value, ...]] = []

        def look(session: SessionView) -> None:
            _, tenant, user = name_owner(session)
            where = (name_host(session), name_database(session))
            rows.append(
                (
                    *(session.cs_id, tenant, user, *where, session.transactions, session.server_session_count),
                    *(session.state, session.tid, session.pid),
                )
            )

        await directory.visit(asker, look)
        return Table(_COLUMNS, tuple(rows))


@frozen
class ServerProcesses:
    """A request for the server's list; `full` for statements as a whole."""

    full: bool


@implementer(IProxyStatement)
class ShowServerProcesses:
    """`SHOW [FULL] PROCESSLIST` where ids are of version 2: the server's list, with the proxy's ids.

    The columns are the server's, so clients that prepare learn them with the answer.
    """

    name = "show the server's processes"
    first_words = ("SHOW",)

    def parse(self, text: str) -> object | None:
        """Return a `ServerProcesses`, or None; what else a text may ask of the list is for the server to refuse."""
        stream = TokenStream(text)
        if not stream.take_word("SHOW"):
            return None
        full = stream.take_word("FULL")
        return ServerProcesses(full) if stream.take_word("PROCESSLIST") and stream.at_end() else None

    def answer(self, request: object, asker: Asker, directory: ISessionDirectory) -> Deferred[Answer]:
        """Fire with the list, as the directory does."""
        return cast(Deferred[Answer], directory.processes(asker, cast(ServerProcesses, request).full))
