"""Chaos tests: kill, freeze and restart workers under load, then compare the tables with what was sent."""
