"""A MySQL server that does what a script says: in-process on any transport, or as a program.

`python -m tests.support.scripted_server` prints its port, then takes scripts on its standard input, one a line as
`dump` writes them, and answers each with `ok` and its number; connections that come afterwards follow it. It ends with
its input.

Source: https://dev.mysql.com/doc/dev/mysql-server/latest/page_protocol_connection_phase.html
"""

from __future__ import annotations

import base64
import pickle
import sys
from collections.abc import Callable, Mapping
from enum import Enum, unique
from typing import Any

from attrs import evolve, field, frozen
from twisted.internet.interfaces import IAddress
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.python.failure import Failure

from odptwist.answers import Answer, Column, ColumnType, Done, Table
from odptwist.machines.server_login import FALLBACK
from odptwist.wire.constants import COM_INIT_DB, COM_PING, COM_QUERY, COM_QUIT, COM_RESET_CONNECTION, COM_STATISTICS
from odptwist.wire.framing import Deframer, Packet, frames
from odptwist.wire.handshake import Greeting, parse_handshake_response
from odptwist.wire.responses import Err, Ok
from odptwist.wire.resultset import encode_table

GREETING = Greeting(
    server_version="5.7.99-scripted",
    thread_id=0,  # counted by the factory
    salt=b"12345678" + b"123456789012",
    capabilities=FALLBACK,
    mariadb_capabilities=0,
    charset=45,
    status=2,
    plugin="mysql_native_password",
)
ONE = Table((Column("1", ColumnType.LONGLONG),), ((1,),))


@unique
class When(Enum):
    """What a step waits for."""

    CONNECTED = "connected"
    LOGIN = "login"  # the handshake response
    AUTH = "auth"  # a later packet of the client's login
    COMMAND = "command"


@frozen
class Event:
    """What has happened: a connection, or a packet with its payload."""

    when: When
    payload: bytes = b""


@frozen
class Send:
    """Send payloads as packets, their numbers following the client's packet."""

    payloads: tuple[bytes, ...]

    def __init__(self, *payloads: bytes) -> None:
        self.__attrs_init__(payloads)  # type: ignore[attr-defined]


@frozen
class SendRaw:
    """Send bytes as they are, `times` times over."""

    data: bytes
    times: int = 1


@frozen
class Close:
    """Close after the last byte is out."""


@frozen
class Abort:
    """Reset the connection."""


@frozen
class Stall:
    """Read on, and never answer again."""


@frozen
class StopReading:
    """Read nothing more."""


@frozen
class LoggedIn:
    """Send an OK that ends the login."""


@frozen
class Later:
    """Do something after a time, asked or not."""

    seconds: float
    action: Action


Action = Send | SendRaw | Close | Abort | Stall | StopReading | LoggedIn | Later


def error(code: int, message: str, sqlstate: str = "HY000", with_state: bool = True) -> Send:
    """Return the sending of an ERR packet."""
    return Send(Err(code, sqlstate, message).encode(with_state))


@frozen
class Step:
    """Something that is expected once, and what is done then instead of the default.

    Args:
        expects: says whether an event is meant. Steps wait in order: only the first that is left is asked.
        does: the actions.
    """

    expects: Callable[[Event], bool]
    does: tuple[Action, ...]

    def __init__(self, expects: Callable[[Event], bool], *does: Action) -> None:
        self.__attrs_init__(expects, does)  # type: ignore[attr-defined]


@frozen
class On:
    """A predicate: the kind of an event, and for commands the beginning of its payload (`On.query` for a text)."""

    when: When
    beginning: bytes = b""

    def __call__(self, event: Event) -> bool:
        """Say whether it is meant."""
        return event.when is self.when and event.payload.startswith(self.beginning)

    @classmethod
    def query(cls, text: str) -> On:
        """Return the predicate of a COM_QUERY whose text begins so."""
        return cls(When.COMMAND, bytes((COM_QUERY,)) + text.encode())


@frozen
class Script:
    """How a server behaves.

    Args:
        greeting: its `thread_id` is replaced by a running number unless `thread_id` says otherwise.
        thread_id: a fixed one, or None.
        steps: what goes otherwise than by default, in order; each once a connection.
        answers: SQL text -> what is answered; a `Table` or `Done` encoded for the client, an `Err`, or raw bytes.
            For all other queries, one row of one column.
        status: SERVER_STATUS_* bits in OK and EOF.
        split: send every byte in a write of its own.
    """

    greeting: Greeting = GREETING
    thread_id: int | None = None
    steps: tuple[Step, ...] = ()
    answers: Mapping[str, Answer | Err | bytes] = field(factory=dict)
    status: int = 2
    split: bool = False


class ScriptedServer(Protocol):
    """One connection of the server.

    Attributes:
        packets: all that the client has sent.
        response: the client's handshake response; None before.

    Args:
        script: what to do.
        thread_id: for the greeting.
        clock: for what comes later, and for `split` on a real transport; without one, split bytes are written at once.
    """

    def __init__(self, script: Script, thread_id: int = 1, clock: Any = None) -> None:
        self.packets: list[Packet] = []
        self.response: Any = None
        self._script = script
        self._greeting = evolve(script.greeting, thread_id=script.thread_id or thread_id)
        self._clock = clock
        self._steps = list(script.steps)
        self._deframer = Deframer(1 << 26)
        self._stage = When.LOGIN
        self._sequence = 0
        self._stalled = False
        self._capabilities = 0
        self._queue = bytearray()

    def connectionMade(self) -> None:
        """Greet, or do what the script says."""
        if hasattr(self.transport, "setTcpNoDelay"):
            self.transport.setTcpNoDelay(True)
        if not self._scripted(Event(When.CONNECTED)):
            self._send(self._greeting.encode())

    def dataReceived(self, data: bytes) -> None:
        """Answer the packets that are now whole."""
        for packet in self._deframer.receive(data):
            self.packets.append(packet)
            self._sequence = (packet.sequence + 1) & 0xFF
            if not self._stalled:
                self._answer(packet.payload)

    def _answer(self, payload: bytes) -> None:
        stage = self._stage
        if stage is When.LOGIN:
            self.response = parse_handshake_response(payload)
            self._capabilities = self.response.capabilities & self._greeting.capabilities
            self._stage = When.AUTH
        if self._scripted(Event(stage, payload)):
            return
        if stage is When.COMMAND:
            self._command(payload)
        else:
            self._do(LoggedIn())

    def _scripted(self, event: Event) -> bool:
        if not self._steps or not self._steps[0].expects(event):
            return False
        for action in self._steps.pop(0).does:
            self._do(action)
        return True

    def _do(self, action: Action) -> None:
        match action:
            case Send(payloads):
                self._send(*payloads)
            case SendRaw(data, times):
                self._write(data * times)
            case Close():
                self.transport.loseConnection()
            case Abort():
                self.transport.abortConnection()
            case Stall():
                self._stalled = True
            case StopReading():
                self.transport.pauseProducing()
            case LoggedIn():
                self._stage = When.COMMAND
                self._send(Ok(status=self._script.status).encode(self._capabilities))
            case Later(seconds, then):
                self._clock.callLater(seconds, self._do, then)

    def _command(self, payload: bytes) -> None:
        command = payload[0]
        if command == COM_QUIT:
            self.transport.loseConnection()
        elif command == COM_QUERY:
            self._reply(self._script.answers.get(payload[1:].decode("utf-8", "replace"), _default(payload[1:])))
        elif command == COM_STATISTICS:
            self._send(b"Uptime: 1")
        elif command in (COM_PING, COM_INIT_DB, COM_RESET_CONNECTION):
            self._reply(Done())
        else:
            self._reply(Err(1047, "08S01", "Unknown command"))

    def _reply(self, answer: Answer | Err | bytes) -> None:
        match answer:
            case bytes():
                self._write(answer)
            case Err():
                self._send(answer.encode())
            case Table():
                self._write(encode_table(answer, self._sequence, self._capabilities, self._script.status))
            case _:
                self._send(Ok(status=self._script.status).encode(self._capabilities))

    def _send(self, *payloads: bytes) -> None:
        framed = frames(payloads, self._sequence)
        self._sequence = framed.sequence
        self._write(framed.data)

    def _write(self, data: bytes) -> None:
        if not self._script.split:
            self.transport.write(data)
        elif self._clock is None:
            for byte in data:
                self.transport.write(bytes((byte,)))
        else:
            self._queue += data
            if len(self._queue) == len(data):
                self._write_byte()

    def _write_byte(self) -> None:
        if self._queue:
            self.transport.write(bytes((self._queue.pop(0),)))
            self._clock.callLater(0, self._write_byte)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Be over."""
        self._stalled = True
        self._queue.clear()


def _default(text: bytes) -> Answer:
    """Return the answer to a query that the script does not mention."""
    word = text[:8].upper().split(b" ")[0]
    return Done() if word in (b"SET", b"BEGIN", b"COMMIT", b"ROLLBACK", b"USE", b"KILL") else ONE


class ScriptedServerFactory(Factory):
    """Makes connections that follow `script`, which may be replaced for those to come."""

    noisy = False

    def __init__(self, script: Script | None = None, clock: Any = None) -> None:
        self.script = script or Script()
        self.connections: list[ScriptedServer] = []
        self._clock = clock
        self._thread_id = 0

    def buildProtocol(self, addr: IAddress | None) -> ScriptedServer:
        """Make a connection; it is kept in `connections`."""
        self._thread_id += 1
        server = ScriptedServer(self.script, self._thread_id, self._clock)
        server.factory = self
        self.connections.append(server)
        return server


def dump(script: Script) -> str:
    """Return a script as a line for the program. Its predicates must be values of a module (`On`)."""
    return base64.b64encode(pickle.dumps(script)).decode()


def load(line: str) -> Script:
    """Return the script that `dump` wrote."""
    script = pickle.loads(base64.b64decode(line))
    if not isinstance(script, Script):
        raise TypeError(f"{script!r} is no script")
    return script


def main() -> None:
    """Serve until the input ends."""
    from twisted.internet import reactor as chosen
    from twisted.internet.stdio import StandardIO
    from twisted.protocols.basic import LineOnlyReceiver

    reactor: Any = chosen
    factory = ScriptedServerFactory(clock=reactor)
    port = reactor.listenTCP(0, factory, backlog=1024, interface="127.0.0.1")

    class Orders(LineOnlyReceiver):
        delimiter = b"\n"
        MAX_LENGTH = 1 << 20
        _count = 0

        def lineReceived(self, line: bytes) -> None:
            factory.script = load(line.decode())
            factory.connections.clear()
            self._count += 1
            self.sendLine(b"ok %d" % self._count)

        def connectionLost(self, reason: Failure = connectionDone) -> None:
            if reactor.running:
                reactor.stop()

    sys.stdout.write(f"port {port.getHost().port}\n")
    sys.stdout.flush()
    StandardIO(Orders())
    reactor.run()


if __name__ == "__main__":
    # As a module of its own name, so that what `load` reads are the classes that this program knows.
    from tests.support.scripted_server import main as run

    run()
