"""What the login methods caching_sha2_password and sha256_password compute and say.

Source: https://dev.mysql.com/doc/dev/mysql-server/latest/page_caching_sha2_authentication_exchanges.html,
https://dev.mysql.com/doc/dev/mysql-server/latest/page_protocol_connection_phase_authentication_methods_sha256_password_auth.html
"""

from __future__ import annotations

from hashlib import sha256
from itertools import cycle
from typing import Final

from odptwist.wire.scramble import SALT_SIZE, xor

CACHING_SHA2_PASSWORD: Final = "caching_sha2_password"  # noqa: S105 - a plugin's name
SHA256_PASSWORD: Final = "sha256_password"  # noqa: S105 - a plugin's name

FAST_AUTHENTICATION: Final = b"\x01\x03"
"""AuthMoreData of caching_sha2_password: the scramble was right, and OK follows."""
FULL_AUTHENTICATION: Final = b"\x01\x04"
"""AuthMoreData of caching_sha2_password: the server has no hash to check the scramble with, and wants the password."""
KEY_REQUESTS: Final = {CACHING_SHA2_PASSWORD: b"\x02", SHA256_PASSWORD: b"\x01"}
"""What a client answers, by its plugin, to get the server's public key; the server sends it as AuthMoreData."""


def sha2_answer(password: bytes, nonce: bytes) -> bytes:
    """Return SHA256(password) XOR SHA256(SHA256(SHA256(password)) + nonce), 32 bytes.

    Args:
        password: not empty.
        nonce: the server's; only its first 20 bytes count, so the data of an AuthSwitchRequest (21 bytes) fits too.
    """
    once = sha256(password).digest()
    return xor(once, sha256(sha256(once).digest() + nonce[:SALT_SIZE]).digest())


def with_nonce(text: bytes, nonce: bytes) -> bytes:
    """Return a password and its NUL combined with the nonce, over and over, or the other way round.

    So it is before it is encrypted with the server's key, and after it is decrypted.
    """
    return bytes(a ^ b for a, b in zip(text, cycle(nonce[:SALT_SIZE] or b"\0"), strict=False))
