"""Clients and servers that can do different things, in one cluster and by all flags; and what is made right for seekdb.

No combination may put a stream out of step: every answer is read by the flags that the client and the proxy agreed on,
and the next one must be the answer to the next command.
"""

from __future__ import annotations

import random
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pymysql
import pytest

from odptwist.wire import constants as c
from odptwist.wire.handshake import Attribute, HandshakeResponse
from odptwist.wire.primitives import Reader
from odptwist.wire.responses import Err, is_eof, parse_eof, parse_err, parse_ok
from tests.integration.conftest import Connect
from tests.support.raw_client import RawClient
from tests.support.servers import Proxy, Server, find_module
from tests.support.sessions import query

ROOT = "root@sys#ob1"
NEEDED = c.CLIENT_PROTOCOL_41 | c.CLIENT_SECURE_CONNECTION | c.CLIENT_PLUGIN_AUTH | c.CLIENT_TRANSACTIONS
# TLS, compression and further factors change more than packets; these are tested elsewhere.
ELSEWHERE = c.CLIENT_SSL | c.CLIENT_COMPRESS | c.CLIENT_ZSTD_COMPRESSION | c.MULTI_FACTOR_AUTHENTICATION
INTERESTING = (
    c.CLIENT_LONG_PASSWORD,
    c.CLIENT_DEPRECATE_EOF,
    c.CLIENT_SESSION_TRACK,
    c.CLIENT_PLUGIN_AUTH_LENENC_CLIENT_DATA,
    c.CLIENT_QUERY_ATTRIBUTES,
    c.CLIENT_OPTIONAL_RESULTSET_METADATA,
    c.CLIENT_MULTI_STATEMENTS,
    c.CLIENT_MULTI_RESULTS,
    c.CLIENT_PS_MULTI_RESULTS,
    c.CLIENT_CONNECT_WITH_DB,
    c.CLIENT_CONNECT_ATTRS,
    c.CLIENT_FOUND_ROWS,
    c.CLIENT_CAN_HANDLE_EXPIRED_PASSWORDS,
    c.CLIENT_REMEMBER_OPTIONS,
)
ALL_EXTENDED = 0x1F
RUNS = 40


class FlagClient(RawClient):
    """A client that sets any flags, and reads answers by those that were agreed on."""

    def enter(self, flags: int, extended: int = 0) -> int:
        """Log in and return what was agreed on.

        Args:
            flags: the capabilities to set.
            extended: MariaDB's, if CLIENT_LONG_PASSWORD is clear.
        """
        offered = self.read_greeting().capabilities
        response = HandshakeResponse(
            capabilities=flags,
            max_packet_size=1 << 24,
            charset=45,
            user=ROOT,
            auth_response=b"",
            database="mysql" if flags & c.CLIENT_CONNECT_WITH_DB else None,
            plugin="mysql_native_password",
            attributes=(Attribute("program_name", "odd"),) if flags & c.CLIENT_CONNECT_ATTRS else (),
            mariadb_capabilities=extended,
        )
        self.send(response.encode(), 1)
        self.capabilities = flags & offered
        payload = self.read_packet().payload
        assert payload[0] == 0, parse_err(payload)
        parse_ok(payload, self.capabilities)
        return self.capabilities

    def ask(self, command: bytes) -> list[Any]:
        """Send a command that is answered with results; return the rows of each, None for an OK, or an `Err`."""
        self.send(command)
        answers: list[Any] = []
        more = c.SERVER_MORE_RESULTS_EXISTS
        while more & c.SERVER_MORE_RESULTS_EXISTS:
            payload = self.read_packet().payload
            if payload[0] == 0xFF:
                return [*answers, parse_err(payload)]
            if payload[0] == 0:
                more = parse_ok(payload, self.capabilities).status
                answers.append(None)
                continue
            assert len(payload) == 1, payload  # a count of columns, without MariaDB's byte or MySQL's flag behind it
            self.definitions(payload[0])
            rows, more = self.rows()
            answers.append(rows)
        return answers

    def definitions(self, count: int) -> None:
        """Read column definitions."""
        for _ in range(count):
            reader = Reader(self.read_packet().payload)
            for _ in range(6):
                reader.lenenc_bytes()
            assert reader.lenenc_int() == 12  # with MariaDB's extended metadata there is one field more
        if count and not self.capabilities & c.CLIENT_DEPRECATE_EOF:
            assert is_eof(self.read_packet().payload)

    def rows(self) -> tuple[list[bytes], int]:
        """Read rows; return them and the status at their end."""
        rows: list[bytes] = []
        while True:
            payload = self.read_packet().payload
            if payload[0] == 0xFE and len(payload) < 1 << 24:
                if self.capabilities & c.CLIENT_DEPRECATE_EOF:
                    return rows, parse_ok(payload, self.capabilities).status
                return rows, parse_eof(payload).status
            assert payload[0] != 0xFF, parse_err(payload)
            rows.append(payload)

    def try_everything(self) -> None:
        """Send commands of each kind of answer, and look at every one."""
        assert self.ask(b"\x03SELECT 1, 2") == [[b"\x011\x012"]]
        assert self.ask(b"\x03SET @a = 1") == [None]
        assert self.ask(b"\x03SET autocommit = 1") == [None]
        assert self.ask(b"\x03USE mysql") == [None]
        assert isinstance(self.ask(b"\x03nosuch")[0], Err)
        assert self.ask(b"\x03SELECT 1 FROM (SELECT 1) t WHERE 0") == [[]]
        several = self.ask(b"\x03SELECT 1; SET @b = 2; SELECT 3")
        if self.capabilities & c.CLIENT_MULTI_STATEMENTS:
            assert several == [[b"\x011"], None, [b"\x013"]]
        else:
            assert several[0].code == 1064
        self.prepared()
        for simple in (b"\x0e", b"\x02mysql"):
            self.send(simple)
            parse_ok(self.read_packet().payload, self.capabilities)
        self.send(b"\x1b\0\0")
        assert self.read_packet().payload[0] == 0xFE
        assert self.ask(b"\x03SELECT 4; SELECT 5") == [[b"\x014"], [b"\x015"]]
        self.send(b"\x1b\1\0")
        assert self.read_packet().payload[0] == 0xFE
        assert self.ask(b"\x03SELECT 4; SELECT 5")[0].code == 1064
        self.send(b"\x1f")
        parse_ok(self.read_packet().payload, self.capabilities)
        assert self.ask(b"\x03SELECT 6") == [[b"\x016"]]

    def prepared(self) -> None:
        """Prepare, execute and close a statement."""
        self.send(b"\x16SELECT ?, 3")
        payload = self.read_packet().payload
        assert payload[0] == 0, parse_err(payload)
        assert payload[5:9] == b"\2\0\1\0"
        self.definitions(1)
        self.definitions(2)
        for told in (b"\1\x08\0", b"\0"):
            (rows,) = self.ask(b"\x17" + payload[1:5] + b"\0\1\0\0\0\0" + told + (5).to_bytes(8, "little"))
            assert len(rows) == 1
            assert rows[0].startswith(b"\0\0" + (5).to_bytes(8, "little"))
        self.send(b"\x19" + payload[1:5])


@pytest.fixture(scope="module")
def mixed(seekdb: Server, mariadb: Server, directory: Callable[[], Path]) -> Iterator[Proxy]:
    """Return a proxy before a seekdb that takes writes and a MariaDB that takes reads."""
    base = directory()
    (base / "odp.toml").write_text(
        '[[cluster]]\nname = "ob1"\nread_policy = "replica_first"\n'
        f'[[cluster.server]]\naddress = "{seekdb.address}"\nrole = "primary"\n'
        f'[[cluster.server]]\naddress = "{mariadb.address}"\nrole = "replica"\n'
        "[routing]\nsettle = 0.0\n"
    )
    running = Proxy(base, "--config", str(base / "odp.toml"))
    try:
        with running.connect() as first:
            # A greeting of each has been heard now.
            query(first, "SELECT 1", "SET @a = 1", "SELECT 1")
        yield running
    finally:
        running.stop()


def flags_of(seed: int) -> tuple[int, int]:
    """Return any flags, and any of MariaDB's extended ones where a client may have them."""
    chance = random.Random(seed)
    flags = chance.getrandbits(32) & ~ELSEWHERE | NEEDED
    for flag in INTERESTING:
        flags = flags & ~flag | (flag if chance.random() < 0.5 else 0)
    return flags, 0 if flags & c.CLIENT_LONG_PASSWORD else chance.choice((0, ALL_EXTENDED, 0xFFFFFFFF))


@pytest.mark.parametrize("seed", range(RUNS))
def test_any_flags(seed: int, proxy: Proxy) -> None:
    """A client may set any flags: those that were not offered are as if they were clear."""
    with FlagClient(proxy.port) as client:
        client.enter(*flags_of(seed))
        client.try_everything()


@pytest.mark.parametrize("seed", range(RUNS, 2 * RUNS))
def test_any_flags_before_two_kinds_of_servers(seed: int, mixed: Proxy) -> None:
    """A session of a mixed cluster is answered by both servers, by the flags that both have."""
    with FlagClient(mixed.port) as client:
        agreed = client.enter(*flags_of(seed))
        assert not agreed & (c.CLIENT_DEPRECATE_EOF | c.CLIENT_QUERY_ATTRIBUTES)
        client.try_everything()


def test_session_of_two_kinds_of_servers(mixed: Proxy) -> None:
    """Reads of one session go to MariaDB and transactions to seekdb, and what it has set up is on both."""
    with mixed.connect() as client:
        for number in range(3):
            assert "MariaDB" in query(client, "SELECT @@version_comment, VERSION()")[0][1]
            query(client, f"SET @a = {number}")
            ((version, found),) = query(client, "BEGIN", "SELECT VERSION(), @a")
            assert ("seekdb" in version, found) == (True, number)
            query(client, "COMMIT")
            ((version, found),) = query(client, "SELECT VERSION(), @a")
            assert ("MariaDB" in version, found) == (True, number)


# -- clients -----------------------------------------------------------------------------------------------------------


def test_query_attributes(proxy: Proxy) -> None:
    """mysql-connector-python has attributes for its queries, and keeps them to itself where they are not offered."""
    connector = find_module("mysql.connector", "mysql-connector-python")
    options = {"charset": "utf8mb4", "collation": "utf8mb4_general_ci", "use_pure": True, "user": ROOT}
    with connector.connect(host="127.0.0.1", port=proxy.port, **options) as client:
        cursor = client.cursor()
        cursor.add_attribute("name", "value")
        for number in (1, 2):
            cursor.execute(f"SELECT {number}")
            assert cursor.fetchall() == [(number,)]


def test_extended_capabilities(proxy: Proxy, mariadb_client: str) -> None:
    """The `mariadb` program, which knows MariaDB's extended capabilities, reads types and rows by the ordinary ones."""
    where = ["--no-defaults", "--host=127.0.0.1", f"--port={proxy.port}", f"--user={ROOT}"]
    done = subprocess.run(
        [mariadb_client, *where, "--table", "--column-type-info", "--execute=SELECT 1 AS a; SELECT 'b' AS c; SELECT 3"],
        capture_output=True,
        text=True,
        timeout=30,
        check=True,
    )
    lines = [line.split()[1] for line in done.stdout.splitlines() if line.startswith("|")]
    assert lines == ["a", "1", "c", "b", "3", "3"]
    assert done.stdout.count("Field ") == 3


# -- what is made right ------------------------------------------------------------------------------------------------


def test_several_statements(connect: Connect) -> None:
    """Only a client that asks for it may send several statements in one text; a stored program is one."""
    name = "odd_program"
    with connect(database="mysql") as client:
        for text in ("SELECT 1; SELECT 2", "SELECT ';'; DROP TABLE nosuch", "BEGIN; DELETE FROM nosuch"):
            with pytest.raises(pymysql.err.ProgrammingError) as caught:
                query(client, text)
            assert caught.value.args[0] == 1064, text
        assert query(client, "SELECT ';'; -- ; SELECT 2") == [(";",)]
        assert query(client, "SELECT 1 /* ; */;;;".rstrip(";")) == [(1,)]
        query(client, "CREATE DATABASE IF NOT EXISTS odd_programs", "USE odd_programs")
        query(client, f"DROP PROCEDURE IF EXISTS {name}")
        query(client, f"CREATE PROCEDURE {name}() BEGIN SELECT 1; SELECT 2; END")
        query(client, f"CALL {name}()")
        query(client, f"DROP PROCEDURE {name}", "DROP DATABASE odd_programs")
    flag = pymysql.constants.CLIENT.MULTI_STATEMENTS
    with connect(client_flag=flag) as client:
        assert query(client, "SELECT 1; SELECT 2") == [(1,)]


def test_refused_login(proxy: Proxy, direct: Any) -> None:
    """A refusal has the state and the host that clients know from all servers."""
    query(direct, "DROP USER IF EXISTS oddly", "CREATE USER oddly IDENTIFIED BY 'secret'")
    try:
        with RawClient(proxy.port) as client:
            refusal = client.login("oddly@sys#ob1", b"wrong")
        assert isinstance(refusal, Err)
        assert (refusal.code, refusal.sqlstate) == (1045, "28000")
        assert "'oddly'@'127.0.0.1'" in refusal.message
    finally:
        query(direct, "DROP USER oddly")
