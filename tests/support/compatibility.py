"""Writes the compatibility page of the documentation from a run of the tests of clients.

The tests tell what they are about by `record_property`: see `Outcome`. The page depends on nothing but that, the
versions and the day.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from datetime import date
from pathlib import Path
from typing import Any

import attrs
import pytest

from tests.support.clients import FEATURES

SERVERS = ("mariadb", "seekdb")
_TITLES = {"mariadb": "MariaDB", "seekdb": "seekdb"}
_HEADS = {"large_result": "large result", "reconnect_after_kill": "after KILL", "tls": "TLS"}


@attrs.frozen
class Outcome:
    """What one test came to.

    Attributes:
        client: its name.
        version: of the client; empty where it is not installed.
        server: "mariadb" or "seekdb".
        server_version: as SELECT VERSION() gives it; empty where the server was not asked for.
        feature: of `FEATURES`, or another test's name.
        says: the first line of the test's docstring.
        word: "yes", "no", "not there" (the client does not have it) or "not run".
        reason: why, unless it is "yes".
        note: what the test found worth telling.
    """

    client: str
    server: str
    feature: str
    says: str
    word: str
    version: str = ""
    server_version: str = ""
    reason: str = ""
    note: str = ""


def _fault(report: pytest.TestReport) -> str:
    crash = getattr(report.longrepr, "reprcrash", None)
    return str(crash.message if crash else report.longrepr).partition("\n")[0]


def outcome_of(report: pytest.TestReport) -> Outcome | None:
    """Return what a report says about a client, or None."""
    told: dict[str, Any] = dict(report.user_properties)
    if "client" not in told or (report.when != "call" and report.passed):
        return None
    lacks = told.pop("lacks", None)
    if report.passed:
        word, reason = "yes", ""
    elif lacks is not None:
        word, reason = "not there", lacks
    elif report.failed or hasattr(report, "wasxfail"):
        word, reason = "no", getattr(report, "wasxfail", "") or _fault(report)
    else:
        longrepr: Any = report.longrepr
        word, reason = "not run", longrepr[2].removeprefix("Skipped: ")
    return Outcome(word=word, reason=reason.removeprefix("reason: "), **told)


class _Notes:
    """The footnotes, each text once."""

    def __init__(self) -> None:
        self._texts: list[str] = []

    def mark(self, text: str) -> str:
        if not text:
            return ""
        if text not in self._texts:
            self._texts.append(text)
        return f"[^{self._texts.index(text) + 1}]"

    def lines(self) -> Iterable[str]:
        for number, text in enumerate(self._texts, 1):
            yield f"[^{number}]: {text}"


def _cell(text: str) -> str:
    # A connection id is another one in each run.
    return re.sub(r"\d{7,}", "N", " ".join(text.split()).replace("|", "\\|"))


def _row(*cells: str) -> str:
    return f"| {' | '.join(cells)} |"


def _table(*heads: str) -> list[str]:
    return [_row(*heads), _row(*["---"] * len(heads))]


def make_page(outcomes: Iterable[Outcome], setting: Mapping[str, str], day: date) -> str:
    """Return the page.

    Args:
        outcomes: of all tests, in any order.
        setting: versions of what is neither a client nor a server, by name.
        day: of the run.
    """
    found = {(each.client, each.feature, each.server): each for each in outcomes}
    clients = sorted({client for client, feature, _ in found if feature in FEATURES}, key=str.casefold)
    versions = {each.client: each.version for each in found.values() if each.version}
    servers = {each.server: each.server_version for each in found.values() if each.server_version}
    notes = _Notes()

    def words(client: str, feature: str) -> str:
        cells = []
        for server in SERVERS:
            each = found.get((client, feature, server))
            cells.append(each.word + notes.mark(_cell(each.reason)) if each else "not run")
        return cells[0] if len(set(cells)) == 1 else " / ".join(cells)

    lines = [
        "# Which clients work",
        "",
        "Each client below was run through odptwist before MariaDB and before seekdb, by the tests in",
        "`tests/integration/clients`, and judged by the same tests. This page is made by them:",
        "",
        "```sh",
        "pytest tests/integration/clients --compatibility docs/reference/compatibility.md",
        "```",
        "",
        "- *connect*: logs in with a password, and is told 1045 with a wrong one.",
        "- *query*: values of all types, text of all planes, and NULL.",
        "- *prepare*: a statement that is prepared at the server, and executed twice by the binary protocol.",
        "- *large result*: 40 MB in 40,000 rows.",
        "- *error*: number, SQLSTATE and text are those that the server gives directly.",
        "- *after KILL*: `KILL PROXYSESSION` is an error for the client, which then connects again by its own means.",
        "- *TLS*: checks the proxy's certificate, and refuses one that it does not trust.",
        "- *compression*: a large result, in less than a tenth of its bytes.",
        "",
        "One word is for both servers, two are for MariaDB and for seekdb. *not there*: the client does not have it.",
        "",
        *_table("client", "version", *(_HEADS.get(feature, feature) for feature in FEATURES)),
    ]
    for client in clients:
        lines.append(_row(client, versions.get(client, "?"), *(words(client, feature) for feature in FEATURES)))
    others = {(each.client, each.feature): each.says for each in found.values() if each.feature not in FEATURES}
    if others:
        lines += ["", "## What else was tried", "", *_table("client", "version", "what", "result")]
        for client, feature in sorted(others, key=lambda key: (key[0].casefold(), key[1])):
            says = _cell(others[client, feature])
            lines.append(_row(client, versions.get(client, "?"), says, words(client, feature)))
    told: dict[str, dict[str, None]] = {}
    for client in clients:
        noted = [found[key].note for server in SERVERS if (key := (client, "reconnect_after_kill", server)) in found]
        told[client] = dict.fromkeys(_cell(note) for note in noted if note)
    if any(told.values()):
        lines += ["", "## What a client tells after KILL", "", *_table("client", "error")]
        lines += [_row(client, " / ".join(texts)) for client, texts in told.items() if texts]
    lines += ["", "## The run", "", *_table("", "")]
    lines.append(_row("day", day.isoformat()))
    lines += [_row(_TITLES[server], servers[server]) for server in SERVERS if server in servers]
    lines += [_row(name, text) for name, text in setting.items()]
    foot = list(notes.lines())
    if foot:
        lines += ["", *foot]
    return "\n".join(lines) + "\n"


class CompatibilityPage:
    """A plugin of pytest's that collects the outcomes and writes the page.

    Args:
        path: of the page.
        setting: as for `make_page`.
    """

    def __init__(self, path: Path, setting: Mapping[str, str]) -> None:
        self._path = path
        self._setting = setting
        self._outcomes: list[Outcome] = []

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Keep what a test came to."""
        if (outcome := outcome_of(report)) is not None:
            self._outcomes.append(outcome)

    def pytest_sessionfinish(self) -> None:
        """Write the page."""
        if self._outcomes:
            self._path.write_text(make_page(self._outcomes, self._setting, date.today()), encoding="utf-8")
