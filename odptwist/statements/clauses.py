"""The clauses that may follow KILL PROXYSESSION: DRY RUN, LIMIT, AFTER TRANSACTION and REASON.

Source: none but ours; ODP has no such clauses.
"""

from __future__ import annotations

from attrs import evolve, frozen

from odptwist.errors import MAX_REASON, SqlError, bad_proxy_statement, is_reason
from odptwist.snapshots import AfterTransaction
from odptwist.statements.grammar import TokenStream

CLAUSE_WORDS = ("DRY", "LIMIT", "AFTER", "REASON")
"""The words that clauses begin with."""
_MAX_LIMIT = 100_000
_MAX_WAIT = 7 * 86_400


@frozen
class Clauses:
    """What the clauses of a kill say.

    `dry_run`: kill nothing, list what would be hit. `limit`: how many sessions at most, None for all. `after`: wait for
    the end of each session's transaction, None for no wait. `reason`: one line for the victims and the log, or empty.
    """

    dry_run: bool = False
    limit: int | None = None
    after: AfterTransaction | None = None
    reason: str = ""


def take_clauses(stream: TokenStream) -> Clauses:
    """Consume all clauses that come next, in any order.

    Raises:
        SqlError: 5010 if one comes twice, goes on wrong, or holds what is out of range.
    """
    clauses, taken = Clauses(), set[str]()
    while word := next((word for word in CLAUSE_WORDS if stream.take_word(word)), None):
        if word in taken:
            raise not_understood(f"{word} can be given once only")
        taken.add(word)
        match word:
            case "DRY":
                if not stream.take_word("RUN"):
                    raise not_understood("DRY is followed by RUN")
                clauses = evolve(clauses, dry_run=True)
            case "LIMIT":
                clauses = evolve(clauses, limit=_take_limit(stream))
            case "AFTER":
                clauses = evolve(clauses, after=_take_after(stream))
            case "REASON":
                clauses = evolve(clauses, reason=_take_reason(stream))
    return clauses


def not_understood(fault: str = "") -> SqlError:
    """Return the refusal of a KILL PROXYSESSION that cannot be read, with what can be."""
    return bad_proxy_statement(
        f"{fault}{'; ' if fault else ''}the proxy understands KILL PROXYSESSION id [ss_id] [REASON 'text'], "
        "KILL PROXYSESSION id [DRY RUN] [AFTER TRANSACTION [n SECONDS]] [REASON 'text'] and KILL PROXYSESSION WHERE "
        "condition [DRY RUN] [LIMIT n] [AFTER TRANSACTION [n SECONDS]] [REASON 'text']"
    )


def _take_limit(stream: TokenStream) -> int:
    limit = stream.take_count()
    if limit is None or not 0 <= limit <= _MAX_LIMIT:
        raise not_understood(f"LIMIT is followed by an integer from 0 to {_MAX_LIMIT}")
    return limit


def _take_after(stream: TokenStream) -> AfterTransaction:
    if not stream.take_word("TRANSACTION"):
        raise not_understood("AFTER is followed by TRANSACTION")
    seconds = stream.take_count()
    if seconds is None:
        return AfterTransaction()
    if not 0 <= seconds <= _MAX_WAIT or not stream.take_word("SECONDS"):
        raise not_understood(f"AFTER TRANSACTION is followed by nothing or by 0 to {_MAX_WAIT} SECONDS")
    return AfterTransaction(float(seconds))


def _take_reason(stream: TokenStream) -> str:
    reason = stream.take_text()
    if reason is None or not is_reason(reason):
        raise not_understood(f"REASON is followed by a quoted text of one line and at most {MAX_REASON} characters")
    return reason
