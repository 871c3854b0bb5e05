"""The answers to a server that asks for a password which the proxy itself can give.

Source: as `odptwist.machines.password_bridge`, and MySQL internals, "Connection Phase".
"""

from __future__ import annotations

from odptwist.errors import LoginMethodUnknown
from odptwist.machines.clear_text import QuestionGuard
from odptwist.machines.password_bridge import FindKeys, PasswordKeys
from odptwist.machines.server_login import NATIVE_PASSWORD
from odptwist.wire.handshake import parse_auth_more_data
from odptwist.wire.scramble import native_answer
from odptwist.wire.sha2 import (
    CACHING_SHA2_PASSWORD,
    FAST_AUTHENTICATION,
    KEY_REQUESTS,
    SHA256_PASSWORD,
    sha2_answer,
    with_nonce,
)


class OwnAnswers:
    """Follows one login of an account whose password is known, or only SHA1 of it.

    Args:
        key: SHA1(password), empty for an account without one.
        password: itself; None if only `key` is known.
        find_keys: finds what encrypts it.
    """

    __slots__ = ("_find_keys", "_guard", "_key", "_keys", "_password")

    def __init__(self, key: bytes, password: bytes | None, find_keys: FindKeys) -> None:
        self._key = key
        self._password = password
        self._find_keys = find_keys
        self._guard = QuestionGuard()
        self._keys: PasswordKeys | None = None  # there as long as the server's key is due

    def answer(self, payload: bytes, secure: bool) -> bytes | None:
        """Return the answer to what a server asks; None: it waits for none.

        Args:
            payload: AuthSwitchRequest, AuthNextFactor or AuthMoreData.
            secure: whether the link is encrypted, or within this machine.

        Raises:
            LoginMethodUnknown: the account has another plugin, or what the plugin needs is not there.
            WireError: the question cannot be read.
        """
        guard = self._guard
        if self._keys is not None:
            keys, self._keys = self._keys, None
            return self._encrypt(keys, parse_auth_more_data(payload).data)
        wants_password = guard.follow(payload)
        asked_first = payload[:1] == b"\xfe"
        if asked_first and guard.plugin == NATIVE_PASSWORD:
            return native_answer(self._key, guard.nonce) if self._key else b""
        if guard.factors > 1 or self._password is None or guard.plugin not in KEY_REQUESTS:
            raise self._unknown()
        if not self._password:
            return b"\0"
        if wants_password:
            return self._password + b"\0" if secure else self._request_key()
        if asked_first:
            return sha2_answer(self._password, guard.nonce)
        if payload == FAST_AUTHENTICATION:
            return None
        raise self._unknown()

    def _request_key(self) -> bytes:
        self._keys = self._find_keys()
        if self._keys is None:
            raise LoginMethodUnknown(
                f"the account needs {self._guard.plugin}, which takes TLS with the server or the extra 'tls'"
            )
        return KEY_REQUESTS[self._guard.plugin]

    def _encrypt(self, keys: PasswordKeys, public_key: bytes) -> bytes:
        try:
            return keys.encrypt(public_key, with_nonce((self._password or b"") + b"\0", self._guard.nonce))
        except ValueError:
            raise LoginMethodUnknown("the password cannot be encrypted with the server's public key") from None

    def _unknown(self) -> LoginMethodUnknown:
        known = [NATIVE_PASSWORD]
        if self._password is not None:
            known += [CACHING_SHA2_PASSWORD, SHA256_PASSWORD]
        needed = "a further factor" if self._guard.factors > 1 else self._guard.plugin
        return LoginMethodUnknown(f"the account needs {needed}; the proxy can log in by {', '.join(known)} only")
