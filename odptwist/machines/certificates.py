"""Which certificates of clients go with which users: a condition beside the password, which the server checks.

Source: RFC 5280, 4.1.2.6 (subject) and 4.2.1.6 (subject alternative names); MariaDB 10.11 and MySQL 8.0,
`parse_client_handshake_packet`, on what a server makes of a user's name before it looks it up: it converts the name
from the client's character set, and clips one that is too long.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final

from attrs import Factory, frozen

from odptwist.identity import Identity, UserName
from odptwist.wire.constants import UTF8_CHARSETS

# What reads alike in all character sets: in swe7 some punctuation is letters, in armscii8 high bytes are punctuation.
_PLAIN: Final = re.compile(r"[A-Za-z0-9_.$ -]*")
# The length to which MySQL clips a name; MariaDB has 128.
_CLIPPED_LENGTH: Final = 32


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

    def why_not(self, certificate: ClientCertificate | None, identity: Identity, charset: int | None) -> str:
        """Return why a client must not be a user; empty if it may.

        Args:
            certificate: what it has shown, or None.
            identity: who it says it is.
            charset: number of a collation of the character set in which it says so; None if it is not known.
        """
        if not self.known:
            return ""
        if charset not in UTF8_CHARSETS and not _PLAIN.fullmatch(identity.user):
            return f"its server may take its name for another in the character set of collation {charset}"
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
        _is_same(each.user, identity.user)
        and each.tenant in ("", identity.tenant)
        and each.cluster in ("", identity.cluster)
        for each in users
    )


def _is_same(known: str, said: str) -> bool:
    return known == said or (len(known) >= _CLIPPED_LENGTH and said.startswith(known))
