"""A change in Buildium reaches RentSync, and nothing else does."""

from datetime import timedelta
from decimal import Decimal

from tests.world import Since, World, live_lease, pick, pick_let, receiver_is_equal, rent_of, rent_told, sweep
from tests.world.memory import MemoryWorld


async def test_first_comes_a_snapshot_of_every_active_residential_property(world: World) -> None:
    """Commercial ones are nobody's listing; every unit of the others is there."""
    offices = {number for number, one in world.portfolio.properties.items() if one.sub_type == "Office"}
    others = sorted(world.portfolio.properties.keys() - offices)
    first = world.rentsync.accepted[: len(others)]

    assert {one.mode for one in first} == {"snapshot"}
    assert sorted(one.project for one in first) == others
    assert {unit for one in first for unit in (u["unit_id"] for u in one.units)} >= {
        number for number, unit in world.portfolio.units.items() if unit.property_id not in offices
    }
    accepted = world.rentsync.accepted
    assert {one.mode for one in accepted[len(others) :]} <= {"delta"}
    assert len({one.sync_id for one in accepted}) == len({one.key for one in accepted}) == len(accepted)


async def test_then_a_delta_says_only_what_changed(world: World) -> None:
    """One webhook, one batch, one unit."""
    since, unit = Since(world), pick(world, "Available")

    await world.tell(world.portfolio.set_rent(unit, 1999))
    await world.until(lambda: rent_told(world, unit) == 1999.0)
    await world.rest()

    assert [set(batch) for batch in since.batches()] == [{unit}]
    assert world.rentsync.accepted[-1].mode == "delta"


async def test_a_change_arrives_within_a_second(memory_world: MemoryWorld) -> None:
    unit = pick(memory_world, "Available")
    await memory_world.tell(memory_world.portfolio.set_rent(unit, 1999))
    assert await memory_world.until(lambda: rent_told(memory_world, unit) == 1999.0) < 1.0


async def test_a_lease_that_begins_takes_a_unit_from_the_market(world: World) -> None:
    unit, today = pick(world, "Available"), world.portfolio.today()
    await world.tell(world.portfolio.sign_lease(unit, today, today + timedelta(days=365)))
    await world.until(lambda: world.rentsync.state[unit].status_name == "Rented")


async def test_a_notice_of_all_tenants_brings_a_unit_back(world: World) -> None:
    unit = pick_let(world)
    lease = live_lease(world, unit)
    assert lease is not None
    await world.tell(world.portfolio.give_notice(lease, None, world.portfolio.today() + timedelta(days=30)))
    await world.until(lambda: world.rentsync.state[unit].is_available)


async def test_a_notice_that_names_only_a_tenant_leads_to_the_lease(world: World) -> None:
    """``LeaseTenant.Created`` says nothing of a unit: the tenant's leases are read, then the unit."""
    unit, today, since = pick(world, "Available"), world.portfolio.today(), Since(world)
    events = world.portfolio.sign_lease(unit, today, today + timedelta(days=365))
    tenant = [event for event in events if event.name == "LeaseTenant.Created"]
    assert len(tenant) == 1

    await world.tell(tuple(tenant))
    await world.until(lambda: world.rentsync.state[unit].status_name == "Rented")

    assert since.asked(f"/leases/tenants/{tenant[0].ids['TenantId']}") >= 1
    assert since.asked(f"/units/{unit}") >= 1


async def test_a_listing_that_is_taken_down_takes_its_rent_along(world: World) -> None:
    """The unit stays free; what is asked for it is the unit's own rent again."""
    unit = pick(world, lambda one: one.status_name == "Available" and one.unit_id in world.portfolio.listings)
    market = int(world.portfolio.units[unit].market_rent or 0)
    world.portfolio.units[unit].market_rent = Decimal(market)
    await world.tell(world.portfolio.list_unit(unit, market + 111))
    await world.until(lambda: rent_told(world, unit) == market + 111)

    await world.tell(world.portfolio.unlist_unit(unit))

    await world.until(lambda: rent_told(world, unit) == market)


async def test_a_lease_that_moves_frees_one_unit_and_takes_another(world: World) -> None:
    let, free = pick_let(world), pick(world, "Available")
    lease = live_lease(world, let)
    assert lease is not None
    await world.tell(world.portfolio.move_lease(lease, free))
    await world.until(lambda: world.rentsync.state[let].is_available and not world.rentsync.state[free].is_available)


async def test_a_renamed_property_is_told_with_all_its_units(world: World) -> None:
    number, since = 1002, Since(world)
    await world.tell(world.portfolio.rename_property(number, "Under a New Name"))
    await world.rest()
    (batch,) = since.batches()
    assert world.rentsync.accepted[-1].body["property"]["project_name"] == "Under a New Name"
    assert set(batch) >= set(world.portfolio.units_of[number])


async def test_a_property_that_becomes_inactive_is_sent_once_more_as_unavailable(world: World) -> None:
    number, since = 1004, Since(world)
    await world.tell(world.portfolio.inactivate_property(number))
    await world.rest()
    await sweep(world)
    await world.rest()
    (batch,) = since.batches()
    assert {unit["status_name"] for unit in batch.values()} == {"Unavailable"}
    await world.tell(world.portfolio.reactivate_property(number))


async def test_a_unit_that_is_gone_is_marked_removed_and_then_silent(world: World) -> None:
    """Only when the PMS answers 404 for it."""
    since, unit = Since(world), pick(world, "Available")
    await world.tell(world.portfolio.remove_unit(unit))
    await world.until(lambda: world.rentsync.state[unit].status_name == "Removed")
    await world.rest()
    told = len(since.batches())
    await sweep(world)
    await world.rest()
    assert len(since.batches()) == told
    assert [batch[unit]["status_name"] for batch in since.batches()][-1] == "Removed"


async def test_a_thousand_webhooks_doubled_and_shuffled_end_in_the_last_truth(memory_world: MemoryWorld) -> None:
    """And once all is told, telling it again costs calls and not one more batch."""
    world = memory_world
    portfolio = world.portfolio
    units = sorted(world.rentsync.state)
    events = tuple(event for turn in range(1000) for event in portfolio.set_rent(units[turn % len(units)], 1000 + turn))
    await world.tell(events, copies=2, shuffled=True)
    await world.until(lambda: all(rent_told(world, unit) == rent_of(world, unit) for unit in units), within=600)
    await world.rest()
    assert receiver_is_equal(world)
    since = Since(world)
    await world.tell(events[-50:], copies=3, shuffled=True)
    await world.rest()
    assert since.batches() == []
    assert len(world.buildium.calls) - since.calls <= 50
