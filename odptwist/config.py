"""Where settings come from: the TOML file, the command line, and the checks that both pass through.

A fault names its key and, in a file, its line; all faults are reported at once. No secret is in any of them.

Some lines over 400: what stands in a table and how tables go with each other must be read side by side.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from pathlib import Path
from typing import Annotated, Any

from attrs import Factory, evolve, field, frozen

from odptwist.config_file import Between, ConfigFile, OneOrMore, Read
from odptwist.config_lines import Key
from odptwist.config_listeners import ListenerTable, read_listeners
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
    parse_proxy_id,
    parse_verifier,
)
from odptwist.errors import ConfigError, SqlError
from odptwist.identity import UserName
from odptwist.settings import (
    AUTO_CERTIFICATE,
    DEFAULT_CLUSTER,
    DEFAULT_DATA_DIR,
    DEFAULT_ID_VERSION,
    DEFAULT_KILLER,
    DEFAULT_PORT,
    DEFAULT_RATE_LIMIT,
    DEFAULT_TENANTS,
    AccountSettings,
    AdminSettings,
    ClientSettings,
    ClusterSettings,
    CompressionSettings,
    HealthSettings,
    HistorySettings,
    KillSettings,
    LimitSettings,
    LogSettings,
    ProxyProtocolSettings,
    RoleSettings,
    RoutingSettings,
    RuleSettings,
    ServerSettings,
    ServiceAccountSettings,
    Settings,
    TlsSettings,
)
from odptwist.snapshots import (
    Address,
    HeaderVersion,
    Privileges,
    ReadPolicy,
    Role,
    RuleAction,
    ServerCompression,
    TlsMode,
)

_ROLES = {"auto": None, "primary": Role.PRIMARY, "replica": Role.REPLICA}
_COMPRESSIONS = {each.value: each for each in ServerCompression}
_HEADER_VERSIONS = {version.value: version for version in HeaderVersion}
_TLS_MODES = {mode.value: mode for mode in TlsMode}
_VERIFYING = (TlsMode.VERIFY_CA, TlsMode.VERIFY_FULL)
_POLICIES = {policy.value: policy for policy in ReadPolicy}
_PRIVILEGES = {"PROCESS": Privileges.PROCESS, "SUPER": Privileges.SUPER}
_ACTIONS = {action.value: action for action in RuleAction}

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
    server_certificate: str = ""
    server_key: str = ""
    server_proxy_protocol: Annotated[HeaderVersion, Read(one_of(_HEADER_VERSIONS))] = HeaderVersion.OFF
    server_compression: Annotated[ServerCompression, Read(one_of(_COMPRESSIONS))] = ServerCompression.OFF
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
    rate_limit: Annotated[int, Between(0, 100_000, "actions a minute")] = DEFAULT_RATE_LIMIT
    reason: Annotated[str, Read(check_reason)] = ""


@frozen
class _Tables:
    port: Annotated[list[Annotated[str, Read(check_port, numbers=True)]], OneOrMore()] = Factory(list)
    listener: list[ListenerTable] = Factory(list)
    proxy_protocol: ProxyProtocolSettings = Factory(ProxyProtocolSettings)
    server: Annotated[list[Annotated[Address, Read(parse_address)]], OneOrMore()] = Factory(list)
    cluster_name: Annotated[str | None, Read(check_name)] = None
    data_dir: str = ""
    client_session_id_version: Annotated[int, Between(1, 2)] = DEFAULT_ID_VERSION
    proxy_id: Annotated[int | None, Read(parse_proxy_id, numbers=True)] = None
    cluster: list[_ClusterTable] = Factory(list)
    account: list[_AccountTable] = Factory(list)
    role: list[_RoleTable] = Factory(list)
    admin: AdminSettings = Factory(AdminSettings)
    service_account: _ServiceAccountTable | None = None
    kill: KillSettings = Factory(KillSettings)
    clients: ClientSettings = Factory(ClientSettings)
    log: LogSettings = Factory(LogSettings)
    limits: LimitSettings = Factory(LimitSettings)
    history: HistorySettings = Factory(HistorySettings)
    health: HealthSettings = Factory(HealthSettings)
    routing: RoutingSettings = Factory(RoutingSettings)
    tls: TlsSettings = Factory(TlsSettings)
    compression: CompressionSettings = Factory(CompressionSettings)
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
    for place in _repeats(tables.compression.clients):
        file.fault(("compression", "clients", place), _twice(tables.compression.clients[place]))
    ports = tuple(given_ports or tables.port)
    listeners = read_listeners(file, tables.listener, ports, tables.proxy_protocol, tls)
    if faults := [*options, *file.faults]:
        raise ConfigError(*faults)
    return Settings(
        ports=ports if ports or listeners else (DEFAULT_PORT,),
        listeners=listeners,
        proxy_protocol=tables.proxy_protocol,
        clusters=clusters,
        data_dir=Path(data_dir or tables.data_dir or DEFAULT_DATA_DIR),
        kill=tables.kill,
        accounts=accounts,
        roles=roles,
        admin=tables.admin,
        service_account=_service_account(tables.service_account),
        clients=tables.clients,
        log=tables.log,
        limits=tables.limits,
        history=tables.history,
        health=tables.health,
        routing=tables.routing,
        tls=tls,
        compression=tables.compression,
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
    for place, account in enumerate(table.certificate_account):
        key = ("tls", "certificate_account", place)
        if not table.client_ca:
            file.fault(key, "needs tls.client_ca")
        if not account.subject:
            file.missing((*key, "subject"))
        if not account.users and not file.is_faulty((*key, "users")):
            file.fault((*key, "users"), "needs at least one")
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
    # Sessions find out how to talk to a server by its address.
    for key_name, what, way_of in _WAYS:
        ways: dict[Address | None, object] = {}
        for place, table in enumerate(tables.cluster):
            way = way_of(table)
            if any(ways.setdefault(server.address, way) != way for server in table.server):
                file.fault(("cluster", place, key_name), f"another cluster has one of its servers, with another {what}")


# What clusters say of how their servers are talked to.
_WAYS: tuple[tuple[str, str, Callable[[_ClusterTable], object]], ...] = (
    (
        "server_tls",
        "TLS",
        lambda table: (table.server_tls, table.server_ca, table.server_certificate, table.server_key),
    ),
    ("server_proxy_protocol", "version", lambda table: table.server_proxy_protocol),
    ("server_compression", "compression", lambda table: table.server_compression),
)


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
    if table.server_key and not table.server_certificate and not file.is_faulty((*key, "server_certificate")):
        file.fault((*key, "server_key"), "needs a server_certificate")
    if table.server_certificate and table.server_tls is TlsMode.DISABLED and not file.is_faulty((*key, "server_tls")):
        file.fault((*key, "server_certificate"), "is not used where server_tls is disabled")
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
        table.server_certificate,
        table.server_key,
        table.server_proxy_protocol,
        table.server_compression,
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
