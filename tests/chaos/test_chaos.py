"""A short chaos run; ``python -m tests.chaos`` makes longer ones."""

import asyncio
import contextlib
import re
import signal
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from streams.local.embedded_kafka import EmbeddedKafka
from tests.chaos.cluster import NODES, Cluster
from tests.chaos.kafka import Load, drained, in_sync, last_values, make_topics, wait_until
from tests.chaos.proxy import Direction, Link, ProxiedKafka, Proxy
from tests.chaos.scenario import Plan, Workers, run
from tests.chaos.tally import ROW, topics
from tests.world.cluster import free_port

pytestmark = [pytest.mark.broker, pytest.mark.chaos]


async def test_random_kills_and_stops_lose_and_duplicate_nothing(kafka: str, tmp_path: Path) -> None:
    """Workers are killed, stopped and restarted at random under load, with tables on disk."""
    plan = Plan(bootstrap=kafka, seed=3, rounds=4, kinds=("KILL", "KILL", "TERM"), pause=(0.3, 2.5), rate=800)

    report = await run(plan, tmp_path)

    assert report.exact, report
    assert not [code for code in report.exits if code.startswith(("unexpected", "TERM None"))], report


@dataclass(frozen=True)
class Scene:
    """Workers under load."""

    workers: Workers
    load: Load
    topics: list[str]
    """The topics that the load and the workers write, changelogs included."""


@asynccontextmanager
async def under_load(
    plan: Plan, folder: Path, name: str, *, addresses: Mapping[str, str | None], seed: int, replication: int = 1
) -> AsyncIterator[Scene]:
    """Run workers, each at its address of the broker or at that of the plan, under load, while the block runs.

    Afterwards everything that was produced has to be processed, exactly once, by workers that never ended.
    """
    events, echoes = topics(name)
    changelogs = [f"{name}-tally-changelog", f"{name}-echo-changelog"]
    await make_topics(plan.bootstrap, plan.partitions, [events, echoes], changelogs, replication)
    workers = Workers(plan, name, folder)
    load = Load(plan.bootstrap, events, partitions=plan.partitions, keys=400, rate=plan.rate, seed=seed)
    try:
        for worker, address in addresses.items():
            await workers.start(worker, address)
        load.start()
        await wait_until(lambda: _balanced(workers, plan), 60)
        await asyncio.sleep(1)
        yield Scene(workers, load, [events, echoes, *changelogs])
        await load.stop()
        with contextlib.suppress(TimeoutError):
            await wait_until(lambda: drained(plan.bootstrap, name, [events, echoes], plan.partitions), 60, 0.5)
        assert [process.returncode for process in workers.running.values()] == [None] * len(addresses)
        assert [await workers.signal(worker, signal.SIGTERM) for worker in addresses] == [0] * len(addresses)
    finally:
        await workers.close()
    tallies = await last_values(plan.bootstrap, changelogs[0], plan.partitions)
    assert {key: ROW.unpack(row) for key, row in tallies.items()} == load.expected


TWO: Mapping[str, str | None] = {"w1": None, "w2": None}


async def test_a_frozen_worker_writes_nothing_and_goes_on(kafka: str, tmp_path: Path) -> None:
    """It wakes after its partitions were reassigned, learns of it, and joins again."""
    plan = Plan(bootstrap=kafka, session=6.0, store="memory", rate=800)
    async with under_load(plan, tmp_path, f"frozen-{time.time_ns()}", addresses=TWO, seed=5) as scene:
        frozen = scene.workers.running["w1"]
        frozen.send_signal(signal.SIGSTOP)
        await wait_until(lambda: _owned(scene.workers, "w2") == list(range(plan.partitions)), 40)
        await asyncio.sleep(1)
        frozen.send_signal(signal.SIGCONT)
        await wait_until(lambda: _balanced(scene.workers, plan), 40)


@pytest.mark.parametrize("direction", ["both", "requests", "answers"])
async def test_an_isolated_worker_writes_nothing_that_its_successor_does_not_know(
    tmp_path: Path, direction: Direction
) -> None:
    """Its connections are cut, so that another worker takes over, and healed: what it sent meanwhile arrives late.

    If only the answers are lost, the broker still knows it, and no worker takes over.
    """
    listener = free_port()
    async with Proxy(listener) as proxy, ProxiedKafka(tmp_path, Link(listener, proxy.port)) as broker:
        plan = Plan(bootstrap=broker.bootstrap_servers, session=6.0, rate=800)
        addresses = {"w1": f"127.0.0.1:{proxy.port}", "w2": None}
        async with under_load(plan, tmp_path, f"cut-{direction}", addresses=addresses, seed=7) as scene:
            proxy.cut(direction)
            if direction != "answers":
                await wait_until(lambda: _owned(scene.workers, "w2") == list(range(plan.partitions)), 40)
            await asyncio.sleep(4 if direction != "answers" else plan.session + 4)
            proxy.heal()
            await asyncio.sleep(plan.session)


async def test_each_broker_of_three_may_be_killed_under_load(tmp_path: Path) -> None:
    """The leaders of its partitions, the coordinators and the controller move; the workers neither end nor lose any."""
    async with Cluster(tmp_path) as cluster:
        plan = Plan(bootstrap=cluster.bootstrap_servers, session=6.0, rate=500)
        async with under_load(plan, tmp_path, "brokers", addresses=TWO, seed=9, replication=NODES) as scene:
            for node in cluster.nodes:
                await asyncio.sleep(1)
                await asyncio.to_thread(node.kill)
                await asyncio.sleep(plan.session)
                await node.start_async()
                await wait_until(lambda: in_sync(plan.bootstrap, scene.topics, NODES), 60, 0.5)


async def test_workers_survive_an_outage_longer_than_the_session_timeout(
    own_kafka: EmbeddedKafka, tmp_path: Path
) -> None:
    """They neither exit nor lose a record, and continue where they stopped."""
    plan = Plan(bootstrap=own_kafka.bootstrap_servers, rate=500, session=6.0, partitions=4)
    async with under_load(plan, tmp_path, f"outage-{time.time_ns()}", addresses={"w1": None}, seed=6):
        await own_kafka.stop_async()
        await asyncio.sleep(plan.session + 2)
        await own_kafka.start_async()
        await asyncio.sleep(2)


def _owned(workers: Workers, worker: str) -> list[int]:
    """Return the partitions that a worker last logged as its own."""
    assignments = re.findall(r"^owns \[(.*?)\]", workers.log(worker), re.MULTILINE)
    return [int(number) for number in assignments[-1].split(",") if number.strip()] if assignments else []


def _balanced(workers: Workers, plan: Plan) -> bool:
    """Return whether every worker owns its share of the partitions."""
    share = plan.partitions // len(workers.running)
    return all(len(_owned(workers, worker)) == share for worker in workers.running)
