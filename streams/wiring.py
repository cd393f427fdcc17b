"""The parts of a stream worker, put together from the topology: the same for Kafka and for the world in memory."""

from collections.abc import Collection, Hashable, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from typing import Protocol
from zoneinfo import ZoneInfo

from connectors.ports import Clock, Connection, ListingSink
from schemas import retry as header
from schemas import topics
from schemas.partitions import partition_of
from streams import topology
from streams.backends.ports import Backend
from streams.core.breaker import Breakers
from streams.core.flows import Record
from streams.core.observer import Observer
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
from streams.runners.call import Answer, Call, CallFlow
from streams.runners.fold import Fold, FoldStep
from streams.runners.redeliver import Redeliver, Wait
from streams.runners.scan import Scan, ScanStep


@dataclass(frozen=True, slots=True)
class Dependencies:
    """What the parts need of the outside and of the settings."""

    connections: Sequence[Connection]
    sources: Sources
    sinks: Sequence[ListingSink]
    clock: Clock
    observer: Observer
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
            self.flow.name,
            self.flow.table,
            self.step,
            dependencies.clock,
            prefix=prefix,
            observer=dependencies.observer,
        )


@dataclass(frozen=True, slots=True)
class ScanPart:
    """A scan of the topology with its step."""

    flow: topology.Flow
    step: ScanStep

    @property
    def every(self) -> float:
        """Return the seconds between two passes."""
        return self.flow.every

    def shell(self, prefix: str = "") -> Scan:
        """Wrap the step for whoever runs it."""
        return Scan(self.step, prefix=prefix)


def folds(dependencies: Dependencies) -> tuple[FoldPart, ...]:
    """Put the folds together."""
    emit = EmitBatches(tuple(sink.name for sink in dependencies.sinks), dependencies.day)
    return (
        FoldPart(topology.flow("maintain_rent_roll"), maintain_rent_roll.step),
        FoldPart(topology.flow("emit_batches"), emit.step),
    )


def scans(dependencies: Dependencies) -> tuple[ScanPart, ...]:
    """Put the scans together."""
    sweeps = ScheduleSweeps(dependencies.connections, dependencies.sweep_every, dependencies.home, dependencies.clock)
    turns = MarkDateChanges(dependencies.connections, dependencies.day, dependencies.home, dependencies.clock)
    watch = WatchDeliveries(tuple(sink.name for sink in dependencies.sinks), dependencies.clock, dependencies.observer)
    return (
        ScanPart(topology.flow("schedule_sweeps"), sweeps.step),
        ScanPart(topology.flow("mark_date_changes"), turns.step),
        ScanPart(topology.flow("watch_deliveries"), watch.step),
    )


def calls(dependencies: Dependencies, log: Backend) -> tuple[Call, ...]:
    """Put the calls together; those that share a group share the owner of an org."""
    connections = {(one.org, one.name): one for one in dependencies.connections}
    sequence, breakers = FetchSequence(), Breakers(dependencies.observer)
    fetch = FetchChanges(dependencies.sources, connections, sequence, dependencies.clock, breakers)
    sweep = SweepAccounts(dependencies.sources, connections, sequence, dependencies.clock, Running(), breakers)
    deliver = DeliverBatches(
        {sink.name: sink for sink in dependencies.sinks},
        dependencies.rungs,
        dependencies.clock,
        dependencies.observer,
        breakers,
    )

    async def go_on(partitions: Collection[int]) -> None:
        for partition, records in (await log.last(topics.CHANGES.name, partitions, TAIL)).items():
            for record in records:
                sequence.seed(partition, _sequence_of(record))

    readers = Call(
        topology.READERS,
        (_flow("fetch_changes", fetch), _flow("sweep_accounts", sweep)),
        log,
        dependencies.clock,
        dependencies.rungs,
        observer=dependencies.observer,
        on_assigned=go_on,
    )
    deliverer = Call(
        topology.flow("deliver_batches").group or "",
        (_flow("deliver_batches", deliver),),
        log,
        dependencies.clock,
        dependencies.rungs,
        observer=dependencies.observer,
    )
    return readers, deliverer


TAIL = 64
"""Records at the end of a partition in which the newest sequence of the owner before is sure to be."""


def _sequence_of(record: Record) -> int:
    said = next((value for name, value in record.headers if name == header.SEQ), b"0")
    return int(said) if said.isdigit() else 0


class _Calling(Protocol):
    """A flow that calls a port."""

    def key(self, record: Record) -> tuple[Hashable, ...]:
        """Return whose turn a record waits for; it begins with org and name of the integration."""
        ...

    async def perform(self, records: Sequence[Record]) -> Answer: ...


def _flow(name: str, calling: _Calling) -> CallFlow:
    flow = topology.flow(name)
    return CallFlow(
        name,
        tuple(topic.name for topic in flow.reads),
        calling.key,
        calling.perform,
        joins=lambda _record: name if flow.coalesce else None,
        group_of=lambda key: key[:2],
        max_in_flight=flow.max_in_flight,
        max_in_flight_per_integration=flow.max_in_flight_per_integration,
    )


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
            observer=dependencies.observer,
        ),
        *(
            Redeliver(
                flow.name,
                flow.group or "",
                (Wait.on(rung),),
                tuple(topic.name for topic in flow.writes),
                log,
                dependencies.clock,
                observer=dependencies.observer,
            )
            for flow, rung in pairs
        ),
    )
