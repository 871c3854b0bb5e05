"""Tests of ALTER PROXYCONFIG SET."""

from __future__ import annotations

from typing import Any

from attrs import evolve
from twisted.internet.defer import Deferred, succeed
from twisted.trial.unittest import SynchronousTestCase

from odptwist.answers import Done
from odptwist.errors import SqlError
from odptwist.live_settings import CHANGEABLE, LiveSettings
from odptwist.settings import KillSettings, Settings
from odptwist.snapshots import Asker, Verb
from odptwist.statements import settings_statements
from odptwist.statements.table import StatementTable
from tests.support.directory import ROOT, FakeDirectory

ASKER = Asker(7, ROOT)


class Watchers(FakeDirectory):
    """Everybody may see the proxy, and nobody change it."""

    def may(self, asker: Asker, verb: Verb) -> Deferred[bool]:
        """Fire with whether it is only about seeing."""
        return succeed(verb is Verb.SEE_PROXY)


class AlterConfigTests(SynchronousTestCase):
    def setUp(self) -> None:
        """Make the statements, of a proxy whose settings file says something."""
        self.changes: list[Settings] = []
        self.live = LiveSettings(evolve(Settings(), kill=KillSettings(timeout=9.0)), self.changes.append)
        self.table = StatementTable(settings_statements(self.live, 0.0, "C"))

    def answer(self, text: str, directory: FakeDirectory | None = None) -> Deferred[Any]:
        """Let the proxy answer."""
        found = self.table.find(text)
        if found is None:
            self.fail(f"not a statement of the proxy's: {text}")
        return self.table.answer(found, ASKER, directory or FakeDirectory())

    def refusal(self, text: str, directory: FakeDirectory | None = None) -> SqlError:
        """Return the error."""
        error = self.failureResultOf(self.answer(text, directory), SqlError).value
        assert isinstance(error, SqlError)
        return error

    def shown(self, name: str) -> tuple[Any, ...]:
        """Return the value that SHOW PROXYCONFIG shows, and whether it takes a restart."""
        (row,) = self.successResultOf(self.answer(f"SHOW PROXYCONFIG LIKE '{name}'")).rows
        return row[1], row[3]

    def test_a_change_takes_effect(self) -> None:
        """The proxy is told, and SHOW PROXYCONFIG shows it."""
        self.assertEqual(self.successResultOf(self.answer("ALTER PROXYCONFIG SET kill.timeout = 2.5")), Done())
        self.assertEqual([each.kill.timeout for each in self.changes], [2.5])
        self.assertEqual(self.shown("kill.timeout"), ("2.5", "false"))

    def test_an_empty_value_is_the_default(self) -> None:
        """Not the file's value, but that of a proxy without a file."""
        self.assertEqual(self.shown("kill.timeout"), ("9.0", "false"))
        self.successResultOf(self.answer("ALTER PROXYCONFIG SET kill.timeout ="))
        self.assertEqual(self.shown("kill.timeout"), ("5.0", "false"))

    def test_all_that_can_change(self) -> None:
        """Every such setting takes its own default, and another value."""
        for name in CHANGEABLE:
            value = "false" if self.shown(name)[0] in ("true", "false") else "1"
            for text in (value, ""):
                self.assertEqual(self.successResultOf(self.answer(f"ALTER PROXYCONFIG SET {name} = '{text}'")), Done())
        self.assertEqual(self.live.current, Settings())

    def test_what_takes_a_restart(self) -> None:
        """A setting that is read at the start only is error 1238, which says so."""
        error = self.refusal("ALTER PROXYCONFIG SET history.sessions = 5")
        self.assertEqual(error.code, 1238)
        self.assertIn("need_reboot", error.message)
        self.assertEqual(self.shown("history.sessions")[1], "true")

    def test_what_is_not_known(self) -> None:
        """A setting that is none is error 1193."""
        for name in ("nothing", "kill.nothing", "kill", "'kill.timeout '"):
            self.assertEqual(self.refusal(f"ALTER PROXYCONFIG SET {name} = 5").code, 1193)

    def test_wrong_values(self) -> None:
        """The checks are those of the settings file: error 1231, and nothing has changed."""
        for name, value in (
            ("kill.timeout", "0"),
            ("kill.timeout", "nan"),
            ("kill.timeout", "soon"),
            ("kill.abandoned", "7"),
            ("routing.settle", "-1"),
            ("health.interval", "1e9"),
        ):
            error = self.refusal(f"ALTER PROXYCONFIG SET {name} = {value}")
            self.assertEqual(error.code, 1231, (name, value))
            self.assertIn("must be", error.message)
        self.assertEqual(self.changes, [])

    def test_who_may(self) -> None:
        """It is for those who may see and change the proxy."""
        for directory in (FakeDirectory(allows=False), Watchers()):
            self.assertEqual(self.refusal("ALTER PROXYCONFIG SET kill.timeout = 5", directory).code, 1227)
        self.assertEqual(self.changes, [])
