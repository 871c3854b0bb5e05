"""Where the keys of a TOML text stand: tomllib returns values, but does not tell their lines.

Source: https://toml.io/en/v1.0.0

A text is cut into its statements: a table header, or a key with its value. Where a statement ends is the only thing
that is decided here; what its key is tomllib itself is asked, so every spelling of a key is understood.
"""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Iterator
from typing import Any, Final

from attrs import frozen

Key = tuple[str | int, ...]
"""The way from the top of a file to a value: names of keys, and numbers in arrays from 0."""

_TOKEN: Final = re.compile(
    r"""
    # The end of a multi-line string may have two quotes more, which belong to the string.
    (?P<string> \"{3} (?: \\. | [^\\] )*? \"{3,5}(?!\") | '{3} .*? '{3,5}(?!') | " (?: \\. | [^"\\] )* " | '[^']*' )
    | (?P<comment> \#[^\n]* )
    | (?P<open> [\[{] )
    | (?P<close> [\]}] )
    | (?P<comma> , )
    | (?P<newline> \n )
    | (?P<word> [^\s"'\#\[\]{},]+ )
    """,
    re.VERBOSE | re.DOTALL,
)
_BARE: Final = re.compile(r"[A-Za-z0-9_-]+")


@frozen
class _Statement:
    """A statement, the line where it begins, and where the items of the array that it sets begin."""

    line: int
    text: str
    items: dict[Key, int]


class KeyLines:
    """The lines of the keys of a TOML text, counted from 1.

    Args:
        text: one that tomllib reads without a fault.
    """

    def __init__(self, text: str) -> None:
        self._lines: dict[Key, int] = {}
        tables: dict[Key, int] = {}
        here: Key = ()
        for statement in _statements(text):
            names = _names(tomllib.loads(statement.text))
            if statement.text.startswith("["):
                here = _header(names, statement.text.startswith("[["), tables)
                self._note(here, statement.line)
            else:
                key = (*here, *names)
                self._note(key, statement.line)
                for item, line in statement.items.items():
                    self._note((*key, *item), line)

    def _note(self, key: Key, line: int) -> None:
        self._lines[key] = line
        # What is only implied, such as `a` by `[a.b]`, may still get a header of its own, which then counts.
        for size in range(1, len(key)):
            self._lines.setdefault(key[:size], line)

    def line(self, key: Key) -> int | None:
        """Return the line of a key, or of the nearest thing around it that has one; None if nothing has."""
        return next((self._lines[key[:size]] for size in range(len(key), 0, -1) if key[:size] in self._lines), None)


def spelled(key: Key) -> str:
    """Return a key as people write it: `cluster[1].server[0].address`."""
    text = ""
    for step in key:
        if isinstance(step, int):
            text += f"[{step}]"
        else:
            text += ("." if text else "") + (step if _BARE.fullmatch(step) else json.dumps(step))
    return text


def _statements(text: str) -> Iterator[_Statement]:
    line = 1
    # A statement may go on over lines inside of brackets. Each open one counts the items before this one. In an inline
    # table that names nothing, and does no harm: its keys have the line of the whole.
    brackets: list[int] = []
    start, start_line, items = -1, 0, dict[Key, int]()
    for token in _TOKEN.finditer(text + "\n"):
        kind = token.lastgroup
        if kind == "newline" and not brackets and start >= 0:
            yield _Statement(start_line, token.string[start : token.end()], items)
            start = -1
        elif kind in ("string", "word", "open"):
            if start < 0:
                start, start_line, items = token.start(), line, {}
            if brackets:
                items.setdefault(tuple(brackets), line)
            if kind == "open":
                brackets.append(0)
        elif kind == "close":
            brackets.pop()
        elif kind == "comma":
            brackets[-1] += 1
        line += token[0].count("\n")


def _names(value: Any) -> list[str]:
    """Return the key of the only value of a TOML text, as far as there is no second one beside it."""
    names = []
    while isinstance(value, dict) and len(value) == 1:
        [(name, value)] = value.items()
        names.append(name)
    return names


def _header(names: list[str], repeated: bool, tables: dict[Key, int]) -> Key:
    """Return the key of the table that a header begins.

    Args:
        names: as the header has them.
        repeated: whether it is `[[...]]`.
        tables: how many tables each array of them has so far.
    """
    key: Key = ()
    for place, name in enumerate(names, 1):
        key = (*key, name)
        if repeated and place == len(names):
            tables[key] = tables.get(key, 0) + 1
        if key in tables:
            key = (*key, tables[key] - 1)
    return key
