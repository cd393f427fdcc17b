"""Writers of one partition share batches, so that load increases the size of batches and not their number."""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Final

from streams.backends.ports import (
    BackendError,
)
from streams.backends.writer import BATCH_BYTES, Entry

TOGETHER_BYTES: Final = BATCH_BYTES * 3 // 4
"""Bytes of keys and values that are written together; the rest of a batch is for headers and framing."""

WriteTogether = Callable[[str, int, Sequence[Entry]], Awaitable[object]]
"""Writes records of one partition, as `BatchWriter.append` does."""


@dataclass(slots=True, eq=False)
class _Submitted:
    """The records of one writer; a writer that gave up has cancelled the future."""

    entries: Sequence[Entry]
    size: int
    at: float
    durable: "asyncio.Future[None]"

    def fail(self, error: Exception) -> None:
        if not self.durable.done():
            self.durable.set_exception(error)


@dataclass(slots=True)
class _Lane:
    """The records of one partition that wait, and those that are being written."""

    topic: str
    partition: int
    waiting: deque[_Submitted] = field(default_factory=deque)
    in_flight: list[_Submitted] = field(default_factory=list)
    drain: "asyncio.Task[None] | None" = None


class GroupCommit:
    """Lets writers of one partition share batches: records that are submitted during a write form the next batch.

    Load therefore increases the size of batches and not their number. Records keep their order in each partition.
    """

    def __init__(self, write: WriteTogether, prefix: str = "", pause: float = 0.0) -> None:
        """Prepare; ``prefix`` stands before every name of a topic.

        ``pause``: seconds after a write in which more records are collected; without a recent write there is no wait.
        """
        self.connected = asyncio.Event()
        """Records wait while it is not set."""
        self.connected.set()
        self._write = write
        self._prefix = prefix
        self._pause = pause
        self._lanes: dict[tuple[str, int], _Lane] = {}

    def submit(self, topic: str, partition: int, entries: Sequence[Entry], size: int) -> "asyncio.Future[None]":
        """Return a future that is done when the records are durable; if it is cancelled in time, they are not written.

        ``size`` is the sum of their `checked_size`.
        """
        lane = self._lanes.get((topic, partition))
        if lane is None:
            lane = self._lanes[topic, partition] = _Lane(self._prefix + topic, partition)
        loop = asyncio.get_running_loop()
        durable: asyncio.Future[None] = loop.create_future()
        lane.waiting.append(_Submitted(entries, size, loop.time(), durable))
        if lane.drain is None:
            lane.drain = loop.create_task(self._drain(lane))
        return durable

    def expire(self, before: float, error: Exception) -> bool:
        """Fail the records submitted before a time of the event loop's clock; return whether there were any."""
        expired = False
        for lane in self._lanes.values():
            for one in (*lane.in_flight, *lane.waiting):
                if one.at > before:
                    break
                expired = expired or not one.durable.done()
                one.fail(error)
            while lane.waiting and lane.waiting[0].durable.done():
                lane.waiting.popleft()
        return expired

    async def close(self, within: float = 0.0) -> None:
        """Wait at most so many seconds for the submitted records, and fail the rest with `BackendError`."""
        drains = [lane.drain for lane in self._lanes.values() if lane.drain is not None]
        if drains:
            await asyncio.wait(drains, timeout=within)
        for drain in drains:
            drain.cancel()
        await asyncio.gather(*drains, return_exceptions=True)
        for lane in self._lanes.values():
            for one in (*lane.in_flight, *lane.waiting):
                one.fail(BackendError("the producer stops"))

    async def _drain(self, lane: _Lane) -> None:
        """Write what waits in a lane until nothing does."""
        try:
            while lane.waiting:
                await self.connected.wait()
                lane.in_flight = self._take(lane.waiting)
                if lane.in_flight:
                    await self._write_in_flight(lane)
                await asyncio.sleep(self._pause)
        finally:
            lane.drain = None

    @staticmethod
    def _take(waiting: deque[_Submitted]) -> list[_Submitted]:
        taken: list[_Submitted] = []
        size = 0
        while waiting and size < TOGETHER_BYTES:
            one = waiting.popleft()
            if not one.durable.done():
                taken.append(one)
                size += one.size
        return taken

    async def _write_in_flight(self, lane: _Lane) -> None:
        entries = [entry for one in lane.in_flight for entry in one.entries]
        try:
            await self._write(lane.topic, lane.partition, entries)
        except Exception as error:
            for one in lane.in_flight:
                one.fail(error)
        else:
            for one in lane.in_flight:
                if not one.durable.done():
                    one.durable.set_result(None)
        lane.in_flight = []
