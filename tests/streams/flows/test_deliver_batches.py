"""What follows from a receiver's answer, and from a receiver that does not answer."""

from datetime import UTC, datetime, timedelta

import pytest

from connectors.ports import Accepted, Failure, Rejected, Unavailable
from schemas import retry as header
from schemas import topics
from schemas.codec import encode
from schemas.delivery import Batch, BatchMode, DeliveryDue, DeliveryOutcome, DeliveryResult, DueReason, OfferedProperty
from streams.backends.memory import MovableClock
from streams.backends.ports import ConsumedRecord
from streams.core.breaker import FAILURES, Breakers
from streams.core.flows import Headers
from streams.core.observer import NullObserver
from streams.core.retry import Dead, Done, Outcome, Parked, Reason, ladder, milliseconds
from streams.flows.deliver_batches import DeliverBatches

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
DOWN = Unavailable("down", 503)


class Receiver:
    """Answers as the test wants."""

    name = "rentsync"

    def __init__(self) -> None:
        self.answer: Accepted | Failure = DOWN
        self.calls = 0

    async def deliver(self, batch: Batch) -> Accepted | Failure:
        self.calls += 1
        return self.answer

    async def aclose(self) -> None: ...


class Desk:
    """The flow with its receiver and a clock."""

    def __init__(self) -> None:
        self.clock = MovableClock(NOW)
        self.receiver = Receiver()
        self.flow = DeliverBatches(
            {"rentsync": self.receiver}, ladder("1m,2m,5m"), self.clock, NullObserver(), Breakers(NullObserver())
        )

    async def deliver(self, number: int = 1, attempt: int = 1, headers: Headers = ()) -> Outcome:
        found = await self.flow.perform([record(number, attempt, headers)])
        (effect,) = found.effects
        assert isinstance(effect.record, DeliveryOutcome)
        assert effect.record.attempt == attempt
        self.outcome = effect.record
        return found

    async def break_down(self) -> None:
        """Let the breaker open."""
        for number in range(FAILURES):
            await self.deliver(number)


def record(number: int, attempt: int, headers: Headers = ()) -> ConsumedRecord:
    batch = Batch(
        org="org",
        connection="buildium",
        sink="rentsync",
        batch_id="b",
        sync_id="s",
        cut_at=NOW,
        seen_at=NOW,
        version=4,
        attempt=attempt,
        mode=BatchMode.SNAPSHOT,
        property=OfferedProperty(id=number, name="Sunset Apartments", address="1 Main St", is_active=True),
        units=(),
    )
    return ConsumedRecord(topics.BATCHES.name, 0, 0, 0, b"org", encode(batch), headers)


def wish(parked: Outcome) -> DeliveryDue:
    assert isinstance(parked, Parked)
    assert parked.instead is not None
    assert parked.instead.topic is topics.DUE
    assert isinstance(parked.instead.record, DeliveryDue)
    return parked.instead.record


async def test_an_attempt_that_failed_waits_for_the_next_one() -> None:
    desk = Desk()
    found = await desk.deliver(attempt=2)

    assert (desk.outcome.result, desk.outcome.status) == (DeliveryResult.WAITING, 503)
    assert isinstance(found, Parked)
    assert (found.rung.delay, found.attempt, found.reason) == ("2m", 2, Reason.UNAVAILABLE)
    due = wish(found)
    assert (due.reason, due.version, due.attempt, due.held) == (DueReason.RETRY, 4, 2, False)


async def test_while_the_breaker_is_open_nothing_is_called_and_the_attempt_is_still_to_come() -> None:
    desk = Desk()
    await desk.break_down()
    found = await desk.deliver(9, attempt=4)

    assert desk.receiver.calls == FAILURES
    assert (desk.outcome.result, desk.outcome.status) == (DeliveryResult.WAITING, None)
    assert isinstance(found, Parked)
    assert (found.rung.delay, found.attempt, found.reason) == ("1m", 3, Reason.CIRCUIT_OPEN)
    assert (wish(found).attempt, wish(found).held) == (4, True)


async def test_a_trial_that_fails_is_a_hold_and_one_that_succeeds_closes() -> None:
    desk = Desk()
    await desk.break_down()
    await desk.clock.advance(30)
    failed = await desk.deliver(9, attempt=4)
    status = desk.outcome.status
    await desk.clock.advance(60)
    desk.receiver.answer = Accepted(200)
    done = [await desk.deliver(number) for number in (9, 1)]

    assert (wish(failed).attempt, wish(failed).held, status) == (4, True, 503)
    assert all(isinstance(one, Done) for one in done)
    assert desk.outcome.result is DeliveryResult.ACKNOWLEDGED
    assert desk.receiver.calls == FAILURES + 3


async def test_a_delivery_that_was_held_for_a_day_is_given_up_and_says_so() -> None:
    desk = Desk()
    await desk.break_down()
    first = milliseconds(NOW - timedelta(hours=24))
    found = await desk.deliver(9, headers=((header.FIRST_FAILED_AT, b"%d" % first),))

    assert isinstance(found, Dead)
    assert (found.reason, found.attempt) == (Reason.CIRCUIT_OPEN, 0)
    assert desk.outcome.result is DeliveryResult.DEAD


@pytest.mark.parametrize(("attempt", "reason"), [(1, Reason.REJECTED), (4, Reason.EXHAUSTED)])
async def test_what_no_other_attempt_can_mend_is_dead(attempt: int, reason: Reason) -> None:
    desk = Desk()
    desk.receiver.answer = Rejected("no such unit", 422) if reason is Reason.REJECTED else DOWN
    found = await desk.deliver(attempt=attempt)

    assert isinstance(found, Dead)
    assert found.reason is reason
    assert desk.outcome.result is DeliveryResult.DEAD
