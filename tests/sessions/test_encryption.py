"""TLS in the middle of logins, in memory."""

from __future__ import annotations

import ssl
from pathlib import Path
from typing import Any

from twisted.internet.error import ConnectError, ConnectionLost
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from odptwist.errors import CloseReason
from odptwist.password_keys import RsaKeys
from odptwist.sessions.encryption import explain
from odptwist.sessions.listener import PLAIN, Listener
from odptwist.sessions.networks import Networks
from odptwist.sessions.service_sessions import ServiceSessions
from odptwist.sessions.surroundings import Account
from odptwist.settings import ClusterSettings, ServerSettings, TlsSettings
from odptwist.snapshots import Address, HeaderPolicy, HeaderVersion, ListenerTls, TlsMode
from odptwist.tls import client_tls, server_tls
from odptwist.wire import constants as c
from odptwist.wire.framing import frame
from odptwist.wire.handshake import (
    SSL_REQUEST_SIZE,
    AuthSwitchRequest,
    is_ssl_request,
    parse_greeting,
    parse_handshake_response,
)
from odptwist.wire.proxy_header import ProxyHeader
from odptwist.wire.responses import parse_err
from odptwist.wire.sha2 import with_nonce
from tests.support.certificates import Authority
from tests.support.house import CAPABILITIES, ClientPeer, House, ServerPeer, greeting, response
from tests.support.tls import (
    TLS_CAPABILITIES,
    Certified,
    TlsEnd,
    can_tls,
    login_response,
    packets,
    ssl_request,
    trusting,
)

SERVER = Address("10.1.0.1", 3306)


class ClientTlsTests(Certified):
    def setUp(self) -> None:
        """Make a proxy that offers TLS."""
        self.house = House()
        self.offer()

    def offer(self, **settings: Any) -> None:
        """Offer TLS as some settings want it."""
        self.house.use(client_tls=client_tls(TlsSettings(certificate=self.file, **settings)))

    def connect(self, listener: Listener = PLAIN) -> tuple[ClientPeer, TlsEnd]:
        """Return a client that was greeted, and its end of TLS, to begin with."""
        client = self.house.connect(listener=listener)
        can_tls(client, client=False)
        client.packets()
        return client, TlsEnd(self.house, client, trusting(self.authority.pem))

    def secure(self) -> tuple[ClientPeer, TlsEnd]:
        """Return a client whose handshake of TLS is over."""
        client, end = self.connect()
        client.send(ssl_request())
        end.run()
        return client, end

    def test_offered_where_there_is_a_certificate(self) -> None:
        """The greeting has CLIENT_SSL if the proxy has a certificate, whatever the servers have."""
        self.assertTrue(parse_greeting(self.house.connect().payloads()[0]).capabilities & c.CLIENT_SSL)
        self.house.use(client_tls=None)
        self.house.hear(TLS_CAPABILITIES)
        self.assertFalse(parse_greeting(self.house.connect().payloads()[0]).capabilities & c.CLIENT_SSL)

    def test_login_and_query(self) -> None:
        """Sequence numbers go on by TLS, CLIENT_SSL is not promised to the server, and the cipher is known."""
        client, end = self.secure()
        end.send(login_response())
        server = self.house.accept()
        server.greet()
        (payload,) = server.payloads()
        self.assertFalse(parse_handshake_response(payload).capabilities & c.CLIENT_SSL)
        server.accept()
        (packet,) = packets(end.take())
        self.assertEqual((packet.sequence, packet.payload[0]), (3, 0))
        end.send(frame(b"\x03SELECT 1", 0))
        server.row(b"7")
        self.assertIn(b"\x017", end.take())
        snapshot = client.wire.protocol.wrappedProtocol.snapshot()
        self.assertTrue(snapshot.using_ssl)
        self.assertTrue(snapshot.cipher.startswith("TLSv1.3 TLS_"), snapshot.cipher)

    def test_early_bytes_in_any_cut(self) -> None:
        """The ClientHello may come in one segment with the request for TLS, cut anywhere."""
        for cut in (*range(1, 80), *range(80, 500, 31)):
            client, end = self.connect()
            stream = ssl_request() + end.hello()
            self.assertGreater(len(stream), 500)
            client.send(stream[:cut])
            client.send(stream[cut:])
            end.run()
            self.assertEqual(end.object.version(), "TLSv1.3", cut)
            client.wire.lose()
            self.house.turn()

    def test_behind_a_proxy_header(self) -> None:
        """The request for TLS and the ClientHello may come in one segment with a PROXY header, cut anywhere."""
        listener = Listener(headers=HeaderPolicy.REQUIRED, trusted=Networks.read(("127.0.0.1",)))
        header = ProxyHeader(Address("203.0.113.9", 1), Address("10.0.0.7", 2883)).encode(HeaderVersion.V2)
        greeting_size = len(self.house.connect().wire.written)
        for cut in (*range(1, 80), *range(80, 500, 31)):
            client = self.house.connect(listener=listener)
            can_tls(client, client=False)
            end = TlsEnd(self.house, client, trusting(self.authority.pem), start=greeting_size)
            stream = header + ssl_request() + end.hello()
            client.send(stream[:cut])
            client.send(stream[cut:])
            end.run()
            self.assertEqual(end.object.version(), "TLSv1.3", cut)
            client.wire.lose()
            self.house.turn()

    def test_required_at_one_listener(self) -> None:
        """What a listener says of TLS comes before what holds for all; without that, it is as for all."""
        for everywhere in (False, True):
            self.offer(require=everywhere)
            for tls, required in (
                (ListenerTls.DEFAULT, everywhere),
                (ListenerTls.OPTIONAL, False),
                (ListenerTls.REQUIRED, True),
            ):
                client, _ = self.connect(Listener(tls))
                client.send(response())
                self.assertEqual(self.house.attempts, 0 if required else 1, (everywhere, tls))
                if required:
                    self.assertEqual(client.error()[0], 3159)
                else:
                    self.house.open()

    def test_not_required_of_unix_sockets(self) -> None:
        """A client on a Unix socket needs no TLS, unless a load balancer says that it comes from elsewhere."""
        trusted = Networks.read(("unix",))
        listener = Listener(ListenerTls.REQUIRED, HeaderPolicy.REQUIRED, trusted)
        for source, required in ((None, False), (Address("203.0.113.9", 1), True)):
            client = self.house.connect(listener=listener, host="")
            client.send(ProxyHeader(source, source).encode(HeaderVersion.V1))
            client.packets()
            client.send(response())
            self.assertEqual(self.house.attempts, 0 if required else 1)
            if not required:
                self.house.open()

    def test_byte_by_byte(self) -> None:
        """All of that may come in segments of one byte."""
        client, end = self.connect()
        for byte in ssl_request() + end.hello():
            client.send(bytes((byte,)))
        end.run()
        self.assertEqual(end.object.version(), "TLSv1.3")

    def test_requests_out_of_place(self) -> None:
        """A second request, one in a wrong place and one that was not offered end the session."""
        _, end = self.secure()
        end.send(ssl_request(2))
        self.assertEqual(parse_err(packets(end.take())[0].payload).code, 1835)
        client, _ = self.connect()
        client.send(ssl_request(2))
        self.assertEqual(client.error()[0], 1156)
        self.house.use(client_tls=None)
        client = self.house.connect()
        client.packets()
        client.send(ssl_request())
        self.assertEqual(client.error()[0], 1835)

    def test_required(self) -> None:
        """Where TLS is required, a client without it is refused with 3159, before any server is asked."""
        self.offer(require=True)
        client, end = self.connect()
        client.send(response())
        code, text = client.error()
        self.assertEqual(code, 3159)
        self.assertIn("--require_secure_transport=ON", text)
        self.assertEqual(self.house.attempts, 0)
        client, end = self.secure()
        end.send(login_response())
        self.assertEqual(self.house.attempts, 1)

    def test_handshake_that_fails(self) -> None:
        """Bytes that are no TLS end the session, with a reason of its own."""
        client, _ = self.connect()
        session = client.wire.protocol
        client.send(ssl_request() + b"\x03\x00\x00\x02abc" * 10)
        self.house.turn()
        self.assertEqual((client.wire.ended, session.reason), ("closed", CloseReason.TLS_FAILED))
        self.assertIn("TLS: ", session.detail)
        self.assertEqual(len(self.house.registry), 0)

    def test_client_that_does_not_trust(self) -> None:
        """A client that refuses the certificate is told of in the history."""
        client, _ = self.connect()
        end = TlsEnd(self.house, client, trusting(Authority("other").pem))
        session = client.wire.protocol
        client.send(ssl_request())
        end.run()
        self.assertIsInstance(end.failure, ssl.SSLError)
        self.assertEqual(session.reason, CloseReason.TLS_FAILED)
        self.assertIn("unknown ca", session.detail)
        (ended,) = self.house.registry.surroundings.history.latest_first()
        self.assertEqual((ended.reason, ended.identity), (CloseReason.TLS_FAILED, None))

    def test_client_certificates(self) -> None:
        """A client certificate is asked for, needed only where that is set, and its signature is checked."""
        path = self.authority.write(Path(self.directory.name), "ada")
        stranger = Authority("other").write(Path(self.directory.name), "eve")
        for required in (False, True):
            self.offer(client_ca=self.ca, require_client_certificate=required)
            for shown, good in ((path, True), (None, not required), (stranger, False)):
                client, _ = self.connect()
                context = trusting(self.authority.pem)
                if shown is not None:
                    context.load_cert_chain(shown)
                end = TlsEnd(self.house, client, context)
                client.send(ssl_request())
                end.run()
                self.assertEqual(client.wire.ended is None, good, (required, shown))

    def test_minimum_version(self) -> None:
        """A client that knows TLS 1.2 only is served, unless 1.3 is the minimum."""
        old = trusting(self.authority.pem)
        old.maximum_version = ssl.TLSVersion.TLSv1_2
        for minimum, version in (("1.2", "TLSv1.2"), ("1.3", None)):
            self.offer(minimum_version=minimum)
            client, _ = self.connect()
            end = TlsEnd(self.house, client, old)
            client.send(ssl_request())
            end.run()
            self.assertEqual(end.object.version() if end.failure is None else None, version)

    def test_resumption(self) -> None:
        """A second connection resumes the TLS session of the first."""
        for version in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):
            context = trusting(self.authority.pem)
            context.maximum_version = version
            known: ssl.SSLSession | None = None
            for reused in (False, True):
                client, _ = self.connect()
                end = TlsEnd(self.house, client, context)
                if known is not None:
                    end.object.session = known
                client.send(ssl_request())
                end.run()
                self.assertEqual(end.object.session_reused, reused, version)
                known = end.object.session

    def test_handshake_that_never_ends(self) -> None:
        """The login timeout ends it, and so does a kill, at once."""
        client, _ = self.connect()
        session = client.wire.protocol
        client.send(ssl_request())
        self.house.reactor.advance(10.1)
        self.house.turn()
        self.assertEqual((client.wire.ended, session.reason), ("aborted", CloseReason.LOGIN_TIMEOUT))
        client, end = self.connect()
        session = client.wire.protocol
        client.send(ssl_request() + end.hello()[:100])
        session.kill("a test")
        self.house.turn()
        self.assertEqual((client.wire.ended, session.reason), ("aborted", CloseReason.KILLED))
        self.assertEqual(len(self.house.registry), 0)

    def test_passwords_in_clear(self) -> None:
        """A password that TLS brought here does not go on in clear: the client is not asked for it."""
        for question in (
            AuthSwitchRequest("mysql_clear_password", b""),
            AuthSwitchRequest("dialog", b"\x04Password: "),
        ):
            _, end = self.secure()
            end.send(login_response(auth_response=b"x" * 20))
            server = self.house.accept()
            server.greet()
            server.send(frame(question.encode(), 2))
            (packet,) = packets(end.take())
            err = parse_err(packet.payload)
            self.assertEqual(err.code, 1045)
            self.assertIn(f"'{question.plugin}' requires secure connections", err.message)
            self.assertEqual(server.wire.ended, "aborted")

    def test_password_that_is_encrypted_on_the_way(self) -> None:
        """What TLS brought here is encrypted with the server's key, and the client hears nothing of it."""
        keys = RsaKeys()
        self.house.use(find_password_keys=lambda: keys)
        _, end = self.secure()
        end.send(login_response(auth_response=b"x" * 20))
        server = self.house.accept()
        server.greet()
        server.send(frame(AuthSwitchRequest("sha256_password", b"s" * 20 + b"\0").encode(), 2))
        end.take()
        server.packets()
        end.send(frame(b"secret\0", 4))
        (packet,) = server.packets()
        self.assertEqual((packet.sequence, packet.payload), (3, b"\x01"))
        server.send(frame(b"\x01" + keys.public_key, 4))
        self.assertEqual(end.take(), b"")
        (packet,) = server.packets()
        self.assertEqual(packet.sequence, 5)
        self.assertEqual(with_nonce(keys.decrypt(packet.payload), b"s" * 20), b"secret\0")
        server.accept(6)
        (packet,) = packets(end.take())
        self.assertEqual((packet.sequence, packet.payload[0]), (5, 0))

    def test_server_whose_key_is_none(self) -> None:
        """A server that sends anything but a key ends the login with 1045; one that breaks off, with its end."""
        keys = RsaKeys()
        self.house.use(find_password_keys=lambda: keys)
        for said in (b"\x01rubbish", None):
            _, end = self.secure()
            end.send(login_response(auth_response=b"x" * 20))
            server = self.house.accept()
            server.greet()
            server.send(frame(AuthSwitchRequest("sha256_password", b"s" * 20 + b"\0").encode(), 2))
            end.take()
            end.send(frame(b"secret\0", 4))
            if said is None:
                server.wire.lose()
            else:
                server.send(frame(said, 4))
            self.house.turn()
            (packet,) = packets(end.take())
            self.assertEqual(parse_err(packet.payload).code, 1045 if said else 1429)
            self.assertNotIn(b"secret", server.wire.written)

    def test_full_authentication(self) -> None:
        """caching_sha2_password goes on by its fast way; without RSA its full one needs links that are alike."""
        for encrypted in (True, False):
            if encrypted:
                client, end = self.secure()
                end.send(login_response(auth_response=b"x" * 32))
            else:
                client, end = self.connect()
                client.send(response(auth_response=b"x" * 32))
            server = self.house.accept()
            server.greet()
            server.send(frame(AuthSwitchRequest("caching_sha2_password", b"s" * 21).encode(), 2))
            answer = frame(b"y" * 32, 4 if encrypted else 3)
            end.send(answer) if encrypted else client.send(answer)
            end.take() if encrypted else client.packets()
            server.send(frame(b"\x01\x04", 4))
            came = packets(end.take()) if encrypted else client.packets()
            self.assertEqual(came[0].payload[0], 0xFF if encrypted else 0x01)

    def test_another_user_in_clear(self) -> None:
        """COM_CHANGE_USER asks no such question either: the client gets an error, and the server session ends."""
        client, end = self.secure()
        end.send(login_response())
        server = self.house.open()
        end.take()
        end.send(frame(b"\x11ada\0\x14" + b"x" * 20 + b"\0\x2d\0mysql_native_password\0", 0))
        server.packets()
        question = frame(AuthSwitchRequest("mysql_clear_password", b"").encode(), 1)
        server.send(question[:7])
        server.send(question[7:])
        (packet,) = packets(end.take())
        self.assertEqual((packet.sequence, parse_err(packet.payload).code), (1, 1045))
        self.assertEqual(server.wire.ended, "aborted")
        self.assertIsNone(client.wire.ended)

    def test_question_for_another_user_that_cannot_be_read(self) -> None:
        """It does not reach the client, which might read it after all, and nobody waits for ever."""
        for questions in (
            (b"\xfemysql_clear_password",),
            (AuthSwitchRequest("mysql_native_password", b"s" * 21).encode(), b"\xfemysql_clear_password"),
        ):
            _, end = self.secure()
            end.send(login_response())
            server = self.house.open()
            end.take()
            end.send(frame(b"\x11ada\0\x14" + b"x" * 20 + b"\0\x2d\0mysql_native_password\0", 0))
            server.packets()
            server.send(b"".join(frame(each, 1 + place) for place, each in enumerate(questions)))
            *asked, last = packets(end.take())
            self.assertEqual([each.payload for each in asked], list(questions[:-1]))
            self.assertEqual((last.sequence, last.payload[0]), (len(questions), 0xFF))
            self.assertEqual(server.wire.ended, "aborted")

    def test_another_user(self) -> None:
        """COM_CHANGE_USER with other questions goes through as it is."""
        _, end = self.secure()
        end.send(login_response())
        server = self.house.open()
        end.take()
        end.send(frame(b"\x11ada\0\x14" + b"x" * 20 + b"\0\x2d\0mysql_native_password\0", 0))
        server.packets()
        question = AuthSwitchRequest("mysql_native_password", b"s" * 21).encode()
        server.send(frame(question, 1))
        self.assertEqual(packets(end.take())[0].payload, question)
        end.send(frame(b"z" * 20, 2))
        self.assertEqual(server.payloads(), [b"z" * 20])
        server.accept(3)
        self.assertEqual(packets(end.take())[0].payload[0], 0)
        end.send(frame(b"\x03SELECT 1", 0))
        server.row(b"7")
        self.assertIn(b"\x017", end.take())


class ServerTlsTests(Certified):
    def setUp(self) -> None:
        """Make a proxy with one server."""
        self.house = House()

    def use(self, mode: TlsMode, host: str = SERVER.host, ca: str = "", **more: str) -> None:
        """Talk to the server by TLS."""
        address = Address(host, SERVER.port)
        settings = ClusterSettings("odp", (ServerSettings(address),), server_tls=mode, server_ca=ca, **more)
        self.house.use(server_tls={SERVER: server_tls(settings)[address]})

    def log_in(self, capabilities: int = TLS_CAPABILITIES) -> tuple[ClientPeer, ServerPeer]:
        """Return a client that logs in, and its server, which has greeted."""
        client = self.house.connect()
        client.packets()
        client.send(response())
        server = self.house.accept()
        can_tls(server, client=True)
        server.greet(capabilities)
        return client, server

    def context(self, file: str = "") -> ssl.SSLContext:
        """Return the context of a server with a certificate."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(file or self.file)
        return context

    def accept_tls(self, server: ServerPeer, context: ssl.SSLContext | None = None) -> TlsEnd:
        """Return the server's end of TLS, after its handshake."""
        request = server.wire.written[: 4 + SSL_REQUEST_SIZE]
        self.assertTrue(is_ssl_request(request[4:]))
        self.assertEqual(request[3], 1)
        end = TlsEnd(self.house, server, context or self.context(), server=True, start=len(request))
        end.run()
        return end

    def test_login(self) -> None:
        """The handshake response is packet 2, by TLS, and commands follow; all modes that fit do so."""
        for mode, host in (
            (TlsMode.PREFERRED, "10.1.0.1"),
            (TlsMode.REQUIRED, "10.1.0.1"),
            (TlsMode.VERIFY_CA, "10.1.0.1"),
            (TlsMode.VERIFY_FULL, "127.0.0.1"),
            (TlsMode.VERIFY_FULL, "localhost"),
        ):
            self.house = House()
            self.use(mode, host, self.ca if mode in (TlsMode.VERIFY_CA, TlsMode.VERIFY_FULL) else "")
            client, server = self.log_in()
            end = self.accept_tls(server)
            (packet,) = packets(end.take())
            self.assertEqual((packet.sequence, parse_handshake_response(packet.payload).user), (2, "root"), mode)
            end.send(frame(b"\0\0\0\2\0\0\0", 3))
            self.assertEqual(client.payloads()[0][0], 0)
            client.query(b"SELECT 1")
            self.assertEqual(end.take(), frame(b"\x03SELECT 1", 0))
            end.send(frame(b"\0\0\0\2\0\0\0", 1))
            client.send(frame(b"\x01", 0))
            self.assertEqual(end.take(), frame(b"\x01", 0))
            self.assertTrue(end.closed)
            self.assertEqual(client.wire.ended, "closed")

    def test_server_without_tls(self) -> None:
        """A server that does not offer TLS is talked to in clear if TLS is only preferred, else left alone."""
        self.use(TlsMode.PREFERRED)
        client, server = self.log_in(CAPABILITIES)
        self.assertEqual(parse_handshake_response(server.payloads()[0]).user, "root")
        self.use(TlsMode.REQUIRED)
        client, server = self.log_in(CAPABILITIES)
        code, text = client.error()
        self.assertEqual(code, 1429)
        self.assertIn("does not offer TLS", text)
        self.assertEqual(server.payloads(), [])

    def test_certificates_that_do_not_fit(self) -> None:
        """A wrong authority or name ends the login before the user's name is told, and the client learns why."""
        other = Path(self.directory.name) / "other.pem"
        other.write_bytes(Authority("other").pem)
        for mode, host, ca, why in (
            (TlsMode.VERIFY_CA, "127.0.0.1", str(other), "certificate verify failed"),
            (TlsMode.VERIFY_FULL, "127.0.0.1", str(other), "certificate verify failed"),
            (TlsMode.VERIFY_FULL, "10.1.0.1", self.ca, "the certificate is another host's"),
            (TlsMode.VERIFY_FULL, "elsewhere", self.ca, "the certificate is another host's"),
        ):
            self.house = House()
            self.use(mode, host, ca)
            client, server = self.log_in()
            end = self.accept_tls(server)
            self.assertEqual(end.take(), b"")
            self.house.turn()
            code, text = client.error()
            self.assertEqual(code, 1429)
            self.assertIn(f"no TLS with server 10.1.0.1:3306: TLS: {why}", text)

    def test_bytes_before_tls(self) -> None:
        """What is put in behind the greeting is not taken for the server's word."""
        self.use(TlsMode.REQUIRED)
        client = self.house.connect()
        client.packets()
        client.send(response())
        server = self.house.accept()
        can_tls(server, client=True)
        hello = frame(greeting(server.thread_id, TLS_CAPABILITIES).encode(), 0)
        server.send(hello + frame(b"\0\0\0\2\0\0\0", 3))
        self.assertEqual(client.error()[0], 1429)
        self.assertEqual(server.payloads(), [])

    def test_server_that_ends_amid_the_handshake(self) -> None:
        """A server that closes the connection instead of beginning TLS is unreachable; one that says nothing, too."""
        self.use(TlsMode.REQUIRED)
        client, server = self.log_in()
        server.wire.lose()
        self.house.turn()
        self.assertIn("no TLS with server", client.error()[1])
        client, server = self.log_in()
        self.house.reactor.advance(5.1)
        self.house.turn()
        self.assertIn("no answer within 5 s", client.error()[1])
        self.assertEqual(server.wire.ended, "aborted")

    def test_kill_amid_the_handshake(self) -> None:
        """A kill of the client session ends the handshake with its server at once."""
        self.use(TlsMode.REQUIRED)
        client, server = self.log_in()
        client.wire.protocol.kill("a test")
        self.house.turn()
        self.assertEqual((client.wire.ended, server.wire.ended), ("aborted", "aborted"))

    def log_in_by_tls(self, context: ssl.SSLContext, accepted: bool = True) -> tuple[ClientPeer, TlsEnd]:
        """Return a client that has logged in (or was refused by its server), and the server's end."""
        client, server = self.log_in()
        end = self.accept_tls(server, context)
        if end.take():
            end.send(frame(b"\0\0\0\2\0\0\0" if accepted else b"\xff\x15\x04#28000no", 3))
        return client, end

    def test_resumption(self) -> None:
        """The second login goes on with the TLS session of the first, and so do those after it."""
        for version in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):
            for mode in (TlsMode.REQUIRED, TlsMode.VERIFY_CA, TlsMode.VERIFY_FULL):
                self.house = House()
                self.use(mode, "127.0.0.1", self.ca if mode is not TlsMode.REQUIRED else "")
                context = self.context()
                context.maximum_version = version
                for reused in (False, True, True):
                    client, end = self.log_in_by_tls(context)
                    self.assertEqual(end.object.session_reused, reused, (version, mode))
                    self.assertEqual(client.payloads()[0][0], 0)
                    client.send(frame(b"\x01", 0))
                    end.run()

    def test_sessions_that_are_not_resumed(self) -> None:
        """A login that was refused leaves nothing behind, and a session that was cut cannot be resumed."""
        self.use(TlsMode.REQUIRED)
        context = self.context()
        for accepted in (False, True):
            client, end = self.log_in_by_tls(context, accepted)
            self.assertFalse(end.object.session_reused)
        client.wire.protocol.kill("a test")
        self.house.turn()
        _, end = self.log_in_by_tls(context)
        self.assertFalse(end.failure)

    def test_another_certificate_than_that_of_the_session(self) -> None:
        """A server whose certificate is another by now is checked anew, whatever session the proxy has to offer."""
        self.use(TlsMode.VERIFY_FULL, "127.0.0.1", self.ca)
        self.log_in_by_tls(self.context())
        other = self.authority.write(Path(self.directory.name), "elsewhere")
        client, end = self.log_in_by_tls(self.context(str(other)))
        self.house.turn()
        self.assertIn("the certificate is another host's", client.error()[1])
        client, end = self.log_in_by_tls(self.context())
        self.assertEqual((client.payloads()[0][0], end.object.session_reused), (0, False))

    def test_sessions_of_other_settings(self) -> None:
        """A session that began under other settings is not resumed: what was not verified then would not be now."""
        context = self.context()
        self.use(TlsMode.REQUIRED)
        self.log_in_by_tls(context)
        self.use(TlsMode.VERIFY_FULL, "elsewhere", self.ca)
        client, _ = self.log_in_by_tls(context)
        self.house.turn()
        self.assertIn("the certificate is another host's", client.error()[1])

    def test_password_that_is_decrypted_on_the_way(self) -> None:
        """A client without TLS gets the proxy's key, and a server with TLS the password as it wants it."""
        keys = RsaKeys()
        for good in (True, False):
            self.house = House()
            self.use(TlsMode.REQUIRED)
            self.house.use(find_password_keys=lambda: keys)
            client = self.house.connect()
            client.packets()
            client.send(response(auth_response=b"x" * 32))
            server = self.house.accept()
            can_tls(server, client=True)
            server.greet(TLS_CAPABILITIES)
            end = self.accept_tls(server)
            end.take()
            end.send(frame(AuthSwitchRequest("caching_sha2_password", b"s" * 20 + b"\0").encode(), 3))
            client.packets()
            client.send(frame(b"y" * 32, 3))
            self.assertEqual(packets(end.take())[0].payload, b"y" * 32)
            end.send(frame(b"\x01\x04", 5))
            client.packets()
            client.send(frame(b"\x02", 5))
            (packet,) = client.packets()
            self.assertEqual((packet.sequence, packet.payload), (6, b"\x01" + keys.public_key))
            self.assertEqual(end.take(), b"")
            encrypted = keys.encrypt(keys.public_key, with_nonce(b"secret\0", b"s" * 20))
            client.send(frame(encrypted if good else b"c" * 256, 7))
            if good:
                (packet,) = packets(end.take())
                self.assertEqual((packet.sequence, packet.payload), (6, b"secret\0"))
                end.send(frame(b"\0\0\0\2\0\0\0", 7))
                (packet,) = client.packets()
                self.assertEqual((packet.sequence, packet.payload[0]), (8, 0))
            else:
                self.assertEqual(client.error()[0], 1045)
                self.house.turn()
                self.assertEqual((client.wire.ended, server.wire.ended), ("closed", "aborted"))

    def test_certificate_of_the_proxy(self) -> None:
        """A server that asks for a certificate gets the proxy's, from one file or two; resumed sessions have it too."""
        certificate, key = self.authority.issue("proxy")
        paths = [Path(self.directory.name) / name for name in ("both.pem", "proxy.crt", "proxy.key")]
        for path, content in zip(paths, (certificate + key, certificate, key), strict=True):
            path.write_bytes(content)
        context = self.context()
        context.verify_mode = ssl.CERT_REQUIRED
        context.load_verify_locations(self.ca)
        for mode in (TlsMode.REQUIRED, TlsMode.VERIFY_FULL):
            for shown in ({"server_certificate": paths[0]}, {"server_certificate": paths[1], "server_key": paths[2]}):
                self.house = House()
                self.use(mode, "127.0.0.1", self.ca, **{name: str(path) for name, path in shown.items()})
                for _ in range(2):
                    client, end = self.log_in_by_tls(context)
                    self.assertEqual(client.payloads()[0][0], 0)
                    peer: Any = end.object.getpeercert()
                    self.assertEqual(peer["subject"], ((("commonName", "proxy"),),))
                    client.send(frame(b"\x01", 0))
                    end.run()
        self.house = House()
        self.use(TlsMode.REQUIRED)
        client, end = self.log_in_by_tls(context)
        self.house.turn()
        self.assertIn("certificate required", client.error()[1])

    def test_the_proxys_own_sessions(self) -> None:
        """Service sessions use TLS as well."""
        self.use(TlsMode.REQUIRED)
        sessions = ServiceSessions(self.house.registry.surroundings, Account("odp", "secret"), 2.0)

        async def question(session: Any) -> Any:
            return (await session.query("SELECT 1")).rows

        asked = sessions.ask(SERVER, question)
        server = self.house.accept()
        can_tls(server, client=True)
        server.greet(TLS_CAPABILITIES)
        end = self.accept_tls(server)
        (packet,) = packets(end.take())
        self.assertEqual((packet.sequence, parse_handshake_response(packet.payload).user), (2, "odp"))
        end.send(frame(b"\0\0\0\2\0\0\0", 3))
        self.assertEqual(end.take(), frame(b"\x03SELECT 1", 0))
        asked.cancel()
        self.failureResultOf(asked)

    def test_unix_sockets_stay_in_clear(self) -> None:
        """A server on a Unix socket is left out of TLS: nobody can read there."""
        settings = ClusterSettings("odp", (ServerSettings(Address(path="/s")),), server_tls=TlsMode.REQUIRED)
        self.assertEqual(server_tls(settings), {})


class ExplainTests(SynchronousTestCase):
    def test_connection_that_ends_while_it_is_made(self) -> None:
        """What Twisted wraps into an error of its own is told plainly."""
        lost = ConnectError(string=Failure(ConnectionLost()))  # type: ignore[arg-type]
        self.assertEqual(explain(Failure(lost)), "Connection to the other side was lost in a non-clean fashion.")
