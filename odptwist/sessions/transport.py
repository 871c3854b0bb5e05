"""Transports that write at once: sockets of Twisted's own that try `send` before they queue.

Twisted's `write` only queues, and a later reactor turn sends; for a proxy of small packets that is more than a third
of its work (docs/reference/performance). Here `write` sends what the kernel takes, and only the rest is queued by the
stock `write`, with all that belongs to it: back-pressure, `loseConnection` after the last byte, errors.

It needs private names of Twisted (`_tempDataLen`, `_tempDataBuffer`, `Connector._makeTransport`, and by which it knows
that a transport is a client). Where they are missing, the stock transports are used; `tests/sessions/test_transport.py`
pins them.
"""

from __future__ import annotations

import fcntl
import socket
import termios
from ipaddress import ip_address
from typing import Any, cast
from weakref import WeakKeyDictionary

from twisted.internet import abstract, tcp, unix
from twisted.internet.interfaces import IListeningPort
from twisted.internet.main import CONNECTION_DONE, CONNECTION_LOST
from twisted.logger import Logger
from twisted.python.failure import Failure

# What one read takes, and what may be queued before the other side is paused. Small packets cost the same as with
# Twisted's 64 KiB, large results 6 to 40 % less (docs/reference/performance).
BUFFER_SIZE = 256 * 1024

_log = Logger()

# One for all, as in Twisted's own loop: nobody adds to it.
_DONE = Failure(CONNECTION_DONE)

SUPPORTED = (
    hasattr(abstract.FileDescriptor, "_maybePauseProducer")
    and hasattr(unix.Connector, "_makeTransport")
    and (hasattr(tcp.Client, "_tlsClientDefault") or not hasattr(tcp.Client, "startTLS"))
)


# By reactor, the connections that close in its next turn, all by one delayed call: those of a client and its server end
# together, and others with them.
_closing: WeakKeyDictionary[Any, list[Any]] = WeakKeyDictionary()


def _close_soon(transport: Any) -> None:
    waiting = _closing.setdefault(transport.reactor, [])
    if not waiting:
        transport.reactor.callLater(0, _close_all, waiting)
    waiting.append(transport)


def _close_all(waiting: list[Any]) -> None:
    closing = waiting.copy()
    waiting.clear()
    for transport in closing:
        try:
            transport._close()
        except Exception:  # noqa: BLE001 - as by the reactor: the others must not suffer
            _log.failure("a connection could not be closed")


class DirectTransport:
    """Mixed into a transport of `twisted.internet.tcp` or `unix`.

    What the relay in C looks at for every event are slots here, although Twisted would keep it in a dictionary; so it
    has to be set before Twisted's classes give their defaults.

    Attributes:
        descriptor: its number, once it has begun to read; set by the relay.
    """

    __slots__ = ("TLS", "_tempDataLen", "connected", "dataBuffer", "descriptor", "disconnecting", "protocol")

    bufferSize = BUFFER_SIZE
    reads_lean = True
    disconnecting: Any
    closes_next = False
    # Twisted shuts a socket down before it closes it, in case another process has it, too. None has.
    _shouldShutdown = False

    def __init__(self, *arguments: Any) -> None:
        self.TLS = False
        self.connected = self.disconnecting = self._tempDataLen = 0
        self.dataBuffer = b""
        self.descriptor = -1
        super().__init__(*arguments)

    def doRead(self: Any) -> Any:
        """Pass on what has come, and say why the connection has ended if it has."""
        try:
            data = self.socket.recv(BUFFER_SIZE)
        except BlockingIOError:
            return None
        except OSError:
            return CONNECTION_LOST
        if not data:
            return CONNECTION_DONE
        self.protocol.dataReceived(data)
        return None

    def write(self: Any, data: bytes) -> None:
        """Send `data` now as far as the kernel takes it, and queue the rest."""
        if not self._tempDataLen and not self.dataBuffer and not self.TLS and self.connected and not self.disconnecting:
            try:
                sent = self.socket.send(data)
            except OSError:
                # Would block, or broken: the stock path waits for the socket, or finds and reports the fault.
                sent = 0
            if sent == len(data):
                return
            data = data[sent:]
        super().write(data)  # type: ignore[misc]

    def loseConnection(self: Any) -> None:
        """Close after the last byte, under TLS after our own farewell.

        Twisted would wait for the peer's farewell too, which a client that sits idle does not send. If nothing waits to
        be sent, nothing has to become writable: that saves a turn of the reactor and five system calls.
        """
        waits = self.dataBuffer or self._tempDataLen or self.TLS or self.producer
        if self.connected and not (self.disconnecting or waits):
            self.disconnecting = self.closes_next = True
            self.stopReading()
            _close_soon(self)
            return
        super().loseConnection()  # type: ignore[misc]
        if self.TLS:
            abstract.FileDescriptor.loseConnection(self)

    def doWrite(self: Any) -> Any:
        """Send what is queued; say that the connection has ended if it is to close, and nothing is left.

        Twisted would resume a paused producer instead. When the peer has ended TLS, the producer is a session that was
        not told: what it writes goes nowhere, nothing is read any more, and so it would never end.
        """
        ended = super().doWrite()  # type: ignore[misc]
        if ended is None and self.TLS and self.disconnecting and not count_waiting(self):
            return self._postLoseConnection()
        return ended

    def _close(self: Any) -> None:
        if not self.disconnected:
            self.connectionLost(_DONE)


class TcpTransport(DirectTransport):
    """Mixed into a transport of `twisted.internet.tcp`."""

    is_watched = True

    def _close(self: Any) -> None:
        """End. Nobody reads, writes or produces any more, so this is left of what Twisted does."""
        if self.disconnected:
            return
        if self._tempDataLen or self.producer:  # somebody has begun again after `loseConnection`
            self.connectionLost(_DONE)
            return
        self.disconnected, self.connected = 1, 0
        protocol = self.protocol
        self.socket.close()
        del self.protocol, self.socket, self.fileno
        protocol.connectionLost(_DONE)


class _TcpServer(TcpTransport, tcp.Server):
    def getHost(self: Any) -> Any:
        """Return the address of this side: that of its port, unless that one listens on all addresses."""
        return getattr(self.server, "sole_host", None) or super().getHost()  # type: ignore[no-untyped-call]


class _UnixServer(DirectTransport, unix.Server):
    pass


def close(transport: Any) -> bool:
    """Close a connection after the last byte, and return whether the peer can delay that no more."""
    transport.loseConnection()
    return getattr(transport, "closes_next", False)


def count_waiting(transport: Any) -> int:
    """Return how many bytes were written to a transport that its kernel has not taken."""
    queued = len(getattr(transport, "dataBuffer", b"")) - int(getattr(transport, "offset", 0))
    return queued + int(getattr(transport, "_tempDataLen", 0))


def is_taken(transport: Any) -> bool:
    """Return whether the peer's kernel has all that was written to a socket transport (tcp(7), SIOCOUTQ)."""
    if transport.dataBuffer or transport._tempDataLen:
        return False
    try:
        left = fcntl.ioctl(transport.fileno(), termios.TIOCOUTQ, b"\0" * 4)
    except OSError:
        return True
    return left == b"\0" * 4


# Seconds. The keepalive is ODP's (spec 9.2), but where there is a user timeout Linux goes by that, not by the count: a
# peer that vanished silently is found after a minute, whether bytes wait for it or not (measured: 61 s). That is how
# long MariaDB and MySQL wait for a client that does not read.
KEEPALIVE_IDLE = KEEPALIVE_INTERVAL = KEEPALIVE_COUNT = 5
USER_TIMEOUT = 60


def watch_peer(transport: Any) -> None:
    """Send small packets at once, and let the kernel find out when the peer has vanished.

    The peer of a Unix socket cannot vanish silently.
    """
    if getattr(transport, "is_watched", False):
        return
    handle = transport.getHandle() if hasattr(transport, "getHandle") else None
    if isinstance(handle, socket.socket) and handle.family in (socket.AF_INET, socket.AF_INET6):
        watch(handle)


def watch(handle: socket.socket) -> None:
    """Do so for a TCP socket; what a listening socket accepts inherits it."""
    handle.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    handle.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    handle.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, KEEPALIVE_IDLE)
    handle.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, KEEPALIVE_INTERVAL)
    handle.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, KEEPALIVE_COUNT)
    handle.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, USER_TIMEOUT * 1000)


def write_at_once(port: IListeningPort) -> None:
    """Make a listening port give its connections transports that write at once.

    A port that is not a plain TCP or Unix port (another reactor's, a wrapper's) is left as it is.
    """
    plain = cast(Any, port)
    if SUPPORTED and type(port) is tcp.Port:
        # Linux gives the options of a listening socket to those that it accepts.
        watch(plain.socket)
        plain.transport = _TcpServer
        host = plain.getHost()
        plain.sole_host = None if ip_address(host.host).is_unspecified else host
        plain.reads_lean = True
    elif SUPPORTED and type(port) is unix.Port:
        plain.transport = _UnixServer
        plain.reads_lean = True
