"""Packets of a dialogue, waited for one by one."""

from __future__ import annotations

from twisted.internet.task import Clock
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from odptwist.errors import PacketTooLarge, ServerSessionLost, ServerUnreachable
from odptwist.sessions.deadlines import Deadlines
from odptwist.sessions.inbox import Inbox
from odptwist.wire.framing import frame


class InboxTests(SynchronousTestCase):
    def setUp(self) -> None:
        """Make an inbox."""
        self.clock = Clock()
        self.deadlines = Deadlines(self.clock)
        self.inbox = Inbox(self.deadlines, 100)

    def test_packets_in_order(self) -> None:
        """Packets go to whoever waits, or are kept until somebody asks."""
        waiter = self.inbox.next(5)
        self.assertNoResult(waiter)
        self.inbox.receive(frame(b"a", 0) + frame(b"b", 1) + frame(b"c", 2)[:3])
        self.assertEqual(self.successResultOf(waiter).payload, b"a")
        kept = self.inbox.take()
        self.assertEqual(kept.payload if kept is not None else None, b"b")
        self.assertIsNone(self.inbox.take())
        self.assertTrue(self.inbox.buffered)
        self.inbox.receive(frame(b"c", 2)[3:])
        self.assertEqual(self.successResultOf(self.inbox.next(5)).payload, b"c")

    def test_one_deadline(self) -> None:
        """Each packet may take as long as it was given, and all of them have one deadline."""
        for number in range(3):
            waiter = self.inbox.next(5)
            self.clock.advance(4)
            self.assertEqual(len(self.deadlines), 1)
            self.inbox.receive(frame(b"x", number))
            self.successResultOf(waiter)
        self.inbox.close()
        self.assertEqual(len(self.deadlines), 0)

    def test_too_late(self) -> None:
        """When the time is up the dialogue is over, for those who ask later, too."""
        waiter = self.inbox.next(2)
        self.clock.advance(2)
        self.assertEqual(str(self.failureResultOf(waiter, ServerUnreachable).value), "no answer within 2 s")
        self.inbox.receive(frame(b"late", 0))
        self.failureResultOf(self.inbox.next(2), ServerUnreachable)

    def test_nobody_waits(self) -> None:
        """Time that passes while nobody waits does no harm."""
        waiter = self.inbox.next(2)
        self.inbox.receive(frame(b"a", 0))
        self.successResultOf(waiter)
        self.clock.advance(3)
        waiter = self.inbox.next(2)
        self.inbox.receive(frame(b"b", 1))
        self.successResultOf(waiter)

    def test_as_long_as_it_takes(self) -> None:
        """A waiter without a limit is not hurried by the one of the packet before."""
        self.inbox.receive(frame(b"a", 0))
        self.successResultOf(self.inbox.next(2))
        self.assertNoResult(self.inbox.next(2))
        waiter = self.inbox.next(None)
        self.clock.advance(1_000)
        self.assertNoResult(waiter)

    def test_end(self) -> None:
        """The end of the connection fails the present waiter and the next, but not what had come before."""
        self.inbox.receive(frame(b"a", 0))
        self.inbox.end(Failure(ServerSessionLost("gone")))
        self.successResultOf(self.inbox.next(2))
        self.failureResultOf(self.inbox.next(2), ServerSessionLost)
        self.assertEqual(len(self.deadlines), 0)

    def test_fault(self) -> None:
        """A packet that breaks the protocol fails the waiter."""
        waiter = self.inbox.next(2)
        self.inbox.receive(frame(bytes(101), 0))
        self.failureResultOf(waiter, PacketTooLarge)

    def test_cancelled(self) -> None:
        """Who cancels waits no longer, and no deadline is left."""
        waiter = self.inbox.next(2)
        waiter.addErrback(lambda _: None)
        waiter.cancel()
        self.assertEqual(len(self.deadlines), 0)
        self.inbox.receive(frame(b"a", 0))
        self.assertIsNotNone(self.inbox.take())
