"""Where verifiers come from."""

from __future__ import annotations

from collections.abc import Sequence

from attrs import evolve, frozen
from twisted.internet.defer import CancelledError, Deferred, fail, succeed
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer
from zope.interface.verify import verifyObject

from odptwist.identity import Identity
from odptwist.interfaces import IVerifierSource
from odptwist.sessions import verifiers
from odptwist.sessions.service_sessions import ServiceSessions
from odptwist.sessions.surroundings import Account
from odptwist.sessions.verifiers import ConfiguredVerifiers, ServerVerifiers, Verifiers
from odptwist.wire.constants import COM_QUERY
from tests.support.house import House, ServerPeer
from tests.support.logs import watch_log
from tests.support.results import error, table

TIMEOUT = 2.0
ADA = Identity("ada", "sys", "odp")
ONE, TWO = b"\x01" * 20, b"\xfe" * 20
MARIADB = ("Host", "User", "Password", "plugin", "authentication_string")
SEEKDB = ("host", "user", "password", "plugin", "authentication_string")
MYSQL = ("Host", "User", "plugin", "authentication_string")


def spell(verifier: bytes) -> bytes:
    """Return a verifier as servers spell it."""
    return b"*" + verifier.hex().upper().encode()


def account(verifier: bytes = ONE, user: bytes = b"ada", plugin: bytes = b"mysql_native_password") -> tuple[bytes, ...]:
    """Return a row of MariaDB's."""
    return (b"%", user, spell(verifier), plugin, spell(verifier))


@frozen
class Known:
    """An account of the settings."""

    user: str
    tenant: str | None
    cluster: str | None
    verifier: bytes


@implementer(IVerifierSource)
@frozen
class Source:
    """Says what it is told to say."""

    answer: Deferred[Sequence[bytes]]

    def verifiers(self, identity: Identity) -> Deferred[Sequence[bytes]]:
        """Return the answer."""
        return self.answer


class ConfiguredVerifiersTests(SynchronousTestCase):
    def test_it_provides_its_interface(self) -> None:
        """ConfiguredVerifiers is a source of verifiers."""
        self.assertTrue(verifyObject(IVerifierSource, ConfiguredVerifiers(())))

    def test_the_most_exact_first(self) -> None:
        """All accounts that fit are known, those that name tenant and cluster before those that name less."""
        source = ConfiguredVerifiers(
            (
                Known("ada", None, None, b"any"),
                Known("ada", None, "odp", b"cluster"),
                Known("ada", "sys", "odp", b"both"),
                Known("ada", "shop", "odp", b"other tenant"),
                Known("ada", "sys", "other", b"other cluster"),
                Known("Ada", None, None, b"other user"),
                Known("ada", "sys", None, b"tenant"),
            )
        )
        found = self.successResultOf(source.verifiers(ADA))
        self.assertEqual(found, (b"both", b"cluster", b"tenant", b"any"))
        self.assertEqual(self.successResultOf(source.verifiers(Identity("eve", "sys", "odp"))), ())


class VerifiersTests(SynchronousTestCase):
    def ask(self, *answers: Deferred[Sequence[bytes]]) -> Deferred[Sequence[bytes]]:
        """Ask sources that answer so."""
        return Verifiers([Source(each) for each in answers]).verifiers(ADA)

    def test_it_provides_its_interface(self) -> None:
        """Verifiers is a source of verifiers."""
        self.assertTrue(verifyObject(IVerifierSource, Verifiers(())))

    def test_the_first_that_knows(self) -> None:
        """Sources are asked in order, until one knows the account."""
        later: Deferred[Sequence[bytes]] = Deferred()
        self.assertEqual(self.successResultOf(self.ask(succeed((ONE,)), later)), (ONE,))
        asked = self.ask(succeed(()), later)
        self.assertNoResult(asked)
        later.callback((TWO,))
        self.assertEqual(self.successResultOf(asked), (TWO,))
        self.assertEqual(self.successResultOf(self.ask(succeed(()), succeed(()))), ())

    def test_a_source_that_fails(self) -> None:
        """It is logged and passed over."""
        self.assertEqual(self.successResultOf(self.ask(fail(ZeroDivisionError()), succeed((TWO,)))), (TWO,))
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)

    def test_an_asker_that_leaves(self) -> None:
        """No further source is asked for it."""
        last: Deferred[Sequence[bytes]] = Deferred()
        asked = self.ask(Deferred(), last)
        asked.cancel()
        self.failureResultOf(asked, CancelledError)
        self.assertFalse(last.called)


class ServerVerifiersTests(SynchronousTestCase):
    """A proxy with two servers that have accounts."""

    def setUp(self) -> None:
        """Make it."""
        self.house = House(servers=2)
        self.clock = self.house.reactor
        surroundings = self.house.registry.surroundings
        self.sessions = ServiceSessions(surroundings, Account("odp", "secret"), TIMEOUT)
        self.source = ServerVerifiers(surroundings, self.sessions)
        self.errors = watch_log(self)

    def question(self, server: ServerPeer) -> str:
        """Return the one question that a server has got."""
        (text,) = (payload[1:].decode() for payload in server.payloads() if payload[0] == COM_QUERY)
        return text

    def test_it_provides_its_interface(self) -> None:
        """ServerVerifiers is a source of verifiers."""
        self.assertTrue(verifyObject(IVerifierSource, self.source))

    def test_the_question(self) -> None:
        """The name goes in hexadecimal, so that no name and no sql_mode can make something else of it."""
        asked = self.source.verifiers(evolve(ADA, user="o'\\\u00e9"))
        server = self.house.open()
        self.assertEqual(self.question(server), "SELECT * FROM mysql.user WHERE user = 0x6f275cc3a9")
        server.send(table(MARIADB, *(account(each, "o'\\\u00e9".encode()) for each in (ONE, TWO, ONE))))
        self.assertEqual(self.successResultOf(asked), (ONE, TWO))

    def test_accounts_of_all_kinds_of_servers(self) -> None:
        """The verifier is found wherever a kind of server has it, and only for the login method that it belongs to."""
        one = spell(ONE)
        cases = [
            (MARIADB, (b"%", b"ada", one, b"mysql_native_password", one), (ONE,)),
            (MARIADB, (b"%", b"ada", one, b"", b""), (ONE,)),
            (MARIADB, (b"%", b"ada", b"", b"mysql_native_password", b""), ()),
            (MARIADB, (b"%", b"ada", b"", b"ed25519", one), ()),
            (MARIADB, (b"%", b"ada", b"invalid", b"mysql_native_password", b"invalid"), ()),
            (MARIADB, (b"%", b"ada", None, b"mysql_native_password", None), ()),
            (SEEKDB, (b"%", b"ada", one.lower(), b"ob_native_password", b""), (ONE,)),
            (MYSQL, (b"%", b"ada", b"mysql_native_password", one), (ONE,)),
            (MYSQL, (b"%", b"ada", b"caching_sha2_password", b"$A$005$" + one), ()),
            (SEEKDB, (b"%", b"ADA", one, b"ob_native_password", b""), ()),
            (("Host",), (b"%",), ()),
        ]
        server = None
        for number, (columns, row, expected) in enumerate(cases):
            asked = self.source.verifiers(evolve(ADA, tenant=f"t{number}"))
            server = server or self.house.open()
            server.send(table(columns, row))
            self.assertEqual(self.successResultOf(asked), expected, row)

    def test_answers_are_kept(self) -> None:
        """For a minute the same question is answered at once, also where nothing was found."""
        asked = [self.source.verifiers(ADA), self.source.verifiers(evolve(ADA, user="eve"))]
        server = self.house.open()
        server.send(table(MARIADB, account()))
        server.send(table(MARIADB))
        self.assertEqual([self.successResultOf(each) for each in asked], [(ONE,), ()])
        server.packets()
        self.clock.advance(59.9)
        self.assertEqual(self.successResultOf(self.source.verifiers(ADA)), (ONE,))
        self.assertEqual(self.successResultOf(self.source.verifiers(evolve(ADA, user="eve"))), ())
        self.clock.advance(0.2)
        again = self.source.verifiers(ADA)
        self.assertNoResult(again)
        server.send(table(MARIADB, account(TWO)))
        self.assertEqual(self.successResultOf(again), (TWO,))

    def test_the_oldest_answers_give_way(self) -> None:
        """There is a limit to what is kept."""
        self.patch(verifiers, "KEPT_AT_MOST", 2)
        asked = [self.source.verifiers(evolve(ADA, user=name)) for name in ("ada", "eve", "ada", "bob", "eve", "dan")]
        server = self.house.open()
        for _ in range(4):
            server.send(table(MARIADB))
        self.assertEqual([self.successResultOf(each) for each in asked], [()] * 6)
        self.assertEqual([identity.user for identity in self.source._kept], ["bob", "dan"])

    def test_one_question_for_all_askers(self) -> None:
        """Who asks for an account that is being asked for waits for the same answer, and may leave."""
        asked = [self.source.verifiers(ADA) for _ in range(4)]
        asked[0].cancel()
        asked[2].cancel()
        server = self.house.open()
        self.question(server)
        server.send(table(MARIADB, account()))
        for place in (0, 2):
            self.failureResultOf(asked[place], CancelledError)
        self.assertEqual([self.successResultOf(asked[place]) for place in (1, 3)], [(ONE,), (ONE,)])
        self.assertEqual(server.payloads(), [])

    def test_a_live_server_is_asked(self) -> None:
        """Servers that are down are left out; after a failure the next one is asked."""
        for _ in range(3):
            self.house.clusters.failed(self.house.clusters.all_servers()[0], "gone")
        asked = self.source.verifiers(ADA)
        server = self.house.open()
        self.assertEqual(server.wire.peer.port, 3307)
        server.send(table(MARIADB, account()))
        self.assertEqual(self.successResultOf(asked), (ONE,))

    def test_the_next_server(self) -> None:
        """After a failure the next server is asked."""
        asked = self.source.verifiers(ADA)
        self.house.refuse_connection()
        self.house.open().send(table(MARIADB, account()))
        self.assertEqual((self.successResultOf(asked), self.errors), ((ONE,), []))

    def test_failures(self) -> None:
        """Nothing is known then; the log says why, once; and for a second nobody is asked again."""
        for _ in range(3):
            asked = self.source.verifiers(ADA)
            for _ in range(2):
                server = self.house.accept()
                server.greet()
                server.err(1045, "denied", sequence=2)
            self.assertEqual(self.successResultOf(asked), ())
            self.assertEqual(self.successResultOf(self.source.verifiers(ADA)), ())
            self.assertEqual(self.house.attempts, 0)
            self.clock.advance(1)
        self.assertEqual(self.errors, ["cluster odp does not tell how accounts log in: denied (1045)"])
        asked = self.source.verifiers(ADA)
        self.house.open().send(table(MARIADB))
        self.assertEqual(self.successResultOf(asked), ())
        self.assertEqual(len(self.errors), 1)

    def test_a_refused_question(self) -> None:
        """An account that may not read the accounts is told of in the log."""
        asked = self.source.verifiers(ADA)
        for _ in range(2):
            self.house.open().send(error(1142, "SELECT command denied"))
        self.assertEqual(self.successResultOf(asked), ())
        self.assertIn("SELECT command denied (1142)", self.errors[0])

    def test_timeout(self) -> None:
        """All servers together have the time of one."""
        asked = self.source.verifiers(ADA)
        self.clock.advance(1.5)
        self.house.refuse_connection()
        self.house.open()
        self.clock.advance(0.4)
        self.assertNoResult(asked)
        self.clock.advance(0.1)
        self.assertEqual(self.successResultOf(asked), ())
        self.assertEqual(len(self.errors), 1)

    def test_no_server_is_up(self) -> None:
        """Then nothing is known, at once."""
        for address in self.house.clusters.all_servers():
            for _ in range(3):
                self.house.clusters.failed(address, "gone")
        self.assertEqual(self.successResultOf(self.source.verifiers(ADA)), ())
        self.assertIn("no server is up", self.errors[-1])

    def test_names_that_are_never_asked_for(self) -> None:
        """A cluster that is not there and a name that no server would take cost nothing."""
        for identity in (evolve(ADA, cluster="other"), evolve(ADA, user="u" * 300), evolve(ADA, tenant="t" * 300)):
            self.assertEqual(self.successResultOf(self.source.verifiers(identity)), ())
        self.assertEqual((self.house.attempts, self.source._kept), (0, {}))

    def test_tenants(self) -> None:
        """A real OceanBase shows tenant sys its own accounts only; elsewhere the tenant makes no difference."""
        asked = self.source.verifiers(evolve(ADA, tenant="shop"))
        server = self.house.open()
        server.send(table(MARIADB, account()))
        self.assertEqual(self.successResultOf(asked), (ONE,))
        server.wire.lose()
        self.house.turn()
        shop, sys = self.source.verifiers(evolve(ADA, tenant="bank")), self.source.verifiers(ADA)
        server = self.house.accept()
        server.thread_id = 0x80010013
        server.greet()
        server.packets()
        server.accept()
        self.assertEqual(self.successResultOf(shop), ())
        server.send(table(SEEKDB, account(TWO, plugin=b"ob_native_password")))
        self.assertEqual(self.successResultOf(sys), (TWO,))

    def test_a_bug(self) -> None:
        """It is logged, and nothing is known."""
        self.patch(verifiers, "_read", lambda identity, session: 1 / 0)
        asked = self.source.verifiers(ADA)
        self.house.open()
        self.assertEqual(self.successResultOf(asked), ())
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)

    def test_stop(self) -> None:
        """When the sessions are stopped, askers are not left waiting."""
        asked = self.source.verifiers(ADA)
        self.house.open()
        self.sessions.stop()
        self.assertEqual((self.successResultOf(asked), self.errors), ((), []))
        self.house.turn()
