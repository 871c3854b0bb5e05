"""What the login method mysql_native_password computes: the answer to a salt, and salts for our own greetings.

Source: https://dev.mysql.com/doc/dev/mysql-server/latest/page_protocol_connection_phase_authentication_methods_native_password_authentication.html
"""

from __future__ import annotations

import secrets
from hashlib import sha1
from typing import Final

SALT_SIZE: Final[int] = 20

_ALPHABET: Final[bytes] = bytes(set(range(0x21, 0x7F)) - set(b"$"))


def _sha1(b: bytes) -> bytes:
    return sha1(b, usedforsecurity=False).digest()


def native_password(password: bytes, salt: bytes) -> bytes:
    """Return SHA1(password) XOR SHA1(salt + SHA1(SHA1(password))): 20 bytes, or none for an empty password.

    Args:
        password: in clear, as bytes of the session's character set.
        salt: the server's; only its first 20 bytes count, so the data of an AuthSwitchRequest (21 bytes) fits too.
    """
    if not password:
        return b""
    once = _sha1(password)
    mask = _sha1(salt[:SALT_SIZE] + _sha1(once))
    return bytes(a ^ b for a, b in zip(once, mask, strict=True))


def new_salt() -> bytes:
    """Return 20 random printable bytes.

    Without NUL, which ends the salt for older clients, and `$`, which separates the parts of a sha2 verifier.
    """
    return bytes(secrets.choice(_ALPHABET) for _ in range(SALT_SIZE))
