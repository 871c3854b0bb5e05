"""SHOW PROXYSESSION READ_STALE: which replicas a session has found to lag.

Source: spec sections 1.2 and 2.4. ODP remembers that for each partition, as OceanBase's own protocol tells it. That is
not spoken here, and no such map is kept: the answer has the four columns, and no row.
"""

from __future__ import annotations

from attrs import frozen
from twisted.internet.defer import Deferred, succeed
from zope.interface import implementer

from odptwist.answers import Answer, Column, ColumnType, Table
from odptwist.errors import bad_proxy_statement
from odptwist.interfaces import IProxyStatement, ISessionDirectory
from odptwist.snapshots import Asker
from odptwist.statements.grammar import TokenStream

_COLUMNS = (
    Column("server_addr", ColumnType.VARCHAR),
    Column("table_id", ColumnType.LONGLONG),
    Column("partition_id", ColumnType.LONGLONG),
    Column("feedback_time", ColumnType.VARCHAR),
)


@frozen
class ReadStaleList:
    """A request for the list; its pattern is read and not used, as in ODP."""


@implementer(IProxyStatement)
class ShowReadStale:
    """`SHOW PROXYSESSION READ_STALE [LIKE 'pattern']`."""

    name = "show read stale"
    first_words = ("SHOW",)

    def parse(self, text: str) -> object | None:
        """Return a `ReadStaleList`, or None if the text does not begin with these three words."""
        stream = TokenStream(text)
        if not stream.take_head("SHOW", "PROXYSESSION") or not stream.take_word("READ_STALE"):
            return None
        if (stream.take_word("LIKE") and stream.take_name() is None) or not stream.at_end():
            raise bad_proxy_statement()
        return ReadStaleList()

    def answer(self, request: object, asker: Asker, directory: ISessionDirectory) -> Deferred[Answer]:
        """Fire with no rows."""
        return succeed(Table(_COLUMNS, ()))
