"""``recheck_missed``: fetches what a complete sweep missed, some at a time; what is left travels as a record."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from connectors.ports import Clock, Failure, Fetched, Found, Gone, Priority
from schemas import topics
from schemas.base import EntityKind
from schemas.codec import decode_as
from schemas.pms import RecheckStep
from schemas.rent_roll import Page, PageItem
from streams.core.answers import Work, refused
from streams.core.breaker import Breakers, Integration
from streams.core.flows import Disposition, Emit, Record
from streams.core.rent_roll import item_of
from streams.core.retry import Done
from streams.core.sequence import FetchSequence
from streams.directory.clients import Clients
from streams.directory.entry import Problem
from streams.flows.fetch_changes import page_out
from streams.runners.look import Look

AT_ONCE: Final = 10
"""Calls of one step: as many as the account's budget lets begin in a second."""

IGNORED: Final = Done(ending=Disposition.IGNORED)


@dataclass(frozen=True, slots=True)
class RecheckMissed:
    """One step. It is never retried: the end of the next sweep asks for what is still missing."""

    clients: Clients
    sequence: FetchSequence
    clock: Clock
    breakers: Breakers

    def key(self, record: Record) -> tuple[str, str, str, EntityKind]:
        """Return the connection and the kind: their steps wait for each other. Raise `schemas.codec.DecodeError`."""
        step = decode_as(RecheckStep, record.value)
        return step.org, step.connection, "recheck", step.kind

    async def perform(self, records: Sequence[Record]) -> Done:
        """Fetch the first entities of the newest step; a step of a newer sweep replaces those of older ones."""
        step = max((decode_as(RecheckStep, record.value) for record in records), key=_progress)
        now, partition = self.clock.now(), records[-1].partition
        integration = Integration(step.org, step.connection, self.clients.version(step.org, step.connection))
        async with self.clients.source(step.org, step.connection) as source:
            if isinstance(source, Problem) or self.breakers.hold(integration, now):
                return IGNORED
            ids = step.ids[:AT_ONCE]
            with Look(self.sequence, partition, self.clock) as look:
                answers = await asyncio.gather(*(source.fetch(step.kind, number, Priority.SWEEP) for number in ids))
        failure = next((answer for answer in answers if not isinstance(answer, Fetched)), None)
        refusal = refused(Work.READ, failure)
        self.breakers.ended(integration, "recheck", failure, self.clock.now(), refusal=refusal)
        brought = self._brought(step, answers, look.first)
        if failure is not None:
            return Done(brought) if brought else IGNORED
        return Done((*brought, *_rest(step)))

    def _brought(self, step: RecheckStep, answers: Sequence[Fetched | Failure], seq: int) -> tuple[Emit, ...]:
        """Return the page of the answers, if there are any."""
        found = [one for answer in answers if isinstance(answer, Fetched) for one in answer.items]
        if not found:
            return ()
        page = Page(
            org=step.org,
            connection=step.connection,
            kind=step.kind,
            seq=seq,
            fetched_at=self.clock.now(),
            items=tuple(_item(one) for one in found),
            guarded=step.guarded,
        )
        return (page_out(page),)


def _progress(step: RecheckStep) -> tuple[str, int]:
    """Return what is largest for the step that is furthest."""
    return step.sweep, -len(step.ids)


def _rest(step: RecheckStep) -> tuple[Emit, ...]:
    """Return the record of what is left after a step."""
    left = step.ids[AT_ONCE:]
    return (Emit(topics.RECHECKS, step.org, step.model_copy(update={"ids": left})),) if left else ()


def _item(one: Found | Gone) -> PageItem:
    return item_of(one.snapshot) if isinstance(one, Found) else PageItem(id=one.id)
