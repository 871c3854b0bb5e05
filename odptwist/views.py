"""What can be seen of a client session, be it alive or in a picture."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Protocol

from odptwist.identity import PROXY_TENANT, Identity


class BoundSession(Protocol):
    """What is seen of a server session."""

    @property
    def address(self) -> object:
        """Where its server listens."""

    @property
    def server_sessid(self) -> int:
        """The server's number of it."""

    @property
    def ss_id(self) -> int:
        """The proxy's number of it."""


class SessionView(ABC):
    """A client session that somebody looks at.

    What is asked of a live session is found out at that moment, so that thousands of them can be looked at for little.
    It is to be asked at once and not kept: later it would tell other things.
    """

    __slots__ = ()

    @property
    @abstractmethod
    def proxy_sessid(self) -> int:
        """ODP's number of the session, 0 before the first server greeting."""

    @property
    @abstractmethod
    def cs_id(self) -> int:
        """The number in the greeting."""

    @property
    @abstractmethod
    def identity(self) -> Identity | None:
        """Who the client is, None until it has told."""

    @property
    @abstractmethod
    def host(self) -> str:
        """The client's IP address, or empty for a Unix socket."""

    @property
    @abstractmethod
    def port(self) -> int:
        """The client's port, 0 for a Unix socket."""

    @property
    @abstractmethod
    def database(self) -> str | None:
        """The database that is chosen, None if none is."""

    @property
    @abstractmethod
    def transactions(self) -> int:
        """How many transactions have ended."""

    @property
    @abstractmethod
    def state(self) -> str:
        """One of ODP's MCS_* words."""

    @property
    @abstractmethod
    def busy(self) -> bool:
        """Whether a server works for it."""

    @property
    @abstractmethod
    def in_transaction(self) -> bool:
        """Whether a transaction is open."""

    @property
    @abstractmethod
    def tid(self) -> int:
        """The number of the thread that serves it."""

    @property
    @abstractmethod
    def pid(self) -> int:
        """The number of the process that serves it."""

    @property
    @abstractmethod
    def server_session_count(self) -> int:
        """How many server sessions it has."""

    @property
    @abstractmethod
    def bound(self) -> BoundSession | None:
        """The server session that served last or serves now, None if none did."""

    @property
    def server(self) -> str | None:
        """Where its server listens."""
        return None if self.bound is None else str(self.bound.address)

    @property
    def server_sessid(self) -> int | None:
        """That server's number of it."""
        return None if self.bound is None else self.bound.server_sessid

    @property
    def ss_id(self) -> int | None:
        """The proxy's number of it."""
        return None if self.bound is None else self.bound.ss_id

    @property
    @abstractmethod
    def seconds(self) -> float:
        """How long it has been busy or idle."""

    @property
    @abstractmethod
    def transaction_seconds(self) -> float:
        """How long its transaction has been open, 0 if none is."""

    @property
    @abstractmethod
    def statement(self) -> str:
        """The beginning of the SQL text that runs now or ran last."""

    @property
    @abstractmethod
    def pins(self) -> tuple[str, ...]:
        """Why its server session cannot be replaced without a loss."""

    @property
    @abstractmethod
    def bar(self) -> str:
        """Why the proxy cannot open another server session for it, empty where it can."""

    @property
    @abstractmethod
    def using_ssl(self) -> bool:
        """Whether the client's connection is encrypted."""

    @property
    @abstractmethod
    def worker(self) -> int:
        """The number of the proxy's process among several."""

    @property
    @abstractmethod
    def command(self) -> str:
        """The name of the command that runs now or ran last, as in SHOW PROCESSLIST; empty before the first."""

    @property
    @abstractmethod
    def being_killed(self) -> bool:
        """Whether it ends with its transaction or statement."""

    @property
    @abstractmethod
    def bytes_in(self) -> int:
        """How many bytes came from the client after the login."""

    @property
    @abstractmethod
    def bytes_out(self) -> int:
        """How many bytes went to the client after the login."""

    @property
    @abstractmethod
    def statements(self) -> int:
        """How many commands were answered or are in flight."""

    @property
    @abstractmethod
    def program(self) -> str:
        """What the client calls itself."""

    @property
    @abstractmethod
    def client(self) -> str:
        """What the client's library calls itself."""

    @property
    @abstractmethod
    def client_version(self) -> str:
        """The version of the client's library."""

    @property
    @abstractmethod
    def cipher(self) -> str:
        """The TLS version and cipher of the client's connection, empty without TLS."""

    @property
    @abstractmethod
    def compression(self) -> str:
        """How the client's connection is compressed, empty if it is not."""

    @property
    def activity(self) -> str:
        """What it does: `being killed`, `logging in`, `busy`, `in transaction` (but idle) or `idle`."""
        if self.being_killed:
            return "being killed"
        # The number is there nearly always; a session of the proxy's own accounts never has one, nor a server.
        if not self.proxy_sessid and self.ss_id is None:
            owner = self.identity
            if owner is None or owner.tenant != PROXY_TENANT:
                return "logging in"
        return "busy" if self.busy else "in transaction" if self.in_transaction else "idle"
