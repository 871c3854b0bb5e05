from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from odptwist.errors import FileRefused, MalformedPacket, PacketTooLarge, SequenceError, WireError
from odptwist.machines.exchange import FORWARD, LOOK, LOOK_LIMIT, NONE, SHAPES, WAIT, Tracker, plain_prefixes
from odptwist.wire.constants import (
    CLIENT_DEPRECATE_EOF,
    CLIENT_LOCAL_FILES,
    COM_BINLOG_DUMP,
    COM_CHANGE_USER,
    COM_PING,
    COM_QUERY,
    COM_QUIT,
    COM_STATISTICS,
    COM_STMT_CLOSE,
    COM_STMT_EXECUTE,
    COM_STMT_FETCH,
    COM_STMT_PREPARE,
    COM_STMT_RESET,
    COM_STMT_SEND_LONG_DATA,
    MAX_PAYLOAD,
)
from odptwist.wire.framing import Deframer, frame, frames
from tests.machines.exchanges import (
    AUTO,
    COLUMN,
    ERR,
    MORE,
    Exchange,
    Reference,
    end,
    exchanges,
    head,
    ok,
    prepared,
    result,
)
from tests.wire.strategies import damaged, many, relaxed

PLAIN = plain_prefixes(("show", "kill", "alter"))
FRAMINGS = (0, CLIENT_DEPRECATE_EOF)
# Bytes of one answer that are kept until it is whole (`_TERMINAL_LIMIT`), and a header.
HELD_LIMIT = 1024 * 1024 + 5

SELECT = frame(b"\x03select 1", 0)
LOOKED_AT = frame(b"\x03set @a = 1", 0)
CLOSE = frame(bytes((COM_STMT_CLOSE, 1, 0, 0, 0)), 0)
OK = frame(ok(), 1)


def cut(stream: bytes, *places: int) -> list[bytes]:
    """Return a stream in chunks; none is empty, but for an empty stream."""
    inner = sorted({place for place in places if 0 < place < len(stream)})
    return [stream[start:stop] for start, stop in zip([0, *inner], [*inner, len(stream)], strict=True)]


def chunkings(stream: bytes) -> Iterator[list[bytes]]:
    """Yield a stream whole, cut in two at every byte, byte by byte, and in chunks of some sizes."""
    yield [stream]
    for place in range(1, len(stream)):
        yield cut(stream, place)
    for size in (1, 2, 3, 7, 64):
        yield cut(stream, *range(0, len(stream), size))


def borders(stream: bytes) -> list[int]:
    """Return the places around every header of a stream of packets."""
    places = []
    at = 0
    while at < len(stream):
        places += range(at - 2, at + 7)
        at += 4 + int.from_bytes(stream[at : at + 3], "little")
    return [*places, len(stream) - 2, len(stream) - 1]


class ExchangeTests(SynchronousTestCase):
    """Exchanges of every kind, in every chunking."""

    def play(self, exchange: Exchange, turn: int, chunks: Iterable[bytes]) -> Tracker:
        """Play an exchange with one of its turns in these chunks and the others whole."""
        tracker = Tracker(exchange.capabilities | CLIENT_LOCAL_FILES, PLAIN)
        command = frame(exchange.command, 0)
        if tracker.client(command) == LOOK:
            self.assertEqual((tracker.command, tracker.whole), (exchange.command, True))
            self.assertEqual(tracker.take(), command)
        streams = exchange.streams()
        for number, stream in enumerate(streams):
            come = list(chunks) if number == turn else [stream]
            if number % 2:
                for chunk in come:
                    self.assertEqual((tracker.client(chunk), tracker.kept), (FORWARD, b""), exchange.name)
                continue
            for place, chunk in enumerate(come):
                self.assertTrue(tracker.busy and tracker.awaiting, exchange.name)
                is_end = number == len(streams) - 1 and place == len(come) - 1
                self.assertIs(tracker.server(chunk), is_end, f"{exchange.name}: {come[: place + 1]}")
        self.assertFalse(tracker.busy or tracker.awaiting, exchange.name)
        left = (tracker.status, tracker.error, tracker.insert_id, tracker.changes)
        due = (exchange.status, exchange.error, exchange.insert_id, exchange.changes)
        self.assertEqual(left, due, exchange.name)
        self.assertEqual((tracker.number, tracker.answered, tracker.kept), (1, True, b""))
        return tracker

    def play_every_way(self, capabilities: int) -> None:
        """Play all exchanges with every turn in every chunking."""
        for exchange in exchanges(capabilities):
            for turn, stream in enumerate(exchange.streams()):
                for chunks in chunkings(stream):
                    self.play(exchange, turn, chunks)

    def test_old_framing(self) -> None:
        """With EOF packets, an exchange ends with the last byte of its last packet, however its bytes are chunked."""
        self.play_every_way(0)

    def test_new_framing(self) -> None:
        """With OK packets in place of EOF packets likewise."""
        self.play_every_way(CLIENT_DEPRECATE_EOF)

    def test_every_command(self) -> None:
        """No command with an answer was forgotten by the tests above."""
        played = {exchange.command[0] for exchange in exchanges(0)}
        self.assertEqual(played, {command for command, shape in SHAPES.items() if shape != NONE})

    def test_reference(self) -> None:
        """A second, simple implementation agrees on where the answers end."""
        for capabilities in FRAMINGS:
            for exchange in exchanges(capabilities):
                if len(exchange.turns) == 1:
                    (stream,) = exchange.streams()
                    found = Reference(exchange.command[0], capabilities).read(stream + stream)
                    self.assertEqual(found and found.offset, len(stream), exchange.name)

    def test_one_after_another(self) -> None:
        """An exchange leaves nothing behind that the next one stumbles over."""
        for capabilities in FRAMINGS:
            tracker = Tracker(capabilities | CLIENT_LOCAL_FILES, PLAIN)
            for number, exchange in enumerate(exchanges(capabilities), 1):
                if tracker.client(frame(exchange.command, 0)) == LOOK:
                    tracker.take()
                for turn, stream in enumerate(exchange.streams()):
                    for chunk in cut(stream, 3, len(stream) - 3):
                        if turn % 2:
                            self.assertEqual(tracker.client(chunk), FORWARD, exchange.name)
                        else:
                            ended = tracker.server(chunk)
                self.assertEqual((ended, tracker.busy, tracker.number), (True, False, number), exchange.name)
                left = (tracker.error, tracker.insert_id, tracker.changes)
                self.assertEqual(left, (exchange.error, exchange.insert_id, exchange.changes), exchange.name)

    def test_bytes_after_the_end(self) -> None:
        """Whatever a server sends after the end of a response is an error, in the same chunk and in the next one."""
        for capabilities in FRAMINGS:
            for exchange in exchanges(capabilities):
                last = len(exchange.turns) - 1
                stream = exchange.streams()[last]
                for more in (b"\x00", b"\xff", OK, ERR):
                    with self.assertRaises(WireError, msg=exchange.name):
                        self.play(exchange, last, [stream + more])
                    tracker = self.play(exchange, last, [stream])
                    self.assertRaises(WireError, tracker.server, more)

    def test_bytes_before_the_answer_of_the_client(self) -> None:
        """A server that has asked for a file has to wait for it."""
        request = frame(b"\xfbfile", 1)
        for chunks in ([request + OK], [request, OK], [request, OK[:2]], [request, frame(ERR, 2)]):
            tracker = Tracker(CLIENT_LOCAL_FILES, PLAIN)
            tracker.client(SELECT)
            with self.assertRaises(WireError):
                for chunk in chunks:
                    tracker.server(chunk)

    def test_unasked(self) -> None:
        """A server that speaks unasked breaks the protocol, also while the proxy itself answers."""
        tracker = Tracker(CLIENT_LOCAL_FILES, PLAIN)
        self.assertRaises(WireError, tracker.server, OK)
        tracker.client(LOOKED_AT)
        self.assertRaises(WireError, tracker.server, OK)
        tracker.skip()
        self.assertRaises(WireError, tracker.server, OK)
        tracker.done()
        self.assertEqual(tracker.client(SELECT), FORWARD)
        self.assertTrue(tracker.server(OK))

    def test_broken_answers(self) -> None:
        """Answers that no server gives are errors, so that nobody waits for their end."""
        answers = [
            (COM_QUERY, [b""]),
            (COM_QUERY, [b"\xfe"]),
            (COM_QUERY, [b"\xfe\x00\x00\x02\x00"]),
            (COM_QUERY, [b"\xfd\x01\x00"]),
            (COM_QUERY, [b"\xfd\x00\x00\x00"]),
            (COM_QUERY, [b"\xfc\x01"]),
            (COM_QUERY, [b"\xfc\x00\x00"]),
            (COM_QUERY, [b"\x00"]),
            (COM_QUERY, [b"\x00\x00\x00\x02"]),
            (COM_QUERY, [b"\x00\xfb\x00\x02\x00"]),
            (COM_QUERY, [b"\x00\xfe\x00\x02\x00"]),
            (COM_QUERY, [b"\x00\x00\xff\x02\x00"]),
            (COM_QUERY, [b"\xff\x01"]),
            (COM_QUERY, [b"\x01", COLUMN, b"\x01"]),
            (COM_QUERY, [b"\x01", COLUMN, b"\xfe\x00"]),
            (COM_QUERY, [*head(0), b"\xfe\x00\x00\x02"]),
            (COM_PING, [b"\x01"]),
            (COM_PING, [b"\xfb"]),
            (COM_STMT_PREPARE, [b"\x00\x01\x00\x00"]),
            (COM_STMT_PREPARE, [b"\x01" + bytes(11)]),
            (COM_CHANGE_USER, [b"\x02"]),
            (COM_CHANGE_USER, [b""]),
            (COM_STATISTICS, [b"\xff"]),
        ]
        for command, payloads in answers:
            tracker = Tracker(CLIENT_LOCAL_FILES, PLAIN)
            if tracker.client(frame(bytes((command,)), 0)) == LOOK:
                tracker.take()
            with self.assertRaises(WireError, msg=f"{command}: {payloads}"):
                # A packet without a payload is seen only with what follows it.
                tracker.server(frames([*payloads, b"\x00"], 1).data)

    def test_an_empty_answer(self) -> None:
        """A packet without a payload is no answer, and refused before anything follows it."""
        for capabilities in FRAMINGS:
            for before in ((), (b"\x01",), head(capabilities), (*head(capabilities), b"\x011")):
                stream = frames([*before, b""], 1).data
                for place in range(len(stream)):
                    tracker = Tracker(capabilities | CLIENT_LOCAL_FILES, PLAIN)
                    tracker.client(SELECT)
                    with self.assertRaises(MalformedPacket):
                        for chunk in cut(stream, place):
                            tracker.server(chunk)

    def test_an_endless_answer(self) -> None:
        """Of an answer that would have to be kept whole, no more than 1 MiB is kept."""
        for first in (b"\x00", b"\xff", b"\xfb"):
            tracker = Tracker(CLIENT_LOCAL_FILES, PLAIN)
            tracker.client(SELECT)
            self.assertRaises(PacketTooLarge, tracker.server, b"\x01\x00\x20\x01" + first)

    def test_empty_chunks(self) -> None:
        """Nothing is no reason to do anything."""
        tracker = Tracker(CLIENT_LOCAL_FILES, PLAIN)
        self.assertEqual(tracker.client(b""), WAIT)
        tracker.client(SELECT)
        self.assertFalse(tracker.server(b""))
        self.assertFalse(tracker.server(OK[:5]))
        self.assertFalse(tracker.server(b""))
        self.assertTrue(tracker.server(OK[5:]))

    def test_again(self) -> None:
        """An exchange whose response was kept from the client can begin once more."""
        tracker = Tracker(CLIENT_LOCAL_FILES, PLAIN)
        tracker.client(SELECT)
        number = tracker.number
        self.assertTrue(tracker.server(frame(b"\xff\x0a\x05#HY000no", 1)))
        tracker.again()
        self.assertEqual((tracker.number, tracker.busy, tracker.error), (number + 1, True, 0))
        self.assertTrue(tracker.server(OK))


class BigRowTests(SynchronousTestCase):
    """Rows and events of 16 MiB and more."""

    full = bytes(MAX_PAYLOAD)

    def check(self, command: int, capabilities: int, payloads: list[bytes]) -> None:
        """Cut a response around every header of it."""
        stream = frames(payloads, 1).data
        places = borders(stream)
        for chunks in (cut(stream, *places), cut(stream, *range(0, len(stream), 1 << 18)), [stream]):
            self.follow(command, capabilities, chunks)
        for place in places:
            self.follow(command, capabilities, cut(stream, place))

    def follow(self, command: int, capabilities: int, chunks: list[bytes]) -> None:
        """Send a response in chunks: it ends with the last one."""
        tracker = Tracker(capabilities | CLIENT_LOCAL_FILES, PLAIN)
        if tracker.client(frame(bytes((command,)) + b"select 1", 0)) == LOOK:
            tracker.take()
        ends = [tracker.server(chunk) for chunk in chunks]
        self.assertEqual(ends, [False] * (len(chunks) - 1) + [True])
        self.assertEqual(tracker.status, AUTO)

    def test_exact_multiples(self) -> None:
        """A row of exactly n * 0xFFFFFF bytes goes on with an empty fragment."""
        for capabilities in FRAMINGS:
            self.check(COM_QUERY, capabilities, [*result(capabilities, [b"\x011", self.full, b"\x011"])])
        self.follow(COM_QUERY, 0, [frames(result(0, [self.full * 2]), 1).data])

    def test_fragments_that_look_like_ends(self) -> None:
        """What a later fragment begins with means nothing, even if it looks like an EOF, OK or ERR."""
        for capabilities in FRAMINGS:
            rows = [self.full + tail for tail in (end(capabilities), ERR)]
            self.check(COM_QUERY, capabilities, [*result(capabilities, rows)])

    def test_a_first_column_of_16_mib(self) -> None:
        """A row whose first column has 16 MiB begins with 0xFE, and is no end."""
        for capabilities in FRAMINGS:
            row = b"\xfe" + (1 << 24).to_bytes(8, "little") + bytes((1 << 24) + 2)
            self.check(COM_STMT_FETCH, capabilities, [row, end(capabilities)])

    def test_events(self) -> None:
        """Events of the binary log are passed over likewise."""
        self.follow(COM_BINLOG_DUMP, 0, [frames([self.full + b"\xfe", self.full, end(0)], 1).data])

    def test_a_file(self) -> None:
        """A packet of exactly 0xFFFFFF bytes amid a local file is followed by an empty one, which is not its end."""
        stream = frames([b"1\n", self.full, self.full + b"2", b""], 2).data
        for place in [0, *borders(stream)]:
            tracker = Tracker(CLIENT_LOCAL_FILES, PLAIN)
            tracker.client(SELECT)
            tracker.server(frame(b"\xfbfile", 1))
            for chunk in cut(stream, place):
                self.assertTrue(tracker.awaiting)
                self.assertEqual((tracker.client(chunk), tracker.kept), (FORWARD, b""))
            self.assertTrue(tracker.server(OK))


class Session:
    """Does with a tracker what a client session does, and answers like a server.

    Attributes:
        sent: what went to the server.
        looked: the commands that were looked at.
        ends: how many responses have ended.
    """

    def __init__(self, tracker: Tracker, answers: dict[int, tuple[bytes, ...]], chunk: int = 1 << 30) -> None:
        self.tracker = tracker
        self.answers = answers
        self.chunk = chunk
        self.sent = b""
        self.looked: list[bytes] = []
        self.skipped = b""
        self.skip_first = b"\x00"
        self.ends = 0
        self._server = Deframer(1 << 30)
        self._due = b""

    def receive(self, data: bytes) -> None:
        """Take a chunk of the client, and let the server answer all that it can."""
        tracker = self.tracker
        self._go_on(data, tracker.client(data))
        while self._due:
            due, self._due = self._due, b""
            for at in range(0, len(due), self.chunk):
                if tracker.server(due[at : at + self.chunk]):
                    self.ends += 1
            if not tracker.busy and tracker.kept:
                kept, tracker.kept = tracker.kept, b""
                self._go_on(kept, tracker.client(kept))

    def _go_on(self, data: bytes, verdict: int) -> None:
        tracker = self.tracker
        while True:
            if verdict == LOOK:
                self.looked.append(tracker.command)
                if tracker.command[:1] == self.skip_first:
                    tracker.skip()
                    tracker.done()
                else:
                    self._send(tracker.take())
            elif verdict == FORWARD:
                self._send(data[: len(data) - len(tracker.kept)])
            else:
                break
            if tracker.busy or not tracker.kept:
                break
            data, tracker.kept = tracker.kept, b""
            verdict = tracker.client(data)

    def _send(self, data: bytes) -> None:
        if self._due:
            raise AssertionError("a command went to the server before the response in flight had ended")
        self.sent += data
        for packet in self._server.receive(data):
            self._due += frames(self.answers.get(packet.payload[0], ()), packet.sequence + 1).data


ANSWERS: dict[int, tuple[bytes, ...]] = {
    COM_QUERY: result(0, (b"\x011", b"\xfb")),
    COM_PING: (ok(),),
    COM_STMT_PREPARE: prepared(0, 1, 1),
    COM_STMT_EXECUTE: result(0, (b"\x00\x00\x01",)),
    COM_STATISTICS: (b"",),
}


class ClientTests(SynchronousTestCase):
    """The client's stream."""

    def test_cut_at_every_byte(self) -> None:
        """A command that comes in two chunks is looked at once it is whole."""
        for command in SHAPES:
            payload = bytes((command,)) + b"select 1"
            stream = frame(payload, 0)
            for place in range(1, len(stream)):
                tracker = Tracker(CLIENT_LOCAL_FILES, PLAIN)
                self.assertEqual(tracker.client(stream[:place]), WAIT)
                self.assertFalse(tracker.busy)
                self.assertEqual(tracker.client(stream[place:]), LOOK)
                self.assertEqual((tracker.command, tracker.whole), (payload, True))
                self.assertEqual(tracker.take(), stream)
                self.assertEqual(tracker.kept, b"")
                self.assertEqual(tracker.busy, SHAPES[command] != NONE)

    def test_pipelined(self) -> None:
        """What is sent ahead is kept until the response in flight has ended, however both streams are chunked."""
        prepare = frame(bytes((COM_STMT_PREPARE,)) + b"do 1", 0)
        ping, statistics = (frame(bytes((command,)), 0) for command in (COM_PING, COM_STATISTICS))
        execute = frame(bytes((COM_STMT_EXECUTE,)) + bytes(9), 0)
        stream = SELECT + CLOSE + LOOKED_AT + ping + prepare + statistics + CLOSE + execute + SELECT
        for chunks in chunkings(stream):
            for size in (1, 5, 1 << 30):
                session = Session(Tracker(CLIENT_LOCAL_FILES, PLAIN), ANSWERS, size)
                for chunk in chunks:
                    session.receive(chunk)
                self.assertEqual((session.sent, session.ends, session.tracker.kept), (stream, 7, b""))
                self.assertIn(LOOKED_AT[4:], session.looked)
                self.assertFalse(session.tracker.busy)

    def test_no_response(self) -> None:
        """A command without a response is followed at once by the next one of the same chunk."""
        long_data = frame(bytes((COM_STMT_SEND_LONG_DATA,)) + bytes(10), 0)
        tracker = Tracker(CLIENT_LOCAL_FILES, PLAIN)
        self.assertEqual(tracker.client(long_data), LOOK)
        self.assertEqual(tracker.take(), long_data)
        self.assertFalse(tracker.busy)
        for chunk in (long_data + CLOSE + SELECT, CLOSE + long_data + SELECT):
            session = Session(Tracker(CLIENT_LOCAL_FILES, PLAIN), ANSWERS)
            session.receive(chunk)
            self.assertEqual((session.sent, session.ends, len(session.looked)), (chunk, 1, 2))

    def test_kept_while_the_proxy_answers(self) -> None:
        """While the proxy itself answers, what the client sends ahead is kept, whatever the last exchange was."""
        for before in (SELECT, frame(bytes((COM_CHANGE_USER,)), 0)):
            tracker = Tracker(CLIENT_LOCAL_FILES, PLAIN)
            if tracker.client(before) == LOOK:
                tracker.take()
            tracker.server(OK)
            self.assertEqual(tracker.client(LOOKED_AT), LOOK)
            tracker.skip()
            self.assertEqual((tracker.busy, tracker.awaiting), (True, False))
            self.assertEqual(tracker.client(SELECT), WAIT)
            self.assertEqual(tracker.kept, SELECT)
            tracker.done()
            self.assertEqual((tracker.busy, tracker.client(b"")), (False, LOOK))
            tracker.take()
            tracker.server(OK)
            tracker.hold()
            self.assertEqual((tracker.client(SELECT), tracker.busy, tracker.awaiting), (WAIT, True, False))
            tracker.done()
            self.assertEqual((tracker.client(b""), tracker.take()), (LOOK, SELECT))

    def test_replaced(self) -> None:
        """A command can go on with another payload; what follows it stays."""
        change = frame(bytes((COM_CHANGE_USER,)) + b"root@sys\x00", 0)
        tracker = Tracker(CLIENT_LOCAL_FILES, PLAIN)
        self.assertEqual(tracker.client(change + SELECT[:6]), LOOK)
        payload = bytes((COM_CHANGE_USER,)) + b"root\x00"
        self.assertEqual(tracker.replace(payload), frame(payload, 0))
        self.assertEqual(tracker.kept, SELECT[:6])
        self.assertTrue(tracker.awaiting)

    def test_ahead_of_a_login(self) -> None:
        """What comes after COM_CHANGE_USER is kept, as long as the server has not asked."""
        change = frame(bytes((COM_CHANGE_USER,)), 0)
        tracker = Tracker(CLIENT_LOCAL_FILES, PLAIN)
        tracker.client(change)
        tracker.take()
        self.assertEqual(tracker.client(SELECT), WAIT)
        self.assertEqual(tracker.kept, SELECT)
        self.assertTrue(tracker.server(OK))
        self.assertEqual(tracker.client(b""), LOOK)

    def test_ahead_of_an_answer(self) -> None:
        """A command that was sent ahead of an answer that the server wants is an error."""
        asking = (
            (COM_CHANGE_USER, b"\xfeplugin\x00salt"),
            (COM_QUERY, b"\xfbfile"),
            (COM_BINLOG_DUMP, b"\x00event"),
        )
        for command, question in asking:
            tracker = Tracker(CLIENT_LOCAL_FILES, PLAIN)
            self.assertEqual(tracker.client(frame(bytes((command,)) + b"set", 0) + SELECT), LOOK)
            tracker.take()
            self.assertFalse(tracker.server(frame(question, 1)))
            self.assertRaises(SequenceError, tracker.client, frame(b"answer", 2))

    def test_more_columns_than_a_table_has(self) -> None:
        """A count of columns may have two bytes or three."""
        for columns in (4_097, 65_535, 65_536, 70_000):
            for capabilities in FRAMINGS:
                tracker = Tracker(capabilities, PLAIN)
                tracker.client(SELECT)
                stream = frames(result(capabilities, (b"\x011",), columns=[b"\x03def"] * columns), 1).data
                self.assertFalse(tracker.server(stream[:-1]))
                self.assertTrue(tracker.server(stream[-1:]))

    def test_files_that_nobody_agreed_to(self) -> None:
        """A server must not ask for a file if client and server have not agreed on it."""
        for capabilities in FRAMINGS:
            tracker = Tracker(capabilities, PLAIN)
            tracker.client(SELECT)
            self.assertRaises(FileRefused, tracker.server, frame(b"\xfbfile", 1))

    def test_behind_a_file(self) -> None:
        """A command right behind a local file is kept until the file was answered."""
        stream = frames([b"1\n", b""], 2).data + SELECT + CLOSE
        for place in range(len(stream)):
            tracker = Tracker(CLIENT_LOCAL_FILES, PLAIN)
            tracker.client(SELECT)
            tracker.server(frame(b"\xfbfile", 1))
            sent = b""
            for chunk in cut(stream, place):
                before = len(tracker.kept)
                if tracker.client(chunk) == FORWARD:
                    sent += chunk[: len(chunk) + before - len(tracker.kept)]
            self.assertEqual((sent, tracker.kept), (stream[: -len(SELECT + CLOSE)], SELECT + CLOSE))
            self.assertTrue(tracker.server(OK))

    def test_forgotten(self) -> None:
        """An exchange that is given up leaves what was sent ahead, and the tracker ready."""
        tracker = Tracker(CLIENT_LOCAL_FILES, PLAIN)
        tracker.client(LOOKED_AT + SELECT)
        tracker.take()
        tracker.forget()
        self.assertEqual((tracker.busy, tracker.kept), (False, SELECT))
        self.assertEqual(tracker.client(b""), LOOK)
        self.assertEqual(tracker.take(), SELECT)
        self.assertTrue(tracker.server(OK))

    def test_sequence(self) -> None:
        """A command with another sequence number than 0 is an error as soon as its header is there."""
        for stream in (b"\x01\x00\x00\x01", b"\x01\x00\x00\x01\x0e", frame(b"\x03select 1", 7)):
            for chunks in ([stream], cut(stream, 2)):
                tracker = Tracker(CLIENT_LOCAL_FILES, PLAIN)
                with self.assertRaises(SequenceError):
                    for chunk in chunks:
                        tracker.client(chunk)
        tracker = Tracker(CLIENT_LOCAL_FILES, PLAIN)
        tracker.client(SELECT + frame(b"\x0e", 1))
        tracker.take()
        tracker.server(OK)
        self.assertRaises(SequenceError, tracker.client, b"")

    def test_no_command(self) -> None:
        """A packet without a command byte is an error as soon as its header is there."""
        for chunks in ([bytes(4)], [bytes(2), bytes(2)], [bytes(4) + SELECT]):
            tracker = Tracker(CLIENT_LOCAL_FILES, PLAIN)
            with self.assertRaises(MalformedPacket):
                for chunk in chunks:
                    tracker.client(chunk)

    def test_unknown_command(self) -> None:
        """A command that nobody knows is looked at, so that it can be refused."""
        for command in (0x00, 0x1D, 0x20, 0xFE, 0xFF):
            tracker = Tracker(CLIENT_LOCAL_FILES, PLAIN)
            self.assertEqual(tracker.client(frame(bytes((command,)), 0)), LOOK)
            tracker.skip()
            tracker.done()
            self.assertEqual(tracker.client(SELECT), FORWARD)


class LongCommandTests(SynchronousTestCase):
    """Commands of which only the beginning is looked at."""

    def run_through(self, stream: bytes, places: Iterable[int], skip: bool, answers: dict[int, Any]) -> Session:
        """Send a client's stream in chunks, with the first command skipped or not."""
        session = Session(Tracker(CLIENT_LOCAL_FILES, PLAIN), answers)
        if skip:
            session.skip_first = stream[4:5]
        for chunk in cut(stream, *places):
            session.receive(chunk)
            # At most what is looked at, and the rest of a chunk behind it.
            self.assertLessEqual(len(session.tracker.kept), LOOK_LIMIT + 4)
        self.assertFalse(session.tracker.busy)
        return session

    def test_limit(self) -> None:
        """A command of exactly the limit is seen whole, of a longer one the beginning."""
        for size, whole in ((LOOK_LIMIT - 1, True), (LOOK_LIMIT, True), (LOOK_LIMIT + 1, False)):
            stream = frame(b"\x03set".ljust(size), 0)
            for chunks in ([stream], cut(stream, 4 + LOOK_LIMIT - 1), cut(stream, 4 + LOOK_LIMIT)):
                tracker = Tracker(CLIENT_LOCAL_FILES, PLAIN)
                verdicts = [tracker.client(chunk) for chunk in chunks[:1]]
                if verdicts == [WAIT]:
                    verdicts.append(tracker.client(chunks[1]))
                self.assertEqual(verdicts, [WAIT] * (len(verdicts) - 1) + [LOOK])
                self.assertEqual((tracker.whole, len(tracker.command)), (whole, min(size, LOOK_LIMIT)))

    def test_streamed(self) -> None:
        """A long command passes through as it comes, and commands behind it are kept until it was answered."""
        for name in (
            b"\x03set".ljust(100_000),
            b"\x03select".ljust(LOOK_LIMIT + 1),
            bytes((COM_STMT_SEND_LONG_DATA,)) * 70_000,
        ):
            first = frame(name, 0)
            stream = first + CLOSE + SELECT + LOOKED_AT
            near = [*range(8), *range(LOOK_LIMIT, LOOK_LIMIT + 9), *range(len(first) - 3, len(stream))]
            for places in ([], near, *([place] for place in near), range(0, len(stream), 1000)):
                session = self.run_through(stream, places, False, ANSWERS)
                self.assertTrue(session.sent == stream)
                self.assertEqual(session.ends, 3 if name[0] == COM_QUERY else 2)
                if name.startswith(b"\x03set"):
                    self.assertEqual(len(session.looked[0]), LOOK_LIMIT)

    def test_skipped(self) -> None:
        """A long command that is not for the server is thrown away to its end, and no byte more."""
        first = frame(b"\xfdset".ljust(100_000), 0)
        stream = first + CLOSE + SELECT + LOOKED_AT
        near = [*range(8), *range(LOOK_LIMIT, LOOK_LIMIT + 9), *range(len(first) - 3, len(stream))]
        for places in ([], near, *([place] for place in near), range(0, len(stream), 1000)):
            session = self.run_through(stream, places, True, ANSWERS)
            self.assertEqual((session.sent, session.ends), (stream[len(first) :], 2))

    def test_fragments(self) -> None:
        """Commands of 16 MiB and more pass through, or are thrown away, to the end of their last fragment."""
        for size in (MAX_PAYLOAD - 1, MAX_PAYLOAD, MAX_PAYLOAD + 1, 2 * MAX_PAYLOAD):
            first = frame(b"\x03set".ljust(size), 0)
            stream = first + SELECT
            places = borders(stream)
            some = [[], places, [place for place in places if place % 3 == 0], range(0, len(stream), 1 << 18)]
            for chosen in (
                (*some, *([place] for place in places if place > LOOK_LIMIT)) if size == MAX_PAYLOAD else some
            ):
                session = self.run_through(stream, chosen, False, ANSWERS)
                self.assertTrue(session.sent == stream)
                self.assertEqual(session.ends, 2)
                session = self.run_through(b"\xff".join((stream[:4], stream[5:])), chosen, True, ANSWERS)
                self.assertTrue(session.sent == SELECT)

    def test_a_full_fragment_alone(self) -> None:
        """A chunk that is just a full fragment is no whole command, however plain it looks."""
        stream = frame(b"\x03select".ljust(MAX_PAYLOAD), 0)
        tracker = Tracker(CLIENT_LOCAL_FILES, PLAIN)
        self.assertEqual(tracker.client(stream[:-4]), LOOK)
        self.assertFalse(tracker.whole)
        tracker.take()
        self.assertEqual(tracker.client(stream[-4:]), FORWARD)
        self.assertTrue(tracker.server(OK))
        self.assertFalse(tracker.busy)

    def test_answered_before_its_end(self) -> None:
        """A long command that the server refuses before it has all of it still passes through to its end."""
        stream = frame(b"\x03set".ljust(100_000), 0)
        tracker = Tracker(CLIENT_LOCAL_FILES, PLAIN)
        tracker.client(stream[:70_000])
        tracker.take()
        self.assertTrue(tracker.server(frame(ERR, 1)))
        self.assertEqual((tracker.busy, tracker.awaiting), (True, False))
        self.assertEqual(tracker.client(stream[70_000:] + SELECT), FORWARD)
        self.assertEqual((tracker.kept, tracker.busy), (SELECT, False))

    def test_forgotten(self) -> None:
        """The rest of a long command whose server session has gone is thrown away."""
        for rest in (b"", SELECT):
            stream = frame(b"\x03set".ljust(100_000), 0)
            tracker = Tracker(CLIENT_LOCAL_FILES, PLAIN)
            tracker.client(stream[:70_000])
            tracker.take()
            tracker.forget()
            self.assertEqual((tracker.busy, tracker.awaiting), (True, False))
            self.assertEqual(tracker.client(stream[70_000:90_000]), WAIT)
            self.assertEqual(tracker.client(stream[90_000:] + rest), LOOK if rest else WAIT)
            self.assertEqual(tracker.kept, rest)


class PlainTests(SynchronousTestCase):
    """Which texts may pass unseen."""

    def verdict(self, text: bytes) -> int:
        """Return what is to be done with a COM_QUERY."""
        return Tracker(CLIENT_LOCAL_FILES, PLAIN).client(frame(b"\x03" + text, 0))

    def test_plain(self) -> None:
        """Texts that can neither be the proxy's own nor leave anything behind are forwarded unseen."""
        for text in (
            b"select 1",
            b"SELECT 1",
            b"Select 1",
            b"select c from t where id=5",
            b"SELECT COUNT(*) FROM t",
            b"select 'a', \"b\", `c` -- d",
            b"select\n1",
            b"insert into t values (1)",
            b"INSERT INTO t VALUES (now())",
            b"update t set a = 1",
            b"delete from t",
            b"replace into t values (1)",
            b"with a as (select 1) select * from a",
            b"values row(1)",
            b"table t",
            b"begin",
            b"BEGIN",
            b"commit",
            b"COMMIT",
            b"rollback",
            b"ROLLBACK",
            b"start transaction",
            b"START TRANSACTION",
            b"select '\xff\x00'",
            b"select x from xproxy_session",
            b"SELECT max(x) FROM X",
        ):
            self.assertEqual(self.verdict(text), FORWARD, text)

    def test_not_plain(self) -> None:
        """All others are looked at."""
        for text in (
            b"",
            b" ",
            b" select 1",
            b"sELECT 1",
            b"/* c */ select 1",
            b"-- c\nselect 1",
            b"select 1;",
            b"select 1; set autocommit = 0",
            b"select @a",
            b"select @@autocommit",
            b"select @a := 1",
            b"select 1 into @a",
            b"select /*! 1 */",
            b"select /* c */ 1",
            b"select get_lock('a', 1)",
            b"select GET_LOCK ('a', 1)",
            b"SELECT Release_All_Locks()",
            b"select last_insert_id(5)",
            b"insert into t values (LAST_INSERT_ID())",
            b"begin not atomic",
            b"Begin",
            b"begin ",
            b"start transaction read only",
            b"set autocommit = 0",
            b"use test",
            b"show proxysession",
            b"SHOW TABLES",
            b"kill 5",
            b"KILL 5",
            b"call p()",
            b"create table t (a int)",
            b"lock tables t read",
            b"prepare a from 'select 1'",
            b"(select 1)",
            b"select id from proxysession",
            b"SELECT ID FROM PROXYSESSION",
            b"Select Id From ProxySession",
            b"select count(*) from proxysession",
            b"select proxy_version()",
            b"SELECT PROXY_VERSION ()",
            b"select connection_id()",
        ):
            self.assertEqual(self.verdict(text), LOOK, text)

    def test_claimed(self) -> None:
        """A word that a proxy statement begins with takes its like out of the plain ones."""
        prefixes = plain_prefixes(("Selenium", "show"))
        self.assertNotIn(b"sel", prefixes)
        self.assertNotIn(b"SEL", prefixes)
        self.assertIn(b"ins", prefixes)
        self.assertEqual(Tracker(CLIENT_LOCAL_FILES, prefixes).client(SELECT), LOOK)
        self.assertEqual(
            Tracker(CLIENT_LOCAL_FILES, prefixes).client(frame(b"\x03insert into t values (1)", 0)), FORWARD
        )

    def test_other_commands(self) -> None:
        """Of the commands other than COM_QUERY, those that name nothing pass unseen."""
        unseen = {
            COM_PING,
            COM_STATISTICS,
            COM_STMT_EXECUTE,
            COM_STMT_FETCH,
            COM_STMT_RESET,
        }
        for command in range(256):
            verdict = Tracker(CLIENT_LOCAL_FILES, PLAIN).client(frame(bytes((command,)) + b"....", 0))
            self.assertEqual(verdict, FORWARD if command in unseen else LOOK, command)
        self.assertEqual(Tracker(CLIENT_LOCAL_FILES, PLAIN).client(frame(bytes((COM_QUIT,)), 0)), LOOK)


# Payloads of rows: what a row can begin with, and what looks like something else.
rows = st.one_of(
    st.builds(lambda first, rest: bytes((first,)) + rest, st.integers(0, 0xFD), st.binary(max_size=20)),
    st.sampled_from([b"\xfb", b"\x00", b"\xfc\xfe\x00", b"\x05\xfe\x00\x00\x02\x00"]),
)
definitions = st.binary(max_size=12).map(lambda name: b"\x03def" + name)
statuses = st.integers(0, 0xFFFF).map(lambda status: status & ~0x4048)


@st.composite
def responses(draw: st.DrawFn, capabilities: int) -> tuple[bytes, ...]:
    """Draw the payloads of a response to COM_QUERY: some results, of which the last one may be an ERR."""
    found: list[bytes] = []
    count = draw(st.integers(1, 4))
    for number in range(1, count + 1):
        status = draw(statuses) | (0x0008 if number < count else 0)
        kind = draw(st.sampled_from(["ok", "rows", "err", "cursor"] if number == count else ["ok", "rows"]))
        columns = draw(st.lists(definitions, min_size=1, max_size=4))
        data = draw(st.lists(rows, max_size=6))
        if kind == "ok":
            found.append(
                ok(status, draw(st.integers(0, 2**40)), draw(st.integers(0, 2**40)), draw(st.binary(max_size=9)))
            )
        elif kind == "rows":
            found += result(capabilities, data, status, columns)
        elif kind == "cursor":
            found += [bytes((len(columns),)), *columns, end(capabilities, status | 0x0040)]
        else:
            whole = (*head(capabilities, status, columns), *data)
            found += [*draw(st.sampled_from([(), whole, whole[:1], whole[: 1 + len(columns)]])), ERR]
    return tuple(found)


sizes = st.lists(st.integers(1, 60), max_size=30)


class PropertyTests(SynchronousTestCase):
    @many
    @given(st.data(), st.sampled_from(FRAMINGS), sizes)
    def test_random_chunks(self, data: st.DataObject, capabilities: int, lengths: list[int]) -> None:
        """However a response is chunked, it ends where the simple implementation says, and leaves the same."""
        payloads = data.draw(responses(capabilities))
        stream = frames(payloads, 1).data
        tail = data.draw(st.sampled_from([b"", stream]))
        found = Reference(COM_QUERY, capabilities).read(stream + tail)
        assert found is not None
        self.assertEqual(found.offset, len(stream))
        places = [sum(lengths[:number]) for number in range(1, len(lengths) + 1)]
        left = []
        for chunks in ([stream], cut(stream, *places), cut(stream, *range(len(stream)))):
            tracker = Tracker(capabilities | CLIENT_LOCAL_FILES, PLAIN)
            tracker.client(SELECT)
            self.assertEqual([tracker.server(chunk) for chunk in chunks], [False] * (len(chunks) - 1) + [True])
            self.assertEqual((tracker.status, tracker.error), (found.status, found.error))
            left.append((tracker.insert_id, tracker.changes))
        self.assertEqual(left[0], left[1])
        self.assertEqual(left[0], left[2])

    @many
    @given(st.data(), st.sampled_from(FRAMINGS), st.sampled_from(sorted(SHAPES)))
    def test_damaged(self, data: st.DataObject, capabilities: int, command: int) -> None:
        """A damaged response ends where the simple implementation says, unless one of the two refuses it."""
        if SHAPES[command] == NONE or command == COM_CHANGE_USER:
            return
        streams = [e.streams()[0] for e in exchanges(capabilities) if e.command[0] == command and len(e.turns) == 1]
        stream = data.draw(damaged(data.draw(st.sampled_from(streams))))
        tracker = Tracker(capabilities | CLIENT_LOCAL_FILES, PLAIN)
        if tracker.client(frame(bytes((command,)) + b"select 1", 0)) == LOOK:
            tracker.take()
        tracker.status = 0
        ended = 0
        try:
            due = Reference(command, capabilities).read(stream)
            for offset in range(len(stream)):
                if tracker.server(stream[offset : offset + 1]):
                    ended = offset + 1
                    break
        except WireError:
            return
        self.assertEqual(ended, due.offset if due else 0)
        if due:
            self.assertEqual(tracker.error, due.error)

    @many
    @given(
        st.lists(st.one_of(st.binary(max_size=40), st.sampled_from([SELECT, LOOKED_AT, CLOSE, OK])), max_size=8), sizes
    )
    def test_any_bytes_of_the_client(self, pieces: list[bytes], lengths: list[int]) -> None:
        """Whatever a client sends is commands or a WireError, and no more is kept than came."""
        stream = b"".join(pieces)
        places = [sum(lengths[:number]) for number in range(1, len(lengths) + 1)]
        session = Session(
            Tracker(CLIENT_LOCAL_FILES, PLAIN),
            {command: (ok(),) for command in range(256) if SHAPES.get(command) != NONE},
        )
        session.skip_first = b"\x07"
        fed = 0
        with contextlib.suppress(WireError):
            for chunk in cut(stream, *places):
                session.receive(chunk)
                fed += len(chunk)
                self.assertLessEqual(len(session.sent) + len(session.tracker.kept), fed)

    @many
    @given(
        st.sampled_from(sorted(SHAPES)),
        st.sampled_from(FRAMINGS),
        st.lists(st.one_of(st.binary(max_size=40), st.sampled_from([OK, frame(ERR, 1), frame(end(0), 1)])), max_size=8),
    )
    def test_any_bytes_of_the_server(self, command: int, capabilities: int, chunks: list[bytes]) -> None:
        """Whatever a server sends is a response or a WireError, and little of it is kept."""
        tracker = Tracker(capabilities | CLIENT_LOCAL_FILES, PLAIN)
        if tracker.client(frame(bytes((command,)) + b"select 1", 0)) == LOOK:
            tracker.take()
        with contextlib.suppress(WireError):
            for chunk in chunks:
                ended = tracker.server(chunk)
                self.assertEqual(ended, not tracker.awaiting)
                self.assertLessEqual(len(tracker._held), HELD_LIMIT)

    @relaxed
    @given(
        st.lists(
            st.sampled_from([SELECT, LOOKED_AT, CLOSE, frame(b"\x03set".ljust(66_000), 0), frame(b"\x0e", 0)]),
            max_size=6,
        ),
        st.lists(st.integers(1, 40_000), max_size=12),
        st.integers(1, 30),
    )
    def test_any_chunks_of_commands(self, commands: list[bytes], lengths: list[int], size: int) -> None:
        """However commands are chunked, the server gets them all, in order, one at a time."""
        stream = b"".join(commands)
        places = [sum(lengths[:number]) for number in range(1, len(lengths) + 1)]
        session = Session(Tracker(CLIENT_LOCAL_FILES, PLAIN), ANSWERS, size)
        for chunk in cut(stream, *places):
            session.receive(chunk)
        self.assertTrue(session.sent == stream)
        self.assertEqual(session.ends, len([command for command in commands if command != CLOSE]))
        self.assertEqual((session.tracker.kept, session.tracker.busy), (b"", False))

    def test_many_small_chunks(self) -> None:
        """A response of a million bytes in tiny chunks costs linear time: a quadratic tracker would take minutes."""
        stream = frames(result(0, [b"\xfc\xff\xff" + bytes(0xFFFF)] * 12), 1).data
        tracker = Tracker(CLIENT_LOCAL_FILES, PLAIN)
        tracker.client(SELECT)
        ends = [tracker.server(chunk) for chunk in cut(stream, *range(0, len(stream), 7))]
        self.assertEqual(ends.index(True), len(ends) - 1)

    def test_more_results_without_end(self) -> None:
        """A result follows as long as its predecessor says so; what one of them told is not lost."""
        tracker = Tracker(CLIENT_LOCAL_FILES, PLAIN)
        tracker.client(SELECT)
        for number in range(1, 300):
            self.assertFalse(tracker.server(frame(ok(MORE, number), number)))
        self.assertTrue(tracker.server(frame(ok(AUTO), 44)))
        self.assertEqual(tracker.insert_id, 299)
