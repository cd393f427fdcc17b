"""``sweep_accounts``: reads an account in full, some pages at a time; what is next travels as a record."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from connectors.ports import Clock, Failure, PageOf, Priority, PropertySource
from schemas import topics
from schemas.codec import decode_as
from schemas.pms import SweepStep
from schemas.rent_roll import SweepEnd
from streams.core.answers import Work, refused
from streams.core.breaker import Breakers, Integration
from streams.core.flows import Disposition, Emit, Record
from streams.core.retry import (
    Dead,
    Done,
    Held,
    Ladder,
    Outcome,
    Reason,
    attempt_of,
    first_failed_at,
    outcome_of,
    outcome_of_hold,
)
from streams.core.sequence import FetchSequence
from streams.core.sweep import (
    Admission,
    Read,
    Running,
    after,
    begun,
    offsets,
    pages,
    progress,
    sequences,
    without,
)
from streams.directory.clients import Clients
from streams.directory.entry import Problem, ProblemKind
from streams.flows.fetch_changes import page_out
from streams.flows.integrations import held_by, may_be_left_out
from streams.runners.look import Look


@dataclass(frozen=True, slots=True)
class SweepAccounts:
    """One step of a sweep: its pages, then the record of what comes after them, and the progress for people."""

    clients: Clients
    sequence: FetchSequence
    rungs: Ladder
    clock: Clock
    running: Running
    breakers: Breakers

    def key(self, record: Record) -> tuple[str, str, str]:
        """Return the connection: its steps wait for each other. Raise `schemas.codec.DecodeError`."""
        step = decode_as(SweepStep, record.value)
        return step.org, step.connection, "sweep"

    async def perform(self, records: Sequence[Record]) -> Outcome | Held:
        """Read the pages of a step; the same step twice brings the same pages again, and they change nothing."""
        record = records[-1]
        step = begun(decode_as(SweepStep, record.value), datetime.fromtimestamp(record.timestamp / 1000, UTC))
        async with self.clients.source(step.org, step.connection) as source:
            if isinstance(source, Problem):
                return self._unusable(step, source)
            now = self.clock.now()
            if (unusable := self._refused(step, now)) is not None:
                return unusable
            integration = Integration(step.org, step.connection, self.clients.version(step.org, step.connection))
            if held := self.breakers.hold(integration, now):
                return held
            if not step.seq:  # of the whole sweep: from before its first request
                step = step.model_copy(update={"seq": self.sequence.take(record.partition, now)})
            answer = await self._read(source, step, record.partition)
        if refused(Work.READ, answer) and self.clients.version(step.org, step.connection) != integration.version:
            return await self.perform(records)  # the configuration was replaced while the calls were on their way
        return self._after(step, integration, answer, attempt_of(record))

    def unfinished(self, record: Record, why: Dead | Held) -> Outcome:
        """Return the outcome of a step that the runner gives up or holds: a sweep that ends by it ends visibly.

        Raise `schemas.codec.DecodeError`.
        """
        step, now = decode_as(SweepStep, record.value), self.clock.now()
        if isinstance(why, Held):
            return outcome_of_hold(why, attempt_of(record), first_failed_at(record), now, self.rungs)
        return self._ended(step, why, f"an error of the program: {why.detail}")

    def _refused(self, step: SweepStep, now: datetime) -> Done | Held | None:
        """Return what follows a step that must not be made; null if it may be."""
        match self.running.admits(step, now):
            case Admission.REPEATED:
                return Done(ending=Disposition.DUPLICATE)
            case Admission.BUSY if step.asked:
                return Held(Reason.BUSY, f"another sweep of {step.connection} is running", now)
            case Admission.BUSY:
                return Done(ending=Disposition.IGNORED)
            case _:
                return None

    def _unusable(self, step: SweepStep, problem: Problem) -> Done | Held:
        """Return what follows if the account cannot be read: the schedule starts another sweep when it can."""
        self.running.ended(step.org, step.connection)
        unknown = problem.kind in (ProblemKind.UNKNOWN, ProblemKind.WRONG_ROLE)
        return Done(ending=Disposition.IGNORED) if unknown else held_by(problem)

    async def _read(
        self, source: PropertySource, step: SweepStep, partition: int
    ) -> list[tuple[Read, PageOf]] | Failure:
        """Return the pages of a step with their sequences; if a call failed, its failure."""

        async def read(offset: int) -> tuple[Read, PageOf | Failure]:
            with Look(self.sequence, partition, self.clock, sequences(source.page_size)) as look:
                answer = await source.page(step.stage, offset, Priority.SWEEP)
            return Read(offset, look.first), answer

        brought: list[tuple[Read, PageOf]] = []
        for one, answer in await asyncio.gather(*map(read, offsets(step, source.page_size))):
            if not isinstance(answer, PageOf):
                return answer
            brought.append((one, answer))
        return brought

    def _after(
        self, step: SweepStep, integration: Integration, answer: list[tuple[Read, PageOf]] | Failure, attempt: int
    ) -> Outcome | Held:
        """Return what follows the answers to a step."""
        at, refusal = self.clock.now(), refused(Work.READ, answer)
        last = answer[-1][1] if isinstance(answer, list) else answer
        held = self.breakers.ended(integration, step.stage, last, at, refusal=refusal)
        if isinstance(answer, list):
            return self._went_on(step, answer)
        if held and refusal is None:  # a refused sweep ends visibly: the schedule starts another one
            return held
        if may_be_left_out(step.stage, answer):
            return self._done(step, without(step, at))
        return self._failed(step, answer, attempt)

    def _went_on(self, step: SweepStep, brought: list[tuple[Read, PageOf]]) -> Done:
        at = self.clock.now()
        made = pages(step, brought, at)
        return self._done(step, after(step, brought, made, at), [page_out(page) for page in made])

    def _done(self, step: SweepStep, following: SweepStep | SweepEnd, written: Sequence[Emit] = ()) -> Done:
        self.running.made(step)
        if isinstance(following, SweepEnd):
            self.running.completed(step)
            return Done((*written, Emit(topics.CHANGES, following.org, following)))
        status = Emit(topics.INTEGRATION_STATUS, following.org, progress(following, self.clock.now()))
        return Done((*written, Emit(topics.SWEEPS, following.org, following), status))

    def _failed(self, step: SweepStep, answer: Failure, attempt: int) -> Outcome:
        """Return what follows a call that failed; a sweep that ends by it ends visibly."""
        now = self.clock.now()
        outcome = outcome_of(answer, attempt, now, self.rungs)
        return self._ended(step, outcome, answer.detail) if isinstance(outcome, Dead) else outcome

    def _ended(self, step: SweepStep, dead: Dead, failed: str) -> Dead:
        self.running.ended(step.org, step.connection)
        ended = Emit(topics.INTEGRATION_STATUS, step.org, progress(step, self.clock.now(), failed=failed))
        return replace(dead, effects=(ended,))
