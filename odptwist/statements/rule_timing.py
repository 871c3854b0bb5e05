"""What the WHERE of a rule has to do with time: read from its text.

Between two constants that the columns of times are compared with, a condition can change only when the session does.
So that this is true, these columns may stand in nothing but `column < number` and the like, alone between brackets,
AND, OR and NOT. What binds less than a comparison in SQLite does no harm next to it; `=` and BETWEEN would.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from attrs import define, field

from odptwist.errors import SqlError
from odptwist.statements.grammar import Lexer, Token, TokenKind, unquote
from odptwist.statements.where import Condition
from odptwist.timing import Timing

_NUMBER = re.compile(r"[+-]?[0-9]+(?:\.[0-9]*)?")
# Columns of times, and the one of two clocks that each shows, at least while it is not 0.
_CLOCKS = {
    "seconds": "seconds",
    "statement_seconds": "seconds",
    "idle_seconds": "seconds",
    "transaction_seconds": "transaction_seconds",
}
_TURNED = {"<": ">", "<=": ">=", ">": "<", ">=": "<="}
_BEFORE = ("", "(", "AND", "OR", "NOT", "&&")
_AFTER = ("", ")", "AND", "OR", "&&")
# Outside of brackets these make it unclear which comparisons have to be true.
_UNCLEAR = frozenset(("OR", "BETWEEN", "CASE"))


def check_condition(text: str) -> None:
    """Raise `SqlError` unless a text can be the condition of a rule."""
    Condition(text).close()
    read_timing(text)


@define
class _Constants:
    """What columns of one clock are compared with, and the greatest value below which the condition is false."""

    values: set[float] = field(factory=set)
    least: float = 0.0


def read_timing(text: str) -> Timing:
    """Return what a condition, which has been compiled, has to do with time.

    Raises:
        SqlError: 1064, it uses a column that is a time otherwise than in a comparison with a number.
    """
    words = _read_words(text)
    depths = _depths(words)
    clear = not any(word in _UNCLEAR and not depth for word, depth in zip(words, depths, strict=True))
    clocks = {clock: _Constants() for clock in _CLOCKS.values()}
    for at, word in enumerate(words):
        if word not in _CLOCKS:
            continue
        comparison = _read_comparison(words, at)
        if comparison is None:
            raise SqlError(1064, "42000", f"WHERE: {word} has to be compared by <, <=, > or >= with a number alone")
        operator, number, before, after = comparison
        clock = clocks[_CLOCKS[word]]
        clock.values.add(number)
        necessary = before in ("", "AND", "&&") and after in ("", "AND", "&&")
        if clear and necessary and not depths[at] and operator in (">", ">="):
            clock.least = max(clock.least, number)
    state, transaction = clocks["seconds"], clocks["transaction_seconds"]
    return Timing(tuple(sorted(state.values)), tuple(sorted(transaction.values)), state.least, transaction.least)


def _read_words(text: str) -> Sequence[str]:
    """Return the tokens: columns that are times in lower case, other words in upper case, operators in one piece."""
    lexer = Lexer(text)
    words: list[str] = []
    end = -1
    while (token := lexer.next()).kind is not TokenKind.END:
        joined = (words[-1] if words else "") + token.text
        if token.start == end and joined in ("<=", ">=", "<>", "!=", "&&", "<=>"):
            words[-1] = joined
        else:
            words.append(_read_word(token))
        end = token.end
    return words


def _read_word(token: Token) -> str:
    quoted = token.kind is TokenKind.QUOTED and token.text[0] == "`"
    name = (unquote(token.text) if quoted else token.text).lower()
    if name in _CLOCKS and (quoted or token.kind is TokenKind.WORD):
        return name
    return token.word or token.text


def _depths(words: Sequence[str]) -> Sequence[int]:
    depths = []
    depth = 0
    for word in words:
        depth -= word == ")"
        depths.append(depth)
        depth += word == "("
    return depths


def _read_comparison(words: Sequence[str], at: int) -> tuple[str, float, str, str] | None:
    """Return how a column is compared, with what, and what stands before and after that; None if it is otherwise."""

    def word(place: int) -> str:
        return words[place] if 0 <= place < len(words) else ""

    if word(at + 1) in _TURNED:
        first, last, operator, number = at, at + 2, word(at + 1), _read_number(word(at + 2))
    else:
        first, last, operator, number = at - 2, at, _TURNED.get(word(at - 1), ""), _read_number(word(at - 2))
    before, after = word(first - 1), word(last + 1)
    if not operator or number is None or before not in _BEFORE or after not in _AFTER:
        return None
    return operator, number, before, after


def _read_number(word: str) -> float | None:
    return float(word) if _NUMBER.fullmatch(word) else None
