"""What each client is tried with: a client's own module has a subclass of `Features`."""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar

from tests.integration.clients.conftest import Entrance, See
from tests.support.clients import Address, Client
from tests.support.meter import Meter

LARGE = 40_000
"""Rows of the large result; each has 1000 bytes of text."""

SAMPLE = [
    [
        *("1", "-128", "18446744073709551615", "-123456789.125", "0.25", "2024-02-29", "2024-02-29 12:34:56.789012"),
        *("12:34:56", "Grüße, 世界 🐬", "00FF275C0A", 'it\'s "quoted"\\\n', None),
    ],
    ["2", "127", "0", "0.001", "-2.5", "1000-01-01", "9999-12-31 23:59:59.999999", "23:59:59", "", "", "x", None],
    ["3", *[None] * 11],
]
"""The rows of the table `sample`."""

WRONG = (
    "SELECT * FROM absent",
    "INSERT INTO sample (id) VALUES (1)",
    "SELEKT 1",
    "DELETE FROM mysql.user",
)
"""Statements that fail, each in its own way."""


class Features:
    """The tests of one client.

    Attributes:
        client: whose tests they are.
    """

    client: ClassVar[Client]

    def test_connect(self, see: See) -> None:
        """A client logs in with its password, and with another one it is told 1045."""
        statement = "SELECT CURRENT_USER(), DATABASE()"
        assert see("connect", statement).rows == [["app@%", "clients"]]
        refused = see("connect", statement, password="wrong").error
        assert refused
        assert refused.code == 1045
        assert refused.sqlstate in ("28000", None)

    def test_query(self, see: See) -> None:
        """Values of all types, text of all planes and NULL arrive as they are in the table."""
        assert see("query", "SELECT * FROM sample ORDER BY id").rows == SAMPLE

    def test_prepare(self, see: See, entrance: Entrance, behind: str) -> None:
        """A statement is prepared at the server and executed twice, and its values arrive as those of a plain one."""
        statement = "SELECT s.*, CONCAT('<', CAST(? AS CHAR), '>') FROM sample s WHERE id >= ? AND id <> 3 ORDER BY id"
        first, second = SAMPLE[:2]
        before = entrance.executions()
        assert see("prepare", statement).rows == [[*first, "<Grüße ☃>"], [*second, "<Grüße ☃>"], [*second, None]]
        if behind == "mariadb":  # seekdb does not count
            assert entrance.executions() == before + 2

    def test_large_result(self, see: See) -> None:
        """A result of 40 MB arrives whole."""
        assert see("large_result", "SELECT id, text FROM large").rows == [[str(LARGE), str(LARGE * 1000)]]

    def test_error(self, see: See, entrance: Entrance) -> None:
        """Errors have the number, the SQLSTATE and the text that the server gives directly, and the session goes on."""
        seen = see("error", "\n".join([*WRONG, "SELECT 1"]))
        *errors, last = seen.errors
        assert last is None
        assert seen.rows == [["1"]]
        for statement, told, direct in zip(WRONG, errors, entrance.direct_errors(WRONG), strict=True):
            assert told, statement
            assert told.code == direct.code, statement
            assert told.sqlstate in (direct.sqlstate, None), statement
            assert direct.message in told.message, statement

    def test_reconnect_after_kill(self, see: See, entrance: Entrance, note: Callable[[str], None]) -> None:
        """After KILL PROXYSESSION the next statement fails, and a new connection by the client's own means works."""
        seen = see("reconnect_after_kill", "SELECT 1", pause=entrance.kill)
        assert seen.error
        assert seen.rows == [["1"]]
        note(" ".join(str(part) for part in (seen.error.code, seen.error.message) if part))

    def test_tls(self, see: See, entrance: Entrance) -> None:
        """A client that checks the certificate connects by TLS, and refuses one of an unknown authority."""
        found: list[tuple[int, str]] = []
        seen = see("tls", "SELECT 1", pause=lambda number: found.append(entrance.encryption(number)))
        assert seen.rows == [["1"]]
        ((encrypted, cipher),) = found
        assert encrypted
        assert cipher.startswith("TLSv1.")
        assert see("tls", "SELECT 1", ca=entrance.other_ca).error

    def test_compression(self, see: See, address: Address) -> None:
        """A client that compresses gets a large result whole, in a small part of the bytes."""
        with Meter(address.port) as meter:
            seen = see("compression", "SELECT id, text FROM large", port=meter.port)
        assert seen.error is None
        assert seen.rows == [[str(LARGE), str(LARGE * 1000)]]
        assert meter.sent < LARGE * 1000 // 10
