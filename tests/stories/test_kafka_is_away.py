"""The broker is gone for a while: who sends webhooks hears so and sends them again, and everything arrives."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest_asyncio

from streams.local.embedded_kafka import EmbeddedKafka
from tests.world import pick, receiver_is_equal, rent_told, sweep
from tests.world.cluster import ClusterWorld, cluster

AWAY = 15.0


@pytest_asyncio.fixture(loop_scope="session")
async def own_world(own_kafka: EmbeddedKafka, tmp_path: Path) -> AsyncIterator[ClusterWorld]:
    folder = tmp_path / "world"
    folder.mkdir()
    async with cluster(own_kafka.bootstrap_servers, "away.", folder) as world:
        await world.mend(workers=1)
        yield world


async def test_a_broker_that_dies_under_webhooks_costs_time_and_nothing_else(
    own_kafka: EmbeddedKafka, own_world: ClusterWorld
) -> None:
    world = own_world
    (sender,) = world.senders
    units = [pick(world, "Available") for _ in range(3)]
    outage = asyncio.create_task(asyncio.sleep(AWAY))
    await asyncio.to_thread(own_kafka.kill)
    telling = [asyncio.create_task(world.tell(world.portfolio.edit_unit(unit, number=f"A{unit}"))) for unit in units]
    await world.until(lambda: 503 in sender.statuses)
    await asyncio.gather(outage, *telling)
    assert sender.delivered == 0
    assert set(sender.statuses) == {503}
    assert world.workers[0].said().count(b"\n") < 300, "what goes on is said now and then, not all the time"

    await own_kafka.start_async()
    await world.tell_settled()

    assert sender.dropped == []
    await world.until(lambda: all(world.rentsync.state[unit].unit_code == f"A{unit}" for unit in units))
    await world.tell(world.portfolio.set_rent(units[0], 4444))
    await world.until(lambda: rent_told(world, units[0]) == 4444.0)
    await sweep(world)
    await world.until(lambda: receiver_is_equal(world))
