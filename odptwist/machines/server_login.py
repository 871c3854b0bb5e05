"""The login at a server, done by the proxy on behalf of a client.

Source: MySQL internals, "Connection Phase"; design/backends.md 2.4 and 3.

The proxy never needs the password: it names an authentication plugin that no server has, so the server asks again
with the account's own plugin and its own salt, and that question is passed on to the client. A server asks only once
this way, which matters: clients understand one AuthSwitchRequest per login, not two.
"""

from __future__ import annotations

from enum import Enum, unique
from typing import Final

from odptwist.errors import (
    LoginImpossible,
    LoginRefused,
    MalformedPacket,
    SequenceError,
    SqlError,
    WireError,
)
from odptwist.identity import Identity
from odptwist.machines.clear_text import DIALOG
from odptwist.machines.effects import Ask, Greeted, LoggedIn
from odptwist.wire.constants import (
    CLIENT_CAN_HANDLE_EXPIRED_PASSWORDS,
    CLIENT_CONNECT_ATTRS,
    CLIENT_CONNECT_WITH_DB,
    CLIENT_DEPRECATE_EOF,
    CLIENT_FOUND_ROWS,
    CLIENT_IGNORE_SIGPIPE,
    CLIENT_IGNORE_SPACE,
    CLIENT_INTERACTIVE,
    CLIENT_LOCAL_FILES,
    CLIENT_LONG_FLAG,
    CLIENT_LONG_PASSWORD,
    CLIENT_MULTI_RESULTS,
    CLIENT_MULTI_STATEMENTS,
    CLIENT_NO_SCHEMA,
    CLIENT_ODBC,
    CLIENT_PLUGIN_AUTH,
    CLIENT_PLUGIN_AUTH_LENENC_CLIENT_DATA,
    CLIENT_PROTOCOL_41,
    CLIENT_PS_MULTI_RESULTS,
    CLIENT_RESERVED,
    CLIENT_SECURE_CONNECTION,
    CLIENT_SESSION_TRACK,
    CLIENT_TRANSACTIONS,
    ER_ACCESS_DENIED_ERROR,
    MAX_PAYLOAD,
    MULTI_FACTOR_AUTHENTICATION,
)
from odptwist.wire.framing import Packet, frame
from odptwist.wire.handshake import (
    SSL_REQUEST_SIZE,
    Attribute,
    Greeting,
    HandshakeResponse,
    parse_auth_next_factor,
    parse_auth_switch_request,
    parse_greeting,
)
from odptwist.wire.primitives import decode_text
from odptwist.wire.responses import Err, parse_err
from odptwist.wire.scramble import SALT_SIZE, native_answer, xor

# What can be promised to a client, if its servers have it: all that leaves packets as they are, or that the exchange
# machine follows. TLS and compression end at the proxy and are not here.
PASSED_ON: Final = (
    CLIENT_LONG_PASSWORD
    | CLIENT_FOUND_ROWS
    | CLIENT_LONG_FLAG
    | CLIENT_CONNECT_WITH_DB
    | CLIENT_NO_SCHEMA
    | CLIENT_ODBC
    | CLIENT_LOCAL_FILES
    | CLIENT_IGNORE_SPACE
    | CLIENT_PROTOCOL_41
    | CLIENT_INTERACTIVE
    | CLIENT_IGNORE_SIGPIPE
    | CLIENT_TRANSACTIONS
    | CLIENT_RESERVED
    | CLIENT_SECURE_CONNECTION
    | CLIENT_MULTI_STATEMENTS
    | CLIENT_MULTI_RESULTS
    | CLIENT_PS_MULTI_RESULTS
    | CLIENT_PLUGIN_AUTH
    | CLIENT_CONNECT_ATTRS
    | CLIENT_PLUGIN_AUTH_LENENC_CLIENT_DATA
    | CLIENT_CAN_HANDLE_EXPIRED_PASSWORDS
    | CLIENT_SESSION_TRACK
    | CLIENT_DEPRECATE_EOF
    | MULTI_FACTOR_AUTHENTICATION
)
# Promised before any server was heard: what every server since MySQL 5.5 has.
FALLBACK: Final = PASSED_ON & ~(
    CLIENT_SESSION_TRACK | CLIENT_DEPRECATE_EOF | CLIENT_CAN_HANDLE_EXPIRED_PASSWORDS | MULTI_FACTOR_AUTHENTICATION
)
# Both sides must agree on these, or the stream means something else on either side.
_FRAMING: Final = CLIENT_DEPRECATE_EOF | CLIENT_SESSION_TRACK
# These shape the handshake response only, so the server's own word decides.
_RESPONSE_ONLY: Final = CLIENT_PLUGIN_AUTH_LENENC_CLIENT_DATA
_NEEDED: Final = CLIENT_PROTOCOL_41 | CLIENT_SECURE_CONNECTION | CLIENT_PLUGIN_AUTH

NATIVE_PASSWORD: Final = "mysql_native_password"  # noqa: S105 - a plugin's name
# No server has it, so every server asks again. seekdb takes an empty answer for an account without a password and
# does not ask, so there must be some bytes.
ASK_AGAIN_PLUGIN: Final = "odp_ask_again"
ASK_AGAIN_ANSWER: Final = b"?" * 20

_CONNECTION_ID_OF_OCEANBASE: Final = 1 << 31
# Ordinary or secret, and whether it is the last one.
_DIALOG_QUESTIONS: Final = (b"\x02", b"\x03", b"\x04", b"\x05")
_MASKED_HOST: Final = "xxx.xxx.xxx.xxx"


def authenticates_tenants(greeting: Greeting) -> bool:
    """Whether a server is a real OceanBase, which knows `user@tenant`.

    OceanBase and seekdb greet alike (an old MySQL version without DEPRECATE_EOF), but OceanBase's connection ids have
    bit 31 set (spec 5.5), and those of seekdb, MariaDB and MySQL are small.
    """
    return bool(greeting.thread_id & _CONNECTION_ID_OF_OCEANBASE) and not greeting.capabilities & CLIENT_DEPRECATE_EOF


@unique
class State(Enum):
    """Where a login at a server stands. Nothing leads out of the last two."""

    CONNECTED = "connected"
    GREETED = "greeted"
    RESPONDED = "responded"
    ACCEPTED = "accepted"
    REFUSED = "refused"


class ServerLogin:
    """Reads what a server sends during a login, and says what to send it."""

    __slots__ = ("_factors", "_in_dialog", "_sequence", "state")

    def __init__(self) -> None:
        self.state = State.CONNECTED
        self._factors = self._in_dialog = False
        self._sequence = 0

    def receive(self, packet: Packet) -> Greeted | Ask | LoggedIn:
        """Take a packet of the server.

        Raises:
            LoginRefused: the server sent an ERR packet.
            WireError: it is not one that is allowed now.
        """
        if packet.sequence != self._sequence:
            raise SequenceError(f"packet {packet.sequence} of the server's login came where {self._sequence} was due")
        self._sequence = (packet.sequence + 1) & 0xFF
        payload = packet.payload
        first = payload[:1]
        if first == b"\xff" and self.state in (State.CONNECTED, State.RESPONDED):
            parse_err(payload)  # what cannot be read is no refusal
            self.state = State.REFUSED
            raise LoginRefused(payload)
        if self.state is State.CONNECTED:
            greeting = parse_greeting(payload)
            self.state = State.GREETED
            return Greeted(greeting)
        if self.state is State.RESPONDED:
            if first == b"\x00":
                self.state = State.ACCEPTED
                return LoggedIn(payload)
            if first == b"\xfe":
                self._in_dialog = parse_auth_switch_request(payload).plugin == DIALOG
                return Ask(payload)
            if first == b"\x01" or (self._in_dialog and first in _DIALOG_QUESTIONS):
                return Ask(payload)
            if first == b"\x02" and self._factors:
                parse_auth_next_factor(payload)  # what cannot be read is no question
                return Ask(payload, further=True)
        raise MalformedPacket("a packet that has no place in a login")

    def request_tls(self, response: HandshakeResponse) -> bytes:
        """Return the bytes after which TLS begins, and `response` is due; it must have CLIENT_SSL.

        Raises:
            WireError: the server waits for no response.
        """
        if self.state is not State.GREETED:
            raise WireError("a request for TLS that no server waits for")
        return self._send(response.encode()[:SSL_REQUEST_SIZE])

    def respond(self, response: HandshakeResponse) -> bytes:
        """Return the bytes of the handshake response.

        Raises:
            MalformedPacket: a name of the client has a NUL inside.
            WireError: the server waits for no response.
        """
        if self.state is not State.GREETED:
            raise WireError("a handshake response that no server waits for")
        payload = response.encode()
        self.state = State.RESPONDED
        self._factors = bool(response.capabilities & MULTI_FACTOR_AUTHENTICATION)
        return self.answer(payload)

    def answer(self, payload: bytes) -> bytes:
        """Return the bytes of an answer to what the server asked."""
        if self.state is not State.RESPONDED:
            raise WireError("an answer that no server waits for")
        return self._send(payload)

    def _send(self, payload: bytes) -> bytes:
        sequence, self._sequence = self._sequence, (self._sequence + len(payload) // MAX_PAYLOAD + 1) & 0xFF
        return frame(payload, sequence)


def server_response(
    client: HandshakeResponse,
    greeting: Greeting,
    identity: Identity,
    agreed: int,
    key: bytes | None = None,
    salt: bytes = b"",
) -> HandshakeResponse:
    """Return the handshake response for a server, from what the client sent to the proxy.

    Args:
        client: the client's response.
        greeting: the server's.
        identity: from the client's user name.
        agreed: the capabilities that proxy and client agreed on.
        key: SHA1(password), empty for an account without one; None if it is not known, and the client is asked.
        salt: the proxy's own, that the client has answered, where it cannot be asked again; else empty.

    Raises:
        LoginImpossible: the server lacks something that was promised to the client.
        SqlError: the account must be asked for a password, and the client cannot be asked.
    """
    if agreed & _FRAMING & ~greeting.capabilities:
        raise LoginImpossible("the server lacks capabilities that the client was promised; log in again")
    capabilities = (agreed & (greeting.capabilities | CLIENT_LONG_PASSWORD) & ~_RESPONSE_ONLY) | _NEEDED
    capabilities |= greeting.capabilities & _RESPONSE_ONLY
    # The database may be one that the client has chosen since, so its flag at login means nothing.
    capabilities = capabilities & ~CLIENT_CONNECT_WITH_DB | (CLIENT_CONNECT_WITH_DB if client.database else 0)
    attributes = client.attributes
    if key is not None:
        plugin, answer = NATIVE_PASSWORD, _answer(key, greeting.salt)
    elif not client.auth_response:
        plugin, answer = greeting.plugin, b""
    elif salt and takes_proxy_scramble(client, greeting):
        plugin, answer = NATIVE_PASSWORD, client.auth_response
        attributes = (*_told_to_oceanbase(salt, greeting), *attributes)
        capabilities |= CLIENT_CONNECT_ATTRS
    elif not client.capabilities & CLIENT_PLUGIN_AUTH:
        raise SqlError(
            1251,
            "08004",
            "Client does not support authentication protocol requested by server; consider upgrading MySQL client",
        )
    else:
        plugin, answer = ASK_AGAIN_PLUGIN, ASK_AGAIN_ANSWER
    return HandshakeResponse(
        capabilities=capabilities,
        max_packet_size=client.max_packet_size,
        charset=client.charset,
        user=server_user(identity, greeting),
        auth_response=answer,
        database=client.database,
        plugin=plugin,
        attributes=attributes,
    )


def unmasked(refusal: bytes, host: str) -> bytes:
    """Return an ERR packet as other servers send it to a client at `host`, empty for a Unix socket.

    seekdb 1.4 refuses logins with another sqlstate, and hides the host.
    """
    if _MASKED_HOST.encode() not in refusal:
        return refusal
    err = parse_err(refusal)
    if err.code != ER_ACCESS_DENIED_ERROR:
        return refusal
    return Err(err.code, "28000", err.message.replace(_MASKED_HOST, host or "localhost")).encode()


def takes_proxy_scramble(client: HandshakeResponse, greeting: Greeting) -> bool:
    """Whether a server can check the client's answer to the proxy's salt: OceanBase can, told the difference."""
    native = client.plugin in (None, NATIVE_PASSWORD) and len(client.auth_response) == SALT_SIZE
    return native and authenticates_tenants(greeting)


def _told_to_oceanbase(salt: bytes, greeting: Greeting) -> tuple[Attribute, ...]:
    """Return the connect attributes by which an OceanBase server knows a proxy, and its scramble (spec 7.3, 7.4)."""
    scramble = xor(salt[:SALT_SIZE], greeting.salt[:SALT_SIZE])
    return (
        Attribute("__mysql_client_type", "__ob_proxy"),
        Attribute("__proxy_capability_flag", "0"),
        Attribute("__proxy_scramble", decode_text(scramble)),
    )


def _answer(key: bytes, salt: bytes) -> bytes:
    return native_answer(key, salt) if key else b""


def server_user(identity: Identity, greeting: Greeting) -> str:
    """Return the user name as the server wants it: with the tenant only where the server knows tenants."""
    return f"{identity.user}@{identity.tenant}" if authenticates_tenants(greeting) else identity.user
