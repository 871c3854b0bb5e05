r"""How the texts of proxy statements are cut into tokens, and which texts hide a KILL from the proxy.

Source: spec section 1 (ODP's lexer) for `TokenStream`; MySQL's and MariaDB's lexers for strings and comments.

Two readers share one lexer. `TokenStream` reads a text as ODP does: brackets, a detached `-`, INTO and IGNORE do not
count, and a number is an INT only with 1 to 17 digits. `hides_kill` reads it as the server will, to find a KILL that
would reach it.

Some lines over 400, because both readers must agree on what a token is.

What `hides_kill` cannot see: `PREPARE s FROM @v`, a text that an expression builds (EXECUTE IMMEDIATE CONCAT(@a, @b), a
hexadecimal literal), a stored program that kills, what NO_BACKSLASH_ESCAPES makes of `'\'`, and what follows comments
nested in an executable comment that the server skips. What it refuses although nothing is killed at once: CREATE
PROCEDURE whose body holds a KILL after `;`, BEGIN or THEN; `/*!99999 KILL 5 */`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection
from enum import Enum, unique

from attrs import frozen

from odptwist.errors import SqlError, bad_proxy_statement

WHITE_SPACE = " \t\n\v\f\r"
MAX_NAME_SIZE = 511
"""The longest string argument, in UTF-8 bytes: ODP's limit (its error 8007)."""

_IDENTIFIER_START = r"A-Za-z_$\x80-\U0010FFFF"
_IDENTIFIER = rf"0-9{_IDENTIFIER_START}"

# All quantifiers are possessive (`++`, `*+`) or cannot backtrack: a text of 16 MiB is read once, whatever it is.
_SPACE = r"[ \t\n\v\f\r]++"
_COMMENT = r"/\*(?!M?!)(?s:.*?)\*/ | \#[^\n]*+ | --(?=[\x00-\x20\x7F]|\Z)[^\n]*+"
_QUOTED = r"""'(?>(?:[^'\\]++|(?s:\\.)|'')*)' | "(?>(?:[^"\\]++|(?s:\\.)|"")*)" | `(?>(?:[^`]++|``)*)`"""
_LEXEME = re.compile(
    rf"""
      (?P<blank>      (?>(?: {_SPACE} | {_COMMENT} )+) )
    | (?P<executable> /\* M?! (?:[0-9]{{5,6}})? )
    | (?P<quoted>     {_QUOTED} )
    | (?P<broken>     ['"`] (?s:.*) | /\* (?s:.*) )
    | (?P<integer>    (?:(?<![0-9])[+-])? [0-9]{{1,17}} (?![.{_IDENTIFIER}]) )
    | (?P<number>     [0-9] [.{_IDENTIFIER}]*+ )
    | (?P<word>       [{_IDENTIFIER_START}] [{_IDENTIFIER}]*+ )
    | (?P<symbol>     (?s:.) )
    """,
    re.VERBOSE,
)
_INERT = re.compile(
    rf"""(?>(?: [^'"`;\#/*-]++ | {_QUOTED} | {_COMMENT} | /(?!\*) | \*(?!/) | -(?!-[\x00-\x20\x7F]|-\Z) )+)""",
    re.VERBOSE,
)
"""What can be skipped where only the end of a statement and executable comments matter."""
MAX_EXPRESSION = 8_192
"""How many characters an expression may have: a condition over sessions, say."""
_MAX_TOKENS = 100_000
"""How many tokens are read of one text: some 0.2 s. What must be known word by word is never that long."""

_BRACKETS = ("(", ")", "{", "}", "[", "]")
_QUOTED_INTEGER = re.compile(r"['\"]([+-]?[0-9]{1,17})['\"]")
_ESCAPE = re.compile(r"\\(.)", re.DOTALL)
_ESCAPED = {"n": "\n", "t": "\t", "r": "\r", "b": "\b", "0": "\0", "Z": "\x1a", "%": r"\%", "_": r"\_"}


@unique
class TokenKind(Enum):
    """What a token is. OPEN and CLOSE are the borders of an executable comment that is read as part of the text."""

    WORD = "word"
    INTEGER = "integer"
    NUMBER = "number"
    QUOTED = "quoted"
    SYMBOL = "symbol"
    EXECUTABLE = "executable"
    OPEN = "open"
    CLOSE = "close"
    BROKEN = "broken"
    END = "end"


# By their groups; a look into an Enum takes longer than all the rest of a token.
_KINDS: dict[str | None, TokenKind] = {kind.value: kind for kind in TokenKind}


@frozen
class Token:
    """A piece of a text: `text[start:end]` of it. `word` is its upper case if it is an ASCII word, else empty."""

    kind: TokenKind
    text: str
    start: int

    @property
    def end(self) -> int:
        """Return the offset after the token."""
        return self.start + len(self.text)

    @property
    def word(self) -> str:
        """Return the word that SQL sees, or an empty string."""
        # Python's upper() makes KILL of "k\u0131ll"; no server does.
        return self.text.upper() if self.kind is TokenKind.WORD and self.text.isascii() else ""


class Lexer:
    """Cuts a text into tokens, skipping white space and comments; linear in the text's length.

    `offset` is where the next token is looked for.

    Args:
        text: one command's text.
        inside: whether to read inside executable comments (`/*! ... */`, `/*M! ... */`); otherwise each is one token.
    """

    def __init__(self, text: str, inside: bool = False) -> None:
        self._text = text
        self._inside = inside
        self._depth = 0
        self.offset = 0

    def next(self, coarse: bool = False) -> Token:
        """Return the next token; END for ever at the end.

        Args:
            coarse: skip words, numbers, strings and most symbols, too; not `;` and executable comments.
        """
        text = self._text
        while self.offset < len(text):
            start = self.offset
            if coarse and (inert := _INERT.match(text, start)):
                self.offset = inert.end()
                continue
            if self._depth and text.startswith("*/", start):
                self._depth -= 1
                self.offset = start + 2
                return Token(TokenKind.CLOSE, "*/", start)
            lexeme = _LEXEME.match(text, start)
            if lexeme is None:  # cannot be: a symbol is any character
                break
            self.offset = lexeme.end()
            group = lexeme.lastgroup
            if group == "executable":
                return self._executable(lexeme)
            if group != "blank":
                return Token(_KINDS[group], lexeme.group(), start)
        return Token(TokenKind.END, "", len(text))

    def _executable(self, opening: re.Match[str]) -> Token:
        start = opening.start()
        if self._inside:
            self._depth += 1
            return Token(TokenKind.OPEN, opening.group(), start)
        closing = self._text.find("*/", opening.end())
        self.offset = len(self._text) if closing < 0 else closing + 2
        return Token(TokenKind.EXECUTABLE, self._text[start : self.offset], start)


class TokenStream:
    """One proxy statement, read from left to right as ODP reads it.

    Each `take_` method consumes what it names if that comes next, and otherwise nothing.

    Args:
        text: a single statement; comments before it do no harm.
    """

    def __init__(self, text: str) -> None:
        self._text = text
        self._lexer = Lexer(text)
        self._ahead = self._lexer.next()
        self._left = _MAX_TOKENS

    def take_head(self, first: str, second: str) -> bool:
        """Consume two words with nothing but white space between them; to ODP they are one token.

        Raises:
            SqlError: 5010 if the second word only begins right: ODP takes `PROXYSESSIONS` for the head and a stray `S`.
        """
        start = self._ahead
        if start.word != first:
            return False
        self._advance()
        following = self._ahead
        if following.word.startswith(second) and not self._text[start.end : following.start].strip(WHITE_SPACE):
            if following.word != second:
                raise bad_proxy_statement()
            self._advance()
            return True
        self._return_to(start)
        return False

    def take_word(self, word: str) -> bool:
        """Consume a bare word, given in upper case."""
        return self._take(lambda token: token.word == word) is not None

    def take_integer(self) -> int | None:
        """Consume ODP's INT: an optional sign and 1 to 17 digits."""
        token = self._take(lambda token: token.kind is TokenKind.INTEGER)
        return None if token is None else int(token.text)

    def take_quoted_integer(self) -> int | None:
        """Consume an INT in single or double quotes, which ODP refuses and the KILL manual page writes."""
        token = self._take(
            lambda token: token.kind is TokenKind.QUOTED and _QUOTED_INTEGER.fullmatch(token.text) is not None
        )
        return None if token is None else int(token.text[1:-1])

    def take_name(self) -> str | None:
        """Consume ODP's NAME: a bare word, or a quoted string without its own quote or a backslashed quote inside.

        Raises:
            SqlError: 8007 if it is longer than `MAX_NAME_SIZE`.
        """
        token = self._take(_is_name)
        if token is None:
            return None
        name = token.text if token.kind is TokenKind.WORD else token.text[1:-1]
        if len(name.encode("utf-8", "surrogatepass")) > MAX_NAME_SIZE:
            raise SqlError(8007, "HY000", "internal cmd value is too long")
        return name

    def take_call(self, function: str) -> bool:
        """Consume `function()`, also with white space or comments before and in the brackets."""
        self._skip_ignored()
        start = self._ahead
        if self.take_word(function) and self._take_symbol("(") and self._take_symbol(")"):
            return True
        self._return_to(start)
        return False

    def take_count(self) -> int | None:
        """Consume an integer that comes next; ODP's tolerance does not reach here: nothing before it is ignored."""
        token = self._take_next(lambda token: token.kind is TokenKind.INTEGER)
        return None if token is None else int(token.text)

    def take_comma(self) -> bool:
        """Consume a comma that comes next."""
        return self._take_symbol(",")

    def take_text(self) -> str | None:
        """Consume a string in single or double quotes that comes next, and return what it stands for."""
        token = self._take_next(lambda token: token.kind is TokenKind.QUOTED and token.text[0] != "`")
        return None if token is None else unquote(token.text)

    def take_expression(self, words: Collection[str]) -> str:
        """Do as `take_until`; but one longer than `MAX_EXPRESSION`, which nobody will take, goes on to the end."""
        return self.take_until(words, MAX_EXPRESSION)

    def take_until(self, words: Collection[str], size: int | None = None) -> str:
        """Consume everything up to one of these words (in upper case) outside of brackets, a `;` or the end.

        Args:
            words: where to stop.
            size: the rest of what is longer is consumed unread, up to the end.

        Returns:
            What was consumed as it stands in the text, brackets and all; without comments at its borders.
        """
        start = end = self._ahead.start
        depth = 0
        while self._ahead.kind is not TokenKind.END and not self._is_symbol(";"):
            if not depth and self._ahead.word in words:
                break
            depth += self._is_symbol("(") - self._is_symbol(")")
            end = self._ahead.end
            if size is not None and end - start > size:
                self._lexer.offset = end = len(self._text)
            self._advance()
        return self._text[start:end]

    def at_end(self) -> bool:
        """Say whether nothing comes any more but ignored characters, one `;` and comments."""
        self._skip_ignored()
        if self._is_symbol(";"):
            self._advance()
        return self._ahead.kind is TokenKind.END

    def _advance(self) -> None:
        self._left -= 1
        if not self._left:
            raise bad_proxy_statement()
        self._ahead = self._lexer.next()

    def _return_to(self, token: Token) -> None:
        self._lexer.offset = token.start
        self._advance()

    def _is_symbol(self, symbol: str) -> bool:
        return self._ahead.kind is TokenKind.SYMBOL and self._ahead.text == symbol

    def _take_symbol(self, symbol: str) -> bool:
        if found := self._is_symbol(symbol):
            self._advance()
        return found

    def _skip_ignored(self) -> None:
        while self._is_ignored(self._ahead):
            self._advance()

    def _is_ignored(self, token: Token) -> bool:
        if token.text == "-":
            # ODP ignores every `-`, and reads 7-8 as 7 8. Here it must not follow anything closely.
            return token.start == 0 or self._text[token.start - 1] in f"{WHITE_SPACE}/(){{}}[]-"
        return token.text in _BRACKETS or token.word in ("INTO", "IGNORE")

    def _take(self, fits: Callable[[Token], bool]) -> Token | None:
        self._skip_ignored()
        return self._take_next(fits)

    def _take_next(self, fits: Callable[[Token], bool]) -> Token | None:
        token = self._ahead
        if not fits(token):
            return None
        self._advance()
        return token


def _is_name(token: Token) -> bool:
    if token.kind is TokenKind.WORD:
        return True
    if token.kind is not TokenKind.QUOTED:
        return False
    quote, inner = token.text[0], token.text[1:-1]
    return quote not in inner


def find_first_word(text: str) -> tuple[str, int]:
    """Return a text's first word in upper case and its offset, past white space and comments.

    The word is empty where the text begins with anything else, an executable comment included.
    """
    token = Lexer(text).next()
    return token.word, token.start


def is_multi_statement(text: str) -> bool:
    """Say whether a text is several statements to ODP: a `;` stands first, or anything but comments follows one."""
    if ";" not in text:
        return False
    lexer = Lexer(text)
    token = lexer.next()
    if token.text == ";":
        return True
    for _ in range(_MAX_TOKENS):
        if token.kind is TokenKind.END:
            return False
        if token.text == ";":
            return lexer.next().kind is not TokenKind.END
        token = lexer.next(coarse=True)
    return True


_COMPOUND = frozenset(
    ("BEGIN", "IF", "ELSEIF", "ELSE", "CASE", "WHEN", "LOOP", "WHILE", "REPEAT", "FOR", "SET", "CREATE", "ALTER")
)
"""First words of statements that may hold others: MariaDB's compound statements and its `SET STATEMENT ... FOR`."""
_INTRODUCERS = frozenset(("BEGIN", "ATOMIC", "THEN", "ELSE", "LOOP", "REPEAT", "DO", "FOR", "SYSTEM"))
"""Words in such a statement after which another one may begin; SYSTEM is for OceanBase's ALTER SYSTEM KILL SESSION."""


def hides_kill(text: str) -> bool:
    """Say whether a server would execute a KILL in this text that the proxy would not see as a statement of its own.

    That is: in one of several statements, in an executable comment, in a compound statement, in PREPARE ... FROM 'text'
    and in EXECUTE IMMEDIATE 'text'. A KILL that stands alone is not hidden, whatever follows the word. A text of too
    many tokens to look at counts as one that hides a KILL, if the letters are in it.
    """
    lowered = text.lower()
    if "kill" not in lowered and "prepare" not in lowered and "immediate" not in lowered:
        return False
    if find_first_word(text)[0] == "KILL" and not is_multi_statement(text):
        return False
    return _holds_kill(text)


def refuse_hidden_kill(text: str) -> None:
    """Raise `SqlError` 1235 if `hides_kill`: its id is one of the proxy's, and may be a stranger's on the server."""
    if hides_kill(text):
        raise SqlError(
            1235,
            "0A000",
            "KILL inside a multi-statement text, PREPARE or EXECUTE IMMEDIATE is not supported: send it alone",
        )


def _holds_kill(text: str) -> bool:
    # A server skips an executable comment that names a newer version, so both readings count.
    readings = (True, False) if "/*!" in text or "/*M!" in text else (False,)
    return any(_starts_kill(Lexer(text, inside)) for inside in readings)


def _starts_kill(lexer: Lexer) -> bool:
    may_start = True  # Can a statement begin here, whichever executable comments the server executes?
    before_comment: list[bool] = []
    compound = False
    strings: list[str] | None = None  # of a PREPARE or an EXECUTE IMMEDIATE: the statement that it will run
    for _ in range(_MAX_TOKENS):
        token = lexer.next(coarse=not may_start and not compound and strings is None)
        if token.kind is TokenKind.END or token.text == ";":
            if strings and _holds_kill("".join(strings)):
                return True
            if token.kind is TokenKind.END:
                return False
            may_start, compound, strings = True, False, None
        elif token.kind is TokenKind.OPEN:
            before_comment.append(may_start)
        elif token.kind is TokenKind.CLOSE:
            may_start |= before_comment.pop()
        elif token.kind is TokenKind.EXECUTABLE:
            continue
        else:
            word = token.word
            if may_start and word == "KILL":
                return True
            if may_start and word in ("PREPARE", "IMMEDIATE"):
                strings = []
            elif strings is not None and token.kind is TokenKind.QUOTED and token.text[0] != "`":
                strings.append(unquote(token.text))
            compound |= may_start and word in _COMPOUND
            may_start = (may_start and word == "EXECUTE") or (compound and word in _INTRODUCERS)
    return True


def unquote(text: str) -> str:
    r"""Return what a quoted string stands for; `\%` and `\_` stay as they are, as in MySQL: LIKE takes them away."""
    quote = text[0]
    inner = text[1:-1].replace(quote * 2, quote)
    return _ESCAPE.sub(lambda escape: _ESCAPED.get(escape[1], escape[1]), inner)
