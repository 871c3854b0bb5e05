"""What a server grants an account, as far as it decides about sessions.

Source: MySQL and MariaDB reference manuals, "SHOW GRANTS".
"""

from __future__ import annotations

from odptwist.sessions.server import ServerSession
from odptwist.snapshots import Privileges

_ALL = {"ALL PRIVILEGES", "ALL"}
_SUPER = _ALL | {"SUPER", "CONNECTION ADMIN", "CONNECTION_ADMIN"}
_PROCESS = _ALL | {"PROCESS"}


async def read_privileges(session: ServerSession) -> Privileges:
    """Ask a server session between two exchanges for its account's privileges; only those on everything count.

    Raises:
        ServerSessionLost: the session ended over the question.
    """
    result = await session.query("SHOW GRANTS")
    found = Privileges.NONE
    for row in result.rows:
        granted, on, _ = (row[0] or b"").decode("utf-8", "replace").upper().partition(" ON *.* TO ")
        names = {name.strip() for name in granted.removeprefix("GRANT ").split(",")} if on else set()
        if names & _SUPER:
            found |= Privileges.SUPER
        if names & _PROCESS:
            found |= Privileges.PROCESS
    return found
