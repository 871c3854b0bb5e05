"""PING PROXY, SELECT PROXY_VERSION() and SHOW PROXYINFO BINARY: whether the proxy is there, and what it is.

Source: spec sections 1.4 and 10. The rows of PROXYINFO are ours.
"""

from __future__ import annotations

import os
import platform
import re
import sys
from time import localtime, strftime

from attrs import frozen
from twisted.internet.defer import Deferred, succeed
from zope.interface import implementer

from odptwist import __version__
from odptwist.answers import Answer, Column, ColumnType, Done, Table
from odptwist.errors import bad_proxy_statement
from odptwist.interfaces import IMarkedStatement, IProxyStatement, ISessionDirectory
from odptwist.snapshots import Asker
from odptwist.statements.grammar import TokenStream
from odptwist.statements.servers import check_may_see_proxy
from twisted import __version__ as twisted_version

_INFO = (Column("name", ColumnType.VARCHAR), Column("info", ColumnType.VARCHAR))
_VERSION = (Column("proxy_version()", ColumnType.VARCHAR),)
_SELECT_VERSION = re.compile(r"select\s++proxy_version\s*+\(\s*+\)\s*+;?+\s*+", re.IGNORECASE | re.ASCII)


@frozen
class Ping:
    """A request for a sign of life."""


@frozen
class VersionQuery:
    """A request for the proxy's version."""


@frozen
class BinaryInfo:
    """A request for what the proxy is made of."""


@implementer(IProxyStatement)
class PingProxy:
    """`PING PROXY`."""

    name = "ping proxy"
    first_words = ("PING",)

    def parse(self, text: str) -> object | None:
        """Return a `Ping`, or None if the text does not begin with PING PROXY."""
        stream = TokenStream(text)
        if not stream.take_head("PING", "PROXY"):
            return None
        if not stream.at_end():
            raise bad_proxy_statement()
        return Ping()

    def answer(self, request: object, asker: Asker, directory: ISessionDirectory) -> Deferred[Answer]:
        """Fire with OK."""
        return succeed(Done())


@implementer(IMarkedStatement)
class SelectProxyVersion:
    """`SELECT PROXY_VERSION()` and nothing else: where it is a part of a SELECT, the server is asked, and refuses."""

    name = "select proxy_version()"
    first_words = ("SELECT",)

    def parse(self, text: str) -> object | None:
        """Return a `VersionQuery`, or None if it is another SELECT."""
        return VersionQuery() if _SELECT_VERSION.fullmatch(text) else None

    def answer(self, request: object, asker: Asker, directory: ISessionDirectory) -> Deferred[Answer]:
        """Fire with one row."""
        return succeed(Table(_VERSION, ((__version__,),)))


@implementer(IProxyStatement)
class ShowInfo:
    """`SHOW PROXYINFO BINARY`.

    Args:
        started: when the proxy was, in seconds since 1970.
        gear: what follows the responses of servers, Python or C.
    """

    name = "show info"
    first_words = ("SHOW",)

    def __init__(self, started: float, gear: str) -> None:
        self._started = started
        self._gear = gear

    def parse(self, text: str) -> object | None:
        """Return a `BinaryInfo`, or None if the text does not begin with SHOW PROXYINFO."""
        stream = TokenStream(text)
        if not stream.take_head("SHOW", "PROXYINFO"):
            return None
        if not stream.take_word("BINARY") or not stream.at_end():
            raise bad_proxy_statement("the proxy understands SHOW PROXYINFO BINARY")
        return BinaryInfo()

    def answer(self, request: object, asker: Asker, directory: ISessionDirectory) -> Deferred[Answer]:
        """Fire with a row for each part; fail with 1227."""
        return Deferred.fromCoroutine(self._list(asker, directory))

    async def _list(self, asker: Asker, directory: ISessionDirectory) -> Answer:
        await check_may_see_proxy(asker, directory)
        rows = (
            ("version", __version__),
            ("gear", self._gear),
            ("python", f"{platform.python_version()} ({sys.implementation.name})"),
            ("twisted", twisted_version),
            ("system", platform.platform()),
            ("pid", str(os.getpid())),
            ("start_time", strftime("%Y-%m-%d %H:%M:%S", localtime(self._started))),
        )
        return Table(_INFO, rows)
