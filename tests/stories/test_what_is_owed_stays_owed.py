"""What a receiver does not know goes out by itself once it can: a dead letter is a message to people, not the end."""

from typing import Any

import pytest

from connectors.rentsync.standin import Fault
from schemas import topics
from schemas.codec import decode_as
from schemas.delivery import DeliveryOutcome, DeliveryResult
from tests.world import Since, listed_rent, pick
from tests.world.memory import MemoryWorld

HEALED_WITHIN = 1800.0
"""Seconds after the outside has healed, without any other change: two sweeps of every quarter of an hour."""


async def change_rent(world: MemoryWorld, rent: int) -> int:
    unit = pick(world, "Available")
    await world.send_webhooks(world.portfolio.set_rent(unit, rent))
    return unit


async def healed(world: MemoryWorld, unit: int, rent: int) -> float:
    """Wait until the receiver knows a rent; return the seconds that it took."""
    return await world.until(lambda: listed_rent(world, unit) == rent, within=HEALED_WITHIN)


@pytest.mark.parametrize("status", [302, 400, 401, 403, 404, 409, 410, 422, 423, 429, 500, 503])
async def test_one_wrong_answer_of_whatever_kind_heals(memory_world: MemoryWorld, status: int) -> None:
    """It may come from a load balancer that knows nothing of the batch."""
    world = memory_world
    world.rentsync.answer_next(status)
    unit = await change_rent(world, 2001)
    await world.until(lambda: status in world.rentsync.statuses)
    await healed(world, unit, 2001)


@pytest.mark.parametrize("body", [b"<html>Sign in</html>", b'{"success": false}'])
async def test_a_success_that_is_none_heals(memory_world: MemoryWorld, body: bytes) -> None:
    """The receiver has not taken the batch, although it answered 200."""
    world = memory_world
    world.rentsync.plan(Fault(200, body=body), 1)
    unit = await change_rent(world, 2002)
    await healed(world, unit, 2002)


async def test_an_outage_that_outlasts_the_attempts_heals_and_is_visible_until_then(memory_world: MemoryWorld) -> None:
    """Twenty-five minutes of one property: its attempts are used up after eighteen."""
    world, since = memory_world, Since(memory_world)
    world.rentsync.answer_next(503, times=100_000)
    unit = await change_rent(world, 2003)
    await world.pass_time(25 * 60)
    calls, age = len(since.answers()), world.observed.undelivered["rentsync"]
    open_letters = _open_letters(world)
    world.rentsync.recover()
    await healed(world, unit, 2003)
    await world.pass_time(30)

    assert len(since.dead()) == 1
    assert calls <= 6
    assert age > 24 * 60
    assert world.observed.undelivered["rentsync"] == 0.0
    assert (open_letters, _open_letters(world)) == (1, 0)
    assert world.observed.facts["closed"] == 1


def _open_letters(world: MemoryWorld) -> int:
    return sum(counts["rentsync"] for counts in world.observed.open_letters.values())


async def test_a_long_outage_costs_few_calls_and_one_dead_letter(memory_world: MemoryWorld) -> None:
    """The five attempts are those of the cause; afterwards single trials look whether it has passed."""
    world, since = memory_world, Since(memory_world)
    world.rentsync.answer_next(503, times=100_000)
    unit = await change_rent(world, 2004)
    await world.pass_time(2 * 3600)
    calls = len(since.answers())
    world.rentsync.recover()
    await healed(world, unit, 2004)

    assert 5 < calls <= 5 + 2 * 6 + 2 * 4
    assert len(since.dead()) == 1
    assert since.answers().count(200) == 1


async def test_content_that_is_refused_is_tried_again_after_sweeps_and_goes_out_as_it_is_then(
    memory_world: MemoryWorld,
) -> None:
    """It makes one dead letter, and others go on."""
    world, since = memory_world, Since(memory_world)
    refused = pick(world, "Available")
    units = world.portfolio.units
    other = pick(world, lambda one: units[one.unit_id].property_id != units[refused].property_id)
    world.rentsync.plan(Fault(422, unit=refused), 3)
    await world.send_webhooks(world.portfolio.set_rent(refused, 2005))
    await world.until(lambda: 422 in since.answers())
    await world.send_webhooks(world.portfolio.set_rent(other, 2006))
    await world.until(lambda: listed_rent(world, other) == 2006)
    await world.until(lambda: listed_rent(world, refused) == 2005, within=2 * 3600)

    assert since.answers().count(422) == 3
    assert len(since.dead()) == 1


async def test_a_pause_that_is_asked_for_is_kept_and_uses_up_no_attempt(memory_world: MemoryWorld) -> None:
    """For the whole receiver: no batch of any property is sent before its end."""
    world, since = memory_world, Since(memory_world)
    world.rentsync.answer_next(429, retry_after="3600")
    first = await change_rent(world, 2007)
    await world.until(lambda: 429 in since.answers())
    second = await change_rent(world, 2008)
    await world.pass_time(3590)
    early = since.answers()
    await healed(world, first, 2007)
    await healed(world, second, 2008)

    assert early == [429]
    assert since.dead() == []
    attempts = [
        outcome.attempt
        for outcome in (decode_as(DeliveryOutcome, one.value) for one in world.read(topics.OUTCOMES.name))
        if outcome.result is DeliveryResult.ACKNOWLEDGED
    ]
    assert set(attempts) == {1}


async def test_a_batch_whose_delivery_raises_an_exception_heals(memory_world: MemoryWorld, monkeypatch: Any) -> None:
    """A bug of a connector that passes: nothing waits for an outcome that never comes."""
    world, since = memory_world, Since(memory_world)
    (worker,) = world.workers
    async with worker.clients.sink("default", "rentsync") as sink:

        async def broken(batch: object) -> None:
            del batch
            raise ValueError("a bug")

        monkeypatch.setattr(type(sink), "deliver", lambda _self, batch: broken(batch))
        unit = await change_rent(world, 2009)
        await world.until(lambda: bool(since.dead()))
        monkeypatch.undo()
    await healed(world, unit, 2009)

    assert len(since.dead()) == 1
