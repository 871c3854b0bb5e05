from __future__ import annotations

import contextlib
from collections.abc import Callable

from attrs import evolve
from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from odptwist.errors import MalformedPacket, SequenceError, WireError
from odptwist.machines.client_login import ClientLogin, State
from odptwist.machines.effects import Answered, Identified, WantsTls
from odptwist.wire.constants import CLIENT_PLUGIN_AUTH, CLIENT_PROTOCOL_41, CLIENT_SECURE_CONNECTION, CLIENT_SSL
from odptwist.wire.framing import Packet, frame
from odptwist.wire.handshake import HandshakeResponse, parse_greeting
from odptwist.wire.responses import Err, Ok
from tests.wire.strategies import MARIADB_GREETING, SEEKDB_GREETING, many, uint8

RESPONSE = HandshakeResponse(
    CLIENT_PROTOCOL_41 | CLIENT_SECURE_CONNECTION | CLIENT_PLUGIN_AUTH,
    1 << 24,
    45,
    "root@sys#ob1",
    b"\x14" * 20,
    plugin="mysql_native_password",
)
SSL_REQUEST = (CLIENT_PROTOCOL_41 | CLIENT_SSL).to_bytes(4, "little") + bytes(28)
SWITCH = b"\xfemysql_native_password\x00" + b"s" * 20 + b"\x00"
OK = Ok(status=2).encode(0)
ERR = Err(1045, "28000", "Access denied").encode()
GREETING = parse_greeting(SEEKDB_GREETING)


def greeted() -> ClientLogin:
    """Return a login that has greeted its client."""
    login = ClientLogin()
    login.greet(GREETING)
    return login


def identified() -> ClientLogin:
    """Return a login whose client has told who it is."""
    login = greeted()
    login.receive(Packet(1, RESPONSE.encode()))
    return login


def asked() -> ClientLogin:
    """Return a login whose client was asked something."""
    login = identified()
    login.ask(SWITCH)
    return login


def accepted() -> ClientLogin:
    """Return a login that is over."""
    login = identified()
    login.accept(OK)
    return login


def refused() -> ClientLogin:
    """Return a login that was refused."""
    login = identified()
    login.refuse(ERR)
    return login


BEGINNINGS: dict[State, Callable[[], ClientLogin]] = {
    State.GREETED: greeted,
    State.IDENTIFIED: identified,
    State.ASKED: asked,
    State.ACCEPTED: accepted,
    State.REFUSED: refused,
}


class LoginTests(SynchronousTestCase):
    """Whole logins."""

    def test_without_a_question(self) -> None:
        """A client greets back and is let in; the numbers of the packets go on."""
        login = ClientLogin()
        self.assertEqual(login.greet(GREETING), frame(SEEKDB_GREETING, 0))
        self.assertEqual(login.receive(Packet(1, RESPONSE.encode())), Identified(RESPONSE))
        self.assertEqual((login.state, login.asked), (State.IDENTIFIED, False))
        self.assertEqual(login.accept(OK), frame(OK, 2))
        self.assertIs(login.state, State.ACCEPTED)

    def test_golden_greetings(self) -> None:
        """The greetings of real servers go out as they came."""
        for payload in (SEEKDB_GREETING, MARIADB_GREETING):
            self.assertEqual(ClientLogin().greet(parse_greeting(payload)), frame(payload, 0))

    def test_asked_once(self) -> None:
        """A client is asked, and answers."""
        login = identified()
        self.assertEqual(login.ask(SWITCH), frame(SWITCH, 2))
        self.assertEqual((login.state, login.asked), (State.ASKED, True))
        self.assertEqual(login.receive(Packet(3, b"answer")), Answered(b"answer"))
        self.assertEqual((login.state, login.asked), (State.IDENTIFIED, True))
        self.assertEqual(login.accept(OK), frame(OK, 4))

    def test_asked_again_and_again(self) -> None:
        """A method of several steps is passed on, step by step."""
        login = identified()
        sequence = 2
        for question in (SWITCH, b"\x01\x04", b"\x01-----BEGIN PUBLIC KEY"):
            self.assertEqual(login.ask(question), frame(question, sequence))
            self.assertEqual(login.receive(Packet(sequence + 1, b"")), Answered(b""))
            sequence += 2
        self.assertEqual(login.refuse(ERR), frame(ERR, sequence))
        self.assertIs(login.state, State.REFUSED)

    def test_told_something_that_needs_no_answer(self) -> None:
        """A server may go on without an answer (the fast way of caching_sha2_password)."""
        login = asked()
        login.receive(Packet(3, b"answer"))
        self.assertEqual(login.ask(b"\x01\x03"), frame(b"\x01\x03", 4))
        self.assertEqual(login.accept(OK), frame(OK, 5))
        login = asked()
        self.assertEqual(login.ask(b"\x01\x04"), frame(b"\x01\x04", 3))
        self.assertEqual(login.receive(Packet(4, b"answer")), Answered(b"answer"))

    def test_numbers_wrap(self) -> None:
        """The numbers of the packets wrap at 256."""
        login = asked()
        for number in range(3, 600, 2):
            login.receive(Packet(number & 0xFF, b"answer"))
            self.assertEqual(login.ask(b"\x01"), frame(b"\x01", number + 1))

    def test_refused_at_once(self) -> None:
        """A client that cannot be understood is refused with the number that was due."""
        login = greeted()
        self.assertRaises(MalformedPacket, login.receive, Packet(1, b"?"))
        self.assertIs(login.state, State.GREETED)
        self.assertEqual(login.refuse(ERR), frame(ERR, 2))
        login = greeted()
        self.assertRaises(SequenceError, login.receive, Packet(9, RESPONSE.encode()))
        self.assertEqual(login.refuse(ERR), frame(ERR, 1))

    def test_tls(self) -> None:
        """TLS may be asked for once, where it was offered; the login goes on with the next number."""
        self.assertRaises(WireError, greeted().receive, Packet(1, SSL_REQUEST))
        login = ClientLogin()
        login.greet(evolve(GREETING, capabilities=GREETING.capabilities | CLIENT_SSL))
        self.assertEqual(login.receive(Packet(1, SSL_REQUEST)), WantsTls())
        self.assertIs(login.state, State.GREETED)
        self.assertRaises(WireError, login.receive, Packet(2, SSL_REQUEST))
        login = ClientLogin()
        login.greet(evolve(GREETING, capabilities=GREETING.capabilities | CLIENT_SSL))
        login.receive(Packet(1, SSL_REQUEST))
        self.assertRaises(SequenceError, login.receive, Packet(1, RESPONSE.encode()))
        self.assertEqual(login.receive(Packet(2, RESPONSE.encode())), Identified(RESPONSE))
        self.assertEqual(login.accept(OK), frame(OK, 3))


class StateTests(SynchronousTestCase):
    """Every input in every state."""

    def test_beginnings(self) -> None:
        """The tests below begin in the state that they name."""
        for state, begin in BEGINNINGS.items():
            self.assertIs(begin().state, state)
        self.assertEqual(set(BEGINNINGS), set(State))

    def test_table(self) -> None:
        """An input leads to the next state, or is a WireError and leads nowhere; nothing leads out of the last two."""
        inputs: dict[str, Callable[[ClientLogin], object]] = {
            "receive": lambda login: login.receive(Packet(login._sequence, RESPONSE.encode())),
            "ask": lambda login: login.ask(SWITCH),
            "accept": lambda login: login.accept(OK),
            "refuse": lambda login: login.refuse(ERR),
        }
        allowed = {
            (State.GREETED, "receive"): State.IDENTIFIED,
            (State.GREETED, "refuse"): State.REFUSED,
            (State.IDENTIFIED, "ask"): State.ASKED,
            (State.IDENTIFIED, "accept"): State.ACCEPTED,
            (State.IDENTIFIED, "refuse"): State.REFUSED,
            (State.ASKED, "receive"): State.IDENTIFIED,
            (State.ASKED, "ask"): State.ASKED,
            (State.ASKED, "accept"): State.ACCEPTED,
            (State.ASKED, "refuse"): State.REFUSED,
        }
        for state, begin in BEGINNINGS.items():
            for name, give in inputs.items():
                login = begin()
                if (state, name) in allowed:
                    give(login)
                else:
                    self.assertRaises(WireError, give, login)
                self.assertIs(login.state, allowed.get((state, name), state), f"{state}: {name}")

    def test_sequence(self) -> None:
        """A packet with another number than is due is an error in every state."""
        for state, begin in BEGINNINGS.items():
            due = begin()._sequence
            for number in range(256):
                if number != due:
                    login = begin()
                    self.assertRaises(SequenceError, login.receive, Packet(number, RESPONSE.encode()))
                    self.assertIs(login.state, state)

    @many
    @given(st.sampled_from(list(State)), st.lists(st.tuples(uint8, st.binary(max_size=80)), max_size=5))
    def test_any_packets(self, state: State, packets: list[tuple[int, bytes]]) -> None:
        """Whatever a client sends is taken or a WireError, and never leads to its acceptance."""
        login = BEGINNINGS[state]()
        for sequence, payload in packets:
            with contextlib.suppress(WireError):
                login.receive(Packet(login._sequence if sequence & 1 else sequence, payload))
            if state in (State.ACCEPTED, State.REFUSED):
                self.assertIs(login.state, state)
            else:
                self.assertIn(login.state, (State.GREETED, State.IDENTIFIED, State.ASKED))
