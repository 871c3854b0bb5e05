"""The server's process and the login that tells whether it is in service."""

from __future__ import annotations

from twisted.internet.error import ConnectionDone, ConnectionLost, ProcessDone, ProcessTerminated
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from odptwist.embedded.process import OUTPUT_LIMIT, LoginProbe, ServerProcess
from odptwist.errors import EmbeddedError, WireError
from odptwist.wire.framing import Deframer, frame
from odptwist.wire.handshake import parse_handshake_response

GREETING = (
    b"\x0a5.7.25\x00\x01\x00\x00\x00saltsalt\x00\xff\xf7\x2e\x02\x00\x9f\x00\x15"
    + bytes(10)
    + b"saltsaltsalt\x00mysql_native_password\x00"
)
OK = b"\x00\x00\x00\x02\x00\x00\x00"
DENIED = b"\xff\x15\x04#28000Access denied"
TOO_MANY = b"\xff\x10\x04#08004Too many connections"


class LoginProbeTests(SynchronousTestCase):
    def setUp(self) -> None:
        """Connect."""
        self.transport = StringTransport()
        self.probe = LoginProbe()
        self.probe.makeConnection(self.transport)

    def test_login(self) -> None:
        """It logs in as root without a password and leaves with COM_QUIT, however the server's bytes are cut."""
        for byte in frame(GREETING, 0):
            self.probe.dataReceived(bytes([byte]))
        [packet] = Deframer().receive(self.transport.value())
        response = parse_handshake_response(packet.payload)
        self.assertEqual(
            (packet.sequence, response.user, response.auth_response, response.plugin),
            (1, "root", b"", "mysql_native_password"),
        )
        self.assertNoResult(self.probe.answered)
        self.transport.clear()
        self.probe.dataReceived(frame(OK, 2))
        self.assertIsNone(self.successResultOf(self.probe.answered))
        self.assertEqual(self.transport.value(), b"\x01\x00\x00\x00\x01")
        self.assertTrue(self.transport.disconnecting)
        self.probe.connectionLost(Failure(ConnectionDone()))

    def test_denied(self) -> None:
        """A refusal by ERR 1045 is an answer: somebody has set a password."""
        self.probe.dataReceived(frame(GREETING, 0) + frame(DENIED, 2))
        self.successResultOf(self.probe.answered)

    def test_other_error(self) -> None:
        """Any other ERR means that the server is not in service."""
        self.probe.dataReceived(frame(GREETING, 0) + frame(TOO_MANY, 2))
        self.assertIn("1040", str(self.failureResultOf(self.probe.answered, EmbeddedError).value))
        self.assertTrue(self.transport.disconnected)

    def test_error_for_greeting(self) -> None:
        """An ERR in the greeting's place fails as bytes that are no greeting do."""
        self.probe.dataReceived(frame(TOO_MANY, 0))
        self.failureResultOf(self.probe.answered, WireError)

    def test_garbage(self) -> None:
        """Bytes of another protocol end the probe, and what follows them is ignored."""
        self.probe.dataReceived(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        self.failureResultOf(self.probe.answered, WireError)
        self.assertTrue(self.transport.disconnected)
        self.probe.dataReceived(b"more")
        self.probe.connectionLost(Failure(ConnectionDone()))

    def test_lost(self) -> None:
        """A connection that ends without an answer fails with its reason."""
        self.probe.connectionLost(Failure(ConnectionLost()))
        self.failureResultOf(self.probe.answered, ConnectionLost)

    def test_cancelled(self) -> None:
        """Cancelling drops the connection."""
        self.probe.answered.addErrback(lambda _: None)
        self.probe.answered.cancel()
        self.assertTrue(self.transport.disconnected)
        self.probe.connectionLost(Failure(ConnectionDone()))


class ServerProcessTests(SynchronousTestCase):
    def setUp(self) -> None:
        """Note who tells of its end."""
        self.ended: list[ServerProcess] = []
        self.process = ServerProcess(self.ended.append)

    def test_exit(self) -> None:
        """The exit status is told to everyone who waits, and to those who ask later."""
        waiting = self.process.when_ended()
        self.assertNoResult(waiting)
        self.process.processExited(Failure(ProcessTerminated(exitCode=96, signal=None)))
        self.successResultOf(waiting)
        self.successResultOf(self.process.when_ended())
        self.assertEqual((self.process.exit_code, self.process.fate), (96, "exit status 96"))
        self.assertEqual(self.ended, [self.process])

    def test_exit_0(self) -> None:
        """An exit without an error is an end like any other."""
        self.process.processExited(Failure(ProcessDone(0)))
        self.assertEqual((self.process.exit_code, self.process.fate), (0, "exit status 0"))

    def test_signal(self) -> None:
        """A signal leaves no exit code."""
        self.process.processExited(Failure(ProcessTerminated(exitCode=None, signal=9)))
        self.assertEqual((self.process.exit_code, self.process.fate), (None, "killed by signal 9"))

    def test_cancelled_wait(self) -> None:
        """Somebody who gave up waiting does not disturb the others."""
        given_up = self.process.when_ended()
        given_up.addErrback(lambda _: None)
        given_up.cancel()
        waiting = self.process.when_ended()
        self.process.processExited(Failure(ProcessDone(0)))
        self.successResultOf(waiting)

    def test_output_is_bounded(self) -> None:
        """Of a chatty server, only the end of its output is kept."""
        self.process.childDataReceived(1, b"x" * OUTPUT_LIMIT)
        self.process.childDataReceived(2, b"the end")
        self.assertEqual(len(self.process.output), OUTPUT_LIMIT)
        self.assertTrue(self.process.output.endswith(b"xthe end"))
