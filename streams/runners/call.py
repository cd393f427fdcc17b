"""The runner of a call: passes records to a port of an external system, whose answer makes them done, parked or dead.

- An offset is committed after the effects of its record are durable, and only as part of the contiguous finished
  prefix of its partition. A crash loses nothing; records that were not committed are processed again.
- Records of one key are processed one at a time and in their order, those of different keys concurrently, up to a
  limit for each flow and for each integration. Integrations with ready records are served in turn.
- Consecutive records that may be performed together become one `perform`, whose answer applies to all of them. A
  record that arrives later waits for the next one.
- Topics have priorities and share one consumer group, so that one process owns all records of an org. Within a flow
  each topic leaves one slot more to the topics before it.
- The runner does not raise for a single record. An unexpected exception makes the record a dead letter with the reason
  `bug` without a retry; it can be replayed after a fix. After too many of them (`streams.core.retry.DeadLetterGuard`)
  the records of their integration are held if others go on, else the flow stops; it also stops if a parked record or a
  dead letter cannot be written.
"""

import asyncio
import logging
import traceback
from collections.abc import Awaitable, Callable, Collection, Hashable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from connectors.ports import HASTE, MAY_CALL, Clock, Failure, Haste, may_call
from schemas.codec import DecodeError, UnknownWriter
from schemas.retry import is_replayed
from streams.backends.ports import Backend, NotOwner, Producer, TooLarge
from streams.core.flows import Disposition, Emit, Misplaced, ProducerRecord, Record, check_place, encoded
from streams.core.observer import NullObserver, Observer
from streams.core.retry import (
    Dead,
    DeadLetterGuard,
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

REPLAYED_IN_FLIGHT = 2
"""Replayed records of one integration that are processed at once, beside live ones."""

Answer = Outcome | Failure | Held

Perform = Callable[[Sequence[Record]], Awaitable[Answer]]
"""Processes one record, or several records that may be performed together; the answer applies to all of them.

From a `Failure` or a `Held` the runner derives the outcome of each record, by its attempts and the retry ladder.
"""


Unfinished = Callable[[Record, Dead | Held], Outcome]
"""Returns the outcome of a record that the runner itself has to end or to hold, with what the flow owes others then."""


def _alone(_record: Record) -> Hashable | None:
    return None


def _one_group(_key: Any) -> Hashable:
    return None


@dataclass(frozen=True, slots=True)
class CallFlow:
    """One flow: the topics that it reads, in the order of their priority, and the function that processes records."""

    name: str
    topics: tuple[str, ...]
    key_of: Callable[[Record], Hashable]
    """The key of a record; records with equal keys, also of other flows of the same call, are processed in order."""
    perform: Perform
    joins: Callable[[Record], Hashable | None] = _alone
    """A value that consecutive records of one key must share to be performed together; null: never together."""
    group_of: Callable[[Any], Hashable] = _one_group
    """The integration of a key (as returned by `key_of`); integrations are served in turn."""
    max_in_flight: int = 10
    """The most concurrent calls of all integrations."""
    max_in_flight_per_integration: int | None = None
    unfinished: Unfinished | None = None
    """Null: a dead letter stays one, and a held record comes back as it is."""
    background: bool = False
    """Whether it begins nothing while `Call.hold_background` asks for that."""
    retries: bool = True
    """Whether its records come back as they are from a rung; if not, they are asked for again without one."""


@dataclass(frozen=True, slots=True)
class _Waiting:
    """A record that waits or is in flight."""

    record: Record
    progress: PartitionProgress
    flow: CallFlow
    rank: int
    group: Hashable
    joins: Hashable | None
    misplaced: Misplaced | None = None


@dataclass(frozen=True, slots=True)
class _Decided:
    """Records that were performed together, their outcomes, and the records to produce before they are finished."""

    items: Sequence[_Waiting]
    outcomes: Sequence[Outcome]
    outgoing: Sequence[ProducerRecord]


@dataclass(slots=True)
class _Running:
    """A `perform` in flight."""

    key: Hashable
    partitions: frozenset[PartitionProgress] = field(default_factory=frozenset)
    haste: Haste | None = None
    """Of replayed records: to be urged if live ones wait behind them."""


class Call:
    """Runs the flows of one consumer group, in the order of their priority. An instance can `run` once."""

    def __init__(
        self,
        group: str,
        flows: Sequence[CallFlow],
        backend: Backend,
        clock: Clock,
        ladder: Ladder,
        *,
        max_batch: int = 500,
        producer: Producer | None = None,
        observer: Observer | None = None,
        guard: DeadLetterGuard | None = None,
        on_assigned: OnAssigned | None = None,
        bounds: Bounds | None = None,
        reports: Callable[[Hashable], Sequence[Emit]] | None = None,
        width: Callable[[Hashable], int | None] | None = None,
        partitions: int | None = None,
    ) -> None:
        """Create a runner. Raise `ValueError` if two flows read the same topic.

        ``width`` returns how many records of an integration may be in flight of a flow at the moment; null: its limit.
        ``reports`` returns what has to be written about the integration of a record once the record was performed.
        ``partitions``: how many the topics have, if keys begin with the org of their record; null: records are taken on
        any of them.

        A ``producer`` that is passed in has to be started and stopped by the caller; otherwise the runner has its own.
        """
        self._ranked = [(flow, topic) for flow in flows for topic in flow.topics]
        self._live = len(self._ranked)
        """Ranks of live records; each has one for replayed ones, behind all of these."""
        self._by_topic = {topic: (rank, flow) for rank, (flow, topic) in enumerate(self._ranked)}
        if len(self._by_topic) != len(self._ranked):
            raise ValueError(f"group {group}: two flows read the same topic; give each topic one flow")
        self._clock = clock
        self._ladder = ladder
        self._observer: Observer = observer or NullObserver()
        self._guard = guard or DeadLetterGuard()
        self._reports = reports
        self._partitions = partitions
        quotas = {flow.name: Quota(flow.max_in_flight, flow.max_in_flight_per_integration, width) for flow in flows}
        replayed = {flow.name: Quota(max(flow.max_in_flight // 4, 1), REPLAYED_IN_FLIGHT, width) for flow in flows}
        self._lanes: Lanes[_Waiting] = Lanes(
            [*(quotas[flow.name] for flow, _ in self._ranked), *(replayed[flow.name] for flow, _ in self._ranked)],
            max_batch,
        )
        self._background = [quotas[flow.name] for flow in flows if flow.background] + list(replayed.values())
        self._running: dict[asyncio.Task[None], _Running] = {}
        self._hastes: dict[Hashable, Haste] = {}
        """Of the keys whose replayed records are in flight."""
        self._failed = False
        self._intake = Intake(backend, group, list(self._by_topic), self, clock, bounds or Bounds(), on_assigned)
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
        """Begin no more calls, let those in flight end, commit and leave the group; return when `run` has ended."""
        await self._intake.stop()

    @property
    def in_flight(self) -> int:
        return len(self._running)

    @property
    def replayed_waiting(self) -> int:
        """Return how many replayed records wait for their turn."""
        return self._lanes.waiting_from(self._live)

    @property
    def settled(self) -> bool:
        """Return whether every consumed record is processed and committed."""
        return not self._running and self._intake.settled

    # ---------------------------------------------------------------------------------------------------- scheduling

    def take(self, progress: PartitionProgress, records: Sequence[Record]) -> None:
        """Put consumed records into their lanes (called by the intake)."""
        rank, flow = self._by_topic[progress.partition.topic]
        number = progress.partition.partition
        for record in records:
            misplaced = None
            try:
                flow_key = flow.key_of(record)
                if self._partitions is not None:
                    check_place(flow_key[0], record, self._partitions)  # type: ignore[index]
                group, joins = flow.group_of(flow_key), flow.joins(record)
                key: Hashable = (number, flow_key)
            except Exception as error:
                # If it is not misplaced, `perform` raises for such a record as well, and that is handled there.
                misplaced = error if isinstance(error, Misplaced) else None
                key, group, joins = (number, progress.partition.topic, record.offset), None, None
            together = None if joins is None else (flow.name, joins)
            place = rank + self._live if is_replayed(record.headers) else rank
            self._lanes.put(key, _Waiting(record, progress, flow, place, group, together, misplaced))
            if place == rank and key in self._hastes:
                self._hastes[key].urge()
        self._begin()

    def hold_background(self, held: bool) -> None:
        """Begin no call of a background flow as long as this is true; those in flight go on."""
        for quota in self._background:
            quota.held = held
        self._begin()

    def _begin(self) -> None:
        """Begin as many calls as the limits allow."""
        while not self._failed and (found := self._lanes.next()):
            key, items = found
            haste = Haste() if items[0].rank >= self._live else None
            task = asyncio.create_task(self._work(items, haste), name=f"{items[0].flow.name} {key}")
            self._running[task] = _Running(key, frozenset(item.progress for item in items), haste)
            if haste is not None:
                self._hastes[key] = haste
            task.add_done_callback(self._end)

    def _end(self, task: asyncio.Task[None]) -> None:
        running = self._running.pop(task)
        if running.haste is not None:
            del self._hastes[running.key]
        error = None if task.cancelled() else task.exception()
        if error is not None:
            self._failed = True
            self._intake.fail(error)
        self._lanes.done(running.key)
        self._begin()

    async def release(self, partitions: Collection[PartitionProgress], within: float) -> None:
        """Drop the waiting records of partitions; let calls in flight end, or cancel them (called by the intake)."""
        revoked = set(partitions)
        self._lanes.drop(lambda item: item.progress in revoked)
        tasks = [task for task, running in self._running.items() if running.partitions & revoked]
        await ends(self._clock, tasks, within)
        await cancel([task for task in tasks if not task.done()])

    # ------------------------------------------------------------------------------------------------------ outcomes

    async def _work(self, items: Sequence[_Waiting], haste: Haste | None) -> None:
        flow = items[0].flow
        MAY_CALL.set(self._intake.owned)
        HASTE.set(haste)
        await may_call()
        started = self._clock.monotonic()
        try:
            for decided in await self._perform(flow, items):
                await self._settle(flow, decided, started)
        except NotOwner as given_away:  # the records are not finished: the next owner has them
            log.info("%s: %s is not finished here: %s", flow.name, _name(items[0].record), given_away)

    async def _perform(self, flow: CallFlow, items: Sequence[_Waiting]) -> list[_Decided]:
        if items[0].misplaced is not None:
            return [self._decide(flow, items, Dead(Reason.MISPLACED, str(items[0].misplaced)))]
        try:
            return [self._decide(flow, items, await flow.perform([item.record for item in items]))]
        except UnknownWriter as unknown:
            if len(items) == 1:
                return self._unknown(flow, items, unknown)
            failed: BaseException = unknown
        except asyncio.CancelledError as error:
            task = asyncio.current_task()
            if task is not None and task.cancelling():
                raise
            failed = error
        except Exception as error:
            failed = error
        if len(items) > 1:
            # Perform each record alone, so that an exception affects only the record that causes it.
            return [one for item in items for one in await self._perform(flow, [item])]
        record = items[0].record
        return [self._decide(flow, items, self._unfinished(flow, record, _dead(flow, record, failed)))]

    def _unknown(self, flow: CallFlow, items: Sequence[_Waiting], unknown: UnknownWriter) -> list[_Decided]:
        """Return what follows if a newer release wrote a record."""
        log.warning("%s: %s has to wait: %s", flow.name, _name(items[0].record), unknown)
        if not flow.retries:
            return [self._decided(flow, items, Done(ending=Disposition.IGNORED))]
        held = Held(Reason.UNKNOWN_WRITER, str(unknown))
        return [self._decided(flow, items, self._unfinished(flow, items[0].record, held))]

    def _decide(self, flow: CallFlow, items: Sequence[_Waiting], answer: Answer) -> _Decided:
        """Return what follows an answer; a bug is no reason for a dead letter while nothing else succeeds."""
        group = items[0].group
        if not isinstance(answer, Dead):
            decided = self._decided(flow, items, answer)
            self._guard.succeeded(group)
            return decided
        if self._guard.allows(answer, group, len(items)):
            return self._decided(flow, items, answer)
        if not flow.retries:
            name = _name(items[0].record)
            log.warning("%s: %s is left out, since too many have failed: %s", flow.name, name, answer.detail)
            return self._decided(flow, items, Done(ending=Disposition.IGNORED))
        return self._decided(flow, items, self._unfinished(flow, items[-1].record, Held(answer.reason, answer.detail)))

    def _decided(self, flow: CallFlow, items: Sequence[_Waiting], answer: Answer) -> _Decided:
        """Return the outcomes of an answer, and the records to produce: effects once, then parked and dead records."""
        now = self._clock.now()
        outcomes: Sequence[Outcome]
        if isinstance(answer, Done | Parked | Dead):
            outcomes = [answer] * len(items)
            outgoing = [encoded(effect) for effect in answer.effects]
        else:
            outcomes = [self._outcome(answer, item.record, now) for item in items]
            outgoing = []
        for item, one in zip(items, outcomes, strict=True):
            if isinstance(one, Dead):
                outgoing.append(to_dead_letter(item.record, one, flow.name, now))
            elif isinstance(one, Parked):
                outgoing.append(park(item.record, one, flow.name, now))
                if one.instead is not None:
                    break  # it returns once, in the place of all records
        if self._reports is not None:
            outgoing += [encoded(report) for report in self._reports(items[0].group)]
        return _Decided(items, outcomes, outgoing)

    def _unfinished(self, flow: CallFlow, record: Record, why: Dead | Held) -> Answer:
        """Return the answer for a record that the runner has to end or to hold."""
        if flow.unfinished is None:
            return why
        try:
            return flow.unfinished(record, why)
        except Exception:  # the record cannot be read: the flow has nothing to add
            return why

    def _outcome(self, answer: Failure | Held, record: Record, now: datetime) -> Outcome:
        attempt = attempt_of(record)
        if isinstance(answer, Held):
            return outcome_of_hold(answer, attempt, first_failed_at(record), now, self._ladder)
        return outcome_of(answer, attempt, now, self._ladder)

    async def _settle(self, flow: CallFlow, decided: _Decided, started: float) -> None:
        """Produce the resulting records, then report the input records as finished."""
        try:
            await self._write(decided)
        except TooLarge as error:
            dead = self._unfinished(flow, decided.items[-1].record, Dead(Reason.TOO_LARGE, str(error)))
            decided = self._decide(flow, decided.items, dead)
            await self._write(decided)
        seconds = self._clock.monotonic() - started
        for item, one in zip(decided.items, decided.outcomes, strict=True):
            self._report(flow, item.record, one, seconds)
            self._intake.finished(item.progress, (item.record.offset,))

    async def _write(self, decided: _Decided) -> None:
        if decided.outgoing:
            await self._producer.send(decided.outgoing, decided.items[0].progress.partition.partition)

    def _report(self, flow: CallFlow, record: Record, outcome: Outcome, seconds: float) -> None:
        match outcome:
            case Done(ending=ending):
                self._observer.record_ended(flow.name, ending.value, seconds)
            case Parked(rung=rung, reason=reason, detail=detail):
                self._observer.record_ended(flow.name, "parked", seconds)
                self._observer.record_parked(flow.name, rung.delay, reason.value)
                log.info("%s: %s parked for %s: %s", flow.name, _name(record), rung.delay, detail)
            case Dead(reason=reason, detail=detail):
                self._observer.record_ended(flow.name, "dead", seconds)
                self._observer.dead_letter(record.topic, reason.value)
                log.warning("%s: dead letter of %s, %s: %s", flow.name, _name(record), reason, detail)


def _name(record: Record) -> str:
    return f"{record.topic}-{record.partition}@{record.offset}"


def _dead(flow: CallFlow, record: Record, error: BaseException) -> Dead:
    """Return the outcome of a record after an exception. Its detail omits the message, which may contain secrets."""
    if isinstance(error, DecodeError):
        return Dead(Reason.MALFORMED, str(error))
    log.error("%s: unexpected exception for %s", flow.name, _name(record), exc_info=error)
    frames = traceback.extract_tb(error.__traceback__)
    place = f" at {'/'.join(frames[-1].filename.split('/')[-3:])}:{frames[-1].lineno}" if frames else ""
    return Dead(Reason.BUG, f"{type(error).__name__}{place}")
