"""Webhooks are hints; the sweep is the truth."""

from datetime import UTC, datetime, timedelta

from tests.world import Since, World, live_lease, pick, pick_let, rent_told, sweep
from tests.world.memory import MemoryWorld

SLOT = 900


async def test_a_lost_webhook_is_found_by_a_sweep(world: World) -> None:
    unit = pick(world, "Available")
    world.portfolio.set_rent(unit, 1901)
    await sweep(world)
    await world.until(lambda: rent_told(world, unit) == 1901.0)


async def test_a_sweep_begins_by_itself_and_what_it_finds_is_counted(memory_world: MemoryWorld) -> None:
    unit = pick(memory_world, "Available")
    memory_world.portfolio.set_rent(unit, 1901)
    await memory_world.until(lambda: rent_told(memory_world, unit) == 1901.0, within=SLOT + 60)
    assert memory_world.observed.facts["missed"] >= 1


async def test_a_sweep_that_finds_nothing_new_sends_nothing(world: World) -> None:
    """Four lists of less than a thousand entities each are four calls."""
    since = Since(world)
    await sweep(world)
    await world.rest()
    assert since.batches() == []
    assert len(world.buildium.calls) - since.calls == 4


async def test_a_unit_that_vanished_is_removed_after_a_sweep_and_a_404(world: World) -> None:
    since, unit = Since(world), pick(world, "Available")
    world.portfolio.remove_unit(unit)
    await sweep(world)
    await world.until(lambda: world.rentsync.state[unit].status_name == "Removed")
    asked = [call.status for call in list(world.buildium.calls)[since.calls :] if call.path.endswith(f"/units/{unit}")]
    assert set(asked) == {404}


async def test_an_account_that_seems_empty_removes_nothing(memory_world: MemoryWorld) -> None:
    """The guard against mass removal holds it back, and says so."""
    world = memory_world
    for unit in sorted(world.portfolio.units):
        world.portfolio.remove_unit(unit)
    before = len(world.rentsync.accepted)
    await world.pass_time(SLOT + 60)
    assert len(world.rentsync.accepted) == before
    assert world.observed.facts["held_back"] >= 24


async def test_a_lease_that_ended_unheard_frees_its_unit(world: World) -> None:
    """It is no longer among the live ones, so it is asked for by its id."""
    unit = pick_let(world)
    lease = live_lease(world, unit)
    assert lease is not None
    world.portfolio.end_lease(lease)
    await sweep(world)
    await world.until(lambda: world.rentsync.state[unit].is_available)


async def test_at_local_midnight_a_date_changes_what_no_event_changes() -> None:
    """A unit whose tenants leave today is to be had at once tomorrow, without a word from the PMS."""
    world = MemoryWorld(at=datetime(2026, 3, 1, 6, 30, tzinfo=UTC))  # 23:30 in Edmonton
    today = world.portfolio.today()
    unit = next(u for u in sorted(world.portfolio.units) if not world.portfolio.leases_of.get(u))
    if unit in world.portfolio.listings:
        world.portfolio.unlist_unit(unit)
    world.portfolio.sign_lease(unit, today - timedelta(days=300), today)
    lease = world.portfolio.leases_of[unit][0]
    world.portfolio.edit_lease(lease, moves_out_by_itself=True)
    await world.start()
    await world.until(lambda: unit in world.rentsync.state)
    await world.pass_time(5)
    before = len(world.rentsync.accepted)
    world.buildium.fail(503, times=10_000)  # nobody can be asked: what follows, follows from the date alone

    await world.pass_time(28 * 60)
    assert len(world.rentsync.accepted) == before
    await world.pass_time(5 * 60)

    assert unit in [one["unit_id"] for batch in world.rentsync.accepted[before:] for one in batch.units]
    assert world.rentsync.state[unit].status_name == "Available"
    await world.stop()
