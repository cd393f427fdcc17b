"""``mark_date_changes``: says at local midnight which properties a passing date changes, since no event will."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import date, datetime, timedelta

from connectors.ports import Clock, Connection
from schemas import topics
from schemas.codec import decode_as
from schemas.delivery import DeliveryDue, DueReason
from schemas.rent_roll import LeaseSnapshot, ListingSnapshot, UnitRow
from streams.core.availability import dates_of_change
from streams.core.flows import Emit, View
from streams.core.rent_roll import scope
from streams.topology import RENT_ROLL


class MarkDateChanges:
    """Looks at every unit once a day, when the date has turned at its property.

    A new owner of a partition does not know when it was last looked at, so it marks what has turned since each row was
    written; a property that was marked for nothing costs a cut and no batch.
    """

    def __init__(
        self,
        connections: Sequence[Connection],
        day: Callable[[str, str, datetime], date],
        home: Callable[[str], int],
        clock: Clock,
    ) -> None:
        self._connections = tuple(connections)
        self._day = day
        self._home = home
        self._clock = clock
        self._looked: dict[tuple[str, str], date] = {}

    def step(self, views: Mapping[str, View], partition: int) -> Iterator[Emit | None]:
        """Say which properties have turned; yields null between units, so that other work may go on."""
        now = self._clock.now()
        for one in self._connections:
            key = (one.org, one.name)
            today = self._day(one.org, one.name, now)
            if self._home(one.org) != partition or self._looked.get(key) == today:
                continue
            since = self._looked.get(key)
            marked: set[int] = set()
            for _, raw in views[RENT_ROLL].scan(scope(one.org, one.name) + b"u/"):
                row = decode_as(UnitRow, raw)
                if row.property_id is None or row.property_id in marked or not _turned(row, since, today):
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
            self._looked[key] = today


def _turned(row: UnitRow, since: date | None, today: date) -> bool:
    # A day of grace: the row's time is UTC, the calendar is the property's.
    after = since or row.fetched_at.date() - timedelta(days=1)
    leases = [decode_as(LeaseSnapshot, entry.body) for entry in row.leases]
    listing = decode_as(ListingSnapshot, row.listing) if row.listing else None
    return any(after < turn <= today for turn in dates_of_change(leases, listing))
