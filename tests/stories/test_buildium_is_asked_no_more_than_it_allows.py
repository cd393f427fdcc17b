"""Ten calls at once and ten starts a second are all that an account allows; a 429 slows everyone down."""

from collections.abc import AsyncIterator, Sequence

import pytest

from connectors.buildium.standin import Portfolio, RateLimit, bulk_portfolio
from connectors.ports import Clock
from tests.world import Since, receiver_is_equal, rent_told, sweep
from tests.world.memory import ZONE, MemoryWorld

UNITS, PAGE = 1000, 20
LATENCY = 0.7
"""Seconds: long enough that calls overlap, or ten at once would never be tested."""


@pytest.fixture
async def large(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[MemoryWorld]:
    """An account whose sweep takes a hundred calls, behind a PMS that is slow and strict."""

    def portfolio(clock: Clock) -> Portfolio:
        return bulk_portfolio(clock, UNITS, timezone=ZONE)

    monkeypatch.setattr("connectors.buildium.source.PAGE_SIZE", PAGE)
    world = MemoryWorld(portfolio)
    world.buildium.limit = RateLimit()
    world.to_buildium.latency = LATENCY
    await world.start()
    await world.until(lambda: len(world.rentsync.accepted) >= UNITS // 100, within=120)
    await world.rest()
    yield world
    await world.stop()


def most_at_once(spans: Sequence[tuple[float, float]]) -> int:
    """How many calls were in flight together."""
    turns = sorted([(began, 1) for began, _ in spans] + [(ended, -1) for _, ended in spans])
    running = most = 0
    for _, change in turns:
        running += change
        most = max(most, running)
    return most


def most_starts(spans: Sequence[tuple[float, float]], window: float = 1.0) -> int:
    """How many calls began within any second."""
    began = sorted(began for began, _ in spans)
    return max(sum(at <= other < at + window for other in began) for at in began)


async def test_a_sweep_and_notices_together_stay_within_the_budget(large: MemoryWorld) -> None:
    """And use it: while there is work, ten calls begin in a second."""
    world = large
    world.to_buildium.spans.clear()
    await sweep(world)
    await world.tell(tuple(event for unit in range(1, 81) for event in world.portfolio.set_rent(unit, 3000 + unit)))
    await world.rest()

    spans = world.to_buildium.spans
    assert receiver_is_equal(world)
    assert len(spans) >= 180
    assert most_at_once(spans) <= 10
    assert 9 <= most_starts(spans) <= 10
    assert world.buildium.throttled == 0


async def test_a_notice_does_not_wait_for_a_sweep(large: MemoryWorld) -> None:
    """The sweep has most of its hundred calls before it when the notice's change is told."""
    world = large
    await sweep(world)
    await world.pass_time(1.0)
    since = Since(world)
    await world.tell(world.portfolio.set_rent(21, 3333))
    took = await world.until(lambda: rent_told(world, 21) == 3333.0, within=10)
    pages = [call for call in list(world.buildium.calls)[since.calls :] if "offset" in call.query]
    assert took < LATENCY + 1.5
    assert 0 < len(pages) < 40
    await world.rest()
    pages = [call for call in list(world.buildium.calls)[since.calls :] if "offset" in call.query]
    assert len(pages) > 60


async def test_a_429_slows_everyone_down(large: MemoryWorld) -> None:
    """Nobody on the connection starts a call until the pause that Buildium asked for is over."""
    world, since = large, Since(large)
    world.to_buildium.latency = 0.0
    await world.pass_time(5)
    world.to_buildium.spans.clear()
    world.buildium.fail(429, times=1, retry_after="5")
    await world.tell(tuple(event for unit in range(1, 9) for event in world.portfolio.set_rent(unit, 3100 + unit)))
    await world.rest()

    refused = next(call.at for call in list(world.buildium.calls)[since.calls :] if call.status == 429)
    later = [began for began, _ in world.to_buildium.spans if began > refused + 0.01]
    assert later
    assert min(later) >= refused + 5
    assert receiver_is_equal(world)
    assert since.dead() == []
