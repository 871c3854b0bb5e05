"""Tests of the spellings of a user name."""

from __future__ import annotations

from hypothesis import example, given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from odptwist.identity import Identity, legible, parse_user_name

CLUSTERS = ("ob1", "ob2")

NAMES: list[tuple[str, tuple[str, str, str] | None]] = [
    ("root", ("root", "sys", "odp")),
    ("root@sys", ("root", "sys", "odp")),
    ("root@shop", ("root", "shop", "odp")),
    ("root#ob1", ("root", "sys", "ob1")),
    ("root@shop#ob1", ("root", "shop", "ob1")),
    ("root@shop#ob1:1", ("root", "shop", "ob1")),
    ("root#ob1:1", ("root", "sys", "ob1")),
    ("root@shop#unknown", ("root", "shop", "unknown")),
    ("root@shop#my.ob-1", ("root", "shop", "my.ob-1")),
    ("my-app.user@shop", ("my-app.user", "shop", "odp")),
    ("a:b@shop", ("a:b", "shop", "odp")),
    ("ob1:shop:root", ("root", "shop", "ob1")),
    ("ob1:shop:root:1", ("root", "shop", "ob1")),
    ("unknown:shop:root", ("root", "shop", "unknown")),
    ("ob1-shop-root", ("root", "shop", "ob1")),
    ("ob1-shop-root-1", ("root", "shop", "ob1")),
    ("ob2.shop.root", ("root", "shop", "ob2")),
    ("my-app-user", ("my-app-user", "sys", "odp")),
    ("my.app.user", ("my.app.user", "sys", "odp")),
    ("ob1-shop", ("ob1-shop", "sys", "odp")),
    ("ob1:shop", ("ob1:shop", "sys", "odp")),
    ("ob1-a-b-c-d", ("ob1-a-b-c-d", "sys", "odp")),
    ("Root@Shop#OB1", ("Root", "Shop", "OB1")),
    ("r\u00f6\u00f6t@l\u00e4den", ("r\u00f6\u00f6t", "l\u00e4den", "odp")),
    ("", None),
    ("@", None),
    ("#", None),
    ("@shop", None),
    ("#ob1", None),
    ("@shop#ob1", None),
    ("root@", None),
    ("root#", None),
    ("root@#ob1", None),
    ("root@shop#", None),
    ("root@shop#:1", None),
    ("root#ob1@shop", None),
    ("::", None),
    (":shop:root", None),
    ("ob1::root", None),
    ("ob1:shop:", None),
    ("ob1-shop-", None),
    ("ob1--root", None),
]


class ParseUserNameTests(SynchronousTestCase):
    def test_every_spelling(self) -> None:
        """Each spelling gives user, tenant and cluster, or is refused."""
        for text, expected in NAMES:
            if expected is None:
                self.assertRaises(ValueError, parse_user_name, text, CLUSTERS, "odp")
            else:
                self.assertEqual(parse_user_name(text, CLUSTERS, "odp"), Identity(*expected), text)

    def test_a_refusal_says_what_is_wrong(self) -> None:
        """The error is a sentence, and does not repeat the name."""
        for text, words in (
            ("", "empty user name"),
            ("root#ob1@shop", "tenant must stand before"),
            ("root@", "tenant"),
        ):
            error = self.assertRaises(ValueError, parse_user_name, text, CLUSTERS, "odp")
            self.assertIn(words, str(error))

    @given(st.text() | st.text("@#:-.abo1", max_size=12))
    @example("ob1:@:#")
    def test_any_text_is_an_identity_or_a_value_error(self, text: str) -> None:
        """Nothing but ValueError comes out, and no part of an identity is empty."""
        try:
            identity = parse_user_name(text, ("ob1", "", "a"), "odp")
        except ValueError:
            return
        for part in (identity.user, identity.tenant, identity.cluster):
            self.assertTrue(part)
            self.assertTrue(part in text or part in ("sys", "odp"))

    @given(*[st.text(st.characters(exclude_characters="@#:", exclude_categories=["Cs"]), min_size=1)] * 3)
    def test_the_standard_spelling_is_read_back(self, user: str, tenant: str, cluster: str) -> None:
        """What an identity prints is what it is read from."""
        identity = Identity(user, tenant, cluster)
        self.assertEqual(parse_user_name(str(identity), CLUSTERS, "odp"), identity)


class LegibleTests(SynchronousTestCase):
    def test_one_line_of_utf_8(self) -> None:
        """What a peer has chosen can neither begin a line of the log nor keep it from being written."""
        self.assertEqual(legible("Jörg\nclosed\udcac\x1b[2J"), "Jörg\\nclosed\\udcac\\x1b[2J")
