"""What a statement does, by its words and by what it calls; literals and comments are out of it already.

Source: MySQL 8.4 reference manual, "SQL Statements"; MariaDB knowledge base, "SQL Statements".

Nothing is parsed. A statement is what its first word says, unless a reserved word, a call or a system variable anywhere
in it says something worse. More text never makes a result better, so a judgement holds also for a text that has
literals in it: it is then too careful, if anything.

Not seen from here: views whose definition calls functions that write, and temporary tables, which only the server
session has that made them (`session_state` pins those).
"""

from __future__ import annotations

import re
from collections.abc import Callable
from enum import Enum, unique
from typing import Final

from odptwist.machines.calls import HARMLESS, OF_THE_LAST, OF_THE_SESSION, SYMBOLS


@unique
class Kind(Enum):
    """What a statement asks of the server session that runs it."""

    READ = "any server may answer it"
    NEUTRAL = "changes no table, but belongs to the session on the primary"
    LAST = "belongs to the server session that ran the statement before it"
    WRITE = "changes something, or is not known to change nothing"


def _words(*words: str) -> bytes:
    # What precedes a word is looked at last: so a search jumps from one first letter to the next. A digit may precede:
    # "1e5for" are two tokens.
    return "|".join(rf"{word}(?![\w$])(?<![a-z_$]{word})" for word in words).encode()


# As numbers: `59 in code` is five times as fast as `b";" in code`, where CPython asks first if that is a number.
_SEMICOLON, _PARENTHESIS, _AT = b";(@"

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
_BEFORE: Final = re.compile(rb"\((?=( ?) *+([\w$\xff`'\"]++(?>(?: *+\.)?)|.|))", re.DOTALL)
_HARMLESS_BEFORE: Final = frozenset((b" " * name.endswith(b" "), name.rstrip()[::-1]) for name in HARMLESS) | {
    (b" ", symbol) for symbol in SYMBOLS
}
# The same, from the beginning; nothing if it calls nothing because of its place.
_CALLED: Final = re.compile(
    rb"""
    (?: \) | (?<![\w$.\xff`'"])as\  ) \ *+ [\w$]++ \ *+ \(                             # an alias, and names of columns
  | (?<![\w$.\xff`'"]) [\w$]++ \ *+ \( (?>(?:[\w$,\ ]|``)*) \) \ *+ as \ *+ \(      # WITH a name, and names of columns
  | ( (?: \. \ *+ | (?<![\w$\xff`'"]) ) [\w$\xff`'"]++ \ ?+ | [^\ \w$] ) \ *+ \(
    """,
    re.VERBOSE,
)
# The name is missing if it is not plain.
_SYSTEM_VARIABLE: Final = re.compile(rb"@@(?>(?:(?:session|local)\.)?)(?>([\w$.]++(?! *+[.`'\"\xff]))?)")
# System variables that another server has otherwise, or that tell what the server session did.
_OF_A_SERVER: Final = re.compile(
    rb"|.*\..*|gtid.*|.*_gtid.*|last_.*|identity|insert_id|in_transaction|pseudo_.*|rand_seed.|hostname|port|socket"
    rb"|pid_file|bind_address|.*dir|.*read_only|server_.*|report_.*|log_.*|relay_.*|replica_.*|slave_.*|source_.*"
    rb"|master_.*|rpl_.*|wsrep_.*|proxy_user|external_user|ob_last_.*"
)
_ABOUT_THE_LAST: Final = frozenset((b"warning_count", b"error_count", b"last_trace_id"))

_SHOWS_THE_LAST: Final = re.compile(
    rb" *+show ++(?>(?:count *+\( *+\* *+\) *+)?)(?:warnings|errors|profiles?|trace)(?![\w$])"
)
_SET_STATEMENT: Final = re.compile(rb" *+set ++statement (?>(?:(?! for )(?:[\w$ =,.@+-]|''|\"\"))+) for ++(.*+)")
_SET_FOR_ALL: Final = re.compile(
    rb" *+set ++(?:password|default|statement)(?![\w$])"
    rb"|(?:(?<![\w$])set|,) *+(?>(?:@@ *+)?)(?:global|persist|persist_only)(?![\w$])"
)
_EXPLAINED: Final = re.compile(
    rb" *+(?>(?:(?:explain|desc|describe|analyze|extended|format *+= *+(?:\w++|''))(?![\w$]) *+)+)"
)
_EXPLAINS_INTO: Final = re.compile(rb" *+explain ++into(?![\w$])")
_BEGIN: Final = re.compile(rb" *+begin(?>(?: ++work)?) *+")
_FIRST: Final = re.compile(rb"[ (]*+([\w$\xff]*+)")
_SECOND: Final = re.compile(rb" *+\w++ *+(\w*+)")


def judge(code: bytes) -> Kind:
    """Judge the code of one or more statements; several are never READ.

    Args:
        code: in lower case, with the space for any blank and 0xff for any byte beyond ASCII.
    """
    if _SEMICOLON not in code:
        return _judge_one(code)
    parts = [part for part in code.split(b";") if not part.isspace() and part]
    kinds = {_judge_one(part) for part in parts}
    if len(parts) > 1:
        return Kind.WRITE if Kind.WRITE in kinds else Kind.NEUTRAL
    return kinds.pop() if kinds else Kind.NEUTRAL


def _judge_one(code: bytes) -> Kind:
    rule = _rule(code)
    if rule is not _read and _PARENTHESIS in code and code.lstrip(b" ").startswith(b"("):
        return Kind.WRITE
    return rule(code)


def _rule(code: bytes) -> Callable[[bytes], Kind]:
    return RULES.get(_FIRST.match(code)[1], _write)  # type: ignore[index]  # it matches any code


def _read(code: bytes) -> Kind:
    """Judge a query, or anything that is no more than its expressions."""
    if _WRITING.search(code):
        return Kind.WRITE
    kind = _call(code) if _PARENTHESIS in code else Kind.READ
    if _AT not in code or kind is Kind.WRITE:
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
RULES: Final[dict[bytes, Callable[[bytes], Kind]]] = {
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
