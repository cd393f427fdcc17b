"""Tests of integrations on a real Kafka: a change of one process takes effect in running and later processes."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from connectors.clock import SystemClock
from schemas import topics
from schemas.partitions import partition_of
from streams.backends.kafka import KafkaBackend, KafkaBackendSettings
from streams.backends.producer import OrgWriter, ReconnectingProducer
from streams.directory.directory import TOPICS, Directory
from streams.directory.service import Integrations, RandomIds
from streams.runners.global_ import Follow
from tests.streams.backends.test_kafka import make_topics
from tests.streams.directory.stage import pms_body, ring
from tests.streams.directory.systems import FakePms

pytestmark = pytest.mark.broker

PARTITIONS = 4


class ObservableDirectory(Directory):
    """A directory with a wait for changes."""

    def __init__(self) -> None:
        super().__init__({"pms": FakePms()}, {}, True, ring("k1"))
        self.changed = asyncio.Event()

    def apply(self, topic: str, key: bytes | None, value: bytes | None) -> None:
        super().apply(topic, key, value)
        self.changed.set()

    async def until(self, count: int, within: float) -> None:
        async with asyncio.timeout(within):
            while len(self.connections()) != count:
                self.changed.clear()
                await self.changed.wait()


@asynccontextmanager
async def process(
    log: KafkaBackend, kafka: str, prefix: str
) -> AsyncIterator[tuple[ObservableDirectory, Integrations]]:
    directory = ObservableDirectory()
    follower = Follow(log, TOPICS, directory, SystemClock())
    producer = ReconnectingProducer({"bootstrap_servers": kafka}, prefix)
    await producer.start()
    running = asyncio.create_task(follower.run())
    async with asyncio.timeout(30):
        await follower.caught_up()
    systems = {"pms": FakePms()}
    try:
        yield (
            directory,
            Integrations(
                directory, follower, OrgWriter(producer, PARTITIONS), ring("k1"), systems, SystemClock(), RandomIds()
            ),
        )
    finally:
        await follower.stop()
        await running
        await producer.stop()


async def test_a_stored_change_takes_effect_in_every_process_within_two_seconds(kafka: str, topic_prefix: str) -> None:
    names = (*TOPICS, topics.INTEGRATION_HISTORY.name)
    await make_topics(kafka, [topic_prefix + name for name in names], PARTITIONS)
    log = KafkaBackend(KafkaBackendSettings(bootstrap_servers=kafka, prefix=topic_prefix))
    async with process(log, kafka, topic_prefix) as (_, service), process(log, kafka, topic_prefix) as (other, _):
        await service.put("acme", "main", pms_body(), "a test")
        await other.until(1, 2.0)
        await service.put("acme", "second", pms_body(), "a test")
        report = await service.check("acme", "second")
        await service.delete("acme", "main", "a test")
        await other.until(1, 2.0)
        async with process(log, kafka, topic_prefix) as (_, later):
            (state,) = await later.list("acme")
    home = partition_of(b"acme", PARTITIONS)
    written = await log.last(topics.INTEGRATIONS.name, range(PARTITIONS), 9)

    assert (state.name, state.checks) == ("second", report)
    assert {number: [one.key for one in records] for number, records in written.items() if records} == {
        home: [b"acme/main", b"acme/second", b"acme/main"]
    }
    assert written[home][-1].value is None
