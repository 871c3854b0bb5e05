"""Tests of the grammar of KILL PROXYSESSION with a WHERE and with clauses."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from odptwist.errors import SqlError
from odptwist.snapshots import AfterTransaction, KillScope, KillTarget
from odptwist.statements import builtin_statements
from odptwist.statements.clauses import Clauses
from odptwist.statements.kill import KillRequest
from odptwist.statements.kill_where import KillWhere
from odptwist.statements.table import StatementTable

BAD = 5010
NO_CONDITION = 1064
HIDDEN = 1235
LONG = "x" * 200


def one(number: int | None, ss_id: int | None = None, **clauses: object) -> KillRequest:
    """Return the request to end one session or server session."""
    return KillRequest(KillTarget(number, ss_id), KillScope.CONNECTION, Clauses(**clauses))  # type: ignore[arg-type]


def where(text: str, **clauses: object) -> KillWhere:
    """Return the request to end those for which a condition is true."""
    return KillWhere(text, Clauses(**clauses))  # type: ignore[arg-type]


TEXTS: list[tuple[str, object]] = [
    # The condition goes to the first clause outside of brackets, strings, names and comments.
    ("KILL PROXYSESSION WHERE Id = 7", where("Id = 7")),
    ("kill proxysession where id = 7;", where("id = 7")),
    ("KILL PROXYSESSION WHERE(Id = 7)", where("(Id = 7)")),
    ("KILL PROXYSESSION WHERE (Id = 7) -- x", where("(Id = 7)")),
    ("KILL PROXYSESSION WHERE /* a */ Id /* b */ = 7 /* c */ ; # d", where("Id /* b */ = 7")),
    ("KILL PROXYSESSION WHERE Id = -7 - 1", where("Id = -7 - 1")),
    ("KILL PROXYSESSION WHERE User = 'x DRY RUN'", where("User = 'x DRY RUN'")),
    ('KILL PROXYSESSION WHERE User = "x; LIMIT 1" DRY RUN', where('User = "x; LIMIT 1"', dry_run=True)),
    ("KILL PROXYSESSION WHERE User = 'it\\'s' LIMIT 1", where("User = 'it\\'s'", limit=1)),
    ("KILL PROXYSESSION WHERE Id = 7 /* LIMIT 1 */ DRY RUN", where("Id = 7", dry_run=True)),
    ("KILL PROXYSESSION WHERE statement LIKE 'KILL%'", where("statement LIKE 'KILL%'")),
    ("KILL PROXYSESSION WHERE `User` = 'x'DRY RUN", where("`User` = 'x'", dry_run=True)),
    # Clauses, each alone, all in any order.
    ("KILL PROXYSESSION WHERE 1 DRY RUN", where("1", dry_run=True)),
    ("KILL PROXYSESSION WHERE 1 dry/**/run;", where("1", dry_run=True)),
    ("KILL PROXYSESSION WHERE 1 LIMIT 0", where("1", limit=0)),
    ("KILL PROXYSESSION WHERE 1 LIMIT 100000", where("1", limit=100_000)),
    ("KILL PROXYSESSION WHERE 1 AFTER TRANSACTION", where("1", after=AfterTransaction())),
    ("KILL PROXYSESSION WHERE 1 AFTER TRANSACTION 0 SECONDS", where("1", after=AfterTransaction(0.0))),
    ("KILL PROXYSESSION WHERE 1 AFTER TRANSACTION 604800 SECONDS", where("1", after=AfterTransaction(604_800.0))),
    ("KILL PROXYSESSION WHERE 1 REASON 'upgrade'", where("1", reason="upgrade")),
    ("KILL PROXYSESSION WHERE 1 REASON ''", where("1")),
    (f"KILL PROXYSESSION WHERE 1 REASON '{LONG}'", where("1", reason=LONG)),
    (
        "KILL PROXYSESSION WHERE Id > 7 DRY RUN LIMIT 5 AFTER TRANSACTION 9 SECONDS REASON 'x'",
        where("Id > 7", dry_run=True, limit=5, after=AfterTransaction(9.0), reason="x"),
    ),
    (
        "KILL PROXYSESSION WHERE Id > 7 REASON 'x' AFTER TRANSACTION LIMIT 5 DRY RUN;",
        where("Id > 7", dry_run=True, limit=5, after=AfterTransaction(), reason="x"),
    ),
    # By id.
    ("KILL PROXYSESSION 7 DRY RUN", one(7, dry_run=True)),
    ("KILL PROXYSESSION (7) DRY RUN", one(7, dry_run=True)),
    ("KILL PROXYSESSION '7' AFTER TRANSACTION", one(7, after=AfterTransaction())),
    ("KILL PROXYSESSION 7 AFTER TRANSACTION 30 SECONDS", one(7, after=AfterTransaction(30.0))),
    ("KILL PROXYSESSION 7 REASON '8'", one(7, reason="8")),
    ("KILL PROXYSESSION 7 16 REASON 'x'", one(7, 16, reason="x")),
    ("KILL PROXYSESSION CONNECTION_ID() DRY RUN", one(None, dry_run=True)),
    (
        "KILL PROXYSESSION 7 REASON 'x' DRY RUN AFTER TRANSACTION",
        one(7, dry_run=True, after=AfterTransaction(), reason="x"),
    ),
    # No condition, or a bad one.
    ("KILL PROXYSESSION WHERE", NO_CONDITION),
    ("KILL PROXYSESSION WHERE;", NO_CONDITION),
    ("KILL PROXYSESSION WHERE DRY RUN", NO_CONDITION),
    ("KILL PROXYSESSION WHERE LIMIT 1", NO_CONDITION),
    ("KILL PROXYSESSION WHERE Usr = 'x'", NO_CONDITION),
    ("KILL PROXYSESSION WHERE Id = 7 ORDER BY Id", NO_CONDITION),
    ("KILL PROXYSESSION WHERE Id = 7 8", NO_CONDITION),
    ("KILL PROXYSESSION WHERE (Id = 7 DRY RUN)", NO_CONDITION),
    ("KILL PROXYSESSION WHERE (Id = 7 DRY RUN", NO_CONDITION),
    ("KILL PROXYSESSION WHERE Id = 7) DRY RUN", NO_CONDITION),
    ("KILL PROXYSESSION (WHERE Id = 7)", NO_CONDITION),
    ("KILL PROXYSESSION WHERE User = 'x DRY RUN", NO_CONDITION),
    ("KILL PROXYSESSION WHERE Id = 7 /* DRY RUN", NO_CONDITION),
    ("KILL PROXYSESSION WHERE Id = 7 /*! DRY RUN */", NO_CONDITION),
    ("KILL PROXYSESSION WHERE Id = 7 WHERE Id = 8", NO_CONDITION),
    ("KILL PROXYSESSION WHERE Id = ?", NO_CONDITION),
    # Clauses that go wrong.
    ("KILL PROXYSESSION WHERE 1 DRY", BAD),
    ("KILL PROXYSESSION WHERE 1 DRY LIMIT 1", BAD),
    ("KILL PROXYSESSION WHERE 1 DRY RUN DRY RUN", BAD),
    ("KILL PROXYSESSION WHERE 1 DRY RUN 1", BAD),
    ("KILL PROXYSESSION WHERE 1 DRY RUN OR 1", BAD),
    ("KILL PROXYSESSION WHERE 1 DRY RUN WHERE 1", BAD),
    ("KILL PROXYSESSION WHERE 1 LIMIT", BAD),
    ("KILL PROXYSESSION WHERE 1 LIMIT -1", BAD),
    ("KILL PROXYSESSION WHERE 1 LIMIT - 1", BAD),
    ("KILL PROXYSESSION WHERE 1 LIMIT (1)", BAD),
    ("KILL PROXYSESSION WHERE 1 LIMIT 100001", BAD),
    ("KILL PROXYSESSION WHERE 1 LIMIT 1.5", BAD),
    ("KILL PROXYSESSION WHERE 1 LIMIT '1'", BAD),
    ("KILL PROXYSESSION WHERE 1 LIMIT 1, 2", BAD),
    ("KILL PROXYSESSION WHERE 1 LIMIT 1 LIMIT 1", BAD),
    ("KILL PROXYSESSION WHERE 1 LIMIT ALL", BAD),
    ("KILL PROXYSESSION WHERE 1 AFTER", BAD),
    ("KILL PROXYSESSION WHERE 1 AFTER 5 SECONDS", BAD),
    ("KILL PROXYSESSION WHERE 1 AFTER TRANSACTION 5", BAD),
    ("KILL PROXYSESSION WHERE 1 AFTER TRANSACTION SECONDS", BAD),
    ("KILL PROXYSESSION WHERE 1 AFTER TRANSACTION 5 MINUTES", BAD),
    ("KILL PROXYSESSION WHERE 1 AFTER TRANSACTION -1 SECONDS", BAD),
    ("KILL PROXYSESSION WHERE 1 AFTER TRANSACTION 1.5 SECONDS", BAD),
    ("KILL PROXYSESSION WHERE 1 AFTER TRANSACTION 604801 SECONDS", BAD),
    ("KILL PROXYSESSION WHERE 1 AFTER TRANSACTION AFTER TRANSACTION", BAD),
    ("KILL PROXYSESSION WHERE 1 REASON", BAD),
    ("KILL PROXYSESSION WHERE 1 REASON upgrade", BAD),
    ("KILL PROXYSESSION WHERE 1 REASON `upgrade`", BAD),
    ("KILL PROXYSESSION WHERE 1 REASON ('upgrade')", BAD),
    ("KILL PROXYSESSION WHERE 1 REASON = 'upgrade'", BAD),
    ("KILL PROXYSESSION WHERE 1 REASON 'a' 'b'", BAD),
    ("KILL PROXYSESSION WHERE 1 REASON 'a' REASON 'b'", BAD),
    ("KILL PROXYSESSION WHERE 1 REASON 'a", BAD),
    ("KILL PROXYSESSION WHERE 1 REASON 'a\nb'", BAD),
    ("KILL PROXYSESSION WHERE 1 REASON 'a\\nb'", BAD),
    ("KILL PROXYSESSION WHERE 1 REASON 'a\x1b[2Jb'", BAD),
    ("KILL PROXYSESSION WHERE 1 REASON 'a\u2028b'", BAD),
    ("KILL PROXYSESSION WHERE 1 REASON 'a\udcff'", BAD),
    (f"KILL PROXYSESSION WHERE 1 REASON '{LONG}x'", BAD),
    # What an id does not take.
    ("KILL PROXYSESSION DRY RUN", BAD),
    ("KILL PROXYSESSION REASON 'x'", BAD),
    ("KILL PROXYSESSION 7 LIMIT 1", BAD),
    ("KILL PROXYSESSION 7 WHERE Id = 7", BAD),
    ("KILL PROXYSESSION 7 DRY RUN 16", BAD),
    ("KILL PROXYSESSION 7 16 DRY RUN", BAD),
    ("KILL PROXYSESSION 7 16 AFTER TRANSACTION", BAD),
    ("KILL PROXYSESSION 7 16 17 REASON 'x'", BAD),
    # No clause and no WHERE elsewhere.
    ("KILL 7 DRY RUN", BAD),
    ("KILL 7 REASON 'x'", BAD),
    ("KILL 7 AFTER TRANSACTION", BAD),
    ("KILL CONNECTION 7 REASON 'x'", BAD),
    ("KILL QUERY 7 REASON 'x'", BAD),
    ("KILL QUERY 7 DRY RUN", BAD),
    ("KILL WHERE Id = 7", BAD),
    ("KILL CONNECTION WHERE Id = 7", BAD),
    ("KILL QUERY WHERE Id = 7", BAD),
    ("KILL PROXYSESSION QUERY WHERE Id = 7", BAD),
    # One statement only.
    ("KILL PROXYSESSION WHERE Id = 7; SELECT 1", HIDDEN),
    ("SELECT 1; KILL PROXYSESSION WHERE Id = 7", HIDDEN),
    ("PREPARE s FROM 'KILL PROXYSESSION WHERE 1'", HIDDEN),
]


class ClauseTests(SynchronousTestCase):
    def test_every_text_is_what_the_table_says(self) -> None:
        """Each text is one kill, or is refused with the right error."""
        table = StatementTable(builtin_statements())
        self.assertEqual(len({text for text, _ in TEXTS}), len(TEXTS))
        for text, expected in TEXTS:
            try:
                found = table.find(text)
            except SqlError as error:
                self.assertEqual(error.code, expected, text)
            else:
                self.assertEqual(found and found.request, expected, text)

    def test_a_reason_is_what_its_string_stands_for(self) -> None:
        """Quotes and escapes are read as MySQL reads them."""
        table = StatementTable(builtin_statements())
        for literal, reason in (
            ("'it''s'", "it's"),
            ('"it\'s ""late"" at 5 %"', 'it\'s "late" at 5 %'),
            (r"'a\'b\\c\%'", r"a'b\c\%"),
            ("'\u00e9 \U0001f600; DRY RUN'", "\u00e9 \U0001f600; DRY RUN"),
        ):
            found = table.find(f"KILL PROXYSESSION 7 REASON {literal}")
            self.assertEqual(found and found.request, one(7, reason=reason), literal)

    def test_a_fault_says_what_is_understood(self) -> None:
        """Error 5010 names the clause at fault, and then all that can be written."""
        table = StatementTable(builtin_statements())
        for text, fault in (
            ("WHERE 1 DRY", "DRY is followed by RUN"),
            ("WHERE 1 LIMIT x", "LIMIT is followed by an integer from 0 to 100000"),
            ("WHERE 1 AFTER x", "AFTER is followed by TRANSACTION"),
            ("WHERE 1 AFTER TRANSACTION 5", "nothing or by 0 to 604800 SECONDS"),
            ("WHERE 1 REASON x", "REASON is followed by a quoted text of one line and at most 200 characters"),
            ("WHERE 1 DRY RUN DRY RUN", "DRY can be given once only"),
            ("7 LIMIT 1", "LIMIT needs a WHERE"),
            ("7 16 DRY RUN", "DRY RUN and AFTER TRANSACTION are for whole sessions"),
            ("x", ""),
        ):
            error = self.assertRaises(SqlError, table.find, f"KILL PROXYSESSION {text}")
            self.assertEqual((error.code, error.sqlstate), (5010, "21000"), text)
            self.assertIn(fault, error.message)
            self.assertIn("KILL PROXYSESSION WHERE condition [DRY RUN] [LIMIT n]", error.message)
            self.assertLess(len(error.message), 512)  # MySQL's limit of an error text
