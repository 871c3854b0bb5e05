"""Settings that change while the proxy runs: which can, to what, and who is told.

What was changed so lasts until the restart: the settings file is the operator's, and nobody else writes to it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from attrs import evolve

from odptwist.config_file import check_value
from odptwist.settings import Settings

CHANGEABLE: Final = frozenset(
    (
        "kill.timeout",
        "kill.abandoned",
        "clients.local_infile",
        "log.sessions",
        "limits.max_connections",
        "limits.max_user_connections",
        "limits.max_address_connections",
        "limits.login_timeout",
        "limits.wait_timeout",
        "limits.interactive_timeout",
        "limits.idle_transaction_timeout",
        "limits.max_statement_time",
        "health.interval",
        "routing.retry_reads",
        "routing.primary_wait",
        "routing.settle",
    )
)
"""The settings that take effect at once; all others are read at the start only."""

_TRUTHS: Final = {"true": True, "false": False}


class LiveSettings:
    """The settings that a proxy runs with.

    Attributes:
        current: as they are now.

    Args:
        settings: as they were at the start.
        on_change: is called with the new ones.
    """

    def __init__(self, settings: Settings, on_change: Callable[[Settings], None] = lambda settings: None) -> None:
        self.current = settings
        self._on_change = on_change

    def change(self, name: str, text: str) -> None:
        """Give one of the `CHANGEABLE` settings a value; an empty text is its default (not that of the file).

        Raises:
            ValueError: with a sentence, the text is no value of it.
        """
        table, _, key = name.partition(".")
        section = getattr(self.current, table)
        default = getattr(type(section)(), key)
        value = check_value(type(section), key, _read(default, text)) if text else default
        self.current = evolve(self.current, **{table: evolve(section, **{key: value})})
        self._on_change(self.current)


def _read(default: Any, text: str) -> Any:
    """Return the value of a text, of the type that the default has."""
    if isinstance(default, bool):
        if text.lower() not in _TRUTHS:
            raise ValueError("must be true or false")
        return _TRUTHS[text.lower()]
    try:
        return type(default)(text)
    except ValueError:
        raise ValueError("must be a number") from None
