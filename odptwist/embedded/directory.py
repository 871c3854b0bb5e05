"""What the embedded server and its proxy share on disk: the data directory, its locks, its socket and its log.

Files, below the data directory:

* `odptwist.lock`: flock LOCK_EX, held by the proxy that uses the directory; its text is the holder's pid.
* `run/seekdb.clients`: flock LOCK_SH, held by whoever wants the server to live. `seekdb --embedded` waits for LOCK_EX
  on it and exits when it gets it, so the server ends with its owner even when that one is killed by SIGKILL.
* `run/seekdb.pid`: POSIX lock, held by the running server; its text is the server's pid.
* `run/sql.sock`: the server's listener.
* `log/seekdb.log`: the only place where the server says why it failed.
"""

from __future__ import annotations

import fcntl
import os
import re

from odptwist.errors import EmbeddedError

LONGEST_SOCKET_PATH = 107
"""Bytes in a Unix socket's path: sun_path has 108 with the NUL at its end (unix(7))."""

LOG_TAIL_SIZE = 64 * 1024
SHOWN_LOG_LINES = 5
SHOWN_LINE_LENGTH = 300

_BAD_LOG_LINE = re.compile(r"^\[[^\]]*\] (?:ERROR|EDIAG) .*$", re.MULTILINE)


class DataDirectory:
    """A data directory and the locks that this process holds on it.

    All methods return at once; none waits for a lock.

    Args:
        path: made absolute; created, for its owner only, by the first `lock` or `check`.
    """

    def __init__(self, path: str) -> None:
        self.path = os.path.abspath(path)
        self.run = os.path.join(self.path, "run")
        self.log_path = os.path.join(self.path, "log", "seekdb.log")
        self._lock: int | None = None
        self._life: int | None = None
        self._run: int | None = None

    def lock(self) -> None:
        """Claim the directory for this proxy; does nothing if it is claimed already.

        Raises:
            EmbeddedError: another proxy uses the directory, or it cannot be created or written.
        """
        if self._lock is not None:
            return
        try:
            os.makedirs(self.path, mode=0o700, exist_ok=True)
            os.makedirs(self.run, exist_ok=True)
            lock = os.open(os.path.join(self.path, "odptwist.lock"), os.O_RDWR | os.O_CREAT, 0o600)
        except (FileExistsError, NotADirectoryError) as error:
            raise EmbeddedError(f"data directory {self.path}: {error.filename} is not a directory") from error
        except OSError as error:
            raise EmbeddedError(f"data directory {self.path} cannot be written: {error.strerror}") from error
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.ftruncate(lock, 0)
            os.pwrite(lock, b"%d\n" % os.getpid(), 0)
        except BlockingIOError as error:
            holder = os.pread(lock, 20, 0).decode("ascii", "replace").strip() or "unknown"
            os.close(lock)
            raise EmbeddedError(
                f"data directory {self.path} is in use by another odptwist (pid {holder}); "
                "stop that one or give this one a data directory of its own"
            ) from error
        except OSError as error:
            os.close(lock)
            raise EmbeddedError(f"data directory {self.path} cannot be locked: {error.strerror}") from error
        self._lock = lock

    def release(self) -> None:
        """Give up every lock; a server that still runs ends then."""
        self.let_server_end()
        for descriptor in (self._run, self._lock):
            if descriptor is not None:
                os.close(descriptor)
        self._run = self._lock = None

    def check(self) -> None:
        """Find out whether `lock` would succeed, without keeping the directory; for use before daemonizing.

        Raises:
            EmbeddedError: as `lock`.
        """
        if self._lock is None:
            self.lock()
            self.release()

    def let_server_live(self) -> bool:
        """Take the lock that keeps a server alive; False if a server that is ending bars it just now.

        It must be held before a server is started. The descriptor is close-on-exec (as all of Python's): a child that
        inherited it would keep itself alive.
        """
        if self._life is None:
            life = os.open(os.path.join(self.run, "seekdb.clients"), os.O_RDWR | os.O_CREAT, 0o644)
            try:
                fcntl.flock(life, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                os.close(life)
                return False
            self._life = life
        return True

    def let_server_end(self) -> None:
        """Give up the lock that keeps the server alive; it ends within about 0.05 s."""
        if self._life is not None:
            os.close(self._life)
            self._life = None

    def server_pid(self) -> str | None:
        """Return the pid of the server that runs in this directory, whoever started it, or None."""
        try:
            pid_file = os.open(os.path.join(self.run, "seekdb.pid"), os.O_RDWR)
        except FileNotFoundError:
            return None
        try:
            fcntl.lockf(pid_file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return os.pread(pid_file, 20, 0).decode("ascii", "replace").strip() or "unknown"
        finally:
            os.close(pid_file)
        return None

    def socket_path(self) -> str:
        """Return a path of the server's socket that is short enough to connect to.

        For a deep directory it goes through a descriptor that stays open until `release`; such a path is good in this
        process only.
        """
        path = os.path.join(self.run, "sql.sock")
        if len(os.fsencode(path)) <= LONGEST_SOCKET_PATH:
            return path
        if self._run is None:
            self._run = os.open(self.run, os.O_PATH | os.O_DIRECTORY)
        return f"/proc/self/fd/{self._run}/sql.sock"

    def log_size(self) -> int:
        """Return the log's size in bytes, to be given to `last_errors` later."""
        try:
            return os.path.getsize(self.log_path)
        except OSError:
            return 0

    def last_errors(self, since: int) -> tuple[str, ...]:
        """Return the last ERROR and EDIAG lines of the log, shortened, oldest first.

        Args:
            since: the log's size when the server was started; what is older is not its fault.
        """
        size = self.log_size()
        if size < since:  # It was rotated.
            since = 0
        try:
            with open(self.log_path, "rb") as log:
                log.seek(max(since, size - LOG_TAIL_SIZE))
                tail = log.read(LOG_TAIL_SIZE).decode("utf-8", "replace")
        except OSError:
            return ()
        lines: list[str] = _BAD_LOG_LINE.findall(tail)
        return tuple(line.split(" BACKTRACE:")[0][:SHOWN_LINE_LENGTH] for line in lines[-SHOWN_LOG_LINES:])
