"""Real servers for benchmarks: each is started for one, and stopped after it."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pymysql
from pymysql.connections import Connection

from benchmarks.support import Server
from tests.support.servers import MariaDb, Seekdb

SERVERS = ("mariadb", "seekdb")
PATIENCE = 30.0
"""Seconds that a client waits for an answer."""


def connect(server: Server) -> Connection[Any]:
    """Return a connection of root's, without a password, to a server or a proxy on this machine."""
    where: dict[str, Any] = {"unix_socket": str(server)} if isinstance(server, Path) else {"port": server}
    return pymysql.connect(
        host="127.0.0.1", user="root", charset="utf8mb4", autocommit=True, read_timeout=PATIENCE, **where
    )


@contextmanager
def start_server(name: str) -> Iterator[Server]:
    """Start one of `SERVERS` that is empty, and say where it is; its root has no password."""
    with tempfile.TemporaryDirectory(prefix="odp") as base:
        server = MariaDb(Path(base), "max-connections=10000") if name == "mariadb" else Seekdb(Path(base))
        server.start()
        try:
            yield server.port if isinstance(server, MariaDb) else Path(server.socket)
        finally:
            server.stop()
