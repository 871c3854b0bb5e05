"""A MySQL client on a blocking socket that sends whatever a test wants, right or wrong.

Source: https://dev.mysql.com/doc/dev/mysql-server/latest/page_protocol_connection_phase.html
"""

from __future__ import annotations

import contextlib
import socket
import struct
from types import TracebackType
from typing import Self

from odptwist.wire.constants import (
    CLIENT_CONNECT_WITH_DB,
    CLIENT_LONG_PASSWORD,
    CLIENT_MULTI_RESULTS,
    CLIENT_PLUGIN_AUTH,
    CLIENT_PROTOCOL_41,
    CLIENT_SECURE_CONNECTION,
    CLIENT_TRANSACTIONS,
    COM_QUERY,
    COM_QUIT,
)
from odptwist.wire.framing import Deframer, Packet, frame
from odptwist.wire.handshake import (
    Greeting,
    HandshakeResponse,
    parse_auth_switch_request,
    parse_greeting,
)
from odptwist.wire.responses import Err, Ok, parse_err, parse_ok
from odptwist.wire.resultset import ResultReader
from odptwist.wire.scramble import native_password

CAPABILITIES = (
    CLIENT_LONG_PASSWORD
    | CLIENT_PROTOCOL_41
    | CLIENT_TRANSACTIONS
    | CLIENT_SECURE_CONNECTION
    | CLIENT_MULTI_RESULTS
    | CLIENT_PLUGIN_AUTH
)


class Closed(Exception):
    """The peer has closed, or reset, the connection."""


class RawClient:
    """One connection.

    Attributes:
        greeting: the server's; None before `read_greeting`.
        sequence: the number of the last packet that came.
        capabilities: agreed in `login`.

    Args:
        port: on this machine.
        timeout: seconds for each wait; `TimeoutError` afterwards.
        receive_buffer: SO_RCVBUF in bytes (the kernel doubles it), for a client that soon stops the server.
        host: the client's own address, one of loopback.
        path: of a Unix socket, instead of a port.
    """

    def __init__(
        self,
        port: int,
        timeout: float = 10.0,
        receive_buffer: int | None = None,
        host: str = "127.0.0.1",
        path: str | None = None,
    ) -> None:
        self.greeting: Greeting | None = None
        self.sequence = 0
        self.capabilities = 0
        self._deframer = Deframer(1 << 26)
        self.socket = socket.socket(socket.AF_INET if path is None else socket.AF_UNIX)
        self.socket.settimeout(timeout)
        if receive_buffer is not None:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        if path is not None:
            self.socket.connect(path)
            return
        self.socket.bind((host, 0))
        self.socket.connect(("127.0.0.1", port))
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, raised: BaseException | None, at: TracebackType | None
    ) -> None:
        self.close()

    # -- bytes and packets ---------------------------------------------------------------------------------------

    def send_raw(self, data: bytes) -> None:
        """Send bytes as they are."""
        self.socket.sendall(data)

    def send(self, payload: bytes, sequence: int = 0) -> None:
        """Send a packet."""
        self.send_raw(frame(payload, sequence))

    def read_packet(self) -> Packet:
        """Return the next packet.

        Raises:
            Closed: the connection ends before it.
            TimeoutError: it does not come.
        """
        packet = self._deframer.receive_one(b"")
        while packet is None:
            try:
                data = self.socket.recv(65536)
            except ConnectionError:
                raise Closed("reset") from None
            if not data:
                raise Closed("the end, amid a packet" if self._deframer.buffered else "the end")
            packet = self._deframer.receive_one(data)
        self.sequence = packet.sequence
        return packet

    def is_closed(self) -> bool:
        """Wait for what comes next; True if it is the end of the connection, False if it is a packet."""
        try:
            self.read_packet()
        except Closed:
            return True
        return False

    # -- the login -----------------------------------------------------------------------------------------------

    def read_greeting(self) -> Greeting:
        """Return the greeting; an ERR packet in its place raises `AssertionError`."""
        payload = self.read_packet().payload
        if payload[:1] == b"\xff":
            raise AssertionError(f"an error instead of a greeting: {parse_err(payload)}")
        self.greeting = parse_greeting(payload)
        return self.greeting

    def handshake_response(
        self, user: str, password: bytes = b"", database: str | None = None, capabilities: int = CAPABILITIES
    ) -> bytes:
        """Return the payload of a login after `read_greeting`, with mysql_native_password."""
        salt = self.greeting.salt if self.greeting is not None else b""
        if database is not None:
            capabilities |= CLIENT_CONNECT_WITH_DB
        self.capabilities = capabilities
        auth_response = native_password(password, salt)
        return HandshakeResponse(
            capabilities, 1 << 24, 45, user, auth_response, database, "mysql_native_password"
        ).encode()

    def login(
        self,
        user: str = "root",
        password: bytes = b"",
        database: str | None = None,
        capabilities: int = CAPABILITIES,
    ) -> Ok | Err:
        """Read the greeting unless that is done, log in, and return how it ends.

        A switch to mysql_native_password is answered; other questions raise `AssertionError`.
        """
        if self.greeting is None:
            self.read_greeting()
        self.send(self.handshake_response(user, password, database, capabilities), self.sequence + 1)
        while True:
            payload = self.read_packet().payload
            if payload[:1] == b"\xff":
                return parse_err(payload)
            if payload[:1] == b"\x00":
                return parse_ok(payload, self.capabilities)
            request = parse_auth_switch_request(payload)
            if request.plugin != "mysql_native_password":
                raise AssertionError(f"cannot answer {request}")
            self.send(native_password(password, request.data), self.sequence + 1)

    # -- commands ------------------------------------------------------------------------------------------------

    def query(self, text: str) -> ResultReader:
        """Send a query and read its whole response."""
        self.send(bytes((COM_QUERY,)) + text.encode())
        return self.read_result()

    def read_result(self) -> ResultReader:
        """Read the whole response to a query."""
        reader = ResultReader(self.capabilities, limit=1 << 26)
        while not reader.receive(self.read_packet().payload):
            pass
        return reader

    def read_error(self) -> Err:
        """Return the ERR packet that is due."""
        return parse_err(self.read_packet().payload)

    # -- ends ----------------------------------------------------------------------------------------------------

    def quit(self) -> None:
        """End in good order."""
        self.send(bytes((COM_QUIT,)))
        self.close()

    def half_close(self) -> None:
        """Send nothing more, but go on reading."""
        self.socket.shutdown(socket.SHUT_WR)

    def abort(self) -> None:
        """Reset the connection."""
        with contextlib.suppress(OSError):
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.close()

    def close(self) -> None:
        """Close the connection as it is."""
        self.socket.close()
