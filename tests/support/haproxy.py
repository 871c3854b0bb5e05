"""A real HAProxy as a child process of the tests."""

from __future__ import annotations

import socket
from collections.abc import Sequence
from pathlib import Path

import pymysql
from pymysql.connections import Connection

from tests.support.servers import Child, find_program, free_port, wait_until


def section(address: str, *options: str, lines: Sequence[str] = ()) -> str:
    """Return a configuration that passes all on to one server, which is checked every 50 ms.

    Args:
        address: of the server.
        options: of its line `server`, such as `send-proxy`.
        lines: further ones.
    """
    return (
        "defaults\n  mode tcp\n  timeout connect 5s\n  timeout client 1m\n  timeout server 1m\n"
        "listen mysql\n  bind :3306\n"
        + "".join(f"  {line}\n" for line in lines)
        + f"  server odptwist {address} {' '.join(options)} check inter 50ms\n"
    )


class HaProxy:
    """Passes connections on from one port.

    Attributes:
        port: where it listens, on loopback.

    Args:
        base: an empty directory, with a path that is short enough for Unix sockets.
        text: its configuration, with a section `listen mysql` that listens on port 3306, which is replaced.
    """

    def __init__(self, base: Path, text: str) -> None:
        self.port = free_port()
        self._socket = str(base / "stats")
        file = base / "haproxy.cfg"
        file.write_text(
            f"global\n  stats socket {self._socket}\n" + text.replace("bind :3306", f"bind 127.0.0.1:{self.port}")
        )
        haproxy = find_program("haproxy", "haproxy")
        self.child = Child([haproxy, "-db", "-f", str(file)], base / "output")
        wait_until(lambda: self.status("check_status")[:2] in ("L4", "L7"), what="HAProxy's first check")

    def status(self, column: str) -> str:
        """Return what it says of the first server (management guide, "CSV format"); empty before it is ready."""
        with socket.socket(socket.AF_UNIX) as connection:
            try:
                connection.connect(self._socket)
            except OSError:
                return ""
            connection.sendall(b"show stat\n")
            names, *rows = b"".join(iter(lambda: connection.recv(65536), b"")).decode().strip("# \n").splitlines()
        row = next(row.split(",") for row in rows if row.startswith("mysql,odptwist"))
        return row[names.split(",").index(column)]

    def connect(self, host: str = "127.0.0.2", user: str = "root@sys#ob1", **more: object) -> Connection:
        """Return a connection through it that comes from an address of loopback."""
        return pymysql.connect(
            host="127.0.0.1",
            port=self.port,
            user=user,
            bind_address=host,
            autocommit=True,
            connect_timeout=10,
            read_timeout=60,
            **more,
        )

    def stop(self) -> None:
        """End it."""
        self.child.end()
