"""A client session that rules watch. Where there are none, sessions are plain ones, and pay nothing."""

from __future__ import annotations

from odptwist.sessions.client import ClientSession, Keeper
from odptwist.sessions.dialogue import LoginPlan
from odptwist.sessions.listener import Listener
from odptwist.sessions.opening import Opened
from odptwist.sessions.rules import Rules, Watch
from odptwist.sessions.surroundings import Surroundings


class RuledSession(ClientSession):
    """Tells rules what it does.

    Attributes:
        watch: what they remember of it.
    """

    __slots__ = (
        "_rules",
        "watch",
    )

    def __init__(
        self, cs_id: int, surroundings: Surroundings, keeper: Keeper, listener: Listener, rules: Rules
    ) -> None:
        super().__init__(cs_id, surroundings, keeper, listener)
        self.watch = Watch()
        self._rules = rules

    def logged_in(self, plan: LoginPlan, opened: Opened, response: bytes, rest: bytes) -> None:
        """Go over to commands."""
        super().logged_in(plan, opened, response, rest)
        self._rules.statement_ended(self)

    def _note(self, statement: bytes) -> None:
        super()._note(statement)
        if self.statement_running:  # not a statement of the proxy's own
            self._rules.statement_started(self)

    def finished(self, error: int) -> None:
        """Remember that the statement has ended, and tell who wants to know."""
        super().finished(error)
        self._rules.statement_ended(self)

    def closing(self) -> None:
        """End all that belongs to this session but its own transport."""
        self._rules.session_ended(self)
        super().closing()
