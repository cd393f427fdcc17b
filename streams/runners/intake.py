"""The consumer side of call and redeliver: fetches records, tracks finished ones in any order, and commits offsets.

Only the contiguous finished prefix of a partition is committed, and only by its owner. The memory for the records of
each partition is bounded, without an effect on other partitions.
"""

import asyncio
import contextlib
from collections import deque
from collections.abc import Awaitable, Callable, Collection, Coroutine, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from connectors.ports import Clock
from streams.backends.ports import Backend, Consumer, NotOwner, Ownership, Partition
from streams.core.flows import Record

PROOF_SECONDS = 0.05
"""Seconds between two looks whether the ownership is proven again."""

OnAssigned = Callable[[frozenset[int]], Awaitable[None]]
"""Called with the numbers of newly assigned partitions, before any of their records is processed."""


class PartitionProgress:
    """The fetched records of an assigned partition that are not part of the finished prefix yet."""

    __slots__ = ("_order", "_sizes", "bytes", "closing", "committed", "next", "partition", "paused")

    def __init__(self, partition: Partition) -> None:
        self.partition = partition
        self.next: int | None = None
        """The offset to commit; null until a record is finished."""
        self.committed: int | None = None
        self.bytes = 0
        """The size of the unfinished records."""
        self.paused = False
        self.closing = False
        """Whether the partition is being released, so that no more records may begin."""
        self._order: deque[int] = deque()
        self._sizes: dict[int, int] = {}

    def __len__(self) -> int:
        return len(self._order)

    @property
    def unfinished(self) -> int:
        """Return the number of records that wait or are in flight."""
        return len(self._sizes)

    def began(self, offset: int, size: int) -> None:
        self._order.append(offset)
        self._sizes[offset] = size
        self.bytes += size

    def finished(self, offset: int) -> bool:
        """Mark a record as finished; return whether the finished prefix has grown."""
        self.bytes -= self._sizes.pop(offset, 0)
        before = self.next
        while self._order and self._order[0] not in self._sizes:
            self.next = self._order.popleft() + 1
        return self.next != before


class Worker(Protocol):
    """Processes the records that the intake fetches."""

    def take(self, progress: PartitionProgress, records: Sequence[Record]) -> None:
        """Queue records; report each processed one to `Intake.finished`."""
        ...

    async def release(self, partitions: Collection[PartitionProgress], within: float) -> None:
        """Drop the waiting records of partitions; let those in flight end within so many seconds, or cancel them."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Bounds:
    """Limits on the records in memory, and timeouts in seconds."""

    hold_records: int = 2000
    """The most unfinished records of a partition."""
    hold_finished: int = 20_000
    """The most records of a partition after its finished prefix, finished or not. Only the offset of a finished record
    is in memory, but all of them are processed again after a crash."""
    hold_bytes: int = 8 << 20
    """The most bytes of unfinished records of a partition; the last fetch may exceed it."""
    fetch_records: int = 2000
    revoke_within: float = 5.0
    """Timeout for records in flight when partitions are revoked; the whole group waits for them."""
    stop_within: float = 20.0
    """Timeout for records in flight at a graceful stop."""

    def are_reached(self, progress: PartitionProgress, share: float = 1.0) -> bool:
        """Return whether a partition has reached this share of one of its limits."""
        return (
            progress.unfinished >= self.hold_records * share
            or progress.bytes >= self.hold_bytes * share
            or len(progress) >= self.hold_finished * share
        )


class Intake:
    """Consumes the topics of one consumer group for one worker, from start to stop."""

    def __init__(
        self,
        backend: Backend,
        group: str,
        topics: Sequence[str],
        worker: Worker,
        clock: Clock,
        bounds: Bounds,
        seed: OnAssigned | None,
    ) -> None:
        self._consumer: Consumer = backend.consumer(group, topics, self)
        self._worker = worker
        self._clock = clock
        self._bounds = bounds
        self._seed = seed
        self._unseeded: set[int] = set()
        self._assigned: dict[Partition, PartitionProgress] = {}
        self._grown = asyncio.Event()
        self._committing = asyncio.Lock()
        self._stopping = asyncio.Event()
        self._failure: asyncio.Future[None] | None = None
        self._ended = asyncio.Event()

    # ----------------------------------------------------------------------------------------------- start and stop

    async def run(self) -> None:
        """Consume until stopped. Raise the error after which no more offsets may be committed."""
        self._failure = asyncio.get_running_loop().create_future()
        tasks: list[asyncio.Task[Any]] = []
        try:
            await self._consumer.start()
            tasks += [
                asyncio.create_task(one) for one in (self._feed(), self._commit_finished(), self._stopping.wait())
            ]
            await asyncio.wait([*tasks, self._failure], return_when=asyncio.FIRST_COMPLETED)
            for one in (self._failure, *tasks):
                if one.done():
                    one.result()
            tasks[0].cancel()
            await self._close(list(self._assigned.values()), self._bounds.stop_within)
            if self._failure.done():
                self._failure.result()
        finally:
            await cancel(tasks)
            await self._worker.release(list(self._assigned.values()), 0)
            if not self._failure.cancel() and not self._failure.cancelled():
                self._failure.exception()  # marks it as retrieved: this or an earlier error is raised already
            await self._consumer.stop()
            self._ended.set()

    async def stop(self) -> None:
        """Fetch no more, finish the records in flight, commit and leave the group; return when `run` has ended."""
        self._stopping.set()
        if self._failure is not None:
            await self._ended.wait()

    def fail(self, error: BaseException) -> None:
        """End `run` with this error; no more offsets are committed."""
        if self._failure is not None and not self._failure.done():
            self._failure.set_exception(error)

    @property
    def settled(self) -> bool:
        """Return whether every fetched record is finished and committed."""
        return all(not len(one) and one.next == one.committed for one in self._assigned.values())

    @property
    def ownership(self) -> Ownership:
        return self._consumer.ownership

    async def owned(self) -> None:
        """Return when the ownership of the assigned partitions is proven.

        If they were given away that is never: the work on them is cancelled when they are revoked.
        """
        while not self.ownership.proven:
            await self._clock.sleep(PROOF_SECONDS)

    # ------------------------------------------------------------------------------------------------------ fetching

    async def _feed(self) -> None:
        while True:
            fetched = await self._consumer.fetch(self._bounds.fetch_records)
            # There was no await since the fetch returned, so these partitions are still assigned.
            arrived = [(self._progress(partition), records) for partition, records in fetched.items()]
            await self._seed_new()
            for progress, records in arrived:
                if not progress.closing:
                    self._take(progress, records)

    def _progress(self, partition: Partition) -> PartitionProgress:
        return self._assigned.setdefault(partition, PartitionProgress(partition))

    async def _seed_new(self) -> None:
        while self._unseeded and self._seed:
            new = frozenset(self._unseeded)
            await self._seed(new)
            self._unseeded -= new

    def _take(self, progress: PartitionProgress, records: Sequence[Record]) -> None:
        for record in records:
            progress.began(record.offset, len(record.value or b""))
        if self._bounds.are_reached(progress):
            progress.paused = True
            self._consumer.pause(progress.partition)
        self._worker.take(progress, records)

    # ---------------------------------------------------------------------------------------------------- committing

    def finished(self, progress: PartitionProgress, offsets: Iterable[int]) -> None:
        """Mark records as finished, whose effects have to be durable."""
        grown = False
        for offset in offsets:
            grown = progress.finished(offset) or grown
        if grown and not self._grown.is_set():
            self._grown.set()
        if progress.paused and not self._bounds.are_reached(progress, 0.5):
            progress.paused = False
            if self._assigned.get(progress.partition) is progress:
                self._consumer.resume(progress.partition)

    async def _commit_finished(self) -> None:
        """Commit whenever a finished prefix has grown; one that grows during a commit is part of the next one."""
        while True:
            await self._grown.wait()
            self._grown.clear()
            await self._commit()

    async def _commit(self) -> None:
        async with self._committing:
            offsets = {
                partition: (progress, progress.next)
                for partition, progress in self._assigned.items()
                if progress.next is not None and progress.next != progress.committed
            }
            if not offsets:
                return
            with contextlib.suppress(NotOwner):
                await self._consumer.commit({partition: offset for partition, (_, offset) in offsets.items()})
                for progress, offset in offsets.values():
                    progress.committed = offset

    # ---------------------------------------------------------------------------------------------------- rebalances

    async def assigned(self, partitions: Collection[Partition]) -> None:
        self._unseeded |= {one.partition for one in partitions}

    async def revoked(self, partitions: Collection[Partition]) -> None:
        lost = [self._assigned[one] for one in partitions if one in self._assigned]
        self._unseeded -= {one.partition for one in partitions}
        try:
            await self._close(lost, self._bounds.revoke_within)
        except Exception as error:
            self.fail(error)
        finally:
            for one in lost:
                if self._assigned.get(one.partition) is one:
                    del self._assigned[one.partition]

    async def _close(self, partitions: Collection[PartitionProgress], within: float) -> None:
        """Let records in flight end, and commit the finished prefix of these partitions."""
        for one in partitions:
            one.closing = True
        await self._worker.release(partitions, within)
        await bounded(self._clock, self._commit(), within)


async def bounded(clock: Clock, coroutine: Coroutine[Any, Any, None], within: float) -> None:
    """Run a coroutine for at most so many seconds, then cancel it."""
    task = asyncio.create_task(coroutine)
    await ends(clock, [task], within)
    if task.done():
        task.result()
    else:
        await cancel([task])


async def ends(clock: Clock, tasks: Collection[asyncio.Task[Any]], within: float) -> None:
    """Wait until all tasks have ended, for at most so many seconds."""
    running = {one for one in tasks if not one.done()}
    if not running or within <= 0:
        return
    timer = asyncio.create_task(clock.sleep(within))
    try:
        while running and not timer.done():
            await asyncio.wait([*running, timer], return_when=asyncio.FIRST_COMPLETED)
            running = {one for one in running if not one.done()}
    finally:
        await cancel([timer])


async def cancel(tasks: Collection[asyncio.Task[Any]]) -> None:
    """Cancel tasks and wait for their end."""
    for one in tasks:
        one.cancel()
    if tasks:
        await asyncio.wait(tasks)
