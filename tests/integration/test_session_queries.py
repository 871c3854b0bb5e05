"""SHOW FULL PROXYSESSION, queries over sessions and their history, before real servers."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

from pymysql.connections import Connection

from odptwist.statements.columns import SESSION_COLUMNS
from odptwist.statements.history import HISTORY_COLUMNS
from tests.integration.conftest import Connect
from tests.support.servers import Background, wait_until
from tests.support.sessions import connection_id, error_of, is_gone, query


def rows(client: Connection[Any], text: str) -> list[dict[str, Any]]:
    """Return the rows of an answer, by column."""
    with client.cursor() as cursor:
        cursor.execute(text)
        names = [column[0] for column in cursor.description]
        return [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]


def test_full(connect: Connect) -> None:
    """Every column is there; a busy session and one in a transaction are told from idle ones."""
    asker, busy, lender = connect("root"), connect("root"), connect("root")
    number = connection_id(busy)
    query(lender, "BEGIN", "SELECT 1")
    sleeping = Background(query, busy, "SELECT SLEEP(60)")

    def is_busy() -> bool:
        return bool(rows(asker, "SHOW PROXYSESSION WHERE activity = 'busy' AND statement LIKE 'select sleep%'"))

    wait_until(is_busy)
    found = {row["Id"]: row for row in rows(asker, "SHOW FULL PROXYSESSION")}
    assert list(found[busy.thread_id()]) == [each.name for each in SESSION_COLUMNS]
    row = found[busy.thread_id()]
    assert (row["activity"], row["command"], row["statement"]) == ("busy", "Query", "SELECT SLEEP(60)")
    assert (row["server_sessid"], row["using_ssl"], row["client"]) == (number, 0, "pymysql")
    assert row["idle_seconds"] == 0 < row["statement_seconds"] == row["seconds"]
    assert row["bytes_in"] > 0 < row["bytes_out"]
    assert found[lender.thread_id()]["activity"] == "in transaction"
    assert found[lender.thread_id()]["transaction_seconds"] > 0
    assert found[asker.thread_id()]["activity"] == "idle"
    query(asker, f"KILL {busy.thread_id()}")
    sleeping.error()


def test_where_and_select(connect: Connect) -> None:
    """A condition chooses, an order sorts, a group counts; what is wrong is refused and never reaches the server."""
    asker, other = connect("root"), connect("root")
    ids = sorted((asker.thread_id(), other.thread_id()))
    assert [row["Id"] for row in rows(asker, "SHOW PROXYSESSION WHERE User = 'root' ORDER BY Id DESC")] == ids[::-1]
    assert [row["Id"] for row in rows(asker, "SHOW PROXYSESSION WHERE Id > 0 LIMIT 1")] == ids[:1]
    assert error_of(asker, "SHOW PROXYSESSION WHERE nothing = 1")[0] == 1064
    assert error_of(asker, "SELECT readfile('/etc/passwd') FROM proxysession")[0] == 1064
    found = rows(asker, "SELECT User, count(*) AS n, max(seconds) FROM proxysession GROUP BY User")
    assert [(row["User"], row["n"]) for row in found] == [("root", 2)]
    assert isinstance(found[0]["max(seconds)"], float | Decimal)
    # A text that only holds the word is the server's.
    assert query(asker, "SELECT 'proxysession'") == [("proxysession",)]


def test_history(connect: Connect) -> None:
    """A session that was killed in a transaction is remembered with its killer, and its server session with it."""
    asker, victim = connect("root"), connect("root")
    number = victim.thread_id()
    query(victim, "BEGIN", "SELECT 'the last one'")
    query(asker, f"KILL PROXYSESSION {number} REASON 'a test'")
    assert is_gone(victim)
    found = wait_until(lambda: rows(asker, f"SHOW PROXYSESSION HISTORY {number} LIKE 'killed'"))
    assert list(found[0]) == [each.name for each in HISTORY_COLUMNS]
    assert (found[0]["kind"], found[0]["User"], found[0]["reason"]) == ("client", "root", "killed")
    assert f"killed by client session {asker.thread_id()}" in found[0]["detail"]
    assert found[0]["detail"].endswith(": a test")
    assert (found[0]["statement"], found[0]["transaction_lost"]) == ("SELECT 'the last one'", 1)
    kinds = [row["kind"] for row in rows(asker, f"SHOW PROXYSESSION HISTORY {number}")]
    assert sorted(kinds) == ["client", "server"]
