"""A real HAProxy as a child process of the tests."""

from __future__ import annotations

import socket
from collections.abc import Sequence
from pathlib import Path

import pymysql
from pymysql.connections import Connection

from tests.support.servers import Child, find_program, free_port, wait_until


class HaProxy:
    """Listens on one port, and passes connections on to one backend that it checks every 50 ms.

    Attributes:
        port: where it listens, on loopback.

    Args:
        base: an empty directory, with a path that is short enough for Unix sockets.
        address: of the backend.
        options: of its line `server`, such as `send-proxy`.
        lines: further ones of its section.
    """

    def __init__(self, base: Path, address: str, *options: str, lines: Sequence[str] = ()) -> None:
        self.port = free_port()
        self._socket = str(base / "stats")
        file = base / "haproxy.cfg"
        file.write_text(
            f"global\n  stats socket {self._socket}\n"
            "defaults\n  mode tcp\n  timeout connect 5s\n  timeout client 1m\n  timeout server 1m\n"
            f"listen mysql\n  bind 127.0.0.1:{self.port}\n"
            + "".join(f"  {line}\n" for line in lines)
            + f"  server odptwist {address} {' '.join(options)} check inter 50ms\n"
        )
        haproxy = find_program("haproxy", "haproxy")
        self.child = Child([haproxy, "-db", "-f", str(file)], base / "output")
        wait_until(lambda: self.status("check_status").startswith(("L4", "L7")), what="HAProxy's first check")

    def status(self, column: str) -> str:
        """Return what it says of the backend (management guide, "CSV format"); empty as long as it is not there."""
        with socket.socket(socket.AF_UNIX) as connection:
            try:
                connection.connect(self._socket)
            except OSError:
                return ""
            connection.sendall(b"show stat\n")
            names, *rows = b"".join(iter(lambda: connection.recv(65536), b"")).decode().strip("# \n").splitlines()
        (row,) = [row.split(",") for row in rows if row.startswith("mysql,odptwist,")]
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
