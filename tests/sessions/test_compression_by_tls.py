"""Compressed packets inside TLS, in memory."""

from __future__ import annotations

from odptwist.sessions.compression import Compression
from odptwist.settings import TlsSettings
from odptwist.snapshots import Algorithm
from odptwist.tls import client_tls
from odptwist.wire.constants import CLIENT_COMPRESS
from odptwist.wire.framing import frame
from odptwist.wire.handshake import parse_handshake_response
from odptwist.wire.responses import parse_err
from tests.support.compression import BROKEN, CompressedEnd
from tests.support.house import ClientPeer, House, ServerPeer, result
from tests.support.tls import Certified, TlsEnd, can_tls, login_response, packets, ssl_request, trusting


class CompressionByTlsTests(Certified):
    """With a client."""

    def setUp(self) -> None:
        """Log in a client that uses TLS and compresses."""
        self.house = House()
        self.house.use(
            client_tls=client_tls(TlsSettings(certificate=self.file)), compression=Compression((Algorithm.ZLIB,))
        )
        self.client: ClientPeer = self.house.connect()
        can_tls(self.client, client=False)
        self.client.packets()
        self.tls = TlsEnd(self.house, self.client, trusting(self.authority.pem))
        self.client.send(ssl_request())
        self.tls.run()
        payload = login_response()[4:]
        capabilities = parse_handshake_response(payload).capabilities | CLIENT_COMPRESS
        self.tls.send(frame(capabilities.to_bytes(4, "little") + payload[4:], 2))
        self.server: ServerPeer = self.house.open()
        (ok,) = packets(self.tls.take())
        self.assertEqual((ok.sequence, ok.payload[0]), (3, 0))
        self.packer = CompressedEnd(self.client)

    def test_query(self) -> None:
        """What TLS carries is compressed."""
        self.tls.send(self.packer.pack(frame(b"\x03SELECT 1", 0)))
        self.assertEqual(self.server.payloads(), [b"\x03SELECT 1"])
        self.server.send(result([[b"x" * 10_000]]))
        came = self.tls.take()
        self.assertLess(len(came), 300)
        self.assertEqual(self.packer.inflate(came), result([[b"x" * 10_000]]))

    def test_end(self) -> None:
        """A client that breaks the rules is told so by TLS, and the server session ends with it."""
        self.tls.send(BROKEN)
        error = self.packer.inflate(self.tls.take())
        self.assertEqual(parse_err(error[4:]).code, 1835)
        self.house.reactor.advance(2)
        self.assertIsNotNone(self.client.wire.ended)
        self.assertEqual(self.server.wire.ended, "aborted")
