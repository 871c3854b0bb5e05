"""The connections of a client session, for those who look at the proxy's network."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from typing import Any

from odptwist.sessions.client import ClientSession
from odptwist.sessions.server import ServerSession
from odptwist.sessions.transport import count_waiting
from odptwist.snapshots import Address, ConnectionSnapshot, SessionKind


def connections_of(client: ClientSession) -> Iterator[ConnectionSnapshot]:
    """Yield what there is of a live client session: the client's connection, then those to servers."""
    sessions: tuple[ClientSession | ServerSession, ...] = (client, *client.server_sessions)
    for session in sessions:
        transport = session.transport
        if transport is None:
            continue  # it is not connected yet
        own = session is client
        here, there = _address(transport.getHost()), _address(transport.getPeer())
        yield ConnectionSnapshot(
            kind=SessionKind.CLIENT if own else SessionKind.SERVER,
            number=session.cs_id if isinstance(session, ClientSession) else session.ss_id,
            cs_id=client.cs_id,
            identity=client.identity,
            tid=threading.get_native_id(),
            fd=transport.fileno() if hasattr(transport, "fileno") else -1,
            source=there if own else here,
            destination=here if own else there,
            reading=client.reads if own else session is not client.bound or client.takes,
            received=session.bytes_in,
            sent=session.bytes_out,
            waiting=count_waiting(transport),
            seconds=client.surroundings.reactor.seconds() - session.began,
            ending=session.reason is not None,
        )


def _address(address: Any) -> Address:
    """Return what Twisted calls an address; that of a Unix socket without a name is empty."""
    if hasattr(address, "host"):
        return Address(address.host, address.port)
    name = getattr(address, "name", None) or ""
    return Address(path=os.fsdecode(name))
