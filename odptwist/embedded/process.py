"""The embedded server as Twisted sees it: a process, and the login that tells whether the server is in service."""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

from twisted.internet.defer import Deferred
from twisted.internet.error import ProcessTerminated
from twisted.internet.interfaces import ITCPTransport
from twisted.internet.protocol import ProcessProtocol, Protocol, connectionDone
from twisted.python.failure import Failure

from odptwist.errors import EmbeddedError, WireError
from odptwist.wire.constants import (
    CHARSET_UTF8MB4_GENERAL_CI,
    CLIENT_LONG_PASSWORD,
    CLIENT_PLUGIN_AUTH,
    CLIENT_PROTOCOL_41,
    CLIENT_SECURE_CONNECTION,
    COM_QUIT,
    ER_ACCESS_DENIED_ERROR,
)
from odptwist.wire.framing import DEFAULT_LIMIT, Deframer, Packet, frame
from odptwist.wire.handshake import HandshakeResponse, parse_greeting
from odptwist.wire.responses import ERR_HEADER, parse_err

OUTPUT_LIMIT = 4096
"""Bytes of the server's standard output and error that are kept for an error's text."""

_CAPABILITIES = CLIENT_LONG_PASSWORD | CLIENT_PROTOCOL_41 | CLIENT_SECURE_CONNECTION | CLIENT_PLUGIN_AUTH


class ServerProcess(ProcessProtocol):
    """The server's process.

    Attributes:
        pid: 0 before the process exists.
        fate: how it ended, for people; None as long as it runs.
        exit_code: None as long as it runs, and if it was ended by a signal.
        output: the end of what it wrote, at most OUTPUT_LIMIT bytes.
    """

    def __init__(self, on_end: Callable[[ServerProcess], None]) -> None:
        self.pid = 0
        self.fate: str | None = None
        self.exit_code: int | None = None
        self.output = bytearray()
        self._on_end = on_end
        self._waiting: list[Deferred[None]] = []

    def when_ended(self) -> Deferred[None]:
        """Return a Deferred that fires when the process is gone."""
        waiting: Deferred[None] = Deferred()
        if self.fate is None:
            self._waiting.append(waiting)
        else:
            waiting.callback(None)
        return waiting

    def kill(self) -> None:
        """Send SIGKILL; the caller knows that the process runs."""
        if self.transport is not None:
            self.transport.signalProcess("KILL")

    def connectionMade(self) -> None:
        """Give the process an empty standard input."""
        if self.transport is not None:
            self.pid = self.transport.pid
            self.transport.closeStdin()

    def childDataReceived(self, childFD: int, data: bytes) -> None:
        """Keep the end of what the process writes to either output."""
        self.output += data
        del self.output[:-OUTPUT_LIMIT]

    def processExited(self, reason: Failure) -> None:
        """Tell all who wait; `processEnded` would wait for whoever inherited the pipes."""
        status = reason.value
        if isinstance(status, ProcessTerminated) and status.signal is not None:
            self.fate = f"killed by signal {status.signal}"
        else:
            self.exit_code = status.exitCode if isinstance(status, ProcessTerminated) else 0
            self.fate = f"exit status {self.exit_code}"
        self._on_end(self)
        waiting, self._waiting = self._waiting, []
        for deferred in waiting:
            deferred.callback(None)


class LoginProbe(Protocol):
    """Logs in as root without a password, and leaves.

    Attributes:
        answered: fires when the server accepted or refused the login (somebody may have set a password); fails
            with WireError, EmbeddedError or the reason of the connection's end. Cancelling it drops the connection.
    """

    def __init__(self) -> None:
        self.answered: Deferred[None] = Deferred(lambda _: self._drop())
        self._deframer = Deframer(64 * 1024)  # A greeting, an OK or an ERR: below 1 KiB.
        self._greeted = False

    def connectionMade(self) -> None:
        """Wait for the greeting."""
        self._connection = cast(ITCPTransport, self.transport)

    def dataReceived(self, data: bytes) -> None:
        """Read the greeting and then the answer."""
        try:
            for packet in self._deframer.receive(data):
                self._receive(packet)
        except WireError as error:
            self._settle(error)

    def _receive(self, packet: Packet) -> None:
        if not self._greeted:
            parse_greeting(packet.payload)
            self._greeted = True
            response = HandshakeResponse(
                capabilities=_CAPABILITIES,
                max_packet_size=DEFAULT_LIMIT,
                charset=CHARSET_UTF8MB4_GENERAL_CI,
                user="root",
                auth_response=b"",
                plugin="mysql_native_password",
            )
            self._connection.write(frame(response.encode(), packet.sequence + 1))
            return
        if packet.payload[:1] == bytes([ERR_HEADER]):
            error = parse_err(packet.payload)
            if error.code != ER_ACCESS_DENIED_ERROR:
                self._settle(EmbeddedError(f"login refused: {error.code} {error.message}"))
                return
        self._settle()

    def _settle(self, error: Exception | None = None) -> None:
        """Fire `answered` once, and leave: politely after an answer, at once after an error."""
        if self.answered.called:
            return
        if error is None:
            self._connection.write(frame(bytes([COM_QUIT]), 0))
            self._connection.loseConnection()
            self.answered.callback(None)
        else:
            self._drop()
            self.answered.errback(error)

    def _drop(self) -> None:
        self._connection.abortConnection()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Fail `answered` if the server left without an answer."""
        if not self.answered.called:
            self.answered.errback(reason)
