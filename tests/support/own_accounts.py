"""A proxy in memory with accounts of its own, and clients that log in as one."""

from __future__ import annotations

import hashlib
from typing import Any

from odptwist.interfaces import IProxyStatement
from odptwist.sessions.own_accounts import OwnAccount, OwnAccounts
from odptwist.statements import administrator_statements, builtin_statements, inspector_statements, server_statements
from odptwist.wire import constants as c
from odptwist.wire.framing import frame
from odptwist.wire.handshake import HandshakeResponse, parse_greeting
from odptwist.wire.responses import parse_ok
from odptwist.wire.scramble import native_password
from tests.support.house import CAPABILITIES, ClientPeer, House

SECRET = b"hunter2"
VERIFIER = hashlib.sha1(hashlib.sha1(SECRET).digest()).digest()


def make_house(anywhere: bool = False, **more: Any) -> House:
    """Return a proxy whose administrators have the password SECRET."""
    house = House(**more)
    statements: list[IProxyStatement] = [*builtin_statements(), *server_statements(house.clusters)]
    accounts = OwnAccounts(
        {
            "root": OwnAccount(administrator_statements(statements), VERIFIER),
            "inspector": OwnAccount(inspector_statements(statements), VERIFIER),
        },
        anywhere,
    )
    house.use(own_accounts=accounts)
    return house


def hello(user: str, answer: bytes, plugin: str = "mysql_native_password") -> bytes:
    """Return a client's handshake response, framed."""
    return frame(
        HandshakeResponse(
            capabilities=CAPABILITIES & ~c.CLIENT_CONNECT_WITH_DB,
            max_packet_size=1 << 24,
            charset=45,
            user=user,
            auth_response=answer,
            database=None,
            plugin=plugin,
            attributes=(),
        ).encode(),
        1,
    )


def log_in(house: House, user: str = "root@proxysys", password: bytes = SECRET) -> ClientPeer:
    """Return a client that has tried to log in; what it was answered is unread."""
    client = house.connect()
    (greeting,) = client.payloads()
    client.send(hello(user, native_password(password, parse_greeting(greeting).salt)))
    return client


def enter(house: House, user: str = "root@proxysys") -> ClientPeer:
    """Return a client that has logged in."""
    client = log_in(house, user)
    (ok,) = client.payloads()
    parse_ok(ok, CAPABILITIES)
    return client
