"""Tests of those who talk to the outside."""

from hypothesis import HealthCheck, settings

UNHURRIED = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
"""For a property that is checked on a machine that has other things to do."""
