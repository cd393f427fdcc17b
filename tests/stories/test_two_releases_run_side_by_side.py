"""What a newer release wrote is not bad: an older worker leaves it to a newer one, and nothing is a dead letter."""

from typing import Any

import pytest

from schemas import codec, topics
from schemas.avro import schema_of
from schemas.codec import MAGIC, head_of
from schemas.delivery import Batch
from schemas.topics import TopicSpec
from tests.world import Since, listed_rent, pick, receiver_matches
from tests.world.memory import MemoryWorld

NEWER = MAGIC + b"newer!!!"
"""The head of a schema that this release does not have."""


@pytest.fixture
def upgrade(monkeypatch: pytest.MonkeyPatch) -> dict[bytes, Any]:
    """The readers of this process; what is added to them belongs to the newer release."""
    readers = dict(codec._readers())
    monkeypatch.setattr(codec, "_readers", lambda: readers)
    return readers


def rewritten(world: MemoryWorld, topic: TopicSpec) -> tuple[bytes, object]:
    """Return the last record of a topic as the newer release would have written it, and the reader of such a record."""
    value = world.read(topic.name)[-1].value
    assert value is not None
    return NEWER + value[len(NEWER) :], codec._readers()[value[: len(NEWER)]]


async def test_calls_park_what_they_cannot_read(memory_world: MemoryWorld, upgrade: dict[bytes, Any]) -> None:
    """For longer than anything else may be held; an upgraded process goes on with it."""
    world, since = memory_world, Since(memory_world)
    unit = pick(world, "Available")
    await world.send_webhooks(world.portfolio.set_rent(unit, 2400))
    await world.until(lambda: listed_rent(world, unit) == 2400)
    record, reader = rewritten(world, topics.WEBHOOKS)
    world.portfolio.set_rent(unit, 2401)
    await world.put(topics.WEBHOOKS.name, record)
    await world.pass_time(120)
    parked = world.observed.verdicts["fetch_changes", "parked"]
    assert parked >= 1
    assert since.dead() == []
    upgrade[NEWER] = reader
    await world.until(lambda: listed_rent(world, unit) == 2401, within=300)

    assert since.dead() == []


async def test_folds_stop_a_partition_and_go_on_where_they_were(
    memory_world: MemoryWorld, upgrade: dict[bytes, Any]
) -> None:
    """A record behind one that cannot be read waits as well, since order counts; other partitions go on."""
    world, since = memory_world, Since(memory_world)
    other = await world.add_org("acme")
    await world.until(lambda: receiver_matches(other), within=120)
    await world.rest()
    unit = pick(world, "Available")
    await world.send_webhooks(world.portfolio.set_rent(unit, 2500))
    await world.until(lambda: listed_rent(world, unit) == 2500)
    record, reader = rewritten(world, topics.CHANGES)
    await world.put(topics.CHANGES.name, record)
    await world.send_webhooks(world.portfolio.set_rent(unit, 2501))
    await world.send_webhooks(other.portfolio.set_rent(unit, 2502), org="acme")
    await world.until(lambda: listed_rent(other, unit) == 2502)
    await world.pass_time(30)
    assert listed_rent(world, unit) == 2500
    assert since.dead() == []
    upgrade[NEWER] = reader
    await world.restart()
    await world.until(lambda: listed_rent(world, unit) == 2501)

    assert since.dead() == []


async def test_a_batch_that_cannot_be_read_is_cut_again(memory_world: MemoryWorld, upgrade: dict[bytes, Any]) -> None:
    """Its property is owed, and nothing else is at risk."""
    world, since = memory_world, Since(memory_world)
    head = head_of(schema_of(Batch))
    reader = upgrade.pop(head)
    unit = pick(world, "Available")
    await world.send_webhooks(world.portfolio.set_rent(unit, 2600))
    await world.pass_time(10)
    assert (listed_rent(world, unit) == 2600, since.dead()) == (False, [])
    upgrade[head] = reader
    await world.until(lambda: listed_rent(world, unit) == 2600, within=1800)

    assert since.dead() == []
