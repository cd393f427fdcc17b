"""When the properties of a receiver get their regular snapshot."""

from datetime import UTC, datetime, timedelta
from typing import Any

from schemas import topics
from schemas.codec import encode
from schemas.delivery import DeliveryDue, DeliveryPhase, DeliveryRow, DueReason
from schemas.integrations import Integration
from schemas.partitions import partition_for
from streams.core.delivery import delivery_key
from streams.core.flows import Barrier, Emit
from streams.core.schedule import SPREAD
from streams.flows.schedule_snapshots import ScheduleSnapshots
from streams.topology import DELIVERIES
from tests.streams.core.views import MemoryView
from tests.streams.directory import records
from tests.streams.flows.parts import CONNECTION, NOW, ORG, RECEIVER, Site, account, receiver

PARTITIONS = 4
HERE = partition_for(ORG, PARTITIONS)
LAST = datetime(2026, 3, 1, 9, tzinfo=UTC)
"""02:00 in Edmonton, before `NOW`."""
TO_NEXT = (LAST + timedelta(days=1) - NOW + SPREAD).total_seconds()


def daily(**more: Any) -> Integration:
    settings = records.settings(url="https://portal.example", schedule="0 2 * * *")
    return receiver(**{"settings": settings, **more})


class Desk:
    """The scan over a table of deliveries."""

    def __init__(self, *integrations: Integration) -> None:
        self.site = Site(account(), *(integrations or (daily(),)))
        self.rows = MemoryView()
        self.restart()

    def restart(self) -> None:
        self.scan = ScheduleSnapshots(self.site.directory, PARTITIONS, self.site.clock)

    def row(self, number: int, **facts: object) -> None:
        given = {"known": (), "snapshot_at": LAST} | facts
        self.rows[delivery_key(ORG, RECEIVER, CONNECTION, number)] = encode(DeliveryRow.model_validate(given))

    def asked(self, partition: int = HERE) -> list[tuple[int, datetime | None]]:
        """Return for which properties a snapshot is asked, and of which moment."""
        found = []
        for one in self.scan.step({DELIVERIES: self.rows}, partition):
            if not isinstance(one, Emit):
                continue
            assert (one.topic, one.org) == (topics.DUE, ORG)
            assert isinstance(one.record, DeliveryDue)
            due = one.record
            assert (due.connection, due.sink, due.seen_at) == (CONNECTION, RECEIVER, self.site.clock.now())
            assert due.reason is DueReason.SCHEDULED
            found.append((due.property_id, due.snapshot_at))
        return found


async def test_every_property_gets_one_at_each_moment() -> None:
    desk = Desk()
    desk.row(10)
    desk.row(11, snapshot_at=LAST + timedelta(hours=1))
    counts = [desk.asked()]
    await desk.site.clock.advance(TO_NEXT)
    counts += [desk.asked(), desk.asked()]

    tomorrow = LAST + timedelta(days=1)
    assert counts == [[], [(10, tomorrow), (11, tomorrow)], []]


async def test_a_missed_one_is_caught_up_once_after_a_start() -> None:
    """Of several the latest; what the rows show is not asked for again."""
    desk = Desk()
    desk.row(10)
    desk.row(11)
    await desk.site.clock.advance(TO_NEXT + 3 * 24 * 3600)
    latest = LAST + timedelta(days=4)
    desk.row(11, snapshot_due=latest)

    assert desk.asked() == [(10, latest)]
    desk.restart()
    desk.row(10, snapshot_due=latest)
    assert desk.asked() == []


def test_a_scan_that_is_cut_short_begins_again() -> None:
    """The end of a step that is not resumed after a barrier counts for nothing."""
    desk = Desk()
    desk.row(10, snapshot_at=None)
    for one in desk.scan.step({DELIVERIES: desk.rows}, HERE):
        if one is Barrier.DURABLE:
            break

    assert desk.asked() == [(10, LAST)]
    assert desk.asked() == []


def test_what_was_never_sent_waits_for_its_first_batch_and_what_was_given_up_is_asked_for() -> None:
    desk = Desk()
    desk.row(10, known=None, snapshot_at=None)
    desk.row(11, known=None, snapshot_at=None, phase=DeliveryPhase.IN_FLIGHT, snapshot_cut_at=NOW)
    desk.row(12, known=None, snapshot_at=None, phase=DeliveryPhase.OWED, snapshot_cut_at=NOW)
    desk.row(13, phase=DeliveryPhase.WAITING, snapshot_at=LAST - timedelta(days=1))

    assert desk.asked() == [(12, LAST), (13, LAST)]


def test_rows_of_another_kind_are_passed_over() -> None:
    desk = Desk()
    desk.rows[f"{ORG}/{RECEIVER}/r".encode()] = encode(DeliveryDue.model_validate(_due()))

    assert desk.asked() == []


def _due() -> dict[str, Any]:
    return {
        "org": ORG,
        "connection": CONNECTION,
        "property_id": 1,
        "reason": DueReason.CHANGED,
        "seen_at": NOW,
    }


def test_a_receiver_without_a_schedule_a_disabled_one_and_another_partition_get_none() -> None:
    for desk, partition in (
        (Desk(receiver()), HERE),
        (Desk(daily(enabled=False)), HERE),
        (Desk(), HERE + 1),
    ):
        desk.row(10, snapshot_at=None)
        assert desk.asked(partition) == []
