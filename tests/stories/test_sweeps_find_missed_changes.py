"""A sweep finds and delivers every change that webhooks missed."""

from datetime import UTC, datetime, timedelta

import pytest

from tests.world import Since, World, current_lease, listed_rent, pick, pick_rented, receiver_matches, start_sweep
from tests.world.memory import MemoryWorld

SWEEP_INTERVAL = 900


async def test_a_lost_webhook_is_found_by_a_sweep(world: World) -> None:
    unit = pick(world, "Available")
    world.portfolio.set_rent(unit, 1901)
    await start_sweep(world)
    await world.until(lambda: listed_rent(world, unit) == 1901.0)


async def test_a_scheduled_sweep_counts_missed_changes(memory_world: MemoryWorld) -> None:
    unit = pick(memory_world, "Available")
    memory_world.portfolio.set_rent(unit, 1901)
    await memory_world.until(lambda: listed_rent(memory_world, unit) == 1901.0, within=SWEEP_INTERVAL + 60)
    assert memory_world.observed.facts["missed"] >= 1


@pytest.mark.parametrize(("most_rows", "total_count"), [(5, ""), (5, None), (1000, None)])
async def test_an_account_is_read_whole_however_its_pages_come(most_rows: int, total_count: str | None) -> None:
    """Shorter pages than were asked for, and lists of unknown length."""
    world = MemoryWorld()
    world.buildium.most_rows, world.buildium.total_count = most_rows, total_count
    async with world, world.beside():
        await world.until(lambda: receiver_matches(world))
        await world.rest()
        assert receiver_matches(world)


async def test_a_sweep_without_changes_sends_nothing(world: World) -> None:
    """Four lists with fewer than a thousand entities each take four calls."""
    since = Since(world)
    await start_sweep(world)
    await world.rest()
    assert since.batches() == []
    assert len(world.buildium.calls) - since.calls == 4


async def test_a_missing_unit_is_removed_after_a_404(world: World) -> None:
    since, unit = Since(world), pick(world, "Available")
    world.portfolio.remove_unit(unit)
    await start_sweep(world)
    await world.until(lambda: world.rentsync.state[unit].status_name == "Removed")
    calls = list(world.buildium.calls)[since.calls :]
    assert {call.status for call in calls if call.path.endswith(f"/units/{unit}")} == {404}


async def test_an_account_that_appears_empty_removes_nothing(memory_world: MemoryWorld) -> None:
    """Each unit is asked for and does not exist, but so many removals wait for a person; a metric and a log show it."""
    world = memory_world
    units, leases = sorted(world.portfolio.units), len(world.portfolio.live_leases())
    for unit in units:
        world.portfolio.remove_unit(unit)
    before = len(world.rentsync.accepted)
    await world.pass_time(2 * SWEEP_INTERVAL + 60)

    asked = {call.path.rpartition("/")[2] for call in world.buildium.calls if call.status == 404}
    assert asked >= {str(unit) for unit in units}
    assert len(world.rentsync.accepted) == before
    assert world.observed.facts["held_back"] == len(units) + leases
    assert sum(counts["buildium"] for counts in world.observed.held_removals.values()) == len(units) + leases
    state = await world.state("default", "buildium")
    assert f"{len(units) + leases} entities no longer exist" in (state.sync_detail or "")


async def test_many_removals_are_made_once_a_person_confirms_them(memory_world: MemoryWorld) -> None:
    """All else goes on meanwhile: changes of other units are delivered, and ended leases are found."""
    world = memory_world
    changed, rented = pick(world, "Available"), pick_rented(world)
    lease = current_lease(world, rented)
    assert lease is not None
    gone = [unit for unit in sorted(world.portfolio.units) if unit not in (changed, rented)]
    assert len(gone) > 10
    for unit in gone:
        world.portfolio.remove_unit(unit)
    world.portfolio.set_rent(changed, 1901)
    world.portfolio.end_lease(lease)
    await world.pass_time(2 * SWEEP_INTERVAL + 60)
    states = {unit: world.rentsync.state[unit].status_name for unit in gone if unit in world.rentsync.state}

    assert "Removed" not in states.values()
    assert listed_rent(world, changed) == 1901.0
    assert world.rentsync.state[rented].is_available

    await world.managed(world.integrations.sweep("default", "buildium", confirm_removals=True))
    await world.until(lambda: all(world.rentsync.state[unit].status_name == "Removed" for unit in states))
    await world.rest()
    assert world.rentsync.state[changed].is_available
    assert (await world.state("default", "buildium")).sync_detail is None


async def test_many_missing_units_that_exist_stay_and_few_that_are_gone_are_removed(memory_world: MemoryWorld) -> None:
    """The list of units does not show half of them; two of these are gone."""
    world = memory_world
    gone = [pick(world, "Available"), pick(world, "Available")]
    for unit in gone:
        world.portfolio.remove_unit(unit)
    hidden = set(sorted(world.portfolio.units)[::2])
    assert len(hidden) > 10
    world.buildium.hidden = frozenset(hidden)
    await world.pass_time(2 * SWEEP_INTERVAL + 60)

    assert all(world.rentsync.state[unit].status_name == "Removed" for unit in gone)
    assert not any(world.rentsync.state[unit].status_name == "Removed" for unit in hidden & world.rentsync.state.keys())
    assert world.observed.facts.get("held_back", 0) == 0


async def test_a_lease_that_ended_without_a_webhook_makes_its_unit_available(world: World) -> None:
    """It is missing in the list of current leases, so it is fetched by its id."""
    unit = pick_rented(world)
    lease = current_lease(world, unit)
    assert lease is not None
    world.portfolio.end_lease(lease)
    await start_sweep(world)
    await world.until(lambda: world.rentsync.state[unit].is_available)


async def test_a_calendar_date_changes_a_unit_at_local_midnight() -> None:
    """A unit whose tenants move out today becomes available tomorrow, without any event or call."""
    world = MemoryWorld(at=datetime(2026, 3, 1, 6, 30, tzinfo=UTC))  # 23:30 in Edmonton
    today = world.portfolio.today()
    unit = next(u for u in sorted(world.portfolio.units) if not world.portfolio.leases_of.get(u))
    if unit in world.portfolio.listings:
        world.portfolio.unlist_unit(unit)
    world.portfolio.sign_lease(unit, today - timedelta(days=300), today)
    lease = world.portfolio.leases_of[unit][0]
    world.portfolio.edit_lease(lease, automatic_move_out=True)
    async with world, world.beside():
        await world.until(lambda: unit in world.rentsync.state)
        await world.pass_time(5)
        before = len(world.rentsync.accepted)
        world.buildium.fail(503, times=10_000)  # no call can succeed: the change comes from the date alone

        await world.pass_time(28 * 60)
        assert len(world.rentsync.accepted) == before
        await world.pass_time(5 * 60)

        assert unit in [sent["unit_id"] for batch in world.rentsync.accepted[before:] for sent in batch.units]
        assert world.rentsync.state[unit].status_name == "Available"
