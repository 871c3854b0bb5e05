"""What drivers and programs send before a user types anything, for sessions without a server.

Source: spec section 1.4; the logins of the `mariadb` program, PyMySQL, mysqlclient and MySQL Connector/J.
"""

from __future__ import annotations

import re
from typing import Final, cast

from attrs import frozen
from twisted.internet.defer import Deferred, succeed
from zope.interface import implementer

from odptwist import __version__
from odptwist.answers import Answer, Column, ColumnType, Done, Table, Value
from odptwist.errors import bad_proxy_statement
from odptwist.interfaces import IProxyStatement, ISessionDirectory
from odptwist.snapshots import Asker

# As the proxy's greeting says where no server has told its version: drivers choose their statements by it.
_VERSION: Final = f"5.7.25-odptwist-{__version__}"
_VARIABLES: Final[dict[str, Value]] = {
    "auto_increment_increment": 1,
    "autocommit": 1,
    "character_set_client": "utf8mb4",
    "character_set_connection": "utf8mb4",
    "character_set_results": "utf8mb4",
    "character_set_server": "utf8mb4",
    "collation_connection": "utf8mb4_general_ci",
    "collation_server": "utf8mb4_general_ci",
    "init_connect": "",
    "interactive_timeout": 28800,
    "lower_case_table_names": 0,
    "max_allowed_packet": 16777216,
    "net_buffer_length": 16384,
    "net_write_timeout": 60,
    "sql_mode": "",
    "system_time_zone": "UTC",
    "time_zone": "SYSTEM",
    "transaction_isolation": "READ-COMMITTED",
    "transaction_read_only": 0,
    "tx_isolation": "READ-COMMITTED",
    "tx_read_only": 0,
    "version": _VERSION,
    "version_comment": "an account of the proxy's own: no server behind it",
    "wait_timeout": 28800,
}
_FLAGS: Final = re.IGNORECASE | re.VERBOSE | re.ASCII
_ITEM: Final = re.compile(
    r"""
    (?: (?P<number>[0-9]{1,18}) | '(?P<text>[^'\\]*+)' | @@(?>(?:(?:session|global|local)\.)?)(?P<variable>\w++)
      | (?P<function>\w++)\s*+\(\s*+\) )
    (?>(?: \s++ (?>(?:as\s++)?) (?!(?:from|limit)\b) (?P<alias>\w++) )?)
    """,
    _FLAGS,
)
_BEGINNING: Final = re.compile(r"select\s++", _FLAGS)
_COMMA: Final = re.compile(r"\s*+,\s*+", _FLAGS)
_END: Final = re.compile(r"(?>(?:\s++from\s++dual)?)(?>(?:\s++limit\s++[0-9]++)?)\s*+;?+\s*+", _FLAGS)


@frozen
class Courtesy:
    """A statement that is answered with OK, and does nothing."""


@implementer(IProxyStatement)
class AnswerOk:
    """Statements that set up a session or a transaction: there is neither, and OK is what the client waits for."""

    name = "answer ok"
    first_words = ("SET", "BEGIN", "START", "COMMIT", "ROLLBACK", "USE")

    def parse(self, text: str) -> object | None:
        """Return a `Courtesy`."""
        return Courtesy()

    def answer(self, request: object, asker: Asker, directory: ISessionDirectory) -> Deferred[Answer]:
        """Fire with OK."""
        return succeed(Done())


@frozen
class Probe:
    """One item of a SELECT: the name of its column, and its value or what its value is got from."""

    name: str
    value: Value = None
    function: str = ""


@frozen
class Probes:
    """A SELECT without a table."""

    items: tuple[Probe, ...]


@implementer(IProxyStatement)
class AnswerProbes:
    """`SELECT item [, ...] [LIMIT n]` of numbers, strings, well-known variables and functions without arguments."""

    name = "answer probes"
    first_words = ("SELECT",)

    def parse(self, text: str) -> object | None:
        """Return `Probes`.

        Raises:
            SqlError: 5010, it is another SELECT.
        """
        probes = _read(text)
        if probes is None:
            raise bad_proxy_statement("there is no server behind this account")
        return probes

    def answer(self, request: object, asker: Asker, directory: ISessionDirectory) -> Deferred[Answer]:
        """Fire with one row."""
        items = cast(Probes, request).items
        row = tuple(_call(each.function, asker) if each.function else each.value for each in items)
        columns = tuple(
            Column(each.name, ColumnType.LONGLONG if isinstance(value, int) else ColumnType.VARCHAR)
            for each, value in zip(items, row, strict=True)
        )
        return succeed(Table(columns, (row,)))


_USER_FUNCTIONS: Final = frozenset(("user", "current_user", "session_user", "system_user"))
_FUNCTIONS: Final = _USER_FUNCTIONS | {"connection_id", "database", "schema", "version"}


def _read(text: str) -> Probes | None:
    beginning = _BEGINNING.match(text)
    items: list[Probe] = []
    place = beginning.end() if beginning else -1
    while place >= 0 and (item := _ITEM.match(text, place)):
        name = item["alias"] or item[0]
        variable = (item["variable"] or "").lower()
        function = (item["function"] or "").lower()
        if item["number"] is not None:
            items.append(Probe(name, int(item["number"])))
        elif item["text"] is not None:
            items.append(Probe(name, item["text"]))
        elif variable in _VARIABLES:
            items.append(Probe(name, _VARIABLES[variable]))
        elif function in _FUNCTIONS:
            items.append(Probe(name, function=function))
        else:
            return None
        comma = _COMMA.match(text, item.end())
        if comma is None:
            return Probes(tuple(items)) if _END.fullmatch(text, item.end()) else None
        place = comma.end()
    return None


def _call(function: str, asker: Asker) -> Value:
    if function in _USER_FUNCTIONS:
        return f"{asker.identity.user}@{asker.identity.tenant}"
    if function == "connection_id":
        return asker.cs_id
    return _VERSION if function == "version" else None
