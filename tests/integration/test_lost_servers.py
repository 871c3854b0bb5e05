"""Server sessions and servers of a pair that are lost, and not by the proxy's doing: who notices what."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from threading import Event

import pymysql
import pytest
from pymysql.connections import Connection

from tests.integration.conftest import Connect
from tests.support.pair_proxy import connect_app, roles, served_by, server_session_at, server_sessions, wait_for_replica
from tests.support.pairs import Pair
from tests.support.servers import Background, Proxy, Server, wait_until
from tests.support.sessions import error_of, query, start_at

pytestmark = pytest.mark.slow

SERVER_LOST = 1158
INTERRUPTED = 1317
SESSION_KILLED = 5066
"""seekdb's."""
TOO_MANY_CONNECTIONS = 1040

STATE = ("SET @a = 5", "SET time_zone = '+03:00'")
ASKED = "SELECT @a, @@time_zone, DATABASE()"
ANSWERED = [(5, "+03:00", "shop")]

places = pytest.mark.parametrize("place", ["primary", "replica"])


@pytest.fixture(scope="module", autouse=True)
def table(pair: Pair[Server]) -> None:
    """Have the table `ten` on both servers."""
    with pair.primary.connect(database="shop") as root:
        query(
            root,
            "DROP TABLE IF EXISTS ten",
            "CREATE TABLE ten (n INT PRIMARY KEY)",
            "INSERT INTO ten VALUES (0), (1), (2), (3), (4), (5), (6), (7), (8), (9)",
        )
    pair.caught_up()


@pytest.fixture
def root(pair_proxy: Proxy, opened: list[Connection]) -> Connection:
    """Return a connection of root's through the proxy, to look at sessions."""
    opened.append(pair_proxy.connect())
    return opened[-1]


@pytest.fixture
def client(app: Connect, pair: Pair[Server]) -> Connection:
    """Return a client with a server session on each server; the last statement ran on the replica."""
    made = app()
    query(made, *STATE, ASKED)
    assert served_by(made, pair) == "replica"
    return made


def kill_on(server: Server, root: Connection, client: Connection) -> None:
    """Kill a client's server session as the server's own administrator does; skip the test where he cannot."""
    if server.name == "seekdb" and server.address == roles(root)["replica"]:
        pytest.skip("a standby of seekdb's refuses KILL")
    number = server_session_at(root, server, client.thread_id())["server_sessid"]
    with server.connect() as direct:
        query(direct, f"KILL {number}")


# -- a server session ------------------------------------------------------------------------------------------------


@places
def test_idle_session_killed(place: str, pair: Pair[Server], root: Connection, client: Connection) -> None:
    """Who loses an idle server session to the server's administrator notices nothing."""
    server = getattr(pair, place)
    kill_on(server, root, client)
    assert query(client, ASKED) == ANSWERED
    assert query(client, "SELECT @a, CONNECTION_ID() > 0") == [(5, 1)]
    wait_until(lambda: len(server_sessions(root, client.thread_id())) == 2)


@places
def test_idle_transaction_killed(place: str, pair: Pair[Server], root: Connection, client: Connection) -> None:
    """In a transaction the session at rest may go; with the transaction's own the next statement tells the loss."""
    query(client, "BEGIN", "DELETE FROM ten WHERE n = 9")
    kill_on(getattr(pair, place), root, client)
    if place == "primary":
        wait_until(lambda: len(server_sessions(root, client.thread_id())) == 1, what="the proxy's notice")
        code, text = error_of(client, "SELECT n FROM ten WHERE n = 9")
        assert code == SERVER_LOST
        assert pair.primary.address in text
        assert "transaction, which was rolled back" in text
        assert query(client, "SELECT COUNT(*) FROM ten") == [(10,)]
    else:
        assert query(client, "SELECT COUNT(*) FROM ten") == [(9,)]
    query(client, "ROLLBACK")
    assert query(client, ASKED) == ANSWERED


@places
def test_running_statement_killed(place: str, pair: Pair[Server], root: Connection, client: Connection) -> None:
    """A read that was not begun to be answered runs once more on the primary; or the server has told its own error."""
    hint = "/*+ READ_CONSISTENCY(STRONG) */ " if place == "primary" else ""
    running = start_at(getattr(pair, place), client, f"SELECT {hint}SLEEP(1), 4711")
    kill_on(getattr(pair, place), root, client)
    try:
        assert running.result() == [(0, 4711)]
        assert served_by(client, pair) == "primary"
    except pymysql.MySQLError as error:
        assert error.args[0] == SESSION_KILLED  # noqa: PT017 - any other is a failure
        assert pair.name == "seekdb_pair"
    assert query(client, ASKED) == ANSWERED


@pytest.mark.parametrize("pair", ["mariadb_pair"], indirect=True)
def test_running_write_killed(pair: Pair[Server], root: Connection, client: Connection) -> None:
    """A write is never run again: nobody can know if it was done."""
    running = start_at(pair.primary, client, "UPDATE ten SET n = n + SLEEP(60) WHERE n = 3")
    kill_on(pair.primary, root, client)
    assert running.error()[0] in (SERVER_LOST, INTERRUPTED)
    assert query(client, ASKED) == ANSWERED
    assert query(client, "SELECT COUNT(*) FROM ten") == [(10,)]


# -- the replica -----------------------------------------------------------------------------------------------------


def read_on(client: Connection, end: Event, places: set[str], pair: Pair[Server]) -> int:
    """Read until the end, look where, and return how often."""
    turns = 0
    while not end.is_set():
        number = turns % 10
        assert query(client, f"SELECT n FROM ten WHERE n = {number}") == [(number,)]
        if turns % 20 == 0:
            places.add(served_by(client, pair))
        turns += 1
        time.sleep(0.002)
    return turns


def test_replica_dies_under_reads(pair: Pair[Server], root: Connection, app: Connect) -> None:
    """Sessions that read see no error and nothing wrong when the replica dies, and use it when it is back."""
    end, places = Event(), set[str]()
    readers = [Background(read_on, app(), end, places, pair) for _ in range(4)]
    try:
        wait_until(lambda: "replica" in places, what="reads on the replica")
        pair.kill(pair.replica)
        wait_until(lambda: "replica" not in roles(root), what="the proxy's notice")
        places.clear()
        wait_until(lambda: places, what="more reads")
        time.sleep(0.1)
        assert places == {"primary"}
        pair.start(pair.replica)
        wait_until(lambda: "replica" in places, what="reads on the new replica")
    finally:
        end.set()
    assert all(reader.result() > 20 for reader in readers)


def test_replica_that_is_silent(
    pair: Pair[Server], root: Connection, app: Connect, pair_proxy: Proxy, figure: Callable[[str], None]
) -> None:
    """A replica that takes connections and says nothing: what needs it waits, and all else goes on.

    A statement that runs there waits for its server, as it would without a proxy, or for somebody who ends that server
    session. To open a session there costs the connect timeout. As soon as the health check has failed, reads are the
    primary's. Times are printed, for they depend on the machine.
    """
    running, idle, fresh = app(), app(), app()
    query(running, *STATE, ASKED)
    query(idle, *STATE, ASKED)
    waiting = start_at(pair.replica, running, "SELECT SLEEP(3), 4711")
    killed = app()
    query(killed, *STATE)
    to_kill = start_at(pair.replica, killed, "SELECT SLEEP(3), 4712")
    pair.pause(pair.replica)
    try:
        began = time.monotonic()
        opening = Background(query, fresh, "SELECT 4713")
        wait_until(lambda: "replica" not in roles(root), what="the end of the health check's patience")
        figure(f"counted as down after {time.monotonic() - began:.1f} s")
        assert query(idle, ASKED) == ANSWERED
        assert served_by(idle, pair) == "primary"
        with connect_app(pair_proxy) as new:
            assert query(new, "SELECT n FROM ten WHERE n = 1") == [(1,)]
            assert served_by(new, pair) == "primary"
        # OK means done, and this is not: the server has not stopped the statement.
        session = server_session_at(root, pair.replica, killed.thread_id())
        query(root, f"KILL PROXYSESSION {killed.thread_id()} {session['ss_id']}")
        assert "did not answer the kill" in query(root, "SHOW WARNINGS")[0][2]
        assert to_kill.error()[0] == INTERRUPTED
        assert query(killed, ASKED) == ANSWERED
        assert opening.result() == [(4713,)]
        figure(f"who had to connect there before had another server after {time.monotonic() - began:.1f} s")
        assert waiting.running
    finally:
        pair.resume(pair.replica)
    assert waiting.result() == [(0, 4711)]
    assert query(running, ASKED) == ANSWERED
    wait_for_replica(idle, pair)


@contextmanager
def full(server: Server) -> Iterator[None]:
    """Let a MariaDB take no further connection; what it has stays."""
    with server.connect() as root, ExitStack() as stack:
        ((limit,),) = query(root, "SELECT @@max_connections")
        query(root, "SET GLOBAL max_connections = 10")
        try:
            # One more than the limit is for administrators, and `root` may be that one.
            for user in ("plain", "root"):
                while True:
                    try:
                        stack.enter_context(server.connect(user))
                    except pymysql.err.OperationalError as refused:
                        assert refused.args[0] == TOO_MANY_CONNECTIONS  # noqa: PT017 - any other is a failure
                        break
            yield
        finally:
            query(root, f"SET GLOBAL max_connections = {limit}")


@pytest.mark.parametrize("pair", ["mariadb_pair"], indirect=True)
def test_too_many_connections(pair: Pair[Server], pair_proxy: Proxy, app: Connect) -> None:
    """A server without room costs its place: another one is used; where none has room, one error says so."""
    client: Connection = app()
    query(client, *STATE)
    with full(pair.replica):
        assert query(client, ASKED) == ANSWERED
        assert served_by(client, pair) == "primary"
        with full(pair.primary):
            with pytest.raises(pymysql.err.OperationalError, match="Too many connections") as refused:
                connect_app(pair_proxy)
            assert refused.value.args[0] == TOO_MANY_CONNECTIONS
            # Who is in stays in.
            assert query(client, ASKED) == ANSWERED
        with connect_app(pair_proxy) as new:
            assert query(new, "SELECT n FROM ten WHERE n = 1") == [(1,)]
    wait_for_replica(client, pair)
    assert query(client, ASKED) == ANSWERED
