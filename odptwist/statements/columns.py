"""The columns of client sessions: one table for SHOW [FULL] PROXYSESSION, its WHERE, SELECT and KILL ... WHERE.

Source: spec section 2.2.1 for the first twelve, which are ODP's; the others are ours.
"""

from __future__ import annotations

from collections.abc import Callable
from operator import attrgetter

from attrs import frozen

from odptwist.answers import Column, ColumnType, Value
from odptwist.views import SessionView

SqlValue = int | float | str | None
_Look = Callable[[SessionView], SqlValue]


@frozen
class SessionColumn:
    """One column.

    Most values are found by `attrgetter`: a lambda would take twice as long, for each of thousands of sessions.
    `affinity` and `look` are what SQLite sees of it: its type there, and its value in a session. `show` is its value in
    a list.
    """

    column: Column
    affinity: str
    look: _Look
    show: Callable[[SessionView], Value]

    @property
    def name(self) -> str:
        """Return what a list and a condition call it; a condition in any case."""
        return self.column.name


def name_owner(session: SessionView) -> tuple[str, str, str]:
    """Return a session's cluster, tenant and user, as empty strings until they are known."""
    owner = session.identity
    return ("", "", "") if owner is None else (owner.cluster, owner.tenant, owner.user)


def name_host(session: SessionView) -> str:
    """Return where a session's client is, as the column Host shows it."""
    return f"{session.host}:{session.port}" if session.host else "localhost"


def name_database(session: SessionView) -> str:
    """Return a session's database as ODP shows it, which sends no SQL NULLs."""
    return "NULL" if session.database is None else session.database


def _number(
    name: str, look: Callable[[SessionView], int | None], kind: ColumnType = ColumnType.LONGLONG
) -> SessionColumn:
    return SessionColumn(Column(name, kind), "INTEGER", look, look)


def _text(name: str, look: Callable[[SessionView], str | None]) -> SessionColumn:
    return SessionColumn(Column(name, ColumnType.VARCHAR), "TEXT", look, look)


def _seconds(name: str, look: Callable[[SessionView], float]) -> SessionColumn:
    return SessionColumn(Column(name, ColumnType.DOUBLE), "REAL", look, lambda session: f"{look(session):.3f}")


SESSION_COLUMNS = (
    SessionColumn(
        Column("proxy_sessid", ColumnType.LONGLONG, unsigned=True),
        # An unsigned 64-bit number: SQLite would make a REAL of it, to which its neighbours are equal.
        "TEXT",
        lambda session: str(session.proxy_sessid),
        attrgetter("proxy_sessid"),
    ),
    _number("Id", attrgetter("cs_id")),
    _text("Cluster", lambda session: owner.cluster if (owner := session.identity) else ""),
    _text("Tenant", lambda session: owner.tenant if (owner := session.identity) else ""),
    _text("User", lambda session: owner.user if (owner := session.identity) else ""),
    _text("Host", name_host),
    SessionColumn(Column("db", ColumnType.VARCHAR), "TEXT", attrgetter("database"), name_database),
    _number("trans_count", attrgetter("transactions")),
    _number("svr_session_count", attrgetter("server_session_count")),
    _text("state", attrgetter("state")),
    _number("tid", attrgetter("tid")),
    _number("pid", attrgetter("pid"), ColumnType.LONG),
    _number("using_ssl", lambda session: int(session.using_ssl), ColumnType.LONG),
    _number("worker", attrgetter("worker"), ColumnType.LONG),
    _text("command", attrgetter("command")),
    _text("activity", attrgetter("activity")),
    _seconds("seconds", attrgetter("seconds")),
    _seconds("idle_seconds", lambda session: 0.0 if session.busy else session.seconds),
    _seconds("statement_seconds", lambda session: session.seconds if session.busy else 0.0),
    _seconds("transaction_seconds", attrgetter("transaction_seconds")),
    _text("server", attrgetter("server")),
    _number("server_sessid", attrgetter("server_sessid")),
    _number("ss_id", attrgetter("ss_id")),
    _number("bytes_in", attrgetter("bytes_in")),
    _number("bytes_out", attrgetter("bytes_out")),
    _number("statements", attrgetter("statements")),
    _text("pinned", lambda session: ", ".join(session.pins) or None),
    _text("further_logins", lambda session: session.bar or None),
    _text("program", attrgetter("program")),
    _text("client", attrgetter("client")),
    _text("client_version", attrgetter("client_version")),
    _text("cipher", attrgetter("cipher")),
    _text("compression", attrgetter("compression")),
    _text("statement", attrgetter("statement")),
)
"""All columns, in the order of SHOW FULL PROXYSESSION."""

LIST_COLUMNS = SESSION_COLUMNS[:12]
"""Those of SHOW PROXYSESSION: the 12 of the ODP manual, without the `using_ssl` that came later."""
