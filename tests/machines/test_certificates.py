from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from odptwist.identity import Identity, UserName
from odptwist.machines.certificates import CertificateAccount, CertificateAccounts, ClientCertificate

ADA = Identity("ada", "sys", "odp")
BOB = Identity("bob", "sys", "odp")
EVE = Identity("eve", "sys", "odp")
ACCOUNTS = CertificateAccounts(
    (
        CertificateAccount("cn:ada", frozenset((UserName("ada"),))),
        CertificateAccount("uri:spiffe://x/bob", frozenset((UserName("bob", "sys"), UserName("root", "sys", "odp")))),
        CertificateAccount("dns:b.example", frozenset((UserName("bob"),))),
    )
)


def shown(*names: str) -> ClientCertificate:
    """Return a certificate with names."""
    return ClientCertificate("CN=x", frozenset(names))


class CertificateAccountsTests(SynchronousTestCase):
    def why_not(self, certificate: ClientCertificate | None, identity: Identity, charset: int | None = 45) -> str:
        """Return why not."""
        return ACCOUNTS.why_not(certificate, identity, charset)

    def test_who_is_bound_to_a_certificate(self) -> None:
        """A user of the list needs one of its certificates, and any of them will do."""
        self.assertEqual(self.why_not(shown("cn:ada", "dns:other"), ADA), "")
        self.assertEqual(self.why_not(shown("uri:spiffe://x/bob"), BOB), "")
        self.assertEqual(self.why_not(shown("dns:b.example"), BOB), "")
        self.assertEqual(self.why_not(None, ADA), "it has shown no certificate")
        self.assertEqual(self.why_not(shown("cn:eve"), ADA), "its certificate is for nobody")

    def test_what_a_certificate_binds_to(self) -> None:
        """Who shows a certificate of the list may log in as its users only, be the other one bound or not."""
        self.assertEqual(self.why_not(shown("cn:ada"), BOB), "its certificate is for others: cn:ada")
        self.assertEqual(self.why_not(shown("cn:ada"), EVE), "its certificate is for others: cn:ada")
        self.assertEqual(self.why_not(shown("cn:ada", "dns:b.example"), BOB), "")

    def test_all_others(self) -> None:
        """Who is not in the list, and shows no certificate of it, is not its business."""
        self.assertEqual(self.why_not(None, EVE), "")
        self.assertEqual(self.why_not(shown("cn:eve"), EVE), "")
        self.assertEqual(CertificateAccounts().why_not(shown("cn:ada"), BOB, 45), "")

    def test_tenant_and_cluster(self) -> None:
        """A user whose tenant or cluster is named is that one only."""
        root = Identity("root", "sys", "odp")
        self.assertEqual(self.why_not(shown("uri:spiffe://x/bob"), root), "")
        self.assertNotEqual(self.why_not(None, root), "")
        for other in (Identity("root", "shop", "odp"), Identity("root", "sys", "ob2")):
            self.assertEqual(self.why_not(None, other), "")
            self.assertNotEqual(self.why_not(shown("uri:spiffe://x/bob"), other), "")

    def test_names_that_a_server_may_read_otherwise(self) -> None:
        """A name that another character set may make a bound user's is refused; MariaDB reads 0xAC of armscii8 as -."""
        for user in ("app\udcacx", "j|", "jö"):
            stranger = Identity(user, "sys", "odp")
            for charset in (32, 10, 8, None):
                self.assertIn("character set", self.why_not(None, stranger, charset))
                self.assertEqual(CertificateAccounts().why_not(None, stranger, charset), "")
            self.assertEqual(self.why_not(None, stranger, 255), "")
        self.assertEqual(self.why_not(None, Identity("app-x_1.y", "sys", "odp"), 8), "")

    def test_names_that_a_server_clips(self) -> None:
        """A bound user's name with more behind it is that user's, where servers clip it: at 32 or 128 characters."""
        for size, same in ((8, False), (32, True), (128, True)):
            accounts = CertificateAccounts((CertificateAccount("cn:n", frozenset((UserName("n" * size),))),))
            longer = Identity("n" * size + "x", "sys", "odp")
            self.assertEqual(accounts.why_not(None, longer, 45) != "", same)

    def test_kinds_are_told_apart(self) -> None:
        """A common name that reads like a name of another kind is not one."""
        self.assertNotEqual(self.why_not(shown("cn:dns:b.example", "email:ada"), BOB), "")
