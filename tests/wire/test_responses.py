from __future__ import annotations

import pymysql
from attrs import evolve
from hypothesis import given
from hypothesis import strategies as st
from pymysql.protocol import EOFPacketWrapper, MysqlPacket, OKPacketWrapper
from twisted.trial.unittest import SynchronousTestCase

from odptwist.errors import (
    ConfigError,
    LoginRefused,
    MalformedPacket,
    PacketTooLarge,
    SequenceError,
    ServerSessionLost,
    ServerUnreachable,
    SqlError,
    WireError,
    not_owner,
)
from odptwist.wire.constants import (
    CLIENT_PROTOCOL_41,
    CLIENT_SESSION_TRACK,
    SERVER_STATUS_AUTOCOMMIT,
    SERVER_STATUS_SESSION_STATE_CHANGED,
)
from odptwist.wire.responses import (
    Eof,
    Err,
    Ok,
    OtherChange,
    SchemaChanged,
    VariableChanged,
    err_for,
    is_eof,
    parse_eof,
    parse_err,
    parse_ok,
)
from tests.wire.strategies import any_bytes, damaged, many, raises_only_wire_errors, relaxed, texts, uint16, uint64

PLAIN = CLIENT_PROTOCOL_41
TRACK = CLIENT_PROTOCOL_41 | CLIENT_SESSION_TRACK
CHANGED = SERVER_STATUS_SESSION_STATE_CHANGED

changes = st.lists(
    st.one_of(
        st.builds(SchemaChanged, texts),
        st.builds(VariableChanged, texts, texts),
        st.builds(OtherChange, st.integers(2, 255), st.binary(max_size=40)),
    ),
    max_size=4,
).map(tuple)


@st.composite
def tracked_oks(draw: st.DrawFn) -> Ok:
    """Draw an OK of a session that tracks its state."""
    drawn = draw(changes)
    status = draw(uint16)
    return Ok(
        affected_rows=draw(uint64),
        last_insert_id=draw(uint64),
        status=status | CHANGED if drawn else status,
        warnings=draw(uint16),
        info=draw(any_bytes),
        changes=drawn,
        header=draw(st.sampled_from((0x00, 0xFE))),
    )


TRACKED = Ok(
    affected_rows=3,
    last_insert_id=300,
    status=SERVER_STATUS_AUTOCOMMIT | CHANGED,
    warnings=1,
    info=b"Rows matched: 3",
    changes=(SchemaChanged("shop"), VariableChanged("autocommit", "ON"), OtherChange(2, b"\x011")),
)


class OkTests(SynchronousTestCase):
    def test_golden(self) -> None:
        """An OK with changes is written as the documentation has it."""
        payload = (
            bytes.fromhex("00 03 fc2c01 0240 0100") + b"\x0fRows matched: 3"
            b"\x1b\x01\x05\x04shop\x00\x0e\x0aautocommit\x02ON\x02\x02\x011"
        )
        self.assertEqual(TRACKED.encode(TRACK), payload)
        self.assertEqual(parse_ok(payload, TRACK), TRACKED)

    def test_shortest(self) -> None:
        """Without info and changes an OK has 7 bytes, agreed tracking or not."""
        for capabilities in (PLAIN, TRACK):
            self.assertEqual(Ok(status=2).encode(capabilities), bytes.fromhex("00000002000000"))
            self.assertEqual(parse_ok(bytes.fromhex("00000002000000"), capabilities), Ok(status=2))

    def test_several_variables_in_one_entry(self) -> None:
        """One entry with several variables gives one change a variable."""
        block = b"\x00\x10\x01a\x011\x01b\x012\x01c\x05three"
        payload = bytes.fromhex("00 00 00 0240 0000 00") + bytes([len(block)]) + block
        self.assertEqual(
            parse_ok(payload, TRACK).changes,
            (VariableChanged("a", "1"), VariableChanged("b", "2"), VariableChanged("c", "three")),
        )

    def test_untracked_info(self) -> None:
        """Without session tracking, the length byte of MySQL and the space of seekdb are not part of the info."""
        head = bytes.fromhex("00 00 00 0200 0000")
        for rest, info in (
            (b"\x0fRows matched: 3", b"Rows matched: 3"),
            (b" Rows matched: 3", b"Rows matched: 3"),
            (b"Rows matched: 3", b"Rows matched: 3"),
            (b"\xff\xff", b"\xff\xff"),
            (b"", b""),
        ):
            self.assertEqual(parse_ok(head + rest, PLAIN).info, info)

    def test_peer_without_tracking(self) -> None:
        """A peer that did not agree to tracking is told neither changes nor the bit, but the same info."""
        payload = TRACKED.encode(PLAIN)
        self.assertEqual(payload, bytes.fromhex("00 03 fc2c01 0200 0100") + b"\x0fRows matched: 3")
        self.assertEqual(parse_ok(payload, PLAIN), evolve(TRACKED, status=SERVER_STATUS_AUTOCOMMIT, changes=()))

    def test_bit_without_changes(self) -> None:
        """A status that promises changes is followed by a block, if an empty one; its absence is forgiven."""
        ok = Ok(status=CHANGED)
        self.assertEqual(ok.encode(TRACK), bytes.fromhex("00 00 00 0040 0000 00 00"))
        self.assertEqual(parse_ok(ok.encode(TRACK), TRACK), ok)
        self.assertEqual(parse_ok(ok.encode(TRACK)[:-1], TRACK), ok)
        self.assertEqual(parse_ok(ok.encode(TRACK)[:-2], TRACK), ok)

    def test_other_packets(self) -> None:
        """An ERR and nothing at all are no OK."""
        for payload in (Err(1, "HY000", "no").encode(), b"", b"\x00"):
            self.assertRaises(MalformedPacket, parse_ok, payload, TRACK)

    @relaxed
    @given(tracked_oks())
    def test_round_trip(self, ok: Ok) -> None:
        """Every OK reads back as itself."""
        self.assertEqual(parse_ok(ok.encode(TRACK), TRACK), ok)

    @relaxed
    @given(tracked_oks())
    def test_untracked_round_trip(self, ok: Ok) -> None:
        """Without tracking everything but the changes reads back."""
        self.assertEqual(parse_ok(ok.encode(PLAIN), PLAIN), evolve(ok, status=ok.status & ~CHANGED, changes=()))

    @many
    @given(st.one_of(any_bytes, any_bytes.map(b"\x00".__add__), damaged(TRACKED.encode(TRACK))))
    def test_any_bytes(self, payload: bytes) -> None:
        """Any bytes are an OK or a WireError."""
        for capabilities in (PLAIN, TRACK):
            raises_only_wire_errors(parse_ok, payload, capabilities)

    def test_pymysql(self) -> None:
        """PyMySQL reads our OK."""
        theirs = OKPacketWrapper(MysqlPacket(TRACKED.encode(PLAIN), "utf8"))
        self.assertEqual((theirs.affected_rows, theirs.insert_id, theirs.warning_count), (3, 300, 1))
        self.assertEqual((theirs.server_status, theirs.message), (2, b"\x0fRows matched: 3"))


class ErrTests(SynchronousTestCase):
    def test_golden(self) -> None:
        """An ERR has its number, its sqlstate behind a mark, and its text."""
        err = Err(1094, "HY000", "Unknown thread id: 7")
        self.assertEqual(err.encode(), b"\xff\x46\x04#HY000Unknown thread id: 7")
        self.assertEqual(err.encode(with_state=False), b"\xff\x46\x04Unknown thread id: 7")
        self.assertEqual(parse_err(err.encode(with_state=False)), err)

    def test_sqlstate_of_another_length(self) -> None:
        """A sqlstate that has not five characters cannot eat into the text."""
        self.assertEqual(Err(1, "1", "text").encode(), b"\xff\x01\x00#10000text")
        self.assertEqual(Err(1, "1234567", "text").encode(), b"\xff\x01\x00#12345text")

    @relaxed
    @given(st.builds(Err, uint16, st.text("0123456789ABCXYZ", min_size=5, max_size=5), texts))
    def test_round_trip(self, err: Err) -> None:
        """Every ERR reads back as itself."""
        self.assertEqual(parse_err(err.encode()), err)

    @many
    @given(st.one_of(any_bytes, any_bytes.map(b"\xff".__add__), any_bytes.map(b"\xff\x01\x00#".__add__)))
    def test_any_bytes(self, payload: bytes) -> None:
        """Any bytes are an ERR or a WireError."""
        raises_only_wire_errors(parse_err, payload)

    def test_pymysql(self) -> None:
        """PyMySQL raises our ERR with its number and its text."""
        packet = MysqlPacket(Err(1045, "28000", "Access denied").encode(), "utf8")
        raised = self.assertRaises(pymysql.err.OperationalError, packet.check_error)
        self.assertEqual(raised.args, (1045, "Access denied"))


class EofTests(SynchronousTestCase):
    @relaxed
    @given(st.builds(Eof, uint16, uint16))
    def test_round_trip(self, eof: Eof) -> None:
        """Every EOF reads back as itself."""
        self.assertEqual(len(eof.encode()), 5)
        self.assertEqual(parse_eof(eof.encode()), eof)

    def test_long_value(self) -> None:
        """A row that begins with a very long value is no EOF."""
        self.assertFalse(is_eof(b"\xfe" + bytes(8)))
        self.assertFalse(is_eof(b""))
        self.assertRaises(MalformedPacket, parse_eof, b"\xfe" + bytes(8))

    @many
    @given(st.one_of(st.binary(max_size=10), st.binary(max_size=8).map(b"\xfe".__add__)))
    def test_any_bytes(self, payload: bytes) -> None:
        """Any bytes are an EOF or a WireError."""
        raises_only_wire_errors(parse_eof, payload)

    def test_pymysql(self) -> None:
        """PyMySQL reads our EOF."""
        theirs = EOFPacketWrapper(MysqlPacket(Eof(2, 8).encode(), "utf8"))
        self.assertEqual((theirs.warning_count, theirs.server_status, bool(theirs.has_next)), (2, 8, True))


class ErrForTests(SynchronousTestCase):
    def test_every_kind(self) -> None:
        """Each error becomes the ERR that clients know."""
        for error, err in (
            (not_owner(7), Err(1095, "HY000", "You are not owner of thread 7")),
            (SequenceError("2 is due"), Err(1156, "08S01", "Got packets out of order")),
            (PacketTooLarge("x"), Err(1153, "08S01", "Got a packet bigger than 'max_allowed_packet' bytes")),
            (MalformedPacket("x"), Err(1835, "HY000", "Malformed communication packet")),
            (WireError("x"), Err(1835, "HY000", "Malformed communication packet")),
            (ServerUnreachable("no server of one"), Err(1429, "HY000", "no server of one")),
            (ServerSessionLost("it went away"), Err(1158, "08S01", "it went away")),
            (LoginRefused(b"\xff\x15\x04#28000no"), Err(1045, "28000", "no")),
            (LoginRefused(b"\xff"), Err(1835, "HY000", "Malformed communication packet")),
            (SqlError(5010, "21000", "\udcff"), Err(5010, "21000", "\udcff")),
        ):
            self.assertEqual(err_for(error), err)
            self.assertEqual(parse_err(err_for(error).encode()), err)

    def test_secrets_stay(self) -> None:
        """An error that nobody foresaw keeps its text to itself."""
        for error in (ValueError("password=secret"), ConfigError("password=secret"), KeyboardInterrupt("secret")):
            self.assertEqual(err_for(error), Err(1105, "HY000", "the proxy failed; its log says why"))
