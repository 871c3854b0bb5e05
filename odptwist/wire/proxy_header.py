"""The PROXY header: what a load balancer says of a client, in front of the client's own first bytes.

Source: https://www.haproxy.org/download/2.6/doc/proxy-protocol.txt, sections 2.1 (version 1, a line of text) and 2.2
(version 2, binary). The numbers of sections below are that text's.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from enum import Enum, unique
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Final

from attrs import evolve, frozen

from odptwist.errors import MalformedPacket, PacketTooLarge
from odptwist.snapshots import Address, HeaderVersion

SIGNATURE: Final[bytes] = b"\r\n\r\n\0\r\nQUIT\n"
"""The first 12 bytes of version 2. As a packet they would have sequence number 10, which no login begins with."""
WORD: Final[bytes] = b"PROXY "
"""The first 6 bytes of version 1. As a packet they would have sequence number 88."""
_FIRST_BYTES: Final = frozenset((b"", SIGNATURE[:1], WORD[:1]))
LINE_LIMIT: Final[int] = 107
"""Bytes of a line of version 1 with its CRLF (2.1, "worst case")."""
SIZE_LIMIT: Final[int] = 16 * 1024
"""Bytes of a header of version 2; HAProxy neither makes nor takes a longer one than its buffer (tune.bufsize)."""
SENT_LIMIT: Final[int] = 256
"""Bytes of a header of version 2 that is sent. MariaDB 10.11 breaks off logins behind a longer one, and clients can
have a part in the vectors: the name that they want by TLS, that of their certificate."""

TLV_CRC32C: Final[int] = 0x03
TLV_NOOP: Final[int] = 0x04

Host = IPv4Address | IPv6Address

_LOCAL, _PROXY = 0x20, 0x21  # version and command
_UNSPEC, _INET_STREAM, _INET6_STREAM = 0x00, 0x11, 0x21
_FIXED: Final[int] = 16  # signature, command, family, length
_FAMILIES: Final = range(4)
_PROTOCOLS: Final = range(3)
_ADDRESS_SIZES: Final[dict[int, int]] = {0x1: 12, 0x2: 36, 0x3: 216}  # by family, both ends and their ports
# Without leading zeros, so that nobody reads a number as octal.
_PORT: Final[re.Pattern[str]] = re.compile(r"0|[1-9][0-9]{0,4}")
# `ip_address` would take a zone as well ("fe80::1%eth0").
_IPV6: Final[re.Pattern[str]] = re.compile(r"[0-9A-Fa-f:.]+")


@frozen
class ProxyHeader:
    """Where a connection comes from.

    Attributes:
        source: the client; None if the connection is the load balancer's own, or nothing is said that is of use here.
        destination: where the client connected to; None if `source` is.
        vectors: of version 2: types, lengths and values of what else is said, without checksum and padding (2.2).
    """

    source: Address | None = None
    destination: Address | None = None
    vectors: bytes = b""

    def encode(self, version: HeaderVersion) -> bytes:
        """Return the header as it is sent; only version 2 has room for `vectors`, if it is not too long with them."""
        if version is HeaderVersion.V2:
            return self._encode_binary()
        if self.source is None or self.destination is None:
            return WORD + b"UNKNOWN\r\n"
        here, there = _same_family(self.source, self.destination)
        line = f"TCP{here.version} {here} {there} {self.source.port} {self.destination.port}\r\n"
        return WORD + line.encode()

    def _encode_binary(self) -> bytes:
        if self.source is None or self.destination is None:
            return SIGNATURE + bytes((_LOCAL, _UNSPEC, 0, 0))
        here, there = _same_family(self.source, self.destination)
        ports = self.source.port.to_bytes(2, "big") + self.destination.port.to_bytes(2, "big")
        rest = here.packed + there.packed + ports
        if _FIXED + len(rest) + len(self.vectors) <= SENT_LIMIT:
            rest += self.vectors
        family = _INET_STREAM if here.version == 4 else _INET6_STREAM
        return SIGNATURE + bytes((_PROXY, family)) + len(rest).to_bytes(2, "big") + rest


@unique
class Found(Enum):
    """What stands at the beginning of a connection."""

    NO_HEADER = "no header"
    PART = "part"
    """What may become a header."""
    HEADER = "header"


class HeaderReader:
    """Reads a header from the first bytes of a connection, however they were cut.

    Attributes:
        header: what was read, None before.
    """

    __slots__ = ("_buffer", "header")

    def __init__(self) -> None:
        self.header: ProxyHeader | None = None
        self._buffer = b""

    def receive(self, data: bytes) -> Found:
        """Take the next bytes; not to be called again after a `HEADER`.

        Raises:
            MalformedPacket: there is a header, and it is wrong.
            PacketTooLarge: there is a header, and it has more than `SIZE_LIMIT` bytes.
        """
        buffer = self._buffer = self._buffer + data
        if buffer[:1] not in _FIRST_BYTES:
            return Found.NO_HEADER  # nearly always
        for beginning, read in ((SIGNATURE, self._read_binary), (WORD, self._read_line)):
            size = min(len(buffer), len(beginning))
            if buffer[:size] == beginning[:size]:
                return Found.HEADER if size == len(beginning) and read(buffer) else Found.PART
        return Found.NO_HEADER

    def take_rest(self) -> bytes:
        """Return what is behind the header, or all that has come if there is none."""
        rest, self._buffer = self._buffer, b""
        return rest

    def _read_line(self, buffer: bytes) -> bool:
        end = buffer.find(b"\r\n", 0, LINE_LIMIT)
        if end >= 0:
            self.header = _parse_line(buffer[len(WORD) : end])
            self._buffer = buffer[end + 2 :]
        elif len(buffer) >= LINE_LIMIT:
            raise MalformedPacket(f"a PROXY line has no end within {LINE_LIMIT} bytes")
        return end >= 0

    def _read_binary(self, buffer: bytes) -> bool:
        if len(buffer) < _FIXED:
            return False
        size = _FIXED + int.from_bytes(buffer[14:16], "big")
        if size > SIZE_LIMIT:
            raise PacketTooLarge(f"a PROXY header has {size} bytes of {SIZE_LIMIT}")
        if len(buffer) < size:
            return False
        self.header = _parse_binary(buffer[:size])
        self._buffer = buffer[size:]
        return True


def _parse_line(line: bytes) -> ProxyHeader:
    """Return what stands between the first word of a line and its end."""
    if line == b"UNKNOWN" or line.startswith(b"UNKNOWN "):
        return ProxyHeader()  # and whatever follows shall be ignored
    try:
        family, here, there, *ports = line.decode("ascii").split(" ")
        parse = _PARSERS[family]
        from_port, to_port = map(_parse_port, ports)
        return ProxyHeader(_address(parse(here), from_port), _address(parse(there), to_port))
    except (ValueError, KeyError):
        raise MalformedPacket(f"PROXY line: {line!r}") from None


def _parse_ipv6(text: str) -> IPv6Address:
    if not _IPV6.fullmatch(text):
        raise ValueError(text)
    return IPv6Address(text)


_PARSERS: Final[dict[str, Callable[[str], Host]]] = {"TCP4": IPv4Address, "TCP6": _parse_ipv6}


def _parse_port(text: str) -> int:
    if not _PORT.fullmatch(text) or int(text) > 0xFFFF:
        raise ValueError(text)
    return int(text)


def _parse_binary(header: bytes) -> ProxyHeader:
    """Return what a whole header of version 2 says."""
    command, kind = header[12], header[13]
    if command == _LOCAL:
        return ProxyHeader()  # the family and all that follows shall be ignored
    family, protocol = kind >> 4, kind & 0xF
    if command != _PROXY or family not in _FAMILIES or protocol not in _PROTOCOLS:
        raise MalformedPacket(f"PROXY header: command 0x{command:02x}, family and protocol 0x{kind:02x}")
    if family not in _ADDRESS_SIZES or not protocol:
        return ProxyHeader()  # unspecified: nobody knows where addresses end
    end = _FIXED + _ADDRESS_SIZES[family]
    if len(header) < end:
        raise MalformedPacket(f"PROXY header: {len(header) - _FIXED} bytes are no addresses of family {family}")
    found = ProxyHeader(vectors=_read_vectors(header, end))
    if kind not in (_INET_STREAM, _INET6_STREAM):
        return found
    width = 4 if kind == _INET_STREAM else 16
    there = _FIXED + width
    return evolve(
        found,
        source=_address(ip_address(header[_FIXED:there]), int.from_bytes(header[end - 4 : end - 2], "big")),
        destination=_address(ip_address(header[there : there + width]), int.from_bytes(header[end - 2 : end], "big")),
    )


def _read_vectors(header: bytes, start: int) -> bytes:
    """Return the vectors of a header that are worth keeping; `MalformedPacket` if its checksum is wrong (2.2.3)."""
    vectors = header[start:]
    kept = []
    summed = False
    for at, end in _walk(vectors):
        if vectors[at] == TLV_CRC32C:
            if summed:
                # Anybody can send a header, and one with many right checksums would take seconds.
                raise MalformedPacket("PROXY header: two checksums")
            summed = True
            told = vectors[at + 3 : end]
            unsummed = header[: start + at + 3] + bytes(len(told)) + header[start + end :]
            if told != crc32c(unsummed).to_bytes(4, "big"):
                raise MalformedPacket("PROXY header: wrong checksum")
        elif vectors[at] != TLV_NOOP:
            kept.append(vectors[at:end])
    return b"".join(kept)


def _walk(vectors: bytes) -> Iterator[tuple[int, int]]:
    """Yield where each vector begins and ends; its value begins 3 bytes behind its type."""
    at = 0
    while at < len(vectors):
        end = at + 3 + int.from_bytes(vectors[at + 1 : at + 3], "big")
        if len(vectors) < end:
            raise MalformedPacket(f"PROXY header: the vector at offset {at} is cut off")
        yield at, end
        at = end


def _address(host: Host, port: int) -> Address:
    return Address(str(_unmapped(host)), port)


def _same_family(here: Address, there: Address) -> tuple[Host, Host]:
    """Return two hosts of one family, for headers have no room for two; IPv6 has room for IPv4 (RFC 4291, 2.5.5.2)."""
    first, second = (_unmapped(ip_address(each.host.partition("%")[0])) for each in (here, there))
    if first.version == second.version:
        return first, second
    return _mapped(first), _mapped(second)


def _unmapped(host: Host) -> Host:
    """Return an address of IPv4 as such, also if a socket of both made it one of IPv6."""
    return host.ipv4_mapped or host if isinstance(host, IPv6Address) else host


def _mapped(host: Host) -> IPv6Address:
    return host if isinstance(host, IPv6Address) else IPv6Address(0xFFFF << 32 | int(host))


def crc32c(data: bytes) -> int:
    """Return the checksum of RFC 4960, appendix B."""
    remainder = 0xFFFFFFFF
    for byte in data:
        remainder = remainder >> 8 ^ _CRC_TABLE[(remainder ^ byte) & 0xFF]
    return remainder ^ 0xFFFFFFFF


def _crc_of_byte(remainder: int) -> int:
    for _ in range(8):
        remainder = remainder >> 1 ^ (0x82F63B78 if remainder & 1 else 0)
    return remainder


_CRC_TABLE: Final[tuple[int, ...]] = tuple(map(_crc_of_byte, range(256)))
