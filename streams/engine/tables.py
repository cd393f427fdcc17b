"""Tables as Faust sees them: Faust assigns their partitions and decides how far their changelogs must be read.

Faust never reads or writes a row. It calls the store when partitions are assigned or revoked, and asks for the offset
up to which the rows are complete; the records of a changelog do not pass through it (``consumer.py``).
"""

import asyncio
import gc
import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import faust
from faust.stores.base import Store

from streams.core.flows import Record
from streams.engine.stores import PartitionStore, is_locked

log = logging.getLogger("streams.engine")

LOCK_PATIENCE = 30
"""Seconds to wait for another process to close a partition's files."""


@dataclass(frozen=True, slots=True)
class TableHandle:
    """The declaration of a table, by which folds, scans and services refer to it."""

    name: str
    changelog: str
    """Its topic: compacted, with as many partitions as every other."""


class RowStore(Store):  # type: ignore[misc]
    """The store of a table as Faust expects it."""

    def __init__(self, *args: Any, rows: PartitionStore, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.rows = rows
        self.data: dict[bytes, bytes] = {}

    def persisted_offset(self, tp: Any) -> int | None:
        return self.rows.offset(tp.partition)

    def set_persisted_offset(self, tp: Any, offset: int) -> None:
        """Do nothing: an offset is written only together with its rows."""

    async def on_rebalance(self, assigned: Any, revoked: Any, newly_assigned: Any, generation_id: int = 0) -> None:  # noqa: ARG002
        changelog = self.table.changelog_topic_name
        for tp in revoked:
            if tp.topic == changelog:
                self.rows.close(tp.partition)
        for tp in newly_assigned:
            if tp.topic == changelog:
                await self._open(tp.partition)
                await asyncio.sleep(0)

    async def _open(self, partition: int) -> None:
        for attempt in range(LOCK_PATIENCE + 1):
            try:
                self.rows.open(partition)
            except Exception as error:
                if attempt == LOCK_PATIENCE or not is_locked(error):
                    raise
                gc.collect()  # a view of rows that were replaced may wait in a cycle, and holds their files open
                log.info("Waiting for the files of %s-%d: %s", self.table_name, partition, error)
                await asyncio.sleep(1.0)
            else:
                return

    async def stop(self) -> None:
        for partition in self.rows.partitions():
            self.rows.close(partition)
        await super().stop()

    def apply_changelog_batch(self, batch: Any, to_key: Any, to_value: Any) -> None:
        """Do nothing: what Faust passes are markers, whose records are in the rows already."""

    def reset_state(self) -> None:
        """Do nothing: old rows are dropped when they are opened."""

    async def backup_partition(self, *args: Any, **kwargs: Any) -> None:
        raise NotImplementedError

    def restore_backup(self, *args: Any, **kwargs: Any) -> None:
        raise NotImplementedError


class RowTable(faust.Table):  # type: ignore[misc]
    """A Faust table whose rows are in a `PartitionStore`."""

    def __init__(self, *args: Any, rows: PartitionStore, **kwargs: Any) -> None:
        self.rows = rows
        super().__init__(*args, **kwargs)

    def _new_store(self) -> RowStore:
        return RowStore("rows:", self.app, self, table_name=self.name, rows=self.rows)

    def restore(self, partition: int, records: Sequence[Record]) -> int:
        """Apply those records of the changelog that the rows do not contain yet; return how many."""
        if partition not in self.rows.partitions():
            return 0
        known = self.rows.offset(partition)
        last = records[-1].offset
        if known is not None and last <= known:
            return 0
        if known is not None and records[0].offset <= known:
            records = [record for record in records if record.offset > known]
        self.rows.write(partition, _rows(records), last)
        return len(records)


def _rows(records: Iterable[Record]) -> Iterable[tuple[bytes, bytes | None]]:
    return ((record.key, record.value) for record in records if record.key is not None)
