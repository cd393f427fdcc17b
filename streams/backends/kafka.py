"""The log on Kafka: aiokafka behind `streams.backends.ports`, and the only place of the shells that knows the prefix."""

import asyncio
import contextlib
import logging
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import aiokafka
from aiokafka.abc import ConsumerRebalanceListener
from aiokafka.coordinator.assignors.range import RangePartitionAssignor
from aiokafka.errors import (
    CommitFailedError,
    IllegalStateError,
    KafkaError,
    KafkaTimeoutError,
    MessageSizeTooLargeError,
)

from schemas.partitions import partition_of
from streams.backends.ports import NOWHERE, BackendError, ConsumedRecord, Listener, NotOwner, Partition, TooLarge
from streams.core.flows import ProducerRecord, Record

log = logging.getLogger("streams.runners")

MIB = 1 << 20

READER_WAIT_MS = 100
"""Milliseconds that a broker may hold a reader's fetch: what it reads shall take effect everywhere at once."""
READER_SECONDS = 10.0
"""Seconds after which a reader's request is given up, at most; it is then made again with a new connection."""


@dataclass(frozen=True, slots=True, kw_only=True)
class KafkaBackendSettings:
    """How to talk to one cluster; every number with its unit and the reason for its default."""

    bootstrap_servers: str
    prefix: str = ""
    """Before every name of a topic and of a group."""
    security: Mapping[str, Any] = field(default_factory=dict)
    """What aiokafka's clients take beside the servers."""
    client_id: str = "rentstream"
    session_timeout: float = 10.0
    """Seconds without a heartbeat after which the broker gives our partitions to others: the pause after a kill."""
    heartbeat_interval: float = 1.0
    rebalance_timeout: float = 30.0
    """Seconds that a member may take to finish what is in flight when partitions move."""
    max_poll_interval: float = 300.0
    """Seconds without a fetch after which a member leaves the group by itself: it hangs."""
    fetch_wait_ms: int = 250
    """Milliseconds that a broker may hold a fetch that finds nothing; a resumed partition waits at most as long."""
    fetch_bytes: int = MIB
    """Bytes of one partition that a fetch brings at most (a larger single record comes all the same)."""
    request_timeout: float = 40.0
    """Seconds after which a request is given up and made again."""
    patience: float = 120.0
    """Seconds that fetching may go on failing, with errors that can pass, before it is fatal."""
    batch_bytes: int = 512 * 1024
    """Bytes of one produced batch; below the topics' ``max.message.bytes``."""
    max_request_size: int = 8 * MIB
    """Bytes of the largest record, as the topics have it."""
    compression: str | None = "lz4"

    @property
    def max_record(self) -> int:
        """Bytes of key and value together; the rest is room for headers, so what was read can always be parked."""
        return self.max_request_size - 64 * 1024

    def client(self) -> dict[str, Any]:
        return {
            "bootstrap_servers": [one.strip() for one in self.bootstrap_servers.split(",") if one.strip()],
            "client_id": self.client_id,
            "request_timeout_ms": round(self.request_timeout * 1000),
            "metadata_max_age_ms": 60_000,
            **self.security,
        }


class KafkaBackend:
    """One cluster, as seen by one process; see `streams.backends.ports.Log`."""

    def __init__(self, settings: KafkaBackendSettings) -> None:
        self.settings = settings

    def consumer(self, group: str, topics: Sequence[str], listener: Listener) -> "KafkaConsumer":
        return KafkaConsumer(self.settings, group, topics, listener)

    def producer(self) -> "KafkaProducer":
        return KafkaProducer(self.settings)

    def reader(self, topics: Sequence[str], positions: Mapping[Partition, int] = NOWHERE) -> "KafkaReader":
        return KafkaReader(self.settings, topics, positions)

    async def last(self, topic: str, partitions: Collection[int], count: int = 1) -> Mapping[int, Sequence[Record]]:
        settings = self.settings
        found: dict[int, list[Record]] = {number: [] for number in partitions}
        if not found:
            return found
        consumer = aiokafka.AIOKafkaConsumer(enable_auto_commit=False, fetch_max_wait_ms=20, **settings.client())
        try:
            await consumer.start()
            asked = [aiokafka.TopicPartition(settings.prefix + topic, number) for number in partitions]
            consumer.assign(asked)
            begins, ends = await consumer.beginning_offsets(asked), await consumer.end_offsets(asked)
            for one in asked:
                consumer.seek(one, max(begins[one], ends[one] - count))
            wanted = {one for one in asked if begins[one] < ends[one]}
            while wanted:
                for one, records in (await consumer.getmany(*wanted, timeout_ms=1000)).items():
                    found[one.partition] += [_arrived(topic, record) for record in records]
                wanted = {one for one in wanted if await consumer.position(one) < ends[one]}
        except KafkaError as error:
            raise BackendError(f"the end of {topic} cannot be read: {error!r}") from error
        finally:
            await _stop(consumer)
        return {number: records[-count:] for number, records in found.items()}


def _arrived(topic: str, record: Any) -> ConsumedRecord:
    return ConsumedRecord(
        topic, record.partition, record.offset, record.timestamp, record.key, record.value, record.headers
    )


async def _stop(client: Any, within: float = 10.0) -> None:
    """Stop a client, but do not wait for a broker that is away.

    In a task of its own: aiokafka may let a cancellation of its inside out, and that is none of ours.
    """
    stopping = asyncio.ensure_future(client.stop())
    _, late = await asyncio.wait({stopping}, timeout=within)
    if late:
        stopping.cancel()
        await asyncio.gather(stopping, return_exceptions=True)
        log.warning("A Kafka client did not stop within %g s", within)
    elif stopping.cancelled():
        log.warning("A Kafka client broke off what it was doing to stop")
    elif error := stopping.exception():
        log.warning("A Kafka client did not stop cleanly: %r", error)


class KafkaConsumer:
    """A member of a group; see `streams.backends.ports.Consumer`."""

    def __init__(self, settings: KafkaBackendSettings, group: str, topics: Sequence[str], listener: Listener) -> None:
        self._settings = settings
        self._names = {settings.prefix + topic: topic for topic in topics}
        self._group = settings.prefix + group
        self._listener = _Listener(self, listener)
        self._consumer: Any = None
        self.failed: Exception | None = None
        """What the listener raised: aiokafka would only log it."""

    async def start(self) -> None:
        settings = self._settings
        self._consumer = aiokafka.AIOKafkaConsumer(
            group_id=self._group,
            group_instance_id=None,
            enable_auto_commit=False,
            auto_offset_reset="earliest",
            # Of all strategies only this one gives a member the same partition numbers of every topic.
            partition_assignment_strategy=(RangePartitionAssignor,),
            session_timeout_ms=round(settings.session_timeout * 1000),
            heartbeat_interval_ms=round(settings.heartbeat_interval * 1000),
            rebalance_timeout_ms=round(settings.rebalance_timeout * 1000),
            max_poll_interval_ms=round(settings.max_poll_interval * 1000),
            fetch_max_wait_ms=settings.fetch_wait_ms,
            max_partition_fetch_bytes=settings.fetch_bytes,
            **settings.client(),
        )
        self._consumer.subscribe(sorted(self._names), listener=self._listener)
        try:
            await self._consumer.start()
        except KafkaError as error:
            await self.stop()
            raise BackendError(f"group {self._group} cannot start: {error!r}") from error

    async def stop(self) -> None:
        if self._consumer is not None:
            await _stop(self._consumer)

    @property
    def assignment(self) -> frozenset[Partition]:
        return frozenset(self.ours(self._consumer.assignment()))

    def ours(self, partitions: Collection[Any]) -> list[Partition]:
        return [Partition(self._names[one.topic], one.partition) for one in partitions]

    def _theirs(self, partition: Partition) -> Any:
        return aiokafka.TopicPartition(self._settings.prefix + partition.topic, partition.partition)

    async def fetch(self, max_records: int) -> Mapping[Partition, Sequence[Record]]:
        loop = asyncio.get_running_loop()
        failing_since: float | None = None
        while True:
            try:
                found = await self._consumer.getmany(timeout_ms=1000, max_records=max_records)
            except KafkaError as error:
                # Whatever cannot pass by itself is fatal: aiokafka may raise it for ever, and fetch nothing.
                failing_since = failing_since or loop.time()
                if not error.retriable or loop.time() - failing_since > self._settings.patience:
                    raise BackendError(f"group {self._group} cannot fetch: {error!r}") from error
                log.warning("Group %s: fetching failed, trying again: %r", self._group, error)
                await asyncio.sleep(0.2)
                continue
            failing_since = None
            if self.failed is not None:
                raise self.failed
            if found:
                names = self._names
                return {
                    Partition(names[one.topic], one.partition): [
                        _arrived(names[one.topic], record) for record in records
                    ]
                    for one, records in found.items()
                }

    def pause(self, partition: Partition) -> None:
        with contextlib.suppress(IllegalStateError):
            self._consumer.pause(self._theirs(partition))

    def resume(self, partition: Partition) -> None:
        with contextlib.suppress(IllegalStateError):
            self._consumer.resume(self._theirs(partition))

    def seek(self, partition: Partition, offset: int) -> None:
        with contextlib.suppress(IllegalStateError):
            self._consumer.seek(self._theirs(partition), offset)

    async def commit(self, offsets: Mapping[Partition, int]) -> None:
        try:
            await self._consumer.commit({self._theirs(one): offset for one, offset in offsets.items()})
        except (CommitFailedError, IllegalStateError) as error:
            raise NotOwner(f"group {self._group} has moved its partitions") from error
        except KafkaError as error:
            raise BackendError(f"group {self._group} cannot commit: {error!r}") from error


class _Listener(ConsumerRebalanceListener):  # type: ignore[misc]
    """Passes on what aiokafka says of a rebalance."""

    def __init__(self, consumer: KafkaConsumer, listener: Listener) -> None:
        self._consumer = consumer
        self._listener = listener

    async def on_partitions_revoked(self, revoked: Collection[Any]) -> None:
        try:
            await self._listener.revoked(self._consumer.ours(revoked))
        except Exception as error:
            self._consumer.failed = error

    async def on_partitions_assigned(self, assigned: Collection[Any]) -> None:
        try:
            await self._listener.assigned(self._consumer.ours(assigned))
        except Exception as error:
            self._consumer.failed = error


class KafkaReader:
    """Reads without a group; see `streams.backends.ports.Reader`."""

    def __init__(
        self, settings: KafkaBackendSettings, topics: Sequence[str], positions: Mapping[Partition, int]
    ) -> None:
        self._settings = settings
        self._topics = tuple(topics)
        self._begin = positions
        self._seconds = min(settings.request_timeout, READER_SECONDS)
        self._consumer: Any = None
        self._partitions: dict[Any, Partition] = {}
        self._positions: dict[Partition, int] = {}

    @property
    def positions(self) -> Mapping[Partition, int]:
        return self._positions

    async def start(self) -> None:
        settings = self._settings
        client = settings.client() | {"request_timeout_ms": round(self._seconds * 1000)}
        consumer = self._consumer = aiokafka.AIOKafkaConsumer(
            *(settings.prefix + topic for topic in self._topics),
            enable_auto_commit=False,
            auto_offset_reset="earliest",
            fetch_max_wait_ms=min(settings.fetch_wait_ms, READER_WAIT_MS),
            max_partition_fetch_bytes=settings.fetch_bytes,
            **client,
        )
        try:
            async with asyncio.timeout(self._seconds):
                await consumer.start()
        except (KafkaError, TimeoutError) as error:
            await self.stop()
            raise BackendError(f"{', '.join(self._topics)} cannot be read: {error!r}") from error
        # A subscription would take the partitions away, and give them again from their beginning, whenever a broker
        # answers without them for a moment; so what it found is assigned for good.
        found = sorted(consumer.assignment())
        names = {settings.prefix + topic: topic for topic in self._topics}
        self._partitions = {one: Partition(names[one.topic], one.partition) for one in found}
        self._positions = {ours: self._begin.get(ours, 0) for ours in self._partitions.values()}
        consumer.unsubscribe()
        consumer.assign(found)
        for one, ours in self._partitions.items():
            consumer.seek(one, self._positions[ours])

    async def stop(self) -> None:
        if self._consumer is not None:
            await _stop(self._consumer)

    async def fetch(self, max_records: int) -> Mapping[Partition, Sequence[Record]]:
        try:
            fetched = await self._consumer.getmany(timeout_ms=500, max_records=max_records)
            if not fetched:
                # Compaction may leave nothing at the end of a partition: the position moves without a record.
                for one, ours in self._partitions.items():
                    self._positions[ours] = max(self._positions[ours], await self._consumer.position(one))
        except KafkaError as error:
            raise BackendError(f"{', '.join(self._topics)} cannot be read: {error!r}") from error
        found: dict[Partition, Sequence[Record]] = {}
        for one, records in fetched.items():
            ours = self._partitions[one]
            # After an offset that is out of range aiokafka begins again: what is known already is not given twice.
            new = [_arrived(ours.topic, record) for record in records if record.offset >= self._positions[ours]]
            if new:
                found[ours] = new
                self._positions[ours] = new[-1].offset + 1
        return found

    async def ends(self) -> Mapping[Partition, int]:
        try:
            ends = await self._consumer.end_offsets(list(self._partitions))
        except KafkaError as error:
            raise BackendError(f"the ends of {', '.join(self._topics)} cannot be read: {error!r}") from error
        return {self._partitions[one]: offset for one, offset in ends.items()}


class KafkaProducer:
    """One idempotent producer, confirmed by all replicas; tries until it succeeds, however long the broker is away."""

    _MANY = 16
    """From so many records for one partition on, a batch of our own is cheaper than as many futures."""

    def __init__(self, settings: KafkaBackendSettings) -> None:
        self._settings = settings
        self._producer: Any = None

    async def start(self) -> None:
        settings = self._settings
        self._producer = aiokafka.AIOKafkaProducer(
            acks="all",
            enable_idempotence=True,
            linger_ms=0,
            compression_type=settings.compression,
            max_batch_size=settings.batch_bytes,
            max_request_size=settings.max_request_size,
            **settings.client(),
        )
        try:
            await self._producer.start()
        except KafkaError as error:
            await self.stop()
            raise BackendError(f"the producer cannot start: {error!r}") from error

    async def stop(self) -> None:
        if self._producer is not None:
            await _stop(self._producer)

    async def send(self, records: Sequence[ProducerRecord], partition: int | None = None) -> None:
        most = self._settings.max_record
        for record in records:
            if len(record.key) + len(record.value or b"") > most:
                raise TooLarge(f"a record for {record.topic} is over {most} bytes")
        try:
            groups = await self._by_partition(records, partition)
            await asyncio.gather(*(self._append(topic, number, group) for (topic, number), group in groups.items()))
        except MessageSizeTooLargeError as error:
            raise BackendError(f"a topic takes no records of {most} bytes: max.message.bytes is too low") from error
        except KafkaError as error:
            raise BackendError(f"records could not be written: {error!r}") from error

    async def _by_partition(
        self, records: Sequence[ProducerRecord], partition: int | None
    ) -> dict[tuple[str, int], list[ProducerRecord]]:
        groups: defaultdict[tuple[str, int], list[ProducerRecord]] = defaultdict(list)
        counts: dict[str, int] = {}
        for record in records:
            number = partition
            if number is None:
                if record.topic not in counts:
                    counts[record.topic] = len(
                        await self._producer.partitions_for(self._settings.prefix + record.topic)
                    )
                number = partition_of(record.key, counts[record.topic])
            groups[record.topic, number].append(record)
        return groups

    async def _append(self, topic: str, partition: int, records: Sequence[ProducerRecord]) -> None:
        """Write in order, and return when all is confirmed."""
        name = self._settings.prefix + topic
        sent = []
        at = 0
        while at < len(records):
            if len(records) < self._MANY:
                count, sending = 1, self._one(name, partition, records[at])
            else:
                count, sending = self._batch(name, partition, records[at:])
            try:
                sent.append(await sending)
            except KafkaTimeoutError:
                # Nothing was taken over yet, so to try again duplicates nothing.
                log.warning("No broker takes records for %s-%d; trying again", name, partition)
                continue
            at += count
        await asyncio.gather(*sent)

    def _one(self, name: str, partition: int, record: ProducerRecord) -> Any:
        return self._producer.send(
            name, record.value, key=record.key, partition=partition, headers=list(record.headers)
        )

    def _batch(self, name: str, partition: int, records: Sequence[ProducerRecord]) -> tuple[int, Any]:
        batch = self._producer.create_batch()
        count = 0
        for record in records:
            headers = list(record.headers)
            if batch.append(timestamp=None, key=record.key, value=record.value, headers=headers) is None:
                break
            count += 1
        batch.close()
        return count, self._producer.send_batch(batch, name, partition=partition)
