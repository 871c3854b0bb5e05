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
    def why_not(self, certificate: ClientCertificate | None, identity: Identity) -> str:
        """Return why not."""
        return ACCOUNTS.why_not(certificate, identity)

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
        self.assertEqual(CertificateAccounts().why_not(shown("cn:ada"), BOB), "")

    def test_tenant_and_cluster(self) -> None:
        """A user whose tenant or cluster is named is that one only."""
        root = Identity("root", "sys", "odp")
        self.assertEqual(self.why_not(shown("uri:spiffe://x/bob"), root), "")
        self.assertNotEqual(self.why_not(None, root), "")
        for other in (Identity("root", "shop", "odp"), Identity("root", "sys", "ob2")):
            self.assertEqual(self.why_not(None, other), "")
            self.assertNotEqual(self.why_not(shown("uri:spiffe://x/bob"), other), "")

    def test_kinds_are_told_apart(self) -> None:
        """A common name that reads like a name of another kind is not one."""
        self.assertNotEqual(self.why_not(shown("cn:dns:b.example", "email:ada"), BOB), "")
