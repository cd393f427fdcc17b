"""A receiver gets a snapshot of everything at the moments of its schedule: each once, and a missed one later."""

from collections.abc import AsyncIterator
from datetime import timedelta

import pytest

from connectors.rentsync.standin import Delivery
from tests.world import listed_rent, pick
from tests.world.memory import MemoryWorld

HOUR = 3600.0


@pytest.fixture
async def scheduled() -> AsyncIterator[MemoryWorld]:
    """A delivered world whose next snapshot is due ten minutes after the start."""
    world = MemoryWorld()
    due = world.clock.now() + timedelta(minutes=10)
    world.env |= {"RENTSYNC_SCHEDULE": f"{due.minute} {due.hour} * * *", "RENTSYNC_TIMEZONE": "UTC"}
    await world.start()
    await world.until(lambda: len(world.rentsync.accepted) >= 4)
    await world.rest()
    async with world.beside():
        yield world
    await world.stop()


def snapshots(world: MemoryWorld) -> dict[int, list[Delivery]]:
    """Return the snapshots that were accepted after the first one of each property."""
    found: dict[int, list[Delivery]] = {}
    for one in world.rentsync.accepted:
        if one.mode == "snapshot":
            found.setdefault(one.project, []).append(one)
    return {project: several[1:] for project, several in found.items()}


def counts(world: MemoryWorld) -> set[int]:
    return {len(several) for several in snapshots(world).values()}


async def test_every_property_is_sent_whole_once_a_day(scheduled: MemoryWorld) -> None:
    world = scheduled
    assert counts(world) == {0}
    await world.pass_time(20 * 60)
    first = counts(world)
    await world.pass_time(HOUR)
    state = world.rentsync.state

    assert (first, counts(world)) == ({1}, {1})
    for project, (snapshot,) in snapshots(world).items():
        assert {unit["unit_id"] for unit in snapshot.units} == {
            number for number, unit in state.items() if unit.project_id == project
        }


async def test_a_receiver_of_changes_alone_gets_no_daily_snapshot(scheduled: MemoryWorld) -> None:
    world = scheduled
    world.env["RENTSYNC_UPDATES"] = "delta"
    await world.restart()
    await world.pass_time(20 * 60)
    unit = pick(world, "Available")
    first = len(world.rentsync.accepted)
    await world.send_webhooks(world.portfolio.set_rent(unit, 2468))
    await world.until(lambda: listed_rent(world, unit) == 2468.0)

    assert counts(world) == {0}
    assert [one.mode for one in world.rentsync.accepted[first:]] == ["delta"]


async def test_a_restart_repeats_nothing_and_a_missed_moment_is_caught_up(scheduled: MemoryWorld) -> None:
    world = scheduled
    await world.pass_time(20 * 60)
    await world.restart()
    await world.pass_time(10 * 60)
    after_restart = counts(world)
    await world.restart(after=50 * HOUR)
    await world.pass_time(10 * 60)

    assert (after_restart, counts(world)) == ({1}, {2})


async def test_a_second_worker_doubles_nothing(scheduled: MemoryWorld) -> None:
    world = scheduled
    await world.pass_time(10 * 60)
    world.start_workers(1)
    await world.pass_time(5 * 60)
    await world.kill_worker()
    await world.pass_time(20 * 60)

    assert counts(world) == {1}


async def test_what_was_refused_goes_out_with_the_snapshot(scheduled: MemoryWorld) -> None:
    """Before the next sweep: nothing else brings it."""
    world = scheduled
    await world.pass_time(8 * 60)
    unit = pick(world, "Available")
    world.rentsync.answer_next(422)
    await world.send_webhooks(world.portfolio.set_rent(unit, 2020))
    await world.until(lambda: world.rentsync.statuses[-1] == 422)
    refused = world.rentsync.state[unit].base_rent
    await world.until(lambda: world.rentsync.state[unit].base_rent == 2020, within=7 * 60)

    assert refused != 2020
    assert counts(world) == {1}
