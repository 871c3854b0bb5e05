"""mysql-connector-python with its C extension, as a program: see ../README.md."""

import _mysql_connector  # noqa: F401, I001 - first: it has a newer OpenSSL than Python may have, and only one is loaded

import json
import os
import sys
from pathlib import Path

sys.path[0] = str(Path(__file__).parents[4])

from tests.integration.clients.test_mysql_connector import CompiledConnector  # noqa: E402
from tests.support.clients import Address  # noqa: E402


def pause(number: int) -> None:
    """Tell the connection id, and wait."""
    print(json.dumps({"id": number}), flush=True)  # noqa: T201
    sys.stdin.readline()


def main(feature: str) -> object:
    """Return the JSON object of a feature."""
    client = CompiledConnector()
    version = client.find(Path)
    if feature == "version":
        return {"version": version}
    given = {name: os.environ[f"ODP_{name.upper()}"] for name in ("host", "user", "password", "database")}
    address = Address(port=int(os.environ["ODP_PORT"]), ca=Path(os.environ["ODP_CA"]), **given)
    return client.run(feature, address, os.environ["ODP_SQL"], pause)


print(json.dumps(main(sys.argv[1])))  # noqa: T201
