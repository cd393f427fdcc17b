"""The ingress on a real Kafka: what was answered with 202 is there, and a broker that was away is found again."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic

from connectors.clock import SystemClock
from schemas.codec import decode_as
from schemas.pms import FetchRequest
from streams.backends.producer import Producer, WebhookPublisher
from streams.local.embedded_kafka import EmbeddedKafka
from streams.web.ingress import build_ingress
from streams.web.publisher import NotDurable
from tests.streams.web.parts import Kept, Reader, Readers, Reply, Site, post, served

PARTITIONS = 3


async def make_topic(kafka: str, name: str) -> None:
    admin = AIOKafkaAdminClient(bootstrap_servers=kafka)
    await admin.start()
    try:
        await admin.create_topics([NewTopic(name, PARTITIONS, 1)])
    finally:
        await admin.close()


async def written(kafka: str, topic: str) -> list[Any]:
    """Every record of a topic."""
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
async def producing(kafka: str, prefix: str = "", patience: float = 7.0) -> AsyncIterator[Producer]:
    producer = Producer({"bootstrap_servers": kafka}, PARTITIONS, prefix, patience)
    await producer.start()
    try:
        yield producer
    finally:
        await producer.stop()


@asynccontextmanager
async def ingress(kafka: str, prefix: str = "") -> AsyncIterator[Site]:
    async with producing(kafka, prefix) as producer:
        readers = Readers({f"c{number}": (Reader(org=f"org-{number}"),) for number in range(6)})
        app = build_ingress(readers, WebhookPublisher(producer), SystemClock())
        async with served(app) as port:
            yield Site(port, Kept(), [])


def event(org: int, number: int) -> bytes:
    return post(f"/api/webhooks/buildium/c{org}", b'{"EventName":"E%d-%d"}' % (org, number))


@pytest.mark.broker
async def test_what_was_answered_is_there(kafka: str, topic_prefix: str) -> None:
    """Many at once share their writes; each is there once, under its org, in the order of its connection."""
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
async def test_a_broker_that_is_away_is_503_and_then_found_again(own_kafka: EmbeddedKafka) -> None:
    """While the broker is down the answer comes in time, with Retry-After; when it is back, all is well by itself."""
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
async def test_a_start_without_a_broker_is_a_start(own_kafka: EmbeddedKafka) -> None:
    """The web role comes up, says that it is not ready, and is ready once a broker answers."""
    kafka = own_kafka.bootstrap_servers
    await make_topic(kafka, "pms.webhooks")
    await own_kafka.stop_async()
    async with producing(kafka, patience=1.0) as producer:
        await asyncio.sleep(0.3)
        early = producer.ready()
        with pytest.raises(NotDurable, match="no broker confirmed within 1 s"):
            await producer.write("pms.webhooks", b"org", b"x")
        await own_kafka.start_async()
        async with asyncio.timeout(20):
            while not producer.ready()[0]:
                await asyncio.sleep(0.05)
        await producer.write("pms.webhooks", b"org", b"y")

    assert early[0] is False
    assert early[1]
    assert b"y" in [record.value for record in await written(kafka, "pms.webhooks")]


@pytest.mark.broker
async def test_a_topic_that_is_missing_is_not_durable(kafka: str, topic_prefix: str) -> None:
    """Nobody makes topics by accident: the writer is told, and the next write works once the topic is there."""
    async with producing(kafka, topic_prefix) as producer:
        with pytest.raises(NotDurable):
            await producer.write("pms.webhooks", b"org", b"x")
        await make_topic(kafka, topic_prefix + "pms.webhooks")
        async with asyncio.timeout(20):
            while True:
                try:
                    await producer.write("pms.webhooks", b"org", b"y")
                except NotDurable:
                    continue
                break

    assert producer.ready()[0]


@pytest.mark.broker
async def test_a_stop_writes_what_was_taken(kafka: str, topic_prefix: str) -> None:
    """What waits when the process is told to stop still goes out; what comes later is refused."""
    await make_topic(kafka, topic_prefix + "pms.webhooks")
    producer = Producer({"bootstrap_servers": kafka}, PARTITIONS, topic_prefix)
    await producer.start()
    writing = [asyncio.create_task(producer.write("pms.webhooks", b"k%d" % n, b"v")) for n in range(50)]
    await asyncio.sleep(0)
    await producer.stop()
    await asyncio.gather(*writing)

    assert len(await written(kafka, topic_prefix + "pms.webhooks")) == 50
    with pytest.raises(NotDurable, match="ends"):
        await producer.write("pms.webhooks", b"k", b"v")


@pytest.mark.broker
async def test_a_writer_that_gives_up_is_not_written_later(own_kafka: EmbeddedKafka) -> None:
    """What was still waiting when its writer left costs nothing when the broker is back."""
    kafka = own_kafka.bootstrap_servers
    await make_topic(kafka, "pms.webhooks")
    await own_kafka.stop_async()
    async with producing(kafka, patience=60) as producer:
        gone = asyncio.create_task(producer.write("pms.webhooks", b"org", b"gone"))
        await asyncio.sleep(0.1)
        gone.cancel()
        staying = asyncio.create_task(producer.write("pms.webhooks", b"org", b"staying"))
        await own_kafka.start_async()
        await asyncio.wait_for(staying, 30)

    assert [record.value for record in await written(kafka, "pms.webhooks")] == [b"staying"]
