"""SHOW PROXYSESSION ATTRIBUTE: what is known of one client session and its server sessions.

Source: spec sections 1.2, 2.1 and 3.1.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import cast

from attrs import frozen
from twisted.internet.defer import Deferred
from zope.interface import implementer

from odptwist.answers import Answer, Column, ColumnType, Table
from odptwist.errors import bad_proxy_statement
from odptwist.interfaces import IProxyStatement, ISessionDirectory, ITabular
from odptwist.snapshots import Asker, ClientSessionSnapshot, ServerSessionSnapshot, Versions
from odptwist.statements.columns import name_database, name_owner
from odptwist.statements.grammar import TokenStream
from odptwist.statements.like import like

_ATTRIBUTES = (
    Column("attribute_name", ColumnType.VARCHAR),
    Column("value", ColumnType.VARCHAR),
    Column("info", ColumnType.VARCHAR),
)
_OWN_SESSION = -1


@frozen
class SessionAttributes:
    """A request for the attributes of the session that `number` names, None for the asker's own.

    `pattern` filters the names; empty for all.
    """

    number: int | None
    pattern: str = ""


@implementer(IProxyStatement, ITabular)
class ShowSessionAttribute:
    """`SHOW PROXYSESSION ATTRIBUTE [id] [LIKE 'pattern']`; without an id, or with -1, the asker's own session."""

    name = "show session attributes"
    first_words = ("SHOW",)

    def parse(self, text: str) -> object | None:
        """Return a `SessionAttributes`, or None if the text does not begin with these three words."""
        stream = TokenStream(text)
        if not stream.take_head("SHOW", "PROXYSESSION") or not stream.take_word("ATTRIBUTE"):
            return None
        return SessionAttributes(*take_number_and_pattern(stream))

    def columns(self, request: object) -> tuple[Column, ...]:
        """Return the three columns."""
        return _ATTRIBUTES

    def answer(self, request: object, asker: Asker, directory: ISessionDirectory) -> Deferred[Answer]:
        """Fire with 22 rows, one for each pin, and 17 for each server session; fail with 1094 as the directory does."""
        return Deferred.fromCoroutine(self._show(cast(SessionAttributes, request), asker, directory))

    async def _show(self, request: SessionAttributes, asker: Asker, directory: ISessionDirectory) -> Answer:
        if request.number is None:
            session = await find_own_session(asker, directory)
        else:
            session = await directory.session(asker, request.number)
        rows = _list_attributes(session, own=session.cs_id == asker.cs_id)
        return Table(
            _ATTRIBUTES,
            tuple((name, str(value), group) for name, value, group in rows if like(name, request.pattern)),
        )


def take_number_and_pattern(stream: TokenStream) -> tuple[int | None, str]:
    """Consume `[id] [LIKE 'pattern']` and the end.

    Returns:
        The number of a session, None for the asker's own; and the pattern, empty if there is none.

    Raises:
        SqlError: 5010 if it goes on otherwise.
    """
    number = stream.take_integer()
    pattern = stream.take_name() if stream.take_word("LIKE") else ""
    if pattern is None or not stream.at_end():
        raise bad_proxy_statement()
    return None if number == _OWN_SESSION else number, pattern


async def find_own_session(asker: Asker, directory: ISessionDirectory) -> ClientSessionSnapshot:
    """Find the asker's session also where its cs_id is another session's connection id, too."""
    return await directory.session(asker, asker.cs_id, exact=True)


Attribute = tuple[str, int | str, str]


def _list_attributes(session: ClientSessionSnapshot, own: bool) -> Iterator[Attribute]:
    cluster, tenant, user = name_owner(session)
    common: dict[str, int | str] = {
        "proxy_sessid": _as_signed(session.proxy_sessid),
        "cs_id": session.cs_id,
        "cluster": cluster,
        "tenant": tenant,
        "user": user,
        "host_ip": session.host or "localhost",
        "host_port": session.port,
        "db": name_database(session),
        "total_trans_cnt": session.transactions,
        "svr_session_cnt": len(session.server_sessions),
        "active": "true" if own or session.busy else "false",
        "read_state": session.state,
        "tid": session.tid,
        "pid": session.pid,
        "idc_name": "",
    }
    yield from ((name, value, "cs common") for name, value in common.items())
    yield ("modified_time", 0, "cs stat")
    yield ("reported_time", 0, "cs stat")
    yield from _list_versions(session.versions, "cs var version")
    # ODP has no such rows; they are there only when there is something to say.
    for pin in session.pins:
        yield ("pinned_by", pin, "cs pin")
    if session.bar:
        yield ("further_logins", session.bar, "cs pin")
    if session.bound:
        yield from _list_bound(session.bound, working=session.busy and not own, own=own)
    for index, pooled in enumerate(session.pool):
        group = "ss pool && lii ss" if pooled.last_insert_id else "ss pool"
        yield from _list_server_session(pooled, pooled.state, pooled.attached, f"{group} [{index}]")


def _list_bound(bound: ServerSessionSnapshot, working: bool, own: bool) -> Iterator[Attribute]:
    use = "curr used" if working else "last used"
    group = f"{use} && lii ss" if bound.last_insert_id else f"{use} ss"
    if own:
        # The asker's statement works in the proxy only: its server session rests.
        yield from _list_server_session(bound, "MSS_KA_CLIENT_SLAVE", False, group)
    else:
        yield from _list_server_session(bound, bound.state, bound.attached, group)


def _list_server_session(session: ServerSessionSnapshot, state: str, attached: bool, group: str) -> Iterator[Attribute]:
    address = session.address
    yield ("server_ip", str(address) if address.path else address.host, group)
    yield ("server_port", address.port, group)
    yield ("server_sessid", session.server_sessid, group)
    yield ("ss_id", session.ss_id, group)
    yield ("state", state, group)
    yield ("transact_count", session.pickups, group)
    yield ("server_trans_stat", int(attached), group)
    yield from _list_versions(session.versions, group)
    yield ("is_checksum_supported", 0, group)
    yield ("is_safe_read_weak_supported", 0, group)
    yield ("is_checksum_switch_supported", 0, group)
    yield ("checksum_switch", -1, group)
    yield ("enable_extra_ok_packet_for_stats", 0, group)


def _list_versions(versions: Versions, group: str) -> Iterator[Attribute]:
    yield ("hot_sys_var_version", versions.hot_sys_var, group)
    yield ("sys_var_version", versions.sys_var, group)
    yield ("user_var_version", versions.user_var, group)
    yield ("last_insert_id_version", versions.last_insert_id, group)
    yield ("db_name_version", versions.db_name, group)


def _as_signed(number: int) -> int:
    """Return an unsigned 64-bit number as the signed one with the same bits."""
    return number - (1 << 64) if number >= 1 << 63 else number
