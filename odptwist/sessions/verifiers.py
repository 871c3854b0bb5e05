"""Where verifiers of accounts come from: the settings, and the servers themselves.

A verifier is SHA1(SHA1(password)), what servers keep of a password for mysql_native_password. In the servers' tables it
is spelled as `*` and 40 hexadecimal digits.

Source: design/backends.md 2.4; MariaDB and MySQL reference manuals, "mysql.user".
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Protocol

from attrs import frozen
from twisted.internet.defer import CancelledError, Deferred, TimeoutError, succeed
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from odptwist.errors import OdpError, ServerUnreachable
from odptwist.identity import DEFAULT_TENANT, Identity, legible
from odptwist.interfaces import IVerifierSource
from odptwist.machines.server_login import authenticates_tenants
from odptwist.sessions.server import ServerSession
from odptwist.sessions.service_sessions import ServiceSessions, explain
from odptwist.sessions.surroundings import Surroundings
from odptwist.wire.primitives import decode_text, encode_text
from odptwist.wire.resultset import ResultReader

KEPT_FOR = 60.0
"""Seconds for which a server's answer is believed. A newer password is found out earlier: the server checks it, too."""
KEPT_AT_MOST = 10_000
"""Accounts, since clients choose the names that are asked for."""
REST = 1.0
"""Seconds for which the servers of a cluster are left alone after a failure."""

_MAX_NAMES = 256  # characters of user and tenant: MariaDB's user names have 128, OceanBase's tenants 63

# Empty for accounts that are older than plugins.
_PLUGINS = ("mysql_native_password", "ob_native_password", "")
_VERIFIER = re.compile(r"\*([0-9A-Fa-f]{40})")


class KnownAccount(Protocol):
    """An account of the settings; None for `tenant` or `cluster` stands for any."""

    @property
    def user(self) -> str:
        """The user, without tenant and cluster."""

    @property
    def tenant(self) -> str | None:
        """The tenant."""

    @property
    def cluster(self) -> str | None:
        """The cluster."""

    @property
    def verifier(self) -> bytes:
        """20 bytes."""


@implementer(IVerifierSource)
class ConfiguredVerifiers:
    """Knows the accounts of the settings; those that name an identity most exactly come first."""

    def __init__(self, accounts: Sequence[KnownAccount]) -> None:
        # Python sorts stably: among equals the order of the settings stays.
        self._accounts = sorted(accounts, key=lambda each: (each.tenant is None) + (each.cluster is None))

    def verifiers(self, identity: Identity) -> Deferred[Sequence[bytes]]:
        """Fire at once."""
        return succeed(tuple(each.verifier for each in self._accounts if _names(each, identity)))


def _names(account: KnownAccount, identity: Identity) -> bool:
    return (
        account.user == identity.user
        and account.tenant in (None, identity.tenant)
        and account.cluster in (None, identity.cluster)
    )


@implementer(IVerifierSource)
class Verifiers:
    """Asks several sources, one after the other, until one knows the account."""

    _log = Logger()

    def __init__(self, sources: Sequence[IVerifierSource]) -> None:
        self._sources = sources

    def verifiers(self, identity: Identity) -> Deferred[Sequence[bytes]]:
        """Fire with what the first source says that says anything; one that fails is passed over."""
        return Deferred.fromCoroutine(self._look(identity))

    async def _look(self, identity: Identity) -> Sequence[bytes]:
        for source in self._sources:
            try:
                found = await source.verifiers(identity)
            except CancelledError:
                raise
            except Exception:  # noqa: BLE001 - an extension may raise anything
                self._log.failure("verifier source {source} failed", source=source)
                continue
            if found:
                return found
        return ()


@frozen
class _Kept:
    until: float
    verifiers: Sequence[bytes]


@implementer(IVerifierSource)
class ServerVerifiers:
    """Reads the servers' own tables of accounts, over the proxy's own sessions.

    The tenant makes no difference on servers without tenants. On a real OceanBase the service account sees the accounts
    of tenant sys only, so those of other tenants are not known.

    Args:
        surroundings: of the proxy.
        sessions: to ask with; their timeout is for all servers of a cluster together.
    """

    _log = Logger()

    def __init__(self, surroundings: Surroundings, sessions: ServiceSessions) -> None:
        self._clusters = surroundings.clusters
        self._reactor = surroundings.reactor
        self._sessions = sessions
        self._kept: dict[Identity, _Kept] = {}  # the oldest first
        self._asking: dict[Identity, list[Deferred[Sequence[bytes]]]] = {}
        self._resting: dict[str, float] = {}
        self._faults: dict[str, str] = {}

    def verifiers(self, identity: Identity) -> Deferred[Sequence[bytes]]:
        """Fire with the verifiers of all accounts of that user name; with none, and soon, if no server tells."""
        if identity.cluster not in self._clusters.names or len(identity.user + identity.tenant) > _MAX_NAMES:
            return succeed(())
        now = self._reactor.seconds()
        kept = self._kept.get(identity)
        if kept is not None and now < kept.until:
            return succeed(kept.verifiers)
        if now < self._resting.get(identity.cluster, 0.0):
            return succeed(())
        waiter: Deferred[Sequence[bytes]] = Deferred()
        if identity in self._asking:
            self._asking[identity].append(waiter)
            return waiter
        self._asking[identity] = [waiter]
        asking: Deferred[Sequence[bytes]] = Deferred.fromCoroutine(self._ask(identity))
        asking.addTimeout(self._sessions.timeout, self._reactor)
        asking.addCallbacks(self._answered, self._failed, (identity,), {}, (identity,), {})
        asking.addCallback(self._tell, identity)
        return waiter

    async def _ask(self, identity: Identity) -> Sequence[bytes]:
        fault: OdpError = ServerUnreachable("no server is up")
        for standing in self._clusters.standings(identity.cluster):
            if standing.up:
                try:
                    return await self._sessions.ask(standing.address, partial(_read, identity))
                except OdpError as failed:
                    fault = failed
        raise fault

    def _answered(self, verifiers: Sequence[bytes], identity: Identity) -> Sequence[bytes]:
        self._faults.pop(identity.cluster, None)
        self._kept.pop(identity, None)
        self._kept[identity] = _Kept(self._reactor.seconds() + KEPT_FOR, verifiers)
        if len(self._kept) > KEPT_AT_MOST:
            del self._kept[next(iter(self._kept))]
        return verifiers

    def _failed(self, failure: Failure, identity: Identity) -> Sequence[bytes]:
        """Let the cluster rest for a while, so that not each login has to wait for the same failure."""
        if failure.check(CancelledError):  # the proxy stops
            return ()
        if failure.check(OdpError, TimeoutError) is None:
            self._log.failure("asking for the verifiers of {identity} failed", failure, identity=legible(identity))
        cluster, fault = identity.cluster, failure.value
        self._resting[cluster] = self._reactor.seconds() + REST
        why = explain(fault) if isinstance(fault, OdpError) else "no answer in time"
        if self._faults.get(cluster) != why:
            self._faults[cluster] = why
            self._log.error("cluster {cluster} does not tell how accounts log in: {why}", cluster=cluster, why=why)
        return ()

    def _tell(self, verifiers: Sequence[bytes], identity: Identity) -> None:
        for waiter in self._asking.pop(identity):
            if not waiter.called:  # else its asker has cancelled it
                waiter.callback(verifiers)


async def _read(identity: Identity, session: ServerSession) -> Sequence[bytes]:
    """Ask a server for the accounts of a user name; there may be one for each host that the user may come from."""
    greeting = session.greeting
    if greeting is not None and authenticates_tenants(greeting) and identity.tenant != DEFAULT_TENANT:
        return ()
    # All columns, because each kind of server has others. A name in hexadecimal needs no quotes, whatever sql_mode is.
    name = encode_text(identity.user).hex()
    answer = await session.query(f"SELECT * FROM mysql.user WHERE user = 0x{name}")  # noqa: S608 - digits only
    if answer.error is not None:
        raise ServerUnreachable(f"{session.address}: {answer.error.message} ({answer.error.code})")
    return tuple(dict.fromkeys(_verifiers(answer, identity.user)))


def _verifiers(answer: ResultReader, user: str) -> Iterator[bytes]:
    names = [column.name.lower() for column in answer.columns]
    for row in answer.rows:
        account = {name: decode_text(value or b"") for name, value in zip(names, row, strict=True)}
        # seekdb compares names without regard to case, but not when they log in.
        if account.get("user") == user and account.get("plugin", "") in _PLUGINS:
            for column in ("password", "authentication_string"):
                if verifier := _VERIFIER.fullmatch(account.get(column, "")):
                    yield bytes.fromhex(verifier[1])
