"""The login's packets: greeting, handshake response, a switch of the login method, and COM_CHANGE_USER.

Source: https://dev.mysql.com/doc/dev/mysql-server/latest/page_protocol_connection_phase.html,
https://dev.mysql.com/doc/dev/mysql-server/latest/page_protocol_com_change_user.html,
https://mariadb.com/kb/en/connection/ (the extended capabilities in the filler).

Some lines over 400: how each packet is written stands beside how it is read, and what is remembered of it.
"""

from __future__ import annotations

from functools import lru_cache
from struct import Struct
from typing import Final

from attrs import field, frozen
from attrs.validators import min_len

from odptwist.errors import MalformedPacket
from odptwist.wire.constants import (
    CLIENT_CONNECT_ATTRS,
    CLIENT_CONNECT_WITH_DB,
    CLIENT_LONG_PASSWORD,
    CLIENT_PLUGIN_AUTH,
    CLIENT_PLUGIN_AUTH_LENENC_CLIENT_DATA,
    CLIENT_PROTOCOL_41,
    CLIENT_SECURE_CONNECTION,
    CLIENT_SSL,
    CLIENT_ZSTD_COMPRESSION,
    COM_CHANGE_USER,
)
from odptwist.wire.primitives import Reader, decode_text, encode_text, lenenc_bytes, null_terminated

SSL_REQUEST_SIZE: Final[int] = 32
"""Bytes of a handshake response before its user name: all that an SSLRequest has."""

# Of the salt; the second part has a NUL.
_PART_1: Final[int] = 8
_PART_2: Final[int] = 13
# Of a greeting: connection id, first part of the salt, low capabilities; then collation, status, high capabilities,
# length of the salt, MariaDB's capabilities. Of a handshake response, after its low capabilities: the high ones,
# largest packet, collation, MariaDB's capabilities.
_GREETING_HEAD: Final = Struct("<I8sxH")
_GREETING_REST: Final = Struct("<BHHB6xI")
_RESPONSE_HEAD: Final = Struct("<HIB19xI")
# Where the length of the salt is, from the connection id on.
_SALT_SIZE_AT: Final[int] = 20
# Bytes of a packet that may be remembered, without what is secret or its own. Others are read anew each time.
_KNOWN_SIZE: Final[int] = 1024
# Lengths of an auth response that take one byte, whatever the capabilities are.
_SHORT: Final[int] = 250


@frozen
class Greeting:
    """A server's first packet.

    Args:
        server_version: as in SELECT VERSION(); MariaDB 10 puts `5.5.5-` before it.
        thread_id: 32 bits; what the client takes for its connection id.
        salt: without its trailing NUL; 20 bytes from every server since 4.1, 8 from older ones.
        capabilities: 32 bits.
        mariadb_capabilities: 32 more, which exist only where CLIENT_LONG_PASSWORD is clear; otherwise 0.
        charset: number of the default collation, its low byte.
        status: SERVER_STATUS_* bits.
        plugin: the default login method; empty where CLIENT_PLUGIN_AUTH is clear.
    """

    server_version: str
    thread_id: int
    salt: bytes = field(validator=min_len(_PART_1))
    capabilities: int
    mariadb_capabilities: int
    charset: int
    status: int
    plugin: str

    def encode(self) -> bytes:
        """Return the payload."""
        before, between, after = _around_salt(
            self.server_version,
            self.capabilities,
            self.mariadb_capabilities,
            self.charset,
            self.status,
            self.plugin,
            len(self.salt),
        )
        parts = [
            before,
            _GREETING_HEAD.pack(self.thread_id, self.salt[:_PART_1], self.capabilities & 0xFFFF),
            between,
        ]
        if self.capabilities & (CLIENT_PLUGIN_AUTH | CLIENT_SECURE_CONNECTION):
            parts.append(self.salt[_PART_1:].ljust(12, b"\x00") + b"\x00")
        parts.append(after)
        return b"".join(parts)


@lru_cache
def _around_salt(
    version: str,
    capabilities: int,
    mariadb_capabilities: int,
    charset: int,
    status: int,
    plugin: str,
    salt_size: int,
) -> tuple[bytes, bytes, bytes]:
    """Return the parts of a greeting that are the same for everybody: the first, one amid the salt, the last."""
    named = bool(capabilities & CLIENT_PLUGIN_AUTH)
    return (
        b"\x0a" + null_terminated(encode_text(version)),
        _GREETING_REST.pack(
            charset,
            status,
            capabilities >> 16,
            salt_size + 1 if named else 0,
            _extended(capabilities, mariadb_capabilities),
        ),
        null_terminated(encode_text(plugin)) if named else b"",
    )


def parse_greeting(payload: bytes) -> Greeting:
    """Return a greeting of protocol 10, also of servers that end it after the low capabilities or name no plugin."""
    start = payload.find(b"\x00") + 1
    rest = start + _GREETING_HEAD.size + _GREETING_REST.size
    if not start or not rest < len(payload) <= _KNOWN_SIZE:
        return _parse_greeting(payload)
    end = rest + max(_PART_2, payload[start + _SALT_SIZE_AT] - _PART_1)
    if len(payload) < end:
        return _parse_greeting(payload)
    # A server says the same to everybody, but for the connection id and the two parts of the salt.
    thread_id, salt, _ = _GREETING_HEAD.unpack_from(payload, start)
    own = start + 4 + _PART_1
    like = _parse_known_greeting(
        payload[:start] + bytes(own - start) + payload[own:rest] + bytes(end - rest) + payload[end:]
    )
    return Greeting(
        like.server_version,
        thread_id,
        (salt + payload[rest:end])[: len(like.salt)],
        like.capabilities,
        like.mariadb_capabilities,
        like.charset,
        like.status,
        like.plugin,
    )


def _parse_greeting(payload: bytes) -> Greeting:
    reader = Reader(payload)
    version = reader.uint8()
    if version != 10:
        raise MalformedPacket(f"a greeting of protocol 10 is due, its first byte is {version}")
    server_version = decode_text(reader.null_terminated())
    thread_id, salt, capabilities = reader.unpack(_GREETING_HEAD)
    if not reader.remaining:
        return Greeting(server_version, thread_id, salt, capabilities, 0, 0, 0, "")
    charset, status, high, salt_size, mariadb_capabilities = reader.unpack(_GREETING_REST)
    capabilities |= high << 16
    if capabilities & CLIENT_LONG_PASSWORD:
        mariadb_capabilities = 0
    # At least 12 bytes and a NUL, whatever the length says; servers without plugins leave it 0 and mean 20 + 1.
    salt += reader.take(min(reader.remaining, max(_PART_2, salt_size - _PART_1)))
    salt = salt[: max(_PART_1, salt_size - 1) if salt_size else 20]
    # Without a NUL from MySQL before 5.5.10 (bug 59453).
    plugin = reader.null_terminated_or_rest() if capabilities & CLIENT_PLUGIN_AUTH else b""
    return Greeting(
        server_version, thread_id, salt, capabilities, mariadb_capabilities, charset, status, decode_text(plugin)
    )


_parse_known_greeting = lru_cache(_parse_greeting)


@frozen
class Attribute:
    """One connect attribute, e.g. `_client_name`."""

    name: str
    value: str


@frozen
class HandshakeResponse:
    """A client's login.

    Args:
        capabilities: 32 bits; they alone decide which of the fields below are written.
        max_packet_size: bytes that the client accepts in one payload.
        charset: number of its collation, the low byte.
        user: never empty but for an anonymous login.
        auth_response: for the salt of the greeting and the method `plugin`.
        database: None where absent or empty.
        plugin: None where absent or empty (seekdb refuses an empty one at once, MariaDB asks again).
        attributes: in the client's order.
        mariadb_capabilities: as in `Greeting`.
        zstd_level: 1-22; None where absent (written as 3, zstd's default, if the capability demands one).
    """

    capabilities: int
    max_packet_size: int
    charset: int
    user: str
    auth_response: bytes = field(repr=False)
    database: str | None = None
    plugin: str | None = None
    attributes: tuple[Attribute, ...] = ()
    mariadb_capabilities: int = 0
    zstd_level: int | None = None

    def encode(self) -> bytes:
        """Return the payload; its first `SSL_REQUEST_SIZE` bytes are the SSLRequest that may precede it.

        Raises:
            MalformedPacket: a name has a NUL inside, or the auth response does not fit the capabilities.
        """
        parts = [
            (self.capabilities & 0xFFFF).to_bytes(2, "little"),
            _RESPONSE_HEAD.pack(
                self.capabilities >> 16,
                self.max_packet_size,
                self.charset,
                _extended(self.capabilities, self.mariadb_capabilities),
            ),
            null_terminated(encode_text(self.user)),
        ]
        if self.capabilities & CLIENT_PLUGIN_AUTH_LENENC_CLIENT_DATA:
            parts.append(lenenc_bytes(self.auth_response))
        else:
            parts.append(_short_auth_response(self.auth_response, self.capabilities))
        if self.capabilities & CLIENT_CONNECT_WITH_DB:
            parts.append(null_terminated(encode_text(self.database or "")))
        if self.capabilities & CLIENT_PLUGIN_AUTH:
            parts.append(null_terminated(encode_text(self.plugin or "")))
        if self.capabilities & CLIENT_CONNECT_ATTRS:
            parts.append(_encode_attributes(self.attributes))
        if self.capabilities & CLIENT_ZSTD_COMPRESSION:
            parts.append((3 if self.zstd_level is None else self.zstd_level).to_bytes(1, "little"))
        return b"".join(parts)


def parse_handshake_response(payload: bytes) -> HandshakeResponse:
    """Return a client's login; everything after the user name may be missing, as with many a client.

    Raises:
        MalformedPacket: also for a client of before 4.1, and for an SSLRequest.
    """
    start = payload.find(b"\x00", SSL_REQUEST_SIZE) + 2
    if not 2 < start <= len(payload) <= _KNOWN_SIZE or not payload[1] & CLIENT_SECURE_CONNECTION >> 8:
        return _parse_response(payload)
    size = payload[start - 1]
    end = start + size
    if size > _SHORT or len(payload) < end:
        return _parse_response(payload)
    # Programs log in again and again, and only their answers to the salt differ.
    like = _parse_known_response(payload[:start] + bytes(size) + payload[end:])
    if not size:
        return like
    return HandshakeResponse(
        like.capabilities,
        like.max_packet_size,
        like.charset,
        like.user,
        payload[start:end],
        like.database,
        like.plugin,
        like.attributes,
        like.mariadb_capabilities,
        like.zstd_level,
    )


def _parse_response(payload: bytes) -> HandshakeResponse:
    reader = Reader(payload)
    capabilities = reader.uint16()
    if not capabilities & CLIENT_PROTOCOL_41:
        raise MalformedPacket("the client does not speak protocol 4.1")
    high, max_packet_size, charset, mariadb_capabilities = reader.unpack(_RESPONSE_HEAD)
    capabilities |= high << 16
    if capabilities & CLIENT_LONG_PASSWORD:
        mariadb_capabilities = 0
    user = decode_text(reader.null_terminated())
    if capabilities & CLIENT_PLUGIN_AUTH_LENENC_CLIENT_DATA:
        auth_response = reader.lenenc_bytes() if reader.remaining else b""
    else:
        auth_response = _read_short_auth_response(reader, capabilities)
    return HandshakeResponse(
        capabilities=capabilities,
        max_packet_size=max_packet_size,
        charset=charset,
        user=user,
        auth_response=auth_response,
        database=_read_name(reader) if capabilities & CLIENT_CONNECT_WITH_DB else None,
        plugin=_read_name(reader) if capabilities & CLIENT_PLUGIN_AUTH else None,
        attributes=_read_attributes(reader) if capabilities & CLIENT_CONNECT_ATTRS else (),
        mariadb_capabilities=mariadb_capabilities,
        zstd_level=reader.uint8() if capabilities & CLIENT_ZSTD_COMPRESSION and reader.remaining else None,
    )


_parse_known_response = lru_cache(_parse_response)


def is_ssl_request(payload: bytes) -> bool:
    """Say whether this is the head of a handshake response, after which the client begins TLS."""
    return len(payload) == SSL_REQUEST_SIZE and bool(int.from_bytes(payload[:4], "little") & CLIENT_SSL)


@frozen
class AuthSwitchRequest:
    """A server asks for another login method; `data` is exactly what the wire has, mostly a salt and a NUL."""

    plugin: str
    data: bytes

    def encode(self) -> bytes:
        """Return the payload."""
        return b"\xfe" + null_terminated(encode_text(self.plugin)) + self.data


def parse_auth_switch_request(payload: bytes) -> AuthSwitchRequest:
    """Return a switch of the login method; a lone 0xFE asks for the method of before 4.1."""
    reader = Reader(payload)
    _expect(reader, 0xFE)
    if not reader.remaining:
        return AuthSwitchRequest("mysql_old_password", b"")
    return AuthSwitchRequest(decode_text(reader.null_terminated()), reader.rest())


@frozen
class AuthNextFactor:
    """A server asks for a further proof, after one that was good; `data` is exactly what the wire has."""

    plugin: str
    data: bytes

    def encode(self) -> bytes:
        """Return the payload."""
        return b"\x02" + null_terminated(encode_text(self.plugin)) + self.data


def parse_auth_next_factor(payload: bytes) -> AuthNextFactor:
    """Return a question for a further proof."""
    reader = Reader(payload)
    _expect(reader, 0x02)
    return AuthNextFactor(decode_text(reader.null_terminated()), reader.rest())


@frozen
class AuthMoreData:
    """A step of a login method with several, from the server; what it means depends on the method."""

    data: bytes

    def encode(self) -> bytes:
        """Return the payload."""
        return b"\x01" + self.data


def parse_auth_more_data(payload: bytes) -> AuthMoreData:
    """Return one step of a login method."""
    reader = Reader(payload)
    _expect(reader, 0x01)
    return AuthMoreData(reader.rest())


@frozen
class ChangeUser:
    """COM_CHANGE_USER, a login on a session that exists.

    Args:
        user: the new one.
        auth_response: for the salt of the greeting; at most 255 bytes.
        database: None where empty.
        charset: number of a collation, 16 bits; None where the packet ends before it.
        plugin: as in `HandshakeResponse`.
        attributes: as in `HandshakeResponse`.
    """

    user: str
    auth_response: bytes = field(repr=False)
    database: str | None = None
    charset: int | None = None
    plugin: str | None = None
    attributes: tuple[Attribute, ...] = ()

    def encode(self, capabilities: int) -> bytes:
        """Return the payload; without a charset it ends there, since what follows could not be told from one.

        Raises:
            MalformedPacket: as `HandshakeResponse.encode`.
        """
        parts = [
            COM_CHANGE_USER.to_bytes(1, "little"),
            null_terminated(encode_text(self.user)),
            _short_auth_response(self.auth_response, capabilities),
            null_terminated(encode_text(self.database or "")),
        ]
        if self.charset is not None:
            parts.append(self.charset.to_bytes(2, "little"))
            if capabilities & CLIENT_PLUGIN_AUTH:
                parts.append(null_terminated(encode_text(self.plugin or "")))
            if capabilities & CLIENT_CONNECT_ATTRS:
                parts.append(_encode_attributes(self.attributes))
        return b"".join(parts)


def parse_change_user(payload: bytes, capabilities: int) -> ChangeUser:
    """Return a COM_CHANGE_USER, its command byte included in `payload`."""
    reader = Reader(payload)
    _expect(reader, COM_CHANGE_USER)
    return ChangeUser(
        user=decode_text(reader.null_terminated()),
        auth_response=_read_short_auth_response(reader, capabilities),
        database=_read_name(reader),
        charset=reader.uint16() if reader.remaining else None,
        plugin=_read_name(reader) if capabilities & CLIENT_PLUGIN_AUTH else None,
        attributes=_read_attributes(reader) if capabilities & CLIENT_CONNECT_ATTRS else (),
    )


def _expect(reader: Reader, due: int) -> None:
    came = reader.uint8()
    if came != due:
        raise MalformedPacket(f"a packet that begins with 0x{due:02x} is due, 0x{came:02x} came")


def _extended(capabilities: int, mariadb_capabilities: int) -> int:
    return 0 if capabilities & CLIENT_LONG_PASSWORD else mariadb_capabilities


def _short_auth_response(auth_response: bytes, capabilities: int) -> bytes:
    if not capabilities & CLIENT_SECURE_CONNECTION:
        return null_terminated(auth_response)
    if len(auth_response) > 0xFF:
        raise MalformedPacket(f"an auth response of {len(auth_response)} bytes does not fit a length of one byte")
    return len(auth_response).to_bytes(1, "little") + auth_response


def _read_short_auth_response(reader: Reader, capabilities: int) -> bytes:
    if not capabilities & CLIENT_SECURE_CONNECTION:
        return reader.null_terminated_or_rest()
    return reader.take(reader.uint8()) if reader.remaining else b""


def _read_name(reader: Reader) -> str | None:
    return decode_text(reader.null_terminated_or_rest()) or None


def _encode_attributes(attributes: tuple[Attribute, ...]) -> bytes:
    texts = [text for attribute in attributes for text in (attribute.name, attribute.value)]
    return lenenc_bytes(b"".join(lenenc_bytes(encode_text(text)) for text in texts))


def _read_attributes(reader: Reader) -> tuple[Attribute, ...]:
    block = Reader(reader.lenenc_bytes() if reader.remaining else b"")
    attributes = []
    while block.remaining:
        attributes.append(Attribute(decode_text(block.lenenc_bytes()), decode_text(block.lenenc_bytes())))
    return tuple(attributes)
