"""The tests. This module is read first by pytest and by trial."""

from hypothesis import HealthCheck, settings

# No test depends on how fast a machine is.
settings.register_profile("odptwist", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("odptwist")
