"""One property at one receiver: what is sent when, and that the receiver ends up equal to the rent roll."""

from __future__ import annotations

import random
from dataclasses import dataclass, field, replace
from datetime import date, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas import topics
from schemas.codec import decode_as, encode
from schemas.delivery import (
    Acknowledged,
    Batch,
    BatchMode,
    DeliveryDue,
    DeliveryOutcome,
    DeliveryPhase,
    DeliveryResult,
    DeliveryRow,
    DueReason,
    KnownRow,
    OfferedProperty,
    OfferedUnit,
    ReceiverRow,
    UnitState,
)
from streams.core.delivery import Cause, apply, delivery_key, receiver_key
from streams.core.delivery.cut import owes_snapshot
from streams.core.delivery.keys import known_key, known_of
from streams.core.due import Units, merge
from streams.core.flows import Disposition, FoldResult
from streams.core.offer import Offer
from streams.core.policy import SinkPolicy
from streams.core.rows import Rows
from tests.streams.core.delivery.offers import NOW, offer_of, offered
from tests.streams.core.views import MemoryView

RENTSYNC = "rentsync"
FIRST, SECOND = "first receiver", "second receiver"


def receiver(identity: str = FIRST, name: str = RENTSYNC, **more: Any) -> SinkPolicy:
    """Return an enabled receiver."""
    return SinkPolicy("default", name, name, identity, **more)


BOTH = (receiver(), receiver(name="zillow"))


@dataclass
class Desk:
    """The fold over a table in memory; the test sets what is offered, the receivers and the time."""

    offers: dict[int, Offer | None] = field(default_factory=dict)
    now: datetime = NOW
    sinks: tuple[SinkPolicy, ...] = (receiver(),)
    view: MemoryView = field(default_factory=MemoryView)
    offset: int = 0
    last: FoldResult = field(default_factory=lambda: FoldResult(Disposition.IGNORED))
    looked_at: Units = frozenset()
    """The units that were read last; null: all of the property."""

    def read(self, org: str, connection: str, property_id: int, sink: SinkPolicy, units: Units) -> Offer | None:
        assert (org, connection) == ("default", "buildium")
        assert sink in self.sinks
        self.looked_at = units
        found = self.offers.get(property_id)
        if found is None or units is None:
            return found
        return replace(found, units=tuple(unit for unit in found.units if unit.id in units))

    def fold(self, record: DeliveryDue | DeliveryOutcome, cause: str | None = None) -> list[Batch]:
        """Fold one record, a new one unless ``cause`` names an earlier one; return the batches that follow."""
        self.offset += 1
        rows = Rows(self.view)
        self.last = apply(rows, record, Cause(cause or f"topic:{self.offset}", self.now), self.sinks, self.read)
        self.view.take(rows)
        for emit in self.last.emits:
            assert (emit.topic, emit.org, emit.once) == (topics.BATCHES, "default", None)
        return [emit.record for emit in self.last.emits if isinstance(emit.record, Batch)]

    def due(self, reason: DueReason = DueReason.CHANGED, *, cause: str | None = None, **more: Any) -> list[Batch]:
        return self.fold(due(reason, **({"seen_at": self.now} | more)), cause)

    def answer(self, batch: Batch, result: DeliveryResult, *, cause: str | None = None, **more: Any) -> list[Batch]:
        return self.fold(outcome(batch, result, self.now, **more), cause)

    def acknowledge(self, batch: Batch) -> list[Batch]:
        return self.answer(batch, DeliveryResult.ACKNOWLEDGED)

    def park(self, batch: Batch) -> list[Batch]:
        return self.answer(batch, DeliveryResult.WAITING)

    def retry(self, batch: Batch, cause: str | None = None) -> list[Batch]:
        return self.fold(retry(batch), cause)

    def replace(self) -> None:
        """Replace the receiver by another one under the same name."""
        self.sinks = (receiver(SECOND),)

    def row(self, number: int = 10) -> DeliveryRow:
        return decode_as(DeliveryRow, self.view[delivery_key("default", RENTSYNC, "buildium", number)])

    def phase(self) -> DeliveryPhase:
        return self.row().phase

    def send(self, *units: OfferedUnit, **more: Any) -> Batch:
        """Offer these units, and expect one batch to follow."""
        self.offers[10] = offer_of(*units, **more)
        (batch,) = self.due()
        return batch


def due(reason: DueReason, **more: Any) -> DeliveryDue:
    given = {"org": "default", "connection": "buildium", "property_id": 10, "reason": reason, "seen_at": NOW}
    return DeliveryDue.model_validate(given | more)


def retry(batch: Batch) -> DeliveryDue:
    """Return what comes back from the rung."""
    return due(
        DueReason.RETRY,
        property_id=batch.property.id,
        seen_at=batch.seen_at,
        sink=batch.sink,
        version=batch.version,
        attempt=batch.attempt,
    )


def outcome(batch: Batch, result: DeliveryResult, at: datetime, **more: Any) -> DeliveryOutcome:
    given: dict[str, Any] = {
        "org": batch.org,
        "connection": batch.connection,
        "sink": batch.sink,
        "property_id": batch.property.id,
        "version": batch.version,
        "result": result,
        "attempt": batch.attempt,
        "at": at,
    }
    return DeliveryOutcome.model_validate(given | more)


def ids(batch: Batch) -> set[int]:
    return {unit.id for unit in batch.units}


def name_of(batch: Batch) -> tuple[Any, ...]:
    """Return what a retry of the same content repeats."""
    return batch.batch_id, batch.sync_id, batch.cut_at, batch.version


# ----------------------------------------------------------------------------------------------------- what is sent


def test_the_first_batch_of_a_property_is_a_snapshot_of_all_its_units() -> None:
    """It carries the moment of the change; a unit that was removed before is left out."""
    desk = Desk({10: offer_of(offered(1), offered(2, state=UnitState.RENTED), offered(3, state=UnitState.REMOVED))})
    seen = NOW - timedelta(minutes=3)
    (batch,) = desk.due(seen_at=seen)
    assert (batch.mode, ids(batch), batch.version, batch.attempt) == (BatchMode.SNAPSHOT, {1, 2}, 1, 1)
    assert (batch.org, batch.connection, batch.sink) == ("default", "buildium", RENTSYNC)
    assert (batch.seen_at, batch.cut_at) == (seen, NOW)
    assert batch.property == desk.offers[10].property  # type: ignore[union-attr]
    assert desk.last.verdict is Disposition.APPLIED
    assert desk.phase() is DeliveryPhase.IN_FLIGHT


def test_a_property_without_units_is_not_sent_before_it_has_one() -> None:
    desk = Desk({10: offer_of()})
    assert desk.due() == []
    batch = desk.send(offered(1))
    assert (batch.mode, ids(batch)) == (BatchMode.SNAPSHOT, {1})


def test_a_delta_carries_only_the_units_that_changed() -> None:
    desk = Desk()
    desk.acknowledge(desk.send(offered(1), offered(2), offered(3)))
    batch = desk.send(offered(1), offered(2, rent=1600), offered(3))
    assert (batch.mode, ids(batch), batch.version) == (BatchMode.DELTA, {2}, 2)
    desk.acknowledge(batch)
    batch = desk.send(offered(1), offered(2, rent=1600), offered(3, rent=1), offered(4))
    assert ids(batch) == {3, 4}


def test_a_change_of_the_property_itself_sends_all_its_units() -> None:
    desk = Desk()
    desk.acknowledge(desk.send(offered(1), offered(2)))
    assert ids(desk.send(offered(1), offered(2), name="Sunrise Apartments")) == {1, 2}


@pytest.mark.parametrize("reason", [reason for reason in DueReason if reason is not DueReason.RETRY])
def test_what_the_receiver_knows_is_not_sent_again(reason: DueReason) -> None:
    """Whatever the reason of the record."""
    desk = Desk()
    desk.acknowledge(desk.send(offered(1)))
    before = dict(desk.view)
    assert desk.due(reason) == []
    assert desk.last.verdict is Disposition.IGNORED
    assert desk.view == before


@pytest.mark.parametrize("offer", [None, offer_of(offered(1, state=UnitState.UNAVAILABLE), active=False)])
def test_nothing_is_sent_where_nothing_is_offered(offer: Offer | None) -> None:
    """The row only records, once, for which receiver the property was considered."""
    desk = Desk({10: offer})
    assert desk.due() == []
    assert desk.last.verdict is Disposition.IGNORED
    assert desk.row() == DeliveryRow(receiver=FIRST)
    before = dict(desk.view)
    assert desk.due() == []
    assert desk.view == before


def test_each_receiver_has_a_state_of_its_own() -> None:
    """A record that names a receiver is for that one only."""
    desk = Desk({10: offer_of(offered(1))}, sinks=BOTH)
    first, second = desk.due()
    assert {first.sink, second.sink} == {"rentsync", "zillow"}
    assert first.batch_id != second.batch_id
    desk.acknowledge(first)
    assert desk.due(sink="rentsync") == []
    assert desk.due(sink="zillow") == []
    assert desk.row().dirty_since is None
    assert desk.row().phase is DeliveryPhase.IDLE
    desk.offers[10] = offer_of(offered(1, rent=1))
    assert [batch.sink for batch in desk.due()] == ["rentsync"]


def test_properties_and_connections_have_rows_of_their_own() -> None:
    desk = Desk({10: offer_of(offered(1)), 11: offer_of(offered(2), number=11)})
    (first,) = desk.due()
    (second,) = desk.due(property_id=11)
    assert first.batch_id != second.batch_id
    assert len({delivery_key("o", "s", "c", 1), delivery_key("o", "s", "d", 1), delivery_key("o", "t", "c", 1)}) == 3


# ------------------------------------------------------------------------------------------------ scheduled snapshots


LATER = NOW + timedelta(hours=1)


def scheduled(desk: Desk, at: datetime = LATER, **more: Any) -> list[Batch]:
    return desk.due(DueReason.SCHEDULED, sink=RENTSYNC, snapshot_at=at, **more)


def test_a_scheduled_snapshot_carries_everything_once() -> None:
    """Units that the receiver knows too; asked for again, for the same moment or an earlier one, it is void."""
    desk = Desk()
    desk.acknowledge(desk.send(offered(1), offered(2)))
    (batch,) = scheduled(desk)
    desk.acknowledge(batch)

    assert (batch.mode, ids(batch), batch.version) == (BatchMode.SNAPSHOT, {1, 2}, 2)
    assert [scheduled(desk), scheduled(desk, NOW - timedelta(days=1)), desk.due()] == [[], [], []]
    assert desk.last.verdict is Disposition.IGNORED
    assert ids(scheduled(desk, LATER + timedelta(days=1))[0]) == {1, 2}


def test_a_record_of_the_schedule_that_is_consumed_again_repeats_its_batch() -> None:
    """A crash may have come before the batch was durable."""
    desk = Desk()
    desk.acknowledge(desk.send(offered(1)))
    first, again = scheduled(desk, cause="t:9"), scheduled(desk, cause="t:9")

    assert first == again


@pytest.mark.parametrize("parked", [False, True])
def test_a_snapshot_that_is_due_while_a_batch_is_on_its_way_follows(parked: bool) -> None:
    """With the retry, if there is one."""
    desk = Desk()
    desk.acknowledge(desk.send(offered(1), offered(2)))
    delta = desk.send(offered(1, 1600), offered(2))
    if parked:
        desk.park(delta)
    assert scheduled(desk) == []
    (following,) = desk.retry(delta) if parked else desk.acknowledge(delta)

    assert (following.mode, ids(following)) == (BatchMode.SNAPSHOT, {1, 2})
    assert desk.acknowledge(following) == []
    assert desk.row().dirty_since is None


def test_a_snapshot_that_fails_stays_one_and_keeps_its_name() -> None:
    desk = Desk()
    desk.acknowledge(desk.send(offered(1), offered(2)))
    (batch,) = scheduled(desk)
    desk.park(batch)
    desk.now += timedelta(minutes=1)
    (again,) = desk.retry(batch)
    desk.answer(again, DeliveryResult.DEAD)
    (trial,) = desk.due()

    assert (name_of(again), again.mode) == (name_of(batch), BatchMode.SNAPSHOT)
    assert (trial.mode, ids(trial)) == (BatchMode.SNAPSHOT, {1, 2})


def test_a_snapshot_that_waits_over_the_next_moment_of_the_schedule_is_sent_once() -> None:
    desk = Desk()
    desk.acknowledge(desk.send(offered(1)))
    (batch,) = scheduled(desk)
    desk.park(batch)
    desk.now += timedelta(days=1)
    assert scheduled(desk, desk.now) == []
    (again,) = desk.retry(batch)

    assert name_of(again) == name_of(batch)
    assert desk.acknowledge(again) == []
    assert desk.due() == []


def test_a_first_batch_is_the_snapshot_of_the_moments_before_it() -> None:
    desk = Desk({10: offer_of(offered(1))})
    (batch,) = scheduled(desk, NOW - timedelta(hours=1))
    desk.acknowledge(batch)

    assert desk.row().snapshot_at == NOW
    assert desk.due() == []


def test_a_clock_that_is_behind_the_schedule_repeats_no_snapshot() -> None:
    desk = Desk()
    desk.acknowledge(desk.send(offered(1)))
    (batch,) = scheduled(desk, NOW + timedelta(hours=1))
    desk.acknowledge(batch)

    assert desk.due() == []


def test_what_was_given_up_goes_out_with_the_schedule() -> None:
    """Also a first batch."""
    desk = Desk()
    desk.answer(desk.send(offered(1)), DeliveryResult.DEAD)
    (batch,) = scheduled(desk, NOW + timedelta(hours=1))

    assert (batch.mode, ids(batch)) == (BatchMode.SNAPSHOT, {1})


def test_a_property_that_is_not_active_gets_no_snapshot_once_the_receiver_knows() -> None:
    desk = Desk()
    desk.acknowledge(desk.send(offered(1)))
    desk.acknowledge(desk.send(offered(1, state=UnitState.UNAVAILABLE), active=False))

    assert scheduled(desk) == []


def test_another_receiver_does_not_count_the_snapshots_of_the_former_one() -> None:
    desk = Desk()
    desk.acknowledge(desk.send(offered(1)))
    desk.replace()
    (batch,) = desk.due()

    assert (batch.mode, desk.row().snapshot_at) == (BatchMode.SNAPSHOT, None)


# ------------------------------------------------------------------------------------------- removed, inactive, moved


def test_a_removed_unit_is_sent_once() -> None:
    desk = Desk()
    desk.acknowledge(desk.send(offered(1), offered(2)))
    batch = desk.send(offered(1), offered(2, state=UnitState.REMOVED))
    assert [(unit.id, unit.state) for unit in batch.units] == [(2, UnitState.REMOVED)]
    desk.acknowledge(batch)
    assert desk.due() == []
    assert desk.due(DueReason.SCHEDULED) == []


def test_a_unit_that_was_added_and_removed_between_two_batches_is_never_sent() -> None:
    desk = Desk()
    desk.acknowledge(desk.send(offered(1)))
    desk.offers[10] = offer_of(offered(1), offered(2, state=UnitState.REMOVED))
    assert desk.due() == []


def test_a_unit_that_was_removed_while_its_first_batch_was_on_its_way_is_sent() -> None:
    """The batch may have arrived."""
    desk = Desk()
    batch = desk.send(offered(1), offered(2))
    desk.park(batch)
    desk.offers[10] = offer_of(offered(1), offered(2, state=UnitState.REMOVED))
    (again,) = desk.retry(batch)
    assert again.mode is BatchMode.SNAPSHOT
    assert {unit.id: unit.state for unit in again.units} == {1: UnitState.AVAILABLE, 2: UnitState.REMOVED}


def test_a_property_that_was_never_active_is_not_sent() -> None:
    desk = Desk({10: offer_of(offered(1, state=UnitState.UNAVAILABLE), active=False)})
    assert desk.due() == []
    batch = desk.send(offered(1))
    assert batch.mode is BatchMode.SNAPSHOT


def test_a_property_that_becomes_inactive_is_sent_once_more() -> None:
    desk = Desk()
    desk.acknowledge(desk.send(offered(1), offered(2)))
    batch = desk.send(*(offered(unit, state=UnitState.UNAVAILABLE) for unit in (1, 2)), active=False)
    assert ids(batch) == {1, 2}
    assert not batch.property.is_active
    desk.acknowledge(batch)
    assert desk.due() == []


def test_a_property_that_becomes_inactive_while_its_first_batch_waits_is_sent() -> None:
    """The batch whose answer was lost may have listed units as available."""
    desk = Desk()
    batch = desk.send(offered(1))
    desk.park(batch)
    desk.offers[10] = offer_of(offered(1, state=UnitState.UNAVAILABLE), active=False)
    (again,) = desk.retry(batch)
    assert [unit.state for unit in again.units] == [UnitState.UNAVAILABLE]


def test_a_unit_that_moved_away_and_came_back_is_sent_again() -> None:
    """Meanwhile it was sent under another property."""
    desk = Desk()
    desk.acknowledge(desk.send(offered(1), offered(2)))
    desk.offers[10] = offer_of(offered(1))
    assert desk.due() == []
    assert ids(desk.send(offered(1), offered(2))) == {2}


# --------------------------------------------------------------------------------------------------- one at a time


def test_changes_while_a_batch_is_on_its_way_make_one_batch_after_its_outcome() -> None:
    """It has the newest state, and the moment of the oldest of those changes."""
    desk = Desk()
    first = desk.send(offered(1))
    for minute, rent in enumerate((1600, 1700, 1800)):
        desk.offers[10] = offer_of(offered(1, rent=rent))
        desk.now = NOW + timedelta(minutes=minute + 1)
        assert desk.due() == []
        assert desk.last.verdict is Disposition.APPLIED
    (second,) = desk.acknowledge(first)
    assert second.units[0].base_rent == Decimal(1800)
    assert (second.mode, second.version, second.attempt) == (BatchMode.DELTA, 2, 1)
    assert second.seen_at == NOW + timedelta(minutes=1)
    assert desk.acknowledge(second) == []


def test_the_mark_keeps_the_oldest_change() -> None:
    desk = Desk()
    first = desk.send(offered(1))
    desk.offers[10] = offer_of(offered(1, rent=1600))
    desk.due(seen_at=NOW + timedelta(minutes=2))
    desk.due(seen_at=NOW + timedelta(minutes=1))
    desk.due(seen_at=NOW + timedelta(minutes=3))
    (second,) = desk.acknowledge(first)
    assert second.seen_at == NOW + timedelta(minutes=1)


def test_a_change_that_was_undone_while_the_batch_was_on_its_way_makes_no_batch() -> None:
    desk = Desk()
    first = desk.send(offered(1))
    desk.due()
    assert desk.acknowledge(first) == []
    assert desk.phase() is DeliveryPhase.IDLE
    assert desk.row().dirty_since is None


def test_changes_while_a_batch_waits_are_in_its_retry() -> None:
    desk = Desk()
    first = desk.send(offered(1), offered(2))
    desk.park(first)
    assert desk.phase() is DeliveryPhase.WAITING
    desk.offers[10] = offer_of(offered(1, rent=1600), offered(2))
    earlier = NOW - timedelta(minutes=9)
    assert desk.due(seen_at=earlier) == []
    (again,) = desk.retry(first)
    assert ids(again) == {1, 2}
    assert again.seen_at == earlier
    assert desk.acknowledge(again) == []


# -------------------------------------------------------------------------------------------------------- retries


def test_a_retry_of_the_same_content_repeats_its_name() -> None:
    """Batch id, sync id and moment of the cut: the receiver gets the same bytes under the same key."""
    desk = Desk()
    first = desk.send(offered(1), offered(2))
    for attempt in range(2, 6):
        desk.now += timedelta(minutes=attempt)
        desk.park(first)
        (again,) = desk.retry(first)
        assert again == first.model_copy(update={"attempt": attempt})
        first = again
    assert desk.acknowledge(first) == []
    assert desk.phase() is DeliveryPhase.IDLE


def test_a_retry_of_a_delta_repeats_it_too() -> None:
    desk = Desk()
    desk.acknowledge(desk.send(offered(1), offered(2)))
    delta = desk.send(offered(1, rent=1600), offered(2))
    desk.park(delta)
    assert desk.retry(delta) == [delta.model_copy(update={"attempt": 2})]


@pytest.mark.parametrize(
    "changed",
    [
        offer_of(offered(1, rent=1600), offered(2)),
        offer_of(offered(1), offered(2), offered(3)),
        offer_of(offered(1), offered(2), name="Sunrise Apartments"),
        offer_of(offered(1), offered(2, status="notice_unrented")),
        offer_of(offered(1), offered(2, available_on=date(2026, 3, 2))),
    ],
    ids=["a rent", "a unit more", "the property", "a finer status", "midnight passed"],
)
def test_a_retry_of_other_content_has_another_name(changed: Offer) -> None:
    """One key never goes with two bodies, not even where they differ in fields that cause no batch."""
    desk = Desk()
    first = desk.send(offered(1), offered(2))
    desk.now += timedelta(minutes=1)
    desk.park(first)
    desk.offers[10] = changed
    (again,) = desk.retry(first)
    assert (again.version, again.attempt, again.cut_at) == (2, 2, desk.now)
    assert not {again.batch_id, again.sync_id} & {first.batch_id, first.sync_id}


def test_a_property_that_is_renamed_while_it_waits_has_another_name() -> None:
    desk = Desk()
    first = desk.send(offered(1))
    desk.park(first)
    desk.offers[10] = offer_of(offered(1), name="Sunrise Apartments")
    (again,) = desk.retry(first)
    assert again.batch_id != first.batch_id


def test_a_change_that_may_have_arrived_is_undone() -> None:
    """The batch or its answer was lost, and the unit is again as the receiver last acknowledged it: it is sent."""
    desk = Desk()
    desk.acknowledge(desk.send(offered(1), offered(2)))
    delta = desk.send(offered(1, rent=1600), offered(2))
    desk.park(delta)
    desk.offers[10] = offer_of(offered(1), offered(2))
    (again,) = desk.retry(delta)
    assert [(unit.id, unit.base_rent) for unit in again.units] == [(1, Decimal(1500))]
    assert again.batch_id != delta.batch_id
    assert desk.acknowledge(again) == []
    assert desk.due() == []


def test_a_change_that_may_have_arrived_before_it_was_given_up_is_undone() -> None:
    """The last attempt may have reached the receiver."""
    desk = Desk()
    desk.acknowledge(desk.send(offered(1), offered(2)))
    delta = desk.send(offered(1, rent=1600), offered(2))
    assert desk.answer(delta, DeliveryResult.DEAD) == []
    desk.offers[10] = offer_of(offered(1), offered(2))
    (again,) = desk.due()
    assert ids(again) == {1}
    desk.acknowledge(again)
    assert desk.due() == []


def test_a_retry_may_overtake_the_outcome_that_announces_it() -> None:
    """They travel on different topics; the late outcome is superseded."""
    desk = Desk()
    first = desk.send(offered(1))
    (again,) = desk.retry(first)
    assert again.attempt == 2
    assert desk.park(first) == []
    assert desk.last.counts == {"superseded": 1}
    assert desk.phase() is DeliveryPhase.IN_FLIGHT
    assert desk.acknowledge(again) == []
    assert desk.phase() is DeliveryPhase.IDLE


def test_a_retry_that_comes_twice_is_sent_once() -> None:
    desk = Desk()
    first = desk.send(offered(1))
    desk.park(first)
    (again,) = desk.retry(first)
    assert desk.retry(first) == []
    assert desk.last.counts == {"superseded": 1}
    desk.park(again)
    assert desk.retry(first) == []
    (third,) = desk.retry(again)
    assert third.attempt == 3


def test_a_retry_whose_delivery_has_ended_is_superseded() -> None:
    """Acknowledged, or replaced by a newer one."""
    desk = Desk()
    first = desk.send(offered(1))
    desk.acknowledge(first)
    assert desk.retry(first) == []
    assert desk.last.verdict is Disposition.IGNORED
    assert desk.last.counts == {"superseded": 1}
    second = desk.send(offered(1, rent=1600))
    assert desk.retry(first) == []
    desk.acknowledge(second)
    assert desk.retry(second) == []


def test_a_retry_of_a_property_that_is_no_longer_offered_ends() -> None:
    desk = Desk()
    first = desk.send(offered(1))
    desk.park(first)
    desk.offers[10] = None
    assert desk.retry(first) == []
    assert desk.phase() is DeliveryPhase.IDLE


# ------------------------------------------------------------------------------------------------------ the outcomes


def test_an_acknowledgement_that_comes_after_the_end_of_the_attempts_counts() -> None:
    """The last attempt was made twice, after a crash, and only its repetition failed."""
    desk = Desk()
    batch = desk.send(offered(1))
    desk.answer(batch, DeliveryResult.DEAD)
    desk.acknowledge(batch)
    assert desk.phase() is DeliveryPhase.IDLE
    assert desk.due() == []


def test_what_was_given_up_is_owed_until_the_receiver_knows_it() -> None:
    """Since the oldest change, with its attempts used up: a change is tried once, and the next one once more."""
    desk = Desk()
    batch = desk.send(offered(1))
    for attempt in range(1, 5):
        desk.park(batch)
        (batch,) = desk.retry(batch)
        assert batch.attempt == attempt + 1
    for rent in (1600, 1700):
        desk.now += timedelta(minutes=1)
        desk.answer(batch, DeliveryResult.DEAD, reason="exhausted")
        row = desk.row()
        assert (row.phase, row.seen_at, row.given_up_at) == (DeliveryPhase.OWED, NOW, desk.now)
        batch = desk.send(offered(1, rent=rent))
        assert (batch.attempt, batch.seen_at, batch.dead_letter) == (5, NOW, "exhausted")
    desk.acknowledge(batch)
    row = desk.row()
    assert (row.phase, row.given_up, row.given_up_at, row.dead_letter) == (DeliveryPhase.IDLE, 0, None, None)
    assert desk.send(offered(1)).attempt == 1


def test_a_dead_letter_about_the_content_is_not_one_about_other_content() -> None:
    desk = Desk()
    desk.answer(desk.send(offered(1)), DeliveryResult.DEAD, reason="rejected")
    same = desk.send(offered(1))
    desk.answer(same, DeliveryResult.DEAD, reason="rejected")
    other = desk.send(offered(1, rent=1600))

    assert (same.dead_letter, other.dead_letter) == ("rejected", None)


def test_a_dead_letter_closes_when_the_receiver_knows_the_property_or_is_owed_nothing() -> None:
    """Acknowledged, not offered any more, or replaced by other content if its own was at fault."""
    acknowledged, withdrawn, replaced = Desk(), Desk(), Desk()
    for desk in (acknowledged, withdrawn):
        desk.answer(desk.send(offered(1)), DeliveryResult.DEAD, reason="exhausted")
    replaced.answer(replaced.send(offered(1)), DeliveryResult.DEAD, reason="rejected")
    acknowledged.acknowledge(acknowledged.send(offered(1)))
    withdrawn.offers[10] = None
    withdrawn.due()
    replaced.send(offered(1, rent=1600))

    assert [desk.last.counts.get("closed") for desk in (acknowledged, withdrawn, replaced)] == [1, 1, 1]


def test_what_is_no_longer_offered_is_no_longer_owed() -> None:
    desk = Desk()
    desk.answer(desk.send(offered(1)), DeliveryResult.DEAD)
    desk.offers[10] = None
    assert desk.due() == []
    assert desk.phase() is DeliveryPhase.IDLE


def test_a_receiver_is_known_to_answer_since_its_last_acknowledgement() -> None:
    desk = Desk({11: offer_of(offered(2), number=11)})
    first = desk.send(offered(1))
    desk.now += timedelta(seconds=5)
    desk.acknowledge(first)
    (second,) = desk.due(property_id=11)
    receiver = decode_as(ReceiverRow, desk.view[receiver_key("default", RENTSYNC)])

    assert receiver.acknowledged_at == desk.now.replace(microsecond=0)
    assert second.sync_id != first.sync_id


@pytest.mark.parametrize("result", [result for result in DeliveryResult if result is not DeliveryResult.WAITING])
def test_a_late_or_repeated_outcome_changes_nothing(result: DeliveryResult) -> None:
    desk = Desk()
    first = desk.send(offered(1))
    desk.answer(first, result)
    before = dict(desk.view)
    for late in DeliveryResult:
        if desk.phase() is DeliveryPhase.OWED and late in (DeliveryResult.ACKNOWLEDGED, DeliveryResult.CANCELLED):
            continue
        assert desk.answer(first, late) == []
        assert (desk.last.verdict, desk.last.counts) == (Disposition.IGNORED, {"superseded": 1})
    assert desk.view == before
    second = desk.send(offered(1, rent=1600))
    before = dict(desk.view)
    for late in DeliveryResult:
        assert desk.answer(first, late) == []
    assert desk.view == before
    assert desk.acknowledge(second) == []


def test_what_was_given_up_is_sent_again_at_the_next_change() -> None:
    """With a name of its own and as the first attempt; the reason is kept until an acknowledgement."""
    desk = Desk()
    first = desk.send(offered(1))
    assert desk.answer(first, DeliveryResult.DEAD, detail="RentSync refused it") == []
    assert desk.phase() is DeliveryPhase.OWED
    assert desk.row().last_error == "RentSync refused it"
    second = desk.send(offered(1))
    assert (second.mode, second.version, second.attempt) == (BatchMode.SNAPSHOT, 2, 1)
    assert second.batch_id != first.batch_id
    desk.acknowledge(second)
    assert desk.row().last_error is None
    assert desk.row().acknowledged_at == NOW


def test_a_change_that_came_before_the_delivery_was_given_up_is_tried_at_once() -> None:
    desk = Desk()
    first = desk.send(offered(1))
    desk.offers[10] = offer_of(offered(1, rent=1600))
    desk.due()
    (second,) = desk.answer(first, DeliveryResult.DEAD)
    assert (second.attempt, second.units[0].base_rent) == (1, Decimal(1600))


def test_a_result_of_a_newer_version_ends_the_delivery() -> None:
    """The next change is sent with everything that this one carried."""
    desk = Desk()
    first = desk.send(offered(1))
    desk.answer(first, DeliveryResult.UNKNOWN)
    assert ids(desk.send(offered(1))) == {1}


# -------------------------------------------------------------------------------------------- records that repeat


def test_a_record_that_is_consumed_again_emits_its_batch_again() -> None:
    """The worker may have died between the write of its rows and that of the batch."""
    desk = Desk({10: offer_of(offered(1))})
    (first,) = desk.due(cause="deliveries.due:5")
    assert desk.due(cause="deliveries.due:5") == [first]
    assert desk.last.verdict is Disposition.DUPLICATE
    desk.offers[10] = offer_of(offered(1, rent=1600))
    desk.due(cause="deliveries.due:6")
    (second,) = desk.answer(first, DeliveryResult.ACKNOWLEDGED, cause="deliveries.outcomes:3")
    assert desk.answer(first, DeliveryResult.ACKNOWLEDGED, cause="deliveries.outcomes:3") == [second]
    desk.park(second)
    (third,) = desk.retry(second, cause="deliveries.due:7")
    assert desk.retry(second, cause="deliveries.due:7") == [third]
    assert desk.acknowledge(third) == []


def test_a_record_that_is_consumed_again_after_the_outcome_emits_nothing() -> None:
    """The outcome proves that the batch was durable."""
    desk = Desk({10: offer_of(offered(1))})
    (first,) = desk.due(cause="deliveries.due:5")
    desk.park(first)
    assert desk.due(cause="deliveries.due:5") == []
    assert desk.last.verdict is Disposition.DUPLICATE
    assert desk.phase() is DeliveryPhase.WAITING
    (again,) = desk.retry(first)
    desk.acknowledge(again)
    assert desk.due(cause="deliveries.due:5") == []
    assert desk.phase() is DeliveryPhase.IDLE


def test_a_record_that_is_consumed_again_after_a_change_is_cut_again() -> None:
    """The first batch may be on its way: the second carries its units too, even where their change was undone."""
    desk = Desk()
    desk.acknowledge(desk.send(offered(1), offered(2)))
    desk.offers[10] = offer_of(offered(1, rent=1600), offered(2))
    (first,) = desk.due(cause="deliveries.due:5")
    desk.offers[10] = offer_of(offered(1), offered(2, rent=1700))
    (second,) = desk.due(cause="deliveries.due:5")
    assert second.version == first.version + 1
    assert ids(second) == {1, 2}
    assert desk.acknowledge(first) == []
    assert desk.phase() is DeliveryPhase.IN_FLIGHT


def test_a_superseded_record_is_counted() -> None:
    """Once for each receiver that it concerns."""
    desk = Desk(sinks=BOTH)
    desk.offers[10] = offer_of(offered(1))
    first, second = desk.due()
    for batch in (first, second):
        desk.acknowledge(batch)
    assert desk.fold(due(DueReason.RETRY, version=1, attempt=1)) == []
    assert desk.last.counts == {"superseded": 2}


def test_cuts_of_a_second_are_numbered_over_the_properties_of_a_receiver() -> None:
    desk = Desk({10: offer_of(offered(1)), 11: offer_of(offered(2), number=11)}, sinks=BOTH)
    batches = desk.due() + desk.due(property_id=11)
    assert [(batch.sink, batch.sync_id) for batch in batches] == [
        ("rentsync", "sync-2026-03-01-12-30-15"),
        ("zillow", "sync-2026-03-01-12-30-15"),
        ("rentsync", "sync-2026-03-01-12-30-15-2"),
        ("zillow", "sync-2026-03-01-12-30-15-2"),
    ]


# ------------------------------------------------------------------------------------------- another receiver, or none


def test_another_receiver_gets_a_snapshot() -> None:
    """What the former one acknowledged counts no more; a unit that was removed meanwhile is left out."""
    desk = Desk()
    desk.acknowledge(desk.send(offered(1), offered(2), offered(3)))
    desk.offers[10] = offer_of(offered(1), offered(2), offered(3, state=UnitState.REMOVED))
    desk.replace()
    (batch,) = desk.due(cause="deliveries.due:5")
    assert (batch.receiver, batch.mode, ids(batch)) == (SECOND, BatchMode.SNAPSHOT, {1, 2})
    assert (batch.version, batch.attempt) == (2, 1)
    assert desk.row().acknowledged_at is None
    assert desk.due(cause="deliveries.due:5") == [batch]
    assert desk.last.verdict is Disposition.DUPLICATE
    assert desk.acknowledge(batch) == []
    assert desk.due() == []


def test_what_a_former_receiver_did_not_acknowledge_is_forgotten() -> None:
    desk = Desk()
    desk.answer(desk.send(offered(1), offered(2)), DeliveryResult.DEAD, detail="refused")
    assert desk.row().sent
    desk.offers[10] = offer_of(offered(1), offered(2, state=UnitState.REMOVED))
    desk.replace()
    (batch,) = desk.due()
    assert ids(batch) == {1}
    assert desk.row().last_error is None


@pytest.mark.parametrize("offer", [None, offer_of(offered(1, state=UnitState.UNAVAILABLE), active=False)])
def test_another_receiver_with_nothing_to_send_is_recorded_once(offer: Offer | None) -> None:
    desk = Desk()
    desk.acknowledge(desk.send(offered(1)))
    desk.offers[10] = offer
    desk.replace()
    assert desk.due(cause="deliveries.due:5") == []
    assert (desk.row().receiver, desk.row().introduced, desk.phase()) == (SECOND, False, DeliveryPhase.IDLE)
    before = dict(desk.view)
    assert desk.due(cause="deliveries.due:5") == []
    assert desk.due() == []
    assert desk.view == before
    assert desk.send(offered(1)).mode is BatchMode.SNAPSHOT


@pytest.mark.parametrize("result", [result for result in DeliveryResult if result is not DeliveryResult.WAITING])
@pytest.mark.parametrize("considered", [False, True], ids=["at its outcome", "before its outcome"])
def test_a_receiver_replaced_while_a_batch_is_on_its_way_gets_a_snapshot_after_the_outcome(
    result: DeliveryResult, considered: bool
) -> None:
    """Whatever the outcome, and whether or not a record came in between."""
    desk = Desk()
    first = desk.send(offered(1), offered(2))
    desk.replace()
    desk.now = NOW + timedelta(minutes=1)
    if considered:
        assert desk.due() == []
        assert desk.row().receiver == FIRST
    desk.now = NOW + timedelta(minutes=2)
    (second,) = desk.answer(first, result, cause="deliveries.outcomes:3")
    assert (second.receiver, second.mode, ids(second)) == (SECOND, BatchMode.SNAPSHOT, {1, 2})
    assert second.seen_at == NOW + timedelta(minutes=1 if considered else 2)
    assert second.batch_id != first.batch_id
    assert desk.answer(first, result, cause="deliveries.outcomes:3") == [second]
    assert desk.acknowledge(second) == []


def test_a_receiver_replaced_while_a_batch_waits_gets_a_snapshot_with_the_retry() -> None:
    """As a first attempt; the same content, even, is another batch for another receiver."""
    desk = Desk()
    first = desk.send(offered(1))
    desk.park(first)
    (again,) = desk.retry(first)
    desk.park(again)
    desk.replace()
    assert desk.due() == []
    (second,) = desk.retry(again, cause="deliveries.due:7")
    assert (second.receiver, second.mode, second.units) == (SECOND, BatchMode.SNAPSHOT, first.units)
    assert (second.attempt, second.version) == (1, first.version + 1)
    assert not {second.batch_id, second.sync_id} & {first.batch_id, first.sync_id}
    assert desk.retry(again, cause="deliveries.due:7") == [second]
    assert desk.retry(again) == []
    assert desk.acknowledge(second) == []


def test_a_record_that_is_consumed_again_is_cut_for_the_receiver_of_the_moment() -> None:
    desk = Desk({10: offer_of(offered(1))})
    (first,) = desk.due(cause="deliveries.due:5")
    desk.replace()
    (second,) = desk.due(cause="deliveries.due:5")
    assert (second.receiver, second.version) == (SECOND, 2)
    assert desk.due(cause="deliveries.due:5") == [second]
    assert desk.acknowledge(first) == []
    assert desk.phase() is DeliveryPhase.IN_FLIGHT


@pytest.mark.parametrize("result", [DeliveryResult.CANCELLED, DeliveryResult.DEAD])
def test_a_cancelled_delivery_ends_like_a_dead_one(result: DeliveryResult) -> None:
    """What was sent stays unconfirmed."""
    desk = Desk()
    desk.acknowledge(desk.send(offered(1), offered(2)))
    batch = desk.send(offered(1, rent=1600), offered(2))
    assert desk.answer(batch, result, detail="the receiver was disabled") == []
    row = desk.row()
    phase = DeliveryPhase.OWED if result is DeliveryResult.DEAD else DeliveryPhase.IDLE
    assert (row.phase, row.last_error) == (phase, "the receiver was disabled")
    assert {one.unit_id for one in row.sent} == {1}
    assert ids(desk.send(offered(1), offered(2))) == {1}


def test_nothing_is_sent_to_a_receiver_that_is_disabled() -> None:
    desk = Desk({10: offer_of(offered(1))}, sinks=())
    assert desk.due() == []
    assert desk.due(sink=RENTSYNC) == []
    assert desk.last.verdict is Disposition.IGNORED
    assert not desk.view


def test_a_retry_for_a_receiver_that_was_disabled_cancels_the_delivery() -> None:
    """What was sent stays unconfirmed; once the receiver is enabled again, it goes out with the next record."""
    desk = Desk()
    first = desk.send(offered(1))
    desk.park(first)
    enabled, desk.sinks = desk.sinks, ()
    assert desk.retry(first) == []
    assert (desk.phase(), desk.row().last_error) == (DeliveryPhase.IDLE, "the receiver is disabled or deleted")
    assert desk.retry(first) == []
    assert desk.last.counts == {"superseded": 1}
    desk.sinks = enabled
    (again,) = desk.due()
    assert ids(again) == {1}


def test_a_record_that_is_consumed_again_for_a_receiver_that_was_disabled_cancels_the_delivery() -> None:
    """Its batch may not be durable: without this no outcome would ever end it."""
    desk = Desk({10: offer_of(offered(1))})
    desk.due(cause="deliveries.due:5", sink=RENTSYNC)
    desk.sinks = ()
    assert desk.due(cause="deliveries.due:5", sink=RENTSYNC) == []
    assert desk.phase() is DeliveryPhase.IDLE


def test_an_outcome_of_a_receiver_that_was_disabled_ends_the_delivery() -> None:
    desk = Desk()
    first = desk.send(offered(1))
    desk.due()
    desk.sinks = ()
    assert desk.acknowledge(first) == []
    assert (desk.phase(), desk.row().dirty_since) == (DeliveryPhase.IDLE, None)
    assert desk.row().introduced


# --------------------------------------------------------------------------------------------- another configuration


def reconfigured(desk: Desk, revision: str) -> list[Batch]:
    """Change what decides what the receiver is sent, and let the property be looked at."""
    desk.sinks = (receiver(revision=revision),)
    return desk.due(DueReason.RECONFIGURED, sink=RENTSYNC)


@pytest.mark.parametrize("offer", [None, offer_of(offered(1))])
def test_a_row_notes_for_which_configuration_it_was_looked_at(offer: Offer | None) -> None:
    """Also where nothing is to be sent, so that it is not looked at again and again."""
    desk = Desk({10: offer}, sinks=(receiver(revision="r1"),))
    for batch in desk.due():
        desk.acknowledge(batch)
    first = desk.row().revision

    assert reconfigured(desk, "r2") == []
    assert (first, desk.row().revision, desk.phase()) == ("r1", "r2", DeliveryPhase.IDLE)


def test_what_another_configuration_changes_of_an_offer_is_sent_and_the_rest_is_known() -> None:
    desk = Desk(sinks=(receiver(revision="r1"),))
    desk.acknowledge(desk.send(offered(1), offered(2)))
    desk.offers[10] = offer_of(offered(1, available_on=date(2026, 3, 9), when_available="March"), offered(2))
    (batch,) = reconfigured(desk, "r2")

    assert (batch.mode, ids(batch)) == (BatchMode.DELTA, {1})


@pytest.mark.parametrize("waits", [False, True], ids=["in flight", "waiting"])
def test_a_delivery_on_its_way_is_looked_at_for_the_new_configuration_when_it_ends(waits: bool) -> None:
    desk = Desk(sinks=(receiver(revision="r1"),))
    batch = desk.send(offered(1))
    if waits:
        desk.park(batch)
    assert reconfigured(desk, "r2") == []
    assert desk.row().revision == "r1"
    assert desk.acknowledge(batch) == []

    assert (desk.row().revision, desk.phase()) == ("r2", DeliveryPhase.IDLE)


def test_a_batch_names_when_the_configuration_was_changed_that_it_was_cut_for() -> None:
    changed_at = NOW - timedelta(days=1)
    desk = Desk({10: offer_of(offered(1))}, sinks=(receiver(changed_at=changed_at),))
    (batch,) = desk.due()

    assert (batch.receiver, batch.configured_at) == (FIRST, changed_at)


# ------------------------------------------------------------------------------------------- the units that changed


def changed(desk: Desk, *units: int, mark: int, after: int, **more: Any) -> list[Batch]:
    """Fold the record of a change of some units."""
    return desk.due(units=units, mark=mark, after=after, **more)


def introduced(*units: OfferedUnit, mark: int = 7) -> Desk:
    """Return a desk whose receiver knows these units, as of a mark."""
    desk = Desk({10: replace(offer_of(*units), mark=mark)})
    (batch,) = desk.due()
    desk.acknowledge(batch)
    return desk


def test_only_the_units_that_changed_are_looked_at() -> None:
    desk = introduced(offered(1), offered(2), offered(3))
    desk.offers[10] = offer_of(offered(1, rent=1), offered(2, rent=2), offered(3, rent=3))
    (batch,) = changed(desk, 2, mark=9, after=7)

    assert (ids(batch), desk.looked_at, desk.row().mark) == ({2}, frozenset({2}), 9)
    desk.acknowledge(batch)
    assert ids(changed(desk, 3, mark=10, after=9)[0]) == {3}


def test_the_rows_of_other_units_are_not_written() -> None:
    """The cost of a change does not grow with the property."""
    desk = introduced(*(offered(number) for number in range(100)))
    before = dict(desk.view)
    desk.offers[10] = offer_of(*(offered(number, rent=1) for number in range(100)))
    desk.acknowledge(changed(desk, 5, mark=8, after=7)[0])

    written = [key for key, row in desk.view.items() if before.get(key) != row]
    assert [key.decode().split("/")[3:] for key in sorted(written) if b"/u/" in key] == [
        ["u", "000000000010", "000000000005"]
    ]
    assert max(len(desk.view[key]) for key in written) < 600


def test_a_lost_record_is_noticed_by_the_next_one() -> None:
    """Its units are not named by any record: all of the property are looked at."""
    desk = introduced(offered(1), offered(2))
    desk.offers[10] = replace(offer_of(offered(1, rent=1), offered(2, rent=2)), mark=9)
    (batch,) = changed(desk, 2, mark=9, after=8)

    assert (ids(batch), desk.looked_at, desk.row().mark) == ({1, 2}, None, 9)


def test_a_lost_record_is_noticed_while_a_delivery_is_on_its_way() -> None:
    desk = introduced(offered(1), offered(2), offered(3))
    desk.offers[10] = offer_of(offered(1, rent=1), offered(2), offered(3))
    (batch,) = changed(desk, 1, mark=8, after=7)
    desk.offers[10] = offer_of(offered(1, rent=1), offered(2, rent=2), offered(3, rent=3))
    assert changed(desk, 3, mark=10, after=9) == []
    (following,) = desk.acknowledge(batch)

    assert (ids(following), desk.looked_at) == ({2, 3}, None)


def test_changes_while_a_delivery_is_on_its_way_follow_it() -> None:
    """With what was sent, if that is not acknowledged."""
    for result, units in ((DeliveryResult.ACKNOWLEDGED, {2, 3}), (DeliveryResult.DEAD, {1, 2, 3})):
        desk = introduced(*(offered(number) for number in range(1, 6)))
        desk.offers[10] = offer_of(*(offered(number, rent=1) for number in range(1, 6)))
        (batch,) = changed(desk, 1, mark=8, after=7)
        assert changed(desk, 2, mark=9, after=8) + changed(desk, 3, mark=10, after=9) == []
        assert (desk.row().dirty_units, desk.row().mark) == ((2, 3), 10)
        (following,) = desk.answer(batch, result)

        assert (ids(following), desk.looked_at) == (units, frozenset(units))
        assert desk.row().dirty_units is None


def test_a_retry_looks_at_what_was_sent_and_what_changed_since() -> None:
    desk = introduced(*(offered(number) for number in range(1, 5)))
    desk.offers[10] = offer_of(*(offered(number, rent=1) for number in range(1, 5)))
    (batch,) = changed(desk, 1, mark=8, after=7)
    desk.park(batch)
    changed(desk, 2, mark=9, after=8)
    (again,) = desk.retry(batch)

    assert (ids(again), desk.looked_at) == ({1, 2}, frozenset({1, 2}))


def test_many_units_that_changed_become_all_of_the_property() -> None:
    desk = introduced(*(offered(number) for number in range(300)))
    desk.offers[10] = offer_of(*(offered(number, rent=1) for number in range(300)))
    (batch,) = changed(desk, 0, mark=8, after=7)
    for number in range(1, 299):
        changed(desk, number, mark=8 + number, after=7 + number)

    assert desk.row().dirty_units is None
    assert ids(desk.acknowledge(batch)[0]) == set(range(1, 300))


def test_a_unit_that_left_the_property_is_forgotten() -> None:
    desk = introduced(offered(1), offered(2))
    desk.offers[10] = offer_of(offered(1))
    assert changed(desk, 2, mark=8, after=7) == []
    desk.offers[10] = offer_of(offered(1), offered(2))

    assert ids(changed(desk, 2, mark=9, after=8)[0]) == {2}


@pytest.mark.parametrize("units", [None, (2,)])
def test_a_row_of_a_former_release_keeps_what_the_receiver_knows(units: tuple[int, ...] | None) -> None:
    desk = introduced(offered(1), offered(2))
    prefix = known_of("default", RENTSYNC, "buildium", 10)
    digests = {number: decode_as(KnownRow, desk.view.pop(known_key(prefix, number))).digest for number in (1, 2)}
    former = tuple(Acknowledged(unit_id=number, digest=found) for number, found in digests.items())
    row = desk.row().model_copy(update={"known": former, "introduced": False})
    desk.view[delivery_key("default", RENTSYNC, "buildium", 10)] = encode(row)
    desk.offers[10] = offer_of(offered(1), offered(2, rent=1600))
    (batch,) = desk.due(units=units, mark=8, after=7)

    assert (batch.mode, ids(batch)) == (BatchMode.DELTA, {2})
    assert (desk.row().known, desk.row().introduced) == (None, True)
    assert decode_as(KnownRow, desk.view[known_key(prefix, 1)]).digest == digests[1]


# -------------------------------------------------------------------------------- what became unavailable goes at once


RENTED = UnitState.RENTED


def withdrawn(desk: Desk, *units: int) -> list[Batch]:
    return desk.due(DueReason.WITHDRAWN, units=units)


def test_what_became_unavailable_is_sent_alone_and_the_rest_follows() -> None:
    desk = introduced(offered(1), offered(2), offered(3))
    desk.offers[10] = offer_of(offered(1, state=RENTED), offered(2, rent=1600), offered(3, state=RENTED))
    (first,) = withdrawn(desk, 1, 2)
    assert (first.mode, ids(first), desk.looked_at) == (BatchMode.DELTA, {1}, frozenset({1, 2}))
    assert changed(desk, 1, 2, mark=8, after=7) == []
    (rest,) = desk.acknowledge(first)

    assert ids(rest) == {2}
    assert desk.row().mark == 8


def test_nothing_is_withdrawn_that_is_available_or_known() -> None:
    """And the row stays as it is: the record that follows has everything."""
    desk = introduced(offered(1), offered(2, state=RENTED))
    desk.offers[10] = offer_of(offered(1, rent=1600), offered(2, state=RENTED))
    before = dict(desk.view)

    assert withdrawn(desk, 1, 2) == []
    assert desk.last.verdict is Disposition.IGNORED
    assert desk.view == before


@pytest.mark.parametrize("why", ["no snapshot yet", "another receiver", "another configuration", "owes a snapshot"])
def test_nothing_is_withdrawn_where_everything_is_due(why: str) -> None:
    desk = Desk() if why == "no snapshot yet" else introduced(offered(1))
    desk.offers[10] = offer_of(offered(1, state=RENTED))
    match why:
        case "another receiver":
            desk.replace()
        case "another configuration":
            desk.sinks = (receiver(revision="r2"),)
        case "owes a snapshot":
            key = delivery_key("default", RENTSYNC, "buildium", 10)
            desk.view[key] = encode(desk.row().model_copy(update={"snapshot_due": NOW + timedelta(days=1)}))

    assert withdrawn(desk, 1) == []
    assert ids(desk.due()[0]) == {1}


def test_a_withdrawal_waits_for_the_delivery_that_is_on_its_way() -> None:
    desk = introduced(offered(1), offered(2))
    desk.offers[10] = offer_of(offered(1, rent=1600), offered(2))
    (batch,) = changed(desk, 1, mark=8, after=7)
    desk.offers[10] = offer_of(offered(1, rent=1600), offered(2, state=RENTED))
    assert withdrawn(desk, 2) + changed(desk, 2, mark=9, after=8) == []

    assert ids(desk.acknowledge(batch)[0]) == {2}


def test_a_withdrawal_that_is_consumed_again_repeats_its_batch() -> None:
    desk = introduced(offered(1))
    desk.offers[10] = offer_of(offered(1, state=RENTED))
    again = [desk.due(DueReason.WITHDRAWN, units=(1,), cause="deliveries.due:9") for _ in range(2)]

    assert again[0] == again[1]
    assert ids(again[0][0]) == {1}


def test_a_withdrawal_that_fails_stays_owed() -> None:
    desk = introduced(offered(1))
    desk.offers[10] = offer_of(offered(1, state=RENTED))
    (batch,) = withdrawn(desk, 1)
    desk.answer(batch, DeliveryResult.DEAD)

    assert desk.phase() is DeliveryPhase.OWED
    assert ids(desk.due(units=(), mark=8, after=7)[0]) == {1}


# ----------------------------------------------------------------------------------------------------------- the law


@dataclass
class World:
    """A rent roll that changes, the fold, topics, rungs and receivers; with crashes and lost answers."""

    rng: random.Random
    desk: Desk = field(default_factory=lambda: Desk(sinks=(receiver("1"),)))
    rents: dict[int, dict[int, tuple[int, bool] | None]] = field(default_factory=lambda: {10: {}, 11: {}})
    """By property and unit: the rent, and whether the unit is gone."""
    active: dict[int, bool] = field(default_factory=lambda: {10: True, 11: True})
    topics: dict[str, list[tuple[int, DeliveryDue | DeliveryOutcome]]] = field(
        default_factory=lambda: {"due": [], "outcomes": []}
    )
    """Records that are not acknowledged yet, with their offsets."""
    offsets: dict[str, int] = field(default_factory=lambda: {"due": 0, "outcomes": 0})
    batches: list[Batch] = field(default_factory=list)
    performed: set[str] = field(default_factory=set)
    rungs: list[DeliveryDue] = field(default_factory=list)
    receiver: dict[tuple[int, int], tuple[OfferedProperty, OfferedUnit]] = field(default_factory=dict)
    bodies: dict[str, Batch] = field(default_factory=dict)
    newest: dict[int, int] = field(default_factory=dict)
    taken: set[str] = field(default_factory=set)
    given_up: set[int] = field(default_factory=set)
    results: tuple[str, ...] = ("acknowledged", "waiting", "dead")
    receivers: int = 1
    """How many there were under the one name; 0: none is ever replaced or disabled."""
    was_disabled: bool = False
    marks: dict[int, int] = field(default_factory=lambda: {10: 0, 11: 0})
    """The last mark of each property in the rent roll."""
    lingering: dict[int, DeliveryDue] = field(default_factory=dict)
    """What waits for further changes, by property."""

    def write(self, topic: str, record: DeliveryDue | DeliveryOutcome) -> None:
        self.topics[topic].append((self.offsets[topic], record))
        self.offsets[topic] += 1

    def change(self) -> None:
        number = self.rng.choice([10, 10, 11])
        pick, unit = self.rng.randrange(12), 0
        if pick == 0:
            self.active[number] = not self.active[number]
        else:
            unit = self.rng.randrange(1, 4)
            if pick > 8 and unit not in self.rents[number]:
                return
                self.rents[number][unit] = (1500 + self.rng.randrange(2), pick > 8)
        units = (unit,) if unit and self.rng.random() < 0.9 else None
        self.mark_change(number, units)

    def mark_change(self, number: int, units: tuple[int, ...] | None) -> None:
        """Write what the rent roll emits for a change: sometimes merged, sometimes lost."""
        before = self.marks[number]
        self.marks[number] += self.rng.choice([1, 1, 7])
        if self.rng.random() < 0.5:
            self.write("due", due(DueReason.WITHDRAWN, property_id=number, seen_at=self.desk.now, units=units))
        changed = due(
            DueReason.CHANGED,
            property_id=number,
            seen_at=self.desk.now,
            units=units,
            mark=self.marks[number],
            after=before,
        )
        if number in self.lingering:
            changed = merge(self.lingering.pop(number), changed)
        pick = self.rng.random()
        if pick < 0.4:
            self.lingering[number] = changed
        elif pick < 0.9:
            self.write("due", changed)

    def flush(self) -> None:
        for number in list(self.lingering):
            self.write("due", self.lingering.pop(number))

    def replace(self) -> None:
        """Replace the receiver by one that holds nothing."""
        self.receivers += 1
        self.receiver = {}
        self.desk.sinks = (receiver(str(self.receivers)),)

    def toggle(self) -> None:
        """Disable the receiver, or enable it again; all properties are due then."""
        self.was_disabled = True
        if self.desk.sinks:
            self.desk.sinks = ()
        else:
            self.desk.sinks = (receiver(str(self.receivers)),)
            self.mark(set(self.rents))

    def reconcile(self) -> None:
        """Mark the properties whose row belongs to another receiver, or has not seen a mark of the rent roll."""
        self.mark({number for number in self.rents if self.desk.sinks and not self.is_considered(number)})

    def is_considered(self, number: int) -> bool:
        row = self.row(number)
        if row is None or row.receiver != self.desk.sinks[0].identity:
            return False
        return row.mark >= self.marks[number]

    def row(self, number: int) -> DeliveryRow | None:
        raw = self.desk.view.get(delivery_key("default", RENTSYNC, "buildium", number))
        return None if raw is None else decode_as(DeliveryRow, raw)

    def retry_stuck(self) -> None:
        """Retry what stays on its way for longer than anything explains, as a reconciler does.

        A crash may lose a batch whose record is consumed again while the receiver is disabled: nothing else ends that.
        """
        for number in self.rents:
            row = self.row(number)
            if self.was_disabled and row is not None and row.phase is not DeliveryPhase.IDLE:
                stuck = {"sink": RENTSYNC, "version": row.version, "attempt": row.attempt}
                self.write("due", due(DueReason.RETRY, property_id=number, **stuck))

    def mark(self, numbers: set[int]) -> None:
        for number in sorted(numbers):
            self.write("due", due(DueReason.ASKED, property_id=number, seen_at=self.desk.now, sink=RENTSYNC))

    def schedule(self) -> None:
        """Ask for a snapshot of every property, as of this moment; sometimes twice."""
        for number in sorted(self.rents) * self.rng.choice([1, 2]):
            asked = due(
                DueReason.SCHEDULED,
                property_id=number,
                seen_at=self.desk.now,
                sink=RENTSYNC,
                snapshot_at=self.desk.now,
            )
            self.write("due", asked)

    def offer(self, number: int) -> Offer:
        units = []
        for unit, held in sorted(self.rents[number].items()):
            assert held is not None
            rent, gone = held
            state = UnitState.AVAILABLE if self.active[number] else UnitState.UNAVAILABLE
            units.append(offered(unit, rent, UnitState.REMOVED if gone else state, available_on=self.desk.now.date()))
        found = offer_of(*units, number=number, active=self.active[number])
        return replace(found, mark=self.marks[number])

    def fold(self, topic: str, *, crashes: bool) -> None:
        """Fold what one fetch brought: write rows, then batches, then acknowledge; a crash may come in between."""
        waiting = self.topics[topic]
        brought = waiting[: self.rng.randrange(1, 4)]
        self.desk.offers = {number: self.offer(number) for number in self.rents}
        batches: list[tuple[Batch, bool]] = []
        for offset, record in brought:
            found = self.desk.fold(record, f"{topic}:{offset}")
            batches += [(batch, self.desk.last.verdict is Disposition.DUPLICATE) for batch in found]
        dies = crashes and self.rng.random() < 0.25
        for batch, again in batches[: self.rng.randrange(len(batches) + 1)] if dies else batches:
            self.emit(batch, again=again)
        if not dies:
            del waiting[: len(brought)]

    def emit(self, batch: Batch, *, again: bool) -> None:
        body = batch.model_copy(update={"attempt": 0, "seen_at": NOW})
        assert self.bodies.setdefault(batch.batch_id, body) == body, "one key with two bodies"
        newest = self.newest.get(batch.property.id, 0)
        if batch.version > newest and not again and not self.was_disabled:
            waiting = {
                one.batch_id for one in self.batches if (one.property.id, one.version) == (batch.property.id, newest)
            }
            assert waiting <= self.performed, "two deliveries at once"
        self.newest[batch.property.id] = max(newest, batch.version)
        self.batches.append(batch)

    def deliver(self, *, fails: bool) -> None:
        """POST the oldest batch, or the newest of its property if several wait; perhaps twice."""
        batch = self.batches[0]
        waiting = [one for one in self.batches if one.property.id == batch.property.id]
        if self.rng.random() < 0.5:
            batch = waiting[-1]
            self.batches = [one for one in self.batches if one not in waiting]
        else:
            self.batches.pop(0)
        for _ in range(2 if fails and self.rng.random() < 0.1 else 1):
            self.post(batch, self.rng.choice(self.results) if fails else "acknowledged")

    def post(self, batch: Batch, result: str) -> None:
        self.performed.add(batch.batch_id)
        if batch.receiver not in {sink.identity for sink in self.desk.sinks}:
            result = "waiting" if self.desk.sinks and self.rng.random() < 0.5 else "cancelled"
        elif (result == "acknowledged" or self.rng.random() < 0.5) and batch.batch_id not in self.taken:
            self.taken.add(batch.batch_id)
            for unit in batch.units:
                self.receiver[batch.property.id, unit.id] = (batch.property, unit)
        self.write("outcomes", outcome(batch, DeliveryResult(result), self.desk.now))
        if result == "dead":
            self.given_up.add(batch.property.id)
        if result == "waiting":
            self.rungs += [retry(batch)] * self.rng.choice([1, 1, 1, 2])

    def step(self) -> None:
        self.desk.now += timedelta(seconds=self.rng.choice([0, 0, 1, 40, -1]))
        could = [self.change, self.change, self.change, self.schedule, self.flush]
        could += [lambda: self.fold("due", crashes=True)] * 3 if self.topics["due"] else []
        could += [lambda: self.fold("outcomes", crashes=True)] * 2 if self.topics["outcomes"] else []
        could += [lambda: self.deliver(fails=True)] * 2 if self.batches else []
        could += [self.rise] if self.rungs else []
        if self.receivers:
            could += [self.replace, self.toggle, self.reconcile]
        self.rng.choice(could)()

    def rise(self) -> None:
        self.write("due", self.rungs.pop(self.rng.randrange(len(self.rungs))))

    def settle(self) -> None:
        """Let no change and no failure come any more, and mark once what was given up."""
        if not self.desk.sinks:
            self.toggle()
        self.flush()
        for _ in range(3):
            for _ in range(1000):
                if self.rungs:
                    self.rise()
                elif self.batches:
                    self.deliver(fails=False)
                elif self.topics["outcomes"]:
                    self.fold("outcomes", crashes=False)
                elif self.topics["due"]:
                    self.fold("due", crashes=False)
                else:
                    break
            self.mark(set(self.rents) if self.was_disabled else self.given_up)
            self.reconcile()
            self.retry_stuck()


@settings(max_examples=150, deadline=None)
@given(st.integers(0, 2**32), st.integers(1, 60), st.booleans(), st.booleans())
def test_once_everything_is_acknowledged_the_receiver_equals_the_rent_roll(
    seed: int, steps: int, deaths: bool, receivers: bool
) -> None:
    """Over changes, lost answers, parked and dead deliveries, replaced receivers, crashes and repeated records.

    On the way: one key never goes with two bodies, and a property has one delivery on its way at a time.
    """
    results = ("acknowledged", "waiting", "dead")[: 3 if deaths else 2]
    world = World(random.Random(seed), results=results, receivers=int(receivers))
    for _ in range(steps):
        world.step()
    world.settle()

    sent = {number for number, _ in world.receiver}
    for number in world.rents:
        found = world.offer(number)
        if not found.property.is_active and number not in sent:
            continue
        for unit in found.units:
            known = world.receiver.get((number, unit.id))
            if known is None:
                assert unit.state is UnitState.REMOVED
            else:
                quiet = {"available_on": None}
                assert known[0] == found.property
                assert known[1].model_copy(update=quiet) == unit.model_copy(update=quiet)
        if number in world.newest:
            row = world.desk.row(number)
            assert (row.phase, row.dirty_since) == (DeliveryPhase.IDLE, None)
            assert row.receiver == world.desk.sinks[0].identity
            assert not (row.introduced and found.property.is_active and owes_snapshot(row))
    by_sync = {batch.sync_id: batch.batch_id for batch in world.bodies.values()}
    assert len(by_sync) == len(world.bodies)


# -------------------------------------------------------------------------------- another configuration of a receiver


@pytest.mark.parametrize(("address", "expected"), [("here", {1, 2}), ("elsewhere", {1}), ("", {1})])
def test_the_same_receiver_with_another_configuration_learns_what_was_removed(address: str, expected: set[int]) -> None:
    """It has the unit from before; a receiver elsewhere never had it."""
    desk = Desk(sinks=(receiver(address="here"),))
    desk.acknowledge(desk.send(offered(1), offered(2)))
    desk.sinks = (receiver(SECOND, address=address),)
    batch = desk.send(offered(1), offered(2, state=UnitState.REMOVED))
    assert batch.mode is BatchMode.SNAPSHOT
    assert ids(batch) == expected
    desk.acknowledge(batch)
    assert desk.due() == []


def test_a_property_without_units_is_sent_to_the_same_receiver_once_more() -> None:
    """Also if what was sent last was never acknowledged."""
    desk = Desk(sinks=(receiver(address="here"),))
    first = desk.send(offered(1))
    desk.answer(first, DeliveryResult.DEAD, reason="exhausted")
    desk.sinks = (receiver(SECOND, address="here"),)
    batch = desk.send(offered(1, state=UnitState.REMOVED))
    assert (batch.mode, ids(batch)) == (BatchMode.SNAPSHOT, {1})


def test_another_form_of_batches_is_a_snapshot_of_everything() -> None:
    """Of what the receiver knows too, and of what it still has to learn was removed."""
    desk = Desk(sinks=(receiver(),))
    desk.acknowledge(desk.send(offered(1), offered(2), offered(3)))
    desk.sinks = (receiver(form="flat core rentstream", revision="2"),)
    batch = desk.send(offered(1), offered(2), offered(3, state=UnitState.REMOVED))
    assert (batch.mode, ids(batch), batch.form) == (BatchMode.SNAPSHOT, {1, 2, 3}, "flat core rentstream")
    desk.acknowledge(batch)
    assert desk.due() == []
    desk.sinks = (receiver(revision="3"),)
    (back,) = desk.due()
    assert (back.mode, back.form) == (BatchMode.SNAPSHOT, "")
    assert back.batch_id != batch.batch_id


def test_a_delivery_in_another_form_is_cut_again_when_it_is_cancelled() -> None:
    desk = Desk(sinks=(receiver(),))
    first = desk.send(offered(1))
    desk.sinks = (receiver(form="unit core rentstream", revision="2"),)
    (again,) = desk.answer(first, DeliveryResult.CANCELLED)
    assert again.form == "unit core rentstream"
    assert again.batch_id != first.batch_id
