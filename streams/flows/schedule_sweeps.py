"""``schedule_sweeps``: starts the full reads of accounts that are due."""

from collections.abc import Iterator, Mapping
from datetime import datetime, timedelta
from typing import Final

from connectors.ports import Clock, Connection
from schemas import topics
from schemas.base import EntityKind
from schemas.pms import SweepStep
from schemas.rent_roll import AccountRow, SeenRow
from streams.core.flows import Barrier, Emit, View
from streams.core.pace import Pace
from streams.core.rent_roll import STAGES, account_key, scope, seen_key
from streams.core.rent_roll.keys import stamp
from streams.core.rows import look_up
from streams.core.spread import Share, share_of
from streams.core.sweep import following, sweep_id
from streams.directory.directory import Directory
from streams.topology import RENT_ROLL

LOOK: Final = 5.0
"""Seconds between two looks at the accounts of a partition, while no configuration changes."""


class ScheduleSweeps:
    """Starts a sweep in every slot of an account, and when its connection is enabled.

    It starts none of which the rent roll shows that it began. The slots of the accounts are spread over the interval.

    A connection that was enabled is swept at once: what happened while it was disabled was not followed. The same if it
    was changed after a sweep had failed: the change may have corrected what was wrong.

    Sweeps are ordered by their ids, which are times. If a process whose clock was ahead has named one, the next ones
    are named after it, at the usual interval, until the time has caught up.
    """

    def __init__(
        self, directory: Directory, every: float, partitions: int, clock: Clock, share: Share = share_of
    ) -> None:
        """``every``: seconds between two sweeps of a connection."""
        self._share = share
        self._directory = directory
        self._every = every
        self._partitions = partitions
        self._clock = clock
        self._begun: dict[tuple[str, str], str] = {}
        self._ahead: dict[tuple[str, str], float] = {}
        """When the last sweep was started whose id is ahead of the time, by `Clock.monotonic`."""
        self._pace = Pace(LOOK)

    def step(self, views: Mapping[str, View], partition: int) -> Iterator[Emit | Barrier]:
        """Emit the first step of each sweep that is due on this partition; remember it once that is durable."""
        now, looks = self._clock.now(), (partition, self._directory.configured, self._clock.monotonic())
        if not self._pace.is_due(*looks):
            return
        begun: dict[tuple[str, str], str] = {}
        ahead: dict[tuple[str, str], float] = {}
        for one in self._directory.on_partition(partition, self._partitions).connections:
            if not one.enabled:
                continue
            key = (one.org, one.name)
            slot = sweep_id(now, self._every, self._share(f"{one.org}/{one.name}"))
            due, horizon = max(slot, self._called_for(one, now)), stamp(now + timedelta(seconds=self._every))
            if due <= self._begun.get(key, "") <= horizon:
                continue
            last = max(_last(views[RENT_ROLL], one), self._begun.get(key, ""))
            if last > horizon:
                if not self._is_due_ahead(key):
                    continue
                due, ahead[key] = following(last), self._clock.monotonic()
            begun[key] = due
            if last >= due:
                continue
            step = SweepStep(org=one.org, connection=one.name, sweep=due, started_at=now, stage=EntityKind.PROPERTY)
            yield Emit(topics.SWEEPS, one.org, step)
        if begun:
            yield Barrier.DURABLE
        self._begun |= begun
        self._ahead |= ahead
        self._pace.looked(*looks)

    def _is_due_ahead(self, key: tuple[str, str]) -> bool:
        """Return whether the interval has passed since the last sweep with an id that is ahead of the time."""
        begun = self._ahead.get(key)
        return begun is None or self._clock.monotonic() - begun >= self._every

    def _called_for(self, connection: Connection, now: datetime) -> str:
        """Return the id of the sweep that its enabling or its correction calls for."""
        entry = self._directory.get(connection.org, connection.name)
        record = entry.record if entry else None
        if record is None or record.enabled_at is None:
            return ""
        failed_at = self._directory.sync_failed_at(connection.org, connection.name)
        corrected = failed_at is not None and failed_at < record.changed_at
        return stamp(min(record.changed_at if corrected else record.enabled_at, now))


def _last(roll: View, connection: Connection) -> str:
    """Return the newest sweep of a connection in the rent roll, complete or begun."""
    at = scope(connection.org, connection.name)
    begun = look_up(roll, SeenRow, seen_key(at, STAGES[0], 0))
    complete = look_up(roll, AccountRow, account_key(at))
    return max(begun.sweep if begun else "", complete.sweep if complete else "")
