"""What happens to one batch, in the order that makes it safe: changelog, store, effects, ack.

The store is never ahead of the changelog, so what a step reads is durable; a batch that is done again after a crash
finds its rows as they are and says its effects again.
"""

import asyncio
import time
from collections.abc import AsyncIterable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from streams.core.flows import RecordBatch, Step, View
from streams.core.observer import Observer
from streams.engine.fatal import Exit, Fatal
from streams.engine.output import Entry, Output
from streams.engine.stores import NotHeld, PartitionStore
from streams.engine.tables import TableHandle

StepFunction = Callable[[RecordBatch, Mapping[str, View]], Step]


@dataclass(frozen=True, slots=True)
class Fold:
    """A fold as it was declared."""

    name: str
    topics: tuple[str, ...]
    table: TableHandle
    step: StepFunction
    reads: tuple[TableHandle, ...]
    batch_size: int | None = None


@dataclass(frozen=True, slots=True)
class EngineContext:
    """What a fold and a scan need of the running engine."""

    output: Output
    observer: Observer
    fatal: Fatal
    stores: Mapping[str, PartitionStore]

    def views(self, tables: Sequence[TableHandle], partition: int) -> dict[str, View]:
        return {table.name: self.stores[table.name].view(partition) for table in tables}


class FoldAgent:
    """The body of the agent of one fold."""

    def __init__(
        self, fold: Fold, context: EngineContext, finish: Callable[[Any, int], None], stopping: Callable[[], bool]
    ) -> None:
        self._fold = fold
        self._rim = context
        self._finish = finish
        self._stopping = stopping
        self._tables = (fold.table, *(table for table in fold.reads if table != fold.table))
        self._rows = context.stores[fold.table.name]

    async def run(self, stream: Any) -> None:
        """Iterate at once: an agent that awaits anything before has no topics yet when the group is joined."""
        events: AsyncIterable[Any] = stream.events()
        async for event in events:
            message = event.message
            try:
                await self._batch(RecordBatch(message.topic, message.partition, event.value))
                self._finish(message.tp, message.offset)
            except asyncio.CancelledError as cancelled:
                if self._stopping():
                    raise  # nothing is lost: the ledger still has this batch as open
                self._fail(message, "was cancelled", cancelled)
            except NotHeld as missing:
                self._rim.fatal(
                    Exit.MISPLACED, f"{message.topic}-{message.partition} came without its tables: {missing}", missing
                )
            except BaseException as error:
                self._fail(message, f"failed with {error!r}", error)

    async def _batch(self, batch: RecordBatch) -> None:
        fold, context = self._fold, self._rim
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
        self._rim.fatal(
            Exit.STEP_FAILED,
            f"fold {self._fold.name} {what} on {message.topic}-{message.partition}, "
            f"offsets {first} to {message.offset}; they stay uncommitted",
            cause,
        )
