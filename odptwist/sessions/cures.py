"""What a server says otherwise than MySQL does, and clients mind, made right: for one response at a time.

As `ServerSession.expect_reply`: only the exchange that has such a response pays for the look at it.
"""

from __future__ import annotations

from collections.abc import Callable

from attrs import evolve

from odptwist.errors import WireError
from odptwist.sessions.inbox import DIALOGUE_LIMIT
from odptwist.sessions.server import ServerSession
from odptwist.wire.constants import SESSION_TRACK_STATE_CHANGE
from odptwist.wire.framing import Deframer, frame
from odptwist.wire.responses import OK_HEADER, Eof, OtherChange, parse_ok

_FLAG = OtherChange(SESSION_TRACK_STATE_CHANGE, b"1")
_FLAG_OF_SEEKDB = OtherChange(SESSION_TRACK_STATE_CHANGE, b"\x011")


def expect_eof(server: ServerSession) -> None:
    """Make an EOF of the next response if it is an OK: so seekdb 1.4 answers COM_SET_OPTION, and PHP's mysqli warns."""
    _change_first(server, _as_eof)


def expect_state_change(server: ServerSession) -> None:
    """If the next response is an OK that tells of a change of the session's state, let it do so as MySQL's does.

    seekdb 1.4 puts a length before the flag, and libmysqlclient 9 (the C extension of mysql-connector-python) takes the
    packet for malformed. It tells such changes after every `SET`, also with `session_track_state_change` off.
    """
    _change_first(server, _with_flag)


def _change_first(server: ServerSession, change: Callable[[bytes, int], bytes]) -> None:
    deframer = Deframer(DIALOGUE_LIMIT)

    def received(data: bytes) -> None:
        try:
            packet = deframer.receive_one(data)
            if packet is None:
                return
            passed_on = frame(change(packet.payload, server.agreed), packet.sequence) + deframer.take_rest()
        except WireError:
            passed_on = deframer.take_rest()  # whoever follows the exchange finds the same fault
        server.divert(None)
        server.dataReceived(passed_on)

    server.divert(received)


def _as_eof(payload: bytes, agreed: int) -> bytes:
    try:
        ok = parse_ok(payload, agreed)
    except WireError:
        return payload
    return Eof(ok.warnings, ok.status).encode() if ok.header == OK_HEADER else payload


def _with_flag(payload: bytes, agreed: int) -> bytes:
    try:
        ok = parse_ok(payload, agreed)
    except WireError:
        return payload
    if _FLAG_OF_SEEKDB not in ok.changes:
        return payload
    changes = tuple(_FLAG if change == _FLAG_OF_SEEKDB else change for change in ok.changes)
    return evolve(ok, changes=changes).encode(agreed)
