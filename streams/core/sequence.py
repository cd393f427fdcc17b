"""The fetch sequence of an org, which orders snapshots because those of a PMS have no version."""

from contextvars import Token
from datetime import datetime
from typing import Self

from connectors.ports import MAY_CALL, Clock, WaitToCall


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


class Look:
    """A context for the requests of one look at a PMS, and its numbers: they are taken when the first one is sent.

    A request may wait long for its turn in the API budget. With a number from before that wait, what it brings would
    count as older than what another request brought meanwhile.
    """

    def __init__(self, sequence: FetchSequence, partition: int, clock: Clock, count: int = 1) -> None:
        """``count``: how many numbers the look needs, one for each record that it may fill."""
        self._sequence, self._partition, self._clock, self._count = sequence, partition, clock, count
        self._sent = False
        self._outer: Token[WaitToCall | None] | None = None
        self.first = self._take()
        """The first of its numbers."""

    def __enter__(self) -> Self:
        outer = MAY_CALL.get()

        async def wait() -> None:
            if outer is not None:
                await outer()
            if not self._sent:
                self._sent, self.first = True, self._take()

        self._outer = MAY_CALL.set(wait)
        return self

    def __exit__(self, *_: object) -> None:
        assert self._outer is not None
        MAY_CALL.reset(self._outer)

    def _take(self) -> int:
        return self._sequence.take(self._partition, self._clock.now(), self._count)
