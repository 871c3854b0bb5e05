"""Sessions on real sockets, under an epoll reactor that a test turns by hand."""

from __future__ import annotations

import socket
from collections.abc import Callable
from typing import Any

from twisted.internet.epollreactor import EPollReactor
from twisted.internet.main import CONNECTION_DONE
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from odptwist.sessions import transport
from tests.support.house import House

# Turns of the reactor after which everything that can happen at once has happened.
TURNS = 6


def make_reactor(case: SynchronousTestCase, prepare: Callable[[Any], bool]) -> Any:
    """Return an epoll reactor of the test's own that runs, as far as its loop can see; `prepare` must succeed."""
    reactor: Any = EPollReactor()  # type: ignore[no-untyped-call]
    reactor.running = True
    case.addCleanup(forget, reactor)
    case.assertTrue(prepare(reactor))
    return reactor


def forget(reactor: Any) -> None:
    """Close what a reactor of `make_reactor` has open; a relay's epoll, too, though the two keep each other."""
    reactor._poller.close()
    reactor.waker.connectionLost(Failure(CONNECTION_DONE))
    vars(reactor).clear()


class Far:
    """The other end of a transport, in the hands of a test."""

    def __init__(self, case: SynchronousTestCase, reactor: Any, protocol: Any, small: bool = False) -> None:
        ours, self.socket = socket.socketpair()
        for end in (ours, self.socket):
            end.setblocking(False)
            case.addCleanup(end.close)
            if small:
                end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        self.came = b""
        self.ended = False
        self.transport: Any = transport._TcpServer(ours, protocol, ("127.0.0.1", 40000), None, 1, reactor)

    def send(self, data: bytes) -> None:
        """Send all of it; it has to fit in the socket. A transport that has gone takes nothing."""
        try:
            self.socket.sendall(data)
        except OSError:
            self.ended = True

    def read(self) -> None:
        """Read what has come."""
        try:
            while not self.ended:
                data = self.socket.recv(1 << 20)
                self.came += data
                self.ended = not data
        except BlockingIOError:
            pass
        except OSError:
            self.ended = True


class Linked:
    """A client that has logged in, its session, and its server session, on sockets.

    Attributes:
        client: the client's end.
        server: the server's end.
        session: the client session.
        served_by: the server session.
    """

    def __init__(
        self, case: SynchronousTestCase, prepare: Callable[[Any], bool], small: bool = False, house: House | None = None
    ) -> None:
        self.house = house or House()
        self.house.reactor.advance(1000)
        client, server = self.house.log_in(unprivileged=True)
        self.reactor: Any = EPollReactor()  # type: ignore[no-untyped-call]
        self.reactor.running = True
        self.reactor.seconds = self.house.reactor.seconds
        case.addCleanup(forget, self.reactor)
        case.assertTrue(prepare(self.reactor))
        self.session, self.served_by = client.wire.protocol, server.wire.protocol
        self.client, self.server = (self._move(case, session, small) for session in (self.session, self.served_by))

    def _move(self, case: SynchronousTestCase, session: Any, small: bool) -> Far:
        far = Far(case, self.reactor, session, small)
        session.transport = far.transport
        far.transport.registerProducer(session, True)
        return far

    def turn(self, turns: int = TURNS) -> None:
        """Let everything happen that is due now."""
        for _ in range(turns):
            self.reactor.runUntilCurrent()
            self.reactor.doIteration(0)
        self.house.turn()
        self.client.read()
        self.server.read()
