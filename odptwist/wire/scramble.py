"""What the login method mysql_native_password computes: the answer to a salt, and salts for our own greetings.

Source: https://dev.mysql.com/doc/dev/mysql-server/latest/page_protocol_connection_phase_authentication_methods_native_password_authentication.html
"""

from __future__ import annotations

import os
from hashlib import sha1
from hmac import compare_digest
from typing import Final

SALT_SIZE: Final[int] = 20

_ALPHABET: Final[bytes] = bytes(set(range(0x21, 0x7F)) - set(b"$"))
# For any byte one of these. Some come a little more often: 256 is no multiple of their number, and a salt no secret.
_PRINTABLE: Final[bytes] = (_ALPHABET * 3)[:256]


def _sha1(b: bytes) -> bytes:
    return sha1(b, usedforsecurity=False).digest()


def password_sha1(password: bytes) -> bytes:
    """Return SHA1(password): what answers any salt; it is as secret as the password."""
    return _sha1(password)


def native_password(password: bytes, salt: bytes) -> bytes:
    """Return what `native_answer` does, or no bytes for an empty password."""
    return native_answer(_sha1(password), salt) if password else b""


def native_answer(once: bytes, salt: bytes) -> bytes:
    """Return SHA1(password) XOR SHA1(salt + SHA1(SHA1(password))), 20 bytes.

    Args:
        once: SHA1(password).
        salt: the server's; only its first 20 bytes count, so the data of an AuthSwitchRequest (21 bytes) fits too.
    """
    return xor(once, _sha1(salt[:SALT_SIZE] + _sha1(once)))


def recover_sha1(answer: bytes, salt: bytes, verifier: bytes) -> bytes | None:
    """Check a client's answer to our salt, and return the SHA1(password) that it holds; None if it is wrong.

    Args:
        answer: 20 bytes if the client answered by this method.
        salt: the one that the client was sent.
        verifier: SHA1(SHA1(password)), as servers keep it.
    """
    if len(answer) != SALT_SIZE or len(verifier) != SALT_SIZE:
        return None
    once = xor(answer, _sha1(salt[:SALT_SIZE] + verifier))
    return once if compare_digest(_sha1(once), verifier) else None


def xor(one: bytes, other: bytes) -> bytes:
    """Return two texts of one length, combined byte by byte."""
    return bytes(a ^ b for a, b in zip(one, other, strict=True))


def new_salt() -> bytes:
    """Return 20 random printable bytes.

    Without NUL, which ends the salt for older clients, and `$`, which separates the parts of a sha2 verifier.
    """
    return os.urandom(SALT_SIZE).translate(_PRINTABLE)
