"""Where the second statement of a text begins, for clients that have not asked to send several in one text.

Source: MySQL reference manual, "Multiple Statement Execution Support"; MariaDB knowledge base, "BEGIN END" and
"Using Compound Statements Outside of Stored Programs".

MariaDB and MySQL refuse such a text. seekdb 1.4 executes it, which makes SQL injection as easy as it can be. What may
be one statement with semicolons inside is left to the server: a stored program, or a compound statement.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice
from typing import Final

from odptwist.errors import SqlError
from odptwist.sqltext import Quoting, Token, skeleton, statements

# Statements that begin so have no semicolon inside.
_UNDIVIDED: Final = frozenset(
    """
    ANALYZE CALL CHECK CHECKSUM COMMIT DEALLOCATE DELETE DESC DESCRIBE DO DROP EXECUTE EXPLAIN FLUSH GRANT HANDLER
    INSERT KILL LOAD LOCK OPTIMIZE PREPARE PURGE RELEASE RENAME REPAIR REPLACE RESET REVOKE ROLLBACK SAVEPOINT SELECT
    SHOW START TABLE TRUNCATE UNLOCK UPDATE USE VALUES WITH XA
    """.split()
)
_PROGRAMS: Final = frozenset(("EVENT", "FUNCTION", "PACKAGE", "PROCEDURE", "TRIGGER"))
# How much of a text an error quotes: MariaDB's limit.
_QUOTED_SIZE: Final = 80
_BLANKS_AND_ENDS: Final = "; \t\r\n"


def second_statement(text: str, escapes: bool = True) -> int | None:
    """Return where a second statement begins, None if there is none or that is not certain.

    The text may be the beginning of a longer one.
    `escapes` is false where the session's sql_mode has NO_BACKSLASH_ESCAPES.
    """
    readings = [Quoting.DEFAULT]
    if "\\" in text:
        if not escapes or not _is_utf8(text):
            return None
        # Nobody tells whether the session's sql_mode has ANSI_QUOTES, so that must not make a difference.
        readings.append(Quoting.ANSI_QUOTES)
    if any(";" not in skeleton(text, quoting).rstrip(_BLANKS_AND_ENDS) for quoting in readings):
        return None
    first_two = list(islice(statements(text), 2))
    if len(first_two) < 2:
        return None
    first, second = first_two
    # In an executable comment, too, whatever version that names: seekdb executes it, and nobody ends a text with one.
    if first[0].executable or not _is_undivided(first) or not _begins_one(second[0]):
        return None
    return second[0].start


def refuse_second(text: str, start: int) -> SqlError:
    """Return a server's error of syntax for a text whose second statement begins at `start`."""
    line = text.count("\n", 0, start) + 1
    return SqlError(
        1064,
        "42000",
        "You have an error in your SQL syntax; check the manual that corresponds to your server version for the right "
        f"syntax to use near '{text[start : start + _QUOTED_SIZE]}' at line {line}",
    )


def _is_utf8(text: str) -> bool:
    # In gbk, big5 and sjis a backslash can be the second byte of a character, and takes away no meaning then.
    return not any("\udc80" <= character <= "\udcff" for character in set(text))


def _begins_one(token: Token) -> bool:
    return bool(token.word) or token.text == "("


def _is_undivided(statement: Sequence[Token]) -> bool:
    first = statement[0]
    if not _begins_one(first):
        return False
    if first.text == "(" or first.word in _UNDIVIDED:
        return True
    words = [token.word for token in statement]
    match first.word:
        case "CREATE" | "ALTER":
            return _PROGRAMS.isdisjoint(words)
        case "BEGIN":
            return words in (["BEGIN"], ["BEGIN", "WORK"])
        case "SET":
            return words[1:2] != ["STATEMENT"]
    return False
