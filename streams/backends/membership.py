"""Until when the answers of the broker prove that a member of a consumer group owns its partitions.

A group gives partitions away in two cases only: a member was silent for the session timeout, or it did not join again
within the rebalance timeout after a rebalance began. So each answered request proves the membership for that long, from
the time *before it was sent*: the broker read it later. A member without an answer stops in time by itself; it cannot
know whether the broker or the network is down, so it does not end, it waits.
"""

import logging
import threading
import time
from collections.abc import Callable, Iterable
from enum import IntEnum
from typing import Any, Final

log = logging.getLogger("streams.backends")

MARGIN: Final = 0.1
"""Part of a timeout that is kept back: for the way of what is written, and for clocks of different speeds."""

GIVE_UP_WITHIN: Final = 5.0
"""Seconds within which a member that the group has removed must have given up its work."""


class Api(IntEnum):
    """Keys of the requests of Kafka's protocol that concern a membership."""

    OFFSET_COMMIT = 8
    JOIN_GROUP = 11
    HEARTBEAT = 12
    LEAVE_GROUP = 13
    SYNC_GROUP = 14


NO_ERROR: Final = 0
REBALANCE_IN_PROGRESS: Final = 27
REMOVED: Final = frozenset({22, 25, 82})
"""ILLEGAL_GENERATION, UNKNOWN_MEMBER_ID, FENCED_INSTANCE_ID."""


def clock() -> float:
    """Return seconds of a clock that also counts while the machine sleeps, where the system has one."""
    return time.clock_gettime(time.CLOCK_BOOTTIME) if hasattr(time, "CLOCK_BOOTTIME") else time.monotonic()


class Membership:
    """What the requests and answers of one consumer prove. It is written by its thread and may be read by any."""

    def __init__(self, session_timeout: float, rebalance_timeout: float, clock: Callable[[], float] = clock) -> None:
        """Both timeouts are those of the consumer, in seconds."""
        self._session = session_timeout * (1 - MARGIN)
        self._rebalance = rebalance_timeout * (1 - MARGIN)
        self._clock = clock
        self._lock = threading.Lock()
        self._joined = False
        self._heard_at = float("-inf")
        """When the newest request was sent that the group answered."""
        self._stable_at = float("-inf")
        """The same of one that was answered while no rebalance was under way."""
        self._removed_at: float | None = None
        self._generation = 0
        self._listeners: list[Callable[[], None]] = []

    @property
    def generation(self) -> int:
        """Return a number that grows whenever the ownership ends, for whatever reason."""
        return self._generation

    @property
    def joined(self) -> bool:
        """Return whether this is a member, as far as it knows: its ownership may be unproven for the moment."""
        return self._joined

    @property
    def proven(self) -> bool:
        """Return whether the partitions are still owned at this moment."""
        return self._joined and self._clock() < self._until

    @property
    def _until(self) -> float:
        return min(self._heard_at + self._session, self._stable_at + self._rebalance)

    def overdue(self) -> str | None:
        """Return why the work on the partitions should have ended by now; null if it should not."""
        now = self._clock()
        if self._removed_at is not None and now > self._removed_at + GIVE_UP_WITHIN:
            return f"the group removed this member {now - self._removed_at:.1f} s ago, and its work has not ended"
        if self._joined and self._heard_at > self._stable_at and now > self._stable_at + self._rebalance:
            return f"a rebalance began up to {now - self._stable_at:.1f} s ago, and the work has not ended"
        return None

    def on_end(self, listener: Callable[[], None]) -> None:
        """Call ``listener`` whenever the ownership ends, in the consumer's thread."""
        self._listeners.append(listener)

    def watch(self, client: Any) -> None:
        """Follow the requests of an aiokafka client, the one of the consumer."""
        send = client.send

        async def watched(node: int, request: Any, **options: Any) -> Any:
            sent_at = self._clock()
            self.sends(request.API_KEY)
            answer = await send(node, request, **options)
            if request.API_KEY in _ANSWERS:
                self.answered(request.API_KEY, error_of(answer), sent_at)
            return answer

        client.send = watched

    def sends(self, api: int) -> None:
        """Note a request before it is sent: a member that joins again, or leaves, owns nothing meanwhile."""
        if api in (Api.JOIN_GROUP, Api.LEAVE_GROUP):
            self._removed_at = None
            self._end()

    def answered(self, api: int, error: int, sent_at: float) -> None:
        """Note the answer to a request that was sent at ``sent_at``."""
        with self._lock:
            if error == NO_ERROR and api == Api.SYNC_GROUP:
                self._joined, self._removed_at = True, None
                self._heard_at = self._stable_at = sent_at
            elif error == NO_ERROR and api == Api.HEARTBEAT and self._joined:
                self._heard_at = max(self._heard_at, sent_at)
                self._stable_at = max(self._stable_at, sent_at)
            elif error == REBALANCE_IN_PROGRESS and api == Api.HEARTBEAT and self._joined:
                self._heard_at = max(self._heard_at, sent_at)
        if error in REMOVED and self._joined:
            log.warning("The group has removed this member (error %d): another one may own its partitions", error)
            self._removed_at = self._clock()
            self._end()

    def _end(self) -> None:
        with self._lock:
            if not self._joined:
                return
            self._joined = False
            self._generation += 1
        for listener in self._listeners:
            listener()


_ANSWERS: Final = frozenset({Api.HEARTBEAT, Api.SYNC_GROUP, Api.OFFSET_COMMIT})


def error_of(answer: Any) -> int:
    """Return the error of an answer; of the commits of several partitions the first."""
    if hasattr(answer, "error_code"):
        return int(answer.error_code)
    errors: Iterable[int] = (error for _, partitions in answer.topics for _, error in partitions)
    return next((error for error in errors if error), NO_ERROR)
