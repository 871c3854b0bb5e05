"""PROXY headers of both versions, whole, cut, wrong, and as they are sent."""

from __future__ import annotations

from ipaddress import IPv6Address

from attrs import evolve
from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from odptwist.errors import MalformedPacket, PacketTooLarge
from odptwist.snapshots import Address, HeaderVersion
from odptwist.wire.framing import HEADER_SIZE
from odptwist.wire.proxy_header import (
    LINE_LIMIT,
    SIGNATURE,
    SIZE_LIMIT,
    TLV_CRC32C,
    TLV_NOOP,
    WORD,
    Found,
    HeaderReader,
    ProxyHeader,
    crc32c,
)
from tests.wire.strategies import any_bytes, damaged, many, raises_only_wire_errors, relaxed, uint8, uint16

AUTHORITY, UNIQUE_ID, SSL = 0x02, 0x05, 0x20
V4 = ProxyHeader(Address("203.0.113.9", 56324), Address("192.168.0.11", 3306))
V6 = ProxyHeader(Address("2001:db8::9", 1), Address("2001:db8::a", 65535))
LINE = b"PROXY TCP4 203.0.113.9 192.168.0.11 56324 3306\r\n"
# 127.0.0.2:40000 to 127.0.0.1:3306
ADDRESSES = bytes((127, 0, 0, 2, 127, 0, 0, 1)) + (40000).to_bytes(2, "big") + (3306).to_bytes(2, "big")


def binary(command: int = 0x21, kind: int = 0x11, rest: bytes = ADDRESSES) -> bytes:
    """Return a header of version 2."""
    return SIGNATURE + bytes((command, kind)) + len(rest).to_bytes(2, "big") + rest


def vector(kind: int, value: bytes) -> bytes:
    """Return type, length and value."""
    return bytes((kind,)) + len(value).to_bytes(2, "big") + value


def summed(*vectors: bytes) -> bytes:
    """Return a header of version 2 with some vectors and the right checksum behind them."""
    unsummed = binary(rest=ADDRESSES + b"".join(vectors) + vector(TLV_CRC32C, bytes(4)))
    return unsummed[:-4] + crc32c(unsummed).to_bytes(4, "big")


def read(data: bytes) -> ProxyHeader | None:
    """Return the header that bytes begin with, None if there is none or not all of it."""
    reader = HeaderReader()
    reader.receive(data)
    return reader.header


ports = uint16
hosts = st.one_of(
    st.ip_addresses(v=4),
    st.ip_addresses(v=6).filter(lambda host: host.ipv4_mapped is None),  # such a one is read as one of version 4
)
addresses = st.builds(lambda host, port: Address(str(host), port), hosts, ports)
vectors = st.lists(
    st.builds(vector, uint8.filter(lambda kind: kind not in (TLV_CRC32C, TLV_NOOP)), st.binary(max_size=40)), max_size=4
).map(b"".join)
versions = st.sampled_from((HeaderVersion.V1, HeaderVersion.V2))


class LineTests(SynchronousTestCase):
    def test_addresses(self) -> None:
        """A line names who connected where, by either version of IP."""
        self.assertEqual(read(LINE), V4)
        self.assertEqual(read(b"PROXY TCP6 2001:DB8:0:0::9 2001:db8::a 1 65535\r\n"), V6)
        self.assertEqual(read(b"PROXY TCP4 0.0.0.0 255.255.255.255 0 0\r\n").source, Address("0.0.0.0", 0))
        self.assertEqual(read(b"PROXY TCP6 ::ffff:1.2.3.4 ::1 7 8\r\n").source, Address("1.2.3.4", 7))

    def test_unknown(self) -> None:
        """An unknown connection has no addresses, whatever else the line says."""
        for rest in (b"", b" ", b" ffff::1 ffff::2 1 2", b" \xff\x00 \r \n"):
            self.assertEqual(read(b"PROXY UNKNOWN" + rest + b"\r\n"), ProxyHeader())

    def test_malformed(self) -> None:
        """What is not exactly as the protocol wants it is refused."""
        for line in (
            b"",
            b"TCP4",
            b"unknown",
            b"UNKNOWNS",
            b"TCP5 1.2.3.4 1.2.3.4 1 2",
            b"tcp4 1.2.3.4 1.2.3.4 1 2",
            b"TCP4 1.2.3.4 1.2.3.4 1",
            b"TCP4 1.2.3.4 1.2.3.4 1 2 3",
            b"TCP4  1.2.3.4 1.2.3.4 1 2",
            b"TCP4 1.2.3.4 1.2.3.4 1 2 ",
            b"TCP4 1.2.3.4 1.2.3.4 1 2\n",
            b"TCP4 1.2.3.4 1.2.3.4 01 2",
            b"TCP4 1.2.3.4 1.2.3.4 1 65536",
            b"TCP4 1.2.3.4 1.2.3.4 1 -2",
            b"TCP4 1.2.3.4 1.2.3.4 1 \xd9\xa2",
            b"TCP4 1.2.3 1.2.3.4 1 2",
            b"TCP4 01.2.3.4 1.2.3.4 1 2",
            b"TCP4 ::1 ::1 1 2",
            b"TCP6 1.2.3.4 1.2.3.4 1 2",
            b"TCP6 fe80::1%eth0 ::1 1 2",
            b"TCP6 ::1::1 ::1 1 2",
        ):
            with self.assertRaises(MalformedPacket, msg=line):
                read(WORD + line + b"\r\n")

    def test_limit(self) -> None:
        """The longest line is taken; one that has no end by then is refused without waiting for more."""
        longest = b"PROXY UNKNOWN ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"
        longest += b" 65535 65535\r\n"
        self.assertEqual(len(longest), LINE_LIMIT)
        self.assertEqual(read(longest), ProxyHeader())
        self.assertIsNone(read(longest[:-1]))
        for tail in (b"xx", b"x\r\n"):
            with self.assertRaises(MalformedPacket):
                read(longest[:-2] + tail)


class BinaryTests(SynchronousTestCase):
    def test_addresses(self) -> None:
        """The addresses of streams by either version of IP are read."""
        self.assertEqual(read(binary()), ProxyHeader(Address("127.0.0.2", 40000), Address("127.0.0.1", 3306)))
        six = IPv6Address("2001:db8::9").packed + IPv6Address("2001:db8::a").packed + b"\0\1\xff\xff"
        self.assertEqual(read(binary(kind=0x21, rest=six)), V6)
        mapped = IPv6Address("::ffff:1.2.3.4").packed * 2 + b"\0\7\0\x08"
        self.assertEqual(
            read(binary(kind=0x21, rest=mapped)), ProxyHeader(Address("1.2.3.4", 7), Address("1.2.3.4", 8))
        )

    def test_without_addresses_of_use(self) -> None:
        """The load balancer's own connections, datagrams, Unix sockets and the unspecified keep their own address."""
        for header in (
            binary(0x20, 0, b""),
            binary(0x20, 0xFF, b"whatever"),
            binary(0x21, 0x00, b"whatever"),
            binary(0x21, 0x10),
            binary(0x21, 0x01),
            binary(0x21, 0x12),
            binary(0x21, 0x31, bytes(216)),
        ):
            self.assertEqual(read(header), ProxyHeader())

    def test_malformed(self) -> None:
        """Unknown versions, commands, families and protocols are refused, and addresses that are cut off."""
        for header in (
            binary(0x11),
            binary(0x31),
            binary(0x22),
            binary(0x21, 0x41),
            binary(0x21, 0x13),
            binary(rest=ADDRESSES[:-1]),
            binary(kind=0x21),
            binary(0x21, 0x31, bytes(215)),
        ):
            with self.assertRaises(MalformedPacket, msg=header):
                read(header)

    def test_limit(self) -> None:
        """The longest header is taken; a longer one is refused as soon as its length is there."""
        room = SIZE_LIMIT - 16 - len(ADDRESSES) - 3
        self.assertEqual(len(read(binary(rest=ADDRESSES + vector(0xE0, bytes(room)))).vectors), room + 3)
        with self.assertRaises(PacketTooLarge):
            read(binary(rest=ADDRESSES + vector(0xE0, bytes(room + 1)))[:16])

    def test_vectors(self) -> None:
        """What else is said is kept as it came, without padding."""
        said = vector(AUTHORITY, b"db.example.com") + vector(SSL, b"\1\0\0\0\0") + vector(UNIQUE_ID, b"")
        header = read(binary(rest=ADDRESSES + vector(TLV_NOOP, b"...") + said + vector(TLV_NOOP, b"")))
        self.assertEqual(header.vectors, said)
        for cut in (vector(SSL, b"12345")[:-1], b"\2", b"\2\0"):
            with self.assertRaises(MalformedPacket):
                read(binary(rest=ADDRESSES + said + cut))

    def test_checksum(self) -> None:
        """A checksum is compared, wherever it stands, and a header with a wrong one is refused."""
        self.assertEqual(crc32c(b"123456789"), 0xE3069283)  # the check value that catalogues of CRCs give
        good = summed(vector(AUTHORITY, b"db"))
        self.assertEqual(read(good).vectors, vector(AUTHORITY, b"db"))
        for at in (17, len(good) - 1, len(good) - 9):
            with self.assertRaises(MalformedPacket):
                read(good[:at] + bytes((good[at] ^ 1,)) + good[at + 1 :])
        with self.assertRaises(MalformedPacket):
            read(binary(rest=ADDRESSES + vector(TLV_CRC32C, b"")))

    def test_two_checksums(self) -> None:
        """There is one checksum: a header of 2,000, all of them right, would take three seconds to sum."""
        sums = (0x5769F254, 0xAE1E1489, 0x343DE6D0)
        told = b"".join(vector(TLV_CRC32C, each.to_bytes(4, "big")) for each in sums) + vector(1, bytes(20))
        with self.assertRaisesRegex(MalformedPacket, "two checksums"):
            read(binary(rest=bytes(12) + told))


class ReaderTests(SynchronousTestCase):
    def test_cut_at_every_byte(self) -> None:
        """Wherever a header is cut in two, the same is read, and what follows it is left."""
        for header in (LINE, b"PROXY UNKNOWN\r\n", binary(0x20, 0, b""), summed(vector(UNIQUE_ID, b"7"))):
            stream = header + b"\x01\0\0\x01x"
            for cut in range(1, len(header)):
                reader = HeaderReader()
                self.assertIs(reader.receive(stream[:cut]), Found.PART)
                self.assertIs(reader.receive(stream[cut:]), Found.HEADER)
                self.assertEqual(reader.header, read(header))
                self.assertEqual(reader.take_rest(), b"\x01\0\0\x01x")

    def test_no_header(self) -> None:
        """Other bytes are told from a header by the first that differs, and are left as they are."""
        for data in (b"\x16\x03\x01", b"P\0\0\1", b"PROXX", b"\r\n\r\n\0\r\nQUIT\r", b"\x0d\0\0\1"):
            reader = HeaderReader()
            for byte in data[:-1]:
                found = reader.receive(bytes((byte,)))
            self.assertIs(reader.receive(data[-1:]), Found.NO_HEADER)
            self.assertIn(found, Found)
            self.assertEqual(reader.take_rest(), data)

    def test_no_login_looks_like_a_header(self) -> None:
        """The first packet of a client has sequence number 1, which no header has in its place."""
        for beginning in (SIGNATURE, WORD):
            self.assertNotEqual(beginning[HEADER_SIZE - 1], 1)

    @many
    @given(st.one_of(any_bytes, damaged(LINE), damaged(summed(vector(SSL, b"12345")))), st.booleans())
    def test_any_bytes(self, data: bytes, signed: bool) -> None:
        """Whatever comes, nothing is raised but errors of the wire."""
        raises_only_wire_errors(read, data)
        raises_only_wire_errors(read, SIGNATURE + b"\x21" + data if signed else WORD + data + b"\r\n")

    @relaxed
    @given(st.lists(st.binary(max_size=30), max_size=8), vectors)
    def test_any_chunking(self, chunks: list[bytes], said: bytes) -> None:
        """However a stream is cut, header and rest are the same."""
        stream = evolve(V6, vectors=said).encode(HeaderVersion.V2) + b"".join(chunks)
        whole = HeaderReader()
        whole.receive(stream)
        reader, at = HeaderReader(), 0
        for size in [*map(len, chunks), 1, len(stream)]:
            at += size
            if reader.receive(stream[at - size : at]) is Found.HEADER:
                break
        self.assertEqual(reader.header, whole.header)
        self.assertEqual(reader.take_rest() + stream[at:], whole.take_rest())


class EncodeTests(SynchronousTestCase):
    def test_line(self) -> None:
        """A line has the addresses of one family; a connection of the proxy's own is unknown."""
        self.assertEqual(V4.encode(HeaderVersion.V1), LINE)
        self.assertEqual(V6.encode(HeaderVersion.V1), b"PROXY TCP6 2001:db8::9 2001:db8::a 1 65535\r\n")
        self.assertEqual(ProxyHeader().encode(HeaderVersion.V1), b"PROXY UNKNOWN\r\n")

    def test_binary(self) -> None:
        """A connection of the proxy's own is a local one, without addresses."""
        self.assertEqual(ProxyHeader().encode(HeaderVersion.V2), binary(0x20, 0, b""))
        self.assertEqual(read(binary()).encode(HeaderVersion.V2), binary())

    def test_too_much_said(self) -> None:
        """What would make the header longer than MariaDB takes is left out."""
        for header, room in ((V4, 256 - 28), (V6, 256 - 52)):
            said = vector(AUTHORITY, bytes(room - 3))
            self.assertEqual(read(evolve(header, vectors=said).encode(HeaderVersion.V2)).vectors, said)
            self.assertEqual(read(evolve(header, vectors=said + b"\5\0\0").encode(HeaderVersion.V2)), header)

    def test_families_that_differ(self) -> None:
        """Where a client of IPv6 came in by IPv4 in front of the load balancer, both are told as IPv6."""
        mixed = ProxyHeader(V6.source, V4.destination)
        self.assertIn(b" 2001:db8::9 ::ffff:", mixed.encode(HeaderVersion.V1))
        for version in (HeaderVersion.V1, HeaderVersion.V2):
            self.assertEqual(read(mixed.encode(version)), mixed)

    def test_mapped(self) -> None:
        """A client of IPv4 that came in by a socket of both is told as one of IPv4."""
        mapped = ProxyHeader(Address("::ffff:203.0.113.9", 56324), Address("::ffff:192.168.0.11", 3306))
        self.assertEqual(mapped.encode(HeaderVersion.V1), LINE)

    def test_zone(self) -> None:
        """The zone of a link-local address is nothing that another machine knows."""
        local = evolve(V6, source=Address("fe80::1%eth0", 1))
        self.assertEqual(read(local.encode(HeaderVersion.V2)).source, Address("fe80::1", 1))

    @many
    @given(st.builds(ProxyHeader, addresses, addresses, vectors), versions)
    def test_round_trip(self, header: ProxyHeader, version: HeaderVersion) -> None:
        """What is sent is read as it was, but for what a line has no room for."""
        expected = header if version is HeaderVersion.V2 else evolve(header, vectors=b"")
        self.assertEqual(read(header.encode(version)), expected)
