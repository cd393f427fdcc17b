"""The parts of a stream worker, put together from the topology: the same for Kafka and for the world in memory."""

from collections.abc import Callable, Collection, Hashable, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from typing import Protocol
from zoneinfo import ZoneInfo

from connectors.ports import Accepted, Clock, Connection, Failure, ListingSink
from schemas import retry as header
from schemas import topics
from schemas.delivery import Batch
from schemas.partitions import partition_of
from streams import topology
from streams.backends.ports import Backend
from streams.core.flows import Record
from streams.core.policy import SinkPolicy
from streams.core.retry import Ladder
from streams.core.sequence import FetchSequence
from streams.core.sweep import Running
from streams.flows import maintain_rent_roll
from streams.flows.deliver_batches import DeliverBatches
from streams.flows.emit_batches import EmitBatches
from streams.flows.fetch_changes import FetchChanges, Sources
from streams.flows.mark_date_changes import MarkDateChanges
from streams.flows.schedule_sweeps import ScheduleSweeps
from streams.flows.sweep_accounts import SweepAccounts
from streams.flows.watch_deliveries import WatchDeliveries
from streams.runners.call import Call, CallFlow, CallMetrics, Perform
from streams.runners.fold import Fold, FoldHooks, FoldStep
from streams.runners.redeliver import Redeliver, Wait
from streams.runners.scan import Scan, ScanStep

CALLS_AT_ONCE = 64
"""Calls in flight of one worker; each connection has its own, much smaller bound."""

POSTS_AT_ONCE = 16
"""POSTs in flight of one worker."""

SCHEDULE_EVERY = 1.0
"""Seconds between two looks whether a sweep is due."""

DATE_CHANGES_EVERY = 60.0
"""Seconds between two looks whether the date has turned somewhere."""

WATCH_EVERY = 15.0
"""Seconds between two looks for the oldest undelivered change."""


class Hooks(CallMetrics, FoldHooks, Protocol):
    """What the parts tell whoever measures them."""

    def told(self, batch: Batch, answer: Accepted | Failure) -> None:
        """Hear of a receiver's answer."""
        ...

    def oldest(self, sink: str, partition: int, seconds: float) -> None:
        """Hear of the age of the oldest change that a receiver has not acknowledged."""
        ...


@dataclass(frozen=True, slots=True)
class Dependencies:
    """What the parts need of the outside and of the settings."""

    connections: Sequence[Connection]
    sources: Sources
    sinks: Sequence[ListingSink]
    clock: Clock
    hooks: Hooks
    rungs: Ladder
    partitions: int
    sweep_every: float
    """Seconds."""
    linger: float
    """Seconds."""

    def day(self, org: str, connection: str, now: datetime) -> date:
        """Give the calendar date at the properties of a connection."""
        zone = next((one.timezone for one in self.connections if (one.org, one.name) == (org, connection)), "UTC")
        return now.astimezone(ZoneInfo(zone)).date()

    def home(self, org: str) -> int:
        """Give the partition of an org."""
        return partition_of(org.encode(), self.partitions)


@dataclass(frozen=True, slots=True)
class FoldPart:
    """A fold of the topology with its step."""

    flow: topology.Flow
    step: FoldStep

    def shell(self, dependencies: Dependencies, prefix: str = "") -> Fold:
        """Wrap the step for whoever runs it."""
        assert self.flow.table is not None
        return Fold(
            self.flow.name, self.flow.table, self.step, dependencies.clock, prefix=prefix, hooks=dependencies.hooks
        )


@dataclass(frozen=True, slots=True)
class ScanPart:
    """A scan of the topology with its step."""

    flow: topology.Flow
    every: float
    """Seconds."""
    step: ScanStep

    def shell(self, prefix: str = "") -> Scan:
        """Wrap the step for whoever runs it."""
        return Scan(self.step, prefix=prefix)


def folds(dependencies: Dependencies) -> tuple[FoldPart, ...]:
    """Put the folds together."""
    sinks = tuple(SinkPolicy(sink.name, identity=sink.name) for sink in dependencies.sinks)
    emit = EmitBatches(sinks, dependencies.day)
    return (
        FoldPart(topology.flow("maintain_rent_roll"), maintain_rent_roll.step),
        FoldPart(topology.flow("emit_batches"), emit.step),
    )


def scans(dependencies: Dependencies) -> tuple[ScanPart, ...]:
    """Put the scans together."""
    sweeps = ScheduleSweeps(dependencies.connections, dependencies.sweep_every, dependencies.home, dependencies.clock)
    turns = MarkDateChanges(dependencies.connections, dependencies.day, dependencies.home, dependencies.clock)
    watch = WatchDeliveries(
        tuple(sink.name for sink in dependencies.sinks), dependencies.clock, dependencies.hooks.oldest
    )
    return (
        ScanPart(topology.flow("schedule_sweeps"), SCHEDULE_EVERY, sweeps.step),
        ScanPart(topology.flow("mark_date_changes"), DATE_CHANGES_EVERY, turns.step),
        ScanPart(topology.flow("watch_deliveries"), WATCH_EVERY, watch.step),
    )


def calls(dependencies: Dependencies, log: Backend) -> tuple[Call, ...]:
    """Put the calls together; those that share a group share the owner of an org."""
    connections = {(one.org, one.name): one for one in dependencies.connections}
    sequence = FetchSequence()
    fetch = FetchChanges(dependencies.sources, connections, sequence, dependencies.clock)
    sweep = SweepAccounts(dependencies.sources, connections, sequence, dependencies.clock, Running())
    deliver = DeliverBatches(
        {sink.name: sink for sink in dependencies.sinks},
        dependencies.rungs,
        dependencies.clock,
        dependencies.hooks.told,
    )

    async def go_on(partitions: Collection[int]) -> None:
        for partition, records in (await log.last(topics.CHANGES.name, partitions, TAIL)).items():
            for record in records:
                sequence.seed(partition, _sequence_of(record))

    readers = Call(
        topology.READERS,
        (
            _flow("fetch_changes", fetch.key, fetch.perform, together=True),
            _flow("sweep_accounts", sweep.key, sweep.perform, together=False),
        ),
        log,
        dependencies.clock,
        dependencies.rungs,
        max_in_flight=CALLS_AT_ONCE,
        metrics=dependencies.hooks,
        on_assigned=go_on,
    )
    deliverer = Call(
        topology.flow("deliver_batches").group or "",
        (_flow("deliver_batches", deliver.key, deliver.perform, together=True),),
        log,
        dependencies.clock,
        dependencies.rungs,
        max_in_flight=POSTS_AT_ONCE,
        metrics=dependencies.hooks,
    )
    return readers, deliverer


TAIL = 64
"""Records at the end of a partition in which the newest sequence of the owner before is sure to be."""


def _sequence_of(record: Record) -> int:
    said = next((value for name, value in record.headers if name == header.SEQ), b"0")
    return int(said) if said.isdigit() else 0


def _flow(name: str, key: Callable[[Record], Hashable], perform: Perform, *, together: bool) -> CallFlow:
    reads = tuple(topic.name for topic in topology.flow(name).reads)
    if together:
        return CallFlow(name, reads, key, perform, joins=lambda _record: name)
    return CallFlow(name, reads, key, perform)


def redeliveries(dependencies: Dependencies, log: Backend) -> tuple[Redeliver, ...]:
    """Put the waiting topics together: the linger, and one flow for each rung."""
    linger = topology.flow("linger")
    delays = tuple(rung.delay for rung in dependencies.rungs)
    pairs = zip(topology.redeliveries(delays), dependencies.rungs, strict=True)
    return (
        Redeliver(
            linger.name,
            linger.group or "",
            (Wait(topics.LINGERING.name, dependencies.linger, target=topics.DUE.name),),
            (),
            log,
            dependencies.clock,
            metrics=dependencies.hooks,
        ),
        *(
            Redeliver(
                flow.name,
                flow.group or "",
                (Wait.on(rung),),
                tuple(topic.name for topic in flow.writes),
                log,
                dependencies.clock,
                metrics=dependencies.hooks,
            )
            for flow, rung in pairs
        ),
    )
