"""While Kafka is unreachable, webhooks are refused and sent again; afterwards every change is delivered."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest_asyncio

from streams.local.embedded_kafka import EmbeddedKafka
from tests.stories.conftest import next_door
from tests.world import listed_rent, pick, receiver_matches, start_sweep
from tests.world.cluster import ClusterWorld, cluster

OUTAGE_SECONDS = 15.0


@pytest_asyncio.fixture(loop_scope="session")
async def own_world(own_kafka: EmbeddedKafka, tmp_path: Path) -> AsyncIterator[ClusterWorld]:
    folder = tmp_path / "world"
    folder.mkdir()
    async with cluster(own_kafka.bootstrap_servers, "outage.", folder) as world:
        await world.reset(workers=1)
        async with next_door(world):
            yield world


async def test_a_killed_broker_loses_no_webhook(own_kafka: EmbeddedKafka, own_world: ClusterWorld) -> None:
    world = own_world
    (sender,) = world.senders
    units = [pick(world, "Available") for _ in range(3)]
    outage = asyncio.create_task(asyncio.sleep(OUTAGE_SECONDS))
    await asyncio.to_thread(own_kafka.kill)
    sending = [
        asyncio.create_task(world.send_webhooks(world.portfolio.edit_unit(unit, number=f"A{unit}"))) for unit in units
    ]
    await world.until(lambda: 503 in sender.statuses)
    await asyncio.gather(outage, *sending)
    assert sender.delivered == 0
    assert set(sender.statuses) == {503}
    assert world.workers[0].output().count(b"\n") < 300, "repeated errors are logged at intervals only"

    await own_kafka.start_async()
    await world.webhooks_settled()

    assert sender.dropped == []
    await world.until(lambda: all(world.rentsync.state[unit].unit_code == f"A{unit}" for unit in units))
    await world.send_webhooks(world.portfolio.set_rent(units[0], 4444))
    await world.until(lambda: listed_rent(world, units[0]) == 4444.0)
    await start_sweep(world)
    await world.until(lambda: receiver_matches(world))
