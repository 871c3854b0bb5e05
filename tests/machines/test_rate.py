"""At most so many a minute."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from odptwist.machines.rate import RateLimit


class RateLimitTests(SynchronousTestCase):
    def test_window(self) -> None:
        """What is used up comes back 60 seconds after it was taken, one by one."""
        rate = RateLimit(2)
        self.assertEqual([rate.take(now) for now in (0, 20, 30, 59.9, 60, 61, 80)], [1, 1, 0, 0, 1, 0, 1])
        self.assertEqual(rate.wait(100.0), 20.0)

    def test_no_limit(self) -> None:
        """Zero is no limit, and remembers nothing."""
        rate = RateLimit(0)
        self.assertTrue(all(rate.take(0.0) for _ in range(1000)))
        self.assertEqual((rate.wait(0.0), len(rate._times)), (0.0, 0))

    @given(st.integers(1, 5), st.lists(st.floats(0, 40), max_size=40))
    def test_any_window(self, limit: int, pauses: list[float]) -> None:
        """No 60 seconds ever see more than the limit, and nothing is refused that need not be."""
        rate, now, taken = RateLimit(limit), 0.0, list[float]()
        for pause in pauses:
            now += pause
            recent = [each for each in taken if each + 60.0 > now]
            self.assertEqual(rate.take(now), len(recent) < limit)
            if len(recent) < limit:
                taken.append(now)
