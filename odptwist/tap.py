"""`twistd odp`: the command line."""

from __future__ import annotations

import sys
from typing import Any, ClassVar, cast

from twisted.application.service import IService
from twisted.internet.endpoints import serverFromString
from twisted.python import usage

import twisted
from odptwist import __version__
from odptwist.config import load_settings
from odptwist.config_spellings import check_port, parse_address
from odptwist.embedded.directory import DataDirectory
from odptwist.embedded.seekdb import find_seekdb
from odptwist.errors import ConfigError, OdpError
from odptwist.service import make_service
from odptwist.sessions.polling import poll_lean
from odptwist.sessions.relaying import relay
from odptwist.settings import Settings
from odptwist.statements.rule_timing import check_condition


class Options(usage.Options):
    """What `twistd odp` understands."""

    synopsis = "[options]"
    longdesc = (
        "A session-aware proxy for OceanBase and MySQL-compatible servers. Without --server it starts an embedded "
        "OceanBase kernel (seekdb) of its own and listens on loopback only. Clients log in as user, user@tenant or "
        "user@tenant#cluster; SHOW PROXYSESSION lists their sessions and KILL PROXYSESSION id ends them. "
        "Run `twistd --nodaemon odp ...` to stay in the foreground and log to the terminal."
    )
    optParameters: ClassVar = [
        [
            "cluster-name",
            None,
            None,
            "Name of the cluster of the servers given by --server, or of the embedded one [default: odp]",
        ],
        ["data-dir", None, None, "Where the embedded server keeps its data [default: ./odp-data]"],
        [
            "tls",
            None,
            None,
            "Offer TLS to clients: a file with the certificate, its chain and its key, or auto: one that is made now",
        ],
        ["config", "c", None, "A TOML file with these settings and more; the command line wins"],
    ]
    compData = usage.Completions(
        optActions={
            "config": usage.CompleteFiles("*.toml"),
            "data-dir": usage.CompleteDirs(),
            "tls": usage.CompleteFiles("*.pem"),
        }
    )

    settings: Settings

    def __init__(self) -> None:
        self._ports: list[str] = []
        self._servers: list[str] = []
        super().__init__()  # type: ignore[no-untyped-call]

    def opt_port(self, text: str) -> None:
        """Where clients connect: number, or endpoint such as tcp:2883:interface=127.0.0.1; repeatable [default: 2883].

        A bare number listens on all addresses; on loopback only before the embedded server, whose root has no password.
        """
        self._ports.append(self._checked("--port", check_port, text))

    opt_p = opt_port

    def opt_server(self, text: str) -> None:
        """A server to pass clients on to: host:port or unix:/path; repeatable, tried in this order."""
        self._checked("--server", parse_address, text)
        self._servers.append(text)

    opt_s = opt_server

    def opt_version(self) -> None:
        """Print the versions of odptwist and Twisted, and exit."""
        print(f"odptwist {__version__} (Twisted {twisted.__version__})")  # noqa: T201 - what --version is for
        sys.exit(0)

    def postOptions(self) -> None:
        """Make settings of all that was given, and refuse what cannot work before anything is started."""
        try:
            self.settings = load_settings(
                self["config"],
                self._ports,
                self._servers,
                self["cluster-name"],
                self["data-dir"],
                check_condition,
                self["tls"],
            )
            self._check_endpoints()
            if self.settings.embedded:
                find_seekdb()
                DataDirectory(str(self.settings.data_dir)).check()
        except OdpError as fault:
            raise usage.UsageError(str(fault)) from None

    def _check_endpoints(self) -> None:
        """Let Twisted read the endpoints now, because a fault in one is a fault of the command line or the file."""
        from twisted.internet import reactor

        for endpoint in self.settings.endpoints:
            try:
                serverFromString(reactor, endpoint)
            except Exception as fault:  # noqa: BLE001 - parsers of endpoints are plugins and raise what they like
                raise usage.UsageError(f"--port: '{endpoint}': {fault}") from None

    @staticmethod
    def _checked(option: str, check: Any, text: str) -> Any:
        try:
            return check(text)
        except ValueError as fault:
            raise usage.UsageError(f"{option}: {fault}") from None


def makeService(options: Options) -> IService:
    """Return the proxy; called by twistd."""
    from twisted.internet import reactor

    if not relay(reactor):
        poll_lean(reactor)
    try:
        return cast(IService, make_service(reactor, options.settings))
    except ConfigError as fault:
        # Found only now, because plugins are asked; twistd has no usage errors at this point.
        raise SystemExit(f"twistd odp: {fault}") from None
