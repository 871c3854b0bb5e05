"""Which certificates of clients go with which users: a condition beside the password, which the server checks.

Source: RFC 5280, 4.1.2.6 (subject) and 4.2.1.6 (subject alternative names).
"""

from __future__ import annotations

from collections.abc import Iterable

from attrs import Factory, frozen

from odptwist.identity import Identity, UserName


@frozen
class ClientCertificate:
    """What a client has shown, and OpenSSL has found good.

    Attributes:
        subject: as RFC 4514 writes it.
        names: all that it is for, such as `cn:app` or `dns:app.example.com`; those of hosts in small letters, for they
            are compared without regard to case (RFC 4343).
    """

    subject: str
    names: frozenset[str]


@frozen
class CertificateAccount:
    """A name in a certificate, and the users that whoever has it may log in as."""

    name: str
    users: frozenset[UserName]


@frozen
class CertificateAccounts:
    """All of them. A name may be there several times, and so may a user."""

    known: tuple[CertificateAccount, ...] = Factory(tuple)

    def why_not(self, certificate: ClientCertificate | None, identity: Identity) -> str:
        """Return why a client with this certificate (None: without one) must not be a user; empty if it may."""
        names = certificate.names if certificate is not None else frozenset()
        shown = [each for each in self.known if each.name in names]
        if any(_names(each.users, identity) for each in shown):
            return ""
        if shown:
            return f"its certificate is for others: {shown[0].name}"
        if any(_names(each.users, identity) for each in self.known):
            return "its certificate is for nobody" if certificate is not None else "it has shown no certificate"
        return ""


def _names(users: Iterable[UserName], identity: Identity) -> bool:
    return any(
        each.user == identity.user and each.tenant in ("", identity.tenant) and each.cluster in ("", identity.cluster)
        for each in users
    )
