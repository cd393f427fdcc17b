"""No state has a single record as its only way out: each may vanish, or die, and the receiver ends up equal again."""

import pytest

from schemas import topics
from schemas.topics import TopicSpec
from tests.world import Since, listed_rent, pick, receiver_matches
from tests.world.loss import Loss
from tests.world.memory import MemoryWorld

TOPICS = (
    topics.WEBHOOKS,
    topics.SWEEPS,
    topics.CHANGES,
    topics.LINGERING,
    topics.DUE,
    topics.BATCHES,
    topics.OUTCOMES,
    topics.rung("1m"),
)
WITHIN = 3600.0
"""Seconds without any further change: some sweeps, and what finds deliveries that are lost."""


@pytest.mark.parametrize("damages", [False, True], ids=["vanishes", "dies"])
@pytest.mark.parametrize("topic", TOPICS, ids=lambda topic: topic.name)
async def test_the_receiver_ends_up_equal_without_a_new_change(
    memory_world: MemoryWorld, topic: TopicSpec, damages: bool
) -> None:
    world, since = memory_world, Since(memory_world)
    loss = Loss(world, topic, damages=damages)
    unit = pick(world, "Available")
    if topic.name.startswith("retry."):
        world.rentsync.answer_next(503)
    await world.send_webhooks(world.portfolio.set_rent(unit, 2700))
    await world.until(lambda: listed_rent(world, unit) == 2700 and loss.happened, within=WITHIN)
    await world.pass_time(WITHIN)

    assert receiver_matches(world)
    assert world.observed.undelivered["rentsync"] == 0.0
    assert len(since.dead()) == (1 if damages else 0)
