"""A deadline for each of many requests, with one timer for all: one for each would be a sixth of a request's cost."""

import asyncio
from types import TracebackType
from typing import Final

_LOOKS: Final = 20
"""Looks within one deadline: so much later than asked for, in parts of it, something may be cut off."""


class Deadlines:
    """Cuts off what takes longer than ``within`` seconds: a block of ``with deadlines.one()`` raises `TimeoutError`."""

    def __init__(self, within: float) -> None:
        self.within = within
        self._under_way: dict[Deadline, float] = {}
        self._timer: asyncio.TimerHandle | None = None

    def one(self) -> "Deadline":
        """Make a deadline for the block that it is entered for."""
        return Deadline(self)

    def begin(self, deadline: "Deadline") -> None:
        """Watch a deadline from now on; they end in the order in which they began."""
        loop = asyncio.get_running_loop()
        self._under_way[deadline] = loop.time() + self.within
        if self._timer is None:
            self._timer = loop.call_later(self.within / _LOOKS, self._look, loop)

    def end(self, deadline: "Deadline") -> None:
        """Watch it no longer."""
        self._under_way.pop(deadline, None)

    def _look(self, loop: asyncio.AbstractEventLoop) -> None:
        now = loop.time()
        while self._under_way:
            deadline, due = next(iter(self._under_way.items()))
            if due > now:
                break
            del self._under_way[deadline]
            deadline.pass_by()
        self._timer = loop.call_later(self.within / _LOOKS, self._look, loop) if self._under_way else None


class Deadline:
    """One block of one task."""

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

    def pass_by(self) -> None:
        """Cut off the block."""
        if self._task is not None:
            self._late = True
            self._task.cancel()
