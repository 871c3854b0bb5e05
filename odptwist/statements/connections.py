"""SHOW PROXYNET CONNECTION: the connections of clients to the proxy, and of the proxy to servers.

Source: spec section 2.4. The columns are ODP's.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

from attrs import frozen
from twisted.internet.defer import Deferred
from zope.interface import implementer

from odptwist.answers import Answer, Column, ColumnType, Table, Value
from odptwist.errors import bad_proxy_statement
from odptwist.interfaces import IProxyStatement, ISessionDirectory, ITabular
from odptwist.snapshots import Asker, ConnectionSnapshot, SessionKind
from odptwist.statements.grammar import TokenStream
from odptwist.statements.servers import check_may_see_proxy

_TINY, _LONG, _LONGLONG, _VARCHAR = ColumnType.TINY, ColumnType.LONG, ColumnType.LONGLONG, ColumnType.VARCHAR
CONNECTION_COLUMNS = tuple(
    Column(name, kind)
    for name, kind in (
        ("thread_id", _LONGLONG),
        ("connect_id", _LONG),
        ("socket_fd", _LONG),
        ("type", _VARCHAR),
        ("src_ip", _VARCHAR),
        ("src_port", _LONG),
        ("dst_ip", _VARCHAR),
        ("dst_port", _LONG),
        ("virtual_ip", _VARCHAR),
        ("virtual_port", _LONG),
        ("virtual_vid", _LONGLONG),
        ("bind_style", _VARCHAR),
        ("read_enabled", _TINY),
        ("read_nbytes", _LONGLONG),
        ("read_ndone", _LONGLONG),
        ("write_enabled", _TINY),
        ("write_nbyte", _LONGLONG),
        ("write_ndone", _LONGLONG),
        ("alive_time(sec)", _LONGLONG),
        ("activity_timeout_in(sec)", _LONGLONG),
        ("inactivity_timeout_in(sec)", _LONGLONG),
        ("timeout_close_in(sec)", _LONGLONG),
        ("last_error_no", _LONG),
        ("shutdown", _LONGLONG),
        ("comments", _VARCHAR),
    )
)
_UNDERSTOOD = (
    "the proxy understands SHOW PROXYNET CONNECTION [thread_id [LIMIT [offset,] count | LIMIT count OFFSET offset]]"
)


@frozen
class ConnectionList:
    """A request for the connections of a thread, None for all: `count` of them (None: all) after the first `offset`."""

    thread: int | None = None
    offset: int = 0
    count: int | None = None


@implementer(IProxyStatement, ITabular)
class ShowConnections:
    """`SHOW PROXYNET CONNECTION [thread_id [LIMIT a[, b] | LIMIT n OFFSET m]]`."""

    name = "show connections"
    first_words = ("SHOW",)

    def parse(self, text: str) -> object | None:
        """Return a `ConnectionList`, or None if the text does not begin with SHOW PROXYNET.

        Raises:
            SqlError: 5010 if it goes on otherwise, or not at all.
        """
        stream = TokenStream(text)
        if not stream.take_head("SHOW", "PROXYNET"):
            return None
        if not stream.take_word("CONNECTION"):
            raise bad_proxy_statement(_UNDERSTOOD)
        thread = stream.take_integer()
        request = _take_limit(stream, thread) if thread is not None else ConnectionList()
        if not stream.at_end():
            raise bad_proxy_statement(_UNDERSTOOD)
        return request

    def columns(self, request: object) -> Sequence[Column]:
        """Return the 25 columns."""
        return CONNECTION_COLUMNS

    def answer(self, request: object, asker: Asker, directory: ISessionDirectory) -> Deferred[Answer]:
        """Fire with a row for each connection of the sessions that the asker may see; fail with 1227."""
        return Deferred.fromCoroutine(self._list(cast(ConnectionList, request), asker, directory))

    async def _list(self, request: ConnectionList, asker: Asker, directory: ISessionDirectory) -> Answer:
        await check_may_see_proxy(asker, directory)
        found = [each for each in await directory.connections(asker) if request.thread in (None, each.tid)]
        end = None if request.count is None else request.offset + request.count
        return Table(CONNECTION_COLUMNS, tuple(_list_connection(each) for each in found[request.offset : end]))


def _take_limit(stream: TokenStream, thread: int) -> ConnectionList:
    if not stream.take_word("LIMIT"):
        return ConnectionList(thread)
    offset, count = 0, stream.take_count()
    if stream.take_comma():
        offset, count = count or 0, stream.take_count()
    elif stream.take_word("OFFSET"):
        number = stream.take_count()
        offset = -1 if number is None else number
    if count is None or count < 0 or offset < 0:
        raise bad_proxy_statement(_UNDERSTOOD)
    return ConnectionList(thread, offset, count)


def _list_connection(connection: ConnectionSnapshot) -> tuple[Value, ...]:
    source, destination = connection.source, connection.destination
    client = f"client session {connection.cs_id}"
    return (
        connection.tid,
        connection.number,
        connection.fd,
        connection.kind.value,
        source.path or source.host,
        source.port,
        destination.path or destination.host,
        destination.port,
        "",
        0,
        0,
        "",
        int(connection.reading),
        connection.received,
        connection.received,
        int(connection.waiting > 0),
        connection.sent,
        max(0, connection.sent - connection.waiting),
        int(connection.seconds),
        0,
        0,
        0,
        0,
        int(connection.ending),
        (f"of {client}" if connection.kind is SessionKind.SERVER else client)
        + ("" if connection.identity is None else f": {connection.identity}"),
    )
