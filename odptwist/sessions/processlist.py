"""The server's own list of processes, with the ids and addresses of this proxy's clients in it.

Source: spec section 2.3; MySQL reference manual, "SHOW PROCESSLIST Statement".
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Protocol

from attrs import frozen

from odptwist.answers import Column, ColumnType, Table, Value
from odptwist.errors import SqlError
from odptwist.sessions.ids import SessionIds
from odptwist.sessions.peer import Peer
from odptwist.sessions.server import ServerSession
from odptwist.wire.constants import (
    FIELD_TYPE_DOUBLE,
    FIELD_TYPE_FLOAT,
    FIELD_TYPE_INT24,
    FIELD_TYPE_LONG,
    FIELD_TYPE_LONGLONG,
    FIELD_TYPE_SHORT,
    FIELD_TYPE_TINY,
    FLAG_UNSIGNED,
)
from odptwist.wire.primitives import decode_text
from odptwist.wire.resultset import ColumnDefinition, ResultReader

LIST_LIMIT = 16 * 1024 * 1024
"""Bytes of one list, the rest of which is left out (ODP's internal_cmd_mem_limited), and of one row of it."""

_INTEGERS = (FIELD_TYPE_TINY, FIELD_TYPE_SHORT, FIELD_TYPE_INT24, FIELD_TYPE_LONG, FIELD_TYPE_LONGLONG)
_NUMBERS = (FIELD_TYPE_FLOAT, FIELD_TYPE_DOUBLE)


class Listed(Protocol):
    """What is told of a client session."""

    cs_id: int
    peer: Peer


@frozen
class Owned:
    """Whose a server session is, and whether the asker may see that client session."""

    client: Listed
    visible: bool


async def ask_processes(session: ServerSession, full: bool) -> ResultReader:
    """Ask a server between two exchanges for the processes that it shows to the session's account.

    Raises:
        SqlError: the server refuses.
        ServerSessionLost: the session ended over the question.
    """
    reader = ResultReader(session.agreed, LIST_LIMIT, cuts=True)
    await session.read(f"SHOW {'FULL ' if full else ''}PROCESSLIST", reader, LIST_LIMIT)
    if reader.error is not None:
        raise SqlError(reader.error.code, reader.error.sqlstate, reader.error.message)
    return reader


def tell_processes(
    processes: ResultReader, ids: SessionIds, owners: Mapping[int, Owned], asking: int, statement: str
) -> Table:
    """Return a server's processes as clients of this proxy know them.

    Args:
        processes: as the server tells them.
        ids: of this proxy's client sessions.
        owners: of its server sessions at this server, by connection id.
        asking: the connection id of the server session that was asked.
        statement: what its client has asked in; the server knows it in the proxy's words, and clients look for theirs.
    """
    columns = tuple(map(_column, processes.columns))
    places = {column.name.lower(): place for place, column in enumerate(columns)}
    at_id, at_host, at_statement = places.get("id"), places.get("host"), places.get("info")
    rows = []
    for raw in processes.rows:
        row = list(_values(columns, raw))
        number = row[at_id] if at_id is not None else None
        if at_id is not None and isinstance(number, int):
            owned = owners.get(number)
            if owned is None:
                row[at_id] = 0 if ids.is_own(number) else number  # a stranger must not look like one of our clients
            elif not owned.visible:
                continue
            else:
                row[at_id] = owned.client.cs_id
                if at_host is not None:
                    row[at_host] = _host(owned.client.peer)
            if number == asking and at_statement is not None:
                row[at_statement] = statement
        rows.append(tuple(row))
    return Table(columns, tuple(rows))


def _host(peer: Peer) -> str:
    return f"{peer.host}:{peer.port}" if peer.host else "localhost"


def _column(definition: ColumnDefinition) -> Column:
    if definition.type in _INTEGERS:
        kind = ColumnType.LONGLONG if definition.type == FIELD_TYPE_LONGLONG else ColumnType.LONG
        return Column(definition.name, kind, bool(definition.flags & FLAG_UNSIGNED))
    return Column(definition.name, ColumnType.DOUBLE if definition.type in _NUMBERS else ColumnType.VARCHAR)


def _values(columns: tuple[Column, ...], row: tuple[bytes | None, ...]) -> Iterator[Value]:
    for column, value in zip(columns, row, strict=True):
        if value is None:
            yield None
        elif column.type in (ColumnType.LONG, ColumnType.LONGLONG):
            yield int(value)
        else:
            yield decode_text(value)
