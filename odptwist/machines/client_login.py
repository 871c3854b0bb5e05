"""The login of a client, seen by the proxy.

Source: MySQL internals, "Connection Phase".

    GREETED --SSLRequest--> GREETED, once and if it was offered
    GREETED --response--> IDENTIFIED --ask--> ASKED --answer--> IDENTIFIED ...
    IDENTIFIED, ASKED --accept--> ACCEPTED        all of these three --refuse--> REFUSED
"""

from __future__ import annotations

from enum import Enum, unique

from odptwist.errors import SequenceError, WireError
from odptwist.machines.effects import Answered, Identified, WantsTls
from odptwist.wire.constants import CLIENT_SSL, MAX_PAYLOAD
from odptwist.wire.framing import Packet, frame
from odptwist.wire.handshake import Greeting, is_ssl_request, parse_handshake_response


@unique
class State(Enum):
    """Where a client's login stands. Nothing leads out of the last two."""

    GREETED = "greeted"
    IDENTIFIED = "identified"
    ASKED = "asked"
    ACCEPTED = "accepted"
    REFUSED = "refused"


class ClientLogin:
    """Says what to send to a client that logs in, and reads what it answers.

    Attributes:
        state: where it stands.
        asked: whether the client was asked anything yet. It may be asked by one server only.
    """

    __slots__ = ("_sequence", "_tls_offered", "asked", "state")

    def __init__(self) -> None:
        self.state = State.GREETED
        self.asked = False
        self._sequence = 0
        self._tls_offered = False

    @property
    def listens(self) -> bool:
        """Whether a packet of the client is due; others are for later, such as a goodbye behind the login."""
        return self.state in (State.GREETED, State.ASKED)

    def greet(self, greeting: Greeting) -> bytes:
        """Return the first bytes for the client."""
        self._tls_offered = bool(greeting.capabilities & CLIENT_SSL)
        return self._send(greeting.encode())

    def receive(self, packet: Packet) -> WantsTls | Identified | Answered:
        """Take a packet of the client.

        Raises:
            WireError: it is not one that is allowed now. Refuse and drop.
        """
        if packet.sequence != self._sequence:
            raise SequenceError(f"packet {packet.sequence} of the login came where {self._sequence} was due")
        self._sequence = (packet.sequence + 1) & 0xFF
        if self.state is State.GREETED:
            if is_ssl_request(packet.payload):
                if not self._tls_offered:
                    raise WireError("a request for TLS, which was not offered")
                self._tls_offered = False
                return WantsTls()
            response = parse_handshake_response(packet.payload)
            self.state = State.IDENTIFIED
            return Identified(response)
        if self.state is State.ASKED:
            self.state = State.IDENTIFIED
            return Answered(packet.payload)
        raise WireError("a packet that nobody asked for, amid the login")

    def ask(self, payload: bytes) -> bytes:
        """Return the bytes that pass on what the server asks; it may ask again before the client has answered."""
        self._leave(State.IDENTIFIED, State.ASKED)
        self.state = State.ASKED
        self.asked = True
        return self._send(payload)

    def accept(self, payload: bytes) -> bytes:
        """Return the bytes of the OK packet that ends the login."""
        self._leave(State.IDENTIFIED, State.ASKED)
        self.state = State.ACCEPTED
        return self._send(payload)

    def refuse(self, payload: bytes) -> bytes:
        """Return the bytes of the ERR packet that ends the login, and the session."""
        self._leave(State.GREETED, State.IDENTIFIED, State.ASKED)
        self.state = State.REFUSED
        return self._send(payload)

    def _leave(self, *states: State) -> None:
        if self.state not in states:
            raise WireError(f"a login that is {self.state.value} cannot go on like this")

    def _send(self, payload: bytes) -> bytes:
        sequence, self._sequence = self._sequence, (self._sequence + len(payload) // MAX_PAYLOAD + 1) & 0xFF
        return frame(payload, sequence)
