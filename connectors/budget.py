"""The API budget of one connection: how many calls may run and start, and who goes first.

Buildium allows "10 concurrent requests per second" and does not say whether that is a rate or a concurrency, so both
are kept: at most so many in flight and at most so many starts in any sliding window.

The other side counts a call when it arrives, which is some time between its start here and its end. Two bursts that
start a second apart may so arrive within one; therefore a call counts from its start, and its second begins when it
must have arrived: at its end, or after the longest ``transit``.
"""

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Final

from connectors.ports import Clock, Priority

_EPSILON: Final = 1e-6
"""Seconds: two readings of a clock that differ by less are the same moment."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What one connection may do; ``spare`` of both is kept from sweeps, so that a notice never waits for one."""

    in_flight: int = 10
    starts: int = 10
    window: float = 1.0
    transit: float = 0.15
    spare_in_flight: int = 2
    spare_starts: int = 1


@dataclass(slots=True, eq=False)
class _Start:
    """A call that was started and may still count; ``counts_until`` comes nearer when it ends early."""

    counts_until: float


class Budget:
    """Serves waiters by priority, first come first served within one, as the limits allow.

    Every admission takes place in `_serve`, a plain function that runs when somebody comes, leaves, or a moment has
    come; nothing is awaited inside, so no cancellation can tear it.
    """

    def __init__(self, clock: Clock, limits: Limits | None = None) -> None:
        self._clock = clock
        self._limits = limits or Limits()
        self._waiting: dict[Priority, deque[asyncio.Future[_Start]]] = {priority: deque() for priority in Priority}
        self._in_flight = 0
        self._starts: list[_Start] = []
        self._paused_until = float("-inf")
        self._alarm: asyncio.Task[None] | None = None
        self._alarm_at = float("inf")

    @asynccontextmanager
    async def slot(self, priority: Priority) -> AsyncIterator[None]:
        """Room for one call; leaving gives it back."""
        start = await self._enter(priority)
        try:
            yield
        finally:
            self._leave(start)

    def slow_down(self, seconds: float) -> None:
        """Nobody on this connection starts a call for so long (a 429 was answered)."""
        self._paused_until = max(self._paused_until, self._clock.monotonic() + seconds)

    @property
    def in_flight(self) -> int:
        return self._in_flight

    @property
    def waiting(self) -> int:
        return sum(not admitted.done() for queue in self._waiting.values() for admitted in queue)

    @property
    def used_ratio(self) -> float:
        """How much of it is in use, 0 to 1: what is nearer to its limit of the calls running and the calls started."""
        now = self._clock.monotonic()
        counting = sum(start.counts_until - now > _EPSILON for start in self._starts)
        return max(self._in_flight / self._limits.in_flight, counting / self._limits.starts)

    async def aclose(self) -> None:
        """Ends the alarm; who still waits is cancelled."""
        for queue in self._waiting.values():
            for admitted in queue:
                admitted.cancel()
        if self._alarm:
            self._alarm.cancel()
            await asyncio.gather(self._alarm, return_exceptions=True)
            self._alarm = None

    async def _enter(self, priority: Priority) -> _Start:
        admitted: asyncio.Future[_Start] = asyncio.get_running_loop().create_future()
        self._waiting[priority].append(admitted)
        self._serve()
        try:
            return await admitted
        except asyncio.CancelledError:
            if admitted.done() and not admitted.cancelled():  # admitted in the same moment: the room is given back
                self._leave(admitted.result())
            else:
                admitted.cancel()
                self._serve()
            raise

    def _leave(self, start: _Start) -> None:
        self._in_flight -= 1
        start.counts_until = min(start.counts_until, self._clock.monotonic() + self._limits.window)
        self._serve()

    def _serve(self) -> None:
        now = self._clock.monotonic()
        self._starts = [start for start in self._starts if start.counts_until - now > _EPSILON]
        due = float("inf")
        for priority in Priority:
            queue = self._waiting[priority]
            while queue:
                if queue[0].done():
                    queue.popleft()
                    continue
                wait = self._wait(priority, now)
                if wait > 0:
                    due = now + wait
                    break
                start = _Start(now + self._limits.transit + self._limits.window)
                self._starts.append(start)
                self._in_flight += 1
                queue.popleft().set_result(start)
            if queue:
                break  # nobody overtakes who goes first
        self._wake_at(due, now)

    def _wait(self, priority: Priority, now: float) -> float:
        """Seconds until the next of this priority may start; infinite: when somebody leaves."""
        limits, sweep = self._limits, priority is Priority.SWEEP
        if self._in_flight >= limits.in_flight - limits.spare_in_flight * sweep:
            return float("inf")
        wait = max(0.0, self._paused_until - now)
        too_many = len(self._starts) - (limits.starts - limits.spare_starts * sweep)
        if too_many >= 0:
            wait = max(wait, sorted(start.counts_until for start in self._starts)[too_many] - now)
        return wait if wait > _EPSILON else 0.0

    def _wake_at(self, due: float, now: float) -> None:
        if due == float("inf") or (self._alarm and not self._alarm.done() and self._alarm_at <= due):
            return
        if self._alarm:
            self._alarm.cancel()
        self._alarm_at = due
        self._alarm = asyncio.create_task(self._ring(due - now), name="api-budget")

    async def _ring(self, seconds: float) -> None:
        await self._clock.sleep(seconds)
        self._alarm, self._alarm_at = None, float("inf")
        self._serve()
