"""Who a client says it is: user, tenant and cluster, and the spellings of a user name that name them.

Source: spec section 7.1 (ODP's `ob_proxy_auth_parser`).
"""

from __future__ import annotations

from collections.abc import Collection

from attrs import frozen

DEFAULT_TENANT = "sys"
PROXY_TENANT = "proxysys"
"""The tenant of the accounts that the proxy itself has; no server ever sees a session of it (ODP's, spec 7.2)."""
ADMINISTRATOR = "root"
"""The user of that tenant who may everything."""
INSPECTOR = "inspector"
"""The user of that tenant who may see everything, and end nothing."""


@frozen(cache_hash=True)
class Identity:
    """A user of a tenant of a cluster; all three are never empty, and compared exactly."""

    user: str
    tenant: str
    cluster: str

    def __str__(self) -> str:
        """Return the standard spelling, `user@tenant#cluster`."""
        return f"{self.user}@{self.tenant}#{self.cluster}"


def legible(text: object) -> str:
    """Return what a peer has chosen as it can stand in a line of the log: printable, the rest escaped."""
    return "".join(each if each.isprintable() else ascii(each)[1:-1] for each in str(text))


@frozen
class UserName:
    """The parts of a user name; tenant and cluster are empty where it does not name them."""

    user: str
    tenant: str = ""
    cluster: str = ""


def parse_user_name(text: str, clusters: Collection[str], default_cluster: str) -> Identity:
    """Read a user name as a client sends it, as `split_user_name` does.

    Args:
        text: the name from the handshake response.
        clusters: the known clusters.
        default_cluster: for names without a cluster.

    Raises:
        ValueError: if a part is empty or `@` follows `#`.
    """
    name = split_user_name(text, clusters)
    return Identity(name.user, name.tenant or DEFAULT_TENANT, name.cluster or default_cluster)


def split_user_name(text: str, clusters: Collection[str] = ()) -> UserName:
    """Take a user name apart.

    Understood are `user`, `user@tenant`, `user#cluster`, `user@tenant#cluster[:cluster_id]` and
    `cluster:tenant:user[:cluster_id]`, where `-` and `.` may stand for `:`. ODP takes every name with two such
    separators apart; here `-` and `.` count only where the first part names a cluster, because `my-app-user` is a
    common name on MySQL.

    Args:
        text: the name.
        clusters: the known clusters, to recognise the spellings with `-` and `.`.

    Raises:
        ValueError: if a part is empty or `@` follows `#`.
    """
    if "@" in text or "#" in text:
        account, _, cluster = text.partition("#")
        if "@" in cluster:
            raise ValueError("the tenant must stand before the cluster: user@tenant#cluster")
        user, at, tenant = account.partition("@")
        cluster = cluster.partition(":")[0]
        if (at and not tenant) or ("#" in text and not cluster):
            raise ValueError("an empty tenant or cluster in the user name")
    else:
        user, tenant, cluster = text, "", ""
        for separator in ":-.":
            parts = text.split(separator)
            if len(parts) in (3, 4) and (separator == ":" or parts[0] in clusters):
                cluster, tenant, user = parts[:3]
                if not cluster or not tenant:
                    raise ValueError("an empty tenant or cluster in the user name")
                break
    if not user:
        raise ValueError("an empty user name")
    return UserName(user, tenant, cluster)
