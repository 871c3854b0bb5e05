"""Which questions of a server's login must not reach a client, because the answer would lay the password open.

Source: https://dev.mysql.com/doc/dev/mysql-server/latest/page_caching_sha2_authentication_exchanges.html,
https://dev.mysql.com/doc/refman/8.4/en/cleartext-pluggable-authentication.html,
https://mariadb.com/kb/en/authentication-plugin-pam/ (dialog).

mysql_clear_password and dialog carry the password as it is. sha256_password, and caching_sha2_password where its fast
way fails, do so if the client's link is secure, and encrypt it with the server's public key if it is not; the server
expects what suits its own link. So these two need links that are alike, or `odptwist.machines.password_bridge`.
"""

from __future__ import annotations

from typing import Final

from odptwist.errors import SqlError
from odptwist.wire.handshake import parse_auth_next_factor, parse_auth_switch_request
from odptwist.wire.sha2 import CACHING_SHA2_PASSWORD, FULL_AUTHENTICATION, SHA256_PASSWORD

DIALOG: Final = "dialog"
"""MariaDB's plugin for PAM. Its questions after the first begin with their kind, 2 to 5, and with no byte before it."""
# The last one sends a token that is as good as a password.
_ALWAYS_CLEAR: Final = frozenset(("mysql_clear_password", DIALOG, "authentication_openid_connect_client"))


class QuestionGuard:
    """Follows what a server asks in one login. A link is secure if it is encrypted or does not leave the machine.

    Attributes:
        plugin: how the account is asked to prove itself now.
        nonce: the server's, for this plugin; empty as long as none was sent.
        factors: how many proofs the server has asked for, 1 as long as it is the first.
    """

    __slots__ = ("factors", "nonce", "plugin")

    def __init__(self) -> None:
        self.plugin = CACHING_SHA2_PASSWORD  # as long as no other is named: the only one that asks without a switch
        self.nonce = b""
        self.factors = 1

    def follow(self, payload: bytes) -> bool:
        """Take a question, and return whether it asks for the password that sha2 methods send whole.

        Args:
            payload: AuthSwitchRequest, AuthNextFactor or AuthMoreData.

        Raises:
            WireError: it cannot be read.
        """
        first = payload[:1]
        if first == b"\x01" or (self.plugin == DIALOG and first != b"\xfe"):
            # Some clients look at the beginning only, or send the password whatever more a server says.
            return self.plugin == SHA256_PASSWORD or (
                self.plugin == CACHING_SHA2_PASSWORD and payload.startswith(FULL_AUTHENTICATION)
            )
        if first == b"\x02":
            factor = parse_auth_next_factor(payload)
            self.plugin, self.nonce = factor.plugin, factor.data
            self.factors += 1
        else:
            switch = parse_auth_switch_request(payload)
            self.plugin, self.nonce = switch.plugin, switch.data
        return self.plugin == SHA256_PASSWORD

    def check_clear(self, client_secure: bool, server_secure: bool) -> None:
        """Raise `SqlError` (1045) if the method sends the password as it is, and somebody could read it.

        Args:
            client_secure: whether the client's link is secure.
            server_secure: whether the server's is.
        """
        if self.plugin in _ALWAYS_CLEAR and not (client_secure and server_secure):
            raise insecure(self.plugin, client_secure, server_secure)

    def check(self, payload: bytes, client_secure: bool, server_secure: bool) -> None:
        """Raise `SqlError` (1045) if a question must not be passed on without more ado; else as `follow`."""
        wants_password = self.follow(payload)
        self.check_clear(client_secure, server_secure)
        if wants_password and client_secure is not server_secure:
            raise insecure(self.plugin, client_secure, server_secure)


def insecure(plugin: str, client_secure: bool, server_secure: bool) -> SqlError:
    """Return the refusal of a login by a method that would lay the password open."""
    both = not client_secure and not server_secure
    clear = "both links are" if both else f"the {'server' if client_secure else 'client'}'s link is"
    return SqlError(
        1045,
        "28000",
        f"Access denied: authentication plugin '{plugin}' requires secure connections from the client to "
        f"the proxy and from the proxy to the server, and {clear} not encrypted",
    )
