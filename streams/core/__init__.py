"""Decisions as pure functions over frozen values, without access to clock, network or Kafka."""
