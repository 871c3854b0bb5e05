"""SHOW PROXYSTAT: the proxy's counters and gauges.

Source: spec section 10. The columns are ODP's, the names of the statistics are ours.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

from attrs import frozen
from twisted.internet.defer import Deferred
from zope.interface import implementer

from odptwist.answers import Answer, Column, ColumnType, Table
from odptwist.errors import bad_proxy_statement
from odptwist.interfaces import IProxyStatement, ISessionDirectory, IStatistics, ITabular
from odptwist.snapshots import Asker
from odptwist.statements.grammar import TokenStream
from odptwist.statements.like import like
from odptwist.statements.servers import check_may_see_proxy

_COLUMNS = (
    Column("stat_name", ColumnType.VARCHAR),
    Column("value", ColumnType.LONGLONG),
    Column("persist_type", ColumnType.VARCHAR),
)
_PERSIST_TYPE = "NON_PERSISTENT"


@frozen
class StatisticList:
    """A request for the statistics whose names fit the pattern; empty for all."""

    pattern: str


@implementer(IProxyStatement, ITabular)
class ShowStatistics:
    """`SHOW PROXYSTAT [REFRESH] [LIKE 'pattern']`; all values are fresh, with REFRESH or without."""

    name = "show statistics"
    first_words = ("SHOW",)

    def __init__(self, sources: Sequence[IStatistics]) -> None:
        self._sources = sources

    def parse(self, text: str) -> object | None:
        """Return a `StatisticList`, or None if the text does not begin with SHOW PROXYSTAT."""
        stream = TokenStream(text)
        if not stream.take_head("SHOW", "PROXYSTAT"):
            return None
        stream.take_word("REFRESH")
        pattern = stream.take_name() if stream.take_word("LIKE") else ""
        if pattern is None or not stream.at_end():
            raise bad_proxy_statement()
        return StatisticList(pattern)

    def columns(self, request: object) -> tuple[Column, ...]:
        """Return the three columns."""
        return _COLUMNS

    def answer(self, request: object, asker: Asker, directory: ISessionDirectory) -> Deferred[Answer]:
        """Fire with a row for each statistic; fail with 1227."""
        return Deferred.fromCoroutine(self._list(cast(StatisticList, request), asker, directory))

    async def _list(self, request: StatisticList, asker: Asker, directory: ISessionDirectory) -> Answer:
        await check_may_see_proxy(asker, directory)
        return Table(
            _COLUMNS,
            tuple(
                (each.name, each.value, _PERSIST_TYPE)
                for source in self._sources
                for each in source.statistics()
                if like(each.name, request.pattern)
            ),
        )
