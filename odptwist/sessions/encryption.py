"""TLS as sessions use it: in-band, after an SSLRequest, on a transport that is connected already.

What OpenSSL needs is made by `odptwist.tls`, which only a proxy with TLS imports.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from attrs import frozen
from twisted.internet.error import ConnectError
from twisted.internet.main import CONNECTION_DONE
from twisted.python.failure import Failure

from odptwist.machines.certificates import ClientCertificate

# Reasons in OpenSSL's own words that nobody understands.
_WORDS = {
    "unexpected eof while reading": "the peer closed the connection",
    "http request": "the peer speaks no TLS",
    "wrong version number": "the peer speaks no TLS",
}

_DONE = str(CONNECTION_DONE)


@frozen
class ClientTls:
    """TLS with clients.

    Attributes:
        options: what `startTLS` takes.
        required: whether clients must use it, but for those on a Unix socket.
        read: returns the certificate that a client has shown to an OpenSSL connection, None if it has not.
    """

    options: Any
    required: bool = False
    read: Callable[[Any], ClientCertificate | None] = lambda connection: None

    def certificate(self, transport: Any) -> ClientCertificate | None:
        """Return what a client has shown on a transport whose handshake is over; None if nothing."""
        return self.read(transport.getHandle())


@frozen
class ServerTls:
    """TLS with a server.

    Attributes:
        options: what `startTLS` takes; its `keep_session` is told of OpenSSL's connections that are logged in.
        required: whether a server that does not offer it is left alone; else it is talked to in clear.
    """

    options: Any
    required: bool = True

    def keep_session(self, transport: Any) -> None:
        """Let the next connection resume the TLS session of a transport on which the proxy has just logged in.

        Not earlier: by TLS 1.3 what it takes comes after the handshake. Not later: a session that ends without a
        farewell cannot be resumed.
        """
        self.options.keep_session(transport.getHandle())


def begin_tls(transport: Any, options: Any, early: bytes = b"") -> None:
    """Encrypt all that is written from now on, and decrypt what comes.

    Args:
        transport: connected; its protocol stays the same.
        options: of `ClientTls` or `ServerTls`.
        early: the first bytes of the peer's handshake, if they have come already.
    """
    transport.startTLS(options)
    if early:
        transport.protocol.dataReceived(early)


def cipher_of(transport: Any) -> str:
    """Return what a transport whose handshake is over uses, such as `TLSv1.3 TLS_AES_256_GCM_SHA384`."""
    connection = transport.getHandle()
    return f"{connection.get_protocol_version_name()} {connection.get_cipher_name()}"


def explain(reason: Failure) -> str:
    """Return in words why a connection ended; failures of OpenSSL are lists of tuples."""
    fault = reason.value
    if fault is CONNECTION_DONE:
        return _DONE  # how nearly all end; its words are looked for in a docstring each time
    if isinstance(fault, ConnectError) and fault.args and isinstance(fault.args[0], Failure):
        return explain(fault.args[0])  # a connection that ended while it was made
    kind = type(fault)
    if kind.__module__.startswith("service_identity"):
        return "TLS: the certificate is another host's"
    if not kind.__module__.startswith("OpenSSL"):
        return reason.getErrorMessage()
    queue = getattr(fault, "args", ((),))[0]
    said = queue[-1][-1] if isinstance(queue, list) and queue else str(fault)
    return f"TLS: {_WORDS.get(said, said)}"
