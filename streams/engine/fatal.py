"""The ways in which a worker ends itself at once, because continuing could lose or corrupt data.

With ``os._exit``: an exception in a Faust agent acknowledges its record, and a graceful stop would commit.
"""

import contextlib
import logging
import os
from collections.abc import Callable
from enum import IntEnum
from typing import NoReturn

log = logging.getLogger("streams.engine")


class Exit(IntEnum):
    """Exit codes: each is one reason for which a worker ends itself."""

    SEND_FAILED = 70
    """Faust could not send something."""
    STEP_FAILED = 71
    """A fold or a scan raised, or what it wrote could not be written."""
    GROUP_FAILED = 72
    """The group coordinator failed, with an error that Faust does not look at."""
    STUCK = 73
    """A rebalance or a recovery made no progress for too long."""
    STALLED = 74
    """Records wait on an owned partition and are not processed, or the event loop is blocked."""
    MISPLACED = 76
    """A partition was assigned without the tables that belong to it."""
    SLOW_STOP = 77
    """A graceful stop did not end in time."""
    NOT_OWNER = 78
    """Another worker owns the partitions, or may own them, on which work of this one has not ended."""
    TRUNCATED = 79
    """A source partition ends before what this worker has processed of it."""
    DAMAGED = 80
    """Rows on disk cannot be read; the next start rebuilds them from the changelog."""
    DISK = 81
    """The disk takes no rows: it is full, or may not be written."""


class Fatal:
    """Logs the reason, calls the hook, and ends the process."""

    def __init__(
        self, hook: Callable[[int, str], None] = lambda _code, _reason: None, leave: Callable[[int], object] = os._exit
    ) -> None:
        self._hook = hook
        self._leave = leave
        self.reason: str | None = None

    def __call__(self, code: Exit, reason: str, cause: BaseException | None = None) -> NoReturn:
        self.reason = reason
        log.critical("Worker ends itself (exit %d): %s", code, reason, exc_info=cause)
        with contextlib.suppress(Exception):
            self._hook(int(code), reason)
        for handler in [*log.handlers, *logging.getLogger().handlers]:
            with contextlib.suppress(Exception):
                handler.flush()
        self._leave(int(code))
        raise SystemExit(int(code))  # only if `leave` returns, as in tests
