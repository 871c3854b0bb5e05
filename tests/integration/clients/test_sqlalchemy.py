"""SQLAlchemy, with PyMySQL and with mysqlclient."""

from __future__ import annotations

import ssl
from collections.abc import Callable, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any, ClassVar

from tests.integration.clients.conftest import Entrance, See
from tests.integration.clients.dbapi import Apart, DbApi, as_rows
from tests.integration.clients.features import Features
from tests.support.clients import Address, Pause
from tests.support.servers import find_module


class SqlAlchemy(DbApi):
    """An engine with a pool of one connection, which is pinged before each use."""

    name = "SQLAlchemy, PyMySQL"
    package = "SQLAlchemy"
    module = "sqlalchemy"
    driver: ClassVar = ("pymysql", "pymysql", "PyMySQL")
    plain: ClassVar = {"ssl_disabled": True}
    lacks: ClassVar = {"prepare": "no prepared statements", "compression": "no compression"}

    def find(self, directory: Callable[[], Path]) -> str:
        """Find the driver, too; the version has both."""
        _, module, package = self.driver
        find_module(module, package)
        return f"{super().find(directory)}, {version(package)}"

    def open(self, address: Address, **options: Any) -> Any:
        """Return a connection of a new engine."""
        url = self.library.URL.create(
            f"mysql+{self.driver[0]}",
            address.user,
            address.password,
            address.host,
            address.port,
            address.database,
            {"charset": "utf8mb4"},
        )
        engine = self.library.create_engine(
            url, pool_size=1, pool_pre_ping=True, isolation_level="AUTOCOMMIT", connect_args=options or self.plain
        )
        return engine.connect()

    def tls(self, address: Address) -> dict[str, Any]:
        """Return the options."""
        return {"ssl": ssl.create_default_context(cafile=address.ca)}

    @property
    def fault(self) -> type[Exception]:
        """The base of its errors."""
        fault: type[Exception] = self.library.exc.DBAPIError
        return fault

    def error_of(self, error: Any) -> dict[str, Any]:
        """Return the driver's error."""
        return super().error_of(error.orig)

    def fetch(self, connection: Any, sql: str) -> list[Any]:
        """Return the rows of a statement."""
        result = connection.exec_driver_sql(sql)
        return list(result.fetchall()) if result.returns_rows else []

    def revive(self, connection: Any, address: Address) -> Any:
        """Give the connection back to the pool, and take one from there."""
        connection.close()
        return connection.engine.connect()

    def close(self, connection: Any) -> None:
        """Close the connection, and the pool."""
        connection.close()
        connection.engine.dispose()

    def run(self, feature: str, address: Address, sql: str, pause: Pause) -> Mapping[str, Any]:
        """Do it; `pool_pre_ping` is a feature of its own."""
        return (
            self._ping(address, sql, pause) if feature == "pool_pre_ping" else super().run(feature, address, sql, pause)
        )

    def _ping(self, address: Address, sql: str, pause: Pause) -> Mapping[str, Any]:
        connection = self.open(address)
        number = self._number(connection)
        connection.close()  # back into the pool
        pause(number)
        connection = connection.engine.connect()
        try:
            return {"rows": as_rows(self.fetch(connection, sql))}
        finally:
            self.close(connection)


class SqlAlchemyMySqlClient(SqlAlchemy):
    name = "SQLAlchemy, mysqlclient"
    driver: ClassVar = ("mysqldb", "MySQLdb", "mysqlclient")
    lacks: ClassVar = {"prepare": "no prepared statements"}
    plain: ClassVar = {}
    compression: ClassVar = {"compress": True}

    def tls(self, address: Address) -> dict[str, Any]:
        """Return the options."""
        return {"ssl_mode": "VERIFY_IDENTITY", "ssl": {"ca": str(address.ca)}}


class SqlAlchemyFeatures(Features):
    """What is tried with either driver."""

    def test_pool_pre_ping(self, see: See, entrance: Entrance) -> None:
        """With `pool_pre_ping`, a connection that was killed in the pool is replaced, and nobody gets an error."""
        assert see("pool_pre_ping", "SELECT 1", pause=entrance.kill).rows == [["1"]]


class TestSqlAlchemy(SqlAlchemyFeatures):
    client = SqlAlchemy()


class TestSqlAlchemyMySqlClient(SqlAlchemyFeatures):
    client = Apart(SqlAlchemyMySqlClient)
