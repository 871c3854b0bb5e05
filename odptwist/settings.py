"""Settings: the values that a proxy runs with, their defaults and their limits.

Where the keys of a table in a settings file are the same as the attributes here, the class is the table, too.
"""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Annotated

from attrs import Factory, evolve, field, frozen

from odptwist.config_file import Between, Read
from odptwist.config_spellings import check_account, check_network, one_of, parse_certificate_name, parse_own_verifier
from odptwist.snapshots import (
    Address,
    Algorithm,
    HeaderPolicy,
    HeaderVersion,
    ListenerTls,
    Privileges,
    ReadPolicy,
    Role,
    RuleAction,
    ServerCompression,
    TlsMode,
)

DEFAULT_PORT = "2883"
DEFAULT_CLUSTER = "odp"
DEFAULT_DATA_DIR = "odp-data"
DEFAULT_TENANTS = ("sys",)
DEFAULT_KILLER = "kill"
DEFAULT_ID_VERSION = 1
DEFAULT_RATE_LIMIT = 60
AUTO_CERTIFICATE = "auto"
"""Stands for a certificate that the proxy makes at its start and signs itself."""

_ALGORITHMS = {algorithm.value: algorithm.value for algorithm in Algorithm}
# Without the extra `zstd` it is not offered; who names it all the same is told so.
_OFFERED = tuple(each for each in _ALGORITHMS if each != Algorithm.ZSTD.value or find_spec("zstandard") is not None)
_TLS_VERSIONS = {version: version for version in ("1.2", "1.3")}


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
    `server_certificate` is a file of what the proxy shows to them, with its chain, or empty; `server_key` is a file of
    its key, empty if that is in the same one. `server_proxy_protocol`: which PROXY header the servers are sent.
    `server_compression`: how they are talked to if they offer that.
    """

    name: str
    servers: tuple[ServerSettings, ...] = ()
    tenants: tuple[str, ...] = DEFAULT_TENANTS
    read_policy: ReadPolicy = ReadPolicy.PRIMARY
    server_tls: TlsMode = TlsMode.DISABLED
    server_ca: str = ""
    server_certificate: str = ""
    server_key: str = ""
    server_proxy_protocol: HeaderVersion = HeaderVersion.OFF
    server_compression: ServerCompression = ServerCompression.OFF


@frozen
class ListenerSettings:
    """One place where clients come in.

    `port` is an endpoint description, or a bare number. `tls`: whether they must use it. `proxy_protocol`: whether they
    send a PROXY header.
    """

    port: str
    tls: ListenerTls = ListenerTls.DEFAULT
    proxy_protocol: HeaderPolicy = HeaderPolicy.OFF


@frozen
class ProxyProtocolSettings:
    """Whose PROXY headers are believed: networks such as `10.0.0.0/8`, and `unix` for Unix sockets."""

    trusted: list[Annotated[str, Read(check_network)]] = Factory(list)


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
class ClientSettings:
    """What clients are offered: `local_infile`, that their servers may ask them for files (LOAD DATA LOCAL)."""

    local_infile: bool = True


@frozen
class LogSettings:
    """What the log has of sessions: `sessions`, also that they began, and ends that are nothing special."""

    sessions: bool = False


_Connections = Annotated[int, Between(0, 1_000_000)]
# A year at most, as with MariaDB's wait_timeout.
_Time = Annotated[float, Between(0, 31_536_000, "seconds")]


@frozen
class LimitSettings:
    """What clients may take; 0 is no limit, and of `max_connections` as many as there are file descriptors for.

    Connections are counted in all, of one user, and from one address. `login_timeout` is for a whole login.
    `wait_timeout` is for the pauses of programs, `interactive_timeout` for those of clients at which a person types,
    and `idle_transaction_timeout` for those of both in a transaction. `max_statement_time` is for one statement.
    """

    max_connections: _Connections = 0
    max_user_connections: _Connections = 0
    max_address_connections: _Connections = 0
    login_timeout: _Time = 10.0
    wait_timeout: _Time = 0.0
    interactive_timeout: _Time = 0.0
    idle_transaction_timeout: _Time = 0.0
    max_statement_time: _Time = 0.0


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
class CertificateAccountSettings:
    """The users that a client may log in as, and nobody else may, whose certificate has a name.

    `subject` is such as `cn:app`, `dns:app.example.com`, `email:app@example.com` or `uri:spiffe://example.com/app`;
    the users are spelled as those of accounts.
    """

    subject: Annotated[str, Read(parse_certificate_name)] = ""
    users: list[Annotated[str, Read(check_account)]] = Factory(list)


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
    certificate_account: list[CertificateAccountSettings] = Factory(list)


@frozen
class CompressionSettings:
    """Compressed packets, with clients and with servers.

    `clients` are the algorithms that clients are offered, none to offer nothing. The levels say how hard the proxy
    tries; it compresses in its one thread, so that all wait for it.
    """

    clients: list[Annotated[str, Read(one_of(_ALGORITHMS))]] = Factory(lambda: list(_OFFERED))
    zlib_level: Annotated[int, Between(1, 9)] = 1
    zstd_level: Annotated[int, Between(1, 22)] = 1


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
    rate_limit: int = DEFAULT_RATE_LIMIT
    reason: str = ""


@frozen
class Settings:
    """What a proxy runs with.

    `ports` are endpoint descriptions as Twisted understands them, or bare numbers, and `listeners` further ones of
    which more was said. `service_account` is None if there
    is none. `client_session_id_version` is 1 or 2; `proxy_id` is the proxy's number in its ids, None if any will do.
    """

    ports: tuple[str, ...] = (DEFAULT_PORT,)
    listeners: tuple[ListenerSettings, ...] = ()
    proxy_protocol: ProxyProtocolSettings = ProxyProtocolSettings()
    clusters: tuple[ClusterSettings, ...] = (ClusterSettings(DEFAULT_CLUSTER),)
    data_dir: Path = Path(DEFAULT_DATA_DIR)
    kill: KillSettings = KillSettings()
    accounts: tuple[AccountSettings, ...] = ()
    roles: tuple[RoleSettings, ...] = ()
    admin: AdminSettings = AdminSettings()
    service_account: ServiceAccountSettings | None = None
    clients: ClientSettings = ClientSettings()
    log: LogSettings = LogSettings()
    limits: LimitSettings = LimitSettings()
    history: HistorySettings = HistorySettings()
    health: HealthSettings = HealthSettings()
    routing: RoutingSettings = RoutingSettings()
    tls: TlsSettings = TlsSettings()
    compression: CompressionSettings = CompressionSettings()
    rules: tuple[RuleSettings, ...] = ()
    client_session_id_version: int = DEFAULT_ID_VERSION
    proxy_id: int | None = None

    @property
    def embedded(self) -> bool:
        """Whether the proxy starts a server of its own."""
        return not any(cluster.servers for cluster in self.clusters)

    @property
    def entrances(self) -> tuple[ListenerSettings, ...]:
        """Return all places where clients come in, with their endpoint descriptions.

        A bare number listens on every address; before the embedded server, whose root has no password, on loopback.
        """
        # Twisted's own backlog of 50 is soon full when a pool opens its connections at once.
        suffix = ":backlog=1024" + (":interface=127.0.0.1" if self.embedded else "")
        every = (*map(ListenerSettings, self.ports), *self.listeners)
        return tuple(evolve(each, port=f"tcp:{each.port}{suffix}") if each.port.isdigit() else each for each in every)

    @property
    def endpoints(self) -> tuple[str, ...]:
        """Return all endpoint descriptions."""
        return tuple(each.port for each in self.entrances)
