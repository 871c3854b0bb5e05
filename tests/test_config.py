"""Settings: what is understood, and what is said about faults."""

from __future__ import annotations

import json
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from attrs import evolve, fields
from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from odptwist.config import load_settings
from odptwist.config_spellings import parse_address
from odptwist.errors import ConfigError, SqlError
from odptwist.settings import (
    AccountSettings,
    AdminSettings,
    CertificateAccountSettings,
    ClusterSettings,
    CompressionSettings,
    HealthSettings,
    HistorySettings,
    KillSettings,
    LimitSettings,
    ListenerSettings,
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

SECRET = "hunter2"
SECRET_SHA1 = "*58815970BE77B3720276F63DB198B1FA42E5CC02"
VERIFIER = bytes.fromhex(SECRET_SHA1[1:])

FULL = f"""
port = [2883, "tcp:2884:interface=127.0.0.1"]
data_dir = "/var/lib/odp"

[[cluster]]
name = "ob1"
tenants = ["sys", "shop"]
read_policy = "weak_read"
[[cluster.server]]
address = "127.0.0.1:3310"
role = "primary"
weight = 10
[[cluster.server]]
address = "unix:/run/mysqld/mysqld.sock"
role = "replica"
killer = "rds"

[[cluster]]
name = "ob2"
[[cluster.server]]
address = "[::1]:3306"
role = "auto"

[[account]]
user = "app@shop#ob1"
password_sha1 = "{SECRET_SHA1}"
[[account]]
user = "app#ob2"
password_sha1 = "{SECRET_SHA1.lower()}"
[[account]]
user = "app"
password = "{SECRET}"

[service_account]
user = "odp_monitor"
password = ""

[kill]
user = "odp_kill"
password = "{SECRET}"
timeout = 7
abandoned = false

[limits]
max_connections = 500
max_user_connections = 20
max_address_connections = 100
login_timeout = 3
wait_timeout = 600
interactive_timeout = 28800
idle_transaction_timeout = 60.5
max_statement_time = 0.5

[history]
sessions = 50

[health]
interval = 0.5
timeout = 1
failures = 2
retry = 30

[routing]
retry_reads = false
primary_wait = 0
settle = 1.5

[[rule]]
name = "long reads"
where = "seconds > 30 AND statement LIKE 'SELECT%'"
action = "kill_query"
rate_limit = 10
reason = "a report is not worth it"
[[rule]]
where = "User = 'app'"
action = "warn"
"""

WHOLE = Settings(
    ports=("2883", "tcp:2884:interface=127.0.0.1"),
    clusters=(
        ClusterSettings(
            "ob1",
            (
                ServerSettings(Address("127.0.0.1", 3310), Role.PRIMARY, 10),
                ServerSettings(Address(path="/run/mysqld/mysqld.sock"), Role.REPLICA, killer="rds"),
            ),
            ("sys", "shop"),
            ReadPolicy.WEAK_READ,
        ),
        ClusterSettings("ob2", (ServerSettings(Address("::1", 3306)),)),
    ),
    data_dir=Path("/var/lib/odp"),
    kill=KillSettings("odp_kill", SECRET, 7.0, False),
    accounts=(
        AccountSettings("app", "shop", "ob1", VERIFIER),
        AccountSettings("app", None, "ob2", VERIFIER),
        AccountSettings("app", None, None, VERIFIER),
    ),
    service_account=ServiceAccountSettings("odp_monitor", ""),
    limits=LimitSettings(500, 20, 100, 3.0, 600.0, 28_800.0, 60.5, 0.5),
    history=HistorySettings(50),
    health=HealthSettings(0.5, 1.0, 2, 30.0),
    routing=RoutingSettings(False, 0.0, 1.5),
    rules=(
        RuleSettings(
            "long reads",
            "seconds > 30 AND statement LIKE 'SELECT%'",
            RuleAction.KILL_QUERY,
            10,
            "a report is not worth it",
        ),
        RuleSettings("2", "User = 'app'", RuleAction.WARN),
    ),
)

# A file, and its faults without the file's name.
FAULTY: list[tuple[str, tuple[str, ...]]] = [
    ("prot = 1", ("1: prot: there is no such setting",)),
    ('"a\\nb".c = 1', ('1: "a\\nb": there is no such setting',)),
    ("port = 99999", ("1: port: '99999': the port must be a number from 0 to 65535",)),
    ("port = true", ("1: port: must be a number or a text",)),
    ('port = [\n1,\n"tcp:x:interface=::1"]', ("3: port[1]: 'tcp:x:interface=::1': the port must be a number",)),
    ('port = "nonsense"', ("1: port: 'nonsense': a port is a number or an endpoint",)),
    ("\ncluster_name = 7", ("2: cluster_name: must be a text",)),
    ('cluster_name = "a#b"', ("1: cluster_name: 'a#b': a cluster name",)),
    (
        'server = ["h",\n "h:0",\n "unix:x", "h:1", "h:1"]',
        ("1: server[0]: 'h': ", "2: server[1]: 'h:0': ", "3: server[2]: 'unix:x': "),
    ),
    ('server = ["h:1",\n"h:1"]', ("2: server[1]: 'h:1' is there twice",)),
    (
        'server = "h:1"\ncluster_name = "b"\n[[cluster]]\nname = "a"\n[[cluster.server]]\naddress = "h:1"',
        ("1: server: cannot stand beside [[cluster]]", "2: cluster_name: cannot stand beside [[cluster]]"),
    ),
    (
        '[[cluster]]\nname = "a"\n[[cluster]]\nname = "a"',
        ("1: cluster[0]: needs a [[cl", "3: cluster[1]: needs a [[cl", "4: cluster[1].name: 'a' is there twice"),
    ),
    (
        '[[cluster]]\ntenants = []\nread_policy = "any"',
        (
            "1: cluster[0].name: is missing",
            "2: cluster[0].tenants: needs at least one",
            "3: cluster[0].read_policy: 'any': must be one of primary, replica_first, weak_read",
        ),
    ),
    ('[[cluster]]\nname = "a"\ntenants = "sys"', ("3: cluster[0].tenants: must be a list",)),
    ('[[cluster]]\nname = "a"\ntenants = ["sys", ""]', ("3: cluster[0].tenants[1]: must not be empty",)),
    ('[cluster]\nname = "a"', ("1: cluster: must be a list of tables",)),
    ("cluster = [3]", ("1: cluster[0]: must be a table",)),
    (
        '[[cluster]]\nname = "a"\nserver = 1\n[[cluster]]\nserver = [{ address = "h:1" }]',
        ("3: cluster[0].server: must be a list of tables", "4: cluster[1].name: is missing"),
    ),
    ('account = [{ user = "a#b", password = "x" }]\n[[cluster]]', ("2: cluster[0].name: is missing",)),
    ('account = [{ user = "a#b", password = "x" }]\ncluster_name = 1', ("2: cluster_name: must be a text",)),
    ('account = [{ user = "a#b", password = "x" }]\ncluster = [1]', ("2: cluster[0]: must be a table",)),
    ("cluster = 3", ("1: cluster: must be a list of tables",)),
    (
        '[[cluster]]\nname = "a"\n[[cluster.server]]\naddres = "h:1"',
        ("3: cluster[0].server[0].address: is missing", "4: cluster[0].server[0].addres: there is no such"),
    ),
    (
        '[[cluster]]\nname = "a"\n[[cluster.server]]\naddress = "h:1"\nrole = "primary"\nweight = 0\n'
        '[[cluster.server]]\naddress = "h:1"\nrole = "primary"\nweight = 1001\n'
        '[[cluster.server]]\naddress = "h:2"\nrole = "unknown"\nweight = 1.5\nkiller = 1',
        (
            "6: cluster[0].server[0].weight: must be from 1 to 1000",
            "8: cluster[0].server[1].address: 'h:1' is there twice",
            "9: cluster[0].server[1].role: another server of the cluster is the primary",
            "10: cluster[0].server[1].weight: must be from 1 to 1000",
            "13: cluster[0].server[2].role: 'unknown': must be one of auto, primary, replica",
            "14: cluster[0].server[2].weight: must be a whole number",
            "15: cluster[0].server[2].killer: must be a text",
        ),
    ),
    (
        '[[account]]\nuser = "a"\npassword = "x"\n[[account]]\nuser = "a"\npassword = "y"',
        ("5: account[1].user: is there twice",),
    ),
    ('[[account]]\nuser = "a#b"\npassword = "x"', ("2: account[0].user: there is no cluster 'b'",)),
    ('[[account]]\nuser = "a@"\npassword = "x"', ("2: account[0].user: 'a@': an empty tenant",)),
    ('[[account]]\nuser = "a"', ("1: account[0]: needs password_sha1 or password",)),
    (
        "[[account]]\n[[account]]",
        (
            "1: account[0].user: is missing",
            "1: account[0]: needs password_sha1 or password",
            "2: account[1].user: is missing",
            "2: account[1]: needs password_sha1 or password",
        ),
    ),
    (
        '[[rule]]\nname = ""\nrate_limit = -1\nreason = "a\\nb"\n[[rule]]\nwhere = ""\naction = "stop"\nseconds = 1',
        (
            "1: rule[0].action: is missing",
            "1: rule[0].where: is missing",
            "2: rule[0].name: must not be empty",
            "3: rule[0].rate_limit: must be from 0 to 100000 actions a minute",
            "4: rule[0].reason: must be one line of at most 200 characters",
            "6: rule[1].where: must not be empty",
            "7: rule[1].action: 'stop': must be one of log, warn, kill_query, kill",
            "8: rule[1].seconds: there is no such setting",
        ),
    ),
    (
        '[[rule]]\nwhere = "a"\naction = "log"\n[[rule]]\nname = "1"\nwhere = "a"\naction = "log"',
        ("5: rule[1].name: '1' is there twice",),
    ),
    ('[[account]]\nuser = "a"\npassword = ""', ("3: account[0].password: must not be empty",)),
    (
        f'[[account]]\nuser = "a"\npassword = "{SECRET}"\npassword_sha1 = "{SECRET_SHA1}"',
        ("3: account[0].password: cannot stand beside password_sha1",),
    ),
    (
        f'[[account]]\nuser = "a"\npassword_sha1 = "{SECRET_SHA1}1"',
        ("3: account[0].password_sha1: must be '*' and 40 hex digits, not 41",),
    ),
    (
        f'[[account]]\nuser = "a"\npassword_sha1 = "{SECRET}"',
        ("3: account[0].password_sha1: must be '*' and 40 hex digits, as",),
    ),
    (
        f'[admin]\npassword_sha1 = "{SECRET}"\ninspector_password_sha1 = "{SECRET_SHA1}1"\nallow_from_anywhere = 1',
        (
            "2: admin.password_sha1: must be 40 hex digits, SHA1 of the password; or '*' and",
            "3: admin.inspector_password_sha1: must be 40 hex digits",
            "4: admin.allow_from_anywhere: must be true or false",
        ),
    ),
    (
        '[[role]]\nuser = "a#b"\nprivileges = ["ALL"]\n[[role]]\nprivileges = []\n[[role]]\nuser = "a#b"',
        (
            "2: role[0].user: there is no cluster 'b'",
            "3: role[0].privileges[0]: 'ALL': must be one of PROCESS, SUPER",
            "4: role[1].user: is missing",
            "5: role[1].privileges: needs at least one",
            "6: role[2].privileges: needs at least one",
            "7: role[2].user: is there twice",
            "7: role[2].user: there is no cluster 'b'",
        ),
    ),
    ("[service_account]", ("1: service_account.user: is missing",)),
    (
        'service_account = { user = "",\tpassword = 3 }',
        ("1: service_account.password: must be a text", "1: service_account.user: must not be empty"),
    ),
    (
        f'[kill]\ntimeout = 0\nabandoned = 1\npassword = "{SECRET}"',
        (
            "2: kill.timeout: must be from 0.1 to 3600 seconds",
            "3: kill.abandoned: must be true or false",
            "4: kill.password: needs kill.user",
        ),
    ),
    ('[kill]\nuser = 1\npassword = "x"', ("2: kill.user: must be a text",)),
    ("kill = 1", ("1: kill: must be a table",)),
    (
        "[health]\ninterval = 0\ntimeout = 61\nfailures = true\nretry = nan",
        (
            "2: health.interval: must be from 0.1 to 3600 seconds",
            "3: health.timeout: must be from 0.1 to 60 seconds",
            "4: health.failures: must be a whole number",
            "5: health.retry: must be from 1 to 3600 seconds",
        ),
    ),
    (
        "[limits]\nmax_connections = -1\nmax_user_connections = 1.5\nlogin_timeout = -0.1\nwait_timeout = inf",
        (
            "2: limits.max_connections: must be from 0 to 1000000",
            "3: limits.max_user_connections: must be a whole number",
            "4: limits.login_timeout: must be from 0 to 31536000 seconds",
            "5: limits.wait_timeout: must be from 0 to 31536000 seconds",
        ),
    ),
    (
        'routing.retry_reads = "yes"\nrouting.primary_wait = -1\nrouting.settle = inf\nrouting.login_retries = 1',
        (
            "1: routing.retry_reads: must be true or false",
            "2: routing.primary_wait: must be from 0 to 300 seconds",
            "3: routing.settle: must be from 0 to 3600 seconds",
            "4: routing.login_retries: there is no such setting",
        ),
    ),
    ("\nport = ", ("2: not a TOML file: Invalid value",)),
    (f"[kill]\npassword = {SECRET}", ("2: not a TOML file: Invalid value (column 12)",)),
    ("a = 1\n\na = 2\n", ("3: not a TOML file: Cannot overwrite a value",)),
    ("a = [\n", ("1: not a TOML file: ",)),
]


WORDS = ["name", "tenants", "server", "address", "role", "weight", "user", "password", "password_sha1", "timeout", "x"]


def toml(value: object) -> str:
    """Return a value as TOML writes it, on one line."""
    if isinstance(value, dict):
        return f"{{ {', '.join(f'{key} = {toml(below)}' for key, below in value.items())} }}"
    if isinstance(value, list):
        return f"[{', '.join(map(toml, value))}]"
    return str(value).lower() if isinstance(value, bool | float) else json.dumps(value)


class SettingsTests(SynchronousTestCase):
    def setUp(self) -> None:
        """Make a directory for files."""
        directory = TemporaryDirectory()
        self.addCleanup(directory.cleanup)
        self.path = str(Path(directory.name) / "odp.toml")

    def load(self, text: str, **options: Any) -> Settings:
        """Load a file with this text."""
        Path(self.path).write_text(text, encoding="utf-8")
        return load_settings(self.path, **options)

    def faults(self, text: str) -> tuple[str, ...]:
        """Return the faults of a file."""
        return self.assertRaises(ConfigError, self.load, text).faults

    def test_defaults(self) -> None:
        """Without anything, an embedded server is served on loopback at 2883, as cluster odp."""
        settings = load_settings()
        self.assertTrue(settings.embedded)
        self.assertEqual(settings.endpoints, ("tcp:2883:backlog=1024:interface=127.0.0.1",))
        self.assertEqual((settings.clusters[0].name, settings.clusters[0].tenants), ("odp", ("sys",)))
        self.assertEqual(settings.data_dir, Path("odp-data"))

    def test_whole_file(self) -> None:
        """Every key of a file is understood."""
        settings = self.load(FULL)
        self.assertEqual(settings, WHOLE)
        self.assertIsInstance(settings.kill.timeout, float)
        self.assertEqual(settings.endpoints, ("tcp:2883:backlog=1024", "tcp:2884:interface=127.0.0.1"))
        self.assertFalse(settings.embedded)

    def test_conditions_of_rules(self) -> None:
        """What is wrong with a condition is told with its line, whoever checks it."""

        def check(text: str) -> None:
            if "User" not in text:
                raise SqlError(1064, "42000", "WHERE: no such column: x")

        rules = '[[rule]]\nwhere = "User = 1"\naction = "log"\n[[rule]]\nwhere = "x"\naction = "log"'
        fault = self.assertRaises(ConfigError, self.load, rules, check_where=check)
        self.assertEqual(fault.faults, (f"{self.path}:5: rule[1].where: no such column: x",))
        self.assertEqual(len(self.load(rules).rules), 2)

    def test_secrets(self) -> None:
        """Settings do not print secrets."""
        text = repr(self.load(FULL))
        self.assertIn("odp_monitor", text)
        for secret in (SECRET, repr(VERIFIER), VERIFIER.hex()):
            self.assertNotIn(secret, text)

    def test_command_line_wins(self) -> None:
        """What the command line says replaces what the file says; accounts of replaced clusters stay."""
        settings = self.load(FULL, ports=["3000"], servers=["h:1"], cluster_name="mine", data_dir="/d")
        self.assertEqual(settings.endpoints, ("tcp:3000:backlog=1024",))
        self.assertEqual(settings.clusters, (ClusterSettings("mine", (ServerSettings(Address("h", 1)),)),))
        self.assertEqual(settings.data_dir, Path("/d"))
        self.assertEqual(settings.accounts, WHOLE.accounts)

    def test_tls(self) -> None:
        """TLS with clients is as the file says; the command line's certificate replaces the file's, and its key."""
        self.assertEqual(self.load("").tls, TlsSettings())
        text = '[tls]\ncertificate = "a.pem"\nkey = "b.pem"\nminimum_version = "1.3"\nclient_ca = "c.pem"\n'
        text += "require = true\n"
        whole = TlsSettings("a.pem", "b.pem", "1.3", "c.pem", False, True)
        self.assertEqual(self.load(text).tls, whole)
        self.assertEqual(self.load(text, certificate="auto").tls, evolve(whole, certificate="auto", key=""))
        self.assertEqual(self.load("[tls]\nrequire = true", certificate="x").tls, TlsSettings("x", require=True))

    def test_faults_of_tls(self) -> None:
        """What does not go together is told with its line."""
        for text, fault in (
            ("[tls]\nrequire = true", "1: tls.certificate: is missing"),
            ('[tls]\nkey = "k"', "1: tls.certificate: is missing"),
            (
                '[tls]\ncertificate = "auto"\nkey = "k"',
                "3: tls.key: cannot stand beside a certificate that is made at the start",
            ),
            (
                '[tls]\ncertificate = "c"\nrequire_client_certificate = true',
                "3: tls.require_client_certificate: needs tls.client_ca",
            ),
            (
                '[tls]\ncertificate = "c"\nminimum_version = "1.1"',
                "3: tls.minimum_version: '1.1': must be one of 1.2, 1.3",
            ),
        ):
            self.assertEqual(self.faults(text), (f"{self.path}:{fault}",))

    def test_listeners(self) -> None:
        """Places where clients come in have settings of their own, beside those of `port`, which need not be there."""
        trusted = '[proxy_protocol]\ntrusted = ["10.0.0.0/8", "::1", "unix"]\n'
        text = '[[listener]]\nport = 2884\n[[listener]]\nport = "unix:/s"\nproxy_protocol = "required"\n' + trusted
        settings = self.load(text)
        listeners = (ListenerSettings("2884"), ListenerSettings("unix:/s", proxy_protocol=HeaderPolicy.REQUIRED))
        self.assertEqual((settings.ports, settings.listeners), ((), listeners))
        self.assertEqual(settings.proxy_protocol.trusted, ["10.0.0.0/8", "::1/128", "unix"])
        self.assertEqual(settings.endpoints, ("tcp:2884:backlog=1024:interface=127.0.0.1", "unix:/s"))
        for settings in (self.load(text, ports=["7"]), self.load("port = 7\n" + text)):
            self.assertEqual((settings.ports, settings.listeners), (("7",), listeners))
        secure = '[[listener]]\nport = 1\ntls = "required"\n[[listener]]\nport = 2\ntls = "optional"\n'
        for settings in (self.load(secure, certificate="auto"), self.load(secure + '[tls]\ncertificate = "c"')):
            self.assertEqual([each.tls for each in settings.listeners], [ListenerTls.REQUIRED, ListenerTls.OPTIONAL])
        self.assertEqual(self.load("[[listener]]\nport = 0\n[[listener]]\nport = 0").ports, ())

    def test_faults_of_listeners(self) -> None:
        """A place that cannot be, or is there twice, is told with its line, and what its settings need."""
        for text, fault in (
            ("[[listener]]", "1: listener[0].port: is missing"),
            ("[listener]\nport = 1", "1: listener: must be a list of tables, each below a [[header]]"),
            ("[[listener]]\nport = 1\n[[listener]]\nport = 1", "4: listener[1].port: '1' is there twice"),
            ('port = [1, 2]\n[[listener]]\nport = "tcp:2"', "3: listener[0].port: 'tcp:2' is there twice"),
            ('[[listener]]\nport = 1\ntls = "required"', "3: listener[0].tls: needs tls.certificate, or --tls"),
            (
                '[[listener]]\nport = "unix:/s"\ntls = "required"\n[tls]\ncertificate = "c"',
                "3: listener[0].tls: is not for a Unix socket, which needs no TLS",
            ),
            (
                '[[listener]]\nport = 1\ntls = "off"',
                "3: listener[0].tls: 'off': must be one of default, optional, required",
            ),
            (
                '[[listener]]\nport = 1\nproxy_protocol = "optional"',
                "3: listener[0].proxy_protocol: needs proxy_protocol.trusted: nobody's headers are believed",
            ),
            (
                '[[listener]]\nport = 1\nproxy_protocol = "required"\n[proxy_protocol]\ntrusted = ["10.0.0.1/8"]',
                "5: proxy_protocol.trusted[0]: '10.0.0.1/8': must be unix, an address, or a network as in 10.0.0.0/8 "
                "(10.0.0.1/8 has host bits set)",
            ),
        ):
            self.assertEqual(self.faults(text), (f"{self.path}:{fault}",))

    def test_server_proxy_protocol(self) -> None:
        """Each cluster says which header its servers get; a server of two clusters gets one or the other."""
        cluster = '[[cluster]]\nname = "{0}"\nserver_proxy_protocol = "{1}"\n[[cluster.server]]\naddress = "h:1"\n'
        settings = self.load(cluster.format("a", "v2"))
        self.assertIs(settings.clusters[0].server_proxy_protocol, HeaderVersion.V2)
        self.assertIs(self.load("").clusters[0].server_proxy_protocol, HeaderVersion.OFF)
        self.assertEqual(
            self.faults(cluster.format("a", "v2") + cluster.format("b", "off")),
            (
                f"{self.path}:8: cluster[1].server_proxy_protocol: another cluster has one of its servers, "
                "with another version",
            ),
        )

    def test_compression(self) -> None:
        """Clients are offered the algorithms that are named, each once; each cluster says what its servers get."""
        settings = self.load('[compression]\nclients = ["zstd"]\nzlib_level = 9\nzstd_level = 22\n').compression
        self.assertEqual(settings, CompressionSettings(["zstd"], 9, 22))
        self.assertEqual(self.load("[compression]\nclients = []\n").compression.clients, [])
        self.assertEqual(self.load("").compression.clients[0], "zlib")
        cluster = '[[cluster]]\nname = "{0}"\nserver_compression = "{1}"\n[[cluster.server]]\naddress = "h:1"\n'
        settings = self.load(cluster.format("a", "preferred"))
        self.assertIs(settings.clusters[0].server_compression, ServerCompression.PREFERRED)
        self.assertIs(self.load("").clusters[0].server_compression, ServerCompression.OFF)
        for text, fault in (
            ('[compression]\nclients = ["lz4"]', "2: compression.clients[0]: 'lz4': must be one of zlib, zstd"),
            ('[compression]\nclients = ["zlib", "zlib"]', "2: compression.clients[1]: 'zlib' is there twice"),
            ("[compression]\nzlib_level = 0", "2: compression.zlib_level: must be from 1 to 9"),
            ("[compression]\nzstd_level = 23", "2: compression.zstd_level: must be from 1 to 22"),
            (
                cluster.format("a", "on"),
                "3: cluster[0].server_compression: 'on': must be one of off, zlib, zstd, preferred",
            ),
            (
                cluster.format("a", "zlib") + cluster.format("b", "off"),
                "8: cluster[1].server_compression: another cluster has one of its servers, with another compression",
            ),
        ):
            self.assertEqual(self.faults(text), (f"{self.path}:{fault}",))

    def test_certificate_accounts(self) -> None:
        """A name in certificates goes with users; names of hosts are compared without regard to case."""
        text = '[tls]\ncertificate = "c"\nclient_ca = "a"\n[[tls.certificate_account]]\n'
        (account,) = self.load(text + 'subject = "dns:A.Example"\nusers = ["a", "b@t#odp"]').tls.certificate_account
        self.assertEqual(account, CertificateAccountSettings("dns:a.example", ["a", "b@t#odp"]))
        (account,) = self.load(text + 'subject = "cn:A b"\nusers = ["a"]').tls.certificate_account
        self.assertEqual(account.subject, "cn:A b")
        key = "tls.certificate_account[0]"
        for more, fault in (
            ('subject = "cn:a"', f"4: {key}.users: needs at least one"),
            ('users = ["a"]', f"4: {key}.subject: is missing"),
            (
                'subject = "ada"\nusers = ["a"]',
                f"5: {key}.subject: 'ada': must be one of cn:NAME, dns:NAME, email:NAME, uri:NAME",
            ),
            (
                'subject = "cn:a"\nusers = ["a@"]',
                f"6: {key}.users[0]: 'a@': an empty tenant or cluster in the user name",
            ),
        ):
            self.assertEqual(self.faults(text + more), (f"{self.path}:{fault}",))
        without = text.replace('client_ca = "a"\n', "") + 'subject = "cn:a"\nusers = ["a"]'
        self.assertEqual(self.faults(without), (f"{self.path}:3: {key}: needs tls.client_ca",))

    def test_certificate_for_servers(self) -> None:
        """The proxy's own certificate is for servers that are talked to by TLS, and a key needs a certificate."""
        text = '[[cluster]]\nname = "a"\nserver_tls = "{}"\n{}\n[[cluster.server]]\naddress = "h:1"\n'
        (cluster,) = self.load(text.format("required", 'server_certificate = "c"\nserver_key = "k"')).clusters
        self.assertEqual((cluster.server_certificate, cluster.server_key), ("c", "k"))
        for mode, more, fault in (
            ("required", 'server_key = "k"', "server_key: needs a server_certificate"),
            ("disabled", 'server_certificate = "c"', "server_certificate: is not used where server_tls is disabled"),
        ):
            self.assertEqual(self.faults(text.format(mode, more)), (f"{self.path}:4: cluster[0].{fault}",))

    def test_tls_with_servers(self) -> None:
        """Each cluster has its own way, and verification needs to know who signs."""
        text = '[[cluster]]\nname = "a"\nserver_tls = "{}"\n{}\n[[cluster.server]]\naddress = "h:1"\n'
        (cluster,) = self.load(text.format("verify_full", 'server_ca = "ca.pem"')).clusters
        self.assertEqual((cluster.server_tls, cluster.server_ca), (TlsMode.VERIFY_FULL, "ca.pem"))
        for mode, more, fault in (
            ("verify_ca", "", "1: cluster[0].server_ca: is missing"),
            ("required", 'server_ca = "ca"', "4: cluster[0].server_ca: is used by verify_ca and verify_full only"),
            (
                "on",
                "",
                "3: cluster[0].server_tls: 'on': must be one of disabled, preferred, required, verify_ca, verify_full",
            ),
        ):
            self.assertEqual(self.faults(text.format(mode, more)), (f"{self.path}:{fault}",))
        both = text.format("required", "") + text.replace('"a"', '"b"').format("preferred", "")
        self.assertEqual(
            self.faults(both),
            (f"{self.path}:9: cluster[1].server_tls: another cluster has one of its servers, with another TLS",),
        )

    def test_administrators(self) -> None:
        """The password of an account of the proxy's may be hashed as ODP does it, or as MySQL does."""
        once = "f3bbbd66a63d4bf1747940578ec3d0103530e21d"
        for text in (once, once.upper(), SECRET_SHA1, SECRET_SHA1.lower()):
            admin = self.load(f'[admin]\npassword_sha1 = "{text}"').admin
            self.assertEqual(admin, AdminSettings(VERIFIER))
            self.assertNotIn(repr(VERIFIER), repr(admin))

    def test_roles(self) -> None:
        """A role names a user as an account does, and one privilege or both."""
        roles = self.load(
            '[[role]]\nuser = "a"\nprivileges = ["SUPER", "PROCESS"]\n'
            '[[role]]\nuser = "a@t#odp"\nprivileges = ["PROCESS"]'
        ).roles
        both = Privileges.SUPER | Privileges.PROCESS
        self.assertEqual(
            roles, (RoleSettings("a", None, None, both), RoleSettings("a", "t", "odp", Privileges.PROCESS))
        )

    def test_account_of_the_sole_cluster(self) -> None:
        """An account may name the cluster that has no table of its own, whoever names it."""
        account = '[[account]]\nuser = "a#mine"\npassword = "x"'
        for settings in self.load(f'cluster_name = "mine"\n{account}'), self.load(account, cluster_name="mine"):
            self.assertEqual(settings.accounts[0].cluster, "mine")

    def test_short_file(self) -> None:
        """One value may stand without brackets, and a cluster without servers is the embedded one."""
        settings = self.load('port = 2999\nserver = "h:1"\ncluster_name = "x"')
        self.assertEqual(settings.endpoints, ("tcp:2999:backlog=1024",))
        self.assertEqual(settings.clusters, (ClusterSettings("x", (ServerSettings(Address("h", 1)),)),))
        settings = self.load('[[cluster]]\nname = "ob1"\nread_policy = "replica_first"')
        self.assertTrue(settings.embedded)
        self.assertEqual(settings.clusters, (ClusterSettings("ob1", read_policy=ReadPolicy.REPLICA_FIRST),))

    def test_faults(self) -> None:
        """All faults are told at once, in the order of the file, with line and key, and without secrets."""
        for text, expected in FAULTY:
            faults = self.faults(text)
            self.assertEqual(len(faults), len(expected), (text, faults))
            for fault, beginning in zip(faults, expected, strict=True):
                self.assertTrue(fault.startswith(f"{self.path}:{beginning}"), (text, fault))
                for secret in (SECRET, SECRET_SHA1[1:]):
                    self.assertNotIn(secret, fault)

    def test_faults_of_all_tables_at_once(self) -> None:
        """Faults in different tables do not hide each other."""
        texts = [text for text, _ in FAULTY if text.startswith("[[account]]")][:3]
        self.assertEqual(len(self.faults(FULL + "\n" + "\n".join(texts) + "\n[other]\nx = 1")), 4)

    def test_faults_of_options(self) -> None:
        """Options have no line; their faults come with those of the file."""
        error = self.assertRaises(
            ConfigError, self.load, "prot = 1", ports=["x"], servers=["h:1", "h:1", "h"], cluster_name=""
        )
        self.assertEqual(
            [fault.partition(": ")[0] for fault in error.faults],
            ["--port", "--server", "--cluster-name", "--server", f"{self.path}:1"],
        )
        error = self.assertRaises(ConfigError, self.load, FULL, cluster_name="mine")
        self.assertIn("--cluster-name: cannot stand beside [[cluster]]", str(error))

    @given(
        st.dictionaries(
            st.sampled_from([field.name for field in fields(Settings)] + ["port", "server", "cluster", "account"]),
            st.recursive(
                st.one_of(st.integers(), st.floats(), st.booleans(), st.sampled_from(["", "a", "a@b#c", "h:1", "*"])),
                lambda values: st.one_of(
                    st.lists(values, max_size=3),
                    st.dictionaries(st.sampled_from(WORDS), values, max_size=4),
                ),
            ),
        )
    )
    def test_any_tables(self, tables: dict[str, object]) -> None:
        """Whatever stands in a file makes settings, or faults that all have a line."""
        text = "\n".join(f"{key} = {toml(value)}" for key, value in tables.items())
        try:
            self.load(text)
        except ConfigError as error:
            for fault in error.faults:
                self.assertRegex(fault, rf"^{self.path}:[1-9]\d*: [a-z]")

    def test_file_that_cannot_be_read(self) -> None:
        """A missing file, a directory and bytes that are no text are faults of the file."""
        for path in ("/nowhere/odp.toml", str(Path(self.path).parent)):
            fault = self.assertRaises(ConfigError, load_settings, path)
            self.assertIn(path, str(fault))
        for content, fault in (
            (b"\xff\xfe", ":1: not a TOML file: its bytes are not UTF-8"),
            (b"a = 1\n# \xe4", ":2: not a TOML file: its bytes are not UTF-8"),
            (b"a = " + 100_000 * b"[", ": not a TOML file: nested too deeply"),
            (b"a = " + 5_000 * b"9", ": not a TOML file: a number has too many digits"),
            (b"#" * 1024 * 1024 + b"#", ": more than 1048576 bytes"),
        ):
            Path(self.path).write_bytes(content)
            self.assertEqual(self.assertRaises(ConfigError, load_settings, self.path).faults, (f"{self.path}{fault}",))

    def test_addresses(self) -> None:
        """An address prints as it is read."""
        for text in ("127.0.0.1:3306", "db.example:1", "[::1]:65535", "unix:/run/x.sock"):
            self.assertEqual(str(parse_address(text)), text)
        for text in ("", ":", "h:", ":1", "h:x", "h:65536", "::1:3306", "[::1]", "unix:", "unix:a/b", "h:\u0661"):
            self.assertRaises(ValueError, parse_address, text)

    @given(st.text())
    def test_any_address(self, text: str) -> None:
        """Any text is an address or a ValueError."""
        try:
            parse_address(text)
        except ValueError:
            return

    def test_ids(self) -> None:
        """The version of the ids is 1 unless said otherwise, and the proxy's number must fit it."""
        settings = self.load("")
        self.assertEqual((settings.client_session_id_version, settings.proxy_id), (1, None))
        settings = self.load("client_session_id_version = 2\nproxy_id = 8191\n")
        self.assertEqual((settings.client_session_id_version, settings.proxy_id), (2, 8191))
        self.assertEqual(self.load("proxy_id = 255\n").proxy_id, 255)
        for text, key in (
            ("client_session_id_version = 3\n", "client_session_id_version"),
            ("client_session_id_version = 2\nproxy_id = 8192\n", "proxy_id"),
            ("client_session_id_version = 2\nproxy_id = 0\n", "proxy_id"),
            ("proxy_id = 256\n", "proxy_id"),
            ("proxy_id = -1\n", "proxy_id"),
        ):
            (fault,) = self.faults(text)
            self.assertIn(f": {key}: must", fault)
