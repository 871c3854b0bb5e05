"""MariaDB's connector for Java (JDBC)."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.integration.clients.features import Features
from tests.support.clients import Program
from tests.support.servers import find_program, missing

CLIENT = Path(__file__).parent / "jdbc/Client.java"
LIBRARY = Path("/usr/share/java/mariadb-java-client.jar")


class Jdbc(Program):
    name = "MariaDB Connector/J"

    def build(self, directory: Callable[[], Path]) -> list[str]:
        """Compile the program."""
        compiler, java = (find_program(name, "default-jdk-headless") for name in ("javac", "java"))
        if not LIBRARY.exists():
            missing("MariaDB Connector/J (Debian: libmariadb-java)")
        classes = directory()
        command = [compiler, "-encoding", "UTF-8", "-d", str(classes), str(CLIENT)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
        if done.returncode:
            pytest.fail(done.stdout + done.stderr)
        # The first of these makes a short run shorter, and the second one takes less memory.
        options = ["-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC"]
        return [java, *options, "-cp", f"{classes}:{LIBRARY}", "Client"]


class TestJdbc(Features):
    client = Jdbc()
