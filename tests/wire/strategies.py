"""What the wire's property tests share."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

from odptwist.errors import WireError
from odptwist.wire.primitives import decode_text

# `differing_executors`: trial makes a new test case object for every run.
relaxed = settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.differing_executors])
many = settings(relaxed, max_examples=250)

uint8 = st.integers(0, 0xFF)
uint16 = st.integers(0, 0xFFFF)
uint32 = st.integers(0, 0xFFFFFFFF)
uint64 = st.integers(0, 0xFFFFFFFFFFFFFFFF)
any_bytes = st.binary(max_size=300)
texts = st.one_of(
    st.text(st.characters(exclude_categories=["Cs"]), max_size=20), st.binary(max_size=300).map(decode_text)
)
names = texts.map(lambda text: text.replace("\x00", ""))

SEEKDB_GREETING = (
    b"\n5.7.25\x00k\x00\x00\x00]o9k2U7O\x00\xff\xf7.\x02\x00\x9f\x00\x15\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"
    b"h@EvHCWk6g&$\x00mysql_native_password\x00"
)
MARIADB_GREETING = (
    b"\n5.5.5-10.11.19-MariaDB-0+deb12u1\x00\x03\x00\x00\x00'M-7l?3!\x00\xfe\xf7-\x02\x00\xff\x81\x15"
    b"\x00\x00\x00\x00\x00\x00\x1d\x00\x00\x00H+:#@X{$=F*>\x00mysql_native_password\x00"
)


def raises_only_wire_errors(parse: Callable[..., object], *args: Any) -> None:
    """Call a parser; let every exception out that is not a `WireError`."""
    with suppress(WireError):
        parse(*args)


def damaged(payload: bytes) -> st.SearchStrategy[bytes]:
    """Draw a payload with one byte changed, or cut somewhere, or with a tail."""
    return st.one_of(
        st.tuples(st.integers(0, max(0, len(payload) - 1)), uint8).map(
            lambda change: payload[: change[0]] + bytes([change[1]]) + payload[change[0] + 1 :]
        ),
        st.integers(0, len(payload)).map(lambda end: payload[:end]),
        st.binary(max_size=12).map(lambda tail: payload + tail),
    )
