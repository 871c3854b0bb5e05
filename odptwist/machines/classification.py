"""Which SQL statements a replica may answer.

Source: MySQL 8.4 reference manual, "SQL Statements" and "Language Structure"; sql/sql_lex.cc of MySQL 8.0;
src/sql/parser/sql_parser_mysql_mode.l of OceanBase 4.

How a text falls into tokens depends on what only its server knows: the session's sql_mode and character set, and its
own version, because of executable comments. A statement is READ only if it is READ however it may be read:

1. It is judged *at sight*: as if there were no quotes, so that what stands in literals counts too. No word, no call and
   no semicolon can hide from that, whatever the server takes for a literal. Only comments could, so texts with a mark
   of one are not judged at sight. This settles nearly all statements, in a few microseconds.
2. A text with something whose meaning we cannot enumerate (`_is_doubtful`) is what it was at sight, or else WRITE.
3. All others are judged without their literals and comments, once for each reading there is (`_readings`), and the
   most careful result holds.

All of it takes time linear in the size of the text: quantifiers are possessive, or what they repeat cannot match from
where they began before.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

from attrs import frozen

from odptwist.machines.exchange import LOOK_LIMIT
from odptwist.machines.judgement import RULES, Kind, judge
from odptwist.sqltext import COMMENT, QUOTED, STRING, UNENDED, Quoting, skeleton

__all__ = ["Classification", "Classifier", "Kind", "classify", "classify_text"]


@frozen
class Classification:
    """What a text is; `weak` is what its hint READ_CONSISTENCY says, None if it has none."""

    kind: Kind
    weak: bool | None = None


_CAREFULNESS: Final = (Kind.READ, Kind.NEUTRAL, Kind.LAST, Kind.WRITE)
# All there are: to make one takes longer than to judge a short text.
_CLASSIFICATION: Final = {(kind, weak): Classification(kind, weak) for kind in Kind for weak in (None, False, True)}
_PLAIN_READ: Final = _CLASSIFICATION[Kind.READ, None]

# A generation of the cache: a thousand texts of at most half a kilobyte. Longer ones cost less than what they ask for.
_GENERATION: Final = 1000
_KEPT_SIZE: Final = 512


class Classifier:
    """Tells what statements are, and remembers what took more than a look.

    The cache has two generations: what is asked for again moves into the young one, and when that is full it becomes
    the old one, whose place it takes. So a text that comes back within a thousand others stays, however many texts
    come only once. Statements that are settled at sight are not kept at all: they are the ones that come by the
    million with other literals each, and to judge them costs little more than to look them up.
    """

    __slots__ = ("_old", "_young")

    def __init__(self) -> None:
        self._young: dict[bytes, Classification] = {}
        self._old: dict[bytes, Classification] = {}

    def classify(self, command: bytes) -> Classification:
        """Classify a COM_QUERY or COM_STMT_PREPARE payload, or the beginning of one.

        A payload of `LOOK_LIMIT` bytes may be the beginning of a longer one, so it is WRITE.
        """
        if len(command) > _KEPT_SIZE:
            return classify(command[1:]) if len(command) < LOOK_LIMIT else _CLASSIFICATION[Kind.WRITE, None]
        found = self._young.get(command)
        if found is None:
            found = self._old.get(command)
            if found is None:
                text = command[1:]
                found, settled = _at_sight(text)
                if settled:
                    return found
                found = _closely(text, found.kind)
            if len(self._young) >= _GENERATION:
                self._old = self._young
                self._young = {}
            self._young[command] = found
        return found


def classify_text(text: str) -> Classification:
    """Classify a whole text."""
    return classify(text.encode("utf-8", "surrogatepass"))


def classify(text: bytes) -> Classification:
    """Classify a whole text, in the bytes that the client sent."""
    found, settled = _at_sight(text)
    return found if settled else _closely(text, found.kind)


# -- readings ----------------------------------------------------------------------------------------------------

# What `judge` takes: a byte beyond ASCII is a blank in one character set, a letter in another.
_FOLD: Final = bytes(
    0x20 if byte in b"\t\n\v\f\r" else 0xFF if byte > 0x7F else ord(chr(byte).lower()) for byte in range(256)
)
_FIRST: Final = re.compile(rb"[ (\t-\r]*+([\w$\x80-\xff]*+)")
_COMMENT_MARK: Final = re.compile(rb"--|#|/\*")
# Comments before the first word and a hint behind SELECT are none but in every reading, as long as no quote is in the
# hint: texts that begin so can still be judged at sight.
_OPENING: Final = re.compile(
    rb"(?>(?:\s++|/\*(?!!|M!)(?>(?:[^*]++|\*(?!/))*)\*/)*)(?>(?:[Ss][Ee][Ll][Ee][Cc][Tt]\s*+/\*\+([^*'\"`\\]*+)\*/)?)"
)
_QUOTE: Final = re.compile(rb"['\"`]")

# What is open among servers, or for us. It is searched as if there were no quotes: each of these is rare.
_DOUBTFUL: Final = re.compile(
    rb"""
    [\x80-\xff][\\`]        # one character in GBK and its like, and then no quote and no escape
  | \x00 | \r(?!\n)         # CR ends a line comment for OceanBase, not for MySQL
  | --(?:[\x01-\x08\v\f\x0e-\x1f\x7f-\xff] | [ \t]*+[\r\n])   # "--", newline: OceanBase also skips the next line
  | (?:date|time|timestamp)\s*+(?:'[^'\\]*+\\|"[^"\\]*+\\)    # no escapes in such literals for OceanBase
  | @(?:'(?![\w$.]*+'(?!['"`\w$./%])) | "(?![\w$.]*+"(?!['"`\w$./%])) | `(?![\w$.]*+`(?!['"`\w$./%])))
                            # OceanBase ends such a name where it is not plain
  | /\*\+(?!(?>(?:[^'"`*/]|\*(?!/)|/(?!\*)|'[^'"`*/]*+'|"[^'"`*/]*+"|`[^'"`*/]*+`)*)\*/)  # a hint that may go on
  | /\*M?!(?!(?>(?:\d{6}(?=\s)|\d{5}(?!\d))?)(?!\d)[\w\s$,=.()]*+\*/)  # an executable comment, more than words in it
    """,
    re.VERBOSE | re.IGNORECASE,
)
# 'a'#'b' is one string for OceanBase: a comment between two quotes is a blank to it.
_CONTINUED: Final = re.compile(rf"(?:{STRING})(\#|--) | {STRING} | {QUOTED} | {COMMENT}", re.VERBOSE | re.DOTALL)
_EXECUTABLE: Final = re.compile(rb"/\*m?!(?>(?:\d{5,6}+)?)([^*]*+)\*/")
# A character that no grammar has: it stands outside of literals only where a reading is not the server's.
_IMPOSSIBLE: Final = re.compile(rb"%b|\\(?!n)" % re.escape(UNENDED.encode()))

_HINT: Final = re.compile(
    rf"""
    (?<![\w$])select (?>(?:\s++|(?!/\*\+)(?:{COMMENT}))*) /\*\+ (?P<hint>(?>(?:[^*]++|\*(?!/))*)) \*/
  | {COMMENT} | {STRING} | {QUOTED}
    """,
    re.VERBOSE | re.DOTALL | re.IGNORECASE,
)
_CONSISTENCY: Final = re.compile(r"(?<!\w)read_consistency\s*+\(\s*+(weak|strong)\s*+\)", re.IGNORECASE)


def _at_sight(text: bytes) -> tuple[Classification, bool]:
    """Return how careful one must be with a text whatever its quotes mean, and whether there is nothing to add."""
    first = _FIRST.match(text)[1]  # type: ignore[index]  # it matches any text
    if first and first.lower() not in RULES:
        return _CLASSIFICATION[Kind.WRITE, None], True
    weak = None
    if _COMMENT_MARK.search(text):
        opening, hint = _OPENING.match(text).group(0, 1)  # type: ignore[union-attr]  # it matches any text
        text = text[len(opening) :]
        if hint is not None:
            text = b"select " + text
            weak = _consistency([hint.decode("latin-1")])
        if _COMMENT_MARK.search(text):
            return _CLASSIFICATION[Kind.WRITE, None], False
    kind = judge(text.translate(_FOLD))
    if kind is _PLAIN_READ.kind and weak is None:
        return _PLAIN_READ, True  # nearly always, and to look it up takes a tenth of the whole judgement
    return _CLASSIFICATION[kind, weak], kind is Kind.READ or not _QUOTE.search(text)


def _closely(text: bytes, at_sight: Kind) -> Classification:
    weak = None
    if b"/*+" in text:
        weak = _consistency([match["hint"] or "" for match in _HINT.finditer(text.decode("latin-1"))])
    if _is_doubtful(text):
        return _CLASSIFICATION[at_sight, weak]
    kinds = [judge(code) for code in _readings(text)]
    return _CLASSIFICATION[max(kinds, key=_CAREFULNESS.index, default=Kind.WRITE), weak]


def _is_doubtful(text: bytes) -> bool:
    if _DOUBTFUL.search(text):
        return True
    if text.count(b"/*!") + text.count(b"/*M!") > 1:  # each may count or not
        return True
    if b"#" in text or b"--" in text:
        # What is an escape to one server ends OceanBase's DATE'...' or a comment: too many ways to part.
        return b"\\" in text or any(match[1] for match in _CONTINUED.finditer(text.decode("latin-1")))
    return False


def _readings(text: bytes) -> Iterator[bytes]:
    """Yield what may be the code of a text, without its literals and comments; never one that no server can run."""
    for quoting in Quoting if b"\\" in text else (Quoting.DEFAULT,):
        # Latin-1, because all that matters is ASCII: it is the same in every character set that a client may use.
        code = skeleton(text.decode("latin-1"), quoting).encode("latin-1").translate(_FOLD)
        for contents in (rb" \1 ", b" ") if b"/*" in code else (b"",):
            reading = _EXECUTABLE.sub(contents, code)
            if not _IMPOSSIBLE.search(reading.partition(b";")[0]):
                yield reading


def _consistency(hints: list[str]) -> bool | None:
    """Return what hints say of READ_CONSISTENCY; who asks for both wants to be on the safe side."""
    asked = {consistency.lower() for hint in hints for consistency in _CONSISTENCY.findall(hint)}
    return "strong" not in asked if asked else None
