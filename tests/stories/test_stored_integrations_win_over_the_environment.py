"""An integration that is stored is used in place of the one of the environment with its name, and of no other."""

from collections.abc import AsyncIterator

import pytest

from connectors.buildium.standin import seed_portfolio
from tests.world import listed_rent, receiver_matches
from tests.world.memory import ZONE, MemoryWorld, Site

UNIT = 100104


@pytest.fixture
async def world() -> AsyncIterator[MemoryWorld]:
    """The org of the environment, delivered, and beside it an account and a receiver that nothing names yet; idle."""
    async with MemoryWorld() as world:
        await world.until(lambda: receiver_matches(world))
        await world.rest()
        yield world


def other_site(world: MemoryWorld) -> Site:
    """Return another account with fewer units of the same ids, and another receiver."""
    return world.site("other", seed_portfolio(world.clock, properties=2, units=8, timezone=ZONE), "the-other-secret")


async def replace_buildium(world: MemoryWorld, other: Site) -> None:
    """Store the other account under the name of the environment's, and enable it."""
    await world.store("default", "buildium", world.buildium_of(other))
    await world.enable("default", "buildium")


async def test_a_stored_account_is_read_and_the_environment_s_receiver_gets_it(world: MemoryWorld) -> None:
    other = other_site(world)
    assert [one.origin for one in await world.managed(world.integrations.list("default"))] == ["environment"] * 2
    await replace_buildium(world, other)
    calls = len(world.buildium.calls)
    other.portfolio.set_rent(100101, 2601)
    await world.until(lambda: listed_rent(world, 100101) == 2601.0, within=960)

    assert len(world.buildium.calls) == calls
    origins = {one.name: one.origin for one in await world.managed(world.integrations.list("default"))}
    assert origins == {"buildium": "stored", "rentsync": "environment"}


async def test_only_the_stored_secret_verifies_webhooks(world: MemoryWorld) -> None:
    other = other_site(world)
    body = other.portfolio.set_rent(100101, 2602)[0].body(other.portfolio.account)
    old = world.sites["default"].webhook_secret
    assert world.receive_webhook(body, old).org == "default"
    await replace_buildium(world, other)

    assert world.receive_webhook(body, other.webhook_secret).org == "default"
    with pytest.raises(AssertionError, match="401"):
        world.receive_webhook(body, old)


async def test_a_stored_receiver_gets_all_and_the_environment_s_gets_nothing_more(world: MemoryWorld) -> None:
    other = other_site(world)
    first = len(world.rentsync.accepted)
    await world.store("default", "rentsync", world.rentsync_of(other))
    await world.send_webhooks(world.portfolio.set_rent(UNIT, 2603))
    await world.pass_time(30)
    assert other.rentsync.accepted == [], "it is disabled at first"
    assert len(world.rentsync.accepted) == first, "and the environment's does not count any more"

    await world.enable("default", "rentsync")
    await world.until(lambda: set(other.rentsync.state) == set(world.rentsync.state), within=5)
    assert other.rentsync.state[UNIT].base_rent == 2603.0
    assert len(world.rentsync.accepted) == first


async def test_deleting_the_stored_one_lets_the_environment_s_come_back(world: MemoryWorld) -> None:
    """It goes on where it was, with a sweep of what it missed; its receiver is due what the other one got."""
    other = other_site(world)
    await replace_buildium(world, other)
    await world.store("default", "rentsync", world.rentsync_of(other))
    await world.enable("default", "rentsync")
    await world.until(lambda: bool(other.rentsync.accepted))
    world.portfolio.set_rent(UNIT, 2604)
    await world.pass_time(120)
    sent = len(other.rentsync.accepted)

    await world.delete("default", "rentsync")
    await world.delete("default", "buildium")
    origins = {one.name: one.origin for one in await world.managed(world.integrations.list("default"))}
    assert origins == {"buildium": "environment", "rentsync": "environment"}
    await world.until(lambda: listed_rent(world, UNIT) == 2604.0, within=960)
    await world.send_webhooks(world.portfolio.set_rent(UNIT, 2605))
    await world.until(lambda: listed_rent(world, UNIT) == 2605.0, within=5)
    await world.rest()

    assert receiver_matches(world)
    assert len(other.rentsync.accepted) == sent


async def test_another_org_is_not_concerned(world: MemoryWorld) -> None:
    """The environment describes the org ``default`` only."""
    (site,) = await world.add_delivered_orgs("cedar")
    first = len(site.rentsync.accepted)
    await replace_buildium(world, other_site(world))
    await world.pass_time(60)
    assert len(site.rentsync.accepted) == first
    assert receiver_matches(site)
