"""``deliver_batches``: POSTs a batch to its receiver; the outcome goes back to who cut it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from connectors.ports import Accepted, Clock, ListingSink
from schemas import topics
from schemas.codec import decode_as
from schemas.delivery import Batch, DeliveryDue, DeliveryOutcome, DeliveryResult, DueReason
from streams.core.flows import Emit, Record
from streams.core.observer import Observer
from streams.core.retry import Dead, Done, Ladder, Outcome, Parked, Reason, outcome_of


@dataclass(frozen=True, slots=True)
class DeliverBatches:
    """One POST. What waits on a rung afterwards is the wish to deliver, never this batch: it is cut anew."""

    sinks: Mapping[str, ListingSink]
    rungs: Ladder
    clock: Clock
    observer: Observer

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
        answer = await sink.deliver(batch)
        self.observer.delivery_answered(batch, answer)
        if isinstance(answer, Accepted):
            return Done((self._outcome(batch, DeliveryResult.ACKNOWLEDGED, answer.status, None),))
        follows = outcome_of(answer, batch.attempt, self.clock.now(), self.rungs)
        result = DeliveryResult.WAITING if isinstance(follows, Parked) else DeliveryResult.DEAD
        outcome = self._outcome(batch, result, answer.status, answer.detail)
        if isinstance(follows, Parked):
            return replace(follows, effects=(outcome,), instead=self._again(batch))
        assert isinstance(follows, Dead)
        return replace(follows, effects=(outcome,))

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

    def _again(self, batch: Batch) -> Emit:
        due = DeliveryDue(
            org=batch.org,
            connection=batch.connection,
            property_id=batch.property.id,
            reason=DueReason.RETRY,
            seen_at=batch.seen_at,
            sink=batch.sink,
            version=batch.version,
            attempt=batch.attempt,
        )
        return Emit(topics.DUE, batch.org, due)
