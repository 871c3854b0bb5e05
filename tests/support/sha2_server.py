"""What a MySQL 8 server does to check a password, written from its documentation: no such server could be had.

Source: https://dev.mysql.com/doc/dev/mysql-server/latest/page_caching_sha2_authentication_exchanges.html,
https://dev.mysql.com/doc/refman/8.4/en/caching-sha2-pluggable-authentication.html,
https://dev.mysql.com/doc/refman/8.4/en/sha256-pluggable-authentication.html,
https://dev.mysql.com/doc/refman/8.4/en/multifactor-authentication.html,
https://mariadb.com/kb/en/authentication-plugin-pam/ (dialog, which is MariaDB's)

A server keeps no password but a slow hash of it, which stands here as itself. After one full authentication it has
SHA256(SHA256(password)) in its cache, too. `MySql8` is the login as a machine, `MySql8Server` a program's worth of
sockets around it, each connection in a thread.
"""

from __future__ import annotations

import os
import socket
import ssl
import struct
import threading
from collections.abc import Sequence
from functools import cache
from hashlib import sha256
from pathlib import Path

from attrs import define, field, frozen
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa

from odptwist.machines.server_login import FALLBACK
from odptwist.wire.constants import CLIENT_SSL, MULTI_FACTOR_AUTHENTICATION
from odptwist.wire.handshake import Greeting, is_ssl_request, parse_handshake_response
from odptwist.wire.responses import Eof, Err, Ok
from odptwist.wire.resultset import ColumnDefinition, encode_text_row

CACHING, SHA256, CLEAR = "caching_sha2_password", "sha256_password", "mysql_clear_password"
DIALOG = "dialog"
# Questions and answers of a PAM stack after the password, as MariaDB's plugin sends them.
PAM = ((b"\x02Colour: ", b"red\0"), (b"\x05One-time code: ", b"123456\0"))
DENIED = Err(1045, "28000", "Access denied for user").encode()
OK = Ok(status=2).encode(0)


@cache
def server_key() -> rsa.RSAPrivateKey:
    """Return the key pair of all servers here."""
    return rsa.generate_private_key(65537, 2048)


@frozen
class Account:
    """How a user proves who it is: by one or more plugins, each with a password."""

    user: str
    factors: tuple[tuple[str, bytes], ...]


@define
class MySql8:
    """One login, from the handshake response on.

    Attributes:
        cached: the users of whom the server has seen the password; all logins share it.
        refused: whether it is over.
    """

    account: Account
    secure: bool
    cached: set[str]
    has_key: bool = True
    nonce: bytes = field(factory=lambda: bytes(each % 94 + 33 for each in os.urandom(20)))
    refused: bool = False
    _factor: int = 0
    _stage: str = "first"
    _answered: int = 0

    def begin(self, plugin: str | None, multi_factor: bool) -> list[bytes]:
        """Return what follows the handshake response of a client that named a plugin."""
        if len(self.account.factors) > 1 and not multi_factor:
            return self._deny()
        if plugin == self._plugin:
            raise AssertionError("the proxy asks by the account's own plugin without a switch")
        return [b"\xfe" + self._question()]

    def receive(self, payload: bytes) -> list[bytes]:
        """Return what follows a packet of the client's."""
        plugin, password = self.account.factors[self._factor]
        if plugin == CLEAR:
            return self._pass() if payload == password + b"\0" else self._deny()
        if plugin == DIALOG:
            return self._dialog(payload, password)
        if plugin == SHA256:
            return self._whole(payload, password, b"\x01")
        if self._stage == "first":
            if payload in (b"", b"\0"):
                return self._deny() if password else self._pass()
            if self.account.user in self.cached:
                return [b"\x01\x03", *self._pass()] if self._is_scramble(payload, password) else self._deny()
            self._stage = "full"
            return [b"\x01\x04"]
        return self._whole(payload, password, b"\x02")

    @property
    def _plugin(self) -> str:
        return self.account.factors[self._factor][0]

    def _question(self) -> bytes:
        data = b"\x04Password: " if self._plugin == DIALOG else self.nonce + b"\0"
        return self._plugin.encode() + b"\0" + data

    def _dialog(self, payload: bytes, password: bytes) -> list[bytes]:
        answers = (password + b"\0", *(answer for _, answer in PAM))
        if payload != answers[self._answered]:
            return self._deny()
        self._answered += 1
        return [PAM[self._answered - 1][0]] if self._answered <= len(PAM) else self._pass()

    def _whole(self, payload: bytes, password: bytes, key_request: bytes) -> list[bytes]:
        if not self.secure:
            if payload == key_request:
                pem = (
                    server_key()
                    .public_key()
                    .public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
                )
                return [b"\x01" + pem] if self.has_key else self._deny()
            if len(payload) != 256:  # of the key; also a password in clear ends here
                return self._deny()
            oaep = padding.OAEP(padding.MGF1(hashes.SHA1()), hashes.SHA1(), None)
            try:
                text = server_key().decrypt(payload, oaep)
            except ValueError:
                return self._deny()
            payload = bytes(each ^ self.nonce[place % 20] for place, each in enumerate(text))
        if payload != password + b"\0":
            return self._deny()
        self.cached.add(self.account.user)
        return self._pass()

    def _is_scramble(self, payload: bytes, password: bytes) -> bool:
        kept = sha256(sha256(password).digest()).digest()
        pad = sha256(kept + self.nonce).digest()
        return len(payload) == 32 and sha256(bytes(a ^ b for a, b in zip(payload, pad, strict=True))).digest() == kept

    def _pass(self) -> list[bytes]:
        self._factor += 1
        self._stage = "first"
        if self._factor == len(self.account.factors):
            return [OK]
        return [b"\x02" + self._question()]

    def _deny(self) -> list[bytes]:
        self.refused = True
        return [DENIED]


class MySql8Server:
    """Listens on loopback, with TLS where there is a certificate, or on a Unix socket.

    Attributes:
        address: as the settings spell it.
        cached: as in `MySql8`.
        in_clear: all that came over links that are not secure.
    """

    def __init__(
        self, accounts: Sequence[Account], certificate: Path | None = None, path: Path | None = None, key: bool = True
    ) -> None:
        self._accounts = {each.user: each for each in accounts}
        self._context: ssl.SSLContext | None = None
        if certificate is not None:
            self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            self._context.load_cert_chain(certificate)
        self._key = key
        self._local = path is not None
        self._listener = socket.socket(socket.AF_UNIX if path is not None else socket.AF_INET)
        self._listener.bind(str(path) if path is not None else ("127.0.0.1", 0))
        self._listener.listen(64)
        self.address = f"unix:{path}" if path is not None else f"127.0.0.1:{self._listener.getsockname()[1]}"
        self.cached: set[str] = set()
        self.in_clear = bytearray()
        threading.Thread(target=self._listen, daemon=True).start()

    def stop(self) -> None:
        """Take no more connections."""
        self._listener.close()

    def _listen(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        try:
            _Connection(connection, self).run()
        except (OSError, EOFError):
            pass
        finally:
            connection.close()


class _Connection:
    """One connection; blocking."""

    def __init__(self, connection: socket.socket, server: MySql8Server) -> None:
        self._socket = connection
        self._server = server
        self._sequence = 0
        self._encrypted = False

    def run(self) -> None:
        server = self._server
        tls = CLIENT_SSL if server._context is not None else 0
        greeting = Greeting(
            server_version="8.4.99-scripted",
            thread_id=threading.get_native_id() & 0x7FFFFFFF,
            salt=b"12345678901234567890",
            capabilities=FALLBACK | MULTI_FACTOR_AUTHENTICATION | tls,
            mariadb_capabilities=0,
            charset=45,
            status=2,
            plugin=CACHING,
        )
        self._send([greeting.encode()])
        payload = self._read()
        if server._context is not None and is_ssl_request(payload):
            self._socket = server._context.wrap_socket(self._socket, server_side=True)
            self._encrypted = True
            payload = self._read()
        response = parse_handshake_response(payload)
        account = server._accounts.get(response.user)
        if account is None:
            self._send([DENIED])
            return
        login = MySql8(account, self._encrypted or server._local, server.cached, server._key)
        answer = login.begin(response.plugin, bool(response.capabilities & MULTI_FACTOR_AUTHENTICATION))
        self._send(answer)
        while answer[-1] != OK and not login.refused:
            answer = login.receive(self._read())
            self._send(answer)
        while not login.refused:
            self._sequence = 0
            command = self._read()
            if command[:1] == b"\x01":
                return
            self._send(_row(b"1") if command[:7].upper() == b"\x03SELECT" else [OK])

    def _read(self) -> bytes:
        header = self._take(4)
        payload = self._take(int.from_bytes(header[:3], "little"))
        self._sequence = (header[3] + 1) & 0xFF
        return payload

    def _take(self, size: int) -> bytes:
        taken = b""
        while len(taken) < size:
            chunk = self._socket.recv(size - len(taken))
            if not chunk:
                raise EOFError
            taken += chunk
        if not (self._encrypted or self._server._local):
            self._server.in_clear += taken
        return taken

    def _send(self, payloads: Sequence[bytes]) -> None:
        for payload in payloads:
            self._socket.sendall(struct.pack("<I", len(payload))[:3] + bytes((self._sequence,)) + payload)
            self._sequence = (self._sequence + 1) & 0xFF


def _row(value: bytes) -> list[bytes]:
    column = ColumnDefinition("def", "", "", "", "1", "1", 45, 1, 8, 0, 0)
    end = Eof(0, 2).encode()
    return [b"\x01", column.encode(), end, encode_text_row([value]), end]
