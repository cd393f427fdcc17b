"""What a receiver gets of a unit follows from facts of the account, and what leaves the scope is sent once."""

from dataclasses import replace

from tests.world import Since, pick
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


async def test_a_connection_can_offer_only_what_is_listed() -> None:
    """The setting takes effect without a restart, and back again."""
    async with MemoryWorld(environment=False) as world:
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
