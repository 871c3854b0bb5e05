"""The limit of file descriptors: how it is raised, and what the proxy makes of it."""

from __future__ import annotations

import resource
from unittest.mock import patch

from attrs import evolve
from twisted.internet.testing import MemoryReactorClock
from twisted.logger import LogLevel
from twisted.trial.unittest import SynchronousTestCase

from odptwist.descriptors import raise_limit, sessions_for
from odptwist.service import ProxyService
from odptwist.settings import ClusterSettings, LimitSettings, ServerSettings, Settings
from odptwist.snapshots import Address, ReadPolicy
from tests.support.logs import watch_log


class LimitTests(SynchronousTestCase):
    def test_raised(self) -> None:
        """The soft limit becomes the hard one, but no more than a million, and never less than it was."""
        infinity = resource.RLIM_INFINITY
        for soft, hard, expected, change in (
            (1024, 4096, 4096, (4096, 4096)),
            (1024, infinity, 1 << 20, (1 << 20, infinity)),
            (1024, 1 << 30, 1 << 20, (1 << 20, 1 << 30)),
            (4096, 4096, 4096, None),
            (1 << 21, 1 << 21, 1 << 21, None),
            (infinity, infinity, 1 << 20, None),
        ):
            with (
                patch.object(resource, "getrlimit", return_value=(soft, hard)),
                patch.object(resource, "setrlimit") as changed,
            ):
                self.assertEqual(raise_limit(), expected)
                if change is None:
                    changed.assert_not_called()
                else:
                    changed.assert_called_once_with(resource.RLIMIT_NOFILE, change)

    def test_room(self) -> None:
        """A client session takes a descriptor and those of its server sessions; some are kept, and one has room."""
        self.assertEqual(sessions_for(1024, 1), 462)
        self.assertEqual(sessions_for(1024, 2), 308)
        self.assertEqual(sessions_for(64, 1), 1)


class ServiceTests(SynchronousTestCase):
    def start(self, descriptors: int, policy: ReadPolicy = ReadPolicy.WEAK_READ, **limits: int) -> ProxyService:
        """Return a proxy before two servers that has started, in a process of so many descriptors."""
        servers = (ServerSettings(Address("10.0.0.1", 3306)), ServerSettings(Address("10.0.0.2", 3306)))
        settings = Settings(
            clusters=(ClusterSettings("a", servers, read_policy=policy),), limits=LimitSettings(**limits)
        )
        self.descriptors = patch("odptwist.service.raise_limit", return_value=descriptors)
        self.descriptors.start()
        self.addCleanup(self.descriptors.stop)
        service = ProxyService(MemoryReactorClock(), settings)
        self.log = watch_log(self, LogLevel.warn)
        service.privilegedStartService()
        return service

    def warnings(self) -> int:
        """Return how often the log warns of them since the last start."""
        return sum("file descriptors" in line for line in self.log)

    def test_as_many_as_have_room(self) -> None:
        """Without a limit as many clients come in as there are descriptors for; few are worth a warning."""
        service = self.start(1000)
        self.assertEqual(service.registry.surroundings.limits.max_connections, 300)
        self.assertEqual(self.warnings(), 1)
        service = self.start(100_000)
        self.assertEqual(service.registry.surroundings.limits.max_connections, 33_300)
        service = self.start(100_000, ReadPolicy.PRIMARY)
        self.assertEqual(service.registry.surroundings.limits.max_connections, 49_950)
        self.assertEqual(self.warnings(), 0)

    def test_limit_of_the_settings(self) -> None:
        """A limit that is below that holds; one that is above it is worth a warning, and does not."""
        service = self.start(1000, max_connections=200)
        self.assertEqual(service.registry.surroundings.limits.max_connections, 200)
        self.assertEqual(self.warnings(), 0)
        service = self.start(1000, max_connections=400)
        self.assertEqual(service.registry.surroundings.limits.max_connections, 300)
        self.assertEqual(self.warnings(), 1)

    def test_change(self) -> None:
        """All limits can change while the proxy runs, and what descriptors there are for still holds."""
        service = self.start(1000, max_connections=200)
        changed = LimitSettings(400, 3, 4, 5.0, 6.0, 7.0, 8.0, 9.0)
        service._change(evolve(service._settings, limits=changed))
        limits = service.registry.surroundings.limits
        self.assertEqual(
            (
                limits.max_connections,
                limits.max_user_connections,
                limits.max_address_connections,
                limits.login_timeout,
                limits.wait_timeout,
                limits.interactive_timeout,
                limits.idle_transaction_timeout,
                limits.max_statement_time,
            ),
            (300, 3, 4, 5.0, 6.0, 7.0, 8.0, 9.0),
        )
        self.assertEqual(self.warnings(), 1)
