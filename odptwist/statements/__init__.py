"""What the proxy answers itself."""

from __future__ import annotations

from collections.abc import Sequence

from odptwist.interfaces import IClusters, IProxyStatement, IStatistics
from odptwist.statements.kill import Kill
from odptwist.statements.servers import ShowClusters, ShowCongestion
from odptwist.statements.sessions import ShowSessionAttribute, ShowSessions
from odptwist.statements.statistics import ShowStatistics


def builtin_statements() -> tuple[IProxyStatement, ...]:
    """Return new built-in statements in the order in which a `StatementTable` must ask them.

    Statements of plugins go before them: `ShowSessions` and `Kill` refuse what they do not understand.
    """
    return (ShowSessionAttribute(), ShowSessions(), Kill())


def server_statements(clusters: IClusters) -> tuple[IProxyStatement, ...]:
    """Return new built-in statements about the servers of these clusters; their order does not matter."""
    return (ShowClusters(clusters), ShowCongestion(clusters))


def statistics_statement(sources: Sequence[IStatistics]) -> IProxyStatement:
    """Return the built-in statement that shows what these count; its place among the others does not matter."""
    return ShowStatistics(sources)
