"""How servers are told to end a session or a statement: the statement itself, or a cloud's procedure.

Clouds keep the privilege for other users' sessions to themselves and offer procedures instead. Source: Amazon RDS and
Aurora user guides, "Ending a session or query"; Azure Database for MySQL, "mysql.az_kill".
"""

from __future__ import annotations

from zope.interface import implementer

from odptwist.interfaces import IBackendKiller
from odptwist.snapshots import KillScope


@implementer(IBackendKiller)
class KillStatement:
    """`KILL n` and `KILL QUERY n`, as every server understands them."""

    name = "kill"

    def statement(self, server_sessid: int, scope: KillScope) -> str:
        """Return the statement."""
        return f"KILL {'QUERY ' if scope is KillScope.QUERY else ''}{server_sessid}"


@implementer(IBackendKiller)
class RdsKiller:
    """The procedures of Amazon RDS and Aurora."""

    name = "rds"

    def statement(self, server_sessid: int, scope: KillScope) -> str:
        """Return the call."""
        return f"CALL mysql.rds_kill{'_query' if scope is KillScope.QUERY else ''}({server_sessid})"


@implementer(IBackendKiller)
class AzureKiller(KillStatement):
    """The procedure of Azure Database for MySQL, which has none for a statement: that is killed as everywhere."""

    name = "azure"

    def statement(self, server_sessid: int, scope: KillScope) -> str:
        """Return the call."""
        if scope is KillScope.QUERY:
            return super().statement(server_sessid, scope)
        return f"CALL mysql.az_kill({server_sessid})"


def builtin_killers() -> tuple[IBackendKiller, ...]:
    """Return the killers that need no plugin."""
    return (KillStatement(), RdsKiller(), AzureKiller())
