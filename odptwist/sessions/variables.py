"""The variables of a client session: those that its client has set, and the others, which its server tells.

Source: spec section 3.3.
"""

from __future__ import annotations

import re
from typing import Protocol

from odptwist.errors import OdpError, SqlError
from odptwist.machines.session_state import HOT_VARIABLES, SessionState
from odptwist.sessions.server import ServerSession
from odptwist.snapshots import SessionVariable, SessionVariables, VariableKind
from odptwist.wire.primitives import decode_text

_INSERT_IDS = frozenset(("last_insert_id", "identity"))
_NUMBER = re.compile(r"[+-]?[0-9]+(?:\.[0-9]*)?(?:[eE][+-]?[0-9]+)?")
_LEVEL = re.compile(r"ISOLATION LEVEL (READ UNCOMMITTED|READ COMMITTED|REPEATABLE READ|SERIALIZABLE)")
_MODE = re.compile(r"READ (ONLY|WRITE)")


def set_variables(state: SessionState) -> list[SessionVariable]:
    """Return the variables that a client has set, as far as they can be replayed: system variables first."""
    found: dict[str, str] = {}
    users: list[SessionVariable] = []
    for key, kept in state.settings.items():
        if key == "names":
            found.update(_names(kept.sql))
        elif key.startswith("transaction "):
            found.update(_transaction(kept.sql.upper()))
        elif key.startswith("@"):
            users.append(SessionVariable(key[1:].strip("`'\""), state.value_of(key), VariableKind.USER))
        elif key != "role":  # that is no variable
            found[key] = _literal(state.value_of(key))
    if state.insert_id:
        found["last_insert_id"] = str(state.insert_id)
    return [*(SessionVariable(name, value, _kind(name)) for name, value in found.items()), *users]


class Holder(Protocol):
    """A client session, as far as its variables are concerned."""

    state: SessionState
    bound: ServerSession | None
    pool: tuple[ServerSession, ...]


async def variables_of(session: Holder, all_of_them: bool, may_ask: bool) -> SessionVariables:
    """Return the variables of a client session.

    Args:
        session: whose.
        all_of_them: not only those that the client has set.
        may_ask: whether the client waits for this, so that its server session is free for a question.
    """
    missing = ""
    if all_of_them:
        server = session.bound or next(iter(session.pool), None)
        if not may_ask:
            missing = "the server is asked for one's own session only"
        elif server is None or server.in_dialogue:
            missing = "there is no server session to ask now"
        else:
            try:
                return SessionVariables(tuple(await _all_variables(session.state, server)))
            except OdpError as fault:
                missing = f"the server could not be asked: {fault}"
    return SessionVariables(tuple(set_variables(session.state)), missing)


async def _all_variables(state: SessionState, server: ServerSession) -> list[SessionVariable]:
    """Return the variables that a client has set, and in front of its user variables all that its server tells."""
    result = await server.query("SHOW SESSION VARIABLES")
    if result.error is not None:
        raise SqlError(result.error.code, result.error.sqlstate, result.error.message)
    known = set_variables(state)
    names = {each.name for each in known if each.kind is not VariableKind.USER}
    told = []
    for name, value in ((decode_text(row[0] or b"").lower(), decode_text(row[1] or b"")) for row in result.rows):
        if name not in names:
            told.append(SessionVariable(name, _quoted(value), _kind(name), changed=False))
    systems = [each for each in known if each.kind is not VariableKind.USER]
    return [*systems, *told, *known[len(systems) :]]


def _kind(name: str) -> VariableKind:
    if name in _INSERT_IDS:
        return VariableKind.LAST_INSERT_ID
    return VariableKind.HOT if name in HOT_VARIABLES else VariableKind.COLD


def _names(sql: str) -> dict[str, str]:
    """Return what `NAMES charset [COLLATE collation]` or `CHARACTER SET charset` sets."""
    words = sql.split()
    charset = _literal(words[1] if words[0].upper() in ("NAMES", "CHARSET") else words[2])
    found = dict.fromkeys(("character_set_client", "character_set_results"), charset)
    if words[0].upper() == "NAMES":
        found["character_set_connection"] = charset
    if words[2:3] and words[2].upper() == "COLLATE":
        found["collation_connection"] = _literal(words[3])
    return found


def _transaction(sql: str) -> dict[str, str]:
    """Return what `SESSION TRANSACTION ...` sets."""
    found = {}
    level, mode = _LEVEL.search(sql), _MODE.search(_LEVEL.sub("", sql))
    if level is not None:
        found["transaction_isolation"] = _quoted(level[1].replace(" ", "-"))
    if mode is not None:
        found["transaction_read_only"] = str(int(mode[1] == "ONLY"))
    return found


def _literal(text: str) -> str:
    """Return a literal as ODP shows it: strings and bare words in single quotes."""
    if text[:1] == "'" or text.upper() in ("DEFAULT", "NULL"):
        return text
    if text[:1] == '"':
        return _quoted(text[1:-1].replace('""', '"'))
    return _quoted(text)


def _quoted(text: str) -> str:
    return text if _NUMBER.fullmatch(text) else "'" + text.replace("'", "''") + "'"
