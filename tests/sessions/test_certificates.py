"""Certificates of clients and what they are for, in memory."""

from __future__ import annotations

from pathlib import Path

from twisted.logger import LogLevel

from odptwist.errors import CloseReason
from odptwist.identity import UserName
from odptwist.machines.certificates import CertificateAccount, CertificateAccounts
from odptwist.sessions.surroundings import Limits
from odptwist.settings import TlsSettings
from odptwist.tls import client_tls
from odptwist.wire.framing import frame
from odptwist.wire.responses import parse_err
from tests.support.house import ClientPeer, House, response
from tests.support.logs import watch_log
from tests.support.tls import Certified, TlsEnd, can_tls, login_response, packets, ssl_request, trusting

CHANGE_USER = b"\x11%s\0\x14" + b"x" * 20 + b"\0\x2d\0mysql_native_password\0"


class CertificateTests(Certified):
    def setUp(self) -> None:
        """Make a proxy that asks clients for certificates."""
        self.house = House()
        users = frozenset((UserName("ada"), UserName("root", "proxysys")))
        self.house.use(
            client_tls=client_tls(TlsSettings(certificate=self.file, client_ca=self.ca)),
            certificate_accounts=CertificateAccounts(
                tuple(
                    CertificateAccount(name, users)
                    for name in ("cn:ada", "dns:ada.example", "email:ada@example", "uri:spiffe://x/ada")
                )
            ),
            limits=Limits(log_sessions=True),
        )

    def secure(self, *hosts: str) -> tuple[ClientPeer, TlsEnd]:
        """Return a client whose handshake is over, with a certificate for hosts; without one if there are none."""
        client = self.house.connect()
        can_tls(client, client=False)
        client.packets()
        context = trusting(self.authority.pem)
        if hosts:
            context.load_cert_chain(self.authority.write(Path(self.directory.name), *hosts))
        end = TlsEnd(self.house, client, context)
        client.send(ssl_request())
        end.run()
        return client, end

    def refused(self, end: TlsEnd) -> bool:
        """Say whether a login was refused by the proxy itself: no server has heard of it."""
        came = packets(end.take())
        if came:
            self.assertEqual(parse_err(came[0].payload).code, 1045)
            self.assertEqual(self.house.attempts, 0)
        return bool(came)

    def test_names(self) -> None:
        """Each kind of name in a certificate lets its users in, and hosts are compared without regard to case."""
        for hosts in (("ada",), ("x", "ADA.example"), ("x", "email:ada@example"), ("x", "uri:spiffe://x/ada")):
            _, end = self.secure(*hosts)
            end.send(login_response("ada"))
            self.house.open()
            self.assertEqual(packets(end.take())[0].payload[0], 0, hosts)
        for hosts in (("y", "x.example"), ("z", "email:ada@EXAMPLE")):
            _, end = self.secure(*hosts)
            end.send(login_response("ada"))
            self.assertTrue(self.refused(end), hosts)

    def test_user_without_a_certificate(self) -> None:
        """A user of the list is refused without its certificate, by TLS and without; all others are not concerned."""
        messages = watch_log(self, LogLevel.warn)
        _, end = self.secure()
        end.send(login_response("ada"))
        self.assertTrue(self.refused(end))
        client = self.house.connect()
        client.packets()
        client.send(response("ada@sys#odp"))
        self.assertEqual(client.error(), (1045, "Access denied for user 'ada'@'127.0.0.1'"))
        self.assertIn("ada@sys#odp", messages[0])
        self.assertIn("it has shown no certificate", messages[0])
        client = self.house.connect()
        client.packets()
        client.send(response("eve"))
        self.assertEqual(self.house.attempts, 1)

    def test_certificate_of_another_user(self) -> None:
        """Who shows a certificate of the list is nobody else, and the log names its subject."""
        messages, warnings = watch_log(self, LogLevel.info), watch_log(self, LogLevel.warn)
        client, end = self.secure("ada")
        session = client.wire.protocol.wrappedProtocol
        end.send(login_response("root"))
        self.assertTrue(self.refused(end))
        self.assertEqual(session.reason, CloseReason.LOGIN_REFUSED)
        self.assertIn("shows the certificate of CN=ada", messages[0])
        self.assertIn("(certificate: CN=ada)", warnings[0])

    def test_administrator(self) -> None:
        """The proxy's own accounts can be bound to a certificate, too."""
        _, end = self.secure()
        end.send(login_response("root@proxysys"))
        self.assertTrue(self.refused(end))

    def test_another_user_later(self) -> None:
        """COM_CHANGE_USER is no way around it."""
        _, end = self.secure("ada")
        end.send(login_response("ada"))
        server = self.house.open()
        end.take()
        end.send(frame(CHANGE_USER % b"root", 0))
        self.assertEqual(parse_err(packets(end.take())[0].payload).code, 1045)
        quoted = CHANGE_USER % b"'ada'"
        in_armscii = (CHANGE_USER % b"a\xacda").replace(b"\x2d\0mysql", b"\x20\0mysql")
        without_charset = b"\x11a\xacda\0\x14" + b"x" * 20 + b"\0"
        for spelling in (quoted, in_armscii, without_charset):
            end.send(frame(spelling, 0))
            self.assertEqual(parse_err(packets(end.take())[0].payload).code, 1045)
        self.assertEqual(server.payloads(), [])
        end.send(frame(CHANGE_USER % b"ada", 0))
        self.assertEqual(len(server.payloads()), 1)

    def test_resumed(self) -> None:
        """A client that goes on with a TLS session is still known by the certificate that it showed at first."""
        context = trusting(self.authority.pem)
        context.load_cert_chain(self.authority.write(Path(self.directory.name), "ada"))
        known = None
        for reused in (False, True):
            client = self.house.connect()
            can_tls(client, client=False)
            client.packets()
            end = TlsEnd(self.house, client, context)
            if known is not None:
                end.object.session = known
            client.send(ssl_request())
            end.run()
            self.assertEqual(end.object.session_reused, reused)
            known = end.object.session
            end.send(login_response("ada"))
            self.house.open()
            self.assertEqual(packets(end.take())[0].payload[0], 0)
