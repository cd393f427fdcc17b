"""The runner of a redeliver: consumes a topic on which records wait, and forwards each record when it is due.

A record is never forwarded early and never lost. Its offset is committed after the record is durable in the target
topic, so a crash can only duplicate records. It keeps its value, its key and its headers. All records of a topic have
the same delay, so the first record of a partition is due first, and waiting for it does not delay the others.
"""

import asyncio
import logging
from collections import deque
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field

from connectors.ports import Clock
from streams.backends.ports import Backend, NotOwner, Producer
from streams.core.flows import ProducerRecord, Record
from streams.core.observer import NullObserver, Observer
from streams.core.retry import Dead, Reason, Rung, attempt_of, history_of, milliseconds, to_dead_letter
from streams.runners.intake import Bounds, Intake, PartitionProgress, cancel, ends

log = logging.getLogger("streams.runners")

_MAX_BATCH = 500
_LONGEST_SLEEP = 60.0
"""Seconds after which the clock is read again, because it may have been adjusted."""


@dataclass(frozen=True, slots=True)
class Wait:
    """A topic on which records wait."""

    topic: str
    seconds: float
    """The delay of a record without a header with its due time."""
    target: str | None = None
    """The target topic of every record; null: the origin of each record."""

    @classmethod
    def on(cls, rung: Rung) -> "Wait":
        """Return the wait of a rung."""
        return cls(rung.topic, rung.seconds)

    def due(self, record: Record) -> int:
        """Return the time when a record is due, in milliseconds since the epoch."""
        requested = history_of(record).due_at
        return record.timestamp + round(self.seconds * 1000) if requested is None else requested


@dataclass(frozen=True, slots=True)
class _Waiting:
    """A record that waits, and until when.

    Its due time was set by the clock of another process, which may be hours ahead, and this clock may step back. So no
    record waits longer than the delay of its topic from when it was read.
    """

    record: Record
    due: int
    """Milliseconds since the epoch."""
    latest: float
    """Seconds of `Clock.monotonic`."""

    def early(self, clock: Clock) -> float:
        """Return the seconds until it is to be forwarded; 0 or less if it is due."""
        return min((self.due - milliseconds(clock.now())) / 1000, self.latest - clock.monotonic())


@dataclass(slots=True, eq=False)
class _PartitionQueue:
    """The records of one partition that wait, and the task that forwards them."""

    progress: PartitionProgress
    records: deque[_Waiting] = field(default_factory=deque)
    arrived: asyncio.Event = field(default_factory=asyncio.Event)
    forwarding: bool = False
    task: asyncio.Task[None] | None = None


class Redeliver:
    """Consumes topics of waiting records in one consumer group. An instance can `run` once."""

    def __init__(
        self,
        name: str,
        group: str,
        waits: Sequence[Wait],
        origins: Collection[str],
        backend: Backend,
        clock: Clock,
        *,
        producer: Producer | None = None,
        observer: Observer | None = None,
        bounds: Bounds | None = None,
    ) -> None:
        """Create a runner; records may return to the topics ``origins``.

        A ``producer`` that is passed in has to be started and stopped by the caller; otherwise the runner has its own.
        """
        self._name = name
        self._waits = {wait.topic: wait for wait in waits}
        self._origins = frozenset(origins)
        self._clock = clock
        self._observer: Observer = observer or NullObserver()
        self._queues: dict[PartitionProgress, _PartitionQueue] = {}
        self._intake = Intake(backend, group, list(self._waits), self, clock, bounds or Bounds(), None)
        self._own_producer = backend.producer(self._intake.ownership) if producer is None else None
        self._producer: Producer = producer or self._own_producer  # type: ignore[assignment]

    async def run(self) -> None:
        """Work until stopped. Raise if no more offsets may be committed; the process has to end then."""
        try:
            if self._own_producer:
                await self._own_producer.start()
            await self._intake.run()
        finally:
            if self._own_producer:
                await self._own_producer.stop()

    async def stop(self) -> None:
        """Stop forwarding, commit and leave the group; return when `run` has ended."""
        await self._intake.stop()

    @property
    def settled(self) -> bool:
        """Return whether every consumed record is forwarded and committed."""
        return self._intake.settled

    def take(self, progress: PartitionProgress, records: Sequence[Record]) -> None:
        """Queue consumed records (called by the intake)."""
        queue = self._queues.get(progress)
        if queue is None:
            queue = self._queues[progress] = _PartitionQueue(progress)
            queue.task = asyncio.create_task(self._serve(queue), name=f"{self._name} {progress.partition}")
            queue.task.add_done_callback(self._end)
        wait = self._waits[progress.partition.topic]
        latest = self._clock.monotonic() + wait.seconds
        queue.records.extend(_Waiting(record, wait.due(record), latest) for record in records)
        queue.arrived.set()

    async def release(self, partitions: Collection[PartitionProgress], within: float) -> None:
        """Drop the waiting records of partitions, and let those that are being forwarded end (called by the intake)."""
        queues = [queue for one in partitions if (queue := self._queues.pop(one, None))]
        tasks = [queue.task for queue in queues if queue.task]
        await cancel([queue.task for queue in queues if queue.task and not queue.forwarding])
        await ends(self._clock, tasks, within)
        await cancel([task for task in tasks if not task.done()])

    def _end(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and (error := task.exception()):
            self._intake.fail(error)

    async def _serve(self, queue: _PartitionQueue) -> None:
        wait = self._waits[queue.progress.partition.topic]
        while not queue.progress.closing:
            if not queue.records:
                queue.arrived.clear()
                await queue.arrived.wait()
                continue
            early = queue.records[0].early(self._clock)
            if early > 0:
                await self._clock.sleep(min(early, _LONGEST_SLEEP))
                continue
            queue.forwarding = True
            await self._forward(queue, wait)
            queue.forwarding = False

    async def _forward(self, queue: _PartitionQueue, wait: Wait) -> None:
        """Forward the records that are due, in their order."""
        now = self._clock.now()
        at = milliseconds(now)
        due: list[_Waiting] = []
        while queue.records and len(due) < _MAX_BATCH and queue.records[0].early(self._clock) <= 0:
            due.append(queue.records.popleft())
        forwarded: list[ProducerRecord] = []
        for one in due:
            record = one.record
            target = wait.target or history_of(record).origin
            if target is not None and (wait.target or target in self._origins):
                forwarded.append(ProducerRecord(target, record.key or b"", record.value, tuple(record.headers)))
                self._observer.record_ended(self._name, "applied", max(0.0, (at - one.due) / 1000))
            else:
                forwarded.append(self._dead_letter(record, target))
        try:
            await self._producer.send(forwarded, queue.progress.partition.partition)
        except NotOwner as given_away:  # the records are not finished: the next owner has them
            log.info("%s: records of %s are not forwarded: %s", self._name, queue.progress.partition, given_away)
            return
        self._intake.finished(queue.progress, [one.record.offset for one in due])

    def _dead_letter(self, record: Record, target: str | None) -> ProducerRecord:
        found = "the header is missing" if target is None else f"the header is {target[:100]!r}"
        detail = f"rent-origin must be a topic that can be retried; {found}"
        dead = Dead(Reason.NO_ORIGIN, detail, attempt_of(record) - 1)
        self._observer.record_ended(self._name, "dead", 0.0)
        self._observer.dead_letter(record.topic, dead.reason.value)
        log.warning("%s: dead letter of %s@%d: %s", self._name, record.topic, record.offset, dead.detail)
        return to_dead_letter(record, dead, self._name, self._clock.now())
