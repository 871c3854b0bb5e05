"""The places where clients come in, as a settings file has them: `port` at the top, and the tables `[[listener]]`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

from attrs import frozen

from odptwist.config_file import ConfigFile, Read
from odptwist.config_spellings import check_port, one_of
from odptwist.settings import ListenerSettings, ProxyProtocolSettings, TlsSettings
from odptwist.snapshots import HeaderPolicy, ListenerTls

_TRUSTED = ("proxy_protocol", "trusted")
_TLS = {each.value: each for each in ListenerTls}
_HEADERS = {each.value: each for each in HeaderPolicy}


@frozen
class ListenerTable:
    """What stands below a `[[listener]]`; `port` is None if it is missing, or faulty."""

    port: Annotated[str | None, Read(check_port, numbers=True)] = None
    tls: Annotated[ListenerTls, Read(one_of(_TLS))] = ListenerTls.DEFAULT
    proxy_protocol: Annotated[HeaderPolicy, Read(one_of(_HEADERS))] = HeaderPolicy.OFF


def read_listeners(
    file: ConfigFile,
    tables: Sequence[ListenerTable],
    ports: Sequence[str],
    headers: ProxyProtocolSettings,
    tls: TlsSettings,
) -> tuple[ListenerSettings, ...]:
    """Return the places that tables describe; what is wrong with them is noted in the file.

    Args:
        file: where the tables are.
        tables: all of them.
        ports: the places of which nothing more is said.
        headers: whose PROXY headers are believed.
        tls: how it is offered, by the command line or the file.
    """
    listeners = []
    taken = {_place(port) for port in ports}
    for number, table in enumerate(tables):
        key = ("listener", number)
        if table.port is None:
            file.missing((*key, "port"))
            continue
        place = _place(table.port)
        if place in taken and not _is_any(place):
            file.fault((*key, "port"), f"{table.port!r} is there twice")
        taken.add(place)
        if table.tls is not ListenerTls.DEFAULT and table.port.startswith("unix:"):
            file.fault((*key, "tls"), "is not for a Unix socket, which needs no TLS")
        elif table.tls is ListenerTls.REQUIRED and not (tls.certificate or file.is_faulty(("tls", "certificate"))):
            file.fault((*key, "tls"), "needs tls.certificate, or --tls")
        if table.proxy_protocol is not HeaderPolicy.OFF and not (headers.trusted or file.is_faulty(_TRUSTED)):
            file.fault((*key, "proxy_protocol"), "needs proxy_protocol.trusted: nobody's headers are believed")
        listeners.append(ListenerSettings(table.port, table.tls, table.proxy_protocol))
    return tuple(listeners)


def _place(port: str) -> str:
    """Return a port as the endpoint description that it stands for."""
    return f"tcp:{port}" if port.isdigit() else port


def _is_any(place: str) -> bool:
    """Return whether a place is whichever port is free."""
    return place == "tcp:0" or place.startswith("tcp:0:")
