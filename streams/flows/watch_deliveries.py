"""``watch_deliveries``: finds the oldest change that a receiver has not acknowledged, parked ones included."""

from collections.abc import Iterator, Mapping
from datetime import datetime

from connectors.ports import Clock
from schemas.codec import decode
from schemas.delivery import DeliveryPhase, DeliveryRow
from streams.core.flows import Emit, View
from streams.core.observer import Observer
from streams.topology import DELIVERIES


class WatchDeliveries:
    """Reports, for each partition and receiver, the age of the oldest change that is not delivered."""

    def __init__(self, sinks: tuple[str, ...], clock: Clock, observer: Observer) -> None:
        self._sinks = sinks
        self._clock = clock
        self._observer = observer

    def step(self, views: Mapping[str, View], partition: int) -> Iterator[Emit | None]:
        """Look through the rows of a partition; says nothing, and yields null so that other work may go on."""
        first: dict[str, datetime] = {}
        for key, raw in views[DELIVERIES].scan(b""):
            row = decode(raw)
            if isinstance(row, DeliveryRow) and (since := _since(row)) is not None:
                sink = key.split(b"/")[1].decode()
                first[sink] = min(since, first.get(sink, since))
            yield None
        now = self._clock.now()
        for sink in self._sinks:
            self._observer.oldest_undelivered(
                sink, partition, (now - first[sink]).total_seconds() if sink in first else 0.0
            )


def _since(row: DeliveryRow) -> datetime | None:
    moments = [row.dirty_since, row.seen_at if row.phase is not DeliveryPhase.IDLE else None]
    return min((one for one in moments if one is not None), default=None)
