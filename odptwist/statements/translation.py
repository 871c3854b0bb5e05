"""How expressions over sessions are written anew for SQLite.

The text is cut into tokens by our own lexer and written anew, never pasted. So what counts as a string, a comment or a
bracket is MySQL's notion: both kinds of quotes are strings with MySQL's escapes (in every sql_mode), names may be in
backticks, `&&` is AND, `<=>` is IS, and `||` (OR to MySQL, concatenation to SQLite) is refused. In SQLite, text in
double quotes is a name, or a string if there is no such name; none ever gets there.
"""

from __future__ import annotations

from collections.abc import Sequence

from odptwist.errors import SqlError
from odptwist.statements.grammar import MAX_EXPRESSION, Lexer, Token, TokenKind, unquote

_MAX_MESSAGE = 200
_SYMBOLS = frozenset("(),.=<>!+-*/%&|~")
_OPERATORS = {"!=": "!=", "<>": "<>", "<=": "<=", ">=": ">=", "<=>": "IS", "&&": "AND", "||": ""}


def translate(text: str, clause: str = "WHERE") -> str:
    """Write an expression, or several with commas between them, anew for SQLite.

    Raises:
        SqlError: 1064, it is empty, too long, holds what neither knows, or its brackets do not match.
    """
    if len(text) > MAX_EXPRESSION:
        raise refuse(f"the expression is longer than {MAX_EXPRESSION:,} characters", clause)
    lexer, tokens = Lexer(text), list[Token]()
    while (token := lexer.next()).kind is not TokenKind.END:
        tokens.append(token)
    if not tokens:
        raise refuse("the expression is empty", clause)
    pieces: list[str] = []
    depth, operator, end = 0, "", 0
    for index, token in enumerate(tokens):
        joined = operator + token.text if token.start == end else ""
        end = token.end
        if joined in _OPERATORS:
            operator = joined
            pieces[-1] = _OPERATORS[joined]
            if not pieces[-1]:
                raise refuse("|| is not understood in an expression: write OR", clause)
            continue
        operator = token.text if token.kind is TokenKind.SYMBOL else ""
        depth += (operator == "(") - (operator == ")")
        if depth < 0:
            break
        pieces.append(_translate_token(token, clause))
        if _has_mysql_pattern(tokens, index):
            pieces.append(r"ESCAPE '\'")
    if depth:
        raise refuse("the brackets of the expression do not match", clause)
    translated = " ".join(pieces)
    if "\0" in translated or (not translated.isascii() and _with_surrogates(translated)):
        raise refuse("the expression is not UTF-8 text", clause)
    return translated


def _translate_token(token: Token, clause: str) -> str:
    text = token.text
    match token.kind:
        case TokenKind.QUOTED if text[0] != "`":
            return "'" + unquote(text).replace("'", "''") + "'"
        case TokenKind.BROKEN:
            raise refuse("a string, name or comment of the expression has no end", clause)
        case TokenKind.SYMBOL if text not in _SYMBOLS:
            raise refuse(f"{text} is not understood in an expression", clause)
        case TokenKind.EXECUTABLE:
            raise refuse("executable comments are not understood in an expression", clause)
        case TokenKind.WORD if token.word in ("REGEXP", "RLIKE", "MATCH"):
            raise refuse(f"{token.word} is not understood in an expression: write LIKE or GLOB", clause)
        case TokenKind.NUMBER if text.isdecimal() and text.isascii():  # 18 digits or more, see `proxy_sessid`
            return f"'{text}'"
        case TokenKind.WORD if text[0] == "$":  # a parameter to SQLite
            raise refuse(f"no such column: {text}", clause)
    return text


def _has_mysql_pattern(tokens: Sequence[Token], index: int) -> bool:
    r"""Say whether a token is a pattern whose backslashes MySQL takes for escapes: `LIKE 'my\_app%'`.

    SQLite's LIKE knows none by itself, and would hit other sessions, or none.
    """
    token = tokens[index]
    return (
        token.kind is TokenKind.QUOTED
        and token.text[0] != "`"
        and "\\" in token.text
        and "\\" in unquote(token.text)
        and index > 0
        and tokens[index - 1].word == "LIKE"
        and (index + 1 == len(tokens) or tokens[index + 1].word != "ESCAPE")
    )


def _with_surrogates(text: str) -> bool:
    return text.encode("utf-8", "replace").decode("utf-8") != text


def refuse(why: str, clause: str = "WHERE") -> SqlError:
    """Return the refusal of an expression that stands in a clause."""
    return SqlError(1064, "42000", f"{clause}: {why}"[:_MAX_MESSAGE])


def too_slow() -> SqlError:
    """Return the end of an expression that takes too long."""
    return SqlError(3024, "HY000", "Query execution was interrupted, maximum statement execution time exceeded")
