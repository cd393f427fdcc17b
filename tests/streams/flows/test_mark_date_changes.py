"""Which units are marked when a date passes at their property."""

from datetime import date, timedelta

from schemas import topics
from schemas.delivery import DeliveryDue, DueReason, OfferedProperty
from schemas.partitions import partition_for
from streams.core.dates import note_dates
from streams.core.due import MOST_UNITS
from streams.core.flows import Barrier, Emit
from streams.core.offer import Offer
from streams.core.rows import Rows
from streams.flows.mark_date_changes import AGAIN, MarkDateChanges
from streams.topology import DELIVERIES
from tests.streams.core.views import MemoryView
from tests.streams.flows.parts import CONNECTION, NOW, ORG, Site, account

PARTITIONS = 4
HERE = partition_for(ORG, PARTITIONS)
TODAY = NOW.date()
TOMORROW = TODAY + timedelta(days=1)


class Desk:
    """The scan over an index in memory."""

    def __init__(self) -> None:
        self.site = Site(account())
        self.view = MemoryView()
        self.scan = MarkDateChanges(self.site.directory, PARTITIONS, self.site.clock)

    def changes(self, property_id: int, *changes: tuple[int, date]) -> None:
        rows = Rows(self.view)
        home = OfferedProperty(id=property_id, name="n", address="a", is_active=True)
        note_dates(rows, ORG, CONNECTION, property_id, Offer(home, (), (), changes), None)
        self.view.take(rows)

    def marked(self, partition: int = HERE) -> list[tuple[int, tuple[int, ...] | None]]:
        """Return property and units of each mark."""
        found = []
        for emit in self.scan.step({DELIVERIES: self.view}, partition):
            if not isinstance(emit, Emit):
                continue
            due = emit.record
            assert isinstance(due, DeliveryDue)
            assert (emit.topic, emit.org, due.org, due.connection) == (topics.DUE, ORG, ORG, CONNECTION)
            assert (due.reason, due.sink, due.mark) == (DueReason.DATE_PASSED, None, 0)
            found.append((due.property_id, due.units))
        return found


def test_units_whose_day_has_come_are_marked_by_property() -> None:
    """Also those of a day that passed while no worker ran."""
    desk = Desk()
    desk.changes(10, (1, TODAY), (2, TODAY - timedelta(days=3)), (3, TOMORROW))
    desk.changes(11, (4, TODAY), (5, TOMORROW))
    desk.changes(12, (6, TOMORROW))

    assert sorted(desk.marked()) == [(10, (1, 2)), (11, (4,))]


async def test_the_day_is_that_of_the_property() -> None:
    desk = Desk()
    desk.changes(10, (1, TOMORROW))
    before = desk.marked()
    await desk.site.clock.advance(12 * 3600 - 1)
    early = desk.marked()
    await desk.site.clock.advance(1)

    assert (before, early, desk.marked()) == ([], [], [(10, (1,))])


async def test_a_mark_is_repeated_as_long_as_the_unit_is_not_cut() -> None:
    """It may have been lost; a unit that was cut has its next day in the index."""
    desk = Desk()
    desk.changes(10, (1, TODAY))
    first, again = desk.marked(), desk.marked()
    await desk.site.clock.advance(AGAIN)
    later = desk.marked()
    desk.changes(10, (1, TOMORROW))
    await desk.site.clock.advance(AGAIN)

    assert (first, again, later, desk.marked()) == ([(10, (1,))], [], [(10, (1,))], [])


def test_a_further_unit_of_a_property_is_marked_at_once() -> None:
    desk = Desk()
    desk.changes(10, (1, TODAY))
    desk.marked()
    desk.changes(10, (1, TODAY), (2, TODAY))

    assert desk.marked() == [(10, (1, 2))]


def test_many_units_of_a_property_are_all_of_it() -> None:
    desk = Desk()
    desk.changes(10, *((number, TODAY) for number in range(MOST_UNITS + 1)))

    assert desk.marked() == [(10, None)]


def test_nothing_is_marked_of_another_partition_and_nothing_is_remembered_before_it_is_durable() -> None:
    desk = Desk()
    desk.changes(10, (1, TODAY))
    assert desk.marked((HERE + 1) % PARTITIONS) == []

    for one in desk.scan.step({DELIVERIES: desk.view}, HERE):
        if one is Barrier.DURABLE:
            break  # the partition was given away
    assert desk.marked() == [(10, (1,))]
