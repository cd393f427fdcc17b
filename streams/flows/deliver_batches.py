"""``deliver_batches``: POSTs a batch to its receiver; the outcome goes back to who cut it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from connectors.ports import Accepted, Clock, Failure, ListingSink
from schemas import topics
from schemas.codec import decode_as
from schemas.delivery import Batch, DeliveryDue, DeliveryOutcome, DeliveryResult, DueReason
from streams.core.breaker import Breakers, Integration
from streams.core.flows import Emit, Record
from streams.core.observer import Observer
from streams.core.retry import (
    Dead,
    Done,
    Held,
    Ladder,
    Outcome,
    Parked,
    Reason,
    first_failed_at,
    outcome_of,
    outcome_of_hold,
)


@dataclass(frozen=True, slots=True)
class DeliverBatches:
    """One POST. What waits on a rung afterwards is the wish to deliver, never this batch: it is cut anew."""

    sinks: Mapping[str, ListingSink]
    rungs: Ladder
    clock: Clock
    observer: Observer
    breakers: Breakers

    def key(self, record: Record) -> tuple[str, str, str, int]:
        """Return the property at its receiver: its batches keep their order. Raise `schemas.codec.DecodeError`."""
        batch = decode_as(Batch, record.value)
        return batch.org, batch.sink, batch.connection, batch.property.id

    async def perform(self, records: Sequence[Record]) -> Outcome:
        """POST the newest batch of those that wait; an older one of the same property is void."""
        batch = decode_as(Batch, records[-1].value)
        sink = self.sinks.get(batch.sink)
        if sink is None:
            detail = f"no receiver is called {batch.sink} (any more)"
            return Dead(Reason.MISSING, detail, effects=(self._outcome(batch, DeliveryResult.DEAD, None, detail),))
        integration, now = Integration(batch.org, batch.sink), self.clock.now()
        if held := self.breakers.hold(integration, now):
            return self._failed(batch, held, None, first_failed_at(records[-1]))
        answer = await sink.deliver(batch)
        held = self.breakers.ended(integration, (batch.connection, batch.property.id), answer, self.clock.now())
        self.observer.delivery_answered(batch, answer)
        if isinstance(answer, Accepted):
            return Done((self._outcome(batch, DeliveryResult.ACKNOWLEDGED, answer.status, None),))
        return self._failed(batch, held or answer, answer.status, first_failed_at(records[-1]))

    def _failed(self, batch: Batch, why: Failure | Held, status: int | None, first: int | None) -> Outcome:
        """Return what follows when a batch was not delivered; ``first``: when its delivery first failed."""
        now, held = self.clock.now(), isinstance(why, Held)
        if isinstance(why, Held):
            follows = outcome_of_hold(why, batch.attempt, first, now, self.rungs)
        else:
            follows = outcome_of(why, batch.attempt, now, self.rungs)
        if isinstance(follows, Parked):
            outcome = self._outcome(batch, DeliveryResult.WAITING, status, why.detail)
            return replace(follows, effects=(outcome,), instead=self._again(batch, held=held))
        return replace(follows, effects=(self._outcome(batch, DeliveryResult.DEAD, status, why.detail),))

    def _outcome(self, batch: Batch, result: DeliveryResult, status: int | None, detail: str | None) -> Emit:
        outcome = DeliveryOutcome(
            org=batch.org,
            connection=batch.connection,
            sink=batch.sink,
            property_id=batch.property.id,
            version=batch.version,
            result=result,
            attempt=batch.attempt,
            at=self.clock.now(),
            status=status,
            detail=detail,
        )
        return Emit(topics.OUTCOMES, batch.org, outcome)

    def _again(self, batch: Batch, *, held: bool) -> Emit:
        due = DeliveryDue(
            org=batch.org,
            connection=batch.connection,
            property_id=batch.property.id,
            reason=DueReason.RETRY,
            seen_at=batch.seen_at,
            sink=batch.sink,
            version=batch.version,
            attempt=batch.attempt,
            held=held,
        )
        return Emit(topics.DUE, batch.org, due)
