"""The age of the oldest change that a receiver has not acknowledged, by partition and kind of receiver."""

from datetime import datetime, timedelta

from schemas.codec import encode
from schemas.delivery import DeliveryPhase, DeliveryRow, ReceiverRow
from schemas.integrations import Integration
from streams.core.delivery import delivery_key, receiver_key
from streams.core.observer import NullObserver
from streams.flows.watch_deliveries import WatchDeliveries
from streams.topology import DELIVERIES
from tests.streams.core.views import MemoryView
from tests.streams.directory.systems import FakePortal
from tests.streams.flows.parts import CONNECTION, NOW, ORG, RECEIVER, Site, account, receiver


class Recorder(NullObserver):
    """Remembers the ages."""

    def __init__(self) -> None:
        self.ages: dict[tuple[str, int], float] = {}

    def oldest_undelivered(self, sink: str, partition: int, seconds: float) -> None:
        self.ages[sink, partition] = seconds


class Desk:
    """The scan over a table in memory."""

    def __init__(self, *integrations: Integration) -> None:
        self.site = Site(account(), *integrations, more=[FakePortal(name="second")])
        self.observer, self.view = Recorder(), MemoryView()
        self.scan = WatchDeliveries(self.site.directory, self.site.clock, self.observer)

    def row(self, property_id: int, *, sink: str = RECEIVER, org: str = ORG, **facts: object) -> None:
        row = DeliveryRow.model_validate(facts)
        self.view[delivery_key(org, sink, CONNECTION, property_id)] = encode(row)

    def age(self) -> float:
        """Return the age that is reported of partition 3 for the usual system."""
        return self.look(3)["portal", 3]

    def look(self, partition: int) -> dict[tuple[str, int], float]:
        """Look at a partition: nothing is emitted, and other work may go on after each row."""
        steps = list(self.scan.step({DELIVERIES: self.view}, partition))
        assert steps == [None] * len(self.view)
        return self.observer.ages


def ago(minutes: int) -> datetime:
    return NOW - timedelta(minutes=minutes)


def test_the_oldest_is_what_is_on_its_way_or_changed_meanwhile() -> None:
    desk = Desk(receiver())
    desk.row(1, phase=DeliveryPhase.IN_FLIGHT, seen_at=ago(5))
    desk.row(2, phase=DeliveryPhase.WAITING, seen_at=ago(7), dirty_since=ago(3))
    desk.row(3, phase=DeliveryPhase.WAITING, seen_at=ago(6), dirty_since=ago(9))
    desk.row(4, phase=DeliveryPhase.IDLE, seen_at=ago(60))
    desk.view[receiver_key(ORG, RECEIVER)] = encode(ReceiverRow(second="s", count=1))

    assert desk.age() == 540.0


def test_a_receiver_that_knows_everything_has_no_age() -> None:
    """So that the metric falls to zero after an outage."""
    desk = Desk(receiver())
    desk.row(1, phase=DeliveryPhase.WAITING, seen_at=ago(5))
    before = desk.age()
    desk.row(1, phase=DeliveryPhase.IDLE, seen_at=ago(5))

    assert (before, desk.age()) == (300.0, 0.0)


def test_receivers_of_one_system_are_one_and_each_system_has_its_own() -> None:
    """Over all orgs of the partition: a label is never the name of an integration."""
    desk = Desk(receiver(), receiver("zeta"), receiver(name="another"), receiver(name="other", system="second"))
    desk.row(1, phase=DeliveryPhase.WAITING, seen_at=ago(5))
    desk.row(2, phase=DeliveryPhase.WAITING, seen_at=ago(8), sink="another")
    desk.row(3, phase=DeliveryPhase.WAITING, seen_at=ago(9), org="zeta")
    desk.row(4, phase=DeliveryPhase.WAITING, seen_at=ago(2), sink="other")

    assert desk.look(3) == {("portal", 3): 540.0, ("second", 3): 120.0}
    desk.view.clear()
    assert desk.look(4) == {("portal", 3): 540.0, ("second", 3): 120.0, ("portal", 4): 0.0, ("second", 4): 0.0}


def test_what_a_disabled_or_deleted_receiver_is_owed_does_not_count() -> None:
    """Nothing is late that is not to be sent; it counts again once the receiver is enabled."""
    desk = Desk(receiver(), receiver(name="off", enabled=False))
    desk.row(1, phase=DeliveryPhase.WAITING, seen_at=ago(5))
    desk.row(1, phase=DeliveryPhase.WAITING, seen_at=ago(50), sink="off")
    desk.row(1, phase=DeliveryPhase.WAITING, seen_at=ago(90), sink="deleted")
    disabled = desk.age()
    desk.site.put(receiver(name="off"))

    assert (disabled, desk.age()) == (300.0, 3000.0)


def test_a_receiver_that_cannot_be_reached_counts() -> None:
    """Its key is lost: what it is owed is late all the same."""
    desk = Desk(receiver(key="k9"))
    desk.row(1, phase=DeliveryPhase.WAITING, seen_at=ago(5))

    assert desk.age() == 300.0


def test_an_empty_table_is_no_trouble() -> None:
    desk = Desk()

    assert desk.age() == 0.0
