"""The reactor's innermost loop, on epoll reactors of its own."""

from __future__ import annotations

import socket
from collections.abc import Callable
from typing import Any

from twisted.internet.epollreactor import EPollReactor
from twisted.internet.main import CONNECTION_DONE
from twisted.internet.testing import MemoryReactorClock
from twisted.trial.unittest import SynchronousTestCase

from odptwist.sessions.polling import poll_lean


class Readable:
    """One end of a pair of sockets, registered with a reactor."""

    def __init__(self, reactor: Any, lean: bool, on_read: Callable[[], Any]) -> None:
        self.other, self._socket = socket.socketpair()
        self._socket.setblocking(False)
        self.reads_lean = lean
        self.on_read = on_read
        self.came: list[bytes] = []
        self.lost: list[Any] = []
        self.reactor = reactor
        reactor.addReader(self)

    def fileno(self) -> int:
        """Return the descriptor."""
        return self._socket.fileno()

    def logPrefix(self) -> str:
        """Return what the log calls it."""
        return "readable"

    def doRead(self) -> Any:
        """Read, and do what the test wants."""
        self.came.append(self._socket.recv(100))
        return self.on_read()

    def connectionLost(self, reason: Any) -> None:
        """Have ended."""
        self.lost.append(reason)

    def close(self) -> None:
        """Close both ends."""
        self.reactor.removeReader(self)
        self._socket.close()
        self.other.close()


class PollingTests(SynchronousTestCase):
    def setUp(self) -> None:
        """Make a reactor that runs as far as the loop can see."""
        self.reactor: Any = EPollReactor()  # type: ignore[no-untyped-call]
        self.reactor.running = True
        self.addCleanup(self.reactor._poller.close)
        self.assertTrue(poll_lean(self.reactor))

    def readable(self, lean: bool = True, on_read: Callable[[], Any] = lambda: None) -> Readable:
        """Return a registered end of a pair."""
        made = Readable(self.reactor, lean, on_read)
        self.addCleanup(made.close)
        return made

    def test_private_names(self) -> None:
        """This Twisted has what the loop needs; other reactors are left alone."""
        other: Any = MemoryReactorClock()
        self.assertFalse(poll_lean(other))

    def test_reads(self) -> None:
        """What is readable is read, whether it asks for the short way or not."""
        for lean in (True, False):
            one = self.readable(lean)
            one.other.send(b"abc")
            self.reactor.doIteration(0)
            self.assertEqual(one.came, [b"abc"])

    def test_several_rounds(self) -> None:
        """What becomes readable while another is served is served in the same turn, unless a timer waits."""
        second = self.readable()
        first = self.readable(on_read=lambda: second.other.send(b"x") and None)
        first.other.send(b"abc")
        self.reactor.doIteration(0)
        self.assertEqual((first.came, second.came), ([b"abc"], [b"x"]))
        call = self.reactor.callLater(0, lambda: None)
        first.other.send(b"abc")
        self.reactor.doIteration(0)
        self.assertEqual((len(first.came), len(second.came)), (2, 1))
        call.cancel()

    def test_end_of_a_connection(self) -> None:
        """An end that a read finds goes to `connectionLost`, once."""
        one = self.readable(on_read=lambda: CONNECTION_DONE)
        one.other.send(b"abc")
        self.reactor.doIteration(0)
        self.reactor.doIteration(0)
        self.assertEqual([each.type for each in one.lost], [type(CONNECTION_DONE)])

    def test_failure(self) -> None:
        """A read that raises costs its own connection only, and is logged."""
        bad = self.readable(on_read=lambda: 1 / 0)
        good = self.readable()
        for each in (bad, good):
            each.other.send(b"abc")
        self.reactor.doIteration(0)
        self.assertEqual((len(bad.lost), good.came), (1, [b"abc"]))
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)

    def test_one_that_was_removed(self) -> None:
        """What an earlier event of the same round has removed is not served any more."""
        ends: list[Readable] = []
        for _ in range(2):
            ends.append(self.readable(on_read=lambda: [self.reactor.removeReader(each) for each in ends] and None))
        for each in ends:
            each.other.send(b"abc")
        self.reactor.doIteration(0)
        self.assertEqual(sorted(len(each.came) for each in ends), [0, 1])
