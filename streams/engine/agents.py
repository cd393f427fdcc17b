"""How one batch is processed, in the order that makes it safe: changelog, store, effects, offset.

The store is never ahead of the changelog, so what a step reads is durable. A batch that is processed again after a
crash finds the rows as they are and emits the same effects again.
"""

import asyncio
import logging
import time
from collections.abc import AsyncIterable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from streams.backends.ports import BackendError, Fenced, NotOwner
from streams.backends.writer import Entry
from streams.core.flows import Record, RecordBatch, RowsDamaged, Step, StopPartition, View
from streams.core.observer import Observer
from streams.engine.fatal import Exit, Fatal
from streams.engine.output import Output
from streams.engine.rebuild import Rebuilds
from streams.engine.stores import NotHeld, PartitionStore
from streams.engine.tables import TableHandle

log = logging.getLogger("streams.engine")

FAULTS: Mapping[type[Exception], Exit] = {
    Fenced: Exit.NOT_OWNER,
    NotHeld: Exit.MISPLACED,
    RowsDamaged: Exit.DAMAGED,
}
"""For which faults around a batch the worker ends itself, and with which exit code."""

StepFunction = Callable[[RecordBatch, Mapping[str, View]], Step]


@dataclass(frozen=True, slots=True)
class Fold:
    """The declaration of a fold."""

    name: str
    topics: tuple[str, ...]
    table: TableHandle
    step: StepFunction
    reads: tuple[TableHandle, ...]
    batch_size: int | None = None


@dataclass(frozen=True, slots=True)
class Waiting:
    """Failed records of a partition that wait until others succeed, and the last offsets of their batches."""

    records: Sequence[Record]
    lasts: Sequence[int]


@dataclass(frozen=True, slots=True)
class EngineContext:
    """What folds and scans use of the running engine."""

    output: Output
    observer: Observer
    fatal: Fatal
    stores: Mapping[str, PartitionStore]
    stopped: dict[Any, str]
    """Partitions of source topics that are stopped until they move, or this process is replaced; each with its fold."""
    rebuilds: Rebuilds
    waiting: dict[tuple[str, Any], Waiting] = field(default_factory=dict)
    """Records that wait, by fold and partition of a source topic; in memory only, since they are not finished."""

    def views(self, tables: Sequence[TableHandle], partition: int) -> dict[str, View]:
        """Return tables by name, as of one partition. Raise `NotHeld` if this worker does not own it."""
        return {table.name: self.stores[table.name].view(partition) for table in tables}


class FoldAgent:
    """The Faust agent of one fold."""

    def __init__(
        self, fold: Fold, context: EngineContext, finish: Callable[[Any, int], None], stopping: Callable[[], bool]
    ) -> None:
        self._fold = fold
        self._context = context
        self._finish = finish
        self._stopping = stopping
        self._tables = (fold.table, *(table for table in fold.reads if table != fold.table))
        self._rows = context.stores[fold.table.name]

    async def run(self, stream: Any) -> None:
        """Process the batches of a stream; with any await before it, Faust would join the group without its topics."""
        events: AsyncIterable[Any] = stream.events()
        async for event in events:
            message = event.message
            if message.tp in self._context.stopped:
                continue  # not finished: it follows one that is not
            await self._handle(message.tp, event.value, [message.offset])
            for name, tp in list(self._context.waiting):
                # What was processed since may be the success that they wait for.
                if name == self._fold.name and tp != message.tp:
                    await self._handle(tp, (), ())

    async def _handle(self, tp: Any, records: Sequence[Record], lasts: Sequence[int]) -> None:
        """Process records of a partition, and before them those of it that wait."""
        before = self._context.waiting.pop((self._fold.name, tp), Waiting((), ()))
        waiting = Waiting([*before.records, *records], [*before.lasts, *lasts])
        if waiting.records:
            await self._finish_or_wait(tp, waiting)

    async def _finish_or_wait(self, tp: Any, what: Waiting) -> None:
        records = what.records
        try:
            left = await self._process(RecordBatch(tp.topic, tp.partition, records))
            if left:
                self._context.waiting[self._fold.name, tp] = Waiting(records[-left:], what.lasts)
            else:
                for last in what.lasts:
                    self._finish(tp, last)
        except asyncio.CancelledError as cancelled:
            if self._stopping():
                raise  # nothing is lost: the batch is not finished, so its offset is not committed
            self._fail(tp, records, "was cancelled", cancelled)
        except NotOwner as given_away:
            # The batch is not finished, so the next owner processes it, or this worker when it is the owner again.
            log.info("Fold %s dropped a batch of %s-%d: %s", self._fold.name, *tp, given_away)
        except StopPartition as stopped:
            self._context.stopped[tp] = self._fold.name
            log.critical("Fold %s stops partition %s-%d: %s", self._fold.name, *tp, stopped)
        except (Fenced, NotHeld, RowsDamaged) as fault:
            self._context.fatal(
                FAULTS[type(fault)], f"fold {self._fold.name} of {tp.topic}-{tp.partition}: {fault}", fault
            )
        except BackendError as error:  # the sentence is enough: nothing of the program has failed
            self._fail(tp, records, f"failed: {error}", None)
        except BaseException as error:
            self._fail(tp, records, f"failed with {error!r}", error)

    async def _process(self, batch: RecordBatch) -> int:
        """Make the step of a batch durable; return how many of its last records wait.

        Rows that cannot be read are rebuilt before. Raise `RowsDamaged` if that does not help.
        """
        while True:
            try:
                async with self._context.rebuilds.writing(self._fold.table.name, batch.partition):
                    return await self._process_once(batch)
            except RowsDamaged as fault:
                if not await self._context.rebuilds.repair(fault):
                    raise

    async def _process_once(self, batch: RecordBatch) -> int:
        fold, context = self._fold, self._context
        # Another owner may have changed the rows that the step would read.
        await context.output.owned()
        began = time.perf_counter()
        views = context.views(self._tables, batch.partition)
        step = fold.step(batch, views)
        if step.rows:
            entries: list[Entry] = [(key, value, ()) for key, value in step.rows.items()]
            offset = await context.output.append(fold.table.changelog, batch.partition, entries)
            self._rows.write(batch.partition, step.rows.items(), offset)
        if step.effects:
            await context.output.effects(batch.partition, step.effects)
        context.observer.batch_folded(fold.name, batch.topic, len(batch.records), time.perf_counter() - began)
        return step.waiting

    def _fail(self, tp: Any, records: Sequence[Record], what: str, cause: BaseException | None) -> None:
        self._context.fatal(
            Exit.STEP_FAILED,
            f"fold {self._fold.name} {what} on {tp.topic}-{tp.partition}, "
            f"offsets {records[0].offset} to {records[-1].offset}; they are not committed",
            cause,
        )
