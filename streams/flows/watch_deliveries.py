"""``watch_deliveries``: finds the oldest change that a receiver has not acknowledged, parked ones included."""

from collections.abc import Iterator, Mapping
from datetime import datetime

from connectors.ports import Clock
from schemas.codec import decode
from schemas.delivery import DeliveryPhase, DeliveryRow
from streams.core.flows import Emit, View
from streams.core.observer import Observer
from streams.directory.directory import Directory
from streams.topology import DELIVERIES


class WatchDeliveries:
    """Reports, for each partition and kind of receiver, the age of the oldest change that is not delivered."""

    def __init__(self, directory: Directory, clock: Clock, observer: Observer) -> None:
        self._directory = directory
        self._clock = clock
        self._observer = observer

    def step(self, views: Mapping[str, View], partition: int) -> Iterator[Emit | None]:
        """Look at the rows of a partition; emit nothing, and yield null so that other work may go on."""
        first: dict[str, datetime] = {}
        enabled: dict[tuple[str, str], bool] = {}
        for key, raw in views[DELIVERIES].scan(b""):
            row = decode(raw)
            if isinstance(row, DeliveryRow) and (since := _since(row)) is not None:
                org, name = (part.decode() for part in key.split(b"/")[:2])
                if (org, name) not in enabled:
                    enabled[org, name] = any(one.name == name for one in self._directory.sinks(org))
                if enabled[org, name]:
                    system = self._directory.system_of(org, name)
                    first[system] = min(since, first.get(system, since))
            yield None
        now = self._clock.now()
        for system in self._directory.sink_systems:
            age = (now - first[system]).total_seconds() if system in first else 0.0
            self._observer.oldest_undelivered(system, partition, age)


def _since(row: DeliveryRow) -> datetime | None:
    moments = [row.dirty_since, row.seen_at if row.phase is not DeliveryPhase.IDLE else None]
    return min((one for one in moments if one is not None), default=None)
