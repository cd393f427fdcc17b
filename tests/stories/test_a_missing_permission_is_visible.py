"""An API key that may not read listings: the sync goes on without them, and its state shows what was left out."""

from collections.abc import AsyncIterator
from dataclasses import replace

import pytest

from connectors.buildium.standin import bulk_portfolio
from schemas import topics
from tests.world import asking_rent, listed_rent, receiver_matches, residential
from tests.world.memory import ZONE, MemoryWorld, Site, seed

ORG = "acme"
LISTED = 100104
"""An available unit whose listing has another rent than the unit."""


@pytest.fixture
async def world() -> AsyncIterator[MemoryWorld]:
    """One org whose key may not read listings, stored and enabled; nothing was read yet."""
    async with MemoryWorld(environment=False) as world:
        site = world.site(ORG, seed(world.clock), "the-secret-of-acme")
        site.portfolio.list_unit(LISTED, 3456)
        site.buildium.deny("listings")
        site.to_buildium.latency = 0.3
        await world.add_org(ORG)
        async with world.beside(ORG):
            yield world


def market_rent(site: Site, unit: int) -> float:
    return float(site.portfolio.units[unit].market_rent or 0)


async def delivered(world: MemoryWorld) -> Site:
    """Let time pass until the receiver lists all units."""
    site = world.sites[ORG]
    await world.until(lambda: set(site.rentsync.state) == residential(site))
    await world.rest()
    return site


async def test_units_are_offered_with_their_market_rent(world: MemoryWorld) -> None:
    site = await delivered(world)
    assert {unit: one.base_rent for unit, one in site.rentsync.state.items()} == {
        unit: market_rent(site, unit) for unit in residential(site)
    }
    assert site.rentsync.state[LISTED].is_available
    assert market_rent(site, LISTED) != 3456.0
    assert world.read(topics.DEAD_LETTERS.name) == []


async def test_the_state_names_what_was_left_out(world: MemoryWorld) -> None:
    await delivered(world)
    state = await world.state(ORG, "buildium")
    assert (state.sync_state, state.last_status) == ("synced", "Success")
    assert state.sync_detail == "left out, as the credentials may not read them: listings"


async def test_events_of_what_may_not_be_read_are_ignored(world: MemoryWorld) -> None:
    """They are no dead letters, and other events go on."""
    site = await delivered(world)
    await world.send_webhooks(site.portfolio.set_rent(LISTED, 2901), org=ORG)
    await world.until(lambda: listed_rent(site, LISTED) == 2901.0)
    await world.rest()
    asked = {call.status for call in site.buildium.calls if call.path.endswith(f"/units/{LISTED}/listing")}
    assert asked == {403}
    assert world.read(topics.DEAD_LETTERS.name) == []
    assert world.observed.breakers == {}


async def test_the_next_sweep_reads_it_once_it_is_permitted(world: MemoryWorld) -> None:
    site = await delivered(world)
    site.buildium.deny()
    await world.until(lambda: listed_rent(site, LISTED) == 3456.0, within=960)
    await world.rest()
    assert receiver_matches(site)
    assert (await world.state(ORG, "buildium")).sync_detail is None


async def test_a_permission_that_is_lost_later_removes_nothing(world: MemoryWorld) -> None:
    """That listings cannot be read proves nothing about them: they stay as they were."""
    site = await delivered(world)
    site.buildium.deny()
    await world.until(lambda: listed_rent(site, LISTED) == 3456.0, within=960)
    site.buildium.deny("listings")
    first = len(site.rentsync.accepted)
    await world.pass_time(2000)
    await world.rest()
    assert len(site.rentsync.accepted) == first
    assert listed_rent(site, LISTED) == asking_rent(site, LISTED) == 3456.0
    assert (await world.state(ORG, "buildium")).sync_detail == (
        "left out, as the credentials may not read them: listings"
    )


async def test_a_key_that_may_not_read_leases_fails_in_words(world: MemoryWorld) -> None:
    """Without leases no unit's state is known, so nothing is delivered."""
    site = world.site("strict", seed(world.clock), "the-secret-of-strict")
    site.buildium.deny("leases")
    await world.add_org("strict")
    await world.pass_time(30)
    state = await world.state("strict", "buildium")
    assert (state.sync_state, state.last_status) == ("failed", "Failed")
    assert state.sync_detail is not None
    assert "403 Forbidden" in state.sync_detail
    assert "permission" in state.sync_detail
    assert site.rentsync.accepted == []


async def test_the_first_sync_is_visible_while_it_runs(world: MemoryWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("connectors.buildium.source.PAGE_SIZE", 100)
    site = world.site("large", bulk_portfolio(world.clock, 1500, timezone=ZONE), "the-secret-of-large")
    site.to_buildium.latency = 0.3
    await world.add_org("large", site.portfolio, enabled=False)
    assert (await world.state("large", "buildium")).sync_state == "disabled"
    seen: list[tuple[str, str | None]] = []
    for name in ("rentsync", "buildium"):
        await world.enable("large", name)
    for _ in range(100):
        state = await world.state("large", "buildium")
        if not seen or seen[-1] != (state.sync_state, state.sync_detail):
            seen.append((state.sync_state, state.sync_detail))
        await world.pass_time(0.1)

    assert seen[0][0] == "never_synced"
    assert ("first_sync", "stage 2 of 4, units 0") in seen
    assert ("first_sync", "stage 2 of 4, units 1100 of 1500") in seen
    assert ("first_sync", "stage 3 of 4, leases 0") in seen
    assert seen[-1] == ("synced", None)
    assert [state for state, _ in seen].count("never_synced") == 1
    assert {state for state, _ in seen} == {"never_synced", "first_sync", "synced"}


async def test_a_later_sweep_is_a_sync_and_not_a_first_one(world: MemoryWorld) -> None:
    site = await delivered(world)
    site.to_buildium.latency = 5.0
    states: set[str] = set()
    while "syncing" not in states:
        await world.pass_time(5)
        states.add((await world.state(ORG, "buildium")).sync_state)
    assert states == {"synced", "syncing"}


async def test_the_sync_of_a_changed_integration_stays_visible(world: MemoryWorld) -> None:
    """A change of settings does not make it look as if nothing was ever read."""
    site = await delivered(world)
    await world.store(ORG, "buildium", replace(world.buildium_of(site, makeReadyDays=2), properties_off=(1004,)))
    assert (await world.state(ORG, "buildium")).sync_state == "synced"
