"""The protocol's numbers: commands, capabilities, status bits, column types and error numbers.

Plain integers, because `enum.IntFlag` is several times slower where every packet is tested for a bit. Names are MySQL's
own; every status bit bears the prefix `SERVER_STATUS_`, those few that MySQL calls only `SERVER_` have both names.

Source: https://dev.mysql.com/doc/dev/mysql-server/latest/my__command_8h.html (commands),
https://dev.mysql.com/doc/dev/mysql-server/latest/mysql__com_8h.html (capabilities, status bits, session trackers),
https://dev.mysql.com/doc/dev/mysql-server/latest/field__types_8h.html (column types),
https://mariadb.com/kb/en/connection/ (MariaDB's extended capabilities).
"""

from __future__ import annotations

from typing import Final

MAX_PAYLOAD: Final[int] = 0xFFFFFF
"""The longest payload of one fragment; a fragment of exactly this length has a successor, if only an empty one."""

# Commands: the first byte of the first packet of an exchange.
COM_SLEEP: Final[int] = 0x00
COM_QUIT: Final[int] = 0x01
COM_INIT_DB: Final[int] = 0x02
COM_QUERY: Final[int] = 0x03
COM_FIELD_LIST: Final[int] = 0x04
COM_CREATE_DB: Final[int] = 0x05
COM_DROP_DB: Final[int] = 0x06
COM_REFRESH: Final[int] = 0x07
COM_SHUTDOWN: Final[int] = 0x08
COM_STATISTICS: Final[int] = 0x09
COM_PROCESS_INFO: Final[int] = 0x0A
COM_CONNECT: Final[int] = 0x0B
COM_PROCESS_KILL: Final[int] = 0x0C
COM_DEBUG: Final[int] = 0x0D
COM_PING: Final[int] = 0x0E
COM_TIME: Final[int] = 0x0F
COM_DELAYED_INSERT: Final[int] = 0x10
COM_CHANGE_USER: Final[int] = 0x11
COM_BINLOG_DUMP: Final[int] = 0x12
COM_TABLE_DUMP: Final[int] = 0x13
COM_CONNECT_OUT: Final[int] = 0x14
COM_REGISTER_SLAVE: Final[int] = 0x15
COM_STMT_PREPARE: Final[int] = 0x16
COM_STMT_EXECUTE: Final[int] = 0x17
COM_STMT_SEND_LONG_DATA: Final[int] = 0x18
COM_STMT_CLOSE: Final[int] = 0x19
COM_STMT_RESET: Final[int] = 0x1A
COM_SET_OPTION: Final[int] = 0x1B
COM_STMT_FETCH: Final[int] = 0x1C
COM_DAEMON: Final[int] = 0x1D
COM_BINLOG_DUMP_GTID: Final[int] = 0x1E
COM_RESET_CONNECTION: Final[int] = 0x1F
COM_CLONE: Final[int] = 0x20
COM_STMT_BULK_EXECUTE: Final[int] = 0xFA  # MariaDB
COM_MULTI: Final[int] = 0xFE  # MariaDB

# The words of SHOW PROCESSLIST.
COMMAND_NAMES: Final[dict[int, str]] = {
    COM_QUIT: "Quit",
    COM_INIT_DB: "Init DB",
    COM_QUERY: "Query",
    COM_FIELD_LIST: "Field List",
    COM_REFRESH: "Refresh",
    COM_SHUTDOWN: "Shutdown",
    COM_STATISTICS: "Statistics",
    COM_PROCESS_INFO: "Processlist",
    COM_PROCESS_KILL: "Kill",
    COM_DEBUG: "Debug",
    COM_PING: "Ping",
    COM_CHANGE_USER: "Change user",
    COM_BINLOG_DUMP: "Binlog Dump",
    COM_REGISTER_SLAVE: "Register Slave",
    COM_STMT_PREPARE: "Prepare",
    COM_STMT_EXECUTE: "Execute",
    COM_STMT_SEND_LONG_DATA: "Long Data",
    COM_STMT_CLOSE: "Close stmt",
    COM_STMT_RESET: "Reset stmt",
    COM_SET_OPTION: "Set option",
    COM_STMT_FETCH: "Fetch",
    COM_BINLOG_DUMP_GTID: "Binlog Dump GTID",
    COM_RESET_CONNECTION: "Reset connection",
    COM_STMT_BULK_EXECUTE: "Bulk Execute",
}

# Capabilities: 32 bits in the greeting and in the handshake response.
CLIENT_LONG_PASSWORD: Final[int] = 1  # MariaDB calls it CLIENT_MYSQL: clear means that extended capabilities follow
CLIENT_FOUND_ROWS: Final[int] = 1 << 1
CLIENT_LONG_FLAG: Final[int] = 1 << 2
CLIENT_CONNECT_WITH_DB: Final[int] = 1 << 3
CLIENT_NO_SCHEMA: Final[int] = 1 << 4
CLIENT_COMPRESS: Final[int] = 1 << 5
CLIENT_ODBC: Final[int] = 1 << 6
CLIENT_LOCAL_FILES: Final[int] = 1 << 7
CLIENT_IGNORE_SPACE: Final[int] = 1 << 8
CLIENT_PROTOCOL_41: Final[int] = 1 << 9
CLIENT_INTERACTIVE: Final[int] = 1 << 10
CLIENT_SSL: Final[int] = 1 << 11
CLIENT_IGNORE_SIGPIPE: Final[int] = 1 << 12
CLIENT_TRANSACTIONS: Final[int] = 1 << 13
CLIENT_RESERVED: Final[int] = 1 << 14
CLIENT_SECURE_CONNECTION: Final[int] = 1 << 15
CLIENT_MULTI_STATEMENTS: Final[int] = 1 << 16
CLIENT_MULTI_RESULTS: Final[int] = 1 << 17
CLIENT_PS_MULTI_RESULTS: Final[int] = 1 << 18
CLIENT_PLUGIN_AUTH: Final[int] = 1 << 19
CLIENT_CONNECT_ATTRS: Final[int] = 1 << 20
CLIENT_PLUGIN_AUTH_LENENC_CLIENT_DATA: Final[int] = 1 << 21
CLIENT_CAN_HANDLE_EXPIRED_PASSWORDS: Final[int] = 1 << 22
CLIENT_SESSION_TRACK: Final[int] = 1 << 23
CLIENT_DEPRECATE_EOF: Final[int] = 1 << 24
CLIENT_OPTIONAL_RESULTSET_METADATA: Final[int] = 1 << 25
CLIENT_ZSTD_COMPRESSION: Final[int] = 1 << 26
CLIENT_QUERY_ATTRIBUTES: Final[int] = 1 << 27
MULTI_FACTOR_AUTHENTICATION: Final[int] = 1 << 28
CLIENT_SSL_VERIFY_SERVER_CERT: Final[int] = 1 << 30
CLIENT_REMEMBER_OPTIONS: Final[int] = 1 << 31

# MariaDB's extended capabilities, as they stand in their own 32 bits (MariaDB's headers count them from bit 32).
MARIADB_CLIENT_PROGRESS: Final[int] = 1
MARIADB_CLIENT_COM_MULTI: Final[int] = 1 << 1
MARIADB_CLIENT_STMT_BULK_OPERATIONS: Final[int] = 1 << 2
MARIADB_CLIENT_EXTENDED_METADATA: Final[int] = 1 << 3
MARIADB_CLIENT_CACHE_METADATA: Final[int] = 1 << 4

# Status bits: 16 bits in the greeting, in OK and in EOF.
SERVER_STATUS_IN_TRANS: Final[int] = 1
SERVER_STATUS_AUTOCOMMIT: Final[int] = 1 << 1
SERVER_STATUS_MORE_RESULTS_EXISTS: Final[int] = 1 << 3
SERVER_STATUS_NO_GOOD_INDEX_USED: Final[int] = 1 << 4
SERVER_STATUS_NO_INDEX_USED: Final[int] = 1 << 5
SERVER_STATUS_CURSOR_EXISTS: Final[int] = 1 << 6
SERVER_STATUS_LAST_ROW_SENT: Final[int] = 1 << 7
SERVER_STATUS_DB_DROPPED: Final[int] = 1 << 8
SERVER_STATUS_NO_BACKSLASH_ESCAPES: Final[int] = 1 << 9
SERVER_STATUS_METADATA_CHANGED: Final[int] = 1 << 10
SERVER_STATUS_QUERY_WAS_SLOW: Final[int] = 1 << 11
SERVER_STATUS_PS_OUT_PARAMS: Final[int] = 1 << 12
SERVER_STATUS_IN_TRANS_READONLY: Final[int] = 1 << 13
SERVER_STATUS_SESSION_STATE_CHANGED: Final[int] = 1 << 14

# The same bits under the names that MySQL's headers give them.
SERVER_MORE_RESULTS_EXISTS: Final[int] = SERVER_STATUS_MORE_RESULTS_EXISTS
SERVER_QUERY_NO_GOOD_INDEX_USED: Final[int] = SERVER_STATUS_NO_GOOD_INDEX_USED
SERVER_QUERY_NO_INDEX_USED: Final[int] = SERVER_STATUS_NO_INDEX_USED
SERVER_QUERY_WAS_SLOW: Final[int] = SERVER_STATUS_QUERY_WAS_SLOW
SERVER_PS_OUT_PARAMS: Final[int] = SERVER_STATUS_PS_OUT_PARAMS
SERVER_SESSION_STATE_CHANGED: Final[int] = SERVER_STATUS_SESSION_STATE_CHANGED

# Session trackers: the type byte of an entry in an OK's block of changes.
SESSION_TRACK_SYSTEM_VARIABLES: Final[int] = 0
SESSION_TRACK_SCHEMA: Final[int] = 1
SESSION_TRACK_STATE_CHANGE: Final[int] = 2
SESSION_TRACK_GTIDS: Final[int] = 3
SESSION_TRACK_TRANSACTION_CHARACTERISTICS: Final[int] = 4
SESSION_TRACK_TRANSACTION_STATE: Final[int] = 5

# Collations, by the number that stands in greetings and column definitions.
CHARSET_UTF8MB4_GENERAL_CI: Final[int] = 45
CHARSET_UTF8MB4_BIN: Final[int] = 46
CHARSET_BINARY: Final[int] = 63
UTF8_CHARSETS: Final[frozenset[int]] = frozenset(
    (33, 45, 46, 76, 83, *range(192, 216), *range(223, 248), *range(255, 324))
)
"""Collations of utf8mb3 and utf8mb4 in MySQL 8.4 and MariaDB 10.11 (information_schema.COLLATIONS), but for MariaDB's
above 1,000."""

# Column types.
FIELD_TYPE_DECIMAL: Final[int] = 0
FIELD_TYPE_TINY: Final[int] = 1
FIELD_TYPE_SHORT: Final[int] = 2
FIELD_TYPE_LONG: Final[int] = 3
FIELD_TYPE_FLOAT: Final[int] = 4
FIELD_TYPE_DOUBLE: Final[int] = 5
FIELD_TYPE_NULL: Final[int] = 6
FIELD_TYPE_TIMESTAMP: Final[int] = 7
FIELD_TYPE_LONGLONG: Final[int] = 8
FIELD_TYPE_INT24: Final[int] = 9
FIELD_TYPE_DATE: Final[int] = 10
FIELD_TYPE_TIME: Final[int] = 11
FIELD_TYPE_DATETIME: Final[int] = 12
FIELD_TYPE_YEAR: Final[int] = 13
FIELD_TYPE_NEWDATE: Final[int] = 14
FIELD_TYPE_VARCHAR: Final[int] = 15
FIELD_TYPE_BIT: Final[int] = 16
FIELD_TYPE_JSON: Final[int] = 245
FIELD_TYPE_NEWDECIMAL: Final[int] = 246
FIELD_TYPE_ENUM: Final[int] = 247
FIELD_TYPE_SET: Final[int] = 248
FIELD_TYPE_TINY_BLOB: Final[int] = 249
FIELD_TYPE_MEDIUM_BLOB: Final[int] = 250
FIELD_TYPE_LONG_BLOB: Final[int] = 251
FIELD_TYPE_BLOB: Final[int] = 252
FIELD_TYPE_VAR_STRING: Final[int] = 253
FIELD_TYPE_STRING: Final[int] = 254
FIELD_TYPE_GEOMETRY: Final[int] = 255

# Column flags.
FLAG_NOT_NULL: Final[int] = 1
FLAG_UNSIGNED: Final[int] = 32
FLAG_BINARY: Final[int] = 128

# Error numbers: the server's (ER_), the client library's own (CR_).
ER_CON_COUNT_ERROR: Final[int] = 1040
ER_HANDSHAKE_ERROR: Final[int] = 1043
ER_ACCESS_DENIED_ERROR: Final[int] = 1045
ER_NO_DB_ERROR: Final[int] = 1046
ER_UNKNOWN_COM_ERROR: Final[int] = 1047
ER_BAD_DB_ERROR: Final[int] = 1049
ER_PARSE_ERROR: Final[int] = 1064
ER_NO_SUCH_THREAD: Final[int] = 1094
ER_KILL_DENIED_ERROR: Final[int] = 1095
ER_UNKNOWN_ERROR: Final[int] = 1105
ER_NET_PACKET_TOO_LARGE: Final[int] = 1153
ER_NET_PACKETS_OUT_OF_ORDER: Final[int] = 1156
ER_SPECIFIC_ACCESS_DENIED_ERROR: Final[int] = 1227
ER_NOT_SUPPORTED_YET: Final[int] = 1235
ER_UNKNOWN_STMT_HANDLER: Final[int] = 1243
ER_QUERY_INTERRUPTED: Final[int] = 1317
ER_MALFORMED_PACKET: Final[int] = 1835
ER_CONNECTION_KILLED: Final[int] = 1927  # MariaDB
