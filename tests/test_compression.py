"""What the settings make of compression."""

from unittest.mock import patch

from twisted.internet.testing import MemoryReactorClock
from twisted.trial.unittest import SynchronousTestCase

from odptwist import service
from odptwist.errors import ConfigError
from odptwist.service import ProxyService
from odptwist.sessions.compression import Compression
from odptwist.settings import ClusterSettings, CompressionSettings, ServerSettings, Settings
from odptwist.snapshots import Address, Algorithm, ServerCompression
from odptwist.wire.compression import ALGORITHMS

SERVER = Address("10.1.0.1", 3306)


def compression(clients: list[str], servers: ServerCompression = ServerCompression.OFF) -> Compression:
    """Return what sessions go by with these settings."""
    cluster = ClusterSettings("odp", (ServerSettings(SERVER),), server_compression=servers)
    settings = Settings(clusters=(cluster,), compression=CompressionSettings(clients, 6, 7))
    return ProxyService(MemoryReactorClock(), settings).registry.surroundings.compression


class CompressionTests(SynchronousTestCase):
    """What sessions go by."""

    def test_clients(self) -> None:
        """Clients are offered what the settings name, at the levels of the settings."""
        made = compression(["zlib"])
        self.assertEqual((made.clients, made.servers), ((Algorithm.ZLIB,), {}))
        self.assertEqual(made.levels, {Algorithm.ZLIB: 6, Algorithm.ZSTD: 7})
        self.assertEqual(compression([]).clients, ())

    def test_servers(self) -> None:
        """The preferred way is by zstd, where the library is there, or else by zlib."""
        wanted = compression([], ServerCompression.ZLIB).servers
        self.assertEqual(wanted, {SERVER: (Algorithm.ZLIB,)})
        wanted = compression([], ServerCompression.PREFERRED).servers
        self.assertEqual(wanted, {SERVER: tuple(reversed(ALGORITHMS))})

    def test_without_the_extra(self) -> None:
        """A proxy that is to use zstd and cannot says which extra is missing; one that prefers it uses zlib."""
        with patch.object(service, "ALGORITHMS", (Algorithm.ZLIB,)):
            for clients, servers in (["zstd"], ServerCompression.OFF), (["zlib"], ServerCompression.ZSTD):
                fault = self.assertRaises(ConfigError, compression, clients, servers)
                self.assertEqual(
                    str(fault), "compression with zstd needs the extra 'zstd': pip install 'odptwist[zstd]'"
                )
            compression(["zlib"], ServerCompression.PREFERRED)
