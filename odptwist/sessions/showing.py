"""What a client session shows of itself: who the client is, what it does, and with which server sessions."""

from __future__ import annotations

import os
import threading
from functools import cache

from odptwist.identity import Identity
from odptwist.interfaces import IStatements
from odptwist.machines.certificates import ClientCertificate
from odptwist.sessions.compression import compression_of
from odptwist.sessions.grants import read_privileges
from odptwist.sessions.holding import Holding
from odptwist.sessions.login import Login
from odptwist.sessions.opening import open_side_session
from odptwist.sessions.peer import NOBODY
from odptwist.sessions.reaching import CANNOT_REPEAT
from odptwist.sessions.server import ServerSession
from odptwist.sessions.surroundings import Surroundings
from odptwist.snapshots import Asker, ClientSessionSnapshot, Privileges, Purpose
from odptwist.wire.constants import (
    COM_QUERY,
    COM_STMT_EXECUTE,
    COM_STMT_PREPARE,
    COMMAND_NAMES,
    SERVER_STATUS_IN_TRANS,
)
from odptwist.wire.primitives import decode_text

_WITH_TEXT = (bytes((COM_QUERY,)), bytes((COM_STMT_PREPARE,)))
_EXECUTE = bytes((COM_STMT_EXECUTE,))
# Bytes of a prepared statement's text that are shown, as many as of a statement in a text of its own.
_TEXT_SIZE = 1024


@cache
def _find_process() -> tuple[int, int]:
    """Return the numbers of the thread and of the process that serve sessions.

    They are asked for once: two system calls for each of ten thousand sessions would take longer than all the rest.
    """
    return threading.get_native_id(), os.getpid()


class Showing(Holding):
    """A conversation that others can look at.

    Attributes:
        proxy_sessid: ODP's number, 0 before the first server greeting.
        identity: who the client is, None before it has told.
        peer: where it comes from.
        cipher: TLS version and cipher of the client's connection, empty without TLS.
        statements: all that the client may ask, if it has no server; else None.
    """

    __slots__ = (
        "_login",
        "_names",
        "_privileges",
        "cipher",
        "identity",
        "peer",
        "proxy_sessid",
        "statements",
    )

    def __init__(self, cs_id: int, surroundings: Surroundings) -> None:
        super().__init__(cs_id, surroundings)
        self.proxy_sessid = 0
        self.identity: Identity | None = None
        self.peer = NOBODY
        self.cipher = ""
        self.statements: IStatements | None = None
        self._login: Login | None = None  # what logs in is shown, too
        self._privileges: Privileges | None = None
        self._names = ("", "", "")

    @property
    def certificate(self) -> ClientCertificate | None:
        """What the client has shown by TLS; read anew each time, since hardly anybody asks twice."""
        tls = self.surroundings.client_tls
        return tls.certificate(self.transport) if tls is not None and self.cipher else None

    @property
    def is_secure(self) -> bool:
        """Whether nobody else can read what the client sends: by TLS, or a Unix socket."""
        return bool(self.cipher) or not self.peer.host

    @property
    def server_sessions(self) -> tuple[ServerSession, ...]:
        """All server sessions, those that are logging in included."""
        if self._login is None and self._reaching is None and self.bound is not None:
            return (self.bound, *self.pool)  # nearly always
        logging_in = self._login.opening if self._login is not None else None
        return tuple(s for s in (self.bound, *self.pool, self._reaching, logging_in) if s is not None)

    def asker(self) -> Asker:
        """Return who this session is when it asks about sessions. Only after the login."""
        if self.identity is None:
            raise AssertionError("a statement before the login")
        return Asker(self.cs_id, self.identity, self._privileges)

    def snapshot(self) -> ClientSessionSnapshot:
        """Return a frozen picture."""
        running = self.statement_running
        sessions = self.server_sessions
        # One that is logging in serves next, unless others rest meanwhile.
        bound = self.bound or (sessions[0] if sessions and not self.pool else None)
        now = self.surroundings.reactor.seconds()
        in_transaction = bool(self.status & SERVER_STATUS_IN_TRANS)
        tid, pid = _find_process()
        program, client, client_version = self._names
        pins = sorted(self.state.pins) if self.state.pins else []
        if self.binary is not None and self.binary.cursors:
            pins.append("open cursors")
        return ClientSessionSnapshot(
            proxy_sessid=self.proxy_sessid,
            cs_id=self.cs_id,
            identity=self.identity,
            host=self.peer.host,
            port=self.peer.port,
            database=self.state.database,
            transactions=self.transactions,
            state="MCS_ACTIVE_READER" if self.reason is None else "MCS_CLOSED",
            busy=running,
            in_transaction=in_transaction,
            tid=tid,
            pid=pid,
            versions=self.state.versions,
            bound=bound.snapshot(running, bound is self.inserted_on) if bound is not None else None,
            pool=tuple(
                [session.snapshot(False, session is self.inserted_on) for session in sessions if session is not bound]
            )
            if len(sessions) > 1 or bound is None
            else (),
            seconds=now - self.since,
            transaction_seconds=now - self.transaction_since if in_transaction else 0.0,
            statement=self.text,
            program=program,
            pins=tuple(pins),
            bar="" if self.repeatable or self.plan is None or self.statements is not None else CANNOT_REPEAT,
            command=COMMAND_NAMES.get(self.statement[0], "") if self.statement else "",
            being_killed=bool(self.mark),
            bytes_in=self.bytes_in,
            bytes_out=self.bytes_out,
            statements=self.command_count,
            client=client,
            client_version=client_version,
            using_ssl=bool(self.cipher),
            cipher=self.cipher,
            compression=compression_of(self.transport),
        )

    @property
    def text(self) -> str:
        """Return the beginning of the SQL text that runs now or ran last; empty if that command had none."""
        command = self.statement
        if command[:1] == _EXECUTE and self.binary is not None:
            return decode_text(self.binary.text_of(command)[:_TEXT_SIZE])
        return decode_text(command[1:]) if command[:1] in _WITH_TEXT else ""

    async def privileges(self) -> Privileges:
        """Return what the server grants this session's account; it is asked once.

        Raises:
            OdpError: no server could be asked.
        """
        if self._privileges is None:
            bound = self.bound
            if bound is not None and not bound.in_dialogue and not self.statement_running:
                self._privileges = await read_privileges(bound)
            elif self.plan is not None and self.repeatable:
                addresses = self.surroundings.servers_for(self.plan.identity, Purpose.LOGIN)
                if not addresses:
                    return Privileges.NONE
                side = await open_side_session(self.surroundings, self.plan, addresses[0])
                try:
                    self._privileges = await read_privileges(side)
                finally:
                    side.quit()
            else:
                return Privileges.NONE
        return self._privileges
