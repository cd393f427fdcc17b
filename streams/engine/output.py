"""Everything that the engine writes to Kafka: one idempotent producer, every batch confirmed by all replicas."""

import asyncio
import logging
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import aiokafka
from aiokafka.errors import KafkaTimeoutError, MessageSizeTooLargeError

from streams.core.flows import Headers, ProducerRecord
from streams.engine.fence import Fence
from streams.engine.settings import EngineSettings

log = logging.getLogger("streams.engine")

Entry = tuple[bytes, bytes | None, Headers]
"""Key, value, headers."""

Batch = Any
"""aiokafka's ``BatchBuilder``; the package publishes no types."""


_NO_HEADERS: list[tuple[str, bytes]] = []


class TooLarge(ValueError):  # noqa: N818
    """A record is larger than the engine, or its topic, takes."""


class Output:
    """Appends batches to partitions and returns when they are durable, unless the lease is lost meanwhile."""

    def __init__(self, settings: EngineSettings, lease: Fence) -> None:
        self._settings = settings
        self._lease = lease
        self._producer = aiokafka.AIOKafkaProducer(
            bootstrap_servers=settings.servers,
            client_id=f"{settings.app_id}-{settings.worker}",
            acks="all",
            enable_idempotence=True,
            linger_ms=0,
            compression_type=settings.compression,
            max_batch_size=settings.produce_batch_bytes,
            max_request_size=settings.max_request_size,
            request_timeout_ms=int(settings.request_timeout * 1000),
            **settings.security,
        )

    async def start(self) -> None:
        await self._producer.start()
        self._check_at_the_socket()

    def _check_at_the_socket(self) -> None:
        """Check the lease in the very step in which bytes leave the process, also when aiokafka tries again by itself.

        What was handed to the producer just before the process stood still would otherwise go out as soon as it wakes,
        on top of what the next owner has written.
        """
        client, lease = self._producer.client, self._lease
        send = client.send

        async def checked(node: int, request: Any, **kwargs: Any) -> Any:
            lease.check()
            return await send(node, request, **kwargs)

        client.send = checked

    async def stop(self) -> None:
        await self._producer.stop()

    async def append(self, topic: str, partition: int, entries: Sequence[Entry]) -> int | None:
        """Write in order; return the offset of the last record (``None`` if the broker did not tell)."""
        sent = []
        at = 0
        while at < len(entries):
            count, batch = self._pack(topic, entries, at)
            self._lease.check()
            sent.append((count, await self._send(batch, topic, partition)))
            at += count
        last = None
        for count, future in sent:
            try:
                base = (await future).offset
            except MessageSizeTooLargeError as error:
                raise TooLarge(
                    f"topic {topic} does not take a batch of {count} records; its max.message.bytes must be at least "
                    f"{self._settings.produce_batch_bytes}, and hold the largest record"
                ) from error
            last = base + count - 1 if base is not None and base >= 0 else None
        self._lease.check()
        return last

    async def effects(self, partition: int, effects: Sequence[ProducerRecord]) -> dict[str, int]:
        """Write all, in order per topic, to the same partition of their topics; return how many went to each."""
        by_topic: defaultdict[str, list[Entry]] = defaultdict(list)
        for effect in effects:
            by_topic[effect.topic].append((effect.key, effect.value, effect.headers))
        if len(by_topic) == 1:
            [(topic, entries)] = by_topic.items()
            await self.append(topic, partition, entries)
        else:
            await asyncio.gather(*(self.append(topic, partition, entries) for topic, entries in by_topic.items()))
        return {topic: len(entries) for topic, entries in by_topic.items()}

    def _pack(self, topic: str, entries: Sequence[Entry], at: int) -> tuple[int, Batch]:
        batch = self._producer.create_batch()
        append = batch.append
        count = 0
        for index in range(at, len(entries)):
            key, value, headers = entries[index]
            if append(timestamp=None, key=key, value=value, headers=[*headers] if headers else _NO_HEADERS) is None:
                break
            count += 1
        if count == 0 or batch.size() > self._settings.max_request_size:
            size = len(entries[at][0]) + len(entries[at][1] or b"")
            raise TooLarge(
                f"a record of {size} bytes for topic {topic} is over {self._settings.max_request_size} bytes"
            )
        batch.close()
        return count, batch

    async def _send(self, batch: Batch, topic: str, partition: int) -> asyncio.Future[Any]:
        """Hand over to the producer, which then tries until it succeeds; until then, wait for brokers."""
        while True:
            try:
                sent: asyncio.Future[Any] = await self._producer.send_batch(batch, topic, partition=partition)
            except KafkaTimeoutError:
                log.warning("No broker takes records for %s-%d; trying again", topic, partition)
                self._lease.check()
            else:
                return sent
