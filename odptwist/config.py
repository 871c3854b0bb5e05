"""Settings: the TOML file, the command line, and the checks that both pass through.

A fault names its key; all faults of a file are reported at once.
"""

from __future__ import annotations

import os
import tomllib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from attrs import Factory, field, frozen
from cattrs import ClassValidationError, Converter, transform_error
from cattrs.v import format_exception

from odptwist.errors import ConfigError
from odptwist.snapshots import Address

DEFAULT_PORT = "2883"
DEFAULT_CLUSTER = "odp"
DEFAULT_DATA_DIR = "odp-data"
DEFAULT_TENANTS = ("sys",)
DEFAULT_KILLER = "kill"
MAX_KILL_TIMEOUT = 3600
CONFIG_SIZE_LIMIT = 1024 * 1024


@frozen
class ClusterSettings:
    """One cluster; without servers it is served by the embedded one.

    `killers` has the name of the `IBackendKiller` for each of `servers`.
    """

    name: str
    servers: tuple[Address, ...] = ()
    tenants: tuple[str, ...] = DEFAULT_TENANTS
    killers: tuple[str, ...] = ()


@frozen
class KillSettings:
    """How statements are stopped on servers.

    `user` and `password` are an account for what neither the asker's nor the victim's can stop; no `user`: there is
    none. `timeout` is for a server's answer, in seconds. `abandoned`: whether a statement is stopped when its client
    has gone.
    """

    user: str = ""
    password: str = field(default="", repr=False)
    timeout: float = 5.0
    abandoned: bool = True


@frozen
class Settings:
    """What a proxy runs with.

    `ports` are endpoint descriptions as Twisted understands them, or bare numbers.
    """

    ports: tuple[str, ...] = (DEFAULT_PORT,)
    clusters: tuple[ClusterSettings, ...] = (ClusterSettings(DEFAULT_CLUSTER),)
    data_dir: Path = Path(DEFAULT_DATA_DIR)
    kill: KillSettings = KillSettings()

    @property
    def embedded(self) -> bool:
        """Whether the proxy starts a server of its own."""
        return not any(cluster.servers for cluster in self.clusters)

    @property
    def endpoints(self) -> tuple[str, ...]:
        """Return `ports` as endpoint descriptions.

        A bare number listens on every address; before the embedded server, whose root has no password, on loopback.
        """
        # Twisted's own backlog of 50 is soon full when a pool opens its connections at once.
        suffix = ":backlog=1024" + (":interface=127.0.0.1" if self.embedded else "")
        return tuple(f"tcp:{port}{suffix}" if port.isdigit() else port for port in self.ports)


@frozen
class _ServerTable:
    address: str
    killer: str = DEFAULT_KILLER


@frozen
class _ClusterTable:
    name: str
    tenants: list[str] = Factory(lambda: list(DEFAULT_TENANTS))
    server: list[_ServerTable] = Factory(list)


@frozen
class _File:
    """The keys of a settings file, as they stand there."""

    port: list[int | str] = Factory(list)
    server: list[str] = Factory(list)
    cluster_name: str = ""
    data_dir: str = ""
    cluster: list[_ClusterTable] = Factory(list)
    kill: KillSettings = KillSettings()


def _converter() -> Converter:
    converter = Converter(forbid_extra_keys=True)

    def exactly(name: str, *kinds: type) -> Any:
        def structure(value: Any, _: type) -> Any:
            # cattrs would turn 7 into "7" and "7" into 7; a settings file should say what it means.
            if isinstance(value, bool) is not (kinds == (bool,)) or not isinstance(value, kinds):
                raise TypeError(f"must be {name}")
            return value

        return structure

    converter.register_structure_hook(str, exactly("a text", str))
    converter.register_structure_hook(bool, exactly("true or false", bool))
    converter.register_structure_hook(float, exactly("a number", float, int))

    def port(value: Any, _: Any) -> int | str:
        if isinstance(value, bool) or not isinstance(value, int | str):
            raise TypeError("must be a number or an endpoint description")
        return value

    converter.register_structure_hook(int | str, port)
    return converter


_CONVERTER = _converter()


def parse_address(text: str) -> Address:
    """Read `host:port`, `[ipv6]:port` or `unix:/path`.

    Raises:
        ValueError: with a text that says what is missing.
    """
    if text.startswith("unix:"):
        path = text.removeprefix("unix:")
        if not path.startswith("/"):
            raise ValueError(f"'{text}': a Unix socket needs an absolute path, as in unix:/run/mysqld/mysqld.sock")
        return Address(path=path)
    host, colon, port = text.rpartition(":")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    elif ":" in host:
        raise ValueError(f"'{text}': an IPv6 address needs brackets, as in [::1]:3306")
    if not colon or not host or not port:
        raise ValueError(f"'{text}': a server is host:port, as in 127.0.0.1:3306, or unix:/path")
    if not (port.isascii() and port.isdigit()) or not 0 < int(port) < 65536:
        raise ValueError(f"'{text}': the port must be a number from 1 to 65535")
    return Address(host=host, port=int(port))


def check_port(text: str) -> str:
    """Return a bare port number or an endpoint description as it is.

    Raises:
        ValueError: it is neither. Of descriptions, only the number of tcp ones is checked here.
    """
    kind, colon, rest = text.partition(":")
    number = rest.partition(":")[0].removeprefix("port=") if kind in ("tcp", "tcp6") else kind if not colon else "0"
    if not colon and not (text.isascii() and text.isdigit()):
        raise ValueError(f"'{text}': a port is a number or an endpoint description, as in tcp:2883:interface=127.0.0.1")
    if not (number.isascii() and number.isdigit()) or int(number) > 65535:
        raise ValueError(f"'{text}': the port must be a number from 0 to 65535")
    return text


def check_name(text: str) -> str:
    """Return a cluster name as it is.

    Raises:
        ValueError: a client could not spell it in a user name.
    """
    if not text or any(c in text for c in "@#:") or not text.isprintable():
        raise ValueError(f"'{text}': a cluster name is not empty and has none of the characters @ # :")
    return text


def load_settings(
    path: str | None = None,
    ports: Sequence[str] = (),
    servers: Sequence[str] = (),
    cluster_name: str | None = None,
    data_dir: str | None = None,
) -> Settings:
    """Return the settings of a file (or none), overridden by what the command line says.

    Raises:
        ConfigError: with every fault that was found.
    """
    file = _read(path) if path else _File()
    faults: list[str] = []

    def checked(key: str, check: Any, value: str) -> Any:
        try:
            return check(value)
        except ValueError as fault:
            faults.append(f"{key}: {fault}")
            return None

    port_key = "--port" if ports else "port"
    found_ports = tuple(checked(port_key, check_port, str(port)) for port in ports or file.port or (DEFAULT_PORT,))
    name_key = "--cluster-name" if cluster_name is not None else "cluster_name"
    name = cluster_name if cluster_name is not None else file.cluster_name or DEFAULT_CLUSTER
    checked(name_key, check_name, name)
    if file.cluster and not servers and (cluster_name is not None or file.cluster_name):
        faults.append(f"{name_key}: cannot stand beside [[cluster]], which has a name of its own")
    clusters = _clusters(file, checked)
    faults += _check_clusters(clusters)
    if servers or file.server or not file.cluster:
        server_key = "--server" if servers else "server"
        addresses = tuple(checked(server_key, parse_address, text) for text in servers or file.server)
        if file.cluster and not servers:
            faults.append("server: cannot stand beside [[cluster]]; put it into a [[cluster.server]]")
        clusters = (ClusterSettings(name, addresses),)
    if not 0 < file.kill.timeout <= MAX_KILL_TIMEOUT:
        faults.append(f"kill.timeout: {file.kill.timeout} is not between 0 and {MAX_KILL_TIMEOUT} seconds")
    if file.kill.password and not file.kill.user:
        faults.append("kill.password: needs kill.user")
    if faults:
        raise ConfigError(*faults)
    return Settings(found_ports, clusters, Path(data_dir or file.data_dir or DEFAULT_DATA_DIR), file.kill)


def _clusters(file: _File, checked: Callable[[str, Any, str], Any]) -> tuple[ClusterSettings, ...]:
    return tuple(
        ClusterSettings(
            checked(f"cluster[{number}].name", check_name, table.name),
            tuple(
                checked(f"cluster[{number}].server[{place}].address", parse_address, server.address)
                for place, server in enumerate(table.server)
            ),
            tuple(table.tenants),
            tuple(server.killer for server in table.server),
        )
        for number, table in enumerate(file.cluster)
    )


def _check_clusters(clusters: Sequence[ClusterSettings]) -> list[str]:
    faults = []
    names = [cluster.name for cluster in clusters]
    for number, cluster in enumerate(clusters):
        if cluster.name in names[:number]:
            faults.append(f"cluster[{number}].name: '{cluster.name}' is there twice")
        if not cluster.servers and len(clusters) > 1:
            faults.append(f"cluster[{number}]: needs a [[cluster.server]]; only a sole cluster can be the embedded one")
        if not cluster.tenants or not all(cluster.tenants):
            faults.append(f"cluster[{number}].tenants: needs at least one name, and none that is empty")
    return faults


def _read(path: str) -> _File:
    try:
        with open(path, "rb") as stream:
            text = stream.read(CONFIG_SIZE_LIMIT + 1)
        if len(text) > CONFIG_SIZE_LIMIT:
            raise ConfigError(f"{path}: more than {CONFIG_SIZE_LIMIT} bytes")
        table = tomllib.loads(text.decode())
    except OSError as fault:
        raise ConfigError(f"{path}: {os.strerror(fault.errno or 0)}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as fault:
        raise ConfigError(f"{path}: not a TOML file: {fault}") from None
    for key in ("port", "server"):
        # One value may stand without brackets.
        if key in table and not isinstance(table[key], list):
            table[key] = [table[key]]
    try:
        return _CONVERTER.structure(table, _File)
    except ClassValidationError as fault:
        lines = transform_error(fault, path="settings", format_exception=_explained)
        raise ConfigError(*(f"{path}: {line}" for line in lines)) from None


def _explained(fault: BaseException, kind: Any) -> str:
    return str(fault) if isinstance(fault, TypeError) else format_exception(fault, kind)
