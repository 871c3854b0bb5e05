"""The compatibility page of the documentation."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date
from pathlib import Path

from tests.integration.clients.features import Features
from tests.support.compatibility import Outcome, make_page

PAGE = Path(__file__).parents[3] / "docs/reference/compatibility.md"
DAY = date(2026, 11, 24)


def outcome(feature: str, server: str, word: str = "yes", client: str = "a", **more: str) -> Outcome:
    """Return an outcome."""
    return Outcome(client, server, feature, "It does.", word, version="1.0", server_version="10.11", **more)


def line_of(page: str, client: str) -> str:
    """Return the first row of a client."""
    return next(line for line in page.splitlines() if line.startswith(f"| {client} |"))


def test_words() -> None:
    """One word is for both servers, two are for either; what did not run says so, and a reason is told once."""
    outcomes = [
        *(outcome("connect", server) for server in ("mariadb", "seekdb")),
        outcome("query", "mariadb"),
        outcome("query", "seekdb", "no", reason="it | broke"),
        *(outcome(name, "mariadb", "not there", reason="none") for name in ("tls", "prepare")),
        *(outcome(name, "seekdb", "not there", reason="none") for name in ("tls", "prepare")),
    ]
    page = make_page(outcomes, {"Python": "3.11"}, DAY)
    assert line_of(page, "a") == (
        "| a | 1.0 | yes | yes / no[^1] | not there[^2] | not run | not run | not run | not there[^2] | not run |"
    )
    assert page.endswith("[^1]: it \\| broke\n[^2]: none\n")
    assert "| day | 2026-11-24 |" in page
    assert page == make_page(reversed(outcomes), {"Python": "3.11"}, DAY)


def test_other_tests() -> None:
    """A test of one client alone is told by its docstring; a client with none but those is in no other table."""
    page = make_page([outcome("dump", server) for server in ("mariadb", "seekdb")], {}, DAY)
    assert line_of(page, "a") == "| a | 1.0 | It does. | yes |"


def test_notes() -> None:
    """What a client tells after a KILL is told once, without the numbers of the run."""
    outcomes = [
        outcome("reconnect_after_kill", "mariadb", note="(conn=1978925092) reset"),
        outcome("reconnect_after_kill", "seekdb", note="(conn=1895301156) reset"),
    ]
    assert "| a | (conn=N) reset |" in make_page(outcomes, {}, DAY).splitlines()


def test_documentation() -> None:
    """The page has a row for each client that is tried here."""

    def below(kind: type) -> Iterator[type]:
        for each in kind.__subclasses__():
            yield each
            yield from below(each)

    page = PAGE.read_text(encoding="utf-8")
    for kind in below(Features):
        if client := getattr(kind, "client", None):
            assert f"| {client.name} |" in page, "make it anew: see the README"
