"""An account with thousands of units is swept despite interruptions, and probes answer while tables recover."""

import shutil
from collections import Counter
from collections.abc import AsyncIterator
from datetime import date
from pathlib import Path

import pytest
import pytest_asyncio

from connectors.buildium.standin import Portfolio, bulk_portfolio
from connectors.ports import Clock
from streams.local.demo import ZONE
from tests.stories.conftest import next_door
from tests.world import Since, listed_rent, receiver_matches, start_sweep
from tests.world.cluster import ClusterWorld, cluster

UNITS = 4000
LEASES = r"/v1/leases"
"""The path of the list that a sweep reads after properties and units."""


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def large_cluster(kafka: str, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[ClusterWorld]:
    def portfolio(clock: Clock) -> Portfolio:
        return bulk_portfolio(clock, UNITS, timezone=ZONE)

    folder: Path = tmp_path_factory.mktemp("large")
    async with cluster(kafka, f"{folder.name}-{date.today():%j}.", folder, portfolio) as world:  # noqa: DTZ011
        await world.reset(workers=1)
        async with next_door(world):
            yield world


@pytest_asyncio.fixture(loop_scope="session")
async def bulk_world(large_cluster: ClusterWorld) -> ClusterWorld:
    await large_cluster.reset(workers=1)
    return large_cluster


def page_calls(world: ClusterWorld, since: Since) -> Counter[str]:
    """Return how often each page of each list was requested."""
    calls = list(world.buildium.calls)[since.calls :]
    return Counter(
        f"{call.path} {dict(pair.split('=', 1) for pair in call.query.split('&'))['offset']}"
        for call in calls
        if "offset=" in call.query
    )


async def test_the_first_sweep_is_delivered_completely(bulk_world: ClusterWorld) -> None:
    """Forty properties with a hundred units each lead to forty snapshots."""
    world = bulk_world
    await world.until(lambda: receiver_matches(world))
    assert len(world.rentsync.accepted) == UNITS // 100


async def test_a_sweep_resumes_after_its_worker_was_killed(bulk_world: ClusterWorld) -> None:
    """Only the interrupted step is read again, and no change is missed."""
    world, since = bulk_world, Since(bulk_world)
    world.portfolio.set_rent(UNITS, 7001)
    world.portfolio.set_rent(1, 7002)
    world.gate.close(LEASES)
    await start_sweep(world)
    await world.until(lambda: world.gate.waiting > 0)
    await world.kill(await world.owner("readers"))
    await world.start(1)
    world.gate.open()
    await world.rest()

    calls = page_calls(world, since)
    assert {path: calls[path] for path in calls if not path.startswith("/v1/leases")} == {
        "/v1/rentals 0": 1,
        **{f"/v1/rentals/units {offset}": 1 for offset in range(0, UNITS, 1000)},
        "/v1/rentals/units/listings 0": 1,
    }
    assert calls["/v1/leases 0"] == 2
    assert calls["/v1/leases 1000"] == 1
    assert receiver_matches(world)
    assert sum(map(len, since.batches())) == 2


async def test_webhooks_are_processed_during_a_sweep(bulk_world: ClusterWorld) -> None:
    world = bulk_world
    world.gate.close(LEASES)
    await start_sweep(world)
    await world.until(lambda: world.gate.waiting > 0)
    since = Since(world)
    await world.send_webhooks(world.portfolio.set_rent(77, 7003))
    await world.until(lambda: listed_rent(world, 77) == 7003.0)
    assert not page_calls(world, since)
    world.gate.open()
    await world.rest()
    assert page_calls(world, since)["/v1/rentals/units/listings 0"] == 1


async def test_the_probes_of_a_worker_answer_while_its_tables_recover(bulk_world: ClusterWorld) -> None:
    """Health and metrics are there from the start; the worker is ready when its tables are."""
    world = bulk_world
    (worker,) = world.workers
    await world.kill(worker)
    shutil.rmtree(world.folder / "data" / "workers")
    new = world.start_worker()
    seen: Counter[tuple[str, int]] = Counter()
    reasons: set[str] = set()

    async def is_ready() -> bool:
        for path in ("/healthz", "/metrics", "/readyz"):
            response = await world.probe(new, path)
            if response is None:
                assert not seen, "the probes stopped answering"
                return False
            seen[path, response.status_code] += 1
            if path == "/readyz":
                reasons.add(response.json()["detail"])
        return response is not None and response.status_code == 200

    await world.eventually(is_ready, "the worker is ready", every=0.02)

    assert set(seen) == {("/healthz", 200), ("/metrics", 200), ("/readyz", 503), ("/readyz", 200)}
    assert reasons & {"it is starting", "a rebalance or a recovery of tables is in progress"}
    since = Since(world)
    await world.send_webhooks(world.portfolio.set_rent(78, 7004))
    await world.until(lambda: listed_rent(world, 78) == 7004.0)
    await world.rest()
    assert [set(batch) for batch in since.batches()] == [{78}]
