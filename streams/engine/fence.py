"""A worker that stood still must not write: its partitions may be somebody else's by now.

A stopped process (SIGSTOP, a paused virtual machine) cannot know that it stands still, but when it wakes it can see
that the clock jumped. A thread of its own ticks, so that a step that computes for long is not mistaken for a stop.
"""

import threading
import time
from collections.abc import Callable

from streams.engine.fatal import Exit, Fatal

TICK = 0.2
"""Seconds between two looks at the clock."""


def clock() -> float:
    """Seconds that also pass while the machine sleeps, where the system can tell."""
    return time.clock_gettime(time.CLOCK_BOOTTIME) if hasattr(time, "CLOCK_BOOTTIME") else time.monotonic()


class Fence:
    """Held as long as the ticks are close together; checked right before and right after every write."""

    def __init__(self, limit: float, fatal: Fatal, on_tick: Callable[[], None] = lambda: None) -> None:
        self._limit = limit
        self._fatal = fatal
        self._on_tick = on_tick
        self._last = clock()
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._run, name="engine-lease", daemon=True)

    def start(self) -> None:
        self._last = clock()
        self._thread.start()

    def stop(self) -> None:
        self._end.set()

    def check(self) -> None:
        """End the process if it stood still for longer than the lease allows."""
        stood = clock() - self._last
        if stood > self._limit:
            self._fatal(
                Exit.FROZEN,
                f"this process stood still for {stood:.1f} s (the lease is {self._limit:.1f} s), "
                "so another worker may own its partitions",
            )

    def _run(self) -> None:
        while not self._end.wait(TICK):
            self.check()
            self._last = clock()
            self._on_tick()
