"""What a server says otherwise than MySQL does, and clients mind, made right: for one response at a time.

As `ServerSession.expect_reply`: only the exchange that has such a response pays for the look at it.
"""

from __future__ import annotations

from odptwist.errors import WireError
from odptwist.sessions.inbox import DIALOGUE_LIMIT
from odptwist.sessions.server import ServerSession
from odptwist.wire.framing import Deframer, frame
from odptwist.wire.responses import OK_HEADER, Eof, parse_ok


def expect_eof(server: ServerSession) -> None:
    """Make an EOF of the next response if it is an OK: so seekdb 1.4 answers COM_SET_OPTION, and PHP's mysqli warns."""
    deframer = Deframer(DIALOGUE_LIMIT)

    def received(data: bytes) -> None:
        try:
            packet = deframer.receive_one(data)
            if packet is None:
                return
            passed_on = frame(_as_eof(packet.payload, server.agreed), packet.sequence) + deframer.take_rest()
        except WireError:
            passed_on = deframer.take_rest()  # whoever follows the exchange finds the same fault
        del server.dataReceived
        server.dataReceived(passed_on)

    server.dataReceived = received  # type: ignore[method-assign]


def _as_eof(payload: bytes, agreed: int) -> bytes:
    try:
        ok = parse_ok(payload, agreed)
    except WireError:
        return payload
    return Eof(ok.warnings, ok.status).encode() if ok.header == OK_HEADER else payload
