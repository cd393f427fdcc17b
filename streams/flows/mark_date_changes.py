"""``mark_date_changes``: marks, after local midnight, the properties that a passing date changes: no event will."""

from collections.abc import Iterator, Mapping
from datetime import date, timedelta

from connectors.ports import Clock, LeasingRules
from schemas import topics
from schemas.codec import decode_as
from schemas.delivery import DeliveryDue, DueReason
from schemas.partitions import partition_for
from schemas.rent_roll import LeaseSnapshot, ListingSnapshot, UnitRow
from streams.core.availability import dates_of_change
from streams.core.flows import Barrier, Emit, View
from streams.core.rent_roll import scope, units_of
from streams.directory.directory import Directory
from streams.topology import RENT_ROLL


class MarkDateChanges:
    """Looks at every unit once a day, when the date has changed at its property.

    A new owner of a partition does not know when it was last looked at, so it marks what has changed since each row was
    written; a property that was marked in vain costs a cut and no batch.
    """

    def __init__(self, directory: Directory, partitions: int, clock: Clock) -> None:
        self._directory = directory
        self._partitions = partitions
        self._clock = clock
        self._looked: dict[tuple[str, str], date] = {}

    def step(self, views: Mapping[str, View], partition: int) -> Iterator[Emit | Barrier | None]:
        """Emit which properties have changed; yield null between units, so that other work may go on."""
        now = self._clock.now()
        for one in self._directory.connections():
            if partition_for(one.org, self._partitions) != partition:
                continue
            key, today = (one.org, one.name), one.day(now)
            since = self._looked.get(key)
            if since == today:
                continue
            marked: set[int] = set()
            for _, raw in views[RENT_ROLL].scan(units_of(scope(one.org, one.name))):
                row = decode_as(UnitRow, raw)
                if row.property_id is None or row.property_id in marked:
                    yield None
                    continue
                if not _changes(row, since, today, one.rules):
                    yield None
                    continue
                marked.add(row.property_id)
                due = DeliveryDue(
                    org=one.org,
                    connection=one.name,
                    property_id=row.property_id,
                    reason=DueReason.DATE_PASSED,
                    seen_at=now,
                )
                yield Emit(topics.DUE, one.org, due)
            yield Barrier.DURABLE
            self._looked[key] = today


def _changes(row: UnitRow, since: date | None, today: date, rules: LeasingRules) -> bool:
    # A day of grace: the time of the row is UTC, the calendar is that of the property.
    after = since or row.fetched_at.date() - timedelta(days=1)
    leases = [decode_as(LeaseSnapshot, entry.body) for entry in row.leases]
    listing = decode_as(ListingSnapshot, row.listing) if row.listing else None
    return any(after < on <= today for on in dates_of_change(leases, listing, rules=rules))
