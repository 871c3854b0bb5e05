"""A settings file: TOML tables become classes, and whatever is wrong is collected, with the line where it stands.

The classes are ordinary attrs ones, whose attributes all have defaults. Beside plain types, lists and further such
classes they may have types annotated with `Between`, `Read` or `OneOrMore`.
"""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Callable, Iterator
from typing import Annotated, Any, Final, TypeVar, get_args, get_origin

from attrs import Factory, define, frozen, has
from cattrs import ClassValidationError, Converter, IterableValidationError
from cattrs.cols import list_structure_factory
from cattrs.errors import ForbiddenExtraKeysError, IterableValidationNote
from cattrs.gen import make_dict_structure_fn

from odptwist.config_lines import Key, KeyLines, spelled
from odptwist.errors import ConfigError

T = TypeVar("T")

SIZE_LIMIT: Final = 1024 * 1024
"""Bytes of a settings file; far above any real one, it is there for a wrong path such as that of a device."""

_PLACE: Final = re.compile(r" \(at (?:line (\d+), column (\d+)|end of document)\)$")


@frozen
class Between:
    """Annotates a number, of which both bounds are allowed values; `unit` is for the text of a fault."""

    low: float
    high: float
    unit: str = ""

    def check(self, value: Any) -> None:
        """Raise ValueError if a number is not in the range; nan never is."""
        if not self.low <= value <= self.high:
            raise ValueError(f"must be from {self.low} to {self.high}{' ' if self.unit else ''}{self.unit}")


@frozen
class Read:
    """Annotates what is read from a text: `by` returns the value, or raises ValueError with a sentence.

    `numbers` says whether a whole number may stand for its digits.
    """

    by: Callable[[str], Any]
    numbers: bool = False


@frozen
class OneOrMore:
    """Annotates a list of which one item may stand without brackets."""


@define
class ConfigFile:
    """A settings file, or none, and what is wrong with it so far."""

    path: str = ""
    _table: dict[str, Any] = Factory(dict)
    _lines: KeyLines = Factory(lambda: KeyLines(""))
    _faults: list[tuple[Key, str]] = Factory(list)
    _faulty: set[Key] = Factory(set)

    @classmethod
    def read(cls, path: str) -> ConfigFile:
        """Read a file.

        Raises:
            ConfigError: it cannot be read, or is no TOML.
        """
        try:
            with open(path, "rb") as stream:
                content = stream.read(SIZE_LIMIT + 1)
        except OSError as fault:
            raise ConfigError(f"{path}: {os.strerror(fault.errno or 0)}") from None
        if len(content) > SIZE_LIMIT:
            raise ConfigError(f"{path}: more than {SIZE_LIMIT} bytes")
        try:
            text = content.decode()
            return cls(path, tomllib.loads(text), KeyLines(text))
        except UnicodeDecodeError as fault:
            line = content.count(b"\n", 0, fault.start) + 1
            raise ConfigError(f"{path}:{line}: not a TOML file: its bytes are not UTF-8") from None
        except RecursionError:
            raise ConfigError(f"{path}: not a TOML file: nested too deeply") from None
        except tomllib.TOMLDecodeError as fault:
            raise ConfigError(_syntax_fault(path, text, str(fault))) from None
        except ValueError:
            # Python's own, of int(), which has a limit of 4300 digits; where they stand it does not say.
            raise ConfigError(f"{path}: not a TOML file: a number has too many digits") from None

    def structure(self, kind: type[T]) -> T:
        """Return the tables as an object of a class, without what is faulty; its faults are noted."""
        try:
            return _CONVERTER.structure(self._table, kind)
        except ClassValidationError as error:
            faults = list(_faults(error, ()))
        for key, what in faults:
            self.fault(key, what)
        # The longest first: what is cut off may be a list of which a part has to be reached.
        for key, _ in sorted(faults, key=lambda fault: len(fault[0]), reverse=True):
            self._cut(key)
        return _CONVERTER.structure(self._table, kind)

    def _cut(self, key: Key) -> None:
        # An item is cut off with its list: the numbers of the other items are needed as they are.
        while isinstance(key[-1], int):
            key = key[:-1]
        table: Any = self._table
        for step in key[:-1]:
            table = table[step]
        table.pop(key[-1], None)

    def fault(self, key: Key, what: str) -> None:
        """Note what is wrong with the value of a key; `what` follows the key and a colon."""
        self._faults.append((key, what))
        self._faulty.update(key[:size] for size in range(1, len(key) + 1))

    def missing(self, key: Key) -> None:
        """Note that a key is not there, unless it was and is known to be faulty."""
        if not self.is_faulty(key):
            self.fault(key, "is missing")

    def is_faulty(self, key: Key) -> bool:
        """Return whether something is known to be wrong with the value of a key, or in it."""
        return key in self._faulty

    @property
    def faults(self) -> list[str]:
        """What is wrong, in the order of the lines."""
        placed = [(self._lines.line(key) or 0, f"{spelled(key)}: {what}") for key, what in self._faults]
        return [f"{self.path}:{line or ''}{':' if line else ''} {text}" for line, text in sorted(placed)]


def check_value(kind: type, key: str, value: object) -> Any:
    """Return the value of a key as a table of a class would have it.

    Raises:
        ValueError: with what is wrong, as in the fault of a file.
    """
    file = ConfigFile(table={key: value})
    table: Any = file.structure(kind)
    for _, what in file._faults:
        raise ValueError(what)
    return getattr(table, key)


def _syntax_fault(path: str, text: str, fault: str) -> str:
    place = _PLACE.search(fault)
    if place is None:
        return f"{path}: not a TOML file: {fault}"
    line, column = place.groups()
    last_line = text.rstrip().count("\n") + 1
    at = f" (column {column})" if column else ""
    return f"{path}:{line or last_line}: not a TOML file: {fault[: place.start()]}{at}"


def _faults(error: ClassValidationError | IterableValidationError, key: Key) -> Iterator[tuple[Key, str]]:
    noted, others = error.group_exceptions()
    for fault, note in noted:
        below: Key = (*key, note.index if isinstance(note, IterableValidationNote) else note.name)
        if isinstance(fault, ClassValidationError | IterableValidationError):
            yield from _faults(fault, below)
        else:
            yield below, str(fault)
    for fault in others:
        if isinstance(fault, ForbiddenExtraKeysError):
            for name in sorted(fault.extra_fields):
                yield (*key, name), "there is no such setting"
        else:
            yield key, str(fault)


def _converter() -> Converter:
    converter = Converter()

    def exactly(name: str, *kinds: type) -> Callable[[Any, Any], Any]:
        def structure(value: Any, _: Any) -> Any:
            # cattrs would turn 7 into "7" and "7" into 7; a settings file should say what it means.
            if (isinstance(value, bool) and bool not in kinds) or not isinstance(value, kinds):
                raise TypeError(f"must be {name}")
            return value

        return structure

    text = exactly("a text", str)
    number = exactly("a number or a text", int, str)
    converter.register_structure_hook(str, text)
    converter.register_structure_hook(bool, exactly("true or false", bool))
    converter.register_structure_hook(int, exactly("a whole number", int))
    converter.register_structure_hook(float, exactly("a number", float, int))

    def table(kind: Any) -> Callable[[Any, Any], Any]:
        fill = make_dict_structure_fn(kind, converter, _cattrs_forbid_extra_keys=True)

        def structure(value: Any, _: Any) -> Any:
            if not isinstance(value, dict):
                raise TypeError("must be a table")
            return fill(value, kind)

        return structure

    def sequence(kind: Any) -> Callable[[Any, Any], Any]:
        fill = list_structure_factory(kind, converter)
        name = "a list of tables, each below a [[header]]" if has(get_args(kind)[0]) else "a list"

        def structure(value: Any, _: Any) -> Any:
            if not isinstance(value, list):
                raise TypeError(f"must be {name}")
            return fill(value, kind)

        return structure

    def annotated(kind: Any) -> Callable[[Any, Any], Any]:
        plain, meaning = get_args(kind)

        def between(value: Any, _: Any) -> Any:
            meaning.check(converter.structure(value, plain))
            return plain(value)

        def read(value: Any, _: Any) -> Any:
            return meaning.by(str(number(value, None)) if meaning.numbers else text(value, None))

        def one_or_more(value: Any, _: Any) -> Any:
            if isinstance(value, list):
                return converter.structure(value, plain)
            return [converter.structure(value, get_args(plain)[0])]

        return between if isinstance(meaning, Between) else read if isinstance(meaning, Read) else one_or_more

    converter.register_structure_hook_factory(has, table)
    converter.register_structure_hook_factory(lambda kind: _origin(kind) is list, sequence)
    converter.register_structure_hook_factory(lambda kind: _origin(kind) is Annotated, annotated)
    return converter


def _origin(kind: Any) -> Any:
    return get_origin(kind)


_CONVERTER: Final = _converter()
