"""Kills in random company: no statement but the named one is hit, none is lost, nothing hangs, and OK means done.

A world is a `House` with clients, and with servers that answer when a random number says so. In a *faithful* world
an interrupt hits what its connection runs at the moment, or nothing. In a *nasty* one it may also stay on the
connection, and hit what that runs next. In both, an interrupt is there when the server answers the kill, and a kill
whose connection has gone may still be done, at any time.

`python -m tests.sessions.test_kill_interleavings [COUNT] [FIRST]` prints counts, and the seed of each failure;
`--show SEED` prints what happened in one.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import Enum, unique
from itertools import pairwise
from random import Random
from typing import Any

from attrs import define, field
from twisted.internet.defer import Deferred
from twisted.logger import LogEvent, globalLogBeginner, globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase

from odptwist.snapshots import Asker, KillReport, KillScope, KillTarget
from odptwist.wire.constants import COM_QUERY, COM_QUIT, SERVER_STATUS_AUTOCOMMIT, SERVER_STATUS_IN_TRANS
from odptwist.wire.framing import frame
from odptwist.wire.responses import Err, Ok
from odptwist.wire.resultset import ResultReader
from tests.support.house import CAPABILITIES, ClientPeer, House, ServerPeer, response, result

ORDINARY_COUNT = 3_000
STEPS = 90
KILL_TIMEOUT = 5.0


class Violated(AssertionError):
    """What must not happen has happened."""


@unique
class Verb(Enum):
    """What a kill names."""

    QUERY = "KILL QUERY"
    CONNECTION = "KILL"
    SERVER_SESSION = "KILL PROXYSESSION id ss_id"


@define(eq=False)
class Statement:
    """A statement of a client.

    Attributes:
        kill: what it is if it is a kill.
        taken: the kill as the proxy took it up; None before that.
        answer: None until it has come as a whole.
    """

    text: bytes
    client: Client
    kill: Verb | None = None
    taken: Kill | None = None
    reader: ResultReader = field(factory=lambda: ResultReader(CAPABILITIES))
    answer: ResultReader | None = None


@define(eq=False)
class Kill:
    """A kill as it was when the proxy took it up.

    Attributes:
        victim: the proxy's session of the target; None if there was none.
        named: the statement that ran for it.
        thread: the number of the server session that it runs on or is the target; 0 for none.
    """

    verb: Verb
    began: int
    victim: Any = None
    named: Statement | None = None
    thread: int = 0
    itself: bool = False


class Client:
    """A client: what it sent is in `waiting` until the answer has come, then in `answered` until that is judged."""

    def __init__(self, world: World, peer: ClientPeer) -> None:
        self.world = world
        self.peer = peer
        self.session = peer.wire.protocol
        self.cs_id: int = self.session.cs_id
        self.waiting: list[Statement] = []
        self.answered: list[Statement] = []
        self.left = False

    @property
    def alive(self) -> bool:
        """Whether its connection stands."""
        return self.peer.wire.ended is None

    def send(self, text: bytes, kill: Verb | None = None) -> None:
        """Send a statement."""
        statement = Statement(text, self, kill)
        self.waiting.append(statement)
        self.world.statements[text] = statement
        self.world.counts["kills: " + kill.value if kill else "statements"] += 1
        self.world.note("client {} sends {}", self.cs_id, text)
        self.peer.query(text)

    def take(self) -> None:
        """Take what has come."""
        for payload in self.peer.payloads():
            if not self.waiting:
                raise Violated(f"client {self.cs_id} got a packet that it has not asked for: {payload!r}")
            statement = self.waiting[0]
            if statement.reader.receive(payload):
                statement.answer = statement.reader
                self.answered.append(self.waiting.pop(0))
                error = statement.answer.error
                self.world.note("client {} got {} for {}", self.cs_id, error or statement.answer.rows, statement.text)


class Thread:
    """A connection as its server sees it.

    Attributes:
        queue: commands that have come and not begun.
        running: the command that runs.
        output: what is to be sent of the answer to it.
        interrupted: whether an interrupt has hit it.
        pending: whether an interrupt waits for the next one.
        killed: whether the connection is to end.
        hangs: whether the running kill is done only much later.
    """

    def __init__(self, world: World, peer: ServerPeer) -> None:
        self.world = world
        self.peer = peer
        self.number = peer.thread_id
        self.login: Callable[[], None] | None = self._greet
        self.queue: list[bytes] = []
        self.running: bytes | None = None
        self.output: list[bytes] = []
        self.sent = 0
        self.done = False
        self.interrupted = False
        self.pending = False
        self.killed = False
        self.hangs = False
        self.long = False
        self.over = False

    def listen(self) -> None:
        """Take what has come."""
        self.queue += self.peer.payloads()

    @property
    def can_move(self) -> bool:
        """Whether it has something to do."""
        if self.over:
            return False
        self.listen()
        if self.peer.wire.ended is not None or self.login == self._greet or self.killed:
            return True
        return self.running is not None or bool(self.queue)

    def move(self, hasten: bool = False) -> None:
        """Do the next bit; `hasten`: nothing takes long any more."""
        random = self.world.random
        if self.login is not None:
            if self.peer.wire.ended is not None:
                self._end()
            else:
                self.login()
        elif self.killed and random.random() < 0.7:
            if random.random() < 0.3 and self.running is not None and not self.sent:
                self.peer.send(frame(Err(1927, "70100", "Connection was killed").encode(), 1))
            self._end()
        elif self.running is not None:
            slow = self.hangs or self.long
            if not slow or hasten or random.random() < 0.04 or (self.interrupted and random.random() < 0.5):
                self._work()
        elif self.queue:
            self._begin(self.queue.pop(0))
        elif self.peer.wire.ended is not None:
            self._end()

    def _end(self) -> None:
        self.over = True
        self.running = None
        self.world.note("thread {} ends", self.number)
        self.peer.wire.lose()

    # -- the login -------------------------------------------------------------------------------------------------

    def _greet(self) -> None:
        self.peer.greet()
        self.login = self._accept

    def _accept(self) -> None:
        self.listen()
        if self.queue:
            self.queue.pop(0)
            self.login = None
            self.peer.accept()

    # -- commands --------------------------------------------------------------------------------------------------

    def _begin(self, command: bytes) -> None:
        world, random = self.world, self.world.random
        if command[0] == COM_QUIT:
            self._end()
            return
        if command[0] != COM_QUERY:
            raise Violated(f"thread {self.number} got {command!r}")
        self.running = text = command[1:]
        self.sent = 0
        self.done = self.interrupted = self.hangs = self.long = False
        if self.is_kill:
            self.hangs = random.random() < world.hanging
            answer = Ok(0, 0, SERVER_STATUS_AUTOCOMMIT, 0).encode(CAPABILITIES)
            self.output = [frame(answer, 1)]
        else:
            self.long = text in world.statements and random.random() < 0.3
            status = SERVER_STATUS_AUTOCOMMIT | (SERVER_STATUS_IN_TRANS if random.random() < world.transactions else 0)
            self.output = _split(result([[text]], status), random)
        world.note("thread {} begins {}", self.number, text)
        if self.pending:
            self.pending = False
            self._hit()

    @property
    def is_kill(self) -> bool:
        """Whether it runs a kill of the proxy's."""
        return self.running is not None and self.running.startswith(b"KILL")

    def _work(self) -> None:
        random = self.world.random
        if self.is_kill and not self.done:
            self._kill()
            return
        if self.interrupted and self.sent % 5 == 0 and random.random() < 0.85:
            # Between two packets; the header of the next one has the next sequence number.
            text = Err(1317, "70100", "Query execution was interrupted").encode()
            self.output = [frame(text, self.sent // 5 + 1)]
            self.sent = 0
        chunk = self.output.pop(0)
        self.sent += 1
        last = not self.output
        if last:
            self.world.note("thread {} ends its answer to {}", self.number, self.running)
            self.running = None
        self.peer.send(chunk)

    def _kill(self) -> None:
        """Do what the running kill says."""
        world, random = self.world, self.world.random
        self.done = True
        text = self.running or b""
        number = int(text.split()[-1])
        query = text.startswith(b"KILL QUERY")
        target = world.threads.get(number)
        if random.random() < world.refusing:
            self.output = [frame(Err(1095, "HY000", "You are not owner").encode(), 1)]
        elif target is None or target.over:
            self.output = [frame(Err(1094, "HY000", "Unknown thread id").encode(), 1)]
            world.confirmed[number] = world.step
        else:
            world.confirmed[number] = world.step
            world.note("thread {} does {}", self.number, text)
            if query:
                target.interrupt()
            elif target.peer.wire.protocol.owner is not None:
                raise Violated(f"thread {number} was killed while it serves a session")
            else:
                target.killed = True

    def interrupt(self) -> None:
        """Be hit by KILL QUERY."""
        world = self.world
        sticks = world.nasty and world.random.random() < 0.5
        if self.running is not None and not sticks:
            self._hit()
        elif world.nasty:
            self.pending = True

    def _hit(self) -> None:
        text = self.running or b""
        self.interrupted = True
        statement = self.world.statements.get(text)
        if statement is None and not text.startswith(b"SELECT 1"):
            raise Violated(f"wrong hit: {text!r} of the proxy's own was interrupted")
        if statement is not None:
            self.world.note("thread {}: {} is hit", self.number, text)
            self.world.counts["interrupts"] += 1
            if statement not in self.world.named:
                self.world.counts["wrong hits"] += 1
                raise Violated(f"wrong hit: {text!r} was not named by any kill")


def _split(answer: bytes, random: Random) -> list[bytes]:
    """Return an answer of five packets whole, packet by packet, or with packets cut."""
    how = random.random()
    if how < 0.6:
        return [answer]
    chunks: list[bytes] = []
    while answer:
        size = 4 + int.from_bytes(answer[:3], "little")
        packet, answer = answer[:size], answer[size:]
        # Five chunks for each packet, so that a place in the list tells where in the answer it is.
        cuts = sorted(random.randrange(size + 1) for _ in range(4)) if how > 0.8 else [0, 0, 0, 0]
        places = [0, *cuts, size]
        chunks += [packet[a:b] for a, b in pairwise(places)]
    return chunks


class World:
    """One interleaving.

    Attributes:
        named: statements that some kill has named.
        confirmed: the step at which a server last did, or refused as done, a kill of a thread, by its number.
        lines: what has happened, if that is wanted.
    """

    def __init__(self, seed: int, counts: Counter[str], lines: list[str] | None = None) -> None:
        self.random = random = Random(seed)
        self.counts = counts
        self.lines = lines
        self.nasty = seed % 2 == 1
        self.hanging = random.choice((0.0, 0.1, 0.4))
        self.refusing = random.choice((0.0, 0.1, 0.3))
        self.transactions = random.choice((0.0, 0.3))
        self.step = 0
        self.house = House()
        self.threads: dict[int, Thread] = {}
        self.clients: list[Client] = []
        self.statements: dict[bytes, Statement] = {}
        self.named: set[Statement] = set()
        self.confirmed: dict[int, int] = {}
        self._texts = 0
        self._kill = self.house.registry.kill
        self.house.registry.kill = self._see_kill  # type: ignore[method-assign]
        for _ in range(random.randint(2, 4)):
            self.join()

    def note(self, text: str, *values: object) -> None:
        """Write down what happens."""
        if self.lines is not None:
            self.lines.append(f"{self.step:3} {self.house.reactor.seconds():6.2f} {text.format(*values)}")

    # -- what may happen -------------------------------------------------------------------------------------------

    def join(self) -> None:
        """Let a client log in, at once."""
        client = self.house.connect()
        client.packets()
        client.send(response("root", b"x" * 20 if self.random.random() < 0.2 else b""))
        while True:
            server = Thread(self, self.house.accept())
            self.threads[server.number] = server
            if server.peer.wire.protocol is client.wire.protocol._login.opening:
                break
        server.move()
        server.move()
        client.packets()
        self.clients.append(Client(self, client))
        self.note("client {} joins on thread {}", self.clients[-1].cs_id, server.number)

    def leave(self, client: Client) -> None:
        """Let a client go."""
        self.note("client {} leaves", client.cs_id)
        client.left = True
        if self.random.random() < 0.3 and not client.waiting:
            client.peer.command(COM_QUIT)
        client.peer.wire.lose()

    def send(self, client: Client) -> None:
        """Let a client send a statement."""
        self._texts += 1
        client.send(b"SELECT 'statement %d'" % self._texts)

    def send_kill(self, client: Client) -> None:
        """Let a client kill somebody, more often than not one that works."""
        random = self.random
        living = [each for each in self.clients if each.alive]
        busy = [each for each in living if each.waiting and each is not client]
        victim = random.choice(busy if busy and random.random() < 0.8 else living)
        session = victim.session
        number = victim.cs_id
        if session.bound is not None and random.random() < 0.3:
            number = session.bound.server_sessid
        verb = random.choices((Verb.QUERY, Verb.CONNECTION, Verb.SERVER_SESSION), (70, 12, 18))[0]
        if verb is Verb.QUERY:
            text = b"KILL QUERY %d" % number
        elif verb is Verb.CONNECTION:
            text = b"KILL PROXYSESSION %d" % number
        else:
            text = b"KILL PROXYSESSION %d %d" % (number, session.bound.ss_id if session.bound is not None else 77777)
        self._texts += 1
        client.send(text + b" -- %d" % self._texts, verb)

    def _see_kill(
        self, target: KillTarget, scope: KillScope, by: Asker, *more: Any, **named: Any
    ) -> Deferred[KillReport]:
        """Be the proxy's directory for a moment, and write down what a kill names."""
        asker = next(client for client in self.clients if client.cs_id == by.cs_id)
        asker.take()
        # Not the first one that waits: a client whose end is not noticed yet takes no answers any more.
        statement = next(each for each in asker.waiting if each.kill is not None and each.taken is None)
        kill = statement.taken = Kill(statement.kill or Verb.QUERY, self.step)
        for session in self.house.registry._sessions.values():
            numbers = [session.cs_id, *(each.server_sessid for each in session.server_sessions)]
            if session.reason is not None or target.id not in numbers:
                continue
            kill.victim = session
            kill.itself = session.cs_id == by.cs_id
            bound = session.bound
            if target.ss_id is not None:
                bound = next((each for each in session.server_sessions if each.ss_id == target.ss_id), None)
            kill.thread = bound.server_sessid if bound is not None else 0
            if session.statement_running and bound is session.bound:
                kill.named = self.statements[session.statement[1:]]
                self.named.add(kill.named)
        self.note("proxy: {} names {}", kill.verb.value, kill.named.text if kill.named else None)
        return self._kill(target, scope, by, *more, **named)

    # -- time ------------------------------------------------------------------------------------------------------

    def run(self) -> None:
        """Let it all happen, and come to rest."""
        for _ in range(STEPS):
            self.step += 1
            self._happen()
            self._look()
        self._come_to_rest()
        for client in self.clients:
            if client.alive and client.waiting:
                self.counts["hung"] += 1
                raise Violated(f"client {client.cs_id} has no answer to {client.waiting[0].text!r}")
        for client in self.clients:
            if client.alive:
                self.send(client)
        self._come_to_rest()
        for client in self.clients:
            if client.alive and client.waiting:
                self.counts["lost"] += 1
                raise Violated(f"client {client.cs_id} can do nothing more: no answer to {client.waiting[0].text!r}")
        for client in self.clients:
            if client.alive:
                self.leave(client)
        self._come_to_rest()
        self._find_leftovers()

    def _happen(self) -> None:
        """Let one thing happen."""
        random = self.random
        chance = random.random()
        living = [client for client in self.clients if client.alive]
        if chance < 0.28:
            if living:
                client = random.choice(living)
                if not client.waiting or (len(client.waiting) < 3 and random.random() < 0.2):
                    self.send(client)
        elif chance < 0.40:
            if living:
                client = random.choice(living)
                if not client.waiting or (len(client.waiting) < 3 and random.random() < 0.1):
                    self.send_kill(client)
        elif chance < 0.42:
            if living:
                self.leave(random.choice(living))
        elif chance < 0.44:
            if len(living) < 4 and not self.house.attempts:
                self.join()
        elif chance < 0.50:
            self.house.reactor.advance(random.choice((0.0, 0.0, 0.3, 1.5, 6.0)))
        elif chance < 0.60:
            self.house.reactor.advance(0)
        elif chance < 0.64 and self.house.attempts:
            self._connect(random.random() < 0.05)
        elif chance < 0.645:
            able = [each for each in self.threads.values() if not each.over and each.login is None]
            if able:
                thread = random.choice(able)
                self.note("thread {} is lost", thread.number)
                thread._end()
        else:
            able = [each for each in self.threads.values() if each.can_move]
            if able:
                random.choice(able).move()

    def _connect(self, refuse: bool) -> None:
        if self.house.reactor.connectors[self.house._taken].stoppedConnecting:
            self.house._taken += 1  # nobody wants it any more
            return
        if refuse:
            self.note("a server refuses a connection")
            self.house.refuse_connection()
            return
        thread = Thread(self, self.house.accept())
        self.threads[thread.number] = thread
        self.note("thread {} is connected", thread.number)

    def _come_to_rest(self) -> None:
        """Let everything end that has begun; nothing takes long any more but what waits for a time."""
        for _ in range(10):
            moved = True
            while moved:
                moved = False
                self.step += 1
                while self.house.attempts:
                    self._connect(False)
                for thread in list(self.threads.values()):
                    if thread.can_move:
                        thread.move(hasten=True)
                        moved = True
                self.house.reactor.advance(0)
                self._look()
            self.house.reactor.advance(KILL_TIMEOUT * 0.7)
            self._look()

    # -- what must hold --------------------------------------------------------------------------------------------

    def _look(self) -> None:
        """Let the clients take what has come, and judge it."""
        for client in self.clients:
            client.take()
        for client in self.clients:
            answered, client.answered = client.answered, []
            for statement in answered:
                if statement.kill is not None:
                    self._judge_kill(statement)
                else:
                    self._judge(statement)

    def _judge(self, statement: Statement) -> None:
        """Judge the answer to an ordinary statement."""
        answer = statement.answer
        error = answer.error if answer is not None else None
        if error is not None:
            self.counts[f"ended with {error.code}"] += 1
            excused = "lost:" in error.message or "cannot log in again" in error.message
            if error.code == 1317 and statement not in self.named and not excused:
                self.counts["wrong hits"] += 1
                raise Violated(f"{statement.text!r} was told {error.message!r} and is not named by any kill")
        elif answer is not None and answer.rows != [(statement.text,)]:
            raise Violated(f"{statement.text!r} got another one's answer: {answer.rows}")

    def _judge_kill(self, statement: Statement) -> None:
        """Judge the answer to a kill against the contract."""
        kill, answer = statement.taken, statement.answer
        if kill is None or answer is None:
            raise Violated(f"{statement.text!r} was answered before the proxy took it up")
        error = answer.error
        if error is not None:
            self.counts[f"kills answered {error.code}"] += 1
            unknown = kill.victim is None or (kill.verb is Verb.SERVER_SESSION and not kill.thread)
            if error.code == 1094 and unknown:
                return
            if error.code == 1317 and kill.itself and kill.verb is Verb.CONNECTION:
                return
            if statement.client.session.reason is not None:
                return  # what an asker is told that was ended itself meanwhile, is nobody's business any more
            raise Violated(f"{statement.text!r} got {error}")
        if kill.victim is None:
            raise Violated(f"{statement.text!r} got OK, and its target had gone before")
        if answer.ok is not None and answer.ok.warnings:
            self.counts["kills not confirmed"] += 1
            return
        self.counts["kills answered OK"] += 1
        self._judge_done(statement, kill)

    def _judge_done(self, statement: Statement, kill: Kill) -> None:
        """Judge an OK without a warning: it must be done."""
        named = kill.named
        if named is not None:
            if named.answer is None and named.client.alive:
                raise Violated(f"{statement.text!r} got OK, and {named.text!r} has not ended")
            if kill.thread and self.confirmed.get(kill.thread, -1) < kill.began:
                raise Violated(f"{statement.text!r} got OK, and no server has confirmed it")
        thread = self.threads.get(kill.thread)
        if kill.verb is not Verb.QUERY and thread is not None and thread.peer.wire.ended is None:
            raise Violated(f"{statement.text!r} got OK, and thread {thread.number} is open")
        if kill.verb is not Verb.QUERY and named is not None and thread is not None and not thread.over:
            raise Violated(f"{statement.text!r} got OK, and its server has not ended thread {thread.number}")
        if kill.verb is Verb.CONNECTION and kill.victim.cs_id in self.house.registry._sessions:
            raise Violated(f"{statement.text!r} got OK, and its target is still known")

    def _find_leftovers(self) -> None:
        """Find what is there after all have gone."""
        house = self.house
        left = [
            *(f"client session {number}" for number in house.registry._sessions),
            *(f"a stop {stop}" for stop in house.registry._stops),
            *(f"a delayed call {call}" for call in house.timers()),
            *(f"thread {each.number}" for each in self.threads.values() if each.peer.wire.ended is None),
        ]
        if left or house.attempts:
            self.counts["hung"] += 1
            raise Violated(f"left over: {', '.join(left)}; {house.attempts} attempts to connect")


@contextmanager
def watched_log(begin: bool) -> Iterator[list[LogEvent]]:
    """Give a list of the failures that are logged meanwhile.

    Args:
        begin: whether this is a program of its own, in which nobody else takes the log.
    """
    failures: list[LogEvent] = []

    def observe(event: LogEvent) -> None:
        if "log_failure" in event:
            failures.append(event)

    if begin:
        globalLogBeginner.beginLoggingTo([observe], discardBuffer=True, redirectStandardIO=False)
        yield failures
    else:
        globalLogPublisher.addObserver(observe)
        try:
            yield failures
        finally:
            globalLogPublisher.removeObserver(observe)


def live(seed: int, counts: Counter[str], failures: list[LogEvent], lines: list[str] | None = None) -> str:
    """Run one interleaving, and say what went wrong in it, or nothing."""
    counts["interleavings"] += 1
    try:
        World(seed, counts, lines).run()
    except Exception as wrong:  # noqa: BLE001 - a fault of the test itself has a seed, too
        return f"{type(wrong).__name__}: {wrong}"
    if failures:
        failure = failures.pop()["log_failure"]
        failures.clear()
        return f"logged: {failure.getErrorMessage()}"
    return ""


class InterleavingTests(SynchronousTestCase):
    def test_random_interleavings(self) -> None:
        """Nothing but the named statement is hit, whatever comes between a kill and its end."""
        counts: Counter[str] = Counter()
        with watched_log(False) as failures:
            for seed in range(ORDINARY_COUNT):
                wrong = live(seed, counts, failures)
                self.assertEqual(wrong, "", f"python -m {__name__} --show {seed}")
        for what in ("interrupts", "kills answered OK", "kills not confirmed", "kills answered 1094"):
            self.assertGreater(counts[what], ORDINARY_COUNT // 20, counts)


def main() -> int:
    """Run from the command line."""
    parser = argparse.ArgumentParser(prog=f"python -m {__spec__.name}", description=__doc__)
    parser.add_argument("count", type=int, nargs="?", default=100_000, help="how many interleavings [100,000]")
    parser.add_argument("first", type=int, nargs="?", default=0, help="the first seed [0]")
    parser.add_argument("--show", type=int, metavar="SEED", help="print what happens in one interleaving")
    options = parser.parse_args()
    counts: Counter[str] = Counter()
    wrongs: list[tuple[int, str]] = []
    began = time.monotonic()
    with watched_log(True) as failures:
        if options.show is not None:
            lines: list[str] = []
            wrong = live(options.show, counts, failures, lines)
            print("\n".join(lines), wrong or "nothing went wrong", sep="\n")  # noqa: T201
            return bool(wrong)
        for seed in range(options.first, options.first + options.count):
            if wrong := live(seed, counts, failures):
                wrongs.append((seed, wrong))
                print(f"seed {seed}: {wrong}", flush=True)  # noqa: T201
    for what in ("interrupts", "wrong hits", "lost", "hung"):
        counts.setdefault(what, 0)
    for what in sorted(counts):
        print(f"{counts[what]:>12,}  {what}")  # noqa: T201
    print(f"{len(wrongs):>12,}  failures, in {time.monotonic() - began:.0f} s")  # noqa: T201
    return bool(wrongs)


if __name__ == "__main__":
    sys.exit(main())
