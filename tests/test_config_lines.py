"""The lines of keys: for every way in which TOML lets them be written."""

from __future__ import annotations

import tomllib
from collections.abc import Iterator
from typing import Any

from hypothesis import assume, given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from odptwist.config_lines import Key, KeyLines, spelled

DOCUMENT = '''\
# a comment with [brackets], "quotes and = signs
port = [
  2883, # the first
  # none here: ]
  [ 1,
    2 ], "tcp:[::1]",
]
"quoted key" = 1
'single.key' = 2
"" = 3
"esc\\u0061ped \\" # key" = 4
dotted.once = 1
dotted . "twice" . b = """
port = 9
[[cluster]]
"""
after = \'\'\'
x = "
\'\'\'
quotes = """four""""
five = """""x"""""
more = \'\'\'\'four\'\'\'\'
escaped = "\\"[" # ["
literal = [\'\'\'\'[\'\'\'\', ']'] # [']
inline = { a = 1, b = { c = "}" }, d = [1, 2] }
wide = [{ a = 1 }, { a = 1, b = [
  2] },
  { a = 2 }]

[[cluster]] # [[other]]
name = "a"
  [[cluster.server]]
  address = "x"
  [[cluster.server]]
  address = "y"
[[ cluster ]]
name = "b"
[[cluster."server"]]
weight = 1
[cluster.extra.deep]
here = 1
[late.below]
x = 1
[late]
y = 1979-05-27 07:32:00'''

PLACES: list[tuple[Key, int | None]] = [
    (("port",), 2),
    (("port", 0), 3),
    (("port", 1), 5),
    (("port", 1, 0), 5),
    (("port", 1, 1), 6),
    (("port", 2), 6),
    (("quoted key",), 8),
    (("single.key",), 9),
    (("",), 10),
    (('escaped " # key',), 11),
    (("dotted",), 12),
    (("dotted", "once"), 12),
    (("dotted", "twice", "b"), 13),
    (("dotted", "missing"), 12),
    (("after",), 17),
    (("quotes",), 20),
    (("five",), 21),
    (("more",), 22),
    (("escaped",), 23),
    (("literal", 1), 24),
    (("inline", "a"), 25),
    (("inline", "b", "c"), 25),
    (("inline", "d", 1), 25),
    (("wide", 0, "a"), 26),
    (("wide", 1, "b"), 26),
    (("wide", 1, "b", 0), 26),
    (("wide", 2, "a"), 28),
    (("cluster",), 30),
    (("cluster", 0), 30),
    (("cluster", 0, "name"), 31),
    (("cluster", 0, "tenants"), 30),
    (("cluster", 0, "server"), 32),
    (("cluster", 0, "server", 0, "address"), 33),
    (("cluster", 0, "server", 1), 34),
    (("cluster", 0, "server", 1, "role"), 34),
    (("cluster", 1, "name"), 37),
    (("cluster", 1, "server", 0), 38),
    (("cluster", 1, "server", 0, "weight"), 39),
    (("cluster", 1, "extra"), 40),
    (("cluster", 1, "extra", "deep", "here"), 41),
    (("late", "below", "x"), 43),
    (("late",), 44),
    (("late", "y"), 45),
    (("nowhere",), None),
    ((), None),
]

NAMES = st.sampled_from(["a", "b", '"a"', "'c d'", '"#"', '"]"', "1", '"\\u0061"', "a.b", 'a . "b"', "b.a", "c.'x.y'"])
ODD = st.sampled_from(
    [
        '"[#"',
        "'\"'",
        "7",
        "-1.5e3",
        "true",
        "2020-01-01 00:00:00Z",
        '"""\n[a]\nb = 1\n"""',
        "'''\n'\"\n'''",
        '"""\\"""\n"""',
        '""""q"""""',
        "{}",
        "{ a = 1, b = { c = 2 } }",
        "{ a = { b = [1,\n2] } }",
        "[]",
    ]
)
BREAKS = st.sampled_from(["", " ", "\n", "\n\n", " # ] } ' \" [\n", "\r\n"])


def arrays(items: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    """Return arrays of items, over several lines."""
    cells = st.tuples(BREAKS, items, BREAKS).map("".join)
    return st.lists(cells, min_size=1, max_size=3).map(lambda each: f"[{','.join(each)}]")


VALUES = st.recursive(ODD, arrays, max_leaves=5)
STATEMENTS = st.one_of(
    st.tuples(NAMES, VALUES).map(" = ".join),
    NAMES.map("[{}]".format),
    NAMES.map("[[{}]]".format),
    NAMES.map("  [[ {} ]] # [x]".format),
    st.sampled_from(["", "# a = 1", "\t"]),
)


def keys(value: Any, key: Key = ()) -> Iterator[Key]:
    """Return all keys of a value."""
    steps = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for step, below in steps:
        yield (*key, step)
        yield from keys(below, (*key, step))


def readable(text: str) -> dict[str, Any] | None:
    """Return what a text says, None if it is no TOML."""
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError:
        return None


class KeyLinesTests(SynchronousTestCase):
    def test_whole_document(self) -> None:
        """Every way to write a key has its line; what has none has the line of what is around it."""
        tomllib.loads(DOCUMENT)
        for text in DOCUMENT, DOCUMENT.replace("\n", "\r\n"):
            lines = KeyLines(text)
            for key, line in PLACES:
                self.assertEqual(lines.line(key), line, key)

    def test_nothing(self) -> None:
        """A text without keys has no lines."""
        for text in "", "\n\n", "# only this", "\r\n":
            self.assertIsNone(KeyLines(text).line(("a",)))

    @given(st.lists(STATEMENTS, max_size=6), st.booleans())
    def test_any_document(self, statements: list[str], windows: bool) -> None:
        """A key stands in the statement by which it first appears, as tomllib sees it when it reads line after line."""
        text = "\n".join(statements)
        if windows:
            text = text.replace("\r\n", "\n").replace("\n", "\r\n")
        whole = readable(text)
        assume(whole is not None)
        found = KeyLines(text)
        parts = text.split("\n")
        first, known = 1, set[Key]()
        for size in range(1, len(parts) + 1):
            part = readable("\n".join(parts[:size]) + "\n")
            if part is None:
                continue
            for key in set(keys(part)) - known:
                line = found.line(key)
                # A table may have a header of its own further down.
                if not (isinstance(value_of(whole, key), dict) and line is not None and line > size):
                    self.assertIn(line, range(first, size + 1), (text, key))
                known.add(key)
            first = size + 1

    @given(st.lists(st.tuples(BREAKS, st.sampled_from(["1", '"a"', "'#'", "{ a = 1 }", "true"])), max_size=6))
    def test_items(self, items: list[tuple[str, str]]) -> None:
        """An item of an array stands where its first character does."""
        text, expected = "[x]\nkey = [", []
        for before, item in items:
            text += before
            expected.append(text.count("\n") + 1)
            text += f"{item}, "
        lines = KeyLines(text + "]")
        self.assertEqual([lines.line(("x", "key", place)) for place in range(len(items))], expected)

    def test_spelling(self) -> None:
        """A key is spelled as people write it; what is not bare is quoted, so that no key can fake a line of a log."""
        for key, text in (
            (("cluster", 1, "server", 0, "address"), "cluster[1].server[0].address"),
            (("a b", "c.d", 'e"'), '"a b"."c.d"."e\\""'),
            (("line\nbreak", ""), '"line\\nbreak".""'),
        ):
            self.assertEqual(spelled(key), text)


def value_of(value: Any, key: Key) -> Any:
    """Return what a key names."""
    for step in key:
        value = value[step]
    return value
