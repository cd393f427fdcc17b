"""What a receiver gets of a unit follows from facts of the account, and what leaves the scope is sent once."""

from dataclasses import replace
from datetime import timedelta

from schemas.delivery import Doubt
from tests.world import Since, current_lease, pick, pick_rented
from tests.world.memory import MemoryWorld

ORG = "acme"


async def test_a_property_that_becomes_commercial_is_sent_once_as_unavailable(memory_world: MemoryWorld) -> None:
    """Like one that is made inactive; later changes of it are not sent."""
    world = memory_world
    unit = pick(world, "Available")
    number = world.portfolio.units[unit].property_id
    units = {one for one, found in world.portfolio.units.items() if found.property_id == number}
    since = Since(world)
    events = world.portfolio.rename_property(number, "Corner Offices")
    world.portfolio.properties[number] = replace(world.portfolio.properties[number], sub_type="Office")
    await world.send_webhooks(events)
    await world.until(lambda: all(world.rentsync.state[one].status_name == "Unavailable" for one in units))
    await world.send_webhooks(world.portfolio.set_rent(unit, 2222))
    await world.rest()

    assert [set(batch) for batch in since.batches()] == [units]


async def test_a_contradiction_in_the_account_is_shown_once_and_until_it_ends(memory_world: MemoryWorld) -> None:
    """A unit with a listing and a tenant who stays is counted; it is sent as rented all the same."""
    world = memory_world
    before = _listed_while_occupied(world)
    rented = pick_rented(world)
    await world.send_webhooks(world.portfolio.list_unit(rented))
    await world.until(lambda: _listed_while_occupied(world) == before + 1)
    await world.send_webhooks(world.portfolio.set_rent(rented, 1234))
    await world.rest()
    await world.send_webhooks(world.portfolio.unlist_unit(rented))
    await world.until(lambda: _listed_while_occupied(world) == before)

    changes = [
        (one.appeared, one.units)
        for one in world.observed.doubt_changes
        if one.doubt is Doubt.LISTED_WHILE_OCCUPIED and rented in one.units
    ]
    assert changes == [(True, (rented,)), (False, (rented,))]
    assert world.rentsync.state[rented].status_name == "Rented"


def _listed_while_occupied(world: MemoryWorld) -> int:
    return sum(counts.get(Doubt.LISTED_WHILE_OCCUPIED, 0) for counts in world.observed.doubts.values())


async def test_a_connection_can_offer_only_what_is_listed() -> None:
    """The setting takes effect without a restart, and back again."""
    async with MemoryWorld(environment=False) as world, world.beside(ORG):
        (site,) = await world.add_delivered_orgs(ORG)
        listed = set(site.portfolio.listings)
        offered = {number for number, one in site.rentsync.state.items() if one.status_name == "Available"}
        await world.store(ORG, "buildium", world.buildium_of(site, offer="listed"))
        await world.until(
            lambda: {number for number, one in site.rentsync.state.items() if one.is_available} == offered & listed
        )
        await world.store(ORG, "buildium", world.buildium_of(site, offer="vacant"))
        await world.until(
            lambda: {number for number, one in site.rentsync.state.items() if one.is_available} == offered
        )

        assert offered & listed < offered


async def test_a_renewal_in_place_takes_a_unit_off_the_market(memory_world: MemoryWorld) -> None:
    """Buildium would have moved the tenants out at the end of the lease; it extends the same lease instead."""
    world = memory_world
    unit = pick_rented(world)
    lease = current_lease(world, unit)
    assert lease is not None
    today = world.portfolio.today()
    ending = world.portfolio.edit_lease(lease, automatic_move_out=True, ends_on=today + timedelta(days=30))
    await world.send_webhooks(ending)
    await world.until(lambda: world.rentsync.state[unit].is_available)
    await world.send_webhooks(world.portfolio.renew_lease(lease, today + timedelta(days=395)))
    await world.until(lambda: world.rentsync.state[unit].status_name == "Rented")


async def test_a_unit_whose_tenants_left_early_is_available_although_the_flag_lags(memory_world: MemoryWorld) -> None:
    """The lease is active until its end, and so the PMS calls the unit occupied: a doubt, and no reason to hide it."""
    world = memory_world
    unit = pick_rented(world)
    lease = current_lease(world, unit)
    assert lease is not None
    today = world.portfolio.today()
    world.portfolio.edit_lease(lease, ends_on=today + timedelta(days=60))
    await world.send_webhooks(world.portfolio.give_notice(lease, None, today - timedelta(days=1)))
    await world.until(lambda: world.rentsync.state[unit].is_available)
    await world.until(lambda: any(unit in one.units for one in world.observed.doubt_changes))

    assert world.portfolio.is_occupied(unit)
    doubts = {one.doubt for one in world.observed.doubt_changes if unit in one.units and one.appeared}
    assert Doubt.OCCUPANCY_FLAG in doubts
