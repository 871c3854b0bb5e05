"""The response machine in C against the one in Python: whatever comes, they do the same.

The machine itself is tested as a part of the tracker, in test_exchange.py, with the gear that runs.
"""

from __future__ import annotations

import os
import sys
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SkipTest, SynchronousTestCase

from odptwist.errors import WireError
from odptwist.machines import response
from odptwist.wire.constants import CLIENT_DEPRECATE_EOF
from odptwist.wire.framing import frame
from tests.machines.exchanges import exchanges
from tests.support.compiled import find_compiled

_response = find_compiled("odptwist.machines._response")

EXAMPLES = int(os.environ.get("ODPTWIST_EXAMPLES", "300"))
SEEN = ("_phase", "_shape", "_count", "_skip", "_held", "_fragment", "answered", "changes")
SEEN += ("status", "error", "insert_id", "number", "oks", "result_sets")
SHAPES = st.integers(response.SIMPLE, response.ENDLESS)
VALID = [
    stream
    for capabilities in (0, CLIENT_DEPRECATE_EOF)
    for each in exchanges(capabilities)
    for stream in each.streams()
    if len(stream) < 5000
]
PACKETS = st.one_of(
    st.sampled_from(VALID),
    st.binary(min_size=0, max_size=30).map(lambda payload: frame(payload, 1)),
    st.builds(
        lambda first, rest: frame(bytes((first,)) + rest, 1),
        st.sampled_from([0, 1, 0xFB, 0xFC, 0xFD, 0xFE, 0xFF]),
        st.binary(max_size=12),
    ),
    st.binary(max_size=12),
    st.sampled_from([b"\xff\xff\xff\x01", b"\x01\x00\x10\x01\xfe", b"\0\0\0\1"]),
)


def both() -> tuple[type, type]:
    """Return the two machines."""
    if _response is None:
        if os.environ.get("ODPTWIST_REQUIRE") == "all":
            raise AssertionError("the response machine in C was not built, and ODPTWIST_REQUIRE=all is set")
        raise SkipTest("the response machine in C was not built")
    return response.Responses, _response.Responses


def picture(machine: Any) -> dict[str, Any]:
    """Return all that a machine knows."""
    return {name: getattr(machine, name) for name in SEEN}


def outcome(machine: Any, chunk: bytes) -> Any:
    """Return what a chunk comes to."""
    try:
        return machine.server(chunk)
    except WireError as fault:
        return type(fault), str(fault), getattr(fault, "size", None)


class GearTests(SynchronousTestCase):
    @settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=[HealthCheck.too_slow])
    @given(SHAPES, st.booleans(), st.booleans(), st.lists(PACKETS, max_size=6), st.data())
    def test_same(self, shape: int, deprecate_eof: bool, files: bool, packets: list[bytes], data: Any) -> None:
        """Both answer every chunk alike, fail alike, and know the same afterwards."""
        machines = [machine(deprecate_eof, files) for machine in both()]
        stream = b"".join(packets)
        cuts = data.draw(st.lists(st.integers(0, len(stream)), max_size=8).map(sorted))
        for machine in machines:
            machine.begin(shape)
        for start, end in zip([0, *cuts], [*cuts, len(stream)], strict=True):
            one, other = (outcome(machine, stream[start:end]) for machine in machines)
            self.assertEqual(one, other)
            self.assertEqual(picture(machines[0]), picture(machines[1]))
            if one is True:
                for machine in machines:
                    machine.begin(shape)
            elif one is not False:
                for machine in machines:
                    machine.give_up()
                self.assertEqual(picture(machines[0]), picture(machines[1]))
                return

    def test_cut_everywhere(self) -> None:
        """Every exchange of the table, every cut in two: both end at the same place with the same knowledge."""
        for capabilities in (0, CLIENT_DEPRECATE_EOF):
            for each in exchanges(capabilities):
                stream = each.streams()[0]
                if len(stream) > 2000:
                    continue
                for cut in range(len(stream) + 1):
                    pictures = []
                    for kind in both():
                        machine = kind(bool(capabilities))
                        machine.begin(_shape_of(each.command[0]))
                        ends = [outcome(machine, stream[:cut]), outcome(machine, stream[cut:])]
                        pictures.append((ends, picture(machine)))
                    self.assertEqual(pictures[0], pictures[1], (each.name, cut))

    def test_what_is_not_bytes(self) -> None:
        """The one in C refuses what is not bytes, and makes no exchange of what is no shape."""
        machine = both()[1](False)
        machine.begin(response.SIMPLE)
        for wrong in ("text", None, bytearray(b"x")):
            self.assertRaises(TypeError, machine.server, wrong)
        self.assertRaises(TypeError, machine.begin, "x")
        self.assertRaises(TypeError, both()[1])

    def test_memory(self) -> None:
        """What the one in C keeps, it gives back."""
        kind = both()[1]
        machine = kind(False)
        held = bytes(range(200))
        before = sys.getrefcount(held)
        for _ in range(1000):
            machine.begin(response.RESULT)
            machine.server(b"\x07\0\0\1\0\0\0\2\x40\0\0")
            machine.begin(response.SIMPLE)
            machine.server(b"\xff\0\0")
            machine.server(b"\1")
            machine.give_up()
        self.assertEqual((sys.getrefcount(held), machine._held, machine.changes), (before, b"", ()))


def _shape_of(command: int) -> int:
    from odptwist.machines.exchange import SHAPES

    return SHAPES[command]
