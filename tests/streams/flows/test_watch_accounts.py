"""What is counted for people: doubts of units, connections without a time zone, and removals that wait."""

from collections.abc import Mapping

from schemas.codec import encode
from schemas.delivery import DeliveryRow, Doubt, DoubtfulUnit, DoubtsRow
from schemas.partitions import partition_for
from schemas.rent_roll import AccountRow
from streams.core.delivery import delivery_key
from streams.core.doubts import doubts_key
from streams.core.flows import DoubtChange
from streams.core.observer import NullObserver
from streams.core.rent_roll import account_key, scope
from streams.flows.watch_accounts import WatchAccounts
from streams.topology import DELIVERIES, RENT_ROLL
from tests.streams.core.views import MemoryView
from tests.streams.directory import records
from tests.streams.flows.parts import CONNECTION, NOW, ORG, RECEIVER, Site, account, emits_of, receiver

OVERDUE, FLAG, ZONE = Doubt.OVERDUE_MOVE_OUT, Doubt.OCCUPANCY_FLAG, Doubt.NO_TIME_ZONE
PARTITIONS = 12
HERE = partition_for(ORG, PARTITIONS)
ELSEWHERE = next(f"org{n}" for n in range(99) if partition_for(f"org{n}", PARTITIONS) != HERE)


class Recorder(NullObserver):
    def __init__(self) -> None:
        self.counts: dict[int, Mapping[Doubt, int]] = {}
        self.held: dict[int, Mapping[str, int]] = {}
        self.unswept: dict[int, Mapping[str, int]] = {}
        self.changes: list[DoubtChange] = []

    def removals_counted(self, partition: int, counts: Mapping[str, int]) -> None:
        self.held[partition] = dict(counts)

    def unswept_counted(self, partition: int, counts: Mapping[str, int]) -> None:
        self.unswept[partition] = dict(counts)

    def doubts_counted(self, partition: int, counts: Mapping[Doubt, int]) -> None:
        self.counts[partition] = {doubt: count for doubt, count in counts.items() if count}

    def doubt_changed(self, change: DoubtChange) -> None:
        self.changes.append(change)


class Desk:
    """The scan over a table in memory."""

    def __init__(self) -> None:
        self.site = Site(account(), receiver(), account(ELSEWHERE))
        self.observer, self.view, self.roll = Recorder(), MemoryView(), MemoryView()
        self.scan = WatchAccounts(self.site.directory, PARTITIONS, self.observer)

    def doubtful(self, property_id: int, *doubts: tuple[Doubt, ...], org: str = ORG) -> None:
        units = tuple(DoubtfulUnit(unit_id=at, doubts=one, since=NOW) for at, one in enumerate(doubts))
        self.view[doubts_key(org, CONNECTION, property_id)] = encode(DoubtsRow(units=units))

    def counted(self) -> Mapping[Doubt, int]:
        assert emits_of(self.scan.step({DELIVERIES: self.view, RENT_ROLL: self.roll}, HERE)) == []
        return self.observer.counts[HERE]


def test_units_are_counted_by_doubt_among_the_rows_of_deliveries() -> None:
    """A unit with two doubts counts for both; a row without any for none."""
    desk = Desk()
    desk.doubtful(1, (OVERDUE,), (OVERDUE, FLAG))
    desk.doubtful(2, (FLAG,))
    desk.doubtful(3)
    desk.doubtful(4, (FLAG,), org=ELSEWHERE)
    desk.view[delivery_key(ORG, RECEIVER, CONNECTION, 1)] = encode(DeliveryRow())

    assert desk.counted() == {OVERDUE: 2, FLAG: 2}


def test_a_disabled_connection_is_not_counted() -> None:
    desk = Desk()
    desk.doubtful(1, (OVERDUE,))
    desk.site.put(account(enabled=False))

    assert desk.counted() == {}


def test_a_connection_without_a_time_zone_is_reported_once_and_counted() -> None:
    desk = Desk()
    desk.site.put(account(settings=records.settings(baseUrl="https://pms.example/77")))
    assert [desk.counted(), desk.counted()] == [{ZONE: 1}, {ZONE: 1}]
    desk.site.put(account())
    assert desk.counted() == {}
    assert desk.observer.changes == [
        DoubtChange(ORG, CONNECTION, ZONE, appeared=True),
        DoubtChange(ORG, CONNECTION, ZONE, appeared=False),
    ]


def test_removals_that_wait_are_counted_by_system() -> None:
    desk = Desk()
    row = AccountRow(sweep="s2", first_sweep="s1", started_at=NOW, completed_at=NOW, held_back=12)
    desk.roll[account_key(scope(ORG, CONNECTION))] = encode(row)
    desk.roll[account_key(scope(ELSEWHERE, CONNECTION))] = encode(row)
    desk.counted()
    assert desk.observer.held[HERE] == {"pms": 12}


def test_a_connection_counts_until_its_first_sweep_is_complete() -> None:
    desk = Desk()
    desk.counted()
    before = desk.observer.unswept[HERE]
    row = AccountRow(sweep="s", first_sweep="s", started_at=NOW, completed_at=NOW)
    desk.roll[account_key(scope(ORG, CONNECTION))] = encode(row)
    desk.counted()

    assert (before, desk.observer.unswept[HERE]) == ({"pms": 1}, {"pms": 0})
