"""``watch_accounts``: counts what a person should look at: doubts, removals that wait, accounts not read whole yet."""

from collections import Counter
from collections.abc import Iterator, Mapping

from schemas.base import Row
from schemas.delivery import Doubt, DoubtfulUnit, DoubtsRow
from schemas.rent_roll import AccountRow
from streams.core.doubts import doubts_of
from streams.core.flows import DoubtChange, Emit, View
from streams.core.observer import Observer
from streams.core.rent_roll import account_key, scope
from streams.core.rows import look_up, readable
from streams.directory.directory import Directory
from streams.topology import DELIVERIES, RENT_ROLL


class WatchAccounts:
    """Counts what the folds have noted of enabled connections; emits nothing."""

    def __init__(self, directory: Directory, partitions: int, observer: Observer) -> None:
        self._directory = directory
        self._partitions = partitions
        self._observer = observer
        self._without_zone: set[tuple[str, str]] = set()
        """Connections that were last seen without a time zone."""

    def step(self, views: Mapping[str, View], partition: int) -> Iterator[Emit | None]:
        """Look at the accounts of a partition; yield null between units, so that other work may go on."""
        doubts, held, unswept = Counter[Doubt](), Counter[str](), Counter[str]()
        for one in self._directory.on_partition(partition, self._partitions).connections:
            self._look_at_zone(one.org, one.name, missing=one.enabled and one.timezone_is_default)
            if not one.enabled:
                continue
            doubts[Doubt.NO_TIME_ZONE] += one.timezone_is_default
            account = look_up(views[RENT_ROLL], AccountRow, account_key(scope(one.org, one.name)))
            held[one.system] += account.held_back if account else 0
            unswept[one.system] += account is None
            for key, raw in views[DELIVERIES].scan(doubts_of(one.org, one.name)):
                row = readable(Row, key, raw)
                for unit in row.units if isinstance(row, DoubtsRow) else (row,):
                    if isinstance(unit, DoubtfulUnit):
                        doubts.update(unit.doubts)
                yield None
        self._observer.doubts_counted(partition, doubts)
        self._observer.removals_counted(partition, held)
        self._observer.unswept_counted(partition, unswept)

    def _look_at_zone(self, org: str, connection: str, *, missing: bool) -> None:
        key = (org, connection)
        if missing == (key in self._without_zone):
            return
        (self._without_zone.add if missing else self._without_zone.discard)(key)
        self._observer.doubt_changed(DoubtChange(org, connection, Doubt.NO_TIME_ZONE, missing))
