"""Limits of time: a deadline for each of many requests, and a bounded wait for a Kafka client that stops.

The deadlines share one timer: a timer for each would be a sixth of what a request costs.
"""

import asyncio
import logging
from types import TracebackType
from typing import Final, Protocol

log = logging.getLogger("streams.backends.deadlines")

_LOOKS: Final = 20
"""Checks of the timer within one deadline: a block is cancelled at most one check later than its deadline."""


class Deadlines:
    """Cancels what takes longer than ``within`` seconds: a block of ``with deadlines.one()`` raises `TimeoutError`."""

    def __init__(self, within: float) -> None:
        self.within = within
        self._under_way: dict[Deadline, float] = {}
        self._timer: asyncio.TimerHandle | None = None

    def one(self) -> "Deadline":
        """Return a deadline for the block that it is entered for."""
        return Deadline(self)

    def begin(self, deadline: "Deadline") -> None:
        """Watch a deadline from now on; deadlines end in the order in which they began."""
        loop = asyncio.get_running_loop()
        self._under_way[deadline] = loop.time() + self.within
        if self._timer is None:
            self._timer = loop.call_later(self.within / _LOOKS, self._look, loop)

    def end(self, deadline: "Deadline") -> None:
        """Stop watching a deadline."""
        self._under_way.pop(deadline, None)

    def _look(self, loop: asyncio.AbstractEventLoop) -> None:
        now = loop.time()
        while self._under_way:
            deadline, due = next(iter(self._under_way.items()))
            if due > now:
                break
            del self._under_way[deadline]
            deadline.expire()
        self._timer = loop.call_later(self.within / _LOOKS, self._look, loop) if self._under_way else None


class Deadline:
    """The deadline of one block of one task."""

    __slots__ = ("_deadlines", "_late", "_task")

    def __init__(self, deadlines: Deadlines) -> None:
        self._deadlines = deadlines
        self._late = False
        self._task: asyncio.Task[object] | None = None

    def __enter__(self) -> None:
        self._task = asyncio.current_task()
        self._deadlines.begin(self)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._deadlines.end(self)
        if self._late and self._task is not None and self._task.uncancel() == 0 and kind is asyncio.CancelledError:
            raise TimeoutError from error

    def expire(self) -> None:
        """Cancel the block."""
        if self._task is not None:
            self._late = True
            self._task.cancel()


class Stoppable(Protocol):
    """A Kafka client that can be stopped: a consumer or a producer."""

    async def stop(self) -> None: ...


class Closable(Protocol):
    """A Kafka client that can be closed: one for administration."""

    async def close(self) -> None: ...


CLOSE_SECONDS: Final = 1.0
"""Seconds in which the connections of a client that did not stop are closed."""


async def stop_client(client: Stoppable | Closable, within: float = 10.0) -> bool:
    """Stop a Kafka client within a limited time, as a broker may be unavailable; return whether it stopped in time.

    In a task of its own: aiokafka may let a cancellation of an inner task out, which does not concern the caller, and
    leaves the connections open then (`Fetcher.close` while a fetch connects).
    """
    stopping = asyncio.ensure_future(client.close() if hasattr(client, "close") else client.stop())
    _, late = await asyncio.wait({stopping}, timeout=within)
    if late:
        stopping.cancel()
        await asyncio.gather(stopping, return_exceptions=True)
        log.warning("A Kafka client did not stop within %g s", within)
    elif stopping.cancelled():
        log.info("A Kafka client was interrupted while it stopped")
    elif error := stopping.exception():
        log.warning("A Kafka client did not stop cleanly: %r", error)
    else:
        return True
    await _disconnect(client)
    return not late


async def _disconnect(client: object) -> None:
    """Close the connections of a client that did not stop cleanly."""
    inner = getattr(client, "client", None) or getattr(client, "_client", None)
    if inner is None:
        return
    closing = asyncio.ensure_future(inner.close())
    await asyncio.wait({closing}, timeout=CLOSE_SECONDS)
    closing.cancel()
    await asyncio.gather(closing, return_exceptions=True)
