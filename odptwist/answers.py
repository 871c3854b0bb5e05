"""What a proxy statement answers, before anybody thinks of packets."""

from __future__ import annotations

from enum import IntEnum

from attrs import frozen


class ColumnType(IntEnum):
    """The column types that proxy statements use, by their number on the wire."""

    TINY = 1
    LONG = 3
    DOUBLE = 5
    LONGLONG = 8
    VARCHAR = 15


@frozen
class Column:
    """One column of a `Table`."""

    name: str
    type: ColumnType
    unsigned: bool = False


Value = int | str | None


@frozen
class Table:
    """A result set: each row has one value per column, None for SQL NULL; a DOUBLE is the text of a number."""

    columns: tuple[Column, ...]
    rows: tuple[tuple[Value, ...], ...]


@frozen
class Done:
    """An OK: how many sessions it touched is not told (`affected` stays 0, as ODP answers)."""

    warnings: int = 0
    message: str = ""


Answer = Table | Done
