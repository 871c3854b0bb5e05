"""Perl's DBD::mysql, which is libmariadb on Debian."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

from tests.integration.clients.features import Features
from tests.support.clients import Program
from tests.support.servers import find_program, missing

CLIENT = Path(__file__).parent / "perl/client.pl"


class DbdMysql(Program):
    name = "DBD::mysql (Perl)"

    def build(self, directory: Callable[[], Path]) -> list[str]:
        """Find Perl with the module."""
        perl = find_program("perl", "perl")
        if subprocess.run([perl, "-MDBD::mysql", "-e", "1"], capture_output=True, check=False).returncode:
            missing("Perl's DBD::mysql (Debian: libdbd-mysql-perl)")
        return [perl, str(CLIENT)]


class TestDbdMysql(Features):
    client = DbdMysql()
