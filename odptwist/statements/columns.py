"""The columns of client sessions: one table for SHOW [FULL] PROXYSESSION, its WHERE, SELECT and KILL ... WHERE.

Source: spec section 2.2.1 for the first twelve, which are ODP's; the others are ours.
"""

from __future__ import annotations

from collections.abc import Callable

from attrs import frozen

from odptwist.answers import Column, ColumnType, Value
from odptwist.snapshots import ClientSessionSnapshot

SqlValue = int | float | str | None
_Look = Callable[[ClientSessionSnapshot], SqlValue]


@frozen
class SessionColumn:
    """One column.

    `affinity` and `look` are what SQLite sees of it: its type there, and its value in a session. `show` is its value in
    a list.
    """

    column: Column
    affinity: str
    look: _Look
    show: Callable[[ClientSessionSnapshot], Value]

    @property
    def name(self) -> str:
        """Return what a list and a condition call it; a condition in any case."""
        return self.column.name


def name_owner(session: ClientSessionSnapshot) -> tuple[str, str, str]:
    """Return a session's cluster, tenant and user, as empty strings until they are known."""
    owner = session.identity
    return ("", "", "") if owner is None else (owner.cluster, owner.tenant, owner.user)


def name_host(session: ClientSessionSnapshot) -> str:
    """Return where a session's client is, as the column Host shows it."""
    return f"{session.host}:{session.port}" if session.host else "localhost"


def name_database(session: ClientSessionSnapshot) -> str:
    """Return a session's database as ODP shows it, which sends no SQL NULLs."""
    return "NULL" if session.database is None else session.database


def _number(
    name: str, look: Callable[[ClientSessionSnapshot], int | None], kind: ColumnType = ColumnType.LONGLONG
) -> SessionColumn:
    return SessionColumn(Column(name, kind), "INTEGER", look, look)


def _text(name: str, look: Callable[[ClientSessionSnapshot], str | None]) -> SessionColumn:
    return SessionColumn(Column(name, ColumnType.VARCHAR), "TEXT", look, look)


def _seconds(name: str, look: Callable[[ClientSessionSnapshot], float]) -> SessionColumn:
    return SessionColumn(Column(name, ColumnType.DOUBLE), "REAL", look, lambda session: f"{look(session):.3f}")


SESSION_COLUMNS = (
    SessionColumn(
        Column("proxy_sessid", ColumnType.LONGLONG, unsigned=True),
        # An unsigned 64-bit number: SQLite would make a REAL of it, to which its neighbours are equal.
        "TEXT",
        lambda session: str(session.proxy_sessid),
        lambda session: session.proxy_sessid,
    ),
    _number("Id", lambda session: session.cs_id),
    _text("Cluster", lambda session: session.identity.cluster if session.identity is not None else ""),
    _text("Tenant", lambda session: session.identity.tenant if session.identity is not None else ""),
    _text("User", lambda session: session.identity.user if session.identity is not None else ""),
    _text("Host", name_host),
    SessionColumn(Column("db", ColumnType.VARCHAR), "TEXT", lambda session: session.database, name_database),
    _number("trans_count", lambda session: session.transactions),
    _number("svr_session_count", lambda session: len(session.server_sessions)),
    _text("state", lambda session: session.state),
    _number("tid", lambda session: session.tid),
    _number("pid", lambda session: session.pid, ColumnType.LONG),
    _number("using_ssl", lambda session: int(session.using_ssl), ColumnType.LONG),
    _number("worker", lambda session: session.worker, ColumnType.LONG),
    _text("command", lambda session: session.command),
    _text("activity", lambda session: session.activity),
    _seconds("seconds", lambda session: session.seconds),
    _seconds("idle_seconds", lambda session: 0.0 if session.busy else session.seconds),
    _seconds("statement_seconds", lambda session: session.seconds if session.busy else 0.0),
    _seconds("transaction_seconds", lambda session: session.transaction_seconds),
    _text("server", lambda session: None if session.bound is None else str(session.bound.address)),
    _number("server_sessid", lambda session: None if session.bound is None else session.bound.server_sessid),
    _number("ss_id", lambda session: None if session.bound is None else session.bound.ss_id),
    _number("bytes_in", lambda session: session.bytes_in),
    _number("bytes_out", lambda session: session.bytes_out),
    _number("statements", lambda session: session.statements),
    _text("pinned", lambda session: ", ".join(session.pins) or None),
    _text("further_logins", lambda session: session.bar or None),
    _text("program", lambda session: session.program),
    _text("client", lambda session: session.client),
    _text("client_version", lambda session: session.client_version),
    _text("cipher", lambda session: session.cipher),
    _text("compression", lambda session: session.compression),
    _text("statement", lambda session: session.statement),
)
"""All columns, in the order of SHOW FULL PROXYSESSION."""

LIST_COLUMNS = SESSION_COLUMNS[:12]
"""Those of SHOW PROXYSESSION: the 12 of the ODP manual, without the `using_ssl` that came later."""
