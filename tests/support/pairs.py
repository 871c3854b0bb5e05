"""Pairs of real servers: the primary takes writes, the replica follows it. Tests of a proxy switch, kill and stop them.

Both servers of a pair have the database `shop` and the same accounts: `root` (no password, everything; MariaDB's
`read_only` does not bind it), `app` (`APP_PASSWORD`) and `plain` (no password) with all rights on `shop` and no
others, and `odp_monitor` (`MONITOR_PASSWORD`) with what a health check reads. The database `pair` and its account
`heart` are this module's own.
"""

from __future__ import annotations

import shutil
import signal
import time
import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Generic, TypeVar

import pymysql
import pytest
from pymysql.connections import Connection

from tests.support.servers import (
    PATIENCE,
    Background,
    MariaDb,
    Server,
    TcpServer,
    free_port,
    seekdb_arguments,
    wait_until,
)
from tests.support.sessions import query

S = TypeVar("S", bound=Server)

APP_PASSWORD = "app-secret"
MONITOR_PASSWORD = "monitor-secret"

_INSTALLING = 120.0
"""Seconds that mariadb-install-db may take."""

_ATTEMPTS = 5
"""How often a new standby of seekdb's is started: 1 of 25 hangs after step 11 of the 14 that its log counts."""

_WRONG_STATE = 4109
"""OB_STATE_NOT_MATCH: seekdb's standby is seldom not ready for the role that the primary has left."""

_SCHEMA_VERSION = "SELECT refreshed_schema_version FROM oceanbase.__all_virtual_server_schema_info"


class Pair(ABC, Generic[S]):
    """Two real servers, of which one follows the other.

    Args:
        directory: returns an empty directory at each call; `close` removes it. For MariaDB its path must leave room
            for a Unix socket's, 108 bytes in all.

    Attributes:
        name: the fixture's.
        primary: takes writes.
        replica: follows, and refuses writes.
        refusal: the code of the error that a write on the replica ends with.
    """

    name = ""
    refusal = 0
    primary: S
    replica: S

    def __init__(self, directory: Callable[[], Path]) -> None:
        self._directory = directory
        self._build()

    @abstractmethod
    def _make(self) -> tuple[S, S]:
        """Return two servers that have not been started."""

    @abstractmethod
    def _join(self) -> None:
        """Start both servers, and make one follow the other."""

    @abstractmethod
    def _hand_over(self, old: S, new: S) -> None:
        """Let `new` take the writes and `old` follow it."""

    @abstractmethod
    def _monitor_grants(self) -> Sequence[str]:
        """Return the statements that give `odp_monitor` its rights."""

    @abstractmethod
    def caught_up(self, seconds: float = PATIENCE) -> None:
        """Wait until the replica has all that the primary has now; fail the test if that takes too long."""

    def _build(self) -> None:
        self.primary, self.replica = self._make()
        # Their sessions' numbers shall differ, too. A primary of seekdb's takes numbers itself: 15 for each DDL.
        self.replica.numbers_apart = 5 * self.primary.numbers_apart
        try:
            self._join()
            with self.primary.connect() as root:
                query(
                    root,
                    "CREATE DATABASE pair",
                    "CREATE TABLE pair.heartbeat (id INT PRIMARY KEY, beat BIGINT)",
                    "CREATE USER heart",
                    "GRANT ALL ON pair.* TO heart",
                    "CREATE DATABASE shop",
                    f"CREATE USER app IDENTIFIED BY '{APP_PASSWORD}'",
                    "CREATE USER plain",
                    f"CREATE USER odp_monitor IDENTIFIED BY '{MONITOR_PASSWORD}'",
                    "GRANT ALL ON shop.* TO app",
                    "GRANT ALL ON shop.* TO plain",
                    *self._monitor_grants(),
                )
            self.caught_up()
        except BaseException:
            self.close()
            raise

    def _beat(self, server: S) -> int:
        """Write a number on `server` that is greater than all before, and return it."""
        beat = time.time_ns()
        with server.connect("heart") as connection:
            query(connection, f"REPLACE INTO pair.heartbeat VALUES (1, {beat})")
        return beat

    def switch_over(self) -> None:
        """Let the replica take the writes and the primary follow it; swap `primary` and `replica` and return then.

        Clients may go on meanwhile. Nothing that was committed is lost, and for a moment neither server takes writes.
        """
        old, new = self.primary, self.replica
        self._hand_over(old, new)
        self.primary, self.replica = new, old
        self.caught_up()

    def kill(self, server: S) -> None:
        """End a server by SIGKILL."""
        server.stop(signal.SIGKILL)

    def start(self, server: S) -> None:
        """Bring a dead server back in the role that it had; if the other one is alive, wait until they are equal.

        A proxy can reach it a moment before its sessions have the numbers that `numbers_apart` promises.
        """
        server.start()
        if self.primary.runs and self.replica.runs:
            self.caught_up()

    def pause(self, server: S) -> None:
        """Stop a server by SIGSTOP: the kernel still takes connections, but nobody answers."""
        self._send(server, signal.SIGSTOP)

    def resume(self, server: S) -> None:
        """Let a paused server go on; nothing happens to another."""
        self._send(server, signal.SIGCONT)

    def _send(self, server: S, number: int) -> None:
        if server.child is not None:
            server.child.send(number)

    def restore(self) -> None:
        """Bring back what is paused or dead, and see that each does what its role is; if not, build a new pair.

        The roles stay as they are, as do settings that a test has changed and what it has stored. A new pair has new
        addresses.
        """
        try:
            for server in (self.primary, self.replica):
                self.resume(server)
                if not server.runs:
                    self.start(server)
            self._beat(self.primary)
            self.caught_up()
            with pytest.raises(pymysql.MySQLError, match=str(self.refusal)):
                self._beat(self.replica)
        except (pytest.fail.Exception, pymysql.MySQLError, OSError) as error:
            warnings.warn(f"the {self.name} could not be restored and is built anew: {error}", stacklevel=2)
            self.close()
            self._build()

    def close(self) -> None:
        """End both servers, and remove their directories."""
        for server in (self.primary, self.replica):
            self.kill(server)
            shutil.rmtree(server.base, ignore_errors=True)


class MariaDbMember(MariaDb):
    """A MariaDB that can be either server of a pair.

    Args:
        base: an empty directory.
        number: its server-id.

    Attributes:
        read_only: how it starts; the server itself forgets it.
    """

    def __init__(self, base: Path, number: int) -> None:
        # What came from the primary must be in the replica's own log too: after a switch the other one reads it there.
        logs = ("log-bin=log", "log-slave-updates=1", "gtid-strict-mode=1", "sync-binlog=1")
        super().__init__(base, f"server-id={number}", *logs)
        self.read_only = False

    def _arguments(self) -> list[str]:
        return [*super()._arguments(), f"--read-only={int(self.read_only)}"]


class MariaDbPair(Pair[MariaDbMember]):
    """Two MariaDB servers, joined by GTIDs."""

    name = "mariadb_pair"
    refusal = 1290

    def _make(self) -> tuple[MariaDbMember, MariaDbMember]:
        one, other = (Background(MariaDbMember, self._directory(), number) for number in (1, 2))
        return one.result(_INSTALLING), other.result(_INSTALLING)

    def _join(self) -> None:
        self.replica.read_only = True
        self.primary.start()
        self.replica.start()
        with self.primary.connect() as root:
            query(
                root,
                "CREATE USER repl@'127.0.0.1' IDENTIFIED BY 'repl'",
                "GRANT REPLICATION SLAVE ON *.* TO repl@'127.0.0.1'",
            )
        self._follow(self.replica, self.primary)

    def _follow(self, follower: MariaDbMember, source: MariaDbMember) -> None:
        with follower.connect() as root:
            query(
                root,
                # A former primary goes on after what it wrote itself.
                "SET GLOBAL gtid_slave_pos = @@gtid_binlog_pos",
                f"CHANGE MASTER TO master_host = '127.0.0.1', master_port = {source.port}, master_user = 'repl',"
                " master_password = 'repl', master_use_gtid = slave_pos, master_connect_retry = 1",
                "START SLAVE",
            )

    def _monitor_grants(self) -> Sequence[str]:
        return (
            "GRANT REPLICATION CLIENT, SLAVE MONITOR ON *.* TO odp_monitor",
            "GRANT SELECT ON mysql.* TO odp_monitor",
        )

    def caught_up(self, seconds: float = PATIENCE) -> None:
        """Wait until the replica has all that the primary has now; fail the test if that takes too long."""
        with self.primary.connect() as at_primary, self.replica.connect() as at_replica:
            ((position,),) = query(at_primary, "SELECT @@gtid_binlog_pos")
            if query(at_replica, f"SELECT MASTER_GTID_WAIT('{position}', {seconds})") != [(0,)]:
                with at_replica.cursor(pymysql.cursors.DictCursor) as cursor:
                    cursor.execute("SHOW SLAVE STATUS")
                    pytest.fail(f"the replica has not come to {position} in {seconds:g} s: {cursor.fetchall()}")

    def _hand_over(self, old: MariaDbMember, new: MariaDbMember) -> None:
        with old.connect() as at_old, new.connect() as at_new:
            # It waits for commits under way; a transaction that is open then is refused when it commits.
            query(at_old, "SET GLOBAL read_only = 1")
            old.read_only = True
            self.caught_up()
            query(at_new, "STOP SLAVE", "RESET SLAVE ALL", "SET GLOBAL read_only = 0")
            new.read_only = False
        self._follow(old, new)


class SeekdbMember(TcpServer):
    """An OceanBase kernel that can be either server of a pair.

    It listens on all addresses of the machine, for SQL and for the other server's rpc: it has no parameter for
    another, and a standby cannot use the Unix socket alone.

    Attributes:
        rpc_port: where the other one fetches the log.
        source: the other's `rpc_port`.
        role: of its first start; then it remembers it itself.
    """

    name = "seekdb"

    def __init__(self, base: Path, rpc_port: int, source: int, role: str) -> None:
        super().__init__(base)
        self.rpc_port = rpc_port
        self.source = source
        self.role = role

    def _arguments(self) -> list[str]:
        # Both servers get the same parameters: so each can become the other at any time. open_cursors keeps its
        # default, 50: tests meet the limit of prepared statements.
        parameters = (
            *("memory_budget=1G", "log_disk_size=2G", "enable_rpc_service=true"),
            *(f"rpc_port={self.rpc_port}", f"log_restore_source=127.0.0.1:{self.source}"),
        )
        role = [] if (self.base / "store").exists() else ["--role", self.role]
        return [*seekdb_arguments(self.base, *parameters), "--log-level", "WARN", f"--port={self.port}", *role]

    def wipe(self) -> None:
        """End it, and make it forget everything."""
        self.stop(signal.SIGKILL)
        shutil.rmtree(self.base)
        self.base.mkdir()


class SeekdbPair(Pair[SeekdbMember]):
    """A primary and a standby of OceanBase kernels."""

    name = "seekdb_pair"
    refusal = 4688

    def _make(self) -> tuple[SeekdbMember, SeekdbMember]:
        one, other = free_port(), free_port()
        return (
            SeekdbMember(self._directory(), one, other, "PRIMARY"),
            SeekdbMember(self._directory(), other, one, "STANDBY"),
        )

    def _join(self) -> None:
        self.primary.start()
        self._freeze(self.primary)
        self._start_standby(self.replica, self.primary)

    def start(self, server: SeekdbMember) -> None:
        """Bring a dead server back, as `Pair.start` does."""
        if server is self.replica and self.primary.runs:
            self._start_standby(server, self.primary)
            self.caught_up()
        else:
            super().start(server)

    def _freeze(self, primary: SeekdbMember) -> None:
        """Make a checkpoint: a standby that comes before the first one ends with OB_EAGAIN or OB_TIMEOUT."""
        with primary.connect() as root:
            query(root, "ALTER SYSTEM MINOR FREEZE")
            checkpoint = "SELECT checkpoint_scn FROM oceanbase.__all_virtual_ls_info"
            wait_until(lambda: query(root, checkpoint)[0][0] > 1, 60, "the primary's first checkpoint")

    def _start_standby(self, standby: SeekdbMember, primary: SeekdbMember) -> None:
        """Start a standby; one that cannot go on from what it has begins anew.

        Seen: it hangs at its first start, once in some forty; and soon after that it does not survive its own end, but
        fails with error 4109 at every later start.
        """
        for left in reversed(range(_ATTEMPTS)):
            try:
                standby.start()
                break
            except pytest.fail.Exception:
                if not left:
                    raise
                standby.wipe()
                standby.role = "STANDBY"
                self._freeze(primary)

    def _monitor_grants(self) -> Sequence[str]:
        # SHOW and KILL need none.
        return "GRANT SELECT ON mysql.* TO odp_monitor", "GRANT SELECT ON oceanbase.* TO odp_monitor"

    def caught_up(self, seconds: float = PATIENCE) -> None:
        """Wait until the replica has all that the primary has now; fail the test if that takes too long."""
        with self.primary.connect() as at_primary, self.replica.connect() as at_replica:
            beat = self._beat(self.primary)
            ((version,),) = query(at_primary, _SCHEMA_VERSION)

            def has_all() -> bool:
                # A standby knows new tables and users some 0.5 s after their rows.
                ((known,),) = query(at_replica, _SCHEMA_VERSION)
                return (
                    known >= version and query(at_replica, f"SELECT 1 FROM pair.heartbeat WHERE beat >= {beat}") != []
                )

            wait_until(has_all, seconds, f"beat {beat} at the standby")

    def _hand_over(self, old: SeekdbMember, new: SeekdbMember) -> None:
        self.caught_up()
        with old.connect() as at_old, new.connect() as at_new:
            query(at_old, "ALTER SYSTEM SWITCHOVER TO STANDBY")
            wait_until(lambda: self._take_over(at_new), what="the standby's new role")
        # Only a restart makes it follow; clients lose their connections.
        old.stop()
        self._start_standby(old, new)

    def _take_over(self, connection: Connection) -> bool:
        try:
            query(connection, "ALTER SYSTEM SWITCHOVER TO PRIMARY")
        except pymysql.MySQLError as error:
            if error.args[0] != _WRONG_STATE:
                raise
            return False
        return True
