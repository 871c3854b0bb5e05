"""RSA as caching_sha2_password and sha256_password use it. Needs cryptography, which comes with the extra `tls`.

Source: https://dev.mysql.com/doc/dev/mysql-server/latest/page_caching_sha2_authentication_exchanges.html
"""

from __future__ import annotations

from functools import cached_property
from typing import Final

from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa

# The servers' own choice, with which SHA-1 is as good as any.
_PADDING: Final = padding.OAEP(padding.MGF1(hashes.SHA1()), hashes.SHA1(), None)  # noqa: S303
_KEY_SIZE: Final = 2048  # bits, as MySQL's own keys


class RsaKeys:
    """Encrypts for servers, and decrypts what was encrypted with a key of the proxy's own.

    That key is made when it is first asked for, which takes a tenth of a second; it lives as long as the process.
    """

    @cached_property
    def _own(self) -> rsa.RSAPrivateKey:
        return rsa.generate_private_key(65537, _KEY_SIZE)

    @cached_property
    def public_key(self) -> bytes:
        """The proxy's own, in PEM format."""
        return self._own.public_key().public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        )

    def encrypt(self, public_key: bytes, text: bytes) -> bytes:
        """Return a text encrypted with a key in PEM format; ValueError if it is none, or the text is too long."""
        key = serialization.load_pem_public_key(public_key)
        if not isinstance(key, rsa.RSAPublicKey):
            raise ValueError("not an RSA key")  # noqa: TRY004 - what the key is, is not a matter of our types
        return key.encrypt(text, _PADDING)

    def decrypt(self, text: bytes) -> bytes:
        """Return what was encrypted with `public_key`; ValueError if it was not."""
        return self._own.decrypt(text, _PADDING)
