"""Tests of SHOW PROXYSESSION HISTORY."""

from __future__ import annotations

from attrs import evolve
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from odptwist.answers import Table
from odptwist.errors import CloseReason, SqlError
from odptwist.interfaces import IProxyStatement, ITabular
from odptwist.snapshots import Address, Asker, EndedSession, SessionKind
from odptwist.statements.history import HISTORY_COLUMNS, HistoryList, ShowHistory
from tests.support.directory import ROOT, FakeDirectory

ASKER = Asker(7, ROOT)
KILLED = EndedSession(
    ended_at=1_700_000_000.25,
    kind=SessionKind.CLIENT,
    cs_id=7,
    ss_id=3,
    seconds=12.3456,
    identity=ROOT,
    host="127.0.0.1",
    port=23706,
    server=Address("10.0.0.1", 2881),
    server_sessid=4711,
    reason=CloseReason.KILLED,
    detail="killed by client session 5 (root@sys#ob1): too long",
    statement="SELECT SLEEP(60)",
    bytes_in=100,
    bytes_out=2000,
    statements=4,
    transaction_lost=True,
)
SERVER = evolve(KILLED, kind=SessionKind.SERVER, reason=CloseReason.CLIENT_SESSION_ENDED, detail="")
STRANGER = evolve(
    KILLED,
    cs_id=9,
    ss_id=0,
    identity=None,
    host="",
    server=None,
    server_sessid=0,
    reason=CloseReason.LOGIN_TIMEOUT,
    detail="",
    statement="",
    transaction_lost=False,
)

TEXTS: list[tuple[str, HistoryList | int | None]] = [
    ("SHOW PROXYSESSION HISTORY", HistoryList()),
    ("show proxysession history ;", HistoryList()),
    ("SHOW PROXYSESSION /* x */ HISTORY 7", HistoryList(7)),
    ("SHOW PROXYSESSION HISTORY -1", HistoryList(-1)),
    ("SHOW PROXYSESSION HISTORY LIKE 'kill%'", HistoryList(None, "kill%")),
    ("SHOW PROXYSESSION HISTORY (7) LIKE killed", HistoryList(7, "killed")),
    ("SHOW PROXYSESSION HISTORY LIKE ''", HistoryList()),
    ("SHOW PROXYSESSION HISTORY LIKE", 5010),
    ("SHOW PROXYSESSION HISTORY LIKE 7", 5010),
    ("SHOW PROXYSESSION HISTORY LIKE 'x' 7", 5010),
    ("SHOW PROXYSESSION HISTORY 'x'", 5010),
    ("SHOW PROXYSESSION HISTORY 7 8", 5010),
    ("SHOW PROXYSESSION HISTORY WHERE 1", 5010),
    ("SHOW PROXYSESSION", None),
    ("SHOW PROXYSESSION HISTORIES", None),
    ("SHOW FULL PROXYSESSION HISTORY", None),
]


class ShowHistoryTests(SynchronousTestCase):
    def rows(self, text: str) -> list[dict[str, object]]:
        """Return the rows of the answer to a text, by column."""
        statement = ShowHistory()
        directory = FakeDirectory(ended=(KILLED, SERVER, STRANGER))
        table = self.successResultOf(statement.answer(statement.parse(text), ASKER, directory))
        assert isinstance(table, Table)
        self.assertEqual(table.columns, HISTORY_COLUMNS)
        return [dict(zip((each.name for each in table.columns), row, strict=True)) for row in table.rows]

    def test_every_text_is_read_as_the_table_says(self) -> None:
        """A text is a request, is refused, or is another statement."""
        for text, expected in TEXTS:
            try:
                self.assertEqual(ShowHistory().parse(text), expected, text)
            except SqlError as error:
                self.assertEqual(error.code, expected, text)

    def test_what_is_told_of_a_session(self) -> None:
        """All that is known, with an ISO time and the words of the close reason."""
        self.assertEqual(
            self.rows("SHOW PROXYSESSION HISTORY")[0],
            {
                "ended_at": "2023-11-14 22:13:20.250+00:00",
                "kind": "client",
                "cs_id": 7,
                "ss_id": 3,
                "seconds": "12.346",
                "Cluster": "ob1",
                "Tenant": "sys",
                "User": "root",
                "Host": "127.0.0.1:23706",
                "server": "10.0.0.1:2881",
                "server_sessid": 4711,
                "reason": "killed",
                "detail": "killed by client session 5 (root@sys#ob1): too long",
                "transaction_lost": 1,
                "bytes_in": 100,
                "bytes_out": 2000,
                "statements": 4,
                "statement": "SELECT SLEEP(60)",
            },
        )

    def test_a_session_that_never_told_who_it_is(self) -> None:
        """It has empty names and no server."""
        row = self.rows("SHOW PROXYSESSION HISTORY 9")[0]
        for name in ("Cluster", "Tenant", "User", "server"):
            self.assertEqual(row[name], "")
        self.assertEqual(row["Host"], "localhost")

    def test_an_id_and_a_pattern_choose(self) -> None:
        """An id is a cs_id or a connection id; the pattern is for the reason."""
        for text, kinds in (
            ("SHOW PROXYSESSION HISTORY", ["client", "server", "client"]),
            ("SHOW PROXYSESSION HISTORY 7", ["client", "server"]),
            ("SHOW PROXYSESSION HISTORY -1", ["client", "server"]),
            ("SHOW PROXYSESSION HISTORY 4711", ["client", "server"]),
            ("SHOW PROXYSESSION HISTORY 4711 LIKE 'kill%'", ["client"]),
            ("SHOW PROXYSESSION HISTORY LIKE '%session_ended'", ["server"]),
            ("SHOW PROXYSESSION HISTORY LIKE 'KILLED'", []),
            ("SHOW PROXYSESSION HISTORY 5", []),
        ):
            self.assertEqual([row["kind"] for row in self.rows(text)], kinds, text)

    def test_it_provides_its_interfaces(self) -> None:
        """Clients that prepare it know its columns before the answer."""
        statement = ShowHistory()
        self.assertTrue(verifyObject(IProxyStatement, statement) and verifyObject(ITabular, statement))
        self.assertEqual(statement.columns(HistoryList()), HISTORY_COLUMNS)
