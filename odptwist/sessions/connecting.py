"""Connections to servers: transports that write at once, and come to their server with few detours.

Twisted has a connector and a timer for each, waits until the socket can be written to, and asks for the outcome then.
Here the socket is read from at once: a server speaks first, so its first words tell that there is a connection, and
one event is enough for both. Whoever waits for these words has a timer, which is enough for both, too.

It needs private names of Twisted (see `transport`). Where they are missing, and on other reactors, Twisted's own
connectors are used.
"""

from __future__ import annotations

import os
import socket
from errno import EINPROGRESS
from functools import cache, lru_cache
from typing import Any, Protocol

from attrs import frozen
from twisted.internet import tcp, unix
from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.error import ConnectBindError, UserError, getConnectError
from twisted.internet.protocol import ClientFactory
from twisted.python.failure import Failure

from odptwist.sessions.transport import SUPPORTED, DirectTransport, TcpTransport, watch
from odptwist.snapshots import Address


class Caller(Protocol):
    """Who wants a connection: a protocol as Twisted knows it."""

    def makeConnection(self, transport: Any) -> None:
        """Be connected."""

    def connection_failed(self, reason: Failure) -> None:
        """Be told that there will be no connection."""


class Attempt(Protocol):
    """A connection that is being made."""

    def stopConnecting(self) -> None:
        """Give up; the caller is told, as of any failure."""


def connect(reactor: Any, address: Address, caller: Caller, speaks_first: bool = True) -> Attempt | None:
    """Begin to connect to a server. There is no timeout: whoever waits for the outcome has one, and stops the attempt.

    Args:
        reactor: with `connectTCP` and `connectUNIX`; a stock reactor's own connectors are replaced.
        address: where to.
        caller: is told of the outcome, perhaps before this returns.
        speaks_first: whether the server speaks first. If so, the connection may be told of as late as that.

    Returns:
        None if it has failed already.
    """
    attempt: Any
    if not SUPPORTED or not isinstance(reactor, _posix_reactor()):
        attempt = (
            reactor.connectUNIX(address.path, _Once(caller), None)
            if address.path
            else reactor.connectTCP(address.host, address.port, _Once(caller), None)
        )
    elif address.path:
        attempt = _UnixConnector(address.path, _Once(caller), None, reactor, 0)  # type: ignore[no-untyped-call]
        attempt.connect()
    else:
        place = _find_place(address.host, address.port)
        if place is None:
            attempt = _LookUp(address, caller, reactor)
            attempt.begin(speaks_first)
        else:
            attempt = _begin(place, caller, reactor, speaks_first)
    return attempt  # type: ignore[no-any-return]


@frozen
class _Place:
    """Where a socket connects to."""

    family: socket.AddressFamily
    address: tuple[Any, ...]


@lru_cache
def _find_place(host: str, port: int) -> _Place | None:
    """Return the place that an address says literally, None for a name."""
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST)
    except socket.gaierror:
        return None
    return _Place(found[0][0], found[0][4])


class _LookUp:
    """An attempt that has to look up a name."""

    def __init__(self, address: Address, caller: Caller, reactor: Any) -> None:
        self._address = address
        self._caller = caller
        self._reactor = reactor
        self._client: _TcpClient | None = None
        self._looking: Any = None

    def begin(self, speaks_first: bool) -> None:
        """Ask for the address."""

        def found(host: str) -> None:
            place = _Place(socket.AF_INET, (host, self._address.port))
            self._client = _begin(place, self._caller, self._reactor, speaks_first)

        self._looking = self._reactor.resolve(self._address.host)
        self._looking.addCallbacks(found, self._caller.connection_failed)

    def stopConnecting(self) -> None:
        """Give up."""
        if self._client is not None:
            self._client.stopConnecting()
        else:
            self._looking.cancel()


def _begin(place: _Place, caller: Caller, reactor: Any, speaks_first: bool) -> _TcpClient | None:
    """Begin to connect to a place; return None if there are too many open files for it."""
    try:
        client = _TcpClient(place, caller, reactor)
    except OSError as fault:
        caller.connection_failed(Failure(ConnectBindError(fault.errno, os.strerror(fault.errno or 0))))
        return None
    client.begin(speaks_first)
    return client


class _TcpClient(TcpTransport, tcp.Connection):
    """A connection by TCP, before it is made and after that."""

    logstr = "server"
    _tlsClientDefault = True

    def __init__(self, place: _Place, caller: Caller, reactor: Any) -> None:
        super().__init__(socket.socket(place.family, socket.SOCK_STREAM), None, reactor)
        self._place = place
        self._caller = caller
        self._reads = False

    def begin(self: Any, speaks_first: bool) -> None:
        """Begin to connect; the first event of the socket says that the outcome is known."""
        fault = self.socket.connect_ex(self._place.address)
        if fault != EINPROGRESS:
            self._settle(fault)
            return
        self.doRead = self.doWrite = self._learn_outcome
        self._reads = speaks_first
        if speaks_first:
            self.startReading()
        else:
            self.startWriting()

    def _learn_outcome(self: Any) -> Any:
        del self.doRead, self.doWrite
        self._settle(self.socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR))
        return self.doRead() if self.connected else None

    def _settle(self: Any, fault: int) -> None:
        if fault:
            self._fail(Failure(getConnectError((fault, os.strerror(fault)))))
            return
        self.protocol, self._caller = self._caller, None
        self.connected = 1
        watch(self.socket)
        if not self._reads:
            self.stopWriting()
            self.startReading()
        self.protocol.makeConnection(self)

    def stopConnecting(self) -> None:
        """Give up."""
        self._fail(Failure(UserError()))

    def connectionLost(self: Any, reason: Failure) -> None:
        """Have ended, or not begun."""
        if self.connected:
            super().connectionLost(reason)
        else:
            self._fail(reason)

    def _fail(self: Any, reason: Failure) -> None:
        caller, self._caller = self._caller, None
        if caller is not None:
            self.stopReading()
            self.stopWriting()
            for name in ("doRead", "doWrite"):
                vars(self).pop(name, None)  # else it would keep itself
            self.socket.close()
            caller.connection_failed(reason)

    def getHost(self) -> IPv4Address | IPv6Address:
        """Return the address of this side."""
        return _describe(self.socket.getsockname())

    def getPeer(self) -> IPv4Address | IPv6Address:
        """Return the address of the server."""
        return _describe(self._place.address)


def _describe(address: tuple[Any, ...]) -> IPv4Address | IPv6Address:
    return IPv4Address("TCP", *address) if len(address) == 2 else IPv6Address("TCP", *address)


class _UnixClient(DirectTransport, unix.Client):
    def connectionLost(self: Any, reason: Failure) -> None:
        """Have ended, or not begun.

        Lets go of the connector: else it and the session would keep each other, one for each login, until a collection
        of garbage finds them.
        """
        super().connectionLost(reason)  # type: ignore[no-untyped-call]
        vars(self).pop("connector", None)


class _UnixConnector(unix.Connector):
    def _makeTransport(self) -> Any:
        return _UnixClient(self.address, self, self.reactor)


class _Once(ClientFactory):
    """Gives one connection its caller."""

    noisy = False

    def __init__(self, caller: Caller) -> None:
        self._caller = caller

    def buildProtocol(self, addr: object) -> Any:
        return self._caller

    def clientConnectionFailed(self, connector: object, reason: Failure) -> None:
        self._caller.connection_failed(reason)


@cache
def _posix_reactor() -> type:
    # Imported late: its module imports what only some platforms have.
    from twisted.internet.posixbase import PosixReactorBase

    return PosixReactorBase
