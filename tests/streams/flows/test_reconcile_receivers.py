"""Which properties are due because a configuration changed since their delivery state was looked at."""

from datetime import timedelta

import pytest

from schemas import topics
from schemas.base import EntityKind
from schemas.codec import decode_as, encode
from schemas.delivery import DeliveryDue, DeliveryRow, DueReason
from schemas.integrations import Integration
from schemas.partitions import partition_for
from schemas.rent_roll import MarkRow
from streams.core.delivery import delivery_key
from streams.core.flows import Barrier, Emit
from streams.core.rent_roll import mark_key
from streams.flows.reconcile_receivers import AGAIN, ReconcileReceivers
from streams.topology import DELIVERIES, RENT_ROLL
from tests.streams.core.rent_roll.rolls import PREFIX, building, fold, page, swept
from tests.streams.core.views import MemoryView
from tests.streams.directory.records import AT
from tests.streams.flows.parts import CONNECTION, NOW, ORG, RECEIVER, Site, account, receiver

PARTITIONS = 4
HOME = partition_for(ORG, PARTITIONS)
LATER = AT + timedelta(hours=1)
BOTH = [(RECEIVER, 10), (RECEIVER, 11)]


class Desk:
    """The scan over a rent roll of two properties, and delivery rows that a test keeps up to date."""

    def __init__(self, *integrations: Integration) -> None:
        self.site = Site(*(integrations or (account(), receiver())))
        self.roll, self.rows = swept(), MemoryView()
        fold(self.roll, page(EntityKind.PROPERTY, 20, building(11)))
        self.scan = ReconcileReceivers(self.site.directory, PARTITIONS, self.site.clock)
        self.yields = 0

    def look(self, partition: int = HOME) -> list[tuple[str, int]]:
        """Return which properties are due at which receivers."""
        found = []
        self.yields = 0
        for emit in self.scan.step({RENT_ROLL: self.roll, DELIVERIES: self.rows}, partition):
            self.yields += emit is not Barrier.DURABLE
            if not isinstance(emit, Emit):
                continue
            due = emit.record
            assert isinstance(due, DeliveryDue)
            assert (emit.topic, due.org, due.connection) == (topics.DUE, ORG, CONNECTION)
            assert (due.reason, due.seen_at) == (DueReason.RECONFIGURED, self.site.clock.now())
            assert due.sink is not None
            found.append((due.sink, due.property_id))
        return found

    def considered(self, *numbers: int, sink: str = RECEIVER) -> None:
        """Let the fold have looked at properties under the present configuration."""
        policies = self.site.directory.policies(ORG, CONNECTION)
        (revision,) = (one.revision for one in policies if one.name == sink)
        for number in numbers or (10, 11):
            raw = self.roll.get(mark_key(PREFIX, number))
            row = DeliveryRow(receiver="r", revision=revision, mark=decode_as(MarkRow, raw).seq if raw else 0)
            self.rows[delivery_key(ORG, sink, CONNECTION, number)] = encode(row)

    def at_rest(self) -> None:
        """Look once, and let the fold deal with what is due."""
        for sink in {sink for sink, _ in self.look()}:
            self.considered(sink=sink)
        assert self.look() == []


def test_at_first_everything_is_due_that_was_not_looked_at() -> None:
    """As after a start: the rows show what another worker has done."""
    desk = Desk()
    desk.considered(10)

    assert desk.look() == [(RECEIVER, 11)]
    assert desk.look() == []


def test_where_all_revisions_are_equal_nothing_is_due() -> None:
    desk = Desk()
    desk.considered()

    assert desk.look() == []
    assert desk.yields == 2
    assert desk.look() == []
    assert desk.yields == 0


def test_a_receiver_that_is_created_and_enabled_later_is_due_everything() -> None:
    desk = Desk(account())
    without = desk.look()
    desk.site.put(receiver(enabled=False))
    disabled = desk.look()
    desk.site.put(receiver(version=2, enabled_at=LATER))

    assert without == disabled == []
    assert desk.look() == BOTH
    assert desk.look() == []


def test_a_receiver_that_is_enabled_again_is_due_everything() -> None:
    """What changed while it was disabled was noted nowhere; the fold sends of it only what differs."""
    desk = Desk(account(), receiver(enabled_at=AT))
    desk.at_rest()
    desk.site.put(receiver(enabled=False, version=2))
    disabled = desk.look()
    desk.site.put(receiver(enabled_at=LATER, version=3))

    assert disabled == []
    assert desk.look() == BOTH


CHANGES: dict[str, Integration] = {
    "the receiver has another address": receiver(url="https://elsewhere.example", changed_at=LATER, version=2),
    "the receiver was created again": receiver(created_at=LATER, changed_at=LATER),
    "the receiver has other switches": receiver(properties_off=(10,), version=2),
    "the connection has other switches": account(properties_off=(10,), version=2),
    "the connection has another time zone": account(timezone="America/Edmonton", version=2),
    "the connection has other make-ready days": account(days=5, version=2),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_after_a_change_of_what_is_sent_everything_is_due(change: Integration) -> None:
    desk = Desk()
    desk.at_rest()
    desk.site.put(change)

    assert desk.look() == BOTH


def test_after_another_change_nothing_is_due() -> None:
    """Another key, a receiver of another org; and what changed back before it was looked at."""
    desk = Desk()
    desk.at_rest()
    desk.site.put(account(secret="another-secret", version=2), receiver("zeta"))
    desk.site.put(receiver(properties_off=(10,), version=2), receiver(version=3))

    assert desk.look() == []
    assert desk.yields == 0


def test_only_the_receiver_that_changed_is_due() -> None:
    desk = Desk(account(), receiver(), receiver(name="other"))
    desk.at_rest()
    desk.site.put(receiver(name="other", properties_off=(10,), version=2))

    assert desk.look() == [("other", 10), ("other", 11)]


async def test_everything_is_looked_at_again_after_ten_minutes() -> None:
    """Another worker, with an older configuration, may have owned the partition meanwhile."""
    desk = Desk()
    desk.at_rest()
    del desk.rows[delivery_key(ORG, RECEIVER, CONNECTION, 10)]
    await desk.site.clock.advance(AGAIN - 1)
    early = desk.look()
    await desk.site.clock.advance(1)
    again = desk.look()
    desk.considered()
    await desk.site.clock.advance(AGAIN - 1)
    early_again = desk.look()

    assert AGAIN == 600
    assert (early, again, early_again) == ([], [(RECEIVER, 10)], [])
    assert desk.yields == 0


async def test_a_change_meanwhile_does_not_put_off_the_next_full_look() -> None:
    desk = Desk()
    desk.at_rest()
    await desk.site.clock.advance(300)
    desk.site.put(receiver("zeta"))
    desk.look()
    del desk.rows[delivery_key(ORG, RECEIVER, CONNECTION, 10)]
    await desk.site.clock.advance(300)

    assert desk.look() == [(RECEIVER, 10)]


def test_other_partitions_are_left_to_their_owners() -> None:
    desk = Desk()
    elsewhere = [desk.look(number) for number in range(PARTITIONS) if number != HOME]

    assert elsewhere == [[]] * (PARTITIONS - 1)
    assert desk.look() == BOTH


def test_a_look_that_was_broken_off_is_made_again() -> None:
    """The partition moved away in between."""
    desk = Desk()
    steps = desk.scan.step({RENT_ROLL: desk.roll, DELIVERIES: desk.rows}, HOME)
    first = next(steps)
    del steps

    assert first is not None
    assert desk.look() == BOTH


def test_before_the_first_sweep_is_complete_nothing_is_due() -> None:
    """Its end marks every property."""
    desk = Desk()
    desk.roll = MemoryView()

    assert desk.look() == []


def test_what_is_due_is_seen_now() -> None:
    """Not when the configuration changed: what the receiver waits for is the send."""
    desk = Desk()
    first = next(iter(desk.scan.step({RENT_ROLL: desk.roll, DELIVERIES: desk.rows}, HOME)))

    assert isinstance(first, Emit)
    assert isinstance(first.record, DeliveryDue)
    assert first.record.seen_at == NOW


async def test_a_property_whose_mark_did_not_arrive_is_due_after_two_looks() -> None:
    """The first one may have been between the mark and the cut."""
    desk = Desk()
    desk.considered()
    desk.roll[mark_key(PREFIX, 10)] = encode(MarkRow(seq=500, at=NOW))
    found = [desk.look()]
    for _ in range(2):
        await desk.site.clock.advance(AGAIN)
        found.append(desk.look())
    (revision,) = (one.revision for one in desk.site.directory.policies(ORG, CONNECTION))
    desk.rows[delivery_key(ORG, RECEIVER, CONNECTION, 10)] = encode(DeliveryRow(revision=revision, mark=500))
    await desk.site.clock.advance(AGAIN)

    assert found == [[], [(RECEIVER, 10)], [(RECEIVER, 10)]]
    assert desk.look() == []


async def test_a_property_that_is_marked_again_and_again_is_only_busy() -> None:
    desk = Desk()
    desk.considered()
    for seq in (500, 600, 700):
        desk.roll[mark_key(PREFIX, 10)] = encode(MarkRow(seq=seq, at=NOW))
        assert desk.look() == []
        await desk.site.clock.advance(AGAIN)
