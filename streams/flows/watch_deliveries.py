"""``watch_deliveries``: finds what a receiver has not acknowledged, and brings back what no record would.

It reports the age of the oldest change, whatever the state of its delivery. `streams.core.delivery.recall` decides what
is tried again.
"""

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime

from connectors.ports import Clock
from schemas import topics
from schemas.delivery import DeliveryDue, DeliveryPhase, DeliveryRow, DueReason, ReceiverRow
from schemas.rent_roll import AccountRow
from streams.core.delivery import deliveries_of, delivery_key, is_open, open_of, property_of, receiver_key
from streams.core.delivery.recall import LOST_AFTER, Delivery, recalled
from streams.core.flows import Barrier, Emit, View
from streams.core.observer import Observer
from streams.core.rent_roll import account_key, scope
from streams.core.rows import look_up, readable
from streams.directory.directory import Directory
from streams.topology import DELIVERIES, RENT_ROLL


@dataclass(frozen=True, slots=True)
class _Seen:
    """A row as this process saw it."""

    content: int
    """Hash of its bytes."""
    since: datetime
    recalled_at: datetime | None = None


@dataclass(slots=True)
class _Pass:
    """What one pass over a partition found."""

    views: Mapping[str, View]
    now: datetime
    oldest: dict[str, datetime] = field(default_factory=dict)
    """The oldest change that is not delivered, by kind of receiver."""
    dead_letters: Counter[str] = field(default_factory=Counter)
    """Deliveries whose dead letter is still open, by kind of receiver."""
    deliveries: dict[tuple[str, str], list[Delivery]] = field(default_factory=dict)
    """Rows that are not idle, by receiver (org, name)."""
    seen: dict[bytes, _Seen] = field(default_factory=dict)
    swept: dict[tuple[str, str], datetime | None] = field(default_factory=dict)
    """When the last complete sweep of each connection ended."""


class WatchDeliveries:
    """Reports the oldest undelivered change of each partition and kind of receiver, and emits what is tried again."""

    def __init__(self, directory: Directory, partitions: int, clock: Clock, observer: Observer) -> None:
        self._directory = directory
        self._partitions = partitions
        self._clock = clock
        self._observer = observer
        self._seen: dict[int, Mapping[bytes, _Seen]] = {}
        """By partition: the rows that were not idle in the last pass.

        The first pass looks at every delivery, because those that a former release opened are not in the index.
        """

    def step(self, views: Mapping[str, View], partition: int) -> Iterator[Emit | Barrier | None]:
        """Look at the open deliveries of a partition; yield null between them, so that other work may go on."""
        found, before = _Pass(views, self._clock.now()), self._seen.get(partition, {})
        for org in self._directory.on_partition(partition, self._partitions).orgs:
            for policy in self._directory.sinks(org):
                for key in self._keys(views, org, policy.name, in_full=partition not in self._seen):
                    raw = views[DELIVERIES].get(key)
                    if raw is not None:
                        self._look(found, before, key, raw)
                    yield None
            yield None
        for (org, name), deliveries in found.deliveries.items():
            for one in recalled(deliveries, _acknowledged_at(views, org, name), found.now):
                seen = found.seen[one.key]
                if seen.recalled_at is None or found.now - seen.recalled_at >= LOST_AFTER:
                    found.seen[one.key] = replace(seen, recalled_at=found.now)
                    yield Emit(topics.DUE, org, _retry(one, org, name, found.now))
        yield Barrier.DURABLE
        self._seen[partition] = found.seen
        for system in self._directory.sink_systems:
            since = found.oldest.get(system)
            self._observer.oldest_undelivered(system, partition, (found.now - since).total_seconds() if since else 0.0)
        counts = {system: found.dead_letters[system] for system in self._directory.sink_systems}
        self._observer.dead_letters_open(partition, counts)

    def _keys(self, views: Mapping[str, View], org: str, sink: str, *, in_full: bool) -> Iterator[bytes]:
        """Return the keys of the open deliveries of a receiver, or of all of its deliveries."""
        if in_full:
            for source in self._directory.connections(org):
                yield from (key for key, _ in views[DELIVERIES].scan(deliveries_of(org, sink, source.name)))
        else:
            prefix = open_of(org, sink)
            for key, _ in views[DELIVERIES].scan(prefix):
                connection, number = key[len(prefix) :].decode().split("/")
                yield delivery_key(org, sink, connection, int(number))

    def _look(self, found: _Pass, before: Mapping[bytes, _Seen], key: bytes, raw: bytes) -> None:
        """Note a row whose receiver does not know everything."""
        row = readable(DeliveryRow, key, raw)
        if row is None or not is_open(row):
            return
        org, name, connection = (part.decode() for part in key.split(b"/")[:3])
        system = self._directory.system_of(org, name)
        found.dead_letters[system] += row.dead_letter is not None
        if (since := _since(row)) is not None:
            found.oldest[system] = min(since, found.oldest.get(system, since))
        if row.phase is DeliveryPhase.IDLE:
            return
        seen = before.get(key)
        if seen is None or seen.content != hash(raw):
            seen = _Seen(hash(raw), found.now)
        found.seen[key] = seen
        if (org, connection) not in found.swept:
            found.swept[org, connection] = _swept_at(found.views, org, connection)
        unchanged_since = max(seen.since, seen.recalled_at or seen.since)
        one = Delivery(key, row, found.swept[org, connection], unchanged_since)
        found.deliveries.setdefault((org, name), []).append(one)


def _since(row: DeliveryRow) -> datetime | None:
    moments = [row.dirty_since, row.seen_at if row.phase is not DeliveryPhase.IDLE else None]
    return min((one for one in moments if one is not None), default=None)


def _acknowledged_at(views: Mapping[str, View], org: str, name: str) -> datetime | None:
    row = look_up(views[DELIVERIES], ReceiverRow, receiver_key(org, name))
    return row.acknowledged_at if row else None


def _swept_at(views: Mapping[str, View], org: str, connection: str) -> datetime | None:
    row = look_up(views[RENT_ROLL], AccountRow, account_key(scope(org, connection)))
    return row.completed_at if row else None


def _retry(one: Delivery, org: str, sink: str, now: datetime) -> DeliveryDue:
    """Return the request to try a delivery again, without using up an attempt."""
    connection, property_id = property_of(one.key)
    return DeliveryDue(
        org=org,
        connection=connection,
        property_id=property_id,
        reason=DueReason.RETRY,
        seen_at=one.row.seen_at or now,
        sink=sink,
        version=one.row.version,
        attempt=one.row.attempt,
        held=True,
    )
