"""A real proxy before a scripted server, both as programs, for tests of bad peers and of many sessions."""

from __future__ import annotations

import subprocess
import sys
import time
from types import TracebackType
from typing import Self

from benchmarks.support import Program, start_odptwist
from tests.support.raw_client import RawClient
from tests.support.scripted_server import Script, Step, dump


class ScriptedServerProcess(Program):
    """The scripted server as a program."""

    def __init__(self) -> None:
        super().__init__([sys.executable, "-m", "tests.support.scripted_server"], stdin=subprocess.PIPE)
        self.port = int(self.wait_for(r"port (\d+)")[1])
        self._orders = 0

    def follow(self, script: Script) -> None:
        """Make the connections to come follow a script."""
        self._orders += 1
        self.tell(dump(script))
        self.wait_for(rf"\bok {self._orders}\n")


class ProxyProcess:
    """A proxy and the scripted server behind it.

    Attributes:
        server: the scripted server.
        proxy: the proxy's process.
        port: where clients connect.
        idle_files: the proxy's descriptors while it serves one client, as it does from the start.
    """

    def __init__(self) -> None:
        self.server = ScriptedServerProcess()
        try:
            self.proxy = start_odptwist(self.server.port)
        except BaseException:
            self.server.stop()
            raise
        self.port = self.proxy.port
        self._good = RawClient(self.port)
        self._good.login()
        self.idle_files = self.proxy.open_files()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, raised: BaseException | None, at: TracebackType | None
    ) -> None:
        self._good.close()
        self.proxy.stop()
        self.server.stop()

    def script(self, *steps: Step, **more: object) -> None:
        """Make the server do these steps in the connections to come."""
        self.server.follow(Script(steps=steps, **more))  # type: ignore[arg-type]

    def client(self, timeout: float = 8.0, receive_buffer: int | None = None) -> RawClient:
        """Return a client that has connected and sent nothing."""
        return RawClient(self.port, timeout, receive_buffer)

    def open_files(self, at_most: int | None = None, patience: float = 8.0) -> int:
        """Return how many descriptors the proxy has; if they are more than `at_most`, wait for them to be closed.

        A statement that its client has left is killed first, which may take the kill timeout of 5 s.
        """
        end = time.monotonic() + patience
        while True:
            count = self.proxy.open_files()
            if at_most is None or count <= at_most or time.monotonic() > end:
                return count
            time.sleep(0.01)

    def check_serves(self) -> None:
        """Fail unless the proxy serves a client that was there before, and a new one before a good server."""
        self.server.follow(Script())
        for client in (self._good, self.client()):
            if client is not self._good:
                client.login()
            rows = client.query("SELECT 1").rows
            if rows != [(b"1",)]:
                raise AssertionError(f"the proxy answers {rows}")
            if client is not self._good:
                client.quit()
