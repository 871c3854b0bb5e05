"""Tests of docs/reference/statements.md: every column of an answer has a sentence there, and no other has one."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from odptwist.answers import Column
from odptwist.live_settings import CHANGEABLE
from odptwist.statements.columns import LIST_COLUMNS, SESSION_COLUMNS
from odptwist.statements.connections import CONNECTION_COLUMNS
from odptwist.statements.history import HISTORY_COLUMNS
from odptwist.statements.servers import _CLUSTER, _CONGESTION
from odptwist.statements.session_statistics import STATISTIC_COLUMNS, STATISTICS
from odptwist.statements.variables import VARIABLE_COLUMNS

_PAGE = Path(__file__).parents[2] / "docs" / "reference" / "statements.md"
_ROW = re.compile(r"^\| `([\w()]+)` \| (\w+)( unsigned)? \| (.*?) *\|$", re.MULTILINE)

_LIST = [each.column for each in LIST_COLUMNS]
_FULL = [each.column for each in SESSION_COLUMNS]
SECTIONS: list[tuple[str, Sequence[Column]]] = [
    ("`SHOW PROXYSESSION`", _LIST),
    ("`SHOW FULL PROXYSESSION`", _FULL[len(_LIST) :]),
    ("`SHOW PROXYSESSION HISTORY [id] [LIKE 'pattern']`", HISTORY_COLUMNS),
    ("`SHOW PROXYCLUSTER [LIKE 'pattern']`", _CLUSTER),
    ("`SHOW PROXYCONGESTION [ALL] ['cluster']`", _CONGESTION),
    ("`SHOW PROXYSESSION STAT [id] [LIKE 'pattern']`", STATISTIC_COLUMNS),
    ("`SHOW PROXYSESSION VARIABLES [ALL] [id] [LIKE 'pattern']`", VARIABLE_COLUMNS),
    ("`SHOW PROXYNET CONNECTION [thread_id [LIMIT ...]]`", CONNECTION_COLUMNS),
]


class DocumentedColumnsTests(SynchronousTestCase):
    def test_every_column_has_its_sentence(self) -> None:
        """Name, type and order are the code's, and what a column means is said in a sentence."""
        sections = dict(part.split("\n", 1) for part in _PAGE.read_text().split("\n## ")[1:])
        for heading, columns in SECTIONS:
            rows = [match.groups() for match in _ROW.finditer(sections[heading])]
            self.assertEqual(
                [(name, kind, bool(unsigned)) for name, kind, unsigned, _ in rows],
                [(each.name, each.type.name, each.unsigned) for each in columns],
                heading,
            )
            for name, _, _, meaning in rows:
                self.assertRegex(meaning, r"^\S.+\S$", f"{heading}: {name} has no sentence")

    def test_every_statistic_has_its_sentence(self) -> None:
        """Each name of SHOW PROXYSESSION STAT is there once, in a row of its own, in a range or in a group."""
        sections = dict(part.split("\n", 1) for part in _PAGE.read_text().split("\n## ")[1:])
        found: list[str] = []
        for row in re.findall(r"^\| (`[^|]+) \| (?!LONG|VARCHAR).+ \|$", sections[SECTIONS[-3][0]], re.MULTILINE):
            for part in row.split(", "):
                first, *last = re.findall(r"`(\w+)`", part)
                start = STATISTICS.index(first)
                found += STATISTICS[start : STATISTICS.index(last[0]) + 1] if last else [first]
        self.assertEqual(sorted(found), sorted(STATISTICS))

    def test_every_setting_that_can_change_has_its_sentence(self) -> None:
        """The settings that ALTER PROXYCONFIG changes are those of its section."""
        sections = dict(part.split("\n", 1) for part in _PAGE.read_text().split("\n## ")[1:])
        rows = re.findall(r"^\| `([\w.]+)` \| .+ \|$", sections["`ALTER PROXYCONFIG SET name = [value]`"], re.MULTILINE)
        self.assertEqual(sorted(rows), sorted(CHANGEABLE))
