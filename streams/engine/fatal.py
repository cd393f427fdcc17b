"""The ways in which a worker ends itself at once, because going on could lose or spoil data.

``os._exit`` on purpose: an exception in a Faust agent acks its record, and a graceful stop would commit.
"""

import contextlib
import logging
import os
from collections.abc import Callable
from enum import IntEnum
from typing import NoReturn

log = logging.getLogger("streams.engine")


class Exit(IntEnum):
    """Exit codes, so that a supervisor and its operator can tell why."""

    SEND_FAILED = 70
    """Faust could not send something."""
    STEP_FAILED = 71
    """A fold or a scan raised, or what it wrote could not be written."""
    GROUP_FAILED = 72
    """The group coordinator met an error that nobody would ever look at."""
    STUCK = 73
    """A rebalance or a recovery went without progress for too long."""
    STALLED = 74
    """Records wait on an owned partition and nobody works on them."""
    FROZEN = 75
    """The process stood still for so long that its partitions may be somebody else's."""
    MISPLACED = 76
    """A partition came without the tables that belong to it."""
    SLOW_STOP = 77
    """A graceful stop did not come to an end."""


class Fatal:
    """Says why in one sentence, tells the hook, and ends the process."""

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
        raise SystemExit(int(code))  # only where `leave` was replaced and returned
