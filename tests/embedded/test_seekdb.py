"""The life of an embedded server, with a reactor, a process and a server that the test plays."""

from __future__ import annotations

import fcntl
import importlib.util
import os
import shutil
import sys
import tempfile
from typing import Any

from attrs import define
from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionRefusedError, ProcessDone, ProcessTerminated
from twisted.internet.protocol import ProcessProtocol
from twisted.internet.testing import MemoryReactorClock, StringTransport
from twisted.logger import capturedLogs
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from odptwist.embedded.directory import DataDirectory
from odptwist.embedded.seekdb import POLL_INTERVAL, EmbeddedServer, find_seekdb
from odptwist.errors import EmbeddedError
from odptwist.snapshots import Address
from odptwist.wire.framing import frame
from tests.embedded.test_process import GREETING, OK, TOO_MANY


@define
class ScriptedProcess:
    """A process as its protocol sees it; it ends when the test says so."""

    protocol: ProcessProtocol
    arguments: list[str]
    environment: dict[str, str]
    pid: int
    signals: list[str]
    stdin_open: bool = True

    def closeStdin(self) -> None:
        """Twisted's name."""
        self.stdin_open = False

    def signalProcess(self, signal: str) -> None:
        """Twisted's name."""
        self.signals.append(signal)

    def exit(self, code: int) -> None:
        """End by itself."""
        status = ProcessTerminated(exitCode=code, signal=None) if code else ProcessDone(0)
        self.protocol.processExited(Failure(status))

    def die(self, signal: int) -> None:
        """End by a signal."""
        self.protocol.processExited(Failure(ProcessTerminated(exitCode=None, signal=signal)))


class ScriptedReactor(MemoryReactorClock):
    """Keeps the processes that were asked for."""

    def __init__(self) -> None:
        super().__init__()
        self.processes: list[ScriptedProcess] = []

    def spawnProcess(
        self, protocol: ProcessProtocol, executable: str, args: list[str], env: dict[str, str], **more: Any
    ) -> ScriptedProcess:
        """Start a process in name only."""
        process = ScriptedProcess(protocol, args, env, 100 + len(self.processes), [])
        self.processes.append(process)
        protocol.makeConnection(process)
        return process


class EmbeddedServerTestCase(SynchronousTestCase):
    def setUp(self) -> None:
        """Prepare a server that is not started yet."""
        self.path = tempfile.mkdtemp(prefix="odp")
        self.addCleanup(shutil.rmtree, self.path)
        self.reactor = ScriptedReactor()
        self.exits: list[EmbeddedError] = []
        self.server: Any = EmbeddedServer(self.reactor, self.path, sys.executable, on_exit=self.exits.append)
        self.addCleanup(self.server.directory.release)

    def refuse(self) -> None:
        """Refuse the connection that the server's owner tries."""
        factory = self.reactor.unixClients.pop()[1]
        factory.clientConnectionFailed(None, Failure(ConnectionRefusedError()))

    def answer(self, answer: bytes = OK) -> StringTransport:
        """Accept the connection, greet, and answer the login."""
        protocol = self.reactor.unixClients.pop()[1].buildProtocol(None)
        transport = StringTransport()
        protocol.makeConnection(transport)
        protocol.dataReceived(frame(GREETING, 0))
        protocol.dataReceived(frame(answer, 2))
        return transport

    def started(self) -> ScriptedProcess:
        """Start the server and return its process."""
        starting = self.server.start()
        self.answer()
        self.successResultOf(starting)
        return self.reactor.processes[-1]

    def server_may_end(self) -> bool:
        """Say what seekdb would find out about its owners."""
        with open(os.path.join(self.path, "run", "seekdb.clients"), "a") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return False
            return True

    def failure(self, deferred: Deferred[Any]) -> str:
        """Return the text of the EmbeddedError that a Deferred failed with."""
        return str(self.failureResultOf(deferred, EmbeddedError).value)

    def assertFree(self) -> None:
        """Check that nothing is held any more and nothing is planned."""
        DataDirectory(self.path).check()
        self.assertTrue(self.server_may_end())
        self.assertIsNone(self.server.pid)
        self.assertEqual(self.reactor.getDelayedCalls(), [])


class FindSeekdbTests(SynchronousTestCase):
    def test_missing(self) -> None:
        """Without pylibseekdb the error tells both ways out."""
        self.patch(importlib.util, "find_spec", lambda name: None)
        error = self.assertRaises(EmbeddedError, find_seekdb)
        self.assertIn("pip install 'odptwist[embedded]'", str(error))
        self.assertIn("--server host:port", str(error))

    def test_library_is_not_imported(self) -> None:
        """Looking for the program does not load the library's C code."""
        if importlib.util.find_spec("pylibseekdb") is None:
            self.skipTest("pylibseekdb is not installed")
        before = set(sys.modules)
        self.assertEqual(os.path.basename(find_seekdb()), "seekdb")
        self.assertNotIn("pylibseekdb", set(sys.modules) - before)


class StartTests(EmbeddedServerTestCase):
    def test_ready(self) -> None:
        """The start fires with the socket's address as soon as a login was answered, not before."""
        starting = self.server.start()
        self.refuse()
        self.assertNoResult(starting)
        self.reactor.advance(POLL_INTERVAL)
        self.answer()
        self.assertEqual(self.successResultOf(starting), Address(path=self.path + "/run/sql.sock"))
        self.assertEqual(self.server.pid, 100)
        self.assertEqual(self.reactor.getDelayedCalls(), [])

    def test_process(self) -> None:
        """The server is told to open no port and to report to nobody, and gets no standard input."""
        self.server.start()
        [process] = self.reactor.processes
        self.assertIn("--embedded", process.arguments)
        self.assertIn(f"--base-dir={self.path}", process.arguments)
        self.assertEqual(process.environment["TELEMETRY_ENABLED"], "false")
        self.assertFalse(process.stdin_open)

    def test_own_session(self) -> None:
        """Where setsid(1) exists, it starts the server; elsewhere the server is started as it is."""
        found = ["/bin/setsid", None]
        self.patch(shutil, "which", lambda name: found.pop(0))
        self.server.start()
        self.reactor.processes[0].exit(96)
        self.refuse()
        self.reactor.pump([POLL_INTERVAL] * 3)
        first, second = self.reactor.processes
        self.assertEqual(first.arguments, ["/bin/setsid", *second.arguments])
        self.assertEqual(second.arguments[0], sys.executable)

    def test_lock_first(self) -> None:
        """The lock that keeps the server alive is held before it starts: otherwise it would exit at once."""
        held: list[bool] = []
        spawn = self.reactor.spawnProcess

        def spying(*args: Any, **more: Any) -> Any:
            held.append(not self.server_may_end())
            return spawn(*args, **more)

        self.patch(self.reactor, "spawnProcess", spying)
        self.server.start()
        self.assertEqual(held, [True])

    def test_not_in_service(self) -> None:
        """A server that refuses for another reason than a password is asked again."""
        starting = self.server.start()
        self.answer(TOO_MANY)
        self.assertNoResult(starting)
        self.reactor.advance(POLL_INTERVAL)
        self.answer()
        self.successResultOf(starting)

    def test_silent(self) -> None:
        """A server that accepts and says nothing is asked again after a second."""
        starting = self.server.start()
        protocol = self.reactor.unixClients.pop()[1].buildProtocol(None)
        transport = StringTransport()
        protocol.makeConnection(transport)
        self.reactor.advance(1)
        self.assertTrue(transport.disconnected)
        self.reactor.advance(POLL_INTERVAL)
        self.answer()
        self.successResultOf(starting)

    def test_log(self) -> None:
        """It says once a second what it waits for, and once how long it took."""
        with capturedLogs() as events:
            starting = self.server.start()
            for _ in range(50):
                self.refuse()
                self.reactor.advance(POLL_INTERVAL)
            self.answer()
            self.successResultOf(starting)
        formats = [event["log_format"] for event in events if event["log_namespace"].startswith("odptwist")]
        self.assertEqual(sum("waiting for its socket" in text for text in formats), 2)
        self.assertEqual(sum("is ready" in text for text in formats), 1)
        self.assertEqual(len(events), 4)

    def test_early_exit(self) -> None:
        """A server that ends at once fails the start with its status and the last errors of its log."""
        starting = self.server.start()
        os.makedirs(self.path + "/log")
        with open(self.path + "/log/seekdb.log", "w") as log:
            log.write("[now] EDIAG [STORAGE] the disk is full\n")
        self.reactor.processes[0].exit(1)
        self.refuse()
        self.reactor.pump([POLL_INTERVAL] * 2)
        text = self.failure(starting)
        self.assertIn("exit status 1", text)
        self.assertIn("[now] EDIAG [STORAGE] the disk is full", text)
        self.assertEqual(self.exits, [])
        self.assertFree()

    def test_early_exit_without_log(self) -> None:
        """A server that never came to write a log is quoted from its standard error."""
        starting = self.server.start()
        self.reactor.processes[0].exit(127)
        self.refuse()
        self.reactor.processes[0].protocol.childDataReceived(2, b"no such library\n")
        self.reactor.pump([POLL_INTERVAL] * 2)
        self.assertIn("no such library", self.failure(starting))

    def test_answer_of_the_dead(self) -> None:
        """A server that ended right after its answer did not start."""
        starting = self.server.start()
        self.reactor.processes[0].die(11)
        self.answer()
        self.reactor.pump([POLL_INTERVAL] * 2)
        self.assertIn("killed by signal 11", self.failure(starting))
        self.assertFree()

    def test_timeout(self) -> None:
        """A server that does not answer in time is ended, by SIGKILL if need be, and only then the start fails."""
        self.server._start_timeout = 0.2
        starting = self.server.start()
        for _ in range(5):
            self.refuse()
            self.reactor.advance(POLL_INTERVAL)
        self.assertTrue(self.server_may_end())
        self.assertNoResult(starting)
        [process] = self.reactor.processes
        self.assertEqual(process.signals, [])
        self.reactor.advance(5)
        self.assertEqual(process.signals, ["KILL"])
        process.die(9)
        self.assertIn("did not answer a login within 0.2 s (Connection was refused", self.failure(starting))
        self.assertFree()

    def test_used_directory(self) -> None:
        """Of two servers in one directory the second is not started."""
        self.started()
        other: Any = EmbeddedServer(self.reactor, self.path, sys.executable)  # type: ignore[arg-type]
        self.assertIn(f"{self.path} is in use by another odptwist (pid {os.getpid()})", self.failure(other.start()))
        self.assertEqual(len(self.reactor.processes), 1)
        self.assertFalse(self.server_may_end())

    def test_missing_program(self) -> None:
        """A program that cannot be run is named."""
        server: Any = EmbeddedServer(self.reactor, self.path, self.path + "/none")  # type: ignore[arg-type]
        self.assertIn(f"{self.path}/none is not a program", self.failure(server.start()))
        self.assertFree()

    def test_unable_to_spawn(self) -> None:
        """An error of the operating system is the operator's, not a bug, and leaves nothing locked."""

        def spawn(*args: Any, **more: Any) -> None:
            raise BlockingIOError(11, "Resource temporarily unavailable")

        self.patch(self.reactor, "spawnProcess", spawn)
        self.assertIn("Resource temporarily unavailable", self.failure(self.server.start()))
        self.assertFree()

    def test_twice(self) -> None:
        """A server that was started cannot be started again before it is stopped."""
        starting = self.server.start()
        self.assertIn("started already", self.failure(self.server.start()))
        self.answer()
        self.successResultOf(starting)
        self.assertIn("started already", self.failure(self.server.start()))


class PredecessorTests(EmbeddedServerTestCase):
    def test_exit_96(self) -> None:
        """While a predecessor ends, the start is repeated, and between two tries nothing keeps that one alive."""
        starting = self.server.start()
        self.reactor.processes[0].exit(96)
        self.refuse()
        self.reactor.advance(POLL_INTERVAL)
        self.assertTrue(self.server_may_end())
        self.reactor.advance(POLL_INTERVAL)
        self.assertFalse(self.server_may_end())
        self.answer()
        self.successResultOf(starting)
        self.assertEqual(self.server.pid, 101)

    def test_exit_96_forever(self) -> None:
        """After five seconds the start gives up."""
        starting = self.server.start()
        for _ in range(60):
            self.reactor.processes[-1].exit(96)
            self.refuse()
            self.reactor.pump([POLL_INTERVAL] * 2)
            if not self.reactor.unixClients:
                break
        self.assertIn("exit status 96", self.failure(starting))
        self.assertFree()

    def test_pid_lock(self) -> None:
        """Nothing is started as long as another server runs in the directory."""
        pids = ["7", "7", None]
        self.patch(self.server.directory, "server_pid", lambda: pids.pop(0))
        starting = self.server.start()
        self.reactor.advance(POLL_INTERVAL)
        self.assertEqual(self.reactor.processes, [])
        self.reactor.advance(POLL_INTERVAL)
        self.answer()
        self.successResultOf(starting)

    def test_pid_lock_forever(self) -> None:
        """A server that stays is somebody else's: the start fails and names it."""
        self.patch(self.server.directory, "server_pid", lambda: "7")
        starting = self.server.start()
        self.reactor.pump([POLL_INTERVAL] * 102)
        self.assertIn("is in use by a seekdb (pid 7) that is not ours", self.failure(starting))
        self.assertEqual(self.reactor.processes, [])

    def test_stopped_while_waiting(self) -> None:
        """A stop ends the wait for a predecessor."""
        self.patch(self.server.directory, "server_pid", lambda: "7")
        starting = self.server.start()
        self.successResultOf(self.server.stop())
        self.assertIn("stopped while starting", self.failure(starting))
        self.assertEqual(self.reactor.getDelayedCalls(), [])


class StopTests(EmbeddedServerTestCase):
    def test_by_itself(self) -> None:
        """The server ends by itself when its lock is given up; the stop fires when it has."""
        process = self.started()
        stopping = self.server.stop()
        self.assertTrue(self.server_may_end())
        self.assertNoResult(stopping)
        self.assertRaises(EmbeddedError, DataDirectory(self.path).check)
        process.exit(0)
        self.successResultOf(stopping)
        self.assertEqual((process.signals, self.exits), ([], []))
        self.assertFree()

    def test_killed(self) -> None:
        """A server that does not end in time is killed."""
        process = self.started()
        stopping = self.server.stop()
        self.reactor.advance(5)
        self.assertEqual(process.signals, ["KILL"])
        process.die(9)
        self.successResultOf(stopping)
        self.assertFree()

    def test_unkillable(self) -> None:
        """A server that survives SIGKILL keeps its directory locked, and the stop fails instead of waiting forever."""
        self.started()
        stopping = self.server.stop()
        self.reactor.pump([5, 5])
        self.assertIn("(pid 100) survives SIGKILL", self.failure(stopping))
        self.assertRaises(EmbeddedError, DataDirectory(self.path).check)

    def test_repeated(self) -> None:
        """Every stop fires: before a start, two at once, and after the end."""
        self.successResultOf(self.server.stop())
        process = self.started()
        first, second = self.server.stop(), self.server.stop()
        process.exit(0)
        self.successResultOf(first)
        self.successResultOf(second)
        self.successResultOf(self.server.stop())
        self.assertFree()

    def test_while_starting(self) -> None:
        """A stop during the start fails the start, and both end with the process."""
        starting = self.server.start()
        stopping = self.server.stop()
        self.assertNoResult(starting)
        self.assertNoResult(stopping)
        self.reactor.processes[0].exit(0)
        self.assertEqual(self.failure(starting), "stopped while starting")
        self.successResultOf(stopping)
        self.assertFree()

    def test_while_logging_in(self) -> None:
        """A stop between the greeting and the answer drops the connection."""
        starting = self.server.start()
        protocol = self.reactor.unixClients.pop()[1].buildProtocol(None)
        transport = StringTransport()
        protocol.makeConnection(transport)
        protocol.dataReceived(frame(GREETING, 0))
        self.server.stop()
        self.assertTrue(transport.disconnected)
        self.reactor.processes[0].exit(0)
        self.assertEqual(self.failure(starting), "stopped while starting")

    def test_while_failing(self) -> None:
        """A stop while a failed start clears up waits for it and leaves its error as it is."""
        self.server._start_timeout = 0
        starting = self.server.start()
        self.refuse()
        stopping = self.server.stop()
        self.reactor.processes[0].exit(0)
        self.assertIn("did not answer a login", self.failure(starting))
        self.successResultOf(stopping)
        self.assertFree()

    def test_start_again(self) -> None:
        """A stopped server can be started again."""
        process = self.started()
        self.server.stop()
        process.exit(0)
        self.assertEqual(self.started().pid, 101)


class ExitTests(EmbeddedServerTestCase):
    def test_unexpected(self) -> None:
        """The owner is told of an end that nobody asked for, once, and may start the server again."""
        self.started().die(6)
        [error] = self.exits
        self.assertIn("ended by itself: killed by signal 6", str(error))
        self.assertFree()
        self.successResultOf(self.server.stop())
        self.assertEqual(self.started().pid, 101)
        self.assertEqual(len(self.exits), 1)
