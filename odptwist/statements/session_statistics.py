"""SHOW PROXYSESSION STAT: what is counted of one client session.

Source: spec sections 1.2, 2.4 and 3.2.
"""

from __future__ import annotations

from typing import Final, cast

from attrs import frozen
from twisted.internet.defer import Deferred
from zope.interface import implementer

from odptwist.answers import Answer, Column, ColumnType, Table
from odptwist.interfaces import IProxyStatement, ISessionDirectory, ITabular
from odptwist.snapshots import Asker
from odptwist.statements.grammar import TokenStream
from odptwist.statements.like import like
from odptwist.statements.sessions import take_number_and_pattern

STATISTIC_COLUMNS = (Column("stat_name", ColumnType.VARCHAR), Column("value", ColumnType.LONGLONG))
_SIZES = ("100", "1K", "3K", "5K", "10K", "1M", "inf")
_SPEEDS = ("100", "1K", "10K", "100K", "1M", "10M", "100M")
_SYNCHRONISED = (
    "saved_login",
    "all_session_vars",
    "use_database",
    "changed_session_vars",
    "changed_session_user_vars",
    "last_insert_id",
    "start_trans",
    "xa_start",
)

STATISTICS: Final = (
    "total_transaction_count",
    "total_user_transaction_count",
    "total_query_count",
    "total_client_request_reread_count",
    "total_server_response_reread_count",
    "client_request_total_size",
    "client_response_total_size",
    "server_request_total_size",
    "server_response_total_size",
    "total_transactions_time",
    "total_user_transactions_time",
    "total_client_request_read_time",
    "total_client_response_write_time",
    "total_client_request_analyze_time",
    "total_client_transaction_idle_time",
    "total_ok_packet_trim_time",
    "total_server_process_request_time",
    "total_server_response_read_time",
    "total_server_response_analyze_time",
    *(f"total_send_{each}_time" for each in _SYNCHRONISED),
    "total_pl_lookup_time",
    "total_congestion_control_time",
    "total_server_connect_time",
    "client_requests",
    "client_large_requests",
    "client_internal_requests",
    "local_session_state_requests",
    "client_missing_pk_requests",
    "client_completed_requests",
    "client_connection_abort_count",
    *(f"client_{each}_requests" for each in ("select", "insert", "update", "delete", "other")),
    *(f"request_size_{each}_count" for each in _SIZES),
    *(f"response_size_{each}_count" for each in _SIZES),
    *(f"client_speed_bytes_per_sec_{each}" for each in _SPEEDS),
    *(f"server_speed_bytes_per_sec_{each}" for each in _SPEEDS),
    "server_connect_count",
    "server_connect_retries",
    "server_pl_lookup_count",
    "server_pl_lookup_retries",
    "broken_server_connections",
    "server_requests",
    "server_responses",
    "server_error_responses",
    "server_resultset_responses",
    "server_ok_responses",
    "server_other_responses",
    *(f"send_{each}_requests" for each in _SYNCHRONISED),
    "vip_to_tenant_cache_hit",
    "vip_to_tenant_cache_miss",
)
"""The names, in ODP's order. What is not counted here is 0."""


@frozen
class SessionStatistics:
    """A request for what is counted of a session; the fields are as in `SessionAttributes`."""

    number: int | None
    pattern: str = ""


@implementer(IProxyStatement, ITabular)
class ShowSessionStatistics:
    """`SHOW PROXYSESSION STAT [id] [LIKE 'pattern']`; without an id, or with -1, the asker's own session."""

    name = "show session statistics"
    first_words = ("SHOW",)

    def parse(self, text: str) -> object | None:
        """Return a `SessionStatistics`, or None if the text does not begin with these three words."""
        stream = TokenStream(text)
        if not stream.take_head("SHOW", "PROXYSESSION") or not stream.take_word("STAT"):
            return None
        return SessionStatistics(*take_number_and_pattern(stream))

    def columns(self, request: object) -> tuple[Column, ...]:
        """Return the two columns."""
        return STATISTIC_COLUMNS

    def answer(self, request: object, asker: Asker, directory: ISessionDirectory) -> Deferred[Answer]:
        """Fire with a row for each statistic; fail with 1094 as the directory does."""
        return Deferred.fromCoroutine(self._show(cast(SessionStatistics, request), asker, directory))

    async def _show(self, request: SessionStatistics, asker: Asker, directory: ISessionDirectory) -> Answer:
        own = request.number is None
        number = asker.cs_id if request.number is None else request.number
        counted = await directory.statistics_of(asker, number, exact=own)
        values = {each.name: each.value for each in counted}
        return Table(
            STATISTIC_COLUMNS, tuple((name, values.get(name, 0)) for name in STATISTICS if like(name, request.pattern))
        )
