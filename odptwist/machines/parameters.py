"""Proxy statements with parameters: a `?` stands for an integer, or for a text where one is due.

Such a statement is found and answered as the text that its values make of it, so no other part of the proxy has to know
of parameters.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

from attrs import frozen

from odptwist.errors import SqlError
from odptwist.sqltext import Kind, tokens

_INTEGER: Final = re.compile(rb"\s*+([+-]?+\d{1,17})\s*+")
"""ODP's INT (spec section 1.1), which no session's number passes."""
_LIMIT: Final = 10**17
_BEFORE_TEXTS: Final = frozenset(("LIKE", "REASON"))
# A NAME of ODP's has no escapes; what cannot stand in one is refused, so that a value never ends its quotes.
_PLAIN_TEXT: Final = re.compile(r"[^'\\\x00]*+")

_WRONG_ARGUMENTS: Final = 1210


@frozen
class Template:
    """A text with parameters.

    Attributes:
        pieces: of the text, around the parameters.
        texts: for each parameter, whether it is a text.
    """

    pieces: tuple[str, ...]
    texts: tuple[bool, ...] = ()

    @classmethod
    def of(cls, text: str) -> Template:
        """Return the template that a text is, which may have no parameters."""
        pieces, texts = [], []
        at = 0
        before = ""
        for token in tokens(text):
            if token.kind is Kind.SYMBOL and token.text == "?":
                pieces.append(text[at : token.start])
                texts.append(before in _BEFORE_TEXTS)
                at = token.end
            before = token.word
        return cls((*pieces, text[at:]), tuple(texts))

    @property
    def sample(self) -> str:
        """Return the text with some value in place of every parameter."""
        return self._join(["'1'" if text else "1" for text in self.texts])

    def fill(self, values: Sequence[int | float | bytes | None]) -> str:
        """Return the text with these values, one for each parameter.

        Raises:
            SqlError: 1210, a value is not what its place takes.
        """
        return self._join(
            [
                _text(place, value) if text else _integer(place, value)
                for place, (text, value) in enumerate(zip(self.texts, values, strict=True))
            ]
        )

    def _join(self, values: Sequence[str]) -> str:
        parts = [self.pieces[0]]
        for value, piece in zip(values, self.pieces[1:], strict=True):
            parts += (" ", value, " ", piece)
        return "".join(parts)


def _integer(place: int, value: float | bytes | None) -> str:
    """Return an integer, however a driver sends it: as a number of any kind, or as digits."""
    if isinstance(value, bytes):
        digits = _INTEGER.fullmatch(value)
        if digits is not None:
            return str(int(digits[1]))
    elif value is not None and -_LIMIT < value < _LIMIT and value == int(value):
        return str(int(value))
    raise _refusal(place, "an integer of at most 17 digits")


def _text(place: int, value: float | bytes | None) -> str:
    text = value.decode("utf-8", "surrogateescape") if isinstance(value, bytes) else None
    if text is None or not _PLAIN_TEXT.fullmatch(text):
        raise _refusal(place, "a text without quotes and backslashes")
    return f"'{text}'"


def _refusal(place: int, due: str) -> SqlError:
    return SqlError(_WRONG_ARGUMENTS, "HY000", f"Incorrect arguments to EXECUTE: parameter {place + 1} must be {due}")
