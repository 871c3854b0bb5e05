"""Tests of the LIKE of proxy statements."""

from __future__ import annotations

from functools import cache
from time import perf_counter

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from odptwist.statements.like import like


def reference(text: str, pattern: str) -> bool:
    """Match by the definition, one character at a time."""

    @cache
    def fits(at: int, within: int) -> bool:
        if within == len(pattern):
            return at == len(text)
        if pattern[within] == "%":
            return fits(at, within + 1) or (at < len(text) and fits(at + 1, within))
        return at < len(text) and pattern[within] in ("_", text[at]) and fits(at + 1, within + 1)

    return not pattern or fits(0, 0)


class LikeTests(SynchronousTestCase):
    def test_known_matches(self) -> None:
        """Wildcards, case and the missing escape character are as in ODP."""
        table = [
            ("tenant", "tenant", True),
            ("tenant", "TENANT", False),
            ("tenant", "", True),
            ("", "", True),
            ("", "%", True),
            ("", "_", False),
            ("tenant", "%", True),
            ("tenant", "ten%", True),
            ("tenant", "%ant", True),
            ("tenant", "%en%", True),
            ("tenant", "ten", False),
            ("tenant", "enant", False),
            ("tenant", "t_n_n_", True),
            ("tenant", "______", True),
            ("tenant", "_____", False),
            ("tenant", "_______", False),
            ("tenant", "%%%t%%", True),
            ("tenant", "t%x", False),
            ("cs_id", "cs\\_id", False),
            ("cs\\xid", "cs\\_id", True),
            ("abab", "%ab", True),
            ("ab", "%a_b", False),
            ("aXb", "a_b", True),
            ("\u00e9t\u00e9", "_t_", True),
        ]
        for text, pattern, expected in table:
            self.assertEqual(like(text, pattern), expected, (text, pattern))

    @given(st.text("ab_%", max_size=12), st.text("ab_%", max_size=12))
    def test_any_pattern_matches_as_the_definition_says(self, text: str, pattern: str) -> None:
        """The matcher agrees with the definition."""
        self.assertEqual(like(text, pattern), reference(text, pattern))

    def test_a_hostile_pattern_is_quick(self) -> None:
        """A pattern of many `%` takes no more than text times pattern steps."""
        start = perf_counter()
        self.assertFalse(like("a" * 2000, "%a" * 250 + "b"))
        self.assertLess(perf_counter() - start, 5)
