"""One client session with several server sessions: routing, state that follows, and server sessions that end."""

from __future__ import annotations

from typing import Any

from attrs import evolve
from twisted.trial.unittest import SynchronousTestCase

from odptwist.sessions.surroundings import Routing
from odptwist.snapshots import Address, ReadPolicy, Role, ServerFinding
from odptwist.wire import constants as c
from odptwist.wire.framing import frame
from odptwist.wire.responses import Err, Ok
from tests.support.house import CAPABILITIES, IN_TRANSACTION, OK, ClientPeer, House, ServerPeer, response, result

PAIR = (Role.PRIMARY, Role.REPLICA)
ONE = result([[b"1"]])


class HoldingCase(SynchronousTestCase):
    """A primary and a replica, and one client."""

    policy = ReadPolicy.REPLICA_FIRST

    def setUp(self) -> None:
        """Log a client in; it has the primary then."""
        self.house = House(roles=PAIR, read_policy=self.policy)
        self.client, self.primary = self.house.log_in()
        self.assertEqual(self.port(self.primary), 3306)
        self.session: Any = self.client.wire.protocol

    def port(self, server: ServerPeer) -> int:
        """Return where a server listens."""
        return int(server.wire.peer.port)

    def ask(self, server: ServerPeer, sql: bytes, answer: bytes = ONE) -> None:
        """Send a statement, and expect it at a server, which answers it."""
        self.client.query(sql)
        self.expect(server, sql, answer)

    def expect(self, server: ServerPeer, sql: bytes, answer: bytes = ONE) -> None:
        """Expect a statement at a server, which answers it to the client."""
        self.assertEqual(server.payloads(), [b"\x03" + sql])
        server.send(answer)
        self.assertEqual(b"".join(packet.payload for packet in self.client.packets())[:1], answer[4:5])

    def open_replica(self, sql: bytes = b"select 1") -> ServerPeer:
        """Make the session open its server session on the replica, by a read."""
        self.client.query(sql)
        replica = self.house.open()
        self.assertEqual(self.port(replica), 3307)
        self.expect(replica, sql)
        return replica


class HoldingTests(HoldingCase):
    """Reads go to the replica where they may."""

    def test_reads_and_writes(self) -> None:
        """Reads go to the replica and everything else to the primary; each keeps its server session."""
        replica = self.open_replica()
        self.ask(self.primary, b"delete from t", ok())
        self.ask(self.primary, b"select 2")
        self.ask(self.primary, b"select 3 for update")
        self.ask(self.primary, b"show tables")
        self.house.reactor.advance(1)
        self.client.query(b"select 4")
        self.primary.packets()
        self.primary.send(result([[b""]]))
        self.expect(replica, b"select 4")
        self.ask(replica, b"select 5")
        self.assertEqual(self.house.attempts, 0)
        picture = self.session.snapshot()
        self.assertEqual([each.state for each in picture.server_sessions], ["MSS_KA_CLIENT_SLAVE", "MSS_KA_SHARED"])
        self.assertEqual([each.address.port for each in picture.server_sessions], [3307, 3306])

    def test_reads_after_a_write(self) -> None:
        """For a time after a write reads stay on the primary; only this session's own writes count."""
        replica = self.open_replica()
        self.ask(self.primary, b"update t set a = 1", ok())
        self.house.reactor.advance(0.4)
        self.ask(self.primary, b"select 2")
        self.house.reactor.advance(0.2)
        self.client.query(b"select 3")
        self.assertEqual(self.primary.payloads(), [b"\x03SELECT @@last_gtid"])
        self.primary.send(result([[b"0-1-7"]]))
        self.assertEqual(replica.payloads(), [b"\x03SELECT MASTER_GTID_WAIT('0-1-7', 0)"])
        replica.send(result([[b"-1"]]))
        self.expect(self.primary, b"select 3")
        self.house.reactor.advance(0.6)
        self.client.query(b"select 4")
        self.assertEqual(self.primary.payloads(), [b"\x03SELECT @@last_gtid"])
        self.primary.send(result([[b"0-1-7"]]))
        self.assertEqual(replica.payloads(), [b"\x03SELECT MASTER_GTID_WAIT('0-1-7', 0)"])
        replica.send(result([[b"0"]]))
        self.expect(replica, b"select 4")
        self.ask(replica, b"select 5")

    def test_transactions(self) -> None:
        """In a transaction everything stays where it is, and without autocommit everything goes to the primary."""
        replica = self.open_replica()
        self.ask(self.primary, b"begin", ok(IN_TRANSACTION))
        self.ask(self.primary, b"select 1", result([[b"1"]], IN_TRANSACTION.status))
        self.ask(self.primary, b"rollback", ok())
        self.ask(replica, b"select 1")
        self.ask(self.primary, b"set autocommit = 0", ok(Ok(0, 0, 0, 0)))
        self.ask(self.primary, b"select 1", result([[b"1"]], 0))

    def test_what_follows_a_statement(self) -> None:
        """SHOW WARNINGS and the like are asked where the statement before ran."""
        replica = self.open_replica()
        self.ask(replica, b"show warnings")
        self.ask(self.primary, b"delete from t", ok())
        self.ask(self.primary, b"show warnings")
        self.ask(self.primary, b"select row_count()")

    def test_commands_that_leave_something(self) -> None:
        """What would stay in one server session for good is said to the primary's: else writes could not follow."""
        self.open_replica()
        self.client.command(c.COM_SET_OPTION, b"\0\0")
        self.assertEqual(self.primary.payloads(), [b"\x1b\0\0"])
        self.primary.ok()
        self.client.packets()
        self.ask(self.primary, b"delete from t", ok())

    def test_change_user_without_a_server_session(self) -> None:
        """COM_CHANGE_USER finds a server session as any other command does."""
        self.primary.wire.lose()
        self.house.turn()
        self.client.command(c.COM_CHANGE_USER, b"root\0\0\0" + b"\x2d\0mysql_native_password\0")
        primary = self.house.open()
        self.assertEqual([payload[:6] for payload in primary.payloads()], [b"\x11root\0"])
        primary.ok()
        self.assertEqual(self.client.payloads()[0][0], 0)

    def test_new_replica_that_lags(self) -> None:
        """A server session that was opened too early learns the database that was chosen before it serves."""
        self.ask(self.primary, b"use one", ok())
        self.ask(self.primary, b"delete from t", ok())
        self.house.reactor.advance(1)
        self.client.query(b"select 1")
        replica = self.house.open()
        self.primary.packets()
        self.primary.send(result([[b"0-1-7"]]))
        replica.packets()
        replica.send(result([[b"-1"]]))
        self.expect(self.primary, b"select 1")
        self.ask(self.primary, b"use two", ok())
        self.house.reactor.advance(1)
        self.client.query(b"select 2")
        self.primary.packets()
        self.primary.send(result([[b"0-1-7"]]))
        replica.packets()
        replica.send(result([[b"0"]]))
        self.assertEqual(replica.payloads(), [b"\x03USE `two`"])
        replica.ok()
        self.expect(replica, b"select 2")

    def test_error_after_a_success(self) -> None:
        """Of several statements that come in one text, one that a read-only server refuses is not run again."""
        self.client.query(b"set @a = 1; delete from t")
        self.primary.packets()
        more = Ok(0, 0, OK.status | c.SERVER_STATUS_MORE_RESULTS_EXISTS, 0)
        refused = Err(1290, "HY000", "The MariaDB server is running with the --read-only option").encode()
        self.primary.send(ok(more) + frame(refused, 2))
        self.assertEqual([payload[0] for payload in self.client.payloads()], [0, 0xFF])

    def test_state_follows(self) -> None:
        """What was set on one server is replayed on the other before it serves, in one round trip, once."""
        replica = self.open_replica()
        self.ask(self.primary, b"set @a = 1, sql_mode = ''", ok())
        self.ask(self.primary, b"use shop", ok())
        self.client.query(b"select @a")
        replayed = replica.payloads()
        self.assertEqual(replayed, [b"\x03USE `shop`", b"\x03SET @a = 1, @@session.sql_mode = ''"])
        replica.send(ok() * 2)
        self.expect(replica, b"select @a")
        self.ask(replica, b"select 2")
        self.ask(self.primary, b"set @a = 2", ok())
        self.client.query(b"select @a")
        self.assertEqual(replica.payloads(), [b"\x03SET @a = 2"])
        replica.send(ok())
        self.expect(replica, b"select @a")
        versions = [each.versions for each in self.session.snapshot().server_sessions]
        self.assertEqual(versions[0], self.session.state.versions)

    def test_replay_fails(self) -> None:
        """A server that does not take the state is left for the others; the client is told if there are none."""
        replica = self.open_replica()
        self.ask(self.primary, b"set sql_mode = ''", ok())
        self.client.query(b"select 2")
        replica.packets()
        replica.err(1231, "no")
        self.assertEqual(self.client.error(), (1231, "no"))
        self.assertEqual(replica.wire.ended, "aborted")
        self.ask(self.primary, b"delete from t", ok())

    def test_pins(self) -> None:
        """What cannot be replayed keeps everything on its server session, and ATTRIBUTE says why."""
        self.ask(self.primary, b"create temporary table t (a int)", ok())
        self.ask(self.primary, b"select 1")
        self.assertEqual(self.session.snapshot().pins, ("temporary tables",))

    def test_replica_is_lost_at_rest(self) -> None:
        """A server session that ends in the pool is forgotten, and another one is opened when it is wanted."""
        replica = self.open_replica()
        self.ask(self.primary, b"show tables")
        replica.wire.lose()
        self.house.turn()
        self.assertEqual(len(self.session.server_sessions), 1)
        self.client.query(b"select 2")
        self.expect(self.house.open(), b"select 2")

    def test_read_is_run_again(self) -> None:
        """A read whose server is lost before it answered runs once more, elsewhere."""
        replica = self.open_replica()
        self.client.query(b"select 2")
        replica.packets()
        replica.wire.lose()
        self.house.turn()
        self.expect(self.primary, b"select 2")

    def test_read_on_the_primary_is_run_again(self) -> None:
        """A read that belongs on the primary runs once more there, as soon as that is back."""
        self.house.clusters.watched = True
        self.ask(self.primary, b"delete from t", ok())
        self.client.query(b"select 2")
        self.primary.packets()
        self.primary.wire.lose()
        self.house.turn()
        self.house.refuse_connection()
        self.assertEqual((self.client.payloads(), self.house.attempts), ([], 0))
        self.house.clusters.found(Address("10.1.0.1", 3306), ServerFinding(Role.PRIMARY))
        primary = self.house.open()
        self.assertEqual(self.port(primary), 3306)
        self.expect(primary, b"select 2")

    def test_read_without_autocommit_is_not_run_again(self) -> None:
        """A read that begins a transaction is not run again in another one."""
        self.ask(self.primary, b"set autocommit = 0", ok(Ok(0, 0, 0, 0)))
        self.client.query(b"select 2")
        self.primary.packets()
        self.primary.wire.lose()
        self.house.turn()
        self.assertEqual(self.client.error()[0], 1158)

    def test_read_is_not_run_again(self) -> None:
        """Not after its answer began, not twice, and not if the settings forbid it."""
        replica = self.open_replica()
        self.house.use(routing=Routing(retry_reads=False))
        self.client.query(b"select 2")
        replica.packets()
        replica.wire.lose()
        self.house.turn()
        self.assertEqual(self.client.error()[0], 1158)
        self.house.use(routing=Routing())
        self.client.query(b"select 2")
        replica = self.house.open()
        replica.packets()
        replica.wire.lose()
        self.house.turn()
        self.assertEqual(self.primary.payloads(), [b"\x03select 2"])
        self.primary.wire.lose()
        self.house.turn()
        self.assertEqual(self.client.error()[0], 1158)

    def test_write_is_not_run_again(self) -> None:
        """A write may have been done, so its loss is told."""
        self.client.query(b"delete from t")
        self.primary.packets()
        self.primary.wire.lose()
        self.house.turn()
        self.assertEqual(self.client.error()[0], 1158)
        self.client.query(b"delete from t")
        self.expect(self.house.open(), b"delete from t", ok())

    def test_replica_refuses(self) -> None:
        """A replica that refuses connections or the account is passed over: the primary reads."""
        self.client.query(b"select 1")
        self.house.refuse_connection()
        self.expect(self.primary, b"select 1")
        self.client.query(b"select 2")
        replica = self.house.accept()
        replica.greet()
        replica.packets()
        replica.err(1045, "no such account yet", 2)
        self.expect(self.primary, b"select 2")
        self.ask(self.primary, b"select 3")

    def test_no_room(self) -> None:
        """`Too many connections` on one server means the others; on all of them it is what the client is told."""
        self.client.query(b"select 1")
        replica = self.house.accept()
        replica.err(1040, "Too many connections", 0)
        self.expect(self.primary, b"select 1")
        client = self.house.connect()
        client.packets()
        client.send(response())
        for _ in PAIR:
            self.house.accept().err(1040, "Too many connections", 0)
        self.assertEqual(client.error(), (1040, "Too many connections"))

    def test_room_again(self) -> None:
        """A replica without room is left alone for a while, and then tried again."""
        self.client.query(b"select 1")
        self.house.accept().err(1040, "Too many connections", 0)
        self.expect(self.primary, b"select 1")
        self.ask(self.primary, b"select 2")
        self.house.reactor.advance(2.1)
        self.open_replica(b"select 3")

    def test_no_room_for_a_session_that_lost_its_own(self) -> None:
        """A session that finds no room for its next server session is told so, and may try again."""
        self.primary.wire.lose()
        self.house.turn()
        self.client.query(b"delete from t")
        self.house.accept().err(1040, "Too many connections", 0)
        self.assertEqual(self.client.error(), (1040, "Too many connections"))
        self.client.query(b"delete from t")
        self.expect(self.house.open(), b"delete from t", ok())

    def test_switchover(self) -> None:
        """When the roles change, idle sessions follow with their next statement; transactions stay to their end."""
        self.ask(self.primary, b"begin", ok(IN_TRANSACTION))
        self.swap()
        self.ask(self.primary, b"delete from t", ok(IN_TRANSACTION))
        self.ask(self.primary, b"commit", ok())
        self.client.query(b"delete from t")
        other = self.house.open()
        self.assertEqual(self.port(other), 3307)
        self.expect(other, b"delete from t", ok())

    def swap(self) -> None:
        """Let the servers change their roles."""
        for port, role in ((3306, Role.REPLICA), (3307, Role.PRIMARY)):
            address = Address("10.1.0.1", port)
            cluster = self.house.clusters._clusters["odp"]
            servers = tuple(evolve(each, role=None) for each in cluster.servers)
            self.house.clusters._clusters["odp"] = evolve(cluster, servers=servers)
            self.house.clusters.found(address, ServerFinding(role))

    def test_refused_write(self) -> None:
        """A write that a server refuses as read-only waits for the new primary and runs there, unseen by the client."""
        self.house.clusters.watched = True
        suspected: list[Address] = []
        self.house.clusters.on_suspicion = suspected.append
        self.client.query(b"delete from t")
        self.primary.packets()
        self.primary.err(1290, "The MariaDB server is running with the --read-only option")
        self.assertEqual(set(suspected), {Address("10.1.0.1", 3306)})
        self.assertEqual((self.client.payloads(), self.house.attempts), ([], 0))
        self.house.reactor.advance(1)
        self.swap()
        other = self.house.open()
        self.assertEqual(self.port(other), 3307)
        self.expect(other, b"delete from t", ok())

    def test_write_waits_for_its_primary(self) -> None:
        """A write whose primary is away for a moment waits until it is found again, also if it never was down."""
        self.house.clusters.watched = True
        self.primary.wire.lose()
        self.house.turn()
        self.client.query(b"delete from t")
        self.house.refuse_connection()
        self.assertEqual((self.client.payloads(), self.house.attempts), ([], 0))
        self.house.reactor.advance(1)
        self.house.clusters.found(Address("10.1.0.1", 3306), ServerFinding(Role.PRIMARY))
        self.expect(self.house.open(), b"delete from t", ok())

    def test_reads_after_a_write_that_is_lost_sight_of(self) -> None:
        """After the server session of a write was lost, reads stay on the primary; what it has by then is asked for."""
        self.house.clusters.watched = True
        replica = self.open_replica()
        self.ask(self.primary, b"delete from t", ok())
        self.primary.wire.lose()
        self.house.turn()
        self.house.reactor.advance(1)
        self.client.query(b"rollback")
        self.house.refuse_connection()
        self.expect(replica, b"rollback", ok())
        self.client.query(b"select 2")
        self.house.refuse_connection()
        self.assertEqual((self.client.payloads(), replica.payloads()), ([], []))
        self.house.clusters.found(Address("10.1.0.1", 3306), ServerFinding(Role.PRIMARY))
        primary = self.house.open()
        self.expect(primary, b"select 2")
        self.house.reactor.advance(1)
        self.client.query(b"select 3")
        self.assertEqual(primary.payloads(), [b"\x03SELECT @@gtid_binlog_pos"])
        primary.send(result([[b"0-1-7"]]))
        self.assertEqual(replica.payloads(), [b"\x03SELECT MASTER_GTID_WAIT('0-1-7', 0)"])
        replica.send(result([[b"0"]]))
        self.expect(replica, b"select 3")

    def test_dead_primary(self) -> None:
        """While the primary is down, what is no write runs on a replica, also for a new client; BEGIN waits."""
        self.house.clusters.watched = True
        self.primary.wire.lose()
        self.house.turn()
        for _ in range(3):
            self.house.clusters.failed(Address("10.1.0.1", 3306), "connection refused")
        self.client.query(b"set names utf8mb4")
        replica = self.house.open()
        self.assertEqual(self.port(replica), 3307)
        self.expect(replica, b"set names utf8mb4", ok())
        self.ask(replica, b"rollback", ok())
        self.client.query(b"begin")
        self.house.refuse_connection()
        self.assertEqual((self.client.payloads(), replica.payloads(), self.house.attempts), ([], [], 0))
        self.house.clusters.found(Address("10.1.0.1", 3306), ServerFinding(Role.PRIMARY))
        primary = self.house.open()
        self.assertEqual(primary.payloads(), [b"\x03SET names utf8mb4"])
        primary.send(ok())
        self.expect(primary, b"begin", ok(IN_TRANSACTION))

    def test_begin_waits_for_a_new_primary(self) -> None:
        """A transaction that begins while the roles change begins on the new primary."""
        self.house.clusters.watched = True
        self.ask(self.primary, b"delete from t", ok())
        self.miss_primary()
        suspected: list[Address] = []
        self.house.clusters.on_suspicion = suspected.append
        self.client.query(b"begin")
        self.assertEqual((self.primary.payloads(), self.house.attempts, len(suspected)), ([], 0, 1))
        self.swap()
        other = self.house.open()
        self.assertEqual(self.port(other), 3307)
        self.expect(other, b"begin", ok(IN_TRANSACTION))

    def test_begin_waits_in_vain(self) -> None:
        """Where no primary comes, BEGIN fails once; the next one runs where reads do, since none is expected now."""
        self.house.clusters.watched = True
        self.ask(self.primary, b"delete from t", ok())
        self.miss_primary()
        self.client.query(b"begin")
        self.house.reactor.advance(6)
        self.assertEqual(self.client.error()[0], 1429)
        self.ask(self.primary, b"begin", ok(IN_TRANSACTION))

    def miss_primary(self) -> None:
        """Let both servers be replicas."""
        self.swap()
        self.house.clusters.found(Address("10.1.0.1", 3307), ServerFinding(Role.REPLICA))

    def test_write_that_is_refused_twice(self) -> None:
        """A change that brings no new primary does not end the wait for one."""
        self.house.clusters.watched = True
        self.client.query(b"delete from t")
        for _ in range(2):
            self.assertEqual(self.primary.payloads(), [b"\x03delete from t"])
            self.primary.err(4688, "standby tenant is read only")
            self.assertEqual(self.client.payloads(), [])
            for _ in range(3):
                self.house.clusters.failed(Address("10.1.0.1", 3307), "no answer")
            self.house.clusters.found(Address("10.1.0.1", 3307), ServerFinding(Role.REPLICA))
        self.primary.packets()
        self.primary.err(4688, "standby tenant is read only")
        self.house.reactor.advance(6)
        self.assertEqual(self.client.error(), (4688, "standby tenant is read only"))

    def test_refused_write_without_a_new_primary(self) -> None:
        """Where no primary comes in time, the client gets the refusal itself."""
        self.house.clusters.watched = True
        self.client.query(b"delete from t")
        self.primary.packets()
        self.primary.err(4688, "standby tenant is read only")
        self.house.reactor.advance(6)
        self.assertEqual(self.client.error(), (4688, "standby tenant is read only"))
        self.ask(self.primary, b"show tables")

    def test_refused_write_that_is_told(self) -> None:
        """In a transaction, of another option, or without health checks, the refusal goes to the client at once."""
        self.client.query(b"delete from t")
        self.primary.packets()
        self.primary.err(4688, "standby tenant is read only")
        self.assertEqual(self.client.error()[0], 4688)
        self.house.clusters.watched = True
        self.client.query(b"delete from t")
        self.primary.packets()
        self.primary.err(1290, "The MariaDB server is running with the --secure-file-priv option")
        self.assertEqual(self.client.error()[0], 1290)

    def test_kill_of_each_server_session(self) -> None:
        """Each server session can be ended alone; a resting one costs the client nothing."""
        replica = self.open_replica()
        self.ask(self.primary, b"show tables")
        resting = self.session.pool[0].ss_id
        self.client.query(f"kill proxysession {self.session.cs_id} {resting}".encode())
        self.house.turn()
        self.assertEqual(replica.wire.ended, "aborted")
        self.assertEqual([payload[:1] for payload in self.client.payloads()], [b"\0"])
        self.assertEqual(len(self.session.server_sessions), 1)
        self.ask(self.primary, b"show tables")

    def begin_replay(self) -> ServerPeer:
        """Make the session replay its state on the replica, for a read that waits; return the replica."""
        replica = self.open_replica()
        self.ask(self.primary, b"set @a = 1", ok())
        self.client.query(b"select @a")
        self.assertEqual(replica.payloads(), [b"\x03SET @a = 1"])
        return replica

    def asker(self) -> ClientPeer:
        """Return another client of the same user."""
        asker, _ = self.house.log_in()
        return asker

    def test_kill_amid_replay(self) -> None:
        """A session that is being moved to another server dies at once, with all its server sessions."""
        replica = self.begin_replay()
        asker = self.asker()
        asker.query(b"kill %d" % self.session.cs_id)
        self.house.turn()
        self.assertEqual(self.client.error()[0], 1317)
        self.assertEqual((replica.wire.ended, self.primary.wire.ended), ("aborted", "aborted"))
        self.assertEqual([payload[:1] for payload in asker.payloads()], [b"\0"])

    def test_kill_query_amid_replay(self) -> None:
        """A statement that waits for its server is stopped without ever going out; the session goes on."""
        replica = self.begin_replay()
        asker = self.asker()
        asker.query(b"kill query %d" % self.session.cs_id)
        self.house.turn()
        self.assertEqual(self.client.error()[0], 1317)
        self.assertEqual([payload[:1] for payload in asker.payloads()], [b"\0"])
        self.assertEqual(replica.wire.ended, "aborted")
        self.ask(self.primary, b"show tables")

    def test_kill_of_a_server_session_amid_replay(self) -> None:
        """A read whose next server session is killed while it is made ready goes on with another one."""
        replica = self.begin_replay()
        asker = self.asker()
        victim = next(each for each in self.session.server_sessions if each.address.port == 3307)
        asker.query(b"kill proxysession %d %d" % (self.session.cs_id, victim.ss_id))
        self.house.turn()
        self.assertEqual(replica.wire.ended, "aborted")
        self.assertEqual([payload[:1] for payload in asker.payloads()], [b"\0"])
        replica = self.house.open()
        self.assertEqual(replica.payloads(), [b"\x03SET @a = 1"])
        replica.send(ok())
        self.expect(replica, b"select @a")

    def test_client_leaves(self) -> None:
        """All server sessions end with their client session."""
        replica = self.open_replica()
        self.client.command(c.COM_QUIT)
        self.assertEqual((replica.payloads(), self.primary.payloads()), ([b"\x01"], [b"\x01"]))
        self.assertEqual((replica.wire.ended, self.primary.wire.ended), ("closed", "closed"))

    def test_reset(self) -> None:
        """COM_RESET_CONNECTION leaves one server session; the others would have to be reset too."""
        replica = self.open_replica()
        self.client.command(c.COM_RESET_CONNECTION)
        self.assertEqual(replica.payloads(), [b"\x1f"])
        replica.send(ok())
        self.client.packets()
        self.assertEqual(self.primary.wire.ended, "closed")

    def test_reads_after_a_write_and_a_reset(self) -> None:
        """A reset makes a MariaDB forget which write was the session's last one, so its newest of all is awaited."""
        self.ask(self.primary, b"delete from t", ok())
        self.client.command(c.COM_RESET_CONNECTION)
        self.primary.packets()
        self.primary.ok()
        self.client.packets()
        self.house.reactor.advance(1)
        self.client.query(b"select 1")
        self.house.open()
        self.assertEqual(self.primary.payloads(), [b"\x03SELECT @@gtid_binlog_pos"])


class WeakReadTests(HoldingCase):
    """A cluster where only marked reads go to the replica."""

    policy = ReadPolicy.WEAK_READ

    def test_weak_reads(self) -> None:
        """Reads leave the primary by a hint, or by the session's own wish; a hint beats the wish."""
        self.ask(self.primary, b"select 1")
        replica = self.open_replica(b"select /*+ read_consistency(weak) */ 1")
        self.ask(self.primary, b"select 2")
        self.ask(self.primary, b"set ob_read_consistency = 'weak'", ok())
        self.client.query(b"select 3")
        replica.packets()
        replica.send(ok())
        self.expect(replica, b"select 3")
        self.ask(self.primary, b"select /*+ read_consistency(strong) */ 4")


class PrimaryPolicyTests(HoldingCase):
    """A cluster whose reads all go to the primary."""

    policy = ReadPolicy.PRIMARY

    def test_reads_stay(self) -> None:
        """Nothing goes to a replica, whatever hints say."""
        self.ask(self.primary, b"select 1")
        self.ask(self.primary, b"select /*+ read_consistency(weak) */ 1")
        self.assertEqual(self.house.attempts, 0)


def ok(packet: Ok = OK) -> bytes:
    """Return an OK packet as the first of a response."""
    return frame(packet.encode(CAPABILITIES), 1)
