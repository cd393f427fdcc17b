"""A short chaos run; ``python -m tests.chaos`` makes longer ones."""

import asyncio
import contextlib
import re
import signal
import time
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


async def test_a_frozen_worker_writes_nothing_and_goes_on(kafka: str, tmp_path: Path) -> None:
    """It wakes after its partitions were reassigned, learns of it, and joins again."""
    plan = Plan(bootstrap=kafka, session=6.0, store="memory", rate=800)
    name = f"frozen-{time.time_ns()}"
    events, echoes = topics(name)
    changelogs = [f"{name}-tally-changelog", f"{name}-echo-changelog"]
    await make_topics(kafka, plan.partitions, [events, echoes], changelogs)
    workers = Workers(plan, name, tmp_path)
    load = Load(kafka, events, partitions=plan.partitions, keys=400, rate=plan.rate, seed=5)
    try:
        await workers.start("w1")
        await workers.start("w2")
        load.start()
        await wait_until(lambda: _balanced(workers), 30)
        await asyncio.sleep(1)
        frozen = workers.running["w1"]
        frozen.send_signal(signal.SIGSTOP)
        await wait_until(lambda: _owned(workers, "w2") == list(range(plan.partitions)), 40)
        await asyncio.sleep(1)
        frozen.send_signal(signal.SIGCONT)

        await wait_until(lambda: _balanced(workers), 40)
        await load.stop()
        with contextlib.suppress(TimeoutError):
            await wait_until(lambda: drained(kafka, name, [events, echoes], plan.partitions), 40, 0.5)
        assert await workers.signal("w1", signal.SIGTERM) == 0
        assert await workers.signal("w2", signal.SIGTERM) == 0
    finally:
        await workers.close()
    tallies = await last_values(kafka, changelogs[0], plan.partitions)
    assert {key: ROW.unpack(row) for key, row in tallies.items()} == load.expected


@pytest.mark.parametrize("direction", ["both", "requests", "answers"])
async def test_an_isolated_worker_writes_nothing_that_its_successor_does_not_know(
    tmp_path: Path, direction: Direction
) -> None:
    """Its connections are cut, so that another worker takes over, and healed: what it sent meanwhile arrives late.

    If only the answers are lost, the broker still knows it, and no worker takes over.
    """
    listener = free_port()
    async with Proxy(listener) as proxy, ProxiedKafka(tmp_path, Link(listener, proxy.port)) as broker:
        bootstrap = broker.bootstrap_servers
        plan = Plan(bootstrap=bootstrap, session=6.0, rate=800)
        name = f"cut-{direction}"
        events, echoes = topics(name)
        changelogs = [f"{name}-tally-changelog", f"{name}-echo-changelog"]
        await make_topics(bootstrap, plan.partitions, [events, echoes], changelogs)
        workers = Workers(plan, name, tmp_path)
        load = Load(bootstrap, events, partitions=plan.partitions, keys=400, rate=plan.rate, seed=7)
        try:
            await workers.start("w1", f"127.0.0.1:{proxy.port}")
            await workers.start("w2")
            load.start()
            await wait_until(lambda: _balanced(workers), 30)
            await asyncio.sleep(1)
            proxy.cut(direction)
            if direction != "answers":
                await wait_until(lambda: _owned(workers, "w2") == list(range(plan.partitions)), 40)
            await asyncio.sleep(4 if direction != "answers" else plan.session + 4)
            proxy.heal()
            await asyncio.sleep(plan.session)
            await load.stop()
            with contextlib.suppress(TimeoutError):
                await wait_until(lambda: drained(bootstrap, name, [events, echoes], plan.partitions), 60, 0.5)

            assert [workers.running[worker].returncode for worker in ("w1", "w2")] == [None, None]
            assert await workers.signal("w1", signal.SIGTERM) == 0
            assert await workers.signal("w2", signal.SIGTERM) == 0
        finally:
            await workers.close()
        tallies = await last_values(bootstrap, changelogs[0], plan.partitions)
        assert {key: ROW.unpack(row) for key, row in tallies.items()} == load.expected


async def test_each_broker_of_three_may_be_killed_under_load(tmp_path: Path) -> None:
    """The leaders of its partitions, the coordinators and the controller move; the workers neither end nor lose any."""
    async with Cluster(tmp_path) as cluster:
        bootstrap = cluster.bootstrap_servers
        plan = Plan(bootstrap=bootstrap, session=6.0, rate=500)
        name = "brokers"
        events, echoes = topics(name)
        changelogs = [f"{name}-tally-changelog", f"{name}-echo-changelog"]
        await make_topics(bootstrap, plan.partitions, [events, echoes], changelogs, NODES)
        workers = Workers(plan, name, tmp_path)
        load = Load(bootstrap, events, partitions=plan.partitions, keys=400, rate=plan.rate, seed=9)
        try:
            await workers.start("w1")
            await workers.start("w2")
            load.start()
            await wait_until(lambda: _balanced(workers), 60)
            for node in cluster.nodes:
                await asyncio.sleep(2)
                await asyncio.to_thread(node.kill)
                await asyncio.sleep(plan.session)
                await node.start_async()
                await wait_until(lambda: in_sync(bootstrap, [events, echoes, *changelogs], NODES), 60, 0.5)
            await load.stop()
            with contextlib.suppress(TimeoutError):
                await wait_until(lambda: drained(bootstrap, name, [events, echoes], plan.partitions), 60, 0.5)

            assert [workers.running[worker].returncode for worker in ("w1", "w2")] == [None, None]
            assert await workers.signal("w1", signal.SIGTERM) == 0
            assert await workers.signal("w2", signal.SIGTERM) == 0
        finally:
            await workers.close()
        tallies = await last_values(bootstrap, changelogs[0], plan.partitions)
        assert {key: ROW.unpack(row) for key, row in tallies.items()} == load.expected


async def test_workers_survive_an_outage_longer_than_the_session_timeout(
    own_kafka: EmbeddedKafka, tmp_path: Path
) -> None:
    """They neither exit nor lose a record, and continue where they stopped."""
    bootstrap = own_kafka.bootstrap_servers
    plan = Plan(bootstrap=bootstrap, rate=500, session=6.0, partitions=4)
    name = f"outage-{time.time_ns()}"
    events, echoes = topics(name)
    changelogs = [f"{name}-tally-changelog", f"{name}-echo-changelog"]
    await make_topics(bootstrap, plan.partitions, [events, echoes], changelogs)
    workers = Workers(plan, name, tmp_path)
    load = Load(bootstrap, events, partitions=plan.partitions, keys=400, rate=plan.rate, seed=6)
    try:
        await workers.start("w1")
        load.start()
        await wait_until(lambda: _owned(workers, "w1") == list(range(plan.partitions)), 30)
        await asyncio.sleep(1)
        await own_kafka.stop_async()
        await asyncio.sleep(plan.session + 2)
        await own_kafka.start_async()
        await asyncio.sleep(2)
        await load.stop()
        await wait_until(lambda: drained(bootstrap, name, [events, echoes], plan.partitions), 60, 0.5)

        assert workers.running["w1"].returncode is None
        assert await workers.signal("w1", signal.SIGTERM) == 0
    finally:
        await workers.close()
    tallies = await last_values(bootstrap, changelogs[0], plan.partitions)
    assert {key: ROW.unpack(row) for key, row in tallies.items()} == load.expected


def _owned(workers: Workers, worker: str) -> list[int]:
    """Return the partitions that a worker last logged as its own."""
    assignments = re.findall(r"^owns \[(.*?)\]", workers.log(worker), re.MULTILINE)
    return [int(number) for number in assignments[-1].split(",") if number.strip()] if assignments else []


def _balanced(workers: Workers) -> bool:
    return len(_owned(workers, "w1")) == len(_owned(workers, "w2")) == 4
