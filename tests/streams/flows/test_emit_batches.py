"""What the step of the egress agent adds to `streams.core.delivery`."""

from datetime import UTC, date, datetime

from schemas import retry as header
from schemas import topics
from schemas.codec import encode
from schemas.delivery import Batch, DeliveryDue, DeliveryOutcome, DeliveryResult, DueReason
from streams.backends.ports import ConsumedRecord
from streams.core.flows import Emit, Headers
from streams.core.rows import Rows
from streams.flows.emit_batches import EmitBatches
from streams.topology import RENT_ROLL
from tests.streams.core.test_rent_roll import swept
from tests.streams.core.views import MemoryView

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
SINCE: Headers = ((header.FIRST_FAILED_AT, b"1772366400001"),)


class Desk:
    """The step over a table in memory, and a roll with one property."""

    def __init__(self) -> None:
        self.flow = EmitBatches(("rentsync",), lambda _org, _connection, _now: date(2026, 3, 1))
        self.roll, self.rows, self.offset = swept(), MemoryView(), 0

    def step(self, record: DeliveryDue | DeliveryOutcome, headers: Headers = ()) -> list[Emit]:
        self.offset += 1
        consumed = ConsumedRecord(topics.DUE.name, 0, self.offset, 0, b"default", encode(record), headers)
        rows = Rows(self.rows)
        applied = self.flow.step(rows, {RENT_ROLL: self.roll}, record, consumed, NOW)
        self.rows.take(rows)
        return applied.emits

    def wait(self, batch: Batch, *, held: bool) -> list[Emit]:
        """Let a delivery wait on a rung, and come back."""
        outcome = DeliveryOutcome(
            org="default",
            connection="buildium",
            sink="rentsync",
            property_id=10,
            version=batch.version,
            result=DeliveryResult.WAITING,
            attempt=batch.attempt,
            at=NOW,
        )
        retry = due(DueReason.RETRY).model_copy(
            update={"sink": "rentsync", "version": batch.version, "attempt": batch.attempt, "held": held}
        )
        self.step(outcome)
        return self.step(retry, (("trace", b"x"), *SINCE))


def due(reason: DueReason) -> DeliveryDue:
    return DeliveryDue(org="default", connection="buildium", property_id=10, reason=reason, seen_at=NOW)


def batch_of(emits: list[Emit]) -> Batch:
    (emit,) = emits
    assert isinstance(emit.record, Batch)
    return emit.record


def test_what_comes_back_from_a_rung_keeps_when_it_first_failed() -> None:
    """So that a delivery that is held again and again has a way out, although each attempt is a new cut."""
    desk = Desk()
    first = desk.step(due(DueReason.CHANGED), SINCE)
    again = desk.wait(batch_of(first), held=False)

    assert [emit.headers for emit in (*first, *again)] == [(), SINCE]


def test_a_hold_uses_up_no_attempt_of_a_delivery() -> None:
    desk = Desk()
    batch = batch_of(desk.step(due(DueReason.CHANGED)))
    attempts = []
    for held in (True, True, False, True):
        batch = batch_of(desk.wait(batch, held=held))
        attempts.append(batch.attempt)

    assert attempts == [1, 1, 2, 2]
