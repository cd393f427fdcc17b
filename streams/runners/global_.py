"""The global flow: some compacted topics are read into the memory of a process, whole, and followed from then on.

There is no group: every process sees every record. A broker that is away costs nothing but news: what is in memory
stays, and reading goes on where it ended.
"""

import asyncio
import logging
from collections import defaultdict
from collections.abc import Awaitable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Final, Protocol, TypeVar

from connectors.ports import Clock
from streams.backends.ports import Backend, BackendError, Partition, Reader
from streams.runners.intake import cancel, ends

log = logging.getLogger("streams.runners")

T = TypeVar("T")

FETCH_RECORDS: Final = 200
"""Records that are applied at a time, without letting others work."""
PROBE_EVERY: Final = 2.0
"""Seconds between two proofs that the log is there."""
ANSWER_WITHIN: Final = 10.0
"""Seconds after which the log counts as away."""
PAUSE: Final = 1.0
"""Seconds before the next attempt to connect."""
ROUNDS: Final = 3
"""How often the ends are read while catching up: a topic that is written to all the time must not delay the start."""


class Memory(Protocol):
    """What the records make up."""

    caught_up: bool

    def apply(self, topic: str, key: bytes | None, value: bytes | None) -> None:
        """Apply one record; null deletes. Raise nothing."""
        ...


class Follow:
    """Applies every record of some topics to one memory."""

    def __init__(self, log: Backend, topics: Sequence[str], memory: Memory, clock: Clock) -> None:
        self._log = log
        self._topics = tuple(topics)
        self._memory = memory
        self._clock = clock
        self._positions: dict[Partition, int] = {}
        self._moved = asyncio.Event()
        self._caught_up = asyncio.Event()
        self._expected: defaultdict[tuple[str, bytes, bytes | None], list[asyncio.Future[None]]] = defaultdict(list)
        self._answered_at = clock.monotonic()
        self._trouble: str | None = "not connected yet"
        self._stopping = asyncio.Event()
        self._ended = asyncio.Event()
        self._running = False

    # ------------------------------------------------------------------------------------------------ what is asked

    @property
    def connected(self) -> bool:
        """Return whether the log answered when it was asked last."""
        return self._trouble is None

    @property
    def trouble(self) -> str | None:
        """Return why the log is not read at the moment, one sentence; null if it is."""
        return self._trouble

    @property
    def age(self) -> float:
        """Return the seconds since the log answered last: the memory is at most so old."""
        return self._clock.monotonic() - self._answered_at

    async def caught_up(self) -> None:
        """Wait until the memory holds all that was written before the start, however long the log is away."""
        await self._caught_up.wait()

    @contextmanager
    def expecting(self, topic: str, key: bytes, value: bytes | None) -> "Iterator[asyncio.Future[None]]":
        """Yield a future that is done once exactly this record was applied. Enter before it is written."""
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
        """Read no more. Return when `run` has ended."""
        self._stopping.set()
        if self._running:
            await self._ended.wait()

    async def _stay_connected(self) -> None:
        while True:
            reader = self._log.reader(self._topics, self._positions)
            try:
                await within(self._clock, reader.start(), ANSWER_WITHIN)
                await self._follow(reader)
            except TimeoutError:
                self._lost(f"no broker answered within {ANSWER_WITHIN:g} s")
            except BackendError as error:
                self._lost(str(error))
            finally:
                await reader.stop()
            await self._clock.sleep(PAUSE)

    def _lost(self, trouble: str) -> None:
        if trouble != self._trouble:
            log.warning("%s: going on with what is known: %s", ", ".join(self._topics), trouble)
        self._trouble = trouble

    # ------------------------------------------------------------------------------------------------------- reading

    async def _follow(self, reader: Reader) -> None:
        tasks: list[asyncio.Task[None]] = [
            asyncio.create_task(self._feed(reader)),
            asyncio.create_task(self._watch(reader)),
        ]
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for one in done:
                one.result()
        finally:
            await cancel(tasks)

    async def _feed(self, reader: Reader) -> None:
        while True:
            fetched = await reader.fetch(FETCH_RECORDS)
            # No await until the positions are taken over: what was fetched is applied, whatever happens next.
            for partition, records in fetched.items():
                for record in records:
                    self._apply(partition.topic, record.key, record.value)
            self._positions = dict(reader.positions)
            if fetched:
                self._answered()
            self._moved.set()
            await asyncio.sleep(0)  # a long catching up leaves room for others

    def _apply(self, topic: str, key: bytes | None, value: bytes | None) -> None:
        self._memory.apply(topic, key, value)
        if self._expected:
            for applied in self._expected.get((topic, key or b"", value), ()):
                if not applied.done():
                    applied.set_result(None)

    async def _watch(self, reader: Reader) -> None:
        """Find out when all is read, and prove from time to time that the log is there."""
        if not self._caught_up.is_set():
            await self._catch_up(reader)
            self._memory.caught_up = True
            self._caught_up.set()
        while True:
            await self._ends(reader)
            await self._clock.sleep(PROBE_EVERY)

    async def _catch_up(self, reader: Reader) -> None:
        """Return when the ends are reached, and those that were reached meanwhile."""
        for _ in range(ROUNDS):
            wanted = await self._ends(reader)
            if self._reached(wanted):
                return
            while not self._reached(wanted):
                self._moved.clear()
                try:
                    await within(self._clock, self._moved.wait(), PROBE_EVERY)
                except TimeoutError:
                    await self._ends(reader)

    async def _ends(self, reader: Reader) -> Mapping[Partition, int]:
        found = await within(self._clock, reader.ends(), ANSWER_WITHIN)
        self._answered()
        return found

    def _reached(self, wanted: Mapping[Partition, int]) -> bool:
        return all(self._positions.get(partition, 0) >= end for partition, end in wanted.items())

    def _answered(self) -> None:
        self._answered_at = self._clock.monotonic()
        self._trouble = None


async def within(clock: Clock, doing: Awaitable[T], seconds: float) -> T:
    """Return what it returns. Raise `TimeoutError` after so many seconds, when it is cancelled."""
    task = asyncio.ensure_future(doing)
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
