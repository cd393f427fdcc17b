"""Processes are killed, frozen, stopped and moved to empty disks; the receiver is told the truth all the same.

Only a real cluster can tell these.
"""

import asyncio
import shutil
import signal

from connectors.buildium.standin import Events
from tests.world import Since, pick, receiver_is_equal, rent_told, sweep
from tests.world.cluster import PARTITIONS, ClusterWorld, Process


def raise_rents(world: ClusterWorld, to: int) -> Events:
    """Change what is asked for some units of every property: some seconds of work, as ten calls a second go."""
    units = sorted(unit for unit, one in world.rentsync.state.items() if one.status_name != "Removed")[::4]
    return tuple(event for turn, unit in enumerate(units) for event in world.portfolio.set_rent(unit, to + turn))


async def owners(world: ClusterWorld) -> list[Process]:
    """Whoever has the org in the group that reads the PMS, in the folds, and in the group that delivers."""
    return [await world.owner(group) for group in ("readers", "streams", "deliver")]


async def says_nothing_new(world: ClusterWorld) -> None:
    """A full read of the account finds that the receiver knows it all."""
    await world.rest()
    since = Since(world)
    await sweep(world)
    await world.rest()
    assert since.batches() == []
    assert since.dead() == []


async def test_workers_share_the_partitions(cluster_world: ClusterWorld) -> None:
    world = cluster_world

    async def shared() -> bool:
        shares = [await world.shares(group) for group in ("readers", "streams", "deliver", "linger")]
        return all(len(one) == 2 and sorted(map(len, one.values())) == [PARTITIONS // 2] * 2 for one in shares)

    await world.eventually(shared, "both have two partitions of every group", every=0.2)


async def test_a_worker_killed_in_mid_load_is_taken_over_from(cluster_world: ClusterWorld) -> None:
    """First who reads the PMS, then who keeps the tables; nobody cleans up after them."""
    world, since = cluster_world, Since(cluster_world)
    for to, group in ((4000, "readers"), (5000, "streams")):
        before = len(since.batches())
        telling = asyncio.create_task(world.tell(raise_rents(world, to)))
        await world.until(lambda before=before: len(since.batches()) > before)  # type: ignore[misc]
        await world.kill(await world.owner(group))
        await telling
        await world.start(1)
    await world.until(lambda: receiver_is_equal(world))
    await says_nothing_new(world)
    assert set(since.answers()) == {200}
    assert since.dead() == []


async def test_a_frozen_worker_harms_nothing_when_it_wakes(cluster_world: ClusterWorld) -> None:
    """Others have taken over when it goes on where it was; it must notice that before it writes."""
    world, since = cluster_world, Since(cluster_world)
    telling = asyncio.create_task(world.tell(raise_rents(world, 6000)))
    await world.until(lambda: len(since.batches()) > 0)
    frozen = await world.owner("streams")
    frozen.expected_to_end = True  # it may end itself, for whoever watches it to start it again
    frozen.signal(signal.SIGSTOP)
    await telling

    async def taken_over() -> bool:
        return all(frozen is not one for one in await owners(world))

    await world.eventually(taken_over, "another one has the org")
    await world.tell(raise_rents(world, 7000))
    await world.until(lambda: receiver_is_equal(world))
    frozen.signal(signal.SIGCONT)
    await world.tell(raise_rents(world, 7500))
    await world.until(lambda: receiver_is_equal(world))

    async def back_or_ended() -> bool:
        answer = None if frozen.code is not None else await world.page(frozen, "/readyz")
        return frozen.code is not None or (answer is not None and answer.status_code == 200)

    await world.eventually(back_or_ended, "the woken one takes part again, or has ended itself")
    assert frozen.code in (None, 75)
    await says_nothing_new(world)
    assert receiver_is_equal(world)
    assert set(since.answers()) == {200}
    assert since.dead() == []


async def test_a_worker_that_is_told_to_stop_ends_in_order(cluster_world: ClusterWorld) -> None:
    """In mid-load; what it had not finished is its successor's. The same with a web role."""
    world, since = cluster_world, Since(cluster_world)
    web = await world.start_web()
    telling = asyncio.create_task(world.tell(raise_rents(world, 8000)))
    await world.until(lambda: len(since.batches()) > 0)
    assert await world.stop(await world.owner("streams")) == 0
    await telling
    assert await world.stop_web(web) == 0
    await world.until(lambda: receiver_is_equal(world))
    await says_nothing_new(world)


async def test_lost_state_directories_are_rebuilt_from_the_changelogs(cluster_world: ClusterWorld) -> None:
    """What the receiver knows comes back too: the next change is a delta of one unit, as if nothing had happened."""
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

    await world.tell(world.portfolio.set_rent(unit, 4321))
    await world.until(lambda: rent_told(world, unit) == 4321.0)
    await world.rest()

    assert [set(batch) for batch in since.batches()] == [{unit}]
    await says_nothing_new(world)


async def test_a_thousand_webhooks_doubled_and_shuffled_through_two_web_roles(cluster_world: ClusterWorld) -> None:
    """They end in the last truth."""
    world, since = cluster_world, Since(cluster_world)
    await world.start_web()
    portfolio, units = world.portfolio, sorted(world.portfolio.units)[::4]
    events = [event for turn in range(1000) for event in portfolio.set_rent(units[turn % len(units)], 1000 + turn)]
    answered = sum(sender.delivered for sender in world.senders)
    await world.tell(tuple(events[:1000]), copies=2, shuffled=True)
    assert sum(sender.delivered for sender in world.senders) - answered == 2000
    await world.until(lambda: receiver_is_equal(world), within=240)
    await says_nothing_new(world)
    assert set(since.answers()) == {200}
    assert since.dead() == []
