"""Everything that can go wrong, who is to blame, and why a session ended."""

from __future__ import annotations

from enum import Enum, unique
from typing import ClassVar
from unicodedata import category

MAX_REASON = 200
"""The longest reason of a kill, in characters."""
# Controls, lone surrogates (bytes that are not UTF-8) and the separators of lines and paragraphs.
_NOT_ON_ONE_LINE = ("Cc", "Cs", "Zl", "Zp")


@unique
class Blame(Enum):
    """Whose doing an error is; decides the log level and what a client may be told."""

    CLIENT = "client"
    SERVER = "server"
    PROXY = "proxy"
    OPERATOR = "operator"


@unique
class CloseReason(Enum):
    """Why a client session or a server session ended: log field, history column and metric label."""

    CLIENT_QUIT = "client_quit"
    CLIENT_LOST = "client_lost"
    CLIENT_BROKE_PROTOCOL = "client_broke_protocol"
    PROXY_HEADER = "proxy_header"
    LOGIN_REFUSED = "login_refused"
    LOGIN_TIMEOUT = "login_timeout"
    TOO_MANY_CONNECTIONS = "too_many_connections"
    IDLE_TIMEOUT = "idle_timeout"
    IDLE_TRANSACTION_TIMEOUT = "idle_transaction_timeout"
    TLS_FAILED = "tls_failed"
    KILLED = "killed"
    KILLED_ITSELF = "killed_itself"
    SERVER_UNREACHABLE = "server_unreachable"
    SERVER_LOST = "server_lost"
    SERVER_BROKE_PROTOCOL = "server_broke_protocol"
    STATE_LOST = "state_lost"
    CLIENT_SESSION_ENDED = "client_session_ended"
    PROXY_STOPPED = "proxy_stopped"
    PROXY_FAULT = "proxy_fault"


class OdpError(Exception):
    """The root of this package's errors."""

    blame: ClassVar[Blame] = Blame.PROXY


class WireError(OdpError):
    """A peer sent bytes that the protocol does not allow.

    The blame is set by whoever knows which peer it was.
    """

    blame = Blame.CLIENT


class MalformedPacket(WireError):
    """A packet ends too early or holds an impossible value."""


class PacketTooLarge(WireError):
    """A packet passes the limit of its reader."""


class SequenceError(WireError):
    """A packet does not bear the sequence number that is due."""


class FileRefused(WireError):
    """A server asks for a file, and its client has not agreed to send any."""

    blame = Blame.SERVER


class ResponseOverrun(WireError):
    """A server went on after the end of its response.

    Args:
        size: how many bytes at the end of the chunk do not belong to the response.
    """

    blame = Blame.SERVER

    def __init__(self, size: int) -> None:
        super().__init__(f"the server went on after the end of its response, by {size} bytes")
        self.size = size


class ServerUnreachable(OdpError):
    """No server of the cluster could be connected to in time."""

    blame = Blame.SERVER


class LoginImpossible(ServerUnreachable):
    """A server is well, but this login cannot be made there."""

    blame = Blame.PROXY


class LoginMethodUnknown(LoginImpossible):
    """An account has to log in by a method that the proxy does not know."""

    blame = Blame.OPERATOR


class LoginRefused(OdpError):
    """A server refused a login.

    Args:
        payload: the server's ERR packet, without its header.
    """

    blame = Blame.CLIENT

    def __init__(self, payload: bytes) -> None:
        super().__init__(payload)
        self.payload = payload


class ServerSessionLost(OdpError):
    """A server session ended while somebody waited for its answer."""

    blame = Blame.SERVER


class ConfigError(OdpError):
    """The settings cannot be used.

    Args:
        faults: one sentence a fault, each naming its key.
    """

    blame = Blame.OPERATOR

    def __init__(self, *faults: str) -> None:
        super().__init__("\n".join(faults))
        self.faults = faults


class EmbeddedError(OdpError):
    """The embedded server cannot be started, or ended by itself."""

    blame = Blame.OPERATOR


class SqlError(OdpError):
    """An error that a client sees as an ERR packet.

    Args:
        code: MySQL's (or OceanBase's) error number.
        sqlstate: five characters.
        message: for the person who reads it.
    """

    blame = Blame.CLIENT

    def __init__(self, code: int, sqlstate: str, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.sqlstate = sqlstate
        self.message = message


class TooManyConnections(SqlError):
    """A client may not come in, because there are as many already as a limit allows."""


def unknown_thread(number: int) -> SqlError:
    """Return what an absent and an invisible session have in common; negative numbers print as uint64."""
    return SqlError(1094, "HY000", f"Unknown thread id: {number & 0xFFFFFFFFFFFFFFFF}")


def not_owner(number: int) -> SqlError:
    """Return the refusal of a kill of somebody else's session that the asker may see."""
    return SqlError(1095, "HY000", f"You are not owner of thread {number}")


def is_reason(text: str) -> bool:
    """Say whether a text can be the reason of a kill, which is told in an error text and on a line of the log."""
    return len(text) <= MAX_REASON and not any(category(each) in _NOT_ON_ONE_LINE for each in text)


def unknown_command() -> SqlError:
    """Return what answers a command that cannot be followed."""
    return SqlError(1047, "08S01", "Unknown command")


def local_files_refused() -> SqlError:
    """Return MySQL's refusal of LOAD DATA LOCAL."""
    text = "Loading local data is disabled; this must be enabled on both the client and server sides"
    return SqlError(3948, "42000", text)


INTERRUPTED = 1317


def interrupted(why: str = "") -> SqlError:
    """Return the end of a killed statement; `why` (who killed it) follows the standard text."""
    return SqlError(INTERRUPTED, "70100", f"Query execution was interrupted{': ' if why else ''}{why}")


# MariaDB's client library keeps 2000 to 2999 and 5000 to 5999 for itself and shows an ERR packet with such a code as
# "malformed packet". So a lost or unreachable server is told with the codes that servers have for the like.
BAD_PROXY_STATEMENT = 5010
SERVER_LOST = 1158
SERVER_UNREACHABLE = 1429


def server_lost(why: str) -> SqlError:
    """Return what a client is told whose server session has ended by itself."""
    return SqlError(SERVER_LOST, "08S01", why)


def bad_proxy_statement(detail: str = "") -> SqlError:
    """Return ODP's answer to a proxy statement that it cannot read; `detail` says what would be understood."""
    return SqlError(BAD_PROXY_STATEMENT, "21000", f"Unknown operator, bad internal cmd{': ' if detail else ''}{detail}")
