"""Which sequence numbers compressed packets bear, and what becomes of the numbers of the packets inside them.

Source: net_serv.cc of MariaDB and MySQL; what MariaDB 10.11, seekdb 1.4 and the clients do was tried, too.

* The first compressed packet of a command has number 0, and everything that follows, the response included, goes on
  from there. Servers check that, and end the connection. Of the clients, go-sql-driver checks it.
* A command begins in a compressed packet of its own: MariaDB does not find a second one behind a first.
* The numbers inside are checked by seekdb only, which counts as if there was no compression. MariaDB and its client
  library do not look at them, and set them to the outer number whenever they have sent all they had. So they jump
  between two results of one response. Whoever is on the proxy's other side takes that for a broken connection.
* mysql-connector-python does not find a packet in more than two compressed ones, nor a header that is cut in two.

So inside the proxy packets are numbered as without compression, and clients are sent whole ones only.
"""

from __future__ import annotations

from collections.abc import Iterator
from struct import Struct
from typing import Final

from attrs import define, frozen

from odptwist.errors import SequenceError
from odptwist.wire.constants import MAX_PAYLOAD
from odptwist.wire.framing import HEADER_SIZE

_HEAD: Final = Struct("<I")


@frozen
class Run:
    """Packets that follow each other, and the number of the compressed packet that they begin in."""

    data: bytes
    sequence: int


@define
class _Due:
    """The numbers that are due in one direction: of a compressed packet, of a packet inside."""

    outer: int = 0
    inner: int = 0


class Numbering:
    """Follows the numbers of one compressed connection, from the first command on.

    What comes is checked; what is sent is right, or the session has a fault of its own.
    """

    __slots__ = ("_expected", "_fresh", "_head", "_heard", "_left", "_sending", "_told", "_unsent")

    _only_whole = False

    def __init__(self) -> None:
        self._heard = _Due()
        self._told = _Due()
        # Whether the last word was the peer's, as that of its login was.
        self._fresh = True
        # How many answers may begin. More than one if commands were sent ahead.
        self._expected = 0
        # Of the peer's stream: how much of a packet is to come, or the beginning of its header.
        self._left = 0
        self._head = b""
        # Of what is sent: how much of a packet is to come, and what cannot be sent yet.
        self._sending = 0
        self._unsent = bytearray()

    # -- what comes ---------------------------------------------------------------------------------------------------

    def heard(self, sequence: int) -> None:
        """Be told that a compressed packet of the peer begins.

        Raises:
            SequenceError: its number is not due.
        """
        self._check(sequence)
        self._heard.outer = (sequence + 1) & 0xFF
        self._fresh = True

    def _check(self, sequence: int) -> None:
        """Set the number that is due inside; raise `SequenceError` if this one is not due outside."""
        raise NotImplementedError

    def _number(self, came: int, due: int) -> int:
        """Return the number that a packet inside has to bear."""
        return due

    def renumber(self, data: bytes) -> bytes:
        """Return what came inside, numbered as without compression; a header that is cut is kept until it is whole."""
        if self._head:
            data, self._head = self._head + data, b""
        size = len(data)
        at = self._left
        due = self._heard.inner
        changed: bytearray | None = None
        while size - at >= HEADER_SIZE:
            (head,) = _HEAD.unpack_from(data, at)
            came = head >> 24
            if came != due:
                due = self._number(came, due)
                if came != due:
                    changed = changed or bytearray(data)
                    changed[at + 3] = due
            due = (due + 1) & 0xFF
            at += HEADER_SIZE + (head & MAX_PAYLOAD)
        self._heard.inner = due
        self._left = max(0, at - size)
        if changed is not None:
            data = bytes(changed)
        if at < size:
            data, self._head = data[:at], data[at:]
        return data

    # -- what is sent -------------------------------------------------------------------------------------------------

    def runs(self, data: bytes) -> Iterator[Run]:
        """Yield what can be sent with the next bytes; `sent` has to be called after each."""
        unsent = self._unsent
        stream: bytes | bytearray = data
        if unsent:
            unsent += data
            stream = unsent
        size = len(stream)
        start = 0
        at = min(self._sending, size)
        self._sending -= at
        due = self._told.inner
        while size - at >= HEADER_SIZE:
            (head,) = _HEAD.unpack_from(stream, at)
            end = at + HEADER_SIZE + (head & MAX_PAYLOAD)
            if end > size and self._only_whole:
                break
            number = head >> 24
            if number != due or self._fresh:
                if start < at:
                    yield Run(bytes(stream[start:at]), self._told.outer)
                    start = at
                self._begin(number)
            due = self._told.inner = (number + 1) & 0xFF
            at = min(end, size)
            self._sending = end - at
        if start < at:
            yield Run(bytes(stream[start:at]), self._told.outer)
        if stream is unsent:
            del unsent[:at]
        elif at < size:
            unsent += stream[at:]

    def sent(self, sequence: int) -> None:
        """Be told of the number that is due after the compressed packets of a run."""
        self._told.outer = sequence

    def _begin(self, number: int) -> None:
        """Set the number of the next compressed packet, which begins with a packet of this number."""
        fresh, self._fresh = self._fresh, False
        self._expected = 1 if fresh else self._expected + 1
        if fresh and self._answers(number) and number == self._heard.inner:
            self._told.outer = self._heard.outer
        elif not (fresh and self._answers(number) and number == self._told.inner):
            # It answers a command that was sent ahead: one compressed packet for each of its fragments.
            self._told.outer = number

    def _answers(self, number: int) -> bool:
        """Whether a packet of this number may go on with what the peer began, or what was sent before."""
        return True


class ClientNumbering(Numbering):
    """The numbers on a connection to a client."""

    __slots__ = ("_asks", "_shift")

    _only_whole = True

    def __init__(self) -> None:
        super().__init__()
        # Whether what comes is a command; else it belongs to one that is under way.
        self._asks = True
        # By how much the client counts further inside than it should.
        self._shift = 0

    def _check(self, sequence: int) -> None:
        heard, told = self._heard, self._told
        between = not self._left and not self._head
        if between and not sequence and (heard.outer or not self._fresh):
            # A long command, too, comes to number 0, after 256 compressed packets.
            heard.inner = self._shift = 0
            self._asks = True
        elif between and not self._fresh and sequence == told.outer:
            heard.inner = told.inner
            self._asks = False
        elif sequence != heard.outer:
            raise SequenceError(f"compressed packet {sequence} came where {heard.outer} was due")

    def _number(self, came: int, due: int) -> int:
        shift = (came - due) & 0xFF
        if self._asks and not came and shift != self._shift:
            due = shift = 0  # a further command in the same compressed packet
        self._shift = shift
        return due


class ServerNumbering(Numbering):
    """The numbers on a connection to a server."""

    __slots__ = ()

    def _check(self, sequence: int) -> None:
        heard, told = self._heard, self._told
        between = not self._left and not self._head
        if between and not self._fresh:
            # Smaller: an error that did not wait for the end of a long command.
            due = sequence == told.outer or 0 < sequence < told.outer
        elif sequence == heard.outer:
            return
        else:
            due = between and self._expected > 0
        if due:
            self._expected -= 1
            heard.inner = told.inner
        elif not between or sequence:  # with 0 begins what a server says unasked: a farewell
            raise SequenceError(f"compressed packet {sequence} came where {heard.outer} was due")

    def _answers(self, number: int) -> bool:
        return number != 0  # a command
