"""What the step of the egress agent adds to `streams.core.delivery`: who gets which properties, and on which day."""

from datetime import date, timedelta

from schemas import topics
from schemas.base import EntityKind, Model
from schemas.delivery import (
    Batch,
    BatchMode,
    DeliveryDue,
    DeliveryOutcome,
    DeliveryResult,
    DueReason,
    UnitState,
)
from schemas.integrations import Integration
from schemas.rent_roll import MoveOut, SweptRow
from streams.core.dates import passed
from streams.core.flows import Disposition, Emit, FoldResult, Headers
from streams.core.rows import Rows
from streams.flows.emit_batches import EmitBatches
from streams.topology import RENT_ROLL
from tests.streams.core.rent_roll.rolls import fold, lease, page, swept
from tests.streams.core.views import MemoryView
from tests.streams.flows.parts import CONNECTION, NOW, ORG, RECEIVER, Site, account, consumed, receiver

SINCE: Headers = (("rent-first-failed-at", b"1772366400001"),)


class Desk:
    """The step over a table in memory, and a rent roll with one property."""

    def __init__(self, *integrations: Integration) -> None:
        self.site = Site(*(integrations or (account(), receiver())))
        self.flow = EmitBatches(self.site.directory)
        self.roll, self.rows, self.offset, self.now = swept(), MemoryView(), 0, NOW

    def fold(self, record: Model, headers: Headers = ()) -> FoldResult:
        self.offset += 1
        rows = Rows(self.rows)
        taken = consumed(topics.DUE.name, record, headers, offset=self.offset)
        result = self.flow.step(rows, {RENT_ROLL: self.roll}, record, taken, self.now)
        self.rows.take(rows)
        return result

    def step(self, record: DeliveryDue | DeliveryOutcome, headers: Headers = ()) -> list[Emit]:
        return self.fold(record, headers).emits

    def due(self, reason: DueReason = DueReason.CHANGED) -> list[Batch]:
        return batches_of(self.step(due(reason)))

    def answer(self, batch: Batch, result: DeliveryResult = DeliveryResult.ACKNOWLEDGED) -> list[Batch]:
        outcome = DeliveryOutcome(
            org=ORG,
            connection=CONNECTION,
            sink=batch.sink,
            property_id=batch.property.id,
            version=batch.version,
            result=result,
            attempt=batch.attempt,
            at=self.now,
        )
        return batches_of(self.step(outcome))

    def wait(self, batch: Batch, *, held: bool) -> list[Emit]:
        """Let a delivery wait on a rung, and come back."""
        self.answer(batch, DeliveryResult.WAITING)
        retry = due(DueReason.RETRY).model_copy(
            update={"sink": batch.sink, "version": batch.version, "attempt": batch.attempt, "held": held}
        )
        return self.step(retry, (("trace", b"x"), *SINCE))

    def passed_days(self) -> list[int]:
        """Return on which of the next days a unit is in the index, counted from `NOW`."""
        today = NOW.date()
        return [on for on in range(7) if [*passed(self.rows, ORG, CONNECTION, today + timedelta(days=on))]]


def due(reason: DueReason) -> DeliveryDue:
    return DeliveryDue(org=ORG, connection=CONNECTION, property_id=10, reason=reason, seen_at=NOW)


def batches_of(emits: list[Emit]) -> list[Batch]:
    return [emit.record for emit in emits if isinstance(emit.record, Batch)]


def batch_of(emits: list[Emit]) -> Batch:
    (batch,) = batches_of(emits)
    return batch


def states(batch: Batch) -> dict[int, UnitState]:
    return {one.id: one.state for one in batch.units}


# ----------------------------------------------------------------------------------------------------------- retries


def test_what_comes_back_from_a_rung_keeps_when_it_first_failed() -> None:
    """So that a delivery that is held again and again has a way out, although each attempt is a new cut."""
    desk = Desk()
    first = desk.step(due(DueReason.CHANGED), SINCE)
    again = desk.wait(batch_of(first), held=False)

    assert [emit.headers for emit in (*first, *again)] == [(), SINCE]


def test_a_hold_uses_up_no_attempt_of_a_delivery() -> None:
    desk = Desk()
    (batch,) = desk.due()
    attempts = []
    for held in (True, True, False, True):
        batch = batch_of(desk.wait(batch, held=held))
        attempts.append(batch.attempt)

    assert attempts == [1, 1, 2, 2]


def test_a_record_of_another_kind_is_ignored() -> None:
    assert Desk().fold(SweptRow(seq=1)) == FoldResult(Disposition.IGNORED)


# ----------------------------------------------------------------------------------------------------------- switches


def test_a_property_that_is_excluded_is_offered_as_inactive_once() -> None:
    """As one that became inactive: its units are not listed any more. Included again, all of it is sent."""
    desk = Desk()
    (first,) = desk.due()
    desk.answer(first)
    desk.site.put(receiver(properties_off=(10,), version=2))
    (last,) = desk.due(DueReason.RECONFIGURED)
    desk.answer(last)
    again = desk.due(DueReason.RECONFIGURED) + desk.due(DueReason.SCHEDULED)
    desk.site.put(receiver(version=3))
    (back,) = desk.due(DueReason.RECONFIGURED)

    assert first.property.is_active
    assert states(first) == {1: UnitState.AVAILABLE}
    assert (last.mode, last.property.is_active, states(last)) == (BatchMode.DELTA, False, {1: UnitState.UNAVAILABLE})
    assert again == []
    assert (back.property.is_active, states(back)) == (True, {1: UnitState.AVAILABLE})


def test_a_property_that_was_always_excluded_is_never_sent() -> None:
    desk = Desk(account(), receiver(properties_default=False, properties_on=(11,)))

    assert desk.due() == []


def test_a_connection_has_switches_of_its_own() -> None:
    """They hold for every receiver."""
    desk = Desk(account(), receiver(), receiver(name="other"))
    for batch in desk.due():
        desk.answer(batch)
    desk.site.put(account(properties_off=(10,), version=2))

    assert [(one.sink, one.property.is_active) for one in desk.due()] == [("other", False), (RECEIVER, False)]


def test_each_receiver_gets_the_properties_that_its_own_switches_include() -> None:
    desk = Desk(account(), receiver(), receiver(name="other", properties_off=(10,)))
    (batch,) = desk.due()
    desk.answer(batch)
    desk.site.put(receiver(properties_off=(10,)), receiver(name="other"))
    swapped = {one.sink: one for one in desk.due()}

    assert batch.sink == RECEIVER
    assert {name: one.property.is_active for name, one in swapped.items()} == {RECEIVER: False, "other": True}
    assert swapped["other"].mode is BatchMode.SNAPSHOT


# --------------------------------------------------------------------------------------------- receivers, connections


def test_nothing_is_cut_for_a_receiver_that_is_disabled_and_all_of_it_once_it_is_enabled() -> None:
    desk = Desk(account(), receiver(enabled=False))
    nothing = desk.due()
    desk.site.put(receiver(version=2))
    (batch,) = desk.due(DueReason.RECONFIGURED)

    assert nothing == []
    assert (batch.mode, states(batch)) == (BatchMode.SNAPSHOT, {1: UnitState.AVAILABLE})


def test_a_batch_names_the_receiver_that_it_was_cut_for_and_its_configuration() -> None:
    desk = Desk()
    (policy,) = desk.site.directory.sinks(ORG)
    (batch,) = desk.due()
    desk.answer(batch)
    changed_at = NOW + timedelta(hours=1)
    desk.site.put(receiver(url="https://elsewhere.example", changed_at=changed_at, version=2))
    (other,) = desk.due(DueReason.RECONFIGURED)

    assert (batch.receiver, batch.configured_at) == (policy.identity, policy.changed_at)
    assert (other.receiver, other.configured_at) == (desk.site.directory.sinks(ORG)[0].identity, changed_at)
    assert other.receiver != batch.receiver
    assert other.mode is BatchMode.SNAPSHOT


def test_nothing_is_cut_of_a_connection_that_is_deleted() -> None:
    """Nor of one whose first sweep is not complete."""
    desk = Desk()
    desk.site.delete(CONNECTION)
    deleted = desk.due()
    desk.site.put(account())
    desk.roll = MemoryView()

    assert deleted == desk.due() == []


def test_availability_is_that_of_the_day_at_the_connection() -> None:
    def offered(timezone: str) -> list[object]:
        (batch,) = Desk(account(timezone=timezone), receiver()).due()
        return [one.available_on for one in batch.units]

    assert offered("UTC") == [NOW.date()]
    assert offered("Pacific/Kiritimati") == [NOW.date() + timedelta(days=1)]


def test_a_unit_is_available_after_the_days_that_the_connection_needs_between_two_tenants() -> None:
    def offered(days: int) -> list[object]:
        desk = Desk(account(days=days), receiver())
        fold(desk.roll, page(EntityKind.LEASE, 20, lease(ends_on=date(2026, 3, 10), ends_by_itself=True)))
        (batch,) = desk.due()
        return [one.available_on for one in batch.units]

    assert offered(0) == [date(2026, 3, 11)]
    assert offered(5) == [date(2026, 3, 16)]


def test_a_cut_notes_the_next_day_of_each_unit() -> None:
    """So that `mark_date_changes` finds it; after that day the next one follows."""
    desk = Desk()
    leaves = lease(move_outs=(MoveOut(tenant_id=7, on=NOW.date() + timedelta(days=3)),))
    fold(desk.roll, page(EntityKind.LEASE, 50, leaves))
    (batch,) = desk.due()
    desk.answer(batch)
    before = desk.passed_days()
    desk.now = NOW + timedelta(days=4)
    (following,) = desk.due(DueReason.DATE_PASSED)

    assert (states(batch), states(following)) == ({1: UnitState.AVAILABLE}, {1: UnitState.AVAILABLE})
    assert (before, desk.passed_days()) == ([4, 5, 6], [])
