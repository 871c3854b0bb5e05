"""The data directory: claims, the lock that keeps a server alive, the short socket path, the log's last errors."""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import sys
import tempfile

from twisted.trial.unittest import SynchronousTestCase

from odptwist.embedded.directory import LONGEST_SOCKET_PATH, SHOWN_LINE_LENGTH, DataDirectory
from odptwist.errors import EmbeddedError


class DataDirectoryTestCase(SynchronousTestCase):
    def setUp(self) -> None:
        """Choose a directory that does not exist yet."""
        self.base = tempfile.mkdtemp(prefix="odp")
        self.addCleanup(shutil.rmtree, self.base)
        self.path = os.path.join(self.base, "data")
        self.directory = DataDirectory(self.path)
        self.addCleanup(self.directory.release)

    def write(self, name: str, text: str) -> None:
        """Write a file below the data directory."""
        path = os.path.join(self.path, name)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "w") as file:
            file.write(text)


class ClaimTests(DataDirectoryTestCase):
    def test_relative_path(self) -> None:
        """A relative path is meant from the directory at construction; the proxy may change it later."""
        self.assertEqual(DataDirectory("here").path, os.path.join(os.getcwd(), "here"))

    def test_creates(self) -> None:
        """The directory is created for its owner only: over the socket, root needs no password."""
        self.directory.lock()
        self.assertEqual(os.stat(self.path).st_mode & 0o777, 0o700)
        self.assertTrue(os.path.isdir(os.path.join(self.path, "run")))

    def test_second_claim(self) -> None:
        """A second claim fails and names the directory and the holder's pid."""
        self.directory.lock()
        error = self.assertRaises(EmbeddedError, DataDirectory(self.path).lock)
        self.assertIn(self.path, str(error))
        self.assertIn(f"(pid {os.getpid()})", str(error))

    def test_claim_is_repeatable(self) -> None:
        """Claiming twice through one object is one claim."""
        self.directory.lock()
        self.directory.lock()
        self.directory.release()
        DataDirectory(self.path).check()

    def test_release(self) -> None:
        """A released directory can be claimed by somebody else; releasing twice does no harm."""
        self.directory.lock()
        self.directory.release()
        self.directory.release()
        DataDirectory(self.path).check()

    def test_check_keeps_nothing(self) -> None:
        """A check leaves the directory free."""
        self.directory.check()
        DataDirectory(self.path).check()

    def test_check_of_own_claim(self) -> None:
        """A check by the holder itself succeeds and does not give up the claim."""
        self.directory.lock()
        self.directory.check()
        self.assertRaises(EmbeddedError, DataDirectory(self.path).check)

    def test_check_finds_a_holder(self) -> None:
        """A check fails while another proxy holds the directory."""
        self.directory.lock()
        self.assertRaises(EmbeddedError, DataDirectory(self.path).check)

    def test_file(self) -> None:
        """A file in the directory's place is named in the error."""
        with open(self.path, "w"):
            pass
        error = self.assertRaises(EmbeddedError, self.directory.lock)
        self.assertIn(f"{self.path} is not a directory", str(error))

    def test_below_file(self) -> None:
        """A file on the way to the directory is an EmbeddedError, too."""
        error = self.assertRaises(EmbeddedError, DataDirectory(__file__ + "/data").lock)
        self.assertIn("is not a directory", str(error))

    def test_not_writable(self) -> None:
        """A directory that cannot be written (not even by root) is named in the error."""
        error = self.assertRaises(EmbeddedError, DataDirectory("/proc").lock)
        self.assertIn("/proc cannot be written", str(error))


class LifeTests(DataDirectoryTestCase):
    def setUp(self) -> None:
        """Claim the directory."""
        super().setUp()
        self.directory.lock()

    def server_may_end(self) -> bool:
        """Say what `seekdb --embedded` would find out about its owners."""
        with open(os.path.join(self.path, "run", "seekdb.clients"), "a") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return False
            return True

    def test_keeps_server(self) -> None:
        """As long as the lock is held, a server does not find itself without an owner."""
        self.assertTrue(self.directory.let_server_live())
        self.assertTrue(self.directory.let_server_live())
        self.assertFalse(self.server_may_end())
        self.directory.let_server_end()
        self.assertTrue(self.server_may_end())

    def test_release_ends_server(self) -> None:
        """Giving up the directory gives up the server."""
        self.directory.let_server_live()
        self.directory.release()
        self.assertTrue(self.server_may_end())

    def test_ending_server(self) -> None:
        """A server that is on its way out bars the lock, and that is not an error."""
        with open(os.path.join(self.path, "run", "seekdb.clients"), "a") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            self.assertFalse(self.directory.let_server_live())
        self.assertTrue(self.directory.let_server_live())

    def test_lock_is_not_inherited(self) -> None:
        """A child does not inherit the lock: seekdb would keep itself alive."""
        self.directory.let_server_live()
        program = [sys.executable, "-c", "print(flush=True); input()"]
        with subprocess.Popen(program, stdin=subprocess.PIPE, stdout=subprocess.PIPE, close_fds=False) as child:
            child.stdout.readline()  # the parent goes on before exec has closed the child's descriptors
            self.directory.let_server_end()
            self.assertTrue(self.server_may_end())

    def test_no_server(self) -> None:
        """No pid file, or one that nobody locks, means that no server runs."""
        self.assertIsNone(self.directory.server_pid())
        self.write("run/seekdb.pid", "1\n")
        self.assertIsNone(self.directory.server_pid())

    def test_server(self) -> None:
        """The pid of a server that somebody else started is found."""
        self.write("run/seekdb.pid", "4711\n")
        program = (
            "import fcntl, sys; pid_file = open(sys.argv[1], 'r+'); fcntl.lockf(pid_file, fcntl.LOCK_EX); "
            "print('locked', flush=True); input()"
        )
        with subprocess.Popen(
            [sys.executable, "-c", program, os.path.join(self.path, "run", "seekdb.pid")],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        ) as holder:
            self.assertEqual(holder.stdout.readline(), "locked\n")
            self.assertEqual(self.directory.server_pid(), "4711")
            holder.communicate("\n")
        self.assertIsNone(self.directory.server_pid())


class SocketPathTests(DataDirectoryTestCase):
    def test_short(self) -> None:
        """A path of up to 107 bytes is used as it is."""
        length = LONGEST_SOCKET_PATH - len("/run/sql.sock") - len(self.base) - 1
        directory = DataDirectory(os.path.join(self.base, "d" * length))
        self.assertEqual(directory.socket_path(), directory.path + "/run/sql.sock")

    def test_long(self) -> None:
        """A path of 108 bytes goes through a descriptor, always the same one, that `release` closes."""
        length = LONGEST_SOCKET_PATH - len("/run/sql.sock") - len(self.base)
        directory = DataDirectory(os.path.join(self.base, "d" * length))
        directory.lock()
        path = directory.socket_path()
        self.assertEqual(directory.socket_path(), path)
        self.assertTrue(path.startswith("/proc/self/fd/"))
        self.assertTrue(os.path.samefile(os.path.dirname(path), directory.run))
        directory.release()
        self.assertFalse(os.path.exists(os.path.dirname(path)))

    def test_counts_bytes(self) -> None:
        """The limit is one of bytes, not of characters."""
        directory = DataDirectory(os.path.join(self.base, "ä" * 60))
        directory.lock()
        self.addCleanup(directory.release)
        self.assertTrue(directory.socket_path().startswith("/proc/self/fd/"))


class LastErrorsTests(DataDirectoryTestCase):
    def test_no_log(self) -> None:
        """A server that never wrote a log made no errors."""
        self.assertEqual(self.directory.log_size(), 0)
        self.assertEqual(self.directory.last_errors(0), ())

    def test_levels(self) -> None:
        """Only ERROR and EDIAG lines are shown, without their backtraces."""
        self.write(
            "log/seekdb.log",
            "[2026-01-01] INFO  [X] an ERROR in words\n"
            "[2026-01-01] EDIAG [X] first BACKTRACE:0x1 0x2\n"
            "[2026-01-01] WDIAG [X] no\n"
            "[2026-01-01] ERROR [X] second\n",
        )
        self.assertEqual(
            self.directory.last_errors(0), ("[2026-01-01] EDIAG [X] first", "[2026-01-01] ERROR [X] second")
        )

    def test_since(self) -> None:
        """Errors of an earlier start are not shown."""
        self.write("log/seekdb.log", "[1] ERROR old\n")
        size = self.directory.log_size()
        with open(self.directory.log_path, "a") as log:
            log.write("[2] ERROR new\n")
        self.assertEqual(self.directory.last_errors(size), ("[2] ERROR new",))

    def test_rotated(self) -> None:
        """A log that is shorter than it was has been rotated: all of it is new."""
        self.write("log/seekdb.log", "[2] ERROR new\n")
        self.assertEqual(self.directory.last_errors(1000), ("[2] ERROR new",))

    def test_limits(self) -> None:
        """At most five lines are shown, and of the file's end only, and long lines are cut."""
        self.write("log/seekdb.log", "[0] ERROR first\n" * 5 + "[1] INFO \n" * 10000 + "[2] ERROR last\n")
        self.assertEqual(self.directory.last_errors(0), ("[2] ERROR last",))
        self.write("log/seekdb.log", "".join(f"[{number}] ERROR {'x' * 1000}\n" for number in range(9)))
        lines = self.directory.last_errors(0)
        self.assertEqual([line[:3] for line in lines], ["[4]", "[5]", "[6]", "[7]", "[8]"])
        self.assertEqual({len(line) for line in lines}, {SHOWN_LINE_LENGTH})
