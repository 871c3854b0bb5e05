"""What is fuzzed: each target takes bytes, and raises if the code does what it must not do.

Bytes that are no protocol are refused by an `OdpError`; anything else that is raised is a finding. What matters no
less: the same bytes mean the same however they were cut, and both response machines agree.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any, TypeVar

from odptwist.errors import OdpError, ResponseOverrun, SqlError, WireError
from odptwist.identity import Identity
from odptwist.machines import response
from odptwist.machines.classification import classify
from odptwist.machines.client_login import ClientLogin
from odptwist.machines.client_login import State as ClientState
from odptwist.machines.connection_id import mentions_id, with_id
from odptwist.machines.effects import Greeted, LoggedIn
from odptwist.machines.exchange import FORWARD, LOOK, Tracker, plain_prefixes
from odptwist.machines.parameters import Template
from odptwist.machines.server_login import ServerLogin, server_response
from odptwist.machines.session_state import SessionState, effects_of
from odptwist.snapshots import Algorithm
from odptwist.sqltext import bare, has_word, statements
from odptwist.statements import builtin_statements
from odptwist.statements.grammar import find_first_word, hides_kill, is_multi_statement
from odptwist.statements.table import StatementTable
from odptwist.statements.where import Condition
from odptwist.wire.compression import ALGORITHMS, Compressor, Decompressor
from odptwist.wire.constants import CLIENT_DEPRECATE_EOF, CLIENT_SSL, COM_QUIT
from odptwist.wire.framing import Deframer, frame
from odptwist.wire.handshake import (
    Greeting,
    HandshakeResponse,
    parse_auth_more_data,
    parse_auth_next_factor,
    parse_auth_switch_request,
    parse_change_user,
    parse_greeting,
    parse_handshake_response,
)
from odptwist.wire.prepared import PrepareReader, PrepareReply
from odptwist.wire.primitives import decode_text, encode_text
from odptwist.wire.proxy_header import Found, HeaderReader
from odptwist.wire.responses import parse_eof, parse_err, parse_ok
from odptwist.wire.resultset import ColumnDefinition, ResultReader, parse_column_definition, parse_text_row
from tests.machines.exchanges import exchanges, ok
from tests.machines.test_response import SEEN
from tests.support.compiled import find_compiled

T = TypeVar("T")

LIMIT = 1 << 16
SALT = b"12345678901234567890"
GREETING = Greeting("8.0.36", 7, SALT, 0x81FFF7FF | CLIENT_SSL, 0, 45, 2, "mysql_native_password")
TABLE = StatementTable(builtin_statements())
PLAIN = plain_prefixes(TABLE.first_words)
_compiled = find_compiled("odptwist.machines._response")
_hub = find_compiled("odptwist.sessions._hub")


def pieces(data: bytes, step: int) -> Iterator[bytes]:
    """Yield bytes in chunks of a size; 0: all at once."""
    for start in range(0, len(data), step or len(data) or 1):
        yield data[start : start + step] if step else data


def taken(data: bytes) -> tuple[int, bytes]:
    """Return the first byte as a number, 0 if there is none, and the rest."""
    return (data[0] if data else 0), data[1:]


# -- packets ----------------------------------------------------------------------------------------------------------


def framing(data: bytes) -> None:
    """Packets are the same however the stream was cut, and a fault comes behind what was whole."""
    step, stream = taken(data)

    def outcome(step: int) -> tuple[list[Any], str, int]:
        deframer = Deframer(LIMIT)
        found: list[Any] = []
        try:
            for piece in pieces(stream, step):
                found += deframer.receive(piece)
            found += deframer.receive(b"")
        except WireError as fault:
            return found, type(fault).__name__, 0
        return found, "", deframer.buffered

    if outcome(0) != outcome(step):
        raise AssertionError(f"cut every {step} bytes: {outcome(step)}, else {outcome(0)}")


def packets(data: bytes) -> None:
    """What can be parsed is parsed to the same value once it was encoded again."""
    capabilities = int.from_bytes(data[:4].ljust(4, b"\0"), "little")
    payload = data[4:]
    again(payload, parse_greeting, Greeting.encode)
    again(payload, parse_handshake_response, HandshakeResponse.encode)
    again(payload, lambda text: parse_change_user(text, capabilities), lambda value: value.encode(capabilities))
    again(payload, parse_column_definition, ColumnDefinition.encode)
    for parse in (parse_auth_switch_request, parse_auth_next_factor, parse_auth_more_data, parse_err, parse_eof):
        with suppress(WireError):
            parse(payload)
    with suppress(WireError):
        parse_ok(payload, capabilities)
    with suppress(WireError):
        parse_text_row(payload, capabilities & 0xFF)


def again(payload: bytes, parse: Callable[[bytes], T], encode: Callable[[T], bytes]) -> None:
    """Parse, encode and parse; the first encoding may leave out what has no meaning, the second nothing."""
    with suppress(WireError):
        first = parse(encode(parse(payload)))
        second = parse(encode(first))
        if first != second:
            raise AssertionError(f"{first!r} became {second!r}")


# -- logins -----------------------------------------------------------------------------------------------------------


def client_login(data: bytes) -> None:
    """A client may say anything while it logs in."""
    machine = ClientLogin()
    machine.greet(GREETING)
    deframer = Deframer(LIMIT)
    with suppress(WireError):
        for packet in deframer.receive(data):
            machine.receive(packet)
            if machine.state is ClientState.IDENTIFIED:
                machine.ask(b"\xfemysql_native_password\0" + SALT)


def server_login(data: bytes) -> None:
    """A server may say anything while it is logged in to."""
    machine = ServerLogin()
    client = parse_handshake_response((0xA28D).to_bytes(4, "little") + bytes(28) + b"root\0\0")
    deframer = Deframer(LIMIT)
    with suppress(OdpError):
        for packet in deframer.receive(data):
            effect = machine.receive(packet)
            if isinstance(effect, Greeted):
                machine.respond(
                    server_response(client, effect.greeting, Identity("root", "sys", "c"), client.capabilities)
                )
            elif not isinstance(effect, LoggedIn):
                machine.answer(b"answer")


# -- exchanges --------------------------------------------------------------------------------------------------------


def responses(data: bytes) -> None:
    """A response means the same however it was cut, and the machine in C says what the one in Python says."""
    shape, data = taken(data)
    step, stream = taken(data)
    deprecated = bool(shape & 0x80)
    shape = shape % (response.ENDLESS - response.SIMPLE + 1) + response.SIMPLE
    whole = follow(response.Responses(deprecated), shape, stream, 0)
    cut = follow(response.Responses(deprecated), shape, stream, step)
    # Where in a chunk a fault is found is not the same, what was learnt before it neither. An empty packet among rows,
    # which no server sends, is a fault or passes: its first byte, by which rows are told apart, is another packet's.
    if not has_empty_packet(stream) and (whole[0] != cut[0] or (whole[0] == "" and whole != cut)):
        raise AssertionError(f"{shape}, cut every {step} bytes: {cut}, else {whole}")
    if _compiled is not None:
        compiled = follow(_compiled.Responses(deprecated), shape, stream, step)
        if compiled != cut:
            raise AssertionError(f"{shape}, cut every {step} bytes: C {compiled}, Python {cut}")


def has_empty_packet(stream: bytes) -> bool:
    """Return whether a packet without a payload is in a stream."""
    at = 0
    while at + 3 <= len(stream):
        length = int.from_bytes(stream[at : at + 3], "little")
        if not length:
            return True
        at += 4 + length
    return False


def follow(machine: Any, shape: int, stream: bytes, step: int) -> tuple[Any, ...]:
    """Return how a stream ends for a response machine, and what it has learnt."""
    machine.begin(shape)
    fault = ""
    ended = False
    try:
        for piece in pieces(stream, step):
            if ended:
                raise ResponseOverrun(len(piece))
            ended = machine.server(piece)
    except ResponseOverrun:
        fault = "overrun"
    except WireError as wrong:
        fault = type(wrong).__name__
    return (fault, *(getattr(machine, name) for name in SEEN))


def commands(data: bytes) -> None:
    """A client may send anything; what goes on to the server does not depend on how it was cut."""
    step, stream = taken(data)

    def outcome(step: int) -> tuple[bytes, str]:
        tracker = Tracker(0, PLAIN)
        sent = bytearray()
        try:
            for piece in pieces(stream, step):
                work(tracker, piece, sent)
        except WireError as fault:
            return bytes(sent), type(fault).__name__
        return bytes(sent), ""

    whole, cut = outcome(0), outcome(step)
    if whole != cut:
        raise AssertionError(f"cut every {step} bytes: {cut}, else {whole}")


def work(tracker: Tracker, data: bytes, sent: bytearray) -> None:
    """Let a tracker take a chunk; a server answers every command with an OK as soon as it is whole."""
    verdict = tracker.client(data)
    while True:
        if verdict == FORWARD:
            sent += data[: len(data) - len(tracker.kept)]
        elif verdict == LOOK:
            if tracker.command[0] == COM_QUIT:
                tracker.skip()
                tracker.done()
            else:
                sent += tracker.take()
        while tracker.awaiting and not tracker.sending:
            with suppress(WireError):
                tracker.server(frame(ok(), 1))
            tracker.give_up()
        if tracker.busy or not tracker.kept or verdict not in (FORWARD, LOOK):
            return
        data, tracker.kept = tracker.kept, b""
        verdict = tracker.client(data)


def plain(data: bytes) -> None:
    """The relay lets pass what the tracker lets pass, and nothing else."""
    cut, payload = taken(data)
    chunk = frame(payload, 0)[: cut or None]
    tracker = Tracker(0, PLAIN)
    try:
        forwarded = tracker.client(chunk) == FORWARD
    except WireError:
        forwarded = False
    due = tracker._shape if forwarded else response.UNKNOWN
    if _hub is not None and _hub.shape_of(chunk, PLAIN) != due:
        raise AssertionError(f"{chunk!r}: C {_hub.shape_of(chunk, PLAIN)}, Python {due}")


def results(data: bytes) -> None:
    """Answers to the proxy's own questions may be anything, and so may the beginning of one to a client's PREPARE."""
    capabilities, stream = taken(data)
    agreed = CLIENT_DEPRECATE_EOF * (capabilities & 1)
    for reader in (ResultReader(agreed), PrepareReader(agreed)):
        with suppress(OdpError):
            for packet in Deframer(LIMIT).receive(stream):
                if reader.receive(packet.payload):
                    break
    reply = PrepareReply()
    with suppress(WireError):
        for piece in pieces(stream, 1 + capabilities):
            if reply.receive(piece):
                reply.renumbered(7)
                break


# -- below the packets ------------------------------------------------------------------------------------------------


def compression(data: bytes) -> None:
    """Nothing inflates to more than it announces; what is compressed comes back whole."""
    kind, data = taken(data)
    step, stream = taken(data)
    algorithm = ALGORITHMS[kind % len(ALGORITHMS)]

    def outcome(step: int) -> tuple[bytes, str]:
        machine = Decompressor(algorithm)
        content = bytearray()
        try:
            for piece in pieces(stream, step):
                machine.receive(piece)
                while (part := machine.read(LIMIT)) is not None:
                    if len(part.data) > LIMIT:
                        raise AssertionError("more than was asked for")
                    content += part.data
        except WireError as fault:
            return bytes(content), type(fault).__name__
        return bytes(content), ""

    if outcome(0) != outcome(step):
        raise AssertionError(f"cut every {step} bytes: {outcome(step)}, else {outcome(0)}")
    there = Decompressor(algorithm)
    there.receive(Compressor(algorithm, 1).compress(stream, kind).data)
    back = b"".join(part.data for part in iter(lambda: there.read(LIMIT), None))
    if back != stream:
        raise AssertionError(f"{algorithm}: {stream!r} became {back!r}")


def proxy_header(data: bytes) -> None:
    """A header is the same however it was cut, and what is behind it is not lost."""
    step, stream = taken(data)

    def outcome(step: int) -> tuple[Any, ...]:
        reader = HeaderReader()
        came = 0
        try:
            for piece in pieces(stream, step):
                came += len(piece)
                found = reader.receive(piece)
                if found is not Found.PART:
                    return found, reader.header, reader.take_rest() + stream[came:]
        except WireError as fault:
            return (type(fault).__name__,)
        return (Found.PART,)

    if outcome(0) != outcome(step):
        raise AssertionError(f"cut every {step} bytes: {outcome(step)}, else {outcome(0)}")


# -- texts ------------------------------------------------------------------------------------------------------------


def sql(data: bytes) -> None:
    """Any text is read: proxy statements are found or refused, and what is read of the others does not fail."""
    text = decode_text(data)
    if encode_text(text) != data:
        raise AssertionError("a text that does not come back")
    for read in (find_first_word, is_multi_statement, hides_kill, bare, has_word):
        read(text)
    for statement in statements(text):
        for token in statement:
            if text[token.start : token.end] != token.text:
                raise AssertionError(f"{token} does not stand where it says")
    classify(data)
    state = SessionState()
    state.learn(effects_of(text))
    state.replay()
    if mentions_id(data):
        with_id(text, 1 << 30)
    with suppress(SqlError):
        TABLE.find(text)
    with suppress(SqlError):
        template = Template.of(text)
        template.fill([b"7" if is_text else 7 for is_text in template.texts])


def where(data: bytes) -> None:
    """A condition is compiled or refused."""
    with suppress(SqlError):
        Condition(decode_text(data), 0.1).close()


TARGETS: dict[str, Callable[[bytes], None]] = {
    target.__name__: target
    for target in (
        framing,
        packets,
        client_login,
        server_login,
        responses,
        commands,
        plain,
        results,
        compression,
        proxy_header,
        sql,
        where,
    )
}


def seeds() -> dict[str, list[bytes]]:
    """Return what each target begins with: things that are right."""
    streams = [b"".join(each.streams()) for agreed in (0, CLIENT_DEPRECATE_EOF) for each in exchanges(agreed)]
    streams = [each for each in streams if len(each) < 2000]
    asked = [frame(each.command, 0) for each in exchanges(0)]
    texts = [b"SHOW PROXYSESSION ATTRIBUTE 7 LIKE '%id'", b"KILL PROXYSESSION WHERE User = 'a' AND seconds > 1 DRY RUN"]
    texts += [b"SET @a = 1, NAMES utf8; /*!40101 KILL 7 */", b"SELECT CONNECTION_ID() x, `a` FROM t -- ?", b"PREPARE"]
    hello = frame(GREETING.encode(), 0)
    answer = (0xA28D).to_bytes(4, "little") + bytes(28) + b"root\0\x14" + SALT
    return {
        "framing": [b"\x03" + each for each in streams],
        "packets": [bytes(4) + GREETING.encode(), bytes(4) + answer, b"\0\x02\x08\0\x11root\0\0\0\x2d\0native\0"],
        "client_login": [frame(answer, 1), frame(answer[:32], 1) + frame(answer, 2)],
        "server_login": [hello + frame(ok(), 2), hello + frame(b"\xfenative\0" + SALT, 2) + frame(ok(), 4)],
        "responses": [bytes((shape, 3)) + each for shape in range(8) for each in streams[:20]],
        "commands": [b"\x02" + each for each in asked] + [b"\x05" + b"".join(asked[:5])],
        "plain": [b"\0\x03" + each for each in (b"SELECT a FROM t WHERE b = 1", b"begin", b"select f(x)", *texts)],
        "results": [b"\0" + each for each in streams],
        "compression": [b"\0\x04" + Compressor(Algorithm.ZLIB, 1).compress(b"SELECT 1" * 40, 0).data],
        "proxy_header": [
            b"\x03PROXY TCP4 10.0.0.1 10.0.0.2 5 6\r\n\x01",
            b"\x05\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c\x0a\0\0\1\x0a\0\0\2\0\5\0\6",
        ],
        "sql": texts,
        "where": [b"User = 'app' AND seconds > 10", b"activity IN ('idle') OR User LIKE 'a%'"],
    }


FOUND: dict[str, tuple[bytes, ...]] = {}
"""Inputs that were findings once."""
