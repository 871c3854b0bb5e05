"""Clients behind a real HAProxy, and real servers that are told where clients come from."""

from __future__ import annotations

import re
import socket
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

pymysql = pytest.importorskip("pymysql")

from pymysql.connections import Connection  # noqa: E402

from odptwist.snapshots import Address, HeaderVersion  # noqa: E402
from odptwist.wire.proxy_header import ProxyHeader  # noqa: E402
from tests.support.certificates import Authority  # noqa: E402
from tests.support.haproxy import HaProxy, section  # noqa: E402
from tests.support.raw_client import RawClient  # noqa: E402
from tests.support.servers import MariaDb, Proxy, Server, free_port, wait_until  # noqa: E402
from tests.support.sessions import connection_id, query, sessions, start_statement  # noqa: E402

# HAProxy's configuration, the proxy's, and the server's, as the documentation shows them.
PAGE = re.findall(
    r"^```(?:text|toml)\n(.*?)^```",
    (Path(__file__).parents[2] / "docs" / "howto" / "load-balancer.md").read_text(),
    re.DOTALL | re.MULTILINE,
)
TRUSTED = 'trusted = ["127.0.0.1"]'


@pytest.fixture(scope="module")
def mariadb(directory: Callable[[], Path], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Return a MariaDB that believes headers from 127.0.0.1, offers TLS, and has accounts for some addresses only."""
    pem = Authority().write(tmp_path_factory.mktemp("certificate"), "localhost", "127.0.0.1")
    networks = re.sub(r"10\.0\.0\.\d+", "127.0.0.1", PAGE[2].splitlines()[1])
    running = MariaDb(directory(), networks, f"ssl-cert={pem}", f"ssl-key={pem}")
    try:
        running.start()
        with running.connect() as root:
            query(
                root,
                "CREATE USER root@'127.%'",
                "GRANT ALL ON *.* TO root@'127.%' WITH GRANT OPTION",
                "CREATE USER app@'127.0.0.2' IDENTIFIED BY 'secret'",
                "GRANT ALL ON *.* TO app@'127.0.0.2'",
                "CREATE USER odp_monitor@'127.0.0.1' IDENTIFIED BY 'secret'",
                "GRANT ALL ON *.* TO odp_monitor@'127.0.0.1'",
            )
        yield running
    finally:
        running.stop()


@pytest.fixture
def behind(directory: Callable[[], Path]) -> Iterator[Callable[..., HaProxy]]:
    """Return a maker of HAProxies; the arguments are those of `section`, or a whole configuration is given."""
    running: list[HaProxy] = []

    def start(*arguments: str, text: str = "", **more: Any) -> HaProxy:
        running.append(HaProxy(directory(), text or section(*arguments, **more)))
        return running[-1]

    yield start
    for each in running:
        each.stop()


class Listening:
    """A proxy with a listener of its own for those with headers.

    Attributes:
        proxy: whose first port is a plain one.
        port: the listener's.
    """

    def __init__(self, start: Callable[..., Proxy], file: Path, port: int) -> None:
        self.proxy = start("--config", str(file))
        self.port = port

    @property
    def address(self) -> str:
        """The listener's address."""
        return f"127.0.0.1:{self.port}"

    def connect(self, **more: Any) -> Connection:
        """Return a connection to the listener."""
        return pymysql.connect(host="127.0.0.1", port=self.port, user="root@sys#ob1", **more)

    def log(self) -> str:
        """Return what the proxy has logged."""
        return self.proxy.child.output()


@pytest.fixture
def listen(start_proxy: Callable[..., Proxy], tmp_path: Path) -> Callable[..., Listening]:
    """Return a maker of proxies."""

    def start(address: str, policy: str = "required", cluster: str = "", top: str = "", more: str = "") -> Listening:
        port = free_port()
        file = tmp_path / f"{port}.toml"
        file.write_text(
            f'{top}\n[[listener]]\nport = "tcp:{port}:interface=127.0.0.1"\nproxy_protocol = "{policy}"\n{more}\n'
            f'[proxy_protocol]\n{TRUSTED}\n[[cluster]]\nname = "ob1"\n{cluster}\n'
            f'[[cluster.server]]\naddress = "{address}"\n'
        )
        return Listening(start_proxy, file, port)

    return start


def hosts(server: Server) -> dict[int, str]:
    """Return where a MariaDB's sessions come from, by their numbers."""
    with server.connect() as root:
        return dict(query(root, "SELECT id, host FROM information_schema.processlist"))


def opened_sessions(client: Connection) -> int:
    """Return how many client sessions a proxy has had, those of health checks included."""
    ((_, value, *_),) = query(client, "SHOW PROXYSTAT LIKE 'client_sessions_total'")
    return int(value)


def own_address(client: Any) -> str:
    """Return the address that a client has."""
    host, port = client._sock.getsockname()
    return f"{host}:{port}"


@pytest.mark.parametrize("option", ["send-proxy", "send-proxy-v2"])
def test_haproxy(option: str, server: Server, behind: Callable[..., HaProxy], listen: Callable[..., Listening]) -> None:
    """Sessions behind HAProxy have the clients' addresses, and its health checks leave nothing in the log."""
    listening = listen(server.address)
    balancer = behind(listening.address, option)
    assert balancer.status("status") == "UP"
    with balancer.connect() as client, balancer.connect("127.0.0.3") as other, listening.proxy.connect() as plain:
        shown = sessions(client)
        for each in (client, other):
            assert shown[each.thread_id()]["Host"] == own_address(each)
        assert shown[plain.thread_id()]["Host"] == own_address(plain)
        wait_until(lambda: opened_sessions(plain) > 10, what="some more checks")
    assert balancer.status("status") == "UP"
    assert "closed" not in listening.log(), listening.log()


@pytest.mark.parametrize("option", ["send-proxy", "send-proxy-v2"])
def test_haproxy_that_logs_in(
    option: str, mariadb: Server, behind: Callable[..., HaProxy], listen: Callable[..., Listening]
) -> None:
    """HAProxy's own login checks succeed, from its own address."""
    listening = listen(mariadb.address)
    balancer = behind(listening.address, option, lines=["option mysql-check user root"])
    wait_until(lambda: balancer.status("check_status") == "L7OK", what="a check by a login")
    with balancer.connect() as client:
        assert sessions(client)[client.thread_id()]["Host"] == own_address(client)


@pytest.mark.parametrize("way_in", ["send-proxy", "send-proxy-v2"])
@pytest.mark.parametrize("way_out", ["v1", "v2"])
def test_server_is_told(
    way_in: str, way_out: str, mariadb: Server, behind: Callable[..., HaProxy], listen: Callable[..., Listening]
) -> None:
    """MariaDB knows clients by their own addresses, in its list of processes and for its accounts."""
    listening = listen(mariadb.address, cluster=f'server_proxy_protocol = "{way_out}"')
    balancer = behind(listening.address, way_in)
    with balancer.connect() as client, balancer.connect("127.0.0.3") as other:
        found = hosts(mariadb)
        for each in (client, other):
            assert found[connection_id(each)] == own_address(each)
    with balancer.connect(user="app@sys#ob1", password="secret") as client:
        assert query(client, "SELECT CURRENT_USER()") == [("app@127.0.0.2",)]
    with pytest.raises(pymysql.MySQLError) as caught:
        balancer.connect("127.0.0.3", "app@sys#ob1", password="secret")
    assert caught.value.args[0] == 1045
    assert "'app'@'127.0.0.3'" in caught.value.args[1]


def test_as_documented(
    mariadb: Server, behind: Callable[..., HaProxy], start_proxy: Callable[..., Proxy], tmp_path: Path
) -> None:
    """What the documentation shows works like this, but for the addresses, which are all on this machine."""
    balancing, settings, _ = PAGE[:3]
    for number in (11, 12):
        port = free_port()
        text = settings.replace("10.0.0.21:3306", mariadb.address).replace("10.0.0.1", "127.0.0.1")
        file = tmp_path / f"{number}.toml"
        file.write_text(text.replace("port = 2883", f'port = "tcp:{port}:interface=127.0.0.1"'))
        start_proxy("--config", str(file))
        balancing = balancing.replace(f"10.0.0.{number}:2883", f"127.0.0.1:{port}")
    balancer = behind(text=balancing)
    for host in ("127.0.0.1", "127.0.0.2", "127.0.0.3"):
        with balancer.connect(host, "root") as client, balancer.connect(host, "root") as other:
            assert hosts(mariadb)[connection_id(client)] == own_address(client)
            query(other, f"KILL {client.thread_id()}")  # `balance source`: both are at the same proxy


def test_without_a_balancer(mariadb: Server, listen: Callable[..., Listening]) -> None:
    """A client of the proxy itself is told to the server as well, by its own address."""
    listening = listen(mariadb.address, cluster='server_proxy_protocol = "v2"')
    with listening.proxy.connect(bind_address="127.0.0.2") as client:
        assert hosts(mariadb)[connection_id(client)] == own_address(client)


def test_connections_of_the_proxys_own(mariadb: Server, listen: Callable[..., Listening]) -> None:
    """The service account comes from the proxy's address, a kill for a client from that client's."""
    top = '[service_account]\nuser = "odp_monitor"\npassword = "secret"\n'
    for version in ("v1", "v2"):
        listening = listen(mariadb.address, cluster=f'server_proxy_protocol = "{version}"', top=top)
        with (
            listening.proxy.connect("app", bind_address="127.0.0.2", password="secret") as victim,
            listening.proxy.connect("app", bind_address="127.0.0.2", password="secret") as killer,
            mariadb.connect() as root,
        ):
            of_monitor = "SELECT host FROM information_schema.processlist WHERE user = 'odp_monitor'"
            (host,) = {host.partition(":")[0] for (host,) in query(root, of_monitor)}
            assert host == "127.0.0.1"
            running = start_statement(victim, "SELECT SLEEP(30)", mariadb, root)
            query(killer, f"KILL QUERY {victim.thread_id()}")
            assert running.error()[0] == 1317
        listening.proxy.stop()


def test_tls_behind_the_header(
    mariadb: Server, behind: Callable[..., HaProxy], listen: Callable[..., Listening]
) -> None:
    """TLS begins behind the header on both sides, and can be required of one listener only."""
    pytest.importorskip("OpenSSL")
    listening = listen(
        mariadb.address,
        cluster='server_proxy_protocol = "v2"\nserver_tls = "required"',
        more='tls = "required"\n[tls]\ncertificate = "auto"',
    )
    balancer = behind(listening.address, "send-proxy-v2")
    with balancer.connect(ssl={"verify_mode": "none"}) as client:
        assert hosts(mariadb)[connection_id(client)] == own_address(client)
        ((_, cipher),) = query(client, "SHOW STATUS LIKE 'Ssl_cipher'")
        assert cipher
    with pytest.raises(pymysql.MySQLError) as caught:
        balancer.connect(ssl_disabled=True)
    assert caught.value.args[0] == 3159
    with listening.proxy.connect(ssl_disabled=True) as client:
        assert query(client, "SELECT 1") == [(1,)]


def test_balancer_that_says_much(mariadb: Server, listen: Callable[..., Listening]) -> None:
    """A client gets in however much was said of it: the server is told what it takes."""
    listening = listen(mariadb.address, cluster='server_proxy_protocol = "v2"')
    for size in (100, 201, 300, 5000):
        said = b"\2" + size.to_bytes(2, "big") + bytes(size)
        header = ProxyHeader(Address("127.0.0.1", 7), Address("127.0.0.1", 3306), said)
        with closing(raw(listening.port, header.encode(HeaderVersion.V2)[:14])) as client:
            rest = header.encode(HeaderVersion.V2)[16:28] + said
            client.socket.sendall(len(rest).to_bytes(2, "big") + rest)
            client.login("root@sys#ob1")


def test_chain(mariadb: Server, listen: Callable[..., Listening]) -> None:
    """Through two proxies in a row the client's address reaches the server."""
    inner = listen(mariadb.address, cluster='server_proxy_protocol = "v1"')
    outer = listen(inner.address, cluster='server_proxy_protocol = "v2"')
    with outer.proxy.connect(bind_address="127.0.0.2") as client:
        assert hosts(mariadb)[connection_id(client)] == own_address(client)
        assert "127.0.0.2" in {host.partition(":")[0] for host in hosts(mariadb).values()}


def test_optional(server: Server, behind: Callable[..., HaProxy], listen: Callable[..., Listening]) -> None:
    """Where a header is optional, clients with and without one are served at the same port."""
    listening = listen(server.address, "optional")
    balancer = behind(listening.address, "send-proxy-v2")
    with (
        balancer.connect() as told,
        listening.connect() as trusted,
        listening.connect(bind_address="127.0.0.2") as stranger,
    ):
        shown = sessions(told)
        for each in (told, trusted, stranger):
            assert shown[each.thread_id()]["Host"] == own_address(each)


def raw(port: int, said: bytes, host: str = "127.0.0.1") -> RawClient:
    """Return a client that has connected from an address and said something."""
    client = RawClient(port, host=host)
    client.socket.sendall(said)
    return client


def test_headers_that_others_wrote(server: Server, listen: Callable[..., Listening]) -> None:
    """Headers of other senders are read, with addresses of IPv6 and more that is said; strangers are not believed."""
    header = ProxyHeader(Address("2001:db8::9", 7), Address("::1", 3306), b"\5\0\x0277")
    for policy in ("required", "optional"):
        listening = listen(server.address, policy)
        with closing(raw(listening.port, header.encode(HeaderVersion.V2))) as client:
            client.login("root@sys#ob1")
            with listening.proxy.connect() as other:
                assert "2001:db8::9:7" in {row["Host"] for row in sessions(other).values()}
        with closing(raw(listening.port, header.encode(HeaderVersion.V1), "127.0.0.2")) as client:
            if policy == "optional":
                client.read_greeting()
            assert client.is_closed()
        listening.proxy.child.wait_for("closed: proxy_header 127.0.0.2 is not trusted to send a PROXY header")
        listening.proxy.stop()


def test_socket_of_both_families(
    server: Server, start_proxy: Callable[..., Proxy], directory: Callable[[], Path]
) -> None:
    """Clients of IPv4 get in on a socket of IPv6, where their addresses look like ::ffff:127.0.0.1."""
    port = free_port()
    file = directory() / "odp.toml"
    file.write_text(
        f'[[listener]]\nport = "tcp:{port}:interface=\\\\:\\\\:ffff\\\\:127.0.0.1"\n'
        f'[[cluster]]\nname = "ob1"\n[[cluster.server]]\naddress = "{server.address}"\n'
    )
    start_proxy("--config", str(file))
    with closing(RawClient(port)) as client:
        client.login("root@sys#ob1")


def test_unix_socket(server: Server, start_proxy: Callable[..., Proxy], directory: Callable[[], Path]) -> None:
    """A load balancer may come by a Unix socket."""
    base = directory()
    file = base / "odp.toml"
    file.write_text(
        f'[[listener]]\nport = "unix:{base}/s"\nproxy_protocol = "required"\n[proxy_protocol]\ntrusted = ["unix"]\n'
        f'[[cluster]]\nname = "ob1"\n[[cluster.server]]\naddress = "{server.address}"\n'
    )
    proxy = start_proxy("--config", str(file))
    with closing(RawClient(proxy.port)) as client:
        client.socket.close()
        client.socket = socket.socket(socket.AF_UNIX)
        client.socket.connect(f"{base}/s")
        client.socket.sendall(b"PROXY TCP4 203.0.113.9 203.0.113.1 7 8\r\n")
        client.login("root@sys#ob1")
        with proxy.connect() as other:
            assert "203.0.113.9:7" in {row["Host"] for row in sessions(other).values()}
