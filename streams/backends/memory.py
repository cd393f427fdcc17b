"""The backend in memory, and a clock that a test controls.

A second implementation of `streams.backends.ports`, not a mock: partitions, keys, groups, rebalances, commits and
takeovers behave as Kafka's do, and one contract suite checks both. A `MemoryBroker` is the cluster, a `MemoryBackend`
is the connection of one process to it, which can be killed.
"""

import asyncio
import heapq
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TypeVar
from weakref import WeakKeyDictionary

from connectors.ports import Clock
from schemas.partitions import partition_of
from streams.backends.ports import (
    MAX_RECORD_BYTES,
    NOWHERE,
    ConsumedRecord,
    Listener,
    NotOwner,
    Ownership,
    Partition,
    TooLarge,
)
from streams.core.flows import ProducerRecord, Record
from streams.core.retry import milliseconds

T = TypeVar("T")


class MovableClock:
    """A clock that advances only when a test calls `advance`."""

    def __init__(self, now: datetime = datetime(2026, 3, 1, 12, tzinfo=UTC)) -> None:
        self._begin = now
        self._passed = 0.0
        self._sleepers: list[tuple[float, int, asyncio.Future[None]]] = []
        self._count = 0

    def now(self) -> datetime:
        return self._begin + timedelta(seconds=self._passed)

    def monotonic(self) -> float:
        return self._passed

    async def sleep(self, seconds: float) -> None:
        if seconds <= 0:
            await asyncio.sleep(0)
            return
        waiter = asyncio.get_running_loop().create_future()
        self._count += 1
        heapq.heappush(self._sleepers, (self._passed + seconds, self._count, waiter))
        await waiter

    async def advance(self, seconds: float) -> None:
        """Let this much time pass: wake the sleepers in order, each at its time, and let all tasks settle."""
        end = self._passed + seconds
        await settle()
        while self._sleepers and self._sleepers[0][0] <= end:
            due, _, waiter = heapq.heappop(self._sleepers)
            if waiter.done():
                continue
            self._passed = max(self._passed, due)
            waiter.set_result(None)
            await settle()
        self._passed = end
        await settle()

    @property
    def next_wake(self) -> float | None:
        """Return the seconds until the first sleeper wakes; null if there is none."""
        while self._sleepers and self._sleepers[0][2].done():
            heapq.heappop(self._sleepers)
        return self._sleepers[0][0] - self._passed if self._sleepers else None


_settling: WeakKeyDictionary[asyncio.AbstractEventLoop, int] = WeakKeyDictionary()


async def settle(most: int = 100_000) -> None:
    """Let every task run until all of them wait for the clock or for I/O."""
    loop = asyncio.get_running_loop()
    _settling[loop] = _settling.get(loop, 0) + 1
    try:
        for _ in range(most):
            await asyncio.sleep(0)
            # Only other callers of this function may still be ready.
            if len(loop._ready) < _settling[loop]:  # type: ignore[attr-defined]  # noqa: SLF001
                return
    finally:
        _settling[loop] -= 1
    raise RuntimeError("the tasks do not settle")


@dataclass(slots=True)
class _Group:
    members: list["MemoryConsumer"] = field(default_factory=list)
    committed: dict[Partition, int] = field(default_factory=dict)
    rebalance: asyncio.Lock = field(default_factory=asyncio.Lock)


class MemoryBroker:
    """The cluster: topics with partitions, and consumer groups. A topic is created by its first use."""

    def __init__(self, clock: Clock, partitions: int = 4, max_record: int = MAX_RECORD_BYTES) -> None:
        self.clock = clock
        self.partitions = partitions
        self.max_record = max_record
        self.refuses: Callable[[ProducerRecord], Exception | None] = lambda _record: None
        """For tests: returns the exception that a producer raises instead of writing this record; null: none."""
        self._logs: dict[Partition, list[ConsumedRecord]] = {}
        self._groups: dict[str, _Group] = {}
        self._news: set[asyncio.Event] = set()
        self._available = asyncio.Event()
        self._available.set()

    # --------------------------------------------------------------------------------------------------- what tests use

    def append(self, record: ProducerRecord, partition: int | None = None) -> ConsumedRecord:
        """Append one record, as if another process had produced it."""
        number = partition_of(record.key, self.partitions) if partition is None else partition
        if not 0 <= number < self.partitions:
            raise ValueError(f"{record.topic} has no partition {number}")
        log = self._logs.setdefault(Partition(record.topic, number), [])
        at = milliseconds(self.clock.now())
        arrived = ConsumedRecord(record.topic, number, len(log), at, record.key, record.value, tuple(record.headers))
        log.append(arrived)
        for news in self._news:
            news.set()
        return arrived

    def read(self, topic: str, partition: int | None = None) -> list[ConsumedRecord]:
        """Return all records of a topic, or of one partition of it, partition by partition."""
        numbers = range(self.partitions) if partition is None else [partition]
        return [record for number in numbers for record in self._logs.get(Partition(topic, number), [])]

    def topics(self) -> list[str]:
        return sorted({partition.topic for partition in self._logs})

    def committed(self, group: str, topic: str, partition: int) -> int | None:
        return self._group(group).committed.get(Partition(topic, partition))

    def lag(self, group: str) -> int:
        """Return the number of records that a group has not committed, in the topics of its members."""
        found = self._group(group)
        topics = {topic for member in found.members for topic in member.topics}
        return sum(
            len(log) - found.committed.get(partition, 0)
            for partition, log in self._logs.items()
            if partition.topic in topics
        )

    def go_away(self) -> None:
        """Answer no request until `come_back`."""
        self._available.clear()

    def come_back(self) -> None:
        self._available.set()

    # ----------------------------------------------------------------------------------------- what connections use

    def listen(self, news: asyncio.Event) -> None:
        """Set this event at every record."""
        self._news.add(news)

    def ignore(self, news: asyncio.Event) -> None:
        self._news.discard(news)

    async def present(self) -> None:
        """Wait until the broker answers."""
        await self._available.wait()

    def log(self, partition: Partition) -> list[ConsumedRecord]:
        return self._logs.get(partition, [])

    def _group(self, name: str) -> _Group:
        return self._groups.setdefault(name, _Group())

    async def join(self, member: "MemoryConsumer") -> None:
        self.listen(member.news)
        await self._rebalance(member.group, lambda members: members.append(member))

    async def leave(self, member: "MemoryConsumer") -> None:
        self.ignore(member.news)

        def without(members: list[MemoryConsumer]) -> None:
            if member in members:
                members.remove(member)

        await self._rebalance(member.group, without)

    async def _rebalance(self, name: str, change: Callable[[list["MemoryConsumer"]], None]) -> None:
        """Revoke all partitions, wait for every member, then assign them from the last commits."""
        group = self._group(name)
        async with group.rebalance:
            living = [member for member in group.members if not member.dead]
            await asyncio.gather(*(member.revoke() for member in living))
            change(group.members)
            group.members[:] = [member for member in group.members if not member.dead]
            shares = self._range(group.members)
            for member in group.members:
                member.assign(shares[member], group.committed)
            await asyncio.gather(*(member.listener.assigned(shares[member]) for member in group.members))

    def _range(self, members: Sequence["MemoryConsumer"]) -> dict["MemoryConsumer", frozenset[Partition]]:
        """Assign like Kafka's range assignor: each member gets a range of the partitions of each of its topics."""
        shares: dict[MemoryConsumer, set[Partition]] = {member: set() for member in members}
        for topic in sorted({topic for member in members for topic in member.topics}):
            readers = [member for member in members if topic in member.topics]
            each, over = divmod(self.partitions, len(readers))
            at = 0
            for index, reader in enumerate(readers):
                count = each + (index < over)
                shares[reader] |= {Partition(topic, number) for number in range(at, at + count)}
                at += count
        return {member: frozenset(share) for member, share in shares.items()}

    def commit(self, member: "MemoryConsumer", offsets: Mapping[Partition, int]) -> None:
        self._group(member.group).committed.update(offsets)


class MemoryBackend:
    """The connection of one process to the broker. After `kill` its consumers and producers do nothing more."""

    def __init__(self, broker: MemoryBroker) -> None:
        self.broker = broker
        self.dead = False
        self._consumers: list[MemoryConsumer] = []

    def consumer(self, group: str, topics: Sequence[str], listener: Listener) -> "MemoryConsumer":
        made = MemoryConsumer(self, group, topics, listener)
        self._consumers.append(made)
        return made

    def producer(self, owner: Ownership | None = None) -> "MemoryProducer":
        del owner  # a member in memory learns at once what its group does
        return MemoryProducer(self)

    def reader(self, topics: Sequence[str], positions: Mapping[Partition, int] = NOWHERE) -> "MemoryReader":
        return MemoryReader(self, topics, positions)

    async def read(self, topic: str, partition: int, offsets: Sequence[int]) -> Mapping[int, Record]:
        await self.alive(self.broker.present())
        there = {record.offset: record for record in self.broker.log(Partition(topic, partition))}
        return {offset: there[offset] for offset in offsets if offset in there}

    async def last(self, topic: str, partitions: Collection[int], count: int = 1) -> Mapping[int, Sequence[Record]]:
        await self.alive(self.broker.present())
        return {number: self.broker.log(Partition(topic, number))[-count:] for number in partitions}

    async def kill(self) -> None:
        """End the process as ``kill -9`` does; its groups continue without it."""
        self.dead = True
        for one in self._consumers:
            await self.broker.leave(one)

    async def alive(self, doing: Awaitable[T]) -> T:
        """Return the result of ``doing``; in a dead process this never returns."""
        result = await doing
        if self.dead:
            await asyncio.get_running_loop().create_future()
        return result


class MemoryConsumer:
    """A member of a group; see `streams.backends.ports.Consumer`."""

    def __init__(self, backend: MemoryBackend, group: str, topics: Sequence[str], listener: Listener) -> None:
        self.group = group
        self.topics = frozenset(topics)
        self.listener = listener
        self._backend = backend
        self._broker = backend.broker
        self._positions: dict[Partition, int] = {}
        self._paused: set[Partition] = set()
        self._fetches = False
        self._owns = False
        self._generation = 0
        self._started = False
        self.news = asyncio.Event()

    @property
    def dead(self) -> bool:
        return self._backend.dead

    @property
    def assignment(self) -> frozenset[Partition]:
        return frozenset(self._positions)

    @property
    def ownership(self) -> Ownership:
        return self

    @property
    def joined(self) -> bool:
        return self._owns

    @property
    def proven(self) -> bool:
        return self._owns and not self._backend.dead

    @property
    def generation(self) -> int:
        return self._generation

    def on_end(self, listener: Callable[[], None]) -> None:
        """Do nothing: nothing is under way that has to be ended."""

    async def start(self) -> None:
        await self._backend.alive(self._broker.present())
        self._started = True
        await self._broker.join(self)

    async def stop(self) -> None:
        if self._started and not self.dead:
            self._started = False
            await self._broker.leave(self)

    async def revoke(self) -> None:
        """Lose all partitions, after the listener had its chance to commit."""
        self._fetches = False
        await self.listener.revoked(frozenset(self._positions))
        self._owns = False
        self._generation += 1
        self._positions = {}

    def assign(self, share: Collection[Partition], committed: Mapping[Partition, int]) -> None:
        """Own these partitions from their last commits on."""
        self._positions = {partition: committed.get(partition, 0) for partition in sorted(share)}
        self._paused = set()
        self._owns = self._fetches = True
        self.news.set()

    async def fetch(self, max_records: int) -> Mapping[Partition, Sequence[Record]]:
        while True:
            await self._backend.alive(self._broker.present())
            self.news.clear()
            if found := self._ready(max_records):
                return found
            await self._backend.alive(self.news.wait())

    def _ready(self, max_records: int) -> dict[Partition, list[ConsumedRecord]]:
        found: dict[Partition, list[ConsumedRecord]] = {}
        for partition, position in self._positions.items() if self._fetches else ():
            if partition in self._paused or max_records <= 0:
                continue
            if records := self._broker.log(partition)[position : position + max_records]:
                found[partition] = records
                max_records -= len(records)
        for partition, records in found.items():
            self._positions[partition] = records[-1].offset + 1
        return found

    def pause(self, partition: Partition) -> None:
        if partition in self._positions:
            self._paused.add(partition)

    def resume(self, partition: Partition) -> None:
        self._paused.discard(partition)
        self.news.set()

    def seek(self, partition: Partition, offset: int) -> None:
        if partition in self._positions:
            self._positions[partition] = offset
            self.news.set()

    async def commit(self, offsets: Mapping[Partition, int]) -> None:
        await self._backend.alive(self._broker.present())
        await self._backend.alive(asyncio.sleep(0))
        if not self._owns or not offsets.keys() <= self._positions.keys():
            raise NotOwner("the partitions are now another member's")
        self._broker.commit(self, offsets)


class MemoryReader:
    """Reads without a group; see `streams.backends.ports.Reader`."""

    def __init__(self, log: MemoryBackend, topics: Sequence[str], positions: Mapping[Partition, int]) -> None:
        self._log = log
        self._broker = log.broker
        numbers = range(log.broker.partitions)
        self._positions = {one: positions.get(one, 0) for one in (Partition(t, n) for t in topics for n in numbers)}
        self._news = asyncio.Event()

    @property
    def positions(self) -> Mapping[Partition, int]:
        return self._positions

    async def start(self) -> None:
        await self._log.alive(self._broker.present())
        self._broker.listen(self._news)

    async def stop(self) -> None:
        self._broker.ignore(self._news)

    async def fetch(self, max_records: int) -> Mapping[Partition, Sequence[Record]]:
        while True:
            await self._log.alive(self._broker.present())
            self._news.clear()
            if found := self._ready(max_records):
                return found
            await self._log.alive(self._news.wait())

    def _ready(self, most: int) -> dict[Partition, list[ConsumedRecord]]:
        found: dict[Partition, list[ConsumedRecord]] = {}
        for partition, position in self._positions.items():
            if most > 0 and (records := self._broker.log(partition)[position : position + most]):
                found[partition] = records
                most -= len(records)
        for partition, records in found.items():
            self._positions[partition] = records[-1].offset + 1
        return found

    async def ends(self) -> Mapping[Partition, int]:
        await self._log.alive(self._broker.present())
        return {partition: len(self._broker.log(partition)) for partition in self._positions}


class MemoryProducer:
    """See `streams.backends.ports.Producer`."""

    def __init__(self, backend: MemoryBackend) -> None:
        self._backend = backend

    async def start(self) -> None:
        await self._backend.alive(self._backend.broker.present())

    async def stop(self) -> None:
        pass

    async def send(self, records: Sequence[ProducerRecord], partition: int | None = None) -> None:
        broker = self._backend.broker
        for record in records:
            if len(record.key) + len(record.value or b"") > broker.max_record:
                raise TooLarge(f"a record for {record.topic} is over {broker.max_record} bytes")
        await self._backend.alive(broker.present())
        await self._backend.alive(asyncio.sleep(0))
        for record in records:
            if refusal := broker.refuses(record):
                raise refusal
            broker.append(record, partition)
