"""The runner of a global: reads compacted topics completely into the memory of a process, and then follows them.

There is no consumer group: every process reads every record. If the broker is unavailable, the memory stays as it is,
and reading continues from the last position afterwards.
"""

import asyncio
import logging
from collections import defaultdict
from collections.abc import Awaitable, Coroutine, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Final, Protocol, TypeVar

from connectors.ports import Clock
from streams.backends.ports import Backend, BackendError, Partition, Reader
from streams.runners.intake import cancel, ends

log = logging.getLogger("streams.runners")

T = TypeVar("T")

FETCH_RECORDS: Final = 200
"""The most records that are applied without yielding to other tasks."""
PROBE_EVERY: Final = 2.0
"""Seconds between two requests that test the broker."""
ANSWER_WITHIN: Final = 10.0
"""Seconds without an answer after which the broker counts as unavailable."""
PAUSE: Final = 1.0
"""Seconds before the next attempt to connect."""
ROUNDS: Final = 3
"""How often the end offsets are read while catching up, so that a topic with constant writes cannot delay the start."""


class Memory(Protocol):
    """The state in memory that the records are applied to."""

    caught_up: bool

    def apply(self, topic: str, key: bytes | None, value: bytes | None) -> None:
        """Apply one record; a null value deletes its key. It must not raise."""
        ...


class Follow:
    """Applies every record of some topics to a memory."""

    def __init__(self, backend: Backend, topics: Sequence[str], memory: Memory, clock: Clock) -> None:
        self._backend = backend
        self._topics = tuple(topics)
        self._memory = memory
        self._clock = clock
        self._positions: dict[Partition, int] = {}
        self._moved = asyncio.Event()
        self._caught_up = asyncio.Event()
        self._expected: defaultdict[tuple[str, bytes, bytes | None], list[asyncio.Future[None]]] = defaultdict(list)
        self._answered_at = clock.monotonic()
        self._problem: str | None = "not connected yet"
        self._reader: Reader | None = None
        """The one that is connected."""
        self._stopping = asyncio.Event()
        self._ended = asyncio.Event()
        self._running = False

    # -------------------------------------------------------------------------------------------------------- status

    @property
    def connected(self) -> bool:
        """Return whether the broker answered the last request."""
        return self._problem is None

    @property
    def problem(self) -> str | None:
        """Return why the topics cannot be read at the moment; null if they are read."""
        return self._problem

    @property
    def age(self) -> float:
        """Return the seconds since the last answer of the broker, the most that the memory can lag behind."""
        return self._clock.monotonic() - self._answered_at

    async def caught_up(self) -> None:
        """Wait until every record that was written before the start is applied, without a timeout."""
        await self._caught_up.wait()

    async def read_to_end(self) -> bool:
        """Return true once everything is applied that was written before the call; false if that is not possible."""
        reader = self._reader
        if reader is None:
            return False
        try:
            targets = await self._ends(reader)
            while not self._reached(targets):
                self._moved.clear()
                await within(self._clock, self._moved.wait(), PROBE_EVERY)
        except (TimeoutError, BackendError):
            return False
        return True

    @contextmanager
    def expecting(self, topic: str, key: bytes, value: bytes | None) -> "Iterator[asyncio.Future[None]]":
        """Yield a future that is done after this record was applied. Enter before the record is produced."""
        waiting = self._expected[topic, key, value]
        applied: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        waiting.append(applied)
        try:
            yield applied
        finally:
            waiting.remove(applied)
            if not waiting:
                self._expected.pop((topic, key, value), None)

    # ------------------------------------------------------------------------------------------------ start and stop

    async def run(self) -> None:
        """Read until stopped."""
        self._running = True
        tasks: list[asyncio.Task[Any]] = [
            asyncio.create_task(self._stay_connected()),
            asyncio.create_task(self._stopping.wait()),
        ]
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            if tasks[0].done():
                tasks[0].result()
        finally:
            await cancel(tasks)
            self._ended.set()

    async def stop(self) -> None:
        """Stop reading; return when `run` has ended."""
        self._stopping.set()
        if self._running:
            await self._ended.wait()

    async def _stay_connected(self) -> None:
        while True:
            reader = self._backend.reader(self._topics, self._positions)
            try:
                await within(self._clock, reader.start(), ANSWER_WITHIN)
                self._reader = reader
                await self._follow(reader)
            except TimeoutError:
                self._lost(f"no broker answered within {ANSWER_WITHIN:g} s")
            except BackendError as error:
                self._lost(str(error))
            finally:
                self._reader = None
                await reader.stop()
            await self._clock.sleep(PAUSE)

    def _lost(self, problem: str) -> None:
        if problem != self._problem:
            log.warning("%s cannot be read, the records read so far are used: %s", ", ".join(self._topics), problem)
        self._problem = problem

    # ------------------------------------------------------------------------------------------------------- reading

    async def _follow(self, reader: Reader) -> None:
        await until_one_ends(self._feed(reader), self._watch(reader))

    async def _feed(self, reader: Reader) -> None:
        while True:
            fetched = await reader.fetch(FETCH_RECORDS)
            # There is no await until the positions are stored, so that every fetched record is applied exactly once.
            for partition, records in fetched.items():
                for record in records:
                    self._apply(partition.topic, record.key, record.value)
            self._positions = dict(reader.positions)
            if fetched:
                self._answered()
            self._moved.set()
            await asyncio.sleep(0)  # yield to other tasks while there are many records to read

    def _apply(self, topic: str, key: bytes | None, value: bytes | None) -> None:
        self._memory.apply(topic, key, value)
        if self._expected:
            for applied in self._expected.get((topic, key or b"", value), ()):
                if not applied.done():
                    applied.set_result(None)

    async def _watch(self, reader: Reader) -> None:
        """Wait until all records are read, then test the broker at intervals."""
        if not self._caught_up.is_set():
            await self._catch_up(reader)
            self._memory.caught_up = True
            self._caught_up.set()
        while True:
            await self._ends(reader)
            await self._clock.sleep(PROBE_EVERY)

    async def _catch_up(self, reader: Reader) -> None:
        """Wait until the end offsets are reached, and those of records written in the meantime."""
        for _ in range(ROUNDS):
            targets = await self._ends(reader)
            if self._reached(targets):
                return
            while not self._reached(targets):
                self._moved.clear()
                try:
                    await within(self._clock, self._moved.wait(), PROBE_EVERY)
                except TimeoutError:
                    await self._ends(reader)

    async def _ends(self, reader: Reader) -> Mapping[Partition, int]:
        found = await within(self._clock, reader.ends(), ANSWER_WITHIN)
        self._answered()
        return found

    def _reached(self, targets: Mapping[Partition, int]) -> bool:
        return all(self._positions.get(partition, 0) >= end for partition, end in targets.items())

    def _answered(self) -> None:
        self._answered_at = self._clock.monotonic()
        self._problem = None


async def until_one_ends(*running: Coroutine[Any, Any, None]) -> None:
    """Run coroutines until the first one ends, and cancel the others. Raise what it raised."""
    tasks = [asyncio.create_task(one) for one in running]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for one in done:
            one.result()
    finally:
        await cancel(tasks)


async def within(clock: Clock, awaitable: Awaitable[T], seconds: float) -> T:
    """Return the result of an awaitable. Cancel it and raise `TimeoutError` after so many seconds."""
    task = asyncio.ensure_future(awaitable)
    try:
        await ends(clock, [task], seconds)
        if not task.done():
            raise TimeoutError
        return task.result()
    finally:
        if not task.done():
            await cancel([task])
        if task.done() and not task.cancelled():
            task.exception()  # noted, also if the caller was cancelled meanwhile: else asyncio logs it with a traceback
