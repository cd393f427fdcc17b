"""Webhooks are hints; the sweep is the truth."""

from datetime import timedelta

from tests.stories.test_a_change_reaches_the_receiver import first
from tests.world.memory import MemoryWorld

SLOT = 900


async def test_a_lost_webhook_is_found_by_the_next_sweep_and_counted(world: MemoryWorld) -> None:
    unit = first(world, "Available")
    world.portfolio.set_rent(unit, 1901)
    await world.until(lambda: world.rentsync.state[unit].base_rent == 1901.0, within=SLOT + 60)
    assert world.hooks.facts["missed"] >= 1


async def test_a_sweep_that_finds_nothing_new_sends_nothing(world: MemoryWorld) -> None:
    before, calls = len(world.rentsync.accepted), len(world.buildium.calls)
    await world.pass_time(SLOT + 60)
    assert len(world.rentsync.accepted) == before
    assert len(world.buildium.calls) - calls == 4


async def test_a_unit_that_vanished_is_removed_after_a_sweep_and_a_404(world: MemoryWorld) -> None:
    unit = first(world, "Available")
    world.portfolio.remove_unit(unit)
    await world.until(lambda: world.rentsync.state[unit].status_name == "Removed", within=SLOT + 60)
    assert [call.status for call in world.buildium.calls if call.path.endswith(f"/units/{unit}")] == [404]


async def test_an_account_that_seems_empty_removes_nothing(world: MemoryWorld) -> None:
    """The guard against mass removal holds it back, and says so."""
    for unit in sorted(world.portfolio.units):
        world.portfolio.remove_unit(unit)
    before = len(world.rentsync.accepted)
    await world.pass_time(SLOT + 60)
    assert len(world.rentsync.accepted) == before
    assert world.hooks.facts["held_back"] >= 24


async def test_a_lease_that_ended_unheard_frees_its_unit(world: MemoryWorld) -> None:
    """It is no longer among the live ones, so it is asked for by its id."""
    unit = next(
        unit
        for unit in sorted(world.rentsync.state)
        if world.rentsync.state[unit].status_name == "Rented" and len(world.portfolio.leases_of.get(unit, ())) == 1
    )
    world.portfolio.end_lease(world.portfolio.leases_of[unit][0])
    await world.until(lambda: world.rentsync.state[unit].is_available, within=SLOT + 60)


async def test_at_local_midnight_a_date_changes_what_no_event_changes() -> None:
    """A unit whose tenants leave today is to be had at once tomorrow, without a word from the PMS."""
    world = MemoryWorld()
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

    # 12:00 UTC is 05:00 in Edmonton: nineteen hours to midnight there.
    await world.pass_time(18.9 * 3600)
    assert len(world.rentsync.accepted) == before
    await world.pass_time(0.2 * 3600)

    assert unit in [one["unit_id"] for batch in world.rentsync.accepted[before:] for one in batch.units]
    assert world.rentsync.state[unit].status_name == "Available"
    await world.stop()
