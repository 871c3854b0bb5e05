"""Certificates for tests: an authority, and what it signs."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, text)])


class Authority:
    """Signs certificates.

    Attributes:
        pem: its own certificate.
    """

    def __init__(self, name: str = "tests") -> None:
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = _name(name)
        self.pem = self._sign(self._name, self._key.public_key(), x509.BasicConstraints(True, None), [])

    def _sign(
        self,
        name: x509.Name,
        key: ec.EllipticCurvePublicKey,
        constraints: x509.BasicConstraints,
        names: list[x509.GeneralName],
    ) -> bytes:
        now = datetime.now(UTC)
        builder = (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(self._name)
            .public_key(key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(days=1))
            .not_valid_after(now + timedelta(days=30))
            .add_extension(constraints, critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key()), critical=False)
        )
        if names:
            builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
        return builder.sign(self._key, hashes.SHA256()).public_bytes(Encoding.PEM)

    def issue(self, *hosts: str) -> tuple[bytes, bytes]:
        """Return a certificate for hosts, addresses, `email:...` and `uri:...`, and its key, in PEM format.

        The first of them is the common name, too.
        """
        key = ec.generate_private_key(ec.SECP256R1())
        names: list[x509.GeneralName] = []
        for host in hosts:
            if host.startswith("email:"):
                names.append(x509.RFC822Name(host.removeprefix("email:")))
            elif host.startswith("uri:"):
                names.append(x509.UniformResourceIdentifier(host.removeprefix("uri:")))
            else:
                try:
                    names.append(x509.IPAddress(ip_address(host)))
                except ValueError:
                    names.append(x509.DNSName(host))
        certificate = self._sign(_name(hosts[0]), key.public_key(), x509.BasicConstraints(False, None), names)
        return certificate, key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())

    def write(self, directory: Path, *hosts: str) -> Path:
        """Write a certificate and its key into one file of a directory, and return its path."""
        path = directory / f"{hosts[0]}.pem"
        path.write_bytes(b"".join(self.issue(*hosts)))
        return path

    def write_own(self, directory: Path) -> Path:
        """Write its own certificate into a file of a directory, and return its path."""
        path = directory / "ca.pem"
        path.write_bytes(self.pem)
        return path
