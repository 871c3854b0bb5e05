"""A seekdb server as a child process: it listens on a Unix socket only, and lives exactly as long as this process.

Written against seekdb 1.4.0. Its exit status is 96 if another server still runs in the data directory and 0 if nobody
holds the lock that keeps it alive; after SIGTERM it ends by SIGKILL.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
from collections.abc import Callable

from twisted.internet.defer import Deferred, TimeoutError, fail
from twisted.internet.endpoints import UNIXClientEndpoint
from twisted.internet.error import ConnectError, ConnectionClosed
from twisted.internet.interfaces import IReactorProcess, IReactorTime, IReactorUNIX
from twisted.internet.protocol import Factory
from twisted.internet.task import deferLater
from twisted.logger import Logger

from odptwist.embedded.directory import DataDirectory
from odptwist.embedded.process import LoginProbe, ServerProcess
from odptwist.errors import EmbeddedError, WireError
from odptwist.snapshots import Address

POLL_INTERVAL = 0.05
LOGIN_TIMEOUT = 1.0
PREDECESSOR_TIMEOUT = 5.0
"""Seconds that a server of a proxy that died a moment ago has to end."""

EXIT_DIRECTORY_IN_USE = 96

SETTINGS = (
    ("--parameter", "memory_budget=1G"),  # The least that seekdb accepts.
    ("--parameter", "log_disk_size=2G"),  # The least too; a limit, not an allocation.
    ("--parameter", "open_cursors=1000"),  # Prepared statements in a session; the default is 50.
    ("--parameter", "syslog_level=WARN"),
    ("--variable", "ob_query_timeout=3600000000"),  # Microseconds; seekdb reads it at a directory's first start only.
)


class IServerReactor(IReactorTime, IReactorProcess, IReactorUNIX):
    """What an embedded server needs of the reactor."""


def find_seekdb() -> str:
    """Return the path of the `seekdb` program that PyPI's pylibseekdb ships, without importing that library.

    Raises:
        EmbeddedError: it is not installed; the text says what to do.
    """
    spec = importlib.util.find_spec("pylibseekdb")
    program = os.path.join(os.path.dirname(spec.origin), "seekdb") if spec and spec.origin else ""
    if not os.path.isfile(program):
        raise EmbeddedError(
            "there is no embedded server: run `pip install 'odptwist[embedded]'`, "
            "or name a server of your own with `--server host:port`"
        )
    return program


class EmbeddedServer:
    """Starts seekdb in a data directory, tells when it answers, and ends it.

    It can be started again after it was stopped or ended.

    Args:
        reactor: of the process that owns the server; its SIGCHLD handling must be on.
        data_dir: see DataDirectory.
        program: path of `seekdb`; None stands for `find_seekdb()` at each start.
        start_timeout: seconds from `start` to the first answer.
        stop_timeout: seconds that the server has to end by itself before it is killed.
        on_exit: called when the server ends although it had started and nobody stopped it; all locks are released then.
    """

    _log = Logger()

    def __init__(
        self,
        reactor: IServerReactor,
        data_dir: str,
        program: str | None = None,
        start_timeout: float = 60.0,
        stop_timeout: float = 5.0,
        on_exit: Callable[[EmbeddedError], None] | None = None,
    ) -> None:
        self._reactor = reactor
        self.directory = DataDirectory(data_dir)
        self._program = program
        self._start_timeout = start_timeout
        self._stop_timeout = stop_timeout
        self._on_exit = on_exit
        self._child: ServerProcess | None = None
        self._starting: Deferred[Address] | None = None
        self._running = False
        self._stopped = False
        self._log_size = 0

    @property
    def pid(self) -> int | None:
        """Return the pid of the server, or None while there is none."""
        return self._child.pid if self._child is not None else None

    def start(self) -> Deferred[Address]:
        """Start the server.

        Returns:
            A Deferred that fires with the address of the server's socket as soon as a login was answered there.
            It fails with EmbeddedError, and then no server runs and no lock is held. The address may be good in this
            process only (see `DataDirectory.socket_path`). Cancelling it ends the server, too.
        """
        if self._starting is not None or self._child is not None:
            return fail(EmbeddedError("the embedded server was started already"))
        self._stopped = False
        starting = Deferred.fromCoroutine(self._start())
        if not starting.called:
            self._starting = starting
        return starting

    def stop(self) -> Deferred[None]:
        """End the server, even while it is starting; may be called at any time and any number of times.

        Returns:
            A Deferred that fires when the server's process is gone and the data directory is free.
        """
        self._stopped = True
        self._running = False
        starting, self._starting = self._starting, None
        if starting is not None:
            starting.cancel()
        return Deferred.fromCoroutine(self._end())

    async def _start(self) -> Address:
        """Do what `start` promises."""
        began = self._reactor.seconds()
        try:
            address = await self._launch(began)
        except Exception as error:
            stopped = self._stopped
            self._starting = None  # So that a `stop` from here on does not cancel the clearing up.
            await self._end()
            if stopped:
                raise EmbeddedError("stopped while starting") from None
            if isinstance(error, OSError):
                raise EmbeddedError(f"the embedded server cannot be started: {error}") from error
            raise
        self._starting = None
        self._running = True
        self._log.info(
            "embedded seekdb {pid} is ready at {address} after {seconds:.1f} s",
            pid=self.pid,
            address=address,
            seconds=self._reactor.seconds() - began,
        )
        return address

    async def _launch(self, began: float) -> Address:
        """Start servers until one answers; more than one only if a predecessor is still ending."""
        program = self._program or find_seekdb()
        if not os.access(program, os.X_OK):
            raise EmbeddedError(f"{program} is not a program that can be run")
        self.directory.lock()
        address = Address(path=self.directory.socket_path())
        while True:
            await self._predecessor_ended(began + PREDECESSOR_TIMEOUT)
            child = self._spawn(program)
            if await self._answers(child, address, began):
                return address
            if child.exit_code != EXIT_DIRECTORY_IN_USE or self._reactor.seconds() > began + PREDECESSOR_TIMEOUT:
                # Its output may still be in the pipes when its end is known.
                await deferLater(self._reactor, POLL_INTERVAL)
                raise EmbeddedError(self._describe(f"ended before it was ready: {child.fate}"))
            # A predecessor ends only if nobody holds this lock, so waiting with it would be in vain.
            self.directory.let_server_end()
            await deferLater(self._reactor, POLL_INTERVAL)

    async def _predecessor_ended(self, deadline: float) -> None:
        """Return when no server runs in the directory and the lock that keeps one alive is ours."""
        while (pid := self.directory.server_pid()) is not None or not self.directory.let_server_live():
            if self._reactor.seconds() > deadline:
                raise EmbeddedError(
                    f"data directory {self.directory.path} is in use by a seekdb (pid {pid}) that is not ours"
                )
            await deferLater(self._reactor, POLL_INTERVAL)

    def _spawn(self, program: str) -> ServerProcess:
        """Start a server; the lock that keeps it alive must be held."""
        arguments = [program, f"--base-dir={self.directory.path}", "--embedded", "--nodaemon"]
        for setting in SETTINGS:
            arguments += setting
        # A session of its own keeps the terminal's Ctrl-C away from it: the proxy's sessions end first. setsid(1)
        # becomes the program, with the same pid, because a fresh child does not lead a process group.
        setsid = shutil.which("setsid")
        if setsid is not None:
            arguments.insert(0, setsid)
        # Exactly "false"; otherwise seekdb reports to its vendor.
        environment = {**os.environ, "TELEMETRY_ENABLED": "false"}
        self._log_size = self.directory.log_size()
        child = ServerProcess(self._child_ended)
        self._reactor.spawnProcess(child, arguments[0], arguments, environment)
        self._child = child
        self._log.info("embedded seekdb {pid} is starting in {directory}", pid=child.pid, directory=self.directory.path)
        return child

    async def _answers(self, child: ServerProcess, address: Address, began: float) -> bool:
        """Return True when the server has answered a login, False when it has ended."""
        told = 0
        while child.fate is None:
            try:
                await self._log_in(address)
            except (ConnectError, ConnectionClosed, TimeoutError, WireError, EmbeddedError) as error:
                reason = str(error)
            else:
                return child.fate is None  # It may have ended right after its answer.
            seconds = self._reactor.seconds() - began
            if seconds >= self._start_timeout:
                raise EmbeddedError(
                    self._describe(f"did not answer a login within {self._start_timeout:g} s ({reason})")
                )
            if int(seconds) > told:
                told = int(seconds)
                self._log.info("embedded seekdb is starting: {seconds} s, waiting for its socket", seconds=told)
            await deferLater(self._reactor, POLL_INTERVAL)
        return False

    async def _log_in(self, address: Address) -> None:
        """Log in and out again; return if the server said anything that a server in service says."""
        endpoint = UNIXClientEndpoint(self._reactor, address.path, timeout=LOGIN_TIMEOUT)
        probe = LoginProbe()
        factory = Factory.forProtocol(lambda: probe)
        factory.noisy = False  # Otherwise it logs twice a poll, as connectProtocol's factory does.
        await endpoint.connect(factory)
        await probe.answered.addTimeout(LOGIN_TIMEOUT, self._reactor)

    async def _end(self) -> None:
        """End the server, if there is one, and give up all locks."""
        self.directory.let_server_end()
        child = self._child
        if child is not None and child.fate is None:
            try:
                await child.when_ended().addTimeout(self._stop_timeout, self._reactor)
            except TimeoutError:
                self._log.warn("embedded seekdb {pid} does not end, killing it", pid=child.pid)
                child.kill()
                try:
                    await child.when_ended().addTimeout(self._stop_timeout, self._reactor)
                except TimeoutError:
                    raise EmbeddedError(f"the embedded server (pid {child.pid}) survives SIGKILL") from None
        if child is self._child:
            self._child = None
            self.directory.release()

    def _child_ended(self, child: ServerProcess) -> None:
        """Tell the owner if the server ended by itself while it was in service."""
        self._log.info("embedded seekdb {pid} has ended: {fate}", pid=child.pid, fate=child.fate)
        if not self._running:
            return
        error = EmbeddedError(self._describe(f"ended by itself: {child.fate}"))
        self._running = False
        self._child = None
        self.directory.release()
        if self._on_exit is not None:
            self._on_exit(error)

    def _describe(self, event: str) -> str:
        """Return what happened, and below it what the server said about it."""
        lines = self.directory.last_errors(self._log_size)
        source = self.directory.log_path
        if not lines and self._child is not None:
            lines = tuple(self._child.output.decode("utf-8", "replace").splitlines()[-5:])
            source = "its standard error"
        said = "".join(f"\n  {line}" for line in lines)
        return f"the embedded server {event}; last lines of {source}:{said}" if said else f"the embedded server {event}"
