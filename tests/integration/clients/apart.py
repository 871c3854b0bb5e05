"""Runs a Python client in a process of its own: `python apart.py MODULE CLASS FEATURE`; see the README."""

import sys
from contextlib import suppress

# First: it brings an OpenSSL that is newer than Debian's, and the first one that is loaded serves all.
with suppress(ImportError):
    import _mysql_connector  # noqa: F401

import json
import os
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

sys.path[0] = str(Path(__file__).parents[3])

from tests.support.clients import Address  # noqa: E402


def _pause(number: int) -> None:
    """Tell the connection id, and wait."""
    print(json.dumps({"id": number}), flush=True)  # noqa: T201
    sys.stdin.readline()


def main(module: str, name: str, feature: str) -> Any:
    """Return the JSON object of a feature."""
    client = getattr(import_module(f"tests.integration.clients.{module}"), name)()
    try:
        version = client.find(Path)
    except pytest.skip.Exception as skipped:
        return {"missing": str(skipped).removeprefix("needs ")}
    if feature == "version":
        return {"version": version}
    given = {name: os.environ[f"ODP_{name.upper()}"] for name in ("host", "user", "password", "database")}
    address = Address(port=int(os.environ["ODP_PORT"]), ca=Path(os.environ["ODP_CA"]), **given)
    return client.run(feature, address, os.environ["ODP_SQL"], _pause)


if __name__ == "__main__":
    print(json.dumps(main(*sys.argv[1:])))  # noqa: T201
