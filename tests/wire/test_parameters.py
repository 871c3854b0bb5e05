"""Values of parameters in COM_STMT_EXECUTE."""

from __future__ import annotations

import struct

from twisted.trial.unittest import SynchronousTestCase

from odptwist.errors import MalformedPacket
from odptwist.wire import constants as c
from odptwist.wire.framing import frame
from odptwist.wire.parameters import parse_parameters


def execute(nulls: int, types: list[tuple[int, int]] | None, values: bytes, count: int) -> bytes:
    """Return a framed COM_STMT_EXECUTE; no types: they were told before."""
    bound = b"\0" if types is None else b"\1" + b"".join(bytes(pair) for pair in types)
    bitmap = nulls.to_bytes((count + 7) // 8, "little")
    return frame(b"\x17\1\0\0\0\0\1\0\0\0" + bitmap + bound + values, 0)


class ParameterTests(SynchronousTestCase):
    def test_values(self) -> None:
        """Integers of every size, signed or not, floats, texts and NULL are read."""
        kinds: list[tuple[tuple[int, int], bytes, object]] = [
            ((c.FIELD_TYPE_TINY, 0), b"\xff", -1),
            ((c.FIELD_TYPE_TINY, 0x80), b"\xff", 255),
            ((c.FIELD_TYPE_SHORT, 0), b"\2\1", 258),
            ((c.FIELD_TYPE_LONG, 0), b"\7\0\0\0", 7),
            ((c.FIELD_TYPE_LONGLONG, 0x80), b"\xff" * 8, 2**64 - 1),
            ((c.FIELD_TYPE_DOUBLE, 0), struct.pack("<d", 7.5), 7.5),
            ((c.FIELD_TYPE_FLOAT, 0), struct.pack("<f", 0.5), 0.5),
            ((c.FIELD_TYPE_VAR_STRING, 0), b"\x02ab", b"ab"),
            ((c.FIELD_TYPE_NULL, 0), b"", None),
            ((c.FIELD_TYPE_LONG, 0), b"", None),  # by the bitmap
            ((c.FIELD_TYPE_DATETIME, 0), b"\4\xe9\7\1\1", b"a time"),
            ((c.FIELD_TYPE_LONG, 0), b"\x08\0\0\0", 8),
        ]
        types = [kind for kind, _, _ in kinds]
        data = execute(1 << 9, types, b"".join(sent for _, sent, _ in kinds), len(kinds))
        values, told = parse_parameters(data, len(kinds), b"", {})
        self.assertEqual(values, tuple(value for _, _, value in kinds))
        again = execute(1 << 9, None, b"".join(sent for _, sent, _ in kinds), len(kinds))
        self.assertEqual(parse_parameters(again, len(kinds), told, {})[0], values)

    def test_long_data(self) -> None:
        """What came as long data is not in the packet."""
        data = execute(0, [(c.FIELD_TYPE_STRING, 0), (c.FIELD_TYPE_TINY, 0)], b"\7", 2)
        self.assertEqual(parse_parameters(data, 2, b"", {0: b"abc"})[0], (b"abc", 7))

    def test_none(self) -> None:
        """A statement without parameters has none, whatever follows."""
        self.assertEqual(parse_parameters(frame(b"\x17\1\0\0\0\0\1\0\0\0", 0), 0, b"", {}), ((), b""))

    def test_malformed(self) -> None:
        """A packet that is cut off anywhere, or lacks the types, is malformed."""
        whole = execute(0, [(c.FIELD_TYPE_LONG, 0), (c.FIELD_TYPE_STRING, 0)], b"\7\0\0\0\x02ab", 2)
        parse_parameters(whole, 2, b"", {})
        for size in range(14, len(whole)):
            self.assertRaises(MalformedPacket, parse_parameters, whole[:size], 2, b"", {})
        self.assertRaises(MalformedPacket, parse_parameters, execute(0, None, b"\7", 1), 1, b"", {})
