"""``pulse_accounts``: reads what was updated in an account since a point in time, and its listings if they are few."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from connectors.ports import Clock, Failure, PageOf, Priority, PropertySource
from schemas import topics
from schemas.base import EntityKind
from schemas.codec import decode_as
from schemas.pms import PulseStep
from schemas.rent_roll import PulseEnd
from streams.core.answers import Work, refused
from streams.core.breaker import Breakers, Integration
from streams.core.flows import Disposition, Emit, Record
from streams.core.pulse import CHANGING, MAX_PAGES, SKEW, Listings, changed_listings, listings_of, pages, unlisted
from streams.core.rent_roll.refetch import RefetchReason, refetch
from streams.core.retry import Done
from streams.core.sequence import FetchSequence
from streams.core.sweep import sequences
from streams.directory.clients import Clients
from streams.directory.entry import Problem
from streams.flows.fetch_changes import page_out
from streams.flows.integrations import may_be_left_out
from streams.runners.look import Look

IGNORED = Done(ending=Disposition.IGNORED)


@dataclass(frozen=True, slots=True)
class PulseAccounts:
    """One pulse. It is never retried: the next one asks from the same time on."""

    clients: Clients
    sequence: FetchSequence
    clock: Clock
    breakers: Breakers
    _listings: dict[tuple[str, str], Listings] = field(default_factory=dict)
    """What the last pulse of each connection saw. It is lost with the process, and then a sweep finds what is gone."""

    def key(self, record: Record) -> tuple[str, str, str]:
        """Return the connection: its pulses wait for each other. Raise `schemas.codec.DecodeError`."""
        step = decode_as(PulseStep, record.value)
        return step.org, step.connection, "pulse"

    async def perform(self, records: Sequence[Record]) -> Done:
        """Read what changed since the newest of the waiting pulses was asked for."""
        step, partition = decode_as(PulseStep, records[-1].value), records[-1].partition
        integration = Integration(step.org, step.connection, self.clients.version(step.org, step.connection))
        async with self.clients.source(step.org, step.connection) as source:
            if isinstance(source, Problem) or self.breakers.hold(integration, self.clock.now()):
                return IGNORED
            pulse = _Pulse(self, source, step, partition)
            failure = await pulse.read()
        at, refusal = self.clock.now(), refused(Work.READ, failure)
        self.breakers.ended(integration, "pulse", failure, at, refusal=refusal)
        return IGNORED if failure is not None else Done((*pulse.emits, pulse.end()))

    def remember(self, step: PulseStep, now: Listings) -> Listings | None:
        """Remember the listings of a connection; return what was known before."""
        key = (step.org, step.connection)
        before = self._listings.get(key)
        self._listings[key] = now
        return before


class _Pulse:
    """The calls of one pulse, and the records that follow from them."""

    def __init__(self, flow: PulseAccounts, source: PropertySource, step: PulseStep, partition: int) -> None:
        self.flow = flow
        self.source = source
        self.step = step
        self.partition = partition
        self.emits: list[Emit] = []
        self.until = step.started_at - SKEW

    async def read(self) -> Failure | None:
        """Make the calls; return the first failure."""
        for kind in CHANGING:
            if (failure := await self._changed(kind)) is not None:
                return failure
        return await self._listed()

    def end(self) -> Emit:
        """Return the record that ends the pulse."""
        return Emit(
            topics.CHANGES,
            self.step.org,
            PulseEnd(org=self.step.org, connection=self.step.connection, until=self.until),
        )

    async def _changed(self, kind: EntityKind) -> Failure | None:
        offset = 0
        for number in range(MAX_PAGES):
            with self._look() as look:
                answer = await self.source.changed(kind, self.step.since, offset, Priority.WEBHOOK)
            if not isinstance(answer, PageOf):
                return answer
            if kind is CHANGING[0] and number == 0 and answer.at is not None:
                self.until = answer.at
            self._emit(kind, answer, look.first)
            offset += answer.rows
            if answer.rows == 0 or (answer.total is not None and offset >= answer.total):
                break
        return None

    async def _listed(self) -> Failure | None:
        with self._look() as look:
            answer = await self.source.page(EntityKind.LISTING, 0, Priority.WEBHOOK)
        if not isinstance(answer, PageOf):
            return None if may_be_left_out(EntityKind.LISTING, answer) else answer
        now = listings_of(answer)
        if now is None:
            return None
        before = self.flow.remember(self.step, now)
        changed = changed_listings(answer, before)
        self._emit(EntityKind.LISTING, PageOf(changed, len(changed), answer.total), look.first)
        for unit in unlisted(now, before):
            at = self.flow.clock.now()
            self.emits.append(refetch(self.step, EntityKind.LISTING, unit, RefetchReason.UNLISTED, at))
        return None

    def _look(self) -> Look:
        return Look(self.flow.sequence, self.partition, self.flow.clock, sequences(self.source.page_size))

    def _emit(self, kind: EntityKind, page: PageOf, seq: int) -> None:
        made = pages(self.step, kind, page.items, seq, self.flow.clock.now())
        self.emits += [page_out(one) for one in made]
