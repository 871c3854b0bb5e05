"""The numbers of client sessions."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from odptwist.sessions.ids import SessionIds, choose_proxy_id


class SessionIdsTests(SynchronousTestCase):
    def test_version_1(self) -> None:
        """The numbers are 1 to 4,194,303, with the proxy's above them; none is known to be a client's own."""
        ids = SessionIds()
        self.assertEqual((ids.first, ids.last, ids.one_everywhere), (1, 4_194_303, False))
        self.assertEqual(
            (SessionIds(1, 255).first, SessionIds(1, 255).last), (255 << 23 | 1, 255 << 23 | (1 << 22) - 1)
        )
        self.assertFalse(ids.is_own(1))

    def test_version_2(self) -> None:
        """The proxy's number is in the top bits, and all ids stay below 2**31."""
        ids = SessionIds(2, 8191)
        self.assertEqual((ids.first, ids.last), (8191 << 18 | 1, 8191 << 18 | 131_071))
        self.assertLess(ids.last, 1 << 31)
        self.assertTrue(ids.one_everywhere)
        for number, own in ((ids.first, True), (ids.last, True), (8191 << 18, True), ((8191 << 18) - 1, False)):
            self.assertIs(ids.is_own(number), own)
        self.assertFalse(ids.is_own(1 << 31))
        self.assertFalse(ids.is_own(-1))

    def test_next(self) -> None:
        """Numbers rise, are not used again at once, and begin anew after the last; those in use are left out."""
        for ids in (SessionIds(), SessionIds(2, 4096)):
            first, last = ids.first, ids.last
            self.assertEqual(ids.next(0, ()), first)
            self.assertEqual(ids.next(first, ()), first + 1)
            self.assertEqual(ids.next(first, (first + 1, first + 2)), first + 3)
            self.assertEqual(ids.next(last, ()), first)
            self.assertEqual(ids.next(last - 1, (last, first)), first + 1)

    def test_a_chosen_number_keeps_ids_apart(self) -> None:
        """A proxy's number that chance has chosen makes ids that no server reaches by counting."""
        for _ in range(100):
            ids = SessionIds(2, choose_proxy_id())
            self.assertGreater(ids.first, 1 << 30)
            self.assertLess(ids.last, 1 << 31)
