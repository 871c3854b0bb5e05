"""Go's go-sql-driver."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import ClassVar

import pytest

from tests.integration.clients.features import Features
from tests.support.clients import Program
from tests.support.servers import find_program, missing

CLIENT = Path(__file__).parent / "go/client.go"
GOPATH = Path("/usr/share/gocode")
PACKAGE = "golang-github-go-sql-driver-mysql-dev"


class GoSqlDriver(Program):
    name = "go-sql-driver"
    lacks: ClassVar = {"compression": "not in version 1.5"}

    def build(self, directory: Callable[[], Path]) -> list[str]:
        """Compile the program, with the library as Debian has it."""
        go = find_program("go", "golang-go")
        if not (GOPATH / "src/github.com/go-sql-driver/mysql").exists():
            missing(f"go-sql-driver (Debian: {PACKAGE})")
        asked = subprocess.run(["dpkg-query", "-W", "-f", "${Version}", PACKAGE], capture_output=True, text=True)
        version = asked.stdout.partition("-")[0]
        base = directory()
        settings = {"GO111MODULE": "off", "GOPATH": str(GOPATH), "GOCACHE": str(base / "cache"), "CGO_ENABLED": "0"}
        # -s, -w: without what debuggers need it is linked faster.
        command = [go, "build", "-o", str(base / "client"), "-ldflags", f"-s -w -X main.version={version}", str(CLIENT)]
        environment = {**os.environ, **settings}
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300, check=False)
        if done.returncode:
            pytest.fail(done.stdout + done.stderr)
        return [str(base / "client")]


class TestGoSqlDriver(Features):
    client = GoSqlDriver()
