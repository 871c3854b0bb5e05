"""Which server a statement belongs on, in a cluster of several.

Source: spec section 8 (weak reads), design/backends.md 5 (MASTER_GTID_WAIT).

Everything is sent to the primary but reads that may go to a replica (`ReadPolicy`). After a write, reads of the same
session stay on the primary until the replica has it: for a short time without asking; then a MariaDB replica is asked,
and of others it is assumed. If the server session that wrote is lost, nobody can tell what the replica has got: reads
stay, too, until a statement has run on the primary again, and then as long as after a write.
"""

from __future__ import annotations

import re
from contextlib import suppress
from math import inf

from odptwist.errors import OdpError
from odptwist.identity import Identity
from odptwist.machines.classification import Classification, Kind
from odptwist.machines.session_state import SessionState
from odptwist.sessions.server import ServerSession
from odptwist.sessions.surroundings import Surroundings
from odptwist.snapshots import Address, Purpose, ReadPolicy, Role
from odptwist.wire.constants import SERVER_STATUS_AUTOCOMMIT, SERVER_STATUS_IN_TRANS

_WRITTEN_LAST = "@@last_gtid"
_WRITTEN_BY_ALL = "@@gtid_binlog_pos"
_GTIDS = re.compile(r"[0-9,-]+")
# Until Python 3.12 every access to a member of an enumeration is a call, and here are the ones of every statement.
_READING, _NEUTRAL, _ABOUT_THE_LAST, _WRITING = Kind.READ, Kind.NEUTRAL, Kind.LAST, Kind.WRITE
_ANY, _PRIMARY, _REPLICA = Purpose.LOGIN, Purpose.WRITE, Purpose.READ
_NEVER = ReadPolicy.PRIMARY
_WHEREVER = ReadPolicy.REPLICA_FIRST
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
        "_policy",
        "_position",
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
        self._policy = surroundings.clusters.read_policy(identity.cluster)
        self._generation = -1
        self._avoids_until: float | None = None
        self._addresses: dict[Purpose, Address | None] = {}
        self._wrote_at = 0.0
        self._position = _WRITTEN_LAST
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
        self.purpose = _ANY
        self.reads = False
        self.writes = kind is _WRITING
        if kind is _ABOUT_THE_LAST or status & SERVER_STATUS_IN_TRANS or state.pins:
            return False
        # Any server will do for SET NAMES or a ROLLBACK of nothing, as long as there is no primary; not for BEGIN,
        # because of the writes that follow.
        if kind is not _NEUTRAL or begins:
            self.purpose = _PRIMARY
        self.reads = kind is _READING and bool(status & SERVER_STATUS_AUTOCOMMIT)
        if self.reads and self._may_leave(found.weak, state):
            self.purpose = _REPLICA
        return True

    def _may_leave(self, weak: bool | None, state: SessionState) -> bool:
        policy = self._policy
        if policy is _NEVER:
            return False
        if weak is None:
            consistency = state.value_of("ob_read_consistency") if state.settings else ""
            weak = consistency.strip("'\"").upper() in ("WEAK", "2") if consistency else policy is _WHEREVER
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
        try:
            return self._addresses[self.purpose]
        except KeyError:
            address = self._addresses[self.purpose] = self._choose()
            return address

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
            self._position = _WRITTEN_LAST
        elif self.wrote_on is not None and self.wrote_on.reason is not None and self.purpose is Purpose.WRITE:
            self._position = _WRITTEN_BY_ALL
        else:
            return
        self.wrote_on = session
        self._wrote_at = self._now()

    def was_reset(self) -> None:
        """Be told that the session was reset: a MariaDB forgets then which GTID its last write had."""
        self._position = _WRITTEN_BY_ALL

    async def has_caught_up(self, replica: ServerSession) -> bool:
        """Return whether a replica has what this session wrote last; if not, the statement in hand wants the primary.

        Raises:
            ServerSessionLost: the replica ended over the question.
        """
        source = self.wrote_on
        if source is None:
            return True
        gtids = ""
        if source.reason is None and not source.in_dialogue and source.is_mariadb and replica.is_mariadb:
            with suppress(OdpError):
                rows = (await source.query(f"SELECT {self._position}")).rows
                gtids = (rows[0][0] or b"").decode("ascii", "replace") if rows else ""
        if source.reason is not None:
            return self._stay()
        if _GTIDS.fullmatch(gtids):
            rows = (await replica.query(f"SELECT MASTER_GTID_WAIT('{gtids}', 0)")).rows
            if rows and rows[0][0] != b"0":
                return self._stay()
        self.wrote_on = None
        return True

    def _stay(self) -> bool:
        """Keep the statement in hand, and those that follow soon, on the primary."""
        self.purpose = Purpose.WRITE
        self._wrote_at = self._now()
        return False

    def _now(self) -> float:
        return float(self._surroundings.reactor.seconds())
