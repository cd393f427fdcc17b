"""Faust's consumer, changed to lose nothing when partitions move, and to deliver whole batches.

It closes two races of the stock consumer at the end of every rebalance: records that arrive between the seek to the
committed offsets and the clearing of the queues are dropped and later committed; and while the set of active partitions
is empty, aiokafka takes that for "all" and reads on past the records that it drops. The rules: no source record is
delivered while partitions move; a fetch and a seek exclude each other; a fetch during which partitions moved is
dropped (a seek follows it). And a changelog record is applied only *while* partitions move, when no fold can run.
"""
# ruff: noqa: SLF001 - this file uses internals of Faust and aiokafka; tests/streams/engine/test_pins.py watches them

import asyncio
import logging
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping, Sequence
from typing import Any

from aiokafka.consumer import fetcher as fetching
from faust.transport.drivers import aiokafka as driver
from faust.types import TP
from faust.types.tuples import ConsumerMessage

from streams.backends.ports import NotOwner
from streams.backends.truncation import note_lost
from streams.core.flows import Record
from streams.engine.offsets import OffsetTracker

log = logging.getLogger("streams.engine")

POLL = 0.1
"""Seconds that a poll for fetched records may wait; a seek waits for it."""

FIRST_RECORDS = 16
"""Records of a partition that are taken before their size is known."""

MARKER = b"\xff\xffmarker"
"""Key of the message by which Faust learns how far a changelog was read."""


class ConsumerThread(driver.AIOKafkaConsumerThread):  # type: ignore[misc]
    """The thread in which aiokafka's consumer runs."""

    def _create_worker_consumer(self, transport: Any) -> Any:
        consumer = super()._create_worker_consumer(transport)
        consumer._fetch_max_wait_ms = self.app.settings.fetch_wait_ms  # Faust's 1500 cannot be set
        self.app.membership.watch(consumer._client)
        return consumer

    async def _fetch_records(
        self,
        consumer: Any,
        active_partitions: set[TP],
        timeout: float | None = None,  # noqa: ASYNC109
        max_records: int | None = None,
    ) -> dict[Any, list[Any]]:
        """Return fetched records, of each partition a few batches at most; wait only if nothing is there.

        aiokafka alone returns all that it has of one partition first. Under load each partition then had its turn after
        thousands of records of every other one.
        """
        fetcher = consumer._fetcher
        if not self.consumer.flow_active or consumer._closed or fetcher._closed:
            return dict(await super()._fetch_records(consumer, active_partitions, timeout, max_records))
        app, found = self.app, {}
        with fetcher._subscriptions.fetch_context():
            for tp in [tp for tp in list(fetcher._records) if tp in active_partitions]:
                if taken := await _take(fetcher, tp, *app.poll_limits(tp.topic)):
                    found[tp] = taken
            if found:
                return found
            least = min((app.poll_limits(tp.topic)[0] for tp in active_partitions), default=max_records)
            return dict(await fetcher.fetched_records(active_partitions, timeout=timeout, max_records=least))

    async def seek_to_committed(self) -> Mapping[TP, int]:
        """Seek every source partition to its committed offset, or to its beginning if nothing was committed.

        aiokafka does not seek the latter. But it may have been read while partitions moved, and what was read then is
        dropped: without a seek it would never be read again. A partition that ends before what was committed is read
        from its end: Kafka has lost a part of it.
        """
        return dict(await self.call_thread(self._seek_to_committed))

    async def _seek_to_committed(self) -> Mapping[Any, int]:
        consumer = self._ensure_consumer()
        committed: dict[Any, int] = dict(await consumer.seek_to_committed())
        changelogs = self.app.table_of_changelog
        known = [tp for tp, offset in committed.items() if offset and tp.topic not in changelogs]
        ends: Mapping[Any, int] = await consumer.end_offsets(known) if known else {}
        for tp, end in ends.items():
            if committed[tp] > end:
                note_lost(self.app.observer, tp.topic, tp.partition, committed[tp], end)
                consumer.seek(tp, end)
                committed[tp] = end
        untouched = [tp for tp, offset in committed.items() if not offset and tp.topic not in changelogs]
        if untouched:
            await consumer.seek_to_beginning(*untouched)
        return committed

    def group_error(self) -> str | None:
        """Return an error of the group that aiokafka keeps for a call that Faust never makes."""
        consumer = self._consumer
        coordinator = getattr(consumer, "_coordinator", None)
        if coordinator is None:
            return None
        if coordinator._pending_exception is not None:
            return repr(coordinator._pending_exception)
        task = coordinator._coordination_task
        if task.done() and not coordinator._closing.done():
            return "its coordination task has ended"
        return None

    def fetch_position(self, tp: TP) -> int | None:
        """Return the offset of the next record to fetch, as far as known; never waits."""
        consumer = self._consumer
        subscription = consumer._subscription.subscription if consumer is not None else None
        assignment = subscription.assignment if subscription is not None else None
        if assignment is None or not assignment.active:
            return None
        try:
            state = assignment.state_value(driver.ensure_aiokafka_TP(tp))
            return int(state.position) if state is not None and state.has_valid_position else None
        except (KeyError, AssertionError):
            return None


class Consumer(driver.Consumer):  # type: ignore[misc]
    """Delivers the records of one partition from one fetch as one event, and commits what folds have finished."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self.trackers: dict[TP, OffsetTracker] = {}
        self.restored = 0
        self._positions = asyncio.Lock()
        """Held by a fetch, and by a seek."""
        super().__init__(*args, **kwargs)

    def _new_consumer_thread(self) -> ConsumerThread:
        return ConsumerThread(self, loop=self.loop, beacon=self.beacon)

    # ------------------------------------------------------------------------------------------------------ fetching

    async def getmany(self, timeout: float) -> AsyncIterator[tuple[TP, Any]]:  # noqa: ARG002, ASYNC109
        records, generation = await self._fetch()
        settings = self.app.settings
        for fetched, found in records.items():
            tp = TP(*fetched)
            table = self.app.table_of_changelog.get(tp.topic)
            most = self.app.batch_sizes.get(tp.topic, settings.batch_size)
            for chunk in slices(found, most, settings.batch_bytes if table is None else settings.fetch_bytes):
                if not self._is_current(generation):
                    return
                if table is not None:
                    message = self._restore(table, tp, chunk, generation)
                else:
                    message = self._deliver(tp, chunk, generation)
                if message is not None:
                    yield tp, message

    async def _fetch(self) -> tuple[Mapping[Any, list[Record]], int]:
        if not self.flow_active:
            await self.wait(self.can_resume_flow)
        app = self.app
        async with self._positions:
            count, moving = app.rebalancing_count, app.rebalancing
            # A copy: aiokafka, in its thread, must not see the set change, and an empty one means "all" to it.
            active = set(self._get_active_partitions())
            if moving:
                active = {tp for tp in active if tp.topic in app.table_of_changelog}
            records = await self._getmany(active_partitions=active, timeout=POLL) if active else {}
            generation = app.consumer_generation_id
        if not active:
            await asyncio.sleep(POLL / 5)
        moved = app.rebalancing_count != count or (app.rebalancing and not moving)
        return ({}, generation) if moved or not self._is_current(generation) else (records, generation)

    def _is_current(self, generation: int) -> bool:
        return bool(self.flow_active and not self.should_stop and self.app.consumer_generation_id == generation)

    def _restore(self, table: Any, tp: TP, chunk: list[Any], generation: int) -> ConsumerMessage | None:
        if not self.app.rebalancing:
            return None  # recovery is over: from now on the folds write these rows
        self.restored += table.restore(tp.partition, chunk)
        return _message(tp, chunk[-1], MARKER, None, generation)

    def _deliver(self, tp: TP, chunk: list[Any], generation: int) -> ConsumerMessage | None:
        if self.app.rebalancing:
            return None  # a seek to the committed offset follows
        tracker = self.trackers.get(tp)
        if tracker is None:
            tracker = self.trackers[tp] = OffsetTracker()
        begin = tracker.delivered + 1 if tracker.delivered is not None else self._read_offset[tp]
        if begin is not None and chunk[0].offset < begin:
            chunk = [record for record in chunk if record.offset >= begin]
            if not chunk:
                return None
        tracker.deliver(chunk[-1].offset, self.app.readers[tp.topic])
        return _message(tp, chunk[-1], None, chunk, generation)

    # ----------------------------------------------------------------------------------------------------- positions

    async def perform_seek(self) -> None:
        async with self._positions:
            self.trackers.clear()
            await super().perform_seek()

    async def seek_wait(self, partitions: Mapping[TP, int]) -> None:
        async with self._positions:
            await super().seek_wait(partitions)

    async def highwaters(self, *partitions: TP) -> Mapping[TP, int]:
        """Return where topics end; take changelogs over before, so that no former owner writes behind that end.

        Drop rows whose offset is beyond the end of their changelog: Kafka has then lost data, or was set up again while
        ``data_dir`` stayed; Faust would crash at each start.
        """
        await self._take_over(partitions)
        ends: dict[TP, int] = dict(await super().highwaters(*partitions))
        for tp, end in ends.items():
            table = self.app.table_of_changelog.get(tp.topic)
            known = table.rows.offset(tp.partition) if table is not None else None
            if table is not None and known is not None and known >= (end or 0):
                log.warning("The rows of %s-%d are ahead of the changelog (%d of %d) and are rebuilt", *tp, known, end)
                table.rows.reset(tp.partition)
                self.app.tables.recovery.active_offsets[tp] = None
        return ends

    async def _take_over(self, partitions: Iterable[TP]) -> None:
        topics: dict[int, list[str]] = {}
        for tp in partitions:
            if tp.topic in self.app.table_of_changelog:
                topics.setdefault(tp.partition, []).append(tp.topic)
        if topics:
            try:
                await self.app.output.take_over(topics)
            except NotOwner:  # the rebalance that follows cancels this
                await asyncio.get_running_loop().create_future()

    async def on_partitions_revoked(self, revoked: set[TP]) -> None:
        await super().on_partitions_revoked(revoked)  # waits for running batches and commits
        self.trackers.clear()
        self.app.stopped.clear()
        self.app.waiting.clear()

    # --------------------------------------------------------------- commits: of the trackers, not of Faust's own acks

    def finish(self, tp: TP, last: int) -> None:
        """Note that one fold has finished the batch that ends with ``last``."""
        tracker = self.trackers.get(tp)
        if tracker is not None:
            tracker.finish(last)

    def _filter_tps_with_pending_acks(self, topics: Any = None) -> Iterator[TP]:
        for tp, tracker in list(self.trackers.items()):
            if tracker.done is not None and (topics is None or tp in topics or tp.topic in topics):
                yield tp

    def _new_offset(self, tp: TP) -> int | None:
        self._acked[tp].clear()
        self._acked_index[tp].clear()
        tracker = self.trackers.get(tp)
        return tracker.done if tracker is not None else None

    async def verify_all_partitions_active(self) -> None:
        """Do nothing: Faust judges by events of its own and logs errors about partitions that were just assigned.

        The watchdog (`streams.engine.watchdog`) judges by the records that wait.
        """

    async def _add_gap(self, tp: TP, offset_from: int, offset_to: int) -> None:
        """Do nothing: the trackers need no consecutive offsets."""


class Transport(driver.Transport):  # type: ignore[misc]
    """Faust's transport with our consumer."""

    Consumer = Consumer


async def _take(fetcher: Any, tp: TP, most: int, most_bytes: int) -> list[Any]:
    """Return fetched records of a partition, up to a number and about a size; none if it has an error."""
    taken: list[Any] = []
    size, step = 0, FIRST_RECORDS
    # An error is left to a poll by itself: what was taken before it would be lost.
    while size < most_bytes and len(taken) < most and type(fetcher._records.get(tp)) is fetching.FetchResult:
        found = await fetcher.fetched_records({tp}, timeout=0, max_records=min(step, most - len(taken)))
        if not found:
            break
        taken += found[tp]
        size += sum(len(record.value or b"") for record in found[tp])
        step = max(1, (most_bytes - size) * len(taken) // (size + 1))
    return taken


def slices(records: Sequence[Any], most: int, most_bytes: int) -> Iterator[list[Any]]:
    """Return fetched records in batches of bounded size: a step does not pause, and heartbeats wait for it."""
    batch: list[Any] = []
    size = 0
    for record in records:
        length = len(record.value or b"")
        if batch and (len(batch) >= most or size + length > most_bytes):
            yield batch
            batch, size = [], 0
        batch.append(record)
        size += length
    if batch:
        yield batch


def _message(tp: TP, last: Any, key: bytes | None, value: Iterable[Any] | None, generation: int) -> ConsumerMessage:
    """Return the message that Faust passes on for some records; its offset is that of the last one."""
    seconds = last.timestamp / 1000.0
    return ConsumerMessage(
        tp.topic, tp.partition, last.offset, seconds, last.timestamp_type, (), key, value, None, 0, 0, tp,
        generation_id=generation,
    )  # fmt: skip
