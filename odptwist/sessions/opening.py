"""Logging in at servers on behalf of a client: the plan that is kept, and the search for a server that takes it."""

from __future__ import annotations

from collections.abc import Callable

from attrs import frozen
from twisted.logger import Logger

from odptwist.errors import CloseReason, ServerSessionLost, ServerUnreachable, SqlError, WireError
from odptwist.identity import DEFAULT_TENANT, Identity
from odptwist.machines.server_login import FALLBACK, authenticates_tenants
from odptwist.sessions.server import LoginPlan, ServerSession
from odptwist.sessions.surroundings import Account, Surroundings
from odptwist.snapshots import Address, Purpose
from odptwist.wire.constants import CHARSET_UTF8MB4_GENERAL_CI
from odptwist.wire.handshake import Greeting, HandshakeResponse

_log = Logger()


@frozen
class Opened:
    """A server session that is logged in, and the payload of its OK packet."""

    session: ServerSession
    ok: bytes


async def open_server_session(
    surroundings: Surroundings,
    plan: LoginPlan,
    opening: Callable[[ServerSession | None], None],
    greeted: Callable[[Greeting], None],
    ask: Callable[[bytes], None] | None = None,
    asked: Callable[[], bool] = lambda: False,
) -> Opened:
    """Log in at the first server that takes the client.

    Args:
        surroundings: of the client session.
        plan: who logs in, and how.
        opening: is told of the session that is logging in, and None when it no longer is.
        greeted: is called with each server's greeting, and may raise `SqlError` to refuse the login.
        ask: passes on to the client what a server asks; None: the client cannot be asked.
        asked: whether the client was asked; then no second server is tried, because clients can be asked once only.

    Raises:
        LoginRefused: a server refused.
        SqlError: the proxy refused.
        ServerUnreachable: no server could be reached.
    """
    failures = []
    for address in surroundings.servers_for(plan.identity, Purpose.LOGIN):
        session = ServerSession(surroundings.numbers.new_ss_id(), address, surroundings)
        opening(session)
        try:
            await session.connect()
            ok = await session.log_in(plan, ask, greeted)
        except (ServerUnreachable, ServerSessionLost, WireError) as fault:
            session.drop(CloseReason.SERVER_UNREACHABLE)
            _log.warn(
                "no login of {identity} at {server}: {fault}", identity=plan.identity, server=address, fault=fault
            )
            failures.append(f"{address} ({fault})")
            if asked():
                break
        except BaseException:
            session.drop(CloseReason.LOGIN_REFUSED)
            raise
        else:
            return Opened(session, ok)
        finally:
            opening(None)
    raise ServerUnreachable(f"Can't connect to a server of cluster '{plan.identity.cluster}': {', '.join(failures)}")


async def open_side_session(surroundings: Surroundings, plan: LoginPlan, address: Address) -> ServerSession:
    """Log in at a server for the proxy's own use; the caller has to `quit` the result.

    Raises:
        LoginRefused, ServerUnreachable, ServerSessionLost, WireError: it cannot be had.
    """
    side = ServerSession(0, address, surroundings)
    try:
        await side.connect()
        await side.log_in(plan, None, lambda greeting: None)
    except BaseException:
        side.drop(CloseReason.SERVER_UNREACHABLE)
        raise
    return side


def account_plan(account: Account, like: Identity) -> LoginPlan:
    """Return how an account of the proxy's own logs in; on a real OceanBase it belongs to tenant sys."""
    response = HandshakeResponse(
        capabilities=FALLBACK,
        max_packet_size=1 << 24,
        charset=CHARSET_UTF8MB4_GENERAL_CI,
        user=account.user,
        auth_response=b"",
        database=None,
        plugin=None,
        attributes=(),
    )
    return LoginPlan(response, Identity(account.user, DEFAULT_TENANT, like.cluster), FALLBACK, account.password)


async def read_traits(surroundings: Surroundings, address: Address) -> None:
    """Connect to a server, let the clusters hear its greeting, and leave.

    Raises:
        ServerUnreachable, ServerSessionLost, WireError: there is none.
        LoginRefused: it sends an ERR packet instead.
    """
    session = ServerSession(0, address, surroundings)
    try:
        await session.connect()
        await session.read_greeting()
    finally:
        session.drop(CloseReason.CLIENT_SESSION_ENDED)


def check_tenant(surroundings: Surroundings, identity: Identity, greeting: Greeting, host: str) -> None:
    """Refuse a tenant that the server cannot judge and the settings do not accept (design/kill.md, "Who may")."""
    if not authenticates_tenants(greeting) and not surroundings.clusters.accepts_tenant(
        identity.cluster, identity.tenant
    ):
        raise access_denied(f"{identity.user}@{identity.tenant}", host)


def access_denied(user: str, host: str) -> SqlError:
    """Return the refusal of a login, in a server's own words."""
    return SqlError(1045, "28000", f"Access denied for user '{user}'@'{host or 'localhost'}'")
