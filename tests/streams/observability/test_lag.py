"""How far the groups are behind: worked out by tables, read from a real cluster."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.errors import KafkaError

from connectors.clock import SystemClock
from schemas import retry as header
from streams.observability.lag import Head, LagExporter, PartitionLag, Span, behind, due_at, parked, slowest
from streams.observability.metrics import Metrics

NOW = 1_000_000


@pytest.mark.parametrize(
    ("span", "next_offset", "lag"),
    [
        (Span(begin=0, end=0, committed=None), 0, 0),
        (Span(begin=0, end=5, committed=None), 0, 5),
        (Span(begin=3, end=5, committed=None), 3, 2),
        (Span(begin=0, end=5, committed=2), 2, 3),
        (Span(begin=0, end=5, committed=5), 5, 0),
        (Span(begin=4, end=5, committed=2), 4, 1),
        (Span(begin=0, end=1, committed=9), 1, 0),
    ],
)
def test_the_lag_of_a_partition(span: Span, next_offset: int, lag: int) -> None:
    """No commit counts from the beginning; what is gone, or was never there, is not behind."""
    assert (span.next, span.lag) == (next_offset, lag)


@pytest.mark.parametrize(
    ("span", "head", "expected"),
    [
        (Span(0, 5, 5), Head(5, NOW - 9000), (0, 0.0, 0.0)),
        (Span(0, 5, 4), Head(4, NOW - 9000), (1, 9.0, 0.0)),
        (Span(0, 5, 4), Head(4, NOW + 9000), (1, 0.0, 0.0)),
        (Span(0, 5, 4), None, (1, None, 0.0)),
        (Span(0, 5, 4), Head(4, NOW - 9000, due_at=NOW - 1500), (1, 9.0, 1.5)),
        (Span(0, 5, 4), Head(4, NOW - 9000, due_at=NOW + 1500), (1, 9.0, 0.0)),
    ],
)
def test_the_lag_in_time(span: Span, head: Head | None, expected: tuple[int, float | None, float]) -> None:
    """The age of the next record; none where nothing waits, unknown where it could not be read."""
    heads = {} if head is None else {("t", 0): head}

    assert behind({("t", 0): span}, heads, NOW) == [PartitionLag("t", 0, *expected)]


def test_the_slowest_group_counts() -> None:
    """A topic with two readers is as far behind as the later one."""
    spans = [(("t", 0), Span(0, 9, 8)), (("t", 0), Span(0, 9, 3)), (("t", 0), Span(0, 9, 9)), (("t", 1), Span(0, 0, 0))]

    assert slowest(spans) == {("t", 0): Span(0, 9, 3), ("t", 1): Span(0, 0, 0)}


def test_a_rung_is_summed_up() -> None:
    """Records of all partitions, and the one that is most overdue; other topics are no rungs."""
    found = [
        PartitionLag("retry.5m", 0, 2, 400.0, 90.0),
        PartitionLag("retry.5m", 1, 1, 10.0, 0.0),
        PartitionLag("retry.1m", 0, 0, 0.0, 0.0),
        PartitionLag("pms.webhooks", 0, 7, 1.0, 0.0),
    ]

    assert parked(found) == {"5m": (3, 90.0), "1m": (0, 0.0)}


def test_a_header_that_is_no_time_is_none() -> None:
    """A rung's record without a due time waits, but is not overdue."""
    assert due_at([("x", b"1"), (header.DUE_AT, b"123")]) == 123
    assert due_at([(header.DUE_AT, b"soon")]) is None
    assert due_at([]) is None


# ------------------------------------------------------------------------------------------------------ a real cluster

TOPICS = ("pms.webhooks", "retry.1m")
GROUPS = {"readers": ["pms.webhooks"], "redeliver.1m": ["retry.1m"]}


async def looked(exporter: LagExporter) -> None:
    """Look once; a cluster that has never had a group makes the place for their offsets first."""
    async with asyncio.timeout(20):
        while True:
            try:
                await exporter.look()
            except KafkaError:
                await asyncio.sleep(0.2)
            else:
                return


@asynccontextmanager
async def cluster(kafka: str, prefix: str) -> AsyncIterator[Any]:
    admin = AIOKafkaAdminClient(bootstrap_servers=kafka)
    await admin.start()
    try:
        await admin.create_topics([NewTopic(prefix + topic, 2, 1) for topic in TOPICS])
    finally:
        await admin.close()
    producer = AIOKafkaProducer(bootstrap_servers=kafka)
    await producer.start()
    try:
        yield producer
    finally:
        await producer.stop()


async def commit(kafka: str, group: str, home: TopicPartition, offset: int) -> None:
    consumer = AIOKafkaConsumer(bootstrap_servers=kafka, group_id=group, enable_auto_commit=False)
    await consumer.start()
    try:
        consumer.assign([home])
        await consumer.commit({home: offset})
    finally:
        await consumer.stop()


@pytest.mark.broker
async def test_the_lag_of_real_groups(kafka: str, topic_prefix: str) -> None:
    """Before the first commit, after one, and when all is done: records, seconds and rungs are right."""
    clock, metrics = SystemClock(), Metrics()
    exporter = LagExporter({"bootstrap_servers": kafka}, GROUPS, 2, metrics, clock, topic_prefix)
    webhooks = TopicPartition(topic_prefix + "pms.webhooks", 1)
    now = round(clock.now().timestamp() * 1000)

    def read(name: str, topic: str = "pms.webhooks", partition: str = "1") -> float:
        value = metrics.value(name, topic=topic, partition=partition)
        assert value is not None
        return value

    async with cluster(kafka, topic_prefix) as producer:
        for age in (60_000, 40_000, 20_000):
            await producer.send_and_wait(webhooks.topic, b"x" * 1000, partition=1, timestamp_ms=now - age)
        late = [(header.DUE_AT, str(now - 5_000).encode())]
        await producer.send_and_wait(topic_prefix + "retry.1m", b"p", partition=0, headers=late)
        try:
            await looked(exporter)
            untouched = read("rentstream_consumer_lag"), read("rentstream_consumer_lag_seconds")
            rung = (
                metrics.value("rentstream_parked", rung="1m"),
                metrics.value("rentstream_retry_overdue_seconds", rung="1m"),
            )
            await commit(kafka, topic_prefix + "readers", webhooks, 2)
            await looked(exporter)
            nearly = read("rentstream_consumer_lag"), read("rentstream_consumer_lag_seconds")
            await commit(kafka, topic_prefix + "readers", webhooks, 3)
            await looked(exporter)
            done = read("rentstream_consumer_lag"), read("rentstream_consumer_lag_seconds")
        finally:
            await exporter.aclose()

    assert untouched[0] == 3
    assert 60 <= untouched[1] < 90
    assert nearly[0] == 1
    assert 20 <= nearly[1] < 50
    assert done == (0, 0)
    assert read("rentstream_consumer_lag", partition="0") == 0
    assert rung[0] == 1
    assert 5 <= (rung[1] or 0) < 35


async def test_a_cluster_that_is_away_shows_no_lag(unused_tcp_port: int) -> None:
    """Old figures go away, and the exporter goes on looking."""
    metrics = Metrics()
    metrics.lag("pms.webhooks", 0, 3, 1.0)
    client = {"bootstrap_servers": f"127.0.0.1:{unused_tcp_port}"}
    exporter = LagExporter(client, GROUPS, 2, metrics, SystemClock(), every=0.01)
    looking = asyncio.create_task(exporter.run())
    async with asyncio.timeout(10):
        while metrics.value("rentstream_consumer_lag", topic="pms.webhooks", partition="0") is not None:
            await asyncio.sleep(0.02)

    assert not looking.done()
    looking.cancel()
    await asyncio.gather(looking, return_exceptions=True)
