"""The matrix of who may see and kill whom."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from odptwist.access import Grant, TenantAccessPolicy
from odptwist.identity import Identity
from odptwist.interfaces import IAccessPolicy
from odptwist.snapshots import Asker, Decision, Privileges, Verb

OWN_ID = 3
OTHER_ID = 7

ASKERS = {
    "user": Identity("app", "shop", "ob1"),
    "sys": Identity("app", "sys", "ob1"),
}
PRIVILEGES = {
    "unasked": None,
    "none": Privileges.NONE,
    "process": Privileges.PROCESS,
    "super": Privileges.SUPER,
    "both": Privileges.PROCESS | Privileges.SUPER,
}
TARGETS: dict[str, dict[str, Identity | None]] = {
    "same user": {"user": Identity("app", "shop", "ob1"), "sys": Identity("app", "sys", "ob1")},
    "other user": {"user": Identity("boss", "shop", "ob1"), "sys": Identity("boss", "sys", "ob1")},
    "other tenant": {"user": Identity("app", "bank", "ob1"), "sys": Identity("app", "bank", "ob1")},
    "tenant sys": {"user": Identity("app", "sys", "ob1"), "sys": Identity("boss", "sys", "ob1")},
    "other cluster": {"user": Identity("app", "shop", "ob2"), "sys": Identity("app", "sys", "ob2")},
    "nobody yet": {"user": None, "sys": None},
}

# A allowed, D denied (1095), - invisible (1094), ? the privileges must be asked for.
# Each cell has the verbs SEE, KILL, KILL_QUERY, KILL_SERVER_SESSION in this order.
LETTERS = {"A": Decision.ALLOWED, "D": Decision.DENIED, "-": Decision.INVISIBLE, "?": Decision.NEEDS_PRIVILEGES}
VERBS = (Verb.SEE, Verb.KILL, Verb.KILL_QUERY, Verb.KILL_SERVER_SESSION)
MATRIX = """
asker | target        | unasked | none | process | super | both
user  | itself        | AAAA    | AAAA | AAAA    | AAAA  | AAAA
user  | same user     | AAAA    | AAAA | AAAA    | AAAA  | AAAA
user  | other user    | ????    | ---- | ADDD    | AAAA  | AAAA
user  | other tenant  | ----    | ---- | ----    | ----  | ----
user  | tenant sys    | ----    | ---- | ----    | ----  | ----
user  | other cluster | ----    | ---- | ----    | ----  | ----
user  | nobody yet    | ----    | ---- | ----    | ----  | ----
sys   | itself        | AAAA    | AAAA | AAAA    | AAAA  | AAAA
sys   | same user     | AAAA    | AAAA | AAAA    | AAAA  | AAAA
sys   | other user    | ????    | ---- | ADDD    | AAAA  | AAAA
sys   | other tenant  | ????    | ---- | ADDD    | AAAA  | AAAA
sys   | tenant sys    | ????    | ---- | ADDD    | AAAA  | AAAA
sys   | other cluster | ----    | ---- | ----    | ----  | ----
sys   | nobody yet    | ????    | ---- | ADDD    | AAAA  | AAAA
"""


class TenantAccessPolicyTests(SynchronousTestCase):
    def test_it_provides_its_interface(self) -> None:
        """The policy is an access policy."""
        self.assertTrue(verifyObject(IAccessPolicy, TenantAccessPolicy()))

    def test_every_cell_of_the_matrix(self) -> None:
        """Every role gets for every verb and target what the matrix says."""
        policy = TenantAccessPolicy()
        header, *lines = [[cell.strip() for cell in line.split("|")] for line in MATRIX.strip().splitlines()]
        checked = 0
        for role, target, *cells in lines:
            for privileges, letters in zip(header[2:], cells, strict=True):
                asker = Asker(OWN_ID, ASKERS[role], PRIVILEGES[privileges])
                itself = target == "itself"
                owner = asker.identity if itself else TARGETS[target][role]
                for verb, letter in zip(VERBS, letters, strict=True):
                    decision = policy.decide(asker, verb, OWN_ID if itself else OTHER_ID, owner)
                    self.assertIs(decision, LETTERS[letter], (role, target, privileges, verb))
                    checked += 1
        self.assertEqual(checked, 2 * (1 + len(TARGETS)) * len(PRIVILEGES) * len(VERBS))

    def test_servers_are_for_privileged_users_of_tenant_sys(self) -> None:
        """PROCESS or SUPER shows the servers to users of tenant sys, and to nobody else."""
        table = [("sys", None, "?"), ("sys", Privileges.NONE, "-")]
        table += [("sys", Privileges.PROCESS, "A"), ("sys", Privileges.SUPER, "A")]
        table += [("user", privileges, "-") for privileges in PRIVILEGES.values()]
        for role, privileges, letter in table:
            asker = Asker(OWN_ID, ASKERS[role], privileges)
            decision = TenantAccessPolicy().decide(asker, Verb.SEE_PROXY, 0, None)
            self.assertIs(decision, LETTERS[letter], (role, privileges))

    def test_settings_are_for_those_with_super_in_tenant_sys(self) -> None:
        """PROCESS shows them, and does not change them."""
        table = [("sys", None, "?"), ("sys", Privileges.NONE, "-")]
        table += [("sys", Privileges.PROCESS, "D"), ("sys", Privileges.SUPER, "A")]
        table += [("user", privileges, "-") for privileges in PRIVILEGES.values()]
        for role, privileges, letter in table:
            asker = Asker(OWN_ID, ASKERS[role], privileges)
            decision = TenantAccessPolicy().decide(asker, Verb.CHANGE_PROXY, 0, None)
            self.assertIs(decision, LETTERS[letter], (role, privileges))
        for user, letter in (("root", "A"), ("inspector", "D")):
            own = Asker(OWN_ID, Identity(user, "proxysys", "ob1"))
            self.assertIs(TenantAccessPolicy().decide(own, Verb.CHANGE_PROXY, 0, None), LETTERS[letter])

    def test_ones_own_session_is_known_by_its_number(self) -> None:
        """A session is its own even before it has said who it is, and after it has become somebody else."""
        for owner in (None, Identity("boss", "bank", "ob2")):
            for verb in Verb:
                decision = TenantAccessPolicy().decide(Asker(OWN_ID, ASKERS["user"]), verb, OWN_ID, owner)
                self.assertIs(decision, Decision.ALLOWED)

    def test_names_are_compared_exactly(self) -> None:
        """Another spelling is another user, tenant or cluster; only `sys` is the cluster's tenant."""
        asker = Asker(OWN_ID, ASKERS["user"], Privileges.NONE)
        for owner in (Identity("App", "shop", "ob1"), Identity("app", "Shop", "ob1"), Identity("app", "shop", "OB1")):
            self.assertIs(TenantAccessPolicy().decide(asker, Verb.KILL, OTHER_ID, owner), Decision.INVISIBLE)
        shouting = Asker(OWN_ID, Identity("app", "SYS", "ob1"), Privileges.SUPER)
        self.assertIs(
            TenantAccessPolicy().decide(shouting, Verb.SEE, OTHER_ID, Identity("app", "shop", "ob1")),
            Decision.INVISIBLE,
        )

    def test_accounts_of_the_proxy(self) -> None:
        """root@proxysys may everything, the inspector sees everything; no other user of the tenant may anything."""
        letters = {"root": "AAAA", "inspector": "ADDD", "x": "----"}
        for user, row in letters.items():
            asker = Asker(OWN_ID, Identity(user, "proxysys", "ob1"))
            for owner in (None, Identity("app", "shop", "ob1"), Identity("app", "shop", "ob2")):
                for verb, letter in zip(VERBS, row, strict=True):
                    decision = TenantAccessPolicy().decide(asker, verb, OTHER_ID, owner)
                    self.assertIs(decision, LETTERS[letter], (user, verb))
            decision = TenantAccessPolicy().decide(asker, Verb.SEE_PROXY, 0, None)
            self.assertIs(decision, LETTERS[row[0]], user)
        user = Asker(OWN_ID, Identity("root", "sys", "ob1"), Privileges.NONE)
        self.assertIs(
            TenantAccessPolicy().decide(user, Verb.SEE, OTHER_ID, Identity("root", "proxysys", "ob1")),
            Decision.INVISIBLE,
        )

    def test_grants_of_the_settings(self) -> None:
        """They add to what the server grants, for the users that they name; where they suffice, nobody is asked."""
        other = Identity("boss", "shop", "ob1")
        see, kill = Verb.SEE, Verb.KILL
        table = [
            (Grant("app", None, None, Privileges.PROCESS), None, see, "A"),
            (Grant("app", None, None, Privileges.PROCESS), None, kill, "?"),
            (Grant("app", "shop", "ob1", Privileges.PROCESS), Privileges.NONE, kill, "D"),
            (Grant("app", "shop", None, Privileges.PROCESS), Privileges.SUPER, kill, "A"),
            (Grant("app", None, "ob1", Privileges.SUPER), None, kill, "A"),
            (Grant("app", "sys", None, Privileges.SUPER), Privileges.NONE, kill, "-"),
            (Grant("app", None, "ob2", Privileges.SUPER), Privileges.NONE, see, "-"),
            (Grant("App", None, None, Privileges.SUPER), None, see, "?"),
        ]
        for grant, privileges, verb, letter in table:
            asker = Asker(OWN_ID, ASKERS["user"], privileges)
            self.assertIs(TenantAccessPolicy([grant]).decide(asker, verb, OTHER_ID, other), LETTERS[letter], grant)
        far = Identity("boss", "bank", "ob1")
        policy = TenantAccessPolicy([Grant("app", None, None, Privileges.SUPER)])
        self.assertIs(policy.decide(Asker(OWN_ID, ASKERS["user"]), see, OTHER_ID, far), Decision.INVISIBLE)
