"""Clients and servers that break the rules, before and behind a real proxy.

Each of them gets an error packet with the right code, or is cut off; never is anybody left hanging, no descriptor
stays open, and everybody else is served (the fixture `peers` sees to that after every test).
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator

import pytest

from benchmarks.support import raise_open_files
from odptwist.wire.constants import CLIENT_PROTOCOL_41, CLIENT_SSL, COM_PING, COM_QUERY
from odptwist.wire.framing import frame
from odptwist.wire.handshake import AuthMoreData, AuthSwitchRequest
from odptwist.wire.responses import Err, Ok, is_eof, parse_err, parse_ok
from odptwist.wire.scramble import native_password
from tests.support.proxy_process import ProxyProcess
from tests.support.raw_client import Closed, RawClient
from tests.support.scripted_server import (
    GREETING,
    Abort,
    Action,
    Close,
    Later,
    LoggedIn,
    On,
    Send,
    SendRaw,
    Stall,
    Step,
    StopReading,
    When,
    error,
)

QUERY = bytes((COM_QUERY,))
SALT = b"abcdefghijklmnopqrst"
SWITCH = AuthSwitchRequest("mysql_native_password", SALT + b"\0").encode()
# The response to SELECT 1: one column, one row.
COLUMN = b"\3def\0\0\0\x011\0\x0c\x3f\0\x15\0\0\0\x08\x80\0\0\0\0"
RESULT = (b"\x01", COLUMN, b"\xfe\0\0\2\0", b"\x011", b"\xfe\0\0\2\0")


@pytest.fixture(scope="module")
def proxy() -> Iterator[ProxyProcess]:
    """A proxy before a scripted server, for all tests of this module."""
    raise_open_files()
    with ProxyProcess() as started:
        yield started


@pytest.fixture
def peers(proxy: ProxyProcess) -> Iterator[ProxyProcess]:
    """The proxy; afterwards it must still serve, and have no descriptor more than before."""
    proxy.check_serves()
    before = proxy.open_files(at_most=proxy.idle_files)
    yield proxy
    proxy.check_serves()
    assert proxy.open_files(at_most=before) == before


def assert_refused(client: RawClient, *codes: int) -> None:
    """Expect an ERR packet with one of these codes, and the end."""
    payload = client.read_packet().payload
    assert payload[:1] == b"\xff", payload
    assert parse_err(payload).code in codes
    assert client.is_closed()


# -- clients that cannot log in --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("sent", "code"),
    [
        pytest.param(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n", 1153, id="http"),
        pytest.param(b"\xff\xff\xff\x01", 1153, id="oversized"),
        pytest.param(frame(bytes(range(3, 60)), 1), 1835, id="garbage"),
        pytest.param(frame(b"", 1), 1835, id="empty"),
        pytest.param(frame(b"\0\0\0\0", 1), 1835, id="protocol 3.20"),
        pytest.param(frame((CLIENT_PROTOCOL_41 | CLIENT_SSL).to_bytes(4, "little") + bytes(28), 1), 1835, id="ssl"),
        pytest.param(frame(QUERY + b"SELECT 1", 0), 1156, id="command"),
    ],
)
def test_what_is_no_login_is_refused(peers: ProxyProcess, sent: bytes, code: int) -> None:
    """Garbage, too long a packet and a request for TLS that was not offered get an error each, and the end."""
    with peers.client() as client:
        client.read_greeting()
        client.send_raw(sent)
        assert_refused(client, code)


@pytest.mark.parametrize("sequence", [0, 2, 255])
def test_login_out_of_sequence(peers: ProxyProcess, sequence: int) -> None:
    """A login with another sequence number than 1 is refused with 1156."""
    with peers.client() as client:
        client.read_greeting()
        client.send(client.handshake_response("root"), sequence)
        assert_refused(client, 1156)


def test_second_packet_amid_login(peers: ProxyProcess) -> None:
    """A packet that nobody asked for, while the server has not yet decided, ends the login."""
    peers.script(Step(On(When.LOGIN), Stall()))
    with peers.client() as client:
        client.read_greeting()
        client.send(client.handshake_response("root"), 1)
        client.send(QUERY + b"SELECT 1", 2)
        assert_refused(client, 1835)


def test_disconnect_at_every_byte_of_the_login(peers: ProxyProcess) -> None:
    """A client may vanish after any number of bytes, in good order or not, and leaves nothing behind."""
    with peers.client() as client:
        client.read_greeting()
        login = frame(client.handshake_response("root", b"secret"), 1)
    for size in range(len(login) + 1):
        with peers.client() as client:
            client.read_greeting()
            client.send_raw(login[:size])
            if size % 2:
                client.abort()


def test_client_that_never_speaks_up(peers: ProxyProcess) -> None:
    """Half a login, then silence: the login timeout of 10 s ends it."""
    with peers.client(timeout=14.0) as client:
        client.read_greeting()
        client.send_raw(frame(client.handshake_response("root"), 1)[:20])
        began = time.monotonic()
        with contextlib.suppress(Closed):
            assert parse_err(client.read_packet().payload).code
            assert client.is_closed()
        assert 9.0 < time.monotonic() - began < 12.0


# -- clients that are logged in --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("sent", "code"),
    [
        pytest.param(frame(QUERY + b"SELECT 1", 1), 1156, id="sequence"),
        pytest.param(frame(QUERY + b"SHOW PROXYSESSION", 9), 1156, id="sequence of a proxy statement"),
        pytest.param(frame(bytes((COM_PING,)), 255), 1156, id="sequence of a ping"),
        pytest.param(frame(b"", 0), 1835, id="empty"),
    ],
)
def test_broken_command_ends_the_session(peers: ProxyProcess, sent: bytes, code: int) -> None:
    """A command with a wrong sequence number, or without its first byte, gets an error and the end."""
    with peers.client() as client:
        client.login()
        client.send_raw(sent)
        assert_refused(client, code)


@pytest.mark.parametrize("command", [0x00, 0x05, 0x0B, 0x0F, 0x10, 0x13, 0x14, 0x1D, 0x20, 0x77, 0xFE, 0xFF])
def test_unknown_command(peers: ProxyProcess, command: int) -> None:
    """A command that the proxy cannot follow gets 1047, and the session goes on."""
    with peers.client() as client:
        client.login()
        client.send(bytes((command,)) + b"whatever")
        assert client.read_error().code == 1047
        assert client.query("SELECT 1").rows == [(b"1",)]


def test_half_a_command_then_gone(peers: ProxyProcess) -> None:
    """A client may vanish amid a command, a short one and one that already streams through."""
    for whole in (frame(QUERY + b"SELECT 1", 0), frame(QUERY + b"SELECT " + b"1" * 200_000, 0)):
        for size in {1, 3, 4, 5, 9, len(whole) // 2, len(whole) - 1}:
            with peers.client() as client:
                client.login()
                client.send_raw(whole[:size])
                if size % 2:
                    client.abort()


def test_hundred_commands_at_once(peers: ProxyProcess) -> None:
    """Commands sent ahead, the proxy's own and wrong ones among them, are answered one by one and in order."""
    kinds = (QUERY + b"SELECT 1", QUERY + b"SHOW PROXYSESSION", bytes((COM_PING,)), b"\x77", QUERY + b"SET a = 1")
    with peers.client() as client:
        client.login()
        client.send_raw(b"".join(frame(kinds[number % 5], 0) for number in range(100)))
        for _ in range(20):
            assert client.read_result().rows == [(b"1",)]
            assert len(client.read_result().rows) == 2
            parse_ok(client.read_packet().payload, client.capabilities)
            assert client.read_error().code == 1047
            assert client.read_result().ok
        client.quit()


def test_commands_sent_ahead_of_a_wrong_one(peers: ProxyProcess) -> None:
    """What came before a packet out of order is answered, whatever shared its chunk; then 1156 and the end."""
    with peers.client() as client:
        client.login()
        client.send_raw(frame(QUERY + b"SELECT 1", 0) * 3 + frame(QUERY + b"SELECT 1", 7))
        for _ in range(3):
            assert client.read_result().rows == [(b"1",)]
        assert_refused(client, 1156)


@pytest.mark.parametrize("sent", [b"", frame(QUERY + b"SELECT 1", 0), frame(QUERY + b"SHOW PROXYSESSION", 0)])
def test_client_that_closes_its_half(peers: ProxyProcess, sent: bytes) -> None:
    """A client that sends nothing more may get its last answer or not; then the connection ends."""
    with peers.client() as client:
        client.login()
        client.send_raw(sent)
        client.half_close()
        with contextlib.suppress(Closed):
            for _ in range(20):
                client.read_packet()
            pytest.fail("no end")


def test_client_that_stops_reading_and_vanishes(peers: ProxyProcess) -> None:
    """A client that has never read its answers leaves nothing behind when it goes."""
    head = Send(RESULT[0], COLUMN, RESULT[2])
    rows = SendRaw(frame(b"\xfc\xfd\x03" + bytes(0x3FD), 4), times=20_000)
    peers.script(Step(On.query("SELECT"), head, rows))
    memory = peers.proxy.resident_kib()
    with peers.client(receive_buffer=4096) as client:
        client.login()
        client.send(QUERY + b"SELECT 1")
        time.sleep(0.3)
        assert peers.proxy.resident_kib() < memory + 4_000
        client.abort()


# -- servers that do not let a client in -----------------------------------------------------------------------------


@pytest.mark.parametrize("end", [Close(), Abort()], ids=["close", "abort"])
@pytest.mark.parametrize("when", [When.CONNECTED, When.LOGIN])
def test_server_that_hangs_up_amid_the_login(peers: ProxyProcess, when: When, end: Action) -> None:
    """A server that ends the connection at the greeting or at the response means 1429 for the client."""
    peers.script(Step(On(when), end))
    with peers.client() as client:
        login = client.login(password=b"secret")
        assert isinstance(login, Err)
        assert login.code == 1429
        assert client.is_closed()


def test_server_that_hangs_up_after_it_asked(peers: ProxyProcess) -> None:
    """A server that asks for a password and then goes means an error too, not a client that waits."""
    peers.script(Step(On(When.LOGIN), Send(SWITCH)), Step(On(When.AUTH), Close()))
    with peers.client() as client:
        login = client.login(password=b"secret")
        assert isinstance(login, Err)
        assert login.code in (1429, 1158)
        assert client.is_closed()


@pytest.mark.parametrize(
    ("sent", "code"),
    [
        pytest.param(error(1040, "Too many connections", "08004"), 1040, id="too many"),
        pytest.param(error(1040, "Too many connections", with_state=False), 1040, id="too many, without a state"),
        pytest.param(SendRaw(b"HTTP/1.1 400 Bad Request\r\n\r\n"), 1429, id="http"),
        pytest.param(SendRaw(b"SSH-2.0-OpenSSH_9.2p1\r\n"), 1429, id="ssh"),
        pytest.param(SendRaw(frame(GREETING.encode(), 1)), 1429, id="sequence"),
        pytest.param(SendRaw(frame(b"\x09" + GREETING.encode()[1:], 0)), 1429, id="protocol 9"),
        pytest.param(SendRaw(frame(GREETING.encode()[:20], 0)), 1429, id="cut"),
        pytest.param(SendRaw(frame(b"", 0)), 1429, id="empty"),
        pytest.param(Send(Ok().encode(0)), 1429, id="ok"),
        pytest.param(SendRaw(frame(b"\xff\x10", 0)), 1429, id="half an error"),
    ],
)
def test_server_that_does_not_greet(peers: ProxyProcess, sent: Action, code: int) -> None:
    """An ERR in place of the greeting reaches the client as it is; anything else is 1429."""
    peers.script(Step(On(When.CONNECTED), sent, Close()))
    with peers.client() as client:
        login = client.login()
        assert isinstance(login, Err)
        assert login.code == code
        assert client.is_closed()


@pytest.mark.parametrize(
    ("sent", "code"),
    [
        pytest.param(error(1045, "Access denied", "28000"), 1045, id="refused"),
        pytest.param(SendRaw(frame(bytes(7), 5)), 1429, id="sequence"),
        pytest.param(Send(b"\x42what?"), 1429, id="nonsense"),
        pytest.param(SendRaw(b"\xff\xff\xff\x02"), 1429, id="oversized"),
        pytest.param(SendRaw(frame(b"", 2)), 1429, id="empty"),
    ],
)
def test_server_that_answers_a_login_badly(peers: ProxyProcess, sent: Action, code: int) -> None:
    """A refusal reaches the client as it is; nonsense is 1429."""
    peers.script(Step(On(When.LOGIN), sent, Stall()))
    with peers.client() as client:
        login = client.login(password=b"secret")
        assert isinstance(login, Err)
        assert login.code == code
        assert client.is_closed()


@pytest.mark.parametrize("when", [When.CONNECTED, When.LOGIN])
def test_server_that_stalls_amid_the_login(peers: ProxyProcess, when: When) -> None:
    """A server that takes the connection and says nothing: 1429 after the connect timeout of 5 s."""
    peers.script(Step(On(when), Stall()))
    with peers.client() as client:
        began = time.monotonic()
        login = client.login()
        assert isinstance(login, Err)
        assert login.code == 1429
        assert 4.5 < time.monotonic() - began < 7.0
        assert client.is_closed()


def test_server_that_asks_and_asks(peers: ProxyProcess) -> None:
    """AuthSwitchRequest and AuthMoreData go to the client, and its answers come back byte for byte."""
    answer = native_password(b"secret", SALT)
    peers.script(
        Step(On(When.LOGIN), Send(SWITCH)),
        Step(On(When.AUTH, answer), Send(AuthMoreData(b"\x04").encode())),
        Step(On(When.AUTH, b"more of it"), Send(AuthMoreData(b"\x03").encode()), LoggedIn()),
    )
    with peers.client() as client:
        client.read_greeting()
        client.send(client.handshake_response("root", b"secret"), 1)
        assert client.read_packet().payload == SWITCH
        client.send(answer, client.sequence + 1)
        assert client.read_packet().payload == b"\x01\x04"
        client.send(b"more of it", client.sequence + 1)
        assert client.read_packet().payload == b"\x01\x03"
        assert client.read_packet().payload[:1] == b"\x00"
        assert client.query("SELECT 1").rows == [(b"1",)]


def test_whole_login_in_single_bytes(peers: ProxyProcess) -> None:
    """A server whose every byte comes alone is a good server."""
    peers.script(split=True)
    with peers.client() as client:
        assert isinstance(client.login(password=b"secret"), Ok)
        assert client.query("SELECT 1").rows == [(b"1",)]


# -- servers that break an exchange ----------------------------------------------------------------------------------


def ends_with_error_or_cut(client: RawClient) -> None:
    """Read on to an ERR packet, or to the end of the connection."""
    for _ in range(20):
        try:
            if client.read_packet().payload[:1] == b"\xff":
                return
        except Closed:
            return
    pytest.fail("the response goes on and on")


@pytest.mark.parametrize(
    "sent",
    [
        pytest.param(Send(b""), id="empty"),
        pytest.param(Send(RESULT[0], COLUMN, COLUMN), id="no EOF"),
        pytest.param(Send(b"\xfe" + b"\xff" * 8), id="a column count out of reach"),
        pytest.param(Send(b"\xff"), id="an error without a code"),
        pytest.param(Send(b"\x00\xfc"), id="half an OK"),
    ],
)
def test_response_that_is_none(peers: ProxyProcess, sent: Action) -> None:
    """A response that breaks the protocol ends in an error or in the end of the connection."""
    peers.script(Step(On.query("SELECT 1"), sent))
    with peers.client() as client:
        client.login()
        client.send(QUERY + b"SELECT 1")
        ends_with_error_or_cut(client)


@pytest.mark.parametrize(
    ("sent", "packets"),
    [
        pytest.param(Send(*RESULT, Ok().encode(0)), len(RESULT), id="OK after a result"),
        pytest.param(Send(Ok().encode(0), Ok().encode(0)), 1, id="two OKs"),
        pytest.param(SendRaw(frame(Ok().encode(0), 1) + b"\x01"), 1, id="a byte after an OK"),
    ],
)
def test_response_that_goes_on(peers: ProxyProcess, sent: Action, packets: int) -> None:
    """A response that goes on after its end is passed on up to there, and the next statement has another connection."""
    peers.script(Step(On.query("SELECT 1"), sent))
    with peers.client() as client:
        client.login()
        for _ in range(2):
            client.send(QUERY + b"SELECT 1")
            for _ in range(packets):
                client.read_packet()


@pytest.mark.parametrize("end", [Close(), Abort()], ids=["close", "abort"])
@pytest.mark.parametrize("size", [0, 1, 5, 20, 42, 50])
def test_server_that_hangs_up_amid_a_response(peers: ProxyProcess, size: int, end: Action) -> None:
    """Without a byte of a response it is 1158, and the session goes on; amid one it is the end of the connection."""
    whole = b"".join(frame(payload, number) for number, payload in enumerate(RESULT, 1))
    assert size < len(whole)
    peers.script(Step(On.query("SELECT 1"), SendRaw(whole[:size]), Later(0.05, end)))
    with peers.client() as client:
        client.login()
        client.send(QUERY + b"SELECT 1")
        if size:
            ends_with_error_or_cut(client)
            return
        assert client.read_error().code == 1158
        peers.script()
        assert client.query("SELECT 1").rows == [(b"1",)]


@pytest.mark.parametrize(
    "actions",
    [
        pytest.param((error(1927, "Connection was killed", "70100"), Close()), id="error, close"),
        pytest.param((SendRaw(frame(Err(1053, "08S01", "Server shutdown").encode(), 0)), Close()), id="shutdown"),
        pytest.param((Send(Ok().encode(0)),), id="OK"),
        pytest.param((SendRaw(b"\x99"),), id="a byte"),
        pytest.param((Close(),), id="close"),
        pytest.param((Abort(),), id="abort"),
    ],
)
@pytest.mark.parametrize("password", [b"", b"secret"], ids=["repeatable", "not repeatable"])
def test_server_that_speaks_unasked(peers: ProxyProcess, actions: tuple[Action, ...], password: bytes) -> None:
    """A server session that ends while idle is replaced unnoticed; where it cannot be, the next statement says 1158."""
    peers.script(Step(On.query("SELECT 1"), Send(*RESULT), *(Later(0.05, action) for action in actions)))
    with peers.client() as client:
        client.login(password=password)
        assert client.query("SELECT 1").rows == [(b"1",)]
        peers.script()
        time.sleep(0.3)
        client.send(QUERY + b"SELECT 2")
        if password:
            assert_refused(client, 1158)
        else:
            assert client.read_result().rows == [(b"1",)]


def send_until_stopped(client: RawClient, data: memoryview) -> int:
    """Send until the peer takes nothing more for the client's timeout; return how many bytes it took."""
    sent = 0
    try:
        while sent < len(data):
            sent += client.socket.send(data[sent:])
    except TimeoutError:
        return sent
    pytest.fail("all was taken")


def test_client_that_leaves_a_server_that_does_not_read(peers: ProxyProcess) -> None:
    """A client may go while the proxy cannot pass on what it has sent; both connections end at once."""
    peers.script(Step(On.query("SELECT"), StopReading(), Later(4.0, Abort())))
    files = peers.open_files()
    with peers.client(timeout=0.5) as client:
        client.login()
        client.send(QUERY + b"SELECT 1")
        send_until_stopped(client, memoryview(frame(QUERY + b"SELECT " + bytes(8_000_000), 0) * 10))
        client.abort()
    assert peers.open_files(at_most=files, patience=8.0) == files


def test_server_that_is_lost_while_it_does_not_read(peers: ProxyProcess) -> None:
    """What a server does not take is not hoarded; when it ends, the client may finish its command, and gets 1158."""
    peers.script(Step(On(When.LOGIN), LoggedIn(), StopReading(), Later(1.5, Abort())))
    memory = peers.proxy.resident_kib()
    command = memoryview(frame(QUERY + b"SELECT " + b"1" * 16_000_000, 0))
    with peers.client(timeout=0.5) as client:
        client.login()
        sent = send_until_stopped(client, command)
        assert peers.proxy.resident_kib() < memory + 4_000
        client.socket.settimeout(5.0)
        client.socket.sendall(command[sent:])
        assert client.read_error().code == 1158
        peers.script()
        assert client.query("SELECT 1").rows == [(b"1",)]


def test_eof_is_told_from_a_row() -> None:
    """The response used above is what it says."""
    assert [is_eof(payload) for payload in RESULT] == [False, False, True, False, True]
