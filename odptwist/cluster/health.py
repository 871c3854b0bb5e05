"""What a health check asks a server, and what the answers say of its role.

Source: MySQL and MariaDB reference manuals, "SHOW REPLICA STATUS" and "read_only"; design/backends.md 1.6 for seekdb.
"""

from __future__ import annotations

import re
from collections.abc import Generator, Iterator

from odptwist.errors import ServerUnreachable
from odptwist.snapshots import Role, ServerFinding
from odptwist.wire.resultset import ResultReader

Examination = Generator[str, ResultReader, ServerFinding]
"""Yields questions, is sent their answers, and returns what it found."""

_UNKNOWN_THREAD = 1094
_READ_ONLY_STANDBY = 4688
_REPLICA_STATUS_SINCE = (8, 0, 22)  # of MySQL; SHOW SLAVE STATUS ended with 8.4
_NUMBERS = re.compile(r"(\d+)\.(\d+)\.(\d+)")
_THREADS = ("io_running", "sql_running")
_LAG = ("seconds_behind_master", "seconds_behind_source")


def examine(version: str = "") -> Examination:
    """Find out about a server.

    A role that cannot be read from an answer is `Role.UNKNOWN`.

    Args:
        version: what the server called itself over the same connection before, or empty: then it is asked.

    Raises:
        ServerUnreachable: it refuses a question that any account may ask; it cannot do its work now.
    """
    if not version:
        version = _cell((yield from _ask("SELECT VERSION()")))
    if "OceanBase" in version:
        role = _kernel_role((yield "KILL QUERY 0"))
        return ServerFinding(role, version)
    read_only = _cell((yield from _ask("SELECT @@global.read_only"))).upper()
    # No privilege for it is no fault: then only read_only counts.
    channels = list(_channels((yield _status_question(version))))
    if not read_only:
        role = Role.UNKNOWN
    elif read_only in ("0", "OFF") and not any(_follows(channel) for channel in channels):
        role = Role.PRIMARY
    else:  # 1 or ON; whatever else a server may say, it is no plain no
        role = Role.REPLICA
    return ServerFinding(role, version, _lag(channels))


def _ask(question: str) -> Generator[str, ResultReader, ResultReader]:
    answer = yield question
    if answer.error is not None:
        raise ServerUnreachable(f"{question} is answered by error {answer.error.code}: {answer.error.message}")
    return answer


def _cell(answer: ResultReader) -> str:
    """Return the first value of a result, an empty text if there is none."""
    return _text(answer.rows[0][0]) if answer.rows else ""


def _text(value: bytes | None) -> str:
    return (value or b"").decode("utf-8", "replace")


def _kernel_role(answer: ResultReader) -> Role:
    """Read what OceanBase's kernel says to a kill of nobody: a standby refuses before it looks."""
    code = answer.error.code if answer.error is not None else 0
    return {_UNKNOWN_THREAD: Role.PRIMARY, _READ_ONLY_STANDBY: Role.REPLICA}.get(code, Role.UNKNOWN)


def _status_question(version: str) -> str:
    numbers = _NUMBERS.match(version)
    modern = numbers is not None and tuple(map(int, numbers.groups())) >= _REPLICA_STATUS_SINCE
    return "SHOW REPLICA STATUS" if modern and "MariaDB" not in version else "SHOW SLAVE STATUS"


def _channels(answer: ResultReader) -> Iterator[dict[str, bytes | None]]:
    """Yield the rows, one for each primary that is followed, by lower-case column names."""
    names = [column.name.lower() for column in answer.columns]
    for row in answer.rows if answer.error is None else ():
        yield dict(zip(names, row, strict=True))


def _follows(channel: dict[str, bytes | None]) -> bool:
    # Slave_IO_Running or Replica_IO_Running: Yes, No, Preparing; Connecting runs, too, while the primary is away.
    return any(name.endswith(_THREADS) and _text(value) not in ("", "No") for name, value in channel.items())


def _lag(channels: list[dict[str, bytes | None]]) -> float | None:
    """Return the lag of the channel that is farthest behind, None if one does not know."""
    lags = [next((_text(channel[name]) for name in _LAG if name in channel), "") for channel in channels]
    return float(max(map(int, lags))) if lags and all(each.isdigit() for each in lags) else None
