"""SHOW PROXYCONFIG: the settings that the proxy runs with.

Source: spec section 10. The columns are ODP's; the names are those of the settings file, with the name of a cluster, a
server, an account, a role or a rule in the place of its number.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from enum import Enum, Flag
from typing import Any, Final, cast

from attrs import fields, frozen, has
from twisted.internet.defer import Deferred
from zope.interface import implementer

from odptwist.answers import Answer, Column, ColumnType, Table
from odptwist.errors import bad_proxy_statement
from odptwist.interfaces import IProxyStatement, ISessionDirectory
from odptwist.live_settings import CHANGEABLE, LiveSettings
from odptwist.settings import (
    AccountSettings,
    CertificateAccountSettings,
    ClusterSettings,
    ListenerSettings,
    RoleSettings,
    RuleSettings,
    ServerSettings,
)
from odptwist.snapshots import Asker
from odptwist.statements.grammar import TokenStream
from odptwist.statements.like import like
from odptwist.statements.servers import check_may_see_proxy

_COLUMNS: Final = tuple(
    Column(name, ColumnType.VARCHAR) for name in ("name", "value", "info", "need_reboot", "visible_level")
)
# Whoever may see one setting may see all.
_VISIBLE_LEVEL: Final = "SYS"
_MASK: Final = "******"

INFO: Final = {
    "port": "where the proxy listens",
    "listener.tls": "whether clients must use TLS there",
    "listener.proxy_protocol": "whether a PROXY header is awaited there",
    "proxy_protocol.trusted": "whose PROXY headers are believed",
    "client_session_id_version": "how client sessions are numbered",
    "proxy_id": "the proxy's number in the ids of its client sessions; empty: chosen at the start",
    "data_dir": "where the embedded server keeps its data",
    "cluster.tenants": "tenants that users may name, where the servers have none",
    "cluster.read_policy": "which reads may go to replicas",
    "cluster.server.role": "what the server is; empty: it is found out",
    "cluster.server.weight": "share of reads among its kind",
    "cluster.server.killer": "how statements are stopped there",
    "account.password_sha1": "what the user proves its password with",
    "role.privileges": "what the user has beside what the server grants",
    "admin.password_sha1": "of root@proxysys; empty: nobody can log in",
    "admin.inspector_password_sha1": "of inspector@proxysys; empty: nobody can log in",
    "admin.allow_from_anywhere": "whether they may come from public addresses",
    "service_account.user": "the proxy's own account on the servers",
    "service_account.password": "its password",
    "kill.user": "an account on the servers that stops what nobody else can",
    "kill.password": "its password",
    "kill.timeout": "seconds for a server's answer to a kill",
    "kill.abandoned": "whether a statement is stopped when its client has gone",
    "clients.local_infile": "whether clients are offered LOAD DATA LOCAL",
    "log.sessions": "whether the log has all sessions that begin and end",
    "limits.max_connections": "client sessions at once; 0: as many as there are file descriptors for",
    "limits.max_user_connections": "of one user; 0: no limit",
    "limits.max_address_connections": "from one address; 0: no limit",
    "limits.login_timeout": "seconds for a login; 0: no limit",
    "limits.wait_timeout": "seconds that a program may be idle; 0: no limit",
    "limits.interactive_timeout": "seconds that a client with a person may be idle; 0: no limit",
    "limits.idle_transaction_timeout": "seconds that a client may be idle in a transaction; 0: no limit",
    "limits.max_statement_time": "seconds for a statement; 0: no limit",
    "health.interval": "seconds between two checks of a server",
    "health.timeout": "seconds for one check",
    "health.failures": "so many in a row make a server down",
    "health.retry": "seconds until clients try a server that is down",
    "routing.retry_reads": "whether a read whose server was lost runs once more",
    "routing.primary_wait": "seconds that a write waits for a primary",
    "routing.settle": "seconds after a write during which reads stay on the primary",
    "cluster.server_tls": "how the proxy talks to the servers",
    "cluster.server_ca": "who may have signed their certificates",
    "cluster.server_proxy_protocol": "which PROXY header they are sent",
    "cluster.server_compression": "how the proxy compresses what it says to them",
    "cluster.server_certificate": "what the proxy shows to them; empty: nothing",
    "cluster.server_key": "its key; empty: in the same file",
    "tls.certificate": "what the proxy shows to clients; empty: TLS is not offered",
    "tls.key": "its key; empty: in the same file",
    "tls.minimum_version": "the oldest version of TLS with clients",
    "tls.client_ca": "who may have signed the certificates of clients; empty: they are not asked for one",
    "tls.require_client_certificate": "whether clients must show one",
    "tls.certificate_account.users": "whom a client with this name in its certificate may log in as, and no other",
    "tls.require": "whether clients must use TLS",
    "compression.clients": "what clients may ask for",
    "compression.zlib_level": "how hard the proxy tries with zlib",
    "compression.zstd_level": "how hard the proxy tries with zstd",
    "history.sessions": "how many ended sessions are remembered",
    "rule.where": "which sessions the rule is about",
    "rule.action": "what is done about them",
    "rule.rate_limit": "how often in a minute",
    "rule.reason": "what the victims and the log are told",
}
"""A sentence for each setting, by its name without those of its cluster, server, account, role or rule."""

# Where the settings file says it otherwise than our classes.
_SPELLED: Final = {
    "ports": "port",
    "listeners": "listener",
    "clusters": "cluster",
    "servers": "server",
    "accounts": "account",
    "roles": "role",
    "rules": "rule",
    "verifier": "password_sha1",
}


@frozen
class ConfigList:
    """A request for the settings whose names fit the pattern; empty for all."""

    pattern: str


@implementer(IProxyStatement)
class ShowConfig:
    """`SHOW PROXYCONFIG [LIKE 'pattern']`."""

    name = "show config"
    first_words = ("SHOW",)

    def __init__(self, settings: LiveSettings) -> None:
        self._settings = settings

    def parse(self, text: str) -> object | None:
        """Return a `ConfigList`, or None if the text does not begin with SHOW PROXYCONFIG."""
        stream = TokenStream(text)
        if not stream.take_head("SHOW", "PROXYCONFIG"):
            return None
        pattern = stream.take_name() if stream.take_word("LIKE") else ""
        if pattern is None or not stream.at_end():
            raise bad_proxy_statement("the proxy understands SHOW PROXYCONFIG [LIKE 'pattern']")
        return ConfigList(pattern)

    def answer(self, request: object, asker: Asker, directory: ISessionDirectory) -> Deferred[Answer]:
        """Fire with a row for each setting; fail with 1227."""
        return Deferred.fromCoroutine(self._list(cast(ConfigList, request), asker, directory))

    async def _list(self, request: ConfigList, asker: Asker, directory: ISessionDirectory) -> Answer:
        await check_may_see_proxy(asker, directory)
        return Table(
            _COLUMNS,
            tuple(
                (name, value, INFO.get(key, ""), "false" if name in CHANGEABLE else "true", _VISIBLE_LEVEL)
                for name, value, key in list_settings(self._settings.current)
                if like(name, request.pattern)
            ),
        )


def list_settings(settings: Any, path: str = "", key_path: str = "") -> Iterator[tuple[str, str, str]]:
    """Yield name, value and key in `INFO` of each setting; secrets are masked.

    Args:
        settings: a settings class.
        path: how the names begin.
        key_path: how the keys begin.
    """
    named = _NAMED[type(settings)][1] if type(settings) in _NAMED else ()
    for each in fields(type(settings)):
        value = getattr(settings, each.name)
        name = _SPELLED.get(each.name, each.name)
        if each.name in named:
            continue
        if isinstance(value, tuple | list) and value and has(type(value[0])):
            for item in value:
                yield from list_settings(item, f"{path}{name}.{_NAMED[type(item)][0](item)}.", f"{key_path}{name}.")
        elif has(type(value)):
            yield from list_settings(value, f"{path}{name}.", f"{key_path}{name}.")
        elif value not in ((), [], None) or key_path + name in INFO:
            text = _text(value)
            yield path + name, _MASK if text and not each.repr else text, key_path + name


def _text(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, tuple | list):
        return ", ".join(value)
    if isinstance(value, Flag):
        return ", ".join(str(flag.name) for flag in value)
    return str(value.value if isinstance(value, Enum) else value)


def _account_name(account: AccountSettings | RoleSettings) -> str:
    tenant = "" if account.tenant is None else f"@{account.tenant}"
    return account.user + tenant + ("" if account.cluster is None else f"#{account.cluster}")


# How one of several is told from the others, and the fields that its name takes the place of.
_NAMED: Final[dict[type, tuple[Callable[[Any], str], tuple[str, ...]]]] = {
    ClusterSettings: (lambda cluster: cluster.name, ("name",)),
    ListenerSettings: (lambda listener: listener.port, ("port",)),
    ServerSettings: (lambda server: str(server.address), ("address",)),
    AccountSettings: (_account_name, ("user", "tenant", "cluster")),
    RoleSettings: (_account_name, ("user", "tenant", "cluster")),
    CertificateAccountSettings: (lambda account: account.subject, ("subject",)),
    RuleSettings: (lambda rule: rule.name, ("name",)),
}
