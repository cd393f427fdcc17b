"""Tests of the connectors."""

from hypothesis import HealthCheck, settings

SLOW_MACHINE = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
"""Settings of a property test without a deadline, for machines under load."""
