"""Clients behind a load balancer, and servers that are told where clients come from."""

from __future__ import annotations

from attrs import evolve
from hypothesis import given
from hypothesis import strategies as st
from twisted.logger import LogLevel
from twisted.trial.unittest import SynchronousTestCase

from odptwist.errors import CloseReason
from odptwist.sessions.arrival import PATIENCE
from odptwist.sessions.listener import Listener
from odptwist.sessions.networks import Networks
from odptwist.snapshots import Address, HeaderPolicy, HeaderVersion
from odptwist.wire.handshake import parse_greeting
from odptwist.wire.proxy_header import SIGNATURE, ProxyHeader
from tests.support.house import ClientPeer, House, ServerPeer, response
from tests.support.logs import watch_log
from tests.wire.strategies import any_bytes, relaxed

BALANCER = "10.0.0.1"
STRANGER = "192.0.2.1"
REQUIRED = Listener(headers=HeaderPolicy.REQUIRED, trusted=Networks.read(("10.0.0.0/8",)))
OPTIONAL = evolve(REQUIRED, headers=HeaderPolicy.OPTIONAL)

CLIENT = ProxyHeader(Address("203.0.113.9", 1234), Address("198.51.100.1", 3306))
V1, V2 = HeaderVersion.V1, HeaderVersion.V2
LINE = CLIENT.encode(V1)
LOCAL = ProxyHeader().encode(V2)


class ArrivalCase(SynchronousTestCase):
    """With a house that has heard of its server."""

    def setUp(self) -> None:
        """Build the house."""
        self.house = House()

    def connect(self, listener: Listener, host: str = BALANCER) -> ClientPeer:
        """Return a peer that has connected from somewhere and said nothing."""
        return self.house.connect(4000, listener, host)

    def assert_dropped(self, client: ClientPeer, detail: str) -> None:
        """Check that a client was dropped for its header."""
        session = client.wire.protocol
        self.assertEqual((client.wire.ended, session.reason), ("aborted", CloseReason.PROXY_HEADER))
        self.assertIn(detail, session.detail)

    def assert_greeted(self, client: ClientPeer) -> None:
        """Check that nothing has come but a greeting."""
        (payload,) = client.payloads()
        self.assertEqual(parse_greeting(payload).thread_id, client.wire.protocol.cs_id)


class RequiredTests(ArrivalCase):
    def test_greeting_is_held(self) -> None:
        """Nothing is sent before the header is there; from then on the client is where the header says."""
        for version in (V1, V2):
            client = self.connect(REQUIRED)
            for byte in CLIENT.encode(version):
                self.assertEqual(client.payloads(), [])
                client.send(bytes((byte,)))
            self.assert_greeted(client)
            client.send(response())
            self.house.open()
            shown = client.wire.protocol.snapshot()
            self.assertEqual((shown.host, shown.port), ("203.0.113.9", 1234))

    def test_login_right_behind(self) -> None:
        """What follows the header in one segment, however it is cut, belongs to the login."""
        stream = LINE + response()
        for cut in range(len(stream)):
            client = self.connect(REQUIRED)
            for data in filter(None, (stream[:cut], stream[cut:])):
                client.send(data)
            self.house.open()
            self.assertEqual(len(client.payloads()), 2, cut)
            self.assertEqual(client.wire.protocol.snapshot().host, "203.0.113.9")

    def test_refusal_names_the_client(self) -> None:
        """The address in a refused login is that of the header, of IPv6 too."""
        client = self.connect(REQUIRED)
        client.send(ProxyHeader(Address("2001:db8::9", 1), Address("2001:db8::a", 2)).encode(V2))
        client.packets()
        client.send(response("root@elsewhere#odp"))
        self.house.accept().greet()
        self.assertIn("'root@elsewhere'@'2001:db8::9'", client.error()[1])

    def test_own_address(self) -> None:
        """A header without an address keeps that of the load balancer, which logs in as others do."""
        for header in (LOCAL, ProxyHeader().encode(V1)):
            client = self.connect(REQUIRED)
            client.send(header)
            self.assert_greeted(client)
            client.send(response())
            self.house.open()
            self.assertEqual(client.wire.protocol.snapshot().host, BALANCER)

    def test_health_checks_make_no_noise(self) -> None:
        """A load balancer that looks whether the proxy is there leaves no trace in the log and the history."""
        log = watch_log(self, LogLevel.info)
        own = ProxyHeader(Address(BALANCER, 4000), CLIENT.destination)
        for said in (b"", LOCAL, ProxyHeader().encode(V1), own.encode(V1)):
            client = self.connect(REQUIRED)
            client.send(said)
            client.wire.lose()
        client = self.connect(REQUIRED)
        client.send(LINE)
        client.wire.lose()
        self.house.turn()
        self.assertEqual(len(log), 1, log)
        self.assertIn(f"client session {client.wire.protocol.cs_id} closed: client_lost", log[0])
        self.assertEqual(self.house.registry.surroundings.history.latest_first(), ())

    def test_limit_of_an_address(self) -> None:
        """Sessions count for the address of the header, each once, and not for the load balancer's."""
        self.house.registry.surroundings.limits.max_address_connections = 1
        clients = []
        for listener, host, late in (
            (REQUIRED, "203.0.113.1", False),
            (OPTIONAL, "203.0.113.2", True),
            (OPTIONAL, "203.0.113.3", False),
        ):
            for full in (False, True):
                client = self.connect(listener)
                if late:
                    self.house.reactor.advance(PATIENCE)
                client.send(ProxyHeader(Address(host, 1), CLIENT.destination).encode(V2))
                refused = client.wire.protocol.reason is CloseReason.TOO_MANY_CONNECTIONS
                self.assertEqual(refused, full, (host, late))
                clients.append(client)
        for client in clients:
            client.wire.lose()
        self.house.turn()
        self.assertEqual(self.house.registry.admission._of_host, {})

    def test_strangers(self) -> None:
        """Who may not send a header cannot come in, and nothing that it sends is looked at."""
        client = self.connect(REQUIRED, STRANGER)
        self.assert_dropped(client, "192.0.2.1 is not trusted")
        self.assertEqual(client.payloads(), [])

    def test_unix_sockets(self) -> None:
        """A load balancer on a Unix socket is trusted if that was said, and its clients do not count as safe."""
        client = self.connect(REQUIRED, "")
        self.assert_dropped(client, "a Unix socket is not trusted")
        client = self.connect(evolve(REQUIRED, trusted=Networks.read(("unix",))), "")
        client.send(LINE)
        self.assert_greeted(client)
        self.assertFalse(client.wire.protocol.is_secure)

    def test_no_header(self) -> None:
        """A client that sends something else is dropped at the first byte that differs."""
        client = self.connect(REQUIRED)
        client.send(b"PROX")
        self.assertIsNone(client.wire.ended)
        client.send(b"\0")
        self.assert_dropped(client, "there is no PROXY header")

    def test_bad_header(self) -> None:
        """A header that is wrong ends the session, and says how."""
        client = self.connect(REQUIRED)
        client.send(b"PROXY TCP4 here there\r\n")
        self.assert_dropped(client, "PROXY line: b'TCP4 here there'")
        client = self.connect(REQUIRED)
        client.send(SIGNATURE + b"\x21\x11\xff\xff")
        self.assert_dropped(client, "65551 bytes")

    def test_silence(self) -> None:
        """A header that does not come, or not all of it, is waited for no longer than a login."""
        for said in (b"", LINE[:-1]):
            client = self.connect(REQUIRED)
            client.send(said)
            self.house.reactor.advance(9.9)
            self.assertIsNone(client.wire.ended)
            self.house.reactor.advance(0.2)
            self.assertEqual(client.wire.protocol.reason, CloseReason.LOGIN_TIMEOUT)
            self.assertEqual(client.payloads(), [])

    @relaxed
    @given(st.lists(any_bytes, max_size=4), st.sampled_from((b"", LINE, b"PROXY ", SIGNATURE)))
    def test_any_bytes(self, chunks: list[bytes], first: bytes) -> None:
        """Whatever comes, there is no fault of the proxy's."""
        log = watch_log(self, LogLevel.critical)
        for listener in (REQUIRED, OPTIONAL):
            client = self.connect(listener)
            for chunk in (first, *chunks):
                client.send(chunk)
            client.wire.lose()
            self.house.turn()
            self.assertIsNot(client.wire.protocol.reason, CloseReason.PROXY_FAULT)
        self.assertEqual(log, [])


class OffTests(ArrivalCase):
    def test_header(self) -> None:
        """Where none is awaited, the log says at once that a load balancer is not set as the proxy is."""
        for version in (V1, V2):
            client = self.house.connect()
            self.assert_greeted(client)
            client.send(CLIENT.encode(version))
            self.assert_dropped(client, "there is a PROXY header, and none is awaited here")


class OptionalTests(ArrivalCase):
    def test_with_a_header(self) -> None:
        """A header that comes at once is answered at once, and waited for no more."""
        client = self.connect(OPTIONAL)
        self.assertEqual(client.payloads(), [])
        client.send(LINE)
        self.assert_greeted(client)
        self.house.reactor.advance(2 * PATIENCE)
        self.assertEqual(client.payloads(), [])

    def test_without_a_header(self) -> None:
        """A client that is silent is greeted after a short time, and logs in from its own address."""
        client = self.connect(OPTIONAL)
        self.house.reactor.advance(PATIENCE / 2)
        self.assertEqual(client.payloads(), [])
        self.house.reactor.advance(PATIENCE / 2)
        self.assert_greeted(client)
        login = response()
        client.send(login[:1])
        client.send(login[1:])
        self.house.open()
        self.assertEqual(client.wire.protocol.snapshot().host, BALANCER)

    def test_late_header(self) -> None:
        """A header that comes after the greeting is believed as long as it is the first that comes."""
        for version in (V1, V2):
            client = self.connect(OPTIONAL)
            self.house.reactor.advance(PATIENCE)
            self.assert_greeted(client)
            stream = CLIENT.encode(version) + response()
            client.send(stream[:20])
            client.send(stream[20:])
            self.house.open()
            self.assertEqual(client.wire.protocol.snapshot().host, "203.0.113.9")
            self.assertEqual(len(client.payloads()), 1)

    def test_second_header(self) -> None:
        """Only the first bytes may be a header: a second one breaks the protocol."""
        client = self.connect(OPTIONAL)
        client.send(LINE + LINE)
        self.assertIs(client.wire.protocol.reason, CloseReason.CLIENT_BROKE_PROTOCOL)
        self.assertEqual(client.wire.protocol.peer.host, "203.0.113.9")

    def test_strangers(self) -> None:
        """Others are greeted at once and log in; a header of theirs is never believed, good or bad."""
        client = self.connect(OPTIONAL, STRANGER)
        self.assert_greeted(client)
        client.send(response())
        self.house.open()
        self.assertEqual(client.wire.protocol.snapshot().host, STRANGER)
        for header in (LINE, CLIENT.encode(V2), LOCAL, b"PROXY nonsense\r\n"):
            client = self.connect(OPTIONAL, STRANGER)
            for byte in header:
                client.send(bytes((byte,)))
            self.assert_dropped(client, "192.0.2.1 is not trusted to send a PROXY header")
            self.assertEqual(client.wire.protocol.peer.host, STRANGER)

    def test_end_while_waiting(self) -> None:
        """A client that goes meanwhile is not greeted, and no timer is left."""
        client = self.connect(OPTIONAL)
        client.wire.lose()
        self.house.turn()
        self.assertEqual(self.house.timers(), [])
        self.assertEqual(client.wire.written, b"")

    def test_spoken_before_the_greeting(self) -> None:
        """Other bytes while a header may still come are the login's: the client is greeted at once."""
        client = self.connect(OPTIONAL)
        client.send(response())
        self.house.open()
        self.assertEqual(len(client.payloads()), 2)


class OutTests(ArrivalCase):
    def tell(self, version: HeaderVersion) -> None:
        """Let the server be told by headers of a version."""
        headers = dict.fromkeys(self.house.clusters.all_servers(), version)
        self.house.use(server_headers=headers)

    def log_in(self, listener: Listener | None = None, said: bytes = b"", host: str = STRANGER) -> ServerPeer:
        """Return the server that a client's login has just reached."""
        client = self.house.connect(4000, *([] if listener is None else [listener]), host=host)
        client.send(said)
        client.packets()
        client.send(response())
        return self.house.accept()

    def test_client_of_its_own(self) -> None:
        """The first bytes to a server name the client's address, and where it came in."""
        self.tell(V1)
        self.assertEqual(self.log_in().wire.written, b"PROXY TCP4 192.0.2.1 10.0.0.7 4000 2883\r\n")
        self.tell(V2)
        told = ProxyHeader(Address(STRANGER, 4000), Address("10.0.0.7", 2883))
        self.assertEqual(self.log_in().wire.written, told.encode(V2))

    def test_chain(self) -> None:
        """What a load balancer has told is passed on, and all else that it said if the version has room."""
        said = evolve(CLIENT, vectors=b"\5\0\x0277")
        for version, told in ((V1, LINE), (V2, said.encode(V2))):
            self.tell(version)
            self.assertEqual(self.log_in(REQUIRED, said.encode(V2), BALANCER).wire.written, told)
        self.assertEqual(
            self.log_in(REQUIRED, LOCAL, BALANCER).wire.written,
            ProxyHeader(Address(BALANCER, 4000), Address("10.0.0.7", 2883)).encode(V2),
        )

    def test_login_behind_the_header(self) -> None:
        """The login follows the header, and further sessions of the client have it, too."""
        self.tell(V2)
        server = self.log_in()
        header = server.wire.written
        server.greet()
        self.assertGreater(len(server.wire.written), len(header))
        server.accept()
        client = next(iter(self.house.registry._sessions.values()))
        server.wire.lose()
        self.house.turn()
        client.dataReceived(b"\x09\0\0\0\x03SELECT 1")
        self.assertEqual(self.house.accept().wire.written, header)

    def test_unix_sockets(self) -> None:
        """A client on a Unix socket is none that a server should take for one on its own machine."""
        self.tell(V1)
        self.assertEqual(self.log_in(host="").wire.written, b"PROXY UNKNOWN\r\n")

    def test_off(self) -> None:
        """Servers that want no header get none."""
        self.assertEqual(self.log_in().wire.written, b"")
