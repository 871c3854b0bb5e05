"""Proxy statements with parameters."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from odptwist.errors import SqlError
from odptwist.machines.parameters import Template


class TemplateTests(SynchronousTestCase):
    def test_parameters_are_found(self) -> None:
        """A question mark counts where it is a token, and not in strings, names and comments."""
        template = Template.of("KILL PROXYSESSION ? ? -- ?\n REASON '?' /* ? */")
        self.assertEqual(template.texts, (False, False))
        self.assertEqual(template.fill((7, 16)).split(), "KILL PROXYSESSION 7 16 -- ? REASON '?' /* ? */".split())
        self.assertEqual(Template.of("SHOW PROXYSESSION").fill(()), "SHOW PROXYSESSION")

    def test_a_sample_is_a_statement(self) -> None:
        """A sample has an integer for each parameter, or a text where one is due."""
        self.assertEqual(Template.of("KILL?").sample.split(), ["KILL", "1"])
        template = Template.of("SHOW PROXYSESSION ATTRIBUTE ? LIKE ?")
        self.assertEqual(template.sample.split(), "SHOW PROXYSESSION ATTRIBUTE 1 LIKE '1'".split())
        self.assertEqual(template.texts, (False, True))

    def test_integers(self) -> None:
        """An integer may come as one, as digits or as a float, as drivers of languages without integers send it."""
        template = Template.of("KILL ?")
        for value in (7, b"7", b" +7 ", b"007", 7.0):
            self.assertEqual(template.fill((value,)).split(), ["KILL", "7"], value)
        self.assertEqual(template.fill((-1,)).split(), ["KILL", "-1"])

    def test_wrong_integers(self) -> None:
        """Anything else is 1210, with the place of the parameter."""
        template = Template.of("KILL ?")
        for value in (None, b"", b"x", b"7; KILL 8", b"1e3", 1.5, 10**17, b"1" * 18, float("inf"), float("nan")):
            error = self.assertRaises(SqlError, template.fill, (value,))
            self.assertEqual((error.code, error.sqlstate), (1210, "HY000"), value)
            self.assertIn("parameter 1 must be an integer", error.message)

    def test_texts(self) -> None:
        """A text must be one without quotes, so that it never ends the statement's own."""
        template = Template.of("SHOW PROXYSESSION ATTRIBUTE LIKE ?")
        self.assertTrue(template.fill(("cs_%é".encode(),)).endswith(" 'cs_%é' "))
        for value in (b"'", b"\\", b"\0", 7, None):
            self.assertEqual(self.assertRaises(SqlError, template.fill, (value,)).code, 1210)
