"""mycli, as a person uses it: in a terminal."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from ast import literal_eval
from collections.abc import Callable, Mapping
from contextlib import closing
from importlib.metadata import version
from pathlib import Path
from typing import Any, ClassVar

from tests.integration.clients.features import Features
from tests.integration.clients.test_mariadb_program import read_sizes
from tests.support.clients import PATIENCE, Address, Client, Pause
from tests.support.servers import find_module

PROMPT = "odp> "
SETTINGS = "[main]\ntable_format = jsonl\nenable_pager = False\ntiming = False\ndestructive_warning = False\n"
CONTROL = re.compile(r"\x1b\[[?\d;]*[a-zA-Z]|\r")
ERROR = re.compile(r"^\(\d+, .*\)$", re.MULTILINE)


def read_error(printed: str) -> dict[str, Any] | None:
    """Return the error that it printed, or None."""
    if found := ERROR.search(printed):
        code, message = literal_eval(found[0])
        return {"code": code, "message": message}
    return None


def read_value(name: str, value: Any) -> Any:
    """Return a value as `features.SAMPLE` has it."""
    return value.removeprefix("0x").upper() if name == "raw" and value else value


def read_rows(printed: str) -> list[list[Any]]:
    """Return the rows that it printed."""
    rows = [json.loads(line) for line in printed.splitlines() if line.startswith("{")]
    return [[read_value(*item) for item in row.items()] for row in rows]


class Session:
    """It, in a terminal."""

    def __init__(self, command: list[str], environment: Mapping[str, str]) -> None:
        self._child = find_module("pexpect", "pexpect").spawn(
            command[0], command[1:], env=dict(environment), encoding="utf-8", timeout=PATIENCE, dimensions=(50, 4000)
        )
        self._child.expect_exact(PROMPT)

    def close(self) -> None:
        """End it."""
        self._child.close(force=True)

    def type(self, sql: str) -> str:
        """Enter a statement, and return what is printed before the next prompt."""
        self._child.sendline(f"{sql};")
        self._child.expect_exact(PROMPT)
        # Its echo comes twice if the terminal was not yet as mycli wants it.
        return CONTROL.sub("", self._child.before).rpartition(f"{sql};")[2]


class MyCli(Client):
    name = "mycli"
    lacks: ClassVar = {"prepare": "no prepared statements", "compression": "no compression"}

    def __init__(self) -> None:
        self._home = Path()

    def find(self, directory: Callable[[], Path]) -> str:
        """Find it, and give it a home, where it keeps its history and its settings."""
        find_module("mycli", "mycli")
        if self._home == Path():
            self._home = directory()
            (self._home / ".myclirc").write_text(SETTINGS, encoding="utf-8")
        return version("mycli")

    @property
    def _environment(self) -> dict[str, str]:
        # Without a terminal that it knows, it prints no more than what is asked for.
        return {**os.environ, "HOME": str(self._home), "TERM": "dumb"}

    def _command(self, address: Address, *more: str) -> list[str]:
        where = ["--host", address.host, "--port", str(address.port), "--user", address.user, "--quiet"]
        keys = ["--password", address.password, "--database", address.database, "--use-keyring", "false"]
        return [str(Path(sys.executable).with_name("mycli")), *where, *keys, *more]

    def run(self, feature: str, address: Address, sql: str, pause: Pause) -> Mapping[str, Any]:
        """Run it."""
        more = ["--ssl-mode", "off"]
        if feature == "tls":
            more = ["--ssl-mode", "on", "--ssl-ca", str(address.ca), "--ssl-verify-server-cert"]
        if feature in ("connect", "tls", "large_result"):
            # It asks a person what to do about a login that fails, but not a script.
            tried = self._script(address, sql, *more)
            if tried.returncode:
                return {"error": read_error(tried.stderr) or {"message": tried.stderr}}
            if feature == "large_result":
                return {"rows": read_sizes(tried.stdout.partition("\n")[2])}
        with closing(Session(self._command(address, "--prompt", PROMPT, *more), self._environment)) as session:
            if feature == "error":
                printed = [session.type(line) for line in sql.splitlines()]
                return {"errors": [read_error(each) for each in printed], "rows": read_rows(printed[-1])}
            if feature in ("reconnect_after_kill", "tls"):
                pause(int(read_rows(session.type("SELECT CONNECTION_ID()"))[0][0] or 0))
            printed_once = session.type(sql)
            # After a KILL it says that it makes a new connection, and runs the statement there.
            said = printed_once.strip().partition("\n")[0]
            error = {"message": said} if feature == "reconnect_after_kill" and "new connection" in said else None
            return {"error": error, "rows": read_rows(printed_once)}

    def _script(self, address: Address, sql: str, *more: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*self._command(address, "--format", "tsv", "--unbuffered", *more), "--execute", sql],
            env=self._environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=False,
        )


class TestMyCli(Features):
    client = MyCli()
