"""mysqlclient, which is libmariadb in Python."""

from __future__ import annotations

from typing import Any, ClassVar

from tests.integration.clients.dbapi import Apart, DbApi
from tests.integration.clients.features import Features
from tests.support.clients import Address


class MySqlClient(DbApi):
    name = "mysqlclient"
    package = "mysqlclient"
    module = "MySQLdb"
    lacks: ClassVar = {"prepare": "no prepared statements"}
    compression: ClassVar = {"compress": True}

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
            **options,
        )

    def tls(self, address: Address) -> dict[str, Any]:
        """Return the options."""
        return {"ssl_mode": "VERIFY_IDENTITY", "ssl": {"ca": str(address.ca)}}


class TestMySqlClient(Features):
    client = Apart(MySqlClient)
