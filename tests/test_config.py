"""Settings: what is understood, and what is said about faults."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from odptwist.config import load_settings, parse_address
from odptwist.errors import ConfigError
from odptwist.snapshots import Address

FULL = """
port = [2883, "tcp:2884:interface=127.0.0.1"]
data_dir = "/var/lib/odp"

[[cluster]]
name = "ob1"
tenants = ["sys", "shop"]
[[cluster.server]]
address = "127.0.0.1:3310"
[[cluster.server]]
address = "unix:/run/mysqld/mysqld.sock"

[[cluster]]
name = "ob2"
[[cluster.server]]
address = "[::1]:3306"
"""


class SettingsTests(SynchronousTestCase):
    def setUp(self) -> None:
        """Make a directory for files."""
        directory = TemporaryDirectory()
        self.addCleanup(directory.cleanup)
        self.path = str(Path(directory.name) / "odp.toml")

    def load(self, text: str, **options: object) -> object:
        """Load a file with this text."""
        Path(self.path).write_text(text, encoding="utf-8")
        return load_settings(self.path, **options)

    def faults(self, text: str) -> tuple[str, ...]:
        """Return the faults of a file."""
        return self.assertRaises(ConfigError, self.load, text).faults

    def test_defaults(self) -> None:
        """Without anything, an embedded server is served on loopback at 2883, as cluster odp."""
        settings = load_settings()
        self.assertTrue(settings.embedded)
        self.assertEqual(settings.endpoints, ("tcp:2883:backlog=1024:interface=127.0.0.1",))
        self.assertEqual((settings.clusters[0].name, settings.clusters[0].tenants), ("odp", ("sys",)))
        self.assertEqual(settings.data_dir, Path("odp-data"))

    def test_whole_file(self) -> None:
        """Every key of a file is understood."""
        settings = self.load(FULL)
        self.assertEqual(settings.endpoints, ("tcp:2883:backlog=1024", "tcp:2884:interface=127.0.0.1"))
        self.assertEqual([cluster.name for cluster in settings.clusters], ["ob1", "ob2"])
        self.assertEqual(
            settings.clusters[0].servers, (Address("127.0.0.1", 3310), Address(path="/run/mysqld/mysqld.sock"))
        )
        self.assertEqual(settings.clusters[0].tenants, ("sys", "shop"))
        self.assertFalse(settings.embedded)

    def test_command_line_wins(self) -> None:
        """What the command line says replaces what the file says."""
        settings = self.load(FULL, ports=["3000"], servers=["h:1"], cluster_name="mine", data_dir="/d")
        self.assertEqual(settings.endpoints, ("tcp:3000:backlog=1024",))
        self.assertEqual([(c.name, c.servers) for c in settings.clusters], [("mine", (Address("h", 1),))])
        self.assertEqual(settings.data_dir, Path("/d"))

    def test_short_file(self) -> None:
        """One value may stand without brackets, and a cluster without servers is the embedded one."""
        settings = self.load('port = 2999\nserver = "h:1"\ncluster_name = "x"')
        self.assertEqual(
            (settings.endpoints, settings.clusters[0].servers), (("tcp:2999:backlog=1024",), (Address("h", 1),))
        )
        settings = self.load('[[cluster]]\nname = "ob1"')
        self.assertTrue(settings.embedded)
        self.assertEqual(settings.clusters[0].name, "ob1")

    def test_faults_name_their_key(self) -> None:
        """Each fault says where it is and what is wrong, and all of a kind are reported at once."""
        for text, *words in (
            ("prot = 1", "prot"),
            ("port = 99999", "port", "99999"),
            ('port = "nonsense"', "port", "nonsense"),
            ("port = true", "port"),
            ('port = "tcp:99999"', "port", "tcp:99999"),
            ('port = "tcp:x:interface=::1"', "port", "tcp:x"),
            ("cluster_name = 7", "cluster_name", "text"),
            ('cluster_name = "a#b"', "cluster_name", "a#b"),
            ('server = ["h", "h:0", "unix:x"]', "'h'", "'h:0'", "'unix:x'"),
            ('server = "h:1"\n[[cluster]]\nname = "a"\n[[cluster.server]]\naddress = "h:1"', "[[cluster]]"),
            ('[[cluster]]\nname = "a"\n[[cluster]]\nname = "a"', "twice", "cluster[0]: needs", "cluster[1]: needs"),
            ('[[cluster]]\nname = "a"\ntenants = []', "tenants"),
            ('[[cluster]]\nname = "a"\n[[cluster.server]]\naddres = "h:1"', "addres", "cluster[0].server[0]"),
            ("port = ", "TOML"),
        ):
            faults = "\n".join(self.faults(text))
            for word in words:
                self.assertIn(word, faults, text)

    def test_file_that_cannot_be_read(self) -> None:
        """A missing file, a directory and bytes that are no text are faults of the file."""
        for path in ("/nowhere/odp.toml", str(Path(self.path).parent)):
            fault = self.assertRaises(ConfigError, load_settings, path)
            self.assertIn(path, str(fault))
        Path(self.path).write_bytes(b"\xff\xfe")
        self.assertRaises(ConfigError, load_settings, self.path)

    def test_addresses(self) -> None:
        """An address prints as it is read."""
        for text in ("127.0.0.1:3306", "db.example:1", "[::1]:65535", "unix:/run/x.sock"):
            self.assertEqual(str(parse_address(text)), text)
        for text in ("", ":", "h:", ":1", "h:x", "h:65536", "::1:3306", "[::1]", "unix:", "unix:a/b", "h:\u0661"):
            self.assertRaises(ValueError, parse_address, text)

    @given(st.text())
    def test_any_address(self, text: str) -> None:
        """Any text is an address or a ValueError."""
        try:
            parse_address(text)
        except ValueError:
            return
