"""What call and redeliver have in common: records come in by partition, finish in any order, and are acknowledged.

The law: of each partition only the contiguous finished prefix is ever committed, by its owner only; and what is held in
memory of a partition is bounded, without holding up the others.
"""

import asyncio
import contextlib
from collections import deque
from collections.abc import Awaitable, Callable, Collection, Coroutine, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from connectors.ports import Clock
from streams.backends.ports import Backend, Consumer, NotOwner, Partition
from streams.core.flows import Record

OnAssigned = Callable[[frozenset[int]], Awaitable[None]]
"""Is told which partition numbers have come, before any of their records is worked on."""


class PartitionProgress:
    """The records of one partition that came since it was assigned and are not yet behind the finished prefix."""

    __slots__ = ("_order", "_sizes", "bytes", "closing", "committed", "next", "partition", "paused")

    def __init__(self, partition: Partition) -> None:
        self.partition = partition
        self.next: int | None = None
        """Where to go on; null as long as nothing is finished."""
        self.committed: int | None = None
        self.bytes = 0
        """Of the unfinished ones."""
        self.paused = False
        self.closing = False
        """The partition is going: nothing more is begun."""
        self._order: deque[int] = deque()
        self._sizes: dict[int, int] = {}

    def __len__(self) -> int:
        return len(self._order)

    @property
    def unfinished(self) -> int:
        """Return how many records wait or are in flight; the others only wait for one before them."""
        return len(self._sizes)

    def began(self, offset: int, size: int) -> None:
        self._order.append(offset)
        self._sizes[offset] = size
        self.bytes += size

    def finished(self, offset: int) -> bool:
        """Note that a record is dealt with; return whether the prefix has grown."""
        self.bytes -= self._sizes.pop(offset, 0)
        before = self.next
        while self._order and self._order[0] not in self._sizes:
            self.next = self._order.popleft() + 1
        return self.next != before


class Worker(Protocol):
    """Works on what comes in."""

    def take(self, window: PartitionProgress, records: Sequence[Record]) -> None:
        """Remember them, and tell the intake of each one that is dealt with (`Intake.finished`)."""
        ...

    async def release(self, windows: Collection[PartitionProgress], within: float) -> None:
        """Forget what waits of these partitions; let what is in flight end within so many seconds, or cancel it."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Bounds:
    """How much is held, and how long is waited; seconds, records, bytes."""

    hold_records: int = 2000
    """Unfinished ones of one partition."""
    hold_finished: int = 20_000
    """All of one partition that are not behind the finished prefix. Of a finished one only its number is in memory; but
    so many may be done again after a crash."""
    hold_bytes: int = 8 << 20
    """Of one partition; what the last fetch brought may come on top."""
    fetch_records: int = 2000
    revoke_within: float = 5.0
    """For what is in flight when partitions move: the whole group waits for it."""
    stop_within: float = 20.0
    """For what is in flight at a graceful stop."""

    def are_reached(self, window: PartitionProgress, share: float = 1.0) -> bool:
        """Return whether a partition holds this share of what it may hold."""
        return (
            window.unfinished >= self.hold_records * share
            or window.bytes >= self.hold_bytes * share
            or len(window) >= self.hold_finished * share
        )


class Intake:
    """Reads the topics of one consumer group for one worker, from start to stop."""

    def __init__(
        self,
        log: Backend,
        group: str,
        topics: Sequence[str],
        worker: Worker,
        clock: Clock,
        bounds: Bounds,
        seed: OnAssigned | None,
    ) -> None:
        self._consumer: Consumer = log.consumer(group, topics, self)
        self._worker = worker
        self._clock = clock
        self._bounds = bounds
        self._seed = seed
        self._unseeded: set[int] = set()
        self._windows: dict[Partition, PartitionProgress] = {}
        self._grown = asyncio.Event()
        self._committing = asyncio.Lock()
        self._stopping = asyncio.Event()
        self._failure: asyncio.Future[None] | None = None
        self._ended = asyncio.Event()

    # ----------------------------------------------------------------------------------------------- start and stop

    async def run(self) -> None:
        """Read until stopped; raise what makes going on unsafe."""
        self._failure = asyncio.get_running_loop().create_future()
        tasks: list[asyncio.Task[Any]] = []
        try:
            await self._consumer.start()
            tasks += [
                asyncio.create_task(one) for one in (self._feed(), self._commit_what_grows(), self._stopping.wait())
            ]
            await asyncio.wait([*tasks, self._failure], return_when=asyncio.FIRST_COMPLETED)
            for one in (self._failure, *tasks):
                if one.done():
                    one.result()
            tasks[0].cancel()
            await self._close(list(self._windows.values()), self._bounds.stop_within)
            if self._failure.done():
                self._failure.result()
        finally:
            await cancel(tasks)
            await self._worker.release(list(self._windows.values()), 0)
            if not self._failure.cancel() and not self._failure.cancelled():
                self._failure.exception()  # it was raised, or something else before it
            await self._consumer.stop()
            self._ended.set()

    async def stop(self) -> None:
        """Fetch no more, finish what is in flight, commit, leave. Returns when `run` has ended."""
        self._stopping.set()
        if self._failure is not None:
            await self._ended.wait()

    def fail(self, error: BaseException) -> None:
        """End `run` with this error; nothing more is acknowledged."""
        if self._failure is not None and not self._failure.done():
            self._failure.set_exception(error)

    @property
    def settled(self) -> bool:
        """Whether all that came in is dealt with and committed."""
        return all(not len(one) and one.next == one.committed for one in self._windows.values())

    # ------------------------------------------------------------------------------------------------ what comes in

    async def _feed(self) -> None:
        while True:
            fetched = await self._consumer.fetch(self._bounds.fetch_records)
            # Without any wait since the fetch returned, these records are of partitions that are ours.
            came = [(self._window(partition), records) for partition, records in fetched.items()]
            await self._seed_new()
            for window, records in came:
                if not window.closing:
                    self._take(window, records)

    def _window(self, partition: Partition) -> PartitionProgress:
        return self._windows.setdefault(partition, PartitionProgress(partition))

    async def _seed_new(self) -> None:
        while self._unseeded and self._seed:
            new = frozenset(self._unseeded)
            await self._seed(new)
            self._unseeded -= new

    def _take(self, window: PartitionProgress, records: Sequence[Record]) -> None:
        for record in records:
            window.began(record.offset, len(record.value or b""))
        if self._bounds.are_reached(window):
            window.paused = True
            self._consumer.pause(window.partition)
        self._worker.take(window, records)

    # ---------------------------------------------------------------------------------------------- what is finished

    def finished(self, window: PartitionProgress, offsets: Iterable[int]) -> None:
        """These records are dealt with, and what follows from them is durable."""
        grown = False
        for offset in offsets:
            grown = window.finished(offset) or grown
        if grown and not self._grown.is_set():
            self._grown.set()
        if window.paused and not self._bounds.are_reached(window, 0.5):
            window.paused = False
            if self._windows.get(window.partition) is window:
                self._consumer.resume(window.partition)

    async def _commit_what_grows(self) -> None:
        """Commit whenever something has finished; what finishes during a commit goes with the next."""
        while True:
            await self._grown.wait()
            self._grown.clear()
            await self._commit()

    async def _commit(self) -> None:
        async with self._committing:
            ends = {
                partition: (window, window.next)
                for partition, window in self._windows.items()
                if window.next is not None and window.next != window.committed
            }
            if not ends:
                return
            with contextlib.suppress(NotOwner):
                await self._consumer.commit({partition: end for partition, (_, end) in ends.items()})
                for window, end in ends.values():
                    window.committed = end

    # ------------------------------------------------------------------------------------------- when partitions move

    async def assigned(self, partitions: Collection[Partition]) -> None:
        self._unseeded |= {one.partition for one in partitions}

    async def revoked(self, partitions: Collection[Partition]) -> None:
        going = [self._windows[one] for one in partitions if one in self._windows]
        self._unseeded -= {one.partition for one in partitions}
        try:
            await self._close(going, self._bounds.revoke_within)
        except Exception as error:
            self.fail(error)
        finally:
            for one in going:
                if self._windows.get(one.partition) is one:
                    del self._windows[one.partition]

    async def _close(self, windows: Collection[PartitionProgress], within: float) -> None:
        """Let what is in flight end, and commit what is finished of these partitions."""
        for one in windows:
            one.closing = True
        await self._worker.release(windows, within)
        await bounded(self._clock, self._commit(), within)


async def bounded(clock: Clock, doing: Coroutine[Any, Any, None], within: float) -> None:
    """Do it, but for so many seconds at most."""
    task = asyncio.create_task(doing)
    await ends(clock, [task], within)
    if task.done():
        task.result()
    else:
        await cancel([task])


async def ends(clock: Clock, tasks: Collection[asyncio.Task[Any]], within: float) -> None:
    """Wait until all have ended, but for so many seconds at most."""
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
    """Cancel these tasks and wait for their end."""
    for one in tasks:
        one.cancel()
    if tasks:
        await asyncio.wait(tasks)
