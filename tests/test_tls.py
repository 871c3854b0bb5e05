"""Files of certificates and keys, and what is said where they cannot be used."""

from __future__ import annotations

import ssl
import sys
import tempfile
from pathlib import Path
from typing import Any
from unittest.mock import patch

from attrs import evolve
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import BestAvailableEncryption, Encoding, PrivateFormat
from twisted.internet.testing import MemoryReactorClock
from twisted.logger import LogLevel
from twisted.trial.unittest import SynchronousTestCase

from odptwist.errors import ConfigError
from odptwist.service import ProxyService
from odptwist.settings import AUTO_CERTIFICATE, ClusterSettings, ServerSettings, Settings, TlsSettings
from odptwist.snapshots import Address, TlsMode
from odptwist.tls import client_tls, server_tls
from tests.support.certificates import Authority
from tests.support.logs import watch_log

SERVERS = (ServerSettings(Address("localhost", 3306)), ServerSettings(Address(path="/s")))


class FileTests(SynchronousTestCase):
    def setUp(self) -> None:
        """Make an authority and a directory."""
        directory = tempfile.TemporaryDirectory()
        self.addCleanup(directory.cleanup)
        self.directory = Path(directory.name)
        self.authority = Authority()

    def write(self, name: str, content: bytes) -> str:
        """Write a file and return its path."""
        path = self.directory / name
        path.write_bytes(content)
        return str(path)

    def fault(self, settings: TlsSettings) -> str:
        """Return why settings cannot be used."""
        return str(self.assertRaises(ConfigError, client_tls, settings))

    def test_not_offered(self) -> None:
        """Without a certificate there is no TLS with clients, and by default none with servers."""
        self.assertIsNone(client_tls(TlsSettings()))
        self.assertEqual(server_tls(ClusterSettings("a", SERVERS)), {})

    def test_one_file_or_two(self) -> None:
        """The key may stand in the same file, before or behind the chain, or in its own."""
        certificate, key = self.authority.issue("localhost")
        for content in (certificate + self.authority.pem + key, key + certificate):
            self.assertIsNotNone(client_tls(TlsSettings(self.write("one.pem", content))))
        two = TlsSettings(self.write("chain.pem", certificate), self.write("key.pem", key), require=True)
        made = client_tls(two)
        self.assertTrue(made is not None and made.required)

    def test_faults(self) -> None:
        """A fault names the setting, the file and what is wrong; never what is in it."""
        certificate, key = self.authority.issue("localhost")
        other = self.write("other.pem", self.authority.issue("localhost")[1])
        good = self.write("good.pem", certificate + key)
        bad = self.write("bad.pem", b"rubbish")
        bare = self.write("bare.pem", certificate)
        locked = ec.generate_private_key(ec.SECP256R1()).private_bytes(
            Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"secret")
        )
        closed = self.write("closed.pem", certificate + locked)
        none = str(self.directory / "none.pem")
        for settings, text in (
            (TlsSettings(none), f"tls.certificate: {none}: No such file or directory"),
            (TlsSettings(bad), f"tls.certificate: {bad}: has no certificate in PEM format"),
            (TlsSettings(bare), f"tls.certificate: {bare}: has no key in PEM format"),
            (TlsSettings(closed), f"tls.certificate: {closed}: its key has a password, which nobody is there to type"),
            (TlsSettings(bare, bad), f"tls.key: {bad}: has no key in PEM format"),
            (TlsSettings(bare, other), f"tls.certificate: {bare}: key values mismatch"),
            (TlsSettings(good, client_ca=none), f"tls.client_ca: {none}: No such file or directory"),
            (TlsSettings(good, client_ca=bad), f"tls.client_ca: {bad}: has no certificate in PEM format"),
        ):
            self.assertEqual(self.fault(settings), text)

    def test_servers(self) -> None:
        """Servers on Unix sockets are left out, and a mode other than preferred insists on TLS."""
        ca = self.write("ca.pem", self.authority.pem)
        for mode in TlsMode:
            found = server_tls(ClusterSettings("a", SERVERS, server_tls=mode, server_ca=ca))
            if mode is TlsMode.DISABLED:
                self.assertEqual(found, {})
            else:
                ((address, tls),) = found.items()
                self.assertEqual((address, tls.required), (SERVERS[0].address, mode is not TlsMode.PREFERRED))
        bad = ClusterSettings("a", SERVERS, server_tls=TlsMode.VERIFY_CA, server_ca="/none")
        fault = self.assertRaises(ConfigError, server_tls, bad)
        self.assertEqual(str(fault), "cluster a: server_ca: /none: No such file or directory")

    def test_certificate_for_servers(self) -> None:
        """What the proxy shows to servers is read at the start, and faults name the cluster."""
        certificate, key = self.authority.issue("proxy")
        good = self.write("good.pem", certificate + key)
        bare = self.write("bare.pem", certificate)
        other = self.write("other.pem", self.authority.issue("proxy")[1])
        shown = ClusterSettings("a", SERVERS, server_tls=TlsMode.REQUIRED, server_certificate=good)
        self.assertEqual(len(server_tls(shown)), 1)
        for more, text in (
            ({"server_certificate": "/none"}, "server_certificate: /none: No such file or directory"),
            ({"server_certificate": bare}, f"server_certificate: {bare}: has no key in PEM format"),
            ({"server_certificate": bare, "server_key": bare}, f"server_key: {bare}: has no key in PEM format"),
            ({"server_certificate": bare, "server_key": other}, f"server_certificate: {bare}: key values mismatch"),
        ):
            fault = self.assertRaises(ConfigError, server_tls, evolve(shown, **more))
            self.assertEqual(str(fault), f"cluster a: {text}")

    def test_own_certificate(self) -> None:
        """The certificate that is made names this machine, and the log has its fingerprint."""
        messages = watch_log(self, LogLevel.info)
        made = client_tls(TlsSettings(AUTO_CERTIFICATE))
        assert made is not None
        self.assertRegex(messages[0], r"SHA-256 fingerprint: ([0-9a-f]{2}:){31}[0-9a-f]{2}$")
        context = ssl.create_default_context(cadata=made.options.certificate.public_bytes(Encoding.DER))
        self.assertEqual(len(context.get_ca_certs()), 1)

    def test_without_the_extra(self) -> None:
        """A proxy that is to use TLS and cannot says which extra is missing; one that is not starts without it."""
        settings = (
            Settings(tls=TlsSettings(AUTO_CERTIFICATE)),
            Settings(clusters=(ClusterSettings("a", SERVERS, server_tls=TlsMode.REQUIRED),)),
        )
        with patch.dict(sys.modules, {"OpenSSL": None}):
            sys.modules.pop("odptwist.tls", None)
            for each in settings:
                fault = self.assertRaises(ConfigError, ProxyService, MemoryReactorClock(), each)
                self.assertIn("TLS needs the extra 'tls': pip install 'odptwist[tls]'", str(fault))
            ProxyService(MemoryReactorClock(), Settings())

    def test_rsa_without_the_extra(self) -> None:
        """What encrypts passwords is made once, when it is needed, and is not there without cryptography."""
        find: Any = ProxyService(MemoryReactorClock(), Settings()).registry.surroundings.find_password_keys
        self.addCleanup(find.cache_clear)
        find.cache_clear()
        with patch.dict(sys.modules, {"cryptography.hazmat.primitives.asymmetric": None}):
            sys.modules.pop("odptwist.password_keys", None)
            self.assertIsNone(find())
        find.cache_clear()
        self.assertIsNotNone(find())
        self.assertIs(find(), find())
