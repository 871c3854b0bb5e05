"""SQL text as tokens: just enough of MySQL's lexical rules to tell words from strings and comments.

Source: MySQL reference manual, "Language Structure" (literals, identifiers, comments).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from enum import Enum, unique

from attrs import frozen


@unique
class Kind(Enum):
    """What a token is."""

    WORD = "word"
    STRING = "string"
    QUOTED = "quoted"
    NUMBER = "number"
    VARIABLE = "variable"
    SYMBOL = "symbol"


@frozen
class Token:
    """One token; `text` is as it was written, `executable` whether it stands in an executable comment."""

    kind: Kind
    text: str
    executable: bool = False

    @property
    def word(self) -> str:
        """Return an unquoted word in upper case, and the empty string for any other token."""
        return self.text.upper() if self.kind is Kind.WORD else ""

    @property
    def name(self) -> str:
        """Return the identifier that a word, a quoted identifier or a string spells."""
        if self.kind is Kind.QUOTED:
            return self.text[1:].removesuffix("`").replace("``", "`")
        if self.kind is Kind.STRING:
            return self.text[1:-1]
        return self.text


# Possessive quantifiers: a text of any size is read in linear time. Strings and comments may lack their end.
_COMMENT = r"--(?=[\s\x00-\x1f]|\Z)[^\n]*+ | \#[^\n]*+ | /\*(?!!|M!)(?:(?!\*/).)*+(?:\*/)?+"
_STRING = r"""'(?:[^'\\]++|\\.?+|'')*+'?+ | "(?:[^"\\]++|\\.?+|"")*+"?+"""
_QUOTED = r"`(?:[^`]++|``)*+`?+"
_TOKEN = re.compile(
    rf"""
    (?P<space> \s++ | {_COMMENT} )
  | (?P<open> /\*M?!\d*+ )
  | (?P<close> \*/ )
  | (?P<string> {_STRING} )
  | (?P<quoted> {_QUOTED} )
  | (?P<number> \d++(?:\.\d*+)?+(?:[eE][+-]?\d++)?+(?![\w$]) )
  | (?P<variable> @@?+(?:[\w$.]++|`(?:[^`]++|``)*+`|'[^']*+'|"[^"]*+")?+ )
  | (?P<word> [\w$]++ )
  | (?P<symbol> := | . )
    """,
    re.VERBOSE | re.DOTALL,
)
_LITERAL = re.compile(f"{_COMMENT} | {_STRING} | {_QUOTED}", re.VERBOSE | re.DOTALL)


def bare(text: str) -> str:
    """Return a text with a space in place of every string, quoted name and comment; executable comments stay.

    Much faster than `tokens`, for a first look at what may be a row of a megabyte.
    """
    return _LITERAL.sub(" ", text)


def tokens(text: str) -> Iterator[Token]:
    """Yield the tokens of a text; comments vanish, but what executable ones hold is there."""
    executable = False
    for match in _TOKEN.finditer(text):
        group = match.lastgroup
        if group == "space":
            continue
        if group == "open":
            executable = True
        elif group == "close" and executable:
            executable = False
        else:
            yield Token(Kind.SYMBOL if group == "close" else Kind(group), match[0], executable)


def statements(text: str) -> Iterator[list[Token]]:
    """Yield the statements of a text, one list of tokens each, without their semicolons; none is empty."""
    found: list[Token] = []
    for token in tokens(text):
        if token.text == ";":
            if found:
                yield found
            found = []
        else:
            found.append(token)
    if found:
        yield found


def has_word(text: str) -> bool:
    """Return whether a text holds anything but blanks and comments."""
    return next(tokens(text), None) is not None
