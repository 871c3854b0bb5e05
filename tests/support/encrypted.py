"""Proxies and clients with TLS: what the tests that use real ones share."""

from __future__ import annotations

import ssl
from pathlib import Path

from tests.support.servers import Server


def trusting(path: Path | None, version: ssl.TLSVersion | None = None) -> ssl.SSLContext:
    """Return the context of a client that trusts a file of certificates (None: everybody) and speaks one version."""
    context = ssl.create_default_context(cafile=path)
    if path is None:
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    if version is not None:
        context.minimum_version = context.maximum_version = version
    return context


def settings(server: Server, cluster: str = "", tls: str = "", address: str = "") -> str:
    """Return a settings file."""
    top = f"[tls]\n{tls}\n" if tls else ""
    return f'{top}[[cluster]]\nname = "ob1"\n{cluster}\n[[cluster.server]]\naddress = "{address or server.address}"\n'
