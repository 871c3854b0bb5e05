"""What a server grants an account, as far as it decides about sessions.

Source: MySQL and MariaDB reference manuals, "SHOW GRANTS"; spec section 6.4 for OceanBase's variable.
"""

from __future__ import annotations

import re

from odptwist.sessions.server import ServerSession
from odptwist.snapshots import Privileges
from odptwist.wire.responses import Ok, VariableChanged

# Words only, up to the ON: users choose the names of tables and columns, and must not find one that reads like a grant.
_GLOBAL = re.compile(r"GRANT ([A-Z_ ,]+) ON \*\.\* TO ")
_ALL = {"ALL PRIVILEGES", "ALL"}
_SUPER = _ALL | {"SUPER", "CONNECTION ADMIN", "CONNECTION_ADMIN"}
_PROCESS = _ALL | {"PROCESS"}

_VARIABLE = "ob_proxy_user_privilege"
_VARIABLE_SUPER, _VARIABLE_PROCESS = 1 << 14, 1 << 15


def told_privileges(ok: Ok) -> Privileges | None:
    """Return what the OK of a login tells of its account's privileges, None if it does not: only OceanBase's does."""
    for change in ok.changes:
        if isinstance(change, VariableChanged) and change.name == _VARIABLE and change.value.isdecimal():
            bits = int(change.value)
            return (Privileges.SUPER if bits & _VARIABLE_SUPER else Privileges.NONE) | (
                Privileges.PROCESS if bits & _VARIABLE_PROCESS else Privileges.NONE
            )
    return None


async def read_privileges(session: ServerSession) -> Privileges:
    """Ask a server session between two exchanges for its account's privileges; only those on everything count.

    Raises:
        ServerSessionLost: the session ended over the question.
    """
    result = await session.query("SHOW GRANTS")
    found = Privileges.NONE
    for row in result.rows:
        granted = _GLOBAL.match((row[0] or b"").decode("utf-8", "replace").upper())
        names = {name.strip() for name in granted[1].split(",")} if granted else set()
        if names & _SUPER:
            found |= Privileges.SUPER
        if names & _PROCESS:
            found |= Privileges.PROCESS
    return found
