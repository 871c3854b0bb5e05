from __future__ import annotations

from types import ModuleType

from pymysql.constants import CLIENT, COMMAND, ER, FIELD_TYPE, FLAG, SERVER_STATUS
from twisted.trial.unittest import SynchronousTestCase

from odptwist.wire import constants


class ConstantsTests(SynchronousTestCase):
    def agree(self, theirs: ModuleType, prefix: str, at_least: int) -> None:
        """Compare every name that both have; `prefix` is what ours bears before theirs."""
        shared = [name for name in vars(theirs) if name.isupper() and hasattr(constants, prefix + name)]
        self.assertGreaterEqual(len(shared), at_least, shared)
        for name in shared:
            self.assertEqual(getattr(constants, prefix + name), getattr(theirs, name), name)

    def test_commands(self) -> None:
        """The commands bear the numbers that PyMySQL sends."""
        self.agree(COMMAND, "", 31)

    def test_capabilities(self) -> None:
        """The capabilities are the bits that PyMySQL asks for."""
        self.agree(CLIENT, "CLIENT_", 22)

    def test_field_types(self) -> None:
        """The column types are those that PyMySQL converts."""
        self.agree(FIELD_TYPE, "FIELD_TYPE_", 28)

    def test_column_flags(self) -> None:
        """The column flags are PyMySQL's."""
        self.agree(FLAG, "FLAG_", 3)

    def test_status_bits(self) -> None:
        """The status bits are PyMySQL's, under its names and under one prefix."""
        self.agree(SERVER_STATUS, "", 10)
        for name in (name for name in vars(SERVER_STATUS) if name.startswith("SERVER_")):
            ours = "SERVER_STATUS_" + name.removeprefix("SERVER_").removeprefix("STATUS_").removeprefix("QUERY_")
            self.assertEqual(getattr(constants, ours), getattr(SERVER_STATUS, name), name)

    def test_error_numbers(self) -> None:
        """The error numbers that both know are the same."""
        for name in (name for name in vars(constants) if name.startswith("ER_")):
            theirs = getattr(ER, name.removeprefix("ER_"), None)
            if theirs is not None:
                self.assertEqual(getattr(constants, name), theirs, name)

    def test_no_bit_twice(self) -> None:
        """No two capabilities and no two status bits are the same bit, and each is one bit."""
        for prefix in (("CLIENT_", "MULTI_"), ("SERVER_STATUS_",), ("MARIADB_CLIENT_",)):
            bits = [value for name, value in vars(constants).items() if name.startswith(prefix)]
            self.assertEqual(len(bits), len(set(bits)))
            self.assertEqual([bit for bit in bits if bit.bit_count() != 1], [])
