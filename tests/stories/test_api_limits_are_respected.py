"""Calls of an account stay within Buildium's limits: ten in flight, ten a second, and the pause after a 429."""

from collections.abc import AsyncIterator, Sequence

import pytest

from connectors.buildium.standin import Portfolio, RateLimit, bulk_portfolio
from connectors.ports import Clock
from tests.world import Since, listed_rent, receiver_matches, start_sweep
from tests.world.memory import ZONE, MemoryWorld

UNITS, PAGE = 1000, 20
LATENCY = 0.7
"""Seconds per call; long enough that ten calls overlap."""


@pytest.fixture
async def large(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[MemoryWorld]:
    """An account whose sweep takes a hundred calls, with a slow PMS that enforces its rate limit."""

    def portfolio(clock: Clock) -> Portfolio:
        return bulk_portfolio(clock, UNITS, timezone=ZONE)

    monkeypatch.setattr("connectors.buildium.source.PAGE_SIZE", PAGE)
    world = MemoryWorld(portfolio)
    world.buildium.limit = RateLimit()
    world.to_buildium.latency = LATENCY
    await world.start()
    await world.until(lambda: len(world.rentsync.accepted) >= UNITS // 100, within=120)
    await world.rest()
    async with world.beside():
        yield world
    await world.stop()


def max_in_flight(spans: Sequence[tuple[float, float]]) -> int:
    """Return the largest number of concurrent calls."""
    changes = sorted([(start, 1) for start, _ in spans] + [(end, -1) for _, end in spans])
    running = largest = 0
    for _, change in changes:
        running += change
        largest = max(largest, running)
    return largest


def max_starts(spans: Sequence[tuple[float, float]], window: float = 1.0) -> int:
    """Return the largest number of calls that started within ``window`` seconds."""
    starts = sorted(start for start, _ in spans)
    return max(sum(start <= other < start + window for other in starts) for start in starts)


async def test_a_sweep_and_webhooks_share_the_budget(large: MemoryWorld) -> None:
    """Together they use the whole limit of ten calls a second, and never exceed it."""
    world = large
    world.to_buildium.spans.clear()
    await start_sweep(world)
    await world.send_webhooks(
        tuple(event for unit in range(1, 81) for event in world.portfolio.set_rent(unit, 3000 + unit))
    )
    await world.rest()

    spans = world.to_buildium.spans
    assert receiver_matches(world)
    assert len(spans) >= 180
    assert max_in_flight(spans) <= 10
    assert 9 <= max_starts(spans) <= 10
    assert world.buildium.throttled == 0


async def test_a_webhook_does_not_wait_for_a_sweep(large: MemoryWorld) -> None:
    """Its change is delivered while the sweep still has most of its hundred calls to make."""
    world = large
    await start_sweep(world)
    await world.pass_time(1.0)
    since = Since(world)
    await world.send_webhooks(world.portfolio.set_rent(21, 3333))
    elapsed = await world.until(lambda: listed_rent(world, 21) == 3333.0, within=10)
    pages = [call for call in list(world.buildium.calls)[since.calls :] if "offset" in call.query]
    assert elapsed < LATENCY + 1.5
    assert 0 < len(pages) < 40
    await world.rest()
    pages = [call for call in list(world.buildium.calls)[since.calls :] if "offset" in call.query]
    assert len(pages) > 60


@pytest.mark.parametrize("end", ["killed", "joined by another"])
async def test_the_limit_holds_when_a_connection_changes_hands(large: MemoryWorld, end: str) -> None:
    """Amid many webhooks. A worker that had the connection before does not count on its old budget either."""
    world = large
    world.to_buildium.latency = 0.05
    world.start_workers(1)
    await world.pass_time(10)
    world.to_buildium.spans.clear()
    for round_ in range(3):
        await world.send_webhooks(
            tuple(event for unit in range(1, 61) for event in world.portfolio.set_rent(unit, 4000 + 10 * round_ + unit))
        )
        await world.pass_time(1.7)
        if end == "killed":
            await world.kill_worker()
            world.start_workers(1)
        else:
            world.start_workers(1)
        await world.pass_time(2)
    await world.rest()

    assert receiver_matches(world)
    assert max_starts(world.to_buildium.spans) <= 10
    assert world.buildium.throttled == 0


async def test_a_429_pauses_all_calls_of_the_connection(large: MemoryWorld) -> None:
    """No call starts before the Retry-After has passed."""
    world, since = large, Since(large)
    world.to_buildium.latency = 0.0
    await world.pass_time(5)
    world.to_buildium.spans.clear()
    world.buildium.fail(429, times=1, retry_after="5")
    await world.send_webhooks(
        tuple(event for unit in range(1, 9) for event in world.portfolio.set_rent(unit, 3100 + unit))
    )
    await world.rest()

    refused = next(call.at for call in list(world.buildium.calls)[since.calls :] if call.status == 429)
    later = [start for start, _ in world.to_buildium.spans if start > refused + 0.01]
    assert later
    assert min(later) >= refused + 5
    assert receiver_matches(world)
    assert since.dead() == []
