from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from pymysql._auth import scramble_native_password
from twisted.trial.unittest import SynchronousTestCase

from odptwist.wire.scramble import native_password, new_salt
from tests.wire.strategies import relaxed


class ScrambleTests(SynchronousTestCase):
    @relaxed
    @given(st.binary(), st.binary(min_size=20, max_size=20))
    def test_as_pymysql(self, password: bytes, salt: bytes) -> None:
        """PyMySQL computes the same answer, also from a salt with its trailing NUL."""
        answer = scramble_native_password(password, salt)
        self.assertEqual(native_password(password, salt), answer)
        self.assertEqual(native_password(password, salt + b"\x00"), answer)

    def test_empty_password(self) -> None:
        """An empty password is answered with nothing."""
        self.assertEqual(native_password(b"", b"x" * 20), b"")

    def test_new_salt(self) -> None:
        """Salts are 20 printable bytes without `$`, and no two are the same."""
        salts = [new_salt() for _ in range(200)]
        self.assertEqual(len(set(salts)), 200)
        for salt in salts:
            self.assertEqual(len(salt), 20)
            self.assertTrue(all(0x21 <= byte <= 0x7E for byte in salt))
            self.assertNotIn(b"$", salt)
