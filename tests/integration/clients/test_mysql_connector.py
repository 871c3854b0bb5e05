"""mysql-connector-python, in Python and with its C extension."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, ClassVar

import pytest

from tests.integration.clients.conftest import Entrance
from tests.integration.clients.dbapi import Apart, DbApi
from tests.integration.clients.features import Features
from tests.support.clients import Address
from tests.support.servers import find_module


class Connector(DbApi):
    name = "mysql-connector-python"
    package = "mysql-connector-python"
    module = "mysql.connector"
    compression: ClassVar = {"compress": True}
    pure: ClassVar = True

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
    fails: ClassVar = {"prepare": "BIGINT UNSIGNED beyond 2**63 comes out negative, directly too"}

    def find(self, directory: Callable[[], Path]) -> str:
        """See whether its library can be loaded, too."""
        find_module("_mysql_connector", "mysql-connector-python with its C extension")
        return super().find(directory)


class TestConnector(Features):
    client = Connector()

    def test_change_user(self, client: Connector, address: Address, entrance: Entrance) -> None:
        """COM_CHANGE_USER makes another user's session of it, and a wrong password is 1045."""
        other = entrance.other
        with closing(client.open(address)) as connection:
            connection.cmd_change_user(other.user, other.password, other.database)
            assert client.fetch(connection, "SELECT CURRENT_USER(), DATABASE()") == [("other@%", "clients")]
            with pytest.raises(client.library.Error) as caught:
                connection.cmd_change_user(address.user, "wrong", address.database)
        assert caught.value.errno == 1045


class TestCompiledConnector(Features):
    client = Apart(CompiledConnector)
