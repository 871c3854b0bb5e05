"""Who may see and kill whom: the one policy that every entrance asks."""

from __future__ import annotations

from zope.interface import implementer

from odptwist.identity import Identity
from odptwist.interfaces import IAccessPolicy
from odptwist.snapshots import Asker, Decision, Privileges, Verb

CLUSTER_TENANT = "sys"
"""The tenant whose privileged users look after the whole cluster."""


@implementer(IAccessPolicy)
class TenantAccessPolicy:
    """Everybody has their own user's sessions; SUPER and PROCESS widen that to the tenant.

    For users of tenant sys they widen it to the cluster, to sessions that have not logged in yet, and to the servers
    of all clusters. The tenant's name alone gives no right: on servers without tenants it is a label that the client
    chose.
    """

    def decide(self, asker: Asker, verb: Verb, cs_id: int, owner: Identity | None) -> Decision:
        """Return what `IAccessPolicy` wants."""
        if cs_id == asker.cs_id or owner == asker.identity:
            return Decision.ALLOWED
        if not _is_in_reach(asker.identity, owner):
            return Decision.INVISIBLE
        if asker.privileges is None:
            return Decision.NEEDS_PRIVILEGES
        if Privileges.SUPER in asker.privileges:
            return Decision.ALLOWED
        if Privileges.PROCESS in asker.privileges:
            return Decision.ALLOWED if verb in (Verb.SEE, Verb.SEE_SERVERS) else Decision.DENIED
        return Decision.INVISIBLE


def _is_in_reach(asker: Identity, owner: Identity | None) -> bool:
    """Say whether a privileged asker may know of the session at all."""
    if owner is None:
        return asker.tenant == CLUSTER_TENANT
    return owner.cluster == asker.cluster and asker.tenant in (owner.tenant, CLUSTER_TENANT)
