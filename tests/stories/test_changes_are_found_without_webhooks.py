"""Without any webhook a change reaches the receiver within a minute, long before the next sweep."""

from collections.abc import AsyncIterator

import pytest

from tests.world import Since, asking_rent, listed_rent, pick, pick_rented
from tests.world.memory import MemoryWorld

PULSE_EVERY = 60.0
A_MINUTE = PULSE_EVERY + 5.0
"""Seconds: the interval, the calls, the linger and the delivery."""


@pytest.fixture
async def world() -> AsyncIterator[MemoryWorld]:
    """A world whose account loses every webhook."""
    world = MemoryWorld(pulse_every=PULSE_EVERY)
    await world.start()
    await world.until(lambda: len(world.rentsync.accepted) >= 4)
    await world.rest()
    async with world.beside():
        yield world
    await world.stop()


async def test_a_listing_that_changes_is_found(world: MemoryWorld) -> None:
    """Listings have no time of their last update: their list is read, as long as it is short."""
    unit = pick(world, lambda one: one.unit_id in world.portfolio.listings)
    await world.pass_time(PULSE_EVERY)
    world.portfolio.set_rent(unit, 3001)
    await world.until(lambda: listed_rent(world, unit) == asking_rent(world, unit) == 3001, within=A_MINUTE)


async def test_a_unit_that_is_edited_is_found(world: MemoryWorld) -> None:
    unit = pick(world, lambda _: True)
    world.portfolio.edit_unit(unit, number="9Z")
    await world.until(lambda: world.rentsync.state[unit].unit_code == "9Z", within=A_MINUTE)


async def test_a_lease_that_is_signed_or_ends_is_found(world: MemoryWorld) -> None:
    unit = pick(world, "Available")
    lease = world.portfolio.sign_lease(unit, world.portfolio.today())
    assert lease
    await world.until(lambda: world.rentsync.state[unit].status_name == "Rented", within=A_MINUTE)
    rented = pick_rented(world)
    world.portfolio.end_lease(world.portfolio.leases_of[rented][0])
    await world.until(lambda: world.rentsync.state[rented].status_name != "Rented", within=A_MINUTE)


async def test_a_quiet_account_costs_four_calls_a_minute_and_no_batch(world: MemoryWorld) -> None:
    await world.pass_time(PULSE_EVERY)
    await world.rest()
    since = Since(world)
    await world.pass_time(5 * PULSE_EVERY)

    assert len(world.buildium.calls) - since.calls == 5 * 4
    assert since.batches() == []


async def test_what_changed_while_nothing_ran_is_found_by_the_first_pulse(world: MemoryWorld) -> None:
    """It asks from the end of the last one on, by the clock of the account."""
    await world.pass_time(2 * PULSE_EVERY)
    unit = pick(world, lambda _: True)
    workers = len(world.workers)
    while world.workers:
        await world.kill_worker()
    world.portfolio.edit_unit(unit, number="8Y")
    await world.pass_time(5 * PULSE_EVERY)
    world.start_workers(workers)
    await world.until(lambda: world.rentsync.state[unit].unit_code == "8Y", within=A_MINUTE)
