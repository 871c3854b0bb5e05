"""mysql-connector-python, in Python and with its C extension."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

from tests.integration.clients.dbapi import DbApi
from tests.integration.clients.features import Features
from tests.support.clients import Address, Program
from tests.support.servers import missing


class Connector(DbApi):
    name = "mysql-connector-python"
    package = "mysql-connector-python"
    module = "mysql.connector"
    compression = {"compress": True}  # noqa: RUF012
    pure = True

    def open(self, address: Address, **options: Any) -> Any:
        """Connect."""
        return self.library.connect(
            host=address.host,
            port=address.port,
            user=address.user,
            password=address.password,
            database=address.database,
            charset="utf8mb4",
            autocommit=True,
            use_pure=self.pure,
            **{"ssl_disabled": True, **options},
        )

    def tls(self, address: Address) -> dict[str, Any]:
        """Return the options."""
        return {
            "ssl_disabled": False,
            "ssl_ca": str(address.ca),
            "ssl_verify_cert": True,
            "ssl_verify_identity": True,
        }

    def prepared(self, connection: Any, sql: str, parameters: Sequence[Sequence[Any]]) -> list[Any]:
        """Execute the same statement with one cursor, which prepares it once."""
        with closing(connection.cursor(prepared=True)) as cursor:
            rows = []
            for values in parameters:
                cursor.execute(sql, values)
                rows += cursor.fetchall()
            return rows

    def revive(self, connection: Any, address: Address) -> Any:
        """Make the same connection connect again."""
        connection.ping(reconnect=True)
        return connection

    def error_of(self, error: Any) -> dict[str, Any]:
        """Return an error."""
        return {"code": error.errno, "sqlstate": error.sqlstate, "message": error.msg}


class CompiledConnector(Connector):
    name = "mysql-connector-python (C)"
    pure = False


class CompiledConnectorApart(Program):
    """The C extension in a process of its own, where it is loaded before any other OpenSSL than its own is."""

    name = CompiledConnector.name

    def build(self, directory: Callable[[], Path]) -> list[str]:
        """Return the command line."""
        found = subprocess.run(
            [sys.executable, "-c", "import _mysql_connector"], capture_output=True, text=True, check=False
        )
        if found.returncode:
            missing(f"the C extension of PyPI's mysql-connector-python ({found.stderr.strip().rpartition(chr(10))[2]})")
        return [sys.executable, str(Path(__file__).parent / "connector_c" / "client.py")]


class TestConnector(Features):
    client = Connector()


class TestCompiledConnector(Features):
    client = CompiledConnectorApart()
