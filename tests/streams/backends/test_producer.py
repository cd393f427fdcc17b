"""The producer of the web role: reconnection and limits, with a fake client and on Kafka."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.errors import (
    KafkaConnectionError,
    KafkaError,
)

from connectors.clock import SystemClock
from schemas.codec import decode_as
from schemas.partitions import partition_of
from schemas.pms import FetchRequest
from streams.backends.ports import MAX_RECORD_BYTES, NotDurable, TooLarge
from streams.backends.producer import MAX_WAITING_BYTES, ReconnectingProducer, WebhookPublisher
from streams.local.embedded_kafka import EmbeddedKafka
from streams.web.ingress import build_ingress
from tests.streams.backends.fake_client import Cluster
from tests.streams.web.parts import MemoryPublisher, Reader, Readers, Reply, Site, post, served


async def test_a_producer_that_failed_is_replaced() -> None:
    """The writer gets `NotDurable`, and the next write uses a new client."""
    cluster = Cluster()
    async with reconnecting(cluster) as producer:
        await producer.write("t", b"org/name", None, partition=2, headers=(("h", b"1"),))
        cluster.failed, cluster.refused_starts = [KafkaError("lost its sequence")], [KafkaConnectionError("away")]
        with pytest.raises(NotDurable, match=r"p\.t-2: records for p\.t could not be written: .*lost its sequence"):
            await producer.write("t", b"k", b"v", partition=2)
        unready = producer.ready()
        await producer.write("t", b"k", b"v", partition=1)
        ready = producer.ready()

    assert cluster.written == [("p.t", 2, 1), ("p.t", 1, 1)]
    assert (len(cluster.options), cluster.stopped) == (3, 3)
    assert (unready[0], ready[0]) == (False, True)
    assert unready[1]


async def test_connecting_is_retried_after_refused_connections() -> None:
    """The start does not wait, and the probe shows why no record can be written yet."""
    cluster = Cluster()
    cluster.refused_starts = [KafkaConnectionError("away")]
    async with reconnecting(cluster) as producer:
        before = producer.ready()
        await producer.write("t", b"k", b"v", partition=0)

    assert before == (False, "no broker has answered yet")
    assert len(cluster.options) == 2
    assert cluster.options[0]["request_timeout_ms"] == 4000


async def test_a_producer_whose_connection_task_died_shows_that_only_a_restart_helps(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """A supervisor restarts a process that is not healthy; to be not ready would last forever."""
    cluster = Cluster()
    async with reconnecting(cluster) as producer:
        await producer.write("topic", b"acme", b"1", partition=0)
        before = producer.ended
        connection = next(one for one in asyncio.all_tasks() if "_stay_connected" in repr(one.get_coro()))
        connection.cancel()
        await asyncio.gather(connection, return_exceptions=True)
        await asyncio.sleep(0)

        assert before is None
        assert producer.ended == "the connection to Kafka ended (cancelled): restart this process"
        assert producer.ready() == (False, producer.ended)
    assert "the connection to Kafka ended" in caplog.text


async def test_a_producer_that_is_stopped_has_not_died() -> None:
    async with reconnecting(Cluster()) as producer:
        await producer.write("topic", b"acme", b"1", partition=0)
    assert producer.ended is None


async def test_a_record_that_is_not_acknowledged_in_time_is_not_durable() -> None:
    """The record may still be written; the probe is not ready until a broker acknowledges again."""
    cluster = Cluster()
    cluster.available.clear()
    async with reconnecting(cluster, patience=0.1) as producer:
        with pytest.raises(NotDurable, match=r"no broker acknowledged within 0\.1 s"):
            await producer.write("t", b"k", b"v", partition=0)
        unready = producer.ready()
        cluster.available.set()
        await producer.write("t", b"k", b"v", partition=0)
        ready = producer.ready()

    assert (unready[0], ready[0]) == (False, True)
    assert cluster.records == 2


async def test_records_over_the_limit_of_bytes_are_refused_at_once() -> None:
    """A too large record, too many waiting bytes, and a stopped producer are refused."""
    cluster = Cluster()
    cluster.available.clear()
    async with reconnecting(cluster) as producer:
        with pytest.raises(TooLarge):
            await producer.write("t", b"k", bytes(MAX_RECORD_BYTES), partition=0)
        count = MAX_WAITING_BYTES // (MAX_RECORD_BYTES - 1)
        large = bytes(MAX_RECORD_BYTES - 2)
        writing = [asyncio.create_task(producer.write("t", b"k", large, partition=0)) for _ in range(count)]
        await asyncio.sleep(0)
        with pytest.raises(NotDurable, match="64 MiB wait already"):
            await producer.write("t", b"k", large, partition=0)
        cluster.available.set()
        await asyncio.gather(*writing)
    with pytest.raises(NotDurable, match="ends"):
        await producer.write("t", b"k", b"v", partition=0)


@asynccontextmanager
async def reconnecting(cluster: Cluster, patience: float = 7.0) -> AsyncIterator[ReconnectingProducer]:
    producer = ReconnectingProducer({"bootstrap_servers": "b:1"}, "p.", patience, make=cluster.client)
    await producer.start()
    try:
        yield producer
    finally:
        await producer.stop()


# ------------------------------------------------------------------------------------------------------------- on Kafka

PARTITIONS = 3


async def make_topic(kafka: str, name: str) -> None:
    admin = AIOKafkaAdminClient(bootstrap_servers=kafka)
    await admin.start()
    try:
        await admin.create_topics([NewTopic(name, PARTITIONS, 1)])
    finally:
        await admin.close()


async def written(kafka: str, topic: str) -> list[Any]:
    """Return every record of a topic."""
    consumer = AIOKafkaConsumer(bootstrap_servers=kafka, group_id=None, enable_auto_commit=False)
    await consumer.start()
    try:
        homes = [TopicPartition(topic, partition) for partition in range(PARTITIONS)]
        consumer.assign(homes)
        await consumer.seek_to_beginning()
        ends = await consumer.end_offsets(homes)
        found = []
        while any([await consumer.position(home) < ends[home] for home in homes]):
            for records in (await consumer.getmany(timeout_ms=500)).values():
                found += records
        return found
    finally:
        await consumer.stop()


@asynccontextmanager
async def producing(kafka: str, prefix: str = "", patience: float = 7.0) -> AsyncIterator[ReconnectingProducer]:
    producer = ReconnectingProducer({"bootstrap_servers": kafka}, prefix, patience)
    await producer.start()
    try:
        yield producer
    finally:
        await producer.stop()


@asynccontextmanager
async def ingress(kafka: str, prefix: str = "") -> AsyncIterator[Site]:
    async with producing(kafka, prefix) as producer:
        readers = Readers({f"c{number}": (Reader(org=f"org-{number}"),) for number in range(6)})
        app = build_ingress(readers, WebhookPublisher(producer, PARTITIONS), SystemClock())
        async with served(app) as port:
            yield Site(port, MemoryPublisher(), [])


def event(org: int, number: int) -> bytes:
    return post(f"/api/webhooks/buildium/c{org}", b'{"EventName":"E%d-%d"}' % (org, number))


@pytest.mark.broker
async def test_acknowledged_records_are_on_the_topic(kafka: str, topic_prefix: str) -> None:
    """Concurrent writers share writes; each record is stored once, with its org, in the order of its connection."""
    await make_topic(kafka, topic_prefix + "pms.webhooks")

    async def client(org: int) -> list[Reply]:
        return [await here.ask(event(org, number)) for number in range(20)]

    async with ingress(kafka, topic_prefix) as here:
        replies = [one for many in await asyncio.gather(*(client(org) for org in range(6))) for one in many]
    records = await written(kafka, topic_prefix + "pms.webhooks")
    events: dict[bytes, list[str]] = {}
    for record in records:
        notice = decode_as(FetchRequest, record.value)
        assert record.key == notice.org.encode()
        events.setdefault(record.key, []).append(notice.event)

    assert {reply.status for reply in replies} == {202}
    assert events == {b"org-%d" % org: [f"E{org}-{number}" for number in range(20)] for org in range(6)}
    assert len({record.partition for record in records if record.key == b"org-1"}) == 1


@pytest.mark.broker
async def test_an_outage_is_answered_with_503_and_then_recovered_from(own_kafka: EmbeddedKafka) -> None:
    """During an outage answers are in time and have Retry-After; afterwards records are written again."""
    kafka = own_kafka.bootstrap_servers
    await make_topic(kafka, "pms.webhooks")
    async with ingress(kafka) as here:
        before = await here.ask(event(1, 1), 10)
        await asyncio.to_thread(own_kafka.kill)
        began = time.monotonic()
        away = await asyncio.gather(*(here.ask(event(org, 2), 15) for org in range(6)))
        took = time.monotonic() - began
        await own_kafka.start_async()
        began = time.monotonic()
        async with asyncio.timeout(30):
            while (await here.ask(event(1, 3), 15)).status != 202:
                await asyncio.sleep(0.1)
        recovered = time.monotonic() - began
        after = await here.ask(event(2, 4), 10)
    seen = {decode_as(FetchRequest, record.value).event for record in await written(kafka, "pms.webhooks")}

    assert before.status == after.status == 202
    assert all(reply.is_problem(503) and int(reply.headers["retry-after"]) > 0 for reply in away)
    assert took < 9.5
    assert recovered < 15
    assert {"E1-1", "E1-3", "E2-4"} <= seen


@pytest.mark.broker
async def test_it_starts_without_a_broker(own_kafka: EmbeddedKafka) -> None:
    """The web role starts, is not ready at first, and is ready once a broker answers."""
    kafka = own_kafka.bootstrap_servers
    await make_topic(kafka, "pms.webhooks")
    await own_kafka.stop_async()
    async with producing(kafka, patience=1.0) as producer:
        await asyncio.sleep(0.3)
        early = producer.ready()
        with pytest.raises(NotDurable, match="no broker acknowledged within 1 s"):
            await producer.write("pms.webhooks", b"org", b"x", partition=0)
        await own_kafka.start_async()
        async with asyncio.timeout(20):
            while not producer.ready()[0]:
                await asyncio.sleep(0.05)
        await producer.write("pms.webhooks", b"org", b"y", partition=0)

    assert early[0] is False
    assert early[1]
    assert b"y" in [record.value for record in await written(kafka, "pms.webhooks")]


@pytest.mark.broker
async def test_a_topic_that_is_missing_is_not_durable(kafka: str, topic_prefix: str) -> None:
    """The topic is not created implicitly: the writer gets an error, and can write after the topic exists."""
    async with producing(kafka, topic_prefix) as producer:
        with pytest.raises(NotDurable):
            await producer.write("pms.webhooks", b"org", b"x", partition=0)
        await make_topic(kafka, topic_prefix + "pms.webhooks")
        async with asyncio.timeout(20):
            while True:
                try:
                    await producer.write("pms.webhooks", b"org", b"y", partition=0)
                except NotDurable:
                    continue
                break

    assert producer.ready()[0]


@pytest.mark.broker
async def test_a_stop_writes_the_accepted_records(kafka: str, topic_prefix: str) -> None:
    """Records accepted before the stop are written; later ones are refused."""
    await make_topic(kafka, topic_prefix + "pms.webhooks")
    producer = ReconnectingProducer({"bootstrap_servers": kafka}, topic_prefix)
    await producer.start()
    keys = [b"k%d" % number for number in range(50)]
    writing = [
        asyncio.create_task(producer.write("pms.webhooks", key, b"v", partition=partition_of(key, PARTITIONS)))
        for key in keys
    ]
    await asyncio.sleep(0)
    await producer.stop()
    await asyncio.gather(*writing)

    assert len(await written(kafka, topic_prefix + "pms.webhooks")) == 50
    with pytest.raises(NotDurable, match="ends"):
        await producer.write("pms.webhooks", b"k", b"v", partition=0)


@pytest.mark.broker
async def test_a_cancelled_write_is_not_written_later(own_kafka: EmbeddedKafka) -> None:
    """A record that was waiting when its writer was cancelled is not written after the outage."""
    kafka = own_kafka.bootstrap_servers
    await make_topic(kafka, "pms.webhooks")
    await own_kafka.stop_async()
    async with producing(kafka, patience=60) as producer:
        gone = asyncio.create_task(producer.write("pms.webhooks", b"org", b"gone", partition=0))
        await asyncio.sleep(0.1)
        gone.cancel()
        staying = asyncio.create_task(producer.write("pms.webhooks", b"org", b"staying", partition=0))
        await own_kafka.start_async()
        await asyncio.wait_for(staying, 30)

    assert [record.value for record in await written(kafka, "pms.webhooks")] == [b"staying"]
