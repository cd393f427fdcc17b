"""The worlds that stories are told in."""

from collections.abc import AsyncIterator, Generator
from typing import cast

import pytest
import pytest_asyncio

from tests.world import World
from tests.world.cluster import ClusterWorld, cluster
from tests.world.memory import MemoryWorld

OF_A_CLUSTER = {"shared_cluster", "cluster_world", "bulk_world", "own_world"}
"""Fixtures that live on the session's loop, for a cluster outlives a story."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Stories on a cluster run on the session's loop, and after all others: the loop has to run for the stand-ins."""
    here = [item for item in items if "tests/stories/" in item.path.as_posix()]
    late = [item for item in here if _on_cluster(item)]
    for item in late:
        item.add_marker(pytest.mark.broker)
        item.add_marker(pytest.mark.asyncio(loop_scope="session"), append=False)
    if late:
        first = min(items.index(item) for item in here)
        others = [item for item in here if item not in late]
        items[:] = [item for item in items if item not in here]
        items[first:first] = [*others, *late]


def _on_cluster(item: pytest.Item) -> bool:
    params = item.callspec.params if hasattr(item, "callspec") else {}
    return params.get("world") == "kafka" or not OF_A_CLUSTER.isdisjoint(getattr(item, "fixturenames", ()))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """With a story that failed goes what the processes of its world said."""
    report = yield
    if report.failed and "tests/stories/" in item.path.as_posix():
        worlds = {id(one): one for one in getattr(item, "funcargs", {}).values() if isinstance(one, ClusterWorld)}
        for world in worlds.values():
            report.sections += [(f"process {name}", said) for name, said in world.outputs()]
    return report


@pytest.fixture
async def memory_world() -> AsyncIterator[MemoryWorld]:
    """A small portfolio, all of it delivered once, nothing under way."""
    world = MemoryWorld()
    await world.start()
    await world.until(lambda: len(world.rentsync.accepted) >= 4)
    await world.rest()
    yield world
    await world.stop()


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def shared_cluster(kafka: str, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[ClusterWorld]:
    """One cluster for all stories that leave it usable: two workers, a web role, a portfolio that is delivered."""
    async with cluster(
        kafka, f"{tmp_path_factory.mktemp('prefix').name}.", tmp_path_factory.mktemp("cluster")
    ) as world:
        yield world


@pytest_asyncio.fixture(loop_scope="session")
async def cluster_world(shared_cluster: ClusterWorld) -> ClusterWorld:
    """The shared cluster, mended if the story before left it in disorder; nothing under way."""
    await shared_cluster.mend()
    return shared_cluster


@pytest.fixture(params=["memory", "kafka"])
def world(request: pytest.FixtureRequest) -> World:
    """The same story in memory and on a real cluster."""
    name = {"memory": "memory_world", "kafka": "cluster_world"}[request.param]
    return cast("World", request.getfixturevalue(name))
