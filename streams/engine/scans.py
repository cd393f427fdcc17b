"""Scans: at intervals each reads the rows that this worker owns and emits what is due; it writes no rows."""

import asyncio
import logging
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from schemas.codec import UnknownWriter
from streams.backends.ports import Fenced, NotOwner
from streams.core.flows import Barrier, ProducerRecord, RowsDamaged, View
from streams.engine.agents import FAULTS, EngineContext
from streams.engine.fatal import Exit
from streams.engine.stores import NotHeld
from streams.engine.tables import TableHandle

log = logging.getLogger("streams.engine")

ScanFunction = Callable[[Mapping[str, View], int], Iterable[ProducerRecord | Barrier | None]]
"""Yields what to emit, or null for a row without a result: other work runs after each `CHUNK` of what it yields.

After a barrier it is resumed only if everything before was written.
"""

CHUNK = 500
"""Effects that are written together; between two chunks the event loop runs other tasks."""

LOOK = 0.2
"""Seconds between two checks whether a scan is due."""


@dataclass(frozen=True, slots=True)
class Scan:
    """The declaration of a scan."""

    name: str
    every: float
    step: ScanFunction
    reads: tuple[TableHandle, ...]
    on_assigned: bool


class ScanTask:
    """Runs one scan over the owned partitions, while they do not move."""

    def __init__(
        self,
        scan: Scan,
        context: EngineContext,
        owned: Callable[[], frozenset[int]],
        moves: Callable[[], int | None],
    ) -> None:
        self._scan = scan
        self._context = context
        self._owned = owned
        self._moves = moves
        """Returns the number of rebalances so far; null while one is under way."""

    async def run(self) -> None:
        due_at = time.monotonic() + self._scan.every
        seen: frozenset[int] = frozenset()
        while True:
            await asyncio.sleep(min(LOOK, self._scan.every))
            if self._moves() is None:
                continue
            owned = self._owned()
            if time.monotonic() >= due_at:
                due_at = time.monotonic() + self._scan.every
                todo = owned
            else:
                todo = owned - seen if self._scan.on_assigned else frozenset()
            seen = await self._partitions(sorted(todo)) | (seen & owned) | (owned - todo)

    async def _partitions(self, partitions: Iterable[int]) -> frozenset[int]:
        """Scan one partition after the other; return those whose scan was completed."""
        done = set()
        for partition in partitions:
            try:
                if await self._partition(partition):
                    done.add(partition)
            except asyncio.CancelledError:
                raise
            except (NotHeld, NotOwner):
                continue
            except UnknownWriter as unknown:  # the next pass tries again; a worker of the newer release can read it
                log.warning("Scan %s leaves out partition %d: %s", self._scan.name, partition, unknown)
            except RowsDamaged as damaged:
                await self._repair(partition, damaged)
            except Fenced as fault:
                reason = f"scan {self._scan.name} of partition {partition}: {fault}"
                self._context.fatal(FAULTS[type(fault)], reason, fault)
            except BaseException as error:
                reason = f"scan {self._scan.name} failed with {error!r} on partition {partition}"
                self._context.fatal(Exit.STEP_FAILED, reason, error)
        return frozenset(done)

    async def _repair(self, partition: int, fault: RowsDamaged) -> None:
        """Have rows rebuilt that cannot be read; the next pass scans them. End the worker if that does not help."""
        if await self._context.rebuilds.repair(fault):
            return
        reason = f"scan {self._scan.name} of partition {partition}: {fault}"
        self._context.fatal(FAULTS[RowsDamaged], reason, fault)

    async def _partition(self, partition: int) -> bool:
        scan, context = self._scan, self._context
        busy, count, move = 0.0, 0, self._moves()
        if move is None:
            return False
        await context.output.owned()
        effects: list[ProducerRecord] = []
        resumed = time.perf_counter()
        for number, one in enumerate(scan.step(context.views(scan.reads, partition), partition), 1):
            if isinstance(one, ProducerRecord):
                effects.append(one)
                count += 1
            if number % CHUNK and one is not Barrier.DURABLE:
                continue
            busy += time.perf_counter() - resumed
            if not await self._write(partition, effects, move):
                return False
            effects.clear()
            await asyncio.sleep(0)
            resumed = time.perf_counter()
        busy += time.perf_counter() - resumed
        if not await self._write(partition, effects, move):
            return False
        context.observer.partition_scanned(scan.name, partition, count, busy)
        return True

    async def _write(self, partition: int, effects: list[ProducerRecord], move: int) -> bool:
        """Write what a scan emitted; return false if partitions moved since it began."""
        if self._moves() != move:
            return False
        if effects:
            await self._context.output.effects(partition, effects)
        return True
