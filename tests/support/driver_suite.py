"""The tests that a driver's source distribution carries: fetched, and run by a pytest of their own against any port.

Nothing of them is kept here: they are fetched from PyPI, for each run anew.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tarfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from xml.etree import ElementTree

import attrs
import pytest

from tests.support.servers import missing

PATIENCE = 300.0
"""Seconds after which a run is ended."""


@attrs.frozen
class Outcomes:
    """What became of the tests of one run, by the test's name.

    Attributes:
        failed: those that failed, and those whose fixtures did.
        output: the end of what pytest wrote.
    """

    passed: frozenset[str]
    failed: frozenset[str]
    skipped: frozenset[str]
    output: str

    def __str__(self) -> str:
        names = ", ".join(sorted(self.failed)) or "none"
        return f"{len(self.passed)} passed, {len(self.skipped)} skipped, {len(self.failed)} failed: {names}"


def _pip(package: str, *arguments: str | Path) -> None:
    """Run pip, or skip the test with what it says."""
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    if done.returncode:
        missing(f"{package} from PyPI, as its sources (pip says: {done.stderr[-2000:]})")


class DriverSuite:
    """The tests of one driver, fetched into a directory, and the driver, built from the same sources.

    Attributes:
        name: the driver's, with its version.
        source: the directory of the sources.

    Args:
        base: an empty directory.
        package: as PyPI has it, with a version: `NAME==VERSION`.
        needs: what the tests want besides.
        conftest: what is to be said to pytest of these tests; the environment of a run tells the rest.
    """

    def __init__(self, base: Path, package: str, needs: Sequence[str] = (), conftest: str = "") -> None:
        name, _, version = package.partition("==")
        self.name = f"{name} {version}"
        _pip(package, "download", "--no-binary", name, "--no-deps", "--dest", base, package)
        (archive,) = base.glob("*.tar.gz")
        with tarfile.open(archive) as packed:
            packed.extractall(base, filter="data")
        self.source = base / archive.name.removesuffix(".tar.gz")
        self._installed = base / "installed"
        _pip(package, "install", "--target", self._installed, archive, *needs)
        if conftest:
            (self.source / "conftest.py").write_text(conftest, encoding="utf-8")

    def run(self, *arguments: str, environment: Mapping[str, str]) -> Outcomes:
        """Run the tests that pytest's arguments name."""
        report = self.source / "report.xml"
        options = ("-q", "-p", "no:cacheprovider", "-p", "no:twisted", f"--junit-xml={report}", "--tb=short")
        done = subprocess.run(
            [sys.executable, "-m", "pytest", *options, *arguments],
            cwd=self.source,
            env={**os.environ, "PYTHONPATH": str(self._installed), **environment},
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=False,
        )
        if done.returncode not in (0, 1):  # all passed, some failed
            pytest.fail(f"pytest ended with {done.returncode}:\n{(done.stdout + done.stderr)[-6000:]}")
        return _read(report, done.stdout[-20_000:])


def _read(report: Path, output: str) -> Outcomes:
    passed, failed, skipped = set(), set(), set()
    for case in ElementTree.parse(report).iter("testcase"):
        name = f"{case.get('classname')}.{case.get('name')}"
        verdicts = {child.tag for child in case}
        if verdicts & {"failure", "error"}:
            failed.add(name)
        elif "skipped" in verdicts:  # an expected failure is reported as skipped, too
            skipped.add(name)
        else:
            passed.add(name)
    return Outcomes(frozenset(passed), frozenset(failed), frozenset(skipped), output)
