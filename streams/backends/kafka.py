"""The backend on Kafka: aiokafka behind `streams.backends.ports`, which adds and removes the prefix of names."""

import asyncio
import contextlib
import logging
from collections import deque
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import aiokafka
from aiokafka.abc import ConsumerRebalanceListener
from aiokafka.coordinator.assignors.range import RangePartitionAssignor
from aiokafka.errors import CommitFailedError, IllegalStateError, KafkaError

from schemas.partitions import partition_of
from streams.backends.deadlines import stop_client
from streams.backends.group_commit import GroupCommit
from streams.backends.membership import Membership
from streams.backends.ports import (
    NOWHERE,
    BackendError,
    ConsumedRecord,
    Listener,
    NotOwner,
    Ownership,
    Partition,
    checked_size,
)
from streams.backends.writer import BatchWriter, Entry
from streams.core.flows import ProducerRecord, Record

log = logging.getLogger("streams.backends.kafka")

MIB = 1 << 20

SKIP_RECORDS = 500
"""Records that are read and left out rather than sought."""

READER_WAIT_MS = 100
"""Milliseconds that a broker may hold a reader's fetch; short, so that changes take effect in every process soon."""
READER_SECONDS = 10.0
"""Timeout of a reader's request in seconds; it is then repeated with a new connection."""


@dataclass(frozen=True, slots=True, kw_only=True)
class KafkaBackendSettings:
    """How to reach one cluster; every number with its unit and the reason for its default."""

    bootstrap_servers: str
    prefix: str = ""
    """The prefix of every name of a topic or group."""
    security: Mapping[str, Any] = field(default_factory=dict)
    """Options of aiokafka's clients for TLS and SASL."""
    client_id: str = "rentstream"
    session_timeout: float = 10.0
    """Seconds without a heartbeat after which the partitions of a member are reassigned: the pause after a kill."""
    heartbeat_interval: float = 1.0
    rebalance_timeout: float = 30.0
    """Seconds that a member may take to finish records in flight during a rebalance."""
    max_poll_interval: float = 300.0
    """Seconds without a fetch after which a member leaves the group, because it hangs."""
    fetch_wait_ms: int = 250
    """Milliseconds that a broker may hold an empty fetch; a resumed partition waits at most as long."""
    fetch_bytes: int = MIB
    """The most bytes of one partition in one fetch, except for a single larger record."""
    request_timeout: float = 40.0
    """Seconds after which a request to a broker is repeated."""
    patience: float = 120.0
    """Seconds of consecutive transient errors of fetches after which they are fatal."""

    def client(self) -> dict[str, Any]:
        """Return the options that consumers and producers have in common."""
        return {
            "bootstrap_servers": [one.strip() for one in self.bootstrap_servers.split(",") if one.strip()],
            "client_id": self.client_id,
            "request_timeout_ms": round(self.request_timeout * 1000),
            "metadata_max_age_ms": 60_000,
            **self.security,
        }


class KafkaBackend:
    """One cluster, as seen by one process; see `streams.backends.ports.Backend`."""

    def __init__(self, settings: KafkaBackendSettings) -> None:
        self.settings = settings

    def consumer(self, group: str, topics: Sequence[str], listener: Listener) -> "KafkaConsumer":
        return KafkaConsumer(self.settings, group, topics, listener)

    def producer(self, owner: Ownership | None = None) -> "KafkaProducer":
        return KafkaProducer(self.settings, owner)

    def reader(self, topics: Sequence[str], positions: Mapping[Partition, int] = NOWHERE) -> "KafkaReader":
        return KafkaReader(self.settings, topics, positions)

    async def read(self, topic: str, partition: int, offsets: Sequence[int]) -> Mapping[int, Record]:
        settings = self.settings
        found: dict[int, ConsumedRecord] = {}
        asked = frozenset(offsets)
        consumer = aiokafka.AIOKafkaConsumer(enable_auto_commit=False, fetch_max_wait_ms=20, **settings.client())
        try:
            async with asyncio.timeout(settings.request_timeout):
                await self._read(consumer, aiokafka.TopicPartition(settings.prefix + topic, partition), asked, found)
        except (KafkaError, TimeoutError) as error:
            raise BackendError(f"records of {topic} cannot be read: {error!r}") from error
        finally:
            await stop_client(consumer)
        return {offset: record._replace(topic=topic) for offset, record in sorted(found.items())}

    @staticmethod
    async def _read(consumer: Any, place: Any, asked: frozenset[int], found: dict[int, ConsumedRecord]) -> None:
        """Read the records at some offsets of a partition; ones that are far from each other are sought."""
        await consumer.start()
        consumer.assign([place])
        begin = (await consumer.beginning_offsets([place]))[place]
        end = (await consumer.end_offsets([place]))[place]
        wanted = deque(offset for offset in sorted(asked) if begin <= offset < end)
        position: int | None = None
        while wanted:
            if position is None or wanted[0] - position > SKIP_RECORDS:
                consumer.seek(place, wanted[0])
            fetched = await consumer.getmany(place, timeout_ms=1000, max_records=SKIP_RECORDS)
            for record in fetched.get(place, ()):
                if record.offset in asked:
                    found[record.offset] = _arrived(place.topic, record)
            position = await consumer.position(place)
            while wanted and wanted[0] < position:
                wanted.popleft()

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
            await stop_client(consumer)
        return {number: records[-count:] for number, records in found.items()}


def _arrived(topic: str, record: Any) -> ConsumedRecord:
    return ConsumedRecord(
        topic, record.partition, record.offset, record.timestamp, record.key, record.value, record.headers
    )


class KafkaConsumer:
    """A member of a group; see `streams.backends.ports.Consumer`."""

    def __init__(self, settings: KafkaBackendSettings, group: str, topics: Sequence[str], listener: Listener) -> None:
        self._settings = settings
        self._names = {settings.prefix + topic: topic for topic in topics}
        self._group = settings.prefix + group
        self._listener = _Listener(self, listener)
        self._consumer: Any = None
        self.ownership = Membership(settings.session_timeout, settings.rebalance_timeout)
        self.failed: Exception | None = None
        """What the listener raised: aiokafka would only log it."""

    async def start(self) -> None:
        settings = self._settings
        self._consumer = aiokafka.AIOKafkaConsumer(
            group_id=self._group,
            group_instance_id=None,
            enable_auto_commit=False,
            auto_offset_reset="earliest",
            # The only strategy that assigns to a member the same partition numbers of every topic.
            partition_assignment_strategy=(RangePartitionAssignor,),
            session_timeout_ms=round(settings.session_timeout * 1000),
            heartbeat_interval_ms=round(settings.heartbeat_interval * 1000),
            rebalance_timeout_ms=round(settings.rebalance_timeout * 1000),
            max_poll_interval_ms=round(settings.max_poll_interval * 1000),
            fetch_max_wait_ms=settings.fetch_wait_ms,
            max_partition_fetch_bytes=settings.fetch_bytes,
            **settings.client(),
        )
        self.ownership.watch(self._consumer._client)  # noqa: SLF001
        self._consumer.subscribe(sorted(self._names), listener=self._listener)
        try:
            await self._consumer.start()
        except KafkaError as error:
            await self.stop()
            raise BackendError(f"group {self._group} cannot start: {error!r}") from error

    async def stop(self) -> None:
        if self._consumer is not None:
            await stop_client(self._consumer)

    @property
    def assignment(self) -> frozenset[Partition]:
        return frozenset(self.without_prefix(self._consumer.assignment()))

    def without_prefix(self, partitions: Collection[Any]) -> list[Partition]:
        return [Partition(self._names[one.topic], one.partition) for one in partitions]

    def _with_prefix(self, partition: Partition) -> Any:
        return aiokafka.TopicPartition(self._settings.prefix + partition.topic, partition.partition)

    async def fetch(self, max_records: int) -> Mapping[Partition, Sequence[Record]]:
        loop = asyncio.get_running_loop()
        failing_since: float | None = None
        while True:
            try:
                found = await self._consumer.getmany(timeout_ms=1000, max_records=max_records)
            except KafkaError as error:
                # A permanent error is fatal: aiokafka may raise it forever and fetch nothing.
                failing_since = failing_since or loop.time()
                if not error.retriable or loop.time() - failing_since > self._settings.patience:
                    raise BackendError(f"group {self._group} cannot fetch: {error!r}") from error
                log.warning("Group %s: fetching failed, retrying: %r", self._group, error)
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
            self._consumer.pause(self._with_prefix(partition))

    def resume(self, partition: Partition) -> None:
        with contextlib.suppress(IllegalStateError):
            self._consumer.resume(self._with_prefix(partition))

    def seek(self, partition: Partition, offset: int) -> None:
        with contextlib.suppress(IllegalStateError):
            self._consumer.seek(self._with_prefix(partition), offset)

    async def commit(self, offsets: Mapping[Partition, int]) -> None:
        try:
            await self._consumer.commit({self._with_prefix(one): offset for one, offset in offsets.items()})
        except (CommitFailedError, IllegalStateError) as error:
            raise NotOwner(f"group {self._group} has reassigned its partitions") from error
        except KafkaError as error:
            raise BackendError(f"group {self._group} cannot commit: {error!r}") from error


class _Listener(ConsumerRebalanceListener):  # type: ignore[misc]
    """Forwards the rebalances of aiokafka to a `streams.backends.ports.Listener`."""

    def __init__(self, consumer: KafkaConsumer, listener: Listener) -> None:
        self._consumer = consumer
        self._listener = listener

    async def on_partitions_revoked(self, revoked: Collection[Any]) -> None:
        try:
            await self._listener.revoked(self._consumer.without_prefix(revoked))
        except Exception as error:
            self._consumer.failed = error

    async def on_partitions_assigned(self, assigned: Collection[Any]) -> None:
        try:
            await self._listener.assigned(self._consumer.without_prefix(assigned))
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
        # With a subscription, partitions would be revoked and read again from their beginning whenever a broker's
        # metadata lacks them for a moment; so the partitions that it found are assigned explicitly.
        found = sorted(consumer.assignment())
        names = {settings.prefix + topic: topic for topic in self._topics}
        self._partitions = {one: Partition(names[one.topic], one.partition) for one in found}
        self._positions = {partition: self._begin.get(partition, 0) for partition in self._partitions.values()}
        consumer.unsubscribe()
        consumer.assign(found)
        for one, partition in self._partitions.items():
            consumer.seek(one, self._positions[partition])

    async def stop(self) -> None:
        if self._consumer is not None:
            await stop_client(self._consumer)

    async def fetch(self, max_records: int) -> Mapping[Partition, Sequence[Record]]:
        try:
            fetched = await self._consumer.getmany(timeout_ms=500, max_records=max_records)
            if not fetched:
                # Compaction may remove the last records of a partition, so that its position advances without a record.
                for one, partition in self._partitions.items():
                    self._positions[partition] = max(self._positions[partition], await self._consumer.position(one))
        except KafkaError as error:
            raise BackendError(f"{', '.join(self._topics)} cannot be read: {error!r}") from error
        found: dict[Partition, Sequence[Record]] = {}
        for one, records in fetched.items():
            partition = self._partitions[one]
            # aiokafka starts at the beginning if an offset is out of range; records must not be returned twice.
            new = [
                _arrived(partition.topic, record) for record in records if record.offset >= self._positions[partition]
            ]
            if new:
                found[partition] = new
                self._positions[partition] = new[-1].offset + 1
        return found

    async def ends(self) -> Mapping[Partition, int]:
        try:
            ends = await self._consumer.end_offsets(list(self._partitions))
        except KafkaError as error:
            raise BackendError(f"the ends of {', '.join(self._topics)} cannot be read: {error!r}") from error
        return {self._partitions[one]: offset for one, offset in ends.items()}


class KafkaProducer:
    """See `streams.backends.ports.Producer`; retries without a limit while brokers are unavailable.

    Concurrent calls that write to the same partition share batches.
    """

    def __init__(self, settings: KafkaBackendSettings, owner: Ownership | None = None) -> None:
        self._prefix = settings.prefix
        self._writer = BatchWriter(settings.client(), owner=owner)
        if owner is not None:
            owner.on_end(self._writer.disown)
        self._group = GroupCommit(self._writer.append, settings.prefix)

    async def start(self) -> None:
        await self._writer.start()

    async def stop(self) -> None:
        await self._group.close()
        await self._writer.stop()

    async def send(self, records: Sequence[ProducerRecord], partition: int | None = None) -> None:
        sizes = [checked_size(record.topic, record.key, record.value) for record in records]
        groups: dict[tuple[str, int], _Group] = {}
        for record, size in zip(records, sizes, strict=True):
            number = await self._partition_of(record) if partition is None else partition
            group = groups.setdefault((record.topic, number), _Group())
            group.entries.append((record.key, record.value, record.headers))
            group.size += size
        await asyncio.gather(
            *(self._group.submit(topic, number, group.entries, group.size) for (topic, number), group in groups.items())
        )

    async def _partition_of(self, record: ProducerRecord) -> int:
        return partition_of(record.key, await self._writer.partitions(self._prefix + record.topic))


@dataclass(slots=True)
class _Group:
    """The records of one call for one partition."""

    entries: list[Entry] = field(default_factory=list)
    size: int = 0
