"""What the tests of flows share: the integrations of a process, an account and a receiver that a test plays."""

import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from itertools import takewhile
from typing import Any

from connectors.ports import Accepted, Failure, Fetched, Found, Gone, PageOf, Priority, Snapshot, Unavailable
from schemas.base import EntityKind, Model
from schemas.codec import encode
from schemas.delivery import Batch
from schemas.integrations import Integration, SyncProgress
from schemas.rent_roll import ListingSnapshot
from streams.backends.memory import MovableClock
from streams.backends.ports import ConsumedRecord
from streams.core.flows import Barrier, Emit, Headers
from streams.core.retry import Dead, Done, Held, Parked
from streams.directory.clients import Clients
from streams.directory.directory import Directory
from streams.directory.entry import AnySystem
from tests.streams.directory import records
from tests.streams.directory.stage import ring
from tests.streams.directory.systems import FakePms, FakePortal, Sink, Source

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
ORG, CONNECTION, RECEIVER = "default", "buildium", "rentsync"
DOWN = Unavailable("down", 503)


def account(
    org: str = ORG, name: str = CONNECTION, *, secret: str = "", timezone: str = "UTC", **more: Any
) -> Integration:
    """Return an enabled connection; the test finds its client by its secret, which is its org if none is given."""
    values = records.settings(baseUrl="https://pms.example/77", timezone=timezone, makeReadyDays=more.pop("days", 0))
    return records.pms(org, name, secret=secret or org, **{"settings": values, **more})


def receiver(org: str = ORG, name: str = RECEIVER, **more: Any) -> Integration:
    """Return an enabled receiver."""
    return records.portal(org, name, **more)


@dataclass
class Account(Source):
    """A small account: what it holds by kind, and how it refuses."""

    entities: dict[EntityKind, list[Snapshot]] = field(default_factory=dict)
    failures: dict[EntityKind, Failure] = field(default_factory=dict)
    fetched: list[tuple[EntityKind, int]] = field(default_factory=list)
    read: list[tuple[EntityKind, int]] = field(default_factory=list)
    asked: list[tuple[EntityKind, datetime, int]] = field(default_factory=list)
    """Which changes it was asked for: of which kind, since when, from which offset."""
    at: datetime | None = None
    """What its clock shows."""
    page_size: int = 2

    def holds(self, kind: EntityKind, *snapshots: Snapshot) -> None:
        self.entities[kind] = list(snapshots)

    async def fetch(self, kind: EntityKind, entity: int, priority: Priority = Priority.WEBHOOK) -> Fetched | Failure:
        self.fetched.append((kind, entity))
        if failure := self.failures.get(kind):
            return failure
        found = [one for one in self._found(kind) if one.id == entity]
        return Fetched(tuple(found) or (Gone(kind, entity),))

    async def page(self, kind: EntityKind, offset: int, priority: Priority = Priority.SWEEP) -> PageOf | Failure:
        self.read.append((kind, offset))
        if failure := self.failures.get(kind):
            return failure
        found = self._found(kind)
        items = found[offset : offset + self.page_size]
        return PageOf(tuple(items), len(items), len(found))

    async def changed(
        self, kind: EntityKind, since: datetime, offset: int, priority: Priority = Priority.WEBHOOK
    ) -> PageOf | Failure:
        self.asked.append((kind, since, offset))
        page = await self.page(kind, offset, priority)
        return replace(page, at=self.at) if isinstance(page, PageOf) else page

    async def all_of(
        self, kind: EntityKind, property_id: int, priority: Priority = Priority.WEBHOOK
    ) -> Fetched | Failure:
        self.fetched.append((kind, property_id))
        if failure := self.failures.get(kind):
            return failure
        return Fetched(
            tuple(one for one in self._found(kind) if getattr(one.snapshot, "property_id", None) == property_id)
        )

    def _found(self, kind: EntityKind) -> list[Found]:
        return [
            Found(kind, one.unit_id if isinstance(one, ListingSnapshot) else one.id, one)
            for one in self.entities.get(kind, [])
        ]


@dataclass
class Receiver(Sink):
    """Answers as the test wants, and keeps what it was sent."""

    answer: Accepted | Failure = field(default_factory=lambda: Accepted(200))
    batches: list[Batch] = field(default_factory=list)

    async def deliver(self, batch: Batch) -> Accepted | Failure:
        self.batches.append(batch)
        return self.answer


class Site:
    """The integrations as one process knows them; the test stores, changes and deletes them."""

    def __init__(
        self, *integrations: Integration, clock: MovableClock | None = None, more: Iterable[FakePortal] = ()
    ) -> None:
        """``more``: kinds of receivers beside the one of `receiver`."""
        self.clock = clock or MovableClock(NOW)
        self.accounts: dict[str, Source] = {}
        """The clients of connections, by client secret: at first an empty account."""
        self.receivers: dict[str, Receiver] = {}
        """The clients of receivers, by name: at first one that takes everything."""
        pms, portal = FakePms(make=self._account), FakePortal(make=self._receiver)
        systems: dict[str, AnySystem] = {"pms": pms, "portal": portal}
        systems |= {one.name: one for one in more}
        self.directory = Directory(systems, {}, True, ring("k1"))
        self.clients = Clients(self.directory, self.clock, random.Random(1))
        self.put(*integrations)

    def put(self, *integrations: Integration) -> None:
        records.put(self.directory, *integrations)

    def delete(self, name: str, org: str = ORG) -> None:
        records.delete(self.directory, org, name)

    def account(self, secret: str = ORG) -> Account:
        found = self._account(secret)
        assert isinstance(found, Account)
        return found

    def receiver(self, name: str = RECEIVER) -> Receiver:
        return self._receiver("", name)

    def _account(self, secret: str) -> Source:
        return self.accounts.setdefault(secret, Account(secret))

    def _receiver(self, secret: str, name: str) -> Receiver:
        return self.receivers.setdefault(name, Receiver(secret, name=name))


def consumed(topic: str, record: Model, headers: Headers = (), *, offset: int = 0, org: str = ORG) -> ConsumedRecord:
    """Return a record as it came off a topic."""
    return ConsumedRecord(topic, 0, offset, 0, org.encode(), encode(record), headers)


def done(answer: object) -> tuple[Emit, ...]:
    """Return what follows from a record that is dealt with."""
    assert isinstance(answer, Done), answer
    return answer.effects


def held(answer: object) -> Held:
    """Return the hold of a record that could not be tried."""
    assert isinstance(answer, Held), answer
    return answer


def parked(answer: object) -> Parked:
    assert isinstance(answer, Parked), answer
    return answer


def dead(answer: object) -> Dead:
    assert isinstance(answer, Dead), answer
    return answer


def progresses(effects: Sequence[Emit]) -> list[SyncProgress]:
    """Return the progress that people are shown."""
    return [one.record for one in effects if isinstance(one.record, SyncProgress)]


def emits_of(steps: Iterable[Emit | Barrier | None]) -> list[Emit]:
    """Run a scan of a partition to its end, and return what it emitted."""
    return [one for one in steps if isinstance(one, Emit)]


def unwritten(steps: Iterable[Emit | Barrier | None]) -> list[Emit]:
    """Run a scan to its first barrier and no further, as when partitions move before its records are written."""
    return emits_of(takewhile(lambda one: one is not Barrier.DURABLE, steps))
