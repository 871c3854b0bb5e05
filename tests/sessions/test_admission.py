"""How many clients may come in: on both sides of every limit, and counted right after every kind of end."""

from __future__ import annotations

from collections import Counter

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from odptwist.errors import CloseReason
from odptwist.sessions.admission import RESERVE
from odptwist.sessions.arrival import PATIENCE
from odptwist.sessions.history import History
from odptwist.sessions.listener import Listener
from odptwist.sessions.networks import Networks
from odptwist.sessions.registry import Entrance
from odptwist.snapshots import Address, Asker, HeaderPolicy, HeaderVersion, KillScope, KillTarget
from odptwist.wire import constants as c
from odptwist.wire.framing import frame
from odptwist.wire.handshake import ChangeUser, parse_greeting
from odptwist.wire.proxy_header import ProxyHeader
from odptwist.wire.responses import parse_err
from odptwist.wire.scramble import native_password
from tests.support.house import CAPABILITIES, ClientPeer, House, ServerPeer, Wire, response
from tests.support.own_accounts import SECRET, hello, make_house

BALANCER = "10.0.0.1"
TOO_MANY = b"\xff\x10\x04Too many connections"


def enter(house: House, user: str = "root", host: str = "127.0.0.1") -> tuple[ClientPeer, ServerPeer]:
    """Return a client that has logged in, and its server."""
    client = house.connect(host=host)
    parse_greeting(client.payloads()[0])
    client.send(response(user))
    server = house.open()
    assert client.payloads()[0][0] == 0
    return client, server


def change_user(client: ClientPeer, user: str) -> None:
    """Send a COM_CHANGE_USER to an account without a password."""
    change = ChangeUser(user, b"", None, 45, "mysql_native_password", ())
    client.send(frame(change.encode(CAPABILITIES), 0))


class InAllTests(SynchronousTestCase):
    def setUp(self) -> None:
        """Make a proxy that lets two clients in, and has no accounts of its own."""
        self.house = House()
        self.house.registry.surroundings.limits.max_connections = 2

    def refused(self) -> ClientPeer:
        """Return a client that was refused in the place of the greeting."""
        client = self.house.connect()
        self.assertEqual([(each.sequence, each.payload) for each in client.packets()], [(0, TOO_MANY)])
        session = client.wire.protocol
        self.house.turn()
        self.assertEqual((client.wire.ended, session.reason), ("closed", CloseReason.TOO_MANY_CONNECTIONS))
        return client

    def test_border(self) -> None:
        """As many as the limit come in, and the next one gets MariaDB's ERR, without a sqlstate, and no greeting."""
        enter(self.house)
        enter(self.house)
        self.refused()
        self.assertEqual(self.house.attempts, 0)
        self.assertEqual(len(self.house.registry), 2)
        self.assertEqual(self.house.registry.admission.refused, 1)

    def test_refused_clients_leave_no_trace(self) -> None:
        """Those who knock in vain push nobody out of the history, and have no timer."""
        history = History()
        self.house.use(history=history)
        enter(self.house)
        enter(self.house)
        self.refused()
        self.assertEqual(history.latest_first(), ())
        self.assertEqual(self.house.timers(), [])

    def test_client_that_does_not_take_its_refusal(self) -> None:
        """It is cut when its last packet has had its time; what it says meanwhile is not heard."""
        enter(self.house)
        enter(self.house)
        wire = Wire(self.house.reactor)
        wire.takes = False
        wire.protocol = Entrance(self.house.registry).buildProtocol(None)
        wire.protocol.makeConnection(wire)
        client = ClientPeer(wire)
        self.assertEqual(client.payloads(), [TOO_MANY])
        client.send(response())
        self.house.reactor.advance(2)
        self.house.turn()
        self.assertEqual(wire.ended, "aborted")
        self.assertEqual(client.payloads(), [])
        self.assertEqual(len(self.house.registry), 2)

    def test_limit_that_changes(self) -> None:
        """Another limit holds for those who come; nobody has to go for it."""
        enter(self.house)
        enter(self.house)
        limits = self.house.registry.surroundings.limits
        limits.max_connections = 1
        self.refused()
        limits.max_connections = 3
        enter(self.house)
        self.refused()
        limits.max_connections = 0
        enter(self.house)
        self.assertEqual(len(self.house.registry), 4)

    def test_room_after_every_end(self) -> None:
        """However a client ends, and wherever in its login: the next one finds its room, and only one does."""

        def quit_(client: ClientPeer) -> None:
            client.command(c.COM_QUIT)

        def kill(client: ClientPeer) -> None:
            asker = Asker.for_rule("a test")
            self.house.registry.kill(KillTarget(client.wire.protocol.cs_id), KillScope.CONNECTION, asker)

        def break_protocol(client: ClientPeer) -> None:
            client.send(b"\x01\0\0\x07\x03")

        def be_silent(client: ClientPeer) -> None:
            self.house.reactor.advance(10.1)

        def be_refused(client: ClientPeer) -> None:
            client.send(response())
            server = self.house.accept()
            server.greet()
            server.err(1045, "Access denied", 2)

        def be_without_a_server(client: ClientPeer) -> None:
            client.send(response())
            self.house.refuse_connection()

        def name_nothing(client: ClientPeer) -> None:
            client.send(response("root@sys#nowhere"))

        enter(self.house)
        at_work = (quit_, kill, break_protocol, lambda client: client.wire.lose())
        at_the_door = (be_silent, be_refused, be_without_a_server, name_nothing, break_protocol)
        at_the_door = (*at_the_door, kill, lambda client: client.wire.lose())
        for end in at_work:
            client, _ = enter(self.house)
            self.refused()
            end(client)
            self.house.turn()
            self.assertEqual(len(self.house.registry), 1)
        for end in at_the_door:
            client = self.house.connect()
            client.packets()
            self.refused()
            end(client)
            self.house.turn()
            self.assertEqual(len(self.house.registry), 1)
        enter(self.house)
        self.refused()


class ReserveTests(SynchronousTestCase):
    def setUp(self) -> None:
        """Make a full proxy with administrators."""
        self.house = make_house()
        self.house.registry.surroundings.limits.max_connections = 1
        self.client, _ = enter(self.house)

    def administrator(self, host: str = "127.0.0.1") -> ClientPeer:
        """Return an administrator that has tried to log in."""
        client = self.house.connect(host=host)
        salt = parse_greeting(client.payloads()[0]).salt
        client.send(hello("root@proxysys", native_password(SECRET, salt)))
        return client

    def test_administrators_get_in(self) -> None:
        """As many of them as the reserve has room for; the next one is refused as others are."""
        for _ in range(RESERVE):
            self.assertEqual(self.administrator().payloads()[0][0], 0)
        self.assertEqual(self.house.connect().payloads(), [TOO_MANY])

    def test_others_do_not(self) -> None:
        """Somebody else is greeted, and gets 1040 with his name, before any server is asked; the room is free again."""
        for _ in range(3 * RESERVE):
            client = self.house.connect()
            parse_greeting(client.payloads()[0])
            client.send(response())
            (packet,) = client.packets()
            err = parse_err(packet.payload)
            self.assertEqual((err.code, err.sqlstate, err.message), (1040, "08004", "Too many connections"))
            self.assertEqual(packet.sequence, 2)
            self.assertIs(client.wire.protocol.reason, CloseReason.TOO_MANY_CONNECTIONS)
            self.house.turn()
        self.assertEqual(self.house.attempts, 0)

    def test_silent_clients(self) -> None:
        """Those who say nothing for a second make room for who comes then, the first of them first; he is served."""
        silent = []
        for _ in range(RESERVE):
            silent.append(self.house.connect())
            self.house.reactor.advance(0.1)
        self.assertEqual(self.house.connect().payloads(), [TOO_MANY])
        self.house.reactor.advance(0.75)
        first, second = self.administrator(), self.house.connect()
        self.assertEqual(first.payloads()[0][0], 0)
        self.assertEqual(second.payloads(), [TOO_MANY])
        self.house.turn()
        self.assertEqual([each.wire.ended for each in silent], ["aborted", None, None])
        self.house.reactor.advance(10)
        for _ in range(RESERVE - 1):
            self.assertEqual(self.administrator().payloads()[0][0], 0)
        self.assertEqual(self.house.connect().payloads(), [TOO_MANY])
        self.house.turn()
        self.assertEqual(len(self.house.registry), 1 + RESERVE)

    def test_clients_that_only_say_a_name(self) -> None:
        """Those who say that they are administrators, and do not answer the question, make room as the silent do."""
        for _ in range(RESERVE):
            client = self.house.connect()
            client.packets()
            client.send(hello("root@proxysys", b"x" * 32, plugin="caching_sha2_password"))
            self.assertEqual(client.payloads()[0][0], 0xFE)
        self.assertEqual(self.house.connect().payloads(), [TOO_MANY])
        self.house.reactor.advance(1.1)
        self.assertEqual(self.administrator().payloads()[0][0], 0)
        self.house.turn()
        self.assertEqual(len(self.house.registry), 1 + RESERVE)

    def test_wrong_password(self) -> None:
        """Who only says that he is an administrator leaves the reserve as he came."""
        for _ in range(2 * RESERVE):
            client = self.house.connect()
            client.packets()
            client.send(hello("root@proxysys", b"x" * 20))
            self.assertEqual(client.error()[0], 1045)
            self.house.turn()

    def test_room_that_has_come(self) -> None:
        """Who was greeted beyond the limit comes in if there is room when he says his name, and then counts there."""
        late = self.house.connect()
        late.packets()
        self.client.wire.lose()
        self.house.turn()
        late.send(response())
        self.house.open()
        self.assertEqual(late.payloads()[0][0], 0)
        for _ in range(RESERVE):
            self.administrator()
        self.assertEqual(self.house.connect().payloads(), [TOO_MANY])

    def test_strangers_do_not_come_so_far(self) -> None:
        """From a public address, where no administrator comes from, the ERR comes in the place of the greeting."""
        self.assertEqual(self.house.connect(host="8.8.8.8").payloads(), [TOO_MANY])
        self.house.turn()
        for _ in range(RESERVE):
            self.assertEqual(self.administrator().payloads()[0][0], 0)

    def test_address_that_has_too_many(self) -> None:
        """An administrator gets in from an address from which no others do; the others say their names first."""
        limits = self.house.registry.surroundings.limits
        limits.max_connections, limits.max_address_connections = 0, 2
        other, _ = enter(self.house)
        for _ in range(2):
            client = self.house.connect()
            parse_greeting(client.payloads()[0])
            client.send(response())
            text = "Too many connections from 127.0.0.1: max_address_connections is 2"
            self.assertEqual(client.error(), (1040, text))
            self.house.turn()
        for _ in range(RESERVE):
            self.assertEqual(self.administrator().payloads()[0][0], 0)
        self.assertEqual(self.house.connect().payloads(), [TOO_MANY + text[20:].encode()])
        enter(self.house, host="10.0.0.2")
        other.wire.lose()
        self.house.turn()
        enter(self.house)

    def test_administrators_before_the_limit(self) -> None:
        """They take up room as others do while there is some."""
        self.client.wire.lose()
        self.house.turn()
        self.administrator()
        for _ in range(RESERVE):
            self.assertEqual(self.administrator().payloads()[0][0], 0)
        self.assertEqual(self.house.connect().payloads(), [TOO_MANY])


class OfOneUserTests(SynchronousTestCase):
    def setUp(self) -> None:
        """Make a proxy that takes two sessions of a user."""
        self.house = House()
        self.house.registry.surroundings.limits.max_user_connections = 2

    def refused(self, user: str) -> None:
        """Check that a user is refused before any server is asked."""
        client = self.house.connect()
        client.packets()
        client.send(response(user))
        err = parse_err(client.payloads()[0])
        self.assertEqual((err.code, err.sqlstate), (1203, "42000"))
        self.assertEqual(err.message, f"User {user} already has more than 'max_user_connections' active connections")
        self.assertEqual(self.house.attempts, 0)
        self.house.turn()

    def test_border(self) -> None:
        """Two of a user come in, and not a third; others do, and the third does when one has gone."""
        client, _ = enter(self.house, "ada")
        enter(self.house, "ada")
        self.refused("ada")
        enter(self.house, "bob")
        client.wire.lose()
        self.house.turn()
        enter(self.house, "ada")
        self.refused("ada")

    def test_login_under_way(self) -> None:
        """Who has only said a name takes up no room of that user; of a crowd, those who were too slow are refused."""
        enter(self.house, "ada")
        crowd = []
        for _ in range(3):
            client = self.house.connect()
            client.packets()
            client.send(response("ada"))
            crowd.append((client, self.house.accept()))
        for _, server in crowd:
            server.greet()
        crowd[0][1].err(1045, "Access denied", 2)
        crowd[1][1].accept()
        crowd[2][1].accept()
        self.assertEqual(crowd[1][0].payloads()[0][0], 0)
        (late,) = crowd[2][0].packets()
        self.assertEqual((late.sequence, parse_err(late.payload).code), (2, 1203))
        self.house.turn()
        self.assertEqual(crowd[2][1].payloads()[-1], bytes((c.COM_QUIT,)))
        self.assertEqual([server.wire.ended is None for _, server in crowd], [False, True, False])
        self.refused("ada")
        self.assertEqual(len(self.house.registry), 2)

    def test_users_of_clusters_and_tenants_are_several(self) -> None:
        """The same name spelled in two ways is one user."""
        enter(self.house, "ada@sys#odp")
        enter(self.house, "ada")
        self.refused("ada")

    def test_change_of_the_user(self) -> None:
        """COM_CHANGE_USER takes a session from one user to another, if that one has room."""
        enter(self.house, "ada")
        enter(self.house, "ada")
        client, server = enter(self.house, "bob")
        change_user(client, "ada")
        self.assertEqual(client.error()[0], 1203)
        server.packets()
        change_user(client, "eve")
        server.ok()
        self.assertEqual(client.payloads()[0][0], 0)
        enter(self.house, "bob")
        enter(self.house, "bob")
        self.refused("bob")
        enter(self.house, "eve")
        self.refused("eve")

    def test_change_to_the_same_user(self) -> None:
        """A session that becomes who it is needs no second room."""
        client, server = enter(self.house, "ada")
        enter(self.house, "ada")
        change_user(client, "ada")
        server.ok()
        self.assertEqual(client.payloads()[0][0], 0)
        self.refused("ada")

    def test_change_that_failed(self) -> None:
        """A session that the server does not let become another user stays counted as it was."""
        client, server = enter(self.house, "bob")
        change_user(client, "ada")
        server.err(1045, "Access denied")
        enter(self.house, "ada")
        enter(self.house, "ada")
        enter(self.house, "bob")
        self.refused("bob")

    def test_two_that_change_at_once(self) -> None:
        """Of two sessions that become a user while it has room for one, one is ended: the limit is kept."""
        enter(self.house, "ada")
        pairs = [enter(self.house, "bob"), enter(self.house, "eve")]
        for client, _ in pairs:
            change_user(client, "ada")
        for _, server in pairs:
            server.ok()
        self.house.turn()
        self.assertEqual([client.wire.ended for client, _ in pairs], [None, "aborted"])
        self.refused("ada")
        enter(self.house, "bob")
        enter(self.house, "bob")

    def test_administrators_are_not_users(self) -> None:
        """Accounts of the proxy's own have no such limit."""
        house = make_house()
        house.registry.surroundings.limits.max_user_connections = 1
        for _ in range(3):
            client = house.connect()
            salt = parse_greeting(client.payloads()[0]).salt
            client.send(hello("root@proxysys", native_password(SECRET, salt)))
            self.assertEqual(client.payloads()[0][0], 0)


class OfOneAddressTests(SynchronousTestCase):
    def setUp(self) -> None:
        """Make a proxy that takes two sessions from an address."""
        self.house = House()
        self.house.registry.surroundings.limits.max_address_connections = 2

    def test_border(self) -> None:
        """Two come in from an address, and a third is refused instead of being greeted; others are not."""
        client, _ = enter(self.house, "ada", "10.0.0.1")
        self.house.connect(host="10.0.0.1")
        text = b"\xff\x10\x04Too many connections from 10.0.0.1: max_address_connections is 2"
        self.assertEqual(self.house.connect(host="10.0.0.1").payloads(), [text])
        enter(self.house, "ada", "10.0.0.2")
        self.house.turn()
        client.wire.lose()
        self.house.turn()
        enter(self.house, "ada", "10.0.0.1")
        self.assertEqual(self.house.connect(host="10.0.0.1").payloads(), [text])

    def test_socket_of_both_families(self) -> None:
        """An address of IPv4 is one address, also where a socket of IPv6 has it."""
        enter(self.house, host="10.0.0.1")
        client, _ = enter(self.house, host="::ffff:10.0.0.1")
        self.assertEqual(client.wire.protocol.peer.host, "10.0.0.1")
        self.assertEqual(self.house.connect(host="::ffff:10.0.0.1").payloads()[0][:3], TOO_MANY[:3])
        enter(self.house, host="::ffff:0:1")

    def test_unix_sockets(self) -> None:
        """Clients on a Unix socket have no address, and no such limit."""
        for _ in range(5):
            enter(self.house, host="")


class BehindBalancerTests(SynchronousTestCase):
    def setUp(self) -> None:
        """Make a proxy that takes two sessions from an address."""
        self.house = House()
        self.house.registry.surroundings.limits.max_address_connections = 2

    def connect(self, policy: HeaderPolicy) -> ClientPeer:
        """Return a client that has come by a load balancer."""
        return self.house.connect(
            listener=Listener(headers=policy, trusted=Networks.read(("10.0.0.0/8",))), host=BALANCER
        )

    def test_address_of_the_header(self) -> None:
        """Behind a load balancer the address that counts is the client's; how many come by it does not matter."""
        for place in range(5):
            source = ProxyHeader(Address(f"203.0.113.{place}", 1), Address("198.51.100.1", 3306))
            for taken in (True, True, False):
                client = self.connect(HeaderPolicy.REQUIRED)
                client.send(source.encode(HeaderVersion.V2))
                (payload,) = client.payloads()
                self.assertEqual(payload[:3] != TOO_MANY[:3], taken)
                self.house.turn()

    def test_in_all(self) -> None:
        """The limit in all holds before the header has come, and who is held back by it sends none in vain."""
        self.house.registry.surroundings.limits.max_connections = 1
        self.connect(HeaderPolicy.REQUIRED)
        for _ in range(RESERVE):
            self.connect(HeaderPolicy.REQUIRED)
        self.assertEqual(self.connect(HeaderPolicy.REQUIRED).payloads(), [TOO_MANY])

    def test_late_header(self) -> None:
        """What comes after the greeting moves the client to its own address, and ends it if that has too many."""
        source = ProxyHeader(Address("203.0.113.9", 1), Address("198.51.100.1", 3306)).encode(HeaderVersion.V1)
        clients = []
        for _ in range(3):
            clients.append(self.connect(HeaderPolicy.OPTIONAL))
            self.house.reactor.advance(PATIENCE)
            parse_greeting(clients[-1].payloads()[0])
            clients[-1].send(source)
            self.house.turn()
        self.assertEqual([each.wire.ended for each in clients], [None, None, "closed"])
        self.assertEqual(self.house.registry.admission._of_host, {"203.0.113.9": 2})


class InterleavingTests(SynchronousTestCase):
    @settings(max_examples=60, deadline=None)
    @given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 2), st.integers(0, 9)), max_size=60))
    def test_counts(self, steps: list[tuple[int, int, int]]) -> None:
        """Whatever comes, goes, is refused and becomes another: who is let in and who is not is as counted by hand."""
        house = House()
        limits = house.registry.surroundings.limits
        limits.max_connections, limits.max_user_connections, limits.max_address_connections = 5, 3, 4
        inside: list[tuple[ClientPeer, ServerPeer, str, str]] = []
        for step, kind, place in steps:
            user, host = f"u{kind}", f"10.0.0.{place % 2}"
            if step < 3:
                client = house.connect(host=host)
                first = client.payloads()[0]
                hosts, users = Counter(each[3] for each in inside), Counter(each[2] for each in inside)
                if len(inside) >= 5 or hosts[host] >= 4:
                    self.assertEqual(first[:3], TOO_MANY[:3])
                else:
                    client.send(response(user))
                    if users[user] >= 3:
                        self.assertEqual(client.error()[0], 1203)
                    else:
                        inside.append((client, house.open(), user, host))
                        self.assertEqual(client.payloads()[0][0], 0)
            elif step == 3 and inside:
                client, server, _, host = inside.pop(place % len(inside))
                users = Counter(each[2] for each in inside)
                old = client.wire.protocol.identity.user
                change_user(client, user)
                if users[user] >= 3:
                    self.assertEqual(client.error()[0], 1203)
                    user = old
                elif place % 3:
                    server.ok()
                else:
                    server.err(1045, "Access denied")
                    user = old
                client.packets()
                inside.append((client, server, user, host))
            elif inside:
                client, *_ = inside.pop(place % len(inside))
                if step == 4:
                    client.wire.lose()
                else:
                    client.command(c.COM_QUIT)
            house.turn()
            self.assertEqual(len(house.registry), len(inside))
        for client, *_ in inside:
            client.wire.lose()
        house.turn()
        admission = house.registry.admission
        self.assertEqual(
            (admission._inside, admission._beyond, admission._of_host, admission._of_user), (0, {}, {}, {})
        )
