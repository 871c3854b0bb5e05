"""What OpenSSL needs for TLS with clients and with servers, made from the settings.

Imported only by a proxy that uses TLS: it needs pyOpenSSL and cryptography, which come with the extra `tls`.
"""

from __future__ import annotations

import os
import socket
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path
from typing import Any, Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from OpenSSL import SSL, crypto
from twisted.internet import ssl
from twisted.internet.interfaces import IOpenSSLClientConnectionCreator
from twisted.logger import Logger
from zope.interface import implementer

from odptwist.errors import ConfigError
from odptwist.machines.certificates import ClientCertificate
from odptwist.sessions.encryption import ClientTls, ServerTls
from odptwist.settings import AUTO_CERTIFICATE, ClusterSettings, TlsSettings
from odptwist.snapshots import Address, TlsMode

_log = Logger()

_VERSIONS: Final = {"1.2": ssl.TLSVersion.TLSv1_2, "1.3": ssl.TLSVersion.TLSv1_3}
# The certificate lives as long as the process, which may run for years.
_LIFETIME: Final = timedelta(days=3650)

# Both are cryptography's; Twisted's annotations know only pyOpenSSL's own classes, which pyOpenSSL warns of.
Certificate = Any
Key = Any


def client_tls(settings: TlsSettings) -> ClientTls | None:
    """Return how TLS is offered to clients, None if it is not.

    Raises:
        ConfigError: a file cannot be read, or holds something else.
    """
    if not settings.certificate:
        return None
    if settings.certificate == AUTO_CERTIFICATE:
        chain, key = _make_certificate()
    else:
        chain = _certificates("tls.certificate", settings.certificate)
        key = _key("tls.certificate", settings.certificate, "tls.key", settings.key)
    options = ssl.CertificateOptions(
        privateKey=key,
        certificate=chain[0],
        extraCertChain=chain[1:],
        verify=bool(settings.client_ca),
        caCerts=_authorities("tls.client_ca", settings.client_ca),
        requireCertificate=settings.require_client_certificate,
        insecurelyLowerMinimumTo=_VERSIONS[settings.minimum_version],
        # Drivers connect often, and a resumed session costs no signature.
        enableSessions=True,
        enableSessionTickets=True,
    )
    _check_pair("tls.certificate", settings.certificate, options)
    return ClientTls(options, settings.require, _read_certificate)


def server_tls(cluster: ClusterSettings) -> dict[Address, ServerTls]:
    """Return how the servers of a cluster are talked to; those that are talked to in clear are left out.

    Raises:
        ConfigError: as `client_tls`.
    """
    mode = cluster.server_tls
    if mode is TlsMode.DISABLED:
        return {}
    authorities = _authorities(f"cluster {cluster.name}: server_ca", cluster.server_ca)
    more = {"enableSessions": True, "enableSessionTickets": True, **_shown_to_servers(cluster)}
    addresses = [server.address for server in cluster.servers if not server.address.path]
    required = mode is not TlsMode.PREFERRED
    return {each: ServerTls(_ResumedTls(_options(mode, each.host, authorities, more)), required) for each in addresses}


def _options(mode: TlsMode, host: str, authorities: list[crypto.X509] | None, more: dict[str, Any]) -> Any:
    if mode is TlsMode.VERIFY_FULL:
        known = ssl.trustRootFromCertificates([ssl.Certificate(each) for each in authorities or ()])
        return ssl.optionsForClientTLS(host, known, extraCertificateOptions=more)
    return ssl.CertificateOptions(verify=mode is TlsMode.VERIFY_CA, caCerts=authorities, **more)


def _shown_to_servers(cluster: ClusterSettings) -> dict[str, Any]:
    """Return the certificate that the proxy shows to the servers of a cluster, as Twisted's options; none if none."""
    if not cluster.server_certificate:
        return {}
    setting, path = f"cluster {cluster.name}: server_certificate", cluster.server_certificate
    chain = _certificates(setting, path)
    key = _key(setting, path, f"cluster {cluster.name}: server_key", cluster.server_key)
    shown = {"privateKey": key, "certificate": chain[0], "extraCertChain": chain[1:]}
    _check_pair(setting, path, ssl.CertificateOptions(**shown))
    return shown


@implementer(IOpenSSLClientConnectionCreator)
class _ResumedTls:
    """Makes connections to one server, each of which goes on with the TLS session of the last that logged in.

    A server that goes on with a session shows no certificate: it proves that it is the one that was checked when the
    session began. So no two servers and no two ways to check may share one of these.
    """

    def __init__(self, options: Any) -> None:
        self._options = options
        self._session: SSL.Session | None = None

    def clientConnectionForTLS(self, protocol: Any) -> SSL.Connection:
        """Return a connection, as Twisted wants it."""
        connection: SSL.Connection = self._options.clientConnectionForTLS(protocol)
        if self._session is not None:
            connection.set_session(self._session)
        return connection

    def keep_session(self, connection: SSL.Connection) -> None:
        """Let the next connection go on with the session of this one, whose handshake was good."""
        self._session = connection.get_session()


def _read_certificate(connection: SSL.Connection) -> ClientCertificate | None:
    shown = connection.get_peer_certificate()
    if shown is None:
        return None
    certificate = shown.to_cryptography()
    common = certificate.subject.get_attributes_for_oid(x509.NameOID.COMMON_NAME)
    names = [f"cn:{_text(each.value)}" for each in common]
    try:
        others = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except (x509.ExtensionNotFound, ValueError):  # none, or nothing that can be read
        others = x509.SubjectAlternativeName(())
    names += [f"dns:{each.lower()}" for each in others.get_values_for_type(x509.DNSName)]
    names += [f"email:{each}" for each in others.get_values_for_type(x509.RFC822Name)]
    names += [f"uri:{each}" for each in others.get_values_for_type(x509.UniformResourceIdentifier)]
    return ClientCertificate(certificate.subject.rfc4514_string(), frozenset(names))


def _text(value: str | bytes) -> str:
    return value if isinstance(value, str) else value.decode("latin-1")


def _check_pair(setting: str, path: str, options: ssl.CertificateOptions) -> None:
    try:
        options.getContext()
    except SSL.Error as fault:
        raise ConfigError(f"{setting}: {path}: {_words(fault)}") from None


def _certificates(setting: str, path: str) -> list[Certificate]:
    try:
        return [*x509.load_pem_x509_certificates(_read(setting, path))]
    except ValueError:
        raise ConfigError(f"{setting}: {path}: has no certificate in PEM format") from None


def _authorities(setting: str, path: str) -> list[crypto.X509] | None:
    return [crypto.X509.from_cryptography(each) for each in _certificates(setting, path)] if path else None


def _key(certificate_setting: str, certificate_path: str, key_setting: str, key_path: str) -> Key:
    """Return the key of a certificate; it is in the same file if it has none of its own."""
    setting, path = (key_setting, key_path) if key_path else (certificate_setting, certificate_path)
    try:
        return serialization.load_pem_private_key(_read(setting, path), None)
    except TypeError:
        raise ConfigError(f"{setting}: {path}: its key has a password, which nobody is there to type") from None
    except ValueError:
        raise ConfigError(f"{setting}: {path}: has no key in PEM format") from None


def _read(setting: str, path: str) -> bytes:
    try:
        return Path(path).read_bytes()
    except OSError as fault:
        raise ConfigError(f"{setting}: {path}: {os.strerror(fault.errno or 0)}") from None


def _make_certificate() -> tuple[list[Certificate], Key]:
    """Return a new certificate for this machine, signed by itself, and its key; the log has its fingerprint."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "odptwist")])
    hosts = dict.fromkeys(("localhost", socket.gethostname()))
    names: list[x509.GeneralName] = [x509.DNSName(each) for each in hosts if each.isascii()]
    names += [x509.IPAddress(ip_address(each)) for each in ("127.0.0.1", "::1")]
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))  # clocks differ
        .not_valid_after(now + _LIFETIME)
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )
    _log.info(
        "TLS with a certificate of the proxy's own until it stops; its SHA-256 fingerprint: {fingerprint}",
        fingerprint=certificate.fingerprint(hashes.SHA256()).hex(":"),
    )
    return [certificate], key


def _words(fault: SSL.Error) -> str:
    queue = fault.args[0] if fault.args else ()
    return str(queue[-1][-1]) if queue else "OpenSSL does not take it"
