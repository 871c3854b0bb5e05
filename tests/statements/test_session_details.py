"""Tests of SHOW PROXYSESSION STAT, SHOW PROXYSESSION VARIABLES and SHOW PROXYNET CONNECTION."""

from __future__ import annotations

import re
from typing import Any, cast

from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from odptwist.answers import Column, ColumnType, Table
from odptwist.errors import SqlError
from odptwist.interfaces import IProxyStatement, ITabular
from odptwist.snapshots import (
    Address,
    Asker,
    ConnectionSnapshot,
    SessionKind,
    SessionVariable,
    SessionVariables,
    Statistic,
    VariableKind,
)
from odptwist.statements.connections import ShowConnections
from odptwist.statements.session_statistics import STATISTICS, ShowSessionStatistics
from odptwist.statements.variables import ShowSessionVariables
from odptwist.wire.resultset import encode_table
from tests.support.directory import ROOT, FakeDirectory

ASKER = Asker(7, ROOT)
# Spec section 3.2, as it stands there.
SPEC = """
total_transaction_count, total_user_transaction_count, total_query_count, total_client_request_reread_count,
total_server_response_reread_count, client_request_total_size, client_response_total_size, server_request_total_size,
server_response_total_size, total_transactions_time, total_user_transactions_time, total_client_request_read_time,
total_client_response_write_time, total_client_request_analyze_time, total_client_transaction_idle_time,
total_ok_packet_trim_time, total_server_process_request_time, total_server_response_read_time,
total_server_response_analyze_time, total_send_saved_login_time, total_send_all_session_vars_time,
total_send_use_database_time, total_send_changed_session_vars_time, total_send_changed_session_user_vars_time,
total_send_last_insert_id_time, total_send_start_trans_time, total_send_xa_start_time, total_pl_lookup_time,
total_congestion_control_time, total_server_connect_time, client_requests, client_large_requests,
client_internal_requests, local_session_state_requests, client_missing_pk_requests, client_completed_requests,
client_connection_abort_count, client_select_requests, client_insert_requests, client_update_requests,
client_delete_requests, client_other_requests, request_size_{100;1K;3K;5K;10K;1M;inf}_count,
response_size_{100;1K;3K;5K;10K;1M;inf}_count, client_speed_bytes_per_sec_{100;1K;10K;100K;1M;10M;100M},
server_speed_bytes_per_sec_{100;1K;10K;100K;1M;10M;100M}, server_connect_count, server_connect_retries,
server_pl_lookup_count, server_pl_lookup_retries, broken_server_connections, server_requests, server_responses,
server_error_responses, server_resultset_responses, server_ok_responses, server_other_responses,
send_saved_login_requests, send_all_session_vars_requests, send_use_database_requests,
send_changed_session_vars_requests, send_changed_session_user_vars_requests, send_last_insert_id_requests,
send_start_trans_requests, send_xa_start_requests, vip_to_tenant_cache_hit, vip_to_tenant_cache_miss
"""


def expand(text: str) -> list[str]:
    """Return the names of a list in which `x_{a;b}` abbreviates `x_a, x_b`."""
    names = []
    for name in text.split(","):
        parts = re.fullmatch(r"(.*)\{(.*)\}(.*)", name.strip())
        names += [f"{parts[1]}{part}{parts[3]}" for part in parts[2].split(";")] if parts else [name.strip()]
    return names


class Asking(SynchronousTestCase):
    directory = FakeDirectory()
    statement: Any

    def ask(self, text: str) -> Table:
        """Return what is answered."""
        request = self.statement.parse(text)
        table = cast(Table, self.successResultOf(self.statement.answer(request, ASKER, self.directory)))
        self.assertEqual(tuple(self.statement.columns(request)), table.columns)
        return table

    def check_interfaces(self) -> None:
        """Check that it is a statement whose columns are known beforehand."""
        self.assertTrue(verifyObject(IProxyStatement, self.statement))
        self.assertTrue(verifyObject(ITabular, self.statement))
        self.assertIsNone(self.statement.parse("SHOW PROXYSESSION"))
        self.assertIsNone(self.statement.parse("SHOW TABLES"))


class ShowSessionStatisticsTests(Asking):
    statement = ShowSessionStatistics()
    directory = FakeDirectory(counted=(Statistic("client_requests", 5), Statistic("server_requests", 4)))

    def test_interfaces(self) -> None:
        """It is a proxy statement."""
        self.check_interfaces()

    def test_all_names_in_odps_order(self) -> None:
        """There is a row for each name; what is not counted is 0."""
        table = self.ask("SHOW PROXYSESSION STAT 7")
        self.assertEqual([row[0] for row in table.rows], expand(SPEC))
        self.assertEqual({row for row in table.rows if row[1]}, {("client_requests", 5), ("server_requests", 4)})
        self.assertEqual(table.columns, (Column("stat_name", ColumnType.VARCHAR), Column("value", ColumnType.LONGLONG)))

    def test_no_name_is_there_twice(self) -> None:
        """Names are unique."""
        self.assertEqual(len(set(STATISTICS)), len(STATISTICS))

    def test_like(self) -> None:
        """LIKE filters the names."""
        self.assertEqual(
            self.ask("SHOW PROXYSESSION STAT LIKE '%\\_requests'").rows, self.ask("SHOW PROXYSESSION STAT LIKE x").rows
        )
        self.assertEqual(self.ask("SHOW PROXYSESSION STAT LIKE 'client_req%s'").rows, (("client_requests", 5),))


class ShowSessionVariablesTests(Asking):
    statement = ShowSessionVariables()
    directory = FakeDirectory(
        set_variables=SessionVariables(
            (
                SessionVariable("autocommit", "0", VariableKind.HOT),
                SessionVariable("short", "x" * 127, VariableKind.COLD),
                SessionVariable("long", "x" * 128, VariableKind.COLD, changed=False),
                SessionVariable("a", "'1'", VariableKind.USER),
            )
        )
    )

    def test_interfaces(self) -> None:
        """It is a proxy statement."""
        self.check_interfaces()

    def test_rows(self) -> None:
        """The words are ODP's; a value of more than 127 bytes is not shown."""
        table = self.ask("SHOW PROXYSESSION VARIABLES")
        names = ("variable_name", "value", "info", "modified_type", "sys_variable_flag")
        self.assertEqual(table.columns, tuple(Column(name, ColumnType.VARCHAR) for name in names))
        long = "---value length is large then 128bytes---"
        self.assertEqual(
            table.rows,
            (
                ("autocommit", "0", "changed sys var", "hot modified vars", " && session_scope"),
                ("short", "x" * 127, "changed sys var", "cold modified vars", " && session_scope"),
                ("long", long, "changed sys var", "cold modified vars", ""),
                ("a", "'1'", "user var", "cold modified vars", ""),
            ),
        )

    def test_all(self) -> None:
        """Where not all are known, a last row without a name says why, whatever LIKE says."""
        table = self.ask("SHOW PROXYSESSION VARIABLES ALL 7 LIKE 'auto%'")
        self.assertEqual(
            table.rows,
            (
                ("autocommit", "0", "sys var", "hot modified vars", " && session_scope"),
                ("", "", "busy", "", ""),
            ),
        )


def connection(number: int, kind: SessionKind, source: Address, destination: Address) -> ConnectionSnapshot:
    """Return a connection."""
    return ConnectionSnapshot(kind, number, 7, ROOT, 99, 12, source, destination, True, 300, 500, 20, 61.5, number == 3)


class ShowConnectionsTests(Asking):
    statement = ShowConnections()
    directory = FakeDirectory(
        known_connections=(
            connection(7, SessionKind.CLIENT, Address("127.0.0.1", 4000), Address("10.0.0.7", 2883)),
            connection(1, SessionKind.SERVER, Address("10.0.0.7", 5000), Address("10.0.0.1", 2881)),
            connection(3, SessionKind.SERVER, Address(), Address(path="/run/x.sock")),
        )
    )

    def test_interfaces(self) -> None:
        """It is a proxy statement."""
        self.check_interfaces()

    def test_rows(self) -> None:
        """There are 25 columns, and a row for each connection."""
        table = self.ask("SHOW PROXYNET CONNECTION")
        names = [column.name for column in table.columns]
        self.assertEqual(len(names), 25)
        self.assertEqual((names[:4], names[-1]), (["thread_id", "connect_id", "socket_fd", "type"], "comments"))
        rows = [dict(zip(names, row, strict=True)) for row in table.rows]
        self.assertEqual(
            [row["comments"] for row in rows][:2], [f"client session 7: {ROOT}", f"of client session 7: {ROOT}"]
        )
        self.assertEqual([row["type"] for row in rows], ["client", "server", "server"])
        self.assertEqual((rows[1]["src_port"], rows[1]["dst_ip"]), (5000, "10.0.0.1"))
        self.assertEqual((rows[2]["src_ip"], rows[2]["dst_ip"], rows[2]["dst_port"]), ("", "/run/x.sock", 0))
        self.assertEqual((rows[0]["read_ndone"], rows[0]["write_nbyte"], rows[0]["write_ndone"]), (300, 500, 480))
        self.assertEqual([row["shutdown"] for row in rows], [0, 0, 1])
        self.assertEqual(rows[0]["alive_time(sec)"], 61)

    def test_prepared(self) -> None:
        """The binary protocol takes all of its types."""
        table = self.ask("SHOW PROXYNET CONNECTION 99 LIMIT 1")
        self.assertIn(b"client session 7", encode_table(table, 1, 0, binary=True))

    def test_limits(self) -> None:
        """A thread and a part of its connections can be chosen."""
        for text, expected in (
            ("SHOW PROXYNET CONNECTION 99", [7, 1, 3]),
            ("SHOW PROXYNET CONNECTION 98", []),
            ("SHOW PROXYNET CONNECTION 99 LIMIT 2", [7, 1]),
            ("SHOW PROXYNET CONNECTION 99 LIMIT 1, 1", [1]),
            ("SHOW PROXYNET CONNECTION 99 LIMIT 5 OFFSET 2", [3]),
            ("SHOW PROXYNET CONNECTION 99 LIMIT 0", []),
        ):
            self.assertEqual([row[1] for row in self.ask(text).rows], expected, text)

    def test_who_may(self) -> None:
        """It is for those who may see the proxy as a whole."""
        answer = self.statement.answer(
            self.statement.parse("SHOW PROXYNET CONNECTION"), ASKER, FakeDirectory(allows=False)
        )
        self.assertEqual(self.failureResultOf(answer, SqlError).value.code, 1227)
