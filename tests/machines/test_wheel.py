"""A timing wheel."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from odptwist.machines.wheel import Wheel


class WheelTests(SynchronousTestCase):
    def setUp(self) -> None:
        """Make a wheel of tenths of seconds."""
        self.wheel: Wheel[str] = Wheel(0.1)

    def test_comes_up_late_by_a_tick_at_most(self) -> None:
        """An item comes up after it is due, all of one slot together."""
        self.assertAlmostEqual(self.wheel.put("a", 1.02, 0.0), 1.1)
        self.wheel.put("b", 1.07, 0.0)
        self.assertAlmostEqual(self.wheel.next_time() or 0.0, 1.1)
        self.assertEqual(self.wheel.take(1.09), [])
        self.assertEqual(sorted(self.wheel.take(1.11)), ["a", "b"])
        self.assertEqual((len(self.wheel), self.wheel.next_time()), (0, None))

    def test_move_and_remove(self) -> None:
        """An item is in one place only, and is gone when it is removed; what is not there may be removed."""
        self.wheel.put("a", 5.0, 0.0)
        self.wheel.put("a", 1.0, 0.0)
        self.wheel.put("b", 1.0, 0.0)
        self.wheel.remove("b")
        self.wheel.remove("c")
        self.assertEqual(self.wheel.take(2.0), ["a"])
        self.assertEqual(self.wheel.take(9.0), [])

    def test_far_ahead(self) -> None:
        """What is due after more ticks than the wheel has comes up early, so slots stay few."""
        self.assertAlmostEqual(self.wheel.put("a", 1e9, 7.0), 67.1)
        for number in range(5000):
            self.wheel.put("b", number * 1.0, 0.0)
        self.assertLess(len(self.wheel._slots), 700)

    @given(
        st.lists(
            st.tuples(st.sampled_from("abcd"), st.floats(0, 90), st.floats(0, 3), st.booleans()),
            min_size=1,
            max_size=60,
        )
    )
    def test_any_order(self, steps: list[tuple[str, float, float, bool]]) -> None:
        """Nothing comes up twice, before it is due, or more than a tick late."""
        wheel, now, due = Wheel[str](0.1), 0.0, dict[str, float]()
        for item, ahead, pause, removes in steps:
            if removes:
                wheel.remove(item)
                due.pop(item, None)
            else:
                wheel.put(item, now + ahead, now)
                due[item] = now + min(ahead, 60.0)
            now += pause
            for taken in wheel.take(now):
                self.assertLessEqual(due.pop(taken), now)
            self.assertTrue(all(each > now - 0.1001 for each in due.values()))
            self.assertEqual(len(wheel), len(due))
