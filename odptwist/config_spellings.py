"""How single settings are spelled, in a file and on the command line.

Each function takes a text and raises ValueError, with a sentence that says what would be understood.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from hashlib import sha1
from ipaddress import ip_network
from typing import TypeVar

from odptwist.errors import MAX_REASON, is_reason
from odptwist.identity import UserName, split_user_name
from odptwist.snapshots import Address

T = TypeVar("T")

_NAME_KINDS = ("cn", "dns", "email", "uri")

MAX_PROXY_ID = 8191
"""ODP's, where its ids have version 2 (spec section 5.1)."""


def parse_address(text: str) -> Address:
    """Read `host:port`, `[ipv6]:port` or `unix:/path`."""
    if text.startswith("unix:"):
        path = text.removeprefix("unix:")
        if not path.startswith("/"):
            raise ValueError(f"{text!r}: a Unix socket needs an absolute path, as in unix:/run/mysqld/mysqld.sock")
        return Address(path=path)
    host, colon, port = text.rpartition(":")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    elif ":" in host:
        raise ValueError(f"{text!r}: an IPv6 address needs brackets, as in [::1]:3306")
    if not colon or not host or not port:
        raise ValueError(f"{text!r}: a server is host:port, as in 127.0.0.1:3306, or unix:/path")
    if not (port.isascii() and port.isdigit()) or not 0 < int(port) < 65536:
        raise ValueError(f"{text!r}: the port must be a number from 1 to 65535")
    return Address(host=host, port=int(port))


def check_port(text: str) -> str:
    """Return a bare port number or an endpoint description as it is; of the latter, only tcp numbers are checked."""
    kind, colon, rest = text.partition(":")
    number = rest.partition(":")[0].removeprefix("port=") if kind in ("tcp", "tcp6") else kind if not colon else "0"
    if not colon and not (text.isascii() and text.isdigit()):
        raise ValueError(f"{text!r}: a port is a number or an endpoint description, as in tcp:2883:interface=127.0.0.1")
    if not (number.isascii() and number.isdigit()) or int(number) > 65535:
        raise ValueError(f"{text!r}: the port must be a number from 0 to 65535")
    return text


def check_network(text: str) -> str:
    """Return an address, a network or `unix` as it is."""
    try:
        return text if text == "unix" else str(ip_network(text))
    except ValueError as fault:
        raise ValueError(f"{text!r}: must be unix, an address, or a network as in 10.0.0.0/8 ({fault})") from None


def check_name(text: str) -> str:
    """Return a cluster name as it is, if a client can spell it in a user name."""
    if not text or any(c in text for c in "@#:") or not text.isprintable():
        raise ValueError(f"{text!r}: a cluster name is not empty and has none of the characters @ # :")
    return text


def check_not_empty(text: str) -> str:
    """Return a text as it is."""
    if not text:
        raise ValueError("must not be empty")
    return text


def check_reason(text: str) -> str:
    """Return a text as it is, if it can be told as the reason of a kill."""
    if not is_reason(text):
        raise ValueError(f"must be one line of at most {MAX_REASON} characters")
    return text


def check_rule_name(text: str) -> str:
    """Return the name of a rule as it is."""
    return check_reason(check_not_empty(text))


def parse_account(text: str) -> UserName:
    """Read the user name of an account: user, user@tenant, user@tenant#cluster or user#cluster."""
    try:
        return split_user_name(text)
    except ValueError as fault:
        raise ValueError(f"{text!r}: {fault}") from None


def check_account(text: str) -> str:
    """Return the user name of an account as it is."""
    parse_account(text)
    return text


def parse_verifier(text: str) -> bytes:
    """Return the 20 bytes of a verifier as MySQL spells it: '*', and SHA1(SHA1(password)) in 40 hex digits.

    The text is a secret, and not part of any error.
    """
    digits = re.fullmatch(r"\*([0-9A-Fa-f]*)", text)
    if not digits:
        raise ValueError("must be '*' and 40 hex digits, as mysql_native_password keeps a password")
    if len(digits[1]) != 40:
        raise ValueError(f"must be '*' and 40 hex digits, not {len(digits[1])}")
    return bytes.fromhex(digits[1])


def parse_own_verifier(text: str) -> bytes:
    """Return the verifier of an account of the proxy's own, from MySQL's spelling or ODP's: SHA1(password) in hex.

    The text is a secret, and not part of any error.
    """
    if re.fullmatch(r"[0-9A-Fa-f]{40}", text):
        return sha1(bytes.fromhex(text), usedforsecurity=False).digest()
    try:
        return parse_verifier(text)
    except ValueError:
        raise ValueError("must be 40 hex digits, SHA1 of the password; or '*' and the 40 of SHA1(SHA1())") from None


def make_verifier(password: str) -> bytes:
    """Return the verifier of a password; none is made of an empty one, which a client proves by no answer at all."""
    check_not_empty(password)
    once = sha1(password.encode(), usedforsecurity=False).digest()
    return sha1(once, usedforsecurity=False).digest()


def parse_certificate_name(text: str) -> str:
    """Return a name in a certificate, such as `cn:app` or `uri:spiffe://example.com/app`, as it is compared."""
    kind, colon, name = text.partition(":")
    if not colon or not name or kind not in _NAME_KINDS:
        raise ValueError(f"{text!r}: must be one of {', '.join(f'{each}:NAME' for each in _NAME_KINDS)}")
    # Names of hosts are compared without regard to case (RFC 4343).
    return text.lower() if kind == "dns" else text


def one_of(words: Mapping[str, T]) -> Callable[[str], T]:
    """Return a function that takes one of some words, and returns what it stands for."""

    def read(text: str) -> T:
        if text not in words:
            raise ValueError(f"{text!r}: must be one of {', '.join(words)}")
        return words[text]

    return read


def parse_proxy_id(text: str) -> int:
    """Return ODP's number of a proxy; raises ValueError."""
    if not (text.isascii() and text.isdigit()) or int(text) > MAX_PROXY_ID:
        raise ValueError(f"must be from 0 to {MAX_PROXY_ID}")
    return int(text)
