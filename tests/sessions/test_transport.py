"""Transports that write at once, on real sockets."""

from __future__ import annotations

import socket
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from typing import Any

from twisted.internet import abstract, tcp, unix
from twisted.internet.address import IPv4Address
from twisted.internet.main import CONNECTION_DONE
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from odptwist.sessions import transport


class Reactor:
    """Remembers what transports ask of it."""

    def __init__(self) -> None:
        self.readers: set[Any] = set()
        self.writers: set[Any] = set()
        self.later: list[Callable[[], None]] = []

    def callLater(self, seconds: float, call: Callable[..., None], *arguments: Any) -> None:
        """Remember."""
        self.later.append(partial(call, *arguments))

    def addReader(self, reader: Any) -> None:
        """Remember."""
        self.readers.add(reader)

    def removeReader(self, reader: Any) -> None:
        """Forget."""
        self.readers.discard(reader)

    def addWriter(self, writer: Any) -> None:
        """Remember."""
        self.writers.add(writer)

    def removeWriter(self, writer: Any) -> None:
        """Forget."""
        self.writers.discard(writer)


class Producer:
    """Counts pauses and resumptions."""

    def __init__(self) -> None:
        self.calls: list[str] = []

    def pauseProducing(self) -> None:
        """Remember."""
        self.calls.append("pause")

    def resumeProducing(self) -> None:
        """Remember."""
        self.calls.append("resume")


class DirectWriteTests(SynchronousTestCase):
    def setUp(self) -> None:
        """Make a transport over one end of a socket pair."""
        ours, self.theirs = socket.socketpair()
        self.addCleanup(self.theirs.close)
        self.addCleanup(ours.close)
        for end in (ours, self.theirs):
            end.setblocking(False)
            end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 8192)
        self.reactor = Reactor()
        self.transport = transport._TcpServer(ours, object(), ("peer", 1), None, 1, self.reactor)

    def read(self) -> bytes:
        """Return what the other end has now."""
        pieces = []
        try:
            while True:
                pieces.append(self.theirs.recv(1 << 20))
        except BlockingIOError:
            return b"".join(pieces)

    def test_private_names_of_twisted(self) -> None:
        """The names of Twisted's that the direct write stands on are there."""
        self.assertTrue(transport.SUPPORTED)
        self.assertEqual(self.transport._tempDataLen, 0)
        self.assertEqual(self.transport.dataBuffer, b"")
        self.assertFalse(self.transport.TLS)
        self.assertTrue(callable(abstract.FileDescriptor._maybePauseProducer))
        self.assertTrue(issubclass(tcp.Port.transport, tcp.Server))
        self.assertTrue(issubclass(unix.Port.transport, unix.Server))

    def test_small_write_is_sent_at_once(self) -> None:
        """What the kernel takes leaves before `write` returns, and nothing waits for the reactor."""
        self.transport.write(b"hello")
        self.assertEqual(self.read(), b"hello")
        self.assertEqual(self.reactor.writers, set())

    def test_rest_is_queued_in_order(self) -> None:
        """What the kernel does not take is queued, later writes behind it, and all arrives in order."""
        producer = Producer()
        self.transport.registerProducer(producer, True)
        sent = b"".join(bytes((number,)) * 100_000 for number in range(10))
        for start in range(0, len(sent), 100_000):
            self.transport.write(sent[start : start + 100_000])
        self.assertEqual(self.reactor.writers, {self.transport})
        self.assertEqual(set(producer.calls), {"pause"})
        got = b""
        while self.reactor.writers:
            got += self.read()
            self.transport.doWrite()
        got += self.read()
        self.assertEqual(got, sent)
        self.assertEqual(producer.calls.count("resume"), 1)
        self.transport.write(b"more")
        self.assertEqual(self.read(), b"more")

    def test_broken_socket(self) -> None:
        """A write to a peer that has gone does not raise; the reactor finds the end."""
        self.theirs.close()
        self.transport.write(b"x")
        self.transport.write(b"x" * 100)
        self.assertIsNotNone(self.transport.doWrite())

    def test_close_under_tls(self) -> None:
        """Under TLS, too, the connection closes as soon as our own farewell is out, whatever the peer says."""

        class Tls:
            def loseConnection(self) -> None:
                abstract.FileDescriptor.write(transport, b"farewell")

        transport = self.transport
        transport.TLS, transport.protocol = True, Tls()
        transport.loseConnection()
        self.assertIs(transport.doWrite(), CONNECTION_DONE)
        self.assertEqual(self.read(), b"farewell")

    def test_peer_ends_tls_amid_a_result(self) -> None:
        """If the peer has ended TLS, the connection closes after the last byte, even if its producer is paused."""
        transport = self.transport
        transport.registerProducer(Producer(), True)
        transport.write(bytes(1_000_000))
        transport.TLS = True
        abstract.FileDescriptor.loseConnection(transport)  # as TLS does it
        sent = 0
        while transport in self.reactor.writers and (ended := transport.doWrite()) is None:
            sent += len(self.read())
        self.assertIs(ended, CONNECTION_DONE)
        self.assertEqual(sent + len(self.read()), 1_000_000)

    def test_nothing_is_written_after_the_end(self) -> None:
        """A write after loseConnection is not sent, whether something waited then or not."""
        self.transport.loseConnection()
        self.transport.write(b"late")
        self.assertEqual(self.read(), b"")

    def test_close_with_nothing_queued(self) -> None:
        """If nothing waits to be sent, the connection ends in the next turn, and its protocol is told."""
        told = []

        class Told:
            def connectionLost(self, reason: Failure) -> None:
                """Remember."""
                told.append(reason.value)

        self.transport.protocol = Told()
        self.transport.write(b"farewell")
        self.transport.loseConnection()
        self.assertEqual(told, [])
        (close,) = self.reactor.later
        close()
        self.assertEqual(told, [CONNECTION_DONE])
        self.assertEqual(self.theirs.recv(100), b"farewell")
        self.assertEqual(self.theirs.recv(100), b"")

    def test_whether_the_peer_can_delay_a_close(self) -> None:
        """A close that waits for nothing is certain; one with bytes that the peer has not taken is not."""
        self.transport.write(bytes(1_000_000))
        self.assertFalse(transport.close(self.transport))
        while self.transport in self.reactor.writers and self.transport.doWrite() is None:
            self.read()
        ours, theirs = socket.socketpair()
        self.addCleanup(theirs.close)
        self.addCleanup(ours.close)
        self.assertTrue(transport.close(transport._TcpServer(ours, object(), ("peer", 1), None, 1, self.reactor)))

    def test_several_close_by_one_call(self) -> None:
        """All connections that close have one call of the reactor, and one whose end fails does not keep the others."""
        ours, theirs = socket.socketpair()
        self.addCleanup(theirs.close)
        self.addCleanup(ours.close)
        other = transport._TcpServer(ours, object(), ("peer", 1), None, 1, self.reactor)

        class Broken:
            def connectionLost(self, reason: Failure) -> None:
                """Fail."""
                raise RuntimeError("broken")

        for each in (self.transport, other):
            each.protocol = Broken()
            each.loseConnection()
        (close,) = self.reactor.later
        close()
        self.assertEqual(len(self.flushLoggedErrors(RuntimeError)), 2)
        self.assertTrue(self.transport.disconnected and other.disconnected)
        self.reactor.later.clear()
        again = transport._TcpServer(socket.socket(), object(), ("peer", 1), None, 1, self.reactor)
        again.protocol = Broken()
        again.loseConnection()
        self.reactor.later.pop()()
        self.flushLoggedErrors(RuntimeError)

    def test_write_before_the_close(self) -> None:
        """A connection that is written to before its turn comes ends as well, and nothing is watched any more."""

        class Told:
            def connectionLost(self, reason: Failure) -> None:
                """Be told."""

        self.transport.protocol = Told()
        self.transport.loseConnection()
        self.transport.write(b"late")
        for call in self.reactor.later:
            call()
        self.assertTrue(self.transport.disconnected)
        self.assertEqual((self.reactor.readers, self.reactor.writers), (set(), set()))

    def test_abort_before_the_close(self) -> None:
        """A connection that is aborted before its turn comes ends once."""
        told = []

        class Told:
            def connectionLost(self, reason: Failure) -> None:
                """Remember."""
                told.append(reason.type)

        self.transport.protocol = Told()
        self.transport.loseConnection()
        self.transport.abortConnection()
        for call in self.reactor.later:
            call()
        self.assertEqual(len(told), 1)


class WatchTests(SynchronousTestCase):
    def setUp(self) -> None:
        """Listen."""
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.addCleanup(self.listener.close)

    def accept(self) -> socket.socket:
        """Return a socket that a peer has connected to."""
        theirs = socket.create_connection(self.listener.getsockname())
        self.addCleanup(theirs.close)
        ours, _ = self.listener.accept()
        self.addCleanup(ours.close)
        return ours

    def assert_watched(self, ours: socket.socket) -> None:
        """Fail unless a socket has all options."""
        for option, value in (
            (socket.TCP_NODELAY, 1),
            (socket.TCP_KEEPIDLE, 5),
            (socket.TCP_KEEPINTVL, 5),
            (socket.TCP_KEEPCNT, 5),
            (socket.TCP_USER_TIMEOUT, 60_000),
        ):
            self.assertEqual(ours.getsockopt(socket.IPPROTO_TCP, option), value)
        self.assertEqual(ours.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE), 1)

    def test_vanished_peers_are_found(self) -> None:
        """Keepalive and the user timeout are set on TCP sockets, and Unix sockets are left alone."""
        ours = self.accept()
        transport.watch_peer(tcp.Server(ours, object(), ("peer", 1), None, 1, Reactor()))
        self.assert_watched(ours)
        one, other = socket.socketpair()
        self.addCleanup(other.close)
        self.addCleanup(one.close)
        transport.watch_peer(transport._UnixServer(one, object(), "", None, 1, Reactor()))

    def test_accepted_sockets_inherit(self) -> None:
        """What a listening port of ours accepts has the options from the beginning."""
        port = tcp.Port(0, object(), reactor=Reactor())
        port.socket = self.listener
        transport.write_at_once(port)
        ours = self.accept()
        self.assert_watched(ours)
        transport.watch_peer(transport._TcpServer(ours, object(), ("peer", 1), None, 1, Reactor()))
        self.assert_watched(ours)


class SeamTests(SynchronousTestCase):
    def test_address_of_this_side(self) -> None:
        """A connection came in where its port listens; it is asked itself only if that is everywhere."""
        for host, asked in (("127.0.0.1", False), ("", True)):
            listener = socket.create_server((host, 0))
            self.addCleanup(listener.close)
            port = tcp.Port(0, object(), reactor=Reactor())
            port.socket = listener
            transport.write_at_once(port)
            theirs = socket.create_connection(("127.0.0.1", listener.getsockname()[1]))
            self.addCleanup(theirs.close)
            ours, _ = listener.accept()
            self.addCleanup(ours.close)
            accepted = transport._TcpServer(ours, object(), ("peer", 1), port, 1, Reactor())
            self.assertEqual(accepted.getHost(), IPv4Address("TCP", *ours.getsockname()))
            self.assertEqual(accepted.getHost() is accepted.getHost(), not asked)

    def test_only_plain_ports_are_changed(self) -> None:
        """A listening port of another kind is left alone."""

        class Other(tcp.Port):
            pass

        port = Other(0, object(), reactor=Reactor())
        transport.write_at_once(port)
        self.assertIs(port.transport, tcp.Server)
        plain = tcp.Port(0, object(), reactor=Reactor())
        plain.socket = socket.socket()
        self.addCleanup(plain.socket.close)
        transport.write_at_once(plain)
        self.assertIs(plain.transport, transport._TcpServer)


class SupportTests(SynchronousTestCase):
    def test_without_the_extra_tls(self) -> None:
        """Our transports are used without pyOpenSSL, too: by default it is not installed."""
        program = (
            "import sys; sys.modules['OpenSSL'] = None\n"
            "from odptwist.sessions.transport import SUPPORTED\n"
            "from twisted.internet.tcp import Connection\n"
            "print(SUPPORTED, hasattr(Connection, 'startTLS'))"
        )
        done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
        self.assertEqual(done.stdout, "True False\n")
