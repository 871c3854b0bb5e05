r"""The grammar of spec section 1 as a table: what the proxy makes of each text, and where that is not what ODP does.

ODP's answers are those of its own parser, run over such statements (spec, "What was read"). Answers are spelled

    list, attribute 7 like x, kill 7 16, ...   the proxy's own statement, as it was understood
    server                                     it goes to the server as it is
    5010                                       an error

A row with a third column is ours: ODP answers what stands there, and the table says why we do not.
"""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from odptwist.cluster.model import Cluster, Clusters, Server
from odptwist.errors import SqlError
from odptwist.interfaces import IProxyStatement, IStatements
from odptwist.live_settings import LiveSettings
from odptwist.settings import Settings
from odptwist.snapshots import Address, KillScope
from odptwist.statements import (
    administrator_statements,
    builtin_statements,
    inspector_statements,
    processlist_statement,
    server_statements,
    settings_statements,
    statistics_statement,
)
from odptwist.statements.alter_config import ConfigChange
from odptwist.statements.connections import ConnectionList
from odptwist.statements.courtesies import Courtesy, Probes
from odptwist.statements.history import HistoryList
from odptwist.statements.kill import KillRequest
from odptwist.statements.kill_where import KillWhere
from odptwist.statements.processlist import ProxyProcesses
from odptwist.statements.proxy import BinaryInfo, Ping, VersionQuery
from odptwist.statements.proxyconfig import ConfigList
from odptwist.statements.query import QueryText
from odptwist.statements.read_stale import ReadStaleList
from odptwist.statements.servers import ClusterList, CongestionList
from odptwist.statements.session_list import SessionList
from odptwist.statements.session_statistics import SessionStatistics
from odptwist.statements.sessions import SessionAttributes
from odptwist.statements.statistics import StatisticList
from odptwist.statements.table import StatementTable
from odptwist.statements.variables import VariableList

QUERY = "ours: SHOW PROXYSESSION can be queried (issue 7 part 6)"
QUOTED = "ours: OceanBase's own KILL page writes KILL 'session_id' (design/kill.md, rule 6)"
ITSELF = "ours: one's own session without a round trip for its number (design/kill.md, rule 6)"
UNMAPPED = "ours: no KILL may reach a server with an id that the proxy has not mapped (design/kill.md, rule 6)"
WORD = "ours: ODP's lexer has tokens for a few words of its binlog service, which is not here"
LIST = "ours: 7,8 and 7-8 look like lists and ranges; what is meant by them is anybody's guess"
MISSING = "ours: there is nothing here that this statement could show; the server says that it does not know it"
EXPLAINED = "ours: the server refuses it as well, and EXPLAIN need not be looked at"
LONG = "x" * 512

# Section 1.1: white space, comments, semicolons.
HEADS = [
    ("SHOW PROXYSESSION", "list"),
    ("show proxysession", "list"),
    ("Show ProxySession", "list"),
    ("SHOW  PROXYSESSION", "list"),
    ("SHOW\tPROXYSESSION", "list"),
    ("SHOW\nPROXYSESSION", "list"),
    ("SHOW\r\n\tPROXYSESSION", "list"),
    ("SHOW\fPROXYSESSION", "list"),
    (" \n SHOW PROXYSESSION \n ", "list"),
    ("SHOW /*x*/ PROXYSESSION", "server"),
    ("SHOW/**/PROXYSESSION", "server"),
    ("SHOW -- x\n PROXYSESSION", "server"),
    ("SHOW # x\n PROXYSESSION", "server"),
    ("SHOWPROXYSESSION", "server"),
    ("SHOW `PROXYSESSION`", "server"),
    ("SHOW PROXYSESSIONS", "5010"),
    ("SHOW PROXY SESSION", "server"),
    ("KILL  PROXYSESSION\t7", "kill 7"),
    ("KILL\n\nPROXYSESSION\n7", "kill 7"),
    ("KILL /*x*/ PROXYSESSION 7", "5010"),
    ("KILL -- x\n PROXYSESSION 7", "5010"),
    ("KILLPROXYSESSION 7", "server"),
    ("KILL PROXYSESSIONS 7", "5010"),
    ("PING PROXY", "ping"),
    ("ping\n proxy ;", "ping"),
    ("PING /*x*/ PROXY", "server"),
    ("PINGPROXY", "server"),
    ("PING PROXY 1", "5010"),
    ("PING", "server"),
    ("SHOW /*x*/ PROCESSLIST", "server"),
    ("SHOW\tPROCESSLIST", "processes"),
]
COMMENTS = [
    ("/* a */ SHOW PROXYSESSION", "list"),
    ("/* a *//* b */SHOW PROXYSESSION", "list"),
    ("/* a */ -- b\n# c\nSHOW PROXYSESSION", "list"),
    ("-- a\nSHOW PROXYSESSION", "list"),
    ("# a\nSHOW PROXYSESSION", "list"),
    ("SHOW PROXYSESSION /* a */", "list"),
    ("SHOW PROXYSESSION -- a", "list"),
    ("SHOW PROXYSESSION # a", "list"),
    ("/*+ a hint */ SHOW PROXYSESSION", "list"),
    ("SHOW PROXYSESSION /* a */ ATTRIBUTE /* b */ 7 /* c */", "attribute 7"),
    ("SHOW PROXYSESSION ATTRIBUTE -- a\n 7", "attribute 7"),
    ("SHOW PROXYSESSION ATTRIBUTE/**/7", "attribute 7"),
    ("SHOW PROXYSESSION ATTRIBUTE 7 LIKE /* a */ 'x'", "attribute 7 like x"),
    ("KILL PROXYSESSION /* a */ 7 /* b */ 16", "kill 7 16"),
    ("KILL PROXYSESSION/**/7", "kill 7"),
    ("KILL /* a */ 7", "kill 7"),
    ("/* a */ KILL /* b */ QUERY /* c */ 7", "kill query 7"),
    ("/*!40101 SHOW PROXYSESSION */", "server"),
    ("/*! SHOW PROXYSESSION */", "server"),
    ("/*!40101 KILL 7 */", "1235", "server", UNMAPPED),
    ("/*M! KILL 7 */", "1235", "server", UNMAPPED),
]
SEMICOLONS = [
    ("SHOW PROXYSESSION;", "list"),
    ("SHOW PROXYSESSION ; ", "list"),
    ("SHOW PROXYSESSION; -- a", "list"),
    ("SHOW PROXYSESSION; /* a */", "list"),
    ("KILL 7;", "kill 7"),
    ("SHOW PROXYSESSION;;", "server"),
    (";SHOW PROXYSESSION", "server"),
    ("SHOW PROXYSESSION; SELECT 1", "server"),
    ("BEGIN; SHOW PROXYSESSION", "server"),
    ("SHOW PROXYSESSION; SHOW PROXYSESSION", "server"),
    ("KILL PROXYSESSION 7; SELECT 1", "1235", "server", UNMAPPED),
    ("SELECT 1; KILL 7", "1235", "server", UNMAPPED),
    (";KILL 7", "1235", "server", UNMAPPED),
    ("KILL 7;;", "1235", "server", UNMAPPED),
]
# Section 1.1, INT, and section 1.3.
NUMBERS = [
    ("KILL PROXYSESSION 7", "kill 7"),
    ("KILL PROXYSESSION +7", "kill 7"),
    ("KILL PROXYSESSION 007", "kill 7"),
    ("KILL PROXYSESSION -1", "kill -1"),
    ("KILL PROXYSESSION 0", "kill 0"),
    ("KILL PROXYSESSION 2147549203", "kill 2147549203"),
    ("KILL PROXYSESSION 99999999999999999", "kill 99999999999999999"),
    ("KILL PROXYSESSION 100000000000000000", "5010"),
    ("KILL PROXYSESSION 756006681247547400", "5010"),
    ("KILL PROXYSESSION 7.0", "5010"),
    ("KILL PROXYSESSION 7e3", "5010"),
    ("KILL PROXYSESSION 0x7", "5010"),
    ("KILL PROXYSESSION 7x", "5010"),
    ("KILL PROXYSESSION `7`", "5010"),
    ("KILL PROXYSESSION ?", "5010"),
    ("KILL PROXYSESSION @v", "5010"),
    ("KILL PROXYSESSION '7'", "kill 7", "5010", QUOTED),
    ('KILL PROXYSESSION "7"', "kill 7", "5010", QUOTED),
    ("KILL PROXYSESSION '7x'", "5010"),
    ("KILL PROXYSESSION ''", "5010"),
    ("KILL PROXYSESSION CONNECTION_ID()", "kill own", "5010", ITSELF),
    ("KILL CONNECTION_ID()", "kill own", "5010", ITSELF),
    ("KILL QUERY CONNECTION_ID ( )", "kill query own", "5010", ITSELF),
    ("KILL CONNECTION_ID", "5010"),
    ("KILL CONNECTION_ID() + 1", "5010"),
    ("KILL 7 + 1", "5010"),
    ("KILL 0", "kill 0"),
    ("KILL -5", "kill -5"),
    ("KILL 100000000000000000", "5010"),
    ("SHOW PROXYSESSION ATTRIBUTE 7", "attribute 7"),
    ("SHOW PROXYSESSION ATTRIBUTE +7", "attribute 7"),
    ("SHOW PROXYSESSION ATTRIBUTE 007", "attribute 7"),
    ("SHOW PROXYSESSION ATTRIBUTE -1", "attribute own"),
    ("SHOW PROXYSESSION ATTRIBUTE -2", "attribute -2"),
    ("SHOW PROXYSESSION ATTRIBUTE 0", "attribute 0"),
    ("SHOW PROXYSESSION ATTRIBUTE 2147549203", "attribute 2147549203"),
    ("SHOW PROXYSESSION ATTRIBUTE 99999999999999999", "attribute 99999999999999999"),
    ("SHOW PROXYSESSION ATTRIBUTE 100000000000000000", "5010"),
    ("SHOW PROXYSESSION ATTRIBUTE '7'", "5010"),
    ("SHOW PROXYSESSION ATTRIBUTE 7.5", "5010"),
    ("SHOW PROXYSESSION ATTRIBUTE 0x7", "5010"),
    ("SHOW PROXYSESSION ATTRIBUTE ?", "5010"),
    ("SHOW PROXYSESSION ATTRIBUTE CONNECTION_ID()", "5010"),
]
# Section 1.1, NAME and what is ignored.
NAMES = [
    ("SHOW PROXYSESSION ATTRIBUTE LIKE host", "attribute own like host"),
    ("SHOW PROXYSESSION ATTRIBUTE LIKE 'host%'", "attribute own like host%"),
    ('SHOW PROXYSESSION ATTRIBUTE LIKE "host%"', "attribute own like host%"),
    ("SHOW PROXYSESSION ATTRIBUTE LIKE `host%`", "attribute own like host%"),
    ("SHOW PROXYSESSION ATTRIBUTE like '%ID%'", "attribute own like %ID%"),
    ("SHOW PROXYSESSION ATTRIBUTE LIKE''", "attribute own"),
    ("SHOW PROXYSESSION ATTRIBUTE LIKE '%\"%'", 'attribute own like %"%'),
    ("SHOW PROXYSESSION ATTRIBUTE LIKE", "5010"),
    ("SHOW PROXYSESSION ATTRIBUTE LIKE %id%", "5010"),
    ("SHOW PROXYSESSION ATTRIBUTE LIKE 7", "5010"),
    ("SHOW PROXYSESSION ATTRIBUTE LIKE 'it''s'", "5010"),
    ("SHOW PROXYSESSION ATTRIBUTE LIKE 'it\\'s'", "5010"),
    ("SHOW PROXYSESSION ATTRIBUTE LIKE 'open", "5010"),
    ("SHOW PROXYSESSION ATTRIBUTE LIKE 'a' 'b'", "5010"),
    ("SHOW PROXYSESSION ATTRIBUTE LIKE a b", "5010"),
    ("SHOW PROXYSESSION ATTRIBUTE LIKE 'server_id'", "attribute own like server_id", "5010", WORD),
    ("SHOW PROXYSESSION ATTRIBUTE LIKE 'gtid_mode'", "attribute own like gtid_mode", "5010", WORD),
    (f"SHOW PROXYSESSION ATTRIBUTE LIKE '{LONG[:511]}'", f"attribute own like {LONG[:511]}"),
    (f"SHOW PROXYSESSION ATTRIBUTE LIKE '{LONG}'", "8007"),
    (f"SHOW PROXYSESSION ATTRIBUTE LIKE {LONG}", "8007"),
    ("KILL PROXYSESSION(7)", "kill 7"),
    ("KILL PROXYSESSION (7)", "kill 7"),
    ("KILL PROXYSESSION (7 16)", "kill 7 16"),
    ("KILL PROXYSESSION (7) (16)", "kill 7 16"),
    ("KILL PROXYSESSION {7}", "kill 7"),
    ("KILL PROXYSESSION [7]", "kill 7"),
    ("KILL PROXYSESSION ((7", "kill 7"),
    ("KILL PROXYSESSION - 7", "kill 7"),
    ("KILL PROXYSESSION INTO 7", "kill 7"),
    ("KILL PROXYSESSION IGNORE 7", "kill 7"),
    ("KILL PROXYSESSION 7 ignore 16", "kill 7 16"),
    ("KILL (7)", "kill 7"),
    ("SHOW PROXYSESSION ()", "list"),
    ("SHOW PROXYSESSION ATTRIBUTE (7)", "attribute 7"),
    ("SHOW PROXYSESSION (ATTRIBUTE) {7} LIKE ['x']", "attribute 7 like x"),
]
# Section 1.2.
SESSIONS = [
    ("SHOW PROXYSESSION 7", "5010"),
    ("SHOW PROXYSESSION LIKE 'x'", "5010"),
    ("SHOW PROXYSESSION LIMIT 1", "5010"),
    ("SHOW PROXYSESSION nonsense", "5010"),
    ("SHOW PROXYSESSION ORDER BY Id", "5010"),
    ("SHOW PROXYSESSION WHERE User = 'a'", "list where", "5010", QUERY),
    ("SHOW PROXYSESSION WHERE Id > 3 ORDER BY Id DESC LIMIT 2", "list where", "5010", QUERY),
    ("SHOW PROXYSESSION WHERE", "1064", "5010", QUERY),
    ("SHOW PROXYSESSION WHERE nonsense = 1", "1064", "5010", QUERY),
    ("SHOW FULL PROXYSESSION", "list full", "server", QUERY),
    ("SHOW FULL PROXYSESSION WHERE Id = 1", "list full where", "server", QUERY),
    ("SHOW FULL /*x*/ PROXYSESSION", "server"),
    ("SHOW PROXYSESSION HISTORY", "history", "5010", "ours: what ended is remembered (issue 7 part 7)"),
    ("SELECT COUNT(*) FROM proxysession", "select", "server", QUERY),
    ("SELECT * FROM shop.proxysession", "server"),
    ("SHOW PROXYSESSION ATTRIBUTE", "attribute own"),
    ("SHOW PROXYSESSION ATTRIBUTE 7 LIKE 'x%'", "attribute 7 like x%"),
    ("SHOW PROXYSESSION ATTRIBUTE LIKE 'x%' 7", "5010"),
    ("SHOW PROXYSESSION ATTRIBUTE 7 8", "5010"),
    ("SHOW PROXYSESSION ATTRIBUTE WHERE a", "5010"),
    ("SHOW PROXYSESSION ATTRIBUTES", "5010"),
    ("SHOW PROXYSESSION 7 ATTRIBUTE", "5010"),
    ("SHOW PROXYSESSION READ_STALE", "read_stale"),
    ("SHOW PROXYSESSION READ_STALE LIKE '10.%'", "read_stale"),
    ("SHOW PROXYSESSION READ_STALE 7", "5010"),
    ("SHOW PROXYSESSION READ STALE", "5010"),
    ("SHOW PROXYSESSION READ_STALE LIKE", "5010"),
    ("SHOW PROCESSLIST", "processes"),
    ("show processlist;", "processes"),
    ("SHOW PROCESSLIST WHERE Id = 1", "5010"),
    ("SHOW PROCESSLIST 7", "5010"),
    ("SHOW FULL PROCESSLIST", "server"),
    ("SHOW GLOBALSESSION", "server", "list of pools", MISSING),
    ("SHOW GLOBALSESSION LIKE 'x'", "server", "list of pools", MISSING),
]
KILLS = [
    ("KILL 7", "kill 7"),
    ("kill 7", "kill 7"),
    ("KILL CONNECTION 7", "kill 7"),
    ("KILL QUERY 7", "kill query 7"),
    ("KILL PROXYSESSION 7 16", "kill 7 16"),
    ("KILL PROXYSESSION 2147549203 16", "kill 2147549203 16"),
    ("KILL PROXYSESSION 7\n16", "kill 7 16"),
    ("KILL '7'", "kill 7", "5010", QUOTED),
    ("KILL QUERY '7'", "kill query 7", "5010", QUOTED),
    ("KILL PROXYSESSION 7 '16'", "kill 7 16", "5010", QUOTED),
    ("KILL", "5010"),
    ("KILL;", "5010"),
    ("KILL CONNECTION", "5010"),
    ("KILL QUERY", "5010"),
    ("KILL PROXYSESSION", "5010"),
    ("KILL PROXYSESSION 7 8 9", "5010"),
    ("KILL PROXYSESSION 7,8", "5010"),
    ("KILL PROXYSESSION 7-8", "5010", "kill 7 8", LIST),
    ("KILL PROXYSESSION CONNECTION 7", "5010"),
    ("KILL PROXYSESSION QUERY 7", "5010"),
    ("KILL 7 8", "5010"),
    ("KILL 7,8", "5010"),
    ("KILL QUERY 7 8", "5010"),
    ("KILL CONNECTION QUERY 7", "5010"),
    ("KILL QUERY PROXYSESSION 7", "5010"),
    ("KILL HARD 7", "5010"),
    ("KILL SOFT CONNECTION 7", "5010"),
    ("KILL USER 'a'", "5010"),
    ("KILL QUERY ID 7", "5010"),
    ("KILL nonsense", "5010"),
    ("KILL GLOBALSESSION x", "5010", "kill of a pool", UNMAPPED),
    ("KILL PROXYSESSION WHERE User = 'a'", "kill where", "5010", "ours: issue 4"),
    ("KILL PROXYSESSION 7 DRY RUN", "kill 7", "5010", "ours: issue 4"),
    ("KILL PROXYSESSION 7 REASON 'x'", "kill 7", "5010", "ours: issue 4"),
    ("EXPLAIN KILL 7", "server", "5010", EXPLAINED),
    ("EXPLAIN SHOW PROXYSESSION", "server", "5010", EXPLAINED),
    ("PREPARE s FROM 'SHOW PROXYSESSION'", "server"),
    ("PREPARE s FROM 'KILL PROXYSESSION 7'", "1235", "server", UNMAPPED),
    ("EXECUTE IMMEDIATE 'KILL 7'", "1235", "server", UNMAPPED),
    ("SELECT 'KILL 7'", "server"),
    ("SELECT 1 AS kill", "server"),
]
# Section 10.
OTHERS = [
    ("SELECT PROXY_VERSION()", "version"),
    ("select proxy_version ( ) ;", "version"),
    ("SELECT PROXY_VERSION(), 1", "server"),
    ("SELECT PROXY_STATUS()", "server", "a number", MISSING),
    ("SELECT @@tx_read_only", "server", "a number", "ours: the server knows it better"),
    ("SELECT @obproxy_route_addr", "server", "an address", MISSING),
    ("SHOW PROXYCONFIG", "config"),
    ("SHOW PROXYCONFIG LIKE 'kill%'", "config like kill%"),
    ("SHOW PROXYCONFIG LIKE", "5010"),
    ("SHOW PROXYCONFIG DIFF", "5010", "config", "ours: the settings file is where they differ from the defaults"),
    ("SHOW PROXYINFO BINARY", "info"),
    ("SHOW PROXYINFO", "5010"),
    ("SHOW PROXYINFO UPGRADE", "5010", "hot upgrade", "ours: there is no hot upgrade"),
    ("SHOW PROXYINFO IDC", "5010", "data centres", "ours: there are no data centres"),
    ("SHOW PROXYCLUSTER", "clusters"),
    ("SHOW PROXYCLUSTER LIKE 'o%'", "clusters like o%"),
    ("SHOW PROXYCLUSTER IDC", "5010", "data centres", "ours: there are no data centres"),
    ("SHOW PROXYCONGESTION", "congestion"),
    ("SHOW PROXYCONGESTION ALL", "congestion all"),
    ("SHOW PROXYCONGESTION ALL 'ob1'", "congestion all ob1"),
    ("SHOW PROXYCONGESTION 7", "5010"),
    ("SHOW PROXYSTAT", "statistics"),
    ("SHOW PROXYSTAT REFRESH LIKE 'kills%'", "statistics like kills%"),
    ("SHOW PROXYSTAT LIKE", "5010"),
    *(
        (f"SHOW PROXY{what}", "server", "a list", MISSING)
        for what in ("SM", "ROUTE", "VIP", "MEMORY", "TRACE", "RESOURCE")
    ),
    ("SHOW SQLAUDIT", "server", "a list", MISSING),
    ("SHOW WARNLOG", "server", "a list", MISSING),
    ("SHOW TOPOLOGY", "server"),
    ("SHOW DATABASES", "server"),
    ("SHOW TABLES", "server"),
    ("SELECT CONNECTION_ID ()", "server"),
    ("SHOW", "server"),
    ("", "server"),
    ("/* nothing */", "server"),
]
DETAILS = [
    ("SHOW PROXYSESSION STAT", "stat own"),
    ("SHOW PROXYSESSION STAT -1", "stat own"),
    ("SHOW PROXYSESSION STAT 7 LIKE 'x'", "stat 7 like x"),
    ("SHOW PROXYSESSION STAT LIKE 'x' 7", "5010"),
    ("SHOW PROXYSESSION VARIABLES", "variables own"),
    ("SHOW PROXYSESSION VARIABLES LIKE ''", "variables own"),
    ("SHOW PROXYSESSION VARIABLES 7", "variables 7"),
    ("SHOW PROXYSESSION VARIABLES ALL", "variables all own"),
    ("SHOW PROXYSESSION VARIABLES ALL 7 LIKE 'x'", "variables all 7 like x"),
    ("SHOW PROXYSESSION VARIABLES 7 ALL", "5010"),
    ("SHOW PROXYNET", "5010"),
    ("SHOW PROXYNET THREAD", "5010", "a list", "ours: there is one thread, and it counts none of that"),
    ("SHOW PROXYNET CONNECTION", "connections"),
    ("SHOW PROXYNET CONNECTION 7", "connections 7"),
    ("SHOW PROXYNET CONNECTION 7 LIMIT 10", "connections 7 from 0 to 10"),
    ("SHOW PROXYNET CONNECTION 7 LIMIT 5, 10", "connections 7 from 5 to 15"),
    ("SHOW PROXYNET CONNECTION 7 LIMIT 10 OFFSET 5;", "connections 7 from 5 to 15"),
    ("SHOW PROXYNET CONNECTION 7 LIMIT", "5010"),
    ("SHOW PROXYNET CONNECTION 7 LIMIT 5,", "5010"),
    ("SHOW PROXYNET CONNECTION 7 LIMIT -5", "5010"),
    ("SHOW PROXYNET CONNECTION 7 LIMIT 5 OFFSET", "5010"),
    ("SHOW PROXYNET CONNECTION LIMIT 10", "5010"),
    ("ALTER PROXYCONFIG SET a = 1", "set a to 1"),
    ("ALTER PROXYCONFIG SET kill.timeout=2.5;", "set kill.timeout to 2.5"),
    ("alter proxyconfig set `kill.timeout` = '2.5' -- a", "set kill.timeout to 2.5"),
    ("ALTER PROXYCONFIG SET a =", "set a to"),
    ("ALTER PROXYCONFIG SET a = ''", "set a to"),
    ("ALTER PROXYCONFIG SET a", "5010"),
    ("ALTER PROXYCONFIG SET a = 1, b = 2", "5010"),
    ("ALTER PROXYCONFIG a = 1", "5010"),
    ("ALTER PROXYCONFIG SET = 1", "5010"),
    ("ALTER TABLE t ADD c INT", "server"),
]
# Section 1.4, the last three lines of its table.
ADMINISTRATOR = [
    ("SHOW PROXYSESSION", "list"),
    ("KILL PROXYSESSION 7 16", "kill 7 16"),
    ("SHOW PROCESSLIST", "processes"),
    ("SHOW PROXYCONFIG", "config"),
    ("ALTER PROXYCONFIG SET a = 1", "set a to 1"),
    ("SHOW PROXYSESSION STAT 7", "stat 7"),
    ("ALTER TABLE t ADD c INT", "5010"),
    ("SET autocommit = 1", "ok"),
    ("SET NAMES utf8mb4", "ok"),
    ("BEGIN", "ok"),
    ("START TRANSACTION", "ok"),
    ("commit", "ok"),
    ("ROLLBACK", "ok"),
    ("SELECT 1", "row"),
    ("SELECT @@version_comment LIMIT 1", "row"),
    ("SELECT PROXY_VERSION()", "version"),
    ("SELECT * FROM t", "5010"),
    ("SHOW DATABASES", "5010"),
    ("SHOW FULL PROCESSLIST", "5010"),
    ("INSERT INTO t VALUES (1)", "5010"),
    ("SELECT 1; SELECT 2", "5010"),
    ("", "5010"),
    ("KILL QUERY 7", "kill query 7", "5010", "ours: it needs no server session of its own to end a statement"),
]
INSPECTOR = [
    ("PING PROXY", "ping"),
    ("SHOW PROXYSESSION", "list", "5010", "ours: an inspector who sees nothing is of little use"),
    ("SHOW PROXYCONFIG", "config", "5010", "ours: the same"),
    ("SET NAMES utf8mb4", "ok", "5010", "ours: drivers send it at the login"),
    ("KILL 7", "5010"),
    ("KILL PROXYSESSION 7", "5010"),
    ("KILL QUERY 7", "5010"),
    ("KILL PROXYSESSION WHERE Id = 7", "5010"),
    ("ALTER PROXYCONFIG SET a = 1", "5010"),
    ("SELECT * FROM t", "5010"),
]


def _words(*parts: object) -> str:
    return " ".join(str(part) for part in parts if part != "")


def _like(pattern: str) -> str:
    return f"like {pattern}" if pattern else ""


def _own(number: int | None) -> object:
    return "own" if number is None else number


def describe(request: object) -> str:
    """Return how the tables above spell a request."""
    match request:
        case SessionList(full=full, query=query):
            return _words("list", "full" if full else "", "where" if query else "")
        case SessionAttributes(number=number, pattern=pattern):
            return _words("attribute", _own(number), _like(pattern))
        case KillRequest(target=target, scope=scope):
            query = "query" if scope is KillScope.QUERY else ""
            return _words("kill", query, _own(target.id), "" if target.ss_id is None else target.ss_id)
        case CongestionList(all=everything, cluster=cluster):
            return _words("congestion", "all" if everything else "", cluster)
        case ClusterList(pattern=pattern):
            return _words("clusters", _like(pattern))
        case ConfigList(pattern=pattern):
            return _words("config", _like(pattern))
        case SessionStatistics(number=number, pattern=pattern):
            return _words("stat", _own(number), _like(pattern))
        case VariableList(all=everything, number=number, pattern=pattern):
            return _words("variables", "all" if everything else "", _own(number), _like(pattern))
        case ConnectionList(thread=thread, offset=offset, count=count):
            limits = "" if count is None else f"from {offset} to {offset + count}"
            return _words("connections", "" if thread is None else thread, limits)
        case ConfigChange(name=name, value=value):
            return _words("set", name, "to", value)
        case StatisticList(pattern=pattern):
            return _words("statistics", _like(pattern))
    simple: dict[type, str] = {
        KillWhere: "kill where",
        QueryText: "select",
        HistoryList: "history",
        ReadStaleList: "read_stale",
        ProxyProcesses: "processes",
        Ping: "ping",
        VersionQuery: "version",
        BinaryInfo: "info",
        Courtesy: "ok",
        Probes: "row",
    }
    return simple[type(request)]


class SpecGrammarTests(SynchronousTestCase):
    def setUp(self) -> None:
        """Make all statements of a proxy whose ids are of version 1, as spec section 1 takes them to be."""
        clusters = Clusters([Cluster("ob1", (Server(Address("10.0.0.1", 2881)),), ("sys",))])
        self.statements: list[IProxyStatement] = [
            *builtin_statements(),
            *server_statements(clusters),
            processlist_statement(False),
            *settings_statements(LiveSettings(Settings()), 0.0, "pure Python"),
            statistics_statement(()),
        ]

    def check(self, table: IStatements, rows: list[tuple[str, ...]], otherwise: str = "server") -> None:
        """Check rows; `otherwise` is what becomes of a text that is none of the proxy's."""
        wrong = []
        for text, expected, *ours in rows:
            self.assertIn(len(ours), (0, 2), text)
            self.assertNotEqual(ours[:1], [expected], f"{text}: not different from ODP")
            try:
                found = table.find(text)
                answer = otherwise if found is None else describe(found.request)
            except SqlError as refusal:
                answer = str(refusal.code)
            if answer != expected:
                wrong.append(f"{text!r}: {answer}, not {expected}")
        self.assertEqual(wrong, [])

    def test_heads(self) -> None:
        """Two-word heads are one token, with white space and nothing else in between."""
        self.check(StatementTable(self.statements), HEADS)

    def test_comments(self) -> None:
        """Comments may stand anywhere but in a head."""
        self.check(StatementTable(self.statements), COMMENTS)

    def test_semicolons(self) -> None:
        """One semicolon at the end is fine; whatever looks like several statements is the server's."""
        self.check(StatementTable(self.statements), SEMICOLONS)

    def test_numbers(self) -> None:
        """Ids are integers of 1 to 17 digits, with a sign or without."""
        self.check(StatementTable(self.statements), NUMBERS)

    def test_names(self) -> None:
        """Names are words or strings without quotes inside; brackets and a few words do not count."""
        self.check(StatementTable(self.statements), NAMES)

    def test_sessions(self) -> None:
        """What shows sessions."""
        self.check(StatementTable(self.statements), SESSIONS)

    def test_kills(self) -> None:
        """What ends sessions; every text that begins with KILL and is not understood is refused."""
        self.check(StatementTable(self.statements), KILLS)

    def test_others(self) -> None:
        """What else there is."""
        self.check(StatementTable(self.statements), OTHERS)

    def test_details(self) -> None:
        """Statistics and variables of a session, connections, and changes of settings."""
        self.check(StatementTable(self.statements), DETAILS)

    def test_administrator(self) -> None:
        """root@proxysys: nothing goes to a server, for there is none."""
        self.check(administrator_statements(self.statements), ADMINISTRATOR, "5010")

    def test_inspector(self) -> None:
        """inspector@proxysys: nothing that ends anything."""
        self.check(inspector_statements(self.statements), INSPECTOR, "5010")
