"""Finds the records of a plan: dead letters by the query view, those of other topics by reading them."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Final

from connectors.ports import Clock, FieldError
from schemas import topics
from schemas.partitions import partition_for
from schemas.replay import PlannedDifference, PlannedFilter, PlannedKey, ReplayPlan
from schemas.retry import is_replayed
from streams.backends.ports import Backend, BackendError, Partition
from streams.core.dead_letters import subject_of
from streams.core.flows import Record
from streams.core.replays import FASTEST, RATE, Candidate, parts, sort
from streams.directory.model import Invalid, Unavailable
from streams.replays.differences import Delivery, differences
from streams.runners.reading import ends_of, fetched
from streams.view.database import ViewUnavailable
from streams.view.queries import LetterFilter, Queries, Replayable

SOURCES: Final = frozenset(
    topic.name
    for topic in (
        topics.COMMANDS,
        topics.PUSHES,
        topics.SYNC_EVENTS,
        topics.WEBHOOKS,
        topics.CHANGES,
        topics.LINGERING,
        topics.DUE,
        topics.BATCHES,
        topics.OUTCOMES,
    )
)
"""Topics whose records can be processed again. What a schedule asks for comes again by itself."""

STATES: Final = frozenset(topic.name for topic in (topics.WEBHOOKS, topics.LINGERING, topics.DUE, topics.BATCHES))
"""Topics whose records ask for what is true at the moment: the last one about an entity makes up for the others."""

SHOWN: Final = 100
"""Entities that a plan names."""


@dataclass(frozen=True, slots=True)
class ReplayRequest:
    """Which records are to be replayed: dead letters, or those of another topic."""

    org: str
    wanted: LetterFilter = field(default_factory=LetterFilter)
    source: str = topics.DEAD_LETTERS.name
    rate: int = RATE
    """Records a second at most."""

    def errors(self) -> tuple[FieldError, ...]:
        """Return what is wrong with it."""
        found: list[FieldError] = []
        if not 1 <= self.rate <= FASTEST:
            found.append(FieldError("/rate", f"must be from 1 to {FASTEST} records a second"))
        if self.source == topics.DEAD_LETTERS.name:
            return tuple(found)
        if self.source not in SOURCES:
            allowed = ", ".join(sorted(SOURCES | {topics.DEAD_LETTERS.name}))
            return (*found, FieldError("/topic", f"cannot be replayed; these can: {allowed}"))
        found += [
            FieldError(f"/{name}", f"is known of {topics.DEAD_LETTERS.name} only")
            for name in ("origin", "reason", "fingerprint")
            if getattr(self.wanted, name) is not None
        ]
        if self.wanted.since is None and self.wanted.place is None:
            found.append(FieldError("/since", f"is needed for {self.source}: from which time on"))
        return tuple(found)

    def filters(self) -> tuple[PlannedFilter, ...]:
        """Return its filters as text."""
        wanted = self.wanted
        texts = {
            "id": None if wanted.place is None else "-".join(map(str, wanted.place)),
            "since": wanted.since and wanted.since.isoformat(),
            "until": wanted.until and wanted.until.isoformat(),
            **{name: getattr(wanted, name) for name in ("origin", "reason", "fingerprint", "entity", "integration")},
        }
        return tuple(PlannedFilter(name=name, value=text) for name, text in texts.items() if text is not None)


class Planner:
    """Makes plans; nothing is written."""

    def __init__(self, queries: Queries, backend: Backend, partitions: int, clock: Clock) -> None:
        self._queries = queries
        self._backend = backend
        self._partitions = partitions
        self._clock = clock

    async def plan(self, request: ReplayRequest, replay: str, by: str) -> ReplayPlan:
        """Return what a replay would do. Raise `Invalid`, and `Unavailable` if the records cannot be found now."""
        if wrong := request.errors():
            raise Invalid(wrong)
        if request.source == topics.DEAD_LETTERS.name:
            candidates = await self._dead_letters(request)
        else:
            candidates = await self._records(request)
        found = sort(candidates, named=request.wanted.place is not None)
        compared, differing = await self._differences(request.org, found.replayed)
        keys = Counter((one.entity, one.integration) for one in found.replayed)
        return ReplayPlan(
            org=request.org,
            id=replay,
            at=self._clock.now(),
            by=by,
            source=request.source,
            filters=request.filters(),
            rate=request.rate,
            matched=found.matched,
            replayed=len(found.replayed),
            superseded=found.superseded,
            exhausted=found.exhausted,
            unsuitable=found.unsuitable,
            keys=tuple(
                PlannedKey(entity=entity, integration=integration, records=number)
                for (entity, integration), number in keys.most_common(SHOWN)
            ),
            key_count=len(keys),
            compared=compared,
            differences=differing,
            parts=parts(found.replayed),
        )

    async def _differences(self, org: str, chosen: Iterable[Candidate]) -> tuple[int, tuple[PlannedDifference, ...]]:
        deliveries = (one.delivery for one in chosen if one.delivery is not None)
        try:
            return await differences(self._queries, self._backend, org, (Delivery(*one) for one in deliveries))
        except ViewUnavailable as error:
            raise Unavailable(f"the query view cannot be read: {error}") from None
        except BackendError as error:
            raise Unavailable(f"{topics.BATCHES.name} cannot be read: {error}") from None

    async def _dead_letters(self, request: ReplayRequest) -> Sequence[Candidate]:
        try:
            rows = await asyncio.to_thread(self._queries.replayable, request.org, request.wanted)
        except ViewUnavailable as error:
            raise Unavailable(f"the query view cannot be read: {error}") from None
        return [_of_letter(row) for row in rows]

    async def _records(self, request: ReplayRequest) -> Sequence[Candidate]:
        partition = Partition(request.source, partition_for(request.org, self._partitions))
        wanted, key = request.wanted, request.org.encode()
        found = []
        try:
            async for record in self._read(partition):
                if (record.key or b"").split(b"/")[0] != key or not _is_wanted(record, wanted):
                    continue
                if (candidate := _of_record(record, wanted)) is not None:
                    found.append(candidate)
        except BackendError as error:
            raise Unavailable(f"{request.source} cannot be read: {error}") from None
        return found

    async def _read(self, partition: Partition) -> AsyncIterator[Record]:
        """Yield the records of a partition that are there now. Raise `BackendError`."""
        ends = await ends_of(self._backend, self._clock, [partition.topic])
        reader = self._backend.reader([partition.topic], {**ends, partition: 0})
        await reader.start()
        try:
            while reader.positions.get(partition, 0) < ends[partition]:
                for record in (await fetched(reader, self._clock)).get(partition, ()):
                    if record.offset < ends[partition]:
                        yield record
        finally:
            await reader.stop()


def _of_letter(row: Replayable) -> Candidate:
    integration = row.receiver or row.connection
    subject: Iterable[str | None] | None = None
    if row.operation is not None:
        subject = ("operation", row.operation)
    elif row.origin in STATES and row.entity is not None:
        subject = (row.origin, row.connection, row.receiver, row.entity)
    return Candidate(
        row.partition,
        row.offset,
        row.entity,
        integration,
        None if subject is None else tuple(subject),
        is_closed=row.is_closed,
        replays=row.replays,
        is_suitable=row.origin in SOURCES,
        delivery=_delivery(row.receiver, row.connection, row.property_id),
    )


def _is_wanted(record: Record, wanted: LetterFilter) -> bool:
    at = datetime.fromtimestamp(record.timestamp / 1000, UTC)
    return (
        (wanted.since is None or at >= wanted.since)
        and (wanted.until is None or at < wanted.until)
        and wanted.place in (None, (record.partition, record.offset))
    )


def _of_record(record: Record, wanted: LetterFilter) -> Candidate | None:
    """Return a record that is wanted; null if it is about something else, or a replay has written it.

    So what was replayed is not replayed in circles, and the same records can be replayed again.
    """
    if is_replayed(record.headers):
        return None
    about = subject_of(record.value)
    entity, connection, receiver = about.get("entity"), about.get("connection"), about.get("receiver")
    if wanted.entity not in (None, entity):
        return None
    if wanted.integration is not None and wanted.integration not in (connection, receiver):
        return None
    alone = entity is None or record.topic not in STATES
    return Candidate(
        record.partition,
        record.offset,
        entity,
        receiver or connection,
        None if alone else (connection, receiver, entity),
        delivery=_delivery(receiver, connection, about.get("property_id")),
    )


def _delivery(receiver: str | None, connection: str | None, property_id: int | None) -> tuple[str, str, int] | None:
    """Return the place of a delivery; null if a record is about none."""
    if receiver is None or connection is None or property_id is None:
        return None
    return receiver, connection, property_id
