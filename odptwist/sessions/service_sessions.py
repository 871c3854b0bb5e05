"""The proxy's own sessions at servers, logged in as the service account: one per server, kept between questions.

A login for each question would cost the server more than the question, and one that is interrupted counts against this
host (`max_connect_errors` of MySQL and MariaDB).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, NoReturn, TypeVar

from twisted.internet.defer import Deferred, DeferredList, DeferredLock

from odptwist.errors import CloseReason, LoginRefused, OdpError, ServerUnreachable
from odptwist.identity import DEFAULT_TENANT, Identity
from odptwist.sessions.dialogue import LoginPlan
from odptwist.sessions.opening import account_plan, open_side_session
from odptwist.sessions.server import ServerSession
from odptwist.sessions.surroundings import Account, Surroundings
from odptwist.snapshots import Address
from odptwist.wire.responses import parse_err

T = TypeVar("T")


class ServiceSessions:
    """Opens a session at a server when somebody has a question to it, and keeps it for the next one.

    Dialogues with one server follow each other. A dialogue that fails takes its session along, since nobody knows what
    the server would say next.

    Attributes:
        timeout: seconds for a dialogue in all: waiting for its turn, connecting, logging in, asking.
    """

    def __init__(self, surroundings: Surroundings, account: Account, timeout: float) -> None:
        self.timeout = timeout
        self._surroundings = surroundings
        like = Identity(account.user, DEFAULT_TENANT, surroundings.clusters.default_name)
        self._plan = account_plan(account, like)
        self._lines: dict[Address, _Line] = {}
        self._dialogues: set[Deferred[Any]] = set()

    def ask(self, address: Address, dialogue: Callable[[ServerSession], Awaitable[T]]) -> Deferred[T]:
        """Fire with what a dialogue with a server returns.

        Fails with what the dialogue raises, and as `open_side_session` does; with `ServerUnreachable` after the
        timeout. May be cancelled. Not to be called after `stop`.
        """
        line = self._lines.setdefault(address, _Line(self._surroundings, self._plan, address))
        asking: Deferred[T] = Deferred.fromCoroutine(line.hold(dialogue))
        self._dialogues.add(asking)
        asking.addTimeout(self.timeout, self._surroundings.reactor, _give_up)

        def ended(result: Any) -> Any:
            self._dialogues.discard(asking)
            return result

        return asking.addBoth(ended)

    def stop(self) -> Deferred[None]:
        """Break off all dialogues and leave all servers; fires when the kept sessions are gone."""
        return Deferred.fromCoroutine(self._stop())

    async def _stop(self) -> None:
        for dialogue in tuple(self._dialogues):
            dialogue.cancel()
        sessions = [line.session for line in self._lines.values() if line.session is not None]
        for session in sessions:
            session.quit()
        await DeferredList([session.when_gone() for session in sessions])


class _Line:
    """The way to one server: a session, or none, and the dialogue whose turn it is."""

    def __init__(self, surroundings: Surroundings, plan: LoginPlan, address: Address) -> None:
        self._surroundings = surroundings
        self._plan = plan
        self._address = address
        self._turn = DeferredLock()
        self.session: ServerSession | None = None

    async def hold(self, dialogue: Callable[[ServerSession], Awaitable[T]]) -> T:
        async with self._turn:
            if self.session is None or self.session.reason is not None:
                self.session = None
                self.session = await open_side_session(self._surroundings, self._plan, self._address)
            try:
                return await dialogue(self.session)
            except BaseException:
                self.session.drop(CloseReason.SERVER_LOST, "a dialogue with it failed")
                raise


def explain(fault: OdpError) -> str:
    """Return what went wrong, for the log; a server's refusal in its own words."""
    if not isinstance(fault, LoginRefused):
        return str(fault)
    err = parse_err(fault.payload)
    return f"{err.message} ({err.code})"


def _give_up(_: object, seconds: float) -> NoReturn:
    raise ServerUnreachable(f"no answer within {seconds:g} s")
