"""mariadb-dump and mariadb-import."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import attrs
import pytest

from tests.integration.clients.conftest import Entrance
from tests.integration.clients.test_mariadb_program import options
from tests.support.clients import PATIENCE, Address, Client, Pause
from tests.support.servers import find_program
from tests.support.sessions import query

TABLES = ("sample", "digits", "large")


def run_program(name: str, *arguments: str, text: str = "") -> str:
    """Run a program of MariaDB's, and return what it prints."""
    done = subprocess.run(
        [find_program(name, "mariadb-client"), *arguments],
        input=text,
        capture_output=True,
        encoding="utf-8",
        errors="surrogateescape",  # binary columns
        timeout=PATIENCE,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def dump(where: list[str], database: str, *tables: str) -> str:
    """Return a dump, without the comments that tell the host and the time."""
    return run_program(
        "mariadb-dump", *where, "--skip-ssl", "--single-transaction", "--skip-comments", database, *tables
    )


class MariaDbDump(Client):
    name = "mariadb-dump"

    def find(self, directory: Callable[[], Path]) -> str:
        """Find it."""
        find_program(self.name, "mariadb-client")
        return run_program(self.name, "--version").split("Distrib ")[1].split("-")[0]

    def run(self, feature: str, address: Address, sql: str, pause: Pause) -> Mapping[str, Any]:
        """It runs no statements of others."""
        raise NotImplementedError(feature)


@pytest.fixture
def copy(entrance: Entrance, address: Address) -> Iterator[Address]:
    """Return the address of an empty database."""
    with entrance.server.connect() as root:
        query(root, "CREATE DATABASE copy", "GRANT ALL ON copy.* TO 'app'@'%'")
        yield attrs.evolve(address, database="copy")
        query(root, "DROP DATABASE copy")


@pytest.mark.usefixtures("client")
class TestMariaDbDump:
    client = MariaDbDump()

    def test_dump(self, entrance: Entrance, address: Address) -> None:
        """A dump of 40 MB is the same as one that is made directly."""
        names = {"unix_socket": "socket"}
        there = [f"--{names.get(name, name)}={value}" for name, value in entrance.direct.items()]
        # Of an option that is given twice, the last one counts.
        where = [*options(address), "--user=app", *there]
        made = dump(options(address), address.database, *TABLES)
        assert len(made) > 40_000_000
        assert made == dump(where, address.database, *TABLES)

    def test_import(self, address: Address, copy: Address) -> None:
        """What was dumped can be imported, and a dump of that is the same."""
        made = dump(options(address), address.database, *TABLES[:2])
        run_program("mariadb", *options(copy), "--skip-ssl", "--binary-mode", copy.database, text=made)
        assert dump(options(copy), copy.database, *TABLES[:2]) == made

    def test_mariadb_import(self, address: Address, copy: Address, tmp_path: Path) -> None:
        """mariadb-import reads a file on the client's side."""
        file = tmp_path / "large.txt"
        file.write_text("".join(f"{number}\tline {number}\n" for number in range(20_000)), encoding="utf-8")
        create = "CREATE TABLE large (id INT PRIMARY KEY, text VARCHAR(1000))"
        run_program("mariadb", *options(copy), "--skip-ssl", copy.database, text=create)
        run_program("mariadb-import", *options(copy), "--skip-ssl", "--local", copy.database, str(file))
        ask = "SELECT COUNT(*), SUM(id), MAX(text) FROM large"
        found = run_program("mariadb", *options(copy), "--skip-ssl", "--batch", copy.database, text=ask)
        assert found.splitlines()[1].split("\t") == ["20000", "199990000", "line 9999"]
