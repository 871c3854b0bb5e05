"""A WHERE over sessions, evaluated by SQLite in memory.

Source: SQLite's documentation, "SQL Language Expressions" and "Datatypes" (column affinity).

What differs from MySQL: text compares by bytes (`User = 'App'` is not `'app'`; add COLLATE NOCASE), LIKE ignores the
case of ASCII letters only, a number is never equal to a text that does not spell it, GLOB exists and REGEXP does not.
`proxy_sessid` compares as text: exactly in `=`, `<>` and IN, while its order means nothing.

How the text is read is the business of `translation`, what it can do that of `sandbox`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from time import monotonic
from typing import TypeVar

from zope.interface import implementer

from odptwist.interfaces import ICondition
from odptwist.statements.sandbox import COLUMNS, TIME_LIMIT, Sandbox, bind
from odptwist.statements.translation import too_slow, translate
from odptwist.views import SessionView

Session = TypeVar("Session", bound=SessionView)

COLUMN_NAMES = tuple(COLUMNS)
"""What a condition can name, in any case: the columns of SHOW FULL PROXYSESSION."""


@implementer(ICondition)
class Condition:
    """One boolean expression over the columns of `proxysession`.

    It holds some 35 KiB until `close`. `select` of one session takes 2 to 6
    microseconds for a simple expression: only the columns that the expression names are looked at.

    Args:
        text: the expression.
        time_limit: seconds that one `select` may take, or what one `selecting` returns with all its sessions.

    Raises:
        SqlError: 1064, the text is not such an expression; 3024 as `select` does.
    """

    def __init__(self, text: str, time_limit: float = TIME_LIMIT) -> None:
        self.text = text
        self._time_limit = time_limit
        expression = translate(text)
        self._sandbox = Sandbox(time_limit)
        try:
            self._compile(expression)
        except BaseException:
            self.close()
            raise

    def select(self, sessions: Sequence[Session]) -> list[Session]:
        """Return those sessions, in their order, for which the expression is true (not false, not NULL).

        Not after `close`.

        Raises:
            SqlError: 3024 if it takes too long; 1064 if SQLite cannot evaluate the expression (an integer overflow).
        """
        return list(filter(self.selecting(), sessions))

    def selecting(self) -> Callable[[SessionView], bool]:
        """Return a `holds` for many sessions, between which other things may happen: all share one time limit."""
        left = self._time_limit

        def holds(session: SessionView) -> bool:
            nonlocal left
            began = self._sandbox.restart(left)
            try:
                return self._holds(session)
            finally:
                left -= monotonic() - began

        return holds

    def holds(self, session: SessionView) -> bool:
        """Say whether the expression is true of one session; raises as `select` does."""
        return self.selecting()(session)

    def close(self) -> None:
        """Give back the memory. Harmless if done before."""
        self._sandbox.close()

    def _holds(self, session: SessionView) -> bool:
        if self._sandbox.is_late():
            raise too_slow()
        return self._sandbox.run(self._statement, [bind(look(session)) for look in self._looks]).fetchone() is not None

    def _compile(self, expression: str) -> None:
        """Check an expression against a table without rows, and make a statement that returns a row if it is true.

        The statement takes the values as parameters, which is five times faster than putting a row into the table and
        out again.
        """
        # The WHERE, not the result, so that aggregate functions are errors.
        columns, _ = self._sandbox.check(f"SELECT 1 FROM proxysession WHERE ({expression})")  # noqa: S608 - translated
        # CAST gives each parameter the affinity of its column: Id = '7' compares numbers here, too.
        values = (f"CAST(?{number} AS {each.affinity}) AS {each.name}" for number, each in enumerate(columns, 1))
        source = f"SELECT {', '.join(values) or 'NULL'}"
        self._statement = f"SELECT 1 FROM ({source}) AS proxysession WHERE ({expression})"  # noqa: S608 - translated
        self._looks = tuple(each.look for each in columns)
        self._sandbox.trust()
