"""The `mariadb` client in a pseudo-terminal, as a person uses it."""

from __future__ import annotations

import os

from tests.support.servers import find_module

PROMPT = "odp> "


class Terminal:
    """The client, logged in.

    Attributes:
        welcome: what it printed before its first prompt.

    Args:
        program: the client's path.
        port: of a proxy on this machine.
        options: more for the client.
    """

    def __init__(self, program: str, port: int, *options: str) -> None:
        arguments = ["--no-defaults", "--host=127.0.0.1", f"--port={port}", "--user=root@sys#ob1"]
        self._client = find_module("pexpect", "pexpect").spawn(
            program,
            [*arguments, "--reconnect", "--skip-auto-rehash", "--no-beep", f"--prompt={PROMPT}", *options],
            env={**os.environ, "TERM": "dumb"},
            dimensions=(50, 400),
            encoding="utf-8",
            timeout=20,
        )
        self.welcome = self.read()

    def read(self) -> str:
        """Return what the client prints before its next prompt."""
        self._client.expect_exact(PROMPT)
        return str(self._client.before).replace("\r", "")

    def enter(self, line: str) -> None:
        """Enter a line, and do not wait."""
        self._client.sendline(line)

    def type(self, line: str) -> str:
        """Enter a line and return what the client prints before its next prompt."""
        self.enter(line)
        printed = self.read()
        assert printed.startswith(line), printed
        return printed.removeprefix(line).strip()

    def interrupt(self) -> None:
        """Press Ctrl-C."""
        self._client.sendintr()

    def close(self) -> None:
        """End the client."""
        self._client.close(force=True)


def read_table(printed: str) -> list[dict[str, str]]:
    """Return the rows of the one table in the client's output."""
    lines = [line for line in printed.splitlines() if line.startswith("|")]
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    return [dict(zip(cells[0], row, strict=True)) for row in cells[1:]]
