"""What the login machines ask their owners to do: values, no deeds."""

from __future__ import annotations

from attrs import field, frozen

from odptwist.wire.handshake import Greeting, HandshakeResponse


@frozen
class WantsTls:
    """The client begins TLS with its next byte."""


@frozen
class Identified:
    """The client has told who it is; find a server and log in there."""

    response: HandshakeResponse


@frozen
class Answered:
    """The client has answered what the server asked: pass it on."""

    payload: bytes = field(repr=False)


@frozen
class Greeted:
    """The server has greeted; answer with `ServerLogin.respond`."""

    greeting: Greeting


@frozen
class Ask:
    """The server asks the client something (AuthSwitchRequest, AuthNextFactor or AuthMoreData): pass it on.

    `further`: it asks for a proof beside that of the first factor, which only the client can have.
    """

    payload: bytes
    further: bool = False


@frozen
class LoggedIn:
    """The server accepted; `payload` is its OK packet."""

    payload: bytes
