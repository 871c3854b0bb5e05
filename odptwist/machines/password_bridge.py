"""Passwords that sha2 methods send whole, where one of the two links is secure and the other is not.

Source: https://dev.mysql.com/doc/dev/mysql-server/latest/page_caching_sha2_authentication_exchanges.html,
https://dev.mysql.com/doc/refman/8.4/en/caching-sha2-pluggable-authentication.html (RSA key pair).

Over a secure link the password goes as it is, with a NUL. Over another one the client first asks for the server's
public key, and what it sends is encrypted with that (OAEP, SHA-1), combined with the nonce of the question. A server
whose link is secure knows no request for a key. So, when the server wants the password:

    client's link   server's link
    secure          secure          all passes as it is
    not             not             all passes as it is, but no password in clear
    secure          not             the client's password is encrypted here, with a key that the server was asked for
    not             secure          the client gets a key of the proxy's own, and what it sends is decrypted here
"""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum, unique
from typing import Final, Protocol

from odptwist.errors import MalformedPacket, SqlError
from odptwist.machines.clear_text import QuestionGuard, insecure
from odptwist.machines.effects import Answered, Ask
from odptwist.wire.handshake import AuthMoreData, parse_auth_more_data
from odptwist.wire.sha2 import KEY_REQUESTS, with_nonce

EMPTY_PASSWORDS: Final = (b"", b"\0")
"""What clients without a password answer: caching_sha2_password sends a NUL."""
# Bytes that RSA makes of a password at least: no server has a shorter key than one of 1024 bits.
_SHORTEST_CIPHERTEXT: Final = 128


class PasswordKeys(Protocol):
    """RSA, by which passwords are encrypted."""

    @property
    def public_key(self) -> bytes:
        """The proxy's own, in PEM format."""

    def encrypt(self, public_key: bytes, text: bytes) -> bytes:
        """Return a text encrypted with a key in PEM format; ValueError if it is none, or the text is too long."""

    def decrypt(self, text: bytes) -> bytes:
        """Return what was encrypted with `public_key`; ValueError if it was not."""


FindKeys = Callable[[], PasswordKeys | None]
"""Finds what does RSA, None where nothing can."""


@unique
class _Due(Enum):
    """What comes next."""

    ANYTHING = "anything, which passes as it is"
    NOTHING_CLEAR = "anything of the client's but a password in clear"
    CLEAR_TEXT = "the client's password, which the server must not get in clear"
    SERVER_KEY = "the server's key, which the proxy has asked for"
    KEY_REQUEST = "the client's request for a key, which the server would not understand"
    CIPHERTEXT = "the client's password, encrypted with the proxy's key"


class PasswordBridge:
    """Follows what a server asks in one login, and what the client answers."""

    __slots__ = ("_due", "_find_keys", "_guard", "_keys", "_password", "_unanswered")

    _keys: PasswordKeys  # there from the first question on that needs it

    def __init__(self, find_keys: FindKeys) -> None:
        self._find_keys = find_keys
        self._guard = QuestionGuard()
        self._due = _Due.ANYTHING
        self._password = b""
        self._unanswered = False

    @property
    def factors(self) -> int:
        """How many proofs the server has asked for, 1 as long as it is the first."""
        return self._guard.factors

    def asked(self, payload: bytes, client_secure: bool, server_secure: bool) -> Ask | Answered:
        """Take what the server asks, and return what to ask the client, or what to answer in its place.

        Args:
            payload: AuthSwitchRequest, AuthNextFactor or AuthMoreData.
            client_secure: whether the client's link is secure: encrypted, or within this machine.
            server_secure: whether the server's is.

        Raises:
            SqlError: the login cannot go on without laying the password open.
            WireError: the question cannot be read, or is not its turn.
        """
        if self._unanswered:
            # What the client has on its way would be taken for the answer to this one, and might go on in clear.
            raise MalformedPacket("another question, before the password that the server has asked for")
        if self._due is _Due.SERVER_KEY:
            password, self._password = self._password, b""
            self._due = _Due.ANYTHING
            return Answered(self._encrypt(parse_auth_more_data(payload).data, password))
        wants_password = self._guard.follow(payload)
        self._guard.check_clear(client_secure, server_secure)
        if payload[:1] != b"\x01":  # the method before is done with
            self._due = _Due.ANYTHING
        if wants_password:
            if self._due is not _Due.NOTHING_CLEAR:  # else it is the key that the client has asked for
                self._due = self._due_over(client_secure, server_secure)
            self._unanswered = True
        return Ask(payload)

    def answered(self, payload: bytes) -> Ask | Answered:
        """Take what the client answers, and return what to answer the server, or what to ask the client next.

        Raises:
            SqlError: it would lay the password open, or nobody can read it.
        """
        due, self._unanswered = self._due, False
        if due is _Due.ANYTHING or payload in EMPTY_PASSWORDS:
            return Answered(payload)
        key_request = KEY_REQUESTS[self._guard.plugin]
        if due is _Due.CLEAR_TEXT and payload != key_request:
            self._password = payload
            self._due = _Due.SERVER_KEY
            return Answered(key_request)
        if due is _Due.CIPHERTEXT:
            self._due = _Due.ANYTHING
            return Answered(self._decrypt(payload))
        if due is _Due.KEY_REQUEST:
            if payload != key_request:
                raise _denied("a password without TLS must be encrypted with the public key that the proxy gives out")
            self._due = _Due.CIPHERTEXT
            self._unanswered = True
            return Ask(AuthMoreData(self._keys.public_key).encode())
        if payload != key_request and len(payload) < _SHORTEST_CIPHERTEXT:
            raise insecure(self._guard.plugin, False, False)
        self._due = _Due.NOTHING_CLEAR  # a client with a secure link may ask for the key all the same
        return Answered(payload)

    def _due_over(self, client_secure: bool, server_secure: bool) -> _Due:
        if client_secure is server_secure:
            return _Due.ANYTHING if client_secure else _Due.NOTHING_CLEAR
        keys = self._find_keys()
        if keys is None:
            raise insecure(self._guard.plugin, client_secure, server_secure)
        self._keys = keys
        return _Due.CLEAR_TEXT if client_secure else _Due.KEY_REQUEST

    def _encrypt(self, public_key: bytes, password: bytes) -> bytes:
        try:
            return self._keys.encrypt(public_key, with_nonce(password, self._guard.nonce))
        except ValueError:
            raise _denied("the password cannot be encrypted with the server's public key") from None

    def _decrypt(self, payload: bytes) -> bytes:
        try:
            return with_nonce(self._keys.decrypt(payload), self._guard.nonce)
        except ValueError:
            raise _denied("the password is not encrypted with the proxy's public key") from None


def _denied(why: str) -> SqlError:
    return SqlError(1045, "28000", f"Access denied: {why}")
