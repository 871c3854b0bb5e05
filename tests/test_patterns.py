"""The regular expressions of the source, on the Pythons that people have."""

from __future__ import annotations

import re
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

import odptwist

# What ends a group that is repeated possessively.
_POSSESSIVE_GROUP = re.compile(r"\)(?:[*+?]|\{[0-9,]+\})\+")


class PatternTests(SynchronousTestCase):
    def test_no_group_is_repeated_possessively(self) -> None:
        """Debian 12's Python 3.11.2 matches `(?:ab?c)*+` wrongly, `(?>(?:ab?c)*)` as it should."""
        self.assertEqual(re.match(r"(?>(?:ab?c)*)", "aca").span(), (0, 2))  # type: ignore[union-attr]
        found = [
            f"{source.name}: {line}"
            for source in sorted(Path(odptwist.__file__).parent.rglob("*.py"))
            for line in source.read_text().splitlines()
            if _POSSESSIVE_GROUP.search(line)
        ]
        self.assertEqual(found, [])
