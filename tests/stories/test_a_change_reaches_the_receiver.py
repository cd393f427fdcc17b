"""A change in Buildium reaches RentSync, and nothing else does."""

from datetime import timedelta

from tests.world.memory import MemoryWorld


def first(world: MemoryWorld, status: str, skip: int = 0) -> int:
    """A unit that is listed so."""
    return sorted(unit for unit, one in world.rentsync.state.items() if one.status_name == status)[skip]


def lease_of(world: MemoryWorld, unit: int) -> int:
    portfolio = world.portfolio
    return next(lease for lease in portfolio.leases_of[unit] if lease in portfolio.live_leases())


async def test_first_comes_a_snapshot_of_every_active_residential_property(world: MemoryWorld) -> None:
    """Commercial ones are nobody's listing; every unit of the others is there."""
    accepted = world.rentsync.accepted
    offices = {number for number, one in world.portfolio.properties.items() if one.sub_type == "Office"}

    assert {one.mode for one in accepted} == {"snapshot"}
    assert sorted(one.project for one in accepted) == sorted(world.portfolio.properties.keys() - offices)
    assert {unit for one in accepted for unit in (u["unit_id"] for u in one.units)} == {
        number for number, unit in world.portfolio.units.items() if unit.property_id not in offices
    }
    assert len({one.sync_id for one in accepted}) == len({one.key for one in accepted}) == len(accepted)


async def test_then_a_delta_says_only_what_changed(world: MemoryWorld) -> None:
    """One webhook, one batch, one unit, within a second."""
    before = len(world.rentsync.accepted)
    unit = first(world, "Available")

    await world.tell(world.portfolio.set_rent(unit, 1999))
    took = await world.until(lambda: world.rentsync.state[unit].base_rent == 1999.0)
    await world.pass_time(30)

    assert took < 1.0
    (delta,) = world.rentsync.accepted[before:]
    assert (delta.mode, [one["unit_id"] for one in delta.units]) == ("delta", [unit])


async def test_a_lease_that_begins_takes_a_unit_from_the_market(world: MemoryWorld) -> None:
    unit, today = first(world, "Available"), world.portfolio.today()
    await world.tell(world.portfolio.sign_lease(unit, today, today + timedelta(days=365)))
    await world.until(lambda: world.rentsync.state[unit].status_name == "Rented")


async def test_a_notice_of_all_tenants_brings_a_unit_back(world: MemoryWorld) -> None:
    unit = next(u for u in sorted(world.rentsync.state) if _plain(world, u))
    lease = lease_of(world, unit)
    await world.tell(world.portfolio.give_notice(lease, None, world.portfolio.today() + timedelta(days=30)))
    await world.until(lambda: world.rentsync.state[unit].is_available)


def _plain(world: MemoryWorld, unit: int) -> bool:
    portfolio = world.portfolio
    live = [lease for lease in portfolio.leases_of.get(unit, ()) if lease in portfolio.live_leases()]
    return (
        world.rentsync.state[unit].status_name == "Rented"
        and len(live) == 1
        and all(one.moves_out_on is None for one in portfolio.leases[live[0]].occupants)
    )


async def test_a_lease_that_moves_frees_one_unit_and_takes_another(world: MemoryWorld) -> None:
    let = next(u for u in sorted(world.rentsync.state) if _plain(world, u))
    free = first(world, "Available")
    await world.tell(world.portfolio.move_lease(lease_of(world, let), free))
    await world.until(lambda: world.rentsync.state[let].is_available and not world.rentsync.state[free].is_available)


async def test_a_renamed_property_is_told_with_all_its_units(world: MemoryWorld) -> None:
    number = world.rentsync.accepted[0].project
    await world.tell(world.portfolio.rename_property(number, "Under a New Name"))
    await world.until(lambda: world.rentsync.accepted[-1].body["property"]["project_name"] == "Under a New Name")
    assert len(world.rentsync.accepted[-1].units) == len(world.portfolio.units_of[number])


async def test_a_property_that_becomes_inactive_is_sent_once_more_as_unavailable(world: MemoryWorld) -> None:
    number = world.rentsync.accepted[0].project
    before = len(world.rentsync.accepted)
    await world.tell(world.portfolio.inactivate_property(number))
    await world.until(lambda: len(world.rentsync.accepted) > before)
    await world.pass_time(1800)
    (last,) = world.rentsync.accepted[before:]
    assert {unit["status_name"] for unit in last.units} == {"Unavailable"}


async def test_a_unit_that_is_gone_is_marked_removed_and_then_silent(world: MemoryWorld) -> None:
    """Only when the PMS answers 404 for it."""
    unit = first(world, "Available")
    before = len(world.rentsync.accepted)
    await world.tell(world.portfolio.remove_unit(unit))
    await world.until(lambda: world.rentsync.state[unit].status_name == "Removed")
    await world.pass_time(1800)
    assert len(world.rentsync.accepted) == before + 1


async def test_a_thousand_webhooks_doubled_and_shuffled_end_in_the_last_truth(world: MemoryWorld) -> None:
    """And once all is told, telling it again costs calls and not one more batch."""
    portfolio = world.portfolio
    units = sorted(world.rentsync.state)
    events = tuple(event for turn in range(1000) for event in portfolio.set_rent(units[turn % len(units)], 1000 + turn))
    await world.tell(events, copies=2, shuffled=True)
    await world.until(
        lambda: all(
            world.rentsync.state[unit].base_rent == float(portfolio.listings[unit].rent)
            if unit in portfolio.listings
            else world.rentsync.state[unit].base_rent == float(portfolio.units[unit].market_rent or 0)
            for unit in units
        ),
        within=600,
    )
    await world.pass_time(60)
    settled, calls = len(world.rentsync.accepted), len(world.buildium.calls)
    await world.tell(events[-50:], copies=3, shuffled=True)
    await world.pass_time(120)
    assert len(world.rentsync.accepted) == settled
    assert len(world.buildium.calls) - calls <= 50
