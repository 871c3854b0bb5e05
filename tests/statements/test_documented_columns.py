"""Tests of docs/reference/statements.md: every column of an answer has a sentence there, and no other has one."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from odptwist.answers import Column
from odptwist.statements.columns import LIST_COLUMNS, SESSION_COLUMNS
from odptwist.statements.history import HISTORY_COLUMNS
from odptwist.statements.servers import _CLUSTER, _CONGESTION

_PAGE = Path(__file__).parents[2] / "docs" / "reference" / "statements.md"
_ROW = re.compile(r"^\| `(\w+)` \| (\w+)( unsigned)? \| (.*?) *\|$", re.MULTILINE)

_LIST = [each.column for each in LIST_COLUMNS]
_FULL = [each.column for each in SESSION_COLUMNS]
SECTIONS: list[tuple[str, Sequence[Column]]] = [
    ("`SHOW PROXYSESSION`", _LIST),
    ("`SHOW FULL PROXYSESSION`", _FULL[len(_LIST) :]),
    ("`SHOW PROXYSESSION HISTORY [id] [LIKE 'pattern']`", HISTORY_COLUMNS),
    ("`SHOW PROXYCLUSTER [LIKE 'pattern']`", _CLUSTER),
    ("`SHOW PROXYCONGESTION [ALL] ['cluster']`", _CONGESTION),
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
