"""What a client session shows of itself: who the client is, what it does, and with which server sessions."""

from __future__ import annotations

import os
import threading
from functools import cache

from attrs import define, fields

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
from odptwist.views import SessionView
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

    def view(self) -> _LiveView:
        """Return what shows it as it is; see `SessionView`."""
        sessions, peer = self.server_sessions, self.peer
        in_transaction = bool(self.status & SERVER_STATUS_IN_TRANS)
        now = self.surroundings.reactor.seconds()
        tid, pid = _find_process()
        program, client, client_version = self._names
        # By their places: with names it takes a microsecond more, a list of 10,000 sessions 10 ms.
        return _LiveView(
            self,
            self.proxy_sessid,
            self.cs_id,
            self.identity,
            peer.host,
            peer.port,
            self.state.database,
            self.transactions,
            self.statement_running,
            in_transaction,
            tid,
            pid,
            len(sessions),
            # One that is logging in serves next, unless others rest meanwhile.
            self.bound or (sessions[0] if sessions and not self.pool else None),
            now - self.since,
            now - self.transaction_since if in_transaction else 0.0,
            self.bytes_in,
            self.bytes_out,
            self.cipher,
            program,
            client,
            client_version,
        )

    def snapshot(self) -> ClientSessionSnapshot:
        """Return a frozen picture."""
        running, inserted_on = self.statement_running, self.inserted_on
        view = self.view()
        bound = view.bound
        return ClientSessionSnapshot(
            **{name: getattr(view, name) for name in _VIEWED},
            versions=self.state.versions,
            bound=bound.snapshot(running, bound is inserted_on) if bound is not None else None,
            pool=tuple(
                [each.snapshot(False, each is inserted_on) for each in self.server_sessions if each is not bound]
            ),
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


@define(eq=False)
class _LiveView(SessionView):
    """A session as it is. What is at hand is taken at once, the rest is found out when it is asked for.

    So it costs a quarter of a picture, and a list that reads twelve properties of each session costs little more.
    """

    _session: Showing
    proxy_sessid: int
    cs_id: int
    identity: Identity | None
    host: str
    port: int
    database: str | None
    transactions: int
    busy: bool
    in_transaction: bool
    tid: int
    pid: int
    server_session_count: int
    bound: ServerSession | None
    seconds: float
    transaction_seconds: float
    bytes_in: int
    bytes_out: int
    cipher: str
    program: str
    client: str
    client_version: str
    worker: int = 0

    @property
    def state(self) -> str:
        return "MCS_ACTIVE_READER" if self._session.reason is None else "MCS_CLOSED"

    @property
    def statement(self) -> str:
        return self._session.text

    @property
    def pins(self) -> tuple[str, ...]:
        session = self._session
        cursors = session.binary is not None and session.binary.cursors
        return (*sorted(session.state.pins), *(("open cursors",) if cursors else ()))

    @property
    def bar(self) -> str:
        session = self._session
        return "" if session.repeatable or session.plan is None or session.statements is not None else CANNOT_REPEAT

    @property
    def using_ssl(self) -> bool:
        return bool(self.cipher)

    @property
    def command(self) -> str:
        command = self._session.statement
        return COMMAND_NAMES.get(command[0], "") if command else ""

    @property
    def being_killed(self) -> bool:
        return bool(self._session.mark)

    @property
    def statements(self) -> int:
        return self._session.command_count

    @property
    def compression(self) -> str:
        return compression_of(self._session.transport)


# The fields of a picture that its session shows as they are.
_VIEWED = tuple(
    each.name for each in fields(ClientSessionSnapshot) if hasattr(SessionView, each.name) and each.name != "bound"
)
