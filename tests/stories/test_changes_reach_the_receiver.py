"""Every change in Buildium reaches RentSync, and nothing else is sent."""

from datetime import timedelta
from decimal import Decimal

from tests.world import (
    Since,
    World,
    asking_rent,
    current_lease,
    listed_rent,
    pick,
    pick_rented,
    receiver_matches,
    start_sweep,
)
from tests.world.memory import MemoryWorld


async def test_the_first_batches_are_snapshots_of_all_residential_properties(world: World) -> None:
    """Commercial properties are not sent; all units of the others are."""
    offices = {number for number, place in world.portfolio.properties.items() if place.sub_type == "Office"}
    residential = sorted(world.portfolio.properties.keys() - offices)
    first = world.rentsync.accepted[: len(residential)]

    assert {batch.mode for batch in first} == {"snapshot"}
    assert sorted(batch.project for batch in first) == residential
    assert {unit["unit_id"] for batch in first for unit in batch.units} >= {
        number for number, unit in world.portfolio.units.items() if unit.property_id not in offices
    }
    accepted = world.rentsync.accepted
    assert {batch.mode for batch in accepted[len(residential) :]} <= {"delta"}
    assert len({batch.sync_id for batch in accepted}) == len({batch.key for batch in accepted}) == len(accepted)


async def test_a_delta_contains_only_changed_units(world: World) -> None:
    """One webhook leads to one batch with one unit."""
    since, unit = Since(world), pick(world, "Available")

    await world.send_webhooks(world.portfolio.set_rent(unit, 1999))
    await world.until(lambda: listed_rent(world, unit) == 1999.0)
    await world.rest()

    assert [set(batch) for batch in since.batches()] == [{unit}]
    assert world.rentsync.accepted[-1].mode == "delta"


async def test_a_change_arrives_within_a_second(memory_world: MemoryWorld) -> None:
    unit = pick(memory_world, "Available")
    await memory_world.send_webhooks(memory_world.portfolio.set_rent(unit, 1999))
    assert await memory_world.until(lambda: listed_rent(memory_world, unit) == 1999.0) < 1.0


async def test_a_new_lease_makes_a_unit_rented(world: World) -> None:
    unit, today = pick(world, "Available"), world.portfolio.today()
    await world.send_webhooks(world.portfolio.sign_lease(unit, today, today + timedelta(days=365)))
    await world.until(lambda: world.rentsync.state[unit].status_name == "Rented")


async def test_a_notice_to_vacate_of_all_tenants_makes_a_unit_available(world: World) -> None:
    unit = pick_rented(world)
    lease = current_lease(world, unit)
    assert lease is not None
    await world.send_webhooks(world.portfolio.give_notice(lease, None, world.portfolio.today() + timedelta(days=30)))
    await world.until(lambda: world.rentsync.state[unit].is_available)


async def test_an_event_of_a_tenant_leads_to_the_lease_and_the_unit(world: World) -> None:
    """``LeaseTenant.Created`` names no unit: the leases of the tenant are fetched, then the unit."""
    unit, today, since = pick(world, "Available"), world.portfolio.today(), Since(world)
    events = world.portfolio.sign_lease(unit, today, today + timedelta(days=365))
    tenant = [event for event in events if event.name == "LeaseTenant.Created"]
    assert len(tenant) == 1

    await world.send_webhooks(tuple(tenant))
    await world.until(lambda: world.rentsync.state[unit].status_name == "Rented")

    assert since.asked(f"/leases/tenants/{tenant[0].ids['TenantId']}") >= 1
    assert since.asked(f"/units/{unit}") >= 1


async def test_a_removed_listing_restores_the_market_rent(world: World) -> None:
    """The unit stays available, with its own market rent."""
    unit = pick(world, lambda unit: unit.status_name == "Available" and unit.unit_id in world.portfolio.listings)
    market = int(world.portfolio.units[unit].market_rent or 0)
    world.portfolio.units[unit].market_rent = Decimal(market)
    await world.send_webhooks(world.portfolio.list_unit(unit, market + 111))
    await world.until(lambda: listed_rent(world, unit) == market + 111)

    await world.send_webhooks(world.portfolio.unlist_unit(unit))

    await world.until(lambda: listed_rent(world, unit) == market)


async def test_a_lease_moved_to_another_unit_updates_both(world: World) -> None:
    rented, available = pick_rented(world), pick(world, "Available")
    lease = current_lease(world, rented)
    assert lease is not None
    await world.send_webhooks(world.portfolio.move_lease(lease, available))
    state = world.rentsync.state
    await world.until(lambda: state[rented].is_available and not state[available].is_available)


async def test_a_renamed_property_is_sent_with_all_its_units(world: World) -> None:
    number, since = 1002, Since(world)
    await world.send_webhooks(world.portfolio.rename_property(number, "Under a New Name"))
    await world.rest()
    (batch,) = since.batches()
    assert world.rentsync.accepted[-1].body["property"]["project_name"] == "Under a New Name"
    assert set(batch) >= set(world.portfolio.units_of[number])


async def test_an_inactivated_property_is_sent_once_as_unavailable(world: World) -> None:
    number, since = 1004, Since(world)
    await world.send_webhooks(world.portfolio.inactivate_property(number))
    await world.rest()
    await start_sweep(world)
    await world.rest()
    (batch,) = since.batches()
    assert {unit["status_name"] for unit in batch.values()} == {"Unavailable"}
    await world.send_webhooks(world.portfolio.reactivate_property(number))


async def test_a_deleted_unit_is_marked_removed_once(world: World) -> None:
    """It is removed because the PMS answers 404 for it."""
    since, unit = Since(world), pick(world, "Available")
    await world.send_webhooks(world.portfolio.remove_unit(unit))
    await world.until(lambda: world.rentsync.state[unit].status_name == "Removed")
    await world.rest()
    sent = len(since.batches())
    await start_sweep(world)
    await world.rest()
    assert len(since.batches()) == sent
    assert [batch[unit]["status_name"] for batch in since.batches()][-1] == "Removed"


async def test_duplicated_and_reordered_webhooks_end_in_the_latest_state(memory_world: MemoryWorld) -> None:
    """A thousand webhooks, doubled and shuffled; sending some of them again leads to calls, but to no batch."""
    world = memory_world
    portfolio = world.portfolio
    units = sorted(world.rentsync.state)
    events = tuple(event for turn in range(1000) for event in portfolio.set_rent(units[turn % len(units)], 1000 + turn))
    await world.send_webhooks(events, copies=2, shuffled=True)
    await world.until(lambda: all(listed_rent(world, unit) == asking_rent(world, unit) for unit in units), within=600)
    await world.rest()
    assert receiver_matches(world)
    since = Since(world)
    await world.send_webhooks(events[-50:], copies=3, shuffled=True)
    await world.rest()
    assert since.batches() == []
    assert len(world.buildium.calls) - since.calls <= 50
