"""Connections to servers, on real sockets."""

from __future__ import annotations

import errno
import gc
import socket
import weakref
from select import POLLIN, POLLOUT, poll
from typing import Any

from twisted.internet import tcp
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.error import ConnectBindError, ConnectError, ConnectionRefusedError, UserError
from twisted.internet.main import CONNECTION_DONE, CONNECTION_LOST
from twisted.internet.protocol import Protocol
from twisted.internet.testing import MemoryReactorClock
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from odptwist.sessions import connecting
from odptwist.snapshots import Address
from tests.sessions.test_transport import Reactor


def wait_for(client: Any, event: int) -> None:
    """Wait until a transport has an event."""
    waiting = poll()
    waiting.register(client.socket, event)
    waiting.poll(10_000)


class Looking(Reactor):
    """One that looks up names when it is told to."""

    def __init__(self) -> None:
        super().__init__()
        self.looking: Deferred[str] = Deferred()

    def resolve(self, name: str) -> Deferred[str]:
        """Look up a name."""
        return self.looking


class Caller(Protocol):
    """Remembers what it was told."""

    def __init__(self) -> None:
        self.told: list[Any] = []

    def connectionMade(self) -> None:
        """Remember."""
        self.told.append("made")

    def dataReceived(self, data: bytes) -> None:
        """Remember."""
        self.told.append(data)

    def connectionLost(self, reason: Failure) -> None:
        """Remember."""
        self.told.append("lost")

    def connection_failed(self, reason: Failure) -> None:
        """Remember."""
        self.told.append(type(reason.value))


class ConnectTests(SynchronousTestCase):
    def setUp(self) -> None:
        """Listen."""
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.addCleanup(self.listener.close)
        self.reactor = Looking()
        self.caller = Caller()
        self.patch(connecting, "_posix_reactor", lambda: Reactor)

    def begin(self, host: str = "127.0.0.1", speaks_first: bool = True) -> Any:
        """Begin to connect, and return the attempt."""
        port = self.listener.getsockname()[1]
        return connecting.connect(self.reactor, Address(host, port), self.caller, speaks_first)

    def greet(self, client: Any) -> socket.socket:
        """Greet as a server, let the client have it, and return the server's end."""
        theirs, _ = self.listener.accept()
        self.addCleanup(theirs.close)
        theirs.send(b"welcome")
        wait_for(client, POLLIN)
        self.assertIsNone(client.doRead())
        return theirs

    def test_private_names_of_twisted(self) -> None:
        """The name by which TLS knows that a transport is a client is there."""
        self.assertTrue(tcp.Client._tlsClientDefault)
        self.assertFalse(tcp.Server._tlsClientDefault)

    def test_server_speaks_first(self) -> None:
        """One event says that the connection is made, and brings the first bytes; nothing else is waited for."""
        client = self.begin()
        self.assertEqual((self.reactor.readers, self.reactor.writers, self.reactor.later), ({client}, set(), []))
        self.greet(client)
        self.addCleanup(client.connectionLost, Failure(CONNECTION_DONE))
        self.assertEqual(self.caller.told, ["made", b"welcome"])
        self.assertEqual(self.reactor.readers, {client})

    def test_we_speak_first(self) -> None:
        """If we are to speak first, the connection is told of as soon as it can be written to."""
        client = self.begin(speaks_first=False)
        self.assertEqual((self.reactor.readers, self.reactor.writers), (set(), {client}))
        wait_for(client, POLLOUT)
        self.assertIsNone(client.doWrite())
        self.addCleanup(client.connectionLost, Failure(CONNECTION_DONE))
        self.assertEqual(self.caller.told, ["made"])
        self.assertEqual((self.reactor.readers, self.reactor.writers), ({client}, set()))

    def test_server_hangs_up(self) -> None:
        """A server that hangs up without a word was connected all the same."""
        client = self.begin()
        self.listener.accept()[0].close()
        wait_for(client, POLLIN)
        self.assertIs(client.doRead(), CONNECTION_DONE)
        client.connectionLost(Failure(CONNECTION_DONE))
        self.assertEqual(self.caller.told, ["made", "lost"])

    def test_name(self) -> None:
        """A name is looked up first."""
        attempt = self.begin("server.example")
        self.assertEqual(self.reactor.readers, set())
        self.reactor.looking.callback("127.0.0.1")
        (client,) = self.reactor.readers
        self.greet(client)
        self.addCleanup(client.connectionLost, Failure(CONNECTION_DONE))
        self.assertEqual(self.caller.told, ["made", b"welcome"])
        del attempt

    def test_name_is_given_up(self) -> None:
        """An attempt can be given up while its name is looked up, and after that."""
        attempt = self.begin("server.example")
        attempt.stopConnecting()
        self.assertEqual(self.caller.told, [CancelledError])
        self.reactor.looking = Deferred()
        attempt = self.begin("server.example")
        self.reactor.looking.callback("127.0.0.1")
        attempt.stopConnecting()
        self.assertEqual(self.caller.told, [CancelledError, UserError])
        self.assertEqual(self.reactor.readers, set())

    def test_ipv6(self) -> None:
        """A literal address may be of the sixth version."""
        try:
            self.listener = socket.create_server(("::1", 0), family=socket.AF_INET6)
        except OSError as fault:
            self.skipTest(str(fault))
        self.addCleanup(self.listener.close)
        client = self.begin("::1")
        self.greet(client)
        self.addCleanup(client.connectionLost, Failure(CONNECTION_DONE))
        port = self.listener.getsockname()[1]
        self.assertEqual((client.getPeer().host, client.getPeer().port), ("::1", port))
        self.assertEqual(client.getHost().host, "::1")

    def test_nobody_listens(self) -> None:
        """An attempt that is refused fails once, and nothing is watched any more."""
        closed = socket.socket()
        closed.bind(("127.0.0.1", 0))
        self.listener.close()
        self.listener = closed
        self.addCleanup(closed.close)
        client = self.begin()
        if client in self.reactor.readers:
            wait_for(client, POLLIN)
            client.doRead()
        self.assertEqual(self.caller.told, [ConnectionRefusedError])
        self.assertEqual((self.reactor.readers, self.reactor.writers), (set(), set()))

    def test_cannot_begin(self) -> None:
        """An attempt that fails at once is told of, too."""
        connecting.connect(self.reactor, Address("255.255.255.255", 1), self.caller)
        self.assertEqual(len(self.caller.told), 1)
        self.assertTrue(issubclass(self.caller.told[0], ConnectError))

    def test_too_many_open_files(self) -> None:
        """If there cannot be a socket, the attempt has failed, to an address as to a name."""

        def refuse(*arguments: object) -> None:
            raise OSError(errno.EMFILE, "Too many open files")

        self.patch(connecting.socket, "socket", refuse)
        self.assertIsNone(self.begin())
        attempt = self.begin("server.example")
        self.reactor.looking.callback("127.0.0.1")
        attempt.stopConnecting()
        self.assertEqual(self.caller.told, [ConnectBindError, ConnectBindError])

    def test_reactor_finds_the_end(self) -> None:
        """A connection that ends before it is made has failed; to give it up then does nothing more."""
        client = self.begin()
        client.connectionLost(Failure(CONNECTION_LOST))
        client.stopConnecting()
        self.assertEqual(self.caller.told, [type(CONNECTION_LOST)])
        self.assertEqual(self.reactor.readers, set())

    def test_nothing_is_left_for_the_garbage_collector(self) -> None:
        """What has ended, or never began, is freed as soon as nobody holds it."""
        gc.disable()
        self.addCleanup(gc.enable)
        client = self.begin()
        self.greet(client)
        client.connectionLost(Failure(CONNECTION_DONE))
        left = weakref.ref(client)
        self.caller = Caller()
        del client
        self.assertIsNone(left())
        client = self.begin()
        client.stopConnecting()
        left = weakref.ref(client)
        del client
        self.assertIsNone(left())


class SeamTests(SynchronousTestCase):
    def test_other_reactors_keep_their_transports(self) -> None:
        """A reactor that is not Twisted's own is asked in the ordinary way."""
        reactor = MemoryReactorClock()
        caller = Caller()
        connecting.connect(reactor, Address("127.0.0.1", 3306), caller)
        connecting.connect(reactor, Address(path="/run/x.sock"), caller)
        self.assertEqual(reactor.tcpClients[0][:2], ("127.0.0.1", 3306))
        self.assertEqual(reactor.unixClients[0][0], "/run/x.sock")
        self.assertIs(reactor.tcpClients[0][2].buildProtocol(None), caller)
        reactor.tcpClients[0][2].clientConnectionFailed(None, Failure(ConnectionRefusedError()))
        self.assertEqual(caller.told, [ConnectionRefusedError])
