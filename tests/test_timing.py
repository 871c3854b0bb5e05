"""When a condition can become true by the passing of time."""

from __future__ import annotations

from math import inf

from twisted.trial.unittest import SynchronousTestCase

from odptwist.timing import Timing


class TimingTests(SynchronousTestCase):
    def test_wait(self) -> None:
        """The next constant counts, of the transaction's only while one is open; an equal one is still to be passed."""
        timing = Timing((1.0, 5.0), (3.0,))
        for seconds, transaction, wait in (
            (0.0, None, 1.0),
            (1.0, None, 0.0),
            (1.5, None, 3.5),
            (1.5, 2.5, 0.5),
            (6.0, 2.5, 0.5),
            (6.0, 3.5, inf),
            (6.0, None, inf),
        ):
            self.assertEqual(timing.wait(seconds, transaction), wait, (seconds, transaction))
        self.assertEqual(Timing().wait(0.0, 0.0), inf)

    def test_what_is_timed(self) -> None:
        """A condition without constants is not true sooner or later."""
        self.assertFalse(Timing().is_timed)
        self.assertTrue(Timing((1.0,)).is_timed)
        self.assertTrue(Timing((), (1.0,)).is_timed)

    def test_possible(self) -> None:
        """A condition is impossible while one of the values is less than it has to be."""
        timing = Timing((1.0,), (3.0,), 1.0, 3.0)
        self.assertTrue(timing.is_possible(1.0, 3.0))
        self.assertFalse(timing.is_possible(0.9, 3.0))
        self.assertFalse(timing.is_possible(1.0, 2.9))
        self.assertTrue(Timing((1.0,), (3.0,)).is_possible(0.0, 0.0))
