from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from odptwist.sessions.networks import Networks


class NetworksTests(SynchronousTestCase):
    def test_addresses(self) -> None:
        """An address is in a network of its own version, also where it is mapped into the other one."""
        networks = Networks.read(("10.0.0.0/8", "127.0.0.2", "2001:db8::/32"))
        for host in ("10.255.0.1", "127.0.0.2", "2001:db8::1", "::ffff:10.0.0.1"):
            self.assertIn(host, networks)
        for host in ("11.0.0.1", "127.0.0.1", "2001:db9::1", "::1", "fe80::1%eth0", "::ffff:11.0.0.1", "::10.0.0.1"):
            self.assertNotIn(host, networks)
        self.assertIn("fe80::1%eth0", Networks.read(("fe80::/10",)))

    def test_unix_sockets(self) -> None:
        """A Unix socket is in none, unless that was said."""
        self.assertNotIn("", Networks.read(("0.0.0.0/0", "::/0")))
        self.assertIn("", Networks.read(("unix",)))
        self.assertNotIn("127.0.0.1", Networks.read(("unix",)))

    def test_something_else(self) -> None:
        """A text that is no network, or has bits beyond its mask, is refused."""
        for text in ("10.0.0.1/8", "localhost", "", "10.0.0.0/33"):
            with self.assertRaises(ValueError, msg=text):
                Networks.read((text,))
