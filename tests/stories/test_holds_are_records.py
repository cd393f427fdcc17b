"""A receiver or an account that cannot be used is on hold: visible, remembered over a restart, ended by a person."""

from datetime import timedelta

import pytest

from connectors.buildium.standin import bulk_portfolio
from schemas import topics
from streams.core import breaker
from streams.core.breaker import FAILURES, REJECTIONS
from tests.world import listed_rent, pick, receiver_matches
from tests.world.cluster import ClusterWorld
from tests.world.memory import MemoryWorld

SINK, SOURCE = "rentsync", "buildium"


async def hold_of(world: MemoryWorld, name: str) -> str | None:
    return (await world.state("default", name)).hold


async def refuse(world: MemoryWorld, status: int = 401) -> int:
    """Let the receiver refuse everything, and change a rent; return the unit."""
    unit = pick(world, "Available")
    world.rentsync.answer_next(status, times=100_000)
    await world.send_webhooks(world.portfolio.set_rent(unit, 2001))
    await world.until(lambda: status in world.rentsync.statuses)
    return unit


@pytest.mark.parametrize("status", [401, 403, 404, 410])
async def test_a_receiver_that_refuses_is_visibly_on_hold(memory_world: MemoryWorld, status: int) -> None:
    world = memory_world
    assert await hold_of(world, SINK) is None
    await refuse(world, status)
    await world.pass_time(2)

    hold = await hold_of(world, SINK)
    assert hold is not None
    assert f"RentSync answered {status}" in hold
    assert "correct the configuration" in hold
    assert world.workers[0].known.directory.held_systems() == {"rentsync"}
    assert await hold_of(world, SOURCE) is None
    world.rentsync.recover()
    await world.until(lambda: receiver_matches(world), within=1200)
    await world.until(lambda: not world.workers[0].known.directory.held_systems())
    assert await hold_of(world, SINK) is None


async def test_a_hold_survives_a_restart_and_uses_up_no_attempt(memory_world: MemoryWorld) -> None:
    """Nothing is sent before the time of the next trial; what goes out afterwards is the newest state, once."""
    world = memory_world
    world.rentsync.answer_next(429, times=1, retry_after="1800")
    unit = pick(world, "Available")
    await world.send_webhooks(world.portfolio.set_rent(unit, 2002))
    await world.until(lambda: 429 in world.rentsync.statuses)
    await world.pass_time(2)
    calls, accepted = len(world.rentsync.statuses), len(world.rentsync.accepted)
    await world.restart()
    await world.send_webhooks(world.portfolio.set_rent(unit, 2003))
    await world.pass_time(1700)

    assert len(world.rentsync.statuses) == calls
    assert "429" in (await hold_of(world, SINK) or "")
    await world.until(lambda: listed_rent(world, unit) == 2003.0, within=900)
    await world.rest()
    assert len(world.rentsync.accepted) == accepted + 1
    assert world.read(topics.DEAD_LETTERS.name) == []


async def test_a_person_ends_a_hold_so_that_the_next_call_is_tried(memory_world: MemoryWorld) -> None:
    """By a full read of the account: what waits goes out within the delay of its rung, and not after two hours."""
    world = memory_world
    world.rentsync.answer_next(429, times=1, retry_after="7200")
    unit = pick(world, "Available")
    await world.send_webhooks(world.portfolio.set_rent(unit, 2004))
    await world.until(lambda: 429 in world.rentsync.statuses)
    await world.pass_time(2)
    await world.managed(world.integrations.sweep("default", SOURCE))
    assert await hold_of(world, SINK) is None
    await world.send_webhooks(world.portfolio.set_rent(unit, 2005))

    assert await world.until(lambda: listed_rent(world, unit) == 2005.0, within=660) <= 600
    await world.rest()
    assert world.rentsync.statuses.count(429) == 1


async def test_an_account_that_is_away_is_on_hold_and_its_first_answer_ends_that(memory_world: MemoryWorld) -> None:
    world = memory_world
    world.buildium.fail(503, times=100_000)
    units = [pick(world, lambda _: True) for _ in range(FAILURES)]
    for number, unit in enumerate(units):
        await world.send_webhooks(world.portfolio.set_rent(unit, 2100 + number))
    await world.pass_time(60)
    assert "503" in (await hold_of(world, SOURCE) or "")
    assert await hold_of(world, SINK) is None

    world.buildium.faults.clear()
    await world.until(lambda: receiver_matches(world), within=1800)
    assert await hold_of(world, SOURCE) is None


async def test_what_comes_back_is_called_step_by_step(memory_world: MemoryWorld) -> None:
    """After the trial at most two calls at once, then four and eight, although much more has waited."""
    world = memory_world
    world.buildium.fail(503, times=100_000)
    units = sorted(world.portfolio.units)
    for number, unit in enumerate(units):
        await world.send_webhooks(world.portfolio.set_rent(unit, 2200 + number))
    await world.pass_time(60)
    world.buildium.faults.clear()
    world.to_buildium.latency = 0.05
    world.to_buildium.spans.clear()
    await world.until(lambda: receiver_matches(world), within=1800)

    most, overlaps = 0, list[int]()
    for began, _ in sorted(world.to_buildium.spans)[:8]:
        at_once = sum(start <= began < end for start, end in world.to_buildium.spans)
        overlaps.append(at_once)
        most = max(most, at_once)
    assert overlaps[0] == 1
    assert max(overlaps[:3]) <= 2
    assert most <= 4


async def test_a_receiver_that_rejects_everything_alike_is_on_hold(memory_world: MemoryWorld) -> None:
    """What comes after the first dead letters waits; when the receiver takes it, all of it goes out."""
    world = memory_world
    site = await world.add_org("maple", bulk_portfolio(world.clock, 80, per_property=2), enabled=False)
    site.rentsync.answer_next(422, times=100_000)
    await world.enable("maple", SINK)
    await world.enable("maple", SOURCE)
    await world.until(lambda: site.rentsync.statuses.count(422) >= REJECTIONS)
    await world.pass_time(120)

    assert len(world.read(topics.DEAD_LETTERS.name)) == REJECTIONS - 1
    assert "422" in ((await world.state("maple", SINK)).hold or "")
    assert len(site.rentsync.statuses) < 2 * REJECTIONS
    site.rentsync.recover()
    await world.until(lambda: receiver_matches(site), within=3600)
    assert (await world.state("maple", SINK)).hold is None
    assert len(world.read(topics.DEAD_LETTERS.name)) == REJECTIONS - 1


async def test_a_hold_is_that_of_one_configuration(memory_world: MemoryWorld) -> None:
    """Another version of it is used at once, and shows no hold."""
    world = memory_world
    (site,) = await world.add_delivered_orgs("maple")
    site.rentsync.answer_next(401, times=100_000)
    unit = min(site.portfolio.units)
    site.portfolio.set_rent(unit, 2006)
    await world.managed(world.integrations.sweep("maple", SOURCE))
    await world.until(lambda: 401 in site.rentsync.statuses)
    await world.pass_time(2)
    assert (await world.state("maple", SINK)).hold is not None

    site.rentsync.recover()
    body = world.rentsync_of(site)
    await world.store("maple", SINK, body)
    changed = await world.state("maple", SINK)
    await world.until(lambda: receiver_matches(site), within=1200)
    await world.pass_time(2)
    assert (await world.state("maple", SINK)).hold is None
    assert changed.version >= 1


async def test_a_hold_of_a_worker_whose_clock_was_ahead_ends_in_time(
    memory_world: MemoryWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After the longest hold, which is a day; here it is shorter, since a day of the whole world takes long."""
    longest = timedelta(hours=2)
    monkeypatch.setattr(breaker, "LONGEST_HOLD", longest)
    world = memory_world
    world.rentsync.answer_next(429, times=1, retry_after="60")
    await world.kill_worker()
    world.skew = timedelta(days=3)
    world.start_workers()
    unit = pick(world, "Available")
    await world.send_webhooks(world.portfolio.set_rent(unit, 2007))
    await world.until(lambda: 429 in world.rentsync.statuses)
    await world.pass_time(2)
    world.skew = timedelta()
    await world.restart()
    began = world.clock.now()
    while listed_rent(world, unit) != 2007.0:
        await world.pass_time(60)
        assert world.clock.now() - began < longest + timedelta(minutes=30)


async def test_a_hold_is_in_the_api_and_in_the_metrics_of_every_process(cluster_world: ClusterWorld) -> None:
    world = cluster_world
    processes = [*world.workers, *world.webs]

    async def held() -> list[bool]:
        """Return what each process has in its metric."""
        texts = [await world.probe(process, "/metrics") for process in processes]
        return ['rentstream_receiver_hold{sink="rentsync"} 1.0' in one.text for one in texts if one is not None]

    async def shown() -> str | None:
        answer = await world.call_api("GET", "/api/integrations/rentsync", "default")
        hold: str | None = answer.json()["hold"]
        return hold

    assert await held() == [False] * len(processes)
    unit = pick(world, "Available")
    world.rentsync.answer_next(401, times=100_000)
    await world.send_webhooks(world.portfolio.set_rent(unit, 2011))

    async def is_held() -> bool:
        return all(await held()) and "401" in (await shown() or "")

    await world.eventually(is_held, "the hold in every process", every=0.2)
    world.rentsync.recover()
    await world.until(lambda: listed_rent(world, unit) == 2011.0, within=300)

    async def is_over() -> bool:
        return not any(await held()) and await shown() is None

    await world.eventually(is_over, "the end of the hold", every=0.2)
