"""``rentstream sync``: what is asked for, what is printed, and how it ends."""

import asyncio
from collections.abc import AsyncIterator, Sequence

import pytest

from schemas import topics
from schemas.codec import decode
from schemas.delivery import DeliveryDue, DueReason
from schemas.pms import FetchOrigin, FetchRequest
from streams.core.sweep import asked_sweep_id
from streams.directory.model import Conflict, NotFound
from streams.roles.manage import ManageFailed, ManageRefused
from streams.roles.sync import UNSTARTED, Request, sync
from tests.world.memory import MemoryWorld

ORG, PMS = "acme", "buildium"


@pytest.fixture
async def world() -> AsyncIterator[MemoryWorld]:
    """Yield a world with one org, whose receiver knows everything."""
    async with MemoryWorld(environment=False) as world:
        await world.add_delivered_orgs(ORG)
        yield world


async def run(world: MemoryWorld, **what: object) -> tuple[bool, list[str]]:
    """Run the command; return whether it succeeded, and its lines."""
    lines: list[str] = []
    request = Request(**{"org": ORG, **what})  # type: ignore[arg-type]
    ended = await world.managed(sync(world.integrations, request, world.clock, lines.append))
    return ended, lines


def written(world: MemoryWorld, topic: str) -> Sequence[object]:
    """Return the records of the org on a topic."""
    found = [decode(record.value) for record in world.broker.read(topic)]
    return [one for one in found if getattr(one, "org", None) == ORG]


async def test_a_full_read_is_reported_until_its_end(world: MemoryWorld) -> None:
    site = world.sites[ORG]
    unit = min(site.portfolio.units)
    site.portfolio.set_rent(unit, 1901)
    site.to_buildium.latency = 0.4
    ended, lines = await run(world)

    assert ended
    assert lines[0] == "buildium: a full read is asked for"
    assert "buildium: stage 2 of 4, units 0" in lines
    assert lines[-1] == "buildium: done"
    await world.rest()
    assert site.rentsync.state[unit].base_rent == 1901.0


async def test_it_need_not_be_waited_for(world: MemoryWorld) -> None:
    assert await run(world, wait=False) == (True, ["buildium: a full read is asked for"])


async def test_a_read_that_fails_is_a_failure_with_its_reason(world: MemoryWorld) -> None:
    """The credentials may not read units."""
    world.sites[ORG].buildium.deny("units")
    ended, lines = await run(world)

    assert not ended
    assert lines[-1].startswith("buildium: failed (")


async def test_without_a_worker_the_command_shows_that_it_waits(world: MemoryWorld) -> None:
    for worker in world.workers:
        await worker.kill()
    lines: list[str] = []
    task = asyncio.ensure_future(sync(world.integrations, Request(ORG), world.clock, lines.append))
    await world.clock.advance(UNSTARTED + 1)
    task.cancel()

    assert lines[1:] == ["buildium: no worker has begun yet; the request stays until one does"]


async def test_a_request_during_another_sweep_is_fulfilled_after_it(world: MemoryWorld) -> None:
    """It waits on a rung; the end of the other sweep is not taken for its own."""
    site = world.sites[ORG]
    site.to_buildium.latency = 5.0
    await world.managed(world.integrations.sweep(ORG, PMS))
    await world.pass_time(2.0)
    began = world.clock.now()
    lines: list[str] = []
    task = asyncio.ensure_future(sync(world.integrations, Request(ORG), world.clock, lines.append))
    await world.until(task.done, within=600)
    state = await world.state(ORG, PMS)

    assert (task.result(), lines[-1]) == (True, "buildium: done")
    assert (world.clock.now() - began).total_seconds() > 60
    assert state.last_sweep is not None
    assert state.last_sweep > asked_sweep_id(began)


async def test_one_property_is_read_with_all_that_belongs_to_it(world: MemoryWorld) -> None:
    """Without a full read; what disappeared is found as well."""
    site = world.sites[ORG]
    rented = next(unit for unit, one in sorted(site.rentsync.state.items()) if one.status_name == "Rented")
    number = site.portfolio.units[rented].property_id
    for lease in tuple(site.portfolio.leases_of[rented]):
        site.portfolio.remove_lease(lease)
    sweeps = len(world.broker.read(topics.SWEEPS.name))
    ended, lines = await run(world, property_id=number)
    await world.until(lambda: site.rentsync.state[rented].is_available)

    assert (ended, len(lines)) == (True, 1)
    assert f"property {number} is read now" in lines[0]
    assert len(world.broker.read(topics.SWEEPS.name)) == sweeps
    request, due = written(world, topics.WEBHOOKS.name)[-1], written(world, topics.DUE.name)
    asked = [one for one in written(world, topics.WEBHOOKS.name) if getattr(one, "origin", None) is FetchOrigin.ASKED]
    assert isinstance(request, FetchRequest)
    assert len(asked) == 1
    assert any(isinstance(one, DeliveryDue) and one.reason is DueReason.ASKED for one in due)


async def test_what_cannot_be_read_is_refused_with_a_reason(world: MemoryWorld) -> None:
    with pytest.raises(ManageRefused, match=r"acme has no connection rentsync; it has: buildium$"):
        await run(world, connection="rentsync")
    with pytest.raises(ManageFailed, match=r"other has no enabled connection; it has: none\."):
        await run(world, org="other")
    await world.store(ORG, "second", world.buildium_of(world.sites[ORG]))
    await world.enable(ORG, "second")
    with pytest.raises(ManageRefused, match=r"add --connection with one of buildium, second$"):
        await run(world, property_id=1)
    await world.disable(ORG, "second")
    with pytest.raises(Conflict, match="second is disabled: enable it first"):
        await run(world, connection="second")
    with pytest.raises(NotFound):
        await world.managed(world.integrations.sweep(ORG, "third"))
    with pytest.raises(Conflict, match="rentsync is a receiver"):
        await world.managed(world.integrations.refresh_property(ORG, "rentsync", 1))
