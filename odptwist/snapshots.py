"""Frozen pictures of live sessions, and what a kill asks and reports: values that may cross processes.

Some lines over 400: there is no logic here, and every floor above finds its values in one place.
"""

from __future__ import annotations

from enum import Enum, Flag, auto, unique

from attrs import frozen

from odptwist.errors import CloseReason
from odptwist.identity import ADMINISTRATOR, PROXY_TENANT, Identity
from odptwist.views import SessionView

# Who the proxy is when it acts by itself: ODP's administrator.
_PROXY = Identity(ADMINISTRATOR, PROXY_TENANT, "proxy")


@frozen(cache_hash=True)
class Address:
    """Where a server listens: host and port, or the path of a Unix socket."""

    host: str = ""
    port: int = 0
    path: str = ""

    def __str__(self) -> str:
        """Return `host:port` (IPv6 in brackets) or `unix:/path`, as settings spell it."""
        if self.path:
            return f"unix:{self.path}"
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


@frozen
class ServerTraits:
    """What a server's greeting says about it; the proxy greets its own clients likewise."""

    version: str
    capabilities: int
    charset: int
    status: int
    plugin: str


@unique
class Role(Enum):
    """What a server is in its cluster."""

    PRIMARY = "primary"
    """It takes writes."""
    REPLICA = "replica"
    """It follows a primary, and takes reads only."""
    UNKNOWN = "unknown"
    """Nobody has said or found out."""


@unique
class ReadPolicy(Enum):
    """Which reads of a cluster go to replicas."""

    PRIMARY = "primary"
    """None."""
    REPLICA_FIRST = "replica_first"
    """All that may: outside of a transaction, without side effects."""
    WEAK_READ = "weak_read"
    """Of these, the SELECTs that ask for weak consistency, by hint or by `ob_read_consistency`."""


@unique
class Algorithm(Enum):
    """How packets are compressed; the words are those of MySQL's `protocol_compression_algorithms`."""

    ZLIB = "zlib"
    ZSTD = "zstd"


@unique
class ServerCompression(Enum):
    """How the proxy compresses what it says to a server, where the server offers that."""

    OFF = "off"
    ZLIB = "zlib"
    ZSTD = "zstd"
    PREFERRED = "preferred"
    """By zstd, else by zlib."""


@unique
class TlsMode(Enum):
    """How the proxy talks to a server; the words are those of MySQL's `ssl_mode`."""

    DISABLED = "disabled"
    """In clear."""
    PREFERRED = "preferred"
    """By TLS if the server offers it, whoever the server is."""
    REQUIRED = "required"
    """By TLS, whoever the server is."""
    VERIFY_CA = "verify_ca"
    """By TLS, with a certificate that a known authority has signed."""
    VERIFY_FULL = "verify_full"
    """The same, and the certificate names the server's host or address."""


@unique
class ListenerTls(Enum):
    """Whether clients that come in at one place must use TLS."""

    DEFAULT = "default"
    """As `[tls]` says for all."""
    OPTIONAL = "optional"
    REQUIRED = "required"


@unique
class HeaderPolicy(Enum):
    """Whether those who connect at one place send a PROXY header."""

    OFF = "off"
    OPTIONAL = "optional"
    """They may."""
    REQUIRED = "required"
    """They must."""


@unique
class HeaderVersion(Enum):
    """Which PROXY header a server is sent."""

    OFF = "off"
    """None."""
    V1 = "v1"
    """A line of text."""
    V2 = "v2"
    """Binary."""


@unique
class Purpose(Enum):
    """What a client session wants a server for."""

    LOGIN = "login"
    """The first one, when what it will be asked is not known, or any: better the primary, if it is up."""
    READ = "read"
    """Reads that a replica may answer."""
    WRITE = "write"
    """Everything else."""


@frozen
class ServerFinding:
    """What a health check has found out about a server that answers.

    `version` is what `SELECT VERSION()` says, or empty. `lag` is seconds behind the primary, None if not known.
    """

    role: Role = Role.UNKNOWN
    version: str = ""
    lag: float | None = None


@frozen
class ServerStanding:
    """What is known about a server of a cluster at one moment.

    `weight` is its share of reads among its kind. `up` is false once enough attempts in a row have failed: `failures`
    counts them, `failed_at` is the time of the last one (seconds since 1970, 0 for never), and `why` says what went
    wrong then. A server that is down is tried again by the health check only.
    """

    cluster: str
    address: Address
    weight: int = 1
    role: Role = Role.UNKNOWN
    up: bool = True
    version: str = ""
    lag: float | None = None
    failures: int = 0
    failed_at: float = 0.0
    why: str = ""


@frozen
class Versions:
    """ODP's counters, one per class of session state; higher means newer."""

    hot_sys_var: int = 0
    sys_var: int = 0
    user_var: int = 0
    last_insert_id: int = 0
    db_name: int = 0


UNCHANGED = Versions()
"""Of a session that has set up nothing."""


@frozen
class ServerSessionSnapshot:
    """A server session as it was at one moment.

    `state` is one of ODP's MSS_* words. `pickups` counts how often it was taken for work (the login is the first);
    `attached` says whether it is working for its client session now; `last_insert_id` marks the one that produced
    the session's LAST_INSERT_ID() last. `versions` are the client session's versions that it has caught up with.
    """

    ss_id: int
    server_sessid: int
    address: Address
    state: str
    pickups: int
    attached: bool
    last_insert_id: bool
    versions: Versions


@frozen
class ClientSessionSnapshot(SessionView):
    """A client session as it was at one moment; what is not said here is said of `SessionView`.

    `versions` are ODP's counters of its state. `bound` is the server session that served last or serves now; `pool` are
    further ones.
    """

    proxy_sessid: int
    cs_id: int
    identity: Identity | None
    host: str
    port: int
    database: str | None
    transactions: int
    state: str
    busy: bool
    in_transaction: bool
    tid: int
    pid: int
    versions: Versions
    bound: ServerSessionSnapshot | None
    pool: tuple[ServerSessionSnapshot, ...] = ()
    seconds: float = 0.0
    transaction_seconds: float = 0.0
    statement: str = ""
    program: str = ""
    pins: tuple[str, ...] = ()
    bar: str = ""
    using_ssl: bool = False
    worker: int = 0
    command: str = ""
    being_killed: bool = False
    bytes_in: int = 0
    bytes_out: int = 0
    statements: int = 0
    client: str = ""
    client_version: str = ""
    cipher: str = ""
    compression: str = ""

    @property
    def server_sessions(self) -> tuple[ServerSessionSnapshot, ...]:
        """Return the bound server session, if any, and then the pooled ones."""
        return ((self.bound,) if self.bound else ()) + self.pool

    @property
    def server_session_count(self) -> int:
        """How many server sessions it has."""
        return len(self.server_sessions)


@unique
class SessionKind(Enum):
    """Whose connection a session was."""

    CLIENT = "client"
    SERVER = "server"


@frozen
class EndedSession:
    """A client or server session that has ended.

    `ended_at` is in seconds since 1970, `seconds` how long it lived. `cs_id` and `identity` are the client session's,
    `identity` None if it never told who it is. `server`, `server_sessid` and `ss_id` are the server session itself, or
    the one that served the client session last; None and 0 if none did. `detail` says who killed it and with which
    text, or what went wrong; empty if there is no more to say than the `reason`. `statement` is the beginning of the
    client session's last SQL text. `bytes_in` came from the peer, `bytes_out` went to it.
    `transaction_lost` says that a transaction was open, which the server has rolled back.
    """

    ended_at: float
    kind: SessionKind
    cs_id: int
    ss_id: int
    seconds: float
    identity: Identity | None
    host: str
    port: int
    server: Address | None
    server_sessid: int
    reason: CloseReason
    detail: str
    statement: str
    bytes_in: int
    bytes_out: int
    statements: int
    transaction_lost: bool


class Privileges(Flag):
    """The rights of an account, as its server grants them, that decide about sessions."""

    NONE = 0
    PROCESS = auto()
    SUPER = auto()


@frozen
class Asker:
    """Who wants to see or to kill.

    `cs_id` is the asker's own client session. `privileges` is None as long as the server was not asked for them. `rule`
    is the name of the rule of the settings that asks, with the proxy's own identity and a `cs_id` of 0; empty for all
    others.
    """

    cs_id: int
    identity: Identity
    privileges: Privileges | None = None
    rule: str = ""

    @classmethod
    def for_rule(cls, name: str) -> Asker:
        """Return the asker that a rule of the settings is."""
        return cls(0, _PROXY, rule=name)

    def __str__(self) -> str:
        """Return what victims and the log are told."""
        return f"rule '{self.rule}'" if self.rule else f"client session {self.cs_id} ({self.identity})"


@unique
class Verb(Enum):
    """What an asker wants to do with a session, or with the proxy as a whole."""

    SEE = "see"
    KILL = "kill"
    KILL_QUERY = "kill_query"
    KILL_SERVER_SESSION = "kill_server_session"
    SEE_PROXY = "see_proxy"
    """See what is no session's: the servers of all clusters, the proxy's statistics."""
    CHANGE_PROXY = "change_proxy"
    """Change the settings that the proxy runs with."""


@unique
class Decision(Enum):
    """What an access policy answers."""

    ALLOWED = "allowed"
    DENIED = "denied"
    INVISIBLE = "invisible"
    NEEDS_PRIVILEGES = "needs_privileges"


@unique
class KillScope(Enum):
    """What a kill ends: the whole session, or only the statement that runs."""

    CONNECTION = "connection"
    QUERY = "query"


@frozen
class KillTarget:
    """What a kill names: a cs_id or a connection id (None: the asker's own), and a server session of it or None.

    `exact` means that the id is a cs_id, even if it is also the connection id of another session.
    """

    id: int | None
    ss_id: int | None = None
    exact: bool = False


@unique
class KillOutcome(Enum):
    """What became of a kill that was allowed."""

    ENDED = "ended"
    """The target is gone, and no statement of it runs on its server, as far as the proxy was told."""
    UNCONFIRMED = "unconfirmed"
    """The target's transports are gone, but its server did not confirm that the statement ended."""
    IDLE = "idle"
    """KILL QUERY of a session without a running statement: nothing was done."""
    ITSELF = "itself"
    """The asker is the target: it ends as soon as its answer is out."""
    MARKED = "marked"
    """The target is in a transaction, and ends with it, or when its time is up."""


@frozen
class AfterTransaction:
    """A kill that waits for the target's transaction to end, for at most so many `seconds` (None: for ever)."""

    seconds: float | None = None


@frozen
class KillReport:
    """How a kill went.

    `detail` is a sentence for a warning, empty when all is well. `stopped` says whether a running statement was stopped
    on its server, None if none ran. `seconds` is how long it took.
    """

    cs_id: int
    outcome: KillOutcome
    detail: str = ""
    stopped: bool | None = None
    seconds: float = 0.0


@unique
class VariableKind(Enum):
    """ODP's classes of variables, by its words for a system variable that was modified."""

    COLD = "cold modified vars"
    HOT = "hot modified vars"
    LAST_INSERT_ID = "last insert id modified vars"
    USER = "user variable"


@frozen
class SessionVariable:
    """A variable of a client session.

    `name` is without @ and in lower case. `value` is a literal as SQL spells it. `changed` says that the client has
    set it; the others are as the server says.
    """

    name: str
    value: str
    kind: VariableKind
    changed: bool = True


@frozen
class SessionVariables:
    """System variables of a client session, and then its user variables.

    `missing` says why only those are there that the client has set, although all were asked for; else it is empty.
    """

    variables: tuple[SessionVariable, ...]
    missing: str = ""


@frozen
class ConnectionSnapshot:
    """A client's connection to the proxy or one of the proxy's to a server, as it was at one moment.

    `number` is the `cs_id` or `ss_id` of `kind`. `fd` is -1 where there is none. `source` is who has connected, to
    `destination`; both are empty for a Unix socket without a path. `reading` is false while the peer's bytes are left
    with it, because the other side is full. `received` and `sent` are bytes after the login, `waiting` those of `sent`
    that the kernel has not taken yet. `seconds` is its age. `ending`: it closes as soon as those have gone.
    """

    kind: SessionKind
    number: int
    cs_id: int
    identity: Identity | None
    tid: int
    fd: int
    source: Address
    destination: Address
    reading: bool
    received: int
    sent: int
    waiting: int
    seconds: float
    ending: bool


@unique
class RuleAction(Enum):
    """What a rule does about a session that it matches."""

    LOG = "log"
    WARN = "warn"
    KILL_QUERY = "kill_query"
    KILL = "kill"


@frozen
class Statistic:
    """One of the proxy's counters or gauges."""

    name: str
    value: int
