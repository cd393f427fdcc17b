"""``count_doubts``: counts the units whose data in the PMS is doubtful, and connections without a time zone."""

from collections import Counter
from collections.abc import Iterator, Mapping

from schemas.codec import decode_as
from schemas.delivery import Doubt, DoubtsRow
from schemas.partitions import partition_for
from streams.core.doubts import doubts_of
from streams.core.flows import DoubtChange, Emit, View
from streams.core.observer import Observer
from streams.directory.directory import Directory
from streams.topology import DELIVERIES


class CountDoubts:
    """Counts what `streams.core.doubts` has noted, for enabled connections; emits nothing."""

    def __init__(self, directory: Directory, partitions: int, observer: Observer) -> None:
        self._directory = directory
        self._partitions = partitions
        self._observer = observer
        self._without_zone: set[tuple[str, str]] = set()
        """Connections that were last seen without a time zone."""

    def step(self, views: Mapping[str, View], partition: int) -> Iterator[Emit | None]:
        """Count the doubts of a partition; yield null between properties, so that other work may go on."""
        counts: Counter[Doubt] = Counter()
        for one in self._directory.connections():
            if partition_for(one.org, self._partitions) != partition:
                continue
            self._look_at_zone(one.org, one.name, missing=one.enabled and one.timezone_is_default)
            if not one.enabled:
                continue
            counts[Doubt.NO_TIME_ZONE] += one.timezone_is_default
            for _, raw in views[DELIVERIES].scan(doubts_of(one.org, one.name)):
                for unit in decode_as(DoubtsRow, raw).units:
                    counts.update(unit.doubts)
                yield None
        self._observer.doubts_counted(partition, counts)

    def _look_at_zone(self, org: str, connection: str, *, missing: bool) -> None:
        key = (org, connection)
        if missing == (key in self._without_zone):
            return
        (self._without_zone.add if missing else self._without_zone.discard)(key)
        self._observer.doubt_changed(DoubtChange(org, connection, Doubt.NO_TIME_ZONE, missing))
