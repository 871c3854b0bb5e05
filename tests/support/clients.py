"""Clients of MySQL's protocol that the proxy is tried with: libraries in this process, and programs of any language."""

from __future__ import annotations

import json
import os
import subprocess
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import attrs
import pytest

from tests.support.servers import missing

FEATURES = ("connect", "query", "prepare", "large_result", "error", "reconnect_after_kill", "tls", "compression")
"""What each client is tried with, in the order of the compatibility page."""

PAUSING = ("reconnect_after_kill", "tls", "compression")
"""The features in which a client tells its connection id and waits, while the test does something about it."""

PARAMETERS: tuple[tuple[int, str | None], ...] = ((1, "Grüße ☃"), (2, None))
"""What a prepared statement is executed with: once with the first, and again with the second."""

PATIENCE = 30.0
"""Seconds after which a program is ended that should have ended by itself."""


@attrs.frozen
class Address:
    """Where a client shall connect, and as whom.

    Attributes:
        user: with the tenant and the cluster.
        ca: the file with the certificate of the authority that signed the proxy's, in PEM format.
    """

    host: str
    port: int
    user: str
    password: str
    database: str
    ca: Path


@attrs.frozen
class Error:
    """An error as a client told it.

    Attributes:
        code: None where the client has no number for it.
        sqlstate: None where the client does not tell it.
    """

    code: int | None
    sqlstate: str | None
    message: str


@attrs.frozen
class Seen:
    """What a client saw.

    Attributes:
        rows: values as text; None is NULL.
        error: what ended the connection, or kept it from being made.
        errors: one for each statement, None for those without.
    """

    rows: list[list[str | None]] = attrs.field(factory=list)
    error: Error | None = None
    errors: list[Error | None] = attrs.field(factory=list)


Pause = Callable[[int], None]
"""What happens to a connection, named by its connection id, while its client waits."""


def _as_text(value: Any) -> str | None:
    return value if value is None or isinstance(value, str) else str(value)


def _as_error(found: Mapping[str, Any] | None) -> Error | None:
    if found is None:
        return None
    code = found.get("code")
    return Error(None if code is None else int(code), found.get("sqlstate") or None, str(found.get("message")))


def read_seen(found: Mapping[str, Any]) -> Seen:
    """Return what a client saw, from its JSON object."""
    return Seen(
        rows=[[_as_text(value) for value in row] for row in found.get("rows", ())],
        error=_as_error(found.get("error")),
        errors=[_as_error(error) for error in found.get("errors", ())],
    )


class Client(ABC):
    """A client.

    Attributes:
        name: as the compatibility page has it.
        lacks: the features that it does not have, and why.
        fails: features that do not work, also directly, and why; a feature alone or with a server, as "tls seekdb".
    """

    name: str = ""
    lacks: Mapping[str, str] = MappingProxyType({})
    fails: Mapping[str, str] = MappingProxyType({})

    @abstractmethod
    def find(self, directory: Callable[[], Path]) -> str:
        """Make it ready to run, and return its version; skip the test where it is not installed.

        Args:
            directory: makes an empty directory, for those that have to be compiled.
        """

    @abstractmethod
    def run(self, feature: str, address: Address, sql: str, pause: Pause) -> Mapping[str, Any]:
        """Do what the README of `tests/integration/clients` says of a feature, and return the JSON object of it."""


class Program(Client):
    """A client that is a program of its own, in any language; the README says how it is spoken to."""

    def __init__(self) -> None:
        self._command: list[str] = []
        self._version = ""

    @abstractmethod
    def build(self, directory: Callable[[], Path]) -> list[str]:
        """Compile the program if it has to be, and return its command line; skip the test if something is missing."""

    def find(self, directory: Callable[[], Path]) -> str:
        """Build it once, and ask it for its version."""
        if not self._command:
            self._command = self.build(directory)
        if not self._version:
            said = self._ask("version", {}, None)
            self._version = str(said.get("version") or missing(said["missing"]))
        return self._version

    def run(self, feature: str, address: Address, sql: str, pause: Pause) -> Mapping[str, Any]:
        """Run the program."""
        values = {**attrs.asdict(address), "sql": sql}
        environment = {f"ODP_{name.upper()}": str(value) for name, value in values.items()}
        return self._ask(feature, environment, pause)

    def _ask(self, feature: str, environment: Mapping[str, str], pause: Pause | None) -> Mapping[str, Any]:
        with subprocess.Popen(
            [*self._command, feature],
            env={**os.environ, **environment},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            encoding="utf-8",
        ) as process:
            timer = threading.Timer(PATIENCE, process.kill)
            timer.start()
            try:
                said = process.stdout.readline()  # type: ignore[union-attr]
                if pause and '"id"' in said:
                    pause(int(json.loads(said)["id"]))
                    said = ""
                # It goes on as soon as its input says something or ends.
                rest, complaints = process.communicate()
            finally:
                timer.cancel()
        lines = (said + rest).strip().splitlines()
        try:
            if process.returncode:
                raise ValueError(f"status {process.returncode}")
            seen: Mapping[str, Any] = json.loads(lines[-1])
        except (ValueError, IndexError) as fault:
            pytest.fail(f"{self.name}, {feature}: {fault}; it printed {lines}\n{complaints[-4000:]}")
        return seen
