"""Tests of PING PROXY, PROXY_VERSION(), SHOW PROXYINFO BINARY, SHOW PROXYCONFIG and READ_STALE."""

from __future__ import annotations

from time import localtime, strftime
from typing import Any, cast

from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from odptwist import __version__
from odptwist.answers import Column, ColumnType, Done, Table
from odptwist.errors import SqlError
from odptwist.interfaces import IProxyStatement
from odptwist.live_settings import LiveSettings
from odptwist.settings import (
    AccountSettings,
    AdminSettings,
    CertificateAccountSettings,
    ClusterSettings,
    KillSettings,
    ListenerSettings,
    RoleSettings,
    RuleSettings,
    ServerSettings,
    ServiceAccountSettings,
    Settings,
    TlsSettings,
)
from odptwist.snapshots import Address, Asker, Privileges, RuleAction
from odptwist.statements import builtin_statements, settings_statements
from odptwist.statements.proxyconfig import INFO, list_settings
from odptwist.statements.table import StatementTable
from tests.support.directory import ROOT, FakeDirectory

ASKER = Asker(7, ROOT)
TEXT = ColumnType.VARCHAR
SECRETS = ("app-secret", "odp-secret", "kill-secret", "own-secret", "inspector-secret")
FULL = Settings(
    clusters=(
        ClusterSettings("ob1", (ServerSettings(Address("10.0.0.1", 2881)), ServerSettings(Address("::1", 2881)))),
    ),
    listeners=(ListenerSettings("2884"),),
    kill=KillSettings("odp_kill", SECRETS[2]),
    accounts=(AccountSettings("app", "shop", None, SECRETS[0].encode()),),
    roles=(RoleSettings("ops", None, None, Privileges.PROCESS | Privileges.SUPER),),
    rules=(RuleSettings("long", "seconds > 60", RuleAction.KILL, 10, "too long"),),
    admin=AdminSettings(SECRETS[3].encode(), SECRETS[4].encode()),
    service_account=ServiceAccountSettings("odp", SECRETS[1]),
    tls=TlsSettings(certificate_account=[CertificateAccountSettings("cn:ada", ["ada", "bob"])]),
)


class ProxyStatementsTests(SynchronousTestCase):
    def ask(self, text: str, settings: Settings = FULL, allows: bool = True) -> Any:
        """Return what the proxy answers."""
        about_itself = settings_statements(LiveSettings(settings), 1_700_000_000.0, "C")
        table = StatementTable([*builtin_statements(), *about_itself])
        found = table.find(text)
        if found is None:
            self.fail(f"not a statement of the proxy's: {text}")
        return self.successResultOf(table.answer(found, ASKER, FakeDirectory(allows=allows)))

    def test_they_provide_their_interface(self) -> None:
        """All are proxy statements."""
        for statement in settings_statements(LiveSettings(FULL), 0.0, "C"):
            self.assertTrue(verifyObject(IProxyStatement, statement))

    def test_ping(self) -> None:
        """PING PROXY is OK, whoever asks."""
        self.assertEqual(self.ask("ping  proxy ;", allows=False), Done())

    def test_version(self) -> None:
        """SELECT PROXY_VERSION() is one row, whoever asks."""
        table = cast(Table, self.ask("select proxy_version ( )", allows=False))
        self.assertEqual(table, Table((Column("proxy_version()", TEXT),), ((__version__,),)))

    def test_info(self) -> None:
        """SHOW PROXYINFO BINARY tells versions and the time of the start."""
        rows = dict(cast(Any, self.ask("SHOW PROXYINFO BINARY").rows))
        self.assertEqual((rows["version"], rows["gear"]), (__version__, "C"))
        self.assertEqual(rows["start_time"], strftime("%Y-%m-%d %H:%M:%S", localtime(1_700_000_000)))
        self.assertEqual(list(rows), ["version", "gear", "python", "twisted", "system", "pid", "start_time"])

    def test_read_stale(self) -> None:
        """SHOW PROXYSESSION READ_STALE has ODP's columns, and no row: no such map is kept."""
        number = ColumnType.LONGLONG
        columns = (Column("server_addr", TEXT), Column("table_id", number), Column("partition_id", number))
        for text in ("SHOW PROXYSESSION READ_STALE", "show proxysession read_stale like '10.%'"):
            self.assertEqual(self.ask(text, allows=False), Table((*columns, Column("feedback_time", TEXT)), ()))

    def test_config(self) -> None:
        """SHOW PROXYCONFIG has ODP's columns; the names are those of the settings file."""
        table = cast(Table, self.ask("SHOW PROXYCONFIG"))
        names = ("name", "value", "info", "need_reboot", "visible_level")
        self.assertEqual(table.columns, tuple(Column(name, TEXT) for name in names))
        values = {row[0]: row[1] for row in table.rows}
        self.assertEqual(len(values), len(table.rows))
        self.assertEqual(values["cluster.ob1.server.[::1]:2881.weight"], "1")
        self.assertEqual(values["role.ops.privileges"], "PROCESS, SUPER")
        self.assertEqual(values["rule.long.action"], "kill")
        self.assertEqual(values["kill.abandoned"], "true")
        self.assertEqual(values["admin.allow_from_anywhere"], "false")

    def test_config_like(self) -> None:
        """LIKE filters the names."""
        self.assertEqual(
            [row[0] for row in cast(Table, self.ask("SHOW PROXYCONFIG LIKE 'kill.%'")).rows],
            ["kill.user", "kill.password", "kill.timeout", "kill.abandoned"],
        )
        self.assertEqual(cast(Table, self.ask("SHOW PROXYCONFIG LIKE 'nothing'")).rows, ())

    def test_secrets(self) -> None:
        """No secret is in any row, only that there is one."""
        table = cast(Table, self.ask("SHOW PROXYCONFIG"))
        for row in table.rows:
            for secret in SECRETS:
                self.assertNotIn(secret, repr(row))
        masked = [row[0] for row in table.rows if row[1] == "******"]
        self.assertEqual(
            sorted(map(str, masked)),
            [
                "account.app@shop.password_sha1",
                "admin.inspector_password_sha1",
                "admin.password_sha1",
                "kill.password",
                "service_account.password",
            ],
        )
        none = cast(Table, self.ask("SHOW PROXYCONFIG LIKE '%password%'", Settings()))
        self.assertEqual({row[1] for row in none.rows}, {""})

    def test_every_setting_has_a_sentence(self) -> None:
        """A setting without a sentence about it is not finished, and neither is a sentence without a setting."""
        self.assertEqual({key for _, _, key in list_settings(FULL)}, set(INFO))

    def test_who_may(self) -> None:
        """What tells of the whole proxy is for those who may see that: 1227."""
        table = StatementTable(settings_statements(LiveSettings(FULL), 0.0, "C"))
        for text in ("SHOW PROXYCONFIG", "SHOW PROXYINFO BINARY"):
            found = table.find(text)
            assert found is not None
            answer = table.answer(found, ASKER, FakeDirectory(allows=False))
            self.assertEqual(self.failureResultOf(answer, SqlError).value.code, 1227)

    def test_what_is_not_understood(self) -> None:
        """A text that begins so and goes on otherwise is error 5010."""
        for text in (
            "PING PROXY 1",
            "SHOW PROXYINFO",
            "SHOW PROXYINFO UPGRADE",
            "SHOW PROXYINFO BINARY 1",
            "SHOW PROXYCONFIG LIKE",
            "SHOW PROXYCONFIG LIKE 1",
            "SHOW PROXYCONFIG ALL",
            "SHOW PROXYSESSION READ_STALE 7",
            "SHOW PROXYSESSION READ STALE",
        ):
            with self.assertRaises(SqlError) as caught:
                self.ask(text)
            self.assertEqual(caught.exception.code, 5010, text)
