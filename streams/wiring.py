"""The parts of a stream worker, made from the topology: the same for Kafka and for the system in memory."""

from collections.abc import Callable, Collection, Hashable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Final, Protocol

from connectors.ports import Clock
from schemas import topics
from schemas.partitions import partition_for
from schemas.retry import SEQ
from streams import topology
from streams.backends.ports import Backend
from streams.core.breaker import Breakers
from streams.core.flows import Emit, Record
from streams.core.observer import Observer
from streams.core.replays import Chains
from streams.core.retry import Ladder
from streams.core.sequence import FetchSequence
from streams.core.sweep import Running
from streams.directory.clients import Clients
from streams.directory.directory import Directory
from streams.flows import maintain_rent_roll, track_syncs
from streams.flows.deliver_batches import DeliverBatches
from streams.flows.emit_batches import EmitBatches
from streams.flows.fetch_changes import FetchChanges
from streams.flows.mark_date_changes import MarkDateChanges
from streams.flows.pulse_accounts import PulseAccounts
from streams.flows.push_commands import PushCommands
from streams.flows.recheck_missed import RecheckMissed
from streams.flows.reconcile_receivers import ReconcileReceivers
from streams.flows.replay_records import ReplayRecords
from streams.flows.schedule_pulses import SchedulePulses
from streams.flows.schedule_snapshots import ScheduleSnapshots
from streams.flows.schedule_sweeps import ScheduleSweeps
from streams.flows.sweep_accounts import SweepAccounts
from streams.flows.watch_accounts import WatchAccounts
from streams.flows.watch_deliveries import WatchDeliveries
from streams.flows.watch_replays import WatchReplays
from streams.flows.watch_syncs import WatchSyncs
from streams.replays.book import ReplayBook
from streams.runners.call import Answer, Call, CallFlow
from streams.runners.fold import Fold, FoldStep
from streams.runners.redeliver import Redeliver, Wait
from streams.runners.scan import Scan, ScanStep
from streams.topology import Flow, Kind

TAIL: Final = 64
"""Records at the end of a partition among which is the newest sequence of its former owner."""


@dataclass(frozen=True, slots=True)
class Dependencies:
    """What the flows need of the process: integrations, clock, observer, and the settings of the streams."""

    directory: Directory
    replays: ReplayBook
    clients: Clients
    clock: Clock
    observer: Observer
    rungs: Ladder
    partitions: int
    sweep_every: float
    """Seconds."""
    pulse_every: float
    """Seconds; 0: none."""
    linger: float
    """Seconds."""


# ------------------------------------------------------------------------------------------------------------- folds

FOLDS: Final[Mapping[str, Callable[[Dependencies], FoldStep]]] = {
    "track_syncs": lambda _: track_syncs.step,
    "maintain_rent_roll": lambda _: maintain_rent_roll.step,
    "emit_batches": lambda needs: EmitBatches(needs.directory).step,
}
"""The step of each fold."""


@dataclass(frozen=True, slots=True)
class FoldPart:
    """A fold of the topology with its step."""

    flow: Flow
    step: FoldStep

    def runner(self, needs: Dependencies, prefix: str = "") -> Fold:
        """Return the step as the engine calls it."""
        table = self.flow.table
        assert table is not None
        return Fold(
            self.flow.name,
            table,
            self.step,
            needs.clock,
            prefix=prefix,
            observer=needs.observer,
            partitions=needs.partitions,
            changelog=topics.changelog(topology.APP, table).name if table in topology.DERIVED else None,
        )


def folds(needs: Dependencies) -> tuple[FoldPart, ...]:
    """Return the folds."""
    return tuple(FoldPart(flow, FOLDS[flow.name](needs)) for flow in topology.of_kind(Kind.FOLD))


# ------------------------------------------------------------------------------------------------------------- scans

SCANS: Final[Mapping[str, Callable[[Dependencies], ScanStep]]] = {
    "watch_syncs": lambda needs: WatchSyncs(needs.directory, needs.partitions, needs.clock).step,
    "schedule_sweeps": lambda needs: (
        ScheduleSweeps(needs.directory, needs.sweep_every, needs.partitions, needs.clock).step
    ),
    "schedule_pulses": lambda needs: (
        SchedulePulses(needs.directory, needs.pulse_every, needs.partitions, needs.clock).step
    ),
    "mark_date_changes": lambda needs: MarkDateChanges(needs.directory, needs.partitions, needs.clock).step,
    "reconcile_receivers": lambda needs: ReconcileReceivers(needs.directory, needs.partitions, needs.clock).step,
    "schedule_snapshots": lambda needs: ScheduleSnapshots(needs.directory, needs.partitions, needs.clock).step,
    "watch_deliveries": lambda needs: (
        WatchDeliveries(needs.directory, needs.partitions, needs.clock, needs.observer).step
    ),
    "watch_accounts": lambda needs: WatchAccounts(needs.directory, needs.partitions, needs.observer).step,
    "watch_replays": lambda needs: WatchReplays(needs.replays, needs.partitions, needs.clock).step,
}
"""The step of each scan."""


@dataclass(frozen=True, slots=True)
class ScanPart:
    """A scan of the topology with its step."""

    flow: Flow
    step: ScanStep

    @property
    def every(self) -> float:
        """Return the seconds between two passes."""
        return self.flow.every

    def runner(self, prefix: str = "") -> Scan:
        """Return the step as the engine calls it."""
        return Scan(self.step, prefix=prefix)


def scans(needs: Dependencies) -> tuple[ScanPart, ...]:
    """Return the scans."""
    return tuple(ScanPart(flow, SCANS[flow.name](needs)) for flow in topology.of_kind(Kind.SCAN))


# ------------------------------------------------------------------------------------------------------------- calls


class Calling(Protocol):
    """A flow that calls a port."""

    def key(self, record: Record) -> tuple[Hashable, ...]:
        """Return what records wait for each other; it begins with org and name of the integration."""
        ...

    async def perform(self, records: Sequence[Record]) -> Answer:
        """Call the port for some records of one key."""
        ...


def calls(needs: Dependencies, backend: Backend) -> tuple[Call, ...]:
    """Return one runner for each consumer group of calls: the flows of a group share the owner of an org."""
    sequence = FetchSequence()
    throttled = timedelta(seconds=needs.rungs[0].seconds)
    breakers = Breakers(needs.observer, throttled, needs.clock.monotonic, needs.directory.hold_report)
    running, chains = Running(), Chains()
    groups: dict[str, Call] = {}
    flows: Mapping[str, Calling] = {
        "push_commands": PushCommands(needs.clients, needs.rungs, needs.clock, breakers),
        "fetch_changes": FetchChanges(needs.clients, sequence, needs.clock, breakers),
        "sweep_accounts": SweepAccounts(needs.clients, sequence, needs.rungs, needs.clock, running, breakers),
        "recheck_missed": RecheckMissed(needs.clients, sequence, needs.clock, breakers),
        "pulse_accounts": PulseAccounts(needs.clients, sequence, needs.clock, breakers),
        "deliver_batches": DeliverBatches(
            needs.directory, needs.clients, needs.rungs, needs.clock, needs.observer, breakers
        ),
        "replay_records": ReplayRecords(
            needs.replays, backend, needs.clock, chains, lambda: groups[topology.READERS].replayed_waiting
        ),
    }

    async def forget(partitions: Collection[int]) -> None:
        breakers.forget(lambda org: partition_for(org, needs.partitions) in partitions)

    async def take_over(partitions: Collection[int]) -> None:
        def is_new(org: str) -> bool:
            return partition_for(org, needs.partitions) in partitions

        await forget(partitions)
        running.forget(is_new)
        chains.forget(is_new)
        needs.clients.taken_over(is_new)
        for partition, records in (await backend.last(topics.CHANGES.name, partitions, TAIL)).items():
            for record in records:
                sequence.seed(partition, _sequence_of(record))

    def reports(group: object) -> tuple[Emit, ...]:
        match group:
            case (str(org), str(name)):
                return breakers.reports(org, name)
        return ()

    members: dict[str, list[Flow]] = {}
    for flow in topology.of_kind(Kind.CALL):
        members.setdefault(flow.group or "", []).append(flow)
    for group, of_group in members.items():
        groups[group] = Call(
            group,
            [_call_flow(flow, flows[flow.name]) for flow in of_group],
            backend,
            needs.clock,
            needs.rungs,
            observer=needs.observer,
            on_assigned=take_over if group == topology.READERS else forget,
            reports=reports,
            partitions=needs.partitions,
            width=breakers.width,
        )
    return tuple(groups.values())


def _sequence_of(record: Record) -> int:
    text = next((value for name, value in record.headers if name == SEQ), b"0")
    return int(text) if text and text.isdigit() else 0


def _call_flow(flow: Flow, calling: Calling) -> CallFlow:
    return CallFlow(
        flow.name,
        tuple(topic.name for topic in flow.reads),
        calling.key,
        calling.perform,
        joins=lambda _record: flow.name if flow.coalesce else None,
        group_of=lambda key: key[:2],
        retries=flow.retries and flow.returns_to is None,
        max_in_flight=flow.max_in_flight,
        max_in_flight_per_integration=flow.max_in_flight_per_integration,
        background=flow.background,
        unfinished=calling.unfinished
        if isinstance(calling, PushCommands | DeliverBatches | SweepAccounts | ReplayRecords)
        else None,
    )


# ------------------------------------------------------------------------------------------------------- redeliveries


def redeliveries(needs: Dependencies, backend: Backend) -> tuple[Redeliver, ...]:
    """Return the runners of the waiting topics: the linger, and one for each rung."""
    linger = topology.flow("linger")
    waits = [(linger, Wait(topics.LINGERING.name, needs.linger, target=topics.DUE.name))]
    delays = tuple(rung.delay for rung in needs.rungs)
    for flow, rung in zip(topology.redeliveries(delays), needs.rungs, strict=True):
        waits.append((flow, Wait.on(rung)))
    return tuple(
        Redeliver(
            flow.name,
            flow.group or "",
            (wait,),
            tuple(topic.name for topic in flow.writes) if wait.target is None else (),
            backend,
            needs.clock,
            observer=needs.observer,
        )
        for flow, wait in waits
    )
