"""Commands through the proxy: what goes to the server, what the proxy answers, and in which order."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred, succeed
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer

from odptwist.answers import Done
from odptwist.errors import CloseReason
from odptwist.interfaces import IProxyStatement, IRouter, ISessionObserver
from odptwist.wire import constants as c
from odptwist.wire.framing import frame
from odptwist.wire.handshake import ChangeUser, parse_change_user
from odptwist.wire.responses import parse_ok
from tests.support.house import CAPABILITIES, IN_TRANSACTION, House, result


class CommandTests(SynchronousTestCase):
    def setUp(self) -> None:
        """Log one client in."""
        self.house = House()
        self.client, self.server = self.house.log_in(unprivileged=True)
        self.session = self.client.wire.protocol

    def test_query_goes_through_unchanged(self) -> None:
        """Bytes of a query and of its result set pass the proxy as they are."""
        before = len(self.server.wire.written)
        query = frame(b"\x03SELECT c FROM t WHERE id=1", 0)
        self.client.send(query)
        self.assertEqual(self.server.wire.written[before:], query)
        self.assertTrue(self.session.snapshot().busy)
        before = len(self.client.wire.written)
        answer = result([[b"a"], [None]])
        for byte in answer:
            self.server.send(bytes((byte,)))
        self.assertEqual(self.client.wire.written[before:], answer)
        self.assertFalse(self.session.snapshot().busy)

    def test_commands_cut_anywhere(self) -> None:
        """A command may come in any pieces, a proxy statement too."""
        for text in (b"\x03SELECT 1", b"\x03USE shop", b"\x03SHOW PROXYSESSION"):
            for cut in range(1, len(text) + 4):
                packet = frame(text, 0)
                self.client.send(packet[:cut])
                self.client.send(packet[cut:])
                if b"PROXY" in text:
                    self.assertEqual(self.server.payloads(), [])
                    self.assertEqual(self.client.payloads()[0], b"\x0c")
                else:
                    self.assertEqual(self.server.payloads(), [text])
                    self.server.ok()
                    self.assertEqual(self.client.payloads()[0][0], 0)
        self.assertEqual(self.session.snapshot().database, "shop")

    def test_pipelined_commands_wait_their_turn(self) -> None:
        """What a client sends ahead goes to the server one command after the other, proxy statements in between."""
        self.client.send(
            frame(b"\x03SELECT 1", 0)
            + frame(b"\x19\x01\0\0\0", 0)
            + frame(b"\x03SHOW PROXYSESSION", 0)
            + frame(b"\x0e", 0)
        )
        self.assertEqual(self.server.payloads(), [b"\x03SELECT 1"])
        self.server.row()
        self.assertIn(b"svr_session_count", self.client.wire.written)
        self.house.turn()
        self.assertEqual(self.server.payloads(), [b"\x0e"])

    def test_client_that_sends_too_far_ahead_is_not_read(self) -> None:
        """Reading pauses at 64 KiB of commands sent ahead, and goes on when they have gone out."""
        self.client.query(b"SELECT 1")
        self.client.send(frame(b"\x03SELECT '" + b"x" * 70_000 + b"'", 0))
        self.assertTrue(self.client.wire.paused)
        self.server.row()
        self.assertFalse(self.client.wire.paused)
        self.server.row()

    def test_long_proxy_statement_is_refused(self) -> None:
        """A proxy statement that does not fit into what the proxy reads is an error, and the stream goes on."""
        self.client.query(b"SHOW PROXYSESSION" + b" " * 100_000)
        code, _ = self.client.error()
        self.assertIn(code, (5010, 8007))
        self.client.query(b"SELECT 1")
        self.assertEqual(self.server.payloads(), [b"\x03SELECT 1"])

    def test_broken_commands(self) -> None:
        """A command out of order is 1156 and the end; an unknown one is 1047 and the session lives."""
        self.client.command(0x77)
        self.assertEqual(self.client.error()[0], 1047)
        self.client.query(b"SELECT 1")
        self.assertEqual(self.server.payloads(), [b"\x03SELECT 1"])
        self.server.row()
        self.client.payloads()
        self.client.send(frame(b"\x03SELECT 1", 5))
        self.assertEqual(self.client.error()[0], 1156)
        self.house.turn()
        self.assertEqual(self.session.reason, CloseReason.CLIENT_BROKE_PROTOCOL)
        self.assertEqual((self.client.wire.ended, self.server.wire.ended), ("closed", "aborted"))

    def test_proxy_answers_carry_the_status_of_the_session(self) -> None:
        """An answer of the proxy's own says that the transaction is open, as the server's last answer did."""
        self.client.query(b"BEGIN")
        self.server.ok(IN_TRANSACTION)
        self.client.payloads()
        self.client.query(b"KILL QUERY CONNECTION_ID()")
        (payload,) = self.client.payloads()
        self.assertEqual(parse_ok(payload, CAPABILITIES).status, IN_TRANSACTION.status)

    def test_no_kill_reaches_a_server(self) -> None:
        """No KILL text does: neither prepared, nor among other statements, nor by COM_PROCESS_KILL."""
        self.client.command(c.COM_STMT_PREPARE, b"KILL 7")
        self.assertEqual(self.client.payloads()[0][:1], b"\0")
        self.client.query(b"SELECT 1; KILL 7")
        self.assertEqual(self.client.error()[0], 1235)
        self.client.query(b"/*! KILL 7 */")
        self.assertEqual(self.client.error()[0], 1235)
        self.client.command(c.COM_PROCESS_KILL, b"\x63\0\0\0")
        self.assertEqual(self.client.error(), (1094, "Unknown thread id: 99"))
        self.assertEqual(self.server.payloads(), [])

    def test_change_user(self) -> None:
        """COM_CHANGE_USER goes on with the bare name and makes the server ask; then the session is the new user's."""
        change = ChangeUser(
            user="app@sys#odp",
            auth_response=b"x" * 20,
            database="shop",
            charset=45,
            plugin="mysql_native_password",
            attributes=(),
        )
        self.client.query(b"SET @a = 1")
        self.server.ok()
        self.client.payloads()
        self.server.payloads()
        self.client.send(frame(change.encode(CAPABILITIES), 0))
        (payload,) = self.server.payloads()
        sent = parse_change_user(payload, CAPABILITIES)
        self.assertEqual((sent.user, sent.database, sent.plugin), ("app", "shop", "odp_ask_again"))
        self.server.send(frame(b"\xfemysql_native_password\0" + b"s" * 20 + b"\0", 1))
        self.assertEqual(self.client.payloads()[0][0], 0xFE)
        self.client.send(frame(b"y" * 20, 2))
        self.assertEqual(self.server.payloads(), [b"y" * 20])
        self.server.accept(3)
        self.assertEqual(self.client.payloads()[0][0], 0)
        snapshot = self.session.snapshot()
        self.assertEqual((str(snapshot.identity), snapshot.database), ("app@sys#odp", "shop"))
        self.assertFalse(self.session.repeatable)
        self.assertEqual(self.session.state.settings, {})

    def test_change_user_to_a_foreign_place_is_refused(self) -> None:
        """COM_CHANGE_USER cannot lead to another tenant or cluster; the session stays as it was."""
        for user in ("app@other", "app@sys#elsewhere"):
            change = ChangeUser(user, b"", None, 45, "mysql_native_password", ())
            self.client.send(frame(change.encode(CAPABILITIES), 0))
            self.assertIn(self.client.error()[0], (1045, 4669))
        self.assertEqual(self.server.payloads(), [])
        self.assertEqual(str(self.session.identity), "root@sys#odp")

    def test_quit(self) -> None:
        """COM_QUIT reaches the server, and both connections close in good order."""
        self.client.command(c.COM_QUIT)
        self.house.turn()
        self.assertEqual(self.server.payloads(), [b"\x01"])
        self.assertEqual((self.client.wire.ended, self.server.wire.ended), ("closed", "closed"))
        self.assertEqual(self.session.reason, CloseReason.CLIENT_QUIT)
        self.assertEqual(len(self.house.registry), 0)
        self.assertEqual(self.house.timers(), [])

    def test_transactions_are_counted(self) -> None:
        """trans_count rises when a transaction ends."""
        for text, ok in (
            (b"BEGIN", IN_TRANSACTION),
            (b"COMMIT", None),
            (b"BEGIN", IN_TRANSACTION),
            (b"ROLLBACK", None),
        ):
            self.client.query(text)
            self.server.ok(ok) if ok else self.server.ok()
        self.assertEqual(self.session.snapshot().transactions, 2)

    def test_back_pressure_both_ways(self) -> None:
        """A client that does not read stops the server's side, a server that does not read the client's."""
        self.client.wire.producer.pauseProducing()
        self.assertTrue(self.server.wire.paused)
        self.client.wire.producer.resumeProducing()
        self.assertFalse(self.server.wire.paused)
        self.server.wire.producer.pauseProducing()
        self.assertTrue(self.client.wire.paused)
        self.server.wire.producer.resumeProducing()
        self.assertFalse(self.client.wire.paused)

    def test_client_that_does_not_read_the_proxys_answers(self) -> None:
        """A client that takes no more gets no more answers of the proxy's own, and soon is not read, until it reads."""
        self.client.wire.producer.pauseProducing()
        self.client.query(b"KILL QUERY 1")
        written = len(self.client.wire.written)
        for _ in range(6000):
            self.client.query(b"KILL QUERY 1")
        self.house.turn()
        self.assertEqual(len(self.client.wire.written), written)
        self.assertTrue(self.client.wire.paused)
        self.client.payloads()
        self.client.wire.producer.resumeProducing()
        for _ in range(400):
            self.house.turn()
        self.assertEqual(len(self.client.payloads()), 6000)
        self.assertFalse(self.client.wire.paused)


@implementer(ISessionObserver)
class Recorder:
    """Remembers what it is told, and may raise each time."""

    def __init__(self, broken: bool = False) -> None:
        self.told: list[Any] = []
        self._broken = broken

    def session_opened(self, session: Any) -> None:
        """Be told."""
        self._tell(("opened", session.cs_id))

    def statement_finished(self, cs_id: int, statement: bytes, seconds: float, error: int) -> None:
        """Be told."""
        self._tell((cs_id, statement, seconds, error))

    def session_closed(self, session: Any, reason: CloseReason, detail: str) -> None:
        """Be told."""
        self._tell(("closed", session.cs_id, reason, session.bound is not None))

    def _tell(self, event: Any) -> None:
        self.told.append(event)
        if self._broken:
            raise RuntimeError("an observer that fails")


@implementer(IRouter)
class BrokenRouter:
    """Fails, or chooses what there is not."""

    def choose_servers(self, identity: Any, servers: Any, purpose: Any) -> Any:
        """Raise."""
        raise RuntimeError("a router that fails")


@implementer(IProxyStatement)
class Broken:
    """A statement that fails where it is told to."""

    name = "broken"
    first_words = ("PING", "SELECT")

    def __init__(self) -> None:
        self.waiting: Deferred[Any] = Deferred()

    def parse(self, text: str) -> object | None:
        """Claim some texts, fail on others."""
        if "PARSE" in text:
            raise RuntimeError("a parser that fails")
        return text if text.startswith("PING") else None

    def answer(self, request: object, asker: Any, directory: Any) -> Deferred[Any]:
        """Fail, answer, or wait."""
        if request == "PING RAISE":
            raise RuntimeError("a statement that fails")
        if request == "PING NONSENSE":
            return succeed(object())
        return self.waiting


class ExtensionTests(SynchronousTestCase):
    def test_observers_are_told_everything(self) -> None:
        """Observers hear of openings, statements with their time and error, and ends; one that raises harms nobody."""
        recorder = Recorder()
        house = House(observers=[Recorder(broken=True), recorder])
        client, server = house.log_in(unprivileged=True)
        client.query(b"SELECT 1")
        house.reactor.advance(0.5)
        server.row()
        client.command(c.COM_STMT_CLOSE, b"\x01\0\0\0")
        client.query(b"SET nonsense = 1")
        server.err(1193, "Unknown system variable")
        client.query(b"KILL 77")
        client.wire.lose()
        house.turn()
        self.assertEqual(
            recorder.told,
            [
                ("opened", 1),
                (1, b"\x03SELECT 1", 0.5, 0),
                (1, b"\x03SET nonsense = 1", 0.0, 1193),
                (1, b"\x03KILL 77", 0.0, 1094),
                ("closed", 1, CloseReason.CLIENT_LOST, True),
            ],
        )
        self.assertEqual(len(self.flushLoggedErrors(RuntimeError)), 5)

    def test_broken_router(self) -> None:
        """When the router fails, servers are tried in the order of the settings."""
        house = House(router=BrokenRouter())
        client, _ = house.log_in(unprivileged=True)
        client.query(b"SHOW PROXYSESSION")
        self.assertEqual(client.payloads()[0], b"\x0c")
        self.assertEqual(len(self.flushLoggedErrors(RuntimeError)), 1)

    def test_broken_statement(self) -> None:
        """A statement that fails leaves no client without an answer."""
        house = House(statements=[Broken()])
        client, server = house.log_in()
        client.query(b"PING RAISE")
        self.assertEqual(client.error()[0], 1105)
        client.query(b"PING NONSENSE")
        self.assertEqual(client.error()[0], 1105)
        server.payloads()
        client.query(b"PING PARSE")
        self.assertEqual(server.payloads(), [b"\x03PING PARSE"])
        self.assertEqual(len(self.flushLoggedErrors(RuntimeError, TypeError)), 3)

    def test_statement_that_takes_its_time(self) -> None:
        """While a statement waits, its client's next command waits too, and the end of the session ends the waiting."""
        broken = Broken()
        house = House(statements=[broken])
        client, server = house.log_in()
        server.payloads()
        client.query(b"PING LATER")
        client.query(b"SELECT 1")
        self.assertEqual(server.payloads(), [])
        broken.waiting.callback(Done())
        self.assertEqual(client.payloads()[0][0], 0)
        house.turn()
        self.assertEqual(server.payloads(), [b"\x03SELECT 1"])
        server.row()
        broken.waiting = Deferred()
        client.query(b"PING LATER")
        client.wire.lose()
        house.turn()
        self.assertTrue(broken.waiting.called)
        self.assertEqual(len(house.registry), 0)
