"""Call: records go to one port of the outside; what it answers decides whether they are done, parked or dead.

The laws:

- A record is acknowledged after what follows from it is durable, and only as part of the finished prefix of its
  partition. A kill at any moment loses nothing; it may make us do again what was not yet acknowledged.
- Records of one key are worked on one at a time and in their order; different keys at the same time, up to a bound for
  each flow, and within it for each integration. Integrations that have something ready take turns.
- Records that wait behind each other and may be done together become one `perform`, which settles all of them. What
  arrives after it began waits for the next one.
- Topics have priorities, and share one consumer group: one process owns all records of an org. Within a flow each topic
  leaves a slot more to those before it.
- The shell never raises for a record. What raises is given up with the reason `bug` at once: a poisoned record must not
  come round again and again, and after a mended deploy a replay brings it back. A run of them stops the flow
  (`streams.core.retry.DeadLetterLimit`), as does a parked record or a dead letter that cannot be written.
"""

import asyncio
import logging
import traceback
from collections.abc import Awaitable, Callable, Collection, Hashable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from connectors.ports import Clock, Failure
from schemas.codec import DecodeError
from streams.backends.ports import Backend, Producer, TooLarge
from streams.core.flows import ProducerRecord, Record, encoded
from streams.core.observer import NullObserver, Observer
from streams.core.retry import (
    Dead,
    DeadLetterLimit,
    Done,
    Held,
    Ladder,
    Outcome,
    Parked,
    Reason,
    attempt_of,
    first_failed_at,
    outcome_of,
    outcome_of_hold,
    park,
    to_dead_letter,
)
from streams.runners.intake import Bounds, Intake, OnAssigned, PartitionProgress, cancel, ends
from streams.runners.lanes import Lanes, Quota

log = logging.getLogger("streams.runners")

Answer = Outcome | Failure | Held

Perform = Callable[[Sequence[Record]], Awaitable[Answer]]
"""Deals with one record, or with several that may be done together: the same answer holds for all of them.

Of a port's `Failure` and of a `Held` the runner makes the verdict of each record, by its own attempts and the ladder.
"""


def _alone(_record: Record) -> Hashable | None:
    return None


def _one_group(_key: Any) -> Hashable:
    return None


@dataclass(frozen=True, slots=True)
class CallFlow:
    """One flow: which topics it reads, in the order of their priority, and what it does with a record."""

    name: str
    topics: tuple[str, ...]
    key_of: Callable[[Record], Hashable]
    """Whose turn a record waits for. Equal keys wait for each other, also those of other flows of the same call."""
    perform: Perform
    joins: Callable[[Record], Hashable | None] = _alone
    """What records of one key must have in common to be done together; null: each by itself."""
    group_of: Callable[[Any], Hashable] = _one_group
    """The integration that a key (as `key_of` returned it) belongs to; integrations take turns."""
    max_in_flight: int = 10
    """Calls at the same time, over all integrations."""
    max_in_flight_per_integration: int | None = None


@dataclass(frozen=True, slots=True)
class _Waiting:
    """A record on its way through the shell."""

    record: Record
    window: PartitionProgress
    flow: CallFlow
    rank: int
    group: Hashable
    joins: Hashable | None


@dataclass(frozen=True, slots=True)
class _Judged:
    """Records that were settled together, their verdicts, and what has to be written before they are finished."""

    items: Sequence[_Waiting]
    verdicts: Sequence[Outcome]
    outgoing: Sequence[ProducerRecord]


@dataclass(slots=True)
class _Running:
    """A perform in flight."""

    key: Hashable
    window_of: frozenset[PartitionProgress] = field(default_factory=frozenset)


class Call:
    """Runs the flows of one consumer group, in the order of their priority. Made for one `run`."""

    def __init__(
        self,
        group: str,
        flows: Sequence[CallFlow],
        log: Backend,
        clock: Clock,
        ladder: Ladder,
        *,
        most_together: int = 500,
        producer: Producer | None = None,
        observer: Observer | None = None,
        limit: DeadLetterLimit | None = None,
        on_assigned: OnAssigned | None = None,
        bounds: Bounds | None = None,
    ) -> None:
        """Without ``producer`` it makes, starts and stops its own."""
        self._ranked = [(flow, topic) for flow in flows for topic in flow.topics]
        self._by_topic = {topic: (rank, flow) for rank, (flow, topic) in enumerate(self._ranked)}
        if len(self._by_topic) != len(self._ranked):
            raise ValueError(f"group {group}: a topic has one reader")
        self._clock = clock
        self._ladder = ladder
        self._observer: Observer = observer or NullObserver()
        self._limit = limit or DeadLetterLimit()
        self._own_producer = log.producer() if producer is None else None
        self._producer: Producer = producer or self._own_producer  # type: ignore[assignment]
        quotas = {flow.name: Quota(flow.max_in_flight, flow.max_in_flight_per_integration) for flow in flows}
        self._lanes: Lanes[_Waiting] = Lanes([quotas[flow.name] for flow, _ in self._ranked], most_together)
        self._running: dict[asyncio.Task[None], _Running] = {}
        self._failed = False
        self._intake = Intake(log, group, list(self._by_topic), self, clock, bounds or Bounds(), on_assigned)

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
        """Begin nothing more, let what is in flight end, commit, leave. Returns when `run` has ended."""
        await self._intake.stop()

    @property
    def in_flight(self) -> int:
        return len(self._running)

    @property
    def settled(self) -> bool:
        """Whether all that came in is dealt with and committed."""
        return not self._running and self._intake.settled

    # --------------------------------------------------------------------------------------------- what is next

    def take(self, window: PartitionProgress, records: Sequence[Record]) -> None:
        """Put what came into its lanes (called by the intake)."""
        rank, flow = self._by_topic[window.partition.topic]
        number = window.partition.partition
        for record in records:
            try:
                turn = flow.key_of(record)
                group, joins = flow.group_of(turn), flow.joins(record)
                key: Hashable = (number, turn)
            except Exception:
                # Whatever is wrong with it, `perform` meets it too, and it is judged there.
                key, group, joins = (number, window.partition.topic, record.offset), None, None
            together = None if joins is None else (flow.name, joins)
            self._lanes.put(key, _Waiting(record, window, flow, rank, group, together))
        self._begin()

    def _begin(self) -> None:
        """Begin what may be in flight at the same time."""
        while not self._failed and (found := self._lanes.next()):
            key, items = found
            task = asyncio.create_task(self._work(items), name=f"{items[0].flow.name} {key}")
            self._running[task] = _Running(key, frozenset(item.window for item in items))
            task.add_done_callback(self._end)

    def _end(self, task: asyncio.Task[None]) -> None:
        running = self._running.pop(task)
        error = None if task.cancelled() else task.exception()
        if error is not None:
            self._failed = True
            self._intake.fail(error)
        self._lanes.done(running.key)
        self._begin()

    async def release(self, windows: Collection[PartitionProgress], within: float) -> None:
        """Forget what waits of these partitions and bring what is in flight to its end (called by the intake)."""
        going = set(windows)
        self._lanes.drop(lambda item: item.window in going)
        tasks = [task for task, running in self._running.items() if running.window_of & going]
        await ends(self._clock, tasks, within)
        await cancel([task for task in tasks if not task.done()])

    # ---------------------------------------------------------------------------------------- what follows from it

    async def _work(self, items: Sequence[_Waiting]) -> None:
        flow = items[0].flow
        began = self._clock.monotonic()
        for judged in await self._judge(flow, items):
            await self._settle(flow, judged, began)

    async def _judge(self, flow: CallFlow, items: Sequence[_Waiting]) -> list[_Judged]:
        try:
            return [self._judged(flow, items, await flow.perform([item.record for item in items]))]
        except asyncio.CancelledError as error:
            task = asyncio.current_task()
            if task is not None and task.cancelling():
                raise
            failed: BaseException = error
        except Exception as error:
            failed = error
        if len(items) > 1:
            # One of them must not take the others along.
            return [one for item in items for one in await self._judge(flow, [item])]
        return [self._judged(flow, items, _blame(flow, items[0].record, failed))]

    def _judged(self, flow: CallFlow, items: Sequence[_Waiting], answer: Answer) -> _Judged:
        """Encode what follows from an answer: effects once, then the records that are parked or given up."""
        now = self._clock.now()
        verdicts: Sequence[Outcome]
        if isinstance(answer, Done | Parked | Dead):
            verdicts = [answer] * len(items)
            outgoing = [encoded(effect) for effect in answer.effects]
        else:
            verdicts = [self._verdict(answer, item.record, now) for item in items]
            outgoing = []
        for item, one in zip(items, verdicts, strict=True):
            if isinstance(one, Dead):
                outgoing.append(to_dead_letter(item.record, one, flow.name, now))
            elif isinstance(one, Parked):
                outgoing.append(park(item.record, one, flow.name, now))
                if one.instead is not None:
                    break  # it comes back once, in the place of all of them
        return _Judged(items, verdicts, outgoing)

    def _verdict(self, answer: Failure | Held, record: Record, now: datetime) -> Outcome:
        attempt = attempt_of(record)
        if isinstance(answer, Held):
            return outcome_of_hold(answer, attempt, first_failed_at(record), now, self._ladder)
        return outcome_of(answer, attempt, now, self._ladder)

    async def _settle(self, flow: CallFlow, judged: _Judged, began: float) -> None:
        """Make durable what follows, then let the records count as finished."""
        try:
            await self._write(judged)
        except TooLarge as error:
            judged = self._judged(flow, judged.items, Dead(Reason.TOO_LARGE, str(error)))
            await self._write(judged)
        seconds = self._clock.monotonic() - began
        for item, one in zip(judged.items, judged.verdicts, strict=True):
            self._count(flow, item.record, one, seconds)
            self._intake.finished(item.window, (item.record.offset,))

    async def _write(self, judged: _Judged) -> None:
        self._limit.ended(judged.verdicts)
        if judged.outgoing:
            await self._producer.send(judged.outgoing, judged.items[0].window.partition.partition)

    def _count(self, flow: CallFlow, record: Record, one: Outcome, seconds: float) -> None:
        match one:
            case Done(ending=ending):
                self._observer.record_ended(flow.name, ending.value, seconds)
            case Parked(rung=rung, reason=reason, detail=detail):
                self._observer.record_ended(flow.name, "parked", seconds)
                self._observer.record_parked(flow.name, rung.delay, reason.value)
                log.info("%s: %s parked for %s: %s", flow.name, _name(record), rung.delay, detail)
            case Dead(reason=reason, detail=detail):
                self._observer.record_ended(flow.name, "dead", seconds)
                self._observer.dead_letter(record.topic, reason.value)
                log.warning("%s: %s given up, %s: %s", flow.name, _name(record), reason, detail)


def _name(record: Record) -> str:
    return f"{record.topic}-{record.partition}@{record.offset}"


def _blame(flow: CallFlow, record: Record, error: BaseException) -> Dead:
    """Judge a record on which our own code raised. The detail names the place, not the message: it may hold secrets."""
    if isinstance(error, DecodeError):
        return Dead(Reason.MALFORMED, str(error))
    log.error("%s: a bug met %s", flow.name, _name(record), exc_info=error)
    frames = traceback.extract_tb(error.__traceback__)
    place = f" at {'/'.join(frames[-1].filename.split('/')[-3:])}:{frames[-1].lineno}" if frames else ""
    return Dead(Reason.BUG, f"{type(error).__name__}{place}")
