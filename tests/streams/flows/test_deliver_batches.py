"""What follows from a receiver's answer, and from a receiver that does not answer or cannot be called."""

from datetime import timedelta

import pytest

from connectors.ports import Accepted, Rejected, Throttled
from schemas import topics
from schemas.base import Model
from schemas.delivery import Batch, BatchMode, DeliveryDue, DeliveryOutcome, DeliveryResult, DueReason, OfferedProperty
from schemas.integrations import Integration
from streams.backends.ports import ConsumedRecord
from streams.core.breaker import FAILURES, Breakers
from streams.core.flows import Disposition, Emit, Headers
from streams.core.observer import NullObserver
from streams.core.retry import Dead, Done, Held, Outcome, Parked, Reason, ladder, milliseconds
from streams.flows.deliver_batches import DeliverBatches
from tests.streams.directory.records import AT, sealed
from tests.streams.flows.parts import (
    CONNECTION,
    DOWN,
    NOW,
    ORG,
    RECEIVER,
    Site,
    account,
    consumed,
    dead,
    parked,
    receiver,
)

LATER = AT + timedelta(hours=1)
ELSEWHERE = "https://elsewhere.example"


class Desk:
    """The flow with a receiver that a test plays."""

    def __init__(self) -> None:
        self.site = Site(account(), receiver())
        self.clock = self.site.clock
        self.receiver = self.site.receiver()
        self.receiver.answer = DOWN
        observer = NullObserver()
        self.flow = DeliverBatches(
            self.site.directory, self.site.clients, ladder("1m,2m,5m"), self.clock, observer, Breakers(observer)
        )
        self.cut_for()

    def cut_for(self) -> None:
        """Let the next batches be cut for the receiver as the process knows it now."""
        (policy,) = self.site.directory.sinks(ORG)
        self.identity, self.configured_at = policy.identity, policy.changed_at

    def record(
        self, number: int = 1, attempt: int = 1, headers: Headers = (), dead_letter: str | None = None
    ) -> ConsumedRecord:
        batch = Batch(
            org=ORG,
            connection=CONNECTION,
            sink=RECEIVER,
            receiver=self.identity,
            configured_at=self.configured_at,
            batch_id="b",
            sync_id="s",
            cut_at=NOW,
            seen_at=NOW,
            version=4,
            attempt=attempt,
            mode=BatchMode.SNAPSHOT,
            property=OfferedProperty(id=number, name="Sunset Apartments", address="1 Main St", is_active=True),
            units=(),
            dead_letter=dead_letter,
        )
        return consumed(topics.BATCHES.name, batch, headers)

    async def deliver(self, number: int = 1, attempt: int = 1, headers: Headers = ()) -> Outcome:
        found = await self.flow.perform([self.record(number, attempt, headers)])
        (effect,) = found.effects
        assert isinstance(effect.record, DeliveryOutcome)
        assert (effect.topic, effect.record.sink, effect.record.attempt) == (topics.OUTCOMES, RECEIVER, attempt)
        self.outcome = effect.record
        return found

    async def cancel(self) -> str:
        """Expect that a batch is void and not sent; return the reason."""
        before = len(self.receiver.batches)
        found = await self.deliver(attempt=3)
        assert found == Done((Emit(topics.OUTCOMES, ORG, self.outcome),), ending=Disposition.IGNORED)
        assert (self.outcome.result, self.outcome.status) == (DeliveryResult.CANCELLED, None)
        assert len(self.receiver.batches) == before
        return str(self.outcome.detail)

    async def hold(self) -> Parked:
        """Expect that a batch is not sent, and that its delivery is decided again without using up an attempt."""
        before = len(self.receiver.batches)
        found = parked(await self.deliver(attempt=3))
        assert (self.outcome.result, self.outcome.status) == (DeliveryResult.WAITING, None)
        assert (wish(found).attempt, wish(found).held, found.attempt) == (3, True, 2)
        assert len(self.receiver.batches) == before
        return found

    async def break_down(self) -> None:
        """Let the breaker open."""
        for number in range(FAILURES):
            await self.deliver(number)


def wish(found: Parked) -> DeliveryDue:
    """Return the request that waits in the place of the batch."""
    assert found.instead is not None
    assert found.instead.topic is topics.DUE
    record: Model = found.instead.record
    assert isinstance(record, DeliveryDue)
    assert (record.reason, record.sink, record.version) == (DueReason.RETRY, RECEIVER, 4)
    return record


async def test_an_attempt_that_failed_waits_for_the_next_one() -> None:
    desk = Desk()
    found = parked(await desk.deliver(attempt=2))

    assert (desk.outcome.result, desk.outcome.status) == (DeliveryResult.WAITING, 503)
    assert (found.rung.delay, found.attempt, found.reason) == ("2m", 2, Reason.UNAVAILABLE)
    assert (wish(found).attempt, wish(found).held) == (2, False)


async def test_while_the_breaker_is_open_nothing_is_called_and_the_attempt_is_still_to_come() -> None:
    desk = Desk()
    await desk.break_down()
    found = parked(await desk.deliver(9, attempt=4))

    assert len(desk.receiver.batches) == FAILURES
    assert (desk.outcome.result, desk.outcome.status) == (DeliveryResult.WAITING, None)
    assert (found.rung.delay, found.attempt, found.reason) == ("1m", 3, Reason.CIRCUIT_OPEN)
    assert (wish(found).attempt, wish(found).held) == (4, True)


async def test_a_trial_that_fails_is_a_hold_and_one_that_succeeds_closes() -> None:
    desk = Desk()
    await desk.break_down()
    await desk.clock.advance(30)
    failed = parked(await desk.deliver(9, attempt=4))
    status = desk.outcome.status
    await desk.clock.advance(60)
    desk.receiver.answer = Accepted(200)
    done = [await desk.deliver(number) for number in (9, 1)]

    assert (wish(failed).attempt, wish(failed).held, status) == (4, True, 503)
    assert all(isinstance(one, Done) for one in done)
    assert desk.outcome.result is DeliveryResult.ACKNOWLEDGED
    assert len(desk.receiver.batches) == FAILURES + 3


async def test_another_version_of_the_configuration_begins_with_a_closed_breaker() -> None:
    """A person may have corrected what kept the receiver from answering."""
    desk = Desk()
    await desk.break_down()
    desk.receiver.answer = Accepted(200)
    desk.site.put(receiver(version=2, secrets=(sealed(ORG, RECEIVER, "apiKey", "another"),)))

    assert isinstance(await desk.deliver(9), Done)
    assert desk.outcome.result is DeliveryResult.ACKNOWLEDGED


async def test_a_delivery_that_was_held_for_a_day_is_given_up_with_an_outcome() -> None:
    desk = Desk()
    await desk.break_down()
    first = milliseconds(NOW - timedelta(hours=24))
    found = dead(await desk.deliver(9, headers=(("rent-first-failed-at", b"%d" % first),)))

    assert (found.reason, found.attempt) == (Reason.CIRCUIT_OPEN, 0)
    assert desk.outcome.result is DeliveryResult.DEAD


@pytest.mark.parametrize(("attempt", "reason"), [(1, Reason.REJECTED), (4, Reason.EXHAUSTED)])
async def test_what_no_other_attempt_can_mend_is_dead(attempt: int, reason: Reason) -> None:
    desk = Desk()
    desk.receiver.answer = Rejected("no such unit", 422) if reason is Reason.REJECTED else DOWN
    found = dead(await desk.deliver(attempt=attempt))

    assert found.reason is reason
    assert desk.outcome.result is DeliveryResult.DEAD


async def test_an_outcome_says_why_and_until_when() -> None:
    desk = Desk()
    found = parked(await desk.deliver(attempt=2))
    waiting = desk.outcome
    dead(await desk.deliver(attempt=4))

    assert (waiting.reason, desk.outcome.reason) == ("unavailable", "exhausted")
    assert waiting.due_at is not None
    assert (milliseconds(waiting.due_at), desk.outcome.due_at) == (found.due_at, None)


async def test_what_people_have_a_dead_letter_of_needs_no_other_for_the_same_reason() -> None:
    """The delivery is owed as before."""
    desk = Desk()
    found = await desk.flow.perform([desk.record(attempt=4, dead_letter="exhausted")])
    (effect,) = found.effects
    desk.receiver.answer = Rejected("no such unit", 422)
    other = await desk.flow.perform([desk.record(attempt=4, dead_letter="exhausted")])

    assert isinstance(found, Done)
    assert isinstance(effect.record, DeliveryOutcome)
    assert (effect.record.result, effect.record.reason) == (DeliveryResult.DEAD, "exhausted")
    assert dead(other).reason is Reason.REJECTED


async def test_a_receiver_that_asks_for_a_pause_is_left_alone() -> None:
    """For all of its properties, and without using up an attempt."""
    desk = Desk()
    desk.receiver.answer = Throttled("slow down", 3600)
    first = parked(await desk.deliver(1, attempt=3))
    await desk.clock.advance(3599)
    desk.receiver.answer = Accepted(200)
    second = parked(await desk.deliver(2, attempt=1))
    calls = len(desk.receiver.batches)
    await desk.clock.advance(1)
    await desk.deliver(1, attempt=3)

    assert (first.reason, first.attempt, wish(first).held) == (Reason.THROTTLED, 2, True)
    assert (second.reason, second.attempt, wish(second).held) == (Reason.CIRCUIT_OPEN, 0, True)
    assert calls == 1
    assert desk.outcome.result is DeliveryResult.ACKNOWLEDGED


def test_a_batch_that_the_runner_gives_up_has_an_outcome() -> None:
    """Whatever was raised, so that no row waits for an outcome that never comes."""
    desk = Desk()
    found = desk.flow.unfinished(desk.record(attempt=2), Dead(Reason.BUG, "ValueError"))
    (effect,) = found.effects

    assert dead(found).reason is Reason.BUG
    assert isinstance(effect.record, DeliveryOutcome)
    assert (effect.record.result, effect.record.attempt, effect.record.reason) == (DeliveryResult.DEAD, 2, "bug")


def test_a_batch_that_the_runner_holds_is_cut_again_later() -> None:
    """It is the request that waits: by then the batch may be outdated."""
    desk = Desk()
    found = parked(desk.flow.unfinished(desk.record(attempt=2), Held(Reason.BUG, "ValueError")))
    (effect,) = found.effects

    assert (wish(found).attempt, wish(found).held) == (2, True)
    assert isinstance(effect.record, DeliveryOutcome)
    assert effect.record.result is DeliveryResult.WAITING


async def test_of_several_batches_of_a_property_the_newest_is_sent() -> None:
    desk = Desk()
    desk.receiver.answer = Accepted(201)
    older, newest = desk.record(attempt=1), desk.record(attempt=2)
    (effect,) = (await desk.flow.perform([older, newest])).effects

    assert [one.attempt for one in desk.receiver.batches] == [2]
    assert isinstance(effect.record, DeliveryOutcome)
    assert (effect.record.result, effect.record.status) == (DeliveryResult.ACKNOWLEDGED, 201)
    assert desk.flow.key(newest) == (ORG, RECEIVER, CONNECTION, 1)


# ---------------------------------------------------------------------------------- another configuration than it had


async def test_a_batch_for_a_receiver_that_is_disabled_is_cancelled() -> None:
    desk = Desk()
    desk.site.put(receiver(enabled=False))

    assert await desk.cancel() == "default/rentsync is disabled: enable it to go on"


async def test_a_batch_for_a_receiver_that_is_deleted_is_cancelled() -> None:
    desk = Desk()
    desk.site.delete(RECEIVER)

    assert "has no integration rentsync (any more)" in await desk.cancel()


@pytest.mark.parametrize(
    "replacement",
    [
        receiver(url=ELSEWHERE, changed_at=LATER, version=2),
        receiver(created_at=LATER, changed_at=LATER),
        receiver(form="flat", changed_at=LATER, version=2),
    ],
    ids=["another address", "deleted and created again", "another form"],
)
async def test_a_batch_that_was_cut_before_the_receiver_was_replaced_is_cancelled(replacement: Integration) -> None:
    """What the former receiver was to get is not sent to its successor."""
    desk = Desk()
    desk.site.put(replacement)

    assert await desk.cancel() == "the receiver, or the form of its batches, was changed after the batch was cut"


async def test_a_batch_of_a_newer_configuration_than_this_process_knows_is_held() -> None:
    """Until this process has read the change: the batch is decided again, and neither lost nor sent elsewhere."""
    desk = Desk()
    newer = receiver(url=ELSEWHERE, changed_at=LATER, version=2)
    desk.site.put(newer)
    desk.cut_for()
    desk.site.put(receiver())
    found = await desk.hold()
    desk.site.put(newer)
    desk.receiver.answer = Accepted(200)
    await desk.deliver()

    assert (found.rung.delay, found.reason) == ("1m", Reason.INTEGRATION_PROBLEM)
    assert desk.outcome.detail is None
    assert desk.outcome.result is DeliveryResult.ACKNOWLEDGED


async def test_a_batch_for_a_receiver_whose_key_is_lost_is_held() -> None:
    """Once the key is back, it is sent."""
    desk = Desk()
    desk.site.put(receiver(key="k9"))
    found = await desk.hold()
    detail = desk.outcome.detail
    desk.site.put(receiver())
    desk.receiver.answer = Accepted(200)
    await desk.deliver()

    assert found.reason is Reason.INTEGRATION_PROBLEM
    assert "put the key with the id k9 back" in str(detail)
    assert desk.outcome.result is DeliveryResult.ACKNOWLEDGED


async def test_a_change_that_leaves_the_receiver_the_same_sends_what_was_cut_before() -> None:
    """Another key of the API, other switches: what was cut is still for this receiver."""
    desk = Desk()
    desk.receiver.answer = Accepted(200)
    desk.site.put(
        receiver(
            secrets=(sealed(ORG, RECEIVER, "apiKey", "another"),), properties_off=(7,), changed_at=LATER, version=2
        )
    )
    await desk.deliver()

    assert desk.outcome.result is DeliveryResult.ACKNOWLEDGED
    assert [one.receiver for one in desk.receiver.batches] == [desk.identity]
