"""PyMySQL."""

from __future__ import annotations

from typing import Any, ClassVar

import pytest

from tests.integration.clients.dbapi import DbApi
from tests.integration.clients.features import Features
from tests.support.clients import PATIENCE, Address


class PyMySql(DbApi):
    name = "PyMySQL"
    package = "PyMySQL"
    module = "pymysql"
    lacks: ClassVar = {"prepare": "no prepared statements", "compression": "no compression"}

    def open(self, address: Address, **options: Any) -> Any:
        """Connect; by itself it uses TLS where that is offered."""
        return self.library.connect(
            host=address.host,
            port=address.port,
            user=address.user,
            password=address.password,
            database=address.database,
            charset="utf8mb4",
            autocommit=True,
            read_timeout=PATIENCE,
            **(options or {"ssl_disabled": True}),
        )

    def tls(self, address: Address) -> dict[str, Any]:
        """Return the options."""
        return {"ssl_ca": str(address.ca), "ssl_verify_cert": True, "ssl_verify_identity": True}

    def revive(self, connection: Any, address: Address) -> Any:
        """Make the same connection connect again."""
        connection.ping(reconnect=True)
        return connection


@pytest.mark.filterwarnings("ignore:The 'reconnect' argument is deprecated")
class TestPyMySql(Features):
    client = PyMySql()
