"""What the WHERE of a rule has to do with time."""

from __future__ import annotations

from attrs import evolve
from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from odptwist.errors import SqlError
from odptwist.statements.rule_timing import check_condition, read_timing
from odptwist.statements.where import Condition
from odptwist.timing import Timing
from tests.support.directory import make_client_session


class ReadTimingTests(SynchronousTestCase):
    def test_constants(self) -> None:
        """The numbers that the times are compared with are found, on either side, in any spelling of the name."""
        for text, timing in (
            ("User = 'app'", Timing()),
            ("seconds > 5", Timing((5.0,), (), 5.0)),
            ("SECONDS>=5.5 AND Id = 3", Timing((5.5,), (), 5.5)),
            ("5<`Seconds`", Timing((5.0,), (), 5.0)),
            ("seconds < 5", Timing((5.0,))),
            ("statement_seconds > 5 OR idle_seconds > 600", Timing((5.0, 600.0))),
            ("idle_seconds > 600 AND seconds > 5", Timing((5.0, 600.0), (), 600.0)),
            ("5 >= seconds && seconds > 2", Timing((2.0, 5.0), (), 2.0)),
            ("NOT seconds <= 5", Timing((5.0,))),
            ("seconds > 5 OR seconds > 2", Timing((2.0, 5.0))),
            ("seconds > 5 AND (Id = 3 OR transaction_seconds > 9)", Timing((5.0,), (9.0,), 5.0)),
            ("(seconds > 5 AND Id = 3)", Timing((5.0,))),
            ("transaction_seconds > 60 AND activity = 'in transaction'", Timing((), (60.0,), 0.0, 60.0)),
            ("Id BETWEEN 3 AND seconds > 5", Timing((5.0,))),
            ("statement = 'seconds > 5' /* seconds > 7 */", Timing()),
            ("seconds > +5 AND transaction_seconds > 7 AND seconds > 3", Timing((3.0, 5.0), (7.0,), 5.0, 7.0)),
        ):
            self.assertEqual(read_timing(text), timing, text)

    def test_what_would_change_at_other_times(self) -> None:
        """A time that is used otherwise is refused, because nobody knows when to look."""
        for text in (
            "seconds = 5",
            "seconds <> 5",
            "seconds <=> 5",
            "seconds BETWEEN 2 AND 5",
            "seconds IN (1, 2)",
            "seconds",
            "seconds > transaction_seconds",
            "seconds > 10 * 60",
            "60 * 10 < seconds",
            "60 -10 < seconds",
            "seconds > 60 -10",
            "seconds + 1 > 5",
            "-seconds < 5",
            "round(seconds) > 5",
            "(seconds) > 5",
            "seconds > '5'",
            "seconds > 0x10",
            "seconds > 5 > 0",
            "1 = seconds > 5",
            "proxysession.seconds > 5",
            "Id BETWEEN 3 AND seconds = 5",
        ):
            with self.assertRaises(SqlError) as caught:
                read_timing(text)
            self.assertEqual(caught.exception.code, 1064)
            self.assertIn("has to be compared by <, <=, > or >= with a number alone", caught.exception.message)

    def test_check(self) -> None:
        """A condition of a rule has to be one for SQLite, too."""
        check_condition("seconds > 5")
        for text in ("seconds >", "sconds > 5", "seconds = 5", "(SELECT 1)"):
            self.assertRaises(SqlError, check_condition, text)

    @given(
        st.recursive(
            st.builds(
                "{} {} {}".format,
                st.sampled_from(["seconds", "statement_seconds", "idle_seconds", "transaction_seconds"]),
                st.sampled_from(["<", "<=", ">", ">="]),
                st.sampled_from(["1", "2", "3.5"]),
            )
            | st.sampled_from(["Id = 7", "Id > 9", "db IS NULL", "activity = 'busy'"]),
            lambda inner: (
                st.builds("{} {} {}".format, inner, st.sampled_from(["AND", "OR", "AND NOT", "&&"]), inner)
                | inner.map("({})".format)
                | inner.map("NOT {}".format)
            ),
            max_leaves=6,
        ),
        st.floats(0, 5),
        st.floats(0, 5),
        st.booleans(),
    )
    def test_between_constants_nothing_changes(
        self, text: str, seconds: float, transaction_seconds: float, busy: bool
    ) -> None:
        """A condition is the same everywhere between two constants, and false where it is said to be impossible."""
        timing = read_timing(text)
        condition = Condition(text)
        self.addCleanup(condition.close)

        def holds(seconds: float, transaction_seconds: float) -> bool:
            session = evolve(make_client_session(busy=busy), seconds=seconds, transaction_seconds=transaction_seconds)
            return condition.holds(session)

        now = holds(seconds, transaction_seconds)
        if not timing.is_possible(seconds, transaction_seconds):
            self.assertFalse(now)
        ahead = 0.999 * min(timing.wait(seconds, transaction_seconds), 9.0)  # 0 if one is at a constant
        self.assertEqual(holds(seconds + ahead, transaction_seconds + ahead), now)
