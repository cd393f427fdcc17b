"""Decisions as pure functions over frozen values: no clock, no network, no Kafka."""
