"""A unit that is new by its webhook alone is not delivered before its leases and its listing were read."""

from datetime import timedelta

import pytest

from tests.world import Since
from tests.world.memory import MemoryWorld


@pytest.fixture
def property_id(memory_world: MemoryWorld) -> int:
    """A property that the receiver knows."""
    listed = next(iter(memory_world.rentsync.state.values()))
    return listed.project_id


async def test_a_new_unit_that_is_rented_is_never_sent_as_available(
    memory_world: MemoryWorld, property_id: int
) -> None:
    """The webhook of its lease is late: in the first batch the unit is rented."""
    world, since = memory_world, Since(memory_world)
    created = world.portfolio.add_unit(property_id, "901")
    (unit,) = set(world.portfolio.units_of[property_id]) - set(world.rentsync.state)
    signed = world.portfolio.sign_lease(unit, world.portfolio.today() - timedelta(days=30))
    await world.send_webhooks(created)
    await world.until(lambda: unit in world.rentsync.state)
    first = world.rentsync.state[unit].status_name
    await world.send_webhooks(signed)
    await world.rest()

    assert first == "Rented"
    assert [batch[unit]["is_available"] for batch in since.batches() if unit in batch] == [False]


async def test_a_new_unit_costs_four_calls(memory_world: MemoryWorld, property_id: int) -> None:
    """The unit, its listing, and its property with all leases."""
    world, since = memory_world, Since(memory_world)
    await world.send_webhooks(world.portfolio.add_unit(property_id, "902"))
    await world.rest()

    assert since.asked("/v1/leases") == 1
    assert len(world.buildium.calls) - since.calls == 4


async def test_a_new_property_is_sent_with_all_that_is_known_of_its_units(memory_world: MemoryWorld) -> None:
    """A property without units is not sent; the first batch has the leases of the units that are there by then."""
    world, since = memory_world, Since(memory_world)
    address = next(iter(world.portfolio.properties.values())).address
    created = world.portfolio.add_property("New House", address)
    number = max(world.portfolio.properties)
    await world.send_webhooks(created)
    await world.rest()
    empty = since.batches()
    events = [world.portfolio.add_unit(number, name) for name in ("1", "2", "3")]
    units = sorted(world.portfolio.units_of[number])
    world.portfolio.sign_lease(units[0], world.portfolio.today() - timedelta(days=30))
    for event in events:
        await world.send_webhooks(event)
    await world.until(lambda: set(units) <= set(world.rentsync.state))
    await world.rest()
    sent = [batch[units[0]]["is_available"] for batch in since.batches() if units[0] in batch]

    assert empty == []
    assert [world.rentsync.state[one].status_name for one in units] == ["Rented", "Available", "Available"]
    assert sent == [False]


async def test_a_unit_whose_listing_cannot_be_read_is_sent_after_the_next_sweep(
    memory_world: MemoryWorld, property_id: int
) -> None:
    world = memory_world
    created = world.portfolio.add_unit(property_id, "903")
    (unit,) = set(world.portfolio.units_of[property_id]) - set(world.rentsync.state)
    world.buildium.fail(500, times=10_000, path=rf"/v1/rentals/units/{unit}/listing")
    await world.send_webhooks(created)
    await world.pass_time(60)
    early = unit in world.rentsync.state
    await world.until(lambda: unit in world.rentsync.state, within=960)

    assert not early
