"""Who may do what to whom: every role, verb and target, through the whole proxy.

`python -m tests.sessions.test_access_matrix` prints the table, as docs/howto/administrators.md has it.
"""

from __future__ import annotations

import sys

from attrs import evolve
from twisted.trial.unittest import SynchronousTestCase

from odptwist.identity import Identity
from odptwist.wire import constants as c
from odptwist.wire.responses import parse_err
from tests.support.house import ClientPeer, House, ServerPeer
from tests.support.own_accounts import enter, make_house

GRANTS = b"\x03SHOW GRANTS"
ABSENT = 999
NO_SS_ID = 77

# Who asks: the identity, and what the server grants.
ROLES: dict[str, tuple[Identity, bytes]] = {
    "plain user": (Identity("a", "shop", "odp"), b"USAGE"),
    "PROCESS": (Identity("a", "shop", "odp"), b"PROCESS"),
    "SUPER": (Identity("a", "shop", "odp"), b"SUPER"),
    "CONNECTION ADMIN": (Identity("a", "shop", "odp"), b"CONNECTION ADMIN"),
    "plain user of sys": (Identity("a", "sys", "odp"), b"USAGE"),
    "PROCESS of sys": (Identity("a", "sys", "odp"), b"PROCESS"),
    "SUPER of sys": (Identity("a", "sys", "odp"), b"SUPER"),
    "root@proxysys": (Identity("root", "proxysys", "odp"), b""),
    "inspector@proxysys": (Identity("inspector", "proxysys", "odp"), b""),
}
TARGETS = ("own", "same user", "other user", "other tenant", "other cluster", "not logged in", "absent")
VERBS = (
    "list",
    "WHERE",
    "ATTRIBUTE",
    "KILL",
    "QUERY",
    "ss_id",
    "KILL WHERE",
    "COM kill",
    "COM info",
)

# list, WHERE and ATTRIBUTE are SHOW PROXYSESSION; QUERY is KILL QUERY id, ss_id is KILL PROXYSESSION id ss_id; the last
# two are the commands COM_PROCESS_KILL and COM_PROCESS_INFO.
# yes: seen, or killed. -: not there: no row, or 1094 as for an absent id. self: 1317, and the asker ends. none: it may,
# but there is no such server session. server: the server answers. A number is an error.
MATRIX = """
role               | target        | list | WHERE | ATTRIBUTE | KILL | QUERY | ss_id | KILL WHERE | COM kill | COM info
plain user         | own           | yes  | yes   | yes       | self | yes   | yes   | -          | self     | server
plain user         | same user     | yes  | yes   | yes       | yes  | yes   | yes   | yes        | yes      | server
plain user         | other user    | -    | -     | -         | -    | -     | -     | -          | -        | server
plain user         | other tenant  | -    | -     | -         | -    | -     | -     | -          | -        | server
plain user         | other cluster | -    | -     | -         | -    | -     | -     | -          | -        | server
plain user         | not logged in | -    | -     | -         | -    | -     | -     | -          | -        | server
plain user         | absent        | -    | -     | -         | -    | -     | -     | -          | -        | server
PROCESS            | own           | yes  | yes   | yes       | self | yes   | yes   | -          | self     | server
PROCESS            | same user     | yes  | yes   | yes       | yes  | yes   | yes   | yes        | yes      | server
PROCESS            | other user    | yes  | yes   | yes       | 1095 | 1095  | 1095  | 1095       | 1095     | server
PROCESS            | other tenant  | -    | -     | -         | -    | -     | -     | -          | -        | server
PROCESS            | other cluster | -    | -     | -         | -    | -     | -     | -          | -        | server
PROCESS            | not logged in | -    | -     | -         | -    | -     | -     | -          | -        | server
PROCESS            | absent        | -    | -     | -         | -    | -     | -     | -          | -        | server
SUPER              | own           | yes  | yes   | yes       | self | yes   | yes   | -          | self     | server
SUPER              | same user     | yes  | yes   | yes       | yes  | yes   | yes   | yes        | yes      | server
SUPER              | other user    | yes  | yes   | yes       | yes  | yes   | yes   | yes        | yes      | server
SUPER              | other tenant  | -    | -     | -         | -    | -     | -     | -          | -        | server
SUPER              | other cluster | -    | -     | -         | -    | -     | -     | -          | -        | server
SUPER              | not logged in | -    | -     | -         | -    | -     | -     | -          | -        | server
SUPER              | absent        | -    | -     | -         | -    | -     | -     | -          | -        | server
CONNECTION ADMIN   | own           | yes  | yes   | yes       | self | yes   | yes   | -          | self     | server
CONNECTION ADMIN   | same user     | yes  | yes   | yes       | yes  | yes   | yes   | yes        | yes      | server
CONNECTION ADMIN   | other user    | yes  | yes   | yes       | yes  | yes   | yes   | yes        | yes      | server
CONNECTION ADMIN   | other tenant  | -    | -     | -         | -    | -     | -     | -          | -        | server
CONNECTION ADMIN   | other cluster | -    | -     | -         | -    | -     | -     | -          | -        | server
CONNECTION ADMIN   | not logged in | -    | -     | -         | -    | -     | -     | -          | -        | server
CONNECTION ADMIN   | absent        | -    | -     | -         | -    | -     | -     | -          | -        | server
plain user of sys  | own           | yes  | yes   | yes       | self | yes   | yes   | -          | self     | server
plain user of sys  | same user     | yes  | yes   | yes       | yes  | yes   | yes   | yes        | yes      | server
plain user of sys  | other user    | -    | -     | -         | -    | -     | -     | -          | -        | server
plain user of sys  | other tenant  | -    | -     | -         | -    | -     | -     | -          | -        | server
plain user of sys  | other cluster | -    | -     | -         | -    | -     | -     | -          | -        | server
plain user of sys  | not logged in | -    | -     | -         | -    | -     | -     | -          | -        | server
plain user of sys  | absent        | -    | -     | -         | -    | -     | -     | -          | -        | server
PROCESS of sys     | own           | yes  | yes   | yes       | self | yes   | yes   | -          | self     | server
PROCESS of sys     | same user     | yes  | yes   | yes       | yes  | yes   | yes   | yes        | yes      | server
PROCESS of sys     | other user    | yes  | yes   | yes       | 1095 | 1095  | 1095  | 1095       | 1095     | server
PROCESS of sys     | other tenant  | yes  | yes   | yes       | 1095 | 1095  | 1095  | 1095       | 1095     | server
PROCESS of sys     | other cluster | -    | -     | -         | -    | -     | -     | -          | -        | server
PROCESS of sys     | not logged in | yes  | yes   | yes       | 1095 | 1095  | 1095  | 1095       | 1095     | server
PROCESS of sys     | absent        | -    | -     | -         | -    | -     | -     | -          | -        | server
SUPER of sys       | own           | yes  | yes   | yes       | self | yes   | yes   | -          | self     | server
SUPER of sys       | same user     | yes  | yes   | yes       | yes  | yes   | yes   | yes        | yes      | server
SUPER of sys       | other user    | yes  | yes   | yes       | yes  | yes   | yes   | yes        | yes      | server
SUPER of sys       | other tenant  | yes  | yes   | yes       | yes  | yes   | yes   | yes        | yes      | server
SUPER of sys       | other cluster | -    | -     | -         | -    | -     | -     | -          | -        | server
SUPER of sys       | not logged in | yes  | yes   | yes       | yes  | yes   | none  | yes        | yes      | server
SUPER of sys       | absent        | -    | -     | -         | -    | -     | -     | -          | -        | server
root@proxysys      | own           | yes  | yes   | yes       | self | yes   | none  | -          | self     | yes
root@proxysys      | same user     | yes  | yes   | yes       | yes  | yes   | none  | yes        | yes      | yes
root@proxysys      | other user    | yes  | yes   | yes       | yes  | yes   | yes   | yes        | yes      | yes
root@proxysys      | other tenant  | yes  | yes   | yes       | yes  | yes   | yes   | yes        | yes      | yes
root@proxysys      | other cluster | yes  | yes   | yes       | yes  | yes   | yes   | yes        | yes      | yes
root@proxysys      | not logged in | yes  | yes   | yes       | yes  | yes   | none  | yes        | yes      | yes
root@proxysys      | absent        | -    | -     | -         | -    | -     | -     | -          | -        | -
inspector@proxysys | own           | yes  | yes   | yes       | 5010 | 5010  | 5010  | 5010       | 5010     | yes
inspector@proxysys | same user     | yes  | yes   | yes       | 5010 | 5010  | 5010  | 5010       | 5010     | yes
inspector@proxysys | other user    | yes  | yes   | yes       | 5010 | 5010  | 5010  | 5010       | 5010     | yes
inspector@proxysys | other tenant  | yes  | yes   | yes       | 5010 | 5010  | 5010  | 5010       | 5010     | yes
inspector@proxysys | other cluster | yes  | yes   | yes       | 5010 | 5010  | 5010  | 5010       | 5010     | yes
inspector@proxysys | not logged in | yes  | yes   | yes       | 5010 | 5010  | 5010  | 5010       | 5010     | yes
inspector@proxysys | absent        | -    | -     | -         | 5010 | 5010  | 5010  | 5010       | 5010     | -
"""


class Scene:
    """One asker of a role, and one session that it asks about."""

    def __init__(self, role: str, target: str) -> None:
        self.house: House = make_house()
        identity, self._grants = ROLES[role]
        self.server: ServerPeer | None = None
        if identity.tenant == "proxysys":
            self.asker = enter(self.house, f"{identity.user}@proxysys")
        else:
            self.asker, self.server = self.house.log_in(identity.user)
            self.asker.wire.protocol.identity = identity
            self.server.payloads()
        self.victim: ClientPeer | None = None
        self.number, self.ss_id = ABSENT, NO_SS_ID
        if target == "own":
            self.victim = self.asker
        elif target == "not logged in":
            self.victim = self.house.connect()
        elif target == "same user" and self.server is None:
            self.victim = enter(self.house, f"{identity.user}@proxysys")
        elif target != "absent":
            self.victim, _ = self.house.log_in()
            owner = {
                "same user": identity,
                "other user": evolve(identity, user="b"),
                "other tenant": evolve(identity, user="b", tenant="else"),
                "other cluster": evolve(identity, cluster="odp2"),
            }[target]
            if self.server is None and owner.tenant == "proxysys":
                owner = evolve(owner, user="b", tenant="shop")
            self.victim.wire.protocol.identity = owner
        if self.victim is not None:
            session = self.victim.wire.protocol
            self.number = session.cs_id
            self.ss_id = session.bound.ss_id if session.bound is not None else NO_SS_ID

    def ask(self, code: int, rest: bytes) -> list[bytes]:
        """Return the payloads that answer a command; the server says what it grants, if it is asked."""
        self.asker.packets()
        self.asker.command(code, rest)
        if self.server is not None and self.server.payloads() == [GRANTS]:
            self.server.row(b"GRANT %s ON *.* TO a" % self._grants)
        self.house.turn()
        return self.asker.payloads()

    def outcome(self, verb: str) -> str:
        """Return what comes of a verb."""
        if verb == "COM info":
            payloads = self.ask(c.COM_PROCESS_INFO, b"")
            return "server" if not payloads else self._listed(payloads, 10)
        if verb == "COM kill":
            return self._killed(self.ask(c.COM_PROCESS_KILL, self.number.to_bytes(4, "little")))
        sql = {
            "list": "SHOW PROXYSESSION",
            "WHERE": f"SHOW PROXYSESSION WHERE Id = {self.number}",
            "ATTRIBUTE": f"SHOW PROXYSESSION ATTRIBUTE {self.number}",
            "KILL": f"KILL {self.number}",
            "QUERY": f"KILL QUERY {self.number}",
            "ss_id": f"KILL PROXYSESSION {self.number} {self.ss_id}",
            "KILL WHERE": f"KILL PROXYSESSION WHERE Id = {self.number}",
        }[verb]
        payloads = self.ask(c.COM_QUERY, sql.encode())
        if verb in ("list", "WHERE"):
            return self._listed(payloads, 12)
        if verb == "ATTRIBUTE":
            return self._error(payloads) or "yes"
        if verb == "KILL WHERE":
            return self._error(payloads) or self._hit(payloads)
        return self._killed(payloads)

    def _listed(self, payloads: list[bytes], columns: int) -> str:
        if error := self._error(payloads):
            return error
        number = str(self.number).encode()
        rows = payloads[columns + 2 : -1]
        return "yes" if any(bytes((len(number),)) + number in row[:40] for row in rows) else "-"

    def _hit(self, payloads: list[bytes]) -> str:
        rows = payloads[7:-1]
        if not rows:
            return "-"
        if b"denied" in rows[0]:
            return "1095"
        return "self" if b"itself" in rows[0] else "yes"

    def _killed(self, payloads: list[bytes]) -> str:
        return self._error(payloads) or "yes"

    def _error(self, payloads: list[bytes]) -> str:
        """Return an empty text if there was no error."""
        if payloads[0][:1] != b"\xff":
            return ""
        error = parse_err(payloads[0])
        if error.code == 1094:
            return "-" if error.message == f"Unknown thread id: {self.number}" else "none"
        return "self" if error.code == 1317 else str(error.code)


def lines() -> list[str]:
    """Return the lines of the table."""
    table = [["role", "target", *VERBS]]
    for role in ROLES:
        for target in TARGETS:
            table.append([role, target, *(Scene(role, target).outcome(verb) for verb in VERBS)])
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    return [" | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in table]


class MatrixTests(SynchronousTestCase):
    def test_every_cell(self) -> None:
        """Every role gets for every verb and target what the matrix says."""
        self.maxDiff = None
        self.assertEqual("\n".join(lines()), MATRIX.strip())


if __name__ == "__main__":
    sys.stdout.write("\n".join(lines()) + "\n")
