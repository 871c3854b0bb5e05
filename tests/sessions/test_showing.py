"""Tests of what a client session shows of itself."""

from __future__ import annotations

from collections.abc import Iterator

from twisted.trial.unittest import SynchronousTestCase

from odptwist.answers import Value
from odptwist.sessions.client import ClientSession
from odptwist.statements.columns import SESSION_COLUMNS, SqlValue
from odptwist.views import SessionView
from odptwist.wire import constants as c
from tests.support.house import IN_TRANSACTION, House

# All but the server session itself, of which one has a picture, too.
PROPERTIES = [name for name, member in vars(SessionView).items() if isinstance(member, property) and name != "bound"]


def sessions() -> Iterator[tuple[str, ClientSession]]:
    """Yield sessions in all kinds of states."""
    house = House()
    client = house.connect()
    session: ClientSession = client.wire.protocol
    yield "has connected", session
    client, server = house.log_in("app")
    session = client.wire.protocol
    house.reactor.advance(3)
    yield "has logged in", session
    client.query(b"BEGIN")
    house.reactor.advance(2)
    yield "is busy", session
    server.ok(IN_TRANSACTION)
    house.reactor.advance(4)
    yield "is in a transaction", session
    client.query(b"SELECT GET_LOCK('a', 1)")
    server.row()
    session.mark_for_end("killed", None)
    yield "is being killed", session
    client, server = house.log_in()
    server.wire.lose()
    house.turn()
    yield "has lost its server session", client.wire.protocol
    client.command(c.COM_QUIT)
    yield "has ended", client.wire.protocol


def values(view: SessionView) -> list[tuple[str, SqlValue, Value]]:
    """Return what all columns have of a session."""
    return [(each.name, each.look(view), each.show(view)) for each in SESSION_COLUMNS]


class ViewTests(SynchronousTestCase):
    def test_a_view_and_a_snapshot_say_the_same(self) -> None:
        """Each property and column of a live session is that of a snapshot, whatever the session does."""
        for what, session in sessions():
            view, snapshot = session.view(), session.snapshot()
            for name in PROPERTIES:
                self.assertEqual(getattr(view, name), getattr(snapshot, name), f"{name} of one that {what}")
            self.assertEqual(values(view), values(snapshot), what)

    def test_the_states_differ(self) -> None:
        """What the test above compares is not always the same."""
        activities = [session.view().activity for _, session in sessions()]
        self.assertEqual(set(activities), {"logging in", "idle", "busy", "in transaction", "being killed"})

    def test_times(self) -> None:
        """A transaction's time includes its pauses, a statement's does not."""
        found = {what: session.view() for what, session in sessions()}
        seconds = {what: (view.seconds, view.transaction_seconds) for what, view in found.items()}
        self.assertEqual(seconds["has logged in"], (3, 0))
        self.assertEqual(seconds["is busy"], (2, 0))
        self.assertEqual(seconds["is in a transaction"], (4, 6))
