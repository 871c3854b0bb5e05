"""Waits with one timer for all."""

from __future__ import annotations

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from odptwist.sessions.deadlines import Deadlines


class DeadlinesTests(SynchronousTestCase):
    def setUp(self) -> None:
        """Have a clock."""
        self.clock = Clock()
        self.deadlines = Deadlines(self.clock)
        self.over: list[tuple[str, float]] = []

    def begin(self, name: str, seconds: float = 5) -> object:
        """Begin a wait, and return it."""
        return self.deadlines.begin(seconds, lambda: self.over.append((name, self.clock.seconds())))

    def test_time_is_up(self) -> None:
        """Each wait ends at its very time, by one timer for each length."""
        self.begin("a")
        self.clock.advance(1)
        self.begin("b")
        self.begin("short", 2)
        self.assertEqual((len(self.deadlines), len(self.clock.getDelayedCalls())), (3, 2))
        self.clock.pump([0.5] * 20)
        self.assertEqual(self.over, [("short", 3), ("a", 5), ("b", 6)])
        self.assertEqual((len(self.deadlines), self.clock.getDelayedCalls()), (0, []))

    def test_cancelled(self) -> None:
        """What has ended in time is not ended again, and the timer stops when it finds nothing."""
        first = self.begin("a")
        self.clock.advance(1)
        second = self.begin("b")
        first.cancel()
        first.cancel()
        self.clock.advance(4)
        self.assertEqual(len(self.clock.getDelayedCalls()), 1)
        second.cancel()
        self.clock.advance(1)
        self.assertEqual((self.over, self.clock.getDelayedCalls()), ([], []))
        self.begin("c")
        self.clock.advance(5)
        self.assertEqual(self.over, [("c", 11)])

    def test_restarted(self) -> None:
        """A wait can begin anew, with another length as well, also when it is over."""
        wait = self.begin("a")
        self.clock.advance(4)
        wait.restart(5)
        self.clock.advance(4)
        wait.restart(1)
        self.clock.advance(1)
        wait.restart(2)
        self.clock.advance(1)
        self.assertEqual(self.over, [("a", 9)])
        self.clock.advance(1)
        self.assertEqual(self.over, [("a", 9), ("a", 11)])

    def test_one_ends_another(self) -> None:
        """Of two whose time is up at once, the first may cancel the second, and begin a third."""

        def first() -> None:
            self.over.append(("first", self.clock.seconds()))
            second.cancel()
            self.begin("third")

        self.deadlines.begin(5, first)
        second = self.begin("second")
        self.clock.advance(5)
        self.assertEqual(self.over, [("first", 5)])
        self.clock.advance(5)
        self.assertEqual(self.over, [("first", 5), ("third", 10)])

    def test_fault(self) -> None:
        """One that raises is logged, and the others end all the same."""

        def broken() -> None:
            raise RuntimeError("broken")

        self.deadlines.begin(5, broken)
        self.begin("b")
        self.clock.advance(5)
        self.assertEqual(self.over, [("b", 5)])
        self.assertEqual(len(self.flushLoggedErrors(RuntimeError)), 1)
