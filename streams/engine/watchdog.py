"""Detects the conditions in which Faust or aiokafka hang forever while the process looks alive.

It judges a plain value, so that every rule can be tested without a broker.
"""

import math
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from streams.engine.fatal import Exit

TP = tuple[str, int]

TICK = 0.2
"""Seconds between two looks."""

BEAT_PATIENCE = 5.0
"""Seconds without a beat of the event loop after which the loop, not the consumer, is why a request has no answer."""

TURN = 4
"""How many times longer a partition may wait while others of its topic are processed: on a machine that is too slow for
its load it waits for its turn, and an end of the process would make that worse."""

GROUP_ERROR_PATIENCE = 3.0
"""Seconds that an error of the group may last; aiokafka handles some by itself."""


@dataclass(frozen=True, slots=True)
class PartitionVitals:
    """How far one owned partition of a source topic is processed."""

    done: int | None
    delivered: int | None
    position: int | None
    end: int | None
    waiting: int

    @property
    def pending(self) -> bool:
        return self.waiting > 0 or (self.end is not None and self.position is not None and self.end > self.position)


@dataclass(frozen=True, slots=True)
class Vitals:
    """What is known of a worker at one moment."""

    group_error: str | None = None
    overdue: str | None = None
    """Why the work on partitions should have ended, if it has not."""
    moving: bool = False
    """Whether a rebalance, a recovery or the start is under way."""
    progress: tuple[int, ...] = ()
    """Numbers of which at least one changes while that makes progress."""
    partitions: Mapping[TP, PartitionVitals] = field(default_factory=dict)
    beat_age: float = 0.0
    """Seconds since the event loop last ran."""
    answer_age: float = 0.0
    """Seconds that a request to the consumer's thread has been without an answer; an error is an answer."""


Diagnosis = tuple[Exit, str]


class Watchdog:
    """Remembers since when nothing has changed, and judges whether that is too long."""

    def __init__(self, stuck_after: float, stalled_after: float) -> None:
        self._stuck_after = stuck_after
        self._stalled_after = stalled_after
        self._error_since: float | None = None
        self._progress: tuple[float, tuple[int, ...]] | None = None
        self._unchanged: dict[TP, tuple[float, PartitionVitals]] = {}
        """Since when each partition on which records wait has been as it is."""
        self._seen: Mapping[TP, PartitionVitals] = {}
        self._moved: dict[str, float] = {}
        """When a partition of a topic moved last."""

    def look(self, vitals: Vitals, now: float) -> Diagnosis | None:
        """Return why the worker must end, or null."""
        if vitals.overdue is not None:
            return Exit.NOT_OWNER, vitals.overdue
        return self._group(vitals, now) or self._stuck(vitals, now) or self._stalled(vitals, now)

    def _group(self, vitals: Vitals, now: float) -> Diagnosis | None:
        if vitals.group_error is None:
            self._error_since = None
            return None
        if self._error_since is None:
            self._error_since = now
        if now - self._error_since < GROUP_ERROR_PATIENCE:
            return None
        return Exit.GROUP_FAILED, f"the consumer group failed, which Faust ignores: {vitals.group_error}"

    def _stuck(self, vitals: Vitals, now: float) -> Diagnosis | None:
        if not vitals.moving:
            self._progress = None
            return None
        if self._progress is None or self._progress[1] != vitals.progress:
            self._progress = (now, vitals.progress)
        age = now - self._progress[0]
        if age < self._stuck_after:
            return None
        return Exit.STUCK, f"a rebalance or recovery has made no progress for {age:.0f} s"

    def _stalled(self, vitals: Vitals, now: float) -> Diagnosis | None:
        if vitals.beat_age > self._stalled_after:
            return Exit.STALLED, f"the event loop has been blocked for {vitals.beat_age:.0f} s"
        if vitals.moving:
            self._unchanged.clear()
            return None
        if vitals.answer_age > self._stalled_after and vitals.beat_age < BEAT_PATIENCE:
            return Exit.STALLED, f"the consumer has not answered for {vitals.answer_age:.0f} s"
        for tp, seen in vitals.partitions.items():
            if tp in self._seen and _moved(self._seen[tp], seen):
                self._moved[tp[0]] = now
        self._seen = vitals.partitions
        self._unchanged = {tp: self._since(tp, seen, now) for tp, seen in vitals.partitions.items() if seen.pending}
        for (topic, partition), (since, _) in self._unchanged.items():
            others_move = now - self._moved.get(topic, -math.inf) < self._stalled_after
            if now - since >= self._stalled_after * (TURN if others_move else 1):
                return (
                    Exit.STALLED,
                    f"records wait on {topic}-{partition} and nothing has moved there for {now - since:.0f} s",
                )
        return None

    def _since(self, tp: TP, seen: PartitionVitals, now: float) -> tuple[float, PartitionVitals]:
        since, before = self._unchanged.get(tp, (now, seen))
        return (now, seen) if _moved(before, seen) else (since, before)


def _moved(before: PartitionVitals, seen: PartitionVitals) -> bool:
    return (before.done, before.delivered, before.position) != (seen.done, seen.delivered, seen.position)


class Ticks:
    """Calls a function regularly in a thread of its own: the event loop may be what hangs."""

    def __init__(self, on_tick: Callable[[], None]) -> None:
        self._on_tick = on_tick
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._run, name="engine-watchdog", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._end.set()

    def _run(self) -> None:
        while not self._end.wait(TICK):
            self._on_tick()
