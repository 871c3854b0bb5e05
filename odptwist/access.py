"""Who may see and kill whom: the one policy that every entrance asks."""

from __future__ import annotations

from collections.abc import Sequence

from attrs import frozen
from zope.interface import implementer

from odptwist.identity import ADMINISTRATOR, INSPECTOR, PROXY_TENANT, Identity
from odptwist.interfaces import IAccessPolicy
from odptwist.snapshots import Asker, Decision, Privileges, Verb

CLUSTER_TENANT = "sys"
"""The tenant whose privileged users look after the whole cluster."""

_LOOKING = (Verb.SEE, Verb.SEE_PROXY)


@frozen
class Grant:
    """Privileges that the settings add to those of the server; `tenant` and `cluster` are None for any."""

    user: str
    tenant: str | None
    cluster: str | None
    privileges: Privileges

    def is_for(self, identity: Identity) -> bool:
        """Say whether these are privileges of this identity."""
        return (
            identity.user == self.user
            and self.tenant in (None, identity.tenant)
            and self.cluster in (None, identity.cluster)
        )


@implementer(IAccessPolicy)
class TenantAccessPolicy:
    """Everybody has their own user's sessions; SUPER and PROCESS widen that to the tenant.

    For users of tenant sys they widen it to the cluster, to sessions that have not logged in yet, to the servers of
    all clusters and to the proxy's statistics, and SUPER to its settings. The tenant's name alone gives no right: on
    servers without tenants it is a label that the client chose. Rules of the settings may everything, and so may the
    administrator of the proxy; its inspector sees everything.

    Args:
        grants: privileges of the settings. Where they suffice, no server is asked.
    """

    def __init__(self, grants: Sequence[Grant] = ()) -> None:
        self._grants = grants

    def decide(self, asker: Asker, verb: Verb, cs_id: int, owner: Identity | None) -> Decision:
        """Return what `IAccessPolicy` wants."""
        if asker.rule or cs_id == asker.cs_id or owner == asker.identity:
            return Decision.ALLOWED
        if asker.identity.tenant == PROXY_TENANT:
            return _decide_for_own(asker.identity.user, verb)
        if not _is_in_reach(asker.identity, owner):
            return Decision.INVISIBLE
        privileges = asker.privileges or Privileges.NONE
        for grant in self._grants:
            if grant.is_for(asker.identity):
                privileges |= grant.privileges
        if Privileges.SUPER in privileges or (Privileges.PROCESS in privileges and verb in _LOOKING):
            return Decision.ALLOWED
        if asker.privileges is None:
            return Decision.NEEDS_PRIVILEGES
        return Decision.DENIED if Privileges.PROCESS in privileges else Decision.INVISIBLE


def _decide_for_own(user: str, verb: Verb) -> Decision:
    """Decide for an account of the proxy's own."""
    if user == ADMINISTRATOR or (user == INSPECTOR and verb in _LOOKING):
        return Decision.ALLOWED
    return Decision.DENIED if user == INSPECTOR else Decision.INVISIBLE


def _is_in_reach(asker: Identity, owner: Identity | None) -> bool:
    """Say whether a privileged asker may know of the session at all."""
    if owner is None:
        return asker.tenant == CLUSTER_TENANT
    return owner.cluster == asker.cluster and asker.tenant in (owner.tenant, CLUSTER_TENANT)
