"""``sweep_accounts``: reads an account whole, some pages at a time; what is next travels as a record."""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from connectors.ports import Clock, Connection, Failure, PageOf, Priority
from schemas import topics
from schemas.codec import decode_as
from schemas.pms import SweepStep
from schemas.rent_roll import SweepEnd
from streams.core.breaker import Breakers, Integration
from streams.core.flows import Disposition, Emit, Record
from streams.core.retry import Done, Held
from streams.core.sequence import FetchSequence
from streams.core.sweep import Read, Running, after, offsets, pages, sequences
from streams.flows.fetch_changes import Sources, page_out


@dataclass(frozen=True, slots=True)
class SweepAccounts:
    """One step of a sweep: its pages, then the record that says what comes after them."""

    sources: Sources
    connections: Mapping[tuple[str, str], Connection]
    sequence: FetchSequence
    clock: Clock
    running: Running
    breakers: Breakers

    def key(self, record: Record) -> tuple[str, str, str]:
        """Return the connection: its steps wait for each other. Raise `schemas.codec.DecodeError`."""
        step = decode_as(SweepStep, record.value)
        return step.org, step.connection, "sweep"

    async def perform(self, records: Sequence[Record]) -> Done | Failure | Held:
        """Read the pages of a step; the same step twice brings the same pages again, and they change nothing."""
        step = decode_as(SweepStep, records[-1].value)
        name = (step.org, step.connection)
        source, connection = self.sources.get(name), self.connections.get(name)
        now = self.clock.now()
        if source is None or connection is None or not connection.enabled or not self.running.admits(step, now):
            return Done(ending=Disposition.IGNORED)
        integration = Integration(*name)
        if held := self.breakers.hold(integration, now):
            return held
        wants = offsets(step, source.page_size)
        each = sequences(source.page_size)
        first = self.sequence.take(records[-1].partition, now, each * len(wants) + 1)
        if not step.seq:
            step = step.model_copy(update={"seq": first})
        reads = [Read(offset, first + 1 + each * at) for at, offset in enumerate(wants)]
        answers = await asyncio.gather(*(source.page(step.stage, read.offset, Priority.SWEEP) for read in reads))
        brought: list[tuple[Read, PageOf]] = []
        for read, answer in zip(reads, answers, strict=True):
            if not isinstance(answer, PageOf):
                return self.breakers.ended(integration, step.stage, answer, self.clock.now()) or answer
            brought.append((read, answer))
        self.breakers.ended(integration, step.stage, brought[-1][1], self.clock.now())
        at = self.clock.now()
        made = pages(step, brought, at)
        following = after(step, brought, made, at)
        if isinstance(following, SweepEnd):
            self.running.ended(following)
            last = Emit(topics.CHANGES, step.org, following)
        else:
            last = Emit(topics.SWEEPS, step.org, following)
        return Done((*(page_out(page) for page in made), last))
