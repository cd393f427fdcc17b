"""Kafka helpers of the engine and chaos tests: create topics, produce a load, read offsets and tables."""

import asyncio
import contextlib
import random
import time
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any

import aiokafka
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.errors import (
    CoordinatorLoadInProgressError,
    GroupCoordinatorNotAvailableError,
    KafkaTimeoutError,
    NotCoordinatorForGroupError,
)

from tests.chaos.tally import EVENT, Tally

PAD = b"x" * 84


@contextlib.asynccontextmanager
async def admin(bootstrap: str) -> AsyncIterator[Any]:
    client = AIOKafkaAdminClient(bootstrap_servers=bootstrap)
    await client.start()
    try:
        yield client
    finally:
        await client.close()


async def make_topics(
    bootstrap: str, partitions: int, plain: list[str], compacted: list[str], replication: int = 1
) -> None:
    """Create topics, plain and compacted ones, and wait until their leaders answer."""
    compact = {"cleanup.policy": "compact", "segment.ms": "10000", "min.cleanable.dirty.ratio": "0.1"}
    wanted = [NewTopic(name, partitions, replication) for name in plain]
    wanted += [NewTopic(name, partitions, replication, topic_configs=compact) for name in compacted]
    async with admin(bootstrap) as client:
        response = await client.create_topics(wanted)
        failed = [error for error in response.topic_errors if error[1] not in {0, 36}]
        assert not failed, failed
    consumer = aiokafka.AIOKafkaConsumer(bootstrap_servers=bootstrap)
    await consumer.start()
    try:
        parts = [aiokafka.TopicPartition(topic.name, p) for topic in wanted for p in range(partitions)]
        await wait_until(lambda: _have_ends(consumer, parts), 30)
    finally:
        await consumer.stop()


async def _have_ends(consumer: Any, parts: list[Any]) -> bool:
    try:
        return len(await consumer.end_offsets(parts)) == len(parts)
    except Exception:
        return False


async def wait_until(condition: Callable[[], Any], seconds: float, every: float = 0.2) -> None:
    """Wait until a condition (a function or an async function) is true. Raise `TimeoutError` after ``seconds``."""
    end = time.monotonic() + seconds
    while True:
        found = condition()
        if asyncio.iscoroutine(found):
            found = await found
        if found:
            return
        if time.monotonic() > end:
            raise TimeoutError(f"not true after {seconds} s")
        await asyncio.sleep(every)


class Load:
    """Produces events at a constant rate, numbered per key from 1; ``expected`` are the rows that they must lead to."""

    def __init__(
        self,
        bootstrap: str,
        topic: str,
        *,
        partitions: int,
        keys: int,
        rate: float,
        seed: int,
        most: int | None = None,
    ) -> None:
        self._bootstrap, self._topic, self._partitions = bootstrap, topic, partitions
        self._keys, self._rate, self._most = keys, rate, most
        self._random = random.Random(seed)
        self._task: asyncio.Task[None] | None = None
        self._stop = False
        self.expected: dict[bytes, Tally] = {}
        self.sent = 0

    def start(self) -> None:
        self._task = asyncio.create_task(self._run())

    async def stop(self) -> None:
        self._stop = True
        assert self._task is not None
        await self._task

    async def _run(self) -> None:
        producer = aiokafka.AIOKafkaProducer(
            bootstrap_servers=self._bootstrap, acks="all", enable_idempotence=True, linger_ms=2
        )
        await producer.start()
        started, futures = time.monotonic(), []
        try:
            while not self._stop:
                due = int((time.monotonic() - started) * self._rate)
                while self.sent < (due if self._most is None else min(due, self._most)):
                    futures.append(await self._send(producer))
                if len(futures) > 20_000:
                    await asyncio.gather(*futures)
                    futures.clear()
                await asyncio.sleep(0.01)
            await asyncio.gather(*futures)
        finally:
            await producer.stop()

    async def _send(self, producer: Any) -> Any:
        index = self._random.randrange(self._keys)
        key, amount = b"k%05d" % index, self._random.randrange(1000)
        number, events, total = self.expected.get(key, (0, 0, 0))
        self.expected[key] = (number + 1, events + 1, total + amount)
        self.sent += 1
        value = EVENT.pack(number + 1, amount) + PAD
        while True:
            try:
                return await producer.send(self._topic, value, key=key, partition=index % self._partitions)
            except KafkaTimeoutError:  # the producer did not take it, so a retry is not a duplicate
                await asyncio.sleep(0.1)


async def drained(bootstrap: str, group: str, topics: list[str], partitions: int) -> bool:
    """Return whether the group has committed every record of the topics."""
    consumer = aiokafka.AIOKafkaConsumer(bootstrap_servers=bootstrap)
    await consumer.start()
    try:
        parts = [aiokafka.TopicPartition(topic, p) for topic in topics for p in range(partitions)]
        ends = await consumer.end_offsets(parts)
    finally:
        await consumer.stop()
    committed = await committed_offsets(bootstrap, group)
    return all(end == 0 or committed.get(tp, 0) >= end for tp, end in ends.items())


async def in_sync(bootstrap: str, topics: list[str], replicas: int) -> bool:
    """Return whether every partition of the topics has so many replicas in sync."""
    async with admin(bootstrap) as client:
        described = await client.describe_topics(topics)
    return all(len(one["isr"]) == replicas for topic in described for one in topic["partitions"])


async def committed_offsets(bootstrap: str, group: str) -> dict[Any, int]:
    """Return the committed offsets of a group; empty while a restarted broker still loads its groups."""
    async with admin(bootstrap) as client:
        try:
            offsets = await client.list_consumer_group_offsets(group)
        except (GroupCoordinatorNotAvailableError, NotCoordinatorForGroupError, CoordinatorLoadInProgressError):
            return {}
    return {tp: committed.offset for tp, committed in offsets.items() if committed.offset >= 0}


async def last_values(bootstrap: str, topic: str, partitions: int) -> Mapping[bytes, bytes]:
    """Return the last value of every key of a compacted topic."""
    consumer = aiokafka.AIOKafkaConsumer(bootstrap_servers=bootstrap, auto_offset_reset="earliest")
    await consumer.start()
    rows: dict[bytes, bytes] = {}
    try:
        parts = [aiokafka.TopicPartition(topic, p) for p in range(partitions)]
        consumer.assign(parts)
        ends = await consumer.end_offsets(parts)
        await consumer.seek_to_beginning(*parts)
        while any([await consumer.position(tp) < end for tp, end in ends.items()]):
            for records in (await consumer.getmany(timeout_ms=500)).values():
                for record in records:
                    if record.value is None:
                        rows.pop(record.key, None)
                    else:
                        rows[record.key] = record.value
    finally:
        await consumer.stop()
    return rows
