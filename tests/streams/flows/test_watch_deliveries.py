"""The age of the oldest change that a receiver has not acknowledged, and what is tried again."""

from collections.abc import Mapping
from datetime import datetime, timedelta

from schemas import topics
from schemas.codec import encode
from schemas.delivery import DeliveryDue, DeliveryPhase, DeliveryRow, DueReason, OpenRow, ReceiverRow
from schemas.integrations import Integration
from schemas.partitions import partition_for
from schemas.rent_roll import AccountRow
from streams.core.delivery import delivery_key, is_open, open_key, receiver_key
from streams.core.delivery.recall import LOST_AFTER, TRIAL_AFTER
from streams.core.flows import Emit
from streams.core.observer import NullObserver
from streams.core.rent_roll import account_key, scope
from streams.flows.watch_deliveries import WatchDeliveries
from streams.topology import DELIVERIES, RENT_ROLL
from tests.streams.core.views import MemoryView
from tests.streams.directory.systems import FakePortal
from tests.streams.flows.parts import CONNECTION, NOW, ORG, RECEIVER, Site, account, emits_of, receiver, unwritten

PARTITIONS = 4
HERE = partition_for(ORG, PARTITIONS)
NEIGHBOR = next(f"org{at}" for at in range(99) if partition_for(f"org{at}", PARTITIONS) == HERE)


class Recorder(NullObserver):
    """Remembers the ages."""

    def __init__(self) -> None:
        self.ages: dict[tuple[str, int], float] = {}
        self.letters: dict[int, Mapping[str, int]] = {}

    def dead_letters_open(self, partition: int, counts: Mapping[str, int]) -> None:
        self.letters[partition] = counts

    def oldest_undelivered(self, sink: str, partition: int, seconds: float) -> None:
        self.ages[sink, partition] = seconds


class Desk:
    """The scan over a table in memory."""

    def __init__(self, *integrations: Integration) -> None:
        self.site = Site(account(), *integrations, more=[FakePortal(name="second")])
        self.observer, self.view, self.roll = Recorder(), MemoryView(), MemoryView()
        self.scan = WatchDeliveries(self.site.directory, PARTITIONS, self.site.clock, self.observer)
        self.indexed = True

    def row(self, property_id: int, *, sink: str = RECEIVER, org: str = ORG, **facts: object) -> None:
        row = DeliveryRow.model_validate(facts)
        self.view[delivery_key(org, sink, CONNECTION, property_id)] = encode(row)
        self.view.pop(open_key(org, sink, CONNECTION, property_id), None)
        if is_open(row) and self.indexed:
            self.view[open_key(org, sink, CONNECTION, property_id)] = encode(OpenRow(version=row.version))

    def age(self) -> float:
        """Return the age that is reported of partition 3 for the usual system."""
        return self.look(HERE)["portal", HERE]

    def look(self, partition: int) -> dict[tuple[str, int], float]:
        """Look at a partition: nothing is emitted, and other work may go on after each row."""
        assert self.pass_over(partition) == []
        return self.observer.ages

    def pass_over(self, partition: int = HERE) -> list[int]:
        """Look at a partition; return the properties that are tried again, by retries that use up no attempt."""
        steps = list(self.scan.step({DELIVERIES: self.view, RENT_ROLL: self.roll}, partition))
        assert None in steps or partition != HERE
        return [self.retried(one) for one in emits_of(steps)]

    def retried(self, emit: Emit) -> int:
        due = emit.record
        assert isinstance(due, DeliveryDue)
        assert (emit.topic, emit.org, due.org, due.connection, due.sink) == (topics.DUE, ORG, ORG, CONNECTION, RECEIVER)
        assert (due.reason, due.version, due.attempt, due.held) == (DueReason.RETRY, 7, 5, True)
        return due.property_id

    def owed(self, property_id: int, *, since: datetime, given_up_at: datetime) -> None:
        self.row(
            property_id,
            phase=DeliveryPhase.OWED,
            seen_at=since,
            given_up_at=given_up_at,
            given_up=1,
            dead_letter="exhausted",
            version=7,
            attempt=5,
        )

    def acknowledged(self, at: datetime) -> None:
        self.view[receiver_key(ORG, RECEIVER)] = encode(ReceiverRow(acknowledged_at=at))

    def swept(self, at: datetime) -> None:
        row = AccountRow(sweep="s", first_sweep="s", started_at=at, completed_at=at)
        self.roll[account_key(scope(ORG, CONNECTION))] = encode(row)


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


def test_the_first_pass_looks_at_every_delivery_and_the_others_at_open_ones() -> None:
    """What a former release opened is not in the index; a process looks once for it."""
    desk = Desk(receiver())
    desk.indexed = False
    desk.row(1, phase=DeliveryPhase.WAITING, seen_at=ago(5))
    first = desk.age()
    later = desk.age()
    desk.indexed = True
    desk.row(2, phase=DeliveryPhase.WAITING, seen_at=ago(3))

    assert (first, later, desk.age()) == (300.0, 0.0, 180.0)


def test_a_receiver_that_knows_everything_has_no_age() -> None:
    """So that the metric falls to zero after an outage."""
    desk = Desk(receiver())
    desk.row(1, phase=DeliveryPhase.WAITING, seen_at=ago(5))
    before = desk.age()
    desk.row(1, phase=DeliveryPhase.IDLE, seen_at=ago(5))

    assert (before, desk.age()) == (300.0, 0.0)


def test_receivers_of_one_system_are_one_and_each_system_has_its_own() -> None:
    """Over all orgs of the partition: a label is never the name of an integration."""
    desk = Desk(
        account(NEIGHBOR),
        receiver(),
        receiver(NEIGHBOR),
        receiver(name="another"),
        receiver(name="other", system="second"),
    )
    desk.row(1, phase=DeliveryPhase.WAITING, seen_at=ago(5))
    desk.row(2, phase=DeliveryPhase.WAITING, seen_at=ago(8), sink="another")
    desk.row(3, phase=DeliveryPhase.WAITING, seen_at=ago(9), org=NEIGHBOR)
    desk.row(4, phase=DeliveryPhase.WAITING, seen_at=ago(2), sink="other")

    here = {("portal", HERE): 540.0, ("second", HERE): 120.0}
    assert desk.look(HERE) == here
    elsewhere = (HERE + 1) % PARTITIONS
    assert desk.look(elsewhere) == here | {("portal", elsewhere): 0.0, ("second", elsewhere): 0.0}


def test_dead_letters_are_open_until_the_receiver_knows_the_property() -> None:
    """Also while what is owed is tried again; by system, those of disabled receivers left out."""
    desk = Desk(receiver(), receiver(name="off", enabled=False), receiver(name="other", system="second"))
    desk.row(1, phase=DeliveryPhase.OWED, seen_at=ago(5), given_up_at=ago(1), dead_letter="exhausted")
    desk.row(2, phase=DeliveryPhase.IN_FLIGHT, seen_at=ago(5), dead_letter="rejected")
    desk.row(3, phase=DeliveryPhase.WAITING, seen_at=ago(5))
    desk.row(4, phase=DeliveryPhase.OWED, seen_at=ago(5), given_up_at=ago(1), dead_letter="exhausted", sink="off")
    desk.look(HERE)
    before = desk.observer.letters[HERE]
    desk.row(1, phase=DeliveryPhase.IDLE)
    desk.look(HERE)

    assert before == {"portal": 2, "second": 0}
    assert desk.observer.letters[HERE] == {"portal": 1, "second": 0}


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


def test_what_was_given_up_counts_since_its_oldest_change() -> None:
    desk = Desk(receiver())
    desk.owed(1, since=ago(90), given_up_at=ago(1))

    assert desk.age() == 5400.0


def test_what_was_given_up_goes_out_once_the_receiver_answers_again() -> None:
    """Once: the next pass waits for what follows."""
    desk = Desk(receiver())
    desk.owed(1, since=ago(90), given_up_at=ago(9))
    desk.owed(2, since=ago(90), given_up_at=ago(8))
    before = desk.pass_over()
    desk.acknowledged(ago(1))

    assert (before, desk.pass_over(), desk.pass_over()) == ([], [1, 2], [])


async def test_what_was_given_up_goes_out_after_the_next_sweep_or_as_a_trial() -> None:
    desk = Desk(receiver())
    desk.owed(1, since=ago(90), given_up_at=ago(3))
    desk.owed(2, since=ago(90), given_up_at=ago(2))
    await desk.site.clock.advance(TRIAL_AFTER.total_seconds() - 180)
    early = desk.pass_over()
    await desk.site.clock.advance(60)
    trial = desk.pass_over()
    desk.swept(ago(0))

    assert (early, trial, desk.pass_over()) == ([], [1], [2])


async def test_a_delivery_whose_outcome_never_comes_is_tried_again() -> None:
    """After this process has seen it unchanged for long enough; if nothing follows, once more after as long."""
    desk, long = Desk(receiver()), LOST_AFTER.total_seconds()
    desk.row(1, phase=DeliveryPhase.IN_FLIGHT, seen_at=ago(600), version=7, attempt=5)
    passes = [desk.pass_over()]
    for seconds in (long - 1, 1, long - 1, 1):
        await desk.site.clock.advance(seconds)
        passes.append(desk.pass_over())

    assert passes == [[], [], [1], [], [1]]


async def test_a_delivery_that_changes_is_not_lost() -> None:
    desk, long = Desk(receiver()), LOST_AFTER.total_seconds()
    for attempt in range(3):
        desk.row(1, phase=DeliveryPhase.IN_FLIGHT, seen_at=ago(600), version=7, attempt=attempt)
        assert desk.pass_over() == []
        await desk.site.clock.advance(long)


async def test_nothing_is_tried_again_at_a_disabled_receiver() -> None:
    desk = Desk(receiver(enabled=False))
    desk.owed(1, since=ago(90), given_up_at=ago(60))
    desk.acknowledged(ago(1))

    assert desk.pass_over() == []


def test_a_retry_that_was_not_written_is_emitted_with_the_next_look() -> None:
    desk = Desk(receiver())
    desk.owed(1, since=ago(60), given_up_at=ago(30))
    desk.acknowledged(ago(5))
    assert len(unwritten(desk.scan.step({DELIVERIES: desk.view, RENT_ROLL: desk.roll}, HERE))) == 1
    assert (desk.pass_over(), desk.pass_over()) == ([1], [])
