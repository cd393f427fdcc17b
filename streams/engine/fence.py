"""Keeps a worker that stood still from writing: another worker may own its partitions by now.

A stopped process (SIGSTOP, a paused virtual machine) cannot detect that it is suspended, but when it continues it can
see that the clock jumped. A thread of its own reads the clock, so that a long computation is not taken for a stop.
"""

import threading
import time
from collections.abc import Callable

from streams.engine.fatal import Exit, Fatal

TICK = 0.2
"""Seconds between two readings of the clock."""


def clock() -> float:
    """Return seconds of a clock that also counts while the machine sleeps, where the system has one."""
    return time.clock_gettime(time.CLOCK_BOOTTIME) if hasattr(time, "CLOCK_BOOTTIME") else time.monotonic()


class Fence:
    """Open as long as the readings of the clock are close together; checked right before and after every write."""

    def __init__(
        self,
        limit: float,
        fatal: Fatal,
        on_tick: Callable[[], None] = lambda: None,
        clock: Callable[[], float] = clock,
    ) -> None:
        self._limit = limit
        self._fatal = fatal
        self._on_tick = on_tick
        self._clock = clock
        self._last = clock()
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._run, name="engine-fence", daemon=True)

    def start(self) -> None:
        self._last = self._clock()
        self._thread.start()

    def stop(self) -> None:
        self._end.set()

    def check(self) -> None:
        """End the process if it stood still for longer than the limit."""
        stood = self._clock() - self._last
        if stood > self._limit:
            self._fatal(
                Exit.FROZEN,
                f"this process stood still for {stood:.1f} s (the limit is {self._limit:.1f} s), "
                "so another worker may own its partitions",
            )

    def _run(self) -> None:
        while not self._end.wait(TICK):
            self.check()
            self._last = self._clock()
            self._on_tick()
