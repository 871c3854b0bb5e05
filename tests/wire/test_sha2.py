from __future__ import annotations

from hashlib import sha256

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from odptwist.wire.sha2 import sha2_answer, with_nonce

NONCE = bytes(range(1, 21))


class Sha2Tests(SynchronousTestCase):
    def test_answer(self) -> None:
        """A server that keeps SHA256(SHA256(password)) finds SHA256(password) in it; the NUL does not count."""
        answer = sha2_answer(b"secret", NONCE)
        self.assertEqual(answer, sha2_answer(b"secret", NONCE + b"\0"))
        kept = sha256(sha256(b"secret").digest()).digest()
        found = bytes(a ^ b for a, b in zip(answer, sha256(kept + NONCE).digest(), strict=True))
        self.assertEqual(sha256(found).digest(), kept)
        self.assertNotEqual(sha2_answer(b"secret", NONCE[::-1]), answer)

    @given(st.binary(max_size=100), st.binary(max_size=30))
    def test_nonce(self, text: bytes, nonce: bytes) -> None:
        """Combined twice with a nonce, however long, a text is itself again."""
        once = with_nonce(text, nonce)
        self.assertEqual((len(once), with_nonce(once, nonce)), (len(text), text))

    def test_nonce_is_repeated(self) -> None:
        """A text longer than the nonce is combined with its beginning again, not with the NUL behind it."""
        self.assertEqual(with_nonce(bytes(45), NONCE + b"\0"), (NONCE * 3)[:45])
