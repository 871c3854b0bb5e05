"""Compressed packets with clients and with servers, in memory."""

from __future__ import annotations

from unittest import skipUnless

from attrs import evolve
from twisted.trial.unittest import SynchronousTestCase

from odptwist.sessions.compression import Compression
from odptwist.sessions.transport import BUFFER_SIZE
from odptwist.snapshots import Address, Algorithm, Privileges, Role
from odptwist.wire import constants as c
from odptwist.wire.compression import ALGORITHMS
from odptwist.wire.constants import CLIENT_COMPRESS, CLIENT_ZSTD_COMPRESSION, COM_QUERY
from odptwist.wire.framing import Deframer, frame
from odptwist.wire.handshake import parse_greeting, parse_handshake_response
from odptwist.wire.responses import parse_err
from tests.support.compression import BROKEN, CompressedEnd
from tests.support.house import CAPABILITIES, OK, ClientPeer, House, ServerPeer, response, result

ZLIB, ZSTD = Algorithm.ZLIB, Algorithm.ZSTD
SERVER = Address("10.1.0.1", 3306)
OTHER = Address("10.1.0.1", 3307)
NEEDS_ZSTD = skipUnless(ZSTD in ALGORITHMS, "needs the extra zstd")
BOTH = CLIENT_COMPRESS | CLIENT_ZSTD_COMPRESSION
SELECT = frame(bytes((COM_QUERY,)) + b"SELECT 1", 0)


def asking(flags: int, zstd_level: int | None = None, user: str = "root") -> bytes:
    """Return a handshake response that asks for compression."""
    plain = parse_handshake_response(response(user)[4:])
    return frame(evolve(plain, capabilities=plain.capabilities | flags, zstd_level=zstd_level).encode(), 1)


def more(*rows: bytes) -> bytes:
    """Return a result set that another one follows."""
    return result([[row] for row in rows], status=c.SERVER_STATUS_AUTOCOMMIT | c.SERVER_STATUS_MORE_RESULTS_EXISTS)


class Compressing(SynchronousTestCase):
    """What the tests share."""

    def setUp(self) -> None:
        """Make a proxy that offers all there is to clients."""
        self.house = House()
        self.offer(*ALGORITHMS)

    def offer(self, *algorithms: Algorithm, servers: dict[Address, tuple[Algorithm, ...]] | None = None) -> None:
        """Change the settings."""
        self.house.use(compression=Compression(algorithms, servers or {}))

    def log_in(
        self, flags: int = 0, server: Algorithm | None = None, level: int | None = None, turn: bool = True
    ) -> tuple[ClientPeer, ServerPeer]:
        """Return a client that has logged in, and its server, with the OK of the login read."""
        client = self.house.connect()
        client.packets()
        client.send(asking(flags, level))
        peer = self.accept(server)
        (ok,) = client.packets()
        self.assertEqual((ok.sequence, ok.payload[0]), (2, 0))
        return client, peer

    def accept(self, algorithm: Algorithm | None = None) -> ServerPeer:
        """Return a server at which the proxy has logged in; it offers an algorithm."""
        server = self.house.accept()
        flags = {None: 0, ZLIB: CLIENT_COMPRESS, ZSTD: CLIENT_ZSTD_COMPRESSION}[algorithm]
        server.greet(CAPABILITIES | flags)
        server.packets()
        server.accept()
        return server

    def with_client(self) -> tuple[ClientPeer, CompressedEnd, ServerPeer]:
        """Return a client that compresses, its end, and its server, which does not."""
        client, server = self.log_in(CLIENT_COMPRESS)
        return client, CompressedEnd(client), server

    def with_server(self) -> tuple[ClientPeer, ServerPeer, CompressedEnd]:
        """Return a client that does not compress, its server, and the end of that, which does."""
        self.offer(servers={SERVER: (ZLIB,)})
        client, server = self.log_in(server=ZLIB)
        return client, server, CompressedEnd(server)


class NegotiationTests(Compressing):
    """Who compresses."""

    def greeted(self) -> int:
        """Return the capabilities of the proxy's greeting that are about compression."""
        return parse_greeting(self.house.connect().payloads()[0]).capabilities & BOTH

    def test_offer(self) -> None:
        """Clients are offered what the settings say, whatever the servers have."""
        for algorithms, flags in ((), 0), ((ZLIB,), CLIENT_COMPRESS), ((ZSTD,), CLIENT_ZSTD_COMPRESSION):
            self.offer(*algorithms)
            for capabilities in CAPABILITIES, CAPABILITIES | BOTH:
                self.house.hear(capabilities)
                self.assertEqual(self.greeted(), flags)

    def test_client_that_does_not_ask(self) -> None:
        """A client that does not ask for it goes on as ever, without a layer."""
        client, server = self.log_in()
        self.assertIs(client.wire.protocol.transport, client.wire)
        self.assertIs(server.wire.protocol.transport, server.wire)
        client.query(b"SELECT 1")
        self.assertEqual(server.payloads(), [b"\x03SELECT 1"])
        self.assertEqual(client.wire.protocol.snapshot().compression, "")

    def test_client_that_asks_for_what_is_not_offered(self) -> None:
        """A client that asks for something that it was not offered does not get it."""
        self.offer(ZSTD)
        client, server = self.log_in(CLIENT_COMPRESS)
        client.query(b"SELECT 1")
        self.assertEqual(server.payloads(), [b"\x03SELECT 1"])

    def test_each_algorithm(self) -> None:
        """After the OK of the login everything is compressed as the client asked; the server does not hear of it."""
        for algorithm in ALGORITHMS:
            client = self.house.connect()
            client.packets()
            client.send(asking(CLIENT_COMPRESS if algorithm is ZLIB else CLIENT_ZSTD_COMPRESSION, 3))
            server = self.house.accept()
            server.greet(CAPABILITIES | BOTH)
            (payload,) = server.payloads()
            self.assertFalse(parse_handshake_response(payload).capabilities & BOTH)
            server.accept()
            client.packets()
            end = CompressedEnd(client, algorithm)
            end.send(SELECT)
            self.assertEqual(server.payloads(), [b"\x03SELECT 1"])
            rows = [[b"the same " * 20]] * 50
            server.send(result(rows))
            self.assertEqual(b"".join(frame(each.payload, each.sequence) for each in end.packets()), result(rows))
            self.assertLess(end.size, len(result(rows)) / 5)
            self.assertEqual(client.wire.protocol._session.snapshot().compression, algorithm.value)

    def test_client_that_asks_for_both(self) -> None:
        """A client that names both means zlib, as with MySQL."""
        client, server = self.log_in(BOTH, level=3)
        CompressedEnd(client).send(SELECT)
        self.assertEqual(server.payloads(), [b"\x03SELECT 1"])

    def test_level(self) -> None:
        """A client may ask for less effort with zstd than the settings allow, not for more."""
        compression = Compression((ZSTD,), {}, {ZLIB: 1, ZSTD: 5})
        for asked, level in (None, 5), (3, 3), (22, 5), (0, 5):
            agreed = compression.for_client(CLIENT_ZSTD_COMPRESSION, asked)
            self.assertEqual(agreed and agreed.level, level)

    def test_refused_login(self) -> None:
        """The end of a login that fails is not compressed."""
        client = self.house.connect()
        client.packets()
        client.send(asking(CLIENT_COMPRESS))
        server = self.house.accept()
        server.greet()
        server.err(1045, "no", 2)
        self.assertEqual(client.error(), (1045, "no"))

    def test_commands_ahead_of_the_login(self) -> None:
        """What comes with the handshake response is compressed already, however it is cut."""
        ahead = b"".join(CompressedEnd(self.house.connect()).pack(SELECT) for _ in range(2))
        for size in range(len(ahead) + 1):
            client = self.house.connect()
            client.packets()
            client.send(asking(CLIENT_COMPRESS) + ahead[:size])
            server = self.accept()
            client.packets()
            end = CompressedEnd(client)
            end.send_raw(ahead[size:])
            for _ in range(2):
                self.assertEqual(server.payloads(), [b"\x03SELECT 1"])
                server.row()
                self.assertEqual(len(end.packets()), 5)

    def test_server(self) -> None:
        """A server that offers what the settings want is asked for it, for clients that did not."""
        for wanted in ALGORITHMS:
            self.offer(servers={SERVER: (wanted,)})
            flag = CLIENT_COMPRESS if wanted is ZLIB else CLIENT_ZSTD_COMPRESSION
            for offered in 0, flag, BOTH & ~flag, BOTH:
                client = self.house.connect()
                client.packets()
                client.send(response())
                server = self.house.accept()
                server.greet(CAPABILITIES | offered)
                (payload,) = server.payloads()
                asked = parse_handshake_response(payload)
                self.assertEqual(asked.capabilities & BOTH, flag & offered)
                self.assertEqual(asked.zstd_level, 1 if wanted is ZSTD and offered & flag else None)
                server.accept()
                client.packets()
                client.query(b"SELECT 1")
                end = CompressedEnd(server, wanted) if offered & flag else None
                if end is None:
                    self.assertEqual(server.payloads(), [b"\x03SELECT 1"])
                else:
                    server.wire.protocol.dataReceived(end.pack(result([[b"7" * 100]]), 1))
                    self.assertEqual(client.payloads()[3], b"d" + b"7" * 100)

    @NEEDS_ZSTD
    def test_best_first(self) -> None:
        """Of several that are wanted, the first that the server offers is taken."""
        compression = Compression((), {SERVER: (ZSTD, ZLIB)})
        for flags, algorithm in (BOTH, ZSTD), (CLIENT_COMPRESS, ZLIB), (0, None):
            agreed = compression.for_server(SERVER, flags)
            self.assertIs(agreed and agreed.algorithm, algorithm)
        self.assertIsNone(compression.for_server(OTHER, BOTH))


class ExchangeTests(Compressing):
    """What passes."""

    def test_several_results_for_a_plain_client(self) -> None:
        """MariaDB's numbers inside jump between results; the client gets running ones."""
        client, _, end = self.with_server()
        client.query(b"SELECT 1; SELECT 2")
        self.assertEqual(end.payloads(0), [b"\x03SELECT 1; SELECT 2"])
        end.send(more(b"1"), 1)
        second = bytearray(result([[b"2"]]))
        end.send(bytes(second[:3]) + b"\x02" + bytes(second[4:]), 2)
        packets = client.packets()
        self.assertEqual([packet.sequence for packet in packets], list(range(1, 11)))

    def test_both_sides(self) -> None:
        """Both sides may compress, each in its own way."""
        self.offer(*ALGORITHMS, servers={SERVER: (ALGORITHMS[-1],)})
        client, server = self.log_in(CLIENT_COMPRESS, ALGORITHMS[-1])
        here, there = CompressedEnd(client), CompressedEnd(server, ALGORITHMS[-1])
        for _ in range(3):
            here.send(SELECT)
            self.assertEqual(there.payloads(0), [b"\x03SELECT 1"])
            there.send(result([[b"x" * 1000]]), 1)
            self.assertEqual(len(here.packets()), 5)

    def test_proxy_statements(self) -> None:
        """What the proxy answers itself is compressed, too, also to commands that were sent ahead."""
        client, end, server = self.with_client()
        client.wire.protocol._session._privileges = Privileges.NONE
        own = frame(bytes((COM_QUERY,)) + b"SHOW PROXYSESSION", 0)
        end.send_raw(end.pack(own) + end.pack(own) + end.pack(SELECT))
        self.house.turn()
        parts = end.parts()
        self.assertEqual([part.sequence for part in parts], [1, 1])
        self.assertEqual([part.data[3] for part in parts], [1, 1])
        self.assertEqual(server.payloads(), [b"\x03SELECT 1"])

    def test_sent_ahead_to_a_server(self) -> None:
        """Each response to commands that were sent ahead counts from 1 again, on both sides."""
        self.offer(ZLIB, servers={SERVER: (ZLIB,)})
        client, server = self.log_in(CLIENT_COMPRESS, ZLIB)
        here, there = CompressedEnd(client), CompressedEnd(server)
        here.send_raw(here.pack(SELECT) * 3)
        for _ in range(3):
            self.assertEqual(there.payloads(0), [b"\x03SELECT 1"])
            there.send(result([[b"1"]]), 1)
            self.assertEqual(len(here.packets()), 5)

    def test_file(self) -> None:
        """A file passes with numbers that go on, on both sides."""
        self.offer(ZLIB, servers={SERVER: (ZLIB,)})
        self.house.hear(CAPABILITIES | c.CLIENT_LOCAL_FILES)
        client, server = self.log_in(CLIENT_COMPRESS | c.CLIENT_LOCAL_FILES, ZLIB)
        here, there = CompressedEnd(client), CompressedEnd(server)
        here.send(frame(b"\x03LOAD DATA LOCAL INFILE 'x' INTO TABLE t", 0))
        there.payloads(0)
        there.send(frame(b"\xfbx", 1), 1)
        self.assertEqual(here.payloads(), [b"\xfbx"])
        here.send(frame(b"1\n" * 100, 2), 2)
        self.assertEqual([each.sequence for each in there.packets(2)], [2])
        here.send(frame(b"2\n", 3) + frame(b"", 4), 3)
        self.assertEqual([each.sequence for each in there.packets(3)], [3, 4])
        there.send(frame(OK.encode(CAPABILITIES), 5), 4)
        (packet,) = here.packets(4)
        self.assertEqual(packet.sequence, 5)

    def test_change_user(self) -> None:
        """COM_CHANGE_USER goes on in compressed packets, and so does the session after it."""
        _, end, server = self.with_client()
        end.send(frame(b"\x11app\0\0\0\x2d\0mysql_native_password\0", 0))
        self.assertEqual(server.payloads()[0][:4], b"\x11app")
        server.send(frame(b"\xfemysql_native_password\0" + b"s" * 20 + b"\0", 1))
        self.assertEqual(end.packets()[0].sequence, 1)
        end.send(frame(b"a" * 20, 2), 2)
        self.assertEqual(server.payloads(), [b"a" * 20])
        server.send(frame(OK.encode(CAPABILITIES), 3))
        self.assertEqual(end.packets(3)[0].sequence, 3)
        end.send(SELECT)
        self.assertEqual(server.payloads(), [b"\x03SELECT 1"])

    def test_long_row_in_small_chunks(self) -> None:
        """A row that comes bit by bit leaves in one compressed packet: mysql-connector-python needs that."""
        _, end, server = self.with_client()
        end.send(SELECT)
        server.packets()
        stream = result([[b"x" * 100_000], [b"y"]])
        for start in range(0, len(stream), 1000):
            server.send(stream[start : start + 1000])
        parts = end.parts()
        self.assertEqual(b"".join(part.data for part in parts), stream)
        for part in parts:
            deframer = Deframer()
            deframer.receive(part.data)
            self.assertEqual(deframer.buffered, 0)

    def test_replay(self) -> None:
        """A new server session compresses again, and what is replayed there goes in one packet a statement."""
        self.offer(servers={SERVER: (ZLIB,)})
        client, server = self.log_in(server=ZLIB)
        end = CompressedEnd(server)
        for statement in b"SET @a = 1", b"SET @b = 2":
            client.query(statement)
            end.send(frame(OK.encode(CAPABILITIES), 1), 1)
        client.packets()
        server.wire.lose()
        self.house.turn()
        client.query(b"SELECT @a")
        end = CompressedEnd(self.accept(ZLIB))
        end._read = 0
        end._wire.written = end._wire.written[end._wire.written.index(b"SET @a") - 12 :]
        parts = end.parts()
        self.assertEqual([part.sequence for part in parts], [0] * len(parts))
        for _ in parts:
            end.send(frame(OK.encode(CAPABILITIES), 1), 1)
        self.assertEqual(end.payloads(0), [b"\x03SELECT @a"])
        end.send(result([[b"1"]]), 1)
        self.assertEqual(len(client.packets()), 5)

    def test_between_two_servers(self) -> None:
        """A session moves from a server that compresses to one that does not, and back."""
        self.house = House(roles=(Role.PRIMARY, Role.REPLICA))
        self.offer(ZLIB, servers={SERVER: (ZLIB,), OTHER: (ZLIB,)})
        client, primary = self.log_in(CLIENT_COMPRESS, ZLIB)
        here, there = CompressedEnd(client), CompressedEnd(primary)
        here.send(SELECT)
        replica = self.accept()
        for _ in range(3):
            self.assertEqual(replica.payloads(), [b"\x03SELECT 1"])
            replica.row()
            self.assertEqual(len(here.packets()), 5)
            self.house.turn()
            here.send(SELECT)
        replica.packets()
        replica.row()
        here.packets()
        for _ in range(3):
            here.send(frame(b"\x03UPDATE t SET a = 1", 0))
            self.assertEqual(there.payloads(0), [b"\x03UPDATE t SET a = 1"])
            there.send(frame(OK.encode(CAPABILITIES), 1), 1)
            self.assertEqual(len(here.packets()), 1)


class EndTests(Compressing):
    """How sessions end."""

    def test_quit(self) -> None:
        """COM_QUIT ends both sides in good order."""
        client, server, end = self.with_server()
        client.command(c.COM_QUIT)
        self.assertEqual(end.payloads(0), [b"\x01"])
        self.assertEqual((client.wire.ended, server.wire.ended), ("closed", "closed"))

    def test_kill(self) -> None:
        """One that waits for an answer is told, compressed, that it was killed; an idle one is aborted."""
        killer, _ = self.house.log_in()
        idle, end, server = self.with_client()
        killer.query(b"KILL PROXYSESSION 2")
        self.house.turn()
        self.assertEqual((idle.wire.ended, server.wire.ended, end.parts()), ("aborted", "aborted", []))
        victim, end, _ = self.with_client()
        end.send(SELECT)
        killer.query(b"KILL PROXYSESSION 3")
        self.house.turn()
        (payload,) = end.payloads()
        self.assertEqual(parse_err(payload).code, 1317)
        self.assertEqual(victim.wire.ended, "closed")

    def test_client_goes(self) -> None:
        """A client that goes takes its session along."""
        client, _, server = self.with_client()
        client.wire.lose()
        self.house.turn()
        self.assertEqual(server.wire.ended, "aborted")

    def test_server_goes(self) -> None:
        """A server that closes amid a statement is lost, as without compression."""
        client, server, _ = self.with_server()
        client.query(b"UPDATE t SET a = 1")
        server.wire.lose()
        self.house.turn()
        self.assertEqual(client.error()[0], 1158)

    def test_client_that_breaks_the_rules(self) -> None:
        """A client that sends what cannot be inflated, or is numbered wrong, is told so and dropped."""
        for broken, code in (BROKEN, 1835), (b"\1\0\0\5\0\0\0x", 1156), (b"\0\0\0\0\0\0\0", 1835):
            client, end, server = self.with_client()
            end.send_raw(broken)
            (payload,) = end.payloads()
            self.assertEqual(parse_err(payload).code, code)
            self.house.turn()
            self.assertEqual((client.wire.ended, server.wire.ended), ("closed", "aborted"))

    def test_good_commands_before_a_broken_one(self) -> None:
        """Commands that came before a broken packet in the same chunk are passed on."""
        client, end, server = self.with_client()
        end.send_raw(end.pack(SELECT) + BROKEN)
        self.assertEqual(server.payloads(), [b"\x03SELECT 1"])
        self.house.turn()
        self.assertEqual(client.wire.ended, "closed")
        end.send_raw(end.pack(SELECT))
        self.assertEqual(server.payloads(), [])

    def test_server_that_breaks_the_rules(self) -> None:
        """A server that does so amid a response is dropped, and the client is told; also one at rest is dropped."""
        client, server, end = self.with_server()
        client.query(b"UPDATE t SET a = 1")
        end.send_raw(BROKEN)
        self.house.turn()
        self.assertEqual((client.error()[0], server.wire.ended), (1158, "aborted"))
        client, server, end = self.with_server()
        end.send_raw(BROKEN)
        self.house.turn()
        self.assertEqual(server.wire.ended, "aborted")

    def test_server_that_breaks_the_rules_amid_a_dialogue(self) -> None:
        """A dialogue of the proxy's own fails, and the statement that needed it with it."""
        self.offer(servers={SERVER: (ZLIB,)})
        client, server = self.log_in(server=ZLIB)
        client.query(b"SET @a = 1")
        CompressedEnd(server).send(frame(OK.encode(CAPABILITIES), 1), 1)
        client.packets()
        server.wire.lose()
        self.house.turn()
        client.query(b"SELECT @a")
        second = self.accept(ZLIB)
        CompressedEnd(second).send_raw(BROKEN)
        self.house.turn()
        self.assertEqual(second.wire.ended, "aborted")


class FlowTests(Compressing):
    """How fast each side is read."""

    def big(self, end: CompressedEnd, megabytes: int) -> bytes:
        """Return a response of a row of so many MiB of zeros, compressed, which is small."""
        return end.pack(result([[bytes(megabytes << 20)]]), 1)

    def received(self, client: ClientPeer) -> int:
        """Return how many bytes the client has got."""
        return len(client.wire.written)

    def test_client_that_does_not_read(self) -> None:
        """A response is not inflated for a client that does not take it, and is when it does."""
        client, server, end = self.with_server()
        client.query(b"SELECT 1")
        before = self.received(client)

        write = client.wire.write

        def take(data: bytes) -> None:
            write(data)
            client.wire.producer.pauseProducing()

        client.wire.write = take  # type: ignore[method-assign]
        end.send_raw(self.big(end, 8))
        self.house.turn()
        self.assertEqual(self.received(client) - before, BUFFER_SIZE)
        self.assertTrue(server.wire.paused)
        for number in range(2, 6):
            client.wire.producer.resumeProducing()
            self.assertEqual(self.received(client) - before, (number - 1) * BUFFER_SIZE)
            self.house.turn()
            self.assertEqual(self.received(client) - before, number * BUFFER_SIZE)
            self.assertTrue(server.wire.paused)
        client.wire.write = write  # type: ignore[method-assign]
        client.wire.producer.resumeProducing()
        self.house.turn()
        self.assertGreater(self.received(client) - before, 8 << 20)
        self.assertFalse(server.wire.paused)
        client.query(b"SELECT 2")
        self.assertEqual(server.wire.protocol._session.owner.tracker.awaiting, True)

    def test_one_turn(self) -> None:
        """What comes out of one small chunk is given over in several turns, so that others need not wait."""
        client, server, end = self.with_server()
        client.query(b"SELECT 1")
        before = self.received(client)
        end.send_raw(self.big(end, 8))
        self.assertEqual(self.received(client) - before, 4 * BUFFER_SIZE)
        self.assertTrue(server.wire.paused)
        self.house.turn()
        self.assertGreater(self.received(client) - before, 8 << 20)
        self.assertFalse(server.wire.paused)

    def test_server_that_does_not_read(self) -> None:
        """A long command is not inflated for a server that does not take it."""
        client, end, server = self.with_client()
        command = end.pack(frame(b"\x03INSERT INTO t VALUES ('" + b"x" * (8 << 20) + b"')", 0))
        before = len(server.wire.written)
        write = server.wire.write

        def take(data: bytes) -> None:
            write(data)
            server.wire.producer.pauseProducing()

        server.wire.write = take  # type: ignore[method-assign]
        end.send_raw(command)
        self.house.turn()
        self.assertLessEqual(len(server.wire.written) - before, BUFFER_SIZE)
        self.assertTrue(client.wire.paused)
        server.wire.write = write  # type: ignore[method-assign]
        server.wire.producer.resumeProducing()
        self.house.turn()
        self.assertGreater(len(server.wire.written) - before, 8 << 20)
        self.assertFalse(client.wire.paused)

    def test_end_while_it_is_inflated(self) -> None:
        """What came before the end of a connection is given over before the end."""
        client, server, end = self.with_server()
        client.query(b"SELECT 1")
        end.send_raw(self.big(end, 8))
        server.wire.protocol.connectionLost()
        self.assertEqual(len(client.payloads()), 5)

    def test_end_with_much_left(self) -> None:
        """Of what would take the others' time, 16 MiB are inflated and no more: 256 KiB may hold a gigabyte."""
        client, end, server = self.with_client()
        before = len(server.wire.written)
        end.send_raw(end.pack(frame(b"\x03INSERT INTO t VALUES ('" + b"x" * (64 << 20) + b"')", 0)))
        client.wire.protocol.connectionLost()
        self.assertLessEqual(len(server.wire.written) - before, 18 << 20)

    def test_many_small_packets(self) -> None:
        """Thousands of compressed packets of a byte each are taken in several turns."""
        client, end, server = self.with_client()
        command = frame(b"\x03INSERT INTO t VALUES ('" + b"x" * 10_000 + b"')", 0)
        before = len(server.wire.written)
        end.send_raw(b"".join(b"\1\0\0%c\0\0\0%c" % (place & 0xFF, byte) for place, byte in enumerate(command)))
        self.assertTrue(client.wire.paused)
        self.assertEqual(len(server.wire.written), before)
        self.house.turn()
        self.assertFalse(client.wire.paused)
        self.assertIn(command[-1000:], server.wire.written)

    def test_end_while_it_is_paused(self) -> None:
        """For a client that does not read, it is not: the response is lost as if it had not come."""
        client, server, end = self.with_server()
        client.query(b"SELECT 1")
        client.wire.producer.pauseProducing()
        end.send_raw(self.big(end, 8))
        server.wire.protocol.connectionLost()
        self.assertEqual(client.error()[0], 1158)
