"""The LIKE of proxy statements.

Source: spec section 1.2: case sensitive, `%` is any run, `_` one character, there is no escape character, and an empty
pattern matches all.
"""

from __future__ import annotations


def like(text: str, pattern: str) -> bool:
    """Say whether the whole text fits the pattern, in at most len(text) * len(pattern) steps."""
    if not pattern:
        return True
    at = in_pattern = 0
    # Only the last `%` ever needs to take in more: whatever an earlier one could still do, the last one can do as well.
    run, resume = -1, 0
    while at < len(text):
        if in_pattern < len(pattern) and pattern[in_pattern] == "%":
            run, resume = in_pattern, at
            in_pattern += 1
        elif in_pattern < len(pattern) and pattern[in_pattern] in ("_", text[at]):
            at += 1
            in_pattern += 1
        elif run >= 0:
            resume += 1
            at, in_pattern = resume, run + 1
        else:
            return False
    return not pattern[in_pattern:].strip("%")
