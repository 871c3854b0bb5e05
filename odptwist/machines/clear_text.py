"""Which questions of a server's login must not reach a client, because the answer would lay the password open.

Source: https://dev.mysql.com/doc/dev/mysql-server/latest/page_caching_sha2_authentication_exchanges.html,
https://dev.mysql.com/doc/refman/8.4/en/cleartext-pluggable-authentication.html,
https://mariadb.com/kb/en/authentication-plugin-pam/ (dialog).

mysql_clear_password and dialog carry the password as it is. sha256_password, and caching_sha2_password where its fast
way fails, do so if the client's link is secure, and encrypt it with the server's public key if it is not; the server
expects what suits its own link. So these two need links that are alike.
"""

from __future__ import annotations

from typing import Final

from odptwist.errors import SqlError
from odptwist.wire.handshake import parse_auth_switch_request

_ALWAYS_CLEAR: Final = frozenset(("mysql_clear_password", "dialog"))
_CACHING_SHA2: Final = "caching_sha2_password"
_SHA256: Final = "sha256_password"
# AuthMoreData: the server does not have the password in its cache and wants it whole.
_FULL_AUTHENTICATION: Final = b"\x01\x04"


class QuestionGuard:
    """Follows what a server asks in one login. A link is secure if it is encrypted or does not leave the machine."""

    __slots__ = ("_plugin",)

    def __init__(self) -> None:
        self._plugin = _CACHING_SHA2  # as long as no other is named: the only one that asks so without a switch

    def check(self, payload: bytes, client_secure: bool, server_secure: bool) -> None:
        """Raise `SqlError` (1045) if a question must not be passed on.

        Args:
            payload: AuthSwitchRequest or AuthMoreData.
            client_secure: whether the client's link is secure.
            server_secure: whether the server's is.

        Raises:
            WireError: the question cannot be read.
        """
        if payload[:1] == b"\xfe":
            self._plugin = parse_auth_switch_request(payload).plugin
        if client_secure and server_secure:
            return
        wants_password = self._plugin == _SHA256 or (self._plugin == _CACHING_SHA2 and payload == _FULL_AUTHENTICATION)
        if self._plugin in _ALWAYS_CLEAR or (wants_password and client_secure is not server_secure):
            both = not client_secure and not server_secure
            clear = "both links are" if both else f"the {'server' if client_secure else 'client'}'s link is"
            raise SqlError(
                1045,
                "28000",
                f"Access denied: authentication plugin '{self._plugin}' requires secure connections from the client to "
                f"the proxy and from the proxy to the server, and {clear} not encrypted",
            )
