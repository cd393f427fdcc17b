"""The org's own order of fetches: PMS snapshots carry no version, so we count the calls that brought them."""

from datetime import datetime


class FetchSequence:
    """A number per partition that only grows, also across owners whose clocks disagree.

    It is the time in microseconds, or one more than the last where the clock did not move. A new owner of a partition
    is seeded with the last number that its predecessor wrote, so that its own are later even on a slower clock.
    """

    def __init__(self) -> None:
        self._last: dict[int, int] = {}

    def seed(self, partition: int, seen: int) -> None:
        """Continue after ``seen``, if that is later than the last number."""
        self._last[partition] = max(seen, self._last.get(partition, 0))

    def take(self, partition: int, now: datetime, count: int = 1) -> int:
        """Take ``count`` consecutive numbers; return the first of them."""
        first = max(int(now.timestamp() * 1_000_000), self._last.get(partition, 0) + 1)
        self._last[partition] = first + count - 1
        return first
