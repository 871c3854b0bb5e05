"""What the proxy answers itself."""

from __future__ import annotations

from collections.abc import Sequence

from odptwist.interfaces import IClusters, IProxyStatement, IStatements, IStatistics
from odptwist.live_settings import LiveSettings
from odptwist.statements.alter_config import AlterConfig
from odptwist.statements.connections import ShowConnections
from odptwist.statements.courtesies import AnswerOk, AnswerProbes
from odptwist.statements.history import ShowHistory
from odptwist.statements.kill import Kill
from odptwist.statements.pace import AT_ONCE, Pace
from odptwist.statements.processlist import ShowProxyProcesses, ShowServerProcesses
from odptwist.statements.proxy import PingProxy, SelectProxyVersion, ShowInfo
from odptwist.statements.proxyconfig import ShowConfig
from odptwist.statements.read_stale import ShowReadStale
from odptwist.statements.servers import ShowClusters, ShowCongestion
from odptwist.statements.session_list import SelectSessions, ShowSessions
from odptwist.statements.session_statistics import ShowSessionStatistics
from odptwist.statements.sessions import ShowSessionAttribute
from odptwist.statements.statistics import ShowStatistics
from odptwist.statements.table import StatementTable
from odptwist.statements.variables import ShowSessionVariables

_INSPECTING = frozenset(("SHOW", "PING"))


def builtin_statements(pace: Pace = AT_ONCE) -> tuple[IProxyStatement, ...]:
    """Return new built-in statements in the order in which a `StatementTable` must ask them.

    Statements of plugins go before them: `ShowSessions` and `Kill` refuse what they do not understand.

    Args:
        pace: how those that look at many sessions leave the reactor's thread to others.
    """
    return (
        ShowSessionAttribute(),
        ShowSessionStatistics(),
        ShowSessionVariables(),
        ShowConnections(),
        ShowReadStale(),
        ShowHistory(pace),
        ShowSessions(pace),
        SelectSessions(pace),
        Kill(),
        PingProxy(),
        SelectProxyVersion(),
    )


def server_statements(clusters: IClusters) -> tuple[IProxyStatement, ...]:
    """Return new built-in statements about the servers of these clusters; their order does not matter."""
    return (ShowClusters(clusters), ShowCongestion(clusters))


def settings_statements(settings: LiveSettings, started: float, gear: str) -> tuple[IProxyStatement, ...]:
    """Return new built-in statements about the proxy itself, in any order.

    Args:
        settings: it runs with.
        started: when, in seconds since 1970.
        gear: what follows the responses of servers.
    """
    return (ShowConfig(settings), AlterConfig(settings), ShowInfo(started, gear))


def administrator_statements(statements: Sequence[IProxyStatement]) -> IStatements:
    """Return all that a session of the administrator may ask: `statements`, and what clients send unasked."""
    return StatementTable([*_serverless(statements), AnswerOk(), AnswerProbes()])


def inspector_statements(statements: Sequence[IProxyStatement]) -> IStatements:
    """Return all that a session of the inspector may ask: those of `statements` that show something."""
    showing = [each for each in _serverless(statements) if _INSPECTING.issuperset(each.first_words)]
    return StatementTable([*showing, AnswerOk(), SelectProxyVersion(), AnswerProbes()])


def _serverless(statements: Sequence[IProxyStatement]) -> list[IProxyStatement]:
    """Return those of the statements that need no server session of the asker's, and the proxy's SHOW PROCESSLIST."""
    return [ShowProxyProcesses(), *(each for each in statements if not isinstance(each, ShowServerProcesses))]


def statistics_statement(sources: Sequence[IStatistics]) -> IProxyStatement:
    """Return the built-in statement that shows what these count; its place among the others does not matter."""
    return ShowStatistics(sources)


def processlist_statement(one_id: bool) -> IProxyStatement:
    """Return the built-in SHOW PROCESSLIST; its place among the others does not matter.

    Args:
        one_id: whether clients see no other ids of sessions than the proxy's: then the list is the server's.
    """
    return ShowServerProcesses() if one_id else ShowProxyProcesses()
