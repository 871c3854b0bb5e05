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

Not seen from here: views whose definition calls functions that write, and temporary tables, which only the server
session has that made them (`session_state` pins those).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from enum import Enum, unique
from typing import Final

from attrs import frozen

from odptwist.machines.calls import HARMLESS, OF_THE_LAST, OF_THE_SESSION, SYMBOLS
from odptwist.machines.exchange import LOOK_LIMIT
from odptwist.sqltext import COMMENT, QUOTED, STRING, UNENDED, Quoting, skeleton


@unique
class Kind(Enum):
    """What a statement asks of the server session that runs it."""

    READ = "any server may answer it"
    NEUTRAL = "changes no table, but belongs to the session on the primary"
    LAST = "belongs to the server session that ran the statement before it"
    WRITE = "changes something, or is not known to change nothing"


@frozen
class Classification:
    """What a text is; `weak` is what its hint READ_CONSISTENCY says, None if it has none."""

    kind: Kind
    weak: bool | None = None


_CAREFULNESS: Final = (Kind.READ, Kind.NEUTRAL, Kind.LAST, Kind.WRITE)
# All there are: to make one takes longer than to judge a short text.
_CLASSIFICATION: Final = {(kind, weak): Classification(kind, weak) for kind in Kind for weak in (None, False, True)}

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

# Texts are judged in lower case, with one kind of blank. All bytes beyond ASCII are the same, and neither blanks nor
# letters: in one character set they are the one, in another the other.
_FOLD: Final = bytes(
    0x20 if byte in b"\t\n\v\f\r" else 0xFF if byte > 0x7F else ord(chr(byte).lower()) for byte in range(256)
)
_FIRST: Final = re.compile(rb"[ (\t-\r]*+([\w$\x80-\xff]*+)")
_COMMENT_MARK: Final = re.compile(rb"--|#|/\*")
# Comments before the first word and a hint behind SELECT are none but in every reading, as long as no quote is in the
# hint: texts that begin so can still be judged at sight.
_OPENING: Final = re.compile(
    rb"(?:\s++|/\*(?!!|M!)(?:[^*]++|\*(?!/))*+\*/)*+(?:[Ss][Ee][Ll][Ee][Cc][Tt]\s*+/\*\+([^*'\"`\\]*+)\*/)?+"
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
  | /\*\+(?!(?:[^'"`*/]|\*(?!/)|/(?!\*)|'[^'"`*/]*+'|"[^'"`*/]*+"|`[^'"`*/]*+`)*+\*/)   # a hint that may go on
  | /\*M?!(?!(?:\d{6}(?=\s)|\d{5}(?!\d))?+(?!\d)[\w\s$,=.()]*+\*/)   # an executable comment with more than words in it
    """,
    re.VERBOSE | re.IGNORECASE,
)
# 'a'#'b' is one string for OceanBase: a comment between two quotes is a blank to it.
_CONTINUED: Final = re.compile(rf"(?:{STRING})(\#|--) | {STRING} | {QUOTED} | {COMMENT}", re.VERBOSE | re.DOTALL)
_EXECUTABLE: Final = re.compile(rb"/\*m?!(?:\d{5,6}+)?+([^*]*+)\*/")
# A character that no grammar has: it stands outside of literals only where a reading is not the server's.
_IMPOSSIBLE: Final = re.compile(rb"%b|\\(?!n)" % re.escape(UNENDED.encode()))

_HINT: Final = re.compile(
    rf"(?<![\w$])select(?:\s++|(?!/\*\+)(?:{COMMENT}))*+/\*\+(?P<hint>(?:(?!\*/).)*+)\*/ | {COMMENT} | {STRING} | {QUOTED}",
    re.VERBOSE | re.DOTALL | re.IGNORECASE,
)
_CONSISTENCY: Final = re.compile(r"(?<!\w)read_consistency\s*+\(\s*+(weak|strong)\s*+\)", re.IGNORECASE)


def _at_sight(text: bytes) -> tuple[Classification, bool]:
    """Return how careful one must be with a text whatever its quotes mean, and whether there is nothing to add."""
    first = _FIRST.match(text)[1]  # type: ignore[index]  # it matches any text
    if first and first.lower() not in _RULES:
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
    kind = _judge(text.translate(_FOLD))
    return _CLASSIFICATION[kind, weak], kind is Kind.READ or not _QUOTE.search(text)


def _closely(text: bytes, at_sight: Kind) -> Classification:
    weak = None
    if b"/*+" in text:
        weak = _consistency([match["hint"] or "" for match in _HINT.finditer(text.decode("latin-1"))])
    if _is_doubtful(text):
        return _CLASSIFICATION[at_sight, weak]
    kinds = [_judge(code) for code in _readings(text)]
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


# -- judgement ---------------------------------------------------------------------------------------------------


def _words(*words: str) -> bytes:
    # What precedes a word is looked at last: so a search jumps from one first letter to the next. A digit may precede:
    # "1e5for" are two tokens.
    return "|".join(rf"{word}(?![\w$])(?<![a-z_$]{word})" for word in words).encode()


# Reserved words, or no less telling; what may follow one of them without harm; and \N, which is NULL and may have a
# word right behind it.
_WRITING: Final = re.compile(
    rb"(?:\\n|%b)(?!(?<=for) ++(?:\d|(?:join|order|group)(?![\w$])))(?!(?:(?<=insert)|(?<=replace)) *+\()"
    % _words(
        "for",
        "into",
        "lock",
        "procedure",
        "update",
        "delete",
        "insert",
        "replace",
        "returning",
        "nextval",
        "currval",
        "lastval",
    )
)
# What stands before each "(", read from the end of the text to its beginning: whether there is a blank, and the word,
# with a dot if it is a qualified one, or the symbol.
_BEFORE: Final = re.compile(rb"\((?=( ?) *+([\w$\xff`'\"]++(?: *+\.)?+|.|))", re.DOTALL)
_HARMLESS_BEFORE: Final = frozenset((b" " * name.endswith(b" "), name.rstrip()[::-1]) for name in HARMLESS) | {
    (b" ", symbol) for symbol in SYMBOLS
}
# The same, from the beginning; nothing if it calls nothing because of its place.
_CALLED: Final = re.compile(
    rb"""
    (?: \) | (?<![\w$.\xff`'"])as\  ) \ *+ [\w$]++ \ *+ \(                          # an alias, and names of columns
  | (?<![\w$.\xff`'"]) [\w$]++ \ *+ \( (?:[\w$,\ ]|``)*+ \) \ *+ as \ *+ \(         # WITH a name, and names of columns
  | ( (?: \. \ *+ | (?<![\w$\xff`'"]) ) [\w$\xff`'"]++ \ ?+ | [^\ \w$] ) \ *+ \(
    """,
    re.VERBOSE,
)
# The name is missing if it is not plain.
_SYSTEM_VARIABLE: Final = re.compile(rb"@@(?:(?:session|local)\.)?+([\w$.]++(?! *+[.`'\"\xff]))?+")
# System variables that another server has otherwise, or that tell what the server session did.
_OF_A_SERVER: Final = re.compile(
    rb"|.*\..*|gtid.*|.*_gtid.*|last_.*|identity|insert_id|in_transaction|pseudo_.*|rand_seed.|hostname|port|socket"
    rb"|pid_file|bind_address|.*dir|.*read_only|server_.*|report_.*|log_.*|relay_.*|replica_.*|slave_.*|source_.*"
    rb"|master_.*|rpl_.*|wsrep_.*|proxy_user|external_user|ob_last_.*"
)
_ABOUT_THE_LAST: Final = frozenset((b"warning_count", b"error_count", b"last_trace_id"))

_SHOWS_THE_LAST: Final = re.compile(
    rb" *+show ++(?:count *+\( *+\* *+\) *+)?+(?:warnings|errors|profiles?|trace)(?![\w$])"
)
_SET_STATEMENT: Final = re.compile(rb" *+set ++statement (?:(?! for )(?:[\w$ =,.@+-]|''|\"\"))++ for ++(.*+)")
_SET_FOR_ALL: Final = re.compile(
    rb" *+set ++(?:password|default|statement)(?![\w$])"
    rb"|(?:(?<![\w$])set|,) *+(?:@@ *+)?+(?:global|persist|persist_only)(?![\w$])"
)
_EXPLAINED: Final = re.compile(
    rb" *+(?:(?:explain|desc|describe|analyze|extended|format *+= *+(?:\w++|''))(?![\w$]) *+)++"
)
_EXPLAINS_INTO: Final = re.compile(rb" *+explain ++into(?![\w$])")
_BEGIN: Final = re.compile(rb" *+begin(?: ++work)?+ *+")
_SECOND: Final = re.compile(rb" *+\w++ *+(\w*+)")


def _judge(code: bytes) -> Kind:
    """Judge folded code: several statements are WRITE if one of them is, and never READ."""
    if b";" not in code:
        return _judge_one(code)
    parts = [part for part in code.split(b";") if not part.isspace() and part]
    kinds = {_judge_one(part) for part in parts}
    if len(parts) > 1:
        return Kind.WRITE if Kind.WRITE in kinds else Kind.NEUTRAL
    return kinds.pop() if kinds else Kind.NEUTRAL


def _judge_one(code: bytes) -> Kind:
    rule = _rule(code)
    if rule is not _read and b"(" in code and code.lstrip(b" ").startswith(b"("):
        return Kind.WRITE
    return rule(code)


def _rule(code: bytes) -> Callable[[bytes], Kind]:
    return _RULES.get(_FIRST.match(code)[1], _write)  # type: ignore[index]  # it matches any code


def _read(code: bytes) -> Kind:
    """Judge a query, or anything that is no more than its expressions."""
    if _WRITING.search(code):
        return Kind.WRITE
    kind = _call(code) if b"(" in code else Kind.READ
    if b"@" not in code or kind is Kind.WRITE:
        return kind
    variables = set(_SYSTEM_VARIABLE.findall(code))
    if variables & _ABOUT_THE_LAST or kind is Kind.LAST:
        return Kind.LAST
    if b":=" in code or any(_OF_A_SERVER.fullmatch(name) for name in variables):
        return Kind.NEUTRAL
    return kind


def _call(code: bytes) -> Kind:
    """Judge what code calls."""
    if _HARMLESS_BEFORE.issuperset(_BEFORE.findall(code[::-1])):
        return Kind.READ
    called = {name.rstrip(b" ") for name in set(_CALLED.findall(code)) - HARMLESS}
    if called - OF_THE_SESSION - OF_THE_LAST:
        return Kind.WRITE
    if called:
        return Kind.LAST if called & OF_THE_LAST else Kind.NEUTRAL
    return Kind.READ


def _write(code: bytes) -> Kind:
    return Kind.WRITE


def _neutral(code: bytes) -> Kind:
    return Kind.NEUTRAL


def _never_read(kind: Kind) -> Kind:
    return Kind.NEUTRAL if kind is Kind.READ else kind


def _expressions(code: bytes) -> Kind:
    return _never_read(_read(code))


def _set(code: bytes) -> Kind:
    statement = _SET_STATEMENT.match(code)
    if statement:  # no server takes one inside another
        return Kind.WRITE if _SET_STATEMENT.match(statement[1]) else _judge_one(statement[1])
    return Kind.WRITE if _SET_FOR_ALL.search(code) else _expressions(code)


def _show(code: bytes) -> Kind:
    return Kind.LAST if _SHOWS_THE_LAST.match(code) else _never_read(_call(code))


def _explain(code: bytes) -> Kind:
    """Judge EXPLAIN, DESCRIBE and ANALYZE: only with the last word the statement is run."""
    if _EXPLAINS_INTO.match(code):  # OceanBase stores the plan in a table
        return Kind.WRITE
    if b"analyze" not in code:
        return Kind.NEUTRAL
    if _second(code) == b"table":  # ANALYZE TABLE gathers statistics
        return Kind.WRITE
    explained = _EXPLAINED.sub(b"", code, count=1)
    return _expressions(explained) if _rule(explained) is _read else Kind.WRITE


def _begin(code: bytes) -> Kind:
    """Judge BEGIN: what is not a transaction's is a block's (BEGIN NOT ATOMIC)."""
    return Kind.NEUTRAL if _BEGIN.fullmatch(code) else Kind.WRITE


def _get(code: bytes) -> Kind:
    return Kind.LAST


def _second(code: bytes) -> bytes:
    match = _SECOND.match(code)
    return match[1] if match else b""


def _neutral_before(*seconds: bytes) -> Callable[[bytes], Kind]:
    """Return the rule of a word whose statements are neutral with these second words only."""
    return lambda code: Kind.NEUTRAL if _second(code) in seconds else Kind.WRITE


# By first word; the empty one is a text without a word. All others write.
_RULES: Final[dict[bytes, Callable[[bytes], Kind]]] = {
    b"": lambda code: Kind.WRITE if code.strip() else Kind.NEUTRAL,
    b"select": _read,
    b"with": _read,
    b"values": _read,
    b"table": _read,
    b"set": _set,
    b"show": _show,
    b"do": _expressions,
    b"handler": _expressions,
    b"prepare": _expressions,
    b"explain": _explain,
    b"desc": _explain,
    b"describe": _explain,
    b"analyze": _explain,
    b"begin": _begin,
    b"start": _neutral_before(b"transaction"),
    b"release": _neutral_before(b"savepoint"),
    b"xa": _neutral_before(b"start", b"begin", b"end", b"rollback", b"recover"),
    b"lock": _neutral_before(b"table", b"tables", b"instance"),
    b"get": _get,
    b"deallocate": _neutral,
    b"help": _neutral,
    b"rollback": _neutral,
    b"savepoint": _neutral,
    b"unlock": _neutral,
    b"use": _neutral,
}
