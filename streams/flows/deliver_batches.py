"""``deliver_batches``: POSTs a batch to its receiver; the outcome goes back to the fold that cut it."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from connectors.ports import Accepted, Clock, Failure
from schemas import topics
from schemas.codec import decode_as
from schemas.delivery import Batch, DeliveryDue, DeliveryOutcome, DeliveryResult, DueReason
from streams.core.answers import Work, refused
from streams.core.breaker import Breakers, Integration
from streams.core.flows import Disposition, Emit, Record
from streams.core.observer import Observer
from streams.core.policy import EPOCH, SinkPolicy
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
from streams.directory.clients import Clients
from streams.directory.directory import Directory
from streams.directory.entry import Problem, ProblemKind
from streams.flows.integrations import HOLDS


@dataclass(frozen=True, slots=True)
class DeliverBatches:
    """One POST. What waits on a rung afterwards is the request to deliver, never this batch: it is cut again."""

    directory: Directory
    clients: Clients
    rungs: Ladder
    clock: Clock
    observer: Observer
    breakers: Breakers

    def key(self, record: Record) -> tuple[str, str, str, int]:
        """Return the property at its receiver: its batches keep their order. Raise `schemas.codec.DecodeError`."""
        batch = decode_as(Batch, record.value)
        return batch.org, batch.sink, batch.connection, batch.property.id

    async def perform(self, records: Sequence[Record]) -> Outcome:
        """POST the newest of the waiting batches; it replaces the older ones of the same property."""
        batch, first = decode_as(Batch, records[-1].value), first_failed_at(records[-1])
        async with self.clients.sink(batch.org, batch.sink) as sink:
            if isinstance(sink, Problem):
                return self._unusable(batch, sink, first)
            policy = self._policy(batch)
            if policy is not None and (policy.identity, policy.form) != (batch.receiver, batch.form):
                return self._replaced(batch, policy, first)
            version = self.clients.version(batch.org, batch.sink)
            integration, now = Integration(batch.org, batch.sink, version), self.clock.now()
            if held := self.breakers.hold(integration, now):
                return self._failed(batch, held, None, first)
            answer = await sink.deliver(batch)
        thing, at, refusal = (batch.connection, batch.property.id), self.clock.now(), refused(Work.DELIVERY, answer)
        if refusal and self.clients.version(batch.org, batch.sink) != version:
            return await self.perform(records)  # the configuration was replaced while the call was on its way
        held = self.breakers.ended(integration, thing, answer, at, refusal=refusal, alike=batch.dead_letter is None)
        self.observer.delivery_answered(batch, answer)
        if isinstance(answer, Accepted):
            return Done((self._outcome(batch, DeliveryResult.ACKNOWLEDGED, answer.status, None),))
        return self._failed(batch, held or answer, answer.status, first)

    def unfinished(self, record: Record, why: Dead | Held) -> Outcome:
        """Return the outcome of a batch that the runner gives up or holds. Raise `schemas.codec.DecodeError`."""
        batch = decode_as(Batch, record.value)
        if isinstance(why, Held):
            return self._failed(batch, why, None, first_failed_at(record))
        return self._dead(batch, why, None)

    def _policy(self, batch: Batch) -> SinkPolicy | None:
        return next((one for one in self.directory.sinks(batch.org) if one.name == batch.sink), None)

    def _unusable(self, batch: Batch, problem: Problem, first: int | None) -> Outcome:
        """Return what follows if the receiver cannot be called.

        The row of the delivery keeps what a disabled or deleted receiver lacks; it is sent when the receiver is back.
        """
        if problem.kind in (ProblemKind.DISABLED, ProblemKind.UNKNOWN):
            return self._cancelled(batch, problem.detail)
        return self._failed(batch, Held(HOLDS[problem.kind], problem.detail), None, first)

    def _replaced(self, batch: Batch, policy: SinkPolicy, first: int | None) -> Outcome:
        """Return what follows if the batch was cut for another receiver of this name, or in another form.

        If its configuration is older than the one here, it is cancelled, and the fold cuts a batch for the new
        receiver. If it is newer, this process has not read it yet, and the delivery is decided again later.
        """
        if (batch.configured_at or EPOCH) < policy.changed_at:
            return self._cancelled(
                batch, "the receiver, or the form of its batches, was changed after the batch was cut"
            )
        held = Held(Reason.INTEGRATION_PROBLEM, "the batch is for a newer configuration than this worker knows")
        return self._failed(batch, held, None, first)

    def _cancelled(self, batch: Batch, detail: str) -> Done:
        outcome = self._outcome(batch, DeliveryResult.CANCELLED, None, detail)
        return Done((outcome,), ending=Disposition.IGNORED)

    def _failed(self, batch: Batch, why: Failure | Held, status: int | None, first: int | None) -> Outcome:
        """Return what follows when a batch was not delivered; ``first``: when its delivery first failed."""
        now, held = self.clock.now(), isinstance(why, Held)
        follows: Parked | Dead
        if isinstance(why, Held):
            follows = outcome_of_hold(why, batch.attempt, first, now, self.rungs)
        else:
            follows = outcome_of(why, batch.attempt, now, self.rungs)
        if isinstance(follows, Dead):
            return self._dead(batch, follows, status)
        due_at = datetime.fromtimestamp(follows.due_at / 1000, UTC)
        outcome = self._outcome(batch, DeliveryResult.WAITING, status, why.detail, follows.reason, due_at)
        return replace(follows, effects=(outcome,), instead=self._again(batch, held=held))

    def _dead(self, batch: Batch, dead: Dead, status: int | None) -> Outcome:
        """Return the end of an attempt that no other follows: a dead letter, unless people have one of this already."""
        outcome = self._outcome(batch, DeliveryResult.DEAD, status, dead.detail, dead.reason)
        if batch.dead_letter == dead.reason:
            return Done((outcome,), ending=Disposition.IGNORED)
        return replace(dead, effects=(outcome,))

    def _outcome(
        self,
        batch: Batch,
        result: DeliveryResult,
        status: int | None,
        detail: str | None,
        reason: Reason | None = None,
        due_at: datetime | None = None,
    ) -> Emit:
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
            reason=reason,
            due_at=due_at,
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
