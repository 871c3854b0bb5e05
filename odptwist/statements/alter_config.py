"""ALTER PROXYCONFIG SET: change a setting of the running proxy.

Source: spec section 10. The names are those of SHOW PROXYCONFIG.
"""

from __future__ import annotations

import re
from typing import Final, cast

from attrs import frozen
from twisted.internet.defer import Deferred
from twisted.logger import Logger
from zope.interface import implementer

from odptwist.answers import Answer, Done
from odptwist.errors import SqlError, bad_proxy_statement
from odptwist.identity import legible
from odptwist.interfaces import IProxyStatement, ISessionDirectory
from odptwist.live_settings import CHANGEABLE, LiveSettings
from odptwist.snapshots import Asker, Verb
from odptwist.statements.grammar import TokenStream, unquote
from odptwist.statements.proxyconfig import list_settings
from odptwist.statements.servers import check_may_see_proxy

_QUOTED: Final = r"""'[^'\\]*+'|"[^"\\]*+"|`[^`]*+`"""
_ASSIGNMENT: Final = re.compile(rf"(?P<name>[\w.]++|{_QUOTED})\s*+=\s*+(?P<value>{_QUOTED}|[\w.+-]*+)")
_UNDERSTOOD: Final = "the proxy understands ALTER PROXYCONFIG SET name = [value]"


@frozen
class ConfigChange:
    """A request to give a setting a value; an empty one is its default."""

    name: str
    value: str


@implementer(IProxyStatement)
class AlterConfig:
    """`ALTER PROXYCONFIG SET name = [value]`; the value may be quoted."""

    name = "alter config"
    first_words = ("ALTER",)
    _log = Logger()

    def __init__(self, settings: LiveSettings) -> None:
        self._settings = settings

    def parse(self, text: str) -> object | None:
        """Return a `ConfigChange`, or None if the text does not begin with ALTER PROXYCONFIG."""
        stream = TokenStream(text)
        if not stream.take_head("ALTER", "PROXYCONFIG"):
            return None
        if not stream.take_word("SET"):
            raise bad_proxy_statement(_UNDERSTOOD)
        assignment = _ASSIGNMENT.fullmatch(stream.take_until(()))
        if assignment is None or not stream.at_end():
            raise bad_proxy_statement(_UNDERSTOOD)
        return ConfigChange(_bare(assignment["name"]), _bare(assignment["value"]))

    def answer(self, request: object, asker: Asker, directory: ISessionDirectory) -> Deferred[Answer]:
        """Fire with OK once the change has taken effect.

        Fails with 1227; 1193 unknown name; 1238 it takes a restart; 1231 the value is none.
        """
        return Deferred.fromCoroutine(self._change(cast(ConfigChange, request), asker, directory))

    async def _change(self, request: ConfigChange, asker: Asker, directory: ISessionDirectory) -> Answer:
        await check_may_see_proxy(asker, directory)
        if not await directory.may(asker, Verb.CHANGE_PROXY):
            raise SqlError(
                1227, "42000", "Access denied; you need (at least one of) the SUPER privilege(s) for this operation"
            )
        name = request.name
        if name not in CHANGEABLE:
            if name not in {known for known, _, _ in list_settings(self._settings.current)}:
                raise SqlError(1193, "HY000", f"Unknown system variable '{name}'")
            raise SqlError(
                1238,
                "HY000",
                f"Variable '{name}' is a read only variable: need_reboot is true, so change it in the settings file "
                "and start the proxy anew",
            )
        try:
            self._settings.change(name, request.value)
        except ValueError as fault:
            raise SqlError(
                1231, "42000", f"Variable '{name}' can't be set to the value of '{request.value}': it {fault}"
            ) from None
        self._log.info(
            "setting {name} changed to '{value}' by {asker}",
            name=name,
            value=legible(request.value),
            asker=legible(asker),
        )
        return Done()


def _bare(text: str) -> str:
    return unquote(text) if text[:1] in ("'", '"', "`") and text else text
