"""mysqlclient's own tests, run directly and through the proxy: the proxy makes no difference."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.servers import Proxy, Server, find_program, missing

VERSION = "2.3.1"
EXPECTED = 161


def pip(*arguments: str | Path) -> None:
    """Run pip, or skip the test with what it says."""
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    if done.returncode:
        missing(f"mysqlclient {VERSION} from PyPI, built from its sources (pip says: {done.stderr[-2000:]})")


@pytest.fixture(scope="module")
def suite(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Return the directory of mysqlclient's sources, which hold the tests, and the one that it is installed in."""
    for program, package in ("gcc", "gcc"), ("pkg-config", "pkg-config"), ("mariadb_config", "libmariadb-dev"):
        find_program(program, package)
    base = tmp_path_factory.mktemp("mysqlclient")
    pip("download", "--no-binary", "mysqlclient", "--no-deps", "--dest", base, f"mysqlclient=={VERSION}")
    [archive] = base.glob("mysqlclient-*.tar.gz")
    with tarfile.open(archive) as packed:
        packed.extractall(base, filter="data")
    pip("install", "--target", base / "installed", archive, "sqlalchemy")  # 4 of the tests are of SQLAlchemy with it
    return base / f"mysqlclient-{VERSION}", base / "installed"


def run(suite: tuple[Path, Path], settings: Path, port: int, user: str) -> tuple[dict[str, int], str]:
    """Run the tests against a port; return the counts of pytest's last line, by word, and the whole output."""
    source, installed = suite
    settings.write_text(
        f"[MySQLdb-tests]\nhost=127.0.0.1\nport={port}\nuser={user}\ndatabase=test\ndefault-character-set=utf8mb4\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(installed), "TESTDB": str(settings)}
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:twisted", "tests"]
    done = subprocess.run(
        command, cwd=source, env=environment, capture_output=True, text=True, timeout=240, check=False
    )
    counts = re.findall(r"(\d+) (passed|failed|error|skipped|xfailed)", done.stdout.strip().rpartition("\n")[2])
    return {word: int(count) for count, word in counts}, done.stdout


def test_same_passes(
    suite: tuple[Path, Path], mariadb: Server, start_proxy: Callable[..., Proxy], tmp_path: Path, figure: Callable
) -> None:
    """Through the proxy as many tests pass as directly: all of them."""
    direct, output = run(suite, tmp_path / "direct.cnf", int(mariadb.address.rpartition(":")[2]), "root")
    proxy = start_proxy("--server", mariadb.address)
    proxied, output_through = run(suite, tmp_path / "proxy.cnf", proxy.port, "root@sys")
    figure(f"mysqlclient {VERSION}: directly {direct}, through the proxy {proxied}")
    assert direct == {"passed": EXPECTED}, output
    assert proxied == direct, output_through
