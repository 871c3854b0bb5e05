"""A proxy in memory: its sessions on string transports, under a clock that tests turn."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from attrs import evolve
from twisted.internet.address import IPv4Address
from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionAborted, ConnectionDone, ConnectionRefusedError
from twisted.internet.testing import MemoryReactorClock
from twisted.python.failure import Failure

from odptwist.access import TenantAccessPolicy
from odptwist.cluster.model import Cluster, Clusters, Server
from odptwist.cluster.routing import RoleRouter
from odptwist.machines.exchange import plain_prefixes
from odptwist.sessions.ids import SessionIds
from odptwist.sessions.listener import PLAIN, Listener
from odptwist.sessions.paused import PausedClients
from odptwist.sessions.registry import Entrance, Numbers, Registry
from odptwist.sessions.surroundings import Surroundings
from odptwist.snapshots import Address, Privileges, ReadPolicy, Role, ServerTraits
from odptwist.statements import builtin_statements, processlist_statement, server_statements
from odptwist.statements.table import StatementTable
from odptwist.wire import constants as c
from odptwist.wire.framing import Deframer, Packet, frame
from odptwist.wire.handshake import Greeting, HandshakeResponse
from odptwist.wire.responses import Eof, Err, Ok, parse_err
from odptwist.wire.resultset import ColumnDefinition, encode_text_row

CAPABILITIES = (
    c.CLIENT_LONG_PASSWORD
    | c.CLIENT_PROTOCOL_41
    | c.CLIENT_SECURE_CONNECTION
    | c.CLIENT_PLUGIN_AUTH
    | c.CLIENT_CONNECT_WITH_DB
    | c.CLIENT_MULTI_STATEMENTS
    | c.CLIENT_MULTI_RESULTS
    | c.CLIENT_SESSION_TRACK
    | c.CLIENT_PLUGIN_AUTH_LENENC_CLIENT_DATA
)
OK = Ok(0, 0, c.SERVER_STATUS_AUTOCOMMIT, 0)
IN_TRANSACTION = Ok(0, 0, c.SERVER_STATUS_AUTOCOMMIT | c.SERVER_STATUS_IN_TRANS, 0)


class Wire:
    """A transport that collects what is written, and ends when it is told to, one turn later as Twisted does."""

    def __init__(self, reactor: Any, host: str = "127.0.0.1", port: int = 40000) -> None:
        self.reactor = reactor
        self.peer = IPv4Address("TCP", host, port)
        self.written = b""
        self.protocol: Any = None
        self.producer: Any = None
        self.paused = False
        self.ended: str | None = None
        self.takes = True

    def write(self, data: bytes) -> None:
        """Collect, unless the connection has ended."""
        if self.ended is None:
            self.written += data

    def getPeer(self) -> IPv4Address:
        """Return the address of the other side."""
        return self.peer

    def getHost(self) -> IPv4Address:
        """Return the address of this side."""
        return IPv4Address("TCP", "10.0.0.7", 2883)

    def setTcpNoDelay(self, on: bool) -> None:
        """Do as a TCP transport."""

    def setTcpKeepAlive(self, on: bool) -> None:
        """Do as a TCP transport."""

    def registerProducer(self, producer: Any, streaming: bool) -> None:
        """Remember who fills this transport."""
        self.producer = producer

    def unregisterProducer(self) -> None:
        """Forget the producer."""
        self.producer = None

    def pauseProducing(self) -> None:
        """Stop reading."""
        self.paused = True

    def resumeProducing(self) -> None:
        """Go on reading."""
        self.paused = False

    def loseConnection(self) -> None:
        """Close after the last byte: never, if the peer does not take it."""
        if self.takes and self.ended is None:
            self._end("closed", ConnectionDone())

    def abortConnection(self) -> None:
        """Close now."""
        if self.ended is None:
            self._end("aborted", ConnectionAborted())

    def lose(self) -> None:
        """Be closed by the other side."""
        if self.ended is None:
            self._end("lost", ConnectionDone())

    def _end(self, how: str, reason: Exception) -> None:
        self.ended = how
        self.reactor.callLater(0, self.protocol.connectionLost, Failure(reason))


class Peer:
    """The other side of a `Wire`: a client or a server in the hands of a test."""

    def __init__(self, wire: Wire) -> None:
        self.wire = wire
        self._deframer = Deframer(1 << 26)
        self._read = 0

    def packets(self) -> list[Packet]:
        """Return the packets that have come since the last call."""
        data = self.wire.written[self._read :]
        self._read = len(self.wire.written)
        return self._deframer.receive(data)

    def payloads(self) -> list[bytes]:
        """Return the payloads that have come since the last call."""
        return [packet.payload for packet in self.packets()]

    def send(self, data: bytes) -> None:
        """Send bytes to the proxy."""
        if self.wire.ended is None:
            self.wire.protocol.dataReceived(data)


class ClientPeer(Peer):
    """A client."""

    def query(self, sql: bytes) -> None:
        """Send COM_QUERY."""
        self.command(c.COM_QUERY, sql)

    def command(self, code: int, rest: bytes = b"") -> None:
        """Send a command."""
        self.send(frame(bytes((code,)) + rest, 0))

    def error(self) -> tuple[int, str]:
        """Return code and text of the one ERR packet that has come."""
        (payload,) = self.payloads()
        err = parse_err(payload)
        return err.code, err.message


class ServerPeer(Peer):
    """A server."""

    def __init__(self, wire: Wire, thread_id: int) -> None:
        super().__init__(wire)
        self.thread_id = thread_id

    def greet(self, capabilities: int = CAPABILITIES) -> None:
        """Send a greeting."""
        self.send(frame(greeting(self.thread_id, capabilities).encode(), 0))

    def accept(self, sequence: int = 2) -> None:
        """Send the OK of a login."""
        self.send(frame(OK.encode(CAPABILITIES), sequence))

    def ok(self, ok: Ok = OK) -> None:
        """Answer with OK."""
        self.send(frame(ok.encode(CAPABILITIES), 1))

    def err(self, code: int, message: str, sequence: int = 1) -> None:
        """Answer with ERR."""
        self.send(frame(Err(code, "HY000", message).encode(), sequence))

    def row(self, value: bytes = b"1") -> None:
        """Answer with one row of one column."""
        self.send(result([[value]]))


def greeting(thread_id: int, capabilities: int = CAPABILITIES) -> Greeting:
    """Return a greeting as MariaDB sends it."""
    return Greeting(
        server_version="10.11.0-MariaDB",
        thread_id=thread_id,
        salt=b"a" * 20,
        capabilities=capabilities,
        mariadb_capabilities=0,
        charset=45,
        status=2,
        plugin="mysql_native_password",
    )


def response(user: str = "root", auth_response: bytes = b"", database: str | None = None) -> bytes:
    """Return a client's handshake response, framed."""
    payload = HandshakeResponse(
        capabilities=CAPABILITIES if database else CAPABILITIES & ~c.CLIENT_CONNECT_WITH_DB,
        max_packet_size=1 << 24,
        charset=45,
        user=user,
        auth_response=auth_response,
        database=database,
        plugin="mysql_native_password",
        attributes=(),
    ).encode()
    return frame(payload, 1)


def result(rows: Sequence[Sequence[bytes | None]], status: int = 2) -> bytes:
    """Return a framed result set, in the old framing."""
    column = ColumnDefinition("def", "", "", "", "x", "x", 45, 100, c.FIELD_TYPE_VAR_STRING, 0, 0)
    payloads = [bytes((len(rows[0]),)), *([column.encode()] * len(rows[0])), Eof(0, status).encode()]
    payloads += [encode_text_row(row) for row in rows]
    payloads.append(Eof(0, status).encode())
    return b"".join(frame(payload, number + 1) for number, payload in enumerate(payloads))


class House:
    """All parts of a proxy but the network."""

    def __init__(
        self,
        servers: int = 1,
        observers: Sequence[Any] = (),
        statements: Sequence[Any] = (),
        router: Any = None,
        heard: bool = True,
        roles: Sequence[Role] = (),
        read_policy: ReadPolicy = ReadPolicy.REPLICA_FIRST,
        ids: SessionIds = SessionIds(),  # noqa: B008 - frozen
    ) -> None:
        self.reactor = MemoryReactorClock()
        addresses = tuple(Address("10.1.0.1", 3306 + number) for number in range(max(servers, len(roles))))
        known = [Server(address, role) for address, role in zip(addresses, roles, strict=False)]
        self.clusters = Clusters(
            [Cluster("odp", tuple(known) or tuple(map(Server, addresses)), ("sys",), read_policy)], self.reactor
        )
        self.registry = Registry(TenantAccessPolicy())
        about_servers = (*server_statements(self.clusters), processlist_statement(ids.one_everywhere))
        table = StatementTable([*statements, *builtin_statements(), *about_servers])
        self.registry.surroundings = Surroundings(
            reactor=self.reactor,
            clusters=self.clusters,
            router=router or RoleRouter(),
            statements=table,
            directory=self.registry,
            numbers=Numbers(),
            probe=self._probe,
            plain=plain_prefixes(table.first_words),
            paused=PausedClients(self.reactor),
            observers=tuple(observers),
            ids=ids,
        )
        self.probes: list[Deferred[None]] = []
        self._thread_id = 100
        self._taken = 0
        if heard:
            self.hear()

    def use(self, **changes: Any) -> None:
        """Change what sessions see of the house, for those that live already too."""
        self.registry.surroundings = evolve(self.registry.surroundings, **changes)
        for session in self.registry._sessions.values():
            session.surroundings = self.registry.surroundings
            for server in session.server_sessions:
                server.surroundings = self.registry.surroundings

    def hear(self, capabilities: int = CAPABILITIES) -> None:
        """Let the clusters know what all servers can do."""
        for address in self.clusters.all_servers():
            self.clusters.heard(address, ServerTraits("10.11.0-MariaDB", capabilities, 45, 2, "mysql_native_password"))

    def _probe(self) -> Deferred[None]:
        self.probes.append(Deferred())
        return self.probes[-1]

    def timers(self) -> list[Any]:
        """Return what will happen when its time comes: delayed calls of the reactor, and waits that have not ended."""
        lines = self.registry.surroundings.deadlines._lines.values()
        calls = [each for each in self.reactor.getDelayedCalls() if getattr(each.func, "__self__", None) not in lines]
        return [*calls, *(wait for line in lines for wait in line.waits)]

    def turn(self) -> None:
        """Let everything happen that is due now."""
        for _ in range(20):
            self.reactor.advance(0)

    def connect(self, port: int = 40000, listener: Listener = PLAIN, host: str = "127.0.0.1") -> ClientPeer:
        """Return a client that has connected."""
        wire = Wire(self.reactor, host, port)
        wire.protocol = Entrance(self.registry, listener).buildProtocol(None)
        wire.protocol.makeConnection(wire)
        return ClientPeer(wire)

    def accept(self) -> ServerPeer:
        """Return the server's side of the proxy's next connection attempt."""
        host, port, factory, *_ = self.reactor.tcpClients[self._taken]
        self._taken += 1
        self._thread_id += 1
        wire = Wire(self.reactor, host, port)
        wire.protocol = factory.buildProtocol(None)
        wire.protocol.makeConnection(wire)
        return ServerPeer(wire, self._thread_id)

    def refuse_connection(self) -> None:
        """Refuse the proxy's next connection attempt."""
        _, _, factory, *_ = self.reactor.tcpClients[self._taken]
        self._taken += 1
        factory.clientConnectionFailed(None, Failure(ConnectionRefusedError()))

    def open(self) -> ServerPeer:
        """Return a server at which the proxy has just logged in."""
        server = self.accept()
        server.greet()
        server.packets()
        server.accept()
        return server

    @property
    def attempts(self) -> int:
        """How many connection attempts wait for a server."""
        return len(self.reactor.tcpClients) - self._taken

    def log_in(
        self, user: str = "root", auth_response: bytes = b"", unprivileged: bool = False
    ) -> tuple[ClientPeer, ServerPeer]:
        """Return a client that has logged in, and its server.

        `unprivileged`: it has no privileges, as its server has told already, and will not be asked.
        """
        client = self.connect()
        client.packets()
        client.send(response(user, auth_response))
        server = self.open()
        client.packets()
        if unprivileged:
            client.wire.protocol._privileges = Privileges.NONE
        return client, server
