"""``push_commands``: makes an operation in the PMS; its outcome goes back to the fold that ordered it."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from connectors.ports import Clock, Failure, Halfway, Invalid, Pushed, Undecided
from schemas import topics
from schemas.codec import decode_as
from schemas.commands import Command, CommandAction, FieldProblem, Push, PushOutcome, PushResult
from streams.core import sync
from streams.core.answers import Work, refused
from streams.core.breaker import Breakers, Integration
from streams.core.flows import Emit, Record
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
from streams.directory.entry import Problem, ProblemKind
from streams.flows.integrations import HOLDS


@dataclass(frozen=True, slots=True)
class PushCommands:
    """One operation. What waits on a rung afterwards is the request to try it again, never this push."""

    clients: Clients
    rungs: Ladder
    clock: Clock
    breakers: Breakers

    def key(self, record: Record) -> tuple[str, str, str, str]:
        """Return the entity: its operations keep their order. Raise `schemas.codec.DecodeError`."""
        push = decode_as(Push, record.value)
        return push.org, push.connection, push.entity, push.id

    async def perform(self, records: Sequence[Record]) -> Outcome:
        """Make the newest of the waiting pushes, which has replaced the older ones of the same entity."""
        push, first = decode_as(Push, records[-1].value), first_failed_at(records[-1])
        async with self.clients.gateway(push.org, push.connection) as gateway:
            if isinstance(gateway, Problem):
                reason = HOLDS.get(gateway.kind, Reason.INTEGRATION_PROBLEM)
                if gateway.kind is ProblemKind.DISABLED:
                    reason = Reason.INTEGRATION_PROBLEM
                return self._failed(push, Held(reason, gateway.detail), first)
            version = self.clients.version(push.org, push.connection)
            integration = Integration(push.org, push.connection, version)
            if held := self.breakers.hold(integration, self.clock.now()):
                return self._failed(push, held, first)
            answer = await gateway.push(push)
        why = answer.why if isinstance(answer, Halfway) else answer
        refusal = refused(Work.COMMAND, why)
        if refusal and self.clients.version(push.org, push.connection) != version:
            return await self.perform(records)  # the configuration was replaced while the call was on its way
        held = self.breakers.ended(integration, (push.entity, push.id), why, self.clock.now(), refusal=refusal)
        pms_id = answer.pms_id if isinstance(answer, Halfway | Pushed) else None
        return self._after(push, held or why, first, pms_id)

    def _after(
        self, push: Push, why: Pushed | Undecided | Invalid | Failure | Held, first: int | None, pms_id: int | None
    ) -> Outcome:
        """Return what follows an answer; ``pms_id`` is that of an entity that the PMS has by now."""
        match why:
            case Pushed():
                return Done((self._outcome(push, PushResult.DONE, pms_id=pms_id),))
            case Undecided(detail=detail):
                return Done((self._outcome(push, PushResult.CONFLICT, code=sync.CONFLICT, detail=detail),))
            case Invalid(detail=detail, fields=fields):
                failed = self._outcome(push, PushResult.FAILED, code=sync.REJECTED, detail=detail, pms_id=pms_id)
                return Done((_with_fields(failed, fields),))
            case _:
                return self._failed(push, why, first, pms_id)

    def unfinished(self, record: Record, why: Dead | Held) -> Outcome:
        """Return the outcome of a push that the runner gives up or holds. Raise `schemas.codec.DecodeError`."""
        push = decode_as(Push, record.value)
        if isinstance(why, Held):
            return self._failed(push, why, first_failed_at(record))
        return self._dead(push, why, None)

    def _failed(self, push: Push, why: Failure | Held, first: int | None, pms_id: int | None = None) -> Outcome:
        """Return what follows when a push was not made; ``first``: when it first failed."""
        now, held = self.clock.now(), isinstance(why, Held)
        follows: Parked | Dead
        if isinstance(why, Held):
            follows = outcome_of_hold(why, push.attempt, first, now, self.rungs)
        else:
            follows = outcome_of(why, push.attempt, now, self.rungs)
        if isinstance(follows, Dead):
            return self._dead(push, follows, pms_id)
        outcome = self._outcome(
            push,
            PushResult.WAITING,
            code=follows.reason,
            detail=why.detail,
            pms_id=pms_id,
            due_at=datetime.fromtimestamp(follows.due_at / 1000, UTC),
        )
        return replace(follows, effects=(outcome,), instead=self._again(push, held=held))

    def _dead(self, push: Push, dead: Dead, pms_id: int | None) -> Outcome:
        outcome = self._outcome(push, PushResult.FAILED, code=dead.reason, detail=dead.detail, pms_id=pms_id)
        return replace(dead, effects=(outcome,))

    def _outcome(
        self,
        push: Push,
        result: PushResult,
        *,
        code: str | None = None,
        detail: str | None = None,
        pms_id: int | None = None,
        due_at: datetime | None = None,
    ) -> Emit:
        outcome = PushOutcome(
            org=push.org,
            connection=push.connection,
            entity=push.entity,
            id=push.id,
            operation=push.operation,
            version=push.version,
            attempt=push.attempt,
            result=result,
            at=self.clock.now(),
            pms_id=pms_id,
            code=code,
            detail=detail,
            due_at=due_at,
        )
        return Emit(topics.SYNC_EVENTS, push.org, outcome)

    def _again(self, push: Push, *, held: bool) -> Emit:
        command = Command(
            org=push.org,
            connection=push.connection,
            action=CommandAction.RETRY,
            operation=push.operation,
            entity=push.entity,
            id=push.id,
            at=self.clock.now(),
            version=push.version,
            attempt=push.attempt,
            held=held,
        )
        return Emit(topics.COMMANDS, push.org, command)


def _with_fields(emit: Emit, fields: Sequence[tuple[str, str]]) -> Emit:
    problems = tuple(FieldProblem(pointer=pointer, detail=detail) for pointer, detail in fields)
    return replace(emit, record=emit.record.model_copy(update={"fields": problems}))
