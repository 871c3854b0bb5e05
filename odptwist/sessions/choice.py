"""Which server a statement belongs on, in a cluster of several.

Source: spec section 8 (weak reads), design/backends.md 5 (MASTER_GTID_WAIT).

Everything is sent to the primary but reads that may go to a replica (`ReadPolicy`). After a write, reads of the same
session stay on the primary until the replica has it: for a short time without asking; then a MariaDB replica is asked,
and of others it is assumed.
"""

from __future__ import annotations

import re
from math import inf

from odptwist.errors import OdpError
from odptwist.identity import Identity
from odptwist.machines.classification import Classification, Kind
from odptwist.machines.session_state import SessionState
from odptwist.sessions.server import ServerSession
from odptwist.sessions.surroundings import Surroundings
from odptwist.snapshots import Address, Purpose, ReadPolicy, Role
from odptwist.wire.constants import SERVER_STATUS_AUTOCOMMIT, SERVER_STATUS_IN_TRANS

_GTIDS = re.compile(r"[0-9,-]+")
# Seconds for which a session leaves a server alone that had no room for it, or did not know its account.
_AVOIDED_FOR = 2.0


class Choice:
    """Chooses servers for the statements of one client session.

    Attributes:
        purpose: what the statement in hand wants a server for.
        reads: whether it only reads, and nothing that a transaction of its own sees: it may run twice.
        writes: whether it may change data.
        wrote_on: the server session of the last write, as long as reads may have to wait for it.
    """

    __slots__ = (
        "_addresses",
        "_avoids_until",
        "_generation",
        "_identity",
        "_missed_since",
        "_surroundings",
        "_wrote_at",
        "purpose",
        "reads",
        "writes",
        "wrote_on",
    )

    def __init__(self, surroundings: Surroundings, identity: Identity) -> None:
        self._surroundings = surroundings
        self._identity = identity
        self._generation = -1
        self._avoids_until: float | None = None
        self._addresses: dict[Purpose, Address | None] = {}
        self._wrote_at = 0.0
        self._missed_since = -inf
        self.purpose = Purpose.LOGIN
        self.reads = False
        self.writes = False
        self.wrote_on: ServerSession | None = None

    def decide(self, found: Classification, begins: bool, status: int, state: SessionState) -> bool:
        """Set all that is said of a statement; return False if it stays where the one before it ran.

        Args:
            found: what it is.
            begins: whether it opens a transaction.
            status: the session's status flags.
            state: what the session has set up.
        """
        kind = found.kind
        self.purpose = Purpose.LOGIN
        self.reads = False
        self.writes = kind is Kind.WRITE
        if kind is Kind.LAST or status & SERVER_STATUS_IN_TRANS or state.pins:
            return False
        # Any server will do for SET NAMES or a ROLLBACK of nothing, as long as there is no primary; not for BEGIN,
        # because of the writes that follow.
        if kind is not Kind.NEUTRAL or begins:
            self.purpose = Purpose.WRITE
        self.reads = kind is Kind.READ and bool(status & SERVER_STATUS_AUTOCOMMIT)
        if self.reads and self._may_leave(found.weak, state):
            self.purpose = Purpose.READ
        return True

    def _may_leave(self, weak: bool | None, state: SessionState) -> bool:
        policy = self._surroundings.clusters.read_policy(self._identity.cluster)
        if policy is ReadPolicy.PRIMARY:
            return False
        if weak is None:
            consistency = state.value_of("ob_read_consistency").strip("'\"").upper()
            weak = consistency in ("WEAK", "2") if consistency else policy is ReadPolicy.REPLICA_FIRST
        if not weak:
            return False
        wrote = self.wrote_on
        return wrote is None or self._now() - self._wrote_at >= self._surroundings.routing.settle

    def address(self) -> Address | None:
        """Return the server for the present purpose; None where the session stays where it is.

        That is where no role is known, so that one server is as good as the other, and where no server will do: then
        the one that serves now gives the clearest error.
        """
        clusters = self._surroundings.clusters
        if self._avoids_until is not None and self._now() >= self._avoids_until:
            self._addresses, self._avoids_until = {}, None
        if clusters.generation != self._generation:
            if self._addresses.get(Purpose.WRITE) is not None:
                self._missed_since = self._now()
            self._generation = clusters.generation
            self._addresses = {}
        if self.purpose not in self._addresses:
            self._addresses[self.purpose] = self._choose()
        return self._addresses[self.purpose]

    def awaits_primary(self) -> bool:
        """Return whether the statement in hand wants a primary, and the cluster had one a moment ago: roles change."""
        return (
            self.purpose is Purpose.WRITE
            and self._surroundings.clusters.watched
            and self.address() is None
            and self._now() - self._missed_since < self._surroundings.routing.primary_wait
        )

    def _choose(self) -> Address | None:
        standings = self._surroundings.clusters.standings(self._identity.cluster)
        if all(each.role is Role.UNKNOWN for each in standings):
            return None
        return next(iter(self._surroundings.servers_for(self._identity, self.purpose)), None)

    def avoid(self, address: Address) -> None:
        """Be told that a server does not take this session: the others are used for a while."""
        self._avoids_until = self._now() + _AVOIDED_FOR
        for purpose, chosen in self._addresses.items():
            if chosen == address:
                servers = self._surroundings.servers_for(self._identity, purpose)
                self._addresses[purpose] = next((each for each in servers if each != address), None)

    def ended(self, session: ServerSession | None) -> None:
        """Be told that the statement in hand has ended on a server session."""
        if self.writes:
            self.writes = False
            self.wrote_on = session
            self._wrote_at = self._now()

    async def has_caught_up(self, replica: ServerSession) -> bool:
        """Return whether a replica has what this session wrote last; ask it again only after another while if not.

        Raises:
            ServerSessionLost: the replica ended over the question.
        """
        source = self.wrote_on
        if source is None or source is replica:
            return True
        gtids = ""
        if source.reason is None and not source.in_dialogue and source.is_mariadb and replica.is_mariadb:
            try:
                rows = (await source.query("SELECT @@last_gtid")).rows
            except OdpError:
                rows = []
            gtids = (rows[0][0] or b"").decode("ascii", "replace") if rows else ""
        if _GTIDS.fullmatch(gtids):
            rows = (await replica.query(f"SELECT MASTER_GTID_WAIT('{gtids}', 0)")).rows
            if rows and rows[0][0] != b"0":
                self._wrote_at = self._now()
                return False
        self.wrote_on = None
        return True

    def _now(self) -> float:
        return float(self._surroundings.reactor.seconds())
