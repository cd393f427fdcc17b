"""Rebuilds rows that cannot be read from their changelog, while the worker owns their partition and goes on.

The changelog is read by a consumer of its own into new rows beside the damaged ones. The fold that writes the table
waits meanwhile, in that partition and so in all of its others; the rest of the worker goes on.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Mapping
from typing import Any, Final

import aiokafka
from aiokafka.errors import KafkaError

from streams.backends.deadlines import stop_client
from streams.backends.ports import NotOwner
from streams.core.flows import RowsDamaged
from streams.engine.output import Output
from streams.engine.settings import EngineSettings
from streams.engine.stores import FreshRows, NotHeld, PartitionStore

log = logging.getLogger("streams.engine")

AGAIN_AFTER: Final = 3600.0
"""Seconds in which a second damage of the same rows is the disk's fault: the worker ends then."""

Place = tuple[str, int]
"""Table and partition."""


class Rebuilds:
    """The locks of the tables' writers, and the rebuilds under way."""

    def __init__(
        self,
        settings: EngineSettings,
        stores: Mapping[str, PartitionStore],
        changelogs: Mapping[str, str],
        output: Output,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """``changelogs`` has the topic of each table."""
        self._settings = settings
        self._stores = stores
        self._changelogs = changelogs
        self._output = output
        self._clock = clock
        self._locks: dict[Place, asyncio.Lock] = {}
        self._running: dict[Place, asyncio.Task[bool]] = {}
        self._done_at: dict[Place, float] = {}

    def writing(self, table: str, partition: int) -> asyncio.Lock:
        """Return the lock that the writer of a partition holds from its reads to its writes."""
        return self._locks.setdefault((table, partition), asyncio.Lock())

    async def repair(self, fault: RowsDamaged) -> bool:
        """Rebuild the rows that a fault is about; return false if that cannot help, so that the worker has to end.

        Several callers with the same fault wait for one rebuild.
        """
        place = (fault.table, fault.partition)
        fault.with_traceback(None)  # its frames hold the damaged rows open
        fault.__cause__ = fault.__context__ = None
        running = self._running.get(place)
        if running is None:
            done_at = self._done_at.get(place)
            if fault.table not in self._changelogs or (done_at is not None and self._clock() - done_at < AGAIN_AFTER):
                return False
            running = asyncio.create_task(self._rebuild(*place))
            self._running[place] = running
            running.add_done_callback(lambda _: self._running.pop(place, None))
        return await asyncio.shield(running)

    async def _rebuild(self, table: str, partition: int) -> bool:
        log.error("Rows of %s-%d cannot be read: they are rebuilt from the changelog", table, partition)
        store, started, fresh = self._stores[table], self._clock(), None
        async with self.writing(table, partition):
            try:
                fresh = store.begin_rewrite(partition)
                records = await self._read(self._changelogs[table], partition, fresh)
                store.adopt(partition, fresh)
            except (NotOwner, NotHeld) as given_away:
                log.warning("Rows of %s-%d are not rebuilt here: %s", table, partition, given_away)
                _discard(fresh)
                return True  # the next owner finds them marked, or has others
            except Exception:
                log.exception("Rows of %s-%d cannot be rebuilt", table, partition)
                _discard(fresh)
                return False
        self._done_at[table, partition] = self._clock()
        seconds = self._clock() - started
        log.warning("Rows of %s-%d are rebuilt from %d records in %.1f s", table, partition, records, seconds)
        return True

    async def _read(self, changelog: str, partition: int, fresh: FreshRows) -> int:
        """Write a changelog to its present end; return how many records it has. Raise `NotOwner` or `KafkaError`."""
        settings = self._settings
        consumer: Any = aiokafka.AIOKafkaConsumer(
            bootstrap_servers=settings.servers,
            client_id=f"{settings.app_id}-{settings.worker}-rebuild",
            enable_auto_commit=False,
            auto_offset_reset="earliest",
            max_partition_fetch_bytes=settings.fetch_bytes,
            request_timeout_ms=round(settings.request_timeout * 1000),
            **settings.security,
        )
        place, count = aiokafka.TopicPartition(changelog, partition), 0
        try:
            await consumer.start()
            consumer.assign([place])
            await consumer.seek_to_beginning(place)
            end = (await consumer.end_offsets([place]))[place]
            while await consumer.position(place) < end:
                await self._output.owned()
                fetched = await consumer.getmany(place, timeout_ms=500, max_records=settings.batch_size)
                for records in fetched.values():
                    rows = [(record.key, record.value) for record in records if record.key is not None]
                    fresh.write(rows, records[-1].offset)
                    count += len(records)
        except KafkaError as error:
            raise RuntimeError(f"{changelog} cannot be read: {error!r}") from error
        finally:
            await stop_client(consumer)
        return count


def _discard(fresh: FreshRows | None) -> None:
    if fresh is not None:
        fresh.discard()
