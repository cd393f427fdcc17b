"""The fetch sequence of an org, which orders snapshots because those of a PMS have no version."""

from datetime import datetime


class FetchSequence:
    """An increasing number for each partition, also across workers whose clocks differ.

    It is the time in microseconds, or one more than the last number if the clock did not advance. A new owner of a
    partition is seeded with the last number that its predecessor wrote, so that its numbers are greater even if its
    clock is behind.
    """

    def __init__(self) -> None:
        self._last: dict[int, int] = {}

    def seed(self, partition: int, last: int) -> None:
        """Continue after ``last``, if it is greater than the last number of this worker."""
        self._last[partition] = max(last, self._last.get(partition, 0))

    def take(self, partition: int, now: datetime, count: int = 1) -> int:
        """Reserve ``count`` consecutive numbers; return the first one."""
        first = max(int(now.timestamp() * 1_000_000), self._last.get(partition, 0) + 1)
        self._last[partition] = first + count - 1
        return first
