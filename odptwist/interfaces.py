"""Where others extend odptwist: one zope interface per seam, for built-in parts and strangers alike."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from attrs import frozen
from twisted.internet.defer import Deferred
from zope.interface import Attribute, Interface

from odptwist.answers import Answer, Column, Table
from odptwist.errors import CloseReason
from odptwist.identity import Identity
from odptwist.snapshots import (
    Address,
    AfterTransaction,
    Asker,
    ClientSessionSnapshot,
    ConnectionSnapshot,
    Decision,
    EndedSession,
    KillReport,
    KillScope,
    KillTarget,
    Purpose,
    ReadPolicy,
    ServerFinding,
    ServerStanding,
    ServerTraits,
    SessionVariables,
    Statistic,
    Verb,
)
from odptwist.views import SessionView


class IClusters(Interface):
    """The clusters of the settings and what was learnt of their servers."""

    names = Attribute("frozenset[str]: the clusters' names, at least one")
    default_name = Attribute("str: the cluster of a user who names none")
    generation = Attribute(
        "int: rises whenever the role of a server changes, or whether it is up, or a cluster's servers"
    )

    watched = Attribute("bool: whether health checks run, so that a change of roles will be noticed")

    awaited = Attribute("bool: whether somebody waits for a change now, so that health checks should hurry")

    def when_changed() -> Deferred[None]:
        """Fire when `generation` has risen, or a server was found well that may take writes; may be cancelled."""

    def standings(cluster: str) -> Sequence[ServerStanding]:
        """Return what is known about each server of a known cluster, in the order of the settings; never empty."""

    def read_policy(cluster: str) -> ReadPolicy:
        """Return which reads of a known cluster may go to replicas."""

    def accepts_tenant(cluster: str, tenant: str) -> bool:
        """Return whether users of a cluster without real tenants may give this one as a label."""

    def heard(address: Address, traits: ServerTraits) -> None:
        """Be told what a server said in its greeting."""

    def found(address: Address, finding: ServerFinding) -> None:
        """Be told that a health check succeeded, and what it found: the server is up."""

    def failed(address: Address, why: str) -> None:
        """Be told that a server could not be reached or did not answer; enough of these in a row make it down."""

    def suspect(address: Address) -> None:
        """Be told that a server is not what it was taken for (it refused a write, say): have it checked at once."""

    def promise() -> ServerTraits | None:
        """Return what every server that was heard can do, None as long as none was."""

    def killer(address: Address) -> str:
        """Return the name of the `IBackendKiller` that the settings choose for a server."""


class IRouter(Interface):
    """Chooses servers: for a new client session, then once per purpose, and again when the servers' standing changes.

    Never called per statement; must not block.
    """

    def choose_servers(identity: Identity, servers: Sequence[ServerStanding], purpose: Purpose) -> Sequence[Address]:
        """Return the servers to try, best first.

        Args:
            identity: who logs in.
            servers: all servers of the identity's cluster, in the order of the settings; never empty.
            purpose: what for.

        Returns:
            Addresses of `servers`; none if no server will do now, which the client is told as an error. If this raises
            or names others, all of `servers` are tried in order (and the fault logged).
        """


class IVerifierSource(Interface):
    """Knows how accounts prove who they are, so that the proxy can check a client and log in for it elsewhere."""

    def verifiers(identity: Identity) -> Deferred[Sequence[bytes]]:
        """Fire with the mysql_native_password verifiers that an account may have: SHA1(SHA1(password)), 20 bytes each.

        None of them if the account is not known; then the server asks the client itself, and the proxy cannot log in
        for it again. Must not fail; a failure is logged and means the same.
        """


class ICondition(Interface):
    """Which sessions a rule is about."""

    def holds(session: SessionView) -> bool:
        """Say whether the condition is true of a session; must be quick.

        A rule whose condition raises several times is switched off.
        """


class IStatistics(Interface):
    """Something that counts."""

    def statistics() -> Iterable[Statistic]:
        """Return all counters and gauges as they are now; their names are nobody else's. Must be quick."""


class IBackendKiller(Interface):
    """Knows how a kind of server is told to end a session or a statement. Must not block."""

    name = Attribute("str: what the settings call it, as `killer` of a [[cluster.server]]")

    def statement(server_sessid: int, scope: KillScope) -> str:
        """Return the one SQL statement that ends the server's session of that number, or what it runs.

        If this raises, `KILL n` or `KILL QUERY n` is used (and the fault logged).
        """


class IAccessPolicy(Interface):
    """Decides who may see and kill whom. Every entrance asks it, for every verb; must not block or raise."""

    def decide(asker: Asker, verb: Verb, cs_id: int, owner: Identity | None) -> Decision:
        """Return what the asker may do with the session `cs_id` of `owner` (None: not logged in yet).

        For `Verb.SEE_PROXY` and `Verb.CHANGE_PROXY` there is no session: `cs_id` is 0 and `owner` None. An `owner` of
        the asker's tenant whose user is empty is nobody: an absent session is to cost the same questions as one that
        the asker may not see.
        `NEEDS_PRIVILEGES` makes the directory ask the asker's server for its privileges, once a session, and decide
        again.
        If this raises, the fault is logged and the session is invisible.
        """


class ISessionDirectory(Interface):
    """The sessions of this proxy, for statements and whoever else asks about them or ends them."""

    def sessions(asker: Asker) -> Deferred[Sequence[ClientSessionSnapshot]]:
        """Fire with all sessions that the asker may see, by rising cs_id."""

    def visit(asker: Asker, look: Callable[[SessionView], None]) -> Deferred[None]:
        """Call `look` with each session that the asker may see, by rising cs_id; fire when all were shown.

        For thousands of sessions: there are no snapshots, `look` asks for what it needs at once, and other sessions go
        on in between. A session that opens meanwhile is not shown. May be cancelled; fails with what `look` raises.
        """

    def history(asker: Asker) -> Deferred[Sequence[EndedSession]]:
        """Fire with the client and server sessions that ended and whose owner the asker may see, the last one first."""

    def session(asker: Asker, number: int, exact: bool = False) -> Deferred[ClientSessionSnapshot]:
        """Fire with the session that a cs_id or connection id names; only a cs_id if `exact`.

        Fails with `SqlError` 1094 if it is absent, invisible, or names two sessions.
        """

    def statistics_of(asker: Asker, number: int, exact: bool = False) -> Deferred[Sequence[Statistic]]:
        """Fire with what is counted of a session, under ODP's names (sizes in bytes, times in nanoseconds).

        What is not counted is not there. The session is found, or not, as by `session`.
        """

    def variables(asker: Asker, number: int, all_of_them: bool, exact: bool = False) -> Deferred[SessionVariables]:
        """Fire with the variables that a session's client has set, or with `all_of_them`, as far as they are known.

        The others are asked of the server for the asker's own session only: the question would touch what the next
        statement of another client may want to know (FOUND_ROWS(), warnings). The session is found as by `session`.
        """

    def connections(asker: Asker) -> Deferred[Sequence[ConnectionSnapshot]]:
        """Fire with the connections of the sessions that the asker may see: of each its client's, then its servers'."""

    def processes(asker: Asker, full: bool) -> Deferred[Table]:
        """Fire with what the asker's server answers to SHOW [FULL] PROCESSLIST, with this proxy's ids.

        Rows of this proxy's sessions have the cs_id and the client's address, and are there only if the asker may see
        the session; the others are the server's. What is more than some MiB is left out. Fails with `SqlError`.
        """

    def may(asker: Asker, verb: Verb) -> Deferred[bool]:
        """Fire with whether the asker may do what is about no session (SEE_PROXY, CHANGE_PROXY). Does not fail."""

    def kill(
        target: KillTarget, scope: KillScope, by: Asker, reason: str = "", after: AfterTransaction | None = None
    ) -> Deferred[KillReport]:
        """End a session, a statement or a server session: the one door for every kill.

        Args:
            target: what to end.
            scope: the whole session, or only its running statement (not with an ss_id).
            by: who asks.
            reason: a text for the victim and the log, or empty.
            after: wait for the session's transaction or running statement first (whole sessions only).

        Returns:
            Fires when it is done: transports gone, statement stopped (or given up after the kill timeout); or at once,
            with the outcome MARKED, if the session is to end with its transaction.
            Fails with `SqlError`: 1094 absent, invisible or ambiguous; 1095 visible but not allowed.
        """


class ITabular(Interface):
    """What an `IProxyStatement` may provide besides: clients that prepare are told the columns before the answer.

    Without it they are told of none, and learn the columns with the answer, as MySQL does with its own SHOW.
    """

    def columns(request: object) -> Sequence[Column]:
        """Return the columns that the answer to a request of `parse` will have; none if it will be an OK."""


class IProxyStatement(Interface):
    """A statement that the proxy answers itself. Plugins provide it; so do the built-in ones."""

    name = Attribute("str: what the log calls it")
    first_words = Attribute(
        "tuple[str, ...]: the upper-case words that such a statement may begin with (of at least three letters each). "
        "Texts that begin otherwise are never shown to it. A frequent word (SELECT) costs each such query microseconds."
    )

    def parse(text: str) -> object | None:
        """Return a request if the text is this statement, None if it is not.

        Called on the reactor's thread with every text that begins with one of `first_words`, without comments before
        it; must be quick. `SqlError` refuses the text: the client gets it and the server never sees the text.
        Any other exception is logged, and the text goes on as if this statement did not exist.
        """

    def answer(request: object, asker: Asker, directory: ISessionDirectory) -> Deferred[Answer]:
        """Fire with the answer to a request of `parse`.

        May take its time: other sessions go on, this client waits. A `SqlError` becomes the ERR packet; any other
        failure is logged and the client gets error 1105.
        """


class IMarkedStatement(IProxyStatement):
    """A proxy statement whose texts all hold one of the marks that `machines.exchange` looks for.

    So it can claim a frequent word: texts that begin with it cost nothing more. One without a mark may be shown to it
    or not.
    """


@frozen
class FoundStatement:
    """A text that is a proxy statement; `request` is what its `parse` returned."""

    name: str
    statement: IProxyStatement
    request: object


class ISessionObserver(Interface):
    """Is told what sessions do. Calls must be quick; what they raise is logged and forgotten."""

    def session_opened(session: ClientSessionSnapshot) -> None:
        """Be told of a client session that has just logged in."""

    def statement_finished(cs_id: int, statement: bytes, seconds: float, error: int) -> None:
        """Be told of an exchange that ended.

        Args:
            cs_id: of the session.
            statement: the command packet's beginning: the command byte, then at most 1,024 bytes.
            seconds: from the command's arrival to the response's last byte.
            error: the code of the ERR packet that ended it, 0 otherwise.
        """

    def session_closed(session: ClientSessionSnapshot, reason: CloseReason, detail: str) -> None:
        """Be told of a client session that ended; `detail` names the killer or the fault, or is empty."""


class IStatements(Interface):
    """The proxy statements that are known: how a session tells them from the servers'."""

    first_words = Attribute("frozenset[str]: the upper-case words that a proxy statement may begin with")

    def find(text: str) -> FoundStatement | None:
        """Return the proxy statement that a text is, None if it goes to the server. `SqlError` refuses the text."""

    def columns(found: FoundStatement) -> Sequence[Column]:
        """Return the columns of the answer; none if it has none, or if that is not known beforehand."""

    def answer(found: FoundStatement, asker: Asker, directory: ISessionDirectory) -> Deferred[Answer]:
        """Fire with the answer, or fail with `SqlError` and nothing else."""
