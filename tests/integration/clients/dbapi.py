"""Clients that are Python libraries with the interface of PEP 249."""

from __future__ import annotations

import sys
from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from datetime import datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any, ClassVar

from tests.support.clients import PARAMETERS, Address, Client, Pause, Program
from tests.support.servers import find_module


def as_text(value: Any) -> str | None:
    """Return a value as `features.SAMPLE` has it."""
    if value is None:
        return None
    if isinstance(value, bytes | bytearray):
        return value.hex().upper()
    return value.isoformat(" ") if isinstance(value, datetime) else str(value)


def as_rows(rows: Any) -> list[list[str | None]]:
    """Return rows as text."""
    return [[as_text(value) for value in row] for row in rows]


def measure(rows: Any) -> list[list[int]]:
    """Return the number of rows, and the length of their second columns."""
    lengths = [len(row[1]) for row in rows]
    return [[len(lengths), sum(lengths)]]


class DbApi(Client):
    """A library.

    Attributes:
        package: its name on PyPI.
        module: what is imported of it; after `find`, the module itself is `library`.
        compression: the options for it.
    """

    package: ClassVar[str]
    module: ClassVar[str]
    compression: ClassVar[Mapping[str, Any]] = {}

    def __init__(self) -> None:
        self.library: Any = None

    def find(self, directory: Callable[[], Path]) -> str:
        """Import it."""
        self.library = find_module(self.module, self.package)
        return version(self.package)

    @abstractmethod
    def open(self, address: Address, **options: Any) -> Any:
        """Return a connection with autocommit, which uses TLS or compression only if the options say so."""

    def tls(self, address: Address) -> dict[str, Any]:
        """Return the options for TLS that checks the server's certificate."""
        raise NotImplementedError(self.name)

    def prepared(self, connection: Any, sql: str, parameters: Sequence[Sequence[Any]]) -> list[Any]:
        """Return the rows of all executions of one prepared statement."""
        raise NotImplementedError(self.name)

    def revive(self, connection: Any, address: Address) -> Any:
        """Return a connection that works in place of one that is lost."""
        return self.open(address)

    @property
    def fault(self) -> type[Exception]:
        """The base of its errors."""
        fault: type[Exception] = self.library.Error
        return fault

    def error_of(self, error: Any) -> dict[str, Any]:
        """Return an error of the library's."""
        return {"code": error.args[0], "sqlstate": None, "message": str(error.args[1])}

    def close(self, connection: Any) -> None:
        """Close a connection."""
        connection.close()

    def fetch(self, connection: Any, sql: str) -> list[Any]:
        """Return the rows of a statement."""
        with closing(connection.cursor()) as cursor:
            cursor.execute(sql)
            return list(cursor.fetchall()) if cursor.description else []

    def run(self, feature: str, address: Address, sql: str, pause: Pause) -> Mapping[str, Any]:
        """Do it in this process."""
        options = {"tls": self.tls, "compression": lambda _: self.compression}.get(feature, lambda _: {})(address)
        try:
            connection = self.open(address, **options)
        except self.fault as error:
            return {"error": self.error_of(error)}
        try:
            if feature == "error":
                return self._errors(connection, sql.splitlines())
            if feature == "reconnect_after_kill":
                number = self._number(connection)
                pause(number)
                error = self._attempt(connection, sql)[0]
                connection = self.revive(connection, address)
                return {"error": error, "rows": as_rows(self.fetch(connection, sql))}
            if feature in ("tls", "compression"):
                pause(self._number(connection))
            if feature == "prepare":
                given = [(text, number) for number, text in PARAMETERS]
                return {"rows": as_rows(self.prepared(connection, sql, given))}
            rows = self.fetch(connection, sql)
            return {"rows": measure(rows) if feature in ("large_result", "compression") else as_rows(rows)}
        finally:
            self.close(connection)

    def _number(self, connection: Any) -> int:
        return int(self.fetch(connection, "SELECT CONNECTION_ID()")[0][0])

    def _attempt(self, connection: Any, sql: str) -> tuple[dict[str, Any] | None, list[Any]]:
        try:
            return None, self.fetch(connection, sql)
        except self.fault as error:
            return self.error_of(error), []

    def _errors(self, connection: Any, statements: Sequence[str]) -> Mapping[str, Any]:
        done = [self._attempt(connection, statement) for statement in statements]
        return {"errors": [error for error, _ in done], "rows": as_rows(done[-1][1])}


class Apart(Program):
    """A library in a process of its own, because its C code does not get on with that of others here.

    Those of mysqlclient and mysql-connector-python use OpenSSL by themselves, and so does Python: the one needs a newer
    one than another has loaded, or leaves errors behind that another takes for its own.
    """

    def __init__(self, library: type[DbApi]) -> None:
        super().__init__()
        self._library = library
        self.name = library.name
        self.lacks = library.lacks
        self.fails = library.fails

    def build(self, directory: Callable[[], Path]) -> list[str]:
        """Return the command line."""
        apart = str(Path(__file__).with_name("apart.py"))
        return [sys.executable, apart, self._library.__module__.rpartition(".")[2], self._library.__name__]
