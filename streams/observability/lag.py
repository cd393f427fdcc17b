"""How far every consumer group is behind, read from the cluster itself: it is known while every worker is down.

A look asks for the ends of all watched topics, for what their groups committed, and for the one record that each group
would read next; the age of that record is the lag in time. What cannot be read is not shown: an old figure is a lie.
"""

import asyncio
import contextlib
import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient

from connectors.ports import Clock
from schemas import retry as header
from schemas import topics
from streams.observability.metrics import Metrics

log = logging.getLogger("streams.observability.lag")

EVERY: Final = 5.0
HEADS_WITHIN: Final = 2.0
"""Seconds of a look that may go into reading records; what was not read then keeps its last known age."""
FAILURES: Final = 2
"""Looks in a row that may fail before nothing is shown any more."""

Home = tuple[str, int]
"""Topic (without prefix) and partition."""


@dataclass(frozen=True, slots=True)
class Span:
    """One partition, and what one group committed of it (null: nothing yet)."""

    begin: int
    end: int
    committed: int | None

    @property
    def next(self) -> int:
        """The offset that the group would read next; records that retention took away are read by nobody."""
        return min(max(self.begin if self.committed is None else self.committed, self.begin), self.end)

    @property
    def lag(self) -> int:
        return self.end - self.next


@dataclass(frozen=True, slots=True)
class Head:
    """The record that a group would read next: its time and, on a rung, when it is due, in ms since the epoch."""

    offset: int
    timestamp: int
    due_at: int | None = None


@dataclass(frozen=True, slots=True)
class PartitionLag:
    """What is behind in one partition; ``seconds`` is null where the record could not be read in time."""

    topic: str
    partition: int
    records: int
    seconds: float | None
    overdue: float


def slowest(spans: Iterable[tuple[Home, Span]]) -> dict[Home, Span]:
    """Of several groups that read one partition, take the one that is furthest behind."""
    found: dict[Home, Span] = {}
    for home, span in spans:
        if home not in found or span.lag > found[home].lag:
            found[home] = span
    return found


def behind(spans: Mapping[Home, Span], heads: Mapping[Home, Head], now_ms: int) -> list[PartitionLag]:
    """Work out the lag of every partition."""
    found = []
    for (topic, partition), span in spans.items():
        head = heads.get((topic, partition))
        seconds: float | None = 0.0
        overdue = 0.0
        if span.lag:
            seconds = None if head is None else max(0.0, (now_ms - head.timestamp) / 1000)
            if head is not None and head.due_at is not None:
                overdue = max(0.0, (now_ms - head.due_at) / 1000)
        found.append(PartitionLag(topic, partition, span.lag, seconds, overdue))
    return found


def parked(found: Iterable[PartitionLag]) -> dict[str, tuple[int, float]]:
    """Sum up the rungs: how many records wait on each, and how long the most overdue one has been due."""
    rungs: dict[str, tuple[int, float]] = {}
    prefix = topics.rung("").name
    for one in found:
        if one.topic.startswith(prefix):
            rung = one.topic.removeprefix(prefix)
            records, overdue = rungs.get(rung, (0, 0.0))
            rungs[rung] = records + one.records, max(overdue, one.overdue)
    return rungs


def due_at(headers: Sequence[tuple[str, bytes]]) -> int | None:
    """Read from a parked record's headers when it is due."""
    for name, value in headers:
        if name == header.DUE_AT and value.isdigit():
            return int(value)
    return None


class LagExporter:
    """Looks every few seconds, with clients of its own; a cluster that is away is looked for again."""

    def __init__(
        self,
        client: Mapping[str, Any],
        groups: Mapping[str, Sequence[str]],
        partitions: int,
        metrics: Metrics,
        clock: Clock,
        prefix: str = "",
        every: float = EVERY,
    ) -> None:
        """Prepare; ``client`` is what aiokafka's clients take, ``groups`` are topics by group, without the prefix."""
        self._client = {"request_timeout_ms": 5000, **client}
        self._groups = groups
        self._partitions = partitions
        self._metrics = metrics
        self._clock = clock
        self._prefix = prefix
        self._every = every
        self._consumer: Any = None
        self._admin: Any = None
        self._heads: dict[Home, Head] = {}

    async def run(self) -> None:
        """Look until cancelled."""
        failed = 0
        try:
            while True:
                try:
                    async with asyncio.timeout(30):
                        await self.look()
                    failed = 0
                except Exception as error:
                    failed += 1
                    if failed == FAILURES:
                        log.warning("the lag of the groups cannot be read: %s", str(error) or type(error).__name__)
                        self._metrics.forget_lag()
                    await self.aclose()
                await asyncio.sleep(self._every)
        finally:
            await self.aclose()

    async def look(self) -> list[PartitionLag]:
        """Look once, and set the gauges. Raises what aiokafka raises."""
        await self._connect()
        spans = await self._spans()
        await self._read_heads({home: span.next for home, span in spans.items() if span.lag})
        found = behind(spans, self._heads, round(self._clock.now().timestamp() * 1000))
        for one in found:
            self._metrics.lag(one.topic, one.partition, one.records, one.seconds)
        for rung, (records, overdue) in parked(found).items():
            self._metrics.parked_now(rung, records, overdue)
        return found

    async def aclose(self) -> None:
        """Close the clients."""
        admin, consumer, self._admin, self._consumer = self._admin, self._consumer, None, None
        for closing in (admin and admin.close(), consumer and consumer.stop()):
            if closing is not None:
                with contextlib.suppress(Exception):
                    await asyncio.wait_for(closing, 5)

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

    async def _spans(self) -> dict[Home, Span]:
        homes = [
            TopicPartition(self._prefix + topic, partition)
            for topic in sorted({topic for read in self._groups.values() for topic in read})
            for partition in range(self._partitions)
        ]
        begins, ends = await asyncio.gather(self._consumer.beginning_offsets(homes), self._consumer.end_offsets(homes))
        committed = await asyncio.gather(
            *(self._admin.list_consumer_group_offsets(self._prefix + group) for group in self._groups)
        )
        return slowest(
            ((home.topic.removeprefix(self._prefix), home.partition), self._span(home, begins, ends, offsets))
            for (group, read), offsets in zip(self._groups.items(), committed, strict=True)
            for home in homes
            if home.topic.removeprefix(self._prefix) in read
        )

    @staticmethod
    def _span(home: Any, begins: Mapping[Any, int], ends: Mapping[Any, int], offsets: Mapping[Any, Any]) -> Span:
        known = offsets.get(home)
        return Span(begins[home], ends[home], known.offset if known is not None and known.offset >= 0 else None)

    async def _read_heads(self, wanted: Mapping[Home, int]) -> None:
        """Read the records at these offsets, but those that are known from the last look."""
        self._heads = {home: head for home, head in self._heads.items() if home in wanted}
        missing = {
            TopicPartition(self._prefix + topic, partition): offset
            for (topic, partition), offset in wanted.items()
            if (topic, partition) not in self._heads or self._heads[topic, partition].offset != offset
        }
        if not missing:
            return
        consumer = self._consumer
        consumer.assign(list(missing))
        for home, offset in missing.items():
            consumer.seek(home, offset)
        loop = asyncio.get_running_loop()
        until = loop.time() + HEADS_WITHIN
        left = set(missing)
        while left and (remaining := until - loop.time()) > 0:
            for home, records in (await consumer.getmany(timeout_ms=round(remaining * 1000), max_records=500)).items():
                if records and home in left:
                    left.discard(home)
                    consumer.pause(home)  # one record is enough, and the next fetch serves another partition first
                    first = records[0]
                    key = (home.topic.removeprefix(self._prefix), home.partition)
                    self._heads[key] = Head(missing[home], first.timestamp, due_at(first.headers))
        consumer.unsubscribe()
