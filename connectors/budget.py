"""The API budget of one connection: limits on calls in flight and on starts, and the priority of waiting calls.

Buildium allows "10 concurrent requests per second" and does not specify whether that is a rate or a concurrency, so
both are limited: the calls in flight, and the starts in any sliding window.

The server counts a call when it arrives, which is between its start here and its end. Two bursts that start one second
apart can therefore arrive within one second. So a call counts from its start, and its window begins when it must have
arrived: at its end, or after the longest ``transit``.
"""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Final

from connectors.ports import HASTE, Clock, Priority

_EPSILON: Final = 1e-6
"""Seconds; a smaller difference between two times is a rounding error."""


@dataclass(frozen=True, slots=True)
class Limits:
    """The limits of one connection; some priorities leave ``spare`` ones free, so that a webhook never waits for them.

    A sweep is one call after another; a replay may be very many at once, each of which is no more urgent than the last.
    ``window`` and ``transit`` are in seconds.
    """

    in_flight: int = 10
    starts: int = 10
    window: float = 1.0
    transit: float = 0.15
    spare_in_flight: Mapping[Priority, int] = field(
        default_factory=lambda: {Priority.SWEEP: 2, Priority.REPLAY: 5}, hash=False
    )
    spare_starts: Mapping[Priority, int] = field(
        default_factory=lambda: {Priority.SWEEP: 1, Priority.REPLAY: 5}, hash=False
    )


@dataclass(slots=True, eq=False)
class _Start:
    """The start of a call; ``counts_until`` is when it leaves the window, which becomes earlier if the call ends."""

    counts_until: float


class Budget:
    """Admits calls within the limits, ordered by priority and then by arrival.

    Every admission takes place in `_admit`, which runs when a call arrives or ends and when the timer fires. It awaits
    nothing, so a cancellation cannot interrupt it.
    """

    def __init__(self, clock: Clock, limits: Limits | None = None) -> None:
        self._clock = clock
        self._limits = limits or Limits()
        self._waiting: dict[Priority, deque[asyncio.Future[_Start]]] = {priority: deque() for priority in Priority}
        self._in_flight = 0
        self._starts: list[_Start] = []
        self._paused_until = float("-inf")
        self._timer: asyncio.Task[None] | None = None
        self._timer_at = float("inf")

    @asynccontextmanager
    async def slot(self, priority: Priority) -> AsyncIterator[None]:
        """Wait until a call may start; leaving the context ends the call."""
        start = await self._enter(priority)
        try:
            yield
        finally:
            self._leave(start)

    def slow_down(self, seconds: float) -> None:
        """Start no call of this connection for so many seconds, after an answer with 429."""
        self._paused_until = max(self._paused_until, self._clock.monotonic() + seconds)

    def taken_over(self) -> None:
        """Begin as if the window were full: a former owner may have started calls right before."""
        self.slow_down(self._limits.transit + self._limits.window)

    @property
    def in_flight(self) -> int:
        return self._in_flight

    @property
    def waiting(self) -> int:
        return sum(not admitted.done() for queue in self._waiting.values() for admitted in queue)

    @property
    def used_ratio(self) -> float:
        """Return the used share of the budget, 0 to 1: the larger one of calls in flight and of starts."""
        now = self._clock.monotonic()
        counting = sum(start.counts_until - now > _EPSILON for start in self._starts)
        return max(self._in_flight / self._limits.in_flight, counting / self._limits.starts)

    async def aclose(self) -> None:
        """Stop the timer and cancel the calls that still wait."""
        for queue in self._waiting.values():
            for admitted in queue:
                admitted.cancel()
        if self._timer:
            self._timer.cancel()
            await asyncio.gather(self._timer, return_exceptions=True)
            self._timer = None

    async def _enter(self, priority: Priority) -> _Start:
        admitted: asyncio.Future[_Start] = asyncio.get_running_loop().create_future()
        self._waiting[priority].append(admitted)
        self._admit()
        haste = HASTE.get()
        if haste is not None and priority is Priority.REPLAY:
            haste.when_urgent(lambda: self._advance(admitted))
        try:
            return await admitted
        except asyncio.CancelledError:
            if admitted.done() and not admitted.cancelled():  # admitted and cancelled in the same step of the loop
                self._leave(admitted.result())
            else:
                admitted.cancel()
                self._admit()
            raise

    def _advance(self, admitted: "asyncio.Future[_Start]") -> None:
        """Let a call of a replay that still waits be one for a webhook, which waits behind it."""
        if admitted in self._waiting[Priority.REPLAY] and not admitted.done():
            self._waiting[Priority.REPLAY].remove(admitted)
            self._waiting[Priority.WEBHOOK].append(admitted)
            self._admit()

    def _leave(self, start: _Start) -> None:
        self._in_flight -= 1
        start.counts_until = min(start.counts_until, self._clock.monotonic() + self._limits.window)
        self._admit()

    def _admit(self) -> None:
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
                break  # a lower priority must not overtake
        self._wake_at(due, now)

    def _wait(self, priority: Priority, now: float) -> float:
        """Return the seconds until the next call of a priority may start; infinite if another call has to end first."""
        limits = self._limits
        if self._in_flight >= limits.in_flight - limits.spare_in_flight.get(priority, 0):
            return float("inf")
        wait = max(0.0, self._paused_until - now)
        too_many = len(self._starts) - (limits.starts - limits.spare_starts.get(priority, 0))
        if too_many >= 0:
            wait = max(wait, sorted(start.counts_until for start in self._starts)[too_many] - now)
        return wait if wait > _EPSILON else 0.0

    def _wake_at(self, due: float, now: float) -> None:
        if due == float("inf") or (self._timer and not self._timer.done() and self._timer_at <= due):
            return
        if self._timer:
            self._timer.cancel()
        self._timer_at = due
        self._timer = asyncio.create_task(self._fire(due - now), name="api-budget")

    async def _fire(self, seconds: float) -> None:
        await self._clock.sleep(seconds)
        self._timer, self._timer_at = None, float("inf")
        self._admit()
