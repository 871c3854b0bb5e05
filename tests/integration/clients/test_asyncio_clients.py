"""aiomysql and asyncmy."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Coroutine, Mapping
from typing import Any, ClassVar

from tests.integration.clients.dbapi import DbApi
from tests.integration.clients.features import Features
from tests.support.clients import PATIENCE, Address, Pause


class AsyncioClient(DbApi):
    """A library whose calls are awaited, in an event loop for each test."""

    lacks: ClassVar = {"prepare": "no prepared statements", "compression": "no compression"}

    def run(self, feature: str, address: Address, sql: str, pause: Pause) -> Mapping[str, Any]:
        """Do it in a loop."""
        with asyncio.Runner() as self._runner:
            return super().run(feature, address, sql, pause)

    def _wait(self, work: Coroutine[Any, Any, Any]) -> Any:
        return self._runner.run(asyncio.wait_for(work, PATIENCE))

    def open(self, address: Address, **options: Any) -> Any:
        """Connect."""

        async def connect() -> Any:
            return await self.library.connect(
                host=address.host,
                port=address.port,
                user=address.user,
                password=address.password,
                db=address.database,
                charset="utf8mb4",
                autocommit=True,
                **options,
            )

        return self._wait(connect())

    def tls(self, address: Address) -> dict[str, Any]:
        """Return the options."""
        return {"ssl": ssl.create_default_context(cafile=address.ca)}

    def fetch(self, connection: Any, sql: str) -> list[Any]:
        """Return the rows of a statement."""

        async def fetch() -> list[Any]:
            async with connection.cursor() as cursor:
                await cursor.execute(sql)
                return list(await cursor.fetchall()) if cursor.description else []

        return self._wait(fetch())

    def revive(self, connection: Any, address: Address) -> Any:
        """Make the same connection connect again."""

        async def ping() -> Any:
            await connection.ping(reconnect=True)
            return connection

        return self._wait(ping())

    def close(self, connection: Any) -> None:
        """Close a connection."""
        self._wait(connection.ensure_closed())


class AioMySql(AsyncioClient):
    name = "aiomysql"
    package = "aiomysql"
    module = "aiomysql"


class AsyncMy(AsyncioClient):
    name = "asyncmy"
    package = "asyncmy"
    module = "asyncmy"

    @property
    def fault(self) -> type[Exception]:
        """The base of its errors."""
        fault: type[Exception] = self.library.errors.Error
        return fault


class TestAioMySql(Features):
    client = AioMySql()


class TestAsyncMy(Features):
    client = AsyncMy()
