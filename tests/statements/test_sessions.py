"""Tests of SHOW PROXYSESSION and SHOW PROXYSESSION ATTRIBUTE."""

from __future__ import annotations

from typing import cast

from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from odptwist.answers import Column, ColumnType, Table, Value
from odptwist.errors import SqlError
from odptwist.identity import Identity
from odptwist.interfaces import IProxyStatement
from odptwist.snapshots import Address, Asker, ClientSessionSnapshot, Versions
from odptwist.statements.session_list import ShowSessions
from odptwist.statements.sessions import ShowSessionAttribute
from tests.support.directory import ROOT, FakeDirectory, make_client_session, make_server_session

ASKER = Asker(7, ROOT)


class ShowSessionsTests(SynchronousTestCase):
    def show(self, *sessions: ClientSessionSnapshot) -> Table:
        """Return the list of these sessions."""
        statement = ShowSessions()
        request = statement.parse("SHOW PROXYSESSION")
        answer = self.successResultOf(statement.answer(request, ASKER, FakeDirectory(sessions)))
        self.assertIsInstance(answer, Table)
        return cast(Table, answer)

    def test_it_provides_its_interface(self) -> None:
        """ShowSessions is a proxy statement."""
        self.assertTrue(verifyObject(IProxyStatement, ShowSessions()))

    def test_the_columns_are_those_of_the_manual(self) -> None:
        """Exactly twelve columns, with ODP's types."""
        number, text = ColumnType.LONGLONG, ColumnType.VARCHAR
        self.assertEqual(
            self.show().columns,
            (
                Column("proxy_sessid", number, unsigned=True),
                Column("Id", number),
                Column("Cluster", text),
                Column("Tenant", text),
                Column("User", text),
                Column("Host", text),
                Column("db", text),
                Column("trans_count", number),
                Column("svr_session_count", number),
                Column("state", text),
                Column("tid", number),
                Column("pid", ColumnType.LONG),
            ),
        )

    def test_the_manuals_row(self) -> None:
        """The session of the manual's example gives the manual's row."""
        session = make_client_session(identity=Identity("root", "sys", "ob1.jianhua.sjh"), bound=make_server_session())
        self.assertEqual(
            self.show(session).rows,
            (
                (
                    756006681247547400,
                    7,
                    "ob1.jianhua.sjh",
                    "sys",
                    "root",
                    "127.0.0.1:23706",
                    "NULL",
                    0,
                    1,
                    "MCS_ACTIVE_READER",
                    2230520,
                    2230520,
                ),
            ),
        )

    def test_a_session_before_login_has_empty_names(self) -> None:
        """Who has not said who it is has no cluster, tenant and user."""
        self.assertEqual(self.show(make_client_session(identity=None)).rows[0][2:5], ("", "", ""))

    def test_hosts(self) -> None:
        """The host is address and port, without brackets, and localhost for a Unix socket."""
        rows = self.show(make_client_session(1, host="::1", port=5), make_client_session(2, host="", port=0)).rows
        self.assertEqual([row[5] for row in rows], ["::1:5", "localhost"])

    def test_a_chosen_database_and_counts(self) -> None:
        """The database, the transactions and all server sessions are shown; numbers stay unsigned."""
        session = make_client_session(
            proxy_sessid=12402504630519660556,
            database="test",
            transactions=3,
            bound=make_server_session(1),
            pool=(make_server_session(2), make_server_session(3)),
        )
        row = self.show(session).rows[0]
        self.assertEqual((row[0], *row[6:9]), (12402504630519660556, "test", 3, 3))

    def test_an_empty_database_name_is_not_null(self) -> None:
        """Only a missing database reads NULL."""
        self.assertEqual(self.show(make_client_session(database="")).rows[0][6], "")

    def test_rows_come_by_rising_id(self) -> None:
        """The order is that of the Id, whatever the directory's."""
        rows = self.show(*(make_client_session(number) for number in (9, 7, 8))).rows
        self.assertEqual([row[1] for row in rows], [7, 8, 9])


COMMON = [
    ("proxy_sessid", "756006681247547400", "cs common"),
    ("cs_id", "7", "cs common"),
    ("cluster", "ob1", "cs common"),
    ("tenant", "sys", "cs common"),
    ("user", "root", "cs common"),
    ("host_ip", "127.0.0.1", "cs common"),
    ("host_port", "23706", "cs common"),
    ("db", "test", "cs common"),
    ("total_trans_cnt", "4", "cs common"),
    ("svr_session_cnt", "1", "cs common"),
    ("active", "true", "cs common"),
    ("read_state", "MCS_ACTIVE_READER", "cs common"),
    ("tid", "2230520", "cs common"),
    ("pid", "2230520", "cs common"),
    ("idc_name", "", "cs common"),
    ("modified_time", "0", "cs stat"),
    ("reported_time", "0", "cs stat"),
    ("hot_sys_var_version", "1", "cs var version"),
    ("sys_var_version", "2", "cs var version"),
    ("user_var_version", "3", "cs var version"),
    ("last_insert_id_version", "4", "cs var version"),
    ("db_name_version", "5", "cs var version"),
]
SERVER = [
    ("server_ip", "10.0.0.1", "last used ss"),
    ("server_port", "2881", "last used ss"),
    ("server_sessid", "2147549203", "last used ss"),
    ("ss_id", "1", "last used ss"),
    ("state", "MSS_KA_CLIENT_SLAVE", "last used ss"),
    ("transact_count", "6", "last used ss"),
    ("server_trans_stat", "0", "last used ss"),
    ("hot_sys_var_version", "6", "last used ss"),
    ("sys_var_version", "7", "last used ss"),
    ("user_var_version", "8", "last used ss"),
    ("last_insert_id_version", "9", "last used ss"),
    ("db_name_version", "10", "last used ss"),
    ("is_checksum_supported", "0", "last used ss"),
    ("is_safe_read_weak_supported", "0", "last used ss"),
    ("is_checksum_switch_supported", "0", "last used ss"),
    ("checksum_switch", "-1", "last used ss"),
    ("enable_extra_ok_packet_for_stats", "0", "last used ss"),
]


class ShowSessionAttributeTests(SynchronousTestCase):
    def show(self, text: str, *sessions: ClientSessionSnapshot) -> tuple[tuple[Value, ...], ...]:
        """Return the rows that a text shows."""
        statement = ShowSessionAttribute()
        request = statement.parse(text)
        answer = self.successResultOf(statement.answer(request, ASKER, FakeDirectory(sessions)))
        self.assertIsInstance(answer, Table)
        shown = cast(Table, answer)
        self.assertEqual(
            shown.columns, tuple(Column(name, ColumnType.VARCHAR) for name in ("attribute_name", "value", "info"))
        )
        return shown.rows

    def find(self, name: str, rows: tuple[tuple[Value, ...], ...]) -> list[tuple[Value, ...]]:
        """Return value and info of the rows with a name."""
        return [row[1:] for row in rows if row[0] == name]

    def test_it_provides_its_interface(self) -> None:
        """ShowSessionAttribute is a proxy statement."""
        self.assertTrue(verifyObject(IProxyStatement, ShowSessionAttribute()))

    def test_it_leaves_other_forms_to_others(self) -> None:
        """Without the word ATTRIBUTE the text is not its own."""
        for text in ("SHOW PROXYSESSION", "SHOW PROXYSESSION STAT", "SHOW TABLES"):
            self.assertIsNone(ShowSessionAttribute().parse(text), text)

    def test_all_rows_of_ones_own_session(self) -> None:
        """22 rows, then 17 for the server session; the asker is active and its server session rests."""
        session = make_client_session(
            database="test",
            transactions=4,
            busy=True,
            versions=Versions(1, 2, 3, 4, 5),
            bound=make_server_session(state="MSS_ACTIVE", attached=True, pickups=6, versions=Versions(6, 7, 8, 9, 10)),
        )
        for text in ("SHOW PROXYSESSION ATTRIBUTE", "SHOW PROXYSESSION ATTRIBUTE -1", "SHOW PROXYSESSION ATTRIBUTE 7"):
            self.assertEqual(list(self.show(text, session)), COMMON + SERVER, text)

    def test_numbers_of_rows(self) -> None:
        """22, 39 and 73 rows for none, one and three server sessions."""
        first, second, third = (make_server_session(number, number + 100) for number in (1, 2, 3))
        text = "SHOW PROXYSESSION ATTRIBUTE"
        self.assertEqual(len(self.show(text, make_client_session())), 22)
        self.assertEqual(len(self.show(text, make_client_session(bound=first))), 39)
        self.assertEqual(len(self.show(text, make_client_session(bound=first, pool=(second, third)))), 73)

    def test_an_idle_session_of_another(self) -> None:
        """It is not active, and its server session was used last."""
        rows = self.show("SHOW PROXYSESSION ATTRIBUTE 8", make_client_session(8, bound=make_server_session()))
        self.assertEqual(self.find("active", rows), [("false", "cs common")])
        self.assertEqual(self.find("ss_id", rows), [("1", "last used ss")])

    def test_a_busy_session_of_another(self) -> None:
        """It is active, and its server session is used now."""
        bound = make_server_session(state="MSS_ACTIVE", attached=True)
        rows = self.show("SHOW PROXYSESSION ATTRIBUTE 8", make_client_session(8, busy=True, bound=bound))
        self.assertEqual(self.find("active", rows), [("true", "cs common")])
        self.assertEqual(self.find("state", rows), [("MSS_ACTIVE", "curr used ss")])
        self.assertEqual(self.find("server_trans_stat", rows), [("1", "curr used ss")])

    def test_groups(self) -> None:
        """Groups name the last producer of LAST_INSERT_ID() and count the pool."""
        idle, producer = make_server_session(1, 101), make_server_session(2, 102, last_insert_id=True)
        text = "SHOW PROXYSESSION ATTRIBUTE 8 LIKE 'ss_id'"
        table = [
            (make_client_session(8, bound=producer), ["last used && lii ss"]),
            (make_client_session(8, busy=True, bound=producer), ["curr used && lii ss"]),
            (make_client_session(8, bound=idle, pool=(producer,)), ["last used ss", "ss pool && lii ss [0]"]),
            (make_client_session(8, pool=(idle, producer)), ["ss pool [0]", "ss pool && lii ss [1]"]),
            (make_client_session(8), []),
        ]
        for session, groups in table:
            self.assertEqual([row[2] for row in self.show(text, session)], groups)

    def test_proxy_sessid_is_signed_here(self) -> None:
        """A number of 64 bits is printed as ODP does, with a sign."""
        session = make_client_session(proxy_sessid=12402504630519660556)
        rows = self.show("SHOW PROXYSESSION ATTRIBUTE LIKE 'proxy_sessid'", session)
        self.assertEqual(rows, (("proxy_sessid", "-6044239443189891060", "cs common"),))

    def test_unix_sockets(self) -> None:
        """A server's path stands in server_ip; a client's host is localhost."""
        session = make_client_session(
            host="", port=0, bound=make_server_session(address=Address(path="/run/mysqld.sock"))
        )
        rows = self.show("SHOW PROXYSESSION ATTRIBUTE", session)
        self.assertEqual(self.find("server_ip", rows), [("unix:/run/mysqld.sock", "last used ss")])
        self.assertEqual(self.find("server_port", rows), [("0", "last used ss")])
        self.assertEqual(self.find("host_ip", rows), [("localhost", "cs common")])

    def test_a_session_before_login(self) -> None:
        """Names are empty, the database reads NULL."""
        rows = self.show("SHOW PROXYSESSION ATTRIBUTE 8", make_client_session(8, identity=None))
        self.assertEqual(
            [row[1] for row in rows if row[0] in ("cluster", "tenant", "user", "db")], ["", "", "", "NULL"]
        )

    def test_like_filters_names(self) -> None:
        """LIKE is about the names, minds case, and knows both wildcards."""
        session = make_client_session(bound=make_server_session())
        table = [
            ("%sessid", ["proxy_sessid", "server_sessid"]),
            ("__\\_id", []),
            ("___id", ["cs_id", "ss_id"]),
            ("TENANT", []),
            ("root", []),
        ]
        for pattern, names in table:
            rows = self.show(f"SHOW PROXYSESSION ATTRIBUTE LIKE '{pattern}'", session)
            self.assertEqual([row[0] for row in rows], names, pattern)
        self.assertEqual(len(self.show("SHOW PROXYSESSION ATTRIBUTE LIKE ''", session)), 39)

    def test_a_connection_id_names_a_session(self) -> None:
        """The id may be a server_sessid; the asker recognises itself by it."""
        session = make_client_session(bound=make_server_session(server_sessid=2147549203))
        rows = self.show("SHOW PROXYSESSION ATTRIBUTE 2147549203", session)
        self.assertEqual(self.find("cs_id", rows), [("7", "cs common")])
        self.assertEqual(self.find("active", rows), [("true", "cs common")])

    def test_ones_own_session_is_never_ambiguous(self) -> None:
        """Without an id the asker finds itself, even if its cs_id is another session's connection id."""
        other = make_client_session(8, bound=make_server_session(server_sessid=7))
        rows = self.show("SHOW PROXYSESSION ATTRIBUTE", other, make_client_session(7))
        self.assertEqual(self.find("cs_id", rows), [("7", "cs common")])

    def test_an_unknown_session(self) -> None:
        """An id that names nothing is 1094, negative ones as unsigned."""
        statement = ShowSessionAttribute()
        for number, printed in ((5, "5"), (-2, "18446744073709551614")):
            request = statement.parse(f"SHOW PROXYSESSION ATTRIBUTE {number}")
            answer = statement.answer(request, ASKER, FakeDirectory((make_client_session(),)))
            error = self.failureResultOf(answer, SqlError).value
            self.assertEqual((error.code, error.message), (1094, f"Unknown thread id: {printed}"))

    def test_an_asker_that_is_gone(self) -> None:
        """Who is in no list gets 1094 for itself."""
        statement = ShowSessionAttribute()
        answer = statement.answer(statement.parse("SHOW PROXYSESSION ATTRIBUTE"), ASKER, FakeDirectory())
        self.assertEqual(self.failureResultOf(answer, SqlError).value.code, 1094)
