"""Killed, frozen and stopped processes and lost disks do not lose or corrupt anything.

These stories need a real cluster.
"""

import asyncio
import shutil
import signal

from connectors.buildium.standin import Events
from tests.world import Since, listed_rent, pick, receiver_matches, start_sweep
from tests.world.cluster import PARTITIONS, ClusterWorld, Process


def raise_rents(world: ClusterWorld, to: int) -> Events:
    """Change the rent of a quarter of the units: some seconds of work at ten calls a second."""
    units = sorted(number for number, unit in world.rentsync.state.items() if unit.status_name != "Removed")[::4]
    return tuple(event for index, unit in enumerate(units) for event in world.portfolio.set_rent(unit, to + index))


async def owners(world: ClusterWorld) -> list[Process]:
    """Return the workers that own the org in the groups of the fetches, the folds and the deliveries."""
    return [await world.owner(group) for group in ("readers", "streams", "deliver")]


async def assert_receiver_is_current(world: ClusterWorld) -> None:
    """Assert that a full sweep leads to no batch and no dead letter."""
    await world.rest()
    since = Since(world)
    await start_sweep(world)
    await world.rest()
    assert since.batches() == []
    assert since.dead() == []


async def test_workers_share_the_partitions(cluster_world: ClusterWorld) -> None:
    world = cluster_world

    async def balanced() -> bool:
        groups = [await world.assignments(group) for group in ("readers", "streams", "deliver", "linger")]
        return all(
            len(assigned) == 2 and sorted(map(len, assigned.values())) == [PARTITIONS // 2] * 2 for assigned in groups
        )

    await world.eventually(balanced, "both workers have two partitions of every group", every=0.2)


async def test_a_worker_killed_under_load_is_replaced(cluster_world: ClusterWorld) -> None:
    """First the worker that fetches, then the one that owns the tables."""
    world, since = cluster_world, Since(cluster_world)
    for to, group in ((4000, "readers"), (5000, "streams")):
        before = len(since.batches())
        sending = asyncio.create_task(world.send_webhooks(raise_rents(world, to)))
        await world.until(lambda before=before: len(since.batches()) > before)  # type: ignore[misc]
        await world.kill(await world.owner(group))
        await sending
        await world.start(1)
    await world.until(lambda: receiver_matches(world))
    await assert_receiver_is_current(world)
    assert set(since.answers()) == {200}
    assert since.dead() == []


async def test_a_frozen_worker_writes_nothing_after_it_wakes(cluster_world: ClusterWorld) -> None:
    """Another worker owns its partitions by then; it must detect that before it writes."""
    world, since = cluster_world, Since(cluster_world)
    sending = asyncio.create_task(world.send_webhooks(raise_rents(world, 6000)))
    await world.until(lambda: len(since.batches()) > 0)
    frozen = await world.owner("streams")
    frozen.signal(signal.SIGSTOP)
    await sending

    async def taken_over() -> bool:
        return all(frozen is not owner for owner in await owners(world))

    await world.eventually(taken_over, "another worker owns the org")
    await world.send_webhooks(raise_rents(world, 7000))
    await world.until(lambda: receiver_matches(world))
    frozen.signal(signal.SIGCONT)
    await world.send_webhooks(raise_rents(world, 7500))
    await world.until(lambda: receiver_matches(world))

    async def back() -> bool:
        response = await world.probe(frozen, "/readyz")
        return response is not None and response.status_code == 200

    await world.eventually(back, "the frozen worker is ready again")
    assert frozen.code is None
    await assert_receiver_is_current(world)
    assert receiver_matches(world)
    assert set(since.answers()) == {200}
    assert since.dead() == []


async def test_workers_and_web_roles_stop_gracefully_under_load(cluster_world: ClusterWorld) -> None:
    """They exit with code 0, and other workers finish their work."""
    world, since = cluster_world, Since(cluster_world)
    web = await world.start_web()
    sending = asyncio.create_task(world.send_webhooks(raise_rents(world, 8000)))
    await world.until(lambda: len(since.batches()) > 0)
    assert await world.stop(await world.owner("streams")) == 0
    await sending
    assert await world.stop_web(web) == 0
    await world.until(lambda: receiver_matches(world))
    await assert_receiver_is_current(world)


async def test_lost_state_directories_are_rebuilt_from_the_changelogs(cluster_world: ClusterWorld) -> None:
    """The acknowledged state is recovered too: the next change is a delta with one unit."""
    world = cluster_world
    names = [worker.name for worker in world.workers]
    for worker in list(world.workers):
        await world.kill(worker)
    lost = world.folder / "data" / "workers"
    assert any(lost.iterdir())
    shutil.rmtree(lost)
    for name in names:
        world.start_worker(name)
    since, unit = Since(world), pick(world, "Available")

    await world.send_webhooks(world.portfolio.set_rent(unit, 4321))
    await world.until(lambda: listed_rent(world, unit) == 4321.0)
    await world.rest()

    assert [set(batch) for batch in since.batches()] == [{unit}]
    await assert_receiver_is_current(world)


async def test_duplicated_and_reordered_webhooks_over_two_web_roles(cluster_world: ClusterWorld) -> None:
    """A thousand webhooks, doubled and shuffled, end in the latest state."""
    world, since = cluster_world, Since(cluster_world)
    await world.start_web()
    portfolio, units = world.portfolio, sorted(world.portfolio.units)[::4]
    events = [event for turn in range(1000) for event in portfolio.set_rent(units[turn % len(units)], 1000 + turn)]
    answered = sum(sender.delivered for sender in world.senders)
    await world.send_webhooks(tuple(events[:1000]), copies=2, shuffled=True)
    assert sum(sender.delivered for sender in world.senders) - answered == 2000
    await world.until(lambda: receiver_matches(world), within=240)
    await assert_receiver_is_current(world)
    assert set(since.answers()) == {200}
    assert since.dead() == []
