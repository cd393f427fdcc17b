"""Export the lag of all consumer groups, read from the cluster, so that it is known while every worker is down.

A measurement reads the end offsets of all watched topics, the committed offsets of their groups, and the record that
each group reads next; the age of that record is the lag in seconds. A lag that cannot be read is not exported, because
an outdated value would be misleading.
"""

import asyncio
import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import KafkaError

from connectors.ports import Clock
from schemas import topics
from schemas.retry import History
from streams.backends.deadlines import stop_client
from streams.observability.metrics import Metrics

log = logging.getLogger("streams.observability.lag")

INTERVAL: Final = 5.0
"""Seconds between two measurements."""
CLOSE_WITHIN: Final = 5.0
"""Seconds that closing the Kafka clients may take."""
HEAD_TIMEOUT: Final = 2.0
"""Seconds of a measurement for reading records; a partition that is not read in time keeps its last known age."""
FIRST_AGAIN: Final = 0.5
"""Seconds before a first measurement is tried again."""
MAX_FAILURES: Final = 2
"""Consecutive failures after which the gauges are removed."""

Partition = tuple[str, int]
"""Topic (without prefix) and partition number."""


@dataclass(frozen=True, slots=True)
class Offsets:
    """Offsets of one partition: begin, end, and what a group has committed (None: nothing yet).

    An offset beyond the end was committed for a topic that was deleted and created again, so it is ignored.
    """

    begin: int
    end: int
    committed: int | None

    @property
    def next(self) -> int:
        """The offset that the group reads next, within what retention has left."""
        known = self.committed is not None and self.begin <= self.committed <= self.end
        return self.committed if known and self.committed is not None else self.begin

    @property
    def missing(self) -> int:
        """Number of records that were committed and are beyond the end."""
        return max(0, (self.committed or 0) - self.end)

    @property
    def lag(self) -> int:
        """Number of records that the group has not committed."""
        return self.end - self.next


class Losses:
    """Partitions that end before what a group has committed: Kafka lost a part, or the topic was created again.

    Ends are read before commits, so a commit that is beyond them once proves nothing: it has to be so twice.
    """

    def __init__(self) -> None:
        self._beyond: dict[tuple[str, Partition], int] = {}
        self._reported: set[tuple[str, Partition, int]] = set()

    def found(self, measured: Iterable[tuple[str, Partition, Offsets]]) -> list[tuple[str, Partition, Offsets]]:
        """Return what is new of a measurement: group, partition and offsets of each loss."""
        before, self._beyond = self._beyond, {}
        new = []
        for group, partition, offsets in measured:
            if not offsets.missing or offsets.committed is None:
                continue
            self._beyond[group, partition] = offsets.committed
            key = (group, partition, offsets.committed)
            if before.get((group, partition)) == offsets.committed and key not in self._reported:
                self._reported.add(key)
                new.append((group, partition, offsets))
        return new


@dataclass(frozen=True, slots=True)
class Head:
    """The record that a group reads next: its timestamp and, on a rung, its due time, in ms since the epoch."""

    offset: int
    timestamp: int
    due_at: int | None = None


@dataclass(frozen=True, slots=True)
class PartitionLag:
    """Lag of one partition in records and seconds; ``seconds`` is None if the next record could not be read in time.

    ``overdue`` is how many seconds ago the next record of a rung was due, else 0.
    """

    topic: str
    partition: int
    records: int
    seconds: float | None
    overdue: float


def slowest(offsets: Iterable[tuple[Partition, Offsets]]) -> dict[Partition, Offsets]:
    """Return the offsets of the group with the largest lag for every partition."""
    found: dict[Partition, Offsets] = {}
    for partition, candidate in offsets:
        if partition not in found or candidate.lag > found[partition].lag:
            found[partition] = candidate
    return found


def lags(offsets: Mapping[Partition, Offsets], heads: Mapping[Partition, Head], now_ms: int) -> list[PartitionLag]:
    """Return the lag of every partition at ``now_ms`` (milliseconds since the epoch)."""
    found = []
    for (topic, partition), known in offsets.items():
        head = heads.get((topic, partition))
        seconds: float | None = 0.0
        overdue = 0.0
        if known.lag:
            seconds = None if head is None else max(0.0, (now_ms - head.timestamp) / 1000)
            if head is not None and head.due_at is not None:
                overdue = max(0.0, (now_ms - head.due_at) / 1000)
        found.append(PartitionLag(topic, partition, known.lag, seconds, overdue))
    return found


def parked(measured: Iterable[PartitionLag]) -> dict[str, tuple[int, float]]:
    """Return for every rung how many records wait, and for how many seconds the earliest of them has been due."""
    rungs: dict[str, tuple[int, float]] = {}
    prefix = topics.rung("").name
    for lag in measured:
        if lag.topic.startswith(prefix):
            rung = lag.topic.removeprefix(prefix)
            records, overdue = rungs.get(rung, (0, 0.0))
            rungs[rung] = records + lag.records, max(overdue, lag.overdue)
    return rungs


class LagExporter:
    """Measures the lag periodically with its own Kafka clients, and reconnects when the cluster was unreachable."""

    def __init__(
        self,
        client: Mapping[str, Any],
        groups: Mapping[str, Sequence[str]],
        partitions: int,
        metrics: Metrics,
        clock: Clock,
        prefix: str = "",
        every: float = INTERVAL,
    ) -> None:
        """Store the settings; connect later.

        ``client`` are the options of aiokafka's clients, ``groups`` the topics of each consumer group (both without
        the prefix), ``every`` the seconds between two measurements.
        """
        self._client = {"request_timeout_ms": 5000, **client}
        self._groups = groups
        self._partitions = partitions
        self._metrics = metrics
        self._clock = clock
        self._prefix = prefix
        self._every = every
        self._consumer: Any = None
        self._admin: Any = None
        self._closing: set[asyncio.Future[bool]] = set()
        """Clients that are being closed, each in a task of its own."""
        self._heads: dict[Partition, Head] = {}
        self._losses = Losses()

    async def run(self) -> None:
        """Measure periodically until cancelled."""
        failures = 0
        try:
            while True:
                try:
                    async with asyncio.timeout(30):
                        await self.measure()
                    failures = 0
                except Exception as error:
                    failures += 1
                    if failures == MAX_FAILURES:
                        log.warning(
                            "cannot read consumer lag, its metrics are removed until Kafka answers: %s",
                            str(error) or type(error).__name__,
                        )
                        self._metrics.forget_lag()
                    await self.aclose()
                await asyncio.sleep(self._every)
        finally:
            await self.aclose()

    async def measure(self) -> list[PartitionLag]:
        """Measure once, set the gauges, and return the lag of all partitions. Raise the errors of aiokafka."""
        await self._connect()
        offsets = await self._offsets()
        await self._read_heads({partition: known.next for partition, known in offsets.items() if known.lag})
        found = lags(offsets, self._heads, round(self._clock.now().timestamp() * 1000))
        for lag in found:
            self._metrics.lag(lag.topic, lag.partition, lag.records, lag.seconds)
        for rung, (records, overdue) in parked(found).items():
            self._metrics.parked_now(rung, records, overdue)
        return found

    async def first(self) -> list[PartitionLag]:
        """Measure as soon as the brokers know the groups: a new cluster needs some seconds for that."""
        while True:
            try:
                return await self.measure()
            except KafkaError:
                await self._clock.sleep(FIRST_AGAIN)

    async def aclose(self) -> None:
        """Close the clients; `measure` opens new ones. The next call completes what a cancellation interrupts."""
        admin, consumer, self._admin, self._consumer = self._admin, self._consumer, None, None
        self._closing |= {
            asyncio.ensure_future(stop_client(one, CLOSE_WITHIN)) for one in (admin, consumer) if one is not None
        }
        if self._closing:
            await asyncio.wait(self._closing)
            self._closing.clear()

    async def _connect(self) -> None:
        if self._consumer is not None:
            return
        admin = AIOKafkaAdminClient(**self._client)
        consumer = AIOKafkaConsumer(
            **self._client,
            group_id=None,
            enable_auto_commit=False,
            auto_offset_reset="earliest",
            max_partition_fetch_bytes=64 * 1024,
            fetch_max_wait_ms=100,
        )
        self._admin, self._consumer = admin, consumer
        await admin.start()
        await consumer.start()

    async def _offsets(self) -> dict[Partition, Offsets]:
        partitions = [
            TopicPartition(self._prefix + topic, partition)
            for topic in sorted({topic for subscribed in self._groups.values() for topic in subscribed})
            for partition in range(self._partitions)
        ]
        begins, ends = await asyncio.gather(
            self._consumer.beginning_offsets(partitions), self._consumer.end_offsets(partitions)
        )
        committed = await asyncio.gather(
            *(self._admin.list_consumer_group_offsets(self._prefix + group) for group in self._groups)
        )
        measured = [
            (group, self._unprefixed(partition), self._offsets_of(partition, begins, ends, offsets))
            for (group, subscribed), offsets in zip(self._groups.items(), committed, strict=True)
            for partition in partitions
            if self._unprefixed(partition)[0] in subscribed
        ]
        for group, (topic, number), found in self._losses.found(measured):
            log.error(
                "%s-%d ends at %d, but group %s has committed %d: Kafka has lost up to %d records, or the topic was "
                "created again",
                *(topic, number, found.end, group, found.committed, found.missing),
            )
            self._metrics.lost(topic, found.missing)
        return slowest((partition, offsets) for _, partition, offsets in measured)

    def _unprefixed(self, partition: Any) -> Partition:
        return partition.topic.removeprefix(self._prefix), partition.partition

    @staticmethod
    def _offsets_of(
        partition: Any, begins: Mapping[Any, int], ends: Mapping[Any, int], committed: Mapping[Any, Any]
    ) -> Offsets:
        known = committed.get(partition)
        offset = known.offset if known is not None and known.offset >= 0 else None
        return Offsets(begins[partition], ends[partition], offset)

    async def _read_heads(self, wanted: Mapping[Partition, int]) -> None:
        """Read the records at these offsets, except those that are known from the last measurement."""
        self._heads = {partition: head for partition, head in self._heads.items() if partition in wanted}
        missing = {
            TopicPartition(self._prefix + topic, partition): offset
            for (topic, partition), offset in wanted.items()
            if (topic, partition) not in self._heads or self._heads[topic, partition].offset != offset
        }
        if not missing:
            return
        consumer = self._consumer
        consumer.assign(list(missing))
        for partition, offset in missing.items():
            consumer.seek(partition, offset)
        loop = asyncio.get_running_loop()
        deadline = loop.time() + HEAD_TIMEOUT
        pending = set(missing)
        while pending and (remaining := deadline - loop.time()) > 0:
            fetched = await consumer.getmany(timeout_ms=round(remaining * 1000), max_records=500)
            for partition, records in fetched.items():
                if records and partition in pending:
                    pending.discard(partition)
                    consumer.pause(partition)  # one record is enough; the next fetch serves the other partitions
                    first = records[0]
                    head = Head(missing[partition], first.timestamp, History.read(first.headers).due_at)
                    self._heads[self._unprefixed(partition)] = head
        consumer.unsubscribe()
