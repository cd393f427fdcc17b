"""How one batch is processed, in the order that makes it safe: changelog, store, effects, offset.

The store is never ahead of the changelog, so what a step reads is durable. A batch that is processed again after a
crash finds the rows as they are and emits the same effects again.
"""

import asyncio
import logging
import time
from collections.abc import AsyncIterable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from streams.backends.ports import Fenced, NotOwner
from streams.backends.producer import Entry
from streams.core.flows import RecordBatch, RowsDamaged, Step, StopPartition, View
from streams.core.observer import Observer
from streams.engine.fatal import Exit, Fatal
from streams.engine.output import Output
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
class EngineContext:
    """What folds and scans use of the running engine."""

    output: Output
    observer: Observer
    fatal: Fatal
    stores: Mapping[str, PartitionStore]
    stopped: dict[Any, str]
    """Partitions of source topics that are stopped until they move, or this process is replaced; each with its fold."""

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
            try:
                await self._process(RecordBatch(message.topic, message.partition, event.value))
                self._finish(message.tp, message.offset)
            except asyncio.CancelledError as cancelled:
                if self._stopping():
                    raise  # nothing is lost: the batch is not finished, so its offset is not committed
                self._fail(message, "was cancelled", cancelled)
            except NotOwner as given_away:
                # The batch is not finished, so the next owner processes it, or this worker when it is the owner again.
                log.info("Fold %s dropped a batch of %s-%d: %s", self._fold.name, *message.tp, given_away)
            except StopPartition as stopped:
                self._context.stopped[message.tp] = self._fold.name
                log.critical("Fold %s stops partition %s-%d: %s", self._fold.name, *message.tp, stopped)
            except (Fenced, NotHeld, RowsDamaged) as fault:
                reason = f"fold {self._fold.name} of {message.topic}-{message.partition}: {fault}"
                self._context.fatal(FAULTS[type(fault)], reason, fault)
            except BaseException as error:
                self._fail(message, f"failed with {error!r}", error)

    async def _process(self, batch: RecordBatch) -> None:
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

    def _fail(self, message: Any, what: str, cause: BaseException) -> None:
        first = message.value[0].offset if message.value else message.offset
        self._context.fatal(
            Exit.STEP_FAILED,
            f"fold {self._fold.name} {what} on {message.topic}-{message.partition}, "
            f"offsets {first} to {message.offset}; they are not committed",
            cause,
        )
