"""Fixtures of the stories: the worlds in which they run."""

from collections.abc import AsyncIterator, Generator
from contextlib import asynccontextmanager
from typing import cast

import pytest
import pytest_asyncio

from schemas.partitions import partition_for
from tests.world import World, receiver_matches
from tests.world.cluster import ORG_PARTITION, PARTITIONS, ClusterWorld, cluster
from tests.world.memory import MemoryWorld

NEIGHBOR = "cedar"

CLUSTER_FIXTURES = {"shared_cluster", "cluster_world", "bulk_world", "own_world"}
"""Fixtures that live on the event loop of the session, since several stories share a cluster."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Run stories on a cluster on the session's event loop, which serves the stand-ins, and after all other stories."""
    stories = [item for item in items if "tests/stories/" in item.path.as_posix()]
    on_cluster = [item for item in stories if _on_cluster(item)]
    for item in on_cluster:
        item.add_marker(pytest.mark.broker)
        item.add_marker(pytest.mark.asyncio(loop_scope="session"), append=False)
    if on_cluster:
        first = min(items.index(item) for item in stories)
        others = [item for item in stories if item not in on_cluster]
        items[:] = [item for item in items if item not in stories]
        items[first:first] = [*others, *on_cluster]


def _on_cluster(item: pytest.Item) -> bool:
    params = item.callspec.params if hasattr(item, "callspec") else {}
    return params.get("world") == "kafka" or not CLUSTER_FIXTURES.isdisjoint(getattr(item, "fixturenames", ()))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Add the output of the processes of a cluster to the report of a failed story."""
    report = yield
    if report.failed and "tests/stories/" in item.path.as_posix():
        fixtures = getattr(item, "funcargs", {}).values()
        worlds = {id(world): world for world in fixtures if isinstance(world, ClusterWorld)}
        for world in worlds.values():
            report.sections += [(f"process {name}", output) for name, output in world.outputs()]
    return report


@pytest.fixture
async def memory_world() -> AsyncIterator[MemoryWorld]:
    """A world in memory with a small portfolio that is fully delivered; idle.

    On the same partition another org has an account with the same ids, and whatever happens it gets only what is its.
    """
    world = MemoryWorld()
    await world.start()
    await world.until(lambda: len(world.rentsync.accepted) >= 4)
    async with world.beside():
        yield world
    await world.stop()


@asynccontextmanager
async def next_door(world: ClusterWorld) -> AsyncIterator[None]:
    """Have an org with the same ids on the partition of a story's org; whatever happens, it has what is its."""
    assert partition_for(NEIGHBOR, PARTITIONS) == ORG_PARTITION
    async with world.org(NEIGHBOR) as neighbor:
        await (await neighbor.enable()).aclose()
        await world.until(lambda: receiver_matches(neighbor))
        world.neighbor = neighbor
        yield
        assert receiver_matches(neighbor)
        assert set(neighbor.rentsync.statuses) == {200}


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def shared_cluster(kafka: str, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[ClusterWorld]:
    """The cluster that most stories share: two workers, a web role, and a delivered portfolio.

    On the same partition another org has an account with the same ids.
    """
    async with cluster(
        kafka, f"{tmp_path_factory.mktemp('prefix').name}.", tmp_path_factory.mktemp("cluster")
    ) as world:
        await world.reset()
        async with next_door(world):
            yield world
            await world.reset()


@pytest_asyncio.fixture(loop_scope="session")
async def cluster_world(shared_cluster: ClusterWorld) -> AsyncIterator[ClusterWorld]:
    """The shared cluster, reset after the previous story; idle. Whatever happens, the other org gets nothing of it."""
    await shared_cluster.reset()
    neighbor = shared_cluster.neighbor
    assert neighbor is not None
    accepted = len(neighbor.rentsync.accepted)
    yield shared_cluster
    assert receiver_matches(neighbor)
    assert len(neighbor.rentsync.accepted) == accepted
    assert set(neighbor.rentsync.statuses) == {200}


@pytest.fixture(params=["memory", "kafka"])
def world(request: pytest.FixtureRequest) -> World:
    """Run a story in memory and on a real cluster."""
    name = {"memory": "memory_world", "kafka": "cluster_world"}[request.param]
    return cast("World", request.getfixturevalue(name))
