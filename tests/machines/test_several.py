"""Tests of odptwist.machines.several."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from odptwist.machines.several import refuse_second, second_statement

SECOND = "drop table t"
ONE = (
    "select 1",
    "select 1;",
    "select 1 ; ; ;\n",
    "select 1; -- drop table t",
    "select 1; # drop table t",
    "select 1; /* drop table t */",
    "select 1; /* drop table t",
    "select ';drop table t'",
    'select "; drop table t"',
    "select `; drop table t` from t",
    "select 'a'';drop table t'",
    "select 1 /* ; drop table t */",
    "select 1 -- ; drop table t",
    "select 1 -- ' \n, '; drop table t'",
    ";",
    " ; ; ",
    "; drop table t",
    "",
)
DIVIDED = (
    "create procedure p() begin select 1; select 2; end",
    "CREATE OR REPLACE DEFINER=`a`@`%` PROCEDURE p() BEGIN SELECT 1; SELECT 2; END",
    "create /* a */ function f() returns int begin declare a int; return 1; end",
    "create trigger g before insert on t for each row begin set @a = 1; set @b = 2; end",
    "create event e on schedule every 1 day do begin select 1; select 2; end",
    "alter event e do begin select 1; select 2; end",
    "create package p as procedure a(); procedure b(); end",
    "begin not atomic select 1; select 2; end",
    "begin select 1; select 2; end",
    "if 1 then select 1; select 2; end if",
    "while 1 do select 1; select 2; end while",
    "repeat select 1; until 1 end repeat",
    "for i in 1..2 do select i; end for",
    "here: loop select 1; leave here; end loop",
    "case 1 when 1 then select 1; select 2; end case",
    "declare a int; begin select 1; end",
    "set statement max_statement_time=1 for begin not atomic select 1; select 2; end",
)
SEVERAL = (
    "select 1;",
    "SELECT ';' ;",
    "(select 1);",
    "select 1;;",
    "select 1; -- a;\n",
    "insert into t values ('it''s; so');",
    "insert into t values ('\\';');",
    'insert into t values ("\\\\");',
    "begin;",
    "begin work;",
    "start transaction;",
    "set @a = 1;",
    "create table procedures (a int);",
    "alter table t add b int;",
    "update t set a = 1 where b = 'begin';",
    "commit;",
    "call p();",
    "with a as (select 1) select * from a;",
)


class SecondStatementTests(SynchronousTestCase):
    def test_one(self) -> None:
        """Semicolons in literals and comments, and those at the end, divide nothing."""
        for text in ONE:
            self.assertIsNone(second_statement(text), text)

    def test_programs(self) -> None:
        """A stored program and a compound statement are one statement, as far as is known."""
        for text in DIVIDED:
            self.assertIsNone(second_statement(text), text)

    def test_several(self) -> None:
        """What follows a statement is found where it begins, whatever stands between the two."""
        for text in SEVERAL:
            for between in ("", " ", "\n", " /* ; */ ", ";"):
                whole = text + between + SECOND
                found = second_statement(whole)
                self.assertEqual(found and whole[found:], SECOND, whole)

    def test_three(self) -> None:
        """Of three statements the second is found."""
        self.assertEqual(second_statement("select 1; select 2; select 3"), 10)

    def test_brackets(self) -> None:
        """A second statement may begin with a bracket."""
        self.assertEqual(second_statement("select 1; (select 2)"), 10)

    def test_executable_comment(self) -> None:
        """A second statement may be in an executable comment, which seekdb executes whatever version it names."""
        for begin in ("/*! ", "/*!50000 ", "/*!99999 ", "/*!99999 /* a */ ", "/*M! "):
            text = f"select 1; {begin}{SECOND} */"
            self.assertEqual(second_statement(text), text.index(SECOND))

    def test_not_certain(self) -> None:
        """What only some servers, or only some settings of a session, take for a statement is left to the server."""
        for text in (
            "select 1; /*!99999 */",
            "select 1; /*! ) */",
            "/*!40101 set a = 1 */; select 2",
            "select 1; )",
            "select '\\'; drop table t; -- '",
            'select "\\"; drop table t; -- "',
            "select 'a; drop table t",
        ):
            self.assertIsNone(second_statement(text), text)

    def test_backslash_in_a_character(self) -> None:
        """In gbk 0xBF5C is one character; a text that is not UTF-8 and has a backslash is left to the server."""
        text = b"insert into t values ('\xbf\\', '; drop table t')".decode("utf-8", "surrogateescape")
        self.assertIsNone(second_statement(text))
        text = b"insert into t values ('\xbf'); drop table t".decode("utf-8", "surrogateescape")
        self.assertIsNotNone(second_statement(text))

    def test_without_escapes(self) -> None:
        """Where backslashes are ordinary characters, a text that has some is left to the server."""
        self.assertIsNone(second_statement("select '\\'; drop table t", escapes=False))
        self.assertEqual(second_statement("select 1; drop table t", escapes=False), 10)

    @given(st.text(alphabet="ab;'\"`\\/*#- \n!09", max_size=30))
    def test_any_text(self, text: str) -> None:
        """No text is too strange, and what is found is behind a semicolon."""
        found = second_statement(text)
        if found is not None:
            self.assertIn(";", text[:found])

    def test_refusal(self) -> None:
        """The error names the second statement as MariaDB does: 80 characters of it, and its line."""
        text = "select 1;\n" + "select 2, " * 20
        error = refuse_second(text, second_statement(text) or 0)
        self.assertEqual((error.code, error.sqlstate), (1064, "42000"))
        self.assertIn(f"near '{('select 2, ' * 20)[:80]}' at line 2", error.message)
