"""``mark_date_changes``: marks, after local midnight, the units that a passing date changes: no event will."""

from collections.abc import Iterator, Mapping

from connectors.ports import Clock, Connection
from schemas import topics
from schemas.delivery import DeliveryDue, DueReason
from streams.core.dates import passed
from streams.core.due import Units, named, united
from streams.core.flows import Barrier, Emit, View
from streams.directory.directory import Directory
from streams.topology import DELIVERIES

AGAIN = 600.0
"""Seconds after which units are marked again whose entry is still in the index: a mark may have been lost."""


class MarkDateChanges:
    """Looks at the entries of the index whose day has come; what is cut then gets its next day."""

    def __init__(self, directory: Directory, partitions: int, clock: Clock) -> None:
        self._directory = directory
        self._partitions = partitions
        self._clock = clock
        self._marked: dict[tuple[str, str, int], tuple[Units, float]] = {}
        """By property: the units that were marked last, and when, by `Clock.monotonic`."""

    def step(self, views: Mapping[str, View], partition: int) -> Iterator[Emit | Barrier | None]:
        """Emit which units have changed; yield null between entries, so that other work may go on."""
        at = self._clock.monotonic()
        self._marked = {key: known for key, known in self._marked.items() if at - known[1] < AGAIN}
        for one in self._directory.on_partition(partition, self._partitions).connections:
            yield from self._connection(views[DELIVERIES], one, at)

    def _connection(self, rows: View, one: Connection, at: float) -> Iterator[Emit | Barrier | None]:
        now = self._clock.now()
        found: dict[int, Units] = {}
        for property_id, unit in passed(rows, one.org, one.name, one.day(now)):
            found[property_id] = united(found.get(property_id, frozenset()), frozenset({unit}))
            yield None
        marked: dict[tuple[str, str, int], tuple[Units, float]] = {}
        for property_id, units in found.items():
            key = (one.org, one.name, property_id)
            if key in self._marked and self._marked[key][0] == units:
                continue
            due = DeliveryDue(
                org=one.org,
                connection=one.name,
                property_id=property_id,
                reason=DueReason.DATE_PASSED,
                seen_at=now,
                units=named(units),
            )
            yield Emit(topics.DUE, one.org, due)
            marked[key] = units, at
        if marked:
            yield Barrier.DURABLE
            self._marked |= marked
