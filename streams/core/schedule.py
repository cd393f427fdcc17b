"""When a receiver's regular snapshot is due: the latest moment of its schedule, moved by a little for each receiver."""

from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Final
from zoneinfo import ZoneInfo

from cronsim import CronSim

from connectors.ports import Schedule
from streams.core.spread import share_of

SPREAD: Final = timedelta(minutes=5)
"""Over this time, or a twelfth of the pause between two snapshots if that is less, the receivers are spread."""


def latest_due(schedule: Schedule, name: str, now: datetime) -> datetime:
    """Return the latest moment of a schedule whose snapshot is due at ``now``, in UTC.

    ``name`` moves the start of this receiver's snapshots, not the moment itself. Of several missed ones only the latest
    is returned. Raise `cronsim.CronSimError` if the schedule is invalid.
    """
    before, last, following = _around(schedule, now.astimezone(UTC).replace(microsecond=0))
    return last if now >= last + _offset(name, following - last) else before


@lru_cache(maxsize=4096)
def _around(schedule: Schedule, now: datetime) -> tuple[datetime, datetime, datetime]:
    """Return the last two moments of a schedule at ``now`` and the next one.

    A local time that a change of the clocks leaves out or repeats counts once, as in Debian's cron.
    """
    zone = ZoneInfo(schedule.timezone)
    past = CronSim(schedule.cron, (now + timedelta(seconds=1)).astimezone(zone), reverse=True)
    last, before = (next(past).astimezone(UTC) for _ in range(2))
    return before, last, next(CronSim(schedule.cron, now.astimezone(zone))).astimezone(UTC)


def _offset(name: str, pause: timedelta) -> timedelta:
    return share_of(name) * min(SPREAD, pause / 12)
