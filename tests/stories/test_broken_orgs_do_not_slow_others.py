"""Of fifty orgs three are broken: the others get their changes as fast as without them, and keep their records."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from connectors.buildium.standin import Portfolio, bulk_portfolio, seed_portfolio
from schemas import topics
from schemas.partitions import partition_for
from tests.world import asking_rent, listed_rent, receiver_matches
from tests.world.memory import ZONE, MemoryWorld, Site

SILENT, FAILING, SLOW = BROKEN = ("org-01", "org-02", "org-03")
"""An account that never answers, one that answers 500, and a receiver that runs into its time-out."""
ORGS = tuple(f"org-{number:02}" for number in range(50))
HEALTHY = tuple(org for org in ORGS if org not in BROKEN)
GIVE_UP = 30.0
"""Seconds after which a client does not wait any more."""
HEAD_START = 15.0
"""Seconds in which the calls of the broken ones gather, before the others change."""
PAUSES = (GIVE_UP, 1.0)
"""Seconds after each round of changes. Before the second one the first calls of the broken ones were given up."""
LATENCY = 0.1
"""Seconds that each call takes."""


SIZES = {SILENT: (600, 100), FAILING: (16, 2), SLOW: (140, 1)}
"""Units of the broken ones, and how many each property has: more than a worker would call at a time, if it could."""


def portfolio(world: MemoryWorld, org: str) -> Portfolio:
    if org in BROKEN:
        units, per_property = SIZES[org]
        return bulk_portfolio(world.clock, units, per_property=per_property, timezone=ZONE)
    return seed_portfolio(world.clock, properties=2, units=6, timezone=ZONE)


@dataclass(slots=True)
class Run:
    """What one run measured."""

    seconds: list[float] = field(default_factory=list)
    """From the webhook to the receiver, of each change of each healthy org."""
    dead: set[bytes | None] = field(default_factory=set)
    """Orgs with dead letters."""
    breakers: dict[tuple[str, str], str] = field(default_factory=dict)


async def break_them(world: MemoryWorld) -> None:
    for org in (SILENT, FAILING):
        await world.store(org, "buildium", world.buildium_of(world.sites[org], retryAttempts=1))
    world.sites[SILENT].to_buildium.silent_for = GIVE_UP
    world.sites[FAILING].buildium.fail(500, times=1_000_000)
    world.sites[SLOW].to_rentsync.silent_for = GIVE_UP


async def change(world: MemoryWorld, orgs: Sequence[str], rent: int, most: int) -> None:
    """Change so many units of each org."""
    for org in orgs:
        site = world.sites[org]
        for unit in sorted(site.portfolio.units)[:most]:
            await world.send_webhooks(site.portfolio.set_rent(unit, rent), org=org)


async def run(*, broken: bool) -> Run:
    """Let fifty orgs change again and again, with or without three of them broken."""
    measured = Run()
    async with MemoryWorld(environment=False) as world:
        for org in ORGS:
            await world.add_org(org, portfolio(world, org))
        await world.until(lambda: all(receiver_matches(site) for site in world.sites.values() if site.org != "default"))
        await world.rest()
        for org in ORGS:
            world.sites[org].to_buildium.latency = world.sites[org].to_rentsync.latency = LATENCY
        if broken:
            await break_them(world)
        for turn, pause in enumerate(PAUSES):
            await change(world, BROKEN, 3000 + turn, 600)
            await world.pass_time(HEAD_START)
            await change(world, HEALTHY, 3000 + turn, 2)
            began, waiting = world.clock.monotonic(), {org: world.sites[org] for org in HEALTHY}
            while waiting:
                await world.pass_time(0.1)
                for org in [org for org, site in waiting.items() if arrived(site)]:
                    del waiting[org]
                    measured.seconds.append(world.clock.monotonic() - began)
                assert world.clock.monotonic() - began < 60
            await world.pass_time(pause)
        measured.dead = {record.key for record in world.read(topics.DEAD_LETTERS.name)}
        measured.breakers = dict(world.observed.breakers)
    return measured


def arrived(site: Site) -> bool:
    units = sorted(site.portfolio.units)[:2]
    return all(listed_rent(site, unit) == asking_rent(site, unit) for unit in units)


async def test_the_others_are_as_fast_and_only_the_broken_ones_are_held() -> None:
    """Every partition has some of them, and the broken ones share theirs with others."""
    assert {partition_for(org, 4) for org in HEALTHY} == {0, 1, 2, 3}
    alone, beside = await run(broken=False), await run(broken=True)

    assert len(beside.seconds) == len(alone.seconds) == len(PAUSES) * len(HEALTHY)
    assert max(beside.seconds) <= max(alone.seconds) + 0.1
    assert sum(beside.seconds) <= sum(alone.seconds) * 1.05
    assert beside.dead == alone.dead == set()
    assert alone.breakers == {}
    assert set(beside.breakers) == {(SILENT, "buildium"), (FAILING, "buildium"), (SLOW, "rentsync")}
    assert set(beside.breakers.values()) <= {"open", "half_open"}
