"""An integration that does not answer is hardly called, uses up no attempts, and keeps no other integration waiting."""

from collections.abc import AsyncIterator

import pytest

from connectors.buildium.standin import bulk_portfolio
from schemas import topics
from schemas.codec import decode_as
from schemas.delivery import DeliveryOutcome, DeliveryResult
from tests.world import Since, asking_rent, listed_rent, pick, receiver_matches
from tests.world.memory import MemoryWorld

OUTAGE = 40 * 60.0
"""Seconds; the ladder alone gives up after eighteen minutes."""

PATIENCE = 3
"""Calls of one attempt."""


@pytest.fixture
async def large_world() -> AsyncIterator[MemoryWorld]:
    """Twelve properties, all of them delivered once."""
    world = MemoryWorld(lambda clock: bulk_portfolio(clock, 48, per_property=4))
    await world.start()
    await world.until(lambda: len(world.rentsync.accepted) >= 12)
    await world.rest()
    async with world.beside():
        yield world
    await world.stop()


async def test_a_pms_that_is_away_for_long_costs_few_calls_and_no_dead_letter(large_world: MemoryWorld) -> None:
    world, since = large_world, Since(large_world)
    units = [pick(world, lambda _: True) for _ in range(12)]
    world.buildium.fail(503, times=100_000)
    for unit in units:
        await world.send_webhooks(world.portfolio.edit_unit(unit, number=f"new {unit}"))
    await world.pass_time(OUTAGE)
    calls = len(world.buildium.calls) - since.calls
    world.buildium.faults.clear()
    await world.until(lambda: all(world.rentsync.state[unit].unit_code == f"new {unit}" for unit in units), within=900)

    assert calls <= (len(units) + 12) * PATIENCE
    assert since.dead() == []


async def test_a_receiver_that_is_away_for_long_gets_the_state_of_the_moment_when_it_is_back(
    large_world: MemoryWorld,
) -> None:
    """Most deliveries were never attempted again: what waits is the wish, and its attempt is still to come."""
    world, since = large_world, Since(large_world)
    units = {one.property_id: number for number, one in sorted(world.portfolio.units.items())}.values()
    world.rentsync.answer_next(503, times=100_000)
    for unit in units:
        await world.send_webhooks(world.portfolio.set_rent(unit, 1901))
    await world.pass_time(OUTAGE)
    answers = len(since.answers())
    for unit in units:
        await world.send_webhooks(world.portfolio.set_rent(unit, 1902))
    world.rentsync.recover()
    await world.until(lambda: all(listed_rent(world, unit) == asking_rent(world, unit) for unit in units), within=900)
    await world.rest()

    outcomes = [decode_as(DeliveryOutcome, one.value) for one in world.read(topics.OUTCOMES.name)]
    waiting = [one for one in outcomes if one.result is DeliveryResult.WAITING]
    assert answers <= len(units) + 12
    assert len(waiting) > answers
    assert max(one.attempt for one in waiting) <= 4
    assert since.dead() == []
    assert receiver_matches(world)
    assert len(since.batches()) == len(units)


async def test_an_outage_longer_than_a_day_ends_in_dead_letters_that_say_so(large_world: MemoryWorld) -> None:
    """And what is owed goes out by itself afterwards. For most of the time nothing runs here."""
    world, since = large_world, Since(large_world)
    units = {one.property_id: number for number, one in sorted(world.portfolio.units.items())}.values()
    world.rentsync.answer_next(503, times=100_000)
    for unit in units:
        await world.send_webhooks(world.portfolio.set_rent(unit, 1903))
    await world.pass_time(3600)
    await world.restart(after=23.5 * 3600)
    await world.pass_time(3600)
    reasons = [dict(letter.headers)["rent-reason"] for letter in since.dead()]
    owed = world.observed.undelivered["rentsync"]
    world.rentsync.recover()
    await world.until(lambda: all(listed_rent(world, unit) == 1903 for unit in units), within=1800)

    assert len(reasons) == len(units)
    assert set(reasons) <= {b"circuit_open", b"exhausted"}
    assert b"circuit_open" in reasons
    assert owed > 25 * 3600
    assert len(since.dead()) == len(reasons)
