"""What a client session has set up, so that another server session can be made like it.

Source: spec section 8.2 (ODP's version counters), MySQL reference manual on SET and on session state.

State is learnt from the client's own statements, because servers report little of it (design/backends.md 2.3).
What is a name and a literal is kept and can be replayed. Everything else *pins*: a server session that holds such
state cannot be replaced without a loss, and the pin says what would be lost.

Some lines over 400: what is learnt of a statement and how it is replayed must be read side by side.
"""

from __future__ import annotations

import re

from attrs import Factory, define, evolve, frozen

from odptwist.snapshots import UNCHANGED, Versions
from odptwist.sqltext import Kind, Token, bare, statements

HOT_VARIABLES = frozenset(("autocommit", "ob_log_level", "ob_query_timeout", "ob_last_schema_version"))

# Statements that leave nothing behind but what the functions in them do.
_HARMLESS = frozenset(
    [
        "ALTER",
        "ANALYZE",
        "BACKUP",
        "BEGIN",
        "BINLOG",
        "CACHE",
        "CHANGE",
        "CHECK",
        "CHECKSUM",
        "COMMIT",
        "CREATE",
        "DEALLOCATE",
        "DELETE",
        "DESC",
        "DESCRIBE",
        "DO",
        "DROP",
        "EXPLAIN",
        "FLUSH",
        "GRANT",
        "HELP",
        "IMPORT",
        "INSERT",
        "INSTALL",
        "KILL",
        "LOAD",
        "OPTIMIZE",
        "PURGE",
        "RELEASE",
        "RENAME",
        "REPAIR",
        "REPLACE",
        "RESET",
        "REVOKE",
        "ROLLBACK",
        "SAVEPOINT",
        "SELECT",
        "SHOW",
        "SHUTDOWN",
        "START",
        "TABLE",
        "TRUNCATE",
        "UNINSTALL",
        "UNLOCK",
        "UPDATE",
        "VALUES",
        "WITH",
    ]
)
_PINNING = {
    "CALL": "what a procedure may have set (CALL)",
    "EXECUTE": "prepared text statements (PREPARE)",
    "HANDLER": "HANDLER",
    "LOCK": "LOCK TABLES",
    "PREPARE": "prepared text statements (PREPARE)",
    "XA": "an XA transaction",
}
# One statement that begins so and holds none of what follows leaves nothing. It saves a long INSERT 40 ms of tokens.
_PLAIN_BEGINNING = re.compile(r"\s*+(?:SELECT|INSERT|UPDATE|DELETE|REPLACE|WITH)\b", re.IGNORECASE)
_TELLING = re.compile(r"[@;]|/\*|:=|GET_LOCK|RELEASE_ALL_LOCKS|LAST_INSERT_ID", re.IGNORECASE)
_NEXT_TRANSACTION = "SET TRANSACTION for the next transaction"
_LOCKS = "user locks (GET_LOCK)"
_TABLE_LOCKS = "LOCK TABLES"
# Of a session that sets more than this, the rest is lost with its server session; drivers set fewer than twenty.
_VARIABLES_LIMIT = 200
_PINS_LIMIT = 200
_VALUE_LIMIT = 4096
_TOO_MANY = "more variables than the proxy keeps"
# They are used up by the next statement: set again later, they would act a second time.
_USED_UP = frozenset(("gtid_next", "insert_id", "rand_seed1", "rand_seed2"))
# Without SESSION they hold for the next transaction only.
_OF_TRANSACTIONS = frozenset(("transaction_isolation", "transaction_read_only", "tx_isolation", "tx_read_only"))
_CONSTANTS = frozenset(("NULL", "TRUE", "FALSE"))


@frozen
class Setting:
    """One assignment: `key` tells settings apart, `sql` is the item of a SET statement that repeats it."""

    key: str
    sql: str


@frozen
class Effects:
    """What a statement leaves in its session once it has succeeded."""

    database: str | None = None
    settings: tuple[Setting, ...] = ()
    pins: tuple[str, ...] = ()
    unpins: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.database is not None or self.settings or self.pins or self.unpins)


@frozen
class Kept:
    """One setting of a session: `sql` as in `Setting`, and the session's `serial` when it was made."""

    serial: int
    sql: str


@frozen
class Reading:
    """What decides how a server reads the text of a statement, if that is prepared now.

    Attributes:
        database: the current one, None if there is none.
        sql_mode: as a statement has set it, None if none has.
    """

    database: str | None = None
    sql_mode: str | None = None

    def replay(self, since: Reading) -> tuple[str, ...]:
        """Return the statements that lead here from another one."""
        found = []
        if self.database and self.database != since.database:
            found.append(f"USE {quote_name(self.database)}")
        if self.sql_mode != since.sql_mode:
            found.append(f"SET @@session.sql_mode = {self.sql_mode or 'DEFAULT'}")
        return tuple(found)


@define
class SessionState:
    """The state of one client session.

    Attributes:
        database: the current database, None if there is none.
        versions: the counters that ODP shows; a class's counter rises with every change of it.
        serial: rises with every change of anything; a server session that has seen it all needs no replay.
        settings: what SET has set, by key, oldest first.
        pins: what cannot be replayed.
        insert_id: what LAST_INSERT_ID() answers, as far as OK packets told.
    """

    database: str | None = None
    versions: Versions = UNCHANGED
    serial: int = 0
    settings: dict[str, Kept] = Factory(dict)
    pins: set[str] = Factory(set)
    insert_id: int = 0
    _database_serial: int = 0
    _insert_serial: int = 0

    def learn(self, effects: Effects) -> None:
        """Take over what a statement that succeeded has left."""
        if effects.database is not None:
            self.use(effects.database)
        for setting in effects.settings:
            self._keep(setting)
            if setting.key.startswith("@"):
                self.versions = evolve(self.versions, user_var=self.versions.user_var + 1)
            elif setting.key in HOT_VARIABLES:
                self.versions = evolve(self.versions, hot_sys_var=self.versions.hot_sys_var + 1)
            else:
                self.versions = evolve(self.versions, sys_var=self.versions.sys_var + 1)
        for pin in effects.pins:
            self.pins.add(pin if pin in self.pins or len(self.pins) < _PINS_LIMIT else _TOO_MANY)
        self.pins.difference_update(effects.unpins)

    def _keep(self, setting: Setting) -> None:
        # The newest stands last, because the order counts: NAMES sets variables that can also be set one by one.
        self.settings.pop(setting.key, None)
        self.serial += 1
        if len(self.settings) < _VARIABLES_LIMIT:
            self.settings[setting.key] = Kept(self.serial, setting.sql)
            self.pins.discard("SET ROLE" if setting.key == "role" else f"SET {setting.key}")
        else:
            self.pins.add(_TOO_MANY)
        if setting.key in ("last_insert_id", "identity"):
            self.insert_id = 0

    def use(self, database: str) -> None:
        """Be told of the current database."""
        if database != self.database:
            self.database = database
            self.serial += 1
            self._database_serial = self.serial
            self.versions = evolve(self.versions, db_name=self.versions.db_name + 1)

    def inserted(self, insert_id: int) -> None:
        """Be told of a last insert id in an OK packet."""
        if insert_id != self.insert_id:
            self.insert_id = insert_id
            self.serial += 1
            self._insert_serial = self.serial
            self.versions = evolve(self.versions, last_insert_id=self.versions.last_insert_id + 1)

    def transaction_ended(self) -> None:
        """Be told that a transaction ended: what was set for it alone has gone."""
        self.pins.discard(_NEXT_TRANSACTION)

    def reset(self, database: str | None) -> None:
        """Forget all but the database, as COM_RESET_CONNECTION and COM_CHANGE_USER make the server do."""
        self.settings = {}
        self.pins = set()
        self.insert_id = 0
        self.database = database
        self.serial += 1
        self._database_serial = self.serial

    def replay(self, since: int | None = None) -> tuple[str, ...]:
        """Return the statements that make a server session like this one.

        Args:
            since: the `serial` that the server session has caught up with; None for a fresh one, whose database was
                chosen at its login.
        """
        found: list[str] = []
        variables: list[str] = []
        if since is None:
            since = -1
        elif self._database_serial > since and self.database:
            found.append(f"USE {quote_name(self.database)}")
        insert_id = [f"@@session.last_insert_id = {self.insert_id}"] if self.insert_id else []
        for sql in [
            *(kept.sql for kept in self.settings.values() if kept.serial > since),
            *(insert_id if self._insert_serial > since else []),
        ]:
            if sql.startswith("@") and not sql.upper().endswith("= DEFAULT"):
                variables.append(sql)
                continue
            # By itself: seekdb 1.4 forgets the assignments that follow a DEFAULT.
            if variables:
                found.append(f"SET {', '.join(variables)}")
                variables = []
            found.append(f"SET {sql}")
        return (*found, *((f"SET {', '.join(variables)}",) if variables else ()))

    @property
    def reading(self) -> Reading:
        """How statements are read that are prepared now."""
        return Reading(self.database, self.value_of("sql_mode") or None)

    def value_of(self, key: str) -> str:
        """Return the literal that a variable was set to, as it was written, or an empty string."""
        kept = self.settings.get(key)
        return kept.sql.partition("=")[2].strip() if kept is not None else ""


def quote_name(name: str) -> str:
    """Return an identifier in backquotes."""
    return "`" + name.replace("`", "``") + "`"


def effects_of(text: str) -> Effects:
    """Return what a text of one or more statements leaves behind."""
    code = bare(text)
    if _PLAIN_BEGINNING.match(code) and not _TELLING.search(code):
        return Effects()
    parts = [_effects(statement) for statement in statements(text)]
    if len(parts) == 1:
        return parts[0]
    database = None
    pins: dict[str, None] = {}
    unpins: dict[str, None] = {}
    for part in parts:
        database = part.database if part.database is not None else database
        for pin in part.pins:
            pins[pin] = None
            unpins.pop(pin, None)
        for pin in part.unpins:
            unpins[pin] = None
            pins.pop(pin, None)
    return Effects(
        database=database,
        settings=tuple(setting for part in parts for setting in part.settings),
        pins=tuple(pins),
        unpins=tuple(unpins),
    )


def _effects(statement: list[Token]) -> Effects:
    first = statement[0].word
    second = statement[1].word if len(statement) > 1 else ""
    if first == "USE" and len(statement) == 2:
        return Effects(database=statement[1].name)
    if first == "SET":
        return _set(statement[1:])
    if first == "UNLOCK":
        return Effects(unpins=(_TABLE_LOCKS,))
    pins = []
    if first in _PINNING:
        pins.append(_PINNING[first])
    elif first == "BEGIN" and second == "NOT":
        pins.append("what a block may have set (BEGIN NOT ATOMIC)")
    elif first and first not in _HARMLESS:
        pins.append(f"what {first} may have set")
    elif first == "CREATE" and "TEMPORARY" in [token.word for token in statement[1:4]]:
        pins.append("temporary tables")
    elif first == "FLUSH" and {"LOCK", "EXPORT"} & {token.word for token in statement}:
        pins.append(_TABLE_LOCKS)
    into = first == "LOAD" or (first not in ("INSERT", "REPLACE") and "INTO" in [token.word for token in statement])
    left, unpins = _left(statement, into)
    return Effects(pins=tuple(dict.fromkeys([*pins, *left])), unpins=unpins)


def _left(part: list[Token], into: bool) -> tuple[list[str], tuple[str, ...]]:
    """Return the pins and unpins of what expressions leave behind; `into`: whether variables in them are set."""
    pins = []
    unpins: tuple[str, ...] = ()
    for position, token in enumerate(part):
        word = token.word
        if word == "GET_LOCK":
            pins.append(_LOCKS)
        elif word == "RELEASE_ALL_LOCKS":
            unpins = (_LOCKS,)
        elif word == "LAST_INSERT_ID":
            if [following.text for following in part[position + 1 : position + 3]] not in ([], ["(", ")"]):
                pins.append("LAST_INSERT_ID(expr)")
        elif (
            token.kind is Kind.VARIABLE
            and not token.text.startswith("@@")
            and (into or (position + 1 < len(part) and part[position + 1].text == ":="))
        ):
            pins.append("user variables that a query has set")
    return pins, () if _LOCKS in pins else unpins


def _set(rest: list[Token]) -> Effects:
    """Read SET: what is a name and a literal can be replayed, all else pins."""
    words = [token.word for token in rest[:3]]
    if not words:
        return Effects()
    if words[0] == "STATEMENT":
        inner = next((rest[position + 1 :] for position, token in enumerate(rest) if token.word == "FOR"), [])
        # No server takes one inside another; following them inwards would pass Python's limit of recursion.
        nested = [token.word for token in inner[:2]] == ["SET", "STATEMENT"]
        return _effects(inner) if inner and not nested else Effects()
    if words[0] in ("PASSWORD", "DEFAULT", "RESOURCE"):
        return Effects()
    if words[0] == "ROLE":
        # A list, DEFAULT and ALL EXCEPT are rare, and what they come to may change.
        if len(rest) == 2 and rest[1].word not in ("DEFAULT", "ALL"):
            return Effects(settings=(Setting("role", f"ROLE {rest[1].text}"),))
        return Effects(pins=("SET ROLE",))
    if words[0] == "TRANSACTION":
        return Effects(pins=(_NEXT_TRANSACTION,))
    if words[0] in ("SESSION", "LOCAL") and words[1:2] == ["TRANSACTION"]:
        sql = " ".join(token.text for token in rest[1:])
        return Effects(settings=(Setting("transaction " + ("read" if "READ" in words else "level"), f"SESSION {sql}"),))
    settings: list[Setting] = []
    pins, unpins = _left(rest[2:], False)
    scope = ""  # once named, it holds for the assignments that follow
    for item in _items(rest):
        head = item[0].word
        if head in ("GLOBAL", "SESSION", "LOCAL", "PERSIST", "PERSIST_ONLY") and len(item) > 1:
            scope, item = head, item[1:]
        setting = _names(item) or _assignment(item, "" if item[0].kind is Kind.VARIABLE else scope)
        if isinstance(setting, Setting):
            settings.append(setting)
        elif setting:
            pins.append(setting)
    return Effects(settings=tuple(settings), pins=tuple(dict.fromkeys(pins)), unpins=unpins)


def _items(rest: list[Token]) -> list[list[Token]]:
    """Split the list of a SET statement at its commas."""
    items: list[list[Token]] = [[]]
    depth = 0
    for token in rest:
        depth += {"(": 1, ")": -1}.get(token.text, 0) if token.kind is Kind.SYMBOL else 0
        if token.text == "," and not depth and token.kind is Kind.SYMBOL:
            items.append([])
        else:
            items[-1].append(token)
    return [item for item in items if item]


def _names(item: list[Token]) -> Setting | None:
    """Read NAMES and CHARACTER SET."""
    words = [token.word for token in item]
    if words[0] == "NAMES" and len(item) in (2, 4) and words[2:3] in ([], ["COLLATE"]):
        return Setting("names", " ".join(token.text for token in item))
    if (words[0] == "CHARSET" and len(item) == 2) or (words[:2] == ["CHARACTER", "SET"] and len(item) == 3):
        return Setting("names", " ".join(token.text for token in item))
    return None


def _assignment(item: list[Token], scope: str) -> Setting | str:
    """Read `name = literal`; return a pin if it is anything else, and an empty string if it is not the session's."""
    target = item[0].text
    if target.startswith("@@"):
        prefix, dot, name = target[2:].rpartition(".")
        if dot:
            scope = prefix.upper()
        target = name
    if scope in ("GLOBAL", "PERSIST", "PERSIST_ONLY"):
        return ""
    value = item[2:]
    name = target.strip("`").lower()
    if len(item) < 3 or item[1].text not in ("=", ":=") or not _is_literal(value):
        return f"SET {name}"
    text = "".join(token.text for token in value)
    if len(text) > _VALUE_LIMIT:
        return f"SET {name}"
    if target.startswith("@"):
        if len(value) == 1 and _is_name(value[0]):
            return f"SET {name}"  # a function without brackets: CURRENT_USER, UTC_DATE
        return Setting(name, f"{target} = {text}")
    if name in _USED_UP or (name in _OF_TRANSACTIONS and not scope):
        return f"SET {name}"
    return Setting(name, f"@@session.{name} = {text}")


def _is_literal(value: list[Token]) -> bool:
    if len(value) == 2:
        return (value[0].text in "+-" and value[1].kind is Kind.NUMBER) or (
            value[0].text.startswith("_") and value[1].kind is Kind.STRING
        )
    return len(value) == 1 and value[0].kind in (Kind.WORD, Kind.STRING, Kind.NUMBER)


def _is_name(token: Token) -> bool:
    """Whether this is a word, but neither a constant nor a number such as 0x1F."""
    return token.kind is Kind.WORD and token.word not in _CONSTANTS and not token.text[0].isdigit()
