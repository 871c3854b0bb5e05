"""What servers are asked about privileges, and what they tell unasked."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from odptwist.access import Grant, TenantAccessPolicy
from odptwist.sessions.grants import told_privileges
from odptwist.snapshots import Privileges
from odptwist.wire import constants as c
from odptwist.wire.framing import frame
from odptwist.wire.responses import Ok, OtherChange, SchemaChanged, VariableChanged
from tests.support.house import CAPABILITIES, ClientPeer, House, ServerPeer, response

GRANTS = b"\x03SHOW GRANTS"
ABSENT = 999


class ToldPrivilegesTests(SynchronousTestCase):
    def test_bits(self) -> None:
        """OceanBase's variable has SUPER in bit 14 and PROCESS in bit 15."""
        both = Privileges.SUPER | Privileges.PROCESS
        table = [("0", Privileges.NONE), ("16384", Privileges.SUPER), ("32768", Privileges.PROCESS), ("65534", both)]
        for value, privileges in table:
            changes = (SchemaChanged("x"), VariableChanged("ob_proxy_user_privilege", value))
            self.assertEqual(told_privileges(Ok(changes=changes)), privileges)

    def test_nothing_told(self) -> None:
        """A server that tells nothing, or nothing that can be read, has to be asked."""
        for changes in (
            (),
            (VariableChanged("autocommit", "ON"),),
            (VariableChanged("ob_proxy_user_privilege", ""),),
            (VariableChanged("ob_proxy_user_privilege", "-1"),),
            (OtherChange(2, b"1"),),
        ):
            self.assertIsNone(told_privileges(Ok(changes=changes)))


class QuestionsTests(SynchronousTestCase):
    """Each test has a fresh asker `a`, whose server has been asked nothing yet."""

    def setUp(self) -> None:
        """Make a proxy with sessions of all kinds."""
        self.house = House()
        self.asker, self.server = self.house.log_in("a")
        others = [self.house.log_in(user)[0] for user in ("a", "b")]
        self.same, self.other = (client.wire.protocol.cs_id for client in others)
        stranger = self.house.log_in("a")[0].wire.protocol
        stranger.identity = type(stranger.identity)("a", "else", "odp")
        self.foreign = stranger.cs_id
        self.nobody = self.house.connect().wire.protocol.cs_id
        self.server.payloads()

    def questions(self, statement: str, grants: bytes = b"GRANT USAGE ON *.* TO a") -> tuple[int, list[bytes]]:
        """Return how often the server was asked over a statement, and what the client was answered."""
        self.asker.query(statement.encode())
        asked = 0
        while self.server.payloads() == [GRANTS]:
            asked += 1
            self.server.row(grants)
        self.house.turn()
        return asked, self.asker.payloads()

    def test_absent_and_invisible_ids_read_and_cost_the_same(self) -> None:
        """For every verb, an id that nobody has is refused in the same words, and after the same questions."""
        for statement in (
            "SHOW PROXYSESSION ATTRIBUTE {}",
            "KILL {}",
            "KILL CONNECTION {}",
            "KILL QUERY {}",
            "KILL PROXYSESSION {}",
            "KILL PROXYSESSION {} 1",
            "KILL PROXYSESSION {} DRY RUN",
        ):
            expected: tuple[int, list[bytes]] | None = None
            for number in (ABSENT, self.other, self.foreign, self.nobody):
                asked, payloads = self.questions(statement.format(number))
                seen = (asked, [payload.replace(str(number).encode(), b"N") for payload in payloads])
                expected = expected or seen
                self.assertEqual(seen, expected, (statement, number))
                self.assertEqual(asked, 1)
                self.assertIn(b"Unknown thread id: N", seen[1][0])
                self.setUp()

    def test_they_are_asked_once(self) -> None:
        """The second refusal asks nothing, whatever the first was about."""
        for first, second in ((ABSENT, self.other), (self.other, ABSENT), (self.foreign, self.nobody)):
            self.setUp()
            self.assertEqual(self.questions(f"KILL {first}")[0], 1)
            self.assertEqual(self.questions(f"KILL {second}")[0], 0)

    def test_numbers_that_nobody_can_have(self) -> None:
        """0 and negative numbers are refused like ids that nobody has."""
        for number in (0, -5):
            self.setUp()
            self.assertEqual(self.questions(f"KILL {number}")[0], 1)

    def test_ones_own_sessions_cost_no_question(self) -> None:
        """Sessions of the same user need no privileges."""
        self.assertEqual(self.questions("SHOW PROXYSESSION ATTRIBUTE")[0], 0)
        self.assertEqual(self.questions(f"KILL QUERY {self.same}")[0], 0)
        self.assertEqual(self.questions(f"KILL {self.same}")[0], 0)

    def test_lists(self) -> None:
        """The list asks also where there is nobody else to see, or the question would tell that there is."""
        self.assertEqual(self.questions("SHOW PROXYSESSION")[0], 1)
        alone = House()
        self.house, (self.asker, self.server) = alone, alone.log_in("a")
        self.server.payloads()
        self.assertEqual(self.questions("SHOW PROXYSESSION")[0], 1)

    def test_roles_of_the_settings(self) -> None:
        """What the settings grant adds to what the server grants; where it is enough, the server is not asked."""
        grants = [Grant("a", "sys", None, Privileges.PROCESS), Grant("boss", None, "odp", Privileges.SUPER)]
        self.house.registry._policy = TenantAccessPolicy(grants)
        asked, payloads = self.questions(f"SHOW PROXYSESSION ATTRIBUTE {self.other}")
        self.assertEqual((asked, payloads[0]), (0, b"\x03"))
        asked, payloads = self.questions(f"KILL {self.other}")
        self.assertEqual((asked, payloads[0][1:3]), (1, (1095).to_bytes(2, "little")))
        self.asker, self.server = self.house.log_in("boss")
        self.server.payloads()
        asked, payloads = self.questions(f"KILL {self.other}")
        self.assertEqual((asked, payloads[0][0]), (0, 0))

    def test_oceanbase_tells_unasked(self) -> None:
        """What the login told of the privileges needs no question."""
        client = self.house.connect()
        client.packets()
        client.send(response("a"))
        server = self.house.accept()
        server.greet()
        server.packets()
        told = Ok(status=c.SERVER_STATUS_AUTOCOMMIT, changes=(VariableChanged("ob_proxy_user_privilege", "65534"),))
        server.send(frame(told.encode(CAPABILITIES), 2))
        client.packets()
        self.asker, self.server = ClientPeer(client.wire), ServerPeer(server.wire, 0)
        self.asker.payloads()
        self.server.payloads()
        asked, payloads = self.questions(f"KILL {self.other}")
        self.assertEqual((asked, payloads[0][0]), (0, 0))
