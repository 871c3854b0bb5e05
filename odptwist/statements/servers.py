"""SHOW PROXYCLUSTER and SHOW PROXYCONGESTION: the clusters' servers, and which of them are in trouble.

Source: spec sections 1.1, 2.1 and 10. Columns that ODP has have ODP's names and types; `reason` and all of
PROXYCLUSTER's but the first are ours, because ODP's zones and root servers do not exist here.
"""

from __future__ import annotations

from collections.abc import Iterator
from time import localtime, strftime
from typing import cast

from attrs import frozen
from twisted.internet.defer import Deferred
from zope.interface import implementer

from odptwist.answers import Answer, Column, ColumnType, Table, Value
from odptwist.errors import SqlError, bad_proxy_statement
from odptwist.interfaces import IClusters, IProxyStatement, ISessionDirectory, ITabular
from odptwist.snapshots import Asker, ServerStanding, Verb
from odptwist.statements.grammar import TokenStream
from odptwist.statements.like import like

_CONGESTION = (
    Column("cluster_name", ColumnType.VARCHAR),
    Column("zone_name", ColumnType.VARCHAR),
    Column("server_ip", ColumnType.VARCHAR),
    Column("server_state", ColumnType.VARCHAR),
    Column("role", ColumnType.VARCHAR),
    Column("alive_congested", ColumnType.LONGLONG),
    Column("last_alive_congested", ColumnType.VARCHAR),
    Column("stat_conn_failures", ColumnType.LONGLONG),
    Column("conn_last_fail_time", ColumnType.VARCHAR),
    Column("reason", ColumnType.VARCHAR),
)
_CLUSTER = (
    Column("cluster_name", ColumnType.VARCHAR),
    Column("is_default", ColumnType.LONGLONG),
    Column("read_policy", ColumnType.VARCHAR),
    Column("server", ColumnType.VARCHAR),
    Column("role", ColumnType.VARCHAR),
    Column("weight", ColumnType.LONGLONG),
    Column("state", ColumnType.VARCHAR),
    Column("lag", ColumnType.VARCHAR),
    Column("version", ColumnType.VARCHAR),
)


@frozen
class CongestionList:
    """A request for the servers in trouble, or for `all`; of one cluster, or of all if `cluster` is empty."""

    all: bool
    cluster: str


@frozen
class ClusterList:
    """A request for the servers of the clusters whose names fit the pattern; empty for all."""

    pattern: str


@implementer(IProxyStatement, ITabular)
class ShowCongestion:
    """`SHOW PROXYCONGESTION [ALL] ['cluster']`."""

    name = "show congestion"
    first_words = ("SHOW",)

    def __init__(self, clusters: IClusters) -> None:
        self._clusters = clusters

    def parse(self, text: str) -> object | None:
        """Return a `CongestionList`, or None if the text does not begin with SHOW PROXYCONGESTION."""
        stream = TokenStream(text)
        if not stream.take_head("SHOW", "PROXYCONGESTION"):
            return None
        request = CongestionList(stream.take_word("ALL"), stream.take_name() or "")
        if not stream.at_end():
            raise bad_proxy_statement()
        return request

    def columns(self, request: object) -> tuple[Column, ...]:
        """Return the columns, which are always the same."""
        return _CONGESTION

    def answer(self, request: object, asker: Asker, directory: ISessionDirectory) -> Deferred[Answer]:
        """Fire with a row for each server that has failed since it was last found, or is down; fail with 1227."""
        return Deferred.fromCoroutine(self._list(cast(CongestionList, request), asker, directory))

    async def _list(self, request: CongestionList, asker: Asker, directory: ISessionDirectory) -> Answer:
        await check_may_see_proxy(asker, directory)
        return Table(
            _CONGESTION,
            tuple(
                _list_congestion(standing)
                for standing in _standings(self._clusters)
                if request.cluster in ("", standing.cluster) and (request.all or standing.failures)
            ),
        )


@implementer(IProxyStatement, ITabular)
class ShowClusters:
    """`SHOW PROXYCLUSTER [LIKE 'pattern']`."""

    name = "show clusters"
    first_words = ("SHOW",)

    def __init__(self, clusters: IClusters) -> None:
        self._clusters = clusters

    def parse(self, text: str) -> object | None:
        """Return a `ClusterList`, or None if the text does not begin with SHOW PROXYCLUSTER."""
        stream = TokenStream(text)
        if not stream.take_head("SHOW", "PROXYCLUSTER"):
            return None
        pattern = stream.take_name() if stream.take_word("LIKE") else ""
        if pattern is None or not stream.at_end():
            raise bad_proxy_statement()
        return ClusterList(pattern)

    def columns(self, request: object) -> tuple[Column, ...]:
        """Return the columns, which are always the same."""
        return _CLUSTER

    def answer(self, request: object, asker: Asker, directory: ISessionDirectory) -> Deferred[Answer]:
        """Fire with a row for each server; fail with 1227."""
        return Deferred.fromCoroutine(self._list(cast(ClusterList, request), asker, directory))

    async def _list(self, request: ClusterList, asker: Asker, directory: ISessionDirectory) -> Answer:
        await check_may_see_proxy(asker, directory)
        return Table(
            _CLUSTER,
            tuple(
                self._list_server(standing)
                for standing in _standings(self._clusters)
                if like(standing.cluster, request.pattern)
            ),
        )

    def _list_server(self, standing: ServerStanding) -> tuple[Value, ...]:
        return (
            standing.cluster,
            int(standing.cluster == self._clusters.default_name),
            self._clusters.read_policy(standing.cluster).value,
            str(standing.address),
            standing.role.value,
            standing.weight,
            "up" if standing.up else "down",
            "" if standing.lag is None else f"{standing.lag:.10g}",
            standing.version,
        )


async def check_may_see_proxy(asker: Asker, directory: ISessionDirectory) -> None:
    """Raise `SqlError` 1227 unless the asker may see what is no session's."""
    if not await directory.may(asker, Verb.SEE_PROXY):
        raise SqlError(
            1227, "42000", "Access denied; you need (at least one of) the PROCESS privilege(s) for this operation"
        )


def _standings(clusters: IClusters) -> Iterator[ServerStanding]:
    """Yield the servers of the default cluster, then those of the others by name."""
    for name in sorted(clusters.names, key=lambda name: (name != clusters.default_name, name)):
        yield from clusters.standings(name)


def _list_congestion(standing: ServerStanding) -> tuple[Value, ...]:
    failed_at = _time(standing.failed_at)
    return (
        standing.cluster,
        "",
        str(standing.address),
        "ACTIVE" if standing.up else "INACTIVE",
        standing.role.value,
        int(not standing.up),
        "0" if standing.up else failed_at,
        standing.failures,
        failed_at,
        standing.why,
    )


def _time(seconds: float) -> str:
    """Return a time as ODP prints it, in the proxy's time zone; 0 for never."""
    return strftime("%Y-%m-%d %H:%M:%S", localtime(seconds)) if seconds else "0"
