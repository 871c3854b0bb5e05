"""Who may see and kill whom, before a MariaDB with its real privileges (design/kill.md, "Who may")."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from pymysql.connections import Connection

from tests.integration.conftest import Connect
from tests.support.raw_client import Err, RawClient
from tests.support.servers import Proxy, Server
from tests.support.sessions import attributes, connection_id, error_of, is_gone, query, sessions, start_statement

GRANTS = {
    "plain_a": "USAGE",
    "plain_b": "USAGE",
    "sees": "PROCESS",
    "kills": "CONNECTION ADMIN",
    "both": "PROCESS, CONNECTION ADMIN",
}


@pytest.fixture(scope="module")
def server(mariadb: Server) -> Iterator[Server]:
    """Return MariaDB with an account for each role; seekdb checks no privileges."""
    with mariadb.connect() as root:
        for name, right in GRANTS.items():
            query(root, f"CREATE USER '{name}'@'%'", f"GRANT {right} ON *.* TO '{name}'@'%'")
        yield mariadb
        for name in GRANTS:
            query(root, f"DROP USER '{name}'@'%'")


KILLS = ("KILL {}", "KILL PROXYSESSION {}", "KILL CONNECTION {}", "KILL QUERY {}", "KILL PROXYSESSION {} 1")


def test_without_rights(connect: Connect) -> None:
    """A plain user neither sees nor hurts another user's session: all ways answer 1094, word for word as for nobody."""
    asker, victim = connect("plain_a"), connect("plain_b")
    assert list(sessions(asker)) == [asker.thread_id()]
    for number in victim.thread_id(), connection_id(victim):
        unknown = (1094, f"Unknown thread id: {number}")
        for statement in (*KILLS, "SHOW PROXYSESSION ATTRIBUTE {}"):
            assert error_of(asker, statement.format(number)) == unknown, statement
    assert query(victim, "SELECT 1") == [(1,)]


def test_own_sessions(connect: Connect) -> None:
    """A plain user sees and kills the sessions of the same user."""
    asker, victim = connect("plain_a"), connect("plain_a")
    assert list(sessions(asker)) == [asker.thread_id(), victim.thread_id()]
    query(asker, f"KILL {victim.thread_id()}")
    assert is_gone(victim)


def test_process(connect: Connect) -> None:
    """PROCESS lets a user see all sessions, but kill none of another user: 1095."""
    asker, victim = connect("sees"), connect("plain_b")
    assert set(sessions(asker)) == {asker.thread_id(), victim.thread_id()}
    assert attributes(asker, victim.thread_id())["user"] == "plain_b"
    for statement in KILLS:
        assert error_of(asker, statement.format(victim.thread_id())) == (
            1095,
            f"You are not owner of thread {victim.thread_id()}",
        ), statement
    assert query(victim, "SELECT 1") == [(1,)]


@pytest.mark.parametrize("name", ["kills", "both", "root"])
@pytest.mark.parametrize("busy", [False, True], ids=["idle", "running"])
def test_connection_admin(name: str, busy: bool, connect: Connect, server: Server, direct: Connection) -> None:
    """CONNECTION ADMIN lets a user see and kill all sessions, running ones too."""
    asker, victim = connect(name), connect("plain_b")
    assert set(sessions(asker)) == {asker.thread_id(), victim.thread_id()}
    number = connection_id(victim)
    if busy:
        running = start_statement(victim, "SELECT SLEEP(60)", server, direct)
    with asker.cursor() as cursor:
        cursor.execute(f"KILL {victim.thread_id()}")
        assert not cursor.warning_count
    assert server.processes(direct).get(number, ("Killed", ""))[0] in ("Sleep", "Killed")
    if busy:
        assert running.error(2)[0] == 1317
    assert is_gone(victim)


def test_logging_in(connect: Connect, proxy: Proxy) -> None:
    """Only who may kill in all of the cluster sees and kills a session that has not told who it is."""
    with RawClient(proxy.port) as victim:
        number = victim.read_greeting().thread_id
        assert error_of(connect("plain_a"), f"KILL {number}") == (1094, f"Unknown thread id: {number}")
        assert error_of(connect("sees"), f"KILL {number}") == (1095, f"You are not owner of thread {number}")
        query(connect("kills"), f"KILL {number}")
        assert victim.is_closed()


def test_foreign_tenant(proxy: Proxy) -> None:
    """A tenant that the settings do not name is refused at the login with 1045, whoever comes with it."""
    for user in "root@other#ob1", "root@SYS#ob1", "plain_a@mysql", "ob1:other:root":
        with RawClient(proxy.port) as client:
            refusal = client.login(user)
            assert isinstance(refusal, Err)
            assert refusal.code == 1045, refusal
            assert client.is_closed()


def test_unknown_cluster(proxy: Proxy) -> None:
    """A cluster that the proxy does not have is 4669, as ODP answers."""
    for user in "root@sys#ob2", "root#nowhere", "ob2:sys:root":
        with RawClient(proxy.port) as client:
            refusal = client.login(user)
            assert isinstance(refusal, Err)
            assert (refusal.code, refusal.message) == (4669, "cluster not exist")
            assert client.is_closed()


@pytest.mark.parametrize("spelling", ["root", "root@sys", "root#ob1", "root@sys#ob1", "ob1:sys:root", "ob1-sys-root"])
def test_spellings(spelling: str, proxy: Proxy) -> None:
    """All of ODP's spellings of a user name lead to the same account."""
    with proxy.connect(spelling, tenant="") as client:
        [row] = sessions(client).values()
        assert (row["Cluster"], row["Tenant"], row["User"]) == ("ob1", "sys", "root")
        assert query(client, "SELECT CURRENT_USER()")[0][0].startswith("root@")
