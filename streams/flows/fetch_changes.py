"""``fetch_changes``: reads what a notice names, as it is now."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from connectors.ports import Clock, Connection, Failure, Fetched, Found, Priority, PropertySource
from schemas import retry as header
from schemas import topics
from schemas.base import EntityKind
from schemas.codec import decode_as
from schemas.pms import FetchRequest
from schemas.rent_roll import Page, PageItem
from streams.core.breaker import Breakers, Integration
from streams.core.flows import Disposition, Emit, Record
from streams.core.rent_roll import item_of
from streams.core.retry import Done, Held
from streams.core.sequence import FetchSequence

Sources = Mapping[tuple[str, str], PropertySource]
"""The source of each connection, by org and name."""


@dataclass(frozen=True, slots=True)
class FetchChanges:
    """One call for all the notices of an entity that wait: what it is now answers each of them."""

    sources: Sources
    connections: Mapping[tuple[str, str], Connection]
    sequence: FetchSequence
    clock: Clock
    breakers: Breakers

    def key(self, record: Record) -> tuple[str, str, EntityKind, int | None]:
        """Return which events one call answers, the integration first. Raise `schemas.codec.DecodeError`."""
        notice = decode_as(FetchRequest, record.value)
        return notice.org, notice.connection, notice.kind, notice.entity

    async def perform(self, records: Sequence[Record]) -> Done | Failure | Held:
        """Fetch what these webhooks name, as it is now."""
        notices = [decode_as(FetchRequest, record.value) for record in records]
        notice = notices[-1]
        connection = self.connections.get((notice.org, notice.connection))
        source = self.sources.get((notice.org, notice.connection))
        if notice.ignored is not None or notice.entity is None or source is None:
            return Done(ending=Disposition.IGNORED)
        if connection is None or not connection.enabled:
            return Done(ending=Disposition.IGNORED)
        integration, now = Integration(notice.org, notice.connection), self.clock.now()
        if held := self.breakers.hold(integration, now):
            return held
        seq = self.sequence.take(records[-1].partition, now)
        answer = await source.fetch(notice.kind, notice.entity, Priority.WEBHOOK)
        if held := self.breakers.ended(integration, (notice.kind, notice.entity), answer, self.clock.now()):
            return held
        if not isinstance(answer, Fetched):
            return answer
        return Done(tuple(pages(notice, answer, seq, min(one.received_at for one in notices), self.clock)))


def pages(notice: FetchRequest, answer: Fetched, seq: int, seen_at: datetime, clock: Clock) -> list[Emit]:
    """Make one page for each kind of entity that the answer brought."""
    by_kind: dict[EntityKind, list[PageItem]] = {}
    for one in answer.items:
        item = item_of(one.snapshot) if isinstance(one, Found) else PageItem(id=one.id)
        by_kind.setdefault(one.kind, []).append(item)
    made = []
    for kind, items in by_kind.items():
        page = Page(
            org=notice.org,
            connection=notice.connection,
            kind=kind,
            seq=seq,
            fetched_at=clock.now(),
            seen_at=seen_at,
            items=tuple(items),
        )
        made.append(page_out(page))
    return made


def page_out(page: Page) -> Emit:
    """Return a page to be written, with its sequence in a header, where a new owner finds it without decoding."""
    return Emit(topics.CHANGES, page.org, page, headers=((header.SEQ, str(page.seq).encode()),))
