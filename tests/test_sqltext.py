from __future__ import annotations

import time

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from odptwist.sqltext import UNENDED, Kind, Quoting, Token, bare, skeleton, statements, tokens
from tests.wire.strategies import many


def kinds(text: str) -> list[tuple[str, str]]:
    """Return the tokens of a text as plain pairs."""
    return [(token.kind.value, token.text) for token in tokens(text)]


class TokensTests(SynchronousTestCase):
    def test_kinds(self) -> None:
        """Words, strings, quoted names, numbers, variables and symbols are told apart."""
        for text, found in (
            ("", []),
            ("select", [("word", "select")]),
            ("a_b$1 ä 表", [("word", "a_b$1"), ("word", "ä"), ("word", "表")]),
            ("1 1.5 1. 1e5 1.5e-3", [("number", n) for n in ("1", "1.5", "1.", "1e5", "1.5e-3")]),
            ("0x1F 1a 0b1", [("word", "0x1F"), ("word", "1a"), ("word", "0b1")]),
            ("-1", [("symbol", "-"), ("number", "1")]),
            ("a.b", [("word", "a"), ("symbol", "."), ("word", "b")]),
            ("a:=1=2", [("word", "a"), ("symbol", ":="), ("number", "1"), ("symbol", "="), ("number", "2")]),
            ("@a @@a @@session.a @a.b", [("variable", v) for v in ("@a", "@@a", "@@session.a", "@a.b")]),
            ("@`a b` @'a b' @\"a b\"", [("variable", v) for v in ("@`a b`", "@'a b'", '@"a b"')]),
            ("@`a``b` @'a\\'b' @'a''b", [("variable", v) for v in ("@`a``b`", "@'a\\'b'", "@'a''b")]),
            ("@ @@", [("variable", "@"), ("variable", "@@")]),
            ("`a` `a``b` `a b`", [("quoted", q) for q in ("`a`", "`a``b`", "`a b`")]),
            ("f(1);", [("word", "f"), ("symbol", "("), ("number", "1"), ("symbol", ")"), ("symbol", ";")]),
            ("\x00\ud800", [("symbol", "\x00"), ("symbol", "\ud800")]),
        ):
            self.assertEqual(kinds(text), found, text)

    def test_strings(self) -> None:
        """A string ends at its own quote, unless that is doubled or behind a backslash; a last one may have no end."""
        for text in (
            "''",
            "'a'",
            "'a''b'",
            "'a\\'b'",
            "'a\\\\'",
            "'a\"b`c'",
            "'-- a'",
            "'/* a */'",
            "'a;b'",
            "'a\nb'",
            '"a"',
            '"a""b"',
            '"a\\"b"',
            "'a",
            "'a\\",
            "'a\\'",
            "'''",
            "'\\''",
            "'" + "''" * 50 + "'",
        ):
            self.assertEqual(kinds(text), [("string", text)])
        self.assertEqual(kinds("'a\\\\'b"), [("string", "'a\\\\'"), ("word", "b")])
        self.assertEqual(kinds("'a' 'b'"), [("string", "'a'"), ("string", "'b'")])
        self.assertEqual(kinds("'a'\"b\""), [("string", "'a'"), ("string", '"b"')])
        self.assertEqual(kinds("`a\\`b"), [("quoted", "`a\\`"), ("word", "b")])

    def test_comments(self) -> None:
        """Comments vanish, whatever stands in them."""
        for text in (
            "a b",
            "a -- c\n b",
            "a --\nb",
            "a --\x7fc\nb",
            "a # c\nb",
            "a#c\nb",
            "a/* c */b",
            "a/**/b",
            "a/* ' */b",
            "a/* -- */b",
            "a /* /* */ b",
            "a -- ' \n b",
            "a # /*\n b",
            "a b --",
            "a b -- c",
            "a b #",
            "a b /* c",
            "a b /*",
            "/* c */ a b",
            "a\tb\r\n",
        ):
            self.assertEqual(kinds(text), [("word", "a"), ("word", "b")], text)
        self.assertEqual(kinds("1--1"), [("number", "1"), ("symbol", "-"), ("symbol", "-"), ("number", "1")])
        self.assertEqual(kinds("a */ b"), [("word", "a"), ("symbol", "*/"), ("word", "b")])

    def test_executable_comments(self) -> None:
        """What executable comments hold is there, and known to be from one."""
        for text in (
            "a /*! b */ c",
            "a /*!b*/ c",
            "a /*!50000 b */ c",
            "a /*!50000b*/ c",
            "a /*M! b */ c",
            "a /*M!100100 b */ c",
            "a /*! /* d */ b */ c",
            "a /*! -- */\nb */ c",
        ):
            self.assertEqual(
                list(tokens(text)), [Token(Kind.WORD, "a"), Token(Kind.WORD, "b", True), Token(Kind.WORD, "c")], text
            )
        self.assertEqual(list(tokens("a /*! b")), [Token(Kind.WORD, "a"), Token(Kind.WORD, "b", True)])
        self.assertEqual(list(tokens("/*! '*/' */")), [Token(Kind.STRING, "'*/'", True)])
        self.assertEqual(kinds("'/*! a */'"), [("string", "'/*! a */'")])

    def test_word(self) -> None:
        """Only unquoted words are words, in upper case."""
        self.assertEqual([token.word for token in tokens("Set `a` 'b' @c 1 ;")], ["SET", "", "", "", "", ""])

    def test_name(self) -> None:
        """A name is what a word, a quoted identifier or a string spells."""
        for text, name in (
            ("a", "a"),
            ("`a b`", "a b"),
            ("`a``b`", "a`b"),
            ("`a```", "a`"),
            ("```a`", "`a"),
            ("``", ""),
            ("`a", "a"),
            ("'a b'", "a b"),
            ('"a"', "a"),
        ):
            (token,) = tokens(text)
            self.assertEqual(token.name, name, text)

    @many
    @given(
        st.lists(
            st.sampled_from(["'", '"', "`", "\\", "/*", "/*!", "*/", "-- ", "#", "\n", ";", "@", "a", "1", " "])
            | st.text(max_size=5)
        )
    )
    def test_any_text(self, pieces: list[str]) -> None:
        """Tokens are pieces of the text, in order, and only comments, spaces and their borders are missing."""
        text = "".join(pieces)
        at = 0
        for token in tokens(text):
            self.assertTrue(token.text)
            found = text.find(token.text, at)
            self.assertGreaterEqual(found, at)
            at = found + len(token.text)
        self.assertEqual(
            [token for found in statements(text) for token in found], [t for t in tokens(text) if t.text != ";"]
        )

    @many
    @given(st.text(st.characters(exclude_categories=["Cs"])), st.sampled_from("'\""))
    def test_any_string(self, value: str, quote: str) -> None:
        """A text that is quoted as a string is one string, whatever it is."""
        for literal in (
            value.replace("\\", "\\\\").replace(quote, quote * 2),
            value.replace("\\", "\\\\").replace(quote, "\\" + quote),
        ):
            text = f"set a = {quote}{literal}{quote}; b"
            self.assertEqual([token.text for token in tokens(text)][3:], [f"{quote}{literal}{quote}", ";", "b"])
        name = "`" + value.replace("`", "``") + "`"
        (token, word) = tokens(f"{name} b")
        self.assertEqual((token.name, word.text), (value, "b"))

    def test_long_texts(self) -> None:
        """A text of 200 KB is read in linear time, whatever it is: a quadratic reader would take minutes."""
        for piece in (
            "'", '"', "`", "'\\", "\\'", "''a", "/*", "/*!", "/* ", "*/", "/*!*/", "@", "@@", "@`", "@'", "-", "--",
            "-- ", "#", "1", "1.", "1e", "1e+", ".", "a", "a ", " ", "\n", ":", ":=", ";", "\\", "$", "\ud800",
        ):  # fmt: skip
            size = 200_000 if piece in ("'", "/*", "@") else 50_000
            for start in ("", "'", "/*", "/*!", "@"):
                text = start + piece * (size // len(piece))
                began = time.process_time()
                bare(text)
                for _ in tokens(text):
                    pass
                self.assertLess(time.process_time() - began, 5, f"{start}{piece}")


class BareTests(SynchronousTestCase):
    def test_bare(self) -> None:
        """Strings, quoted names and comments become a space; executable comments stay."""
        for text, found in (
            ("", ""),
            ("a 'b' c", "a   c"),
            ('a"b;"`c;`/* d; */e', "a   e"),
            ("a -- 'b\nc 'd'", "a  \nc  "),
            ("a # it's\n; 'b", "a  \n;  "),
            ("/*! a */ @'b'", "/*! a */ @ "),
            ("'a\\';b", " "),
            ("'a\\\\';b", " ;b"),
        ):
            self.assertEqual(bare(text), found, text)


class SkeletonTests(SynchronousTestCase):
    def test_skeleton(self) -> None:
        """Literals become a pair of their quotes and comments a space; executable comments stay."""
        for text, found in (
            ("", ""),
            ("a 'b' c", "a '' c"),
            ("a\"b;\"`c;`/* d; */e'f''g'", "a\"\"`` e''"),
            ("a -- 'b\nc 'd'", "a  \nc ''"),
            ("a # it's\n; 'b' 'c'", "a  \n; '' ''"),
            ("/*! a */ @'b'", "/*! a */ @''"),
            ("a /* b", "a  "),
        ):
            for quoting in Quoting:
                self.assertEqual(skeleton(text, quoting), found, text)

    def test_no_end(self) -> None:
        """A literal without an end is told from all others."""
        for text in ("'", '"', "`", "'a", "'a''", '"a""', "`a``", "'\"`"):
            for quoting in Quoting:
                self.assertEqual(skeleton(f"a {text}", quoting), f"a {UNENDED}", text)

    def test_backslashes(self) -> None:
        """The sql_mode decides in which literals a backslash counts; in none between backticks."""
        for text, default, ansi, never in (
            ("'a\\'b'", "''", "''", f"''b{UNENDED}"),
            ('"a\\"b"', '""', f'""b{UNENDED}', f'""b{UNENDED}'),
            ("`a\\`b`", f"``b{UNENDED}", f"``b{UNENDED}", f"``b{UNENDED}"),
            ("'a\\\\'b", "''b", "''b", "''b"),
            ("'a\\", UNENDED, UNENDED, UNENDED),
            ("'a\\'", UNENDED, UNENDED, "''"),
        ):
            found = [skeleton(text, quoting) for quoting in Quoting]
            self.assertEqual(found, [default, ansi, never], text)


class StatementsTests(SynchronousTestCase):
    def test_split(self) -> None:
        """Statements are split at semicolons that stand neither in strings nor in comments; none is empty."""
        for text, found in (
            ("", []),
            (";", []),
            (" ; -- c\n ; /* d */ ;", []),
            ("a", [["a"]]),
            ("a;", [["a"]]),
            ("a;b", [["a"], ["b"]]),
            (";;a b;;c", [["a", "b"], ["c"]]),
            ("a ';' b", [["a", "';'", "b"]]),
            ("a `;` b", [["a", "`;`", "b"]]),
            ("a /* ; */ b", [["a", "b"]]),
            ("a -- ;\n b", [["a", "b"]]),
            ("a /*! ; */ b", [["a"], ["b"]]),
            ("a 'b; c", [["a", "'b; c"]]),
        ):
            self.assertEqual([[token.text for token in statement] for statement in statements(text)], found, text)
