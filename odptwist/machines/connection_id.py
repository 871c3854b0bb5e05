"""CONNECTION_ID() in statements on their way to a server: the number of the client session in place of the server's.

Source: MySQL 8.4 reference manual, "Information Functions" and "SELECT Statement"; how MariaDB 10.11 and seekdb 1.4
name the columns of some hundred forms: a select item by its own text, comments inside included.

`CAST(n AS UNSIGNED)` stands for the call, not the number alone: ORDER BY and GROUP BY would take that for the place of
a column. MariaDB gives it the very type that CONNECTION_ID() has. A select item without an alias gets its text as one.
In SET it is the number alone, because the value of a variable that is a literal can be set on another server session.

Left as they are, so that the server's own number comes:

- statements about the server's sessions (`processlist`, for instance), where the number is compared with its numbers;
- what is kept for other sessions: views, procedures, defaults of columns;
- texts that the caller does not have as a whole.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

from attrs import Factory, define

from odptwist.sqltext import Kind, Token, tokens

_MENTIONED: Final = re.compile(rb"connection_id|pseudo_thread_id", re.IGNORECASE)
_FUNCTION: Final = "CONNECTION_ID"
_VARIABLE: Final = re.compile(r"@@(?:(?:session|local)\s*\.\s*)?`?pseudo_thread_id`?", re.IGNORECASE)
_SCOPE: Final = re.compile(r"@@(?:session|local)\.?", re.IGNORECASE)

# Statements that are over when they have run. Others (CREATE VIEW) keep the call for whoever comes later.
_PASSING: Final = frozenset(
    "SELECT WITH INSERT REPLACE UPDATE DELETE SET DO CALL VALUES TABLE EXPLAIN DESCRIBE DESC ANALYZE".split()
)
_PROGRAMS: Final = frozenset(("PROCEDURE", "FUNCTION", "TRIGGER", "EVENT", "PACKAGE"))
# Tables and functions with the server's numbers; besides every name that ends in PROCESSLIST, OceanBase's included.
_OF_THE_SERVER: Final = frozenset(
    ("PERFORMANCE_SCHEMA", "PROCESSLIST_ID", "INNODB_TRX", "METADATA_LOCK_INFO", "IS_USED_LOCK")
)

_MODIFIERS: Final = frozenset(
    "ALL DISTINCT DISTINCTROW HIGH_PRIORITY STRAIGHT_JOIN SQL_SMALL_RESULT SQL_BIG_RESULT SQL_BUFFER_RESULT "
    "SQL_CACHE SQL_NO_CACHE SQL_CALC_FOUND_ROWS".split()
)
_ENDS_OF_ITEMS: Final = frozenset(
    "FROM WHERE GROUP HAVING ORDER LIMIT OFFSET FETCH UNION EXCEPT INTERSECT MINUS INTO FOR LOCK PROCEDURE WINDOW "
    "ON".split()
)
# Words that a literal may begin with.
_TYPED: Final = frozenset(("DATE", "TIME", "TIMESTAMP"))
# Words behind which a word or a string is an operand, and no alias.
_OPERATORS: Final = _TYPED | frozenset(
    "AND OR XOR NOT IS LIKE RLIKE REGEXP IN BETWEEN DIV MOD ESCAPE COLLATE OVER BINARY SOUNDS MEMBER OF INTERVAL "
    "WHEN THEN ELSE CASE".split()
)
_NAME_SIZE: Final = 255
"""What servers keep of the text that names a column, in characters."""


def mentions_id(text: bytes) -> bool:
    """Return whether `with_id` may have something to do."""
    return _MENTIONED.search(text) is not None


def with_id(text: str, number: int) -> str:
    """Return a text of one or more statements in which CONNECTION_ID() and @@pseudo_thread_id are this number."""
    edits: list[tuple[int, int, str]] = []
    statement: list[Token] = []
    for token in tokens(text):
        if token.text != ";":
            statement.append(token)
            continue
        if _begins_program(statement):
            break  # the semicolon is one of its body
        edits += _edit(text, statement, number)
        statement = []
    else:
        if not _begins_program(statement):
            edits += _edit(text, statement, number)
    parts: list[str] = []
    at = 0
    for start, end, new in sorted(edits):
        parts += (text[at:start], new)
        at = end
    return "".join((*parts, text[at:]))


def _begins_program(statement: Sequence[Token]) -> bool:
    return (
        bool(statement)
        and statement[0].word in ("CREATE", "ALTER", "BEGIN")
        and ((statement[0].word == "BEGIN" and len(statement) > 1) or any(each.word in _PROGRAMS for each in statement))
    )


def _edit(text: str, statement: Sequence[Token], number: int) -> list[tuple[int, int, str]]:
    """Return what to change: from where to where, and the text that comes there."""
    first = next((token.word for token in statement if token.text != "("), "")
    if first in ("PREPARE", "EXECUTE"):
        return _edit_literal(statement, number)
    begin = 0
    if first == "CREATE":  # TABLE ... SELECT; in front of that are the table's columns
        words = [token.word for token in statement]
        begin = words.index("SELECT") if "TABLE" in words[:4] and "SELECT" in words else len(words)
    elif first not in _PASSING:
        return []
    if any(_is_of_the_server(token) for token in statement):
        return []
    items = _Items(text, str(number) if first == "SET" else f"CAST({number} AS UNSIGNED)")
    at = 0
    while at < len(statement):
        size = _call_at(statement, at) if at >= begin else 0
        if not size:
            items.take(statement[at])
            at += 1
        else:
            items.take_call(statement[at : at + size])
            at += size
    items.end()
    return items.edits


def _is_of_the_server(token: Token) -> bool:
    if token.kind not in (Kind.WORD, Kind.QUOTED):
        return False
    name = token.name.upper()
    return name in _OF_THE_SERVER or name.endswith("PROCESSLIST")


def _edit_literal(statement: Sequence[Token], number: int) -> list[tuple[int, int, str]]:
    """Change the text that PREPARE or EXECUTE IMMEDIATE brings, if that is one literal without escapes."""
    literals = [token for token in statement if token.kind is Kind.STRING]
    if len(literals) != 1 or "\\" in literals[0].text:
        return []
    (literal,) = literals
    quote = literal.text[0]
    inner = literal.name.replace(quote * 2, quote)
    changed = with_id(inner, number)
    if changed == inner:
        return []
    return [(literal.start, literal.end, f"{quote}{changed.replace(quote, quote * 2)}{quote}")]


def _call_at(statement: Sequence[Token], at: int) -> int:
    """Return how many tokens from here on are a call of the function or the variable; 0 for none."""
    token = statement[at]
    if token.kind is Kind.VARIABLE:
        if _VARIABLE.fullmatch(token.text):
            size = 1
        elif _SCOPE.fullmatch(token.text):
            size = next((size for size in (2, 3) if _VARIABLE.fullmatch(_joined(statement[at : at + size]))), 0)
        else:
            size = 0
        return 0 if size and _is_assigned(statement, at, size) else size
    if token.kind not in (Kind.WORD, Kind.QUOTED) or token.name.upper() != _FUNCTION:
        return 0
    call = statement[at : at + 3]
    if [each.text for each in call[1:]] != ["(", ")"] or (at and statement[at - 1].text == "."):
        return 0
    return 3 if len({each.executable for each in call}) == 1 else 0


def _joined(pieces: Sequence[Token]) -> str:
    return "".join(each.text for each in pieces)


def _is_assigned(statement: Sequence[Token], at: int, size: int) -> bool:
    """Whether a variable is one that a SET statement sets."""
    return (
        statement[0].word == "SET"
        and statement[at - 1].text.upper() in ("SET", ",")
        and _joined(statement[at + size : at + size + 1]) in ("=", ":=")
    )


@define
class _List:
    """What stands between two brackets, or in none: perhaps a select list, with an item that has begun.

    Attributes:
        is_items: whether the next token belongs to a select item.
        item: its tokens, without those between brackets.
        calls: whether a call is in the item.
        called: whether one is in the list.
    """

    is_items: bool = False
    item: list[Token] = Factory(list)
    calls: bool = False
    called: bool = False

    def called_here(self) -> None:
        """Be told of a call, in the item or between brackets in it."""
        self.calls = self.called = True


class _Items:
    """Finds the select items that a call is in, and names those without an alias.

    Attributes:
        edits: the calls, and the aliases behind the items.
    """

    def __init__(self, text: str, new: str) -> None:
        self.edits: list[tuple[int, int, str]] = []
        self._text = text
        self._new = new
        self._lists = [_List()]

    def take_call(self, call: Sequence[Token]) -> None:
        """Take the next tokens, which are a call."""
        self.edits.append((call[0].start, call[-1].end, self._new))
        here = self._lists[-1]
        here.called_here()
        if here.is_items:
            here.item += call

    def take(self, token: Token) -> None:
        """Take the next token, which is none of a call."""
        here = self._lists[-1]
        word = token.word if not here.item or here.item[-1].text != "." else ""
        if token.text == ")" and len(self._lists) > 1:
            self._end_item()
            self._lists.pop()
            outer = self._lists[-1]
            if here.called:
                outer.called_here()
            if outer.is_items:
                outer.item.append(token)
        elif word in ("SELECT", "RETURNING"):
            self._end_item()
            here.is_items, here.calls = True, False
        elif here.is_items and (token.text == "," or word in _ENDS_OF_ITEMS):
            self._end_item()
            here.is_items = token.text == ","
        elif here.is_items and (here.item or word not in _MODIFIERS):
            here.item.append(token)
        if token.text == "(":
            self._lists.append(_List())

    def end(self) -> None:
        """Be told that the statement has ended."""
        self._end_item()

    def _end_item(self) -> None:
        here = self._lists[-1]
        item, here.item = here.item, []
        calls, here.calls = here.calls, False
        if not here.is_items or not item or not calls:
            return
        first, last = item[0], item[-1]
        if first.executable is last.executable and not _has_alias(item):
            name = self._text[first.start : last.end][:_NAME_SIZE].rstrip().replace("`", "``")
            self.edits.append((last.end, last.end, f" AS `{name}`"))


def _has_alias(item: Sequence[Token]) -> bool:
    """Whether a select item has an alias, or may have one for all that is known."""
    last = item[-1]
    if last.kind not in (Kind.WORD, Kind.QUOTED, Kind.STRING):
        return False
    before = item[-2]  # there is one, for a call ends in a bracket or is a variable
    if before.word == "AS":
        return True
    words = [token.word for token in item]
    if last.word == "END" and words.count("CASE") >= words.count("END"):
        return False
    if before.word in _OPERATORS or before.word.startswith("_"):
        return False
    if before.kind is Kind.STRING and last.kind is Kind.STRING:
        return item[-3].word in _TYPED  # DATE '2020-01-01' 'alias'; other strings side by side are one
    if before.kind is Kind.VARIABLE and before.text.endswith("."):  # @@session.`pseudo_thread_id`
        return False
    return before.kind is not Kind.SYMBOL or before.text == ")"
