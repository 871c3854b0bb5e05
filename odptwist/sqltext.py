"""SQL text as tokens: just enough of MySQL's lexical rules to tell words from strings and comments.

Source: MySQL reference manual, "Language Structure" (literals, identifiers, comments).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from enum import Enum, unique

from attrs import field, frozen


@unique
class Kind(Enum):
    """What a token is."""

    WORD = "word"
    STRING = "string"
    QUOTED = "quoted"
    NUMBER = "number"
    VARIABLE = "variable"
    SYMBOL = "symbol"


@unique
class Quoting(Enum):
    """Where a backslash takes away the meaning of the character behind it; the session's sql_mode decides."""

    DEFAULT = "in strings of either quote"
    ANSI_QUOTES = "in single quotes only, because double quotes hold names"
    NO_BACKSLASH_ESCAPES = "nowhere"


@frozen
class Token:
    """One token: `text` as it was written, and where; `executable` says whether it is in an executable comment."""

    kind: Kind
    text: str
    executable: bool = False
    start: int = field(default=0, eq=False, repr=False)

    @property
    def end(self) -> int:
        """Return the offset behind the token."""
        return self.start + len(self.text)

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
COMMENT = r"--(?=[\s\x00-\x1f\x7f]|\Z)[^\n]*+ | \#[^\n]*+ | /\*(?!!|M!)(?>(?:[^*]++|\*(?!/))*)(?>(?:\*/)?)"
STRING = r"""'(?>(?:[^'\\]++|\\.?+|'')*)'?+ | "(?>(?:[^"\\]++|\\.?+|"")*)"?+"""
QUOTED = r"`(?>(?:[^`]++|``)*)`?+"
_TOKEN = re.compile(
    rf"""
    (?P<space> \s++ | {COMMENT} )
  | (?P<open> /\*M?!\d*+ )
  | (?P<close> \*/ )
  | (?P<string> {STRING} )
  | (?P<quoted> {QUOTED} )
  | (?P<number> \d++(?>(?:\.\d*+)?)(?>(?:[eE][+-]?\d++)?)(?![\w$]) )
  | (?P<variable> @@?+(?>(?:[\w$.]++|{QUOTED}|{STRING})?) )
  | (?P<word> [\w$]++ )
  | (?P<symbol> := | . )
    """,
    re.VERBOSE | re.DOTALL,
)
# By their groups; a look into an Enum takes longer than all the rest of a token.
_KINDS: dict[str | None, Kind] = {**{kind.value: kind for kind in Kind}, "close": Kind.SYMBOL}
_LITERAL = re.compile(f"{COMMENT} | {STRING} | {QUOTED}", re.VERBOSE | re.DOTALL)
# As _LITERAL, but the quote that ends a literal is a group, and whether backslashes count is the reader's choice.
_ESCAPED = r"{0}(?>(?:[^{0}\\]++|\\.?+|{0}{0})*)(?>({0})?)"
_UNESCAPED = "{0}(?>(?:[^{0}]++|{0}{0})*)(?>({0})?)"
_ENDED = {
    quoting: re.compile(
        " | ".join((COMMENT, single.format("'"), double.format('"'), _UNESCAPED.format("`"))), re.VERBOSE | re.DOTALL
    )
    for quoting, single, double in (
        (Quoting.DEFAULT, _ESCAPED, _ESCAPED),
        (Quoting.ANSI_QUOTES, _ESCAPED, _UNESCAPED),
        (Quoting.NO_BACKSLASH_ESCAPES, _UNESCAPED, _UNESCAPED),
    )
}
UNENDED = "\0"


def bare(text: str) -> str:
    """Return a text with a space in place of every string, quoted name and comment; executable comments stay.

    Much faster than `tokens`, for a first look at what may be a row of a megabyte.
    """
    return _LITERAL.sub(" ", text)


def skeleton(text: str, quoting: Quoting) -> str:
    """Return a text with a pair of quotes in place of every literal and a space in place of every comment.

    Executable comments stay. In place of a literal that has no end stands `UNENDED`.
    """
    return _ENDED[quoting].sub(_stand_in, text)


def _stand_in(match: re.Match[str]) -> str:
    if match.lastindex:
        return match[match.lastindex] * 2
    return UNENDED if match[0][0] in "'\"`" else " "


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
            yield Token(_KINDS[group], match[0], executable, match.start())


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
