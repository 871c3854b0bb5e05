"""The `mariadb` program, in scripts and in a terminal."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, ClassVar
from xml.etree import ElementTree

from tests.integration.clients.features import Features
from tests.support.clients import PATIENCE, Address, Client, Pause
from tests.support.servers import find_program
from tests.support.terminal import Terminal, read_table

NIL = "{http://www.w3.org/2001/XMLSchema-instance}nil"
ERROR = re.compile(r"^ERROR (\d+) \((\w{5})\)(?: at line (\d+))?: (.*)$", re.MULTILINE)


def options(address: Address) -> list[str]:
    """Return the options of MariaDB's programs for an address."""
    return [
        "--no-defaults",
        f"--host={address.host}",
        f"--port={address.port}",
        f"--user={address.user}",
        f"--password={address.password}",
        "--default-character-set=utf8mb4",
    ]


def read_error(found: re.Match[str]) -> dict[str, str]:
    """Return an error that the program printed."""
    return {"code": found[1], "sqlstate": found[2], "message": found[4]}


def read_value(name: str, text: str) -> str:
    """Return a value as `features.SAMPLE` has it."""
    return text.removeprefix("0x") if name == "raw" else text


def read_xml(printed: str) -> list[list[str | None]]:
    """Return the rows of the last result."""
    last = printed.rpartition("<?xml")[2].partition("?>")[2]
    return [
        [None if field.get(NIL) else read_value(field.get("name", ""), field.text or "") for field in row]
        for row in ElementTree.fromstring(last)
    ]


def read_sizes(printed: str) -> list[list[int]]:
    """Return the number of lines, and the length of their second columns."""
    lengths = [len(line.partition("\t")[2]) for line in printed.splitlines()]
    return [[len(lengths), sum(lengths)]]


class MariaDbProgram(Client):
    name = "mariadb"
    lacks: ClassVar = {"prepare": "PREPARE as a statement only"}

    def __init__(self) -> None:
        self._path = ""

    def find(self, directory: Callable[[], Path]) -> str:
        """Find it."""
        self._path = find_program("mariadb", "mariadb-client")
        printed = subprocess.run([self._path, "--version"], capture_output=True, text=True, check=True).stdout
        return re.findall(r"(\d+\.\d+\.\d+)-MariaDB", printed)[0]

    def run(self, feature: str, address: Address, sql: str, pause: Pause) -> Mapping[str, Any]:
        """Run it."""
        if feature == "reconnect_after_kill":
            return self._reconnect(address, sql, pause)
        if feature in ("tls", "compression"):
            return self._pausing(feature, address, sql, pause)
        form = ["--batch", "--quick", "--skip-column-names"] if feature == "large_result" else ["--xml"]
        done = self._start(address, "--skip-ssl", *form)
        printed, complaints = done.communicate("".join(f"{line};\n" for line in sql.splitlines()), PATIENCE)
        failed = list(ERROR.finditer(complaints))
        if feature == "error":
            by_line = {found[3]: read_error(found) for found in failed}
            errors = [by_line.get(str(number)) for number in range(1, len(sql.splitlines()) + 1)]
            return {"errors": errors, "rows": read_xml(printed)}
        if failed:
            return {"error": read_error(failed[0])}
        return {"rows": read_sizes(printed) if feature == "large_result" else read_xml(printed)}

    def _start(self, address: Address, *more: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [self._path, *options(address), "--force", "--binary-as-hex", *more, address.database],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            encoding="utf-8",
        )

    def _pausing(self, feature: str, address: Address, sql: str, pause: Pause) -> Mapping[str, Any]:
        more = {
            "tls": ["--ssl", f"--ssl-ca={address.ca}", "--ssl-verify-server-cert"],
            "compression": ["--skip-ssl", "--compress"],
        }
        done = self._start(address, "--batch", "--skip-column-names", "--unbuffered", *more[feature])
        done.stdin.write("SELECT CONNECTION_ID();\n")  # type: ignore[union-attr]
        done.stdin.flush()  # type: ignore[union-attr]
        if number := done.stdout.readline():  # type: ignore[union-attr]
            pause(int(number))
        printed, complaints = done.communicate(f"{sql};\n", PATIENCE)
        if failed := ERROR.search(complaints):
            return {"error": read_error(failed)}
        return {"rows": read_sizes(printed) if feature == "compression" else [printed.split()]}

    def _reconnect(self, address: Address, sql: str, pause: Pause) -> Mapping[str, Any]:
        """Do it in a terminal: in a script, the program does not connect again."""
        # Of an option that is given twice, the last one counts.
        terminal = Terminal(self._path, address.port, *options(address)[1:], "--skip-ssl", address.database)
        try:
            (row,) = read_table(terminal.type("SELECT CONNECTION_ID() AS id;"))
            pause(int(row["id"]))
            printed = terminal.type(f"{sql};")
        finally:
            terminal.close()
        failed = ERROR.search(printed)
        return {
            "error": read_error(failed) if failed else None,
            "rows": [list(row.values()) for row in read_table(printed)],
        }


class TestMariaDbProgram(Features):
    client = MariaDbProgram()
