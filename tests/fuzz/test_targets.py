"""Each target of the fuzzer, with what is right, with what was found, and with a few bytes at random."""

from __future__ import annotations

import os

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from tests.fuzz.targets import FOUND, TARGETS, seeds

EXAMPLES = int(os.environ.get("ODPTWIST_EXAMPLES", "30"))


class FuzzTests(SynchronousTestCase):
    def test_seeds(self) -> None:
        """What is right passes, and what is made of it by cutting it off anywhere is refused or waits for more."""
        for name, inputs in seeds().items():
            for data in inputs:
                TARGETS[name](data)
                TARGETS[name](data[: len(data) // 2])

    def test_found(self) -> None:
        """What was found once is not found again."""
        for name, inputs in FOUND.items():
            for data in inputs:
                TARGETS[name](data)

    @settings(max_examples=EXAMPLES)
    @given(st.binary(max_size=200))
    def test_anything(self, data: bytes) -> None:
        """Any bytes are refused in the right way, if they are."""
        for target in TARGETS.values():
            target(data)
