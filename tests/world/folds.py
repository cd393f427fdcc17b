"""Folds and scans over the log in memory: what the engine does on Kafka, in the same order of writes."""

import asyncio
from collections.abc import Collection, Mapping, Sequence

from streams import topology
from streams.backends.memory import MemoryBackend
from streams.backends.ports import Partition
from streams.core.flows import Barrier, ProducerRecord, Record, RecordBatch, StopPartition, View
from streams.runners.fold import Fold
from streams.wiring import Dependencies, ScanPart, folds, scans
from tests.streams.core.views import MemoryView

Tables = dict[tuple[str, int], MemoryView]
"""Rows by table and partition, as the changelogs keep them: they outlive a worker."""


class MemoryFolds:
    """One member of the folds' group: rows durable, then effects, then the commit."""

    def __init__(self, needs: Dependencies, backend: MemoryBackend, tables: Tables) -> None:
        self._needs = needs
        self._tables = tables
        self._backend = backend
        self._folds: dict[str, Fold] = {}
        for part in folds(needs):
            runner = part.runner(needs)
            self._folds |= {topic.name: runner for topic in part.flow.reads}
        self._scans: tuple[ScanPart, ...] = scans(needs)
        self._consumer = backend.consumer(topology.APP, sorted(self._folds), self)
        self._producer = backend.producer()
        self._owned: frozenset[int] = frozenset()
        self._moves = 0
        self._stopped: set[Partition] = set()
        self._waiting: dict[Partition, Sequence[Record]] = {}
        self._views_of: dict[int, Mapping[str, View]] = {}

    async def revoked(self, partitions: Collection[Partition]) -> None:
        del partitions
        self._owned = frozenset()
        self._moves += 1
        self._stopped.clear()
        self._waiting.clear()

    async def assigned(self, partitions: Collection[Partition]) -> None:
        self._owned = frozenset(one.partition for one in partitions)

    async def stop(self) -> None:
        await self._consumer.stop()

    async def run(self) -> None:
        await self._consumer.start()
        scanning = [asyncio.create_task(self._scan(part)) for part in self._scans]
        try:
            while True:
                found = await self._consumer.fetch(100)
                moves = self._moves
                for partition, records in found.items():
                    if moves != self._moves:
                        break
                    await self._batch(partition, records)
                    for other in [one for one in self._waiting if one != partition]:
                        await self._batch(other, ())
        finally:
            for task in scanning:
                task.cancel()

    async def _batch(self, partition: Partition, fetched: Sequence[Record]) -> None:
        fold = self._folds[partition.topic]
        records = [*self._waiting.pop(partition, ()), *fetched]
        batch = RecordBatch(partition.topic, partition.partition, records)
        if partition in self._stopped:
            return
        try:
            step = fold(batch, self._views(partition.partition))
        except StopPartition:
            self._stopped.add(partition)
            return
        await self._backend.alive(asyncio.sleep(0))
        table = topology.flow(fold.name).table
        assert table is not None
        self._view(table, partition.partition).write(step.rows)
        if step.effects:
            await self._producer.send(step.effects, partition.partition)
        if step.waiting:
            self._waiting[partition] = records[-step.waiting :]
        done = [one.offset + 1 for one in records[: len(records) - step.waiting]]
        if done:
            await self._consumer.commit({partition: done[-1]})

    async def _scan(self, part: ScanPart) -> None:
        while True:
            for number in sorted(self._owned):
                due: list[ProducerRecord] = []
                for one in part.runner()(self._views(number), number):
                    if isinstance(one, ProducerRecord):
                        due.append(one)
                    if due and one is Barrier.DURABLE:
                        await self._producer.send(due, number)
                        due.clear()
                if due:
                    await self._producer.send(due, number)
            await self._needs.clock.sleep(part.every)

    def _view(self, table: str, partition: int) -> MemoryView:
        return self._tables.setdefault((table, partition), MemoryView())

    def _views(self, partition: int) -> Mapping[str, View]:
        if partition not in self._views_of:
            self._views_of[partition] = {table: self._view(table, partition) for table in topology.tables()}
        return self._views_of[partition]
