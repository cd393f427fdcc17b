"""Keeps rows of partitions that other workers own, so that this worker has little to read when it takes them over.

One consumer without a group reads the changelogs of these partitions and writes what it reads; it rests while the
partitions of the worker move and its own tables recover. Rows that cannot be kept cost a longer takeover and nothing
else, so no error in here ends the worker.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final

import aiokafka
from aiokafka.errors import OffsetOutOfRangeError

from streams.backends.deadlines import stop_client
from streams.core.flows import Record
from streams.core.observer import Observer
from streams.engine.settings import EngineSettings
from streams.engine.stores import NotHeld, PartitionStore, is_locked

log = logging.getLogger("streams.engine")

RECORDS: Final = 500
"""Records of one write: nothing else of the process runs meanwhile, about four milliseconds."""
REST: Final = 0.01
"""Seconds between two writes, so that rows that are far behind leave most of the time to the worker."""
LOOK: Final = 5.0
"""Seconds between two measurements of how far the rows are behind."""
POSITION_TIMEOUT: Final = 1.0
"""Seconds to wait for the position in a changelog whose leader may be away."""
RETRY: Final = 5.0
"""Seconds after an error until the changelogs are read again."""

Place = tuple[str, int]
"""Changelog and partition."""


class Standbys:
    """The standby rows of one worker."""

    def __init__(
        self,
        settings: EngineSettings,
        stores: Mapping[str, PartitionStore],
        observer: Observer,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """``stores`` has the store of each changelog."""
        self._settings = settings
        self._stores = stores
        self._observer = observer
        self._clock = clock
        self._wanted: frozenset[Place] = frozenset()
        self._open: set[Place] = set()
        self._current: dict[Place, float] = {}
        """When each had all of its changelog, or was opened."""
        self._polled: dict[Place, int] = {}
        """The last answer of a broker for each, as of the last measurement."""
        self._round = 0
        """Changes whenever what was read before must not be written."""
        self._reading = asyncio.Event()

    # ------------------------------------------------------------------------------------- called by the engine's loop

    def pause(self) -> None:
        """Write nothing until `follow` is called: partitions move."""
        self._round += 1
        self._reading.clear()

    def follow(self, places: Iterable[Place]) -> None:
        """Keep rows of these partitions, and of no others."""
        self._round += 1
        self._wanted = frozenset(places)
        for place in self._open - self._wanted:
            self._close(place)
        self._open &= self._wanted
        if self._wanted:
            self._reading.set()
        else:
            self._reading.clear()
            self._observer.standbys_measured(0)

    async def run(self) -> None:
        """Read changelogs until cancelled."""
        while True:
            await self._reading.wait()
            consumer = self._consumer()
            try:
                await consumer.start()
                await self._read(consumer)
            except OffsetOutOfRangeError as gone:
                for found in gone.args[0]:
                    log.warning("Standby rows of %s-%d are not part of the changelog any more: rebuilding", *found)
                    self._drop((found.topic, found.partition))
            except Exception as error:
                log.warning("Standby rows are not kept up to date; trying again in %g s: %r", RETRY, error)
                await asyncio.sleep(RETRY)
            finally:
                await stop_client(consumer)

    def close(self) -> None:
        """Close all rows, after `run` was cancelled."""
        self.follow(())

    # ------------------------------------------------------------------------------------------------------- reading

    def _consumer(self) -> Any:
        settings = self._settings
        return aiokafka.AIOKafkaConsumer(
            bootstrap_servers=settings.servers,
            client_id=f"{settings.app_id}-{settings.worker}-standby",
            enable_auto_commit=False,
            auto_offset_reset="none",
            request_timeout_ms=round(settings.request_timeout * 1000),
            **settings.security,
        )

    async def _read(self, consumer: Any) -> None:
        """Read and write. Raise what the consumer raises."""
        known, looked, again = -1, self._clock(), False
        while True:
            await self._reading.wait()
            if known != self._round:
                known = self._round
                again = not await self._assign(consumer)
            fetched = await consumer.getmany(timeout_ms=500, max_records=RECORDS)
            if known != self._round:
                continue  # partitions moved meanwhile; what was read is read again
            for place, records in fetched.items():
                self._write((place.topic, place.partition), records)
            if self._clock() - looked >= LOOK:
                looked = self._clock()
                await self._look(consumer)
                known = -1 if again else known
            await asyncio.sleep(REST)

    async def _assign(self, consumer: Any) -> bool:
        """Read what is wanted; return whether all of it could be opened."""
        offsets: dict[Any, int | None] = {}
        complete = True
        for topic, partition in sorted(self._wanted):
            try:
                offset = self._stores[topic].open_standby(partition)
            except NotHeld:
                continue  # the worker owns it again
            except Exception as error:
                if not is_locked(error):
                    raise
                log.info("Standby rows of %s-%d are in use elsewhere: %s", topic, partition, error)
                complete = False
                continue
            self._open.add((topic, partition))
            self._current.setdefault((topic, partition), self._clock())
            offsets[aiokafka.TopicPartition(topic, partition)] = offset
            await asyncio.sleep(0)
        consumer.assign(list(offsets))
        empty = [place for place, offset in offsets.items() if offset is None]
        for place, offset in offsets.items():
            if offset is not None:
                consumer.seek(place, offset + 1)
        if empty:
            await consumer.seek_to_beginning(*empty)
        return complete

    def _write(self, place: Place, records: Sequence[Record]) -> None:
        topic, partition = place
        rows = [(record.key, record.value) for record in records if record.key is not None]
        try:
            self._stores[topic].write_standby(partition, rows, records[-1].offset)
        except NotHeld:
            self._open.discard(place)

    # ------------------------------------------------------------------------------------------------------ measuring

    async def _look(self, consumer: Any) -> None:
        """Measure how many records the rows are behind, and drop rows that were behind for too long."""
        behind = 0
        for found in consumer.assignment():
            place, now = (found.topic, found.partition), self._clock()
            end, polled = consumer.highwater(found), consumer.last_poll_timestamp(found)
            try:
                async with asyncio.timeout(POSITION_TIMEOUT):
                    left = max(0, (end or 0) - await consumer.position(found))
            except TimeoutError:
                continue
            behind += left
            if left == 0 and polled != self._polled.get(place):
                self._current[place], self._polled[place] = now, polled
            elif now - self._current.get(place, now) > self._settings.state_max_age:
                log.warning("Standby rows of %s-%d were behind for too long and are rebuilt", *place)
                self._drop(place)
                self._round += 1
        self._observer.standbys_measured(behind)

    def _close(self, place: Place) -> None:
        self._current.pop(place, None)
        self._stores[place[0]].close_standby(place[1])

    def _drop(self, place: Place) -> None:
        self._current.pop(place, None)
        self._open.discard(place)
        self._stores[place[0]].close_standby(place[1], drop=True)
