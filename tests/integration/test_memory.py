"""What a peer that does not read costs the proxy: nothing, whatever the other side has to send."""

from __future__ import annotations

import select
import socket
import time
from collections.abc import Callable, Iterator

import pytest

from tests.integration.conftest import Connect
from tests.support.proxy_process import ScriptedServerProcess
from tests.support.raw_client import RawClient
from tests.support.scripted_server import LoggedIn, On, Script, Step, StopReading, When
from tests.support.servers import Proxy, Server, wait_until
from tests.support.sessions import query

MIB = 1024
"""In KiB, as /proc tells memory."""
LIMIT = MIB
ROWS = 1100
LARGE = f"SELECT REPEAT('x', 1000000) FROM seq_1_to_{ROWS}"
SIZE = ROWS * 1_000_000


@pytest.fixture(scope="module")
def server(mariadb: Server) -> Server:
    """Return MariaDB only, for its sequence tables."""
    return mariadb


def drain(client: RawClient, size: int) -> int:
    """Read at least `size` bytes as fast as possible and return how many they were."""
    view = memoryview(bytearray(1 << 20))
    count = 0
    while count < size:
        got = client.socket.recv_into(view)
        assert got, f"closed after {count} bytes"
        count += got
    return count


def is_quiet(client: RawClient, seconds: float) -> bool:
    """Say whether the kernel takes nothing more of the client for so long."""
    return not select.select([], [client.socket], [], seconds)[1]


def test_stalled_reader(proxy: Proxy, connect: Connect, figure: Callable[[str], None]) -> None:
    """A client that stops reading a result of 1 GiB costs less than 1 MiB, and its reading on costs little more."""
    watch = connect(database="test")
    with RawClient(proxy.port, receive_buffer=65536) as warm:
        warm.login("root@sys#ob1", database="test")
        warm.send(b"\x03" + LARGE.encode())
        drain(warm, 200_000_000)
    proxy.child.forget_peak()
    before = proxy.child.memory()
    with RawClient(proxy.port, timeout=30, receive_buffer=65536) as client:
        client.login("root@sys#ob1", database="test")
        client.send(b"\x03" + LARGE.encode())
        state = "SELECT STATE FROM information_schema.processlist WHERE INFO LIKE 'SELECT REPEAT%'"
        wait_until(lambda: query(watch, state) == [("Writing to net",)], what="the server's wait for the client")
        hold = time.monotonic() + 1
        wait_until(lambda: time.monotonic() > hold, what="a second of stalling")
        assert query(watch, state) == [("Writing to net",)], "the server has sent all"
        stalled = proxy.child.memory("VmHWM") - before
        start = time.monotonic()
        assert drain(client, SIZE) >= SIZE
        seconds = time.monotonic() - start
        peak = proxy.child.memory("VmHWM") - before
    figure(f"{SIZE >> 20} MiB: memory grew by {stalled} KiB while the client stalled")
    figure(f"and by {peak} KiB at most until all was read, at {SIZE / seconds / 1e6:.0f} MB/s")
    assert stalled <= LIMIT
    assert peak <= 4 * LIMIT, "what passes through is kept"


@pytest.fixture
def deaf_server() -> Iterator[ScriptedServerProcess]:
    """Return a server that reads nothing more after the login."""
    server = ScriptedServerProcess()
    try:
        server.follow(Script(steps=(Step(On(When.LOGIN), LoggedIn(), StopReading()),)))
        yield server
    finally:
        server.stop()


@pytest.mark.parametrize("kind", ["one statement", "statements ahead"])
def test_stalled_server(
    kind: str, deaf_server: ScriptedServerProcess, start_proxy: Callable[..., Proxy], figure: Callable[[str], None]
) -> None:
    """A client that uploads 1 GiB to a server that reads nothing is stopped, and costs less than 1 MiB."""
    proxy = start_proxy("--server", f"127.0.0.1:{deaf_server.port}", "--cluster-name", "ob1")
    payload = b"\x03INSERT INTO t VALUES ('".ljust(0xFFFFFF, b"x")
    if kind == "statements ahead":
        payload = b"\x03INSERT INTO t VALUES ('".ljust(1000, b"x")
    packet = len(payload).to_bytes(3, "little")
    growths = []
    for _ in "warm", "measured":
        proxy.child.forget_peak()
        before = proxy.child.memory()
        with RawClient(proxy.port) as client:
            client.login("root@sys#ob1")
            client.socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 65536)
            client.socket.setblocking(False)
            sent = number = 0
            data = b""
            while sent < 1 << 30 and not is_quiet(client, 1):
                if not data:
                    # The packets of one statement are numbered, statements of their own all have number 0.
                    sequence = number % 256 if kind == "one statement" else 0
                    data, number = packet + bytes((sequence,)) + payload, number + 1
                count = client.socket.send(data[: 1 << 20])
                sent, data = sent + count, data[count:]
            growths.append(proxy.child.memory("VmHWM") - before)
    figure(f"{kind}: {sent >> 10} KiB were taken before the client had to wait; memory grew by {growths[-1]} KiB")
    assert sent < 64 << 20
    assert growths[-1] <= LIMIT
