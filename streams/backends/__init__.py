"""Kafka and its in-memory counterpart behind the same ports: consume, produce, administer topics."""
