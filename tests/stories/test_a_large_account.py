"""A sweep of an account of some thousand units, disturbed; and what a worker says of itself while tables recover."""

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
from tests.world import Since, receiver_is_equal, rent_told, sweep
from tests.world.cluster import ClusterWorld, cluster

UNITS = 4000
LEASES = r"/v1/leases"
"""The list that comes after those of properties and units."""


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def large_cluster(kafka: str, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[ClusterWorld]:
    def portfolio(clock: Clock) -> Portfolio:
        return bulk_portfolio(clock, UNITS, timezone=ZONE)

    folder: Path = tmp_path_factory.mktemp("large")
    async with cluster(kafka, f"{folder.name}-{date.today():%j}.", folder, portfolio) as world:  # noqa: DTZ011
        yield world


@pytest_asyncio.fixture(loop_scope="session")
async def bulk_world(large_cluster: ClusterWorld) -> ClusterWorld:
    await large_cluster.mend(workers=1)
    return large_cluster


def lists(world: ClusterWorld, since: Since) -> Counter[str]:
    """How often each page of each list was asked for."""
    calls = list(world.buildium.calls)[since.calls :]
    return Counter(
        f"{call.path} {dict(pair.split('=', 1) for pair in call.query.split('&'))['offset']}"
        for call in calls
        if "offset=" in call.query
    )


async def test_its_first_sweep_leads_to_the_receiver(bulk_world: ClusterWorld) -> None:
    """Forty properties of a hundred units: forty snapshots."""
    world = bulk_world
    await world.until(lambda: receiver_is_equal(world))
    assert len(world.rentsync.accepted) == UNITS // 100


async def test_a_sweep_goes_on_where_it_was_when_its_worker_was_killed(bulk_world: ClusterWorld) -> None:
    """No list that was read to its end is read again; the step that was under way is, and nothing is missed."""
    world, since = bulk_world, Since(bulk_world)
    world.portfolio.set_rent(UNITS, 7001)
    world.portfolio.set_rent(1, 7002)
    world.gate.close(LEASES)
    await sweep(world)
    await world.until(lambda: world.gate.waiting > 0)
    await world.kill(await world.owner("readers"))
    await world.start(1)
    world.gate.open()
    await world.rest()

    asked = lists(world, since)
    assert {path: asked[path] for path in asked if not path.startswith("/v1/leases")} == {
        "/v1/rentals 0": 1,
        **{f"/v1/rentals/units {offset}": 1 for offset in range(0, UNITS, 1000)},
        "/v1/rentals/units/listings 0": 1,
    }
    assert asked["/v1/leases 0"] == 2
    assert asked["/v1/leases 1000"] == 1
    assert receiver_is_equal(world)
    assert sum(map(len, since.batches())) == 2


async def test_notices_are_served_while_a_sweep_runs(bulk_world: ClusterWorld) -> None:
    world = bulk_world
    world.gate.close(LEASES)
    await sweep(world)
    await world.until(lambda: world.gate.waiting > 0)
    since = Since(world)
    await world.tell(world.portfolio.set_rent(77, 7003))
    await world.until(lambda: rent_told(world, 77) == 7003.0)
    assert not lists(world, since)
    world.gate.open()
    await world.rest()
    assert lists(world, since)["/v1/rentals/units/listings 0"] == 1


async def test_the_pages_of_a_worker_answer_while_its_tables_recover(bulk_world: ClusterWorld) -> None:
    """It lives and is measured from the start; it is ready when it has its tables."""
    world = bulk_world
    (worker,) = world.workers
    await world.kill(worker)
    shutil.rmtree(world.folder / "data" / "workers")
    new = world.start_worker()
    seen: Counter[tuple[str, int]] = Counter()
    reasons: set[str] = set()

    async def is_ready() -> bool:
        for path in ("/healthz", "/metrics", "/readyz"):
            answer = await world.page(new, path)
            if answer is None:
                assert not seen, "the pages went away"
                return False
            seen[path, answer.status_code] += 1
            if path == "/readyz":
                reasons.add(answer.json()["detail"])
        return answer is not None and answer.status_code == 200

    await world.eventually(is_ready, "it is ready", every=0.02)

    assert set(seen) == {("/healthz", 200), ("/metrics", 200), ("/readyz", 503), ("/readyz", 200)}
    assert reasons & {"it is starting", "partitions move or tables recover"}
    since = Since(world)
    await world.tell(world.portfolio.set_rent(78, 7004))
    await world.until(lambda: rent_told(world, 78) == 7004.0)
    await world.rest()
    assert [set(batch) for batch in since.batches()] == [{78}]
