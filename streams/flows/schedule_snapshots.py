"""``schedule_snapshots``: asks at the moments of a receiver's schedule for a snapshot of each of its properties."""

from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Final

from connectors.ports import Clock
from schemas import topics
from schemas.delivery import DeliveryDue, DeliveryPhase, DeliveryRow, DueReason
from streams.core.delivery import deliveries_of, property_of
from streams.core.flows import Barrier, Emit, View
from streams.core.pace import Pace
from streams.core.policy import SinkPolicy
from streams.core.rows import readable
from streams.core.schedule import latest_due
from streams.directory.directory import Directory
from streams.topology import DELIVERIES

_COMES_BY_ITSELF = (DeliveryPhase.IN_FLIGHT, DeliveryPhase.WAITING)

LOOK: Final = 5.0
"""Seconds between two looks at the schedules of a partition, while no configuration changes."""


class ScheduleSnapshots:
    """Looks at the rows of a receiver once for each moment of its schedule, and once when the process starts.

    The rows show which snapshots were asked for, so a restart or another owner repeats none and misses none. Of several
    missed moments the latest counts. A property that the receiver was never sent gets its first snapshot without a
    schedule.
    """

    def __init__(self, directory: Directory, partitions: int, clock: Clock) -> None:
        self._directory = directory
        self._partitions = partitions
        self._clock = clock
        self._asked: dict[tuple[str, str], datetime] = {}
        """By receiver: the latest moment for which all of its rows were looked at."""
        self._pace = Pace(LOOK)

    def step(self, views: Mapping[str, View], partition: int) -> Iterator[Emit | Barrier | None]:
        """Emit which snapshots are due on this partition; yield null between rows, so that other work may go on."""
        now, looks = self._clock.now(), (partition, self._directory.configured, self._clock.monotonic())
        if not self._pace.is_due(*looks):
            return
        for org in self._directory.on_partition(partition, self._partitions).orgs:
            for policy in self._directory.sinks(org):
                if policy.schedule is None:
                    continue
                due, key = latest_due(policy.schedule, f"{org}/{policy.name}", now), (org, policy.name)
                if self._asked.get(key) == due:
                    continue
                for source in self._directory.connections(org):
                    yield from self._connection(views[DELIVERIES], policy, source.name, due, now)
                yield Barrier.DURABLE
                self._asked[key] = due
        self._pace.looked(*looks)

    def _connection(
        self, rows: View, policy: SinkPolicy, connection: str, due: datetime, now: datetime
    ) -> Iterator[Emit | None]:
        for key, raw in rows.scan(deliveries_of(policy.org, policy.name, connection)):
            row = readable(DeliveryRow, key, raw)
            if row is None or not _lacks(row, due):
                yield None
                continue
            _, property_id = property_of(key)
            record = DeliveryDue(
                org=policy.org,
                connection=connection,
                property_id=property_id,
                reason=DueReason.SCHEDULED,
                seen_at=now,
                sink=policy.name,
                snapshot_at=due,
            )
            yield Emit(topics.DUE, policy.org, record)


def _lacks(row: DeliveryRow, due: datetime) -> bool:
    """Return whether no snapshot of this moment was asked for, sent or acknowledged."""
    if not (row.introduced or row.known is not None) and row.phase is DeliveryPhase.IDLE:
        return False
    moments = [row.snapshot_due, row.snapshot_at, row.snapshot_cut_at if row.phase in _COMES_BY_ITSELF else None]
    return all(moment is None or moment < due for moment in moments)
