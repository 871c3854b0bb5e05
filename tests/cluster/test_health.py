"""What the answers to a health check mean."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from odptwist.cluster.health import examine
from odptwist.errors import ServerUnreachable
from odptwist.snapshots import Role, ServerFinding
from tests.support.results import error, read, table, value

SEEKDB = "5.7.25-OceanBase seekdb-v1.4.0.0"
MARIADB = "10.11.19-MariaDB-0+deb12u1-log"
NO_CHANNEL = table(["Slave_IO_State"])


def slave(io: bytes = b"Yes", sql: bytes = b"Yes", lag: bytes | None = b"0") -> tuple[bytes | None, ...]:
    """Return a row for `CHANNELS`."""
    return (b"waiting", io, sql, b"Slave has read all", lag)


CHANNELS = (
    "Slave_IO_State",
    "Slave_IO_Running",
    "Slave_SQL_Running",
    "Slave_SQL_Running_State",
    "Seconds_Behind_Master",
)


class ExamineTests(SynchronousTestCase):
    def examine(self, *dialogue: tuple[str, bytes], version: str = "") -> ServerFinding:
        """Return what is found if the questions are these, in this order, and get these answers."""
        examination = examine(version)
        question = next(examination)
        for expected, answer in dialogue:
            self.assertEqual(question, expected)
            try:
                question = examination.send(read(answer))
            except StopIteration as end:
                self.assertEqual((expected, answer), dialogue[-1])
                finding: ServerFinding = end.value
                return finding
        self.fail(f"one more question: {question}")

    def maria(self, read_only: bytes, status: bytes, version: str = MARIADB) -> ServerFinding:
        """Return what is found of a server of this version, which was asked for."""
        return self.examine(
            ("SELECT VERSION()", value(version.encode())),
            ("SELECT @@global.read_only", value(read_only)),
            ("SHOW SLAVE STATUS", status),
        )

    def test_seekdb(self) -> None:
        """OceanBase's kernel says by the error of a kill of nobody what it is; another answer says nothing."""
        cases = [(1094, Role.PRIMARY), (4688, Role.REPLICA), (4012, Role.UNKNOWN)]
        for code, role in cases:
            finding = self.examine(("SELECT VERSION()", value(SEEKDB.encode())), ("KILL QUERY 0", error(code)))
            self.assertEqual(finding, ServerFinding(role, SEEKDB))
        finding = self.examine(("KILL QUERY 0", value(b"1")), version=SEEKDB)
        self.assertEqual(finding.role, Role.UNKNOWN)

    def test_the_version_is_asked_for_once(self) -> None:
        """Over a connection that has told it, the version is not asked for."""
        finding = self.examine(("KILL QUERY 0", error(1094)), version=SEEKDB)
        self.assertEqual(finding, ServerFinding(Role.PRIMARY, SEEKDB))

    def test_primary(self) -> None:
        """Who takes writes and follows nobody is a primary, also with a channel that was stopped."""
        for status in (NO_CHANNEL, table(CHANNELS, slave(b"No", b"No", None))):
            self.assertEqual(self.maria(b"0", status), ServerFinding(Role.PRIMARY, MARIADB))
        self.assertEqual(self.maria(b"OFF", NO_CHANNEL).role, Role.PRIMARY)

    def test_read_only(self) -> None:
        """Who takes no writes is a replica, whether it follows somebody or not."""
        for word in (b"1", b"ON"):
            self.assertEqual(self.maria(word, NO_CHANNEL), ServerFinding(Role.REPLICA, MARIADB))
        self.assertEqual(self.maria(b"1", table(CHANNELS, slave(lag=b"7"))), ServerFinding(Role.REPLICA, MARIADB, 7.0))

    def test_a_writable_follower(self) -> None:
        """Who follows a primary with either thread is a replica, also while that primary is away."""
        for io, sql in ((b"Yes", b"Yes"), (b"Connecting", b"No"), (b"Preparing", b"No"), (b"No", b"Yes")):
            self.assertEqual(self.maria(b"0", table(CHANNELS, slave(io, sql))).role, Role.REPLICA)

    def test_the_status_may_be_refused(self) -> None:
        """An account without the privilege for it learns from read_only alone."""
        self.assertEqual(self.maria(b"0", error(1227)), ServerFinding(Role.PRIMARY, MARIADB))
        self.assertEqual(self.maria(b"1", error(1227)), ServerFinding(Role.REPLICA, MARIADB))

    def test_lag(self) -> None:
        """The channel that is farthest behind counts; one that does not know makes the lag unknown."""
        rows = [((b"0",), 0.0), ((b"3", b"12"), 12.0), ((b"3", None), None), ((None,), None), ((b"x",), None)]
        for lags, expected in rows:
            status = table(CHANNELS, *(slave(lag=lag) for lag in lags))
            self.assertEqual(self.maria(b"1", status).lag, expected)

    def test_mysql(self) -> None:
        """MySQL since 8.0.22 has other words for the same."""
        status = table(("Replica_IO_Running", "Replica_SQL_Running", "Seconds_Behind_Source"), (b"Yes", b"Yes", b"2"))
        for version, question in (
            ("5.7.44-log", "SHOW SLAVE STATUS"),
            ("8.0.21", "SHOW SLAVE STATUS"),
            ("8.0.22", "SHOW REPLICA STATUS"),
            ("8.4.3", "SHOW REPLICA STATUS"),
            ("11.4.2-MariaDB", "SHOW SLAVE STATUS"),
            ("MyProxy", "SHOW SLAVE STATUS"),
        ):
            finding = self.examine(("SELECT @@global.read_only", value(b"0")), (question, status), version=version)
            self.assertEqual(finding, ServerFinding(Role.REPLICA, version, 2.0))

    def test_a_server_that_answers_nothing_useful(self) -> None:
        """An answer without a row leaves the role open."""
        empty = table(["x"])
        finding = self.examine(
            ("SELECT VERSION()", empty), ("SELECT @@global.read_only", empty), ("SHOW SLAVE STATUS", NO_CHANNEL)
        )
        self.assertEqual(finding, ServerFinding())

    def test_a_refused_question(self) -> None:
        """A server that refuses what anybody may ask cannot work; the fault names question and error."""
        for asked, version in (("SELECT VERSION()", ""), ("SELECT @@global.read_only", MARIADB)):
            examination = examine(version)
            self.assertEqual(next(examination), asked)
            with self.assertRaises(ServerUnreachable) as caught:
                examination.send(read(error(1053, "Server shutdown in progress")))
            self.assertEqual(str(caught.exception), f"{asked} is answered by error 1053: Server shutdown in progress")
