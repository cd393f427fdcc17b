"""Tests of the keys of table ``sync-states``."""

from datetime import UTC, datetime, timedelta

from schemas.commands import SyncEntity
from streams.core.sync.keys import (
    blocked_key,
    blocked_on,
    entity_key,
    entity_of,
    open_key,
    open_of,
    operation_key,
    operation_time_key,
    operations_by_time,
    taken_key,
)

PROPERTY, OWNER = SyncEntity.PROPERTY, SyncEntity.OWNER


def test_every_key_begins_with_the_org() -> None:
    keys = (
        entity_key("o", PROPERTY, "1"),
        taken_key("o", "c", PROPERTY, 1),
        blocked_key("o", "1", OWNER, "2"),
        open_key("o", OWNER, "2"),
        blocked_on("o", "1"),
        open_of("o"),
        operation_key("o", "op"),
        operations_by_time("o"),
    )
    assert all(key.startswith(b"o/") for key in keys)
    assert len(set(keys)) == len(keys)


def test_a_key_names_its_entity() -> None:
    assert entity_of(open_key("o", OWNER, "x-1")) == (OWNER, "x-1")
    assert entity_of(blocked_key("o", "p", PROPERTY, "y")) == (PROPERTY, "y")


def test_operations_are_in_the_order_of_their_commands() -> None:
    times = [datetime(2026, 3, 1, 12, tzinfo=UTC) + timedelta(seconds=number * 0.1) for number in range(30)]
    keys = [operation_time_key("o", at, f"op{number}") for number, at in enumerate(times)]
    assert keys == sorted(keys)
    assert all(key.startswith(operations_by_time("o")) for key in keys)


def test_prefixes_contain_their_keys_only() -> None:
    assert blocked_key("o", "1", OWNER, "2").startswith(blocked_on("o", "1"))
    assert not blocked_key("o", "11", OWNER, "2").startswith(blocked_on("o", "1"))
    assert not entity_key("o", OWNER, "2").startswith(open_of("o"))
