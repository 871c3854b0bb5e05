"""The accounts of the proxy's own, ODP's `root@proxysys` and `inspector@proxysys`: who may log in as one.

Source: spec sections 1.4, 7.1 and 7.2.

No server knows them: the proxy checks the password itself, and answers all that they send. Whoever is refused learns
nothing but that: an account without a password, a wrong password and a wrong place read alike.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from attrs import Factory, field, frozen
from twisted.logger import Logger

from odptwist.errors import SqlError
from odptwist.identity import Identity
from odptwist.interfaces import IStatements
from odptwist.sessions.networks import UNIX, Networks
from odptwist.wire.scramble import recover_sha1

_log = Logger()

# Loopback, RFC 1918 and RFC 4193. `ip_address(...).is_private` is true of more: of networks for examples and tests.
_NEAR: Final = Networks.read(
    (UNIX, "127.0.0.0/8", "::1/128", "10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "fc00::/7")
)


@frozen
class OwnAccount:
    """One of them: what it may ask, and SHA1(SHA1(password)), None if nobody may log in."""

    statements: IStatements
    verifier: bytes | None = field(default=None, repr=False)


@frozen
class OwnAccounts:
    """All of them, by their users; `anywhere`: whether they may come from public addresses."""

    known: Mapping[str, OwnAccount] = Factory(dict)
    anywhere: bool = False

    def expects(self, host: str) -> bool:
        """Say whether a client from this address could be one of them; an empty one is that of a Unix socket."""
        return any(each.verifier is not None for each in self.known.values()) and (self.anywhere or host in _NEAR)

    def admit(self, identity: Identity, host: str, answer: bytes, salt: bytes) -> IStatements:
        """Return what a client that has proved to be one of them may ask.

        Args:
            identity: who it says it is, a user of `PROXY_TENANT`.
            host: its address, empty for a Unix socket.
            answer: to `salt`, by mysql_native_password; empty without a password.
            salt: of the proxy's greeting.

        Raises:
            SqlError: 1045, it may not log in.
        """
        account = self.known.get(identity.user)
        if account is None or account.verifier is None:
            why = "no password is configured"
        elif not (self.anywhere or host in _NEAR):
            why = "its address is neither loopback nor private"
        elif recover_sha1(answer, salt, account.verifier) is None:
            why = "wrong password"
        else:
            return account.statements
        _log.warn(
            "login of {user}@{tenant} from {host} refused: {why}",
            user=identity.user,
            tenant=identity.tenant,
            host=host or "localhost",
            why=why,
        )
        raise SqlError(
            1045,
            "42000",
            f"Access denied for user '{identity.user}'@'{host or 'localhost'}' "
            f"(using password: {'YES' if answer else 'NO'})",
        )
