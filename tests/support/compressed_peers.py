"""A client and a server that compress, and are as strict about numbers as the strictest real ones.

They share no code with the proxy's compression. The client is as strict as go-sql-driver. The server stands for a MySQL
8, which could not be had, with zstd; it checks the numbers outside as MySQL does and those inside as seekdb does.
"""

from __future__ import annotations

import re
import socket
import threading
import zlib
from collections.abc import Callable
from typing import Any

from odptwist.answers import Column, ColumnType, Table
from odptwist.machines.server_login import FALLBACK
from odptwist.wire.constants import CLIENT_COMPRESS, CLIENT_ZSTD_COMPRESSION, COM_QUERY, COM_QUIT
from odptwist.wire.framing import Deframer, Packet, frame
from odptwist.wire.handshake import Greeting, HandshakeResponse, parse_handshake_response
from odptwist.wire.responses import Err, Ok
from odptwist.wire.resultset import encode_table
from tests.support.raw_client import CAPABILITIES, Closed, RawClient

FLAGS = {"zlib": CLIENT_COMPRESS, "zstd": CLIENT_ZSTD_COMPRESSION}
_LONGEST = 0xFFFFFF


def _deflate(algorithm: str, content: bytes) -> bytes:
    if algorithm == "zlib":
        return zlib.compress(content)
    import zstandard

    return zstandard.ZstdCompressor().compress(content)


def _inflate(algorithm: str, content: bytes) -> bytes:
    if algorithm == "zlib":
        return zlib.decompress(content)
    import zstandard

    return zstandard.ZstdDecompressor().decompress(content, max_output_size=_LONGEST)


class Channel:
    """Compressed packets on a socket.

    Attributes:
        number: of the next compressed packet, in either direction.
        raw: how many bytes have come, compressed.

    Args:
        read: returns exactly so many bytes, or raises `Closed`.
        write: sends all of some bytes.
        algorithm: `zlib` or `zstd`.
    """

    def __init__(self, read: Callable[[int], bytes], write: Callable[[bytes], None], algorithm: str) -> None:
        self.number = 0
        self.raw = 0
        self._read = read
        self._write = write
        self._algorithm = algorithm

    def send(self, data: bytes) -> None:
        """Send bytes."""
        for start in range(0, len(data), _LONGEST):
            content, size = data[start : start + _LONGEST], 0
            if len(content) >= 50:
                content, size = _deflate(self._algorithm, content), len(content)
            header = len(content).to_bytes(3, "little") + bytes((self.number,)) + size.to_bytes(3, "little")
            self._write(header + content)
            self.number = (self.number + 1) & 0xFF

    def receive(self) -> bytes:
        """Return the content of the next compressed packet; fail if it does not bear the number that is due."""
        header = self._read(7)
        length, size = int.from_bytes(header[:3], "little"), int.from_bytes(header[4:], "little")
        if header[3] != self.number or not length:
            raise AssertionError(f"compressed packet {header[3]} of {length} bytes came where {self.number} was due")
        self.number = (self.number + 1) & 0xFF
        content = self._read(length)
        self.raw += 7 + length
        if not size:
            return content
        content = _inflate(self._algorithm, content)
        if len(content) != size:
            raise AssertionError(f"{len(content)} bytes came where {size} were announced")
        return content


def _reader(peer: socket.socket) -> Callable[[int], bytes]:
    def read(size: int) -> bytes:
        parts = []
        while size:
            try:
                part = peer.recv(min(size, 1 << 16))
            except ConnectionError:
                raise Closed("reset") from None
            if not part:
                raise Closed("the end")
            parts.append(part)
            size -= len(part)
        return b"".join(parts)

    return read


class CompressedClient(RawClient):
    """A raw client that compresses from the end of its login on.

    Attributes:
        channel: None before that.
    """

    channel: Channel | None = None

    def __init__(self, port: int, algorithm: str = "zlib", **more: Any) -> None:
        super().__init__(port, **more)
        self._algorithm = algorithm

    def login(
        self,
        user: str = "root",
        password: bytes = b"",
        database: str | None = None,
        capabilities: int = CAPABILITIES,
    ) -> Ok | Err:
        """As `RawClient.login`."""
        answer = super().login(user, password, database, capabilities | FLAGS[self._algorithm])
        if isinstance(answer, Ok):
            self.channel = Channel(_reader(self.socket), super().send_raw, self._algorithm)
        return answer

    def send_raw(self, data: bytes) -> None:
        """Send packets, compressed after the login."""
        if self.channel is None:
            super().send_raw(data)
        else:
            self.channel.send(data)

    def send(self, payload: bytes, sequence: int = 0) -> None:
        """Send a packet; a new command has number 0."""
        if self.channel is not None and not sequence:
            self.channel.number = 0
        super().send(payload, sequence)

    def read_packet(self) -> Packet:
        """Return the next packet; as `RawClient.read_packet`."""
        if self.channel is None:
            return super().read_packet()
        packet = self._deframer.receive_one(b"")
        while packet is None:
            packet = self._deframer.receive_one(self.channel.receive())
        self.sequence = packet.sequence
        return packet


class CompressedServer:
    """A server that offers an algorithm, and answers `SELECT n` with a row of n letters; each connection in a thread.

    Attributes:
        port: on this machine.
        responses: the handshake responses of all connections.
        fault: what a connection has ended with, if that was against the rules.
    """

    def __init__(self, algorithm: str) -> None:
        self.responses: list[HandshakeResponse] = []
        self.fault: Exception | None = None
        self._algorithm = algorithm
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listening.getsockname()[1])
        self.address = f"127.0.0.1:{self.port}"
        threading.Thread(target=self._accept, daemon=True).start()

    def stop(self) -> None:
        """Take no more connections."""
        self._listening.close()

    def _accept(self) -> None:
        while True:
            try:
                peer, _ = self._listening.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(peer,), daemon=True).start()

    def _serve(self, peer: socket.socket) -> None:
        try:
            with peer:
                peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                self._talk(peer)
        except (Closed, OSError):
            pass
        except Exception as fault:  # noqa: BLE001 - the test looks at it
            self.fault = fault

    def _talk(self, peer: socket.socket) -> None:
        flag = FLAGS[self._algorithm]
        greeting = Greeting("8.4.0-scripted", 7, b"s" * 20, FALLBACK | flag, 0, 45, 2, "mysql_native_password")
        peer.sendall(frame(greeting.encode(), 0))
        read = _reader(peer)
        response = parse_handshake_response(read(int.from_bytes(read(4)[:3], "little")))
        self.responses.append(response)
        peer.sendall(frame(Ok(status=2).encode(0), 2))
        if not response.capabilities & flag:
            raise AssertionError("the proxy did not ask for compression")
        channel = Channel(read, peer.sendall, self._algorithm)
        deframer = Deframer(1 << 27)
        while True:
            channel.number = 0
            packet = None
            while packet is None:
                packet = deframer.receive_one(channel.receive())
            if deframer.buffered or packet.sequence != len(packet.payload) // _LONGEST:
                raise AssertionError(f"a command ends with number {packet.sequence}")
            if packet.payload[0] == COM_QUIT:
                return
            number = (packet.sequence + 1) & 0xFF
            asked = re.fullmatch(rb"SELECT (\d+)", packet.payload[1:])
            if packet.payload[0] == COM_QUERY and asked:
                table = Table((Column("x", ColumnType.VARCHAR),), (("c" * int(asked[1]),),))
                channel.send(encode_table(table, number, 0, 2))
            else:
                channel.send(frame(Ok(affected_rows=len(packet.payload), status=2).encode(0), number))
