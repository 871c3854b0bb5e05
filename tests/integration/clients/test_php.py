"""PHP's mysqli and PDO, which share mysqlnd."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from tests.integration.clients.features import Features
from tests.support.clients import Program
from tests.support.servers import find_program

CLIENT = Path(__file__).parent / "php/client.php"


class Php(Program):
    """A class of PHP's.

    Args:
        name: as it is known.
        kind: the class of the program that uses it.
    """

    def __init__(self, name: str, kind: str) -> None:
        super().__init__()
        self.name = f"{name} (PHP)"
        self._kind = kind

    def build(self, directory: Callable[[], Path]) -> list[str]:
        """Find PHP; the program looks for the extension."""
        return [find_program("php", "php-cli"), str(CLIENT), self._kind]


class TestMysqli(Features):
    client = Php("mysqli", "OfMysqli")


class TestPdo(Features):
    client = Php("PDO", "OfPdo")
