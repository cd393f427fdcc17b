"""A source topic that ends before what was committed of it: an unclean election, or a topic that was created again."""

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
from streams.engine.fatal import Exit, Fatal
from tests.chaos.kafka import make_topics, wait_until

pytestmark = pytest.mark.broker


class Lost(NullObserver):
    """Remembers what may be lost."""

    def __init__(self) -> None:
        self.lost: list[tuple[str, int]] = []

    def records_lost(self, topic: str, records: int) -> None:
        self.lost.append((topic, records))


async def produce(kafka: str, topic: str, count: int) -> None:
    producer = aiokafka.AIOKafkaProducer(bootstrap_servers=kafka)
    await producer.start()
    for number in range(count):
        await producer.send_and_wait(topic, b"%d" % number, key=b"k", partition=0)
    await producer.stop()


async def commit(kafka: str, group: str, topic: str, offset: int) -> None:
    consumer = aiokafka.AIOKafkaConsumer(bootstrap_servers=kafka, group_id=group, enable_auto_commit=False)
    await consumer.start()
    tp = aiokafka.TopicPartition(topic, 0)
    consumer.assign([tp])
    await consumer.commit({tp: offset})
    await consumer.stop()


@asynccontextmanager
async def counting(kafka: str, folder: Path, name: str) -> AsyncIterator[tuple[list[bytes], Lost, Engine]]:
    """Run a fold, and yield what it handles."""
    handled: list[bytes] = []

    def step(batch: RecordBatch, views: Mapping[str, View]) -> Step:
        del views
        handled.extend(record.value or b"" for record in batch.records)
        return Step()

    observer = Lost()
    engine = Engine(
        EngineSettings(bootstrap_servers=kafka, app_id=name, worker="w1", data_dir=folder, partitions=1), observer
    )
    engine.fold("f", [f"{name}-in"], engine.table("rows"), step)
    await make_topics(kafka, 1, [f"{name}-in"], list(engine.changelogs))
    await produce(kafka, f"{name}-in", 10)
    await commit(kafka, name, f"{name}-in", 1000)
    running = asyncio.create_task(engine.run(signals=False))
    try:
        await wait_until(lambda: engine.ready or running.done(), 40)
        yield handled, observer, engine
    finally:
        engine.stop()
        await running


async def test_a_group_whose_commit_is_beyond_the_end_reads_on_at_the_end(kafka: str, tmp_path: Path) -> None:
    """What is new is handled, and what may be missing is reported."""
    name = f"truncated-{time.time_ns()}"
    async with counting(kafka, tmp_path, name) as (handled, observer, _):
        await produce(kafka, f"{name}-in", 20)
        await wait_until(lambda: len(handled) >= 20, 20)
        await asyncio.sleep(0.5)

    assert handled == [b"%d" % number for number in range(20)]
    assert observer.lost == [(f"{name}-in", 990)]


def test_a_worker_ends_if_a_partition_is_shorter_than_what_it_has_processed(tmp_path: Path) -> None:
    left: list[int] = []
    settings = EngineSettings(bootstrap_servers="nowhere:1", app_id="a", worker="w", data_dir=tmp_path, partitions=1)
    engine = Engine(settings, fatal=Fatal(leave=left.append))
    tp = aiokafka.TopicPartition("t", 0)
    engine._check_ends({tp: 10}, {tp: 10})
    assert left == []
    with pytest.raises(SystemExit):
        engine._check_ends({tp: 10}, {tp: 9})

    assert left == [Exit.TRUNCATED]
