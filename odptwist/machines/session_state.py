"""What a client session has set up, so that another server session can be made like it.

Source: spec section 8.2 (ODP's version counters), MySQL reference manual on SET and on session state.

State is learnt from the client's own statements, because servers report little of it (design/backends.md 2.3).
What is a name and a literal is kept and can be replayed. Everything else *pins*: a server session that holds such
state cannot be replaced without a loss, and the pin says what would be lost.
"""

from __future__ import annotations

from attrs import Factory, define, evolve, frozen

from odptwist.snapshots import Versions
from odptwist.sqltext import Kind, Token, statements

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
_NEXT_TRANSACTION = "SET TRANSACTION for the next transaction"
_LOCKS = "user locks (GET_LOCK)"
_TABLE_LOCKS = "LOCK TABLES"
# A session that sets more than this is not replayed; drivers set fewer than twenty.
_VARIABLES_LIMIT = 200
_VALUE_LIMIT = 4096


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


@define
class SessionState:
    """The state of one client session.

    Attributes:
        database: the current database, None if there is none.
        versions: the counters that ODP shows; a class's counter rises with every change of it.
        settings: what SET has set, by key, oldest first.
        pins: what cannot be replayed.
        insert_id: what LAST_INSERT_ID() answers, as far as OK packets told.
    """

    database: str | None = None
    versions: Versions = Versions()
    settings: dict[str, str] = Factory(dict)
    pins: set[str] = Factory(set)
    insert_id: int = 0

    def learn(self, effects: Effects) -> None:
        """Take over what a statement that succeeded has left."""
        if effects.database is not None:
            self.use(effects.database)
        for setting in effects.settings:
            self.settings.pop(setting.key, None)
            self.settings[setting.key] = setting.sql
            self.pins.discard(f"SET {setting.key}")
            if setting.key.startswith("@"):
                self.versions = evolve(self.versions, user_var=self.versions.user_var + 1)
            elif setting.key in HOT_VARIABLES:
                self.versions = evolve(self.versions, hot_sys_var=self.versions.hot_sys_var + 1)
            else:
                self.versions = evolve(self.versions, sys_var=self.versions.sys_var + 1)
        if len(self.settings) > _VARIABLES_LIMIT:
            self.pins.add("more variables than the proxy keeps")
        self.pins.update(effects.pins)
        self.pins.difference_update(effects.unpins)

    def use(self, database: str) -> None:
        """Be told of the current database."""
        if database != self.database:
            self.database = database
            self.versions = evolve(self.versions, db_name=self.versions.db_name + 1)

    def inserted(self, insert_id: int) -> None:
        """Be told of a last insert id in an OK packet."""
        if insert_id != self.insert_id:
            self.insert_id = insert_id
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

    def replay(self) -> tuple[str, ...]:
        """Return the statements that give a fresh server session this state (the database is chosen at login)."""
        names = [f"SET {sql}" for sql in self.settings.values() if not sql.startswith("@")]
        variables = [sql for sql in self.settings.values() if sql.startswith("@")]
        if self.insert_id:
            variables.append(f"@@session.last_insert_id = {self.insert_id}")
        return (*names, *((f"SET {', '.join(variables)}",) if variables else ()))


def effects_of(text: str) -> Effects:
    """Return what a text of one or more statements leaves behind."""
    parts = [_effects(statement) for statement in statements(text)]
    if len(parts) == 1:
        return parts[0]
    database = None
    for part in parts:
        database = part.database if part.database is not None else database
    return Effects(
        database=database,
        settings=tuple(setting for part in parts for setting in part.settings),
        pins=tuple(pin for part in parts for pin in part.pins),
        unpins=tuple(pin for part in parts for pin in part.unpins),
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
    unpins: tuple[str, ...] = ()
    for token, following in zip(statement, [*statement[1:], None], strict=True):
        if token.word == "GET_LOCK":
            pins.append(_LOCKS)
        elif token.word == "RELEASE_ALL_LOCKS":
            unpins = (_LOCKS,)
        elif token.word == "LAST_INSERT_ID" and first != "SELECT":
            pins.append("LAST_INSERT_ID(expr)")
        elif token.kind is Kind.VARIABLE and not token.text.startswith("@@") and _assigned(first, statement, following):
            pins.append("user variables that a query has set")
    return Effects(pins=tuple(dict.fromkeys(pins)), unpins=unpins)


def _assigned(first: str, statement: list[Token], following: Token | None) -> bool:
    if following and following.text == ":=":
        return True
    return first == "LOAD" or any(token.word == "INTO" for token in statement if first != "INSERT")


def _set(rest: list[Token]) -> Effects:
    """Read SET: what is a name and a literal can be replayed, all else pins."""
    words = [token.word for token in rest[:3]]
    if not words:
        return Effects()
    if words[0] == "STATEMENT":
        for position, token in enumerate(rest):
            if token.word == "FOR" and position + 1 < len(rest):
                return _effects(rest[position + 1 :])
        return Effects()
    if words[0] in ("PASSWORD", "DEFAULT", "RESOURCE"):
        return Effects()
    if words[0] == "ROLE":
        return Effects(pins=("SET ROLE",))
    if words[0] == "TRANSACTION":
        return Effects(pins=(_NEXT_TRANSACTION,))
    if words[0] in ("SESSION", "LOCAL") and words[1:2] == ["TRANSACTION"]:
        sql = " ".join(token.text for token in rest[1:])
        return Effects(settings=(Setting("transaction " + ("read" if "READ" in words else "level"), f"SESSION {sql}"),))
    settings: list[Setting] = []
    pins: list[str] = []
    scope = ""
    for item in _items(rest):
        head = item[0].word
        if head in ("GLOBAL", "SESSION", "LOCAL", "PERSIST", "PERSIST_ONLY") and len(item) > 1:
            scope, item = head, item[1:]
        elif item[0].kind is Kind.VARIABLE:
            scope = ""
        setting = _names(item) or _assignment(item, scope)
        if isinstance(setting, Setting):
            settings.append(setting)
        elif setting:
            pins.append(setting)
    return Effects(settings=tuple(settings), pins=tuple(pins))


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
        return Setting(name, f"{target} = {text}")
    return Setting(name, f"@@session.{name} = {text}")


def _is_literal(value: list[Token]) -> bool:
    if len(value) == 2:
        return (value[0].text in "+-" and value[1].kind is Kind.NUMBER) or (
            value[0].text.startswith("_") and value[1].kind is Kind.STRING
        )
    return len(value) == 1 and value[0].kind in (Kind.WORD, Kind.STRING, Kind.NUMBER)
