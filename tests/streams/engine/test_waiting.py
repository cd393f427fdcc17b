"""Failed records of a fold that wait for a success: their offsets are not committed, and the worker does not end."""

import asyncio
import time
from collections.abc import Mapping
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


async def test_records_wait_until_another_partition_has_a_success(kafka: str, tmp_path: Path) -> None:
    name, left = f"waiting-{time.time_ns()}", list[int]()
    handled: list[bytes] = []
    succeeded = False

    def step(batch: RecordBatch, views: Mapping[str, View]) -> Step:
        nonlocal succeeded
        del views
        values = [record.value or b"" for record in batch.records]
        handled.extend(values)
        succeeded = succeeded or b"good" in values
        return Step(waiting=0 if succeeded else len(values))

    observer = Stopped()
    settings = EngineSettings(
        bootstrap_servers=kafka,
        app_id=name,
        worker="w1",
        data_dir=tmp_path,
        partitions=2,
        stuck_after=PATIENCE,
        stalled_after=PATIENCE,
    )
    engine = Engine(settings, observer, fatal=Fatal(leave=left.append))
    topic = f"{name}-in"
    engine.fold("f", [topic], engine.table("rows"), step)
    await make_topics(kafka, 2, [topic], list(engine.changelogs))
    running = asyncio.create_task(engine.run(signals=False))
    try:
        await wait_until(lambda: engine.ready or running.done(), 40)
        await produce(kafka, topic, 0, b"bad 1", b"bad 2")
        await wait_until(lambda: b"bad 2" in handled, 20)
        await asyncio.sleep(PATIENCE * 2 + 5)  # longer than the watchdog waits, and until the next probe
        before = await committed_offsets(kafka, name)
        await produce(kafka, topic, 1, b"good")
        await wait_until(lambda: _committed(kafka, name, topic), 20, 0.5)
    finally:
        engine.stop()
        await running

    assert aiokafka.TopicPartition(topic, 0) not in before
    assert {"f": 1} in observer.counts
    assert left == []
    assert handled[-1] == b"bad 2"


async def _committed(kafka: str, group: str, topic: str) -> bool:
    offsets = await committed_offsets(kafka, group)
    return [offsets.get(aiokafka.TopicPartition(topic, number)) for number in (0, 1)] == [2, 1]
