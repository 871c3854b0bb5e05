"""Settings: the TOML file, the command line, and the checks that both pass through.

A fault names its key and, in a file, its line; all faults are reported at once. No secret is in any of them.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from pathlib import Path
from typing import Annotated, Any

from attrs import Factory, evolve, field, frozen

from odptwist.config_file import Between, ConfigFile, OneOrMore, Read
from odptwist.config_lines import Key
from odptwist.config_spellings import (
    check_name,
    check_not_empty,
    check_port,
    check_reason,
    check_rule_name,
    make_verifier,
    one_of,
    parse_account,
    parse_address,
    parse_own_verifier,
    parse_proxy_id,
    parse_verifier,
)
from odptwist.errors import ConfigError, SqlError
from odptwist.identity import UserName
from odptwist.snapshots import Address, Privileges, ReadPolicy, Role, RuleAction, TlsMode

DEFAULT_PORT = "2883"
DEFAULT_CLUSTER = "odp"
DEFAULT_DATA_DIR = "odp-data"
DEFAULT_TENANTS = ("sys",)
DEFAULT_KILLER = "kill"
DEFAULT_ID_VERSION = 1
AUTO_CERTIFICATE = "auto"
"""Stands for a certificate that the proxy makes at its start and signs itself."""

_ROLES = {"auto": None, "primary": Role.PRIMARY, "replica": Role.REPLICA}
_TLS_VERSIONS = {version: version for version in ("1.2", "1.3")}
_TLS_MODES = {mode.value: mode for mode in TlsMode}
_VERIFYING = (TlsMode.VERIFY_CA, TlsMode.VERIFY_FULL)
_POLICIES = {policy.value: policy for policy in ReadPolicy}
_PRIVILEGES = {"PROCESS": Privileges.PROCESS, "SUPER": Privileges.SUPER}
_ACTIONS = {action.value: action for action in RuleAction}
_RATE_LIMIT = 60
_Rate = Annotated[int, Between(0, 100_000, "actions a minute")]


@frozen
class ServerSettings:
    """One server of a cluster.

    `role` is None where it is to be found out. `weight` is its share of reads among its kind. `killer` is the name of
    an `IBackendKiller`.
    """

    address: Address
    role: Role | None = None
    weight: int = 1
    killer: str = DEFAULT_KILLER


@frozen
class ClusterSettings:
    """One cluster; without servers it is served by the embedded one.

    `server_tls` is about servers that are not on a Unix socket; `server_ca` is a file of certificates, or empty.
    """

    name: str
    servers: tuple[ServerSettings, ...] = ()
    tenants: tuple[str, ...] = DEFAULT_TENANTS
    read_policy: ReadPolicy = ReadPolicy.PRIMARY
    server_tls: TlsMode = TlsMode.DISABLED
    server_ca: str = ""


@frozen
class AccountSettings:
    """A user whose client sessions may have further server sessions, because the proxy can check the password itself.

    `tenant` and `cluster` are None for any. `verifier` is SHA1(SHA1(password)), 20 bytes.
    """

    user: str
    tenant: str | None
    cluster: str | None
    verifier: bytes = field(repr=False)


@frozen
class RoleSettings:
    """A user whom the proxy takes to have privileges, beside those that the server grants.

    `tenant` and `cluster` are None for any.
    """

    user: str
    tenant: str | None
    cluster: str | None
    privileges: Privileges


@frozen
class AdminSettings:
    """The accounts of the proxy's own, `root@proxysys` and `inspector@proxysys`.

    `password_sha1` and `inspector_password_sha1` are verifiers as in `AccountSettings`; None: nobody can log in.
    `allow_from_anywhere`: also from addresses that are neither loopback nor private.
    """

    password_sha1: Annotated[bytes | None, Read(parse_own_verifier)] = field(default=None, repr=False)
    inspector_password_sha1: Annotated[bytes | None, Read(parse_own_verifier)] = field(default=None, repr=False)
    allow_from_anywhere: bool = False


@frozen
class ServiceAccountSettings:
    """The proxy's own account on the servers; the password may be empty."""

    user: str
    password: str = field(repr=False)


@frozen
class KillSettings:
    """How statements are stopped on servers.

    `user` and `password` are an account for what neither the asker's nor the victim's can stop; no `user`: there is
    none. `timeout` is for a server's answer, in seconds. `abandoned`: whether a statement is stopped when its client
    has gone.
    """

    user: str = ""
    password: str = field(default="", repr=False)
    timeout: Annotated[float, Between(0.1, 3600, "seconds")] = 5.0
    abandoned: bool = True


@frozen
class HistorySettings:
    """What is remembered of sessions that have ended: the last `sessions` of them, client and server sessions."""

    sessions: Annotated[int, Between(0, 100_000)] = 1000


@frozen
class HealthSettings:
    """How servers are watched.

    `interval` is between two checks of a server, `timeout` for one check, `retry` until a server that is down is tried
    again by clients: seconds. So many `failures` in a row make a server down.
    """

    interval: Annotated[float, Between(0.1, 3600, "seconds")] = 2.0
    timeout: Annotated[float, Between(0.1, 60, "seconds")] = 2.0
    failures: Annotated[int, Between(1, 100)] = 3
    retry: Annotated[float, Between(1, 3600, "seconds")] = 20.0


@frozen
class TlsSettings:
    """TLS with clients; without a `certificate` it is not offered.

    `certificate` is a file of it and its chain, or `AUTO_CERTIFICATE`; `key` is a file of its key, empty if that is in
    the same one. `client_ca` is a file of certificates that may have signed those of clients, empty if clients are not
    asked for one. `require`: whether clients must use TLS.
    """

    certificate: str = ""
    key: str = ""
    minimum_version: Annotated[str, Read(one_of(_TLS_VERSIONS))] = "1.2"
    client_ca: str = ""
    require_client_certificate: bool = False
    require: bool = False


@frozen
class RoutingSettings:
    """What becomes of statements when servers change or differ.

    `retry_reads`: whether a read whose server was lost before it answered is run once more on another. `primary_wait`
    is how long a write waits for a primary to appear, `settle` for how long after a write the reads of its session
    stay on the primary: seconds.
    """

    retry_reads: bool = True
    primary_wait: Annotated[float, Between(0, 300, "seconds")] = 5.0
    settle: Annotated[float, Between(0, 3600, "seconds")] = 0.5


@frozen
class RuleSettings:
    """What is done about the sessions for which a condition is true, at most `rate_limit` times a minute.

    `where` is a condition as after WHERE; `reason` is one line for the victims and the log, or empty.
    """

    name: str
    where: str
    action: RuleAction
    rate_limit: int = _RATE_LIMIT
    reason: str = ""


@frozen
class Settings:
    """What a proxy runs with.

    `ports` are endpoint descriptions as Twisted understands them, or bare numbers. `service_account` is None if there
    is none. `client_session_id_version` is 1 or 2; `proxy_id` is the proxy's number in its ids, None if any will do.
    """

    ports: tuple[str, ...] = (DEFAULT_PORT,)
    clusters: tuple[ClusterSettings, ...] = (ClusterSettings(DEFAULT_CLUSTER),)
    data_dir: Path = Path(DEFAULT_DATA_DIR)
    kill: KillSettings = KillSettings()
    accounts: tuple[AccountSettings, ...] = ()
    roles: tuple[RoleSettings, ...] = ()
    admin: AdminSettings = AdminSettings()
    service_account: ServiceAccountSettings | None = None
    history: HistorySettings = HistorySettings()
    health: HealthSettings = HealthSettings()
    routing: RoutingSettings = RoutingSettings()
    tls: TlsSettings = TlsSettings()
    rules: tuple[RuleSettings, ...] = ()
    client_session_id_version: int = DEFAULT_ID_VERSION
    proxy_id: int | None = None

    @property
    def embedded(self) -> bool:
        """Whether the proxy starts a server of its own."""
        return not any(cluster.servers for cluster in self.clusters)

    @property
    def endpoints(self) -> tuple[str, ...]:
        """Return `ports` as endpoint descriptions.

        A bare number listens on every address; before the embedded server, whose root has no password, on loopback.
        """
        # Twisted's own backlog of 50 is soon full when a pool opens its connections at once.
        suffix = ":backlog=1024" + (":interface=127.0.0.1" if self.embedded else "")
        return tuple(f"tcp:{port}{suffix}" if port.isdigit() else port for port in self.ports)


# What stands in a file, table by table. None is what is missing, or so faulty that it was left out.


@frozen
class _ServerTable:
    address: Annotated[Address | None, Read(parse_address)] = None
    role: Annotated[Role | None, Read(one_of(_ROLES))] = None
    weight: Annotated[int, Between(1, 1000)] = 1
    killer: str = DEFAULT_KILLER


@frozen
class _ClusterTable:
    name: Annotated[str | None, Read(check_name)] = None
    tenants: list[Annotated[str, Read(check_not_empty)]] = Factory(lambda: list(DEFAULT_TENANTS))
    read_policy: Annotated[ReadPolicy, Read(one_of(_POLICIES))] = ReadPolicy.PRIMARY
    server_tls: Annotated[TlsMode, Read(one_of(_TLS_MODES))] = TlsMode.DISABLED
    server_ca: str = ""
    server: list[_ServerTable] = Factory(list)


@frozen
class _AccountTable:
    user: Annotated[UserName | None, Read(parse_account)] = None
    password_sha1: Annotated[bytes | None, Read(parse_verifier)] = field(default=None, repr=False)
    password: Annotated[bytes | None, Read(make_verifier)] = field(default=None, repr=False)


@frozen
class _RoleTable:
    user: Annotated[UserName | None, Read(parse_account)] = None
    privileges: list[Annotated[Privileges, Read(one_of(_PRIVILEGES))]] = Factory(list)


@frozen
class _ServiceAccountTable:
    user: Annotated[str | None, Read(check_not_empty)] = None
    password: str = field(default="", repr=False)


@frozen
class _RuleTable:
    name: Annotated[str | None, Read(check_rule_name)] = None
    where: Annotated[str | None, Read(check_not_empty)] = None
    action: Annotated[RuleAction | None, Read(one_of(_ACTIONS))] = None
    rate_limit: _Rate = _RATE_LIMIT
    reason: Annotated[str, Read(check_reason)] = ""


@frozen
class _Tables:
    port: Annotated[list[Annotated[str, Read(check_port, numbers=True)]], OneOrMore()] = Factory(list)
    server: Annotated[list[Annotated[Address, Read(parse_address)]], OneOrMore()] = Factory(list)
    cluster_name: Annotated[str | None, Read(check_name)] = None
    data_dir: str = ""
    client_session_id_version: Annotated[int, Between(1, 2)] = DEFAULT_ID_VERSION
    proxy_id: Annotated[int | None, Read(parse_proxy_id, numbers=True)] = None
    cluster: list[_ClusterTable] = Factory(list)
    account: list[_AccountTable] = Factory(list)
    role: list[_RoleTable] = Factory(list)
    admin: AdminSettings = AdminSettings()
    service_account: _ServiceAccountTable | None = None
    kill: KillSettings = KillSettings()
    history: HistorySettings = HistorySettings()
    health: HealthSettings = HealthSettings()
    routing: RoutingSettings = RoutingSettings()
    tls: TlsSettings = TlsSettings()
    rule: list[_RuleTable] = Factory(list)


def load_settings(
    path: str | None = None,
    ports: Sequence[str] = (),
    servers: Sequence[str] = (),
    cluster_name: str | None = None,
    data_dir: str | None = None,
    check_where: Callable[[str], object] | None = None,
    certificate: str | None = None,
) -> Settings:
    """Return the settings of a file (or none), overridden by what the command line says.

    `check_where` raises `SqlError` if a condition of a rule cannot be used. `certificate` replaces that of `[tls]`, and
    its key.

    Raises:
        ConfigError: with every fault that was found: `FILE:LINE: KEY: what is wrong`, or `--OPTION: what is wrong`.
    """
    options: list[str] = []
    given_ports = _given(options, "--port", check_port, ports)
    given_servers = _given(options, "--server", parse_address, servers)
    given_certificates = _given(options, "--tls", check_not_empty, () if certificate is None else (certificate,))
    given_names = _given(options, "--cluster-name", check_name, () if cluster_name is None else (cluster_name,))

    file = ConfigFile.read(path) if path else ConfigFile()
    tables = file.structure(_Tables)
    clusters = tuple(_cluster(file, ("cluster", place), table) for place, table in enumerate(tables.cluster))
    _check_clusters(file, tables)
    if tables.cluster and not servers and cluster_name is not None:
        options.append("--cluster-name: cannot stand beside [[cluster]], which has a name of its own")
    if servers or tables.server or not tables.cluster:
        name = (*given_names, tables.cluster_name or DEFAULT_CLUSTER)[0]
        addresses = given_servers if servers else tables.server
        clusters = (ClusterSettings(name, tuple(ServerSettings(address) for address in addresses)),)
        for place in _repeats(addresses):
            if servers:
                options.append(f"--server: {_twice(addresses[place])}")
            else:
                file.fault(("server", place), _twice(addresses[place]))
    known = {cluster.name for cluster in clusters}
    accounts = _accounts(file, tables, known)
    roles = _roles(file, tables, known)
    if tables.service_account is not None and tables.service_account.user is None:
        file.missing(("service_account", "user"))
    rules = _rules(file, tables, check_where)
    if tables.kill.password and not tables.kill.user and not file.is_faulty(("kill", "user")):
        file.fault(("kill", "password"), "needs kill.user")
    _check_proxy_id(file, tables)
    tls = _tls(file, tables.tls, *given_certificates)
    if faults := [*options, *file.faults]:
        raise ConfigError(*faults)
    return Settings(
        ports=tuple(given_ports or tables.port or (DEFAULT_PORT,)),
        clusters=clusters,
        data_dir=Path(data_dir or tables.data_dir or DEFAULT_DATA_DIR),
        kill=tables.kill,
        accounts=accounts,
        roles=roles,
        admin=tables.admin,
        service_account=_service_account(tables.service_account),
        history=tables.history,
        health=tables.health,
        routing=tables.routing,
        tls=tls,
        rules=rules,
        client_session_id_version=tables.client_session_id_version,
        proxy_id=tables.proxy_id,
    )


def _given(faults: list[str], option: str, read: Callable[[str], Any], texts: Sequence[str]) -> list[Any]:
    values = []
    for text in texts:
        try:
            values.append(read(text))
        except ValueError as fault:
            faults.append(f"{option}: {fault}")
    return values


def _check_proxy_id(file: ConfigFile, tables: _Tables) -> None:
    """Check that the proxy's number has room in its ids, and sets them apart where they have to be."""
    if tables.proxy_id is None or file.is_faulty(("client_session_id_version",)):
        return
    if tables.client_session_id_version == 1 and tables.proxy_id > 255:
        file.fault(("proxy_id",), "must be from 0 to 255 where client_session_id_version is 1")
    if tables.client_session_id_version == 2 and not tables.proxy_id:
        file.fault(("proxy_id",), "must not be 0 where client_session_id_version is 2: servers have such ids too")


def _tls(file: ConfigFile, table: TlsSettings, certificate: str = "") -> TlsSettings:
    """Return how TLS is offered to clients; `certificate` is the command line's, empty if it has none."""
    if certificate:
        table = evolve(table, certificate=certificate, key="")
    elif table.certificate == AUTO_CERTIFICATE and table.key:
        file.fault(("tls", "key"), "cannot stand beside a certificate that is made at the start")
    elif table != TlsSettings() and not table.certificate:
        file.missing(("tls", "certificate"))
    if table.require_client_certificate and not table.client_ca:
        file.fault(("tls", "require_client_certificate"), "needs tls.client_ca")
    return table


def _check_clusters(file: ConfigFile, tables: _Tables) -> None:
    """Check how the clusters of a file go with each other, and with the keys for a sole one."""
    for place in _repeats([table.name for table in tables.cluster]):
        file.fault(("cluster", place, "name"), _twice(tables.cluster[place].name))
    if not tables.cluster:
        return
    if tables.cluster_name is not None:
        file.fault(("cluster_name",), "cannot stand beside [[cluster]], which has a name of its own")
    if tables.server:
        file.fault(("server",), "cannot stand beside [[cluster]]; put it into a [[cluster.server]]")
    if len(tables.cluster) > 1:
        for place, table in enumerate(tables.cluster):
            key = ("cluster", place)
            if not table.server and not file.is_faulty((*key, "server")):
                file.fault(key, "needs a [[cluster.server]]; only a sole cluster can be the embedded one")
    ways: dict[Address | None, tuple[TlsMode, str]] = {}
    for place, table in enumerate(tables.cluster):
        way = (table.server_tls, table.server_ca)
        if any(ways.setdefault(server.address, way) != way for server in table.server):
            file.fault(("cluster", place, "server_tls"), "another cluster has one of its servers, with another TLS")


def _cluster(file: ConfigFile, key: Key, table: _ClusterTable) -> ClusterSettings:
    if table.name is None:
        file.missing((*key, "name"))
    if not table.tenants:
        file.fault((*key, "tenants"), "needs at least one name")
    for place, server in enumerate(table.server):
        if server.address is None:
            file.missing((*key, "server", place, "address"))
    for place in _repeats([server.address for server in table.server]):
        file.fault((*key, "server", place, "address"), _twice(table.server[place].address))
    for place in _repeats([server.role if server.role is Role.PRIMARY else None for server in table.server]):
        file.fault((*key, "server", place, "role"), "another server of the cluster is the primary already")
    if (table.server_tls in _VERIFYING) is not bool(table.server_ca) and not file.is_faulty((*key, "server_tls")):
        fault = "is used by verify_ca and verify_full only" if table.server_ca else "is missing"
        file.fault((*key, "server_ca"), fault)
    return ClusterSettings(
        table.name or "",
        tuple(
            ServerSettings(server.address, server.role, server.weight, server.killer)
            for server in table.server
            if server.address is not None
        ),
        tuple(table.tenants),
        table.read_policy,
        table.server_tls,
        table.server_ca,
    )


def _accounts(file: ConfigFile, tables: _Tables, clusters: set[str]) -> tuple[AccountSettings, ...]:
    """Return the accounts of a file; `clusters` are known beside its own, which the command line may have replaced."""
    _check_users(file, tables, clusters, "account", [table.user for table in tables.account])
    accounts = (_account(file, ("account", place), table) for place, table in enumerate(tables.account))
    return tuple(account for account in accounts if account is not None)


def _roles(file: ConfigFile, tables: _Tables, clusters: set[str]) -> tuple[RoleSettings, ...]:
    """Return the roles of a file; `clusters` as in `_accounts`."""
    _check_users(file, tables, clusters, "role", [table.user for table in tables.role])
    roles = []
    for place, table in enumerate(tables.role):
        key = ("role", place)
        if not table.privileges and not file.is_faulty((*key, "privileges")):
            file.fault((*key, "privileges"), "needs at least one")
        if table.user is None:
            file.missing((*key, "user"))
        else:
            granted = Privileges.NONE
            for privilege in table.privileges:
                granted |= privilege
            roles.append(RoleSettings(table.user.user, table.user.tenant or None, table.user.cluster or None, granted))
    return tuple(roles)


def _check_users(
    file: ConfigFile, tables: _Tables, clusters: set[str], section: str, users: Sequence[UserName | None]
) -> None:
    """Check that no user of a list of tables is there twice, or of a cluster that nobody knows."""
    known = {table.name for table in tables.cluster} | clusters
    # Where a name was left out, nobody can tell whether a cluster is unknown.
    left_out = (
        None in known or file.is_faulty(("cluster_name",)) or (not tables.cluster and file.is_faulty(("cluster",)))
    )
    for place, user in enumerate(users):
        if user is not None and user.cluster and user.cluster not in known and not left_out:
            file.fault((section, place, "user"), f"there is no cluster {user.cluster!r}")
    for place in _repeats(users):
        file.fault((section, place, "user"), "is there twice")


def _account(file: ConfigFile, key: Key, table: _AccountTable) -> AccountSettings | None:
    if table.user is None:
        file.missing((*key, "user"))
    verifier = table.password_sha1 or table.password
    if table.password_sha1 is not None and table.password is not None:
        file.fault((*key, "password"), "cannot stand beside password_sha1")
    elif verifier is None and not any(file.is_faulty((*key, way)) for way in ("password_sha1", "password")):
        file.fault(key, "needs password_sha1 or password")
    if table.user is None or verifier is None:
        return None
    return AccountSettings(table.user.user, table.user.tenant or None, table.user.cluster or None, verifier)


def _rules(file: ConfigFile, tables: _Tables, check_where: Callable[[str], object] | None) -> tuple[RuleSettings, ...]:
    names = [table.name or str(place + 1) for place, table in enumerate(tables.rule)]
    for place in _repeats(names):
        file.fault(("rule", place, "name"), _twice(names[place]))
    rules = []
    for place, (name, table) in enumerate(zip(names, tables.rule, strict=True)):
        key = ("rule", place)
        if table.where is None:
            file.missing((*key, "where"))
        elif check_where is not None:
            try:
                check_where(table.where)
            except SqlError as fault:
                file.fault((*key, "where"), fault.message.removeprefix("WHERE: "))
        if table.action is None:
            file.missing((*key, "action"))
        elif table.where is not None:
            rules.append(RuleSettings(name, table.where, table.action, table.rate_limit, table.reason))
    return tuple(rules)


def _service_account(table: _ServiceAccountTable | None) -> ServiceAccountSettings | None:
    return ServiceAccountSettings(table.user, table.password) if table and table.user is not None else None


def _repeats(things: Sequence[Hashable]) -> list[int]:
    """Return the places of what stands further in front too; None is nothing."""
    seen = set()
    repeats = []
    for place, thing in enumerate(things):
        if thing is not None and thing in seen:
            repeats.append(place)
        seen.add(thing)
    return repeats


def _twice(thing: object) -> str:
    return f"{str(thing)!r} is there twice"
