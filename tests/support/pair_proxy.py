"""A proxy before a pair of servers: its settings, and where its clients' server sessions are."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pymysql.connections import Connection

from tests.support.pairs import APP_PASSWORD, MONITOR_PASSWORD, Pair
from tests.support.servers import Proxy, Server, wait_until
from tests.support.sessions import query

CLUSTERS = {"ob1": "replica_first", "careful": "primary", "weak": "weak_read"}
"""The clusters of such a proxy, each with both servers; the names stand for read policies."""

_HEALTH = "[health]\ninterval = 0.2\ntimeout = 0.5\nfailures = 2\n"
_SERVICE_ACCOUNT = f'[service_account]\nuser = "odp_monitor"\npassword = "{MONITOR_PASSWORD}"\n'
_KILL = "[kill]\ntimeout = 2.0\n"


def start_pair_proxy(base: Path, pair: Pair[Any], accounts: str = "", watched: bool = True) -> Proxy:
    """Start a proxy, and wait until it knows who is the primary.

    Args:
        base: an empty directory.
        pair: the servers.
        accounts: `[[account]]` tables.
        watched: whether there is a service account, so that roles are found out and verifiers fetched; else the
            roles are set.
    """
    tables = [
        f'[[cluster]]\nname = "{name}"\nread_policy = "{policy}"\n'
        + "".join(
            f'[[cluster.server]]\naddress = "{server.address}"\nrole = "{"auto" if watched else role}"\n'
            for role, server in (("primary", pair.primary), ("replica", pair.replica))
        )
        for name, policy in CLUSTERS.items()
    ]
    settings = base / "odp.toml"
    settings.write_text("".join([*tables, accounts, _SERVICE_ACCOUNT if watched else "", _HEALTH, _KILL]))
    proxy = Proxy(base, "--config", str(settings))
    try:
        with proxy.connect() as root:
            wait_until(lambda: {"primary", "replica"} == set(roles(root)), what="the roles of both servers")
    except BaseException:
        proxy.stop()
        raise
    return proxy


def connect_app(proxy: Proxy, cluster: str = "ob1", user: str = "app", **more: Any) -> Connection:
    """Return a connection of `app`, or of another user, to the database `shop` through a proxy."""
    options = {"password": APP_PASSWORD, "database": "shop", **more}
    return proxy.connect(user, f"@sys#{cluster}", **options)


def roles(root: Connection) -> dict[str, str]:
    """Return which server the proxy takes for the primary and which for the replica, of those that are up."""
    return {row[4]: row[3] for row in query(root, "SHOW PROXYCLUSTER LIKE 'ob1'") if row[6] == "up"}


def server_sessions(connection: Connection, number: int | str = "") -> dict[str, dict[str, str]]:
    """Return what SHOW PROXYSESSION ATTRIBUTE tells of each server session, by group."""
    found: dict[str, dict[str, str]] = {}
    for name, value, group in query(connection, f"SHOW PROXYSESSION ATTRIBUTE {number}"):
        if "ss" in group.split():
            found.setdefault(group, {})[name] = value
    return found


def server_session_at(connection: Connection, server: Server, number: int | str = "") -> dict[str, str]:
    """Return the attributes of the one server session that a client session has at a server."""
    (found,) = (
        each
        for each in server_sessions(connection, number).values()
        if server.address.endswith(f":{each['server_port']}")
    )
    return found


def served_by(connection: Connection, pair: Pair[Any], number: int | str = "") -> str:
    """Return which server of a pair ran the last statement, or runs the present one."""
    ports = {
        each["server_port"]
        for group, each in server_sessions(connection, number).items()
        if group.startswith(("last used", "curr used"))
    }
    named = {str(pair.primary.port): "primary", str(pair.replica.port): "replica"}
    return " ".join(named.get(port, port) for port in ports)


def wait_for_replica(client: Connection, pair: Pair[Any]) -> None:
    """Wait until the replica serves a client that has written: it has what the client wrote."""

    def served() -> bool:
        query(client, "SELECT 1")
        return served_by(client, pair) == "replica"

    wait_until(served, what="reads on the replica")
