"""Clients of Node: mysql2, and MariaDB's own."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

from tests.integration.clients.features import Features
from tests.support.clients import Program
from tests.support.servers import find_program, missing

CLIENT = Path(__file__).parent / "node/client.js"


class Node(Program):
    """A package of npm's.

    Args:
        package: its name, which is that of the module beside the program, too.
    """

    def __init__(self, package: str) -> None:
        super().__init__()
        self.name = f"{package} (Node)"
        self._package = package

    def build(self, directory: Callable[[], Path]) -> list[str]:
        """Find Node, and the package in NODE_PATH."""
        node = find_program("node", "nodejs")
        found = subprocess.run([node, "-e", f"require.resolve('{self._package}')"], capture_output=True, check=False)
        if found.returncode:
            missing(f"npm's {self._package} in NODE_PATH")
        return [node, str(CLIENT), self._package]


class TestMysql2(Features):
    client = Node("mysql2")


class TestMariaDbNode(Features):
    client = Node("mariadb")
