"""Consumer lag: computed from offsets, and measured on a real cluster."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.errors import KafkaError

from connectors.clock import SystemClock
from streams.observability.lag import Head, LagExporter, Losses, Offsets, PartitionLag, lags, parked, slowest
from streams.observability.metrics import Metrics

NOW = 1_000_000


@pytest.mark.parametrize(
    ("offsets", "next_offset", "lag"),
    [
        (Offsets(begin=0, end=0, committed=None), 0, 0),
        (Offsets(begin=0, end=5, committed=None), 0, 5),
        (Offsets(begin=3, end=5, committed=None), 3, 2),
        (Offsets(begin=0, end=5, committed=2), 2, 3),
        (Offsets(begin=0, end=5, committed=5), 5, 0),
        (Offsets(begin=4, end=5, committed=2), 4, 1),
        (Offsets(begin=0, end=1, committed=9), 0, 1),
        (Offsets(begin=0, end=10, committed=1000), 0, 10),
    ],
)
def test_lag_in_records(offsets: Offsets, next_offset: int, lag: int) -> None:
    """Without a commit the lag starts at the beginning; records that retention deleted do not count."""
    assert (offsets.next, offsets.lag) == (next_offset, lag)


@pytest.mark.parametrize(
    ("offsets", "head", "expected"),
    [
        (Offsets(0, 5, 5), Head(5, NOW - 9000), (0, 0.0, 0.0)),
        (Offsets(0, 5, 4), Head(4, NOW - 9000), (1, 9.0, 0.0)),
        (Offsets(0, 5, 4), Head(4, NOW + 9000), (1, 0.0, 0.0)),
        (Offsets(0, 5, 4), None, (1, None, 0.0)),
        (Offsets(0, 5, 4), Head(4, NOW - 9000, due_at=NOW - 1500), (1, 9.0, 1.5)),
        (Offsets(0, 5, 4), Head(4, NOW - 9000, due_at=NOW + 1500), (1, 9.0, 0.0)),
    ],
)
def test_lag_in_seconds(offsets: Offsets, head: Head | None, expected: tuple[int, float | None, float]) -> None:
    """It is the age of the next record: 0 without lag, None if the record could not be read."""
    heads = {} if head is None else {("t", 0): head}

    assert lags({("t", 0): offsets}, heads, NOW) == [PartitionLag("t", 0, *expected)]


def test_the_largest_lag_of_several_groups_counts() -> None:
    """A topic that two groups read has the lag of the slower one."""
    offsets = [
        (("t", 0), Offsets(0, 9, 8)),
        (("t", 0), Offsets(0, 9, 3)),
        (("t", 0), Offsets(0, 9, 9)),
        (("t", 1), Offsets(0, 0, 0)),
    ]

    assert slowest(offsets) == {("t", 0): Offsets(0, 9, 3), ("t", 1): Offsets(0, 0, 0)}


def test_a_commit_beyond_the_end_is_reported_once_if_it_stays() -> None:
    """A single one proves nothing: the ends were read before it."""
    losses, lost = Losses(), Offsets(0, 20, 1000)
    passing = [("g", ("t", 0), Offsets(0, 5, 6)), ("g", ("t", 1), lost)]
    later = [("g", ("t", 0), Offsets(0, 7, 8)), ("g", ("t", 1), Offsets(0, 25, 1000)), ("h", ("t", 1), lost)]
    healed = [("g", ("t", 1), Offsets(0, 25, 25))]

    assert losses.found(passing) == []
    assert losses.found(later) == [("g", ("t", 1), Offsets(0, 25, 1000))]
    assert losses.found(later[1:]) == [("h", ("t", 1), lost)]
    assert losses.found(later[1:]) == losses.found(healed) == []
    assert lost.missing == 980


def test_a_rung_is_summed_over_its_partitions() -> None:
    """All parked records count, and the longest overdue time; other topics are not rungs."""
    measured = [
        PartitionLag("retry.5m", 0, 2, 400.0, 90.0),
        PartitionLag("retry.5m", 1, 1, 10.0, 0.0),
        PartitionLag("retry.1m", 0, 0, 0.0, 0.0),
        PartitionLag("pms.webhooks", 0, 7, 1.0, 0.0),
    ]

    assert parked(measured) == {"5m": (3, 90.0), "1m": (0, 0.0)}


# ------------------------------------------------------------------------------------------------------ a real cluster

TOPICS = ("pms.webhooks", "retry.1m")
GROUPS = {"readers": ["pms.webhooks"], "redeliver.1m": ["retry.1m"]}


async def measure(exporter: LagExporter) -> None:
    """Measure once; a new cluster answers with errors until it has created the offsets topic."""
    async with asyncio.timeout(20):
        while True:
            try:
                await exporter.measure()
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


async def commit(kafka: str, group: str, partition: TopicPartition, offset: int) -> None:
    consumer = AIOKafkaConsumer(bootstrap_servers=kafka, group_id=group, enable_auto_commit=False)
    await consumer.start()
    try:
        consumer.assign([partition])
        await consumer.commit({partition: offset})
    finally:
        await consumer.stop()


@pytest.mark.broker
async def test_lag_of_real_consumer_groups(kafka: str, topic_prefix: str) -> None:
    """Records, seconds and rungs are right before the first commit, after one, and when all is committed."""
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
        late = [("rent-due-at", str(now - 5_000).encode())]
        await producer.send_and_wait(topic_prefix + "retry.1m", b"p", partition=0, headers=late)
        try:
            await measure(exporter)
            uncommitted = read("rentstream_consumer_lag"), read("rentstream_consumer_lag_seconds")
            rung = (
                metrics.value("rentstream_parked", rung="1m"),
                metrics.value("rentstream_retry_overdue_seconds", rung="1m"),
            )
            await commit(kafka, topic_prefix + "readers", webhooks, 2)
            await measure(exporter)
            partial = read("rentstream_consumer_lag"), read("rentstream_consumer_lag_seconds")
            await commit(kafka, topic_prefix + "readers", webhooks, 3)
            await measure(exporter)
            done = read("rentstream_consumer_lag"), read("rentstream_consumer_lag_seconds")
            await commit(kafka, topic_prefix + "readers", webhooks, 9)
            for _ in range(3):
                await measure(exporter)
        finally:
            await exporter.aclose()

    assert uncommitted[0] == 3
    assert 60 <= uncommitted[1] < 90
    assert partial[0] == 1
    assert 20 <= partial[1] < 50
    assert done == (0, 0)
    assert metrics.value("rentstream_lost_records_total", topic="pms.webhooks") == 6
    assert read("rentstream_consumer_lag", partition="0") == 0
    assert rung[0] == 1
    assert 5 <= (rung[1] or 0) < 35


async def test_an_unreachable_cluster_exports_no_lag(unused_tcp_port: int) -> None:
    """The last values are removed, and the exporter keeps trying."""
    metrics = Metrics()
    metrics.lag("pms.webhooks", 0, 3, 1.0)
    client = {"bootstrap_servers": f"127.0.0.1:{unused_tcp_port}"}
    exporter = LagExporter(client, GROUPS, 2, metrics, SystemClock(), every=0.01)
    running = asyncio.create_task(exporter.run())
    async with asyncio.timeout(10):
        while metrics.value("rentstream_consumer_lag", topic="pms.webhooks", partition="0") is not None:
            await asyncio.sleep(0.02)

    assert not running.done()
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


async def test_a_cancellation_while_a_client_closes_ends_the_exporter(unused_tcp_port: int) -> None:
    """So that a process that ends during an outage does not wait for it forever."""
    exporter = LagExporter({"bootstrap_servers": f"127.0.0.1:{unused_tcp_port}"}, GROUPS, 2, Metrics(), SystemClock())

    class Closing:
        """A client that fails, and whose close comes at the same time as the cancellation."""

        async def start(self) -> None:
            raise OSError("no broker")

        async def close(self) -> None:
            running.cancel()

    async def connect() -> None:
        exporter._admin = Closing()
        await exporter._admin.start()

    exporter._connect = connect  # type: ignore[method-assign]
    running = asyncio.create_task(exporter.run())
    async with asyncio.timeout(2):
        await asyncio.gather(running, return_exceptions=True)
    assert running.cancelled()
