"""``fetch_changes``: reads the entity that a webhook names, as it is now."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from connectors.ports import Clock, Failure, Fetched, Found, Priority
from schemas import topics
from schemas.base import EntityKind
from schemas.codec import decode_as
from schemas.pms import STAGES, FetchRequest
from schemas.rent_roll import Page, PageItem
from schemas.retry import SEQ, is_replayed
from streams.core.answers import Work, refused
from streams.core.breaker import Breakers, Integration
from streams.core.flows import Disposition, Emit, Record
from streams.core.rent_roll import item_of
from streams.core.retry import Done, Held
from streams.core.sequence import FetchSequence
from streams.directory.clients import Clients
from streams.directory.entry import Problem
from streams.flows.integrations import held_by, may_be_left_out
from streams.runners.look import Look


@dataclass(frozen=True, slots=True)
class FetchChanges:
    """One call for all waiting requests of an entity: what it is now answers each of them."""

    clients: Clients
    sequence: FetchSequence
    clock: Clock
    breakers: Breakers

    def key(self, record: Record) -> tuple[str, str, EntityKind, int | None]:
        """Return which requests one call answers, the integration first. Raise `schemas.codec.DecodeError`."""
        request = decode_as(FetchRequest, record.value)
        return request.org, request.connection, request.kind, request.entity

    async def perform(self, records: Sequence[Record]) -> Done | Failure | Held:
        """Fetch the entity that these requests name."""
        requests = [decode_as(FetchRequest, record.value) for record in records]
        request = requests[-1]
        if request.ignored is not None or request.entity is None:
            return Done(ending=Disposition.IGNORED)
        async with self.clients.source(request.org, request.connection) as source:
            if isinstance(source, Problem):
                return held_by(source)
            version = self.clients.version(request.org, request.connection)
            integration = Integration(request.org, request.connection, version)
            now = self.clock.now()
            if held := self.breakers.hold(integration, now):
                return held
            priority = Priority.REPLAY if all(is_replayed(one.headers) for one in records) else Priority.WEBHOOK
            with self._look(records) as look:
                answer = await source.fetch(request.kind, request.entity, priority)
            whole: list[Emit] = []
            for kind in _also(requests) if isinstance(answer, Fetched) else ():
                with self._look(records) as at:
                    of_kind = await source.all_of(kind, request.entity, priority)
                if isinstance(of_kind, Fetched):
                    whole.append(self._whole(requests, kind, of_kind, at.first))
                elif not may_be_left_out(kind, of_kind):
                    answer = of_kind
                    break
        if refused(Work.READ, answer) and self.clients.version(request.org, request.connection) != version:
            return await self.perform(records)  # the configuration was replaced while the call was on its way
        done = self._after(requests, integration, answer, look.first)
        return replace(done, effects=(*done.effects, *whole)) if isinstance(done, Done) else done

    def _look(self, records: Sequence[Record]) -> Look:
        return Look(self.sequence, records[-1].partition, self.clock)

    def _whole(self, requests: Sequence[FetchRequest], kind: EntityKind, found: Fetched, seq: int) -> Emit:
        """Return the page with all entities of a kind of a property."""
        request = requests[-1]
        return page_out(
            Page(
                org=request.org,
                connection=request.connection,
                kind=kind,
                seq=seq,
                fetched_at=self.clock.now(),
                seen_at=min(one.received_at for one in requests),
                items=tuple(item_of(one.snapshot) for one in found.items if isinstance(one, Found)),
                whole_of=request.entity,
            )
        )

    def _after(
        self, requests: Sequence[FetchRequest], integration: Integration, answer: Fetched | Failure, seq: int
    ) -> Done | Failure | Held:
        """Return what follows an answer."""
        request, at = requests[-1], self.clock.now()
        thing, refusal = (request.kind, request.entity), refused(Work.READ, answer)
        if held := self.breakers.ended(integration, thing, answer, at, refusal=refusal, alike=True):
            return held
        if may_be_left_out(request.kind, answer):
            return Done(ending=Disposition.IGNORED)
        if not isinstance(answer, Fetched):
            return answer
        return Done(tuple(pages(request, answer, seq, min(one.received_at for one in requests), self.clock)))


def _also(requests: Sequence[FetchRequest]) -> tuple[EntityKind, ...]:
    """Return the kinds of a property's entities that any of its requests asks for, parents first."""
    return tuple(kind for kind in STAGES if any(kind in one.also for one in requests))


def pages(request: FetchRequest, answer: Fetched, seq: int, seen_at: datetime, clock: Clock) -> list[Emit]:
    """Return one page for each kind of entity in the answer."""
    by_kind: dict[EntityKind, list[PageItem]] = {}
    for one in answer.items:
        item = item_of(one.snapshot) if isinstance(one, Found) else PageItem(id=one.id)
        by_kind.setdefault(one.kind, []).append(item)
    return [
        page_out(
            Page(
                org=request.org,
                connection=request.connection,
                kind=kind,
                seq=seq,
                fetched_at=clock.now(),
                seen_at=seen_at,
                items=tuple(items),
            )
        )
        for kind, items in by_kind.items()
    ]


def page_out(page: Page) -> Emit:
    """Return a page to be written, with its sequence in a header, where a new owner finds it without decoding."""
    return Emit(topics.CHANGES, page.org, page, headers=((SEQ, str(page.seq).encode()),))
