"""The login that a COM_CHANGE_USER begins: its questions are looked at, and a refusal is made as others' are."""

from __future__ import annotations

from odptwist.errors import OdpError
from odptwist.machines.clear_text import QuestionGuard
from odptwist.machines.server_login import unmasked
from odptwist.sessions.inbox import DIALOGUE_LIMIT
from odptwist.sessions.server import ServerSession
from odptwist.wire.framing import Deframer, frame
from odptwist.wire.responses import err_for

_QUESTIONS = (b"\xfe", b"\x01")


def guard_login(server: ServerSession, client_secure: bool, host: str) -> None:
    """Look at what a server session says next, until it has said OK or ERR.

    A question that must not reach the client, or cannot be read, becomes an error for it, and the end of the server
    session, which waits for an answer. `host` is the client's, for a refusal that hides it.
    """
    guard, deframer = QuestionGuard(), Deframer(DIALOGUE_LIMIT)

    def pass_on(data: bytes) -> None:
        ServerSession.dataReceived(server, data)

    def received(data: bytes) -> None:
        packet = None
        try:
            packet = deframer.receive_one(data)
            while packet is not None:
                if packet.payload[:1] not in _QUESTIONS:
                    server.divert(None)
                    last = unmasked(packet.payload, host) if packet.payload[:1] == b"\xff" else packet.payload
                    pass_on(frame(last, packet.sequence) + deframer.take_rest())
                    return
                guard.check(packet.payload, client_secure, server.is_secure)
                pass_on(frame(packet.payload, packet.sequence))
                packet = None
                packet = deframer.receive_one(b"")
        except OdpError as fault:
            if packet is None:
                server.divert(None)
                pass_on(deframer.take_rest())  # whoever follows the exchange finds the same fault
                return
            # Also a question that cannot be read: some clients look at its beginning only.
            server.divert(lambda data: None)
            server.transport.abortConnection()
            pass_on(frame(err_for(fault).encode(), packet.sequence))

    # As `expect_reply`: only this exchange pays for it.
    server.divert(received)
