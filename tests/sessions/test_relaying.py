"""The relay in C: it does what Python does, and leaves to Python what it must."""

from __future__ import annotations

import contextlib
import gc
import os
import re
import socket
import sys
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from twisted.internet.main import CONNECTION_DONE
from twisted.internet.protocol import Protocol
from twisted.internet.testing import MemoryReactorClock
from twisted.python.failure import Failure
from twisted.trial.unittest import SkipTest, SynchronousTestCase

from odptwist.errors import CloseReason
from odptwist.machines.exchange import FORWARD, LOOK_LIMIT, SHAPES, Tracker, plain_prefixes
from odptwist.machines.gear import GEAR
from odptwist.sessions import relaying
from odptwist.sessions.client import ClientSession
from odptwist.sessions.conversation import Conversation
from odptwist.sessions.counting import statistics_of
from odptwist.sessions.holding import Holding
from odptwist.sessions.polling import poll_lean
from odptwist.sessions.ruled import RuledSession
from odptwist.sessions.transport import BUFFER_SIZE, DirectTransport
from odptwist.snapshots import ReadPolicy, Role
from odptwist.wire.constants import CLIENT_DEPRECATE_EOF, COM_PING, COM_QUERY, COM_QUIT
from odptwist.wire.framing import frame
from odptwist.wire.responses import Err, Ok
from odptwist.wire.resultset import encode_prepared
from tests.machines.exchanges import exchanges
from tests.support.compiled import find_compiled
from tests.support.house import CAPABILITIES, IN_TRANSACTION, OK, House, result
from tests.support.linked import Far, Linked, make_reactor

EXAMPLES = int(os.environ.get("ODPTWIST_EXAMPLES", "150"))
SLOW = settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=[HealthCheck.too_slow])
PLAIN = plain_prefixes(("show", "kill", "alter"))


def query(text: bytes) -> bytes:
    """Return a framed COM_QUERY."""
    return frame(bytes((COM_QUERY,)) + text, 0)


def said(ok: Ok | Err) -> bytes:
    """Return a framed answer."""
    return frame(ok.encode(CAPABILITIES) if isinstance(ok, Ok) else ok.encode(), 1)


SELECT = query(b"SELECT 1")
ROW = result([[b"1"]])


def relay_in_c() -> Any:
    """Return the module in C; it has to be where the sessions find it, and the machines in C, too."""
    try:
        module = import_module("odptwist.sessions._hub")
    except ImportError:
        if os.environ.get("ODPTWIST_REQUIRE") == "all" and find_compiled("odptwist.sessions._hub") is None:
            raise AssertionError("the relay in C was not built, and ODPTWIST_REQUIRE=all is set") from None
        raise SkipTest("the relay in C was not built beside this source") from None
    if GEAR != "C tracker":
        raise SkipTest("the machines run in Python")
    return module


class RelayCase(SynchronousTestCase):
    """Tests that need the relay."""

    def setUp(self) -> None:
        """Skip where it was not built, or is switched off."""
        relay_in_c()
        self.patch(relaying, "MAY_RELAY", True)

    def watch(self, owner: type, name: str, calls: list[str], instead: Any = None) -> None:
        """Note calls of a method; `instead` is done in its place, unless that is None."""
        before = getattr(owner, name)

        def noted(each: Any, *arguments: Any) -> Any:
            calls.append(name)
            return (instead or before)(each, *arguments)

        self.patch(owner, name, noted)

    def seen_by_python(self) -> list[str]:
        """Return a list that grows by what Python has to do for an event."""
        calls: list[str] = []
        self.watch(DirectTransport, "doRead", calls)
        self.watch(ClientSession, "dataReceived", calls)
        self.watch(ClientSession, "responded", calls)
        return calls


class GearTests(RelayCase):
    def test_where_it_runs(self) -> None:
        """It runs on Twisted's epoll reactor, not elsewhere, and not if it is not wanted."""
        other: Any = MemoryReactorClock()
        self.assertFalse(relaying.relay(other))
        self.assertEqual(relaying.gear_of(other), GEAR)
        reactor = make_reactor(self, relaying.relay)
        self.assertEqual(relaying.gear_of(reactor), "C relay")
        self.patch(relaying, "MAY_RELAY", False)
        make_reactor(self, lambda reactor: not relaying.relay(reactor))

    def test_where_it_was_not_built(self) -> None:
        """Without the module in C the reactor stays as it is."""

        def no_module(name: str) -> Any:
            raise ImportError(name)

        self.patch(relaying, "import_module", no_module)
        make_reactor(self, lambda reactor: not relaying.relay(reactor))

    def test_what_is_no_layout(self) -> None:
        """A name that is no slot is an error at once, not a wrong read later."""
        make_hub = relay_in_c().Hub
        reactor = make_reactor(self, poll_lean)
        for layout in (
            relaying.Layout(asking={"reason": None, "command_count": 0}),
            relaying.Layout(serving={"nothing": 0}),
            relaying.Layout(client=RelayCase),
            relaying.Layout(tracker=dict),
            relaying.Layout(sizes=(1,) * 99),
            relaying.Layout(sizes=("x",)),  # type: ignore[arg-type]
            relaying.Layout(writable=dict.fromkeys("abcdefghijklmnopqrstuvwxyz")),
            None,
        ):
            with self.assertRaises((TypeError, AttributeError)):
                make_hub(reactor._poller.fileno(), layout, time.time, print, print)
        with self.assertRaises(OSError):
            make_hub(-1, relaying.Layout(), time.time, print, print)

    def test_what_it_does_itself_is_not_overridden(self) -> None:
        """The methods whose work the relay does are those of the classes that it was written after."""
        for name in ("dataReceived", "forward", "finished", "_note", "_status_changed", "send_on"):
            self.assertIs(getattr(ClientSession, name), getattr(Conversation, name), name)
        self.assertIs(ClientSession.choose, Holding.choose)
        found = [vars(each).get("responded") for each in ClientSession.__mro__]
        overrides = {each.__qualname__ for each in found if each is not None}
        self.assertEqual(overrides, {"Conversation.responded", "Holding.responded"})
        self.assertIsNot(RuledSession._note, ClientSession._note)

    def test_what_is_replaced_is_diverted(self) -> None:
        """Nobody replaces `dataReceived` of a session but by `divert`, which the relay can see."""
        replaced = [
            source.name
            for source in sorted(Path(relaying.__file__).parent.glob("*.py"))
            for line in source.read_text().splitlines()
            if re.search(r"\.dataReceived\s*=", line)
        ]
        self.assertEqual(replaced, ["server.py"])


class PlainCommandTests(RelayCase):
    def check(self, chunk: bytes) -> None:
        """Check that the relay takes a chunk for plain if and only if the tracker does."""
        tracker = Tracker(0, PLAIN)
        taken = tracker.client(chunk) if len(chunk) < 4 or not chunk[3] else None
        plain = taken == FORWARD
        self.assertEqual(relay_in_c().shape_of(chunk, PLAIN), tracker._shape if plain else 0, chunk)

    TEXTS = st.lists(
        st.one_of(
            st.sampled_from([b"select ", b"SELECT ", b"Select ", b"insert ", b"with ", b"show ", b"begin", b"COMMIT"]),
            st.sampled_from([b"_LOCK", b"get_lock(", b"LAST_insert_id()", b"connection_id(", b"proxy_versioN", b"("]),
            st.sampled_from([b"proxysession", b"ProxySession", b"x", b"X", b"@", b";", b"/*", b"/", b"*", b"_loc"]),
            st.sampled_from([b"start transaction", b"rollback", b"ROLLBACK", b"Begin", b" ", b"\xc4\xb0", b"\0"]),
            st.binary(max_size=4),
        ),
        max_size=6,
    ).map(b"".join)

    @settings(max_examples=EXAMPLES * 4, deadline=None)
    @given(TEXTS, st.sampled_from([COM_QUERY, COM_QUERY, COM_QUERY, *range(40)]))
    def test_same(self, text: bytes, command: int) -> None:
        """Both find the same commands plain."""
        self.check(frame(bytes((command,)) + text, 0))

    @given(st.binary(max_size=12))
    def test_any_bytes(self, chunk: bytes) -> None:
        """Both do so with what is no command."""
        tracker = Tracker(0, PLAIN)
        if len(chunk) < 4 or (not chunk[3] and chunk[:3] != b"\0\0\0"):
            del tracker
            self.check(chunk)

    def test_of_every_size(self) -> None:
        """The header of a text of 64 bytes has an `@`; it makes no text one with a variable."""
        for size in (*range(5, 300), 0x402F, 0x2A2F, 8190, 8191, 8192, 8193, 8200, 16448):
            for end in (b"", b"proxysession", b"("):
                text = (b"select " + b"a" * size)[: size - len(end)] + end
                self.check(query(text))
                if size in (64, 59, 40):
                    self.assertTrue(relay_in_c().shape_of(query(b"select".ljust(size - 1, b"a")), PLAIN))

    def test_what_is_not_bytes(self) -> None:
        """Anything else is refused."""
        for arguments in (("x", PLAIN), (b"x", set()), (b"x",)):
            self.assertRaises(TypeError, relay_in_c().shape_of, *arguments)


# Commands and what a server may say to them: most of it fits, some does not.
COMMANDS = st.sampled_from(
    [
        SELECT,
        SELECT,
        query(b"select ".ljust(150, b"y")),
        query(b"INSERT INTO t VALUES (1)"),
        query(b"update t set a = 1"),
        query(b"begin"),
        query(b"COMMIT"),
        query(b"SET @a = 1"),
        query(b"USE test"),
        query(b"SELECT @a"),
        query(b"SELECT 1; SELECT 2"),
        query(b"SELECT x FROM t"),
        frame(bytes((COM_PING,)), 0),
        frame(b"\x09", 0),
        frame(b"\x17\1\0\0\0\0\1\0\0\0", 0),
        frame(b"\x16SELECT ?", 0),
        SELECT * 2,
        SELECT + query(b"SET @b = 2") + SELECT,
    ]
)
ANSWERS = st.sampled_from(
    [
        said(OK),
        said(OK),
        ROW,
        ROW,
        result([[b"x" * 90]]),
        result([[b"x" * 2000]] * 3),
        said(IN_TRANSACTION),
        said(Ok(1, 7, 2, 0)),
        said(Err(1064, "42000", "no")),
        result([[b"1"]], 2 | 8) + said(OK),
        frame(b"Uptime: 1", 1),
        frame(b"\0\1\0\0\0\0\0\0\0\0\0\0", 1),
        said(OK) + said(Err(1927, "08S01", "Connection was killed")),
        b"\7\0\0\1\0\0\0",
        b"\1\0\0\1\xfb",
    ]
)
INT, TEXT = b"\x03\0", b"\xfd\0"
PREPARED = ((3, 0), (4, 1), (5, 9))
"""Numbers of prepared statements, and of their parameters."""


def prepared(number: int, parameters: int) -> bytes:
    """Return the response to a COM_STMT_PREPARE."""
    return encode_prepared(number, parameters, (), CAPABILITIES, 2)


def execute(number: int, parameters: int = 0, types: bytes = b"", flags: int = 0) -> bytes:
    """Return a framed COM_STMT_EXECUTE, cut behind the types."""
    told = (b"\x01" + types if types else b"\0") if parameters else b""
    head = b"\x17" + number.to_bytes(4, "little") + bytes((flags,)) + b"\x01\0\0\0"
    return frame(head + bytes((parameters + 7) // 8) + told, 0)


ABOUT_PREPARED = st.sampled_from(
    [
        *(execute(number, parameters) for number, parameters in PREPARED * 2),
        *(execute(number, parameters, INT * parameters) for number, parameters in PREPARED * 3),
        execute(4, 1, TEXT),
        execute(5, 9, TEXT * 9),
        execute(5, 9, TEXT * 8 + b"\0"),
        execute(4, 1, INT)[:-1],
        execute(3, flags=1),
        execute(4, 1, INT, flags=1),
        execute(9),
        execute(0xFFFFFFFF),
        frame(b"\xfa\4\0\0\0\0\0", 0),
        frame(b"\x17\4\0\0\0", 0),
        frame(b"\x18\4\0\0\0\0\0long", 0),
        frame(b"\x19\5\0\0\0", 0),
        frame(b"\x1a\4\0\0\0", 0),
        frame(b"\x1c\3\0\0\0\2\0\0\0", 0),
        SELECT,
        query(b"begin"),
        query(b"INSERT INTO t VALUES (1)"),
        frame(b"\x16SELECT 1", 0),
    ]
)
STEPS_OF_PREPARED = st.lists(
    st.one_of(
        st.tuples(
            st.just("exchange"),
            ABOUT_PREPARED,
            st.one_of(ANSWERS, st.sampled_from([ROW, said(OK), result([[b"1"]], 2 | 64), result([[b"1"]], 2 | 128)])),
            st.lists(st.integers(1, 60), max_size=2),
        ),
        st.tuples(st.just("exchange"), ABOUT_PREPARED, st.just(said(OK)), st.just([])),
        st.tuples(st.just("exchange"), st.just(query(b"commit")), st.sampled_from([said(OK), ROW]), st.just([])),
        st.tuples(st.just("exchange"), st.just(query(b"begin")), st.just(said(IN_TRANSACTION)), st.just([])),
        st.tuples(st.just("exchange"), st.just(frame(b"\x16DO ?", 0)), st.just(prepared(6, 1)), st.just([])),
        st.tuples(st.just("client"), ABOUT_PREPARED),
        st.tuples(st.just("hold")),
        st.tuples(st.just("release")),
        st.tuples(st.just("wait"), st.sampled_from([0.25, 3.0])),
    ),
    max_size=12,
)
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("exchange"), COMMANDS, ANSWERS, st.lists(st.integers(1, 60), max_size=2)),
        st.tuples(st.just("exchange"), st.just(SELECT), st.just(ROW), st.just([])),
        st.tuples(st.just("client"), COMMANDS),
        st.tuples(st.just("client"), st.binary(min_size=1, max_size=8)),
        st.tuples(st.just("cut"), COMMANDS, st.integers(1, 12)),
        st.tuples(st.just("server"), ANSWERS),
        st.tuples(st.just("hold")),
        st.tuples(st.just("release")),
        st.tuples(st.just("mark")),
        st.tuples(st.just("wait"), st.sampled_from([0.25, 3.0])),
    ),
    max_size=8,
)
ENDS = st.sampled_from(["none", "none", "quit", "client", "server", "drop"])


def prepare(world: Linked) -> None:
    """Let a client prepare and execute `PREPARED`; the server knows them under other numbers then."""
    for number, parameters in PREPARED:
        for command, answer in (
            (frame(b"\x16DO 1", 0), prepared(number, parameters)),
            (execute(number, parameters, INT * parameters), said(OK)),
        ):
            world.client.send(command)
            world.turn()
            world.server.send(answer)
            world.turn()
    here: Any = world.served_by.prepared
    for known in here._statements.values():
        known.number += 0x01020304
    world.client.came = world.server.came = b""


class SameTests(RelayCase):
    """Both worlds get the same, and must say, know and count the same afterwards."""

    def worlds(self, small: bool = False, policy: ReadPolicy | None = None) -> list[Linked]:
        """Return one with the relay, and one without; with a policy, in a cluster of a primary and a replica."""

        def make(prepare: Callable[[Any], bool]) -> Linked:
            house = House(roles=(Role.PRIMARY, Role.REPLICA), read_policy=policy) if policy is not None else None
            return Linked(self, prepare, small, house)

        return [make(prepare) for prepare in (relaying.relay, poll_lean)]

    def picture(self, world: Linked) -> dict[str, Any]:
        """Return all that can be seen of a world."""
        session, server = world.session, world.served_by
        names = ("bytes_in", "bytes_out", "statement", "since", "status", "_noted", "reason", "detail", "_paused")
        seen = {name: getattr(session, name) for name in names}
        tracker = ("_phase", "_skip", "_held", "kept", "answered", "number", "status", "error", "insert_id", "changes")
        seen |= {f"tracker.{name}": getattr(session.tracker, name) for name in tracker}
        names = ("bytes_in", "bytes_out", "pickups", "versions", "reason", "detail", "holds", "synced")
        seen |= {f"server.{name}": getattr(server, name) for name in names}
        names = ("transactions", "transaction_since", "choosing", "_again", "dressing")
        seen |= {name: getattr(session, name) for name in names}
        seen["inserted here"] = session.inserted_on is server
        seen["bound"] = session.bound is server
        seen |= {name: getattr(session, name) for name in ("unsent", "_target")}
        if session.choice is not None:
            names = ("purpose", "reads", "writes", "_wrote_at", "_position", "_missed_since")
            seen |= {f"choice.{name}": getattr(session.choice, name) for name in names}
            seen["wrote here"] = session.choice.wrote_on is server
        seen |= {f"state.{name}": getattr(session.state, name) for name in ("serial", "insert_id", "pins")}
        if session.binary is not None:
            names = ("_code", "statement", "own", "preparing")
            seen |= {f"binary.{name}": repr(getattr(session.binary, name)) for name in names}
            seen |= {f"statement {each.number}": repr(each) for each in session.binary._all}
            known = session.binary._known
            seen["known"] = (known.number, known.types) if known is not None else None
            here = server.prepared._statements.items() if server.prepared is not None else ()
            seen["here"] = [(each.number, known.number, known.types) for each, known in here]
        seen |= {each.name: each.value for each in statistics_of(session)}
        ends = {"client": world.client, "server": world.server}
        for name, far in ends.items():
            seen |= {f"{name}.came": far.came, f"{name}.ended": far.ended}
        return seen

    def play(self, world: Linked, step: tuple[Any, ...]) -> None:
        """Do one thing in a world."""
        what, *rest = step
        if what == "exchange":
            command, answer, cuts = rest
            world.client.send(command)
            world.turn()
            start = 0
            for cut in (*sorted(cuts), len(answer)):
                world.server.send(answer[start:cut])
                world.turn()
                start = max(start, cut)
        elif what == "cut":
            command, place = rest
            for part in (command[:place], command[place:]):
                world.client.send(part)
                world.turn()
        elif what in ("client", "server"):
            getattr(world, what).send(*rest)
        elif what == "hold":
            world.served_by.holds += 1
        elif what == "release" and world.served_by.holds:
            world.served_by.holds -= 1
            world.session.released()
        elif what == "mark":
            world.session.mark_for_end("a test", None)
        elif what == "wait":
            world.house.reactor.advance(*rest)
        world.turn()

    def end(self, world: Linked, how: str) -> None:
        """End a world in some way."""
        if how == "quit":
            world.client.send(frame(bytes((COM_QUIT,)), 0))
        elif how in ("client", "server"):
            far: Far = getattr(world, how)
            far.read()
            far.socket.shutdown(socket.SHUT_WR)
        elif how == "drop":
            world.session.drop(CloseReason.KILLED, "a test")
        world.turn()

    def stay_same(
        self,
        worlds: list[Linked],
        steps: list[tuple[Any, ...]],
        how: str,
        begin: Callable[[Linked], None] = lambda world: None,
    ) -> None:
        """Take these steps in both worlds, and check after each that they are the same."""
        try:
            for world in worlds:
                begin(world)
            for step in steps:
                for world in worlds:
                    self.play(world, step)
                self.assertEqual(*map(self.picture, worlds), step)
            for world in worlds:
                self.end(world, how)
            self.assertEqual(*map(self.picture, worlds))
        finally:
            self.doCleanups()
            self.patch(relaying, "MAY_RELAY", True)

    @SLOW
    @given(STEPS, ENDS)
    def test_same(self, steps: list[tuple[Any, ...]], how: str) -> None:
        """Whatever comes, in whatever pieces, both worlds stay the same."""
        self.stay_same(self.worlds(), steps, how)

    @SLOW
    @given(st.one_of(STEPS, STEPS_OF_PREPARED), ENDS, st.sampled_from([ReadPolicy.PRIMARY, ReadPolicy.REPLICA_FIRST]))
    def test_same_of_several_servers(self, steps: list[tuple[Any, ...]], how: str, policy: ReadPolicy) -> None:
        """So they do in a cluster of several servers, where each command may go to another one."""
        self.stay_same(self.worlds(policy=policy), steps, how, prepare)

    @SLOW
    @given(STEPS_OF_PREPARED, ENDS)
    def test_same_of_prepared(self, steps: list[tuple[Any, ...]], how: str) -> None:
        """So they do with prepared statements."""
        self.stay_same(self.worlds(), steps, how, prepare)

    def test_same_of_the_rare(self) -> None:
        """What the lists above rarely hit is the same, too."""
        opened = result([[b"1"]], 2 | 64)[:-15]  # without the row and the EOF behind it
        no = said(Err(1064, "42000", "no"))
        steps: list[tuple[bytes, bytes]] = [
            (execute(4, 1, flags=1), opened),
            (frame(b"\x1c\4\0\0\0\2\0\0\0", 0), ROW[-15:]),
            (execute(5, 9, INT * 9), no),
            (frame(b"\x1a\5\0\0\0", 0), said(OK)),
            (frame(b"\x16SHOW PROXYSESSION", 0), b""),
            (execute(6), b""),
            (SELECT, ROW),
            (query(b"SET TRANSACTION READ ONLY"), said(OK)),
            (query(b"begin"), said(IN_TRANSACTION)),
            (query(b"commit"), said(OK)),
            (query(b"insert ".ljust(70_000, b"y")), said(OK)),
            *((query(b"select ".ljust(LOOK_LIMIT + more, b"y")), said(OK)) for more in range(-6, 2)),
        ]
        worlds = self.worlds()
        for world in worlds:
            for far in (world.client, world.session.transport):
                far.socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 18)
            prepare(world)
        for step in steps:
            for world in worlds:
                self.play(world, ("exchange", *step, []))
            self.assertEqual(*map(self.picture, worlds), step)
        self.assertEqual(worlds[0].session.state.pins, set())

    def test_cut_everywhere(self) -> None:
        """Every response of the table, cut in two at every byte, leaves the same in both worlds, and comes whole."""
        for capabilities in (0, CLIENT_DEPRECATE_EOF):
            worlds = self.worlds()
            for world in worlds:
                world.session.tracker = Tracker(capabilities, PLAIN)
            for each in exchanges(capabilities):
                if len(each.turns) > 1 or len(each.streams()[0]) > 400:
                    continue
                (stream,) = each.streams()
                for cut in range(len(stream)):
                    for world in worlds:
                        world.session.tracker.begin(SHAPES[each.command[0]])
                        world.client.came = b""
                        for part in filter(None, (stream[:cut], stream[cut:])):
                            world.server.send(part)
                            world.turn(1)
                        self.assertEqual(world.client.came, stream, (each.name, cut))
                        self.assertEqual(world.session.tracker._phase, 0)
                    self.assertEqual(*map(self.picture, worlds), (each.name, cut))

    def test_command_cut_everywhere(self) -> None:
        """A command that comes in two pieces goes on like one that comes whole."""
        worlds = self.worlds()
        for cut in range(1, len(SELECT)):
            for world in worlds:
                self.play(world, ("cut", SELECT, cut))
                self.play(world, ("server", ROW))
            self.assertEqual(*map(self.picture, worlds), cut)
        self.assertEqual(worlds[0].server.came, SELECT * (len(SELECT) - 1))

    def test_a_client_that_reads_nothing(self) -> None:
        """A large result stops with the client, both sockets full, and comes whole as soon as it reads again."""
        stream = result([[bytes((65 + row % 26,)) * 5000] for row in range(2000)])
        for world in self.worlds(small=True):
            world.client.send(SELECT)
            world.turn()
            sent = 0
            for _ in range(40):  # the client does not read meanwhile
                sent += self.send_some(world.server, stream[sent:])
                world.reactor.doIteration(0)
            self.assertLess(sent, 2_000_000)
            self.assertFalse(world.session.takes)
            while len(world.client.came) < len(stream):
                before = len(world.client.came)
                sent += self.send_some(world.server, stream[sent:])
                world.turn(2)
                self.assertTrue(len(world.client.came) > before or sent < len(stream))
            self.assertEqual(world.client.came, stream)
            self.assertEqual(sum(world.session.counts.responses), 1)

    def test_large_result_in_one_go(self) -> None:
        """A result that fills more than one read arrives although nothing follows."""
        stream = result([[bytes((65 + row % 26,)) * 5000] for row in range(60)])
        self.assertGreater(len(stream), BUFFER_SIZE)
        for world in self.worlds():
            for end in (world.server.socket, world.session.transport.socket):
                end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
            world.client.send(SELECT)
            world.turn()
            self.assertEqual(self.send_some(world.server, stream), len(stream))
            world.turn()
            self.assertEqual(world.client.came, stream)
            self.assertTrue(world.session.takes)

    def test_end_behind_an_answer(self) -> None:
        """A server that closes right behind its answer, or a client right behind a command, is known to have gone."""
        for world in self.worlds():
            world.client.send(SELECT)
            world.turn()
            world.server.send(ROW)
            world.server.socket.close()
            world.turn()
            self.assertEqual(world.client.came, ROW)
            self.assertIsNone(world.session.bound)
        for world in self.worlds():
            world.client.send(SELECT)
            world.client.socket.close()
            world.reactor.doIteration(0)
            world.reactor.doIteration(0)
            self.assertIs(world.session.reason, CloseReason.CLIENT_LOST)

    def test_a_server_that_reads_nothing(self) -> None:
        """A command that its server does not take waits, and nothing is lost."""
        command = query(b"select '" + b"a" * 50_000 + b"'")
        for world in self.worlds(small=True):
            world.server.read = lambda: None  # type: ignore[method-assign]
            left = command
            for _ in range(60):
                left = left[self.send_some(world.client, left) :]
                world.turn(1)
            self.assertEqual(left, b"")
            del world.server.read
            world.turn(80)
            for _ in range(80):
                world.turn(1)
            self.assertEqual(world.server.came, command)

    @staticmethod
    def send_some(far: Far, data: bytes) -> int:
        """Send what the socket takes, and return how much that was."""
        try:
            return far.socket.send(data) if data else 0
        except BlockingIOError:
            return 0


def conditions() -> Iterator[tuple[str, dict[str, Any], Callable[[Linked], Any]]]:
    """Yield the relay's conditions on what it passes from a client to a server, and whose they are."""
    yield "asking", relaying.ASKING, lambda world: world.session
    yield "tracking", relaying.TRACKING, lambda world: world.session.tracker
    yield "serving", relaying.SERVING, lambda world: world.served_by
    yield "writable", relaying.WRITABLE, lambda world: world.server.transport


class ConditionTests(RelayCase):
    """What is not as the relay wants it goes through Python."""

    def setUp(self) -> None:
        """Note what Python does."""
        super().setUp()
        self.world = Linked(self, relaying.relay)
        self.calls = self.seen_by_python()

    @staticmethod
    def another(value: Any) -> Any:
        """Return another value of the same kind."""
        if isinstance(value, bool):
            return not value
        if isinstance(value, int):
            return 1 - value
        return {b"": b"x", "": "x", (): (b"x",)}.get(value, object())

    def test_plain(self) -> None:
        """A plain exchange passes without Python; so do a hundred."""
        for _ in range(100):
            self.world.client.send(SELECT)
            self.world.turn(1)
            self.world.server.send(ROW)
            self.world.turn(1)
        self.assertEqual((self.world.client.came, self.calls), (ROW * 100, []))

    def test_to_the_server(self) -> None:
        """Each condition for a command, if it is not met, sends that through Python."""
        self.watch(DirectTransport, "doRead", self.calls, lambda each: None)
        for kind, names, found in conditions():
            for name, due in names.items():
                owner = found(self.world)
                self.assertIs(getattr(owner, name), due, f"{kind}: {name}")
                setattr(owner, name, self.another(due))
                del self.calls[:]
                self.world.client.send(SELECT)
                self.world.reactor.doIteration(0)
                self.assertEqual((self.calls, self.world.server.came), (["doRead"], b""), f"{kind}: {name}")
                self.world.client.transport.socket.recv(100)
                setattr(owner, name, due)

    def test_to_the_client(self) -> None:
        """Each condition for a response, if it is not met, sends that through Python."""
        self.world.session.tracker.begin(3)
        self.watch(DirectTransport, "doRead", self.calls, lambda each: None)
        for kind, names, owner in (
            ("serving", relaying.SERVING, self.world.served_by),
            ("writable", relaying.WRITABLE, self.world.client.transport),
        ):
            for name, due in names.items():
                setattr(owner, name, self.another(due))
                del self.calls[:]
                self.world.server.send(ROW)
                self.world.reactor.doIteration(0)
                self.world.client.read()
                self.assertEqual((self.calls, self.world.client.came), (["doRead"], b""), f"{kind}: {name}")
                self.world.server.transport.socket.recv(1000)
                setattr(owner, name, due)

    def test_at_the_end(self) -> None:
        """Each condition for the end of a response, if it is not met, has Python told of it, once."""
        self.watch(ClientSession, "responded", self.calls, lambda each: None)
        session, tracker = self.world.session, self.world.session.tracker
        for kind, names, owner in (
            ("ending", relaying.ENDING, session),
            ("tracking", relaying.TRACKING, tracker),
        ):
            for name, due in names.items():
                setattr(owner, name, self.another(due))
                del self.calls[:]
                tracker.begin(3)
                self.world.server.send(ROW)
                self.world.reactor.doIteration(0)
                self.assertEqual(self.calls, ["responded"], f"{kind}: {name}")
                setattr(owner, name, due)
                del self.calls[:]
        tracker.begin(3)
        self.world.server.send(said(Ok(0, 0, 2 | 0x4000, 0)))
        self.world.reactor.doIteration(0)
        self.assertEqual(self.calls, ["responded"])

    def test_transactions_and_inserts(self) -> None:
        """What begins and ends a transaction passes without Python, and what inserts."""
        for answer in (said(IN_TRANSACTION), said(Ok(1, 9, 3, 0)), ROW, said(OK)):
            self.world.client.send(query(b"commit"))
            self.world.turn(1)
            self.world.server.send(answer)
            self.world.turn(1)
        self.assertEqual(self.calls, [])
        self.assertEqual((self.world.session.transactions, self.world.session.state.insert_id), (1, 9))
        self.assertIs(self.world.session.inserted_on, self.world.served_by)

    def test_prepared(self) -> None:
        """Executes of prepared statements pass without Python, under the server's numbers."""
        prepare(self.world)
        del self.calls[:]
        for number, parameters in PREPARED:
            for types in (b"", INT * parameters):
                self.world.client.send(execute(number, parameters, types))
                self.world.turn(1)
                self.assertEqual(self.world.server.came, execute(number + 0x01020304, parameters, types))
                self.world.server.came = b""
                self.world.server.send(ROW)
                self.world.turn(1)
        self.world.client.send(SELECT)
        self.world.turn(1)
        self.assertEqual((self.world.client.came, self.calls), (ROW * 6, []))

    def test_prepared_and_more(self) -> None:
        """What else an execute needs is done by Python: types, long data, a cursor; fetches and resets, too."""
        prepare(self.world)
        for command in (
            execute(4, 1, TEXT),
            execute(4, 1, INT)[:14],
            execute(4, 1, INT, flags=1),
            execute(0xFFFFFFFF),
            frame(b"\x1a\4\0\0\0", 0),
            frame(b"\x1c\4\0\0\0\2\0\0\0", 0),
        ):
            world = Linked(self, relaying.relay)
            prepare(world)
            del self.calls[:]
            world.client.send(command)
            world.turn(1)
            self.assertEqual(self.calls[:1], ["dataReceived"], command)
            world.server.send(ROW)
            world.turn(1)

    def test_conditions_of_prepared(self) -> None:
        """Each condition for an execute, if it is not met, sends that through Python, and the end of its response."""
        prepare(self.world)
        session = self.world.session
        self.watch(ClientSession, "dataReceived", self.calls, lambda each, chunk: None)
        self.watch(ClientSession, "responded", self.calls, lambda each: None)
        binary: Any = session.binary
        for kind, names, owner in (
            ("keeping", relaying.KEEPING, binary._all),
            ("passing", relaying.PASSING, binary._all.get(4)),
        ):
            for name, due in names.items():
                self.assertIs(getattr(owner, name), due, f"{kind}: {name}")
                setattr(owner, name, self.another(due))
                del self.calls[:]
                self.world.client.send(execute(4, 1))
                self.world.reactor.doIteration(0)
                self.assertIn("dataReceived", self.calls, f"{kind}: {name}")
                setattr(owner, name, due)
                self.world.client.send(execute(4, 1))
                self.world.reactor.doIteration(0)
                setattr(owner, name, self.another(due))
                del self.calls[:]
                self.world.server.send(ROW)
                self.world.reactor.doIteration(0)
                self.assertEqual(self.calls, ["responded"], f"{kind}: {name}")
                setattr(owner, name, due)
                session.tracker.status = session.status

    def test_several_servers(self) -> None:
        """In a cluster, Python only chooses the server, as long as that is the same one; else it sends, too."""
        house = House(roles=(Role.PRIMARY, Role.REPLICA), read_policy=ReadPolicy.REPLICA_FIRST)
        world = Linked(self, relaying.relay, house=house)
        self.watch(ClientSession, "choose", self.calls)
        self.watch(ClientSession, "send_on", self.calls)
        del self.calls[:]
        for command, answer in (
            (query(b"begin"), said(IN_TRANSACTION)),
            (query(b"insert into t values (1)"), said(Ok(1, 7, 3, 0))),
            (SELECT, result([[b"1"]], 3)),
            (query(b"commit"), said(OK)),
        ):
            world.client.send(command)
            world.turn(1)
            world.server.send(answer)
            world.turn(1)
            self.assertEqual((self.calls, world.server.came), (["choose"], command))
            world.server.came = b""
            del self.calls[:]
        choice: Any = world.session.choice
        self.assertIs(choice.wrote_on, world.served_by)
        house.reactor.advance(100)  # whatever was written has reached the replica
        world.client.send(SELECT)
        world.turn(1)
        self.assertEqual((self.calls, world.server.came, world.session.unsent), (["choose", "send_on"], b"", (SELECT,)))

    def test_fault_in_a_choice(self) -> None:
        """A bug in choosing a server ends that session alone, and is called what it is."""

        def choose(each: ClientSession, command: bytes) -> bool:
            raise ZeroDivisionError

        self.watch(ClientSession, "choose", self.calls, choose)
        house = House(roles=(Role.PRIMARY, Role.REPLICA))
        world = Linked(self, relaying.relay, house=house)
        world.client.send(SELECT)
        world.turn()
        self.assertIs(world.session.reason, CloseReason.PROXY_FAULT)
        self.assertTrue(world.client.ended)
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)

    def test_fault_at_the_end_of_a_response(self) -> None:
        """A bug there costs the server session, and the client is told of that: nobody waits for ever."""

        def responded(each: ClientSession) -> None:
            raise ZeroDivisionError

        self.watch(ClientSession, "responded", self.calls, responded)
        self.world.session.tracker.begin(3)
        self.world.server.send(said(Ok(0, 0, 2 | 0x4000, 0)))
        self.world.turn()
        self.assertIsNotNone(self.world.served_by.reason)
        self.assertIsNone(self.world.session.bound)
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)

    def test_last_used(self) -> None:
        """A statement that is executed in C is the last one used, so it is not the first one closed."""
        prepare(self.world)
        here: Any = self.world.served_by.prepared
        self.world.client.send(execute(3))
        self.world.turn(1)
        self.assertEqual([each.number for each in here._statements], [4, 5, 3])

    def test_other_classes(self) -> None:
        """A session of a class that was made of ours, or a tracker that looks at everything, goes through Python."""

        class Another(ClientSession):
            __slots__ = ()

        self.world.session.__class__ = Another
        self.world.client.send(SELECT)
        self.world.turn(1)
        self.assertEqual(self.calls, ["doRead", "dataReceived"])
        del self.calls[:]
        self.world.server.send(ROW)
        self.world.turn(1)
        self.assertEqual(self.calls, ["doRead", "responded"])

    def test_not_plain(self) -> None:
        """What needs a look is shown to Python, with what the relay has read already."""
        for command in (query(b"SELECT @a"), SELECT * 2, SELECT[:7], b"\1"):
            world = Linked(self, relaying.relay)
            del self.calls[:]
            world.client.send(command)
            world.turn(1)
            self.assertEqual(self.calls, ["dataReceived"], command)

    def test_one_session_is_not_another(self) -> None:
        """A server session that belongs to somebody else gets nothing past Python."""
        self.world.served_by.owner = object()
        self.world.client.send(SELECT)
        self.world.turn(1)
        self.assertEqual(self.calls[0], "doRead")


class Echo(Protocol):
    """Says what has come, and does what a test wants."""

    def __init__(self, then: Callable[[], Any] = lambda: None) -> None:
        self.came: list[bytes] = []
        self.lost: list[Failure] = []
        self.then = then

    def dataReceived(self, data: bytes) -> None:
        """Remember."""
        self.came.append(data)
        self.then()

    def connectionLost(self, reason: Failure = Failure(CONNECTION_DONE)) -> None:  # noqa: B008
        """Remember."""
        self.lost.append(reason)


class LoopTests(RelayCase):
    """The loop, with protocols that it does not know."""

    def setUp(self) -> None:
        """Make a reactor with the relay."""
        super().setUp()
        self.reactor = make_reactor(self, relaying.relay)

    def far(self, then: Callable[[], Any] = lambda: None) -> tuple[Far, Echo]:
        """Return a far end, and the protocol at the near one."""
        protocol = Echo(then)
        return Far(self, self.reactor, protocol), protocol

    def test_reads(self) -> None:
        """What is no session of ours is read as ever, and its end is told, once."""
        far, echo = self.far()
        far.send(b"abc")
        self.reactor.doIteration(0)
        far.socket.close()
        for _ in range(3):
            self.reactor.doIteration(0)
        self.assertEqual((echo.came, len(echo.lost)), ([b"abc"], 1))
        self.assertNotIn(far.transport, self.reactor.getReaders())

    def test_more_than_one_read(self) -> None:
        """What does not fit into one read is read in the next ones, though nothing more comes, and then the end."""
        far, echo = self.far()
        far.socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
        size = 0
        with contextlib.suppress(BlockingIOError):
            while size < 1 << 21:
                size += far.socket.send(b"x" * 65536)
        self.assertGreater(size, BUFFER_SIZE)
        for _ in range(1 + size // BUFFER_SIZE):
            self.reactor.doIteration(0)
        self.assertEqual((sum(map(len, echo.came)), len(echo.lost)), (size, 0))
        far.socket.close()
        self.reactor.doIteration(0)
        self.assertEqual(len(echo.lost), 1)

    def test_end_behind_bytes(self) -> None:
        """An end that came together with bytes is told after them."""
        far, echo = self.far()
        far.send(b"abc")
        far.socket.close()
        for _ in range(2):
            self.reactor.doIteration(0)
        self.assertEqual((echo.came, len(echo.lost)), ([b"abc"], 1))

    def test_pauses(self) -> None:
        """A transport that is paused is not read, and goes on where it was."""
        far, echo = self.far()
        far.transport.pauseProducing()
        far.transport.pauseProducing()
        far.send(b"abc")
        self.reactor.doIteration(0)
        self.assertEqual(echo.came, [])
        far.transport.resumeProducing()
        far.transport.resumeProducing()
        self.reactor.doIteration(0)
        self.assertEqual(echo.came, [b"abc"])

    def test_failure(self) -> None:
        """A read that raises costs its own connection only, and is logged."""
        bad, echo = self.far(lambda: 1 / 0)
        good, other = self.far()
        for each in (bad, good):
            each.send(b"abc")
        self.reactor.doIteration(0)
        self.assertEqual((len(echo.lost), other.came), (1, [b"abc"]))
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)

    def test_one_that_was_removed(self) -> None:
        """What an earlier event of the same round has removed is not served any more."""
        ends: list[tuple[Far, Echo]] = []
        for _ in range(2):
            ends.append(self.far(lambda: [far.transport.pauseProducing() for far, _ in ends]))
        for far, _ in ends:
            far.send(b"abc")
        self.reactor.doIteration(0)
        self.assertEqual(sorted(len(echo.came) for _, echo in ends), [0, 1])

    def test_a_number_that_comes_back(self) -> None:
        """A descriptor that was closed and opened anew within a round gets no event of its predecessor."""
        ends: list[tuple[Far, Echo]] = []
        made: list[tuple[Far, Echo]] = []
        reads: list[str] = []
        self.watch(DirectTransport, "doRead", reads)

        def replace() -> None:
            for far, _ in ends:
                if far.transport.connected:
                    far.transport.connectionLost(Failure(CONNECTION_DONE))
            made.extend(self.far() for _ in range(2))

        for _ in range(2):
            ends.append(self.far(replace))
        numbers = {far.transport.descriptor for far, _ in ends}
        for far, _ in ends:
            far.send(b"abc")
        self.reactor.doIteration(0)
        self.assertTrue(numbers & {far.transport.descriptor for far, _ in made})
        self.assertEqual(reads, ["doRead"])
        made[0][0].send(b"x")
        self.reactor.doIteration(0)
        self.assertEqual(made[0][1].came, [b"x"])

    def test_abort_in_a_callback(self) -> None:
        """A connection that is aborted while its bytes are taken ends once, in the next turn."""
        far, echo = self.far(lambda: far.transport.abortConnection())
        far.send(b"abc")
        for _ in range(3):
            self.reactor.doIteration(0)
            self.reactor.runUntilCurrent()
        self.assertEqual((len(echo.came), len(echo.lost)), (1, 1))

    def test_everything_else_gets_its_turn(self) -> None:
        """The reactor's own descriptors are served in the same turn as busy ones of ours."""
        one, two = socket.socketpair()
        self.addCleanup(one.close)
        self.addCleanup(two.close)
        came: list[bytes] = []

        class Reader:
            fileno = staticmethod(one.fileno)
            logPrefix = staticmethod(lambda: "reader")
            doRead = staticmethod(lambda: came.append(one.recv(10)))
            connectionLost = staticmethod(lambda reason: None)

        reader = Reader()
        self.reactor.addReader(reader)
        self.addCleanup(self.reactor.removeAll)
        far, echo = self.far(lambda: far.transport.write(b"more"))
        two.send(b"x")
        far.send(b"abc")
        self.reactor.doIteration(0)
        self.assertEqual((echo.came, came), ([b"abc"], [b"x"]))
        self.assertEqual(len(set(self.reactor.getReaders()) & {reader, far.transport}), 2)

    def test_writing_stays_with_the_reactor(self) -> None:
        """What the kernel does not take at once leaves later, by the reactor's own loop."""
        far, _ = self.far()
        far.transport.write(b"x" * 3_000_000)
        for _ in range(100):
            self.reactor.doIteration(0)
            far.read()
        self.assertEqual(len(far.came), 3_000_000)

    def test_shutdown(self) -> None:
        """At the end of the process all connections are found, once each."""
        far, _ = self.far()
        other, _ = self.far()
        far.transport.write(b"x" * 3_000_000)
        found = self.reactor.removeAll()
        self.assertEqual(sorted(map(id, found)), sorted(map(id, (far.transport, other.transport))))
        self.assertEqual(self.reactor.removeAll(), [])

    def test_waits_no_longer_than_told(self) -> None:
        """A turn ends when a timer is due, also while nothing comes."""
        began = time.monotonic()
        self.reactor.doIteration(0.02)
        self.assertTrue(0.019 <= time.monotonic() - began < 5)

    def test_a_call_from_a_thread(self) -> None:
        """A turn without an end in sight ends when another thread wants something."""
        called: list[int] = []
        thread = threading.Thread(target=lambda: self.reactor.callFromThread(called.append, 1))
        thread.start()
        while not called:
            self.reactor.doIteration(None)
            self.reactor.runUntilCurrent()
        thread.join()
        self.assertEqual(called, [1])

    def test_each_in_turn(self) -> None:
        """One that has sent a lot is read once in a round, like the others."""
        first, loud = self.far()
        second, quiet = self.far()
        while SameTests.send_some(first, b"x" * 65536):
            pass
        second.send(b"x")
        self.reactor.doIteration(0)
        self.assertEqual((len(loud.came), quiet.came), (1, [b"x"]))

    def test_what_is_no_transport(self) -> None:
        """The relay reads transports of ours only, and none that is closed."""
        hub = self.reactor.relay
        for ask in (hub.add, hub.remove):
            self.assertRaises(TypeError, ask, object())
        far, _ = self.far()
        far.transport.connectionLost(Failure(CONNECTION_DONE))
        hub.remove(far.transport)
        self.assertRaises(ValueError, hub.add, far.transport)
        self.assertRaises(TypeError, hub.run, "x")


class BusyTests(RelayCase):
    def test_timers_are_punctual(self) -> None:
        """As long as plain exchanges come one after another, a turn lasts no longer than it may."""
        world = Linked(self, relaying.relay)
        calls = self.seen_by_python()
        stop = threading.Event()
        for far in (world.client, world.server):
            far.socket.setblocking(True)
            far.socket.settimeout(5)

        def talk() -> None:
            while not stop.is_set():
                world.client.socket.sendall(SELECT)
                world.server.socket.recv(100)
                world.server.socket.sendall(ROW)
                world.client.socket.recv(1000)

        thread = threading.Thread(target=talk)
        thread.start()
        try:
            began = time.monotonic()
            world.reactor.doIteration(0.05)
            took = time.monotonic() - began
        finally:
            stop.set()
            while thread.is_alive():
                world.reactor.doIteration(0)
                thread.join(0.001)
        self.assertTrue(0.045 < took < 2, took)
        self.assertEqual(calls, [])
        self.assertGreater(world.session.tracker.number, 10)

    def test_memory(self) -> None:
        """What the relay takes, it gives back."""
        world = Linked(self, relaying.relay)
        watched = (world.session, world.served_by, world.client.transport, world.session.tracker, world.session.counts)

        def talk(times: int) -> None:
            for _ in range(times):
                for command, answer in ((SELECT, ROW), (query(b"insert x"), said(OK)), (SELECT, said(Err(1, "X", "")))):
                    world.client.send(command)
                    world.turn(1)
                    world.server.send(answer[:3])
                    world.turn(1)
                    world.server.send(answer[3:])
                    world.turn(1)

        talk(10)
        gc.collect()
        before = [sys.getrefcount(each) for each in watched], sys.getallocatedblocks()
        talk(300)
        gc.collect()
        after = [sys.getrefcount(each) for each in watched], sys.getallocatedblocks()
        self.assertEqual(after[0], before[0])
        self.assertLess(after[1] - before[1], 200)
        self.assertEqual(world.client.came.count(ROW), 310)

    def test_a_reactor_that_goes(self) -> None:
        """The relay goes with its reactor, and the transports that it reads with it."""
        reactor = make_reactor(self, relaying.relay)
        far = Far(self, reactor, Echo())
        gone, read = weakref.ref(reactor), weakref.ref(far.transport)
        self.doCleanups()
        del reactor, far
        gc.collect()
        self.assertEqual((gone(), read()), (None, None))
