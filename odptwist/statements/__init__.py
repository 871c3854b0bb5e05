"""What the proxy answers itself."""

from __future__ import annotations

from odptwist.interfaces import IClusters, IProxyStatement
from odptwist.statements.kill import Kill
from odptwist.statements.servers import ShowClusters, ShowCongestion
from odptwist.statements.sessions import ShowSessionAttribute, ShowSessions


def builtin_statements() -> tuple[IProxyStatement, ...]:
    """Return new built-in statements in the order in which a `StatementTable` must ask them.

    Statements of plugins go before them: `ShowSessions` and `Kill` refuse what they do not understand.
    """
    return (ShowSessionAttribute(), ShowSessions(), Kill())


def server_statements(clusters: IClusters) -> tuple[IProxyStatement, ...]:
    """Return new built-in statements about the servers of these clusters; their order does not matter."""
    return (ShowClusters(clusters), ShowCongestion(clusters))
