"""Failed records of a fold that wait for a success: their offsets are not committed, and the worker does not end."""

import asyncio
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

import aiokafka
import pytest

from streams.core.flows import RecordBatch, Step, View
from streams.core.observer import NullObserver
from streams.engine import Engine, EngineSettings
from streams.engine.fatal import Fatal
from tests.chaos.kafka import committed_offsets, make_topics, wait_until

pytestmark = pytest.mark.broker

PATIENCE = 2.0
"""Seconds after which the watchdog ends a worker that does not progress."""


class Stopped(NullObserver):
    """Remembers how many partitions wait."""

    def __init__(self) -> None:
        self.counts: list[Mapping[str, int]] = []

    def partitions_stopped(self, counts: Mapping[str, int]) -> None:
        self.counts.append(dict(counts))


async def produce(kafka: str, topic: str, partition: int, *values: bytes) -> None:
    producer = aiokafka.AIOKafkaProducer(bootstrap_servers=kafka)
    await producer.start()
    for value in values:
        await producer.send_and_wait(topic, value, key=b"k", partition=partition)
    await producer.stop()


class Site:
    """A worker with a fold whose records wait until one is good."""

    def __init__(self, kafka: str, folder: Path) -> None:
        self.kafka, self.name = kafka, f"waiting-{time.time_ns()}"
        self.topic = f"{self.name}-in"
        self.left: list[int] = []
        self.handled: list[bytes] = []
        self.observer = Stopped()
        settings = EngineSettings(
            bootstrap_servers=kafka,
            app_id=self.name,
            worker="w1",
            data_dir=folder,
            partitions=2,
            stuck_after=PATIENCE,
            stalled_after=PATIENCE,
        )
        self.engine = Engine(settings, self.observer, fatal=Fatal(leave=self.left.append))
        self.engine.fold("f", [self.topic], self.engine.table("rows"), self.step)

    def step(self, batch: RecordBatch, views: Mapping[str, View]) -> Step:
        del views
        values = [record.value or b"" for record in batch.records]
        self.handled += values
        return Step(waiting=0 if b"good" in self.handled else len(values))

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Run the worker; it has two records that wait."""
        await make_topics(self.kafka, 2, [self.topic], list(self.engine.changelogs))
        running = asyncio.create_task(self.engine.run(signals=False))
        try:
            await wait_until(lambda: self.engine.ready or running.done(), 40)
            await produce(self.kafka, self.topic, 0, b"bad 1", b"bad 2")
            await wait_until(lambda: b"bad 2" in self.handled, 20)
            yield
        finally:
            self.engine.stop()
            await running

    async def committed(self) -> list[int | None]:
        offsets = await committed_offsets(self.kafka, self.name)
        return [offsets.get(aiokafka.TopicPartition(self.topic, number)) for number in (0, 1)]


async def test_records_wait_until_another_partition_has_a_success(kafka: str, tmp_path: Path) -> None:
    site = Site(kafka, tmp_path)

    async def finished() -> bool:
        return await site.committed() == [2, 1]

    async with site.running():
        await asyncio.sleep(PATIENCE * 2 + 5)  # longer than the watchdog waits, and until the next probe
        before = await site.committed()
        await produce(kafka, site.topic, 1, b"good")
        await wait_until(finished, 20, 0.5)

    assert before == [None, None]
    assert {"f": 1} in site.observer.counts
    assert (site.left, site.handled[-1]) == ([], b"bad 2")


async def test_a_graceful_stop_does_not_wait_for_them_and_the_next_worker_gets_them(kafka: str, tmp_path: Path) -> None:
    site = Site(kafka, tmp_path)
    async with site.running():
        pass

    assert (site.left, await site.committed()) == ([], [None, None])
