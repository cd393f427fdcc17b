"""Redeliver: records wait on a topic until they are due, then go on to the topic where they belong.

The laws: never early, never lost. A record is acknowledged after it is durable at its target, so a kill makes at most
twice what was not yet acknowledged. It keeps its bytes, its key and its headers. All records of a topic wait equally
long, so within a partition the head is due first, and waiting for it keeps nobody else waiting unjustly.
"""

import asyncio
import logging
from collections import deque
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field

from connectors.ports import Clock
from schemas import retry as header
from streams.backends.ports import Backend, Producer
from streams.core.flows import ProducerRecord, Record
from streams.core.observer import NullObserver, Observer
from streams.core.retry import Dead, Reason, Rung, attempt_of, due_at, milliseconds, origin_of, to_dead_letter
from streams.runners.intake import Bounds, Intake, PartitionProgress, cancel, ends

log = logging.getLogger("streams.runners")

_AT_ONCE = 500
_NAP = 60.0
"""Seconds after which a sleeper looks at the clock again: somebody may have set it."""


@dataclass(frozen=True, slots=True)
class Wait:
    """A topic on which records wait."""

    topic: str
    seconds: float
    """How long, where a record does not say when it is due."""
    target: str | None = None
    """Where they all go; null: where each of them came from."""

    @classmethod
    def on(cls, rung: Rung) -> "Wait":
        """Wait on a rung of the ladder."""
        return cls(rung.topic, rung.seconds)

    def due(self, record: Record) -> int:
        """When a record may go on, in milliseconds since the epoch.

        A header that asks for much more than the topic's delay is wrong, and must not hold up those behind it.
        """
        usual = record.timestamp + round(self.seconds * 1000)
        said = due_at(record)
        return usual if said is None or said > usual + self.seconds * 1000 + 60_000 else said


@dataclass(slots=True, eq=False)
class _Pump:
    """What waits of one partition."""

    window: PartitionProgress
    queue: deque[Record] = field(default_factory=deque)
    came: asyncio.Event = field(default_factory=asyncio.Event)
    moving: bool = False
    task: asyncio.Task[None] | None = None


class Redeliver:
    """Serves some waiting topics in one consumer group. Made for one `run`."""

    def __init__(
        self,
        name: str,
        group: str,
        waits: Sequence[Wait],
        origins: Collection[str],
        log: Backend,
        clock: Clock,
        *,
        producer: Producer | None = None,
        observer: Observer | None = None,
        bounds: Bounds | None = None,
    ) -> None:
        """``origins``: where records may go back to. Without ``producer`` it makes, starts and stops its own."""
        self._name = name
        self._waits = {wait.topic: wait for wait in waits}
        self._origins = frozenset(origins)
        self._clock = clock
        self._observer: Observer = observer or NullObserver()
        self._own_producer = log.producer() if producer is None else None
        self._producer: Producer = producer or self._own_producer  # type: ignore[assignment]
        self._pumps: dict[PartitionProgress, _Pump] = {}
        self._intake = Intake(log, group, list(self._waits), self, clock, bounds or Bounds(), None)

    async def run(self) -> None:
        """Work until stopped. Raises where nothing more may be acknowledged: the process should end then."""
        try:
            if self._own_producer:
                await self._own_producer.start()
            await self._intake.run()
        finally:
            if self._own_producer:
                await self._own_producer.stop()

    async def stop(self) -> None:
        """Move nothing more, commit, leave. Returns when `run` has ended."""
        await self._intake.stop()

    @property
    def settled(self) -> bool:
        """Whether all that came in has gone on and is committed: nothing waits."""
        return self._intake.settled

    def take(self, window: PartitionProgress, records: Sequence[Record]) -> None:
        """Let them wait (called by the intake)."""
        pump = self._pumps.get(window)
        if pump is None:
            pump = self._pumps[window] = _Pump(window)
            pump.task = asyncio.create_task(self._serve(pump), name=f"{self._name} {window.partition}")
            pump.task.add_done_callback(self._end)
        pump.queue.extend(records)
        pump.came.set()

    async def release(self, windows: Collection[PartitionProgress], within: float) -> None:
        """Forget what waits of these partitions, and let what is moving arrive (called by the intake)."""
        pumps = [pump for window in windows if (pump := self._pumps.pop(window, None))]
        tasks = [pump.task for pump in pumps if pump.task]
        await cancel([pump.task for pump in pumps if pump.task and not pump.moving])
        await ends(self._clock, tasks, within)
        await cancel([task for task in tasks if not task.done()])

    def _end(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and (error := task.exception()):
            self._intake.fail(error)

    async def _serve(self, pump: _Pump) -> None:
        wait = self._waits[pump.window.partition.topic]
        while not pump.window.closing:
            if not pump.queue:
                pump.came.clear()
                await pump.came.wait()
                continue
            early = wait.due(pump.queue[0]) - milliseconds(self._clock.now())
            if early > 0:
                await self._clock.sleep(min(early / 1000, _NAP))
                continue
            pump.moving = True
            await self._move(pump, wait)
            pump.moving = False

    async def _move(self, pump: _Pump, wait: Wait) -> None:
        """Bring on what is due, in its order."""
        now = self._clock.now()
        at = milliseconds(now)
        due: list[Record] = []
        while pump.queue and len(due) < _AT_ONCE and wait.due(pump.queue[0]) <= at:
            due.append(pump.queue.popleft())
        moved: list[ProducerRecord] = []
        for record in due:
            target = wait.target or origin_of(record)
            if target is not None and (wait.target or target in self._origins):
                moved.append(ProducerRecord(target, record.key or b"", record.value, tuple(record.headers)))
                self._observer.record_ended(self._name, "applied", (at - wait.due(record)) / 1000)
            else:
                moved.append(self._homeless(record, target))
        await self._producer.send(moved, pump.window.partition.partition)
        self._intake.finished(pump.window, [record.offset for record in due])

    def _homeless(self, record: Record, target: str | None) -> ProducerRecord:
        said = "it has no such header" if target is None else f"its header names {target[:100]!r}"
        dead = Dead(
            Reason.NO_ORIGIN, f"{header.ORIGIN} must name a topic that decides again; {said}", attempt_of(record) - 1
        )
        self._observer.record_ended(self._name, "dead", 0.0)
        self._observer.dead_letter(record.topic, dead.reason.value)
        log.warning("%s: %s@%d given up: %s", self._name, record.topic, record.offset, dead.detail)
        return to_dead_letter(record, dead, self._name, self._clock.now())
