"""The relay in C: exchanges that need no look pass between client and server without a call from Python.

`_hub.c` has an epoll of its own. Our transports are read there, and the reactor's epoll is one descriptor among them;
so a turn of the reactor waits in C, and goes on in C as long as only *plain* events come. Every other event goes its
way through Python as ever, and the turn ends after it.

There are no two states to keep in step: before every event the relay looks at the sessions themselves. What it asks
stands below, and only there. A value that is not *the* value of the list sends the event through Python, so whoever
gives a session a new reason to be looked at makes it a slot, and adds a line.

What the relay does then is what `Conversation.dataReceived`, `Conversation.forward`, `ServerSession.dataReceived`,
`Conversation.responded` and `Conversation.finished` do when all that is so, and with an execute of a prepared statement
what `BinaryStatements` does when only the statement's number is another one at the server. In a cluster of several
servers it asks Python where each command goes (`Holding.choose`), and does the rest if that is where the last one went.
Whoever changes one of these
changes `_exchanges.h`; the tests hold the two against each other.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any, Final

from attrs import frozen
from twisted.internet.main import CONNECTION_DONE, CONNECTION_LOST
from twisted.logger import Logger
from twisted.python.failure import Failure

from odptwist.errors import CloseReason
from odptwist.machines.exchange import LOOK_LIMIT, Tracker
from odptwist.machines.gear import GEAR, MAY_RELAY
from odptwist.machines.prepared import PreparedStatement, PreparedStatements, ServerStatement, ServerStatements
from odptwist.machines.session_state import SessionState
from odptwist.sessions.binary import BinaryStatements
from odptwist.sessions.choice import Choice
from odptwist.sessions.client import ClientSession
from odptwist.sessions.conversation import SHOWN
from odptwist.sessions.counting import KINDS, SIZES, SMALL, Counts
from odptwist.sessions.polling import can_replace_loop
from odptwist.sessions.server import ServerSession
from odptwist.sessions.transport import SUPPORTED, DirectTransport

# As `DirectTransport.write` asks before it sends at once.
WRITABLE: Final = {"TLS": False, "_tempDataLen": 0, "dataBuffer": b"", "connected": 1, "disconnecting": 0}

# A client session whose next command may pass, if that is a plain one.
ASKING: Final = {
    "reason": None,
    "doom": None,
    "mark": "",
    "dressing": False,  # the command in hand is changed on its way
    "observed": False,
    "unsent": (),
    "_on_end": None,
    "_held": False,  # nothing new while a kill is in flight
    "_paused": False,
    "_client_full": False,
    "_server_full": False,
}

# A client session that has nothing to do at the end of a response but to count it.
ENDING: Final = {"reason": None, "mark": "", "observed": False, "_on_end": None}

# Its tracker: nothing was sent ahead, nothing of a command is still to come.
TRACKING: Final = {"kept": b"", "_tail": 0}

# The server session that is bound, in both directions. A kill that names it holds it.
SERVING: Final = {"reason": None, "_inbox": None, "keeper": None, "holds": 0, "diverted": False}

# The prepared statements of a client session: nothing has to go to a server before an execute.
KEEPING: Final = {"_long_data_size": 0}

# One of them, that any server session may execute.
PASSING: Final = {"passes": True, "sole": None}


@frozen
class Layout:
    """What the relay looks at: the classes whose slots it reads, its conditions on them, and limits.

    Only these very classes: a session of a class made of them goes through Python.
    """

    transport: type = DirectTransport
    client: type = ClientSession
    server: type = ServerSession
    tracker: type = Tracker
    counts: type = Counts
    state: type = SessionState
    choice: type = Choice
    binary: type = BinaryStatements
    statements: type = PreparedStatements
    statement: type = PreparedStatement
    prepared: type = ServerStatements
    server_statement: type = ServerStatement
    writable: Mapping[str, Any] = WRITABLE
    asking: Mapping[str, Any] = ASKING
    ending: Mapping[str, Any] = ENDING
    tracking: Mapping[str, Any] = TRACKING
    serving: Mapping[str, Any] = SERVING
    keeping: Mapping[str, Any] = KEEPING
    passing: Mapping[str, Any] = PASSING
    kinds: tuple[bytes, ...] = KINDS
    sizes: tuple[int, ...] = SIZES
    small: int = SMALL
    large: int = LOOK_LIMIT
    shown: int = SHOWN
    done: Exception = CONNECTION_DONE
    broken: Exception = CONNECTION_LOST


_log = Logger()


def relay(reactor: Any) -> bool:
    """Put the relay into an epoll reactor, from its next turn on; return whether that can be done.

    Transports that are being read already stay with the reactor.
    """
    if not (MAY_RELAY and SUPPORTED and can_replace_loop(reactor)):
        return False
    try:
        make_hub = import_module("odptwist.sessions._hub").Hub
    except ImportError:
        return False
    hub = make_hub(
        reactor._poller.fileno(), Layout(), reactor.seconds, reactor._disconnectSelectable, _failure(reactor)
    )
    add, remove, remove_all, readers = reactor.addReader, reactor.removeReader, reactor.removeAll, reactor.getReaders
    run, stock = hub.run, reactor.doPoll

    def add_reader(reader: Any) -> None:
        (hub.add if isinstance(reader, DirectTransport) else add)(reader)

    def remove_reader(reader: Any) -> None:
        (hub.remove if isinstance(reader, DirectTransport) else remove)(reader)

    def iterate(timeout: float | None) -> None:
        if run(timeout):
            stock(0)

    reactor.relay = hub
    reactor.addReader, reactor.removeReader = add_reader, remove_reader
    reactor.getReaders = lambda: [*hub.transports(), *readers()]
    # At the end of the process; a transport may be written to as well.
    reactor.removeAll = lambda: list(dict.fromkeys((*hub.remove_all(), *remove_all())))
    reactor.doIteration = iterate
    return True


def gear_of(reactor: Any) -> str:
    """Return what people are told about what passes commands and responses on in this process."""
    return "C relay" if hasattr(reactor, "relay") else GEAR


def _failure(reactor: Any) -> Callable[[Any, BaseException], None]:
    def failed(transport: Any, why: BaseException) -> None:
        # As Twisted does: one connection must not end the others.
        _log.failure("a transport could not be read", Failure(why))
        # A server session that ends by itself tells its client; one that is dropped would not.
        if isinstance(transport.protocol, ClientSession):
            transport.protocol.drop(CloseReason.PROXY_FAULT, "a chunk could not be handled")
        reactor._disconnectSelectable(transport, why, True)

    return failed
