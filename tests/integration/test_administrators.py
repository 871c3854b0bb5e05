"""The administrators of the proxy and the users of a MariaDB: who logs in, sees and kills what."""

from __future__ import annotations

import hashlib
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pymysql
import pytest
from pymysql.connections import Connection

from tests.integration.conftest import Connect
from tests.support.servers import Proxy, Server
from tests.support.sessions import connection_id, error_of, is_gone, query, sessions, start_statement

SECRET = "hunter2"
USERS = {"a": "USAGE", "b": "USAGE", "sees": "PROCESS", "kills": "SUPER", "admin": "CONNECTION ADMIN", "role": "USAGE"}
SETTINGS = f"""
[admin]
password_sha1 = "{hashlib.sha1(SECRET.encode()).hexdigest()}"
inspector_password_sha1 = "*{hashlib.sha1(hashlib.sha1(SECRET.encode()).digest()).hexdigest().upper()}"

[[role]]
user = "role"
privileges = ["PROCESS"]
"""


@pytest.fixture(scope="module")
def server(mariadb: Server) -> Iterator[Server]:
    """Return MariaDB with an account for each role."""
    with mariadb.connect() as root:
        for name, right in USERS.items():
            query(root, f"CREATE USER '{name}'@'%'", f"GRANT {right} ON *.* TO '{name}'@'%'")
        yield mariadb
        for name in USERS:
            query(root, f"DROP USER '{name}'@'%'")


@pytest.fixture(scope="module")
def proxy(server: Server, directory: Callable[[], Path]) -> Iterator[Proxy]:
    """Return a proxy with administrators before `server`."""
    base = directory()
    (base / "odp.toml").write_text(SETTINGS)
    running = Proxy(base, "--config", "odp.toml", "--server", server.address, "--cluster-name", "ob1")
    yield running
    running.stop()


def administrator(connect: Connect, user: str = "root", **more: object) -> Connection:
    """Return a connection of an account of the proxy's."""
    return connect(user, "@proxysys", password=SECRET, **more)


def test_refusals(connect: Connect) -> None:
    """A wrong password, none at all and an unknown account are 1045."""
    for user, password, used in (("root", "wrong", "YES"), ("root", "", "NO"), ("x", SECRET, "YES")):
        with pytest.raises(pymysql.OperationalError) as caught:
            connect(user, "@proxysys", password=password)
        text = f"Access denied for user '{user}'@'127.0.0.1' (using password: {used})"
        assert caught.value.args == (1045, text)


def test_without_a_password(server: Server, start_proxy: Callable[..., Proxy]) -> None:
    """A proxy whose settings name no password has no administrators."""
    plain = start_proxy("--server", server.address, "--cluster-name", "ob1")
    for password in ("", SECRET):
        with pytest.raises(pymysql.OperationalError) as caught:
            plain.connect("root", "@proxysys", password=password)
        assert caught.value.args[0] == 1045


def test_no_server_is_touched(connect: Connect, server: Server, direct: Connection) -> None:
    """Administrators have no server session, and drivers may set up what they like."""
    before = set(server.processes(direct))
    asker = administrator(connect, autocommit=False, init_command="SET @a = 1", database="x")
    asker.ping(reconnect=False)
    asker.select_db("y")
    asker.begin()
    asker.commit()
    assert query(asker, "SELECT @@version_comment LIMIT 1", "SELECT 1") == [(1,)]
    assert query(asker, "SELECT CONNECTION_ID()") == [(asker.thread_id(),)]
    row = sessions(asker)[asker.thread_id()]
    assert (row["Tenant"], row["User"], row["Cluster"]) == ("proxysys", "root", "ob1")
    assert (row["proxy_sessid"], row["svr_session_count"]) == (0, 0)
    assert error_of(asker, "SELECT * FROM mysql.user")[0] == 5010
    assert set(server.processes(direct)) <= before  # one of a test before may have left meanwhile


def test_the_program(proxy: Proxy, mariadb_client: str) -> None:
    """The mariadb program logs in, shows and leaves; also with the prompt and status questions that it asks."""
    arguments = [mariadb_client, "--no-defaults", "-h127.0.0.1", f"-P{proxy.port}", "-uroot@proxysys", f"-p{SECRET}"]
    statements = "PING PROXY; SHOW PROXYSESSION; SELECT PROXY_VERSION(); status; SHOW PROXYCLUSTER; SHOW PROXYCONFIG;"
    done = subprocess.run([*arguments, "-t"], input=statements, capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == 0, done.stderr
    assert "proxysys" in done.stdout
    assert "******" in done.stdout
    assert SECRET not in done.stdout


def test_inspector(connect: Connect) -> None:
    """The inspector sees everybody, and ends nobody."""
    asker, victim = administrator(connect, "inspector"), connect("a")
    assert victim.thread_id() in sessions(asker)
    assert query(asker, "PING PROXY") == []
    for statement in ("KILL {}", "KILL QUERY {}", "KILL PROXYSESSION {}"):
        assert error_of(asker, statement.format(victim.thread_id()))[0] == 5010
    with pytest.raises(pymysql.MySQLError) as caught:
        asker.kill(victim.thread_id())
    assert caught.value.args[0] == 5010
    assert query(victim, "SELECT 1") == [(1,)]


@pytest.mark.parametrize("statement", ["KILL {}", "KILL QUERY {}"])
def test_running_statement(statement: str, connect: Connect, server: Server, direct: Connection) -> None:
    """root@proxysys stops a running statement on the server, by the victim's account, and has no warning."""
    asker, victim = administrator(connect), connect("a")
    number = connection_id(victim)
    running = start_statement(victim, "SELECT SLEEP(60)", server, direct)
    with asker.cursor() as cursor:
        cursor.execute(statement.format(victim.thread_id()))
        assert not cursor.warning_count
    assert running.error(2)[0] == 1317
    assert server.processes(direct).get(number, ("Killed", ""))[0] in ("Sleep", "Killed")
    assert is_gone(victim) is (statement == "KILL {}")


def test_who_sees_and_kills_whom(connect: Connect, figure: Callable[[str], None]) -> None:
    """Each asker sees and kills what its privileges say; the table is printed."""
    askers = {
        "a": lambda: connect("a"),
        "b": lambda: connect("b"),
        "sees (PROCESS)": lambda: connect("sees"),
        "kills (SUPER)": lambda: connect("kills"),
        "admin (CONNECTION ADMIN)": lambda: connect("admin"),
        "role (PROCESS by settings)": lambda: connect("role"),
        "root@proxysys": lambda: administrator(connect),
        "inspector@proxysys": lambda: administrator(connect, "inspector"),
    }
    table: dict[str, list[str]] = {}
    for name, come in askers.items():
        asker = come()
        victims = {"a": connect("a"), "b": connect("b"), "root@proxysys": administrator(connect)}
        seen = sessions(asker)
        cells = []
        for victim in victims.values():
            number = victim.thread_id()
            try:
                query(asker, f"KILL {number}")
                killed = "OK"
                assert is_gone(victim)
            except pymysql.MySQLError as error:
                killed = str(error.args[0])
                assert not is_gone(victim)
            cells.append(f"{'sees' if number in seen else '-':4} {killed:4}")
            victim.close()
        table[name] = cells
        figure(f"{name:27} a: {cells[0]}  b: {cells[1]}  root@proxysys: {cells[2]}")
    nothing, denied, done = "-    1094", "sees 1095", "sees OK  "
    assert table == {
        "a": [done, nothing, nothing],
        "b": [nothing, done, nothing],
        "sees (PROCESS)": [denied, denied, denied],
        "kills (SUPER)": [done, done, done],
        "admin (CONNECTION ADMIN)": [done, done, done],
        "role (PROCESS by settings)": [denied, denied, denied],
        "root@proxysys": [done, done, done],
        "inspector@proxysys": ["sees 5010"] * 3,
    }
