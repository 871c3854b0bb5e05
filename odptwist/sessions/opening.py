"""Logging in at servers on behalf of a client: the plan that is kept, and the search for a server that takes it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from typing import TypeVar

from attrs import frozen
from twisted.logger import Logger

from odptwist.errors import (
    CloseReason,
    LoginImpossible,
    LoginRefused,
    ServerSessionLost,
    ServerUnreachable,
    SqlError,
    WireError,
)
from odptwist.identity import DEFAULT_TENANT, Identity, legible
from odptwist.machines.certificates import ClientCertificate
from odptwist.machines.server_login import authenticates_tenants
from odptwist.sessions.dialogue import LoginPlan
from odptwist.sessions.server import ServerSession
from odptwist.sessions.surroundings import Account, Surroundings
from odptwist.snapshots import Address
from odptwist.wire.constants import (
    CHARSET_UTF8MB4_GENERAL_CI,
    CLIENT_LONG_PASSWORD,
    CLIENT_PLUGIN_AUTH,
    CLIENT_PROTOCOL_41,
    CLIENT_SECURE_CONNECTION,
    CLIENT_TRANSACTIONS,
)
from odptwist.wire.handshake import Greeting, HandshakeResponse
from odptwist.wire.primitives import encode_text
from odptwist.wire.responses import parse_err
from odptwist.wire.scramble import password_sha1

T = TypeVar("T")

_log = Logger()
_TROUBLE = (ServerUnreachable, ServerSessionLost, WireError)
# Without CLIENT_NO_SCHEMA: MariaDB takes it at its word and does not see the `mysql.` of `mysql.user`.
_OWN = CLIENT_LONG_PASSWORD | CLIENT_PROTOCOL_41 | CLIENT_TRANSACTIONS | CLIENT_SECURE_CONNECTION | CLIENT_PLUGIN_AUTH
_HOST_BLOCKED = 1129
# Too many connections, shutdown in progress, host blocked: the server's trouble, not the account's.
NO_ROOM = frozenset((1040, 1053, _HOST_BLOCKED))


@frozen
class Opened:
    """A server session that is logged in, and the payload of its OK packet."""

    session: ServerSession
    ok: bytes


async def open_server_session(
    surroundings: Surroundings,
    plan: LoginPlan,
    address: Address,
    opening: Callable[[ServerSession | None], None],
    greeted: Callable[[Greeting], None] = lambda greeting: None,
    ask: Callable[[bytes], None] | None = None,
) -> Opened:
    """Log in at a server.

    Args:
        surroundings: of the client session.
        plan: who logs in, and how.
        address: where.
        opening: is told of the session that is logging in, and None when it no longer is.
        greeted: is called with the server's greeting, and may raise `SqlError` to refuse the login.
        ask: passes on to the client what the server asks; None: the client cannot be asked.

    Raises:
        LoginRefused: the server refused.
        SqlError: the proxy refused.
        ServerUnreachable, ServerSessionLost, WireError: the server could not be reached, or fell silent.
    """
    session = ServerSession(surroundings.numbers.new_ss_id(), address, surroundings)
    opening(session)
    try:
        session.connect(plan.origin)
        return Opened(session, await session.log_in(plan, ask, greeted))
    except BaseException as fault:
        session.drop(CloseReason.SERVER_UNREACHABLE if isinstance(fault, _TROUBLE) else CloseReason.LOGIN_REFUSED)
        raise
    finally:
        opening(None)


async def try_servers(
    surroundings: Surroundings,
    addresses: Iterable[Address],
    identity: Identity,
    attempt: Callable[[Address], Awaitable[T]],
    may_go_on: Callable[[], bool] = lambda: True,
) -> T:
    """Return what the first server gives with which `attempt` succeeds; the clusters hear of those that fail.

    Args:
        surroundings: of the client session.
        addresses: the servers, best first.
        identity: whose attempt it is.
        attempt: raises as `open_server_session`; a refusal of the account ends the search, one for want of room does
            not.
        may_go_on: is asked after each failure.

    Raises:
        LoginRefused: a server refused.
        SqlError: the proxy refused.
        ServerUnreachable: no server could be reached; the text names each with its fault.
    """
    failures = []
    refusal: LoginRefused | None = None
    for address in addresses:
        try:
            return await attempt(address)
        except LoginRefused as refused:
            if parse_err(refused.payload).code not in NO_ROOM:
                raise
            refusal, fault = refused, parse_err(refused.payload).message
            # The blocked host is the client's where a PROXY header tells it: others are let in.
            if parse_err(refused.payload).code != _HOST_BLOCKED or address not in surroundings.server_headers:
                surroundings.clusters.failed(address, fault)
        except _TROUBLE as trouble:
            fault = str(trouble)
            # What a client can bring about must not count against the server: a login that cannot be, and one that the
            # server gave up because the client did not answer.
            if not isinstance(trouble, LoginImpossible) and may_go_on():
                surroundings.clusters.failed(address, fault)
        _log.warn(
            "no login of {identity} at {server}: {fault}",
            identity=legible(identity),
            server=address,
            fault=legible(fault),
        )
        failures.append(f"{address} ({fault})")
        if not may_go_on():
            break
    if refusal is not None:
        raise refusal
    detail = ", ".join(failures) or "none of them takes this statement now"
    raise ServerUnreachable(f"Can't connect to a server of cluster '{identity.cluster}': {detail}")


async def open_side_session(surroundings: Surroundings, plan: LoginPlan, address: Address) -> ServerSession:
    """Log in at a server for the proxy's own use; the caller has to `quit` the result.

    Raises:
        LoginRefused, ServerUnreachable, ServerSessionLost, WireError: it cannot be had.
    """
    side = ServerSession(0, address, surroundings)
    try:
        side.connect(plan.origin)
        await side.log_in(plan, None, lambda greeting: None)
    except BaseException:
        side.drop(CloseReason.SERVER_UNREACHABLE)
        raise
    return side


def account_plan(account: Account, like: Identity) -> LoginPlan:
    """Return how an account of the proxy's own logs in; on a real OceanBase it belongs to tenant sys."""
    response = HandshakeResponse(
        capabilities=_OWN,
        max_packet_size=1 << 24,
        charset=CHARSET_UTF8MB4_GENERAL_CI,
        user=account.user,
        auth_response=b"",
        database=None,
        plugin=None,
        attributes=(),
    )
    password = encode_text(account.password)
    key = password_sha1(password) if password else b""
    return LoginPlan(response, Identity(account.user, DEFAULT_TENANT, like.cluster), _OWN, key, password=password)


async def read_traits(surroundings: Surroundings, address: Address) -> None:
    """Connect to a server, let the clusters hear its greeting, and leave.

    Raises:
        ServerUnreachable, ServerSessionLost, WireError: there is none.
        LoginRefused: it sends an ERR packet instead.
    """
    session = ServerSession(0, address, surroundings)
    try:
        session.connect()
        await session.read_greeting()
    finally:
        session.drop(CloseReason.CLIENT_SESSION_ENDED)


def check_tenant(surroundings: Surroundings, identity: Identity, greeting: Greeting, host: str) -> None:
    """Refuse a tenant that the server cannot judge and the settings do not accept (design/kill.md, "Who may")."""
    if not authenticates_tenants(greeting) and not surroundings.clusters.accepts_tenant(
        identity.cluster, identity.tenant
    ):
        raise access_denied(f"{identity.user}@{identity.tenant}", host)


def check_certificate(
    surroundings: Surroundings,
    identity: Identity,
    charset: int | None,
    certificate: ClientCertificate | None,
    host: str,
) -> None:
    """Refuse a user whom the settings bind to other certificates, and the log alone says why.

    `charset` is the one in which the client has sent the name, None if it did not say.
    """
    why = surroundings.certificate_accounts.why_not(certificate, identity, charset)
    if why:
        _log.warn(
            "login of {identity} from {host} refused: {why} (certificate: {subject})",
            identity=legible(identity),
            host=host or "localhost",
            why=why,
            subject=legible(certificate.subject) if certificate is not None else "none",
        )
        raise access_denied(identity.user, host)


def access_denied(user: str, host: str) -> SqlError:
    """Return the refusal of a login, in a server's own words."""
    return SqlError(1045, "28000", f"Access denied for user '{user}'@'{host or 'localhost'}'")
