"""The clocks of processes may be hours apart, and step: nothing waits longer for it, and nothing is lost."""

from datetime import timedelta

import pytest

from tests.world import Since, asking_rent, listed_rent, pick, receiver_matches
from tests.world.memory import MemoryWorld

SIX_HOURS = timedelta(hours=6)
SKEWS = pytest.mark.parametrize("skew", [SIX_HOURS, -SIX_HOURS], ids=["ahead", "behind"])


async def replace_worker(world: MemoryWorld, skew: timedelta) -> None:
    """Let a worker whose clock is ahead by ``skew`` take everything over."""
    world.skew = skew
    world.start_workers(1)
    await world.pass_time(1)
    await world.kill_worker()
    await world.pass_time(1)


@SKEWS
async def test_what_waits_on_a_rung_is_not_blocked(memory_world: MemoryWorld, skew: timedelta) -> None:
    """It was parked by a worker with a wrong clock, which another one with the right clock follows."""
    world, since = memory_world, Since(memory_world)
    await replace_worker(world, skew)
    world.rentsync.answer_next(503, times=2)
    unit = pick(world, "Available")
    await world.send_webhooks(world.portfolio.set_rent(unit, 2100))
    await world.until(lambda: 503 in since.answers(), within=120)
    await replace_worker(world, timedelta())
    await world.until(lambda: listed_rent(world, unit) == 2100, within=300)

    assert since.dead() == []


@SKEWS
async def test_a_new_owner_with_another_clock_orders_what_it_reads(memory_world: MemoryWorld, skew: timedelta) -> None:
    """Its sequences follow those of its predecessor, and its successor's follow its own."""
    world, since = memory_world, Since(memory_world)
    unit = pick(world, "Available")
    for number, ahead in enumerate((skew, timedelta(), -skew, timedelta())):
        await replace_worker(world, ahead)
        await world.send_webhooks(world.portfolio.set_rent(unit, 2200 + number))
        await world.until(lambda: listed_rent(world, unit) == asking_rent(world, unit), within=60)
        assert listed_rent(world, unit) == 2200 + number

    assert receiver_matches(world)
    assert since.dead() == []


@SKEWS
async def test_sweeps_go_on(memory_world: MemoryWorld, skew: timedelta) -> None:
    """A change without a webhook is found by the next one, although sweeps are named by the time."""
    world = memory_world
    await replace_worker(world, skew)
    await world.pass_time(20 * 60)
    await replace_worker(world, timedelta())
    unit = pick(world, "Available")
    world.portfolio.set_rent(unit, 2300)
    await world.until(lambda: listed_rent(world, unit) == 2300, within=2 * 900)
